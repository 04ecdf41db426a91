//! `LeakGuard`: nothing was lost between two points of a program.

use crate::backend::Backend;
use crate::check::{CheckReport, Damage};
use crate::manager::Mm;
use crate::platform::Platform;
use core::fmt;

/// What callers hold of a manager, in numbers; what its caches keep is not in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Holdings {
    /// Free pages.
    pub free: usize,
    /// Live objects of kmalloc's classes.
    pub objects: usize,
    /// Live objects of caches.
    pub cached: usize,
    /// What the scan counted.
    pub report: CheckReport,
    /// Which calls hold it, for the report of what was lost.
    #[cfg(feature = "page-owner")]
    #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
    pub sites: super::Sites<32>,
}

impl Holdings {
    /// As much is held, whoever holds it.
    fn is_as(&self, before: &Holdings) -> bool {
        let counts = |held: &Holdings| (held.free, held.objects, held.cached, held.report);
        counts(self) == counts(before)
    }
}

/// Why a [`LeakGuard`] is not content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[allow(clippy::large_enum_variant, reason = "a test prints it; what it held before must not need memory")]
pub enum Leak {
    /// Something is held that was not, or is not that was.
    Lost {
        /// What was held before.
        before: Holdings,
        /// What is held now.
        now: Holdings,
    },
    /// The manager's own data contradicts itself.
    Damage(Damage),
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, now) = match self {
            Leak::Damage(damage) => return damage.fmt(f),
            Leak::Lost { before, now } => (before, now),
        };
        f.write_str("something was lost")?;
        let counts = [
            ("free pages", before.free, now.free),
            ("objects of kmalloc", before.objects, now.objects),
            ("objects of caches", before.cached, now.cached),
            ("blocks of pages", before.report.blocks, now.report.blocks),
            ("slabs", before.report.slabs, now.report.slabs),
            ("areas", before.report.areas, now.report.areas),
            ("page tables", before.report.tables, now.report.tables),
        ];
        counts
            .iter()
            .filter(|(_, before, now)| before != now)
            .try_for_each(|(what, before, now)| write!(f, "; {what}: {before} before, {now} now"))?;
        #[cfg(feature = "page-owner")]
        for (before, now) in now.sites.changed(&before.sites) {
            let (count, bytes) = (now.count, now.bytes);
            write!(
                f,
                "; {now}: {} times {} bytes before, {count} times {bytes} bytes now",
                before.count, before.bytes
            )?;
        }
        Ok(())
    }
}

impl core::error::Error for Leak {}

/// Remembers what is held, so that a test can ask whether it is the same again.
///
/// ```
/// use mm_core::{GFP_KERNEL, Manager};
///
/// fn test_of_a_driver(mm: impl Manager) {
///     let guard = mm.mm().leak_guard().expect("the manager is sound");
///     let object = mm.mm().kmalloc(100, GFP_KERNEL);
///     if let Ok(object) = object {
///         assert!(guard.check().is_err());
///         let _ = mm.mm().kfree(object.as_ptr());
///     }
///     assert_eq!(guard.check(), Ok(()));
/// }
/// ```
#[must_use = "it is `check` that tells"]
pub struct LeakGuard<'a, P: Platform, B: Backend> {
    mm: &'a Mm<P, B>,
    before: Holdings,
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// What callers hold now. Drains the caches and scans everything, so it is for tests: not bounded.
    ///
    /// # Errors
    /// The [`Damage`] the scan finds.
    pub fn holdings(&self) -> Result<Holdings, Damage> {
        self.drain();
        let report = self.check()?;
        let (objects, cached) = self.slabinfo().active();
        #[cfg(feature = "page-owner")]
        let sites = self.allocations().by_site();
        Ok(Holdings {
            free: self.free_page_count(),
            objects,
            cached,
            report,
            #[cfg(feature = "page-owner")]
            sites,
        })
    }

    /// Remembers what is held now.
    ///
    /// Context: task, with nothing else using the manager. Cost: as [`check`](Self::check).
    ///
    /// # Errors
    /// The [`Damage`] the scan finds.
    pub fn leak_guard(&self) -> Result<LeakGuard<'_, P, B>, Damage> {
        Ok(LeakGuard { mm: self, before: self.holdings()? })
    }
}

impl<P: Platform, B: Backend> LeakGuard<'_, P, B> {
    /// Whether as much is held as when the guard was made, and the manager is sound.
    ///
    /// Context and cost: as [`Mm::leak_guard`].
    ///
    /// # Errors
    /// [`Leak`].
    #[allow(clippy::result_large_err, reason = "a test prints it; what it held before must not need memory")]
    pub fn check(&self) -> Result<(), Leak> {
        let now = self.mm.holdings().map_err(Leak::Damage)?;
        if now.is_as(&self.before) { Ok(()) } else { Err(Leak::Lost { before: self.before, now }) }
    }
}
