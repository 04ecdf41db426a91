//! What the smallest programs take on a Cortex-M3: rtmm's, and the same on other allocators.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::boards::Board;
use crate::cargo::{self, cargo as cargo_command};
use crate::qemu::Boot;
use crate::rows::{self, Row};
use crate::{elf, run, size_demo, tools, verdict};

/// The package of the programs, its feature for those that set the allocator up, and where they run.
pub const PACKAGE: &str = "rtmm-size";
pub const SETUP: &str = "setup";
pub const TARGET: &str = "thumbv7m-none-eabi";
const BOARD: &str = "mps2-an385";

/// The program without an allocator, which is taken off the others.
const BASELINE: &str = "baseline";
/// The program that fills an arena.
const FILL: &str = "fill";
/// How its lines begin; allocator, bytes of an object, objects, bytes used follow.
const MARK: &str = "FILL ";
/// The line about whole pages: how many the arena holds beside the manager's tables.
const PAGE: &str = "rtmm_page";
/// Seconds for it: some hundred thousand calls.
const SECONDS: u64 = 60;

/// Programs with a goal: bytes of code without set-up at opt-level z, and bytes of static RAM beside the frame table.
const GOALS: [(&str, &str, u64); 2] = [("rtmm_kmalloc", "size_kmalloc", 1536), ("rtmm_nommu", "size_nommu", 3072)];
const STATIC_RAM: u64 = 512;

/// The ways a program is built: how the table calls it, and cargo's profile. For the first, rtmm has its feature
/// `small`.
const PROFILES: [(&str, &str); 2] = [("z", "room"), ("3", "release")];

/// rtmm where code is to be small, as it is measured so.
pub const SMALL: &str = "small";

/// Prints the sizes, or those of one demo on every board, and writes them as a JSON list.
pub fn size(demo: Option<&str>, json: Option<PathBuf>) -> Result<()> {
    let rows = match demo {
        Some(demo) => {
            let rows = size_demo::rows(demo)?;
            print!("\n{}", rows::table(&rows));
            rows
        }
        None => rows()?,
    };
    if let Some(path) = json {
        rows::write(&rows, &path)?;
    }
    Ok(())
}

/// Builds, measures, prints, and returns the figures as rows.
pub fn rows() -> Result<Vec<Row>> {
    let board = Board::named(BOARD)?;
    tools::provide(&[board])?;
    let mut sizes = Sizes::new();
    for (level, profile) in PROFILES {
        for setup in [false, true] {
            for (name, size) in programs(profile, setup)? {
                sizes.entry(name).or_default().insert((level, setup), size);
            }
        }
    }
    let fills = fills(board)?;
    println!("\n{}", table(&sizes, &fills)?);
    let rows = as_rows(&sizes, &fills)?;
    print!("{}", rows::table(&rows));
    Ok(rows)
}

/// The size of each program at each level, without and with set-up.
type Sizes = BTreeMap<String, BTreeMap<(&'static str, bool), elf::Size>>;

/// Builds the programs and adds up their sections, less those of the baseline.
fn programs(profile: &str, setup: bool) -> Result<Vec<(String, elf::Size)>> {
    let mut command = cargo_command();
    command.args(["build", "--package", PACKAGE, "--bins", "--profile", profile, "--target", TARGET]);
    if setup {
        command.args(["--features", SETUP]);
    }
    if profile == PROFILES[0].1 {
        command.args(["--features", SMALL]);
    }
    let mut sizes = Vec::new();
    for program in cargo::build(&mut command, &["bin"])? {
        let elf = std::fs::read(&program.path).with_context(|| program.path.display().to_string())?;
        sizes.push((program.name, elf::size(&elf)?));
    }
    let (_, none) = sizes.iter().find(|(name, _)| name == BASELINE).context("no baseline was built")?.clone();
    sizes.retain(|(name, _)| name != BASELINE && name != FILL);
    for (_, size) in &mut sizes {
        *size = less(*size, none);
    }
    Ok(sizes)
}

fn less(size: elf::Size, none: elf::Size) -> elf::Size {
    elf::Size {
        text: size.text.saturating_sub(none.text),
        rodata: size.rodata.saturating_sub(none.rodata),
        data: size.data.saturating_sub(none.data),
        bss: size.bss.saturating_sub(none.bss),
    }
}

/// How full an arena got: by allocator, the objects' size, how many there were and the bytes they used.
#[derive(Debug, PartialEq, Eq)]
struct Fill {
    name: String,
    size: u64,
    objects: u64,
    used: u64,
}

impl Fill {
    fn read(line: &str) -> Option<Fill> {
        // The numbers stand last: a name may have a space.
        let mut words = line.strip_prefix(MARK)?.rsplitn(4, ' ');
        let mut number = || words.next()?.parse().ok();
        let (used, objects, size) = (number()?, number()?, number()?);
        Some(Fill { name: words.next()?.to_owned(), size, objects, used })
    }

    /// Bytes an object takes beyond its own.
    fn overhead(&self) -> f64 {
        self.used as f64 / self.objects as f64 - self.size as f64
    }
}

fn fills(board: &'static Board) -> Result<Vec<Fill>> {
    let mut command = cargo_command();
    command.args(["build", "--package", PACKAGE, "--bin", FILL, "--release", "--target", TARGET]);
    command.args(["--features", SETUP]);
    let built = cargo::build(&mut command, &["bin"])?;
    let program = built.first().context("cargo built nothing")?;
    let (exit, lines) = run::boot_echoing(board, &program.path, &Boot::default(), SECONDS, false)?;
    if let Some(complaint) = verdict::complaint(exit, board.codes, true) {
        anyhow::bail!("{FILL} ended with {complaint}\n{}", lines.join("\n"));
    }
    let fills: Vec<Fill> = lines.iter().filter_map(|line| Fill::read(line)).collect();
    ensure!(!fills.is_empty() && fills.iter().all(|fill| fill.objects != 0), "it filled nothing\n{}", lines.join("\n"));
    Ok(fills)
}

/// One line per program: what its calls and its set-up take at each level.
fn table(sizes: &Sizes, fills: &[Fill]) -> Result<String> {
    use std::fmt::Write as _;
    let mut text = String::new();
    writeln!(text, "bytes on {TARGET}, less a program without an allocator; +setup: with what hands it its memory")?;
    writeln!(
        text,
        "{:<24}{:>7}{:>8}{:>8}{:>6}{:>8} |{:>7}{:>8}",
        "", "text z", "+setup", "rodata", "data", "bss", "text 3", "+setup"
    )?;
    for (name, by_level) in sizes {
        let of = |level, setup| by_level.get(&(level, setup)).context("a program was not built at every level");
        let (z, z_setup, three, three_setup) = (of("z", false)?, of("z", true)?, of("3", false)?, of("3", true)?);
        writeln!(
            text,
            "{name:<24}{:>7}{:>8}{:>8}{:>6}{:>8} |{:>7}{:>8}",
            z.text, z_setup.text, z.rodata, z.data, z.bss, three.text, three_setup.text
        )?;
    }
    writeln!(text, "\nbytes an object takes beyond its own, in a full arena of 1 MiB")?;
    let mut by_name: BTreeMap<&str, Vec<&Fill>> = BTreeMap::new();
    for fill in fills {
        by_name.entry(&fill.name).or_default().push(fill);
    }
    for (name, fills) in by_name {
        write!(text, "{name:<24}")?;
        for fill in fills {
            write!(text, "  {:>3} B: {:>5.1}", fill.size, fill.overhead())?;
        }
        writeln!(text)?;
    }
    Ok(text)
}

/// The rows with goals first, then what else is told.
fn as_rows(sizes: &Sizes, fills: &[Fill]) -> Result<Vec<Row>> {
    let row = |id: String, value: serde_json::Number, goal: Option<u64>, peer: Option<(String, u64)>| {
        let (peer, peer_value) = peer.map_or((None, None), |(name, value)| (Some(name), Some(value.into())));
        let (unit, goal) = ("bytes".to_owned(), goal.map(Into::into));
        Row { id, board: BOARD.to_owned(), unit, value, worst: None, goal, peer, peer_value }
    };
    let mut rows = Vec::new();
    let of = |name: &str, level, setup| sizes.get(name).and_then(|by| by.get(&(level, setup))).copied();
    // The smallest of the others: what a program that checks nothing can do with.
    let smallest = sizes.keys().filter(|name| !name.starts_with("rtmm")).filter_map(|name| {
        let size = of(name, "z", false)?;
        Some((name.clone(), size.text))
    });
    let smallest = smallest.min_by_key(|(_, text)| *text);
    for (name, id, goal) in GOALS {
        let size = of(name, "z", false).with_context(|| format!("{name} was not built"))?;
        rows.push(row(id.to_owned(), size.text.into(), Some(goal), smallest.clone()));
        rows.push(row(format!("{id}_ram"), (size.data + size.bss).into(), Some(STATIC_RAM), None));
        rows.push(row(format!("{id}_rodata"), size.rodata.into(), None, None));
        let whole = of(name, "z", true).with_context(|| format!("{name} was not built with its set-up"))?;
        rows.push(row(format!("{id}_setup"), whole.text.into(), None, None));
        let fast = of(name, "3", false).with_context(|| format!("{name} was not built for speed"))?;
        rows.push(row(format!("{id}_o3"), fast.text.into(), None, None));
    }
    for fill in fills.iter().filter(|fill| fill.name.starts_with("rtmm")) {
        let tenths = (fill.overhead() * 10.0).round() / 10.0;
        let value = serde_json::Number::from_f64(tenths).context("no number")?;
        let id = if fill.name == PAGE { "size_page".to_owned() } else { format!("size_object_{}", fill.size) };
        rows.push(row(id, value, None, None));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_are_read_from_the_end_of_the_line() {
        let fill = Fill::read("FILL embedded-alloc TLSF 64 16000 1048576").unwrap();
        assert_eq!((fill.name.as_str(), fill.size, fill.objects), ("embedded-alloc TLSF", 64, 16000));
        assert!((fill.overhead() - 1.536).abs() < 1e-9);
        assert_eq!(Fill::read("FILL talc 64 x 1"), None);
        assert_eq!(Fill::read("said otherwise"), None);
    }

    #[test]
    fn goals_are_held_against_the_calls_alone_and_the_smallest_peer() {
        let size = |text, bss| elf::Size { text, rodata: 10, data: 8, bss };
        let levels = |text| {
            PROFILES.iter().flat_map(move |(l, _)| [((*l, false), size(text, 500)), ((*l, true), size(text + 50, 500))])
        };
        let sizes: Sizes = [("rtmm_kmalloc", 1500), ("rtmm_nommu", 4000), ("talc", 700), ("rlsf", 640)]
            .map(|(name, text)| (name.to_owned(), levels(text).collect()))
            .into();
        let rows =
            as_rows(&sizes, &[Fill { name: "rtmm_kmalloc".into(), size: 64, objects: 100, used: 6500 }]).unwrap();
        let find = |id: &str| rows.iter().find(|row| row.id == id).unwrap();
        assert!(!find("size_kmalloc").misses_goal() && find("size_nommu").misses_goal());
        assert_eq!(find("size_kmalloc").peer.as_deref(), Some("rlsf"));
        assert_eq!(
            (find("size_kmalloc_ram").value.as_u64(), find("size_kmalloc_setup").value.as_u64()),
            (Some(508), Some(1550))
        );
        assert_eq!(find("size_object_64").value.as_f64(), Some(1.0));
    }
}
