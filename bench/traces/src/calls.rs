//! What a workload calls.

/// Whether a call belongs to the measured part of a workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It only prepares.
    Setup,
    /// It is measured.
    Counted,
}

/// An allocator as a workload sees it, and what is measured at each call.
pub trait Calls {
    /// What is asked for.
    type Request: Copy;
    /// What is given; whoever holds it frees it once.
    type Object;

    /// Allocates; `None` when there is none.
    fn alloc(&mut self, phase: Phase, request: Self::Request) -> Option<Self::Object>;

    /// Frees.
    fn free(&mut self, phase: Phase, object: Self::Object);

    /// True when the rest of a workload's counted part may be left out, because measuring it takes too long.
    fn enough(&self) -> bool {
        false
    }
}

/// A request for bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes {
    /// How many.
    pub size: usize,
    /// A power of two.
    pub align: usize,
}

impl Bytes {
    /// `size` bytes aligned to 8.
    pub const fn of(size: usize) -> Bytes {
        Bytes { size, align: 8 }
    }
}

/// A request for `1 << order` pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order(pub usize);
