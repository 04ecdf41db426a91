//! Waiting for objects of a class or a cache, and for elements of a pool.

mod common;

use backend_nommu::Arena;
use common::waiting::*;
use common::*;
use mm_core::*;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};
use std::task::Poll;

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
        // And one more for what tells which of its objects are free.
        free_one(&rig.mm, &taken).unwrap();
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
    // Of a size that has slabs of one page.
    let mut future = Box::pin(rig.mm.kmalloc_async(256, GFP_KERNEL));
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
