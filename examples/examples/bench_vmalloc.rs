//! Counts the instructions of the vmalloc rows alone: for a board under QEMU's `-icount`.
#![no_std]
#![no_main]

use rtmm_examples::board::{self, ExitCode, say};
use rtmm_examples::measure::{self, Calibration};
use rtmm_examples::vmalloc_rows;

/// Pairs of a row at most.
const PAIRS: usize = 1001;
/// Pairs that go before.
const WARM_UP: usize = 8;

board::entry!(main);

fn main() {
    let Some(calibration) = Calibration::measure() else {
        say!("{} counts no instructions: run it on a board", board::NAME);
        board::exit(ExitCode::Pass)
    };
    let mut empty = [0; 101];
    for sample in &mut empty {
        *sample = measure::ticks(|| ()) as u32;
    }
    let empty = measure::median_and_worst(&mut empty).0;
    let done = vmalloc_rows::each(&mut |id, pairs, pair| {
        for _ in 0..WARM_UP {
            pair()?;
        }
        let mut samples = [0; PAIRS];
        let samples = &mut samples[..pairs.min(PAIRS)];
        for sample in samples.iter_mut() {
            let mut done = None;
            *sample = measure::ticks(|| done = pair()) as u32;
            done?;
        }
        let (median, worst) = measure::median_and_worst(samples);
        let instructions = |ticks: u32| calibration.instructions(ticks.saturating_sub(empty).into());
        let (value, worst) = (instructions(median), instructions(worst));
        say!(
            r#"BENCH {{"id":"{}","board":"{}","unit":"instructions per pair","value":{},"worst":{},"goal":null,"peer":null,"peer_value":null}}"#,
            id,
            board::NAME,
            value,
            worst
        );
        Some(())
    });
    if done.is_none() {
        say!("FAILED: a call was refused");
        board::exit(ExitCode::Fail);
    }
    board::exit(ExitCode::Pass);
}
