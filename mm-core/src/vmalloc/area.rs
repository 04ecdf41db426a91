//! The record of an area, and how areas are named.

use super::interval::Node;
use crate::backend::Backend;
use crate::error::AllocError;
use crate::gfp::GFP_KERNEL;
use crate::memory::Memory;
use crate::meta::MetaSize;
use crate::platform::Platform;
use crate::prot::CacheMode;
use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering::Relaxed};

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
}

const _: () = assert!(size_of::<Area>() <= MetaSize::Large.bytes());

impl<P: Platform, B: Backend> Memory<P, B> {
    /// Takes a record and fills it; it is hidden until published.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn area_take(&self, area: Area) -> Result<u32, AllocError> {
        let id = self.meta_take(MetaSize::Large, GFP_KERNEL)?;
        // SAFETY: the descriptor is ours and large enough.
        unsafe { self.meta_ptr::<Area>(id).write(area) };
        Ok(id)
    }

    /// Gives a record back.
    pub fn area_give(&self, id: u32) {
        self.meta_give(id, MetaSize::Large);
    }

    /// The pointer to a record that was taken and not given back.
    #[inline(always)]
    pub fn area(&self, id: u32) -> *mut Area {
        self.meta_ptr(id)
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

    /// True while it is among the ioremaps.
    pub(super) fn is_listed(&self) -> bool {
        self.node.is_listed()
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

const FREED: usize = 8;

/// The areas freed last, so that a use after free can be named. Read without a lock by fault handlers: an entry may
/// be torn, which costs a wrong name in a report and nothing else.
pub(crate) struct FreedAreas {
    entries: [FreedArea; FREED],
    next: AtomicUsize,
}

struct FreedArea {
    addr: AtomicUsize,
    size: AtomicUsize,
    /// Null while unused.
    caller: AtomicPtr<Location<'static>>,
    kind: AtomicU8,
}

impl FreedAreas {
    pub(crate) const fn new() -> Self {
        FreedAreas {
            entries: [const {
                FreedArea {
                    addr: AtomicUsize::new(0),
                    size: AtomicUsize::new(0),
                    caller: AtomicPtr::new(core::ptr::null_mut()),
                    kind: AtomicU8::new(0),
                }
            }; FREED],
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn note(&self, area: &AreaInfo) {
        let next = self.next.load(Relaxed);
        self.next.store(next.wrapping_add(1), Relaxed);
        let entry = &self.entries[next % FREED];
        entry.addr.store(area.addr, Relaxed);
        entry.size.store(area.size, Relaxed);
        entry.kind.store(area.kind as u8, Relaxed);
        entry.caller.store(core::ptr::from_ref(area.caller).cast_mut(), Relaxed);
    }

    /// The area freed last that held `addr`.
    pub(crate) fn find(&self, addr: usize, page_size: usize) -> Option<AreaInfo> {
        let next = self.next.load(Relaxed);
        (1..=FREED).find_map(|back| {
            let entry = &self.entries[next.wrapping_sub(back) % FREED];
            let (start, size) = (entry.addr.load(Relaxed), entry.size.load(Relaxed));
            let caller = entry.caller.load(Relaxed);
            let len = size.next_multiple_of(page_size);
            if caller.is_null() || addr.wrapping_sub(start) >= len {
                return None;
            }
            // SAFETY: not null, so it was stored from a `&'static Location`.
            let caller = unsafe { &*caller };
            let kind = match entry.kind.load(Relaxed) {
                1 => AreaKind::Ioremap,
                4 => AreaKind::Map,
                _ => AreaKind::Alloc,
            };
            let pages = (len / page_size) as u32;
            Some(AreaInfo { addr: start, size, pages, kind, cache: CacheMode::WriteBack, phys: 0, caller })
        })
    }
}
