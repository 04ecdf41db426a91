//! The rows of vmalloc and ioremap.
//!
//! With several CPUs this one calls and the others, which sleep, are woken by shootdowns and answer them: the counter is
//! that of all.

use bench_board::board::{Backend, MM, mmio, say};
use bench_board::{Chain, Counter, Row, contiguous, room, window};
use bench_subject::Meter;
use bench_traces::{VMALLOC_ROWS, VmallocRow};
use core::hint::black_box;
use core::ptr::NonNull;
use rtmm::{Backend as _, GFP_KERNEL, Mm, Pfn, Platform, Prot};
use rtmm_examples::measure::median_and_worst;

#[cfg(not(feature = "smp"))]
use bench_board::{PAIR, manager};
#[cfg(not(feature = "smp"))]
use bench_subject::Borrowed;

#[cfg(feature = "smp")]
use crate::cpus::ALL_CPUS as PAIR;

/// Pairs that go before, so that what is measured is the steady state.
const WARM_UP: usize = 8;
/// Pairs of rows that have no number of their own.
const PAIRS: usize = 201;
/// Pairs of any row; a small board's stack has no room for more.
const MOST: usize = if Backend::PAGE_SIZE < 4096 { 201 } else { 2001 };
/// Memory of the manager whose free blocks are made small.
const ROOM: usize = 64 << 20;
/// Areas that are live in the churn, and its replaces.
const CHURN: (usize, usize) = (500, 4000);

/// The frame behind an address of an area, 0 when there is none: a single call, measured as those for objects and
/// pages are.
///
/// # Safety
/// `mm` is valid during the call.
#[inline(never)]
unsafe extern "C" fn to_page<P: Platform, B: rtmm::Backend>(
    mm: *mut Mm<P, B>,
    addr: usize,
    _: usize,
    _: usize,
) -> usize {
    // SAFETY: by the caller.
    let frame = unsafe { &*mm }.vmalloc_to_page(core::ptr::without_provenance(addr));
    frame.map_or(0, |frame| frame.0 as usize)
}

/// The vmalloc rows, nommu_vmalloc_1m, ioremap_64k, vmap_256, vm_map_ram_16, vmalloc_to_page.
pub fn rows(mut counter: Counter) -> Option<()> {
    // One more area stays live, so that no pair makes the first page table and takes the last one down again.
    let neighbour = MM.vmalloc(Backend::PAGE_SIZE).ok()?;
    for VmallocRow { id, size, pairs } in VMALLOC_ROWS {
        // What a board is too small for is left out, and so are its larger areas.
        if MM.vmalloc(size).map(|area| MM.vfree(area.as_ptr())).is_err() {
            say!("no {}: the board has no {} bytes for it", id, size);
            continue;
        }
        pair(&mut counter, id, pairs, || vmalloc(size))?;
    }
    if !Backend::HAS_MMU {
        let size = (1 << 20) + (4 << 10);
        if MM.vmalloc(size).map(|area| MM.vfree(area.as_ptr())).is_ok() {
            // A page over a power of two: exactly 257 pages are taken, and the tail of the block goes back.
            pair(&mut counter, "nommu_vmalloc_1m", PAIRS, || vmalloc(size))?;
        }
    } else {
        touched(&mut counter)?;
        churn(&mut counter)?;
        let (device, _) = mmio();
        pair(&mut counter, "ioremap_64k", PAIRS, || {
            let area = black_box(MM.ioremap(device, 64 << 10).ok()?);
            MM.iounmap(area.as_ptr()).ok()
        })?;
        mappings(&mut counter)?;
        // SAFETY: the manager is a static.
        let (frame, cost) =
            unsafe { counter.measure(to_page, (&raw const MM).cast_mut(), [neighbour.as_ptr().addr(), 0, 0]) };
        if frame == 0 {
            return None;
        }
        let unit = "instructions";
        Row { id: "vmalloc_to_page", unit, tenths: cost * 10, worst: Some(cost), peer: None }.print();
        let memory = contiguous(ROOM)?;
        #[cfg(not(feature = "smp"))]
        let mm = manager(Borrowed(MM.platform()), memory, ROOM, window()?)?;
        #[cfg(feature = "smp")]
        let mm = crate::cpus::manager_of_all(memory, ROOM, window()?)?;
        if usize::BITS == 64 {
            small_blocks(&mut counter, mm, "vmalloc_16m_4k", 16 << 20, 8)?;
        } else {
            say!("no vmalloc_16m_4k: another manager has too few addresses for it");
        }
        // The sizes of the rows above, of single frames no two of which are neighbours.
        for (id, size) in [
            ("vmalloc_16k_single", 16 << 10),
            ("vmalloc_64k_single", 64 << 10),
            ("vmalloc_1m_single", 1 << 20),
            ("vmalloc_16m_single", 16 << 20),
        ] {
            if usize::BITS == 64 || size <= 1 << 20 {
                small_blocks(&mut counter, mm, id, size, 0)?;
            }
        }
    }
    MM.vfree(neighbour.as_ptr()).ok()
}

fn vmalloc(size: usize) -> Option<()> {
    let area = black_box(MM.vmalloc(size).ok()?);
    MM.vfree(area.as_ptr()).ok()
}

/// 64 KiB with one word of each page written.
fn touched(counter: &mut Counter) -> Option<()> {
    pair(counter, "vmalloc_64k_touch", PAIRS, || {
        let area = black_box(MM.vmalloc(64 << 10).ok()?);
        for page in (0..64 << 10).step_by(Backend::PAGE_SIZE) {
            // SAFETY: inside the area, which is ours.
            unsafe { area.add(page).write_volatile(1) };
        }
        MM.vfree(area.as_ptr()).ok()
    })
}

/// 16 KiB, with hundreds of areas live and replaced at random.
fn churn(counter: &mut Counter) -> Option<()> {
    let areas = room::<NonNull<u8>>(CHURN.0);
    let mut rng = bench_traces::XorShift32::new(0x9e37_79b9);
    for area in areas.iter_mut() {
        *area = Some(MM.vmalloc(16 << 10).ok()?);
    }
    let (mut sum, mut worst) = (0u64, 0);
    for _ in 0..CHURN.1 {
        let place = rng.next() as usize % areas.len();
        let old = areas[place].take()?;
        let (new, cost) = counter.cost(|| {
            MM.vfree(old.as_ptr()).ok()?;
            MM.vmalloc(16 << 10).ok()
        });
        areas[place] = Some(new?);
        sum += u64::from(cost);
        worst = worst.max(cost);
    }
    for area in areas.iter_mut().filter_map(Option::take) {
        MM.vfree(area.as_ptr()).ok()?;
    }
    let tenths = (sum * 10 / CHURN.1 as u64) as u32;
    let unit =
        if cfg!(feature = "smp") { "instructions of all CPUs per pair, mean" } else { "instructions per pair, mean" };
    Row { id: "vmalloc_16k_churn", unit, tenths, worst: Some(worst), peer: None }.print();
    Some(())
}

/// Mappings of pages no two of which are neighbours, lowest first: vmap_256, vm_map_ram_16.
fn mappings(counter: &mut Counter) -> Option<()> {
    const PAGES: usize = 256;
    let mut pages = [Pfn(0); PAGES];
    let (mut mapped, mut between) = (Chain::new(), Chain::new());
    for page in &mut pages {
        let first = MM.get_free_page(GFP_KERNEL).ok()?;
        *page = MM.pfn_of(first.as_ptr())?;
        mapped.put(first);
        between.put(MM.get_free_page(GFP_KERNEL).ok()?);
    }
    // In how many runs they come depends on the rows before.
    pages.sort_unstable();
    pair(counter, "vmap_256", PAIRS, || {
        let area = black_box(MM.vmap(&pages, Prot::ReadWrite).ok()?);
        MM.vunmap(area.as_ptr()).ok()
    })?;
    let few = &pages[..16];
    pair(counter, "vm_map_ram_16", PAIRS, || {
        let area = black_box(MM.vm_map_ram(few).ok()?);
        MM.vm_unmap_ram(area.as_ptr(), few.len()).ok()
    })?;
    for chain in [&mut mapped, &mut between] {
        while let Some(page) = chain.take() {
            MM.free_page(page.as_ptr()).ok()?;
        }
    }
    Some(())
}

/// Areas of `size` bytes of a manager in which no two free blocks of `1 << order` pages are neighbours.
fn small_blocks<P: Platform>(
    counter: &mut Counter,
    mm: &Mm<P, Backend>,
    id: &str,
    size: usize,
    order: usize,
) -> Option<()> {
    let vmalloc = || {
        let area = black_box(mm.vmalloc(size).ok()?);
        mm.vfree(area.as_ptr()).ok()
    };
    // Descriptors and page tables find their place first.
    vmalloc()?;
    let (mut all, mut rests, mut kept) = (Chain::new(), Chain::new(), Chain::new());
    // Blocks come lowest first, so those of the list are neighbours.
    while let Ok(block) = mm.get_free_pages(GFP_KERNEL, order) {
        all.put(block);
    }
    // What is left in smaller blocks stays out of it.
    while let Ok(page) = mm.get_free_page(GFP_KERNEL) {
        rests.put(page);
    }
    let mut keep = false;
    while let Some(block) = all.take() {
        keep = !keep;
        if keep { kept.put(block) } else { mm.free_pages(block.as_ptr(), order).ok()? }
    }
    // The largest takes as long as many of the others.
    let done = pair(counter, id, if size > 1 << 20 { 41 } else { PAIRS }, vmalloc);
    while let Some(page) = rests.take() {
        mm.free_page(page.as_ptr()).ok()?;
    }
    while let Some(block) = kept.take() {
        mm.free_pages(block.as_ptr(), order).ok()?;
    }
    done
}

/// Measures a pair that many times and prints its row; `None` when one of them was refused.
fn pair(counter: &mut Counter, id: &str, pairs: usize, mut pair: impl FnMut() -> Option<()>) -> Option<()> {
    for _ in 0..WARM_UP {
        pair()?;
    }
    let mut samples = [0; MOST];
    let samples = &mut samples[..pairs.min(MOST)];
    for sample in samples.iter_mut() {
        let (done, cost) = counter.cost(&mut pair);
        done?;
        *sample = cost;
    }
    let (median, worst) = median_and_worst(samples);
    Row { id, unit: PAIR, tenths: median * 10, worst: Some(worst), peer: None }.print();
    Some(())
}
