//! The driver against a list of replies: who is answered, when, and with what.
//!
//! Place in the flow: tests of `replication`.

use eyot_protocol::command::{Command, Condition, NewExpiry, PairList, Value};
use eyot_protocol::key::slot;
use eyot_protocol::request::{KeyQuery, Operation};
use eyot_protocol::resp::RespVersion;
use eyot_protocol::response::SetOutcome;
use eyot_protocol::value_part::{UploadId, ValuePart};
use eyot_raft_glue::{EntryPosition, Index, ShardId, Version};

use super::*;
use crate::router::{Form, Reply, ReplySink, ReplyTo};
use crate::shard::{Place, Shard, WholeValue};

const NOW_US: i64 = 1_000_000;

/// Keeps `(number of the request, its result)`.
#[derive(Default)]
struct Replies(Vec<(u32, String)>);

impl ReplySink for Replies {
    fn stored(&mut self, run: &mut dyn ExactSizeIterator<Item = &ReplyTo>) {
        let count = run.len();
        self.0.extend(run.map(|to| (to.number, format!("one of {count} stored"))));
    }

    fn reply(&mut self, to: &ReplyTo, reply: Reply<'_>) {
        let text = match reply {
            Reply::Value(None) => "none".to_owned(),
            Reply::Value(Some(found)) | Reply::Large(found, _) => format!("{:?}", found.value),
            Reply::Set(SetOutcome::Stored { version }) => format!("stored {}", Version(version)),
            Reply::Set(SetOutcome::NotStored { current }) => {
                format!("kept {:?}", current.map(|v| Version(v).to_string()))
            }
            Reply::Boolean(value) => value.to_string(),
            Reply::Integer(number) => number.to_string(),
            Reply::Text(text) | Reply::Part(text, ..) => String::from_utf8_lossy(text).into_owned(),
            Reply::Status(word) => word.to_owned(),
            Reply::Null => "null".to_owned(),
            Reply::Error(code, _) => code.name().to_owned(),
        };
        self.0.push((to.number, text));
    }
}

impl Replies {
    fn take(&mut self) -> Vec<(u32, String)> {
        std::mem::take(&mut self.0)
    }
}

fn to(number: u32) -> ReplyTo {
    let form = crate::router::Form::Native;
    ReplyTo { core: 0, operation: Operation::Get, gathered: false, form, key: 0, generation: 0, number, arrived_us: 0 }
}

fn driver() -> ShardDriver {
    ShardDriver::new(Shard::new(ShardId(0), 1, 7), EntryPosition::default())
}

fn set<'a>(key: &'a [u8], value: &'a [u8]) -> Command<'a> {
    set_until(key, value, NewExpiry::Never)
}

fn set_until<'a>(key: &'a [u8], value: &'a [u8], expiry: NewExpiry) -> Command<'a> {
    let value = Value::Encoded(value);
    Command::Set { key, value, expiry, condition: Condition::Always, return_old: false }
}

fn write(driver: &mut ShardDriver, command: &Command<'_>, ack: WriteAck, to: ReplyTo) {
    let key = command.key().expect("a command on keys");
    let place = driver.shard().place(slot(key), key);
    let cost = driver.cost_of(command, place);
    driver.write(command, (place, &cost), NOW_US, ack, to);
}

/// Reads as the core does: seals first where the driver asks for it.
fn read(driver: &mut ShardDriver, key: &[u8], after_own_writes: bool, number: u32, replies: &mut Replies) {
    let place = driver.shard().place(slot(key), key);
    let read = Read { place, key, query: KeyQuery::Value, after_own_writes };
    if driver.read(&read, NOW_US, &to(number), replies) == ReadProgress::SealFirst {
        driver.seal(replies, |_| {});
        assert_ne!(driver.read(&read, NOW_US, &to(number), replies), ReadProgress::SealFirst);
    }
}

#[test]
fn a_write_is_answered_once_its_entry_is_on_disk_and_not_before() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    write(&mut driver, &set(b"k", &[1]), WriteAck::Applied, to(1));
    write(&mut driver, &Command::Delete { key: b"absent" }, WriteAck::Applied, to(2));
    let mut sealed = None;
    driver.seal(&mut replies, |entry| sealed = Some(entry.position.index));
    assert_eq!(sealed, Some(Index(1)));
    read(&mut driver, b"k", false, 3, &mut replies);
    assert_eq!(replies.take(), [(3, "none".to_owned())], "state changes when the entry is applied");
    driver.persisted(Index(1), NOW_US, &mut replies);
    assert_eq!(replies.take(), [(1, "stored 1.0".to_owned()), (2, "false".to_owned())]);
    read(&mut driver, b"k", false, 4, &mut replies);
    assert_eq!(replies.take(), [(4, "[1]".to_owned())]);
    assert_eq!(driver.waiting(), 0);
}

#[test]
fn a_read_sees_its_connections_earlier_writes_and_none_of_the_later_ones() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    write(&mut driver, &set(b"k", &[1]), WriteAck::Applied, to(1));
    read(&mut driver, b"k", true, 2, &mut replies);
    write(&mut driver, &set(b"k", &[2]), WriteAck::Applied, to(3));
    read(&mut driver, b"k", true, 4, &mut replies);
    write(&mut driver, &set(b"k", &[3]), WriteAck::Applied, to(5));
    driver.seal(&mut replies, |_| {});
    assert!(replies.take().is_empty());
    driver.persisted(Index(3), NOW_US, &mut replies);
    let expected = [(1, "stored 1.0"), (2, "[1]"), (3, "stored 2.0"), (4, "[2]"), (5, "stored 3.0")];
    assert_eq!(replies.take(), expected.map(|(number, text)| (number, text.to_owned())));
    assert_eq!(driver.waiting(), 0);
}

#[test]
fn parts_of_a_large_value_change_nothing_until_the_command_that_names_them() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    let mut indexes = Vec::new();
    write(&mut driver, &set(b"k", &[1]), WriteAck::Applied, to(1));
    driver.seal(&mut replies, |entry| indexes.push(entry.position.index));
    let part = |offset| ValuePart::Bytes { upload: UploadId(7), offset, total: 2, bytes: &[9] };
    driver.part(&part(0), |position| indexes.push(position.index));
    driver.part(&part(1), |position| indexes.push(position.index));
    assert_eq!(indexes, [Index(1), Index(2), Index(3)]);
    let upload = UploadId(7);
    driver.put_upload(upload, WholeValue::Memory(vec![9]));
    let value = Value::Upload(upload);
    let (expiry, condition) = (NewExpiry::Never, Condition::Always);
    let command = Command::Set { key: b"k", value, expiry, condition, return_old: false };
    write(&mut driver, &command, WriteAck::Applied, to(2));
    read(&mut driver, b"k", true, 3, &mut replies);
    driver.persisted(Index(3), NOW_US, &mut replies);
    assert_eq!(replies.take(), [(1, "stored 1.0".to_owned())]);
    driver.persisted(Index(4), NOW_US, &mut replies);
    assert_eq!(replies.take(), [(2, "stored 4.0".to_owned()), (3, "[9]".to_owned())]);
    assert_eq!(driver.waiting(), 0);
}

#[test]
fn a_read_waits_for_no_other_key() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    write(&mut driver, &set(b"k", &[1]), WriteAck::Applied, to(1));
    read(&mut driver, b"other", true, 2, &mut replies);
    assert_eq!(replies.take(), [(2, "none".to_owned())]);
    driver.seal(&mut replies, |_| {});
    driver.persisted(Index(1), NOW_US, &mut replies);
    read(&mut driver, b"k", true, 3, &mut replies);
    assert_eq!(replies.take(), [(1, "stored 1.0".to_owned()), (3, "[1]".to_owned())]);
}

#[test]
fn an_answer_from_memory_is_seen_by_every_later_read() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    let conditional = Command::Set {
        key: b"c",
        value: Value::Encoded(&[9]),
        expiry: NewExpiry::Never,
        condition: Condition::IfPresent,
        return_old: false,
    };
    write(&mut driver, &set(b"k", &[1]), WriteAck::Memory, to(1));
    write(&mut driver, &conditional, WriteAck::Memory, to(2));
    driver.seal(&mut replies, |_| {});
    assert_eq!(replies.take(), [(1, "stored 1.0".to_owned())], "a conditional write's outcome is not known yet");
    read(&mut driver, b"k", false, 3, &mut replies);
    assert!(replies.take().is_empty(), "older state must not be shown any more");
    driver.persisted(Index(1), NOW_US, &mut replies);
    assert_eq!(replies.take(), [(2, "kept None".to_owned()), (3, "[1]".to_owned())]);
}

#[test]
fn several_entries_become_durable_at_once_and_are_applied_in_order() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    for number in 1..=3 {
        write(&mut driver, &set(b"k", &[number as u8]), WriteAck::Applied, to(number));
        driver.seal(&mut replies, |_| {});
    }
    driver.persisted(Index(3), NOW_US, &mut replies);
    let answered: Vec<u32> = replies.take().into_iter().map(|(number, _)| number).collect();
    assert_eq!(answered, [1, 2, 3]);
    read(&mut driver, b"k", false, 9, &mut replies);
    assert_eq!(replies.take(), [(9, "[3]".to_owned())]);
}

#[test]
fn expired_keys_are_removed_by_a_logged_delete() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    let command = set_until(b"k", &[1], NewExpiry::At(NOW_US + 10_000));
    write(&mut driver, &command, WriteAck::Applied, to(1));
    driver.seal(&mut replies, |_| {});
    driver.persisted(Index(1), NOW_US, &mut replies);
    let later_us = NOW_US + 10_000_000;
    let mut swept = 0;
    for step in 0..200 {
        swept += driver.sweep(later_us + step * 100_000, 100);
    }
    assert!(swept > 0, "the sweep offers the key");
    assert_eq!(driver.shard().key_count(), 1, "and only the log removes it");
    driver.seal(&mut replies, |_| {});
    driver.persisted(Index(2), later_us, &mut replies);
    assert_eq!(driver.shard().key_count(), 0);
}

#[test]
fn a_full_entry_says_so() {
    let mut driver = driver();
    let value = vec![0; MAX_ENTRY_BYTES];
    assert!(!driver.open_entry_is_full());
    write(&mut driver, &set(b"k", &value), WriteAck::Applied, to(1));
    assert!(driver.open_entry_is_full());
}

fn cost(driver: &ShardDriver, command: &Command<'_>) -> Cost {
    let key = command.key().expect("a command on keys");
    driver.cost_of(command, driver.shard().place(slot(key), key))
}

fn copy<'a>(from: &'a [u8], to: &'a [u8]) -> Command<'a> {
    Command::Copy { from, to, replace: true }
}

#[test]
fn a_copy_is_charged_for_what_its_source_will_be() {
    const MIB: usize = 1 << 20;
    let (mut driver, mut replies) = (driver(), Replies::default());
    let range = Command::SetRange { key: b"a", offset: MIB as u32 - 1, bytes: b"x" };
    let around = |bytes: usize, expected: usize| (expected..expected + 1000).contains(&bytes);
    assert!(around(cost(&driver, &copy(b"a", b"b")).growth, 0));
    assert!(around(cost(&driver, &range).growth, MIB));
    write(&mut driver, &range, WriteAck::Applied, to(1));
    assert!(driver.open_entry_is_heavy());
    assert!(around(cost(&driver, &range).growth, MIB), "it may be the one that makes it");
    // Under its name, under another one, and as a copy of a copy.
    let rename = Command::Rename { from: b"a", to: b"c", if_absent: false };
    for (command, key) in [(copy(b"a", b"b"), b"b"), (rename, b"c"), (copy(b"c", b"d"), b"d")] {
        write(&mut driver, &command, WriteAck::Applied, to(2));
        assert!(around(cost(&driver, &copy(key, b"z")).growth, MIB), "a copy of {key:?}");
    }
    // As many small writes as there may be do not add up.
    for _ in 0..1000 {
        write(&mut driver, &set(b"b", &[7; 500]), WriteAck::Applied, to(3));
    }
    assert!(around(cost(&driver, &copy(b"b", b"z")).growth, MIB));
    driver.seal(&mut replies, |_| {});
    driver.persisted(Index(1), NOW_US, &mut replies);
    assert!(!driver.open_entry_is_full());
    for (key, length) in [(b"a", 0), (b"b", 500), (b"c", MIB), (b"d", MIB)] {
        assert!(around(cost(&driver, &copy(key, b"z")).growth, length), "a copy of {key:?}");
    }
    let inside = Command::SetRange { key: b"c", offset: 5, bytes: b"x" };
    assert!(around(cost(&driver, &inside).growth, 0) && cost(&driver, &inside).touched >= MIB);
    // What is on its way to another key makes no room for the next.
    write(&mut driver, &Command::Rename { from: b"c", to: b"e", if_absent: false }, WriteAck::Applied, to(4));
    assert!(cost(&driver, &Command::SetRange { key: b"c", offset: MIB as u32, bytes: b"x" }).growth > MIB);
}

#[test]
fn what_writes_will_return_is_known_until_they_are_applied() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    write(&mut driver, &set(b"k", &[7; 1000]), WriteAck::Applied, to(1));
    write(&mut driver, &Command::TakeOut { key: b"k" }, WriteAck::Applied, to(2));
    assert!(driver.returned_bytes() >= 1000);
    driver.seal(&mut replies, |_| {});
    assert!(driver.returned_bytes() >= 1000);
    driver.persisted(Index(1), NOW_US, &mut replies);
    assert_eq!(driver.returned_bytes(), 0);
}

#[test]
fn what_is_put_off_is_applied_entry_by_entry_and_read_in_order() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    for number in 1..=3_u8 {
        write(&mut driver, &set(b"k", &[number]), WriteAck::Applied, to(number.into()));
        read(&mut driver, b"k", true, 10 + u32::from(number), &mut replies);
    }
    driver.put_off(Index(3));
    assert!(replies.take().is_empty());
    for number in 1..=3 {
        assert!(driver.apply_next(NOW_US, &mut replies));
        let expected = [(number, format!("stored {number}.0")), (10 + number, format!("[{number}]"))];
        assert_eq!(replies.take(), expected);
    }
    assert!(!driver.apply_next(NOW_US, &mut replies));
    assert_eq!(driver.waiting(), 0);
}

#[test]
fn stored_writes_of_one_pipeline_are_answered_together_and_nobody_elses() {
    let (mut driver, mut replies) = (driver(), Replies::default());
    let resp = |key: u32, number: u32| ReplyTo { form: Form::Resp(RespVersion::Two), key, ..to(number) };
    let value = set(b"k", &[1]);
    let unmet = Command::Set {
        key: b"k",
        value: Value::Encoded(&[2]),
        expiry: NewExpiry::Never,
        condition: Condition::IfAbsent,
        return_old: false,
    };
    let gathered = ReplyTo { gathered: true, ..resp(1, 8) };
    let writes: [(&Command<'_>, ReplyTo); 9] = [
        (&value, resp(1, 1)),
        (&value, resp(1, 2)),
        (&value, resp(2, 1)),
        (&unmet, resp(2, 2)),
        (&value, resp(2, 3)),
        (&value, to(7)),
        (&value, gathered),
        (&value, resp(2, 4)),
        (&value, resp(2, 5)),
    ];
    for (command, reply_to) in writes {
        write(&mut driver, command, WriteAck::Applied, reply_to);
    }
    driver.seal(&mut replies, |_| {});
    driver.persisted(Index(1), NOW_US, &mut replies);
    let mut expected = vec![(1, "one of 2 stored"), (2, "one of 2 stored"), (2, "kept Some(\"1.2\")")];
    expected.extend([(1, "one of 1 stored"), (7, "stored 1.5"), (8, "stored 1.6"), (3, "one of 1 stored")]);
    expected.extend([(4, "one of 2 stored"), (5, "one of 2 stored")]);
    let mut replies = replies.take();
    // A run waits for its end; what is answered alone does not.
    replies.sort();
    expected.sort_unstable();
    assert_eq!(replies, expected.into_iter().map(|(number, text)| (number, text.to_owned())).collect::<Vec<_>>());
    assert_eq!(driver.waiting(), 0);
}

#[test]
fn an_entry_with_its_places_does_what_recovery_does_without_them() {
    let mut driver = driver();
    let mut recovered = Shard::new(ShardId(0), 1, 8);
    let pairs = [(&b"p"[..], &[1][..]), (b"q", &[2])];
    let entries: [&[Command<'_>]; 3] = [
        &[set(b"a", &[1, 1, b'7']), set(b"b", &[1, 1, b'8']), Command::Increment { key: b"a", by: 3 }],
        &[
            Command::Copy { from: b"a", to: b"c", replace: true },
            Command::SetAllIfAbsent { pairs: PairList::new(&pairs) },
            Command::Rename { from: b"b", to: b"d", if_absent: false },
            set_until(b"e", &[5], NewExpiry::At(NOW_US + 1)),
            Command::Delete { key: b"c" },
        ],
        &[Command::Clear, set(b"z", &[9]), Command::Append { key: b"y", bytes: b"x", length_max: None }],
    ];
    for (number, commands) in entries.iter().enumerate() {
        for command in *commands {
            let place = command.key().map_or(Place::default(), |key| driver.shard().place(slot(key), key));
            let cost = driver.cost_of(command, place);
            driver.write(command, (place, &cost), NOW_US, WriteAck::Applied, to(1));
        }
        if number == 2 {
            driver.sweep(NOW_US + 5_000_000, 10);
        }
        let index = Index(number as u64 + 1);
        driver.seal(&mut Replies::default(), |sealed| {
            recovered.apply(index, sealed.payload, |_, _| {}).unwrap();
        });
        driver.persisted(index, NOW_US, &mut Replies::default());
        assert_eq!(driver.shard().digest(), recovered.digest(), "after entry {index:?}");
        assert_eq!(driver.shard().key_count(), [2, 5, 2][number]);
    }
}
