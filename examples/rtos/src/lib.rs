//! What the programs of this folder share: the board, and the end of a run.
#![no_std]

pub use rtmm_examples::board;

use board::{ExitCode, MM, say};
use rtmm::LeakGuard;

/// Ends the program: well when as much is held as the guard remembers and the manager heard of no mistake. Says
/// `NOTHING LOST` then.
pub fn finish(guard: &LeakGuard<'_, board::BoardPlatform, board::Backend>, result: Result<(), &str>) -> ! {
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
    say!("{} pages free, {} objects live, as before", MM.free_page_count(), MM.slabinfo().active().0);
    say!("NOTHING LOST");
    board::exit(ExitCode::Pass)
}
