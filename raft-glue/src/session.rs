//! Sessions: a command that is sent twice is executed once.
//!
//! Place in the flow: step 8. The table is part of a shard's state machine and of its snapshots; it changes by applied
//! commands alone, so it is the same on every replica.
//!
//! ```text
//! open ► id (the place of the opening command in the log)
//! command with (id, sequence, acknowledged) ► execute | the stored reply | stale | too far ahead | expired
//! ```
//!
//! Invariants:
//! - A command of a session that is not here is never executed: nobody can tell whether it was before.
//! - Sequences of a session may come in any order. The replies above what the client has acknowledged are kept; the
//!   client has at most [`WINDOW`] commands above it, and a command beyond that is refused.
//! - Who expires depends on the log alone: the session whose last use is the earliest in the log, when the table is
//!   full; or those not used since a place that the leader proposes. Never on a clock.
//!
//! Source: Ongaro, "Consensus: bridging theory and practice", 6.3; Lee et al., "Implementing linearizability at large
//! scale and low latency" (RIFL), SOSP 2015, for the acknowledged prefix.
//!
//! ```text
//! table     version u8 = 1, capacity, count, then each session in order of id:
//! session   id, last use - id, acknowledged, count, then each reply in order of sequence:
//! reply     sequence - acknowledged (1..=64), flag: kept, [bytes]
//! ```
//! Numbers, flags and bytes are written as in `wire.rs`; ids and uses are [`Version`] numbers.
//!
//! Deliberately not here: what commands do, and how a client numbers them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::wire::{put_bytes, put_number, DecodeError, Reader};
use crate::{PlantedBug, Version};

/// Commands that a client may have under way above what it acknowledged.
pub const WINDOW: u64 = 64;

/// Sessions of one shard. Gateways hold one for each of their cores; with all replies kept this is 64 MiB.
pub const SESSIONS_MAX: usize = 1024;

/// The largest capacity that a snapshot may name.
const CAPACITY_MAX: usize = 1 << 16;

/// A reply above this size is not kept: who repeats the command learns that it was executed, and not what it gave.
pub const STORED_REPLY_BYTES_MAX: usize = 1024;

/// The version of the table's encoding.
const FORMAT: u8 = 1;

/// Names a session: where in the log it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub Version);

/// What is to be done with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Execute it, and say [`SessionTable::complete`] with the reply.
    Execute,
    /// It was executed. The reply, unless that was too large to be kept.
    Repeated(Option<Bytes>),
    /// The client has acknowledged the reply: this is a late copy. Nothing is done.
    Stale,
    /// The sequence is more than [`WINDOW`] above what is acknowledged. Nothing is done.
    TooFarAhead,
    /// The session is not here. Nothing is done; the client cannot know whether the command was executed before.
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Session {
    last_use: Version,
    acknowledged: u64,
    replies: BTreeMap<u64, Option<Bytes>>,
}

/// The sessions of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTable {
    capacity: usize,
    sessions: BTreeMap<SessionId, Session>,
    /// The same sessions, by their last use.
    by_use: BTreeSet<(Version, SessionId)>,
    #[cfg(feature = "planted-bugs")]
    planted: Option<PlantedBug>,
}

impl Default for SessionTable {
    fn default() -> Self {
        Self::new(SESSIONS_MAX)
    }
}

impl SessionTable {
    /// An empty table with room for `capacity` sessions. All replicas of a shard need the same; snapshots carry it.
    pub fn new(capacity: usize) -> Self {
        assert!((1..=CAPACITY_MAX).contains(&capacity), "a table for {capacity} sessions");
        Self {
            capacity,
            sessions: BTreeMap::new(),
            by_use: BTreeSet::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    /// The same with a mistake.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn with_planted(mut self, bug: Option<PlantedBug>) -> Self {
        self.planted = bug;
        self
    }

    #[cfg(feature = "planted-bugs")]
    fn plants(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    #[cfg(not(feature = "planted-bugs"))]
    #[allow(clippy::unused_self)]
    const fn plants(&self, _: PlantedBug) -> bool {
        false
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Applies an opening command that stands at `at`. Where the table is full, the session that was used least
    /// recently expires. A client that sends it twice opens two; the one that it does not use expires.
    pub fn open(&mut self, at: Version) -> SessionId {
        let id = SessionId(at);
        if self.sessions.len() >= self.capacity {
            let (_, oldest) = self.by_use.pop_first().expect("a full table has sessions");
            self.sessions.remove(&oldest);
        }
        let before = self.sessions.insert(id, Session { last_use: at, ..Session::default() });
        assert!(before.is_none(), "two commands stand at {at}");
        self.by_use.insert((at, id));
        id
    }

    /// Ends a session that its client has given up.
    pub fn close(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_use.remove(&(session.last_use, id));
        }
    }

    /// Applies the expiry of all sessions that were not used at `before` or later. How many these were.
    pub fn expire(&mut self, before: Version) -> usize {
        let kept = self.by_use.split_off(&(before, SessionId::default()));
        let expired = std::mem::replace(&mut self.by_use, kept);
        expired.iter().for_each(|(_, id)| drop(self.sessions.remove(id)));
        expired.len()
    }

    /// Asks what is to be done with a command that stands at `at`. `acknowledged` is the client's word that it has the
    /// replies of all sequences up to there.
    pub fn admit(&mut self, at: Version, id: SessionId, sequence: u64, acknowledged: u64) -> Admission {
        let planted = |bug| self.plants(bug);
        let (skipped, stale) = (planted(PlantedBug::SkippedSessionCheck), planted(PlantedBug::StaleSessionReply));
        let Some(session) = self.sessions.get_mut(&id) else {
            let executes = self.plants(PlantedBug::ExpiredSessionExecutes);
            return if executes { Admission::Execute } else { Admission::Expired };
        };
        self.by_use.remove(&(session.last_use, id));
        session.last_use = session.last_use.max(at);
        self.by_use.insert((session.last_use, id));
        if acknowledged > session.acknowledged {
            session.acknowledged = acknowledged;
            session.replies.retain(|sequence, _| *sequence > acknowledged);
        }
        if skipped {
            return Admission::Execute;
        }
        if stale && session.replies.keys().next_back().is_some_and(|last| *last >= sequence) {
            return Admission::Repeated(session.replies.values().next_back().cloned().flatten());
        }
        if sequence <= session.acknowledged {
            return Admission::Stale;
        }
        if let Some(reply) = session.replies.get(&sequence) {
            return Admission::Repeated(reply.clone());
        }
        if sequence - session.acknowledged > WINDOW {
            return Admission::TooFarAhead;
        }
        Admission::Execute
    }

    /// Keeps the reply of a command that was executed.
    pub fn complete(&mut self, id: SessionId, sequence: u64, reply: &Bytes) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if (1..=WINDOW).contains(&sequence.wrapping_sub(session.acknowledged)) {
            let kept = reply.len() <= STORED_REPLY_BYTES_MAX;
            session.replies.insert(sequence, kept.then(|| Bytes::copy_from_slice(reply)));
        }
    }

    /// Appends the encoding, which is equal where tables are.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        put_number(out, self.capacity as u64);
        put_number(out, self.sessions.len() as u64);
        for (id, session) in &self.sessions {
            let forgets = self.plants(PlantedBug::SessionUseNotInSnapshot);
            put_number(out, id.0 .0);
            put_number(out, if forgets { 0 } else { session.last_use.0 - id.0 .0 });
            put_number(out, session.acknowledged);
            put_number(out, session.replies.len() as u64);
            for (sequence, reply) in &session.replies {
                put_number(out, sequence - session.acknowledged);
                out.push(u8::from(reply.is_some()));
                if let Some(reply) = reply {
                    put_bytes(out, reply);
                }
            }
        }
    }

    /// Reads a table, which is all of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes.clone());
        if reader.byte("a session table's version")? != FORMAT {
            return Err(DecodeError::OutOfRange("a session table's version"));
        }
        let capacity = reader.number_up_to(CAPACITY_MAX as u64, "a session table's capacity")? as usize;
        if capacity == 0 {
            return Err(DecodeError::OutOfRange("a session table's capacity"));
        }
        let mut table = Self::new(capacity);
        for _ in 0..reader.count(capacity, 4, "a session table")? {
            let (id, session) = decode_session(&mut reader)?;
            if table.sessions.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(DecodeError::OutOfRange("a session's id"));
            }
            table.by_use.insert((session.last_use, id));
            table.sessions.insert(id, session);
        }
        reader.end("a session table")?;
        Ok(table)
    }
}

fn decode_session(reader: &mut Reader) -> Result<(SessionId, Session), DecodeError> {
    let id = reader.number("a session's id")?;
    let used = reader.number("a session's use")?;
    let last_use = id.checked_add(used).ok_or(DecodeError::OutOfRange("a session's use"))?;
    let acknowledged = reader.number("a session's acknowledged sequence")?;
    let mut session = Session { last_use: Version(last_use), acknowledged, replies: BTreeMap::new() };
    for _ in 0..reader.count(WINDOW as usize, 2, "a session's replies")? {
        let ahead = reader.number_up_to(WINDOW, "a reply's sequence")?;
        let sequence = acknowledged.checked_add(ahead).ok_or(DecodeError::OutOfRange("a reply's sequence"))?;
        if ahead == 0 || session.replies.last_key_value().is_some_and(|(last, _)| *last >= sequence) {
            return Err(DecodeError::OutOfRange("a reply's sequence"));
        }
        let kept = reader.flag("a reply")?;
        let reply = kept.then(|| reader.bytes(STORED_REPLY_BYTES_MAX, "a reply")).transpose()?;
        session.replies.insert(sequence, reply.map(|reply| Bytes::copy_from_slice(&reply)));
    }
    Ok((SessionId(Version(id)), session))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Index;

    fn at(index: u64) -> Version {
        Version::new(Index(index), 0)
    }

    fn reply(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_command_that_comes_twice_is_executed_once() {
        let mut table = SessionTable::default();
        let id = table.open(at(5));
        assert_eq!(table.admit(at(6), id, 1, 0), Admission::Execute);
        table.complete(id, 1, &reply("one"));
        assert_eq!(table.admit(at(7), id, 1, 0), Admission::Repeated(Some(reply("one"))));
    }

    #[test]
    fn the_last_sequence_of_all_leaves_a_table_that_can_be_read() {
        let mut table = SessionTable::default();
        let id = table.open(at(5));
        assert_eq!(table.admit(at(6), id, u64::MAX, u64::MAX - 1), Admission::Execute);
        table.complete(id, u64::MAX, &reply("last"));
        assert_eq!(table.admit(at(7), id, u64::MAX, u64::MAX), Admission::Stale);
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        assert_eq!(SessionTable::decode(&bytes.into()), Ok(table));
    }

    #[test]
    fn sequences_may_come_in_any_order_within_the_window() {
        let mut table = SessionTable::default();
        let id = table.open(at(5));
        for sequence in [3, 1, WINDOW, 2] {
            assert_eq!(table.admit(at(6), id, sequence, 0), Admission::Execute, "{sequence}");
            table.complete(id, sequence, &reply("it"));
            assert_eq!(table.admit(at(6), id, sequence, 0), Admission::Repeated(Some(reply("it"))), "{sequence}");
        }
        assert_eq!(table.admit(at(7), id, WINDOW + 1, 0), Admission::TooFarAhead);
        assert_eq!(table.admit(at(8), id, WINDOW + 1, 1), Admission::Execute);
        assert_eq!(table.admit(at(9), id, 1, 1), Admission::Stale);
        assert_eq!(table.admit(at(9), id, 2, 0), Admission::Repeated(Some(reply("it"))));
    }

    #[test]
    fn a_command_of_an_unknown_session_is_never_executed() {
        let mut table = SessionTable::new(2);
        let first = table.open(at(1));
        let second = table.open(at(2));
        assert_eq!(table.admit(at(3), first, 1, 0), Admission::Execute);
        let third = table.open(at(4));
        assert_eq!(table.admit(at(5), second, 1, 0), Admission::Expired, "it was used least recently");
        assert_eq!(table.admit(at(6), first, 2, 1), Admission::Execute);
        assert_eq!(table.expire(at(6)), 1);
        assert_eq!(table.admit(at(7), third, 1, 0), Admission::Expired);
        table.close(first);
        assert_eq!(table.admit(at(8), first, 2, 1), Admission::Expired);
        assert!(table.is_empty());
    }

    #[test]
    fn a_large_reply_is_not_kept_and_the_command_is_not_repeated() {
        let mut table = SessionTable::default();
        let id = table.open(at(1));
        assert_eq!(table.admit(at(2), id, 1, 0), Admission::Execute);
        table.complete(id, 1, &Bytes::from(vec![0; STORED_REPLY_BYTES_MAX + 1]));
        assert_eq!(table.admit(at(3), id, 1, 0), Admission::Repeated(None));
    }

    #[test]
    fn a_table_has_the_bytes_of_the_diagram() {
        let mut table = SessionTable::new(300);
        let id = table.open(Version(5));
        table.admit(Version(9), id, 3, 2);
        table.complete(id, 3, &reply("ok"));
        table.complete(id, 5, &Bytes::from(vec![0; 2000]));
        table.open(Version(200));
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        let golden = [1, 0xac, 2, 2, 5, 4, 2, 2, 1, 1, 2, b'o', b'k', 3, 0, 0xc8, 1, 0, 0, 0];
        assert_eq!(bytes, golden);
        assert_eq!(SessionTable::decode(&bytes.into()), Ok(table));
    }

    #[test]
    fn a_table_with_more_than_one_encoding_is_refused() {
        for bad in [
            &[2, 1, 0][..],                     // another version
            &[1, 0, 0],                         // no capacity
            &[1, 1, 2, 5, 0, 0, 0, 6, 0, 0, 0], // more than the capacity
            &[1, 9, 2, 6, 0, 0, 0, 5, 0, 0, 0], // ids fall
            &[1, 9, 1, 5, 0, 0, 1, 0, 0],       // a reply that is acknowledged
            &[1, 9, 1, 5, 0, 0, 1, 65, 0],      // a reply beyond the window
            &[1, 9, 1, 5, 0, 0, 2, 2, 0, 1, 0], // replies fall
            &[1, 9, 0, 0],                      // bytes are left
        ] {
            assert!(SessionTable::decode(&Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }

    /// What may happen to a table.
    #[derive(Debug, Clone)]
    enum Step {
        Open,
        Command { session: usize, sequence: u64, acknowledged: u64 },
        Expire { back: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Open),
            8 => (0..6_usize, 1..90_u64, 0..40_u64)
                .prop_map(|(session, sequence, acknowledged)| Step::Command { session, sequence, acknowledged }),
            1 => (0..30_u64).prop_map(|back| Step::Expire { back }),
        ]
    }

    proptest! {
        /// Two tables that see the same log are equal, one of them by way of its bytes after every step; and no
        /// command of a session is executed twice.
        #[test]
        fn a_table_follows_from_the_log_alone(steps in prop::collection::vec(step(), 1..200)) {
            let mut table = SessionTable::new(3);
            let mut copy = SessionTable::new(3);
            let mut opened = Vec::new();
            let mut executed = BTreeSet::new();
            for (index, step) in steps.into_iter().enumerate() {
                let place = at(index as u64 + 1);
                match step {
                    Step::Open => {
                        opened.push(table.open(place));
                        copy.open(place);
                    }
                    Step::Command { session, sequence, acknowledged } => {
                        let Some(id) = opened.iter().rev().nth(session).copied() else { continue };
                        let admission = table.admit(place, id, sequence, acknowledged);
                        prop_assert_eq!(&copy.admit(place, id, sequence, acknowledged), &admission);
                        let text = Bytes::from(format!("{id:?} {sequence}"));
                        match admission {
                            Admission::Execute => {
                                prop_assert!(executed.insert((id, sequence)), "{:?} {} again", id, sequence);
                                table.complete(id, sequence, &text);
                                copy.complete(id, sequence, &text);
                            }
                            Admission::Repeated(reply) => {
                                prop_assert!(executed.contains(&(id, sequence)));
                                prop_assert_eq!(reply, Some(text));
                            }
                            Admission::Stale | Admission::TooFarAhead | Admission::Expired => {}
                        }
                    }
                    Step::Expire { back } => {
                        let before = at((index as u64).saturating_sub(back));
                        prop_assert_eq!(table.expire(before), copy.expire(before));
                    }
                }
                prop_assert!(table.len() <= 3);
                let mut bytes = Vec::new();
                table.encode(&mut bytes);
                copy = SessionTable::decode(&bytes.into()).expect("what was encoded");
                prop_assert_eq!(&copy, &table);
            }
        }
    }
}
