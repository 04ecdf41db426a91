//! An interrupt that allocates and frees may come at any instruction of the allocator.
//!
//! Each test prints how many instructions were interrupted, at how many addresses, and how long an interrupt waited.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::ptr::NonNull;
    use rtmm::{GFP_KERNEL, GFP_NOWAIT};
    use rtmm_tests::board::MM;
    use rtmm_tests::sweep::{self, Coverage, settle, sweep};
    use rtmm_tests::{Bytes, NothingLost, PAGE};

    #[init]
    fn init() -> NothingLost {
        sweep::start();
        NothingLost::watch()
    }

    /// What the object under test is filled with; the handler's objects hold something else.
    const MARK: u8 = 0xa5;

    fn object() -> Bytes {
        Bytes::kmalloc(64, GFP_KERNEL).unwrap()
    }

    /// The object is a good one, and goes back.
    fn give(mut object: Bytes) {
        object.fill(MARK);
        assert!(object.holds(MARK));
        object.free().unwrap();
    }

    /// No object of the class is left, live or free, in any slab.
    fn no_slab() {
        settle();
        MM.drain();
        assert_eq!(MM.slabinfo().class(64).unwrap().1.objects, 0);
    }

    #[test]
    fn during_kmalloc_of_a_free_object() {
        let keeps_the_slab = object();
        sweep("kmalloc", || (), |()| object(), give);
        keeps_the_slab.free().unwrap();
    }

    #[test]
    fn during_kfree() {
        let keeps_the_slab = object();
        sweep("kfree", object, Bytes::free, |freed| freed.unwrap());
        keeps_the_slab.free().unwrap();
    }

    #[test]
    fn during_kmalloc_that_makes_a_slab() {
        let found = sweep("kmalloc, new slab", no_slab, |()| object(), give);
        assert!(found.masked > 0);
    }

    #[test]
    fn during_kfree_that_gives_a_slab_back() {
        // One slab that is empty but stays, one that goes with its last object, and where CPUs keep objects of their
        // own a third one for those.
        // Of objects so large that three slabs have few.
        let size = PAGE / 8;
        let take = || MM.kmalloc(size, GFP_KERNEL).unwrap();
        let free = |object: NonNull<u8>| MM.kfree(object.as_ptr());
        let first = take();
        let slots = MM.slabinfo().class(size).unwrap().1.objects;
        free(first).unwrap();
        let mut live: heapless::Vec<NonNull<u8>, 200> = heapless::Vec::new();
        let fill = |live: &mut heapless::Vec<NonNull<u8>, 200>, slabs: usize| {
            while let Some(object) = live.pop() {
                free(object).unwrap();
            }
            MM.drain();
            settle();
            while live.len() < slabs * slots {
                live.push(take()).unwrap();
            }
            // All of the first, and all but the last of the second.
            for _ in 0..2 * slots - 1 {
                free(live.remove(0)).unwrap();
            }
            live.remove(0)
        };
        let slabs = (2..=3).find(|&slabs| {
            let last = fill(&mut live, slabs);
            let before = MM.free_page_count();
            free(last).unwrap();
            MM.free_page_count() > before
        });
        let slabs = slabs.expect("the path gives its slab back");
        sweep("kfree, slab given back", || fill(&mut live, slabs), free, |freed| freed.unwrap());
        for object in live {
            free(object).unwrap();
        }
    }

    fn pages(order: usize) -> Coverage {
        let what = if order == 0 { ["get_free_page", "free_page"] } else { ["get_free_pages", "free_pages"] };
        let take = || MM.get_free_pages(GFP_NOWAIT, order).unwrap();
        let give = |block: NonNull<u8>| MM.free_pages(block.as_ptr(), order);
        sweep(what[0], || (), |()| take(), |block| give(block).unwrap());
        sweep(what[1], take, give, |freed| freed.unwrap())
    }

    #[test]
    fn during_get_free_page_and_free_page() {
        pages(0);
    }

    #[test]
    fn during_get_free_pages_and_free_pages() {
        pages(2);
    }

    #[test]
    fn during_vmalloc_and_vfree() {
        let area = || Bytes::vmalloc(3 * PAGE).unwrap();
        sweep("vmalloc", || (), |()| area(), give);
        sweep("vfree", area, Bytes::free, |freed| freed.unwrap());
    }

    #[test]
    fn during_an_object_from_a_cache_of_its_own() {
        let cache = MM.kmem_cache_create("swept", 40, 8, rtmm::CacheFlags::empty(), None).unwrap();
        let keeps_the_slab = cache.alloc(GFP_KERNEL).unwrap();
        let take = || cache.alloc(GFP_KERNEL).unwrap();
        let give = |object: NonNull<u8>| cache.free(object.as_ptr());
        sweep("kmem_cache_alloc", || (), |()| take(), |object| give(object).unwrap());
        sweep("kmem_cache_free", take, give, |freed| freed.unwrap());
        give(keeps_the_slab).unwrap();
        cache.destroy().map_err(|(_, error)| error).unwrap();
    }
}
