//! The log of what the manager reported through `Platform::bug`.

use core::cell::Cell;
use critical_section::Mutex;
use rtmm::Bug;

static LOG: Mutex<Cell<(usize, Option<Bug>)>> = Mutex::new(Cell::new((0, None)));

/// Counts the report, keeps it as the last one, and prints it.
pub fn record_bug(bug: &Bug) {
    critical_section::with(|section| {
        let log = LOG.borrow(section);
        let (count, _) = log.get();
        log.set((count + 1, Some(*bug)));
    });
    crate::say!("BUG: {bug}");
}

/// How many reports there were.
pub fn bugs() -> usize {
    critical_section::with(|section| LOG.borrow(section).get().0)
}

/// The last report.
pub fn last_bug() -> Option<Bug> {
    critical_section::with(|section| LOG.borrow(section).get().1)
}
