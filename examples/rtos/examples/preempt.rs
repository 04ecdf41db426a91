//! A preemptive scheduler on x86-64 whose tasks sleep for memory, by `Platform::wait` and `Platform::wake`.
//!
//! The manager is one of the program's own, on page tables, and its platform is the scheduler. Tasks run on stacks of
//! vmalloc, behind guard pages. They ask for memory while there is none: the timer's interrupt, which also takes the
//! CPU from them, frees a page now and then.
#![no_std]
#![no_main]

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use critical_section::Mutex;
use rtmm::backend::{Hw, X86};
use rtmm::{
    Backend as _, BootMap, Bug, Config, Context, CriticalSectionLock, GFP_KERNEL, GFP_NOWAIT, Gfp, Mm, Platform,
    VirtRange, VmArea, ZoneKind, ZoneSpec,
};
use rtmm_examples_rtos::board::{self, say};
use rtmm_examples_rtos::{finish, scheduler};

type Backend = X86<Hw>;

/// The scheduler as the manager sees it.
struct Tasks;

impl Platform for Tasks {
    type Lock = CriticalSectionLock;
    const CAN_WAIT: bool = true;

    fn context(&self) -> Context {
        board::MM.platform().context()
    }

    fn bug(&self, bug: &Bug) {
        board::MM.platform().bug(bug);
    }

    fn now(&self) -> Duration {
        scheduler::now()
    }

    fn current(&self) -> usize {
        scheduler::current()
    }

    fn wait(&self, until: Duration) {
        scheduler::sleep(until);
    }

    fn wake(&self, task: usize) {
        scheduler::wake(task);
    }
}

/// The tasks' memory manager.
static MM: Mm<Tasks, Backend> = Mm::new(Tasks, X86::new(Hw));

/// Addresses for its areas, in a slot of the root table that the board leaves alone.
const WINDOW: VirtRange = VirtRange { start: 0xffff_d000_0000_0000, end: 0xffff_d000_0000_0000 + (1 << 30) };
/// log2 of the pages it manages.
const ORDER: usize = 10;
/// Bytes of a task's stack.
const STACK: usize = 16 << 10;
/// Tasks that want memory.
const EATERS: usize = 3;
/// What each asks for in its life, three times over.
const ROUNDS: usize = 60;
/// Interrupts of the timer for each page that they free.
const TICKS_PER_PAGE: usize = 2;
/// How long a task waits for what never comes.
const PATIENCE: Duration = Duration::from_millis(3);

/// Pages that nobody uses, each of which begins with the address of the next.
struct Hoard(Mutex<Cell<*mut u8>>);

// SAFETY: whoever has a page of the hoard owns it, and the critical section guards the list.
unsafe impl Sync for Hoard {}

static HOARD: Hoard = Hoard(Mutex::new(Cell::new(ptr::null_mut())));

static EATING: AtomicUsize = AtomicUsize::new(EATERS);
static SERVED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);
static FREED_BY_INTERRUPT: AtomicUsize = AtomicUsize::new(0);
static COMPUTED: AtomicUsize = AtomicUsize::new(0);
/// The interrupt frees pages.
static IS_SHORT: AtomicUsize = AtomicUsize::new(0);

board::entry!(main);

impl Hoard {
    fn put(&self, page: *mut u8) {
        critical_section::with(|section| {
            let top = self.0.borrow(section);
            // SAFETY: a page of the caller's.
            unsafe { page.cast::<*mut u8>().write(top.get()) };
            top.set(page);
        });
    }

    fn take(&self) -> Option<*mut u8> {
        critical_section::with(|section| {
            let top = self.0.borrow(section);
            let page = Some(top.get()).filter(|page| !page.is_null())?;
            // SAFETY: a page of the hoard, which begins with the address of the next.
            top.set(unsafe { page.cast::<*mut u8>().read() });
            Some(page)
        })
    }
}

/// Brings the tasks' manager up on memory of the board's.
fn bring_up() -> Result<(), &'static str> {
    let block = board::MM.get_free_pages(GFP_KERNEL, ORDER).map_err(|_| "the board has no such block")?;
    let start = board::MM.pfn_of(block.as_ptr()).ok_or("it is no RAM")?.phys(Backend::PAGE_SHIFT).0;
    let mut map: BootMap<2> = BootMap::new();
    map.add_ram(start, (Backend::PAGE_SIZE << ORDER) as u64).map_err(|_| "the map is full")?;
    let mut ram = map.finish(Backend::PAGE_SHIFT, Backend::PHYS_BITS).map_err(|_| "the map is empty")?;
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: u64::MAX }];
    // SAFETY: the block is nobody else's for as long as the machine runs, and nothing else maps into the window.
    unsafe { MM.init(&mut ram, &Config::new(&zones, WINDOW)) }.map_err(|_| "the manager did not come up")
}

fn main() {
    if let Err(reason) = bring_up() {
        say!("FAILED: {}", reason);
        board::exit(board::ExitCode::Fail);
    }
    let stack = || VmArea::new_in(STACK, &MM).expect("there is memory for a stack");
    let idle = stack();
    // SAFETY: the area lives as long as the program, as does every other one below.
    unsafe { scheduler::start(top(&idle), on_tick) };
    say!("a preemptive scheduler on {}: {} pages free", board::NAME, MM.free_page_count());
    let guard = MM.leak_guard().expect("the manager is sound");
    let result = {
        let stacks: [_; EATERS + 1] = core::array::from_fn(|_| stack());
        let result = work(&stacks);
        IS_SHORT.store(0, Relaxed);
        while let Some(page) = HOARD.take() {
            free(MM.free_pages(page, 0), page);
        }
        result
    };
    let (sleeps, wakes, preemptions) = scheduler::counts();
    let [served, freed, computed] = [&SERVED, &FREED_BY_INTERRUPT, &COMPUTED].map(|number| number.load(Relaxed));
    say!("SERVED {}", served);
    say!("SLEEPS {}", sleeps);
    say!("{} wakes, {} pages freed by the interrupt, {} preemptions", wakes, freed, preemptions);
    say!("{} thousands of steps were computed meanwhile", computed);
    let result = result.and(match () {
        () if FAILED.load(Relaxed) != 0 => Err("a request failed, or memory changed in its owner's hands"),
        () if served != EATERS * ROUNDS * 3 => Err("not every request was served"),
        () if sleeps < served / 4 || wakes == 0 => Err("hardly anybody slept: memory was not short"),
        () if computed == 0 || preemptions == 0 => Err("nobody was preempted"),
        () => Ok(()),
    });
    finish(&MM, &guard, result)
}

fn top(stack: &VmArea<&'static Mm<Tasks, Backend>>) -> *mut u8 {
    stack.as_ptr().wrapping_add(stack.len())
}

/// Runs the tasks to their end; the caller is one of them.
fn work(stacks: &[VmArea<&'static Mm<Tasks, Backend>>; EATERS + 1]) -> Result<(), &'static str> {
    hoard();
    let mut numbers = [0; EATERS + 1];
    for (index, (number, stack)) in numbers.iter_mut().zip(stacks).enumerate() {
        let entry = if index == EATERS { compute } else { eat };
        // SAFETY: the stack is the task's until it has ended, for which this function waits.
        *number = unsafe { scheduler::spawn(top(stack), entry) }.ok_or("too many tasks")?;
    }
    IS_SHORT.store(1, Relaxed);
    while !numbers.iter().all(|number| scheduler::ended(*number)) {
        scheduler::sleep(scheduler::now() + Duration::from_micros(200));
    }
    // Now nobody frees anything: who waits does so until the time he names.
    IS_SHORT.store(0, Relaxed);
    hoard();
    let start = scheduler::now();
    let got = MM.get_free_pages_deadline(GFP_KERNEL | Gfp::NOWARN, 0, start + PATIENCE);
    let waited = scheduler::now() - start;
    match got {
        Ok(_) => Err("there was a page when there was none"),
        Err(_) if waited < PATIENCE => Err("a request did not wait for its time"),
        Err(_) => Ok(()),
    }
}

/// Takes every page that an ordinary request can have.
fn hoard() {
    while let Ok(page) = MM.get_free_pages(GFP_NOWAIT | Gfp::NOWARN, 0) {
        HOARD.put(page.as_ptr());
    }
}

/// In the timer's interrupt.
fn on_tick() {
    static TICKS: AtomicUsize = AtomicUsize::new(0);
    if IS_SHORT.load(Relaxed) == 0 || !TICKS.fetch_add(1, Relaxed).is_multiple_of(TICKS_PER_PAGE) {
        return;
    }
    if let Some(page) = HOARD.take() {
        free(MM.free_pages(page, 0), page);
        FREED_BY_INTERRUPT.fetch_add(1, Relaxed);
    }
}

/// Tells the board of a free that was refused.
fn free(result: Result<(), rtmm::FreeError>, memory: *mut u8) {
    if let Err(error) = result {
        MM.platform().bug(&Bug::BadFree { addr: memory.addr(), error });
    }
}

fn note(good: bool) {
    (if good { &SERVED } else { &FAILED }).fetch_add(1, Relaxed);
}

/// Asks for a page, an object and an area, again and again, and keeps none of them for long.
fn eat() {
    for round in 0..ROUNDS {
        let page = MM.get_free_pages(GFP_KERNEL, 0);
        let object = MM.kmalloc(700, GFP_KERNEL);
        let area = MM.vmalloc(2 * Backend::PAGE_SIZE);
        note(page.is_ok());
        note(object.is_ok());
        note(area.is_ok());
        if let Ok(object) = object {
            free(MM.kfree(object.as_ptr()), object.as_ptr());
        }
        if let Ok(area) = area {
            // SAFETY: two pages of ours.
            unsafe { area.write_bytes(round as u8, 2 * Backend::PAGE_SIZE) };
            scheduler::give_way();
            // SAFETY: as above.
            let bytes = unsafe { core::slice::from_raw_parts(area.as_ptr(), 2 * Backend::PAGE_SIZE) };
            if bytes.iter().any(|byte| *byte != round as u8) {
                note(false);
            }
            free(MM.vfree(area.as_ptr()), area.as_ptr());
        }
        if let Ok(page) = page {
            // Nobody gets it before the interrupt has freed it; nor what the area gave back.
            HOARD.put(page.as_ptr());
            hoard();
        }
    }
    EATING.fetch_sub(1, Relaxed);
}

/// Work that needs no memory, for as long as others wait.
fn compute() {
    let mut sum = 0u32;
    while EATING.load(Relaxed) != 0 {
        for number in 0..1000 {
            sum = core::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
        COMPUTED.fetch_add(1, Relaxed);
    }
}
