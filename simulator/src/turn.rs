//! A node's turn: what its core gives out for all its groups is carried out, until it gives out nothing more.
//!
//! Place in the flow: after everything that reaches a node. This is the caller of `raft-glue`, and keeps its duties in
//! the order in which they are listed there.
//!
//! Invariants:
//! - A message leaves when the group gives it out; what must follow the disk, the group keeps.
//! - Entries are applied in order; none while a snapshot is being installed.
//! - A client is told that a write is done after it was applied here and its group called it done.

use std::rc::Rc;

use bytes::Bytes;
use eyot_raft_glue::{
    decode_frame, Apply, EntryBody, EntryKind, EntryPosition, Event as GroupEvent, Fate, Frame, GroupId, Index,
    LogEntry, MessageKind, NodeId, PeerMessage, ProposalOutcome, ReadId, ReadKind, ReadOutcome, Role, Turn as CoreTurn,
};

use crate::client::{Ask, Reply, Request, Told};
use crate::clock::MILLISECOND;
use crate::command::{self, Answer};
use crate::counts::Count;
use crate::network::Place;
use crate::node::{Asked, Proposal};
use crate::truth::{Applied, Check};
use crate::world::{Event, World, TICK};

/// Rounds of one turn at most: each round handles what the one before gave out. Far above what is needed.
const ROUNDS_MAX: usize = 10_000;

/// What travels between two machines in one piece.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The frame.
    bytes: Bytes,
    /// What is in it, for checks and traces alone: the receiver reads the bytes.
    messages: Vec<PeerMessage>,
}

impl World {
    /// Carries out what the core of a node gives out.
    pub(crate) fn turn(&mut self, place: Place) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "the groups of node {place} have something to give out without end");
            let node = &mut self.nodes[place as usize];
            if !node.is_up() {
                return;
            }
            let mut output = std::mem::take(&mut self.output);
            let has_more = node.core.turn(&mut output);
            let is_done = output.is_empty() && !has_more;
            if !is_done {
                self.carry_out(place, &mut output);
                output.clear();
            }
            self.output = output;
            if is_done || self.truth.violation.is_some() {
                break;
            }
        }
        self.write(place);
    }

    fn carry_out(&mut self, place: Place, output: &mut CoreTurn) {
        for (group, event) in output.events.drain(..) {
            self.group_event(place, group, event);
        }
        let node = &mut self.nodes[place as usize];
        if let Some(batch) = output.batch.take() {
            let is_shared = node.disk.push(batch);
            self.counts.add(Count::BatchesShared, u64::from(is_shared));
        }
        for install in output.install.drain(..) {
            node.process[install.group.0 as usize].installing = Some(install.meta);
        }
        for Apply { group, entry } in output.apply.drain(..) {
            node.process[group.0 as usize].queue.push_back(entry);
        }
        output.frames.drain(..).for_each(|frame| self.send(place, frame));
        for outcome in output.proposals.drain(..) {
            self.proposal_ends(place, outcome);
        }
        for group in 0..self.plan.groups {
            self.apply(place, group);
        }
        for outcome in output.reads.drain(..) {
            self.read_ends(place, outcome);
        }
    }

    /// Starts the disk's next write, if it is due.
    fn write(&mut self, place: Place) {
        if self.nodes[place as usize].disk.begin() {
            let takes = self.write_takes(place);
            let incarnation = self.nodes[place as usize].incarnation;
            self.clock.after(takes, Event::Written { place, incarnation });
        }
    }

    /// A write is durable.
    pub(crate) fn written(&mut self, place: Place, incarnation: u64) {
        if !self.awake(place, incarnation, || Event::Written { place, incarnation }) {
            return;
        }
        let node = &mut self.nodes[place as usize];
        let stalled_until = node.stalled_until;
        if stalled_until > self.clock.now() {
            self.clock.at(stalled_until, Event::Written { place, incarnation });
            return;
        }
        if let Some(down) = node.sync_fails {
            // What a failed sync leaves on the disk nobody knows; the process ends and asks nobody again.
            self.counts.one(Count::SyncFailures);
            self.end_process(place, down);
            return;
        }
        let number = node.disk.complete();
        self.trace.note(self.clock.now(), 3, [u64::from(place), number.0, 0]);
        node.core.synced(number);
        for group in 0..self.plan.groups {
            self.prepare_install(place, group);
        }
        self.turn(place);
    }

    /// A frame goes to another machine, and is lost, late, or there twice.
    fn send(&mut self, place: Place, frame: Frame) {
        let to = frame.node.0 as Place;
        let bytes = Bytes::from(frame.bytes);
        let (sender, messages) = decode_frame(&bytes).expect("what a core gives out can be read");
        assert_eq!(sender.0, u64::from(place), "a frame says who sent it");
        messages.iter().for_each(|message| self.watch(message));
        let is_shared = messages.windows(2).any(|pair| pair[0].group() != pair[1].group());
        self.counts.one(Count::FramesSent);
        self.counts.add(Count::FramesShared, u64::from(is_shared));
        self.counts.add(Count::MessagesSent, messages.len() as u64);
        let arrivals = self.network.send(place, to);
        let length = bytes.len();
        let node = &mut self.nodes[place as usize];
        if arrivals == [None, None] && self.node_dice.chance(300_000) {
            // Sometimes the sender notices: the connection is gone, with all that waited for it.
            *node.connections.entry(to).or_default() += 1;
            node.core.disconnected(frame.node);
            return;
        }
        if self.is_link_slow && !self.is_healed {
            let incarnation = node.incarnation;
            let connection = node.connections.get(&to).copied().unwrap_or_default();
            let delay = arrivals[0].unwrap_or_else(|| self.node_dice.below(50 * MILLISECOND));
            self.clock.after(delay, Event::Left { place, incarnation, to, connection, bytes: length });
        } else {
            node.core.sent(frame.node, length);
        }
        let frame = Rc::new(Sent { bytes, messages });
        for delay in arrivals.into_iter().flatten() {
            self.clock.after(delay, Event::Frame { from: place, to, frame: Rc::clone(&frame) });
        }
    }

    /// A frame is on its way: there is room for others, if its connection is the one of now.
    pub(crate) fn frame_left(&mut self, place: Place, incarnation: u64, to: Place, connection: u64, bytes: usize) {
        if !self.awake(place, incarnation, || Event::Left { place, incarnation, to, connection, bytes }) {
            return;
        }
        let node = &mut self.nodes[place as usize];
        if node.connections.get(&to).copied().unwrap_or_default() == connection {
            node.core.sent(NodeId(to.into()), bytes);
        }
    }

    /// Looks at what leaves: only leaders lead, and nobody votes twice.
    fn watch(&mut self, message: &PeerMessage) {
        let (group, from) = (message.group(), message.from());
        let Some(term) = message.term() else { return };
        match message.kind() {
            MessageKind::Append | MessageKind::Heartbeat | MessageKind::Snapshot => {
                self.truth.leads(group, term, from);
            }
            MessageKind::Vote => self.truth.votes(group, from, term, from),
            MessageKind::VoteResponse if message.grants_vote() => self.truth.votes(group, from, term, message.to()),
            _ => {}
        }
    }

    /// A frame arrives at a machine.
    pub(crate) fn frame_arrives(&mut self, from: Place, to: Place, frame: &Rc<Sent>) {
        let node = &self.nodes[to as usize];
        if !node.is_up() || self.network.is_cut(from, to) {
            return;
        }
        let incarnation = node.incarnation;
        if !self.awake(to, incarnation, || Event::Frame { from, to, frame: Rc::clone(frame) }) {
            return;
        }
        let Sent { bytes, messages } = &**frame;
        self.trace.note(self.clock.now(), 4, [u64::from(from), u64::from(to), messages.len() as u64]);
        for message in messages {
            self.trace.note(message.group().0.into(), 5, [message.kind() as u64, message.from().0, message.to().0]);
            self.trace.line(self.clock.now(), || format!("{to}: receives {message:?}"));
        }
        let node = &mut self.nodes[to as usize];
        let own = node.peer;
        let report = node.core.receive(bytes).expect("what a core gives out can be read");
        assert_eq!(report.taken + report.dropped, messages.len(), "every message is taken or dropped");
        // Whoever lived here before had another disk, and made other promises.
        let meant = messages.iter().filter(|message| message.to() == own).count();
        if report.taken > meant {
            self.truth.fail(Check::TakenByStranger, || {
                format!("{own:?} takes {} messages of a frame with {meant} for it: {messages:?}", report.taken)
            });
        }
        self.turn(to);
    }

    /// A node's clock ticks.
    pub(crate) fn ticks(&mut self, place: Place, incarnation: u64) {
        if !self.awake(place, incarnation, || Event::Tick { place, incarnation }) {
            return;
        }
        let now = self.clock.now();
        let node = &mut self.nodes[place as usize];
        let (shown, wait) = (node.clock(now), node.real(TICK));
        node.core.tick(shown);
        self.clock.after(wait, Event::Tick { place, incarnation });
        self.turn(place);
    }

    fn group_event(&mut self, place: Place, group: GroupId, event: GroupEvent) {
        let now = self.clock.now();
        self.trace.line(now, || format!("{place}: {group:?}: {event:?}"));
        let node = &self.nodes[place as usize];
        match event {
            GroupEvent::RoleChanged { role: Role::Leader, term } => {
                self.counts.one(Count::Elections);
                self.trace.note(now, 6, [u64::from(place), u64::from(group.0), term.0]);
                self.truth.leads(group, term, node.peer);
                let consensus = node.group(group.0);
                let compacted = Index(consensus.first().0 - 1);
                self.truth.has_acknowledged(group, term, compacted, |index| consensus.term_at(index));
            }
            GroupEvent::MembershipChanged { index, membership } => {
                self.trace.note(now, 7, [u64::from(place), u64::from(group.0), index.0]);
                self.truth.membership(group, index, &membership);
            }
            GroupEvent::SnapshotWanted { .. } => self.build_snapshot(place, group.0),
            GroupEvent::SnapshotOffered { from, meta } => self.snapshot_is_offered(place, group.0, from, meta),
            GroupEvent::SnapshotStream { to, meta } => self.stream(place, group.0, to, &meta),
            GroupEvent::TransferEnded { transferred, .. } => {
                self.counts.add(Count::Transfers, u64::from(transferred));
            }
            GroupEvent::RoleChanged { .. } | GroupEvent::LeaderKnown { .. } => {}
        }
    }

    /// Applies what is in the queue: all of it, or one entry now and the rest later.
    pub(crate) fn apply(&mut self, place: Place, group: u32) {
        loop {
            let node = &mut self.nodes[place as usize];
            let replica = &mut node.process[group as usize];
            if replica.installing.is_some() || replica.is_apply_due {
                return;
            }
            let Some(entry) = replica.queue.pop_front() else { return };
            let index = entry.position.index;
            self.apply_one(place, group, &entry);
            let node = &mut self.nodes[place as usize];
            node.with(group, |group| group.applied(index));
            // Once a snapshot is staged, the group takes no notice of what it contains.
            let consensus = node.group(group);
            if matches!(entry.body, EntryBody::Membership(_)) && consensus.last_applied() == index {
                let membership = consensus.membership();
                if index > self.truth.newest_membership(GroupId(group)).0 {
                    self.counts.one(Count::MembershipChanges);
                    self.counts.add(Count::JointMemberships, u64::from(membership.is_joint()));
                }
                self.truth.decides(GroupId(group), index, membership);
            }
            let since = index.0 - node.process[group as usize].newest_built.0.min(index.0);
            if since >= self.snapshot_every {
                self.build_snapshot(place, group);
            } else if self.node_dice.chance(20_000) {
                let kept = self.node_dice.below(self.snapshot_every + 1);
                self.compact(place, group, kept);
            }
            if self.is_apply_slow && !self.is_healed && self.node_dice.chance(300_000) {
                let incarnation = self.nodes[place as usize].incarnation;
                let delay = self.node_dice.below(200_000);
                self.nodes[place as usize].process[group as usize].is_apply_due = true;
                self.clock.after(delay, Event::Apply { place, incarnation, group });
            }
        }
    }

    /// The state machine has time again.
    pub(crate) fn apply_is_due(&mut self, place: Place, incarnation: u64, group: u32) {
        if self.awake(place, incarnation, || Event::Apply { place, incarnation, group }) {
            self.nodes[place as usize].process[group as usize].is_apply_due = false;
            self.apply(place, group);
            self.turn(place);
        }
    }

    fn apply_one(&mut self, place: Place, group: u32, entry: &LogEntry) {
        let node = &mut self.nodes[place as usize];
        let peer = node.peer;
        let replica = &mut node.process[group as usize];
        let outcomes = replica.machine.apply(entry);
        let EntryPosition { term, index } = entry.position;
        self.counts.one(Count::EntriesApplied);
        for outcome in &outcomes {
            if outcome.is_executed {
                self.truth.executes(GroupId(group), index, outcome.operation, outcome.answer);
            } else if !matches!(outcome.answer, Answer::Expired | Answer::Stale) {
                self.counts.one(Count::DuplicatesSuppressed);
            }
        }
        let state = Applied { term, chain: replica.machine.chain(), content: replica.machine.content() };
        self.truth.applied(GroupId(group), peer, index, state);
        self.trace.note(self.clock.now(), 8, [u64::from(place) << 32 | u64::from(group), index.0, state.chain]);
        self.trace
            .line(self.clock.now(), || format!("{place}: group {group} applies {:?}: {outcomes:?}", entry.position));
        let replica = &mut self.nodes[place as usize].process[group as usize];
        if let Some(proposal) = replica.proposals.get_mut(&entry.position) {
            proposal.answers = Some(outcomes.into_iter().map(|outcome| outcome.answer).collect());
        }
        self.answer_if_done(place, group, entry.position);
    }

    /// A group tells what became of a proposal.
    fn proposal_ends(&mut self, place: Place, outcome: ProposalOutcome) {
        let ProposalOutcome { group, position, fate } = outcome;
        let replica = &mut self.nodes[place as usize].process[group.0 as usize];
        match fate {
            Fate::Done => {
                let is_queued = replica.queue.iter().any(|entry| entry.position == position);
                if !is_queued && replica.machine.applied() < position.index {
                    self.truth.fail(Check::WrongFate, || {
                        format!("{group:?}: {position:?} is called done, and was not given out to be applied")
                    });
                }
                self.truth.done(group, position);
                if let Some(proposal) = replica.proposals.get_mut(&position) {
                    proposal.is_done = true;
                }
                self.answer_if_done(place, group.0, position);
            }
            Fate::Lost | Fate::Unknown => {
                if fate == Fate::Lost {
                    self.truth.lost(group, position);
                }
                let Some(proposal) = replica.proposals.remove(&position) else { return };
                let result = if fate == Fate::Lost { Told::Refused(None) } else { Told::Unknown };
                for request in proposal.requests {
                    self.answer(place, Reply { request, result });
                }
            }
        }
    }

    fn answer_if_done(&mut self, place: Place, group: u32, position: EntryPosition) {
        let node = &mut self.nodes[place as usize];
        let term = node.group(group).term();
        let replica = &mut node.process[group as usize];
        let is_complete = |proposal: &mut Proposal| proposal.is_done && proposal.answers.is_some();
        if !replica.proposals.get_mut(&position).is_some_and(is_complete) {
            return;
        }
        let proposal = replica.proposals.remove(&position).expect("it was there");
        for (request, answer) in proposal.requests.into_iter().zip(proposal.answers.into_iter().flatten()) {
            match answer {
                Answer::Stored | Answer::Swapped(_) | Answer::Sum(_) => {
                    self.counts.one(Count::WritesAcknowledged);
                    let operation = request.ask.operation();
                    self.truth.acknowledges(GroupId(group), operation, answer, term, position);
                }
                Answer::Opened(_) => self.counts.one(Count::SessionsOpened),
                Answer::Expired | Answer::Stale => self.counts.one(Count::SessionsExpired),
            }
            self.answer(place, Reply { request, result: Told::Done(answer) });
        }
    }

    /// A client asks a node.
    pub(crate) fn request_arrives(&mut self, place: Place, request: Request) {
        let from = self.clients[request.client].place();
        let node = &self.nodes[place as usize];
        if !node.is_up() || self.network.is_cut(from, place) {
            return;
        }
        let incarnation = node.incarnation;
        if !self.awake(place, incarnation, || Event::Request { to: place, request }) {
            return;
        }
        let now = self.clock.now();
        self.trace.note(now, 9, [u64::from(place), request.ask.operation(), request.attempt]);
        self.trace.line(now, || format!("{place}: is asked {request:?}"));
        match request.ask {
            Ask::Write(command) => {
                let replica = &mut self.nodes[place as usize].process[request.group as usize];
                replica.gathered.push((request, command));
                if !replica.is_flush_due {
                    replica.is_flush_due = true;
                    let delay = self.node_dice.below(2_000);
                    self.clock.after(delay, Event::Flush { place, incarnation, group: request.group });
                }
            }
            Ask::Read { by_lease, .. } => self.read(place, request, by_lease),
        }
    }

    fn read(&mut self, place: Place, request: Request, by_lease: bool) {
        let floor = self.truth.read_floor(GroupId(request.group));
        let now = self.clock.now();
        let node = &mut self.nodes[place as usize];
        let shown = node.clock(now);
        node.next_read += 1;
        let id = node.next_read;
        let kind = if by_lease { ReadKind::Lease } else { ReadKind::Linearizable };
        let is_refused = node.with(request.group, |group| group.read(ReadId(id), kind, shown)).is_err();
        if is_refused {
            let leader = node.group(request.group).leader();
            let hint = leader.and_then(|leader| self.place_of(leader));
            self.answer(place, Reply { request, result: Told::Refused(hint) });
            return;
        }
        node.process[request.group as usize].reads.insert(id, Asked { request, floor });
        self.turn(place);
    }

    fn read_ends(&mut self, place: Place, outcome: ReadOutcome) {
        let replica = &mut self.nodes[place as usize].process[outcome.group.0 as usize];
        let Some(Asked { request, floor }) = replica.reads.remove(&outcome.id.0) else {
            panic!("{:?} was not asked, or answered before", outcome.id);
        };
        let Ask::Read { key, by_lease, .. } = request.ask else { panic!("{request:?} is no read") };
        let result = match outcome.result {
            Ok(granted) => {
                self.counts.one(if by_lease { Count::LeaseReadsChecked } else { Count::ReadsChecked });
                self.truth.reads(outcome.group, floor, granted, replica.machine.applied());
                Told::Value(replica.machine.value(key))
            }
            Err(_) => Told::Refused(None),
        };
        self.answer(place, Reply { request, result });
    }

    /// What has gathered becomes one entry.
    pub(crate) fn flush_is_due(&mut self, place: Place, incarnation: u64, group: u32) {
        if !self.awake(place, incarnation, || Event::Flush { place, incarnation, group }) {
            return;
        }
        let node = &mut self.nodes[place as usize];
        let replica = &mut node.process[group as usize];
        replica.is_flush_due = false;
        let mut bytes = Vec::new();
        let mut requests = Vec::new();
        for (request, command) in replica.gathered.drain(..) {
            command::encode(&command, &mut bytes);
            requests.push(request);
        }
        match node.with(group, |group| group.propose(EntryKind::Commands, bytes.into())) {
            Ok(position) => {
                let proposal = Proposal { requests, answers: None, is_done: false };
                node.process[group as usize].proposals.insert(position, proposal);
            }
            Err(_) => {
                let leader = node.group(group).leader();
                let hint = leader.and_then(|leader| self.place_of(leader)).filter(|leader| *leader != place);
                for request in requests {
                    self.answer(place, Reply { request, result: Told::Refused(hint) });
                }
            }
        }
        self.turn(place);
    }

    /// What a replica has applied, for whoever wants to compare.
    pub(crate) fn applied_of(&self, place: Place, group: u32) -> Option<Index> {
        let node = &self.nodes[place as usize];
        node.process.get(group as usize).map(|replica| replica.machine.applied())
    }
}
