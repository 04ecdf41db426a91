//! Fault injection: make a fallible step fail on demand.
//!
//! Every step that can fail passes one fault point first. Without feature `fault-injection` they compile to nothing.

/// Which steps a test wants to see fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FaultClass {
    /// Any of the others.
    Any,
    /// Making a new slab.
    Slab,
    /// Taking pages.
    Page,
    /// Taking a page for a page table.
    Table,
    /// Taking room in the vmalloc address space.
    AddressSpace,
    /// Taking a descriptor: of a slab, an area, a cache.
    Descriptor,
    /// Taking a region of an MPU or PMP, without an MMU.
    Guard,
}

#[cfg(feature = "fault-injection")]
pub use armed::{FaultAttr, FaultInjector};

#[cfg(feature = "fault-injection")]
mod armed {
    use super::FaultClass;
    use crate::lock::Locked;
    use crate::platform::RawLock;

    /// How steps fail by chance, as Linux's `fault_attr`.
    ///
    /// ```
    /// use mm_core::{FaultAttr, FaultClass, Manager};
    ///
    /// fn weather(mm: impl Manager) {
    ///     // One page request in ten fails, the same ones for the same seed.
    ///     mm.mm().faults().fail_by_chance(FaultClass::Page, FaultAttr { probability: 10, ..FaultAttr::new(42) });
    /// }
    /// ```
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct FaultAttr {
        /// How likely a step that may fail does, in percent; 100 and more is always.
        pub probability: u8,
        /// Only every `interval`-th step may fail; 0 is as 1.
        pub interval: u32,
        /// How many steps fail before no more do; `None` for no end.
        pub times: Option<u32>,
        /// Where the row of chances begins: the same seed repeats it.
        pub seed: u64,
    }

    impl FaultAttr {
        /// Every step fails.
        pub const fn new(seed: u64) -> FaultAttr {
            FaultAttr { probability: 100, interval: 1, times: None, seed }
        }
    }

    /// What is to fail.
    enum Mode {
        Counted {
            /// Steps left before the one that fails; 0 when disarmed.
            left: u64,
            /// `left` after that one failed.
            then: u64,
            /// `then` stays as it is.
            forever: bool,
        },
        Chance {
            attr: FaultAttr,
            /// Steps until one may fail again.
            wait: u32,
        },
    }

    struct Plan {
        class: FaultClass,
        mode: Mode,
        hit: bool,
        /// How many steps failed.
        failed: u64,
        /// A step failed since this was asked.
        struck: bool,
    }

    /// Fails the k-th step of a class: once, and another one later, or all from there on; or steps by chance.
    ///
    /// Context: any. Cost: one lock and a few instructions a step, only in builds with the feature.
    pub struct FaultInjector<L: RawLock> {
        plan: Locked<L, Plan>,
    }

    impl<L: RawLock> FaultInjector<L> {
        pub(crate) const fn new() -> Self {
            FaultInjector { plan: Locked::new(Plan::new(FaultClass::Any, 0, 0, false)) }
        }

        /// The `k`-th step of `class` from now on fails, counting from 1; later ones succeed again.
        pub fn fail_nth(&self, class: FaultClass, k: u64) {
            *self.plan.lock() = Plan::new(class, k, 0, false);
        }

        /// As [`fail_nth`](Self::fail_nth), and the `l`-th step after that one fails too.
        ///
        /// [`hit`](Self::hit) tells of the second.
        pub fn fail_pair(&self, class: FaultClass, k: u64, l: u64) {
            *self.plan.lock() = Plan::new(class, k, l, false);
        }

        /// As [`fail_nth`](Self::fail_nth), and so does every step after it: the resource is used up.
        pub fn fail_from(&self, class: FaultClass, k: u64) {
            *self.plan.lock() = Plan::new(class, k, 1, true);
        }

        /// Steps of `class` fail by chance from now on. [`hit`](Self::hit) tells when the first did.
        pub fn fail_by_chance(&self, class: FaultClass, attr: FaultAttr) {
            let mode = Mode::Chance { attr, wait: attr.interval.saturating_sub(1) };
            *self.plan.lock() = Plan { class, mode, hit: false, failed: 0, struck: false };
        }

        /// No step fails any more.
        pub fn disarm(&self) {
            self.plan.lock().mode = Mode::Counted { left: 0, then: 0, forever: false };
        }

        /// True when the step that was to fail was reached.
        pub fn hit(&self) -> bool {
            self.plan.lock().hit
        }

        /// How many steps failed since the last call that armed it.
        pub fn failed(&self) -> u64 {
            self.plan.lock().failed
        }

        /// True when a step was made to fail since the last call.
        pub(crate) fn take_struck(&self) -> bool {
            core::mem::replace(&mut self.plan.lock().struck, false)
        }

        pub(crate) fn strikes(&self, class: FaultClass) -> bool {
            let mut plan = self.plan.lock();
            if plan.class != FaultClass::Any && plan.class != class {
                return false;
            }
            let hit = match &mut plan.mode {
                Mode::Counted { left: 0, .. } => return false,
                Mode::Counted { left, then, forever } => {
                    *left -= 1;
                    if *left != 0 {
                        return false;
                    }
                    *left = *then;
                    let hit = *then == 0 || *forever;
                    if !*forever {
                        *then = 0;
                    }
                    hit
                }
                Mode::Chance { attr, wait } => {
                    if *wait != 0 {
                        *wait -= 1;
                        return false;
                    }
                    *wait = attr.interval.saturating_sub(1);
                    if attr.times == Some(0) || next(&mut attr.seed) % 100 >= u64::from(attr.probability) {
                        return false;
                    }
                    attr.times = attr.times.map(|times| times - 1);
                    true
                }
            };
            plan.hit = hit;
            plan.failed = plan.failed.saturating_add(1);
            plan.struck = true;
            true
        }
    }

    /// The next number of a row (SplitMix64: G. Steele et al., "Fast splittable pseudorandom number generators", 2014).
    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *seed;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    impl Plan {
        const fn new(class: FaultClass, left: u64, then: u64, forever: bool) -> Plan {
            Plan { class, mode: Mode::Counted { left, then, forever }, hit: false, failed: 0, struck: false }
        }
    }
}

#[cfg(all(test, feature = "fault-injection"))]
mod tests {
    use super::{FaultAttr, FaultClass, FaultInjector};
    use crate::lock::CriticalSectionLock;
    use std::vec::Vec;

    fn strikes(faults: &FaultInjector<CriticalSectionLock>, steps: usize) -> Vec<bool> {
        (0..steps).map(|_| faults.strikes(FaultClass::Page)).collect()
    }

    #[test]
    fn steps_fail_as_planned() {
        let faults = FaultInjector::new();
        assert_eq!(strikes(&faults, 2), [false, false]);
        faults.fail_nth(FaultClass::Page, 2);
        assert_eq!((strikes(&faults, 1), faults.hit()), ([false].into(), false));
        assert_eq!((strikes(&faults, 3), faults.hit()), ([true, false, false].into(), true));
        faults.fail_pair(FaultClass::Any, 1, 2);
        assert_eq!((strikes(&faults, 2), faults.hit()), ([true, false].into(), false));
        assert_eq!((strikes(&faults, 2), faults.hit()), ([true, false].into(), true));
        faults.fail_from(FaultClass::Page, 2);
        assert_eq!((strikes(&faults, 3), faults.hit()), ([false, true, true].into(), true));
        faults.disarm();
        faults.fail_nth(FaultClass::Table, 1);
        assert_eq!((strikes(&faults, 2), faults.hit()), ([false, false].into(), false));
    }

    #[test]
    fn chance_repeats_with_the_seed_and_keeps_to_its_limits() {
        let faults = FaultInjector::new();
        let row = |attr: FaultAttr| {
            faults.fail_by_chance(FaultClass::Page, attr);
            let row = strikes(&faults, 2000);
            assert_eq!(faults.failed(), row.iter().filter(|strike| **strike).count() as u64);
            assert_eq!(faults.hit(), row.contains(&true));
            row
        };
        let count = |row: &[bool]| row.iter().filter(|strike| **strike).count();
        let tenth = FaultAttr { probability: 10, ..FaultAttr::new(7) };
        let first = row(tenth);
        assert!((140..260).contains(&count(&first)), "{} of 2000", count(&first));
        assert_eq!(row(tenth), first);
        assert_ne!(row(FaultAttr { seed: 8, ..tenth }), first);
        assert_eq!(count(&row(FaultAttr { probability: 0, ..tenth })), 0);
        assert_eq!(count(&row(FaultAttr { times: Some(3), ..tenth })), 3);
        assert_eq!(count(&row(FaultAttr { times: Some(0), ..tenth })), 0);
        for probability in [100, 255] {
            let each_fifth = row(FaultAttr { probability, interval: 5, ..FaultAttr::new(1) });
            assert!(each_fifth.iter().enumerate().all(|(i, strike)| *strike == (i % 5 == 4)));
        }
        assert_eq!(count(&row(FaultAttr { interval: 0, ..FaultAttr::new(1) })), 2000);
        faults.fail_by_chance(FaultClass::Table, FaultAttr::new(1));
        assert_eq!(count(&strikes(&faults, 10)), 0, "another class");
        faults.disarm();
        faults.fail_by_chance(FaultClass::Any, FaultAttr { times: Some(1), ..FaultAttr::new(1) });
        assert_eq!(strikes(&faults, 3), [true, false, false]);
    }
}
