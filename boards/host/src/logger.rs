//! defmt's logger: frames go to standard output, as semihosting boards send them.

use critical_section::RestoreState;
use defmt::{Encoder, Logger};
use std::cell::UnsafeCell;
use std::io::Write;

#[defmt::global_logger]
struct StandardOutput;

/// What a frame being written needs.
struct State {
    encoder: Encoder,
    /// Of the critical section that the frame is written in.
    restore: Option<RestoreState>,
}

struct Shared(UnsafeCell<State>);

// SAFETY: only touched between `acquire` and `release`, inside a critical section.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State { encoder: Encoder::new(), restore: None }));

fn put(bytes: &[u8]) {
    // A closed pipe must not become a panic: whoever closed it does not want the text.
    let _ = std::io::stdout().lock().write_all(bytes);
}

// SAFETY: `acquire` opens a critical section that `release` closes, and defmt writes only between the two. A message
// while one is being written would be of this thread, from a `Format` implementation that logs; it panics.
unsafe impl Logger for StandardOutput {
    fn acquire() {
        // SAFETY: released in `release`, in stack order.
        let restore = unsafe { critical_section::acquire() };
        // SAFETY: inside the critical section; the borrow ends with this function.
        let state = unsafe { &mut *STATE.0.get() };
        assert!(state.restore.is_none(), "a message inside a message");
        state.restore = Some(restore);
        state.encoder.start_frame(put);
    }

    unsafe fn flush() {
        let _ = std::io::stdout().lock().flush();
    }

    unsafe fn release() {
        // SAFETY: between `acquire` and the end of the critical section below.
        let state = unsafe { &mut *STATE.0.get() };
        state.encoder.end_frame(put);
        let restore = state.restore.take();
        // Frames hold no newline that would flush, and the program may end by a signal.
        let _ = std::io::stdout().lock().flush();
        if let Some(restore) = restore {
            // SAFETY: from the `acquire` that this release belongs to.
            unsafe { critical_section::release(restore) };
        }
    }

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: between `acquire` and `release`, by defmt's contract.
        unsafe { (*STATE.0.get()).encoder.write(bytes, put) };
    }
}
