//! The known traps of the consensus library and of what stands around it, each with a test that bears its number.
//!
//! | trap | where |
//! |---|---|
//! | P1 to P13, P15, P16, P18 | here, by number |
//! | P14: the library panics on what is impossible | the release aborts; a bad log is an error, see `p14` |
//! | P17: memberships come unsorted | here, and beside `Membership` |
//!
//! Where the mistake can be planted, the test does that as well and sees it happen: run with `--features planted-bugs`.

mod harness;

use bytes::Bytes;
use eyot_raft_glue::{
    Dropped, EntryBody, EntryKind, EntryPosition, Event, Fate, Group, HardState, Identity, Index, LeaseSettings,
    LogEntry, Membership, MembershipChange, MembershipError, MessageKind, PeerId, PeerMessage, ProposeError, ReadId,
    ReadKind, Recovered, RecoveryError, Role, Settings, Term,
};
use harness::{message, peers, settings, Cluster, GROUP};

#[cfg(feature = "planted-bugs")]
fn planted(bug: eyot_raft_glue::PlantedBug) -> Settings {
    Settings { planted: Some(bug), ..settings() }
}

/// Elections, writes, a crash, reads: all that leaves a replica, byte by byte.
fn everything_sent() -> Vec<Vec<u8>> {
    let mut cluster = Cluster::new(3, 0, &settings());
    let first = cluster.elect();
    cluster.write(first, "a");
    cluster.crash(first, 0);
    let second = cluster.elect();
    cluster.read(second, 1, ReadKind::Linearizable);
    cluster.write(second, "b");
    cluster.restart(first);
    cluster.isolate(&[second]);
    cluster.ticks(80);
    cluster.heal();
    cluster.ticks(40);
    cluster.sent.into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn p01_election_timeouts_follow_from_the_seed_alone() {
    let first = everything_sent();
    assert!(first.len() > 200, "{} messages", first.len());
    (0..5).for_each(|_| assert!(everything_sent() == first, "the same world sent other messages"));
}

/// A leader that was deposed gets late answers to a round of reads that was granted long ago, and is asked for a read.
fn read_after_late_answers(settings: &Settings) -> bool {
    let mut cluster = Cluster::new(3, 0, settings);
    let old = cluster.elect();
    let other = old % 3 + 1;
    cluster.write(old, "a");
    cluster.read(old, 1, ReadKind::Linearizable);
    cluster.poll(old);
    let heartbeats = cluster.wire.clone();
    cluster.settle();
    assert!(matches!(cluster.replica(old).granted(1), Some(Ok(_))));
    // The same answers come once more, later.
    let is_read = |message: &&PeerMessage| message.kind() == MessageKind::Heartbeat && message.to() == PeerId(other);
    heartbeats.iter().filter(is_read).for_each(|message| cluster.deliver(message.clone()));
    cluster.poll(other);
    let late: Vec<PeerMessage> = cluster.wire.drain(..).collect();
    assert!(late.iter().any(|message| message.kind() == MessageKind::HeartbeatResponse));
    // Somebody else leads and has acknowledged a write that the old leader does not have.
    cluster.isolate(&[old]);
    cluster.campaign_until_leader(other);
    cluster.write(other, "b");
    cluster.read(old, 2, ReadKind::Linearizable);
    cluster.poll(old);
    late.into_iter().for_each(|message| cluster.deliver(message));
    cluster.poll(old);
    matches!(cluster.replica(old).granted(2), Some(Ok(_)))
}

#[test]
fn p02_reused_context_would_grant_stale_reads_so_none_is_reused() {
    assert!(!read_after_late_answers(&settings()));
    #[cfg(feature = "planted-bugs")]
    assert!(read_after_late_answers(&planted(eyot_raft_glue::PlantedBug::ReusedReadContext)), "the mistake shows");
}

#[test]
fn p03_reads_before_the_first_commit_of_a_term_or_across_leaders_are_kept() {
    let mut cluster = Cluster::new(3, 0, &Settings { read_ticks_max: 1000, ..settings() });
    let leader = cluster.elect();
    let other = leader % 3 + 1;
    // Nobody leads here yet: the read waits, and is granted when somebody does.
    cluster.isolate(&[leader]);
    cluster.ticks(3);
    cluster.read(other, 1, ReadKind::Linearizable);
    cluster.campaign_until_leader(other);
    cluster.ticks(5);
    assert!(matches!(cluster.replica(other).granted(1), Some(Ok(_))));
    // A round is under way when its leader is deposed: the read is granted by the one that follows.
    cluster.read(other, 2, ReadKind::Linearizable);
    cluster.poll(other);
    cluster.wire.clear();
    let third = other % 3 + 1;
    cluster.heal();
    let term = cluster.term(other).0;
    cluster.deliver(message(third, other, MessageKind::Heartbeat, &[term + 1, 1, 0]));
    assert_eq!(cluster.role(other), Role::Follower);
    assert_eq!(cluster.replica(other).granted(2), None);
    cluster.ticks(100);
    assert!(matches!(cluster.replica(other).granted(2), Some(Ok(_))));
}

#[test]
fn p04_a_sole_voter_is_not_elected_before_its_log_is_on_disk() {
    let mut cluster = Cluster::new(1, 1, &settings());
    cluster.elect();
    cluster.sync = false;
    cluster.propose(1, "unsynced").expect("it leads");
    cluster.poll(1);
    // A vote that is asked in a later term, by way of a transfer, deposes the leader while its log is under way.
    let term = cluster.term(1).0;
    cluster.deliver(message(2, 1, MessageKind::Vote, &[term + 3, 1, 1, 0, 0, 1]));
    assert_eq!(cluster.role(1), Role::Follower);
    cluster.poll(1);
    let refused = cluster.group(1).receive(message(2, 1, MessageKind::TimeoutNow, &[term + 3]));
    assert_eq!(refused, Err(Dropped::NotOnDisk));
    cluster.group(1).campaign();
    (0..100).for_each(|_| cluster.tick_one(1));
    assert_eq!(cluster.role(1), Role::Follower);
    cluster.sync = true;
    cluster.sync(1);
    assert_eq!(cluster.elect(), 1);
    cluster.settle();
    assert_eq!(cluster.replica(1).commands(), ["unsynced"]);
}

#[test]
fn p05_a_sole_voter_sends_nothing_before_its_vote_is_durable() {
    let run = |settings: &Settings| {
        let mut cluster = Cluster::new(1, 1, settings);
        cluster.sync = false;
        cluster.group(1).campaign();
        cluster.poll(1);
        cluster.propose(1, "a").expect("it leads");
        cluster.poll(1);
        let before = cluster.sent.len();
        cluster.sync(1);
        cluster.poll(1);
        (before, cluster.sent.len())
    };
    let (before, after) = run(&settings());
    assert_eq!(before, 0, "messages of a term that could be lost");
    assert!(after > 0);
    #[cfg(feature = "planted-bugs")]
    assert!(run(&planted(eyot_raft_glue::PlantedBug::MessagesBeforeSync)).0 > 0, "the mistake shows");
}

fn leased() -> Settings {
    Settings { lease: Some(LeaseSettings { max_drift_ppm: 10_000, margin_us: 10_000 }), ..settings() }
}

#[test]
fn p06_a_deposed_leader_grants_nothing_once_its_lease_is_over() {
    let mut cluster = Cluster::new(3, 0, &leased());
    let old = cluster.elect();
    let other = old % 3 + 1;
    cluster.ticks(25);
    cluster.read(old, 1, ReadKind::Lease);
    cluster.ticks(2);
    assert!(matches!(cluster.replica(old).granted(1), Some(Ok(_))), "by a round, which gives a lease");
    cluster.isolate(&[old]);
    cluster.read(old, 2, ReadKind::Lease);
    cluster.poll(old);
    assert!(matches!(cluster.replica(old).granted(2), Some(Ok(_))), "by the lease, without a word from anyone");
    while !cluster.group(other).is_leader() && !cluster.group(other % 3 + 1).is_leader() {
        cluster.read(old, 3, ReadKind::Lease);
        cluster.tick();
    }
    let reads = cluster.replica(old).reads.len();
    let now_us = cluster.now_us;
    cluster.group(old).read(ReadId(4), ReadKind::Lease, now_us).expect("room");
    cluster.group(old).read(ReadId(5), ReadKind::Linearizable, now_us).expect("room");
    cluster.poll(old);
    assert_eq!(cluster.replica(old).reads.len(), reads, "nothing is granted once another may lead");
}

#[test]
fn p06_a_lease_ends_with_the_start_of_a_transfer_and_with_a_change_of_membership() {
    let mut cluster = Cluster::new(3, 0, &leased());
    let leader = cluster.elect();
    cluster.ticks(25);
    let mut id = 0;
    let mut granted_alone = |cluster: &mut Cluster| {
        id += 1;
        cluster.read(leader, id, ReadKind::Lease);
        cluster.poll(leader);
        let granted = cluster.replica(leader).granted(id).is_some();
        cluster.settle();
        granted
    };
    assert!(!granted_alone(&mut cluster), "the first asks a majority");
    assert!(granted_alone(&mut cluster));
    cluster.change(leader, &[MembershipChange::AddLearner(PeerId(9))]).expect("a new learner");
    cluster.settle();
    assert!(!granted_alone(&mut cluster), "the membership has changed");
    assert!(granted_alone(&mut cluster));
    cluster.isolate(&[leader % 3 + 1]);
    cluster.group(leader).transfer(PeerId(leader % 3 + 1)).expect("it follows");
    assert!(!granted_alone(&mut cluster), "leadership may be elsewhere any moment");
    assert!(!granted_alone(&mut cluster), "and so for the rest of the term");
}

#[test]
fn p07_a_restarted_replica_keeps_out_of_elections_while_a_lease_may_hold() {
    for (settings, first) in [(leased(), Err(Dropped::LeaseMayHold)), (settings(), Ok(()))] {
        let mut cluster = Cluster::new(3, 0, &settings);
        let leader = cluster.elect();
        let follower = leader % 3 + 1;
        let third = follower % 3 + 1;
        cluster.crash(follower, 0);
        cluster.restart(follower);
        let term = cluster.term(follower).0;
        let vote = |transfer| message(third, follower, MessageKind::Vote, &[term + 1, 9, 99, 0, 0, transfer]);
        assert_eq!(cluster.group(follower).receive(vote(0)), first);
        assert_eq!(cluster.group(follower).receive(vote(1)), Ok(()), "the leader gave its lease up itself");
        let ticks = settings.election_ticks;
        (0..ticks).for_each(|_| cluster.tick_one(follower));
        let pre_vote = message(third, follower, MessageKind::PreVote, &[term + 9, 9, 99, 0, 0, 0]);
        assert_eq!(cluster.group(follower).receive(pre_vote), Ok(()));
    }
}

#[test]
fn p08_a_stale_rejection_does_not_set_the_leader_back() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    cluster.write(leader, "a");
    let term = cluster.term(leader).0;
    let matched = cluster.group(leader).matched(PeerId(follower)).expect("a member").0;
    let rejection =
        |index| message(follower, leader, MessageKind::AppendResponse, &[term, index, 1, 1, term, matched, 0]);
    assert_eq!(cluster.group(leader).receive(rejection(matched)), Err(Dropped::StaleRejection));
    assert_eq!(cluster.group(leader).receive(rejection(matched - 1)), Err(Dropped::StaleRejection));
    assert_eq!(cluster.group(leader).receive(rejection(matched + 1)), Ok(()));
    let confirms = |index| message(follower, leader, MessageKind::AppendResponse, &[term, index, 1, 0]);
    let last = cluster.group(leader).last().0;
    assert_eq!(cluster.group(leader).receive(confirms(last + 1)), Err(Dropped::Impossible));
}

#[test]
fn p09_nothing_is_forwarded() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    let sent = cluster.sent.len();
    let refused = cluster.propose(follower, "a");
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(PeerId(leader)) }));
    assert!(cluster.group(follower).transfer(PeerId(follower)).is_err());
    cluster.poll(follower);
    assert_eq!(cluster.sent.len(), sent);
    for kind in [0, 13, 15, 16, 255] {
        let bytes = [GROUP.0 as u8, 1, 2, kind, 5, 0, 0, 0, 0];
        assert!(PeerMessage::decode(&Bytes::copy_from_slice(&bytes)).is_err(), "kind {kind} has no words on the wire");
    }
}

#[test]
fn p10_one_poll_gives_out_a_bounded_number_of_bytes() {
    let mut cluster = Cluster::new(1, 0, &Settings { apply_bytes_max: 1000, ..settings() });
    cluster.elect();
    cluster.sync = false;
    for _ in 0..50 {
        cluster.propose(1, &"x".repeat(300)).expect("room");
    }
    cluster.poll(1);
    cluster.apply = false;
    let last = cluster.last_number(1).expect("records");
    cluster.group(1).persisted(last);
    let mut given = 0;
    while cluster.group(1).has_work() {
        let mut out = eyot_raft_glue::Output::default();
        cluster.group(1).poll(&mut out);
        let bytes: usize = out.apply.iter().map(|apply| apply.entry.byte_length()).sum();
        assert!(bytes <= 1000, "{bytes} bytes in one poll");
        given += out.apply.len();
    }
    assert_eq!(given, 50);
}

#[test]
fn p11_taken_is_not_committed_and_another_entry_in_its_place_means_lost() {
    let run = |settings: &Settings| {
        let mut cluster = Cluster::new(3, 0, settings);
        let old = cluster.elect();
        let other = old % 3 + 1;
        cluster.isolate(&[old]);
        let lost = cluster.propose(old, "lost").expect("it leads");
        cluster.poll(old);
        let early = cluster.replica(old).fate(lost);
        cluster.campaign_until_leader(other);
        cluster.write(other, "kept");
        cluster.heal();
        cluster.ticks(10);
        (early, cluster.replica(old).fate(lost), cluster.replica(old).commands())
    };
    assert_eq!(run(&settings()), (None, Some(Fate::Lost), vec!["kept".to_owned()]));
    #[cfg(feature = "planted-bugs")]
    assert_eq!(run(&planted(eyot_raft_glue::PlantedBug::DoneAtAppend)).0, Some(Fate::Done), "the mistake shows");
}

#[test]
fn p12_a_new_leader_grants_nothing_before_it_has_committed_itself() {
    let run = |settings: &Settings| {
        let mut cluster = Cluster::new(3, 0, settings);
        let old = cluster.elect();
        let other = old % 3 + 1;
        // The write is acknowledged; the follower has it and does not know that it is committed.
        let position = cluster.write(old, "a");
        assert!(cluster.group(other).commit() < position.index);
        cluster.isolate(&[old]);
        // Elected, and its own entry is not committed: it cannot reach the third any more.
        while !cluster.group(other).is_leader() {
            cluster.group(other).campaign();
            (0..settings.election_ticks).for_each(|_| cluster.tick_one(other % 3 + 1));
            while !cluster.group(other).is_leader() {
                cluster.poll_all();
                let Some(message) = cluster.wire.pop_front() else { break };
                cluster.deliver(message);
            }
        }
        cluster.isolate(&[old, other]);
        cluster.isolate(&[other]);
        cluster.read(other, 1, ReadKind::Linearizable);
        cluster.poll(other);
        let early = cluster.replica(other).granted(1);
        cluster.heal();
        cluster.ticks(5);
        (early, cluster.replica(other).granted(1), position.index)
    };
    let (early, granted, index) = run(&settings());
    assert_eq!(early, None);
    assert!(granted.expect("an answer").expect("a grant") >= index);
    #[cfg(feature = "planted-bugs")]
    {
        let (early, _, index) = run(&planted(eyot_raft_glue::PlantedBug::GrantBeforeOwnCommit));
        assert!(early.expect("an answer").expect("a grant") < index, "the mistake shows");
    }
}

#[test]
fn p13_uncommitted_bytes_are_bounded_across_leaders() {
    let bounded = Settings { uncommitted_bytes_max: 10_000, append_bytes_max: 5000, ..settings() };
    let mut cluster = Cluster::new(3, 0, &bounded);
    let leader = cluster.elect();
    cluster.isolate(&[leader]);
    let fill =
        |cluster: &mut Cluster| (0..100).take_while(|_| cluster.propose(leader, &"x".repeat(1000)).is_ok()).count();
    let taken = fill(&mut cluster);
    assert!((9..=11).contains(&taken), "{taken} proposals of 1,000 bytes");
    assert_eq!(cluster.propose(leader, "more"), Err(ProposeError::Backlog));
    // It leads again without having heard of what became of them.
    cluster.heal();
    cluster.campaign_until_leader(leader % 3 + 1);
    cluster.ticks(5);
    cluster.campaign_until_leader(leader);
    cluster.ticks(5);
    cluster.isolate(&[leader]);
    let taken = fill(&mut cluster);
    assert!((9..=11).contains(&taken), "{taken} proposals of 1,000 bytes");
}

#[test]
fn p13_proposals_without_a_byte_are_bounded_by_their_number() {
    let mut cluster = Cluster::new(3, 0, &Settings { pending_proposals_max: 10, ..settings() });
    let leader = cluster.elect();
    cluster.isolate(&[leader]);
    let taken = (0..100).take_while(|_| cluster.propose(leader, "").is_ok()).count();
    assert_eq!(taken, 10);
    assert_eq!(cluster.propose(leader, ""), Err(ProposeError::Backlog));
}

#[test]
fn p14_a_log_that_the_library_would_panic_on_is_refused_with_an_error() {
    let start = |recovered: Recovered| {
        let identity = Identity { group: GROUP, peer: PeerId(1), incarnation: 1, seed: 1 };
        Group::new(identity, settings(), recovered).map(drop)
    };
    let founding = || Recovered::founding(Membership::new(peers(1..=3), []));
    let entry = |term, index| LogEntry {
        position: EntryPosition { term: Term(term), index: Index(index) },
        body: EntryBody::Empty,
    };
    let state = |term, commit| HardState { term: Term(term), vote: None, commit: Index(commit) };
    assert_eq!(start(founding()), Ok(()));
    let sound = Recovered { hard_state: state(2, 2), entries: vec![entry(2, 2)], ..founding() };
    assert_eq!(start(sound.clone()), Ok(()));
    let low = Recovered { hard_state: state(2, 0), ..sound.clone() };
    assert_eq!(start(low), Ok(()), "the commit index is raised to the snapshot's");
    let beyond = Recovered { hard_state: state(2, 3), ..sound.clone() };
    assert_eq!(start(beyond), Err(RecoveryError::CommitBeyondLog { commit: Index(3), last: Index(2) }));
    let gap = Recovered { entries: vec![entry(2, 3)], ..sound.clone() };
    assert_eq!(start(gap), Err(RecoveryError::Gap { before: Index(1), after: Index(3) }));
    let falls = Recovered { hard_state: state(3, 2), entries: vec![entry(3, 2), entry(2, 3)], ..sound.clone() };
    assert_eq!(start(falls), Err(RecoveryError::TermDecreases(Index(3))));
    let behind = Recovered { hard_state: state(1, 2), ..sound.clone() };
    assert_eq!(start(behind), Err(RecoveryError::TermBehindLog { entry: Term(2), own: Term(1) }));
    let applied = Recovered { applied: Index(3), ..sound };
    let expected = RecoveryError::AppliedOutOfRange { applied: Index(3), snapshot: Index(1), commit: Index(2) };
    assert_eq!(start(applied), Err(expected));
}

#[test]
fn p15_each_election_adds_an_empty_entry_that_counts_as_applied() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    cluster.settle();
    assert_eq!(cluster.group(leader).last_applied(), Index(2));
    assert!(cluster.replica(leader).state.is_empty(), "nothing was proposed");
}

#[test]
#[should_panic(expected = "is applied and")]
fn p16_applying_what_was_not_given_out_is_a_bug() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let last = cluster.group(leader).last_applied();
    cluster.group(leader).applied(Index(last.0 + 1));
}

#[test]
fn p16_entries_come_once_and_without_a_gap_however_late_they_are_applied() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    cluster.apply = false;
    for number in 0..30 {
        cluster.propose(leader, &format!("{number}")).expect("it leads");
        cluster.settle();
    }
    cluster.apply = true;
    // The harness asserts that there is no gap.
    cluster.poll_all();
    cluster.ticks(5);
    cluster.assert_equal_states();
    assert_eq!(cluster.replica(leader).commands().len(), 30);
}

#[test]
fn p17_memberships_are_equal_on_all_replicas() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    for peer in [9, 4, 7] {
        cluster.add(PeerId(peer), &settings(), Recovered::joining());
        cluster.change(leader, &[MembershipChange::AddLearner(PeerId(peer))]).expect("a new learner");
        cluster.ticks(10);
    }
    let learners = peers([4, 7, 9]);
    for peer in [1, 2, 3, 4, 7, 9] {
        assert_eq!(cluster.group(peer).membership().learners, learners, "on {peer}");
    }
}

#[test]
fn p18_no_hash_map_is_used_whose_order_could_show() {
    let mut directories = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            files += 1;
            for word in ["HashMap", "HashSet"] {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
    assert!(files > 20, "{files} files");
}

#[test]
fn a_second_change_while_one_is_pending_is_refused() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    cluster.change(leader, &[MembershipChange::AddLearner(PeerId(4))]).expect("the first");
    let second = cluster.change(leader, &[MembershipChange::AddLearner(PeerId(5))]);
    assert_eq!(second, Err(MembershipError::Pending));
    cluster.settle();
    cluster.change(leader, &[MembershipChange::AddLearner(PeerId(5))]).expect("the first has taken effect");
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    use MembershipChange::{AddLearner, Promote, Remove};

    let mut cluster = Cluster::new(3, 1, &settings());
    let leader = cluster.elect();
    let (me, other) = (PeerId(leader), PeerId(leader % 3 + 1));
    let cases: [(&[MembershipChange], MembershipError); 8] = [
        (&[], MembershipError::Malformed),
        (&[AddLearner(PeerId(0))], MembershipError::Malformed),
        (&[Remove(other), Remove(other)], MembershipError::Malformed),
        (&[AddLearner(other)], MembershipError::AlreadyMember(other)),
        (&[Promote(other)], MembershipError::NotLearner(other)),
        (&[Remove(PeerId(77))], MembershipError::NotMember(PeerId(77))),
        (&[Remove(me)], MembershipError::RemovesLeader(me)),
        (&[Promote(PeerId(77))], MembershipError::NotLearner(PeerId(77))),
    ];
    for (changes, error) in cases {
        assert_eq!(cluster.change(leader, changes), Err(error), "{changes:?}");
    }
    cluster.crash(4, 0);
    for number in 0..6 {
        cluster.write(leader, &format!("{number}"));
    }
    let lags = cluster.change(leader, &[Promote(PeerId(4))]);
    assert!(matches!(lags, Err(MembershipError::LagsBehind { entries: 6.., .. })), "{lags:?}");
    cluster.change(leader, &[Remove(other)]).expect("a member");
    cluster.settle();
    let again = cluster.change(leader, &[AddLearner(other)]);
    assert_eq!(again, Err(MembershipError::FormerPeer(other)));
}

#[test]
fn messages_to_a_former_id_and_from_a_former_member_are_dropped() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let other = leader % 3 + 1;
    let term = cluster.term(leader).0;
    let to_other = message(leader, 77, MessageKind::Heartbeat, &[term, 1, 0]);
    assert_eq!(cluster.group(other).receive(to_other), Err(Dropped::FormerId));
    cluster.change(leader, &[MembershipChange::Remove(PeerId(other))]).expect("a member");
    cluster.settle();
    let from_other = message(other, leader, MessageKind::Vote, &[term + 50, term, 99, 0, 0, 1]);
    assert_eq!(cluster.group(leader).receive(from_other), Err(Dropped::FormerSender));
    assert!(cluster.group(leader).is_leader());
}

#[test]
fn a_replica_that_lost_what_it_confirmed_says_so() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let other = leader % 3 + 1;
    cluster.write(leader, "a");
    cluster.ticks(5);
    cluster.crash(other, 0);
    cluster.replica(other).disk.clear();
    cluster.restart(other);
    let (term, commit) = (cluster.term(leader).0, cluster.group(leader).commit().0);
    let heartbeat = message(leader, other, MessageKind::Heartbeat, &[term, commit, 0]);
    assert_eq!(cluster.group(other).receive(heartbeat), Err(Dropped::LostLog));
}

#[test]
fn while_a_snapshot_is_installed_there_is_no_tick_and_no_order_to_lead() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    cluster.isolate(&[follower]);
    for number in 0..5 {
        cluster.write(leader, &format!("{number}"));
    }
    cluster.cut_snapshot(leader);
    cluster.group(leader).compact(Index::MAX);
    cluster.heal();
    cluster.sync = false;
    cluster.ticks(5);
    assert!(cluster.group(follower).is_installing());
    let term = cluster.term(follower).0;
    let order = message(leader, follower, MessageKind::TimeoutNow, &[term]);
    assert_eq!(cluster.group(follower).receive(order), Err(Dropped::Installing));
    (0..200).for_each(|_| cluster.tick_one(follower));
    assert_eq!(cluster.role(follower), Role::Follower);
    cluster.sync = true;
    cluster.sync(follower);
    cluster.sync(leader);
    cluster.ticks(5);
    cluster.assert_equal_states();
}

#[test]
fn a_leader_that_an_earlier_leader_removed_stops_leading() {
    let mut cluster = Cluster::new(3, 0, &settings());
    let first = cluster.elect();
    let removed = first % 3 + 1;
    let third = removed % 3 + 1;
    // The entry that removes it reaches it and nobody else, and its proposer is gone.
    cluster.isolate(&[third]);
    cluster.change(first, &[MembershipChange::Remove(PeerId(removed))]).expect("a member");
    cluster.poll(first);
    assert_eq!(cluster.deliver_kind(removed, MessageKind::Append), 1);
    cluster.wire.clear();
    cluster.poll(removed);
    cluster.wire.clear();
    cluster.heal();
    cluster.isolate(&[first]);
    let led = |event: &Event| matches!(event, Event::RoleChanged { role: Role::Leader, .. });
    for _ in 0..10 {
        cluster.starve_others(removed);
        cluster.campaign(removed);
    }
    assert!(cluster.replica(removed).events.iter().any(led), "it was elected, and committed its own removal");
    assert_ne!(cluster.role(removed), Role::Leader);
    let leader = cluster.elect();
    assert_ne!(leader, removed);
    cluster.heal();
    cluster.ticks(100);
    let leader = cluster.leader().expect("one");
    assert_eq!(cluster.group(leader).membership().voters.len(), 2);
    let refused = cluster.propose(removed, "x");
    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
}

#[test]
fn a_joint_membership_that_its_leader_left_behind_is_left() {
    let mut cluster = Cluster::new(3, 2, &settings());
    let first = cluster.elect();
    cluster.ticks(3);
    let old = first % 3 + 1;
    let changes = [MembershipChange::Promote(PeerId(4)), MembershipChange::Remove(PeerId(old))];
    cluster.change(first, &changes).expect("it has caught up");
    // Committed everywhere; the leader stops before it applies the entry, so it never proposes to leave.
    cluster.replica(first).group().propose(EntryKind::Commands, Bytes::from_static(b"x")).expect("it leads");
    cluster.apply = false;
    cluster.settle();
    cluster.crash(first, usize::MAX);
    cluster.apply = true;
    let second = cluster.elect();
    cluster.ticks(10);
    assert!(!cluster.group(second).membership().is_joint());
    assert!(cluster.group(second).membership().voters.contains(&PeerId(4)));
}
