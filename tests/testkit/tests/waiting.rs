//! Waiting for memory: what is handed over, to whom, and what becomes of it when nobody comes.

mod common;

use backend_nommu::Arena;
use common::*;
use mm_core::*;
use rtmm_testkit::rig::Rig;
use std::future::Future;
use std::pin::{Pin, pin};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::Duration;

type TestRig = &'static Rig<Arena>;

/// A rig that lives as long as the test, so that what happens while a task waits can use it.
fn rig() -> TestRig {
    Box::leak(Box::new(nommu()))
}

/// Pages in a test's hands; by address, so that threads of control can share them.
type Taken = Arc<Mutex<Vec<usize>>>;

/// Takes single pages until ordinary requests get none.
fn use_up<P: Platform, B: Backend>(mm: &Mm<P, B>) -> Taken {
    mm.drain();
    let flags = GFP_NOWAIT | Gfp::NOWARN;
    Arc::new(Mutex::new(std::iter::from_fn(|| mm.get_free_page(flags).ok()).map(|p| p.addr().get()).collect()))
}

fn free<P: Platform, B: Backend>(mm: &Mm<P, B>, at: usize) {
    mm.free_page(std::ptr::without_provenance(at)).unwrap();
}

fn free_one<P: Platform, B: Backend>(mm: &Mm<P, B>, taken: &Taken) -> Option<usize> {
    let at = taken.lock().unwrap().pop()?;
    free(mm, at);
    Some(at)
}

/// Gives all back and asserts that nothing is lost.
fn end(rig: TestRig, taken: &Taken, before: usize) {
    rig.platform.nothing_happens();
    while free_one(&rig.mm, taken).is_some() {}
    rig.mm.drain();
    rig.mm.check().unwrap();
    assert_eq!(rig.mm.free_page_count(), before);
    assert!(rig.platform.take_bugs().is_empty());
}

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll<F: Future>(future: Pin<&mut F>, bell: &Arc<Bell>) -> Poll<F::Output> {
    future.poll(&mut Task::from_waker(&Waker::from(bell.clone())))
}

const SOON: Duration = Duration::from_millis(10);

fn soon(rig: TestRig) -> Duration {
    rig.platform.now() + SOON
}

#[test]
fn a_task_gets_the_page_that_another_frees() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let others = taken.clone();
    let last = Arc::new(AtomicUsize::new(0));
    let freed = last.clone();
    rig.platform.on_wait(move || freed.store(free_one(&rig.mm, &others).unwrap(), Ordering::SeqCst));
    let page = rig.mm.get_free_page(GFP_KERNEL).unwrap();
    assert_eq!((rig.platform.waits(), page.addr().get()), (1, last.load(Ordering::SeqCst)));
    taken.lock().unwrap().push(page.addr().get());
    end(rig, &taken, before);
}

#[test]
fn what_was_handed_over_cannot_be_taken_by_others() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let others = taken.clone();
    rig.platform.on_wait(move || {
        free_one(&rig.mm, &others).unwrap();
        // The task is not awake yet, and its page is gone all the same.
        assert_eq!(rig.mm.get_free_page(GFP_NOWAIT | Gfp::NOWARN), Err(AllocError::NoMemory));
        rig.mm.check().unwrap();
    });
    let page = rig.mm.get_free_page(GFP_KERNEL).unwrap();
    taken.lock().unwrap().push(page.addr().get());
    end(rig, &taken, before);
}

#[test]
fn a_deadline_that_passes_is_an_error_and_changes_nothing() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let start = rig.platform.now();
    let short = Err(AllocError::NoMemory);
    assert_eq!(rig.mm.get_free_pages_deadline(GFP_KERNEL, 0, start + SOON), short);
    assert_eq!(rig.platform.now(), start + SOON);
    // A time that is over does not wait; nor do requests that may not.
    let waits = rig.platform.waits();
    assert_eq!(rig.mm.get_free_pages_deadline(GFP_KERNEL, 0, start), short);
    assert_eq!(rig.mm.get_free_pages_deadline(GFP_NOWAIT, 0, start + 9 * SOON), short);
    assert_eq!(rig.mm.get_free_pages_deadline(GFP_KERNEL | Gfp::NORETRY, 0, start + 9 * SOON), short);
    assert_eq!(rig.mm.kmalloc_deadline(2 * PAGE, GFP_KERNEL | Gfp::NORETRY, start + 9 * SOON), short);
    rig.platform.set_context(Context::Boot);
    assert_eq!(rig.mm.get_free_page(GFP_KERNEL), short);
    rig.platform.set_context(Context::Atomic);
    assert_eq!(rig.mm.get_free_page(GFP_KERNEL), short);
    assert!(matches!(rig.platform.take_bugs()[..], [Bug::MayWaitInAtomic { .. }]));
    rig.platform.set_context(Context::Task);
    assert_eq!(rig.platform.waits(), waits);
    // The default is the board's.
    let start = rig.platform.now();
    assert_eq!(rig.mm.get_free_page(GFP_KERNEL), short);
    assert_eq!(rig.platform.now(), start + Tuning::DEFAULT.max_wait);
    end(rig, &taken, before);
}

#[test]
fn what_comes_with_the_deadline_is_not_lost() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let others = taken.clone();
    let until = soon(rig);
    rig.platform.on_wait(move || {
        rig.platform.advance(9 * SOON);
        free_one(&rig.mm, &others).unwrap();
    });
    let page = rig.mm.get_free_pages_deadline(GFP_KERNEL, 0, until).unwrap();
    taken.lock().unwrap().push(page.addr().get());
    end(rig, &taken, before);
}

#[test]
fn a_dropped_future_gives_its_page_to_the_next() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let bells: [Arc<Bell>; 3] = Default::default();
    let mut first = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0));
    let mut second = Box::pin(rig.mm.alloc_pages_async(GFP_KERNEL, 0));
    let third = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0));
    assert!(poll(first.as_mut(), &bells[0]).is_pending());
    assert!(poll(second.as_mut(), &bells[1]).is_pending());
    // A future that was never polled waits for nothing.
    drop(third);
    let at = free_one(&rig.mm, &taken).unwrap();
    assert_eq!((bells[0].rung(), bells[1].rung()), (1, 0));
    rig.mm.check().unwrap();
    drop(first);
    assert_eq!((bells[0].rung(), bells[1].rung()), (1, 1));
    let Poll::Ready(Ok(pfn)) = poll(second.as_mut(), &bells[1]) else { panic!("handed over") };
    assert_eq!(rig.mm.page_address(pfn).unwrap().addr().get(), at);
    // It is over: once more asked, it stays silent.
    assert!(poll(second.as_mut(), &bells[1]).is_pending());
    drop(second);
    taken.lock().unwrap().push(at);
    end(rig, &taken, before);
}

#[test]
fn a_future_that_is_dropped_while_it_waits_leaves_the_queue() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let bell = Arc::new(Bell::default());
    for _ in 0..3 {
        let mut futures: Vec<_> = (0..5).map(|_| Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0))).collect();
        futures.iter_mut().for_each(|future| assert!(poll(future.as_mut(), &bell).is_pending()));
        // First, last, and one between.
        drop(futures.remove(0));
        drop(futures.pop());
        drop(futures.remove(1));
    }
    let at = free_one(&rig.mm, &taken).unwrap();
    assert_eq!(bell.rung(), 0);
    // Nobody was in the way.
    assert_eq!(rig.mm.get_free_page(GFP_NOWAIT).map(|p| p.addr().get()), Ok(at));
    taken.lock().unwrap().push(at);
    // And no waker is kept.
    assert_eq!(Arc::strong_count(&bell), 1);
    end(rig, &taken, before);
}

#[test]
fn those_who_wait_are_served_in_turn() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let bells: Vec<Arc<Bell>> = (0..100).map(|_| Arc::default()).collect();
    let mut futures: Vec<_> = bells.iter().map(|_| Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0))).collect();
    for (future, bell) in futures.iter_mut().zip(&bells) {
        assert!(poll(future.as_mut(), bell).is_pending());
        // Asked again, it keeps its place.
        assert!(poll(future.as_mut(), bell).is_pending());
    }
    for served in 0..bells.len() {
        free_one(&rig.mm, &taken).unwrap();
        for (i, bell) in bells.iter().enumerate() {
            assert_eq!(bell.rung(), usize::from(i <= served), "{i} when {served} were served");
        }
    }
    for (future, bell) in futures.iter_mut().zip(&bells) {
        let Poll::Ready(Ok(page)) = poll(future.as_mut(), bell) else { panic!("handed over") };
        taken.lock().unwrap().push(page.addr().get());
    }
    end(rig, &taken, before);
}

#[test]
fn a_block_goes_to_the_oldest_it_fits_and_its_rest_to_the_next() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let block = rig.mm.get_free_pages(GFP_KERNEL, 3).unwrap();
    let taken = use_up(&rig.mm);
    let (bells, orders): ([Arc<Bell>; 4], _) = (Default::default(), [4, 1, 2, 0]);
    let mut futures: Vec<_> = orders.iter().map(|&o| Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, o))).collect();
    for (future, bell) in futures.iter_mut().zip(&bells) {
        assert!(poll(future.as_mut(), bell).is_pending());
    }
    rig.mm.free_pages(block.as_ptr(), 3).unwrap();
    // Eight pages are too few for sixteen, and enough for two, four and one.
    assert_eq!(bells.each_ref().map(|bell| bell.rung()), [0, 1, 1, 1]);
    for ((future, bell), order) in futures.iter_mut().zip(&bells).zip(orders).skip(1) {
        let Poll::Ready(Ok(page)) = poll(future.as_mut(), bell) else { panic!("handed over") };
        rig.mm.free_pages(page.as_ptr(), order).unwrap();
    }
    drop(futures);
    end(rig, &taken, before);
}

#[test]
fn who_wants_much_is_passed_over_sixteen_times_and_then_its_pages_are_put_by() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let block = rig.mm.get_free_pages(GFP_KERNEL, 3).unwrap();
    rig.mm.split_page(rig.mm.pfn_of(block.as_ptr()).unwrap(), 3).unwrap();
    let taken = use_up(&rig.mm);
    let bell = Arc::new(Bell::default());
    let mut much = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 3));
    assert!(poll(much.as_mut(), &bell).is_pending());
    let little: Vec<Arc<Bell>> = (0..40).map(|_| Arc::default()).collect();
    let mut futures: Vec<_> = little.iter().map(|_| Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0))).collect();
    for (future, bell) in futures.iter_mut().zip(&little) {
        assert!(poll(future.as_mut(), bell).is_pending());
    }
    let served = || little.iter().filter(|bell| bell.rung() != 0).count();
    for page in 0..16 {
        assert_eq!(served(), page);
        free_one(&rig.mm, &taken).unwrap();
    }
    // Seven of its eight pages: they are nobody else's now, newcomers' neither.
    for page in 0..7 {
        free(&rig.mm, block.addr().get() + page * PAGE);
        assert_eq!((served(), bell.rung()), (16, 0));
        assert_eq!(rig.mm.get_free_page(GFP_NOWAIT | Gfp::NOWARN), Err(AllocError::NoMemory));
    }
    free(&rig.mm, block.addr().get() + 7 * PAGE);
    assert_eq!((served(), bell.rung()), (16, 1));
    let Poll::Ready(Ok(got)) = poll(much.as_mut(), &bell) else { panic!("handed over") };
    assert_eq!(got, block);
    // Afterwards all is as before.
    for _ in 16..40 {
        free_one(&rig.mm, &taken).unwrap();
    }
    assert_eq!(served(), 40);
    for (future, bell) in futures.iter_mut().zip(&little) {
        let Poll::Ready(Ok(page)) = poll(future.as_mut(), bell) else { panic!("handed over") };
        taken.lock().unwrap().push(page.addr().get());
    }
    rig.mm.free_pages(got.as_ptr(), 3).unwrap();
    let page = rig.mm.get_free_page(GFP_NOWAIT).unwrap();
    free(&rig.mm, page.addr().get());
    end(rig, &taken, before);
}

#[test]
fn nobody_waits_for_what_no_zone_could_ever_give() {
    // 1 MiB, of which the manager's own tables take some: no block of 256 pages is ever free.
    let rig: TestRig = Box::leak(Box::new(Rig::nommu(NOMMU_RAM, 1 << 20)));
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let bell = Arc::new(Bell::default());
    for order in [8, 10] {
        let refused = AllocError::NoMemory;
        assert_eq!(poll(pin!(rig.mm.alloc_pages_async(GFP_KERNEL, order)), &bell), Poll::Ready(Err(refused)));
        assert_eq!(poll(pin!(rig.mm.kmalloc_async(PAGE << order, GFP_KERNEL)), &bell), Poll::Ready(Err(refused)));
        let start = rig.platform.now();
        assert_eq!(rig.mm.get_free_pages(GFP_KERNEL, order), Err(refused));
        assert_eq!(rig.mm.vmalloc_deadline(PAGE << order, start + SOON), Err(AllocError::TooBig));
        assert_eq!((rig.platform.now(), rig.platform.waits()), (start, 0));
    }
    // What is there once is given.
    let half = poll(pin!(rig.mm.get_free_pages_async(GFP_KERNEL, 7)), &bell);
    let Poll::Ready(Ok(half)) = half else { panic!("half of the memory is one block") };
    rig.mm.free_pages(half.as_ptr(), 7).unwrap();
    end(rig, &Taken::default(), before);
}

#[test]
fn who_wants_most_of_the_memory_shuts_nobody_out() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let (order, share) = (rig.mm.largest_block(GFP_KERNEL).unwrap(), rig.mm.zoneinfo().zones()[0].managed / 8);
    let taken = use_up(&rig.mm);
    let bell = Arc::new(Bell::default());
    let mut most = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, order));
    assert!(poll(most.as_mut(), &bell).is_pending());
    for _ in 0..20 {
        let others = taken.clone();
        rig.platform.on_wait(move || _ = free_one(&rig.mm, &others));
        let page = rig.mm.get_free_page(GFP_KERNEL);
        rig.platform.nothing_happens();
        taken.lock().unwrap().extend(page.map(|page| page.addr().get()));
    }
    // It was passed over often enough, and pages are put by for it; but no more than its share.
    let kept: Vec<usize> = std::iter::from_fn(|| match rig.mm.get_free_page(GFP_NOWAIT | Gfp::NOWARN) {
        Ok(page) => {
            free(&rig.mm, page.addr().get());
            None
        }
        Err(_) => free_one(&rig.mm, &taken),
    })
    .collect();
    assert!((share / 2..=share + 1).contains(&kept.len()), "{} of {share}", kept.len());
    drop(most);
    end(rig, &taken, before);
}

#[test]
fn what_lies_about_when_time_is_up_is_found() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    // An object whose slab has all its slots in one word: its free is seen by nobody.
    let object = rig.mm.kmalloc(512, GFP_KERNEL).unwrap().addr().get();
    let taken = use_up(&rig.mm);
    rig.platform.on_wait(move || _ = rig.mm.kfree(std::ptr::without_provenance(object)));
    let start = rig.platform.now();
    let page = rig.mm.get_free_pages_deadline(GFP_KERNEL, 0, start + SOON).unwrap();
    taken.lock().unwrap().push(page.addr().get());
    rig.platform.nothing_happens();
    // So for objects and areas.
    while free_one(&rig.mm, &taken).is_some() {}
    for area in [false, true] {
        let object = rig.mm.kmalloc(512, GFP_KERNEL).unwrap().addr().get();
        let taken = use_up(&rig.mm);
        rig.platform.on_wait(move || _ = rig.mm.kfree(std::ptr::without_provenance(object)));
        let until = rig.platform.now() + SOON;
        if area {
            let got = rig.mm.vmalloc_deadline(PAGE, until).unwrap();
            rig.platform.nothing_happens();
            rig.mm.vfree(got.as_ptr()).unwrap();
        } else {
            let got = rig.mm.kmalloc_deadline(1024, GFP_KERNEL, until).unwrap();
            rig.platform.nothing_happens();
            rig.mm.kfree(got.as_ptr()).unwrap();
        }
        while free_one(&rig.mm, &taken).is_some() {}
    }
    end(rig, &taken, before);
}

#[test]
fn nothing_is_kept_while_somebody_waits_where_a_free_looks_anyway() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    // The only slab of its cache, used up, and the only descriptor of its pool.
    let object = rig.mm.kmalloc(32, GFP_KERNEL).unwrap();
    let mut objects = vec![object];
    objects.extend((1..PAGE / 32).map(|_| rig.mm.kmalloc(32, GFP_KERNEL).unwrap()));
    let taken = use_up(&rig.mm);
    let bells: [Arc<Bell>; 2] = Default::default();
    let mut futures: Vec<_> = bells.iter().map(|_| Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0))).collect();
    for (future, bell) in futures.iter_mut().zip(&bells) {
        assert!(poll(future.as_mut(), bell).is_pending());
    }
    // The current word, the last one, says nothing of its frees; the others do.
    objects.iter().rev().for_each(|object| rig.mm.kfree(object.as_ptr()).unwrap());
    assert_eq!(bells.each_ref().map(|bell| bell.rung()), [1, 1]);
    for (future, bell) in futures.iter_mut().zip(&bells) {
        let Poll::Ready(Ok(page)) = poll(future.as_mut(), bell) else { panic!("handed over") };
        taken.lock().unwrap().push(page.addr().get());
    }
    drop(futures);
    end(rig, &taken, before);
}

#[test]
fn an_interrupt_that_finds_no_memory_leaves_areas_to_tasks() {
    let rig = mmu();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let area = rig.mm.vmalloc(PAGE).unwrap();
    let taken = use_up(&rig.mm);
    let high = std::iter::from_fn(|| rig.mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN).ok());
    taken.lock().unwrap().extend(high.map(|page| page.addr().get()));
    rig.platform.set_context(Context::Atomic);
    rig.mm.vfree(area.as_ptr()).unwrap();
    assert_eq!(rig.mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN), Err(AllocError::NoMemory));
    assert_eq!(rig.mm.deferred_areas(), (1, 1));
    rig.platform.set_context(Context::Task);
    let page = rig.mm.get_free_page(GFP_ATOMIC).unwrap();
    assert_eq!(rig.mm.deferred_areas(), (0, 0));
    free(&rig.mm, page.addr().get());
    while free_one(&rig.mm, &taken).is_some() {}
    rig.mm.drain();
    assert_eq!(rig.mm.free_page_count(), before);
}

/// Uses up memory and the objects of a class.
fn use_up_objects(rig: TestRig, size: usize) -> (Vec<NonNull<u8>>, Taken) {
    let flags = GFP_NOWAIT | Gfp::NOWARN;
    let first = rig.mm.kmalloc(size, flags).unwrap();
    let taken = use_up(&rig.mm);
    let mut objects = vec![first];
    objects.extend(std::iter::from_fn(|| rig.mm.kmalloc(size, flags).ok()));
    (objects, taken)
}

#[test]
fn kmalloc_waits_for_an_object_as_well_as_for_pages() {
    for size in [8, 64, 100, 1000, 2048] {
        let rig = rig();
        rig.mm.drain();
        let before = rig.mm.free_page_count();
        let (objects, taken) = use_up_objects(rig, size);
        let bells: [Arc<Bell>; 3] = Default::default();
        let mut futures: Vec<_> = bells.iter().map(|_| Box::pin(rig.mm.kmalloc_async(size, GFP_KERNEL))).collect();
        for (future, bell) in futures.iter_mut().zip(&bells) {
            assert!(poll(future.as_mut(), bell).is_pending());
        }
        // Objects of the class serve one each, in turn; the second free meets the word the first one opened.
        rig.mm.kfree(objects[0].as_ptr()).unwrap();
        assert_eq!(bells.each_ref().map(|bell| bell.rung()), [1, 0, 0]);
        assert_eq!(rig.mm.kmalloc(size, GFP_NOWAIT | Gfp::NOWARN), Err(AllocError::NoMemory), "stolen");
        rig.mm.kfree(objects[1].as_ptr()).unwrap();
        assert_eq!(bells.each_ref().map(|bell| bell.rung()), [1, 1, 0]);
        rig.mm.check().unwrap();
        // Pages for a slab serve the third.
        while bells[2].rung() == 0 {
            free_one(&rig.mm, &taken).unwrap();
        }
        let mut got = Vec::new();
        for (future, bell) in futures.iter_mut().zip(&bells) {
            let Poll::Ready(Ok(object)) = poll(future.as_mut(), bell) else { panic!("handed over") };
            got.push(object);
        }
        assert_eq!(got[..2], objects[..2]);
        rig.mm.check().unwrap();
        got.iter().chain(&objects[2..]).for_each(|object| rig.mm.kfree(object.as_ptr()).unwrap());
        end(rig, &taken, before);
    }
}

#[test]
fn an_object_that_was_handed_to_a_dropped_future_goes_on() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let (objects, taken) = use_up_objects(rig, 128);
    let bells: [Arc<Bell>; 2] = Default::default();
    let mut first = Box::pin(rig.mm.kmalloc_async(128, GFP_KERNEL));
    let mut second = Box::pin(rig.mm.kmalloc_async(128, GFP_KERNEL | Gfp::ZERO));
    assert!(poll(first.as_mut(), &bells[0]).is_pending() && poll(second.as_mut(), &bells[1]).is_pending());
    // SAFETY: the object is the test's.
    unsafe { objects[0].write_bytes(0xff, 128) };
    rig.mm.kfree(objects[0].as_ptr()).unwrap();
    assert_eq!((bells[0].rung(), bells[1].rung()), (1, 0));
    drop(first);
    assert_eq!((bells[0].rung(), bells[1].rung()), (1, 1));
    let Poll::Ready(Ok(object)) = poll(second.as_mut(), &bells[1]) else { panic!("handed over") };
    // SAFETY: as above.
    assert_eq!((object, unsafe { *object.cast::<[u8; 128]>().as_ref() }), (objects[0], [0; 128]));
    objects.iter().for_each(|object| rig.mm.kfree(object.as_ptr()).unwrap());
    drop(second);
    end(rig, &taken, before);
}

#[test]
fn pages_for_a_slab_without_one_for_its_descriptor_are_waited_with() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let bell = Arc::new(Bell::default());
    let mut future = Box::pin(rig.mm.kmalloc_async(64, GFP_KERNEL));
    // What ordinary requests leave is not for descriptors either.
    let high: Vec<_> = std::iter::from_fn(|| rig.mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN).ok()).collect();
    assert!(poll(future.as_mut(), &bell).is_pending());
    // The marks stay used up while those of interrupts come back, but for one page.
    high.iter().for_each(|page| rig.mm.free_page(page.as_ptr()).unwrap());
    let mut object = None;
    for _ in 0..8 {
        free_one(&rig.mm, &taken).unwrap();
        match poll(future.as_mut(), &bell) {
            Poll::Ready(got) => {
                object = Some(got.unwrap());
                break;
            }
            Poll::Pending => {}
        }
    }
    rig.mm.kfree(object.unwrap().as_ptr()).unwrap();
    drop(future);
    end(rig, &taken, before);
}

#[test]
fn a_task_that_waits_in_kmalloc_gets_what_comes_first() {
    for object_first in [true, false] {
        let rig = rig();
        rig.mm.drain();
        let before = rig.mm.free_page_count();
        let (objects, taken) = use_up_objects(rig, 256);
        let (others, object) = (taken.clone(), objects[0].addr().get());
        rig.platform.on_wait(move || {
            if object_first {
                rig.mm.kfree(std::ptr::without_provenance(object)).unwrap();
            } else {
                // Pages for the slab, and one for its descriptor.
                (0..8).for_each(|_| _ = free_one(&rig.mm, &others).unwrap());
            }
        });
        let got = rig.mm.kmalloc(256, GFP_KERNEL).unwrap();
        assert_eq!((got == objects[0], rig.platform.waits()), (object_first, 1));
        rig.mm.kfree(got.as_ptr()).unwrap();
        objects.iter().skip(usize::from(object_first)).for_each(|p| rig.mm.kfree(p.as_ptr()).unwrap());
        end(rig, &taken, before);
    }
}

#[test]
fn a_free_of_an_area_serves_those_who_wait() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let area = rig.mm.vmalloc(4 * PAGE).unwrap().addr().get();
    let taken = use_up(&rig.mm);
    rig.platform.on_wait(move || _ = rig.mm.vfree(std::ptr::without_provenance(area)));
    let block = rig.mm.get_free_pages(GFP_KERNEL, 2).unwrap();
    assert_eq!(block.addr().get(), area);
    rig.mm.free_pages(block.as_ptr(), 2).unwrap();
    end(rig, &taken, before);
}

#[test]
fn vmalloc_waits_for_its_pages() {
    let rig = Box::leak(Box::new(mmu()));
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let others = taken.clone();
    // Each time it waits one page comes.
    let mm = &rig.mm;
    rig.platform.on_wait(move || _ = free_one(mm, &others).unwrap());
    let area = mm.vmalloc(6 * PAGE).unwrap();
    assert!(rig.platform.waits() >= 3, "{}", rig.platform.waits());
    mm.check().unwrap();
    rig.platform.nothing_happens();
    mm.vfree(area.as_ptr()).unwrap();
    // And gives all back when they do not come.
    let more = use_up(mm);
    let start = rig.platform.now();
    assert_eq!(mm.vmalloc_deadline(3 * PAGE, start + SOON), Err(AllocError::NoMemory));
    assert_eq!(rig.platform.now(), start + SOON);
    more.lock().unwrap().drain(..).for_each(|at| free(mm, at));
    while free_one(mm, &taken).is_some() {}
    mm.drain();
    mm.check().unwrap();
    assert_eq!(mm.free_page_count(), before);
}

#[test]
fn tables_kept_aside_are_used_before_anybody_waits_for_one() {
    let rig = Box::leak(Box::new(mmu()));
    let mm = &rig.mm;
    mm.drain();
    mm.reserve_tables(4).unwrap();
    let before = mm.free_page_count();
    let taken = use_up(mm);
    let others = taken.clone();
    // The page for its record and that of the area come, and no more.
    let left = AtomicUsize::new(2);
    rig.platform.on_wait(move || {
        if left.load(Ordering::SeqCst) != 0 {
            left.fetch_sub(1, Ordering::SeqCst);
            free_one(mm, &others).unwrap();
        }
    });
    let start = rig.platform.now();
    let area = mm.vmalloc_deadline(PAGE, start + SOON).unwrap();
    assert_eq!(rig.platform.now(), start, "it waited for a table in vain");
    rig.platform.nothing_happens();
    mm.vfree(area.as_ptr()).unwrap();
    while free_one(mm, &taken).is_some() {}
    mm.drain();
    mm.check().unwrap();
    assert_eq!(mm.free_page_count(), before);
}

#[test]
fn an_area_that_an_interrupt_frees_serves_those_who_wait() {
    let rig = Box::leak(Box::new(mmu()));
    let mm = &rig.mm;
    mm.drain();
    let before = mm.free_page_count();
    let areas = [(); 2].map(|()| mm.vmalloc(4 * PAGE).unwrap().addr().get());
    let taken = use_up(mm);
    let vfree = |area| {
        rig.platform.set_context(Context::Atomic);
        mm.vfree(std::ptr::without_provenance(area)).unwrap();
        rig.platform.set_context(Context::Task);
    };
    rig.platform.on_wait(move || vfree(areas[0]));
    let start = rig.platform.now();
    let page = mm.get_free_page(GFP_KERNEL).unwrap();
    assert_eq!((rig.platform.now(), mm.deferred_areas()), (start, (0, 0)));
    rig.platform.nothing_happens();
    taken.lock().unwrap().push(page.addr().get());
    taken.lock().unwrap().append(&mut use_up(mm).lock().unwrap());
    let bell = Arc::new(Bell::default());
    let mut future = Box::pin(mm.get_free_pages_async(GFP_KERNEL, 0));
    assert!(poll(future.as_mut(), &bell).is_pending());
    vfree(areas[1]);
    assert_eq!(bell.rung(), 1);
    let Poll::Ready(Ok(page)) = poll(future.as_mut(), &bell) else { panic!("flushed in its task") };
    free(mm, page.addr().get());
    drop(future);
    while free_one(mm, &taken).is_some() {}
    mm.drain();
    mm.check().unwrap();
    assert_eq!(mm.free_page_count(), before);
}

#[test]
fn futures_with_flags_that_do_not_wait_are_ready_at_once() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let bell = Arc::new(Bell::default());
    let page = pin!(rig.mm.get_free_pages_async(GFP_KERNEL, 0));
    let Poll::Ready(Ok(page)) = poll(page, &bell) else { panic!("there is memory") };
    free(&rig.mm, page.addr().get());
    let taken = use_up(&rig.mm);
    for flags in [GFP_NOWAIT, GFP_KERNEL | Gfp::NORETRY] {
        assert_eq!(poll(pin!(rig.mm.get_free_pages_async(flags, 0)), &bell), Poll::Ready(Err(AllocError::NoMemory)));
        assert_eq!(poll(pin!(rig.mm.kmalloc_async(5000, flags)), &bell), Poll::Ready(Err(AllocError::NoMemory)));
    }
    let refused = AllocError::BadOrder;
    assert_eq!(poll(pin!(rig.mm.alloc_pages_async(GFP_KERNEL, 99)), &bell), Poll::Ready(Err(refused)));
    assert_eq!(poll(pin!(rig.mm.kmalloc_async(0, GFP_KERNEL)), &bell), Poll::Ready(Err(AllocError::ZeroSize)));
    assert_eq!(poll(pin!(rig.mm.kmalloc_async(usize::MAX, GFP_KERNEL)), &bell), Poll::Ready(Err(AllocError::TooBig)));
    // An interrupt may poll: nothing is reported, and nobody waits.
    rig.platform.set_context(Context::Atomic);
    let mut waiting = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0));
    assert!(poll(waiting.as_mut(), &bell).is_pending());
    drop(waiting);
    rig.platform.set_context(Context::Task);
    end(rig, &taken, before);
}

#[test]
fn a_wait_that_unwinds_leaves_the_queue() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let others = taken.clone();
    rig.platform.on_wait(move || {
        free_one(&rig.mm, &others).unwrap();
        panic!("on purpose");
    });
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rig.mm.get_free_page(GFP_KERNEL)));
    assert!(result.is_err());
    // What it was handed came back.
    let page = rig.mm.get_free_page(GFP_NOWAIT).unwrap();
    taken.lock().unwrap().push(page.addr().get());
    end(rig, &taken, before);
}

/// Threads that really sleep.
struct Threads;

impl Platform for Threads {
    type Lock = CriticalSectionLock;
    const CAN_WAIT: bool = true;

    fn context(&self) -> Context {
        Context::Task
    }

    fn bug(&self, bug: &Bug) {
        panic!("{bug}");
    }

    fn now(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }

    fn current(&self) -> usize {
        THREAD.with(|thread| *thread)
    }

    fn wait(&self, until: Duration) {
        std::thread::park_timeout(until.saturating_sub(self.now()));
    }

    fn wake(&self, task: usize) {
        if let Some(thread) = &THREADS.lock().unwrap()[task] {
            thread.unpark();
        }
    }
}

static THREADS: Mutex<Vec<Option<std::thread::Thread>>> = Mutex::new(Vec::new());

thread_local! {
    static THREAD: usize = {
        let mut threads = THREADS.lock().unwrap();
        threads.push(Some(std::thread::current()));
        threads.len() - 1
    };
}

#[test]
fn a_storm_of_threads_loses_nothing_and_comes_to_an_end() {
    let (threads, rounds) = if cfg!(miri) { (3, 20) } else { (8, 3000) };
    let ram = rtmm_testkit::Ram::new(&[PhysRange { start: NOMMU_RAM, end: NOMMU_RAM + (1 << 19) }]);
    let mm: Mm<Threads, Arena> = Mm::new(Threads, Arena::new());
    // SAFETY: the RAM lives longer than the manager's last use.
    unsafe { mm.backend().place(ram.ptr(NOMMU_RAM).unwrap(), NOMMU_RAM as usize) };
    let mut map: BootMap = BootMap::new();
    map.add_ram(NOMMU_RAM, 1 << 19).unwrap();
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << 40 }];
    let mut config = Config::new(&zones, VirtRange { start: 0, end: 0 });
    config.tuning.max_wait = Duration::from_millis(200);
    // SAFETY: the memory is this manager's alone.
    unsafe { mm.init(&mut map.finish(12, 44).unwrap(), &config) }.unwrap();
    mm.drain();
    let before = (mm.free_page_count(), mm.check().unwrap());
    let failures = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for seed in 0..threads {
            let (mm, failures) = (&mm, &failures);
            scope.spawn(move || {
                let mut random = 0x9e37_79b9u32.wrapping_mul(seed + 1);
                let mut next = |below: u32| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (random >> 8) % below
                };
                let (mut pages, mut objects) = (Vec::new(), Vec::new());
                for _ in 0..rounds {
                    // More is wanted than there is: 100 pages for all.
                    match next(6) {
                        0 | 1 if pages.len() < 20 => match mm.get_free_pages(GFP_KERNEL, (next(8) == 0) as usize * 2) {
                            Ok(page) => pages.push((page, mm.page_address(mm.pfn_of(page.as_ptr()).unwrap()).unwrap())),
                            Err(_) => _ = failures.fetch_add(1, Ordering::Relaxed),
                        },
                        2 if objects.len() < 40 => match mm.kmalloc([64, 1000, 2048][next(3) as usize], GFP_KERNEL) {
                            Ok(object) => objects.push(object),
                            Err(_) => _ = failures.fetch_add(1, Ordering::Relaxed),
                        },
                        3 if !objects.is_empty() => {
                            let object = objects.swap_remove(next(objects.len() as u32) as usize);
                            mm.kfree(object.as_ptr()).unwrap();
                        }
                        _ if !pages.is_empty() => {
                            let (page, _) = pages.swap_remove(next(pages.len() as u32) as usize);
                            let order = [0, 2].into_iter().find(|&o| mm.free_pages(page.as_ptr(), o).is_ok());
                            assert!(order.is_some());
                        }
                        _ => {}
                    }
                }
                for (page, _) in pages {
                    assert!([0, 2].into_iter().any(|o| mm.free_pages(page.as_ptr(), o).is_ok()));
                }
                objects.iter().for_each(|object| mm.kfree(object.as_ptr()).unwrap());
            });
        }
    });
    mm.drain();
    assert_eq!((mm.free_page_count(), mm.check().unwrap()), before);
    println!("{} requests gave up", failures.load(Ordering::Relaxed));
}

/// A pool whose one element is out, on a machine without memory.
fn empty_pool(rig: TestRig) -> (Mempool<PageSource, &'static TestMm<Arena>>, usize, Taken) {
    let pool = Mempool::pages_in(1, 1, &*rig.mm).unwrap();
    let taken = use_up(&rig.mm);
    let element = pool.alloc(GFP_NOWAIT).unwrap().addr().get();
    assert!(pool.alloc(GFP_NOWAIT | Gfp::NOWARN).is_err());
    (pool, element, taken)
}

#[test]
fn who_waits_for_an_element_of_a_pool_is_handed_what_is_given_back() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let (pool, element, taken) = empty_pool(rig);
    let pool: &'static _ = Box::leak(Box::new(pool));
    let address = element;
    rig.platform.on_wait(move || {
        let element = std::ptr::with_exposed_provenance_mut(address);
        if pool.counts() == (0, 2) {
            pool.free(element).unwrap();
            // It is on its way, so neither in reserve nor to be had by others.
            assert_eq!(pool.counts().0, 0);
            assert!(pool.alloc(GFP_NOWAIT | Gfp::NOWARN).is_err());
        }
    });
    let got = pool.alloc(GFP_KERNEL | Gfp::ZERO).unwrap();
    assert_eq!((got.addr().get(), pool.counts(), rig.platform.waits()), (element, (0, 1), 1));
    pool.free(got.as_ptr()).unwrap();
    assert_eq!(pool.counts(), (1, 0));
    // SAFETY: leaked above, and used no more.
    drop(unsafe { Box::from_raw(std::ptr::from_ref(pool).cast_mut()) });
    end(rig, &taken, before);
}

#[test]
fn a_wait_for_an_element_ends_with_its_deadline_or_with_memory() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let (pool, element, taken) = empty_pool(rig);
    let start = rig.platform.now();
    let failed = pool.alloc_deadline(GFP_KERNEL | Gfp::NOWARN, soon(rig));
    assert!(matches!(failed, Err(AllocError::NoMemory | AllocError::NoContig)));
    assert_eq!((rig.platform.now() - start, pool.counts()), (SOON, (0, 1)));
    let waits = rig.platform.waits();
    assert!(pool.alloc(GFP_KERNEL | Gfp::NORETRY | Gfp::NOWARN).is_err());
    assert!(pool.alloc_deadline(GFP_KERNEL | Gfp::NOWARN, start).is_err(), "a time that is over");
    assert_eq!(rig.platform.waits(), waits);
    // Memory that comes back past the pool does as well.
    let others = taken.clone();
    rig.platform.on_wait(move || while free_one(&rig.mm, &others).is_some() {});
    let start = rig.platform.now();
    let got = pool.alloc_deadline(GFP_KERNEL, start + 8 * SOON).unwrap();
    assert!(rig.platform.now() - start <= SOON);
    pool.free(got.as_ptr()).unwrap();
    pool.free(std::ptr::with_exposed_provenance_mut(element)).unwrap();
    drop(pool);
    end(rig, &taken, before);
}

#[test]
fn a_cache_waits_for_an_object_until_the_deadline_it_is_told() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let cache = KmemCache::new_in("waited for", || 7u64, CacheFlags::empty(), &*rig.mm).unwrap();
    let taken = use_up(&rig.mm);
    let raw: &'static RawKmemCache<_> =
        Box::leak(Box::new(rig.mm.kmem_cache_create("raw", 3000, 0, CacheFlags::empty(), None).unwrap()));
    assert!(matches!(cache.alloc_deadline(GFP_KERNEL | Gfp::NOWARN, soon(rig)), Err(AllocError::NoMemory)));
    let start = rig.platform.now();
    assert!(raw.alloc_deadline(GFP_KERNEL | Gfp::NOWARN, soon(rig)).is_err());
    assert_eq!(rig.platform.now() - start, SOON);
    // A whole slab comes back, and its first object serves.
    let others = taken.clone();
    rig.platform.on_wait(move || (0..8).for_each(|_| _ = free_one(&rig.mm, &others)));
    let object = raw.alloc_deadline(GFP_KERNEL | Gfp::ZERO, rig.platform.now() + SOON).unwrap().as_ptr();
    // SAFETY: ours, that long.
    assert!((0..3000).all(|i| unsafe { object.add(i).read() } == 0));
    let objects: Vec<_> = std::iter::from_fn(|| raw.alloc(GFP_NOWAIT | Gfp::NOWARN).ok()).collect();
    let one = Mutex::new(Some(objects[0].as_ptr().expose_provenance()));
    rig.platform.on_wait(move || {
        if let Some(one) = one.lock().unwrap().take() {
            raw.free(std::ptr::with_exposed_provenance(one)).unwrap();
        }
    });
    let again = raw.alloc_deadline(GFP_KERNEL, rig.platform.now() + SOON).unwrap();
    assert_eq!(again, objects[0]);
    rig.platform.nothing_happens();
    objects.iter().for_each(|object| raw.free(object.as_ptr()).unwrap());
    raw.free(object).unwrap();
    while free_one(&rig.mm, &taken).is_some() {}
    assert_eq!(*cache.alloc_deadline(GFP_KERNEL, soon(rig)).unwrap(), 7);
    drop(cache);
    // SAFETY: leaked above, and used no more.
    drop(unsafe { Box::from_raw(std::ptr::from_ref(raw).cast_mut()) });
    end(rig, &taken, before);
}

/// Each step of a request that waits is made to fail, in the first attempt, in what it is handed, and in what it does with
/// it: an error then, and nothing is lost.
#[test]
fn each_step_of_a_wait_that_fails_loses_nothing() {
    type Call = fn(TestRig) -> Result<(), AllocError>;
    let calls: [Call; 5] = [
        |rig| rig.mm.get_free_pages_deadline(GFP_KERNEL, 0, soon(rig)).map(|p| rig.mm.free_page(p.as_ptr()).unwrap()),
        |rig| rig.mm.kmalloc_deadline(64, GFP_KERNEL, soon(rig)).map(|p| rig.mm.kfree(p.as_ptr()).unwrap()),
        |rig| rig.mm.kmalloc_deadline(9000, GFP_KERNEL, soon(rig)).map(|p| rig.mm.kfree(p.as_ptr()).unwrap()),
        |rig| rig.mm.vmalloc(PAGE).map(|p| rig.mm.vfree(p.as_ptr()).unwrap()),
        |rig| {
            let mut future = pin!(rig.mm.kmalloc_async(64, GFP_KERNEL));
            let bell = Arc::new(Bell::default());
            loop {
                match poll(future.as_mut(), &bell) {
                    Poll::Ready(got) => return got.map(|p| rig.mm.kfree(p.as_ptr()).unwrap()),
                    Poll::Pending => rig.platform.wait(soon(rig)),
                }
            }
        },
    ];
    for (which, call) in calls.into_iter().enumerate() {
        for fill in [true, false] {
            let mut k = 1;
            loop {
                let rig = rig();
                rig.mm.drain();
                let before = rig.mm.free_page_count();
                let taken = if fill { use_up(&rig.mm) } else { Taken::default() };
                let others = taken.clone();
                rig.platform.on_wait(move || (0..12).for_each(|_| _ = free_one(&rig.mm, &others)));
                rig.mm.faults().fail_nth(FaultClass::Any, k);
                let result = call(rig);
                let hit = rig.mm.faults().hit();
                rig.mm.faults().disarm();
                assert!(hit || result.is_ok(), "call {which}, step {k}: {result:?}");
                end(rig, &taken, before);
                if !hit {
                    break;
                }
                k += 1;
            }
            assert!(k > 1, "call {which} has steps");
        }
    }
}

/// A free of the last object of the slab its class takes from looks at nothing, and wakes nobody: it is seen within an
/// eighth of the time.
#[test]
fn what_wakes_nobody_is_found_long_before_the_deadline() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let object = rig.mm.kmalloc(64, GFP_KERNEL).unwrap().as_ptr().expose_provenance();
    let taken = use_up(&rig.mm);
    // The slab is the one its class takes from.
    let once = AtomicUsize::new(0);
    rig.platform.on_wait(move || {
        if once.fetch_add(1, Ordering::SeqCst) == 0 {
            rig.mm.kfree(std::ptr::with_exposed_provenance(object)).unwrap();
        }
    });
    let start = rig.platform.now();
    let page = rig.mm.get_free_pages_deadline(GFP_KERNEL, 0, start + 8 * SOON).unwrap();
    assert!(rig.platform.now() - start <= SOON, "{:?}", rig.platform.now() - start);
    taken.lock().unwrap().push(page.addr().get());
    end(rig, &taken, before);
}
