//! The arguments of a request: where they lie in the received bytes.
//!
//! Place in the flow: step 2 (decode), between splitting and parsing. One [`ArgList`] of a core serves all its
//! connections: it keeps its memory, and holds the arguments of as many requests as are decoded ahead.
//!
//! Invariant: a span lies within the bytes that were split, or within the list's own bytes for what had to be unquoted.
//! [`ArgList::of`] must be given the bytes that [`split_request`](super::split_request) was given, as far as they are
//! arguments; other bytes give other arguments or a panic, never a read outside of them.

use std::fmt;

/// Where one argument lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) length: u32,
}

/// The arguments of the requests that were split since the last [`ArgList::clear`].
#[derive(Debug, Default)]
pub struct ArgList {
    pub(super) spans: Vec<Span>,
    /// The words of inline requests, without their quotes.
    pub(super) unquoted: Vec<u8>,
}

/// Which arguments of an [`ArgList`] belong to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestSpans {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) is_unquoted: bool,
}

impl ArgList {
    /// Forgets all requests and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.spans.clear();
        self.unquoted.clear();
    }

    /// How many bytes the list holds on to.
    pub fn capacity_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.unquoted.capacity()
    }

    /// Gives memory back, down to `bytes` of spans: after an unusually long request.
    pub fn shrink_to_bytes(&mut self, bytes: usize) {
        self.spans.shrink_to(bytes / size_of::<Span>());
        self.unquoted.shrink_to(bytes);
    }

    /// The arguments of `request`, which was split off `input`.
    #[inline]
    pub fn of<'a>(&'a self, request: RequestSpans, input: &'a [u8]) -> Args<'a> {
        let bytes = if request.is_unquoted { &self.unquoted } else { input };
        let first = request.first as usize;
        Args { bytes, spans: &self.spans[first..first + request.count as usize], last: None }
    }
}

/// The arguments of one request, borrowed; the first is the command's name. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
    last: Option<&'a [u8]>,
}

impl<'a> Args<'a> {
    /// No argument.
    pub const EMPTY: Self = Self { bytes: &[], spans: &[], last: None };

    /// The same arguments and `last` behind them: a large one that was received into a place of its own.
    #[must_use]
    pub fn with_last(self, last: &'a [u8]) -> Self {
        assert!(self.last.is_none(), "only one argument lies elsewhere");
        Self { last: Some(last), ..self }
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len() + usize::from(self.last.is_some())
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.last.is_none()
    }

    /// The argument at `index`, if there are so many.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        match self.spans.get(index) {
            Some(span) => Some(self.bytes_of(*span)),
            None if index == self.spans.len() => self.last,
            None => None,
        }
    }

    /// The argument at `index`.
    ///
    /// # Panics
    /// When there are not so many: the arity was checked before.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).expect("the arity was checked")
    }

    /// The arguments from `first` on; none if there are not so many.
    #[inline]
    #[must_use]
    pub fn from(self, first: usize) -> Self {
        match self.spans.get(first..) {
            Some(spans) => Self { spans, ..self },
            None => Self { spans: &[], last: None, ..self },
        }
    }

    /// All of them, in order.
    #[inline]
    pub fn iter(self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        (0..self.len()).map(move |index| self.at(index))
    }

    /// Two by two: a key and its value. One that is left alone does not come.
    #[inline]
    pub fn pairs(self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone {
        (0..self.len() / 2).map(move |pair| (self.at(2 * pair), self.at(2 * pair + 1)))
    }

    #[inline]
    fn bytes_of(&self, span: Span) -> &'a [u8] {
        let start = span.start as usize;
        &self.bytes[start..start + span.length as usize]
    }
}

/// How many arguments `Debug` shows, and how much of each: whatever a client sent, a log line stays short.
const DEBUG_ARGUMENTS: usize = 16;
const DEBUG_BYTES: usize = 64;

impl fmt::Debug for Args<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} arguments", self.len())?;
        for argument in self.iter().take(DEBUG_ARGUMENTS) {
            let shown = &argument[..argument.len().min(DEBUG_BYTES)];
            write!(formatter, " \"{}\"", shown.escape_ascii())?;
        }
        Ok(())
    }
}

/// By content, wherever the bytes lie.
impl PartialEq for Args<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Args<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_from_elsewhere_is_the_last() {
        let list =
            ArgList { spans: vec![Span { start: 0, length: 3 }, Span { start: 4, length: 1 }], unquoted: Vec::new() };
        let request = RequestSpans { first: 0, count: 2, is_unquoted: false };
        let args = list.of(request, b"set k").with_last(b"value");
        assert_eq!(args.iter().collect::<Vec<_>>(), [&b"set"[..], b"k", b"value"]);
        assert_eq!(args.from(1).pairs().collect::<Vec<_>>(), [(&b"k"[..], &b"value"[..])]);
        assert_eq!(args.from(2).iter().collect::<Vec<_>>(), [&b"value"[..]]);
        assert!(args.from(3).is_empty());
        assert_eq!(args.get(3), None);
        assert_eq!(args.from(4).len(), 0);
    }
}
