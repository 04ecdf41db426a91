//! Judging how a test ended.

use crate::boards::Codes;
use crate::elf::Case;
use crate::process::Exit;

/// Printed by a test just before it provokes a fault, with a text that the fault's report must hold.
const EXPECTED: &str = "EXPECT-FAULT: ";
/// How a fault handler's report begins.
const REPORTED: &str = "FAULT: ";
/// Only tests whose name starts like this may expect a fault.
const FAULT_TEST: &str = "fault_";
/// SIGABRT: how a panic ends a process of the host.
const ABORTED: i32 = 6;

/// What a status means on a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Passed,
    Failed,
    Faulted,
    /// Anything else: a triple fault, a lockup, QEMU's own complaint.
    Crashed,
    TimedOut,
}

fn meaning(exit: Exit, codes: Codes) -> Meaning {
    match exit {
        Exit::TimedOut(_) => Meaning::TimedOut,
        Exit::Code(code) if code == codes.pass => Meaning::Passed,
        Exit::Code(code) if code == codes.fail => Meaning::Failed,
        Exit::Code(code) if code == codes.fault => Meaning::Faulted,
        // Only a board whose failure is the shell's 134 can also end by the signal itself; QEMU's abort is a lockup.
        Exit::Code(_) | Exit::Signal(_) => Meaning::Crashed,
    }
}

/// Whether a test passed, or why not.
///
/// `emulated` says that the status is QEMU's: a signal then is the emulator's death, never a panic of the guest.
pub fn judge(case: &Case, exit: Exit, lines: &[String], codes: Codes, emulated: bool) -> Result<(), String> {
    let ended = match exit {
        Exit::Signal(ABORTED) if !emulated => Meaning::Failed,
        exit => meaning(exit, codes),
    };
    let expected = lines.iter().rev().find_map(|line| after(line, EXPECTED));
    let function = case.name.rsplit("::").next().unwrap_or(&case.name);
    match (expected, ended) {
        (_, Meaning::TimedOut) => Err(exit.to_string()),
        (Some(text), _) if !function.starts_with(FAULT_TEST) => {
            Err(format!("it expects a fault ({text}), which only tests named {FAULT_TEST}* may"))
        }
        (Some(""), _) => Err("the fault it expects is not named".to_owned()),
        (Some(text), Meaning::Faulted) => {
            let reports: Vec<&str> = lines.iter().filter_map(|line| report(line)).collect();
            match reports.iter().any(|report| report.contains(text)) {
                true => Ok(()),
                false if reports.is_empty() => Err(format!("the expected fault was not reported ({text})")),
                false => Err(format!("the fault's report does not say {text:?}")),
            }
        }
        (Some(text), Meaning::Passed) => Err(format!("it went on where a fault was expected ({text})")),
        (Some(text), _) => {
            Err(format!("a fault was expected ({text}), but it ended with {}", told(ended, exit, emulated)))
        }
        (None, Meaning::Failed) if case.should_panic => Ok(()),
        (None, Meaning::Passed) if case.should_panic => Err("it returned, and should have panicked".to_owned()),
        (None, Meaning::Passed) => Ok(()),
        (None, _) => Err(told(ended, exit, emulated)),
    }
}

/// Why a program that should simply have ended well did not; `None` when it did.
pub fn complaint(exit: Exit, codes: Codes, emulated: bool) -> Option<String> {
    match (meaning(exit, codes), exit) {
        (Meaning::Passed, _) => None,
        (_, Exit::Signal(ABORTED)) if !emulated => Some(told(Meaning::Failed, exit, emulated)),
        (ended, _) => Some(told(ended, exit, emulated)),
    }
}

/// A bad end in words.
fn told(ended: Meaning, exit: Exit, emulated: bool) -> String {
    match (ended, exit) {
        (Meaning::Failed, _) => format!("a panic or an error ({exit})"),
        (Meaning::Faulted, _) => format!("an unexpected hardware fault ({exit})"),
        (Meaning::Crashed, Exit::Code(0)) if emulated => "a triple fault or a reset (QEMU's status 0)".to_owned(),
        (Meaning::Crashed, Exit::Code(1)) if emulated => "a refusal by QEMU, or a lockup (status 1)".to_owned(),
        (Meaning::Crashed, Exit::Signal(ABORTED)) if emulated => "a lockup (QEMU aborted)".to_owned(),
        (Meaning::Crashed, _) => format!("a crash ({exit})"),
        (Meaning::Passed | Meaning::TimedOut, _) => exit.to_string(),
    }
}

/// The rest of a line after a marker, which may stand behind a log level.
fn after<'l>(line: &'l str, marker: &str) -> Option<&'l str> {
    line.split_once(marker).map(|(_, text)| text.trim())
}

/// The text of a fault report.
fn report(line: &str) -> Option<&str> {
    if line.contains(EXPECTED) { None } else { after(line, REPORTED) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::boards::Board;

    fn judged(board: &str, name: &str, should_panic: bool, exit: Exit, lines: &[&str]) -> Result<(), String> {
        let board = Board::named(board).unwrap();
        let case = Case { name: name.into(), address: Some(1), ignored: false, should_panic, timeout: None };
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        judge(&case, exit, &lines, board.codes, !board.is_host())
    }

    #[test]
    fn a_pass_is_the_boards_own_code() {
        assert_eq!(judged("qemu-x86_64", "tests::a", false, Exit::Code(33), &[]), Ok(()));
        assert_eq!(judged("mps2-an385", "tests::a", false, Exit::Code(0), &[]), Ok(()));
        assert!(judged("qemu-x86_64", "tests::a", false, Exit::Code(0), &[]).unwrap_err().contains("triple fault"));
        assert!(judged("mps2-an385", "tests::a", false, Exit::Code(33), &[]).unwrap_err().contains("crash"));
    }

    #[test]
    fn a_panic_passes_only_where_it_should() {
        assert_eq!(judged("qemu-x86_64", "tests::a", true, Exit::Code(35), &[]), Ok(()));
        assert_eq!(judged("virt-aarch64", "tests::a", true, Exit::Code(134), &[]), Ok(()));
        assert_eq!(judged("host", "tests::a", true, Exit::Signal(6), &[]), Ok(()));
        assert!(judged("qemu-x86_64", "tests::a", false, Exit::Code(35), &[]).is_err());
        assert!(judged("qemu-x86_64", "tests::a", true, Exit::Code(33), &[]).unwrap_err().contains("should have"));
        // A fault, a lockup or a hang is never a panic.
        assert!(judged("qemu-x86_64", "tests::a", true, Exit::Code(101), &[]).is_err());
        assert!(judged("mps2-an385", "tests::a", true, Exit::Signal(6), &[]).unwrap_err().contains("lockup"));
        assert!(judged("host", "tests::a", true, Exit::TimedOut(Duration::from_secs(9)), &[]).is_err());
    }

    #[test]
    fn an_expected_fault_needs_its_status_and_its_text() {
        let lines = ["EXPECT-FAULT: guard before area", "INFO FAULT: write to 0x1000: guard before area 3"];
        assert_eq!(judged("qemu-x86_64", "tests::fault_guard", false, Exit::Code(101), &lines), Ok(()));
        assert!(
            judged("qemu-x86_64", "tests::fault_guard", false, Exit::Code(33), &lines).unwrap_err().contains("went on")
        );
        assert!(judged("qemu-x86_64", "tests::fault_guard", false, Exit::Code(35), &lines).is_err());
        assert!(judged("qemu-x86_64", "tests::fault_guard", false, Exit::Code(101), &lines[..1]).is_err());
        let other = ["EXPECT-FAULT: guard before area", "FAULT: write to 0x0: null"];
        assert!(judged("qemu-x86_64", "tests::fault_guard", false, Exit::Code(101), &other).is_err());
    }

    #[test]
    fn a_fault_nobody_expected_fails() {
        let lines = ["FAULT: write to 0x0"];
        assert!(judged("qemu-x86_64", "tests::fault_null", false, Exit::Code(101), &lines).is_err());
        assert!(judged("qemu-x86_64", "tests::a", false, Exit::Code(101), &lines).is_err());
        assert_eq!(judged("mps2-an385", "tests::fault_null", false, Exit::Code(0), &[]), Ok(()));
    }

    #[test]
    fn an_expected_fault_must_be_named() {
        let lines = ["EXPECT-FAULT: ", "FAULT: anything"];
        assert!(judged("qemu-x86_64", "tests::fault_a", false, Exit::Code(101), &lines).is_err());
    }

    #[test]
    fn only_fault_tests_may_expect_one() {
        let lines = ["EXPECT-FAULT: x", "FAULT: x"];
        assert!(judged("qemu-x86_64", "tests::guard", false, Exit::Code(101), &lines).unwrap_err().contains("named"));
    }

    #[test]
    fn programs_are_told_why_they_failed() {
        let x86 = Board::named("qemu-x86_64").unwrap().codes;
        assert_eq!(complaint(Exit::Code(33), x86, true), None);
        assert!(complaint(Exit::Code(0), x86, true).unwrap().contains("triple"));
        let host = Board::named("host").unwrap().codes;
        assert!(complaint(Exit::Signal(6), host, false).unwrap().contains("panic"));
        assert!(complaint(Exit::Signal(11), host, false).unwrap().contains("crash"));
    }
}
