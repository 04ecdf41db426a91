//! What differs between a real CPU and the simulated one.

use mm_core::{MmError, Pfn, VirtRange};

/// The shape of a table tree. Every table below the root has 512 entries of 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Levels {
    /// How many tables a walk visits.
    pub count: u32,
    /// The lowest kernel address.
    pub kernel_start: usize,
    /// The last address there is, which is the kernel's.
    pub kernel_last: usize,
    /// The root's entries have no protection bits, and are loaded together with the root register (PAE): they are all
    /// made at boot.
    pub bare_root: bool,
    /// An entry is written by two stores of 32 bits, the one with the present bit last when it is set and first when
    /// it is cleared: the CPUs that have such tables have no plain store of 64 bits.
    pub halves: bool,
}

impl Levels {
    /// 4-level paging of 64-bit mode; the kernel has the upper half of the canonical addresses.
    #[cfg(target_pointer_width = "64")]
    pub const LONG: Levels = Levels {
        count: 4,
        kernel_start: 0xffff_8000_0000_0000,
        kernel_last: usize::MAX,
        bare_root: false,
        halves: false,
    };
    /// PAE paging of 32-bit mode; the kernel has the upper gigabyte, as one slot of the root.
    pub const PAE: Levels =
        Levels { count: 3, kernel_start: 0xc000_0000, kernel_last: 0xffff_ffff, bare_root: true, halves: true };
}

/// A machine with x86 page tables.
///
/// # Safety
/// - `direct_ptr` and `direct_frame` obey the contract of [`mm_core::Backend`], and `direct_ptr` gives a pointer valid
///   for one page for every frame that a table is made of.
/// - When there is RAM from `lowmem_end` on, `windows` is a range in which nothing else is mapped, `window_ptr` gives a
///   pointer valid for one page for every page of it that is mapped, and `masked` keeps everything else of this
///   machine that uses the local windows from running until its closure returns.
/// - `flush_page` and `flush_all` leave none of the translations they name in this CPU's TLB, and no cached entry of
///   an upper table.
/// - `root` is the root table this CPU uses.
pub unsafe trait Machine: Send + Sync + 'static {
    /// The shape of its tables.
    const LEVELS: Levels;

    /// As [`mm_core::Backend::DIRECT_IS_LINEAR`].
    const DIRECT_IS_LINEAR: bool = false;

    /// The pointer this program reaches physical address `phys` by.
    fn direct_ptr(&self, phys: usize) -> *mut u8;

    /// The frame number `addr` belongs to when it is one that `direct_ptr` gives; no frame's number otherwise.
    fn direct_frame(&self, addr: usize) -> usize;

    /// Where the tables map physical address 0: `direct_ptr(0)` as the CPU sees it.
    fn direct_base(&self) -> usize;

    /// Physical addresses from here on are not in the direct map.
    #[inline]
    fn lowmem_end(&self) -> u64 {
        u64::MAX
    }

    /// The addresses at which frames from `lowmem_end` on are mapped for a while: whole reaches of lowest tables, which
    /// [`kernel::build`](crate::kernel::build) makes for good. Empty where the direct map has everything.
    #[inline]
    fn windows(&self) -> VirtRange {
        VirtRange { start: 0, end: 0 }
    }

    /// The pointer this program reaches the window at `virt` by, while a frame is mapped there.
    #[inline]
    fn window_ptr(&self, virt: usize) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(virt)
    }

    /// Runs `f` with the interrupts of this CPU masked, and leaves them as they were.
    #[inline]
    fn masked<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// Width of a physical address in bits, as this CPU has it.
    fn phys_bits(&self) -> u32;

    /// Drops the page of `virt`, and every cached upper entry, from this CPU's TLB.
    fn flush_page(&self, virt: usize);

    /// [`flush_page`](Machine::flush_page) of eight pages in a row, the first of which is that of `virt`.
    #[inline]
    fn flush_eight(&self, virt: usize) {
        (0..8).for_each(|page| self.flush_page(virt.wrapping_add(page << 12)));
    }

    /// Drops everything from this CPU's TLB, global entries included.
    fn flush_all(&self);

    /// The root table in use. Address spaces share the kernel's part, so any of them will do as the kernel's.
    fn root(&self) -> Pfn;

    /// Turns on what the entries rely on: no-execute, write protection in kernel mode, global pages, and `pat` as
    /// the meaning of the cache bits.
    ///
    /// # Errors
    /// [`MmError::Unsupported`] when this CPU lacks one of them; nothing was changed.
    ///
    /// # Safety
    /// The tables in use stay valid under these rules.
    unsafe fn prepare(&self, pat: u64) -> Result<(), MmError>;

    /// Loads the root register.
    ///
    /// # Safety
    /// The tables map this program and its data where they are now.
    unsafe fn set_root(&self, root: Pfn);

    /// Told after each store to a table, in order. A real CPU has no use for it; the simulated one looks at the
    /// tables as a CPU would that walks them at this very moment.
    #[inline(always)]
    fn stored(&self, table: Pfn, index: usize) {
        let _ = (table, index);
    }
}
