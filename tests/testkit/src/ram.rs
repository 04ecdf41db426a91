//! Physical memory with holes.

use mm_core::PhysRange;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// Alignment that pointers share with physical addresses: as much as the largest block of pages has. Miri allocates
/// what is only for alignment too, so there it is what small tests need.
const ALIGN: usize = if cfg!(miri) { 1 << 16 } else { 1 << 25 };

/// RAM at given physical addresses, zeroed, and nothing between.
///
/// A range is one allocation with a stable address. Memory that is never touched costs nothing.
pub struct Ram {
    spans: Vec<Span>,
}

struct Span {
    range: PhysRange,
    /// What the host gave, and what it wants back.
    host: *mut u8,
    layout: Layout,
    /// Where physical address `range.start` is, inside `host`.
    base: *mut u8,
}

// SAFETY: a span is memory and its address. Races on its content are the affair of those who use the pointers.
unsafe impl Send for Ram {}
// SAFETY: as above; no method writes.
unsafe impl Sync for Ram {}

impl Ram {
    /// RAM in `ranges`, which do not overlap and are not empty.
    pub fn new(ranges: &[PhysRange]) -> Ram {
        let mut spans: Vec<Span> = Vec::new();
        for &range in ranges {
            assert!(!range.is_empty() && spans.iter().all(|span| !span.range.overlaps(range)), "bad range {range:x?}");
            // Over-allocated by hand: an aligned zeroed allocation would touch all of it.
            let layout = Layout::from_size_align(range.len() as usize + ALIGN, 16).expect("RAM of a size that exists");
            // SAFETY: the layout is not empty.
            let host = unsafe { alloc_zeroed(layout) };
            if host.is_null() {
                handle_alloc_error(layout);
            }
            let skip = (range.start as usize).wrapping_sub(host.addr()) & (ALIGN - 1);
            // SAFETY: `skip` is less than the extra that was allocated.
            spans.push(Span { range, host, layout, base: unsafe { host.add(skip) } });
        }
        Ram { spans }
    }

    /// The ranges, in the order given.
    pub fn ranges(&self) -> impl Iterator<Item = PhysRange> {
        self.spans.iter().map(|span| span.range)
    }

    /// True when all of the `len` bytes from `phys` on are RAM.
    pub fn contains(&self, phys: u64, len: u64) -> bool {
        self.span(phys).is_some_and(|span| len <= span.range.end - phys)
    }

    /// The host's pointer to `phys`; it reaches all of that range. `None` in a hole.
    pub fn ptr(&self, phys: u64) -> Option<*mut u8> {
        self.span(phys).map(|span| span.base.wrapping_add((phys - span.range.start) as usize))
    }

    /// The physical address behind the host's address `addr`.
    pub fn phys(&self, addr: usize) -> Option<u64> {
        let offset = |span: &Span| (addr.wrapping_sub(span.base.addr())) as u64;
        self.spans.iter().find(|span| offset(span) < span.range.len()).map(|span| span.range.start + offset(span))
    }

    /// Fills all of it with `byte`, as memory is found after power-on.
    pub fn fill(&mut self, byte: u8) {
        for span in &self.spans {
            // SAFETY: inside the allocation, and `&mut` says that nobody uses pointers into it now.
            unsafe { span.base.write_bytes(byte, span.range.len() as usize) };
        }
    }

    fn span(&self, phys: u64) -> Option<&Span> {
        self.spans.iter().find(|span| span.range.start <= phys && phys < span.range.end)
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        for span in &self.spans {
            // SAFETY: allocated in `new` with that layout.
            unsafe { dealloc(span.host, span.layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Ram {
        Ram::new(&[PhysRange { start: 0x1000, end: 0x9000 }, PhysRange { start: 0x1_0000_0000, end: 0x1_0000_4000 }])
    }

    #[test]
    fn pointers_and_addresses_are_each_other_s_inverse() {
        let ram = two();
        for phys in [0x1000, 0x8fff, 0x1_0000_0000, 0x1_0000_3fff] {
            let ptr = ram.ptr(phys).unwrap();
            assert_eq!(ram.phys(ptr.addr()), Some(phys));
            assert_eq!(ptr.addr() & (ALIGN - 1), phys as usize & (ALIGN - 1));
        }
        let base = ram.ptr(0x1000).unwrap().addr();
        assert_eq!((ram.phys(base - 1), ram.phys(base + 0x8000)), (None, None));
    }

    #[test]
    fn holes_have_no_pointer() {
        let ram = two();
        for phys in [0, 0xfff, 0x9000, 0x1_0000_4000, u64::MAX] {
            assert_eq!(ram.ptr(phys), None);
        }
        assert!(ram.contains(0x8000, 0x1000) && !ram.contains(0x8000, 0x1001) && !ram.contains(0x9000, 1));
    }

    #[test]
    fn a_fill_reaches_the_whole_range() {
        let mut ram = two();
        ram.fill(0xa5);
        for phys in [0x1000, 0x8fff, 0x1_0000_3fff] {
            // SAFETY: inside RAM.
            assert_eq!(unsafe { ram.ptr(phys).unwrap().read() }, 0xa5);
        }
    }
}
