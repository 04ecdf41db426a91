//! Memory that goes bad by itself: a guest whose RAM is a file, of which somebody outside changes a byte.
//!
//! No store of the guest's own does it, so whatever finds it has really looked.

use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use crate::cargo;
use crate::said::pairs;

/// The word that tells a guest that its memory is spoiled where it says so.
pub const WORD: &str = "memory-goes-bad";
/// `SPOIL <physical address> <byte>`, both in hexadecimal digits: the byte is stored there.
const LINE: &str = "SPOIL";

/// The RAM of one guest.
pub struct Memory {
    file: NamedTempFile,
    /// The physical address of its first byte.
    base: u64,
    spoiled: bool,
}

impl Memory {
    /// RAM that begins at `base`; QEMU gives the file its size.
    pub fn new(base: u64) -> Result<Memory> {
        let folder = cargo::root().join("target/xtask");
        std::fs::create_dir_all(&folder)?;
        let file = NamedTempFile::with_prefix_in("ram-", &folder).context("no file for the guest's RAM")?;
        Ok(Memory { file, base, spoiled: false })
    }

    /// What QEMU maps.
    pub fn path(&self) -> &std::path::Path {
        self.file.path()
    }

    /// Stores what the guest asks for, once.
    pub fn look(&mut self, lines: &[String]) -> Result<()> {
        if self.spoiled {
            return Ok(());
        }
        let Some((address, byte)) = pairs(lines, LINE).into_iter().next() else { return Ok(()) };
        self.spoiled = true;
        let address = u64::from_str_radix(address, 16).with_context(|| format!("{LINE} {address}"))?;
        let byte = u8::from_str_radix(byte, 16).with_context(|| format!("{LINE} {address:x} {byte}"))?;
        let at = address.checked_sub(self.base).with_context(|| format!("{address:#x} lies below RAM"))?;
        ensure!(at < self.file.as_file().metadata()?.len(), "{address:#x} lies past RAM");
        self.file.as_file().write_all_at(&[byte], at)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_asks_for_is_stored_once() {
        let mut memory = Memory::new(0x2100_0000).unwrap();
        memory.file.as_file().set_len(8192).unwrap();
        let bytes = |memory: &Memory| std::fs::read(memory.path()).unwrap();
        memory.look(&["SPOIL nothing".into(), "hello".into()]).unwrap();
        assert_eq!(bytes(&memory), [0; 8192]);
        let mut lines = vec!["INFO SPOIL 21001234 a5".to_owned()];
        memory.look(&lines).unwrap();
        lines.insert(0, "SPOIL 21000000 ff".into());
        memory.look(&lines).unwrap();
        let (mut expected, found) = (vec![0; 8192], bytes(&memory));
        expected[0x1234] = 0xa5;
        assert_eq!(found, expected);
    }

    #[test]
    fn what_lies_outside_ram_is_refused() {
        for line in ["SPOIL 20ffffff 0", "SPOIL 21002000 0", "SPOIL 21000000 100", "SPOIL x 1"] {
            let mut memory = Memory::new(0x2100_0000).unwrap();
            memory.file.as_file().set_len(8192).unwrap();
            memory.look(&[line.into()]).unwrap_err();
        }
    }
}
