//! The files of a log: named, created whole, opened for writing, cut, recycled and removed. Everything here blocks.
//!
//! Place in the flow: beside step 6, ahead of it: a segment exists, zeroed and durable, before the writer needs it.
//!
//! Invariants:
//! - A file that has a segment's name has its full size on disk, and so has its name: it was zeroed and synced under
//!   the name `.tmp`, renamed, and the directory synced. A full disk therefore shows here and nowhere else.
//! - A recycled file holds old batches behind its first two blocks, which are zero. Their checksums are keyed with the
//!   number that the file had, which was a lower one, and no file gets the same number twice: so none of them is ever
//!   taken for a batch of the new segment.
//! - Segments are removed and recycled one after another, each durably before the next: a log never has a gap.
//! - Zeros are written, not only reserved: the later writes overwrite blocks that exist, and no file system metadata
//!   changes with them.
//!
//! Deliberately not here: what the bytes mean (format.rs), and which files are needed (recovery.rs).

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use eyot_ring::AlignedBuffer;

use super::format::{BLOCK_BYTES, SEGMENT_HEADER_BYTES};
use super::{ReadySegment, Recycling, SegmentEnd};
use crate::disk::{is_full, refuses_direct, Creation, Disk, DiskFile, OpenMode, RealDisk};

/// One write of zeros: large enough for a disk's full speed, small enough to have at hand.
const ZERO_WRITE_BYTES: usize = 256 * 1024;
const SUFFIX: &str = ".wal";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A segment that is open for writing: on the real disk, unless another is named.
#[derive(Debug)]
pub struct SegmentFile<F = <RealDisk as Disk>::File> {
    /// The file, opened with [`OpenMode::durable_writes`], so that a completed write is on disk.
    pub file: F,
    /// Whether `O_DIRECT` is in force. Where the file system refuses it, writes go through the page cache: correct,
    /// slower.
    pub direct: bool,
    /// Size of the file.
    pub bytes: u64,
    /// Whether it was an older segment, whose bytes it still holds.
    pub is_recycled: bool,
}

impl<F> SegmentFile<F> {
    /// What to tell the writer that waits for segment `number`.
    pub fn ready(&self, number: u64) -> ReadySegment {
        ReadySegment { number, bytes: self.bytes, is_recycled: self.is_recycled }
    }
}

/// Why a segment could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk or the quota is full. Nothing is left behind; it may be tried again when space has returned.
    #[error(
        "no space for a log segment of {bytes} bytes at {path}: free space, or raise the quota; writes are \
        refused until then"
    )]
    NoSpace {
        /// The segment.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// `ENOSPC` or `EDQUOT`.
        source: io::Error,
    },
    /// A file of that name holds something: it is not the writer's to replace.
    #[error(
        "log segment {path} already holds data: it was not expected there, and is left as it is; move it away if \
        it does not belong there"
    )]
    InUse {
        /// The segment.
        path: PathBuf,
    },
    /// Anything else that the system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The directory of one log.
pub fn log_directory(wal_directory: &Path, log_id: u16) -> PathBuf {
    wal_directory.join(format!("core-{log_id}"))
}

/// The file of one segment.
pub fn segment_path(log_directory: &Path, number: u64) -> PathBuf {
    log_directory.join(format!("{number:020}{SUFFIX}"))
}

/// The log's number of a directory's name; `None` for a name that [`log_directory`] does not give.
pub(super) fn log_id_of(name: &str) -> Option<u16> {
    let log_id = name.strip_prefix("core-")?.parse().ok()?;
    (name == format!("core-{log_id}")).then_some(log_id)
}

/// What a file in a log's directory is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileName {
    /// A segment of this number.
    Segment(u64),
    /// A segment that was being created.
    Temporary,
    /// Nothing of the log's.
    Foreign,
}

pub(super) fn classify(name: &str) -> FileName {
    if let Some(digits) = name.strip_suffix(SUFFIX) {
        let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        return digits
            .parse()
            .ok()
            .filter(|&number| is_number && number > 0)
            .map_or(FileName::Foreign, FileName::Segment);
    }
    if name.ends_with(TEMPORARY_SUFFIX) {
        FileName::Temporary
    } else {
        FileName::Foreign
    }
}

/// Creates the directory of one log, if it is missing, and makes its name durable.
pub fn create_log_directory<D: Disk>(disk: &D, wal_directory: &Path, log_id: u16) -> Result<PathBuf, SegmentError> {
    let directory = log_directory(wal_directory, log_id);
    match disk.create_directory(&directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(io_error("create", &directory)(error));
        }
        _ => sync_directory(disk, wal_directory)?,
    }
    Ok(directory)
}

/// Creates the segment `number` of `bytes`, all zero, durable, and opens it. An unused spare of that number is
/// replaced.
///
/// Takes as long as writing `bytes` to the disk.
pub fn create<D: Disk>(
    disk: &D,
    log_directory: &Path,
    number: u64,
    bytes: u64,
) -> Result<SegmentFile<D::File>, SegmentError> {
    assert!(
        bytes > SEGMENT_HEADER_BYTES as u64 && bytes.is_multiple_of(BLOCK_BYTES as u64),
        "segment of {bytes} bytes"
    );
    let path = segment_path(log_directory, number);
    if is_used(disk, &path)? {
        return Err(SegmentError::InUse { path });
    }
    let temporary = temporary_path(&path);
    let created = create_temporary(disk, &temporary, &path, bytes);
    if created.is_err() {
        // A leftover is removed at the next start as well: failing to remove it now adds nothing to the first error.
        let _ = disk.remove_file(&temporary);
    }
    let segment = created?;
    sync_directory(disk, log_directory)?;
    Ok(segment)
}

fn temporary_path(path: &Path) -> PathBuf {
    path.with_extension("wal.tmp")
}

fn create_temporary<D: Disk>(
    disk: &D,
    temporary: &Path,
    path: &Path,
    bytes: u64,
) -> Result<SegmentFile<D::File>, SegmentError> {
    let no_space_or = |action| refusal(action, temporary, path, bytes);
    remove_if_there(disk, temporary)?;
    let file = write_zeros(disk, temporary, bytes).map_err(no_space_or("write zeros to"))?;
    file.sync().map_err(no_space_or("sync"))?;
    drop(file);
    let segment = open_for_writing(disk, temporary).map_err(no_space_or("open"))?;
    disk.rename(temporary, path).map_err(no_space_or("rename"))?;
    Ok(segment)
}

/// Turns what the system said into the error that the caller acts by: a full disk is one that heals.
fn refusal<'a>(
    action: &'static str,
    temporary: &'a Path,
    path: &'a Path,
    bytes: u64,
) -> impl FnOnce(io::Error) -> SegmentError + 'a {
    move |source| {
        if is_full(&source) {
            SegmentError::NoSpace { path: path.to_owned(), bytes, source }
        } else {
            SegmentError::Io { action, path: temporary.to_owned(), source }
        }
    }
}

/// Has the file of a superfluous segment become the segment that the writer wants: durable, and its first two blocks
/// zero, which is what a first write fills at least. An unused spare of that number is replaced.
///
/// Where it fails, the old segment may be there or not; what [`create`] then makes is right either way.
///
/// # Panics
/// When the new number is not a higher one.
pub fn recycle<D: Disk>(
    disk: &D,
    log_directory: &Path,
    recycling: Recycling,
) -> Result<SegmentFile<D::File>, SegmentError> {
    let Recycling { old, request } = recycling;
    assert!(old < request.number, "{recycling:?}");
    let (old_path, path) = (segment_path(log_directory, old), segment_path(log_directory, request.number));
    if is_used(disk, &path)? {
        return Err(SegmentError::InUse { path });
    }
    let temporary = temporary_path(&path);
    remove_if_there(disk, &temporary)?;
    // The old name goes first, durably: from then on nobody misses the header.
    disk.rename(&old_path, &temporary).map_err(io_error("rename", &old_path))?;
    sync_directory(disk, log_directory)?;
    let blanked = blank(disk, &temporary, request.bytes).map_err(refusal("blank", &temporary, &path, request.bytes));
    let segment = blanked.and_then(|()| {
        let mut segment = open_for_writing(disk, &temporary).map_err(io_error("open", &temporary))?;
        segment.is_recycled = true;
        disk.rename(&temporary, &path).map_err(io_error("rename", &temporary))?;
        Ok(segment)
    });
    if segment.is_err() {
        // As in `create`.
        let _ = disk.remove_file(&temporary);
    }
    let segment = segment?;
    sync_directory(disk, log_directory)?;
    Ok(segment)
}

/// Zeroes a file's first two blocks and makes it `bytes` long, whatever it was.
fn blank<D: Disk>(disk: &D, path: &Path, bytes: u64) -> io::Result<()> {
    let file = disk.open(path, OpenMode::WRITE)?;
    file.write_all_at(&[0; 2 * BLOCK_BYTES], 0)?;
    let length = file.length()?;
    if length > bytes {
        file.set_length(bytes)?;
    }
    for offset in (length..bytes).step_by(ZERO_WRITE_BYTES) {
        let count = (bytes - offset).min(ZERO_WRITE_BYTES as u64);
        file.write_all_at(&vec![0; count as usize], offset)?;
    }
    file.sync()
}

/// A new file of `bytes` zeros. Written with `O_DIRECT`, so that its zeros do not push other pages out of the
/// cache.
fn write_zeros<D: Disk>(disk: &D, path: &Path, bytes: u64) -> io::Result<D::File> {
    let emptied = OpenMode::WRITE.creating(Creation::Emptied);
    let zeros = {
        let mut zeros = AlignedBuffer::with_capacity(ZERO_WRITE_BYTES);
        zeros.resize(ZERO_WRITE_BYTES);
        zeros
    };
    let fill = |file: &D::File| {
        let mut offset = 0;
        while offset < bytes {
            let length = (bytes - offset).min(ZERO_WRITE_BYTES as u64);
            file.write_all_at(&zeros[..length as usize], offset)?;
            offset += length;
        }
        Ok::<(), io::Error>(())
    };
    let filled = |mode| disk.open(path, mode).and_then(|file| fill(&file).map(|()| file));
    match filled(emptied.direct()) {
        Err(error) if refuses_direct(&error) => filled(emptied),
        outcome => outcome,
    }
}

/// Opens a segment that a core will write to.
fn open_for_writing<D: Disk>(disk: &D, path: &Path) -> io::Result<SegmentFile<D::File>> {
    let durable = OpenMode::WRITE.durable_writes();
    let direct = disk.open(path, durable.direct()).and_then(|file| {
        // Some file systems let a file be opened with O_DIRECT and refuse every access: one block shows it.
        let mut probe = AlignedBuffer::with_capacity(BLOCK_BYTES);
        probe.resize(BLOCK_BYTES);
        file.read_exact_at(&mut probe, 0).map(|()| file)
    });
    let (file, direct) = match direct {
        Ok(file) => (file, true),
        Err(error) if refuses_direct(&error) => (disk.open(path, durable)?, false),
        Err(error) => return Err(error),
    };
    let bytes = file.length()?;
    Ok(SegmentFile { file, direct, bytes, is_recycled: false })
}

/// Opens the spare segment that recovery found all zero, after making sure that it is durable.
pub fn open_spare<D: Disk>(disk: &D, log_directory: &Path, number: u64) -> Result<SegmentFile<D::File>, SegmentError> {
    let path = segment_path(log_directory, number);
    let segment = open_for_writing(disk, &path).map_err(io_error("open", &path))?;
    segment.file.sync().map_err(io_error("sync", &path))?;
    sync_directory(disk, log_directory)?;
    Ok(segment)
}

/// Gives back what a segment holds behind its end. Only once a later segment's header, which names that end, is
/// durable: a crash in between leaves the file longer than needed, which recovery ignores.
///
/// # Panics
/// When the end is not one that a header can name.
pub fn truncate<D: Disk>(disk: &D, log_directory: &Path, end: SegmentEnd) -> Result<(), SegmentError> {
    assert!(
        end.end_offset >= SEGMENT_HEADER_BYTES as u64 && end.end_offset.is_multiple_of(BLOCK_BYTES as u64),
        "{end:?}"
    );
    let path = segment_path(log_directory, end.number);
    let file = disk.open(&path, OpenMode::WRITE).map_err(io_error("open", &path))?;
    let bytes = file.length().map_err(io_error("read the size of", &path))?;
    if bytes > end.end_offset {
        file.set_length(end.end_offset).map_err(io_error("cut", &path))?;
        file.sync().map_err(io_error("sync", &path))?;
    }
    Ok(())
}

/// Removes files that recovery found to hold nothing of value, and makes that durable, one after another.
pub(super) fn remove<D: Disk>(disk: &D, files: &[PathBuf]) -> Result<(), SegmentError> {
    for path in files {
        remove_if_there(disk, path)?;
        sync_directory(disk, path.parent().expect("a file in a log's directory"))?;
    }
    Ok(())
}

/// Removes a superfluous segment, the oldest of its log, and makes that durable.
pub fn remove_segment<D: Disk>(disk: &D, log_directory: &Path, number: u64) -> Result<(), SegmentError> {
    remove(disk, &[segment_path(log_directory, number)])
}

fn remove_if_there<D: Disk>(disk: &D, path: &Path) -> Result<(), SegmentError> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Whether a segment's first two blocks, which its first write fills, hold anything.
fn is_used<D: Disk>(disk: &D, path: &Path) -> Result<bool, SegmentError> {
    let file = match disk.open(path, OpenMode::READ) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let mut blocks = [0; 2 * BLOCK_BYTES];
    file.read_up_to(&mut blocks, 0).map_err(io_error("read", path))?;
    Ok(blocks.iter().any(|&byte| byte != 0))
}

/// Makes the names in `directory` durable.
pub(crate) fn sync_directory<D: Disk>(disk: &D, directory: &Path) -> Result<(), SegmentError> {
    disk.sync_directory(directory).map_err(io_error("sync", directory))
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SegmentError + 'a {
    move |source| SegmentError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
