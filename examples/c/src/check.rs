//! What `capi/tests/check.h` asks of the program.

use crate::board::{self, Backend, MM};
use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int};
use rtmm::{Backend as _, Context, Platform};
use rtmm_capi::config::{RTMM_CONTEXT_ATOMIC, RTMM_CONTEXT_BOOT, RTMM_CONTEXT_TASK};
use rtmm_capi::rtmm_bug;

/// What the tests of `rtmm_init` need: memory of the board's manager, and a log of reports that is not the board's.
#[derive(Clone, Copy)]
struct Lent {
    start: u64,
    length: usize,
    window: (usize, usize),
    /// How many reports, and the last one's kind and reason.
    log: (usize, u32, u32),
}

/// The one of this program; `None` where the tests run on the board's manager.
struct Slot(Cell<Option<Lent>>);

// SAFETY: programs of this package have one task, and their interrupts change nothing here.
unsafe impl Sync for Slot {}

static LENT: Slot = Slot(Cell::new(None));

/// The largest order of the block that is lent: 4 MiB with pages of 4 KiB.
const LARGEST_ORDER: usize = 10;
/// With page tables, addresses for vmalloc in a slot of the root table that the board leaves alone.
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
const WINDOW: (usize, usize) = (0xffff_d000_0000_0000, 0xffff_d000_0000_0000 + (1 << 30));
#[cfg(not(all(target_os = "none", target_arch = "x86_64")))]
const WINDOW: (usize, usize) = (0, 0);

/// Takes memory from the board's manager for one that C sets up, whose reports the tests look at from here on. Returns
/// where it is, and its physical address.
///
/// # Panics
/// When the board has too little.
pub fn lend_memory() -> (*mut u8, u64) {
    let order = Backend::MAX_ORDER.min(LARGEST_ORDER);
    let block = MM.get_free_pages(rtmm::GFP_KERNEL, order).expect("the board has a block of that order").as_ptr();
    let frame = MM.pfn_of(block).expect("it is RAM");
    let start = frame.phys(Backend::PAGE_SHIFT).0;
    LENT.0.set(Some(Lent { start, length: Backend::PAGE_SIZE << order, window: WINDOW, log: (0, 0, 0) }));
    (block, start)
}

/// Notes a report of the manager that C set up.
///
/// # Safety
/// `bug` is a report.
#[unsafe(no_mangle)]
unsafe extern "C" fn check_note(bug: *const rtmm_bug) {
    // SAFETY: by the caller.
    let bug = unsafe { &*bug };
    LENT.0.set(LENT.0.get().map(|lent| Lent { log: (lent.log.0 + 1, bug.kind, bug.reason), ..lent }));
}

#[unsafe(no_mangle)]
extern "C" fn check_ram_start() -> u64 {
    LENT.0.get().map_or(0, |lent| lent.start)
}

#[unsafe(no_mangle)]
extern "C" fn check_ram_length() -> usize {
    LENT.0.get().map_or(0, |lent| lent.length)
}

#[unsafe(no_mangle)]
extern "C" fn check_window_start() -> usize {
    LENT.0.get().map_or(0, |lent| lent.window.0)
}

#[unsafe(no_mangle)]
extern "C" fn check_window_end() -> usize {
    LENT.0.get().map_or(0, |lent| lent.window.1)
}

#[unsafe(no_mangle)]
extern "C" fn check_context() -> u32 {
    match MM.platform().context() {
        Context::Boot => RTMM_CONTEXT_BOOT,
        Context::Task => RTMM_CONTEXT_TASK,
        Context::Atomic => RTMM_CONTEXT_ATOMIC,
    }
}

fn log() -> (usize, u32, u32) {
    if let Some(lent) = LENT.0.get() {
        return lent.log;
    }
    let last = board::last_bug().map(|bug| rtmm_bug::from(&bug));
    (board::bugs(), last.map_or(0, |bug| bug.kind), last.map_or(0, |bug| bug.reason))
}

/// A check in C failed.
///
/// # Safety
/// Both are strings ended by a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn check_failed(file: *const c_char, line: c_int, text: *const c_char) -> ! {
    // SAFETY: by the caller.
    let [file, text] = [file, text].map(|text| unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("?"));
    let (bugs, kind, reason) = log();
    board::say!("{file}:{line}: not so: {text} (report {bugs}: {kind}, {reason})");
    board::exit(board::ExitCode::Fail)
}

#[unsafe(no_mangle)]
extern "C" fn check_bugs() -> usize {
    log().0
}

#[unsafe(no_mangle)]
extern "C" fn check_bug_kind() -> u32 {
    log().1
}

#[unsafe(no_mangle)]
extern "C" fn check_bug_reason() -> u32 {
    log().2
}

#[unsafe(no_mangle)]
extern "C" fn check_mmio_start() -> u64 {
    board::mmio().0.0
}

#[unsafe(no_mangle)]
extern "C" fn check_mmio_length() -> usize {
    board::mmio().1
}

/// What the interrupt is to run.
struct Job(Cell<Option<extern "C" fn()>>);

// SAFETY: set before the interrupt is raised and read in it.
unsafe impl Sync for Job {}

static JOB: Job = Job(Cell::new(None));

#[unsafe(no_mangle)]
extern "C" fn check_in_interrupt(function: extern "C" fn()) {
    JOB.0.set(Some(function));
    board::in_interrupt(|| {
        if let Some(function) = JOB.0.get() {
            function();
        }
    });
}
