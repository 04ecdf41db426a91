//! Counts instructions with the board's counter, calibrated against a loop of known length.

use crate::board;
use core::arch::asm;

/// Runs a loop of exactly `2 * rounds` instructions (and a few around it).
#[inline(never)]
fn known_loop(rounds: u32) {
    // SAFETY: counts a register down to zero, touches nothing else.
    unsafe {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        asm!("2: sub {0:e}, 1", "jnz 2b", inout(reg) rounds => _, options(nomem, nostack));
        #[cfg(target_arch = "aarch64")]
        asm!("2: subs {0:w}, {0:w}, #1", "b.ne 2b", inout(reg) rounds => _, options(nomem, nostack));
        #[cfg(target_arch = "arm")]
        asm!("2: subs {0}, {0}, #1", "bne 2b", inout(reg) rounds => _, options(nomem, nostack));
        #[cfg(target_arch = "riscv32")]
        asm!("2: addi {0}, {0}, -1", "bnez {0}, 2b", inout(reg) rounds => _, options(nomem, nostack));
    }
}

/// How the board's counter relates to instructions.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    /// Counter ticks that `instructions` instructions took.
    ticks: u64,
    instructions: u64,
}

impl Calibration {
    /// Rounds of the short and of the long loop; their difference is free of what stands around the loop.
    const SHORT: u32 = 1_000;
    const LONG: u32 = 101_000;

    /// Compares the counter with a known loop; `None` when the board has no counter, or one that does not repeat.
    pub fn measure() -> Option<Calibration> {
        let once = || {
            let short = ticks(|| known_loop(Self::SHORT));
            let long = ticks(|| known_loop(Self::LONG));
            long.checked_sub(short)
        };
        let first = once()?;
        let again = once()?;
        let instructions = 2 * u64::from(Self::LONG - Self::SHORT);
        // A counter that is slower or faster than instructions rounds each of the eight readings to a tick or two.
        let repeats = first.abs_diff(again) <= 16;
        (first > 0 && repeats).then_some(Calibration { ticks: first, instructions })
    }

    /// Converts a difference of the counter, rounded to the nearest instruction.
    pub fn instructions(&self, ticks: u64) -> u64 {
        (ticks * self.instructions + self.ticks / 2) / self.ticks
    }

    /// Counter ticks per thousand instructions: 1000 for an exact counter.
    pub fn ticks_per_thousand(&self) -> u64 {
        self.ticks * 1000 / self.instructions
    }
}

/// What the counter advances by while `work` runs, the reading of it included.
#[inline(always)]
pub fn ticks(work: impl FnOnce()) -> u64 {
    let start = board::instructions();
    work();
    board::instructions().wrapping_sub(start)
}

/// Median and worst of `samples`, which are sorted on the way.
///
/// # Panics
/// When there is no sample.
pub fn median_and_worst(samples: &mut [u32]) -> (u32, u32) {
    samples.sort_unstable();
    (samples[samples.len() / 2], samples[samples.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::{Calibration, median_and_worst};

    #[test]
    fn ticks_become_the_nearest_instruction() {
        let slower = Calibration { ticks: 320_000, instructions: 200_000 };
        assert_eq!(slower.ticks_per_thousand(), 1600);
        assert_eq!(slower.instructions(96), 60);
        assert_eq!(slower.instructions(95), 59);
        let exact = Calibration { ticks: 200_000, instructions: 200_000 };
        assert_eq!(exact.instructions(57), 57);
    }

    #[test]
    fn the_worst_stands_beside_the_median() {
        assert_eq!(median_and_worst(&mut [5, 900, 4, 6, 5]), (5, 900));
        assert_eq!(median_and_worst(&mut [3]), (3, 3));
    }
}
