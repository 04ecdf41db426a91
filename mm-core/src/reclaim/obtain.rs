//! One slow path for objects and blocks, where code is to be small and nobody waits.

use super::Again;
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::{AllocError, Packed};
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;
use crate::slab::Store;
use crate::vmalloc::AreaOptions;
use crate::wait::Block;
use core::panic::Location;

/// What is asked for.
pub enum Wanted<'a, P: Platform, B: Backend> {
    /// An object of a cache.
    Object(Store<'a, P, B>),
    /// Frames, which have a kernel address. The caller zeroes them.
    Block(Block),
    /// An area.
    Area(usize, &'a AreaOptions, &'static Location<'static>),
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Requests go through [`obtain`](Self::obtain).
    pub(crate) const OBTAINS: bool = cfg!(feature = "small")
        && !P::CAN_WAIT
        && P::CPUS == 1
        // Objects that are watched are looked at before they are handed out.
        && !cfg!(feature = "kmalloc-debug");

    /// Takes what is wanted, by any means the admitted flags allow: an object, or a block, by its address.
    /// Reclaim is for `pages`. The fault point of a block is the caller's.
    #[inline(always)]
    pub(crate) fn obtain(&self, wanted: &Wanted<'_, P, B>, flags: Gfp, pages: usize) -> Packed {
        self.retry(self.attempt(wanted, flags), wanted, flags, pages)
    }

    /// [`obtain`](Self::obtain) behind its first attempt.
    #[inline(always)]
    pub(crate) fn retry(&self, mut last: Packed, wanted: &Wanted<'_, P, B>, flags: Gfp, pages: usize) -> Packed {
        if last.result().is_err()
            && let Some(again) = self.again()
        {
            last = again(self, wanted, flags, last);
        }
        if let Err(error) = last.result() {
            crate::trace::pages_failed(pages, flags, error);
        }
        last
    }

    /// An error that was asked for stays one.
    fn is_short(&self, error: AllocError) -> bool {
        error.may_pass() && !self.memory.was_injected()
    }

    /// The rest of [`obtain`](Self::obtain), behind a first attempt that found too little memory.
    #[inline(never)]
    pub(crate) fn obtain_again(&self, wanted: &Wanted<'_, P, B>, flags: Gfp, mut last: Packed) -> Packed {
        if !last.result().is_err_and(|error| self.is_short(error)) {
            return last;
        }
        let pages = match wanted {
            // A page, and one for its descriptor.
            Wanted::Object(_) => 2,
            Wanted::Block(block) => block.pages,
            Wanted::Area(size, ..) => size.div_ceil(B::PAGE_SIZE),
        };
        self.reclaim_steps(flags, pages, &mut || {
            last = self.attempt(wanted, flags);
            match last.result() {
                Ok(_) => Again::Done,
                Err(error) if self.is_short(error) => Again::Short,
                Err(_) => Again::Hopeless,
            }
        });
        last
    }

    #[inline(always)]
    fn attempt(&self, wanted: &Wanted<'_, P, B>, flags: Gfp) -> Packed {
        match wanted {
            #[cfg(feature = "small")]
            Wanted::Object(store) => store.object(flags, None),
            #[cfg(not(feature = "small"))]
            Wanted::Object(slabs) => Packed::new(slabs.object_now(flags)),
            Wanted::Area(size, options, caller) => self.area_now(*size, options, flags, caller),
            Wanted::Block(block) => {
                let taken = self.memory.take_by_depth(block.pages, block.flags, block.kind, block.link).result();
                Packed::new(taken.map(|pfn| self.block_ptr(Pfn(pfn))))
            }
        }
    }
}
