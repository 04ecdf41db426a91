//! The tables after every single store of a manager: of areas made and freed, protected and split, in 64-bit mode and
//! PAE; and what two failing steps leave.

mod common;

use backend_mmu_x86::{Machine, X86, kernel};
use common::{PAGE, drained, highmem, pae};
use mm_core::*;
use rtmm_testkit::rig::Rig;
use rtmm_testkit::{Seen, SimConfig, SimMachine, TestPlatform};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

type PagedMm<const PAE: bool> = Mm<TestPlatform, X86<SimMachine<PAE>>>;

const LARGE: usize = 512 * PAGE;

/// What the pages of a range may say while something changes: the frame of each, once it is mapped.
type May = Arc<Mutex<BTreeMap<usize, Option<u64>>>>;

/// Looks at the tables after each store of `change`: every page of `kept` says what it said, every page of `changing`
/// is absent or leads to one frame for as long as it is mapped, and no frame is writable and executable.
fn each_store<const PAE: bool, R>(
    mm: &PagedMm<PAE>,
    kept: &[usize],
    changing: std::ops::Range<usize>,
    change: impl FnOnce() -> R,
) -> (R, usize) {
    let machine = mm.backend().machine().clone();
    let before: Vec<(usize, Option<Seen>)> = kept.iter().map(|&at| (at, machine.look(at).ok())).collect();
    let frame = |machine: &SimMachine<PAE>, at| machine.look(at).ok().map(|seen| seen.phys);
    let may: May = Arc::new(Mutex::new(changing.clone().step_by(PAGE).map(|at| (at, frame(&machine, at))).collect()));
    let stores = Arc::new(AtomicUsize::new(0));
    let (seen, looker) = (stores.clone(), machine.clone());
    machine.watch(Some(Box::new(move |_, _| {
        let n = seen.fetch_add(1, Ordering::SeqCst);
        for (at, was) in &before {
            let now = looker.look(*at).ok();
            let same = |a: &Option<Seen>, b: &Option<Seen>| {
                a.map(|s| Seen { bytes: 0, ..s }) == b.map(|s| Seen { bytes: 0, ..s })
            };
            assert!(same(&now, was), "store {n}: {at:#x} is {now:x?}, was {was:x?}");
        }
        for (at, was) in may.lock().unwrap().iter_mut() {
            let Ok(now) = looker.look(*at) else { continue };
            assert!(!(now.writable && now.executable), "store {n}: {at:#x} is {now:x?}");
            assert!(
                was.is_none_or(|phys| phys == now.phys),
                "store {n}: {at:#x} leads to {now:x?}, before to {was:x?}"
            );
            *was = Some(now.phys);
        }
        // The walk over all tables is slow; after each of the first stores, and then now and then.
        if n < 12 || n.is_multiple_of(61) {
            // SAFETY: the root in use; nothing changes the tables meanwhile.
            assert_eq!(unsafe { kernel::writable_and_executable(&looker, looker.root()) }, None, "store {n}");
        }
    })));
    let result = change();
    machine.watch(None);
    let stores = stores.load(Ordering::SeqCst);
    (result, stores)
}

fn pages(at: *const u8, count: usize) -> Vec<usize> {
    (0..count).map(|page| at.addr() + page * PAGE).collect()
}

/// Areas of one page, of a few, of several batches and of two tables, between neighbours that stay.
fn areas_come_and_go<const PAE: bool>(mm: &PagedMm<PAE>) {
    let mut frames: Vec<Pfn> = (0..80).map(|_| mm.alloc_page(GFP_KERNEL).unwrap()).collect();
    frames.sort();
    let (given, between): (Vec<_>, Vec<_>) = frames.iter().partition(|pfn| pfn.0 % 2 == 0);
    for size in [PAGE, 3 * PAGE, 20 * PAGE, 100 * PAGE, 511 * PAGE] {
        // No block of the round before in the way.
        mm.drain();
        let below = mm.vmalloc(2 * PAGE).unwrap().as_ptr();
        let place = mm.vmalloc(size).unwrap().as_ptr();
        let above = mm.vmalloc(2 * PAGE).unwrap().as_ptr();
        let kept: Vec<_> = [pages(below, 2), pages(above, 2), vec![place.addr() - PAGE, place.addr() + size]].concat();
        let changing = place.addr()..place.addr() + size;
        let (freed, stores) = each_store(mm, &kept, changing.clone(), || mm.vfree(place));
        freed.unwrap();
        assert!(stores > 1);
        let (again, stores) = each_store(mm, &kept, changing.clone(), || mm.vmalloc(size));
        assert_eq!(again.unwrap().as_ptr(), place, "the lowest that fits");
        assert!(stores > 1);
        let (freed, _) = each_store(mm, &kept, changing.clone(), || mm.vfree_unflushed(place).map(|it| it.flush()));
        freed.unwrap();
        // Mappings of what is there already come and go by the same path.
        let device = PhysAddr(0xf000_0000);
        let (io, _) = each_store(mm, &kept, changing.clone(), || mm.ioremap(device, size));
        let io = io.unwrap();
        assert_eq!(io.as_ptr(), place);
        each_store(mm, &kept, changing.clone(), || mm.iounmap(io.as_ptr())).0.unwrap();
        let count = given.len().min(size / PAGE);
        let (map, _) = each_store(mm, &kept, changing.clone(), || mm.vmap(&given[..count], Prot::ReadWrite));
        let map = map.unwrap();
        assert_eq!(map.as_ptr(), place);
        each_store(mm, &kept, changing.clone(), || mm.vunmap(map.as_ptr())).0.unwrap();
        // In a block beside another mapping, or where it is too long, as any area.
        let other = mm.vm_map_ram(&given[..2]).unwrap();
        let kept = [kept, pages(other.as_ptr(), 2)].concat();
        let map = mm.vm_map_ram(&given[..count]).unwrap().as_ptr();
        let changing = map.addr()..map.addr() + count * PAGE;
        each_store(mm, &kept, changing.clone(), || mm.vm_unmap_ram(map, count)).0.unwrap();
        let (again, stores) = each_store(mm, &kept, changing, || mm.vm_map_ram(&given[..count]));
        assert!(again.unwrap().as_ptr() == map && stores >= count);
        mm.vm_unmap_ram(map, count).unwrap();
        mm.vm_unmap_ram(other.as_ptr(), 2).unwrap();
        mm.vfree(below).unwrap();
        mm.vfree(above).unwrap();
    }
    given.into_iter().chain(between).for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
}

#[test]
fn areas_come_and_go_between_neighbours_that_do_not_change() {
    highmem().nothing_lost(areas_come_and_go);
    pae().nothing_lost(areas_come_and_go);
}

/// RAM for areas of several 2 MiB entries, all of it low memory.
fn large_long() -> Rig<X86<SimMachine>> {
    Rig::mmu_on(SimConfig::new(&[(0x20_0000, 0x20_0000 + (16 << 20))]))
}

fn large_pae() -> Rig<X86<SimMachine<true>>> {
    Rig::pae_on(SimConfig::pae(&[(0x20_0000, 0x20_0000 + (16 << 20))], 0x3800_0000))
}

/// Splits at both ends of a range, and what is between.
fn splits<const PAE: bool>(mm: &PagedMm<PAE>) {
    let at = mm.vmalloc(2 * LARGE).unwrap().as_ptr();
    let page = |n: usize| at.wrapping_add(n * PAGE).cast_const();
    let outside: Vec<_> = [0, 1, 299, 300, 600, 601, 1023].map(|n| page(n).addr()).into();
    let inside = at.addr() + 3 * PAGE..at.addr() + 600 * PAGE;
    let kept: Vec<_> = outside.into_iter().filter(|at| !inside.contains(at)).collect();
    let mut most = 0;
    for prot in [Prot::Read, Prot::ReadExecute, Prot::Read, Prot::ReadWrite] {
        let (done, stores) = each_store(mm, &kept, inside.clone(), || mm.set_memory(page(3), 597, prot));
        done.unwrap();
        most = most.max(stores);
    }
    assert!(most > 1024, "two tables were filled: {most}");
    mm.vfree(at).unwrap();
}

#[test]
fn splits_change_nothing_but_what_is_asked() {
    large_long().nothing_lost(splits);
    large_pae().nothing_lost(splits);
}

/// Any two steps of a change of protection that splits at both ends, and whose aliases are split, may fail: then every
/// page allows what it did.
fn pairs_of_a_protection<const PAE: bool>(mm: &PagedMm<PAE>) {
    let machine = mm.backend().machine();
    let looks = |at: *const u8| -> Vec<_> {
        let rights = |seen: Seen| (seen.phys, seen.writable, seen.executable);
        let own = [0usize, 1, 511, 512, 1022, 1023].map(|n| at.addr() + n * PAGE);
        let alias = |own: usize| {
            let pfn = mm.vmalloc_to_page(std::ptr::without_provenance(own)).unwrap();
            mm.backend().direct_virt(pfn).unwrap().0
        };
        own.iter().flat_map(|&own| [own, alias(own)]).map(|at| rights(machine.look(at).unwrap())).collect()
    };
    let mut failures = 0;
    for prot in [Prot::Read, Prot::ReadExecute] {
        for k in 1.. {
            let mut first = false;
            for l in 1.. {
                let at = mm.vmalloc(2 * LARGE).unwrap().as_ptr();
                let (before, state) = (looks(at), drained(mm));
                mm.faults().fail_pair(FaultClass::Any, k, l);
                let result = mm.set_memory(at.wrapping_add(PAGE), 1022, prot);
                mm.faults().disarm();
                let hit = mm.faults().hit();
                if result.is_err() {
                    failures += 1;
                    first = true;
                    assert_eq!(result, Err(MmError::Alloc(AllocError::NoMemory)), "{prot:?} {k} {l}");
                    assert_eq!(looks(at), before, "{prot:?} {k} {l}");
                    assert_eq!(drained(mm), state, "{prot:?} {k} {l}");
                }
                first |= hit;
                // SAFETY: the root in use; nothing changes the tables meanwhile.
                assert_eq!(unsafe { kernel::writable_and_executable(machine, machine.root()) }, None);
                mm.vfree(at).unwrap();
                mm.drain();
                mm.check().unwrap_or_else(|damage| panic!("{prot:?} {k} {l}: {damage}"));
                if !hit || l > 6 {
                    break;
                }
            }
            if !first {
                break;
            }
        }
    }
    // Two splits; for `ReadExecute`, of the aliases too.
    assert!(failures >= 6, "{failures}");
}

#[test]
fn any_two_steps_of_a_protection_may_fail() {
    large_long().nothing_lost(pairs_of_a_protection);
    large_pae().nothing_lost(pairs_of_a_protection);
}

/// The same of areas whose pages come from everywhere: blocks, single frames, several tables.
fn pairs_of_an_area<const PAE: bool>(mm: &PagedMm<PAE>) {
    let (mut hits, mut failures) = (0, 0);
    for size in [PAGE, 20 * PAGE, 40 * PAGE, LARGE + 40 * PAGE, 600 * PAGE] {
        for k in 1..20 {
            let mut first = false;
            for l in 1..12 {
                let state = drained(mm);
                mm.faults().fail_pair(FaultClass::Any, k, l);
                let area = mm.vmalloc_with(size, &AreaOptions::new().entries(Entries::Small));
                mm.faults().disarm();
                let hit = mm.faults().hit();
                hits += usize::from(hit);
                first |= hit || area.is_err();
                failures += usize::from(area.is_err());
                match area {
                    Ok(area) => mm.vfree(area.as_ptr()).unwrap(),
                    Err(error) => assert!(
                        matches!(error, AllocError::NoMemory | AllocError::NoAddressSpace),
                        "{size:#x} {k} {l}: {error}"
                    ),
                }
                assert_eq!(drained(mm), state, "{size:#x} {k} {l}");
                if !hit {
                    break;
                }
            }
            if !first {
                break;
            }
        }
    }
    assert!(hits > 0 && failures > 10, "{hits} {failures}");
}

#[test]
fn any_two_steps_of_an_area_may_fail() {
    large_long().nothing_lost(pairs_of_an_area);
    large_pae().nothing_lost(pairs_of_an_area);
    highmem().nothing_lost(pairs_of_an_area);
}
