//! Putting together what several shards answer to one request.
//!
//! Place in the flow: between step 4 (route) and step 9 (reply), on the core that holds the connection: for
//! requests on keys that may belong to many cores, and for those that ask every core.
//!
//! Invariant: a gather ends exactly once, when its last part has come; parts that come after that (there are none but
//! for a bug or a closed connection) are told by their generation.

use slab::Slab;

use super::questions::{Answer, Purpose};
use super::reply_to::ReplyTo;

/// Gathers that a core has open, at most. Beyond it a BATCH is answered BUSY.
pub const MAX_GATHERS: usize = 64 * 1024;
/// Gathers of reports that a core has open, at most. A report takes some 160 KiB, and nobody needs many at once.
pub const MAX_REPORT_GATHERS: usize = 16;

/// What an operation of a BATCH is answered with when the results before it fill a reply.
pub const REPLY_IS_FULL: &str =
    "the results before this one fill a reply; the operation itself was executed. Ask for less at once";

/// How the parts become one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// One after the other, in the order in which they were asked for.
    Array,
    /// As the sum of their numbers.
    Sum,
    /// As one `OK`.
    AllDone,
    /// As one list of keys: each part is some of them, as a walk has found them; see [`FoundKeys`].
    Keys,
    /// As one key, chosen by this random number: each part offers one and says of how many.
    RandomKey(u64),
}

/// Keys that a walk has found, in chunks: so none of them is copied to become longer, or to become a reply.
#[derive(Debug, Default)]
pub struct FoundKeys {
    /// How many.
    pub count: usize,
    /// They, as RESP bulk strings.
    pub chunks: Vec<Vec<u8>>,
    /// Bytes of all chunks.
    pub bytes: usize,
}

/// What stands in the place of a part whose keys are kept beside: not `-`, with which an error begins.
const FOUND_MARK: u8 = b'=';

/// One part's result: where it stands in the gather's bytes.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: u32,
    length: u32,
}

#[derive(Debug)]
struct Gather {
    reply_to: ReplyTo,
    combine: Combine,
    generation: u32,
    missing: usize,
    parts: Vec<Part>,
    bytes: Vec<u8>,
    found: FoundKeys,
}

/// A gathered BATCH that is complete.
#[derive(Debug)]
pub struct Gathered {
    /// Who waits.
    pub reply_to: ReplyTo,
    /// How its parts become one reply.
    pub combine: Combine,
    parts: Vec<Part>,
    bytes: Vec<u8>,
    /// The keys of all parts, if it is a list of keys.
    pub found: FoundKeys,
}

impl Gathered {
    /// How many results there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.found.bytes
    }

    /// The encoded results, in the order of the operations.
    pub fn results(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.parts.iter().map(|part| &self.bytes[part.start as usize..][..part.length as usize])
    }
}

/// What a part did to its gather.
#[derive(Debug)]
pub enum Progress {
    /// Others are still missing.
    Waiting,
    /// That was the last one.
    Complete(Gathered),
    /// The gather is gone.
    Gone,
}

#[derive(Debug)]
struct ReportGather {
    reply_to: ReplyTo,
    purpose: Purpose,
    missing: usize,
    parts: Vec<Answer>,
}

/// The gathers of one core.
#[derive(Debug, Default)]
pub struct Gathers {
    batches: Slab<Gather>,
    reports: Slab<ReportGather>,
    next_generation: u32,
    /// Memory of the parts and bytes of all open gathers.
    bytes: usize,
}

impl Gathers {
    /// Memory of what is gathered.
    pub fn memory_bytes(&self) -> usize {
        self.batches.capacity() * size_of::<Gather>() + self.bytes
    }

    /// Whether another gather may be opened.
    pub fn has_room(&self) -> bool {
        self.batches.len() + self.reports.len() < MAX_GATHERS
    }

    /// Whether another gather of reports may be opened.
    pub fn has_room_for_reports(&self) -> bool {
        self.reports.len() < MAX_REPORT_GATHERS
    }

    /// Opens a gather of `parts` results (at least one) for `reply_to`; returns its key and generation.
    pub fn open(&mut self, reply_to: ReplyTo, combine: Combine, parts: usize) -> (u32, u32) {
        assert!(parts > 0, "a gather of nothing would never end");
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let parts = vec![Part { start: 0, length: 0 }; parts];
        self.bytes += parts.len() * size_of::<Part>();
        let missing = parts.len();
        let (bytes, found) = (Vec::new(), FoundKeys::default());
        let gather = Gather { reply_to, combine, generation, missing, parts, bytes, found };
        (self.batches.insert(gather) as u32, generation)
    }

    /// Who waits for the gather, if it is still there.
    pub fn parent(&self, key: u32, generation: u32) -> Option<ReplyTo> {
        let gather = self.batches.get(key as usize).filter(|gather| gather.generation == generation)?;
        Some(gather.reply_to)
    }

    /// How many parts the gather has, those that are missing among them.
    pub fn part_count(&self, key: u32) -> usize {
        self.batches.get(key as usize).map_or(0, |gather| gather.parts.len())
    }

    /// Bytes that the gather holds so far.
    pub fn bytes(&self, key: u32) -> usize {
        self.batches.get(key as usize).map_or(0, |gather| gather.bytes.len() + gather.found.bytes)
    }

    /// Adds what a walk has found as the result of part `position`.
    pub fn put_found(&mut self, key: u32, generation: u32, position: u32, found: FoundKeys) -> Progress {
        if let Some(gather) = self.batches.get_mut(key as usize).filter(|gather| gather.generation == generation) {
            self.bytes += found.bytes;
            gather.found.count += found.count;
            gather.found.bytes += found.bytes;
            gather.found.chunks.extend(found.chunks);
        }
        self.put(key, generation, position, |out| out.push(FOUND_MARK))
    }

    /// Adds the result of part `position`, which `put` appends.
    pub fn put(&mut self, key: u32, generation: u32, position: u32, put: impl FnOnce(&mut Vec<u8>)) -> Progress {
        let Some(gather) = self.batches.get_mut(key as usize).filter(|gather| gather.generation == generation) else {
            return Progress::Gone;
        };
        let (start, before) = (gather.bytes.len(), gather.bytes.capacity());
        put(&mut gather.bytes);
        let length = gather.bytes.len() - start;
        self.bytes += gather.bytes.capacity() - before;
        assert!(length > 0, "a result is never empty");
        let part = &mut gather.parts[position as usize];
        assert!(part.length == 0, "two results for part {position}");
        *part = Part { start: start as u32, length: length as u32 };
        gather.missing -= 1;
        if gather.missing > 0 {
            return Progress::Waiting;
        }
        let Gather { reply_to, combine, parts, bytes, found, .. } = self.batches.remove(key as usize);
        self.bytes -= parts.len() * size_of::<Part>() + bytes.capacity() + found.bytes;
        Progress::Complete(Gathered { reply_to, combine, parts, bytes, found })
    }

    /// Opens a gather of what `cores` cores tell; returns its key.
    pub fn open_reports(&mut self, reply_to: ReplyTo, purpose: Purpose, cores: usize) -> u32 {
        let parts = Vec::with_capacity(cores);
        self.reports.insert(ReportGather { reply_to, purpose, missing: cores, parts }) as u32
    }

    /// Adds what a core tells; returns who waits, what for, and all parts when it was the last one.
    pub fn put_report(&mut self, key: u32, part: Answer) -> Option<(ReplyTo, Purpose, Vec<Answer>)> {
        let gather = &mut self.reports[key as usize];
        gather.parts.push(part);
        gather.missing -= 1;
        if gather.missing > 0 {
            return None;
        }
        let ReportGather { reply_to, purpose, parts, .. } = self.reports.remove(key as usize);
        Some((reply_to, purpose, parts))
    }

    /// Whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.reports.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Form;
    use eyot_protocol::request::Operation;

    fn reply_to() -> ReplyTo {
        ReplyTo {
            core: 0,
            operation: Operation::Batch,
            gathered: false,
            form: Form::Native,
            key: 1,
            generation: 1,
            number: 9,
            arrived_us: 0,
        }
    }

    #[test]
    fn results_come_in_any_order_and_leave_in_theirs() {
        let mut gathers = Gathers::default();
        let (key, generation) = gathers.open(reply_to(), Combine::Array, 3);
        for (position, text) in [(2, "c"), (0, "aaa")] {
            let progress = gathers.put(key, generation, position, |out| out.extend_from_slice(text.as_bytes()));
            assert!(matches!(progress, Progress::Waiting));
        }
        let Progress::Complete(gathered) = gathers.put(key, generation, 1, |out| out.push(b'b')) else {
            panic!("not complete")
        };
        assert_eq!(gathered.results().collect::<Vec<_>>(), [&b"aaa"[..], b"b", b"c"]);
        assert_eq!(gathered.reply_to.number, 9);
        assert!(gathers.is_empty());
    }

    #[test]
    fn keys_of_several_parts_are_counted_until_they_leave() {
        let mut gathers = Gathers::default();
        let (key, generation) = gathers.open(reply_to(), Combine::Keys, 2);
        let before = gathers.memory_bytes();
        let found = |chunk: &[u8]| FoundKeys { count: 1, chunks: vec![chunk.to_vec()], bytes: chunk.len() };
        assert!(matches!(gathers.put_found(key, generation, 1, found(b"$1\r\nb\r\n")), Progress::Waiting));
        assert!(gathers.memory_bytes() >= before + 7 && gathers.bytes(key) == 8);
        let Progress::Complete(gathered) = gathers.put_found(key, generation, 0, found(b"$1\r\na\r\n")) else {
            panic!("not complete")
        };
        assert_eq!((gathered.found.count, gathered.found.chunks.concat().len(), gathered.bytes()), (2, 14, 16));
        assert_eq!(gathers.bytes, 0);
        assert!(matches!(gathers.put_found(key, generation, 0, found(b"late")), Progress::Gone));
        assert_eq!(gathers.bytes, 0);
    }

    #[test]
    fn a_part_for_a_gather_that_is_gone_is_dropped() {
        let mut gathers = Gathers::default();
        let (key, generation) = gathers.open(reply_to(), Combine::Array, 1);
        assert!(matches!(gathers.put(key, generation, 0, |out| out.push(1)), Progress::Complete(_)));
        assert!(matches!(gathers.put(key, generation, 0, |out| out.push(1)), Progress::Gone));
        let (again, next) = gathers.open(reply_to(), Combine::Array, 1);
        assert_eq!(again, key);
        assert!(matches!(gathers.put(key, generation, 0, |out| out.push(1)), Progress::Gone));
        assert!(matches!(gathers.put(key, next, 0, |out| out.push(1)), Progress::Complete(_)));
    }
}
