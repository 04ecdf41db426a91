//! Numbers near those that mean something.

use arbitrary::{Arbitrary, Result, Unstructured};

/// What the manager's constants lie near: words, classes, pages, slabs, units of address space, large entries, the
/// largest block, the largest area of a window of 16 MiB.
const LANDMARKS: [u64; 20] = [
    0, 8, 16, 64, 96, 128, 192, 512, 1024, 2048, 4096, 8192, 0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x10_0000, 0x20_0000,
    0x40_0000, 0x100_0000,
];

/// A size in bytes: a landmark, a few more or less; or any number of bytes to 64 KiB.
#[derive(Debug, Clone, Copy)]
pub struct Size(pub usize);

impl<'a> Arbitrary<'a> for Size {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let (which, by) = <(u8, u8)>::arbitrary(bytes)?;
        let landmark = LANDMARKS.get(usize::from(which) / 8);
        // Beyond the last landmark: most requests of a program are small.
        let Some(landmark) = landmark else { return Ok(Size(usize::from(by) << (which % 8))) };
        let near = landmark.wrapping_add_signed(i64::from(by as i8) >> (which % 8).min(6));
        Ok(Size(near.min(0x200_0000) as usize))
    }
}

/// An address or a length of a boot map, in a world of 512 bytes or near the end of all addresses.
#[derive(Debug, Clone, Copy)]
pub struct Place(pub u64);

impl<'a> Arbitrary<'a> for Place {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let (kind, number) = <(u8, u16)>::arbitrary(bytes)?;
        Ok(Place(match kind {
            0..192 => u64::from(number % 640),
            192..240 => u64::from(number % 40) * 16,
            _ => u64::MAX - u64::from(number % 640),
        }))
    }
}
