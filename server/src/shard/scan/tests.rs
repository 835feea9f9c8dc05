//! Tests of walks, counts and picks as a client sees them: over slots and shards, with keys that have expired.

use std::collections::{BTreeMap, BTreeSet};

use eyot_protocol::command::{Command, Condition, EntryBuilder, NewExpiry, Value};
use eyot_protocol::key;
use eyot_raft_glue::{Index, ShardId};

use super::*;

const NOW_US: i64 = 1_700_000_000_000_000;
const SHARDS: u16 = 4;

/// Shards of all slots with `keys`; every third expires in a second, and of those every fifth has expired already.
fn shards(keys: &[Vec<u8>]) -> Vec<Shard> {
    let mut shards: Vec<_> = (0..SHARDS).map(|id| Shard::new(ShardId(id), SHARDS, 3)).collect();
    for (n, key) in keys.iter().enumerate() {
        let expiry = expiry(n).map_or(NewExpiry::Never, NewExpiry::At);
        let mut builder = EntryBuilder::default();
        let set = Command::Set {
            key,
            value: Value::Encoded(b"value"),
            expiry,
            condition: Condition::Always,
            return_old: false,
        };
        builder.push(&set, NOW_US - 10);
        let shard = usize::from(key::shard_of_slot(key::slot(key), SHARDS));
        shards[shard].apply(Index(n as u64 + 1), &builder.take(), |_, _| ()).unwrap();
    }
    shards
}

fn expiry(n: usize) -> Option<i64> {
    n.is_multiple_of(3).then_some(if n.is_multiple_of(15) { NOW_US } else { NOW_US + 1_000_000 })
}

fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| if n % 4 == 0 { format!("{{tag}}{n}") } else { format!("key {n}") }.into_bytes()).collect()
}

/// Goes from shard to shard with one cursor, as a node does.
fn walk(shards: &[Shard], budget: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for shard in shards {
        let mut cursor = Some(ScanCursor::of_slot(shard.slots().start));
        while let Some(from) = cursor {
            assert!(usize::try_from(from.slot()).is_ok_and(|slot| shard.slots().contains(&(slot as u16))));
            cursor = shard
                .scan(from, budget, NOW_US, |key, stored| {
                    assert_eq!(stored.value, b"value");
                    assert!(stored.expires_at_us.is_none_or(|at_us| at_us > NOW_US));
                    found.push(key.to_vec());
                })
                .next;
        }
    }
    found
}

#[test]
fn a_walk_over_all_shards_visits_every_live_key_once() {
    let keys = keys(6000);
    let shards = shards(&keys);
    let live = keys.iter().enumerate().filter(|(n, _)| expiry(*n) != Some(NOW_US)).map(|(_, key)| key.clone());
    let live: BTreeSet<_> = live.collect();
    for budget in [0, 1, 10, 1000, usize::MAX] {
        let found = walk(&shards, budget);
        assert_eq!(found.len(), live.len(), "budget {budget}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), live, "budget {budget}");
    }
}

#[test]
fn a_step_ends_at_its_bound_whatever_the_budget() {
    let shards = shards(&keys(12_000));
    let largest = shards.iter().max_by_key(|shard| shard.key_count()).unwrap();
    assert!(largest.key_count() > SCAN_KEYS_MAX + 1000);
    let mut visited = 0;
    assert!(largest.scan(ScanCursor::START, usize::MAX, 0, |_, _| visited += 1).next.is_some());
    assert!((SCAN_KEYS_MAX..SCAN_KEYS_MAX + 100).contains(&visited), "{visited} keys");
}

#[test]
fn keys_that_have_expired_are_not_visited_and_count_all_the_same() {
    let mut shard = Shard::new(ShardId(0), 1, 3);
    let keys: Vec<String> = (0..5000).map(|n| format!("key {n}")).collect();
    let mut builder = EntryBuilder::default();
    for key in &keys {
        let (value, condition) = (Value::Encoded(b"value"), Condition::Always);
        let expiry = NewExpiry::At(NOW_US);
        builder.push(&Command::Set { key: key.as_bytes(), value, expiry, condition, return_old: false }, NOW_US - 10);
    }
    shard.apply(Index(1), &builder.take(), |_, _| ()).unwrap();
    let scanned = shard.scan(ScanCursor::START, 1000, NOW_US, |_, _| panic!("it has expired"));
    assert!(scanned.next.is_some() && (1000..1100).contains(&scanned.looked_at), "{scanned:?}");
}

#[test]
fn any_number_is_a_cursor() {
    let shards = shards(&keys(3000));
    for n in 0..2000 {
        let cursor = ScanCursor(mixed(n) >> (n % 64));
        for shard in &shards {
            if let Some(next) = shard.scan(cursor, 10, NOW_US, |_, _| ()).next {
                assert!(next > cursor && next.slot() < u64::from(shard.slots().end));
            }
        }
    }
    assert_eq!(shards[0].scan(ScanCursor(u64::MAX), 10, NOW_US, |_, _| panic!("beyond all slots")).next, None);
    let before = shards[3].scan(ScanCursor::START, 10, NOW_US, |_, _| ()).next.unwrap();
    assert!(before.slot() >= u64::from(shards[3].slots().start), "begins at its own first slot");
}

#[test]
fn the_keys_of_a_slot_are_counted_and_listed() {
    let keys = keys(2000);
    let shards = shards(&keys);
    let slot = key::slot(b"{tag}");
    let shard = &shards[usize::from(key::shard_of_slot(slot, SHARDS))];
    assert_eq!(shard.keys_in_slot(slot), keys.iter().filter(|key| key::slot(key) == slot).count());
    let mut listed = BTreeSet::new();
    shard.keys_of_slot(slot, 5000, NOW_US, |key| assert!(listed.insert(key.to_vec())));
    let live = keys.iter().enumerate().filter(|(n, key)| key::slot(key) == slot && expiry(*n) != Some(NOW_US));
    assert_eq!(listed, live.map(|(_, key)| key.clone()).collect());
    let mut some = 0;
    shard.keys_of_slot(slot, 7, NOW_US, |_| some += 1);
    assert_eq!(some, 7);
    shard.keys_of_slot(slot, 0, NOW_US, |_| panic!("none was asked for"));
    let other = &shards[usize::from(key::shard_of_slot(slot, SHARDS) ^ 1)];
    other.keys_of_slot(slot, 7, NOW_US, |_| panic!("a slot of another shard"));
}

#[test]
fn random_keys_are_live_and_all_of_them_come() {
    let keys: Vec<_> = keys(40);
    let shards = shards(&keys);
    let mut found = BTreeMap::new();
    for shard in &shards {
        for at in 0..2000 {
            let key = shard.random_key(at, NOW_US).unwrap();
            *found.entry(key.to_vec()).or_insert(0) += 1;
        }
    }
    let live = keys.iter().enumerate().filter(|(n, _)| expiry(*n) != Some(NOW_US)).map(|(_, key)| key);
    assert_eq!(found.keys().collect::<BTreeSet<_>>(), live.collect());
    assert_eq!(Shard::new(ShardId(0), 1, 1).random_key(7, NOW_US), None);
}

#[test]
fn samples_say_what_the_keys_are_and_know_those_that_expire() {
    let keys = keys(900);
    let shards = shards(&keys);
    let mut count = 0;
    for at in 0..200 {
        for shard in &shards {
            for expiring_only in [false, true] {
                shard.sample(at, 5, expiring_only, |candidate| {
                    count += 1;
                    let n = keys.iter().position(|key| key == candidate.key).unwrap();
                    assert_eq!((candidate.expires_at_us, candidate.version.0 >> 16), (expiry(n), n as u64 + 1));
                    assert!(candidate.bytes >= 24 + 5 + candidate.key.len());
                    assert!(!expiring_only || candidate.expires_at_us.is_some());
                });
            }
        }
    }
    assert!(count > 200 * 4 * 2 * 4, "{count} samples");
}

#[test]
fn the_one_key_that_expires_is_found_among_many() {
    let mut shard = Shard::new(ShardId(0), 1, 3);
    let mut builder = EntryBuilder::default();
    for n in 0..5000 {
        let expiry = if n == 77 { NewExpiry::At(NOW_US + 1) } else { NewExpiry::Never };
        let key = format!("key {n}");
        let set = Command::Set {
            key: key.as_bytes(),
            value: Value::Encoded(b"value"),
            expiry,
            condition: Condition::Always,
            return_old: false,
        };
        builder.push(&set, NOW_US);
    }
    shard.apply(Index(1), &builder.take(), |_, _| ()).unwrap();
    let mut found = Vec::new();
    shard.sample(9, 3, true, |candidate| found.push(candidate.key.to_vec()));
    assert_eq!(found, [b"key 77"; 3]);
    shard.sample(9, 3, false, |candidate| assert_eq!(candidate.expires_at_us.is_some(), candidate.key == b"key 77"));
}
