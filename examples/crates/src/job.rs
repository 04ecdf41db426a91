//! Running one piece of work, and holding the manager to account for it.

use crate::board::{self, ExitCode, MM, say};
use crate::heap;

/// Runs `work` with the manager as Rust's allocator, and ends the program: well when the work did, the manager heard of
/// no wrong free, and as many pages are free and objects live afterwards as before. Says `NOTHING LOST` then.
pub fn run(name: &str, work: impl FnOnce() -> Result<(), &'static str>) -> ! {
    match account(name, work) {
        Ok(()) => board::exit(ExitCode::Pass),
        Err(reason) => {
            say!("FAILED: {}", reason);
            board::exit(ExitCode::Fail)
        }
    }
}

fn account(name: &str, work: impl FnOnce() -> Result<(), &'static str>) -> Result<(), &'static str> {
    let before = MM.holdings().map_err(|_| "the manager's own check found damage")?;
    say!("{} on {}: {} pages free, {} objects live", name, board::NAME, before.free, before.objects);
    let guard = MM.leak_guard().map_err(|_| "the manager's own check found damage")?;
    heap::begin();
    let result = work();
    heap::end();
    result?;
    if let Err(leak) = guard.check() {
        say!("{}", leak);
        return Err("memory was lost");
    }
    if board::bugs() != 0 {
        return Err("something was freed wrongly");
    }
    let after = MM.holdings().map_err(|_| "the manager's own check found damage")?;
    say!("{} pages free, {} objects live, as before", after.free, after.objects);
    say!("NOTHING LOST");
    Ok(())
}

/// How much is in use now, in a line.
pub fn tell(when: &str) {
    let (objects, _) = MM.slabinfo().active();
    say!("{}: {} pages free, {} objects live", when, MM.free_page_count(), objects);
}
