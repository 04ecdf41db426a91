//! A device that remembers what is written to it, in quanta.

use super::store::Store;
use core::ptr::{self, NonNull};
use rtmm::{AllocError, FreeError};

/// One entry of a set: a quantum, or a hole.
type Slot = Option<NonNull<u8>>;

/// A list node: one set of quanta, and the way to the next.
struct Node {
    set: Option<NonNull<Slot>>,
    next: Option<NonNull<Node>>,
}

/// A memory-backed device: a list of nodes, each with an array of `set_length` quanta.
///
/// The first node is part of the device; the others, the arrays and the quanta come from the [`Store`] when a write
/// needs them and go back in [`trim`](Device::trim).
///
/// Dropping a device that holds data trims it; what the store refuses to take back is lost then, so whoever wants to
/// know calls `trim` first.
pub struct Device<S: Store> {
    store: S,
    set_length: usize,
    first: Node,
    size: usize,
}

/// Where a byte of the device lies.
struct Place {
    node: usize,
    slot: usize,
    offset: usize,
}

impl<S: Store> Device<S> {
    /// An empty device whose arrays hold `set_length` quanta.
    ///
    /// # Panics
    /// When `set_length` or the store's quantum is zero.
    pub fn new(store: S, set_length: usize) -> Self {
        assert!(set_length > 0 && store.quantum() > 0, "a device needs quanta of some size");
        Device { store, set_length, first: Node { set: None, next: None }, size: 0 }
    }

    /// One past the last byte ever written.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Where the quanta come from.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Opens for writing only, which empties the device, as in the driver.
    ///
    /// # Errors
    /// As for [`trim`](Device::trim).
    pub fn open_for_write(&mut self) -> Result<(), FreeError> {
        self.trim()
    }

    /// Writes at `at`, at most to the end of the quantum; returns how many bytes were taken.
    ///
    /// Memory that no write reached reads as zeros inside a quantum, and as nothing where the quantum is a hole.
    ///
    /// # Errors
    /// [`AllocError`] when the store has no more: the device holds what it held, and list nodes made for this write
    /// went back (an array of quanta stays for the next write, or the next trim). [`AllocError::TooBig`] when the
    /// write would end past the last address.
    pub fn write(&mut self, at: usize, data: &[u8]) -> Result<usize, AllocError> {
        if data.is_empty() {
            return Ok(0);
        }
        let place = self.place(at);
        let count = data.len().min(self.store.quantum() - place.offset);
        let end = at.checked_add(count).ok_or(AllocError::TooBig)?;
        let quantum = self.quantum_for_write(&place)?;
        // SAFETY: the store gave `quantum()` bytes to this device alone, `offset + count` is at most that, and `data`
        // is borrowed from elsewhere.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), quantum.as_ptr().add(place.offset), count) };
        self.size = self.size.max(end);
        Ok(count)
    }

    /// Reads at `at`, at most to the end of the quantum or of the device; returns how many bytes were read.
    ///
    /// 0 at or past the end, and in a hole.
    pub fn read(&self, at: usize, data: &mut [u8]) -> usize {
        if at >= self.size {
            return 0;
        }
        let place = self.place(at);
        let Some(quantum) = self.quantum(&place) else { return 0 };
        let count = data.len().min(self.store.quantum() - place.offset).min(self.size - at);
        // SAFETY: as in `write`; quanta are zeroed when they are taken, so every byte is initialised.
        unsafe { ptr::copy_nonoverlapping(quantum.as_ptr().add(place.offset), data.as_mut_ptr(), count) };
        count
    }

    /// Gives back every quantum, array and node but the first, and forgets the size.
    ///
    /// # Errors
    /// The first free the store refuses ends the work there. What was not given back stays on the device, so that a
    /// later call can go on; the size is 0 only after success.
    pub fn trim(&mut self) -> Result<(), FreeError> {
        loop {
            self.empty_first_set()?;
            let Some(second) = self.first.next else { break };
            // SAFETY: a node on the list came from `add_node`, which initialised it, and is reached from here only.
            let moved = unsafe { second.as_ptr().read() };
            // The second node's contents move up, so that the list is whole again before its memory goes back.
            self.first = moved;
            if let Err(error) = self.store.put_table(second.cast()) {
                // SAFETY: the store kept nothing of a refused block, so the node is still ours to write.
                unsafe { second.as_ptr().write(Node { set: self.first.set.take(), next: self.first.next.take() }) };
                self.first.next = Some(second);
                return Err(error);
            }
        }
        self.size = 0;
        Ok(())
    }

    /// Gives back the first node's quanta, then its array.
    fn empty_first_set(&mut self) -> Result<(), FreeError> {
        let Some(set) = self.first.set else { return Ok(()) };
        for index in 0..self.set_length {
            // SAFETY: the array has `set_length` initialised slots and is borrowed here alone.
            let slot = unsafe { &mut *set.as_ptr().add(index) };
            if let Some(quantum) = *slot {
                self.store.put(quantum)?;
                *slot = None;
            }
        }
        self.store.put_table(set.cast())?;
        self.first.set = None;
        Ok(())
    }

    fn place(&self, at: usize) -> Place {
        let quantum = self.store.quantum();
        let index = at / quantum;
        Place { node: index / self.set_length, slot: index % self.set_length, offset: at % quantum }
    }

    /// The quantum of `place`, when a write has been there.
    fn quantum(&self, place: &Place) -> Slot {
        let mut node = &self.first;
        for _ in 0..place.node {
            // SAFETY: nodes on the list are initialised and live as long as the device is not trimmed, which needs
            // it exclusively.
            node = unsafe { node.next?.as_ref() };
        }
        // SAFETY: an array on a node has `set_length` initialised slots, and `slot` is below that.
        unsafe { node.set?.as_ptr().add(place.slot).read() }
    }

    /// The quantum of `place`; nodes, array and quantum are made when they are missing.
    fn quantum_for_write(&mut self, place: &Place) -> Result<NonNull<u8>, AllocError> {
        let node = self.node_for_write(place.node)?;
        // SAFETY: the node is part of the list of this device, which is borrowed exclusively.
        let node = unsafe { &mut *node.as_ptr() };
        let set = match node.set {
            Some(set) => set,
            None => {
                let bytes = self.set_length.checked_mul(size_of::<Slot>()).ok_or(AllocError::TooBig)?;
                // The store zeroes it, and zero is how an empty slot looks.
                *node.set.insert(self.store.take_table(bytes)?.cast())
            }
        };
        // SAFETY: the array has `set_length` initialised slots, and `slot` is below that.
        let slot = unsafe { &mut *set.as_ptr().add(place.slot) };
        if let Some(quantum) = *slot {
            return Ok(quantum);
        }
        let quantum = self.store.take()?;
        // SAFETY: the store gave `quantum()` bytes. They are zeroed because a write may start in the middle, and what
        // another owner left there is nobody's to read.
        unsafe { quantum.as_ptr().write_bytes(0, self.store.quantum()) };
        *slot = Some(quantum);
        Ok(quantum)
    }

    /// The node of that number; the list grows up to it, or not at all.
    fn node_for_write(&mut self, number: usize) -> Result<NonNull<Node>, AllocError> {
        let mut node = NonNull::from(&mut self.first);
        for index in 0..number {
            // SAFETY: `node` is the first one or on the list, and the device is borrowed exclusively.
            let next = unsafe { node.as_ref() }.next;
            node = match next {
                Some(next) => next,
                None => return self.grow(node, number - index),
            };
        }
        Ok(node)
    }

    /// Appends `count` nodes, at least one, after the list's last node; returns the new last one.
    fn grow(&mut self, last: NonNull<Node>, count: usize) -> Result<NonNull<Node>, AllocError> {
        let mut end = last;
        for _ in 0..count {
            match self.store.take_table(size_of::<Node>()) {
                Ok(memory) => {
                    let node = memory.cast::<Node>();
                    // SAFETY: the store gave the node's size, aligned for pointers, to this device alone; `end` is on
                    // the list of this device, which is borrowed exclusively.
                    unsafe {
                        node.write(Node { set: None, next: None });
                        (*end.as_ptr()).next = Some(node);
                    }
                    end = node;
                }
                Err(error) => {
                    self.cut(last);
                    return Err(error);
                }
            }
        }
        Ok(end)
    }

    /// Gives back the empty nodes after `last`. One the store refuses stays on the list, where `trim` finds it.
    fn cut(&mut self, last: NonNull<Node>) {
        // SAFETY: `last` and the nodes after it are on the list of this device, which is borrowed exclusively; each is
        // read before it is given back.
        unsafe {
            while let Some(node) = (*last.as_ptr()).next {
                let next = node.as_ref().next;
                if self.store.put_table(node.cast()).is_err() {
                    return;
                }
                (*last.as_ptr()).next = next;
            }
        }
    }
}

impl<S: Store> Drop for Device<S> {
    fn drop(&mut self) {
        let _ = self.trim();
    }
}
