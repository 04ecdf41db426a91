//! A bit of the manager's tables that is not what was stored there: the scan goes on whatever it finds, and tells of
//! it.
//!
//! Pointers are left out: one that leads elsewhere cannot be told from a good one without following it.

mod common;

use backend_nommu::Arena;
use common::{NOMMU_RAM, PAGE};
use mm_core::*;
use rtmm_testkit::{Ram, TestPlatform};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// 64 pages and what is needed to manage them.
const LEN: u64 = 70 * PAGE as u64;
const WORD: u64 = size_of::<usize>() as u64;
/// Bytes of a frame's record: what it is in the lower half, where it leads in the upper.
const RECORD: usize = 8;

#[test]
fn the_scan_survives_every_flipped_bit_and_tells_of_those_that_matter() {
    // Not with feature `debug`: records of owners stand between the tables it looks for.
    if cfg!(feature = "debug") {
        return;
    }
    let ram = Ram::new(&[PhysRange { start: NOMMU_RAM, end: NOMMU_RAM + LEN }]);
    let (first, platform, arena) = (ram.ptr(NOMMU_RAM).unwrap(), TestPlatform::new(), Arena::<10>::new());
    // SAFETY: the RAM outlives the manager.
    unsafe { arena.place(first, NOMMU_RAM as usize) };
    let mm = Mm::new(platform.clone(), arena);
    let mut map: BootMap = BootMap::new();
    map.add_ram(NOMMU_RAM, LEN).unwrap();
    let mut usable = map.finish(12, 44).unwrap();
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << 40 }];
    // SAFETY: the memory is this manager's alone, and is there.
    unsafe { mm.init(&mut usable, &Config::new(&zones, VirtRange { start: 0, end: 0 })) }.unwrap();
    let tables = usable.free().iter().map(|range| range.end).max().unwrap()..NOMMU_RAM + LEN;
    assert!(tables.end - tables.start < 7 * PAGE as u64);
    // Something of every kind.
    let objects: Vec<_> = [16, 100, 3000, 9000].iter().map(|&size| mm.kmalloc(size, GFP_KERNEL).unwrap()).collect();
    let blocks: Vec<_> = [0, 1, 3].iter().map(|&order| mm.get_free_pages(GFP_KERNEL, order).unwrap()).collect();
    let area = mm.vmalloc(3 * PAGE).unwrap();
    let clean = mm.check().unwrap();

    let words: Vec<*mut usize> = (tables.start.next_multiple_of(WORD)..tables.end - WORD + 1)
        .step_by(WORD as usize)
        .map(|word| ram.ptr(word).unwrap().cast())
        .collect();
    // The records of frames, of which that of the largest block is found by what it says, and all behind them.
    let largest = mm.pfn_of(blocks[2].as_ptr()).unwrap().0 as usize - (NOMMU_RAM >> 12) as usize;
    // SAFETY: here and below: aligned words of the RAM, which nothing else reads or writes meanwhile.
    let record =
        words.iter().position(|word| unsafe { word.cast::<u32>().read() } == (8 << 16 | FrameKind::Pages as u32));
    let first = record.unwrap() - largest * RECORD / WORD as usize;
    let bits = usize::BITS as usize;
    let records = clean.frames * RECORD / WORD as usize;
    // A root of 15 sets and a class, a group of 7 sets and a class, and the words of free bits.
    let storage = 16 + 8 + clean.frames.div_ceil(bits);
    let (mut told, mut silent) = (0, 0);
    for (number, &at) in words[first..][..records + storage].iter().enumerate() {
        // SAFETY: as above.
        let value = unsafe { at.read() };
        let head_of = |value: usize| if (number * bits).is_multiple_of(8 * RECORD) { value & 0xff } else { usize::MAX };
        for bit in (0..bits).step_by(if cfg!(miri) { 13 } else { 1 }) {
            // SAFETY: as above.
            unsafe { at.write(value ^ 1 << bit) };
            let found = catch_unwind(AssertUnwindSafe(|| mm.check())).expect("the scan goes on whatever it finds");
            // SAFETY: as above.
            unsafe { at.write(value) };
            if found != Ok(clean) {
                told += 1;
                continue;
            }
            silent += 1;
            assert!(number < records, "bit {bit} of word {} of the free frames", number - records);
            let bit = (number * bits + bit) % (8 * RECORD);
            // Both are blocks of somebody's.
            if [FrameKind::Pages, FrameKind::Large].iter().any(|kind| head_of(value) == *kind as usize) && bit == 0 {
                continue;
            }
            // Of a record: whom it leads to, the references on pages, and what nobody reads of a frame that heads no
            // block.
            let heads = ![FrameKind::Tail as usize, FrameKind::Reserved as usize].contains(&head_of(value));
            assert!(bit >= 32 || bit >= 8 && (!heads || bit < 16), "bit {bit} of the record {value:#x}");
        }
    }
    println!("{told} told, {silent} silent");
    assert!(told > 0);
    assert_eq!(mm.check().unwrap(), clean);
    platform.take_bugs();
    mm.vfree(area.as_ptr()).unwrap();
    blocks.into_iter().zip([0, 1, 3]).for_each(|(block, order)| mm.free_pages(block.as_ptr(), order).unwrap());
    objects.into_iter().for_each(|object| mm.kfree(object.as_ptr()).unwrap());
    mm.drain();
    mm.check().unwrap();
}
