//! What the TLB keeps, and what a flush takes from it. Each test would be green on a machine without a TLB only by
//! its last lines, and so shows that the simulated one can catch a flush that was left out.

mod common;

use common::{LARGE, PAGE, Rig, absent};
use mm_core::{CacheMode, PageRange, PageTable, Pfn, Prot, VirtRange};
use rtmm_testkit::{Access, Fault};

/// A frame of RAM nobody uses for tables: the first of the second piece.
const FRAME: Pfn = Pfn(0x100);

fn run(start: Pfn, count: u32) -> PageRange {
    PageRange { start, count }
}

fn mapped<const PAE: bool>(cpus: usize, pages: u32) -> (Rig<PAE>, usize) {
    let mut rig = Rig::<PAE>::new(cpus);
    let at = rig.window.start + PAGE;
    assert_eq!(rig.map(at, run(FRAME, pages), Prot::ReadWrite, CacheMode::WriteBack), Ok(pages));
    (rig, at)
}

#[test]
fn memory_is_reached_through_a_mapping() {
    let (rig, at) = mapped::<false>(1, 2);
    rig.machine.store(at + PAGE - 2, b"over").unwrap();
    let mut direct = [0; 4];
    let base = 0xffff_8880_0000_0000;
    rig.machine.load(base + (FRAME.0 as usize + 1) * PAGE - 2, &mut direct).unwrap();
    assert_eq!(&direct, b"over");
}

#[test]
fn an_unmapped_page_is_reached_until_the_flush() {
    let (mut rig, at) = mapped::<false>(1, 1);
    rig.machine.store(at, b"x").unwrap();
    rig.unmap(at, 1, 1);
    assert_eq!(rig.machine.store(at, b"y"), Ok(()), "the TLB forgot by itself");
    rig.flush(at, 1);
    assert_eq!(rig.machine.load(at, &mut [0]), Err(absent(at)));
}

#[test]
fn a_page_made_read_only_is_writable_until_the_flush() {
    let (mut rig, at) = mapped::<false>(1, 1);
    rig.machine.store(at, b"x").unwrap();
    rig.protect(at, 1, Prot::Read).unwrap();
    assert_eq!(rig.machine.store(at, b"y"), Ok(()), "the TLB forgot by itself");
    rig.flush(at, 1);
    assert_eq!(rig.machine.store(at, b"z").unwrap_err().code(), Some(0b11));
    assert_eq!(rig.machine.load(at, &mut [0]), Ok(()));
}

#[test]
fn a_table_reused_before_the_flush_is_walked_as_one() {
    let (mut rig, at) = mapped::<false>(1, 1);
    // Caches the upper entries on the way to `at`, and no page of it that is asked for below.
    rig.machine.load(at, &mut [0]).unwrap();
    rig.unmap(at, 1, 1);
    assert_eq!(rig.tables.retired(), 2);
    let somebody_s_data = 0x0010_5003;
    rig.tables.reuse_too_early(somebody_s_data);
    let stray = rig.machine.access(at + PAGE, Access::Write).map(|seen| seen.phys);
    assert_eq!(stray, Ok(0x10_5000), "cached upper entries were forgotten");
    rig.backend.flush(VirtRange { start: at, end: at + PAGE });
    // That page's translation was cached on the way, so the flush of its neighbour leaves it; a third page is clean.
    assert_eq!(rig.machine.load(at + 2 * PAGE, &mut [0]), Err(absent(at + 2 * PAGE)));
}

#[test]
fn a_split_large_entry_keeps_its_old_protection_until_the_flush() {
    let mut rig = Rig::<false>::new(1);
    let at = rig.window.start;
    assert_eq!(rig.map(at, run(Pfn(0), 512), Prot::ReadWrite, CacheMode::WriteBack), Ok(512));
    rig.machine.store(at + LARGE / 2, b"x").unwrap();
    assert_eq!(rig.protect(at + PAGE, 1, Prot::Read), Ok(1));
    rig.check();
    assert_eq!(rig.machine.access(at + PAGE, Access::Write).map(|seen| seen.bytes), Ok(LARGE as u64));
    rig.flush(at + PAGE, 1);
    assert_eq!(rig.machine.access(at + PAGE, Access::Write).unwrap_err().code(), Some(0b11));
    for page in [0, 2, 511] {
        assert!(rig.machine.access(at + page * PAGE, Access::Write).is_ok());
    }
}

#[test]
fn another_cpu_needs_its_own_flush() {
    let (mut rig, at) = mapped::<false>(2, 1);
    rig.machine.run_on(1);
    rig.machine.load(at, &mut [0]).unwrap();
    rig.machine.run_on(0);
    rig.unmap(at, 1, 1);
    rig.flush(at, 1);
    assert_eq!(rig.machine.load(at, &mut [0]), Err(absent(at)));
    rig.machine.run_on(1);
    assert_eq!(rig.machine.load(at, &mut [0]), Ok(()), "flushed on another CPU by magic");
    rig.machine.run_on(0);
    rig.machine.flush_others(VirtRange { start: at, end: at + PAGE });
    rig.machine.run_on(1);
    assert_eq!(rig.machine.load(at, &mut [0]), Err(absent(at)));
}

#[test]
fn a_flush_reaches_every_page_of_its_range_and_a_long_one_everything() {
    // As many single flushes as are worth it, and one page more.
    for pages in [32, 33] {
        let mut rig = Rig::<false>::new(1);
        let at = rig.window.start;
        let mut done = 0;
        while done < pages {
            let left = run(Pfn(FRAME.0 + done), pages - done);
            done += rig.map(at + done as usize * PAGE, left, Prot::Read, CacheMode::WriteBack).unwrap();
        }
        let addresses = || (0..pages as usize).map(|page| at + page * PAGE);
        addresses().for_each(|page| rig.machine.load(page, &mut [0]).unwrap());
        addresses().for_each(|page| assert_eq!(rig.unmap(page, 1, 1), 1));
        let (single, whole) = rig.machine.flushes();
        rig.flush(at, pages as usize);
        let (single, whole) = (rig.machine.flushes().0 - single, rig.machine.flushes().1 - whole);
        assert_eq!((single, whole), if pages == 32 { (32, 0) } else { (0, 1) });
        addresses().for_each(|page| assert_eq!(rig.machine.load(page, &mut [0]), Err(absent(page))));
    }
}

#[test]
fn an_unaligned_range_is_flushed_to_its_last_byte() {
    let (mut rig, at) = mapped::<false>(1, 2);
    rig.machine.load(at + PAGE, &mut [0]).unwrap();
    rig.unmap(at, 2, 2);
    rig.backend.flush(VirtRange { start: at + 7, end: at + PAGE + 1 });
    assert_eq!(rig.machine.load(at + PAGE, &mut [0]), Err(absent(at + PAGE)));
    let (single, whole) = rig.machine.flushes();
    rig.backend.flush(VirtRange { start: at, end: at });
    assert_eq!(rig.machine.flushes(), (single, whole));
}

#[test]
fn protections_are_the_cpu_s_too() {
    let (mut rig, at) = mapped::<false>(1, 1);
    assert_eq!(rig.machine.fetch(at).unwrap_err().code(), Some(0b1_0001));
    rig.protect(at, 1, Prot::ReadExecute).unwrap();
    rig.flush(at, 1);
    assert_eq!(rig.machine.fetch(at), Ok(u64::from(FRAME.0) << 12));
    assert_eq!(rig.machine.store(at, b"x").unwrap_err().code(), Some(0b11));
    rig.protect(at, 1, Prot::Read).unwrap();
    rig.flush(at, 1);
    assert_eq!(rig.machine.fetch(at).unwrap_err().code(), Some(0b1_0001));
    assert_eq!(rig.machine.load(0, &mut [0]), Err(absent(0)));
    assert!(matches!(rig.machine.load(1 << 60, &mut [0]), Err(Fault::NotCanonical { .. })));
}

#[test]
fn a_guard_faults_like_nothing_at_all() {
    let (mut rig, at) = mapped::<true>(1, 1);
    rig.set_guard(at - PAGE, 0xffff_ffff).unwrap();
    rig.set_guard(at + PAGE, 0).unwrap();
    for guard in [at - PAGE, at + PAGE] {
        assert_eq!(rig.machine.store(guard, b"x").unwrap_err().code(), Some(0b10));
        assert_eq!(rig.machine.fetch(guard).unwrap_err().code(), Some(0b1_0000));
    }
    rig.check();
}
