//! Tests of the shard engine: writes and removals, the sweep, bad entries; in `commands` those that read what they
//! change, in `queries` the questions about one key, in `clearing` the end of all keys, in `model` random logs, in
//! `snapshot` what a snapshot emits while they go on.

use eyot_protocol::command::{Command, Condition, EntryBuilder, NewExpiry, Value, ENTRY_HEADER_BYTES};
use eyot_protocol::key;
use eyot_raft_glue::{Index, ShardId, Version};

use super::*;

mod clearing;
mod commands;
mod large;
mod model;
mod queries;
mod snapshot;

const NOW_US: i64 = 1_700_000_000_000_000;
const SECOND_US: i64 = 1_000_000;

/// A shard of all slots with a log that grows entry by entry.
struct Log {
    shard: Shard,
    index: u64,
}

impl Log {
    fn new() -> Self {
        Self { shard: Shard::new(ShardId(0), 1, 7), index: 0 }
    }

    /// Applies one entry and checks what must hold after every one.
    fn apply(&mut self, commands: &[Command<'_>], now_us: i64) -> Vec<Outcome<'static>> {
        self.index += 1;
        let mut outcomes = Vec::new();
        let applied = self.shard.apply(Index(self.index), &entry(commands, now_us), |position, outcome| {
            assert_eq!(usize::from(position), outcomes.len());
            outcomes.push(kept(outcome));
        });
        assert_eq!(applied, Ok(()));
        check_counts(&self.shard);
        outcomes
    }

    fn one(&mut self, command: Command<'_>, now_us: i64) -> Outcome<'static> {
        let outcomes = self.apply(&[command], now_us);
        assert_eq!(outcomes.len(), 1);
        outcomes[0]
    }

    fn get(&self, key: &[u8], now_us: i64) -> Option<Stored<'_>> {
        let stored = self.shard.get(key::slot(key), key, now_us);
        assert_eq!(self.shard.exists(key::slot(key), key, now_us), stored.is_some());
        stored
    }

    /// The version that the first command of the latest entry gave.
    fn latest(&self) -> Version {
        Version::new(Index(self.index), 0)
    }
}

/// The outcome, with its bytes kept for good: for a test that is short enough.
fn kept(outcome: Outcome<'_>) -> Outcome<'static> {
    fn leaked(bytes: &[u8]) -> &'static [u8] {
        bytes.to_vec().leak()
    }
    match outcome {
        Outcome::Stored { version } => Outcome::Stored { version },
        Outcome::NotStored { current } => Outcome::NotStored { current },
        Outcome::Previous { value, stored, version, .. } => {
            Outcome::Previous { value: value.map(leaked), large: None, stored, version }
        }
        Outcome::Value(found) => {
            Outcome::Value(found.map(|stored| Stored { value: leaked(stored.value), large: None, ..stored }))
        }
        Outcome::Deleted(existed) => Outcome::Deleted(existed),
        Outcome::Expired(gone) => Outcome::Expired(gone),
        Outcome::Changed(changed) => Outcome::Changed(changed),
        Outcome::Integer(number) => Outcome::Integer(number),
        Outcome::Text(text) => Outcome::Text(leaked(text)),
        Outcome::Done => Outcome::Done,
        Outcome::Failed(failure) => Outcome::Failed(failure),
    }
}

fn entry(commands: &[Command<'_>], now_us: i64) -> Vec<u8> {
    let mut builder = EntryBuilder::default();
    for command in commands {
        builder.push(command, now_us);
    }
    builder.take()
}

/// The counts that are kept along the way equal those of a walk over everything.
fn check_counts(shard: &Shard) {
    let scratch = shard.places.capacity() * size_of::<Place>() + shard.scratch.capacity();
    let kept = shard.graveyard.memory_bytes() + shard.snapshot_memory_bytes();
    let beside = shard.wheel.memory_bytes() + kept + scratch;
    assert_eq!(shard.memory_bytes(), shard.tables.recount_bytes() + beside);
    assert_eq!(shard.key_count(), shard.tables.iter().count());
    let expiring = shard.tables.iter().filter(|entry| entry.expiry().is_some()).count();
    assert_eq!(shard.expiring_key_count(), expiring);
}

fn set<'a>(key: &'a [u8], value: &'a [u8]) -> Command<'a> {
    set_if(key, value, Condition::Always)
}

fn set_until<'a>(key: &'a [u8], value: &'a [u8], at_us: i64) -> Command<'a> {
    let (value, expiry) = (Value::Encoded(value), NewExpiry::At(at_us));
    Command::Set { key, value, expiry, condition: Condition::Always, return_old: false }
}

fn set_if<'a>(key: &'a [u8], value: &'a [u8], condition: Condition) -> Command<'a> {
    Command::Set { key, value: Value::Encoded(value), expiry: NewExpiry::Never, condition, return_old: false }
}

#[test]
fn a_shard_can_be_made_on_one_thread_and_given_to_another() {
    let mut log = Log::new();
    log.one(set(b"k", b"v"), NOW_US);
    let shard = log.shard;
    assert_eq!(std::thread::spawn(move || shard.key_count()).join().unwrap(), 1);
}

#[test]
fn what_was_set_is_read_with_its_version() {
    let mut log = Log::new();
    assert_eq!(log.get(b"k", NOW_US), None);
    let outcomes = log.apply(&[set(b"k", b"one"), set(b"other", b""), set(b"k", b"two")], NOW_US);
    let version = Version::new(Index(1), 2);
    assert_eq!(outcomes[2], Outcome::Stored { version });
    assert_eq!(log.get(b"k", NOW_US), Some(Stored { value: b"two", version, expires_at_us: None, large: None }));
    assert_eq!(log.get(b"other", NOW_US).unwrap().value, b"");
    assert_eq!(log.shard.key_count(), 2);
}

#[test]
fn conditions_are_judged_against_the_key_at_that_position() {
    let mut log = Log::new();
    let absent = Outcome::NotStored { current: None };
    assert_eq!(log.one(set_if(b"k", b"v", Condition::IfPresent), NOW_US), absent);
    assert_eq!(log.one(set_if(b"k", b"v", Condition::IfVersion(5)), NOW_US), absent);
    assert_eq!(log.shard.key_count(), 0);

    assert!(matches!(log.one(set_if(b"k", b"a", Condition::IfAbsent), NOW_US), Outcome::Stored { .. }));
    let first = log.latest();
    let refused = Outcome::NotStored { current: Some(first) };
    assert_eq!(log.one(set_if(b"k", b"b", Condition::IfAbsent), NOW_US), refused);
    assert_eq!(log.one(set_if(b"k", b"b", Condition::IfVersion(first.0 + 1)), NOW_US), refused);
    assert_eq!(log.get(b"k", NOW_US).unwrap().value, b"a");

    assert!(matches!(log.one(set_if(b"k", b"b", Condition::IfVersion(first.0)), NOW_US), Outcome::Stored { .. }));
    assert!(matches!(log.one(set_if(b"k", b"c", Condition::IfPresent), NOW_US), Outcome::Stored { .. }));
    assert_eq!(log.get(b"k", NOW_US).unwrap().version, log.latest());

    let outcomes = log.apply(&[Command::Delete { key: b"k" }, set_if(b"k", b"d", Condition::IfAbsent)], NOW_US);
    assert_eq!(outcomes, [Outcome::Deleted(true), Outcome::Stored { version: Version::new(Index(log.index), 1) }]);
}

#[test]
fn deleting_tells_whether_the_key_was_there() {
    let mut log = Log::new();
    log.one(set(b"k", b"v"), NOW_US);
    assert_eq!(log.one(Command::Delete { key: b"other" }, NOW_US), Outcome::Deleted(false));
    assert_eq!(log.one(Command::Delete { key: b"k" }, NOW_US), Outcome::Deleted(true));
    assert_eq!(log.one(Command::Delete { key: b"k" }, NOW_US), Outcome::Deleted(false));
    assert_eq!(log.shard.key_count(), 0);
}

#[test]
fn an_expired_key_is_absent_in_reads_conditions_and_deletes() {
    let at_us = NOW_US + SECOND_US;
    let mut log = Log::new();
    log.one(set_until(b"k", b"v", at_us), NOW_US);
    assert_eq!(log.get(b"k", at_us - 1).unwrap().expires_at_us, Some(at_us));
    assert_eq!(log.get(b"k", at_us), None);
    let absent = Outcome::NotStored { current: None };
    assert_eq!(log.one(set_if(b"k", b"w", Condition::IfPresent), at_us), absent);
    assert_eq!(log.one(set_if(b"k", b"w", Condition::IfVersion(log.latest().0 - (1 << 16))), at_us), absent);
    // The entry's own clock decides, not the time at which it is applied: by that of this one the key still lives.
    let first = Version::new(Index(1), 0);
    let refused = Outcome::NotStored { current: Some(first) };
    assert_eq!(log.one(set_if(b"k", b"w", Condition::IfAbsent), at_us - 1), refused);
    assert_eq!(log.one(Command::Delete { key: b"k" }, at_us), Outcome::Deleted(false));
    assert_eq!((log.shard.key_count(), log.shard.expiring_key_count()), (0, 0));

    log.one(set_until(b"k", b"v", at_us), NOW_US);
    assert!(matches!(log.one(set_if(b"k", b"w", Condition::IfAbsent), at_us), Outcome::Stored { .. }));
    let expected = Stored { value: b"w", version: log.latest(), expires_at_us: None, large: None };
    assert_eq!(log.get(b"k", i64::MAX), Some(expected));
}

#[test]
fn every_set_decides_the_expiry_anew() {
    let mut log = Log::new();
    for value in [&b"same"[..], b"other length"] {
        log.one(set_until(b"k", b"same", NOW_US + 1), NOW_US);
        log.one(set_until(b"k", value, NOW_US + 2), NOW_US);
        assert_eq!(log.get(b"k", NOW_US).unwrap().expires_at_us, Some(NOW_US + 2));
        assert_eq!(log.shard.expiring_key_count(), 1);
        log.one(set(b"k", value), NOW_US);
        assert_eq!(log.get(b"k", NOW_US).unwrap().expires_at_us, None);
        assert_eq!((log.shard.expiring_key_count(), log.shard.next_expiry_us()), (0, None));
        assert_eq!(log.get(b"k", NOW_US).unwrap().value, value);
    }
}

#[test]
fn a_set_that_has_expired_already_removes_the_key() {
    let mut log = Log::new();
    for expires_at_us in [NOW_US, NOW_US - 1, 0, i64::MIN] {
        let stored = log.one(set_until(b"k", b"v", expires_at_us), NOW_US);
        assert_eq!(stored, Outcome::Stored { version: log.latest() });
        log.one(set(b"k", b"v"), NOW_US);
        let stored = log.one(set_until(b"k", b"v", expires_at_us), NOW_US);
        assert_eq!(stored, Outcome::Stored { version: log.latest() });
        assert_eq!((log.shard.key_count(), log.shard.expiring_key_count()), (0, 0));
    }
    let (value, expiry, condition) = (Value::Encoded(b"v"), NewExpiry::At(0), Condition::IfPresent);
    let refused = Command::Set { key: b"k", value, expiry, condition, return_old: false };
    assert_eq!(log.one(refused, NOW_US), Outcome::NotStored { current: None });
}

#[test]
fn a_logged_expiry_removes_only_the_version_that_it_names() {
    let mut log = Log::new();
    log.one(set_until(b"k", b"v", NOW_US + 1), NOW_US);
    let first = log.latest();
    log.one(set(b"k", b"w"), NOW_US);
    let second = log.latest();
    assert_eq!(log.one(Command::Expire { key: b"k", version: first.0 }, NOW_US), Outcome::Expired(false));
    assert_eq!(log.get(b"k", NOW_US).unwrap().value, b"w");
    assert_eq!(log.one(Command::Expire { key: b"k", version: second.0 }, NOW_US), Outcome::Expired(true));
    assert_eq!(log.one(Command::Expire { key: b"k", version: second.0 }, NOW_US), Outcome::Expired(false));
}

fn swept(shard: &mut Shard, now_us: i64, budget: usize) -> Vec<(Vec<u8>, Version)> {
    let (mut offered, mut places) = (Vec::new(), Vec::new());
    let count = shard.sweep(now_us, budget, |place, key, version| {
        places.push(place);
        offered.push((key.to_vec(), version));
    });
    assert_eq!(count, offered.len());
    for ((key, _), place) in offered.iter().zip(places) {
        assert_eq!(place, shard.place(key::slot(key), key));
    }
    offered
}

#[test]
fn a_sweep_offers_expired_keys_until_their_removal_is_applied() {
    let mut log = Log::new();
    let at_us = NOW_US + SECOND_US;
    log.one(set(b"stays", b"v"), NOW_US);
    log.one(set_until(b"later", b"v", at_us + 3600 * SECOND_US), NOW_US);
    log.one(set_until(b"goes", b"v", at_us), NOW_US);
    let version = log.latest();
    let next_us = log.shard.next_expiry_us().unwrap();
    assert!(swept(&mut log.shard, at_us - 1, 100).is_empty());
    assert!(next_us <= at_us + SECOND_US);

    let digest = log.shard.digest();
    let goes = vec![(b"goes".to_vec(), version)];
    assert_eq!(swept(&mut log.shard, at_us + SECOND_US, 100), goes);
    assert!(swept(&mut log.shard, at_us + SECOND_US, 100).is_empty());
    assert_eq!(swept(&mut log.shard, at_us + 3 * SECOND_US, 100), goes);
    assert_eq!(log.shard.digest(), digest, "offering changes nothing");

    let expire = Command::Expire { key: b"goes", version: version.0 };
    assert_eq!(log.one(expire, at_us + 3 * SECOND_US), Outcome::Expired(true));
    assert!(swept(&mut log.shard, at_us + 100 * SECOND_US, 100).is_empty());
    assert_eq!((log.shard.key_count(), log.shard.expiring_key_count()), (2, 1));
}

#[test]
fn a_shard_that_was_emptied_gives_its_memory_back() {
    let mut log = Log::new();
    let empty_bytes = log.shard.memory_bytes();
    // One hash tag: all keys in one slot, whose table grows large.
    let keys: Vec<String> = (0..20_000).map(|n| format!("{{tag}}{n}")).collect();
    for chunk in keys.chunks(1000) {
        let sets: Vec<_> = chunk.iter().map(|key| set(key.as_bytes(), b"value")).collect();
        log.apply(&sets, NOW_US);
    }
    assert!(log.shard.memory_bytes() > empty_bytes + keys.len() * 40);
    for chunk in keys.chunks(1000) {
        let deletes: Vec<_> = chunk.iter().map(|key| Command::Delete { key: key.as_bytes() }).collect();
        assert!(log.apply(&deletes, NOW_US).iter().all(|outcome| *outcome == Outcome::Deleted(true)));
    }
    assert!(log.shard.memory_bytes() < empty_bytes + 16 * 1024, "{} left", log.shard.memory_bytes() - empty_bytes);
}

#[test]
fn an_entry_of_the_most_commands_is_applied_and_its_scratch_memory_is_not_kept() {
    let mut log = Log::new();
    let commands = vec![set(b"k", b"v"); eyot_protocol::limits::MAX_COMMANDS_PER_ENTRY];
    let outcomes = log.apply(&commands, NOW_US);
    assert_eq!(outcomes.len(), commands.len());
    assert_eq!(log.get(b"k", NOW_US).unwrap().version, Version::new(Index(1), u16::MAX));
    assert!(log.shard.places.capacity() <= 2048);

    let mut too_many = entry(&commands, NOW_US);
    let one_more = entry(&commands[..1], NOW_US);
    let offset = too_many.len();
    too_many.extend_from_slice(&one_more[ENTRY_HEADER_BYTES..]);
    let error = log.shard.apply(Index(2), &too_many, |_, _| panic!("nothing may be applied")).unwrap_err();
    assert_eq!((error.problem, error.offset), ("more commands than an entry has positions", offset));
}

#[test]
fn a_malformed_entry_is_refused_whole() {
    let commands = [set(b"k", b"new"), Command::Delete { key: b"gone" }, set_until(b"x", b"y", NOW_US + 1)];
    let payload = entry(&commands, NOW_US);
    let mut boundaries = vec![ENTRY_HEADER_BYTES];
    for command in &commands {
        boundaries.push(boundaries.last().unwrap() + command.encoded_bytes());
    }
    for length in (0..payload.len()).filter(|length| !boundaries.contains(length)) {
        let mut log = Log::new();
        log.apply(&[set(b"k", b"old"), set(b"gone", b"not yet")], NOW_US);
        let digest = log.shard.digest();
        let refused = log.shard.apply(Index(2), &payload[..length], |_, _| panic!("nothing may be applied"));
        assert!(refused.is_err(), "cut at {length}");
        assert_eq!((log.shard.digest(), log.shard.expiring_key_count()), (digest, 0), "cut at {length}");
        // The shard still works.
        assert_eq!(log.one(Command::Delete { key: b"gone" }, NOW_US), Outcome::Deleted(true));
    }
}

#[test]
fn a_key_of_another_shard_is_refused_with_its_offset() {
    let home = key::shard_of_slot(key::slot(b"foo"), 4);
    let mut shard = Shard::new(ShardId(home), 4, 1);
    assert!(shard.slots().contains(&key::slot(b"foo")) && !shard.slots().contains(&key::slot(b"bar")));
    let first = set(b"foo", b"v");
    let payload = entry(&[first, set(b"bar", b"v")], NOW_US);
    let error = shard.apply(Index(1), &payload, |_, _| panic!("nothing may be applied")).unwrap_err();
    assert_eq!(error.problem, "a key of another shard");
    assert_eq!((error.offset, error.length), (ENTRY_HEADER_BYTES + first.encoded_bytes(), payload.len()));
    assert_eq!(shard.key_count(), 0);
    shard.apply(Index(1), &entry(&[first], NOW_US), |_, _| ()).unwrap();
    assert_eq!((shard.key_count(), shard.id()), (1, ShardId(home)));
}

#[test]
#[should_panic(expected = "is not of shard 0")]
fn reading_a_slot_of_another_shard_is_a_bug() {
    let _ = Shard::new(ShardId(0), 2, 1).get(16_383, b"k", NOW_US);
}

#[test]
#[should_panic(expected = "shard 4 of 4")]
fn a_shard_number_out_of_range_is_a_bug() {
    let _ = Shard::new(ShardId(4), 4, 1);
}

#[test]
fn the_digest_sees_every_part_of_the_content() {
    let digest = |commands: &[Command<'_>]| {
        let mut log = Log::new();
        log.apply(commands, NOW_US);
        log.shard.digest()
    };
    let base = digest(&[set(b"key", b"value")]);
    assert_eq!(base, digest(&[set(b"key", b"value")]));
    let others = [
        digest(&[Command::Delete { key: b"x" }]),
        digest(&[set(b"kez", b"value")]),
        digest(&[set(b"key", b"valuf")]),
        digest(&[set(b"keyv", b"alue")]),
        digest(&[set_until(b"key", b"value", NOW_US + 1)]),
        digest(&[set_until(b"key", b"value", NOW_US + 2)]),
        digest(&[Command::Delete { key: b"x" }, set(b"key", b"value")]),
        digest(&[set(b"key", b"value"), set(b"key2", b"value")]),
    ];
    for (n, other) in others.iter().enumerate() {
        assert_ne!(*other, base, "variant {n}");
        assert!(!others[..n].contains(other), "variant {n}");
    }
}
