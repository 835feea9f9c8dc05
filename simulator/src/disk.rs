//! A node's disk, as far as consensus is concerned: a log of records in batches, and snapshots.
//!
//! Place in the flow: a turn of a node gives its records to [`Disk::push`]; the world completes the write that
//! [`Disk::begin`] has started; a start reads [`Disk::recover`].
//!
//! ```text
//! durable batches | the batch that is being written | what waits for it
//!                   a power cut keeps any of its sectors   lost
//! ```
//!
//! Invariants, the promises of the real log (`docs/LOG.md`):
//! - One write at a time, and a batch begins on a sector of its own. So damage in front of a whole later batch is
//!   damage, and not a torn tail: [`Disk::recover`] refuses it.
//! - A record is there whole or not at all; after the first that is not, nothing of its batch is.
//!
//! Deliberately not here: bytes. Records are kept as they are, and their length decides which sectors they lie on: the
//! bytes of the log are the server's, and its provers run them on the simulated disk of `eyot-disk`.

use std::collections::BTreeMap;
use std::rc::Rc;

use eyot_raft_glue::{GroupId, Index, PersistRecord, ReadyNumber, Recovered, SnapshotId, SnapshotMeta};

use crate::dice::Dice;
use crate::machine::Machine;

/// What a disk writes whole, unless it tears it.
const SECTOR_BYTES: usize = 512;

/// What a record takes besides its entries, and what an entry takes besides its payload: about what the log's format
/// takes.
const RECORD_BYTES: usize = 48;
const ENTRY_BYTES: usize = 16;

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

#[derive(Debug, Clone)]
struct Stored {
    record: PersistRecord,
    is_damaged: bool,
}

/// The log cannot be read: something that was synced is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Position of the batch, from the oldest that is kept.
    pub batch: usize,
}

/// One node's disk.
#[derive(Debug, Default)]
pub struct Disk {
    batches: Vec<Vec<Stored>>,
    in_flight: Option<Vec<PersistRecord>>,
    waiting: Vec<PersistRecord>,
    has_to_sync: bool,
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
    /// A record is to be written.
    pub fn push(&mut self, record: PersistRecord) {
        self.has_to_sync |= record.must_sync;
        self.waiting.push(record);
    }

    /// Writes and syncs without delay: what stands in a new log.
    pub fn format(&mut self, records: Vec<PersistRecord>) {
        assert!(self.batches.is_empty() && self.in_flight.is_none(), "a new log is empty");
        self.batches.push(records.into_iter().map(Stored::whole).collect());
    }

    /// Starts the next write, if none is under way and somebody waits for it. `true`: it was started.
    pub fn begin(&mut self) -> bool {
        if self.in_flight.is_some() || !self.has_to_sync {
            return false;
        }
        self.has_to_sync = false;
        self.in_flight = Some(std::mem::take(&mut self.waiting));
        true
    }

    /// The write is durable. Tells each group the last of its records that it waits for.
    pub fn complete(&mut self) -> Vec<(GroupId, ReadyNumber)> {
        let records = self.in_flight.take().expect("a write is under way");
        let mut reached: Vec<(GroupId, ReadyNumber)> = Vec::new();
        for record in records.iter().filter(|record| record.must_sync) {
            match reached.iter_mut().find(|(group, _)| *group == record.group) {
                Some((_, number)) => *number = record.number,
                None => reached.push((record.group, record.number)),
            }
        }
        self.keep(records);
        reached
    }

    /// Records are durable.
    fn keep(&mut self, records: Vec<PersistRecord>) {
        for record in &records {
            let state = record.hard_state.map_or(Index(0), |state| state.commit);
            let snapshot = record.snapshot.as_ref().map_or(Index(0), |meta| meta.position.index);
            let committed = self.committed.entry(record.group).or_default();
            *committed = (*committed).max(state).max(snapshot);
        }
        self.batches.push(records.into_iter().map(Stored::whole).collect());
    }

    /// Up to where a start would know a group's log to be committed.
    pub fn committed(&self, group: GroupId) -> Index {
        let snapshot = self.newest_snapshot(group).map_or(Index(0), |snapshot| snapshot.meta.position.index);
        self.committed.get(&group).copied().unwrap_or_default().max(snapshot)
    }

    /// Whether a record that names a snapshot of this group is not durable yet.
    pub fn has_unwritten_snapshot(&self, group: GroupId) -> bool {
        let unwritten = self.waiting.iter().chain(self.in_flight.iter().flatten());
        unwritten.into_iter().any(|record| record.group == group && record.snapshot.is_some())
    }

    /// The process is about to end and the power stays on: mostly the system finishes the write under way.
    pub fn finish_by_chance(&mut self, dice: &mut Dice) {
        if self.in_flight.is_some() && dice.chance(800_000) {
            self.complete();
        }
    }

    /// The node ends at this moment: what waits is lost, and of the write under way any sectors are. Returns how many
    /// records were lost or torn off the write.
    pub fn end(&mut self, dice: &mut Dice) -> usize {
        self.waiting.clear();
        self.has_to_sync = false;
        let Some(mut records) = self.in_flight.take() else { return 0 };
        let survivors = surviving(&records, dice);
        let lost = records.len() - survivors;
        records.truncate(survivors);
        if !records.is_empty() {
            self.keep(records);
        }
        lost
    }

    /// Turns a bit in a record that a later batch proves to have been durable. `false`: there is none.
    pub fn flip(&mut self, dice: &mut Dice) -> bool {
        let Some((_, proven)) = self.batches.split_last_mut() else { return false };
        let count = proven.iter().map(Vec::len).sum::<usize>();
        if count == 0 {
            return false;
        }
        let victim = dice.below(count as u64) as usize;
        let stored = proven.iter_mut().flatten().nth(victim).expect("it was counted");
        stored.is_damaged = true;
        true
    }

    /// What a start finds: every record, oldest first.
    pub fn recover(&self) -> Result<Vec<PersistRecord>, Damage> {
        if let Some(batch) = self.batches.iter().position(|batch| batch.iter().any(|stored| stored.is_damaged)) {
            return Err(Damage { batch });
        }
        Ok(self.batches.iter().flatten().map(|stored| stored.record.clone()).collect())
    }

    /// The mistake that a recovery must not make: damage is taken for the torn end of the log, which goes on there.
    pub fn cut_at_damage(&mut self) {
        let damaged = |batch: &Vec<Stored>| batch.iter().position(|stored| stored.is_damaged);
        let Some((batch, record)) = self.batches.iter().enumerate().find_map(|(at, batch)| Some((at, damaged(batch)?)))
        else {
            return;
        };
        self.batches.truncate(batch + 1);
        self.batches[batch].truncate(record);
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

    /// Rewrites the durable log when it is long: of each group one record stands for all, without the entries that
    /// are needed no more. Damage stays where it is.
    pub fn rewrite(&mut self, groups: u32, records_max: usize) {
        let records = self.batches.iter().map(Vec::len).sum::<usize>();
        if records <= records_max || self.batches.iter().flatten().any(|stored| stored.is_damaged) {
            return;
        }
        let all = self.recover().expect("nothing is damaged");
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
            kept.push(Stored::whole(to_record(group, number, &recovered)));
        }
        self.batches = vec![kept];
    }
}

impl Stored {
    fn whole(record: PersistRecord) -> Self {
        Self { record, is_damaged: false }
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

/// How many records of an unsynced batch, from its start, are whole when the power comes back.
fn surviving(records: &[PersistRecord], dice: &mut Dice) -> usize {
    let length = |record: &PersistRecord| {
        RECORD_BYTES + record.entries.iter().map(|entry| ENTRY_BYTES + entry.byte_length()).sum::<usize>()
    };
    let sectors = records.iter().map(length).sum::<usize>().div_ceil(SECTOR_BYTES);
    let mut kept = fates(sectors, dice);
    // Where a sector is torn, its first bytes are new.
    let torn = dice.chance(300_000).then(|| (dice.below(sectors.max(1) as u64) as usize, dice.below(512) as usize));
    if let Some((sector, _)) = torn {
        kept[sector] = true;
    }
    let mut start = 0;
    for (position, record) in records.iter().enumerate() {
        let end = start + length(record);
        let is_whole = (start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)).all(|sector| {
            let is_torn_off = torn.is_some_and(|(at, count)| at == sector && end > sector * SECTOR_BYTES + count);
            kept[sector] && !is_torn_off
        });
        if !is_whole {
            return position;
        }
        start = end;
    }
    records.len()
}

/// Which sectors reach the disk. Errors hide where nearly all or nearly none do: so not only fair coins.
fn fates(sectors: usize, dice: &mut Dice) -> Vec<bool> {
    let edge = dice.below(sectors as u64 + 1) as usize;
    let mode = dice.below(5);
    let mut fate = |sector: usize| match mode {
        0 => false,
        1 => true,
        2 => sector < edge,
        3 => sector != edge,
        _ => dice.chance(500_000),
    };
    (0..sectors.max(1)).map(&mut fate).collect()
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

    fn numbers(disk: &Disk) -> Vec<u64> {
        disk.recover().unwrap().iter().map(|record| record.number.0).collect()
    }

    #[test]
    fn what_was_completed_is_found_and_what_waited_is_lost() {
        let mut disk = Disk::default();
        disk.push(record(1, false));
        assert!(!disk.begin(), "nobody waits for it");
        disk.push(record(2, true));
        disk.push(record(3, false));
        assert!(disk.begin() && !disk.begin());
        disk.push(record(4, true));
        assert_eq!(disk.complete(), [(GroupId(0), ReadyNumber(2))]);
        disk.end(&mut Dice::new(1, 1));
        assert_eq!(numbers(&disk), [1, 2, 3]);
    }

    #[test]
    fn of_a_write_under_way_any_prefix_of_records_may_survive_and_nothing_else() {
        let mut seen = [0; 5];
        for seed in 0..500 {
            let mut disk = Disk::default();
            (1..=4).for_each(|number| disk.push(record(number, true)));
            assert!(disk.begin());
            let lost = disk.end(&mut Dice::new(seed, 1));
            let found = numbers(&disk);
            assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
            assert_eq!(found.len() + lost, 4);
            seen[lost] += 1;
        }
        assert!(seen.iter().all(|&times| times > 10), "{seen:?}");
    }

    #[test]
    fn a_flipped_bit_is_only_planted_where_it_can_be_told_from_a_torn_tail_and_is_refused() {
        let mut disk = Disk::default();
        let mut dice = Dice::new(3, 3);
        for number in 1..=2 {
            assert!(!disk.flip(&mut dice), "nothing proves the last batch");
            disk.push(record(number, true));
            disk.begin();
            disk.complete();
        }
        assert!(disk.flip(&mut dice));
        assert_eq!(disk.recover(), Err(Damage { batch: 0 }));
    }
}
