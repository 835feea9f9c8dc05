//! Tests of the tables against a plain map, with hashes that chance would never give; of walks while the tables change
//! under them; of bounds.

use std::collections::{btree_map, BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use eyot_raft_glue::{Index, Version};
use proptest::prelude::*;

use super::segment::SEGMENT_BUCKETS_MAX;
use super::*;

/// The slots of the tables, and the tags of the keys: most keys share a slot.
const SLOTS: std::ops::Range<u16> = 0..16384;
const TAGS: [&str; 3] = ["{few}", "{most}", "{some}"];

/// How the hashes of a run are made from the keys' numbers.
#[derive(Debug, Clone, Copy)]
enum Hashes {
    Even,
    /// All the same.
    One(u32),
    /// Few different ones.
    Few,
    /// Only the first bits differ: the tags of a deep segment are all zero.
    HighBits,
    /// Only the last bits differ: all in one bucket, however often the segment is split.
    LowBits,
    /// All at the end of the range: chains wrap around.
    LastOnes,
    /// The first bits, so many, are the same.
    Sharing(u32),
}

impl Hashes {
    fn of(self, id: u32) -> u32 {
        let even = mixed(u64::from(id)) as u32;
        match self {
            Self::Even => even,
            Self::One(hash) => hash,
            Self::Few => (even % 5).wrapping_mul(0x3333_3333),
            Self::HighBits => even & 0xFF00_0000,
            Self::LowBits => even & 0xFF,
            Self::LastOnes => even | 0xFFF0_0000,
            Self::Sharing(bits) => even >> bits | 0xA5A5_A5A5 << (32 - bits),
        }
    }
}

fn hashes() -> impl Strategy<Value = Hashes> {
    prop_oneof![
        4 => Just(Hashes::Even),
        1 => any::<u32>().prop_map(Hashes::One),
        1 => Just(Hashes::Few),
        1 => Just(Hashes::HighBits),
        1 => Just(Hashes::LowBits),
        1 => Just(Hashes::LastOnes),
    ]
}

/// A change of many keys, so that tables split and merge within a few steps.
#[derive(Debug, Clone, Copy)]
enum Change {
    Insert { from: u32, count: u32 },
    Remove { from: u32, count: u32, step: u32 },
    Resize { from: u32, count: u32, value_bytes: usize },
}

/// Keys have numbers below this one.
const IDS: u32 = 9000;

fn change() -> impl Strategy<Value = Change> {
    let count = || prop_oneof![1..20_u32, 1..5000_u32];
    prop_oneof![
        4 => (0..IDS, count()).prop_map(|(from, count)| Change::Insert { from, count }),
        3 => (0..IDS, count(), 1..4_u32).prop_map(|(from, count, step)| Change::Remove { from, count, step }),
        1 => (0..IDS, 1..300_u32, 0..300_usize)
            .prop_map(|(from, count, value_bytes)| Change::Resize { from, count, value_bytes }),
    ]
}

fn key_of(id: u32) -> Vec<u8> {
    let tag = if id % 16 < 14 { TAGS[1] } else { TAGS[(id % 2 * 2) as usize] };
    [tag.as_bytes(), &id.to_be_bytes()].concat()
}

/// Tables, and what should be in them: the length of each key's value.
struct Pair {
    tables: Tables,
    model: BTreeMap<u32, usize>,
    hashes: Hashes,
    /// What changes give.
    version: Version,
}

impl Pair {
    fn new(hashes: Hashes) -> Self {
        Self { tables: Tables::new(SLOTS, 1), model: BTreeMap::new(), hashes, version: Version(7) }
    }

    fn place(&self, id: u32) -> Place {
        Place { hash: self.hashes.of(id), table: key::slot(&key_of(id)) }
    }

    fn insert(&mut self, id: u32) {
        let place = self.place(id);
        if let btree_map::Entry::Vacant(vacant) = self.model.entry(id) {
            vacant.insert(4);
            let value = id.to_le_bytes();
            self.tables.insert(place, OwnedEntry::new(place.hash(), &key_of(id), &value, self.version, None));
        }
    }

    fn remove(&mut self, id: u32) {
        let (place, key) = (self.place(id), key_of(id));
        assert!(self.tables.remove_if(place, &key, |_| false).is_none(), "the condition decides");
        let removed = self.tables.remove_if(place, &key, |entry| entry.key() == key);
        assert_eq!(removed.map(|entry| entry.value().len()), self.model.remove(&id), "{id}");
    }

    fn apply(&mut self, change: Change, may: impl Fn(u32) -> bool) {
        match change {
            Change::Insert { from, count } => {
                (from..IDS.min(from + count)).filter(|&id| may(id)).for_each(|id| self.insert(id));
            }
            Change::Remove { from, count, step } => {
                let ids = (from..IDS.min(from + count)).step_by(step as usize);
                ids.filter(|&id| may(id)).for_each(|id| self.remove(id));
            }
            Change::Resize { from, count, value_bytes } => {
                for id in from..IDS.min(from + count) {
                    let place = self.place(id);
                    let found = self.tables.find_mut(place, &key_of(id));
                    assert_eq!(found.is_some(), self.model.contains_key(&id));
                    if let Some(entry) = found {
                        entry.store(&vec![1; value_bytes][..], self.version, None);
                        self.model.insert(id, value_bytes);
                    }
                }
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.tables.memory_bytes(), self.tables.recount_bytes());
        assert_eq!(self.tables.keys(), self.model.len());
        assert_eq!(self.tables.iter().count(), self.model.len());
        let in_slots: usize = SLOTS.filter_map(|slot| self.tables.keys_in_slot(slot)).sum();
        assert_eq!(in_slots, self.model.len());
        // With few different hashes a look-up is a walk: not all of them, then.
        let step = if matches!(self.hashes, Hashes::Even) { 1 } else { 37 };
        for id in (0..IDS).step_by(step) {
            let place = self.place(id);
            self.tables.prefetch_bucket(place);
            self.tables.prefetch(place);
            let found = self.tables.find(place, &key_of(id));
            assert_eq!(found.map(|entry| entry.value().len()), self.model.get(&id).copied(), "{id}");
            let found = self.tables.find_by(place, |entry| entry.key() == key_of(id));
            assert_eq!(found.is_some(), self.model.contains_key(&id));
        }
    }
}

fn id_of(entry: &Entry) -> u32 {
    u32::from_be_bytes(entry.key()[entry.key().len() - 4..].try_into().unwrap())
}

/// The most that is visited in one step: what the hashes of one bucket may be.
fn largest_step(hashes: Hashes) -> usize {
    if matches!(hashes, Hashes::Even) {
        100
    } else {
        IDS as usize
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    #[test]
    fn whatever_the_hashes_the_tables_hold_what_a_map_holds(
        hashes in hashes(),
        changes in proptest::collection::vec(change(), 1..12),
    ) {
        let mut pair = Pair::new(hashes);
        for change in changes {
            pair.apply(change, |_| true);
            pair.check();
        }
        // Emptied key by key, the tables are as small as they were.
        pair.apply(Change::Remove { from: 0, count: IDS, step: 1 }, |_| true);
        pair.check();
        prop_assert_eq!(pair.tables.memory_bytes(), Tables::new(SLOTS, 1).memory_bytes());
    }

    #[test]
    fn a_walk_visits_every_key_that_stays_exactly_once_whatever_else_comes_and_goes(
        hashes in hashes(),
        before in proptest::collection::vec(change(), 0..4),
        // Changes between two steps, and the budget of the step.
        steps in proptest::collection::vec((proptest::option::of(change()), 1..400_usize), 1..30),
        stays in 2..40_u32,
    ) {
        let mut pair = Pair::new(hashes);
        for id in 0..IDS / 2 {
            pair.insert(id);
        }
        for change in before {
            pair.apply(change, |_| true);
        }
        let mut ever: BTreeSet<u32> = pair.model.keys().copied().collect();
        let may_change = |id: u32| !id.is_multiple_of(stays);
        let staying: BTreeSet<u32> = pair.model.keys().copied().filter(|&id| !may_change(id)).collect();
        let mut visited = BTreeMap::new();
        let mut position = Position { slot: 0, hash: 0 };
        for n in 0.. {
            // At the end of the list the walk goes on with the last budget.
            let (change, budget) = steps[n.min(steps.len() - 1)];
            let mut in_step = 0;
            let (next, counted) = pair.tables.scan(position, budget, |entry| {
                in_step += 1;
                *visited.entry(id_of(entry)).or_insert(0) += 1;
            });
            prop_assert!(counted >= in_step);
            prop_assert!(in_step <= budget + largest_step(hashes), "{in_step} with a budget of {budget}");
            let Some(next) = next else { break };
            prop_assert!(next > position, "the walk stands still");
            position = next;
            if let Some(change) = change.filter(|_| n < steps.len()) {
                pair.apply(change, may_change);
                ever.extend(pair.model.keys());
            }
        }
        for id in &staying {
            prop_assert_eq!(visited.get(id), Some(&1), "key {} of those that stayed", id);
        }
        prop_assert!(visited.keys().all(|id| ever.contains(id)));
    }

    #[test]
    fn a_snapshot_walk_gives_what_was_there_in_order_whatever_the_hashes(
        hashes in hashes(),
        before in proptest::collection::vec(change(), 0..4),
        steps in proptest::collection::vec((proptest::option::of(change()), 1..3000_usize, 1..2000_usize), 1..30),
        clear_at in proptest::option::of(0..20_usize),
    ) {
        let mut pair = Pair::new(hashes);
        for change in before {
            pair.apply(change, |_| true);
        }
        let what = |entry: &Entry| (key::slot(entry.key()), entry.key().to_vec(), entry.value().to_vec());
        let mut expected: Vec<_> = pair.tables.iter().map(what).collect();
        expected.sort();
        pair.tables.begin_walk(Index(0));
        pair.version = Version(1 << 16);
        let mut emitted = Vec::new();
        for n in 0.. {
            let (change, budget, room) = steps[n.min(steps.len() - 1)];
            let before = emitted.len();
            let done = pair.tables.advance_walk(budget, |slot, entry| {
                assert_eq!(slot, key::slot(entry.key()));
                emitted.push(what(entry));
                if emitted.len() - before < room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            prop_assert!(emitted.len() - before <= budget.min(room));
            if done == Some(true) {
                break;
            }
            if let Some(change) = change.filter(|_| n < steps.len()) {
                pair.apply(change, |_| true);
                pair.check();
            }
            if clear_at == Some(n) {
                prop_assert!(pair.tables.take_all().is_none(), "the walk keeps them");
                pair.model.clear();
                pair.check();
            }
            pair.tables.check_walk();
        }
        prop_assert!(emitted == expected);
        let mut walk = pair.tables.end_walk().unwrap();
        drop(walk.take_cleared());
        prop_assert!(walk.free_some(1), "nothing else is left of it");
    }
}

#[test]
fn a_slot_with_very_many_keys_has_small_segments_and_gives_all_memory_back() {
    let mut pair = Pair::new(Hashes::Even);
    let count = if cfg!(miri) { 4000 } else { 200_000 };
    // All in one slot.
    let ids: Vec<u32> = (0..).filter(|id| id % 16 < 14).take(count).collect();
    for &id in &ids {
        pair.insert(id);
    }
    let slot = &pair.tables.by_slot[usize::from(key::slot(TAGS[1].as_bytes()))];
    assert_eq!(slot.keys(), count);
    assert!(slot.segments().iter().all(|segment| segment.buckets().len() <= SEGMENT_BUCKETS_MAX));
    let per_key = slot.bytes() as f64 / count as f64;
    assert!(per_key < 12.0, "{per_key} bytes per key");
    assert_eq!(pair.tables.memory_bytes(), pair.tables.recount_bytes());
    for &id in &ids {
        pair.remove(id);
        if id % 5000 == 0 {
            assert_eq!(pair.tables.memory_bytes(), pair.tables.recount_bytes());
        }
    }
    assert_eq!(pair.tables.memory_bytes(), Tables::new(SLOTS, 1).memory_bytes());
}

/// What somebody brings about who knows the seed: keys of one slot whose hashes have the same first bits.
#[test]
fn keys_whose_hashes_share_their_first_bits_lie_in_bounded_segments_and_give_all_memory_back() {
    for (shared_bits, buckets_max) in [(4, 2 * SEGMENT_BUCKETS_MAX), (12, 1 << 12)] {
        let mut pair = Pair::new(Hashes::Sharing(shared_bits));
        let count = if cfg!(miri) { 4000 } else { 400_000 };
        let ids: Vec<u32> = (0..).filter(|id| id % 16 < 14).take(count).collect();
        for &id in &ids {
            pair.insert(id);
        }
        let slot = &pair.tables.by_slot[usize::from(key::slot(TAGS[1].as_bytes()))];
        let most = slot.segments().iter().map(|segment| segment.buckets().len()).max();
        assert!(most.is_some_and(|most| most <= buckets_max), "{most:?} buckets with {shared_bits} bits shared");
        let per_key = slot.bytes() as f64 / count as f64;
        assert!(per_key < 16.0, "{per_key} bytes per key with {shared_bits} bits shared");
        assert_eq!(pair.tables.memory_bytes(), pair.tables.recount_bytes());
        assert!(ids.iter().step_by(97).all(|&id| pair.tables.find(pair.place(id), &key_of(id)).is_some()));
        for &id in &ids {
            pair.remove(id);
        }
        assert_eq!(pair.tables.memory_bytes(), Tables::new(SLOTS, 1).memory_bytes());
    }
}

/// Where more keys share a hash than a directory may tell apart, their segment grows.
#[test]
fn a_segment_that_may_not_be_split_grows_beyond_the_homes_that_its_tags_can_name() {
    let count = if cfg!(miri) { 3000 } else { 600_000 };
    let (mut arena, mut segment) = (Arena::new(), Segment::new(0));
    let hash = |id: u32| mixed(u64::from(id)) as u32;
    for id in 0..count {
        if segment.is_full() {
            segment.grow(&mut arena);
            arena.settle(|_, from, to| segment.move_to(from, to));
        }
        segment.insert(hash(id), OwnedEntry::new(hash(id), &id.to_be_bytes(), b"", Version(7), None));
    }
    assert!(cfg!(miri) || segment.buckets().len() > 1 << 16, "{} buckets", segment.buckets().len());
    segment.check();
    let mut order: Vec<u32> = (0..count).map(hash).collect();
    order.sort_unstable();
    let (mut from, mut visited) = (Some(0), 0);
    while let Some(hash) = from {
        let home = segment.home_of(hash);
        segment.visit_home(home, |entry| visited += usize::from(entry.hash() >= hash));
        from = segment.next_bucket(hash);
        let before = from.map_or(order.len(), |next| order.partition_point(|hash| *hash < next));
        assert_eq!(visited, before, "a walk has visited exactly what lies before its position");
    }
    for id in 0..count {
        let spot = segment.find(hash(id), |entry| entry.key() == id.to_be_bytes());
        let removed = spot.and_then(|spot| segment.remove(spot));
        assert!(removed.is_some(), "{id}");
        if segment.is_sparse() {
            segment.shrink(&mut arena);
            arena.settle(|_, from, to| segment.move_to(from, to));
        }
    }
    assert_eq!((segment.keys(), segment.bytes()), (0, 0));
}

#[test]
fn keys_that_come_and_go_leave_no_chains_behind() {
    let mut pair = Pair::new(Hashes::Even);
    let passed = |pair: &Pair| {
        let buckets = pair.tables.by_slot.iter().flat_map(SlotTable::segments).flat_map(Segment::buckets);
        buckets.filter(|bucket| bucket.is_passed()).count()
    };
    (0..6000).for_each(|id| pair.insert(id));
    let before = passed(&pair);
    // Two thirds are replaced, ten times over; the number of keys stays what it was.
    for _ in 0..10 {
        (0..4000).for_each(|id| pair.remove(id));
        (0..4000).for_each(|id| pair.insert(id));
    }
    assert!(passed(&pair) <= before + 20, "{before} buckets were passed, {} are now", passed(&pair));
    (2..6000).for_each(|id| pair.remove(id));
    assert_eq!(passed(&pair), 0);
}

#[test]
fn a_scan_of_one_slot_visits_its_keys_and_no_others() {
    let mut pair = Pair::new(Hashes::Even);
    (0..5000).for_each(|id| pair.insert(id));
    for slot in TAGS.map(|tag| key::slot(tag.as_bytes())) {
        let mut visited = BTreeSet::new();
        let mut hash = Some(0);
        while let Some(from) = hash {
            hash = pair.tables.scan_slot(slot, from, 10, |entry| assert!(visited.insert(id_of(entry))));
        }
        let expected: BTreeSet<u32> = (0..5000).filter(|&id| pair.place(id).table == slot).collect();
        assert_eq!(visited, expected);
    }
    let others = Tables::new(100..103, 1);
    assert_eq!(others.scan_slot(99, 0, 10, |_| unreachable!("not a slot of these tables")), None);
    assert_eq!([99, 100, 102, 103].map(|slot| others.keys_in_slot(slot)), [None, Some(0), Some(0), None]);
}

#[test]
fn random_picks_are_about_even() {
    // A slot with many segments, one with few keys, and nearly empty tables.
    for count in [3_u32, 40, 900, 6000] {
        let mut pair = Pair::new(Hashes::Even);
        (0..count).for_each(|id| pair.insert(id));
        let picks = 60 * u64::from(count);
        let mut times = vec![0_u32; count as usize];
        for at in 0..picks {
            times[id_of(pair.tables.random(at).unwrap()) as usize] += 1;
        }
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*least >= 20 && *most <= 130, "{count} keys, 60 picks each: between {least} and {most}");
        let mut times = vec![0_u32; count as usize];
        for at in 0..picks / 5 {
            pair.tables.sample(at, 5, |entry| times[id_of(entry) as usize] += 1);
        }
        let sampled: u32 = times.iter().sum();
        assert!(u64::from(sampled) > picks / 2, "{sampled} samples of {picks}");
        // Neighbours come together, so this is less even.
        assert!(times.iter().all(|&times| (5..300).contains(&times)), "{count} keys: {times:?}");
    }
    assert!(Tables::new(0..16, 1).random(5).is_none());
    Tables::new(0..16, 1).sample(5, 5, |_| unreachable!("there is nothing"));
}

#[test]
fn what_was_taken_out_is_freed_in_steps_while_the_tables_are_in_use() {
    let mut pair = Pair::new(Hashes::Even);
    (0..6000).for_each(|id| pair.insert(id));
    let bytes = pair.tables.memory_bytes();
    let mut emptied = pair.tables.take_all().expect("no walk needs them");
    pair.model.clear();
    pair.check();
    assert_eq!(emptied.memory_bytes() + pair.tables.memory_bytes(), bytes);
    (0..100).for_each(|id| pair.insert(id));
    let mut steps = 0;
    while !emptied.free_some(500) {
        steps += 1;
        pair.insert(200 + steps);
    }
    assert!((12..60).contains(&steps), "{steps} steps");
    assert_eq!(emptied.memory_bytes(), 0);
    pair.check();
    // What is left when nobody frees it in steps goes with its owner.
    drop(pair.tables.take_all());
}
