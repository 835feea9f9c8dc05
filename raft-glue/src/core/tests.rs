//! Tests of a core: whole nodes with several groups, in memory.

use super::*;
use crate::{
    EntryBody, EntryKind, EntryPosition, Fate, HardState, Identity, Index, LogEntry, Membership, ReadId, ReadKind,
    Recovered, Settings, SnapshotId, SnapshotMeta, Term,
};

const GROUPS: u32 = 5;
const NODES: u64 = 3;

/// A node: its core, and the records on its disk.
struct Node {
    core: Core,
    disk: Vec<PersistRecord>,
    turn: Turn,
    applied: BTreeMap<GroupId, Vec<LogEntry>>,
    done: Vec<ProposalOutcome>,
    reads: Vec<ReadOutcome>,
    batches: u64,
    /// Whether no connection takes anything.
    stalled: bool,
}

fn peer_on(node: u64) -> PeerId {
    PeerId(node * 10)
}

fn membership() -> Membership {
    Membership::new((1..=NODES).map(peer_on), [])
}

fn node(number: u64, recovered: impl Fn(GroupId) -> Recovered, incarnation: u64) -> Node {
    let mut core = Core::new(CoreSettings::new(NodeId(number)));
    for group in (1..=GROUPS).map(GroupId) {
        let identity = Identity { group, peer: peer_on(number), incarnation, seed: 5 };
        core.add(Group::new(identity, Settings::default(), recovered(group)).expect("a sound log"));
        (1..=NODES).for_each(|other| core.route(group, peer_on(other), NodeId(other)));
    }
    let (disk, turn, applied) = (Vec::new(), Turn::default(), BTreeMap::new());
    Node { core, disk, turn, applied, done: Vec::new(), reads: Vec::new(), batches: 0, stalled: false }
}

impl Node {
    /// One turn; the frames it gives out.
    fn turn(&mut self) -> Vec<Frame> {
        self.turn.clear();
        self.core.turn(&mut self.turn);
        if let Some(batch) = self.turn.batch.take() {
            let (number, records) = decode_batch(&batch.bytes.into()).expect("what was encoded");
            assert_eq!((number, records.len()), (batch.number, batch.records));
            assert_eq!(number.0, self.batches + 1, "batches are numbered without a gap");
            self.batches = number.0;
            self.disk.extend(records);
            self.core.synced(number);
        }
        for Apply { group, entry } in self.turn.apply.drain(..) {
            let index = entry.position.index;
            self.applied.entry(group).or_default().push(entry);
            self.core.with(group, |group| group.applied(index));
        }
        self.done.append(&mut self.turn.proposals);
        self.reads.append(&mut self.turn.reads);
        if !self.stalled {
            self.turn.frames.iter().for_each(|frame| self.core.sent(frame.node, frame.bytes.len()));
        }
        std::mem::take(&mut self.turn.frames)
    }
}

fn run(nodes: &mut [Node], ticks: usize) {
    for tick in 0..ticks {
        nodes.iter_mut().for_each(|node| node.core.tick(tick as u64 * 50_000));
        loop {
            let frames: Vec<Frame> = nodes.iter_mut().flat_map(Node::turn).collect();
            if frames.is_empty() {
                break;
            }
            for Frame { node, bytes } in frames {
                let report = nodes[node.0 as usize - 1].core.receive(&bytes.into()).expect("a sound frame");
                assert!(report.taken > 0 || report.dropped > 0);
            }
        }
    }
}

#[test]
fn many_groups_elect_commit_and_read_in_shared_batches_and_frames() {
    let mut nodes: Vec<Node> =
        (1..=NODES).map(|number| node(number, |_| Recovered::founding(membership()), 1)).collect();
    run(&mut nodes, 60);
    let mut positions = Vec::new();
    for group in (1..=GROUPS).map(GroupId) {
        let leader = nodes.iter_mut().find(|node| node.core.group(group).expect("it").is_leader()).expect("a leader");
        let bytes = Bytes::from(format!("command of {group:?}"));
        let position = leader.core.with(group, |group| group.propose(EntryKind::Commands, bytes)).expect("it");
        positions.push((group, position.expect("it leads")));
        leader
            .core
            .with(group, |group| group.read(ReadId(u64::from(group.identity().group.0)), ReadKind::Linearizable, 0));
    }
    run(&mut nodes, 5);
    for (group, position) in positions {
        let outcome = ProposalOutcome { group, position, fate: Fate::Done };
        assert!(nodes.iter().any(|node| node.done.contains(&outcome)), "{group:?}");
        assert!(nodes.iter().all(|node| node.applied[&group] == nodes[0].applied[&group]));
        assert!(nodes[0].applied[&group].iter().any(|entry| entry.position == position));
    }
    assert_eq!(nodes.iter().map(|node| node.reads.iter().filter(|read| read.result.is_ok()).count()).sum::<usize>(), 5);
}

#[test]
fn what_is_synced_of_a_group_that_left_is_not_told_to_the_one_in_its_place() {
    let group = GroupId(1);
    let mut core = Core::new(CoreSettings::new(NodeId(1)));
    let mut turn = Turn::default();
    let mut batches = Vec::new();
    for peer in [PeerId(1), PeerId(2)] {
        drop(core.remove(group));
        let identity = Identity { group, peer, incarnation: 1, seed: 5 };
        let recovered = Recovered::founding(Membership::new([peer], []));
        core.add(Group::new(identity, Settings::default(), recovered).expect("a sound log"));
        core.with(group, Group::campaign);
        while core.turn(&mut turn) {}
        batches.push(turn.batch.take().expect("a vote").number);
    }
    let mut applies = |core: &mut Core| {
        while core.turn(&mut turn) {}
        std::mem::take(&mut turn.apply).len()
    };
    core.synced(batches[0]);
    assert_eq!(applies(&mut core), 0, "nothing of the second group is durable");
    core.synced(batches[1]);
    assert_eq!(applies(&mut core), 1, "its first entry");
}

#[test]
fn a_node_starts_again_from_its_batches() {
    let mut nodes: Vec<Node> =
        (1..=NODES).map(|number| node(number, |_| Recovered::founding(membership()), 1)).collect();
    run(&mut nodes, 60);
    let applied = nodes[0].applied.clone();
    let disk = std::mem::take(&mut nodes[0].disk);
    let recovered = |group: GroupId| {
        let mut recovered = Recovered::founding(membership());
        disk.iter().filter(|record| record.group == group).cloned().for_each(|record| recovered.replay(record));
        recovered
    };
    nodes[0] = node(1, recovered, 2);
    run(&mut nodes, 60);
    for (group, entries) in applied {
        assert_eq!(nodes[0].applied[&group][..entries.len()], entries[..], "{group:?} applies the same again");
    }
}

#[test]
fn a_node_that_takes_nothing_costs_a_bounded_number_of_bytes_and_recovers() {
    let mut nodes: Vec<Node> =
        (1..=NODES).map(|number| node(number, |_| Recovered::founding(membership()), 1)).collect();
    nodes.iter_mut().for_each(|node| node.core.settings.node_bytes_max = 8 * 1024);
    run(&mut nodes, 60);
    let group = GroupId(1);
    let leader = nodes.iter().position(|node| node.core.group(group).expect("it").is_leader()).expect("a leader");
    let mut given = BTreeMap::new();
    for _ in 0..200 {
        let bytes = Bytes::from(vec![7; 1000]);
        // Refused as a backlog when nobody answers for long; that is what is to happen.
        let _ = nodes[leader].core.with(group, |group| group.propose(EntryKind::Commands, bytes));
        nodes[leader].stalled = true;
        for frame in nodes[leader].turn() {
            *given.entry(frame.node).or_insert(0) += frame.bytes.len();
        }
    }
    for (node, bytes) in &given {
        assert!(*bytes < 16 * 1024, "{bytes} bytes wait for {node:?}");
    }
    nodes[leader].stalled = false;
    // The connections come back: what was on its way is lost, and consensus sends it again.
    (1..=NODES).for_each(|other| nodes[leader].core.disconnected(NodeId(other)));
    run(&mut nodes, 60);
    let last = nodes[leader].core.group(group).expect("it").last();
    assert!(nodes.iter().all(|node| node.core.group(group).expect("it").last() == last), "all have the log");
}

#[test]
fn control_messages_stand_before_data() {
    let mut lanes = Lanes::default();
    let message = |bytes: &[u8]| PeerMessage::decode(&Bytes::copy_from_slice(bytes)).expect("a message");
    let append = message(&[1, 10, 20, 1, 3, 2, 5, 4, 0]);
    let heartbeat = message(&[1, 10, 20, 7, 3, 4, 0]);
    lanes.push(NodeId(2), append.clone(), 1000);
    lanes.push(NodeId(2), heartbeat.clone(), 1000);
    let mut frames = Vec::new();
    lanes.frames(NodeId(1), &mut frames);
    let (node, messages) = decode_frame(&frames.remove(0).bytes.into()).expect("what was encoded");
    assert_eq!((node, messages), (NodeId(1), vec![heartbeat, append]));
}

#[test]
fn frames_and_batches_have_the_bytes_of_the_diagrams() {
    let mut lanes = Lanes::default();
    lanes.push(NodeId(2), PeerMessage::decode(&Bytes::from_static(&[1, 10, 20, 10, 3])).expect("a message"), 1000);
    let mut frames = Vec::new();
    lanes.frames(NodeId(0x0102), &mut frames);
    let golden = b"EYRF\x1e\0\0\0\x76\x54\x32\x10\x02\x01\0\0\0\0\0\0\x01\0\0\0\x05\x01\x0a\x14\x0a\x03";
    let mut frame = frames.remove(0).bytes;
    frame[8..12].copy_from_slice(&golden[8..12]);
    assert_eq!(frame, golden, "but for the checksum");

    let record = PersistRecord {
        group: GroupId(300),
        number: ReadyNumber(9),
        must_sync: true,
        hard_state: Some(HardState { term: Term(3), vote: Some(PeerId(20)), commit: Index(4) }),
        snapshot: Some(SnapshotMeta {
            position: EntryPosition { term: Term(2), index: Index(4) },
            membership: Membership::new([PeerId(10), PeerId(20)], [PeerId(30)]),
            id: SnapshotId(77),
        }),
        entries: vec![
            LogEntry { position: EntryPosition { term: Term(2), index: Index(5) }, body: EntryBody::Empty },
            LogEntry {
                position: EntryPosition { term: Term(3), index: Index(6) },
                body: EntryBody::Data { kind: EntryKind::Commands, bytes: Bytes::from_static(b"hi") },
            },
        ],
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    let golden = [
        0xac, 2, 9, 15, // group, number, all parts
        3, 20, 4, // hard state
        4, 2, 77, 2, 10, 20, 1, 30, 0, 0, 0, // snapshot
        2, 5, // two entries from index 5
        2, 0, // empty
        3, 1, 2, b'h', b'i',
    ];
    assert_eq!(bytes, golden);
    assert_eq!(PersistRecord::decode(&Bytes::copy_from_slice(&golden)), Ok(record));
}

#[test]
fn damage_to_a_frame_is_noticed() {
    let mut lanes = Lanes::default();
    lanes.push(NodeId(2), PeerMessage::decode(&Bytes::from_static(&[1, 10, 20, 10, 3])).expect("a message"), 1000);
    let mut frames = Vec::new();
    lanes.frames(NodeId(1), &mut frames);
    let frame = frames.remove(0).bytes;
    assert!(decode_frame(&frame.clone().into()).is_ok());
    assert!(decode_batch(&frame.clone().into()).is_err(), "a frame is no batch");
    for bit in 0..frame.len() * 8 {
        let mut damaged = frame.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_frame(&damaged.into()).is_err(), "bit {bit}");
    }
    for end in 0..frame.len() {
        assert!(decode_frame(&Bytes::copy_from_slice(&frame[..end])).is_err(), "cut at {end}");
    }
}
