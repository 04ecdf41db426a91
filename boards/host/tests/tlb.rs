//! The process's mappings behave as a TLB does: filled on a miss, stale until flushed.

use board_host::{Backend, MM, init};
use rtmm::{
    Backend as _, CacheMode, GFP_KERNEL, PageRange, PageTable, Pfn, Prot, TableFrames, VirtAddr, VirtRange, Walk,
};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

const PAGE: usize = 4096;
const LARGE: usize = 2 << 20;
/// The last 16 MiB of the vmalloc window: the manager takes the lowest addresses, and comes nowhere near.
const FREE: usize = 0x0900_4000_0000 - (16 << 20);

/// The machine and its tables, for one test at a time.
fn machine() -> (MutexGuard<'static, ()>, &'static Backend) {
    static ONCE: Once = Once::new();
    static TURN: Mutex<()> = Mutex::new(());
    ONCE.call_once(init);
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), MM.backend())
}

/// Table frames from the manager, counted as it counts them.
#[derive(Default)]
struct Tables {
    hand: Vec<Pfn>,
    entries: HashMap<u32, u32>,
    retired: Vec<Pfn>,
}

impl Tables {
    fn new() -> Self {
        let hand = (0..Backend::MAX_TABLES).map(|_| frame(0)).collect();
        Tables { hand, ..Tables::default() }
    }

    /// Everything goes back to the manager, after a flush.
    fn close(self) {
        for pfn in self.hand.into_iter().chain(self.retired) {
            give_back(pfn, 0);
        }
    }
}

impl TableFrames for Tables {
    fn in_hand(&self) -> usize {
        self.hand.len()
    }
    fn take(&mut self) -> Pfn {
        self.hand.pop().expect("no more than were in hand")
    }
    fn add_entries(&mut self, table: Pfn, entries: u32) {
        *self.entries.entry(table.0).or_default() += entries;
    }
    fn sub_entries(&mut self, table: Pfn, entries: u32) -> u32 {
        let left = self.entries.get_mut(&table.0).expect("a counted table");
        *left -= entries;
        *left
    }
    fn retire(&mut self, table: Pfn) {
        self.retired.push(table);
    }
}

/// A zeroed block of the manager.
fn frame(order: usize) -> Pfn {
    let block = MM.get_free_pages(GFP_KERNEL | rtmm::Gfp::ZERO, order).expect("memory");
    Pfn(MM.backend().direct_frame(block.as_ptr().addr()) as u32)
}

fn give_back(pfn: Pfn, order: usize) {
    MM.free_pages(direct(pfn).cast(), order).expect("a block of the manager");
}

fn direct(pfn: Pfn) -> *mut u32 {
    MM.backend().direct_ptr((pfn.0 as usize) << Backend::PAGE_SHIFT).cast()
}

fn map(backend: &Backend, at: usize, start: Pfn, count: u32, prot: Prot, tables: &mut Tables) {
    let run = PageRange { start, count };
    let cache = CacheMode::WriteBack;
    // SAFETY: the tests take turns, nobody else uses this end of the window, and the frames are the test's.
    let mapped = unsafe { backend.map(backend.kernel_root(), VirtAddr(at), run, prot, cache, tables) };
    assert_eq!(mapped, Ok(count));
}

fn unmap(backend: &Backend, at: usize, count: u32, tables: &mut Tables) {
    // SAFETY: as in `map`; the tests flush before they reuse anything, which is what they are about.
    let cleared = unsafe { backend.unmap(backend.kernel_root(), VirtAddr(at), count, tables, &mut |_, most| most) };
    assert_eq!(cleared, count);
}

fn flush(backend: &Backend, start: usize, pages: usize) {
    backend.flush(VirtRange { start, end: start + pages * PAGE });
}

/// True when the process has memory at `at`: asked of the system, which does not fault.
fn is_cached(at: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let hex = |text: &str| usize::from_str_radix(text, 16).expect("a hexadecimal address");
    maps.lines().any(|line| {
        let (range, rest) = line.split_once(' ').expect("a range and more");
        let (start, end) = range.split_once('-').expect("two ends");
        hex(start) <= at && at < hex(end) && rest.starts_with('r')
    })
}

fn load(at: usize) -> u32 {
    // SAFETY: the test mapped `at`, in the tables or before in the mirror.
    unsafe { std::ptr::with_exposed_provenance::<u32>(at).read_volatile() }
}

fn store(at: usize, value: u32) {
    // SAFETY: the test mapped `at`, and nobody else uses its frame.
    unsafe { std::ptr::with_exposed_provenance_mut::<u32>(at).write_volatile(value) }
}

#[test]
fn an_entry_is_taken_on_the_first_touch() {
    let (_turn, backend) = machine();
    let (mut tables, block) = (Tables::new(), frame(1));
    map(backend, FREE, block, 2, Prot::ReadWrite, &mut tables);
    assert!(!is_cached(FREE));
    store(FREE, 77);
    assert!(is_cached(FREE));
    assert!(!is_cached(FREE + PAGE));
    // SAFETY: the direct map reaches every frame of the manager.
    assert_eq!(unsafe { direct(block).read_volatile() }, 77);
    unmap(backend, FREE, 2, &mut tables);
    flush(backend, FREE, 2);
    tables.close();
    give_back(block, 1);
}

#[test]
fn an_entry_is_stale_until_it_is_flushed() {
    let (_turn, backend) = machine();
    let (mut tables, old, new) = (Tables::new(), frame(0), frame(0));
    map(backend, FREE, old, 1, Prot::ReadWrite, &mut tables);
    store(FREE, 1);
    unmap(backend, FREE, 1, &mut tables);
    assert_eq!(backend.walk_kernel(VirtAddr(FREE)), Walk::Absent);
    assert_eq!(load(FREE), 1, "the TLB still has it");
    flush(backend, FREE, 1);
    assert!(!is_cached(FREE));

    tables.hand.append(&mut tables.retired);
    for pfn in &tables.hand {
        // SAFETY: retired and flushed, so the tables are the test's again.
        unsafe { direct(*pfn).cast::<u8>().write_bytes(0, PAGE) };
    }
    map(backend, FREE, new, 1, Prot::ReadWrite, &mut tables);
    assert_eq!(load(FREE), 0, "the new frame, not the old one");
    unmap(backend, FREE, 1, &mut tables);
    flush(backend, FREE, 1);
    tables.close();
    give_back(old, 0);
    give_back(new, 0);
}

#[test]
fn flushing_one_page_of_a_large_entry_drops_it_whole() {
    let (_turn, backend) = machine();
    let at = FREE + 2 * LARGE;
    let (mut tables, block) = (Tables::new(), frame(9));
    map(backend, at, block, Backend::LARGE_PAGES, Prot::ReadWrite, &mut tables);
    store(at + 5 * PAGE, 99);
    assert!(is_cached(at + LARGE - PAGE), "one entry, one miss");
    unmap(backend, at, Backend::LARGE_PAGES, &mut tables);
    flush(backend, at + 3 * PAGE, 1);
    assert!(!is_cached(at) && !is_cached(at + 5 * PAGE) && !is_cached(at + LARGE - PAGE));
    tables.close();
    give_back(block, 9);
}

#[test]
fn a_flush_of_many_pages_drops_everything() {
    let (_turn, backend) = machine();
    let (mut tables, block) = (Tables::new(), frame(0));
    map(backend, FREE, block, 1, Prot::ReadWrite, &mut tables);
    store(FREE, 1);
    flush(backend, FREE + LARGE, Backend::FLUSH_ALL_PAGES + 1);
    assert!(!is_cached(FREE));
    assert_eq!(load(FREE), 1, "still in the tables, so a miss brings it back");
    unmap(backend, FREE, 1, &mut tables);
    flush(backend, FREE, 1);
    tables.close();
    give_back(block, 0);
}

#[test]
fn an_executable_page_executes() {
    /// `mov eax, 42; ret`
    const CODE: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3];
    let (_turn, backend) = machine();
    let (mut tables, block) = (Tables::new(), frame(0));
    // SAFETY: the frame is the test's, and reached by the direct map.
    unsafe { direct(block).cast::<[u8; 6]>().write(CODE) };
    map(backend, FREE, block, 1, Prot::ReadExecute, &mut tables);
    // SAFETY: the code above is a function of that type.
    let function = unsafe { std::mem::transmute::<usize, extern "C" fn() -> u32>(FREE) };
    assert_eq!(function(), 42);
    unmap(backend, FREE, 1, &mut tables);
    flush(backend, FREE, 1);
    tables.close();
    give_back(block, 0);
}
