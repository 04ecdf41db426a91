//! The debugging features, all at once: stray writes planted on the board are found, named and contained.
//!
//! What the hardware can stop, it stops: where free pages are hidden, the tests of poisoned pages plant nothing, and
//! those of faults do.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::fmt::Write;
    use core::panic::Location;
    use heapless::String;
    use rtmm::{Backend, Bug, CacheFlags, FreeError, GFP_ATOMIC, GFP_KERNEL, Overwritten, Pfn, ScrubCursor};
    use rtmm_tests::PAGE;
    use rtmm_tests::board::{self, MM};

    /// Free pages cannot be reached.
    const HIDES: bool = <board::Backend as Backend>::CAN_HIDE;
    /// Bytes of a red zone.
    const ZONE: usize = 64;

    fn withdrawn() -> usize {
        MM.check().unwrap();
        MM.meminfo().withdrawn as usize / PAGE
    }

    /// Stores a byte the compiler knows nothing about.
    fn poke(at: *mut u8, byte: u8) {
        // SAFETY: RAM of the manager beside or in what was the test's, which it spoils; or the store faults, as is
        // expected.
        unsafe { at.write_volatile(byte) };
    }

    /// A page that was just freed, and its address.
    fn freed() -> (Pfn, *mut u8) {
        let page = MM.get_zeroed_page(GFP_KERNEL).unwrap().as_ptr();
        MM.free_page(page).unwrap();
        (MM.pfn_of(page).unwrap(), page)
    }

    /// Says that the next access faults in the page that `addr` lies in, which `line` of this file allocated.
    fn expect_fault(addr: *mut u8, access: &str, line: u32) {
        let mut text: String<160> = String::new();
        let pfn = MM.pfn_of(addr.wrapping_sub(addr.addr() % PAGE)).unwrap();
        write!(text, "page fault at {addr:p} ({access}, not present) in freed page {pfn}").unwrap();
        if line != 0 {
            write!(text, ", last allocated at tests/tests/debug.rs:{line}:").unwrap();
        }
        board::expect_fault(&text);
    }

    /// The last report: the object, the byte, what it was part of, and the line that allocated the object.
    #[track_caller]
    fn damaged(reports: usize) -> (usize, usize, Overwritten, u32) {
        assert_eq!(board::bugs(), reports);
        match board::last_bug() {
            Some(Bug::ObjectDamaged { object, at, what, owner: Some(owner), .. }) => (object, at, what, owner.line()),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn here() -> u32 {
        Location::caller().line()
    }

    #[test]
    fn fault_read_of_a_freed_page() {
        let (page, line) = (MM.get_free_page(GFP_KERNEL).unwrap().as_ptr(), here());
        MM.free_page(page).unwrap();
        if HIDES {
            let at = page.wrapping_add(123);
            expect_fault(at, "read", line);
            // SAFETY: it faults.
            let byte = unsafe { at.read_volatile() };
            panic!("nothing stopped the read of {byte}");
        }
    }

    #[test]
    fn fault_write_to_a_freed_block() {
        let (block, line) = (MM.get_free_pages(GFP_KERNEL, 2).unwrap().as_ptr(), here());
        // The translation is in the TLB now.
        poke(block, 1);
        MM.free_pages(block, 2).unwrap();
        if HIDES {
            expect_fault(block, "write", line);
            poke(block, 2);
            panic!("nothing stopped the write");
        }
    }

    #[test]
    fn fault_write_to_a_freed_large_object() {
        let object = MM.kmalloc(3 * PAGE, GFP_ATOMIC).unwrap().as_ptr();
        let last = object.wrapping_add(3 * PAGE - 1);
        poke(last, 1);
        MM.kfree(object).unwrap();
        if HIDES {
            expect_fault(last, "write", 0);
            poke(last, 2);
            panic!("nothing stopped the write");
        }
    }

    #[test]
    fn fault_write_to_an_object_whose_slab_went_back() {
        let object = MM.kmalloc(64, GFP_KERNEL).unwrap().as_ptr();
        MM.kfree(object).unwrap();
        MM.drain();
        if HIDES {
            expect_fault(object, "write", 0);
            poke(object, 2);
            panic!("nothing stopped the write");
        }
    }

    /// Each way to take pages gives ones that can be used, whole.
    #[test]
    fn what_is_allocated_can_be_reached() {
        for round in 0..3 {
            let page = MM.get_free_page(GFP_ATOMIC).unwrap().as_ptr();
            let block = MM.get_free_pages(GFP_KERNEL, 2).unwrap().as_ptr();
            let large = MM.kmalloc(3 * PAGE, GFP_KERNEL).unwrap().as_ptr();
            let exact = MM.alloc_pages_exact(3 * PAGE, GFP_KERNEL).unwrap().as_ptr();
            let area = MM.vmalloc(4 * PAGE).unwrap().as_ptr();
            let mut bulk = [None; 5];
            assert_eq!(MM.alloc_pages_bulk(GFP_KERNEL, &mut bulk), Ok(5));
            for (at, len) in [(page, PAGE), (block, 4 * PAGE), (large, 3 * PAGE), (exact, 3 * PAGE), (area, 4 * PAGE)] {
                // SAFETY: ours, that long.
                let all = unsafe { core::slice::from_raw_parts_mut(at, len) };
                assert!(all.iter().all(|byte| *byte == 0), "all memory comes zeroed");
                all.fill(round);
            }
            for pfn in bulk.iter().flatten() {
                // SAFETY: ours.
                unsafe { MM.backend().with_frame(*pfn, |page| page.write_bytes(round, PAGE)) };
            }
            MM.free_pages_bulk(&mut bulk).unwrap();
            MM.vfree(area).unwrap();
            MM.free_pages_exact(exact, 3 * PAGE).unwrap();
            MM.kfree(large).unwrap();
            MM.free_pages(block, 2).unwrap();
            MM.free_page(page).unwrap();
        }
        assert_eq!((board::bugs(), withdrawn()), (0, 0));
    }

    #[test]
    fn a_read_after_the_free_sees_poison() {
        if HIDES {
            return;
        }
        let (_, page) = freed();
        // SAFETY: RAM of the manager, free; nobody else runs.
        let all = (0..PAGE).all(|at| unsafe { page.add(at).read_volatile() } == 0xaa);
        assert!(all && board::bugs() == 0);
    }

    #[test]
    fn a_write_after_the_free_is_found_when_the_page_would_come_again() {
        if HIDES {
            return;
        }
        let (pfn, page) = freed();
        poke(page.wrapping_add(PAGE - 1), 0);
        for _ in 0..4 {
            assert_ne!(MM.get_free_page(GFP_KERNEL).unwrap().as_ptr(), page);
        }
        assert_eq!((board::bugs(), withdrawn()), (1, 1));
        assert_eq!(MM.free_pages_frame(pfn, 0), Err(FreeError::Reserved));
    }

    #[test]
    fn a_scrub_finds_it_before_anybody_takes_the_page() {
        let (pfn, page) = freed();
        let free = MM.free_page_count();
        if HIDES {
            // As broken memory would: past the direct map's back.
            // SAFETY: a free frame, shown for the moment; nobody else runs.
            unsafe {
                let run = rtmm::PageRange { start: pfn, count: 1 };
                MM.backend().show(run);
                poke(page.wrapping_add(PAGE / 2), 0xab);
                MM.backend().hide(run);
            }
        } else {
            poke(page.wrapping_add(PAGE / 2), 0xab);
        }
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

    #[test]
    fn memory_that_goes_bad_by_itself_is_found_by_a_scrub_and_withdrawn() {
        if !board::args().split_ascii_whitespace().any(|word| word == "memory-goes-bad") {
            return;
        }
        let (pfn, _) = freed();
        let free = MM.free_page_count();
        board::say!("SPOIL {:x} {:x}", pfn.0 as u64 * PAGE as u64 + PAGE as u64 / 2 + 1, 0x55);
        // Whoever spoils it does so while this goes on; the time limit of the test is the bound.
        let (mut cursor, mut lost) = (ScrubCursor::default(), 0);
        while lost == 0 {
            lost = MM.scrub(&mut cursor, 64).withdrawn;
        }
        assert_eq!((board::bugs(), withdrawn(), MM.free_page_count()), (1, 1, free - 1));
        assert_eq!(MM.free_pages_frame(pfn, 0), Err(FreeError::Reserved));
    }

    #[test]
    fn an_overflow_of_1_to_64_bytes_is_found_at_kfree_and_names_object_and_owner() {
        let mut reports = 0;
        for size in [8, 24, 64, 256, 1024] {
            for far in [0, 1, 17, ZONE - 1] {
                let (object, line) = (MM.kmalloc(size, GFP_KERNEL).unwrap().as_ptr(), here());
                let at = object.wrapping_add(size + far);
                poke(at, 1);
                MM.kfree(object).unwrap();
                reports += 1;
                assert_eq!(damaged(reports), (object.addr(), at.addr(), Overwritten::RedZone, line));
            }
        }
        MM.check().unwrap();
    }

    #[test]
    fn an_underflow_is_found_at_kfree() {
        let (object, line) = (MM.kmalloc(100, GFP_KERNEL).unwrap().as_ptr(), here());
        let at = object.wrapping_sub(1);
        poke(at, 1);
        MM.kfree(object).unwrap();
        assert_eq!(damaged(1), (object.addr(), at.addr(), Overwritten::RedZone, line));
    }

    #[test]
    fn a_write_after_kfree_is_found_at_the_reuse_or_by_a_look_at_all() {
        let (object, line) = (MM.kmalloc(48, GFP_KERNEL).unwrap().as_ptr(), here());
        let kept = MM.kmalloc(48, GFP_KERNEL).unwrap().as_ptr();
        MM.kfree(object).unwrap();
        // SAFETY: a slot of a live slab; nobody else runs.
        assert!((0..48).all(|i| unsafe { object.add(i).read_volatile() } == 0x6b), "a read sees poison");
        assert_eq!(MM.kmalloc_validate(), 0);
        poke(object.wrapping_add(20), 1);
        assert_eq!(MM.kmalloc_validate(), 1);
        assert_eq!(damaged(1), (object.addr(), object.addr() + 20, Overwritten::Poison, line));
        assert_ne!(MM.kmalloc(48, GFP_KERNEL).unwrap().as_ptr(), object);
        assert_eq!(damaged(2), (object.addr(), object.addr() + 20, Overwritten::Poison, line));
        assert_eq!(MM.object_owner(kept).unwrap().line(), line + 1);
    }

    #[test]
    fn a_caches_objects_are_watched_as_it_asks() {
        let flags = CacheFlags::RED_ZONE | CacheFlags::POISON;
        let cache = MM.kmem_cache_create("watched", 40, 0, flags, None).unwrap();
        let (object, line) = (cache.alloc(GFP_KERNEL).unwrap().as_ptr(), here());
        poke(object.wrapping_add(40), 1);
        cache.free(object).unwrap();
        assert_eq!(damaged(1), (object.addr(), object.addr() + 40, Overwritten::RedZone, line));
        let other = cache.alloc(GFP_KERNEL).unwrap().as_ptr();
        cache.free(other).unwrap();
        poke(other, 1);
        assert_ne!(cache.alloc(GFP_KERNEL).unwrap().as_ptr(), other);
        assert_eq!(damaged(2).0, other.addr());
        core::mem::forget(cache);
    }

    #[test]
    fn what_is_lost_is_listed_by_its_call() {
        let guard = MM.leak_guard();
        let (object, line) = (MM.kmalloc(100, GFP_KERNEL).unwrap(), here());
        let listed = MM.allocations().filter(|one| one.caller.is_some_and(|caller| caller.line() == line));
        assert_eq!(listed.count(), 1);
        let mut text: String<2048> = String::new();
        write!(text, "{}", MM.allocations()).unwrap();
        assert!(text.contains("debug.rs"), "{text}");
        MM.kfree(object.as_ptr()).unwrap();
        drop(guard);
    }
}
