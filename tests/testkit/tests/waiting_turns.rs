//! Who is served first of those who wait for memory, and who is not kept out for ever.

mod common;

use common::waiting::*;
use common::*;
use mm_core::*;
use rtmm_testkit::rig::Rig;
use std::pin::pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::Poll;

#[test]
fn those_who_wait_are_served_in_turn() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let bells: Vec<Arc<Bell>> = (0..100).map(|_| Arc::default()).collect();
    let mut futures: Vec<_> = bells.iter().map(|_| Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0))).collect();
    for (future, bell) in futures.iter_mut().zip(&bells) {
        assert!(poll(future.as_mut(), bell).is_pending());
        // Asked again, it keeps its place.
        assert!(poll(future.as_mut(), bell).is_pending());
    }
    for served in 0..bells.len() {
        free_one(&rig.mm, &taken).unwrap();
        for (i, bell) in bells.iter().enumerate() {
            assert_eq!(bell.rung(), usize::from(i <= served), "{i} when {served} were served");
        }
    }
    for (future, bell) in futures.iter_mut().zip(&bells) {
        let Poll::Ready(Ok(page)) = poll(future.as_mut(), bell) else { panic!("handed over") };
        taken.lock().unwrap().push(page.addr().get());
    }
    end(rig, &taken, before);
}

#[test]
fn a_block_goes_to_the_oldest_it_fits_and_its_rest_to_the_next() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let block = rig.mm.get_free_pages(GFP_KERNEL, 3).unwrap();
    let taken = use_up(&rig.mm);
    let (bells, orders): ([Arc<Bell>; 4], _) = (Default::default(), [4, 1, 2, 0]);
    let mut futures: Vec<_> = orders.iter().map(|&o| Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, o))).collect();
    for (future, bell) in futures.iter_mut().zip(&bells) {
        assert!(poll(future.as_mut(), bell).is_pending());
    }
    rig.mm.free_pages(block.as_ptr(), 3).unwrap();
    // Eight pages are too few for sixteen, and enough for two, four and one.
    assert_eq!(bells.each_ref().map(|bell| bell.rung()), [0, 1, 1, 1]);
    for ((future, bell), order) in futures.iter_mut().zip(&bells).zip(orders).skip(1) {
        let Poll::Ready(Ok(page)) = poll(future.as_mut(), bell) else { panic!("handed over") };
        rig.mm.free_pages(page.as_ptr(), order).unwrap();
    }
    drop(futures);
    end(rig, &taken, before);
}

/// No page is free any more; of those taken the first are eight in a row, which go back one by one. What was free before.
fn with_eight_pages_in_a_row() -> (TestRig, usize, NonNull<u8>, Taken) {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let block = rig.mm.get_free_pages(GFP_KERNEL, 3).unwrap();
    rig.mm.split_page(rig.mm.pfn_of(block.as_ptr()).unwrap(), 3).unwrap();
    let taken = use_up(&rig.mm);
    (rig, before, block, taken)
}

#[test]
fn who_wants_much_is_passed_over_sixteen_times_and_then_its_pages_are_put_by() {
    let (rig, before, block, taken) = with_eight_pages_in_a_row();
    let bell = Arc::new(Bell::default());
    let mut much = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 3));
    assert!(poll(much.as_mut(), &bell).is_pending());
    let little: Vec<Arc<Bell>> = (0..40).map(|_| Arc::default()).collect();
    let mut futures: Vec<_> = little.iter().map(|_| Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 0))).collect();
    for (future, bell) in futures.iter_mut().zip(&little) {
        assert!(poll(future.as_mut(), bell).is_pending());
    }
    let served = || little.iter().filter(|bell| bell.rung() != 0).count();
    for page in 0..16 {
        assert_eq!(served(), page);
        free_one(&rig.mm, &taken).unwrap();
    }
    // Seven of its eight pages: they are nobody else's now, newcomers' neither.
    for page in 0..7 {
        free(&rig.mm, block.addr().get() + page * PAGE);
        assert_eq!((served(), bell.rung()), (16, 0));
        assert_eq!(rig.mm.get_free_page(GFP_NOWAIT | Gfp::NOWARN), Err(AllocError::NoMemory));
    }
    free(&rig.mm, block.addr().get() + 7 * PAGE);
    assert_eq!((served(), bell.rung()), (16, 1));
    let Poll::Ready(Ok(got)) = poll(much.as_mut(), &bell) else { panic!("handed over") };
    assert_eq!(got, block);
    // Afterwards all is as before.
    for _ in 16..40 {
        free_one(&rig.mm, &taken).unwrap();
    }
    assert_eq!(served(), 40);
    for (future, bell) in futures.iter_mut().zip(&little) {
        let Poll::Ready(Ok(page)) = poll(future.as_mut(), bell) else { panic!("handed over") };
        taken.lock().unwrap().push(page.addr().get());
    }
    rig.mm.free_pages(got.as_ptr(), 3).unwrap();
    let page = rig.mm.get_free_page(GFP_NOWAIT).unwrap();
    free(&rig.mm, page.addr().get());
    end(rig, &taken, before);
}

#[test]
fn nobody_waits_for_what_no_zone_could_ever_give() {
    // 1 MiB, of which the manager's own tables take some: no block of 256 pages is ever free.
    let rig: TestRig = Box::leak(Box::new(Rig::nommu(NOMMU_RAM, 1 << 20)));
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let bell = Arc::new(Bell::default());
    for order in [8, 10] {
        let refused = AllocError::NoMemory;
        assert_eq!(poll(pin!(rig.mm.alloc_pages_async(GFP_KERNEL, order)), &bell), Poll::Ready(Err(refused)));
        assert_eq!(poll(pin!(rig.mm.kmalloc_async(PAGE << order, GFP_KERNEL)), &bell), Poll::Ready(Err(refused)));
        let start = rig.platform.now();
        assert_eq!(rig.mm.get_free_pages(GFP_KERNEL, order), Err(refused));
        assert_eq!(rig.mm.vmalloc_deadline(PAGE << order, start + SOON), Err(AllocError::TooBig));
        assert_eq!((rig.platform.now(), rig.platform.waits()), (start, 0));
    }
    // What is there once is given.
    let half = poll(pin!(rig.mm.get_free_pages_async(GFP_KERNEL, 7)), &bell);
    let Poll::Ready(Ok(half)) = half else { panic!("half of the memory is one block") };
    rig.mm.free_pages(half.as_ptr(), 7).unwrap();
    end(rig, &Taken::default(), before);
}

#[test]
fn who_wants_most_of_the_memory_shuts_nobody_out() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let (order, share) = (rig.mm.largest_block(GFP_KERNEL).unwrap(), rig.mm.zoneinfo().zones()[0].managed / 8);
    let taken = use_up(&rig.mm);
    let bell = Arc::new(Bell::default());
    let mut most = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, order));
    assert!(poll(most.as_mut(), &bell).is_pending());
    for _ in 0..20 {
        let others = taken.clone();
        rig.platform.on_wait(move || _ = free_one(&rig.mm, &others));
        let page = rig.mm.get_free_page(GFP_KERNEL);
        rig.platform.nothing_happens();
        taken.lock().unwrap().extend(page.map(|page| page.addr().get()));
    }
    // It was passed over often enough, and pages are put by for it; but no more than its share.
    let kept: Vec<usize> = std::iter::from_fn(|| match rig.mm.get_free_page(GFP_NOWAIT | Gfp::NOWARN) {
        Ok(page) => {
            free(&rig.mm, page.addr().get());
            None
        }
        Err(_) => free_one(&rig.mm, &taken),
    })
    .collect();
    assert!((share / 2..=share + 1).contains(&kept.len()), "{} of {share}", kept.len());
    drop(most);
    end(rig, &taken, before);
}

/// Somebody who does not wait takes each page that becomes free, before there are enough.
#[test]
fn who_wants_much_is_not_starved_by_who_does_not_wait() {
    let (rig, before, block, taken) = with_eight_pages_in_a_row();
    let mut pages: Vec<usize> = (0..8).map(|page| block.addr().get() + page * PAGE).collect();
    let bell = Arc::new(Bell::default());
    let mut much = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 3));
    assert!(poll(much.as_mut(), &bell).is_pending());
    // He has it back at once, as often as anybody is passed over.
    let mut rounds = 0;
    while let Some(page) = pages.pop() {
        free(&rig.mm, page);
        match rig.mm.get_free_page(GFP_NOWAIT | Gfp::NOWARN) {
            Ok(page) => pages.insert(0, page.addr().get()),
            Err(error) => assert_eq!(error, AllocError::NoMemory),
        }
        rounds += 1;
        assert!(rounds < 100, "somebody waits for ever");
    }
    assert!((16..=16 + 9).contains(&rounds), "{rounds} rounds");
    assert_eq!(bell.rung(), 1);
    let Poll::Ready(Ok(got)) = poll(much.as_mut(), &bell) else { panic!("handed over") };
    assert_eq!(got, block);
    // Afterwards he has what there is again.
    rig.mm.free_pages(got.as_ptr(), 3).unwrap();
    let page = rig.mm.get_free_page(GFP_NOWAIT).unwrap();
    free(&rig.mm, page.addr().get());
    end(rig, &taken, before);
}

/// Frees that add up pass nobody over: others still get what is to be had.
#[test]
fn pages_that_gather_are_put_by_for_nobody() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let bell = Arc::new(Bell::default());
    let mut much = Box::pin(rig.mm.get_free_pages_async(GFP_KERNEL, 5));
    assert!(poll(much.as_mut(), &bell).is_pending());
    // Every second page, so that no block forms.
    let pages = std::mem::take(&mut *taken.lock().unwrap());
    let (even, odd): (Vec<usize>, Vec<usize>) = pages.into_iter().partition(|page| (page / PAGE).is_multiple_of(2));
    for page in &even[..100] {
        free(&rig.mm, *page);
        assert_eq!(bell.rung(), 0);
    }
    let again: Vec<usize> =
        (0..90).map(|_| rig.mm.get_free_page(GFP_NOWAIT).expect("a hundred are free").addr().get()).collect();
    drop(much);
    taken.lock().unwrap().extend(again.into_iter().chain(odd).chain(even[100..].iter().copied()));
    end(rig, &taken, before);
}
