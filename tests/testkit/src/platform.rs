//! An RTOS as tests need it.

use mm_core::{Bug, Context, CriticalSectionLock, Event, Platform, VirtRange};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A platform whose context, task, CPU number, shootdown and time the test sets. Clones are the same platform.
///
/// Time stands still until somebody waits: then the rest of the world runs, which is what
/// [`on_wait`](Self::on_wait) was given, and if nothing in it woke the task it is the deadline.
///
/// Bugs that were reported and not [taken](Self::take_bugs) fail the test when the last clone is dropped.
#[derive(Clone)]
pub struct TestPlatform {
    shared: Arc<Shared>,
}

type Shootdown = Box<dyn Fn(VirtRange) + Send + Sync>;
type World = Box<dyn FnMut() + Send>;
type Trace = Box<dyn Fn(&Event) + Send + Sync>;

struct Shared {
    context: AtomicU8,
    cpu: AtomicUsize,
    bugs: Mutex<Vec<Bug>>,
    shootdown: Mutex<Option<Arc<Shootdown>>>,
    task: AtomicUsize,
    now: Mutex<Duration>,
    world: Mutex<Option<World>>,
    woken: Mutex<Vec<usize>>,
    waits: AtomicUsize,
    trace: Mutex<Option<Arc<Trace>>>,
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
            task: AtomicUsize::new(1),
            now: Mutex::new(Duration::from_secs(100)),
            world: Mutex::new(None),
            woken: Mutex::new(Vec::new()),
            waits: AtomicUsize::new(0),
            trace: Mutex::new(None),
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

    /// Sets what happens while a task waits, each time one does. It may set another task and wait itself.
    pub fn on_wait(&self, world: impl FnMut() + Send + 'static) {
        *lock(&self.shared.world) = Some(Box::new(world));
    }

    /// Sets what becomes of events, with feature `trace-hooks` of mm-core.
    pub fn on_trace(&self, trace: impl Fn(&Event) + Send + Sync + 'static) {
        *lock(&self.shared.trace) = Some(Arc::new(Box::new(trace)));
    }

    /// Nothing happens any more while a task waits.
    pub fn nothing_happens(&self) {
        *lock(&self.shared.world) = None;
    }

    /// Sets the task callers are.
    pub fn set_task(&self, task: usize) {
        self.shared.task.store(task, Ordering::SeqCst);
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        *lock(&self.shared.now) += by;
    }

    /// How often a task waited so far.
    pub fn waits(&self) -> usize {
        self.shared.waits.load(Ordering::SeqCst)
    }

    /// The bugs reported since the last call.
    pub fn take_bugs(&self) -> Vec<Bug> {
        core::mem::take(&mut lock(&self.shared.bugs))
    }
}

impl Platform for TestPlatform {
    type Lock = CriticalSectionLock;
    const CAN_WAIT: bool = true;

    fn context(&self) -> Context {
        CONTEXTS[usize::from(self.shared.context.load(Ordering::SeqCst))]
    }

    fn bug(&self, bug: &Bug) {
        lock(&self.shared.bugs).push(*bug);
    }

    fn now(&self) -> Duration {
        *lock(&self.shared.now)
    }

    fn current(&self) -> usize {
        self.shared.task.load(Ordering::SeqCst)
    }

    fn wait(&self, until: Duration) {
        assert_eq!(self.context(), Context::Task, "only tasks wait");
        self.shared.waits.fetch_add(1, Ordering::SeqCst);
        let me = self.current();
        // Taken out, so that what it does may wait in its turn.
        let world = lock(&self.shared.world).take();
        if let Some(mut world) = world {
            world();
            lock(&self.shared.world).get_or_insert(world);
        }
        self.set_task(me);
        let mut woken = lock(&self.shared.woken);
        match woken.iter().position(|&task| task == me) {
            Some(at) => _ = woken.remove(at),
            None => {
                let mut now = lock(&self.shared.now);
                *now = until.max(*now);
            }
        }
    }

    fn wake(&self, task: usize) {
        let mut woken = lock(&self.shared.woken);
        if !woken.contains(&task) {
            woken.push(task);
        }
    }

    fn trace(&self, event: &Event) {
        let trace = lock(&self.shared.trace).clone();
        if let Some(trace) = trace {
            trace(event);
        }
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
