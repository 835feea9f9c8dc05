//! Large values in the shard: from their parts, by any command, told from small ones by nothing but where they are.
//!
//! Place in the flow: tests of the shard engine.

use eyot_protocol::value_part::{UploadId, ValuePart};
use eyot_ring::{page_bytes, MappedFile};

use super::*;

const UPLOAD: UploadId = UploadId(1 << 32 | 1);
const KEY: &[u8] = b"large";

/// Bytes of a large text, encoded.
fn text() -> Vec<u8> {
    let mut value = Vec::new();
    eyot_protocol::tlv::Encoder::new(&mut value).bytes(&(0..100_000_u32).map(|n| n as u8).collect::<Vec<u8>>());
    value
}

fn set<'a>(key: &'a [u8], value: Value<'a>) -> Command<'a> {
    Command::Set { key, value, expiry: NewExpiry::Never, condition: Condition::Always, return_old: false }
}

/// Applies the parts of `value`, which are logged as entries of their own, into a file if `mapped`.
fn apply_parts(log: &mut Log, upload: UploadId, value: &[u8], mapped: bool) {
    for (number, bytes) in value.chunks(30_000).enumerate() {
        log.index += 1;
        let (offset, total) = (30_000 * number as u64, value.len() as u64);
        let part = ValuePart::Bytes { upload, offset, total, bytes };
        let payload = [&part.header()[..], bytes].concat();
        let allocate = |bytes: usize| {
            let length = bytes.next_multiple_of(page_bytes());
            let file = || MappedFile::create(&std::env::temp_dir(), length).map(|(_, region)| region);
            mapped.then(file).transpose()
        };
        log.shard.apply_part(&payload, false, allocate).unwrap();
    }
}

#[test]
fn state_is_the_same_wherever_a_value_lies_and_however_it_came() {
    let value = text();
    let digests = [Some(true), Some(false), None].map(|mapped| {
        let mut log = Log::new();
        match mapped {
            Some(mapped) => {
                apply_parts(&mut log, UPLOAD, &value, mapped);
                log.one(set(KEY, Value::Upload(UPLOAD)), NOW_US);
            }
            None => {
                log.index = value.chunks(30_000).count() as u64;
                log.one(set(KEY, Value::Encoded(&value)), NOW_US);
            }
        }
        let stored = log.get(KEY, NOW_US).unwrap();
        assert!(stored.value == value);
        assert_eq!(stored.large.is_some(), mapped == Some(true));
        log.one(Command::Copy { from: KEY, to: b"copy", replace: false }, NOW_US);
        log.one(Command::Rename { from: KEY, to: b"renamed", if_absent: false }, NOW_US);
        log.one(Command::Append { key: b"copy", bytes: b"!", length_max: None }, NOW_US);
        assert!(log.get(b"renamed", NOW_US).unwrap().value == value);
        assert_eq!(log.get(b"copy", NOW_US).unwrap().value.len(), value.len() + 1);
        assert_eq!(log.get(KEY, NOW_US), None);
        log.shard.digest()
    });
    assert_eq!((digests[0], digests[1]), (digests[1], digests[2]));
}

#[test]
fn an_entry_that_names_an_upload_without_all_its_parts_is_refused_whole() {
    let mut log = Log::new();
    let value = text();
    let commands = [set(b"first", Value::Encoded(&[2, 1, 0, 0, 0])), set(KEY, Value::Upload(UPLOAD))];
    let refused = log.shard.apply(Index(1), &entry(&commands, NOW_US), |_, _| panic!("nothing is applied"));
    assert!(refused.unwrap_err().problem.contains("upload"));
    assert_eq!(log.shard.key_count(), 0);
    apply_parts(&mut log, UPLOAD, &value, true);
    log.apply(&commands, NOW_US);
    assert_eq!(log.shard.key_count(), 2);
    // A value is stored once.
    let again = entry(&[set(b"other", Value::Upload(UPLOAD))], NOW_US);
    assert!(log.shard.apply(Index(99), &again, |_, _| panic!("nothing is applied")).is_err());
}

#[test]
fn an_entry_that_a_snapshot_holds_takes_its_upload_and_changes_nothing() {
    let mut log = Log::new();
    let commands = [set(b"small", Value::Encoded(&[2, 1, 0, 0, 0])), set(KEY, Value::Upload(UPLOAD))];
    let passed = entry(&commands, NOW_US);
    log.shard.pass_over(b"not an entry").expect("without uploads nobody reads it");
    apply_parts(&mut log, UPLOAD, &text(), true);
    assert!(log.shard.pass_over(b"not an entry").is_err());
    log.shard.pass_over(&passed).unwrap();
    assert_eq!((log.shard.key_count(), log.shard.drop_uploads()), (0, 0));
}

#[test]
fn a_condition_that_does_not_hold_drops_the_upload_and_its_place() {
    let mut log = Log::new();
    log.one(set(KEY, Value::Encoded(&[2, 1, 0, 0, 0])), NOW_US);
    let before = log.shard.memory_bytes();
    let (file, region) = MappedFile::create(&std::env::temp_dir(), 32 * page_bytes()).unwrap();
    log.shard.put_upload(UPLOAD, WholeValue::Mapped(region.share(100_000)));
    let value = Value::Upload(UPLOAD);
    let (expiry, condition) = (NewExpiry::Never, Condition::IfAbsent);
    let outcome = log.one(Command::Set { key: KEY, value, expiry, condition, return_old: false }, NOW_US);
    assert!(matches!(outcome, Outcome::NotStored { .. }));
    assert!(file.take_returned().is_some());
    assert_eq!(log.shard.memory_bytes(), before);
}

#[test]
fn a_large_value_counts_with_its_pages_until_its_key_goes() {
    let mut log = Log::new();
    let before = log.shard.memory_bytes();
    apply_parts(&mut log, UPLOAD, &text(), true);
    log.one(set(KEY, Value::Upload(UPLOAD)), NOW_US);
    assert!(log.shard.memory_bytes() - before > 100_000);
    let Outcome::Value(Some(taken)) = log.one(Command::TakeOut { key: KEY }, NOW_US) else { panic!("it was there") };
    assert!(taken.value == text());
    assert!(log.shard.memory_bytes() < before + 1000);
}

#[test]
fn questions_about_a_large_text_are_answered_from_its_head() {
    use eyot_protocol::request::KeyQuery;
    let mut log = Log::new();
    apply_parts(&mut log, UPLOAD, &text(), true);
    log.one(set(KEY, Value::Upload(UPLOAD)), NOW_US);
    let place = log.shard.place(key::slot(KEY), KEY);
    let ask = |query| log.shard.query(place, KEY, query, NOW_US);
    assert_eq!(ask(KeyQuery::Length), Answer::Integer(100_000));
    assert_eq!(ask(KeyQuery::Type), Answer::Status("string"));
    assert_eq!(ask(KeyQuery::Encoding), Answer::Status("raw"));
    let part = |start, end| log.shard.large_part(place, KEY, KeyQuery::Range { start, end }).unwrap().1;
    let head = text().len() - 100_000;
    assert_eq!(part(0, 9), head..head + 10);
    assert_eq!(part(-10, -1), head + 99_990..head + 100_000);
    assert!(part(5, 4).is_empty());
    let Answer::Part(bytes, first, _) = ask(KeyQuery::Range { start: 3, end: 5 }) else { panic!("no part") };
    assert_eq!((bytes, first), (&[3, 4, 5][..], head + 3));
    assert!(log.shard.large_part(place, b"another", KeyQuery::Value).is_none());
}
