//! The longest stretch with interrupts masked, and what needs a manager of its own: large blocks, tables per frame.

use bench_board::board::{Backend, BoardPlatform, MM, say};
use bench_board::{Chain, Counter, Row, contiguous, manager, room, ticks, window};
use bench_peers::{Frames, Heap};
use bench_subject::{
    Block, Call, ExactPages, HeapCalls, Kernel, Masked, MaskedPlatform, Meter, Object, PageCalls, Side, Sink, Spans,
    Tick,
};
use bench_traces::{self as traces, Bytes, SplitMix64};
use core::ptr::NonNull;
use rtmm::{Backend as _, GFP_KERNEL, Mm, Platform};

/// The board's counter.
struct Board;

impl Tick for Board {
    fn now() -> u32 {
        ticks()
    }

    fn spans() -> &'static Spans {
        static SPANS: Spans = Spans::new();
        &SPANS
    }
}

type Watched = Mm<MaskedPlatform<BoardPlatform, Board>, Backend>;

/// masked_longest, page_order9 where there is a GiB for it, meta_frame.
pub fn rows(counter: Counter) -> Option<()> {
    Masked::<<BoardPlatform as Platform>::Lock, Board>::calibrate();
    let mut longest = Longest { counter, instructions: 0 };
    let len = (MM.free_page_count() * Backend::PAGE_SIZE / 2).min(48 << 20).next_power_of_two() / 2;
    let window = window()?;
    let made = contiguous(len)
        .and_then(|memory| Some((memory, manager(MaskedPlatform::new(MM.platform()), memory, len, window)?)));
    let Some((memory, mm)) = made else {
        say!("no masked_longest, no meta_frame: the board has no room for another manager");
        return Some(());
    };
    all_calls(mm, &mut longest)?;
    if len >> Backend::PAGE_SHIFT >= 1024 {
        metadata(memory, len)?;
    } else {
        say!("no meta_frame: of so few pages most would be what every manager has once");
    }
    large_blocks(&mut longest);
    let worst = longest.instructions;
    Row { id: "masked_longest", unit: "instructions", tenths: worst * 10, worst: Some(worst), peer: None }.print();
    Some(())
}

struct Longest {
    counter: Counter,
    instructions: u32,
}

impl Longest {
    /// Adds what was measured since the last call.
    fn add(&mut self, during: &str) {
        let (ticks, sections) = Board::spans().take();
        let instructions = self.counter.calibration().instructions(ticks.into()) as u32;
        say!("masked: {} instructions at most in {} sections of {}", instructions, sections, during);
        self.instructions = self.instructions.max(instructions);
    }
}

/// Makes calls without measuring them: the lock does.
struct Plain;

impl Meter for Plain {
    unsafe fn measure<T>(&mut self, call: Call<T>, subject: *mut T, [a, b, c]: [usize; 3]) -> (usize, u32) {
        // SAFETY: by the caller.
        (unsafe { call(subject, a, b, c) }, 0)
    }
}

impl Sink for Plain {
    fn put(&mut self, _: Side, _: u32) {}
}

fn bytes<H: Heap>(heap: &mut H, work: impl FnOnce(&mut HeapCalls<'_, H, Plain, Plain>)) {
    work(&mut HeapCalls { heap, meter: Plain, sink: &mut Plain });
}

fn pages<F: Frames>(frames: &mut F, work: impl FnOnce(&mut PageCalls<'_, F, Plain, Plain>)) {
    work(&mut PageCalls { frames, meter: Plain, sink: &mut Plain });
}

/// Every kind of call, in every state the workloads bring about.
fn all_calls(mm: &'static Watched, longest: &mut Longest) -> Option<()> {
    let small = |rng: &mut SplitMix64| Bytes::of(traces::size_small(rng));
    let free = mm.free_page_count();
    let slots = room::<Object>((free * Backend::PAGE_SIZE / 512).min(traces::SMALL_LIVE));
    let mut kernel = Kernel(mm);
    Board::spans().take();
    bytes(&mut kernel, |calls| {
        traces::cold(calls, slots, small);
    });
    longest.add("WC");
    bytes(&mut kernel, |calls| {
        traces::replaces(calls, (0, 20_000), slots, small);
    });
    longest.add("W3");
    bytes(&mut kernel, |calls| {
        for seed in 0..3 {
            traces::hunt_bytes(calls, traces::SEED + seed, 40, slots);
        }
    });
    longest.add("a hunt over sizes");
    let blocks = room::<Block>((free / 4).min(traces::BLOCKS_LIVE));
    pages(&mut kernel, |calls| {
        for seed in 0..4 {
            traces::hunt_pages(calls, traces::SEED + seed, 40, Backend::MAX_ORDER, blocks);
        }
    });
    longest.add("a hunt over orders");
    pages(&mut ExactPages(mm), |calls| {
        for seed in 0..4 {
            traces::hunt_exact(calls, traces::SEED + seed, 40, 1 << Backend::MAX_ORDER, blocks);
        }
    });
    longest.add("a hunt over numbers of pages");
    let areas = room::<NonNull<u8>>(64);
    for round in 0..40 {
        let size = 1 << (12 + round % 10);
        for area in areas.iter_mut() {
            *area = mm.vmalloc(size + (round << 8)).ok();
        }
        for area in areas.iter_mut().filter_map(Option::take) {
            mm.vfree(area.as_ptr()).ok()?;
        }
    }
    longest.add("vmalloc and vfree");
    // The frames that are left stand alone.
    let mut chain = Chain::new();
    while let Ok(page) = mm.get_free_page(GFP_KERNEL) {
        chain.put(page);
    }
    let mut every_other = Chain::new();
    let mut keep = false;
    while let Some(page) = chain.take() {
        keep = !keep;
        if keep { every_other.put(page) } else { mm.free_page(page.as_ptr()).ok()? }
    }
    longest.add("single pages");
    for _ in 0..8 {
        if let Ok(area) = mm.vmalloc((free / 8) * Backend::PAGE_SIZE) {
            mm.vfree(area.as_ptr()).ok()?;
        }
    }
    longest.add("vmalloc and vfree of single pages");
    while let Some(page) = every_other.take() {
        mm.free_page(page.as_ptr()).ok()?;
    }
    mm.drain();
    longest.add("freeing pages, and drain");
    if mm.free_page_count() != free {
        say!("{} pages are still in use", free - mm.free_page_count());
    }
    Some(())
}

/// meta_frame: what the manager keeps for itself, by its own account, with memory full of objects.
fn metadata(memory: NonNull<u8>, len: usize) -> Option<()> {
    let full = |size| {
        // The manager that had this memory is not used any more.
        let mm: &Watched = manager(MaskedPlatform::new(MM.platform()), memory, len, window()?)?;
        while mm.kmalloc(size, GFP_KERNEL).is_ok() {}
        let info = mm.meminfo();
        let frames = info.total >> Backend::PAGE_SHIFT;
        Some(((info.reserved + info.descriptors) * 10 / frames) as u32)
    };
    let (tenths, worst) = (full(64)?, full(8)?);
    let unit = "bytes per frame, full of objects of 64 bytes; worst: of 8";
    Row { id: "meta_frame", unit, tenths, worst: Some(worst.div_ceil(10)), peer: None }.print();
    Some(())
}

/// page_order9, on exactly a GiB of free frames.
fn large_blocks(longest: &mut Longest) -> Option<()> {
    if Backend::PAGE_SHIFT != 12 || Backend::MAX_ORDER < 9 {
        return None;
    }
    let slots = room::<Block>(traces::FRAMES);
    let gib = traces::FRAMES << Backend::PAGE_SHIFT;
    if slots.len() < traces::FRAMES {
        return None;
    }
    let memory = contiguous(gib + (32 << 20))?;
    let mut len = gib;
    loop {
        let mm: &Watched = manager(MaskedPlatform::new(MM.platform()), memory, len, window()?)?;
        let free = mm.free_page_count();
        if free == traces::FRAMES {
            Board::spans().take();
            let mut calls = PageCalls { frames: &mut Kernel(mm), meter: Plain, sink: &mut Plain };
            let found = traces::page_frag(&mut calls, None, slots);
            longest.add("P5");
            let (unit, tenths) = ("blocks of 512 pages, of 448", found.large_after_churn as u32 * 10);
            Row { id: "page_order9", unit, tenths, worst: None, peer: None }.print();
            return Some(());
        }
        if free > traces::FRAMES || len > gib + (32 << 20) {
            return None;
        }
        len += (traces::FRAMES - free) << Backend::PAGE_SHIFT;
    }
}
