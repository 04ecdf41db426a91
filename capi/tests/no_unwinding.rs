//! Nothing unwinds into C: a panic below one of the functions, or in a function that C gave, ends the program.
//!
//! Each test runs itself again as a child, which must be aborted, and must not come past the call.
#![cfg(unix)]

use backend_nommu::Arena;
use core::ffi::c_void;
use core::ptr;
use mm_core::{
    Backend, BootMap, Bug, Config, Context, CriticalSectionLock, Mm, Platform, VirtRange, ZoneKind, ZoneSpec,
};
use rtmm_capi::rtmm_shrink_request;
use std::alloc::{Layout, alloc};
use std::os::unix::process::ExitStatusExt;
use std::panic::catch_unwind;
use std::process::Command;

/// Is set in a child.
const CHILD: &str = "RTMM_TEST_CHILD";
/// What a child says that was not aborted.
const CAME_PAST: &str = "the panic came past the call";
const SIGABRT: i32 = 6;
/// Bytes of RAM, and where they are, physically.
const RAM: usize = 1 << 20;
const PHYS: usize = 0x10_0000_0000;

/// A platform in Rust whose ear for bugs panics.
struct Loud;

impl Platform for Loud {
    type Lock = CriticalSectionLock;

    fn context(&self) -> Context {
        Context::Task
    }

    fn bug(&self, bug: &Bug) {
        panic!("{bug}");
    }
}

static MM: Mm<Loud, Arena> = Mm::new(Loud, Arena::new());
rtmm_capi::export_c!(&crate::MM);

fn init() {
    // SAFETY: the size is not 0.
    let memory = unsafe { alloc(Layout::from_size_align(RAM, RAM).unwrap()) };
    // SAFETY: both are multiples of the largest block that fits, and the memory is the manager's for good.
    unsafe { MM.backend().place(memory, PHYS) };
    let mut map: BootMap = BootMap::new();
    map.add_ram(PHYS as u64, RAM as u64).unwrap();
    let mut ram = map.finish(Arena::<10>::PAGE_SHIFT, Arena::<10>::PHYS_BITS).unwrap();
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: u64::MAX }];
    // SAFETY: all of it is RAM that nobody else uses.
    unsafe { MM.init(&mut ram, &Config::new(&zones, VirtRange { start: 0, end: 0 })) }.unwrap();
}

/// In a child: calls `call` as C would, but for noticing what unwinds out of it. Otherwise: judges such a child.
fn aborts(test: &str, call: fn()) {
    if std::env::var_os(CHILD).is_some() {
        init();
        // What comes out of `call` comes out of a function for C.
        let _ = catch_unwind(call);
        println!("{CAME_PAST}");
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(CHILD, "").output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains(CAME_PAST), "{said}\n{told}");
    assert_eq!(output.status.signal(), Some(SIGABRT), "{:?}\n{said}\n{told}", output.status);
    assert!(told.contains("cannot unwind"), "{told}");
}

#[test]
fn a_panic_of_the_platform_ends_the_program_in_the_function_that_c_called() {
    fn wrong_free() {
        let object = rtmm_c_memory::rtmm_kmalloc(64, mm_core::GFP_KERNEL.bits());
        assert!(!object.is_null());
        rtmm_c_memory::rtmm_kfree(object.wrapping_byte_add(8));
    }
    aborts("a_panic_of_the_platform_ends_the_program_in_the_function_that_c_called", wrong_free);
}

#[test]
fn a_panic_in_a_shrinker_of_c_ends_the_program() {
    unsafe extern "C" fn count(_: *mut c_void, _: *const rtmm_shrink_request) -> usize {
        1
    }
    unsafe extern "C" fn scan(_: *mut c_void, _: *const rtmm_shrink_request) -> usize {
        panic!("nothing can be freed")
    }
    fn runs_short() {
        // SAFETY: the functions use nothing.
        let made = unsafe { rtmm_c_caches::rtmm_shrinker_create(Some(count), Some(scan), ptr::null_mut()) };
        assert!(!made.is_null());
        while !rtmm_c_memory::rtmm_kmalloc(4096, mm_core::GFP_KERNEL.bits()).is_null() {}
    }
    aborts("a_panic_in_a_shrinker_of_c_ends_the_program", runs_short);
}
