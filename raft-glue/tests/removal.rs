//! Who left the group may be switched off when those who stay say so, whatever happens to them then.

mod harness;

use eyot_raft_glue::{Event, Membership, MembershipChange, MessageKind, PeerId};
use harness::{peers, settings, Cluster};

fn says_removed(cluster: &mut Cluster, peer: u64) -> bool {
    let alone = Membership::new(peers([peer]), []);
    let is_said = |event: &Event| matches!(event, Event::MembershipChanged { membership, .. } if *membership == alone);
    cluster.replica(peer).events.iter().any(is_said)
}

#[test]
fn a_removal_is_told_when_it_cannot_be_forgotten() {
    let mut cluster = Cluster::new(2, 0, &settings());
    let leader = cluster.elect();
    let other = leader % 2 + 1;
    cluster.sync = false;
    cluster.change(leader, &[MembershipChange::Remove(PeerId(other))]).expect("a member");
    cluster.poll(leader);
    cluster.sync(leader);
    cluster.deliver_kind(other, MessageKind::Append);
    cluster.poll(other);
    cluster.sync(other);
    cluster.poll(other);
    cluster.deliver_kind(leader, MessageKind::AppendResponse);
    // Committed and applied; that it is committed is written and not synced.
    cluster.poll(leader);
    assert_eq!(cluster.group(leader).membership().voters, peers([leader]));
    assert!(!says_removed(&mut cluster, leader), "a crash could make it forget");
    assert!(cluster.replica(leader).unsynced.last().expect("the commit index").must_sync, "somebody waits for it");
    cluster.sync(leader);
    cluster.poll(leader);
    assert!(says_removed(&mut cluster, leader));
    // The removed one is switched off, and the other starts again from what was durable.
    cluster.crash(other, 0);
    cluster.crash(leader, 0);
    cluster.restart(leader);
    cluster.sync = true;
    assert_eq!(cluster.elect(), leader);
}
