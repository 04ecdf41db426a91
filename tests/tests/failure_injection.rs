//! Every step of every fallible call is made to fail once: an error comes back, and nothing is lost.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 120)]
mod tests {
    use core::fmt::Debug;
    use rtmm::{CacheFlags, FaultClass, GFP_KERNEL, KBox, Pages, VmArea};
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{BIG, Bytes, Counts, HAS_MMU, LARGEST, NothingLost, PAGE};

    /// So much needs a table of its own also where the board has areas from the start: stacks of other CPUs.
    const BEYOND_TABLE: Option<usize> = if cfg!(feature = "smp") { Some(3 << 20) } else { None };

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    /// Makes step 1, 2, 3, ... of `call` fail until it has no such step, and checks after each that all is as it
    /// was. `call` gives back what it took. Returns how many steps there were.
    fn fail_each_step<E: Debug>(class: FaultClass, mut call: impl FnMut() -> Result<(), E>) -> usize {
        let before = Counts::now();
        for step in 1usize.. {
            MM.faults().fail_nth(class, step as u64);
            let result = call();
            let hit = MM.faults().hit();
            MM.faults().disarm();
            assert_eq!(Counts::now(), before, "step {step} gave {result:?}");
            if !hit {
                result.expect("nothing was made to fail");
                return step - 1;
            }
        }
        unreachable!()
    }

    /// The same, for a call that has no other way when a step fails.
    fn each_step_is_an_error<E: Debug>(class: FaultClass, mut call: impl FnMut() -> Result<(), E>) -> usize {
        fail_each_step(class, || {
            let result = call();
            assert_eq!(result.is_err(), MM.faults().hit(), "{result:?}");
            result
        })
    }

    fn vmalloc(size: usize) -> Result<(), rtmm::AllocError> {
        let mut area = Bytes::vmalloc(size)?;
        // The mapping is real up to its last byte.
        area.fill(3);
        assert!(area.holds(3));
        area.free().unwrap();
        Ok(())
    }

    #[test]
    fn vmalloc_at_every_step() {
        for size in [1, PAGE, 5 * PAGE, BIG / 16] {
            let steps = fail_each_step(FaultClass::Any, || vmalloc(size));
            // Pages at least; with page tables also the address range and a table.
            assert!(steps >= if HAS_MMU { 3 } else { 1 }, "{steps} steps for {size} bytes");
        }
    }

    #[test]
    fn vmalloc_of_a_large_area_at_every_step() {
        assert!(fail_each_step(FaultClass::Any, || vmalloc(BIG)) >= 1);
    }

    #[test]
    fn vmalloc_of_scattered_pages_at_every_page() {
        let hoard = rtmm_tests::fragment();
        let pages = 40;
        if HAS_MMU {
            let steps = fail_each_step(FaultClass::Page, || vmalloc(pages * PAGE));
            assert!(steps >= pages, "{steps} steps for {pages} pages");
        } else {
            assert!(vmalloc(pages * PAGE).is_err());
        }
        hoard.free();
    }

    #[test]
    fn vmalloc_at_every_table() {
        let steps = fail_each_step(FaultClass::Table, || vmalloc(BEYOND_TABLE.unwrap_or(BIG / 16)));
        assert_eq!(steps > 0, HAS_MMU, "{steps} steps");
    }

    #[test]
    fn vmalloc_at_every_address_space_step() {
        let steps = each_step_is_an_error(FaultClass::AddressSpace, || vmalloc(BIG / 16));
        assert_eq!(steps > 0, HAS_MMU, "{steps} steps");
    }

    #[test]
    fn vmalloc_at_every_descriptor() {
        let steps = each_step_is_an_error(FaultClass::Descriptor, || vmalloc(BIG / 16));
        assert!(steps >= 1, "{steps} steps");
    }

    #[test]
    fn kmalloc_at_every_slab() {
        let steps = each_step_is_an_error(FaultClass::Slab, || {
            Bytes::kmalloc(64, GFP_KERNEL).map(|object| object.free().unwrap())
        });
        assert_eq!(steps, 1);
    }

    #[test]
    fn ioremap_at_every_step() {
        let (device, len) = board::mmio();
        fail_each_step(FaultClass::Any, || {
            let mapping = MM.ioremap(device, len)?;
            MM.iounmap(mapping.as_ptr()).map_err(rtmm::MmError::from)
        });
    }

    #[test]
    fn kmalloc_at_every_step() {
        for size in [8, 64, 100, 1000, PAGE, 3 * PAGE, 9 * PAGE] {
            let steps = fail_each_step(FaultClass::Any, || {
                let mut object = Bytes::kmalloc(size, GFP_KERNEL)?;
                object.fill(4);
                object.free().unwrap();
                Ok::<(), rtmm::AllocError>(())
            });
            assert!(steps >= 1, "{size} bytes");
        }
    }

    #[test]
    fn krealloc_at_every_step_keeps_the_old_object() {
        for (from, to) in [(64, 5000), (5000, 64), (PAGE, 9 * PAGE)] {
            fail_each_step(FaultClass::Any, || {
                let mut object = Bytes::kmalloc(from, GFP_KERNEL)?;
                object.fill(5);
                let (object, result) = match object.krealloc(to, GFP_KERNEL) {
                    Ok(object) => (object, Ok(())),
                    Err((object, error)) => (object, Err(error)),
                };
                assert!(object.starts_with(from.min(to), 5));
                object.free().unwrap();
                result
            });
        }
    }

    #[test]
    fn pages_at_every_step() {
        for order in 0..=4 {
            let steps = each_step_is_an_error(FaultClass::Any, || {
                Bytes::pages(GFP_KERNEL, order).map(|block| block.free().unwrap())
            });
            assert!(steps >= 1);
        }
        let steps = each_step_is_an_error(FaultClass::Page, || {
            Bytes::exact(7 * PAGE, GFP_KERNEL).map(|block| block.free().unwrap())
        });
        assert!(steps >= 1);
    }

    #[test]
    fn a_cache_at_every_step() {
        fail_each_step(FaultClass::Any, || {
            let cache = MM.kmem_cache_create("injected", 72, 8, CacheFlags::empty(), None)?;
            let result = cache.alloc(GFP_KERNEL).map(|object| cache.free(object.as_ptr()).unwrap());
            cache.destroy().map_err(|(_, error)| error).unwrap();
            result.map_err(rtmm::MmError::from)
        });
    }

    #[test]
    fn a_box_at_every_step() {
        let steps = fail_each_step(FaultClass::Any, || {
            KBox::new_in([7u64; 30], GFP_KERNEL, &MM).map(|value| assert_eq!(*value, [7; 30])).map_err(|_| "no memory")
        });
        assert!(steps >= 1);
    }

    #[test]
    fn owners_at_every_step() {
        let steps = fail_each_step(FaultClass::Any, || Pages::new_in(GFP_KERNEL, 2, &MM).map(drop));
        assert!(steps >= 1);
        let steps = fail_each_step(FaultClass::Any, || VmArea::new_in(6 * PAGE, &MM).map(drop));
        assert!(steps >= 1);
    }

    #[test]
    fn a_real_shortage_is_rolled_back_as_well() {
        let before = Counts::now();
        let size = MM.free_page_count() * PAGE;
        for size in [size, size - PAGE, size / 4 * 3] {
            if let Ok(area) = Bytes::vmalloc(size) {
                area.free().unwrap();
            }
            assert_eq!(Counts::now(), before, "{size} bytes");
        }
        let hoard = rtmm_tests::Hoard::of_everything();
        let short = Counts::now();
        assert!(Bytes::vmalloc(64 << 10).is_err());
        assert!(MM.kmalloc(LARGEST / 2, GFP_KERNEL | rtmm::Gfp::NOWARN).is_err());
        assert!(
            MM.ioremap(board::mmio().0, BEYOND_TABLE.unwrap_or(PAGE))
                .map(|start| MM.iounmap(start.as_ptr()).unwrap())
                .is_err()
                || !HAS_MMU
        );
        assert_eq!(Counts::now(), short);
        hoard.free();
    }
}
