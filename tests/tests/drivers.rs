//! The scull drivers on the manager: they work, and the bugs such drivers had are refused or harmless.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::cell::Cell;
    use core::ptr::NonNull;
    use rtmm::{AllocError, CacheFlags, FaultClass, FreeError, GFP_KERNEL, RawKmemCache};
    use rtmm_examples::scull::{Cached, Device, Kmalloc, Paged, Store, Virtual};
    use rtmm_tests::board::{Kernel, MM};
    use rtmm_tests::{Counts, NothingLost, PAGE};

    /// Quanta per array: small, so that a few writes make several list nodes.
    const SET: usize = 3;

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    /// A byte that tells where in a device it belongs.
    fn pattern(at: usize) -> u8 {
        (at % 251) as u8
    }

    /// Writes `length` bytes of the pattern from `start` on, by pieces that fit no quantum.
    fn write<S: Store>(device: &mut Device<S>, start: usize, length: usize) -> Result<(), AllocError> {
        let mut piece = [0; 300];
        let mut at = start;
        while at < start + length {
            let count = piece.len().min(start + length - at);
            for (offset, byte) in piece[..count].iter_mut().enumerate() {
                *byte = pattern(at + offset);
            }
            at += device.write(at, &piece[..count])?;
        }
        Ok(())
    }

    /// True when `length` bytes from `start` on are as `write` left them.
    fn holds<S: Store>(device: &Device<S>, start: usize, length: usize) -> bool {
        let mut piece = [0; 300];
        let mut at = start;
        while at < start + length {
            let most = piece.len().min(start + length - at);
            let count = device.read(at, &mut piece[..most]);
            if count == 0 || piece[..count].iter().enumerate().any(|(offset, byte)| *byte != pattern(at + offset)) {
                return false;
            }
            at += count;
        }
        true
    }

    /// Runs the same on all four devices.
    macro_rules! on_every_device {
        ($run:ident) => {
            $run(Kmalloc::new(&MM));
            $run(Cached::new(&MM).unwrap());
            $run(Paged::new(&MM, 0));
            $run(Virtual::new(&MM, 1));
        };
    }

    #[test]
    fn what_is_written_is_read_and_all_of_it_goes_back() {
        fn run<S: Store>(store: S) {
            let before = Counts::now();
            let mut device = Device::new(store, SET);
            let quantum = device.store().quantum();
            let length = 2 * SET * quantum + quantum / 2;
            write(&mut device, 0, length).unwrap();
            assert_eq!(device.size(), length);
            assert!(holds(&device, 0, length), "{}", S::NAME);
            device.open_for_write().unwrap();
            assert_eq!(device.size(), 0);
            // Written again, one node further on, with holes before it.
            write(&mut device, 3 * SET * quantum, quantum).unwrap();
            assert_eq!(device.read(0, &mut [0; 8]), 0);
            assert!(holds(&device, 3 * SET * quantum, quantum), "{}", S::NAME);
            device.trim().unwrap();
            assert_eq!(Counts::now(), before, "{}", S::NAME);
        }
        on_every_device!(run);
    }

    #[test]
    fn a_step_that_fails_leaves_what_the_device_holds() {
        fn run<S: Store>(store: S) {
            let mut device = Device::new(store, SET);
            let quantum = device.store().quantum();
            write(&mut device, 0, quantum).unwrap();
            let far = 2 * SET * quantum;
            for step in 1.. {
                MM.faults().fail_nth(FaultClass::Any, step);
                let written = device.write(far, &[pattern(far)]);
                let hit = MM.faults().hit();
                MM.faults().disarm();
                MM.check().unwrap();
                assert!(holds(&device, 0, quantum), "{} at step {step}", S::NAME);
                if !hit {
                    assert_eq!(written, Ok(1));
                    assert!(step > 1, "{} took nothing", S::NAME);
                    break;
                }
                if written.is_err() {
                    assert_eq!(device.size(), quantum);
                } else {
                    device.trim().unwrap();
                    write(&mut device, 0, quantum).unwrap();
                }
            }
            assert!(holds(&device, far, 1));
            device.trim().unwrap();
        }
        on_every_device!(run);
    }

    /// scullp as it was published: list nodes after the first forget the device's order, and are trimmed with order 0.
    struct ForgetsTheOrder {
        pages: Paged<'static, rtmm_tests::board::BoardPlatform, rtmm_tests::board::Backend>,
        /// How many frees still use the right order.
        remembered: Cell<usize>,
    }

    // SAFETY: memory comes from `pages` and goes back to the manager whole or not at all.
    unsafe impl Store for ForgetsTheOrder {
        const NAME: &'static str = "scullp as published";

        fn quantum(&self) -> usize {
            self.pages.quantum()
        }

        fn take(&self) -> Result<NonNull<u8>, AllocError> {
            self.pages.take()
        }

        fn put(&self, quantum: NonNull<u8>) -> Result<(), FreeError> {
            match self.remembered.get() {
                0 => MM.free_pages(quantum.as_ptr(), 0),
                left => {
                    self.remembered.set(left - 1);
                    self.pages.put(quantum)
                }
            }
        }

        fn take_table(&self, bytes: usize) -> Result<NonNull<u8>, AllocError> {
            self.pages.take_table(bytes)
        }

        fn put_table(&self, table: NonNull<u8>) -> Result<(), FreeError> {
            self.pages.put_table(table)
        }
    }

    #[test]
    fn a_trim_with_a_forgotten_order_is_refused_and_loses_nothing() {
        let store = ForgetsTheOrder { pages: Paged::new(&MM, 2), remembered: Cell::new(SET) };
        let mut device = Device::new(store, SET);
        let quantum = device.store().quantum();
        assert_eq!(quantum, PAGE << 2);
        write(&mut device, 0, 2 * SET * quantum).unwrap();

        // The first node's quanta go back; the second's would lose three pages each.
        assert_eq!(device.trim(), Err(FreeError::WrongOrder));
        let after = Counts::now();
        assert_eq!(device.trim(), Err(FreeError::WrongOrder));
        assert_eq!(Counts::now(), after);

        device.store().remembered.set(SET);
        device.trim().unwrap();
    }

    /// scullc as it could be configured: the quantum was raised past the size the cache was made for.
    struct OutgrewItsCache {
        cache: RawKmemCache<Kernel>,
    }

    const OBJECT: usize = 400;
    /// Eight bytes more than an object: what is hit is the next slot.
    const RAISED: usize = OBJECT + 8;

    // SAFETY: it breaks the contract on purpose. The test takes fewer quanta than a slab has slots, from the lowest on,
    // so that only slots of this cache are hit: objects of this device, or free ones.
    unsafe impl Store for OutgrewItsCache {
        const NAME: &'static str = "scullc with a raised quantum";

        fn quantum(&self) -> usize {
            RAISED
        }

        fn take(&self) -> Result<NonNull<u8>, AllocError> {
            self.cache.alloc(GFP_KERNEL)
        }

        fn put(&self, quantum: NonNull<u8>) -> Result<(), FreeError> {
            self.cache.free(quantum.as_ptr())
        }

        fn take_table(&self, bytes: usize) -> Result<NonNull<u8>, AllocError> {
            MM.kzalloc(bytes, GFP_KERNEL)
        }

        fn put_table(&self, table: NonNull<u8>) -> Result<(), FreeError> {
            MM.kfree(table.as_ptr())
        }
    }

    #[test]
    fn an_overflow_damages_data_and_never_the_allocator() {
        let cache = RawKmemCache::new_in("raised", OBJECT, 0, CacheFlags::empty(), None, Kernel).unwrap();
        let mut device = Device::new(OutgrewItsCache { cache }, SET);
        let length = SET * RAISED;
        write(&mut device, 0, length).unwrap();
        assert!(!holds(&device, 0, length), "neighbours overwrote each other's ends");
        MM.check().unwrap();
        device.trim().unwrap();
        MM.check().unwrap();
    }

    #[test]
    fn a_quantum_goes_back_once_and_only_to_where_it_came_from() {
        let stores: (Kmalloc<_, _>, Cached<_, _>, Paged<_, _>, Virtual<_, _>) =
            (Kmalloc::new(&MM), Cached::new(&MM).unwrap(), Paged::new(&MM, 0), Virtual::new(&MM, 1));
        // One more of each stays out, so that no slab goes back to the pages while its object is freed twice.
        let kept = (stores.0.take().unwrap(), stores.1.take().unwrap());

        type Put<'a> = &'a dyn Fn(NonNull<u8>) -> Result<(), FreeError>;
        let puts: [Put<'_>; 4] =
            [&|q| stores.0.put(q), &|q| stores.1.put(q), &|q| stores.2.put(q), &|q| stores.3.put(q)];
        let quanta =
            [stores.0.take().unwrap(), stores.1.take().unwrap(), stores.2.take().unwrap(), stores.3.take().unwrap()];
        for (i, quantum) in quanta.into_iter().enumerate() {
            for (j, put) in puts.iter().enumerate().filter(|(j, _)| *j != i) {
                let before = Counts::now();
                assert!(put(quantum).is_err(), "a quantum of store {i} was taken by store {j}");
                assert_eq!(Counts::now(), before);
            }
            assert_eq!(puts[i](quantum), Ok(()));
            assert_eq!(puts[i](quantum), Err(FreeError::DoubleFree), "store {i}");
        }

        stores.0.put(kept.0).unwrap();
        stores.1.put(kept.1).unwrap();
    }
}
