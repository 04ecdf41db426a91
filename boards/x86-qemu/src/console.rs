//! The console: text on the first serial port, and defmt frames on the debug port.
//!
//! With one CPU no asynchronous interrupt writes here, so a line needs no lock; that also lets the fault reporter
//! write at any moment. With several, a line is a critical section, which the CPU that is in one already can enter.

use core::fmt::{self, Write};
use x86::io::{inb, outb};

/// The first serial port (16550).
const COM1: u16 = 0x3f8;
/// Line status: the transmitter can take a byte.
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// 115200 baud, 8N1, no interrupts.
pub fn init() {
    for (register, value) in [(1, 0x00), (3, 0x80), (0, 0x01), (1, 0x00), (3, 0x03), (2, 0xc7), (4, 0x03)] {
        // SAFETY: the registers of a serial port; writing them touches no memory.
        unsafe { outb(COM1 + register, value) };
    }
}

/// The serial port as a text sink.
struct Serial;

impl Serial {
    fn put(&mut self, byte: u8) {
        // SAFETY: as in `init`. An absent port reads as all ones, which ends the wait.
        unsafe {
            while inb(COM1 + 5) & TRANSMITTER_EMPTY == 0 {}
            outb(COM1, byte);
        }
    }
}

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.put(byte));
        Ok(())
    }
}

/// One line of text for people; what `say!` calls.
#[doc(hidden)]
pub fn line(text: fmt::Arguments<'_>) {
    #[cfg(not(feature = "defmt"))]
    urgent(text);
    #[cfg(feature = "defmt")]
    defmt::println!("{}", defmt::Display2Format(&text));
}

/// One line on the serial port in every build: faults, panics, and what the runner must see before them. A defmt frame
/// may be half written when these happen.
pub fn urgent(text: fmt::Arguments<'_>) {
    // A line of one CPU is not cut by another's.
    #[cfg(feature = "smp")]
    let written = critical_section::with(|_| writeln!(Serial, "{text}"));
    #[cfg(not(feature = "smp"))]
    let written = writeln!(Serial, "{text}");
    // Serial never fails; a Display that does has said what it could.
    let _ = written;
}

/// A line of text on the console, with `format!`'s arguments.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => { $crate::line(::core::format_args!($($arguments)*)) };
}

#[cfg(feature = "defmt")]
mod frames {
    use core::cell::{Cell, UnsafeCell};
    use critical_section::RestoreState;
    use x86::io::outb;

    /// QEMU's debug port; `-debugcon` says where it goes.
    const DEBUG_PORT: u16 = 0xe9;

    struct Encoder {
        frame: UnsafeCell<defmt::Encoder>,
        open: Cell<bool>,
        restore: Cell<RestoreState>,
    }

    // SAFETY: everything in it is touched with interrupts off on the only CPU.
    unsafe impl Sync for Encoder {}

    static ENCODER: Encoder = Encoder {
        frame: UnsafeCell::new(defmt::Encoder::new()),
        open: Cell::new(false),
        restore: Cell::new(RestoreState::invalid()),
    };

    fn put(bytes: &[u8]) {
        for &byte in bytes {
            // SAFETY: a port that only takes bytes.
            unsafe { outb(DEBUG_PORT, byte) };
        }
    }

    #[defmt::global_logger]
    struct Frames;

    // SAFETY: a frame is open from `acquire` to `release` with interrupts off, and `open` refuses a second one inside.
    unsafe impl defmt::Logger for Frames {
        fn acquire() {
            // SAFETY: `release` restores this state; frames do not overlap, so the sections nest.
            let restore = unsafe { critical_section::acquire() };
            assert!(!ENCODER.open.replace(true), "a log statement inside the formatting of another");
            ENCODER.restore.set(restore);
            // SAFETY: this frame is the only one.
            unsafe { (*ENCODER.frame.get()).start_frame(put) };
        }

        // Bytes leave as they are written.
        unsafe fn flush() {}

        unsafe fn release() {
            // SAFETY: the frame that `acquire` opened.
            unsafe { (*ENCODER.frame.get()).end_frame(put) };
            ENCODER.open.set(false);
            // SAFETY: the state of the matching `acquire`.
            unsafe { critical_section::release(ENCODER.restore.get()) };
        }

        unsafe fn write(bytes: &[u8]) {
            // SAFETY: the frame that `acquire` opened.
            unsafe { (*ENCODER.frame.get()).write(bytes, put) };
        }
    }

    defmt::timestamp!("{=u64}", crate::instructions());
}
