//! Caches: values that are kept constructed, many objects at a time, objects set aside.

#[macro_use]
mod common;

use common::steps::fail_each;
use common::{PAGE, TestMm, drained, nommu, unchanged};
use mm_core::*;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

both! {
    a_constructor_runs_when_a_slab_is_carved_not_per_allocation;
    values_are_dropped_when_their_slab_goes_back;
    a_constructor_of_bytes_reaches_every_object;
    zeroes_would_undo_a_constructor;
    a_busy_typed_cache_is_not_destroyed;
    wrong_values_are_refused;
    values_of_any_size_and_alignment;
    bulk_takes_all_or_nothing;
    a_bulk_free_stops_at_the_first_wrong_object;
    what_was_set_aside_is_had_without_memory;
    shrinking_gives_the_kept_slab_back;
    every_step_of_caches;
}

thread_local! {
    /// Values made and dropped by the test of this thread.
    static COUNTS: RefCell<(usize, usize)> = const { RefCell::new((0, 0)) };
}

fn counts() -> (usize, usize) {
    COUNTS.with(|counts| *counts.borrow())
}

/// Counts its makings and drops.
struct Counted {
    uses: u32,
    text: [u8; 90],
}

impl Counted {
    fn new() -> Counted {
        COUNTS.with(|counts| counts.borrow_mut().0 += 1);
        Counted { uses: 0, text: [0x77; 90] }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert_eq!(self.text, [0x77; 90], "dropped what was never made, or twice");
        self.text = [0; 90];
        COUNTS.with(|counts| counts.borrow_mut().1 += 1);
    }
}

fn cache<B: Backend>(mm: &TestMm<B>) -> KmemCache<Counted, &TestMm<B>> {
    KmemCache::new_in("counted", Counted::new, CacheFlags::empty(), mm).unwrap()
}

fn a_constructor_runs_when_a_slab_is_carved_not_per_allocation<B: Backend>(mm: &TestMm<B>) {
    let before = counts();
    let cache = cache(mm);
    assert_eq!(counts(), before, "nothing is made before it is needed");
    let mut first = cache.alloc(GFP_KERNEL).unwrap();
    let per_slab = cache.counts().objects;
    assert_eq!((counts().0 - before.0, first.uses, first.text), (per_slab, 0, [0x77; 90]));
    // Another object keeps the slab, where nothing else does.
    let other = cache.alloc(GFP_KERNEL).unwrap();
    for n in 1..=5 {
        first.uses = n;
        let at = std::ptr::from_ref(&*first);
        drop(first);
        first = cache.alloc(GFP_KERNEL).unwrap();
        assert_eq!((std::ptr::from_ref(&*first), first.uses), (at, n), "the state stays from one owner to the next");
    }
    let others: Vec<_> = (1..per_slab).map(|_| cache.alloc(GFP_KERNEL).unwrap()).collect();
    assert!(others.iter().chain([&other]).all(|value| value.uses == 0 && value.text == [0x77; 90]));
    assert_eq!(counts(), (before.0 + 2 * per_slab, before.1));
}

fn values_are_dropped_when_their_slab_goes_back<B: Backend>(mm: &TestMm<B>) {
    let before = counts();
    let cache = cache(mm);
    let values: Vec<_> = (0..200).map(|_| cache.alloc(GFP_KERNEL).unwrap()).collect();
    let made = counts().0 - before.0;
    assert_eq!(counts().1, before.1);
    drop(values);
    let kept = cache.counts().objects;
    assert_eq!(counts().1 - before.1, made - kept, "one slab is kept, or none");
    mm.drain();
    assert_eq!((counts().1 - before.1, cache.counts().slabs), (made, 0));
    drop(cache.alloc(GFP_KERNEL).unwrap());
    let made = counts().0 - before.0;
    assert!(cache.destroy().is_ok());
    assert_eq!(counts(), (before.0 + made, before.1 + made));
}

fn a_constructor_of_bytes_reaches_every_object<B: Backend>(mm: &TestMm<B>) {
    // SAFETY: it is called with objects of 100 bytes.
    let fill = |at: NonNull<u8>| unsafe { at.write_bytes(0xc3, 100) };
    let cache = mm.kmem_cache_create("bytes", 100, 8, CacheFlags::empty(), Some(fill)).unwrap();
    let objects: Vec<_> = (0..150).map(|_| cache.alloc(GFP_ATOMIC).unwrap()).collect();
    for object in &objects {
        // SAFETY: ours, that long.
        assert_eq!(unsafe { std::slice::from_raw_parts(object.as_ptr(), 100) }, [0xc3; 100]);
    }
    objects.into_iter().for_each(|object| cache.free(object.as_ptr()).unwrap());
}

fn zeroes_would_undo_a_constructor<B: Backend>(mm: &TestMm<B>) {
    let cache = cache(mm);
    assert_eq!(unchanged(mm, || cache.alloc(GFP_KERNEL | Gfp::ZERO).err()), Some(AllocError::BadFlags));
    assert_eq!(unchanged(mm, || cache.alloc(GFP_KERNEL | GFP_DMA).err()), Some(AllocError::BadFlags));
    let bulk = unchanged(mm, || cache.as_raw().alloc_bulk(GFP_KERNEL | Gfp::ZERO, &mut [null_mut()]));
    assert_eq!(bulk, Err(AllocError::BadFlags));
    let nothing = KmemCache::new_in("nothing", || (), CacheFlags::empty(), mm);
    assert_eq!(nothing.err(), Some(MmError::Inval), "a type without size");
}

fn a_busy_typed_cache_is_not_destroyed<B: Backend>(mm: &TestMm<B>) {
    let cache = cache(mm);
    let value = cache.alloc(GFP_KERNEL).unwrap().into_raw();
    let (cache, error) = cache.destroy().err().unwrap();
    assert_eq!(error, MmError::Busy(1));
    // SAFETY: it came from `into_raw`.
    let value = unsafe { CacheBox::from_raw(value, &cache) };
    assert_eq!(value.text, [0x77; 90]);
    drop(value);
    assert!(cache.destroy().is_ok());
}

fn free<T, M: Manager>(cache: &KmemCache<T, M>, value: std::ptr::NonNull<T>) -> Result<(), FreeError> {
    // SAFETY: no test uses a value behind this, and no box owns it.
    unsafe { cache.free(value) }
}

fn wrong_values_are_refused<B: Backend>(mm: &TestMm<B>) {
    let (cache, other) = (cache(mm), KmemCache::new_in("other", Counted::new, CacheFlags::empty(), mm).unwrap());
    let (a, b) = (cache.alloc(GFP_KERNEL).unwrap().into_raw(), other.alloc(GFP_KERNEL).unwrap().into_raw());
    let kept = cache.alloc(GFP_KERNEL).unwrap();
    assert_eq!(unchanged(mm, || free(&cache, b)), Err(FreeError::WrongCache));
    assert_eq!(unchanged(mm, || free(&cache, a.map_addr(|addr| addr.saturating_add(8)))), Err(FreeError::Interior));
    let here = [0u8; 100];
    assert_eq!(unchanged(mm, || free(&cache, std::ptr::NonNull::from(&here).cast())), Err(FreeError::Foreign));
    free(&cache, a).unwrap();
    assert_eq!(unchanged(mm, || free(&cache, a)), Err(FreeError::DoubleFree));
    free(&other, b).unwrap();
    drop(kept);
}

fn values_of_any_size_and_alignment<B: Backend>(mm: &TestMm<B>) {
    #[repr(align(256))]
    struct Wide([u8; 3]);
    struct Huge([u64; 3000]);
    let byte = KmemCache::new_in("byte", || 7u8, CacheFlags::empty(), mm).unwrap();
    let wide = KmemCache::new_in("wide", || Wide([1, 2, 3]), CacheFlags::HWCACHE_ALIGN, mm).unwrap();
    let huge = KmemCache::new_in("huge", || Huge([9; 3000]), CacheFlags::empty(), mm).unwrap();
    for _ in 0..3 {
        assert_eq!(*byte.alloc(GFP_KERNEL).unwrap(), 7);
        let (one, two) = (wide.alloc(GFP_KERNEL).unwrap(), wide.alloc(GFP_KERNEL).unwrap());
        assert!(std::ptr::from_ref(&*one).addr() % 256 == 0 && one.0 == two.0);
        assert!(huge.alloc(GFP_KERNEL).unwrap().0 == [9; 3000]);
        mm.drain();
    }
}

fn bulk_takes_all_or_nothing<B: Backend>(mm: &TestMm<B>) {
    let cache = mm.kmem_cache_create("bulk", 56, 8, CacheFlags::empty(), None).unwrap();
    for count in [0, 1, 31, 32, 33, 300] {
        let mut objects = vec![null_mut(); count];
        cache.alloc_bulk(GFP_KERNEL | Gfp::ZERO, &mut objects).unwrap();
        assert_eq!(cache.counts().active, count);
        for (i, object) in objects.iter().enumerate() {
            // SAFETY: ours, that long.
            unsafe {
                assert_eq!(std::slice::from_raw_parts(*object, 56), [0; 56]);
                object.write_bytes(i as u8 | 1, 56);
            }
        }
        for (i, object) in objects.iter().enumerate() {
            // SAFETY: as above.
            assert_eq!(unsafe { std::slice::from_raw_parts(*object, 56) }, [i as u8 | 1; 56], "objects overlap");
        }
        if count == 300 {
            // In another order than they came.
            objects.sort_by_key(|object| object.addr() % 1009);
        }
        cache.free_bulk(&objects).unwrap();
        assert_eq!(cache.counts().active, 0);
        mm.check().unwrap();
    }
    // More than there is.
    let mut objects = vec![null_mut::<u8>().wrapping_add(1); mm.meminfo().total as usize / 56];
    let before = drained(mm);
    assert!(cache.alloc_bulk(GFP_KERNEL | Gfp::NOWARN, &mut objects).is_err());
    assert!(objects.iter().all(|object| object.is_null()));
    assert_eq!(drained(mm), before);
}

fn a_bulk_free_stops_at_the_first_wrong_object<B: Backend>(mm: &TestMm<B>) {
    let make = |name| mm.kmem_cache_create(name, 200, 8, CacheFlags::empty(), None).unwrap();
    let (cache, other) = (make("one"), make("two"));
    let alien = other.alloc(GFP_KERNEL).unwrap().as_ptr();
    let kmalloced = mm.kmalloc(200, GFP_KERNEL).unwrap().as_ptr();
    let here = [0u8; 8];
    let page = mm.get_free_page(GFP_KERNEL).unwrap().as_ptr();
    for place in [0, 1, 31, 32, 50] {
        let mut objects = [null_mut(); 60];
        cache.alloc_bulk(GFP_KERNEL, &mut objects).unwrap();
        let all = objects;
        let wrong = [
            (alien, FreeError::WrongCache),
            (kmalloced, FreeError::WrongAllocator),
            (page, FreeError::WrongAllocator),
            (here.as_ptr().cast_mut(), FreeError::Foreign),
            (all[place].wrapping_add(1), FreeError::Interior),
        ];
        for (bad, error) in wrong {
            objects[place] = bad;
            assert_eq!(cache.free_bulk(&objects[place..]), Err((0, error)));
            assert_eq!(cache.counts().active, 60);
        }
        assert_eq!(cache.free_bulk(&objects), Err((place, FreeError::Interior)));
        assert_eq!(cache.counts().active, 60 - place);
        if place != 0 {
            assert_eq!(cache.free_bulk(&all[..1]), Err((0, FreeError::DoubleFree)));
        }
        cache.free_bulk(&all[place..]).unwrap();
        mm.check().unwrap();
    }
    other.free(alien).unwrap();
    mm.kfree(kmalloced).unwrap();
    mm.free_page(page).unwrap();
}

fn what_was_set_aside_is_had_without_memory<B: Backend>(mm: &TestMm<B>) {
    let cache = cache(mm);
    let mut sheaf = cache.prefill(40, GFP_KERNEL).unwrap();
    assert_eq!((sheaf.len(), cache.counts().active), (40, 40));
    // Not one step can be had any more, and no step is asked for.
    mm.faults().fail_from(FaultClass::Any, 1);
    let values: Vec<_> = std::iter::from_fn(|| sheaf.alloc()).collect();
    assert!(!mm.faults().hit());
    assert!(values.len() == 40 && values.iter().all(|value| value.text == [0x77; 90]));
    assert!(sheaf.is_empty() && sheaf.alloc().is_none());
    mm.faults().fail_from(FaultClass::Any, 1);
    assert!(sheaf.refill(GFP_KERNEL).is_err() && sheaf.is_empty());
    mm.faults().disarm();
    sheaf.refill(GFP_KERNEL).unwrap();
    drop(sheaf.alloc());
    sheaf.refill(GFP_KERNEL).unwrap();
    assert_eq!((sheaf.len(), cache.counts().active), (40, 80));
    drop(sheaf);
    assert_eq!(cache.counts().active, 40, "what is left goes back");
    drop(values);
    assert_eq!(unchanged(mm, || cache.prefill(0, GFP_KERNEL).err()), Some(AllocError::ZeroSize));
    assert_eq!(unchanged(mm, || cache.prefill(usize::MAX, GFP_KERNEL).err()), Some(AllocError::TooBig));
    assert_eq!(unchanged(mm, || cache.prefill(1, Gfp(1 << 31)).err()), Some(AllocError::BadFlags));
}

fn shrinking_gives_the_kept_slab_back<B: Backend>(mm: &TestMm<B>) {
    let cache = cache(mm);
    assert_eq!(cache.shrink(), 0);
    let value = cache.alloc(GFP_KERNEL).unwrap();
    assert_eq!(cache.shrink(), 0, "it is in use");
    drop(value);
    if cfg!(feature = "small") {
        // There nothing is kept.
        assert_eq!((cache.counts().slabs, cache.shrink()), (0, 0));
        return;
    }
    let (free, dropped) = (mm.free_page_count(), counts().1);
    let pages = cache.shrink();
    assert!(pages > 0 && mm.free_page_count() >= free + pages && counts().1 > dropped);
    assert_eq!((cache.counts().slabs, cache.shrink()), (0, 0));
}

fn every_step_of_caches<B: Backend>(mm: &TestMm<B>) {
    let made = fail_each(mm, "a typed cache", |plan| {
        let cache = plan.during(|| KmemCache::new_in("fails", Counted::new, CacheFlags::empty(), plan.mm))?;
        cache.destroy().map_err(|(_, error)| error)
    });
    assert_eq!(made, 1);
    fail_each(mm, "a value", |plan| {
        let (cache, before) = (cache(plan.mm), counts());
        let value = plan.during(|| cache.alloc(GFP_KERNEL));
        assert_eq!(counts().0 == before.0, value.is_err(), "made for nothing, or not made");
        Ok(value.map(drop)?)
    });
    fail_each(mm, "many objects", |plan| {
        let cache = cache(plan.mm);
        let mut objects = [null_mut(); 100];
        plan.during(|| cache.as_raw().alloc_bulk(GFP_KERNEL, &mut objects))?;
        cache.as_raw().free_bulk(&objects).map_err(|(_, error)| error.into())
    });
    fail_each(mm, "objects set aside", |plan| {
        let cache = cache(plan.mm);
        let sheaf = plan.during(|| cache.prefill(70, GFP_KERNEL));
        Ok(sheaf.map(drop)?)
    });
    let (made, dropped) = counts();
    assert_eq!(made, dropped);
}

#[test]
fn a_constructor_that_unwinds_leaves_no_slab_and_no_value() {
    static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    struct Fragile([u64; 10]);
    impl Drop for Fragile {
        fn drop(&mut self) {
            assert_eq!(self.0, [5; 10]);
            ALIVE.fetch_sub(1, SeqCst);
        }
    }
    fn fragile() -> Fragile {
        assert_ne!(LEFT.fetch_sub(1, SeqCst), 0, "told to");
        ALIVE.fetch_add(1, SeqCst);
        Fragile([5; 10])
    }
    let rig = nommu();
    rig.nothing_lost(|mm| {
        let cache = KmemCache::new_in("fragile", fragile, CacheFlags::empty(), mm).unwrap();
        let per_slab = cache.alloc(GFP_KERNEL).map(|_| cache.counts().objects).unwrap();
        cache.shrink();
        for k in [0, 1, per_slab / 2, per_slab - 1] {
            let before = drained(mm);
            LEFT.store(k, SeqCst);
            assert!(catch_unwind(AssertUnwindSafe(|| cache.alloc(GFP_KERNEL).is_ok())).is_err());
            assert_eq!((drained(mm), ALIVE.load(SeqCst)), (before, 0), "the constructor of object {k}");
        }
        LEFT.store(usize::MAX, SeqCst);
        assert_eq!(cache.alloc(GFP_KERNEL).unwrap().0, [5; 10]);
    });
    assert_eq!(ALIVE.load(SeqCst), 0);
}

/// Constructors and drops hold no lock: they may use the manager.
#[test]
fn constructors_and_drops_may_allocate_and_free() {
    type Nommu = Mm<rtmm_testkit::TestPlatform, backend_nommu::Arena>;
    static WHERE: AtomicUsize = AtomicUsize::new(0);
    /// The manager of the test, which outlives every value.
    #[derive(Clone, Copy)]
    struct Here;
    // SAFETY: the address is set once, to a manager that outlives its use.
    unsafe impl Manager for Here {
        type Platform = rtmm_testkit::TestPlatform;
        type Backend = backend_nommu::Arena;
        fn mm(&self) -> &Nommu {
            // SAFETY: as above; its provenance was exposed.
            unsafe { &*std::ptr::with_exposed_provenance(WHERE.load(SeqCst)) }
        }
    }
    struct Owner(KBox<[u8; 900], Here>);
    fn owner() -> Owner {
        let page = Here.mm().get_free_pages(GFP_KERNEL, 1).unwrap();
        Here.mm().free_pages(page.as_ptr(), 1).unwrap();
        Here.mm().drain();
        Owner(KBox::new_in([3; 900], GFP_KERNEL, Here).unwrap())
    }
    let rig = nommu();
    WHERE.store(std::ptr::from_ref(&*rig.mm).expose_provenance(), SeqCst);
    rig.nothing_lost(|mm| {
        let cache = KmemCache::new_in("owner", owner, CacheFlags::empty(), mm).unwrap();
        let values: Vec<_> = (0..300).map(|_| cache.alloc(GFP_KERNEL).unwrap()).collect();
        assert!(values.iter().all(|value| value.0[899] == 3) && mm.slabinfo().active().0 >= 300);
        drop(values);
        mm.check().unwrap();
        assert!(mm.free_page_count() * PAGE > 0);
    });
}
