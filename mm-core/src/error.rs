//! What can go wrong, one variant per thing a caller could do about it.

use core::fmt;
use core::ptr::NonNull;

/// The result of an allocation in one register, so that a slow path can be the last call of a fast one.
///
/// Below [`FIRST_ADDRESS`](Packed::FIRST_ADDRESS) it is an error's number, from there on the address of memory.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Packed(*mut u8);

impl Packed {
    /// No memory of a manager lies below: its frame 0 is never handed out, and no page is smaller.
    const FIRST_ADDRESS: usize = 256;

    #[inline(always)]
    pub(crate) fn new(result: Result<NonNull<u8>, AllocError>) -> Packed {
        match result {
            Ok(ptr) => Packed(ptr.as_ptr()),
            Err(error) => Packed(core::ptr::without_provenance_mut(error as usize)),
        }
    }

    #[inline(always)]
    pub(crate) fn result(self) -> Result<NonNull<u8>, AllocError> {
        if self.0.addr() < Self::FIRST_ADDRESS {
            // SAFETY: it is made of an error's number, where it is not one of an address.
            return Err(unsafe { AllocError::numbered_unchecked(self.0.addr()) });
        }
        // SAFETY: just compared with more than 0.
        Ok(unsafe { NonNull::new_unchecked(self.0) })
    }
}

#[cfg(feature = "small")]
impl Packed {
    /// The memory, if it is any.
    #[inline(always)]
    pub(crate) fn memory(self) -> Option<NonNull<u8>> {
        // SAFETY: just compared with more than 0.
        (self.0.addr() >= Self::FIRST_ADDRESS).then(|| unsafe { NonNull::new_unchecked(self.0) })
    }

    /// The error that it is.
    pub(crate) fn error(self) -> AllocError {
        self.result().err().unwrap_or(AllocError::NoMemory)
    }
}

/// Where something was mapped, or why not, in one register: [`Packed`] with the other errors that a mapping can meet.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct PackedMap(*mut u8);

impl PackedMap {
    /// From here on come the errors that are not of an allocation.
    const OTHERS: usize = 128;
    /// Those.
    const ERRORS: [MmError; 6] = [
        MmError::AlreadyMapped,
        MmError::Unsupported,
        MmError::BadRange,
        MmError::AliasConflict,
        MmError::NotMapped,
        MmError::Inval,
    ];

    #[inline(always)]
    pub(crate) fn new(result: Result<NonNull<u8>, MmError>) -> PackedMap {
        match result {
            Ok(ptr) => PackedMap(ptr.as_ptr()),
            Err(error) => PackedMap(core::ptr::without_provenance_mut(Self::number(error))),
        }
    }

    #[cold]
    fn number(error: MmError) -> usize {
        match error {
            MmError::Alloc(error) => error as usize,
            // No mapping meets another one than those.
            error => Self::OTHERS + Self::ERRORS.iter().position(|&one| one == error).unwrap_or(Self::ERRORS.len() - 1),
        }
    }

    #[inline(always)]
    pub(crate) fn result(self) -> Result<NonNull<u8>, MmError> {
        if self.0.addr() < Packed::FIRST_ADDRESS {
            return Err(Self::error(self.0.addr()));
        }
        // SAFETY: just compared with more than 0.
        Ok(unsafe { NonNull::new_unchecked(self.0) })
    }

    #[cold]
    fn error(number: usize) -> MmError {
        match AllocError::numbered(number) {
            Some(error) => MmError::Alloc(error),
            None => Self::ERRORS.get(number.wrapping_sub(Self::OTHERS)).copied().unwrap_or(MmError::Inval),
        }
    }
}

/// The frames of a block that was freed, or why it was not, in one register.
#[derive(Clone, Copy)]
pub(crate) struct PackedFree(usize);

impl PackedFree {
    #[inline(always)]
    pub(crate) fn new(result: Result<usize, FreeError>) -> PackedFree {
        // No block has that many frames.
        PackedFree(result.unwrap_or_else(|error| !(error as usize)))
    }

    #[inline(always)]
    pub(crate) fn result(self) -> Result<usize, FreeError> {
        FreeError::numbered(!self.0).map_or(Ok(self.0), Err)
    }
}

/// A frame, or why there is none, in one register.
#[derive(Clone, Copy)]
pub(crate) struct PackedFrame(u32);

impl PackedFrame {
    /// No frame has this number or a higher one.
    pub(crate) const END: u32 = u32::MAX - u8::MAX as u32;

    #[inline(always)]
    pub(crate) fn new(result: Result<u32, AllocError>) -> PackedFrame {
        // No frame has such a number: the boot map keeps as many out.
        PackedFrame(result.unwrap_or_else(|error| !(error as u32)))
    }

    /// The frame, or the error as what there is instead of an object.
    #[cfg(feature = "small")]
    #[inline(always)]
    pub(crate) fn or_failed(self) -> Result<crate::addr::Pfn, Packed> {
        let failed = Packed(core::ptr::without_provenance_mut(!self.0 as usize));
        if self.0 < Self::END { Ok(crate::addr::Pfn(self.0)) } else { Err(failed) }
    }

    #[inline(always)]
    pub(crate) fn result(self) -> Result<u32, AllocError> {
        AllocError::numbered(!self.0 as usize).map_or(Ok(self.0), Err)
    }
}

macro_rules! errors {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal, $errno:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The error with this number.
            #[allow(dead_code)]
            #[inline(always)]
            pub(crate) fn numbered(number: usize) -> Option<$name> {
                const COUNT: usize = [$($name::$variant),*].len();
                // SAFETY: errors are numbered from 0 without a gap.
                (number < COUNT).then(|| unsafe { core::mem::transmute::<u8, $name>(number as u8) })
            }

            /// The error with this number.
            ///
            /// # Safety
            /// There is one.
            #[allow(dead_code)]
            #[inline(always)]
            pub(crate) unsafe fn numbered_unchecked(number: usize) -> $name {
                debug_assert!(Self::numbered(number).is_some());
                // SAFETY: the caller's word; an error is its number.
                unsafe { core::mem::transmute::<u8, $name>(number as u8) }
            }

            /// The error as Linux's positive errno value.
            pub const fn errno(self) -> i32 {
                match self { $($name::$variant => $errno,)* }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(match self { $($name::$variant => $text,)* })
            }
        }

        impl core::error::Error for $name {}
    };
}

pub(crate) use errors;

errors! {
    /// Why an allocation was refused. Nothing was taken.
    AllocError {
        /// The manager is not initialised.
        NotReady = "the memory manager is not initialised", 11;
        /// No memory that fits; retry later or free something.
        NoMemory = "out of memory", 12;
        /// There is memory, but no contiguous run of it.
        NoContig = "no contiguous block of that size", 12;
        /// No room in the vmalloc address space, or no slot left for a HIGHMEM frame.
        NoAddressSpace = "out of kernel address space", 12;
        /// A size of zero.
        ZeroSize = "size is zero", 22;
        /// Larger than this manager can ever serve.
        TooBig = "size is over the limit", 12;
        /// An order above the largest.
        BadOrder = "order is over the limit", 22;
        /// An alignment that is zero, no power of two, or above the largest block.
        BadAlign = "alignment is not a power of two in range", 22;
        /// An unknown flag bit, or flags that contradict each other.
        BadFlags = "unknown or contradicting flags", 22;
        /// The pointer handed in is not a live allocation of this kind.
        BadPointer = "not a live allocation", 22;
        /// The frame number handed in is no RAM of this manager.
        BadFrame = "not a frame of this manager", 22;
        /// This backend cannot do that.
        Unsupported = "not supported by this backend", 95;
        /// No region guard is left, or the machine has none.
        NoGuard = "no region guard is left", 28;
    }
}

impl AllocError {
    /// True when the same request may succeed later: memory was short.
    #[inline]
    pub(crate) const fn may_pass(self) -> bool {
        matches!(self, AllocError::NoMemory | AllocError::NoContig)
    }
}

errors! {
    /// Why a free was refused. Nothing was changed.
    FreeError {
        /// The manager is not initialised.
        NotReady = "the memory manager is not initialised", 11;
        /// It is free already.
        DoubleFree = "already free", 22;
        /// It points inside an allocation, not at its start.
        Interior = "points inside an allocation", 22;
        /// No memory of this manager.
        Foreign = "not memory of this manager", 22;
        /// A reserved, boot or metadata page.
        Reserved = "reserved memory", 22;
        /// Not aligned as anything allocated would be.
        Misaligned = "not aligned to a page", 22;
        /// Allocated with another order or page count.
        WrongOrder = "allocated with another order", 22;
        /// Allocated by another call (kmalloc against vmalloc against pages).
        WrongAllocator = "allocated by another call", 22;
        /// An object of another cache.
        WrongCache = "an object of another cache", 22;
    }
}

/// Why a set-up, mapping or cache operation was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MmError {
    /// An allocation it needs was refused.
    Alloc(AllocError),
    /// A free it needs was refused.
    Free(FreeError),
    /// `init` was called before.
    AlreadyInit,
    /// The boot map has no usable memory, or too little to manage.
    NoUsableMemory,
    /// More regions than the boot map can hold.
    TooManyRegions,
    /// A name, size or argument that makes no sense.
    Inval,
    /// Address or length past the physical address width, or wrapping.
    BadRange,
    /// The range is RAM of this manager.
    IsRam,
    /// The range is mapped with another cache mode.
    AliasConflict,
    /// Something is mapped there.
    AlreadyMapped,
    /// Nothing is mapped there.
    NotMapped,
    /// Objects are still live; the count is theirs.
    Busy(usize),
    /// A cache of that name exists.
    Exists,
    /// No region guard is left.
    NoGuard,
    /// This backend cannot do that.
    Unsupported,
}

impl MmError {
    /// The error as Linux's positive errno value.
    pub const fn errno(self) -> i32 {
        match self {
            MmError::Alloc(e) => e.errno(),
            MmError::Free(e) => e.errno(),
            MmError::AlreadyInit | MmError::Exists | MmError::AlreadyMapped => 17,
            MmError::NoUsableMemory | MmError::TooManyRegions => 12,
            MmError::Inval | MmError::BadRange | MmError::IsRam | MmError::NotMapped => 22,
            MmError::AliasConflict | MmError::Busy(_) => 16,
            MmError::NoGuard => 28,
            MmError::Unsupported => 95,
        }
    }
}

impl fmt::Display for MmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MmError::Alloc(e) => return e.fmt(f),
            MmError::Free(e) => return e.fmt(f),
            MmError::Busy(n) => return write!(f, "busy: {n} objects are live"),
            MmError::AlreadyInit => "already initialised",
            MmError::NoUsableMemory => "no usable memory in the boot map",
            MmError::TooManyRegions => "too many memory regions",
            MmError::Inval => "invalid argument",
            MmError::BadRange => "range wraps or passes the physical address width",
            MmError::IsRam => "range is RAM",
            MmError::AliasConflict => "range is mapped with another cache mode",
            MmError::AlreadyMapped => "already mapped",
            MmError::NotMapped => "not mapped",
            MmError::Exists => "a cache of that name exists",
            MmError::NoGuard => "no region guard is left",
            MmError::Unsupported => "not supported by this backend",
        })
    }
}

impl core::error::Error for MmError {}

impl From<AllocError> for MmError {
    fn from(e: AllocError) -> Self {
        MmError::Alloc(e)
    }
}

impl From<FreeError> for MmError {
    fn from(e: FreeError) -> Self {
        MmError::Free(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_map_says_what_it_was_made_of() {
        let mut byte = 0u8;
        let ptr = NonNull::from(&mut byte);
        assert_eq!(PackedMap::new(Ok(ptr)).result(), Ok(ptr));
        let of_allocations = (0..).map_while(AllocError::numbered).map(MmError::Alloc);
        for error in of_allocations.chain(PackedMap::ERRORS) {
            assert_eq!(PackedMap::new(Err(error)).result(), Err(error));
        }
    }

    /// A frame that passed as an error would be lost, and so would its caller.
    #[test]
    fn no_frame_that_the_boot_map_lets_in_passes_as_an_error() {
        for frame in (0..100).chain(PackedFrame::END - 100..PackedFrame::END) {
            assert_eq!(PackedFrame::new(Ok(frame)).result(), Ok(frame));
        }
        let errors: std::vec::Vec<_> = (0..).map_while(AllocError::numbered).collect();
        assert!(errors.len() > 10);
        for error in errors {
            assert_eq!(PackedFrame::new(Err(error)).result(), Err(error));
        }
        assert_eq!(PackedFree::new(Ok(1 << crate::buddy::MAX_ORDER_LIMIT)).result(), Ok(1 << 13));
        assert_eq!(PackedFree::new(Err(FreeError::WrongCache)).result(), Err(FreeError::WrongCache));
    }
}
