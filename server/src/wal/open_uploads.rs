//! Large values that were on their way into a shard's log when a snapshot began: their parts are needed although the
//! snapshot's index is higher, since the command that names them comes after it.
//!
//! Place in the flow: beside step 6, one per shard of a running core. A snapshot asks it once, when its index is
//! decided. Pure.
//!
//! Invariant: an upload is here from its first part on until a snapshot at or after its end has asked. Uploads do not
//! outlive the process, so a new start begins without any.
//!
//! Deliberately not here: the values.

use std::collections::HashMap;

use eyot_protocol::value_part::{UploadId, ValuePart};
use eyot_raft_glue::Index;

/// Where an upload's parts stand in the shard's log.
#[derive(Debug, Clone, Copy)]
struct Extent {
    first: Index,
    /// Its newest part.
    last: Index,
    /// The entry that stores it or gives it up.
    end: Option<Index>,
}

/// The uploads of one shard that a snapshot may cut in two.
#[derive(Debug, Default)]
pub struct OpenUploads {
    uploads: HashMap<UploadId, Extent>,
}

impl OpenUploads {
    /// A part was given to the log as the entry at `index`.
    pub fn part(&mut self, index: Index, part: &ValuePart<'_>) {
        match *part {
            ValuePart::Bytes { upload, .. } => {
                self.uploads.entry(upload).or_insert(Extent { first: index, last: index, end: None }).last = index;
            }
            ValuePart::GivenUp { upload } => self.ended(upload, index),
        }
    }

    /// The entry at `index` has a command that takes the upload.
    pub fn ended(&mut self, upload: UploadId, index: Index) {
        if let Some(extent) = self.uploads.get_mut(&upload) {
            extent.end = Some(index);
        }
    }

    /// The upload will have no command, and the log does not say so.
    pub fn abandoned(&mut self, upload: UploadId) {
        if let Some(extent) = self.uploads.get_mut(&upload) {
            extent.end = Some(extent.last);
        }
    }

    /// A snapshot of the shard begins that covers the entries up to `covered`: up to which entry does it make the log
    /// superfluous? That is `covered`, or the entry before the first part of an upload that is not over by then.
    ///
    /// What is over is forgotten: `covered` must not decrease from call to call.
    pub fn needed_after(&mut self, covered: Index) -> Index {
        self.uploads.retain(|_, extent| extent.end.is_none_or(|end| end > covered));
        let first = self.uploads.values().map(|extent| extent.first).min();
        first.map_or(covered, |first| covered.min(Index(first.0 - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(upload: u64) -> ValuePart<'static> {
        ValuePart::Bytes { upload: UploadId(upload), offset: 0, total: 5, bytes: b"a" }
    }

    #[test]
    fn without_uploads_a_snapshot_makes_everything_before_it_superfluous() {
        assert_eq!(OpenUploads::default().needed_after(Index(77)), Index(77));
    }

    #[test]
    fn an_upload_is_kept_whole_by_every_snapshot_before_its_command_and_by_none_after_it() {
        let mut uploads = OpenUploads::default();
        [10, 12, 14].into_iter().for_each(|index| uploads.part(Index(index), &part(1)));
        uploads.part(Index(13), &part(2));
        uploads.ended(UploadId(1), Index(16));
        for (covered, needed_after) in [(9, 9), (10, 9), (15, 9), (16, 12), (20, 12)] {
            assert_eq!(uploads.needed_after(Index(covered)), Index(needed_after), "snapshot at {covered}");
        }
        uploads.part(Index(21), &ValuePart::GivenUp { upload: UploadId(2) });
        assert_eq!(uploads.needed_after(Index(20)), Index(12), "its parts are read before the one that gives it up");
        assert_eq!(uploads.needed_after(Index(21)), Index(21));
        assert!(uploads.uploads.is_empty());
    }

    #[test]
    fn an_upload_that_nobody_ends_in_the_log_does_not_hold_it_for_ever() {
        let mut uploads = OpenUploads::default();
        [3, 4].into_iter().for_each(|index| uploads.part(Index(index), &part(1)));
        uploads.abandoned(UploadId(1));
        uploads.abandoned(UploadId(2));
        assert_eq!(uploads.needed_after(Index(3)), Index(2), "a part of it comes behind the snapshot");
        assert_eq!(uploads.needed_after(Index(4)), Index(4));
    }
}
