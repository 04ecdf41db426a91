//! Watched objects of kmalloc: stray writes beside them and after their free are found, named, and contained.

mod common;

use common::{NOMMU_RAM, PAGE, RAM, TestMm, mmu, nommu};
use mm_core::*;
use rtmm_testkit::TestPlatform;
use rtmm_testkit::rig::Rig;
use std::collections::BTreeSet;
use std::panic::Location;

/// Bytes of a red zone.
const ZONE: usize = 64;

/// One size of each class.
fn sizes<B: Backend>(mm: &TestMm<B>) -> BTreeSet<usize> {
    (8..=4096).step_by(8).filter_map(|size| Some(mm.slabinfo().class(size)?.0)).collect()
}

/// The one report there is.
#[track_caller]
fn reported(platform: &TestPlatform) -> (usize, usize, Overwritten, &'static Location<'static>) {
    match platform.take_bugs()[..] {
        [Bug::ObjectDamaged { cache: "kmalloc", object, at, what, owner: Some(owner), caller }] => {
            assert!(caller.file().ends_with("objects.rs"), "{caller}");
            (object, at, what, owner)
        }
        ref other => panic!("{other:?}"),
    }
}

fn poke(addr: *mut u8, byte: u8) {
    // SAFETY: RAM of the rig beside or in an object that was ours, which the test spoils.
    unsafe { addr.write(byte) };
}

/// Every class, each distance up to the zone's length.
#[test]
fn an_overflow_or_underflow_is_found_at_the_free_and_names_object_and_owner() {
    let rig = nommu();
    let mm = &rig.mm;
    for size in sizes(mm) {
        for far in [0, 1, 7, 8, 31, ZONE - 1] {
            for before in [false, true] {
                let line = line!() + 1;
                let object = mm.kmalloc(size, GFP_KERNEL).unwrap().as_ptr();
                let at = if before { object.wrapping_sub(1 + far) } else { object.wrapping_add(size + far) };
                poke(at, 0);
                let active = mm.slabinfo().class(size).unwrap().1.active;
                mm.kfree(object).unwrap();
                let (found, byte, what, owner) = reported(&rig.platform);
                assert_eq!((found, byte, what), (object.addr(), at.addr(), Overwritten::RedZone), "{size} {far}");
                assert_eq!(owner.line(), line);
                // It is nobody's, and comes to nobody.
                assert_eq!(mm.slabinfo().class(size).unwrap().1.active, active);
                mm.check().unwrap();
            }
        }
    }
}

/// The next owner does not get it, and what it held is seen until then.
#[test]
fn after_the_free_a_read_sees_poison_and_a_write_is_found_at_the_reuse() {
    let rig = mmu();
    let mm = &rig.mm;
    for size in sizes(mm) {
        for at in [0, size / 2, size - 1] {
            let (object, line) = (mm.kzalloc(size, GFP_KERNEL).unwrap().as_ptr(), line!());
            let kept = mm.kmalloc(size, GFP_KERNEL).unwrap();
            mm.kfree(object).unwrap();
            // SAFETY: RAM of the rig.
            assert!(unsafe { std::slice::from_raw_parts(object, size) }.iter().all(|byte| *byte == 0x6b));
            poke(object.wrapping_add(at), 0x6a);
            // It is the lowest free slot, and so the next that would come.
            let next = mm.kmalloc(size, GFP_KERNEL).unwrap();
            let (found, byte, what, owner) = reported(&rig.platform);
            assert_eq!((found, byte, what), (object.addr(), object.addr() + at, Overwritten::Poison));
            assert_eq!(owner.line(), line, "the last owner");
            assert_ne!(next.as_ptr(), object);
            mm.kfree(next.as_ptr()).unwrap();
            mm.kfree(kept.as_ptr()).unwrap();
        }
    }
    assert_eq!(rig.platform.take_bugs().len(), 0);
}

/// Before anybody frees or takes it.
#[test]
fn a_look_at_all_finds_each_once() {
    let rig = nommu();
    let mm = &rig.mm;
    let held: Vec<_> = (0..40).map(|i| mm.kmalloc(16 << (i % 5), GFP_KERNEL).unwrap().as_ptr()).collect();
    let dma = mm.kmalloc(100, GFP_KERNEL).unwrap().as_ptr();
    assert_eq!(mm.kmalloc_validate(), 0);
    poke(held[7].wrapping_add(16 << 2), 1);
    poke(dma.wrapping_sub(1), 1);
    mm.kfree(held[3]).unwrap();
    poke(held[3].wrapping_add(5), 1);
    assert_eq!(mm.kmalloc_validate(), 3);
    let at: BTreeSet<_> = rig
        .platform
        .take_bugs()
        .iter()
        .map(|bug| match bug {
            Bug::ObjectDamaged { at, .. } => *at,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(at, BTreeSet::from([held[7].addr() + (16 << 2), dma.addr() - 1, held[3].addr() + 5]));
}

/// Nothing else changes: sizes, alignments, contents, refusals, and that all comes back.
#[test]
fn objects_are_as_ever_otherwise() {
    let rig = nommu();
    rig.nothing_lost(|mm| {
        for size in (1..=600).chain([1000, 1024, 1536, 2048, 3000, 4095, 4096, 5000]) {
            let object = mm.kmalloc(size, GFP_KERNEL).unwrap().as_ptr();
            assert!(mm.ksize(object).unwrap() >= size);
            assert!(object.addr().is_multiple_of((size & size.wrapping_neg()).min(PAGE)), "{size}");
            // SAFETY: ours, that long.
            unsafe { object.write_bytes(9, mm.ksize(object).unwrap()) };
            if size > 1 {
                assert_eq!(mm.kfree(object.wrapping_add(size / 2)), Err(FreeError::Interior), "{size}");
            }
            let more = mm.krealloc(object, 2 * size, GFP_KERNEL | Gfp::ZERO).unwrap().unwrap().as_ptr();
            // SAFETY: ours, that long.
            assert!((0..size).all(|i| unsafe { more.add(i).read() } == 9));
            mm.kfree(more).unwrap();
            assert_eq!(mm.kfree(more), Err(FreeError::DoubleFree), "{size}");
            let zeroed = mm.kzalloc(size, GFP_KERNEL).unwrap().as_ptr();
            // SAFETY: ours, that long.
            assert!((0..size).all(|i| unsafe { zeroed.add(i).read() } == 0));
            mm.kfree(zeroed).unwrap();
        }
        // A free object beside others keeps its slab.
        let kept = mm.kmalloc(64, GFP_KERNEL).unwrap().as_ptr();
        let object = mm.kmalloc(64, GFP_KERNEL).unwrap().as_ptr();
        mm.kfree(object).unwrap();
        assert_eq!(mm.kfree(object), Err(FreeError::DoubleFree));
        assert_eq!(mm.kfree(object.wrapping_add(64)), Err(FreeError::Interior), "a red zone");
        mm.kfree(kept).unwrap();
    });
    assert_eq!(rig.platform.take_bugs().len(), 0);
}

/// Devices' objects, and those of requests that wait or have a deadline, are watched too.
#[test]
fn whatever_way_an_object_came_it_is_watched() {
    use std::future::Future;
    let rig = Rig::mmu(&[(0x1000, 0x8_0000), (1 << 20, (1 << 20) + RAM)]);
    let mm = &rig.mm;
    type Take = fn(&TestMm<backend_mmu_x86::X86<rtmm_testkit::SimMachine>>) -> *mut u8;
    let ways: [Take; 4] = [
        |mm| mm.kmalloc(128, GFP_KERNEL | GFP_DMA).unwrap().as_ptr(),
        |mm| mm.kmalloc_deadline(128, GFP_KERNEL, mm.platform().now()).unwrap().as_ptr(),
        |mm| {
            let mut future = std::pin::pin!(mm.kmalloc_async(128, GFP_KERNEL));
            match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
                std::task::Poll::Ready(object) => object.unwrap().as_ptr(),
                std::task::Poll::Pending => panic!("there is memory"),
            }
        },
        |mm| mm.kcalloc(2, 64, GFP_ATOMIC).unwrap().as_ptr(),
    ];
    for take in ways {
        let object = take(mm);
        poke(object.wrapping_add(128), 0);
        mm.kfree(object).unwrap();
        assert_eq!(reported(&rig.platform).0, object.addr());
        let (kept, object) = (take(mm), take(mm));
        mm.kfree(object).unwrap();
        poke(object, 0);
        assert_ne!(take(mm), object);
        assert_eq!(reported(&rig.platform).0, object.addr());
        mm.kfree(kept).unwrap();
    }
}

/// Stray writes at random: each that hits a zone or a free object is found, none does harm, and nobody is blamed for
/// what did not happen.
#[test]
fn stray_writes_at_random_are_found_and_do_no_harm() {
    let mut seed = 0x9e37_79b9_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    };
    for round in 0..if cfg!(miri) { 2 } else { 60 } {
        let rig = Rig::nommu(NOMMU_RAM, RAM);
        let mm = &rig.mm;
        let mut live: Vec<(*mut u8, usize)> = Vec::new();
        for _ in 0..200 {
            if live.is_empty() || random(3) != 0 {
                let object = mm.kmalloc(1 + random(700), GFP_KERNEL).unwrap().as_ptr();
                live.push((object, mm.ksize(object).unwrap()));
            } else {
                mm.kfree(live.swap_remove(random(live.len())).0).unwrap();
            }
        }
        let (object, size) = live[random(live.len())];
        let far = random(ZONE);
        let at = if random(2) == 0 { object.wrapping_add(size + far) } else { object.wrapping_sub(1 + far) };
        poke(at, round as u8);
        live.iter().for_each(|(object, _)| mm.kfree(*object).unwrap());
        mm.kmalloc_validate();
        let bugs = rig.platform.take_bugs();
        assert_eq!(bugs.len(), 1, "{bugs:?}");
        assert!(matches!(bugs[0], Bug::ObjectDamaged { at: found, .. } if found == at.addr()), "{}", bugs[0]);
        mm.check().unwrap();
        assert!(mm.kmalloc(64, GFP_KERNEL).is_ok());
    }
}

/// An object's owner by its address: the first, then the next; none of an address inside.
#[test]
fn an_object_tells_its_owner() {
    let rig = nommu();
    let mm = &rig.mm;
    let (object, line) = (mm.kmalloc(96, GFP_KERNEL).unwrap().as_ptr(), line!());
    assert_eq!(mm.object_owner(object).unwrap().line(), line);
    assert_eq!(mm.object_owner(object.wrapping_add(8)), None);
    assert_eq!(mm.object_owner(object.wrapping_add(96)), None);
    mm.kfree(object).unwrap();
    let (other, line) = (mm.kmalloc(96, GFP_KERNEL).unwrap().as_ptr(), line!());
    assert_eq!((other, mm.object_owner(other).unwrap().line()), (object, line));
    let page = mm.get_free_page(GFP_KERNEL).unwrap().as_ptr();
    assert_eq!(mm.object_owner(page), None);
    assert_eq!(mm.object_owner(std::ptr::null()), None);
    let cache = mm.kmem_cache_create("named", 40, 0, CacheFlags::empty(), None).unwrap();
    let (object, line) = (cache.alloc(GFP_KERNEL).unwrap().as_ptr(), line!());
    assert_eq!(mm.object_owner(object).unwrap().line(), line);
    cache.free(object).unwrap();
}
