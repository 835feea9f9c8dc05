//! Judges recorded histories, and shows what the checkers cost on this machine.
//!
//! ```text
//! cargo run --release -p eyot-checker --example check -- FILE ...   judges each file; exit 1 if one is not fine
//! cargo run --release -p eyot-checker --example check               4,000 operations by 16 clients: time to judge them
//! ```
//!
//! A file is in the form of `docs/CHECKER.md`. With no file, each history is generated from a seed and judged ten
//! times; the time is the best of the ten, and the anomalies are planted one by one.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use eyot_checker::generate::{
    generate, generate_transactions, plant, plant_transaction, Anomaly, Mix, TransactionAnomaly, TransactionWorkload,
    Workload,
};
use eyot_checker::linear::{check, check_by_search, Limits, Verdict};
use eyot_checker::lines::{decode_history, decode_transactions, LineProblem, LinesError};
use eyot_checker::transactions::{check as check_transactions, Guarantee};

/// What the project wants a correct history to take at most.
const GOAL: Duration = Duration::from_millis(50);

const SEED: u64 = 1;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.iter().any(|file| file == "--help" || file == "-h") {
        println!("usage: check [FILE ...]     judges histories; without a file, measures the checkers");
        return ExitCode::SUCCESS;
    }
    if files.is_empty() {
        return measure();
    }
    let fine: Vec<bool> = files.iter().map(|file| judge(file)).collect();
    ExitCode::from(u8::from(fine.contains(&false)))
}

/// Judges a file and prints what was found. Whether it is fine.
fn judge(file: &str) -> bool {
    let lines = match std::fs::read(file) {
        Ok(lines) => lines,
        Err(error) => {
            println!("{file}: {error}");
            return false;
        }
    };
    match decode_history(&lines) {
        Ok(history) => {
            let report = check(&history, Limits::default());
            print!("{file}: {report}");
            report.verdict() == Verdict::Linearizable
        }
        // It may hold the other kind.
        Err(LinesError::Line { problem: LineProblem::Header { .. }, .. }) => match decode_transactions(&lines) {
            Ok(history) => {
                let report = check_transactions(&history, Guarantee::StrictSerializable);
                print!("{file}: {report}");
                report.is_fine()
            }
            Err(error) => {
                println!("{file}: {error}");
                false
            }
        },
        Err(error) => {
            println!("{file}: {error}");
            false
        }
    }
}

/// The shortest of ten runs.
fn best_of_ten(mut run: impl FnMut() -> bool) -> (Duration, bool) {
    let mut best = Duration::MAX;
    let mut fine = true;
    for _ in 0..10 {
        let started = Instant::now();
        fine &= run();
        best = best.min(started.elapsed());
    }
    (best, fine)
}

fn row(name: &str, (time, fine): (Duration, bool)) -> bool {
    let met = if fine && time <= GOAL { "met" } else { "MISSED" };
    println!(
        "{name:<36} {:>9.3} ms   {:<8} goal of 50 ms: {met}",
        time.as_secs_f64() * 1e3,
        if fine { "passed" } else { "FAILED" }
    );
    fine && time <= GOAL
}

fn measure() -> ExitCode {
    println!("correct histories of 4,000 operations by 16 clients, seed {SEED}, best of ten");
    let mixes = [Mix::Registers, Mix::Conditions, Mix::Counters, Mix::Lists, Mix::Everything];
    let mut all = true;
    for mix in mixes {
        for keys in [1, 8] {
            let history = generate(&Workload { keys, mix, ..Workload::default() }, SEED).history;
            let fine = Verdict::Linearizable;
            if mix == Mix::Registers {
                let by_zones = best_of_ten(|| check(&history, Limits::default()).verdict() == fine);
                all &= row(&format!("{mix:?}, {keys} keys, by zones"), by_zones);
            }
            let by_search = best_of_ten(|| check_by_search(&history, Limits::default()) == fine);
            all &= row(&format!("{mix:?}, {keys} keys, by search"), by_search);
        }
    }
    let history = generate_transactions(&TransactionWorkload::default(), SEED);
    let strict = Guarantee::StrictSerializable;
    all &= row("4,000 transactions, by cycles", best_of_ten(|| check_transactions(&history, strict).is_fine()));
    all &= planted();
    ExitCode::from(u8::from(!all))
}

/// Plants every anomaly into histories of the same size.
fn planted() -> bool {
    const SEEDS: u64 = 20;
    let mut all = true;
    println!("planted anomalies, {SEEDS} histories each: found");
    for anomaly in Anomaly::ALL {
        let workload = Workload { failed_permille: 20, ..Workload::default() };
        let histories: Vec<_> = (0..SEEDS).filter_map(|seed| plant(anomaly, &workload, seed)).collect();
        let violated = |limits| move |history: &_| check(history, limits).verdict() == Verdict::Violated;
        let found = histories.iter().filter(|history| violated(Limits::default())(history)).count();
        let by_search = |history: &&_| check_by_search(history, Limits::default()) == Verdict::Violated;
        let by_search = histories.iter().filter(by_search).count();
        println!("  {:<22} {found} of {}, by search alone {by_search}", format!("{anomaly:?}"), histories.len());
        all &= found == histories.len() && by_search == histories.len() && !histories.is_empty();
    }
    for anomaly in TransactionAnomaly::ALL {
        let workload = TransactionWorkload { keys: 64, ..TransactionWorkload::default() };
        let histories: Vec<_> = (0..SEEDS).filter_map(|seed| plant_transaction(anomaly, &workload, seed)).collect();
        let reports: Vec<_> =
            histories.iter().map(|history| check_transactions(history, Guarantee::StrictSerializable)).collect();
        let found = reports.iter().filter(|report| !report.is_fine()).count();
        let exact = reports.iter().filter(|report| report.has(anomaly.kind())).count();
        let name = format!("{anomaly:?}");
        println!("  {name:<22} {found} of {}, as {} {exact}", histories.len(), anomaly.kind());
        all &= found == histories.len() && !histories.is_empty();
    }
    all
}
