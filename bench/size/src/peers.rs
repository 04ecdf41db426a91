//! The allocators a Cortex-M program can choose instead, each by its own interface.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr::{NonNull, null_mut};

use crate::Subject;

/// Something that is used in critical sections only.
struct Shared<T>(UnsafeCell<T>);

// SAFETY: `with` is the only way in, and critical sections exclude each other.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    const fn new(value: T) -> Self {
        Shared(UnsafeCell::new(value))
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // The address is hidden, so that a program without `setup` is not seen to hold an empty allocator for ever.
        let cell = core::hint::black_box(&self.0);
        // SAFETY: one core, in a critical section, and `work` does not come back here.
        critical_section::with(|_| work(unsafe { &mut *cell.get() }))
    }
}

fn layout(size: usize) -> Layout {
    // SAFETY: 8 is a power of two; the programs' sizes are far from the end of the address space.
    unsafe { Layout::from_size_align_unchecked(size, 8) }
}

fn or_null(object: Option<NonNull<u8>>) -> *mut u8 {
    object.map_or(null_mut(), NonNull::as_ptr)
}

/// `linked_list_allocator`, first fit.
#[derive(Debug)]
pub struct LinkedList;

static LINKED_LIST: Shared<linked_list_allocator::Heap> = Shared::new(linked_list_allocator::Heap::empty());

impl Subject for LinkedList {
    const NAME: &'static str = "linked_list_allocator";

    unsafe fn setup(arena: Range<usize>) {
        // SAFETY: the caller hands over the arena.
        LINKED_LIST.with(|heap| unsafe { heap.init(core::ptr::with_exposed_provenance_mut(arena.start), arena.len()) });
    }

    fn allocate(size: usize) -> *mut u8 {
        or_null(LINKED_LIST.with(|heap| heap.allocate_first_fit(layout(size)).ok()))
    }

    unsafe fn free(ptr: *mut u8, size: usize) {
        let Some(ptr) = NonNull::new(ptr) else { return };
        // SAFETY: the caller's word.
        LINKED_LIST.with(|heap| unsafe { heap.deallocate(ptr, layout(size)) });
    }
}

/// `talc` with its default bins.
#[derive(Debug)]
pub struct Talc;

type TalcHeap = talc::base::Talc<talc::source::Manual, talc::DefaultBinning>;

static TALC: Shared<TalcHeap> = Shared::new(TalcHeap::new(talc::source::Manual));

impl Subject for Talc {
    const NAME: &'static str = "talc";

    unsafe fn setup(arena: Range<usize>) {
        // SAFETY: the caller hands over the arena.
        TALC.with(|heap| unsafe { heap.claim(core::ptr::with_exposed_provenance_mut(arena.start), arena.len()) });
    }

    fn allocate(size: usize) -> *mut u8 {
        // SAFETY: the programs' sizes are not 0.
        or_null(TALC.with(|heap| unsafe { heap.allocate(layout(size)) }))
    }

    unsafe fn free(ptr: *mut u8, size: usize) {
        if !ptr.is_null() {
            // SAFETY: the caller's word.
            TALC.with(|heap| unsafe { heap.deallocate(ptr, layout(size)) });
        }
    }
}

/// `rlsf` (TLSF), cut for arenas of up to 2 MiB.
#[derive(Debug)]
pub struct Rlsf;

type RlsfHeap = rlsf::Tlsf<'static, u32, u16, 16, 16>;

static RLSF: Shared<RlsfHeap> = Shared::new(RlsfHeap::new());

impl Subject for Rlsf {
    const NAME: &'static str = "rlsf";

    unsafe fn setup(arena: Range<usize>) {
        let start = core::ptr::with_exposed_provenance_mut(arena.start);
        let block = NonNull::new(core::ptr::slice_from_raw_parts_mut(start, arena.len()));
        let Some(block) = block else { return };
        // SAFETY: the caller hands over the arena.
        RLSF.with(|heap| unsafe { heap.insert_free_block_ptr(block) });
    }

    fn allocate(size: usize) -> *mut u8 {
        or_null(RLSF.with(|heap| heap.allocate(layout(size))))
    }

    unsafe fn free(ptr: *mut u8, _: usize) {
        let Some(ptr) = NonNull::new(ptr) else { return };
        // SAFETY: the caller's word.
        RLSF.with(|heap| unsafe { heap.deallocate(ptr, 8) });
    }
}

/// `buddy_system_allocator`, orders up to 2 MiB.
#[derive(Debug)]
pub struct BuddySystem;

type BuddyHeap = buddy_system_allocator::Heap<22>;

static BUDDY_SYSTEM: Shared<BuddyHeap> = Shared::new(BuddyHeap::empty());

impl Subject for BuddySystem {
    const NAME: &'static str = "buddy_system_allocator";

    unsafe fn setup(arena: Range<usize>) {
        // SAFETY: the caller hands over the arena.
        BUDDY_SYSTEM.with(|heap| unsafe { heap.init(arena.start, arena.len()) });
    }

    fn allocate(size: usize) -> *mut u8 {
        or_null(BUDDY_SYSTEM.with(|heap| heap.alloc(layout(size)).ok()))
    }

    unsafe fn free(ptr: *mut u8, size: usize) {
        let Some(ptr) = NonNull::new(ptr) else { return };
        // SAFETY: the caller's word.
        BUDDY_SYSTEM.with(|heap| unsafe { heap.dealloc(ptr, layout(size)) });
    }
}

/// A [`GlobalAlloc`] of `embedded-alloc`, which brings its own critical section.
macro_rules! embedded_alloc {
    ($(#[$doc:meta])* $subject:ident, $name:literal, $heap:ident, $kind:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $subject;

        static $heap: $kind = <$kind>::empty();

        impl Subject for $subject {
            const NAME: &'static str = $name;

            unsafe fn setup(arena: Range<usize>) {
                // SAFETY: the caller hands over the arena.
                unsafe { core::hint::black_box(&$heap).init(arena.start, arena.len()) };
            }

            fn allocate(size: usize) -> *mut u8 {
                // SAFETY: the programs' sizes are not 0.
                unsafe { core::hint::black_box(&$heap).alloc(layout(size)) }
            }

            unsafe fn free(ptr: *mut u8, size: usize) {
                if !ptr.is_null() {
                    // SAFETY: the caller's word.
                    unsafe { core::hint::black_box(&$heap).dealloc(ptr, layout(size)) };
                }
            }
        }
    };
}

embedded_alloc! {
    /// `embedded-alloc`'s TLSF.
    EmbeddedTlsf, "embedded-alloc TLSF", EMBEDDED_TLSF, embedded_alloc::TlsfHeap
}

embedded_alloc! {
    /// `embedded-alloc`'s linked list.
    EmbeddedLlff, "embedded-alloc LLFF", EMBEDDED_LLFF, embedded_alloc::LlffHeap
}
