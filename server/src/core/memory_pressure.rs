//! Acting upon the memory's level: the ledger is taken, room is made, keys are evicted.
//!
//! Place in the flow: at the begin of a turn, and in step 3 (admit), where a write finds no room.
//!
//! ```text
//! begin of a turn   ledger ─► board ─► judgement ─► room for this turn's writes
//!                                          └─► over the high threshold: evict, at most EVICTIONS_PER_TURN keys
//! a write           no room left? evict what it takes, at most EVICTIONS_PER_WRITE keys ─► admit, or OUT_OF_MEMORY
//! ```
//!
//! An eviction is a command in the log like any other: it frees memory when its entry is applied. Until then its bytes
//! are counted as on their way (`replication/foreseen.rs`), so that the same room is not made twice; and what writes on
//! their way will take is counted as taken. So writes and evictions balance each other within a turn, however long the
//! disk takes.
//!
//! A write that pays for its own room makes eviction as fast as the flood that needs it, without a turn that is as long
//! as the flood is large: both are bounded together, by what a turn reads.

use std::time::{Duration, Instant};

use eyot_protocol::key::slot;

use super::{Shared, Work};
use crate::memory::ledger::Foreseen;
use crate::memory::pressure::Situation;
use crate::memory::{CoreMemory, Ledger, Level, Overhead, Pressure, ProcessMemory};
use crate::metrics::Metrics;
use crate::replication::ShardDriver;
use crate::shard::access::{AccessClock, Tracking};
use crate::shard::eviction::{Candidate, Dice, Policy, Pool};

/// Keys that a turn evicts by itself, beside what writes demand: a fraction of a millisecond.
pub const EVICTIONS_PER_TURN: usize = 512;
/// Keys that are evicted for one write. A larger one that needs more is refused, and what it needs is made between
/// turns, so that it may enter when it is sent again.
pub const EVICTIONS_PER_WRITE: usize = 1024;
/// What is evicted at a time, in bytes: a dozen small keys, whose memory is then fetched together.
const EVICTED_AT_ONCE_BYTES: u64 = 2048;
/// How often the server's log is told of a change of the level at most.
const LEVEL_WORDS_INTERVAL: Duration = Duration::from_secs(10);
/// Choices that are tried for one victim: candidates may be gone, used again, or on their way out.
const ATTEMPTS_PER_EVICTION: usize = 16;

/// A core's memory at work.
#[derive(Debug)]
pub(super) struct MemoryWork {
    ledger: Ledger,
    pressure: Pressure,
    policy: Policy,
    tracking: Tracking,
    pool: Pool,
    dice: Dice,
    /// What the core has from its start.
    fixed_bytes: u64,
    /// What the kernel says, on the one core that asks.
    process: Option<ProcessMemory>,
    overhead: Overhead,
    next_look: Instant,
    /// When spare buffers may next be given back.
    next_cleanup: Instant,
    /// When the log may next be told of a level.
    next_word: Instant,
    /// The largest write that was refused for want of room that may still be made.
    wanted: u64,
    /// Whether the last turn could not evict all that it should have, and could go on.
    unfinished: bool,
    evictions: [u64; Policy::ALL.len()],
}

impl MemoryWork {
    /// Of core `core`, before its first turn. `seed` decides where samples are taken.
    pub(super) fn new(shared: &Shared, core: u16, seed: u64, shards: &[ShardDriver], metrics: &Metrics) -> Self {
        let ring = eyot_ring::RingOptions::default();
        let fixed_bytes = usize::from(ring.receive_buffers) * ring.receive_buffer_bytes
            + metrics.memory_bytes()
            + shards.iter().map(ShardDriver::fixed_bytes).sum::<usize>();
        let looks = core == 0 && shared.settings.memory.monitoring;
        Self {
            ledger: Ledger::default(),
            pressure: Pressure::default(),
            policy: shared.tunables.eviction_policy(),
            tracking: shared.tunables.tracking(),
            pool: Pool::default(),
            dice: Dice::new(seed),
            fixed_bytes: fixed_bytes as u64,
            process: if looks { ProcessMemory::open() } else { None },
            overhead: Overhead::default(),
            next_look: shared.started,
            next_cleanup: shared.started,
            next_word: shared.started,
            wanted: 0,
            unfinished: false,
            evictions: [0; Policy::ALL.len()],
        }
    }

    /// Whether a turn would find keys to evict.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.unfinished
    }

    /// Whether room has to be made.
    pub(super) fn is_high(&self) -> bool {
        self.pressure.level >= Level::High
    }
}

impl Work {
    /// Takes the ledger, judges it, and makes room if it must.
    pub(super) fn review_memory(&mut self) {
        let tracking = self.shared.tunables.tracking();
        self.memory.policy = self.shared.tunables.eviction_policy();
        if tracking != self.memory.tracking {
            self.memory.tracking = tracking;
            self.memory.pool.clear();
            self.shards.iter_mut().for_each(|driver| driver.set_tracking(tracking));
        }
        self.memory.ledger = self.take_ledger();
        let (charged, foreseen) = (self.memory.ledger.charged(), self.foreseen());
        let of_files = self.memory.ledger.large_values;
        let board = &self.shared.memory;
        let own = foreseen.of(charged);
        // What is taken is compared with the kernel's figure of private memory, in which pages of files are not.
        board.publish(self.core, charged - of_files, own);
        self.look_at_process();
        let board = &self.shared.memory;
        let situation = Situation {
            limit: self.shared.tunables.max_memory_bytes(),
            overhead: board.overhead(),
            own,
            node: board.foreseen(),
            core_count: board.core_count(),
        };
        let before = self.memory.pressure.level;
        self.memory.pressure = Pressure::judge(&situation, self.shared.settings.memory.thresholds);
        self.budget.room_bytes = self.memory.pressure.room;
        if self.memory.pressure.level != before {
            self.level_changed(before);
        }
        self.drop_spares();
        self.memory.unfinished = false;
        if self.memory.policy.evicts() && self.memory.is_high() {
            self.evict_in_turn(&situation);
        }
    }

    /// Compares the ledgers with what the kernel says, if it is time and this is the core that does.
    fn look_at_process(&mut self) {
        let now = self.clock.now();
        let Some(process) = self.memory.process.as_ref().filter(|_| now >= self.memory.next_look) else { return };
        self.memory.next_look = now + self.shared.settings.memory.check_interval;
        if let Some(resident) = process.read() {
            let board = &self.shared.memory;
            let overhead = self.memory.overhead.learn(resident.private, board.taken());
            board.note_resident(resident.total, overhead);
        }
    }

    /// At the limit, gives back now and then what is only kept for reuse.
    fn drop_spares(&mut self) {
        let (settings, now) = (&self.shared.settings.memory, self.clock.now());
        if self.memory.pressure.level == Level::Over && settings.auto_cleanup && now >= self.memory.next_cleanup {
            self.memory.next_cleanup = now + settings.check_interval;
            self.shards.iter_mut().for_each(ShardDriver::drop_spares);
            self.mesh.drop_spares();
        }
    }

    fn level_changed(&mut self, before: Level) {
        let settings = &self.shared.settings.memory;
        let Pressure { level, limit, .. } = self.memory.pressure;
        if settings.auto_cleanup {
            self.connections.pool_mut().set_level(level);
        }
        // At a threshold the level may change with every turn: what the log says of it is bounded.
        let now = self.clock.now();
        if settings.monitoring && self.core == 0 && now >= self.memory.next_word {
            self.memory.next_word = now + LEVEL_WORDS_INTERVAL;
            let (used, resident) = (self.shared.memory.foreseen(), self.shared.memory.resident());
            tracing::info!(level = level.name(), before = before.name(), used, limit, resident, "memory");
        }
    }

    /// What this core has now, by category.
    fn take_ledger(&self) -> Ledger {
        let mut ledger = Ledger { fixed: self.memory.fixed_bytes, ..Ledger::default() };
        for driver in &self.shards {
            let (all, entries) = (driver.shard().memory_bytes() as u64, driver.shard().entry_bytes() as u64);
            let large_values = driver.shard().large_value_bytes() as u64;
            ledger.entries += entries - large_values;
            ledger.large_values += large_values;
            ledger.table += all - entries;
            ledger.log_tail += driver.log_bytes() as u64;
            ledger.in_flight += driver.waiting_read_bytes() as u64;
        }
        // What is warm for the next values is not counted: an eviction would free nothing, and others would follow it
        // for nothing. It is the kernel's to take back, and the file's to give back soon.
        ledger.large_values += self.arriving_bytes();
        ledger.log_tail += (self.log.memory_bytes() + self.snapshots.memory_bytes()) as u64;
        ledger.connections = self.connections.memory_bytes() as u64;
        ledger.in_flight += (self.mesh.memory_bytes() + self.gathers.memory_bytes()) as u64;
        ledger.in_flight += (self.sliced.memory_bytes() + self.walks.memory_bytes()) as u64;
        ledger
    }

    fn foreseen(&self) -> Foreseen {
        let each = self.shards.iter().map(|driver| driver.unapplied_memory().foreseen());
        each.fold(Foreseen::default(), |sum, one| Foreseen {
            growing: sum.growing + one.growing,
            evicting: sum.evicting + one.evicting,
        })
    }

    /// Makes the room that this core should make without a write's asking, as far as a turn may.
    fn evict_in_turn(&mut self, situation: &Situation) {
        let Pressure { room, to_evict, limit, .. } = self.memory.pressure;
        if self.memory.wanted <= room {
            self.memory.wanted = 0;
        }
        let bytes = to_evict.max(self.memory.wanted.saturating_sub(room)).min(situation.own);
        if bytes == 0 {
            self.wake_larger_cores(limit);
            return;
        }
        let freed = self.evict(bytes, EVICTIONS_PER_TURN);
        self.budget.room_bytes += freed;
        self.memory.unfinished = freed > 0 && freed < bytes;
    }

    /// The node is short of memory, and this core has no more than its share: those that have, and sleep, are to know.
    fn wake_larger_cores(&self, limit: u64) {
        let board = &self.shared.memory;
        let fair_share = limit / board.core_count();
        for (foreseen, waker) in board.foreseen_by_core().zip(&self.shared.wakers) {
            if foreseen > fair_share {
                waker.wake();
            }
        }
    }

    /// Whether evictions might make room for `bytes` bit by bit: there are some, and the limit is not below it.
    pub(super) fn may_make_room(&self, bytes: usize) -> bool {
        self.memory.policy.evicts() && (bytes as u64) < self.memory.pressure.limit
    }

    /// Makes room for a write that takes `growth` bytes, if there is none and the policy allows.
    #[inline]
    pub(super) fn make_room(&mut self, growth: usize) {
        if growth as u64 > self.budget.room_bytes && self.memory.policy.evicts() {
            self.evict_for_write(growth as u64);
        }
    }

    #[cold]
    fn evict_for_write(&mut self, growth: u64) {
        let missing = growth - self.budget.room_bytes;
        self.budget.room_bytes += self.evict(missing.max(EVICTED_AT_ONCE_BYTES), EVICTIONS_PER_WRITE);
        // What can never fit is not worth a key.
        if growth > self.budget.room_bytes && growth < self.memory.pressure.limit / 2 {
            self.memory.wanted = self.memory.wanted.max(growth);
        }
    }

    /// Evicts until `bytes` are on their way out, or `keys_max` keys, or nothing is found that may go. Returns the
    /// bytes.
    fn evict(&mut self, bytes: u64, keys_max: usize) -> u64 {
        let mut freed = 0;
        if self.budget.blocked.is_some() {
            return freed;
        }
        for _ in 0..keys_max {
            if freed >= bytes {
                break;
            }
            let Some(one) = self.evict_one() else { break };
            freed += one;
        }
        freed
    }

    fn evict_one(&mut self) -> Option<u64> {
        let now_us = self.clock.wall_us();
        let (policy, clock) = (self.memory.policy, AccessClock::new(self.memory.tracking, now_us));
        for _ in 0..ATTEMPTS_PER_EVICTION {
            if !self.sample(&clock) {
                return None;
            }
            let Some(candidate) = self.memory.pool.take_best() else { continue };
            let Candidate { local_shard, place, version, .. } = candidate;
            let driver = &mut self.shards[usize::from(local_shard)];
            let Some(victim) = driver.shard().eviction_candidate(place, version) else { continue };
            let fitness = policy.fitness(&clock, victim.access, victim.expires_at_us);
            // Used since it was seen: another is better now.
            if policy.compares() && self.memory.pool.best_fitness().is_some_and(|best| best > fitness) {
                self.memory.pool.offer(local_shard, version, fitness, || place);
                continue;
            }
            let was_open = driver.has_open_entry();
            let Some(bytes) = driver.evict(place, version, now_us) else { continue };
            if !was_open {
                self.open_shards.push(local_shard);
            }
            self.seal_if_full(local_shard);
            self.memory.evictions[usize::from(policy.number())] += 1;
            return Some(bytes as u64);
        }
        None
    }

    /// Offers some keys of one of the shards, chosen by chance and by how many keys it has, to the pool. Returns
    /// whether there are any that may go.
    fn sample(&mut self, clock: &AccessClock) -> bool {
        let Self { shards, memory, shared, .. } = self;
        let policy = memory.policy;
        let eligible = |driver: &ShardDriver| {
            let shard = driver.shard();
            if policy.expiring_only() {
                shard.expiring_key_count()
            } else {
                shard.key_count()
            }
        };
        let keys: usize = shards.iter().map(eligible).sum();
        if keys == 0 {
            return false;
        }
        let mut at = memory.dice.below(keys as u64) as usize;
        let chosen = shards.iter().position(|driver| {
            let own = eligible(driver);
            let found = at < own;
            at = at.saturating_sub(own);
            found
        });
        let local_shard = chosen.expect("a number below the sum of all");
        let count = if policy.compares() { shared.tunables.eviction_samples() } else { 1 };
        let (shard, unapplied) = (shards[local_shard].shard(), shards[local_shard].unapplied_memory());
        shard.sample(memory.dice.roll(), count, policy.expiring_only(), |sample| {
            // Those on their way out are the fittest of all, and would crowd out the others.
            if !unapplied.may_evict(sample.version) {
                return;
            }
            let fitness = policy.fitness(clock, sample.access, sample.expires_at_us);
            let place = || shard.place(slot(sample.key), sample.key);
            memory.pool.offer(local_shard as u16, sample.version, fitness, place);
        });
        true
    }

    /// What a report says of this core's memory.
    pub(super) fn core_memory(&self) -> CoreMemory {
        let mut memory = CoreMemory {
            ledger: self.take_ledger(),
            foreseen: self.foreseen(),
            pressure: self.memory.pressure,
            evictions: self.memory.evictions,
            buffer_pool: self.connections.pool().figures(),
            ..CoreMemory::default()
        };
        for driver in &self.shards {
            let unapplied = driver.unapplied_memory();
            memory.evicted += unapplied.evicted();
            memory.expired += unapplied.expired();
            let (hits, misses) = driver.shard().hits_and_misses();
            memory.hits += hits;
            memory.misses += misses;
        }
        memory
    }
}
