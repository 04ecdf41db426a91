//! `Mempool`: elements set aside for when the allocator has none.

mod source;
mod wait;

pub use source::{CacheSource, ElementSource, KmallocSource, PageSource};

use crate::debug::ON_ALLOC;
use crate::error::{AllocError, FreeError, MmError};
use crate::gfp::{GFP_KERNEL, Gfp};
use crate::global::Manager;
use crate::lock::Locked;
use crate::platform::{Bug, Platform};
use core::mem::ManuallyDrop;
use core::panic::Location;
use core::ptr::NonNull;
use core::time::Duration;

/// The most elements a pool can set aside: what one lock hold can shift by one.
const MOST: usize = 64;

/// The elements in reserve: an array in kmalloc memory, sorted by address so that a second free is found.
struct Reserve {
    elements: *mut NonNull<u8>,
    /// How many there are.
    count: usize,
    /// How many there are to be: the array's length.
    min: usize,
    /// Elements in the hands of callers.
    out: usize,
}

// SAFETY: the array and the elements are the pool's; its lock guards their use.
unsafe impl Send for Reserve {}

/// A pool with elements in reserve, as Linux's `mempool_t`. Dropping it destroys it, or reports that it is busy.
///
/// An allocation asks the allocator first and takes from the reserve only when it has nothing; a free refills the
/// reserve first. So as long as whoever takes an element gives it back, somebody can always go on, whatever the rest of
/// the system has taken. The reserve holds up to 64 elements.
///
/// ```
/// use mm_core::{GFP_ATOMIC, Manager, Mempool, MmError};
///
/// fn requests(mm: impl Manager) -> Result<(), MmError> {
///     let pool = Mempool::kmalloc_in(4, 256, mm)?; // four of 256 bytes set aside
///     let request = pool.alloc(GFP_ATOMIC)?; // four of these at a time never fail
///     pool.free(request.as_ptr())?;
///     pool.destroy().map_err(|(_, error)| error)
/// }
/// ```
pub struct Mempool<S: ElementSource<M>, M: Manager> {
    source: S,
    reserve: Locked<<M::Platform as Platform>::Lock, Reserve>,
    manager: M,
}

impl<M: Manager> Mempool<KmallocSource, M> {
    /// A pool of kmalloc objects of `size` bytes, as Linux's `mempool_create_kmalloc_pool`.
    ///
    /// # Errors
    /// As [`new_in`](Mempool::new_in).
    #[track_caller]
    pub fn kmalloc_in(min: usize, size: usize, manager: M) -> Result<Self, MmError> {
        Mempool::new_in(min, KmallocSource::new(size), manager)
    }
}

impl<M: Manager> Mempool<PageSource, M> {
    /// A pool of blocks of `1 << order` pages, as Linux's `mempool_create_page_pool`.
    ///
    /// # Errors
    /// As [`new_in`](Mempool::new_in).
    #[track_caller]
    pub fn pages_in(min: usize, order: usize, manager: M) -> Result<Self, MmError> {
        Mempool::new_in(min, PageSource::new(order), manager)
    }
}

impl<S: ElementSource<M>, M: Manager> Mempool<S, M> {
    /// A pool of what `source` gives, with `min` elements set aside, as Linux's `mempool_create`.
    ///
    /// Context: task. Cost: as `min` allocations.
    ///
    /// # Errors
    /// `Inval` for no element or more than 64; what the source says to one element that cannot be had. Nothing is
    /// taken then.
    #[track_caller]
    pub fn new_in(min: usize, source: S, manager: M) -> Result<Self, MmError> {
        manager.mm().memory.admit(GFP_KERNEL, Location::caller())?;
        let empty = Reserve { elements: NonNull::dangling().as_ptr(), count: 0, min: 0, out: 0 };
        let pool = Mempool { source, reserve: Locked::new(empty), manager };
        match pool.resize(min) {
            Ok(()) => Ok(pool),
            Err(error) => {
                // No array was made, so there is nothing to destroy.
                let _ = ManuallyDrop::new(pool);
                Err(error)
            }
        }
    }

    /// Takes an element; its contents are undefined, or zeroes when the flags hold `ZERO`; of a cache with a
    /// constructor as they were left.
    ///
    /// The allocator is asked first, without waiting; then the reserve; then, if the flags hold `WAIT`, the allocator
    /// with all it does to get memory but waiting; then the call waits, where the platform can, until an element is
    /// given back, which is handed to the oldest who waits, and asks the allocator now and then; at most as long as any
    /// request waits. `NORETRY` does not wait.
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: as the source's, plus a few instructions from the
    /// reserve.
    ///
    /// # Errors
    /// `BadFlags`, also for `DMA` and `DMA32`, for the reserve is of any memory; and what the source says when the
    /// reserve is empty too.
    #[track_caller]
    pub fn alloc(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.alloc_until(flags, None)
    }

    /// [`alloc`](Self::alloc), which waits until `until` at most, a time of [`Platform::now`].
    ///
    /// # Errors
    /// As `alloc`.
    #[track_caller]
    pub fn alloc_deadline(&self, flags: Gfp, until: Duration) -> Result<NonNull<u8>, AllocError> {
        self.alloc_until(flags, Some(until))
    }

    #[track_caller]
    fn alloc_until(&self, flags: Gfp, until: Option<Duration>) -> Result<NonNull<u8>, AllocError> {
        let mm = self.manager.mm();
        let asked = flags;
        let mut flags = mm.memory.admit(flags, Location::caller())?;
        if !asked.contains(Gfp::ZERO) && !self.source.may_be_zeroed() {
            // What all memory is filled with, these elements are not.
            flags = flags.difference(ON_ALLOC);
        }
        if flags.intersects(Gfp::DMA | Gfp::DMA32) {
            return Err(AllocError::BadFlags);
        }
        // Counted before it is there: a pool that is being emptied is busy.
        self.reserve.lock().out += 1;
        let at_once = flags.difference(Gfp::WAIT) | Gfp::NOWARN | Gfp::NORETRY;
        let mut taken = self.source.alloc(self.manager, at_once).or_else(|error| self.take(flags, error));
        if is_short(&taken) && flags.contains(Gfp::WAIT) {
            let hard = flags | Gfp::NORETRY | Gfp::NOWARN;
            taken = self.source.alloc(self.manager, hard).or_else(|error| self.take(flags, error));
            if let Err(error) = taken
                && M::Platform::CAN_WAIT
                && is_short(&taken)
                && !flags.contains(Gfp::NORETRY)
                && !mm.memory.was_injected()
            {
                let until = until.unwrap_or_else(|| mm.memory.default_deadline());
                taken = self.wait(flags, until, error);
            }
        }
        if taken.is_err() {
            self.reserve.lock().out -= 1;
        }
        taken
    }

    /// An element of the reserve, when the allocator had none; else its error.
    fn take(&self, flags: Gfp, error: AllocError) -> Result<NonNull<u8>, AllocError> {
        if !is_short(&Err(error)) {
            return Err(error);
        }
        let element = self.reserve.lock().pop().ok_or(error)?;
        Ok(self.zeroed(element, flags))
    }

    /// An element of the reserve, as the flags ask for it.
    fn zeroed(&self, element: NonNull<u8>, flags: Gfp) -> NonNull<u8> {
        if flags.contains(Gfp::ZERO) {
            // SAFETY: the element is nobody else's, and that long.
            unsafe { element.write_bytes(0, self.source.bytes(self.manager)) };
        }
        element
    }

    /// Gives an element back: to the reserve if it is short, else to the allocator.
    ///
    /// Context: any. Cost: as the source's free, or a shift of the reserve.
    ///
    /// # Errors
    /// What the source's free says of a pointer that is none of its live elements; `DoubleFree` also for an element in
    /// the reserve; `WrongAllocator` when no element of this pool is out. Nothing was changed.
    pub fn free(&self, element: *mut u8) -> Result<(), FreeError> {
        let Some(element) = NonNull::new(element) else { return Ok(()) };
        let reserve = self.reserve.lock();
        let (kept, out, short) = (reserve.find(element).is_ok(), reserve.out, reserve.is_short());
        drop(reserve);
        if kept {
            return Err(FreeError::DoubleFree);
        }
        if out == 0 {
            // What is wrong with it, if anything but whose it is.
            return Err(self.source.check(self.manager, element).err().unwrap_or(FreeError::WrongAllocator));
        }
        if short {
            self.source.check(self.manager, element)?;
            let mut reserve = self.reserve.lock();
            match reserve.find(element) {
                Ok(_) => return Err(FreeError::DoubleFree),
                Err(place) if reserve.is_short() => {
                    reserve.insert(place, element);
                    reserve.out = reserve.out.saturating_sub(1);
                    drop(reserve);
                    self.hand_over();
                    return Ok(());
                }
                // Another was faster.
                Err(_) => {}
            }
        }
        self.source.free(self.manager, element)?;
        let mut reserve = self.reserve.lock();
        reserve.out = reserve.out.saturating_sub(1);
        Ok(())
    }

    /// Changes how many elements are set aside, as Linux's `mempool_resize`, but with the reserve filled.
    ///
    /// Context: task. Cost: as so many allocations or frees.
    ///
    /// # Errors
    /// As [`new_in`](Self::new_in); the pool is then as it was.
    pub fn resize(&self, min: usize) -> Result<(), MmError> {
        if min == 0 || min > MOST {
            return Err(MmError::Inval);
        }
        let mm = self.manager.mm();
        let array = mm.kmalloc_array(min, size_of::<NonNull<u8>>(), GFP_KERNEL)?;
        let missing = min.saturating_sub(self.reserve.lock().count);
        let mut fresh = Reserve { elements: array.cast().as_ptr(), count: 0, min, out: 0 };
        let mut failed = None;
        for _ in 0..missing {
            match self.source.alloc(self.manager, GFP_KERNEL) {
                Ok(element) => fresh.add(element),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if failed.is_none() {
            let mut reserve = self.reserve.lock();
            fresh.absorb(&mut reserve);
            fresh.out = core::mem::take(&mut reserve.out);
            core::mem::swap(&mut *reserve, &mut fresh);
        }
        // Now the array that is not used any more, and what there was no room for.
        while let Some(element) = fresh.pop() {
            self.give(element);
        }
        if fresh.min != 0 {
            self.report(mm.kfree(fresh.elements.cast()), fresh.elements.addr());
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn give(&self, element: NonNull<u8>) {
        self.report(self.source.free(self.manager, element), element.as_ptr().addr());
    }

    fn report(&self, result: Result<(), FreeError>, addr: usize) {
        if let Err(error) = result {
            self.manager.mm().platform().bug(&Bug::BadFree { addr, error });
        }
    }

    /// How many elements are in reserve, and how many in the hands of callers.
    pub fn counts(&self) -> (usize, usize) {
        let reserve = self.reserve.lock();
        (reserve.count, reserve.out)
    }

    /// Destroys the pool, as Linux's `mempool_destroy`.
    ///
    /// Context: task. Cost: as so many frees.
    ///
    /// # Errors
    /// The pool itself with `Busy` and the number of elements that are out, when there are any.
    pub fn destroy(self) -> Result<(), (Self, MmError)> {
        match self.counts().1 {
            0 => Ok(()), // `drop` gives all back
            out => Err((self, MmError::Busy(out))),
        }
    }
}

impl<S: ElementSource<M>, M: Manager> Drop for Mempool<S, M> {
    fn drop(&mut self) {
        let mut reserve = core::mem::replace(
            &mut *self.reserve.lock(),
            Reserve { elements: NonNull::dangling().as_ptr(), count: 0, min: 0, out: 0 },
        );
        if reserve.out != 0 {
            // What is out can still be freed by the source's own call.
            self.manager.mm().platform().bug(&Bug::PoolBusy { elements: reserve.out });
        }
        while let Some(element) = reserve.pop() {
            self.give(element);
        }
        self.report(self.manager.mm().kfree(reserve.elements.cast()), reserve.elements.addr());
    }
}

/// True when there is no memory, which the reserve is for, and nothing is wrong with the request.
fn is_short(taken: &Result<NonNull<u8>, AllocError>) -> bool {
    matches!(taken, Err(AllocError::NoMemory | AllocError::NoContig))
}

impl Reserve {
    fn slice(&self) -> &[NonNull<u8>] {
        // SAFETY: the array's first `count` entries are written.
        unsafe { core::slice::from_raw_parts(self.elements, self.count) }
    }

    /// Where the element is, or where it belongs.
    fn find(&self, element: NonNull<u8>) -> Result<usize, usize> {
        self.slice().binary_search(&element)
    }

    fn is_short(&self) -> bool {
        self.count < self.min
    }

    fn pop(&mut self) -> Option<NonNull<u8>> {
        self.count = self.count.checked_sub(1)?;
        // SAFETY: the entry was written.
        Some(unsafe { self.elements.add(self.count).read() })
    }

    /// Puts an element at its place; there is room for it.
    fn insert(&mut self, place: usize, element: NonNull<u8>) {
        // SAFETY: `place <= count < min`, the array's length.
        unsafe {
            let at = self.elements.add(place);
            at.copy_to(at.add(1), self.count - place);
            at.write(element);
        }
        self.count += 1;
    }

    /// Takes elements over from another reserve, the highest first, as far as there is room.
    fn absorb(&mut self, other: &mut Reserve) {
        let (mut mine, mut theirs) = (self.count, other.count);
        let left = theirs - theirs.min(self.min - self.count);
        let mut to = mine + theirs - left;
        self.count = to;
        // From the end, where there is room: a merge of two sorted runs.
        while theirs > left {
            to -= 1;
            // SAFETY: both indices are below the counts, and `to` below this array's length.
            unsafe {
                let (a, b) = (self.elements.wrapping_add(mine).wrapping_sub(1), other.elements.add(theirs - 1));
                if mine != 0 && a.read() > b.read() {
                    self.elements.add(to).write(a.read());
                    mine -= 1;
                } else {
                    self.elements.add(to).write(b.read());
                    theirs -= 1;
                }
            }
        }
        other.count = left;
    }

    /// Adds an element that is not there; there is room for it.
    fn add(&mut self, element: NonNull<u8>) {
        if let Err(place) = self.find(element) {
            self.insert(place, element);
        }
    }
}
