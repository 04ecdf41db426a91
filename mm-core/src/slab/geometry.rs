//! How a slab is cut: slots, slack, and the multiplication that finds a slot.

use crate::backend::Backend;
use crate::bits::{WORD_SHIFT, Word};
#[cfg(feature = "small")]
use crate::meta::MetaSize;
use core::marker::PhantomData;

use super::{MAX_SLOTS, meta_size};

/// The most size classes kmalloc can have.
pub const MAX_CLASSES: usize = if cfg!(feature = "small") { 32 } else { 64 };
/// Largest class in bytes; larger requests take whole pages.
const LARGEST_CLASS: usize = 4096;

/// What the slabs of a cache of its own may be.
const OF_CACHE: Span = Span { pages: if cfg!(feature = "small") { 1 } else { 4 }, price: 40 };

/// Slabs of one page.
const PAGE: Span = Span { pages: 1, price: 0 };

/// How finely sizes are told apart, and how much memory a class takes at a time.
struct Grain {
    /// Classes from 64 bytes up: this many per doubling.
    per_octave: usize,
    /// Slabs of objects of up to 64 bytes.
    small: Span,
    /// Slabs of larger objects.
    large: Span,
}

/// How much memory a slab may take.
struct Span {
    /// Pages at most.
    pages: usize,
    /// What a page more must save, in ten-thousandths of the slab: what a class has in hand and others lack.
    price: usize,
}

impl Grain {
    /// Small pages are for machines of few of them, where what a class holds and others lack costs more than what
    /// rounding wastes: on a board with 46 KiB in pages of 1 KiB, objects of up to 256 bytes in random sizes fill 61 %
    /// so, and 10 % with the classes and slabs that are best for pages of 4 KiB.
    const fn of(page_size: usize) -> Grain {
        if page_size < 4096 {
            Grain { per_octave: 2, small: PAGE, large: PAGE }
        } else if cfg!(feature = "small") {
            // Each class takes its place in the tables, too.
            Grain { per_octave: 4, small: PAGE, large: PAGE }
        } else {
            // Most objects are small, and there are few classes of them: there what a slab's descriptor takes counts. Of
            // 3072 bytes and more no two fit a page, but six to nine fit five to eight.
            Grain { per_octave: 8, small: Span { pages: 8, price: 5 }, large: Span { pages: 8, price: 40 } }
        }
    }
}

/// How the slabs of one cache are cut.
#[derive(Clone, Copy)]
pub struct Geometry {
    /// Bytes from one slot to the next, a multiple of 8.
    pub size: u32,
    /// 2^32 / `size`, rounded up.
    pub recip: u32,
    /// Bytes before slot 0. All slack is in front: a spare slot behind the last would pass as one.
    pub slack: u32,
    /// Objects in a slab.
    pub slots: u16,
    /// Pages in a slab.
    pub pages: u16,
    /// How many frames of a slab carry its descriptor: all, but only the first when the only object begins there.
    pub marked: u16,
    /// Words of free bits.
    pub words: u8,
    /// The descriptor a slab needs.
    #[cfg(feature = "small")]
    pub descriptor: MetaSize,
    /// All bits of the last word.
    pub last: Word,
}

impl Geometry {
    const NONE: Geometry = Geometry {
        size: 0,
        recip: 0,
        slack: 0,
        slots: 0,
        pages: 0,
        marked: 0,
        words: 0,
        #[cfg(feature = "small")]
        descriptor: MetaSize::Small,
        last: 0,
    };

    /// Slabs of `pages` pages with `slots` slots of `size` bytes.
    pub(crate) const fn cut(size: usize, pages: usize, slots: usize, page_size: usize) -> Geometry {
        let words = slots.div_ceil(Word::BITS as usize);
        let rest = slots - ((words - 1) << WORD_SHIFT);
        Geometry {
            size: size as u32,
            recip: (1u64 << 32).div_ceil(size as u64) as u32,
            slack: (pages * page_size - slots * size) as u32,
            slots: slots as u16,
            pages: pages as u16,
            marked: if slots == 1 { 1 } else { pages as u16 },
            words: words as u8,
            #[cfg(feature = "small")]
            descriptor: super::meta_size(words),
            last: Word::MAX >> (Word::BITS as usize - rest),
        }
    }

    /// The best cut for objects of `size` bytes aligned to `align`, for a cache of its own.
    ///
    /// Up to four pages (one with feature `small`), whichever wastes least; one object per slab when it is larger. `size` is a multiple of
    /// `align`, `align` a power of two of at least 8.
    pub const fn for_cache(size: usize, align: usize, page_size: usize) -> Geometry {
        let (pages, slots) = best(size, page_size, &OF_CACHE, if size < 64 { MAX_SLOTS } else { 64 });
        if slots == 0 {
            return Geometry::cut(size, size.div_ceil(page_size), 1, page_size);
        }
        let mut g = Geometry::cut(size, pages, slots, page_size);
        // Slot 0 must be aligned: the slack is only used as far as the alignment allows, and the rest stays behind
        // the last slot, where it is smaller than `align` and so never reaches a whole slot.
        g.slack -= g.slack % align as u32;
        g
    }

    /// The cut for objects of `size` bytes aligned to `align`, with `zone` bytes before the first and behind each.
    #[cfg(feature = "slab-debug")]
    pub const fn for_guarded(size: usize, align: usize, zone: usize, page_size: usize) -> Geometry {
        let (slot, lead) = ((size + zone).next_multiple_of(align), zone.next_multiple_of(align));
        let (mut pages, mut best) = (0, (0, 0));
        while pages < OF_CACHE.pages {
            pages += 1;
            let fit = (pages * page_size).saturating_sub(lead) / slot;
            let slots = if fit > 64 { 64 } else { fit };
            // More of it used: slots / pages > best slots / best pages.
            if slots != 0 && (best.0 == 0 || slots * best.1 > best.0 * pages) {
                best = (slots, pages);
            }
        }
        if best.0 == 0 {
            best = (1, (lead + slot).div_ceil(page_size));
        }
        let mut g = Geometry::cut(slot, best.1, best.0, page_size);
        g.slack -= g.slack % align as u32;
        if g.slack as usize >= page_size {
            g.marked = g.pages;
        }
        g
    }

    /// The full set of bits of word `i`.
    #[inline(always)]
    pub const fn full(&self, i: usize) -> Word {
        if i + 1 == self.words as usize { self.last } else { Word::MAX }
    }

    /// The slot that begins `offset` bytes from the start of the slab; `None` when none does.
    ///
    /// One multiplication is the quotient and the test for divisibility: with `recip` = 2^32 / size rounded up, the
    /// low half of offset * recip is below `recip` exactly for multiples of `size`, as long as the slab's bytes times
    /// `size` stay below 2^32. (D. Lemire et al., "Faster remainder by direct computation", 2019.)
    #[inline(always)]
    pub fn slot(&self, offset: usize) -> Option<usize> {
        let at = (offset as u32).wrapping_sub(self.slack);
        let product = at as u64 * self.recip as u64;
        if (product as u32) < self.recip { Some((product >> 32) as usize) } else { None }
    }
}

/// The pages and slots that waste least, what the descriptor takes included, with a price on each page.
const fn best(size: usize, page_size: usize, span: &Span, max_slots: usize) -> (usize, usize) {
    let (mut best, mut best_cost, mut pages) = ((1, 0), usize::MAX, 1);
    while pages <= span.pages {
        let bytes = pages * page_size;
        let fit = bytes / size;
        let slots = if fit > max_slots { max_slots } else { fit };
        let natural = !size.is_power_of_two() || (pages.is_power_of_two() && (slots * size) == bytes);
        if slots != 0 && natural {
            let descriptor = meta_size(slots.div_ceil(Word::BITS as usize)).bytes();
            let cost = (bytes - slots * size + descriptor) * 10_000 / bytes + span.price * pages;
            if cost < best_cost {
                (best, best_cost) = ((pages, slots), cost);
            }
        }
        pages += 1;
    }
    best
}

/// The size classes of kmalloc for one page size.
pub struct Classes {
    /// The classes, by ascending size.
    pub geometry: [Geometry; MAX_CLASSES],
    /// How many there are.
    pub count: usize,
    /// The class of each size, in steps of 8 bytes.
    pub of: [u8; LARGEST_CLASS / 8 + 1],
    /// The largest size a class serves.
    pub largest: usize,
    /// Bytes of an object of each class that are its owner's.
    #[cfg(feature = "kmalloc-debug")]
    object: [u32; MAX_CLASSES],
}

impl Classes {
    /// Bytes of an object of a class that are its owner's.
    #[inline(always)]
    pub const fn object_size(&self, class: usize) -> usize {
        #[cfg(feature = "kmalloc-debug")]
        return self.object[class % MAX_CLASSES] as usize;
        #[cfg(not(feature = "kmalloc-debug"))]
        return self.geometry[class % MAX_CLASSES].size as usize;
    }

    /// The same classes, cut with red zones around their objects.
    #[cfg(feature = "kmalloc-debug")]
    const fn with_zones(mut self, page_size: usize) -> Classes {
        let mut class = 0;
        while class < self.count {
            let size = self.geometry[class].size as usize;
            self.object[class] = size as u32;
            // What sizes are aligned to, by the largest power of two that divides them.
            let align = size & size.wrapping_neg();
            let mut g = Geometry::for_guarded(size, align, super::ZONE, page_size);
            g.marked = g.pages;
            self.geometry[class] = g;
            class += 1;
        }
        self
    }

    /// Builds the table.
    ///
    /// Every multiple of 8 up to 64, then eight sizes an octave (four where code is to be small), each stretched to fill
    /// its slab. A size is served by the smallest class that holds it *and* is aligned to its largest power-of-two
    /// divisor; a power of two has a class of its own, aligned to itself.
    const fn build(page_size: usize) -> Classes {
        let largest = if page_size < LARGEST_CLASS { page_size } else { LARGEST_CLASS };
        let mut t = Classes {
            geometry: [Geometry::NONE; MAX_CLASSES],
            count: 0,
            of: [0; LARGEST_CLASS / 8 + 1],
            largest,
            #[cfg(feature = "kmalloc-debug")]
            object: [0; MAX_CLASSES],
        };
        let mut size = 8;
        let mut before = 0;
        while size <= largest {
            if size > before {
                let g = class(size, page_size);
                before = g.size as usize;
                t.geometry[t.count] = g;
                t.count += 1;
            }
            size = next(size, page_size);
        }
        let mut i = 0;
        while i <= largest / 8 {
            let want = if i == 0 { 8 } else { i * 8 };
            let align = want & want.wrapping_neg();
            let mut c = 0;
            while (t.geometry[c].size as usize) < want || !aligned(&t.geometry[c], align) {
                c += 1;
            }
            t.of[i] = c as u8;
            i += 1;
        }
        t
    }
}

const fn aligned(g: &Geometry, align: usize) -> bool {
    (g.size as usize).is_multiple_of(align) && (g.slack as usize).is_multiple_of(align)
}

/// The next wanted size after `size`.
const fn next(size: usize, page_size: usize) -> usize {
    if size < 64 {
        return size + 8;
    }
    let octave = 1 << (usize::BITS - 1 - size.leading_zeros());
    size + octave / Grain::of(page_size).per_octave
}

/// The class for a wanted size.
const fn class(size: usize, page_size: usize) -> Geometry {
    let grain = Grain::of(page_size);
    if size <= 64 {
        // Small objects are most of all: slabs that fill their pages wholly, as far as the descriptor's bits go.
        let (pages, slots) = best(size, page_size, &grain.small, MAX_SLOTS);
        return Geometry::cut(size, pages, slots, page_size);
    }
    let (pages, slots) = best(size, page_size, &grain.large, 64);
    let mut stretched = size;
    if !size.is_power_of_two() {
        stretched = pages * page_size / slots / 8 * 8;
        if stretched >= size.next_power_of_two() {
            stretched = size;
        }
    }
    Geometry::cut(stretched, pages, slots, page_size)
}

/// The table of a backend's page size.
pub struct ClassTable<B: Backend>(PhantomData<B>);

impl<B: Backend> ClassTable<B> {
    /// The table.
    #[cfg(not(feature = "kmalloc-debug"))]
    pub const TABLE: &'static Classes = &Classes::build(B::PAGE_SIZE);
    /// The table.
    #[cfg(feature = "kmalloc-debug")]
    pub const TABLE: &'static Classes = &Classes::build(B::PAGE_SIZE).with_zones(B::PAGE_SIZE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn tables() -> Vec<(usize, Classes)> {
        [256, 512, 1024, 2048, 4096].into_iter().map(|p| (p, Classes::build(p))).collect()
    }

    #[test]
    fn every_size_gets_a_class_that_holds_and_aligns_it() {
        for (page, t) in tables() {
            for size in 1..=t.largest {
                let g = &t.geometry[t.of[size.div_ceil(8)] as usize];
                assert!(g.size as usize >= size, "page {page} size {size}");
                let align = size & size.wrapping_neg();
                assert!(aligned(g, align.min(page)), "page {page} size {size} in class {}", g.size);
                if size.is_power_of_two() && size >= 8 {
                    assert_eq!(g.size as usize, size);
                }
            }
        }
    }

    #[test]
    fn slots_are_exactly_the_multiples() {
        for (page, t) in tables() {
            for g in &t.geometry[..t.count] {
                let bytes = g.pages as usize * page;
                assert!(g.slots as usize <= MAX_SLOTS);
                let step = if cfg!(miri) { 61 } else { 1 };
                for offset in (0..bytes).step_by(step) {
                    let want = offset
                        .checked_sub(g.slack as usize)
                        .filter(|o| o % g.size as usize == 0)
                        .map(|o| o / g.size as usize);
                    assert_eq!(g.slot(offset), want, "page {page} class {} offset {offset}", g.size);
                    assert!(want.is_none_or(|slot| slot < g.slots as usize));
                }
            }
        }
    }

    #[test]
    fn caches_of_any_size_are_cut_well() {
        for page in [512usize, 4096] {
            for align in [8usize, 16, 64, 256, page, 2 * page, 4 * page] {
                for size in (align..9 * page).step_by(align.max(if cfg!(miri) { 520 } else { 40 } / align * align)) {
                    let g = Geometry::for_cache(size, align, page);
                    let bytes = g.pages as usize * page;
                    assert!(g.slots >= 1 && (g.slack as usize).is_multiple_of(align));
                    assert!(g.slack as usize + g.slots as usize * size <= bytes);
                    // The buddy aligns a slab to no more than this.
                    assert!((page << g.pages.trailing_zeros()).is_multiple_of(align));
                    for offset in (0..bytes).step_by(8) {
                        let slot = g.slot(offset);
                        let exact = offset >= g.slack as usize && (offset - g.slack as usize).is_multiple_of(size);
                        match slot {
                            Some(s) if s < g.slots as usize => assert!(exact),
                            // A spare slot behind the last, or slack in front of the first: the cache refuses both.
                            Some(_) => assert!(!exact || offset >= g.slack as usize + g.slots as usize * size),
                            None => assert!(!exact),
                        }
                    }
                }
            }
        }
    }
}
