//! Why a goal is missed.

/// What stands in the way of a goal, by the figure's name: said on the page as long as the goal is missed.
///
/// Where a number of instructions is named, they were counted on a trace of the call on the row's board.
const REASONS: &[(&str, &str)] = &[
    (
        "flat_objects",
        "nothing is searched, and no call grows beyond a fixed number of steps. But among very many objects nearly every \
         free meets a full word of slots and nearly every allocation uses one up, which takes 63 and 51 instructions instead of 46 \
         and 31; few objects leave the word at hand as it is.",
    ),
    (
        "meta_frame",
        "a frame's record is 8 bytes, the tree of free blocks 1.25, and a page of 64-byte slots has 8 bytes of bits: 17.25 \
         before any descriptor has a header. The header names the slab's place, class and neighbours, so that a free is \
         checked without touching the objects.",
    ),
    (
        "size_kmalloc",
        "about 400 bytes are the search of zones for exactly as many pages, marks and reserves included, 100 tell one wrong free from another, 100 are the report of a flag that may wait, 140 the ten sections under a lock. With all of these there is little left to take out: some 100 to 150 bytes.",
    ),
    (
        "kmalloc_worst",
        "the first object of a slab whose descriptor needs a page of its own takes two blocks of pages, each of which alone may \
         cost page_worst_exact.",
    ),
    (
        "vmalloc_4k",
        "six sections under a lock (36), two looks at the context (20), the frame's take (25) and give with its checks (48), address space (70 on the free alone), guard and record with their checks (50), prologues of the functions (30), and the entries.",
    ),
    (
        "vmalloc_1m",
        "912 to look at and write 256 entries, 410 to clear them, both in holds of the lock of 32; 620 for the block of pages; the \
         rest as for small areas.",
    ),
    (
        "vmalloc_16m",
        "the largest block of pages is 4 MiB: four are taken and given, which is about 2150. Then come the large entries (800), and the search for the lowest run of address space through the levels of its tree, cut into steps that keep masked_longest.",
    ),
    (
        "ioremap_64k",
        "about 120 are the entries (looked at, written, cleared) and the flush of 16 pages, 190 the address space and the record, 120 the calls, 35 the list of mappings by cache mode; counted as they are, 620 could be reached.",
    ),
    (
        "vmap_256",
        "12.6 for each page: read, hold against the one before (a page given twice is refused), look at its record (a page the caller does not own is refused), look at the old entry, compute and write the new one, clear it. Ten of these remain when loops cost nothing: 2560 before any call.",
    ),
    (
        "vm_map_ram_16",
        "13 for each page, as vmap_256 and the flush of the page: 208. Of the other 320 about half are the checks of two calls, the search for a run of slots and three sections under a lock: 340 in all could be reached.",
    ),
    (
        "vmalloc_16m_4k",
        "each of 4096 entries is looked at, computed, written and cleared, with a pause after every 32, or 64 that are cleared.",
    ),
    (
        "vmalloc_1m_single",
        "each of 256 frames is taken (18), mapped (6), unmapped (20) and given (17), in holds of the lock that stay below \
         masked_longest.",
    ),
    (
        "masked_longest",
        "steps in the tree of address space for large areas. Shorter steps would cost every such call more.",
    ),
];

/// Why the figure `id` misses its goal, if that is known.
pub fn reason(id: &str) -> Option<&'static str> {
    REASONS.iter().find(|(of, _)| *of == id).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_one_reason_that_is_a_sentence() {
        for (at, (id, why)) in REASONS.iter().enumerate() {
            assert!(REASONS[..at].iter().all(|(other, _)| other != id), "{id} is there twice");
            assert!(why.ends_with('.') && !why.contains("  "), "{id}: {why}");
        }
    }
}
