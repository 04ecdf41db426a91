//! What the Cortex-M boards share: the report of a fault, interrupts, and the context.
#![no_std]

mod faults;
mod interrupt;
mod processor;

pub use interrupt::{Timer, in_interrupt, unmask_timer};
pub use processor::CortexM;

/// Defines the program's entry; a board's `entry!` is this with its own `init`.
#[doc(hidden)]
#[macro_export]
macro_rules! entry_with {
    ($init:path, $main:path) => {
        // `cortex-m-rt` jumps to the symbol `main` once memory is initialised.
        #[unsafe(export_name = "main")]
        extern "C" fn __board_entry() -> ! {
            $crate::run($init, $main)
        }
    };
}

#[doc(hidden)]
pub use board_semihosting::run;
