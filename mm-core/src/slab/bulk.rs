//! Many objects of a cache in one lock hold.

use super::{Given, Slabs, give};
use crate::backend::Backend;
use crate::error::FreeError;
use crate::frame::FrameKind;
use crate::platform::Platform;

/// The most objects one lock hold takes or gives.
pub const BATCH: usize = 32;

impl<P: Platform, B: Backend> Slabs<'_, P, B> {
    /// Takes objects that are at hand, as many as `objects` has entries and a batch allows. Returns how many.
    pub fn take_batch(&self, objects: &mut [*mut u8]) -> usize {
        let mut state = self.state.lock();
        let mut taken = 0;
        for entry in objects.iter_mut().take(BATCH) {
            let object = match state.take() {
                Some(object) => object,
                None => match self.advance(&mut state) {
                    Some(object) => object,
                    None => break,
                },
            };
            *entry = object.as_ptr();
            taken += 1;
        }
        taken
    }

    /// Gives objects back, first to last, as many as a batch allows; fewer when a slab has to be looked at. Returns how
    /// many, at least one.
    ///
    /// # Errors
    /// Why the first is refused.
    pub fn give_batch(&self, objects: &[*mut u8]) -> Result<usize, FreeError> {
        let state = self.state.lock();
        for (given, object) in objects.iter().take(BATCH).enumerate() {
            let addr = object.addr();
            let frame = self.memory.frames.find(self.memory.backend.direct_frame(addr));
            let refusal = match frame {
                Some((_, frame)) if frame.head().is(FrameKind::CacheSlab) => {
                    if frame.head().class() != self.owner as usize {
                        FreeError::WrongCache
                    } else {
                        // SAFETY: the frame names a live slab of this cache, whose lock is held, for as long as its
                        // head says so.
                        match unsafe { give(self.slab(frame.link()), addr, Some(self.geometry.slots)) } {
                            Given::Inside => continue,
                            Given::First(slab, w) | Given::Edge(slab, w) => {
                                self.settle(state, slab, w, addr);
                                return Ok(given + 1);
                            }
                            Given::Refused(error) => error,
                        }
                    }
                }
                // The caller says what is wrong with it.
                _ => FreeError::WrongAllocator,
            };
            drop(state);
            return if given == 0 { Err(refusal) } else { Ok(given) };
        }
        drop(state);
        Ok(objects.len().min(BATCH))
    }
}
