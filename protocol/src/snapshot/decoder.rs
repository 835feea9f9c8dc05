//! Reads a shard's stream or a whole-database file from bytes as they come.
//!
//! Place in the flow: recovery, restore and verification feed it with what they have read, and act on what it tells.
//!
//! ```text
//! start ──shard header──► shard ──shard footer──► end
//!   │                     │   ▲
//!   │          large value▼   │all parts are there
//!   │                     parts
//!   └file header─► between shards ──shard header──► shard ... ──shard footer──► between shards ──file footer──► end
//! ```
//!
//! Invariants:
//! - What it holds is one message and what that grows to when it is decompressed: twice [`MAX_MESSAGE_BYTES`], whatever
//!   the bytes claim; and it holds no more of a message than has come.
//! - However the bytes are split, it tells the same.
//! - After an error it goes on telling that error.
//!
//! Deliberately not here: whether the node, the shard and the index are those that somebody wants, and whether values
//! are valid: the checksums say that they are what was written.

use super::chunk::{Chunk, Columns};
use super::entry::Order;
use super::error::{Problem, SnapshotError};
use super::message::{
    body, check, decode_compressed, decode_value_part, FileFooter, FileHeader, LargeValue, ShardFooter, ShardHeader,
    Totals,
};
use super::wire::{open_envelope, Fields, LENGTH_BYTES};
use super::{FORMAT_NAME, MAX_MESSAGE_BYTES, VALUE_PART_BYTES};
use crate::key::shard_of_slot;

/// Decompresses one Zstandard frame, of the first bytes, into the second, which it must fill exactly; tells whether it
/// did.
pub type Decompress = Box<dyn FnMut(&[u8], &mut [u8]) -> bool + Send>;

/// What a decoder tells, one for each message.
#[derive(Debug)]
pub enum Event<'a> {
    /// The bytes are a whole-database file.
    FileHeader(FileHeader),
    /// A shard's stream begins.
    ShardHeader(ShardHeader),
    /// Entries. They need not be walked, and then their order is not checked.
    Chunk(Box<Chunk<'a>>),
    /// An entry whose value follows in parts.
    LargeValue(LargeValue<'a>),
    /// The next bytes of that value.
    ValuePart {
        /// They themselves.
        bytes: &'a [u8],
        /// Whether they are the last.
        is_last: bool,
    },
    /// A shard's stream ends, and is whole.
    ShardFooter(ShardFooter),
    /// The file ends, and is whole.
    FileFooter(FileFooter),
    /// A message that a later version added, and that may be ignored.
    Unknown,
}

/// Takes bytes and tells what they hold.
#[derive(Default)]
pub struct Decoder {
    assembler: Assembler,
    state: State,
    /// A chunk that was compressed.
    chunk: Vec<u8>,
    decompress: Option<Decompress>,
    failed: Option<SnapshotError>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = formatter.debug_struct("Decoder");
        fields.field("state", &self.state).field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder at the start of a shard's stream or of a file: the first message tells which.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads compressed chunks, too.
    #[must_use]
    pub fn decompressed_by(mut self, decompress: Decompress) -> Self {
        self.decompress = Some(decompress);
        self
    }

    /// Takes from `input` up to the end of the next message, and tells of it. `None`: `input` is used up and the
    /// message is not whole.
    pub fn next<'d, 'i: 'd>(&'d mut self, input: &mut &'i [u8]) -> Result<Option<Event<'d>>, SnapshotError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let place = (self.state.offset, self.state.message);
        let told = match self.assembler.take(input) {
            Ok(None) => return Ok(None),
            Ok(Some(message)) => {
                let told = self.state.accept(message, &mut self.chunk, self.decompress.as_mut());
                told.map_err(|problem| first_of_all(problem, place.1, message))
            }
            Err(problem) => Err(first_of_all(problem, place.1, &[])),
        };
        match told {
            Ok(event) => Ok(Some(event)),
            Err(problem) => {
                let error = SnapshotError { offset: place.0, message: place.1, problem };
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Says that no more bytes will come.
    ///
    /// # Errors
    /// If the last footer has not come, or if there was an error before.
    pub fn finish(&self) -> Result<(), SnapshotError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let present = self.assembler.unfinished_bytes() as u64;
        if self.state.place == Place::End && present == 0 {
            return Ok(());
        }
        let problem = if self.state.place == Place::End { Problem::Trailing } else { Problem::Cut { present } };
        Err(SnapshotError { offset: self.state.offset, message: self.state.message, problem })
    }

    /// Bytes of all messages so far.
    pub fn offset(&self) -> u64 {
        self.state.offset
    }
}

/// What is wrong with the first message is most often that somebody named another file.
fn first_of_all(problem: Problem, message_number: u64, message: &[u8]) -> Problem {
    let may_be_anything =
        matches!(problem, Problem::TooLong { .. } | Problem::Malformed { .. } | Problem::Checksum { .. });
    let is_ours = message.windows(FORMAT_NAME.len()).any(|bytes| bytes == FORMAT_NAME);
    if message_number == 0 && may_be_anything && !is_ours {
        Problem::NotASnapshot
    } else {
        problem
    }
}

/// Puts messages together from pieces.
#[derive(Default)]
struct Assembler {
    /// A message of which an earlier piece did not have all, with its length.
    message: Vec<u8>,
    /// It was handed out.
    is_done: bool,
}

impl Assembler {
    /// The next message with its length: where it lies in `input`, if all of it does.
    fn take<'d, 'i: 'd>(&'d mut self, input: &mut &'i [u8]) -> Result<Option<&'d [u8]>, Problem> {
        if self.is_done {
            self.message.clear();
            self.is_done = false;
        }
        if self.message.is_empty() {
            if let Some(whole) = Self::wanted(input)? {
                if let Some((message, rest)) = input.split_at_checked(whole) {
                    *input = rest;
                    return Ok(Some(message));
                }
            }
        }
        // First the length, then, once it is known, the rest.
        self.fill(LENGTH_BYTES, input);
        if let Some(whole) = Self::wanted(&self.message)? {
            self.fill(whole, input);
            self.is_done = self.message.len() == whole;
        }
        Ok(self.is_done.then_some(self.message.as_slice()))
    }

    /// How long a message is that begins like this, its length included; `None`: the length is not whole.
    fn wanted(beginning: &[u8]) -> Result<Option<usize>, Problem> {
        let Some(length) = beginning.first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(*length);
        if length as usize > MAX_MESSAGE_BYTES {
            return Err(Problem::TooLong { length });
        }
        Ok(Some(LENGTH_BYTES + length as usize))
    }

    /// Goes on to `whole` bytes, as far as the input has them.
    fn fill(&mut self, whole: usize, input: &mut &[u8]) {
        let missing = whole.saturating_sub(self.message.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.message.extend_from_slice(taken);
        *input = rest;
    }

    fn unfinished_bytes(&self) -> usize {
        if self.is_done {
            0
        } else {
            self.message.len()
        }
    }
}

/// Where in the diagram above the next message stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing has come.
    #[default]
    Start,
    /// Behind a shard's header.
    Shard,
    /// Behind a large value of which so many bytes are missing.
    Parts { left: u64 },
    /// Behind the file's header or a shard's footer in a file.
    BetweenShards,
    /// Behind the last footer.
    End,
}

impl Place {
    const fn expects(self) -> &'static str {
        match self {
            Self::Start => "a header",
            Self::Shard => "a chunk, a large value or a shard's footer",
            Self::Parts { .. } => "a part of a value",
            Self::BetweenShards => "the next shard's header, or the file's footer behind the last one",
            Self::End => "nothing",
        }
    }
}

/// The shard in hand.
#[derive(Debug)]
struct ShardSoFar {
    header: ShardHeader,
    order: Order,
    totals: Totals,
    /// Offset and number of its header.
    began_at: (u64, u64),
}

/// The file around the shards.
#[derive(Debug)]
struct FileSoFar {
    header: FileHeader,
    shards: u16,
    totals: Totals,
    shards_crc32c: u32,
}

#[derive(Debug, Default)]
struct State {
    place: Place,
    /// Offset and number of the next message.
    offset: u64,
    message: u64,
    /// Checksum of the last message of the shard in hand.
    chain: u32,
    file: Option<FileSoFar>,
    shard: Option<ShardSoFar>,
}

impl State {
    /// Takes a message, its length included.
    fn accept<'a>(
        &'a mut self,
        message: &'a [u8],
        chunk: &'a mut Vec<u8>,
        decompress: Option<&mut Decompress>,
    ) -> Result<Event<'a>, Problem> {
        let is_in_shard = matches!(self.place, Place::Shard | Place::Parts { .. });
        if self.place == Place::End {
            return Err(Problem::Trailing);
        }
        let (fields, crc32c) = open_envelope(message, if is_in_shard { self.chain } else { 0 })?;
        let (number, bytes) = only_body(fields)?;
        let began_at = (self.offset, self.message);
        self.offset += message.len() as u64;
        self.message += 1;
        self.chain = crc32c;
        match (self.place, number) {
            (Place::Shard, body::CHUNK) => self.chunk(bytes, began_at),
            (Place::Shard, body::COMPRESSED_CHUNK) => {
                decompressed(bytes, chunk, decompress)?;
                self.chunk(chunk, began_at)
            }
            (Place::Shard, body::LARGE_VALUE) => self.large_value(bytes),
            (Place::Parts { left }, body::VALUE_PART) => self.part(bytes, left),
            (Place::Shard, body::SHARD_FOOTER) => self.shard_footer(bytes, crc32c, began_at).map(Event::ShardFooter),
            (Place::Start | Place::BetweenShards, body::SHARD_HEADER) => {
                self.shard_header(bytes, began_at).map(Event::ShardHeader)
            }
            (Place::Start, body::FILE_HEADER) => self.file_header(bytes, crc32c).map(Event::FileHeader),
            (Place::BetweenShards, body::FILE_FOOTER) => self.file_footer(bytes, began_at.0).map(Event::FileFooter),
            (Place::Shard | Place::BetweenShards, body::UNKNOWN) => Ok(Event::Unknown),
            (place, number) => Err(Problem::Misplaced { found: body::name(number), expected: place.expects() }),
        }
    }

    fn file_header(&mut self, bytes: &[u8], crc32c: u32) -> Result<FileHeader, Problem> {
        let header = FileHeader::decode(bytes)?;
        let shards_crc32c = crc32c::crc32c(&crc32c.to_le_bytes());
        self.file = Some(FileSoFar { header, shards: 0, totals: Totals::default(), shards_crc32c });
        self.place = Place::BetweenShards;
        Ok(header)
    }

    fn shard_header(&mut self, bytes: &[u8], began_at: (u64, u64)) -> Result<ShardHeader, Problem> {
        let header = ShardHeader::decode(bytes)?;
        if let Some(file) = &self.file {
            check("a shard's number", u64::from(header.shard), u64::from(file.shards))?;
            check("a shard's count of shards", u64::from(header.shard_count), u64::from(file.header.shard_count))?;
            if header.node_uuid != file.header.node_uuid {
                return Err(Problem::Malformed { what: "a shard in a file is from another node than the file" });
            }
        }
        self.shard = Some(ShardSoFar { header, order: Order::default(), totals: Totals::default(), began_at });
        self.place = Place::Shard;
        Ok(header)
    }

    fn chunk<'a>(&'a mut self, bytes: &'a [u8], began_at: (u64, u64)) -> Result<Event<'a>, Problem> {
        let shard = self.shard.as_mut().expect("a place in a shard");
        let (columns, totals) = Columns::decode(bytes, shard.header.index)?;
        shard.totals.add(&totals);
        Ok(Event::Chunk(Box::new(Chunk::new(columns, &shard.header, &mut shard.order, began_at))))
    }

    fn large_value<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Event<'a>, Problem> {
        let shard = self.shard.as_mut().expect("a place in a shard");
        let value = LargeValue::decode(bytes, shard.header.index)?;
        let ShardHeader { shard: number, shard_count, .. } = shard.header;
        let (slot, follows) = shard.order.advance_to(0, value.key);
        if !follows {
            return Err(Problem::OutOfOrder { slot });
        }
        if shard_of_slot(slot, shard_count) != number {
            return Err(Problem::ForeignSlot { slot, shard: number, shard_count });
        }
        let (key_bytes, expiring) = (value.key.len() as u64, u64::from(value.expires_at_us.is_some()));
        let value_bytes = value.value_bytes;
        shard.totals.add(&Totals { entries: 1, key_bytes, value_bytes, expiring, large_values: 1 });
        self.place = Place::Parts { left: value_bytes };
        Ok(Event::LargeValue(value))
    }

    fn part<'a>(&mut self, bytes: &'a [u8], left: u64) -> Result<Event<'a>, Problem> {
        let bytes = decode_value_part(bytes)?;
        check("the length of a part of a value", bytes.len() as u64, left.min(VALUE_PART_BYTES as u64))?;
        let left = left - bytes.len() as u64;
        self.place = if left == 0 { Place::Shard } else { Place::Parts { left } };
        Ok(Event::ValuePart { bytes, is_last: left == 0 })
    }

    fn shard_footer(
        &mut self,
        bytes: &[u8],
        crc32c: u32,
        (offset, message): (u64, u64),
    ) -> Result<ShardFooter, Problem> {
        let footer = ShardFooter::decode(bytes, crc32c)?;
        let shard = self.shard.take().expect("a place in a shard");
        footer.totals.compare(&shard.totals)?;
        check("the number of messages", footer.messages, message - shard.began_at.1)?;
        check("the bytes of the stream", footer.stream_bytes, offset - shard.began_at.0)?;
        self.place = match &mut self.file {
            None => Place::End,
            Some(file) => {
                file.shards += 1;
                file.totals.add(&footer.totals);
                file.shards_crc32c = crc32c::crc32c_append(file.shards_crc32c, &crc32c.to_le_bytes());
                Place::BetweenShards
            }
        };
        Ok(footer)
    }

    fn file_footer(&mut self, bytes: &[u8], offset: u64) -> Result<FileFooter, Problem> {
        let footer = FileFooter::decode(bytes)?;
        let file = self.file.as_ref().expect("a place between the shards of a file");
        check("the number of shards", u64::from(file.header.shard_count), u64::from(file.shards))?;
        check("the number of shards", u64::from(footer.shard_count), u64::from(file.shards))?;
        footer.totals.compare(&file.totals)?;
        check("the bytes of the file", footer.file_bytes, offset)?;
        check("the checksum of the shards", u64::from(footer.shards_crc32c), u64::from(file.shards_crc32c))?;
        self.place = Place::End;
        Ok(footer)
    }
}

/// The one body of a message, as its number and its bytes.
fn only_body(fields: &[u8]) -> Result<(u32, &[u8]), Problem> {
    let (mut fields, mut found) = (Fields::of(fields), None);
    while let Some((number, field)) = fields.next()? {
        match number {
            body::FILE_HEADER..=body::FILE_FOOTER if found.is_none() => found = Some((number, field.bytes()?)),
            body::FILE_HEADER..=body::FILE_FOOTER | body::CHECKSUM => {
                return Err(Problem::Malformed { what: "a message has two bodies, or two checksums" })
            }
            _ => {}
        }
    }
    Ok(found.unwrap_or((body::UNKNOWN, &[])))
}

/// Decompresses a chunk into `chunk`.
fn decompressed(bytes: &[u8], chunk: &mut Vec<u8>, decompress: Option<&mut Decompress>) -> Result<(), Problem> {
    let (chunk_bytes, compressed) = decode_compressed(bytes)?;
    let decompress = decompress.ok_or(Problem::Compressed)?;
    // `decode_compressed` has held the length against `MAX_MESSAGE_BYTES`.
    chunk.clear();
    chunk.resize(chunk_bytes as usize, 0);
    if decompress(compressed, chunk) {
        Ok(())
    } else {
        Err(Problem::Decompression { chunk_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_was_only_claimed_takes_no_memory() {
        let mut decoder = Decoder::new();
        let claim = (MAX_MESSAGE_BYTES as u32).to_le_bytes();
        assert!(matches!(decoder.next(&mut &claim[..3]), Ok(None)));
        assert!(matches!(decoder.next(&mut &claim[3..]), Ok(None)));
        assert!(matches!(decoder.next(&mut &[0; 100][..]), Ok(None)));
        assert!(decoder.assembler.message.capacity() < 1024, "{}", decoder.assembler.message.capacity());
        assert_eq!(decoder.finish().map_err(|error| error.problem), Err(Problem::Cut { present: 104 }));
    }

    #[test]
    fn a_message_that_lies_whole_in_the_input_is_not_copied() {
        let mut stream = Vec::new();
        let header = ShardHeader { node_uuid: 1, shard: 0, shard_count: 1, index: 0, term: 0, needed_after: 0 };
        crate::snapshot::ShardWriter::new(header, &mut stream).finish(&mut stream).expect("nothing is due");
        let (mut decoder, mut rest) = (Decoder::new(), stream.as_slice());
        assert!(matches!(decoder.next(&mut rest), Ok(Some(Event::ShardHeader(_)))));
        assert!(matches!(decoder.next(&mut rest), Ok(Some(Event::ShardFooter(_)))));
        assert_eq!((decoder.assembler.message.capacity(), rest.len()), (0, 0));
        assert_eq!((decoder.finish(), decoder.offset()), (Ok(()), stream.len() as u64));
    }

    #[test]
    fn a_compressed_chunk_takes_no_more_than_a_message() {
        let claims = |bytes: u64| {
            let mut body = Vec::new();
            for (number, value) in [(1, 1), (2, bytes)] {
                crate::snapshot::wire::put_number(&mut body, number, value);
            }
            let (mut chunk, mut none): (_, Decompress) = (Vec::new(), Box::new(|_, _| false));
            let refused = decompressed(&body, &mut chunk, Some(&mut none)).expect_err("no frame");
            (refused.name(), chunk.capacity())
        };
        assert_eq!(claims(MAX_MESSAGE_BYTES as u64), ("Decompression", MAX_MESSAGE_BYTES));
        assert_eq!(claims(MAX_MESSAGE_BYTES as u64 + 1), ("Malformed", 0));
    }
}
