//! The line that shows, once a second, that the load runs.
//!
//! Place in the flow: the coordinating thread draws it on standard error while the load threads work.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::measure::latencies_ns;

/// How long the line waits for the reports of all threads, which come once a second, until it is drawn without them.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The line, and what came since it was drawn last.
pub struct ProgressLine {
    phase: &'static str,
    started: Instant,
    drawn: Instant,
    latencies_ns: Histogram<u64>,
    /// Of each thread, since the phase's start.
    errors: Vec<u64>,
    /// Reports since the line was drawn last.
    reports: usize,
    visible: bool,
}

impl ProgressLine {
    /// Whether anybody would see it.
    pub fn is_wanted(quiet: bool) -> bool {
        !quiet && std::io::stderr().is_terminal()
    }

    /// A line for a phase of `threads` threads.
    pub fn new(phase: &'static str, threads: usize, visible: bool) -> Self {
        let now = Instant::now();
        Self {
            phase,
            started: now,
            drawn: now,
            latencies_ns: latencies_ns(),
            errors: vec![0; threads],
            reports: 0,
            visible,
        }
    }

    /// What a thread saw since its last report, and its errors in all.
    pub fn add(&mut self, thread: usize, latencies_ns: &Histogram<u64>, errors: u64) {
        self.latencies_ns.add(latencies_ns).expect("histograms of the same bounds");
        self.errors[thread] = errors;
        self.reports += 1;
    }

    /// Draws the line if all threads have reported since the last time, or one has kept it waiting for too long.
    pub fn draw_if_due(&mut self) {
        let elapsed = self.drawn.elapsed();
        if self.reports < self.errors.len() && elapsed < PATIENCE {
            return;
        }
        self.reports = 0;
        if self.visible {
            // A terminal that went away is no reason to end a measurement.
            let _: std::io::Result<()> = write!(std::io::stderr(), "\r\x1b[K{}", self.text(elapsed));
        }
        self.drawn = Instant::now();
        self.latencies_ns.reset();
    }

    fn text(&self, elapsed: Duration) -> String {
        let micros = |quantile| self.latencies_ns.value_at_quantile(quantile) as f64 / 1000.0;
        format!(
            "{} {:.0} s: {:.0} operations/s, p50 {:.1} us, p99 {:.1} us, {} errors",
            self.phase,
            self.started.elapsed().as_secs_f64(),
            self.latencies_ns.len() as f64 / elapsed.as_secs_f64(),
            micros(0.5),
            micros(0.99),
            self.errors.iter().sum::<u64>(),
        )
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.visible {
            let _: std::io::Result<()> = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_rate_percentiles_and_errors() {
        let mut line = ProgressLine::new("measuring", 2, false);
        let mut latencies_ns = latencies_ns();
        for _ in 0..1000 {
            latencies_ns.record(50_000).unwrap();
        }
        line.add(0, &latencies_ns, 2);
        line.add(1, &latencies_ns, 1);
        let text = line.text(Duration::from_secs(2));
        assert!(text.starts_with("measuring 0 s: 1000 operations/s, p50 50.0 us, p99 50.0 us, 3 errors"), "{text}");
    }
}
