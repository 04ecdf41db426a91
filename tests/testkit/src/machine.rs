//! An x86 machine in memory.

use crate::cpu::{Access, Cpu, Fault, Seen};
use crate::ram::Ram;
use backend_mmu_x86::{Levels, Machine, kernel};
use mm_core::{MmError, Pfn, PhysRange, VirtRange};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a simulated machine has.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Its RAM.
    pub ram: Vec<PhysRange>,
    /// How many CPUs.
    pub cpus: usize,
    /// Width of a physical address in bits.
    pub phys_bits: u32,
    /// Where the direct map ends.
    pub lowmem_end: u64,
    /// Where the direct map starts in the tables.
    pub direct_base: usize,
    /// The entries of the direct map.
    pub entries: Entries,
}

/// The entries a direct map is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entries {
    /// Large ones where possible.
    Large,
    /// Of single pages.
    Pages,
}

/// Where `Hw` has the direct map; on a 32-bit host, where PAE kernels have it.
#[cfg(target_pointer_width = "64")]
const DIRECT_BASE: usize = 0xffff_8880_0000_0000;
#[cfg(not(target_pointer_width = "64"))]
const DIRECT_BASE: usize = 0xc000_0000;

/// Where windows are, on machines with RAM past the direct map.
#[cfg(target_pointer_width = "64")]
const WINDOWS: usize = 0xffff_fe00_0000_0000;
#[cfg(not(target_pointer_width = "64"))]
const WINDOWS: usize = PAE_WINDOWS;
/// The same with PAE, as `Hw` has it.
const PAE_WINDOWS: usize = 0xffc0_0000;

impl SimConfig {
    /// One CPU with 46 address bits, a direct map of all RAM where `Hw` has it; RAM in `ranges` of (start, end).
    pub fn new(ranges: &[(u64, u64)]) -> SimConfig {
        SimConfig {
            ram: ranges.iter().map(|&(start, end)| PhysRange { start, end }).collect(),
            cpus: 1,
            phys_bits: 46,
            lowmem_end: u64::MAX,
            direct_base: DIRECT_BASE,
            entries: Entries::Large,
        }
    }

    /// The same with 36 address bits and a direct map up to `lowmem_end`, where a PAE kernel has it.
    pub fn pae(ranges: &[(u64, u64)], lowmem_end: u64) -> SimConfig {
        SimConfig { phys_bits: 36, lowmem_end, direct_base: 0xc000_0000, ..SimConfig::new(ranges) }
    }
}

/// A machine in 64-bit mode, or with PAE paging, which is all a 32-bit host can have. Clones are the same machine.
///
/// Software reaches RAM by host pointers, which stand for the direct map; addresses that are mapped by tables are
/// reached by [`load`](Self::load), [`store`](Self::store) and [`fetch`](Self::fetch), as the CPU selected by
/// [`run_on`](Self::run_on) would.
pub struct SimMachine<const PAE: bool = false> {
    state: Arc<State>,
}

/// A machine with PAE paging.
pub type SimPae = SimMachine<true>;

type Watcher = Box<dyn FnMut(Pfn, usize) + Send>;

struct State {
    ram: Ram,
    config: SimConfig,
    cpus: Mutex<Vec<Cpu>>,
    current: AtomicUsize,
    page_flushes: AtomicU64,
    whole_flushes: AtomicU64,
    deaf: AtomicBool,
    watched: AtomicBool,
    watcher: Mutex<Option<Watcher>>,
}

impl<const PAE: bool> Clone for SimMachine<PAE> {
    fn clone(&self) -> Self {
        SimMachine { state: self.state.clone() }
    }
}

impl<const PAE: bool> SimMachine<PAE> {
    /// A machine as `config` says, with zeroed RAM and no tables yet.
    pub fn new(config: SimConfig) -> Self {
        let levels = <Self as Machine>::LEVELS;
        let cpus = (0..config.cpus).map(|_| Cpu::new(levels, config.phys_bits)).collect();
        let state = State {
            ram: Ram::new(&config.ram),
            config,
            cpus: Mutex::new(cpus),
            current: AtomicUsize::new(0),
            page_flushes: AtomicU64::new(0),
            whole_flushes: AtomicU64::new(0),
            deaf: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            watcher: Mutex::new(None),
        };
        SimMachine { state: Arc::new(state) }
    }

    /// Builds kernel tables with a direct map and upper tables for `window`, and activates them on every CPU.
    /// The machine's program has no segments, since it does not run on the simulated CPU.
    ///
    /// # Panics
    /// If the tables cannot be built.
    pub fn boot(&self, window: VirtRange, take: &mut dyn FnMut() -> Option<Pfn>) -> Pfn {
        let build = match self.state.config.entries {
            Entries::Large => kernel::build,
            Entries::Pages => kernel::build_in_pages,
        };
        // SAFETY: the caller gives frames of this machine's RAM that nobody uses; all RAM is within reach.
        let root = unsafe { build(self, &[], &self.state.config.ram, window, take) }.expect("kernel tables");
        for cpu in 0..self.state.config.cpus {
            self.run_on(cpu);
            // SAFETY: `root` was just built; the program runs on the host.
            unsafe { kernel::activate(self, root) }.expect("a simulated CPU has all features");
        }
        self.run_on(0);
        root
    }

    /// The RAM.
    pub fn ram(&self) -> &Ram {
        &self.state.ram
    }

    /// From now on, accesses, flushes and register writes happen on CPU `cpu`.
    pub fn run_on(&self, cpu: usize) {
        assert!(cpu < self.state.config.cpus);
        self.state.current.store(cpu, Ordering::SeqCst);
    }

    /// How many CPUs there are.
    pub fn cpu_count(&self) -> usize {
        self.state.config.cpus
    }

    /// The CPU selected by [`run_on`](Self::run_on).
    pub fn current(&self) -> usize {
        self.state.current.load(Ordering::SeqCst)
    }

    /// Loads `into.len()` bytes from `virt`.
    ///
    /// # Errors
    /// The first fault; nothing counts as loaded then.
    pub fn load(&self, virt: usize, into: &mut [u8]) -> Result<(), Fault> {
        self.each_page(virt, into.len(), Access::Read, |ptr, at, len| {
            // SAFETY: `each_page` checked that it is RAM.
            unsafe { ptr.copy_to_nonoverlapping(into[at..].as_mut_ptr(), len) }
        })
    }

    /// Stores `bytes` at `virt`.
    ///
    /// # Errors
    /// The first fault; bytes on the pages before are stored.
    pub fn store(&self, virt: usize, bytes: &[u8]) -> Result<(), Fault> {
        self.each_page(virt, bytes.len(), Access::Write, |ptr, at, len| {
            // SAFETY: as above.
            unsafe { ptr.copy_from_nonoverlapping(bytes[at..].as_ptr(), len) }
        })
    }

    /// Fetches an instruction at `virt`; returns the physical address it came from.
    ///
    /// # Errors
    /// The fault.
    pub fn fetch(&self, virt: usize) -> Result<u64, Fault> {
        self.access(virt, Access::Fetch).map(|seen| seen.phys)
    }

    /// Translates `virt` for `access`, by the TLB if it knows and into the TLB if not.
    ///
    /// # Errors
    /// The fault.
    pub fn access(&self, virt: usize, access: Access) -> Result<Seen, Fault> {
        self.with_cpu(|cpu, ram| cpu.access(ram, virt, access))
    }

    /// What the tables say of `virt` to a CPU that has nothing cached.
    ///
    /// # Errors
    /// The fault that a load would raise.
    pub fn look(&self, virt: usize) -> Result<Seen, Fault> {
        self.with_cpu(|cpu, ram| cpu.look(ram, virt))
    }

    /// Flushes `range`, page by page, on all CPUs but the current one: what a shootdown does.
    pub fn flush_others(&self, range: VirtRange) {
        if self.state.deaf.load(Ordering::Relaxed) {
            return;
        }
        let current = self.current();
        for (number, cpu) in self.cpus().iter_mut().enumerate() {
            if number != current {
                (range.start & !0xfff..range.end).step_by(4096).for_each(|page| cpu.flush_page(page));
            }
        }
    }

    /// A seeded bug: from now on no CPU flushes anything, whatever it is told. What a test says of stale translations
    /// must fail then.
    pub fn break_flushes(&self) {
        self.state.deaf.store(true, Ordering::Relaxed);
    }

    /// How often one page, and how often everything, was flushed.
    pub fn flushes(&self) -> (u64, u64) {
        (self.state.page_flushes.load(Ordering::Relaxed), self.state.whole_flushes.load(Ordering::Relaxed))
    }

    /// How often a CPU had to set an accessed or dirty bit itself.
    pub fn assists(&self) -> u64 {
        self.cpus().iter().map(|cpu| cpu.assists).sum()
    }

    /// Calls `watcher(table, index)` after each store to a table, until the next call of this.
    pub fn watch(&self, watcher: Option<Watcher>) {
        self.state.watched.store(watcher.is_some(), Ordering::SeqCst);
        *self.state.watcher.lock().unwrap_or_else(PoisonError::into_inner) = watcher;
    }

    fn cpus(&self) -> MutexGuard<'_, Vec<Cpu>> {
        // A test that failed while it held the lock has said why; others go on.
        self.state.cpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_cpu<R>(&self, f: impl FnOnce(&mut Cpu, &Ram) -> R) -> R {
        f(&mut self.cpus()[self.current()], &self.state.ram)
    }

    fn each_page(
        &self,
        virt: usize,
        len: usize,
        access: Access,
        mut f: impl FnMut(*mut u8, usize, usize),
    ) -> Result<(), Fault> {
        let mut at = 0;
        while at < len {
            let here = virt.wrapping_add(at);
            let step = (4096 - (here & 0xfff)).min(len - at);
            self.with_cpu(|cpu, ram| {
                let phys = cpu.access(ram, here, access)?.phys;
                let ptr = ram.ptr(phys).ok_or(Fault::NoMemory { phys })?;
                f(ptr, at, step);
                Ok(())
            })?;
            at += step;
        }
        Ok(())
    }
}

// SAFETY: pointers are into RAM and addresses come back by the same table; a flush drops what it says, and links
// always; `root` is what `set_root` stored.
unsafe impl<const PAE: bool> Machine for SimMachine<PAE> {
    #[cfg(target_pointer_width = "64")]
    const LEVELS: Levels = if PAE { Levels::PAE } else { Levels::LONG };
    #[cfg(not(target_pointer_width = "64"))]
    const LEVELS: Levels = Levels::PAE;

    fn direct_ptr(&self, phys: usize) -> *mut u8 {
        assert!((phys as u64) < self.state.config.lowmem_end, "{phys:#x} is not in the direct map");
        self.state.ram.ptr(phys as u64).unwrap_or_else(|| panic!("{phys:#x} is not RAM"))
    }

    fn direct_frame(&self, addr: usize) -> usize {
        let phys = self.state.ram.phys(addr).filter(|&phys| phys < self.state.config.lowmem_end);
        phys.map_or(usize::MAX >> 12, |phys| (phys >> 12) as usize)
    }

    fn direct_base(&self) -> usize {
        self.state.config.direct_base
    }

    fn lowmem_end(&self) -> u64 {
        self.state.config.lowmem_end
    }

    fn windows(&self) -> VirtRange {
        if self.state.config.lowmem_end == u64::MAX {
            return VirtRange { start: 0, end: 0 };
        }
        let start = if PAE { PAE_WINDOWS } else { WINDOWS };
        VirtRange { start, end: start + (2 << 20) }
    }

    /// Where the selected CPU gets to by that address, so that what was not flushed shows.
    fn window_ptr(&self, virt: usize) -> *mut u8 {
        let seen = self.access(virt, Access::Write).unwrap_or_else(|fault| panic!("window at {virt:#x}: {fault:x?}"));
        self.state.ram.ptr(seen.phys).unwrap_or_else(|| panic!("window at {virt:#x} leads to {:#x}", seen.phys))
    }

    fn phys_bits(&self) -> u32 {
        self.state.config.phys_bits
    }

    fn flush_page(&self, virt: usize) {
        self.state.page_flushes.fetch_add(1, Ordering::Relaxed);
        if self.state.deaf.load(Ordering::Relaxed) {
            return;
        }
        self.with_cpu(|cpu, _| cpu.flush_page(virt));
    }

    fn flush_all(&self) {
        self.state.whole_flushes.fetch_add(1, Ordering::Relaxed);
        if self.state.deaf.load(Ordering::Relaxed) {
            return;
        }
        self.with_cpu(|cpu, _| cpu.flush_all());
    }

    fn root(&self) -> Pfn {
        Pfn(self.with_cpu(|cpu, _| cpu.root >> 12) as u32)
    }

    unsafe fn prepare(&self, pat: u64) -> Result<(), MmError> {
        self.with_cpu(|cpu, _| cpu.prepare(pat));
        Ok(())
    }

    unsafe fn set_root(&self, root: Pfn) {
        self.with_cpu(|cpu, ram| cpu.set_root(ram, u64::from(root.0) << 12));
    }

    fn stored(&self, table: Pfn, index: usize) {
        if !self.state.watched.load(Ordering::Relaxed) {
            return;
        }
        // Out of its place while it runs, so that it may look at the machine freely.
        let taken = self.state.watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut watcher) = taken {
            watcher(table, index);
            *self.state.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
        }
    }
}
