//! A question or a log command in the words of the Redis command that it stands for.
//!
//! Place in the flow: beside steps 5 and 8, where a command that took long is known and the client's own words are not:
//! they were left behind when the command entered the log, or on another core.
//!
//! What several commands of Redis say in one way is told as the plainest of them: SETEX and SETNX as SET with options,
//! DECR as INCRBY. A time is told as the absolute one that the log has.

use std::borrow::Cow;

use eyot_protocol::command::{Command, Condition, ExpiryCondition, NewExpiry, Value};
use eyot_protocol::request::KeyQuery;
use eyot_protocol::tlv::text_of;

use super::slowlog::shortened;
use crate::router::Asked;

type Words<'a> = Vec<Cow<'a, [u8]>>;

fn word(text: &str) -> Cow<'_, [u8]> {
    Cow::Borrowed(text.as_bytes())
}

fn number(number: impl Into<i128>) -> Cow<'static, [u8]> {
    Cow::Owned(number.into().to_string().into_bytes())
}

/// Name and arguments, as the slow log keeps them.
pub fn shortened_words(asked: Asked<'_>) -> Vec<Vec<u8>> {
    let words = match asked {
        Asked::Read(key, KeyQuery::Range { start, end }) => {
            vec![word("GETRANGE"), key.into(), number(start), number(end)]
        }
        // No other question is answered with so much that its time is told.
        Asked::Read(key, _) => vec![word("GET"), key.into()],
        Asked::Write(command) => words_of_write(command),
    };
    shortened(words.iter().map(|word| &word[..]))
}

fn words_of_write<'a>(command: &Command<'a>) -> Words<'a> {
    match *command {
        Command::Set { key, value, expiry, condition, return_old } => {
            let mut words = vec![word("SET"), key.into(), text(value)];
            put_condition(condition, &mut words);
            put_expiry(expiry, &mut words);
            words.extend(return_old.then(|| word("GET")));
            words
        }
        Command::Delete { key } | Command::Expire { key, .. } => vec![word("DEL"), key.into()],
        Command::TakeOut { key } => vec![word("GETDEL"), key.into()],
        Command::Append { key, bytes, .. } => vec![word("APPEND"), key.into(), bytes.into()],
        Command::Increment { key, by } => vec![word("INCRBY"), key.into(), number(by)],
        Command::IncrementFloat { key, by } => vec![word("INCRBYFLOAT"), key.into(), by.into()],
        Command::SetRange { key, offset, bytes } => {
            vec![word("SETRANGE"), key.into(), number(offset), bytes.into()]
        }
        Command::SetExpiry { key, at_us, condition, return_value } => set_expiry(key, at_us, condition, return_value),
        Command::Rename { from, to, if_absent } => {
            vec![word(if if_absent { "RENAMENX" } else { "RENAME" }), from.into(), to.into()]
        }
        Command::Copy { from, to, replace } => {
            let mut words = vec![word("COPY"), from.into(), to.into()];
            words.extend(replace.then(|| word("REPLACE")));
            words
        }
        Command::SetAllIfAbsent { pairs } => {
            let pairs = pairs.iter().flat_map(|(key, value)| [key.into(), text(value)]);
            std::iter::once(word("MSETNX")).chain(pairs).collect()
        }
        Command::Clear => vec![word("FLUSHALL")],
    }
}

fn set_expiry(key: &[u8], at_us: Option<i64>, condition: ExpiryCondition, returns: bool) -> Words<'_> {
    match (at_us, returns) {
        (None, false) => vec![word("PERSIST"), key.into()],
        (None, true) => vec![word("GETEX"), key.into(), word("PERSIST")],
        (Some(at_us), true) => vec![word("GETEX"), key.into(), word("PXAT"), number(at_us / 1000)],
        (Some(at_us), false) => {
            let mut words = vec![word("PEXPIREAT"), key.into(), number(at_us / 1000)];
            words.extend(match condition {
                ExpiryCondition::Always => None,
                ExpiryCondition::IfNone => Some(word("NX")),
                ExpiryCondition::IfAny => Some(word("XX")),
                ExpiryCondition::IfLater => Some(word("GT")),
                ExpiryCondition::IfSooner | ExpiryCondition::IfAnySooner => Some(word("LT")),
            });
            words
        }
    }
}

fn put_condition(condition: Condition, words: &mut Words<'_>) {
    match condition {
        Condition::Always => {}
        Condition::IfAbsent => words.push(word("NX")),
        Condition::IfPresent => words.push(word("XX")),
        // Of the native protocol; Redis has no word for it.
        Condition::IfVersion(version) => words.extend([word("IFVERSION"), number(version)]),
    }
}

fn put_expiry(expiry: NewExpiry, words: &mut Words<'_>) {
    match expiry {
        NewExpiry::Never => {}
        NewExpiry::At(at_us) => words.extend([word("PXAT"), number(at_us / 1000)]),
        NewExpiry::Keep => words.push(word("KEEPTTL")),
    }
}

/// A value that has no text is told by nothing of its own, and a large one by its place in the log.
fn text(value: Value<'_>) -> Cow<'_, [u8]> {
    match value {
        Value::Bytes(bytes) => bytes.into(),
        Value::Encoded(encoded) => match text_of(encoded) {
            Some(eyot_protocol::tlv::Text::Bytes(bytes)) => bytes.into(),
            Some(short) => Cow::Owned(short.as_bytes().to_vec()),
            None => word("(no text)"),
        },
        Value::Upload(_) => word("(a large value)"),
    }
}

#[cfg(test)]
mod tests {
    use eyot_protocol::command::PairList;

    use super::*;

    fn told(asked: Asked<'_>) -> String {
        let words: Vec<String> =
            shortened_words(asked).iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn each_is_told_as_the_plainest_command_that_does_it() {
        let set =
            |value, expiry, condition, return_old| Command::Set { key: b"k", value, expiry, condition, return_old };
        let (text, never) = (Value::Encoded(b"\x07\x02hi"), NewExpiry::Never);
        let at = |at_us, condition, return_value| Command::SetExpiry { key: b"k", at_us, condition, return_value };
        for (command, expected) in [
            (set(text, never, Condition::Always, false), "SET k hi"),
            (set(Value::Bytes(b"x"), NewExpiry::At(5_000), Condition::IfAbsent, true), "SET k x NX PXAT 5 GET"),
            (
                set(Value::Encoded(&[2, 42, 0, 0, 0]), NewExpiry::Keep, Condition::IfPresent, false),
                "SET k 42 XX KEEPTTL",
            ),
            (Command::TakeOut { key: b"k" }, "GETDEL k"),
            (Command::Append { key: b"k", bytes: b"x", length_max: Some(9) }, "APPEND k x"),
            (Command::SetRange { key: b"k", offset: 7, bytes: b"x" }, "SETRANGE k 7 x"),
            (Command::Increment { key: b"k", by: -1 }, "INCRBY k -1"),
            (at(None, ExpiryCondition::Always, false), "PERSIST k"),
            (at(Some(9_000), ExpiryCondition::Always, true), "GETEX k PXAT 9"),
            (at(Some(9_000), ExpiryCondition::IfLater, false), "PEXPIREAT k 9 GT"),
            (Command::Rename { from: b"a", to: b"b", if_absent: true }, "RENAMENX a b"),
            (Command::Copy { from: b"a", to: b"b", replace: true }, "COPY a b REPLACE"),
            (Command::SetAllIfAbsent { pairs: PairList::new(&[(b"a", b"1"), (b"b", b"2")]) }, "MSETNX a 1 b 2"),
            (Command::Clear, "FLUSHALL"),
        ] {
            assert_eq!(told(Asked::Write(&command)), expected);
        }
        assert_eq!(told(Asked::Read(b"k", KeyQuery::Value)), "GET k");
        assert_eq!(told(Asked::Read(b"k", KeyQuery::Range { start: 0, end: -1 })), "GETRANGE k 0 -1");
    }

    #[test]
    fn the_name_of_each_is_in_the_table_of_commands() {
        for name in [
            "GET",
            "GETRANGE",
            "SET",
            "DEL",
            "GETDEL",
            "APPEND",
            "INCRBY",
            "INCRBYFLOAT",
            "SETRANGE",
            "PERSIST",
            "GETEX",
            "PEXPIREAT",
            "RENAME",
            "RENAMENX",
            "COPY",
            "MSETNX",
            "FLUSHALL",
        ] {
            assert!(eyot_protocol::resp::table::lookup(name.as_bytes()).is_some(), "{name}");
        }
    }
}
