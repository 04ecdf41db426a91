//! The lines by which a demo tells its results, and a suite what it counted.

use anyhow::{Context, Result, bail, ensure};

/// `CRC32 <what> <hex>`.
pub const CRC: &str = "CRC32";
/// `LENGTH <what> <bytes>`.
pub const LENGTH: &str = "LENGTH";
/// `FILE-CUT <bytes>`: the demo uses no more of its file than this.
pub const CUT: &str = "FILE-CUT";
/// At the end as many pages are free and objects live as at the start.
pub const CLEAN: &str = "NOTHING LOST";

/// How the lines begin by which suites tell what they counted: a pass is worth as much as these.
const COUNTS: [&str; 2] = ["STORM", "SWEEP"];

/// The lines that tell what was counted.
pub fn counts(lines: &[String]) -> impl Iterator<Item = &str> {
    let counts = |line: &&String| words(line).first().is_some_and(|first| COUNTS.contains(first));
    lines.iter().filter(counts).map(String::as_str)
}

/// A line's words, without the level a log puts before them.
fn words(line: &str) -> Vec<&str> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    match words.first() {
        Some(&"INFO") => words[1..].to_vec(),
        _ => words,
    }
}

/// Whether there is a line of these words.
pub fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| words(line) == words(text))
}

/// The last words of the lines that begin with `key` and have one word more.
pub fn values<'l>(lines: &'l [String], key: &[&str]) -> Vec<&'l str> {
    let lines = lines.iter().map(|line| words(line));
    lines.filter(|words| words.len() == key.len() + 1 && words.starts_with(key)).map(|words| words[key.len()]).collect()
}

/// The last two words of the lines that begin with `key` and have two words more.
pub fn pairs<'l>(lines: &'l [String], key: &str) -> Vec<(&'l str, &'l str)> {
    let pair = |line: &'l String| match words(line).as_slice() {
        [first, one, two] if *first == key => Some((*one, *two)),
        _ => None,
    };
    lines.iter().filter_map(pair).collect()
}

/// The value of the one line that begins with `key`.
pub fn one<'l>(lines: &'l [String], key: &[&str]) -> Result<&'l str> {
    match values(lines, key).as_slice() {
        [value] => Ok(value),
        [] => bail!("no line {}: the demo did not get that far", key.join(" ")),
        more => bail!("{} lines {}", more.len(), key.join(" ")),
    }
}

/// A number of bytes, or of anything else.
pub fn number(text: &str) -> Result<usize> {
    text.parse().with_context(|| format!("{text:?} is not a number"))
}

/// A CRC-32 in hexadecimal digits.
pub fn crc(text: &str) -> Result<u32> {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).with_context(|| format!("{CRC} {text}"))
}

/// The part of a file that a demo says it used.
pub fn used<'f>(lines: &[String], file: &'f [u8]) -> Result<&'f [u8]> {
    match values(lines, &[CUT]).as_slice() {
        [] => Ok(file),
        [bytes] => {
            let cut = number(bytes)?;
            ensure!((1..file.len()).contains(&cut), "a file of {} bytes cannot be cut to {cut}", file.len());
            Ok(&file[..cut])
        }
        more => bail!("{} lines {CUT}", more.len()),
    }
}

/// Holds length and CRC-32 of `what`, as told, against those of `expected`.
pub fn compare(lines: &[String], what: &str, expected: &[u8]) -> Result<()> {
    let told = number(one(lines, &[LENGTH, what])?)?;
    ensure!(told == expected.len(), "{what}: {told} bytes, and here {}", expected.len());
    let (told, here) = (crc(one(lines, &[CRC, what])?)?, crc32fast::hash(expected));
    ensure!(told == here, "{what}: CRC-32 {told:08x}, and here {here:08x}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_length_or_a_checksum_that_differs_is_told() {
        // The check value of CRC-32 (IEEE 802.3) over the nine digits.
        let good = lines("LENGTH it 9\nCRC32 it cbf43926");
        assert!(compare(&good, "it", b"123456789").is_ok());
        assert!(compare(&good, "other", b"123456789").unwrap_err().to_string().contains("no line"));
        assert!(compare(&good, "it", b"12345678").unwrap_err().to_string().contains("9 bytes, and here 8"));
        assert!(compare(&good, "it", b"023456789").unwrap_err().to_string().contains("CRC-32 cbf43926"));
    }

    #[test]
    fn what_was_counted_is_told_with_a_level_and_without() {
        let told = lines("SWEEP kmalloc: 75 instructions\nSWEEPING\nINFO STORM 9 failures\nOVERHEAD 3 bytes");
        let found: Vec<_> = counts(&told).collect();
        assert_eq!(found, ["SWEEP kmalloc: 75 instructions", "INFO STORM 9 failures"]);
    }

    #[test]
    fn a_file_is_used_as_far_as_it_was_said() {
        assert_eq!(used(&[], b"abc").unwrap(), b"abc");
        assert_eq!(used(&lines("INFO FILE-CUT 2"), b"abc").unwrap(), b"ab");
        assert!(used(&lines("FILE-CUT 3"), b"abc").is_err() && used(&lines("FILE-CUT 0"), b"abc").is_err());
    }
}
