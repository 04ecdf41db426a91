use super::{Device, Store};
use core::ptr::NonNull;
use rtmm::{AllocError, FreeError};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

const QUANTUM: usize = 40;
const SET: usize = 3;

/// A store over the host's allocator that knows what is out, and refuses on demand.
#[derive(Default)]
struct Shelf {
    out: RefCell<BTreeMap<usize, (usize, bool)>>,
    allowed: Cell<Option<usize>>,
    refuse_puts_after: Cell<Option<usize>>,
}

impl Shelf {
    fn hand_out(&self, bytes: usize, zeroed: bool) -> Result<NonNull<u8>, AllocError> {
        match self.allowed.get() {
            Some(0) => return Err(AllocError::NoMemory),
            Some(n) => self.allowed.set(Some(n - 1)),
            None => {}
        }
        let layout = Layout::from_size_align(bytes, 16).unwrap();
        // SAFETY: no size asked for here is zero.
        let memory = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        let memory = NonNull::new(memory).unwrap();
        if !zeroed {
            // SAFETY: just allocated with this size. What a former owner left must never be read through a device.
            unsafe { memory.as_ptr().write_bytes(0xa5, bytes) };
        }
        self.out.borrow_mut().insert(memory.as_ptr().addr(), (bytes, zeroed));
        Ok(memory)
    }

    fn take_in(&self, memory: NonNull<u8>, table: bool) -> Result<(), FreeError> {
        match self.refuse_puts_after.get() {
            Some(0) => return Err(FreeError::WrongOrder),
            Some(n) => self.refuse_puts_after.set(Some(n - 1)),
            None => {}
        }
        let known = self.out.borrow_mut().remove(&memory.as_ptr().addr());
        let (bytes, zeroed) = known.expect("a put of memory that is not out");
        assert_eq!(zeroed, table, "a quantum and a table were mixed up");
        // SAFETY: it was allocated in `hand_out` with this layout and is out no longer.
        unsafe { dealloc(memory.as_ptr(), Layout::from_size_align(bytes, 16).unwrap()) };
        Ok(())
    }

    fn live(&self) -> usize {
        self.out.borrow().len()
    }
}

// SAFETY: memory comes from the host's allocator, sized and aligned as asked, and is out until `take_in` removed it.
unsafe impl Store for &Shelf {
    const NAME: &'static str = "shelf";

    fn quantum(&self) -> usize {
        QUANTUM
    }

    fn take(&self) -> Result<NonNull<u8>, AllocError> {
        self.hand_out(QUANTUM, false)
    }

    fn put(&self, quantum: NonNull<u8>) -> Result<(), FreeError> {
        self.take_in(quantum, false)
    }

    fn take_table(&self, bytes: usize) -> Result<NonNull<u8>, AllocError> {
        self.hand_out(bytes, true)
    }

    fn put_table(&self, table: NonNull<u8>) -> Result<(), FreeError> {
        self.take_in(table, true)
    }
}

/// Writes all of `data`, however short the single counts are.
fn write_all(device: &mut Device<&Shelf>, mut at: usize, mut data: &[u8]) {
    while !data.is_empty() {
        let taken = device.write(at, data).unwrap();
        assert!(taken > 0);
        at += taken;
        data = &data[taken..];
    }
}

#[test]
fn a_write_stops_at_the_end_of_the_quantum() {
    let shelf = Shelf::default();
    let mut device = Device::new(&shelf, SET);
    assert_eq!(device.write(QUANTUM - 3, &[1; 10]), Ok(3));
    assert_eq!(device.size(), QUANTUM);
    assert_eq!(device.write(0, &[2; 3 * QUANTUM]), Ok(QUANTUM));
    assert_eq!(device.write(5, &[]), Ok(0));
}

#[test]
fn a_hole_reads_as_nothing_and_a_gap_in_a_quantum_as_zeros() {
    let shelf = Shelf::default();
    let mut device = Device::new(&shelf, SET);
    let far = 2 * SET * QUANTUM + QUANTUM + 7;
    assert_eq!(device.write(far, b"end"), Ok(3));
    let mut data = [0xff; QUANTUM];
    assert_eq!(device.read(0, &mut data), 0);
    assert_eq!(device.read(SET * QUANTUM, &mut data), 0);
    assert_eq!(device.read(far + 3, &mut data), 0);
    assert_eq!(device.read(usize::MAX, &mut data), 0);
    assert_eq!(device.read(far - 7, &mut data), 10);
    assert_eq!(&data[..10], b"\0\0\0\0\0\0\0end");
}

#[test]
fn opening_for_write_gives_everything_back() {
    let shelf = Shelf::default();
    let mut device = Device::new(&shelf, SET);
    write_all(&mut device, 0, &vec![7; 10 * SET * QUANTUM + 1]);
    // 10 full sets and one quantum; the first node is the device's own.
    assert_eq!(shelf.live(), (10 * SET + 1) + 11 + 10);
    device.open_for_write().unwrap();
    assert_eq!((shelf.live(), device.size()), (0, 0));
    write_all(&mut device, 0, b"again");
    drop(device);
    assert_eq!(shelf.live(), 0);
}

#[test]
fn a_failed_write_leaves_what_the_device_holds() {
    for allowed in 0..6 {
        let shelf = Shelf::default();
        let mut device = Device::new(&shelf, SET);
        write_all(&mut device, 0, b"kept");
        let before = shelf.live();
        shelf.allowed.set(Some(allowed));
        // Three nodes, an array, a quantum: the fifth allocation is the last one.
        let written = device.write(3 * SET * QUANTUM, b"far");
        if allowed < 5 {
            assert_eq!(written, Err(AllocError::NoMemory));
            assert_eq!(device.size(), 4);
            // Nodes go back; once they are complete, they and the array wait for the next write.
            assert_eq!(shelf.live(), before + if allowed < 3 { 0 } else { allowed });
        } else {
            assert_eq!(written, Ok(3));
        }
        let mut data = [0; 8];
        assert_eq!(device.read(0, &mut data), if allowed < 5 { 4 } else { 8 });
        assert_eq!(&data[..4], b"kept");
        drop(device);
        assert_eq!(shelf.live(), 0);
    }
}

#[test]
fn a_write_past_the_last_address_is_refused() {
    let shelf = Shelf::default();
    let mut device = Device::new(&shelf, SET);
    assert_eq!(device.write(usize::MAX, b"ab"), Err(AllocError::TooBig));
    assert_eq!(shelf.live(), 0);
}

#[test]
fn a_refused_free_loses_nothing() {
    let shelf = Shelf::default();
    for accepted in 0..30 {
        let mut device = Device::new(&shelf, SET);
        write_all(&mut device, 0, &vec![7; 3 * SET * QUANTUM]);
        let before = shelf.live();
        shelf.refuse_puts_after.set(Some(accepted));
        let refused = device.trim().is_err();
        assert_eq!(refused, accepted < before);
        assert_eq!(shelf.live(), before - accepted.min(before));
        shelf.refuse_puts_after.set(None);
        device.trim().unwrap();
        assert_eq!(shelf.live(), 0);
    }
}

/// A generator of numbers that are alike in every run (Marsaglia's xorshift64).
///
/// Not a property-testing crate: cargo would build it for every example, on boards without std too.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A device of quanta as a map would do it.
#[derive(Default)]
struct Model {
    quanta: BTreeMap<usize, [u8; QUANTUM]>,
    size: usize,
}

impl Model {
    fn write(&mut self, at: usize, data: &[u8]) -> usize {
        let (index, offset) = (at / QUANTUM, at % QUANTUM);
        let count = data.len().min(QUANTUM - offset);
        if count > 0 {
            let quantum = self.quanta.entry(index).or_insert([0; QUANTUM]);
            quantum[offset..][..count].copy_from_slice(&data[..count]);
            self.size = self.size.max(at + count);
        }
        count
    }

    fn read(&self, at: usize, length: usize) -> &[u8] {
        match self.quanta.get(&(at / QUANTUM)) {
            Some(quantum) if at < self.size => {
                let count = length.min(QUANTUM - at % QUANTUM).min(self.size - at);
                &quantum[at % QUANTUM..][..count]
            }
            _ => &[],
        }
    }
}

/// Every count and every byte agree, over many histories.
#[test]
fn a_device_does_what_a_map_of_quanta_does() {
    for seed in 1..=if cfg!(miri) { 3 } else { 300 } {
        let mut numbers = Numbers(seed);
        let shelf = Shelf::default();
        let mut device = Device::new(&shelf, SET);
        let mut model = Model::default();
        for step in 0..60 {
            let (at, length) = (numbers.below(4 * SET * QUANTUM), numbers.below(2 * QUANTUM));
            match numbers.below(13) {
                0..6 => {
                    let data: Vec<u8> = (0..length).map(|_| numbers.below(256) as u8).collect();
                    let count = device.write(at, &data).unwrap();
                    assert_eq!(count, model.write(at, &data), "seed {seed}, step {step}");
                }
                6..12 => {
                    let mut data = vec![0xff; length];
                    let count = device.read(at, &mut data);
                    assert_eq!(&data[..count], model.read(at, length), "seed {seed}, step {step}");
                }
                _ => {
                    device.trim().unwrap();
                    model = Model::default();
                    assert_eq!(shelf.live(), 0);
                }
            }
            assert_eq!(device.size(), model.size, "seed {seed}, step {step}");
        }
        drop(device);
        assert_eq!(shelf.live(), 0);
    }
}
