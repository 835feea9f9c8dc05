//! Decoded values that borrow from the bytes they were decoded from.
//!
//! Place in the flow: what [`Decoder::value`] returns in step 2 (decode); what a client reads replies through.
//!
//! Invariant: a [`ListRef`] or [`MapRef`] is made only by a decoder that validated its bytes whole. Walking one
//! therefore cannot fail; that it does not is asserted, not assumed. A list has no length in bytes on the wire, so
//! passing over a nested list walks it: walking a tree level by level costs its size once per level, of which there are
//! at most [`MAX_DEPTH`](crate::limits::MAX_DEPTH).

use std::fmt;

use super::decode::Decoder;

/// How much of a text or byte string `Debug` shows: it ends up in error messages, whatever a client sent.
const DEBUG_BYTES: usize = 64;

/// One value, borrowed.
#[derive(Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// No value.
    Null,
    /// Text.
    String(&'a str),
    /// A 32-bit integer.
    Int32(i32),
    /// Several values.
    List(ListRef<'a>),
    /// A float.
    Float64(f64),
    /// True or false.
    Boolean(bool),
    /// Microseconds since the epoch.
    Timestamp(i64),
    /// Bytes without meaning.
    Bytes(&'a [u8]),
    /// A 64-bit integer.
    Int64(i64),
    /// An error.
    Error(ErrorRef<'a>),
    /// Pairs of key and value.
    Map(MapRef<'a>),
}

/// Bounded, so that a value may be named in an error message: long texts are cut, lists and maps show their size only.
impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::String(text) => fmt_cut(f, "String", text.as_bytes()),
            Self::Int32(number) => write!(f, "Int32({number})"),
            Self::List(list) => list.fmt(f),
            Self::Float64(number) => write!(f, "Float64({number:?})"),
            Self::Boolean(boolean) => write!(f, "Boolean({boolean})"),
            Self::Timestamp(at_us) => write!(f, "Timestamp({at_us})"),
            Self::Bytes(bytes) => fmt_cut(f, "Bytes", bytes),
            Self::Int64(number) => write!(f, "Int64({number})"),
            Self::Error(error) => {
                fmt_cut(f, "Error", error.message.as_bytes())?;
                write!(f, " code {}", error.code)
            }
            Self::Map(map) => map.fmt(f),
        }
    }
}

fn fmt_cut(f: &mut fmt::Formatter<'_>, name: &str, bytes: &[u8]) -> fmt::Result {
    match bytes.get(..DEBUG_BYTES) {
        Some(start) if start.len() < bytes.len() => {
            write!(f, "{name}(\"{}\"... of {} bytes)", start.escape_ascii(), bytes.len())
        }
        _ => write!(f, "{name}(\"{}\")", bytes.escape_ascii()),
    }
}

/// An error value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorRef<'a> {
    /// The number of the error code; see [`ErrorCode`](crate::ErrorCode).
    pub code: u32,
    /// What happened.
    pub message: &'a str,
}

/// A validated list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ListRef<'a> {
    elements: &'a [u8],
    count: usize,
}

impl<'a> ListRef<'a> {
    /// The list of the `count` values that `elements` holds, which were validated.
    pub(super) fn from_validated(elements: &'a [u8], count: usize) -> Self {
        Self { elements, count }
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no value.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded values, one after the other, without the list's own type and count.
    pub fn encoded(&self) -> &'a [u8] {
        self.elements
    }

    /// The values, in order.
    #[inline]
    pub fn iter(&self) -> ListIter<'a> {
        ListIter { decoder: Decoder::new(self.elements), remaining: self.count }
    }
}

impl fmt::Debug for ListRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({} values, {} bytes)", self.count, self.elements.len())
    }
}

impl<'a> IntoIterator for ListRef<'a> {
    type Item = ValueRef<'a>;
    type IntoIter = ListIter<'a>;

    #[inline]
    fn into_iter(self) -> ListIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &ListRef<'a> {
    type Item = ValueRef<'a>;
    type IntoIter = ListIter<'a>;

    #[inline]
    fn into_iter(self) -> ListIter<'a> {
        self.iter()
    }
}

/// The values of a list.
#[derive(Debug, Clone)]
pub struct ListIter<'a> {
    decoder: Decoder<'a>,
    remaining: usize,
}

impl<'a> Iterator for ListIter<'a> {
    type Item = ValueRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<ValueRef<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        Some(self.decoder.validated_value())
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for ListIter<'_> {}

/// A validated map. Keys may be any value and may repeat.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MapRef<'a> {
    pairs: &'a [u8],
    count: usize,
}

impl<'a> MapRef<'a> {
    /// The map of the `count` pairs that `pairs` holds, which were validated.
    pub(super) fn from_validated(pairs: &'a [u8], count: usize) -> Self {
        Self { pairs, count }
    }

    /// How many pairs it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no pair.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded pairs, one after the other, without the map's own type and count.
    pub fn encoded(&self) -> &'a [u8] {
        self.pairs
    }

    /// The pairs, in order.
    #[inline]
    pub fn iter(&self) -> MapIter<'a> {
        MapIter { decoder: Decoder::new(self.pairs), remaining: self.count }
    }

    /// The value of the first pair whose key is the string `key`. It walks the map: for maps of few pairs.
    pub fn get(&self, key: &str) -> Option<ValueRef<'a>> {
        self.iter().find(|(name, _)| *name == ValueRef::String(key)).map(|(_, value)| value)
    }
}

impl fmt::Debug for MapRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} pairs, {} bytes)", self.count, self.pairs.len())
    }
}

impl<'a> IntoIterator for MapRef<'a> {
    type Item = (ValueRef<'a>, ValueRef<'a>);
    type IntoIter = MapIter<'a>;

    #[inline]
    fn into_iter(self) -> MapIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &MapRef<'a> {
    type Item = (ValueRef<'a>, ValueRef<'a>);
    type IntoIter = MapIter<'a>;

    #[inline]
    fn into_iter(self) -> MapIter<'a> {
        self.iter()
    }
}

/// The pairs of a map.
#[derive(Debug, Clone)]
pub struct MapIter<'a> {
    decoder: Decoder<'a>,
    remaining: usize,
}

impl<'a> Iterator for MapIter<'a> {
    type Item = (ValueRef<'a>, ValueRef<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        Some((self.decoder.validated_value(), self.decoder.validated_value()))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for MapIter<'_> {}
