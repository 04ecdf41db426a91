//! Areas where only single frames are left, no two of them neighbours.

mod common;

use common::PAGE;
use mm_core::*;
use rtmm_testkit::SimConfig;
use rtmm_testkit::rig::Rig;
use std::collections::HashSet;

/// Pages of a lowest table.
const TABLE: usize = 512;

#[test]
fn areas_of_single_frames_come_and_go_with_their_tables() {
    let rig = Rig::mmu_on(SimConfig::new(&[(0x20_0000, 0x20_0000 + (16 << 20))]));
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let pages: Vec<_> = std::iter::from_fn(|| mm.get_free_page(GFP_KERNEL).ok()).collect();
        let (mut kept, mut free) = (Vec::new(), Vec::new());
        for page in pages {
            let is_even = mm.pfn_of(page.as_ptr()).unwrap().0.is_multiple_of(2);
            if is_even { free.push(page) } else { kept.push(page) }
        }
        free.into_iter().for_each(|page| mm.free_page(page.as_ptr()).unwrap());
        // About the number of one hold, one batch, the rest of a table, all of one, and past it; alone in their tables, and
        // beside another area.
        let counts =
            [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 256, TABLE - 2, TABLE - 1, TABLE, TABLE + 1, 2 * TABLE + 3];
        for beside in [false, true] {
            let other = beside.then(|| mm.vmalloc(PAGE).unwrap());
            for count in counts {
                for layout in [PAGE, 1 << 16] {
                    let before = mm.free_page_count();
                    let area = mm.vmalloc_with(count * PAGE, &AreaOptions::new().align(layout)).unwrap();
                    let frame = |page: usize| machine.look(area.addr().get() + page * PAGE).unwrap().phys;
                    let frames: HashSet<_> = (0..count).map(frame).collect();
                    assert_eq!(frames.len(), count, "each page has a frame of its own");
                    let odd = frames.iter().filter(|phys| !(*phys / PAGE as u64).is_multiple_of(2)).count();
                    // Some are of what ordinary requests for pages leave.
                    assert!(odd <= 64 && odd <= count / 2 + 1 || count < 65, "single frames: {odd} of {count}");
                    assert!(machine.look(area.addr().get() - PAGE).is_err(), "the guard");
                    mm.check().unwrap();
                    mm.vfree(area.as_ptr()).unwrap();
                    assert!(machine.look(area.addr().get()).is_err());
                    mm.check().unwrap();
                    mm.drain();
                    assert_eq!(mm.free_page_count(), before, "{count} pages, and their tables");
                }
            }
            if let Some(other) = other {
                mm.vfree(other.as_ptr()).unwrap();
            }
        }
        kept.into_iter().for_each(|page| mm.free_page(page.as_ptr()).unwrap());
    });
}
