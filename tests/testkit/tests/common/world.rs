//! A model of everything that is live in a manager, and calls on both that must agree.

use super::{PAGE, TestMm};
use backend_nommu::Arena;
use mm_core::*;
use std::alloc::Layout;
use std::collections::{BTreeMap, VecDeque};
use std::ptr::NonNull;

/// How a test's program reaches memory, and what must hold beside what the manager says.
pub trait Reach: Backend {
    /// Stores at an address the manager gave.
    fn write(&self, at: *mut u8, bytes: &[u8]);
    /// Loads from one.
    fn read(&self, at: *const u8, into: &mut [u8]);
    /// The next call comes from another CPU.
    fn next_cpu(&self) {}
    /// Every CPU has just used the area, and keeps what it knows of it.
    fn touch(&self, area: &Live) {
        let _ = area;
    }
    /// No CPU can reach the area any more.
    fn unreachable(&self, area: &Live) {
        let _ = area;
    }
    /// The tables map exactly the areas.
    fn tables_agree(&self, mm: &TestMm<Self>, live: &[Live]) {
        let _ = (mm, live);
    }
}

impl<const MAX_ORDER: usize> Reach for Arena<MAX_ORDER> {
    fn write(&self, at: *mut u8, bytes: &[u8]) {
        // SAFETY: the caller owns that much memory there.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    fn read(&self, at: *const u8, into: &mut [u8]) {
        // SAFETY: as above.
        unsafe { at.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) }
    }
}

/// Where something came from, and so how it is freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Kmalloc,
    Layout(Layout),
    Block(usize),
    Exact(usize),
    Area,
    Device,
    Object(usize),
}

impl Kind {
    /// Which calls free it; kinds with the same ones may be mistaken for each other.
    fn call(self) -> usize {
        match self {
            Kind::Kmalloc | Kind::Layout(_) => 0,
            Kind::Block(_) | Kind::Exact(_) => 1,
            Kind::Area => 2,
            Kind::Device => 3,
            Kind::Object(cache) => 4 + cache,
        }
    }
}

/// Something live.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    pub kind: Kind,
    pub at: *mut u8,
    /// Bytes that may be used.
    pub len: usize,
    /// The device's address.
    pub phys: u64,
    /// Whole pages, not an object of a slab.
    whole: bool,
    tag: u8,
}

/// A step of a random life.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Kmalloc(usize, Gfp),
    Kcalloc(usize, usize),
    Layout(usize, u32),
    Block(usize, Gfp),
    Exact(usize),
    Area(usize, bool),
    Device(u64, usize),
    Cache(usize, usize, u32),
    Object(usize, Gfp),
    Krealloc(usize, usize),
    Relayout(usize, usize),
    Free(usize),
    FreeAgain(usize),
    /// Frees a live thing by a call or at an address that is wrong.
    FreeWrong(usize, usize, usize),
    EndCache(usize),
    Drain,
    /// The k-th fallible step of the next call fails.
    Fail(u64),
}

pub const CACHES: usize = 4;
const NAMES: [&str; CACHES] = ["zero", "one", "two", "three"];

/// The live things of a manager.
pub struct World<'a, B: Reach> {
    mm: &'a TestMm<B>,
    pub live: Vec<Live>,
    caches: [Option<RawKmemCache<&'a TestMm<B>>>; CACHES],
    /// What their objects are aligned to.
    aligns: [usize; CACHES],
    /// Addresses of live things: first byte to one past the last, guards included.
    taken: BTreeMap<usize, usize>,
    gone: VecDeque<(Kind, *mut u8)>,
    tag: u8,
}

impl<'a, B: Reach> World<'a, B> {
    pub fn new(mm: &'a TestMm<B>) -> Self {
        let caches = [const { None }; CACHES];
        World {
            mm,
            live: Vec::new(),
            caches,
            aligns: [8; CACHES],
            taken: BTreeMap::new(),
            gone: VecDeque::new(),
            tag: 0,
        }
    }

    pub fn step(&mut self, step: Step) {
        self.mm.backend().next_cpu();
        let mm = self.mm;
        match step {
            Step::Kmalloc(size, flags) => {
                let got = mm.kmalloc(size, flags);
                self.made(Kind::Kmalloc, size, flags, got);
            }
            Step::Kcalloc(n, size) => {
                let got = mm.kcalloc(n, size, GFP_KERNEL);
                self.made(Kind::Kmalloc, n * size, GFP_KERNEL | Gfp::ZERO, got);
            }
            Step::Layout(size, shift) => {
                let layout = Layout::from_size_align(size, 1 << shift).unwrap();
                let got = NonNull::new(mm.alloc_layout(layout, ALLOCATOR_FLAGS)).ok_or(AllocError::NoMemory);
                self.made(Kind::Layout(layout), size, GFP_NOWAIT, got);
            }
            Step::Block(order, flags) => {
                let got = mm.get_free_pages(flags, order);
                self.made(Kind::Block(order), PAGE << order, flags, got);
            }
            Step::Exact(size) => {
                let got = mm.alloc_pages_exact(size, GFP_KERNEL);
                self.made(Kind::Exact(size), size, GFP_KERNEL, got);
            }
            Step::Area(size, zero) => {
                let got = if zero { mm.vzalloc(size) } else { mm.vmalloc(size) };
                self.made(Kind::Area, size, if zero { GFP_KERNEL | Gfp::ZERO } else { GFP_KERNEL }, got);
            }
            Step::Device(phys, size) => match mm.ioremap(PhysAddr(phys), size) {
                Ok(at) => {
                    assert_eq!(at.as_ptr().addr() as u64 & 4095, phys & 4095);
                    self.enter(Live { kind: Kind::Device, at: at.as_ptr(), len: size, phys, whole: true, tag: 0 });
                }
                Err(error) => assert!(matches!(error, MmError::Alloc(_)), "{error}"),
            },
            Step::Cache(slot, size, shift) => {
                let made = mm.kmem_cache_create(NAMES[slot], size, 1 << shift, CacheFlags::empty(), None);
                match made {
                    Ok(cache) => {
                        assert!(self.caches[slot].replace(cache).is_none(), "two of one name");
                        self.aligns[slot] = 8.max(1 << shift);
                    }
                    Err(error) => assert!(self.caches[slot].is_some() || error == AllocError::NoMemory.into()),
                }
            }
            Step::Object(slot, flags) => {
                let Some(cache) = &self.caches[slot] else { return };
                let (size, got) = (cache.object_size(), cache.alloc(flags));
                self.made(Kind::Object(slot), size, flags, got);
            }
            Step::Krealloc(index, size) => self.krealloc(index, size),
            Step::Relayout(index, size) => self.relayout(index, size),
            Step::Free(index) => {
                if !self.live.is_empty() {
                    self.free(index % self.live.len());
                }
            }
            Step::FreeAgain(index) => self.free_again(index),
            Step::FreeWrong(index, call, offset) => self.free_wrong(index, call, offset),
            Step::EndCache(slot) => self.end_cache(slot),
            Step::Drain => mm.drain(),
            Step::Fail(k) => return mm.faults().fail_nth(FaultClass::Any, k),
        }
        mm.faults().fail_nth(FaultClass::Any, 0);
    }

    /// Enters what was allocated, or looks at why it was not.
    fn made(&mut self, kind: Kind, size: usize, flags: Gfp, got: Result<NonNull<u8>, AllocError>) {
        let at = match got {
            Ok(at) => at.as_ptr(),
            Err(error) => return self.justified(kind, size, flags, error),
        };
        let kmalloc = matches!(kind, Kind::Kmalloc | Kind::Layout(_));
        let len = if kmalloc { self.mm.ksize(at).unwrap() } else { size };
        assert!(len >= size);
        let align = match kind {
            Kind::Kmalloc => (size & size.wrapping_neg()).clamp(8, PAGE),
            Kind::Layout(layout) => layout.align(),
            Kind::Block(_) | Kind::Exact(_) => PAGE * size.div_ceil(PAGE).next_power_of_two(),
            Kind::Area | Kind::Device => PAGE,
            Kind::Object(slot) => self.aligns[slot],
        };
        // What the rig's RAM shares with physical addresses is less under Miri.
        let align = if cfg!(miri) { align.min(1 << 16) } else { align };
        assert!(at.addr().is_multiple_of(align), "{kind:?} of {size} at {at:?}");
        if flags.contains(Gfp::ZERO) {
            let mut bytes = vec![1; len];
            self.mm.backend().read(at, &mut bytes);
            assert!(bytes == vec![0; len], "{kind:?} of {size} is not zeroed");
        }
        // Where code is to be small, objects for devices are whole pages.
        let pages = cfg!(feature = "small") && flags.intersects(Gfp::DMA | Gfp::DMA32);
        let in_slab = kmalloc && len <= PAGE && !pages;
        let whole = !in_slab && !matches!(kind, Kind::Object(_));
        self.tag = self.tag.wrapping_add(1);
        let thing = Live { kind, at, len, phys: 0, whole, tag: self.tag };
        self.enter(thing);
        self.fill(&thing);
    }

    /// An allocation fails only when there is no memory for it, or a step was made to fail.
    fn justified(&self, kind: Kind, size: usize, flags: Gfp, error: AllocError) {
        let zones = self.mm.zoneinfo();
        let low = |zone: &&ZoneInfo| kind == Kind::Area || zone.kind != ZoneKind::HighMem;
        let zones: Vec<_> = zones.zones().iter().filter(low).collect();
        let free: usize = zones.iter().map(|zone| zone.free).sum();
        let largest = zones.iter().filter_map(|zone| zone.blocks.iter().rposition(|n| *n != 0)).max();
        let enough = largest.map_or(0, |order| PAGE << order);
        let injected = self.mm.faults().hit();
        let dma = flags.intersects(GFP_DMA | GFP_DMA32);
        let one_block = !B::HAS_MMU || !matches!(kind, Kind::Area);
        match error {
            AllocError::NoMemory | AllocError::NoContig | AllocError::NoAddressSpace => {
                // A slab or an area takes a descriptor besides, and up to four tables.
                let scarce = free * PAGE < size + 16 * PAGE;
                // Slabs of small objects have up to eight pages.
                let in_pieces = one_block && enough < (4 * size).max(8 * PAGE);
                assert!(injected || dma || scarce || in_pieces, "{kind:?} of {size}: {error}");
            }
            AllocError::TooBig => assert!(size > PAGE << 10 || size / PAGE > 500, "{kind:?} of {size}"),
            error => panic!("{kind:?} of {size}: {error}"),
        }
    }

    /// The addresses something takes; areas over tables have a guard before them.
    fn range(thing: &Live) -> (usize, usize) {
        let (start, end) = (thing.at.addr(), thing.at.addr() + thing.len);
        match thing.kind {
            Kind::Area | Kind::Device if B::HAS_MMU => ((start & !4095) - PAGE, end.next_multiple_of(PAGE)),
            _ => (start, end),
        }
    }

    fn enter(&mut self, thing: Live) {
        let (start, end) = Self::range(&thing);
        // Without an MMU device ranges are what they are, and may overlap.
        if B::HAS_MMU || thing.kind != Kind::Device {
            let below = self.taken.range(..end).next_back();
            assert!(below.is_none_or(|(_, below)| *below <= start), "{thing:?} overlaps what is live");
            self.taken.insert(start, end);
        }
        self.live.push(thing);
    }

    fn leave(&mut self, index: usize) -> Live {
        let thing = self.live.swap_remove(index);
        if B::HAS_MMU || thing.kind != Kind::Device {
            self.taken.remove(&Self::range(&thing).0);
        }
        self.gone.push_back((thing.kind, thing.at));
        if self.gone.len() > 24 {
            self.gone.pop_front();
        }
        thing
    }

    /// The bytes that are written and looked at: all of a small thing, both ends of each page of a large one.
    fn parts(len: usize) -> impl Iterator<Item = (usize, usize)> {
        let step = if len <= 2 * PAGE { len.max(1) } else { PAGE };
        let edge = if len <= 2 * PAGE { len } else { 16 };
        (0..len).step_by(step).flat_map(move |at| {
            let (here, end) = (edge.min(len - at), (at + step).min(len));
            [(at, here), (end - edge.min(end - at), edge.min(end - at))]
        })
    }

    fn fill(&self, thing: &Live) {
        if thing.kind == Kind::Device {
            return;
        }
        for (at, len) in Self::parts(thing.len) {
            self.mm.backend().write(thing.at.wrapping_add(at), &vec![thing.tag; len]);
        }
    }

    /// Asserts that the first `len` bytes are as they were written.
    fn kept(&self, thing: &Live, at: *mut u8, len: usize) {
        if thing.kind == Kind::Device {
            return;
        }
        for (from, n) in Self::parts(thing.len) {
            let mut bytes = vec![0; n.min(len.saturating_sub(from))];
            self.mm.backend().read(at.wrapping_add(from), &mut bytes);
            assert!(bytes == vec![thing.tag; bytes.len()], "{thing:?} was overwritten near byte {from}");
        }
    }

    fn call(&self, kind: Kind, at: *mut u8) -> Result<(), FreeError> {
        match kind {
            Kind::Kmalloc | Kind::Layout(_) => self.mm.kfree(at),
            Kind::Block(order) => self.mm.free_pages(at, order),
            Kind::Exact(size) => self.mm.free_pages_exact(at, size),
            Kind::Area => self.mm.vfree(at),
            Kind::Device => self.mm.iounmap(at),
            Kind::Object(slot) => self.caches[slot].as_ref().map_or(Err(FreeError::WrongCache), |cache| cache.free(at)),
        }
    }

    pub fn free(&mut self, index: usize) {
        let thing = self.live[index];
        self.kept(&thing, thing.at, thing.len);
        self.mm.backend().touch(&thing);
        self.call(thing.kind, thing.at).unwrap_or_else(|error| panic!("{thing:?}: {error}"));
        self.leave(index);
        self.mm.backend().unreachable(&thing);
    }

    /// What must not change when a free is refused.
    fn counts(&self) -> (usize, (usize, usize), usize) {
        (self.mm.free_page_count(), self.mm.slabinfo().active(), self.mm.vmallocinfo().count())
    }

    fn free_again(&self, index: usize) {
        if self.gone.is_empty() {
            return;
        }
        let (kind, at) = self.gone[index % self.gone.len()];
        let page = |at: *mut u8| at.addr() & !4095;
        let reused = |thing: &Live| {
            let same = if kind == Kind::Device { page(thing.at) == page(at) } else { thing.at == at };
            same && thing.kind.call() == kind.call()
        };
        if self.live.iter().any(reused) {
            return;
        }
        let before = self.counts();
        let error = self.call(kind, at);
        assert!(error.is_err(), "{kind:?} at {at:?} was free already");
        assert_eq!(self.counts(), before);
    }

    fn free_wrong(&self, index: usize, call: usize, offset: usize) {
        if self.live.is_empty() {
            return;
        }
        let thing = self.live[index % self.live.len()];
        let at = thing.at.wrapping_add(offset % thing.len.max(1));
        let calls = [Kind::Kmalloc, Kind::Block(0), Kind::Exact(3 * PAGE), Kind::Area, Kind::Device, Kind::Object(0)];
        let kind = calls.into_iter().chain((1..CACHES).map(Kind::Object)).nth(call % (5 + CACHES)).unwrap();
        let pages = |kind| match kind {
            Kind::Block(order) => 1 << order,
            Kind::Exact(size) => size.div_ceil(PAGE),
            _ => 0,
        };
        let right = at == thing.at && kind.call() == thing.kind.call() && pages(kind) == pages(thing.kind);
        // An ioremap may be unmapped by any address in its first page.
        if right || (kind == Kind::Device && thing.kind == Kind::Device) {
            return;
        }
        let before = self.counts();
        let error = self.call(kind, at);
        assert!(error.is_err(), "{kind:?} at {at:?}, which is {thing:?}");
        assert_eq!(self.counts(), before);
    }

    fn krealloc(&mut self, index: usize, size: usize) {
        let Some(index) = self.pick(index, |kind| kind == Kind::Kmalloc) else { return };
        let thing = self.live[index];
        match self.mm.krealloc(thing.at, size, GFP_KERNEL) {
            Ok(None) => {
                assert_eq!(size, 0);
                self.leave(index);
            }
            Ok(Some(at)) if at.as_ptr() == thing.at => {
                assert!(size <= thing.len);
                // With feature `debug` all memory is zeroed, and so is what is cut off.
                self.kept(&thing, thing.at, if cfg!(feature = "debug") { size } else { thing.len });
                self.fill(&thing);
            }
            Ok(Some(at)) => {
                self.kept(&thing, at.as_ptr(), thing.len.min(size));
                self.leave(index);
                self.made(Kind::Kmalloc, size, GFP_KERNEL, Ok(at));
            }
            Err(error) => {
                self.justified(Kind::Kmalloc, size, GFP_KERNEL, error);
                self.kept(&thing, thing.at, thing.len);
            }
        }
    }

    fn relayout(&mut self, index: usize, size: usize) {
        let Some(index) = self.pick(index, |kind| matches!(kind, Kind::Layout(_))) else { return };
        let thing = self.live[index];
        let Kind::Layout(layout) = thing.kind else { return };
        // SAFETY: it came from `alloc_layout` or `realloc_layout` with that layout.
        let at = unsafe { self.mm.realloc_layout(thing.at, layout, size) };
        let kind = Kind::Layout(Layout::from_size_align(size, layout.align()).unwrap());
        if at.is_null() {
            self.justified(kind, size.max(layout.align()), GFP_NOWAIT, AllocError::NoMemory);
            self.kept(&thing, thing.at, thing.len);
        } else if at == thing.at {
            self.live[index].kind = kind;
            self.kept(&thing, thing.at, thing.len);
        } else {
            self.kept(&thing, at, layout.size().min(size));
            self.leave(index);
            self.made(kind, size, GFP_NOWAIT, Ok(NonNull::new(at).unwrap()));
        }
    }

    fn pick(&self, index: usize, wanted: impl Fn(Kind) -> bool) -> Option<usize> {
        let fitting: Vec<_> = (0..self.live.len()).filter(|i| wanted(self.live[*i].kind)).collect();
        fitting.get(index.checked_rem(fitting.len())?).copied()
    }

    fn end_cache(&mut self, slot: usize) {
        let objects = self.live.iter().filter(|thing| thing.kind == Kind::Object(slot)).count();
        match self.caches[slot].take().map(|cache| cache.destroy()) {
            None => {}
            Some(Ok(())) => assert_eq!(objects, 0),
            Some(Err((cache, error))) => {
                assert_eq!(error, MmError::Busy(objects));
                self.caches[slot] = Some(cache);
            }
        }
    }

    /// The full scan, and that the manager counts what the model counts.
    pub fn check(&self) {
        let report = self.mm.check().unwrap_or_else(|damage| panic!("{damage}"));
        let count = |wanted: &dyn Fn(&Live) -> bool| self.live.iter().filter(|thing| wanted(thing)).count();
        let areas = count(&|thing| matches!(thing.kind, Kind::Area | Kind::Device));
        assert_eq!((report.areas, self.mm.vmallocinfo().count()), (areas, areas));
        let objects = count(&|thing| matches!(thing.kind, Kind::Object(_)));
        let small = count(&|thing| matches!(thing.kind, Kind::Kmalloc | Kind::Layout(_)) && !thing.whole);
        assert_eq!(self.mm.slabinfo().active(), (small, objects));
        let blocks = count(&|thing| thing.whole && thing.kind.call() < 2);
        assert_eq!(report.blocks, blocks);
        assert_eq!(report.free, self.mm.free_page_count());
        self.mm.backend().tables_agree(self.mm, &self.live);
    }

    /// Frees everything, in an order that depends on `key`.
    pub fn end(mut self, key: usize) {
        while !self.live.is_empty() {
            self.free(key % self.live.len());
        }
        for slot in 0..CACHES {
            self.end_cache(slot);
            assert!(self.caches[slot].is_none());
        }
        self.check();
    }
}
