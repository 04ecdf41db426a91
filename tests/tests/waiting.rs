//! Requests that wait, on boards that can and on those that cannot, and futures on both.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::future::Future;
    use core::pin::{Pin, pin};
    use core::sync::atomic::{AtomicUsize, Ordering};
    use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
    use core::time::Duration;
    use rtmm::{AllocError, GFP_KERNEL, GFP_NOWAIT, Gfp, Platform};
    use rtmm_tests::board::{self, BoardPlatform, MM};
    use rtmm_tests::{Bytes, Hoard, NothingLost};

    const QUIET: Gfp = GFP_NOWAIT.union(Gfp::NOWARN);
    const PATIENT: Gfp = GFP_KERNEL.union(Gfp::NOWARN);

    /// How often each of the first tasks was woken.
    static WOKEN: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

    static WAKER: RawWakerVTable = RawWakerVTable::new(
        |task| RawWaker::new(task, &WAKER),
        |task| _ = WOKEN[task.addr()].fetch_add(1, Ordering::Relaxed),
        |task| _ = WOKEN[task.addr()].fetch_add(1, Ordering::Relaxed),
        |_| (),
    );

    fn waker(task: usize) -> Waker {
        // SAFETY: the functions keep the contract: the data is a number, of which nothing is owned.
        unsafe { Waker::from_raw(RawWaker::new(core::ptr::without_provenance(task), &WAKER)) }
    }

    fn poll<F: Future>(future: Pin<&mut F>, task: usize) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&waker(task)))
    }

    fn woken(task: usize) -> usize {
        WOKEN[task].load(Ordering::Relaxed)
    }

    #[init]
    fn init() -> NothingLost {
        MM.drain();
        NothingLost::watch()
    }

    #[test]
    fn nobody_waits_where_no_platform_can_and_nowhere_for_longer_than_told() {
        let page = MM.get_free_page(GFP_KERNEL).unwrap();
        let hoard = Hoard::of(QUIET);
        let start = MM.platform().now();
        let until = start + Duration::from_millis(20);
        assert_eq!(MM.get_free_pages_deadline(PATIENT, 0, until), Err(AllocError::NoMemory));
        assert!(MM.kmalloc_deadline(64 << 10, PATIENT, until).is_err());
        assert!(MM.platform().now() >= until || !BoardPlatform::CAN_WAIT);
        // An interrupt never waits.
        board::in_interrupt(|| assert!(MM.get_free_page(QUIET).is_err()));
        hoard.free();
        MM.free_page(page.as_ptr()).unwrap();
    }

    #[test]
    fn futures_are_served_in_turn_by_frees_of_tasks_and_interrupts() {
        static PAGE: AtomicUsize = AtomicUsize::new(0);
        let page = MM.get_free_page(GFP_KERNEL).unwrap();
        let second = MM.get_free_page(GFP_KERNEL).unwrap();
        let hoard = Hoard::of(QUIET);
        let mut first = pin!(MM.get_free_pages_async(PATIENT, 0));
        let mut next = pin!(MM.get_free_pages_async(PATIENT, 0));
        assert!(poll(first.as_mut(), 0).is_pending() && poll(next.as_mut(), 1).is_pending());
        PAGE.store(page.as_ptr().expose_provenance(), Ordering::Relaxed);
        board::in_interrupt(|| {
            let at = PAGE.load(Ordering::Relaxed);
            MM.free_page(core::ptr::without_provenance(at)).unwrap();
            assert!(MM.get_free_page(QUIET).is_err(), "it was handed over");
        });
        assert_eq!((woken(0), woken(1)), (1, 0));
        MM.free_page(second.as_ptr()).unwrap();
        assert_eq!((woken(0), woken(1)), (1, 1));
        let (Poll::Ready(Ok(one)), Poll::Ready(Ok(two))) = (poll(first.as_mut(), 0), poll(next.as_mut(), 1)) else {
            panic!("they were woken")
        };
        assert_ne!(one, two);
        MM.free_page(one.as_ptr()).unwrap();
        MM.free_page(two.as_ptr()).unwrap();
        hoard.free();
    }

    #[test]
    fn a_future_that_is_dropped_hands_on_what_it_was_handed() {
        let page = MM.get_free_page(GFP_KERNEL).unwrap();
        let hoard = Hoard::of(QUIET);
        let mut last = pin!(MM.alloc_pages_async(PATIENT, 0));
        {
            let mut first = pin!(MM.get_free_pages_async(PATIENT, 0));
            assert!(poll(first.as_mut(), 2).is_pending() && poll(last.as_mut(), 3).is_pending());
            MM.free_page(page.as_ptr()).unwrap();
            assert_eq!((woken(2), woken(3)), (1, 0));
        }
        assert_eq!((woken(2), woken(3)), (1, 1));
        let Poll::Ready(Ok(pfn)) = poll(last.as_mut(), 3) else { panic!("it was woken") };
        MM.free_pages_frame(pfn, 0).unwrap();
        hoard.free();
    }

    #[test]
    fn an_object_that_is_freed_serves_who_waits_for_one() {
        let mut objects: heapless::Vec<Bytes, 64> = heapless::Vec::new();
        objects.push(Bytes::kmalloc(512, GFP_KERNEL).unwrap()).unwrap();
        let hoard = Hoard::of(QUIET);
        while let Ok(object) = Bytes::kmalloc(512, QUIET) {
            objects.push(object).unwrap();
        }
        let mut future = pin!(MM.kmalloc_async(512, PATIENT | Gfp::ZERO));
        assert!(poll(future.as_mut(), 0).is_pending());
        let mut object = objects.pop().unwrap();
        object.fill(0xee);
        let at = object.addr();
        object.free().unwrap();
        assert_eq!(woken(0), 1);
        assert!(MM.kmalloc(512, QUIET).is_err(), "it was handed over");
        let Poll::Ready(Ok(got)) = poll(future.as_mut(), 0) else { panic!("it was woken") };
        // SAFETY: the object is ours.
        assert_eq!((got.as_ptr().addr(), unsafe { *got.cast::<[u8; 512]>().as_ref() }), (at, [0; 512]));
        MM.kfree(got.as_ptr()).unwrap();
        for object in objects {
            object.free().unwrap();
        }
        hoard.free();
    }
}
