//! A set of bytes, kept as few ranges as possible.

use crate::error::MmError;
use heapless::Vec;

/// A range of bytes with both ends inside, so that the last byte of the address space can be named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bytes {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Ascending ranges with a gap between each two; what a set holds does not depend on the order of insertions.
#[derive(Clone, Debug)]
pub(super) struct ByteSet<const N: usize> {
    ranges: Vec<Bytes, N>,
    /// How far the longest region that wrapped would have reached past 2^64.
    wrapped: u64,
}

impl<const N: usize> ByteSet<N> {
    pub(super) const fn new() -> Self {
        ByteSet { ranges: Vec::new(), wrapped: 0 }
    }

    /// The ranges, ascending, no two of which touch.
    pub(super) fn ranges(&self) -> &[Bytes] {
        &self.ranges
    }

    /// Adds `len` bytes from `base` on, and merges with what it overlaps or touches.
    pub(super) fn insert(&mut self, base: u64, len: u64) -> Result<(), MmError> {
        let Some(span) = len.checked_sub(1) else { return Ok(()) };
        let (last, wraps) = base.overflowing_add(span);
        let (last, past) = if wraps { (u64::MAX, last + 1) } else { (last, 0) };
        self.merge(Bytes { first: base, last })?;
        self.wrapped = self.wrapped.max(past);
        Ok(())
    }

    /// How many ranges pass `limit` (the last address there is), and by how many bytes in all.
    pub(super) fn past(&self, limit: u64) -> (usize, u64) {
        let mut regions = 0;
        let mut bytes = 0u64;
        for r in self.ranges.iter().filter(|r| r.last > limit) {
            let most = r.last - r.first.max(limit + 1) + 1;
            bytes = bytes.saturating_add(most);
            regions += 1;
        }
        (regions, bytes.saturating_add(self.wrapped))
    }

    fn merge(&mut self, new: Bytes) -> Result<(), MmError> {
        let before = |r: &Bytes| r.last.checked_add(1).is_some_and(|end| end < new.first);
        let after = |r: &Bytes| new.last.checked_add(1).is_some_and(|end| end < r.first);
        let low = self.ranges.partition_point(before);
        let high = self.ranges.partition_point(|r| !after(r));
        if low == high {
            return insert(&mut self.ranges, low, new);
        }
        let first = self.ranges[low].first.min(new.first);
        let last = self.ranges[high - 1].last.max(new.last);
        self.ranges[low] = Bytes { first, last };
        for _ in low + 1..high {
            remove(&mut self.ranges, low + 1);
        }
        Ok(())
    }
}

/// [`Vec::insert`] by exchanges, since that, and [`slice::swap`] too, would bring the library's `memmove`, which is larger
/// than all that is done here.
pub(super) fn insert<T: Copy, const N: usize>(list: &mut Vec<T, N>, at: usize, item: T) -> Result<(), MmError> {
    list.push(item).map_err(|_| MmError::TooManyRegions)?;
    for i in (at + 1..list.len()).rev() {
        (list[i - 1], list[i]) = (list[i], list[i - 1]);
    }
    Ok(())
}

/// [`Vec::remove`], by exchanges too.
pub(super) fn remove<T: Copy, const N: usize>(list: &mut Vec<T, N>, at: usize) {
    for i in at + 1..list.len() {
        (list[i - 1], list[i]) = (list[i], list[i - 1]);
    }
    list.pop();
}
