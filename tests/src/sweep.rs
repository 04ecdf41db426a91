//! An interrupt at every instruction of a path.
//!
//! The timer fires after 1, 2, 3... instructions, each time during a fresh run of the same path, until it fires only
//! after the path's end. What happened is kept in statics: the handler has no other way to say it.

use crate::PAGE;
use crate::board::{self, MM, timer};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::Relaxed, compiler_fence};
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use rtmm::GFP_ATOMIC;

/// Distinct addresses that are remembered; a path has some hundred instructions. Small boards have little room.
const ADDRESSES: usize = if PAGE < 4096 { 512 } else { 4096 };
/// What the handler's object holds.
const PATTERN: u8 = 0x5a;
/// Bytes of the handler's object: the class that most paths use too.
const SIZE: usize = 64;
/// Instructions of slack in a comparison of counts: each reading is rounded, and the empty path has instructions too.
const SLACK: usize = 3;
/// So many steps pass between two full checks of the manager, which cost far more than a step.
const CHECK_EVERY: u32 = 16;
/// So many steps whose interrupt came after the end prove that the sweep is over. In the last of them it comes after
/// the counting too.
const PAST_THE_END: u32 = 64;
/// Fewer addresses than any path has outside of its masked sections.
const FEWEST: usize = 8;
/// Of how many interrupts in how many each is at an address of its own, at least: the rest is in loops, with several CPUs
/// those over whom is asked and waited for too (a vfree with four: 316 addresses for 641 interrupts).
const LOOPS: (usize, usize) = if cfg!(feature = "smp") { (2, 5) } else { (1, 2) };
/// More instructions than any path has.
const MOST: u32 = 100_000;

/// The path is running.
static INSIDE: AtomicBool = AtomicBool::new(false);
/// Interrupts in this step, and those of them inside the path.
static FIRED: AtomicUsize = AtomicUsize::new(0);
static HIT: AtomicUsize = AtomicUsize::new(0);
/// The counter's low bits when the timer was started, and when the handler began.
static STARTED: AtomicU32 = AtomicU32::new(0);
static BEGAN: AtomicU32 = AtomicU32::new(0);
/// What the last run took; 0 when the interrupt came during it.
static LENGTH: AtomicU32 = AtomicU32::new(0);
/// Where the last interrupt inside was taken.
static PLACE: AtomicUsize = AtomicUsize::new(0);
/// The object the handler took last and has not given back.
static KEPT: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    /// Interrupts that fell into the path.
    pub inside: usize,
    /// Those that were taken late, because interrupts were masked when they came.
    pub masked: usize,
    /// Distinct addresses of interrupted instructions.
    pub addresses: usize,
    /// The longest that an interrupt had to wait, in instructions.
    pub longest_wait: usize,
    /// Instructions of the path when nothing interrupts it.
    pub length: usize,
}

/// Starts the timer whose handler allocates and frees. Called before anything is counted: on some boards it maps the
/// timer's registers.
pub fn start() {
    timer::start(interrupt);
}

fn now() -> u32 {
    board::instructions() as u32
}

/// The interrupt: takes and gives back an object and a page, and keeps one object until the next time, so that the
/// path finds its cache and its free lists changed.
fn interrupt(pc: usize) {
    BEGAN.store(now(), Relaxed);
    FIRED.fetch_add(1, Relaxed);
    if INSIDE.load(Relaxed) {
        HIT.fetch_add(1, Relaxed);
        PLACE.store(pc, Relaxed);
    }
    let page = MM.get_free_pages(GFP_ATOMIC, 0).expect("a page for the handler");
    let object = MM.kmalloc(SIZE, GFP_ATOMIC).expect("an object for the handler");
    // SAFETY: the object is the handler's, and this long.
    unsafe { object.write_bytes(PATTERN, SIZE) };
    give_back(KEPT.swap(object.as_ptr(), Relaxed));
    MM.free_pages(page.as_ptr(), 0).expect("the handler's page");
}

fn give_back(object: *mut u8) {
    if !object.is_null() {
        // SAFETY: the handler wrote the object, which is live until the next line.
        let intact = (0..SIZE).all(|i| unsafe { object.add(i).read() } == PATTERN);
        assert!(intact, "the handler's object at {object:p} was overwritten");
        MM.kfree(object).expect("the handler's object");
    }
}

/// Frees what the handler kept.
pub fn settle() {
    give_back(KEPT.swap(ptr::null_mut(), Relaxed));
}

/// Runs `path` once, with the flag that tells the handler so, and counts it.
#[inline(never)]
fn run<S, R>(path: &mut impl FnMut(S) -> R, state: S) -> R {
    let start = now();
    INSIDE.store(true, Relaxed);
    compiler_fence(SeqCst);
    let result = path(state);
    // Where unmasking takes effect an instruction late, an interrupt that waited for it still falls inside.
    // SAFETY: the instructions do nothing.
    unsafe { core::arch::asm!("nop", "nop") };
    INSIDE.store(false, Relaxed);
    let length = now().wrapping_sub(start);
    LENGTH.store(if FIRED.load(Relaxed) == 0 { length } else { 0 }, Relaxed);
    result
}

/// Runs `path` with an interrupt after its first instruction, its second, and so on to its end.
///
/// `prepare` makes what the path works on, `finish` checks and undoes what it did.
///
/// # Panics
/// When an interrupt does not come exactly once in a step, when the manager's check finds damage, when an instruction
/// was left out, or when too few distinct addresses were interrupted: fewer than half as many as interrupts that did not
/// have to wait, or with several CPUs two fifths, which only loops excuse.
pub fn sweep<S, R>(
    what: &str,
    mut prepare: impl FnMut() -> S,
    mut path: impl FnMut(S) -> R,
    mut finish: impl FnMut(R),
) -> Coverage {
    let mut addresses: heapless::Vec<usize, ADDRESSES> = heapless::Vec::new();
    let mut found = Coverage::default();
    FIRED.store(0, Relaxed);
    run(&mut |()| (), ());
    let nothing = LENGTH.load(Relaxed);
    let (mut past, mut usual) = (0, i64::MAX);
    let mut waits = Waits::default();
    for after in 1..MOST {
        let state = prepare();
        FIRED.store(0, Relaxed);
        HIT.store(0, Relaxed);
        timer::fire_after(after);
        STARTED.store(now(), Relaxed);
        let result = run(&mut path, state);
        while FIRED.load(Relaxed) == 0 {
            core::hint::spin_loop();
        }
        assert_eq!(FIRED.load(Relaxed), 1, "{what}: interrupts in the step of {after}");
        if HIT.load(Relaxed) == 1 {
            let took = i64::from(BEGAN.load(Relaxed).wrapping_sub(STARTED.load(Relaxed)) as i32) - i64::from(after);
            usual = usual.min(took);
            waits.note(took - usual);
            found.inside += 1;
            let place = PLACE.load(Relaxed);
            if let Err(at) = addresses.binary_search(&place) {
                addresses.insert(at, place).expect("room for every address");
            }
            past = 0;
        } else if found.inside > 0 {
            past += 1;
            // Nothing came between: this is how long the path is, in the state that the handler leaves behind.
            found.length = found.length.max(LENGTH.load(Relaxed).saturating_sub(nothing) as usize);
        }
        finish(result);
        if after % CHECK_EVERY == 0 {
            MM.check().unwrap_or_else(|damage| panic!("{what}: damage after the step of {after}: {damage}"));
        }
        if past == PAST_THE_END {
            break;
        }
    }
    settle();
    MM.check().unwrap_or_else(|damage| panic!("{what}: damage after the last step: {damage}"));
    (found.masked, found.longest_wait, found.addresses) = (waits.masked, waits.longest, addresses.len());
    board::say!(
        "SWEEP {}: {} instructions; {} interrupts inside, at {} distinct addresses, {} of them after a masked section, longest wait {}",
        what,
        found.length,
        found.inside,
        found.addresses,
        found.masked,
        found.longest_wait
    );
    assert_eq!(past, PAST_THE_END, "{what}: the sweep came to no end");
    assert!(found.inside + SLACK >= found.length, "{what}: instructions were left out: {found:?}");
    let at_once = found.inside - found.masked;
    assert!(
        found.addresses >= FEWEST && found.addresses * LOOPS.1 >= at_once * LOOPS.0,
        "{what}: too few addresses: {found:?}"
    );
    found
}

/// How late interrupts were, beyond what each takes.
#[derive(Default)]
struct Waits {
    masked: usize,
    longest: usize,
}

impl Waits {
    fn note(&mut self, late: i64) {
        // A tick that is rounded, and a store that cannot be interrupted on some processors.
        if late > 3 {
            self.masked += 1;
        }
        self.longest = self.longest.max(late as usize);
    }
}
