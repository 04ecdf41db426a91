//! Whole managers on the host, of both kinds.

use crate::{Ram, SimConfig, SimMachine, SimPae, TestPlatform};
use backend_mmu_x86::X86;
use backend_nommu::{Arena, RegionGuard};
use mm_core::{Backend, BootMap, Config, Mm, Pfn, PhysRange, VirtRange, ZoneKind, ZoneSpec};

/// A manager without an MMU, on an arena.
pub type NoMmuMm = Mm<TestPlatform, Arena>;
/// A manager on simulated x86 tables: of 64-bit mode, or on a 32-bit host of PAE.
pub type MmuMm = Mm<TestPlatform, X86<SimMachine>>;
/// A manager on simulated PAE tables.
pub type PaeMm = Mm<TestPlatform, X86<SimPae>>;

/// The vmalloc window of [`Rig::mmu`].
#[cfg(target_pointer_width = "64")]
pub const WINDOW: VirtRange = VirtRange { start: 0xffff_c900_0000_0000, end: 0xffff_c900_0100_0000 };
/// The vmalloc window of [`Rig::mmu`].
#[cfg(not(target_pointer_width = "64"))]
pub const WINDOW: VirtRange = VirtRange { start: 0xe000_0000, end: 0xe100_0000 };

/// The vmalloc window of [`Rig::pae_on`].
pub const PAE_WINDOW: VirtRange = VirtRange { start: 0xf880_0000, end: 0xf980_0000 };

/// A manager and the machine it lives on.
pub struct Rig<B: Backend> {
    /// The manager; it goes first.
    pub mm: Box<Mm<TestPlatform, B>>,
    /// Its platform.
    pub platform: TestPlatform,
    /// Its RAM, for rigs without a machine of their own.
    pub ram: Option<Ram>,
}

/// The zones of a rig: DMA below 1 MiB when it has RAM there, Normal above.
fn zones(ranges: &[(u64, u64)]) -> Vec<ZoneSpec> {
    let mut zones = vec![ZoneSpec { kind: ZoneKind::Normal, end: 1 << 40 }];
    if ranges.iter().any(|&(start, _)| start < 1 << 20) {
        zones.insert(0, ZoneSpec { kind: ZoneKind::Dma, end: 1 << 20 });
    }
    zones
}

impl Rig<Arena> {
    /// A manager without an MMU on `len` bytes of RAM at `phys`.
    ///
    /// # Panics
    /// If the RAM is too small to manage.
    pub fn nommu(phys: u64, len: u64) -> Self {
        Self::arena(phys, len)
    }
}

impl<const MAX_ORDER: usize> Rig<Arena<MAX_ORDER>> {
    /// A manager without an MMU, with blocks of any largest order, on `len` bytes of RAM at `phys`.
    ///
    /// # Panics
    /// If the RAM is too small to manage.
    pub fn arena(phys: u64, len: u64) -> Self {
        Self::arena_prepared(phys, len, |_| ())
    }

    /// [`Rig::arena`], with something done before `init`.
    ///
    /// # Panics
    /// As `arena`.
    pub fn arena_prepared(phys: u64, len: u64, prepare: impl FnOnce(&Mm<TestPlatform, Arena<MAX_ORDER>>)) -> Self {
        Self::on_arena(phys, len, Arena::new(), prepare)
    }
}

impl<const MAX_ORDER: usize, G: RegionGuard> Rig<Arena<MAX_ORDER, G>> {
    /// A manager without an MMU, whose areas `regions` guard, on `len` bytes of RAM at `phys`.
    ///
    /// # Panics
    /// If the RAM is too small to manage.
    pub fn guarded(phys: u64, len: u64, regions: G) -> Self {
        Self::on_arena(phys, len, Arena::guarded_by(regions), |_| ())
    }

    fn on_arena(
        phys: u64,
        len: u64,
        arena: Arena<MAX_ORDER, G>,
        prepare: impl FnOnce(&Mm<TestPlatform, Arena<MAX_ORDER, G>>),
    ) -> Self {
        let ram = Ram::new(&[PhysRange { start: phys, end: phys + len }]);
        let platform = TestPlatform::new();
        // SAFETY: the rig keeps the RAM longer than the manager.
        unsafe { arena.place(ram.ptr(phys).expect("RAM"), phys as usize) };
        let mm = Box::new(Mm::new(platform.clone(), arena));
        prepare(&mm);
        let mut map: BootMap = BootMap::new();
        map.add_ram(phys, len).expect("one range");
        let mut usable = map.finish(12, 44).expect("usable RAM");
        let zones = zones(&[(phys, phys + len)]);
        let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
        // SAFETY: the memory is this manager's alone, and is there.
        unsafe { mm.init(&mut usable, &config) }.expect("init");
        Rig { mm, platform, ram: Some(ram) }
    }
}

impl Rig<X86<SimMachine>> {
    /// A manager on a simulated machine with RAM in `ranges` of (start, end).
    ///
    /// # Panics
    /// If the RAM is too small to manage.
    pub fn mmu(ranges: &[(u64, u64)]) -> Self {
        Self::mmu_on(SimConfig::new(ranges))
    }

    /// A manager on the machine that `config` tells of: RAM past `lowmem_end` is HIGHMEM, and a flush by one CPU is
    /// followed by the others.
    ///
    /// # Panics
    /// If the RAM is too small to manage.
    pub fn mmu_on(config: SimConfig) -> Self {
        Self::on(config, WINDOW, |_| ())
    }

    /// [`Rig::mmu_on`], with something done before `init`.
    ///
    /// # Panics
    /// As `mmu_on`.
    pub fn mmu_prepared(config: SimConfig, prepare: impl FnOnce(&MmuMm)) -> Self {
        Self::on(config, WINDOW, prepare)
    }
}

impl Rig<X86<SimPae>> {
    /// As [`Rig::mmu_on`], with PAE tables.
    ///
    /// # Panics
    /// If the RAM is too small to manage.
    pub fn pae_on(config: SimConfig) -> Self {
        Self::on(config, PAE_WINDOW, |_| ())
    }
}

impl<const PAE: bool> Rig<X86<SimMachine<PAE>>> {
    fn on(config: SimConfig, window: VirtRange, prepare: impl FnOnce(&Mm<TestPlatform, X86<SimMachine<PAE>>>)) -> Self {
        let ranges: Vec<_> = config.ram.iter().map(|range| (range.start, range.end)).collect();
        let (phys_bits, low) = (config.phys_bits, config.lowmem_end);
        let machine = SimMachine::<PAE>::new(config);
        let mut map: BootMap = BootMap::new();
        for &(start, end) in &ranges {
            map.add_ram(start, end - start).expect("few ranges");
        }
        let mut usable = map.finish(12, phys_bits).expect("usable RAM");
        machine.boot(window, &mut || Some(Pfn((usable.alloc_top(4096, 4096, low)?.start >> 12) as u32)));
        let platform = TestPlatform::new();
        let others = machine.clone();
        platform.on_flush_remote(move |range| others.flush_others(range));
        let mut zones = zones(&ranges);
        if let Some(normal) = zones.last_mut().filter(|normal| low < normal.end) {
            normal.end = low;
            zones.push(ZoneSpec { kind: ZoneKind::HighMem, end: 1 << 40 });
        }
        let mm = Box::new(Mm::new(platform.clone(), X86::new(machine)));
        prepare(&mm);
        // SAFETY: the memory is this manager's alone, and is there.
        unsafe { mm.init(&mut usable, &Config::new(&zones, window)) }.expect("init");
        Rig { mm, platform, ram: None }
    }

    /// The simulated machine.
    pub fn machine(&self) -> &SimMachine<PAE> {
        self.mm.backend().machine()
    }
}

impl<B: Backend> Rig<B> {
    /// Runs `test`, and asserts that afterwards everything is as it was.
    ///
    /// # Panics
    /// If free pages, objects or areas differ, or the scan finds damage.
    pub fn nothing_lost<R>(&self, test: impl FnOnce(&Mm<TestPlatform, B>) -> R) -> R {
        let counts = || {
            self.mm.drain();
            let report = self.mm.check().unwrap_or_else(|damage| panic!("{damage}"));
            (self.mm.free_page_count(), self.mm.slabinfo().active(), self.mm.vmallocinfo().count(), report)
        };
        let before = counts();
        let result = test(&self.mm);
        assert_eq!(counts(), before);
        result
    }
}
