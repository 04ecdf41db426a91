//! Every fallible call with each of its steps failing: after an error everything is as it was.

#[macro_use]
mod common;

use common::steps::{Plan, exact, fail_each};
use common::{PAGE, TestMm, drained, fragment};
use mm_core::*;
use rtmm_testkit::SimConfig;
use rtmm_testkit::rig::Rig;

both! {
    kmalloc_and_its_kin;
    krealloc_keeps_the_old_object;
    boxes_and_layouts;
    whole_pages;
    caches;
    areas;
    areas_that_need_several_tables;
    areas_in_fragmented_memory;
    device_mappings;
    every_step_of_a_list_of_calls_that_depend_on_each_other;
}

fn kmalloc_and_its_kin<B: Backend>(mm: &TestMm<B>) {
    // A slab: the slab itself, its pages, its descriptor.
    let steps = fail_each(mm, "kmalloc of 100", |plan| {
        let p = plan.during(|| plan.mm.kmalloc(100, GFP_KERNEL))?;
        Ok(plan.mm.kfree(p.as_ptr())?)
    });
    assert_eq!(steps, 3);
    let steps = fail_each(mm, "kmalloc of 20000", |plan| {
        let p = exact(plan, || plan.mm.kmalloc(20_000, GFP_KERNEL))?;
        Ok(plan.mm.kfree(p.as_ptr())?)
    });
    assert_eq!(steps, 1);
    fail_each(mm, "kzalloc", |plan| {
        let p = plan.during(|| plan.mm.kzalloc(500, GFP_ATOMIC))?;
        Ok(plan.mm.kfree(p.as_ptr())?)
    });
    fail_each(mm, "kcalloc", |plan| {
        let p = plan.during(|| plan.mm.kcalloc(10, 30, GFP_KERNEL))?;
        Ok(plan.mm.kfree(p.as_ptr())?)
    });
    fail_each(mm, "kcalloc of pages", |plan| {
        let p = exact(plan, || plan.mm.kcalloc(10, 3000, GFP_KERNEL))?;
        Ok(plan.mm.kfree(p.as_ptr())?)
    });
    if mm.get_free_page(GFP_DMA).map(|p| mm.free_page(p.as_ptr()).unwrap()).is_ok() {
        fail_each(mm, "kmalloc below the DMA limit", |plan| {
            let p = plan.during(|| plan.mm.kmalloc(64, GFP_KERNEL | GFP_DMA))?;
            Ok(plan.mm.kfree(p.as_ptr())?)
        });
        fail_each(mm, "pages below the DMA limit", |plan| {
            let p = exact(plan, || plan.mm.kmalloc(3 * PAGE, GFP_KERNEL | GFP_DMA))?;
            Ok(plan.mm.kfree(p.as_ptr())?)
        });
        fail_each(mm, "pages for a device", |plan| {
            Ok(plan.during(|| DmaPages::new_in(5000, GFP_KERNEL | GFP_DMA, plan.mm)).map(drop)?)
        });
    }
}

fn krealloc_keeps_the_old_object<B: Backend>(mm: &TestMm<B>) {
    fn grow<B: Backend>(plan: &Plan<'_, B>, from: usize, to: usize) -> Result<(), MmError> {
        let mm = plan.mm;
        let old = mm.kmalloc(from, GFP_KERNEL)?;
        // SAFETY: ours, that long.
        unsafe { old.write_bytes(0x5a, from) };
        let result = plan.during(|| mm.krealloc(old.as_ptr(), to, GFP_KERNEL));
        let now = match result {
            Ok(Some(new)) => new,
            Ok(None) => panic!("a size that is not 0"),
            Err(_) => old,
        };
        // SAFETY: live, and at least that long.
        let kept = unsafe { std::slice::from_raw_parts(now.as_ptr(), from.min(to)) };
        assert!(kept == vec![0x5a; kept.len()]);
        mm.kfree(now.as_ptr())?;
        result.map(drop).map_err(Into::into)
    }
    fail_each(mm, "krealloc from class to class", |plan| grow(plan, 60, 900));
    fail_each(mm, "krealloc from class to pages", |plan| grow(plan, 900, 30_000));
    fail_each(mm, "krealloc from pages to pages", |plan| grow(plan, 9000, 30_000));
    fail_each(mm, "krealloc of null", |plan| {
        let p = plan.during(|| plan.mm.krealloc(std::ptr::null_mut(), 700, GFP_KERNEL))?;
        Ok(plan.mm.kfree(p.map_or(std::ptr::null(), |p| p.as_ptr()))?)
    });
}

fn boxes_and_layouts<B: Backend>(mm: &TestMm<B>) {
    fail_each(mm, "a box", |plan| {
        let made = plan.during(|| KBox::new_in([7u64; 20], GFP_KERNEL, plan.mm))?;
        assert_eq!(made[19], 7);
        Ok(())
    });
    fail_each(mm, "a box of pages", |plan| {
        let made = plan.during(|| KBox::new_in([7u8; 9000], GFP_KERNEL, plan.mm))?;
        assert_eq!(made.into_inner()[8999], 7);
        Ok(())
    });
    fail_each(mm, "the value of a box that was not made", |plan| {
        // The value is dropped, and frees its own memory.
        let inner = KBox::new_in(3u32, GFP_KERNEL, plan.mm)?;
        plan.during(|| KBox::new_in((inner, [0u8; 300]), GFP_KERNEL, plan.mm))?;
        Ok(())
    });
    fail_each(mm, "a layout", |plan| {
        let layout = std::alloc::Layout::from_size_align(24, 512).unwrap();
        let p = plan.during(|| plan.mm.alloc_layout(layout, ALLOCATOR_FLAGS));
        if p.is_null() {
            return Err(AllocError::NoMemory.into());
        }
        plan.mm.dealloc_layout(p);
        Ok(())
    });
    fail_each(mm, "a layout that grows", |plan| {
        let layout = std::alloc::Layout::from_size_align(24, 8).unwrap();
        let old = plan.mm.alloc_layout(layout, ALLOCATOR_FLAGS);
        assert!(!old.is_null());
        // SAFETY: 24 bytes of ours.
        unsafe { old.write_bytes(9, 24) };
        // SAFETY: it came from `alloc_layout` with that layout.
        let new = plan.during(|| unsafe { plan.mm.realloc_layout(old, layout, 3000) });
        let now = if new.is_null() { old } else { new };
        // SAFETY: live, and at least that long.
        assert_eq!(unsafe { std::slice::from_raw_parts(now, 24) }, [9; 24]);
        plan.mm.dealloc_layout(now);
        if new.is_null() { Err(AllocError::NoMemory.into()) } else { Ok(()) }
    });
}

fn whole_pages<B: Backend>(mm: &TestMm<B>) {
    let steps = fail_each(mm, "a page", |plan| {
        let p = exact(plan, || plan.mm.get_free_page(GFP_KERNEL))?;
        Ok(plan.mm.free_page(p.as_ptr())?)
    });
    assert_eq!(steps, 1);
    fail_each(mm, "a zeroed page", |plan| {
        let p = exact(plan, || plan.mm.get_zeroed_page(GFP_ATOMIC))?;
        Ok(plan.mm.free_page(p.as_ptr())?)
    });
    fail_each(mm, "eight pages", |plan| {
        let p = exact(plan, || plan.mm.get_free_pages(GFP_KERNEL, 3))?;
        Ok(plan.mm.free_pages(p.as_ptr(), 3)?)
    });
    fail_each(mm, "eight frames", |plan| {
        let pfn = exact(plan, || plan.mm.alloc_pages(GFP_HIGHUSER, 3))?;
        Ok(plan.mm.free_pages_frame(pfn, 3)?)
    });
    fail_each(mm, "owned pages", |plan| {
        plan.during(|| Pages::new_in(GFP_KERNEL, 2, plan.mm))?;
        Ok(())
    });
    fail_each(mm, "exact pages", |plan| {
        let p = exact(plan, || plan.mm.alloc_pages_exact(5 * PAGE, GFP_KERNEL))?;
        Ok(plan.mm.free_pages_exact(p.as_ptr(), 5 * PAGE)?)
    });
}

fn caches<B: Backend>(mm: &TestMm<B>) {
    fn create<B: Backend>(mm: &TestMm<B>, size: usize) -> Result<RawKmemCache<&TestMm<B>>, MmError> {
        mm.kmem_cache_create("tested", size, 0, CacheFlags::empty(), None)
    }
    fail_each(mm, "a cache", |plan| plan.during(|| create(plan.mm, 100))?.destroy().map_err(|(_, error)| error));
    fn object<B: Backend>(plan: &Plan<'_, B>, size: usize) -> Result<(), MmError> {
        let cache = create(plan.mm, size)?;
        let result = plan.during(|| cache.alloc(GFP_KERNEL));
        if let Ok(p) = result {
            cache.free(p.as_ptr())?;
        }
        cache.destroy().map_err(|(_, error)| error)?;
        result.map(drop).map_err(Into::into)
    }
    assert_eq!(fail_each(mm, "an object of a cache", |plan| object(plan, 100)), 3);
    fail_each(mm, "a large object of a cache", |plan| object(plan, 17_000));
}

/// A call that allocates `SIZE` bytes of areas, and touches nothing of it.
fn area<const SIZE: usize, B: Backend>(plan: &Plan<'_, B>) -> Result<(), MmError> {
    let p = plan.during(|| plan.mm.vmalloc(SIZE))?;
    Ok(plan.mm.vfree(p.as_ptr())?)
}

fn areas<B: Backend>(mm: &TestMm<B>) {
    fail_each(mm, "vmalloc of a page", area::<PAGE, B>);
    if !cfg!(miri) {
        fail_each(mm, "vmalloc of 64 KiB", area::<0x1_0000, B>);
        fail_each(mm, "vmalloc of 1 MiB", area::<0x10_0000, B>);
    }
    fail_each(mm, "vzalloc", |plan| {
        let p = plan.during(|| plan.mm.vzalloc(5 * PAGE - 1))?;
        Ok(plan.mm.vfree(p.as_ptr())?)
    });
    fail_each(mm, "an owned area", |plan| {
        plan.during(|| VmArea::new_in(3 * PAGE, plan.mm))?;
        Ok(())
    });
}

fn areas_that_need_several_tables<B: Backend>(mm: &TestMm<B>) {
    if !B::HAS_MMU || cfg!(miri) {
        return;
    }
    // Tables reach over 2 MiB each.
    let one = fail_each(mm, "vmalloc of 1 MiB", area::<0x10_0000, B>);
    let two = fail_each(mm, "vmalloc of 2.5 MiB", area::<0x28_0000, B>);
    assert!(two > one, "{one} {two}");
    // The second table fails when the first, shared with another area, must stay.
    let before = mm.vmalloc(0x10_0000).unwrap();
    fail_each(mm, "vmalloc beside another area", area::<0x18_0000, B>);
    mm.vfree(before.as_ptr()).unwrap();
}

fn areas_in_fragmented_memory<B: Backend>(mm: &TestMm<B>) {
    let fragments = fragment(mm);
    let free = mm.free_page_count();
    assert_eq!(mm.get_free_pages(GFP_KERNEL, 1), Err(AllocError::NoContig));
    if B::HAS_MMU {
        let steps = fail_each(mm, "vmalloc of four pages, one by one", area::<0x4000, B>);
        // Each page is a step of its own, and so are address space, record and table.
        assert!(steps >= 4 + 3, "{steps}");
        if !cfg!(miri) {
            let steps = fail_each(mm, "vmalloc of 64 KiB, page by page", area::<0x1_0000, B>);
            assert!(steps >= 16 + 3, "{steps}");
            let steps = fail_each(mm, "vmalloc of 1 MiB, page by page", area::<0x10_0000, B>);
            assert!(steps >= 256 + 3, "{steps}");
        }
        // More than there is: half of it is taken and given back.
        let before = drained(mm);
        assert_eq!(mm.vmalloc((free + 1) * PAGE), Err(AllocError::NoMemory));
        assert_eq!(drained(mm), before);
        assert_eq!(mm.vmalloc(usize::MAX), Err(AllocError::TooBig));
    } else {
        assert_eq!(mm.vmalloc(0x1_0000), Err(AllocError::NoContig));
    }
    fail_each(mm, "vmalloc of a page in fragments", area::<PAGE, B>);
    fail_each(mm, "a small object in fragments", |plan| {
        let p = plan.during(|| plan.mm.kmalloc(4096, GFP_KERNEL))?;
        Ok(plan.mm.kfree(p.as_ptr())?)
    });
    fragments.undo(mm);
}

fn device_mappings<B: Backend>(mm: &TestMm<B>) {
    fn map<const PAGES: usize, B: Backend>(plan: &Plan<'_, B>) -> Result<(), MmError> {
        let p = plan.during(|| plan.mm.ioremap(PhysAddr(0xf000_0000), PAGES * PAGE))?;
        Ok(plan.mm.iounmap(p.as_ptr())?)
    }
    fail_each(mm, "ioremap of a page", map::<1, B>);
    if !cfg!(miri) {
        fail_each(mm, "ioremap of 40 pages", map::<40, B>);
        fail_each(mm, "ioremap of 3 MiB", map::<768, B>);
    }
    fail_each(mm, "an owned mapping", |plan| {
        plan.during(|| IoMapping::new_in(PhysAddr(0xfe00_0010), 16, plan.mm))?;
        Ok(())
    });
}

/// As a driver's start does: each of several calls may fail, and what was made before it is taken back.
fn every_step_of_a_list_of_calls_that_depend_on_each_other<B: Backend>(mm: &TestMm<B>) {
    let steps = fail_each(mm, "a driver's start", |plan| {
        let mm = plan.mm;
        plan.during(|| {
            let cache = mm.kmem_cache_create("driver", 200, 0, CacheFlags::HWCACHE_ALIGN, None)?;
            let _state = KBox::new_in([0u32; 30], GFP_KERNEL, mm)?;
            let _registers = IoMapping::new_in(PhysAddr(0xfd00_0000), 2 * PAGE, mm)?;
            let _ring = Pages::new_in(GFP_KERNEL, 1, mm)?;
            let _table = VmArea::zeroed_in(3 * PAGE, mm)?;
            let objects = [cache.alloc(GFP_KERNEL), cache.alloc(GFP_ATOMIC)];
            for object in objects.iter().flatten() {
                cache.free(object.as_ptr())?;
            }
            objects.into_iter().collect::<Result<Vec<_>, _>>()?;
            Ok(())
        })
    });
    assert!(steps >= 8, "{steps}");
}

#[test]
fn blocks_that_are_neighbours_go_back_whichever_step_fails() {
    if cfg!(miri) {
        return;
    }
    // Three blocks of the largest order side by side, of 4 MiB, that are mapped as one run.
    let rig = Rig::mmu_on(SimConfig::new(&[(0x20_0000, 0x20_0000 + (16 << 20))]));
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let first = mm.vmalloc(10 << 20).unwrap();
        let phys = |at| machine.look(first.addr().get() + at).unwrap().phys;
        assert_eq!(phys(4 << 20), phys(0) + (4 << 20), "neighbours");
        mm.vfree(first.as_ptr()).unwrap();
        // Address space, record, blocks and a table.
        let steps = fail_each(mm, "vmalloc of neighbouring blocks", area::<0xa0_0000, _>);
        let more = fail_each(mm, "vmalloc of those and three pages", area::<0xa0_3000, _>);
        assert!(steps >= 6 && more > steps, "{steps} {more}");
    });
}
