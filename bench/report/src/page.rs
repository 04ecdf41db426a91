//! The page of results, and the README's table.

use crate::data::{Data, Row};
use crate::reasons::reason;
use crate::style::number;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::path::Path;

/// What stands around the README's table.
const BEGIN: &str = "<!-- begin of the table that cargo xtask bench writes -->";
const END: &str = "<!-- end of the table that cargo xtask bench writes -->";

/// Writes `docs/bench/README.md`.
pub fn write(data: &Data, path: &Path) -> Result<()> {
    let mut page = String::new();
    page.push_str(
        "# What calls cost\n\nEverything on this page is written by `cargo xtask bench`. No figure of a row is typed in, and rows that miss \
         their goal stay, with what is in the way.\n\nCosts are **instructions**, because they repeat exactly; they are not time. Each allocator gets the same seeded calls \
         ([bench/traces](../../bench/traces/src/lib.rs)) through one call that is not inlined, with size and alignment \
         unknown to the compiler; what an empty call takes is taken off. rtmm runs with its lock and with every free checked. \
         The others run without a lock (`embedded-alloc` always has one) and check nothing.",
    );
    checked(&mut page, data)?;
    goals(&mut page, data)?;
    heaps(&mut page, data)?;
    pages(&mut page, data)?;
    // A part that was not measured yet has no section.
    if data.of("arena").next().is_some() {
        usage(&mut page, data)?;
    }
    if data.of("wall").next().is_some() {
        wall(&mut page, data)?;
    }
    notes(&mut page, data)?;
    std::fs::write(path, page).with_context(|| path.display().to_string())
}

/// Replaces what stands between the marks of the project's README.
pub fn splice(data: &Data, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).context("the README has no mark for the table")?;
    let (_, after) = rest.split_once(END).context("the README's table has no end")?;
    ensure!(!after.contains(BEGIN), "the README has two tables");
    let mut table = String::from("\n| allocator | 64 bytes | mixed sizes | dearest call |\n|---|--:|--:|--:|\n");
    for peer in data.peers("heap") {
        let cell = |work| data.cell("heap", &peer, work).filter(|cell| cell.failures == 0);
        let (Some(hot), Some(mixed)) = (cell("W1"), cell("W3")) else { continue };
        let worst = dearest(data, &peer);
        let name = if peer == "rtmm" { "**rtmm**, locked and checked" } else { &peer };
        let (hot, mixed) = (hot.figures.pair(), mixed.figures.pair());
        writeln!(table, "| {name} | {} | {} | {} |", number(hot), number(mixed), number(worst))?;
    }
    let text = format!("{before}{BEGIN}\n{table}\n{END}{after}");
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Says which allocators were watched on the workloads, and which were not.
fn checked(page: &mut String, data: &Data) -> Result<()> {
    let mut unchecked: Vec<String> = Vec::new();
    for peer in data.peers("heap").into_iter().chain(data.peers("pages")) {
        let mut of_peer = data.of("check").filter(|one| one["peer"] == *peer).peekable();
        let is_checked = of_peer.peek().is_some() && of_peer.all(|one| one["error"].is_null());
        if !is_checked && !unchecked.contains(&peer) {
            unchecked.push(peer);
        }
    }
    page.push_str(
        " On a tenth of the same calls each is watched for overlap, alignment and bytes that do not stay as they were written",
    );
    match &unchecked[..] {
        [] => page.push_str(", and none did wrong.\n\n"),
        some => writeln!(page, "; {} did not pass that, or was not watched.\n", some.join(", "))?,
    }
    Ok(())
}

fn dearest(data: &Data, peer: &str) -> f64 {
    data.cells("heap").iter().filter(|cell| cell.peer == peer).map(|cell| cell.figures.worst()).fold(0.0, f64::max)
}

fn goals(page: &mut String, data: &Data) -> Result<()> {
    page.push_str("## Figures and goals\n\n");
    let mut boards: Vec<&str> = Vec::new();
    for row in &data.rows {
        if !boards.contains(&row.board.as_str()) {
            boards.push(&row.board);
        }
    }
    page.push_str(
        "| figure | board | value | worst | goal | | another | of what |\n|---|---|--:|--:|--:|---|---|---|\n",
    );
    for row in data.rows.iter().filter(|row| row.goal.is_some()) {
        line(page, row)?;
    }
    missed(page, data)?;
    page.push_str(
        "\nFigures without a goal are held against the last ones ([baseline.json](baseline.json)). meta_frame \
         counts the frame table, the bits of free blocks and the descriptors of slabs; memory that is full of \
         small objects has a descriptor for every slab. masked_longest is the longest stretch in which a call masks interrupts.\n\n",
    );
    for board in boards {
        let rows: Vec<&Row> = data.rows.iter().filter(|row| row.board == board && row.goal.is_none()).collect();
        if rows.is_empty() {
            continue;
        }
        writeln!(page, "<details><summary>{board}</summary>\n")?;
        page.push_str(
            "| figure | board | value | worst | goal | | another | of what |\n|---|---|--:|--:|--:|---|---|---|\n",
        );
        for row in rows {
            line(page, row)?;
        }
        page.push_str("\n</details>\n\n");
    }
    Ok(())
}

/// Says of each figure that misses its goal what is in the way.
fn missed(page: &mut String, data: &Data) -> Result<()> {
    let mut ids: Vec<&str> = Vec::new();
    for row in data.rows.iter().filter(|row| row.reaches() == Some(false)) {
        if !ids.contains(&row.id.as_str()) {
            ids.push(&row.id);
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    page.push_str("\nWhat is in the way of a goal that is missed:\n\n");
    for id in ids {
        writeln!(page, "- **{id}**: {}", reason(id).unwrap_or("not looked into yet."))?;
    }
    Ok(())
}

fn line(page: &mut String, row: &Row) -> Result<()> {
    let optional = |value: Option<f64>| value.map_or(String::new(), exact);
    let mark = match row.reaches() {
        Some(true) => "reached",
        Some(false) => "**missed**",
        None => "",
    };
    let peer = match (&row.peer, row.peer_value) {
        (Some(peer), Some(value)) => format!("{peer} {}", exact(value)),
        _ => String::new(),
    };
    let Row { id, board, unit, .. } = row;
    let (value, worst, goal) = (exact(row.value), optional(row.worst), optional(row.goal));
    writeln!(page, "| {id} | {board} | {value} | {worst} | {goal} | {mark} | {peer} | {unit} |")?;
    Ok(())
}

/// A figure with what digits it has.
fn exact(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn heaps(page: &mut String, data: &Data) -> Result<()> {
    page.push_str(
        "## Bytes\n\n![64 bytes, hot](hot.svg)\n\n![mixed sizes](mixed.svg)\n\n![the dearest call](worst.svg)\n\nInstructions per \
         allocation / free, means; `w` is the dearest call. W1: one object of 64 bytes, again and again; W1w: beside \
         10,000 live objects; W2: batches of 1000, freed last first, first first, shuffled; W3: 8 to 4095 bytes replaced \
         at random, 10,000 live; W4, W4p: 4 to 128 KiB, aligned to 8 and to a page; WC: an empty allocator is filled; \
         kernel: a kernel's small objects.\n\n",
    );
    grid(page, data, "heap", &["W1", "W1w", "W2l", "W2f", "W2r", "W3", "W4", "W4p", "WC", "kernel"])
}

fn pages(page: &mut String, data: &Data) -> Result<()> {
    page.push_str(
        "## Pages\n\n![pages](pages.svg)\n\nOf 1 GiB. P1: one page, again and again; P2: batches of \
         1024, freed shuffled; P3: blocks of 1 to 512 pages replaced at random, 1024 live.\n\n",
    );
    if data.of("page-use").next().is_some() {
        page.push_str("![large blocks](large-blocks.svg)\n\n");
    }
    grid(page, data, "pages", &["P1", "P2", "P3"])
}

fn grid(page: &mut String, data: &Data, kind: &str, works: &[&str]) -> Result<()> {
    writeln!(page, "| allocator | {} |", works.join(" | "))?;
    writeln!(page, "|---|{}", "--:|".repeat(works.len()))?;
    let mut failing = false;
    for peer in data.peers(kind) {
        write!(page, "| {} |", if peer == "rtmm" { "**rtmm**" } else { &peer })?;
        for work in works {
            match data.cell(kind, &peer, work) {
                Some(cell) => {
                    let (alloc, free) = (number(cell.figures.alloc.mean), number(cell.figures.free.mean));
                    let star = if cell.failures > 0 { " \\*" } else { "" };
                    failing |= cell.failures > 0;
                    write!(page, " {alloc}/{free} w {}{star} |", number(cell.figures.worst()))?;
                }
                None => page.push_str(" - |"),
            }
        }
        page.push('\n');
    }
    if failing {
        page.push_str("\n\\* Some of its allocations failed.\n");
    }
    page.push('\n');
    Ok(())
}

fn usage(page: &mut String, data: &Data) -> Result<()> {
    page.push_str(
        "## Use of memory\n\n![use of an arena](arena.svg)\n\nAn arena is filled with objects of 8 to 4095 bytes, one of two freed again, until \
         an allocation fails; then objects are replaced 200,000 times. Percent of the arena in the hands of callers: at \
         the first failure / after the churn; then the largest object once all is freed, which of rtmm is a block of 4 MiB \
         at most. Each is watched on the way, as above.\n\n\
         | allocator | 16 MiB | largest | 64 MiB | largest |\n|---|--:|--:|--:|--:|\n",
    );
    let mut peers: Vec<&str> = Vec::new();
    for one in data.of("arena") {
        if let Some(peer) = one["peer"].as_str().filter(|peer| !peers.contains(peer)) {
            peers.push(peer);
        }
    }
    for peer in peers {
        write!(page, "| {} |", if peer == "rtmm" { "**rtmm**" } else { peer })?;
        for mib in [16, 64] {
            let result =
                data.of("arena").find(|one| one["peer"] == peer && one["mib"] == mib).map(|one| &one["result"]);
            let figure = |key: &str| result.and_then(|result| result[key].as_f64());
            match (figure("first"), figure("churned"), figure("largest")) {
                (Some(first), Some(churned), Some(largest)) => {
                    write!(page, " {first:.1} / {churned:.1} | {largest:.1} |")?;
                }
                _ => page.push_str(" failed | |"),
            }
        }
        page.push('\n');
    }
    areas(page, data)?;
    page.push_str(
        "\n![cost against the size of memory](flat-memory.svg)\n\nPages are given lowest first, found through levels of bits. Where the only free page of a stretch \
         comes and goes, what the level above says of the stretch changes with it, up to a level that knows of other free \
         pages: the more memory is in use, the higher that is. Regions past a GiB have one level more.\n\n",
    );
    page.push_str(
        "![cost against the number of live objects](flat-objects.svg)\n\nOf few objects each stands in a slab that is neither full nor empty. \
         Among many that are replaced at random almost every slab is full, so that a free puts one on its list and the \
         next allocation takes it off; more than that it does not become.\n\n",
    );
    Ok(())
}

/// W6, when it was measured.
fn areas(page: &mut String, data: &Data) -> Result<()> {
    if data.of("areas").next().is_none() {
        return Ok(());
    }
    page.push_str(
        "\n![areas without an MMU](areas.svg)\n\nWithout an MMU an area is a run of pages. Areas of 16 KiB to 1 MiB are asked for between bursts \
         of small objects, of which one in 16 stays till the next; from the first refusal on a random area goes for each that is refused. \
         Percent of memory in areas, when the first was refused / from then on (W6, averages of 16 runs). Areas that were said to \
         stay (`AreaLife::Long`) come from the high end; where areas are replaced at random, one end holds more, and that is what \
         `vmalloc` does. Linux rounds areas up to powers of two, of which nothing goes back.\n\n\
         | placed | 16 MiB | 64 MiB |\n|---|--:|--:|\n",
    );
    let rules = [
        ("both-ends", "**exact, areas that stay from the high end**"),
        ("one-end", "**exact, all from the low end**"),
        ("powers-of-two", "powers of two"),
    ];
    for (rule, name) in rules {
        write!(page, "| {name} |")?;
        for mib in [16, 64] {
            let found = data.of("areas").find(|one| one["rule"] == rule && one["mib"] == mib);
            let figure = |key: &str| found.and_then(|one| one["result"][key].as_f64());
            match (figure("first"), figure("held")) {
                (Some(first), Some(held)) => write!(page, " {first:.1} / {held:.1} |")?,
                _ => page.push_str(" failed |"),
            }
        }
        page.push('\n');
    }
    Ok(())
}

fn wall(page: &mut String, data: &Data) -> Result<()> {
    page.push_str(
        "## Time\n\nHow many times as long as rtmm, on the machine that wrote this page: the median of runs in turn, in one process. A \
         coarse figure: the machine is shared.\n\n| allocator | W1 | W3 |\n|---|--:|--:|\n",
    );
    let mut peers: Vec<&str> = Vec::new();
    for one in data.of("wall") {
        if let Some(peer) = one["peer"].as_str().filter(|peer| !peers.contains(peer)) {
            peers.push(peer);
        }
    }
    for peer in peers {
        let ratio = |work: &str| {
            let found = data.of("wall").find(|one| one["peer"] == peer && one["work"] == work);
            found.and_then(|one| one["result"].as_f64()).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
        };
        writeln!(page, "| {peer} | {} | {} |", ratio("W1"), ratio("W3"))?;
    }
    page.push('\n');
    Ok(())
}

fn notes(page: &mut String, data: &Data) -> Result<()> {
    page.push_str("## Notes\n\n");
    let on_host: Vec<String> = data.peers("heap").into_iter().filter(|peer| is_of_host(data, peer)).collect();
    let board = data.cells("heap").into_iter().find(|cell| cell.board != "host").map(|cell| cell.board);
    if let Some(board) = board {
        match &on_host[..] {
            [] => writeln!(page, "- Counted in full on {board}, by its counter.")?,
            but => writeln!(page, "- Counted in full on {board}, by its counter: all but {}.", but.join(" and "))?,
        }
    }
    let fewest = data.cells("heap").iter().filter(|cell| cell.board == "host").map(|cell| cell.figures.calls).min();
    if let (Some(about), Some(fewest)) = (data.of("about").next(), fewest) {
        writeln!(
            page,
            "- {}: counted on this machine, by single steps, which affords few calls ({fewest} at least), so their dearest \
             call is that of a short run.",
            on_host.join(" and ")
        )?;
        writeln!(page, "- rtmm's lock in a process: {}.", about["lock"].as_str().unwrap_or("unknown"))?;
    }
    for absent in data.of("absent") {
        let text = |key: &str| absent[key].as_str().unwrap_or_default();
        writeln!(page, "- {}: {}.", text("peer"), text("why"))?;
    }
    for one in &data.told {
        if let Some(error) = one["error"].as_str() {
            let text = |key: &str| one[key].as_str().unwrap_or_default();
            let error = error.replace(['\n', '|'], " ");
            writeln!(page, "- {} failed {} {}: {error}", text("peer"), text("kind"), text("work"))?;
        }
    }
    Ok(())
}

fn is_of_host(data: &Data, peer: &str) -> bool {
    data.cells("heap").iter().filter(|cell| cell.peer == peer).all(|cell| cell.board == "host")
}
