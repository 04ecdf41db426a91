//! How long interrupts are masked: a lock that measures its own sections.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use rtmm::{Bug, Context, Platform, RawLock, VirtRange};

/// A counter, and where its readings go.
pub trait Tick: Send + Sync + 'static {
    /// The counter's reading; its lower bits are enough.
    fn now() -> u32;
    /// What this counter measured.
    fn spans() -> &'static Spans;
}

/// The sections measured so far. One CPU, one context: a bench.
#[derive(Debug, Default)]
pub struct Spans {
    depth: AtomicU32,
    start: AtomicU32,
    nested: AtomicU32,
    /// What an empty section measures, and what each section inside it adds by being measured.
    empty: AtomicU32,
    inner: AtomicU32,
    longest: AtomicU32,
    sections: AtomicU32,
}

impl Spans {
    /// None yet.
    pub const fn new() -> Self {
        Spans {
            depth: AtomicU32::new(0),
            start: AtomicU32::new(0),
            nested: AtomicU32::new(0),
            empty: AtomicU32::new(0),
            inner: AtomicU32::new(0),
            longest: AtomicU32::new(0),
            sections: AtomicU32::new(0),
        }
    }

    /// Ticks of the longest section since the last call, and how many there were.
    pub fn take(&self) -> (u32, u32) {
        (self.longest.swap(0, Relaxed), self.sections.swap(0, Relaxed))
    }

    fn enter<T: Tick>(&self) {
        let depth = self.depth.load(Relaxed);
        self.depth.store(depth + 1, Relaxed);
        if depth == 0 {
            self.nested.store(0, Relaxed);
            self.start.store(T::now(), Relaxed);
        }
    }

    fn leave<T: Tick>(&self) {
        let depth = self.depth.load(Relaxed) - 1;
        if depth == 0 {
            let ticks = T::now().wrapping_sub(self.start.load(Relaxed));
            let own = self.empty.load(Relaxed) + self.nested.load(Relaxed) * self.inner.load(Relaxed);
            self.longest.store(self.longest.load(Relaxed).max(ticks.saturating_sub(own)), Relaxed);
            self.sections.store(self.sections.load(Relaxed) + 1, Relaxed);
        } else {
            self.nested.store(self.nested.load(Relaxed) + 1, Relaxed);
        }
        self.depth.store(depth, Relaxed);
    }
}

/// A lock that measures from when it is taken until it is opened, sections inside others as part of them.
pub struct Masked<L, T> {
    lock: L,
    tick: PhantomData<fn() -> T>,
}

impl<L: RawLock, T: Tick> Masked<L, T> {
    /// Measures what measuring adds, so that it is taken off from now on.
    pub fn calibrate() {
        let spans = T::spans();
        let section = |work: &dyn Fn()| {
            spans.take();
            let outer = Self::NEW;
            let token = outer.acquire();
            work();
            // SAFETY: the token of this section, which is the last one open.
            unsafe { outer.release(token) };
            spans.take().0
        };
        spans.empty.store(0, Relaxed);
        spans.inner.store(0, Relaxed);
        let empty = section(&|| ());
        let plain = section(&|| {
            let inner = L::NEW;
            let token = inner.acquire();
            // SAFETY: as above.
            unsafe { inner.release(token) };
        });
        let measured = section(&|| {
            let inner = Self::NEW;
            let token = inner.acquire();
            // SAFETY: as above.
            unsafe { inner.release(token) };
        });
        spans.inner.store(measured.saturating_sub(plain), Relaxed);
        spans.empty.store(empty, Relaxed);
    }
}

// SAFETY: it is the inner lock, and what it does beside is done with that lock held.
unsafe impl<L: RawLock, T: Tick> RawLock for Masked<L, T> {
    const NEW: Self = Masked { lock: L::NEW, tick: PhantomData };
    type Token = L::Token;

    fn acquire(&self) -> L::Token {
        let token = self.lock.acquire();
        T::spans().enter::<T>();
        token
    }

    unsafe fn release(&self, token: L::Token) {
        T::spans().leave::<T>();
        // SAFETY: by the caller.
        unsafe { self.lock.release(token) }
    }
}

/// A board's platform with measured locks.
pub struct MaskedPlatform<P: Platform, T> {
    board: &'static P,
    tick: PhantomData<fn() -> T>,
}

impl<P: Platform, T: Tick> MaskedPlatform<P, T> {
    /// The platform of `board`, otherwise.
    pub const fn new(board: &'static P) -> Self {
        MaskedPlatform { board, tick: PhantomData }
    }
}

impl<P: Platform, T: Tick> Platform for MaskedPlatform<P, T> {
    type Lock = Masked<P::Lock, T>;

    fn context(&self) -> Context {
        self.board.context()
    }

    fn bug(&self, bug: &Bug) {
        self.board.bug(bug);
    }

    fn cpu(&self) -> usize {
        self.board.cpu()
    }

    fn flush_remote(&self, range: VirtRange) {
        self.board.flush_remote(range);
    }
}

/// A board's platform as another manager's.
pub struct Borrowed<P: Platform>(pub &'static P);

impl<P: Platform> Platform for Borrowed<P> {
    type Lock = P::Lock;

    #[inline]
    fn context(&self) -> Context {
        self.0.context()
    }

    fn bug(&self, bug: &Bug) {
        self.0.bug(bug);
    }

    #[inline]
    fn cpu(&self) -> usize {
        self.0.cpu()
    }

    #[inline]
    fn flush_remote(&self, range: VirtRange) {
        self.0.flush_remote(range);
    }
}
