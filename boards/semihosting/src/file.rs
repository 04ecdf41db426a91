//! A file of the host, named by `file=PATH` on the command line.

use crate::args::args;
use core::ffi::CStr;
use semihosting::fs::File;
use semihosting::io::{Read, Seek, SeekFrom};

/// Longest path, with its closing zero; Linux's PATH_MAX would not fit a small board's stack.
const LONGEST_PATH: usize = 1024;

/// A file given to the program by its runner, read through semihosting.
#[derive(Debug)]
pub struct GuestFile {
    file: File,
    len: usize,
}

/// The file named by the word `file=PATH` of the command line, when there is one and it opens.
pub fn file() -> Option<GuestFile> {
    let path = args().split_ascii_whitespace().find_map(|word| word.strip_prefix("file="))?;
    let mut buffer = [0; LONGEST_PATH];
    buffer.get_mut(..path.len())?.copy_from_slice(path.as_bytes());
    let file = File::open(CStr::from_bytes_until_nul(&buffer).ok()?).ok()?;
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
        let mut file = &self.file;
        if file.seek(SeekFrom::Start(offset as u64)).is_err() {
            return 0;
        }
        let mut done = 0;
        while done < bytes.len() {
            match file.read(&mut bytes[done..]) {
                Ok(0) | Err(_) => break,
                Ok(count) => done += count,
            }
        }
        done
    }
}
