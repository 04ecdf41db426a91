//! Containers of other crates in memory of a named manager.

#[macro_use]
mod common;

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box as HeapBox;
use allocator_api2::vec::Vec as List;
use common::steps::fail_each;
use common::{PAGE, TestMm};
use hashbrown::{DefaultHashBuilder, HashMap};
use mm_core::*;
use proptest::prelude::*;
use std::alloc::Layout;
use std::ptr::NonNull;

both! {
    a_list_grows_and_shrinks_in_kmalloc_memory;
    a_map_lives_and_dies_in_it;
    what_fits_stays_in_place;
    the_flags_are_those_of_the_handle;
    alignment_is_honoured_through_growth;
    exhaustion_is_an_error_of_the_container;
    two_managers_do_not_mix;
    every_step_of_a_container;
}

fn list_of<T, A: Allocator>(values: impl IntoIterator<Item = T>, alloc: A) -> List<T, A> {
    let mut list = List::new_in(alloc);
    list.extend(values);
    list
}

fn a_list_grows_and_shrinks_in_kmalloc_memory<B: Backend>(mm: &TestMm<B>) {
    let most = if cfg!(miri) { 300 } else { 20_000 };
    let mut list = List::new_in(mm.with(GFP_KERNEL));
    assert_eq!(mm.slabinfo().active(), (0, 0), "an empty list takes nothing");
    for n in 0..most {
        list.push(n as u32);
    }
    assert!(mm.ksize(list.as_ptr().cast()).unwrap() >= most * 4);
    assert!(list.iter().enumerate().all(|(i, n)| i as u32 == *n));
    list.truncate(10);
    list.shrink_to_fit();
    assert!(mm.ksize(list.as_ptr().cast()).unwrap() < 100);
    assert!(list.iter().copied().eq(0..10));
    let boxed = HeapBox::new_in([7u8; 3000], mm.with(GFP_ATOMIC));
    assert_eq!(mm.ksize(boxed.as_ptr()).map(|size| size >= 3000), Ok(true));
}

fn a_map_lives_and_dies_in_it<B: Backend>(mm: &TestMm<B>) {
    let most = if cfg!(miri) { 40 } else { 3000u64 };
    let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), mm.with(GFP_KERNEL));
    for n in 0..most {
        map.insert(n, list_of([n; 5], mm.with(GFP_KERNEL)));
    }
    assert!(mm.slabinfo().active().0 >= most as usize);
    for n in (0..most).step_by(2) {
        assert!(map.remove(&n).is_some_and(|list| list[4] == n));
    }
    map.shrink_to_fit();
    assert_eq!(map.len() as u64, most / 2);
    assert!(map.iter().all(|(n, list)| n % 2 == 1 && list[..] == [*n; 5]));
}

fn what_fits_stays_in_place<B: Backend>(mm: &TestMm<B>) {
    let with = mm.with(GFP_KERNEL);
    let layout = |size| Layout::from_size_align(size, 8).unwrap();
    let at = with.allocate(layout(600)).unwrap().cast::<u8>();
    let usable = mm.ksize(at.as_ptr()).unwrap();
    assert!(usable >= 600);
    // SAFETY: each call names the layout of the call before, and old blocks are not used.
    unsafe {
        assert_eq!(with.grow(at, layout(600), layout(usable)).unwrap().cast(), at);
        assert_eq!(with.shrink(at, layout(usable), layout(usable / 2 + 1)).unwrap().cast(), at);
        let less = with.shrink(at, layout(usable / 2 + 1), layout(16)).unwrap().cast::<u8>();
        assert_ne!(less, at, "a small rest does not keep a large object");
        // Moving is a saving, not a must: without memory it stays.
        let more = with.grow(less, layout(16), layout(2 * PAGE)).unwrap().cast::<u8>();
        mm.faults().fail_from(FaultClass::Any, 1);
        let stays = with.shrink(more, layout(2 * PAGE), layout(3000)).unwrap().cast::<u8>();
        assert_eq!(stays, more);
        assert!(with.grow(more, layout(3000), layout(4 * PAGE)).is_err());
        mm.faults().disarm();
        let none = with.shrink(more, layout(3000), layout(0)).unwrap().cast::<u8>();
        let some = with.grow(none, layout(0), layout(8)).unwrap().cast::<u8>();
        with.deallocate(some, layout(8));
    }
}

fn the_flags_are_those_of_the_handle<B: Backend>(mm: &TestMm<B>) {
    let with = mm.with(GFP_KERNEL | Gfp::ZERO);
    assert_eq!(with.flags(), GFP_KERNEL | Gfp::ZERO);
    let layout = |size| Layout::from_size_align(size, 1).unwrap();
    let dirty = mm.kmalloc(3000, GFP_KERNEL).unwrap();
    // SAFETY: ours, that long.
    unsafe { dirty.write_bytes(0xff, 3000) };
    mm.kfree(dirty.as_ptr()).unwrap();
    for (with, zeroed) in [(with, false), (mm.with(GFP_KERNEL), true)] {
        let block = if zeroed { with.allocate_zeroed(layout(3000)) } else { with.allocate(layout(3000)) }.unwrap();
        // SAFETY: a block of 3000 bytes of ours.
        unsafe {
            assert!(block.as_ref().iter().all(|byte| *byte == 0));
            block.cast::<u8>().write_bytes(0xff, 3000);
            let more = with.grow_zeroed(block.cast(), layout(3000), layout(9000)).unwrap();
            assert!(more.as_ref()[3000..].iter().all(|byte| *byte == 0) && more.as_ref()[2999] == 0xff);
            with.deallocate(more.cast(), layout(9000));
        }
    }
    assert!(mm.with(Gfp(1 << 31)).allocate(layout(8)).is_err(), "unknown flags");
}

fn alignment_is_honoured_through_growth<B: Backend>(mm: &TestMm<B>) {
    let with = mm.with(GFP_KERNEL);
    for shift in 0..14 {
        let mut layout = Layout::from_size_align(24, 1).unwrap();
        let mut at = with.allocate(layout).unwrap().cast::<u8>();
        for size in [25, 100, 30] {
            let next = Layout::from_size_align(size, 1 << shift).unwrap();
            // SAFETY: the block is of that layout, and no longer used under its old name.
            let moved = unsafe {
                if size > layout.size() { with.grow(at, layout, next) } else { with.shrink(at, layout, next) }
            };
            (at, layout) = (moved.unwrap().cast(), next);
            assert_eq!(at.as_ptr().addr() % (1 << shift), 0, "{size} aligned to {}", 1 << shift);
        }
        // SAFETY: as above.
        unsafe { with.deallocate(at, layout) };
    }
}

fn exhaustion_is_an_error_of_the_container<B: Backend>(mm: &TestMm<B>) {
    let mut list = List::new_in(mm.with(GFP_NOWAIT | Gfp::NOWARN));
    list.push(5u8);
    assert!(list.try_reserve(usize::MAX / 2).is_err());
    assert!(list.try_reserve(PAGE << (B::MAX_ORDER + 1)).is_err());
    assert_eq!(list[..], [5]);
    let mut map = HashMap::<u32, u32, _, _>::with_hasher_in(DefaultHashBuilder::default(), mm.with(GFP_NOWAIT));
    assert!(map.try_reserve(1 << 30).is_err());
    assert!(map.try_reserve(10).is_ok());
}

fn two_managers_do_not_mix<B: Backend>(mm: &TestMm<B>) {
    let other = common::nommu();
    let list = list_of(0..100u64, mm.with(GFP_KERNEL));
    other.nothing_lost(|other| {
        let copy = list_of(list.iter().copied(), other.with(GFP_KERNEL));
        assert_eq!(other.kfree(list.as_ptr().cast()), Err(FreeError::Foreign));
        assert_eq!(mm.kfree(copy.as_ptr().cast()), Err(FreeError::Foreign));
    });
}

fn every_step_of_a_container<B: Backend>(mm: &TestMm<B>) {
    fail_each(mm, "a list that grows", |plan| {
        let mut list = List::new_in(plan.mm.with(GFP_NOWAIT));
        plan.during(|| (0..5).try_for_each(|i| list.try_reserve(100 << i).map(|()| list.resize(100 << i, i))))
            .map_err(|_| AllocError::NoMemory.into())
    });
    fail_each(mm, "a map that grows", |plan| {
        let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), plan.mm.with(GFP_NOWAIT));
        plan.during(|| (0..100).try_for_each(|i| map.try_reserve(1).map(|()| _ = map.insert(i, i))))
            .map_err(|_| AllocError::NoMemory.into())
    });
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u8),
    Extend(usize),
    Truncate(usize),
    Shrink,
    Reserve(usize),
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 100 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_list_is_what_a_list_elsewhere_is(steps in prop::collection::vec(prop_oneof![
        any::<u8>().prop_map(Step::Push),
        (0usize..5000).prop_map(Step::Extend),
        (0usize..3000).prop_map(Step::Truncate),
        Just(Step::Shrink),
        (0usize..9000).prop_map(Step::Reserve),
    ], 1..if cfg!(miri) { 6 } else { 60 })) {
        common::nommu().nothing_lost(|mm| {
            let (mut list, mut model) = (List::new_in(mm.with(GFP_KERNEL)), Vec::new());
            for (tag, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(byte) => (list.push(byte), model.push(byte)).0,
                    Step::Extend(n) => {
                        list.resize(list.len() + n, tag as u8);
                        model.resize(model.len() + n, tag as u8);
                    }
                    Step::Truncate(n) => (list.truncate(n), model.truncate(n)).0,
                    Step::Shrink => list.shrink_to_fit(),
                    Step::Reserve(n) => list.reserve(n),
                }
                prop_assert!(list[..] == model[..]);
            }
            Ok(())
        })?;
    }
}

/// The empty block is nobody's memory.
#[test]
fn empty_layouts_take_nothing_and_are_aligned() {
    let rig = common::nommu();
    rig.nothing_lost(|mm| {
        let layout = Layout::from_size_align(0, 1 << 20).unwrap();
        let block: NonNull<[u8]> = mm.with(GFP_KERNEL).allocate(layout).unwrap();
        assert_eq!((block.len(), block.cast::<u8>().as_ptr().addr()), (0, 1 << 20));
        // SAFETY: allocated with that layout.
        unsafe { mm.with(GFP_KERNEL).deallocate(block.cast(), layout) };
    });
}
