//! What a replica promised when it supported a lease, it keeps: until the lease is over it helps nobody to lead, itself
//! included, whatever term it has heard of meanwhile.

mod harness;

use eyot_raft_glue::{Dropped, LeaseSettings, MessageKind, PeerId, ReadId, ReadKind, Role, Settings};
use harness::{message, settings, Cluster};

/// A leader whose lease rests on one follower alone; the third replica has heard nothing for a long time. The leader,
/// that follower, the third.
fn leased() -> (Cluster, u64, u64, u64) {
    let settings = Settings { lease: Some(LeaseSettings::default()), ..settings() };
    let mut cluster = Cluster::new(3, 0, &settings);
    let leader = cluster.elect();
    let (follower, third) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.isolate(&[third]);
    cluster.ticks(60);
    cluster.read(leader, 1, ReadKind::Lease);
    cluster.settle();
    assert!(matches!(cluster.replica(leader).granted(1), Some(Ok(_))), "by a round, which gives a lease");
    cluster.heal();
    cluster.isolate(&[leader]);
    (cluster, leader, follower, third)
}

fn grants_alone(cluster: &mut Cluster, leader: u64, id: u64) -> bool {
    cluster.read(leader, id, ReadKind::Lease);
    cluster.poll(leader);
    cluster.replica(leader).reads.iter().any(|read| read.id == ReadId(id) && read.result.is_ok())
}

#[test]
fn a_replica_that_supports_a_lease_is_not_told_to_campaign() {
    let (mut cluster, leader, follower, _) = leased();
    cluster.campaign(follower);
    assert_eq!(cluster.role(follower), Role::Follower);
    assert!(grants_alone(&mut cluster, leader, 2), "and so the lease holds");
    let ticks = cluster.replica(follower).settings.election_ticks;
    (0..ticks).for_each(|_| cluster.tick_one(follower));
    cluster.group(follower).campaign();
    assert_ne!(cluster.role(follower), Role::Follower, "once it is over, it may");
}

#[test]
fn news_of_a_later_term_does_not_end_the_support_of_a_lease() {
    let (mut cluster, leader, follower, third) = leased();
    let term = cluster.term(follower).0 + 1;
    // The third was a candidate before the lease began. Its refusal of an old question comes late, and its vote later.
    cluster.deliver(message(third, follower, MessageKind::PreVoteResponse, &[term, 1, 1, 1]));
    assert_eq!(cluster.term(follower).0, term);
    assert_eq!(cluster.group(follower).leader(), None);
    let vote = |kind, transfer| message(third, follower, kind, &[term, term, 99, 0, 0, transfer]);
    assert_eq!(cluster.group(follower).receive(vote(MessageKind::Vote, 0)), Err(Dropped::LeaseMayHold));
    assert_eq!(cluster.group(follower).receive(vote(MessageKind::PreVote, 0)), Err(Dropped::LeaseMayHold));
    assert!(grants_alone(&mut cluster, leader, 2), "and so the lease holds");
    let ticks = cluster.replica(follower).settings.election_ticks;
    (0..ticks).for_each(|_| cluster.tick_one(follower));
    assert_eq!(cluster.group(follower).receive(vote(MessageKind::Vote, 0)), Ok(()));
    cluster.settle();
    assert_eq!(cluster.hard_state(follower).vote, Some(PeerId(third)));
}
