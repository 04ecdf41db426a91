//! Arrays, copies and strings in kmalloc memory; memory that is wiped; boxes of every kind.

#[macro_use]
mod common;

use common::steps::fail_each;
use common::world::Reach;
use common::{PAGE, TestMm, unchanged};
use mm_core::*;
use std::alloc::Layout;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null, null_mut};

both! {
    arrays_overflow_before_anything_is_taken;
    copies_hold_what_was_copied;
    a_wiped_object_leaves_nothing_behind;
    what_is_not_live_is_not_wiped;
    boxes_are_aligned_as_their_type_asks;
    slices_drop_each_value_once;
    a_slice_whose_making_unwinds_drops_what_was_made;
    boxes_that_are_not_written_are_not_dropped;
    every_step_of_boxes_and_copies;
}

fn read<B: Reach>(mm: &TestMm<B>, at: NonNull<u8>, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    mm.backend().read(at.as_ptr(), &mut bytes);
    bytes
}

fn arrays_overflow_before_anything_is_taken<B: Backend>(mm: &TestMm<B>) {
    for (n, size) in [(usize::MAX, 2), (2, usize::MAX), (usize::MAX, usize::MAX), (1 << (usize::BITS - 1), 6)] {
        assert_eq!(unchanged(mm, || mm.kmalloc_array(n, size, GFP_KERNEL)), Err(AllocError::TooBig));
        assert_eq!(unchanged(mm, || mm.krealloc_array(null_mut(), n, size, GFP_KERNEL)), Err(AllocError::TooBig));
        let old = mm.kmalloc(10, GFP_KERNEL).unwrap().as_ptr();
        assert_eq!(unchanged(mm, || mm.krealloc_array(old, n, size, GFP_KERNEL)), Err(AllocError::TooBig));
        mm.kfree(old).unwrap();
    }
    assert_eq!(unchanged(mm, || mm.kmalloc_array(0, 8, GFP_KERNEL)), Err(AllocError::ZeroSize));
    let array = mm.kmalloc_array(3, 700, GFP_KERNEL).unwrap().as_ptr();
    assert!(mm.ksize(array).unwrap() >= 2100);
    // SAFETY: 2100 bytes of ours.
    unsafe { array.write_bytes(7, 2100) };
    let array = mm.krealloc_array(array, 30, 700, GFP_KERNEL).unwrap().unwrap();
    // SAFETY: ours, and longer than that.
    assert!(unsafe { std::slice::from_raw_parts(array.as_ptr(), 2100) } == vec![7; 2100]);
    assert_eq!(mm.krealloc_array(array.as_ptr(), 0, 700, GFP_KERNEL), Ok(None));
}

fn copies_hold_what_was_copied<B: Reach>(mm: &TestMm<B>) {
    for len in [1, 7, 8, 100, 5000] {
        let bytes: Vec<u8> = (0..len).map(|i| i as u8 | 1).collect();
        let copy = mm.kmemdup(&bytes, GFP_KERNEL).unwrap();
        let text = mm.kmemdup_nul(&bytes, GFP_KERNEL).unwrap();
        assert!(read(mm, copy, len) == bytes);
        assert!(read(mm, text, len + 1) == [&bytes[..], &[0]].concat());
        mm.kfree(copy.as_ptr()).unwrap();
        mm.kfree(text.as_ptr()).unwrap();
    }
    assert_eq!(unchanged(mm, || mm.kmemdup(&[], GFP_KERNEL)), Err(AllocError::ZeroSize));
    for (most, want) in [(0, &b"\0"[..]), (3, b"ttf\0"), (5, b"ttfoo\0"), (usize::MAX, b"ttfoo\0")] {
        let copy = mm.kstrndup(c"ttfoo", most, GFP_KERNEL).unwrap();
        assert_eq!(read(mm, copy, want.len()), want);
        mm.kfree(copy.as_ptr()).unwrap();
    }
    for text in [c"", c"eth0"] {
        let copy = mm.kstrdup(text, GFP_KERNEL).unwrap();
        assert_eq!(read(mm, copy, text.to_bytes_with_nul().len()), text.to_bytes_with_nul());
        mm.kfree(copy.as_ptr()).unwrap();
    }
}

fn wipe<B: Backend>(mm: &TestMm<B>, at: *const u8) -> Result<(), FreeError> {
    // SAFETY: the tests use nothing of it behind this, and no value owns it.
    unsafe { mm.kfree_sensitive(at) }
}

fn a_wiped_object_leaves_nothing_behind<B: Reach>(mm: &TestMm<B>) {
    // A neighbour keeps the slab, so that the memory is still there to look at.
    for size in [8, 100, 4096, 3 * PAGE] {
        let neighbour = mm.kmalloc(size, GFP_KERNEL).unwrap();
        let key = mm.kmalloc(size, GFP_KERNEL).unwrap();
        let len = mm.ksize(key.as_ptr()).unwrap();
        mm.backend().write(key.as_ptr(), &vec![0xa5; len]);
        mm.backend().write(neighbour.as_ptr(), &vec![0x5a; size]);
        wipe(mm, key.as_ptr()).unwrap();
        assert!(read(mm, key, len) == vec![0; len], "size {size}");
        assert!(read(mm, neighbour, size) == vec![0x5a; size]);
        assert_eq!(unchanged(mm, || mm.kfree(key.as_ptr())), Err(FreeError::DoubleFree));
        mm.kfree(neighbour.as_ptr()).unwrap();
    }
    wipe(mm, null()).unwrap();
}

fn what_is_not_live_is_not_wiped<B: Reach>(mm: &TestMm<B>) {
    let (kept, freed) = (mm.kmalloc(64, GFP_KERNEL).unwrap(), mm.kmalloc(64, GFP_KERNEL).unwrap());
    let page = mm.get_free_page(GFP_KERNEL).unwrap();
    mm.backend().write(kept.as_ptr(), &[1; 64]);
    mm.backend().write(freed.as_ptr(), &[2; 64]);
    mm.backend().write(page.as_ptr(), &[3; 64]);
    mm.kfree(freed.as_ptr()).unwrap();
    assert_eq!(unchanged(mm, || wipe(mm, freed.as_ptr())), Err(FreeError::DoubleFree));
    assert_eq!(unchanged(mm, || wipe(mm, kept.as_ptr().wrapping_add(8))), Err(FreeError::Interior));
    assert_eq!(unchanged(mm, || wipe(mm, page.as_ptr())), Err(FreeError::WrongAllocator));
    assert_eq!(unchanged(mm, || wipe(mm, (&raw const page).cast())), Err(FreeError::Foreign));
    assert_eq!([kept, freed, page].map(|at| read(mm, at, 64)), [vec![1; 64], vec![2; 64], vec![3; 64]]);
    mm.kfree(kept.as_ptr()).unwrap();
    mm.free_page(page.as_ptr()).unwrap();
}

fn boxes_are_aligned_as_their_type_asks<B: Backend>(mm: &TestMm<B>) {
    #[derive(Clone)]
    #[repr(align(64))]
    struct Line([u8; 3]);
    #[repr(align(16384))]
    struct Pages([u8; 5000]);
    let line = KBox::new_in(Line([1, 2, 3]), GFP_KERNEL, mm).unwrap();
    assert_eq!((std::ptr::from_ref(&*line).addr() % 64, line.0), (0, [1, 2, 3]));
    let pages = KBox::new_in(Pages([9; 5000]), GFP_KERNEL, mm).unwrap();
    assert!(std::ptr::from_ref(&*pages).addr().is_multiple_of(16384) && pages.0 == [9; 5000]);
    let slice = KBox::<[Line], _>::from_fn_in(5, |i| Line([i as u8; 3]), GFP_KERNEL, mm).unwrap();
    assert!(
        slice.iter().enumerate().all(|(i, line)| std::ptr::from_ref(line).addr() % 64 == 0 && line.0[2] == i as u8)
    );
    for shift in 0..if cfg!(miri) { 14 } else { 22 } {
        for size in [1, 1 << shift, 3 * PAGE] {
            let layout = Layout::from_size_align(size, 1 << shift).unwrap();
            let made = KBox::of_layout_in(layout, GFP_KERNEL, mm).unwrap();
            assert_eq!((made.len(), made.as_ptr().addr() % (1 << shift)), (size, 0));
        }
    }
    let over = Layout::from_size_align(1, PAGE << (B::MAX_ORDER + 1)).unwrap();
    assert_eq!(unchanged(mm, || KBox::of_layout_in(over, GFP_KERNEL, mm).err()), Some(AllocError::TooBig));
    // Nothing is taken for nothing, and it is aligned all the same.
    let free = mm.free_page_count();
    let empty = KBox::of_layout_in(Layout::from_size_align(0, 4096).unwrap(), GFP_KERNEL, mm).unwrap();
    let unit = KBox::new_in((), GFP_KERNEL, mm).unwrap();
    let none = KBox::<[Line], _>::from_slice_in(&[], GFP_KERNEL, mm);
    assert_eq!((empty.as_ptr().addr(), mm.free_page_count(), unit.into_inner()), (4096, free, ()));
    assert!(none.unwrap().is_empty());
}

impl Clone for Counted<'_> {
    fn clone(&self) -> Self {
        Counted(self.0)
    }
}

/// Counts its drops.
struct Counted<'a>(&'a Cell<usize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn slices_drop_each_value_once<B: Backend>(mm: &TestMm<B>) {
    let drops = Cell::new(0);
    for len in [0, 1, 5, 700] {
        let slice = KBox::<[Counted], _>::from_fn_in(len, |_| Counted(&drops), GFP_KERNEL, mm).unwrap();
        let copy = KBox::from_slice_in(&slice, GFP_KERNEL, mm).unwrap();
        assert_eq!(drops.take(), 0);
        drop(slice);
        assert_eq!(drops.take(), len);
        // SAFETY: it came from there.
        let copy = unsafe { KBox::from_raw_in(copy.into_raw(), mm) };
        assert_eq!((copy.len(), drops.take()), (len, 0));
        drop(copy);
        assert_eq!(drops.take(), len);
    }
    let pinned = KBox::pin_in(Counted(&drops), GFP_KERNEL, mm).unwrap();
    assert_eq!(drops.take(), 0);
    drop(pinned);
    assert_eq!(drops.take(), 1);
    let leaked = KBox::new_in(5u64, GFP_KERNEL, mm).unwrap().leak();
    *leaked += 1;
    let ptr = NonNull::from(leaked);
    // SAFETY: it came from a box, and the reference is used no more.
    assert_eq!(unsafe { KBox::from_raw_in(ptr, mm) }.into_inner(), 6);
}

fn a_slice_whose_making_unwinds_drops_what_was_made<B: Backend>(mm: &TestMm<B>) {
    let drops = Cell::new(0);
    let make = |i| if i == 4 { panic!("the fifth") } else { Counted(&drops) };
    let made = catch_unwind(AssertUnwindSafe(|| KBox::<[Counted], _>::from_fn_in(9, make, GFP_KERNEL, mm).is_ok()));
    assert!(made.is_err());
    assert_eq!(drops.take(), 4);
}

fn boxes_that_are_not_written_are_not_dropped<B: Backend>(mm: &TestMm<B>) {
    let drops = Cell::new(0);
    drop(KBox::<Counted, _>::new_uninit_in(GFP_KERNEL, mm).unwrap());
    drop(KBox::<[Counted], _>::new_uninit_slice_in(4, GFP_KERNEL, mm).unwrap());
    assert_eq!(drops.take(), 0);
    drop(KBox::new_uninit_in(GFP_KERNEL, mm).unwrap().write(Counted(&drops)));
    assert_eq!(drops.take(), 1);
    let dirty = mm.kmalloc(512, GFP_KERNEL).unwrap();
    // SAFETY: ours, that long.
    unsafe { dirty.write_bytes(0xff, 512) };
    mm.kfree(dirty.as_ptr()).unwrap();
    let zeroes = KBox::<[u64; 64], _>::try_new_zeroed_in(GFP_KERNEL, mm).unwrap();
    let slice = KBox::<[u16], _>::try_new_zeroed_slice_in(3000, GFP_KERNEL, mm).unwrap();
    // SAFETY: zeroes are numbers.
    unsafe {
        assert!(*zeroes.assume_init() == [0; 64]);
        assert!(slice.assume_init().iter().all(|number| *number == 0));
    }
    let too_long = KBox::<[u64], _>::new_uninit_slice_in(usize::MAX / 4, GFP_KERNEL, mm);
    assert_eq!(too_long.err(), Some(AllocError::TooBig));
}

fn every_step_of_boxes_and_copies<B: Backend>(mm: &TestMm<B>) {
    fail_each(mm, "a slice", |plan| {
        let elements = Cell::new(0);
        let count = |i| (elements.replace(elements.get() + 1), i);
        let made = plan.during(|| KBox::<[(usize, usize)], _>::from_fn_in(40, count, GFP_KERNEL, plan.mm));
        assert!(made.is_ok() || elements.get() == 0, "made for nothing");
        Ok(made.map(drop)?)
    });
    fail_each(mm, "a pinned box", |plan| Ok(plan.during(|| KBox::pin_in([1u8; 99], GFP_KERNEL, plan.mm)).map(drop)?));
    fail_each(mm, "a copy", |plan| {
        let copy = plan.during(|| plan.mm.kmemdup_nul(&[1; 77], GFP_KERNEL))?;
        Ok(wipe(plan.mm, copy.as_ptr())?)
    });
    fail_each(mm, "an array that grows", |plan| {
        let old = plan.mm.kmalloc_array(4, 30, GFP_KERNEL)?;
        let new = plan.during(|| plan.mm.krealloc_array(old.as_ptr(), 40, 300, GFP_KERNEL));
        let now = new.map_or(old, |new| new.unwrap());
        plan.mm.kfree(now.as_ptr())?;
        Ok(new.map(drop)?)
    });
}
