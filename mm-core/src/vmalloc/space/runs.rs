//! Runs of free units: in one word of 64, and in a node of the tree.

/// Units per word.
pub(super) const WORD: usize = 64;

/// The free runs of a stretch of units, as far as its parent needs to know.
///
/// `ALIGN` and `OFFSET` choose the starts that [`placed`](Runs::placed) counts: those `% ALIGN == OFFSET`. Stretches
/// are whole words and begin at a multiple of `ALIGN`, so that a start's place in the stretch tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Runs<const ALIGN: usize, const OFFSET: usize> {
    /// Free units from the beginning on.
    pub(super) prefix: u32,
    /// Free units up to the end.
    pub(super) suffix: u32,
    /// The longest run.
    pub(super) longest: u32,
    /// The longest run counted from a start at `OFFSET`.
    pub(super) placed: u32,
}

impl<const ALIGN: usize, const OFFSET: usize> Runs<ALIGN, OFFSET> {
    const ALIGN_FITS: () = assert!(ALIGN.is_power_of_two() && ALIGN <= WORD && OFFSET < ALIGN);

    /// No unit is free.
    pub(super) const TAKEN: Self = Runs { prefix: 0, suffix: 0, longest: 0, placed: 0 };

    /// `len` units, all free.
    #[inline]
    pub(super) const fn free(len: u32) -> Self {
        Runs { prefix: len, suffix: len, longest: len, placed: len - OFFSET as u32 }
    }

    /// One word; set bits are free.
    #[inline]
    pub(super) fn of_word(bits: u64) -> Self {
        match bits {
            0 => Self::TAKEN,
            u64::MAX => Self::free(WORD as u32),
            _ => Self::of_mixed(bits),
        }
    }

    fn of_mixed(bits: u64) -> Self {
        let () = Self::ALIGN_FITS;
        let (prefix, suffix) = (bits.trailing_ones(), bits.leading_ones());
        // Most words have free units at their ends only.
        let inner = bits >> prefix << prefix << suffix >> suffix;
        let longest = prefix.max(suffix).max(if inner == 0 { 0 } else { longest(inner) });
        let mut placed = 0;
        for at in (OFFSET..WORD).step_by(ALIGN) {
            placed = placed.max((bits >> at).trailing_ones());
        }
        Runs { prefix, suffix, longest, placed }
    }

    /// Two neighbours of `half` units each.
    #[inline]
    pub(super) fn join(left: Self, right: Self, half: u32) -> Self {
        let prefix = if left.prefix == half { half + right.prefix } else { left.prefix };
        let suffix = if right.suffix == half { half + left.suffix } else { right.suffix };
        let longest = left.longest.max(right.longest).max(left.suffix + right.prefix);
        let across = left.placed_suffix().map_or(0, |len| len + right.prefix);
        Runs { prefix, suffix, longest, placed: left.placed.max(right.placed).max(across) }
    }

    /// What remains of the suffix from its first start at `OFFSET` on, if it has one.
    #[inline]
    pub(super) fn placed_suffix(&self) -> Option<u32> {
        // The end of a stretch is a multiple of ALIGN, so distances from it tell the place as well.
        let skip = (self.suffix + OFFSET as u32) & (ALIGN as u32 - 1);
        self.suffix.checked_sub(skip)
    }

    /// All taken or all free: nothing below says more, and what is stored below may be out of date.
    #[inline]
    pub(super) fn is_uniform(&self, len: u32) -> bool {
        self.longest == 0 || self.longest == len
    }
}

/// The lowest `n` bits (1 to 64).
#[inline]
pub(in crate::vmalloc) const fn ones(n: usize) -> u64 {
    u64::MAX >> (WORD - n)
}

/// Where in `bits` a run of `n` set bits (1 to 64) starts, overlapping ones included.
#[inline]
pub(in crate::vmalloc) fn starts(mut bits: u64, n: usize) -> u64 {
    let mut len = 1;
    while len < n {
        let step = len.min(n - len);
        bits &= bits >> step;
        len += step;
    }
    bits
}

/// The bits of word `word` whose unit number is `offset` modulo `align`, a power of two.
#[inline]
pub(super) fn places(word: usize, align: usize, offset: usize) -> u64 {
    if align == 1 {
        return u64::MAX;
    }
    let first = offset.wrapping_sub(word * WORD) & (align - 1);
    if first >= WORD {
        return 0;
    }
    let mut bits = 1u64 << first;
    let mut step = align;
    while step < WORD {
        bits |= bits << step;
        step *= 2;
    }
    bits
}

/// The length of the longest run of set bits in a word that is neither all clear nor all set.
fn longest(bits: u64) -> u32 {
    // Where runs of 2, 4 and so on start, each found from the one before; then what is left is halved. Written out, for
    // shifts by what is known beforehand are the cheapest, on 32 bits above all.
    let two = bits & bits >> 1;
    if two == 0 {
        return 1;
    }
    let four = two & two >> 2;
    if four == 0 {
        return (two, 2).longer::<1>().1;
    }
    let eight = four & four >> 4;
    if eight == 0 {
        return (four, 4).longer::<2>().longer::<1>().1;
    }
    let sixteen = eight & eight >> 8;
    if sixteen == 0 {
        return (eight, 8).longer::<4>().longer::<2>().longer::<1>().1;
    }
    let half = sixteen & sixteen >> 16;
    if half == 0 {
        return (sixteen, 16).longer::<8>().longer::<4>().longer::<2>().longer::<1>().1;
    }
    (half, 32).longer::<16>().longer::<8>().longer::<4>().longer::<2>().longer::<1>().1
}

/// Where runs of a length start, and that length.
trait Starts {
    /// Those of runs that are longer by `STEP`, if there are any. They are no longer than twice the length.
    fn longer<const STEP: u32>(self) -> Self;
}

impl Starts for (u64, u32) {
    #[inline(always)]
    fn longer<const STEP: u32>(self) -> Self {
        let (from, len) = self;
        match from & from >> STEP {
            0 => self,
            more => (more, len + STEP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn free(bits: u64, at: usize) -> u32 {
        (at..WORD).take_while(|i| bits >> i & 1 == 1).count() as u32
    }

    fn sparse() -> impl Strategy<Value = u64> {
        (any::<u64>(), any::<u64>(), 0usize..64, 0usize..=64).prop_map(|(a, b, at, len)| match len {
            0 => a & b,
            _ => (a & b) | (ones(len) << at),
        })
    }

    fn check_word<const A: usize, const O: usize>(bits: u64) {
        let runs = Runs::<A, O>::of_word(bits);
        let best = |step: usize, from: usize| (from..WORD).step_by(step).map(|at| free(bits, at)).max().unwrap();
        assert_eq!((runs.prefix, runs.longest, runs.placed), (free(bits, 0), best(1, 0), best(A, O)));
        assert_eq!(runs.suffix, free(bits.reverse_bits(), 0));
        assert_eq!(runs.is_uniform(64), bits == 0 || bits == u64::MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 3 } else { 2000 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn word_summaries_agree_with_counting(bits in sparse()) {
            for bits in [bits, !bits, 0, u64::MAX] {
                check_word::<32, 31>(bits);
                check_word::<4, 1>(bits);
                check_word::<64, 0>(bits);
                check_word::<1, 0>(bits);
            }
        }

        #[test]
        fn starts_are_where_a_run_fits(bits in sparse(), n in 1usize..=64) {
            let want = (0..WORD).filter(|at| free(bits, *at) >= n as u32).fold(0, |set, at| set | 1u64 << at);
            prop_assert_eq!(starts(bits, n), want);
        }

        #[test]
        fn places_are_the_residue(word in 0usize..300, shift in 0u32..12, offset: usize) {
            let align = 1 << shift;
            let offset = offset % align;
            let want = (0..WORD).filter(|at| (word * WORD + at) % align == offset).fold(0, |set, at| set | 1u64 << at);
            prop_assert_eq!(places(word, align, offset), want);
        }
    }
}
