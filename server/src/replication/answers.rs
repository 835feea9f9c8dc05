//! What the engine answers and does, as replies.
//!
//! Place in the flow: between steps 5 and 8 (execute, apply) and step 9 (reply). Pure: one kind of answer for another.

use eyot_protocol::request::KeyQuery;
use eyot_protocol::response::{SetOutcome, StoredValue};
use eyot_protocol::ErrorCode;

use super::driver::Read;
use crate::router::{Reply, ReplySink, ReplyTo};
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
        replies.reply(reply_to, value_reply(shard.get_at(read.place, read.key, now_us)));
        return;
    }
    let answer = shard.query(read.place, read.key, read.query, now_us);
    replies.reply(
        reply_to,
        match &answer {
            Answer::Value(found) => value_reply(*found),
            Answer::Boolean(value) => Reply::Boolean(*value),
            Answer::Integer(number) => Reply::Integer(*number),
            Answer::Bytes(text) => Reply::Text(text.as_bytes()),
            Answer::Access(word) => use_of(shard.access_clock(now_us), read.query, *word),
            Answer::Status(word) if read.query == KeyQuery::Encoding => Reply::Text(word.as_bytes()),
            Answer::Status(word) => Reply::Status(word),
            Answer::Null => Reply::Null,
            Answer::Failed(failure) => Reply::Error(failure.code(), failure.message()),
        },
    );
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

pub(super) fn reply_of(outcome: Outcome<'_>) -> Reply<'_> {
    match outcome {
        Outcome::Stored { version } => Reply::Set(SetOutcome::Stored { version: version.0 }),
        Outcome::NotStored { current } => {
            Reply::Set(SetOutcome::NotStored { current: current.map(|version| version.0) })
        }
        Outcome::Previous { value, version, .. } => {
            Reply::Value(value.map(|value| StoredValue { value, version: version.0 }))
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
