//! What the run says at its end: text for people, JSON for scripts, and the exit code.
//!
//! Place in the flow: made once, from the sum of all threads' measurements and the CPU times around them. Units stand
//! at the end of the JSON names; every rate is over the time from the phase's start to its last answer.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::args::Args;
use crate::error::{LoadError, EXIT_CONNECTION_LOST, EXIT_OK, EXIT_SERVER_ERRORS, EXIT_VERIFICATION};
use crate::machine::Machine;
use crate::measure::Measurement;
use crate::open_loop::backlog_bound;
use crate::run::MEASURING;
use crate::server_process::Usage;

const NS_PER_US: f64 = 1000.0;

/// What was seen in one phase.
#[derive(Debug)]
pub struct Window {
    /// By the load threads.
    pub measurement: Measurement,
    /// What the server's process used in it, with `--server-pid`; `None` also where it ended meanwhile.
    pub server: Option<Usage>,
    /// What the load generator's own process used in it.
    pub generator: Option<Usage>,
}

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name and version of this program.
    pub generator: String,
    /// All arguments, defaults included.
    pub arguments: Args,
    /// The machine that the load generator ran on.
    pub machine: Machine,
    /// The phase that the figures are of: `measuring`, unless the run ended before it.
    pub phase: &'static str,
    /// Whether a signal ended the run.
    pub interrupted: bool,
    /// Requests that were answered, errors included.
    pub requests: u64,
    /// Requests that were answered without an error.
    pub succeeded: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// These by their code.
    pub errors_by_code: BTreeMap<String, u64>,
    /// First messages of errors.
    pub error_examples: Vec<String>,
    /// From the phase's start to its last answer.
    pub elapsed_s: f64,
    /// Requests answered without an error, a second.
    pub rate_per_s: f64,
    /// Bytes of requests, a second.
    pub sent_bytes_per_s: f64,
    /// Bytes of replies, a second.
    pub received_bytes_per_s: f64,
    /// Reads that found no value.
    pub missing_reads: u64,
    /// Writes that followed them, with `--on-miss set`.
    pub fills: u64,
    /// The share of reads that found a value; `None`: there were none.
    pub hit_rate: Option<f64>,
    /// Latencies of reads; `None`: there were none.
    pub get: Option<Latencies>,
    /// Latencies of writes; `None`: there were none.
    pub set: Option<Latencies>,
    /// With `--rate`.
    pub open_loop: Option<OpenLoopFigures>,
    /// With `--foreign-share`: requests sent to another core than their key's.
    pub foreign_requests: u64,
    /// With `--verify`.
    pub verification: Option<Verification>,
    /// With `--server-pid`.
    pub server: Option<ProcessFigures>,
    /// This process.
    pub generator_process: Option<ProcessFigures>,
    /// What ended the run early.
    pub troubles: Vec<String>,
}

/// Latencies of one operation, in microseconds.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)] // The names say it all.
pub struct Latencies {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub p99_99_us: f64,
    pub max_us: f64,
}

impl Latencies {
    fn new(latencies_ns: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| latencies_ns.value_at_quantile(quantile) as f64 / NS_PER_US;
        (!latencies_ns.is_empty()).then(|| Self {
            count: latencies_ns.len(),
            mean_us: latencies_ns.mean() / NS_PER_US,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: latencies_ns.max() as f64 / NS_PER_US,
        })
    }
}

/// How well the schedule was kept.
#[derive(Debug, Clone, Serialize)]
pub struct OpenLoopFigures {
    /// Requests due a second.
    pub offered_rate_per_s: f64,
    /// Whether the backlog stayed within its bound. Where not, latencies only say how long the run was.
    pub offered_load_reached: bool,
    /// Most requests that were due and not sent, at any time.
    pub max_backlog_requests: u64,
    /// What that must not exceed.
    pub backlog_bound_requests: u64,
    /// Requests that were due and never sent.
    pub unsent_requests: u64,
    /// How much later than due requests were sent: part of every latency. Without a backlog it is the generator's own.
    pub send_lateness: Option<Latencies>,
}

/// What `--verify` found.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// Reads that were checked and in order.
    pub verified_reads: u64,
    /// Reads of keys that this run had not written before.
    pub unverified_reads: u64,
    /// Writes that became reads because all keys tried had a write outstanding.
    pub deferred_sets: u64,
    /// Reads that returned what they must not.
    pub violations: u64,
    /// The first of them.
    pub violation_examples: Vec<String>,
}

/// What a process used in the measured window.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)] // The names say it all.
pub struct ProcessFigures {
    pub cpu_us_per_operation: f64,
    pub user_cpu_us_per_operation: f64,
    pub system_cpu_us_per_operation: f64,
    pub cpu_s: f64,
    /// CPU time by elapsed time: 1 is one busy core.
    pub busy_cores: f64,
    pub voluntary_context_switches: u64,
    pub involuntary_context_switches: u64,
}

impl ProcessFigures {
    fn new(usage: &Usage, operations: u64, elapsed_s: f64) -> Self {
        let per_operation = |seconds: f64| seconds * 1e6 / (operations.max(1) as f64);
        Self {
            cpu_us_per_operation: per_operation(usage.cpu_s()),
            user_cpu_us_per_operation: per_operation(usage.user_s),
            system_cpu_us_per_operation: per_operation(usage.system_s),
            cpu_s: usage.cpu_s(),
            busy_cores: if elapsed_s > 0.0 { usage.cpu_s() / elapsed_s } else { 0.0 },
            voluntary_context_switches: usage.voluntary_switches,
            involuntary_context_switches: usage.involuntary_switches,
        }
    }
}

impl Report {
    /// The report of a run that ended with phase `phase`.
    pub fn new(args: &Args, phase: &'static str, window: Window) -> Self {
        let Window { measurement, server, generator } = window;
        let elapsed_s = measurement.elapsed.as_secs_f64();
        let per_second = |count: u64| if elapsed_s > 0.0 { count as f64 / elapsed_s } else { 0.0 };
        let requests = measurement.succeeded() + measurement.error_count();
        let figures = |usage: Usage| ProcessFigures::new(&usage, requests, elapsed_s);
        Self {
            generator: concat!("eyot-loadgen ", env!("CARGO_PKG_VERSION")).to_owned(),
            arguments: args.clone(),
            machine: Machine::facts(),
            phase,
            // A thread in trouble stops the others by the same flag as a signal.
            interrupted: measurement.interrupted && measurement.troubles.is_empty(),
            requests,
            succeeded: measurement.succeeded(),
            errors: measurement.error_count(),
            elapsed_s,
            rate_per_s: per_second(measurement.succeeded()),
            sent_bytes_per_s: per_second(measurement.sent_bytes),
            received_bytes_per_s: per_second(measurement.received_bytes),
            missing_reads: measurement.missing,
            fills: measurement.fills,
            hit_rate: match measurement.get_ns.len() {
                0 => None,
                reads => Some(1.0 - measurement.missing as f64 / reads as f64),
            },
            get: Latencies::new(&measurement.get_ns),
            set: Latencies::new(&measurement.set_ns),
            open_loop: args.rate.map(|rate| open_loop_figures(args, rate, &measurement)),
            foreign_requests: measurement.foreign,
            verification: args.verify.then(|| Verification {
                verified_reads: measurement.verified,
                unverified_reads: measurement.unverified,
                deferred_sets: measurement.deferred_sets,
                violations: measurement.violations,
                violation_examples: measurement.violation_examples.clone(),
            }),
            server: server.map(figures),
            generator_process: generator.map(figures),
            troubles: measurement.troubles.iter().map(ToString::to_string).collect(),
            errors_by_code: measurement.errors,
            error_examples: measurement.error_examples,
        }
    }

    /// Adds what went wrong in the phases before, which decides the exit code like what went wrong in this one.
    pub fn add_findings(&mut self, before: &Measurement) {
        self.errors += before.error_count();
        self.requests += before.error_count();
        for (code, count) in &before.errors {
            *self.errors_by_code.entry(code.clone()).or_default() += count;
        }
        self.error_examples.extend(before.error_examples.iter().cloned());
        if let Some(verification) = &mut self.verification {
            verification.violations += before.violations;
            verification.violation_examples.extend(before.violation_examples.iter().cloned());
        }
        self.troubles.extend(before.troubles.iter().map(ToString::to_string));
    }

    /// What the process ends with: the gravest of what happened.
    pub fn exit_code(&self) -> u8 {
        if self.verification.as_ref().is_some_and(|verification| verification.violations > 0) {
            EXIT_VERIFICATION
        } else if !self.troubles.is_empty() {
            EXIT_CONNECTION_LOST
        } else if self.errors > 0 {
            EXIT_SERVER_ERRORS
        } else {
            EXIT_OK
        }
    }

    /// Writes the JSON.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn write_json(&self, path: &Path) -> Result<(), LoadError> {
        let mut json = serde_json::to_string_pretty(self).expect("maps with string keys and finite numbers");
        json.push('\n');
        std::fs::write(path, json).map_err(|error| LoadError::Output { path: path.display().to_string(), error })
    }

    /// The text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.put_text(&mut text).expect("writing to a string cannot fail");
        text
    }

    fn put_text(&self, out: &mut String) -> std::fmt::Result {
        self.put_configuration(out)?;
        if self.phase != MEASURING {
            writeln!(out, "ended early        while {}: the figures are of that", self.phase)?;
        } else if self.interrupted {
            writeln!(out, "ended early        by a signal")?;
        }
        writeln!(
            out,
            "requests           {} answered in {:.3} s, {} errors",
            self.requests, self.elapsed_s, self.errors
        )?;
        writeln!(out, "rate               {:.0} operations/s", self.rate_per_s)?;
        writeln!(
            out,
            "bytes              {:.0} sent/s, {:.0} received/s",
            self.sent_bytes_per_s, self.received_bytes_per_s
        )?;
        if self.missing_reads > 0 {
            let hit_percent = self.hit_rate.unwrap_or(0.0) * 100.0;
            writeln!(out, "missing            {} reads found no value: {hit_percent:.3} % hits", self.missing_reads)?;
        }
        if self.foreign_requests > 0 {
            writeln!(out, "foreign            {} requests on another core than their key's", self.foreign_requests)?;
        }
        self.put_latencies(out)?;
        self.put_open_loop(out)?;
        for (name, figures) in [("server CPU", &self.server), ("generator CPU", &self.generator_process)] {
            if let Some(figures) = figures {
                put_process(out, name, figures)?;
            }
        }
        if self.arguments.server_pid.is_some() && self.server.is_none() {
            writeln!(out, "server CPU         unknown: the process has ended")?;
        }
        self.put_findings(out)
    }

    fn put_configuration(&self, out: &mut String) -> std::fmt::Result {
        let args = &self.arguments;
        writeln!(out, "{}", self.generator)?;
        let protocol = format!("{:?}", args.protocol).to_lowercase();
        writeln!(out, "server             {} ({protocol})", args.address)?;
        let pace = args.rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("open loop, {rate} due/s"));
        writeln!(
            out,
            "load               {pace}; {} clients, pipeline {}, {} threads, warm-up {:?}",
            args.clients, args.pipeline, args.threads, args.warmup
        )?;
        writeln!(
            out,
            "requests           sets:gets {}:{}, values of {} bytes, {} keys \"{}...\", {}, seed {}",
            args.ratio.sets, args.ratio.gets, args.value_size, args.keys, args.key_prefix, args.distribution, args.seed
        )?;
        let Machine { cpu_model, cpu_count, kernel } = &self.machine;
        writeln!(out, "machine            {cpu_model}, {cpu_count} CPUs, Linux {kernel}\n")
    }

    fn put_latencies(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\nlatency (us) {:>12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        )?;
        let lateness = self.open_loop.as_ref().and_then(|open_loop| open_loop.send_lateness.as_ref());
        for (name, latencies) in [("GET", self.get.as_ref()), ("SET", self.set.as_ref()), ("send lateness", lateness)] {
            let Some(l) = latencies else { continue };
            writeln!(
                out,
                "{name:<13}{:>12} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>10.1}",
                l.count, l.mean_us, l.p50_us, l.p90_us, l.p99_us, l.p99_9_us, l.p99_99_us, l.max_us
            )?;
        }
        writeln!(out)
    }

    fn put_open_loop(&self, out: &mut String) -> std::fmt::Result {
        let Some(open_loop) = &self.open_loop else { return Ok(()) };
        writeln!(
            out,
            "backlog            at most {} requests due and not sent, {} never sent",
            open_loop.max_backlog_requests, open_loop.unsent_requests
        )?;
        if !open_loop.offered_load_reached {
            writeln!(
                out,
                "OFFERED LOAD NOT REACHED: the backlog exceeded {} requests; the latencies only say how long the run was",
                open_loop.backlog_bound_requests
            )?;
        }
        Ok(())
    }

    fn put_findings(&self, out: &mut String) -> std::fmt::Result {
        for (code, count) in &self.errors_by_code {
            writeln!(out, "error              {count} times {code}")?;
        }
        for example in &self.error_examples {
            writeln!(out, "                   {example}")?;
        }
        if let Some(found) = &self.verification {
            writeln!(
                out,
                "verified           {} reads, {} of keys not written before, {} violations",
                found.verified_reads, found.unverified_reads, found.violations
            )?;
            for example in &found.violation_examples {
                writeln!(out, "VIOLATION          {example}")?;
            }
        }
        for trouble in &self.troubles {
            writeln!(out, "TROUBLE            {trouble}")?;
        }
        Ok(())
    }
}

fn open_loop_figures(args: &Args, rate: f64, measurement: &Measurement) -> OpenLoopFigures {
    let bound = backlog_bound(rate, args.clients as usize * args.pipeline as usize);
    OpenLoopFigures {
        offered_rate_per_s: rate,
        offered_load_reached: measurement.max_backlog <= bound,
        max_backlog_requests: measurement.max_backlog,
        backlog_bound_requests: bound,
        unsent_requests: measurement.unsent,
        send_lateness: Latencies::new(&measurement.lateness_ns),
    }
}

fn put_process(out: &mut String, name: &str, figures: &ProcessFigures) -> std::fmt::Result {
    writeln!(
        out,
        "{name:<19}{:.3} us/operation ({:.3} user, {:.3} system), {:.2} cores busy, {} + {} context switches",
        figures.cpu_us_per_operation,
        figures.user_cpu_us_per_operation,
        figures.system_cpu_us_per_operation,
        figures.busy_cores,
        figures.voluntary_context_switches,
        figures.involuntary_context_switches
    )
}
