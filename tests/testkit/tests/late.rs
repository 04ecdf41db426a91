//! What could not be flushed everywhere at once: address space whose table was linked anew, slots and areas that are
//! put off, and what a CPU that does not answer may still reach.
//!
//! Two CPUs of the simulated machine, whose TLBs keep all they ever saw, upper entries included, take turns: whoever
//! waits for the other lets it take its interrupt.

mod common;

use backend_mmu_x86::X86;
use common::PAGE;
use common::machine::is_absent;
use mm_core::*;
use rtmm_testkit::rig::{PAE_WINDOW, WINDOW};
use rtmm_testkit::{Access, SimConfig, SimMachine};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const MIB: u64 = 1 << 20;
const CPUS: usize = 2;

/// A lock that must never be found held: nothing runs beside its holder.
struct Plain(AtomicBool);

// SAFETY: a swap admits one holder, and each test is one thread.
unsafe impl RawLock for Plain {
    const NEW: Self = Plain(AtomicBool::new(false));
    type Token = ();

    fn acquire(&self) {
        assert!(!self.0.swap(true, SeqCst), "a lock was taken twice");
    }

    unsafe fn release(&self, (): ()) {
        assert!(self.0.swap(false, SeqCst), "an open lock was opened");
    }

    fn mask() {}

    unsafe fn unmask((): ()) {}
}

type Manager<const PAE: bool> = Mm<TwoCpus<PAE>, X86<SimMachine<PAE>>>;

struct TwoCpus<const PAE: bool> {
    machine: SimMachine<PAE>,
    atomic: AtomicBool,
    /// The other CPU takes no interrupt.
    deaf: AtomicBool,
    /// Waits, each of which lets the other CPU run.
    waits: AtomicUsize,
    bugs: Mutex<Vec<Bug>>,
    mm: Mutex<std::sync::Weak<Manager<PAE>>>,
}

impl<const PAE: bool> Platform for TwoCpus<PAE> {
    type Lock = Plain;
    const CPUS: usize = CPUS;
    const MAX_POLLS: u64 = 16;

    fn context(&self) -> Context {
        if self.atomic.load(SeqCst) { Context::Atomic } else { Context::Task }
    }

    fn bug(&self, bug: &Bug) {
        self.bugs.lock().unwrap().push(*bug);
    }

    fn cpu(&self) -> usize {
        self.machine.current()
    }

    fn send_ipi(&self, _cpu: usize) {}

    fn relax(&self) {
        self.waits.fetch_add(1, SeqCst);
        let mm = self.mm.lock().unwrap().upgrade();
        if let Some(mm) = mm.filter(|_| !self.deaf.load(SeqCst)) {
            on_other(&mm, || mm.handle_ipi());
        }
    }
}

impl<const PAE: bool> TwoCpus<PAE> {
    fn bugs(&self) -> Vec<Bug> {
        std::mem::take(&mut self.bugs.lock().unwrap())
    }
}

/// Runs `f` on the CPU that is not running.
fn on_other<const PAE: bool, R>(mm: &Manager<PAE>, f: impl FnOnce() -> R) -> R {
    let machine = mm.backend().machine();
    let me = machine.current();
    machine.run_on(1 - me);
    let result = f();
    machine.run_on(me);
    result
}

fn manager<const PAE: bool>() -> Arc<Manager<PAE>> {
    let (ranges, window) = ([(MIB, 3 * MIB)], if PAE { PAE_WINDOW } else { WINDOW });
    let config = if PAE { SimConfig::pae(&ranges, 1 << 29) } else { SimConfig::new(&ranges) };
    let (phys_bits, low) = (config.phys_bits, config.lowmem_end);
    let machine = SimMachine::<PAE>::new(SimConfig { cpus: CPUS, ..config });
    let mut map: BootMap = BootMap::new();
    map.add_ram(MIB, 2 * MIB).unwrap();
    let mut usable = map.finish(12, phys_bits).unwrap();
    machine.boot(window, &mut || Some(Pfn((usable.alloc_top(4096, 4096, low)?.start >> 12) as u32)));
    let platform = TwoCpus {
        machine: machine.clone(),
        atomic: AtomicBool::new(false),
        deaf: AtomicBool::new(false),
        waits: AtomicUsize::new(0),
        bugs: Mutex::default(),
        mm: Mutex::default(),
    };
    let mm = Arc::new(Mm::new(platform, X86::new(machine)));
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << 29 }];
    // SAFETY: the memory is this manager's alone.
    unsafe { mm.init(&mut usable, &Config::new(&zones, window)) }.unwrap();
    *mm.platform().mm.lock().unwrap() = Arc::downgrade(&mm);
    on_other(&mm, || mm.cpu_up());
    mm
}

/// Runs a test on 64-bit tables and on PAE; afterwards everything is back, and nothing was reported.
fn on_both(long: fn(&Manager<false>), short: fn(&Manager<true>)) {
    fn run<const PAE: bool>(test: fn(&Manager<PAE>)) {
        let mm = manager::<PAE>();
        let counts = || {
            mm.drain();
            (mm.free_page_count(), mm.vmallocinfo().count(), mm.check().unwrap_or_else(|damage| panic!("{damage}")))
        };
        let before = counts();
        test(&mm);
        assert_eq!(counts(), before);
        let bugs = mm.platform().bugs();
        assert!(bugs.is_empty(), "{bugs:?}");
    }
    run(long);
    run(short);
}

fn reaches<const PAE: bool>(mm: &Manager<PAE>, at: usize) -> Option<u64> {
    on_other(mm, || mm.backend().machine().access(at, Access::Write).ok().map(|seen| seen.phys))
}

fn absent_there<const PAE: bool>(mm: &Manager<PAE>, at: usize) {
    on_other(mm, || is_absent(mm.backend().machine(), at, Access::Read));
}

fn frames<const PAE: bool>(mm: &Manager<PAE>, at: *const u8, pages: usize) -> BTreeSet<u32> {
    (0..pages).map(|page| mm.vmalloc_to_page(at.wrapping_add(page * PAGE)).unwrap().0).collect()
}

/// All the pages that can be had, which are given back.
fn everything_else<const PAE: bool>(mm: &Manager<PAE>) -> BTreeSet<u32> {
    let taken: Vec<Pfn> = std::iter::from_fn(|| mm.alloc_page(GFP_ATOMIC | Gfp::NOWARN).ok()).collect();
    let all = taken.iter().map(|pfn| pfn.0).collect();
    taken.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
    all
}

/// The other CPU remembers the way by a table that was unlinked. What is mapped by the one in its place is found there
/// from the moment it is handed out, by every kind of call.
#[test]
fn a_cpu_that_remembers_an_unlinked_table_finds_what_is_mapped_in_its_place() {
    fn finds<const PAE: bool>(mm: &Manager<PAE>) {
        let given: Vec<Pfn> = (0..2).map(|_| mm.alloc_page(GFP_KERNEL).unwrap()).collect();
        type Make<const PAE: bool> = fn(&Manager<PAE>, &[Pfn]) -> *mut u8;
        type Free<const PAE: bool> = fn(&Manager<PAE>, *mut u8);
        let ways: [(Make<PAE>, Free<PAE>); 4] = [
            (|mm, _| mm.vmalloc(PAGE).unwrap().as_ptr(), |mm, at| mm.vfree(at).unwrap()),
            (|mm, _| mm.ioremap(PhysAddr(0xf000_0000), PAGE).unwrap().as_ptr(), |mm, at| mm.iounmap(at).unwrap()),
            (|mm, given| mm.vmap(given, Prot::ReadWrite).unwrap().as_ptr(), |mm, at| mm.vunmap(at).unwrap()),
            (|mm, given| mm.vm_map_ram(given).unwrap().as_ptr(), |mm, at| mm.vm_unmap_ram(at, 2).unwrap()),
        ];
        for (make, free) in ways {
            mm.drain();
            let old = mm.vmalloc(3 * PAGE).unwrap().as_ptr();
            let before = frames(mm, old, 3);
            assert!((0..3).all(|page| reaches(mm, old.addr() + page * PAGE).is_some()));
            let unflushed = mm.vfree_unflushed(old).unwrap();
            // The old table is nobody's yet, and the other CPU has not heard of it.
            assert!(reaches(mm, old.addr()).is_some());
            let waits = mm.platform().waits.load(SeqCst);
            let new = make(mm, &given);
            assert_eq!(new.addr() >> 21, old.addr() >> 21, "it is to be in the place of the old table");
            let seen = reaches(mm, new.addr()).expect("the other CPU finds what was handed out");
            assert!(!before.contains(&((seen >> 12) as u32)));
            assert_ne!(mm.platform().waits.load(SeqCst), waits, "it was asked");
            // The same once more is known to be settled.
            let waits = mm.platform().waits.load(SeqCst);
            let next = make(mm, &given);
            assert!(reaches(mm, next.addr()).is_some());
            assert_eq!(mm.platform().waits.load(SeqCst), waits, "nobody is asked again");
            drop(unflushed);
            absent_there(mm, old.addr());
            free(mm, new);
            free(mm, next);
        }
        given.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
    }
    on_both(finds, finds);
}

/// Where the caller may not wait for the other CPU, nothing is handed out that it might not find.
#[test]
fn what_a_cpu_may_not_find_is_not_handed_out_where_nobody_can_wait() {
    fn refused<const PAE: bool>(mm: &Manager<PAE>) {
        let given = [mm.alloc_page(GFP_KERNEL).unwrap()];
        let old = mm.vmalloc(PAGE).unwrap().as_ptr();
        assert!(reaches(mm, old.addr()).is_some());
        let unflushed = mm.vfree_unflushed(old).unwrap();
        let before = mm.vmallocinfo().count();
        mm.platform().atomic.store(true, SeqCst);
        let made = [mm.vmap(&given, Prot::ReadWrite), mm.vm_map_ram(&given), mm.ioremap(PhysAddr(0xf000_0000), PAGE)];
        if let Some(at) = made.into_iter().flatten().next() {
            panic!("{at:p} was handed out; the other CPU reaches {:?}", reaches(mm, at.as_ptr().addr()));
        }
        assert_eq!(mm.vmallocinfo().count(), before);
        mm.platform().atomic.store(false, SeqCst);
        // That these calls belong into tasks was told.
        assert!(mm.platform().bugs().iter().all(|bug| matches!(bug, Bug::MayWaitInAtomic { .. })));
        let new = mm.vmap(&given, Prot::ReadWrite).unwrap().as_ptr();
        assert_eq!(reaches(mm, new.addr()), Some(u64::from(given[0].0) << 12));
        mm.vunmap(new).unwrap();
        drop(unflushed);
        mm.free_pages_frame(given[0], 0).unwrap();
    }
    on_both(refused, refused);
}

/// Slots of `vm_map_ram` that an interrupt gives back are not used again before the other CPU has flushed them.
#[test]
fn slots_given_back_in_an_interrupt_wait_for_the_flush_of_all_cpus() {
    fn wait<const PAE: bool>(mm: &Manager<PAE>) {
        let given: Vec<Pfn> = (0..5).map(|_| mm.alloc_page(GFP_KERNEL).unwrap()).collect();
        let at = mm.vm_map_ram(&given[..3]).unwrap().as_ptr();
        (0..3).for_each(|page| assert!(reaches(mm, at.addr() + page * PAGE).is_some()));
        mm.platform().atomic.store(true, SeqCst);
        mm.vm_unmap_ram(at, 3).unwrap();
        assert_eq!(mm.vm_unmap_ram(at, 3), Err(FreeError::DoubleFree));
        // Not a moment later the other CPU still gets there, so nothing else may be there.
        assert!(reaches(mm, at.addr()).is_some());
        assert_eq!(mm.flush_deferred(), 0);
        mm.platform().atomic.store(false, SeqCst);
        mm.check().unwrap();
        let others: Vec<_> = (0..60).map(|_| mm.vm_map_ram(&given[3..]).unwrap().as_ptr()).collect();
        assert!(
            others.iter().all(|other| other.addr() >= at.addr() + 4 * PAGE || other.addr() + 2 * PAGE <= at.addr())
        );
        assert!(reaches(mm, at.addr()).is_some(), "nobody has asked it yet");
        mm.flush_deferred();
        (0..3).for_each(|page| absent_there(mm, at.addr() + page * PAGE));
        mm.check().unwrap();
        let again = mm.vm_map_ram(&given[2..]).unwrap().as_ptr();
        assert_eq!(again, at, "the slots are free");
        assert_eq!(reaches(mm, again.addr()), Some(u64::from(given[2].0) << 12));
        mm.vm_unmap_ram(again, 3).unwrap();
        others.into_iter().for_each(|other| mm.vm_unmap_ram(other, 2).unwrap());
        given.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
    }
    on_both(wait, wait);
}

/// What was unmapped and is let go where nobody can wait is flushed by the next that can, in one go.
#[test]
fn what_is_let_go_in_an_interrupt_comes_back_with_the_next_flush() {
    fn comes_back<const PAE: bool>(mm: &Manager<PAE>) {
        let areas = [1, 3, 20].map(|pages| (mm.vmalloc(pages * PAGE).unwrap().as_ptr(), pages));
        let owned: BTreeSet<u32> = areas.iter().flat_map(|&(at, pages)| frames(mm, at, pages)).collect();
        areas.iter().for_each(|&(at, pages)| {
            (0..pages).for_each(|page| assert!(reaches(mm, at.addr() + page * PAGE).is_some()));
        });
        let unflushed = areas.map(|(at, _)| mm.vfree_unflushed(at).unwrap());
        mm.platform().atomic.store(true, SeqCst);
        drop(unflushed);
        mm.platform().atomic.store(false, SeqCst);
        assert!(mm.check().unwrap().unflushed >= 24);
        // Taking pages until there are none would flush; so some are looked at.
        let some: Vec<Pfn> = (0..100).map(|_| mm.alloc_page(GFP_ATOMIC).unwrap()).collect();
        assert!(some.iter().all(|pfn| !owned.contains(&pfn.0)));
        some.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
        assert!(areas.iter().all(|&(at, _)| reaches(mm, at.addr()).is_some()), "nobody has asked it yet");
        mm.flush_deferred();
        assert_eq!(mm.check().unwrap().unflushed, 0);
        areas.iter().for_each(|&(at, pages)| (0..pages).for_each(|page| absent_there(mm, at.addr() + page * PAGE)));
        mm.drain();
        assert!(owned.is_subset(&everything_else(mm)), "its frames can be had again");
    }
    on_both(comes_back, comes_back);
}

/// A CPU that does not answer keeps what it may reach, for good; what it has never seen is served as ever.
#[test]
fn what_a_silent_cpu_may_reach_is_never_used_again() {
    fn silent<const PAE: bool>() {
        let mm = &*manager::<PAE>();
        let given = [mm.alloc_page(GFP_KERNEL).unwrap()];
        let slot = mm.vm_map_ram(&given).unwrap().as_ptr();
        let area = mm.vmalloc(3 * PAGE).unwrap().as_ptr();
        let owned = frames(mm, area, 3);
        assert!(reaches(mm, area.addr()).is_some() && reaches(mm, slot.addr()).is_some());
        mm.platform().deaf.store(true, SeqCst);
        mm.vfree(area).unwrap();
        assert!(matches!(mm.platform().bugs()[..], [Bug::NoAcknowledgement { cpu: 1 }]));
        mm.vm_unmap_ram(slot, 1).unwrap();
        assert!(mm.platform().bugs().is_empty(), "told once");
        assert!(mm.check().unwrap().unflushed >= 3);
        // Heard again.
        mm.platform().deaf.store(false, SeqCst);
        on_other(mm, || mm.handle_ipi());
        mm.drain();
        assert!(owned.is_disjoint(&everything_else(mm)), "a frame a CPU may have reached was given out");
        mm.drain();
        assert!(mm.check().unwrap().unflushed >= 3);
        // The slot comes back: nothing was kept of it but its addresses, and those are flushed now.
        let again = mm.vm_map_ram(&given).unwrap().as_ptr();
        assert_eq!(reaches(mm, again.addr()), Some(u64::from(given[0].0) << 12));
        mm.vm_unmap_ram(again, 1).unwrap();
        let area = mm.vmalloc(3 * PAGE).unwrap().as_ptr();
        assert!(frames(mm, area, 3).is_disjoint(&owned) && reaches(mm, area.addr()).is_some());
        mm.vfree(area).unwrap();
        assert!(mm.platform().bugs().is_empty());
    }
    silent::<false>();
    silent::<true>();
}

/// Protection holds on the other CPU as soon as the call returns, and not before: it has the old translation.
#[test]
fn a_cpu_that_wrote_to_a_page_cannot_once_another_has_protected_it() {
    fn protects<const PAE: bool>(mm: &Manager<PAE>) {
        let mut area = VmArea::new_in(4 * PAGE, mm).unwrap();
        let at = area.as_ptr().addr();
        (0..4).for_each(|page| assert!(reaches(mm, at + page * PAGE).is_some()));
        area.protect(Prot::Read).unwrap();
        (0..4).for_each(|page| assert_eq!(reaches(mm, at + page * PAGE), None));
    }
    on_both(protects, protects);
}
