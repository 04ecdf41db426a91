//! Pages so small that one holds a single control block of a cache.

mod common;

use backend_nommu::{Contiguous, Guarded, Unguarded};
use common::waiting::*;
use mm_core::*;
use rtmm_testkit::{Ram, TestPlatform};
use std::sync::{Arc, Mutex};

/// Pages of 512 bytes or less, like those of the smallest boards, with pointers of the host's size.
struct Small {
    base: usize,
}

const SHIFT: u32 = if usize::BITS == 64 { 9 } else { 8 };
const PHYS: u64 = 0x10_0000;
const LEN: u64 = 512 << 10;

impl Guarded for Small {
    type Regions = Unguarded;

    fn regions(&self) -> &Unguarded {
        &Unguarded
    }
}

// SAFETY: the RAM is one allocation of the host's, with the alignment of its physical addresses.
unsafe impl Backend for Small {
    const PAGE_SHIFT: u32 = SHIFT;
    const MAX_ORDER: usize = 8;
    const PHYS_BITS: u32 = 32;
    const HAS_MMU: bool = false;

    type Areas<P: Platform> = Contiguous<P, Self>;
    type Classes<L: RawLock> = InManager<L>;

    fn direct_ptr(&self, phys: usize) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.base.wrapping_add(phys))
    }

    fn direct_frame(&self, addr: usize) -> usize {
        addr.wrapping_sub(self.base) >> SHIFT
    }
}

type SmallMm = Mm<TestPlatform, Small>;
type Cache = RawKmemCache<&'static SmallMm>;

/// Gives a cache up and says nothing of it.
struct Silent(Mutex<Option<Cache>>);

impl Shrinker for Silent {
    fn count(&self, _request: &ShrinkRequest) -> usize {
        drop(self.0.lock().unwrap().take());
        0
    }

    fn scan(&self, _request: &ShrinkRequest) -> usize {
        0
    }
}

/// A page that is kept for the next cache when somebody comes to wait is not forgotten for the page of a cache that goes
/// while he does.
#[test]
fn no_page_of_a_cache_is_lost_while_somebody_waits() {
    let ram: &Ram = Box::leak(Box::new(Ram::new(&[PhysRange { start: PHYS, end: PHYS + LEN }])));
    let base = ram.ptr(PHYS).unwrap().expose_provenance().wrapping_sub(PHYS as usize);
    let mm: &SmallMm = Box::leak(Box::new(Mm::new(TestPlatform::new(), Small { base })));
    let mut map: BootMap = BootMap::new();
    map.add_ram(PHYS, LEN).unwrap();
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << 32 }];
    let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
    // SAFETY: the memory is this manager's alone, and is there for good.
    unsafe { mm.init(&mut map.finish(SHIFT, 32).unwrap(), &config) }.unwrap();

    mm.drain();
    let before = mm.free_page_count();
    let cache = |name| Cache::new_in(name, 64, 8, CacheFlags::empty(), None, mm).unwrap();
    let (first, second) = (cache("first"), cache("second"));
    mm.register_shrinker(Box::leak(Box::new(Silent(Mutex::new(Some(first)))))).unwrap();
    let whole = mm.buddyinfo().largest().unwrap();
    let mut taken = Vec::new();
    while let Ok(block) = mm.alloc_pages(GFP_ATOMIC | Gfp::NOWARN, whole) {
        taken.push(block);
    }
    let bell = Arc::<Bell>::default();
    let mut future = Box::pin(mm.get_free_pages_async(GFP_KERNEL, whole));
    assert!(poll(future.as_mut(), &bell).is_pending());
    drop(second);
    drop(future);
    for block in taken {
        mm.free_pages_frame(block, whole).unwrap();
    }
    mm.drain();
    mm.check().unwrap();
    assert_eq!(mm.free_page_count(), before);
}
