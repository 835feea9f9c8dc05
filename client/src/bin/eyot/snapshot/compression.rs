//! Zstandard, as the snapshot format takes it: a function each way.
//!
//! Place in the flow: given to the format's writer and decoder, which know nothing of it.
//!
//! Invariant: the same chunk gives the same frame: level and library decide, nothing else.

use eyot_protocol::snapshot::{Compress, Decompress};

/// The library's own default: most of what can be gained, at hundreds of megabytes a second.
const LEVEL: i32 = 3;

/// What compresses chunks.
pub fn compressor() -> Compress {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("memory for a compressor");
    Box::new(move |chunk, out| {
        let frame = compressor.compress(chunk).expect("memory for a frame; a chunk of any bytes can be compressed");
        out.extend_from_slice(&frame);
    })
}

/// What decompresses them, into a buffer of the length that they claim.
pub fn decompressor() -> Decompress {
    let mut decompressor = zstd::bulk::Decompressor::new().expect("memory for a decompressor");
    Box::new(move |frame, chunk| {
        let length = chunk.len();
        matches!(decompressor.decompress_to_buffer(frame, chunk), Ok(written) if written == length)
    })
}
