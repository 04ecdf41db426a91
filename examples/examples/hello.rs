//! The first try: memory by every road, the tables, and nothing lost.
//!
//! `cargo run -p rtmm-examples --example hello` on the host; the same source runs on every board.
#![no_std]
#![no_main]

use rtmm::{Backend as _, GFP_KERNEL, MmError};
use rtmm_examples::board::{self, Backend, ExitCode, KBox, Kernel, MM, say};
use rtmm_examples::tables;

board::entry!(main);

fn main() {
    if let Err(error) = hello() {
        say!("hello failed: {}", error);
        board::exit(ExitCode::Fail);
    }
    board::exit(ExitCode::Pass);
}

fn hello() -> Result<(), MmError> {
    let before = MM.free_page_count();
    say!("hello from {}: {} pages free", board::NAME, before);

    let object = MM.kmalloc(100, GFP_KERNEL)?; // small and physically contiguous
    let pages = MM.get_free_pages(GFP_KERNEL, 3)?; // eight pages in one block
    // 1 MiB, or a quarter of a small board's memory: contiguous in virtual addresses at least
    let size = (1 << 20).min(before / 4 * Backend::PAGE_SIZE);
    let area = MM.vmalloc(size)?;
    let boxed = KBox::new_in([7u32; 16], GFP_KERNEL, Kernel)?; // owned: goes back by itself
    // SAFETY: `area` is as long, and ours until `vfree`.
    unsafe { area.as_ptr().write_bytes(boxed[0] as u8, size) };
    say!("kmalloc {:p}, pages {:p}, vmalloc {:p}, box {:p}", object, pages, area, &*boxed);
    tables::show(format_args!("with all of it live"), 12);

    drop(boxed);
    MM.vfree(area.as_ptr())?;
    MM.free_pages(pages.as_ptr(), 3)?;
    MM.kfree(object.as_ptr())?;
    MM.drain();
    say!("{} pages free again: nothing lost", MM.free_page_count());
    if MM.free_page_count() == before { Ok(()) } else { Err(MmError::Inval) }
}
