//! What a cache has done to each object when a slab is carved, and when it goes back.

use super::{Detached, Geometry};
use crate::backend::Backend;
use crate::memory::Memory;
use crate::platform::Platform;
use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// A function whose type the one that calls it knows.
type Erased = fn();
/// Where objects stand, of which nobody has one.
#[derive(Clone, Copy)]
struct Row {
    first: *mut u8,
    /// Bytes from one to the next.
    size: usize,
    count: usize,
}
/// How a constructor is called for all objects of a slab, of which the first stands there. What it made is destroyed again
/// when it unwinds.
type Call = unsafe fn(&Hooks, &Geometry, *mut u8);
/// How so many objects of so many bytes are destroyed, last to first: in registers, since a slab on its way back has little
/// else to keep in memory.
type Destroy = unsafe fn(*mut u8, usize, usize);

/// Constructor and destructor of a cache's objects. They run outside every lock and may allocate and free.
#[derive(Clone, Copy)]
pub struct Hooks {
    construct: Option<(Call, Erased)>,
    destroy: Option<Destroy>,
    /// What is watched.
    #[cfg(feature = "slab-debug")]
    pub guarded: Option<super::Guarded>,
}

impl Hooks {
    /// Objects are bytes.
    pub const NONE: Hooks = Hooks {
        construct: None,
        destroy: None,
        #[cfg(feature = "slab-debug")]
        guarded: None,
    };

    /// Objects are what `constructor` makes of their bytes.
    pub fn of_bytes(constructor: fn(NonNull<u8>)) -> Hooks {
        // SAFETY: between function pointers; it is called as what it is.
        let erased = unsafe { core::mem::transmute::<fn(NonNull<u8>), Erased>(constructor) };
        unsafe fn call(hooks: &Hooks, geometry: &Geometry, first: *mut u8) {
            let Some((_, erased)) = hooks.construct else { return };
            // SAFETY: put there by `of_bytes`.
            let constructor = unsafe { core::mem::transmute::<Erased, fn(NonNull<u8>)>(erased) };
            Row::of(geometry, first).construct(hooks.destroy, constructor);
        }
        let mut hooks = Hooks::NONE;
        hooks.construct = Some((call, erased));
        hooks
    }

    /// Objects are what a constructor in C makes of their bytes.
    pub fn of_c(constructor: unsafe extern "C" fn(*mut c_void)) -> Hooks {
        // SAFETY: as above.
        let erased = unsafe { core::mem::transmute::<unsafe extern "C" fn(*mut c_void), Erased>(constructor) };
        unsafe fn call(hooks: &Hooks, geometry: &Geometry, first: *mut u8) {
            let Some((_, erased)) = hooks.construct else { return };
            // SAFETY: put there by `of_c`.
            let constructor = unsafe { core::mem::transmute::<Erased, unsafe extern "C" fn(*mut c_void)>(erased) };
            // SAFETY: who gave the constructor vouches for it; the object is nobody else's.
            let construct = |object: NonNull<u8>| unsafe { constructor(object.as_ptr().cast()) };
            Row::of(geometry, first).construct(hooks.destroy, construct);
        }
        let mut hooks = Hooks::NONE;
        hooks.construct = Some((call, erased));
        hooks
    }

    /// Objects are values that `constructor` returns.
    pub fn of_values<T>(constructor: fn() -> T) -> Hooks {
        // SAFETY: as above.
        let erased = unsafe { core::mem::transmute::<fn() -> T, Erased>(constructor) };
        unsafe fn call<T>(hooks: &Hooks, geometry: &Geometry, first: *mut u8) {
            let Some((_, erased)) = hooks.construct else { return };
            // SAFETY: put there by `of_values` of the same type.
            let constructor = unsafe { core::mem::transmute::<Erased, fn() -> T>(erased) };
            Row::of(geometry, first).construct(hooks.destroy, |object| {
                let value = constructor();
                // SAFETY: the object is one of this type's size and alignment, and nobody else's.
                unsafe { object.cast::<T>().write(value) };
            });
        }
        unsafe fn destroy<T>(first: *mut u8, size: usize, count: usize) {
            let mut row = Row { first, size, count };
            while let Some(count) = row.count.checked_sub(1) {
                row.count = count;
                // SAFETY: constructed, and counted no more.
                unsafe { row.next().cast::<T>().drop_in_place() };
            }
        }
        let destroy: Option<Destroy> = if core::mem::needs_drop::<T>() { Some(destroy::<T>) } else { None };
        let mut hooks = Hooks::NONE;
        hooks.construct = Some((call::<T>, erased));
        hooks.destroy = destroy;
        hooks
    }

    /// True when objects keep a state from one owner to the next.
    pub fn has_constructor(&self) -> bool {
        self.construct.is_some()
    }

    /// True when nobody minds if an object is zeroed that is not in use: no constructor's work is undone, no poison wiped
    /// away.
    pub fn may_be_zeroed(&self) -> bool {
        #[cfg(feature = "slab-debug")]
        if self.guarded.is_some_and(|guarded| guarded.poison == super::Poison::Free) {
            return false;
        }
        !self.has_constructor()
    }

    /// True when something is done to the objects of a new slab.
    pub fn prepares(&self) -> bool {
        #[cfg(feature = "slab-debug")]
        if self.guarded.is_some() {
            return true;
        }
        self.has_constructor()
    }

    /// Constructs the objects of a slab that `first` begins.
    ///
    /// # Safety
    /// The memory of the slab is the caller's alone.
    pub unsafe fn construct_all(&self, geometry: &Geometry, first: *mut u8) {
        #[cfg(feature = "slab-debug")]
        if let Some(guarded) = &self.guarded {
            // SAFETY: by the caller's word; a guarded cache is cut with room for the zones.
            unsafe { guarded.fill(first, geometry.size as usize, geometry.slots as usize) };
        }
        let Some((call, _)) = self.construct else { return };
        // SAFETY: each slot is an object, aligned for what the cache was made for.
        unsafe { call(self, geometry, first) };
    }

    /// Undoes [`construct_all`](Self::construct_all).
    ///
    /// # Safety
    /// All `count` objects of `size` bytes from `first` on are constructed, and nobody has one.
    #[inline]
    pub unsafe fn destroy_all(&self, first: *mut u8, size: usize, count: usize) {
        if let Some(destroy) = self.destroy {
            // SAFETY: by the caller's word.
            unsafe { destroy(first, size, count) };
        }
    }
}

/// What is done to the objects of kmalloc's classes.
pub struct ClassHooks<B: Backend>(PhantomData<B>);

#[cfg(not(feature = "kmalloc-debug"))]
impl<B: Backend> ClassHooks<B> {
    /// To those of a class: nothing.
    #[inline(always)]
    pub const fn of(_class: usize) -> &'static Hooks {
        &Hooks::NONE
    }
}

#[cfg(feature = "kmalloc-debug")]
impl<B: Backend> ClassHooks<B> {
    const TABLE: &'static [Hooks; super::MAX_CLASSES] = &{
        let mut hooks = [Hooks::NONE; super::MAX_CLASSES];
        let mut class = 0;
        while class < hooks.len() {
            let object = super::ClassTable::<B>::TABLE.object_size(class);
            hooks[class].guarded =
                Some(super::Guarded { object, zones: super::Zones::Red, poison: super::Poison::Free });
            class += 1;
        }
        hooks
    };

    /// To those of a class: all is watched.
    pub const fn of(class: usize) -> &'static Hooks {
        &Self::TABLE[class % super::MAX_CLASSES]
    }
}

impl Row {
    /// The objects of a slab.
    fn of(geometry: &Geometry, first: *mut u8) -> Row {
        Row { first, size: geometry.size as usize, count: geometry.slots as usize }
    }

    /// The object behind those that are counted.
    fn next(&self) -> NonNull<u8> {
        // SAFETY: in the slab's pages, which have a kernel address.
        unsafe { NonNull::new_unchecked(self.first.wrapping_add(self.count * self.size)) }
    }

    /// Constructs all.
    fn construct(self, destroy: Option<Destroy>, constructor: impl Fn(NonNull<u8>)) {
        let mut made = Made { row: Row { count: 0, ..self }, destroy };
        while made.row.count < self.count {
            constructor(made.row.next());
            made.row.count += 1;
        }
        // All are there.
        core::mem::forget(made);
    }
}

/// The objects of a row that are constructed; they are destroyed when it is dropped.
struct Made {
    row: Row,
    destroy: Option<Destroy>,
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy {
            // SAFETY: constructed, and nobody has one.
            unsafe { destroy(self.row.first, self.row.size, self.row.count) };
        }
    }
}

impl Detached {
    /// Gives a block and a descriptor back when a constructor unwinds before they are a slab.
    pub(super) fn until_constructed<P: Platform, B: Backend>(self, memory: &Memory<P, B>) -> Unfinished<'_, P, B> {
        Unfinished { memory, detached: Some(self) }
    }
}

/// A slab to be, whose objects are being constructed.
pub struct Unfinished<'a, P: Platform, B: Backend> {
    memory: &'a Memory<P, B>,
    detached: Option<Detached>,
}

impl<P: Platform, B: Backend> Unfinished<'_, P, B> {
    /// It is a slab.
    pub(super) fn finish(mut self) {
        self.detached = None;
    }
}

impl<P: Platform, B: Backend> Drop for Unfinished<'_, P, B> {
    fn drop(&mut self) {
        if let Some(detached) = self.detached.take() {
            detached.give(self.memory);
        }
    }
}
