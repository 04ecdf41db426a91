//! The file a program works on.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file given to the program.
#[derive(Debug)]
pub struct GuestFile {
    file: File,
    len: usize,
}

/// True for a program, which then always has a file; a suite's test has none unless one is named.
static IS_PROGRAM: AtomicBool = AtomicBool::new(false);

/// Gives the program its own executable as its file, when no other is named.
pub(crate) fn default_to_executable() {
    IS_PROGRAM.store(true, Ordering::Relaxed);
}

/// The file named by an argument `file=PATH`; without one the executable of a program made by [`entry!`](crate::entry),
/// and `None` elsewhere. `None` as well when it does not open.
pub fn file() -> Option<GuestFile> {
    let named = std::env::args().skip(1).find_map(|word| word.strip_prefix("file=").map(PathBuf::from));
    let path = match named {
        Some(path) => path,
        None if IS_PROGRAM.load(Ordering::Relaxed) => std::env::current_exe().ok()?,
        None => return None,
    };
    let file = File::open(path).ok()?;
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
