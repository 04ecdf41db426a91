//! Every measurement in turn, and the lines that tell of them.

use crate::one::{self, SELF};
use crate::rows;
use anyhow::{Context, Result, bail, ensure};
use bench_host::areas::Rule;
use bench_host::flat;
use bench_host::platform::LOCK;
use bench_host::work::{HEAP_WORK, PAGE_WORK};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A measurement that takes longer than this is given up: some peers walk all of a large arena at each call.
const LIMIT: Duration = Duration::from_secs(40);
/// Arenas of W5 and W6, in MiB.
const ARENAS: [usize; 2] = [16, 64];

/// Runs what measures, prints what it says.
struct Runner<'a> {
    steps: u64,
    only: Option<&'a str>,
    done: usize,
    told: Vec<Value>,
    /// What failed of rtmm's own.
    wrong: Vec<String>,
}

/// Runs every measurement.
pub fn all(steps: u64, only: Option<&str>) -> Result<()> {
    let mut runner = Runner { steps, only, done: 0, told: Vec::new(), wrong: Vec::new() };
    let (heaps, frames) = one::names();
    data(json!({ "kind": "about", "lock": LOCK, "steps": steps, "workloads": bench_traces::VERSION }));
    for absent in bench_peers::COMPILED.iter().filter(|peer| !heaps.contains(peer)) {
        data(json!({ "kind": "absent", "peer": absent, "why": "not built here: it needs a C++ compiler" }));
    }
    for work in HEAP_WORK {
        for peer in &heaps {
            runner.run("check", &["check-heap", peer, work], json!({ "peer": peer, "work": work }));
        }
        // The others are counted on a board, where all of a workload can be; so is what cannot be cut short.
        for peer in heaps.iter().filter(|peer| is_process(peer)) {
            if work != "WC" {
                runner.run("heap", &["heap", peer, work], json!({ "peer": peer, "work": work, "board": "host" }));
            }
        }
    }
    for work in PAGE_WORK {
        for peer in &frames {
            runner.run("check", &["check-pages", peer, work], json!({ "peer": peer, "work": work }));
        }
    }
    for mib in ARENAS {
        for peer in heaps.iter().filter(|peer| !is_process(peer)) {
            // What was too slow for the smaller arena is so for the larger.
            if runner
                .told
                .iter()
                .any(|told| told["kind"] == "arena" && told["peer"] == *peer && !told["error"].is_null())
            {
                continue;
            }
            let words = ["arena", peer, &mib.to_string()];
            runner.run("arena", &words, json!({ "peer": peer, "mib": mib }));
        }
    }
    for mib in ARENAS {
        for (name, _) in Rule::ALL {
            runner.run("areas", &["areas", name, &mib.to_string()], json!({ "rule": name, "mib": mib }));
        }
    }
    for peer in &frames {
        runner.run("page-use", &["page-use", peer], json!({ "peer": peer }));
    }
    for log in flat::MEMORY.step_by(2) {
        let words = log.to_string();
        runner.run("flat-pages", &["flat-pages", &words], json!({ "log": log }));
        runner.run("flat-bytes", &["flat-bytes", &words], json!({ "log": log }));
    }
    for log in flat::OBJECTS {
        let live = 10usize.pow(log);
        runner.run("flat-objects", &["flat-objects", &live.to_string()], json!({ "live": live }));
    }
    runner.run("meta", &["meta"], json!({}));
    for work in ["W1", "W3"] {
        for peer in heaps.iter().filter(|peer| **peer != SELF) {
            runner.run("wall", &["wall", peer, work], json!({ "peer": peer, "work": work }));
        }
    }
    if runner.done == 0 {
        bail!("no measurement has such a name");
    }
    rows::print(&runner.told);
    ensure!(runner.wrong.is_empty(), "rtmm failed: {}", runner.wrong.join(", "));
    Ok(())
}

/// Those of server processes have no arena.
fn is_process(peer: &str) -> bool {
    bench_peers::COMPILED.contains(&peer)
}

impl Runner<'_> {
    /// Runs one measurement in a process of its own. One that fails is told of, and the rest goes on.
    fn run(&mut self, kind: &str, words: &[&str], about: Value) {
        let name = words.join(" ");
        if self.only.is_some_and(|only| !name.contains(only)) {
            return;
        }
        self.done += 1;
        let started = Instant::now();
        let mut told = about;
        told["kind"] = kind.into();
        match self.child(words) {
            Ok(result) => told["result"] = result,
            Err(error) => told["error"] = format!("{error:#}").into(),
        }
        let end = if told["error"].is_null() { "" } else { " FAILED" };
        eprintln!("    {name}: {:.1} s{end}", started.elapsed().as_secs_f64());
        // A peer that fails is a fact about it; rtmm must not.
        if !told["error"].is_null() && (told["peer"] == SELF || told["peer"].is_null()) {
            self.wrong.push(name);
        }
        println!("DATA {told}");
        self.told.push(told);
    }

    fn child(&self, words: &[&str]) -> Result<Value> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--steps", &self.steps.to_string(), "--"]).args(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn()?;
        let started = Instant::now();
        while child.try_wait()?.is_none() {
            if started.elapsed() > LIMIT {
                child.kill()?;
                child.wait()?;
                bail!("no end after {} s", LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no word").trim();
            bail!("{}: {}", output.status, first.trim_start_matches("Error: "));
        }
        serde_json::from_slice(&output.stdout).context("an answer that is not understood")
    }
}

fn data(value: Value) {
    println!("DATA {value}");
}
