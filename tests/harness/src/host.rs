//! The host's share of the protocol: `list`, `run NAME`, or every test in a process of its own.

use crate::{TestOutcome, children};
use std::ffi::{c_char, c_int};
use std::process;

/// The names the macros expect under `hosting`.
pub mod hosting {
    pub use linkme;
    pub use linkme::distributed_slice;

    /// One test of the suite, as the macros describe it.
    #[derive(Debug, serde::Serialize)]
    pub struct Test {
        /// Path of the function, with the crate's name in front.
        #[serde(serialize_with = "without_crate")]
        pub name: &'static str,
        /// Runs the test and ends the process.
        #[serde(skip)]
        pub function: fn() -> !,
        /// The test passes when it panics.
        pub should_panic: bool,
        /// The test is run only when asked for.
        pub ignored: bool,
        /// Limit in seconds.
        pub timeout: Option<u32>,
    }

    impl Test {
        /// The name as runners say it: without the crate.
        pub fn path(&self) -> &'static str {
            self.name.split_once("::").map_or(self.name, |(_, path)| path)
        }
    }

    fn without_crate<S: serde::Serializer>(name: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name.split_once("::").map_or(name, |(_, path)| path))
    }

    /// Every test of the suite.
    #[distributed_slice]
    pub static TESTS: [Test];

    /// The suite's setup function, if it has one.
    #[distributed_slice]
    pub static SETUP: [fn()];
}

/// Ends the process with the result of a test.
pub fn check_outcome<T: TestOutcome>(outcome: T) -> ! {
    if outcome.is_success() {
        process::exit(0)
    }
    process::abort()
}

/// What `list` prints; the layout of `embedded-test`.
#[derive(serde::Serialize)]
struct List {
    version: u32,
    tests: &'static [hosting::Test],
}

fn list() {
    let list = List { version: 0, tests: &hosting::TESTS };
    println!("{}", serde_json::to_string(&list).expect("names and numbers always serialise"));
}

fn run(name: &str) -> ! {
    for setup in hosting::SETUP.iter() {
        setup();
    }
    match hosting::TESTS.iter().find(|test| test.path() == name) {
        Some(test) => (test.function)(),
        None => panic!("no test is called `{name}`"),
    }
}

// In this crate's own tests, `main` is libtest's.
#[cfg_attr(not(test), unsafe(export_name = "main"))]
#[cfg_attr(test, expect(dead_code))]
extern "C" fn entry(_argc: c_int, _argv: *const *const c_char) -> c_int {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => list(),
        ["run", name] => run(name),
        _ => children::run_all(&hosting::TESTS),
    }
    0
}
