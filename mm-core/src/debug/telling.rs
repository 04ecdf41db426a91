//! Telling events: outside every lock, and never from inside a hook.

use super::event::Event;
use crate::backend::Backend;
use crate::lock::Locked;
use crate::manager::Mm;
use crate::platform::{Platform, RawLock};

/// How many contexts can be inside the hook at the same time.
const MOST: usize = 8;

/// Who is inside the hook, and what was not told for that.
pub struct Telling<L: RawLock>(Locked<L, Inside>);

struct Inside {
    contexts: heapless::Vec<usize, MOST>,
    missed: Missed,
}

/// A count that stops at its largest number.
#[derive(Clone, Copy)]
struct Missed(u64);

impl Missed {
    fn step(&mut self) {
        self.0 = self.0.saturating_add(1);
    }
}

impl<L: RawLock> Telling<L> {
    pub const fn new() -> Self {
        Telling(Locked::new(Inside { contexts: heapless::Vec::new(), missed: Missed(0) }))
    }

    /// Makes the context one that is inside, unless it is already or there are too many: that is counted.
    fn enter(&self, context: usize) -> Option<Entered<'_, L>> {
        let mut inside = self.0.lock();
        if inside.contexts.contains(&context) || inside.contexts.push(context).is_err() {
            inside.missed.step();
            return None;
        }
        Some(Entered { telling: self, context })
    }
}

/// A context that is inside the hook until this is dropped, also by unwinding.
struct Entered<'a, L: RawLock> {
    telling: &'a Telling<L>,
    context: usize,
}

impl<L: RawLock> Drop for Entered<'_, L> {
    fn drop(&mut self) {
        let mut inside = self.telling.0.lock();
        if let Some(at) = inside.contexts.iter().position(|&context| context == self.context) {
            inside.contexts.swap_remove(at);
        }
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Tells an event. No lock is held.
    #[cold]
    #[inline(never)]
    pub(super) fn tell(&self, event: &Event) {
        // Tasks are told apart where they can wait; elsewhere only CPUs are.
        let context = if P::CAN_WAIT { self.platform().current() } else { self.platform().cpu() };
        if let Some(_entered) = self.telling.enter(context) {
            self.platform().trace(event);
        }
    }

    /// How many events were not told to [`Platform::trace`], since they were of calls made from inside it, or of
    /// interrupts that came meanwhile. Stops at the largest number.
    ///
    /// Context: any. Cost: one lock.
    pub fn events_missed(&self) -> u64 {
        self.telling.0.lock().missed.0
    }
}

#[cfg(test)]
mod tests {
    use super::Missed;

    #[test]
    fn a_count_of_events_stops_at_its_edge() {
        let mut count = Missed(u64::from(u32::MAX));
        count.step();
        assert_eq!(count.0, 1 << 32, "2^32 operations are no edge");
        count = Missed(u64::MAX - 1);
        count.step();
        count.step();
        count.step();
        assert_eq!(count.0, u64::MAX);
    }
}
