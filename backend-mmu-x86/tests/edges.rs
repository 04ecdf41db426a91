//! What is refused, and how many tables a call asks for.

mod common;

use backend_mmu_x86::{X86, kernel};
use common::{CACHES, LARGE, PAGE, PROTS, Rig};
use mm_core::{Backend, CacheMode, MapError, Mapping, PageRange, PageTable, Pfn, Prot, TableFrames, VirtAddr, Walk};
use rtmm_testkit::SimMachine;

const RUN: PageRange = PageRange { start: Pfn(0x100), count: 1 };
const RW: Prot = Prot::ReadWrite;
const WB: CacheMode = CacheMode::WriteBack;

#[test]
fn addresses_that_are_not_the_kernel_s_are_refused() {
    let mut rig = Rig::<false>::new(1);
    let bad = [0, PAGE, 0x7fff_ffff_f000, 0x8000_0000_0000, 0xffff_7fff_ffff_f000, rig.window.start + 1, usize::MAX];
    for at in bad {
        refused(&mut rig, at);
    }
    let mut rig = Rig::<true>::new(1);
    for at in [0, 0xbfff_f000, 0x1_0000_0000, 0x1_f800_0000, rig.window.start + 0x10] {
        refused(&mut rig, at);
    }
}

fn refused<const PAE: bool>(rig: &mut Rig<PAE>, at: usize) {
    let virt = VirtAddr(at);
    // SAFETY: refused; and if it were not, nobody uses the address.
    unsafe {
        let map = rig.with_tables(|b, root, tables| b.map(root, virt, RUN, RW, WB, tables));
        assert_eq!(map, Err(MapError::BadAddress), "{at:#x}");
        let protect = rig.with_tables(|b, root, tables| b.protect(root, virt, 1, RW, tables));
        assert_eq!(protect, Err(MapError::BadAddress), "{at:#x}");
        let guard = rig.with_tables(|b, root, tables| b.set_guard(root, virt, 1, tables));
        assert_eq!(guard, Err(MapError::BadAddress), "{at:#x}");
        let mut no_block = |_, _| panic!("nothing is mapped at {at:#x}");
        assert_eq!(rig.backend.unmap(rig.root, virt, 1, &mut rig.tables, &mut no_block), 0);
        rig.backend.clear_guard(rig.root, virt, &mut rig.tables);
    }
    rig.check();
}

#[test]
fn a_walk_of_any_address_is_safe() {
    let rig = Rig::<false>::new(1);
    for bit in 0..64 {
        for at in [1usize << bit, !(1usize << bit), (1usize << bit) - 1, !0 << bit] {
            let walk = rig.backend.walk_kernel(VirtAddr(at));
            // Only the direct map is there.
            let direct = at.checked_sub(0xffff_8880_0000_0000).map(|phys| phys as u64);
            let is_ram = direct.is_some_and(|phys| rig.machine.ram().contains(phys, 1));
            assert_eq!(matches!(walk, Walk::Mapped(_)), is_ram, "{at:#x}: {walk:?}");
        }
    }
}

#[test]
fn a_walk_finds_the_frame_inside_a_large_entry() {
    let mut rig = Rig::<false>::new(1);
    let at = rig.window.start;
    rig.map(at, PageRange { start: Pfn(0x400), count: 512 }, RW, WB).unwrap();
    for page in [0, 1, 511] {
        let walk = rig.backend.walk_kernel(VirtAddr(at + page * PAGE + 5));
        assert_eq!(walk, Walk::Mapped(Mapping { pfn: Pfn(0x400 + page as u32), pages: 512, prot: RW, cache: WB }));
    }
}

#[test]
fn frames_the_cpu_cannot_address_are_refused() {
    // 36 bits: the last frame is 0xff_ffff.
    let mut rig = Rig::<true>::new(1);
    let at = rig.window.start;
    let mut map = |start, count| {
        let run = PageRange { start: Pfn(start), count };
        // SAFETY: nobody uses the address.
        let result = rig.with_tables(|b, root, tables| unsafe { b.map(root, VirtAddr(at), run, RW, WB, tables) });
        if result.is_ok() {
            // SAFETY: as above.
            unsafe { rig.backend.unmap(rig.root, VirtAddr(at), count, &mut rig.tables, &mut |_, most| most) };
        }
        result
    };
    assert_eq!(map(0xff_ffff, 1), Ok(1));
    assert_eq!(map(0xff_ffff, 2), Err(MapError::BadFrame));
    assert_eq!(map(0x100_0000, 1), Err(MapError::BadFrame));
    assert_eq!(map(u32::MAX, 1), Err(MapError::BadFrame));
    assert_eq!(map(u32::MAX, u32::MAX), Err(MapError::BadFrame));
    assert_eq!(map(1, u32::MAX), Err(MapError::BadFrame));
    assert_eq!(map(1, 0), Err(MapError::BadFrame));
}

#[test]
fn as_many_tables_are_asked_for_as_are_missing() {
    fn need<const PAE: bool>(rig: &mut Rig<PAE>, at: usize, run: PageRange) -> Result<u32, MapError> {
        rig.tables.bring(0);
        // SAFETY: nobody uses the address.
        unsafe { rig.backend.map(rig.root, VirtAddr(at), run, RW, WB, &mut rig.tables) }
    }
    let large = PageRange { start: Pfn(0), count: 512 };
    let mut rig = Rig::<false>::new(1);
    let at = rig.window.start;
    assert_eq!(need(&mut rig, at, RUN), Err(MapError::NeedTables(2)));
    assert_eq!(need(&mut rig, at, large), Err(MapError::NeedTables(1)));
    // Outside the window even the slot of the root is empty.
    assert_eq!(need(&mut rig, 0xffff_ff00_0000_0000, RUN), Err(MapError::NeedTables(3)));
    rig.map(at, RUN, RW, WB).unwrap();
    assert_eq!(need(&mut rig, at + LARGE, RUN), Err(MapError::NeedTables(1)));
    assert_eq!(need(&mut rig, at + (1 << 30), RUN), Err(MapError::NeedTables(2)));
    rig.map(at + LARGE, large, RW, WB).unwrap();
    rig.tables.bring(0);
    // SAFETY: as above.
    let split = unsafe { rig.backend.protect(rig.root, VirtAddr(at + LARGE), 1, Prot::Read, &mut rig.tables) };
    assert_eq!(split, Err(MapError::NeedTables(1)));
    rig.check();

    let mut rig = Rig::<true>::new(1);
    let at = rig.window.start;
    assert_eq!(need(&mut rig, at, RUN), Err(MapError::NeedTables(1)));
    assert_eq!(need(&mut rig, at, large), Ok(512));
}

#[test]
fn tables_beyond_what_is_needed_stay_in_hand() {
    let mut rig = Rig::<false>::new(1);
    rig.tables.bring(3);
    let at = VirtAddr(rig.window.start);
    // SAFETY: nobody uses the address.
    unsafe { rig.backend.map(rig.root, at, RUN, RW, WB, &mut rig.tables) }.unwrap();
    assert_eq!(rig.tables.in_hand(), 1);
}

#[test]
fn a_large_entry_is_unmapped_only_whole() {
    let mut rig = Rig::<false>::new(1);
    let at = rig.window.start;
    rig.map(at, PageRange { start: Pfn(0), count: 600 }, RW, WB).unwrap();
    assert_eq!(rig.unmap(at, 511, 512), 0);
    assert_eq!(rig.unmap(at + PAGE, 1024, 512), 0);
    assert_eq!(rig.unmap(at, 600, 7), 512);
    rig.check();
    assert!(rig.tables.live().is_empty());
}

#[test]
fn a_guard_in_the_way_leaves_small_entries() {
    let mut rig = Rig::<false>::new(1);
    let at = rig.window.start;
    let large = PageRange { start: Pfn(0), count: 512 };
    rig.set_guard(at + 40 * PAGE, 7).unwrap();
    assert_eq!(rig.map(at, large, RW, WB), Ok(32));
    let next = at + 32 * PAGE;
    assert_eq!(rig.map(next, PageRange { start: Pfn(32), count: 480 }, RW, WB), Err(MapError::AlreadyMapped));
    assert_eq!(rig.map(next, PageRange { start: Pfn(32), count: 8 }, RW, WB), Ok(8));
    rig.check();
}

#[test]
fn every_protection_and_cache_mode_is_seen_by_the_cpu() {
    let mut rig = Rig::<false>::new(1);
    let mut at = rig.window.start;
    // All of them are a matter of minutes under Miri.
    for prot in &PROTS[..if cfg!(miri) { 1 } else { 3 }] {
        for cache in &CACHES[..if cfg!(miri) { 2 } else { 4 }] {
            rig.map(at, PageRange { start: Pfn(0x200), count: 512 }, *prot, *cache).unwrap();
            rig.check_page(at);
            // Split, with the cache mode kept.
            let other = if *prot == RW { Prot::Read } else { RW };
            rig.protect(at + 3 * PAGE, 2, other).unwrap();
            (0..512).step_by(if cfg!(miri) { 73 } else { 1 }).for_each(|page| rig.check_page(at + page * PAGE));
            at += LARGE;
        }
    }
    rig.check();
}

#[test]
fn tables_made_at_boot_are_neither_counted_nor_freed() {
    let mut rig = Rig::<false>::new(1);
    // The direct map of the last frame of RAM: its entry is one of a table made at boot.
    let at = 0xffff_8880_0000_0000 + 0x13_f000;
    let mapped = rig.backend.walk_kernel(VirtAddr(at));
    assert!(matches!(mapped, Walk::Mapped(_)));
    for page in 0x100..0x140 {
        let at = VirtAddr(0xffff_8880_0000_0000 + page * PAGE);
        // SAFETY: the machine's program reaches RAM by host pointers, not by these addresses.
        unsafe { rig.backend.unmap(rig.root, at, 1, &mut rig.tables, &mut |_, _| 1) };
    }
    assert_eq!((rig.tables.live().len(), rig.tables.retired()), (0, 0));
    assert_eq!(rig.backend.walk_kernel(VirtAddr(at)), Walk::Absent);
}

#[test]
fn the_direct_map_is_where_it_says() {
    let rig = Rig::<true>::new(1);
    let at = rig.backend.direct_virt(Pfn(0x102)).unwrap();
    assert!(matches!(rig.backend.walk_kernel(at), Walk::Mapped(Mapping { pfn: Pfn(0x102), .. })));
    assert_eq!(rig.backend.direct_virt(Pfn((rig.backend.lowmem_end() >> 12) as u32)), None);
    let frame = rig.backend.direct_frame(rig.backend.direct_ptr(0x10_2000).addr());
    assert_eq!(frame, 0x102);
    assert_eq!(X86::<SimMachine>::MAX_TABLES, 3);
}

/// What the suites ask of the tables at the end of each test sees what is wrong.
fn a_look_at_the_tables_sees<const PAE: bool>() {
    let mut rig = Rig::<PAE>::new(1);
    let at = rig.window.start;
    let look = |rig: &Rig<PAE>| {
        // SAFETY: one thread.
        unsafe {
            (
                kernel::cached_in_two_ways(&rig.machine, rig.root),
                kernel::writable_and_executable(&rig.machine, rig.root),
                kernel::empty_table(&rig.machine, rig.root),
            )
        }
    };
    let device = PageRange { start: Pfn(0xf_0000), count: 2 };
    rig.map(at, device, Prot::ReadWrite, CacheMode::Uncached).unwrap();
    rig.map(at + 8 * PAGE, device, Prot::ReadWrite, CacheMode::Uncached).unwrap();
    assert_eq!(look(&rig), (None, None, None));
    // The last page of one and the first of the other, in another mode.
    let other = PageRange { start: Pfn(0xf_0001), count: 2 };
    rig.map(at + 16 * PAGE, other, Prot::ReadWrite, CacheMode::WriteCombining).unwrap();
    assert_eq!(look(&rig), (Some(0xf000_1000), None, None));
    rig.unmap(at + 16 * PAGE, 2, 2);
    // RAM, which the direct map has write-back.
    rig.map(at + 16 * PAGE, PageRange { start: Pfn(0x101), count: 1 }, Prot::Read, CacheMode::WriteThrough).unwrap();
    assert_eq!(look(&rig).0, Some(0x10_1000));
    rig.unmap(at + 16 * PAGE, 1, 1);
    rig.map(at + 16 * PAGE, PageRange { start: Pfn(0x101), count: 1 }, Prot::ReadExecute, CacheMode::WriteBack)
        .unwrap();
    assert_eq!(look(&rig), (None, Some(0x10_1000), None));
    rig.unmap(at + 16 * PAGE, 1, 1);
    // A lowest table whose entries were cleared behind the counts' back.
    // SAFETY: one thread, and the entries are this test's.
    unsafe {
        let leaf = rig.backend.leaf(rig.root, VirtAddr(at)).unwrap();
        rig.backend.leaf_clear(leaf, VirtAddr(at), 10);
        assert_eq!(look(&rig), (None, None, rig.backend.leaf_frame(leaf)));
    }
}

#[test]
fn a_look_at_the_tables_sees_what_is_wrong() {
    a_look_at_the_tables_sees::<false>();
    a_look_at_the_tables_sees::<true>();
}
