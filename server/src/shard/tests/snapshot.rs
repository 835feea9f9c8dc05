//! Snapshots while commands go on: what is emitted is the state at the snapshot's index, and nothing is left behind.

use std::ops::ControlFlow;

use eyot_protocol::command::{ExpiryCondition, PairList};
use eyot_protocol::tlv;
use eyot_ring::{page_bytes, MappedFile};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::table::Planted;
use super::model::{self, Step};
use super::*;

/// What a snapshot says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Emitted {
    slot: u16,
    key: Vec<u8>,
    value: Vec<u8>,
    version: Version,
    expires_at_us: Option<i64>,
}

/// What a snapshot of the shard as it is now must emit, in order.
fn state(shard: &Shard) -> Vec<Emitted> {
    let of = |entry: &Entry| emitted(entry.key(), Stored::of(entry));
    let mut all: Vec<_> = shard.tables.iter().map(of).collect();
    all.sort_by(|one, other| (one.slot, &one.key).cmp(&(other.slot, &other.key)));
    all
}

fn emitted(key: &[u8], stored: Stored<'_>) -> Emitted {
    let Stored { value, version, expires_at_us, .. } = stored;
    Emitted { slot: key::slot(key), key: key.to_vec(), value: value.to_vec(), version, expires_at_us }
}

/// Does a slice and adds what comes to `all`, which takes at most `room` entries at a time.
fn slice(shard: &mut Shard, budget: usize, room: usize, all: &mut Vec<Emitted>) -> SnapshotStep {
    let before = all.len();
    let step = shard.snapshot_some(budget, |slot, key, stored| {
        assert_eq!(slot, key::slot(key));
        all.push(emitted(key, stored));
        if all.len() - before < room {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    assert!(all.len() - before <= room.min(budget.max(1)), "a slice is bounded");
    step
}

fn check(shard: &mut Shard) {
    shard.tables.check_walk();
    check_counts(shard);
}

/// Nothing is left of any snapshot.
fn check_at_rest(shard: &mut Shard) {
    while shard.free_some(100) {
        check(shard);
    }
    assert_eq!((shard.snapshot_memory_bytes(), shard.graveyard.memory_bytes()), (0, 0));
    assert_eq!((shard.snapshot_index(), shard.snapshot_slots_done()), (None, None));
    check(shard);
}

/// A shard with what was emitted.
fn loaded(all: &[Emitted], seed: u64) -> Shard {
    let mut shard = Shard::new(ShardId(0), 1, seed);
    for Emitted { key, value, version, expires_at_us, .. } in all {
        shard.load(key, &value[..], *version, *expires_at_us, NOW_US).unwrap();
    }
    check(&mut shard);
    shard
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every kind of command, few keys that meet each other, two shards that differ in seed and slices.
    #[test]
    fn a_snapshot_is_the_state_at_its_index_whatever_comes_while_it_is_written(
        steps in proptest::collection::vec((model::step(), 0..400_usize, 1..20_usize), 1..40),
        begin_at in 0..20_usize,
        is_given_up_at in prop::option::of(0..40_usize),
        seed in any::<u64>(),
    ) {
        let mut shards = [Shard::new(ShardId(0), 1, seed), Shard::new(ShardId(0), 1, !seed)];
        let mut outputs = [Vec::new(), Vec::new()];
        let (mut expected, mut model) = (None, model::Model::default());
        let (mut index, mut now_us) = (Index(0), NOW_US);
        for (number, (step, budget, room)) in steps.into_iter().enumerate() {
            if number == begin_at {
                expected = Some((state(&shards[0]), shards[0].digest()));
                shards.iter_mut().for_each(|shard| shard.begin_snapshot(index));
            }
            let payload = match step {
                Step::Entry { ops, after_us } => {
                    now_us += after_us;
                    model::payload(&ops, &model, now_us)
                }
                Step::Sweep { after_us, budget, .. } => {
                    now_us += after_us;
                    let offered = swept(&mut shards[0], now_us, budget);
                    if offered.is_empty() {
                        continue;
                    }
                    let commands: Vec<_> =
                        offered.iter().map(|(key, version)| Command::Expire { key, version: version.0 }).collect();
                    entry(&commands, now_us)
                }
                Step::FreeSome { budget } => {
                    shards[0].free_some(budget);
                    continue;
                }
            };
            index = index.next();
            for (position, command) in eyot_protocol::command::EntryCommands::new(&payload).unwrap().enumerate() {
                let version = Version::new(index, position as u16);
                model.apply(&command.unwrap(), version, now_us);
            }
            for ((shard, output), budget) in shards.iter_mut().zip(&mut outputs).zip([budget, budget * 3]) {
                shard.apply(index, &payload, |_, _| ()).unwrap();
                check(shard);
                if is_given_up_at == Some(number) {
                    shard.abort_snapshot();
                }
                if shard.snapshot_index().is_some() {
                    let _ = slice(shard, budget, room, output);
                    shard.tables.check_walk();
                }
            }
            prop_assert_eq!(shards[0].digest(), shards[1].digest());
        }
        for (shard, output) in shards.iter_mut().zip(&mut outputs) {
            if shard.snapshot_index().is_some() {
                while slice(shard, 1000, 10, output) == SnapshotStep::More {}
                let (expected, digest) = expected.as_ref().unwrap();
                prop_assert_eq!(&*output, expected);
                prop_assert_eq!(loaded(output, 99).digest(), *digest);
            }
            check_at_rest(shard);
        }
    }
}

/// Random commands on thousands of keys, half of them under one hash tag, while a snapshot is written.
struct Churn {
    random: StdRng,
    shard: Shard,
    index: u64,
    now_us: i64,
    /// Keys are numbered below this.
    keys: u32,
}

/// What the tables do.
#[derive(Debug, Clone, Copy)]
enum Trend {
    Grow,
    Shrink,
    Stay,
}

impl Churn {
    fn new(seed: u64, keys: u32) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let shard = Shard::new(ShardId(0), 1, random.gen::<u64>());
        Self { random, shard, index: 0, now_us: NOW_US, keys }
    }

    /// Keys of several lengths, half of them in one slot.
    fn key(&mut self) -> Vec<u8> {
        let number = self.random.gen_range(0..self.keys);
        match number % 4 {
            0 | 1 => format!("{{one slot}}{number}").into_bytes(),
            2 => number.to_be_bytes().to_vec(),
            _ => format!("key:{number:030}").into_bytes(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let value = match self.random.gen_range(0..8) {
            0 => tlv::Value::Bytes(self.random.gen_range(-9..9_i64).to_string().into_bytes()),
            1 => tlv::Value::Bytes(vec![7; self.random.gen_range(0..3000)]),
            _ => tlv::Value::Bytes(vec![8; self.random.gen_range(0..60)]),
        };
        let mut encoded = Vec::new();
        value.encode(&mut encoded);
        encoded
    }

    fn time(&mut self) -> Option<i64> {
        let ttl_us = self.random.gen_range(-1..20 * SECOND_US);
        self.random.gen_bool(0.5).then_some(self.now_us + ttl_us)
    }

    /// Applies one command.
    fn one(&mut self, trend: Trend) {
        let (key, other, value, at_us) = (self.key(), self.key(), self.value(), self.time());
        let (flag, version) = (self.random.gen(), self.version_of(&key));
        let (from, to) = (&key[..], &other[..]);
        let expiry = if flag { NewExpiry::Keep } else { at_us.map_or(NewExpiry::Never, NewExpiry::At) };
        let set = Command::Set {
            key: &key,
            value: Value::Encoded(&value),
            expiry,
            condition: Condition::Always,
            return_old: self.random.gen(),
        };
        let kind = match trend {
            Trend::Grow => self.random.gen_range(0..24),
            Trend::Shrink => self.random.gen_range(16..44),
            Trend::Stay => self.random.gen_range(8..24),
        };
        let by = self.random.gen_range(-5..5);
        let pairs = [(from, &value[..]), (to, &value[..])];
        let command = match kind {
            ..=15 => set,
            16 => Command::Copy { from, to, replace: flag },
            17 => Command::Rename { from, to, if_absent: flag },
            18 => Command::Append { key: &key, bytes: &value[..value.len().min(9)], length_max: Some(4000) },
            19 => Command::Increment { key: &key, by },
            20 => Command::IncrementFloat { key: &key, by: b"0.5" },
            21 => Command::SetRange { key: &key, offset: 5, bytes: b"range" },
            22 | 23 => {
                let condition = ExpiryCondition::Always;
                Command::SetExpiry { key: &key, at_us, condition, return_value: flag }
            }
            24 => Command::SetAllIfAbsent { pairs: PairList::new(&pairs) },
            25 | 26 => Command::Expire { key: &key, version },
            27 | 28 => Command::TakeOut { key: &key },
            _ => Command::Delete { key: &key },
        };
        let payload = entry(&[command], self.now_us);
        self.apply(&payload);
    }

    fn version_of(&self, key: &[u8]) -> u64 {
        let place = self.shard.place(key::slot(key), key);
        self.shard.tables.find(place, key).map_or(0, |entry| entry.version().0)
    }

    fn apply(&mut self, payload: &[u8]) {
        self.index += 1;
        self.shard.apply(Index(self.index), payload, |_, _| ()).unwrap();
    }

    fn many(&mut self, count: usize) {
        let trend = [Trend::Grow, Trend::Shrink, Trend::Stay][self.random.gen_range(0..3)];
        (0..count).for_each(|_| self.one(trend));
        self.now_us += self.random.gen_range(0..SECOND_US);
    }

    /// A snapshot while commands go on; what is wrong with it. `late` is by how much its index is too high.
    fn snapshot(&mut self, bug: Option<Planted>, late: u64, clears: bool) -> Result<(), String> {
        let expected = state(&self.shard);
        let digest = self.shard.digest();
        self.shard.begin_snapshot(Index(self.index + late));
        self.shard.tables.plant(bug);
        let mut output = Vec::new();
        let mut slices = 0;
        loop {
            let (budget, room) = (self.random.gen_range(1..1500), self.random.gen_range(1..1000));
            let step = slice(&mut self.shard, budget, room, &mut output);
            self.shard.tables.check_walk();
            if step == SnapshotStep::Done {
                break;
            }
            if self.random.gen_bool(0.7) {
                let count = self.random.gen_range(0..200);
                self.many(count);
            }
            if clears && self.random.gen_ratio(1, 40) {
                let payload = entry(&[Command::Clear], self.now_us);
                self.apply(&payload);
            }
            slices += 1;
            assert!(slices < 10_000, "it ends");
        }
        check_at_rest(&mut self.shard);
        let wrong = expected.iter().zip(&output).position(|(expected, output)| expected != output);
        if let Some(at) = wrong {
            return Err(format!("entry {at}: {:?} instead of {:?}", output[at], expected[at]));
        }
        if expected.len() != output.len() {
            return Err(format!("{} entries instead of {}", output.len(), expected.len()));
        }
        assert_eq!(loaded(&output, self.random.gen()).digest(), digest);
        Ok(())
    }
}

/// Fills a shard and has two snapshots made of it; what is wrong with one of them.
fn churn(seed: u64, bug: Option<Planted>, late: u64, clears: bool) -> Result<(), String> {
    let mut churn = Churn::new(seed, 8_000);
    (0..12_000).for_each(|_| churn.one(Trend::Grow));
    (0..2).try_for_each(|_| churn.snapshot(bug, late, clears)).map_err(|wrong| format!("seed {seed}: {wrong}"))
}

#[test]
fn thousands_of_keys_come_and_go_and_the_snapshot_does_not_see_it() {
    for seed in 0..12 {
        churn(seed, None, 0, seed % 3 == 0).unwrap();
    }
}

#[test]
fn planted_bugs_are_found() {
    let found = |bug, late| (0..10).find_map(|seed| churn(seed, bug, late, true).err());
    for bug in [Planted::NothingRetired, Planted::TakenForGathered, Planted::ClearForgotten] {
        assert!(found(Some(bug), 0).is_some(), "{bug:?} was not found");
    }
    assert!(found(None, 5).is_some(), "commands behind the snapshot's index were not found in it");
}

#[test]
fn one_slot_of_many_keys_is_emitted_in_order_and_in_slices() {
    const KEYS: usize = 30_000;
    let mut shard = Shard::new(ShardId(0), 1, 3);
    for number in 0..KEYS {
        let key = format!("{{slot}}{}", number * 7919 % KEYS);
        shard.load(key.as_bytes(), &b"value"[..], Version::new(Index(1), 0), None, NOW_US).unwrap();
    }
    let expected = state(&shard);
    shard.begin_snapshot(Index(1));
    let (mut output, mut slices, mut most) = (Vec::new(), 0, 0);
    while slice(&mut shard, 200, usize::MAX, &mut output) == SnapshotStep::More {
        slices += 1;
        most = most.max(shard.snapshot_memory_bytes());
    }
    assert!(output == expected);
    assert!(slices >= 4 * KEYS / 200, "{slices} slices");
    // Eight bytes for each key, and what is there without any: lists of all slots, one run's sorting.
    assert!(most < KEYS * 8 + 16384 * 8 + 64 * 1024, "{most} bytes");
    check_at_rest(&mut shard);
}

#[test]
fn a_snapshot_that_is_given_up_anywhere_leaves_nothing() {
    for slices in [0, 1, 5, 30, 60] {
        for clear in [false, true] {
            let mut churn = Churn::new(slices, 6_000);
            (0..6_000).for_each(|_| churn.one(Trend::Grow));
            churn.shard.begin_snapshot(Index(churn.index));
            for _ in 0..slices {
                let _ = slice(&mut churn.shard, 400, usize::MAX, &mut Vec::new());
                churn.many(100);
            }
            if clear {
                let payload = entry(&[Command::Clear], churn.now_us);
                churn.apply(&payload);
            }
            let held = churn.shard.snapshot_memory_bytes();
            assert!(slices == 0 || held > 16384 * 8 + 10_000, "{held} bytes were held");
            let before = churn.shard.memory_bytes();
            churn.shard.abort_snapshot();
            assert!(before.abs_diff(churn.shard.memory_bytes()) < 4096, "counted until it is freed");
            check_at_rest(&mut churn.shard);
            churn.shard.abort_snapshot();
            // Another one may begin.
            churn.snapshot(None, 0, false).unwrap();
        }
    }
}

#[test]
fn a_clear_is_walked_over_and_freed_in_steps_afterwards() {
    let mut churn = Churn::new(5, 8_000);
    (0..12_000).for_each(|_| churn.one(Trend::Grow));
    let (expected, before) = (state(&churn.shard), churn.shard.memory_bytes());
    churn.shard.begin_snapshot(Index(churn.index));
    let mut output = Vec::new();
    for _ in 0..3 {
        let _ = slice(&mut churn.shard, 1000, usize::MAX, &mut output);
        let payload = entry(&[Command::Clear], churn.now_us);
        churn.apply(&payload);
        assert_eq!(churn.shard.key_count(), 0);
        assert!(churn.shard.memory_bytes() > before * 3 / 4, "the snapshot needs it still");
        churn.many(50);
        check(&mut churn.shard);
    }
    while slice(&mut churn.shard, 1000, usize::MAX, &mut output) == SnapshotStep::More {
        churn.many(20);
    }
    assert!(output == expected);
    let mut steps = 0;
    while churn.shard.free_some(100) {
        steps += 1;
    }
    assert!(steps > 20, "{steps} steps: all at once would hold the core");
    check_at_rest(&mut churn.shard);
}

/// A large value of `bytes`, and the file that it goes home to.
fn large(bytes: usize) -> (MappedFile, WholeValue) {
    let mut value = Vec::new();
    tlv::Encoder::new(&mut value).bytes(&vec![5; bytes]);
    let mut file = None;
    let mut growing = GrowingValue::new(value.len(), |bytes| {
        let (made, region) = MappedFile::create(&std::env::temp_dir(), bytes.next_multiple_of(page_bytes()))?;
        file = Some(made);
        Ok(Some(region))
    });
    let growing = growing.as_mut().unwrap();
    value.chunks(10_000).for_each(|part| growing.push(part).unwrap());
    let empty = GrowingValue::new(0, |_| Ok(None)).unwrap();
    (file.unwrap(), std::mem::replace(growing, empty).into_whole().unwrap())
}

#[test]
fn a_large_value_is_given_as_a_handle_and_stays_until_it_is_emitted() {
    type Change = fn(&mut Log) -> Outcome<'static>;
    let changes: [Change; 5] = [
        |log| log.one(Command::Delete { key: b"large" }, NOW_US),
        |log| log.one(set(b"large", b"small now"), NOW_US),
        |log| log.one(Command::TakeOut { key: b"large" }, NOW_US),
        |log| log.one(Command::Clear, NOW_US),
        |log| {
            let (key, at_us, condition) = (b"large", Some(NOW_US + 9), ExpiryCondition::Always);
            log.one(Command::SetExpiry { key, at_us, condition, return_value: false }, NOW_US);
            log.one(Command::Rename { from: b"large", to: b"other", if_absent: false }, NOW_US);
            log.one(Command::Delete { key: b"other" }, NOW_US)
        },
    ];
    for change in changes {
        let mut log = Log::new();
        log.index = 1;
        let (file, value) = large(100_000);
        log.shard.load(b"large", value, Version(7), None, NOW_US).unwrap();
        let expected = state(&log.shard);
        log.shard.begin_snapshot(Index(1));
        change(&mut log);
        assert!(file.take_returned().is_none() && log.shard.snapshot_memory_bytes() > 100_000);
        let mut pin = None;
        while log.shard.snapshot_some(1000, |_, key, stored| {
            assert_eq!(vec![emitted(key, stored)], expected);
            pin = stored.large.map(|large| large.pin());
            ControlFlow::Continue(())
        }) == SnapshotStep::More
        {}
        check_at_rest(&mut log.shard);
        assert!(pin.as_ref().unwrap().bytes() == expected[0].value);
        assert!(file.take_returned().is_none(), "it is pinned");
        drop(pin);
        assert!(file.take_returned().is_some());
    }
}

#[test]
fn what_no_snapshot_says_is_refused_when_it_is_loaded() {
    let mut shard = Shard::new(ShardId(1), 4, 1);
    let of_shard = |is_own| {
        let mut keys = (0..1000).map(|n: u32| n.to_string());
        keys.find(|key| shard.slots().contains(&key::slot(key.as_bytes())) == is_own).unwrap()
    };
    let (foreign, own) = (of_shard(false), of_shard(true));
    let mut load = |key: &str, value: &[u8]| shard.load(key.as_bytes(), value, Version(1), None, NOW_US);
    let slot = key::slot(foreign.as_bytes());
    assert_eq!(load(&foreign, b"value"), Err(LoadError::OtherShard { slot, shard: 1 }));
    assert_eq!(load(&own, b"value"), Ok(()));
    assert_eq!(load(&own, b"other"), Err(LoadError::Twice { slot: key::slot(own.as_bytes()) }));
    let long = "k".repeat(eyot_protocol::limits::MAX_KEY_BYTES + 1);
    assert_eq!(load(&long, b"value"), Err(LoadError::KeyTooLong { bytes: long.len() }));
    let huge = vec![0; eyot_protocol::limits::MAX_VALUE_BYTES + 1];
    assert_eq!(load("key", &huge), Err(LoadError::ValueTooLong { bytes: huge.len() }));
    assert_eq!(shard.key_count(), 1);
    assert_eq!(shard.get(key::slot(own.as_bytes()), own.as_bytes(), NOW_US).unwrap().value, b"value");
}

#[test]
fn a_value_in_parts_has_as_many_bytes_as_it_said() {
    for mapped in [false, true] {
        let allocate = |bytes: usize| {
            let file = || MappedFile::create(&std::env::temp_dir(), bytes.next_multiple_of(page_bytes()));
            mapped.then(|| file().map(|(_, region)| region)).transpose()
        };
        let mut value = GrowingValue::new(10, allocate).unwrap();
        value.push(b"12345").unwrap();
        assert!(matches!(value.push(b"123456"), Err(UploadError::OtherLength { bytes: 11, total: 10 })));
        value.push(b"67890").unwrap();
        assert!(value.is_whole());
        assert_eq!(value.into_whole().unwrap().bytes(), b"1234567890");
        let short = GrowingValue::new(10, allocate).unwrap();
        assert!(matches!(short.into_whole(), Err(UploadError::OtherLength { bytes: 0, total: 10 })));
    }
}

#[test]
#[should_panic(expected = "has a snapshot under way")]
fn two_snapshots_at_once_are_a_bug() {
    let mut shard = Shard::new(ShardId(0), 1, 1);
    shard.begin_snapshot(Index(0));
    shard.begin_snapshot(Index(0));
}
