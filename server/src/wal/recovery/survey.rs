//! What files a log consists of, and whether their headers form a chain.
//!
//! Place in the flow: start-up, before any batch is read. Reads block 0 of every segment, and changes nothing.
//!
//! Invariant: the segments of a [`LogSurvey`] are numbered without gaps, each names the end of the one before it, and
//! their epochs and first sequences never go back. Files without a valid header stand after the last of them. Those
//! that are missing at the beginning were cut off, or are lost: which it is, the entries tell.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::super::format::{SegmentHeader, SegmentHeaderError, FORMAT_VERSION, SEGMENT_HEADER_BYTES};
use super::super::segment::{classify, log_id_of, segment_path, FileName};
use super::super::LogIdentity;
use super::RecoveryError;
use crate::disk::{Disk, DiskFile, OpenMode};

/// A segment whose header is valid.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
}

/// The files of one log.
#[derive(Debug)]
pub(super) struct LogSurvey {
    pub(super) log_id: u16,
    /// Segments with a valid header, by number.
    pub(super) segments: Vec<Segment>,
    /// Files with a segment's name and no valid header, by number: spares, or a first write that was torn.
    pub(super) headless: Vec<(u64, PathBuf)>,
    /// Segments whose creation was interrupted.
    pub(super) temporaries: Vec<PathBuf>,
}

impl LogSurvey {
    /// The number of the last segment with a header; 0 if there is none.
    pub(super) fn last_number(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.header.number)
    }
}

/// Looks at every log below `wal_directory`, by number. A directory that does not exist has none.
pub(super) fn survey<D: Disk>(disk: &D, wal_directory: &Path, node_id: u128) -> Result<Vec<LogSurvey>, RecoveryError> {
    let mut logs = Vec::new();
    for name in names_in(disk, wal_directory)? {
        if let Some(log_id) = log_id_of(&name) {
            logs.push(survey_log(disk, &wal_directory.join(&name), LogIdentity { node_id, log_id })?);
        }
    }
    logs.sort_by_key(|log| log.log_id);
    check_core_counts(&logs)?;
    Ok(logs)
}

fn survey_log<D: Disk>(disk: &D, directory: &Path, identity: LogIdentity) -> Result<LogSurvey, RecoveryError> {
    let mut log =
        LogSurvey { log_id: identity.log_id, segments: Vec::new(), headless: Vec::new(), temporaries: Vec::new() };
    let mut files = BTreeMap::new();
    for name in names_in(disk, directory)? {
        match classify(&name) {
            FileName::Segment(number) => drop(files.insert(number, directory.join(name))),
            FileName::Temporary => log.temporaries.push(directory.join(name)),
            FileName::Foreign => {}
        }
    }
    for (number, path) in files {
        match read_header(disk, &path, number, identity)? {
            Some(header) => log.segments.push(Segment { path, header }),
            None => log.headless.push((number, path)),
        }
    }
    check_chain(directory, &log)?;
    Ok(log)
}

/// The header of a segment; `None` if the file has none. One that belongs elsewhere is an error.
fn read_header<D: Disk>(
    disk: &D,
    path: &Path,
    number: u64,
    expected: LogIdentity,
) -> Result<Option<SegmentHeader>, RecoveryError> {
    let mut block = [0; SEGMENT_HEADER_BYTES];
    match disk.open(path, OpenMode::READ).and_then(|file| file.read_exact_at(&mut block, 0)) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
        Ok(()) => {}
    }
    let file = path.to_owned();
    match SegmentHeader::decode(&block) {
        Err(SegmentHeaderError::Invalid) => Ok(None),
        Err(SegmentHeaderError::Version(found)) => {
            Err(RecoveryError::NewerFormat { file, found, supported: FORMAT_VERSION })
        }
        Ok(SegmentHeader { identity: LogIdentity { node_id: found, .. }, .. }) if found != expected.node_id => {
            Err(RecoveryError::ForeignNode { file, found, expected: expected.node_id })
        }
        Ok(header) if header.identity != expected || header.number != number => {
            Err(RecoveryError::Misplaced { file, found_log: header.identity.log_id, found_number: header.number })
        }
        Ok(header) => Ok(Some(header)),
    }
}

fn check_chain(directory: &Path, log: &LogSurvey) -> Result<(), RecoveryError> {
    let later = log.last_number();
    // A file without a header in front of a segment that has one: its header was durable before the later one was
    // written.
    if let Some((_, path)) = log.headless.first().filter(|(number, _)| *number < later) {
        return Err(RecoveryError::HeaderDamaged { file: path.clone(), later });
    }
    // The last segment with a header is never cut off.
    if let (true, Some((number @ 2.., _))) = (log.segments.is_empty(), log.headless.first()) {
        return Err(RecoveryError::MissingSegment { file: segment_path(directory, number - 1), later: *number });
    }
    let first = log.segments.first().map_or(1, |segment| segment.header.number);
    for (expected_number, segment) in (first..).zip(&log.segments) {
        if segment.header.number != expected_number {
            let file = segment_path(directory, expected_number);
            return Err(RecoveryError::MissingSegment { file, later: segment.header.number });
        }
    }
    for pair in log.segments.windows(2) {
        let (before, after) = (&pair[0].header, &pair[1].header);
        let contradiction = |problem| RecoveryError::Contradiction { file: pair[1].path.clone(), problem };
        if after.epoch < before.epoch {
            return Err(contradiction("is of an earlier start than the segment before it"));
        }
        if after.first_sequence < before.first_sequence {
            return Err(contradiction("has an earlier batch than the segment before it"));
        }
    }
    Ok(())
}

/// All cores of one start agree about their number, or shards would be looked for in the wrong log.
fn check_core_counts(logs: &[LogSurvey]) -> Result<(), RecoveryError> {
    let mut core_counts = BTreeMap::new();
    for segment in logs.iter().flat_map(|log| &log.segments) {
        let core_count = segment.header.core_count;
        if *core_counts.entry(segment.header.epoch).or_insert(core_count) != core_count {
            let problem = "has another number of cores than another segment of the same start";
            return Err(RecoveryError::Contradiction { file: segment.path.clone(), problem });
        }
    }
    Ok(())
}

/// The names in a directory, none if it does not exist. Names that are not UTF-8 are not the log's.
fn names_in<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<String>, RecoveryError> {
    match disk.list(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        outcome => outcome.map_err(io_error("list", directory)),
    }
}

pub(super) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RecoveryError + 'a {
    move |source| RecoveryError::Io { action, path: path.to_owned(), source }
}
