//! Tables are valid at every single store: another CPU that walks them in between sees the old or the new state of
//! the pages a call changes, and no change of any other.

mod common;

use backend_mmu_x86::X86;
use common::{LARGE, PAGE, Rig};
use mm_core::{CacheMode, Mapping, PageRange, PageTable, Pfn, Prot, VirtAddr, Walk};
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
