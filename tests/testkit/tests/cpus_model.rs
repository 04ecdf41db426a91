//! A whole manager on a simulated machine of three CPUs, under a scheduler that tries many interleavings: at each lock,
//! each interrupt sent, each turn of a wait, and between any two accesses of memory.
//!
//! One CPU makes and frees areas, one reads them by its TLB, which never forgets by itself, and one takes and gives
//! pages: whatever the reader reaches must not be a page of the third. The same is run with platforms that tell the
//! manager there is one CPU and flush the others as they please, which must turn it red.

use backend_mmu_x86::X86;
use mm_core::*;
use rtmm_testkit::rig::WINDOW;
use rtmm_testkit::{Access, SimConfig, SimMachine};
use shuttle::{check_pct, check_random, thread};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const MIB: u64 = 1 << 20;
const CPUS: usize = 3;

/// How the other CPUs learn what to flush.
const ACKNOWLEDGED: usize = 0;
const NOBODY_FLUSHES: usize = 1;
const NOBODY_WAITS: usize = 2;

type Manager<const HOW: usize> = Mm<Model<HOW>, X86<SimMachine>>;

/// What runs, for the lock, which knows nothing else. All threads of a model are one of the system's.
struct World {
    machine: SimMachine,
    poll: Box<dyn Fn()>,
}

thread_local! {
    static WORLD: Cell<Option<&'static World>> = const { Cell::new(None) };
}

shuttle::thread_local! {
    static CPU: Cell<usize> = Cell::new(0);
}

fn cpu() -> usize {
    CPU.with(Cell::get)
}

/// Lets another CPU run.
fn step() {
    thread::yield_now();
    if let Some(world) = WORLD.get() {
        world.machine.run_on(cpu());
    }
}

struct Spin(AtomicBool);

// SAFETY: a swap admits one holder, and nothing interrupts a thread.
unsafe impl RawLock for Spin {
    const NEW: Self = Spin(AtomicBool::new(false));
    type Token = ();

    fn acquire(&self) {
        if WORLD.get().is_none() {
            assert!(!self.0.swap(true, SeqCst));
            return;
        }
        step();
        while self.0.swap(true, SeqCst) {
            if let Some(world) = WORLD.get() {
                (world.poll)();
            }
            step();
        }
    }

    unsafe fn release(&self, (): ()) {
        self.0.store(false, SeqCst);
    }

    fn mask() {}

    unsafe fn unmask((): ()) {}
}

struct Model<const HOW: usize> {
    /// What CPUs are to flush when they feel like it.
    pending: Mutex<[Vec<VirtRange>; CPUS]>,
}

impl<const HOW: usize> Platform for Model<HOW> {
    type Lock = Spin;
    const CPUS: usize = if HOW == ACKNOWLEDGED { CPUS } else { 1 };

    fn context(&self) -> Context {
        Context::Task
    }

    fn bug(&self, bug: &Bug) {
        panic!("{bug}");
    }

    fn cpu(&self) -> usize {
        cpu()
    }

    fn send_ipi(&self, _: usize) {
        step();
    }

    fn relax(&self) {
        step();
    }

    fn flush_remote(&self, range: VirtRange) {
        if HOW == NOBODY_WAITS {
            self.pending.lock().unwrap().iter_mut().for_each(|ranges| ranges.push(range));
            step();
        }
    }
}

/// What a CPU does between two instructions of its own.
fn interrupts<const HOW: usize>(mm: &Manager<HOW>) {
    mm.handle_ipi();
    let ranges = std::mem::take(&mut mm.platform().pending.lock().unwrap()[cpu()]);
    ranges.into_iter().for_each(|range| mm.backend().flush(range));
}

fn manager<const HOW: usize>(lowmem_end: u64) -> Result<Manager<HOW>, MmError> {
    let mut config = SimConfig::new(&[(MIB, 2 * MIB)]);
    (config.cpus, config.lowmem_end) = (CPUS, lowmem_end);
    let machine = SimMachine::<false>::new(config);
    let mut map: BootMap = BootMap::new();
    map.add_ram(MIB, MIB).unwrap();
    let mut usable = map.finish(12, 46).unwrap();
    machine.boot(WINDOW, &mut || Some(Pfn((usable.alloc_top(4096, 4096, lowmem_end)?.start >> 12) as u32)));
    let mm = Mm::new(Model { pending: Mutex::default() }, X86::new(machine));
    let low = ZoneSpec { kind: ZoneKind::Normal, end: lowmem_end.min(1 << 40) };
    let zones = [low, ZoneSpec { kind: ZoneKind::HighMem, end: 1 << 41 }];
    // SAFETY: the memory is this manager's alone.
    unsafe { mm.init(&mut usable, &Config::new(&zones, WINDOW)) }?;
    Ok(mm)
}

fn run<const HOW: usize>() {
    WORLD.set(None);
    CPU.with(|cpu| cpu.set(0));
    let mm = Arc::new(manager::<HOW>(u64::MAX).unwrap());
    let before = mm.check().unwrap();
    let (for_poll, machine) = (mm.clone(), mm.backend().machine().clone());
    let world = Box::into_raw(Box::new(World { machine, poll: Box::new(move || for_poll.poll_shootdown()) }));
    // SAFETY: taken back at the end, when no thread runs any more. A run that panics leaks it.
    WORLD.set(Some(unsafe { &*world }));
    let (at, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let owned: Arc<Mutex<Vec<u64>>> = Arc::default();
    let spawn = |number: usize, work: Box<dyn FnOnce(&Manager<HOW>) + Send>| {
        let (mm, done) = (mm.clone(), done.clone());
        thread::spawn(move || {
            CPU.with(|cpu| cpu.set(number));
            mm.cpu_up();
            step();
            work(&mm);
            done.fetch_add(1, SeqCst);
            while done.load(SeqCst) != CPUS - 1 {
                interrupts(&mm);
                step();
            }
        })
    };
    let finished = Arc::new(AtomicBool::new(false));
    let (published, reached, stop) = (at.clone(), owned.clone(), finished.clone());
    let reader = spawn(
        1,
        Box::new(move |mm| {
            let mut turn = 0;
            while !stop.load(SeqCst) {
                turn += 1;
                let at = published.load(SeqCst);
                if at != 0
                    && let Ok(seen) = mm.backend().machine().access(at, Access::Read)
                {
                    let frame = seen.phys >> 12;
                    assert!(!reached.lock().unwrap().contains(&frame), "a page of another was reached by {at:#x}");
                }
                step();
                if turn % 4 == 3 {
                    interrupts(mm);
                }
            }
        }),
    );
    let (pages, stop) = (owned.clone(), finished.clone());
    let pager = spawn(
        2,
        Box::new(move |mm| {
            while !stop.load(SeqCst) {
                let taken: Vec<_> = (0..3).filter_map(|_| mm.get_free_pages(GFP_ATOMIC, 1).ok()).collect();
                let frames = taken.iter().map(|page| mm.pfn_of(page.as_ptr()).unwrap().0);
                let frames = frames.flat_map(|pfn| [u64::from(pfn), u64::from(pfn) + 1]).collect();
                *pages.lock().unwrap() = frames;
                step();
                interrupts(mm);
                step();
                pages.lock().unwrap().clear();
                taken.into_iter().for_each(|page| mm.free_pages(page.as_ptr(), 1).unwrap());
            }
        }),
    );
    for pages in [2, 1] {
        let area = mm.vmalloc(pages * 4096).unwrap().as_ptr();
        at.store(area.addr(), SeqCst);
        step();
        interrupts(&mm);
        step();
        mm.vfree(area).unwrap();
        step();
    }
    finished.store(true, SeqCst);
    while done.load(SeqCst) != CPUS - 1 {
        interrupts(&mm);
        step();
    }
    [reader, pager].into_iter().for_each(|thread| thread.join().unwrap());
    WORLD.set(None);
    // SAFETY: made above, and nobody uses it any more.
    drop(unsafe { Box::from_raw(world) });
    (1..CPUS).for_each(|number| {
        CPU.with(|cpu| cpu.set(number));
        mm.cpu_down();
    });
    CPU.with(|cpu| cpu.set(0));
    mm.backend().machine().run_on(0);
    mm.drain();
    assert_eq!(mm.check().unwrap(), before, "something was lost");
}

fn schedules() -> usize {
    std::env::var("SHUTTLE_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

fn is_caught(run: fn()) -> bool {
    let caught = catch_unwind(AssertUnwindSafe(|| check_random(run, schedules().max(300)))).is_err();
    WORLD.set(None);
    caught
}

#[test]
fn no_cpu_reaches_a_page_of_another_and_nothing_is_lost() {
    check_random(run::<ACKNOWLEDGED>, schedules());
}

#[test]
fn few_changes_of_priority_change_nothing() {
    check_pct(run::<ACKNOWLEDGED>, schedules(), 3);
}

#[test]
fn freeing_before_the_flush_is_caught() {
    assert!(is_caught(run::<NOBODY_FLUSHES>));
}

#[test]
fn a_flush_that_nobody_waits_for_is_caught() {
    assert!(is_caught(run::<NOBODY_WAITS>));
}

#[test]
fn memory_without_an_address_is_refused_for_several_cpus() {
    let refused = || {
        WORLD.set(None);
        assert_eq!(manager::<ACKNOWLEDGED>(MIB + MIB / 2).err(), Some(MmError::Unsupported));
        assert!(manager::<NOBODY_WAITS>(MIB + MIB / 2).is_ok());
    };
    check_random(refused, 1);
}
