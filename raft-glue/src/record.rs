//! What a replica must find again after a crash: its hard state, its entries, and where its newest snapshot stands.
//!
//! Place in the flow: step 6. A group gives out one [`PersistRecord`] for each of its readies; the log writes it whole
//! or not at all, so that a hard state is never without the entries it was written with.
//!
//! Invariants:
//! - A record has exactly one encoding; the decoder reserves nothing by a length that it has not checked.
//! - The entries of one record are dense, and their terms do not decrease.
//!
//! ```text
//! record       group, number, parts u8: 1 must sync | 2 hard state | 4 snapshot | 8 entries
//!              [hard state] [snapshot] [entries]
//! hard state   term, vote (0: nobody), commit
//! snapshot     index, term, id, membership (see membership.rs)
//! entries      count, index of the first, then each: term, body u8, bytes
//!              body 0: empty, no bytes; 1..=127: data of that kind; 128: a change of membership
//! ```
//! Numbers and bytes are written as in `wire.rs`.
//!
//! Deliberately not here: checksums, and when to write; see `core/batch.rs`.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState as RaftHardState, Snapshot, SnapshotMetadata};

use crate::membership::Membership;
use crate::wire::{put_bytes, put_number, DecodeError, Reader};
use crate::{EntryKind, EntryPosition, GroupId, Index, PeerId, ReadyNumber, SnapshotId, Term};

/// The largest payload of an entry. One entry carries what one turn gathered for one shard; a part of a large value is
/// at most 1 MiB.
pub const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most entries of one message.
pub const ENTRIES_MAX: usize = 65_536;

/// The most entries of one record: those of all messages that come between two polls.
pub const RECORD_ENTRIES_MAX: usize = 1 << 20;

/// The body number of a change of membership; data has the numbers of [`EntryKind`] below it.
const MEMBERSHIP_BODY: u8 = 128;

const MUST_SYNC: u8 = 1;
const HAS_HARD_STATE: u8 = 2;
const HAS_SNAPSHOT: u8 = 4;
const HAS_ENTRIES: u8 = 8;

/// What a replica promised, and what it knows to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HardState {
    /// The newest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<PeerId>,
    /// An index up to which it knows the log to be committed.
    pub commit: Index,
}

impl HardState {
    pub(crate) fn from_raft(state: &RaftHardState) -> Self {
        let vote = (state.vote != 0).then_some(PeerId(state.vote));
        Self { term: Term(state.term), vote, commit: Index(state.commit) }
    }

    pub(crate) fn to_raft(self) -> RaftHardState {
        let vote = self.vote.map_or(0, |peer| peer.0);
        RaftHardState { term: self.term.0, vote, commit: self.commit.0 }
    }
}

/// Where a snapshot stands in the log, and who belonged to the group there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SnapshotMeta {
    /// The last entry whose effect it contains; index 0 for none.
    pub position: EntryPosition,
    /// The membership after that entry.
    pub membership: Membership,
    /// The builder's name for the data.
    pub id: SnapshotId,
}

impl SnapshotMeta {
    pub(crate) fn from_raft(snapshot: &Snapshot) -> Result<Self, DecodeError> {
        let metadata = snapshot.get_metadata();
        let id: [u8; 8] = snapshot.data.as_ref().try_into().map_err(|_| DecodeError::OutOfRange("a snapshot's id"))?;
        Ok(Self {
            position: EntryPosition { term: Term(metadata.term), index: Index(metadata.index) },
            membership: Membership::from_raft(metadata.get_conf_state()),
            id: SnapshotId(u64::from_le_bytes(id)),
        })
    }

    pub(crate) fn to_raft(&self) -> Snapshot {
        let metadata = SnapshotMetadata {
            conf_state: Some(self.membership.to_raft()),
            index: self.position.index.0,
            term: self.position.term.0,
        };
        Snapshot { data: Bytes::copy_from_slice(&self.id.0.to_le_bytes()), metadata: Some(metadata) }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.position.index.0);
        put_number(out, self.position.term.0);
        put_number(out, self.id.0);
        self.membership.encode(out);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let index = index(reader, "a snapshot's index")?;
        let term = Term(reader.number_up_to(Term::MAX.0, "a snapshot's term")?);
        let id = SnapshotId(reader.number("a snapshot's id")?);
        Ok(Self { position: EntryPosition { term, index }, id, membership: Membership::decode(reader)? })
    }
}

/// What an entry carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EntryBody {
    /// Nothing: a leader's first entry of its term, or a change of membership that came to nothing.
    Empty,
    /// What was proposed.
    Data {
        /// What the bytes are.
        kind: EntryKind,
        /// The payload as it was given.
        bytes: Bytes,
    },
    /// A change of membership, for this crate alone.
    Membership(Bytes),
}

/// One entry of a group's log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogEntry {
    /// Where it stands.
    pub position: EntryPosition,
    /// What it carries.
    pub body: EntryBody,
}

impl LogEntry {
    /// Payload bytes.
    pub fn byte_length(&self) -> usize {
        match &self.body {
            EntryBody::Empty => 0,
            EntryBody::Data { bytes, .. } | EntryBody::Membership(bytes) => bytes.len(),
        }
    }

    pub(crate) fn from_raft(entry: Entry) -> Self {
        let position = EntryPosition { term: Term(entry.term), index: Index(entry.index) };
        let body = if entry.entry_type != EntryType::EntryNormal as i32 {
            EntryBody::Membership(entry.data)
        } else if let [kind] = entry.context[..] {
            let kind = EntryKind::from_number(kind).expect("every way into the log checks the kind");
            EntryBody::Data { kind, bytes: entry.data }
        } else {
            EntryBody::Empty
        };
        Self { position, body }
    }

    pub(crate) fn to_raft(&self) -> Entry {
        let (entry_type, data, context) = match &self.body {
            EntryBody::Empty => (EntryType::EntryNormal, Bytes::new(), Bytes::new()),
            EntryBody::Data { kind, bytes } => (EntryType::EntryNormal, bytes.clone(), kind_context(*kind)),
            EntryBody::Membership(bytes) => (EntryType::EntryConfChangeV2, bytes.clone(), Bytes::new()),
        };
        Entry {
            entry_type: entry_type as i32,
            term: self.position.term.0,
            index: self.position.index.0,
            data,
            context,
            sync_log: false,
        }
    }

    /// Appends term, body number and payload; the index follows from the place in the list.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.position.term.0);
        match &self.body {
            EntryBody::Empty => out.push(0),
            EntryBody::Data { kind, bytes } => {
                out.push(*kind as u8);
                put_bytes(out, bytes);
            }
            EntryBody::Membership(bytes) => {
                out.push(MEMBERSHIP_BODY);
                put_bytes(out, bytes);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader, index: Index) -> Result<Self, DecodeError> {
        let term = Term(reader.number_up_to(Term::MAX.0, "an entry's term")?);
        let body = match reader.byte("an entry's body")? {
            0 => EntryBody::Empty,
            MEMBERSHIP_BODY => {
                let bytes = reader.bytes(ENTRY_BYTES_MAX, "a membership entry")?;
                crate::membership::decode_change(&bytes)?;
                EntryBody::Membership(bytes)
            }
            number => {
                let kind = EntryKind::from_number(number).ok_or(DecodeError::OutOfRange("an entry's kind"))?;
                EntryBody::Data { kind, bytes: reader.bytes(ENTRY_BYTES_MAX, "an entry's data")? }
            }
        };
        Ok(Self { position: EntryPosition { term, index }, body })
    }
}

/// How the kind of data travels through the consensus library: one byte beside the data.
pub(crate) fn kind_context(kind: EntryKind) -> Bytes {
    match kind {
        EntryKind::Commands => Bytes::from_static(&[EntryKind::Commands as u8]),
        EntryKind::ValuePart => Bytes::from_static(&[EntryKind::ValuePart as u8]),
    }
}

/// What one ready of a group needs on disk, whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistRecord {
    /// Whose it is.
    pub group: GroupId,
    /// Which of the group's; they rise by at least one, and are written in this order.
    pub number: ReadyNumber,
    /// Whether the group waits for it. If not, it goes into the log with whatever is synced next.
    pub must_sync: bool,
    /// The hard state, when it changed.
    pub hard_state: Option<HardState>,
    /// The snapshot that takes the place of the log so far.
    pub snapshot: Option<SnapshotMeta>,
    /// Entries to append; the log is cut off before the first of them.
    pub entries: Vec<LogEntry>,
}

impl PersistRecord {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, u64::from(self.group.0));
        put_number(out, self.number.0);
        let part = |there: bool, bit: u8| if there { bit } else { 0 };
        out.push(
            part(self.must_sync, MUST_SYNC)
                | part(self.hard_state.is_some(), HAS_HARD_STATE)
                | part(self.snapshot.is_some(), HAS_SNAPSHOT)
                | part(!self.entries.is_empty(), HAS_ENTRIES),
        );
        if let Some(state) = &self.hard_state {
            put_number(out, state.term.0);
            put_number(out, state.vote.map_or(0, |peer| peer.0));
            put_number(out, state.commit.0);
        }
        if let Some(snapshot) = &self.snapshot {
            snapshot.encode(out);
        }
        encode_entries(&self.entries, out);
    }

    /// Reads one record, which is all of `bytes`. Payloads are slices of `bytes`, not copies.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes.clone());
        let group = GroupId(reader.number_up_to(u64::from(u32::MAX), "a record's group")? as u32);
        let number = ReadyNumber(reader.number("a record's number")?);
        let parts = reader.byte("a record's parts")?;
        if parts >= HAS_ENTRIES << 1 {
            return Err(DecodeError::OutOfRange("a record's parts"));
        }
        let hard_state = (parts & HAS_HARD_STATE != 0).then(|| decode_hard_state(&mut reader)).transpose()?;
        let snapshot = (parts & HAS_SNAPSHOT != 0).then(|| SnapshotMeta::decode(&mut reader)).transpose()?;
        let entries = if parts & HAS_ENTRIES != 0 { decode_entries(&mut reader)? } else { Vec::new() };
        reader.end("a record")?;
        Ok(Self { group, number, must_sync: parts & MUST_SYNC != 0, hard_state, snapshot, entries })
    }
}

fn decode_hard_state(reader: &mut Reader) -> Result<HardState, DecodeError> {
    let term = Term(reader.number_up_to(Term::MAX.0, "a hard state's term")?);
    let vote = PeerId(reader.number("a hard state's vote")?);
    let commit = index(reader, "a hard state's commit")?;
    Ok(HardState { term, vote: (vote.0 != 0).then_some(vote), commit })
}

fn encode_entries(entries: &[LogEntry], out: &mut Vec<u8>) {
    if let Some(first) = entries.first() {
        put_number(out, entries.len() as u64);
        put_number(out, first.position.index.0);
        entries.iter().for_each(|entry| entry.encode(out));
    }
}

fn decode_entries(reader: &mut Reader) -> Result<Vec<LogEntry>, DecodeError> {
    let count = reader.count(RECORD_ENTRIES_MAX, 2, "a list of entries")?;
    let first = index(reader, "an entry's index")?;
    if count == 0 || first.0 == 0 || first.0 + count as u64 > Index::MAX.0 {
        return Err(DecodeError::OutOfRange("a list of entries"));
    }
    decode_dense(reader, count, first)
}

/// Reads `count` entries that stand one after the other from `first` on. The caller has compared `count` with what is
/// left.
pub(crate) fn decode_dense(reader: &mut Reader, count: usize, first: Index) -> Result<Vec<LogEntry>, DecodeError> {
    let mut entries: Vec<LogEntry> = Vec::with_capacity(count);
    for position in 0..count as u64 {
        let entry = LogEntry::decode(reader, Index(first.0 + position))?;
        if entries.last().is_some_and(|last| last.position.term > entry.position.term) {
            return Err(DecodeError::OutOfRange("an entry's term"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// An index that a version can name.
pub(crate) fn index(reader: &mut Reader, what: &'static str) -> Result<Index, DecodeError> {
    reader.number_up_to(Index::MAX.0, what).map(Index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body() -> impl Strategy<Value = EntryBody> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            Just(EntryBody::Empty),
            bytes().prop_map(|bytes| EntryBody::Data { kind: EntryKind::Commands, bytes }),
            bytes().prop_map(|bytes| EntryBody::Data { kind: EntryKind::ValuePart, bytes }),
            (1..9_u64).prop_map(|peer| {
                EntryBody::Membership(crate::membership::encode_change(&[crate::MembershipChange::Promote(PeerId(
                    peer,
                ))]))
            }),
        ]
    }

    prop_compose! {
        fn record()(
            group in any::<u32>(),
            number in any::<u64>(),
            must_sync in any::<bool>(),
            hard_state in prop::option::of((0..=Term::MAX.0, 0..5_u64, 0..1000_u64)),
            snapshot in
                prop::option::of((1..1000_u64, 0..=Term::MAX.0, any::<u64>(), prop::collection::vec(1..99_u64, 0..5))),
            first in 1..1_000_000_u64,
            bodies in prop::collection::vec((0..3_u64, body()), 0..6),
        ) -> PersistRecord {
            let mut term = 1;
            let entries = bodies.into_iter().enumerate().map(|(place, (later, body))| {
                term += later;
                LogEntry { position: EntryPosition { term: Term(term), index: Index(first + place as u64) }, body }
            });
            PersistRecord {
                group: GroupId(group),
                number: ReadyNumber(number),
                must_sync,
                hard_state: hard_state.map(|(term, vote, commit)| {
                    HardState { term: Term(term), vote: (vote != 0).then_some(PeerId(vote)), commit: Index(commit) }
                }),
                snapshot: snapshot.map(|(index, term, id, peers)| SnapshotMeta {
                    position: EntryPosition { term: Term(term), index: Index(index) },
                    membership: Membership::new(peers.into_iter().map(PeerId), []),
                    id: SnapshotId(id),
                }),
                entries: entries.collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_record_survives_its_encoding(record in record()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(PersistRecord::decode(&bytes.into()), Ok(record));
        }

        #[test]
        fn damage_gives_an_error_or_another_record_and_never_two_encodings(
            record in record(),
            place in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let place = place.index(bytes.len());
            bytes[place] = byte;
            if let Ok(other) = PersistRecord::decode(&Bytes::from(bytes.clone())) {
                let mut again = Vec::new();
                other.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
