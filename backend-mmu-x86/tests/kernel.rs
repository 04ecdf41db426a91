//! The kernel's tables: everything that was listed is mapped, and nothing else.

mod common;

use backend_mmu_x86::kernel::{self, Segment};
use common::PAGE;
use mm_core::{AllocError, MmError, Pfn, PhysAddr, PhysRange, Prot, VirtAddr, VirtRange};
use rtmm_testkit::{SimConfig, SimMachine, SimPae};
use std::collections::BTreeMap;

const DIRECT: usize = 0xffff_8880_0000_0000;
const IMAGE: usize = 0xffff_ffff_8000_0000;
const WINDOW: VirtRange = VirtRange { start: 0xffff_c900_0000_0000, end: 0xffff_c980_0000_0000 };
/// Low memory up to the video hole, and the rest, with an end in the middle of a 2 MiB entry.
const RAM: [(u64, u64); 2] = [(0, 0x9f000), (0x10_0000, 0x90_3000)];
/// Tables are taken from here on.
const TAKE: u32 = 0x800;

fn segments() -> [Segment; 3] {
    let segment = |offset: usize, pages, prot| Segment {
        virt: VirtAddr(IMAGE + offset),
        phys: PhysAddr(offset as u64),
        pages,
        prot,
    };
    [
        segment(0x20_0000, 3, Prot::ReadExecute),
        segment(0x20_3000, 2, Prot::Read),
        segment(0x20_5000, 4, Prot::ReadWrite),
    ]
}

fn machine() -> SimMachine {
    SimMachine::new(SimConfig::new(&RAM))
}

fn ram() -> Vec<PhysRange> {
    RAM.iter().map(|&(start, end)| PhysRange { start, end }).collect()
}

/// Builds tables from at most `frames` frames of RAM; returns how many it took.
fn build(machine: &SimMachine, segments: &[Segment], window: VirtRange, frames: u32) -> Result<(Pfn, u32), MmError> {
    let mut taken = 0;
    let mut take = || (taken < frames).then(|| (Pfn(TAKE + taken), taken += 1).0);
    // SAFETY: nobody uses the machine's RAM.
    let root = unsafe { kernel::build(machine, segments, &ram(), window, &mut take) }?;
    Ok((root, taken))
}

type Live = BTreeMap<usize, (u64, u64, bool, bool)>;

fn live(machine: &SimMachine, root: Pfn) -> Live {
    let mut live = Live::new();
    // SAFETY: one thread.
    unsafe {
        kernel::for_each_mapping(machine, root, |virt, phys, bytes, writable, executable| {
            assert_eq!(live.insert(virt, (phys, bytes, writable, executable)), None);
        });
    }
    live
}

#[test]
fn all_that_is_listed_is_mapped_and_nothing_else() {
    let machine = machine();
    let (root, _) = build(&machine, &segments(), WINDOW, 64).unwrap();
    let mut expected = Live::new();
    for segment in segments() {
        for page in 0..segment.pages as usize {
            let phys = segment.phys.0 + (page * PAGE) as u64;
            let rights = (segment.prot.writable(), segment.prot.executable());
            expected.insert(segment.virt.0 + page * PAGE, (phys, 0x1000, rights.0, rights.1));
        }
    }
    let mut at = 0;
    while at < RAM[1].1 {
        // Whole 2 MiB of RAM without read-only frames are one entry.
        let large = [0x40_0000, 0x60_0000].contains(&at);
        let bytes = if large { 0x20_0000 } else { 0x1000 };
        if ram().iter().any(|range| range.start <= at && at < range.end) {
            let read_only = (0x20_0000..0x20_5000).contains(&at);
            expected.insert(DIRECT + at as usize, (at, bytes, !read_only, false));
        }
        at += bytes;
    }
    assert_eq!(live(&machine, root), expected);
    // SAFETY: one thread.
    assert_eq!(unsafe { kernel::writable_and_executable(&machine, root) }, None);
}

#[test]
fn the_cpu_keeps_to_them() {
    let machine = machine();
    let (root, _) = build(&machine, &segments(), WINDOW, 64).unwrap();
    // SAFETY: just built; the program runs on the host.
    unsafe { kernel::activate(&machine, root) }.unwrap();
    let code = |result: Result<(), rtmm_testkit::Fault>| result.unwrap_err().code().unwrap();
    assert_eq!(machine.fetch(IMAGE + 0x20_0000), Ok(0x20_0000));
    assert_eq!(code(machine.store(IMAGE + 0x20_0000, b"x")), 0b11);
    assert_eq!(code(machine.store(DIRECT + 0x20_0000, b"x")), 0b11);
    assert_eq!(code(machine.store(DIRECT + 0x20_4000, b"x")), 0b11);
    assert_eq!(code(machine.fetch(DIRECT + 0x20_0000).map(drop)), 0b1_0001);
    assert_eq!(code(machine.fetch(IMAGE + 0x20_5000).map(drop)), 0b1_0001);
    assert_eq!(machine.store(IMAGE + 0x20_5000, b"data"), Ok(()));
    let mut read = [0; 4];
    machine.load(DIRECT + 0x20_5000, &mut read).unwrap();
    assert_eq!(&read, b"data");
    for nothing in [0, 0xfff, 0x20_0000, IMAGE, IMAGE + 0x20_9000, DIRECT + 0x9_f000, DIRECT + 0x90_3000, WINDOW.start]
    {
        assert_eq!(code(machine.load(nothing, &mut [0])), 0);
    }
    assert_eq!(machine.assists(), 0);
}

#[test]
fn the_scan_finds_a_frame_that_is_writable_and_executable() {
    let machine = machine();
    // Two builds, one tree each: the second's executable mappings are put into the first by hand. Only the last
    // page of theirs is data in the first tree.
    let (root, taken) = build(&machine, &segments(), WINDOW, 64).unwrap();
    let alias = Segment { virt: VirtAddr(WINDOW.end), phys: PhysAddr(0x20_4000), pages: 2, prot: Prot::ReadExecute };
    let mut next = TAKE + taken;
    // SAFETY: nobody uses these frames.
    let other = unsafe {
        kernel::build(&machine, &[alias], &[], VirtRange { start: 0, end: 0 }, &mut || (Some(Pfn(next)), next += 1).0)
    };
    let (other, slot) = (other.unwrap(), (WINDOW.end >> 39) & 511);
    let entry = |root: Pfn| machine.ram().ptr((u64::from(root.0) << 12) + 8 * slot as u64).unwrap().cast::<u64>();
    // SAFETY: one thread, entries of two tables.
    unsafe { entry(root).write(entry(other).read()) };
    // SAFETY: one thread.
    assert_eq!(unsafe { kernel::writable_and_executable(&machine, root) }, Some(0x20_5000));
}

#[test]
fn nothing_of_the_boot_tables_stays_cached() {
    let machine = machine();
    let (boot, taken) = build(&machine, &segments(), WINDOW, 64).unwrap();
    // SAFETY: just built; the program runs on the host.
    unsafe { kernel::activate(&machine, boot) }.unwrap();
    machine.load(IMAGE + 0x20_5000, &mut [0]).unwrap();
    let mut next = TAKE + taken;
    let none = VirtRange { start: 0, end: 0 };
    // SAFETY: nobody uses these frames; then as above.
    unsafe {
        let bare = kernel::build(&machine, &[], &ram(), none, &mut || (Some(Pfn(next)), next += 1).0).unwrap();
        kernel::activate(&machine, bare).unwrap();
    }
    assert_eq!(machine.load(IMAGE + 0x20_5000, &mut [0]).unwrap_err().code(), Some(0), "a global entry was kept");
}

#[test]
fn the_window_s_upper_tables_are_there() {
    let machine = machine();
    let (root, taken) = build(&machine, &segments(), WINDOW, 64).unwrap();
    let slot = |at: usize| {
        let entry = (u64::from(root.0) << 12) + 8 * ((at >> 39) & 511) as u64;
        // SAFETY: an entry of the root, in RAM; one thread.
        unsafe { machine.ram().ptr(entry).unwrap().cast::<u64>().read() }
    };
    assert_ne!(slot(WINDOW.start) & 1, 0);
    assert_eq!(slot(WINDOW.end), 0);
    let two = VirtRange { start: WINDOW.end - PAGE, end: WINDOW.end + PAGE };
    assert_eq!(build(&machine, &segments(), two, 64).map(|built| built.1), Ok(taken + 1));
    let none = VirtRange { start: 0, end: 0 };
    assert_eq!(build(&machine, &segments(), none, 64).map(|built| built.1), Ok(taken - 1));
}

#[test]
fn too_few_frames_are_an_error_at_every_one() {
    let machine = machine();
    let (_, needed) = build(&machine, &segments(), WINDOW, 64).unwrap();
    assert!(needed > 5);
    for frames in 0..needed {
        assert_eq!(build(&machine, &segments(), WINDOW, frames), Err(MmError::Alloc(AllocError::NoMemory)));
    }
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let machine = machine();
    let refuse = |change: &dyn Fn(&mut [Segment; 3]), expected| {
        let mut segments = segments();
        change(&mut segments);
        assert_eq!(build(&machine, &segments, WINDOW, 64).map(drop), Err(expected), "{segments:x?}");
    };
    refuse(&|s| s[0].virt.0 += 8, MmError::Inval);
    refuse(&|s| s[0].phys.0 += 8, MmError::Inval);
    refuse(&|s| s[0].virt.0 = 0x40_0000, MmError::Inval);
    refuse(&|s| s[0].virt.0 = 0x8000_0000_0000, MmError::Inval);
    refuse(&|s| s[0].virt.0 = usize::MAX - 0xfff, MmError::Inval);
    refuse(&|s| s[0].phys.0 = 1 << 46, MmError::BadRange);
    refuse(&|s| s[0].phys.0 = 0xffff_ffff_ffff_f000, MmError::BadRange);
    refuse(&|s| s[1].virt = s[0].virt, MmError::AlreadyMapped);
    refuse(&|s| s[2].virt.0 = DIRECT + 0x40_0000, MmError::AlreadyMapped);
    // Text that data covers too.
    refuse(&|s| s[2].phys.0 = 0x20_2000, MmError::Inval);
    refuse(&|s| s[2].virt.0 = WINDOW.start, MmError::Inval);
    let bad = [
        VirtRange { start: 0x1000, end: 0x2000 },
        VirtRange { start: WINDOW.start + 1, end: WINDOW.end },
        VirtRange { start: WINDOW.start, end: WINDOW.end - 1 },
        VirtRange { start: DIRECT - PAGE, end: DIRECT + PAGE },
        VirtRange { start: IMAGE, end: IMAGE + 0x40_0000 },
    ];
    for window in bad {
        assert_eq!(build(&machine, &segments(), window, 64).map(drop), Err(MmError::Inval), "{window:x?}");
    }
}

/// The layout of a 32-bit kernel: the image lies in the direct map, its guard page in a hole of it.
#[test]
fn segments_in_the_direct_map_are_their_frames_only_mapping() {
    const PAE_DIRECT: usize = 0xc000_0000;
    let ram = [(0x1000, 0x9f000), (0x10_0000, 0x20_9000), (0x20_a000, 0x90_3000)];
    let ranges = ram.map(|(start, end)| PhysRange { start, end });
    let machine = SimPae::new(SimConfig::pae(&ram, 0x80_0000));
    let in_place =
        segments().map(|segment| Segment { virt: VirtAddr(PAE_DIRECT + segment.phys.0 as usize), ..segment });
    let window = VirtRange { start: 0xf880_0000, end: 0xff80_0000 };
    let mut next = 0x700;
    let mut take = || Some((Pfn(next), next += 1).0);
    // SAFETY: nobody uses the machine's RAM.
    let root = unsafe { kernel::build(&machine, &in_place, &ranges, window, &mut take) }.unwrap();
    let mut seen = BTreeMap::new();
    // SAFETY: one thread.
    unsafe {
        kernel::for_each_mapping(&machine, root, |virt, phys, bytes, writable, executable| {
            assert_eq!(virt as u64, PAE_DIRECT as u64 + phys, "the direct map is all there is");
            assert!(phys + bytes <= 0x80_0000, "past the end of low memory");
            for page in (phys..phys + bytes).step_by(PAGE) {
                assert_eq!(seen.insert(page, (writable, executable)), None, "{page:#x} is mapped twice");
            }
        });
    }
    let mut expected = BTreeMap::new();
    for page in ram.iter().flat_map(|&(start, end)| (start..end.min(0x80_0000)).step_by(PAGE)) {
        let rights = match page {
            0x20_0000..0x20_3000 => (false, true),
            0x20_3000..0x20_5000 => (false, false),
            _ => (true, false),
        };
        expected.insert(page, rights);
    }
    assert!(seen == expected, "{:x?}", seen.iter().zip(&expected).find(|(seen, expected)| seen != expected));
    // A segment that overlaps the direct map without being it is refused.
    let shifted = in_place.map(|segment| Segment { virt: VirtAddr(segment.virt.0 + PAGE), ..segment });
    // SAFETY: as above.
    let error = unsafe { kernel::build(&machine, &shifted, &ranges, window, &mut take) }.unwrap_err();
    assert_eq!(error, MmError::AlreadyMapped);
}

#[test]
fn the_windows_of_a_machine_are_nobody_else_s() {
    let ram = [(0x10_0000, 0x20_0000), (0x4000_0000, 0x4010_0000)];
    let ranges = ram.map(|(start, end)| PhysRange { start, end });
    let machine = SimPae::new(SimConfig::pae(&ram, 0x3800_0000));
    let mut next = 0x180;
    let mut take = || Some((Pfn(next), next += 1).0);
    for (start, end) in [(0xf880_0000, 0xffe0_0000), (0xffc0_0000, 0xffe0_0000), (0xff00_0000, 0xffd0_0000)] {
        let window = VirtRange { start, end };
        // SAFETY: nobody uses the machine's RAM.
        let error = unsafe { kernel::build(&machine, &[], &ranges, window, &mut take) }.unwrap_err();
        assert_eq!(error, MmError::Inval, "{window:x?}");
    }
    // A root that the register cannot name.
    let far = SimPae::new(SimConfig::pae(&[(1 << 32, (1 << 32) + 0x10_0000)], u64::MAX));
    // SAFETY: as above.
    let error = unsafe { kernel::build(&far, &[], &[], VirtRange { start: 0, end: 0 }, &mut || Some(Pfn(1 << 20))) };
    assert_eq!(error, Err(MmError::BadRange));
}
