//! SLOWLOG: the commands that took longer than the operator wants, each core's own and merged when somebody asks.
//!
//! Place in the flow: told by step 9 of a slow command; pure.
//!
//! Invariants:
//! - A log holds at most as many entries as the operator allows, and [`SLOWLOG_LEN_MAX`]; the oldest go first.
//! - An entry takes at most [`ARGUMENTS_MAX`] arguments of [`ARGUMENT_BYTES_MAX`] bytes, and says how much it left out,
//!   in the words of Redis.
//! - Ids grow on each core, and no two cores have the same one.
//!
//! Deliberately not here: what counts as a command's time; the caller measures it.

use std::collections::VecDeque;

use eyot_protocol::resp::Writer;

/// Entries that one core keeps at most, whatever the setting: with the longest arguments they take some 45 MB.
pub const SLOWLOG_LEN_MAX: u64 = 10_000;
/// Arguments of an entry, the last of which may say how many more there were.
pub const ARGUMENTS_MAX: usize = 32;
/// Bytes of an argument that are kept.
pub const ARGUMENT_BYTES_MAX: usize = 128;

/// One slow command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowEntry {
    /// Grows with time, on one core.
    pub id: u64,
    /// When it ended, in seconds since the epoch.
    pub unix_s: i64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// Its name and arguments, shortened.
    pub arguments: Vec<Vec<u8>>,
    /// The client's address.
    pub client: String,
    /// The client's name, empty if it has none.
    pub name: Vec<u8>,
}

/// The slow log of one core.
#[derive(Debug, Clone)]
pub struct SlowLog {
    entries: VecDeque<SlowEntry>,
    next_id: u64,
    step: u64,
}

/// Whether a command that took `took_us` is slow for the setting `slowlog-log-slower-than`.
#[inline]
pub fn is_slow(threshold_us: i64, took_us: u64) -> bool {
    u64::try_from(threshold_us).is_ok_and(|threshold_us| took_us >= threshold_us)
}

impl SlowLog {
    /// An empty log for `core` of `cores`.
    pub fn new(core: u16, cores: u16) -> Self {
        Self { entries: VecDeque::new(), next_id: u64::from(core), step: u64::from(cores.max(1)) }
    }

    /// Notes a command that [`is_slow`], with its arguments [`shortened`]. `len_max` is the setting `slowlog-max-len`.
    pub fn note(
        &mut self,
        len_max: u64,
        now_us: i64,
        took_us: u64,
        arguments: Vec<Vec<u8>>,
        (client, name): (String, Vec<u8>),
    ) {
        let id = self.next_id;
        self.next_id += self.step;
        let entry = SlowEntry { id, unix_s: now_us / 1_000_000, took_us, arguments, client, name };
        self.entries.push_front(entry);
        self.entries.truncate(len_max.min(SLOWLOG_LEN_MAX) as usize);
    }

    /// The newest entries, at most `count` of them, newest first.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.entries.iter().take(count).cloned().collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets all entries; ids go on.
    pub fn reset(&mut self) {
        self.entries.clear();
    }
}

/// The arguments as an entry keeps them.
pub fn shortened<'a>(arguments: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let total = arguments.len();
    let kept = if total > ARGUMENTS_MAX { ARGUMENTS_MAX - 1 } else { total };
    let mut short: Vec<Vec<u8>> = arguments.take(kept).map(shortened_argument).collect();
    if kept < total {
        short.push(format!("... ({} more arguments)", total - kept).into_bytes());
    }
    short
}

fn shortened_argument(argument: &[u8]) -> Vec<u8> {
    let Some(left_out) = argument.len().checked_sub(ARGUMENT_BYTES_MAX).filter(|&left_out| left_out > 0) else {
        return argument.to_vec();
    };
    let mut short = argument[..ARGUMENT_BYTES_MAX].to_vec();
    short.extend_from_slice(format!("... ({left_out} more bytes)").as_bytes());
    short
}

/// The newest entries of all cores, at most `count` of them, newest first.
pub fn merged(cores: impl IntoIterator<Item = Vec<SlowEntry>>, count: usize) -> Vec<SlowEntry> {
    let mut entries: Vec<SlowEntry> = cores.into_iter().flatten().collect();
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.unix_s, entry.id)));
    entries.truncate(count);
    entries
}

/// How many entries a client gets that asked for `count`, or for all, of the `len_max` that a node keeps.
pub fn wanted(count: Option<u64>, len_max: u64) -> usize {
    count.unwrap_or(u64::MAX).min(len_max).min(SLOWLOG_LEN_MAX) as usize
}

/// The reply of SLOWLOG GET.
pub fn write_entries(entries: &[SlowEntry], reply: &mut Writer<'_>) {
    reply.array(entries.len());
    for entry in entries {
        reply.array(6);
        reply.integer(entry.id as i64);
        reply.integer(entry.unix_s);
        reply.integer(entry.took_us as i64);
        reply.array(entry.arguments.len());
        entry.arguments.iter().for_each(|argument| reply.bulk(argument));
        reply.bulk_text(&entry.client);
        reply.bulk(&entry.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyot_protocol::resp::RespVersion;

    fn note(log: &mut SlowLog, len_max: u64, now_us: i64, arguments: &[&[u8]]) {
        let arguments = shortened(arguments.iter().copied());
        log.note(len_max, now_us, 21, arguments, ("127.0.0.1:36596".to_owned(), b"me".to_vec()));
    }

    #[test]
    fn thresholds() {
        assert!(is_slow(0, 0) && is_slow(10, 10) && is_slow(10, 11));
        assert!(!is_slow(10, 9) && !is_slow(-1, u64::MAX));
    }

    #[test]
    fn the_oldest_goes_first_and_ids_of_cores_differ() {
        let (mut one, mut two) = (SlowLog::new(0, 2), SlowLog::new(1, 2));
        for second in 1..=4 {
            note(&mut one, 2, second * 1_000_000, &[b"GET", b"a"]);
        }
        note(&mut two, 2, 3_500_000, &[b"SET"]);
        assert_eq!((one.len(), two.len()), (2, 1));
        let entries = merged([one.newest(9), two.newest(9)], 9);
        let order: Vec<_> = entries.iter().map(|entry| (entry.id, entry.unix_s)).collect();
        assert_eq!(order, [(6, 4), (4, 3), (1, 3)]);
        assert_eq!(merged([one.newest(1), two.newest(1)], 1)[0].id, 6);
        one.reset();
        assert!(one.is_empty());
        note(&mut one, 2, 9, &[]);
        assert_eq!(one.newest(1)[0].id, 8);
        note(&mut one, 0, 9, &[]);
        assert!(one.is_empty());
    }

    #[test]
    fn long_commands_are_shortened_and_say_so() {
        let mut log = SlowLog::new(0, 1);
        let long = vec![b'x'; 130];
        let mut arguments: Vec<&[u8]> = vec![b"MSET", &long];
        arguments.resize(ARGUMENTS_MAX, b"v");
        note(&mut log, 8, 0, &arguments);
        assert_eq!(log.newest(1)[0].arguments.len(), 32);
        assert_eq!(log.newest(1)[0].arguments[1], [&long[..128], b"... (2 more bytes)"].concat());
        arguments.push(b"v");
        note(&mut log, 8, 0, &arguments);
        let kept = &log.newest(1)[0].arguments;
        assert_eq!((kept.len(), &kept[31][..]), (32, &b"... (2 more arguments)"[..]));
    }

    #[test]
    fn counts_that_clients_ask_for() {
        assert_eq!([wanted(Some(10), 5), wanted(Some(3), 128), wanted(None, 128)], [5, 3, 128]);
        assert_eq!(wanted(None, u64::MAX), SLOWLOG_LEN_MAX as usize);
    }

    #[test]
    fn the_reply_is_that_of_redis() {
        let mut log = SlowLog::new(0, 1);
        note(&mut log, 8, 1_795_262_301_500_000, &[b"SET", b"a", b"b"]);
        let mut out = Vec::new();
        write_entries(&log.newest(5), &mut Writer::new(&mut out, RespVersion::Two));
        let expected = "*1\r\n*6\r\n:0\r\n:1795262301\r\n:21\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n\
                        $15\r\n127.0.0.1:36596\r\n$2\r\nme\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
