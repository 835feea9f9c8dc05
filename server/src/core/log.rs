//! The core's log at work: the pure writer, its segment files, and the background work that keeps segments ready.
//!
//! Place in the flow: step 6 (log). The turn appends sealed entries, hands the writer's writes to the ring, and brings
//! the completions back; what became durable by that is told in [`CoreLog::take_durable`].
//!
//! Invariants:
//! - A write that failed or was short ends the process: nothing that depends on it was acknowledged, and nothing will
//!   be.
//! - A segment exists, zeroed and synced, before it is written: so a full disk shows when the next one is made, while
//!   the present one still has room, and turns into refused writes, never into lost ones.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eyot_protocol::value_part::ValuePart;
use eyot_raft_glue::{EntryKind, EntryPosition, Index, ShardId};
use eyot_ring::{AlignedBuffer, MappedBytes, Ring, Waker};

use super::housekeeper::{self, Done, Housekeeper, Job};
use crate::disk::{Disk, RealDisk};
use crate::error::{Stop, StopReason};
use crate::replication::Sealed;
use crate::security::admit::{LogBlock, LOG_SLACK_BYTES};
use crate::wal::{
    segment, LogIdentity, LogOptions, LogWriter, Recovered, Retention, SegmentEnd, SegmentError, SegmentFile,
    SegmentRequest, Sequence,
};

/// How long after a failed attempt to make a segment the next one is made.
const SEGMENT_RETRY: Duration = Duration::from_secs(1);
/// Without `--sync-writes`, bytes that are written before the flush interval has passed.
const FLUSH_BYTES: usize = 1 << 20;

/// An entry that was handed to the log and is not durable.
#[derive(Debug, Clone, Copy)]
struct Unsynced {
    sequence: Sequence,
    local_shard: u16,
    index: Index,
}

type Created = Result<SegmentFile, SegmentError>;

/// The pages of the next write, where it is copied out of a value file.
#[derive(Debug)]
enum PartPages {
    /// Nobody has looked.
    Unknown,
    /// Some are missing.
    Wanted(MappedBytes, Range<usize>),
    /// The ring brings them.
    Coming,
    /// They came.
    Came,
}

/// Which segments are needed still, and whether that may have changed since it was asked.
#[derive(Debug)]
struct Cut {
    retention: Retention,
    is_due: bool,
}

/// The log of one core.
#[derive(Debug)]
pub struct CoreLog {
    writer: LogWriter,
    directory: PathBuf,
    /// Open segments by number, oldest first.
    files: VecDeque<(u64, SegmentFile)>,
    unsynced: VecDeque<Unsynced>,
    housekeeper: Housekeeper,
    cut: Cut,
    /// Whether a segment is being made.
    is_making: bool,
    retry_at: Option<Instant>,
    /// Why the last attempt failed; `None` if it did not.
    blocked: Option<LogBlock>,
    /// A segment came since the last [`CoreLog::submit`]: what waited for it may be written.
    segment_came: bool,
    /// The tail of the log before this start, to be given back once this start's first batch is durable.
    old_tail: Option<SegmentEnd>,
    first_sequence: Sequence,
    segment_bytes: u64,
    sync_writes: bool,
    flush_interval: Duration,
    /// Without `--sync-writes`: since when something waits for its write.
    waiting_since: Option<Instant>,
    paging: PartPages,
}

impl CoreLog {
    /// Opens the log where `recovered` ended, with its first segment ready. Blocks.
    ///
    /// # Errors
    /// [`StopReason::DiskFull`] or [`StopReason::DataDirectory`].
    pub fn open(
        wal_directory: &Path,
        identity: LogIdentity,
        options: LogOptions,
        recovered: &Recovered,
        sync_writes: bool,
        flush_interval: Duration,
        waker: Waker,
    ) -> Result<Self, Stop> {
        recovered.clean_up(&RealDisk).map_err(|error| segment_stop(&error))?;
        let directory = segment::create_log_directory(&RealDisk, wal_directory, identity.log_id)
            .map_err(|error| segment_stop(&error))?;
        let housekeeper = housekeeper::start(identity.log_id, wal_directory.to_owned(), waker)
            .map_err(|error| thread_stop(&error))?;
        let mut writer = LogWriter::new(identity, options, recovered.start, &recovered.positions);
        let mut files = VecDeque::new();
        if let Some(spare) = recovered.spare {
            let file =
                segment::open_spare(&RealDisk, &directory, spare.number).map_err(|error| segment_stop(&error))?;
            writer.segment_ready(file.ready(spare.number));
            files.push_back((spare.number, file));
        } else if let Some(wanted) = writer.wants_segment() {
            let file = segment::create(&RealDisk, &directory, wanted.number, wanted.bytes)
                .map_err(|error| segment_stop(&error))?;
            writer.segment_ready(file.ready(wanted.number));
            files.push_back((wanted.number, file));
        }
        if files.iter().any(|(_, file)| !file.direct) {
            tracing::warn!(
                directory = %directory.display(),
                "the file system refuses O_DIRECT: log writes go through the page cache, as durable and slower"
            );
        }
        Ok(Self {
            writer,
            directory,
            files,
            unsynced: VecDeque::new(),
            housekeeper,
            cut: Cut {
                retention: Retention::new(identity.log_id, options.segment_bytes, &recovered.segments),
                is_due: true,
            },
            is_making: false,
            retry_at: None,
            blocked: None,
            segment_bytes: options.segment_bytes,
            segment_came: false,
            old_tail: recovered.start.previous_end,
            first_sequence: recovered.start.next_sequence,
            sync_writes,
            flush_interval,
            waiting_since: None,
            paging: PartPages::Unknown,
        })
    }

    /// Appends an entry of a shard.
    pub fn append(&mut self, shard: ShardId, local_shard: u16, sealed: Sealed<'_>) {
        let sequence = self.writer.append(shard, sealed.position, EntryKind::Commands, sealed.payload);
        if self.sync_writes {
            self.unsynced.push_back(Unsynced { sequence, local_shard, index: sealed.position.index });
        }
    }

    /// Appends a part of a large value of a shard.
    pub fn append_part(&mut self, shard: ShardId, local_shard: u16, position: EntryPosition, part: &ValuePart<'_>) {
        let bytes = if let ValuePart::Bytes { bytes, .. } = part { *bytes } else { &[] };
        let payload = [&part.header()[..], bytes];
        let sequence = self.writer.append_gathered(shard, position, EntryKind::ValuePart, payload);
        if self.sync_writes {
            self.unsynced.push_back(Unsynced { sequence, local_shard, index: position.index });
        }
    }

    /// Appends a part of a large value of a shard whose bytes are `range` of `value`; they are copied when their write
    /// starts.
    pub fn append_part_of(
        &mut self,
        shard: ShardId,
        local_shard: u16,
        position: EntryPosition,
        part_header: &[u8],
        (value, range): (MappedBytes, Range<usize>),
    ) {
        let kind = EntryKind::ValuePart;
        let sequence = self.writer.append_referring(shard, position, kind, part_header, (value, range));
        if self.sync_writes {
            self.unsynced.push_back(Unsynced { sequence, local_shard, index: position.index });
        }
    }

    /// Most bytes of a part that fit a usual segment.
    pub fn part_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes - LOG_SLACK_BYTES).unwrap_or(usize::MAX)
    }

    /// Hands to the ring what should be written now. `flush`: whatever there is.
    pub fn submit(&mut self, ring: &mut Ring, now: Instant, flush: bool) {
        self.segment_came = false;
        if !self.sync_writes && !flush && !self.is_flush_due(now) {
            return;
        }
        while !self.waits_for_pages(flush) {
            let Some(write) = self.writer.next_write() else { break };
            let file = self.file(write.segment);
            ring.write(file, write.sequence.0, write.buffer, write.offset);
        }
        while let Some(retired) = self.writer.segment_retired() {
            self.files.retain(|(open, _)| *open != retired.number);
            self.cut.retention.retired(retired);
            self.cut.is_due = true;
        }
        if !self.writer.has_open_records() {
            self.waiting_since = None;
        }
    }

    /// Whether the next write has to wait for pages of a large value that have left memory. They are asked for once:
    /// whatever the system does with them after they came, the write goes on. `flush`: the core may wait.
    fn waits_for_pages(&mut self, flush: bool) -> bool {
        let Some((value, range)) = self.writer.next_reference() else { return false };
        match self.paging {
            PartPages::Unknown if flush || value.is_resident(range.clone()) => false,
            PartPages::Unknown => {
                self.paging = PartPages::Wanted(value.clone(), range);
                true
            }
            PartPages::Wanted(..) | PartPages::Coming => !flush,
            PartPages::Came => {
                self.paging = PartPages::Unknown;
                false
            }
        }
    }

    /// Pages that the next write waits for and that nobody has asked for yet: their coming is told by
    /// [`CoreLog::paged_in`].
    pub fn take_wanted_pages(&mut self) -> Option<(MappedBytes, Range<usize>)> {
        match std::mem::replace(&mut self.paging, PartPages::Coming) {
            PartPages::Wanted(value, range) => Some((value, range)),
            other => {
                self.paging = other;
                None
            }
        }
    }

    /// The pages came, or cannot be read: then the process ends when it touches them.
    pub fn paged_in(&mut self) {
        self.paging = PartPages::Came;
    }

    fn file(&self, number: u64) -> i32 {
        let (_, segment) =
            self.files.iter().find(|(open, _)| *open == number).expect("the writer was given this segment");
        segment.file.as_raw_fd()
    }

    fn is_flush_due(&mut self, now: Instant) -> bool {
        if !self.writer.has_open_records() {
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        now.duration_since(since) >= self.flush_interval || self.writer.pending_bytes() >= FLUSH_BYTES
    }

    /// A write has ended. Returns how many bytes it wrote.
    ///
    /// # Errors
    /// [`StopReason::LogWriteFailed`]: the process must end.
    pub fn written(
        &mut self,
        sequence: u64,
        buffer: AlignedBuffer,
        result: std::io::Result<usize>,
    ) -> Result<usize, Stop> {
        let wanted = buffer.len();
        match result {
            Ok(count) if count == wanted => {
                self.writer.written(Sequence(sequence), buffer);
                Ok(wanted)
            }
            Ok(count) => Err(self.write_failed(&format!("short write: {count} of {wanted} bytes"))),
            Err(error) => Err(self.write_failed(&error.to_string())),
        }
    }

    fn write_failed(&self, problem: &str) -> Stop {
        Stop::new(
            StopReason::LogWriteFailed,
            format!("log {}: {problem}", self.directory.display()),
            "check the disk (dmesg, smartctl). What was acknowledged is on disk; restart once the disk is sound",
        )
    }

    /// The next entry that became durable, in log order: its shard's local number and its index.
    pub fn take_durable(&mut self) -> Option<(u16, Index)> {
        let first = self.unsynced.front()?;
        if first.sequence > self.writer.durable() {
            return None;
        }
        let Unsynced { local_shard, index, .. } = self.unsynced.pop_front()?;
        Some((local_shard, index))
    }

    /// `bytes` of log make it time for snapshots: of what those make superfluous, half as much is used again.
    pub fn note_snapshot_interval(&mut self, bytes: u64) {
        self.cut.retention.recycle_half_of(bytes);
    }

    /// Snapshots have made some of the log superfluous, perhaps.
    pub fn note_snapshot(&mut self) {
        self.cut.is_due = true;
    }

    /// Bytes of the segments that are kept, without the one that is being written.
    pub fn kept_bytes(&self) -> u64 {
        self.cut.retention.bytes()
    }

    /// Starts and finishes the background work. `needed_after` says behind which entry the log of a shard is needed.
    pub fn maintain(&mut self, now: Instant, needed_after: &dyn Fn(ShardId) -> Index) {
        while let Some(done) = self.housekeeper.take() {
            match done {
                Done::Created(request, created) => {
                    self.is_making = false;
                    self.made(request, created, now);
                }
                Done::Recycled(recycling, created) => {
                    self.is_making = false;
                    match created {
                        Ok(_) => self.cut.retention.recycled(recycling),
                        Err(_) => {
                            self.cut.retention.failed();
                            tracing::error!(
                                "an old segment could not be used again: the log grows until the next start"
                            );
                        }
                    }
                    self.cut.is_due = true;
                    self.made(recycling.request, created, now);
                }
                Done::Removed(removal, Ok(())) => {
                    self.cut.retention.removed(removal);
                    self.cut.is_due = true;
                }
                Done::Removed(_, Err(error)) => {
                    self.cut.retention.failed();
                    tracing::error!(%error, "an old segment could not be removed: the log grows until the next start");
                }
                // Only space is lost by it; the next start tries the next tail.
                Done::Truncated(Err(error)) => {
                    tracing::warn!(%error, "the unused end of an old segment could not be given back");
                }
                Done::Truncated(Ok(())) => {}
            }
        }
        // Before that segment may be removed or used again.
        if self.writer.durable() >= self.first_sequence {
            if let Some(old_tail) = self.old_tail.take() {
                self.housekeeper.begin(Job::Truncate(old_tail));
            }
        }
        let waits = self.is_making || self.retry_at.is_some_and(|retry_at| now < retry_at);
        if let (false, Some(request)) = (waits, self.writer.wants_segment()) {
            self.is_making = true;
            let recycling = self.cut.retention.next_recycling(request, self.writer.durable(), needed_after);
            self.housekeeper.begin(recycling.map_or(Job::Create(request), Job::Recycle));
        }
        if std::mem::take(&mut self.cut.is_due) {
            if let Some(removal) = self.cut.retention.next_removal(self.writer.durable(), needed_after) {
                self.housekeeper.begin(Job::Remove(removal));
            }
        }
    }

    /// Whether [`CoreLog::maintain`] has something to finish: also to be asked between the announcement of a sleep and
    /// the sleep.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.housekeeper.has_news()
    }

    fn made(&mut self, request: SegmentRequest, created: Created, now: Instant) {
        match created {
            Ok(file) => {
                self.retry_at = None;
                if self.blocked.take().is_some() {
                    tracing::info!(segment = request.number, "the log can be extended again: writes are taken");
                }
                self.writer.segment_ready(file.ready(request.number));
                self.segment_came = true;
                // A spare that turned out too small for one large value is replaced by a larger one of the same number.
                self.files.retain(|(number, _)| *number != request.number);
                self.files.push_back((request.number, file));
            }
            Err(error) => {
                let blocked = match error {
                    SegmentError::NoSpace { .. } => LogBlock::DiskFull,
                    _ => LogBlock::Failing,
                };
                if self.blocked.replace(blocked) != Some(blocked) {
                    let left_bytes = self.writer.writable_bytes();
                    tracing::error!(%error, left_bytes, "no new log segment: writes will be refused when the present one is full");
                }
                self.retry_at = Some(now + SEGMENT_RETRY);
            }
        }
    }

    /// Whether the core should not sleep: a segment came, of which no event tells, or something durable is not applied
    /// yet.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.segment_came
            || self.has_news()
            || self.unsynced.front().is_some_and(|first| first.sequence <= self.writer.durable())
    }

    /// Why the log cannot be extended, if it cannot.
    pub fn blocked(&self) -> Option<LogBlock> {
        self.blocked
    }

    /// Whether a write of `bytes` has somewhere to go: one that no usual segment holds needs a larger one, and once it
    /// is appended everything waits behind it. So the disk is asked first; that is rare and costs a system call.
    pub fn has_segment_for(&self, bytes: usize) -> bool {
        let needed = bytes as u64 + LOG_SLACK_BYTES;
        if needed <= self.segment_bytes {
            return true;
        }
        // The larger segment, and the usual one that is kept ready behind it.
        RealDisk.free_bytes(&self.directory).is_ok_and(|free| free > needed + self.segment_bytes)
    }

    /// Bytes that were appended and are not on disk.
    pub fn pending_bytes(&self) -> usize {
        self.writer.pending_bytes()
    }

    /// What of them are parts of large values that the log only refers to.
    pub fn referenced_bytes(&self) -> usize {
        self.writer.referenced_bytes()
    }

    /// Memory of the log's buffers, and of the list of what waits for the disk.
    pub fn memory_bytes(&self) -> usize {
        self.writer.memory_bytes() + self.unsynced.capacity() * size_of::<Unsynced>()
    }

    /// Room in the segments that exist.
    pub fn writable_bytes(&self) -> u64 {
        self.writer.writable_bytes()
    }

    /// Ends the log: an empty batch that proves the last one durable, so that a later start can tell damage in it from
    /// an interrupted write. To be called when nothing waits for the disk; the batch is then to be submitted.
    pub fn close(&mut self) {
        // On a full disk there may be no room for it, and an end of the node must not wait for space.
        if self.writer.writable_bytes() >= eyot_ring::BLOCK_BYTES as u64 {
            self.writer.close();
        }
    }

    /// The newest batch that has records: all that was appended is durable when it is.
    pub fn last_appended(&self) -> Sequence {
        self.writer.last_appended()
    }

    /// The newest batch that is on disk, with all before it.
    pub fn durable(&self) -> Sequence {
        self.writer.durable()
    }

    /// Whether nothing waits for the disk.
    pub fn is_settled(&self) -> bool {
        self.writer.pending_bytes() == 0
    }

    /// When the turn must look at the log again even if nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        // While a write is in flight or a segment is missing, that is what wakes the core; a deadline would only spin.
        let may_write = self.writer.writes_in_flight() == 0 && self.blocked.is_none() && !self.is_making;
        let flush = self.waiting_since.filter(|_| may_write).map(|since| since + self.flush_interval);
        [flush, self.retry_at].into_iter().flatten().min()
    }
}

fn thread_stop(error: &std::io::Error) -> Stop {
    let problem = format!("the thread that makes log segments: {error}");
    Stop::new(StopReason::Processors, problem, "raise the limit of threads (ulimit -u, or the container's pids limit)")
}

fn segment_stop(error: &SegmentError) -> Stop {
    let (reason, remedy) = match error {
        SegmentError::NoSpace { .. } => (StopReason::DiskFull, "free space, or choose another disk with --data-dir"),
        _ => (StopReason::DataDirectory, "check the permissions and the health of the data directory's disk"),
    };
    Stop::new(reason, error.to_string(), remedy)
}
