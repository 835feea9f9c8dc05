//! Finding frames in a stream of bytes, and their headers.
//!
//! Place in the flow: the first half of step 2 (decode). Works on whatever part of the stream has arrived; keeps
//! nothing.
//!
//! Invariant: the length is compared with the limit before a byte of the payload is waited for.

use crate::error::{ErrorCode, ProtocolError};
use crate::request::{AckLevel, ReadLevel, RequestOptions};

/// The version that this crate speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// Bytes of the header, with the length itself.
pub const HEADER_BYTES: usize = 12;
/// The smallest value of the length field: a header and no payload.
pub const MIN_FRAME_BYTES: usize = HEADER_BYTES - LENGTH_BYTES;
/// Set in the operation code of every reply.
pub const REPLY_BIT: u8 = 0x80;
/// Set in the flags of a reply whose payload is an error.
pub const REPLY_FLAG_ERROR: u16 = 1;

pub(crate) const LENGTH_BYTES: usize = 4;
const FLAGS_ACK: u16 = 0b11;
const FLAGS_READ_SHIFT: u32 = 2;
const FLAG_DEADLINE: u16 = 1 << 5;
const FLAG_MAX_AGE: u16 = 1 << 10;
/// What this version does not offer, and how an error message names it.
const FLAGS_NOT_OFFERED: [(u16, &str); 4] =
    [(1 << 6, "session tokens"), (1 << 7, "compression"), (1 << 8, "streams"), (1 << 9, "timing trailers")];
const FLAGS_RESERVED: u16 = 0b1111_1000_0000_0000;

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The protocol version of the sender.
    pub version: u8,
    /// The operation code, with [`REPLY_BIT`] in a reply.
    pub op: u8,
    /// See [`crate::native`].
    pub flags: u16,
    /// Chosen by the client; comes back in the reply.
    pub request_id: u32,
}

/// One whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The fixed part.
    pub header: FrameHeader,
    /// Optional fields and payload.
    pub body: &'a [u8],
}

/// What the bytes at hand begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole frame, which takes `consumed` bytes.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Its length with the length field.
        consumed: usize,
    },
    /// Part of a frame.
    Incomplete {
        /// How many bytes it has in all, as far as the bytes at hand tell: never over the limit.
        needed: usize,
    },
}

/// Takes the first frame off `input`. `max_frame_bytes` bounds the length field.
///
/// # Errors
/// `MALFORMED_FRAME` and `FRAME_TOO_LARGE`: the stream cannot be followed any further.
#[inline]
pub fn split_frame(input: &[u8], max_frame_bytes: usize) -> Result<Split<'_>, ProtocolError> {
    let Some(length) = input.first_chunk::<LENGTH_BYTES>() else {
        return Ok(Split::Incomplete { needed: HEADER_BYTES });
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length < MIN_FRAME_BYTES {
        return Err(too_short(length));
    }
    if length > max_frame_bytes {
        return Err(too_long(length, max_frame_bytes));
    }
    let consumed = LENGTH_BYTES + length;
    let Some(frame) = input.get(..consumed) else {
        return Ok(Split::Incomplete { needed: consumed });
    };
    let (header, body) = frame.split_first_chunk::<HEADER_BYTES>().expect("length checked above");
    let [_, _, _, _, version, op, f0, f1, r0, r1, r2, r3] = *header;
    let header = FrameHeader {
        version,
        op,
        flags: u16::from_le_bytes([f0, f1]),
        request_id: u32::from_le_bytes([r0, r1, r2, r3]),
    };
    Ok(Split::Frame { frame: Frame { header, body }, consumed })
}

#[cold]
fn too_short(length: usize) -> ProtocolError {
    ProtocolError::new(
        ErrorCode::MalformedFrame,
        format!("frame length {length} is below the header's {MIN_FRAME_BYTES} bytes"),
    )
}

#[cold]
fn too_long(length: usize, limit: usize) -> ProtocolError {
    ProtocolError::new(
        ErrorCode::FrameTooLarge,
        format!("frame of {length} bytes is over this server's limit of {limit}; send a smaller value or raise --max-value-size"),
    )
}

/// Appends a header whose length is still to be told; returns where the frame starts, for [`finish`].
pub(crate) fn begin(out: &mut Vec<u8>, header: FrameHeader) -> usize {
    let start = out.len();
    let id = header.request_id.to_le_bytes();
    let flags = header.flags.to_le_bytes();
    out.extend_from_slice(&[0, 0, 0, 0, header.version, header.op, flags[0], flags[1], id[0], id[1], id[2], id[3]]);
    start
}

/// Writes the length of the frame that [`begin`] started at `start`.
///
/// # Panics
/// When the frame is longer than its length field can say; every limit is far below that.
pub(crate) fn finish(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len() - start - LENGTH_BYTES).expect("a frame of less than 4 GiB");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// The flags that say `options`.
pub(crate) fn option_flags(options: &RequestOptions) -> u16 {
    let ack = match options.ack {
        AckLevel::Default => 0,
        AckLevel::Memory => 1,
        AckLevel::Fsync => 2,
        AckLevel::Quorum => 3,
    };
    let (read, age) = match options.read {
        ReadLevel::Linearizable => (0, 0),
        ReadLevel::Lease => (1, 0),
        ReadLevel::Bounded { .. } => (3, FLAG_MAX_AGE),
        ReadLevel::Any => (4, 0),
    };
    let deadline = if options.deadline_ms.is_some() { FLAG_DEADLINE } else { 0 };
    ack | read << FLAGS_READ_SHIFT | age | deadline
}

/// Appends the optional fields that [`option_flags`] announced.
pub(crate) fn put_option_fields(out: &mut Vec<u8>, options: &RequestOptions) {
    if let Some(deadline_ms) = options.deadline_ms {
        out.extend_from_slice(&deadline_ms.to_le_bytes());
    }
    if let ReadLevel::Bounded { max_age_ms } = options.read {
        out.extend_from_slice(&max_age_ms.to_le_bytes());
    }
}

/// Reads the options off a request's flags and body; returns them and the payload.
#[inline]
pub(crate) fn take_options<'a>(frame: &Frame<'a>) -> Result<(RequestOptions, &'a [u8]), ProtocolError> {
    if frame.header.flags == 0 {
        return Ok((RequestOptions::default(), frame.body));
    }
    take_set_options(frame)
}

fn take_set_options<'a>(frame: &Frame<'a>) -> Result<(RequestOptions, &'a [u8]), ProtocolError> {
    let flags = frame.header.flags;
    let refuse = |what: &str| {
        Err(ProtocolError::new(
            ErrorCode::UnsupportedFeature,
            format!("flags {flags:#06x}: {what} not offered by this server; HELLO lists its features"),
        ))
    };
    for (flag, name) in FLAGS_NOT_OFFERED {
        if flags & flag != 0 {
            return refuse(&format!("{name} are"));
        }
    }
    if flags & FLAGS_RESERVED != 0 {
        return refuse("reserved bits are");
    }
    let mut body = frame.body;
    let mut field = |name: &str| {
        let (value, rest) = body.split_first_chunk::<4>().ok_or_else(|| {
            ProtocolError::new(
                ErrorCode::MalformedFrame,
                format!("flags announce a {name}, but the frame ends before it"),
            )
        })?;
        body = rest;
        Ok::<u32, ProtocolError>(u32::from_le_bytes(*value))
    };
    let deadline_ms = if flags & FLAG_DEADLINE == 0 { None } else { Some(field("deadline")?) };
    if deadline_ms == Some(0) {
        return Err(ProtocolError::new(ErrorCode::InvalidArgument, "a deadline of 0 ms; send at least 1"));
    }
    let max_age_ms = if flags & FLAG_MAX_AGE == 0 { None } else { Some(field("maximum age")?) };
    let ack = match flags & FLAGS_ACK {
        0 => AckLevel::Default,
        1 => AckLevel::Memory,
        2 => AckLevel::Fsync,
        _ => AckLevel::Quorum,
    };
    let read = match ((flags >> FLAGS_READ_SHIFT) & 0b111, max_age_ms) {
        (0, None) => ReadLevel::Linearizable,
        (1, None) => ReadLevel::Lease,
        (3, Some(max_age_ms)) => ReadLevel::Bounded { max_age_ms },
        (4, None) => ReadLevel::Any,
        (2, _) => return refuse("session reads are"),
        (5..=7, _) => return refuse("this read level is"),
        _ => {
            return Err(ProtocolError::new(
                ErrorCode::InvalidArgument,
                "read level 3 (bounded) and the maximum age flag go together",
            ))
        }
    };
    Ok((RequestOptions { ack, read, deadline_ms }, body))
}
