//! Reads a segment from front to back through a window of large sequential reads.
//!
//! Place in the flow: start-up. A window holds whole batches: it grows for a batch that is larger, and only to a length
//! that a checksum has confirmed and the file can hold.

use std::io;
use std::path::{Path, PathBuf};

use eyot_ring::AlignedBuffer;

use super::super::format::{BatchHeader, BatchPlace, BLOCK_BYTES};
use super::super::Sequence;
use super::survey::io_error;
use super::RecoveryError;
use crate::disk::{refuses_direct, Disk, DiskFile, OpenMode};

/// One read: long enough for a disk's full speed; together with the batch in work it still fits a core's cache share.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Reads in a row that bring no whole block, an interrupted one included: more are a disk that does not answer.
const SHORT_READS_MAX: u32 = 16;
static ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Where the bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// As the system likes, the page cache first: for segments that were on disk before the next one was begun.
    Cache,
    /// The disk, after a sync: for a segment whose last write may not have completed. What is only in a cache, the
    /// disk's or the system's, must become durable before it is believed, or it could be served now and be gone later.
    Disk,
}

/// An open segment and the window on it.
#[derive(Debug)]
pub(super) struct SegmentReader<'a, D: Disk> {
    disk: &'a D,
    path: PathBuf,
    file: D::File,
    length: u64,
    /// As long as its capacity; the first `filled` bytes are the file's from `window_offset` on.
    window: AlignedBuffer,
    /// A multiple of [`BLOCK_BYTES`].
    window_offset: u64,
    filled: usize,
}

/// What a block tells of a batch.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The header of a batch that belongs there, whether the batch is whole or not.
    pub(super) header: Option<BatchHeader>,
    /// Where the last byte stands that is not zero, counted from 1.
    pub(super) used: usize,
    /// See [`BatchHeader::resembles`].
    pub(super) resembles: bool,
}

impl<'a, D: Disk> SegmentReader<'a, D> {
    pub(super) fn open(disk: &'a D, path: &Path, source: Source) -> Result<Self, RecoveryError> {
        let mode = if source == Source::Disk { OpenMode::READ.direct() } else { OpenMode::READ };
        let file = match disk.open(path, mode) {
            Err(error) if source == Source::Disk && refuses_direct(&error) => disk.open(path, OpenMode::READ),
            outcome => outcome,
        };
        let file = file.map_err(io_error("open", path))?;
        if source == Source::Disk {
            file.sync().map_err(io_error("sync", path))?;
        }
        let length = file.length().map_err(io_error("read the size of", path))?;
        let window = AlignedBuffer::with_capacity(0);
        Ok(Self { disk, path: path.to_owned(), file, length, window, window_offset: 0, filled: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The batch `expected` at `place`, header and padding included, if it is there, whole, and ends at `end` or
    /// before.
    pub(super) fn batch(
        &mut self,
        place: &BatchPlace,
        expected: Sequence,
        end: u64,
    ) -> Result<Option<(BatchHeader, &[u8])>, RecoveryError> {
        let Some(header) = BatchHeader::decode(self.bytes(place.offset, BLOCK_BYTES)?, place) else {
            return Ok(None);
        };
        let padded = header.padded_bytes();
        if header.sequence != expected || padded as u64 > end.saturating_sub(place.offset) {
            return Ok(None);
        }
        let batch = self.bytes(place.offset, padded)?;
        Ok((batch.len() == padded && header.covers(batch, place)).then_some((header, batch)))
    }

    /// What the block at `place` tells of a batch, where `sequence` was expected before it.
    pub(super) fn trace(&mut self, place: &BatchPlace, sequence: Sequence) -> Result<Trace, RecoveryError> {
        let block = self.bytes(place.offset, BLOCK_BYTES)?;
        if *block == ZERO_BLOCK[..block.len()] {
            return Ok(Trace::default());
        }
        let used = block.iter().rposition(|&byte| byte != 0).map_or(0, |position| position + 1);
        let header = BatchHeader::decode(block, place);
        Ok(Trace { header, used, resembles: BatchHeader::resembles(block, place, sequence) })
    }

    /// `count` bytes from `offset` on, or fewer where the file ends. Offsets are in whole blocks and do not go back
    /// beyond the window.
    fn bytes(&mut self, offset: u64, count: usize) -> Result<&[u8], RecoveryError> {
        if offset < self.window_offset || offset + count as u64 > self.window_offset + self.filled as u64 {
            self.move_window(offset, count).map_err(io_error("read", &self.path))?;
        }
        let start = (offset - self.window_offset) as usize;
        let end = (start + count).min(self.filled);
        Ok(&self.window[start.min(end)..end])
    }

    fn move_window(&mut self, offset: u64, count: usize) -> io::Result<()> {
        let kept = (self.window_offset + self.filled as u64).saturating_sub(offset) as usize;
        if offset >= self.window_offset && kept > 0 {
            self.window.copy_within(self.filled - kept..self.filled, 0);
            self.filled = kept;
        } else {
            self.filled = 0;
        }
        self.window_offset = offset;
        let rest = self.length.saturating_sub(offset).min(WINDOW_BYTES as u64) as usize;
        let wanted = count.max(rest).next_multiple_of(BLOCK_BYTES);
        if self.window.len() < wanted {
            self.window.resize(wanted);
        }
        self.fill()
    }

    /// Reads on until the window is full or the file ends.
    fn fill(&mut self) -> io::Result<()> {
        let mut without_progress = 0;
        while !self.at_end() && self.filled < self.window.len() {
            let before = self.filled;
            self.read_on()?;
            // A read may end within a block, at the end of the file or short of it: the next one starts at a block
            // again.
            self.filled -= if self.at_end() { 0 } else { self.filled % BLOCK_BYTES };
            without_progress = if self.filled > before { 0 } else { without_progress + 1 };
            if without_progress > SHORT_READS_MAX {
                return Err(io::Error::other("reads stop within a block, again and again"));
            }
        }
        Ok(())
    }

    fn read_on(&mut self) -> io::Result<()> {
        let offset = self.window_offset + self.filled as u64;
        let mut read = self.file.read_at(&mut self.window[self.filled..], offset);
        if read.as_ref().is_err_and(refuses_direct) {
            // Opened with O_DIRECT, which some file systems refuse only here.
            self.file = self.disk.open(&self.path, OpenMode::READ)?;
            read = self.file.read_at(&mut self.window[self.filled..], offset);
        }
        match read {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
            Ok(bytes) => self.filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn at_end(&self) -> bool {
        self.window_offset + self.filled as u64 >= self.length
    }
}
