//! Where the devices' memory comes from: four ways to get a quantum.

use core::ptr::NonNull;
use rtmm::{AllocError, Backend, CacheFlags, FreeError, GFP_KERNEL, Mm, MmError, Platform, RawKmemCache};

/// What a device needs of the memory manager.
///
/// # Safety
/// - [`take`](Store::take) gives memory valid for reads and writes of [`quantum`](Store::quantum) bytes, a size that
///   never changes; [`take_table`](Store::take_table) gives zeroed memory of the size asked for, aligned for pointers.
/// - Both give it to the caller alone, until the matching `put` or `put_table` accepts it back. A refused `put` leaves
///   it with the caller.
pub unsafe trait Store {
    /// The device's name.
    const NAME: &'static str;

    /// Bytes in one quantum.
    fn quantum(&self) -> usize;

    /// A quantum; what is in it is anything.
    ///
    /// # Errors
    /// What the allocator says.
    fn take(&self) -> Result<NonNull<u8>, AllocError>;

    /// Takes a quantum back.
    ///
    /// # Errors
    /// What the allocator says; nothing was changed.
    fn put(&self, quantum: NonNull<u8>) -> Result<(), FreeError>;

    /// Zeroed memory for a list node or an array of quanta.
    ///
    /// # Errors
    /// What the allocator says.
    fn take_table(&self, bytes: usize) -> Result<NonNull<u8>, AllocError>;

    /// Takes a node or array back.
    ///
    /// # Errors
    /// What the allocator says; nothing was changed.
    fn put_table(&self, table: NonNull<u8>) -> Result<(), FreeError>;
}

/// The quantum of scull and scullc, in bytes: a bit under a page on purpose, so that it is no size an allocator likes.
const QUANTUM: usize = 4000;

/// Nodes and arrays come from `kmalloc`, whatever the quanta come from.
macro_rules! tables_by_kmalloc {
    () => {
        fn take_table(&self, bytes: usize) -> Result<NonNull<u8>, AllocError> {
            self.mm.kzalloc(bytes, GFP_KERNEL)
        }

        fn put_table(&self, table: NonNull<u8>) -> Result<(), FreeError> {
            self.mm.kfree(table.as_ptr())
        }
    };
}

/// scull: quanta of 4000 bytes by `kmalloc`.
pub struct Kmalloc<'m, P: Platform, B: Backend> {
    mm: &'m Mm<P, B>,
}

impl<'m, P: Platform, B: Backend> Kmalloc<'m, P, B> {
    /// Quanta from `mm`.
    pub fn new(mm: &'m Mm<P, B>) -> Self {
        Kmalloc { mm }
    }
}

// SAFETY: `kmalloc` gives the size asked for, aligned for pointers, to its caller alone until `kfree` accepts it.
unsafe impl<P: Platform, B: Backend> Store for Kmalloc<'_, P, B> {
    const NAME: &'static str = "scull";

    fn quantum(&self) -> usize {
        QUANTUM
    }

    fn take(&self) -> Result<NonNull<u8>, AllocError> {
        self.mm.kmalloc(QUANTUM, GFP_KERNEL)
    }

    fn put(&self, quantum: NonNull<u8>) -> Result<(), FreeError> {
        self.mm.kfree(quantum.as_ptr())
    }

    tables_by_kmalloc!();
}

/// scullc: quanta of 4000 bytes from a cache of their own.
pub struct Cached<'m, P: Platform, B: Backend> {
    mm: &'m Mm<P, B>,
    cache: RawKmemCache<&'m Mm<P, B>>,
}

impl<'m, P: Platform, B: Backend> Cached<'m, P, B> {
    /// Makes the cache `scullc` in `mm`. It is destroyed with the store.
    ///
    /// # Errors
    /// What [`Mm::kmem_cache_create`] says.
    pub fn new(mm: &'m Mm<P, B>) -> Result<Self, MmError> {
        let cache = mm.kmem_cache_create("scullc", QUANTUM, 0, CacheFlags::empty(), None)?;
        Ok(Cached { mm, cache })
    }
}

// SAFETY: a cache gives objects of its size to its caller alone until `free` accepts them; tables as in `Kmalloc`.
unsafe impl<P: Platform, B: Backend> Store for Cached<'_, P, B> {
    const NAME: &'static str = "scullc";

    fn quantum(&self) -> usize {
        QUANTUM
    }

    fn take(&self) -> Result<NonNull<u8>, AllocError> {
        self.cache.alloc(GFP_KERNEL)
    }

    fn put(&self, quantum: NonNull<u8>) -> Result<(), FreeError> {
        self.cache.free(quantum.as_ptr())
    }

    tables_by_kmalloc!();
}

/// scullp: quanta of `PAGE_SIZE << order` by `get_free_pages`.
pub struct Paged<'m, P: Platform, B: Backend> {
    mm: &'m Mm<P, B>,
    order: usize,
}

impl<'m, P: Platform, B: Backend> Paged<'m, P, B> {
    /// Blocks of that order from `mm`; order 0 is the driver's.
    pub fn new(mm: &'m Mm<P, B>, order: usize) -> Self {
        Paged { mm, order }
    }
}

// SAFETY: `get_free_pages` gives a block of that order to its caller alone until `free_pages` accepts it; tables as in
// `Kmalloc`.
unsafe impl<P: Platform, B: Backend> Store for Paged<'_, P, B> {
    const NAME: &'static str = "scullp";

    fn quantum(&self) -> usize {
        B::PAGE_SIZE << self.order
    }

    fn take(&self) -> Result<NonNull<u8>, AllocError> {
        self.mm.get_free_pages(GFP_KERNEL, self.order)
    }

    fn put(&self, quantum: NonNull<u8>) -> Result<(), FreeError> {
        self.mm.free_pages(quantum.as_ptr(), self.order)
    }

    tables_by_kmalloc!();
}

/// scullv: quanta of `PAGE_SIZE << order` by `vmalloc`.
pub struct Virtual<'m, P: Platform, B: Backend> {
    mm: &'m Mm<P, B>,
    order: usize,
}

impl<'m, P: Platform, B: Backend> Virtual<'m, P, B> {
    /// Areas of that order from `mm`; order 4 (64 KiB with pages of 4 KiB) is the driver's.
    pub fn new(mm: &'m Mm<P, B>, order: usize) -> Self {
        Virtual { mm, order }
    }
}

// SAFETY: `vmalloc` gives the size asked for to its caller alone until `vfree` accepts it; tables as in `Kmalloc`.
unsafe impl<P: Platform, B: Backend> Store for Virtual<'_, P, B> {
    const NAME: &'static str = "scullv";

    fn quantum(&self) -> usize {
        B::PAGE_SIZE << self.order
    }

    fn take(&self) -> Result<NonNull<u8>, AllocError> {
        self.mm.vmalloc(self.quantum())
    }

    fn put(&self, quantum: NonNull<u8>) -> Result<(), FreeError> {
        self.mm.vfree(quantum.as_ptr())
    }

    tables_by_kmalloc!();
}
