//! `rtmm_init` on configurations of any bytes: a clear error, or a manager that works.

use backend_nommu::Arena;
use core::ffi::c_void;
use core::ptr;
use mm_core::{Bug, Context, CriticalSectionLock, GFP_KERNEL, Mm, Platform};
use proptest::prelude::*;
use rtmm_capi::config::judge;
use rtmm_capi::{rtmm_bug, rtmm_config, rtmm_range, rtmm_zone};

struct Quiet;

impl Platform for Quiet {
    type Lock = CriticalSectionLock;

    fn context(&self) -> Context {
        Context::Boot
    }

    fn bug(&self, bug: &Bug) {
        panic!("{bug}");
    }
}

const RAM: u64 = 2 << 20;
const BLOCK: usize = 4 << 20;
/// Where the RAM is, physically.
const PHYS: u64 = 0x10_0000_0000;
const PAGE_SHIFT: u32 = 12;

unsafe extern "C" fn lock(_: *mut c_void, _: *mut usize) -> usize {
    0
}
unsafe extern "C" fn unlock(_: *mut c_void, _: *mut usize, _: usize) {}
unsafe extern "C" fn context(_: *mut c_void) -> u32 {
    9
}
unsafe extern "C" fn bug(_: *mut c_void, _: *const rtmm_bug) {}

unsafe extern "C" fn now(_: *mut c_void) -> u64 {
    0
}
unsafe extern "C" fn current(_: *mut c_void) -> usize {
    0
}
unsafe extern "C" fn wait(_: *mut c_void, _: u64) {}
unsafe extern "C" fn wake(_: *mut c_void, _: usize) {}

/// A number near one that means something, or any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..6,
        2 => Just(1),
        1 => Just(u64::from(PAGE_SHIFT)),
        1 => Just(size_of::<rtmm_config>() as u64),
        1 => 30u64..36,
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ]
}

/// A range that touches no memory but the arena's: inside it, empty, or past what the backend can address.
fn range() -> impl Strategy<Value = rtmm_range> {
    let inside = (0..RAM).prop_flat_map(|at| (Just(PHYS + at), 0..=RAM - at));
    let beyond = (1u64 << 44.., any::<u64>());
    let empty = (any::<u64>(), Just(0));
    prop_oneof![6 => inside, 1 => beyond, 1 => empty].prop_map(|(start, length)| rtmm_range { start, length })
}

fn zone() -> impl Strategy<Value = rtmm_zone> {
    (number(), prop_oneof![Just(PHYS + RAM), Just(PHYS), any::<u64>()], prop_oneof![9 => Just(0), 1 => any::<u32>()])
        .prop_map(|(kind, end, reserved)| rtmm_zone { end, kind: kind as u32, reserved })
}

/// An array of C: its entries, the pointer told (true: the right one, false: one byte off, none: null), the count told
/// (none: the right one).
fn array<T: core::fmt::Debug>(
    entry: impl Strategy<Value = T>,
) -> impl Strategy<Value = (Vec<T>, Option<bool>, Option<u64>)> {
    let told = prop_oneof![8 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)];
    (
        prop::collection::vec(entry, 0..36),
        told,
        prop_oneof![9 => Just(None), 1 => number()
        .prop_map(Some)],
    )
}

fn pointer<T>(entries: &[T], told: Option<bool>) -> *const T {
    match told {
        None => ptr::null(),
        Some(true) => entries.as_ptr(),
        Some(false) => entries.as_ptr().wrapping_byte_add(1),
    }
}

/// A count that reads no further than the array, or so far that it is refused unread.
fn count(entries: usize, told: Option<u64>, most: usize) -> usize {
    match told.map(|told| told as usize) {
        Some(told) if told <= entries || told > most => told,
        _ => entries,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 16 } else { 2000 }, ..ProptestConfig::default() })]

    #[test]
    fn any_configuration_is_refused_or_works(
        right in prop::array::uniform11(prop::bool::weighted(0.97)),
        numbers in prop::array::uniform6(number()),
        ram in array(range()),
        reserved in array(range()),
        ratios in prop_oneof![Just([0; 4]), prop::array::uniform4(number().prop_map(|ratio| ratio as u32))],
        zones in prop_oneof![Just((Vec::new(), None, None)), array(zone())],
    ) {
        let pick = |index: usize, good: u64| if right[index] { good } else { numbers[index % 6] };
        let config = rtmm_config {
            size: pick(0, size_of::<rtmm_config>() as u64) as u32,
            version: pick(1, 1) as u32,
            page_shift: pick(2, u64::from(PAGE_SHIFT)) as u32,
            flags: pick(3, u64::from(ratios != [0; 4])) as u32,
            arg: ptr::without_provenance_mut(numbers[3] as usize),
            lock: right[4].then_some(lock),
            unlock: right[5].then_some(unlock),
            context: right[6].then_some(context),
            bug: right[7].then_some(bug),
            cpu: None,
            flush_remote: None,
            now: (numbers[0] > 1).then_some(now),
            current: (numbers[0] > 1).then_some(current),
            wait: (numbers[0] > 1).then_some(wait),
            wake: (numbers[1] > 0 && numbers[0] > 1).then_some(wake),
            max_wait: numbers[2],
            ram: pointer(&ram.0, ram.1),
            ram_count: count(ram.0.len(), ram.2, 32),
            reserved: pointer(&reserved.0, reserved.1),
            reserved_count: count(reserved.0.len(), reserved.2, 32),
            zones: pointer(&zones.0, zones.1),
            zone_count: count(zones.0.len(), zones.2, 4),
            vmalloc_start: pick(8, 0) as usize,
            vmalloc_end: pick(9, 0) as usize,
            min_free: numbers[4],
            reserve_ratio: ratios,
        };
        let address = if right[10] { &raw const config } else { (&raw const config).wrapping_byte_add(3) };

        // SAFETY: the configuration lives; its arrays are as long as their counts, or their counts are refused.
        let judged = unsafe { judge::<Arena>(address) };
        let mut setup = match judged {
            Ok(setup) => setup,
            Err(errno) => {
                prop_assert!([-22, -12, -7].contains(&errno), "{errno}");
                return Ok(());
            }
        };
        // Whatever was judged sound has none of these wrong.
        prop_assert!(right[4] && right[5] && right[6] && right[7] && right[10]);
        prop_assert!(config.now.is_some() == config.wake.is_some());
        prop_assert!(config.flags <= 1 && (config.flags == 1 || ratios == [0; 4]));
        prop_assert!(config.vmalloc_start == 0 && config.vmalloc_end == 0);

        let layout = std::alloc::Layout::from_size_align(RAM as usize, BLOCK).unwrap();
        // SAFETY: the size is not 0.
        let memory = unsafe { std::alloc::alloc(layout) };
        let mm: Mm<Quiet, Arena> = Mm::new(Quiet, Arena::new());
        // SAFETY: both are multiples of the largest block, and the memory is the manager's until it is dropped.
        unsafe { mm.backend().place(memory, PHYS as usize) };
        // SAFETY: every range that is RAM to this backend lies in the arena.
        match unsafe { setup.hand_over(&mm) } {
            Ok(()) => {
                let free = mm.free_page_count();
                prop_assert!(free > 0 && free <= RAM as usize >> PAGE_SHIFT);
                if let Ok(object) = mm.kmalloc(64, GFP_KERNEL) {
                    mm.kfree(object.as_ptr()).unwrap();
                }
                mm.drain();
                prop_assert_eq!(mm.free_page_count(), free);
                prop_assert!(mm.check().is_ok());
            }
            Err(errno) => prop_assert!([-22, -12].contains(&errno), "{errno}"),
        }
        // SAFETY: allocated above with this layout, and used by nobody any more: the manager does nothing when it goes.
        unsafe { std::alloc::dealloc(memory, layout) };
    }
}
