//! What a node has been told, and what it must therefore be found to hold.
//!
//! Place in the flow: the provers compare every shard that comes back with it.
//!
//! Invariant: the truth is computed from the entries alone, by an engine that has met neither log nor snapshot.

use std::path::Path;

use eyot_protocol::command::{Command, Condition, EntryBuilder, NewExpiry, Value};
use eyot_protocol::snapshot::{Decoder, Event};
use eyot_protocol::{key, tlv};
use eyot_raft_glue::{EntryKind, EntryPosition, Index, ShardId, Term};
use rand::rngs::StdRng;
use rand::Rng;

use crate::disk::SimulatedDisk;
use crate::shard::Shard;
use crate::snapshot::load::Owner;
use crate::snapshot::{load_newest, store, Kept, SnapshotError};
use crate::wal::{self, Recovered, RecoveryError, RecoveryScope, SnapshotPosition};

pub(super) const NODE_ID: u128 = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
pub(super) const SHARDS: u16 = 2;
pub(super) const WAL: &str = "/wal";
pub(super) const SNAPSHOTS: &str = "/snapshots";
pub(super) const NOW_US: i64 = 1_700_000_000_000_000;
/// Keys of a shard: few, so that entries change what others wrote.
const KEYS: usize = 6;
const HASH_SEED: u64 = 5;

/// How many entries of each shard.
pub(super) type Counts = [u64; SHARDS as usize];

const COUNT_BITS: u32 = 24;

/// What a crash point carries: which truth holds, and what was acknowledged.
pub(super) fn mark(life: u64, acknowledged: Counts) -> u64 {
    acknowledged.iter().fold(life, |mark, count| mark << COUNT_BITS | count)
}

/// The life and the counts of a [`mark`].
pub(super) fn marked(mark: u64) -> (u64, Counts) {
    let count = |mark: u64| mark & ((1 << COUNT_BITS) - 1);
    (mark >> (2 * COUNT_BITS), [count(mark >> COUNT_BITS), count(mark)])
}

/// One entry of a shard's log.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    pub(super) term: Term,
    pub(super) payload: Vec<u8>,
}

/// The entries of one shard, and what the shard is after each of them.
#[derive(Debug, Clone)]
pub(super) struct Truth {
    pub(super) history: Vec<Entry>,
    /// The digest after so many entries.
    digests: Vec<u64>,
}

impl Truth {
    pub(super) fn of(shard: u16, history: Vec<Entry>) -> Self {
        let mut engine = fresh(shard);
        let mut digests = vec![engine.digest()];
        for (index, entry) in (1..).zip(&history) {
            apply(&mut engine, Index(index), entry.kind, &entry.payload, false).expect("a driver's entry applies");
            digests.push(engine.digest());
        }
        Self { history, digests }
    }
}

pub(super) fn fresh(shard: u16) -> Shard {
    Shard::new(ShardId(shard), SHARDS, HASH_SEED)
}

pub(super) fn apply(
    shard: &mut Shard,
    index: Index,
    kind: EntryKind,
    payload: &[u8],
    is_covered: bool,
) -> Result<(), wal::Refusal> {
    match kind {
        EntryKind::Commands if is_covered => shard.pass_over(payload)?,
        EntryKind::Commands => shard.apply(index, payload, |_, _| {})?,
        EntryKind::ValuePart => shard.apply_part(payload, is_covered, |_| Ok(None))?,
    }
    Ok(())
}

/// A key of the shard.
fn key_of(shard: u16, number: usize) -> Vec<u8> {
    let is_its = |name: &String| key::slots_of_shard(shard, SHARDS).contains(&key::slot(name.as_bytes()));
    let mut names = (0..).map(|number| format!("key {number}")).filter(is_its);
    names.nth(number).expect("half of all names are in each shard").into_bytes()
}

fn set<'a>(key: &'a [u8], value: Value<'a>) -> Command<'a> {
    Command::Set { key, value, expiry: NewExpiry::Never, condition: Condition::Always, return_old: false }
}

fn entry_of(commands: &[Command<'_>]) -> Vec<u8> {
    let mut builder = EntryBuilder::default();
    for command in commands {
        builder.push(command, NOW_US);
    }
    builder.take()
}

/// A text, encoded: some bytes by dice, in front of zeros, which change no sector of a fresh file.
pub(super) fn text(dice: &mut StdRng, zeros_max: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..dice.gen_range(1..40)).map(|_| dice.gen()).collect();
    bytes.resize(bytes.len() + dice.gen_range(0..=zeros_max), 0);
    let mut value = Vec::new();
    tlv::Encoder::new(&mut value).bytes(&bytes);
    value
}

/// Commands that depend on one another, so that one that is missing, wrong or applied twice shows.
pub(super) fn commands(shard: u16, dice: &mut StdRng, zeros_max: usize) -> Vec<u8> {
    let (one, other) = (key_of(shard, dice.gen_range(0..KEYS)), key_of(shard, dice.gen_range(0..KEYS)));
    let counter = key_of(shard, KEYS);
    let value = text(dice, zeros_max);
    let mut commands = vec![Command::Increment { key: &counter, by: dice.gen_range(1..100) }];
    commands.push(match dice.gen_range(0..8) {
        0 => Command::Delete { key: &one },
        1 => Command::Copy { from: &one, to: &other, replace: true },
        2 => Command::Append { key: &one, bytes: b"more", length_max: None },
        3 if dice.gen_bool(0.2) => Command::Clear,
        _ => set(&one, Value::Encoded(&value)),
    });
    entry_of(&commands)
}

/// The command that stores an upload.
pub(super) fn storing(shard: u16, upload: eyot_protocol::value_part::UploadId) -> Vec<u8> {
    entry_of(&[set(&key_of(shard, KEYS + 1), Value::Upload(upload))])
}

/// A node as its disk has it.
pub(super) struct Restored {
    pub(super) shards: Vec<Shard>,
    pub(super) kept: Vec<Vec<Kept>>,
    pub(super) recovered: Recovered,
    pub(super) epoch: u64,
    pub(super) counts: Counts,
    /// Snapshots that were passed over.
    pub(super) rejected: usize,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
}

/// Reads everything back, as a core does at its start: of each shard the newest sound snapshot, then the log.
pub(super) fn restore(disk: &SimulatedDisk) -> Result<Restored, Refused> {
    let (wal, snapshots) = (Path::new(WAL), Path::new(SNAPSHOTS));
    let epoch = wal::next_epoch(disk, wal, NODE_ID)?;
    store::remove_spares(disk, snapshots)?;
    let (mut shards, mut kept, mut positions, mut rejected) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for number in 0..SHARDS {
        let shard = ShardId(number);
        store::remove_leftovers(disk, &store::shard_directory(snapshots, shard))?;
        let owner = Owner { node_uuid: NODE_ID, shard, shard_count: SHARDS };
        let loaded = load_newest(disk, snapshots, owner, NOW_US, || fresh(number), &mut |_| Ok(None))?;
        if let Some(header) = &loaded.header {
            let needed_after = Index(header.needed_after);
            positions.push((shard, SnapshotPosition { position: loaded.position(), needed_after }));
        }
        rejected += loaded.rejected.len();
        kept.push(loaded.kept);
        shards.push(loaded.shard);
    }
    let scope = RecoveryScope { node_id: NODE_ID, core: 0, core_count: 1, shard_count: SHARDS, epoch };
    let recovered = wal::recover(disk, wal, scope, &positions, &mut |record| {
        let shard = &mut shards[usize::from(record.shard.0)];
        apply(shard, record.position.index, record.kind, record.payload, record.is_covered)
    })?;
    shards.iter_mut().for_each(|shard| {
        shard.drop_uploads();
    });
    let mut counts = Counts::default();
    for (shard, EntryPosition { index, .. }) in &recovered.positions {
        counts[usize::from(shard.0)] = index.0;
    }
    Ok(Restored { shards, kept, recovered, epoch, counts, rejected })
}

/// What is wrong with what was read back: it must be the state after some of the entries, the first ones, and after all
/// that were acknowledged.
pub(super) fn check(restored: &Restored, truth: &[Truth], acknowledged: Counts) -> Result<(), String> {
    for (number, (shard, truth)) in restored.shards.iter().zip(truth).enumerate() {
        let count = restored.counts[number];
        if count < acknowledged[number] {
            return Err(format!("shard {number}: {count} entries of {} that were acknowledged", acknowledged[number]));
        }
        match truth.digests.get(count as usize) {
            None => return Err(format!("shard {number}: {count} entries, and it never had so many")),
            Some(digest) if *digest != shard.digest() => {
                return Err(format!("shard {number}: not what it was after {count} entries"))
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Whether every file with a snapshot's name is that one, whole: a start looks at two of them only.
pub(super) fn check_names(disk: &SimulatedDisk) -> Result<(), String> {
    for shard in 0..SHARDS {
        let directory = store::shard_directory(Path::new(SNAPSHOTS), ShardId(shard));
        for found in store::list(disk, &directory).map_err(|error| error.to_string())? {
            let path = store::snapshot_path(&directory, found.index);
            let bytes = disk.contents(&path);
            let (mut decoder, mut rest, mut of) = (Decoder::new(), &bytes[..], None);
            let is_whole = loop {
                match decoder.next(&mut rest) {
                    Ok(Some(Event::ShardHeader(header))) => of = Some((header.shard, header.index)),
                    Ok(Some(_)) => {}
                    Ok(None) => break decoder.finish().is_ok(),
                    Err(_) => break false,
                }
            };
            if !is_whole || of != Some((shard, found.index.0)) {
                return Err(format!("{} is not that snapshot", path.display()));
            }
        }
    }
    Ok(())
}

/// Damages the newest of two snapshots of every shard that has so many; whether there was one.
pub(super) fn damage_newest(disk: &SimulatedDisk) -> bool {
    let mut is_damaged = false;
    for shard in 0..SHARDS {
        let directory = store::shard_directory(Path::new(SNAPSHOTS), ShardId(shard));
        if let [newest, _, ..] = store::list(disk, &directory).unwrap_or_default()[..] {
            // Where the disk lies, it may be empty.
            if newest.bytes > 20 {
                disk.flip_bit(&store::snapshot_path(&directory, newest.index), 8 * 20);
                is_damaged = true;
            }
        }
    }
    is_damaged
}
