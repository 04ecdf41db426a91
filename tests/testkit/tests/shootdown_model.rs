//! The shootdown protocol under a scheduler that tries many interleavings of its single loads and stores.
//!
//! The model is a machine of three CPUs: page-table entries, frames that are free or not, and for each CPU a TLB that
//! never forgets by itself. What runs on it is the protocol of mm-core itself, word by word. Bugs are seeded, each of
//! which must turn it red. `SHUTTLE_SCHEDULES` says how many interleavings are tried.

use mm_core::VirtRange;
use mm_core::shootdown::{Shootdown, Word};
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::sync::{Arc, Mutex};
use shuttle::{check_pct, check_random, thread};
use std::panic::{AssertUnwindSafe, catch_unwind};

const CPUS: usize = 3;
const PAGES: usize = 4;

/// A word whose every access is a step.
struct Step(AtomicUsize);

impl Word for Step {
    fn new(value: usize) -> Self {
        Step(AtomicUsize::new(value))
    }

    fn load(&self) -> usize {
        self.0.load(SeqCst)
    }

    fn store(&self, value: usize) {
        self.0.store(value, SeqCst);
    }
}

/// A bug that is put in on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seeded {
    None,
    /// Frames are freed when the request is posted.
    FreeBeforeFlush,
    /// Nobody waits for the answers.
    NoAcknowledgement,
    /// A CPU answers, and flushes then.
    AnswerBeforeFlush,
    /// A CPU comes up with what it remembers of before.
    ComesUpUnflushed,
}

struct Machine {
    bug: Seeded,
    shootdown: Shootdown<Step, CPUS, 2>,
    sender: Mutex<()>,
    /// Frame + 1 behind each page, or 0. An access of a word is a step.
    table: [AtomicUsize; PAGES],
    /// Which frames are free. Looked at in the same step as a translation, as a CPU does.
    free: std::sync::Mutex<[bool; PAGES]>,
    tlbs: std::sync::Mutex<[[Option<usize>; PAGES]; CPUS]>,
    done: AtomicUsize,
}

impl Machine {
    fn new(bug: Seeded) -> Self {
        Machine {
            bug,
            shootdown: Shootdown::new(),
            sender: Mutex::new(()),
            table: std::array::from_fn(|page| AtomicUsize::new(page + 1)),
            free: std::sync::Mutex::new([false; PAGES]),
            tlbs: std::sync::Mutex::new([[None; PAGES]; CPUS]),
            done: AtomicUsize::new(0),
        }
    }

    /// A load by `cpu`: by its TLB, or by the tables and into the TLB.
    fn access(&self, cpu: usize, page: usize) {
        let cached = self.tlbs.lock().unwrap()[cpu][page];
        let frame = match cached {
            Some(frame) => Some(frame),
            None => self.table[page].load(SeqCst).checked_sub(1),
        };
        // No step from here on: the entry that was found is used at once.
        let Some(frame) = frame else { return };
        self.tlbs.lock().unwrap()[cpu][page] = Some(frame);
        assert!(!self.free.lock().unwrap()[frame], "CPU {cpu} reached a free frame by page {page}");
    }

    fn drop_range(&self, cpu: usize, range: Option<VirtRange>) {
        let range = range.unwrap_or(VirtRange { start: 0, end: PAGES });
        let mut tlbs = self.tlbs.lock().unwrap();
        (range.start..range.end).for_each(|page| tlbs[cpu][page] = None);
    }

    fn poll(&self, cpu: usize) {
        if self.bug == Seeded::AnswerBeforeFlush {
            let mut ranges = Vec::new();
            self.shootdown.poll(cpu, |range| ranges.push(range));
            // What a CPU does ahead of its program.
            (0..PAGES).for_each(|page| self.access(cpu, page));
            ranges.into_iter().for_each(|range| self.drop_range(cpu, range));
        } else {
            self.shootdown.poll(cpu, |range| self.drop_range(cpu, range));
        }
    }

    fn come_up(&self, cpu: usize) {
        let bug = self.bug;
        self.shootdown.bring_up(cpu, || {
            if bug != Seeded::ComesUpUnflushed {
                self.drop_range(cpu, None);
            }
        });
    }

    /// Unmaps a page, flushes it everywhere, and frees its frame.
    fn free_page(&self, cpu: usize, page: usize) {
        self.access(cpu, page);
        let frame = self.table[page].swap(0, SeqCst) - 1;
        let sender = self.sender.lock().unwrap();
        let number = self.shootdown.post(VirtRange { start: page, end: page + 1 });
        drop(sender);
        if self.bug == Seeded::FreeBeforeFlush {
            self.free.lock().unwrap()[frame] = true;
        }
        while self.bug != Seeded::NoAcknowledgement && (0..CPUS).any(|cpu| !self.shootdown.has_done(cpu, number)) {
            self.poll(cpu);
            thread::yield_now();
        }
        self.poll(cpu);
        self.free.lock().unwrap()[frame] = true;
    }
}

/// Two CPUs free pages, and the third uses them; it is up from the beginning, or comes up meanwhile, for the second
/// time.
fn run(bug: Seeded, comes_up: bool) {
    let machine = Arc::new(Machine::new(bug));
    (0..CPUS).for_each(|cpu| machine.come_up(cpu));
    if comes_up {
        (0..PAGES).for_each(|page| machine.access(2, page));
        machine.shootdown.take_down(2);
    }
    let freers = (0..2).map(|cpu| {
        let machine = machine.clone();
        thread::spawn(move || {
            for page in [cpu, cpu + 2] {
                machine.free_page(cpu, page);
            }
            machine.done.fetch_add(1, SeqCst);
            while machine.done.load(SeqCst) < 2 {
                machine.poll(cpu);
                thread::yield_now();
            }
        })
    });
    let threads: Vec<_> = freers.collect();
    if comes_up {
        machine.come_up(2);
    }
    while machine.done.load(SeqCst) < 2 {
        for page in (0..PAGES).chain(0..PAGES) {
            machine.access(2, page);
            thread::yield_now();
        }
        machine.poll(2);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    machine.poll(2);
    assert_eq!(*machine.free.lock().unwrap(), [true; PAGES], "a page was lost");
    (0..PAGES).for_each(|page| machine.access(2, page));
}

fn schedules() -> usize {
    std::env::var("SHUTTLE_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

fn is_caught(bug: Seeded, comes_up: bool) -> bool {
    catch_unwind(AssertUnwindSafe(|| check_random(move || run(bug, comes_up), schedules()))).is_err()
}

#[test]
fn no_cpu_reaches_a_frame_that_was_freed() {
    check_random(|| run(Seeded::None, false), schedules());
}

#[test]
fn a_cpu_that_comes_up_remembers_nothing() {
    check_random(|| run(Seeded::None, true), schedules());
}

#[test]
fn few_changes_of_priority_change_nothing() {
    for comes_up in [false, true] {
        check_pct(move || run(Seeded::None, comes_up), schedules() / 4, 3);
    }
}

#[test]
fn freeing_before_the_flush_is_caught() {
    assert!(is_caught(Seeded::FreeBeforeFlush, false));
}

#[test]
fn freeing_without_an_acknowledgement_is_caught() {
    assert!(is_caught(Seeded::NoAcknowledgement, false));
}

#[test]
fn answering_before_the_flush_is_caught() {
    assert!(is_caught(Seeded::AnswerBeforeFlush, false));
}

#[test]
fn coming_up_without_a_flush_is_caught() {
    assert!(is_caught(Seeded::ComesUpUnflushed, true));
}
