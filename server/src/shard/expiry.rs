//! The expiry wheel: finds the keys whose time has passed without looking at the others.
//!
//! Place in the flow: step 8 (apply) sets, moves and removes timers; between turns the shard's sweep advances the wheel
//! and offers what is due, so that the leader logs its removal. What a client sees never depends on the wheel: reads
//! judge expiry by themselves.
//!
//! ```text
//! level 0   64 slots of one tick each         (65.5 ms; together 4.2 s)
//! level 1   64 slots of 64 ticks each         (together 4.5 min)
//! ...
//! level 8   64 slots of 64^8 ticks each       (together 37 million years)
//! ```
//!
//! A timer stands at the level of the highest 6-bit digit in which its due tick differs from the wheel's own tick, in
//! the slot of that digit. So all timers of a level share their higher digits with the wheel, the first occupied slot
//! of a level is found from one 64-bit mask, and the next tick at which anything happens from nine of them, however far
//! it is.
//!
//! Invariants:
//! - Setting, moving and removing a timer takes constant time. A timer's node is freed when the timer is removed; nodes
//!   are kept for the next timers, so the memory is that of the most timers that ever lived at once.
//! - Every step of a sweep moves or offers one timer, and is counted: a sweep ends after its budget, wherever the clock
//!   jumped.
//! - A timer comes up at most one tick late while budgets suffice.
//! - The wheel's own tick never goes back while there are timers. When the clock does, the difference goes into
//!   `skew_ticks`: timers that come up too early by it are answered with their expiry and put where they belong.
//!
//! Deliberately not here: keys. A timer names its key's place in the tables; the entry names its timer.

use super::table::Place;

/// One tick is `2^TICK_SHIFT` microseconds, 65.5 ms: the most that the memory of an expired key is kept longer than
/// needed.
const TICK_SHIFT: u32 = 16;

/// Bits of a tick that one level tells apart.
const LEVEL_BITS: u32 = 6;
const LEVEL_SLOTS: usize = 1 << LEVEL_BITS;

/// Enough levels for every time that an `i64` of microseconds can say (47 bits of ticks), even after the clock went
/// from the end of time to its beginning a hundred times while there were timers.
const LEVELS: usize = 9;

/// The last tick that the levels can tell apart; later ones are taken for it.
const LAST_TICK: u64 = (1 << (LEVEL_BITS * LEVELS as u32)) - 1;
const _: () = assert!((i64::MAX as u64 >> TICK_SHIFT) * 100 < LAST_TICK);

/// A timer that was offered is offered again after so many ticks (about a second) unless its key was removed: long
/// enough for a removal to be logged, written and applied; short enough to repair one that was refused.
pub(super) const RETRY_TICKS: u64 = 16;

/// How many nodes a random pick tries before it takes a timer that is due soon.
const PICK_TRIES: u64 = 16;

/// Nodes come in chunks, so that a growing wheel never copies all of them at once.
const CHUNK_NODES: usize = 256;

/// The end of a list of nodes.
const END: u32 = u32::MAX;

/// Names a timer of the wheel, until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimerId(pub u32);

impl TimerId {
    /// Stands for "no timer"; never names one.
    pub const NONE: Self = Self(END);
}

/// One timer, or one link of the list of free nodes (which uses `next` alone).
#[derive(Debug, Clone, Copy)]
struct Node {
    /// The wheel's tick at which it is to be offered.
    due_tick: u64,
    place: Place,
    list: u16,
    prev: u32,
    next: u32,
}

/// What one timer takes.
pub(super) const TIMER_BYTES: usize = size_of::<Node>();

/// What the owner of a timer answers when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The key was offered for removal.
    Offered,
    /// Its expiry has not passed: the clock went back since the timer was set.
    NotBefore {
        /// When it passes, in microseconds since the epoch.
        expires_at_us: i64,
    },
}

/// `list` of a node that is in none.
const NO_LIST: u16 = u16::MAX;

#[derive(Debug)]
pub(super) struct Wheel {
    /// `heads[level * 64 + slot]`: the first node of that slot's list.
    heads: Box<[u32; LEVELS * LEVEL_SLOTS]>,
    /// Bit `slot` of `occupied[level]`: that slot's list is not empty.
    occupied: [u64; LEVELS],
    chunks: Vec<Box<[Node; CHUNK_NODES]>>,
    free: u32,
    timers: usize,
    /// The wheel's own time: every slot before this tick is empty.
    tick: u64,
    /// The latest tick that a sweep advanced to, or set out for when its budget did not suffice.
    latest_tick: u64,
    /// How many ticks the wheel's own time is ahead of the clock, because the clock went back.
    skew_ticks: u64,
}

impl Wheel {
    pub fn new() -> Self {
        Self {
            heads: Box::new([END; LEVELS * LEVEL_SLOTS]),
            occupied: [0; LEVELS],
            chunks: Vec::new(),
            free: END,
            timers: 0,
            tick: 0,
            latest_tick: 0,
            skew_ticks: 0,
        }
    }

    /// How many timers there are.
    pub fn timers(&self) -> usize {
        self.timers
    }

    /// Makes the wheel a new one, and returns the nodes of all its timers: their names mean nothing any more.
    pub fn take_all(&mut self) -> Nodes {
        Nodes(std::mem::replace(self, Self::new()).chunks)
    }

    /// Bytes of nodes and lists.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.heads)
            + self.chunks.len() * size_of::<[Node; CHUNK_NODES]>()
            + self.chunks.capacity() * size_of::<Box<[Node; CHUNK_NODES]>>()
    }

    /// Sets a timer for the key at `place`. `now_us` tells an empty wheel where to stand; it decides nothing else.
    pub fn insert(&mut self, expires_at_us: i64, place: Place, now_us: i64) -> TimerId {
        if self.timers == 0 {
            self.restart(now_us);
        }
        if self.free == END {
            self.add_chunk();
        }
        let id = self.free;
        let node = self.node_mut(id);
        let next_free = node.next;
        *node = Node { due_tick: 0, place, list: NO_LIST, prev: END, next: END };
        self.free = next_free;
        self.timers += 1;
        self.link(id, self.due_tick(expires_at_us));
        TimerId(id)
    }

    /// Moves a timer to another time.
    pub fn rearm(&mut self, timer: TimerId, expires_at_us: i64) {
        self.unlink(timer.0);
        self.link(timer.0, self.due_tick(expires_at_us));
    }

    /// Removes a timer. Its name may name another one from now on.
    pub fn remove(&mut self, timer: TimerId) {
        self.unlink(timer.0);
        let free = self.free;
        self.node_mut(timer.0).next = free;
        self.free = timer.0;
        self.timers -= 1;
    }

    /// A timer, all about equally likely if `at` is any number; `None` when there are none.
    pub fn pick(&self, at: u64) -> Option<(TimerId, Place)> {
        if self.timers == 0 {
            return None;
        }
        let nodes = (self.chunks.len() * CHUNK_NODES) as u64;
        let ids = (0..PICK_TRIES).map(|n| (at.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) % nodes) as u32);
        let set = ids.into_iter().find(|&id| self.node(id).list != NO_LIST);
        // Most nodes are free, so few timers are left: one of those that are due first.
        let id = set.or_else(|| self.next_event().map(|(tick, level)| self.heads[list_of(level, tick)]))?;
        Some((TimerId(id), self.node(id).place))
    }

    /// Advances to `now_us` and asks `due` for every timer whose time has come; returns how many were offered. Stops
    /// after `budget` steps (a timer that `due` was asked for, or that was moved closer), with the rest left for
    /// the next call.
    pub fn sweep(&mut self, now_us: i64, budget: usize, mut due: impl FnMut(TimerId, Place) -> Due) -> usize {
        if self.timers == 0 {
            self.restart(now_us);
            return 0;
        }
        let now_tick = self.clock_tick(now_us);
        let mut offered = 0;
        for _ in 0..budget {
            let Some((tick, level)) = self.next_event().filter(|&(tick, _)| tick <= now_tick) else {
                // Nothing starts before or at this tick, so no timer is passed over.
                self.tick = now_tick;
                return offered;
            };
            self.tick = self.tick.max(tick);
            let id = self.heads[list_of(level, tick)];
            self.unlink(id);
            let Node { due_tick, place, .. } = *self.node(id);
            if due_tick > now_tick {
                self.link(id, due_tick);
                continue;
            }
            match due(TimerId(id), place) {
                Due::Offered => {
                    offered += 1;
                    self.link(id, now_tick + RETRY_TICKS);
                }
                Due::NotBefore { expires_at_us } => {
                    self.link(id, self.due_tick(expires_at_us).max(now_tick + 1));
                }
            }
        }
        offered
    }

    /// The earliest clock time at which [`Wheel::sweep`] has anything to do, in microseconds; `None` without timers.
    pub fn next_event_us(&self) -> Option<i64> {
        let (tick, _) = self.next_event()?;
        Some((tick.saturating_sub(self.skew_ticks) << TICK_SHIFT).min(i64::MAX as u64) as i64)
    }

    /// The earliest tick at which a slot starts that is not empty, and its level.
    fn next_event(&self) -> Option<(u64, usize)> {
        let mut first = None;
        for (level, &occupied) in self.occupied.iter().enumerate() {
            if occupied == 0 {
                continue;
            }
            let shift = LEVEL_BITS * level as u32;
            let above = self.tick >> shift >> LEVEL_BITS << LEVEL_BITS << shift;
            let tick = above | u64::from(occupied.trailing_zeros()) << shift;
            if first.is_none_or(|(first_tick, _)| tick < first_tick) {
                first = Some((tick, level));
            }
        }
        first
    }

    /// An empty wheel can stand anywhere: it forgets where the clock once was.
    fn restart(&mut self, now_us: i64) {
        debug_assert!(self.timers == 0 && self.occupied == [0; LEVELS]);
        self.skew_ticks = 0;
        self.tick = now_us.max(0) as u64 >> TICK_SHIFT;
        self.latest_tick = self.tick;
    }

    /// The wheel's time at the clock's `now_us`; notes it if the clock went back.
    fn clock_tick(&mut self, now_us: i64) -> u64 {
        let clock = now_us.max(0) as u64 >> TICK_SHIFT;
        self.skew_ticks = self.skew_ticks.max(self.latest_tick.saturating_sub(clock));
        self.latest_tick = (clock + self.skew_ticks).min(LAST_TICK);
        self.latest_tick
    }

    /// The first tick at which `expires_at_us` has passed for sure.
    fn due_tick(&self, expires_at_us: i64) -> u64 {
        (expires_at_us.max(0) as u64).div_ceil(1 << TICK_SHIFT) + self.skew_ticks
    }

    fn link(&mut self, id: u32, due_tick: u64) {
        let due_tick = due_tick.clamp(self.tick, LAST_TICK);
        let level = (due_tick ^ self.tick).checked_ilog2().unwrap_or(0) / LEVEL_BITS;
        let list = list_of(level as usize, due_tick);
        let head = std::mem::replace(&mut self.heads[list], id);
        if head != END {
            self.node_mut(head).prev = id;
        }
        let node = self.node_mut(id);
        debug_assert!(node.list == NO_LIST, "the timer is in a list already");
        *node = Node { due_tick, list: list as u16, prev: END, next: head, ..*node };
        self.occupied[list / LEVEL_SLOTS] |= 1 << (list % LEVEL_SLOTS);
    }

    fn unlink(&mut self, id: u32) {
        let node = self.node_mut(id);
        let (list, prev, next) = (std::mem::replace(&mut node.list, NO_LIST), node.prev, node.next);
        assert!(list != NO_LIST, "the timer is not set");
        let list = usize::from(list);
        if next != END {
            self.node_mut(next).prev = prev;
        }
        if prev != END {
            self.node_mut(prev).next = next;
            return;
        }
        self.heads[list] = next;
        if next == END {
            self.occupied[list / LEVEL_SLOTS] &= !(1 << (list % LEVEL_SLOTS));
        }
    }

    fn add_chunk(&mut self) {
        let first = (self.chunks.len() * CHUNK_NODES) as u32;
        assert!(first < END - CHUNK_NODES as u32, "more timers than names for them");
        let mut chunk =
            Box::new([Node { due_tick: 0, place: Place::default(), list: NO_LIST, prev: END, next: END }; CHUNK_NODES]);
        for (next, node) in (first + 1..).zip(chunk.iter_mut().take(CHUNK_NODES - 1)) {
            node.next = next;
        }
        self.chunks.push(chunk);
        self.free = first;
    }

    fn node(&self, id: u32) -> &Node {
        &self.chunks[id as usize / CHUNK_NODES][id as usize % CHUNK_NODES]
    }

    fn node_mut(&mut self, id: u32) -> &mut Node {
        &mut self.chunks[id as usize / CHUNK_NODES][id as usize % CHUNK_NODES]
    }
}

/// The memory of timers that are no more.
pub(super) struct Nodes(Vec<Box<[Node; CHUNK_NODES]>>);

impl Nodes {
    /// Bytes of nodes, as the wheel counted them.
    pub fn memory_bytes(&self) -> usize {
        self.0.len() * size_of::<[Node; CHUNK_NODES]>() + self.0.capacity() * size_of::<Box<[Node; CHUNK_NODES]>>()
    }

    /// Frees about `budget` nodes, a chunk at least; `true` when there is nothing left.
    pub fn free_some(&mut self, budget: usize) -> bool {
        self.0.truncate(self.0.len().saturating_sub(budget.div_ceil(CHUNK_NODES).max(1)));
        self.0.is_empty()
    }
}

/// The list of the slot in which `tick` lies at `level`.
fn list_of(level: usize, tick: u64) -> usize {
    let slot = (tick >> (LEVEL_BITS * level as u32)) as usize % LEVEL_SLOTS;
    level * LEVEL_SLOTS + slot
}

#[cfg(test)]
mod tests;
