//! Tables under test beside a model of them.
#![allow(dead_code, reason = "each test file uses its part")]

use backend_mmu_x86::{X86, kernel};
use mm_core::{CacheMode, MapError, Mapping, PageRange, PageTable, Pfn, Prot, VirtAddr, VirtRange, Walk};
use rtmm_testkit::{Fault, MemoryType, Seen, SimConfig, SimMachine, SimTables};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub const PAGE: usize = 4096;
pub const LARGE: usize = 512 * PAGE;
pub const PROTS: [Prot; 3] = [Prot::Read, Prot::ReadWrite, Prot::ReadExecute];
pub const CACHES: [CacheMode; 4] =
    [CacheMode::WriteBack, CacheMode::WriteThrough, CacheMode::WriteCombining, CacheMode::Uncached];

/// RAM of the machine: enough for tables, in two pieces.
const RAM: [(u64, u64); 2] = [(0x1000, 0x9f000), (0x10_0000, 0x14_0000)];
/// Where the direct map ends, so that the one of a PAE machine leaves room.
const LOWMEM_END: u64 = 0x3800_0000;

/// How many large entries one call reaches from `at` on: of one table, and in one batch.
fn large_reach(at: usize, pages: u32) -> usize {
    (pages as usize / 512).min(32).min(512 - at / LARGE % 512)
}

/// What the model says of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    Page { pfn: u32, prot: Prot, cache: CacheMode, large: bool },
    Guard(u32),
}

/// A machine with its backend and tables, and what they should say.
pub struct Rig<const PAE: bool> {
    pub machine: SimMachine<PAE>,
    pub backend: X86<SimMachine<PAE>>,
    pub tables: SimTables<SimMachine<PAE>>,
    pub root: Pfn,
    pub window: VirtRange,
    /// By page address.
    pub model: BTreeMap<usize, Slot>,
    stores: Arc<AtomicU64>,
}

impl<const PAE: bool> Rig<PAE> {
    pub fn new(cpus: usize) -> Self {
        let mut config = SimConfig::new(&RAM);
        config.cpus = cpus;
        config.lowmem_end = LOWMEM_END;
        let window = if PAE {
            config.direct_base = 0xc000_0000;
            config.phys_bits = 36;
            VirtRange { start: 0xf800_0000, end: 0xff00_0000 }
        } else {
            // The end of one root slot and the start of the next.
            VirtRange { start: 0xffff_c97f_c000_0000, end: 0xffff_c980_4000_0000 }
        };
        let machine = SimMachine::new(config);
        let mut free: Vec<Pfn> =
            RAM.iter().flat_map(|&(start, end)| start >> 12..end >> 12).map(|n| Pfn(n as u32)).collect();
        free.reverse();
        let root = machine.boot(window, &mut || free.pop());
        let tables = SimTables::new(machine.clone(), free);
        let stores = Arc::new(AtomicU64::new(0));
        let rig =
            Rig { backend: X86::new(machine.clone()), machine, tables, root, window, model: BTreeMap::new(), stores };
        rig.count_stores();
        rig
    }

    /// From now on every store to a table is counted (again).
    pub fn count_stores(&self) {
        let stores = self.stores.clone();
        self.machine.watch(Some(Box::new(move |_, _| {
            stores.fetch_add(1, Ordering::Relaxed);
        })));
    }

    /// `call`, given tables as it asks for them. Whatever it says, an error stores nothing.
    pub fn with_tables<T>(
        &mut self,
        mut call: impl FnMut(&X86<SimMachine<PAE>>, Pfn, &mut SimTables<SimMachine<PAE>>) -> Result<T, MapError>,
    ) -> Result<T, MapError> {
        self.tables.bring(0);
        loop {
            let before = self.stores.load(Ordering::Relaxed);
            let result = call(&self.backend, self.root, &mut self.tables);
            if result.is_err() {
                assert_eq!(self.stores.load(Ordering::Relaxed), before, "a failed call stored entries");
            }
            match result {
                Err(MapError::NeedTables(count)) => {
                    assert!(count <= X86::<SimMachine<PAE>>::MAX_TABLES);
                    assert!(self.tables.in_hand_now() < count, "asked for tables that were there");
                    self.tables.bring(count);
                }
                other => {
                    assert_eq!(self.tables.in_hand_now(), 0, "asked for more tables than needed");
                    return other;
                }
            }
        }
    }

    pub fn map(&mut self, at: usize, run: PageRange, prot: Prot, cache: CacheMode) -> Result<u32, MapError> {
        // SAFETY: one thread, and nothing but the simulated CPU uses these addresses.
        let call = |backend: &X86<_>, root, tables: &mut SimTables<_>| unsafe {
            backend.map(root, VirtAddr(at), run, prot, cache, tables)
        };
        let result = self.with_tables(call);
        assert_eq!(result, self.expected_map(at, run), "map {run:x?} at {at:#x}");
        let large = result.is_ok_and(|pages| pages >= 512);
        for i in 0..result.unwrap_or(0) {
            let slot = Slot::Page { pfn: run.start.0 + i, prot, cache, large };
            self.model.insert(at + i as usize * PAGE, slot);
        }
        result
    }

    fn expected_map(&self, at: usize, run: PageRange) -> Result<u32, MapError> {
        let left = 512 - (at / PAGE) % 512;
        let aligned = left == 512 && run.start.0.is_multiple_of(512);
        let free = |i: &usize| self.model.range(at + i * LARGE..at + i * LARGE + LARGE).next().is_none();
        let large = (0..large_reach(at, run.count)).take_while(free).count() as u32;
        if aligned && large != 0 {
            return Ok(large * 512);
        }
        let count = run.count.min(left as u32).min(32);
        let taken = self.model.range(at..at + count as usize * PAGE).next().is_some();
        if taken { Err(MapError::AlreadyMapped) } else { Ok(count) }
    }

    /// Unmaps, with blocks of up to `block` frames.
    pub fn unmap(&mut self, at: usize, pages: u32, block: u32) -> u32 {
        let mut seen = 0;
        let (model, tables) = (&self.model, &mut self.tables);
        let mut next_block = |pfn: Pfn, most: u32| {
            let here = at + seen as usize * PAGE;
            let frame = |page: usize| match model.get(&page) {
                Some(Slot::Page { pfn, .. }) => Some(*pfn),
                _ => None,
            };
            assert_eq!(frame(here), Some(pfn.0), "the frame at {here:#x}");
            let same = (0..most.min(block)).take_while(|i| frame(here + *i as usize * PAGE) == Some(pfn.0 + i)).count();
            seen += same as u32;
            same as u32
        };
        // SAFETY: as in `map`.
        let done = unsafe { self.backend.unmap(self.root, VirtAddr(at), pages, tables, &mut next_block) };
        assert_eq!(done, seen);
        assert_eq!(done, self.expected_reach(at, pages, true), "unmap {pages} at {at:#x}");
        for i in 0..done as usize {
            self.model.remove(&(at + i * PAGE));
        }
        done
    }

    /// How far one call gets from `at`; a large entry in part only if not `whole`.
    fn expected_reach(&self, at: usize, pages: u32, whole: bool) -> u32 {
        let left = (512 - (at / PAGE) % 512) as u32;
        match self.model.get(&at) {
            Some(Slot::Page { large: true, .. }) if whole && left < 512 => 0,
            Some(Slot::Page { large: true, .. }) if whole => {
                let large =
                    |i: &usize| matches!(self.model.get(&(at + i * LARGE)), Some(Slot::Page { large: true, .. }));
                (0..large_reach(at, pages)).take_while(large).count() as u32 * 512
            }
            Some(Slot::Page { large: true, .. }) => pages.min(left),
            Some(Slot::Page { .. }) => {
                let present = |i: &u32| matches!(self.model.get(&(at + *i as usize * PAGE)), Some(Slot::Page { .. }));
                (0..pages.min(left).min(32)).take_while(present).count() as u32
            }
            _ => 0,
        }
    }

    pub fn protect(&mut self, at: usize, pages: u32, prot: Prot) -> Result<u32, MapError> {
        let call = |backend: &X86<_>, root, tables: &mut SimTables<_>| {
            // SAFETY: as in `map`.
            unsafe { backend.protect(root, VirtAddr(at), pages, prot, tables) }
        };
        let result = self.with_tables(call);
        let reach = self.expected_reach(at, pages, false);
        let expected = if reach == 0 { Err(MapError::NotMapped) } else { Ok(reach) };
        assert_eq!(result, expected, "protect {pages} at {at:#x}");
        if let Some(Slot::Page { large: true, prot: old, .. }) = self.model.get(&at).copied()
            && old != prot
            && reach != 512
        {
            let region = at & !(LARGE - 1);
            for (_, slot) in self.model.range_mut(region..region + LARGE) {
                if let Slot::Page { large, .. } = slot {
                    *large = false;
                }
            }
        }
        for i in 0..reach as usize {
            if let Some(Slot::Page { prot: old, .. }) = self.model.get_mut(&(at + i * PAGE)) {
                *old = prot;
            }
        }
        result
    }

    pub fn set_guard(&mut self, at: usize, tag: u32) -> Result<(), MapError> {
        let call = |backend: &X86<_>, root, tables: &mut SimTables<_>| {
            // SAFETY: as in `map`.
            unsafe { backend.set_guard(root, VirtAddr(at), tag, tables) }
        };
        let result = self.with_tables(call);
        let expected = if self.model.contains_key(&at) { Err(MapError::AlreadyMapped) } else { Ok(()) };
        assert_eq!(result, expected, "guard at {at:#x}");
        self.model.entry(at).or_insert(Slot::Guard(tag));
        result
    }

    pub fn clear_guard(&mut self, at: usize) {
        // SAFETY: as in `map`.
        unsafe { self.backend.clear_guard(self.root, VirtAddr(at), &mut self.tables) };
        if let Some(Slot::Guard(_)) = self.model.get(&at) {
            self.model.remove(&at);
        }
    }

    /// Flushes `pages` from `at` on the current CPU, and lets retired tables be used again.
    pub fn flush(&mut self, at: usize, pages: usize) {
        self.backend.flush(VirtRange { start: at, end: at + pages * PAGE });
        self.tables.flushed();
    }

    /// Walks `at` both ways, by the backend and as a CPU with empty caches, and compares with the model.
    pub fn check_page(&self, at: usize) {
        let walk = self.backend.walk_kernel(VirtAddr(at));
        let look = self.machine.look(at);
        match self.model.get(&at) {
            Some(&Slot::Page { pfn, prot, cache, large }) => {
                let pages = if large { 512 } else { 1 };
                assert_eq!(walk, Walk::Mapped(Mapping { pfn: Pfn(pfn), pages, prot, cache }), "walk of {at:#x}");
                assert_eq!(look, Ok(seen(pfn, prot, cache, large)), "look at {at:#x}");
            }
            Some(&Slot::Guard(tag)) => {
                assert_eq!(walk, Walk::Guard(tag), "walk of {at:#x}");
                assert_eq!(look, Err(absent(at)), "look at {at:#x}");
            }
            None => {
                assert_eq!(walk, Walk::Absent, "walk of {at:#x}");
                assert_eq!(look, Err(absent(at)), "look at {at:#x}");
            }
        }
    }

    /// Compares everything that is mapped in the window, the guards and the counts with the model.
    pub fn check(&self) {
        let mut live = BTreeMap::new();
        // SAFETY: one thread.
        unsafe {
            kernel::for_each_mapping(&self.machine, self.root, |virt, phys, bytes, writable, executable| {
                assert!(!(writable && executable), "{virt:#x} is writable and executable");
                if self.window.contains(virt) {
                    live.insert(virt, (phys, bytes, writable, executable));
                }
            });
        }
        let mut expected = BTreeMap::new();
        for (&at, slot) in &self.model {
            match *slot {
                Slot::Page { large: true, .. } if at % LARGE != 0 => {}
                Slot::Page { pfn, prot, large, .. } => {
                    let bytes = if large { LARGE } else { PAGE } as u64;
                    expected.insert(at, (u64::from(pfn) << 12, bytes, prot.writable(), prot.executable()));
                }
                Slot::Guard(_) => self.check_page(at),
            }
        }
        assert_eq!(live, expected);
        assert_eq!(self.live_counts(), self.expected_counts());
        assert_eq!(self.machine.assists(), 0, "the CPU had to write to a table");
    }

    fn live_counts(&self) -> Vec<u32> {
        let mut counts: Vec<u32> = self.tables.live().values().copied().collect();
        counts.sort_unstable();
        counts
    }

    /// One table for each 2 MiB with small entries, and, in 64-bit mode, one for each GiB with any.
    fn expected_counts(&self) -> Vec<u32> {
        let mut lowest: BTreeMap<usize, u32> = BTreeMap::new();
        let mut upper: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (&at, slot) in &self.model {
            if !matches!(slot, Slot::Page { large: true, .. }) {
                *lowest.entry(at / LARGE).or_default() += 1;
            }
            let below = upper.entry(at / LARGE / 512).or_default();
            if below.last() != Some(&(at / LARGE)) {
                below.push(at / LARGE);
            }
        }
        let mut counts: Vec<u32> = lowest.into_values().collect();
        if !PAE {
            counts.extend(upper.values().map(|below| below.len() as u32));
        }
        counts.sort_unstable();
        counts
    }
}

/// What a CPU should see of a page.
pub fn seen(pfn: u32, prot: Prot, cache: CacheMode, large: bool) -> Seen {
    let memory = match cache {
        CacheMode::WriteBack => MemoryType::WriteBack,
        CacheMode::WriteThrough => MemoryType::WriteThrough,
        CacheMode::WriteCombining => MemoryType::WriteCombining,
        CacheMode::Uncached => MemoryType::Uncached,
    };
    Seen {
        phys: u64::from(pfn) << 12,
        bytes: if large { LARGE } else { PAGE } as u64,
        writable: prot.writable(),
        executable: prot.executable(),
        global: true,
        memory,
    }
}

/// The fault of a load from where nothing is mapped.
pub fn absent(addr: usize) -> Fault {
    Fault::Page { addr, present: false, write: false, fetch: false, reserved: false }
}
