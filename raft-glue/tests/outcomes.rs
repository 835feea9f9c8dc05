//! Every proposal is told its fate exactly once, also where nobody will ever tell this replica.

mod harness;

use eyot_raft_glue::{Fate, MembershipChange, MessageKind, PeerId, Settings};
use harness::{settings, Cluster};

fn impatient() -> Settings {
    Settings { proposal_ticks_max: 30, ..settings() }
}

#[test]
fn a_replica_that_led_and_hears_nothing_more_tells_that_it_does_not_know() {
    let mut cluster = Cluster::new(3, 0, &impatient());
    let old = cluster.elect();
    cluster.isolate(&[old]);
    let position = cluster.propose(old, "a").expect("it leads");
    while cluster.group(old).is_leader() {
        cluster.tick();
    }
    cluster.ticks(29);
    assert_eq!(cluster.replica(old).fate(position), None);
    cluster.ticks(2);
    assert_eq!(cluster.replica(old).fate(position), Some(Fate::Unknown));
    cluster.heal();
    cluster.ticks(100);
    assert_eq!(cluster.replica(old).proposals.len(), 1, "and nothing else later");
}

#[test]
fn a_replica_that_leads_again_in_time_goes_on_waiting() {
    let mut cluster = Cluster::new(1, 1, &impatient());
    cluster.elect();
    cluster.sync = false;
    let position = cluster.propose(1, "slow disk").expect("it leads");
    cluster.ticks(100);
    assert_eq!(cluster.replica(1).fate(position), None, "it leads: nothing is lost");
    cluster.sync(1);
    cluster.settle();
    assert_eq!(cluster.replica(1).fate(position), Some(Fate::Done));
}

#[test]
fn a_replica_that_is_removed_tells_that_it_does_not_know() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let first = cluster.elect();
    let removed = first % 3 + 1;
    let third = removed % 3 + 1;
    // It leads with the entry that removes it in its log, and proposes behind it.
    cluster.isolate(&[third]);
    cluster.change(first, &[MembershipChange::Remove(PeerId(removed))]).expect("a member");
    cluster.poll(first);
    assert_eq!(cluster.deliver_kind(removed, MessageKind::Append), 1);
    cluster.wire.clear();
    cluster.poll(removed);
    cluster.heal();
    cluster.isolate(&[first]);
    cluster.apply = false;
    cluster.campaign_until_leader(removed);
    let position = cluster.propose(removed, "behind").expect("it leads");
    cluster.apply = true;
    cluster.poll(removed);
    assert!(!cluster.group(removed).membership().contains(PeerId(removed)));
    assert_eq!(cluster.replica(removed).fate(position), Some(Fate::Unknown));
}
