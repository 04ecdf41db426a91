//! The rows of figures that stand for the whole.

use crate::one::SELF;
use serde_json::{Value, json};

/// Prints a `BENCH` line for each row whose measurements are there.
pub fn print(told: &[Value]) {
    for (id, key, goal) in [("arena_first", "first", 90), ("arena_churned", "churned", 87)] {
        let of = |peer: &str| {
            let found = find(told, "arena", |one| one["peer"] == peer && one["mib"] == 16)?;
            found[key].as_f64()
        };
        if let Some(value) = of(SELF) {
            row(id, "percent of 16 MiB", value, None, Some(goal.into()), Some("talc"), of("talc"));
        }
    }
    let blocks = |peer: &str| find(told, "page-use", |one| one["peer"] == peer)?["large_after_churn"].as_f64();
    if let Some(value) = blocks(SELF) {
        let peer = "bitmap-allocator";
        row("page_order9", "blocks of 512 pages, of 448", value, None, Some(247.0), Some(peer), blocks(peer));
    }
    let areas =
        |rule: &str, key: &str| find(told, "areas", |one| one["rule"] == rule && one["mib"] == 16)?[key].as_f64();
    let ours = [("areas_first", "both-ends", "first"), ("areas_held", "one-end", "held")];
    for (id, rule, key) in ours {
        if let Some(value) = areas(rule, key) {
            let peer = Some("powers of two, as Linux without an MMU");
            row(id, "percent of 16 MiB in areas", value, None, None, peer, areas("powers-of-two", key));
        }
    }
    if let Some(meta) = find(told, "meta", |_| true) {
        let unit = "bytes per frame, full of objects of 64 bytes; worst: of 8";
        if let (Some(value), worst) = (meta[0].as_f64(), meta[1].as_f64()) {
            row("meta_frame", unit, value, worst, Some(20.0), None, None);
        }
    }
    // From a MiB on: below, there is too little memory for the workload to be the same.
    let memory =
        ["flat-pages", "flat-bytes"].map(|kind| flat(told, kind, |one| (20..=36).contains(&number(&one["log"]))));
    if let [Some(pages), Some(bytes)] = memory {
        let unit = "mean pair at 64 GiB over 1 MiB";
        row("flat_memory", unit, pages.max(bytes), None, Some(1.1), None, None);
    }
    if let Some(value) = flat(told, "flat-objects", |_| true) {
        row("flat_objects", "mean pair at 10^6 live objects over 10", value, None, Some(1.1), None, None);
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The cost at the largest over that at the smallest.
fn flat(told: &[Value], kind: &str, wanted: impl Fn(&Value) -> bool) -> Option<f64> {
    let costs: Vec<f64> = told
        .iter()
        .filter(|one| one["kind"] == kind && wanted(one))
        .filter_map(|one| one["result"]["pair"]["mean"].as_f64())
        .collect();
    Some(costs.last()? / costs.first()?)
}

fn find<'a>(told: &'a [Value], kind: &str, wanted: impl Fn(&Value) -> bool) -> Option<&'a Value> {
    told.iter().find(|one| one["kind"] == kind && wanted(one)).map(|one| &one["result"]).filter(|one| !one.is_null())
}

fn row(
    id: &str,
    unit: &str,
    value: f64,
    worst: Option<f64>,
    goal: Option<f64>,
    peer: Option<&str>,
    peer_value: Option<f64>,
) {
    let round = |value: f64| (value * 100.0).round() / 100.0;
    let (value, worst, peer_value) = (round(value), worst.map(round), peer_value.map(round));
    let row = json!({
        "id": id, "board": "host", "unit": unit, "value": value, "worst": worst, "goal": goal, "peer": peer,
        "peer_value": peer_value,
    });
    println!("BENCH {row}");
}
