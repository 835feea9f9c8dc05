//! BENCHMARK: how fast this server answers this machine, SET first, then GET.
//!
//! Place in the flow: a command like any other; it uses the session's client and its connections.
//!
//! A closed loop: [`CONCURRENCY`] tasks each send the next request when the last was answered. So a stall of the server
//! slows the load down with it, and waiting in a queue is not counted; `eyot-loadgen --rate` counts it.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eyot_client::{BatchOperation, Client, Error, SetOptions, Value};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::commands::BenchmarkPlan;

/// Requests in flight.
const CONCURRENCY: u64 = 50;
/// Keys that are used, at most.
const KEYS_MAX: u64 = 100_000;
/// Keys that one request deletes afterwards.
const KEYS_PER_CLEANUP: usize = 1_000;
/// Longest latency that is told apart (one day, the longest timeout), to three digits.
const LATENCY_US_MAX: u64 = 24 * 3_600 * 1_000_000;
const LATENCY_DIGITS: u8 = 3;
/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What was measured.
pub struct Report {
    value_bytes: usize,
    phases: Vec<Phase>,
}

struct Phase {
    name: &'static str,
    elapsed: Duration,
    latency_us: Histogram<u64>,
}

impl Phase {
    fn rate(&self) -> f64 {
        self.latency_us.len() as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    fn percentiles_us(&self) -> [(&'static str, u64); 3] {
        [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)]
            .map(|(name, rank)| (name, self.latency_us.value_at_percentile(rank)))
    }
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let lines = self.phases.iter().map(|phase| {
            let percentiles = phase.percentiles_us().map(|(name, us)| format!("{name} {:.3} ms", us as f64 / 1_000.0));
            format!("{}: {:.0} operations/s, {}", phase.name, phase.rate(), percentiles.join(", "))
        });
        let head = format!("{CONCURRENCY} requests at a time, values of {} bytes", self.value_bytes);
        [head].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
    }

    /// For scripts. Latencies are in microseconds.
    pub fn json(&self) -> serde_json::Value {
        let phases = self.phases.iter().map(|phase| {
            let [p50, p99, p999] = phase.percentiles_us().map(|(_, us)| us);
            let figures = serde_json::json!({
                "operations": phase.latency_us.len(),
                "ops_per_sec": phase.rate(),
                "p50_us": p50,
                "p99_us": p99,
                "p99_9_us": p999,
            });
            (phase.name.to_ascii_lowercase(), figures)
        });
        let mut report: serde_json::Map<String, serde_json::Value> = phases.collect();
        report.insert("concurrency".to_owned(), CONCURRENCY.into());
        report.insert("value_bytes".to_owned(), self.value_bytes.into());
        report.into()
    }
}

/// Measures. The first error ends it: figures with errors in them say nothing.
pub async fn run(client: &Client, plan: &BenchmarkPlan, with_progress: bool) -> Result<Report, Error> {
    let mut value = Vec::new();
    Value::String("x".repeat(plan.value_bytes)).encode(&mut value);
    let value = Arc::new(value);
    let mut phases = Vec::new();
    for name in ["SET", "GET"] {
        let bar = progress_bar(name, plan.operations, with_progress);
        let measured = measure(client, plan, name, &value, &bar).await;
        bar.finish_and_clear();
        match measured {
            Ok(phase) => phases.push(phase),
            Err(error) => {
                // The first error is the one to tell; keys may be left where the server cannot be reached.
                let _ = clean_up(client, plan).await;
                return Err(error);
            }
        }
    }
    clean_up(client, plan).await?;
    Ok(Report { value_bytes: plan.value_bytes, phases })
}

async fn measure(
    client: &Client,
    plan: &BenchmarkPlan,
    name: &'static str,
    value: &Arc<Vec<u8>>,
    bar: &ProgressBar,
) -> Result<Phase, Error> {
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..CONCURRENCY.min(plan.operations) {
        let (client, plan, value, next) = (client.clone(), plan.clone(), Arc::clone(value), Arc::clone(&next));
        let value = (name == "SET").then_some(value);
        workers.spawn(async move { work(&client, &plan, value.as_ref().map(|value| &value[..]), &next).await });
    }
    let mut latency_us = new_histogram();
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            joined = workers.join_next() => match joined {
                None => break,
                Some(worker) => {
                    let measured = worker.expect("a worker neither panics nor is cancelled")?;
                    latency_us.add(measured).expect("the same bounds");
                }
            },
            _ = ticks.tick() => bar.set_position(next.load(Ordering::Relaxed).min(plan.operations)),
        }
    }
    Ok(Phase { name, elapsed: started.elapsed(), latency_us })
}

/// Sends requests until all are sent: SETs of `value`, or GETs.
async fn work(
    client: &Client,
    plan: &BenchmarkPlan,
    value: Option<&[u8]>,
    next: &AtomicU64,
) -> Result<Histogram<u64>, Error> {
    let mut latency_us = new_histogram();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.operations {
            return Ok(latency_us);
        }
        let key = key_of(plan, number % KEYS_MAX);
        let started = Instant::now();
        match value {
            Some(value) => {
                client.set_raw(&key, value, SetOptions::default()).await?;
            }
            None => {
                client.get_raw(&key).await?;
            }
        }
        let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        latency_us.saturating_record(elapsed_us.max(1));
    }
}

fn key_of(plan: &BenchmarkPlan, number: u64) -> Vec<u8> {
    let mut key = plan.prefix.clone();
    key.extend_from_slice(format!(":{number}").as_bytes());
    key
}

async fn clean_up(client: &Client, plan: &BenchmarkPlan) -> Result<(), Error> {
    let numbers: Vec<u64> = (0..plan.operations.min(KEYS_MAX)).collect();
    for part in numbers.chunks(KEYS_PER_CLEANUP) {
        let deletes = part.iter().map(|number| BatchOperation::delete(key_of(plan, *number)));
        for result in client.batch(deletes.collect()).await {
            result?;
        }
    }
    Ok(())
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).expect("bounds that hdrhistogram takes")
}

/// A bar on standard error, where that is a terminal.
fn progress_bar(name: &'static str, operations: u64, wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} [{bar:40}] {pos}/{len} {per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(operations).with_prefix(name).with_style(style)
}
