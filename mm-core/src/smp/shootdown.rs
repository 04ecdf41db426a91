//! The protocol by which one CPU has all others drop translations, and learns when they have.
//!
//! Requests are numbered and stand in a short ring. A sender posts one, interrupts the others, and waits until each CPU
//! has done all up to its number. A CPU that *polls* flushes what it has not done yet, or everything when it is a whole
//! ring behind, and writes down how far it got. Nobody owns anything while he waits, so that a sender may be preempted,
//! move to another CPU, or give up, and others' requests go on; and polling takes no lock, so that whoever spins for
//! one can do it.
//!
//! Each word has one writer at a time: the ring and its head whoever holds the senders' lock, a CPU's words that CPU.
//! Plain loads and stores are enough, in one order for all (`SeqCst`), which is the order a model of it explores; an
//! interrupt to another CPU costs a hundred times more.

use crate::addr::VirtRange;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Requests that a CPU can be behind before it flushes everything; more at once are rare, and flushing all is cheap.
pub const REQUESTS: usize = 16;

/// A word that CPUs share; in a model, one whose every access is a step.
pub trait Word: Send + Sync {
    /// One that holds `value`.
    fn new(value: usize) -> Self;
    /// Loads it, sequentially consistent.
    fn load(&self) -> usize;
    /// Stores to it, sequentially consistent.
    fn store(&self, value: usize);
}

impl Word for AtomicUsize {
    fn new(value: usize) -> Self {
        AtomicUsize::new(value)
    }

    #[inline(always)]
    fn load(&self) -> usize {
        AtomicUsize::load(self, SeqCst)
    }

    #[inline(always)]
    fn store(&self, value: usize) {
        AtomicUsize::store(self, value, SeqCst);
    }
}

/// One CPU's words, in a cache line of their own.
#[repr(align(64))]
struct Cpu<W> {
    /// It may hold translations.
    online: W,
    /// The last request it has done.
    done: W,
    /// It did not answer in time, which was told, and has not polled since.
    silent: W,
}

/// Requests to flush, and how far each of `N` CPUs is with them. `RING` is a power of two, so that numbers may wrap.
pub struct Shootdown<W, const N: usize, const RING: usize = REQUESTS> {
    /// The number of the last request. They wrap.
    head: W,
    /// First byte and end of the request with a number of that remainder.
    ring: [(W, W); RING],
    cpus: [Cpu<W>; N],
}

impl<W: Word, const N: usize, const RING: usize> Default for Shootdown<W, N, RING> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Word, const N: usize, const RING: usize> Shootdown<W, N, RING> {
    /// No request, and no CPU online.
    pub fn new() -> Self {
        const { assert!(RING.is_power_of_two()) };
        let word = || W::new(0);
        Shootdown {
            head: word(),
            ring: core::array::from_fn(|_| (word(), word())),
            cpus: core::array::from_fn(|_| Cpu { online: word(), done: word(), silent: word() }),
        }
    }

    /// Posts a request and returns its number. One sender at a time.
    pub fn post(&self, range: VirtRange) -> usize {
        let number = self.head.load().wrapping_add(1);
        let (start, end) = &self.ring[number % RING];
        start.store(range.start);
        end.store(range.end);
        self.head.store(number);
        number
    }

    /// The number of the last request.
    pub fn last(&self) -> usize {
        self.head.load()
    }

    /// Does what was asked of CPU `cpu`, which is the caller's and stays it: calls `flush` with each range, or `None`
    /// for everything. False when nothing was asked.
    pub fn poll(&self, cpu: usize, mut flush: impl FnMut(Option<VirtRange>)) -> bool {
        let me = &self.cpus[cpu % N];
        let (head, done) = (self.head.load(), me.done.load());
        if head == done {
            return false;
        }
        let mut number = done;
        while number != head {
            number = number.wrapping_add(1);
            let (start, end) = &self.ring[number % RING];
            let range = VirtRange { start: start.load(), end: end.load() };
            // What was just read may be of a later request, or of two, when senders came round the ring.
            if self.head.load().wrapping_sub(done) >= RING {
                flush(None);
                break;
            }
            flush(Some(range));
        }
        me.done.store(head);
        if me.silent.load() != 0 {
            me.silent.store(0);
        }
        true
    }

    /// From here on CPU `cpu`, the caller's, may hold translations, and is waited for.
    ///
    /// Whatever it holds of before is dropped between reading the head and answering for it: a sender that does not see
    /// it online has changed its entries before.
    pub fn bring_up(&self, cpu: usize, flush: impl FnOnce()) {
        let me = &self.cpus[cpu % N];
        me.online.store(1);
        let head = self.head.load();
        flush();
        me.done.store(head);
        me.silent.store(0);
    }

    /// CPU `cpu` will use no translation before it is brought up again.
    pub fn take_down(&self, cpu: usize) {
        self.cpus[cpu % N].online.store(0);
    }

    /// True when CPU `cpu` was brought up.
    pub fn is_online(&self, cpu: usize) -> bool {
        self.cpus[cpu % N].online.load() != 0
    }

    /// True when CPU `cpu` holds nothing any more that was to be flushed up to request `number`.
    pub fn has_done(&self, cpu: usize, number: usize) -> bool {
        let cpu = &self.cpus[cpu % N];
        cpu.online.load() == 0 || is_at(cpu.done.load(), number)
    }

    /// True when CPU `cpu` was found silent and has not polled since.
    pub fn is_silent(&self, cpu: usize) -> bool {
        self.cpus[cpu % N].silent.load() != 0
    }

    /// Nobody waits for CPU `cpu` any more until it polls.
    pub fn give_up_on(&self, cpu: usize) {
        self.cpus[cpu % N].silent.store(1);
    }

    /// CPU `cpu` is waited for again: it answered while it was given up.
    pub fn forgive(&self, cpu: usize) {
        self.cpus[cpu % N].silent.store(0);
    }
}

/// True when request `number` is not after `done`.
pub fn is_at(done: usize, number: usize) -> bool {
    done.wrapping_sub(number) as isize >= 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    type Two = Shootdown<AtomicUsize, 2>;

    fn page(number: usize) -> VirtRange {
        VirtRange { start: number << 12, end: (number + 1) << 12 }
    }

    fn two() -> Two {
        let shootdown = Two::new();
        shootdown.bring_up(0, || ());
        shootdown.bring_up(1, || ());
        shootdown
    }

    fn polled(shootdown: &Two, cpu: usize) -> Vec<Option<VirtRange>> {
        let mut flushed = Vec::new();
        shootdown.poll(cpu, |range| flushed.push(range));
        flushed
    }

    #[test]
    fn a_request_is_done_when_each_cpu_has_polled() {
        let shootdown = two();
        let number = shootdown.post(page(7));
        assert!(!shootdown.has_done(0, number) && !shootdown.has_done(1, number));
        assert_eq!(polled(&shootdown, 1), [Some(page(7))]);
        assert!(!shootdown.has_done(0, number) && shootdown.has_done(1, number));
        assert_eq!(polled(&shootdown, 1), []);
    }

    #[test]
    fn each_range_is_flushed_once_and_in_order() {
        let shootdown = two();
        (1..REQUESTS).for_each(|number| _ = shootdown.post(page(number)));
        let all: Vec<_> = (1..REQUESTS).map(|number| Some(page(number))).collect();
        assert_eq!(polled(&shootdown, 0), all);
    }

    #[test]
    fn who_is_a_ring_behind_flushes_everything() {
        let shootdown = two();
        (0..REQUESTS).for_each(|number| _ = shootdown.post(page(number)));
        assert_eq!(polled(&shootdown, 0), [None]);
        assert!(shootdown.has_done(0, shootdown.last()));
    }

    #[test]
    fn nobody_waits_for_a_cpu_that_is_down_and_coming_up_it_flushes() {
        let shootdown = two();
        shootdown.take_down(1);
        let number = shootdown.post(page(1));
        assert!(shootdown.has_done(1, number) && !shootdown.is_online(1));
        let mut flushed = false;
        shootdown.bring_up(1, || {
            flushed = true;
            assert!(!shootdown.has_done(1, number), "it answered before it flushed");
        });
        assert!(flushed && shootdown.has_done(1, number));
    }

    #[test]
    fn a_silent_cpu_is_heard_again_when_it_polls() {
        let shootdown = two();
        shootdown.post(page(1));
        shootdown.give_up_on(1);
        assert!(shootdown.is_silent(1));
        polled(&shootdown, 1);
        assert!(!shootdown.is_silent(1));
    }

    #[test]
    fn numbers_wrap() {
        assert!(is_at(0, usize::MAX) && is_at(3, 3) && !is_at(usize::MAX, 0));
    }
}
