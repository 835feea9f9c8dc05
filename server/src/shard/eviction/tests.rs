//! The pool by itself, and the policies at work on a simulated cache, against policies that know every key.

use std::collections::HashMap;

use eyot_protocol::command::{Command, Condition, EntryBuilder, NewExpiry, Value};
use eyot_protocol::key::slot;
use eyot_raft_glue::{Index, ShardId};

use super::*;

fn offer(pool: &mut Pool, version: u64, fitness: u64) {
    pool.offer(0, Version(version), fitness, Place::default);
}

#[test]
fn names_and_numbers_lead_back_to_their_policy() {
    for policy in Policy::ALL {
        assert_eq!(Policy::of_name(policy.name()), Some(policy));
        assert_eq!(Policy::of_name(&policy.name().to_uppercase()), Some(policy));
        assert_eq!(Policy::of_number(policy.number()), Some(policy));
        assert_eq!(policy.expiring_only(), policy.name().starts_with("volatile"));
        assert_eq!(policy.evicts(), policy != Policy::default());
    }
    assert_eq!((Policy::of_name("lru"), Policy::of_number(8)), (None, None));
}

#[test]
fn the_pool_keeps_the_best_and_gives_the_very_best() {
    let mut pool = Pool::default();
    // 37 is coprime to 101, so every fitness from 0 to 100 comes once, in a stirred order.
    for number in 0..101 {
        offer(&mut pool, number, number * 37 % 101);
    }
    assert_eq!(pool.len(), POOL_CANDIDATES);
    for expected in (101 - POOL_CANDIDATES as u64..101).rev() {
        assert_eq!(pool.best_fitness(), Some(expected));
        assert_eq!(pool.take_best().map(|best| best.fitness), Some(expected));
    }
    assert!(pool.is_empty());
}

#[test]
fn the_pool_holds_a_key_once() {
    let mut pool = Pool::default();
    offer(&mut pool, 1, 10);
    offer(&mut pool, 1, 20);
    offer(&mut pool, 2, 10);
    assert_eq!(pool.len(), 2);
    pool.offer(1, Version(1), 5, Place::default);
    assert_eq!(pool.len(), 3, "the same version of another shard is another key");
    pool.clear();
    assert_eq!(pool.take_best(), None);
}

#[test]
fn what_has_expired_goes_first() {
    let clock = AccessClock::new(Tracking::Recency, 1_000_000_000);
    for policy in Policy::ALL.into_iter().filter(|policy| policy.compares()) {
        let fitness = |access, at_us| policy.fitness(&clock, access, at_us);
        let coldest = (0..32).map(|bit| fitness(1 << bit, Some(1_000_000_001))).max();
        assert!(Some(fitness(clock.created(), Some(1_000_000_000))) > coldest, "{}", policy.name());
    }
}

#[test]
fn ttl_prefers_the_soonest_and_spares_what_never_expires() {
    let clock = AccessClock::new(Tracking::Recency, 0);
    let fitness = |at_us| Policy::VolatileTtl.fitness(&clock, 0, at_us);
    assert!(fitness(Some(5)) > fitness(Some(6)));
    assert!(fitness(Some(-5)) >= fitness(Some(0)));
    assert!(fitness(Some(i64::MAX)) > fitness(None));
}

#[test]
fn dice_fall_evenly_below_their_bound() {
    let mut dice = Dice::new(3);
    let mut counts = [0_u32; 7];
    for _ in 0..70_000 {
        counts[dice.below(7) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    assert_eq!(dice.below(1), 0);
}

#[test]
fn writes_and_reads_leave_their_mark_on_a_key() {
    const SECOND_US: i64 = 1_000_000;
    let set = |shard: &mut Shard, index: u64, now_us: i64| {
        let (expiry, condition, return_old) = (NewExpiry::Never, Condition::Always, false);
        let mut entry = EntryBuilder::default();
        let value = Value::Bytes(b"value");
        entry.push(&Command::Set { key: b"key", value, expiry, condition, return_old }, now_us);
        shard.apply(Index(index), &entry.take(), |_, _| {}).unwrap();
    };
    let word = |shard: &Shard| {
        let mut words = Vec::new();
        shard.sample(9, 5, false, |seen| words.push(seen.access));
        words[0]
    };
    let idle_us = |shard: &Shard, now_us: i64| shard.access_clock(now_us).idle_us(word(shard));
    let mut shard = Shard::new(ShardId(0), 1, 7);
    set(&mut shard, 1, 10 * SECOND_US);
    assert_eq!(idle_us(&shard, 12 * SECOND_US), 2_000_000, "a new key was used when it was written");
    assert!(shard.get(slot(b"key"), b"key", 15 * SECOND_US).is_some());
    assert_eq!(idle_us(&shard, 16 * SECOND_US), 1_000_000, "a read is a use");
    set(&mut shard, 2, 20 * SECOND_US);
    assert_eq!(idle_us(&shard, 20 * SECOND_US), 0, "and so is a write");
    assert!(shard.get(slot(b"other"), b"other", 20 * SECOND_US).is_none());
    assert_eq!(shard.hits_and_misses(), (1, 1));

    let mut shard = Shard::new(ShardId(0), 1, 7);
    shard.set_tracking(Policy::AllKeysLfu.tracking(10, 1));
    set(&mut shard, 1, 10 * SECOND_US);
    let frequency = |shard: &Shard| shard.access_clock(20 * SECOND_US).frequency(word(shard)).unwrap();
    assert_eq!(frequency(&shard), 5, "a new key is not the first to go");
    shard.get(slot(b"key"), b"key", 15 * SECOND_US);
    assert_eq!(frequency(&shard), 6);
}

/// A cache of a fixed number of keys, filled on a miss.
struct Cache {
    policy: Policy,
    samples: usize,
    keys: Vec<(u64, u32)>,
    places: HashMap<u64, usize>,
    pool: Pool,
    dice: Dice,
    capacity: usize,
}

impl Cache {
    fn new(policy: Policy, samples: usize, capacity: usize) -> Self {
        let (keys, places, pool) = (Vec::new(), HashMap::new(), Pool::default());
        Self { policy, samples, keys, places, pool, dice: Dice::new(11), capacity }
    }

    /// Whether `key` was there.
    fn ask(&mut self, key: u64, clock: &AccessClock) -> bool {
        let random = self.dice.roll() as u32;
        if let Some(&at) = self.places.get(&key) {
            self.keys[at].1 = clock.touched(self.keys[at].1, random);
            return true;
        }
        if self.keys.len() == self.capacity {
            self.evict(clock);
        }
        self.places.insert(key, self.keys.len());
        self.keys.push((key, clock.created()));
        false
    }

    fn evict(&mut self, clock: &AccessClock) {
        loop {
            let start = self.dice.below(self.keys.len() as u64) as usize;
            for step in 0..self.samples {
                let (key, word) = self.keys[(start + step) % self.keys.len()];
                let fitness = self.policy.fitness(clock, word, None);
                offer(&mut self.pool, key, fitness);
            }
            let Some(best) = self.pool.take_best() else { continue };
            let Some(at) = self.places.remove(&best.version.0) else { continue };
            self.keys.swap_remove(at);
            if let Some((moved, _)) = self.keys.get(at) {
                self.places.insert(*moved, at);
            }
            return;
        }
    }
}

/// Keys with the probability of `1 / rank`, by inversion of the harmonic sum; ranks scattered over the numbers.
fn zipf(dice: &mut Dice, keys: u64) -> u64 {
    let uniform = dice.below(1 << 53) as f64 / (1_u64 << 53) as f64;
    let rank = ((keys as f64).powf(uniform)) as u64;
    rank.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The share of requests that are answered from a cache of `capacity`, after it has filled.
fn hit_share(policy: Policy, samples: usize, capacity: usize, log_us: i64) -> f64 {
    const REQUESTS: u32 = 300_000;
    let mut cache = Cache::new(policy, samples, capacity);
    let mut dice = Dice::new(5);
    let mut hits = 0;
    for request in 0..REQUESTS {
        let clock = AccessClock::new(policy.tracking(10, 1), i64::from(request) * log_us);
        let hit = cache.ask(zipf(&mut dice, 100_000), &clock);
        hits += u32::from(hit && request >= REQUESTS / 3);
    }
    f64::from(hits) / f64::from(REQUESTS - REQUESTS / 3)
}

#[test]
fn each_policy_is_worth_its_name_on_a_skewed_workload() {
    // A request every 10 ms: the recency clock tells them all apart. Counters would forget too much in that time.
    let random = hit_share(Policy::AllKeysRandom, 5, 5_000, 10_000);
    let lru = hit_share(Policy::AllKeysLru, 5, 5_000, 10_000);
    let lfu = hit_share(Policy::AllKeysLfu, 5, 5_000, 100);
    assert!(random > 0.5 && lru > random + 0.01 && lfu > lru + 0.01, "random {random} lru {lru} lfu {lfu}");
    let nearly_exact = hit_share(Policy::AllKeysLru, 64, 5_000, 10_000);
    assert!(nearly_exact - lru < 0.01, "with five samples {lru}, with many {nearly_exact}");
}
