//! LATENCY: what held a core for longer than the operator wants, by event, second by second.
//!
//! Place in the flow: told at the end of whatever took long (a command, a turn, a log write); pure.
//!
//! Invariants:
//! - An event keeps [`SAMPLES_MAX`] samples, one a second, the longest of that second.
//! - Cores are merged by the second; an event's longest time of all is kept beyond its samples.
//!
//! Deliberately not here: the clock, and the threshold's setting.

use std::collections::VecDeque;
use std::fmt::Write as _;

use eyot_protocol::resp::Writer;

use super::command_name;
use crate::metrics::commands::CommandMetrics;

/// Samples that an event keeps on each core, as many as Redis.
pub const SAMPLES_MAX: usize = 160;
/// Samples that a graph shows, and how high it is: it fits a terminal.
const GRAPH_COLUMNS: usize = 72;
/// See [`GRAPH_COLUMNS`].
const GRAPH_ROWS: u64 = 5;

/// What can take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A command of a client.
    Command,
    /// A write of the log, from its start to its completion.
    LogWrite,
    /// A turn of the core's loop: nobody else was served meanwhile.
    Turn,
    /// The sweep for expired keys.
    Expire,
    /// Making room when memory is short.
    Evict,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Command, Self::LogWrite, Self::Turn, Self::Expire, Self::Evict];

    /// The name in replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::LogWrite => "log-write",
            Self::Turn => "turn",
            Self::Expire => "expire-cycle",
            Self::Evict => "eviction-cycle",
        }
    }

    /// The event of this name, in any case.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name().as_bytes().eq_ignore_ascii_case(name))
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Command => "SLOWLOG GET names the commands. Large values, KEYS, and writes that wait take long.",
            Self::LogWrite => {
                "The disk was slow to confirm a write. Look at its load, or give the log a disk of its own."
            }
            Self::Turn => "A core was busy, or did not get its processor. Look for other programs on it.",
            Self::Expire => "Many keys expired at once. Spread their times, if that can be.",
            Self::Evict => "Memory was short. Raise maxmemory, or store less.",
        }
    }
}

/// The samples of one event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Series {
    /// Seconds since the epoch, and milliseconds; oldest first.
    samples: VecDeque<(i64, u64)>,
    longest_ms: u64,
}

impl Series {
    fn note(&mut self, unix_s: i64, took_ms: u64) {
        self.longest_ms = self.longest_ms.max(took_ms);
        match self.samples.back_mut() {
            // A wall clock that was set back does not make a new second.
            Some((newest_s, longest_ms)) if *newest_s >= unix_s => *longest_ms = took_ms.max(*longest_ms),
            _ => {
                if self.samples.len() == SAMPLES_MAX {
                    self.samples.pop_front();
                }
                self.samples.push_back((unix_s, took_ms));
            }
        }
    }
}

/// The events of one core, or of all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LatencyEvents {
    series: [Series; Event::ALL.len()],
}

impl LatencyEvents {
    /// Notes that `event` took `took_us` if that reaches `threshold_ms`, the setting `latency-monitor-threshold`.
    #[inline]
    pub fn note(&mut self, threshold_ms: u64, event: Event, now_us: i64, took_us: u64) {
        let took_ms = took_us / 1000;
        if threshold_ms > 0 && took_ms >= threshold_ms {
            self.series[event as usize].note(now_us / 1_000_000, took_ms);
        }
    }

    /// Forgets the samples of `events`, or of all; what is forgotten is returned.
    #[must_use]
    pub fn take(&mut self, events: Option<&[Event]>) -> Self {
        let mut taken = Self::default();
        for event in Event::ALL {
            if events.is_none_or(|events| events.contains(&event)) {
                taken.series[event as usize] = std::mem::take(&mut self.series[event as usize]);
            }
        }
        taken
    }

    /// How many events have samples.
    pub fn event_count(&self) -> usize {
        self.with_samples().count()
    }

    /// The events of all cores: of each second the longest.
    pub fn merged<'a>(cores: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for core in cores {
            for (sum, series) in all.series.iter_mut().zip(&core.series) {
                sum.samples.extend(&series.samples);
                sum.longest_ms = sum.longest_ms.max(series.longest_ms);
            }
        }
        for series in &mut all.series {
            let samples = series.samples.make_contiguous();
            samples.sort_unstable();
            let (sorted, longest_ms) = (std::mem::take(&mut series.samples), series.longest_ms);
            for (unix_s, took_ms) in sorted {
                series.note(unix_s, took_ms);
            }
            series.longest_ms = longest_ms;
        }
        all
    }

    fn with_samples(&self) -> impl Iterator<Item = (Event, &Series)> {
        Event::ALL.into_iter().zip(&self.series).filter(|(_, series)| !series.samples.is_empty())
    }

    /// LATENCY LATEST: of each event its newest sample and its longest ever.
    pub fn write_latest(&self, reply: &mut Writer<'_>) {
        reply.array(self.event_count());
        for (event, series) in self.with_samples() {
            let (unix_s, took_ms) = *series.samples.back().expect("an event with samples");
            reply.array(4);
            reply.bulk_text(event.name());
            reply.integer(unix_s);
            reply.integer(took_ms as i64);
            reply.integer(series.longest_ms as i64);
        }
    }

    /// LATENCY HISTORY: the samples of the event of this name; none if there is no such event.
    pub fn write_history(&self, name: &[u8], reply: &mut Writer<'_>) {
        let Some(event) = Event::of_name(name) else { return reply.array(0) };
        let samples = &self.series[event as usize].samples;
        reply.array(samples.len());
        for (unix_s, took_ms) in samples {
            reply.array(2);
            reply.integer(*unix_s);
            reply.integer(*took_ms as i64);
        }
    }

    /// LATENCY GRAPH: the newest samples of the event of this name as columns; `None` if it has no samples.
    pub fn graph(&self, name: &[u8]) -> Option<String> {
        let event = Event::of_name(name)?;
        let series = &self.series[event as usize];
        let shown: Vec<u64> =
            series.samples.iter().rev().take(GRAPH_COLUMNS).rev().map(|(_, took_ms)| *took_ms).collect();
        let (low_ms, high_ms) = (*shown.iter().min()?, *shown.iter().max()?);
        let (name, longest_ms) = (event.name(), series.longest_ms);
        let mut text = format!("{name} - high {high_ms} ms, low {low_ms} ms (all time high {longest_ms} ms)\n");
        for row in (0..GRAPH_ROWS).rev() {
            // A column reaches the lowest row whatever its sample, and the highest one for the longest sample.
            let reaches = |took_ms: &u64| took_ms * GRAPH_ROWS > high_ms * row;
            let columns: String = shown.iter().map(|took_ms| if reaches(took_ms) { '#' } else { ' ' }).collect();
            let _ = writeln!(text, "{}", columns.trim_end());
        }
        Some(text)
    }

    /// LATENCY DOCTOR: the same for people.
    pub fn doctor(&self, threshold_ms: u64) -> String {
        if threshold_ms == 0 {
            return "Nothing is watched: latency-monitor-threshold is 0. CONFIG SET latency-monitor-threshold <ms> \
                    starts it.\n"
                .to_owned();
        }
        let mut text = String::new();
        for (number, (event, series)) in self.with_samples().enumerate() {
            let count = series.samples.len() as u64;
            let average_ms = series.samples.iter().map(|(_, took_ms)| took_ms).sum::<u64>() / count;
            let (number, name, longest_ms) = (number + 1, event.name(), series.longest_ms);
            let _ = writeln!(
                text,
                "{number}. {name}: {count} seconds with spikes (average {average_ms} ms, longest ever {longest_ms} ms). \
                 {}",
                event.advice()
            );
        }
        if text.is_empty() {
            let _ = writeln!(text, "Nothing took {threshold_ms} ms or longer.");
        }
        text
    }
}

/// LATENCY HISTOGRAM: how long commands took, for those of `named` that were called, or for all of them.
pub fn write_histograms(commands: &CommandMetrics, named: Option<&[usize]>, reply: &mut Writer<'_>) {
    let told: Vec<_> = commands
        .used()
        .filter(|(command, _)| named.is_none_or(|named| named.contains(command)))
        .filter_map(|(command, figures)| Some((command, figures.latencies.as_ref()?)))
        .collect();
    reply.map(told.len());
    for (command, latencies) in told {
        let cumulative = latencies.cumulative();
        reply.bulk_text(command_name(command));
        reply.map(2);
        reply.bulk_text("calls");
        reply.integer(latencies.total() as i64);
        reply.bulk_text("histogram_usec");
        reply.map(cumulative.len());
        for (bound_us, count) in cumulative {
            reply.integer(bound_us as i64);
            reply.integer(count as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyot_protocol::resp::RespVersion;

    const SECOND: i64 = 1_000_000;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out, RespVersion::Three));
        String::from_utf8(out).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn a_second_keeps_its_longest_and_short_ones_do_not_count() {
        let mut events = LatencyEvents::default();
        events.note(0, Event::Command, SECOND, 900_000);
        events.note(10, Event::Command, SECOND, 9_999);
        assert_eq!(written(|reply| events.write_latest(reply)), "*0 ");
        events.note(10, Event::Command, 5 * SECOND, 50_000);
        events.note(10, Event::Command, 5 * SECOND + 1, 70_000);
        events.note(10, Event::Command, 6 * SECOND, 20_000);
        assert_eq!(written(|reply| events.write_latest(reply)), "*1 *4 $7 command :6 :20 :70 ");
        assert_eq!(written(|reply| events.write_history(b"COMMAND", reply)), "*2 *2 :5 :70 *2 :6 :20 ");
        assert_eq!(written(|reply| events.write_history(b"turn", reply)), "*0 ");
        assert_eq!(written(|reply| events.write_history(b"nope", reply)), "*0 ");
    }

    #[test]
    fn cores_are_merged_by_the_second_and_what_is_forgotten_is_told() {
        let (mut one, mut two) = (LatencyEvents::default(), LatencyEvents::default());
        one.note(1, Event::Turn, SECOND, 3000);
        one.note(1, Event::Turn, 3 * SECOND, 4000);
        two.note(1, Event::Turn, SECOND, 9000);
        two.note(1, Event::Turn, 2 * SECOND, 2000);
        two.note(1, Event::LogWrite, 2 * SECOND, 2000);
        let mut all = LatencyEvents::merged([&one, &two]);
        assert_eq!(written(|reply| all.write_history(b"turn", reply)), "*3 *2 :1 :9 *2 :2 :2 *2 :3 :4 ");
        assert_eq!(written(|reply| all.write_latest(reply)), "*2 *4 $9 log-write :2 :2 :2 *4 $4 turn :3 :4 :9 ");
        assert_eq!(all.take(Some(&[Event::Command, Event::Turn])).event_count(), 1);
        assert_eq!(all.take(Some(&[])).event_count(), 0);
        assert_eq!(written(|reply| all.write_latest(reply)), "*1 *4 $9 log-write :2 :2 :2 ");
        assert_eq!(all.take(None).event_count(), 1);
        assert_eq!(all, LatencyEvents::default());
    }

    #[test]
    fn samples_are_bounded_and_the_longest_is_kept() {
        let mut events = LatencyEvents::default();
        events.note(1, Event::Evict, 0, 77_000);
        for second in 1..=200 {
            events.note(1, Event::Evict, second * SECOND, 1000);
        }
        assert_eq!(events.series[Event::Evict as usize].samples.len(), SAMPLES_MAX);
        assert_eq!(written(|reply| events.write_latest(reply)), "*1 *4 $14 eviction-cycle :200 :1 :77 ");
        let twice = LatencyEvents::merged([&events, &events]);
        assert_eq!(twice, events);
    }

    #[test]
    fn the_graph_has_a_column_for_each_sample() {
        let mut events = LatencyEvents::default();
        assert_eq!(events.graph(b"turn"), None);
        for (second, took_ms) in [(1, 10), (2, 50), (3, 30)] {
            events.note(1, Event::Turn, second * SECOND, took_ms * 1000);
        }
        let expected = "turn - high 50 ms, low 10 ms (all time high 50 ms)\n #\n #\n ##\n ##\n###\n";
        assert_eq!(events.graph(b"Turn").as_deref(), Some(expected));
        assert_eq!(events.graph(b"nope"), None);
    }

    #[test]
    fn the_doctor_says_what_to_do() {
        let mut events = LatencyEvents::default();
        assert!(events.doctor(0).contains("CONFIG SET latency-monitor-threshold"));
        assert_eq!(events.doctor(5), "Nothing took 5 ms or longer.\n");
        events.note(5, Event::LogWrite, SECOND, 6000);
        events.note(5, Event::LogWrite, 2 * SECOND, 8000);
        let text = events.doctor(5);
        assert!(text.starts_with("1. log-write: 2 seconds with spikes (average 7 ms, longest ever 8 ms). "), "{text}");
    }
}
