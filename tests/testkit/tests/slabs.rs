//! Many objects of few sizes, so that slabs fill, empty and go in every order, against a map of what is live.

#[macro_use]
mod common;

use common::world::Reach;
use common::{TestMm, state, unchanged};
use mm_core::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A step of a random life of one cache.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Takes so many objects.
    Take(usize),
    /// Frees so many: the oldest addresses, the newest, every n-th, or all of one stretch.
    Give(usize, Order),
    /// All objects of a stretch of addresses: whole slabs go.
    GiveStretch(usize, usize),
    Drain,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Lowest,
    Highest,
    Each(usize),
}

/// How objects of one size are had: kmalloc's class, or a cache.
enum Source<'a, B: Backend> {
    Class(&'a TestMm<B>, usize),
    Cache(RawKmemCache<&'a TestMm<B>>),
}

impl<B: Backend> Source<'_, B> {
    fn take(&self) -> Result<*mut u8, AllocError> {
        match self {
            Source::Class(mm, size) => mm.kmalloc(*size, GFP_ATOMIC),
            Source::Cache(cache) => cache.alloc(GFP_ATOMIC),
        }
        .map(|p| p.as_ptr())
    }

    fn give(&self, at: *const u8) -> Result<(), FreeError> {
        match self {
            Source::Class(mm, _) => mm.kfree(at),
            Source::Cache(cache) => cache.free(at),
        }
    }

    fn size(&self) -> usize {
        match self {
            Source::Class(_, size) => *size,
            Source::Cache(cache) => cache.object_size(),
        }
    }
}

/// Address of an object to its pointer and the byte it is filled with.
type Objects = BTreeMap<usize, (*mut u8, u8)>;

struct Life<'a, B: Reach> {
    mm: &'a TestMm<B>,
    source: Source<'a, B>,
    live: Objects,
    tag: u8,
}

impl<B: Reach> Life<'_, B> {
    fn take(&mut self) {
        let size = self.source.size();
        let at = match self.source.take() {
            Ok(at) => at,
            Err(error) => {
                assert!(matches!(error, AllocError::NoMemory | AllocError::NoContig), "{error}");
                return;
            }
        };
        let next = self.live.range(at.addr()..).next();
        let before = self.live.range(..at.addr()).next_back();
        assert!(next.is_none_or(|(next, _)| at.addr() + size <= *next), "an object overlaps the next");
        assert!(before.is_none_or(|(before, _)| before + size <= at.addr()), "an object overlaps the one before");
        self.tag = self.tag.wrapping_add(1);
        self.mm.backend().write(at, &vec![self.tag; size]);
        self.live.insert(at.addr(), (at, self.tag));
    }

    fn give(&mut self, addr: usize) {
        let (at, tag) = self.live.remove(&addr).unwrap();
        let mut bytes = vec![0; self.source.size()];
        self.mm.backend().read(at, &mut bytes);
        assert!(bytes == vec![tag; bytes.len()], "an object was overwritten");
        self.source.give(at).unwrap();
        assert_eq!(self.source.give(at), Err(FreeError::DoubleFree));
    }

    fn step(&mut self, step: Step) {
        let addrs: Vec<usize> = self.live.keys().copied().collect();
        match step {
            Step::Take(n) => (0..n).for_each(|_| self.take()),
            Step::Give(n, Order::Lowest) => addrs.iter().take(n).for_each(|addr| self.give(*addr)),
            Step::Give(n, Order::Highest) => addrs.iter().rev().take(n).for_each(|addr| self.give(*addr)),
            Step::Give(n, Order::Each(k)) => addrs.iter().step_by(k).take(n).for_each(|addr| self.give(*addr)),
            Step::GiveStretch(from, n) => {
                let from = from.checked_rem(addrs.len()).unwrap_or(0);
                addrs.iter().skip(from).take(n).for_each(|addr| self.give(*addr));
            }
            Step::Drain => self.mm.drain(),
        }
    }

    fn check(&self) {
        let report = self.mm.check().unwrap_or_else(|damage| panic!("{damage}"));
        let active = self.mm.slabinfo().active();
        assert_eq!(active.0 + active.1, self.live.len());
        // No more slabs than full ones, a partly used one for each gap, and one that is kept.
        assert!(report.slabs <= self.live.len() + 1);
        if self.live.is_empty() {
            assert!(report.slabs <= 1, "{} empty slabs are kept", report.slabs);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let most = if cfg!(miri) { 40usize } else { 700 };
    let count = prop_oneof![2 => 1usize..10, 1 => 1..most / 4, 1 => 1..most];
    let order = prop_oneof![Just(Order::Lowest), Just(Order::Highest), (2usize..9).prop_map(Order::Each)];
    let step = prop_oneof![
        4 => count.clone().prop_map(Step::Take),
        2 => (count.clone(), order).prop_map(|(n, order)| Step::Give(n, order)),
        2 => (0usize..4096, count).prop_map(|(from, n)| Step::GiveStretch(from, n)),
        1 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 6 } else { 24 })
}

fn live<'a, B: Reach>(mm: &'a TestMm<B>, source: Source<'a, B>, steps: &[Step]) {
    let mut life = Life { mm, source, live: Objects::new(), tag: 0 };
    for step in steps {
        life.step(*step);
        life.check();
    }
    while let Some((addr, _)) = life.live.first_key_value() {
        life.give(*addr);
    }
    life.check();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn objects_of_one_class_come_and_go_in_any_order(
        size in prop::sample::select(vec![1usize, 8, 16, 24, 40, 56, 64, 100, 128, 500, 512, 1000, 2048, 3000, 4096]),
        steps in steps(),
    ) {
        common::nommu().nothing_lost(|mm| live(mm, Source::Class(mm, size), &steps));
    }

    #[test]
    fn objects_of_a_cache_come_and_go_in_any_order(
        size in prop_oneof![1usize..64, 64usize..600, 600usize..5000, Just(9000), Just(20_000)],
        align in 0u32..10,
        steps in steps(),
    ) {
        common::nommu().nothing_lost(|mm| {
            let cache = mm.kmem_cache_create("cache", size, 1 << align, CacheFlags::empty(), None).unwrap();
            live(mm, Source::Cache(cache), &steps);
        });
    }
}

both! {
    single_free_objects_of_full_slabs_are_found_again_and_their_slabs_go_back;
    many_caches_are_numbered_anew;
    a_full_machine_of_small_objects_comes_back;
}

fn many_caches_are_numbered_anew<B: Backend>(mm: &TestMm<B>) {
    let most = if cfg!(miri) { 24 } else { 256 };
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| (0..256).map(|i| format!("cache {i}")).collect());
    let names: Vec<&'static str> = NAMES.iter().take(most).map(|name| name.as_str()).collect();
    let make = |name| mm.kmem_cache_create(name, 48, 0, CacheFlags::empty(), None).unwrap();
    let mut caches: Vec<_> = names.iter().map(|name| Some(make(name))).collect();
    let mut objects: Vec<_> = caches.iter().flatten().map(|cache| cache.alloc(GFP_KERNEL).unwrap().as_ptr()).collect();
    if most == 256 {
        let one_more = mm.kmem_cache_create("one more", 48, 0, CacheFlags::empty(), None);
        assert_eq!(one_more.err(), Some(AllocError::NoMemory.into()), "there are 256 at most");
    }
    mm.check().unwrap();
    for i in (0..most).step_by(3) {
        let cache = caches[i].take().unwrap();
        cache.free(objects[i]).unwrap();
        assert!(cache.destroy().is_ok());
    }
    mm.check().unwrap();
    // Made again, they take the numbers that became free; nobody is mistaken for another.
    for i in (0..most).step_by(3).rev() {
        let cache = make(names[i]);
        objects[i] = cache.alloc(GFP_KERNEL).unwrap().as_ptr();
        caches[i] = Some(cache);
    }
    let before = state(mm);
    for (i, cache) in caches.iter().flatten().enumerate() {
        assert_eq!(cache.free(objects[(i + 1) % most]), Err(FreeError::WrongCache));
        assert_eq!(cache.counts().active, 1);
    }
    assert_eq!(state(mm), before);
    for (cache, object) in caches.into_iter().flatten().zip(objects) {
        cache.free(object).unwrap();
    }
}

fn a_full_machine_of_small_objects_comes_back<B: Backend>(mm: &TestMm<B>) {
    // Not with feature `debug`: red zones take the larger part of small objects.
    if cfg!(feature = "debug") {
        return;
    }
    if cfg!(miri) {
        return;
    }
    for size in [8, 48, 700] {
        let mut objects = Vec::new();
        while let Ok(p) = mm.kmalloc(size, GFP_ATOMIC) {
            objects.push(p.as_ptr());
        }
        assert!(objects.len() * size > mm.meminfo().total as usize / 2);
        mm.check().unwrap();
        // Every n-th first, so that no slab goes before the end.
        for start in [3, 0, 2, 1] {
            objects.iter().skip(start).step_by(4).for_each(|p| mm.kfree(*p).unwrap());
            mm.check().unwrap();
        }
        assert_eq!(mm.slabinfo().active(), (0, 0));
    }
}

/// One free object in each of several full slabs: some words stand open then, and the rest are listed.
fn single_free_objects_of_full_slabs_are_found_again_and_their_slabs_go_back<B: Backend>(mm: &TestMm<B>) {
    // Not with feature `debug`: red zones cut slabs in another way.
    if cfg!(feature = "debug") {
        return;
    }
    // A size that has slabs of one page.
    let (size, slabs) = (256, 10);
    let per_slab = B::PAGE_SIZE / size;
    let mut objects: Vec<_> = (0..per_slab * slabs).map(|_| mm.kmalloc(size, GFP_ATOMIC).unwrap().as_ptr()).collect();
    objects.sort();
    // Not the first of a slab, which is looked at in another way; and the slab of the last object has the current word.
    let mut freed: Vec<_> = (0..slabs).map(|slab| objects[slab * per_slab + 5 + slab]).collect();
    for (i, object) in freed.iter().enumerate() {
        mm.kfree(*object).unwrap();
        mm.check().unwrap();
        assert_eq!(mm.slabinfo().active(), (objects.len() - i - 1, 0));
    }
    for object in &freed {
        assert_eq!(unchanged(mm, || mm.kfree(*object)), Err(FreeError::DoubleFree));
    }
    let mut again: Vec<_> = freed.iter().map(|_| mm.kmalloc(size, GFP_ATOMIC).unwrap().as_ptr()).collect();
    mm.check().unwrap();
    freed.sort();
    again.sort();
    assert_eq!(freed, again, "no slab is made while there are free objects");
    // All but the last slab go with their last object, open word or not.
    freed.iter().for_each(|object| mm.kfree(*object).unwrap());
    let (pages, slabs_before) = (mm.free_page_count(), slabs);
    for object in objects.iter().filter(|object| !freed.contains(object)) {
        mm.kfree(*object).unwrap();
        mm.check().unwrap();
    }
    assert!(mm.free_page_count() >= pages + slabs_before - 1, "one slab is kept at most");
    assert_eq!(mm.slabinfo().active(), (0, 0));
}
