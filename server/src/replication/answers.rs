//! What the engine answers and does, as replies.
//!
//! Place in the flow: between steps 5 and 8 (execute, apply) and step 9 (reply). Pure: one kind of answer for another.

use eyot_protocol::command::{Command, Value};
use eyot_protocol::request::KeyQuery;
use eyot_protocol::response::{SetOutcome, StoredValue};
use eyot_protocol::ErrorCode;

use super::driver::Read;
use crate::metrics::heavy::HEAVY_BYTES;
use crate::router::{Asked, Reply, ReplySink, ReplyTo};
use crate::shard::access::AccessClock;
use crate::shard::{Answer, Outcome, Shard, Stored};

/// What OBJECT FREQ is answered without a policy by frequency, and OBJECT IDLETIME with one: Redis's words.
const NO_FREQUENCY: &str = "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
                            when switching between policies at runtime LRU and LFU data will take some time to adjust.";
/// See [`NO_FREQUENCY`].
const NO_IDLE_TIME: &str = "An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
                            switching between policies at runtime LRU and LFU data will take some time to adjust.";

#[inline]
pub(super) fn answer_read(
    shard: &Shard,
    read: &Read<'_>,
    now_us: i64,
    reply_to: &ReplyTo,
    replies: &mut impl ReplySink,
) {
    if read.query == KeyQuery::Value {
        send(read, value_reply(shard.get_at(read.place, read.key, now_us)), reply_to, replies);
        return;
    }
    let answer = shard.query(read.place, read.key, read.query, now_us);
    send(
        read,
        match &answer {
            Answer::Value(found) => value_reply(*found),
            Answer::Boolean(value) => Reply::Boolean(*value),
            Answer::Integer(number) => Reply::Integer(*number),
            Answer::Part(text, first, large) => Reply::Part(text, *first, *large),
            Answer::Bytes(text) => Reply::Text(text.as_bytes()),
            Answer::Access(word) => use_of(shard.access_clock(now_us), read.query, *word),
            Answer::Status(word) if read.query == KeyQuery::Encoding => Reply::Text(word.as_bytes()),
            Answer::Status(word) => Reply::Status(word),
            Answer::Null => Reply::Null,
            Answer::Failed(failure) => Reply::Error(failure.code(), failure.message()),
        },
        reply_to,
        replies,
    );
}

#[inline]
fn send(read: &Read<'_>, reply: Reply<'_>, reply_to: &ReplyTo, replies: &mut impl ReplySink) {
    if reply.copied_bytes() >= HEAVY_BYTES {
        replies.reply_to_heavy(reply_to, reply, Asked::Read(read.key, read.query));
    } else {
        replies.reply(reply_to, reply);
    }
}

#[inline]
fn value_reply(found: Option<Stored<'_>>) -> Reply<'_> {
    let Some(Stored { value, version, large, .. }) = found else { return Reply::Value(None) };
    let found = StoredValue { value, version: version.0 };
    large.map_or(Reply::Value(Some(found)), |large| Reply::Large(found, large))
}

/// What is known of a key's use, if the eviction policy keeps what is asked for.
fn use_of(clock: AccessClock, query: KeyQuery, word: u32) -> Reply<'static> {
    match (query, clock.frequency(word)) {
        (KeyQuery::Frequency, Some(frequency)) => Reply::Integer(i64::from(frequency)),
        (KeyQuery::Frequency, None) => Reply::Error(ErrorCode::InvalidArgument, NO_FREQUENCY),
        (_, Some(_)) => Reply::Error(ErrorCode::InvalidArgument, NO_IDLE_TIME),
        (_, None) => Reply::Integer((clock.idle_us(word) / 1_000_000) as i64),
    }
}

/// Whether applying `command`, and telling `outcome`, has moved so much memory that its time may be worth telling.
#[inline]
pub(super) fn is_heavy(command: &Command<'_>, outcome: &Outcome<'_>) -> bool {
    match (outcome, command) {
        (Outcome::Stored { .. }, Command::Set { value, .. }) => match value {
            Value::Encoded(value) => value.len() >= HEAVY_BYTES,
            // It was in its place already.
            Value::Bytes(_) | Value::Upload(_) => false,
        },
        (Outcome::Integer(length), Command::Append { .. } | Command::SetRange { .. }) => *length >= HEAVY_BYTES as i64,
        (Outcome::Previous { value: Some(value), .. }, _) => value.len() >= HEAVY_BYTES,
        (Outcome::Value(Some(found)), _) => found.value.len() >= HEAVY_BYTES,
        (Outcome::Changed(true), Command::SetAllIfAbsent { pairs }) => pairs.encoded_bytes() >= HEAVY_BYTES,
        // They carry a value along whose length their outcome does not tell, and are rare.
        (Outcome::Changed(true) | Outcome::Done, Command::Copy { .. } | Command::Rename { .. }) => true,
        _ => false,
    }
}

pub(super) fn reply_of(outcome: Outcome<'_>) -> Reply<'_> {
    match outcome {
        Outcome::Stored { version } => Reply::Set(SetOutcome::Stored { version: version.0 }),
        Outcome::NotStored { current } => {
            Reply::Set(SetOutcome::NotStored { current: current.map(|version| version.0) })
        }
        Outcome::Previous { value, large, version, .. } => {
            let found = value.map(|value| StoredValue { value, version: version.0 });
            match (found, large) {
                (Some(found), Some(large)) => Reply::Large(found, large),
                (found, _) => Reply::Value(found),
            }
        }
        Outcome::Value(found) => value_reply(found),
        Outcome::Deleted(existed) | Outcome::Expired(existed) => Reply::Boolean(existed),
        Outcome::Changed(changed) => Reply::Boolean(changed),
        Outcome::Integer(number) => Reply::Integer(number),
        Outcome::Text(text) => Reply::Text(text),
        Outcome::Done => Reply::Status("OK"),
        Outcome::Failed(failure) => Reply::Error(failure.code(), failure.message()),
    }
}
