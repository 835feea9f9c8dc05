//! What can be wrong with the bytes of a value.
//!
//! Place in the flow: step 2 (decode) turns one of these into an `INVALID_VALUE` reply. Every offset counts from the
//! first byte that the decoder was given.

/// Bytes that are not a valid TLV value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlvError {
    /// The bytes end before the value does.
    #[error("value is cut off: {needed} more bytes are needed at byte {offset}, {available} are there")]
    Truncated {
        /// Where the missing bytes should begin.
        offset: usize,
        /// How many bytes are needed from there, at least.
        needed: usize,
        /// How many bytes are there.
        available: usize,
    },
    /// A reserved type byte.
    #[error("unknown type {type_byte:#04x} at byte {offset}; this version knows 0x00 to 0x0a")]
    UnknownType {
        /// Where the type byte is.
        offset: usize,
        /// What it is.
        type_byte: u8,
    },
    /// A varint that goes on after ten bytes.
    #[error("varint at byte {offset} is longer than 10 bytes")]
    VarintTooLong {
        /// Where the varint begins.
        offset: usize,
    },
    /// A varint with a needless last byte.
    #[error("varint at byte {offset} is not in its shortest form")]
    VarintNotMinimal {
        /// Where the varint begins.
        offset: usize,
    },
    /// A length or count of more than 64 bits, or more than this machine can address.
    #[error("length or count at byte {offset} is larger than this machine can address")]
    LengthOverflow {
        /// Where the varint begins.
        offset: usize,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8 at byte {offset}; send it as bytes (0x07)")]
    InvalidUtf8 {
        /// Where the first byte is that does not belong to a character.
        offset: usize,
    },
    /// More lists and maps inside each other than allowed.
    #[error("list or map at byte {offset} is nested deeper than {limit}")]
    TooDeep {
        /// Where the type byte of the list or map is.
        offset: usize,
        /// The limit.
        limit: usize,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("boolean at byte {offset} is {byte:#04x}; it must be 0x00 or 0x01")]
    InvalidBoolean {
        /// Where the byte is.
        offset: usize,
        /// What it is.
        byte: u8,
    },
    /// Bytes after the last value.
    #[error("{count} bytes too many after the value, from byte {offset}")]
    TrailingBytes {
        /// Where they begin.
        offset: usize,
        /// How many there are.
        count: usize,
    },
    /// A value of another type than the one that belongs there.
    #[error("type {found:#04x} at byte {offset}, where {expected} belongs")]
    Unexpected {
        /// Where the type byte is.
        offset: usize,
        /// What belongs there.
        expected: &'static str,
        /// The type byte that is there.
        found: u8,
    },
}

impl TlvError {
    /// The name of the kind of error, as the golden vectors give it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated { .. } => "Truncated",
            Self::UnknownType { .. } => "UnknownType",
            Self::VarintTooLong { .. } => "VarintTooLong",
            Self::VarintNotMinimal { .. } => "VarintNotMinimal",
            Self::LengthOverflow { .. } => "LengthOverflow",
            Self::InvalidUtf8 { .. } => "InvalidUtf8",
            Self::TooDeep { .. } => "TooDeep",
            Self::InvalidBoolean { .. } => "InvalidBoolean",
            Self::TrailingBytes { .. } => "TrailingBytes",
            Self::Unexpected { .. } => "Unexpected",
        }
    }
}
