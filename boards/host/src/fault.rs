//! The process's memory faults: a TLB miss to be answered, or the end with a report.
//!
//! Nothing in the handler allocates, takes a lock, or trusts what the interrupted code was doing.

use crate::console::RawLine;
use crate::layout;
use std::fmt::{self, Write};
use std::io::Error;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the faulting instruction wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
    /// This system does not tell.
    #[cfg_attr(all(target_os = "linux", target_arch = "x86_64"), allow(dead_code, reason = "it is told there"))]
    Unknown,
}

impl Access {
    /// The words that every board's report uses.
    fn text(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Execute => "execute",
            Access::Unknown => "access",
        }
    }
}

/// Room for the handler, which formats a line and walks tables.
const HANDLER_STACK: usize = 128 << 10;

/// Addresses below this are a null pointer, perhaps with a field's offset added.
const NULL_PAGE: usize = 4096;

/// Takes over the process's memory faults. Called once, by the thread that runs the program.
pub(crate) fn install() {
    // A stack of its own: an overflowing stack has no room to report that.
    let stack = Box::leak(vec![0u8; HANDLER_STACK].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: HANDLER_STACK };
    // SAFETY: the stack lives for ever and nothing else uses it.
    let result = unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
    assert!(result == 0, "no stack for the fault handler: {}", Error::last_os_error());
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: zero is a valid `sigaction`: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_fault as extern "C" fn(_, _, _) as usize;
        // A fault inside the handler must reach it again, to be told apart.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: the handler has the three arguments SA_SIGINFO asks for, and does only what a handler may do.
        let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
        assert!(result == 0, "the fault handler was refused: {}", Error::last_os_error());
    }
}

extern "C" fn on_fault(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system hands a handler with SA_SIGINFO a valid siginfo, whose address field these signals fill.
    let addr = unsafe { (*info).si_addr() } as usize;
    let access = access(context);
    #[cfg(feature = "mmu")]
    if let Some(access) = access
        && crate::mmu::answer_miss(addr, access)
    {
        return;
    }
    report(addr, access)
}

/// What was wanted, from the page fault's error code; `None` for a fault that is not a page's.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn access(context: *mut libc::c_void) -> Option<Access> {
    /// The vector of a page fault, and its error code's bits (SDM 3A, 4.7).
    const PAGE_FAULT: i64 = 14;
    const WRITE: i64 = 1 << 1;
    const FETCH: i64 = 1 << 4;
    // SAFETY: the system hands a handler with SA_SIGINFO the interrupted context.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let code = registers[libc::REG_ERR as usize];
    match registers[libc::REG_TRAPNO as usize] {
        PAGE_FAULT if code & FETCH != 0 => Some(Access::Execute),
        PAGE_FAULT if code & WRITE != 0 => Some(Access::Write),
        PAGE_FAULT => Some(Access::Read),
        _ => None,
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn access(_context: *mut libc::c_void) -> Option<Access> {
    Some(Access::Unknown)
}

/// Tells what happened, names the area, and ends the process.
fn report(addr: usize, access: Option<Access>) -> ! {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    let mut line = RawLine::new();
    // `RawLine` never refuses; what may come back is the area's own formatting error, and the rest still helps.
    let _ = match access {
        _ if REPORTING.swap(true, Ordering::Relaxed) => write!(line, "FAULT: a fault while reporting a fault"),
        None => write!(line, "FAULT: not a page fault (a non-canonical address?)"),
        Some(access) => {
            let present = if crate::is_mapped(addr) { "present" } else { "not present" };
            let place = Place(addr);
            write!(line, "FAULT: page fault at {addr:#x} ({}, {present}) in {place}", access.text())
        }
    };
    line.print_and_die()
}

/// What lies at an address, in words for a report.
struct Place(usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < NULL_PAGE {
            return f.write_str("the null page");
        }
        match crate::MM.find_area(self.0) {
            Some(area) => area.fmt(f),
            None if layout::direct_map().contains(self.0) => f.write_str("the direct map"),
            None => f.write_str("no known area"),
        }
    }
}
