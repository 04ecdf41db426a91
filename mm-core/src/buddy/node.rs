//! A node of the tree: what its children hold, by order.

use super::MAX_ORDER_LIMIT;
use crate::bits::{Word, class_of_many, class_up_to};

/// Up to `Word::BITS` children and the orders of their free blocks; `WHOLE` is the order of a wholly free child.
///
/// A child's class is 0 when nothing of it is free, else one more than the order of its largest free block, and
/// `WHOLE + 1` when all of it is. It stands in the sets below its class and in no other, so the sets are nested. The
/// node's own class is kept beside them: who changes a node tells the one above what it was and what it is, and there
/// as many sets change as lie between, without a look at any of them.
///
/// `SETS` is one less than a power of two, so that a node's class is found by halving; the sets above `WHOLE` are empty.
#[repr(C)]
pub struct Node<const SETS: usize, const WHOLE: usize> {
    /// `has[k]`: children with a free block of order `k`.
    pub has: [Word; SETS],
    /// The node's class, at most `MAX_ORDER_LIMIT + 1`; kept where there is a node above.
    pub class: usize,
}

impl<const SETS: usize, const WHOLE: usize> Node<SETS, WHOLE> {
    const SOUND: () = assert!(SETS > WHOLE && (SETS + 1).is_power_of_two() && WHOLE < MAX_ORDER_LIMIT);

    /// The class of a node whose children have these sets.
    #[inline(always)]
    pub fn computed(&self) -> usize {
        match self.has[WHOLE] {
            0 => self.below_whole(),
            whole => WHOLE + Self::class_of_whole(whole),
        }
    }

    /// 1 for wholly free children that are no larger block side by side, and one more for each larger order that is of use.
    #[inline(always)]
    fn class_of_whole(set: Word) -> usize {
        const { Self::SOUND };
        if WHOLE + Word::BITS.ilog2() as usize <= MAX_ORDER_LIMIT {
            class_of_many(set)
        } else {
            class_up_to(set, MAX_ORDER_LIMIT + 1 - WHOLE)
        }
    }

    /// How many sets have a member, none of which is `WHOLE`.
    #[inline(always)]
    fn below_whole(&self) -> usize {
        let (mut k, mut half) = (0, SETS.div_ceil(2));
        while half != 0 {
            // SAFETY: `k` is a sum of larger powers of two, so the index is below `SETS`.
            if unsafe { *self.has.get_unchecked(k + half - 1) } != 0 {
                k += half;
            }
            half /= 2;
        }
        k
    }

    /// The child `bit`, of class `old` or above, but not above `new`, is of class `new` now. Returns the node's class
    /// before and after.
    ///
    /// # Safety
    /// `new` is at most `WHOLE + 1`.
    #[inline(always)]
    pub unsafe fn rise(&mut self, bit: Word, old: usize, new: usize) -> (usize, usize) {
        // SAFETY: by the caller, since `WHOLE` is below `SETS`.
        unsafe { add(&mut self.has, bit, old, new) };
        let was = self.class;
        if new > WHOLE {
            self.class = WHOLE + Self::class_of_whole(self.has[WHOLE]);
        } else if new > was {
            self.class = new;
        }
        (was, self.class)
    }

    /// The child `bit`, of class `old` or below, but not below `new`, is of class `new` now. Returns the node's class
    /// before and after.
    ///
    /// # Safety
    /// `old` is at most `WHOLE + 1`.
    #[inline(always)]
    pub unsafe fn fall(&mut self, bit: Word, old: usize, new: usize) -> (usize, usize) {
        let whole = self.has[WHOLE];
        // SAFETY: by the caller, since `WHOLE` is below `SETS`.
        unsafe { remove(&mut self.has, bit, old, new) };
        let was = self.class;
        if was > WHOLE {
            // A run of wholly free children may have become shorter.
            if self.has[WHOLE] != whole {
                self.class = self.computed();
            }
        } else if self.has.get(was.wrapping_sub(1)) == Some(&0) {
            self.class = self.below_whole();
        }
        (was, self.class)
    }

    /// The children `whole` are wholly free; the child `part`, if it is one, is of class `new`,
    /// which is not below the one it had. Returns the node's class before and after.
    ///
    /// # Safety
    /// `new` is at most `WHOLE + 1`.
    #[inline(always)]
    pub unsafe fn free(&mut self, whole: Word, part: Word, new: usize) -> (usize, usize) {
        for set in self.has.iter_mut().take(WHOLE + 1) {
            *set |= whole;
        }
        if part != 0 {
            // SAFETY: by the caller, since `WHOLE` is below `SETS`.
            unsafe { add(&mut self.has, part, 0, new) };
        }
        let was = self.class;
        self.class = WHOLE + Self::class_of_whole(self.has[WHOLE]);
        (was, self.class)
    }

    /// The children `whole` were wholly free and are wholly taken; the child `part`, if it is one, was wholly free and is
    /// of class `new`. Returns the node's class before and after.
    #[inline(always)]
    pub fn take(&mut self, whole: Word, part: Word, new: usize) -> (usize, usize) {
        for set in self.has.iter_mut().take(WHOLE + 1) {
            *set &= !whole;
        }
        if part != 0 {
            // SAFETY: `WHOLE` is below `SETS`.
            unsafe { remove(&mut self.has, part, WHOLE + 1, new) };
        }
        let was = self.class;
        self.class = self.computed();
        (was, self.class)
    }
}

/// Adds `bit` to the sets from `from`, which is not above `to`, to below `to`.
///
/// # Safety
/// There are `to` sets.
#[inline(always)]
pub unsafe fn add(sets: &mut [Word], bit: Word, from: usize, to: usize) {
    // SAFETY: by the caller.
    unsafe { each(sets, from, to, |set| *set |= bit) };
}

/// Removes `bit` from the sets from `from`, which is not above `to`, to below `to`.
///
/// # Safety
/// There are `to` sets.
#[inline(always)]
pub unsafe fn remove(sets: &mut [Word], bit: Word, to: usize, from: usize) {
    // SAFETY: by the caller.
    unsafe { each(sets, from, to, |set| *set &= !bit) };
}

/// Changes the sets from `from` to below `to`: eight, four, two of them at a time, and one. (A loop takes as long to begin as
/// to change seven sets.)
///
/// # Safety
/// There are `to` sets, and `from` is not above.
#[inline(always)]
unsafe fn each(sets: &mut [Word], from: usize, to: usize, change: impl Fn(&mut Word)) {
    debug_assert!(from <= to && to <= sets.len());
    let count = to - from;
    let mut at = sets.as_mut_ptr().wrapping_add(from);
    macro_rules! together {
        ($($n:literal)*) => {$(
            if $n <= sets.len() && count & $n != 0 {
                for k in 0..$n {
                    // SAFETY: below `to`.
                    change(unsafe { &mut *at.add(k) });
                }
                at = at.wrapping_add($n);
            }
        )*};
    }
    together!(8 4 2 1);
    let _ = at;
}
