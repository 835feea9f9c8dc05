//! What it costs to judge correct histories of 4,000 operations by 16 clients, and broken ones.
//!
//! Run it with `cargo bench -p eyot-checker --bench checkers`. The project's goal is 50 ms for each correct history.
//!
//! What is measured is the check alone, not making or reading the history. `one key` is the hardest form of a mix: all
//! operations meet. A broken history is judged and explained, with its shortest prefix.

use std::hint::black_box;

use criterion::Criterion;
use eyot_checker::generate::{
    generate, generate_transactions, plant, plant_transaction, Anomaly, Mix, TransactionAnomaly, TransactionWorkload,
    Workload,
};
use eyot_checker::history::History;
use eyot_checker::linear::{check, check_by_search, Limits, Verdict};
use eyot_checker::transactions::{check as check_transactions, Guarantee};

const SEED: u64 = 1;

const MIXES: [(&str, Mix); 5] = [
    ("registers", Mix::Registers),
    ("conditions", Mix::Conditions),
    ("counters", Mix::Counters),
    ("lists", Mix::Lists),
    ("everything", Mix::Everything),
];

fn correct(keys: u64, mix: Mix) -> History {
    generate(&Workload { keys, mix, ..Workload::default() }, SEED).history
}

fn correct_histories(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("correct, 4000 operations, 16 clients");
    group.sample_size(20);
    for (name, mix) in MIXES {
        for keys in [1, 8] {
            let history = correct(keys, mix);
            let id = |by: &str| format!("{name}, {keys} keys, {by}");
            if mix == Mix::Registers {
                group.bench_function(id("zones"), |bencher| {
                    bencher.iter(|| assert_eq!(check(black_box(&history), Limits::default()).keys_by_search, 0));
                });
            }
            group.bench_function(id("search"), |bencher| {
                let fine = Verdict::Linearizable;
                bencher.iter(|| assert_eq!(check_by_search(black_box(&history), Limits::default()), fine));
            });
        }
    }
    let history = generate_transactions(&TransactionWorkload::default(), SEED);
    group.bench_function("transactions, cycles", |bencher| {
        bencher.iter(|| assert!(check_transactions(black_box(&history), Guarantee::StrictSerializable).is_fine()));
    });
    group.finish();
}

fn broken_histories(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("broken, 4000 operations, 16 clients");
    group.sample_size(10);
    for anomaly in [Anomaly::StaleRead, Anomaly::LostIncrement, Anomaly::DoubleSwap, Anomaly::LostAppend] {
        let history = plant(anomaly, &Workload::default(), SEED).expect("a long history has a place for it");
        group.bench_function(format!("{anomaly:?}"), |bencher| {
            let violated = Verdict::Violated;
            bencher.iter(|| assert_eq!(check(black_box(&history), Limits::default()).verdict(), violated));
        });
    }
    for anomaly in [TransactionAnomaly::WriteSkew, TransactionAnomaly::LostAppend] {
        let history = plant_transaction(anomaly, &TransactionWorkload::default(), SEED);
        let history = history.expect("a long history has a place for it");
        group.bench_function(format!("transactions, {anomaly:?}"), |bencher| {
            bencher.iter(|| assert!(!check_transactions(black_box(&history), Guarantee::StrictSerializable).is_fine()));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    correct_histories(&mut criterion);
    broken_histories(&mut criterion);
    criterion.final_summary();
}
