//! One slow path for objects, blocks and areas, where code is to be small and nobody waits.
//!
//! A first attempt is made where the request is; what repeats it while memory is taken back is reached by a pointer, and
//! linked by who can give memory back.

use super::Again;
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::{AllocError, Packed};
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;
use crate::vmalloc::AreaOptions;
use core::panic::Location;

/// What repeats a request, after a first attempt that came to the last argument.
pub(crate) struct Repeat<P: Platform, B: Backend> {
    /// An object of so many bytes.
    pub object: fn(&Mm<P, B>, usize, Gfp, Packed) -> Packed,
    /// So many pages of [`Mm::get_free_pages`].
    pub pages: fn(&Mm<P, B>, usize, Gfp, Packed) -> Packed,
    /// An area of so many bytes.
    pub area: fn(&Mm<P, B>, usize, &AreaOptions, &'static Location<'static>, Packed) -> Packed,
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Requests are made in this way.
    pub(crate) const OBTAINS: bool = cfg!(feature = "small")
        && !P::CAN_WAIT
        && P::CPUS == 1
        // Objects that are watched are looked at before they are handed out.
        && !cfg!(feature = "kmalloc-debug");

    pub(crate) const REPEAT: &'static Repeat<P, B> =
        &Repeat { object: Self::repeat_object, pages: Self::repeat_pages, area: Self::repeat_area };

    fn repeat_object(&self, size: usize, flags: Gfp, last: Packed) -> Packed {
        // An object of a slab takes a page, and one for its descriptor.
        let pages = size.div_ceil(B::PAGE_SIZE).max(2);
        self.repeat(flags, pages, last, &mut || self.kmalloc_once(size, flags))
    }

    fn repeat_pages(&self, pages: usize, flags: Gfp, last: Packed) -> Packed {
        self.repeat(flags, pages, last, &mut || self.pages_once(pages, flags))
    }

    fn repeat_area(
        &self,
        size: usize,
        options: &AreaOptions,
        caller: &'static Location<'static>,
        last: Packed,
    ) -> Packed {
        let Ok(flags) = self.memory.admit(options.gfp(), caller) else { return last };
        self.repeat(flags, size.div_ceil(B::PAGE_SIZE), last, &mut || self.area_now(size, options, flags, caller))
    }

    /// An error that was asked for stays one.
    fn is_short(&self, error: AllocError) -> bool {
        error.may_pass() && !self.memory.was_injected()
    }

    #[inline(never)]
    fn repeat(&self, flags: Gfp, pages: usize, mut last: Packed, attempt: &mut dyn FnMut() -> Packed) -> Packed {
        if !last.result().is_err_and(|error| self.is_short(error)) {
            return last;
        }
        self.reclaim_steps(flags, pages, &mut || {
            last = attempt();
            match last.result() {
                Ok(_) => Again::Done,
                Err(error) if self.is_short(error) => Again::Short,
                Err(_) => Again::Hopeless,
            }
        });
        last
    }

    /// Pages of a caller's, by one attempt, which is no fault point. They are not zeroed.
    #[inline]
    pub(crate) fn pages_once(&self, pages: usize, flags: Gfp) -> Packed {
        self.block_now(pages, flags, FrameKind::Pages, flags.bits())
    }

    /// A block, by one attempt, by its address.
    #[inline(always)]
    pub(crate) fn block_now(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> Packed {
        let taken = self.memory.take_by_depth(pages, flags, kind, link).result();
        Packed::new(taken.map(|pfn| self.block_ptr(Pfn(pfn))))
    }
}
