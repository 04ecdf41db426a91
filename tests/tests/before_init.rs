//! What the manager answers before it is initialised, and how it is.
#![no_std]
#![no_main]

#[embedded_test::tests(default_timeout = 10)]
mod tests {
    use core::ptr;
    use rtmm::{AllocError, Backend, Context, FreeError, GFP_KERNEL, MmError, Platform};
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{Counts, PAGE};

    #[test]
    fn nothing_is_served_before_init() {
        assert_eq!(MM.kmalloc(64, GFP_KERNEL), Err(AllocError::NotReady));
        assert_eq!(MM.kmalloc(5 * PAGE, GFP_KERNEL), Err(AllocError::NotReady));
        assert_eq!(MM.kzalloc(64, GFP_KERNEL), Err(AllocError::NotReady));
        assert_eq!(MM.get_free_page(GFP_KERNEL), Err(AllocError::NotReady));
        assert_eq!(MM.alloc_pages_exact(3 * PAGE, GFP_KERNEL), Err(AllocError::NotReady));
        assert_eq!(MM.vmalloc(PAGE), Err(AllocError::NotReady));
        assert_eq!(MM.ioremap(board::mmio().0, PAGE), Err(MmError::Alloc(AllocError::NotReady)));
        assert_eq!(MM.free_page_count(), 0);
        assert_eq!(board::bugs(), 0);
    }

    #[test]
    fn nothing_is_freed_before_init() {
        let page: *const u8 = MM.backend().direct_ptr(1 << 24);
        assert_eq!(MM.kfree(page), Err(FreeError::NotReady));
        assert_eq!(MM.free_page(page), Err(FreeError::NotReady));
        assert_eq!(MM.vfree(page), Err(FreeError::NotReady));
        assert_eq!(MM.iounmap(page), Err(FreeError::NotReady));
        assert_eq!(MM.ksize(page), Err(FreeError::NotReady));
        assert_eq!(MM.kfree(ptr::null()), Ok(()));
    }

    #[test]
    fn questions_are_answered_before_init() {
        let local = 0u8;
        assert!(!MM.is_vmalloc_addr(&raw const local));
        assert_eq!(MM.vmalloc_to_page(&raw const local), None);
        assert!(MM.find_area((&raw const local).addr()).is_none());
        MM.drain();
        assert_eq!(MM.meminfo().total, 0);
    }

    #[test]
    fn init_ends_the_boot_context_and_serves() {
        assert_eq!(MM.platform().context(), Context::Boot);
        board::init();
        assert_eq!(MM.platform().context(), Context::Task);
        let start = Counts::now();
        let object = MM.kmalloc(64, GFP_KERNEL).unwrap();
        MM.kfree(object.as_ptr()).unwrap();
        assert_eq!(Counts::now(), start);
    }
}
