//! Running a program under a time limit while its output streams by.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wait_timeout::ChildExt;

/// How long the pipes of a killed process may stay open: a grandchild that holds them must not hold us.
const GRACE: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// By us, after this long.
    TimedOut(Duration),
}

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Exit {
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
            Exit::TimedOut(limit) => write!(f, "no end within {} s", limit.as_secs()),
        }
    }
}

/// Runs `command` to its end or for `limit`, handing each piece of output to `sink` as it comes.
///
/// Standard input is closed: no test or demo may wait for a person.
pub fn run(command: &mut Command, limit: Duration, mut sink: impl FnMut(Stream, &[u8])) -> Result<Exit> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let deadline = Instant::now() + limit;
    // Bounded, so that a guest that prints without end waits for us instead of filling our memory.
    let (sender, receiver) = mpsc::sync_channel(64);
    if let Some(pipe) = child.stdout.take() {
        forward(Stream::Out, pipe, sender.clone());
    }
    if let Some(pipe) = child.stderr.take() {
        forward(Stream::Err, pipe, sender);
    }
    let mut killed: Option<Instant> = None;
    loop {
        let end = killed.unwrap_or(deadline);
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((stream, bytes)) => sink(stream, &bytes),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= end {
            if killed.is_some() {
                break;
            }
            child.kill().context("cannot stop a process that ran too long")?;
            killed = Some(Instant::now() + GRACE);
        }
    }
    // A process may close its pipes and go on.
    let status = child.wait_timeout(deadline.saturating_duration_since(Instant::now()))?;
    if status.is_none() {
        child.kill().context("cannot stop a process that ran too long")?;
    }
    let late = killed.is_some() || status.is_none();
    let status = child.wait()?;
    Ok(if late { Exit::TimedOut(limit) } else { status.into() })
}

/// Reads a pipe to its end in a thread of its own.
fn forward(stream: Stream, mut pipe: impl Read + Send + 'static, sender: mpsc::SyncSender<(Stream, Vec<u8>)>) {
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if sender.send((stream, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let mut words = vec![quoted(&command.get_program().to_string_lossy())];
    words.extend(command.get_args().map(|word| quoted(&word.to_string_lossy())));
    words.join(" ")
}

/// Quotes a word when the shell would not take it as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (Exit, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let exit = run(&mut command, limit, |stream, bytes| match stream {
            Stream::Out => out.extend_from_slice(bytes),
            Stream::Err => err.extend_from_slice(bytes),
        })
        .unwrap();
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn status_and_both_streams_come_back() {
        let ended = shell("echo one; echo two >&2; exit 35", Duration::from_secs(60));
        assert_eq!(ended, (Exit::Code(35), "one\n".into(), "two\n".into()));
    }

    #[test]
    fn a_signal_is_not_a_status() {
        assert_eq!(shell("kill -ABRT $$", Duration::from_secs(60)).0, Exit::Signal(6));
    }

    #[test]
    fn what_hangs_is_stopped_and_its_output_kept() {
        let started = Instant::now();
        let limit = Duration::from_millis(300);
        let (exit, out, _) = shell("echo before; exec sleep 60", limit);
        assert_eq!((exit, out.as_str()), (Exit::TimedOut(limit), "before\n"));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn endless_output_does_not_escape_the_limit() {
        let limit = Duration::from_millis(300);
        assert_eq!(shell("exec yes", limit).0, Exit::TimedOut(limit));
    }

    #[test]
    fn closing_the_pipes_does_not_escape_the_limit() {
        let limit = Duration::from_millis(300);
        assert_eq!(shell("exec >&- 2>&-; exec sleep 60", limit).0, Exit::TimedOut(limit));
    }

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("qemu");
        command.args(["-append", "run_addr 1", "-m", "16M"]);
        assert_eq!(shown(&command), "qemu -append 'run_addr 1' -m 16M");
    }
}
