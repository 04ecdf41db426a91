//! What the programs of this folder share: the board, and the end of a run.
#![no_std]

#[cfg(feature = "board-qemu-x86_64")]
pub mod scheduler;

pub use rtmm_examples::board;

use board::{ExitCode, say};
use rtmm::{Backend, LeakGuard, Mm, Platform};

/// Ends the program: well when as much is held as the guard remembers and the board heard of no mistake. Says
/// `NOTHING LOST` then.
pub fn finish<P: Platform, B: Backend>(mm: &Mm<P, B>, guard: &LeakGuard<'_, P, B>, result: Result<(), &str>) -> ! {
    let fail = |reason: &str| {
        say!("FAILED: {}", reason);
        board::exit(ExitCode::Fail)
    };
    if let Err(reason) = result {
        fail(reason);
    }
    if let Err(leak) = guard.check() {
        say!("{}", leak);
        fail("memory was lost");
    }
    if board::bugs() != 0 {
        fail("the manager heard of a mistake");
    }
    say!("{} pages free, {} objects live, as before", mm.free_page_count(), mm.slabinfo().active().0);
    say!("NOTHING LOST");
    board::exit(ExitCode::Pass)
}
