//! Embassy's executor on a Cortex-M3: tasks that await memory while there is none, and a timer's interrupt that frees
//! it.
//!
//! A hoarder keeps everything. The timer's interrupt gives one page of the hoard back each time, which the manager
//! hands to whoever has waited for it, and the hoarder takes what nobody waited for. One task gives up half way, with
//! its request in the queue or granted.
#![no_std]
#![no_main]

use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use critical_section::Mutex;
use embassy_executor::{Executor, Spawner};
use embassy_futures::select::{Either, select};
use embassy_futures::yield_now;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use rtmm::{AllocError, Backend as _, Bug, FreeError, GFP_KERNEL, GFP_NOWAIT, Gfp, LeakGuard, Platform};
use rtmm_examples_rtos::board::{self, Backend, BoardPlatform, MM, say, timer};
use rtmm_examples_rtos::finish;
use static_cell::StaticCell;

/// Tasks that want memory.
const EATERS: usize = 4;
/// What each asks for, and gets, in its life.
const ROUNDS: usize = 40;
/// Requests of the task that gives up.
const IMPATIENT_ROUNDS: usize = 40;
/// Instructions from one interrupt to the next.
const PERIOD: u32 = 20_000;
/// Interrupts for which the hoarder looks away.
const TICKS_AT_EASE: usize = 16;
/// Bytes from one that is looked at to the next: a look at each would take longer than the interrupt lets it.
const STRIDE: usize = 61;
/// Sizes of objects, of a slab's and of whole pages.
const SIZES: [usize; 4] = [24, 700, 3000, 9000];

/// Pages that nobody uses, each of which begins with the address of the next.
struct Hoard(Mutex<Cell<Page>>);

/// A page of the hoard, or null.
#[derive(Clone, Copy)]
struct Page(*mut u8);

// SAFETY: whoever has a page of the hoard owns it.
unsafe impl Send for Page {}

impl Hoard {
    fn put(&self, page: NonNull<u8>) {
        critical_section::with(|section| {
            let top = self.0.borrow(section);
            // SAFETY: a page of the caller's.
            unsafe { page.cast::<*mut u8>().write(top.get().0) };
            top.set(Page(page.as_ptr()));
        });
    }

    fn take(&self) -> Option<NonNull<u8>> {
        critical_section::with(|section| {
            let top = self.0.borrow(section);
            let page = NonNull::new(top.get().0)?;
            // SAFETY: a page of the hoard, which begins with the address of the next.
            top.set(Page(unsafe { page.cast::<*mut u8>().read() }));
            Some(page)
        })
    }
}

/// What the hoarder keeps and the interrupt takes from.
static HOARD: Hoard = Hoard(Mutex::new(Cell::new(Page(ptr::null_mut()))));
/// An interrupt came.
static TICK: Signal<CriticalSectionRawMutex, ()> = Signal::new();
/// The same, for the task that gives up.
static GIVE_UP: Signal<CriticalSectionRawMutex, ()> = Signal::new();

static FREED_BY_INTERRUPT: AtomicUsize = AtomicUsize::new(0);
static SERVED: AtomicUsize = AtomicUsize::new(0);
static WAITED: AtomicUsize = AtomicUsize::new(0);
static GAVE_UP: AtomicUsize = AtomicUsize::new(0);
static TASKS: AtomicUsize = AtomicUsize::new(EATERS + 1);
static FAILED: AtomicUsize = AtomicUsize::new(0);
static COMPUTED: AtomicUsize = AtomicUsize::new(0);

board::entry!(main);

fn main() {
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    static GUARD: StaticCell<LeakGuard<'static, BoardPlatform, Backend>> = StaticCell::new();

    say!("Embassy on {}: {} pages free", board::NAME, MM.free_page_count());
    let guard = GUARD.init(MM.leak_guard().expect("the manager is sound"));
    hoard();
    timer::start(on_timer);
    timer::fire_after(PERIOD);
    EXECUTOR.init(Executor::new()).run(|spawner| start(spawner, guard));
}

fn start(spawner: Spawner, guard: &'static LeakGuard<'static, BoardPlatform, Backend>) {
    for number in 0..EATERS {
        spawner.spawn(eater(number).expect("the pool has room"));
    }
    spawner.spawn(impatient().expect("there is one"));
    spawner.spawn(compute().expect("there is one"));
    spawner.spawn(hoarder(guard).expect("there is one"));
}

/// The interrupt: frees a page, which wakes whoever is handed it.
fn on_timer(_: usize) {
    if let Some(page) = HOARD.take() {
        free(MM.free_pages(page.as_ptr(), 0), page);
        FREED_BY_INTERRUPT.fetch_add(1, Relaxed);
    }
    TICK.signal(());
    GIVE_UP.signal(());
    if TASKS.load(Relaxed) != 0 {
        timer::fire_after(PERIOD);
    }
}

/// Takes every page that an ordinary request can have.
fn hoard() {
    while let Ok(page) = MM.get_free_pages(GFP_NOWAIT | Gfp::NOWARN, 0) {
        HOARD.put(page);
    }
}

/// Makes single pages of a block and puts them into the hoard: nobody gets them before the interrupt has freed them.
fn give_to_hoard(block: NonNull<u8>, order: usize) {
    let split = MM.pfn_of(block.as_ptr()).map(|pfn| MM.split_page(pfn, order));
    if !matches!(split, Some(Ok(_))) {
        FAILED.fetch_add(1, Relaxed);
        return;
    }
    for page in 0..1 << order {
        // SAFETY: inside the block.
        HOARD.put(unsafe { block.add(page * Backend::PAGE_SIZE) });
    }
}

/// Tells the board of a free that was refused.
fn free(result: Result<(), FreeError>, memory: NonNull<u8>) {
    if let Err(error) = result {
        MM.platform().bug(&Bug::BadFree { addr: memory.addr().get(), error });
    }
}

/// A request, and whether it had to wait.
async fn counted(request: impl Future<Output = Result<NonNull<u8>, AllocError>>) -> Result<NonNull<u8>, AllocError> {
    let mut request = pin!(request);
    let mut pending = false;
    let result = poll_fn(|context| {
        let poll = request.as_mut().poll(context);
        pending |= poll.is_pending();
        poll
    })
    .await;
    WAITED.fetch_add(usize::from(pending), Relaxed);
    SERVED.fetch_add(usize::from(result.is_ok()), Relaxed);
    result
}

/// Fills memory, lets others run, and sees whether it is as it was left.
async fn use_up(memory: NonNull<u8>, size: usize, mark: u8) {
    // SAFETY: as long, and ours until it is freed.
    let bytes = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), size) };
    bytes.fill(mark);
    yield_now().await;
    if bytes.iter().step_by(STRIDE).any(|byte| *byte != mark) {
        FAILED.fetch_add(1, Relaxed);
    }
}

/// A task ends. With the last one the interrupts do too, so that the hoarder has to be told.
fn done() {
    TASKS.fetch_sub(1, Relaxed);
    TICK.signal(());
}

#[embassy_executor::task(pool_size = EATERS)]
async fn eater(number: usize) {
    let order = number % 3;
    let size = SIZES[number % SIZES.len()];
    for round in 0..ROUNDS {
        let mark = (number * ROUNDS + round) as u8;
        match counted(MM.get_free_pages_async(GFP_KERNEL, order)).await {
            Ok(pages) => {
                use_up(pages, Backend::PAGE_SIZE << order, mark).await;
                give_to_hoard(pages, order);
            }
            Err(_) => _ = FAILED.fetch_add(1, Relaxed),
        }
        match counted(MM.kmalloc_async(size, GFP_KERNEL)).await {
            Ok(object) => {
                use_up(object, size, mark).await;
                free(MM.kfree(object.as_ptr()), object);
            }
            Err(_) => _ = FAILED.fetch_add(1, Relaxed),
        }
    }
    done();
}

/// Drops its request at the next interrupt, unless it was served before.
#[embassy_executor::task]
async fn impatient() {
    for _ in 0..IMPATIENT_ROUNDS {
        GIVE_UP.reset();
        match select(MM.get_free_pages_async(GFP_KERNEL, 1), GIVE_UP.wait()).await {
            Either::First(Ok(pages)) => free(MM.free_pages(pages.as_ptr(), 1), pages),
            Either::First(Err(_)) => _ = FAILED.fetch_add(1, Relaxed),
            Either::Second(()) => _ = GAVE_UP.fetch_add(1, Relaxed),
        }
    }
    done();
}

/// Has work of its own that needs no memory, as much as there is time: those who wait keep nobody else from running.
#[embassy_executor::task]
async fn compute() {
    let mut sum = 0u32;
    while TASKS.load(Relaxed) != 0 {
        for number in 0..1000 {
            sum = core::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
        COMPUTED.fetch_add(1, Relaxed);
        yield_now().await;
    }
}

/// Keeps memory short until the others are done, then gives everything back and closes the account.
#[embassy_executor::task]
async fn hoarder(guard: &'static LeakGuard<'static, BoardPlatform, Backend>) {
    while TASKS.load(Relaxed) != 0 {
        // What is taken at once is never two neighbours, and those who want a larger block would get none.
        for _ in 0..TICKS_AT_EASE {
            TICK.wait().await;
            if TASKS.load(Relaxed) == 0 {
                break;
            }
        }
        hoard();
    }
    timer::cancel();
    while let Some(page) = HOARD.take() {
        free(MM.free_pages(page.as_ptr(), 0), page);
    }
    let [served, waited, gave_up, freed] = [&SERVED, &WAITED, &GAVE_UP, &FREED_BY_INTERRUPT].map(|n| n.load(Relaxed));
    say!("SERVED {} WAITED {} GAVE-UP {} FREED-BY-INTERRUPT {}", served, waited, gave_up, freed);
    say!("{} thousands of steps were computed meanwhile", COMPUTED.load(Relaxed));
    let result = match () {
        () if FAILED.load(Relaxed) != 0 => Err("a request failed, or memory changed in its owner's hands"),
        () if served != EATERS * ROUNDS * 2 => Err("not every request was served"),
        () if waited < served / 4 => Err("hardly anybody had to wait: memory was not short"),
        () if gave_up == 0 => Err("nobody gave up"),
        () => Ok(()),
    };
    finish(&MM, guard, result)
}
