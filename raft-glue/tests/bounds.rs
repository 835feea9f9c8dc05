//! What one replica sends or writes by its bounds, another one or the next life reads.

mod harness;

use eyot_raft_glue::{
    Dropped, Group, Identity, Index, Membership, MessageKind, PeerId, Recovered, RecoveryError, Settings, ENTRIES_MAX,
    RECORD_ENTRIES_MAX,
};
use harness::{message, peers, settings, Cluster, GROUP};

/// An append of `count` empty entries after `index`, which is of this term as well or the founding's.
fn append(index: u64, index_term: u64, count: u64) -> eyot_raft_glue::PeerMessage {
    let mut fields = vec![9, index_term, index, 1, count];
    (0..count).for_each(|_| fields.extend([9, 0]));
    message(2, 1, MessageKind::Append, &fields)
}

#[test]
fn what_comes_between_two_polls_goes_into_a_record_that_is_read_again() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let count = ENTRIES_MAX as u64 - 1;
    assert_eq!(cluster.group(1).receive(append(1, 1, count)), Ok(()));
    assert_eq!(cluster.group(1).receive(append(1 + count, 9, count)), Ok(()));
    // The harness reads every record again.
    cluster.poll(1);
    assert_eq!(cluster.group(1).last(), Index(1 + 2 * count));
    cluster.crash(1, usize::MAX);
    cluster.restart(1);
    assert_eq!(cluster.group(1).last(), Index(1 + 2 * count));
}

#[test]
fn what_does_not_fit_into_one_record_is_dropped_until_somebody_polls() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let count = ENTRIES_MAX as u64;
    let mut last = 1;
    while last + count <= RECORD_ENTRIES_MAX as u64 + 1 {
        let term = if last == 1 { 1 } else { 9 };
        assert_eq!(cluster.group(1).receive(append(last, term, count)), Ok(()));
        last += count;
    }
    assert_eq!(cluster.group(1).receive(append(last, 9, 1)), Err(Dropped::Backlog));
    cluster.poll(1);
    assert_eq!(cluster.group(1).receive(append(last, 9, 1)), Ok(()));
}

#[test]
fn an_append_to_who_lags_far_behind_has_no_more_entries_than_are_read() {
    let wide = Settings { append_bytes_max: 4 * 1024 * 1024, ..settings() };
    let mut cluster = Cluster::new(3, 0, &wide);
    let leader = cluster.elect();
    let late = leader % 3 + 1;
    cluster.isolate(&[late]);
    let entries = ENTRIES_MAX as u64 + 5000;
    while cluster.group(leader).last().0 < entries {
        while cluster.propose(leader, "").is_ok() {}
        cluster.settle();
        cluster.sent.clear();
    }
    cluster.heal();
    // The harness reads every message again.
    cluster.ticks(20);
    assert!(cluster.group(late).last().0 >= entries);
    cluster.assert_equal_states();
}

#[test]
fn settings_that_no_other_replica_could_follow_are_refused() {
    let start = |settings: Settings| {
        let identity = Identity { group: GROUP, peer: PeerId(1), incarnation: 1, seed: 1 };
        Group::new(identity, settings, Recovered::founding(Membership::new(peers(1..=3), []))).map(drop)
    };
    assert_eq!(start(settings()), Ok(()));
    let long = start(Settings { append_bytes_max: 5 * 1024 * 1024, ..settings() });
    assert!(matches!(long, Err(RecoveryError::Settings(_))), "{long:?}");
    let many = start(Settings { pending_proposals_max: ENTRIES_MAX, ..settings() });
    assert!(matches!(many, Err(RecoveryError::Settings(_))), "{many:?}");
}
