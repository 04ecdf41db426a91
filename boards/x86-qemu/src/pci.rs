//! PCI: the configuration space by its two ports, and the display among the devices of bus 0.

use pci_types::{Bar, CommandRegister, ConfigRegionAccess, EndpointHeader, MAX_BARS, PciAddress, PciHeader};
use rtmm::PhysAddr;
use x86::io::{inl, outl};

/// Configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2).
const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// QEMU's `bochs-display` and `VGA` (docs/specs/pci-ids, docs/specs/standard-vga): vendor and device.
const DISPLAY: (u16, u16) = (0x1234, 0x1111);
/// Its memory is BAR 0, its registers BAR 2.
const MEMORY: u8 = 0;
const REGISTERS: u8 = 2;

/// The configuration space of this machine. One CPU uses it at a time: it is for start-up.
struct Ports;

fn select(address: PciAddress, offset: u16) -> u32 {
    let place = u32::from(address.bus()) << 16 | u32::from(address.device()) << 11 | u32::from(address.function()) << 8;
    ENABLE | place | u32::from(offset & 0xfc)
}

impl ConfigRegionAccess for Ports {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: the ports are the host bridge's, which q35 and pc have; without one all bits read as ones. The caller
        // vouches for what reading the register does.
        unsafe {
            outl(ADDRESS, select(address, offset));
            inl(DATA)
        }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        // SAFETY: as above.
        unsafe {
            outl(ADDRESS, select(address, offset));
            outl(DATA, value);
        }
    }
}

/// A display adapter with the registers of Bochs: where its memory and its registers are, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Display {
    /// The pixels' memory.
    pub memory: (PhysAddr, usize),
    /// The registers.
    pub registers: (PhysAddr, usize),
}

/// The display of the machine, if it has one that the firmware gave addresses; lets it answer at them.
pub fn display() -> Option<Display> {
    const { assert!((REGISTERS as usize) < MAX_BARS) };
    (0..32).find_map(|device| {
        let header = PciHeader::new(PciAddress::new(0, 0, device, 0));
        if header.id(Ports) != DISPLAY {
            return None;
        }
        let mut endpoint = EndpointHeader::from_header(header, Ports)?;
        let range = |bar| match endpoint.bar(bar, Ports)? {
            Bar::Memory32 { address, size, .. } => Some((PhysAddr(u64::from(address)), size as usize)),
            Bar::Memory64 { address, size, .. } => Some((PhysAddr(address), size as usize)),
            Bar::Io { .. } => None,
        };
        let found = |bar| range(bar).filter(|(address, _)| address.0 != 0);
        let display = Display { memory: found(MEMORY)?, registers: found(REGISTERS)? };
        endpoint.update_command(Ports, |command| command | CommandRegister::MEMORY_ENABLE);
        Some(display)
    })
}
