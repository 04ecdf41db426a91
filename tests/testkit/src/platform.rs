//! An RTOS as tests need it.

use mm_core::{Bug, Context, CriticalSectionLock, Platform, VirtRange};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A platform whose context, CPU number and shootdown the test sets. Clones are the same platform.
///
/// Bugs that were reported and not [taken](Self::take_bugs) fail the test when the last clone is dropped.
#[derive(Clone)]
pub struct TestPlatform {
    shared: Arc<Shared>,
}

type Shootdown = Box<dyn Fn(VirtRange) + Send + Sync>;

struct Shared {
    context: AtomicU8,
    cpu: AtomicUsize,
    bugs: Mutex<Vec<Bug>>,
    shootdown: Mutex<Option<Arc<Shootdown>>>,
}

const CONTEXTS: [Context; 3] = [Context::Boot, Context::Task, Context::Atomic];

impl Default for TestPlatform {
    fn default() -> Self {
        Self::new()
    }
}

impl TestPlatform {
    /// A task on CPU 0, with no other CPU.
    pub fn new() -> Self {
        let shared = Shared {
            context: AtomicU8::new(1),
            cpu: AtomicUsize::new(0),
            bugs: Mutex::new(Vec::new()),
            shootdown: Mutex::new(None),
        };
        TestPlatform { shared: Arc::new(shared) }
    }

    /// Sets where callers run from now on.
    pub fn set_context(&self, context: Context) {
        let number = CONTEXTS.iter().position(|&known| known == context).expect("a known context");
        self.shared.context.store(number as u8, Ordering::SeqCst);
    }

    /// Sets the CPU callers run on from now on.
    pub fn set_cpu(&self, cpu: usize) {
        self.shared.cpu.store(cpu, Ordering::SeqCst);
    }

    /// Sets what a shootdown does.
    pub fn on_flush_remote(&self, shootdown: impl Fn(VirtRange) + Send + Sync + 'static) {
        *lock(&self.shared.shootdown) = Some(Arc::new(Box::new(shootdown)));
    }

    /// The bugs reported since the last call.
    pub fn take_bugs(&self) -> Vec<Bug> {
        core::mem::take(&mut lock(&self.shared.bugs))
    }
}

impl Platform for TestPlatform {
    type Lock = CriticalSectionLock;

    fn context(&self) -> Context {
        CONTEXTS[usize::from(self.shared.context.load(Ordering::SeqCst))]
    }

    fn bug(&self, bug: &Bug) {
        lock(&self.shared.bugs).push(*bug);
    }

    fn cpu(&self) -> usize {
        self.shared.cpu.load(Ordering::SeqCst)
    }

    fn flush_remote(&self, range: VirtRange) {
        let shootdown = lock(&self.shared.shootdown).clone();
        if let Some(shootdown) = shootdown {
            shootdown(range);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let bugs = self.bugs.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !bugs.is_empty() && !std::thread::panicking() {
            panic!("bugs that no test took: {bugs:?}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "bugs that no test took")]
    fn a_bug_that_is_not_taken_fails_the_test() {
        let platform = TestPlatform::new();
        platform.clone().bug(&Bug::CacheBusy { objects: 1 });
    }

    #[test]
    fn a_bug_that_is_taken_was_expected() {
        let platform = TestPlatform::new();
        platform.bug(&Bug::CacheBusy { objects: 2 });
        assert!(matches!(platform.take_bugs()[..], [Bug::CacheBusy { objects: 2 }]));
    }

    #[test]
    fn context_and_cpu_are_what_was_set() {
        let platform = TestPlatform::new();
        for context in CONTEXTS {
            platform.set_context(context);
            assert_eq!(platform.context(), context);
        }
        platform.set_cpu(3);
        assert_eq!(platform.cpu(), 3);
    }
}
