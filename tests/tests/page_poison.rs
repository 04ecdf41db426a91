//! Poisoned pages: planted writes after a free, found on the board.
#![no_std]
#![no_main]

#[embedded_test::setup]
fn setup() {
    use rtmm_tests::board::{self, MM};
    assert_eq!(MM.page_poisoning_enable(), Ok(()));
    board::init();
}

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use rtmm::{FreeError, GFP_KERNEL, Pfn, ScrubCursor};
    use rtmm_tests::PAGE;
    use rtmm_tests::board::{self, MM};

    fn withdrawn() -> usize {
        MM.check().unwrap();
        MM.meminfo().withdrawn as usize / PAGE
    }

    /// A page that was just freed, and its address.
    fn freed() -> (Pfn, *mut u8) {
        let page = MM.get_zeroed_page(GFP_KERNEL).unwrap().as_ptr();
        MM.free_page(page).unwrap();
        (MM.pfn_of(page).unwrap(), page)
    }

    #[test]
    fn a_read_after_the_free_sees_poison() {
        let (_, page) = freed();
        // SAFETY: RAM of the manager, free; nobody else runs.
        let all = (0..PAGE).all(|at| unsafe { page.add(at).read_volatile() } == 0xaa);
        assert!(all && board::bugs() == 0);
    }

    #[test]
    fn a_write_after_the_free_is_found_when_the_page_would_come_again() {
        let (pfn, page) = freed();
        // SAFETY: as above; this is what the test plants.
        unsafe { page.add(PAGE - 1).write_volatile(0) };
        for _ in 0..4 {
            assert_ne!(MM.get_free_page(GFP_KERNEL).unwrap().as_ptr(), page);
        }
        assert_eq!((board::bugs(), withdrawn()), (1, 1));
        assert_eq!(MM.free_pages_frame(pfn, 0), Err(FreeError::Reserved));
    }

    #[test]
    fn a_scrub_finds_it_before_anybody_takes_the_page() {
        let (_, page) = freed();
        let free = MM.free_page_count();
        // SAFETY: as above.
        unsafe { page.add(PAGE / 2).write_volatile(0xab) };
        let (mut cursor, mut lost, mut checked) = (ScrubCursor::default(), 0, 0);
        loop {
            let step = MM.scrub(&mut cursor, 64);
            (lost, checked) = (lost + step.withdrawn, checked + step.checked);
            if step.wrapped {
                break;
            }
        }
        assert_eq!((lost, checked), (1, free));
        assert_eq!((board::bugs(), withdrawn(), MM.free_page_count()), (1, 1, free - 1));
    }
}
