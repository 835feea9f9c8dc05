//! Where results go: to a connection, into a gather, or to the core that asked.
//!
//! Place in the flow: step 9 (reply). The only writer of replies; the one place that counts a request as answered.

use std::time::Instant;

use eyot_protocol::limits::MAX_BATCH_OPERATIONS;
use eyot_protocol::native::reply::{put_batch_head, put_reply, reply_bytes};
use eyot_protocol::resp::{error_line, RespVersion, Writer};
use eyot_protocol::response::SetOutcome;
use eyot_protocol::ErrorCode;

use super::clock::TurnClock;
use crate::admin::command_words::shortened_words;
use crate::metrics::Metrics;
use crate::net::connection::{Connection, Stage, MAX_OWED_BYTES};
use crate::net::connections::Connections;
use crate::router::mesh::{Mesh, Message};
use crate::router::scatter::{Combine, FoundKeys, Gathered, Gathers, Progress, REPLY_IS_FULL};
use crate::router::{is_write, Asked, Form, LargeReply, Reply, ReplySink, ReplyTo};

/// A part of a BATCH's result up to this size is never left out: writes and errors take no more, and there are at most
/// 10,000 of them.
const SMALL_RESULT_BYTES: usize = 256;
/// The same where there may be a million parts, over RESP.
const TINY_RESULT_BYTES: usize = 32;
/// What stands there for a part that is left out, and takes no more than that.
const LEFT_OUT: &str = "the reply is full";
/// From here on what KEYS has found is handed to the connection in its chunks; below it, a copy is cheaper.
const CHUNK_BYTES_MIN: usize = 64 * 1024;
/// What a SET is answered that was stored, in both versions of RESP.
const STORED: &[u8] = b"+OK\r\n";
/// What a read is answered with when its connection is owed [`MAX_OWED_BYTES`].
const OWES_TOO_MUCH: &str = "this connection does not take its replies; take them, then ask again, for less at once";

/// The parts of a core that replies pass through, borrowed for a while.
#[derive(Debug)]
pub struct Outlet<'a> {
    /// This core's number.
    pub core: u16,
    /// The longest reply.
    pub max_frame_bytes: usize,
    /// See [`Connections`].
    pub connections: &'a mut Connections,
    /// See [`Gathers`].
    pub gathers: &'a mut Gathers,
    /// See [`Mesh`].
    pub mesh: &'a mut Mesh,
    /// See [`Metrics`].
    pub metrics: &'a mut Metrics,
    /// The turn's time.
    pub clock: TurnClock,
}

impl ReplySink for Outlet<'_> {
    #[inline]
    fn reply(&mut self, to: &ReplyTo, mut reply: Reply<'_>) {
        if let Some(large) = reply.by_reference(to) {
            self.large_reply(to, large);
            return;
        }
        if to.core != self.core {
            self.mesh.reply(to, reply, self.max_frame_bytes);
        } else if to.gathered {
            let bytes = reply.bulk_bytes().unwrap_or(0);
            self.gather(to, bytes, |form, out| reply.put(form, out));
        } else {
            if let Some(bytes) = reply.bulk_bytes() {
                if is_write(to.operation) {
                    self.learn_returned_bytes(to, bytes);
                } else if self.owes_too_much(to) {
                    reply = Reply::Error(ErrorCode::Busy, OWES_TOO_MUCH);
                }
            }
            if let Reply::Error(code, message) = reply {
                self.count_error(to, code, message);
            }
            self.answer(to, 1, |out| reply.put_whole(to, out));
        }
    }

    fn stored(&mut self, run: &mut dyn ExactSizeIterator<Item = &ReplyTo>) {
        let count = run.len() as u32;
        let mut run = run.peekable();
        let Some(&first) = run.peek() else { return };
        if first.core != self.core {
            // Only the form counts; the version is no part of it.
            let stored = SetOutcome::Stored { version: 0 };
            run.for_each(|to| self.mesh.reply(to, Reply::Set(stored), self.max_frame_bytes));
            return;
        }
        self.metrics.answered_alike(first.operation, first.arrived_us, self.clock.monotonic_us(), u64::from(count));
        let Some(connection) = self.connections.get_of(first.key, first.generation) else { return };
        connection.complete_alike(count, is_write(first.operation));
        if connection.stage == Stage::Ended {
            return;
        }
        let review = needs_review(connection);
        self.connections.answer_alike(first.key, count, run.map(|to| to.number), STORED);
        if review {
            self.connections.review(first.key);
        }
    }

    #[cold]
    fn reply_to_heavy(&mut self, to: &ReplyTo, reply: Reply<'_>, asked: Asked<'_>) {
        // The gather may be over with this reply.
        let own_gather = to.gathered && to.core == self.core;
        let asker = if own_gather { self.gathers.parent(to.key, to.generation).unwrap_or(*to) } else { *to };
        let started = match asked {
            Asked::Read(..) => Instant::now(),
            Asked::Write(_) => self.metrics.heavy.since(self.clock.now()),
        };
        self.reply(to, reply);
        self.metrics.heavy.note(asker, started, Instant::now(), || shortened_words(asked));
    }
}

impl Outlet<'_> {
    /// Takes a reply that refers to a large value. What it pins is no memory of the connection's own, so it is not held
    /// against what that may be owed; but nothing more is taken from the client until it has gone.
    #[cold]
    fn large_reply(&mut self, to: &ReplyTo, large: LargeReply) {
        if to.core == self.core {
            self.answer_with(to, 1, |connections| connections.answer_large(to, large));
        } else {
            self.mesh.large_reply(to, large);
        }
    }

    /// Takes a reply of another core that refers to a large value.
    pub fn large_of_other_core(&mut self, to: &ReplyTo, large: LargeReply) {
        if !is_write(to.operation) {
            if let Some(connection) = self.connections.get_of(to.key, to.generation) {
                connection.awaited_reads -= 1;
                connection.learn_reply_bytes(large.range.len());
            }
        }
        self.large_reply(to, large);
    }

    #[cold]
    fn count_error(&mut self, to: &ReplyTo, code: ErrorCode, message: &str) {
        self.metrics.errors += 1;
        if to.form != Form::Native {
            let mut line = Vec::new();
            error_line(code, message, &mut line);
            self.metrics.commands.error(&line[1..]);
        }
    }

    /// Takes a result that another core has encoded.
    pub fn encoded(&mut self, to: &ReplyTo, result: &[u8], failed: bool) {
        if to.gathered {
            self.gather(to, result.len(), |_, out| out.extend_from_slice(result));
            return;
        }
        if is_write(to.operation) {
            self.learn_returned_bytes(to, result.len());
        } else {
            if let Some(connection) = self.connections.get_of(to.key, to.generation) {
                connection.awaited_reads -= 1;
                connection.learn_reply_bytes(result.len());
            }
            if self.owes_too_much(to) {
                self.reply(to, Reply::Error(ErrorCode::Busy, OWES_TOO_MUCH));
                return;
            }
        }
        self.metrics.errors += u64::from(failed);
        if to.form != Form::Native {
            let silent = to.form == Form::Silent;
            self.answer(to, 1, |out| out.extend_from_slice(if silent { &[] } else { result }));
            return;
        }
        if failed {
            self.metrics.errors -= 1;
            // The frame's error flag must say so: decode the little that an error is, and write it as one.
            let (code, message) = read_error(result);
            self.reply(to, Reply::Error(code, message));
            return;
        }
        self.answer(to, 1, |out| {
            put_reply(out, to.operation.code(), to.number, |out| out.extend_from_slice(result));
        });
    }

    /// Takes what a walk of this core, or of another for a gather of this one, has found: the part of a KEYS.
    pub fn keys_found(&mut self, to: &ReplyTo, found: FoundKeys) {
        if to.core != self.core {
            self.mesh.post(to.core, Message::Found(self.core, *to, found));
        } else if let Some((code, message)) = self.left_out(to, found.bytes) {
            self.gather(to, 0, |form, out| Reply::Error(code, message).put(form, out));
        } else {
            let before = self.gathers.bytes(to.key);
            let parent = self.gathers.parent(to.key, to.generation);
            let progress = self.gathers.put_found(to.key, to.generation, to.number, found);
            self.gathered(to, parent, before, progress);
        }
    }

    /// Takes a result of this core that is written already, in the form that `to` wants.
    pub fn reply_bytes(&mut self, to: &ReplyTo, result: &[u8], failed: bool) {
        if to.core != self.core {
            self.mesh.reply_bytes(to, result, failed);
        } else if to.gathered {
            self.gather(to, result.len(), |_, out| out.extend_from_slice(result));
        } else {
            let silent = to.form == Form::Silent;
            self.metrics.errors += u64::from(failed);
            self.answer(to, 1, |out| out.extend_from_slice(if silent { &[] } else { result }));
        }
    }

    /// A write has returned a value of so many bytes: so much the others of its connection are expected to.
    fn learn_returned_bytes(&mut self, to: &ReplyTo, bytes: usize) {
        if let Some(connection) = self.connections.get_of(to.key, to.generation) {
            if connection.returning_writes > 0 {
                connection.learn_reply_bytes(bytes);
            }
        }
    }

    /// Whether the connection is owed so much that no further value is added. Only a read may be refused by it.
    #[inline]
    fn owes_too_much(&mut self, to: &ReplyTo) -> bool {
        self.connections
            .get_of(to.key, to.generation)
            .is_some_and(|connection| connection.owed_bytes() >= MAX_OWED_BYTES)
    }

    /// Writes a whole reply, to `operations` operations, to the connection that waits for it, if it still is there.
    #[inline]
    pub fn answer(&mut self, to: &ReplyTo, operations: u32, put: impl FnOnce(&mut Vec<u8>)) {
        self.answer_with(to, operations, |connections| connections.answer(to, put));
    }

    #[inline]
    fn answer_with(&mut self, to: &ReplyTo, operations: u32, answer: impl FnOnce(&mut Connections)) {
        self.metrics.answered(to.operation, to.arrived_us, self.clock.monotonic_us());
        let Some(connection) = self.connections.get_of(to.key, to.generation) else { return };
        connection.complete(operations, is_write(to.operation));
        if connection.stage == Stage::Ended {
            return;
        }
        let review = needs_review(connection);
        answer(self.connections);
        if review {
            self.connections.review(to.key);
        }
    }

    /// Why a part of a BATCH's result, of about `bytes`, is left out: one reply holds all results, and a connection is
    /// owed only so much. `None`: it is not.
    fn left_out(&mut self, to: &ReplyTo, bytes: usize) -> Option<(ErrorCode, &'static str)> {
        if bytes <= TINY_RESULT_BYTES {
            return None;
        }
        let many = self.gathers.part_count(to.key) > MAX_BATCH_OPERATIONS;
        if bytes <= SMALL_RESULT_BYTES && !many {
            return None;
        }
        let own_bytes = self.gathers.bytes(to.key);
        if own_bytes + bytes > self.max_frame_bytes {
            return Some((ErrorCode::BatchTooLarge, if many { LEFT_OUT } else { REPLY_IS_FULL }));
        }
        let parent = self.gathers.parent(to.key, to.generation)?;
        // What the connection is owed beside this BATCH; a connection that is gone is owed nothing more.
        let connection = self.connections.get_of(parent.key, parent.generation);
        let owed_bytes = connection
            .map_or(MAX_OWED_BYTES, |connection| connection.owed_bytes() + connection.gathered_bytes - own_bytes);
        (owed_bytes >= MAX_OWED_BYTES).then_some((ErrorCode::Busy, if many { LEFT_OUT } else { OWES_TOO_MUCH }))
    }

    /// Takes a part of a BATCH's result, of about `bytes`.
    fn gather(&mut self, to: &ReplyTo, bytes: usize, put: impl FnOnce(Form, &mut Vec<u8>)) {
        let Some(parent) = self.gathers.parent(to.key, to.generation) else { return };
        let left_out = self.left_out(to, bytes);
        let before = self.gathers.bytes(to.key);
        let progress = self.gathers.put(to.key, to.generation, to.number, |out| match left_out {
            None => put(to.form, out),
            Some((code, message)) => Reply::Error(code, message).put(to.form, out),
        });
        self.gathered(to, Some(parent), before, progress);
    }

    /// A part was put into the gather of `to`, which had `before` bytes and belongs to `parent`.
    fn gathered(&mut self, to: &ReplyTo, parent: Option<ReplyTo>, before: usize, progress: Progress) {
        let Some(parent) = parent else { return };
        let grown = match &progress {
            Progress::Complete(gathered) => gathered.bytes(),
            Progress::Waiting => self.gathers.bytes(to.key),
            Progress::Gone => before,
        } - before;
        if let Some(connection) = self.connections.get_of(parent.key, parent.generation) {
            connection.gathered_bytes += grown;
        }
        if let Progress::Complete(gathered) = progress {
            if let Some(connection) = self.connections.get_of(parent.key, parent.generation) {
                connection.gathered_bytes -= gathered.bytes();
            }
            self.answer_gathered(gathered);
        }
    }

    /// Answers a KEYS: what the walks have found goes out as it is.
    fn answer_keys(&mut self, gathered: Gathered) {
        let (to, parts) = (gathered.reply_to, gathered.len() as u32);
        if let (Some(error), false) = (failed(&gathered), to.form == Form::Silent) {
            return self.answer(&to, parts, |out| out.extend_from_slice(error));
        }
        let FoundKeys { count, chunks, bytes } = gathered.found;
        self.answer_with(&to, parts, |connections| {
            connections.answer_alone(&to, |output| {
                if to.form == Form::Silent {
                    return;
                }
                Writer { out: &mut output.bytes, version: RespVersion::Two }.array(count);
                if bytes < CHUNK_BYTES_MIN {
                    chunks.iter().for_each(|chunk| output.bytes.extend_from_slice(chunk));
                } else {
                    chunks.into_iter().for_each(|chunk| output.put_chunk(chunk));
                }
            });
        });
    }

    /// Answers a request whose parts are all there.
    pub fn answer_gathered(&mut self, gathered: Gathered) {
        let to = gathered.reply_to;
        if gathered.combine == Combine::Keys {
            return self.answer_keys(gathered);
        }
        self.answer(&to, gathered.len() as u32, |out| match (to.form, gathered.combine) {
            (Form::Native, _) => put_reply(out, to.operation.code(), to.number, |out| {
                put_batch_head(out, gathered.len());
                gathered.results().for_each(|result| out.extend_from_slice(result));
            }),
            (Form::Resp(version) | Form::RespFlag(version), combine) => combine_resp(out, version, combine, &gathered),
            (Form::Silent, _) => {}
        });
    }
}

/// Why the parts of a request failed, if one of them did.
fn failed(gathered: &Gathered) -> Option<&[u8]> {
    gathered.results().find(|result| result.first() == Some(&b'-'))
}

/// Makes one RESP reply of several.
fn combine_resp(out: &mut Vec<u8>, version: RespVersion, combine: Combine, gathered: &Gathered) {
    let mut writer = Writer { out, version };
    match combine {
        Combine::Array => {
            writer.array(gathered.len());
            gathered.results().for_each(|result| out.extend_from_slice(result));
        }
        // What else took effect is not undone: the client learns that something failed, and may ask again.
        Combine::Sum | Combine::AllDone => match failed(gathered) {
            Some(error) => out.extend_from_slice(error),
            None if combine == Combine::Sum => writer.integer(gathered.results().map(integer_of).sum()),
            None => writer.status("OK"),
        },
        Combine::Keys => unreachable!("keys are answered in chunks"),
        Combine::RandomKey(at) => match random_key(at, gathered) {
            Some(key) => writer.bulk(key),
            None => writer.null(),
        },
    }
}

/// One of the keys that the parts offer, each with the weight of the keys that it was chosen from.
fn random_key(at: u64, gathered: &Gathered) -> Option<&[u8]> {
    let offers = gathered.results().filter_map(|part| match part[1..].split_first_chunk::<8>().expect("an offer") {
        (count, [1, key @ ..]) => Some((u64::from_le_bytes(*count), key)),
        _ => None,
    });
    let total: u64 = offers.clone().map(|(count, _)| count).sum();
    let mut rest = if total == 0 { 0 } else { at % total };
    for (count, key) in offers {
        if rest < count {
            return Some(key);
        }
        rest -= count;
    }
    None
}

/// The number of an integer reply, which a core of this process has written.
fn integer_of(result: &[u8]) -> i64 {
    let text = result.strip_prefix(b":").and_then(|rest| rest.strip_suffix(b"\r\n"));
    let number = text.and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| unreachable!("a core of this process wrote {result:?} as a number"))
}

/// Whether the connection was paused or is finishing, so that an answer may be what it waits for.
#[inline]
fn needs_review(connection: &Connection) -> bool {
    connection.stage != Stage::Open || connection.receiving != crate::net::connection::Receiving::Armed
}

/// The code and words of an encoded error result, which a core of this process has written.
fn read_error(result: &[u8]) -> (ErrorCode, &str) {
    let mut decoder = eyot_protocol::tlv::Decoder::new(result);
    match (decoder.list(), decoder.value()) {
        (Ok(1), Ok(eyot_protocol::tlv::ValueRef::Error(error))) => {
            (ErrorCode::from_number(error.code).unwrap_or(ErrorCode::Unknown), error.message)
        }
        other => {
            unreachable!("a core of this process wrote {other:?} as an error of {} bytes", reply_bytes(result.len()))
        }
    }
}
