//! Everything below kmalloc and vmalloc: frames, zones, descriptors, and the checks every call begins with.

mod give;
mod look;
mod take;

use crate::addr::{PageRange, Pfn};
use crate::backend::Backend;
use crate::error::AllocError;
use crate::fault::FaultClass;
use crate::frame::FrameMap;
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::meta::MetaPools;
use crate::platform::{Bug, Context, Platform};
use crate::smp::Smp;
use crate::wait::Waiting;
use crate::zone::Zones;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering, compiler_fence};

/// Call sites the may-wait report remembers. Later ones are not told any more: better silent than a flood.
const MAX_SITES: usize = if cfg!(feature = "small") { 4 } else { 16 };

const STATE_NEW: u8 = 0;
const STATE_READY: u8 = 1;
/// Ready, and so much is put off that the next call for an area frees it first. A state of its own, so that a call asks
/// once whether it may go on.
const STATE_OVERDUE: u8 = 2;

/// The managed memory, without any policy of use. Backends that serve vmalloc themselves build on it.
///
/// Where code is to be small, what most calls begin with stands first: near fields take shorter instructions.
#[cfg_attr(feature = "small", repr(C))]
pub struct Memory<P: Platform, B: Backend> {
    pub(crate) frames: FrameMap,
    state: AtomicU8,
    pub(crate) started: Locked<P::Lock, bool>,
    /// Frames of all zones, summed up once.
    managed: AtomicUsize,
    pub(crate) meta: MetaPools<P::Lock>,
    pub(crate) zones: Zones<P::Lock>,
    /// What several CPUs need; null for one.
    smp: AtomicPtr<Smp<P::Lock>>,
    pub(crate) waiting: Waiting<P::Lock>,
    sites: Locked<P::Lock, [Option<&'static Location<'static>>; MAX_SITES]>,
    pub(crate) platform: P,
    pub(crate) backend: B,
    #[cfg(feature = "page-poison")]
    pub(crate) page_poison: crate::debug::PagePoison,
    #[cfg(feature = "fault-injection")]
    pub(crate) faults: crate::fault::FaultInjector<P::Lock>,
    #[cfg(feature = "page-owner")]
    pub(crate) owners: crate::debug::Owners<P::Lock>,
}

impl<P: Platform, B: Backend> Memory<P, B> {
    pub(crate) const fn new(platform: P, backend: B) -> Self {
        Memory {
            platform,
            backend,
            state: AtomicU8::new(STATE_NEW),
            managed: AtomicUsize::new(0),
            smp: AtomicPtr::new(core::ptr::null_mut()),
            started: Locked::new(false),
            frames: FrameMap::new(),
            zones: Zones::new(),
            waiting: Waiting::new(),
            meta: MetaPools::new(),
            sites: Locked::new([None; MAX_SITES]),
            #[cfg(feature = "page-poison")]
            page_poison: crate::debug::PagePoison::new(),
            #[cfg(feature = "fault-injection")]
            faults: crate::fault::FaultInjector::new(),
            #[cfg(feature = "page-owner")]
            owners: crate::debug::Owners::new(),
        }
    }

    /// The platform this manager was made with.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// The backend this manager was made with.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Sums up the frames of all zones, for [`managed_pages`](Self::managed_pages).
    pub(crate) fn count_managed(&self) -> usize {
        let managed = (0..crate::zone::MAX_ZONES).map(|z| self.zones.zone(z).lock().managed).sum();
        self.managed.store(managed, Ordering::Relaxed);
        managed
    }

    /// What several CPUs need; `None` for one, and before `init`.
    #[inline(always)]
    pub(crate) fn smp(&self) -> Option<&Smp<P::Lock>> {
        if P::CPUS == 1 {
            return None;
        }
        // SAFETY: null, or placed by `init` for good.
        unsafe { self.smp.load(Ordering::Acquire).as_ref() }
    }

    pub(crate) fn set_smp(&self, smp: *mut Smp<P::Lock>) {
        self.smp.store(smp, Ordering::Release);
    }

    pub(crate) fn set_ready(&self) {
        self.state.store(STATE_READY, Ordering::Release);
    }

    /// True after `init`.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.seen() != STATE_NEW
    }

    /// True after `init`, while little is put off.
    #[inline(always)]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.seen() == STATE_READY
    }

    /// By the contract of `init` other CPUs were told of it; interrupts of its own see what it did in order.
    #[inline(always)]
    fn seen(&self) -> u8 {
        let state = self.state.load(Ordering::Relaxed);
        compiler_fence(Ordering::Acquire);
        state
    }

    /// Much is put off. The lock of what is put off is held, as for [`rest`](Self::rest).
    pub(crate) fn set_overdue(&self) {
        self.state.store(STATE_OVERDUE, Ordering::Release);
    }

    /// Nothing is put off any more.
    pub(crate) fn rest(&self) {
        self.state.store(STATE_READY, Ordering::Release);
    }

    /// A fallible step is about to run: fails when fault injection says so.
    #[inline(always)]
    pub fn fault_point(&self, class: FaultClass) -> Result<(), AllocError> {
        #[cfg(feature = "fault-injection")]
        if self.faults.strikes(class) {
            return Err(match class {
                FaultClass::AddressSpace => AllocError::NoAddressSpace,
                FaultClass::Guard => AllocError::NoGuard,
                _ => AllocError::NoMemory,
            });
        }
        let _ = class;
        Ok(())
    }

    /// True when a step was made to fail since this was last asked.
    pub(crate) fn was_injected(&self) -> bool {
        #[cfg(feature = "fault-injection")]
        return self.faults.take_struck();
        #[cfg(not(feature = "fault-injection"))]
        false
    }

    /// Refuses unknown flags, and takes `WAIT` from flags where waiting is impossible: in an interrupt or critical
    /// section, with one report per call site, and at start-up.
    ///
    /// # Errors
    /// [`AllocError::BadFlags`].
    #[inline(always)]
    pub fn admit(&self, flags: Gfp, caller: &'static Location<'static>) -> Result<Gfp, AllocError> {
        let flags = flags.validate()?.union(crate::debug::ON_ALLOC);
        if flags.contains(Gfp::WAIT) && !self.is_task(caller) {
            // Here, so that the compiler still knows the others of a caller's fixed flags.
            return Ok(flags.difference(Gfp::WAIT));
        }
        Ok(flags)
    }

    /// True when a request that may wait may do so now; reports one that comes where it never may.
    #[cfg_attr(not(feature = "small"), inline(always))]
    fn is_task(&self, caller: &'static Location<'static>) -> bool {
        let context = self.platform.context();
        if context == Context::Atomic {
            self.report_may_wait(caller);
        }
        context == Context::Task
    }

    /// [`admit`](Self::admit)'s report, behind an allocation that found `memory` at hand and learned from its lock that
    /// interrupts were masked, if the lock tells. Hands `memory` through, so that nobody has to keep it meanwhile.
    #[inline(always)]
    pub(crate) fn told(
        &self,
        memory: NonNull<u8>,
        flags: Gfp,
        masked: Option<bool>,
        caller: &'static Location<'static>,
    ) -> NonNull<u8> {
        let clear = match masked {
            Some(masked) => !masked,
            None => !flags.contains(Gfp::WAIT) || self.platform.context() != Context::Atomic,
        };
        if clear || !flags.contains(Gfp::WAIT) { memory } else { self.told_of_masked(memory, caller) }
    }

    #[cold]
    #[inline(never)]
    fn told_of_masked(&self, memory: NonNull<u8>, caller: &'static Location<'static>) -> NonNull<u8> {
        if self.platform.context() == Context::Atomic {
            self.report_may_wait(caller);
        }
        // A compiler that knows what comes back keeps it in a register of the caller's after all.
        core::hint::black_box(memory)
    }

    #[cfg_attr(not(feature = "small"), cold, inline(never))]
    fn report_may_wait(&self, caller: &'static Location<'static>) {
        // By value: one place in the source can have several copies of its location. (Byte by byte: comparing strings
        // would bring a library function in that nothing else here needs.)
        let same = |site: &&'static Location<'static>| {
            // Where code is to be small, each copy is told of.
            if cfg!(feature = "small") {
                return core::ptr::eq(*site, caller);
            }
            (site.line(), site.column()) == (caller.line(), caller.column())
                && site.file().bytes().eq(caller.file().bytes())
        };
        let mut sites = self.sites.lock();
        // The first that is the same, or that is none yet.
        let Some(place) = sites.iter_mut().find(|site| site.is_none_or(|site| same(&site))) else { return };
        if place.replace(caller).is_none() {
            drop(sites);
            self.platform.bug(&Bug::MayWaitInAtomic { caller });
        }
    }

    /// True when free pages are poisoned or hidden, so that none may come or go by a path that does not look at it.
    #[inline(always)]
    pub(crate) fn poisons(&self) -> bool {
        #[cfg(feature = "page-poison")]
        return self.is_poisoning() || self.is_hiding();
        #[cfg(not(feature = "page-poison"))]
        false
    }

    /// Zeroes frames, one by one, so that frames without a kernel address work too.
    pub(crate) fn zero(&self, range: PageRange) {
        if cfg!(feature = "small") && self.backend.lowmem_end() == u64::MAX {
            // SAFETY: the range is a block this manager handed out, which has an address.
            return unsafe { wipe(self.frame_ptr(range.start), (range.count as usize) << B::PAGE_SHIFT) };
        }
        for pfn in range.start.0..range.end() {
            // SAFETY: the range is a block this manager handed out; each pointer is good for one page.
            unsafe { self.backend.with_frame(Pfn(pfn), |p| wipe(p, B::PAGE_SIZE)) };
        }
    }

    /// The kernel pointer to a frame that has one.
    #[inline(always)]
    pub fn frame_ptr(&self, pfn: Pfn) -> *mut u8 {
        self.direct_ptr((pfn.0 as usize) << B::PAGE_SHIFT)
    }

    /// [`Backend::direct_ptr`], in the way that costs least.
    #[inline(always)]
    pub(crate) fn direct_ptr(&self, phys: usize) -> *mut u8 {
        if B::DIRECT_IS_LINEAR { self.frames.direct().wrapping_add(phys) } else { self.backend.direct_ptr(phys) }
    }

    /// Frames handed to the buddies of all zones since `init`, in use or not.
    #[inline]
    pub fn managed_pages(&self) -> usize {
        self.managed.load(Ordering::Relaxed)
    }

    /// Free frames in all zones.
    pub fn free_pages(&self) -> usize {
        (0..crate::zone::MAX_ZONES).map(|z| self.zones.zone(z).lock().free).sum()
    }
}

/// Zeroes `bytes` bytes. In one place, so that one of the library's functions for it is enough.
///
/// # Safety
/// They are the caller's to write, and `at` and `bytes` are multiples of 8.
#[inline(never)]
pub(crate) unsafe fn wipe(at: *mut u8, bytes: usize) {
    if cfg!(feature = "small") {
        // Not known to be 0, so that the library's function for it is not called, which is larger than this.
        let zero = core::hint::black_box(0u32);
        let mut left = bytes / 4;
        while left != 0 {
            left -= 1;
            // SAFETY: by the caller's word.
            unsafe { at.cast::<u32>().add(left).write(zero) };
        }
        return;
    }
    // SAFETY: by the caller's word.
    unsafe { at.cast::<u64>().write_bytes(0, bytes / 8) };
}
