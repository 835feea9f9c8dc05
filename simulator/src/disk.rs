//! A node's disk, as far as consensus is concerned: a log of records, and snapshots.
//!
//! Place in the flow: a turn of a node gives its batch, with records of all its groups, to [`Disk::push`]; the world
//! completes the write that [`Disk::begin`] has started; a start reads [`Disk::recover`].
//!
//! ```text
//! durable writes | the write under way                 | what waits for it
//!                  a power cut keeps any of its sectors   lost
//! ```
//!
//! Invariant: one write at a time. What the log promises beyond that stands in `disk/log.rs`.
//!
//! Deliberately not here: the format of the server's log; its provers run that on the simulated disk of `eyot-disk`.

mod log;

use std::collections::BTreeMap;
use std::rc::Rc;

use eyot_raft_glue::{
    decode_batch, BatchNumber, GroupId, Index, LogBatch, PersistRecord, ReadyNumber, Recovered, SnapshotId,
    SnapshotMeta,
};

pub use self::log::Damage;

use self::log::Log;
use crate::dice::Dice;
use crate::machine::Machine;

/// Records after which the log is rewritten without what a snapshot has made needless: few enough that a start stays
/// short, many enough that most starts read real records.
pub const RECORDS_KEPT_MAX: usize = 600;

/// A state machine as it stands in a file, checked and whole.
#[derive(Debug)]
pub struct Snapshot {
    /// Where it stands, and under which name.
    pub meta: SnapshotMeta,
    /// The state.
    pub machine: Machine,
}

/// What is to be written in one piece: the batches of some turns.
#[derive(Debug, Default)]
struct Waiting {
    records: Vec<PersistRecord>,
    /// The last of the batches.
    last: BatchNumber,
    must_sync: bool,
}

/// One node's disk.
#[derive(Debug, Default)]
pub struct Disk {
    log: Log,
    in_flight: Option<Waiting>,
    waiting: Waiting,
    /// Of each group, up to where the disk knows the log to be committed.
    committed: BTreeMap<GroupId, Index>,
    /// Of each group, up to where its log is needed no more.
    compacted: BTreeMap<GroupId, Index>,
    /// Finished snapshots: those built here, and those installed.
    pub finished: BTreeMap<SnapshotId, Rc<Snapshot>>,
    /// Snapshots that came from others and that no record names yet.
    pub staged: BTreeMap<SnapshotId, Rc<Snapshot>>,
}

impl Disk {
    /// A turn's batch is to be written. Whether it has records of more than one group.
    pub fn push(&mut self, batch: LogBatch) -> bool {
        let (number, records) = decode_batch(&batch.bytes.into()).expect("what a core gives out can be read");
        assert_eq!((number, records.len()), (batch.number, batch.records), "a batch says what it holds");
        let is_shared = records.windows(2).any(|pair| pair[0].group != pair[1].group);
        self.wait(number, batch.must_sync, records);
        is_shared
    }

    fn wait(&mut self, number: BatchNumber, must_sync: bool, mut records: Vec<PersistRecord>) {
        assert!(number > self.waiting.last, "batches come in their order");
        self.waiting.last = number;
        self.waiting.must_sync |= must_sync;
        self.waiting.records.append(&mut records);
    }

    /// Writes and syncs without delay: what stands in a new log.
    pub fn format(&mut self, records: &[PersistRecord]) {
        assert!(self.log.records() == 0 && self.in_flight.is_none(), "a new log is empty");
        self.log.append(records);
    }

    /// Starts the next write, if none is under way and somebody waits for it. `true`: it was started.
    pub fn begin(&mut self) -> bool {
        if self.in_flight.is_some() || !self.waiting.must_sync {
            return false;
        }
        self.in_flight = Some(std::mem::take(&mut self.waiting));
        true
    }

    /// The write is durable. Tells which batch was the last in it.
    pub fn complete(&mut self) -> BatchNumber {
        let written = self.in_flight.take().expect("a write is under way");
        self.log.append(&written.records);
        self.note_commits(&written.records);
        written.last
    }

    /// These records are durable.
    fn note_commits(&mut self, records: &[PersistRecord]) {
        for record in records {
            let state = record.hard_state.map_or(Index(0), |state| state.commit);
            let snapshot = record.snapshot.as_ref().map_or(Index(0), |meta| meta.position.index);
            let committed = self.committed.entry(record.group).or_default();
            *committed = (*committed).max(state).max(snapshot);
        }
    }

    /// Up to where a start would know a group's log to be committed.
    pub fn committed(&self, group: GroupId) -> Index {
        let snapshot = self.newest_snapshot(group).map_or(Index(0), |snapshot| snapshot.meta.position.index);
        self.committed.get(&group).copied().unwrap_or_default().max(snapshot)
    }

    /// Whether a record that names a snapshot of this group is not durable yet.
    pub fn has_unwritten_snapshot(&self, group: GroupId) -> bool {
        let writes = [&self.waiting].into_iter().chain(&self.in_flight);
        let mut unwritten = writes.flat_map(|write| &write.records);
        unwritten.any(|record| record.group == group && record.snapshot.is_some())
    }

    /// The process is about to end and the power stays on: mostly the system finishes the write under way.
    pub fn finish_by_chance(&mut self, dice: &mut Dice) {
        if self.in_flight.is_some() && dice.chance(800_000) {
            self.complete();
        }
    }

    /// The node ends at this moment: what waits is lost, and of the write under way any sectors are. Whether any were.
    pub fn end(&mut self, dice: &mut Dice) -> bool {
        self.waiting = Waiting::default();
        self.in_flight.take().is_some_and(|write| self.log.tear(&write.records, dice))
    }

    /// Turns a bit in what a later write proves to have been durable. `false`: there is none.
    pub fn flip(&mut self, dice: &mut Dice) -> bool {
        self.log.flip(dice)
    }

    /// What a start finds: every record, oldest first. `cuts_damage` is a mistake that it must not make.
    pub fn recover(&mut self, cuts_damage: bool) -> Result<Vec<PersistRecord>, Damage> {
        let records = self.log.recover(cuts_damage)?;
        self.committed.clear();
        self.note_commits(&records);
        Ok(records)
    }

    /// The newest finished snapshot of a group.
    pub fn newest_snapshot(&self, group: GroupId) -> Option<&Rc<Snapshot>> {
        let of_group = self.finished.values().filter(|snapshot| snapshot.machine.group() == group);
        of_group.max_by_key(|snapshot| snapshot.meta.position.index)
    }

    /// Keeps the two newest finished snapshots of a group: one may be on its way to somebody.
    pub fn drop_old_snapshots(&mut self, group: GroupId) {
        let of_group = self.finished.values().filter(|snapshot| snapshot.machine.group() == group);
        let mut indexes: Vec<Index> = of_group.map(|snapshot| snapshot.meta.position.index).collect();
        indexes.sort_unstable();
        let Some(&oldest_kept) = indexes.iter().rev().nth(1) else { return };
        self.finished
            .retain(|_, snapshot| snapshot.machine.group() != group || snapshot.meta.position.index >= oldest_kept);
    }

    /// The log of a group is not needed up to `index`.
    pub fn compact(&mut self, group: GroupId, index: Index) {
        let compacted = self.compacted.entry(group).or_default();
        *compacted = (*compacted).max(index);
    }

    /// Rewrites the log when what a start has found in it, `all`, is much: of each group one record stands for all,
    /// without the entries that are needed no more.
    pub fn rewrite(&mut self, all: &[PersistRecord], groups: u32, records_max: usize) {
        if all.len() <= records_max {
            return;
        }
        let mut kept = Vec::new();
        for group in (0..groups).map(GroupId) {
            let of_group = all.iter().filter(|record| record.group == group);
            let Some(number) = of_group.clone().next_back().map(|record| record.number) else { continue };
            let mut recovered = Recovered::default();
            of_group.for_each(|record| recovered.replay(record.clone()));
            let gone = self.compacted.get(&group).copied().unwrap_or_default();
            if let Some(snapshot) = self.newest_snapshot(group) {
                if snapshot.meta.position.index > recovered.snapshot.position.index {
                    recovered.start_at(snapshot.meta.clone());
                }
            }
            recovered.entries.retain(|entry| entry.position.index > gone);
            kept.push(to_record(group, number, &recovered));
        }
        self.log = Log::default();
        self.log.append(&kept);
    }
}

/// One record that stands for all that a replica has.
pub fn to_record(group: GroupId, number: ReadyNumber, recovered: &Recovered) -> PersistRecord {
    PersistRecord {
        group,
        number,
        must_sync: true,
        hard_state: Some(recovered.hard_state),
        snapshot: (recovered.snapshot.position.index.0 > 0).then(|| recovered.snapshot.clone()),
        entries: recovered.entries.clone(),
    }
}

#[cfg(test)]
mod tests {
    use eyot_raft_glue::{EntryBody, EntryKind, EntryPosition, HardState, LogEntry, Term};

    use super::*;

    fn record(number: u64, must_sync: bool) -> PersistRecord {
        let position = EntryPosition { term: Term(1), index: Index(number + 1) };
        let body = EntryBody::Data { kind: EntryKind::Commands, bytes: vec![7; 300].into() };
        PersistRecord {
            group: GroupId(0),
            number: ReadyNumber(number),
            must_sync,
            hard_state: Some(HardState { term: Term(1), vote: None, commit: Index(0) }),
            snapshot: None,
            entries: vec![LogEntry { position, body }],
        }
    }

    fn push(disk: &mut Disk, number: u64, must_sync: bool) {
        disk.wait(BatchNumber(number), must_sync, vec![record(number, must_sync)]);
    }

    fn numbers(disk: &mut Disk) -> Vec<u64> {
        disk.recover(false).unwrap().iter().map(|record| record.number.0).collect()
    }

    #[test]
    fn what_was_completed_is_found_and_what_waited_is_lost() {
        let mut disk = Disk::default();
        push(&mut disk, 1, false);
        assert!(!disk.begin(), "nobody waits for it");
        push(&mut disk, 2, true);
        push(&mut disk, 3, false);
        assert!(disk.begin() && !disk.begin());
        push(&mut disk, 4, true);
        assert_eq!(disk.complete(), BatchNumber(3));
        disk.end(&mut Dice::new(1, 1));
        assert_eq!(numbers(&mut disk), [1, 2, 3]);
    }
}
