//! Areas of virtually contiguous memory: vmalloc, ioremap, and what backs them.

#[allow(dead_code)] // The areas will take from it.
pub(crate) mod space;

use crate::backend::{Backend, PageTable};
use crate::platform::Platform;
use core::marker::PhantomData;

/// The vmalloc family of a backend.
pub trait AreaFamily<P: Platform, B: Backend>: Send + Sync {
    /// An empty one.
    const NEW: Self;
}

/// The family over page tables.
pub struct Mapped<P: Platform, B: PageTable> {
    _p: PhantomData<fn() -> (P, B)>,
}

impl<P: Platform, B: PageTable> AreaFamily<P, B> for Mapped<P, B> {
    const NEW: Self = Mapped { _p: PhantomData };
}
