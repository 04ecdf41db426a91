//! One measurement, in this process.

use anyhow::{Context, Result, bail};
use bench_host::areas::{self, Rule};
use bench_host::arena::{self, HostMm};
use bench_host::work::{self, Outcome};
use bench_host::{flat, usage, wall};
use bench_peers::{Frames, FramesVisitor, Heap, HeapVisitor};
use bench_subject::Kernel;
use bench_traces::PageFrag;
use serde_json::{Value, json};
use std::ptr::NonNull;

/// What rtmm is called.
pub const SELF: &str = "rtmm";

/// Runs the measurement these words name.
pub fn measure(words: &[String], steps: u64) -> Result<Value> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["check-heap", SELF, work] => Ok(json!(work::check_heap(work, kernel(work::ARENA)?)?)),
        ["check-heap", peer, work] => heap(peer, HeapTask::Check { work }),
        ["check-pages", SELF, work] => Ok(json!(work::check_frames(work, frames_kernel()?)?)),
        ["check-pages", peer, work] => frames(peer, FramesTask::Check { work }),
        ["heap", SELF, work] => outcome(work::count_heap(work, &mut kernel(work::ARENA)?, steps)?),
        ["heap", peer, work] => heap(peer, HeapTask::Count { work, steps }),
        ["arena", SELF, mib] => {
            let len = number(mib)? << 20;
            Ok(json!(usage::arena_use(kernel(len)?, len)?))
        }
        ["arena", peer, mib] => heap(peer, HeapTask::Use { len: number(mib)? << 20 }),
        ["wall", peer, work] => heap(peer, HeapTask::Wall { work }),
        ["areas", rule, mib] => {
            let rule =
                Rule::ALL.iter().find(|(name, _)| *name == rule).with_context(|| format!("no rule is {rule}"))?;
            let len = number(mib)? << 20;
            Ok(json!(areas::area_use(arena::manager(len)?, rule.1, len)?))
        }
        ["page-use", SELF] => Ok(page_use(usage::page_use(&mut frames_kernel()?))),
        ["page-use", peer] => frames(peer, FramesTask::Use),
        ["flat-pages", log] => Ok(json!(flat::pages(number(log)? as u32, steps)?)),
        ["flat-bytes", log] => Ok(json!(flat::bytes(number(log)? as u32, steps)?)),
        ["flat-objects", live] => Ok(json!(flat::objects(number(live)?, steps)?)),
        ["meta"] => Ok(json!(usage::meta_per_frame(16 << 20)?)),
        _ => bail!("no measurement is called {}", words.join(" ")),
    }
}

/// The heaps and the allocators of pages of this build, rtmm first.
pub fn names() -> (Vec<&'static str>, Vec<&'static str>) {
    struct Names(Vec<&'static str>);
    impl HeapVisitor for Names {
        fn visit<H: Heap>(&mut self, name: &'static str, _: unsafe fn(NonNull<u8>, usize) -> H) {
            self.0.push(name);
        }
    }
    impl FramesVisitor for Names {
        fn visit<F: Frames>(&mut self, name: &'static str, _: fn(usize) -> F) {
            self.0.push(name);
        }
    }
    let (mut heaps, mut frames) = (Names(vec![SELF]), Names(vec![SELF]));
    bench_peers::visit_heaps(&mut heaps);
    bench_peers::visit_frames(&mut frames);
    (heaps.0, frames.0)
}

fn number(text: &str) -> Result<usize> {
    text.parse().with_context(|| format!("{text} is not a number"))
}

type HostKernel = Kernel<'static, bench_host::platform::Process, backend_nommu::Arena>;

fn kernel(len: usize) -> Result<HostKernel> {
    let mm: &'static HostMm = arena::manager(len)?;
    Ok(Kernel(mm))
}

fn frames_kernel() -> Result<HostKernel> {
    Ok(Kernel(arena::manager_of_frames(bench_traces::FRAMES)?))
}

fn outcome(outcome: Outcome) -> Result<Value> {
    Ok(json!({ "figures": outcome.figures, "failures": outcome.failures }))
}

fn page_use(frag: PageFrag) -> Value {
    json!({
        "pages": frag.pages,
        "large_at_half": frag.large_at_half,
        "middle_at_half": frag.middle_at_half,
        "large_after_churn": frag.large_after_churn,
        "large_when_free": frag.large_when_free,
    })
}

/// What is done with one heap.
#[derive(Clone, Copy)]
enum HeapTask<'a> {
    Check { work: &'a str },
    Count { work: &'a str, steps: u64 },
    Use { len: usize },
    Wall { work: &'a str },
}

/// Does it with the heap of this name.
fn heap(name: &str, task: HeapTask<'_>) -> Result<Value> {
    struct Chosen<'a>(&'a str, HeapTask<'a>, Option<Result<Value>>);
    impl HeapVisitor for Chosen<'_> {
        fn visit<H: Heap>(&mut self, name: &'static str, make: unsafe fn(NonNull<u8>, usize) -> H) {
            if name == self.0 {
                self.2 = Some(with_heap(self.1, make));
            }
        }
    }
    let mut chosen = Chosen(name, task, None);
    bench_peers::visit_heaps(&mut chosen);
    chosen.2.with_context(|| format!("no heap is called {name}"))?
}

fn with_heap<H: Heap>(task: HeapTask<'_>, make: unsafe fn(NonNull<u8>, usize) -> H) -> Result<Value> {
    // SAFETY: each arena is reserved for one heap and stays.
    let make = |len| -> Result<H> { Ok(unsafe { make(arena::reserve(len)?, len) }) };
    match task {
        HeapTask::Check { work } => Ok(json!(work::check_heap(work, make(work::ARENA)?)?)),
        HeapTask::Count { work, steps } => outcome(work::count_heap(work, &mut make(work::ARENA)?, steps)?),
        HeapTask::Use { len } => Ok(json!(usage::arena_use(make(len)?, len)?)),
        HeapTask::Wall { work } => Ok(json!(wall::ratio(work, &mut kernel(work::ARENA)?, &mut make(work::ARENA)?)?)),
    }
}

/// What is done with one allocator of pages.
#[derive(Clone, Copy)]
enum FramesTask<'a> {
    Check { work: &'a str },
    Use,
}

/// Does it with the one of this name.
fn frames(name: &str, task: FramesTask<'_>) -> Result<Value> {
    struct Chosen<'a>(&'a str, FramesTask<'a>, Option<Result<Value>>);
    impl FramesVisitor for Chosen<'_> {
        fn visit<F: Frames>(&mut self, name: &'static str, make: fn(usize) -> F) {
            if name == self.0 {
                self.2 = Some(with_frames(self.1, make));
            }
        }
    }
    let mut chosen = Chosen(name, task, None);
    bench_peers::visit_frames(&mut chosen);
    chosen.2.with_context(|| format!("no allocator of pages is called {name}"))?
}

fn with_frames<F: Frames>(task: FramesTask<'_>, make: fn(usize) -> F) -> Result<Value> {
    let mut frames = make(bench_traces::FRAMES);
    match task {
        FramesTask::Check { work } => Ok(json!(work::check_frames(work, frames)?)),
        FramesTask::Use => Ok(page_use(usage::page_use(&mut frames))),
    }
}
