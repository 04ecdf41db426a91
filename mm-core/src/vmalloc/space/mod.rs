//! Which units of the address space are free: lowest first fit in bounded time.

mod runs;
mod search;
#[cfg(test)]
mod tests;
mod tree;

use core::ops::Range;
use runs::{WORD, places};
pub(in crate::vmalloc) use runs::{ones, starts};
use tree::{State, Tree};

/// Sizes from 1 unit on whose lowest possible word is remembered.
const SIZES: usize = 4;
/// Runs looked at for a start that is neither any nor at `OFFSET`, before one is taken that fits for certain.
const TRIES: usize = 8;
/// No word is open.
const NONE: usize = usize::MAX;

/// What one step of a longer work came to: between two of them others may have the address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress<T> {
    /// It is done.
    Done(T),
    /// It is to be asked for again.
    More,
}

/// Steps of one work between which others may come: twice what any takes when nobody does.
const STEPS: usize = 64;

/// Asks for `step` until it is done, with the lock of `space` opened between two by `pause`.
///
/// What others do between two steps can undo what the one before was for, and they can do so for ever, turn by turn. So
/// from some step on they are kept out, until a step is the last: there is a constant number of them.
#[inline(always)]
pub(in crate::vmalloc) fn in_steps<S, T>(
    space: &mut S,
    mut step: impl FnMut(&mut S) -> Progress<T>,
    mut pause: impl FnMut(&mut S),
) -> T {
    let mut paused = 0;
    loop {
        match step(space) {
            Progress::Done(done) => return done,
            Progress::More if paused == STEPS => {}
            Progress::More => {
                paused += 1;
                pause(space);
            }
        }
    }
}

/// A run to be given back is not taken, or not all of it. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotTaken;

/// Units of address space, taken and given in runs, the lowest that fits first.
///
/// Cost is a few dozen instructions while requests stay in one word of 64 units, and a fixed number of steps per
/// level of a binary tree over the words that were ever used otherwise, whatever the length of the run. That work is done
/// in steps, none of which brings more than a few levels up to date. `ALIGN` (at most 64) and `OFFSET`
/// name the one aligned start that is searched as well as any start: with units of 64 KiB, `<32, 31>` is an area
/// whose guard page ends right before a 2 MiB boundary.
///
/// One word is *open*: its bits are held here and its path in the tree is brought up to date when another word is
/// needed. `low` bounds where small runs can start, so that a fit in the open word is known to be the lowest.
pub(crate) struct AddressSpace<const ALIGN: usize = 32, const OFFSET: usize = 31> {
    tree: Tree<ALIGN, OFFSET>,
    free_units: usize,
    /// The open word; its bits; whether the tree is behind them.
    open: usize,
    bits: u64,
    dirty: bool,
    /// The unit right before the open word is free.
    joins: bool,
    /// No run of `i + 1` free units starts in a word below `low[i]`.
    low: [usize; SIZES],
    /// No bound of `low` is above it.
    high: usize,
    /// What the step before was for; of no use to others.
    found: Option<Found>,
}

/// The ends of a run of more than a word that are exposed so far, one in a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    None,
    First,
    Both,
}

/// The run that a search found, or that is to be given back, and the open word as it was then: any other change forgets it.
struct Found {
    request: (usize, usize, usize),
    start: usize,
    /// Which of its ends are exposed.
    ends: Ends,
    open: usize,
    bits: u64,
}

// SAFETY: the memory behind the tree's pointers belongs to it alone (`new`), and is reached through `self` only.
unsafe impl<const ALIGN: usize, const OFFSET: usize> Send for AddressSpace<ALIGN, OFFSET> {}

impl<const ALIGN: usize, const OFFSET: usize> AddressSpace<ALIGN, OFFSET> {
    /// One that has no units and needs no memory.
    pub(crate) const EMPTY: Self = AddressSpace {
        tree: Tree::EMPTY,
        free_units: 0,
        open: NONE,
        bits: 0,
        dirty: false,
        joins: false,
        low: [0; SIZES],
        high: 0,
        found: None,
    };

    /// The most units there can be.
    pub(crate) const MAX_UNITS: usize = (1 << 31) - 1;

    /// How many bytes `new` needs: 3 bits per unit, up to 5 when the number of words is no power of two.
    pub(crate) const fn storage_bytes(units: usize) -> usize {
        Tree::<ALIGN, OFFSET>::storage_bytes(units)
    }

    /// `units` free units, at most [`Self::MAX_UNITS`]. Two paths are written, the rest of the memory when used.
    ///
    /// # Safety
    /// `ptr` is aligned to 8 and valid for reads and writes of `storage_bytes(units)` bytes that nothing else uses as
    /// long as the value is in use. They need not be initialised.
    pub(crate) unsafe fn new(ptr: *mut u8, units: usize) -> Self {
        let units = units.min(Self::MAX_UNITS);
        // SAFETY: the caller's promise; `units` was limited.
        let mut tree = unsafe { Tree::new(ptr, units) };
        if units > 0 {
            tree.reach_first(&(0..units));
            tree.reach_last(&(0..units));
            tree.mark(&(0..units), State::Free);
            tree.narrow();
        }
        AddressSpace { tree, free_units: units, ..Self::EMPTY }
    }

    /// How many units are free.
    pub(crate) fn free_units(&self) -> usize {
        self.free_units
    }

    /// How many units there are.
    pub(crate) fn units(&self) -> usize {
        self.tree.units()
    }

    /// Takes the lowest run of `n` units whose start is `offset` modulo `align`, a power of two.
    ///
    /// For an `align` of 1, and for `ALIGN` with `OFFSET`, it is the lowest there is. For other alignments it is the
    /// lowest when it begins in one of the first 8 runs long enough, and otherwise lies in the first run so long that
    /// it fits anywhere: looking further would not be bounded.
    ///
    /// `None` when there is no such run, `n` is zero, or `align` and `offset` make no sense.
    #[inline(always)]
    pub(crate) fn take(&mut self, n: usize, align: usize, offset: usize) -> Progress<Option<usize>> {
        if n == 0 || n > self.free_units || !align.is_power_of_two() || offset >= align {
            return Progress::Done(None);
        }
        if n <= WORD && self.open == self.low[n.min(SIZES) - 1] && self.bits != 0 {
            // Mostly the lowest free unit begins a run that is long enough.
            let first = self.bits.trailing_zeros() as usize;
            if align == 1 && (n == 1 || (self.bits >> first) & ones(n) == ones(n)) {
                return Progress::Done(Some(self.take_open(first, n)));
            }
            let fits = starts(self.bits, n) & places(self.open, align, offset);
            if fits != 0 {
                return Progress::Done(Some(self.take_open(fits.trailing_zeros() as usize, n)));
            }
        }
        self.take_closed(n, align, offset)
    }

    /// Takes `n` free units from bit `at` of the open word on.
    #[inline]
    fn take_open(&mut self, at: usize, n: usize) -> usize {
        self.bits &= !(ones(n) << at);
        self.dirty = true;
        self.free_units -= n;
        self.open * WORD + at
    }

    #[cold]
    #[inline(never)]
    fn take_closed(&mut self, n: usize, align: usize, offset: usize) -> Progress<Option<usize>> {
        if !self.sync_some() {
            return Progress::More;
        }
        let request = (n, align, offset);
        let Some(Found { start, ends, .. }) = self.found_before(request) else { return self.look_for(request) };
        if align == 1 && n <= SIZES {
            self.low[n - 1] = start / WORD;
            self.high = self.high.max(start / WORD);
        }
        if start % WORD + n <= WORD {
            self.open(start / WORD);
            return Progress::Done(Some(self.take_open(start % WORD, n)));
        }
        let run = start..start + n;
        if ends != Ends::Both {
            self.reach(request, &run, ends);
            return Progress::More;
        }
        self.open = NONE;
        self.tree.mark(&run, State::Taken);
        self.free_units -= n;
        Progress::Done(Some(start))
    }

    /// What the step before found for this request, if nothing was changed since.
    #[inline(always)]
    fn found_before(&mut self, request: (usize, usize, usize)) -> Option<Found> {
        let found = self.found.take()?;
        (found.request == request && (found.open, found.bits) == (self.open, self.bits)).then_some(found)
    }

    /// Exposes the next end of a run of more than a word.
    #[inline]
    fn reach(&mut self, request: (usize, usize, usize), run: &Range<usize>, ends: Ends) {
        self.open = NONE;
        let ends = if ends == Ends::None {
            self.tree.reach_first(run);
            Ends::First
        } else {
            self.tree.reach_last(run);
            Ends::Both
        };
        self.found = Some(Found { request, start: run.start, ends, open: self.open, bits: self.bits });
    }

    /// Finds the run that the next step takes, if nothing changes until then.
    #[inline(never)]
    fn look_for(&mut self, request: (usize, usize, usize)) -> Progress<Option<usize>> {
        let (n, align, offset) = request;
        let start = if align == 1 {
            self.tree.find(n, self.low[n.min(SIZES) - 1])
        } else if (align, offset) == (ALIGN, OFFSET) {
            self.tree.find_placed(n)
        } else {
            self.find_aligned(n, align, offset)
        };
        let Some(start) = start else { return Progress::Done(None) };
        self.found = Some(Found { request, start, ends: Ends::None, open: self.open, bits: self.bits });
        Progress::More
    }

    fn find_aligned(&self, n: usize, align: usize, offset: usize) -> Option<usize> {
        let fit = |start: usize| start.checked_add(offset.wrapping_sub(start) & (align - 1));
        let mut from = 0;
        for _ in 0..TRIES {
            let start = self.tree.find_from(from, n)?;
            let end = self.tree.taken_from(start).unwrap_or(self.tree.units());
            match fit(start) {
                Some(at) if at < end && end - at >= n => return Some(at),
                _ => from = end,
            }
        }
        fit(self.tree.find_from(from, n.checked_add(align - 1)?)?)
    }

    /// Gives back `n` units from `start` on.
    ///
    /// # Errors
    /// [`NotTaken`] when `n` is zero, or any of them is free or out of range; nothing was changed.
    #[inline(always)]
    pub(crate) fn give(&mut self, start: usize, n: usize) -> Progress<Result<(), NotTaken>> {
        if n == 0 || start >= self.units() || n > self.units() - start {
            return Progress::Done(Err(NotTaken));
        }
        if start / WORD == self.open && start % WORD + n <= WORD {
            return Progress::Done(self.give_open(start % WORD, n));
        }
        self.give_closed(start, n)
    }

    /// Gives back `n` units from bit `at` of the open word on.
    #[inline]
    fn give_open(&mut self, at: usize, n: usize) -> Result<(), NotTaken> {
        let mask = ones(n) << at;
        if self.bits & mask != 0 {
            return Err(NotTaken);
        }
        self.bits |= mask;
        self.dirty = true;
        self.free_units += n;
        // Runs that the units complete may start in the word before, if theirs reaches that far.
        let reaches = self.joins && self.bits.trailing_ones() as usize > at;
        self.lower(self.open, self.open - usize::from(reaches));
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn give_closed(&mut self, start: usize, n: usize) -> Progress<Result<(), NotTaken>> {
        let run = start..start + n;
        // A run that was taken last has its ends at hand.
        let at_hand = self.open == NONE && self.tree.has_marked(&run);
        if !at_hand && !self.sync_some() {
            return Progress::More;
        }
        // No request has this alignment.
        let request = (n, 0, 0);
        let found = self.found_before(request);
        if start % WORD + n <= WORD {
            self.open(start / WORD);
            return Progress::Done(self.give_open(start % WORD, n));
        }
        let ends = found.filter(|found| found.start == start).map_or(Ends::None, |found| found.ends);
        if !at_hand && ends != Ends::Both {
            self.reach(request, &run, ends);
            return Progress::More;
        }
        self.open = NONE;
        if !self.tree.is_taken(&run) {
            return Progress::Done(Err(NotTaken));
        }
        self.tree.mark(&run, State::Free);
        self.free_units += n;
        self.lower(start / WORD, start.saturating_sub(SIZES - 1) / WORD);
        Progress::Done(Ok(()))
    }

    /// Single units can start in `single` now, longer runs in `longer`.
    #[inline(always)]
    fn lower(&mut self, single: usize, longer: usize) {
        // Mostly they could before.
        if longer < self.high {
            self.lower_each(single, longer);
        }
    }

    #[cold]
    #[inline(never)]
    fn lower_each(&mut self, single: usize, longer: usize) {
        self.low[0] = self.low[0].min(single);
        for low in &mut self.low[1..] {
            *low = (*low).min(longer);
        }
        self.high = self.low.iter().copied().max().unwrap_or(0);
    }

    /// True when the unit is taken.
    #[cfg(test)]
    pub(crate) fn is_taken(&self, unit: usize) -> bool {
        if unit / WORD == self.open {
            return unit < self.units() && self.bits >> (unit % WORD) & 1 == 0;
        }
        unit < self.units() && !self.tree.is_free(unit)
    }

    /// The lowest taken unit of those from `unit` on.
    pub(crate) fn next_taken(&mut self, unit: usize) -> Progress<Option<usize>> {
        if !self.sync_some() {
            return Progress::More;
        }
        Progress::Done(self.tree.taken_from(unit))
    }

    /// Writes the open word to the tree.
    #[inline]
    fn store(&mut self) {
        if self.dirty {
            self.tree.store(self.open, self.bits);
            self.dirty = false;
        }
    }

    /// Brings the tree up to date, or some of it: true when all is.
    fn sync_some(&mut self) -> bool {
        self.store();
        self.tree.settle_some()
    }

    /// Opens a word; the tree is up to date.
    fn open(&mut self, word: usize) {
        self.open = word;
        (self.bits, self.joins) = self.tree.reach_word(word);
    }

    /// Recomputes everything that is kept. Unbounded: a diagnostic.
    pub(crate) fn check(&mut self) -> Result<(), (&'static str, usize)> {
        while !self.sync_some() {}
        if self.units() == 0 {
            return Ok(());
        }
        if self.tree.check()? != self.free_units {
            return Err(("the count of free address space is wrong", self.free_units));
        }
        if self.open != NONE {
            let joins = self.open > 0 && self.tree.is_free(self.open * WORD - 1);
            if (self.bits, self.joins) != (self.tree.word(self.open), joins) {
                return Err(("the open word of the address space is out of date", self.open));
            }
        }
        if self.low.iter().any(|low| *low > self.high) {
            return Err(("a bound of the address space is above the highest", self.high));
        }
        for (i, low) in self.low.iter().enumerate() {
            if self.tree.find_from(0, i + 1).is_some_and(|start| start / WORD < *low) {
                return Err(("a free run of address space lies below its bound", *low));
            }
        }
        Ok(())
    }
}
