//! A second manager, which is not Rust's allocator: containers name it.

use crate::board::{self, MM};
use backend_nommu::Arena;
use core::ptr::NonNull;
use rtmm::{
    Backend as _, BootMap, Bug, Config, Context, CriticalSectionLock, GFP_KERNEL, Mm, Platform, VirtRange, ZoneKind,
    ZoneSpec,
};

/// What the second manager gets of the machine: the same context, and the same ear for reports.
#[derive(Debug)]
pub struct Lodger;

impl Platform for Lodger {
    type Lock = CriticalSectionLock;

    fn context(&self) -> Context {
        MM.platform().context()
    }

    fn bug(&self, bug: &Bug) {
        MM.platform().bug(bug);
    }
}

/// Memory that a program has, with physical addresses of its own choice.
pub type Lent = Arena;

/// A manager over memory of the board's.
pub type Second = Mm<Lodger, Lent>;

/// The block of the board's memory that a [`Second`] manages.
pub struct Room {
    block: NonNull<u8>,
    order: usize,
}

impl Room {
    /// Takes 1 MiB from the board's manager, or less where it has no such block.
    ///
    /// # Errors
    /// What went wrong.
    pub fn take() -> Result<Room, &'static str> {
        let most = (1 << 20) / board::Backend::PAGE_SIZE;
        let order = board::Backend::MAX_ORDER.min(most.ilog2() as usize);
        let block = MM.get_free_pages(GFP_KERNEL, order).map_err(|_| "no block for the second manager")?;
        Ok(Room { block, order })
    }

    /// How much it is.
    pub fn bytes(&self) -> usize {
        board::Backend::PAGE_SIZE << self.order
    }

    /// Brings `mm` up on the block.
    ///
    /// # Errors
    /// What went wrong.
    pub fn bring_up(&self, mm: &Second) -> Result<(), &'static str> {
        const FAILED: &str = "the second manager did not come up";
        let bytes = self.bytes();
        // A physical address of its own: nothing but this manager asks for it.
        let start = bytes;
        // SAFETY: both are multiples of the block's size, and the block is this manager's until it is dropped.
        unsafe { mm.backend().place(self.block.as_ptr(), start) };
        let mut map: BootMap<2> = BootMap::new();
        map.add_ram(start as u64, bytes as u64).map_err(|_| FAILED)?;
        let mut ram = map.finish(Lent::PAGE_SHIFT, Lent::PHYS_BITS).map_err(|_| FAILED)?;
        let zones = [ZoneSpec { kind: ZoneKind::Normal, end: u64::MAX }];
        let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
        // SAFETY: the map is of the block, which nothing else uses; there is no window.
        unsafe { mm.init(&mut ram, &config) }.map_err(|_| FAILED)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = MM.free_pages(self.block.as_ptr(), self.order) {
            MM.platform().bug(&Bug::BadFree { addr: self.block.addr().get(), error });
        }
    }
}
