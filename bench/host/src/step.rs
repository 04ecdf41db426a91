//! Exact instruction counts of single calls: the processor traps after each instruction.
//!
//! The trap flag makes every instruction a debug exception, which the process hears of as `SIGTRAP`. Some microseconds
//! each, so a measurement affords some hundred thousand of them.

use bench_subject::{Call, Meter, nothing};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("single steps are for x86-64");

static STEPS: AtomicU64 = AtomicU64::new(0);

extern "C" fn stepped(_signal: libc::c_int) {
    STEPS.store(STEPS.load(Relaxed) + 1, Relaxed);
}

/// Steps through calls until its budget is spent.
pub struct Stepper {
    empty: u64,
    budget: u64,
}

impl Stepper {
    /// One that stops after about `budget` instructions.
    pub fn new(budget: u64) -> Self {
        static READY: Once = Once::new();
        READY.call_once(|| {
            // SAFETY: all zeroes is no handler and no flags.
            let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
            action.sa_sigaction = stepped as extern "C" fn(libc::c_int) as usize;
            // SAFETY: the handler only writes to an atomic.
            let done = unsafe { libc::sigaction(libc::SIGTRAP, &action, core::ptr::null_mut()) };
            assert_eq!(done, 0, "no handler for steps: {}", std::io::Error::last_os_error());
        });
        let mut stepper = Stepper { empty: 0, budget };
        // SAFETY: it does nothing.
        let (_, empty) = unsafe { stepper.measure(nothing::<u8>, core::ptr::null_mut(), [0; 3]) };
        Stepper { empty: empty.into(), budget }
    }
}

impl Meter for Stepper {
    #[cfg(target_arch = "x86_64")]
    unsafe fn measure<T>(&mut self, call: Call<T>, subject: *mut T, numbers: [usize; 3]) -> (usize, u32) {
        let before = STEPS.load(Relaxed);
        let result;
        // SAFETY: calls a C function by the C convention of this target; all it may clobber is named. The flag is set
        // for the call only.
        unsafe {
            core::arch::asm!(
                "pushfq",
                "or dword ptr [rsp], 0x100",
                "popfq",
                "call {call}",
                "pushfq",
                "and dword ptr [rsp], 0xfffffeff",
                "popfq",
                call = in(reg) call,
                in("rdi") subject,
                in("rsi") numbers[0],
                in("rdx") numbers[1],
                in("rcx") numbers[2],
                lateout("rax") result,
                clobber_abi("sysv64"),
            );
        }
        let steps = STEPS.load(Relaxed) - before;
        self.budget = self.budget.saturating_sub(steps);
        (result, steps.saturating_sub(self.empty) as u32)
    }

    fn enough(&self) -> bool {
        self.budget == 0
    }
}

/// Makes the calls and measures nothing.
pub struct Plain;

impl Meter for Plain {
    #[inline(always)]
    unsafe fn measure<T>(&mut self, call: Call<T>, subject: *mut T, numbers: [usize; 3]) -> (usize, u32) {
        // SAFETY: by the caller.
        (unsafe { call(subject, numbers[0], numbers[1], numbers[2]) }, 0)
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// `n` times two instructions, and four more.
    unsafe extern "C" fn counted(_: *mut u8, n: usize, _: usize, _: usize) -> usize {
        let rest: usize;
        // SAFETY: counts a register down to zero.
        unsafe { core::arch::asm!("2: sub {0}, 1", "jnz 2b", inout(reg) n => rest, options(nomem, nostack)) };
        rest
    }

    /// One test, since the count of steps is the process's.
    #[test]
    fn a_step_is_an_instruction_and_an_empty_call_takes_nothing() {
        let mut stepper = Stepper::new(1_000_000);
        // The least of many: what the system does in between can repeat a step.
        let mut steps = |n| {
            // SAFETY: the function touches nothing.
            let runs = (0..50).map(|_| unsafe { stepper.measure(counted, core::ptr::null_mut(), [n, 0, 0]).1 });
            runs.min().unwrap_or_default()
        };
        let (short, long) = (steps(10), steps(110));
        assert_eq!(long - short, 200);
        assert!(!stepper.enough());
        // SAFETY: it does nothing.
        assert_eq!(unsafe { stepper.measure(nothing::<u8>, core::ptr::null_mut(), [7, 0, 0]) }, (7, 0));
    }
}
