//! Maps that grow, shrink and are rebuilt: `alloc`'s `BTreeMap` and `hashbrown`'s `HashMap` on Rust's allocator, and
//! `hashbrown` and `allocator-api2` on a second manager that is named.
//!
//! Every step is held against a plain array, which needs no allocator.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use allocator_api2::vec::Vec as NamedVec;
use core::fmt::Write;
use hashbrown::{DefaultHashBuilder, HashMap};
use rtmm::{Backend as _, GFP_KERNEL, Mm};
use rtmm_examples_crates::board::{self, Backend, MM, say};
use rtmm_examples_crates::job;
use rtmm_examples_crates::named::{Lodger, Room, Second};

/// Keys there are, at most; a quarter of the memory is for those of a small board.
const MOST_KEYS: usize = 4096;
/// Bytes that a key takes in all maps together, roughly.
const BYTES_PER_KEY: usize = 256;
/// A second manager with less has too few pages for the sizes of these maps.
const LEAST: usize = 256 << 10;
/// Steps for each key.
const STEPS: usize = 16;

board::entry!(main);

fn main() {
    job::run("maps", || {
        churn()?;
        named()
    });
}

/// splitmix64, by Sebastiano Vigna; the same trace everywhere.
struct Trace(u64);

impl Trace {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A value that is an object of its own, of 1 to 19 letters.
fn text(number: u64) -> Result<String, &'static str> {
    let mut text = String::new();
    write!(text, "{}", number >> (number & 63)).map_err(|_| "a number could not be written")?;
    Ok(text)
}

fn churn() -> Result<(), &'static str> {
    let keys = MOST_KEYS.min(MM.free_page_count() * Backend::PAGE_SIZE / 4 / BYTES_PER_KEY);
    let mut model: Box<[Option<u64>]> = (0..keys).map(|_| None).collect();
    let mut tree: BTreeMap<usize, String> = BTreeMap::new();
    let mut hash: HashMap<String, u64> = HashMap::new();
    let mut trace = Trace(0x5eed_0001);
    let mut fullest = 0;
    for step in 0..keys * STEPS {
        let (key, value) = (trace.next() as usize % keys, trace.next());
        let name = text(key as u64 * 64)?;
        // Two thirds of the steps put in at first, one third towards the end: the maps grow, then they shrink.
        let puts = value % 3 != 0 || step < keys * STEPS / 2 && value % 2 == 0;
        let (from_tree, from_hash) = match puts && step < keys * (STEPS - 2) {
            true => (tree.insert(key, text(value)?), hash.insert(name, value)),
            false => (tree.remove(&key), hash.remove(&name)),
        };
        let before = core::mem::replace(&mut model[key], puts.then_some(value).filter(|_| step < keys * (STEPS - 2)));
        let expected = before.map(text).transpose()?;
        if from_tree != expected || from_hash != before {
            return Err("a map does not hold what was put in");
        }
        fullest = fullest.max(tree.len());
        if step % (keys * 4) == 0 {
            // What a map keeps for entries it no longer has goes back.
            hash.shrink_to_fit();
        }
    }
    let live = model.iter().filter(|value| value.is_some()).count();
    if tree.len() != live || hash.len() != live || !tree.keys().is_sorted() {
        return Err("a map has another number of entries than there are");
    }
    for (key, value) in tree.iter() {
        if model[*key].map(text).transpose()?.as_ref() != Some(value) {
            return Err("a map does not hold what was put in");
        }
    }
    job::tell("with what is left in the maps");
    say!("CHURNED {} keys, {} steps, {} entries at most, {} at last", keys, keys * STEPS, fullest, live);
    Ok(())
}

/// The same containers where they are told who serves them.
fn named() -> Result<(), &'static str> {
    let room = Room::take()?;
    if room.bytes() < LEAST {
        say!("NAMED 0 entries: {} has no room for a second manager", board::NAME);
        return Ok(());
    }
    let (pages, objects) = (MM.free_page_count(), MM.slabinfo().active().0);
    let second: Second = Mm::new(Lodger, backend_nommu::Arena::new());
    room.bring_up(&second)?;
    let guard = second.leak_guard().map_err(|_| "the second manager is not sound")?;
    let free = second.free_page_count();
    {
        let here = second.with(GFP_KERNEL);
        let keys = (free * 4096 / 8 / BYTES_PER_KEY).min(MOST_KEYS);
        let mut list = NamedVec::new_in(here);
        let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), here);
        let mut trace = Trace(0x5eed_0002);
        for key in 0..keys {
            let value = trace.next();
            list.try_reserve(1).map_err(|_| "the second manager has too little")?;
            list.push(value);
            map.try_reserve(1).map_err(|_| "the second manager has too little")?;
            map.insert(value, key);
        }
        if list.iter().enumerate().any(|(key, value)| map.get(value) != Some(&key)) {
            return Err("a map of the second manager does not hold what was put in");
        }
        // All of it came from where it was told to.
        let left = second.free_page_count();
        if left >= free || MM.free_page_count() != pages || MM.slabinfo().active().0 != objects {
            return Err("a container took its memory from another manager");
        }
        say!("NAMED {} entries, {} of {} pages of a manager that is not Rust's", keys, free - left, free);
        // A request that cannot be served is an error, and what is there stays.
        if list.try_reserve_exact(free * 4096).is_ok() || list.len() != keys {
            return Err("more than there is was promised");
        }
    }
    guard.check().map_err(|_| "the second manager lost memory")
}
