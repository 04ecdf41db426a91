//! What a guest says, as lines: plain text, or defmt frames decoded against the program that sent them.

use anyhow::{Context, Result};
use defmt_decoder::{DecodeError, StreamDecoder, Table};

use crate::process::Stream;

/// Lines kept of one run; a guest that prints without end must not fill the host's memory.
const MOST_LINES: usize = 20_000;
/// Bytes kept of a line that does not end.
const LONGEST_LINE: usize = 16 * 1024;

/// QEMU's remark about a network chip that is soldered on a board and, without a network, cannot be left out.
const NOISE: &str = "has no peer";

/// Collects a guest's output, line by line.
///
/// Standard output carries the program's text, as frames when there is a table to decode them with; standard error is
/// always text.
pub struct Console<'t> {
    decoder: Option<Box<dyn StreamDecoder + Send + Sync + 't>>,
    out: LineBuffer,
    err: LineBuffer,
    lines: Vec<String>,
    dropped: usize,
    echo: bool,
}

impl<'t> Console<'t> {
    /// A console for a guest that sends frames (`table`) or text; `echo` prints each line as it comes.
    pub fn new(table: Option<&'t Table>, echo: bool) -> Console<'t> {
        Console {
            decoder: table.map(Table::new_stream_decoder),
            out: LineBuffer::default(),
            err: LineBuffer::default(),
            lines: Vec::new(),
            dropped: 0,
            echo,
        }
    }

    /// Takes the next piece of output.
    pub fn take(&mut self, stream: Stream, bytes: &[u8]) {
        match (stream, self.decoder.is_some()) {
            (Stream::Out, true) => self.frames(bytes),
            (Stream::Out, false) => {
                for line in self.out.split(bytes) {
                    self.line(line);
                }
            }
            (Stream::Err, _) => {
                for line in self.err.split(bytes) {
                    if !line.ends_with(NOISE) {
                        self.line(line);
                    }
                }
            }
        }
    }

    /// The lines so far.
    pub fn said(&self) -> &[String] {
        &self.lines
    }

    /// The lines, unfinished ones included.
    pub fn finish(mut self) -> Vec<String> {
        for rest in [self.out.rest(), self.err.rest()].into_iter().flatten() {
            self.line(rest);
        }
        if self.dropped > 0 {
            self.lines.push(format!("({} more lines were not kept)", self.dropped));
        }
        self.lines
    }

    fn frames(&mut self, bytes: &[u8]) {
        let mut texts = Vec::new();
        if let Some(decoder) = &mut self.decoder {
            decoder.received(bytes);
            loop {
                match decoder.decode() {
                    Ok(frame) => {
                        let level =
                            frame.level().map_or(String::new(), |level| format!("{} ", level.as_str().to_uppercase()));
                        texts.push(format!("{level}{}", frame.display_message()));
                    }
                    // A frame damaged by the guest's death ends at the next zero byte, where decoding goes on.
                    Err(DecodeError::Malformed) => texts.push("(a damaged defmt frame)".to_owned()),
                    Err(DecodeError::UnexpectedEof) => break,
                }
            }
        }
        for text in texts {
            for line in text.lines() {
                self.line(line.to_owned());
            }
        }
    }

    fn line(&mut self, line: String) {
        if self.echo {
            println!("{line}");
        }
        // The last lines matter most when a guest dies, so room is kept for them by dropping the oldest half.
        if self.lines.len() >= MOST_LINES {
            self.dropped += MOST_LINES / 2;
            self.lines.drain(..MOST_LINES / 2);
        }
        self.lines.push(line);
    }
}

/// The table of a program's format strings, without which its frames say nothing.
pub fn table(elf: &[u8]) -> Result<Table> {
    let table = Table::parse(elf).map_err(|error| error.context("its defmt table is damaged"))?;
    table.context("it holds no defmt table: is -Tdefmt.x among its linker arguments?")
}

/// Bytes of a line that has not ended yet.
#[derive(Default)]
struct LineBuffer(Vec<u8>);

impl LineBuffer {
    /// Adds bytes and returns the lines they end.
    fn split(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.0.push(byte);
            }
            if byte == b'\n' || self.0.len() >= LONGEST_LINE {
                lines.push(text(&self.0));
                self.0.clear();
            }
        }
        lines
    }

    fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then(|| text(&rest))
    }
}

/// A line's text: carriage returns of serial ports and control characters of firmware screens are not part of it.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces_of_either_stream() {
        let mut console = Console::new(None, false);
        console.take(Stream::Out, b"one\r\ntw");
        console.take(Stream::Err, b"oops\n");
        console.take(Stream::Out, b"o\nunfinished");
        assert_eq!(console.finish(), ["one", "oops", "two", "unfinished"]);
    }

    #[test]
    fn the_last_of_endless_lines_are_kept() {
        let mut console = Console::new(None, false);
        for number in 0..3 * MOST_LINES {
            console.take(Stream::Out, format!("{number}\n").as_bytes());
        }
        console.take(Stream::Out, b"FAULT: the end\n");
        let lines = console.finish();
        assert!(lines.len() <= MOST_LINES + 2);
        assert!(lines.iter().any(|line| line == "FAULT: the end"));
    }

    #[test]
    fn bytes_without_an_end_are_cut_into_lines() {
        let mut console = Console::new(None, false);
        console.take(Stream::Out, &vec![b'x'; 3 * LONGEST_LINE]);
        assert_eq!(console.finish().len(), 3);
    }

    #[test]
    fn a_program_without_defmt_has_no_table() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(table(&own).unwrap_err().to_string().contains("defmt.x"));
    }
}
