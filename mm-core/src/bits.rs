//! Machine words as sets of small numbers.

/// One machine word of bits: 64 on 64-bit machines, 32 on 32-bit ones.
pub type Word = usize;

/// log2 of the bits in a [`Word`].
pub const WORD_SHIFT: usize = Word::BITS.trailing_zeros() as usize;

/// What a pointer to a word of free bits points at when there is no such word. Never written: nothing is taken from an
/// empty set.
pub static USED_UP: Word = 0;

/// Mask of a bit number within its word.
pub const WORD_MASK: usize = (1 << WORD_SHIFT) - 1;

/// Marks what follows as rare, so that the code of the common case stands together.
#[cold]
#[inline]
pub const fn rarely() {}

/// The lowest member of a set that is not empty; the width of a word for an empty one.
#[inline(always)]
pub const fn lowest(set: Word) -> usize {
    set.trailing_zeros() as usize
}

/// The highest member of a set that is not empty.
#[inline(always)]
pub const fn highest(set: Word) -> usize {
    // As minus would have it, but a compiler sees that it undoes what the processor's search for a bit does.
    WORD_MASK ^ set.leading_zeros() as usize
}

/// `count` ones from bit `start` up; `count` is 1 to the width of a word, and they fit.
#[inline(always)]
pub const fn run(start: usize, count: usize) -> Word {
    (Word::MAX >> (Word::BITS as usize - count)) << start
}

/// Every `1 << order`-th bit: the word of all ones divided by `1 << order` ones.
const EVERY: [Word; WORD_SHIFT + 1] = {
    let mut every = [1; WORD_SHIFT + 1];
    let mut order = 0;
    while order < WORD_SHIFT {
        every[order] = Word::MAX / (Word::MAX >> (Word::BITS as usize - (1 << order)));
        order += 1;
    }
    every
};

/// The members at which a run of `count` members starts, which is 1 to the width of a word.
///
/// Written out: a loop costs half as much again for each doubling.
#[inline]
pub const fn runs(set: Word, count: usize) -> Word {
    let mut x = set;
    macro_rules! doublings {
        ($($n:literal)*) => {$(
            if $n < Word::BITS as usize {
                // So far a member of `x` starts a run of `$n`.
                if count < 2 * $n {
                    return x & x >> (count - $n);
                }
                x &= x >> ($n & WORD_MASK);
            }
        )*};
    }
    doublings!(1 2 4 8 16 32);
    x
}

/// The members that are multiples of `1 << order`; `order` is at most [`WORD_SHIFT`].
#[inline(always)]
pub const fn aligned(set: Word, order: usize) -> Word {
    set & EVERY[order]
}

/// The members at which an aligned run of `1 << order` members starts; `order` is at most [`WORD_SHIFT`].
#[inline(always)]
pub const fn fold(set: Word, order: usize) -> Word {
    let mut x = set;
    macro_rules! orders {
        ($($n:literal)*) => {$(
            if $n < WORD_SHIFT {
                if order <= $n {
                    return aligned(x, order);
                }
                x &= x >> ((1 << $n) & WORD_MASK);
            }
        )*};
    }
    orders!(0 1 2 3 4 5);
    aligned(x, WORD_SHIFT)
}

/// The ends of aligned runs of `1 << order` members: of the lowest such run, and of nothing below it. What takes the same time
/// for every order, which is at most [`WORD_SHIFT`].
#[inline(always)]
const fn lowest_end(set: Word, order: usize) -> Word {
    let every = EVERY[order];
    // One less than what is missing of a run has the run's highest bit when nothing is missing. It has it too when that bit
    // is missing, which the set tells, and it borrows from the next run only where nothing is missing: the lowest is right.
    (!set).wrapping_sub(every) & set & every.rotate_right(1)
}

/// The lowest member at which an aligned run of `1 << order` members starts, of a set that has one.
#[inline(always)]
pub const fn lowest_run(set: Word, order: usize) -> usize {
    lowest(lowest_end(set, order)) + 1 - (1 << order)
}

/// True when a set has an aligned run of `1 << order` members.
#[inline(always)]
pub const fn has_run(set: Word, order: usize) -> bool {
    lowest_end(set, order) != 0
}

/// Where an aligned run of two members starts.
#[inline(always)]
pub const fn pairs(set: Word) -> Word {
    set & set >> 1 & EVERY[1]
}

/// 0 for an empty set, else one more than the order of the largest aligned run in it.
#[inline]
pub fn class(set: Word) -> usize {
    if set == 0 {
        return 0;
    }
    if set == Word::MAX {
        return WORD_SHIFT + 1;
    }
    let mut x = set;
    macro_rules! orders {
        ($($n:literal)*) => {$(
            if $n < WORD_SHIFT {
                x &= x >> (1 << ($n - 1)) & EVERY[$n];
                if x == 0 {
                    return $n;
                }
            }
        )*};
    }
    orders!(1 2 3 4 5);
    WORD_SHIFT
}

/// [`class`], or `most` if that is less; `most` is at least 1.
#[inline(always)]
pub const fn class_up_to(set: Word, most: usize) -> usize {
    let (mut x, mut class) = (set, 0);
    while x != 0 && class < most {
        class += 1;
        x &= x >> (1 << (class - 1) & WORD_MASK) & EVERY[class];
    }
    class
}

/// [`class`] of a set that is likely to have large runs: by halving, where that looks for the smallest first.
#[inline(always)]
pub const fn class_of_many(set: Word) -> usize {
    /// True when some part of `1 << order` bits is all ones: of the others, turned over, none borrows past its end.
    const fn has_full(set: Word, order: usize) -> bool {
        let every = EVERY[order];
        (!set).wrapping_sub(every) & set & every << ((1 << order) - 1) != 0
    }
    if set == Word::MAX {
        return WORD_SHIFT + 1;
    }
    if has_full(set, 3) {
        return if has_full(set, 4) { if WORD_SHIFT > 5 && has_full(set, 5) { 6 } else { 5 } } else { 4 };
    }
    if set & set >> 1 & EVERY[1] == 0 {
        return if set == 0 { 0 } else { 1 };
    }
    if has_full(set, 2) { 3 } else { 2 }
}

/// The order of the smallest block that holds `pages`, which is at least one.
#[inline(always)]
pub const fn order_for(pages: usize) -> usize {
    if cfg!(feature = "small") {
        return (usize::BITS - (pages - 1).leading_zeros()) as usize;
    }
    match pages - 1 {
        0 => 0,
        last => highest(last) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive_fold(set: Word, order: usize) -> Word {
        let size = 1usize << order;
        (0..Word::BITS as usize)
            .step_by(size)
            .filter(|&s| (s..s + size).all(|i| set >> i & 1 == 1))
            .fold(0, |a, s| a | 1 << s)
    }

    #[test]
    fn fold_and_class_agree_with_counting() {
        let mut seed = 0x5EED_0001u64;
        for i in 0..2000u32 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let dense = if i % 3 == 0 { (seed >> 7) | (seed << 29) } else { seed >> 3 };
            let set = (seed | if i % 2 == 0 { dense } else { 0 }) as Word;
            let mut best = 0;
            for order in 0..=WORD_SHIFT {
                assert_eq!(fold(set, order), naive_fold(set, order), "{set:#x} order {order}");
                assert_eq!(has_run(set, order), naive_fold(set, order) != 0, "{set:#x} order {order}");
                if naive_fold(set, order) != 0 {
                    assert_eq!(lowest_run(set, order), lowest(naive_fold(set, order)), "{set:#x} order {order}");
                    best = order + 1;
                }
            }
            assert_eq!((class(set), class_of_many(set)), (best, best));
            assert_eq!([1, 2, 3, 5].map(|most| class_up_to(set, most)), [1, 2, 3, 5].map(|most| best.min(most)));
        }
        for (set, class_of_it) in [(0, 0), (1, 1), (Word::MAX, WORD_SHIFT + 1)] {
            assert_eq!((class(set), class_of_many(set)), (class_of_it, class_of_it));
        }
        // A single run of every length in every place, aligned or not.
        for count in 1..=Word::BITS as usize {
            for start in 0..=Word::BITS as usize - count {
                let set = run(start, count);
                assert_eq!(class_of_many(set), class(set), "{set:#x}");
                assert_eq!(class_of_many(!set), class(!set), "{:#x}", !set);
            }
        }
    }

    #[test]
    fn runs_of_any_length_agree_with_counting() {
        let mut seed = 0x5EED_0002u64;
        for _ in 0..if cfg!(miri) { 10 } else { 500 } {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let set = (seed >> 3 | seed << 11 | seed << 23) as Word;
            for set in [set, !set, 0, Word::MAX] {
                for count in 1..=Word::BITS as usize {
                    let naive = (0..=Word::BITS as usize - count)
                        .filter(|&s| set >> s & run(0, count) == run(0, count))
                        .fold(0, |a: Word, s| a | 1 << s);
                    assert_eq!(runs(set, count), naive, "{set:#x} runs of {count}");
                }
            }
        }
    }

    #[test]
    fn runs_and_orders_at_the_edges() {
        assert_eq!(run(0, Word::BITS as usize), Word::MAX);
        assert_eq!(run(3, 2), 0b11000);
        assert_eq!([1, 2, 3, 4, 5, 1024, 1025].map(order_for), [0, 1, 2, 2, 3, 10, 11]);
    }
}
