//! The memory protection unit of Armv7-M (PMSAv7), over the registers of the `cortex-m` crate.

use super::{Allows, RegionGuard, Slot};
use cortex_m::asm::{dsb, isb};
use cortex_m::peripheral::{MPU, SCB, mpu};

/// The most regions a PMSAv7 unit is made with (Armv7-M ARM, B3.5.1; MPU_TYPE tells how many this one has).
const MOST: usize = 16;

/// MPU_CTRL: the unit is on, and privileged code sees the default map where no region is (Armv7-M ARM, B3.5.5).
const CTRL_ON: u32 = 1 | 1 << 2;
/// MPU_RASR (B3.5.9): the region counts; no instruction is fetched from it; the access permissions, of privileged code
/// and of other code.
const RASR_ENABLE: u32 = 1;
const RASR_XN: u32 = 1 << 28;
const RASR_NONE: u32 = 0;
const RASR_READ_ONLY: u32 = 0b110 << 24;
/// Normal memory, write-back, write and read allocate (B3.5.9, TEX, C and B), as the default map has RAM.
const RASR_NORMAL: u32 = 0b001 << 19 | 1 << 17 | 1 << 16;
/// SHCSR: memory faults have a handler of their own.
const MEMFAULTENA: u32 = 1 << 16;

/// The regions of the memory protection unit from one on; those below stay the RTOS's. A higher one counts before a
/// lower one (B3.5.3), so the guards hold whatever the RTOS lets through.
#[derive(Debug)]
pub struct Pmsav7 {
    first: u8,
}

impl Default for Pmsav7 {
    /// All regions.
    fn default() -> Self {
        Pmsav7::from_region(0)
    }
}

impl Pmsav7 {
    /// The regions from `first` on.
    pub const fn from_region(first: u8) -> Self {
        Pmsav7 { first }
    }

    /// Turns the unit on, with the default map for privileged code where there is no region, and memory faults to their
    /// own handler. For the board's start-up; an RTOS that turned it on itself need not call it.
    pub fn enable(&self) {
        // SAFETY: both blocks are this processor's. The bits set change no region.
        unsafe {
            (*SCB::PTR).shcsr.modify(|bits| bits | MEMFAULTENA);
            registers().ctrl.modify(|bits| bits | CTRL_ON);
        }
        dsb();
        isb();
    }

    fn select(&self, slot: usize) -> &'static mpu::RegisterBlock {
        let unit = registers();
        // SAFETY: by number; which region it is changes nothing by itself.
        unsafe { unit.rnr.write(u32::from(self.first) + slot as u32) };
        unit
    }
}

fn registers() -> &'static mpu::RegisterBlock {
    // SAFETY: the architecture puts the block there on every Armv7-M processor; without a unit it reads as zeros and
    // ignores stores.
    unsafe { &*MPU::PTR }
}

// SAFETY: by the architecture's manual a region with no permissions faults every access, privileged ones included, once
// the unit is on and the barriers are past; one that is not enabled has no effect.
unsafe impl RegionGuard for Pmsav7 {
    type Slots = [Slot; MOST];
    const FREE: [Slot; MOST] = [Slot::FREE; MOST];

    fn slots(&self) -> usize {
        let unit = registers();
        // DREGION, bits 8 to 15 (B3.5.4). While the unit is off it guards nothing.
        let all = if unit.ctrl.read() & 1 == 0 { 0 } else { unit._type.read() >> 8 & 0xff };
        (all as usize).saturating_sub(usize::from(self.first)).min(MOST)
    }

    unsafe fn set(&self, slot: usize, start: usize, bytes: usize, allows: Allows) {
        let rights = match allows {
            Allows::Nothing => RASR_NONE | RASR_XN,
            Allows::Reads => RASR_READ_ONLY | RASR_XN,
            Allows::Fetches => RASR_READ_ONLY,
        };
        // SIZE, bits 1 to 5: the region has 2^(SIZE + 1) bytes.
        let size = (bytes.ilog2() - 1) << 1;
        let unit = self.select(slot);
        // SAFETY: the caller says that the region is nobody's who would be hindered. Off while it is half set.
        unsafe {
            unit.rasr.write(0);
            unit.rbar.write(start as u32);
            unit.rasr.write(rights | RASR_NORMAL | size | RASR_ENABLE);
        }
        dsb();
        isb();
    }

    unsafe fn clear(&self, slot: usize) {
        // SAFETY: a region that is off hinders nobody.
        unsafe { self.select(slot).rasr.write(0) };
        dsb();
        isb();
    }
}
