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
}

#[cfg(feature = "fault-injection")]
pub use armed::FaultInjector;

#[cfg(feature = "fault-injection")]
mod armed {
    use super::FaultClass;
    use crate::lock::Locked;
    use crate::platform::RawLock;

    struct Plan {
        class: FaultClass,
        /// Steps left before the one that fails; 0 when disarmed.
        left: u64,
        /// `left` after that one failed.
        then: u64,
        /// `then` stays as it is.
        forever: bool,
        hit: bool,
        /// A step failed since this was asked.
        struck: bool,
    }

    /// Fails the k-th step of a class: once, and another one later, or all from there on.
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

        /// No step fails any more.
        pub fn disarm(&self) {
            self.plan.lock().left = 0;
        }

        /// True when the step that was to fail was reached.
        pub fn hit(&self) -> bool {
            self.plan.lock().hit
        }

        /// True when a step was made to fail since the last call.
        pub(crate) fn take_struck(&self) -> bool {
            core::mem::replace(&mut self.plan.lock().struck, false)
        }

        pub(crate) fn strikes(&self, class: FaultClass) -> bool {
            let mut plan = self.plan.lock();
            if plan.left == 0 || (plan.class != FaultClass::Any && plan.class != class) {
                return false;
            }
            plan.left -= 1;
            if plan.left != 0 {
                return false;
            }
            plan.struck = true;
            plan.left = plan.then;
            plan.hit = plan.then == 0 || plan.forever;
            if !plan.forever {
                plan.then = 0;
            }
            true
        }
    }

    impl Plan {
        const fn new(class: FaultClass, left: u64, then: u64, forever: bool) -> Plan {
            Plan { class, left, then, forever, hit: false, struck: false }
        }
    }
}

#[cfg(all(test, feature = "fault-injection"))]
mod tests {
    use super::{FaultClass, FaultInjector};
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
}
