//! Tables are valid at every single store: another CPU that walks them in between sees the old or the new state of
//! the pages a call changes, and no change of any other.

mod common;

use backend_mmu_x86::X86;
use common::{LARGE, PAGE, Rig};
use mm_core::{CacheMode, MapFrames, Mapping, PageRange, PageTable, Pfn, Prot, TableFrames, VirtAddr, Walk};
use rtmm_testkit::{Fault, Seen, SimMachine};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What a CPU and the backend's own walk, which a fault handler may run at any moment, find at each address.
type View = BTreeMap<usize, (Result<Seen, Fault>, Walk)>;

/// Runs `change` and looks at `pages` after each store it makes.
fn each_store<const PAE: bool>(rig: &mut Rig<PAE>, pages: &[usize], change: impl FnOnce(&mut Rig<PAE>)) -> usize {
    let look = |machine: &SimMachine<PAE>, pages: &[usize]| -> View {
        let backend = X86::new(machine.clone());
        pages.iter().map(|&at| (at, (machine.look(at), backend.walk_kernel(VirtAddr(at))))).collect()
    };
    let views = Arc::new(Mutex::new(Vec::new()));
    let before = look(&rig.machine, pages);
    let (machine, pages_seen, watched) = (rig.machine.clone(), pages.to_vec(), views.clone());
    rig.machine.watch(Some(Box::new(move |_, _| watched.lock().unwrap().push(look(&machine, &pages_seen)))));
    change(rig);
    rig.count_stores();
    let after = look(&rig.machine, pages);
    let views = views.lock().unwrap();
    for (number, view) in views.iter().enumerate() {
        for (at, seen) in view {
            // A split changes the size of the entry, and not what it says.
            let says = |(seen, walk): &(Result<Seen, Fault>, Walk)| {
                let walk = match *walk {
                    Walk::Mapped(mapping) => Walk::Mapped(Mapping { pages: 0, ..mapping }),
                    walk => walk,
                };
                (seen.map(|seen| Seen { bytes: 0, ..seen }), walk)
            };
            let known = says(seen) == says(&before[at]) || says(seen) == says(&after[at]);
            assert!(known, "store {number}: {at:#x} is {seen:x?}, was {:x?}, becomes {:x?}", before[at], after[at]);
        }
    }
    views.len()
}

fn pages_around(at: usize, pages: usize) -> Vec<usize> {
    let ends = [at - PAGE, at, at + PAGE, at + (pages - 1) * PAGE, at + pages * PAGE, at + pages * PAGE + LARGE];
    let step = (pages / if cfg!(miri) { 3 } else { 24 }).max(1);
    ends.into_iter().chain((0..pages).step_by(step).map(|page| at + page * PAGE)).collect()
}

const WB: CacheMode = CacheMode::WriteBack;

/// Past 4 GiB, so that both halves of a PAE entry matter.
const HIGH: u32 = 0x12_3000;

/// Maps, protects and unmaps across the border of two lowest tables. `halves` is how many stores set or clear an entry,
/// `links` how many links the first table of a range needs.
fn changes<const PAE: bool>(border: usize, halves: usize, links: usize) {
    let mut rig = Rig::<PAE>::new(1);
    let at = border - 5 * PAGE;
    let pages = pages_around(at, 12);
    let map =
        |rig: &mut Rig<PAE>, at, start, count| rig.map(at, PageRange { start: Pfn(start), count }, Prot::ReadWrite, WB);

    let stores = each_store(&mut rig, &pages, |rig| assert_eq!(map(rig, at, HIGH, 12), Ok(5)));
    assert_eq!(stores, halves * (5 + links), "five entries, and links, of which the last makes all of it visible");
    each_store(&mut rig, &pages, |rig| assert_eq!(map(rig, border, HIGH + 5, 7), Ok(7)));
    each_store(&mut rig, &pages, |rig| assert_eq!(map(rig, at - PAGE, 0x0fff, 1), Ok(1)));
    let stores = each_store(&mut rig, &pages, |rig| rig.set_guard(at + 12 * PAGE, 9).unwrap());
    assert_eq!(stores, halves);
    let stores = each_store(&mut rig, &pages, |rig| assert_eq!(rig.protect(border, 7, Prot::ReadExecute), Ok(7)));
    assert_eq!(stores, 7, "a protection changes at once, whatever bits it has");
    each_store(&mut rig, &pages, |rig| assert_eq!(rig.protect(border, 7, Prot::Read), Ok(7)));
    let stores = each_store(&mut rig, &pages, |rig| assert_eq!(rig.unmap(at, 12, 3), 5));
    assert_eq!(stores, halves * 5);
    each_store(&mut rig, &pages, |rig| assert_eq!(rig.unmap(border, 7, 32), 7));
    each_store(&mut rig, &pages, |rig| rig.clear_guard(at + 12 * PAGE));
    each_store(&mut rig, &pages, |rig| assert_eq!(rig.unmap(at - PAGE, 1, 1), 1));
    rig.check();
}

#[test]
fn every_store_leaves_valid_tables() {
    // The last pages under one table and the first under the next, in another root slot.
    changes::<false>(Rig::<false>::new(1).window.start + (1 << 30), 1, 2);
}

#[test]
fn between_the_two_stores_of_a_pae_entry_nothing_is_present() {
    changes::<true>(Rig::<true>::new(1).window.start + LARGE, 2, 1);
}

/// Splits a large entry and takes it apart.
fn split<const PAE: bool>(halves: usize) {
    let mut rig = Rig::<PAE>::new(1);
    let at = rig.window.start + LARGE;
    let pages = pages_around(at, 512);
    let run = PageRange { start: Pfn(HIGH & !511), count: 512 };
    each_store(&mut rig, &pages, |rig| {
        assert_eq!(rig.map(at, run, Prot::ReadWrite, CacheMode::WriteCombining), Ok(512))
    });
    each_store(&mut rig, &pages, |rig| assert_eq!(rig.protect(at, 512, Prot::ReadExecute), Ok(512)));
    let stores = each_store(&mut rig, &pages, |rig| assert_eq!(rig.protect(at + 100 * PAGE, 200, Prot::Read), Ok(200)));
    assert_eq!(stores, halves * 512 + 1, "the new table, then its link, in one store");
    rig.check();
    each_store(&mut rig, &pages, |rig| {
        let mut done = 0;
        while done < 512 {
            done += rig.unmap(at + done as usize * PAGE, 512 - done, 512);
        }
    });
    assert!(rig.tables.live().is_empty());
}

#[test]
fn every_store_of_a_split_leaves_valid_tables() {
    split::<false>(1);
}

#[test]
fn every_store_of_a_split_leaves_valid_pae_tables() {
    split::<true>(2);
}

/// Maps and unmaps runs in one lowest table, as areas do, with the guard before them; every store, and how many there are.
fn in_a_leaf<const PAE: bool>(halves: usize) {
    let mut rig = Rig::<PAE>::new(1);
    let at = rig.window.start + LARGE + 40 * PAGE;
    // Another mapping keeps the table, and is the neighbour that must not change.
    let other = PageRange { start: Pfn(HIGH), count: 2 };
    assert_eq!(rig.map(at - 3 * PAGE, other, Prot::Read, WB), Ok(2));
    // SAFETY: one thread, and the table stays.
    let leaf = unsafe { rig.backend.leaf(rig.root, VirtAddr(at)) }.unwrap();
    let table = rig.backend.leaf_frame(leaf).unwrap();
    let scattered: Vec<Pfn> = (0..100).map(|i| Pfn(HIGH + 7 + 3 * i)).collect();
    for count in [1u32, 2, 8, 9, 32, 33, 100] {
        let pages = pages_around(at, count as usize);
        let run = PageRange { start: Pfn(HIGH + 0x100), count };
        for frames in [MapFrames::Run(run), MapFrames::Each(&scattered[..count as usize])] {
            let mut pauses = 0;
            let mut map = |rig: &mut Rig<PAE>| {
                // SAFETY: as above, and nothing but the simulated CPU uses these addresses.
                unsafe {
                    let (tables, pause) = (&mut rig.tables, &mut || pauses += 1);
                    rig.backend.leaf_map(leaf, VirtAddr(at), Some(7), frames, Prot::ReadWrite, WB, tables, pause)
                }
            };
            let stores = each_store(&mut rig, &pages, |rig| assert_eq!(map(rig), count));
            assert_eq!(stores, halves * (count as usize + 1), "each page and the guard");
            let stores = each_store(&mut rig, &pages, |rig| assert_eq!(map(rig), 0, "mapped already"));
            assert_eq!(stores, 0);
            assert_eq!(pauses, (count - 1) / 32, "the lock is opened between batches");
            assert_eq!(rig.tables.live()[&table.0], 2 + count + 1);
            let mut found = vec![];
            let each = |pfn| {
                found.push(pfn);
                true
            };
            // SAFETY: as above.
            assert_eq!(unsafe { rig.backend.leaf_frames(leaf, VirtAddr(at), count + 1, each) }, count);
            let frame = |i: usize| match frames {
                MapFrames::Run(run) => Pfn(run.start.0 + i as u32),
                MapFrames::Each(frames) => frames[i],
            };
            assert!((0..count as usize).all(|i| found[i] == frame(i)));
            // Cleared with the guard: as one piece, or block by block.
            let stores = if matches!(frames, MapFrames::Run(_)) {
                each_store(&mut rig, &pages, |rig| {
                    // SAFETY: as above.
                    unsafe { rig.backend.leaf_clear(leaf, VirtAddr(at - PAGE), count + 1) };
                    assert_eq!(rig.tables.sub_entries(table, count + 1), 2);
                })
            } else {
                each_store(&mut rig, &pages, |rig| {
                    let (root, tables) = (rig.root, &mut rig.tables);
                    let mut block = |_, most: u32| most.min(3);
                    // SAFETY: as above.
                    let done = unsafe {
                        rig.backend.leaf_unmap(root, leaf, VirtAddr(at), 1, count, tables, &mut block, &mut || ())
                    };
                    assert_eq!(done, count);
                })
            };
            assert_eq!(stores, halves * (count as usize + 1));
            // Or frame by frame, up to the first that is refused.
            let run = |rig: &mut Rig<PAE>| {
                let tables = &mut rig.tables;
                // SAFETY: as above.
                unsafe {
                    let pause = &mut || ();
                    rig.backend.leaf_map(leaf, VirtAddr(at), Some(7), frames, Prot::ReadWrite, WB, tables, pause)
                }
            };
            assert_eq!(run(&mut rig), count);
            for most in [count / 2, count] {
                let first = count / 2 * u32::from(most == count);
                let (mut told, mut pauses) = (0, 0);
                let each = |pfn| {
                    told += 1;
                    pfn != frame((first + most) as usize % count as usize) || most == count
                };
                let here = VirtAddr(at + first as usize * PAGE);
                let left = count - first;
                // SAFETY: as above.
                let done = unsafe { rig.backend.leaf_take(leaf, here, left, each, &mut || pauses += 1) };
                assert_eq!((done, told), (most - first, (most - first + 1).min(left)));
                assert!(
                    pauses <= done / 12 && (done < 32) | (pauses >= done / 16),
                    "the lock is opened between batches"
                );
            }
            // SAFETY: as above.
            unsafe { rig.backend.leaf_clear(leaf, VirtAddr(at - PAGE), 1) };
            assert_eq!(rig.tables.sub_entries(table, count + 1), 2);
            rig.check();
        }
    }
}

/// Comes upon an entry in use: what was mapped before it stays and is counted, and without any page there is no guard.
fn up_to_another<const PAE: bool>() {
    const COUNT: u32 = 100;
    let mut rig = Rig::<PAE>::new(1);
    let at = rig.window.start + LARGE + 40 * PAGE;
    let scattered: Vec<Pfn> = (0..COUNT).map(|i| Pfn(HIGH + 7 + 3 * i)).collect();
    for other in [0, 1, 5, 8, 31, 32, 40, 63, 70, 96, 99] {
        for count in [other + 1, COUNT] {
            assert_eq!(
                rig.map(at + other as usize * PAGE, PageRange { start: Pfn(HIGH), count: 1 }, Prot::Read, WB),
                Ok(1)
            );
            // SAFETY: one thread, and the table stays.
            let leaf = unsafe { rig.backend.leaf(rig.root, VirtAddr(at)) }.unwrap();
            let table = rig.backend.leaf_frame(leaf).unwrap();
            let run = PageRange { start: Pfn(HIGH + 0x100), count };
            for frames in [MapFrames::Run(run), MapFrames::Each(&scattered[..count as usize])] {
                // SAFETY: as above, and nothing but the simulated CPU uses these addresses.
                let done = unsafe {
                    let (tables, pause) = (&mut rig.tables, &mut || ());
                    rig.backend.leaf_map(leaf, VirtAddr(at), Some(7), frames, Prot::ReadWrite, WB, tables, pause)
                };
                assert!(done <= other && done / 32 == other / 32, "{done} pages before page {other} of {count}");
                let guards = u32::from(done != 0);
                assert_eq!(rig.tables.live()[&table.0], 1 + guards + done);
                // SAFETY: as above.
                let guard = unsafe { rig.backend.leaf_walk(leaf, VirtAddr(at - PAGE)) };
                assert_eq!(guard, if done != 0 { Walk::Guard(7) } else { Walk::Absent });
                for page in done..other {
                    let here = VirtAddr(at + page as usize * PAGE);
                    // SAFETY: as above.
                    let walk = unsafe { rig.backend.leaf_walk(leaf, here) };
                    assert_eq!(walk, Walk::Absent);
                }
                // SAFETY: as above.
                unsafe { rig.backend.leaf_clear(leaf, VirtAddr(at - PAGE), 1 + done) };
                assert_eq!(rig.tables.sub_entries(table, guards + done), 1);
                rig.check();
            }
            assert_eq!(rig.unmap(at + other as usize * PAGE, 1, 1), 1);
        }
    }
}

#[test]
fn a_run_ends_where_something_is_mapped() {
    up_to_another::<false>();
    up_to_another::<true>();
}

#[test]
fn every_store_in_a_lowest_table_leaves_valid_tables() {
    in_a_leaf::<false>(1);
}

#[test]
fn every_store_in_a_lowest_pae_table_leaves_valid_tables() {
    in_a_leaf::<true>(2);
}

/// Several large entries in a row.
fn large_run<const PAE: bool>(halves: usize) {
    let mut rig = Rig::<PAE>::new(1);
    let at = rig.window.start + LARGE;
    let pages: Vec<_> =
        (0..5).flat_map(|i| [at + i * LARGE - PAGE, at + i * LARGE, at + i * LARGE + 9 * PAGE]).collect();
    let run = PageRange { start: Pfn(HIGH & !511), count: 3 * 512 + 4 };
    let stores = each_store(&mut rig, &pages, |rig| assert_eq!(rig.map(at, run, Prot::ReadWrite, WB), Ok(3 * 512)));
    assert!(stores >= halves * 3);
    let stores = each_store(&mut rig, &pages, |rig| assert_eq!(rig.unmap(at, 3 * 512, 700), 3 * 512));
    assert!(stores >= halves * 3);
    rig.check();
}

#[test]
fn every_store_of_large_entries_leaves_valid_tables() {
    large_run::<false>(1);
    large_run::<true>(2);
}
