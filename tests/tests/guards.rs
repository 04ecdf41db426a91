//! Areas that ask for guards, and areas protected as a whole: by page tables, by an MPU, by a PMP, or refused.
//!
//! The runner boots this suite once more on a machine whose PMP keeps its locks, and says so by the word `locks-stay`.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::fmt::{Arguments, Write};
    use core::ptr::NonNull;
    use heapless::{String, Vec};
    use rtmm::{
        AllocError, AreaGuards, AreaInfo, AreaOptions, Backend, FaultClass, FreeError, GFP_KERNEL, MmError, Place,
        Prot, VmArea,
    };
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{Bytes, HAS_MMU, NothingLost, PAGE};

    const HAS_REGIONS: bool = <board::Backend as Backend>::HAS_REGIONS;
    /// Pages an area takes for its two guards.
    const GUARD_PAGES: usize = if HAS_REGIONS { 2 } else { 0 };
    /// More than there are regions anywhere.
    const MANY: usize = 70;

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    /// True when regions that were set stay: only areas for ever have them, so most tests here have nothing to test.
    fn locks_stay() -> bool {
        board::args().split_ascii_whitespace().any(|word| word == "locks-stay")
    }

    const GUARDED: AreaOptions = AreaOptions::new().guards(AreaGuards::Asked);

    fn guarded(size: usize) -> Result<NonNull<u8>, AllocError> {
        MM.vmalloc_with(size, &GUARDED)
    }

    /// A guarded area, where there is such a thing.
    fn some_guarded(size: usize) -> Option<NonNull<u8>> {
        match guarded(size) {
            Err(AllocError::NoGuard) if locks_stay() || !(HAS_MMU || HAS_REGIONS) => None,
            area => Some(area.unwrap()),
        }
    }

    fn info(addr: usize) -> AreaInfo {
        let hit = MM.find_area(addr).unwrap();
        assert_eq!(hit.place, Place::Inside);
        hit.area
    }

    fn free(area: NonNull<u8>) {
        MM.vfree(area.as_ptr()).unwrap();
    }

    fn expect(report: Arguments<'_>) {
        let mut text: String<200> = String::new();
        text.write_fmt(report).unwrap();
        board::expect_fault(&text);
    }

    /// Announces a fault at `addr`, which is reported as `place` of the area at `area`, made by this suite.
    fn expect_at(addr: usize, access: &str, place: &str, area: usize) {
        if HAS_MMU {
            // With page tables the area behind may be named, whose guard it is too.
            expect(format_args!("page fault at {addr:#x} ({access}"));
        } else if board::NAME == "host" {
            expect(format_args!("page fault at {addr:#x} ({access}, not present) in {place} {area:#x}-"));
        } else if board::NAME == "virt-rv32" {
            let word = if access == "read" { "read of" } else { "write to" };
            expect(format_args!("{word} {addr:#010x} in {place} {area:#x}-"));
        } else {
            expect(format_args!("MemManage fault: access to {addr:#010x} in {place} {area:#x}-"));
        }
    }

    fn store(addr: usize) {
        // SAFETY: the callers own the byte, or expect a fault, which does not return.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(addr).write_volatile(1) };
    }

    fn load(addr: usize) -> u8 {
        // SAFETY: as above.
        unsafe { core::ptr::with_exposed_provenance::<u8>(addr).read_volatile() }
    }

    #[test]
    fn an_area_takes_the_pages_of_its_guards_and_gives_them_back() {
        let before = MM.free_page_count();
        let Some(area) = some_guarded(3 * PAGE) else { return };
        if !HAS_MMU {
            let record = usize::from(before - MM.free_page_count() > 3 + GUARD_PAGES);
            assert_eq!(before - MM.free_page_count(), 3 + GUARD_PAGES + record);
        }
        let addr = area.addr().get();
        for at in [addr, addr + PAGE, addr + 3 * PAGE - 1] {
            store(at);
            assert_eq!(load(at), 1);
        }
        assert_eq!((info(addr).addr, info(addr).pages), (addr, 3));
        free(area);
        MM.drain();
        assert_eq!(MM.free_page_count(), before);
    }

    #[test]
    fn what_was_a_guard_can_be_used_again() {
        let Some(area) = some_guarded(PAGE) else { return };
        free(area);
        let first = (area.addr().get() - PAGE) / PAGE;
        if HAS_REGIONS {
            // All memory, so that both guards are in it.
            let mut pages: Vec<NonNull<u8>, 0x2000> = Vec::new();
            let mut seen = 0;
            while let Ok(page) = MM.get_free_page(GFP_KERNEL) {
                let number = page.addr().get() / PAGE;
                if (first..first + 3).contains(&number) {
                    seen += 1;
                    store(number * PAGE);
                    store(number * PAGE + PAGE - 1);
                }
                if pages.push(page).is_err() {
                    MM.free_page(page.as_ptr()).unwrap();
                    break;
                }
            }
            assert!(seen == 3 || pages.is_full());
            for page in pages {
                MM.free_page(page.as_ptr()).unwrap();
            }
        }
    }

    #[test]
    fn fault_store_just_behind_a_guarded_area() {
        if let Some(area) = some_guarded(2 * PAGE) {
            let (addr, end) = (area.addr().get(), area.addr().get() + 2 * PAGE);
            store(end - 1);
            expect_at(end, "write", "guard after area", addr);
            store(end);
        }
    }

    #[test]
    fn fault_load_just_before_a_guarded_area() {
        if let Some(area) = some_guarded(2 * PAGE) {
            let addr = area.addr().get();
            load(addr);
            expect_at(addr - 1, "read", "guard before area", addr);
            load(addr - 1);
        }
    }

    #[test]
    fn fault_at_the_far_end_of_a_guard() {
        if let Some(area) = some_guarded(PAGE) {
            let addr = area.addr().get();
            expect_at(addr + 2 * PAGE - 1, "write", "guard after area", addr);
            store(addr + 2 * PAGE - 1);
        }
    }

    #[test]
    fn fault_report_names_the_owner() {
        if let Some(area) = some_guarded(PAGE) {
            // The file of the call that made it, which is in `guarded`.
            expect(format_args!(" {} {}", PAGE, file!()));
            store(area.addr().get() + PAGE);
        }
    }

    #[test]
    fn fault_guard_of_a_neighbour_that_was_freed_is_not_the_one_that_is_left() {
        let (Some(one), Some(other)) = (some_guarded(PAGE), some_guarded(PAGE)) else { return };
        free(one);
        let (addr, end) = (other.addr().get(), other.addr().get() + PAGE);
        expect_at(end, "write", "guard after area", addr);
        store(end);
    }

    #[test]
    fn regions_run_out_with_an_error_and_nothing_is_taken() {
        if !HAS_REGIONS || locks_stay() {
            return;
        }
        let mut areas: Vec<NonNull<u8>, MANY> = Vec::new();
        let error = loop {
            MM.drain();
            let before = MM.free_page_count();
            match guarded(PAGE) {
                Ok(area) => areas.push(area).unwrap(),
                Err(error) => {
                    MM.drain();
                    assert_eq!(MM.free_page_count(), before);
                    break error;
                }
            }
        };
        assert_eq!(error, AllocError::NoGuard);
        assert!(areas.len() >= 4, "{} areas", areas.len());
        // An area without guards is no matter of regions.
        free(MM.vmalloc(PAGE).unwrap());
        // And one that is freed makes room for another.
        free(areas.swap_remove(1));
        areas.push(guarded(PAGE).unwrap()).unwrap();
        assert_eq!(guarded(PAGE), Err(AllocError::NoGuard));
        areas.into_iter().for_each(free);
    }

    #[test]
    fn a_machine_without_regions_refuses() {
        if !HAS_MMU && !HAS_REGIONS {
            assert_eq!(guarded(PAGE), Err(AllocError::NoGuard));
            let kept = AreaOptions::new().guards(AreaGuards::Kept);
            assert_eq!(MM.vmalloc_with(PAGE, &kept), Err(AllocError::NoGuard));
        }
    }

    #[test]
    fn each_step_of_a_guarded_area_can_fail_and_leaves_nothing() {
        let Some(first) = some_guarded(PAGE) else { return };
        free(first);
        MM.drain();
        let before = MM.free_page_count();
        for k in 1.. {
            MM.faults().fail_nth(FaultClass::Any, k);
            let result = guarded(3 * PAGE);
            let hit = MM.faults().hit();
            MM.faults().disarm();
            match result {
                Ok(area) => free(area),
                Err(error) => {
                    assert!(
                        hit && matches!(error, AllocError::NoMemory | AllocError::NoGuard | AllocError::NoAddressSpace)
                    )
                }
            }
            MM.drain();
            assert_eq!(MM.free_page_count(), before);
            MM.check().unwrap();
            if !hit {
                assert!(k > 2, "{k} steps");
                break;
            }
        }
    }

    #[test]
    fn alignment_is_honoured_between_guards() {
        for shift in [0, 1, 3] {
            let options = GUARDED.align(PAGE << shift);
            let area = match MM.vmalloc_with(3 * PAGE, &options) {
                Err(AllocError::NoGuard) => continue,
                area => area.unwrap(),
            };
            assert!(area.addr().get().is_multiple_of(PAGE << shift));
            MM.check().unwrap();
            free(area);
        }
    }

    #[test]
    fn frees_of_a_guard_or_of_the_inside_are_refused() {
        let Some(area) = some_guarded(2 * PAGE) else { return };
        for at in
            [area.as_ptr().wrapping_sub(PAGE), area.as_ptr().wrapping_add(2 * PAGE), area.as_ptr().wrapping_add(PAGE)]
        {
            let error = MM.vfree(at).unwrap_err();
            assert!(matches!(error, FreeError::Interior | FreeError::DoubleFree), "{error}");
        }
        free(area);
        assert!(MM.vfree(area.as_ptr()).is_err());
    }

    #[test]
    fn guards_are_no_part_of_the_area_for_who_reads_or_lists_it() {
        let Some(area) = some_guarded(2 * PAGE) else { return };
        let addr = area.addr().get();
        // SAFETY: two pages of ours.
        unsafe { area.write_bytes(0x5a, 2 * PAGE) };
        for at in [addr - 1, addr + 2 * PAGE] {
            let at = core::ptr::without_provenance(at);
            assert_eq!(MM.vmalloc_to_page(at), None);
        }
        let mut window = [1u8; 24];
        // SAFETY: nobody writes to the area.
        let read = unsafe { MM.vread(&mut window, core::ptr::without_provenance(addr - 8)) };
        assert_eq!((read, &window[..8], &window[8..]), (24, &[0; 8][..], &[0x5a; 16][..]));
        // SAFETY: as above.
        let read = unsafe { MM.vread(&mut window, core::ptr::without_provenance(addr + 2 * PAGE - 8)) };
        assert_eq!((read, &window[..8], &window[8..]), (8, &[0x5a; 8][..], &[0; 16][..]));
        let listed = MM.vmallocinfo().areas().find(|listed| listed.addr == addr);
        assert_eq!(listed.map(|listed| listed.pages), Some(2));
        free(area);
    }

    #[test]
    fn an_area_that_moves_keeps_its_guards() {
        let Some(area) = some_guarded(PAGE) else { return };
        // SAFETY: nobody else uses it.
        let moved = unsafe { MM.vrealloc(area.as_ptr(), 3 * PAGE, GFP_KERNEL) }.unwrap().unwrap();
        let place = MM.find_area(moved.addr().get() + 3 * PAGE).map(|hit| hit.place);
        assert!(matches!(place, Some(Place::GuardAfter | Place::GuardBefore)), "{place:?}");
        free(moved);
    }

    #[test]
    fn protection_of_a_whole_area_of_a_power_of_two() {
        let mut area = VmArea::new_in(4 * PAGE, &MM).unwrap();
        let addr = area.as_ptr().addr();
        store(addr);
        if !HAS_MMU && (!HAS_REGIONS || locks_stay()) {
            assert_eq!(area.protect(Prot::Read), Err(MmError::Unsupported));
            return;
        }
        area.protect(Prot::Read).unwrap();
        assert_eq!(load(addr), 1);
        // From outside it can be written whatever its protection is.
        // SAFETY: it is ours.
        unsafe { MM.vwrite(&[7], core::ptr::without_provenance(addr)) };
        assert_eq!(load(addr), 7);
        area.protect(Prot::ReadWrite).unwrap();
        store(addr + 4 * PAGE - 1);
    }

    #[test]
    fn protection_that_no_region_covers_exactly_is_refused() {
        let odd = Bytes::vmalloc(3 * PAGE).unwrap();
        let even = Bytes::vmalloc(4 * PAGE).unwrap();
        if !HAS_MMU {
            assert_eq!(MM.set_memory(odd.ptr(), 3, Prot::Read), Err(MmError::Unsupported));
            assert_eq!(MM.set_memory(even.ptr(), 2, Prot::Read), Err(MmError::Unsupported));
        }
        odd.free().unwrap();
        even.free().unwrap();
    }

    #[test]
    fn fault_store_to_an_area_that_was_made_read_only() {
        let options = AreaOptions::new().prot(Prot::Read);
        let area = match MM.vmalloc_with(4 * PAGE, &options) {
            Err(AllocError::Unsupported) if !HAS_MMU && (!HAS_REGIONS || locks_stay()) => return,
            area => area.unwrap(),
        };
        let addr = area.addr().get();
        load(addr + PAGE);
        expect_at(addr + PAGE, "write", "area", addr);
        store(addr + PAGE);
    }

    #[test]
    fn fault_guards_of_an_area_for_ever() {
        let area = match MM.vmalloc_with(PAGE, &AreaOptions::new().guards(AreaGuards::Kept)) {
            Err(AllocError::NoGuard) if !HAS_MMU && !HAS_REGIONS => return,
            area => area.unwrap(),
        };
        let addr = area.addr().get();
        if locks_stay() {
            assert_eq!(guarded(PAGE), Err(AllocError::NoGuard));
            assert_eq!(MM.vfree(area.as_ptr()), Err(FreeError::Reserved));
        }
        expect_at(addr + PAGE, "write", "guard after area", addr);
        store(addr + PAGE);
    }
}
