//! What a group does when nothing goes wrong, and when the ordinary things do.

mod harness;

use eyot_raft_glue::{Fate, Index, MembershipChange, PeerId, ProposeError, ReadKind, Recovered, Role, TransferError};
use harness::{peers, settings, Cluster};

#[test]
fn three_replicas_elect_commit_and_apply_alike() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let first = cluster.write(leader, "a");
    let second = cluster.write(leader, "b");
    assert_eq!(second.index, Index(first.index.0 + 1));
    cluster.ticks(4);
    cluster.assert_equal_states();
    assert_eq!(cluster.replica(leader).commands(), ["a", "b"]);
}

#[test]
fn one_replica_is_a_group() {
    let mut cluster = Cluster::new(1, 0, &settings());
    assert_eq!(cluster.elect(), 1);
    cluster.write(1, "a");
    cluster.crash(1, 0);
    cluster.restart(1);
    assert_eq!(cluster.elect(), 1);
    cluster.settle();
    assert_eq!(cluster.replica(1).commands(), ["a"]);
}

#[test]
fn a_crashed_leader_is_followed_by_another_and_catches_up() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let first = cluster.elect();
    cluster.write(first, "a");
    cluster.crash(first, 0);
    let second = cluster.elect();
    assert_ne!(first, second);
    cluster.write(second, "b");
    cluster.restart(first);
    cluster.ticks(10);
    cluster.assert_equal_states();
    assert_eq!(cluster.replica(first).commands(), ["a", "b"]);
}

#[test]
fn what_a_cut_off_leader_proposed_is_lost_once_another_entry_stands_there() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let old = cluster.elect();
    cluster.isolate(&[old]);
    let lost = cluster.propose(old, "lost").expect("it still leads");
    cluster.ticks(60);
    assert_eq!(cluster.role(old), Role::Follower, "a leader without a majority steps down");
    assert_eq!(cluster.replica(old).fate(lost), None, "nobody knows yet");
    let new = cluster.leader().expect("the others elect one");
    cluster.write(new, "kept");
    cluster.heal();
    cluster.ticks(30);
    assert_eq!(cluster.replica(old).fate(lost), Some(Fate::Lost));
    cluster.assert_equal_states();
}

#[test]
fn only_the_leader_takes_proposals() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let other = leader % 3 + 1;
    let refused = cluster.propose(other, "a");
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(PeerId(leader)) }));
}

#[test]
fn reads_are_granted_on_the_leader_and_on_a_follower() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let position = cluster.write(leader, "a");
    let follower = leader % 3 + 1;
    for (peer, id) in [(leader, 1), (follower, 2)] {
        cluster.read(peer, id, ReadKind::Linearizable);
        cluster.settle();
        cluster.ticks(3);
        let granted = cluster.replica(peer).granted(id).expect("an answer").expect("a grant");
        assert!(granted >= position.index);
        assert!(cluster.group(peer).last_applied() >= granted);
        assert_eq!(cluster.group(peer).pending_reads(), 0);
    }
    assert_eq!(cluster.group(leader).pending_reads(), 0);
}

#[test]
fn a_read_without_a_majority_fails_in_time() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    cluster.isolate(&[leader]);
    cluster.read(leader, 1, ReadKind::Linearizable);
    cluster.isolate(&[follower]);
    cluster.read(follower, 2, ReadKind::Linearizable);
    cluster.ticks(41);
    for (peer, id) in [(leader, 1), (follower, 2)] {
        assert!(matches!(cluster.replica(peer).granted(id), Some(Err(_))), "{peer}");
        assert_eq!(cluster.group(peer).pending_reads(), 0);
    }
}

#[test]
fn a_follower_that_lags_below_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    cluster.write(leader, "a");
    cluster.isolate(&[follower]);
    for number in 0..20 {
        cluster.write(leader, &format!("w{number}"));
    }
    let meta = cluster.cut_snapshot(leader);
    assert_eq!(cluster.group(leader).compact(Index::MAX), meta.position.index);
    cluster.heal();
    cluster.ticks(60);
    cluster.write(cluster.leader().expect("one"), "b");
    cluster.ticks(5);
    cluster.assert_equal_states();
    assert!(cluster.replica(follower).newest_snapshot.is_some());
    cluster.crash(follower, 0);
    cluster.restart(follower);
    cluster.ticks(10);
    cluster.assert_equal_states();
}

#[test]
fn a_new_replica_joins_catches_up_and_takes_the_place_of_another() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    for number in 0..10 {
        cluster.write(leader, &format!("w{number}"));
    }
    let old = leader % 3 + 1;
    cluster.crash(old, 0);
    cluster.add(PeerId(4), &settings(), Recovered::joining());
    cluster.change(leader, &[MembershipChange::AddLearner(PeerId(4))]).expect("a new learner");
    cluster.settle();
    cluster.ticks(10);
    let changes = [MembershipChange::Promote(PeerId(4)), MembershipChange::Remove(PeerId(old))];
    cluster.change(leader, &changes).expect("it has caught up");
    cluster.settle();
    cluster.ticks(5);
    let mut voters = peers(1..=4);
    voters.retain(|peer| peer.0 != old);
    assert_eq!(cluster.group(leader).membership().voters, voters);
    assert!(!cluster.group(leader).membership().is_joint());
    cluster.write(leader, "after");
    cluster.ticks(5);
    cluster.assert_equal_states();
}

#[test]
fn leadership_is_handed_over() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let next = leader % 3 + 1;
    assert_eq!(cluster.group(leader).transfer(PeerId(9)), Err(TransferError::NotVoter(PeerId(9))));
    cluster.group(leader).transfer(PeerId(next)).expect("a voter that follows");
    let refused = cluster.propose(leader, "a");
    assert_eq!(refused, Err(ProposeError::Transferring { to: PeerId(next) }));
    cluster.settle();
    assert_eq!(cluster.leader(), Some(next));
    cluster.write(next, "b");
}
