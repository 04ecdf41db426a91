//! What `kmalloc`, caches and boxes promise.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::alloc::{GlobalAlloc, Layout};
    use core::cell::Cell;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use heapless::Vec;
    use oorandom::Rand32;
    use rtmm::{AllocError, CacheFlags, FreeError, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, Gfp, KBox, MmError};
    use rtmm_tests::board::{self, Kernel, MM};
    use rtmm_tests::{Bytes, LARGEST, MANY, MAX_ORDER, NothingLost, PAGE};

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    /// Sizes on both sides of every power of two up to `limit`, and some between.
    fn sizes(limit: usize) -> impl Iterator<Item = usize> {
        let powers = (0..).map(|shift| 1usize << shift).take_while(move |size| *size <= limit);
        powers
            .flat_map(|size| [size - size / 3, size - 1, size, size + 1])
            .filter(move |size| (1..=limit).contains(size))
    }

    #[test]
    fn an_object_is_aligned_as_its_size_promises() {
        for size in sizes(8 * PAGE) {
            let object = Bytes::kmalloc(size, GFP_KERNEL).unwrap();
            let divisor = 1 << size.trailing_zeros();
            assert_eq!(object.addr() % divisor, 0, "{size} bytes at {:#x}", object.addr());
            assert_eq!(object.addr() % align_of::<u64>(), 0, "{size} bytes at {:#x}", object.addr());
            object.free().unwrap();
        }
    }

    #[test]
    fn all_of_ksize_may_be_used() {
        let mut neighbours: Vec<Bytes, 64> = Vec::new();
        for (seed, size) in (0..).zip(sizes(2 * PAGE)) {
            let object = Bytes::kmalloc(size, GFP_KERNEL).unwrap();
            assert!(MM.ksize(object.ptr()).unwrap() >= size);
            let mut object = object.whole_object();
            object.fill(seed);
            if neighbours.push(object).is_err() {
                break;
            }
        }
        for (seed, object) in (0..).zip(&neighbours) {
            assert!(object.holds(seed), "object {seed} was overwritten");
        }
        for object in neighbours {
            object.free().unwrap();
        }
    }

    #[test]
    fn a_large_object_wastes_less_than_a_page() {
        let before = MM.free_page_count();
        for size in [5 * PAGE, 9 * PAGE + 1, (33 * PAGE).min(LARGEST) - 1] {
            let object = Bytes::kmalloc(size, GFP_KERNEL).unwrap();
            MM.drain();
            assert_eq!(before - MM.free_page_count(), size.div_ceil(PAGE), "{size} bytes");
            object.free().unwrap();
            MM.drain();
        }
    }

    #[test]
    fn kzalloc_is_zero_even_where_dirt_was() {
        for size in [8, 24, 100, 1000, PAGE, 5 * PAGE] {
            let mut dirty = Bytes::kmalloc(size, GFP_KERNEL).unwrap().whole_object();
            dirty.fill(0xff);
            dirty.free().unwrap();
            let object = Bytes::kzalloc(size, GFP_KERNEL).unwrap();
            assert!(object.holds(0), "{size} bytes");
            object.free().unwrap();
        }
    }

    #[test]
    fn kcalloc_is_a_zeroed_array() {
        let array = MM.kcalloc(13, 40, GFP_KERNEL).unwrap();
        assert!(MM.ksize(array.as_ptr()).unwrap() >= 13 * 40);
        MM.kfree(array.as_ptr()).unwrap();
    }

    #[test]
    fn krealloc_grows_and_shrinks_with_the_contents() {
        let mut object = Bytes::kmalloc(10, GFP_KERNEL).unwrap();
        object.fill(0x33);
        let mut kept = 10;
        for size in [12, 100, 5000, 3 * PAGE, 9 * PAGE, 200, 16, 1] {
            object = object.krealloc(size, GFP_KERNEL).map_err(|(_, error)| error).unwrap();
            kept = kept.min(size);
            assert!(object.starts_with(kept, 0x33), "{size} bytes");
            object.fill(0x33);
            kept = size;
        }
        object.free().unwrap();
    }

    #[test]
    fn krealloc_within_ksize_stays_in_place() {
        let object = Bytes::kmalloc(100, GFP_KERNEL).unwrap();
        let (addr, whole) = (object.addr(), MM.ksize(object.ptr()).unwrap());
        let object = object.krealloc(whole, GFP_KERNEL).map_err(|(_, error)| error).unwrap();
        assert_eq!(object.addr(), addr);
        object.free().unwrap();
    }

    #[test]
    fn krealloc_of_null_allocates() {
        let object = MM.krealloc(core::ptr::null_mut(), 64, GFP_KERNEL).unwrap().unwrap();
        assert!(MM.ksize(object.as_ptr()).unwrap() >= 64);
        MM.kfree(object.as_ptr()).unwrap();
    }

    #[test]
    fn krealloc_to_nothing_frees() {
        let object = MM.kmalloc(64, GFP_KERNEL).unwrap();
        assert_eq!(MM.krealloc(object.as_ptr(), 0, GFP_KERNEL), Ok(None));
        assert_eq!(MM.kfree(object.as_ptr()), Err(FreeError::DoubleFree));
        assert_eq!(MM.krealloc(core::ptr::null_mut(), 0, GFP_KERNEL), Ok(None));
    }

    #[test]
    fn a_failed_krealloc_keeps_the_old_object() {
        let mut object = Bytes::kmalloc(64, GFP_KERNEL).unwrap();
        object.fill(0x44);
        for size in [2 * LARGEST, usize::MAX, usize::MAX - PAGE + 1] {
            let (old, error) = object.krealloc(size, GFP_KERNEL | Gfp::NOWARN).unwrap_err();
            assert_eq!(error, AllocError::TooBig);
            assert!(old.holds(0x44));
            object = old;
        }
        object.free().unwrap();
    }

    #[test]
    fn random_objects_keep_their_bytes_and_free_in_any_order() {
        let mut random = Rand32::new(2);
        let mut live: Vec<(Bytes, u8), { 2 * MANY }> = Vec::new();
        for round in 0..4000u32 {
            if live.is_full() || (!live.is_empty() && random.rand_range(0..2) == 0) {
                let (object, seed) = live.swap_remove(random.rand_range(0..live.len() as u32) as usize);
                assert!(object.holds(seed), "round {round}");
                object.free().unwrap();
            } else {
                let most = 1 << random.rand_range(3..PAGE.ilog2() + 2);
                let size = 1 + random.rand_range(0..most) as usize;
                let mut object = Bytes::kmalloc(size, GFP_NOWAIT).unwrap();
                object.fill(round as u8);
                live.push((object, round as u8)).unwrap();
            }
            if round % 512 == 0 {
                MM.check().unwrap();
            }
        }
        for (object, seed) in live {
            assert!(object.holds(seed));
            object.free().unwrap();
        }
    }

    #[test]
    fn a_cache_hands_out_distinct_aligned_objects() {
        let cache = MM.kmem_cache_create("distinct", 40, 16, CacheFlags::empty(), None).unwrap();
        let mut objects: Vec<usize, 300> = Vec::new();
        for _ in 0..300 {
            let object = cache.alloc(GFP_KERNEL).unwrap();
            assert_eq!(object.addr().get() % 16, 0);
            objects.push(object.addr().get()).unwrap();
        }
        objects.sort_unstable();
        assert!(objects.windows(2).all(|pair| pair[1] - pair[0] >= 40), "objects overlap");
        for object in objects {
            cache.free(core::ptr::without_provenance(object)).unwrap();
        }
        cache.destroy().map_err(|(_, error)| error).unwrap();
    }

    #[test]
    fn a_cache_with_live_objects_is_not_destroyed() {
        let cache = MM.kmem_cache_create("busy", 100, 8, CacheFlags::empty(), None).unwrap();
        let first = cache.alloc(GFP_KERNEL).unwrap();
        let second = cache.alloc(GFP_KERNEL).unwrap();
        let (cache, error) = cache.destroy().unwrap_err();
        assert_eq!(error, MmError::Busy(2));
        cache.free(first.as_ptr()).unwrap();
        let (cache, error) = cache.destroy().unwrap_err();
        assert_eq!(error, MmError::Busy(1));
        cache.free(second.as_ptr()).unwrap();
        cache.destroy().map_err(|(_, error)| error).unwrap();
    }

    #[test]
    fn a_box_drops_its_value_and_gives_its_memory_back() {
        struct CountsDrops<'a>(&'a Cell<u32>);
        impl Drop for CountsDrops<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let drops = Cell::new(0);
        let value = KBox::new_in(CountsDrops(&drops), GFP_KERNEL, &MM).map_err(|_| "no memory").unwrap();
        assert_eq!(drops.get(), 0);
        drop(value);
        assert_eq!(drops.get(), 1);
    }

    #[test]
    fn a_box_holds_a_large_or_strictly_aligned_value() {
        #[repr(align(256))]
        struct Strict([u8; 300]);
        let strict = KBox::new_in(Strict([9; 300]), GFP_KERNEL, &MM).map_err(|_| "no memory").unwrap();
        assert_eq!((&raw const *strict).addr() % 256, 0);
        assert!(strict.0.iter().all(|byte| *byte == 9));
        let large = KBox::new_in([0x1234_5678u32; PAGE / 2], GFP_KERNEL, &MM).map_err(|_| "no memory").unwrap();
        assert!(large.iter().all(|word| *word == 0x1234_5678));
    }

    #[test]
    fn the_global_allocator_honours_alignment_up_to_the_largest_block() {
        for shift in 0..=22 {
            let Ok(layout) = Layout::from_size_align(24, 1 << shift) else { continue };
            if layout.align() > LARGEST {
                break;
            }
            // SAFETY: the layout has a size; the pointer is freed with the same layout.
            unsafe {
                let object = Kernel.alloc(layout);
                assert!(!object.is_null(), "alignment {}", layout.align());
                assert_eq!(object.addr() % layout.align(), 0);
                Kernel.dealloc(object, layout);
            }
        }
        let layout = Layout::from_size_align(24, 2 * LARGEST).unwrap();
        // SAFETY: the layout has a size.
        assert!(unsafe { Kernel.alloc(layout) }.is_null());
    }

    #[test]
    fn the_largest_block_is_an_object_where_memory_has_one() {
        let whole = MM.buddyinfo().largest();
        match Bytes::kmalloc(LARGEST, GFP_KERNEL | Gfp::NOWARN) {
            Ok(object) => {
                assert_eq!(object.addr() % LARGEST, 0);
                assert_eq!(MM.kfree(object.ptr().wrapping_add(LARGEST / 2)), Err(FreeError::Interior));
                object.free().unwrap();
            }
            // A small board has no such block, or needs it as a reserve.
            Err(_) => assert!(whole < Some(MAX_ORDER) || MM.free_page_count() < 2 << MAX_ORDER),
        }
        assert_eq!(MM.kmalloc(LARGEST + 1, GFP_KERNEL), Err(AllocError::TooBig));
    }

    #[test]
    fn an_interrupt_may_take_and_give_back_objects() {
        static HELD: AtomicUsize = AtomicUsize::new(0);
        board::in_interrupt(|| {
            let object = MM.kmalloc(64, GFP_ATOMIC).unwrap();
            HELD.store(object.addr().get(), Ordering::Relaxed);
        });
        let object: *const u8 = core::ptr::without_provenance(HELD.load(Ordering::Relaxed));
        assert!(MM.ksize(object).unwrap() >= 64);
        board::in_interrupt(|| {
            let object: *const u8 = core::ptr::without_provenance(HELD.load(Ordering::Relaxed));
            assert_eq!(MM.kfree(object), Ok(()));
        });
        assert_eq!(MM.kfree(object), Err(FreeError::DoubleFree));
    }
}
