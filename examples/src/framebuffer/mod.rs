//! A picture on the machine's display: what both kinds of display share.

#[cfg(any(feature = "board-qemu-x86_64", feature = "board-qemu-i586"))]
mod bochs;
#[cfg(feature = "board-virt-aarch64")]
mod ramfb;

#[cfg(any(feature = "board-qemu-x86_64", feature = "board-qemu-i586"))]
pub use bochs::Screen;
#[cfg(feature = "board-virt-aarch64")]
pub use ramfb::Screen;

use core::fmt;
use crc32fast::Hasher;
use rtmm::MmError;

/// Pixels of a line, and lines.
pub const WIDTH: usize = 640;
/// Lines.
pub const HEIGHT: usize = 400;
/// Bytes of a picture, four for each pixel.
pub const BYTES: usize = WIDTH * HEIGHT * 4;

/// Why there is no picture.
#[derive(Debug)]
pub enum NoPicture {
    /// This.
    Because(&'static str),
    /// The manager refused something.
    Refused(MmError),
    /// What was drawn is not there.
    Differs(usize),
}

impl From<MmError> for NoPicture {
    fn from(error: MmError) -> Self {
        NoPicture::Refused(error)
    }
}

impl fmt::Display for NoPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPicture::Because(why) => f.write_str(why),
            NoPicture::Refused(error) => write!(f, "{error}"),
            NoPicture::Differs(pixel) => write!(f, "pixel {pixel} is not what was drawn"),
        }
    }
}

/// A pixel of the picture, as red, green and blue: a disc on slanted bars that shade off downwards.
pub fn pixel(x: usize, y: usize) -> [u8; 3] {
    let (dx, dy) = (x as isize - WIDTH as isize / 2, y as isize - HEIGHT as isize / 2);
    if dx * dx + dy * dy < 120 * 120 {
        return [250, (x * 255 / WIDTH) as u8, 40];
    }
    let bar = ((x + y) / 32 % 8) as u8;
    let shade = (255 - y * 200 / HEIGHT) as u8;
    [0, 1, 2].map(|channel| if bar >> channel & 1 == 1 { shade } else { 255 - shade })
}

/// The picture's CRC-32, as a file of pixels of three bytes has it.
pub fn crc() -> u32 {
    let mut hasher = Hasher::new();
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            hasher.update(&pixel(x, y));
        }
    }
    hasher.finalize()
}

/// Draws the picture into memory of a display.
///
/// # Safety
/// [`BYTES`] bytes from `memory` on are the display's, and mapped.
pub unsafe fn draw(memory: *mut u8) {
    for index in 0..WIDTH * HEIGHT {
        let [red, green, blue] = pixel(index % WIDTH, index / WIDTH);
        let colour = u32::from_be_bytes([0, red, green, blue]);
        // SAFETY: a pixel of them; the display reads them as little-endian words.
        unsafe { memory.cast::<u32>().add(index).write_volatile(colour.to_le()) };
    }
}

/// Compares memory of a display with the picture.
///
/// # Errors
/// The first pixel that differs.
///
/// # Safety
/// As [`draw`].
pub unsafe fn compare(memory: *const u8) -> Result<(), NoPicture> {
    for index in 0..WIDTH * HEIGHT {
        // SAFETY: as there.
        let seen = u32::from_le(unsafe { memory.cast::<u32>().add(index).read_volatile() });
        let [red, green, blue] = pixel(index % WIDTH, index / WIDTH);
        if seen & 0xff_ffff != u32::from_be_bytes([0, red, green, blue]) {
            return Err(NoPicture::Differs(index));
        }
    }
    Ok(())
}
