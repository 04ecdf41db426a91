//! `serde_json` parses a document and writes it again, in memory of the manager.
//!
//! The runner does the same and compares lengths and CRC-32 of what was written.
#![no_std]
#![no_main]

extern crate alloc;

use rtmm_examples_crates::board::{self, say};
use rtmm_examples_crates::{input, job};
use serde_json::Value;

board::entry!(main);

fn main() {
    job::run("json", work);
}

fn work() -> Result<(), &'static str> {
    let text = input::read(usize::MAX)?;
    let document: Value = serde_json::from_slice(&text).map_err(|_| "the file is no JSON document")?;
    drop(text);
    job::tell("with the document in memory");
    say!("VALUES json {}", values(&document));

    let compact = serde_json::to_string(&document).map_err(|_| "it could not be written")?;
    say!("LENGTH compact {}", compact.len());
    say!("CRC32 compact {:08x}", crc32fast::hash(compact.as_bytes()));
    let again: Value = serde_json::from_str(&compact).map_err(|_| "what was written is no JSON document")?;
    if again != document {
        return Err("what was written is another document");
    }
    drop((compact, again));

    let pretty = serde_json::to_string_pretty(&document).map_err(|_| "it could not be written")?;
    say!("LENGTH pretty {}", pretty.len());
    say!("CRC32 pretty {:08x}", crc32fast::hash(pretty.as_bytes()));
    Ok(())
}

/// How many values a document holds, itself included.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(values).sum(),
        Value::Object(members) => members.values().map(values).sum(),
        _ => 0,
    }
}
