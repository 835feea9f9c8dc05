//! Finds the log again after a start: reads it, tells a torn tail from damage, and says where it goes on.
//!
//! Place in the flow: before step 1; what it hands out goes through apply (step 8), as a running core's entries do.
//!
//! A core reads, start by start, the segments of every log that then held a shard which it hosts now. With an unchanged
//! number of cores that is its own log, once, from front to back.
//!
//! Torn tail or damage? The first batch that is not whole (sequence s) is where a segment ends. It is damage if
//! - a segment follows whose header says that this one went further (it was begun after all of this one was on disk),
//!   or
//! - any later block holds a batch header that knows s to be durable.
//!
//! Otherwise nothing shows that s was ever acknowledged: it is the write that the crash interrupted, and is cut off.
//! Where the last batch of a log was acknowledged and then decayed, both look alike; a log that was closed in order has
//! a last batch without records for that.
//!
//! Invariants: nothing is changed by reading; what is believed is durable; the same files always give the same result.
//!
//! Deliberately not here: repair. A log with damage is refused whole, before any of it is served.

mod error;
mod reader;
mod survey;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use eyot_raft_glue::{EntryKind, EntryPosition, ShardId};

pub use error::{Proof, RecoveryError};
use reader::{SegmentReader, Source};
use survey::{LogSurvey, Segment};

use super::format::{take_record, BatchHeader, BatchPlace, BLOCK_BYTES, SEGMENT_HEADER_BYTES};
use super::{placement, LogIdentity, LogStart, Record, SegmentEnd, SegmentError, SegmentRequest, Sequence};
use crate::disk::Disk;

/// Why a shard does not take an entry.
pub type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// Whose entries are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryScope {
    /// The node's random number, from the data directory's identity.
    pub node_id: u128,
    /// The core that recovers.
    pub core: u16,
    /// How many cores this start has.
    pub core_count: u16,
    /// How many shards the database has.
    pub shard_count: u16,
    /// The number of this start, from [`next_epoch`].
    pub epoch: u64,
}

/// The end of a log that was being written when the process or the machine stopped. Nothing in it was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: PathBuf,
    /// Where the log ends now, in bytes from the start of the file; 0 if the segment's first write was torn.
    pub offset: u64,
    /// How many bytes of the interrupted writes had reached the file behind it.
    pub bytes: u64,
    /// The number of the first batch that was dropped.
    pub sequence: Sequence,
}

/// What recovery found for one core.
#[derive(Debug)]
pub struct Recovered {
    /// Where the core's log goes on.
    pub start: LogStart,
    /// A segment that was prepared and never used: open it with [`super::segment::open_spare`], after
    /// [`Self::clean_up`], and give it to the writer.
    pub spare: Option<SegmentRequest>,
    /// Entries handed out.
    pub records: u64,
    /// Batches read.
    pub batches: u64,
    /// Bytes of batches read.
    pub bytes: u64,
    /// What was cut off: at most one per log, and its first writes to a new segment.
    pub torn_tails: Vec<TornTail>,
    /// The newest entry of every shard of the core, by shard; position 0 for a shard without entries.
    pub positions: Vec<(ShardId, EntryPosition)>,
    leftovers: Vec<PathBuf>,
}

impl Recovered {
    /// Removes the files that an interrupted start or write left behind and that hold nothing. Blocks. Only when every
    /// core has recovered; needed before the core creates a segment.
    pub fn clean_up<D: Disk>(&self, disk: &D) -> Result<(), SegmentError> {
        super::segment::remove(disk, &self.leftovers)
    }
}

/// The number of this start: one more than the highest in any segment's header. Call it once, before the cores start.
/// Blocks for a read per segment.
pub fn next_epoch<D: Disk>(disk: &D, wal_directory: &Path, node_id: u128) -> Result<u64, RecoveryError> {
    let logs = survey::survey(disk, wal_directory, node_id)?;
    let highest = logs.iter().flat_map(|log| &log.segments).map(|segment| segment.header.epoch).max();
    Ok(1 + highest.unwrap_or(0))
}

/// Reads every entry of the shards that `scope.core` hosts now and hands them to `each`, per shard in the order of
/// their indexes. Blocks for as long as that takes. No core may write before every core's call has succeeded.
///
/// # Panics
/// When the scope contradicts itself or its epoch is not new: both are bugs of the caller.
pub fn recover<D: Disk>(
    disk: &D,
    wal_directory: &Path,
    scope: RecoveryScope,
    each: &mut dyn FnMut(Record<'_>) -> Result<(), Refusal>,
) -> Result<Recovered, RecoveryError> {
    assert!(scope.core < scope.core_count && scope.shard_count > 0 && scope.epoch > 0, "{scope:?}");
    let logs = survey::survey(disk, wal_directory, scope.node_id)?;
    let mut recovery = Recovery::new(disk, scope, each);
    let mut readings: Vec<Reading<'_>> = logs.iter().flat_map(|log| recovery.readings(log)).collect();
    readings.sort_by_key(Reading::order);
    for reading in &readings {
        recovery.read_segment(reading)?;
    }
    for log in &logs {
        if recovery.is_responsible_for(log.log_id) {
            recovery.finish_log(log)?;
        }
    }
    Ok(recovery.into_result())
}

/// One segment to read.
struct Reading<'a> {
    log_id: u16,
    segment: &'a Segment,
    next: Option<&'a Segment>,
}

impl Reading<'_> {
    /// Starts in their order; within one, a shard's entries are all in one log.
    fn order(&self) -> (u64, u16, u64) {
        (self.segment.header.epoch, self.log_id, self.segment.header.number)
    }
}

/// What this core does with the records of a shard, in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The shard is this core's.
    Taken,
    /// The shard is another core's now.
    Skipped,
    /// The shard was not placed in this log when the segment was written.
    Misplaced,
}

struct Recovery<'a, D> {
    disk: &'a D,
    scope: RecoveryScope,
    each: &'a mut dyn FnMut(Record<'_>) -> Result<(), Refusal>,
    /// The newest entry handed out, by shard number.
    newest: Vec<EntryPosition>,
    /// Where the logs end whose last segment was read: the log, the end, the sequence that is expected there.
    ends: Vec<(u16, SegmentEnd, Sequence)>,
    result: Recovered,
}

impl<'a, D: Disk> Recovery<'a, D> {
    fn new(disk: &'a D, scope: RecoveryScope, each: &'a mut dyn FnMut(Record<'_>) -> Result<(), Refusal>) -> Self {
        let result = Recovered {
            start: LogStart::of_empty_log(scope.epoch, scope.core_count),
            spare: None,
            records: 0,
            batches: 0,
            bytes: 0,
            torn_tails: Vec::new(),
            positions: Vec::new(),
            leftovers: Vec::new(),
        };
        let newest = vec![EntryPosition::default(); usize::from(scope.shard_count)];
        Self { disk, scope, each, newest, ends: Vec::new(), result }
    }

    fn into_result(self) -> Recovered {
        let RecoveryScope { core, core_count, shard_count, .. } = self.scope;
        let mut result = self.result;
        result.positions = (0..shard_count)
            .map(ShardId)
            .filter(|shard| placement(*shard, shard_count, core_count) == core)
            .map(|shard| (shard, self.newest[usize::from(shard.0)]))
            .collect();
        result
    }

    /// Each log has one core that looks at its end: its own, or one of the others if its core is gone.
    fn is_responsible_for(&self, log_id: u16) -> bool {
        log_id % self.scope.core_count == self.scope.core
    }

    fn readings<'b>(&self, log: &'b LogSurvey) -> Vec<Reading<'b>> {
        let mut readings = Vec::new();
        for (position, segment) in log.segments.iter().enumerate() {
            assert!(segment.header.epoch < self.scope.epoch, "epoch {} is not new", self.scope.epoch);
            let next = log.segments.get(position + 1);
            let is_wanted = self.roles(log.log_id, segment.header.core_count).contains(&Role::Taken);
            if is_wanted || (next.is_none() && self.is_responsible_for(log.log_id)) {
                readings.push(Reading { log_id: log.log_id, segment, next });
            }
        }
        readings
    }

    fn roles(&self, log_id: u16, core_count_then: u16) -> Vec<Role> {
        let RecoveryScope { core, core_count, shard_count, .. } = self.scope;
        let role = |shard| {
            if placement(ShardId(shard), shard_count, core_count_then) != log_id {
                Role::Misplaced
            } else if placement(ShardId(shard), shard_count, core_count) == core {
                Role::Taken
            } else {
                Role::Skipped
            }
        };
        (0..shard_count).map(role).collect()
    }

    /// Reads a segment to its end: the one that the next header names, or the first batch that is not whole.
    fn read_segment(&mut self, reading: &Reading<'_>) -> Result<(), RecoveryError> {
        let header = &reading.segment.header;
        let roles = self.roles(reading.log_id, header.core_count);
        let source = if reading.next.is_some() { Source::Cache } else { Source::Disk };
        let mut reader = SegmentReader::open(self.disk, &reading.segment.path, source)?;
        let sealed = reading.next.and_then(|next| next.header.previous_end).map(|end| end.end_offset);
        let end = sealed.unwrap_or(reader.length());
        let mut place =
            BatchPlace { identity: header.identity, segment: header.number, offset: SEGMENT_HEADER_BYTES as u64 };
        let mut expected = header.first_sequence;
        while place.offset < end {
            let Some((batch_header, batch)) = reader.batch(&place, expected, end)? else {
                break;
            };
            let file = &reading.segment.path;
            self.take_batch(&batch_header, &batch[super::format::BATCH_HEADER_BYTES..], &roles, (file, place.offset))?;
            place.offset += batch_header.padded_bytes() as u64;
            expected = expected.next();
        }
        match reading.next {
            Some(next) => check_sealed_end(reading, next, place.offset, expected),
            None => {
                self.cut_tail(&mut reader, place, expected)?;
                let end = SegmentEnd { number: header.number, end_offset: place.offset };
                self.ends.push((reading.log_id, end, expected));
                Ok(())
            }
        }
    }

    /// Hands out the records of a batch that is whole. `at`: its file and offset, for errors.
    fn take_batch(
        &mut self,
        header: &BatchHeader,
        padded_records: &[u8],
        roles: &[Role],
        at: (&Path, u64),
    ) -> Result<(), RecoveryError> {
        let invalid = |problem| RecoveryError::InvalidRecord { file: at.0.to_owned(), offset: at.1, problem };
        let mut records = &padded_records[..header.byte_length - super::format::BATCH_HEADER_BYTES];
        for _ in 0..header.record_count {
            let raw = take_record(&mut records).map_err(invalid)?;
            let kind =
                EntryKind::from_number(raw.kind_number).ok_or_else(|| invalid("it has an unknown kind of entry"))?;
            let record = Record { shard: raw.shard, position: raw.position, kind, payload: raw.payload };
            match roles.get(usize::from(raw.shard.0)) {
                Some(Role::Taken) => self.take_record(record, at)?,
                Some(Role::Skipped) => {}
                Some(Role::Misplaced) => return Err(invalid("it has an entry of a shard of another log")),
                None => return Err(invalid("it has an entry of a shard that does not exist")),
            }
        }
        if !records.is_empty() {
            return Err(invalid("it has more bytes than its records take"));
        }
        self.result.batches += 1;
        self.result.bytes += header.padded_bytes() as u64;
        Ok(())
    }

    /// Hands out one record, if it continues its shard's log.
    #[inline]
    fn take_record(&mut self, record: Record<'_>, (file, offset): (&Path, u64)) -> Result<(), RecoveryError> {
        let (shard, index) = (record.shard.0, record.position.index.0);
        let newest = &mut self.newest[usize::from(shard)];
        let expected = newest.index.0 + 1;
        if index != expected {
            return Err(RecoveryError::IndexGap { file: file.to_owned(), offset, shard, found: index, expected });
        }
        let (found, before) = (record.position.term.0, newest.term.0);
        if found < before {
            return Err(RecoveryError::TermDecreased { file: file.to_owned(), offset, shard, index, found, before });
        }
        *newest = record.position;
        self.result.records += 1;
        (self.each)(record).map_err(|source| RecoveryError::Refused {
            file: file.to_owned(),
            offset,
            shard,
            index,
            source,
        })
    }

    /// Looks behind the last whole batch of a log's last segment.
    fn cut_tail(
        &mut self,
        reader: &mut SegmentReader<'_, D>,
        end: BatchPlace,
        expected: Sequence,
    ) -> Result<(), RecoveryError> {
        let cut = (reader.path().to_owned(), end.offset, expected);
        if let Some(used_end) = search_behind(reader, end, &cut)? {
            let (file, offset, sequence) = cut;
            self.result.torn_tails.push(TornTail { file, offset, bytes: used_end - offset, sequence });
        }
        Ok(())
    }

    /// Looks at the files behind a log's last segment, and says where this core's own log goes on.
    fn finish_log(&mut self, log: &LogSurvey) -> Result<(), RecoveryError> {
        let identity = LogIdentity { node_id: self.scope.node_id, log_id: log.log_id };
        let end = self.ends.iter().find(|(log_id, ..)| *log_id == log.log_id).copied();
        let expected = end.map_or(Sequence(1), |(.., expected)| expected);
        let next_number = log.last_number() + 1;
        let is_own = log.log_id == self.scope.core;
        for (number, path) in &log.headless {
            let mut reader = SegmentReader::open(self.disk, path, Source::Disk)?;
            let start = BatchPlace { identity, segment: *number, offset: 0 };
            let cut = (path.clone(), 0, expected);
            let used_end = search_behind(&mut reader, start, &cut)?;
            let bytes = reader.length();
            if let Some(used_end) = used_end {
                let torn = TornTail { file: path.clone(), offset: 0, bytes: used_end, sequence: expected };
                self.result.torn_tails.push(torn);
            }
            let is_whole = bytes > SEGMENT_HEADER_BYTES as u64 && bytes.is_multiple_of(BLOCK_BYTES as u64);
            if is_own && used_end.is_none() && is_whole && *number == next_number {
                self.result.spare = Some(SegmentRequest { number: *number, bytes });
            } else {
                self.result.leftovers.push(path.clone());
            }
        }
        self.result.leftovers.extend(log.temporaries.iter().cloned());
        if is_own {
            self.result.start.next_segment = next_number;
            self.result.start.next_sequence = expected;
            self.result.start.previous_end = end.map(|(_, end, _)| end);
        }
        Ok(())
    }
}

/// The end of a segment that another one follows must be where that one's header says.
fn check_sealed_end(
    reading: &Reading<'_>,
    next: &Segment,
    offset: u64,
    expected: Sequence,
) -> Result<(), RecoveryError> {
    let sealed = next.header.previous_end.map_or(0, |end| end.end_offset);
    if offset < sealed {
        let proof = Proof::NextSegment { file: next.path.clone() };
        return Err(RecoveryError::Damaged { file: reading.segment.path.clone(), offset, expected, proof });
    }
    if expected != next.header.first_sequence {
        let problem = "does not begin with the batch that follows the segment before it";
        return Err(RecoveryError::Contradiction { file: next.path.clone(), problem });
    }
    Ok(())
}

/// Goes through every block from `from` to the end of the file. A batch header that knows the batch `cut` (file,
/// offset, sequence) to be durable makes it damage; otherwise returns where the last byte stands that is not zero, if
/// there is one.
fn search_behind<D: Disk>(
    reader: &mut SegmentReader<'_, D>,
    from: BatchPlace,
    cut: &(PathBuf, u64, Sequence),
) -> Result<Option<u64>, RecoveryError> {
    let mut used_end = None;
    let mut place = from;
    while place.offset < reader.length() {
        let (header, used) = reader.trace(&place)?;
        if used > 0 {
            used_end = Some(place.offset + used as u64);
        }
        if let Some(header) = header.filter(|header| header.durable_sequence >= cut.2) {
            let file = reader.path().to_owned();
            let proof = Proof::LaterBatch { file, offset: place.offset, sequence: header.sequence };
            return Err(RecoveryError::Damaged { file: cut.0.clone(), offset: cut.1, expected: cut.2, proof });
        }
        place.offset += BLOCK_BYTES as u64;
    }
    Ok(used_end)
}
