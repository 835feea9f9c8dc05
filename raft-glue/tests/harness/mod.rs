//! A group in memory, driven step by step: replicas, their disks, and the messages between them.
//!
//! What the caller of a group has to do is done here in the simplest way, so that a test can leave a duty out, delay
//! it, or do it in a bad moment. Nothing happens by itself: a test says what is delivered, synced, applied.

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use eyot_raft_glue::{
    Apply, EntryBody, EntryKind, EntryPosition, Event, Fate, Group, GroupId, HardState, Identity, Index, Install,
    LogEntry, Membership, MembershipChange, MembershipError, MessageKind, Output, PeerId, PeerMessage, PersistRecord,
    ProposalOutcome, ProposeError, ReadFailure, ReadId, ReadKind, ReadOutcome, ReadyNumber, Recovered, Role, Settings,
    SnapshotId, SnapshotMeta, Staged, Term,
};

pub const GROUP: GroupId = GroupId(7);
pub const TICK_US: u64 = 50_000;

/// What a replica's state machine holds: what was applied, in order.
pub type State = Vec<(EntryPosition, Bytes)>;

/// A snapshot that is durable on some replica.
#[derive(Debug, Clone)]
pub struct Stored {
    pub meta: SnapshotMeta,
    pub state: State,
}

/// One replica: its group, its disk, its state machine.
pub struct Replica {
    pub peer: PeerId,
    pub incarnation: u64,
    pub group: Option<Group>,
    pub settings: Settings,
    pub founding: Recovered,
    /// Records that are on disk.
    pub disk: Vec<PersistRecord>,
    /// Records that are written and not synced.
    pub unsynced: Vec<PersistRecord>,
    /// Entries that are given out and not applied.
    pub to_apply: VecDeque<LogEntry>,
    pub to_install: Option<SnapshotMeta>,
    pub state: State,
    pub applied: Index,
    pub newest_snapshot: Option<Stored>,
    /// Data that was fetched for an offer.
    pub staged: Option<Stored>,
    pub offered: Option<(PeerId, SnapshotMeta)>,
    pub streams: Vec<(PeerId, SnapshotMeta)>,
    pub proposals: Vec<ProposalOutcome>,
    pub reads: Vec<ReadOutcome>,
    pub events: Vec<Event>,
}

impl Replica {
    pub fn group(&mut self) -> &mut Group {
        self.group.as_mut().expect("the replica lives")
    }

    pub fn fate(&self, position: EntryPosition) -> Option<Fate> {
        self.proposals.iter().find(|outcome| outcome.position == position).map(|outcome| outcome.fate)
    }

    pub fn granted(&self, id: u64) -> Option<Result<Index, ReadFailure>> {
        self.reads.iter().find(|outcome| outcome.id == ReadId(id)).map(|outcome| outcome.result)
    }

    pub fn commands(&self) -> Vec<String> {
        self.state.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

/// Replicas and what is between them.
pub struct Cluster {
    pub replicas: BTreeMap<PeerId, Replica>,
    pub wire: VecDeque<PeerMessage>,
    /// Messages of these pairs are lost.
    pub cut: BTreeSet<(PeerId, PeerId)>,
    /// Whether every record is synced at once, every entry applied, every snapshot built and fetched.
    pub sync: bool,
    pub apply: bool,
    pub snapshots: bool,
    pub now_us: u64,
    /// Every message that left a replica, as it was encoded.
    pub sent: Vec<(PeerMessage, Vec<u8>)>,
    next_snapshot: u64,
}

pub fn peers(numbers: impl IntoIterator<Item = u64>) -> Vec<PeerId> {
    numbers.into_iter().map(PeerId).collect()
}

pub fn settings() -> Settings {
    Settings { tick_interval_us: TICK_US, lag_entries_max: 5, ..Settings::default() }
}

/// The bytes of a message: group, from, to, kind, and the fields that the format names.
pub fn message_bytes(from: u64, to: u64, kind: MessageKind, fields: &[u64]) -> Bytes {
    let mut bytes = Vec::new();
    let numbers = [u64::from(GROUP.0), from, to, kind as u64];
    for mut number in numbers.into_iter().chain(fields.iter().copied()) {
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }
    bytes.into()
}

/// A message of these fields.
pub fn message(from: u64, to: u64, kind: MessageKind, fields: &[u64]) -> PeerMessage {
    PeerMessage::decode(&message_bytes(from, to, kind, fields)).expect("a message")
}

impl Cluster {
    /// Replicas `1..=voters`, and learners after them.
    pub fn new(voters: u64, learners: u64, settings: &Settings) -> Self {
        let membership = Membership::new(peers(1..=voters), peers(voters + 1..=voters + learners));
        let mut cluster = Self {
            replicas: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            sync: true,
            apply: true,
            snapshots: true,
            now_us: 0,
            sent: Vec::new(),
            next_snapshot: 0,
        };
        for peer in membership.peers() {
            cluster.add(peer, settings, Recovered::founding(membership.clone()));
        }
        cluster
    }

    pub fn add(&mut self, peer: PeerId, settings: &Settings, recovered: Recovered) {
        let applied = recovered.applied;
        let replica = Replica {
            peer,
            incarnation: 1,
            group: None,
            settings: settings.clone(),
            founding: recovered.clone(),
            disk: Vec::new(),
            unsynced: Vec::new(),
            to_apply: VecDeque::new(),
            to_install: None,
            state: State::new(),
            applied,
            newest_snapshot: None,
            staged: None,
            offered: None,
            streams: Vec::new(),
            proposals: Vec::new(),
            reads: Vec::new(),
            events: Vec::new(),
        };
        self.replicas.insert(peer, replica);
        self.start(peer, recovered);
    }

    fn start(&mut self, peer: PeerId, recovered: Recovered) {
        let replica = self.replicas.get_mut(&peer).expect("a replica");
        let identity = Identity { group: GROUP, peer, incarnation: replica.incarnation, seed: 11 };
        replica.applied = recovered.applied;
        replica.group = Some(Group::new(identity, replica.settings.clone(), recovered).expect("a sound log"));
    }

    pub fn replica(&mut self, peer: u64) -> &mut Replica {
        self.replicas.get_mut(&PeerId(peer)).expect("a replica of that id")
    }

    pub fn group(&mut self, peer: u64) -> &mut Group {
        self.replica(peer).group()
    }

    /// The process ends. Of what was not synced, the first `kept` records are on disk all the same.
    pub fn crash(&mut self, peer: u64, kept: usize) {
        let replica = self.replica(peer);
        replica.group = None;
        let kept = kept.min(replica.unsynced.len());
        replica.disk.extend(replica.unsynced.drain(..kept));
        replica.unsynced.clear();
        replica.to_apply.clear();
        replica.to_install = None;
        replica.offered = None;
        replica.streams.clear();
        replica.state.clear();
        self.wire.retain(|message| message.from() != PeerId(peer) && message.to() != PeerId(peer));
    }

    /// What the disk of a replica gives to a new life.
    pub fn recovered(&mut self, peer: u64) -> (Recovered, State) {
        let replica = self.replica(peer);
        let mut recovered = replica.founding.clone();
        replica.disk.iter().cloned().for_each(|record| recovered.replay(record));
        let mut state = State::new();
        let mut stored: Vec<&Stored> = [&replica.newest_snapshot, &replica.staged].into_iter().flatten().collect();
        stored.sort_by_key(|stored| std::cmp::Reverse(stored.meta.position.index));
        let start = recovered.snapshot.position.index..=recovered.hard_state.commit;
        // The newest from which the log goes on; one that was fetched and not ordered to be installed may be beyond.
        if let Some(stored) = stored.into_iter().find(|stored| start.contains(&stored.meta.position.index)) {
            if stored.meta.position.index > recovered.snapshot.position.index {
                recovered.start_at(stored.meta.clone());
            }
            state.clone_from(&stored.state);
        }
        (recovered, state)
    }

    pub fn restart(&mut self, peer: u64) {
        let (recovered, state) = self.recovered(peer);
        let replica = self.replica(peer);
        replica.incarnation += 1;
        replica.state = state;
        self.start(PeerId(peer), recovered);
    }

    /// One tick on each living replica, and everything that follows from it.
    pub fn tick(&mut self) {
        self.now_us += TICK_US;
        let now_us = self.now_us;
        for replica in self.replicas.values_mut() {
            if let Some(group) = &mut replica.group {
                group.tick(now_us);
            }
        }
        self.settle();
    }

    pub fn ticks(&mut self, count: usize) {
        (0..count).for_each(|_| self.tick());
    }

    /// One tick on one replica, and nothing else.
    pub fn tick_one(&mut self, peer: u64) {
        let now_us = self.now_us;
        self.group(peer).tick(now_us);
    }

    /// Does what is to be done until nothing is left, with messages in their order.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            self.poll_all();
            match self.wire.pop_front() {
                Some(message) => self.deliver(message),
                None if self.is_quiet() => return,
                None => {}
            }
        }
        panic!("it never settles");
    }

    fn is_quiet(&self) -> bool {
        self.replicas.values().all(|replica| replica.group.as_ref().is_none_or(|group| !group.has_work()))
    }

    pub fn poll_all(&mut self) {
        let living: Vec<PeerId> =
            self.replicas.values().filter(|replica| replica.group.is_some()).map(|replica| replica.peer).collect();
        living.into_iter().for_each(|peer| self.poll(peer.0));
    }

    /// Polls one replica until it is quiet, and does with its output what is switched on.
    pub fn poll(&mut self, peer: u64) {
        loop {
            let mut out = Output::default();
            let more = self.group(peer).poll(&mut out);
            let idle = !more && out.is_empty();
            self.take(peer, out);
            if self.sync {
                self.sync(peer);
            }
            if self.apply {
                self.apply(peer);
            }
            if self.snapshots {
                self.serve_snapshots(peer);
            }
            if idle && !self.group(peer).has_work() {
                return;
            }
            if !more && !self.sync && !self.apply {
                return;
            }
        }
    }

    fn take(&mut self, peer: u64, out: Output) {
        for message in out.send {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert!(bytes.len() <= message.byte_length_max());
            let decoded = PeerMessage::decode(&Bytes::from(bytes.clone())).expect("what was encoded");
            assert_eq!(decoded, message, "a message survives the wire");
            self.sent.push((message, bytes));
            if !self.cut.contains(&(decoded.from(), decoded.to())) {
                self.wire.push_back(decoded);
            }
        }
        let replica = self.replica(peer);
        for record in out.persist {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let decoded = PersistRecord::decode(&bytes.into()).expect("what was encoded");
            assert_eq!(decoded, record, "a record survives the disk");
            replica.unsynced.push(decoded);
        }
        for Install { meta, .. } in out.install {
            replica.to_apply.clear();
            replica.to_install = Some(meta);
        }
        replica.to_apply.extend(out.apply.into_iter().map(|Apply { entry, .. }| entry));
        replica.proposals.extend(out.proposals);
        replica.reads.extend(out.reads);
        for (_, event) in out.events {
            match &event {
                Event::SnapshotOffered { from, meta } => replica.offered = Some((*from, meta.clone())),
                Event::SnapshotStream { to, meta } => replica.streams.push((*to, meta.clone())),
                _ => {}
            }
            replica.events.push(event);
        }
    }

    /// All records of a replica reach its disk.
    pub fn sync(&mut self, peer: u64) {
        let replica = self.replica(peer);
        if let Some(last) = replica.unsynced.last() {
            let number = last.number;
            replica.disk.append(&mut replica.unsynced);
            replica.group().persisted(number);
        }
        let replica = self.replica(peer);
        if let Some(meta) = replica.to_install.take() {
            let stored = replica.staged.take().expect("what is installed was staged");
            assert_eq!(stored.meta, meta);
            replica.state.clone_from(&stored.state);
            replica.applied = meta.position.index;
            replica.group().snapshot_installed(meta.position.index);
            replica.group().snapshot_built(meta);
            replica.newest_snapshot = Some(stored);
        }
    }

    /// Everything that was given out is applied.
    pub fn apply(&mut self, peer: u64) {
        let replica = self.replica(peer);
        if replica.to_install.is_some() {
            return;
        }
        while let Some(LogEntry { position, body }) = replica.to_apply.pop_front() {
            assert_eq!(position.index, replica.applied.next(), "entries are applied without a gap");
            replica.applied = position.index;
            if let EntryBody::Data { bytes, .. } = body {
                replica.state.push((position, bytes));
            }
        }
        let applied = replica.applied;
        replica.group().applied(applied);
    }

    /// Cuts a snapshot at the applied index, durable at once.
    pub fn cut_snapshot(&mut self, peer: u64) -> SnapshotMeta {
        self.next_snapshot += 1;
        let id = SnapshotId(self.next_snapshot);
        let replica = self.replica(peer);
        let meta = replica.group().snapshot_point(id);
        let stored = Stored { meta: meta.clone(), state: replica.state.clone() };
        replica.newest_snapshot = Some(stored);
        replica.group().snapshot_built(meta.clone());
        meta
    }

    /// Builds what is wanted, and fetches what is offered, all at once.
    pub fn serve_snapshots(&mut self, peer: u64) {
        let replica = self.replica(peer);
        let wanted = replica.events.iter().position(|event| matches!(event, Event::SnapshotWanted { .. }));
        if let Some(place) = wanted {
            replica.events.remove(place);
            self.cut_snapshot(peer);
        }
        let replica = self.replica(peer);
        if let Some((from, meta)) = replica.offered.take() {
            self.fetch(peer, from, &meta);
        }
    }

    /// The data of an offered snapshot goes from one replica to another, and is staged.
    pub fn fetch(&mut self, peer: u64, from: PeerId, meta: &SnapshotMeta) -> bool {
        let sender = self.replicas.get_mut(&from).expect("the sender");
        let stored = sender.newest_snapshot.clone().filter(|stored| stored.meta == *meta);
        let reached = !self.cut.contains(&(from, PeerId(peer))) && sender.group.is_some();
        let Some(stored) = stored.filter(|_| reached) else {
            self.replica(peer).group().snapshot_refused(meta.id);
            if let Some(group) = &mut self.replicas.get_mut(&from).expect("the sender").group {
                group.snapshot_sent(PeerId(peer), false);
            }
            return false;
        };
        let replica = self.replica(peer);
        replica.staged = Some(stored);
        let staged = replica.group().snapshot_staged(meta.id).expect("it was offered");
        if staged == Staged::NotNeeded {
            replica.staged = None;
        }
        if let Some(group) = &mut self.replicas.get_mut(&from).expect("the sender").group {
            group.snapshot_sent(PeerId(peer), true);
        }
        true
    }

    /// Hands a message to whom it is for; whether it was taken.
    pub fn deliver(&mut self, message: PeerMessage) {
        let to = message.to();
        if let Some(group) = self.replicas.get_mut(&to).and_then(|replica| replica.group.as_mut()) {
            let _ = group.receive(message);
        }
    }

    /// Delivers what is on the wire to `to` of this kind, and drops nothing.
    pub fn deliver_kind(&mut self, to: u64, kind: MessageKind) -> usize {
        let (taken, left) = std::mem::take(&mut self.wire)
            .into_iter()
            .partition::<Vec<_>, _>(|message| message.to() == PeerId(to) && message.kind() == kind);
        self.wire = left.into();
        let count = taken.len();
        taken.into_iter().for_each(|message| self.deliver(message));
        count
    }

    /// Ticks until somebody leads whom a majority follows; returns who.
    pub fn elect(&mut self) -> u64 {
        for _ in 0..400 {
            self.tick();
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("nobody was elected");
    }

    /// Makes this replica start an election, and settles.
    pub fn campaign(&mut self, peer: u64) {
        self.group(peer).campaign();
        self.settle();
    }

    /// The others hear of nobody for so long that they would vote.
    pub fn starve_others(&mut self, peer: u64) {
        let others: Vec<u64> = self.replicas.keys().map(|other| other.0).filter(|other| *other != peer).collect();
        for other in others {
            let patience = self.replica(other).settings.election_ticks;
            if self.replica(other).group.is_some() && !self.group(other).is_leader() {
                (0..patience).for_each(|_| self.tick_one(other));
            }
        }
        self.wire.clear();
    }

    /// Makes a replica lead, whoever leads now.
    pub fn campaign_until_leader(&mut self, peer: u64) {
        for _ in 0..10 {
            self.starve_others(peer);
            self.campaign(peer);
            if self.group(peer).is_leader() {
                return;
            }
        }
        panic!("{peer} is not elected");
    }

    /// Who leads in the highest term, if it has committed in it.
    pub fn leader(&self) -> Option<u64> {
        let leaders = self.replicas.values().filter_map(|replica| replica.group.as_ref().map(|group| (replica, group)));
        let leader = leaders.filter(|(_, group)| group.is_leader()).max_by_key(|(_, group)| group.term());
        leader.map(|(replica, _)| replica.peer.0)
    }

    pub fn propose(&mut self, peer: u64, command: &str) -> Result<EntryPosition, ProposeError> {
        self.group(peer).propose(EntryKind::Commands, Bytes::copy_from_slice(command.as_bytes()))
    }

    /// Proposes and settles; the place, which must be done.
    pub fn write(&mut self, peer: u64, command: &str) -> EntryPosition {
        let position = self.propose(peer, command).expect("a leader");
        self.settle();
        assert_eq!(self.replica(peer).fate(position), Some(Fate::Done), "{command} at {position:?}");
        position
    }

    pub fn read(&mut self, peer: u64, id: u64, kind: ReadKind) {
        let now_us = self.now_us;
        self.group(peer).read(ReadId(id), kind, now_us).expect("room for a read");
    }

    pub fn change(&mut self, peer: u64, changes: &[MembershipChange]) -> Result<EntryPosition, MembershipError> {
        self.group(peer).change_membership(changes)
    }

    /// Nothing goes from or to these any more.
    pub fn isolate(&mut self, isolated: &[u64]) {
        let all: Vec<PeerId> = self.replicas.keys().copied().collect();
        for one in isolated {
            for other in &all {
                if !isolated.contains(&other.0) {
                    self.cut.insert((PeerId(*one), *other));
                    self.cut.insert((*other, PeerId(*one)));
                }
            }
        }
        let cut = &self.cut;
        self.wire.retain(|message| !cut.contains(&(message.from(), message.to())));
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn role(&mut self, peer: u64) -> Role {
        self.group(peer).role()
    }

    pub fn term(&mut self, peer: u64) -> Term {
        self.group(peer).term()
    }

    pub fn hard_state(&mut self, peer: u64) -> HardState {
        self.group(peer).hard_state()
    }

    pub fn last_number(&mut self, peer: u64) -> Option<ReadyNumber> {
        self.replica(peer).unsynced.last().map(|record| record.number)
    }

    /// Every replica in one line.
    pub fn describe(&self) -> String {
        let line = |replica: &Replica| match &replica.group {
            None => format!("{:?} is down", replica.peer),
            Some(group) => {
                let Membership { voters, learners, outgoing, .. } = group.membership();
                format!(
                    "{}: {:?} in {:?} after {:?}, log {}..={} commit {} applied {} installing {} \
                     voters {voters:?} learners {learners:?} outgoing {outgoing:?}",
                    replica.peer.0,
                    group.role(),
                    group.term(),
                    group.leader(),
                    group.first().0,
                    group.last().0,
                    group.commit().0,
                    group.last_applied().0,
                    group.is_installing(),
                )
            }
        };
        self.replicas.values().map(line).collect::<Vec<_>>().join("\n")
    }

    /// That all living replicas have applied the same.
    pub fn assert_equal_states(&self) {
        let states: Vec<(&PeerId, &State)> = self
            .replicas
            .iter()
            .filter(|(_, replica)| replica.group.is_some())
            .map(|(peer, r)| (peer, &r.state))
            .collect();
        for pair in states.windows(2) {
            assert_eq!(pair[0].1, pair[1].1, "{:?} and {:?} differ", pair[0].0, pair[1].0);
        }
    }
}
