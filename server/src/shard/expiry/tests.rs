//! Tests of the wheel: single behaviours, then random operations against a plain list of timers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TICK_US: i64 = 1 << TICK_SHIFT;
const NOW_US: i64 = 1_700_000_000_000_000;
const SECOND_US: i64 = 1_000_000;
const YEAR_US: i64 = 365 * 24 * 3600 * SECOND_US;

/// A wheel, and the timers' expiries as the entries of a shard would know them.
struct Timers {
    wheel: Wheel,
    expiries: BTreeMap<u32, i64>,
}

impl Timers {
    fn new() -> Self {
        Self { wheel: Wheel::new(), expiries: BTreeMap::new() }
    }

    fn insert(&mut self, expires_at_us: i64, now_us: i64) -> TimerId {
        let timer = self.wheel.insert(expires_at_us, Place::default(), now_us);
        assert_eq!(self.expiries.insert(timer.0, expires_at_us), None, "a name was given twice");
        check(&self.wheel);
        timer
    }

    fn rearm(&mut self, timer: TimerId, expires_at_us: i64) {
        self.wheel.rearm(timer, expires_at_us);
        self.expiries.insert(timer.0, expires_at_us);
        check(&self.wheel);
    }

    fn remove(&mut self, timer: TimerId) {
        self.wheel.remove(timer);
        self.expiries.remove(&timer.0);
        check(&self.wheel);
    }

    /// All timers that one sweep offers, in the order of their names.
    fn sweep(&mut self, now_us: i64, budget: usize) -> Vec<u32> {
        let (mut offered, mut asked) = (Vec::new(), 0);
        let count = self.wheel.sweep(now_us, budget, |timer, _| {
            asked += 1;
            let expires_at_us = self.expiries[&timer.0];
            if expires_at_us > now_us {
                return Due::NotBefore { expires_at_us };
            }
            offered.push(timer.0);
            Due::Offered
        });
        assert_eq!(count, offered.len());
        assert!(asked <= budget);
        check(&self.wheel);
        offered.sort_unstable();
        offered
    }
}

/// Everything that must hold between two calls.
fn check(wheel: &Wheel) {
    let mut listed = 0;
    for list in 0..LEVELS * LEVEL_SLOTS {
        let (level, slot) = (list / LEVEL_SLOTS, list % LEVEL_SLOTS);
        let head = wheel.heads[list];
        assert_eq!(head != END, wheel.occupied[level] >> slot & 1 == 1, "the mask of list {list}");
        let (mut id, mut prev) = (head, END);
        while id != END {
            let node = wheel.node(id);
            assert_eq!((usize::from(node.list), node.prev), (list, prev));
            (prev, id) = (id, node.next);
            listed += 1;
            assert!(listed <= wheel.timers, "a list goes round");
        }
        if head != END {
            let digit = (wheel.tick >> (LEVEL_BITS * level as u32)) as usize % LEVEL_SLOTS;
            assert!(slot >= digit, "list {list} lies before the wheel's tick {}", wheel.tick);
        }
    }
    assert_eq!(listed, wheel.timers);
    let (mut free, mut id) = (0, wheel.free);
    while id != END {
        assert_eq!(wheel.node(id).list, NO_LIST);
        id = wheel.node(id).next;
        free += 1;
    }
    assert_eq!(free + listed, wheel.chunks.len() * CHUNK_NODES);
}

#[test]
fn a_timer_is_offered_at_its_time_and_not_before() {
    for delay_us in [0, 1, TICK_US, 5 * SECOND_US, 3600 * SECOND_US, YEAR_US, 1000 * YEAR_US] {
        let mut timers = Timers::new();
        let expires_at_us = NOW_US + delay_us;
        let timer = timers.insert(expires_at_us, NOW_US);
        let before = timers.sweep(expires_at_us - 1, 1000);
        assert!(before.is_empty(), "{delay_us} µs too early");
        assert_eq!(timers.sweep(expires_at_us + TICK_US, 1000), [timer.0], "after {delay_us} µs");
    }
}

#[test]
fn sleeping_until_the_next_event_reaches_every_timer_in_few_steps() {
    let mut timers = Timers::new();
    let expires_at_us = NOW_US + 1000 * YEAR_US;
    timers.insert(expires_at_us, NOW_US);
    let mut sleeps = 0;
    loop {
        let now_us = timers.wheel.next_event_us().unwrap();
        assert!(now_us < expires_at_us + TICK_US);
        if !timers.sweep(now_us, 1000).is_empty() {
            assert!(now_us >= expires_at_us);
            break;
        }
        sleeps += 1;
    }
    assert!(sleeps <= LEVELS, "{sleeps} sleeps");
}

#[test]
fn an_offered_timer_comes_again_after_the_retry_interval_and_not_before() {
    let mut timers = Timers::new();
    let timer = timers.insert(NOW_US, NOW_US);
    let first_us = NOW_US + TICK_US;
    assert_eq!(timers.sweep(first_us, 10), [timer.0]);
    let retry_us = first_us + RETRY_TICKS as i64 * TICK_US;
    assert!(timers.sweep(first_us, 10).is_empty());
    assert!(timers.sweep(retry_us - TICK_US, 10).is_empty());
    assert_eq!(timers.sweep(retry_us, 10), [timer.0]);
    timers.remove(timer);
    assert!(timers.sweep(retry_us + YEAR_US, 10).is_empty());
    assert_eq!((timers.wheel.timers(), timers.wheel.next_event_us()), (0, None));
}

#[test]
fn a_clock_that_jumps_far_ahead_costs_no_more_than_the_budget_and_loses_nothing() {
    let mut timers = Timers::new();
    for n in 0..1000 {
        timers.insert(NOW_US + n * n * SECOND_US, NOW_US);
    }
    let later_us = NOW_US + 200 * YEAR_US;
    let mut offered = 0;
    let mut calls = 0;
    while offered < 1000 {
        let now = timers.sweep(later_us, 7).len();
        assert!(now <= 7);
        offered += now;
        calls += 1;
        // With every step a timer comes down a level or is offered, and after that it may come down again.
        assert!(calls * 7 <= 1000 * 2 * LEVELS, "more steps than there is work");
    }
    assert!(timers.sweep(later_us, 1000).is_empty(), "none is offered twice within the retry interval");
}

#[test]
fn a_clock_that_jumped_ahead_and_back_offers_timers_at_their_time() {
    let mut timers = Timers::new();
    let early = timers.insert(NOW_US + 10 * SECOND_US, NOW_US);
    let late_us = NOW_US + 150 * YEAR_US;
    let late = timers.insert(late_us, NOW_US);
    assert_eq!(timers.sweep(NOW_US + 100 * YEAR_US, 100), [early.0]);
    timers.remove(early);
    // Back to the right time: new timers must not wait for a hundred years, old ones must not come early.
    let now_us = NOW_US + SECOND_US;
    assert!(timers.sweep(now_us, 100).is_empty());
    let soon = timers.insert(now_us + SECOND_US, now_us);
    assert!(timers.sweep(now_us + SECOND_US - 1, 100).is_empty());
    assert_eq!(timers.sweep(now_us + SECOND_US + TICK_US, 100), [soon.0]);
    timers.remove(soon);
    assert!(timers.sweep(late_us - 1, 100).is_empty());
    assert_eq!(timers.sweep(late_us + TICK_US, 100), [late.0]);
}

#[test]
fn the_ends_of_time_are_times_too() {
    let mut timers = Timers::new();
    timers.insert(i64::MAX, i64::MIN);
    let last = timers.insert(i64::MAX - TICK_US, i64::MIN);
    let always = timers.insert(i64::MIN, i64::MIN);
    assert_eq!(timers.sweep(i64::MIN, 100), [always.0]);
    timers.remove(always);
    for now_us in [i64::MAX - 2 * TICK_US, i64::MIN, i64::MAX - 2 * TICK_US, 0, NOW_US] {
        assert!(timers.sweep(now_us, 100).is_empty());
    }
    assert_eq!(timers.sweep(i64::MAX, 100), [last.0]);
}

#[test]
fn memory_is_that_of_the_most_timers_at_once() {
    let mut timers = Timers::new();
    let empty_bytes = timers.wheel.memory_bytes();
    for round in 0..1000 {
        let set: Vec<_> = (0..300).map(|n| timers.insert(NOW_US + n * YEAR_US, NOW_US + round)).collect();
        for timer in set {
            timers.remove(timer);
        }
    }
    assert_eq!(timers.wheel.chunks.len(), 2);
    assert!(timers.wheel.memory_bytes() - empty_bytes < 2 * (CHUNK_NODES + 1) * size_of::<Node>());
}

#[test]
#[should_panic(expected = "the timer is not set")]
fn removing_a_timer_twice_is_a_bug() {
    let mut timers = Timers::new();
    timers.insert(NOW_US, NOW_US);
    let timer = timers.insert(NOW_US, NOW_US);
    timers.remove(timer);
    timers.remove(timer);
}

#[derive(Debug, Clone)]
enum Step {
    Insert { delay_us: i64 },
    Rearm { which: usize, delay_us: i64 },
    Remove { which: usize },
    Advance { by_us: i64 },
    Sweep { budget: usize },
}

/// Delays and clock jumps of every size, in both directions.
fn difference_us() -> impl Strategy<Value = i64> {
    (0..45_u32, 0..1000_i64, any::<bool>()).prop_map(|(shift, mantissa, back)| {
        let magnitude = mantissa << shift >> 10;
        if back {
            -magnitude / 8
        } else {
            magnitude
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => difference_us().prop_map(|delay_us| Step::Insert { delay_us }),
        2 => (any::<usize>(), difference_us()).prop_map(|(which, delay_us)| Step::Rearm { which, delay_us }),
        2 => any::<usize>().prop_map(|which| Step::Remove { which }),
        4 => difference_us().prop_map(|by_us| Step::Advance { by_us }),
        6 => (0..40_usize).prop_map(|budget| Step::Sweep { budget }),
    ]
}

proptest! {
    /// The model: each timer's expiry, and the clock at its last offer if there was one.
    #[test]
    fn sweeps_offer_what_has_expired_and_nothing_else(steps in proptest::collection::vec(step(), 1..120)) {
        let mut timers = Timers::new();
        let mut now_us = NOW_US;
        for step in steps {
            let nth = |which: usize, expiries: &BTreeMap<u32, i64>| {
                expiries.keys().nth(which % expiries.len().max(1)).copied()
            };
            match step {
                Step::Insert { delay_us } => {
                    timers.insert(now_us + delay_us, now_us);
                }
                Step::Rearm { which, delay_us } => if let Some(id) = nth(which, &timers.expiries) {
                    timers.rearm(TimerId(id), now_us + delay_us);
                },
                Step::Remove { which } => if let Some(id) = nth(which, &timers.expiries) {
                    timers.remove(TimerId(id));
                },
                Step::Advance { by_us } => now_us = now_us.saturating_add(by_us).max(0),
                Step::Sweep { budget } => {
                    let offered = timers.sweep(now_us, budget);
                    prop_assert!(offered.len() <= budget);
                    for id in offered {
                        prop_assert!(timers.expiries[&id] <= now_us, "offered too early");
                    }
                }
            }
            prop_assert_eq!(timers.wheel.timers(), timers.expiries.len());
            prop_assert_eq!(timers.wheel.next_event_us().is_some(), !timers.expiries.is_empty());
        }
        // Whatever happened before: with enough budget, and the retry interval past, exactly what has expired is
        // offered. (The first sweep tells the wheel if the clock went back.)
        timers.sweep(now_us, 0);
        now_us += (RETRY_TICKS as i64 + 1) * TICK_US;
        let offered = timers.sweep(now_us, (timers.expiries.len() + 1) * 3 * LEVELS);
        let has_come_up = |at_us: i64| at_us <= now_us - TICK_US;
        let expired = timers.expiries.iter().filter(|(_, &at_us)| has_come_up(at_us)).map(|(&id, _)| id);
        for id in expired {
            prop_assert!(offered.contains(&id), "timer {} was not offered", id);
        }
        prop_assert!(offered.iter().all(|id| timers.expiries[id] <= now_us), "offered too early");
    }
}
