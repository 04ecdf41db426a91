//! Making each step of a call fail in turn.

use super::{TestMm, drained, state};
use mm_core::*;
use std::fmt::Debug;

/// Makes steps fail between `arm` and `disarm`.
pub struct Plan<'a, B: Backend> {
    pub mm: &'a TestMm<B>,
    class: FaultClass,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    Nth(u64),
    From(u64),
    Pair(u64, u64),
}

impl<B: Backend> Plan<'_, B> {
    /// Runs a call with the plan in force.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        let faults = self.mm.faults();
        match self.mode {
            Mode::Nth(k) => faults.fail_nth(self.class, k),
            Mode::From(k) => faults.fail_from(self.class, k),
            Mode::Pair(k, l) => faults.fail_pair(self.class, k, l),
        }
        let result = call();
        faults.disarm();
        result
    }
}

/// Makes something with the plan in force; when that worked, takes it back and says so.
pub type Call<B> = fn(&Plan<'_, B>) -> Result<(), MmError>;

/// One failing step, two, and all from one on. Returns how many steps there are.
pub fn fail_each<B: Backend>(mm: &TestMm<B>, name: &str, call: Call<B>) -> u64 {
    use FaultClass::*;
    let classes: &[FaultClass] =
        if cfg!(miri) { &[Any] } else { &[Any, Slab, Page, Table, AddressSpace, Descriptor, Guard] };
    let mut steps = 0;
    for &class in classes {
        let failing = |mode| attempt(mm, name, call, class, mode);
        let nth = (1..).take_while(|&k| failing(Mode::Nth(k))).count() as u64;
        let from = (1..).take_while(|&k| failing(Mode::From(k))).count() as u64;
        assert!(from <= nth, "{name}: {class:?}");
        if class == Any {
            steps = nth;
            let most = if cfg!(miri) { 1 } else { 40 };
            for k in 1..=nth.min(most) {
                let _ = (1..=most).take_while(|&l| failing(Mode::Pair(k, l))).count();
            }
        }
    }
    assert!(steps > 0, "{name} has no step that can fail");
    steps
}

/// Runs one call; true when the planned step was reached.
fn attempt<B: Backend>(mm: &TestMm<B>, name: &str, call: Call<B>, class: FaultClass, mode: Mode) -> bool {
    let context = (name, class, mode);
    let before = drained(mm);
    let result = call(&Plan { mm, class, mode });
    let hit = mm.faults().hit();
    assert_eq!(drained(mm), before, "{context:?}: {result:?}");
    match result {
        Ok(()) => assert!(!hit || !matches!(mode, Mode::From(_)), "{context:?} cannot have worked"),
        Err(error) => {
            // With a pair the call may have failed before the second.
            assert!(hit || matches!(mode, Mode::Pair(..)), "{context:?} failed by itself: {error}");
            let known = [AllocError::NoMemory.into(), AllocError::NoAddressSpace.into(), AllocError::NoGuard.into()];
            assert!(known.contains(&error) || error == MmError::NoGuard, "{context:?}: {error}");
            if class == FaultClass::AddressSpace {
                assert_eq!(error, known[1], "{context:?}");
            } else if class == FaultClass::Guard {
                assert!(error == known[2] || error == MmError::NoGuard, "{context:?}");
            } else if class != FaultClass::Any {
                assert_eq!(error, known[0], "{context:?}");
            }
        }
    }
    hit
}

/// Checks an error that leaves nothing to drain: the state is the same to the last bit.
pub fn exact<B: Backend, T: Debug, E: Into<MmError>>(
    plan: &Plan<'_, B>,
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, MmError> {
    let before = state(plan.mm);
    let result = plan.during(call).map_err(Into::into);
    if result.is_err() {
        assert_eq!(state(plan.mm), before);
    }
    result
}
