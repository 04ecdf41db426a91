//! The one table of demos: what each is given, how what it says is judged, and where it does not run.
//!
//! A program of `examples/` without a row here can be run too; only its exit is judged then.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::boards::Board;
use crate::cargo;
use crate::said::{CLEAN, compare, has, number, one, used};
use crate::screen;
use crate::scull;

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Demo {
    /// The program, and what `--demo` takes.
    pub name: &'static str,
    /// The file it is given when none is named.
    pub input: Input,
    /// Judges its lines against that file; what it returns is the last line of a good run.
    judge: fn(&[String], &[u8]) -> Result<String>,
    /// Where it runs.
    place: Place,
}

/// A demo's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// None.
    Nothing,
    /// The demo's own program: a file that every machine has, and of which no two are alike.
    Program,
    /// A file of the repository.
    Kept(&'static str),
    /// None, but a display: what it is judged by is a picture of the screen, which is taken when it says so.
    Screen,
}

/// Where a demo runs.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// On every board but these, each with the reason.
    AllBut(&'static [(&'static str, &'static str)]),
    /// On this board only, for this reason.
    Only(&'static str, &'static str),
}

/// What is too much for 64 KiB of RAM.
const TOO_SMALL: &str = "lm3s6965evb";

/// Every demo that `cargo xtask test` runs.
pub const DEMOS: &[Demo] = &[
    Demo { name: "hello", input: Input::Nothing, judge: |_, _| Ok(String::new()), place: Place::AllBut(&[]) },
    Demo { name: SCULL, input: Input::Program, judge: stored, place: Place::AllBut(&[]) },
    Demo { name: SCULL_C, input: Input::Program, judge: stored, place: Place::AllBut(&[]) },
    Demo {
        name: "json",
        input: Input::Kept("docs/bench/data.json"),
        judge: json,
        place: Place::AllBut(&[(TOO_SMALL, "the document alone is larger than its 64 KiB of RAM")]),
    },
    Demo {
        name: "tcp",
        input: Input::Program,
        judge: tcp,
        place: Place::AllBut(&[(TOO_SMALL, "the buffers of two sockets are as large as its 64 KiB of RAM")]),
    },
    Demo {
        name: "compress",
        input: Input::Program,
        judge: compress,
        place: Place::AllBut(&[(TOO_SMALL, "the compressor's tables are larger than its 64 KiB of RAM")]),
    },
    Demo { name: "framebuffer", input: Input::Screen, judge: framebuffer, place: Place::AllBut(&[]) },
    Demo { name: "maps", input: Input::Nothing, judge: maps, place: Place::AllBut(&[]) },
    Demo {
        name: "embassy",
        input: Input::Nothing,
        judge: embassy,
        place: Place::Only("mps2-an385", "it is written for mps2-an385, with that board's interrupts"),
    },
    Demo {
        name: "preempt",
        input: Input::Nothing,
        judge: preempt,
        place: Place::Only("qemu-x86_64", "its scheduler is written for qemu-x86_64, in that processor's instructions"),
    },
    Demo {
        name: "freertos",
        input: Input::Nothing,
        judge: freertos,
        place: Place::Only("mps2-an385", "it is written for mps2-an385, by FreeRTOS's port to that processor"),
    },
];

/// The demo that stores a file in four drivers and reads it back.
pub const SCULL: &str = "scull";
/// The same with drivers in C.
pub const SCULL_C: &str = "scull-c";

impl Demo {
    /// The row of this name.
    pub fn named(name: &str) -> Option<&'static Demo> {
        DEMOS.iter().find(|demo| demo.name == name)
    }

    /// Why it does not run on a board; `None` when it does.
    pub fn excuse(&self, board: &Board) -> Option<&'static str> {
        if self.input == Input::Screen && board.qemu.is_none_or(|qemu| qemu.display.is_none()) {
            return Some("no display is known for it");
        }
        match self.place {
            Place::AllBut(excuses) => excuses.iter().find(|(name, _)| *name == board.family).map(|(_, reason)| *reason),
            Place::Only(name, reason) => (name != board.name).then_some(reason),
        }
    }

    /// The file it is given when none is named; `program` is its own.
    pub fn file(&self, program: &Path) -> Option<PathBuf> {
        match self.input {
            Input::Nothing | Input::Screen => None,
            Input::Program => Some(program.to_owned()),
            Input::Kept(path) => Some(cargo::root().join(path)),
        }
    }

    /// Judges what it said, with the file it was given.
    pub fn judge(&self, lines: &[String], file: Option<&Path>) -> Result<String> {
        let bytes = match file {
            Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => Vec::new(),
        };
        (self.judge)(lines, &bytes)
    }
}

fn clean(lines: &[String]) -> Result<()> {
    ensure!(has(lines, CLEAN), "the guest did not say {CLEAN}");
    Ok(())
}

fn stored(lines: &[String], file: &[u8]) -> Result<String> {
    Ok(scull::check(lines, file)?.to_string())
}

fn json(lines: &[String], file: &[u8]) -> Result<String> {
    let document: Value = serde_json::from_slice(file).context("the file is no JSON document")?;
    compare(lines, "compact", serde_json::to_string(&document)?.as_bytes())?;
    compare(lines, "pretty", serde_json::to_string_pretty(&document)?.as_bytes())?;
    clean(lines)?;
    let count = number(one(lines, &["VALUES", "json"])?)?;
    Ok(format!("a JSON document of {} bytes and {count} values came out as it does here; nothing lost", file.len()))
}

fn tcp(lines: &[String], file: &[u8]) -> Result<String> {
    let sent = used(lines, file)?;
    compare(lines, "received", sent)?;
    clean(lines)?;
    Ok(format!("{} bytes went through a TCP connection unchanged; nothing lost", sent.len()))
}

fn compress(lines: &[String], file: &[u8]) -> Result<String> {
    /// zlib's usual level, as in the demo.
    const LEVEL: u8 = 6;
    let plain = used(lines, file)?;
    let packed = miniz_oxide::deflate::compress_to_vec_zlib(plain, LEVEL);
    compare(lines, "packed", &packed)?;
    compare(lines, "unpacked", plain)?;
    clean(lines)?;
    Ok(format!("{} bytes became {}, as they do here, and came back; nothing lost", plain.len(), packed.len()))
}

fn framebuffer(lines: &[String], picture: &[u8]) -> Result<String> {
    let picture = screen::Picture::read(picture)?;
    picture.compare(lines)?;
    Ok(format!("the screen shows the {} by {} pixels that were drawn", picture.width, picture.height))
}

fn maps(lines: &[String], _: &[u8]) -> Result<String> {
    clean(lines)?;
    Ok("maps of two managers held what was put in; nothing lost".to_owned())
}

fn embassy(lines: &[String], _: &[u8]) -> Result<String> {
    clean(lines)?;
    Ok("tasks awaited memory that an interrupt freed; nothing lost".to_owned())
}

fn preempt(lines: &[String], _: &[u8]) -> Result<String> {
    clean(lines)?;
    let [served, sleeps] = ["SERVED", "SLEEPS"].map(|key| one(lines, &[key]).and_then(number));
    Ok(format!(
        "tasks that a timer preempts had {} requests served while memory was short, and slept {} times for it; nothing lost",
        served?, sleeps?
    ))
}

fn freertos(lines: &[String], _: &[u8]) -> Result<String> {
    clean(lines)?;
    let [messages, served, sleeps] = ["MESSAGES", "SERVED", "SLEEPS"].map(|key| one(lines, &[key]).and_then(number));
    Ok(format!(
        "FreeRTOS ran on rtmm: {} messages, {} requests served while memory was short, {} sleeps for it; nothing lost",
        messages?, served?, sleeps?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_a_program_and_names_boards_that_exist() {
        let workspace = crate::workspace::Workspace::read().unwrap();
        for demo in DEMOS {
            workspace.demo(demo.name).unwrap();
            let boards: Vec<&str> = match demo.place {
                Place::AllBut(excuses) => excuses.iter().map(|(name, _)| *name).collect(),
                Place::Only(name, _) => vec![name],
            };
            assert!(boards.iter().all(|name| Board::named(name).is_ok()), "{}", demo.name);
            if let Input::Kept(path) = demo.input {
                assert!(cargo::root().join(path).is_file(), "{path}");
            }
        }
    }

    #[test]
    fn a_small_board_has_an_excuse_and_the_others_none() {
        let json = Demo::named("json").unwrap();
        assert!(json.excuse(Board::named("lm3s6965evb").unwrap()).unwrap().contains("64 KiB"));
        assert_eq!(json.excuse(Board::named("mps2-an385").unwrap()), None);
    }

    #[test]
    fn another_text_or_a_loss_fails() {
        let document = br#"{"b": [1, 2.5], "a": null}"#;
        let told =
            |text: &[u8], what| format!("LENGTH {what} {}\nCRC32 {what} {:08x}\n", text.len(), crc32fast::hash(text));
        let value: Value = serde_json::from_slice(document).unwrap();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let good = told(br#"{"a":null,"b":[1,2.5]}"#, "compact") + &told(pretty.as_bytes(), "pretty");
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert!(json(&lines(&(good.clone() + "VALUES json 5\nNOTHING LOST")), document).unwrap().contains("5 values"));
        assert!(json(&lines(&(good + "VALUES json 5")), document).unwrap_err().to_string().contains("NOTHING LOST"));
        let bad = told(br#"{"a":null,"b":[1,2.4]}"#, "compact");
        assert!(json(&lines(&bad), document).unwrap_err().to_string().contains("compact: CRC-32"));
    }
}
