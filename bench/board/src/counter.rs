//! The board's instruction counter as a meter of single calls.

use crate::board;
use bench_subject::{Call, Meter, nothing};
use rtmm_examples::measure::Calibration;

/// Reads the counter before and after each call, and takes off what an empty call shows.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    calibration: Calibration,
    empty: u32,
    /// Counted calls that are left, for allocators that are slow.
    left: u64,
}

impl Counter {
    /// Compares the counter with a loop of known length; `None` when the board has none that repeats.
    pub fn new() -> Option<Counter> {
        let mut counter = Counter { calibration: Calibration::measure()?, empty: 0, left: u64::MAX };
        let mut least = u32::MAX;
        for _ in 0..9 {
            // SAFETY: it does nothing.
            least = least.min(unsafe { counter.measure(nothing::<u8>, core::ptr::null_mut(), [0; 3]).1 });
        }
        counter.empty = least;
        Some(counter)
    }

    /// Its calibration.
    pub fn calibration(&self) -> Calibration {
        self.calibration
    }

    /// A copy that has enough after `instructions` were spent in measured calls.
    pub fn at_most(self, instructions: u64) -> Counter {
        Counter { left: instructions, ..self }
    }

    /// What `work` takes beyond an empty call.
    pub fn cost<R>(&mut self, mut work: impl FnMut() -> R) -> (R, u32) {
        let mut result = None;
        let mut run = || result = Some(work());
        // SAFETY: the pointer is that of the closure, which lives during the call.
        let (_, cost) = unsafe { self.measure(invoke, core::ptr::from_mut(&mut run), [0; 3]) };
        match result {
            Some(result) => (result, cost),
            None => unreachable!("the closure was called"),
        }
    }
}

/// Calls a closure through the one call.
///
/// # Safety
/// `work` is valid and nobody else's during the call.
#[inline(never)]
unsafe extern "C" fn invoke<F: FnMut()>(work: *mut F, _: usize, _: usize, _: usize) -> usize {
    // SAFETY: by the caller.
    unsafe { (*work)() };
    0
}

/// The counter's lower bits.
pub fn ticks() -> u32 {
    board::instructions() as u32
}

impl Meter for Counter {
    #[inline(always)]
    unsafe fn measure<T>(&mut self, call: Call<T>, subject: *mut T, numbers: [usize; 3]) -> (usize, u32) {
        let call = core::hint::black_box(call);
        let start = board::instructions();
        // SAFETY: by the caller.
        let result = unsafe { call(subject, numbers[0], numbers[1], numbers[2]) };
        let ticks = board::instructions().wrapping_sub(start);
        let cost = (self.calibration.instructions(ticks) as u32).saturating_sub(self.empty);
        self.left = self.left.saturating_sub(u64::from(cost));
        (result, cost)
    }

    fn enough(&self) -> bool {
        self.left == 0
    }
}
