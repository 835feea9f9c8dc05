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
//! A log may have been cut off at its beginning. Then each shard's snapshot must hold what is not there any more: that
//! is what `progress` sees to, by what each segment says of where the shards stood before it.
//!
//! Invariants: nothing is changed by reading; what is believed is durable; the same files always give the same result.
//!
//! Deliberately not here: repair. A log with damage is refused whole, before any of it is served.

mod error;
mod progress;
mod reader;
mod survey;
mod tail;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use eyot_raft_glue::{EntryKind, Index, ShardId};

pub use error::{Proof, RecoveryError};
use progress::{Progress, Use};
use reader::{SegmentReader, Source};
use survey::{LogSurvey, Segment};
use tail::search_behind;

use super::format::{
    positions, take_record, BatchHeader, BatchPlace, RawRecord, ShardPosition, BATCH_HEADER_BYTES, BLOCK_BYTES,
    POSITIONS_KIND, SEGMENT_HEADER_BYTES,
};
use super::{
    placement, KeptSegment, LogIdentity, LogStart, Record, SegmentEnd, SegmentError, SegmentRequest, Sequence,
    SnapshotPosition,
};
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
    /// Entries handed out, without those that a snapshot holds.
    pub records: u64,
    /// Batches read.
    pub batches: u64,
    /// Bytes of batches read.
    pub bytes: u64,
    /// What was cut off: at most one per log, and its first writes to a new segment.
    pub torn_tails: Vec<TornTail>,
    /// The newest entry of every shard of the core, by shard; position 0 for a shard without entries.
    pub positions: Vec<ShardPosition>,
    /// The segments of the logs that this core looks after, by log, oldest first: for
    /// [`Retention`](super::Retention).
    pub segments: Vec<KeptSegment>,
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
/// their indexes, from the one on that the shard's snapshot makes necessary. Blocks for as long as that takes. No core
/// may write before every core's call has succeeded.
///
/// `snapshots`: those of the core's shards of which one was loaded, in any order; shards of other cores do not matter.
///
/// # Panics
/// When the scope contradicts itself or its epoch is not new: both are bugs of the caller.
pub fn recover<D: Disk>(
    disk: &D,
    wal_directory: &Path,
    scope: RecoveryScope,
    snapshots: &[(ShardId, SnapshotPosition)],
    each: &mut dyn FnMut(Record<'_>) -> Result<(), Refusal>,
) -> Result<Recovered, RecoveryError> {
    assert!(scope.core < scope.core_count && scope.shard_count > 0 && scope.epoch > 0, "{scope:?}");
    let logs = survey::survey(disk, wal_directory, scope.node_id)?;
    let mut recovery = Recovery::new(disk, scope, Progress::new(scope.shard_count, snapshots), each);
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
    recovery.into_result(wal_directory)
}

/// One segment to read.
struct Reading<'a> {
    log_id: u16,
    segment: &'a Segment,
    next: Option<&'a Segment>,
    /// Whether it is the first that is there, and not the log's first: what was before it has been cut off.
    is_cut: bool,
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
    progress: Progress,
    /// The newest entry of each shard in the segment that is being read, by shard number; 0: none.
    newest_in_segment: Vec<Index>,
    /// Where the logs end whose last segment was read: the log, the end, the sequence that is expected there.
    ends: Vec<(u16, SegmentEnd, Sequence)>,
    result: Recovered,
}

impl<'a, D: Disk> Recovery<'a, D> {
    fn new(
        disk: &'a D,
        scope: RecoveryScope,
        progress: Progress,
        each: &'a mut dyn FnMut(Record<'_>) -> Result<(), Refusal>,
    ) -> Self {
        let result = Recovered {
            start: LogStart::of_empty_log(scope.epoch, scope.core_count),
            spare: None,
            records: 0,
            batches: 0,
            bytes: 0,
            torn_tails: Vec::new(),
            positions: Vec::new(),
            segments: Vec::new(),
            leftovers: Vec::new(),
        };
        let newest_in_segment = vec![Index::default(); usize::from(scope.shard_count)];
        Self { disk, scope, each, progress, newest_in_segment, ends: Vec::new(), result }
    }

    fn into_result(self, wal_directory: &Path) -> Result<Recovered, RecoveryError> {
        let RecoveryScope { core, core_count, shard_count, .. } = self.scope;
        let mut result = self.result;
        let shards = (0..shard_count).map(ShardId);
        for shard in shards.filter(|shard| placement(*shard, shard_count, core_count) == core) {
            result.positions.push((shard, self.progress.finish(shard, wal_directory)?));
        }
        result.segments.sort_by_key(|segment| (segment.log_id, segment.number));
        Ok(result)
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
            // Who looks after a log must know what all of its segments hold, to cut it.
            if is_wanted || self.is_responsible_for(log.log_id) {
                let is_cut = position == 0 && segment.header.number > 1;
                readings.push(Reading { log_id: log.log_id, segment, next, is_cut });
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
        self.newest_in_segment.fill(Index::default());
        while place.offset < end {
            let Some((batch_header, batch)) = reader.batch(&place, expected, end)? else {
                break;
            };
            let (file, is_first) = (&reading.segment.path, expected == header.first_sequence);
            let records = &batch[BATCH_HEADER_BYTES..batch_header.byte_length];
            if is_first {
                self.take_positions(&batch_header, records, &roles, (file, place.offset))?;
            }
            self.take_batch(&batch_header, records, &roles, (file, place.offset))?;
            place.offset += batch_header.padded_bytes() as u64;
            expected = expected.next();
        }
        // Where another follows, its header tells: this one's first write may have been torn, and nothing is in it.
        if reading.is_cut && reading.next.is_none() && expected == header.first_sequence {
            let file = reading.segment.path.clone();
            return Err(RecoveryError::Damaged { file, offset: place.offset, expected, proof: Proof::Cut });
        }
        match reading.next {
            Some(next) => check_sealed_end(reading, next, place.offset, expected)?,
            None => {
                self.cut_tail(&mut reader, place, expected, header.is_recycled)?;
                let end = SegmentEnd { number: header.number, end_offset: place.offset };
                self.ends.push((reading.log_id, end, expected));
            }
        }
        if self.is_responsible_for(reading.log_id) {
            self.keep_segment(reading, reader.length(), Sequence(expected.0 - 1));
        }
        Ok(())
    }

    fn keep_segment(&mut self, reading: &Reading<'_>, bytes: u64, last_sequence: Sequence) {
        let newest = (0..).map(ShardId).zip(&self.newest_in_segment);
        self.result.segments.push(KeptSegment {
            log_id: reading.log_id,
            number: reading.segment.header.number,
            bytes,
            last_sequence,
            newest: newest.filter(|(_, index)| index.0 > 0).map(|(shard, index)| (shard, *index)).collect(),
        });
    }

    /// Compares what a segment's first batch says of the shards before it with what was found before it.
    fn take_positions(
        &mut self,
        header: &BatchHeader,
        mut records: &[u8],
        roles: &[Role],
        at: (&Path, u64),
    ) -> Result<(), RecoveryError> {
        let invalid = invalid_at(at);
        for _ in 0..header.record_count {
            let raw = take_record(&mut records).map_err(invalid)?;
            if raw.kind_number != POSITIONS_KIND {
                continue;
            }
            for (shard, position) in positions(raw.payload).map_err(invalid)? {
                if takes(roles, shard).map_err(invalid)? {
                    self.progress.stands_at(shard, position, at)?;
                }
            }
        }
        Ok(())
    }

    /// Hands out the records of a batch that is whole. `at`: its file and offset, for errors.
    fn take_batch(
        &mut self,
        header: &BatchHeader,
        mut records: &[u8],
        roles: &[Role],
        at: (&Path, u64),
    ) -> Result<(), RecoveryError> {
        let invalid = invalid_at(at);
        for _ in 0..header.record_count {
            let raw = take_record(&mut records).map_err(invalid)?;
            if raw.kind_number == POSITIONS_KIND {
                continue;
            }
            let kind =
                EntryKind::from_number(raw.kind_number).ok_or_else(|| invalid("it has an unknown kind of entry"))?;
            if takes(roles, raw.shard).map_err(invalid)? {
                self.take_record(&raw, kind, at)?;
            }
            self.newest_in_segment[usize::from(raw.shard.0)] = raw.position.index;
        }
        if !records.is_empty() {
            return Err(invalid("it has more bytes than its records take"));
        }
        self.result.batches += 1;
        self.result.bytes += header.padded_bytes() as u64;
        Ok(())
    }

    /// Hands out one record, if it continues its shard's log and is needed.
    #[inline]
    fn take_record(&mut self, raw: &RawRecord<'_>, kind: EntryKind, at: (&Path, u64)) -> Result<(), RecoveryError> {
        let RawRecord { shard, position, payload, .. } = *raw;
        let is_covered = match self.progress.advance(shard, position, at)? {
            Use::Superfluous => return Ok(()),
            Use::Covered => true,
            Use::Needed => false,
        };
        self.result.records += u64::from(!is_covered);
        (self.each)(Record { shard, position, kind, payload, is_covered }).map_err(|source| RecoveryError::Refused {
            file: at.0.to_owned(),
            offset: at.1,
            shard: shard.0,
            index: position.index.0,
            source,
        })
    }

    /// Looks behind the last whole batch of a log's last segment.
    fn cut_tail(
        &mut self,
        reader: &mut SegmentReader<'_, D>,
        end: BatchPlace,
        expected: Sequence,
        is_recycled: bool,
    ) -> Result<(), RecoveryError> {
        let cut = (reader.path().to_owned(), end.offset, expected);
        let behind = search_behind(reader, end, &cut)?;
        if let Some(used_end) = if is_recycled { behind.own_end } else { behind.used_end } {
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
        let mut leftovers = Vec::new();
        for (number, path) in &log.headless {
            let mut reader = SegmentReader::open(self.disk, path, Source::Disk)?;
            let start = BatchPlace { identity, segment: *number, offset: 0 };
            let cut = (path.clone(), 0, expected);
            let behind = search_behind(&mut reader, start, &cut)?;
            let bytes = reader.length();
            if let Some(bytes) = behind.own_end {
                let torn = TornTail { file: path.clone(), offset: 0, bytes, sequence: expected };
                self.result.torn_tails.push(torn);
            }
            let is_whole = bytes > SEGMENT_HEADER_BYTES as u64 && bytes.is_multiple_of(BLOCK_BYTES as u64);
            // A recycled file is not used under a number that it has had for a while: what a torn first write has left
            // in it would belong there.
            if is_own && behind.used_end.is_none() && is_whole && *number == next_number {
                self.result.spare = Some(SegmentRequest { number: *number, bytes });
            } else {
                leftovers.push(path.clone());
            }
        }
        // The last one first, so that no crash leaves a gap in front of one.
        self.result.leftovers.extend(leftovers.into_iter().rev());
        self.result.leftovers.extend(log.temporaries.iter().cloned());
        if is_own {
            self.result.start.next_segment = next_number;
            self.result.start.next_sequence = expected;
            self.result.start.previous_end = end.map(|(_, end, _)| end);
        }
        Ok(())
    }
}

/// The error over a whole batch that cannot be what a writer of this format wrote. `at`: its file and offset.
fn invalid_at(at: (&Path, u64)) -> impl Fn(&'static str) -> RecoveryError + Copy + '_ {
    move |problem| RecoveryError::InvalidRecord { file: at.0.to_owned(), offset: at.1, problem }
}

/// Whether what a batch has of `shard`, an entry or a position, is this core's to take.
///
/// # Errors
/// Why it should not be there at all.
fn takes(roles: &[Role], shard: ShardId) -> Result<bool, &'static str> {
    match roles.get(usize::from(shard.0)) {
        Some(Role::Taken) => Ok(true),
        Some(Role::Skipped) => Ok(false),
        Some(Role::Misplaced) => Err("it has an entry or a position of a shard of another log"),
        None => Err("it has an entry or a position of a shard that does not exist"),
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
