//! The manager on x86 page tables.

use crate::fault::{self, Access};
use crate::layout;
use crate::mirror::{self, Mirror, WINDOW};
use crate::platform::BoardPlatform;
use rtmm::backend::{X86, kernel};
use rtmm::{Backend as _, Config, Mm, PageTable, Pfn, PhysAddr, PhysRange, VirtAddr, Walk};

/// The machine's side of the manager: x86 page tables, mirrored into the process.
pub type Backend = X86<Mirror>;

rtmm::global_mm! {
    /// The board's manager.
    pub static MM: Mm<BoardPlatform, Backend> = Mm::new(BoardPlatform, X86::new(Mirror::new()));
}

/// Brings the machine and the manager up. Called once, by the suite's setup or by `entry!`.
///
/// # Panics
/// When the process cannot be such a machine, or was one already.
pub fn init() {
    let machine = MM.backend().machine();
    machine.power_on();
    let mut ram = layout::boot_map(Backend::PAGE_SHIFT, Backend::PHYS_BITS).expect("the boot map is sound");
    let spans: Vec<PhysRange> = ram.spans().to_vec();
    let mut take = || {
        let page = ram.alloc_top(Backend::PAGE_SIZE as u64, 1, u64::MAX)?;
        Pfn::containing(PhysAddr(page.start), Backend::PAGE_SHIFT)
    };
    // No segments: the program runs by the process's own tables.
    // SAFETY: the boot map gives each frame once, and the machine's memory was mapped just now.
    let root = unsafe { kernel::build(machine, &[], &spans, WINDOW, &mut take) }.expect("tables for the boot map");
    // SAFETY: these tables map no code or data of this program, and it does not run by them.
    unsafe { kernel::activate(machine, root) }.expect("the machine has what the tables need");
    fault::install();
    let config = Config { zones: layout::ZONES, vmalloc: WINDOW, tuning: layout::TUNING };
    // SAFETY: the map leaves out what the image, the firmware and the early tables use.
    unsafe { MM.init(&mut ram, &config) }.expect("the manager comes up");
    BoardPlatform.boot_is_over();
}

/// What the processor does on a TLB miss: walks the live tables and takes the entry, if it allows the access.
///
/// False when it is a fault. Safe in a signal handler: the walk takes no lock.
pub(crate) fn answer_miss(addr: usize, access: Access) -> bool {
    if !WINDOW.contains(addr) {
        return false;
    }
    match walk(addr) {
        Walk::Mapped(found) if mirror::allows(found.prot, access) => MM.backend().machine().fill(addr, found),
        _ => false,
    }
}

/// True when the tables map `addr`, whatever the mapping allows.
pub(crate) fn is_mapped(addr: usize) -> bool {
    matches!(walk(addr), Walk::Mapped(_))
}

fn walk(addr: usize) -> Walk {
    let backend = MM.backend();
    backend.walk_kernel(VirtAddr(addr))
}
