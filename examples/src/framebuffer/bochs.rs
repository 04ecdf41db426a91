//! QEMU's `bochs-display` on x86: its registers through an uncached mapping, its memory through a write-combining one.

use super::{BYTES, HEIGHT, NoPicture, WIDTH, compare, draw};
use crate::board::{IoMapping, Kernel, MM, display};
use rtmm::{CacheMode, MmError};

/// Where the registers begin in their BAR, each of two bytes (QEMU, docs/specs/standard-vga).
const REGISTERS: usize = 0x500;
const ID: usize = 0;
const X_RESOLUTION: usize = 1;
const Y_RESOLUTION: usize = 2;
const BITS_PER_PIXEL: usize = 3;
const ENABLE: usize = 4;
/// ENABLE: on, and its memory is one long row of pixels.
const ON: u16 = 1 | 1 << 6;
/// The newest interface there is.
const VERSION: u16 = 0xb0c5;

/// The display, which shows the picture for as long as this lives.
pub struct Screen {
    registers: IoMapping,
    memory: IoMapping,
}

impl Screen {
    /// Maps the display's registers and memory, and turns it on.
    ///
    /// # Errors
    /// When the machine has none, or a mapping is refused.
    pub fn open() -> Result<Screen, NoPicture> {
        let display = display().ok_or(NoPicture::Because("there is no display: QEMU's is -device bochs-display"))?;
        if display.memory.1 < BYTES {
            return Err(NoPicture::Because("the display has too little memory"));
        }
        let registers = IoMapping::new_in(display.registers.0, display.registers.1, Kernel)?;
        let memory = IoMapping::with_cache_in(display.memory.0, BYTES, CacheMode::WriteCombining, Kernel)?;
        // The same memory in another cache mode would be two views that do not agree.
        match MM.ioremap(display.memory.0, BYTES) {
            Err(MmError::AliasConflict) => {}
            other => return Err(NoPicture::Refused(other.err().unwrap_or(MmError::Inval))),
        }
        let screen = Screen { registers, memory };
        if screen.read(ID) != VERSION {
            return Err(NoPicture::Because("the display does not answer as a Bochs one"));
        }
        screen.write(ENABLE, 0);
        screen.write(X_RESOLUTION, WIDTH as u16);
        screen.write(Y_RESOLUTION, HEIGHT as u16);
        screen.write(BITS_PER_PIXEL, 32);
        screen.write(ENABLE, ON);
        Ok(screen)
    }

    /// Draws the picture, and reads it back through another mapping.
    ///
    /// # Errors
    /// When that mapping is refused, or what it shows differs.
    pub fn show(&self) -> Result<(), NoPicture> {
        // SAFETY: the mapping is as long.
        unsafe { draw(self.memory.as_ptr()) };
        let display = display().ok_or(NoPicture::Because("the display went away"))?;
        let other = MM.ioremap_wc(display.memory.0, BYTES)?;
        assert_ne!(other.as_ptr(), self.memory.as_ptr());
        // SAFETY: as long, and mapped until the next line.
        let compared = unsafe { compare(other.as_ptr()) };
        MM.iounmap(other.as_ptr()).map_err(MmError::from)?;
        compared
    }

    fn register(&self, index: usize) -> *mut u16 {
        self.registers.as_ptr().wrapping_add(REGISTERS).cast::<u16>().wrapping_add(index)
    }

    fn read(&self, index: usize) -> u16 {
        // SAFETY: a register of the device, whose mapping is live.
        unsafe { self.register(index).read_volatile() }
    }

    fn write(&self, index: usize, value: u16) {
        // SAFETY: as above; the display shows its own memory only.
        unsafe { self.register(index).write_volatile(value) }
    }
}
