//! A live allocation whose bytes can be touched safely.

use crate::board::MM;
use core::ptr::NonNull;
use core::slice;
use rtmm::{AllocError, FreeError, Gfp};

/// Which call frees it.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Pages(usize),
    Exact,
    Object,
    Area,
}

/// Memory taken from the board's manager. It is not given back when dropped: the tests are about giving back.
#[derive(Debug)]
#[must_use = "the memory stays taken"]
pub struct Bytes {
    start: NonNull<u8>,
    len: usize,
    kind: Kind,
}

// SAFETY: the memory is owned, and any context may free it.
unsafe impl Send for Bytes {}

impl Bytes {
    /// `1 << order` pages by `get_free_pages`.
    #[track_caller]
    pub fn pages(flags: Gfp, order: usize) -> Result<Bytes, AllocError> {
        let start = MM.get_free_pages(flags, order)?;
        Ok(Bytes { start, len: crate::PAGE << order, kind: Kind::Pages(order) })
    }

    /// `size` bytes by `alloc_pages_exact`.
    #[track_caller]
    pub fn exact(size: usize, flags: Gfp) -> Result<Bytes, AllocError> {
        let start = MM.alloc_pages_exact(size, flags)?;
        Ok(Bytes { start, len: size, kind: Kind::Exact })
    }

    /// `size` bytes by `kmalloc`.
    #[track_caller]
    pub fn kmalloc(size: usize, flags: Gfp) -> Result<Bytes, AllocError> {
        let start = MM.kmalloc(size, flags)?;
        Ok(Bytes { start, len: size, kind: Kind::Object })
    }

    /// `size` bytes by `kzalloc`.
    #[track_caller]
    pub fn kzalloc(size: usize, flags: Gfp) -> Result<Bytes, AllocError> {
        let start = MM.kzalloc(size, flags)?;
        Ok(Bytes { start, len: size, kind: Kind::Object })
    }

    /// `size` bytes by `vmalloc`.
    #[track_caller]
    pub fn vmalloc(size: usize) -> Result<Bytes, AllocError> {
        let start = MM.vmalloc(size)?;
        Ok(Bytes { start, len: size, kind: Kind::Area })
    }

    /// `size` bytes by `vzalloc`.
    #[track_caller]
    pub fn vzalloc(size: usize) -> Result<Bytes, AllocError> {
        let start = MM.vzalloc(size)?;
        Ok(Bytes { start, len: size, kind: Kind::Area })
    }

    /// Resizes an object by `krealloc` to a size that is not 0; on an error the old one comes back with it.
    #[track_caller]
    pub fn krealloc(self, size: usize, flags: Gfp) -> Result<Bytes, (Bytes, AllocError)> {
        match MM.krealloc(self.start.as_ptr(), size, flags) {
            Ok(start) => Ok(Bytes { start: start.expect("the size is not 0"), len: size, kind: Kind::Object }),
            Err(error) => Err((self, error)),
        }
    }

    /// Gives the memory back by the call that fits how it was taken.
    pub fn free(self) -> Result<(), FreeError> {
        match self.kind {
            Kind::Pages(order) => MM.free_pages(self.ptr(), order),
            Kind::Exact => MM.free_pages_exact(self.ptr(), self.len),
            Kind::Object => MM.kfree(self.ptr()),
            Kind::Area => MM.vfree(self.ptr()),
        }
    }

    /// The first byte, for the calls under test.
    pub fn ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// Address of the first byte.
    pub fn addr(&self) -> usize {
        self.start.addr().get()
    }

    /// How many bytes were asked for.
    #[allow(clippy::len_without_is_empty, reason = "an allocation is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// As many bytes as `ksize` says may be used.
    pub fn whole_object(mut self) -> Bytes {
        self.len = MM.ksize(self.ptr()).expect("a live object has a size");
        self
    }

    /// Fills it with a pattern made of `seed`.
    pub fn fill(&mut self, seed: u8) {
        self.as_mut().fill(seed);
    }

    /// True when every byte is as `fill(seed)` left it.
    pub fn holds(&self, seed: u8) -> bool {
        all_equal(self.as_ref(), seed)
    }

    /// True when the first `len` bytes are as `fill(seed)` left them.
    pub fn starts_with(&self, len: usize, seed: u8) -> bool {
        all_equal(&self.as_ref()[..len], seed)
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the manager handed out this many bytes, live until `free`, which consumes the value. They may
        // never have been written; the manager's memory is ordinary RAM, whose every byte has some value.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsMut<[u8]> for Bytes {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this value is the only way to these bytes.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Compares by words, since the suites also run unoptimised.
fn all_equal(bytes: &[u8], seed: u8) -> bool {
    let word = usize::from_ne_bytes([seed; size_of::<usize>()]);
    // SAFETY: every bit pattern is a `usize`.
    let (head, words, tail) = unsafe { bytes.align_to::<usize>() };
    words.iter().all(|found| *found == word) && head.iter().chain(tail).all(|found| *found == seed)
}
