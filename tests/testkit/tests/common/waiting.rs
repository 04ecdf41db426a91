//! What tests of waiting share: memory that is used up, and futures that are polled by hand.

use super::nommu;
use backend_nommu::Arena;
use mm_core::*;
use rtmm_testkit::rig::Rig;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::Duration;

pub type TestRig = &'static Rig<Arena>;

/// A rig that lives as long as the test, so that what happens while a task waits can use it.
pub fn rig() -> TestRig {
    Box::leak(Box::new(nommu()))
}

/// Pages in a test's hands; by address, so that threads of control can share them.
pub type Taken = Arc<Mutex<Vec<usize>>>;

/// Takes single pages until ordinary requests get none.
pub fn use_up<P: Platform, B: Backend>(mm: &Mm<P, B>) -> Taken {
    mm.drain();
    let flags = GFP_NOWAIT | Gfp::NOWARN;
    Arc::new(Mutex::new(std::iter::from_fn(|| mm.get_free_page(flags).ok()).map(|p| p.addr().get()).collect()))
}

pub fn free<P: Platform, B: Backend>(mm: &Mm<P, B>, at: usize) {
    mm.free_page(std::ptr::without_provenance(at)).unwrap();
}

pub fn free_one<P: Platform, B: Backend>(mm: &Mm<P, B>, taken: &Taken) -> Option<usize> {
    let at = taken.lock().unwrap().pop()?;
    free(mm, at);
    Some(at)
}

/// Gives all back and asserts that nothing is lost.
pub fn end<B: Backend>(rig: &Rig<B>, taken: &Taken, before: usize) {
    rig.platform.nothing_happens();
    while free_one(&rig.mm, taken).is_some() {}
    rig.mm.drain();
    rig.mm.check().unwrap();
    assert_eq!(rig.mm.free_page_count(), before);
    assert!(rig.platform.take_bugs().is_empty());
}

/// Counts how often it was woken.
#[derive(Default)]
pub struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    pub fn rung(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

pub fn poll<F: Future>(future: Pin<&mut F>, bell: &Arc<Bell>) -> Poll<F::Output> {
    future.poll(&mut Task::from_waker(&Waker::from(bell.clone())))
}

pub const SOON: Duration = Duration::from_millis(10);

pub fn soon(rig: TestRig) -> Duration {
    rig.platform.now() + SOON
}
