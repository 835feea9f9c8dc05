//! The outcomes of the commands that read what they change, and of those on several keys, one by one.

use eyot_protocol::command::{ExpiryCondition, PairList};
use eyot_protocol::limits::MAX_VALUE_BYTES;
use eyot_protocol::request::KeyQuery;
use eyot_protocol::tlv;
use eyot_protocol::ErrorCode;
use proptest::prelude::*;

use super::super::commands::MAX_TEXT_BYTES;
use super::*;

const KEY: &[u8] = b"k";
const LATER_US: i64 = NOW_US + 60 * SECOND_US;

fn encoded(value: impl Into<tlv::Value>) -> Vec<u8> {
    let mut encoded = Vec::new();
    value.into().encode(&mut encoded);
    encoded
}

fn text(text: &str) -> Vec<u8> {
    encoded(text.as_bytes())
}

impl Log {
    /// Stores `value` under `KEY`, to expire later.
    fn holding(value: impl Into<tlv::Value>) -> Self {
        let mut log = Self::new();
        log.one(set_until(KEY, &encoded(value), LATER_US), NOW_US);
        log
    }

    /// The bytes that are under `KEY` now, and when it expires.
    fn bytes(&self) -> (String, Option<i64>) {
        let stored = self.get(KEY, NOW_US).expect("a key");
        let tlv::Value::Bytes(bytes) = tlv::Value::decode(stored.value).unwrap() else { panic!("not bytes") };
        (String::from_utf8(bytes).unwrap(), stored.expires_at_us)
    }

    /// That `command` fails as it should, and leaves everything as it was.
    #[track_caller]
    fn fails(&mut self, command: Command<'_>, failure: Failure) {
        let digest = self.shard.digest();
        assert_eq!(self.one(command, NOW_US), Outcome::Failed(failure));
        assert_eq!(self.shard.digest(), digest);
    }
}

fn append(bytes: &[u8]) -> Command<'_> {
    Command::Append { key: KEY, bytes, length_max: None }
}

fn increment(by: i64) -> Command<'static> {
    Command::Increment { key: KEY, by }
}

fn increment_float(by: &str) -> Command<'_> {
    Command::IncrementFloat { key: KEY, by: by.as_bytes() }
}

fn set_range(offset: u32, bytes: &[u8]) -> Command<'_> {
    Command::SetRange { key: KEY, offset, bytes }
}

fn commands_on_texts() -> [Command<'static>; 4] {
    [append(b"x"), increment(1), increment_float("1"), set_range(0, b"x")]
}

#[test]
fn texts_grow_and_keep_their_expiry() {
    let mut log = Log::new();
    assert_eq!(log.one(append(b""), NOW_US), Outcome::Integer(0));
    assert_eq!(log.bytes(), (String::new(), None));
    assert_eq!(log.one(append(b"Hello"), NOW_US), Outcome::Integer(5));
    log.one(set_until(KEY, &text("Hello"), LATER_US), NOW_US);
    assert_eq!(log.one(append(b" World"), NOW_US), Outcome::Integer(11));
    assert_eq!(log.bytes(), ("Hello World".to_owned(), Some(LATER_US)));
    assert_eq!(log.get(KEY, NOW_US).unwrap().version, log.latest());

    let long = "x".repeat(200);
    assert_eq!(log.one(append(long.as_bytes()), NOW_US), Outcome::Integer(211));
    assert_eq!(log.bytes().0, format!("Hello World{long}"));
    // Any scalar has a text; what comes of it is bytes.
    let mut log = Log::holding(-12_i64);
    assert_eq!(log.one(append(b"3"), NOW_US), Outcome::Integer(4));
    assert_eq!(log.bytes(), ("-123".to_owned(), Some(LATER_US)));
}

#[test]
fn a_range_is_written_over_a_text_and_zeros_fill_the_gap() {
    let mut log = Log::new();
    assert_eq!(log.one(set_range(5, b""), NOW_US), Outcome::Integer(0));
    assert_eq!(log.get(KEY, NOW_US), None, "writing nothing makes no key");
    assert_eq!(log.one(set_range(3, b"abc"), NOW_US), Outcome::Integer(6));
    assert_eq!(log.bytes(), ("\0\0\0abc".to_owned(), None));

    let mut log = Log::holding("Hello World");
    assert_eq!(log.one(set_range(6, b"Redis"), NOW_US), Outcome::Integer(11));
    assert_eq!(log.bytes(), ("Hello Redis".to_owned(), Some(LATER_US)));
    assert_eq!(log.one(set_range(1, b"a"), NOW_US), Outcome::Integer(11));
    assert_eq!(log.one(set_range(9, b"--more"), NOW_US), Outcome::Integer(15));
    assert_eq!(log.one(set_range(500, b""), NOW_US), Outcome::Integer(15));
    assert_eq!(log.bytes().0, "Hallo Red--more");
}

#[test]
fn no_text_grows_beyond_what_a_value_may_have() {
    assert_eq!(tlv::encoded_bytes_of_bytes(MAX_TEXT_BYTES), MAX_VALUE_BYTES);
    let mut log = Log::holding("x");
    log.fails(set_range(MAX_TEXT_BYTES as u32, b"x"), Failure::TooLarge);
    log.fails(set_range(u32::MAX, b"x"), Failure::TooLarge);
    let mut log = Log::new();
    log.fails(set_range(MAX_TEXT_BYTES as u32, b"x"), Failure::TooLarge);
}

#[test]
fn integers_count_and_stop_at_their_limits() {
    let mut log = Log::new();
    assert_eq!(log.one(increment(-3), NOW_US), Outcome::Integer(-3));
    assert_eq!(log.bytes(), ("-3".to_owned(), None));
    let mut log = Log::holding("9223372036854775806");
    assert_eq!(log.one(increment(1), NOW_US), Outcome::Integer(i64::MAX));
    assert_eq!(log.bytes(), (i64::MAX.to_string(), Some(LATER_US)));
    log.fails(increment(1), Failure::Overflow);
    for (value, by, sum) in [(10_i64, -20, -10), (i64::MIN, i64::MAX, -1), (-1, i64::MIN + 1, i64::MIN)] {
        assert_eq!(Log::holding(value).one(increment(by), NOW_US), Outcome::Integer(sum));
    }
    for no_integer in ["", " 1", "1 ", "01", "-0", "+1", "1.0", "1e3", "9223372036854775808", "x"] {
        Log::holding(no_integer).fails(increment(0), Failure::NotAnInteger);
    }
    Log::holding(true).fails(increment(1), Failure::NotAnInteger);
}

#[test]
fn decimals_count_as_in_redis() {
    let mut log = Log::new();
    assert_eq!(log.one(increment_float("3.0e3"), NOW_US), Outcome::Text(b"3000"));
    assert_eq!(log.one(increment_float("-.25"), NOW_US), Outcome::Text(b"2999.75"));
    let mut log = Log::holding("0.1");
    assert_eq!(log.one(increment_float("0.2"), NOW_US), Outcome::Text(b"0.3"));
    assert_eq!(log.bytes(), ("0.3".to_owned(), Some(LATER_US)));
    log.fails(increment_float("inf"), Failure::NanOrInfinity);
    log.fails(increment_float("two"), Failure::NotAFloat);
    Log::holding("abc").fails(increment_float("1"), Failure::NotAFloat);
    Log::holding("").fails(increment_float("1"), Failure::NotAFloat);
    // More than a short length, so that the head before the text takes two bytes.
    let mut log = Log::holding("1e300");
    let Outcome::Text(long) = log.one(increment_float("0"), NOW_US) else { panic!("no text") };
    assert_eq!(long.len(), 301);
    assert_eq!(log.bytes().0.as_bytes(), long);
}

proptest! {
    #[test]
    fn incrbyfloat_answers_what_get_and_strlen_then_tell(
        before in prop_oneof![
            any::<f64>().prop_map(tlv::Value::Float64),
            any::<i64>().prop_map(tlv::Value::Int64),
            any::<f64>().prop_map(|number| tlv::Value::Bytes(number.to_string().into_bytes())),
        ],
        by in any::<f64>(),
    ) {
        let mut log = Log::holding(before);
        let by = by.to_string();
        let Outcome::Text(told) = log.one(increment_float(&by), NOW_US) else { return Ok(()) };
        let place = log.shard.place(key::slot(KEY), KEY);
        let ask = |query| log.shard.query(place, KEY, query, NOW_US);
        prop_assert_eq!(ask(KeyQuery::Length), Answer::Integer(told.len() as i64));
        let whole = KeyQuery::Range { start: 0, end: -1 };
        prop_assert_eq!(ask(whole), Answer::Bytes(tlv::Text::Bytes(told)));
        let Answer::Value(Some(stored)) = ask(KeyQuery::Value) else { panic!("the key is there") };
        prop_assert_eq!(tlv::text_of(stored.value), Some(tlv::Text::Bytes(told)));
    }
}

#[test]
fn values_without_a_text_are_of_the_wrong_type() {
    let values = [tlv::Value::Null, tlv::Value::List(vec![]), tlv::Value::Map(vec![])];
    for value in values {
        for command in commands_on_texts() {
            Log::holding(value.clone()).fails(command, Failure::WrongType);
        }
    }
    // What is not even a value has no text either.
    let mut log = Log::new();
    log.one(set(KEY, b"no value"), NOW_US);
    commands_on_texts().into_iter().for_each(|command| log.fails(command, Failure::WrongType));
}

#[test]
fn what_has_expired_is_begun_anew() {
    for (command, after) in commands_on_texts().into_iter().zip(["x", "1", "1", "x"]) {
        let mut log = Log::holding("7 dwarfs");
        log.one(command, LATER_US);
        assert_eq!(log.bytes(), (after.to_owned(), None), "{command:?}");
    }
    let mut log = Log::holding("v");
    assert_eq!(log.one(Command::TakeOut { key: KEY }, LATER_US), Outcome::Value(None));
    assert_eq!(log.shard.key_count(), 0, "its memory is free now");
    let mut log = Log::holding("v");
    let rename = Command::Rename { from: KEY, to: b"to", if_absent: false };
    assert_eq!(log.one(rename, LATER_US), Outcome::Failed(Failure::NoSuchKey));
    let copy = Command::Copy { from: KEY, to: b"to", replace: true };
    assert_eq!(log.one(copy, LATER_US), Outcome::Changed(false));
    let persist = Command::SetExpiry { key: KEY, at_us: None, condition: ExpiryCondition::Always, return_value: true };
    assert_eq!(log.one(persist, LATER_US), Outcome::Value(None));
}

#[test]
fn a_set_returns_what_was_there() {
    let set = |value, expiry, condition| Command::Set {
        key: KEY,
        value: Value::Encoded(value),
        expiry,
        condition,
        return_old: true,
    };
    let mut log = Log::new();
    let nothing = Outcome::Previous { value: None, large: None, stored: false, version: Version(0) };
    assert_eq!(log.one(set(b"a", NewExpiry::Never, Condition::IfPresent), NOW_US), nothing);
    let outcome = log.one(set(b"a", NewExpiry::At(LATER_US), Condition::IfAbsent), NOW_US);
    let first = log.latest();
    assert_eq!(outcome, Outcome::Previous { value: None, large: None, stored: true, version: first });
    let refused = Outcome::Previous { value: Some(b"a"), large: None, stored: false, version: first };
    assert_eq!(log.one(set(b"b", NewExpiry::Never, Condition::IfAbsent), NOW_US), refused);
    let outcome = log.one(set(b"longer", NewExpiry::Keep, Condition::Always), NOW_US);
    assert_eq!(outcome, Outcome::Previous { value: Some(b"a"), large: None, stored: true, version: log.latest() });
    let expected = Stored { value: b"longer", version: log.latest(), expires_at_us: Some(LATER_US), large: None };
    assert_eq!(log.get(KEY, NOW_US), Some(expected));
    // Dead on arrival: the old value comes back, and nothing is left.
    let outcome = log.one(set(b"c", NewExpiry::At(NOW_US), Condition::Always), NOW_US);
    assert_eq!(outcome, Outcome::Previous { value: Some(b"longer"), large: None, stored: true, version: log.latest() });
    assert_eq!((log.shard.key_count(), log.shard.expiring_key_count()), (0, 0));
}

#[test]
fn a_key_taken_out_is_gone_and_known() {
    let mut log = Log::holding("v");
    let value = encoded("v");
    let stored = Stored { value: &value, version: log.latest(), expires_at_us: Some(LATER_US), large: None };
    assert_eq!(log.one(Command::TakeOut { key: KEY }, NOW_US), Outcome::Value(Some(stored)));
    assert_eq!(log.one(Command::TakeOut { key: KEY }, NOW_US), Outcome::Value(None));
    assert_eq!((log.shard.key_count(), log.shard.expiring_key_count()), (0, 0));
    // Several in one entry: each outcome has its own value.
    log.apply(&[set(b"a", b"1"), set(b"b", b"2")], NOW_US);
    let taken = log.apply(&[Command::TakeOut { key: b"a" }, Command::TakeOut { key: b"b" }], NOW_US);
    let version = |position| Version::new(Index(log.index - 1), position);
    let stored = |value, position| Stored { value, version: version(position), expires_at_us: None, large: None };
    assert_eq!(taken, [Outcome::Value(Some(stored(b"1", 0))), Outcome::Value(Some(stored(b"2", 1)))]);
}

#[test]
fn an_expiry_is_set_under_its_condition() {
    use ExpiryCondition::{Always, IfAny, IfAnySooner, IfLater, IfNone, IfSooner};
    let at = |at_us, condition| Command::SetExpiry { key: KEY, at_us, condition, return_value: false };
    let (none, soon, late) = (None, Some(NOW_US + 1), Some(LATER_US));
    // The expiry that is there, the condition, the new one: whether it takes effect.
    for (current, condition, new, expected) in [
        (none, Always, soon, true),
        (soon, Always, none, true),
        (none, Always, none, false),
        (none, IfNone, soon, true),
        (soon, IfNone, late, false),
        (none, IfAny, soon, false),
        (soon, IfAny, late, true),
        (soon, IfLater, late, true),
        (soon, IfLater, soon, false),
        (late, IfLater, soon, false),
        (none, IfLater, late, false),
        (late, IfSooner, soon, true),
        (soon, IfSooner, soon, false),
        (soon, IfSooner, late, false),
        (none, IfSooner, late, true),
        (none, IfAnySooner, late, false),
        (late, IfAnySooner, soon, true),
        (soon, IfAnySooner, late, false),
    ] {
        let mut log = Log::new();
        assert_eq!(log.one(at(new, condition), NOW_US), Outcome::Changed(false), "there is no key");
        log.one(set(KEY, b"v"), NOW_US);
        let expiry = current.map_or(NewExpiry::Never, NewExpiry::At);
        let value = Value::Encoded(b"v");
        log.one(Command::Set { key: KEY, value, expiry, condition: Condition::Always, return_old: false }, NOW_US);
        let before = log.latest();
        let case = format!("{current:?} {condition:?} {new:?}");
        assert_eq!(log.one(at(new, condition), NOW_US), Outcome::Changed(expected), "{case}");
        let version = if expected { log.latest() } else { before };
        let expires_at_us = if expected { new } else { current };
        assert_eq!(log.get(KEY, NOW_US), Some(Stored { value: b"v", version, expires_at_us, large: None }), "{case}");
    }
}

#[test]
fn an_expiry_that_has_passed_removes_the_key_if_its_condition_holds() {
    let at = |at_us, condition, return_value| Command::SetExpiry { key: KEY, at_us, condition, return_value };
    for at_us in [NOW_US, NOW_US - 1, i64::MIN] {
        let mut log = Log::holding("v");
        let refused = at(Some(at_us), ExpiryCondition::IfNone, false);
        assert_eq!(log.one(refused, NOW_US), Outcome::Changed(false));
        let later = at(Some(at_us), ExpiryCondition::IfLater, false);
        assert_eq!(log.one(later, NOW_US), Outcome::Changed(false));
        let done = at(Some(at_us), ExpiryCondition::Always, false);
        assert_eq!(log.one(done, NOW_US), Outcome::Changed(true));
        assert_eq!((log.shard.key_count(), log.shard.expiring_key_count()), (0, 0));

        let mut log = Log::new();
        log.one(set(KEY, b"v"), NOW_US);
        let version = log.latest();
        let taken = log.one(at(Some(at_us), ExpiryCondition::Always, true), NOW_US);
        assert_eq!(taken, Outcome::Value(Some(Stored { value: b"v", version, expires_at_us: None, large: None })));
        assert_eq!(log.shard.key_count(), 0);
    }
    let mut log = Log::new();
    log.one(set(KEY, b"v"), NOW_US);
    let value = log.one(at(Some(LATER_US), ExpiryCondition::Always, true), NOW_US);
    let stored = Stored { value: b"v", version: log.latest(), expires_at_us: Some(LATER_US), large: None };
    assert_eq!(value, Outcome::Value(Some(stored)));
}

#[test]
fn a_sweep_does_not_remove_a_key_that_was_given_more_time() {
    let mut log = Log::new();
    log.one(set_until(KEY, b"v", NOW_US + SECOND_US), NOW_US);
    let offered = swept(&mut log.shard, NOW_US + 2 * SECOND_US, 10);
    assert_eq!(offered.len(), 1);
    // This entry was formed while the key lived, and came before the sweep's removal in the log.
    let more =
        Command::SetExpiry { key: KEY, at_us: Some(LATER_US), condition: ExpiryCondition::Always, return_value: false };
    assert_eq!(log.one(more, NOW_US), Outcome::Changed(true));
    let expire = Command::Expire { key: KEY, version: offered[0].1 .0 };
    assert_eq!(log.one(expire, NOW_US + 2 * SECOND_US), Outcome::Expired(false));
    assert!(log.get(KEY, NOW_US + 2 * SECOND_US).is_some());
}

#[test]
fn a_renamed_key_keeps_value_and_expiry() {
    let rename = |to, if_absent| Command::Rename { from: KEY, to, if_absent };
    let mut log = Log::new();
    log.fails(rename(b"to", false), Failure::NoSuchKey);
    log.fails(rename(KEY, true), Failure::NoSuchKey);
    log.one(set_until(KEY, b"v", LATER_US), NOW_US);
    log.one(set_until(b"to", b"other", NOW_US + 1), NOW_US);
    let digest = log.shard.digest();
    assert_eq!(log.one(rename(KEY, false), NOW_US), Outcome::Done);
    assert_eq!(log.one(rename(KEY, true), NOW_US), Outcome::Changed(false));
    assert_eq!(log.one(rename(b"to", true), NOW_US), Outcome::Changed(false));
    assert_eq!(log.shard.digest(), digest);
    assert_eq!(log.one(rename(b"to", false), NOW_US), Outcome::Done);
    let stored = Stored { value: b"v", version: log.latest(), expires_at_us: Some(LATER_US), large: None };
    assert_eq!((log.get(KEY, NOW_US), log.get(b"to", NOW_US)), (None, Some(stored)));
    assert_eq!((log.shard.key_count(), log.shard.expiring_key_count()), (1, 1));
    // The timer is that of the new name: the sweep finds it there.
    let offered = swept(&mut log.shard, LATER_US + SECOND_US, 10);
    assert_eq!(offered, [(b"to".to_vec(), log.latest())]);
    // A target that has expired is none.
    log.one(set(KEY, b"w"), NOW_US);
    assert_eq!(log.one(rename(b"to", true), LATER_US), Outcome::Changed(true));
    assert_eq!(log.get(b"to", LATER_US).unwrap().value, b"w");
}

#[test]
fn a_copy_is_independent() {
    let copy = |from, to, replace| Command::Copy { from, to, replace };
    let mut log = Log::new();
    assert_eq!(log.one(copy(KEY, b"to", true), NOW_US), Outcome::Changed(false));
    log.one(set_until(KEY, b"v", LATER_US), NOW_US);
    assert_eq!(log.one(copy(KEY, KEY, true), NOW_US), Outcome::Changed(false));
    assert_eq!(log.one(copy(KEY, b"to", false), NOW_US), Outcome::Changed(true));
    let stored = Stored { value: b"v", version: log.latest(), expires_at_us: Some(LATER_US), large: None };
    assert_eq!(log.get(b"to", NOW_US), Some(stored));
    log.one(set(KEY, b"new"), NOW_US);
    assert_eq!(log.get(b"to", NOW_US), Some(stored));
    assert_eq!(log.one(copy(KEY, b"to", false), NOW_US), Outcome::Changed(false));
    assert_eq!(log.one(copy(KEY, b"to", true), NOW_US), Outcome::Changed(true));
    let stored = Stored { value: b"new", version: log.latest(), expires_at_us: None, large: None };
    assert_eq!(log.get(b"to", NOW_US), Some(stored));
    assert_eq!((log.shard.key_count(), log.shard.expiring_key_count()), (2, 0));
}

#[test]
fn several_keys_are_set_together_or_not_at_all() {
    let mut log = Log::new();
    let set_all = |pairs| Command::SetAllIfAbsent { pairs: PairList::new(pairs) };
    log.one(set_until(b"b", b"old", NOW_US + 1), NOW_US);
    let pairs: &[(&[u8], &[u8])] = &[(b"a", b"1"), (b"b", b"2"), (b"a", b"3")];
    assert_eq!(log.one(set_all(pairs), NOW_US), Outcome::Changed(false));
    assert_eq!((log.get(b"a", NOW_US), log.shard.key_count()), (None, 1));
    // In one entry with commands of one key and of none: every command finds its own places.
    let commands = [set(b"x", b"x"), set_all(pairs), Command::Delete { key: b"x" }];
    assert_eq!(log.apply(&commands, NOW_US + 1)[1..], [Outcome::Changed(true), Outcome::Deleted(true)]);
    let version = Version::new(Index(log.index), 1);
    for (key, value) in [(b"a", "3"), (b"b", "2")] {
        let stored = Stored { value: &text(value), version, expires_at_us: None, large: None };
        assert_eq!(log.get(key, NOW_US), Some(stored));
    }
}

#[test]
fn a_key_of_another_shard_is_refused_wherever_it_stands() {
    let home = key::shard_of_slot(key::slot(b"foo"), 4);
    let pairs: &[(&[u8], &[u8])] = &[(b"foo", b"1"), (b"bar", b"2")];
    for command in [
        Command::Rename { from: b"foo", to: b"bar", if_absent: false },
        Command::Copy { from: b"foo", to: b"bar", replace: false },
        Command::SetAllIfAbsent { pairs: PairList::new(pairs) },
    ] {
        let mut shard = Shard::new(ShardId(home), 4, 1);
        let payload = entry(&[set(b"foo", b"v"), command], NOW_US);
        let error = shard.apply(Index(1), &payload, |_, _| panic!("nothing may be applied")).unwrap_err();
        assert_eq!((error.problem, shard.key_count()), ("a key of another shard", 0));
    }
}

#[test]
fn failures_have_codes_and_the_words_of_redis() {
    let words = [
        (Failure::WrongType, ErrorCode::WrongType, "Operation against a key holding the wrong kind of value"),
        (Failure::NotAnInteger, ErrorCode::InvalidNumber, "value is not an integer or out of range"),
        (Failure::NotAFloat, ErrorCode::InvalidNumber, "value is not a valid float"),
        (Failure::Overflow, ErrorCode::InvalidNumber, "increment or decrement would overflow"),
        (Failure::NanOrInfinity, ErrorCode::InvalidNumber, "increment would produce NaN or Infinity"),
        (Failure::TooLarge, ErrorCode::ValueTooLarge, "string exceeds maximum allowed size (proto-max-bulk-len)"),
        (Failure::NoSuchKey, ErrorCode::NoSuchKey, "no such key"),
    ];
    for (failure, code, message) in words {
        assert_eq!((failure.code(), failure.message()), (code, message));
    }
}
