//! The simulated machine's word on what a manager did: its tables and the TLBs of its CPUs.

use super::TestMm;
use super::world::{Kind, Live, Reach};
use backend_mmu_x86::kernel::{for_each_mapping, writable_and_executable};
use backend_mmu_x86::{Machine, X86};
use mm_core::*;
use rtmm_testkit::rig::{PAE_WINDOW, WINDOW};
use rtmm_testkit::{Access, Fault, MemoryType, SimMachine};
use std::collections::{BTreeMap, BTreeSet};

type Sim<const PAE: bool> = X86<SimMachine<PAE>>;

/// True for addresses of areas.
fn in_window<const PAE: bool>(addr: usize) -> bool {
    if PAE { PAE_WINDOW.contains(addr) } else { WINDOW.contains(addr) }
}

/// Runs `look` once on each CPU.
pub fn on_each_cpu<const PAE: bool>(machine: &SimMachine<PAE>, mut look: impl FnMut(usize)) {
    let before = machine.current();
    for cpu in 0..machine.cpu_count() {
        machine.run_on(cpu);
        look(cpu);
    }
    machine.run_on(before);
}

/// The pages of an area.
fn pages(area: &Live) -> impl Iterator<Item = usize> {
    (area.at.addr() & !4095..area.at.addr() + area.len).step_by(4096)
}

fn is_mapped(thing: &Live) -> bool {
    matches!(thing.kind, Kind::Area | Kind::Device)
}

/// Asserts that an access to `at` finds no translation.
pub fn is_absent<const PAE: bool>(machine: &SimMachine<PAE>, at: usize, access: Access) {
    let seen = machine.access(at, access);
    assert!(matches!(seen, Err(Fault::Page { present: false, .. })), "{access:?} of {at:#x}: {seen:x?}");
}

impl<const PAE: bool> Reach for Sim<PAE> {
    fn write(&self, at: *mut u8, bytes: &[u8]) {
        if in_window::<PAE>(at.addr()) {
            self.machine().store(at.addr(), bytes).unwrap();
        } else {
            // SAFETY: the caller owns that much memory there.
            unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
        }
    }

    fn read(&self, at: *const u8, into: &mut [u8]) {
        if in_window::<PAE>(at.addr()) {
            self.machine().load(at.addr(), into).unwrap();
        } else {
            // SAFETY: as above.
            unsafe { at.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) }
        }
    }

    fn next_cpu(&self) {
        let machine = self.machine();
        machine.run_on((machine.current() + 1) % machine.cpu_count());
    }

    fn touch(&self, area: &Live) {
        if !is_mapped(area) {
            return;
        }
        on_each_cpu(self.machine(), |_| {
            for page in pages(area) {
                self.machine().access(page, Access::Read).unwrap();
                self.machine().access(page, Access::Write).unwrap();
            }
        });
    }

    fn unreachable(&self, area: &Live) {
        if !is_mapped(area) {
            return;
        }
        on_each_cpu(self.machine(), |_| pages(area).for_each(|page| is_absent(self.machine(), page, Access::Read)));
    }

    fn tables_agree(&self, mm: &TestMm<Self>, live: &[Live]) {
        let machine = self.machine();
        let mut mapped = BTreeMap::new();
        // SAFETY: the root in use, and nothing changes the tables meanwhile.
        unsafe {
            for_each_mapping(machine, machine.root(), |virt, phys, bytes, writable, executable| {
                if in_window::<PAE>(virt) {
                    assert!(writable && !executable, "{virt:#x}");
                    for page in (0..bytes).step_by(4096) {
                        mapped.insert(virt + page as usize, phys + page);
                    }
                }
            });
            assert_eq!(writable_and_executable(machine, machine.root()), None);
        }
        let mut frames = BTreeSet::new();
        // What callers reach through the direct map is nobody's else.
        for thing in live.iter().filter(|thing| !is_mapped(thing)) {
            frames.extend(pages(thing).map(|page| (mm.backend().direct_frame(page) as u64) << 12));
        }
        for area in live.iter().filter(|thing| is_mapped(thing)) {
            let first = area.at.addr() & !4095;
            for page in pages(area) {
                let phys = mapped.remove(&page).unwrap_or_else(|| panic!("{page:#x} of {area:?} is not mapped"));
                let seen = machine.look(page).unwrap();
                assert_eq!(seen.phys, phys);
                if area.kind == Kind::Device {
                    assert_eq!(phys, (area.phys & !4095) + (page - first) as u64);
                    assert!(matches!(seen.memory, MemoryType::Uncached | MemoryType::UncachedMinus));
                } else {
                    assert!(frames.insert(phys), "{phys:#x} is behind two things");
                    assert_eq!(mm.vmalloc_to_page(std::ptr::without_provenance(page)), Some(Pfn((phys >> 12) as u32)));
                    assert_eq!(seen.memory, MemoryType::WriteBack);
                }
            }
            assert!(machine.look(first - 4096).is_err(), "no guard before {area:?}");
            assert!(machine.look((area.at.addr() + area.len).next_multiple_of(4096)).is_err(), "none behind {area:?}");
        }
        assert!(mapped.is_empty(), "mapped for nobody: {mapped:x?}");
    }
}
