//! Large values between their first part in the log and the command that stores them.
//!
//! Place in the flow: steps 6 to 8. In operation a value arrives in its place, its parts go into the log from there,
//! and it waits here for its command to be applied; in recovery it is put together here from the parts that the log
//! has.
//!
//! Invariants:
//! - What a command takes is all of the value, byte for byte what its parts said: parts are taken in order and without
//!   gaps only.
//! - An upload of an earlier start than the newest one seen is dropped: who wrote it is gone, so it stays unfinished.
//!   So recovery holds no more of them than one start had under way.
//!
//! Deliberately not here: files. Where a value may be kept is what the caller allocates.

use std::collections::HashMap;
use std::io;

use eyot_protocol::value_part::{UploadId, ValuePart, ValuePartError};
use eyot_ring::{MappedBytes, MappedRegion};

/// A large value that is whole.
#[derive(Debug)]
pub enum WholeValue {
    /// On the heap, where no file takes it.
    Memory(Vec<u8>),
    /// In the value file.
    Mapped(MappedBytes),
}

impl WholeValue {
    /// Its bytes. See [`MappedBytes::bytes`] for the warning.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(bytes) => bytes.bytes(),
        }
    }
}

/// A large value that comes in parts, of the log or of a snapshot.
#[derive(Debug)]
pub struct GrowingValue {
    bytes: Bytes,
    /// How long it will be.
    total: usize,
}

#[derive(Debug)]
enum Bytes {
    Memory(Vec<u8>),
    Mapped { region: MappedRegion, filled: usize },
}

#[derive(Debug)]
enum Upload {
    Filling(GrowingValue),
    Whole(WholeValue),
}

/// Why a part cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The payload is no part.
    #[error(transparent)]
    Malformed(#[from] ValuePartError),
    /// The part does not follow the one before it.
    #[error("a part at byte {offset} of {total} of an upload of which {expected} bytes are there")]
    OutOfOrder {
        /// Where it says that it belongs.
        offset: u64,
        /// How long it says that the value is.
        total: u64,
        /// Where the next part belongs.
        expected: u64,
    },
    /// The parts are longer together than the value, or shorter.
    #[error("{bytes} bytes of a value of {total}")]
    OtherLength {
        /// How long the parts are.
        bytes: u64,
        /// How long the value is.
        total: u64,
    },
    /// There is no room for the value.
    #[error("no room for a large value: {0}")]
    NoRoom(#[from] io::Error),
}

/// The uploads of one shard.
#[derive(Debug, Default)]
pub struct Uploads {
    uploads: HashMap<UploadId, Upload>,
    newest_epoch: u32,
}

impl Uploads {
    /// Takes a part from the log. A new value is kept where `allocate` says: in a region of so many bytes or more, or,
    /// without one, on the heap. `is_covered`: a snapshot holds what the log did up to here, and its first parts may
    /// have been cut off; then nobody needs it, and it is passed over.
    ///
    /// # Errors
    /// The log says something that no node wrote, or there is no room.
    pub fn part(
        &mut self,
        payload: &[u8],
        is_covered: bool,
        allocate: impl FnOnce(usize) -> io::Result<Option<MappedRegion>>,
    ) -> Result<(), UploadError> {
        let (upload, offset, total, bytes) = match ValuePart::decode(payload)? {
            ValuePart::Bytes { upload, offset, total, bytes } => (upload, offset, total, bytes),
            ValuePart::GivenUp { upload } => {
                self.uploads.remove(&upload);
                return Ok(());
            }
        };
        self.forget_before(upload.epoch());
        let mut value = match self.uploads.remove(&upload) {
            Some(Upload::Filling(value)) => value,
            Some(Upload::Whole(whole)) => {
                let expected = whole.bytes().len() as u64;
                return Err(UploadError::OutOfOrder { offset, total, expected });
            }
            None if offset == 0 => GrowingValue::new(total as usize, allocate)?,
            None if is_covered => return Ok(()),
            None => return Err(UploadError::OutOfOrder { offset, total, expected: 0 }),
        };
        let expected = value.len() as u64;
        if offset != expected || total != value.total as u64 {
            return Err(UploadError::OutOfOrder { offset, total, expected });
        }
        value.push(bytes)?;
        let upload_now = if value.is_whole() { Upload::Whole(value.into_whole()?) } else { Upload::Filling(value) };
        self.uploads.insert(upload, upload_now);
        Ok(())
    }

    fn forget_before(&mut self, epoch: u32) {
        if epoch > self.newest_epoch {
            self.newest_epoch = epoch;
            self.uploads.retain(|upload, _| upload.epoch() >= epoch);
        }
    }

    /// Keeps a value that arrived whole, in operation, for its command.
    pub fn put(&mut self, upload: UploadId, value: WholeValue) {
        self.uploads.insert(upload, Upload::Whole(value));
    }

    /// Whether all of `upload` is there.
    pub fn is_whole(&self, upload: UploadId) -> bool {
        matches!(self.uploads.get(&upload), Some(Upload::Whole(_)))
    }

    /// The value of `upload` for the command that names it; `None` if it is not whole, or was taken.
    pub fn take(&mut self, upload: UploadId) -> Option<WholeValue> {
        match self.uploads.remove(&upload)? {
            Upload::Whole(value) => Some(value),
            filling @ Upload::Filling(_) => {
                self.uploads.insert(upload, filling);
                None
            }
        }
    }

    /// A command that a snapshot holds has taken `upload`.
    pub fn pass_over(&mut self, upload: UploadId) {
        self.uploads.remove(&upload);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.uploads.is_empty()
    }

    /// Drops what was never finished: the log ends here, and nobody goes on with it. Returns how many there were.
    pub fn drop_unfinished(&mut self) -> usize {
        let count = self.uploads.len();
        self.uploads.clear();
        count
    }
}

impl GrowingValue {
    /// A value that will have `total` bytes, and has none. It is kept where `allocate` says: in a region of so many
    /// bytes or more, or, without one, on the heap.
    ///
    /// # Errors
    /// There is no room.
    pub fn new(
        total: usize,
        allocate: impl FnOnce(usize) -> io::Result<Option<MappedRegion>>,
    ) -> Result<Self, UploadError> {
        let bytes = match allocate(total)? {
            Some(mut region) => {
                assert!(region.len() >= total, "as much as was asked for");
                // Recovery may wait, and a full disk must be an error here and no signal later.
                region.populate()?;
                Bytes::Mapped { region, filled: 0 }
            }
            // It grows with what is really there.
            None => Bytes::Memory(Vec::new()),
        };
        Ok(Self { bytes, total })
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// They are more than the value has; nothing has changed then.
    pub fn push(&mut self, part: &[u8]) -> Result<(), UploadError> {
        let (length, total) = (self.len(), self.total);
        if part.len() > total - length {
            return Err(UploadError::OtherLength { bytes: length as u64 + part.len() as u64, total: total as u64 });
        }
        match &mut self.bytes {
            Bytes::Memory(bytes) => bytes.extend_from_slice(part),
            Bytes::Mapped { region, filled } => {
                region.bytes_mut()[*filled..*filled + part.len()].copy_from_slice(part);
                *filled += part.len();
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        match &self.bytes {
            Bytes::Memory(bytes) => bytes.len(),
            Bytes::Mapped { filled, .. } => *filled,
        }
    }

    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        self.len() == self.total
    }

    /// The value.
    ///
    /// # Errors
    /// A part of it is missing.
    pub fn into_whole(self) -> Result<WholeValue, UploadError> {
        if !self.is_whole() {
            return Err(UploadError::OtherLength { bytes: self.len() as u64, total: self.total as u64 });
        }
        Ok(match self.bytes {
            Bytes::Memory(bytes) => WholeValue::Memory(bytes),
            Bytes::Mapped { region, filled } => WholeValue::Mapped(region.share(filled)),
        })
    }
}

#[cfg(test)]
mod tests;
