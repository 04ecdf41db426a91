//! Guarded caches: planted writes are found, reported, and what they spoilt is never handed out again.

mod common;

use common::{TestMm, mmu, nommu, unchanged};
use mm_core::*;
use rtmm_testkit::TestPlatform;
use std::ptr::null_mut;

const BOTH: CacheFlags = CacheFlags::RED_ZONE.union(CacheFlags::POISON);

type Cache<'a, B> = RawKmemCache<&'a TestMm<B>>;

fn cache<B: Backend>(mm: &TestMm<B>, size: usize, flags: CacheFlags) -> Cache<'_, B> {
    mm.kmem_cache_create("guarded", size, 0, flags, None).unwrap()
}

fn take<B: Backend>(cache: &Cache<'_, B>) -> *mut u8 {
    cache.alloc(GFP_KERNEL).unwrap().as_ptr()
}

/// The one report there is: the object, the address, and what was overwritten.
fn reported(platform: &TestPlatform) -> (usize, usize, Overwritten) {
    match platform.take_bugs()[..] {
        [Bug::ObjectDamaged { cache: "guarded", object, at, what, caller, .. }] => {
            assert!(caller.file().ends_with("guards.rs"), "found at {caller}");
            (object, at, what)
        }
        ref other => panic!("{other:?}"),
    }
}

/// Objects aligned to a page or more do not begin in the first page of their slab, since a zone is before them.
#[test]
fn objects_aligned_to_pages_are_watched_and_freed() {
    for align in [4096, 8192] {
        for size in [100, 4096, 5000, 20_000] {
            mmu().nothing_lost(|mm| {
                let cache = mm.kmem_cache_create("aligned", size, align, BOTH, None).unwrap();
                let all: Vec<_> = (0..5).map(|_| take(&cache)).collect();
                assert!(all.iter().all(|object| object.addr().is_multiple_of(align)));
                mm.check().unwrap();
                assert_eq!(cache.validate(), 0);
                for object in all {
                    assert_eq!(cache.free(object.wrapping_add(8)), Err(FreeError::Interior));
                    cache.free(object).unwrap();
                }
                cache.destroy().map_err(|(_, error)| error).unwrap();
            });
        }
    }
}

/// A cache with withdrawn objects is not destroyed, and says how many there are.
fn abandon<B: Backend>(cache: Cache<'_, B>, withdrawn: usize) {
    let (cache, error) = cache.destroy().err().unwrap();
    assert_eq!(error, MmError::Busy(withdrawn));
    std::mem::forget(cache);
}

#[test]
fn an_overflow_by_1_to_64_bytes_is_found_at_the_free() {
    for size in [1, 8, 24, 100, 500, 3000, 9000] {
        let rig = nommu();
        let cache = cache(&rig.mm, size, CacheFlags::RED_ZONE);
        let all: Vec<_> = (0..40).map(|_| take(&cache)).collect();
        let mut spoilt = Vec::new();
        for (by, object) in [1, 2, 7, 8, 9, 31, 63, 64].into_iter().zip(all.iter().skip(1).step_by(3)) {
            // SAFETY: the object is ours; what is behind it is the cache's red zone, which the test spoils.
            unsafe { object.write_bytes(0x11, size + by) };
            cache.free(*object).unwrap();
            let want = (object.addr(), object.addr() + size, Overwritten::RedZone);
            assert_eq!(reported(&rig.platform), want, "{by} bytes past an object of {size}");
            spoilt.push(*object);
        }
        // Its neighbours are not blamed, and it never comes again though it was freed.
        all.iter().filter(|object| !spoilt.contains(object)).for_each(|object| cache.free(*object).unwrap());
        let again: Vec<_> = (0..80).map(|_| take(&cache)).collect();
        assert!(again.iter().all(|object| !spoilt.contains(object)));
        again.into_iter().for_each(|object| cache.free(object).unwrap());
        rig.mm.check().unwrap();
        abandon(cache, spoilt.len());
    }
}

#[test]
fn an_underflow_is_found_at_the_free() {
    let rig = mmu();
    let cache = cache(&rig.mm, 100, CacheFlags::RED_ZONE);
    // The first object of a slab, and others.
    for by in [1, 8, 64] {
        let object = take(&cache);
        // SAFETY: as above, before the object.
        unsafe { object.sub(by).write(0) };
        cache.free(object).unwrap();
        assert_eq!(reported(&rig.platform), (object.addr(), object.addr() - by, Overwritten::RedZone));
    }
    abandon(cache, 3);
}

#[test]
fn a_write_after_the_free_is_found_when_the_object_would_come_again() {
    for flags in [CacheFlags::POISON, BOTH] {
        let rig = nommu();
        let cache = cache(&rig.mm, 200, flags);
        let (kept, object) = (take(&cache), take(&cache));
        for at in [0, 1, 199] {
            // SAFETY: 200 bytes of ours, and free memory of the cache's, which the test spoils.
            unsafe {
                object.write_bytes(0x22, 200);
                cache.free(object).unwrap();
                assert_eq!(object.add(100).read(), 0x6b, "a read after the free sees poison");
                object.add(at).write(0);
                object.add(at).write(if at == 1 { 0x6b } else { 0x6a });
            }
            let next = take(&cache);
            if at == 1 {
                // Written, but as it was.
                assert_eq!(next, object);
                continue;
            }
            assert_eq!(reported(&rig.platform), (object.addr(), object.addr() + at, Overwritten::Poison));
            assert_ne!(next, object);
            cache.free(next).unwrap();
            break;
        }
        cache.free(kept).unwrap();
        abandon(cache, 1);
    }
}

#[test]
fn a_scan_finds_what_no_call_has_touched_yet() {
    let rig = nommu();
    let cache = cache(&rig.mm, 48, BOTH);
    let all: Vec<_> = (0..300).map(|_| take(&cache)).collect();
    assert_eq!(cache.validate(), 0);
    let (live, free) = (all[17], all[230]);
    cache.free(free).unwrap();
    // SAFETY: memory of the cache's slabs, which the test spoils.
    unsafe {
        live.add(50).write(1);
        free.add(3).write(1);
    }
    assert_eq!(cache.validate(), 2);
    let mut found: Vec<_> = rig.platform.take_bugs();
    found.sort_by_key(|bug| match bug {
        Bug::ObjectDamaged { what, .. } => *what == Overwritten::Poison,
        other => panic!("{other:?}"),
    });
    let want = [(live.addr(), live.addr() + 50), (free.addr(), free.addr() + 3)];
    for (bug, (object, at)) in found.iter().zip(want) {
        assert!(matches!(bug, Bug::ObjectDamaged { object: o, at: a, .. } if (*o, *a) == (object, at)), "{bug}");
    }
    std::mem::forget(cache);
}

#[test]
fn a_guarded_cache_is_a_cache() {
    for size in [1, 8, 60, 64, 200, 4000, 10_000] {
        nommu().nothing_lost(|mm| {
            for flags in [CacheFlags::RED_ZONE, CacheFlags::POISON, BOTH, BOTH | CacheFlags::HWCACHE_ALIGN] {
                let cache = mm.kmem_cache_create("guarded", size, 16, flags, None).unwrap();
                let mut objects = [null_mut(); 70];
                cache.alloc_bulk(GFP_KERNEL | Gfp::ZERO, &mut objects).unwrap();
                for (i, object) in objects.iter().enumerate() {
                    let line = if flags.contains(CacheFlags::HWCACHE_ALIGN) { 64 } else { 16 };
                    assert_eq!(object.addr() % line, 0);
                    // SAFETY: ours, that long.
                    unsafe {
                        assert!(std::slice::from_raw_parts(*object, size).iter().all(|byte| *byte == 0));
                        object.write_bytes(i as u8, size);
                    }
                }
                for (i, object) in objects.iter().enumerate() {
                    // SAFETY: as above.
                    assert!(unsafe { std::slice::from_raw_parts(*object, size) }.iter().all(|byte| *byte == i as u8));
                }
                let inside = objects[5].wrapping_add(if size == 1 { 2 } else { 1 });
                assert_eq!(unchanged(mm, || cache.free(inside)), Err(FreeError::Interior));
                assert_eq!(cache.free_bulk(&objects[..30]), Ok(()));
                assert_eq!(cache.free_bulk(&objects[29..]), Err((0, FreeError::DoubleFree)));
                assert_eq!(cache.free_bulk(&objects[30..]), Ok(()));
                let sheaf = cache.prefill(10, GFP_KERNEL).unwrap();
                drop(sheaf);
                assert_eq!((cache.validate(), cache.counts().active), (0, 0));
                assert!(cache.destroy().is_ok());
            }
            let counted = KmemCache::new_in("typed", || 5u64, CacheFlags::RED_ZONE, mm).unwrap();
            assert_eq!(*counted.alloc(GFP_KERNEL).unwrap(), 5);
            let undone = KmemCache::new_in("undone", || 5u64, CacheFlags::POISON, mm);
            assert_eq!(undone.err(), Some(MmError::Inval), "poison would undo the constructor");
            let large = mm.kmem_cache_create("large", 4 << 20, 0, CacheFlags::RED_ZONE, None);
            assert_eq!(large.err(), Some(AllocError::TooBig.into()));
        });
    }
}
