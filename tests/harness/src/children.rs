//! Runs every test of a suite on the host, each in a child process, and judges how the children end.

use crate::export::hosting::Test;
use libtest_mimic::{Arguments, Failed, Trial};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The default of `embedded-test`.
const TIMEOUT_SECONDS: u32 = 60;
/// How often a child is looked at. Most tests end within one.
const POLL: Duration = Duration::from_millis(5);
/// What a board's fault handler exits with.
const FAULT: i32 = 101;
const SIGABRT: i32 = 6;

/// Runs the tests chosen by the arguments of `cargo test`, prints their results, and exits non-zero when one failed.
pub fn run_all(tests: &'static [Test]) {
    let trials = tests.iter().map(|test| Trial::test(test.path(), move || run(test)).with_ignored_flag(test.ignored));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn run(test: &Test) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program)
        .args(["run", test.path()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let limit = Duration::from_secs(test.timeout.unwrap_or(TIMEOUT_SECONDS).into());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(POLL);
    };
    let mut output = String::new();
    for pipe in [stdout, stderr] {
        output.push_str(&String::from_utf8_lossy(&pipe.join().unwrap_or_default()));
    }
    let verdict = match status {
        None => Err(format!("no end after {} s", limit.as_secs())),
        Some(status) => judge(test.path(), test.should_panic, status, &output),
    };
    verdict.map_err(|reason| format!("{reason}\n{output}").into())
}

/// Reads a pipe to its end beside the child, which would block on a full one.
fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A broken pipe ends the output; what was read until then is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn judge(path: &str, should_panic: bool, status: ExitStatus, output: &str) -> Result<(), String> {
    let function = path.rsplit("::").next().unwrap_or(path);
    let announced =
        output.lines().filter_map(|line| line.split_once("EXPECT-FAULT: ")).map(|(_, text)| text).next_back();
    let reported = |text| {
        let mut reports = output.lines().filter(|line| line.contains("FAULT: ") && !line.contains("EXPECT-FAULT: "));
        reports.any(|line| line.contains(text))
    };
    let aborted = status.signal() == Some(SIGABRT) || status.code() == Some(128 + SIGABRT);
    match announced {
        Some(_) if !function.starts_with("fault_") => Err("a fault was announced by a test not named fault_".into()),
        Some(text) if status.code() != Some(FAULT) => Err(format!("expected a fault with `{text}`, got {status}")),
        Some(text) if !reported(text) => Err(format!("the fault's report does not hold `{text}`")),
        Some(_) => Ok(()),
        None if should_panic && aborted => Ok(()),
        None if should_panic => Err(format!("expected a panic, got {status}")),
        None if status.success() => Ok(()),
        None => Err(status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn code(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    const ANNOUNCED: &str = "EXPECT-FAULT: guard after\nFAULT: write to 0x1000: guard after area 3\n";

    #[test]
    fn a_pass_is_exit_zero_and_nothing_else() {
        assert!(judge("tests::a", false, code(0), "").is_ok());
        assert!(judge("tests::a", false, code(1), "").is_err());
        assert!(judge("tests::a", false, code(101), "").is_err());
        assert!(judge("tests::a", false, ExitStatus::from_raw(11), "").is_err());
    }

    #[test]
    fn should_panic_wants_an_abort_and_no_crash() {
        assert!(judge("tests::a", true, ExitStatus::from_raw(6), "").is_ok());
        assert!(judge("tests::a", true, code(134), "").is_ok());
        assert!(judge("tests::a", true, code(0), "").is_err());
        assert!(judge("tests::a", true, ExitStatus::from_raw(11), "").is_err());
    }

    #[test]
    fn an_announced_fault_must_come_with_its_text() {
        assert!(judge("tests::fault_a", false, code(101), ANNOUNCED).is_ok());
        assert!(judge("tests::fault_a", false, code(0), ANNOUNCED).is_err());
        assert!(judge("tests::fault_a", false, code(101), "EXPECT-FAULT: guard after\nFAULT: null\n").is_err());
        assert!(judge("tests::fault_a", false, code(101), "EXPECT-FAULT: guard after\n").is_err());
    }

    #[test]
    fn only_fault_tests_may_announce_one() {
        assert!(judge("tests::a", false, code(101), ANNOUNCED).is_err());
        assert!(judge("tests::fault_a", false, code(101), "FAULT: anything\n").is_err());
        assert!(judge("tests::fault_a", false, code(0), "").is_ok());
    }
}
