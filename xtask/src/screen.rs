//! Looking at a guest's screen, by QEMU's monitor.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::said::{CRC, compare, values};

/// Of what a guest tells the length and the checksum: the pixels, three bytes each.
const SCREEN: &str = "screen";
/// How QEMU's monitor asks for the next command.
const PROMPT: &[u8] = b"(qemu) ";
/// How long it may take over one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The socket of a board's monitor. The names of sockets are short, so it is not beside the picture.
pub fn socket(board: &str) -> PathBuf {
    std::env::temp_dir().join(format!("xtask-{}-{board}.screen", std::process::id()))
}

/// Where the picture of a board's screen is kept.
pub fn file(board: &str) -> PathBuf {
    cargo::root().join(format!("target/xtask/screen-{board}.ppm"))
}

/// Waits for a guest to show something, takes a picture, and switches the machine off.
pub struct Watch {
    monitor: PathBuf,
    picture: PathBuf,
    seen: Option<Result<()>>,
}

impl Watch {
    /// A watch over the screen behind this monitor. An old picture goes.
    pub fn new(monitor: &Path, picture: &Path) -> Watch {
        let _ = std::fs::remove_file(picture);
        Watch { monitor: monitor.to_owned(), picture: picture.to_owned(), seen: None }
    }

    /// Looks when the guest said that there is something.
    pub fn look(&mut self, lines: &[String]) {
        if self.seen.is_none() && !values(lines, &[CRC, SCREEN]).is_empty() {
            self.seen = Some(self.take());
        }
    }

    fn take(&self) -> Result<()> {
        if let Some(folder) = self.picture.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut monitor = UnixStream::connect(&self.monitor).context("QEMU has no monitor")?;
        monitor.set_read_timeout(Some(PATIENCE))?;
        answer(&mut monitor)?;
        writeln!(monitor, "screendump {}", self.picture.display())?;
        answer(&mut monitor)?;
        writeln!(monitor, "quit")?;
        // A monitor whose other end goes away forgets what it has not read yet.
        let _ = std::io::copy(&mut monitor, &mut std::io::sink());
        Ok(())
    }

    /// Why there is no picture, if that is QEMU's fault. The socket goes.
    pub fn trouble(self) -> Option<String> {
        let _ = std::fs::remove_file(&self.monitor);
        self.seen?.err().map(|error| format!("the screen could not be looked at: {error:#}"))
    }
}

/// Reads up to the next prompt.
fn answer(monitor: &mut UnixStream) -> Result<()> {
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(PROMPT) {
        ensure!(monitor.read(&mut byte)? == 1, "QEMU's monitor ended with {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    Ok(())
}

/// A picture as QEMU stores it: a header, then three bytes for each pixel.
pub struct Picture<'a> {
    /// Pixels of a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    pixels: &'a [u8],
}

impl<'a> Picture<'a> {
    /// Reads a portable pixmap of 255 shades.
    pub fn read(file: &'a [u8]) -> Result<Picture<'a>> {
        let mut rest = file;
        let mut word = || -> Result<&'a str> {
            let end = rest.iter().position(u8::is_ascii_whitespace).context("the picture ends in its header")?;
            let (word, behind) = rest.split_at(end);
            rest = &behind[1..];
            Ok(std::str::from_utf8(word)?)
        };
        if word()? != "P6" {
            bail!("the picture is no portable pixmap");
        }
        let (width, height, shades): (usize, usize, usize) = (word()?.parse()?, word()?.parse()?, word()?.parse()?);
        ensure!(shades == 255, "the picture has {shades} shades");
        ensure!(Some(rest.len()) == width.checked_mul(height).and_then(|n| n.checked_mul(3)), "the picture is cut off");
        Ok(Picture { width, height, pixels: rest })
    }

    /// Holds it against what the guest said it drew.
    pub fn compare(&self, lines: &[String]) -> Result<()> {
        compare(lines, SCREEN, self.pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_what_the_guest_drew_or_not() {
        let file = b"P6\n2 1\n255\nabcdef";
        let picture = Picture::read(file).unwrap();
        assert_eq!((picture.width, picture.height), (2, 1));
        let said = |crc: u32| vec!["LENGTH screen 6".to_owned(), format!("CRC32 screen {crc:08x}")];
        picture.compare(&said(crc32fast::hash(b"abcdef"))).unwrap();
        assert!(picture.compare(&said(1)).is_err());
        assert!(Picture::read(b"P6\n2 1\n255\nabc").is_err() && Picture::read(b"P5 ").is_err());
    }
}
