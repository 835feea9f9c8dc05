//! The walk of a snapshot: all entries as they were at one moment, in slices, while commands change the tables.
//!
//! Place in the flow: between turns the core has a slice of it done (`shard/snapshot`); step 8 (apply) asks it before
//! it changes or frees an entry.
//!
//! ```text
//! slot by slot    before `slot`           | `slot`                             | behind it
//!                 emitted, needs nothing  | gathered up to a hash, then sorted | not looked at
//!                                         | and emitted                        |
//! an old entry    is edited, freed        | retired: gathered, or to be        | retired: to be gathered
//! changes or goes                         | gathered, by its hash              |
//! ```
//!
//! An entry is old, and belongs to the snapshot, if its version is at most the snapshot's. What becomes of an old entry
//! in a slot that is not emitted yet is this: its block stays as it was and comes into a list of its slot, and the
//! table goes on with a new block, or none. So nothing is copied in advance, and nothing at all but where an edit
//! would have been in place. Memory is held for what changes while the walk is on its way, and 8 bytes for each key of
//! one slot.
//!
//! Invariants:
//! - Each old entry is emitted exactly once: it is gathered from the table if it is there when the walk comes to its
//!   hash (a position that growth and splits of tables cannot disturb, see `scan`), and otherwise from the list that it
//!   was retired to, since it went before that. What is retired after it was gathered goes into another list.
//! - A block that was gathered is neither freed nor changed before its slot is emitted.
//! - What comes out is a function of the state at the snapshot's moment: not of hashes, slices, or later commands.
//! - A slice is bounded by its budget, one bucket's entries and the sorting of one run, whatever a slot holds.
//! - After a Clear the walk goes on over the tables that it took out, which nobody changes any more; all entries that
//!   come later are new.
//!
//! Deliberately not here: what is done with an entry that is emitted, and when a slice is due.

#![allow(unsafe_code)]

use std::ops::ControlFlow;

use eyot_raft_glue::{Index, Version};

use super::runs::Runs;
use super::slot::SlotTable;
use super::{Emptied, Tables};
use crate::shard::entry::{BlockRef, Entry, OwnedEntry, RetiredList};

/// Steps of the budget that it takes to prepare a run for being merged, and to give out an entry where there are
/// several runs: the heap's comparisons reach for keys that are in no cache. To gather, to sort or to give out an
/// entry takes one.
const PREPARE_STEPS: usize = 4;
const MERGE_STEPS: usize = 3;

/// Bytes of a value that are emitted for one step of the budget.
const VALUE_BYTES_PER_STEP: usize = 512;

/// What the walk does next with its slot.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Gathers old entries from the slot's table; those before `hash` are gathered.
    Table { hash: u32 },
    /// Gathers old entries that were retired before the walk came to them.
    Retired,
    /// Prepares the sorted runs for being merged.
    Merge,
    /// Gives entries out, in the order of keys.
    Emit,
    /// Frees what was retired of the slot before this one, and forgets the runs.
    Free,
}

/// See the module.
pub(in crate::shard) struct Walk {
    index: Index,
    cursor: Cursor,
    /// The tables that a Clear took out, which the walk goes on over.
    cleared: Option<Emptied>,
    /// A bug that a test has planted.
    #[cfg(test)]
    planted: Option<Planted>,
}

/// Where the walk is, and what it holds.
struct Cursor {
    /// The slot, counted from the shard's first one, that is worked on; all before are emitted.
    slot: usize,
    stage: Stage,
    runs: Runs,
    /// For each slot, retired entries that are not gathered.
    retired: Box<[RetiredList]>,
    /// Retired entries of `slot` (of the one before it in [`Stage::Free`]) that are gathered.
    gathered: RetiredList,
    /// Bytes of all retired entries.
    retired_bytes: usize,
}

/// What a test may break, without touching memory that is gone.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Planted {
    /// Old entries of slots that the walk has not come to are edited and freed as if there were no walk.
    NothingRetired,
    /// An entry that goes while its slot is gathered is taken for one that was gathered.
    TakenForGathered,
    /// After a Clear the walk goes on over the new tables.
    ClearForgotten,
}

impl Walk {
    /// A walk over `slot_count` slots as they are now; `index` is the entry that was applied last.
    pub fn new(index: Index, slot_count: usize) -> Self {
        Self {
            index,
            cursor: Cursor {
                slot: 0,
                stage: Stage::Table { hash: 0 },
                runs: Runs::default(),
                retired: (0..slot_count).map(|_| RetiredList::default()).collect(),
                gathered: RetiredList::default(),
                retired_bytes: 0,
            },
            cleared: None,
            #[cfg(test)]
            planted: None,
        }
    }

    /// The entry that was applied last when the walk began.
    pub fn index(&self) -> Index {
        self.index
    }

    /// How many slots are emitted.
    pub fn slots_done(&self) -> usize {
        self.cursor.slot
    }

    #[cfg(test)]
    fn is_planted(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }

    /// Whether the snapshot still needs what `entry` is now, which is in the table of slot number `table`.
    #[inline]
    pub fn needs(&self, table: u16, entry: &Entry) -> bool {
        let slot = usize::from(table);
        #[cfg(test)]
        if self.is_planted(Planted::NothingRetired) && slot > self.cursor.slot {
            return false;
        }
        slot >= self.cursor.slot && entry.version() <= last_version(self.index)
    }

    /// Keeps an entry that the snapshot needs, and that was replaced; `hash` is its hash.
    pub fn keep(&mut self, table: u16, hash: u32, entry: OwnedEntry) {
        let slot = usize::from(table);
        let is_gathered = slot == self.cursor.slot && self.cursor.is_past(hash);
        #[cfg(test)]
        let is_gathered = is_gathered || slot == self.cursor.slot && self.is_planted(Planted::TakenForGathered);
        let Cursor { retired, gathered, retired_bytes, .. } = &mut self.cursor;
        *retired_bytes += entry.allocated_bytes();
        let list = if is_gathered { gathered } else { &mut retired[slot] };
        list.push(entry);
    }

    /// Keeps an entry that was removed, if the snapshot needs it: `entry` is one of two owners then.
    #[inline]
    pub fn keep_removed(&mut self, table: u16, entry: &mut OwnedEntry) {
        if self.needs(table, entry) {
            self.keep(table, entry.hash(), entry.share());
        }
    }

    /// Keeps the tables that a Clear took out, if the snapshot needs them: only those of the first Clear hold old
    /// entries.
    pub fn keep_tables(&mut self, emptied: Emptied) -> Option<Emptied> {
        if self.cleared.is_some() {
            return Some(emptied);
        }
        self.cleared = Some(emptied);
        None
    }

    /// Does a slice of about `budget` steps and calls `emit` for what comes out of it, with the slot counted from
    /// the shard's first one; a slice ends when `emit` breaks. Whether everything was emitted.
    fn advance(
        &mut self,
        by_slot: &[SlotTable],
        budget: usize,
        mut emit: impl FnMut(u16, &Entry) -> ControlFlow<()>,
    ) -> bool {
        let limit = last_version(self.index);
        let tables = self.cleared.as_ref().map_or(by_slot, Emptied::tables);
        #[cfg(test)]
        let tables = if self.is_planted(Planted::ClearForgotten) { by_slot } else { tables };
        let cursor = &mut self.cursor;
        let mut left = budget.max(1);
        while left > 0 {
            let steps = match cursor.stage {
                Stage::Free => cursor.free(),
                _ if cursor.slot == tables.len() => return true,
                Stage::Table { hash } => cursor.gather_bucket(&tables[cursor.slot], hash, limit),
                Stage::Retired => cursor.gather_retired(),
                Stage::Merge => cursor.prepare(),
                Stage::Emit => match cursor.emit_next(&mut emit) {
                    ControlFlow::Continue(steps) => steps,
                    ControlFlow::Break(()) => return false,
                },
            };
            left = left.saturating_sub(steps);
        }
        false
    }

    /// Gives up the tables that a Clear took out; what is left is to be freed by [`Walk::free_some`].
    pub fn take_cleared(&mut self) -> Option<Emptied> {
        self.cleared.take()
    }

    /// Frees about `budget` retired entries of a walk that is over; `true` when there is nothing left.
    pub fn free_some(&mut self, budget: usize) -> bool {
        let cursor = &mut self.cursor;
        for _ in 0..budget.max(1) {
            if cursor.free_retired() {
                continue;
            }
            if !cursor.runs.clear() {
                continue;
            }
            // A slot of which nothing was retired is a step, too: there may be thousands of them.
            let Some(list) = cursor.retired.get_mut(cursor.slot) else { return true };
            cursor.gathered = std::mem::take(list);
            cursor.slot += 1;
        }
        false
    }

    /// Bytes that are held for the snapshot alone.
    pub fn memory_bytes(&self) -> usize {
        let Cursor { retired, retired_bytes, runs, .. } = &self.cursor;
        let cleared = self.cleared.as_ref().map_or(0, Emptied::memory_bytes);
        size_of::<Self>() + size_of_val(&**retired) + retired_bytes + runs.memory_bytes() + cleared
    }
}

impl Cursor {
    /// Whether entries of this hash in the current slot's table are gathered.
    fn is_past(&self, hash: u32) -> bool {
        match self.stage {
            Stage::Free => false,
            Stage::Table { hash: next } => hash < next,
            Stage::Retired | Stage::Merge | Stage::Emit => true,
        }
    }

    /// Gathers the old entries of one bucket. Returns the steps that it took, as all of these do.
    fn gather_bucket(&mut self, table: &SlotTable, hash: u32, limit: Version) -> usize {
        let (mut steps, mut sorted) = (1, 0);
        let mut next = None;
        if table.keys() > 0 {
            let runs = &mut self.runs;
            next = table.visit_from(hash, |entry| {
                steps += 1;
                if entry.version() <= limit {
                    // SAFETY: an old entry of this slot is kept by `needs` until the slot is emitted and `free` has
                    // forgotten the runs; the tables of a Clear are kept as long.
                    unsafe { runs.push(BlockRef::of(entry)) };
                    if runs.is_full() {
                        sorted += runs.seal();
                    }
                }
            });
        }
        self.stage = next.map_or(Stage::Retired, |hash| Stage::Table { hash });
        steps + sorted
    }

    /// Gathers one retired entry, or sorts what is left when there are no more.
    fn gather_retired(&mut self) -> usize {
        let Some(entry) = self.retired[self.slot].pop() else {
            self.stage = Stage::Merge;
            return self.runs.seal();
        };
        // SAFETY: its list keeps it until `free` has forgotten the runs.
        unsafe { self.runs.push(BlockRef::of(&entry)) };
        self.gathered.push(entry);
        let sorted = if self.runs.is_full() { self.runs.seal() } else { 0 };
        1 + sorted
    }

    fn prepare(&mut self) -> usize {
        if self.runs.prepare() {
            self.stage = Stage::Emit;
            return 0;
        }
        PREPARE_STEPS
    }

    fn emit_next(&mut self, emit: &mut impl FnMut(u16, &Entry) -> ControlFlow<()>) -> ControlFlow<(), usize> {
        let Some(block) = self.runs.next() else {
            self.slot += 1;
            self.stage = Stage::Free;
            return ControlFlow::Continue(0);
        };
        // SAFETY: the block was gathered, so it is alive and unchanged until the slot is emitted.
        let entry = unsafe { block.entry() };
        let value_bytes = if entry.is_large() { 0 } else { entry.value().len() };
        emit(self.slot as u16, entry)?;
        let steps = if self.runs.are_merged() { MERGE_STEPS } else { 1 };
        ControlFlow::Continue(steps + value_bytes / VALUE_BYTES_PER_STEP)
    }

    /// Forgets one run, or frees one retired entry.
    fn free(&mut self) -> usize {
        if self.runs.clear() && !self.free_retired() {
            self.stage = Stage::Table { hash: 0 };
            return 0;
        }
        1
    }

    /// Frees one entry of those that are gathered; whether there was one.
    fn free_retired(&mut self) -> bool {
        let entry = self.gathered.pop();
        self.retired_bytes -= entry.as_deref().map_or(0, Entry::allocated_bytes);
        entry.is_some()
    }
}

/// The last version that the log's entries up to `index` may give.
fn last_version(index: Index) -> Version {
    Version::new(index, u16::MAX)
}

impl Tables {
    /// Begins a walk; see [`Walk::new`].
    pub fn begin_walk(&mut self, index: Index) {
        self.walk = Some(Box::new(Walk::new(index, self.by_slot.len())));
    }

    /// The walk that is under way.
    pub fn walk(&self) -> Option<&Walk> {
        self.walk.as_deref()
    }

    /// Checks the walk that is under way.
    #[cfg(test)]
    pub fn check_walk(&mut self) {
        self.walk.iter_mut().for_each(|walk| walk.check());
    }

    /// Plants a bug in the walk that is under way.
    #[cfg(test)]
    pub fn plant(&mut self, bug: Option<Planted>) {
        self.walk.as_deref_mut().expect("a walk is under way").planted = bug;
    }

    /// [`Walk::advance`], with slots as they are counted in all; `None` when no walk is under way.
    pub fn advance_walk(
        &mut self,
        budget: usize,
        mut emit: impl FnMut(u16, &Entry) -> ControlFlow<()>,
    ) -> Option<bool> {
        let walk = self.walk.as_deref_mut()?;
        let first_slot = self.first_slot;
        Some(walk.advance(&self.by_slot, budget, |table, entry| emit(first_slot + table, entry)))
    }

    /// Ends the walk, wherever it is: what it holds is to be freed.
    pub fn end_walk(&mut self) -> Option<Box<Walk>> {
        self.walk.take()
    }
}

#[cfg(test)]
impl Walk {
    /// Checks the count of bytes of all retired entries.
    pub fn check(&mut self) {
        let Cursor { retired, gathered, retired_bytes, .. } = &mut self.cursor;
        let lists = retired.iter_mut().chain([gathered]);
        let bytes: usize = lists.map(RetiredList::bytes).sum();
        assert_eq!(bytes, *retired_bytes);
    }
}
