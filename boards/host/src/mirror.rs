//! A machine with x86 page tables whose TLB is made of the process's own mappings.

use crate::fault::Access;
use crate::layout::{self, Memory};
use rtmm::backend::{Levels, Machine};
use rtmm::{Mapping, MmError, Pfn, Prot, VirtRange};
use std::io::Error;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};

const PAGE: usize = 4096;
const LARGE: usize = 2 << 20;

/// The vmalloc addresses. In another entry of the root table than the direct map.
pub(crate) const WINDOW: VirtRange = VirtRange { start: 0x0900_0000_0000, end: 0x0900_0000_0000 + (1 << 30) };

/// The machine: its root register, and its memory as a file.
///
/// The direct map is there from the start, for its entries never change. The window starts empty, and is filled by
/// [`fill`](Mirror::fill) page by page, as a TLB is. Upper-level entries are never cached: each miss walks from the
/// root.
#[derive(Debug)]
pub struct Mirror {
    root: AtomicU32,
    memory: AtomicI32,
    /// How many entries were filled since all were dropped: flushing nothing should cost nothing.
    filled: AtomicUsize,
    /// Which 2 MiB of the window are one entry: flushing any page of it drops it whole, as on a real machine.
    large: [AtomicBool; WINDOW.len() / LARGE],
}

impl Mirror {
    /// A machine that is switched off.
    pub(crate) const fn new() -> Self {
        Mirror {
            root: AtomicU32::new(0),
            memory: AtomicI32::new(-1),
            filled: AtomicUsize::new(0),
            large: [const { AtomicBool::new(false) }; WINDOW.len() / LARGE],
        }
    }

    /// Makes the memory and maps it where the direct map is.
    ///
    /// # Panics
    /// When the system refuses: there is no machine to run on then.
    pub(crate) fn power_on(&self) {
        // SAFETY: the name is a C string; the call touches nothing else.
        let file = unsafe { libc::memfd_create(c"rtmm RAM".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(file >= 0, "no memory file: {}", Error::last_os_error());
        // The file has holes where the machine has none, so its length costs nothing.
        // SAFETY: `file` is the descriptor just made.
        let result = unsafe { libc::ftruncate(file, layout::END as libc::off_t) };
        assert!(result == 0, "no memory file of that length: {}", Error::last_os_error());
        self.memory.store(file, Ordering::Relaxed);
        layout::power_on(Memory::File(file));
        layout::reserve(WINDOW.start, WINDOW.len());
    }

    /// Takes the entry that covers `addr`, which a walk found, into the TLB. False when nothing answers at its frames.
    ///
    /// Safe in a signal handler: it makes one or two system calls and nothing else.
    pub(crate) fn fill(&self, addr: usize, found: Mapping) -> bool {
        let bytes = found.pages as usize * PAGE;
        let start = addr & !(bytes - 1);
        let phys = u64::from(found.pfn.0 & !(found.pages - 1)) * PAGE as u64;
        let answers = |(base, length): (u64, u64)| base <= phys && phys + bytes as u64 <= base + length;
        if !layout::answering().any(answers) {
            return false;
        }
        let protection = match found.prot {
            Prot::Read => libc::PROT_READ,
            Prot::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
            Prot::ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
        };
        let file = self.memory.load(Ordering::Relaxed);
        // SAFETY: points to this thread's `errno`. The interrupted code may be about to look at it.
        let errno = unsafe { &mut *libc::__errno_location() };
        let before = *errno;
        let map = || {
            let kind = libc::MAP_SHARED | libc::MAP_FIXED;
            let at = ptr::without_provenance_mut(start);
            // SAFETY: the pages lie in the window, which belongs to this machine; who uses them goes by the tables.
            let got = unsafe { libc::mmap(at, bytes, protection, kind, file, phys as libc::off_t) };
            got == at
        };
        // A process may have some 65,000 mappings. A TLB may drop entries at any time, so a full one is emptied.
        if !map() {
            self.filled.store(1, Ordering::Relaxed);
            self.flush_all();
            if !map() {
                return false;
            }
        }
        *errno = before;
        if bytes == LARGE {
            self.large[(start - WINDOW.start) / LARGE].store(true, Ordering::Relaxed);
        }
        // After the mapping, so that a flush of all on another thread cannot count it and miss it.
        self.filled.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Empties a range of the window.
    fn drop_range(start: usize, bytes: usize) {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let at = ptr::without_provenance_mut(start);
        // SAFETY: the range lies in the window. Dropping translations changes no memory: the frames stay in the file.
        let got = unsafe { libc::mmap(at, bytes, libc::PROT_NONE, kind, -1, 0) };
        // Going on with a stale entry would be the very fault this machine is to show.
        assert!(got == at, "a flush was refused: {}", Error::last_os_error());
    }
}

// SAFETY: the direct map is linear from `layout::BASE` on and shows the file that every other mapping shows; addresses
// below the base wrap to frame numbers no RAM has. `flush_page` and `flush_all` unmap what `fill` mapped. The program
// itself does not run by these tables, so loading a root cannot pull its code away.
unsafe impl Machine for Mirror {
    /// 4-level tables, in the part of the address space that a process has: its direct map is its first address.
    const LEVELS: Levels = Levels { kernel_start: layout::BASE, ..Levels::LONG };

    #[inline(always)]
    fn direct_ptr(&self, phys: usize) -> *mut u8 {
        ptr::with_exposed_provenance_mut(layout::BASE.wrapping_add(phys))
    }

    #[inline(always)]
    fn direct_frame(&self, addr: usize) -> usize {
        addr.wrapping_sub(layout::BASE) / PAGE
    }

    #[inline(always)]
    fn direct_base(&self) -> usize {
        layout::BASE
    }

    fn phys_bits(&self) -> u32 {
        46
    }

    fn flush_page(&self, virt: usize) {
        if !WINDOW.contains(virt) || self.filled.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.large[(virt - WINDOW.start) / LARGE].swap(false, Ordering::Relaxed) {
            Mirror::drop_range(virt & !(LARGE - 1), LARGE);
        } else {
            Mirror::drop_range(virt & !(PAGE - 1), PAGE);
        }
    }

    fn flush_all(&self) {
        if self.filled.swap(0, Ordering::Relaxed) == 0 {
            return;
        }
        for large in &self.large {
            large.store(false, Ordering::Relaxed);
        }
        Mirror::drop_range(WINDOW.start, WINDOW.len());
    }

    fn root(&self) -> Pfn {
        Pfn(self.root.load(Ordering::Relaxed))
    }

    unsafe fn prepare(&self, _pat: u64) -> Result<(), MmError> {
        // A process always has no-execute and write protection; caching is not the process's to choose.
        Ok(())
    }

    unsafe fn set_root(&self, root: Pfn) {
        self.root.store(root.0, Ordering::Relaxed);
        self.flush_all();
    }
}

/// True when an entry of that protection allows the access.
pub(crate) fn allows(prot: Prot, access: Access) -> bool {
    match access {
        Access::Read => true,
        Access::Write => prot.writable(),
        Access::Execute => prot.executable(),
        Access::Unknown => false,
    }
}
