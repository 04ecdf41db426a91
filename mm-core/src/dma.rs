//! Memory for devices: small objects from slabs of their own below a device's limit, and whole pages.

use crate::addr::{PhysAddr, PhysRange};
use crate::backend::Backend;
use crate::boot::RamMap;
use crate::error::{AllocError, MmError};
use crate::frame::{Frame, FrameKind};
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::lock::Locked;
use crate::manager::{Mm, boot_alloc};
use crate::memory::{Memory, wipe};
use crate::pages::Pages;
use crate::platform::Platform;
use crate::slab::{CacheState, ClassHooks, ClassTable, MAX_CLASSES, Slabs};
use crate::zone::{ZoneKind, ZoneSpec};
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Release};

/// The kinds of zone with classes of their own. Where code is to be small there are none, and objects for devices are
/// whole pages.
#[cfg(not(feature = "small"))]
const KINDS: [ZoneKind; 2] = [ZoneKind::Dma, ZoneKind::Dma32];
#[cfg(feature = "small")]
const KINDS: [ZoneKind; 0] = [];
/// A frame's record names the class by the low bits, and the kind of zone by this one.
const DMA32: usize = MAX_CLASSES;
const _: () = assert!(KINDS.len() * MAX_CLASSES <= 256);

/// kmalloc's classes for devices: made by `init` for the zones a board lists, and not at all for others.
pub(crate) struct DmaClasses<P: Platform> {
    kinds: [AtomicPtr<Locked<P::Lock, CacheState>>; KINDS.len()],
}

impl<P: Platform> DmaClasses<P> {
    pub(crate) const fn new() -> Self {
        DmaClasses { kinds: [const { AtomicPtr::new(core::ptr::null_mut()) }; KINDS.len()] }
    }

    /// Makes the classes of the zones that are listed.
    pub(crate) fn init<B: Backend, const N: usize>(
        &self,
        memory: &Memory<P, B>,
        ram: &mut RamMap<N>,
        zones: &[ZoneSpec],
    ) -> Result<(), MmError> {
        for (place, kind) in self.kinds.iter().zip(KINDS) {
            if !zones.iter().any(|zone| zone.kind == kind) {
                continue;
            }
            const { assert!(align_of::<Locked<P::Lock, CacheState>>() <= 64, "a lock that is aligned to so much") };
            let bytes = ClassTable::<B>::TABLE.count * size_of::<Locked<P::Lock, CacheState>>();
            let classes = boot_alloc(memory, ram, bytes)?.cast::<Locked<P::Lock, CacheState>>();
            for class in 0..ClassTable::<B>::TABLE.count {
                // SAFETY: the memory is as long as that, aligned to 64 bytes, and ours.
                unsafe { classes.add(class).write(Locked::new(CacheState::new())) };
            }
            place.store(classes, Release);
        }
        Ok(())
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// The class with this number: of DMA memory, or with [`DMA32`] added of DMA32 memory.
    pub(crate) fn dma_class(&self, number: usize) -> Option<Slabs<'_, P, B>> {
        let classes = NonNull::new(self.dma.kinds.get(number / DMA32)?.load(Acquire))?;
        let class = number % DMA32;
        if class >= ClassTable::<B>::TABLE.count {
            return None;
        }
        // SAFETY: `init` wrote that many, which stay as long as the manager.
        let state = unsafe { classes.add(class).as_ref() };
        let geometry = &ClassTable::<B>::TABLE.geometry[class];
        Some(Slabs::new(self, geometry, state, (FrameKind::DmaSlab, number as u8), ClassHooks::<B>::of(class)))
    }

    /// Gives back the wholly free slabs that the classes of this number keep.
    pub(crate) fn drain_dma(&self, class: usize) {
        for kind in 0..KINDS.len() {
            self.dma_class(kind * DMA32 + class).inspect(|slabs| slabs.drain());
        }
    }

    /// All classes for devices.
    pub(crate) fn dma_classes(&self) -> impl Iterator<Item = (ZoneKind, Slabs<'_, P, B>)> {
        (0..KINDS.len() * DMA32).filter_map(|number| Some((KINDS[number / DMA32], self.dma_class(number)?)))
    }

    /// An object for a device: of whole cache lines, so that nothing else lies in one of them.
    #[inline(never)]
    pub(crate) fn kmalloc_dma(
        &self,
        size: usize,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let size = size.checked_next_multiple_of(B::CACHE_LINE).ok_or(AllocError::TooBig)?;
        let table = ClassTable::<B>::TABLE;
        // Slabs of the highest zone of those the request may have from.
        let most = usize::from(ZoneKind::of(flags) == ZoneKind::Dma32);
        let class = table.of.get(size / 8).filter(|_| size <= table.largest);
        let slabs =
            class.and_then(|&class| (0..=most).rev().find_map(|kind| self.dma_class(kind * DMA32 + class as usize)));
        let Some(slabs) = slabs else {
            let pfn = self.memory.take_block(size.div_ceil(B::PAGE_SIZE), flags, FrameKind::Large, crate::meta::NIL)?;
            return Ok(self.block_ptr(pfn));
        };
        let object = match slabs.free_object() {
            Some(object) => object,
            None => slabs.alloc_slab(flags.difference(Gfp::ZERO), None)?,
        };
        let object = slabs.checked(object, flags.difference(Gfp::ZERO), caller)?;
        if flags.contains(Gfp::ZERO) {
            // SAFETY: the object is ours and as long as its class, whole cache lines.
            unsafe { wipe(object.as_ptr(), slabs.object_size()) };
        }
        Ok(object)
    }

    /// [`Mm::is_live`] for the classes for devices.
    pub(crate) fn is_live_dma(&self, frame: &Frame, addr: usize) -> bool {
        let seen = frame.head();
        self.dma_class(seen.class()).is_some_and(|slabs| slabs.is_live(frame, seen, addr))
    }
}

/// Pages for a device: contiguous, zeroed, at a known physical address, and in no cache line with anything else. They
/// free themselves.
///
/// With `GFP_DMA` or `GFP_DMA32` among the flags they lie below that limit, without either anywhere.
///
/// ```
/// use mm_core::{AllocError, DmaPages, GFP_DMA, GFP_KERNEL, Manager};
///
/// fn ring<M: Manager>(mm: M) -> Result<DmaPages<M>, AllocError> {
///     let ring = DmaPages::new_in(16 * 256, GFP_KERNEL | GFP_DMA, mm)?;
///     let (_tell_the_device, _write_here) = (ring.phys(), ring.as_ptr());
///     Ok(ring)
/// }
/// ```
pub struct DmaPages<M: Manager> {
    pages: Pages<M>,
    size: usize,
}

impl<M: Manager> DmaPages<M> {
    /// Allocates the pages that hold `size` bytes.
    ///
    /// # Errors
    /// As [`Mm::alloc_pages_exact`](crate::Mm::alloc_pages_exact).
    #[track_caller]
    pub fn new_in(size: usize, flags: Gfp, manager: M) -> Result<Self, AllocError> {
        const { assert!(M::Backend::PAGE_SIZE.is_multiple_of(M::Backend::CACHE_LINE), "a page is whole cache lines") };
        Ok(DmaPages { pages: Pages::exact_in(size, flags | Gfp::ZERO, manager)?, size })
    }

    /// The first byte, for the program.
    pub fn as_ptr(&self) -> *mut u8 {
        self.pages.as_ptr()
    }

    /// The first byte, for the device.
    pub fn phys(&self) -> PhysAddr {
        self.pages.frame().phys(M::Backend::PAGE_SHIFT)
    }

    /// Bytes asked for.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.size
    }

    /// What a cache has to be cleaned or invalidated for: whole lines that hold all of it and nothing else.
    pub fn lines(&self) -> PhysRange {
        let start = self.phys().0;
        PhysRange { start, end: start + self.size.next_multiple_of(M::Backend::CACHE_LINE) as u64 }
    }
}
