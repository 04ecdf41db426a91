//! Where the elements of a pool come from.

use crate::backend::Backend;
use crate::cache::RawKmemCache;
use crate::error::{AllocError, FreeError};
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::global::Manager;
use core::ptr::NonNull;

/// An allocator of elements of one size, for a pool of manager `M`.
///
/// # Safety
/// `alloc` gives an element of `bytes` bytes, aligned to 8 at least, that is nobody else's until `free`; `check`
/// accepts exactly what `free` would.
pub unsafe trait ElementSource<M: Manager> {
    /// Bytes of an element.
    fn bytes(&self, manager: M) -> usize;

    /// Takes an element.
    ///
    /// # Errors
    /// Any.
    fn alloc(&self, manager: M, flags: Gfp) -> Result<NonNull<u8>, AllocError>;

    /// Gives an element back.
    ///
    /// # Errors
    /// Why not; nothing was changed.
    fn free(&self, manager: M, element: NonNull<u8>) -> Result<(), FreeError>;

    /// Whether `free` would take it.
    ///
    /// # Errors
    /// What `free` would say.
    fn check(&self, manager: M, element: NonNull<u8>) -> Result<(), FreeError>;

    /// False when elements keep a state from one owner to the next, which zeroes would undo.
    fn may_be_zeroed(&self) -> bool {
        true
    }
}

/// kmalloc objects of one size.
#[derive(Clone, Copy, Debug)]
pub struct KmallocSource {
    size: usize,
}

impl KmallocSource {
    /// Objects of `size` bytes.
    pub const fn new(size: usize) -> Self {
        KmallocSource { size }
    }
}

// SAFETY: kmalloc's contract is this one.
unsafe impl<M: Manager> ElementSource<M> for KmallocSource {
    fn bytes(&self, _manager: M) -> usize {
        self.size
    }

    fn alloc(&self, manager: M, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        manager.mm().kmalloc(self.size, flags)
    }

    fn free(&self, manager: M, element: NonNull<u8>) -> Result<(), FreeError> {
        self.check(manager, element)?;
        manager.mm().kfree(element.as_ptr())
    }

    fn check(&self, manager: M, element: NonNull<u8>) -> Result<(), FreeError> {
        let (mm, at) = (manager.mm(), element.as_ptr());
        let size = mm.ksize(at)?;
        if !mm.is_live(at.addr()) {
            return Err(FreeError::DoubleFree);
        }
        // A live object, but too short to be one of this pool's.
        if size < self.size { Err(FreeError::WrongCache) } else { Ok(()) }
    }
}

/// Blocks of pages of one order.
#[derive(Clone, Copy, Debug)]
pub struct PageSource {
    order: usize,
}

impl PageSource {
    /// Blocks of `1 << order` pages.
    pub const fn new(order: usize) -> Self {
        PageSource { order }
    }
}

// SAFETY: the contract of get_free_pages is this one.
unsafe impl<M: Manager> ElementSource<M> for PageSource {
    fn bytes(&self, _manager: M) -> usize {
        M::Backend::PAGE_SIZE << self.order.min(M::Backend::MAX_ORDER)
    }

    fn alloc(&self, manager: M, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        manager.mm().get_free_pages(flags, self.order)
    }

    fn free(&self, manager: M, element: NonNull<u8>) -> Result<(), FreeError> {
        manager.mm().free_pages(element.as_ptr(), self.order)
    }

    fn check(&self, manager: M, element: NonNull<u8>) -> Result<(), FreeError> {
        let (memory, addr) = (&manager.mm().memory, element.as_ptr().addr());
        let pfn = memory.backend.direct_frame(addr);
        if addr & (M::Backend::PAGE_SIZE - 1) != 0 {
            return Err(if memory.frames.find(pfn).is_some() { FreeError::Misaligned } else { memory.foreign() });
        }
        match memory.block_at(pfn, FrameKind::Pages) {
            Some((pages, _)) if self.order <= M::Backend::MAX_ORDER && pages == 1 << self.order => Ok(()),
            Some(_) => Err(FreeError::WrongOrder),
            None => Err(memory.refusal(addr)),
        }
    }
}

/// Objects of a cache.
pub struct CacheSource<'c, M: Manager> {
    cache: &'c RawKmemCache<M>,
}

impl<'c, M: Manager> CacheSource<'c, M> {
    /// Objects of `cache`, which may serve others too.
    pub const fn new(cache: &'c RawKmemCache<M>) -> Self {
        CacheSource { cache }
    }
}

// SAFETY: a cache's contract is this one.
unsafe impl<M: Manager> ElementSource<M> for CacheSource<'_, M> {
    fn bytes(&self, _manager: M) -> usize {
        self.cache.object_size()
    }

    fn alloc(&self, _manager: M, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.cache.alloc(flags)
    }

    fn free(&self, _manager: M, element: NonNull<u8>) -> Result<(), FreeError> {
        self.cache.free(element.as_ptr())
    }

    fn check(&self, _manager: M, element: NonNull<u8>) -> Result<(), FreeError> {
        self.cache.check_object(element.as_ptr().addr())
    }

    fn may_be_zeroed(&self) -> bool {
        !self.cache.has_constructor()
    }
}
