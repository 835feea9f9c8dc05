//! The native protocol: length-prefixed frames, many in flight, matched by request id.
//!
//! Place in the flow: steps 2 (decode) and 9 (reply).
//!
//! ```text
//!  0       4         5    6       8            12                16
//! +-------+---------+----+-------+------------+-----------------+---------------------+
//! | len   | version | op | flags | request id | optional fields | payload             |
//! | u32   | u8 = 1  | u8 | u16   | u32        | by flags        | one TLV DataInput   |
//! +-------+---------+----+-------+------------+-----------------+---------------------+
//!         |<------------------------------ len bytes --------------------------------->|
//!
//! flags of a request
//!   bits 0-1   acknowledgement: 0 default, 1 memory, 2 fsync, 3 quorum
//!   bits 2-4   read level: 0 linearizable, 1 lease, 2 session, 3 bounded, 4 any; 5 to 7 reserved
//!   bit  5     a deadline follows the header: u32 milliseconds, at least 1
//!   bit  6     a session token follows                               (reserved: not offered yet)
//!   bit  7     the payload is compressed                             (reserved: not offered yet)
//!   bit  8     more frames of this request follow                    (reserved: not offered yet)
//!   bit  9     a timing trailer is wanted                            (reserved: not offered yet)
//!   bit  10    a maximum age follows (after the deadline): u32 milliseconds; with read level 3 and only then
//!   bits 11-15 reserved, zero
//!
//! a reply has op = the request's op | 0x80, the same request id, and flags
//!   bit  0     the payload is [error]
//! ```
//!
//! Replies come in any order. The payloads, operation by operation, stand in [`codec`] and [`mod@reply`].

pub mod batch;
pub mod codec;
pub mod frame;
pub mod hello;
pub mod reply;
pub mod snapshot;

pub use codec::{decode_request, encode_request, large_set, without_value, LargeSet};
pub use frame::{split_frame, Frame, FrameHeader, Split, HEADER_BYTES, MIN_FRAME_BYTES, PROTOCOL_VERSION, REPLY_BIT};
pub use reply::decode_reply;
