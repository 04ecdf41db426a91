//! A CPU's view of memory: walking tables as the SDM describes it, and a TLB that keeps all it ever saw.
//!
//! It shares no code with the walker under test, not even the names of bits.

use crate::ram::Ram;
use backend_mmu_x86::Levels;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a program does with an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// Why an access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A page fault.
    Page {
        /// The address, as in CR2.
        addr: usize,
        /// A translation was there, but did not allow it.
        present: bool,
        /// It was a store.
        write: bool,
        /// It was an instruction fetch.
        fetch: bool,
        /// A reserved bit was set in an entry.
        reserved: bool,
    },
    /// The address is not canonical.
    NotCanonical {
        /// The address.
        addr: usize,
    },
    /// The translation, or a table, lies where there is no RAM.
    NoMemory {
        /// The physical address.
        phys: u64,
    },
}

impl Fault {
    /// The error code the CPU would push for a page fault.
    pub fn code(&self) -> Option<u32> {
        let Fault::Page { present, write, fetch, reserved, .. } = *self else { return None };
        Some(u32::from(present) | u32::from(write) << 1 | u32::from(reserved) << 3 | u32::from(fetch) << 4)
    }
}

/// A memory type, as the PAT register numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryType {
    /// UC.
    Uncached,
    /// WC.
    WriteCombining,
    /// WT.
    WriteThrough,
    /// WP.
    WriteProtected,
    /// WB.
    WriteBack,
    /// UC-.
    UncachedMinus,
}

/// A translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The physical address asked for.
    pub phys: u64,
    /// How much the entry covers.
    pub bytes: u64,
    /// No entry on the way forbids stores.
    pub writable: bool,
    /// No entry on the way forbids fetches.
    pub executable: bool,
    /// It survives a change of the root.
    pub global: bool,
    /// How it is cached.
    pub memory: MemoryType,
}

#[derive(Clone, Copy)]
struct Leaf {
    base: u64,
    shift: u32,
    seen: Seen,
}

/// An upper entry as a paging-structure cache keeps it: the table below, and what was forbidden so far.
#[derive(Clone, Copy)]
struct Link {
    table: u64,
    writable: bool,
    executable: bool,
}

pub(crate) struct Cpu {
    levels: Levels,
    phys_bits: u32,
    pub(crate) root: u64,
    /// PAE loads the four entries of the root with the register.
    slots: [u64; 4],
    no_execute: bool,
    write_protect: bool,
    global_pages: bool,
    pat: u64,
    /// By steps above the lowest table, and address divided by what an entry covers.
    leaves: HashMap<(u32, u64), Leaf>,
    links: HashMap<(u32, u64), Link>,
    /// Times it had to write an accessed or dirty bit.
    pub(crate) assists: u64,
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

fn shift(level: u32) -> u32 {
    12 + 9 * level
}

impl Cpu {
    pub(crate) fn new(levels: Levels, phys_bits: u32) -> Cpu {
        Cpu {
            levels,
            phys_bits,
            root: 0,
            slots: [0; 4],
            no_execute: false,
            write_protect: false,
            global_pages: false,
            // As at power-on.
            pat: 0x0007_0406_0007_0406,
            leaves: HashMap::new(),
            links: HashMap::new(),
            assists: 0,
        }
    }

    pub(crate) fn prepare(&mut self, pat: u64) {
        (self.no_execute, self.write_protect, self.global_pages, self.pat) = (true, true, true, pat);
    }

    pub(crate) fn set_root(&mut self, ram: &Ram, root: u64) {
        self.root = root;
        let keep = self.global_pages;
        self.leaves.retain(|_, leaf| keep && leaf.seen.global);
        self.links.clear();
        if self.levels.bare_root {
            for (i, slot) in self.slots.iter_mut().enumerate() {
                *slot = entry(ram, root + 8 * i as u64).expect("the root is in RAM").load(Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn flush_page(&mut self, virt: usize) {
        for level in 0..3 {
            self.leaves.remove(&(level, virt as u64 >> shift(level)));
        }
        self.links.clear();
    }

    pub(crate) fn flush_all(&mut self) {
        self.leaves.clear();
        self.links.clear();
    }

    /// Where `access` to `virt` goes, by the TLB if it knows, else by the tables.
    pub(crate) fn access(&mut self, ram: &Ram, virt: usize, access: Access) -> Result<Seen, Fault> {
        self.canonical(virt)?;
        let cached = (0..3).find_map(|level| self.leaves.get(&(level, virt as u64 >> shift(level))).copied());
        let leaf = match cached {
            Some(leaf) => leaf,
            None => self.walk(ram, virt, access, true)?,
        };
        let seen = leaf.seen;
        let allowed = match access {
            Access::Read => true,
            Access::Write => seen.writable || !self.write_protect,
            Access::Fetch => seen.executable,
        };
        if !allowed {
            // A page fault drops what is cached for its address (SDM 3A, 4.10.4.1).
            self.flush_page(virt);
            return Err(page_fault(virt, access, true, false));
        }
        self.leaves.insert((leaf.shift / 9 - 1, virt as u64 >> leaf.shift), leaf);
        Ok(Seen { phys: leaf.base + (virt as u64 & (seen.bytes - 1)), ..seen })
    }

    /// What a CPU with empty caches would find. Nothing is written.
    pub(crate) fn look(&mut self, ram: &Ram, virt: usize) -> Result<Seen, Fault> {
        self.canonical(virt)?;
        let leaf = self.walk(ram, virt, Access::Read, false)?;
        Ok(Seen { phys: leaf.base + (virt as u64 & (leaf.seen.bytes - 1)), ..leaf.seen })
    }

    fn canonical(&self, virt: usize) -> Result<(), Fault> {
        let top = shift(self.levels.count) - 1;
        let sign = virt as u64 >> top;
        let ok = if self.levels.bare_root { (virt as u64) >> 32 == 0 } else { sign == 0 || sign == u64::MAX >> top };
        if ok { Ok(()) } else { Err(Fault::NotCanonical { addr: virt }) }
    }

    fn walk(&mut self, ram: &Ram, virt: usize, access: Access, cached: bool) -> Result<Leaf, Fault> {
        let top = self.levels.count - 1;
        let mut level = top;
        let mut above = Link { table: self.root, writable: true, executable: true };
        if cached {
            for known in 1..=top {
                if let Some(link) = self.links.get(&(known, virt as u64 >> shift(known))) {
                    (level, above) = (known - 1, *link);
                    break;
                }
            }
        }
        loop {
            let index = (virt as u64 >> shift(level)) & 511;
            let bare = self.levels.bare_root && level == top;
            let place = entry(ram, above.table + 8 * index);
            let value = match (bare, place) {
                (true, _) => self.slots[index as usize],
                (false, Ok(place)) => place.load(Ordering::Acquire),
                (false, Err(fault)) => return Err(fault),
            };
            if value & 1 == 0 {
                return Err(page_fault(virt, access, false, false));
            }
            let leaf = !bare && (level == 0 || value >> 7 & 1 != 0);
            if self.reserved(value, level, bare, leaf) {
                return Err(page_fault(virt, access, true, true));
            }
            let writable = above.writable && (bare || value >> 1 & 1 != 0);
            let executable = above.executable && (bare || value >> 63 == 0);
            if let (true, false, Ok(place)) = (cached, bare, place) {
                let dirty = leaf && access == Access::Write && writable;
                let wanted = 1 << 5 | u64::from(dirty) << 6;
                if value & wanted != wanted {
                    place.fetch_or(wanted, Ordering::Relaxed);
                    self.assists += 1;
                }
            }
            if leaf {
                let bytes = 1u64 << shift(level);
                let pat = value >> if level == 0 { 7 } else { 12 } & 1;
                let slot = pat << 2 | (value >> 3 & 3);
                let seen = Seen {
                    phys: 0,
                    bytes,
                    writable,
                    executable,
                    global: value >> 8 & 1 != 0,
                    memory: memory_type(self.pat >> (8 * slot) & 7),
                };
                return Ok(Leaf { base: value & ADDRESS & !(bytes - 1), shift: shift(level), seen });
            }
            above = Link { table: value & ADDRESS, writable, executable };
            if cached {
                self.links.insert((level, virt as u64 >> shift(level)), above);
            }
            level -= 1;
        }
    }

    /// SDM 3A, tables 4-8 to 4-12 and 4-15 to 4-20.
    fn reserved(&self, value: u64, level: u32, bare: bool, leaf: bool) -> bool {
        let too_wide = value & ADDRESS & !((1 << self.phys_bits) - 1) != 0;
        if bare {
            return too_wide || value & 0xfff0_0000_0000_01e6 != 0;
        }
        let no_such_size = leaf && level > 2 || leaf && self.levels.bare_root && level > 1;
        let offset = if leaf && level > 0 { value & ((1 << shift(level)) - 1) & !0x1fff != 0 } else { false };
        let pae_high = self.levels.bare_root && value & 0x7ff0_0000_0000_0000 != 0;
        too_wide || no_such_size || offset || pae_high || (value >> 63 != 0 && !self.no_execute)
    }
}

fn page_fault(addr: usize, access: Access, present: bool, reserved: bool) -> Fault {
    let (write, fetch) = (access == Access::Write, access == Access::Fetch);
    Fault::Page { addr, present, write, fetch, reserved }
}

fn memory_type(number: u64) -> MemoryType {
    match number {
        0 => MemoryType::Uncached,
        1 => MemoryType::WriteCombining,
        4 => MemoryType::WriteThrough,
        5 => MemoryType::WriteProtected,
        6 => MemoryType::WriteBack,
        7 => MemoryType::UncachedMinus,
        _ => panic!("no memory type has the number {number}"),
    }
}

fn entry(ram: &Ram, phys: u64) -> Result<&AtomicU64, Fault> {
    let ptr = ram.ptr(phys).ok_or(Fault::NoMemory { phys })?;
    // SAFETY: 8 aligned bytes of RAM that lives as long as `ram`. Software and other CPUs store to tables atomically.
    Ok(unsafe { AtomicU64::from_ptr(ptr.cast()) })
}
