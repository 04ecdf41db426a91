//! The command line given by the runner.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use critical_section::CriticalSection;
use semihosting::sys::arm_compat::sys_get_cmdline_uninit;

/// A test's command line and a file's path fit; a longer one is refused by the host, and reads as empty.
const LONGEST: usize = 1024;

struct CommandLine {
    buffer: UnsafeCell<[MaybeUninit<u8>; LONGEST]>,
    /// `None` until the host was asked.
    text: UnsafeCell<Option<&'static str>>,
}

// SAFETY: both cells are touched only in a critical section; the buffer is never written after `text` points at it.
unsafe impl Sync for CommandLine {}

static COMMAND_LINE: CommandLine =
    CommandLine { buffer: UnsafeCell::new([MaybeUninit::uninit(); LONGEST]), text: UnsafeCell::new(None) };

/// The command line, words parted by blanks; empty when the host gives none.
pub fn args() -> &'static str {
    critical_section::with(|section| COMMAND_LINE.get(section))
}

impl CommandLine {
    fn get(&'static self, _: CriticalSection<'_>) -> &'static str {
        // SAFETY: we are in a critical section, and no reference to the cell outlives this function.
        let text = unsafe { &mut *self.text.get() };
        text.get_or_insert_with(|| {
            // SAFETY: `text` was `None`, so this is the only borrow of the buffer there ever is.
            let buffer: &'static mut [MaybeUninit<u8>] = unsafe { &mut *self.buffer.get() };
            let bytes: &'static [u8] = sys_get_cmdline_uninit(buffer).map_or(&[], |bytes| bytes);
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            core::str::from_utf8(&bytes[..end]).unwrap_or("")
        })
    }
}
