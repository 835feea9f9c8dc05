//! Many worlds, one after another or on some threads, until one goes wrong.
//!
//! Place in the flow: what the command line and the tests call. A world is one thread; threads share nothing but the
//! number of the next seed and the sums.
//!
//! A broken assertion counts as a violation like any other. Where panics unwind it is caught; where they end the
//! process (release builds) a hook prints the seed first, and the command ends with the same exit code. What ends a
//! process without a word, `supervisor.rs` sees.

use std::cell::Cell;
use std::io::{stderr, Write as _};
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::counts::{grouped, Count, Counts};
use crate::truth::{Check, Violation};
use crate::{run, Options, Plan, Report};

/// What came of many worlds.
#[derive(Debug)]
pub struct Outcome {
    /// The sums of all worlds that ended.
    pub counts: Counts,
    /// The lowest seed that went wrong, as far as it was looked for, and how.
    pub found: Option<(u64, Violation)>,
    /// A hash over the hashes of all worlds, whatever their order.
    pub hash: u64,
}

/// Runs a world, and takes a broken assertion for the violation that it is.
pub fn run_caught(plan: Plan, options: Options) -> Report {
    let caught = catch_unwind(AssertUnwindSafe(|| run(plan, options)));
    caught.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = what.unwrap_or_else(|| "something without words".to_owned());
        let violation = Violation { check: Check::Panicked, what, at: 0 };
        Report { hash: 0, counts: Counts::new(), violation: Some(violation), lines: Vec::new() }
    })
}

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on a panic prints its world's seed, and how to see it again; with `exit_code` it ends the process so.
pub fn print_seeds_of_panics(exit_code: Option<i32>) {
    let before = take_hook();
    set_hook(Box::new(move |panic| {
        if let Some(seed) = SEED.get() {
            // A panic in here would end the process before anything is printed.
            let _ = writeln!(stderr(), "seed {seed}: a broken assertion; see it again with: replay --seed {seed}");
        }
        before(panic);
        if let Some(code) = exit_code {
            std::process::exit(code);
        }
    }));
}

/// Names the world that this thread runs, for [`print_seeds_of_panics`].
pub fn note_seed(seed: u64) {
    SEED.set(Some(seed));
}

/// What a campaign tells while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// The world of this seed begins.
    Begins(u64),
    /// It has ended.
    Ended(u64),
    /// About once a second: the sums so far, and the time it took.
    Sums(&'a Counts, Duration),
}

/// One number for the hashes of many worlds, in their order: FNV-1a, 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// The next world's hash.
    pub fn add(&mut self, hash: u64) {
        for byte in hash.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Runs the worlds of the seeds `from .. from + count` on some threads, until one goes wrong.
pub fn campaign(from: u64, count: u64, threads: usize, options: Options, tell: impl Fn(Notice<'_>) + Sync) -> Outcome {
    let next = AtomicU64::new(from);
    let is_over = AtomicBool::new(false);
    let outcome = Mutex::new(Outcome { counts: Counts::new(), found: None, hash: 0 });
    let began = Instant::now();
    let last_progress = Mutex::new(began);
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= from.saturating_add(count) || is_over.load(Ordering::Relaxed) {
            return;
        }
        note_seed(seed);
        tell(Notice::Begins(seed));
        let report = run_caught(Plan::of_seed(seed), options);
        tell(Notice::Ended(seed));
        let mut outcome = outcome.lock().expect("nobody panics with it");
        outcome.counts += &report.counts;
        outcome.hash = outcome.hash.wrapping_add(report.hash ^ seed);
        if let Some(violation) = report.violation {
            is_over.store(true, Ordering::Relaxed);
            if outcome.found.as_ref().is_none_or(|(other, _)| seed < *other) {
                outcome.found = Some((seed, violation));
            }
        }
        let mut last = last_progress.lock().expect("nobody panics with it");
        if last.elapsed() >= Duration::from_secs(1) {
            *last = Instant::now();
            tell(Notice::Sums(&outcome.counts, began.elapsed()));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    outcome.into_inner().expect("nobody panics with it")
}

/// One line about a campaign under way.
pub fn progress_line(counts: &Counts, elapsed: Duration) -> String {
    let steps = counts.of(Count::Steps);
    let rate = steps as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "{} worlds, {} steps, {} steps a second, {} elections, {} reads checked",
        grouped(counts.of(Count::Worlds)),
        grouped(steps),
        grouped(rate as u64),
        grouped(counts.of(Count::Elections)),
        grouped(counts.of(Count::ReadsChecked) + counts.of(Count::LeaseReadsChecked)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_fnv_and_knows_the_order() {
        let digest = |hashes: &[u64]| {
            let mut digest = Digest::default();
            hashes.iter().for_each(|hash| digest.add(*hash));
            digest.0
        };
        // By another program that gives the published 85944171f73967e8 for "foobar".
        assert_eq!(digest(&[u64::from_le_bytes(*b"eyot sim")]), 0x3fb5_13f1_cd3e_e3ef);
        assert_ne!(digest(&[1, 2]), digest(&[2, 1]));
    }

    #[test]
    fn every_world_of_a_campaign_is_announced_before_it_runs() {
        let told = Mutex::new(Vec::new());
        campaign(7, 5, 2, Options::default(), |notice| match notice {
            Notice::Begins(seed) => told.lock().unwrap().push((seed, false)),
            Notice::Ended(seed) => told.lock().unwrap().push((seed, true)),
            Notice::Sums(..) => {}
        });
        let told = told.into_inner().unwrap();
        for seed in 7..12 {
            let of_seed: Vec<bool> = told.iter().filter(|(other, _)| *other == seed).map(|(_, ended)| *ended).collect();
            assert_eq!(of_seed, [false, true], "seed {seed}");
        }
    }
}
