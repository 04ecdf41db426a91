//! Tables are valid at every single store: another CPU that walks them in between sees the old or the new state of
//! the pages a call changes, and no change of any other.

mod common;

use common::{LARGE, PAGE, Rig};
use mm_core::{CacheMode, PageRange, Pfn, Prot};
use rtmm_testkit::{Fault, Seen};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

type View = BTreeMap<usize, Result<Seen, Fault>>;

/// Runs `change` and looks at `pages` after each store it makes.
fn each_store(rig: &mut Rig<false>, pages: &[usize], change: impl FnOnce(&mut Rig<false>)) -> usize {
    let look =
        |machine: &rtmm_testkit::SimMachine| -> View { pages.iter().map(|&at| (at, machine.look(at))).collect() };
    let views = Arc::new(Mutex::new(Vec::new()));
    let before = look(&rig.machine);
    let (machine, pages_seen, watched) = (rig.machine.clone(), pages.to_vec(), views.clone());
    rig.machine.watch(Some(Box::new(move |_, _| {
        let view: View = pages_seen.iter().map(|&at| (at, machine.look(at))).collect();
        watched.lock().unwrap().push(view);
    })));
    change(rig);
    rig.count_stores();
    let after = look(&rig.machine);
    let views = views.lock().unwrap();
    for (number, view) in views.iter().enumerate() {
        for (at, seen) in view {
            // A split changes the size of the entry, and not what it says.
            let says = |seen: &Result<Seen, Fault>| seen.map(|seen| Seen { bytes: 0, ..seen });
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

#[test]
fn every_store_leaves_valid_tables() {
    let mut rig = Rig::<false>::new(1);
    // The last pages under one table and the first under the next, in another root slot.
    let border = rig.window.start + (1 << 30);
    let at = border - 5 * PAGE;
    let pages = pages_around(at, 12);
    let map = |rig: &mut Rig<false>, at, start, count| {
        rig.map(at, PageRange { start: Pfn(start), count }, Prot::ReadWrite, WB)
    };

    let stores = each_store(&mut rig, &pages, |rig| assert_eq!(map(rig, at, 0x1000, 12), Ok(5)));
    assert_eq!(stores, 5 + 1 + 1, "five entries, a link to their table, and the one that makes all of it visible");
    each_store(&mut rig, &pages, |rig| assert_eq!(map(rig, border, 0x1005, 7), Ok(7)));
    each_store(&mut rig, &pages, |rig| assert_eq!(map(rig, at - PAGE, 0x0fff, 1), Ok(1)));
    each_store(&mut rig, &pages, |rig| rig.set_guard(at + 12 * PAGE, 9).unwrap());
    each_store(&mut rig, &pages, |rig| assert_eq!(rig.protect(border, 7, Prot::ReadExecute), Ok(7)));
    each_store(&mut rig, &pages, |rig| assert_eq!(rig.unmap(at, 12, 3), 5));
    each_store(&mut rig, &pages, |rig| assert_eq!(rig.unmap(border, 7, 32), 7));
    each_store(&mut rig, &pages, |rig| rig.clear_guard(at + 12 * PAGE));
    each_store(&mut rig, &pages, |rig| assert_eq!(rig.unmap(at - PAGE, 1, 1), 1));
    rig.check();
}

#[test]
fn every_store_of_a_split_leaves_valid_tables() {
    let mut rig = Rig::<false>::new(1);
    let at = rig.window.start + LARGE;
    let pages = pages_around(at, 512);
    let run = PageRange { start: Pfn(0x1000), count: 512 };
    each_store(&mut rig, &pages, |rig| {
        assert_eq!(rig.map(at, run, Prot::ReadWrite, CacheMode::WriteCombining), Ok(512))
    });
    each_store(&mut rig, &pages, |rig| assert_eq!(rig.protect(at, 512, Prot::ReadExecute), Ok(512)));
    let stores = each_store(&mut rig, &pages, |rig| assert_eq!(rig.protect(at + 100 * PAGE, 200, Prot::Read), Ok(200)));
    assert_eq!(stores, 512 + 1, "the new table, then its link");
    rig.check();
    each_store(&mut rig, &pages, |rig| {
        let mut done = 0;
        while done < 512 {
            done += rig.unmap(at + done as usize * PAGE, 512 - done, 512);
        }
    });
    assert!(rig.tables.live().is_empty());
}
