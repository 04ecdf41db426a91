//! The queue of those who wait for memory: nodes in their own stacks and futures, in the order they came.
//!
//! Whatever becomes free is handed to a waiter under the lock that guards it (a zone's or a cache's) and the queue's,
//! before anybody is woken: nobody can take it in between. A node that was handed something is out of the queue and
//! owns it. One hold of the queue's lock looks at up to [`BATCH`] nodes; a longer search leaves a mark in the queue and
//! goes on behind it.

use super::watch::Places;
use crate::zone::{BATCH, Depth, MAX_ZONES, ZoneKind};
use core::cell::UnsafeCell;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr::{self, NonNull};
use core::task::Waker;

/// How often a waiter is passed over before its own frames are put by: by younger ones, whose smaller wants fit, or by
/// requests that wait for nothing and take what was freed. From then on ordinary requests and younger waiters leave as
/// many frames more as it wants.
pub const PASSES: u32 = 16;

/// What a waiter wants.
#[derive(Clone, Copy)]
pub struct Want {
    /// How many frames; 0 when none will do, only an object.
    pub pages: usize,
    /// The highest kind of zone they may come from.
    pub kind: ZoneKind,
    /// How far down the zones may be taken for it.
    pub depth: Depth,
    /// The cache of which an object will do as well, by its address; 0 for none.
    pub cache: usize,
}

/// What a waiter was handed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    /// A block of as many frames as it wants, by the first; its record says that it is held.
    Block(u32),
    /// An object of its cache.
    Object(NonNull<u8>),
}

/// Whom to wake.
#[derive(Clone)]
pub enum Wake {
    /// Nobody.
    None,
    /// A task, by [`Platform::current`](crate::Platform::current).
    Task(usize),
    /// A future's task.
    Future(Waker),
}

pub(super) struct Inner {
    prev: *const Waiter,
    next: *const Waiter,
    listed: bool,
    /// Counted among the places.
    pub(super) placed: bool,
    /// `None` for the mark of a search.
    want: Option<Want>,
    wake: Wake,
    grant: Option<Grant>,
    /// How often it was passed over, and the queue's count of far passes when it came.
    passed: u32,
    far: u32,
}

/// A node of the queue. What is inside is guarded by the queue's lock.
pub struct Waiter {
    inner: UnsafeCell<Inner>,
    _pinned: PhantomPinned,
}

// SAFETY: the inside is reached with the queue's lock held only; wakers and pointers to objects may be sent.
unsafe impl Send for Waiter {}
// SAFETY: as above.
unsafe impl Sync for Waiter {}

impl Waiter {
    /// A node that is in no queue.
    pub const fn new(want: Option<Want>) -> Self {
        let inner = Inner {
            prev: ptr::null(),
            next: ptr::null(),
            listed: false,
            placed: false,
            want,
            wake: Wake::None,
            grant: None,
            passed: 0,
            far: 0,
        };
        Waiter { inner: UnsafeCell::new(inner), _pinned: PhantomPinned }
    }
}

/// The state of the queue.
pub struct Queue {
    head: *const Waiter,
    tail: *const Waiter,
    /// How many wait, marks left out.
    len: usize,
    /// Those that queued up at least once.
    pub(super) places: Places,
    /// Frames that were handed to waiters who have not come for them yet.
    granted: usize,
    /// Grants to nodes further back than a search sees at once: each may have passed over any node before.
    far: u32,
    /// By zone: its free frames when what was freed there last was not enough for anybody.
    seen: [usize; MAX_ZONES],
}

// SAFETY: nodes are reached under the queue's lock, and unlink themselves before they go.
unsafe impl Send for Queue {}

impl Queue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Queue {
            head: ptr::null(),
            tail: ptr::null(),
            len: 0,
            places: Places::NONE,
            granted: 0,
            far: 0,
            seen: [0; MAX_ZONES],
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Frames that are on their way to waiters.
    pub fn granted(&self) -> usize {
        self.granted
    }

    /// The inside of a node of this queue.
    ///
    /// # Safety
    /// `node` is live, and no other reference to its inside is.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn inner(&mut self, node: *const Waiter) -> &mut Inner {
        // SAFETY: the queue's lock is held, since `self` is borrowed exclusively; the rest is the caller's word.
        unsafe { &mut *(*node).inner.get() }
    }

    /// Links `node` behind `at`, or in front when `at` is null.
    ///
    /// # Safety
    /// `node` is live, pinned and unlisted, and is unlisted again before it goes; `at` is listed or null.
    unsafe fn link(&mut self, node: *const Waiter, at: *const Waiter) {
        // SAFETY: listed nodes are live, and each reference ends before the next is made.
        unsafe {
            let next = if at.is_null() { self.head } else { self.inner(at).next };
            let inner = self.inner(node);
            (inner.prev, inner.next, inner.listed) = (at, next, true);
            if at.is_null() {
                self.head = node
            } else {
                self.inner(at).next = node
            }
            if next.is_null() { self.tail = node } else { self.inner(next).prev = node }
        }
    }

    /// Takes `node` out.
    ///
    /// # Safety
    /// `node` is listed.
    unsafe fn unlink(&mut self, node: *const Waiter) {
        // SAFETY: as for `link`.
        unsafe {
            let inner = self.inner(node);
            let (prev, next) = (inner.prev, inner.next);
            inner.listed = false;
            if prev.is_null() {
                self.head = next
            } else {
                self.inner(prev).next = next
            }
            if next.is_null() { self.tail = prev } else { self.inner(next).prev = prev }
        }
    }

    /// Queues `node` last if it is in no queue and was handed nothing; from now on it wakes `wake`. Returns whom it
    /// woke before, to be dropped outside the lock.
    ///
    /// # Safety
    /// [`leave`](Self::leave) and [`depart`](Self::depart) are called for the node before it goes.
    #[must_use]
    pub unsafe fn join(&mut self, node: Pin<&Waiter>, wake: Wake) -> Wake {
        let (node, tail, far) = (ptr::from_ref(node.get_ref()), self.tail, self.far);
        // SAFETY: pinned, and unlisted by `leave` before it goes.
        unsafe {
            let inner = self.inner(node);
            let before = core::mem::replace(&mut inner.wake, wake);
            let came = !core::mem::replace(&mut inner.placed, true);
            if !inner.listed && inner.grant.is_none() {
                (inner.passed, inner.far) = (0, far);
                self.link(node, tail);
                self.len += 1;
            }
            self.places.add(came);
            before
        }
    }

    /// Takes what the node was handed. It is in no queue then.
    pub fn collect(&mut self, node: &Waiter) -> Option<Grant> {
        // SAFETY: the node is live.
        let inner = unsafe { self.inner(node) };
        let grant = inner.grant.take()?;
        if let (Grant::Block(_), Some(want)) = (grant, inner.want) {
            self.granted -= want.pages;
        }
        Some(grant)
    }

    /// Takes the node out, and what it was handed, which the caller then owns; and whom it wakes, to be dropped outside
    /// the lock.
    pub fn leave(&mut self, node: &Waiter) -> (Option<Grant>, Wake) {
        // SAFETY: the node is live.
        let inner = unsafe { self.inner(node) };
        let wake = core::mem::replace(&mut inner.wake, Wake::None);
        if inner.listed {
            let counts = inner.want.is_some();
            // SAFETY: just seen.
            unsafe { self.unlink(node) };
            self.len -= usize::from(counts);
        }
        (self.collect(node), wake)
    }

    /// Whom to wake so that a task does what an interrupt put off: the oldest task of the first batch, else the oldest
    /// future, which tells anew whom to wake when it is polled.
    pub fn rouse(&mut self) -> Wake {
        let (mut at, mut future) = (self.head, ptr::null::<Waiter>());
        for _ in 0..BATCH {
            if at.is_null() {
                break;
            }
            // SAFETY: listed nodes are live.
            let inner = unsafe { self.inner(at) };
            match inner.wake {
                Wake::Task(task) => return Wake::Task(task),
                Wake::Future(_) if future.is_null() => future = at,
                _ => {}
            }
            at = inner.next;
        }
        if future.is_null() {
            return Wake::None;
        }
        // SAFETY: as above.
        core::mem::replace(unsafe { &mut self.inner(future).wake }, Wake::None)
    }

    /// One more grant passed over those nodes from `first` on whose bit is set. True when that was once too often for
    /// one of them.
    ///
    /// # Safety
    /// As many nodes are listed from `first` on as `passed` has bits up to its highest.
    unsafe fn pass_over(&mut self, first: *const Waiter, mut passed: u32) -> bool {
        let (mut at, mut overdue) = (first, false);
        while passed != 0 {
            let far = self.far;
            // SAFETY: the caller's word.
            let inner = unsafe { self.inner(at) };
            if passed & 1 != 0 {
                inner.passed = inner.passed.saturating_add(1);
                overdue |= inner.is_overdue(far);
            }
            (at, passed) = (inner.next, passed >> 1);
        }
        overdue
    }

    /// A free left zone `index` with `free` frames, which were too few for those it `refused`. If there are no more
    /// than the last time, somebody who does not wait took what came between, and has passed them over; true when that
    /// was once too often for one of them.
    pub fn freed(&mut self, index: usize, free: usize, refused: Refused) -> bool {
        let Some(before) = self.seen.get_mut(index).map(|seen| core::mem::replace(seen, free)) else { return false };
        if refused.small == 0 || free > before {
            return false;
        }
        if refused.far_off {
            self.far = self.far.wrapping_add(1);
            let far = self.far;
            // SAFETY: listed nodes are live, and a search has its mark in the queue.
            return unsafe { self.inner(self.head).is_overdue(far) };
        }
        // SAFETY: the search began with the oldest waiter and saw as many nodes, under the same hold of the lock.
        unsafe { self.pass_over(self.head, refused.small) }
    }

    /// The frames to put by in a zone of `kind` for the oldest waiter that may use them and was passed over too often;
    /// `holds` tells whether the zone is large enough for him. Looks at one batch.
    pub fn put_by(&mut self, kind: ZoneKind, holds: impl Fn(&Want) -> bool) -> usize {
        let mut at = self.head;
        for _ in 0..BATCH {
            if at.is_null() {
                break;
            }
            let far = self.far;
            // SAFETY: listed nodes are live.
            let inner = unsafe { self.inner(at) };
            if let Some(want) = inner.want.filter(|want| want.kind >= kind && holds(want))
                && inner.is_overdue(far)
            {
                return want.pages;
            }
            at = inner.next;
        }
        0
    }
}

impl Inner {
    /// True when it was passed over too often; `far` is the queue's count now.
    fn is_overdue(&self, far: u32) -> bool {
        self.passed.saturating_add(far.wrapping_sub(self.far)) >= PASSES
    }
}

/// What one hold of the lock came to.
pub enum Step {
    /// Something was handed over: this one is to be woken, outside the locks. `overdue` when somebody has been passed
    /// over too often by it.
    Handed { wake: Wake, overdue: bool },
    /// There are more behind those looked at.
    More,
    /// Nobody else is there.
    End(Refused),
}

/// For whom of the last batch looked at the offer would have done, but was not enough.
#[derive(Clone, Copy)]
pub struct Refused {
    /// By place in the batch.
    small: u32,
    /// There is another batch before it.
    far_off: bool,
}

/// A search through the queue for whom something fits.
pub struct Search {
    mark: Waiter,
}

impl Search {
    /// One that starts with the oldest waiter.
    pub const fn new() -> Self {
        Search { mark: Waiter::new(None) }
    }

    /// Looks at the next batch. `offer` is asked of each waiter's want, and of the frames put by for older ones, and
    /// returns what it gives.
    ///
    /// # Safety
    /// After `More` the search is not moved, and [`end`](Self::end) is called before it goes.
    pub unsafe fn step(&self, queue: &mut Queue, mut offer: impl FnMut(&Want, usize) -> Offer) -> Step {
        let mark = ptr::from_ref(&self.mark);
        // SAFETY: here and below: listed nodes are live, a reference to one ends before the next is made, and the mark
        // is pinned and unlisted in time by the caller's word.
        unsafe {
            let inner = queue.inner(mark);
            let (far_off, behind) = (inner.listed, inner.next);
            let first = if far_off { behind } else { queue.head };
            let (mut at, mut last, mut put_by, mut small) = (first, ptr::null(), 0, 0u32);
            for looked in 0..BATCH {
                if at.is_null() {
                    return Step::End(Refused { small, far_off });
                }
                let far = queue.far;
                let node = queue.inner(at);
                let next = node.next;
                if let Some(want) = node.want {
                    match offer(&want, put_by) {
                        Offer::Give(grant) => {
                            node.grant = Some(grant);
                            let wake = core::mem::replace(&mut node.wake, Wake::None);
                            if let Grant::Block(_) = grant {
                                queue.granted += want.pages;
                            }
                            queue.unlink(at);
                            queue.len -= 1;
                            queue.far = far.wrapping_add(u32::from(far_off));
                            let overdue = queue.pass_over(first, small);
                            return Step::Handed { wake, overdue };
                        }
                        Offer::Small => {
                            small |= 1 << looked;
                            if put_by == 0 && node.is_overdue(far) {
                                put_by = want.pages;
                            }
                        }
                        Offer::Wrong => {}
                    }
                }
                (last, at) = (at, next);
            }
            if at.is_null() {
                return Step::End(Refused { small, far_off });
            }
            if far_off {
                queue.unlink(mark);
            }
            // Behind `last`, which is not the mark: the search began behind it.
            queue.link(mark, last);
            Step::More
        }
    }

    /// Takes the search's mark out of the queue.
    pub fn end(&self, queue: &mut Queue) {
        let _ = queue.leave(&self.mark);
    }
}

/// What is offered to a waiter.
pub enum Offer {
    /// This.
    Give(Grant),
    /// It would do, but is not enough.
    Small,
    /// Nothing it could use.
    Wrong,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter() -> Waiter {
        Waiter::new(Some(Want { pages: 4, kind: ZoneKind::Normal, depth: Depth::Min, cache: 0 }))
    }

    /// One count stops at its end, the other runs over and is only ever compared by what was added since: a waiter is
    /// overdue after as many passes as ever when 2^32 came before it, and stays so.
    #[test]
    fn counts_of_passes_hold_past_two_to_the_32() {
        for start in [0, 5, u32::MAX - 20, u32::MAX - 3, u32::MAX] {
            let mut node = waiter();
            let inner = node.inner.get_mut();
            inner.far = start;
            for passes in 0..PASSES {
                assert!(!inner.is_overdue(start.wrapping_add(passes)), "{passes} after {start}");
                inner.passed = passes;
                assert!(!inner.is_overdue(start));
                inner.passed = 0;
            }
            assert!(inner.is_overdue(start.wrapping_add(PASSES)));
            inner.passed = u32::MAX - 1;
            assert!([start, start.wrapping_add(1), start.wrapping_sub(1)].iter().all(|far| inner.is_overdue(*far)));
        }
        let mut queue = Queue::new();
        let (first, second) = (core::pin::pin!(waiter()), core::pin::pin!(waiter()));
        for node in [first.as_ref(), second.as_ref()] {
            // SAFETY: both leave below.
            drop(unsafe { queue.join(node, Wake::None) });
        }
        // SAFETY: here and below: the nodes are listed, and no other reference is made.
        unsafe { queue.inner(first.as_ref().get_ref()).passed = u32::MAX };
        // SAFETY: as above.
        assert!(unsafe { queue.pass_over(queue.head, 0b11) }, "overdue, and no overflow");
        // SAFETY: as above.
        assert_eq!(unsafe { queue.inner(first.as_ref().get_ref()).passed }, u32::MAX);
        for node in [first.as_ref(), second.as_ref()] {
            drop(queue.leave(node.get_ref()));
        }
        assert_eq!(queue.len(), 0);
        assert_eq!(
            [first.as_ref(), second.as_ref(), second.as_ref()].map(|node| queue.depart(node.get_ref())),
            [false, !cfg!(feature = "small"), false]
        );
    }
}
