//! A software-generated interrupt that runs a function of the caller.

use crate::processor::interrupts_masked;
use crate::timer;
use arm_gic::gicv2::registers::{Gicc, Gicd};
use arm_gic::gicv2::{GicV2, SgiTarget, SgiTargetListFilter};
use arm_gic::{IntId, InterruptGroup};
use board_semihosting::{run_in_interrupt, run_job, timer_fired};
use core::arch::asm;
use core::cell::RefCell;
use cortex_a::asm::barrier;
use cortex_a::registers::{ELR_EL1, Readable};
use critical_section::Mutex;

/// The GICv2 of QEMU's `virt` machine (hw/arm/virt.c): distributor and CPU interface.
const GICD: *mut Gicd = 0x0800_0000 as *mut Gicd;
const GICC: *mut Gicc = 0x0801_0000 as *mut Gicc;
/// Without the security extensions there is one group, delivered as IRQ.
const GROUP: InterruptGroup = InterruptGroup::Group0;
const SOFTWARE: IntId = IntId::sgi(7);
/// The virtual timer's line (Arm's Base System Architecture, table of private interrupts: 27).
const TIMER: IntId = IntId::ppi(11);

static GIC: Mutex<RefCell<Option<GicV2<'static>>>> = Mutex::new(RefCell::new(None));

fn with_gic<R>(f: impl FnOnce(&mut GicV2<'static>) -> R) -> Option<R> {
    critical_section::with(|section| GIC.borrow_ref_mut(section).as_mut().map(f))
}

/// Sets the interrupt controller up and unmasks interrupts.
pub(crate) fn start() {
    // SAFETY: these are the controller's registers, and this is the only driver of them: `init` runs once.
    let mut gic = unsafe { GicV2::new(GICD, GICC) };
    gic.setup();
    critical_section::with(|section| GIC.borrow_ref_mut(section).replace(gic));
    // SAFETY: the vectors are in place and the handler below takes what comes.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
}

/// Lets the timer's interrupt through.
pub(crate) fn unmask_timer() {
    let done = with_gic(|gic| {
        // Below the mask of `setup`, as software interrupts are.
        gic.set_interrupt_priority(TIMER, 0);
        gic.enable_interrupt(TIMER, true)
    });
    assert!(matches!(done, Some(Ok(()))), "the interrupt controller is set up, and has the timer's line");
}

/// Runs `f` in an interrupt handler and returns after it.
///
/// # Panics
/// When interrupts are masked, since the handler would then run at some later time.
pub fn in_interrupt(f: fn()) {
    assert!(!interrupts_masked(), "interrupts are masked");
    let this_cpu = SgiTarget::List { target_list_filter: SgiTargetListFilter::ForwardSelfOnly, target_list: 0 };
    run_in_interrupt(f, || {
        with_gic(|gic| gic.send_sgi(SOFTWARE, this_cpu));
        barrier::dsb(barrier::SY);
        barrier::isb(barrier::SY);
    });
}

/// Called by the assembly with the interrupted registers saved and interrupts masked.
#[unsafe(no_mangle)]
extern "C" fn board_irq() {
    let Some(id) = with_gic(|gic| gic.get_and_acknowledge_interrupt(GROUP)).flatten() else { return };
    match id {
        SOFTWARE => run_job(),
        TIMER => {
            timer::cancel();
            timer_fired(ELR_EL1.get() as usize);
        }
        _ => board_semihosting::write_fault(format_args!("unexpected interrupt {id:?}")),
    }
    with_gic(|gic| gic.end_interrupt(id, GROUP));
}
