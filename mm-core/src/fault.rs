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
        hit: bool,
    }

    /// Fails the k-th step of a class, once.
    ///
    /// Context: any. Cost: one lock and a few instructions a step, only in builds with the feature.
    pub struct FaultInjector<L: RawLock> {
        plan: Locked<L, Plan>,
    }

    impl<L: RawLock> FaultInjector<L> {
        pub(crate) const fn new() -> Self {
            FaultInjector { plan: Locked::new(Plan { class: FaultClass::Any, left: 0, hit: false }) }
        }

        /// The `k`-th step of `class` from now on fails, counting from 1; later ones succeed again.
        pub fn fail_nth(&self, class: FaultClass, k: u64) {
            *self.plan.lock() = Plan { class, left: k, hit: false };
        }

        /// No step fails any more.
        pub fn disarm(&self) {
            self.plan.lock().left = 0;
        }

        /// True when the step that was to fail was reached.
        pub fn hit(&self) -> bool {
            self.plan.lock().hit
        }

        pub(crate) fn strikes(&self, class: FaultClass) -> bool {
            let mut plan = self.plan.lock();
            if plan.left == 0 || (plan.class != FaultClass::Any && plan.class != class) {
                return false;
            }
            plan.left -= 1;
            plan.hit = plan.left == 0;
            plan.hit
        }
    }
}
