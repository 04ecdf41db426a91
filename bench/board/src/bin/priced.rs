//! What a debugging feature costs: the pair of kmalloc and that of a page, in a program built with one of them.
#![no_std]
#![no_main]

use bench_board::board::{self, ExitCode, MM, say};
use bench_board::{Counter, Row, kept};
use bench_subject::{HeapCalls, Kernel, PageCalls, Pairs};
use bench_traces::{self as traces, Bytes, Order};

board::entry!(main);

/// Pairs of a row.
const COUNT: usize = 20_000;

/// What the rows are called.
const IDS: [&str; 2] = if cfg!(feature = "debug-pagealloc") {
    ["kmalloc_64_debug_pagealloc", "page_0_debug_pagealloc"]
} else if cfg!(feature = "page-poison") {
    ["kmalloc_64_page_poison", "page_0_page_poison"]
} else if cfg!(feature = "kmalloc-debug") {
    ["kmalloc_64_kmalloc_debug", "page_0_kmalloc_debug"]
} else if cfg!(feature = "page-owner") {
    ["kmalloc_64_page_owner", "page_0_page_owner"]
} else if cfg!(feature = "init-on-alloc") {
    ["kmalloc_64_init_on_alloc", "page_0_init_on_alloc"]
} else if cfg!(feature = "trace-hooks") {
    ["kmalloc_64_trace_hooks", "page_0_trace_hooks"]
} else if cfg!(feature = "fault-injection") {
    ["kmalloc_64_fault_injection", "page_0_fault_injection"]
} else {
    ["kmalloc_64_plain", "page_0_plain"]
};

fn main() {
    let measured = Counter::new().zip(kept::<Pairs>()).and_then(|(counter, pairs)| rows(counter, pairs));
    if measured.is_none() {
        say!("FAILED: no counter, or an allocation was refused");
        board::exit(ExitCode::Fail);
    }
    board::exit(ExitCode::Pass);
}

fn rows(counter: Counter, pairs: &mut Pairs) -> Option<()> {
    let mut heap = Kernel(&MM);
    // One stays, so that the slab does.
    let kept = MM.kmalloc(64, rtmm::GFP_KERNEL).ok()?;
    pairs.clear();
    let mut calls = HeapCalls { heap: &mut heap, meter: counter, sink: &mut *pairs };
    print(IDS[0], traces::pairs(&mut calls, COUNT, Bytes::of(64)), pairs)?;
    MM.kfree(kept.as_ptr()).ok()?;
    let mut frames = Kernel(&MM);
    pairs.clear();
    let mut calls = PageCalls { frames: &mut frames, meter: counter, sink: &mut *pairs };
    print(IDS[1], traces::pairs(&mut calls, COUNT, Order(0)), pairs)
}

fn print(id: &str, failures: usize, pairs: &Pairs) -> Option<()> {
    // The mean: a page is looked at in more instructions than the histogram has room for.
    let unit = "instructions per pair, mean";
    Row { id, unit, tenths: pairs.pair.mean_tenths(), worst: Some(pairs.worst()), peer: None }.print();
    (failures == 0).then_some(())
}
