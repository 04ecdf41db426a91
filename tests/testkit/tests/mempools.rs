//! Pools: elements set aside for when the allocator has none.

#[macro_use]
mod common;

use common::steps::fail_each;
use common::{PAGE, TestMm, nommu, unchanged};
use mm_core::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ptr::null_mut;

both! {
    the_reserve_serves_when_the_allocator_has_nothing;
    a_free_refills_the_reserve_first;
    the_reserve_is_not_touched_while_there_is_memory;
    elements_of_each_source_are_as_asked;
    wrong_frees_are_refused;
    a_pool_changes_its_size;
    pools_that_make_no_sense_are_refused;
    sources_of_no_size_refuse_any_element;
    every_step_of_pools;
}

/// Runs a test while not one fallible step succeeds.
fn without_memory<B: Backend, R>(mm: &TestMm<B>, test: impl FnOnce() -> R) -> R {
    mm.drain();
    mm.faults().fail_from(FaultClass::Any, 1);
    let result = test();
    mm.faults().disarm();
    result
}

fn the_reserve_serves_when_the_allocator_has_nothing<B: Backend>(mm: &TestMm<B>) {
    let pool = Mempool::pages_in(5, 1, mm).unwrap();
    assert_eq!(pool.counts(), (5, 0));
    for flags in [GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT | Gfp::ZERO] {
        without_memory(mm, || {
            let taken: Vec<_> = (0..5).map(|_| pool.alloc(flags).unwrap().as_ptr()).collect();
            assert_eq!(pool.alloc(flags), Err(AllocError::NoMemory));
            assert_eq!(pool.counts(), (0, 5));
            for element in &taken {
                // SAFETY: two pages of ours.
                unsafe {
                    if flags.contains(Gfp::ZERO) {
                        assert!(std::slice::from_raw_parts(*element, 2 * PAGE) == vec![0; 2 * PAGE]);
                    }
                    element.write_bytes(0xff, 2 * PAGE);
                }
            }
            taken.into_iter().for_each(|element| pool.free(element).unwrap());
            assert_eq!(pool.counts(), (5, 0));
        });
    }
    assert!(pool.destroy().is_ok());
}

fn a_free_refills_the_reserve_first<B: Backend>(mm: &TestMm<B>) {
    let pool = Mempool::kmalloc_in(2, 3000, mm).unwrap();
    // One from the allocator, then the reserve.
    let ordinary = pool.alloc(GFP_KERNEL).unwrap().as_ptr();
    let (a, b) = without_memory(mm, || {
        // What its slab still has at hand, first.
        let mut more = Vec::new();
        while pool.counts().0 == 2 {
            more.push(pool.alloc(GFP_ATOMIC).unwrap().as_ptr());
        }
        let b = pool.alloc(GFP_ATOMIC).unwrap().as_ptr();
        let a = more.pop().unwrap();
        assert_eq!(pool.counts(), (0, more.len() + 3));
        // An ordinary element goes to the reserve, whoever wants memory meanwhile.
        pool.free(ordinary).unwrap();
        assert_eq!(pool.counts().0, 1);
        assert_eq!(pool.alloc(GFP_ATOMIC).unwrap().as_ptr(), ordinary);
        pool.free(ordinary).unwrap();
        more.into_iter().for_each(|element| pool.free(element).unwrap());
        (a, b)
    });
    pool.free(a).unwrap();
    pool.free(b).unwrap();
    assert_eq!(pool.counts(), (2, 0));
}

fn the_reserve_is_not_touched_while_there_is_memory<B: Backend>(mm: &TestMm<B>) {
    let pool = Mempool::kmalloc_in(3, 100, mm).unwrap();
    let taken: Vec<_> = (0..50).map(|_| pool.alloc(GFP_NOWAIT).unwrap().as_ptr()).collect();
    assert_eq!(pool.counts(), (3, 50));
    let (pool, error) = pool.destroy().err().unwrap();
    assert_eq!(error, MmError::Busy(50));
    taken.into_iter().for_each(|element| pool.free(element).unwrap());
    assert_eq!(pool.counts(), (3, 0));
    pool.free(null_mut()).unwrap();
}

fn elements_of_each_source_are_as_asked<B: Backend>(mm: &TestMm<B>) {
    let bytes = Mempool::kmalloc_in(1, 64, mm).unwrap();
    for device in [Gfp::DMA, Gfp::DMA32] {
        assert_eq!(bytes.alloc(GFP_KERNEL | device), Err(AllocError::BadFlags), "the reserve is of any memory");
    }
    let pool = Mempool::pages_in(2, 3, mm).unwrap();
    let block = pool.alloc(GFP_KERNEL).unwrap().as_ptr();
    assert_eq!(block.addr() % (8 * PAGE), 0);
    pool.free(block).unwrap();

    // SAFETY: it is called with objects of 48 bytes.
    let ones = |at: std::ptr::NonNull<u8>| unsafe { at.write_bytes(1, 48) };
    let cache = mm.kmem_cache_create("pooled", 48, 0, CacheFlags::empty(), Some(ones)).unwrap();
    let pool = Mempool::new_in(4, CacheSource::new(&cache), mm).unwrap();
    let other = Mempool::new_in(1, CacheSource::new(&cache), mm).unwrap();
    assert_eq!(cache.counts().active, 5);
    assert_eq!(pool.alloc(GFP_KERNEL | Gfp::ZERO), Err(AllocError::BadFlags), "it has a constructor");
    let object = pool.alloc(GFP_KERNEL).unwrap().as_ptr();
    // SAFETY: ours, that long.
    assert_eq!(unsafe { std::slice::from_raw_parts(object, 48) }, [1; 48]);
    assert_eq!(other.free(object), Err(FreeError::WrongAllocator), "not one of its elements is out");
    pool.free(object).unwrap();
    drop((pool, other));
    assert_eq!(cache.counts().active, 0);
}

fn wrong_frees_are_refused<B: Backend>(mm: &TestMm<B>) {
    let cache = mm.kmem_cache_create("pooled", 256, 0, CacheFlags::empty(), None).unwrap();
    let cached = Mempool::new_in(2, CacheSource::new(&cache), mm).unwrap();
    let pages = Mempool::pages_in(2, 1, mm).unwrap();
    let bytes = Mempool::kmalloc_in(2, 256, mm).unwrap();
    let out = (
        cached.alloc(GFP_KERNEL).unwrap().as_ptr(),
        pages.alloc(GFP_KERNEL).unwrap().as_ptr(),
        bytes.alloc(GFP_KERNEL).unwrap().as_ptr(),
    );
    let (small, single) = (mm.kmalloc(8, GFP_KERNEL).unwrap().as_ptr(), mm.get_free_page(GFP_KERNEL).unwrap().as_ptr());
    let mut here = [0u8; 8];
    // Whether the reserve is full or short.
    for short in [false, true] {
        let taken = short.then(|| without_memory(mm, || (cached.take_kept(), pages.take_kept(), bytes.take_kept())));
        assert_eq!(unchanged(mm, || cached.free(out.0.wrapping_add(8))), Err(FreeError::Interior));
        assert_eq!(unchanged(mm, || cached.free(out.2)), Err(FreeError::WrongAllocator));
        assert_eq!(unchanged(mm, || pages.free(out.1.wrapping_add(PAGE))), Err(FreeError::Interior));
        assert_eq!(unchanged(mm, || pages.free(out.1.wrapping_add(1))), Err(FreeError::Misaligned));
        assert_eq!(unchanged(mm, || pages.free(single)), Err(FreeError::WrongOrder));
        assert!(unchanged(mm, || pages.free(out.2)).is_err());
        assert_eq!(unchanged(mm, || bytes.free(out.2.wrapping_add(8))), Err(FreeError::Interior));
        assert_eq!(unchanged(mm, || bytes.free(out.1)), Err(FreeError::WrongAllocator));
        assert_eq!(unchanged(mm, || bytes.free(small)), Err(FreeError::WrongCache), "too short to be one of its");
        for error in [
            bytes.free(here.as_mut_ptr()),
            pages.free(here.as_mut_ptr().wrapping_sub(1)),
            cached.free(here.as_mut_ptr()),
        ] {
            assert_eq!(error, Err(FreeError::Foreign));
        }
        if let Some((a, b, c)) = taken {
            a.into_iter().for_each(|element| cached.free(element).unwrap());
            b.into_iter().for_each(|element| pages.free(element).unwrap());
            c.into_iter().for_each(|element| bytes.free(element).unwrap());
        }
    }
    // Twice: into the reserve, and to the allocator.
    let kept = without_memory(mm, || bytes.take_kept());
    for element in &kept {
        bytes.free(*element).unwrap();
        assert_eq!(unchanged(mm, || bytes.free(*element)), Err(FreeError::DoubleFree));
    }
    cached.free(out.0).unwrap();
    pages.free(out.1).unwrap();
    bytes.free(out.2).unwrap();
    assert!(bytes.free(out.2).is_err());
    mm.kfree(small).unwrap();
    mm.free_page(single).unwrap();
}

/// Empties the reserve.
trait TakeKept {
    fn take_kept(&self) -> Vec<*mut u8>;
}

impl<S: ElementSource<M>, M: Manager> TakeKept for Mempool<S, M> {
    fn take_kept(&self) -> Vec<*mut u8> {
        let mut taken = Vec::new();
        while self.counts().0 != 0 {
            taken.push(self.alloc(GFP_NOWAIT).unwrap().as_ptr());
        }
        taken
    }
}

fn a_pool_changes_its_size<B: Backend>(mm: &TestMm<B>) {
    let pool = Mempool::pages_in(3, 0, mm).unwrap();
    let out = pool.alloc(GFP_KERNEL).unwrap().as_ptr();
    for (min, kept) in [(10, 10), (64, 64), (1, 1), (4, 4), (3, 3)] {
        pool.resize(min).unwrap();
        assert_eq!((pool.counts(), mm.meminfo().pages as usize / PAGE), ((kept, 1), kept + 1));
    }
    // With elements of the reserve out, it is filled anew.
    let taken = without_memory(mm, || pool.take_kept());
    pool.resize(2).unwrap();
    assert_eq!(pool.counts(), (2, 4));
    taken.into_iter().for_each(|element| pool.free(element).unwrap());
    pool.free(out).unwrap();
    assert_eq!(pool.counts(), (2, 0));
    // What cannot be filled stays as it was.
    for min in [0, 65, usize::MAX] {
        assert_eq!(unchanged(mm, || pool.resize(min)), Err(MmError::Inval));
    }
    assert_eq!(without_memory(mm, || pool.resize(40)), Err(AllocError::NoMemory.into()));
    assert_eq!(pool.counts(), (2, 0));
}

fn pools_that_make_no_sense_are_refused<B: Backend>(mm: &TestMm<B>) {
    assert_eq!(unchanged(mm, || Mempool::kmalloc_in(0, 8, mm).err()), Some(MmError::Inval));
    assert_eq!(unchanged(mm, || Mempool::kmalloc_in(65, 8, mm).err()), Some(MmError::Inval));
    let refused = |size| Mempool::kmalloc_in(1, size, mm).err();
    mm.drain();
    assert_eq!(refused(0), Some(AllocError::ZeroSize.into()));
    assert_eq!(refused(usize::MAX), Some(AllocError::TooBig.into()));
    assert_eq!(Mempool::pages_in(1, 99, mm).err(), Some(AllocError::BadOrder.into()));
    let pool = Mempool::kmalloc_in(1, 8, mm).unwrap();
    assert_eq!(pool.alloc(Gfp(1 << 31)), Err(AllocError::BadFlags));
    assert_eq!(pool.counts(), (1, 0));
}

fn sources_of_no_size_refuse_any_element<B: Backend>(mm: &TestMm<B>) {
    let page = mm.get_free_page(GFP_KERNEL).unwrap();
    for order in [11, 31, 32, 63, 64, usize::MAX] {
        let source = PageSource::new(order);
        assert_eq!(ElementSource::<&TestMm<B>>::check(&source, mm, page), Err(FreeError::WrongOrder));
        assert_eq!(ElementSource::<&TestMm<B>>::free(&source, mm, page), Err(FreeError::WrongOrder));
        assert_eq!(ElementSource::<&TestMm<B>>::alloc(&source, mm, GFP_KERNEL), Err(AllocError::BadOrder));
    }
    mm.free_page(page.as_ptr()).unwrap();
}

fn every_step_of_pools<B: Backend>(mm: &TestMm<B>) {
    fail_each(mm, "a pool of pages", |plan| {
        let pool = plan.during(|| Mempool::pages_in(6, 0, plan.mm))?;
        pool.destroy().map_err(|(_, error)| error)
    });
    fail_each(mm, "a pool of objects", |plan| {
        let pool = plan.during(|| Mempool::kmalloc_in(6, 3000, plan.mm))?;
        pool.destroy().map_err(|(_, error)| error)
    });
    fail_each(mm, "a pool that grows", |plan| {
        let pool = Mempool::kmalloc_in(2, 3000, plan.mm)?;
        let grown = plan.during(|| pool.resize(9));
        assert_eq!(pool.counts().0, if grown.is_ok() { 9 } else { 2 });
        grown
    });
}

#[test]
fn a_pool_dropped_with_elements_out_is_reported() {
    let rig = nommu();
    rig.nothing_lost(|mm| {
        let pool = Mempool::kmalloc_in(2, 64, mm).unwrap();
        let element = pool.alloc(GFP_KERNEL).unwrap().as_ptr();
        drop(pool);
        assert!(matches!(rig.platform.take_bugs()[..], [Bug::PoolBusy { elements: 1 }]));
        mm.kfree(element).unwrap();
    });
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Alloc(bool),
    Free(usize),
    FreeAgain(usize),
    Resize(usize),
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 150 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_reserve_is_full_whenever_it_can_be(steps in prop::collection::vec(prop_oneof![
        3 => any::<bool>().prop_map(Step::Alloc),
        3 => (0usize..99).prop_map(Step::Free),
        1 => (0usize..99).prop_map(Step::FreeAgain),
        1 => (0usize..66).prop_map(Step::Resize),
    ], 1..if cfg!(miri) { 10 } else { 200 })) {
        nommu().nothing_lost(|mm| {
            let pool = Mempool::pages_in(4, 0, mm).unwrap();
            let (mut min, mut kept, mut out) = (4, 4, Vec::new());
            for step in steps {
                match step {
                    Step::Alloc(short) => {
                        if short {
                            mm.faults().fail_from(FaultClass::Any, 1);
                        }
                        let taken = pool.alloc(GFP_NOWAIT);
                        mm.faults().disarm();
                        prop_assert_eq!(taken.is_ok(), !short || kept != 0);
                        kept -= usize::from(short && kept != 0);
                        out.extend(taken.map(|element| element.as_ptr()));
                    }
                    Step::Free(i) if !out.is_empty() => {
                        pool.free(out.swap_remove(i % out.len())).unwrap();
                        kept += usize::from(kept < min);
                    }
                    Step::FreeAgain(i) if !out.is_empty() => {
                        let element = out.swap_remove(i % out.len());
                        pool.free(element).unwrap();
                        kept += usize::from(kept < min);
                        prop_assert!(pool.free(element).is_err());
                    }
                    Step::Resize(to) => match pool.resize(to) {
                        Ok(()) => (min, kept) = (to, to),
                        Err(error) => prop_assert!(error == MmError::Inval && (to == 0 || to > 64)),
                    },
                    _ => {}
                }
                prop_assert_eq!(pool.counts(), (kept, out.len()));
                prop_assert_eq!(out.iter().collect::<BTreeSet<_>>().len(), out.len());
            }
            out.into_iter().for_each(|element| pool.free(element).unwrap());
            Ok(())
        })?;
    }
}
