//! What a core counts of the commands of the Redis protocol: calls, time, refusals, failures, errors by their prefix.
//!
//! Place in the flow: counted in steps 2 (a request that is refused) and 9 (reply), by the core that the client is
//! connected to; told by INFO, LATENCY HISTOGRAM and `CONFIG RESETSTAT`.
//!
//! Invariants:
//! - Counting a command is two additions. The time of commands is not measured one by one, which would cost more than
//!   most of them take: a turn's time is shared evenly among its commands when the turn ends. What is worth a clock of
//!   its own is told with [`CommandMetrics::took`], and is not shared.
//! - A command's latencies take memory once it was called.
//!
//! Deliberately not here: names of commands (a command is its place in the table of the protocol), and the clock.

/// Eighths of an octave: a latency is off by at most one part in eight.
const STEPS_PER_OCTAVE: usize = 8;
/// Latencies from 2^36 ns (69 s) on count as the longest.
const OCTAVES: usize = 37;
const BUCKETS: usize = (OCTAVES - 2) * STEPS_PER_OCTAVE;
/// The shortest bound of [`Latencies::cumulative`], in nanoseconds; the others are twice the one before.
const FIRST_BOUND_NS: u64 = 1024;

/// The first words of error replies that are counted apart; every other counts as the last.
pub const ERROR_PREFIXES: [&str; 20] = [
    "ERR",
    "WRONGTYPE",
    "OOM",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "NOPROTO",
    "BUSY",
    "READONLY",
    "LOADING",
    "MISCONF",
    "CROSSSLOT",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "NOSCRIPT",
    "EXECABORT",
    "UNKNOWN",
    "OTHER",
];

/// Latencies of one command, in buckets of an eighth of an octave.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
}

impl Latencies {
    fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }

    fn bucket(ns: u64) -> usize {
        let exponent = 63 - ns.max(1).leading_zeros() as usize;
        if exponent < 3 {
            return ns as usize;
        }
        let step = (ns >> (exponent - 3)) as usize & (STEPS_PER_OCTAVE - 1);
        ((exponent - 2) * STEPS_PER_OCTAVE + step).min(BUCKETS - 1)
    }

    /// The longest latency of a bucket, in nanoseconds.
    fn longest(bucket: usize) -> u64 {
        let (octave, step) = (bucket / STEPS_PER_OCTAVE, (bucket % STEPS_PER_OCTAVE) as u64);
        match octave {
            0 => step,
            _ => ((STEPS_PER_OCTAVE as u64 + step + 1) << (octave - 1)) - 1,
        }
    }

    fn record(&mut self, ns: u64, count: u64) {
        self.counts[Self::bucket(ns)] += count;
        self.total += count;
    }

    fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts.iter()).for_each(|(sum, count)| *sum += count);
        self.total += other.total;
    }

    /// How many latencies there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency below or at which the part `quantile` (0 to 1) of all are, in nanoseconds; 0 if there are none.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        let wanted = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Self::longest(bucket);
            }
        }
        0
    }

    /// How many latencies are below each bound in microseconds, for those bounds below which there are more than below
    /// the one before; the last has all. Bounds double from about 1 us.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut pairs = Vec::new();
        let (mut bound_ns, mut seen, mut told) = (FIRST_BOUND_NS, 0, 0);
        for (bucket, count) in self.counts.iter().enumerate() {
            if Self::longest(bucket) >= bound_ns {
                if seen > told {
                    pairs.push((bound_ns / 1000, seen));
                    told = seen;
                }
                bound_ns *= 2;
            }
            seen += count;
        }
        if seen > told {
            pairs.push((bound_ns / 1000, seen));
        }
        pairs
    }
}

/// What is known of one command.
#[derive(Debug, Clone, Default)]
pub struct CommandFigures {
    /// Times that it was executed.
    pub calls: u64,
    /// Nanoseconds that this took.
    pub busy_ns: u64,
    /// Times that it was refused before it was executed: wrong arguments, no memory.
    pub rejected: u64,
    /// Times that it was executed and ended in an error.
    pub failed: u64,
    /// How long it took each time; `None` if it was never executed, or latencies are not kept.
    pub latencies: Option<Latencies>,
}

impl CommandFigures {
    /// Whether there is anything to tell.
    pub fn is_used(&self) -> bool {
        self.calls + self.rejected + self.failed > 0
    }

    fn ran(&mut self, count: u64, each_ns: u64, keep_latencies: bool) {
        self.calls += count;
        self.busy_ns += each_ns * count;
        if keep_latencies {
            self.latencies.get_or_insert_with(Latencies::new).record(each_ns, count);
        }
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.busy_ns += other.busy_ns;
        self.rejected += other.rejected;
        self.failed += other.failed;
        if let Some(latencies) = &other.latencies {
            self.latencies.get_or_insert_with(Latencies::new).add(latencies);
        }
    }
}

/// The figures of all commands on one core, or summed over cores.
#[derive(Debug, Clone, Default)]
pub struct CommandMetrics {
    keep_latencies: bool,
    /// One for each command of the table; grows with the highest that was seen.
    figures: Vec<CommandFigures>,
    /// Commands executed in this turn, and how often, in the order of their first.
    turn: Vec<(u16, u32)>,
    /// Where in `turn` a command is: its place plus one, 0 if it is not there.
    in_turn: Vec<u16>,
    /// Of this turn's time what is known to be single commands'.
    told_ns: u64,
    errors: [u64; ERROR_PREFIXES.len()],
}

impl CommandMetrics {
    /// All at zero, for `commands` commands. Without `keep_latencies`, only counts are kept.
    pub fn new(commands: usize, keep_latencies: bool) -> Self {
        Self {
            keep_latencies,
            figures: vec![CommandFigures::default(); commands],
            turn: Vec::with_capacity(commands),
            in_turn: vec![0; commands],
            told_ns: 0,
            errors: [0; ERROR_PREFIXES.len()],
        }
    }

    /// Counts a command that was executed in this turn.
    #[inline]
    pub fn called(&mut self, command: usize) {
        match self.in_turn[command] {
            0 => {
                self.turn.push((command as u16, 1));
                self.in_turn[command] = self.turn.len() as u16;
            }
            place => self.turn[usize::from(place) - 1].1 += 1,
        }
    }

    /// A command that was alone in its turn.
    #[cfg(test)]
    pub fn called_for(&mut self, command: usize, took_ns: u64) {
        self.called(command);
        self.end_turn(took_ns);
    }

    /// Counts the time that a command took by itself in this turn, in nanoseconds. That it was called is counted apart,
    /// in this turn or an earlier one.
    pub fn took(&mut self, command: usize, took_ns: u64) {
        self.figures[command].busy_ns += took_ns;
        self.told_ns += took_ns;
    }

    /// Counts a command that was refused before it was executed.
    pub fn rejected(&mut self, command: usize) {
        self.figures[command].rejected += 1;
    }

    /// Counts that a command, counted by [`CommandMetrics::called`] as well, ended in an error.
    pub fn failed(&mut self, command: usize) {
        self.figures[command].failed += 1;
    }

    /// Counts an error reply by its first word; `line` begins with it, without the `-`.
    pub fn error(&mut self, line: &[u8]) {
        let prefix = line.split(|&byte| byte == b' ' || byte == b'\r').next().unwrap_or_default();
        let known = ERROR_PREFIXES.iter().position(|known| known.as_bytes() == prefix);
        self.errors[known.unwrap_or(ERROR_PREFIXES.len() - 1)] += 1;
    }

    /// Whether [`CommandMetrics::end_turn`] has anything to do.
    #[inline]
    pub fn has_turn_counts(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Shares the turn's time evenly among its commands, but for what single ones took by themselves.
    pub fn end_turn(&mut self, turn_ns: u64) {
        let turn_ns = turn_ns.saturating_sub(std::mem::take(&mut self.told_ns));
        let commands: u64 = self.turn.iter().map(|&(_, count)| u64::from(count)).sum();
        let each_ns = turn_ns / commands.max(1);
        for (command, count) in self.turn.drain(..) {
            self.in_turn[usize::from(command)] = 0;
            self.figures[usize::from(command)].ran(u64::from(count), each_ns, self.keep_latencies);
        }
    }

    /// Adds what another core counted.
    pub fn add(&mut self, other: &Self) {
        if self.figures.len() < other.figures.len() {
            self.figures.resize(other.figures.len(), CommandFigures::default());
            self.in_turn.resize(other.figures.len(), 0);
        }
        self.figures.iter_mut().zip(&other.figures).for_each(|(sum, figures)| sum.add(figures));
        self.errors.iter_mut().zip(other.errors).for_each(|(sum, count)| *sum += count);
    }

    /// Sets everything to zero.
    pub fn reset(&mut self) {
        *self = Self::new(self.figures.len(), self.keep_latencies);
    }

    /// The commands that were called or refused, by their places in the table.
    pub fn used(&self) -> impl Iterator<Item = (usize, &CommandFigures)> {
        self.figures.iter().enumerate().filter(|(_, figures)| figures.is_used())
    }

    /// The figures of one command.
    pub fn get(&self, command: usize) -> Option<&CommandFigures> {
        self.figures.get(command)
    }

    /// Commands that were executed.
    pub fn calls(&self) -> u64 {
        self.figures.iter().map(|figures| figures.calls).sum::<u64>()
            + self.turn.iter().map(|&(_, count)| u64::from(count)).sum::<u64>()
    }

    /// The first words of error replies that were sent, and how often.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        ERROR_PREFIXES.into_iter().zip(self.errors).filter(|&(_, count)| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_shared_evenly_and_what_was_measured_is_not() {
        let mut metrics = CommandMetrics::new(4, true);
        (0..3).for_each(|_| metrics.called(2));
        metrics.called(0);
        assert!(metrics.has_turn_counts());
        assert_eq!(metrics.calls(), 4);
        metrics.took(0, 5000);
        metrics.end_turn(13_000);
        assert!(!metrics.has_turn_counts());
        let figures: Vec<_> = metrics.used().map(|(place, of)| (place, of.calls, of.busy_ns)).collect();
        assert_eq!(figures, [(0, 1, 7000), (2, 3, 6000)]);
        assert_eq!(metrics.calls(), 4);
        metrics.called(2);
        metrics.end_turn(0);
        assert_eq!(metrics.get(2).unwrap().calls, 4);
    }

    #[test]
    fn cores_are_added_and_a_reset_leaves_nothing() {
        let (mut one, mut two) = (CommandMetrics::new(2, true), CommandMetrics::new(2, true));
        one.called_for(1, 1000);
        two.called_for(1, 3000);
        two.failed(1);
        two.rejected(0);
        two.error(b"WRONGTYPE Operation");
        two.error(b"ERR\r\n");
        two.error(b"Strange thing");
        let mut sum = CommandMetrics::default();
        sum.add(&one);
        sum.add(&two);
        let figures = sum.get(1).unwrap();
        assert_eq!((figures.calls, figures.busy_ns, figures.failed), (2, 4000, 1));
        assert_eq!(figures.latencies.as_ref().unwrap().total(), 2);
        assert_eq!(sum.get(0).unwrap().rejected, 1);
        assert_eq!(sum.errors().collect::<Vec<_>>(), [("ERR", 1), ("WRONGTYPE", 1), ("OTHER", 1)]);
        sum.reset();
        assert_eq!((sum.used().count(), sum.errors().count()), (0, 0));
    }

    #[test]
    fn every_latency_is_in_the_bucket_that_says_so() {
        let mut below = 0;
        for bucket in 0..BUCKETS {
            let longest = Latencies::longest(bucket);
            assert_eq!(Latencies::bucket(longest), bucket);
            assert_eq!(Latencies::bucket(below), bucket, "{below}");
            below = longest + 1;
        }
        assert_eq!(Latencies::bucket(u64::MAX), BUCKETS - 1);
        assert!(below > 60_000_000_000, "{below}");
    }

    #[test]
    fn quantiles_and_cumulative_counts() {
        let mut latencies = Latencies::new();
        assert_eq!((latencies.quantile_ns(0.5), latencies.cumulative()), (0, vec![]));
        latencies.record(500, 90);
        latencies.record(3000, 9);
        latencies.record(1_000_000, 1);
        let close = |found: u64, wanted: u64| assert!((wanted..=wanted + wanted / 8).contains(&found), "{found}");
        close(latencies.quantile_ns(0.5), 500);
        close(latencies.quantile_ns(0.99), 3000);
        close(latencies.quantile_ns(0.999), 1_000_000);
        assert_eq!(latencies.cumulative(), [(1, 90), (4, 99), (1048, 100)]);
    }
}
