//! Another context runs at every point where a lock is opened: what an interrupt, or a task that preempts, can do to a
//! call on one CPU.

use backend_mmu_x86::X86;
use backend_nommu::Arena;
use mm_core::*;
use rtmm_testkit::rig::WINDOW;
use rtmm_testkit::{Ram, SimConfig, SimMachine};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A lock that lets another context run each time the last one held is opened.
struct Porous(AtomicBool);

type Other = Box<dyn FnMut()>;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static OTHER: RefCell<Option<Other>> = const { RefCell::new(None) };
}

// SAFETY: each test is one thread, and `held` shows that no section is entered twice.
unsafe impl RawLock for Porous {
    const NEW: Self = Porous(AtomicBool::new(false));
    type Token = ();

    fn acquire(&self) {
        assert!(!self.0.swap(true, SeqCst), "a lock was taken twice");
        DEPTH.set(DEPTH.get() + 1);
    }

    unsafe fn release(&self, (): ()) {
        assert!(self.0.swap(false, SeqCst), "an open lock was opened");
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() == 0 && !RUNNING.replace(true) {
            OTHER.with_borrow_mut(|other| {
                if let Some(other) = other {
                    other();
                }
            });
            RUNNING.set(false);
        }
    }
}

struct Preemptible;

impl Platform for Preemptible {
    type Lock = Porous;

    fn context(&self) -> Context {
        Context::Task
    }

    fn bug(&self, bug: &Bug) {
        panic!("{bug}");
    }
}

const MIB: u64 = 1 << 20;
const STEPS: usize = if cfg!(miri) { 40 } else { 3000 };

fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as usize
}

/// What one context owns, and what it once owned.
struct Owner<B: Backend> {
    mm: &'static Mm<Preemptible, B>,
    seed: u64,
    objects: Vec<(*mut u8, usize)>,
    pages: Vec<(*mut u8, usize)>,
    areas: Vec<(*mut u8, usize)>,
    devices: Vec<*mut u8>,
    maps: Vec<(*mut u8, Pfn)>,
    /// How often a device had another cache mode.
    conflicts: usize,
    vmalloc: bool,
    touch: fn(&Mm<Preemptible, B>, *mut u8, usize),
}

impl<B: Backend> Owner<B> {
    fn new(mm: &'static Mm<Preemptible, B>, seed: u64, touch: fn(&Mm<Preemptible, B>, *mut u8, usize)) -> Self {
        let (objects, pages, areas, devices, maps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Owner { mm, seed, objects, pages, areas, devices, maps, conflicts: 0, vmalloc: true, touch }
    }

    fn step(&mut self) {
        let mm = self.mm;
        let sizes = [8, 24, 64, 200, 1500, 4096, 9000];
        match random(&mut self.seed) % 10 {
            0 | 1 if self.objects.len() < 200 => {
                let size = sizes[random(&mut self.seed) % sizes.len()];
                if let Ok(object) = mm.kmalloc(size, GFP_ATOMIC) {
                    // SAFETY: ours, that long.
                    unsafe { object.write_bytes(size as u8 ^ self.seed as u8, size) };
                    self.objects.push((object.as_ptr(), size));
                }
            }
            2 | 3 if !self.objects.is_empty() => {
                let i = random(&mut self.seed) % self.objects.len();
                let (object, size) = self.objects.swap_remove(i);
                // SAFETY: ours, that long.
                let bytes = unsafe { std::slice::from_raw_parts(object, size) };
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "an object was written to by another");
                mm.kfree(object).expect("a live object");
            }
            4 => {
                let order = random(&mut self.seed) % 3;
                if self.pages.len() < 30
                    && let Ok(pages) = mm.get_free_pages(GFP_ATOMIC, order)
                {
                    self.pages.push((pages.as_ptr(), order));
                } else if let Some((pages, order)) = self.pages.pop() {
                    mm.free_pages(pages, order).expect("live pages");
                }
            }
            5 if self.vmalloc && self.areas.len() < 6 => {
                let size = 4096 * (1 + random(&mut self.seed) % 40);
                if let Ok(area) = mm.vmalloc(size) {
                    (self.touch)(mm, area.as_ptr(), size);
                    self.areas.push((area.as_ptr(), size));
                }
            }
            6 if self.vmalloc && !self.areas.is_empty() => {
                let i = random(&mut self.seed) % self.areas.len();
                let (area, size) = self.areas.swap_remove(i);
                (self.touch)(mm, area, size);
                mm.vfree(area).expect("a live area");
                // What no area can begin at is refused, also in the middle of something else.
                assert!(mm.vfree(area.wrapping_add(1)).is_err());
            }
            // Some of eight pages, in one of two cache modes.
            7 if self.vmalloc => {
                let (place, mode) = (random(&mut self.seed) % 8, random(&mut self.seed) % 2);
                let (phys, size) =
                    (PhysAddr(0xfe00_0000 + place as u64 * 4096), 4096 * (1 + random(&mut self.seed) % 3));
                let mapped = if mode == 0 { mm.ioremap(phys, size) } else { mm.ioremap_wc(phys, size) };
                match mapped {
                    Ok(at) => self.devices.push(at.as_ptr()),
                    Err(error) => {
                        assert!(matches!(error, MmError::AliasConflict | MmError::Alloc(_)), "{error}");
                        self.conflicts += usize::from(error == MmError::AliasConflict);
                    }
                }
                if self.devices.len() > 2 || mapped.is_err() && !self.devices.is_empty() {
                    let device = self.devices.swap_remove(place % self.devices.len());
                    mm.iounmap(device).expect("a live ioremap");
                }
            }
            8 if self.vmalloc => {
                if self.maps.len() < 6
                    && let Ok(page) = mm.alloc_page(GFP_ATOMIC)
                {
                    match mm.vm_map_ram(&[page]) {
                        Ok(map) => {
                            (self.touch)(mm, map.as_ptr(), 4096);
                            self.maps.push((map.as_ptr(), page));
                        }
                        Err(error) => {
                            assert!(matches!(error, MmError::Alloc(_)), "{error}");
                            mm.free_pages_frame(page, 0).expect("a live page");
                        }
                    }
                } else if !self.maps.is_empty() {
                    let (map, page) = self.maps.swap_remove(random(&mut self.seed) % self.maps.len());
                    (self.touch)(mm, map, 4096);
                    self.unmap(map, page);
                }
            }
            9 if self.vmalloc && !self.areas.is_empty() => {
                let (area, size) = self.areas[random(&mut self.seed) % self.areas.len()];
                let (pages, at) = (size / 4096, random(&mut self.seed) % (size / 4096));
                let part = area.wrapping_add(at * 4096);
                for prot in [Prot::Read, Prot::ReadExecute, Prot::ReadWrite] {
                    match mm.set_memory(part, pages - at, prot) {
                        Ok(()) => {}
                        // A split that found no table, or no MMU.
                        Err(MmError::Alloc(_)) => {}
                        Err(MmError::Unsupported) if !B::HAS_PROTECT => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                (self.touch)(mm, area, size);
            }
            _ => {}
        }
    }

    fn unmap(&self, map: *mut u8, page: Pfn) {
        self.mm.vm_unmap_ram(map, 1).expect("a live mapping");
        assert!(self.mm.vm_unmap_ram(map.wrapping_add(1), 1).is_err());
        self.mm.free_pages_frame(page, 0).expect("a live page");
    }

    fn give_all(&mut self) {
        self.devices.drain(..).for_each(|device| self.mm.iounmap(device).expect("a live ioremap"));
        for (map, page) in std::mem::take(&mut self.maps) {
            self.unmap(map, page);
        }
        for (object, _) in self.objects.drain(..) {
            self.mm.kfree(object).expect("a live object");
        }
        for (pages, order) in self.pages.drain(..) {
            self.mm.free_pages(pages, order).expect("live pages");
        }
        for (area, _) in self.areas.drain(..) {
            self.mm.vfree(area).expect("a live area");
        }
    }
}

fn storm<B: Backend>(
    mm: &'static Mm<Preemptible, B>,
    other_maps: bool,
    touch: fn(&Mm<Preemptible, B>, *mut u8, usize),
) {
    mm.drain();
    let before = (mm.free_page_count(), mm.check().expect("clean"));
    let other = std::rc::Rc::new(RefCell::new(Owner::new(mm, 0x5EED_0002, touch)));
    other.borrow_mut().vmalloc = other_maps;
    let runs = std::rc::Rc::new(Cell::new(0usize));
    let (inner, count) = (other.clone(), runs.clone());
    OTHER.set(Some(Box::new(move || {
        count.set(count.get() + 1);
        inner.borrow_mut().step();
    })));
    let mut own = Owner::new(mm, 0x5EED_0001, touch);
    for _ in 0..STEPS {
        own.step();
    }
    own.give_all();
    OTHER.set(None);
    let conflicts = own.conflicts + other.borrow().conflicts;
    assert!(!other_maps || conflicts != 0 || cfg!(miri), "two cache modes never met");
    assert!(runs.get() > STEPS, "the other context ran {} times", runs.get());
    other.borrow_mut().give_all();
    mm.drain();
    assert_eq!((mm.free_page_count(), mm.check().expect("clean")), before);
}

/// The RAM stays for good: the manager is a static of the test's.
fn nommu() -> &'static Mm<Preemptible, Arena> {
    let (start, end) = (0x2000_0000, 0x2000_0000 + 4 * MIB);
    let ram: &'static Ram = Box::leak(Box::new(Ram::new(&[PhysRange { start, end }])));
    let arena = Arena::new();
    // SAFETY: the RAM is never freed, and its pointers are aligned as its addresses are.
    unsafe { arena.place(ram.ptr(start).expect("RAM"), start as usize) };
    let mm: &'static Mm<Preemptible, Arena> = Box::leak(Box::new(Mm::new(Preemptible, arena)));
    let mut map: BootMap = BootMap::new();
    map.add_ram(start, end - start).expect("one range");
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << 40 }];
    let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
    // SAFETY: the memory is this manager's alone.
    unsafe { mm.init(&mut map.finish(12, 44).expect("usable RAM"), &config) }.expect("init");
    mm
}

fn mmu() -> &'static Mm<Preemptible, X86<SimMachine>> {
    paged(0x10_0000, 4 * MIB)
}

fn paged(start: u64, len: u64) -> &'static Mm<Preemptible, X86<SimMachine>> {
    let machine = SimMachine::<false>::new(SimConfig::new(&[(start, start + len)]));
    let mut map: BootMap = BootMap::new();
    map.add_ram(start, len).expect("one range");
    let mut usable = map.finish(12, 46).expect("usable RAM");
    machine.boot(WINDOW, &mut || Some(Pfn((usable.alloc_top(4096, 4096, u64::MAX)?.start >> 12) as u32)));
    let mm: &'static Mm<Preemptible, X86<SimMachine>> = Box::leak(Box::new(Mm::new(Preemptible, X86::new(machine))));
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << 40 }];
    // SAFETY: the memory is this manager's alone.
    unsafe { mm.init(&mut usable, &Config::new(&zones, WINDOW)) }.expect("init");
    mm
}

/// Writes and reads the first and last byte as the CPU would, through its TLB.
fn touch_mapped(mm: &Mm<Preemptible, X86<SimMachine>>, area: *mut u8, size: usize) {
    let machine = mm.backend().machine();
    for at in [area.addr(), area.addr() + size - 1] {
        machine.store(at, &[0xa5]).expect("a live area is writable");
        let mut byte = [0];
        machine.load(at, &mut byte).expect("a live area is readable");
        assert_eq!(byte, [0xa5]);
    }
}

#[test]
fn an_interrupt_between_any_two_locks_without_an_mmu() {
    storm(nommu(), false, |_, _, _| {});
}

#[test]
fn a_task_between_any_two_locks_without_an_mmu() {
    storm(nommu(), true, |_, _, _| {});
}

#[test]
fn an_interrupt_between_any_two_locks_with_an_mmu() {
    storm(mmu(), false, touch_mapped);
}

#[test]
fn a_task_between_any_two_locks_with_an_mmu() {
    storm(mmu(), true, touch_mapped);
}

type Pending = std::pin::Pin<Box<AllocPages<'static, Preemptible, Arena>>>;
type Shared<T> = std::rc::Rc<RefCell<T>>;

fn poll(future: &mut Pending) -> Option<Pfn> {
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(got) => Some(got.expect("handed over")),
        std::task::Poll::Pending => None,
    }
}

/// What the other context does, once.
type Act = fn(&'static Mm<Preemptible, Arena>, &Shared<Option<Pending>>, &Shared<Vec<(Pfn, usize)>>);

/// Small requests pass a large one over until memory is put by for it, and then it is served or gives up. Returns how
/// often locks were opened; at the `at`-th time `act` runs.
fn pass_over(at: usize, act: Act) -> usize {
    const ORDER: usize = 4;
    let mm = nommu();
    mm.drain();
    let before = (mm.free_page_count(), mm.check().expect("clean"));
    let take = || mm.alloc_pages(GFP_NOWAIT | Gfp::NOWARN, 0).ok();
    let mut taken: Vec<Pfn> = std::iter::from_fn(take).collect();
    let most = taken.len();
    let large: Shared<Option<Pending>> = std::rc::Rc::new(RefCell::new(None));
    let got: Shared<Vec<(Pfn, usize)>> = Shared::default();
    let opened = std::rc::Rc::new(Cell::new(0));
    {
        let (large, got, opened) = (large.clone(), got.clone(), opened.clone());
        OTHER.set(Some(Box::new(move || {
            opened.set(opened.get() + 1);
            if opened.get() == at {
                act(mm, &large, &got);
            }
        })));
    }
    *large.borrow_mut() = Some(Box::pin(mm.alloc_pages_async(GFP_KERNEL, ORDER)));
    let poll_large = || {
        let mut slot = large.borrow_mut();
        if let Some(pfn) = slot.as_mut().and_then(poll) {
            *slot = None;
            got.borrow_mut().push((pfn, ORDER));
        }
    };
    poll_large();
    // Far enough apart that none makes a block.
    for pfn in std::mem::take(&mut taken).into_iter().enumerate().map(|(i, pfn)| {
        if i % 5 == 0 && i < 150 {
            let mut small: Pending = Box::pin(mm.alloc_pages_async(GFP_KERNEL, 0));
            let early = poll(&mut small);
            mm.free_pages_frame(pfn, 0).expect("live");
            early.or_else(|| poll(&mut small))
        } else {
            Some(pfn)
        }
    }) {
        taken.extend(pfn);
    }
    poll_large();
    for pfn in taken {
        mm.free_pages_frame(pfn, 0).expect("live");
    }
    poll_large();
    *large.borrow_mut() = None;
    OTHER.set(None);
    got.borrow_mut().drain(..).for_each(|(pfn, order)| mm.free_pages_frame(pfn, order).expect("live"));
    mm.drain();
    assert_eq!((mm.free_page_count(), mm.check().expect("clean")), before, "at {at}");
    // Nothing is put by any more: as much is to be had as at first.
    let again: Vec<Pfn> = std::iter::from_fn(take).collect();
    assert_eq!(again.len(), most, "at {at}");
    again.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).expect("live"));
    opened.get()
}

/// At every opening of a lock on the way to memory that is put by for a waiter, and away from it.
#[test]
fn another_context_while_memory_is_put_by_for_a_waiter() {
    let acts: [Act; 4] = [
        // The waiter gives up.
        |_, large, _| {
            if let Ok(mut large) = large.try_borrow_mut() {
                *large = None;
            }
        },
        // Somebody takes a page, or is refused it.
        |mm, _, got| {
            if let Ok(pfn) = mm.alloc_pages(GFP_ATOMIC | Gfp::NOWARN, 0) {
                got.borrow_mut().push((pfn, 0));
            }
        },
        // A request waits for a moment, and goes.
        |mm, _, got| {
            let mut brief: Pending = Box::pin(mm.alloc_pages_async(GFP_KERNEL, 2));
            if let Some(pfn) = poll(&mut brief) {
                got.borrow_mut().push((pfn, 2));
            }
        },
        // The waiter is looked after.
        |_, large, got| {
            if let Ok(mut large) = large.try_borrow_mut()
                && let Some(pfn) = large.as_mut().and_then(poll)
            {
                *large = None;
                got.borrow_mut().push((pfn, 4));
            }
        },
    ];
    for act in acts {
        let most = pass_over(0, act);
        // Each time takes RAM anew, which ends soon where addresses have 32 bits.
        let times = match usize::BITS {
            _ if cfg!(miri) => 3,
            32 => 15,
            _ => 300,
        };
        let step = (most / times).max(1);
        assert!(most > 100, "{most}");
        (1..most).step_by(step).for_each(|at| _ = pass_over(at, act));
    }
}

/// A split that is undone frees its table while others look up what is behind it; none of them keeps the table.
#[test]
fn another_context_while_the_split_of_a_large_entry_is_undone() {
    const PAGE: usize = 4096;
    let mm = paged(0x20_0000, 32 * MIB);
    let area = mm.vmalloc(4 << 20).expect("an area of two large entries").as_ptr();
    let page = move |k: usize| area.wrapping_add(k * PAGE);
    let frames: Vec<_> = (0..1024).map(|k| mm.vmalloc_to_page(page(k)).expect("mapped")).collect();
    OTHER.set(Some(Box::new(move || assert!(mm.vmalloc_to_page(page(3)).is_some()))));
    // The second of the two entries that a change of two pages splits finds no table.
    mm.faults().fail_nth(FaultClass::Table, 2);
    let changed = mm.set_memory(page(511), 2, Prot::Read);
    OTHER.set(None);
    mm.faults().disarm();
    assert_eq!(changed, Err(MmError::Alloc(AllocError::NoMemory)));
    // The table becomes somebody's page, who writes what looks like entries.
    mm.drain();
    let mut pages = Vec::new();
    while let Ok(page) = mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN) {
        // SAFETY: ours, and a page long.
        unsafe { page.cast::<[u64; 512]>().write([0x20_1003; 512]) };
        pages.push(page);
    }
    assert!((0..1024).all(|k| mm.vmalloc_to_page(page(k)) == Some(frames[k])));
    pages.into_iter().for_each(|page| mm.free_page(page.as_ptr()).expect("live"));
    mm.vfree(area).expect("live");
    mm.drain();
    mm.check().expect("clean");
}
