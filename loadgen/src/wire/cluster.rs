//! The shard map over RESP: `CLUSTER SLOTS`, as cluster-aware Redis clients ask it.
//!
//! ```text
//! out   *2 CRLF $7 CRLF CLUSTER CRLF $5 CRLF SLOTS CRLF
//! in    array of ranges: first slot, last slot, then nodes: host, port, and more that is not needed here
//!       *2 CRLF
//!         *3 CRLF  :0 CRLF     :8191 CRLF   *3 CRLF $9 CRLF 127.0.0.1 CRLF :6381 CRLF $40 CRLF id CRLF
//!         *3 CRLF  :8192 CRLF  :16383 CRLF  *3 CRLF $9 CRLF 127.0.0.1 CRLF :6382 CRLF $40 CRLF id CRLF
//! ```
//!
//! Place in the flow: asked once before the load. Of a range's nodes the first counts, which is the one that writes.

use eyot_protocol::key::SLOT_COUNT;

use super::{resp, WireError};

/// The question.
pub const ASK: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";
/// Longest answer that is waited for: a range for every slot, with room for replicas.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Arrays within arrays: ranges, nodes, their metadata, and one to spare.
const MAX_DEPTH: u32 = 5;

/// Slots that one node serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRange {
    /// From this slot on.
    pub first: u16,
    /// Up to this one, which belongs to the range.
    pub last: u16,
    /// The node's host as it calls itself; empty: the one that was asked.
    pub host: String,
    /// The node's port.
    pub port: u16,
}

/// The answer to [`ASK`], once all of it is there.
///
/// # Errors
/// The server refused, or what it sent is no map of slots.
pub fn slots(input: &[u8]) -> Result<Option<Vec<SlotRange>>, WireError> {
    match ranges(&mut Cursor { input, at: 0 }) {
        Ok(ranges) => Ok(Some(ranges)),
        Err(Stop::Cut) if input.len() <= MAX_ANSWER_BYTES => Ok(None),
        Err(Stop::Cut) => Err(WireError(format!("a map of slots over {MAX_ANSWER_BYTES} bytes"))),
        Err(Stop::Wrong(error)) => Err(error),
    }
}

fn ranges(cursor: &mut Cursor<'_>) -> Result<Vec<SlotRange>, Stop> {
    let count = cursor.array()?;
    if count > SLOT_COUNT {
        return Err(wrong(format!("{count} ranges of {SLOT_COUNT} slots")));
    }
    (0..count).map(|_| range(cursor)).collect()
}

fn range(cursor: &mut Cursor<'_>) -> Result<SlotRange, Stop> {
    let parts = cursor.array()?;
    if parts < 3 {
        return Err(wrong("a range without a node".to_owned()));
    }
    let (first, last) = (cursor.integer()?, cursor.integer()?);
    let fields = cursor.array()?;
    if fields < 2 {
        return Err(wrong("a node without a host and a port".to_owned()));
    }
    let host = cursor.text()?;
    let port = cursor.integer()?;
    (2..fields).chain(3..parts).try_for_each(|_| cursor.skip(0))?;
    if first > last || usize::from(last) >= SLOT_COUNT || port == 0 {
        return Err(wrong(format!("a range from slot {first} to {last} at port {port}")));
    }
    Ok(SlotRange { first, last, host, port })
}

/// Why reading stopped.
enum Stop {
    /// More bytes are needed.
    Cut,
    Wrong(WireError),
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Self::Wrong(error)
    }
}

fn wrong(what: String) -> Stop {
    Stop::Wrong(WireError(what))
}

struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn line(&mut self) -> Result<(u8, &'a [u8]), Stop> {
        let (line, bytes) = resp::line(&self.input[self.at..])?.ok_or(Stop::Cut)?;
        self.at += bytes;
        match line.split_first() {
            Some((b'-', text)) => Err(wrong(String::from_utf8_lossy(text).into_owned())),
            Some((&kind, rest)) => Ok((kind, rest)),
            None => Err(wrong("an empty line".to_owned())),
        }
    }

    fn array(&mut self) -> Result<usize, Stop> {
        match self.line()? {
            (b'*', digits) => Ok(resp::number(digits)?),
            (kind, _) => Err(wrong(format!("\"{}\" where an array is expected", kind.escape_ascii()))),
        }
    }

    fn integer(&mut self) -> Result<u16, Stop> {
        match self.line()? {
            (b':', digits) => {
                let number = resp::number(digits)?;
                u16::try_from(number).map_err(|_| wrong(format!("{number}, which is no slot and no port")))
            }
            (kind, _) => Err(wrong(format!("\"{}\" where an integer is expected", kind.escape_ascii()))),
        }
    }

    /// A string; a null is an empty one.
    fn text(&mut self) -> Result<String, Stop> {
        match self.line()? {
            (b'$', b"-1") | (b'_', b"") => Ok(String::new()),
            (b'$', digits) => {
                let bytes = self.bulk(digits)?;
                Ok(String::from_utf8_lossy(bytes).into_owned())
            }
            (kind, _) => Err(wrong(format!("\"{}\" where a string is expected", kind.escape_ascii()))),
        }
    }

    fn bulk(&mut self, digits: &[u8]) -> Result<&'a [u8], Stop> {
        let length = resp::number(digits)?;
        let bytes = self.input[self.at..].get(..length + resp::LINE_END.len()).ok_or(Stop::Cut)?;
        self.at += bytes.len();
        match bytes.split_at(length) {
            (text, resp::LINE_END) => Ok(text),
            _ => Err(wrong(format!("a bulk string of {length} bytes does not end after them"))),
        }
    }

    fn skip(&mut self, depth: u32) -> Result<(), Stop> {
        match self.line()? {
            (b'$' | b'*', b"-1") => Ok(()),
            (b'$', digits) => self.bulk(digits).map(drop),
            (kind @ (b'*' | b'%'), digits) if depth < MAX_DEPTH => {
                let items = resp::number(digits)? * if kind == b'%' { 2 } else { 1 };
                (0..items).try_for_each(|_| self.skip(depth + 1))
            }
            (b'*' | b'%', _) => Err(wrong(format!("arrays over {MAX_DEPTH} deep"))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_wherever_the_stream_is_cut() {
        let stream =
            b"*2\r\n*4\r\n:0\r\n:8191\r\n*4\r\n$9\r\n127.0.0.1\r\n:6381\r\n$2\r\nid\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n\
            *3\r\n$1\r\nx\r\n:1\r\n$2\r\nid\r\n*3\r\n:8192\r\n:16383\r\n*2\r\n$-1\r\n:6382\r\n";
        for cut in 0..stream.len() {
            assert_eq!(slots(&stream[..cut]), Ok(None), "{cut}");
        }
        let first = SlotRange { first: 0, last: 8191, host: "127.0.0.1".to_owned(), port: 6381 };
        let second = SlotRange { first: 8192, last: 16383, host: String::new(), port: 6382 };
        assert_eq!(slots(stream), Ok(Some(vec![first, second])));
        assert_eq!(slots(b"*0\r\n"), Ok(Some(Vec::new())));
    }

    #[test]
    fn what_is_no_map_is_an_error_and_never_a_panic() {
        for wrong in [
            &b"-ERR This instance has cluster support disabled\r\n"[..],
            b"+OK\r\n",
            b"*16385\r\n",
            b"*1\r\n*2\r\n:0\r\n:1\r\n",
            b"*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\nh\r\n:1\r\n",
            b"*1\r\n*3\r\n:9\r\n:8\r\n*2\r\n$1\r\nh\r\n:1\r\n",
            b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\nh\r\n:0\r\n",
            b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\nh\r\n:65536\r\n",
            b"*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\nh\r\n",
            b"*1\r\n*3\r\n:0\r\n:1\r\n*3\r\n$1\r\nh\r\n:1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
            b"\r\n",
        ] {
            assert!(slots(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
