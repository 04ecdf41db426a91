//! The file a program works on.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

/// A file given to the program.
#[derive(Debug)]
pub struct GuestFile {
    file: File,
    len: usize,
}

/// The file named by an argument `file=PATH`, the program's own executable without one; `None` when it does not open.
pub fn file() -> Option<GuestFile> {
    let named = std::env::args().skip(1).find_map(|word| word.strip_prefix("file=").map(Into::into));
    let file = File::open(named.or_else(|| std::env::current_exe().ok())?).ok()?;
    let len = usize::try_from(file.metadata().ok()?.len()).ok()?;
    Some(GuestFile { file, len })
}

impl GuestFile {
    /// Length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a file of length 0 needs no other handling")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Reads from `offset` into `bytes`; returns how many there were, which is less at the file's end or on an error.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], (offset + done) as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        done
    }
}
