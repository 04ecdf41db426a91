//! A small preemptive scheduler for one x86-64 CPU: the timer's interrupt takes the CPU from a task at any instruction.
//!
//! Tasks take turns. Every switch happens in an interrupt handler, the timer's or that of the software interrupt by
//! which a task gives up the CPU: the handler saved the registers on the task's own stack, and what is left is to
//! change the stack pointer.

use crate::board::{self, timer};
use core::arch::naked_asm;
use core::cell::RefCell;
use core::time::Duration;
use critical_section::Mutex;

/// The most tasks, the first and the one that idles included.
pub const MOST: usize = 8;
/// Instructions from one interrupt of the timer to the next.
const SLICE: u32 = 20_000;
/// The one that runs when nobody else can; it is made first.
const IDLE: usize = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Ready,
    /// Asleep until then, or until it is woken.
    Asleep(Duration),
    /// It has ended; its stack is nobody's any more once another runs.
    Ended,
}

#[derive(Clone, Copy)]
struct Task {
    state: State,
    /// Where its registers are while another runs.
    stack: usize,
    /// Somebody woke it since it last slept.
    woken: bool,
}

struct Scheduler {
    tasks: [Task; MOST],
    running: usize,
    /// What runs in the timer's interrupt.
    on_tick: Option<fn()>,
    sleeps: usize,
    wakes: usize,
    /// How often the timer took the CPU from a task that could have gone on.
    preemptions: usize,
}

static SCHEDULER: Mutex<RefCell<Scheduler>> = Mutex::new(RefCell::new(Scheduler {
    tasks: [Task { state: State::Absent, stack: 0, woken: false }; MOST],
    running: 0,
    on_tick: None,
    sleeps: 0,
    wakes: 0,
    preemptions: 0,
}));

fn with<R>(work: impl FnOnce(&mut Scheduler) -> R) -> R {
    critical_section::with(|section| work(&mut SCHEDULER.borrow(section).borrow_mut()))
}

/// The time since the machine started: an instruction takes a nanosecond.
pub fn now() -> Duration {
    Duration::from_nanos(board::instructions())
}

/// Makes the caller the first task and starts the timer, whose interrupt runs `on_tick` each time. `idle_stack` ends at
/// the top of memory that nothing else uses for as long as the program runs.
///
/// # Safety
/// Called once, and the stack is as said: 4 KiB at least.
pub unsafe fn start(idle_stack: *mut u8, on_tick: fn()) {
    with(|scheduler| {
        scheduler.tasks[0].state = State::Ready;
        scheduler.on_tick = Some(on_tick);
    });
    // SAFETY: by the caller.
    let idle = unsafe { spawn(idle_stack, idle) };
    assert_eq!(idle, Some(IDLE), "it is the second task");
    timer::start(tick);
    timer::fire_after(SLICE);
}

fn idle() {
    loop {
        // SAFETY: waits for the next interrupt; they are on in a task.
        unsafe { core::arch::asm!("hlt", options(nomem, nostack)) };
    }
}

/// Makes a task that runs `entry` on the stack that ends at `top`, and ends when that returns. Gives its number, or
/// `None` when there are as many as can be.
///
/// # Safety
/// Below `top`, a multiple of 16, is memory that nothing else uses until the task has [`ended`].
pub unsafe fn spawn(top: *mut u8, entry: fn()) -> Option<usize> {
    with(|scheduler| {
        let number = scheduler.tasks.iter().position(|task| task.state == State::Absent)?;
        // What `switch` takes off the stack: six registers, of which RBX has the entry, and where to go; above it what
        // a call would have left, so that the stack is aligned as at a function's start.
        let words: [usize; 8] = [0, 0, 0, 0, 0, entry as usize, begin as *const () as usize, 0];
        let stack = top.wrapping_sub(size_of_val(&words));
        // SAFETY: by the caller.
        unsafe { stack.cast::<[usize; 8]>().write(words) };
        scheduler.tasks[number] = Task { state: State::Ready, stack: stack.expose_provenance(), woken: false };
        Some(number)
    })
}

/// Where a task begins: inside the handler that switched to it.
#[unsafe(naked)]
unsafe extern "C" fn begin() {
    naked_asm!("mov rdi, rbx", "jmp {run}", run = sym run)
}

extern "C" fn run(entry: usize) -> ! {
    board::begin_task();
    // SAFETY: `spawn` left a function there.
    let entry: fn() = unsafe { core::mem::transmute(entry) };
    entry();
    with(|scheduler| {
        let running = scheduler.running;
        scheduler.tasks[running].state = State::Ended;
    });
    give_way();
    unreachable!("an ended task is never switched to")
}

/// Saves the registers that a function keeps, and the stack pointer to `from`; goes on with those of `to`.
#[unsafe(naked)]
unsafe extern "C" fn switch(from: *mut usize, to: usize) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// In a handler: goes on with the next task whose turn it is; returns when it is this one's again.
fn reschedule() {
    let change = with(|scheduler| {
        let (running, time) = (scheduler.running, now());
        for task in &mut scheduler.tasks {
            if matches!(task.state, State::Asleep(until) if until <= time) {
                task.state = State::Ready;
            }
        }
        let others = (1..=MOST).map(|step| (running + step) % MOST).filter(|number| *number != IDLE);
        let mut ready = others.filter(|number| scheduler.tasks[*number].state == State::Ready);
        let next = ready.next().unwrap_or(IDLE);
        if next == running {
            return None;
        }
        scheduler.running = next;
        let to = scheduler.tasks[next].stack;
        Some((&raw mut scheduler.tasks[running].stack, to))
    });
    if let Some((from, to)) = change {
        // SAFETY: interrupts are off in a handler, so nobody else comes near the table, which stays where it is; `to`
        // is what this function, or `spawn`, left for a task that does not run.
        unsafe { switch(from, to) };
    }
}

/// The timer's interrupt.
fn tick(_: usize) {
    timer::fire_after(SLICE);
    let on_tick = with(|scheduler| {
        let running = scheduler.running;
        scheduler.preemptions += usize::from(running != IDLE && scheduler.tasks[running].state == State::Ready);
        scheduler.on_tick
    });
    if let Some(on_tick) = on_tick {
        on_tick();
    }
    reschedule();
}

/// Lets the others run first.
pub fn give_way() {
    board::in_interrupt(reschedule);
}

/// The calling task's number.
pub fn current() -> usize {
    with(|scheduler| scheduler.running)
}

/// Puts the calling task to sleep until it is woken or the time has come. A wake since it last slept ends it at once.
pub fn sleep(until: Duration) {
    with(|scheduler| {
        scheduler.sleeps += 1;
        let running = scheduler.running;
        let task = &mut scheduler.tasks[running];
        if !core::mem::take(&mut task.woken) {
            task.state = State::Asleep(until);
        }
    });
    // Preempted here it sleeps already.
    give_way();
    with(|scheduler| {
        let running = scheduler.running;
        scheduler.tasks[running].woken = false;
    });
}

/// Wakes a task, from any context. One that has ended stays so.
pub fn wake(number: usize) {
    with(|scheduler| {
        scheduler.wakes += 1;
        if let Some(task) = scheduler.tasks.get_mut(number) {
            match task.state {
                State::Asleep(_) => task.state = State::Ready,
                _ => task.woken = true,
            }
        }
    });
}

/// Whether a task has ended, so that its stack is free. Called by another task.
pub fn ended(number: usize) -> bool {
    with(|scheduler| scheduler.tasks[number].state == State::Ended)
}

/// How often tasks slept, were woken, and lost the CPU to the timer.
pub fn counts() -> (usize, usize, usize) {
    with(|scheduler| (scheduler.sleeps, scheduler.wakes, scheduler.preemptions))
}
