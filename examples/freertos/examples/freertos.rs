//! FreeRTOS, written in C, with its heap on rtmm, which it sets up itself by `rtmm_init`.
//!
//! The kernel is FreeRTOS's own source, from the crate `freertos-next`; `app/` has what joins it to the manager and
//! the application. This file is the board: memory, a console, a timer.
#![no_std]
#![no_main]

use core::cell::Cell;
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use critical_section::Mutex;
use rtmm::backend::NoMmu;
use rtmm::{Backend as _, GFP_KERNEL, Holdings, Mm};
use rtmm_capi::platform::CallbackPlatform;
use rtmm_examples_freertos::board::{self, ExitCode, say, timer};

/// The board's, without its regions: those are the board's own manager's.
type Backend =
    NoMmu<{ <board::Backend as rtmm::Backend>::PAGE_SHIFT }, { <board::Backend as rtmm::Backend>::MAX_ORDER }>;

/// FreeRTOS's memory manager.
static MM: Mm<CallbackPlatform, Backend> = Mm::new(CallbackPlatform, Backend::new());

rtmm_capi::export_c!(&MM);
rtmm_capi::export_setup!(&MM);

unsafe extern "C" {
    fn demo_main(ram_start: u64, ram_length: u64) -> !;
    safe fn demo_interrupt();
}

/// Instructions from one interrupt to the next; 0 when there is to be none.
static PERIOD: AtomicU32 = AtomicU32::new(0);
/// What callers held when the account was opened.
static ACCOUNT: Mutex<Cell<Option<Holdings>>> = Mutex::new(Cell::new(None));

board::entry!(main);

fn main() {
    let order = Backend::MAX_ORDER;
    let block = board::MM.get_free_pages(GFP_KERNEL, order).expect("the board has a block of that order");
    let start = board::MM.pfn_of(block.as_ptr()).expect("it is RAM").phys(Backend::PAGE_SHIFT).0;
    let length = (Backend::PAGE_SIZE << order) as u64;
    say!("FreeRTOS on {}: a heap of {} KiB", board::NAME, length >> 10);
    // SAFETY: the block is RAM that nothing else uses, at its physical address, and never given back.
    unsafe { demo_main(start, length) }
}

fn text<'a>(text: *const c_char) -> &'a str {
    // SAFETY: C gives strings that are constants, or stay for the call.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("a line that is not text")
}

#[unsafe(no_mangle)]
extern "C" fn demo_say(line: *const c_char) {
    say!("{}", text(line));
}

#[unsafe(no_mangle)]
extern "C" fn demo_tell(what: *const c_char, number: usize) {
    say!("{} {}", text(what), number);
}

#[unsafe(no_mangle)]
extern "C" fn demo_every(instructions: u32) {
    PERIOD.store(instructions, Relaxed);
    if instructions == 0 {
        return timer::cancel();
    }
    timer::start(|_| {
        demo_interrupt();
        match PERIOD.load(Relaxed) {
            0 => {}
            period => timer::fire_after(period),
        }
    });
    timer::fire_after(instructions);
}

#[unsafe(no_mangle)]
extern "C" fn demo_open_account() {
    let held = MM.holdings().ok();
    critical_section::with(|section| ACCOUNT.borrow(section).set(held));
}

#[unsafe(no_mangle)]
extern "C" fn demo_account_is_even() -> bool {
    let before = critical_section::with(|section| ACCOUNT.borrow(section).get());
    let (Some(before), Ok(now)) = (before, MM.holdings()) else { return false };
    say!("{} pages free and {} objects live before, {} and {} now", before.free, before.objects, now.free, now.objects);
    before == now
}

#[unsafe(no_mangle)]
extern "C" fn demo_exit(good: bool) -> ! {
    board::exit(if good { ExitCode::Pass } else { ExitCode::Fail })
}
