//! The log of what the manager reported through `Platform::bug`.

use rtmm::Bug;
use std::sync::{Mutex, PoisonError};

static LOG: Mutex<(usize, Option<Bug>)> = Mutex::new((0, None));

/// Counts the report, keeps it as the last one, and prints it.
pub(crate) fn record_bug(bug: &Bug) {
    {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        *log = (log.0 + 1, Some(*bug));
    }
    crate::say!("BUG: {bug}");
}

/// How many reports there were.
pub fn bugs() -> usize {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).0
}

/// The last report.
pub fn last_bug() -> Option<Bug> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).1
}
