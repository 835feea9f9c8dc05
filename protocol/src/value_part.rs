//! A part of a large value in a shard's log, between the arrival of its first byte and the command that stores it.
//!
//! Place in the flow: step 6 (log) carries a large value as entries of their own kind, each small enough to be written
//! beside the entries of others, so that neither memory nor a turn has to hold all of it; a SET that names the upload
//! ends them. Recovery puts the parts together again.
//!
//! ```text
//! part     | upload u64 | offset u64 | total u64 | bytes |
//!
//! upload   the start of the node that wrote it (32 bits) | its number within that start (32 bits)
//! offset   where the bytes belong in the value; parts of an upload stand in the log in order, without gaps
//! total    bytes of the whole value; 0, with offset 0 and no bytes: the upload was given up
//! ```
//!
//! Invariants:
//! - An upload's number is used once. One of an earlier start than the newest part's will never be finished: nobody is
//!   left to do so.

use crate::limits::MAX_VALUE_BYTES;

/// Bytes before a part's own.
pub const PART_HEADER_BYTES: usize = 24;

/// Most bytes of a part: it is copied into the log in one turn.
pub const MAX_PART_BYTES: usize = 1 << 20;

/// Names a large value between its first part and the command that stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub u64);

impl UploadId {
    /// The upload with `number` of the node's start `epoch`, of which the low 32 bits count.
    pub fn new(epoch: u64, number: u32) -> Self {
        Self(epoch << 32 | u64::from(number))
    }

    /// The low 32 bits of the start that wrote it.
    pub fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A part, its bytes borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValuePart<'a> {
    /// Some bytes of the value.
    Bytes {
        /// Of which value.
        upload: UploadId,
        /// Where they belong.
        offset: u64,
        /// Bytes of the whole value.
        total: u64,
        /// They themselves: at least one, at most [`MAX_PART_BYTES`].
        bytes: &'a [u8],
    },
    /// The value will never be whole.
    GivenUp {
        /// Which value.
        upload: UploadId,
    },
}

/// A payload that is no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a part of a value: {problem}")]
pub struct ValuePartError {
    /// What is wrong with it.
    pub problem: &'static str,
}

impl<'a> ValuePart<'a> {
    /// Writes the bytes before the part's own.
    ///
    /// # Panics
    /// On a part that [`ValuePart::decode`] would refuse.
    pub fn header(&self) -> [u8; PART_HEADER_BYTES] {
        let (upload, offset, total) = match *self {
            Self::Bytes { upload, offset, total, bytes } => {
                check(offset, total, bytes).expect("a part that is one");
                (upload, offset, total)
            }
            Self::GivenUp { upload } => (upload, 0, 0),
        };
        let mut header = [0; PART_HEADER_BYTES];
        header[0..8].copy_from_slice(&upload.0.to_le_bytes());
        header[8..16].copy_from_slice(&offset.to_le_bytes());
        header[16..24].copy_from_slice(&total.to_le_bytes());
        header
    }

    /// Reads the payload of an entry.
    ///
    /// # Errors
    /// See [`ValuePartError`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, ValuePartError> {
        let (header, bytes) = payload
            .split_first_chunk::<PART_HEADER_BYTES>()
            .ok_or(ValuePartError { problem: "it is shorter than its header" })?;
        let field = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let (upload, offset, total) = (UploadId(field(0)), field(8), field(16));
        if (offset, total, bytes.len()) == (0, 0, 0) {
            return Ok(Self::GivenUp { upload });
        }
        check(offset, total, bytes)?;
        Ok(Self::Bytes { upload, offset, total, bytes })
    }
}

fn check(offset: u64, total: u64, bytes: &[u8]) -> Result<(), ValuePartError> {
    let problem = if bytes.is_empty() || bytes.len() > MAX_PART_BYTES {
        "it has no bytes, or more than 1 MiB"
    } else if total > MAX_VALUE_BYTES as u64 {
        "its value is longer than any may be"
    } else if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > total) {
        "it reaches beyond its value"
    } else {
        return Ok(());
    };
    Err(ValuePartError { problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLOAD: UploadId = UploadId(0x0000_0007_0000_0002);

    fn encode(part: &ValuePart<'_>) -> Vec<u8> {
        let mut payload = part.header().to_vec();
        if let ValuePart::Bytes { bytes, .. } = part {
            payload.extend_from_slice(bytes);
        }
        payload
    }

    #[test]
    fn the_bytes_of_a_part_are_these() {
        let part = ValuePart::Bytes { upload: UPLOAD, offset: 0x10, total: 0x12, bytes: b"ab" };
        let expected: Vec<u8> = [&[2, 0, 0, 0, 7, 0, 0, 0, 0x10][..], &[0; 7], &[0x12], &[0; 7], b"ab"].concat();
        assert_eq!(encode(&part), expected);
        assert_eq!(ValuePart::decode(&expected), Ok(part));
        let given_up = ValuePart::GivenUp { upload: UPLOAD };
        assert_eq!(encode(&given_up).len(), PART_HEADER_BYTES);
        assert_eq!(ValuePart::decode(&encode(&given_up)), Ok(given_up));
    }

    #[test]
    fn the_documentation_has_the_same_diagram() {
        let source = include_str!("value_part.rs");
        let lines = source.lines().map(|line| line.strip_prefix("//!").unwrap_or(line).trim_start());
        let diagram: Vec<&str> =
            lines.skip_while(|line| *line != "```text").skip(1).take_while(|line| *line != "```").collect();
        assert_eq!(diagram.len(), 5);
        let document = include_str!("../../docs/LOG.md");
        assert!(document.contains(&diagram.join("\n")), "docs/LOG.md differs from the diagram of value_part.rs");
    }

    #[test]
    fn an_upload_tells_its_start() {
        assert_eq!(UploadId::new(7, 2), UPLOAD);
        assert_eq!(UPLOAD.epoch(), 7);
        assert_eq!(UploadId::new(0x5_0000_0007, 2), UPLOAD, "32 bits of starts are enough to tell them apart");
        assert!(UploadId::new(7, u32::MAX) < UploadId::new(8, 0));
    }

    #[test]
    fn what_is_no_part_is_refused() {
        let payload = |offset: u64, total: u64, bytes: usize| {
            [&UPLOAD.0.to_le_bytes()[..], &offset.to_le_bytes(), &total.to_le_bytes(), &vec![0; bytes]].concat()
        };
        for (payload, problem) in [
            (vec![0; PART_HEADER_BYTES - 1], "shorter"),
            (payload(0, 5, 0), "no bytes"),
            (payload(5, 0, 0), "no bytes"),
            (payload(0, 4 << 20, MAX_PART_BYTES + 1), "more than 1 MiB"),
            (payload(0, MAX_VALUE_BYTES as u64 + 1, 1), "longer"),
            (payload(4, 5, 2), "beyond"),
            (payload(u64::MAX, 5, 2), "beyond"),
        ] {
            let refused = ValuePart::decode(&payload).unwrap_err();
            assert!(refused.problem.contains(problem), "{refused} instead of {problem}");
        }
        assert!(ValuePart::decode(&payload(0, MAX_VALUE_BYTES as u64, MAX_PART_BYTES)).is_ok());
    }
}
