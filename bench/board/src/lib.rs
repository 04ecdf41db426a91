//! Measuring on a board: its counter as a meter, memory for what is live, rows on the console.
#![no_std]

mod counter;
mod private;
mod room;
mod row;

pub use counter::{Counter, ticks};
pub use private::{manager, window};
pub use room::{Chain, contiguous, kept, room};
pub use row::{PAIR, Row, goal};
pub use rtmm_examples::board;
