//! Tests of walks, slice by slice, on shards without a core.

use std::collections::BTreeSet;
use std::sync::Weak;

use eyot_protocol::command::{Command, Condition, EntryBuilder, NewExpiry, Value};
use eyot_protocol::key;
use eyot_protocol::resp::glob;
use eyot_protocol::resp::request::TypeFilter;
use eyot_raft_glue::{Index, ShardId};

use super::*;

const NOW_US: i64 = 1_700_000_000_000_000;
const SHARDS: u16 = 4;

/// Shards of all slots with `keys`, which expire at `expires_at_us` if that is some.
fn shards(keys: &[Vec<u8>], expires_at_us: Option<i64>) -> Vec<Shard> {
    let mut shards: Vec<_> = (0..SHARDS).map(|id| Shard::new(ShardId(id), SHARDS, 3)).collect();
    for (n, key) in keys.iter().enumerate() {
        let expiry = expires_at_us.map_or(NewExpiry::Never, NewExpiry::At);
        let (value, condition) = (Value::Encoded(&[7, 1, b'v']), Condition::Always);
        let mut builder = EntryBuilder::default();
        builder.push(&Command::Set { key, value, expiry, condition, return_old: false }, NOW_US - 10);
        let shard = usize::from(key::shard_of_slot(key::slot(key), SHARDS));
        shards[shard].apply(Index(n as u64 + 1), &builder.take(), |_, _| ()).unwrap();
    }
    shards
}

fn wanted(pattern: &str, count: usize) -> OwnedScan {
    OwnedScan { asker: Weak::new(), count, pattern: Some(Box::from(pattern.as_bytes())), filter: TypeFilter::Any }
}

/// Goes on to the end; the slices that it took, and the keys that it has found.
fn finish(walk: &mut Walk, shards: &[Shard], steps: usize) -> (usize, BTreeSet<Vec<u8>>) {
    let shard_of = |slot: u16| shards.iter().find(|shard| shard.slots().contains(&slot));
    let mut slices = 1;
    while !walk.go_on(shard_of, NOW_US, &mut { steps }) {
        slices += 1;
        assert!(slices < 1_000_000, "it does not end");
    }
    let mut found = BTreeSet::new();
    let all = walk.found.chunks.concat();
    assert_eq!(all.len(), walk.found.bytes);
    let mut rest = &all[..];
    while let Some((length, behind)) = rest.strip_prefix(b"$").and_then(|rest| {
        let end = rest.iter().position(|byte| *byte == b'\r')?;
        Some((std::str::from_utf8(&rest[..end]).ok()?.parse::<usize>().ok()?, &rest[end + 2..]))
    }) {
        assert!(found.insert(behind[..length].to_vec()), "found twice");
        rest = &behind[length + 2..];
    }
    assert!(rest.is_empty());
    assert_eq!(found.len(), walk.found.count);
    (slices, found)
}

fn by_definition(keys: &[Vec<u8>], pattern: &str) -> BTreeSet<Vec<u8>> {
    let fits = |key: &&Vec<u8>| glob::matches(pattern.as_bytes(), key, &mut { usize::MAX }).unwrap();
    keys.iter().filter(fits).cloned().collect()
}

#[test]
fn what_is_found_does_not_depend_on_the_slices() {
    let keys: Vec<Vec<u8>> = (0..3000).map(|n| format!("user:{n}:{}", n % 7).into_bytes()).collect();
    let shards = shards(&keys, None);
    for pattern in ["*", "user:1*", "*:3", "user:?5*:[2-4]", "nothing"] {
        for steps in [1, 7, 100, MATCH_STEPS_PER_SLICE] {
            let mut walk = Walk::new(wanted(pattern, 0), true, ScanCursor::START);
            let (slices, found) = finish(&mut walk, &shards, steps);
            assert_eq!(found, by_definition(&keys, pattern), "{pattern} with {steps} steps a slice");
            assert!(slices > 1 && (steps > 1 || slices >= 3000), "{slices} slices of {steps} steps");
        }
    }
}

#[test]
fn a_pattern_that_takes_very_long_takes_many_slices_and_none_of_them_is_long() {
    let keys: Vec<Vec<u8>> = (0..40).map(|n| format!("{n:03}{}", "a".repeat(60_000)).into_bytes()).collect();
    let shards = shards(&keys, None);
    let pattern = format!("*{}b", "a".repeat(300));
    let mut walk = Walk::new(wanted(&pattern, 0), true, ScanCursor::START);
    let (slices, found) = finish(&mut walk, &shards, MATCH_STEPS_PER_SLICE);
    // Each key takes 300 steps for each of its bytes.
    let expected = 40 * 60_000 * 300 / MATCH_STEPS_PER_SLICE;
    assert!((expected - expected / 10..expected * 2).contains(&slices), "{slices} slices, of {expected}");
    assert!(found.is_empty());
}

#[test]
fn a_scan_that_does_not_fit_a_slice_is_the_same_in_several() {
    let keys: Vec<Vec<u8>> = (0..500).map(|n| format!("{n}:{}", "ab".repeat(50)).into_bytes()).collect();
    let shards = shards(&keys, None);
    for steps in [5, MATCH_STEPS_PER_SLICE] {
        let (mut cursor, mut found) = (Some(ScanCursor::START), BTreeSet::new());
        while let Some(from) = cursor {
            let mut walk = Walk::new(wanted("*1*b*ab", 50), false, from);
            let (_, some) = finish(&mut walk, &shards, steps);
            assert!(some.len() < 50 + 30, "{} keys", some.len());
            assert!(some.iter().all(|key| !found.contains(key)), "found twice");
            found.extend(some);
            cursor = walk.next;
        }
        assert_eq!(found, by_definition(&keys, "*1*b*ab"), "{steps} steps a slice");
    }
}

#[test]
fn long_keys_and_keys_that_have_expired_end_a_call_of_scan_early() {
    let keys: Vec<Vec<u8>> = (0..200).map(|n| format!("{n:03}{}", "a".repeat(60_000)).into_bytes()).collect();
    let mut walk = Walk::new(wanted("*", 1000), false, ScanCursor::START);
    let (_, found) = finish(&mut walk, &shards(&keys, None), MATCH_STEPS_PER_SLICE);
    assert!((10..60).contains(&found.len()) && walk.next.is_some(), "{} long keys", found.len());

    let keys: Vec<Vec<u8>> = (0..5000).map(|n| format!("key {n}").into_bytes()).collect();
    let mut walk = Walk::new(wanted("*", 1000), false, ScanCursor::START);
    let (slices, found) = finish(&mut walk, &shards(&keys, Some(NOW_US)), MATCH_STEPS_PER_SLICE);
    let slot = walk.next.expect("it has only begun").slot() as usize;
    assert!(found.is_empty() && slices == 1 && slot < SLOT_COUNT / 2, "at slot {slot} after {slices} slices");
}
