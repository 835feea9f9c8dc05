//! What can be asked about one key.

use eyot_protocol::request::KeyQuery;
use eyot_protocol::tlv::{self, Text};

use super::*;

const KEY: &[u8] = b"k";

fn holding(value: impl Into<tlv::Value>) -> Log {
    let mut encoded = Vec::new();
    value.into().encode(&mut encoded);
    let mut log = Log::new();
    log.one(set(KEY, &encoded), NOW_US);
    log
}

impl Log {
    fn ask(&self, query: KeyQuery) -> Answer<'_> {
        self.ask_at(query, NOW_US)
    }

    fn ask_at(&self, query: KeyQuery, now_us: i64) -> Answer<'_> {
        let place = self.shard.place(key::slot(KEY), KEY);
        let digest = self.shard.digest();
        let answer = self.shard.query(place, KEY, query, now_us);
        assert_eq!(self.shard.digest(), digest);
        answer
    }

    fn range(&self, start: i64, end: i64) -> String {
        let Answer::Bytes(text) = self.ask(KeyQuery::Range { start, end }) else { panic!("no text") };
        String::from_utf8(text.as_bytes().to_vec()).unwrap()
    }
}

const TTL: KeyQuery = KeyQuery::TimeToLive { milliseconds: false, absolute: false };
const PTTL: KeyQuery = KeyQuery::TimeToLive { milliseconds: true, absolute: false };
const EXPIRETIME: KeyQuery = KeyQuery::TimeToLive { milliseconds: false, absolute: true };
const PEXPIRETIME: KeyQuery = KeyQuery::TimeToLive { milliseconds: true, absolute: true };

#[test]
fn a_key_that_does_not_exist_or_has_expired_has_no_answers() {
    let mut expired = Log::new();
    expired.one(set_until(KEY, b"\x07\x01v", NOW_US + 1), NOW_US);
    for log in [Log::new(), expired] {
        let later = NOW_US + 1;
        assert_eq!(log.ask_at(KeyQuery::Value, later), Answer::Value(None));
        for query in [KeyQuery::Exists, KeyQuery::Touch] {
            assert_eq!(log.ask_at(query, later), Answer::Boolean(false));
        }
        assert_eq!(log.ask_at(KeyQuery::Length, later), Answer::Integer(0));
        assert_eq!(log.ask_at(KeyQuery::Range { start: 0, end: -1 }, later), Answer::Bytes(Text::Bytes(b"")));
        for query in [TTL, PTTL, EXPIRETIME, PEXPIRETIME] {
            assert_eq!(log.ask_at(query, later), Answer::Integer(-2));
        }
        assert_eq!(log.ask_at(KeyQuery::Type, later), Answer::Status("none"));
        for query in [KeyQuery::Encoding, KeyQuery::Frequency, KeyQuery::IdleTime, KeyQuery::MemoryUsage] {
            assert_eq!(log.ask_at(query, later), Answer::Null);
        }
    }
}

#[test]
fn a_value_comes_with_version_and_expiry() {
    let log = holding("v");
    let stored = Stored { value: b"\x01\x01v", version: log.latest(), expires_at_us: None, large: None };
    assert_eq!(log.ask(KeyQuery::Value), Answer::Value(Some(stored)));
    assert_eq!(log.ask(KeyQuery::Exists), Answer::Boolean(true));
    assert_eq!(log.ask(KeyQuery::Touch), Answer::Boolean(true));
}

#[test]
fn times_to_live_are_rounded_as_in_redis() {
    let mut log = holding("v");
    for query in [TTL, PTTL, EXPIRETIME, PEXPIRETIME] {
        assert_eq!(log.ask(query), Answer::Integer(-1));
    }
    let at_us = NOW_US + 10 * SECOND_US;
    log.one(set_until(KEY, b"", at_us), NOW_US);
    for (now_us, milliseconds, seconds) in [
        (NOW_US, 10_000, 10),
        (NOW_US + 1, 9_999, 10),
        (NOW_US + 500_000, 9_500, 10),
        (NOW_US + 501_000, 9_499, 9),
        (at_us - 1, 0, 0),
        (NOW_US - 1_600_000, 11_600, 12),
    ] {
        assert_eq!(log.ask_at(PTTL, now_us), Answer::Integer(milliseconds));
        assert_eq!(log.ask_at(TTL, now_us), Answer::Integer(seconds));
    }
    assert_eq!(log.ask(PEXPIRETIME), Answer::Integer(at_us / 1000));
    assert_eq!(log.ask(EXPIRETIME), Answer::Integer(at_us / SECOND_US));
    // The ends of time are only numbers.
    log.one(set_until(KEY, b"", i64::MAX), i64::MIN);
    assert_eq!(log.ask_at(PTTL, i64::MIN), Answer::Integer(i64::MAX / 1000));
    log.one(set_until(KEY, b"", -1_500_000), i64::MIN);
    assert_eq!(log.ask_at(PEXPIRETIME, i64::MIN), Answer::Integer(-1_500));
}

#[test]
fn a_range_counts_from_either_end() {
    let log = holding("This is a string");
    for (start, end, expected) in [
        (0, 3, "This"),
        (-3, -1, "ing"),
        (0, -1, "This is a string"),
        (10, 100, "string"),
        (5, 5, "i"),
        (3, 2, ""),
        (-1, -3, ""),
        (100, 200, ""),
        (-100, 3, "This"),
        (-100, -50, "T"),
        (0, -100, "T"),
        (1, -100, ""),
        (i64::MIN, i64::MAX, "This is a string"),
        (i64::MAX, i64::MIN, ""),
        (i64::MIN, i64::MIN, "T"),
    ] {
        assert_eq!(log.range(start, end), expected, "{start} to {end}");
    }
    assert_eq!(holding("").range(0, -1), "");
    assert_eq!(holding(12_345_i64).range(1, -2), "234");
}

#[test]
fn a_length_is_that_of_the_text() {
    assert_eq!(holding("four").ask(KeyQuery::Length), Answer::Integer(4));
    assert_eq!(holding(vec![0_u8; 300]).ask(KeyQuery::Length), Answer::Integer(300));
    assert_eq!(holding(-1_i64).ask(KeyQuery::Length), Answer::Integer(2));
    assert_eq!(holding(false).ask(KeyQuery::Length), Answer::Integer(5));
    for value in [tlv::Value::Null, tlv::Value::List(vec![]), tlv::Value::Map(vec![])] {
        let log = holding(value);
        assert_eq!(log.ask(KeyQuery::Length), Answer::Failed(Failure::WrongType));
        assert_eq!(log.ask(KeyQuery::Range { start: 0, end: 1 }), Answer::Failed(Failure::WrongType));
    }
}

#[test]
fn types_and_forms_have_the_names_of_redis() {
    let long = "x".repeat(45);
    for (value, kind, form) in [
        (tlv::Value::from("12"), "string", "int"),
        (tlv::Value::from("012"), "string", "embstr"),
        (tlv::Value::from(&long[1..]), "string", "embstr"),
        (tlv::Value::from(&long[..]), "string", "raw"),
        (tlv::Value::from(7_i64), "string", "int"),
        (tlv::Value::from(1.5), "string", "embstr"),
        (tlv::Value::from(true), "string", "embstr"),
        (tlv::Value::List(vec![]), "list", "listpack"),
        (tlv::Value::Map(vec![]), "hash", "listpack"),
    ] {
        let log = holding(value);
        assert_eq!(log.ask(KeyQuery::Type), Answer::Status(kind));
        assert_eq!(log.ask(KeyQuery::Encoding), Answer::Status(form));
    }
}

#[test]
fn the_memory_of_a_key_is_about_what_it_adds() {
    let usage = |log: &Log| match log.ask(KeyQuery::MemoryUsage) {
        Answer::Integer(bytes) => bytes as usize,
        other => panic!("{other:?}"),
    };
    let small = usage(&holding("v"));
    assert!((30..100).contains(&small), "{small}");
    let large = usage(&holding(vec![0_u8; 10_000]));
    assert!((10_000..13_000).contains(&large), "{large}");
    let mut expiring = Log::new();
    expiring.one(set_until(KEY, b"\x01\x01v", NOW_US + 1), NOW_US);
    assert!(usage(&expiring) > small);
}

#[test]
fn the_access_word_of_a_key_can_be_read() {
    let log = holding("v");
    assert!(matches!(log.ask(KeyQuery::Frequency), Answer::Access(_)));
    assert_eq!(log.ask(KeyQuery::IdleTime), log.ask(KeyQuery::Frequency));
}
