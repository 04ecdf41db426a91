//! The symbol of set-up.

/// Makes `rtmm_init` for a `&'static Mm` over [`CallbackPlatform`](crate::platform::CallbackPlatform).
#[macro_export]
macro_rules! export_setup {
    ($manager:expr) => {
        /// The C interface of set-up.
        #[allow(missing_docs, clippy::missing_safety_doc)]
        mod rtmm_c_setup {
            use super::*;
            use $crate::rtmm_config;

            /// Sets the manager up, once. 0, or a negative errno value: `-EINVAL` for a null, misaligned or senseless
            /// configuration (size, version, page size, flags, a required callback, an array, a zone, the window),
            /// `-E2BIG` for too many entries, `-EEXIST` when it was called before, `-ENOMEM` for RAM without a usable
            /// page or in too many pieces. After an error other than `-EEXIST` that `config` alone shows, it may be
            /// called again.
            ///
            /// The callbacks are used from here on, and must do what `struct rtmm_config` says. The RAM less what is
            /// reserved must be memory that nothing else uses, reached at its physical address, or on x86-64 at
            /// 0xffff888000000000 plus its physical address, as under Linux.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_init(config: *const rtmm_config) -> i32 {
                // SAFETY: by the caller.
                unsafe { $crate::calls::init($manager, config) }
            }
        }
    };
}
