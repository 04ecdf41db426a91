//! Waiting for memory: what is handed over, and what becomes of it when nobody comes.

mod common;

use backend_nommu::Arena;
use common::waiting::*;
use common::*;
use mm_core::*;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

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
fn what_goes_back_to_where_single_pages_come_from_is_handed_over_too() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let bells: [Arc<Bell>; 2] = Default::default();
    let mut waiters: Vec<_> = (0..2).map(|_| Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 1))).collect();
    for (waiter, bell) in waiters.iter_mut().zip(&bells) {
        assert!(poll(waiter.as_mut(), bell).is_pending());
    }
    // Single pages are taken lowest first: the last ones stand where the next would come from.
    taken.lock().unwrap().sort_unstable();
    let rung = || [bells[0].rung(), bells[1].rung()];
    free_one(&rig.mm, &taken).unwrap();
    assert_eq!(rung(), [0, 0]);
    free_one(&rig.mm, &taken).unwrap();
    assert_eq!(rung(), [1, 0], "the oldest got both");
    let Poll::Ready(Ok(block)) = poll(waiters[0].as_mut(), &bells[0]) else { panic!("handed over") };
    // One is gone, the other waits on.
    drop(waiters.remove(0));
    free_one(&rig.mm, &taken).unwrap();
    free_one(&rig.mm, &taken).unwrap();
    assert_eq!(rung(), [1, 1]);
    let Poll::Ready(Ok(next)) = poll(waiters[0].as_mut(), &bells[1]) else { panic!("handed over") };
    drop(waiters);
    for block in [block, next] {
        rig.mm.free_pages(block.as_ptr(), 1).unwrap();
    }
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

/// Each step of a request that waits is made to fail, in the first attempt, in what it is handed, and in what it does
/// with it: an error then, and nothing is lost.
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

/// Where slabs are single pages of which none is kept.
#[cfg(feature = "small")]
#[test]
fn a_slab_that_is_wholly_free_serves_who_waits_for_a_page_wherever_it_is_listed() {
    const SIZE: usize = 64;
    let rig = rig();
    let (before, slots) = (rig.mm.free_page_count(), PAGE / SIZE);
    let objects: Vec<_> = (0..2 * slots).map(|_| rig.mm.kmalloc(SIZE, GFP_KERNEL).unwrap().as_ptr()).collect();
    let (first, second): (Vec<_>, Vec<_>) =
        objects.iter().copied().partition(|object| object.addr() / PAGE == objects[0].addr() / PAGE);
    assert_eq!((first.len(), second.len()), (slots, slots));
    let taken = use_up(&rig.mm);
    let bell = Arc::<Bell>::default();
    let mut future = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0));
    assert!(poll(future.as_mut(), &bell).is_pending());
    // The second slab is listed, then the first before it.
    rig.mm.kfree(second[0]).unwrap();
    rig.mm.kfree(first[0]).unwrap();
    for &object in &second[1..] {
        rig.mm.kfree(object).unwrap();
    }
    rig.mm.check().unwrap();
    let Poll::Ready(Ok(page)) = poll(future.as_mut(), &bell) else { panic!("its page is kept from who waits") };
    rig.mm.free_page(page.as_ptr()).unwrap();
    drop(future);
    for &object in &first[1..] {
        rig.mm.kfree(object).unwrap();
    }
    end(rig, &taken, before);
}
