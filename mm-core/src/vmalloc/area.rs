//! The record of an area, and how areas are named.

use super::interval::Node;
use super::{AreaGuards, AreaLife};
use crate::backend::Backend;
use crate::error::AllocError;
use crate::gfp::GFP_KERNEL;
use crate::memory::Memory;
use crate::meta::{MetaSize, NIL};
use crate::platform::Platform;
use crate::prot::CacheMode;
use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// What an area is, with Linux's flag values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum AreaKind {
    /// Device registers (`VM_IOREMAP`).
    Ioremap = 1,
    /// Frames of its own (`VM_ALLOC`).
    Alloc = 2,
    /// The caller's frames (`VM_MAP`).
    Map = 4,
}

/// Whether a record is that of a live area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum AreaState {
    /// Being built, or being torn down: not to be found.
    Hidden,
    /// To be found and freed.
    Live,
}

/// The record of an area, in a descriptor.
#[repr(C)]
pub struct Area {
    /// First byte of the caller's address.
    pub addr: usize,
    /// Bytes asked for.
    pub size: usize,
    /// Pages, guards not counted.
    pub pages: u32,
    /// What it is.
    pub kind: AreaKind,
    pub(crate) state: AreaState,
    /// How it is cached.
    pub cache: CacheMode,
    /// The device's address, for an ioremap.
    pub phys: u64,
    /// Who made it.
    pub caller: &'static Location<'static>,
    /// Its place among the ioremaps, for one.
    pub(super) node: Node,
    /// The next one in a list of hidden areas, or `NIL`.
    pub next: u32,
    /// What may be done with it beside freeing it.
    pub uses: AreaUses,
}

bitflags::bitflags! {
    /// What an area was made for.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct AreaUses: u8 {
        /// Its pages may be mapped for users: it was zeroed (`VM_USERMAP`).
        const USER = 1;
        /// It belongs to `vm_map_ram`.
        const RAM = 2;
        /// A page of it was executable, so aliases of its frames were made read-only.
        const EXECUTED = 4;
        /// It asked for a guard on each side.
        const GUARDED = 8;
        /// It is never freed, so its guards may be such as stay until reset.
        const KEPT = 16;
        /// It is to stay for long.
        const LONG = 32;
    }
}

const _: () = assert!(size_of::<Area>() <= MetaSize::Large.bytes());

impl<P: Platform, B: Backend> Memory<P, B> {
    /// Takes a record, which is not filled.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn area_take(&self) -> Result<u32, AllocError> {
        self.meta_take(MetaSize::Large, GFP_KERNEL, None)
    }

    /// Gives a record back.
    pub fn area_give(&self, id: u32) {
        self.meta_give(id, MetaSize::Large);
    }

    /// True when `id`, which may be anything, can be that of a record.
    pub fn is_area(&self, id: u32) -> bool {
        self.is_meta(id, MetaSize::Large)
    }

    /// The pointer to a record that was taken and not given back.
    #[inline(always)]
    pub fn area(&self, id: u32) -> *mut Area {
        self.meta_ptr(id)
    }
}

impl AreaUses {
    /// True for an area that is to stay.
    pub const fn stays(self) -> bool {
        self.intersects(AreaUses::KEPT.union(AreaUses::LONG))
    }

    /// How long its options said it lives.
    pub(super) const fn life(self) -> AreaLife {
        if self.contains(AreaUses::LONG) { AreaLife::Long } else { AreaLife::Any }
    }

    /// The guards its options asked for.
    pub(super) const fn guards(self) -> AreaGuards {
        match (self.contains(AreaUses::GUARDED), self.contains(AreaUses::KEPT)) {
            (false, _) => AreaGuards::Usual,
            (true, false) => AreaGuards::Asked,
            (true, true) => AreaGuards::Kept,
        }
    }
}

impl Area {
    /// A hidden record.
    pub fn new(addr: usize, size: usize, pages: u32, kind: AreaKind, caller: &'static Location<'static>) -> Area {
        Area {
            addr,
            size,
            pages,
            kind,
            state: AreaState::Hidden,
            cache: CacheMode::WriteBack,
            phys: 0,
            caller,
            node: Node::NEW,
            next: NIL,
            uses: AreaUses::empty(),
        }
    }

    /// Fills a record, hidden, but for its node, which only an ioremap has, and its place in a list.
    ///
    /// # Safety
    /// `record` is one's own.
    #[inline(always)]
    pub unsafe fn fill(record: *mut Area, area: Area) {
        let Area { addr, size, pages, kind, state, cache, phys, caller, node: _, next: _, uses } = area;
        // SAFETY: by the caller; no reference to the record is made, which may not be initialised yet.
        unsafe {
            (&raw mut (*record).addr).write(addr);
            (&raw mut (*record).size).write(size);
            (&raw mut (*record).pages).write(pages);
            (&raw mut (*record).kind).write(kind);
            (&raw mut (*record).state).write(state);
            (&raw mut (*record).cache).write(cache);
            (&raw mut (*record).phys).write(phys);
            (&raw mut (*record).caller).write(caller);
            (&raw mut (*record).uses).write(uses);
            if kind == AreaKind::Ioremap {
                Node::unlist(&raw mut (*record).node);
            }
        }
    }

    /// Lets the area be found.
    pub fn publish(&mut self) {
        self.state = AreaState::Live;
    }

    /// Hides the area, before it is torn down.
    pub fn withdraw(&mut self) {
        self.state = AreaState::Hidden;
    }

    /// True when the area may be found.
    pub fn is_live(&self) -> bool {
        self.state == AreaState::Live
    }

    /// True when it is of `kind`, and goes back as others of that do.
    #[inline(always)]
    pub(super) fn is_freed_as(&self, kind: AreaKind) -> bool {
        self.kind == kind && !self.uses.contains(AreaUses::RAM)
    }

    /// True while it is among the ioremaps.
    pub(super) fn is_listed(&self) -> bool {
        self.kind == AreaKind::Ioremap && self.node.is_listed()
    }

    /// What callers see of it.
    pub fn info(&self) -> AreaInfo {
        AreaInfo {
            addr: self.addr,
            size: self.size,
            pages: self.pages,
            kind: self.kind,
            cache: self.cache,
            phys: self.phys,
            caller: self.caller,
        }
    }
}

/// A snapshot of an area, printed as a line of `/proc/vmallocinfo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AreaInfo {
    /// First byte.
    pub addr: usize,
    /// Bytes asked for.
    pub size: usize,
    /// Pages, guards not counted.
    pub pages: u32,
    /// What it is.
    pub kind: AreaKind,
    /// How it is cached.
    pub cache: CacheMode,
    /// The device's address, for an ioremap.
    pub phys: u64,
    /// Who made it.
    #[cfg_attr(feature = "defmt", defmt(Display2Format))]
    pub caller: &'static Location<'static>,
}

impl fmt::Display for AreaInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.addr.wrapping_add(self.size);
        write!(f, "{:#x}-{end:#x} {:>8} {} pages={}", self.addr, self.size, self.caller, self.pages)?;
        match self.kind {
            AreaKind::Ioremap => write!(f, " phys={:#x} ioremap", self.phys),
            AreaKind::Alloc => f.write_str(" vmalloc"),
            AreaKind::Map => f.write_str(" vmap"),
        }
    }
}

/// Where an address lies with respect to an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Place {
    /// In the guard before it.
    GuardBefore,
    /// Inside.
    Inside,
    /// In the unmapped pages behind it.
    GuardAfter,
    /// Inside an area that was freed lately.
    Freed,
}

/// An address and the area it has to do with.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AreaHit {
    /// The address.
    pub addr: usize,
    /// Where it lies.
    pub place: Place,
    /// The area.
    pub area: AreaInfo,
    /// When the address is in a guard, the area that ends just before it.
    pub behind: Option<AreaInfo>,
}

impl fmt::Display for AreaHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place {
            Place::GuardBefore => "guard before area",
            Place::Inside => "area",
            Place::GuardAfter => "guard after area",
            Place::Freed => "freed area",
        };
        write!(f, "{place} {}", self.area)?;
        match &self.behind {
            Some(behind) => write!(f, ", guard after area {behind}"),
            None => Ok(()),
        }
    }
}

/// How many records of freed areas are kept.
const KEPT: usize = 8;

/// The records of the areas freed last, for the next ones to use; until then they tell what was there, so that a use
/// after free can be named.
///
/// Changed under a lock of the owner's. Read without it by fault handlers: a list that is just being changed costs a
/// wrong name in a report and nothing else.
pub(crate) struct KeptRecords {
    ids: [AtomicU32; KEPT],
    /// How many were ever kept less those taken: the last one is at `top - 1` modulo the length.
    top: AtomicUsize,
    len: AtomicUsize,
}

impl KeptRecords {
    pub(crate) const fn new() -> Self {
        KeptRecords { ids: [const { AtomicU32::new(NIL) }; KEPT], top: AtomicUsize::new(0), len: AtomicUsize::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed).min(KEPT)
    }

    /// Keeps a record, and returns the oldest when there were enough. The owner's lock is held.
    #[inline(always)]
    pub(crate) fn push(&self, id: u32) -> Option<u32> {
        let (top, len) = (self.top.load(Relaxed), self.len.load(Relaxed));
        let slot = &self.ids[top % KEPT];
        let oldest = slot.load(Relaxed);
        slot.store(id, Relaxed);
        self.top.store(top.wrapping_add(1), Relaxed);
        if len == KEPT {
            return Some(oldest);
        }
        self.len.store(len + 1, Relaxed);
        None
    }

    /// The record kept last. The owner's lock is held.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<u32> {
        let len = self.len.load(Relaxed).checked_sub(1)?;
        let top = self.top.load(Relaxed).wrapping_sub(1);
        self.top.store(top, Relaxed);
        self.len.store(len, Relaxed);
        Some(self.ids[top % KEPT].load(Relaxed))
    }

    /// The area freed last that held `addr`.
    pub(crate) fn find<P: Platform, B: Backend>(&self, memory: &Memory<P, B>, addr: usize) -> Option<AreaInfo> {
        let top = self.top.load(Relaxed);
        (1..=self.len()).find_map(|back| {
            let id = self.ids[top.wrapping_sub(back) % KEPT].load(Relaxed);
            // SAFETY: a record that is kept is a live descriptor, which was filled when its area was made.
            let area = unsafe { &*memory.area(id) };
            let first = area.addr & !(B::PAGE_SIZE - 1);
            let holds = addr.wrapping_sub(first) < area.pages as usize * B::PAGE_SIZE;
            holds.then(|| area.info())
        })
    }
}
