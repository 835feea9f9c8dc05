//! Messages that no sound replica would send: of a broken peer, of another version, of damage that a checksum missed.
//! Each is one on which the consensus library, or this crate, would end the process; all are dropped with a reason.
//!
//! `fuzz/src/raft.rs` looks for more of them.

mod harness;

use eyot_raft_glue::{
    Dropped, Event, Index, MessageKind, PeerId, PeerMessage, ReadKind, Recovered, Role, SnapshotId, Staged, Term,
    PEERS_MAX,
};
use harness::{message, message_bytes, settings, Cluster};

/// What `receive` says to a message on replica 1 of a new group of three.
fn first_word(kind: MessageKind, fields: &[u64]) -> Result<(), Dropped> {
    let mut cluster = Cluster::new(3, 0, &settings());
    let said = cluster.group(1).receive(message(2, 1, kind, fields));
    cluster.settle();
    said
}

#[test]
fn an_append_beyond_the_log_does_not_fit_because_it_names_no_term() {
    // What a fuzzer found: the library gives the term 0 to a place beyond its log.
    assert_eq!(first_word(MessageKind::Append, &[9, 0, 63, 32, 0]), Err(Dropped::Impossible));
    assert_eq!(first_word(MessageKind::Append, &[9, 0, 63, 0, 1, 9, 0]), Err(Dropped::Impossible));
    assert_eq!(
        first_word(MessageKind::Append, &[9, 9, 0, 32, 0]),
        Err(Dropped::Impossible),
        "a term before all entries"
    );
    assert_eq!(
        first_word(MessageKind::Append, &[9, 10, 63, 32, 0]),
        Err(Dropped::Impossible),
        "a later term than its own"
    );
    assert_eq!(first_word(MessageKind::Append, &[9, 9, 63, 32, 0]), Ok(()), "a gap, which is answered");
    assert_eq!(first_word(MessageKind::Append, &[9, 1, 1, 32, 1, 9, 0]), Ok(()), "commit is cut to what it brings");
}

#[test]
fn an_entry_without_a_term_is_not_taken_for_one_that_is_there() {
    let mut cluster = Cluster::new(3, 0, &settings());
    cluster.add(PeerId(9), &settings(), Recovered::joining());
    let append = |term| message(1, 9, MessageKind::Append, &[9, 0, 0, 1, 1, term, 0]);
    assert_eq!(cluster.group(9).receive(append(0)), Err(Dropped::Impossible));
    assert_eq!(cluster.group(9).receive(append(9)), Ok(()));
    cluster.settle();
    assert_eq!(cluster.group(9).last(), Index(1));
}

#[test]
fn votes_that_speak_of_a_commit_index_beyond_the_log_commit_nothing() {
    for commit_term in [0, 1, 9] {
        for kind in [MessageKind::Vote, MessageKind::PreVote] {
            assert_eq!(first_word(kind, &[9, 1, 1, 1 << 40, commit_term, 0]), Ok(()));
        }
        for kind in [MessageKind::VoteResponse, MessageKind::PreVoteResponse] {
            for rejected in [0, 1] {
                let mut cluster = Cluster::new(3, 0, &settings());
                cluster.group(1).campaign();
                cluster.poll(1);
                let answer = message(2, 1, kind, &[2, 1 << 40, commit_term, rejected]);
                assert_eq!(cluster.group(1).receive(answer), Ok(()));
                assert_eq!(cluster.group(1).commit(), Index(1));
            }
        }
    }
}

#[test]
fn a_sole_voter_that_leads_is_not_ordered_into_another_term_before_its_log_is_on_disk() {
    let mut cluster = Cluster::new(1, 1, &settings());
    cluster.elect();
    cluster.sync = false;
    cluster.propose(1, "unsynced").expect("it leads");
    cluster.poll(1);
    let term = cluster.term(1).0;
    let order = || message(2, 1, MessageKind::TimeoutNow, &[term + 3]);
    assert_eq!(cluster.group(1).receive(order()), Err(Dropped::NotOnDisk));
    assert_eq!(cluster.role(1), Role::Leader);
    cluster.sync(1);
    assert_eq!(cluster.group(1).receive(order()), Ok(()));
    assert_eq!(cluster.term(1), Term(term + 4));
}

#[test]
fn a_vote_that_was_not_asked_for_yet_makes_nobody_lead() {
    // The order to start an election comes before the log is on disk, and a vote before the candidate's own.
    for synced in [false, true] {
        let mut cluster = Cluster::new(3, 0, &settings());
        cluster.sync = false;
        cluster.deliver(message(2, 1, MessageKind::Append, &[2, 1, 1, 1, 1, 2, 0]));
        cluster.poll(1);
        if synced {
            cluster.sync(1);
        }
        cluster.deliver(message(2, 1, MessageKind::TimeoutNow, &[2]));
        let vote = || message(3, 1, MessageKind::VoteResponse, &[3, 0, 0, 0]);
        assert_eq!(cluster.group(1).receive(vote()), Err(Dropped::NotOnDisk));
        cluster.poll(1);
        assert_eq!(cluster.group(1).receive(vote()), Err(Dropped::NotOnDisk));
        assert_eq!(cluster.role(1), Role::Candidate);
        cluster.sync(1);
        assert_eq!(cluster.group(1).receive(vote()), Ok(()));
        assert_eq!(cluster.role(1), Role::Leader);
        cluster.sync = true;
        cluster.settle();
    }
}

#[test]
fn a_leader_is_not_set_back_below_what_is_confirmed_nor_asked_for_snapshots() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    cluster.write(leader, "a");
    cluster.write(leader, "b");
    let term = cluster.term(leader).0;
    let matched = cluster.group(leader).matched(PeerId(follower)).expect("a member").0;
    let mut reject = |index, hint_term, hint, snapshot| {
        let fields = [term, index, 1, 1, hint_term, hint, snapshot];
        cluster.group(leader).receive(message(follower, leader, MessageKind::AppendResponse, &fields))
    };
    assert_eq!(reject(matched + 1, term, matched - 1, 0), Err(Dropped::StaleRejection));
    assert_eq!(reject(matched + 1, 1, matched, 0), Err(Dropped::StaleRejection), "its term names an earlier place");
    assert_eq!(reject(matched + 1, 0, matched - 1, 0), Err(Dropped::StaleRejection));
    assert_eq!(reject(matched + 1, term, matched, 1 << 40), Err(Dropped::Impossible));
    assert_eq!(reject(matched, term, matched, 5), Err(Dropped::Impossible));
    assert_eq!(reject(matched + 1, term, matched, 0), Ok(()));
}

/// Term, then the snapshot: index, its term, id, voters 1 to 3, nobody else.
fn snapshot_fields(term: u64, index: u64, own_term: u64, voters: [u64; 3]) -> Vec<u64> {
    vec![term, index, own_term, 77, 3, voters[0], voters[1], voters[2], 0, 0, 0, 0]
}

#[test]
fn a_snapshot_that_cannot_be_is_not_fetched() {
    let said = |fields: &[u64]| first_word(MessageKind::Snapshot, fields);
    assert_eq!(said(&snapshot_fields(9, 1, 2, [1, 2, 3])), Err(Dropped::Impossible), "another term than is committed");
    assert_eq!(
        said(&snapshot_fields(9, 50, 10, [1, 2, 3])),
        Err(Dropped::Impossible),
        "of a later term than its leader"
    );
    assert_eq!(said(&snapshot_fields(9, 50, 0, [1, 2, 3])), Err(Dropped::Impossible), "of no term");
    assert_eq!(said(&snapshot_fields(9, 50, 2, [2, 3, 4])), Err(Dropped::Impossible), "for others");
    assert_eq!(said(&snapshot_fields(9, Index::MAX.0, 2, [1, 2, 3])), Err(Dropped::Impossible), "no room behind it");
    assert_eq!(said(&snapshot_fields(9, 1, 1, [1, 2, 3])), Ok(()), "what is there already");
}

#[test]
fn a_snapshot_that_contradicts_what_was_committed_while_it_was_fetched_is_thrown_away() {
    let mut cluster = Cluster::new(3, 0, &settings());
    cluster.snapshots = false;
    assert_eq!(
        cluster.group(1).receive(message(2, 1, MessageKind::Snapshot, &snapshot_fields(9, 2, 8, [1, 2, 3]))),
        Ok(())
    );
    cluster.poll(1);
    assert!(cluster.replica(1).events.iter().any(|event| matches!(event, Event::SnapshotOffered { .. })));
    cluster.deliver(message(2, 1, MessageKind::Append, &[9, 1, 1, 2, 1, 9, 0]));
    cluster.settle();
    assert_eq!(cluster.group(1).commit(), Index(2));
    assert_eq!(cluster.group(1).snapshot_staged(SnapshotId(77)), Ok(Staged::NotNeeded));
    cluster.settle();
}

#[test]
fn terms_and_places_leave_room_for_what_a_replica_counts_by_itself() {
    let refused = |kind, fields: &[u64]| PeerMessage::decode(&message_bytes(2, 1, kind, fields)).is_err();
    let last = Term::MAX.0 / 2;
    assert!(refused(MessageKind::TimeoutNow, &[last + 1]));
    assert!(refused(MessageKind::Vote, &[9, last + 1, 1, 1, 0, 0]));
    assert_eq!(first_word(MessageKind::Append, &[9, 9, Index::MAX.0 - 1, 0, 1, 9, 0]), Err(Dropped::Impossible));
    let mut cluster = Cluster::new(3, 0, &settings());
    cluster.deliver(message(2, 1, MessageKind::TimeoutNow, &[last]));
    (0..200).for_each(|_| cluster.tick_one(1));
    assert_eq!(cluster.term(1), Term(last + 1), "its candidacy, and no overflow");
}

#[test]
fn only_the_leader_answers_a_read() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let (follower, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.read(follower, 1, ReadKind::Linearizable);
    cluster.poll(follower);
    let is_request = |message: &&PeerMessage| message.kind() == MessageKind::ReadRequest;
    let mut bytes = Vec::new();
    cluster.wire.iter().find(is_request).expect("it asks").encode(&mut bytes);
    // The kind, then the context: incarnation and sequence, both small.
    let [.., 11, incarnation, sequence] = bytes[..] else { panic!("{bytes:?}") };
    let reply = |from| message(from, follower, MessageKind::ReadReply, &[incarnation.into(), sequence.into(), 1, 1]);
    assert_eq!(cluster.group(follower).receive(reply(other)), Err(Dropped::Stale));
    assert_eq!(cluster.group(follower).receive(reply(leader)), Ok(()));
}

#[test]
fn a_committed_change_that_makes_the_group_too_large_is_refused_by_all() {
    let mut cluster = Cluster::new(3, 0, &settings());
    // A membership entry of 64 new voters, in the library's encoding.
    let mut bytes = Vec::new();
    for peer in 4..4 + PEERS_MAX as u64 {
        bytes.extend([0x12, 2, 0x10, peer as u8]);
    }
    let body_and_length = [128, bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
    let append = message_bytes(2, 1, MessageKind::Append, &[9, 1, 1, 2, 1, 9]);
    let append = PeerMessage::decode(&[&append[..], &body_and_length, &bytes].concat().into()).expect("a message");
    assert_eq!(cluster.group(1).receive(append), Ok(()));
    cluster.poll(1);
    assert_eq!(cluster.group(1).last_applied(), Index(2));
    assert_eq!(cluster.group(1).membership().peers().len(), 3);
}
