//! QEMU's `ramfb` on Arm: pixels in RAM, which the firmware's device, mapped uncached, is told of.

use super::{BYTES, HEIGHT, NoPicture, WIDTH, compare, draw};
use crate::board::{FW_CFG, IoMapping, Kernel, VmArea};
use rtmm::{AreaLife, AreaOptions, GFP_KERNEL, KBox, MmError};

/// Registers of the device (QEMU, docs/specs/fw_cfg).
const DATA: usize = 0;
const SELECTOR: usize = 8;
const DMA: usize = 16;
/// Items of it: that it is QEMU's, and the list of its files.
const SIGNATURE: u16 = 0;
const FILES: u16 = 0x19;
/// What a transfer is to do.
const DMA_ERROR: u32 = 1;
const DMA_SELECT: u32 = 1 << 3;
const DMA_WRITE: u32 = 1 << 4;
/// Pixels as little-endian words of red, green and blue: `XR24` (drm_fourcc.h).
const XRGB8888: u32 = u32::from_le_bytes(*b"XR24");

/// What the device is told of a transfer, big-endian.
#[repr(C)]
struct Transfer {
    control: u32,
    length: u32,
    address: u64,
}

/// What the display is told, big-endian (QEMU, hw/display/ramfb.c).
#[repr(C, packed)]
struct Setup {
    address: u64,
    format: u32,
    flags: u32,
    width: u32,
    height: u32,
    stride: u32,
}

/// The display, which shows the picture for as long as this lives.
pub struct Screen {
    device: IoMapping,
    memory: VmArea,
}

impl Screen {
    /// Maps the firmware's device, takes memory for the pixels, and turns the display on.
    ///
    /// # Errors
    /// When the machine has none, or a mapping or memory is refused.
    pub fn open() -> Result<Screen, NoPicture> {
        let device = IoMapping::new_in(FW_CFG.0, FW_CFG.1, Kernel)?;
        // Without an MMU an area is a run of pages at its physical address, as the display wants it.
        let options = AreaOptions::new().life(AreaLife::Long);
        let memory = VmArea::with_options_in(BYTES, &options, Kernel).map_err(MmError::from)?;
        let screen = Screen { device, memory };
        screen.select(SIGNATURE);
        if screen.bytes() != *b"QEMU" {
            return Err(NoPicture::Because("the firmware's device does not answer"));
        }
        let file =
            screen.file(b"etc/ramfb").ok_or(NoPicture::Because("there is no display: QEMU's is -device ramfb"))?;
        let setup = Setup {
            address: (screen.memory.as_ptr().addr() as u64).to_be(),
            format: XRGB8888.to_be(),
            flags: 0,
            width: (WIDTH as u32).to_be(),
            height: (HEIGHT as u32).to_be(),
            stride: (WIDTH as u32 * 4).to_be(),
        };
        let setup = KBox::new_in(setup, GFP_KERNEL, Kernel).map_err(MmError::from)?;
        screen.store(file, (&raw const *setup).addr(), size_of::<Setup>())?;
        Ok(screen)
    }

    /// Draws the picture, and reads it back.
    ///
    /// # Errors
    /// When what is there differs.
    pub fn show(&self) -> Result<(), NoPicture> {
        // SAFETY: the area is as long.
        unsafe { draw(self.memory.as_ptr()) };
        // SAFETY: as above.
        unsafe { compare(self.memory.as_ptr()) }
    }

    fn select(&self, item: u16) {
        let register = self.device.as_ptr().wrapping_add(SELECTOR).cast::<u16>();
        // SAFETY: a register of the device, whose mapping is live; it chooses what is read next.
        unsafe { register.write_volatile(item.to_be()) };
    }

    /// The next bytes of the item.
    fn bytes<const N: usize>(&self) -> [u8; N] {
        // SAFETY: as above; reading goes on in the item.
        core::array::from_fn(|_| unsafe { self.device.as_ptr().wrapping_add(DATA).read_volatile() })
    }

    /// The item of the file of this name.
    fn file(&self, name: &[u8]) -> Option<u16> {
        self.select(FILES);
        let files = u32::from_be_bytes(self.bytes());
        (0..files).find_map(|_| {
            let _size: [u8; 4] = self.bytes();
            let item = u16::from_be_bytes(self.bytes());
            let _reserved: [u8; 2] = self.bytes();
            let found: [u8; 56] = self.bytes();
            (found.starts_with(name) && found[name.len()] == 0).then_some(item)
        })
    }

    /// Stores bytes in an item, and waits until the device has them.
    fn store(&self, item: u16, address: usize, bytes: usize) -> Result<(), NoPicture> {
        let transfer = Transfer {
            control: (u32::from(item) << 16 | DMA_SELECT | DMA_WRITE).to_be(),
            length: (bytes as u32).to_be(),
            address: (address as u64).to_be(),
        };
        let transfer = KBox::new_in(transfer, GFP_KERNEL, Kernel).map_err(MmError::from)?;
        let at = &raw const *transfer;
        let register = self.device.as_ptr().wrapping_add(DMA).cast::<u64>();
        // SAFETY: as above; the transfer and what it names are live until the device is done.
        unsafe { register.write_volatile((at.addr() as u64).to_be()) };
        loop {
            // SAFETY: the device writes it meanwhile, as a whole word.
            let control = u32::from_be(unsafe { (&raw const (*at).control).read_volatile() });
            if control & DMA_ERROR != 0 {
                return Err(NoPicture::Because("the display refused its setup"));
            }
            if control == 0 {
                return Ok(());
            }
            core::hint::spin_loop();
        }
    }
}
