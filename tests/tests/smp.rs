//! Four CPUs on one manager: shootdowns, storms, and what happens when one of them does not answer.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 120)]
mod tests {
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
    use core::{hint, ptr};
    use heapless::Vec;
    use oorandom::Rand32;
    use rtmm::{
        Bug, CacheMode, Context, FreeError, GFP_ATOMIC, GFP_KERNEL, Gfp, MmError, PageTable, Pfn, PhysAddr, Platform,
        Prot, RawLock, VirtAddr, Walk,
    };
    use rtmm_tests::board::{self, CPUS, MM, cpu, on_all, on_cpu, wait_for};
    use rtmm_tests::{Bytes, Hoard, NothingLost, PAGE};

    type Lock = <board::BoardPlatform as Platform>::Lock;

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    /// Runs `f` with the interrupts of this CPU masked.
    fn masked<R>(f: impl FnOnce() -> R) -> R {
        let masked = Lock::mask();
        let result = f();
        // SAFETY: of the `mask` above.
        unsafe { Lock::unmask(masked) };
        result
    }

    fn others() -> impl Iterator<Item = usize> {
        let me = cpu();
        (0..CPUS).filter(move |&cpu| cpu != me)
    }

    #[test]
    fn every_cpu_takes_the_tables_cache_modes_as_they_are_meant(_all: NothingLost) {
        on_all(|| rtmm_tests::check_pat(board::pat()));
    }

    #[test]
    fn all_cpus_are_up_and_are_tasks(_all: NothingLost) {
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        on_all(|| {
            assert_eq!(MM.platform().context(), Context::Task);
            assert_eq!(masked(|| MM.platform().context()), Context::Atomic);
            SEEN.fetch_add(1 << (8 * cpu()), SeqCst);
        });
        assert_eq!(SEEN.load(SeqCst), 0x0101_0101);
        assert!((0..CPUS).all(|cpu| MM.is_cpu_up(cpu)) && !MM.is_cpu_up(CPUS));
    }

    /// What readers are to find at `AT` in stage `STAGE`, and how many have.
    static STAGE: AtomicUsize = AtomicUsize::new(0);
    static AT: AtomicPtr<usize> = AtomicPtr::new(ptr::null_mut());
    static READ: AtomicUsize = AtomicUsize::new(0);
    const LAST: usize = usize::MAX;

    fn read_each_stage() {
        let mut last = 0;
        loop {
            let stage = STAGE.load(SeqCst);
            if stage == LAST {
                return;
            }
            if stage == last {
                hint::spin_loop();
                continue;
            }
            last = stage;
            let at = AT.load(SeqCst);
            // SAFETY: the writer keeps the area until all readers have read.
            let found = unsafe { at.read_volatile() };
            assert_eq!(found, stage, "CPU {} reads what was there before", cpu());
            READ.fetch_add(1, SeqCst);
        }
    }

    fn all_read(stage: usize, at: *mut usize) {
        AT.store(at, SeqCst);
        READ.store(0, SeqCst);
        STAGE.store(stage, SeqCst);
        while READ.load(SeqCst) != CPUS - 1 {
            hint::spin_loop();
        }
    }

    #[test]
    fn no_reader_sees_a_stale_translation_after_vfree(_all: NothingLost) {
        others().for_each(|cpu| on_cpu(cpu, read_each_stage));
        for round in 0..150 {
            let area = MM.vmalloc(PAGE).unwrap().as_ptr().cast::<usize>();
            // SAFETY: ours, as are those below.
            unsafe { area.write(2 * round + 1) };
            all_read(2 * round + 1, area);
            let frame = MM.vmalloc_to_pfn(area.cast()).unwrap();
            MM.vfree(area.cast()).unwrap();
            // The frame, with what was written to it, stays here, and the address comes back with another.
            let page = MM.alloc_pages_exact(PAGE, GFP_KERNEL).unwrap();
            let again = MM.vmalloc(PAGE).unwrap().as_ptr().cast::<usize>();
            assert_eq!(again, area, "the lowest address is given first");
            assert_ne!(MM.vmalloc_to_pfn(again.cast()).unwrap(), frame);
            // SAFETY: as above.
            unsafe { again.write(2 * round + 2) };
            all_read(2 * round + 2, again);
            MM.vfree(again.cast()).unwrap();
            MM.free_pages_exact(page.as_ptr(), PAGE).unwrap();
        }
        STAGE.store(LAST, SeqCst);
        others().for_each(wait_for);
    }

    static STOP: AtomicBool = AtomicBool::new(false);
    static STARTED: AtomicUsize = AtomicUsize::new(0);

    fn wait_until_started(cpus: usize) {
        while STARTED.load(SeqCst) != cpus {
            hint::spin_loop();
        }
    }

    /// Four CPUs take the last pages from each other, then all are refused again and again at the same time, in every way
    /// to fail: each request ends, and all comes back.
    #[test]
    fn when_all_cpus_run_out_of_memory_at_once_each_is_refused_and_nothing_is_lost(_all: NothingLost) {
        /// Pages that are left to all of them.
        const LAST_PAGES: usize = 128;
        /// Refusals of each: few, for where processors are fewer than CPUs each takes some milliseconds.
        const FAILURES: usize = 80;
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        static REFUSED: AtomicUsize = AtomicUsize::new(0);
        static FULL: AtomicUsize = AtomicUsize::new(0);
        static DONE: AtomicUsize = AtomicUsize::new(0);
        const QUIET: Gfp = GFP_ATOMIC.union(Gfp::NOWARN);

        fn wait_for_all(here: &AtomicUsize) {
            here.fetch_add(1, SeqCst);
            while here.load(SeqCst) != CPUS {
                hint::spin_loop();
            }
        }
        let last = [(); LAST_PAGES].map(|()| MM.alloc_page(GFP_KERNEL).unwrap());
        let hoard = Hoard::of_everything();
        last.iter().for_each(|&page| MM.free_pages_frame(page, 0).unwrap());
        MM.drain();
        on_all(|| {
            let mut pages: Vec<Pfn, LAST_PAGES> = Vec::new();
            while let Ok(page) = MM.alloc_page(QUIET) {
                pages.push(page).expect("there are no more");
            }
            TAKEN.fetch_add(pages.len(), SeqCst);
            wait_for_all(&FULL);
            for i in 0..FAILURES {
                let refused = match i % 8 {
                    0 => MM.kmalloc(PAGE, QUIET).is_err(),
                    1 => MM.vmalloc(PAGE).is_err(),
                    // It may wait, so that it takes back what lies about first.
                    2 => MM.get_free_page(GFP_KERNEL | Gfp::NOWARN).is_err(),
                    3 => MM.get_free_pages(QUIET, 3).is_err(),
                    4 => masked(|| MM.get_free_page(QUIET).is_err()),
                    _ => MM.get_free_page(QUIET).is_err(),
                };
                REFUSED.fetch_add(usize::from(refused), SeqCst);
            }
            wait_for_all(&DONE);
            pages.iter().for_each(|&page| MM.free_pages_frame(page, 0).unwrap());
        });
        assert_eq!((TAKEN.load(SeqCst), REFUSED.load(SeqCst)), (LAST_PAGES, CPUS * FAILURES));
        hoard.free();
    }

    #[test]
    fn a_spinner_with_interrupts_off_that_polls_completes_a_shootdown(_all: NothingLost) {
        on_cpu(1, || {
            masked(|| {
                STARTED.fetch_add(1, SeqCst);
                while !STOP.load(SeqCst) {
                    MM.poll_shootdown();
                    hint::spin_loop();
                }
            });
        });
        wait_until_started(1);
        for pages in 1..60 {
            let area = MM.vmalloc(pages * PAGE).unwrap();
            MM.vfree(area.as_ptr()).unwrap();
        }
        STOP.store(true, SeqCst);
        wait_for(1);
    }

    #[test]
    fn a_spinner_with_interrupts_off_that_does_not_poll_is_reported_and_its_frames_are_never_reused(
        mut all: NothingLost,
    ) {
        let before = MM.check().unwrap();
        on_cpu(1, || {
            masked(|| {
                STARTED.fetch_add(1, SeqCst);
                while !STOP.load(SeqCst) {
                    hint::spin_loop();
                }
            });
        });
        let area = MM.vmalloc(3 * PAGE).unwrap();
        let frames: Vec<Pfn, 3> =
            (0..3).map(|page| MM.vmalloc_to_page(area.as_ptr().wrapping_add(page * PAGE)).unwrap()).collect();
        let second = MM.vmalloc(PAGE).unwrap();
        wait_until_started(1);
        MM.vfree(area.as_ptr()).unwrap();
        assert!(matches!(board::last_bug(), Some(Bug::NoAcknowledgement { cpu: 1 })), "{:?}", board::last_bug());
        assert_eq!(MM.vfree(area.as_ptr()), Err(FreeError::DoubleFree));
        // Told once; what comes after is kept back without waiting.
        MM.vfree(second.as_ptr()).unwrap();
        all.expect_bugs(1);
        MM.drain();
        assert!(MM.check().unwrap().unflushed >= 4);
        // Neither the frames nor the addresses come again, though everything is taken.
        let mut taken: Vec<(*mut u8, usize), 256> = Vec::new();
        for order in (0..=10).rev() {
            while let Ok(block) = MM.get_free_pages(Gfp::NOWARN, order) {
                let first = MM.pfn_of(block.as_ptr()).unwrap().0;
                let range = first..first + (1 << order);
                assert!(frames.iter().all(|frame| !range.contains(&frame.0)), "a frame a CPU may reach was given out");
                taken.push((block.as_ptr(), order)).unwrap();
            }
        }
        taken.iter().for_each(|&(block, order)| MM.free_pages(block, order).unwrap());
        for _ in 0..20 {
            let other = MM.vmalloc(PAGE).unwrap();
            assert!(other != area && other != second);
            assert!(!frames.contains(&MM.vmalloc_to_page(other.as_ptr()).unwrap()));
        }
        STOP.store(true, SeqCst);
        wait_for(1);
        on_cpu(1, || MM.poll_shootdown());
        wait_for(1);
        // Heard again: frees are whole again, and what was lost stays lost.
        let lost = MM.check().unwrap().unflushed;
        let third = MM.vmalloc(PAGE).unwrap();
        MM.vfree(third.as_ptr()).unwrap();
        MM.drain();
        assert_eq!(MM.check().unwrap().unflushed, lost);
        assert!(MM.check().unwrap().free + lost <= before.free);
        // Something was lost, which is the point.
        core::mem::forget(all);
    }

    #[test]
    fn locks_taken_with_interrupts_off_do_not_hold_a_shootdown_up(_all: NothingLost) {
        others().for_each(|cpu| {
            on_cpu(cpu, || {
                STARTED.fetch_add(1, SeqCst);
                while !STOP.load(SeqCst) {
                    masked(|| {
                        for _ in 0..50 {
                            let object = MM.kmalloc(2000, GFP_ATOMIC).unwrap();
                            let page = MM.get_free_pages(GFP_ATOMIC, 1).unwrap();
                            MM.free_pages(page.as_ptr(), 1).unwrap();
                            MM.kfree(object.as_ptr()).unwrap();
                        }
                    });
                }
            });
        });
        wait_until_started(CPUS - 1);
        for pages in 1..120 {
            let area = MM.vmalloc(pages * PAGE).unwrap();
            MM.vfree(area.as_ptr()).unwrap();
        }
        STOP.store(true, SeqCst);
        others().for_each(wait_for);
    }

    #[test]
    fn a_free_in_an_interrupt_is_put_off_and_flushed_everywhere_later(_all: NothingLost) {
        static AREA: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
        for _ in 0..20 {
            AREA.store(MM.vmalloc(PAGE).unwrap().as_ptr(), SeqCst);
            board::in_interrupt(|| MM.vfree(AREA.load(SeqCst)).unwrap());
            assert_eq!(MM.deferred_areas().0, 1);
            assert_eq!(masked(|| MM.flush_deferred()), 0, "it would wait for others with interrupts off");
            assert_eq!(MM.flush_deferred(), 1);
        }
    }

    /// Where CPUs leave memory for each other to free.
    const SLOTS: usize = 64;
    static OBJECTS: [AtomicPtr<u8>; SLOTS] = [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS];
    static PAGES: [AtomicPtr<u8>; SLOTS] = [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS];
    static AREAS: [AtomicPtr<u8>; 8] = [const { AtomicPtr::new(ptr::null_mut()) }; 8];
    static DEVICES: [AtomicPtr<u8>; 8] = [const { AtomicPtr::new(ptr::null_mut()) }; 8];
    static STEPS: AtomicUsize = AtomicUsize::new(0);
    /// How often a device had another cache mode already.
    static CONFLICTS: AtomicUsize = AtomicUsize::new(0);

    /// Swaps what it has made for what another left, and frees that.
    fn exchange(slots: &[AtomicPtr<u8>], random: &mut Rand32, new: *mut u8, free: impl FnOnce(*mut u8)) {
        let old = slots[random.rand_range(0..slots.len() as u32) as usize].swap(new, SeqCst);
        if !old.is_null() {
            free(old);
        }
    }

    /// Maps some of four pages that are no RAM, which nobody touches, in one of two cache modes, and leaves them.
    fn map_device(random: &mut Rand32) {
        let phys = PhysAddr(board::mmio().0.0 + u64::from(random.rand_range(0..4)) * PAGE as u64);
        let len = PAGE * (1 + random.rand_range(0..2) as usize);
        let (mapped, cache) = match random.rand_range(0..2) {
            0 => (MM.ioremap(phys, len), CacheMode::Uncached),
            _ => (MM.ioremap_wc(phys, len), CacheMode::WriteCombining),
        };
        match mapped {
            Ok(at) => {
                let Walk::Mapped(found) = MM.backend().walk_kernel(VirtAddr(at.addr().get())) else {
                    panic!("a live mapping is not mapped");
                };
                assert_eq!((u64::from(found.pfn.0) * PAGE as u64, found.cache), (phys.0, cache));
                exchange(&DEVICES, random, at.as_ptr(), |old| MM.iounmap(old).unwrap());
            }
            Err(MmError::AliasConflict) => {
                CONFLICTS.fetch_add(1, SeqCst);
                // Whose mode it is goes some day.
                exchange(&DEVICES, random, ptr::null_mut(), |old| MM.iounmap(old).unwrap());
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Each frame is seen through a mapping as what is written there.
    fn map_frames(
        map: fn(&[Pfn]) -> Result<NonNull<u8>, MmError>,
        unmap: fn(NonNull<u8>, usize) -> Result<(), FreeError>,
    ) {
        let frames: [Pfn; 3] = core::array::from_fn(|_| MM.alloc_page(GFP_KERNEL).unwrap());
        let area = map(&frames).unwrap();
        for (page, frame) in frames.iter().enumerate() {
            // SAFETY: ours.
            unsafe { area.as_ptr().add(page * PAGE).cast::<u32>().write_volatile(frame.0) };
        }
        for (page, frame) in frames.iter().enumerate() {
            // SAFETY: as above.
            assert_eq!(unsafe { area.as_ptr().add(page * PAGE).cast::<u32>().read_volatile() }, frame.0);
        }
        unmap(area, frames.len()).unwrap();
        frames.iter().for_each(|frame| MM.free_pages_frame(*frame, 0).unwrap());
    }

    /// Pages of an area lose and get back what they allow, and it may go before they did.
    fn protect_pages(random: &mut Rand32) {
        let pages = 2 + random.rand_range(0..8) as usize;
        let area = MM.vmalloc(pages * PAGE).unwrap();
        let at = |page: usize| area.as_ptr().wrapping_add(page * PAGE);
        // SAFETY: ours.
        (0..pages).for_each(|page| unsafe { at(page).write_volatile(page as u8 + 1) });
        let first = random.rand_range(0..pages as u32) as usize;
        MM.set_memory(at(first), pages - first, Prot::Read).unwrap();
        MM.set_memory(at(pages - 1), 1, Prot::ReadExecute).unwrap();
        // SAFETY: as above.
        (0..pages).for_each(|page| assert_eq!(unsafe { at(page).read_volatile() }, page as u8 + 1));
        if random.rand_range(0..2) == 0 {
            MM.set_memory(at(0), pages, Prot::ReadWrite).unwrap();
            // SAFETY: as above.
            (0..pages).for_each(|page| unsafe { at(page).write_volatile(0) });
        }
        MM.vfree(area.as_ptr()).unwrap();
    }

    fn storm() {
        let mut random = Rand32::new(0x5EED + cpu() as u64);
        let mut own: Vec<Bytes, 24> = Vec::new();
        for _ in 0..STEPS.load(SeqCst) {
            match random.rand_range(0..16) {
                0..=2 => {
                    let size = 8 + random.rand_range(0..3000) as usize;
                    let object = MM.kmalloc(size, GFP_KERNEL).unwrap();
                    // SAFETY: ours, that long.
                    unsafe { object.as_ptr().write_bytes(cpu() as u8, size) };
                    exchange(&OBJECTS, &mut random, object.as_ptr(), |old| MM.kfree(old).unwrap());
                }
                3 | 4 => {
                    let page = MM.get_free_page(GFP_KERNEL).unwrap();
                    // SAFETY: a page of ours.
                    unsafe { page.as_ptr().write_bytes(cpu() as u8, PAGE) };
                    exchange(&PAGES, &mut random, page.as_ptr(), |old| MM.free_page(old).unwrap());
                }
                5 => {
                    let pages = 1 + random.rand_range(0..40) as usize;
                    let area = MM.vmalloc(pages * PAGE).unwrap();
                    for page in 0..pages {
                        // SAFETY: ours.
                        unsafe { area.as_ptr().add(page * PAGE).write_volatile(cpu() as u8) };
                    }
                    exchange(&AREAS, &mut random, area.as_ptr(), |old| MM.vfree(old).unwrap());
                }
                6 => map_frames(|frames| MM.vmap(frames, Prot::ReadWrite), |area, _| MM.vunmap(area.as_ptr())),
                7 => {
                    let at = AREAS[random.rand_range(0..8) as usize].load(SeqCst);
                    let _ = MM.find_area(at.addr().wrapping_add(random.rand_range(0..3 * PAGE as u32) as usize));
                    let _ = MM.vmalloc_to_page(at);
                    // Whoever has it, this is refused and changes nothing.
                    assert!(at.is_null() || MM.vfree(at.wrapping_add(1)).is_err());
                }
                8 => {
                    masked(|| {
                        let object = MM.kmalloc(1 + random.rand_range(0..500) as usize, GFP_ATOMIC).unwrap();
                        MM.kfree(object.as_ptr()).unwrap();
                        // Put off, and flushed by any CPU.
                        exchange(&AREAS, &mut random, ptr::null_mut(), |old| MM.vfree(old).unwrap());
                    });
                }
                9 => map_device(&mut random),
                10 => map_frames(|frames| MM.vm_map_ram(frames), |area, count| MM.vm_unmap_ram(area.as_ptr(), count)),
                // It has every other CPU flush several times.
                11 if random.rand_range(0..4) == 0 => protect_pages(&mut random),
                _ if own.is_full() || (!own.is_empty() && random.rand_range(0..2) == 0) => {
                    let block = own.swap_remove(random.rand_range(0..own.len() as u32) as usize);
                    assert!(block.holds(cpu() as u8), "{block:?} was overwritten");
                    block.free().unwrap();
                }
                _ => {
                    let size = 1 + random.rand_range(0..2 * PAGE as u32) as usize;
                    let mut block = Bytes::kmalloc(size, GFP_KERNEL).unwrap();
                    block.fill(cpu() as u8);
                    own.push(block).unwrap();
                }
            }
        }
        own.into_iter().for_each(|block| {
            assert!(block.holds(cpu() as u8), "{block:?} was overwritten");
            block.free().unwrap();
        });
    }

    #[test]
    fn a_storm_from_four_cpus_loses_nothing(all: NothingLost) {
        STEPS.store(1000, SeqCst);
        on_all(storm);
        OBJECTS.iter().for_each(|slot| MM.kfree(slot.load(SeqCst)).unwrap());
        PAGES.iter().for_each(|slot| MM.free_page(slot.load(SeqCst)).unwrap());
        AREAS.iter().for_each(|slot| MM.vfree(slot.load(SeqCst)).unwrap());
        DEVICES.iter().for_each(|slot| MM.iounmap(slot.load(SeqCst)).unwrap());
        assert_ne!(CONFLICTS.load(SeqCst), 0, "two cache modes never met");
        all.check();
    }

    /// The page that one CPU writes to and another protects, and how far they are with it.
    static PAGE_TO_PROTECT: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
    static WRITTEN: AtomicBool = AtomicBool::new(false);
    static PROTECTED: AtomicBool = AtomicBool::new(false);

    /// A store that the compiler can neither drop nor move.
    fn store(at: *mut u8) {
        // SAFETY: a byte of an area that stays; where it may not be stored to, the fault does not return.
        unsafe { core::arch::asm!("mov byte ptr [{at}], 7", at = in(reg) at, options(nostack)) };
    }

    /// On CPU 1, which drops no translation unless it is asked to: that of its first store would do for the second.
    fn write_before_and_after() {
        let at = PAGE_TO_PROTECT.load(SeqCst);
        store(at);
        WRITTEN.store(true, SeqCst);
        while !PROTECTED.load(SeqCst) {
            hint::spin_loop();
        }
        // SAFETY: the area stays, and may be read.
        assert_eq!(unsafe { at.read_volatile() }, 7, "it can still be read");
        let mut text: heapless::String<160> = heapless::String::new();
        let area = at.addr() - PAGE;
        let report = format_args!("page fault at {:#x} (write, present) in area {area:#x}", at.addr());
        core::fmt::Write::write_fmt(&mut text, report).unwrap();
        board::expect_fault(&text);
        store(at);
        panic!("CPU {} wrote to a page that CPU 0 protected", cpu());
    }

    #[test]
    fn fault_on_a_cpu_that_wrote_to_a_page_before_another_protected_it(_all: NothingLost) {
        let area = MM.vmalloc(3 * PAGE).unwrap().as_ptr();
        PAGE_TO_PROTECT.store(area.wrapping_add(PAGE), SeqCst);
        on_cpu(1, write_before_and_after);
        while !WRITTEN.load(SeqCst) {
            hint::spin_loop();
        }
        MM.set_memory(area, 3, Prot::Read).unwrap();
        PROTECTED.store(true, SeqCst);
        wait_for(1);
        panic!("the work of CPU 1 ended");
    }

    /// What two CPUs free at the same time.
    static TARGET: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
    static ROUND: AtomicUsize = AtomicUsize::new(0);
    static FREED: AtomicUsize = AtomicUsize::new(0);
    static REFUSED: AtomicUsize = AtomicUsize::new(0);

    fn free_each_round() {
        let mut last = 0;
        loop {
            let round = ROUND.load(SeqCst);
            if round == LAST {
                return;
            }
            if round != last {
                last = round;
                match MM.kfree(TARGET.load(SeqCst)) {
                    Ok(()) => FREED.fetch_add(1, SeqCst),
                    Err(FreeError::DoubleFree) => REFUSED.fetch_add(1, SeqCst),
                    Err(error) => panic!("{error}"),
                };
            }
            hint::spin_loop();
        }
    }

    #[test]
    fn of_frees_of_one_object_by_the_other_cpus_one_is_done(_all: NothingLost) {
        // Another object of the slab stays, so that no free finds its pages gone.
        let other = MM.kmalloc(200, GFP_KERNEL).unwrap();
        others().for_each(|cpu| on_cpu(cpu, free_each_round));
        for round in 1..300 {
            TARGET.store(MM.kmalloc(200, GFP_KERNEL).unwrap().as_ptr(), SeqCst);
            ROUND.store(round, SeqCst);
            while FREED.load(SeqCst) + REFUSED.load(SeqCst) != round * (CPUS - 1) {
                hint::spin_loop();
            }
            assert_eq!(FREED.load(SeqCst), round);
        }
        ROUND.store(LAST, SeqCst);
        others().for_each(wait_for);
        MM.kfree(other.as_ptr()).unwrap();
    }
}
