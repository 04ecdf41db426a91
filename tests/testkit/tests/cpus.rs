//! Several CPUs on one manager without an MMU: threads, and what each CPU keeps for itself.

use backend_nommu::Arena;
use mm_core::*;
use rtmm_testkit::Ram;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const CPUS: usize = 4;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
    /// Locks taken by this thread.
    static LOCKS: Cell<usize> = const { Cell::new(0) };
    /// What this thread does is done in an interrupt.
    static ATOMIC: Cell<bool> = const { Cell::new(false) };
}

/// A thread is a CPU; nothing interrupts it.
struct Thread;

// SAFETY: there are no interrupts, and a thread sets its CPU before it begins.
unsafe impl Interrupts for Thread {
    type State = ();

    fn mask() {}

    unsafe fn restore((): ()) {}

    fn relax() {
        std::thread::yield_now();
    }
}

/// A ticket lock that counts.
struct Counting(TicketLock<Thread>);

// SAFETY: the inner lock's.
unsafe impl RawLock for Counting {
    const NEW: Self = Counting(TicketLock::NEW);
    type Token = ();

    fn acquire(&self) {
        LOCKS.set(LOCKS.get() + 1);
        self.0.acquire();
    }

    unsafe fn release(&self, (): ()) {
        // SAFETY: by the caller.
        unsafe { self.0.release(()) }
    }

    fn try_acquire(&self) -> Option<()> {
        LOCKS.set(LOCKS.get() + 1);
        self.0.try_acquire()
    }

    fn mask() {}

    unsafe fn unmask((): ()) {}
}

#[derive(Clone, Default)]
struct Threads {
    bugs: Arc<Mutex<Vec<Bug>>>,
    /// CPUs whose interrupts are pending, for those that look.
    pending: Arc<[AtomicBool; CPUS]>,
}

impl Platform for Threads {
    type Lock = Counting;
    const CPUS: usize = CPUS;
    // A CPU without a thread does not answer.
    const MAX_POLLS: u64 = 1 << 10;

    fn context(&self) -> Context {
        if ATOMIC.get() { Context::Atomic } else { Context::Task }
    }

    fn bug(&self, bug: &Bug) {
        self.bugs.lock().unwrap().push(*bug);
    }

    fn cpu(&self) -> usize {
        CPU.get()
    }

    fn send_ipi(&self, cpu: usize) {
        self.pending[cpu].store(true, SeqCst);
    }

    fn relax(&self) {
        std::thread::yield_now();
    }
}

type Manager = Mm<Threads, Arena>;

struct Rig {
    mm: Manager,
    platform: Threads,
    _ram: Ram,
}

fn rig() -> Rig {
    let (start, len) = (0x2000_0000, 8 << 20);
    let ram = Ram::new(&[PhysRange { start, end: start + len }]);
    let (platform, arena) = (Threads::default(), Arena::new());
    // SAFETY: the rig keeps the RAM longer than the manager.
    unsafe { arena.place(ram.ptr(start).unwrap(), start as usize) };
    let mm = Mm::new(platform.clone(), arena);
    let mut map: BootMap = BootMap::new();
    map.add_ram(start, len).unwrap();
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << 40 }];
    let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
    // SAFETY: the memory is this manager's alone, and is there.
    unsafe { mm.init(&mut map.finish(12, 44).unwrap(), &config) }.unwrap();
    Rig { mm, platform, _ram: ram }
}

/// Runs `f` as CPU `cpu`, whose interrupts are taken before and after.
fn on<R>(mm: &Manager, cpu: usize, f: impl FnOnce() -> R) -> R {
    let before = CPU.replace(cpu);
    if !mm.is_cpu_up(cpu) {
        mm.cpu_up();
    }
    let result = f();
    CPU.set(before);
    result
}

fn drained(mm: &Manager) -> (usize, CheckReport) {
    (0..CPUS).filter(|&cpu| mm.is_cpu_up(cpu)).for_each(|cpu| on(mm, cpu, || mm.handle_ipi()));
    mm.drain();
    (0..CPUS).filter(|&cpu| mm.is_cpu_up(cpu)).for_each(|cpu| on(mm, cpu, || mm.handle_ipi()));
    mm.drain();
    (mm.free_page_count(), mm.check().unwrap())
}

#[test]
fn pairs_of_calls_take_no_lock() {
    let rig = rig();
    let mm = &rig.mm;
    let pair = || {
        let object = mm.kmalloc(64, GFP_KERNEL).unwrap();
        mm.kfree(object.as_ptr()).unwrap();
    };
    for cpu in 0..CPUS {
        on(mm, cpu, || {
            (0..2).for_each(|_| pair());
            LOCKS.set(0);
            (0..1000).for_each(|_| pair());
            assert_eq!(LOCKS.get(), 0, "CPU {cpu}");
        });
    }
    mm.check().unwrap();
}

#[test]
fn a_batch_of_objects_costs_one_lock() {
    let rig = rig();
    let mm = &rig.mm;
    let warm: Vec<_> = (0..32).map(|_| mm.kmalloc(64, GFP_KERNEL).unwrap()).collect();
    LOCKS.set(0);
    let objects: Vec<_> = (0..32).map(|_| mm.kmalloc(64, GFP_KERNEL).unwrap()).collect();
    assert!(LOCKS.get() <= 3, "{} locks", LOCKS.get());
    warm.iter().chain(&objects).for_each(|object| mm.kfree(object.as_ptr()).unwrap());
    drained(mm);
}

#[test]
fn a_second_free_is_refused_wherever_the_object_lies() {
    let rig = rig();
    let mm = &rig.mm;
    let before = drained(mm);
    let size = 96;
    for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)] {
        let object = mm.kmalloc(size, GFP_KERNEL).unwrap().as_ptr();
        assert_eq!(mm.kfree(object.wrapping_add(8)), Err(FreeError::Interior));
        on(mm, first, || mm.kfree(object)).unwrap();
        assert_eq!(on(mm, second, || mm.kfree(object)), Err(FreeError::DoubleFree), "CPU {first}, then {second}");
        assert_eq!(mm.krealloc(object, 2 * size, GFP_KERNEL), Err(AllocError::BadPointer));
    }
    assert_eq!(mm.slabinfo().active().0, 0);
    mm.check().unwrap();
    assert_eq!(drained(mm), before);
    assert!(rig.platform.bugs.lock().unwrap().is_empty());
}

#[test]
fn a_second_free_of_a_page_is_refused_whichever_cpu_keeps_it() {
    let rig = rig();
    let mm = &rig.mm;
    let before = drained(mm);
    for (first, second) in [(0, 0), (0, 1), (1, 0)] {
        let free = mm.free_page_count();
        let page = mm.get_free_page(GFP_KERNEL).unwrap().as_ptr();
        assert_eq!(mm.free_page_count(), free - 1);
        on(mm, first, || mm.free_page(page)).unwrap();
        assert_eq!(mm.free_page_count(), free, "what a CPU keeps is free");
        for order in [0, 1] {
            assert_eq!(on(mm, second, || mm.free_pages(page, order)), Err(FreeError::DoubleFree));
        }
        assert_eq!(mm.kfree(page), Err(FreeError::DoubleFree));
    }
    mm.check().unwrap();
    assert_eq!(drained(mm), before);
}

#[test]
fn objects_of_other_cpus_come_back_and_are_given_out_once() {
    let rig = rig();
    let mm = &rig.mm;
    let before = drained(mm);
    for _ in 0..100 {
        let objects: Vec<_> = (0..100).map(|_| mm.kmalloc(40, GFP_KERNEL).unwrap().as_ptr()).collect();
        let mut sorted = objects.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), objects.len());
        assert_eq!(mm.slabinfo().active().0, 100);
        for (i, object) in objects.into_iter().enumerate() {
            on(mm, i % CPUS, || mm.kfree(object)).unwrap();
        }
        assert_eq!(mm.slabinfo().active().0, 0);
    }
    assert_eq!(drained(mm), before);
}

#[test]
fn a_cpu_that_goes_down_keeps_nothing() {
    let rig = rig();
    let mm = &rig.mm;
    let before = drained(mm);
    on(mm, 3, || {
        let object = mm.kmalloc(64, GFP_KERNEL).unwrap();
        let page = mm.get_free_page(GFP_KERNEL).unwrap();
        mm.kfree(object.as_ptr()).unwrap();
        mm.free_page(page.as_ptr()).unwrap();
        mm.cpu_down();
    });
    assert!(!mm.is_cpu_up(3));
    assert_eq!(drained(mm), before);
}

#[test]
fn all_memory_can_be_had_though_cpus_keep_some() {
    let rig = rig();
    let mm = &rig.mm;
    // Another CPU that takes its interrupts.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            on(mm, 1, || {
                let page = mm.get_free_page(GFP_KERNEL).unwrap();
                mm.free_page(page.as_ptr()).unwrap();
                while !stop.load(SeqCst) {
                    mm.handle_ipi();
                    std::thread::yield_now();
                }
            });
        });
        while !mm.is_cpu_up(1) {
            std::thread::yield_now();
        }
        let all = mm.free_page_count();
        let mut pages = Vec::new();
        while let Ok(page) = mm.get_free_page(GFP_KERNEL | Gfp::NOWARN) {
            pages.push(page);
        }
        // What is left is the reserve.
        assert!(mm.free_page_count() < all / 8, "{} of {all} pages are left", mm.free_page_count());
        pages.into_iter().for_each(|page| mm.free_page(page.as_ptr()).unwrap());
        stop.store(true, SeqCst);
    });
}

/// Frees by address need no flush here and are done anywhere; only of batches is anything put off.
#[test]
fn batches_that_interrupts_end_are_freed_by_the_next_call_for_an_area_when_they_are_many() {
    let rig = rig();
    let mm = &rig.mm;
    on(mm, 1, || ());
    let before = drained(mm);
    for round in 1..=3 {
        let areas: Vec<_> = (0..11).map(|_| mm.vmalloc(4096).unwrap().as_ptr()).collect();
        ATOMIC.set(true);
        for area in areas {
            let mut batch = mm.free_batch();
            batch.vfree(area).unwrap();
            drop(batch);
        }
        ATOMIC.set(false);
        assert_eq!(mm.deferred_areas(), (11 * round, 11 * round));
    }
    let area = mm.vmalloc(4096).unwrap().as_ptr();
    assert_eq!(mm.deferred_areas(), (0, 0));
    mm.vfree(area).unwrap();
    assert_eq!(drained(mm), before);
    assert!(rig.platform.bugs.lock().unwrap().is_empty());
}

/// Whoever comes second is told so, also while the first is at it, and nothing can be had before that is done.
#[test]
fn of_cpus_that_start_the_manager_at_once_one_does() {
    let (start, len) = (0x2000_0000, 1 << 20);
    for _ in 0..if cfg!(miri) { 2 } else { 50 } {
        let ram = Ram::new(&[PhysRange { start, end: start + len }]);
        let (platform, arena) = (Threads::default(), Arena::new());
        // SAFETY: the RAM outlives the manager.
        unsafe { arena.place(ram.ptr(start).unwrap(), start as usize) };
        let mm: Manager = Mm::new(platform.clone(), arena);
        let (started, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let gate = std::sync::Barrier::new(CPUS);
        std::thread::scope(|scope| {
            for _ in 0..CPUS {
                scope.spawn(|| {
                    let mut map: BootMap = BootMap::new();
                    map.add_ram(start, len).unwrap();
                    let mut usable = map.finish(12, 44).unwrap();
                    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << 40 }];
                    let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
                    gate.wait();
                    // SAFETY: the memory is this manager's alone; the one of these calls that goes on has it.
                    match unsafe { mm.init(&mut usable, &config) } {
                        Ok(()) => started.fetch_add(1, SeqCst),
                        Err(MmError::AlreadyInit) => refused.fetch_add(1, SeqCst),
                        Err(error) => panic!("{error}"),
                    };
                    let early = mm.get_free_page(GFP_KERNEL);
                    match early {
                        Ok(page) => mm.free_page(page.as_ptr()).unwrap(),
                        Err(error) => assert_eq!(error, AllocError::NotReady),
                    }
                });
            }
        });
        assert_eq!((started.into_inner(), refused.into_inner()), (1, CPUS - 1));
        mm.check().unwrap();
        assert!(platform.bugs.lock().unwrap().is_empty());
    }
}

fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as usize
}

#[test]
fn threads_that_free_each_other_s_memory_lose_nothing() {
    const SLOTS: usize = 40;
    let steps = if cfg!(miri) { 60 } else { 20_000 };
    let rig = rig();
    let mm = &rig.mm;
    (0..CPUS).for_each(|cpu| on(mm, cpu, || ()));
    let before = drained(mm);
    let objects: [AtomicPtr<u8>; SLOTS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; SLOTS];
    let pages: [AtomicPtr<u8>; SLOTS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; SLOTS];
    let areas: [AtomicPtr<u8>; SLOTS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; SLOTS];
    let devices: [AtomicPtr<u8>; SLOTS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; SLOTS];
    let conflicts = AtomicUsize::new(0);
    let running = AtomicUsize::new(CPUS);
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (objects, pages, running) = (&objects, &pages, &running);
            let (areas, devices, conflicts) = (&areas, &devices, &conflicts);
            scope.spawn(move || {
                CPU.set(cpu);
                let mut seed = 0x5EED_0001 + cpu as u64;
                for _ in 0..steps {
                    mm.handle_ipi();
                    let slot = random(&mut seed) % SLOTS;
                    let size = [16, 64, 64, 200, 1000, 3000][random(&mut seed) % 6];
                    let which = random(&mut seed);
                    if which.is_multiple_of(8) {
                        let area = mm.vmalloc(size).unwrap().as_ptr();
                        // SAFETY: ours, that long.
                        unsafe { area.write_bytes(cpu as u8, size) };
                        // By a batch that an interrupt ends, it is put off.
                        ATOMIC.set(which.is_multiple_of(16));
                        let mut batch = mm.free_batch();
                        batch.vfree(areas[slot].swap(area, SeqCst)).unwrap();
                        drop(batch);
                        ATOMIC.set(false);
                    } else if which % 8 == 1 {
                        let phys = PhysAddr(0x4000_0000 + (slot % 4) as u64 * 4096);
                        let mapped = if (which / 8).is_multiple_of(2) {
                            mm.ioremap(phys, 4096)
                        } else {
                            mm.ioremap_wc(phys, 4096)
                        };
                        let new = match mapped {
                            Ok(device) => device.as_ptr(),
                            Err(MmError::AliasConflict) => {
                                conflicts.fetch_add(1, SeqCst);
                                std::ptr::null_mut()
                            }
                            Err(error) => panic!("{error}"),
                        };
                        mm.iounmap(devices[slot].swap(new, SeqCst)).unwrap();
                    } else if which % 8 == 2 {
                        let page = mm.alloc_page(GFP_KERNEL).unwrap();
                        let map = mm.vm_map_ram(&[page]).unwrap().as_ptr();
                        // SAFETY: a page of ours.
                        unsafe { map.write_bytes(cpu as u8, 4096) };
                        mm.vm_unmap_ram(map, 1).unwrap();
                        mm.free_pages_frame(page, 0).unwrap();
                    } else if !random(&mut seed).is_multiple_of(3) {
                        let object = mm.kmalloc(size, GFP_KERNEL).unwrap().as_ptr();
                        // SAFETY: ours, that long.
                        unsafe { object.write_bytes(cpu as u8, size) };
                        let old = objects[slot].swap(object, SeqCst);
                        mm.kfree(old).unwrap();
                    } else {
                        let page = mm.get_free_page(GFP_KERNEL).unwrap().as_ptr();
                        // SAFETY: a page of ours.
                        unsafe { page.write_bytes(cpu as u8, 4096) };
                        let old = pages[slot].swap(page, SeqCst);
                        mm.free_page(old).unwrap();
                    }
                }
                running.fetch_sub(1, SeqCst);
                while running.load(SeqCst) != 0 {
                    mm.handle_ipi();
                    std::thread::yield_now();
                }
            });
        }
    });
    objects.iter().for_each(|slot| mm.kfree(slot.load(SeqCst)).unwrap());
    pages.iter().for_each(|slot| mm.free_page(slot.load(SeqCst)).unwrap());
    areas.iter().for_each(|slot| mm.vfree(slot.load(SeqCst)).unwrap());
    devices.iter().for_each(|slot| mm.iounmap(slot.load(SeqCst)).unwrap());
    assert!(conflicts.into_inner() != 0 || cfg!(miri), "two cache modes never met");
    assert_eq!(drained(mm), before);
    assert!(rig.platform.bugs.lock().unwrap().is_empty(), "{:?}", rig.platform.bugs.lock().unwrap());
}
