//! Checking what the scull demo says against the file it was given.

use std::fmt;

use anyhow::{Result, bail, ensure};

use crate::said::{CLEAN, CRC, CUT, LENGTH, crc, has, number, one, values};

/// The four devices; each stores the whole file.
const DEVICES: [&str; 4] = ["scull", "scullc", "scullp", "scullv"];

/// What was found, for the last line of a good run.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    crc: u32,
    length: usize,
    whole: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { crc, length, whole } = self;
        write!(
            f,
            "CRC-32 {crc:08x} of {length} bytes matched the host's on all {} devices; nothing lost",
            DEVICES.len()
        )?;
        if length < whole {
            write!(f, " (the file has {whole} bytes, more than the board's RAM takes)")?;
        }
        Ok(())
    }
}

/// Compares a run's lines with the file.
pub fn check(lines: &[String], file: &[u8]) -> Result<Report> {
    let cut = match values(lines, &[CUT]).as_slice() {
        [] => None,
        [bytes] => Some(number(bytes)?),
        more => bail!("{} lines {CUT}", more.len()),
    };
    if let Some(cut) = cut {
        ensure!((1..file.len()).contains(&cut), "a file of {} bytes cannot be cut to {cut}", file.len());
    }
    let length = cut.unwrap_or(file.len());
    let crc = crc32fast::hash(&file[..length]);
    for device in DEVICES {
        let told = number(one(lines, &[LENGTH, device])?)?;
        ensure!(told == length, "{device} gave back {told} bytes of {length}");
        let told = self::crc(one(lines, &[CRC, device])?)?;
        ensure!(told == crc, "{device} gave back other bytes: CRC-32 {told:08x}, the file's is {crc:08x}");
    }
    ensure!(has(lines, CLEAN), "the guest did not say {CLEAN}");
    Ok(Report { crc, length, whole: file.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"123456789";
    /// The check value of CRC-32 (IEEE 802.3) over the nine digits.
    const CHECK: u32 = 0xcbf4_3926;

    fn said(length: usize, crc: u32, cut: Option<usize>) -> Vec<String> {
        let mut lines: Vec<String> = cut.iter().map(|cut| format!("FILE-CUT {cut}")).collect();
        for device in DEVICES {
            lines.push(format!("LENGTH {device} {length}"));
            lines.push(format!("CRC32 {device} {crc:08x}"));
        }
        lines.push("NOTHING LOST".into());
        lines
    }

    #[test]
    fn all_devices_match() {
        let report = check(&said(9, CHECK, None), FILE).unwrap();
        assert_eq!(report, Report { crc: CHECK, length: 9, whole: 9 });
        assert!(!report.to_string().contains("more than"));
    }

    #[test]
    fn a_cut_file_is_compared_as_far_as_it_went() {
        let report = check(&said(4, crc32fast::hash(b"1234"), Some(4)), FILE).unwrap();
        assert!(report.to_string().contains("4 bytes matched"));
        // Without saying so, a short file is a loss.
        let lost = check(&said(4, crc32fast::hash(b"1234"), None), FILE).unwrap_err().to_string();
        assert!(lost.contains("4 bytes of 9"), "{lost}");
        assert!(check(&said(0, 0, Some(0)), FILE).is_err());
        assert!(check(&said(9, CHECK, Some(9)), FILE).is_err());
    }

    #[test]
    fn one_wrong_device_is_named() {
        let mut lines = said(9, CHECK, None);
        for line in &mut lines {
            if line.starts_with("CRC32 scullp") {
                *line = "CRC32 scullp 00000000".into();
            }
        }
        assert!(check(&lines, FILE).unwrap_err().to_string().contains("scullp gave back other bytes"));
    }

    #[test]
    fn a_missing_device_or_a_lost_page_fails() {
        let without = |start: &str| -> Vec<String> {
            said(9, CHECK, None).into_iter().filter(|line| !line.starts_with(start)).collect()
        };
        assert!(check(&without("CRC32 scullv"), FILE).unwrap_err().to_string().contains("CRC32 scullv"));
        assert!(check(&without("LENGTH scullc"), FILE).is_err());
        assert!(check(&without("NOTHING"), FILE).unwrap_err().to_string().contains("NOTHING LOST"));
    }

    #[test]
    fn lines_of_a_log_count_without_their_level() {
        let lines: Vec<String> = said(9, CHECK, None).into_iter().map(|line| format!("INFO {line}")).collect();
        assert!(check(&lines, FILE).is_ok());
    }
}
