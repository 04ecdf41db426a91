//! What a request does that finds no memory, and the reserve it may not touch.

mod common;

use backend_nommu::Arena;
use common::*;
use mm_core::*;
use proptest::prelude::*;
use rtmm_testkit::rig::Rig;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

type TestRig = &'static Rig<Arena>;

fn rig() -> TestRig {
    Box::leak(Box::new(nommu()))
}

const QUIET: Gfp = GFP_NOWAIT.union(Gfp::NOWARN);

/// Takes single pages until ordinary requests get none.
fn use_up<B: Backend>(mm: &TestMm<B>) -> Vec<usize> {
    mm.drain();
    std::iter::from_fn(|| mm.get_free_page(QUIET).ok()).map(|p| p.addr().get()).collect()
}

fn free<B: Backend>(mm: &TestMm<B>, at: usize) {
    mm.free_page(std::ptr::without_provenance(at)).unwrap();
}

/// What a shrinker does when it is asked.
type Scan = Box<dyn Fn(&ShrinkRequest) -> usize + Send + Sync>;

struct Cache {
    count: usize,
    scan: Scan,
    asked: AtomicUsize,
}

impl Cache {
    fn new(count: usize, scan: impl Fn(&ShrinkRequest) -> usize + Send + Sync + 'static) -> &'static Cache {
        Box::leak(Box::new(Cache { count, scan: Box::new(scan), asked: AtomicUsize::new(0) }))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Shrinker for Cache {
    fn count(&self, request: &ShrinkRequest) -> usize {
        assert!(request.flags.contains(Gfp::WAIT));
        self.count
    }

    fn scan(&self, request: &ShrinkRequest) -> usize {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert!(request.scan >= 1 && request.scan <= self.count);
        (self.scan)(request)
    }
}

/// A cache that gives back pages.
fn honest(rig: TestRig, pages: Vec<usize>) -> &'static Cache {
    let count = pages.len();
    let pages = Mutex::new(pages);
    Cache::new(count, move |request| {
        let mut given = 0;
        while given < request.scan.min(request.pages) {
            let Some(at) = pages.lock().unwrap().pop() else { break };
            free(&rig.mm, at);
            given += 1;
        }
        given
    })
}

#[test]
fn kept_slabs_are_taken_back_before_a_request_fails() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let object = rig.mm.kmalloc(2048, GFP_KERNEL).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| rig.mm.get_free_page(QUIET).ok()).collect();
    // The slab stays with its class, and nobody uses it; the descriptor's page is kept likewise.
    rig.mm.kfree(object.as_ptr()).unwrap();
    for flags in [QUIET, GFP_ATOMIC] {
        let page = rig.mm.get_free_page(flags).unwrap();
        rig.mm.free_page(page.as_ptr()).unwrap();
    }
    assert_eq!(rig.platform.waits(), 0);
    taken.iter().for_each(|page| rig.mm.free_page(page.as_ptr()).unwrap());
    rig.mm.drain();
    assert_eq!(rig.mm.free_page_count(), before);
}

#[test]
fn a_shrinker_gives_what_is_asked_for_and_nobody_waits() {
    let rig = rig();
    let mut taken = use_up(&rig.mm);
    let cache = honest(rig, taken.split_off(taken.len() - 100));
    let id = rig.mm.register_shrinker(cache).unwrap();
    assert_eq!(rig.mm.register_shrinker(cache), Err(MmError::Exists));
    // Those who may not wait do not have it asked.
    assert_eq!(rig.mm.get_free_page(QUIET), Err(AllocError::NoMemory));
    rig.platform.set_context(Context::Atomic);
    assert_eq!(rig.mm.get_free_page(GFP_KERNEL), Err(AllocError::NoMemory));
    assert_eq!((cache.asked(), rig.platform.take_bugs().len()), (0, 1));
    rig.platform.set_context(Context::Task);
    for asked in 1..=20 {
        taken.push(rig.mm.get_free_page(GFP_KERNEL).unwrap().addr().get());
        assert_eq!(cache.asked(), asked);
    }
    let object = rig.mm.kmalloc(3000, GFP_KERNEL | Gfp::NORETRY).unwrap();
    rig.mm.kfree(object.as_ptr()).unwrap();
    assert_eq!(rig.platform.waits(), 0);
    rig.mm.unregister_shrinker(id).unwrap();
    assert_eq!(rig.mm.unregister_shrinker(id), Err(MmError::Inval));
    rig.mm.check().unwrap();
}

#[test]
fn a_shrinker_that_lies_or_never_gives_is_asked_four_times_at_most() {
    for (count, answer, flags, asked) in [
        (usize::MAX, usize::MAX, GFP_KERNEL, 4),
        (1, 1, GFP_KERNEL, 4),
        (usize::MAX, 0, GFP_KERNEL, 1),
        (0, 5, GFP_KERNEL, 0),
        (1000, 1000, GFP_KERNEL | Gfp::NORETRY, 1),
    ] {
        let rig = rig();
        let taken = use_up(&rig.mm);
        let cache = Cache::new(count, move |_| answer);
        rig.mm.register_shrinker(cache).unwrap();
        assert_eq!(rig.mm.get_free_page(flags), Err(AllocError::NoMemory), "{count} {answer}");
        assert_eq!(cache.asked(), asked, "{count} {answer}");
        assert_eq!(rig.platform.waits() != 0, !flags.contains(Gfp::NORETRY));
        assert!(rig.mm.kmalloc(64, flags | Gfp::NORETRY).is_err());
        rig.mm.check().unwrap();
        taken.iter().for_each(|&at| free(&rig.mm, at));
    }
}

#[test]
fn a_shrinker_may_allocate_and_free_and_is_not_asked_meanwhile() {
    let rig = rig();
    let mut taken = use_up(&rig.mm);
    let held = Mutex::new(vec![taken.pop().unwrap()]);
    let cache: &'static OnceLock<&'static Cache> = Box::leak(Box::new(OnceLock::new()));
    cache
        .set(Cache::new(10, move |_| {
            // Nothing is there: neither asks the shrinker again, nor waits.
            assert_eq!(rig.mm.get_free_page(GFP_KERNEL), Err(AllocError::NoMemory));
            assert_eq!(rig.mm.vmalloc(PAGE), Err(AllocError::NoMemory));
            let Some(at) = held.lock().unwrap().pop() else { return 0 };
            free(&rig.mm, at);
            let object = rig.mm.get_free_page(GFP_KERNEL).unwrap();
            rig.mm.free_page(object.as_ptr()).unwrap();
            1
        }))
        .ok()
        .unwrap();
    let id = rig.mm.register_shrinker(*cache.get().unwrap()).unwrap();
    taken.push(rig.mm.get_free_page(GFP_KERNEL).unwrap().addr().get());
    assert_eq!((cache.get().unwrap().asked(), rig.platform.waits()), (1, 0));
    rig.mm.unregister_shrinker(id).unwrap();
    taken.iter().for_each(|&at| free(&rig.mm, at));
    rig.mm.check().unwrap();
}

#[test]
fn a_shrinker_cannot_take_itself_out_while_it_runs() {
    let rig = rig();
    let taken = use_up(&rig.mm);
    static ID: Mutex<Option<ShrinkerId>> = Mutex::new(None);
    let cache = Cache::new(3, move |_| {
        let id = ID.lock().unwrap().unwrap();
        assert_eq!(rig.mm.unregister_shrinker(id), Err(MmError::Busy(1)));
        0
    });
    *ID.lock().unwrap() = Some(rig.mm.register_shrinker(cache).unwrap());
    assert!(rig.mm.get_free_page(GFP_KERNEL | Gfp::NORETRY).is_err());
    let id = ID.lock().unwrap().unwrap();
    rig.mm.unregister_shrinker(id).unwrap();
    assert!(rig.mm.get_free_page(GFP_KERNEL | Gfp::NORETRY).is_err());
    assert_eq!(cache.asked(), 1);
    // Eight are room enough (four where code is to be small), and one more is none.
    let most = if cfg!(feature = "small") { 4 } else { 8 };
    let ids: Vec<_> = (0..most).map(|_| rig.mm.register_shrinker(Cache::new(0, |_| 0)).unwrap()).collect();
    assert_eq!(rig.mm.register_shrinker(cache), Err(AllocError::NoMemory.into()));
    rig.mm.unregister_shrinker(ids[3]).unwrap();
    let new = rig.mm.register_shrinker(cache).unwrap();
    // An id of the slot's former user is not the new one's.
    assert_eq!(rig.mm.unregister_shrinker(ids[3]), Err(MmError::Inval));
    rig.mm.unregister_shrinker(new).unwrap();
    taken.iter().for_each(|&at| free(&rig.mm, at));
}

#[test]
fn a_panic_in_a_shrinker_leaves_nothing_held() {
    let rig = rig();
    let taken = use_up(&rig.mm);
    let cache = Cache::new(3, |_| panic!("on purpose"));
    let id = rig.mm.register_shrinker(cache).unwrap();
    for asked in 1..=2 {
        let call = std::panic::AssertUnwindSafe(|| rig.mm.get_free_page(GFP_KERNEL));
        assert!(std::panic::catch_unwind(call).is_err());
        assert_eq!(cache.asked(), asked, "the next request asks again");
    }
    rig.mm.unregister_shrinker(id).unwrap();
    taken.iter().for_each(|&at| free(&rig.mm, at));
    rig.mm.check().unwrap();
}

#[test]
fn failing_a_hundred_thousand_times_comes_to_an_end() {
    let rig = rig();
    let taken = use_up(&rig.mm);
    for _ in 0..if cfg!(miri) { 100 } else { 100_000 } {
        assert_eq!(rig.mm.get_free_page(QUIET), Err(AllocError::NoMemory));
        assert_eq!(rig.mm.kmalloc(64, QUIET), Err(AllocError::NoMemory));
    }
    taken.iter().for_each(|&at| free(&rig.mm, at));
    rig.mm.check().unwrap();
}

#[test]
fn ordinary_requests_stop_above_what_atomic_ones_may_have() {
    // Not with feature `debug`: an object of a page takes two with its red zones.
    if cfg!(feature = "debug") {
        return;
    }
    let rig = rig();
    let marks = rig.mm.zoneinfo().zones()[0].marks;
    let zone = || rig.mm.zoneinfo().zones()[0];
    let mut taken = use_up(&rig.mm);
    assert_eq!(zone().free, marks.min);
    assert_eq!((zone().spare(GFP_KERNEL), zone().spare(GFP_ATOMIC)), (0, marks.min - marks.min * 3 / 8));
    let reserve = zone().spare(GFP_ATOMIC);
    for _ in 0..reserve {
        taken.push(rig.mm.get_free_page(GFP_ATOMIC).unwrap().addr().get());
    }
    // One more is one too many; what is left is for the manager's own needs in an atomic request.
    assert_eq!(rig.mm.get_free_page(GFP_ATOMIC), Err(AllocError::NoMemory));
    assert_eq!(zone().free, marks.min * 3 / 8);
    // An object that needs a page of its own and one of descriptors: given one page, an interrupt gets it.
    free(&rig.mm, taken.pop().unwrap());
    let object = rig.mm.kmalloc(4096, GFP_ATOMIC).unwrap();
    assert_eq!(zone().free, marks.min * 3 / 8 - 1);
    rig.mm.kfree(object.as_ptr()).unwrap();
    taken.iter().for_each(|&at| free(&rig.mm, at));
    rig.mm.check().unwrap();
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pages(usize, usize),
    Object(usize, usize),
    Area(usize),
    Free(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..FLAGS.len(), 0..4usize).prop_map(|(flags, order)| Step::Pages(flags, order)),
        3 => (0..FLAGS.len(), 1..9000usize).prop_map(|(flags, size)| Step::Object(flags, size)),
        1 => (1..40usize).prop_map(Step::Area),
        2 => any::<usize>().prop_map(Step::Free),
    ]
}

const FLAGS: [Gfp; 6] = [QUIET, GFP_KERNEL, GFP_ATOMIC, GFP_DMA, GFP_ATOMIC.union(GFP_DMA), GFP_HIGHUSER];

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 32 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked for: what is not atomic never takes a zone below its minimum and the reserve against it, nor
    /// do atomic requests go below theirs, but for the manager's own pages.
    #[test]
    fn the_reserves_hold_in_any_life(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 40 } else { 400 })) {
        let rig = mmu();
        let mm = &rig.mm;
        let mut live: Vec<(usize, usize)> = Vec::new();
        const OBJECT: usize = 100;
        const AREA: usize = 101;
        // Few pages are left to begin with.
        while mm.zoneinfo().spare(QUIET) > 150 {
            live.push((mm.get_free_page(QUIET).unwrap().addr().get(), 0));
        }
        for step in steps {
            let before = mm.zoneinfo();
            let mut asked = None;
            match step {
                Step::Pages(flags, order) => {
                    asked = Some(FLAGS[flags]);
                    live.extend(mm.get_free_pages(FLAGS[flags], order).map(|p| (p.addr().get(), order)));
                }
                Step::Object(flags, size) => {
                    asked = Some(FLAGS[flags]);
                    live.extend(mm.kmalloc(size, FLAGS[flags]).map(|p| (p.addr().get(), OBJECT)));
                }
                Step::Area(pages) => {
                    asked = Some(GFP_HIGHUSER);
                    live.extend(mm.vmalloc(pages * PAGE).map(|p| (p.addr().get(), AREA)));
                }
                Step::Free(_) if live.is_empty() => {}
                Step::Free(at) => {
                    let (at, kind) = live.swap_remove(at % live.len());
                    let ptr = std::ptr::without_provenance(at);
                    match kind {
                        OBJECT => mm.kfree(ptr).unwrap(),
                        AREA => mm.vfree(ptr).unwrap(),
                        order => mm.free_pages(ptr, order).unwrap(),
                    }
                }
            }
            let Some(flags) = asked else { continue };
            let atomic = flags.contains(Gfp::HIGH);
            for (was, is) in before.zones().iter().zip(mm.zoneinfo().zones()) {
                if is.free >= was.free {
                    continue;
                }
                let kind = if flags.contains(Gfp::DMA) { ZoneKind::Dma } else { ZoneKind::Normal };
                prop_assert!(is.kind <= kind || step_is_own(step), "{step:?} reached up to {:?}", is.kind);
                // The manager's own pages follow the request, one step deeper when it is atomic.
                let own = is.marks.limit(kind.min(is.kind), if atomic { Depth::Own } else { Depth::Min });
                prop_assert!(is.free >= own, "{step:?} left {} of {:?}, {own} are kept", is.free, is.kind);
                if matches!(step, Step::Pages(..)) {
                    let depth = if atomic { Depth::Atomic } else { Depth::Min };
                    prop_assert!(is.free >= is.marks.limit(kind, depth), "{step:?} left {} of {:?}", is.free, is.kind);
                }
            }
        }
        for (at, kind) in live {
            let ptr = std::ptr::without_provenance(at);
            match kind {
                OBJECT => mm.kfree(ptr).unwrap(),
                AREA => mm.vfree(ptr).unwrap(),
                order => mm.free_pages(ptr, order).unwrap(),
            }
        }
        mm.drain();
        mm.check().unwrap();
    }
}

/// The manager's own pages come from any low memory, also for a DMA request.
fn step_is_own(step: Step) -> bool {
    matches!(step, Step::Object(..))
}
