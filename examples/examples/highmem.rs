//! Shows memory without a kernel address: the zones, an area made of it, and its bytes through `kmap`.
#![no_std]
#![no_main]

use rtmm_examples::board::{self, ExitCode, MM, say};
use rtmm_examples::{highmem, tables};

board::entry!(main);

fn main() {
    MM.drain();
    let before = MM.free_page_count();
    tables::show(format_args!("on {}", board::NAME), 14);
    if let Err(reason) = highmem::show() {
        say!("FAILED: {}", reason);
        board::exit(ExitCode::Fail);
    }
    MM.drain();
    if MM.free_page_count() != before || MM.check().is_err() {
        say!("FAILED: {} pages were free before, {} are now", before, MM.free_page_count());
        board::exit(ExitCode::Fail);
    }
    say!("NOTHING LOST");
}
