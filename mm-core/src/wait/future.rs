//! Waiting in a future: nothing is allocated, the node lies in the pinned future.

use super::queue::{Grant, Wake};
use super::{Block, Place};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::debug::ON_ALLOC;
use crate::error::AllocError;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::meta::NIL;
use crate::platform::{Context, Platform};
use crate::slab::{ClassTable, Slabs};
use core::cell::Cell;
use core::future::Future;
use core::panic::Location;
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{self, Poll};

/// Where a future stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Queued,
    Done,
}

/// True when a future may queue up for `pages`: its flags say so, the error may pass, and there are as many.
fn queues<P: Platform, B: Backend>(mm: &Mm<P, B>, pages: usize, flags: Gfp, short: bool) -> bool {
    short && flags.contains(Gfp::WAIT) && !flags.contains(Gfp::NORETRY) && mm.memory.could_serve(pages, flags)
}

/// The flags for reclaim: shrinkers run in tasks only, futures anywhere.
fn here<P: Platform, B: Backend>(mm: &Mm<P, B>, flags: Gfp) -> Gfp {
    if mm.platform().context() == Context::Task { flags } else { flags.difference(Gfp::WAIT) }
}

/// Does what interrupts put off, where it may be done.
fn tend<P: Platform, B: Backend>(mm: &Mm<P, B>) {
    if mm.platform().context() == Context::Task {
        mm.flush_deferred();
    }
}

/// A block of pages to come.
struct BlockFuture<'a, P: Platform, B: Backend> {
    mm: &'a Mm<P, B>,
    block: Block,
    caller: &'static Location<'static>,
    stage: Cell<Stage>,
    place: Place<'a, P, B>,
}

impl<'a, P: Platform, B: Backend> BlockFuture<'a, P, B> {
    fn new(mm: &'a Mm<P, B>, block: Block, caller: &'static Location<'static>) -> Self {
        let (stage, place) = (Cell::new(Stage::New), Place::new(&mm.memory, block.want(0), ()));
        BlockFuture { mm, block, caller, stage, place }
    }

    /// [`poll`](Self::poll) of a block of pages.
    fn poll_pages(self: Pin<&Self>, context: &task::Context<'_>) -> Poll<Result<Pfn, AllocError>> {
        let Block { pages, flags, .. } = self.block;
        self.poll(context).map(|made| self.mm.made_frames(made, pages, flags, self.caller))
    }

    fn poll(self: Pin<&Self>, context: &task::Context<'_>) -> Poll<Result<Pfn, AllocError>> {
        let (mm, block) = (self.mm, self.block);
        // SAFETY: the place is pinned with the future.
        let place = unsafe { self.map_unchecked(|future| &future.place) };
        let first = self.stage.get() == Stage::New;
        match self.stage.replace(Stage::Done) {
            Stage::New => {
                let Block { pages, flags, kind, link } = block;
                let take = || mm.memory.take_block_now(pages, flags, kind, link);
                let now = mm.memory.take_block(pages, flags, kind, link);
                match now.or_else(|error| mm.reclaim(here(mm, flags), pages, error, take)) {
                    Ok(pfn) => return Poll::Ready(Ok(pfn)),
                    Err(failed) if !queues(mm, pages, flags, failed.short) => return Poll::Ready(Err(failed.error)),
                    Err(_) => {}
                }
            }
            Stage::Queued => {}
            Stage::Done => return Poll::Pending,
        }
        let mut look = first;
        loop {
            place.join(Wake::Future(context.waker().clone()));
            if look {
                mm.memory.look(block.flags);
            } else {
                tend(mm);
            }
            let Some(Grant::Block(pfn)) = place.collect() else {
                self.stage.set(Stage::Queued);
                return Poll::Pending;
            };
            match mm.memory.sound_grant(pfn, &block) {
                Ok(pfn) => return Poll::Ready(Ok(mm.memory.accept(pfn, &block))),
                // It was damaged, and there is no other: once more at the end of the queue.
                Err(_) => look = true,
            }
        }
    }
}

/// An object of a cache to come.
struct ObjectFuture<'a, P: Platform, B: Backend> {
    slabs: Slabs<'a, P, B>,
    flags: Gfp,
    size: usize,
    caller: &'static Location<'static>,
    stage: Cell<Stage>,
    place: Place<'a, P, B, Slabs<'a, P, B>>,
}

impl<'a, P: Platform, B: Backend> ObjectFuture<'a, P, B> {
    fn new(slabs: Slabs<'a, P, B>, flags: Gfp, size: usize, caller: &'static Location<'static>) -> Self {
        ObjectFuture { slabs, flags, size, caller, stage: Cell::new(Stage::New), place: slabs.place(flags) }
    }

    fn poll(self: Pin<&Self>, context: &task::Context<'_>) -> Poll<Result<NonNull<u8>, AllocError>> {
        // SAFETY: the place is pinned with the future.
        let place = unsafe { self.map_unchecked(|future| &future.place) };
        let first = self.stage.get() == Stage::New;
        match self.stage.replace(Stage::Done) {
            Stage::New => {
                let (mm, pages) = (self.slabs.mm, self.slabs.waited_pages());
                match self.slabs.alloc_now(here(mm, self.flags)) {
                    Ok(object) => return Poll::Ready(Ok(object)),
                    Err(failed) if !queues(mm, pages, self.flags, failed.short) => {
                        return Poll::Ready(Err(failed.error));
                    }
                    Err(_) => {}
                }
            }
            Stage::Queued => {}
            Stage::Done => return Poll::Pending,
        }
        let mut look = first;
        let mut again = true;
        loop {
            place.join(Wake::Future(context.waker().clone()));
            if P::CPUS > 1 {
                // Behind joining: what other CPUs keep, and what is freed there from now on, comes to who waits.
                self.slabs.mm.drain_cpus(0);
            }
            if look {
                self.slabs.look(self.flags);
            } else {
                tend(self.slabs.mm);
            }
            match place.collect() {
                Some(grant) => match self.slabs.accept(grant, self.flags, None) {
                    Ok(object) => return Poll::Ready(Ok(object)),
                    // Its pages went back for want of a descriptor's: once more at the end of the queue, for either;
                    // then it waits there for what others free, which comes with those pages.
                    Err(error) if error.may_pass() && !self.slabs.memory.was_injected() => {
                        (look, again) = (again, false);
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                },
                None => {
                    self.stage.set(Stage::Queued);
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The future of [`Mm::alloc_pages_async`].
#[must_use = "futures do nothing unless polled"]
pub struct AllocPages<'a, P: Platform, B: Backend>(Result<BlockFuture<'a, P, B>, AllocError>);

impl<P: Platform, B: Backend> Future for AllocPages<'_, P, B> {
    type Output = Result<Pfn, AllocError>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.into_ref();
        match &this.get_ref().0 {
            // SAFETY: pinned with the whole.
            Ok(block) => unsafe { Pin::new_unchecked(block) }.poll_pages(context),
            Err(error) => Poll::Ready(Err(*error)),
        }
    }
}

/// The future of [`Mm::get_free_pages_async`].
#[must_use = "futures do nothing unless polled"]
pub struct GetFreePages<'a, P: Platform, B: Backend>(Result<BlockFuture<'a, P, B>, AllocError>);

impl<P: Platform, B: Backend> Future for GetFreePages<'_, P, B> {
    type Output = Result<NonNull<u8>, AllocError>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.into_ref();
        match &this.get_ref().0 {
            // SAFETY: pinned with the whole.
            Ok(block) => unsafe { Pin::new_unchecked(block) }.poll_pages(context).map_ok(|pfn| block.mm.block_ptr(pfn)),
            Err(error) => Poll::Ready(Err(*error)),
        }
    }
}

enum KmallocFuture<'a, P: Platform, B: Backend> {
    Object(ObjectFuture<'a, P, B>),
    Block(BlockFuture<'a, P, B>),
    Refused(AllocError),
}

/// The future of [`Mm::kmalloc_async`].
#[must_use = "futures do nothing unless polled"]
pub struct Kmalloc<'a, P: Platform, B: Backend>(KmallocFuture<'a, P, B>);

impl<P: Platform, B: Backend> Future for Kmalloc<'_, P, B> {
    type Output = Result<NonNull<u8>, AllocError>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.into_ref();
        match &this.get_ref().0 {
            KmallocFuture::Object(object) => {
                // SAFETY: pinned with the whole.
                let made = unsafe { Pin::new_unchecked(object) }.poll(context).map(|made| {
                    // Another in its place is not waited for.
                    let ptr = object.slabs.checked(made?, object.flags.difference(Gfp::WAIT), object.caller)?;
                    if object.flags.contains(Gfp::ZERO) {
                        // SAFETY: the object is ours and as long as its class.
                        unsafe { ptr.write_bytes(0, object.slabs.object_size()) };
                    }
                    Ok(ptr)
                });
                made.map(|made| object.slabs.mm.made_object(made, object.size, object.flags, object.caller))
            }
            KmallocFuture::Block(block) => {
                // SAFETY: pinned with the whole.
                let made = unsafe { Pin::new_unchecked(block) }.poll(context).map_ok(|pfn| block.mm.block_ptr(pfn));
                let Block { pages, flags, .. } = block.block;
                made.map(|made| block.mm.made_object(made, pages << B::PAGE_SHIFT, flags, block.caller))
            }
            KmallocFuture::Refused(error) => Poll::Ready(Err(*error)),
        }
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    fn pages_block(&self, flags: Gfp, order: usize) -> Result<Block, AllocError> {
        let flags = flags.validate()?.union(ON_ALLOC);
        if order > B::MAX_ORDER {
            return Err(AllocError::BadOrder);
        }
        Ok(Block { pages: 1 << order, flags, kind: FrameKind::Pages, link: flags.bits() })
    }

    /// [`alloc_pages`](Self::alloc_pages) as a future: with `WAIT` in the flags it is pending while memory is short,
    /// and is handed its block in turn with the tasks that wait.
    ///
    /// No context is held up, so it may be polled anywhere, an executor that runs in an interrupt included; shrinkers
    /// run only when it is first polled in a task. It has no deadline: dropping it ends it, and what was handed to it
    /// goes on to the next.
    ///
    /// # Errors
    /// As `alloc_pages`.
    #[track_caller]
    pub fn alloc_pages_async(&self, flags: Gfp, order: usize) -> AllocPages<'_, P, B> {
        let caller = Location::caller();
        AllocPages(self.pages_block(flags, order).map(|block| BlockFuture::new(self, block, caller)))
    }

    /// [`get_free_pages`](Self::get_free_pages) as a future; as [`alloc_pages_async`](Self::alloc_pages_async).
    ///
    /// # Errors
    /// As `get_free_pages`.
    #[track_caller]
    pub fn get_free_pages_async(&self, flags: Gfp, order: usize) -> GetFreePages<'_, P, B> {
        let caller = Location::caller();
        let block = self.pages_block(flags, order).map(|mut block| {
            block.flags = block.flags.difference(Gfp::HIGHMEM);
            BlockFuture::new(self, block, caller)
        });
        GetFreePages(block)
    }

    /// [`kmalloc`](Self::kmalloc) as a future; as [`alloc_pages_async`](Self::alloc_pages_async). An object that is
    /// freed serves it as well as pages for a slab do.
    ///
    /// # Errors
    /// As `kmalloc`.
    #[track_caller]
    pub fn kmalloc_async(&self, size: usize, flags: Gfp) -> Kmalloc<'_, P, B> {
        let caller = Location::caller();
        Kmalloc(match self.kmalloc_place(size, flags) {
            Ok((flags, Some(class))) => match self.class(class) {
                Some(slabs) => KmallocFuture::Object(ObjectFuture::new(slabs, flags, size, caller)),
                None => KmallocFuture::Refused(AllocError::NotReady),
            },
            Ok((flags, None)) => {
                let pages = size.div_ceil(B::PAGE_SIZE);
                let block = Block { pages, flags, kind: FrameKind::Large, link: NIL };
                KmallocFuture::Block(BlockFuture::new(self, block, caller))
            }
            Err(error) => KmallocFuture::Refused(error),
        })
    }

    /// The flags that count, and the class that serves `size`; `None` for whole pages.
    pub(super) fn kmalloc_place(&self, size: usize, flags: Gfp) -> Result<(Gfp, Option<usize>), AllocError> {
        let flags = flags.validate()?.union(ON_ALLOC).difference(Gfp::HIGHMEM);
        let table = ClassTable::<B>::TABLE;
        match size {
            0 => Err(AllocError::ZeroSize),
            _ if size.div_ceil(B::PAGE_SIZE) > 1 << B::MAX_ORDER => Err(AllocError::TooBig),
            _ if size > table.largest || flags.intersects(Gfp::DMA.union(Gfp::DMA32)) => Ok((flags, None)),
            _ => Ok((flags, Some(table.of[size.div_ceil(8)] as usize))),
        }
    }
}
