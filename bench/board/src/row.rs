//! A row of figures on the console.

use crate::board::{self, say};
use core::fmt;

/// The unit of most rows.
pub const PAIR: &str = "instructions per pair";

/// One figure, in the form that the task runner reads.
pub struct Row<'a> {
    /// What is measured.
    pub id: &'a str,
    /// Of what the values are a number.
    pub unit: &'a str,
    /// The figure, in tenths.
    pub tenths: u32,
    /// The worst single call.
    pub worst: Option<u32>,
    /// Who else was measured, and their figure in tenths.
    pub peer: Option<(&'a str, u32)>,
}

impl Row<'_> {
    /// Prints it.
    pub fn print(&self) {
        let Row { id, unit, .. } = *self;
        let (name, goal) = (board::NAME, Optional(goal(board::NAME, id)));
        let (value, worst) = (Tenths(self.tenths), Optional(self.worst));
        let (peer, quote) = self.peer.map_or(("null", ""), |(peer, _)| (peer, "\""));
        let peer_value = Optional(self.peer.map(|(_, tenths)| Tenths(tenths)));
        say!(
            r#"BENCH {{"id":"{}","board":"{}","unit":"{}","value":{},"worst":{},"goal":{},"peer":{}{}{},"peer_value":{}}}"#,
            id,
            name,
            unit,
            value,
            worst,
            goal,
            quote,
            peer,
            quote,
            peer_value
        );
    }
}

/// What a row is to reach on the board it was set for.
pub fn goal(board: &str, id: &str) -> Option<u32> {
    let goals: &[(&str, u32)] = match board {
        "qemu-x86_64" => &[
            ("kmalloc_64", 60),
            ("kmalloc_mixed", 80),
            ("kmalloc_worst", 350),
            ("page_0", 60),
            ("page_worst", 260),
            ("page_worst_exact", 400),
            ("page_order9", 247),
            ("vmalloc_4k", 400),
            ("vmalloc_64k", 900),
            ("vmalloc_1m", 2400),
            ("vmalloc_16m", 3500),
            ("vmalloc_16m_4k", 45_000),
            ("vmalloc_1m_single", 14_000),
            ("vmap_256", 2000),
            ("vm_map_ram_16", 250),
            ("ioremap_64k", 600),
            ("vmalloc_to_page", 30),
            ("masked_longest", 350),
            ("meta_frame", 20),
        ],
        "qemu-x86_64-smp4" => &[("smp_4", 105)],
        "mps2-an385" => &[("nommu_vmalloc_1m", 700), ("meta_frame", 16)],
        "qemu-i586" | "virt-rv32" => &[("meta_frame", 16)],
        _ => &[],
    };
    goals.iter().find(|(goal, _)| *goal == id).map(|&(_, value)| value)
}

/// A number with a tenth where it has one.
struct Tenths(u32);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 10 {
            0 => write!(f, "{}", self.0 / 10),
            tenth => write!(f, "{}.{tenth}", self.0 / 10),
        }
    }
}

/// A number, or JSON's `null`.
struct Optional<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Optional<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}
