//! A platform whose hooks are a C kernel's callbacks.
//!
//! There is one set of callbacks in a program, since a lock has no room to say whose it is: `rtmm_init` stores it
//! once, before the manager is touched.

use crate::EEXIST;
use crate::bug::{RTMM_BUG_PANIC, rtmm_bug};
use crate::config::{RTMM_CONTEXT_BOOT, RTMM_CONTEXT_TASK, Setup};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use mm_core::{Backend, Bug, Config, Context, Mm, Platform, RawLock, VirtRange};

/// The callbacks of a judged configuration.
#[derive(Clone, Copy)]
pub struct Callbacks {
    pub(crate) arg: *mut c_void,
    pub(crate) lock: unsafe extern "C" fn(*mut c_void, *mut usize) -> usize,
    pub(crate) unlock: unsafe extern "C" fn(*mut c_void, *mut usize, usize),
    pub(crate) context: unsafe extern "C" fn(*mut c_void) -> u32,
    pub(crate) bug: unsafe extern "C" fn(*mut c_void, *const rtmm_bug),
    pub(crate) cpu: Option<unsafe extern "C" fn(*mut c_void) -> u32>,
    pub(crate) flush_remote: Option<unsafe extern "C" fn(*mut c_void, usize, usize)>,
    pub(crate) waiting: Option<Waiting>,
}

/// The callbacks of a kernel whose tasks can sleep.
#[derive(Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) now: unsafe extern "C" fn(*mut c_void) -> u64,
    pub(crate) current: unsafe extern "C" fn(*mut c_void) -> usize,
    pub(crate) wait: unsafe extern "C" fn(*mut c_void, u64),
    pub(crate) wake: unsafe extern "C" fn(*mut c_void, usize),
}

struct Slot {
    set: AtomicBool,
    callbacks: UnsafeCell<MaybeUninit<Callbacks>>,
}

// SAFETY: the callbacks are written once, before `set` is, and only read after; what `arg` leads to is the kernel's.
unsafe impl Sync for Slot {}

static SLOT: Slot = Slot { set: AtomicBool::new(false), callbacks: UnsafeCell::new(MaybeUninit::uninit()) };

/// The callbacks, once `rtmm_init` has them.
#[inline(always)]
fn callbacks() -> Option<&'static Callbacks> {
    if !SLOT.set.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: written before `set` was, and never after.
    Some(unsafe { (*SLOT.callbacks.get()).assume_init_ref() })
}

impl Callbacks {
    /// Stores them, unless some are stored. Two contexts that try at once are kept apart by the lock they bring.
    fn install(self) -> Result<(), i32> {
        static WORD: CallbackLock = CallbackLock::NEW;
        // SAFETY: the kernel vouches for its callbacks by handing them over; the word is no other lock's.
        let state = unsafe { (self.lock)(self.arg, WORD.word.get()) };
        let first = !SLOT.set.load(Ordering::Relaxed);
        if first {
            // SAFETY: nobody reads before `set`, and the lock keeps other writers out.
            unsafe { (*SLOT.callbacks.get()).write(self) };
            SLOT.set.store(true, Ordering::Release);
        }
        // SAFETY: the matching call of the one above.
        unsafe { (self.unlock)(self.arg, WORD.word.get(), state) };
        if first { Ok(()) } else { Err(EEXIST) }
    }
}

/// A lock made by the callbacks `lock` and `unlock`. Open to all before `rtmm_init`, when there is nothing to guard.
pub struct CallbackLock {
    word: UnsafeCell<usize>,
}

// SAFETY: the word is the callbacks' alone.
unsafe impl Send for CallbackLock {}
// SAFETY: as above.
unsafe impl Sync for CallbackLock {}

// SAFETY: the kernel promises mutual exclusion, and restoring in stack order, of its callbacks (`struct rtmm_config`).
unsafe impl RawLock for CallbackLock {
    const NEW: Self = CallbackLock { word: UnsafeCell::new(0) };
    type Token = usize;

    #[inline]
    fn acquire(&self) -> usize {
        match callbacks() {
            // SAFETY: as the kernel promised; the word lives as long as the lock.
            Some(hooks) => unsafe { (hooks.lock)(hooks.arg, self.word.get()) },
            None => 0,
        }
    }

    #[inline]
    unsafe fn release(&self, token: usize) {
        if let Some(hooks) = callbacks() {
            // SAFETY: the token is what the matching `lock` gave, by the caller.
            unsafe { (hooks.unlock)(hooks.arg, self.word.get(), token) }
        }
    }
}

/// The platform of a kernel in C.
#[derive(Clone, Copy, Debug)]
pub struct CallbackPlatform;

impl Platform for CallbackPlatform {
    type Lock = CallbackLock;

    const CAN_WAIT: bool = true;

    #[inline]
    fn context(&self) -> Context {
        let Some(hooks) = callbacks() else { return Context::Boot };
        // SAFETY: as the kernel promised.
        match unsafe { (hooks.context)(hooks.arg) } {
            RTMM_CONTEXT_BOOT => Context::Boot,
            // Without the callbacks a task is as one at start-up: it does not wait, and that is no mistake of its own.
            RTMM_CONTEXT_TASK if hooks.waiting.is_none() => Context::Boot,
            RTMM_CONTEXT_TASK => Context::Task,
            // What is not known to be a task must not wait.
            _ => Context::Atomic,
        }
    }

    fn now(&self) -> Duration {
        // SAFETY: as the kernel promised.
        waiting().map_or(Duration::ZERO, |(arg, hooks)| Duration::from_nanos(unsafe { (hooks.now)(arg) }))
    }

    fn current(&self) -> usize {
        // SAFETY: as the kernel promised.
        waiting().map_or(0, |(arg, hooks)| unsafe { (hooks.current)(arg) })
    }

    fn wait(&self, until: Duration) {
        if let Some((arg, hooks)) = waiting() {
            // SAFETY: as the kernel promised.
            unsafe { (hooks.wait)(arg, u64::try_from(until.as_nanos()).unwrap_or(u64::MAX)) }
        }
    }

    fn wake(&self, task: usize) {
        if let Some((arg, hooks)) = waiting() {
            // SAFETY: as the kernel promised.
            unsafe { (hooks.wake)(arg, task) }
        }
    }

    fn bug(&self, bug: &Bug) {
        tell(&rtmm_bug::from(bug));
    }

    #[inline]
    fn cpu(&self) -> usize {
        match callbacks() {
            // SAFETY: as the kernel promised.
            Some(Callbacks { cpu: Some(cpu), arg, .. }) => unsafe { cpu(*arg) as usize },
            _ => 0,
        }
    }

    #[inline]
    fn flush_remote(&self, range: VirtRange) {
        if let Some(Callbacks { flush_remote: Some(flush), arg, .. }) = callbacks() {
            // SAFETY: as the kernel promised.
            unsafe { flush(*arg, range.start, range.end) }
        }
    }
}

/// The callbacks of waiting, when there are any.
fn waiting() -> Option<(*mut c_void, &'static Waiting)> {
    let hooks = callbacks()?;
    hooks.waiting.as_ref().map(|waiting| (hooks.arg, waiting))
}

fn tell(bug: &rtmm_bug) {
    if let Some(hooks) = callbacks() {
        // SAFETY: as the kernel promised; the report outlives the call.
        unsafe { (hooks.bug)(hooks.arg, bug) }
    }
}

/// Tells the kernel of a panic in the library. For its panic handler.
pub fn tell_of_panic() {
    tell(&rtmm_bug::new(RTMM_BUG_PANIC, 0, 0, c"a panic in the memory manager"));
}

/// Stores the callbacks and hands the RAM over.
///
/// # Errors
/// A negative errno value; see `rtmm_init`.
///
/// # Safety
/// The callbacks do what `struct rtmm_config` asks of them, and the RAM is as [`Mm::init`] asks.
pub unsafe fn bring_up<B: Backend>(mm: &Mm<CallbackPlatform, B>, mut setup: Setup) -> Result<(), i32> {
    setup.callbacks.install()?;
    // SAFETY: by the caller.
    unsafe { setup.hand_over(mm) }
}

impl Setup {
    /// Hands the RAM over to a manager of any platform.
    ///
    /// # Errors
    /// As [`Mm::init`], as a negative errno value.
    ///
    /// # Safety
    /// As [`Mm::init`].
    pub unsafe fn hand_over<P: Platform, B: Backend>(&mut self, mm: &Mm<P, B>) -> Result<(), i32> {
        let mut config = Config::new(&self.zones, self.window);
        config.tuning = self.tuning;
        // SAFETY: by the caller.
        unsafe { mm.init(&mut self.ram, &config) }.map_err(|error| -error.errno())
    }
}
