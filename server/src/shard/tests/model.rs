//! Random logs, applied to a shard and to a plain map, by two shards of different seeds.

use std::collections::BTreeMap;

use eyot_protocol::command::{EntryCommands, ExpiryCondition, PairList};
use eyot_protocol::tlv;
use proptest::prelude::*;

use super::super::commands::float_sum_text;
use super::*;

/// One command on keys by their numbers, with owned bytes.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Set { key: u8, value: Vec<u8>, expiry: NewTime, condition: u8, return_old: bool },
    Delete { key: u8 },
    Expire { key: u8, current: bool },
    TakeOut { key: u8 },
    Append { key: u8, bytes: Vec<u8>, length_max: Option<u32> },
    Increment { key: u8, by: i64 },
    IncrementFloat { key: u8, by: &'static str },
    SetRange { key: u8, offset: u32, bytes: Vec<u8> },
    SetExpiry { key: u8, ttl_us: Option<i64>, condition: ExpiryCondition, return_value: bool },
    Rename { from: u8, to: u8, if_absent: bool },
    Copy { from: u8, to: u8, replace: bool },
    SetAllIfAbsent { pairs: Vec<(u8, Vec<u8>)> },
    Clear,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum NewTime {
    Never,
    In(i64),
    Keep,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Entry { ops: Vec<Op>, after_us: i64 },
    Sweep { after_us: i64, budget: usize, log_it: bool },
    FreeSome { budget: usize },
}

/// Few, so that commands meet each other.
const KEYS: u8 = 24;

fn key_number() -> impl Strategy<Value = u8> {
    0..KEYS
}

fn encoded_value() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(tlv::Value::Bytes),
        1 => proptest::collection::vec(any::<u8>(), 100).prop_map(tlv::Value::Bytes),
        3 => prop_oneof![Just("10"), Just("-7"), Just("9223372036854775807"), Just("3.25"), Just("1e3"), Just("inf")]
            .prop_map(|text| tlv::Value::Bytes(text.into())),
        1 => Just(tlv::Value::from("text")),
        1 => any::<i64>().prop_map(tlv::Value::Int64),
        1 => prop_oneof![Just(1.5), Just(-0.1)].prop_map(tlv::Value::Float64),
        1 => any::<bool>().prop_map(tlv::Value::Boolean),
        1 => Just(tlv::Value::Null),
        1 => Just(tlv::Value::List(vec![tlv::Value::Int32(1)])),
    ];
    value.prop_map(|value| {
        let mut encoded = Vec::new();
        value.encode(&mut encoded);
        encoded
    })
}

fn ttl_us() -> impl Strategy<Value = i64> {
    prop_oneof![-1..3_i64, 0..5 * SECOND_US, Just(i64::MAX / 2)]
}

fn writes() -> impl Strategy<Value = Op> {
    let expiry = prop_oneof![2 => Just(NewTime::Never), 2 => ttl_us().prop_map(NewTime::In), 1 => Just(NewTime::Keep)];
    let bytes = || proptest::collection::vec(any::<u8>(), 0..6);
    let by = prop_oneof![Just("0.1"), Just("-3.5e0"), Just("10"), Just("x"), Just("-inf"), Just("1e4000")];
    prop_oneof![
        6 => (key_number(), encoded_value(), expiry, 0..6_u8, any::<bool>()).prop_map(
            |(key, value, expiry, condition, return_old)| Op::Set { key, value, expiry, condition, return_old }
        ),
        2 => (key_number(), bytes(), prop::option::of(0..100_u32))
            .prop_map(|(key, bytes, length_max)| Op::Append { key, bytes, length_max }),
        2 => (key_number(), prop_oneof![-20..20_i64, any::<i64>()]).prop_map(|(key, by)| Op::Increment { key, by }),
        2 => (key_number(), by).prop_map(|(key, by)| Op::IncrementFloat { key, by }),
        2 => (key_number(), prop_oneof![0..9_u32, Just(300), Just(u32::MAX)], bytes())
            .prop_map(|(key, offset, bytes)| Op::SetRange { key, offset, bytes }),
        1 => proptest::collection::vec((key_number(), encoded_value()), 1..4)
            .prop_map(|pairs| Op::SetAllIfAbsent { pairs }),
    ]
}

fn others() -> impl Strategy<Value = Op> {
    let condition = prop_oneof![
        Just(ExpiryCondition::Always),
        Just(ExpiryCondition::IfNone),
        Just(ExpiryCondition::IfAny),
        Just(ExpiryCondition::IfLater),
        Just(ExpiryCondition::IfSooner),
        Just(ExpiryCondition::IfAnySooner),
    ];
    prop_oneof![
        20 => key_number().prop_map(|key| Op::Delete { key }),
        10 => (key_number(), any::<bool>()).prop_map(|(key, current)| Op::Expire { key, current }),
        20 => key_number().prop_map(|key| Op::TakeOut { key }),
        40 => (key_number(), proptest::option::of(ttl_us()), condition, any::<bool>()).prop_map(
            |(key, ttl_us, condition, return_value)| Op::SetExpiry { key, ttl_us, condition, return_value }
        ),
        20 => (key_number(), key_number(), any::<bool>())
            .prop_map(|(from, to, if_absent)| Op::Rename { from, to, if_absent }),
        20 => (key_number(), key_number(), any::<bool>())
            .prop_map(|(from, to, replace)| Op::Copy { from, to, replace }),
        1 => Just(Op::Clear),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let after_us = || prop_oneof![Just(0), 0..3_i64, -SECOND_US..3 * SECOND_US, Just(3600 * SECOND_US)];
    let op = prop_oneof![3 => writes(), 2 => others()];
    prop_oneof![
        8 => (proptest::collection::vec(op, 1..30), after_us())
            .prop_map(|(ops, after_us)| Step::Entry { ops, after_us }),
        4 => (after_us(), 0..50_usize, any::<bool>())
            .prop_map(|(after_us, budget, log_it)| Step::Sweep { after_us, budget, log_it }),
        1 => (0..50_usize).prop_map(|budget| Step::FreeSome { budget }),
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

#[derive(Debug, Clone, PartialEq)]
struct Held {
    value: Vec<u8>,
    version: Version,
    at_us: Option<i64>,
}

/// The semantics of the commands, written down a second time in the plainest way.
#[derive(Default)]
pub(super) struct Model(BTreeMap<Vec<u8>, Held>);

impl Model {
    fn live(&self, key: &[u8], now_us: i64) -> Option<Held> {
        self.0.get(key).filter(|held| held.at_us.is_none_or(|at_us| at_us > now_us)).cloned()
    }

    fn put(&mut self, key: &[u8], value: &[u8], version: Version, at_us: Option<i64>) {
        self.0.insert(key.to_vec(), Held { value: value.to_vec(), version, at_us });
    }

    fn text(held: &Held) -> Result<Vec<u8>, Failure> {
        match tlv::Value::decode(&held.value).unwrap() {
            tlv::Value::Bytes(bytes) => Ok(bytes),
            tlv::Value::String(text) => Ok(text.into_bytes()),
            tlv::Value::Int64(number) => Ok(number.to_string().into_bytes()),
            tlv::Value::Float64(number) => Ok(number.to_string().into_bytes()),
            tlv::Value::Boolean(boolean) => Ok(boolean.to_string().into_bytes()),
            _ => Err(Failure::WrongType),
        }
    }

    /// Replaces the text under `key` by what `change` makes of it (and its existence).
    fn change_text<'a>(
        &mut self,
        key: &[u8],
        version: Version,
        now_us: i64,
        change: impl FnOnce(Option<Vec<u8>>) -> Result<(Option<Vec<u8>>, Outcome<'a>), Failure>,
    ) -> Outcome<'a> {
        let held = self.live(key, now_us);
        let changed = held.as_ref().map(Self::text).transpose().and_then(change);
        match changed {
            Err(failure) => Outcome::Failed(failure),
            Ok((None, outcome)) => outcome,
            Ok((Some(text), outcome)) => {
                let mut value = Vec::new();
                tlv::Value::Bytes(text).encode(&mut value);
                self.put(key, &value, version, held.and_then(|held| held.at_us));
                outcome
            }
        }
    }

    pub(super) fn apply(&mut self, command: &Command<'_>, version: Version, now_us: i64) -> Outcome<'static> {
        match *command {
            Command::Set { key, value: Value::Encoded(value), expiry, condition, return_old } => {
                let outcome = self.set(key, value, expiry, condition, version, now_us);
                let (old, (stored, version)) = outcome;
                if return_old {
                    let value = old.map(|held| &*held.value.leak());
                    return Outcome::Previous { value, large: None, stored, version: version.unwrap_or(Version(0)) };
                }
                match version {
                    Some(version) if stored => Outcome::Stored { version },
                    current => Outcome::NotStored { current },
                }
            }
            Command::Delete { key } => {
                let existed = self.live(key, now_us).is_some();
                self.0.remove(key);
                Outcome::Deleted(existed)
            }
            Command::Expire { key, version } => {
                let gone = self.0.get(key).is_some_and(|held| held.version == Version(version));
                if gone {
                    self.0.remove(key);
                }
                Outcome::Expired(gone)
            }
            Command::TakeOut { key } => {
                let held = self.live(key, now_us);
                self.0.remove(key);
                Outcome::Value(held.map(stored))
            }
            Command::SetExpiry { key, at_us, condition, return_value } => {
                self.set_expiry(key, at_us, condition, return_value, version, now_us)
            }
            Command::Rename { .. } | Command::Copy { .. } => self.rename_or_copy(command, version, now_us),
            Command::SetAllIfAbsent { pairs } => {
                let absent = pairs.iter().all(|(key, _)| self.live(key, now_us).is_none());
                for (key, value) in pairs.iter().filter(|_| absent) {
                    let Value::Encoded(value) = value else { panic!("decoded as encoded") };
                    self.put(key, value, version, None);
                }
                Outcome::Changed(absent)
            }
            Command::Clear => {
                self.0.clear();
                Outcome::Done
            }
            _ => self.apply_to_text(command, version, now_us),
        }
    }

    /// The old value, whether it was replaced, and the version that is there now.
    fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        expiry: NewExpiry,
        condition: Condition,
        version: Version,
        now_us: i64,
    ) -> (Option<Held>, (bool, Option<Version>)) {
        let old = self.live(key, now_us);
        let current = old.as_ref().map(|held| held.version);
        let holds = match condition {
            Condition::Always => true,
            Condition::IfAbsent => current.is_none(),
            Condition::IfPresent => current.is_some(),
            Condition::IfVersion(wanted) => current == Some(Version(wanted)),
        };
        if !holds {
            return (old, (false, current));
        }
        let at_us = match expiry {
            NewExpiry::Never => None,
            NewExpiry::At(at_us) => Some(at_us),
            NewExpiry::Keep => old.as_ref().and_then(|held| held.at_us),
        };
        self.0.remove(key);
        if at_us.is_none_or(|at_us| at_us > now_us) {
            self.put(key, value, version, at_us);
        }
        (old, (true, Some(version)))
    }

    fn set_expiry(
        &mut self,
        key: &[u8],
        at_us: Option<i64>,
        condition: ExpiryCondition,
        return_value: bool,
        version: Version,
        now_us: i64,
    ) -> Outcome<'static> {
        let Some(held) = self.live(key, now_us) else {
            return if return_value { Outcome::Value(None) } else { Outcome::Changed(false) };
        };
        let is_change = (held.at_us, at_us) != (None, None);
        let holds = is_change
            && match (condition, held.at_us, at_us) {
                (ExpiryCondition::IfNone, current, _) => current.is_none(),
                (ExpiryCondition::IfAny, current, _) => current.is_some(),
                (ExpiryCondition::Always, ..)
                | (ExpiryCondition::IfLater, Some(_), None)
                | (ExpiryCondition::IfSooner, None, Some(_)) => true,
                (ExpiryCondition::IfLater, Some(current), Some(new)) => new > current,
                (ExpiryCondition::IfSooner | ExpiryCondition::IfAnySooner, Some(current), Some(new)) => new < current,
                (ExpiryCondition::IfLater | ExpiryCondition::IfSooner | ExpiryCondition::IfAnySooner, ..) => false,
            };
        let mut held = held;
        if holds && at_us.is_some_and(|at_us| at_us <= now_us) {
            self.0.remove(key);
        } else if holds {
            held = Held { version, at_us, ..held };
            self.0.insert(key.to_vec(), held.clone());
        }
        if return_value {
            Outcome::Value(Some(stored(held)))
        } else {
            Outcome::Changed(holds)
        }
    }

    fn rename_or_copy(&mut self, command: &Command<'_>, version: Version, now_us: i64) -> Outcome<'static> {
        let keys: Vec<_> = command.keys().collect();
        let (from, to) = (keys[0], keys[1]);
        let (source, target) = (self.live(from, now_us), self.live(to, now_us));
        match (*command, source) {
            (Command::Rename { .. }, None) => Outcome::Failed(Failure::NoSuchKey),
            (Command::Rename { if_absent, .. }, Some(held)) => {
                if if_absent && target.is_some() {
                    return Outcome::Changed(false);
                }
                if from != to {
                    self.0.remove(from);
                    self.0.insert(to.to_vec(), Held { version, ..held });
                }
                if if_absent {
                    Outcome::Changed(true)
                } else {
                    Outcome::Done
                }
            }
            (Command::Copy { replace, .. }, Some(held)) if from != to && (replace || target.is_none()) => {
                self.0.insert(to.to_vec(), Held { version, ..held });
                Outcome::Changed(true)
            }
            _ => Outcome::Changed(false),
        }
    }

    fn apply_to_text(&mut self, command: &Command<'_>, version: Version, now_us: i64) -> Outcome<'static> {
        match *command {
            Command::Append { key, bytes, length_max } => self.change_text(key, version, now_us, |text| {
                let text = [text.unwrap_or_default(), bytes.to_vec()].concat();
                if length_max.is_some_and(|max| text.len() > max as usize) {
                    return Err(Failure::TooLarge);
                }
                let length = text.len() as i64;
                Ok((Some(text), Outcome::Integer(length)))
            }),
            Command::Increment { key, by } => self.change_text(key, version, now_us, |text| {
                let text = String::from_utf8(text.unwrap_or(b"0".to_vec())).map_err(|_| Failure::NotAnInteger)?;
                let before: i64 = text.parse().map_err(|_| Failure::NotAnInteger)?;
                if before.to_string() != text {
                    return Err(Failure::NotAnInteger);
                }
                let after = i128::from(before) + i128::from(by);
                let after = i64::try_from(after).map_err(|_| Failure::Overflow)?;
                Ok((Some(after.to_string().into_bytes()), Outcome::Integer(after)))
            }),
            Command::IncrementFloat { key, by } => self.change_text(key, version, now_us, |text| {
                let after = float_sum_text(text.as_deref(), by)?;
                Ok((Some(after.clone()), Outcome::Text(after.leak())))
            }),
            Command::SetRange { key, offset, bytes } => self.change_text(key, version, now_us, |text| {
                let mut text = text.unwrap_or_default();
                if bytes.is_empty() {
                    return Ok((None, Outcome::Integer(text.len() as i64)));
                }
                let end = offset as usize + bytes.len();
                if end > 512 * 1024 * 1024 {
                    return Err(Failure::TooLarge);
                }
                text.resize(text.len().max(end), 0);
                text[offset as usize..end].copy_from_slice(bytes);
                let length = text.len() as i64;
                Ok((Some(text), Outcome::Integer(length)))
            }),
            _ => panic!("{command:?} is no command on a text"),
        }
    }
}

fn stored(held: Held) -> Stored<'static> {
    Stored { value: held.value.leak(), version: held.version, expires_at_us: held.at_us, large: None }
}

/// The entry of `ops`, with what depends on the state filled in: versions that match, or miss by one.
pub(super) fn payload(ops: &[Op], model: &Model, now_us: i64) -> Vec<u8> {
    let mut builder = EntryBuilder::default();
    let key = key_bytes;
    let held = |key: &[u8]| model.0.get(key).map_or(1 << 16, |held| held.version.0);
    for op in ops {
        let mut push = |command: Command<'_>| {
            builder.push(&command, now_us);
        };
        match op {
            Op::Set { key: number, value, expiry, condition, return_old } => {
                let key = key(*number);
                let condition = match condition {
                    0 => Condition::IfAbsent,
                    1 => Condition::IfPresent,
                    2 => Condition::IfVersion(held(&key)),
                    3 => Condition::IfVersion(held(&key) + 1),
                    _ => Condition::Always,
                };
                let expiry = match expiry {
                    NewTime::Never => NewExpiry::Never,
                    NewTime::In(ttl_us) => NewExpiry::At(now_us + ttl_us),
                    NewTime::Keep => NewExpiry::Keep,
                };
                let value = Value::Encoded(value);
                push(Command::Set { key: &key, value, expiry, condition, return_old: *return_old });
            }
            Op::Delete { key: number } => push(Command::Delete { key: &key(*number) }),
            Op::Expire { key: number, current } => {
                let version = held(&key(*number)) + u64::from(!current);
                push(Command::Expire { key: &key(*number), version });
            }
            Op::TakeOut { key: number } => push(Command::TakeOut { key: &key(*number) }),
            Op::Append { key: number, bytes, length_max } => {
                push(Command::Append { key: &key(*number), bytes, length_max: *length_max });
            }
            Op::Increment { key: number, by } => push(Command::Increment { key: &key(*number), by: *by }),
            Op::IncrementFloat { key: number, by } => {
                push(Command::IncrementFloat { key: &key(*number), by: by.as_bytes() });
            }
            Op::SetRange { key: number, offset, bytes } => {
                push(Command::SetRange { key: &key(*number), offset: *offset, bytes });
            }
            Op::SetExpiry { key: number, ttl_us, condition, return_value } => {
                let at_us = ttl_us.map(|ttl_us| now_us + ttl_us);
                let (condition, return_value) = (*condition, *return_value);
                push(Command::SetExpiry { key: &key(*number), at_us, condition, return_value });
            }
            Op::Rename { from, to, if_absent } => {
                push(Command::Rename { from: &key(*from), to: &key(*to), if_absent: *if_absent });
            }
            Op::Copy { from, to, replace } => {
                push(Command::Copy { from: &key(*from), to: &key(*to), replace: *replace });
            }
            Op::SetAllIfAbsent { pairs } => {
                let pairs: Vec<_> = pairs.iter().map(|(number, value)| (key(*number), value)).collect();
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
                push(Command::SetAllIfAbsent { pairs: PairList::new(&pairs) });
            }
            Op::Clear => push(Command::Clear),
        }
    }
    builder.take()
}

fn check_content(shard: &Shard, model: &Model, now_us: i64) {
    assert_eq!(shard.key_count(), model.0.len());
    for key in (0..KEYS).map(key_bytes) {
        let held = model.live(&key, now_us);
        let expected = held.as_ref().map(|held| Stored {
            value: &held.value,
            version: held.version,
            expires_at_us: held.at_us,
            large: None,
        });
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
        let mut model = Model::default();
        let (mut index, mut now_us) = (Index(0), NOW_US);
        for step in steps {
            let payload = match step {
                Step::Entry { ops, after_us } => {
                    now_us += after_us;
                    index = index.next();
                    // Versions named in the entry are those of the state before it, so some are stale by their turn.
                    payload(&ops, &model, now_us)
                }
                Step::Sweep { after_us, budget, log_it } => {
                    now_us += after_us;
                    let offered = swept(&mut shard, now_us, budget);
                    prop_assert!(offered.len() <= budget);
                    for (key, version) in &offered {
                        let held = &model.0[key];
                        prop_assert_eq!(held.version, *version);
                        prop_assert!(held.at_us.is_some_and(|at_us| at_us <= now_us), "offered too early");
                    }
                    if offered.is_empty() || !log_it {
                        continue;
                    }
                    index = index.next();
                    let commands: Vec<_> =
                        offered.iter().map(|(key, version)| Command::Expire { key, version: version.0 }).collect();
                    entry(&commands, now_us)
                }
                Step::FreeSome { budget } => {
                    shard.free_some(budget);
                    check_counts(&shard);
                    continue;
                }
            };
            let mut expected = Vec::new();
            for (position, command) in EntryCommands::new(&payload).unwrap().enumerate() {
                let version = Version::new(index, position as u16);
                expected.push(model.apply(&command.unwrap(), version, now_us));
            }
            for shard in [&mut shard, &mut replica] {
                let mut outcomes = Vec::new();
                shard.apply(index, &payload, |_, outcome| outcomes.push(kept(outcome))).unwrap();
                prop_assert_eq!(&outcomes, &expected);
                check_counts(shard);
            }
            check_content(&shard, &model, now_us);
            prop_assert_eq!(shard.digest(), replica.digest());
            let expiring = model.0.values().filter(|held| held.at_us.is_some()).count();
            prop_assert_eq!(shard.expiring_key_count(), expiring);
            prop_assert_eq!(shard.next_expiry_us().is_some(), expiring > 0);
        }
        // Enough time, enough sweeps: all that can expire is gone, by the log, and the rest is untouched.
        let end_us = now_us + 100 * 3600 * SECOND_US;
        let offered = swept(&mut shard, end_us, 10_000);
        let mut due: Vec<_> = model.0
            .iter()
            .filter(|(_, held)| held.at_us.is_some_and(|at_us| at_us <= end_us))
            .map(|(key, held)| (key.clone(), held.version))
            .collect();
        let mut offered = offered;
        offered.sort();
        due.sort();
        prop_assert_eq!(offered, due);
    }

    #[test]
    fn any_bytes_are_applied_or_refused_without_a_panic(
        kind in 0..14_u8,
        lengths in (0..20_u32, 0..20_u32),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut shard = Shard::new(ShardId(0), 1, 0);
        let _ = shard.apply(Index(1), &bytes, |_, _| ());
        check_counts(&shard);
        // Behind a header that often fits, so that more than the decoder is reached.
        let mut payload = vec![0; ENTRY_HEADER_BYTES];
        payload.extend_from_slice(&[kind, 0, 0, 0]);
        payload.extend_from_slice(&lengths.0.to_le_bytes());
        payload.extend_from_slice(&lengths.1.to_le_bytes());
        payload.extend_from_slice(&bytes);
        let whole = EntryCommands::new(&payload).unwrap().next();
        // A write far behind the end of a text is one of half a gigabyte of zeros.
        let is_huge = matches!(whole, Some(Ok(Command::SetRange { offset: 100_000.., .. })));
        if let Some(Ok(command)) = whole.filter(|_| !is_huge) {
            payload.truncate(ENTRY_HEADER_BYTES + command.encoded_bytes());
            prop_assert!(shard.apply(Index(2), &payload, |_, _| ()).is_ok());
            check_counts(&shard);
        }
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
