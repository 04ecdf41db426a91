//! Prints the manager's tables line by line through the board's console.

use crate::board::{MM, say};
use core::fmt::{self, Write};

/// Room for one line of a table; a longer one is printed in pieces.
const LINE: usize = 160;

/// Prints the tables a caller wants to compare: memory, free blocks, caches, areas.
///
/// At most `most` lines of each; what is left out is counted.
pub fn show(when: fmt::Arguments<'_>, most: usize) {
    table(when, "meminfo", &MM.meminfo(), most);
    table(when, "buddyinfo", &MM.buddyinfo(), most);
    table(when, "slabinfo", &MM.slabinfo(), most);
    table(when, "vmallocinfo", &MM.vmallocinfo(), most);
}

/// Prints one table under a heading.
pub fn table(when: fmt::Arguments<'_>, name: &str, table: &dyn fmt::Display, most: usize) {
    say!("-- {} {}", name, when);
    let mut lines = Lines { buffer: [0; LINE], filled: 0, printed: 0, most, left_out: 0 };
    // Writing into `Lines` cannot fail, so an error would be the table's own, and its line is printed as far as it got.
    let complete = write!(lines, "{table}").is_ok();
    lines.end_line();
    if lines.left_out > 0 {
        say!("   ... and {} more", lines.left_out);
    }
    if !complete {
        say!("   (incomplete)");
    }
}

/// Cuts text into lines of the console.
struct Lines {
    buffer: [u8; LINE],
    filled: usize,
    printed: usize,
    most: usize,
    left_out: usize,
}

impl Lines {
    fn end_line(&mut self) {
        if self.filled == 0 {
            return;
        }
        if self.printed < self.most {
            // Only whole characters are put in, so this is never the fallback.
            say!("{}", core::str::from_utf8(&self.buffer[..self.filled]).unwrap_or("?"));
            self.printed += 1;
        } else {
            self.left_out += 1;
        }
        self.filled = 0;
    }
}

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character == '\n' {
                self.end_line();
                continue;
            }
            let mut encoded = [0; 4];
            let encoded = character.encode_utf8(&mut encoded).as_bytes();
            if self.filled + encoded.len() > LINE {
                self.end_line();
            }
            self.buffer[self.filled..][..encoded.len()].copy_from_slice(encoded);
            self.filled += encoded.len();
        }
        Ok(())
    }
}
