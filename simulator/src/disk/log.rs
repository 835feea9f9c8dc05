//! The bytes of a node's log: writes in sectors, what a power cut makes of the last one, and what a start reads again.
//!
//! Place in the flow: `disk.rs` appends what was synced, tears what was not, and recovers.
//!
//! ```text
//! log       write × n, each from the beginning of a sector, the rest of its last sector is 0
//! write     record × m, without a gap
//! record    magic u32 | length u32 | crc32c u32 | write number u64 | payload: a record of raft-glue
//!           all little-endian; the length is the payload's; the checksum is over all of the record but itself
//! ```
//!
//! Invariants, the promises of the real log (`docs/LOG.md`):
//! - A record is there whole or not at all; after the first that is not, nothing of its write is.
//! - Writes are numbered upwards, and one begins when the one before it is durable. So what cannot be read, and has a
//!   record of a later write behind it, is damage: [`Log::recover`] refuses it. What cannot be read at the end is a
//!   torn write: it is cut off.
//!
//! Deliberately not here: segments. What is not needed any more goes when the log is rewritten.

use bytes::Bytes;
use eyot_raft_glue::PersistRecord;

use crate::dice::Dice;

/// What a disk writes whole, unless it tears it.
const SECTOR_BYTES: usize = 512;

const MAGIC: [u8; 4] = *b"EYSL";
const HEADER_BYTES: usize = 20;

/// The log cannot be read: something that was synced is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The first byte that makes no sense.
    pub at: usize,
}

/// A log.
#[derive(Debug, Default)]
pub struct Log {
    bytes: Vec<u8>,
    /// Where the last write begins: what is before it was durable when that was written.
    last_write: usize,
    /// The number of the last write.
    written: u64,
    /// Records in it.
    records: usize,
}

impl Log {
    /// How many records it has.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Writes these records, and loses nothing.
    pub fn append(&mut self, records: &[PersistRecord]) {
        self.write(records);
        self.records += records.len();
    }

    /// Writes these records, and loses its power in the middle: any of the sectors may be as before, one may be torn.
    /// `false`: all of them are there.
    pub fn tear(&mut self, records: &[PersistRecord], dice: &mut Dice) -> bool {
        self.write(records);
        let sectors = &mut self.bytes[self.last_write..];
        let count = sectors.len() / SECTOR_BYTES;
        let mut kept = fates(count, dice);
        // Where a sector is torn, its first bytes are new, and the others as before, or nothing that anybody wrote.
        let torn = dice.chance(300_000).then(|| (dice.below(count as u64) as usize, dice.below(512) as usize));
        let is_noise = dice.chance(300_000);
        if let Some((sector, first)) = torn {
            kept[sector] = true;
            let rest = &mut sectors[sector * SECTOR_BYTES + first..(sector + 1) * SECTOR_BYTES];
            rest.iter_mut().for_each(|byte| *byte = if is_noise { dice.number() as u8 } else { 0 });
        }
        for (bytes, _) in sectors.chunks_mut(SECTOR_BYTES).zip(&kept).filter(|(_, is_kept)| !**is_kept) {
            bytes.fill(0);
        }
        torn.is_some() || kept.contains(&false)
    }

    /// Appends the sectors of the next write.
    fn write(&mut self, records: &[PersistRecord]) {
        assert!(!records.is_empty(), "a write of nothing");
        self.written += 1;
        self.last_write = self.bytes.len();
        for record in records {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&[0; HEADER_BYTES]);
            record.encode(&mut self.bytes);
            let bytes = &mut self.bytes[start..];
            let length = (bytes.len() - HEADER_BYTES) as u32;
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            bytes[12..20].copy_from_slice(&self.written.to_le_bytes());
            let checksum = checksum(bytes);
            bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR_BYTES), 0);
    }

    /// Turns a bit in what a later write proves to have been durable. `false`: there is nothing of that kind.
    pub fn flip(&mut self, dice: &mut Dice) -> bool {
        if self.last_write == 0 {
            return false;
        }
        let victim = dice.below(self.last_write as u64) as usize;
        self.bytes[victim] ^= 1 << dice.below(8);
        true
    }

    /// What a start finds: every record, oldest first. A torn end is cut off; with `cuts_damage`, which is a mistake,
    /// all that cannot be read is taken for one.
    pub fn recover(&mut self, cuts_damage: bool) -> Result<Vec<PersistRecord>, Damage> {
        let mut records = Vec::new();
        let mut at = 0;
        let bytes = Bytes::copy_from_slice(&self.bytes);
        (self.last_write, self.written) = (0, 0);
        while at < self.bytes.len() {
            let start = at;
            at = read_write(&bytes, start, self.written + 1, &mut records);
            let is_empty = at == start;
            if !is_empty {
                (self.last_write, self.written) = (start, self.written + 1);
            }
            let end = at.next_multiple_of(SECTOR_BYTES);
            if is_empty || self.bytes[at..end].iter().any(|byte| *byte != 0) {
                let unread = self.written + u64::from(is_empty);
                if !cuts_damage && self.has_write_after(at, unread) {
                    return Err(Damage { at });
                }
                self.cut(at);
                break;
            }
            at = end;
        }
        self.records = records.len();
        Ok(records)
    }

    /// Whether any sector behind `at` begins a write that came after that of `number`.
    fn has_write_after(&self, at: usize, number: u64) -> bool {
        let mut sectors = (at.next_multiple_of(SECTOR_BYTES)..self.bytes.len()).step_by(SECTOR_BYTES);
        sectors.any(|start| read(&self.bytes, start).is_some_and(|(other, _)| other > number))
    }

    /// Cuts off what stands at `at` and behind it, and fills up the sector.
    fn cut(&mut self, at: usize) {
        self.bytes.truncate(at);
        self.bytes.resize(at.next_multiple_of(SECTOR_BYTES), 0);
    }
}

/// Takes the records of the write of this number that begins at `at`; where they end.
fn read_write(bytes: &Bytes, mut at: usize, number: u64, records: &mut Vec<PersistRecord>) -> usize {
    while let Some((_, payload)) = read(bytes, at).filter(|(other, _)| *other == number) {
        let record = PersistRecord::decode(&bytes.slice_ref(payload));
        records.push(record.expect("what has its checksum is what was written"));
        at += HEADER_BYTES + payload.len();
    }
    at
}

/// The record that begins at `at`, if there is one: its write, and its payload.
fn read(bytes: &[u8], at: usize) -> Option<(u64, &[u8])> {
    let rest = bytes.get(at..)?;
    let header = rest.get(..HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    let record = rest.get(..HEADER_BYTES.checked_add(length)?)?;
    let is_sound = header[..4] == MAGIC && header[8..12] == checksum(record).to_le_bytes();
    let number = u64::from_le_bytes(header[12..20].try_into().ok()?);
    is_sound.then_some((number, &record[HEADER_BYTES..]))
}

/// Over all of a record but the checksum itself.
fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..8]), &record[12..])
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
    (0..sectors).map(&mut fate).collect()
}

#[cfg(test)]
mod tests {
    use eyot_raft_glue::{EntryBody, EntryKind, EntryPosition, GroupId, HardState, Index, LogEntry, ReadyNumber, Term};

    use super::*;

    fn record(number: u64) -> PersistRecord {
        let position = EntryPosition { term: Term(1), index: Index(number + 1) };
        let body = EntryBody::Data { kind: EntryKind::Commands, bytes: vec![7; 300].into() };
        PersistRecord {
            group: GroupId(0),
            number: ReadyNumber(number),
            must_sync: true,
            hard_state: Some(HardState { term: Term(1), vote: None, commit: Index(0) }),
            snapshot: None,
            entries: vec![LogEntry { position, body }],
        }
    }

    fn numbers(log: &mut Log) -> Vec<u64> {
        log.recover(false).expect("nothing is damaged").iter().map(|record| record.number.0).collect()
    }

    #[test]
    fn of_a_torn_write_any_prefix_of_records_survives_and_the_log_goes_on() {
        let mut seen = [0; 5];
        for seed in 0..2_000 {
            let mut dice = Dice::new(seed, 1);
            let mut log = Log::default();
            log.append(&[record(1), record(2)]);
            let is_torn = log.tear(&(3..=6).map(record).collect::<Vec<_>>(), &mut dice);
            let found = numbers(&mut log);
            assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "seed {seed}");
            assert!(found.len() >= 2 && (is_torn || found.len() == 6), "seed {seed}: {found:?}");
            seen[found.len() - 2] += 1;
            log.append(&[record(9)]);
            assert_eq!(numbers(&mut log), [found.clone(), vec![9]].concat(), "seed {seed}");
            assert_eq!(numbers(&mut log), [found, vec![9]].concat(), "seed {seed}: read twice");
        }
        assert!(seen.iter().all(|&times| times > 50), "{seen:?}");
    }

    #[test]
    fn a_bit_that_turned_anywhere_before_the_last_write_is_refused() {
        let log_of = |writes: u64| {
            let mut log = Log::default();
            (0..writes).for_each(|write| log.append(&[record(2 * write), record(2 * write + 1)]));
            log
        };
        let mut dice = Dice::new(3, 3);
        assert!(!log_of(0).flip(&mut dice) && !log_of(1).flip(&mut dice), "nothing proves the last write");
        let bytes = log_of(3).last_write;
        for at in 0..bytes {
            let mut log = log_of(3);
            log.bytes[at] ^= 1 << (at % 8);
            assert!(log.recover(false).is_err(), "byte {at} of {bytes}");
            assert!(log.recover(true).is_ok(), "the mistake takes it for a torn end");
        }
        for seed in 0..200 {
            let mut log = log_of(4);
            assert!(log.flip(&mut Dice::new(seed, 1)) && log.recover(false).is_err(), "seed {seed}");
        }
    }

    #[test]
    fn several_torn_ends_one_after_the_other_are_no_damage() {
        for seed in 0..500 {
            let mut dice = Dice::new(seed, 2);
            let mut log = Log::default();
            log.append(&[record(1)]);
            for round in 2..8 {
                log.tear(&[record(round), record(round)], &mut dice);
                assert!(numbers(&mut log).starts_with(&[1]), "seed {seed}");
            }
        }
    }
}
