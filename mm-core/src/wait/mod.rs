//! Waiting for memory: in a task that sleeps, or in a future.
//!
//! A free that finds somebody waiting hands its block over before it opens the zone's lock, oldest waiter first among
//! those it fits, and wakes behind the lock. A waiter that goes without what it was handed gives it back, which hands
//! it on. Who wants much may be passed over [`PASSES`](queue::PASSES) times, by younger ones, or because what became
//! free for it was taken by who does not wait at all; then its frames are put by.
//!
//! Frees reach what serves waiters through a pointer that the first waiter leaves here: a program in which nobody can
//! wait, because its platform cannot and it uses no futures, has none of it.

mod deadline;
mod future;
pub mod queue;
mod watch;

pub use future::{AllocPages, GetFreePages, Kmalloc};

use crate::addr::{PageRange, Pfn};
use crate::backend::Backend;
use crate::bits::order_for;
use crate::error::AllocError;
use crate::frame::{FrameKind, Head};
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::{Platform, RawLock};
use crate::slab::Store;
use crate::zone::{MAX_ZONES, ZoneGuard, ZoneKind};
use core::pin::{Pin, pin};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use queue::{Grant, Offer, Queue, Search, Step, Waiter, Wake, Want};

/// How often a wait looks for what nobody tells of.
const LOOKS: u32 = 8;

/// Who waits, and for how long by default.
pub struct Waiting<L: RawLock> {
    queue: Locked<L, Queue>,
    /// The [`Servants`] while somebody waits, else null. Written under the queue's lock, before the waiter looks at the
    /// zones under theirs; read under a zone's or a cache's lock: so either the waiter sees what a free left, or the
    /// free sees the waiter.
    servants: AtomicPtr<()>,
    /// Zones with frames put by. Written under the queue's lock.
    put_by: AtomicUsize,
    max_wait: Locked<L, Duration>,
}

impl<L: RawLock> Waiting<L> {
    pub const fn new() -> Self {
        Waiting {
            queue: Locked::new(Queue::new()),
            servants: AtomicPtr::new(ptr::null_mut()),
            put_by: AtomicUsize::new(0),
            max_wait: Locked::new(Duration::ZERO),
        }
    }

    /// True when somebody may be waiting.
    #[inline(always)]
    pub fn is_any(&self) -> bool {
        !self.servants.load(Relaxed).is_null()
    }

    /// Frames on their way to waiters.
    pub fn granted(&self) -> usize {
        self.queue.lock().granted()
    }

    pub fn set_max_wait(&self, max_wait: Duration) {
        *self.max_wait.lock() = max_wait;
    }

    /// Changes the queue, and dismisses the servants behind its last waiter.
    fn change<R>(&self, change: impl FnOnce(&mut Queue) -> R) -> R {
        let mut queue = self.queue.lock();
        let result = change(&mut queue);
        if queue.len() == 0 {
            self.servants.store(ptr::null_mut(), Relaxed);
        }
        result
    }
}

/// See [`Memory::serve`].
type ServeZone<P, B> = for<'z> fn(&'z Memory<P, B>, usize, ZoneGuard<'z, <P as Platform>::Lock>);
/// See [`Store::serve_in`].
type ServeCache<P, B> = for<'z> unsafe fn(Store<'z, P, B>, <<P as Platform>::Lock as RawLock>::Token);

/// Why a zone's queue is served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Something was freed there.
    Free,
    /// Somebody came, or was served before.
    Look,
}

/// What one turn of serving came to; with whether somebody was passed over too often.
enum Served {
    One(Wake, bool),
    More,
    Nobody(bool),
}

/// What serves the queue.
pub(crate) struct Servants<P: Platform, B: Backend> {
    zone: ServeZone<P, B>,
    pub cache: ServeCache<P, B>,
    /// Wakes somebody who does what was put off.
    pub rouse: fn(&Memory<P, B>),
}

/// A block that is wanted, and what becomes of it.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub pages: usize,
    pub flags: Gfp,
    pub kind: FrameKind,
    pub link: u32,
}

impl Block {
    /// What to queue for it.
    pub fn want(&self, cache: usize) -> Want {
        Want { pages: self.pages, kind: ZoneKind::of(self.flags), depth: self.flags.depth(), cache }
    }
}

/// How a request waits for each of several things it needs.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// Until when.
    pub(crate) until: Duration,
    /// What it does whenever it is awake: what was put off. Tells whether there was anything.
    pub(crate) tend: &'a dyn Fn() -> bool,
}

impl<P: Platform, B: Backend> Memory<P, B> {
    /// When a request that begins to wait now gives up, unless it was told.
    pub(crate) fn default_deadline(&self) -> Duration {
        let most = *self.waiting.max_wait.lock();
        self.platform.now().saturating_add(most)
    }

    const SERVANTS: &'static Servants<P, B> = &Servants {
        zone: Self::serve_freed,
        // SAFETY: as of the function that it stands for.
        cache: |store, token| unsafe { store.serve_in(token) },
        rouse: Self::rouse,
    };

    /// Who serves the queue, while somebody is in it.
    pub(crate) fn servants(&self) -> Option<&'static Servants<P, B>> {
        // SAFETY: null, or left there by `Place::join` of the same manager.
        unsafe { self.waiting.servants.load(Relaxed).cast::<Servants<P, B>>().as_ref() }
    }

    /// [`serve`](Self::serve) if somebody waits.
    #[cfg_attr(feature = "small", inline(always))]
    #[cfg_attr(not(feature = "small"), cold, inline(never))]
    pub(crate) fn hand_over<'z>(&'z self, index: usize, zone: ZoneGuard<'z, P::Lock>) {
        if let Some(servants) = self.servants() {
            (servants.zone)(self, index, zone);
        }
    }

    /// Hands what the zone has free to those who wait for it, oldest first, one block a lock hold, and wakes them.
    ///
    /// Cost: per waiter served, and per batch of waiters it does not fit.
    fn serve<'z>(&'z self, index: usize, zone: ZoneGuard<'z, P::Lock>) {
        self.serve_for(index, zone, Cause::Look);
    }

    /// [`serve`](Self::serve) when something was freed.
    fn serve_freed<'z>(&'z self, index: usize, zone: ZoneGuard<'z, P::Lock>) {
        self.serve_for(index, zone, Cause::Free);
    }

    fn serve_for<'z>(&'z self, index: usize, mut zone: ZoneGuard<'z, P::Lock>, mut cause: Cause) {
        let search = Ended { memory: self, search: Search::new() };
        loop {
            let step = self.waiting.change(|queue| {
                let offer = |want: &Want, put_by: usize| match zone.kind {
                    Some(kind) if kind <= want.kind && want.pages != 0 => {
                        let put_by = put_by.min(zone.share());
                        let limit = zone.marks.limit(want.kind, want.depth).saturating_add(put_by);
                        let held = Head::new(FrameKind::Held, 0, want.pages as u32);
                        match zone.take((want.pages, order_for(want.pages)), limit, held, NIL) {
                            Some(pfn) => Offer::Give(Grant::Block(pfn)),
                            None => Offer::Small,
                        }
                    }
                    _ => Offer::Wrong,
                };
                // SAFETY: the search stays here, and ends when this function does.
                match unsafe { search.search.step(queue, offer) } {
                    Step::End(refused) if cause == Cause::Free => {
                        Served::Nobody(queue.freed(index, zone.free, refused))
                    }
                    Step::End(_) => Served::Nobody(false),
                    Step::Handed { wake, overdue } => Served::One(wake, overdue),
                    Step::More => Served::More,
                }
            });
            drop(zone);
            match step {
                Served::One(wake, overdue) => {
                    self.handed(wake, overdue);
                    // Whom that passed over it has counted.
                    cause = Cause::Look;
                }
                Served::More => {}
                Served::Nobody(overdue) => {
                    if overdue {
                        self.put_by();
                    }
                    return;
                }
            }
            zone = self.zones.zone(index).lock();
        }
    }

    /// Somebody was handed something: wakes him, and puts frames by for whom that passed over once too often.
    pub(crate) fn handed(&self, wake: Wake, overdue: bool) {
        if overdue || self.waiting.put_by.load(Relaxed) != 0 {
            self.put_by();
        }
        self.wake(wake);
    }

    fn wake(&self, wake: Wake) {
        match wake {
            Wake::None => {}
            Wake::Task(task) => self.platform.wake(task),
            Wake::Future(waker) => waker.wake(),
        }
    }

    /// Wakes somebody who does what was put off. No lock is held.
    fn rouse(&self) {
        let wake = self.waiting.change(Queue::rouse);
        self.wake(wake);
    }

    /// Works out anew which frames are put by for waiters that were passed over too often.
    fn put_by(&self) {
        for index in 0..MAX_ZONES {
            let mut zone = self.zones.zone(index).lock();
            let Some(kind) = zone.kind else { break };
            let holds = |want: &Want| zone.could_hold(want.pages, want.kind, want.depth);
            let mut queue = self.waiting.queue.lock();
            let frames = queue.put_by(kind, holds).min(zone.share());
            let before = zone.put_by(frames);
            // Under the queue's lock, by what this zone changed: others may be at other zones.
            let others = self.waiting.put_by.load(Relaxed) - usize::from(before != 0);
            self.waiting.put_by.store(others + usize::from(frames != 0), Relaxed);
            drop(queue);
        }
    }

    /// Runs `step` of a search for whom an object of the cache named `cache` fits; see `Slabs::hand_over`.
    ///
    /// # Safety
    /// As for [`Search::step`].
    pub(crate) unsafe fn offer_object(
        &self,
        search: &Ended<'_, P, B>,
        cache: usize,
        mut object: impl FnMut() -> Option<NonNull<u8>>,
    ) -> Step {
        self.waiting.change(|queue| {
            let offer = |want: &Want, _| match want.cache == cache {
                true => object().map_or(Offer::Wrong, |object| Offer::Give(Grant::Object(object))),
                false => Offer::Wrong,
            };
            // SAFETY: the caller's word.
            unsafe { search.search.step(queue, offer) }
        })
    }

    /// Makes a block that was handed over the caller's.
    pub(crate) fn accept(&self, pfn: u32, block: &Block) -> Pfn {
        if let Some(frame) = self.frames.frame(Pfn(pfn)) {
            frame.set_link(block.link);
            frame.set_head(Head::new(block.kind, 0, block.pages as u32));
        }
        if block.flags.contains(Gfp::ZERO) {
            self.zero(PageRange { start: Pfn(pfn), count: block.pages as u32 });
        }
        Pfn(pfn)
    }

    /// True when a zone it may come from could give the block if all of it were free: else there is nothing to wait
    /// for.
    #[cold]
    #[inline(never)]
    pub(crate) fn could_serve(&self, pages: usize, flags: Gfp) -> bool {
        let kind = ZoneKind::of(flags);
        let mut index = self.zones.entry(kind);
        while index < MAX_ZONES {
            if self.zones.zone(index).lock().could_hold(pages, kind, flags.depth()) {
                return true;
            }
            index = index.wrapping_sub(1);
        }
        false
    }

    /// Waits until a block is handed over, or `until`; whenever it is awake it does what was put off by `tend`, which
    /// tells whether there was anything. A block that no zone could ever give is not waited for.
    ///
    /// Context: task, no lock held.
    ///
    /// # Errors
    /// `error`, when time is up.
    #[cold]
    #[inline(never)]
    pub(crate) fn wait_for_block(
        &self,
        block: Block,
        until: Duration,
        error: AllocError,
        tend: &dyn Fn() -> bool,
    ) -> Result<Pfn, AllocError> {
        if !self.could_serve(block.pages, block.flags) {
            return Err(error);
        }
        let place = pin!(Place::new(self, block.want(0), ()));
        let place = place.into_ref();
        place.join(Wake::Task(self.platform.current()));
        loop {
            self.look(block.flags);
            match place.wait(until, tend) {
                Some(Grant::Block(pfn)) => match self.sound_grant(pfn, &block) {
                    Ok(pfn) => return Ok(self.accept(pfn, &block)),
                    // It was damaged, and there is no other: once more at the end of the queue.
                    Err(_) => place.join(Wake::Task(self.platform.current())),
                },
                // Of a cache, which it did not ask for.
                Some(Grant::Object(_)) => {}
                None => return Err(error),
            }
        }
    }

    /// Serves the queue from every zone that requests with these flags may use. Called behind joining it.
    pub(crate) fn look(&self, flags: Gfp) {
        let mut index = self.zones.entry(ZoneKind::of(flags));
        while index < MAX_ZONES {
            self.watch(index);
            self.serve(index, self.zones.zone(index).lock());
            index = index.wrapping_sub(1);
        }
    }
}

/// A search that takes its mark out of the queue when it is over.
pub(crate) struct Ended<'a, P: Platform, B: Backend> {
    memory: &'a Memory<P, B>,
    search: Search,
}

impl<'a, P: Platform, B: Backend> Ended<'a, P, B> {
    /// A search for whom something fits. It must not be moved once it has begun.
    pub fn new(memory: &'a Memory<P, B>) -> Self {
        Ended { memory, search: Search::new() }
    }
}

impl<P: Platform, B: Backend> Drop for Ended<'_, P, B> {
    fn drop(&mut self) {
        self.memory.waiting.change(|queue| self.search.end(queue));
    }
}

/// Takes back an object that was handed to a waiter who went without it.
pub(crate) trait Objects {
    /// Gives it back.
    fn give(&self, object: NonNull<u8>);
}

/// For who asked for no object.
impl Objects for () {
    fn give(&self, _object: NonNull<u8>) {}
}

/// A place in the queue. Whoever drops it leaves the queue, and gives back what was handed to it.
pub(crate) struct Place<'a, P: Platform, B: Backend, O: Objects = ()> {
    memory: &'a Memory<P, B>,
    waiter: Waiter,
    pages: usize,
    objects: O,
}

impl<'a, P: Platform, B: Backend, O: Objects> Place<'a, P, B, O> {
    /// A place that is in no queue yet.
    pub fn new(memory: &'a Memory<P, B>, want: Want, objects: O) -> Self {
        Place { memory, waiter: Waiter::new(Some(want)), pages: want.pages, objects }
    }

    fn waiter(self: Pin<&Self>) -> Pin<&Waiter> {
        // SAFETY: the waiter is pinned with the place.
        unsafe { self.map_unchecked(|place| &place.waiter) }
    }

    /// Queues up, or changes whom to wake.
    pub fn join(self: Pin<&Self>, wake: Wake) {
        let waiter = self.waiter();
        // SAFETY: `drop` leaves the queue.
        let before = self.memory.waiting.change(|queue| unsafe {
            self.memory.waiting.servants.store(ptr::from_ref(Memory::<P, B>::SERVANTS).cast_mut().cast(), Relaxed);
            queue.join(waiter, wake)
        });
        drop(before);
    }

    /// What was handed over; the place is in no queue then.
    pub fn collect(self: Pin<&Self>) -> Option<Grant> {
        let grant = self.memory.waiting.change(|queue| queue.collect(&self.waiter));
        if grant.is_some() && self.memory.waiting.put_by.load(Relaxed) != 0 {
            self.memory.put_by();
        }
        grant
    }

    /// Leaves the queue, with what was handed over.
    pub fn leave(&self) -> Option<Grant> {
        let leave = |queue: &mut Queue| (queue.leave(&self.waiter), queue.depart(&self.waiter));
        let ((grant, wake), last) = self.memory.waiting.change(leave);
        drop(wake);
        if last {
            self.memory.unwatch();
        }
        if self.memory.waiting.put_by.load(Relaxed) != 0 {
            self.memory.put_by();
        }
        grant
    }

    /// Sleeps until something was handed over, or `until`. What comes at the last moment is not refused.
    ///
    /// Some of what becomes free tells nobody: the last object of a slab that its cache is just taking from, since a
    /// free there looks at nothing else. So it wakes [`LOOKS`] times in all to `tend`.
    pub fn wait(self: Pin<&Self>, until: Duration, tend: &dyn Fn() -> bool) -> Option<Grant> {
        let platform = &self.memory.platform;
        let start = platform.now();
        let pause = until.saturating_sub(start) / LOOKS;
        let mut next = start.saturating_add(pause);
        loop {
            if let Some(grant) = self.collect() {
                return Some(grant);
            }
            let now = platform.now();
            if now >= until {
                return self.leave();
            }
            if !tend() {
                if now >= next {
                    next = now.saturating_add(pause);
                }
                platform.wait(if next < until && pause != Duration::ZERO { next } else { until });
            }
        }
    }
}

impl<P: Platform, B: Backend, O: Objects> Drop for Place<'_, P, B, O> {
    fn drop(&mut self) {
        match self.leave() {
            None => {}
            Some(Grant::Block(pfn)) => _ = self.memory.free_block(pfn as usize, FrameKind::Held, Some(self.pages)),
            Some(Grant::Object(object)) => self.objects.give(object),
        }
    }
}
