//! Random logs, applied to a shard and to a plain map, by two shards of different seeds.

use std::collections::BTreeMap;

use eyot_protocol::command::EntryCommands;
use proptest::prelude::*;

use super::*;

/// One command with owned bytes.
#[derive(Debug, Clone)]
enum Op {
    Set { key: u8, value: Vec<u8>, ttl_us: Option<i64>, condition: u8 },
    Delete { key: u8 },
    Expire { key: u8, current: bool },
}

#[derive(Debug, Clone)]
enum Step {
    Entry { ops: Vec<Op>, after_us: i64 },
    Sweep { after_us: i64, budget: usize, log_it: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![proptest::collection::vec(any::<u8>(), 0..4), proptest::collection::vec(any::<u8>(), 100),];
    let ttl_us = proptest::option::of(prop_oneof![-1..3_i64, 0..5 * SECOND_US, Just(i64::MAX / 2)]);
    prop_oneof![
        6 => (any::<u8>(), value, ttl_us, 0..6_u8)
            .prop_map(|(key, value, ttl_us, condition)| Op::Set { key: key % 24, value, ttl_us, condition }),
        2 => any::<u8>().prop_map(|key| Op::Delete { key: key % 24 }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(key, current)| Op::Expire { key: key % 24, current }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let after_us = || prop_oneof![Just(0), 0..3_i64, -SECOND_US..3 * SECOND_US, Just(3600 * SECOND_US)];
    prop_oneof![
        4 => (proptest::collection::vec(op(), 1..30), after_us())
            .prop_map(|(ops, after_us)| Step::Entry { ops, after_us }),
        2 => (after_us(), 0..50_usize, any::<bool>())
            .prop_map(|(after_us, budget, log_it)| Step::Sweep { after_us, budget, log_it }),
    ]
}

/// Keys of several lengths, some of them in one slot.
fn key_bytes(key: u8) -> Vec<u8> {
    match key % 3 {
        0 => format!("{{one slot}}{key}").into_bytes(),
        1 => vec![key],
        _ => vec![key; 40],
    }
}

/// What a key is in the model: value, version, expiry.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, Version, Option<i64>)>;

/// The semantics of one command, written down a second time in the plainest way.
fn apply_to_model(model: &mut Model, command: &Command<'_>, version: Version, now_us: i64) -> Outcome {
    let present = model.get(command.key()).cloned();
    let live = present.clone().filter(|(_, _, at_us)| at_us.is_none() || at_us.unwrap() > now_us);
    let current = live.map(|(_, version, _)| version);
    match *command {
        Command::Set { key, value, expires_at_us, condition } => {
            let holds = match condition {
                Condition::Always => true,
                Condition::IfAbsent => current.is_none(),
                Condition::IfPresent => current.is_some(),
                Condition::IfVersion(wanted) => current == Some(Version(wanted)),
            };
            if !holds {
                return Outcome::NotStored { current };
            }
            model.remove(key);
            if expires_at_us.is_none_or(|at_us| at_us > now_us) {
                model.insert(key.to_vec(), (value.to_vec(), version, expires_at_us));
            }
            Outcome::Stored { version }
        }
        Command::Delete { key } => {
            model.remove(key);
            Outcome::Deleted(current.is_some())
        }
        Command::Expire { key, version } => {
            let gone = present.is_some_and(|(_, held, _)| held == Version(version));
            if gone {
                model.remove(key);
            }
            Outcome::Expired(gone)
        }
    }
}

/// Fills in what depends on the state: versions that match, or miss by one.
fn command<'a>(op: &'a Op, key: &'a [u8], model: &Model, now_us: i64) -> Command<'a> {
    let held = model.get(key).map_or(1 << 16, |(_, version, _)| version.0);
    match op {
        Op::Set { value, ttl_us, condition, .. } => Command::Set {
            key,
            value,
            expires_at_us: ttl_us.map(|ttl_us| now_us + ttl_us),
            condition: match condition {
                0 => Condition::IfAbsent,
                1 => Condition::IfPresent,
                2 => Condition::IfVersion(held),
                3 => Condition::IfVersion(held + 1),
                _ => Condition::Always,
            },
        },
        Op::Delete { .. } => Command::Delete { key },
        Op::Expire { current, .. } => Command::Expire { key, version: held + u64::from(!current) },
    }
}

fn check_content(shard: &Shard, model: &Model, now_us: i64) {
    assert_eq!(shard.key_count(), model.len());
    for key in (0..24).map(key_bytes) {
        let expected = model.get(&key).filter(|(_, _, at_us)| at_us.is_none_or(|at_us| at_us > now_us));
        let expected =
            expected.map(|(value, version, at_us)| Stored { value, version: *version, expires_at_us: *at_us });
        let slot = key::slot(&key);
        assert_eq!(shard.get(slot, &key, now_us), expected, "{key:?}");
        assert_eq!(shard.exists(slot, &key, now_us), expected.is_some());
        let place = shard.place(slot, &key);
        shard.prefetch(place);
        assert_eq!(shard.get_at(place, &key, now_us), expected);
    }
}

proptest! {
    #[test]
    fn random_logs_do_what_a_plain_map_does(steps in proptest::collection::vec(step(), 1..40), seed in any::<u64>()) {
        let mut shard = Shard::new(ShardId(0), 1, seed);
        // The same log with another seed and without sweeps: neither may have a part in the state.
        let mut replica = Shard::new(ShardId(0), 1, !seed);
        let mut model = Model::new();
        let (mut index, mut now_us) = (Index(0), NOW_US);
        for step in steps {
            let payload = match step {
                Step::Entry { ops, after_us } => {
                    now_us += after_us;
                    index = index.next();
                    // Versions named in the entry are those of the state before it, so some are stale by their turn.
                    let keys: Vec<_> = ops
                        .iter()
                        .map(|(Op::Set { key, .. } | Op::Delete { key } | Op::Expire { key, .. })| key_bytes(*key))
                        .collect();
                    let commands: Vec<_> =
                        ops.iter().zip(&keys).map(|(op, key)| command(op, key, &model, now_us)).collect();
                    entry(&commands, now_us)
                }
                Step::Sweep { after_us, budget, log_it } => {
                    now_us += after_us;
                    let offered = swept(&mut shard, now_us, budget);
                    prop_assert!(offered.len() <= budget);
                    for (key, version) in &offered {
                        let (_, held, at_us) = &model[key];
                        prop_assert_eq!(held, version);
                        prop_assert!(at_us.is_some_and(|at_us| at_us <= now_us), "offered too early");
                    }
                    if offered.is_empty() || !log_it {
                        continue;
                    }
                    index = index.next();
                    let commands: Vec<_> =
                        offered.iter().map(|(key, version)| Command::Expire { key, version: version.0 }).collect();
                    entry(&commands, now_us)
                }
            };
            let mut expected = Vec::new();
            for (position, command) in EntryCommands::new(&payload).unwrap().enumerate() {
                let version = Version::new(index, position as u16);
                expected.push(apply_to_model(&mut model, &command.unwrap(), version, now_us));
            }
            for shard in [&mut shard, &mut replica] {
                let mut outcomes = Vec::new();
                shard.apply(index, &payload, |_, outcome| outcomes.push(outcome)).unwrap();
                prop_assert_eq!(&outcomes, &expected);
                check_counts(shard);
            }
            check_content(&shard, &model, now_us);
            prop_assert_eq!(shard.digest(), replica.digest());
            let expiring = model.values().filter(|(_, _, at_us)| at_us.is_some()).count();
            prop_assert_eq!(shard.expiring_key_count(), expiring);
            prop_assert_eq!(shard.next_expiry_us().is_some(), expiring > 0);
        }
        // Enough time, enough sweeps: all that can expire is gone, by the log, and the rest is untouched.
        let end_us = now_us + 100 * 3600 * SECOND_US;
        let offered = swept(&mut shard, end_us, 10_000);
        let mut due: Vec<_> = model
            .iter()
            .filter(|(_, (_, _, at_us))| at_us.is_some_and(|at_us| at_us <= end_us))
            .map(|(key, (_, version, _))| (key.clone(), *version))
            .collect();
        let mut offered = offered;
        offered.sort();
        due.sort();
        prop_assert_eq!(offered, due);
    }

    #[test]
    fn any_bytes_are_applied_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut shard = Shard::new(ShardId(0), 1, 0);
        let _ = shard.apply(Index(1), &bytes, |_, _| ());
        check_counts(&shard);
    }

    #[test]
    fn content_alone_decides_the_digest(
        seeds in any::<(u64, u64)>(),
        keys in proptest::collection::btree_set(any::<u16>(), 1..200),
    ) {
        // Entry n sets key n, whatever the order in which the entries come to the two shards.
        let build = |seed, keys: &mut dyn Iterator<Item = &u16>| {
            let mut shard = Shard::new(ShardId(0), 1, seed);
            for key in keys {
                let payload = entry(&[set(&key.to_le_bytes(), b"value")], NOW_US);
                shard.apply(Index(u64::from(*key) + 1), &payload, |_, _| ()).unwrap();
            }
            shard.digest()
        };
        prop_assert_eq!(build(seeds.0, &mut keys.iter()), build(seeds.1, &mut keys.iter().rev()));
    }
}
