//! A fixed set of worlds: nothing goes wrong in them, they are reproducible, and each kind of fault is met.

use eyot_simulator::campaign::{campaign, run_caught, Digest};
use eyot_simulator::counts::Count;
use eyot_simulator::plan::{Kind, Plan};
use eyot_simulator::shrink::shrink;
use eyot_simulator::truth::Check;
use eyot_simulator::{Bug, Options};

/// Worlds of every run of the tests: about half a minute on one core.
const SEEDS: u64 = 2_000;

/// Worlds that are run twice.
const TWICE: u64 = 150;

/// What `twice --seeds 150` prints, in every build and on every machine. It changes with everything that the worlds or
/// the consensus core do differently, and never otherwise: when such a change was meant, the new one is in the failure
/// of the test, and goes here.
const DIGEST: u64 = 0x3876_c603_f0c4_69a5;

#[test]
fn nothing_goes_wrong_in_a_fixed_set_of_worlds() {
    let outcome = campaign(0, SEEDS, 2, Options::default(), |_| {});
    if let Some((seed, violation)) = outcome.found {
        panic!(
            "seed {seed}: {violation}\nsee it again with: cargo run -p eyot-simulator -- replay --seed {seed} --trace"
        );
    }
    let counts = outcome.counts;
    println!("{counts}");
    // A simulator in which nothing happens finds nothing.
    for count in [
        Count::Crashes,
        Count::PowerCuts,
        Count::TornBatches,
        Count::Pauses,
        Count::Partitions,
        Count::Transfers,
        Count::MembershipChanges,
        Count::JointMemberships,
        Count::ReplicasReplaced,
        Count::SnapshotInstalls,
        Count::BatchesShared,
        Count::FramesShared,
        Count::StreamsBroken,
        Count::StreamsCutAtMessage,
        Count::HandoverCuts,
        Count::LeaseTraps,
        Count::DiskStalls,
        Count::SyncFailures,
        Count::BitFlipsRefused,
        Count::DisksLost,
        Count::LeaseReadsChecked,
        Count::WritesUnknown,
        Count::WritesRetried,
        Count::DuplicatesSuppressed,
        Count::SessionsExpired,
    ] {
        assert!(counts.of(count) > 0, "in {SEEDS} worlds there were no {count:?}");
    }
    assert!(counts.of(Count::WritesAcknowledged) > 20 * SEEDS && counts.of(Count::ReadsChecked) > 10 * SEEDS);
    assert!(counts.of(Count::HistoriesChecked) > SEEDS && counts.of(Count::Elections) > SEEDS);
}

/// Seeds of worlds that went wrong, and should not have. 23350: the leader of three voters applied the removal of one
/// and lost its disk before anybody could tell of that; the world took the group for one of three, which a majority of
/// two survives. 26949: one machine of five was left, and a client that asked them by chance missed it for a minute.
const WENT_WRONG: &[u64] = &[23_350, 26_949];

#[test]
fn worlds_that_went_wrong_once_go_well() {
    for seed in WENT_WRONG {
        assert_eq!(run_caught(Plan::of_seed(*seed), Options::default()).violation, None, "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_trace_twice_with_lines_or_without() {
    let mut digest = Digest::default();
    for seed in 0..TWICE {
        let report = |with_lines| run_caught(Plan::of_seed(seed), Options { with_lines, bug: None });
        let (first, second) = (report(false), report(seed % 8 == 0));
        digest.add(first.hash);
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.counts, second.counts, "seed {seed}");
        assert_eq!(second.lines.is_empty(), seed % 8 != 0, "seed {seed}");
    }
    assert_eq!(digest.0, DIGEST, "the digest is 0x{:016x}: the worlds are others than before", digest.0);
}

#[test]
fn another_seed_gives_another_trace() {
    let hash = |seed| run_caught(Plan::of_seed(seed), Options::default()).hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_failure_shrinks_to_the_faults_that_it_needs() {
    let options = Options { with_lines: false, bug: Some(Bug::LostVote) };
    let fails = |plan: Plan| run_caught(plan, options).violation.map(|violation| violation.check);
    let (seed, check) = (0..2_000)
        .find_map(|seed| Some((seed, fails(Plan::of_seed(seed))?)))
        .expect("a lost vote is found within 2,000 worlds");
    let all: Vec<usize> = (0..Plan::of_seed(seed).items.len()).collect();
    let (kept, _) = shrink(&all, |kept| fails(Plan::of_seed(seed).with_only(kept)) == Some(check));
    assert!(kept.len() < all.len(), "all {} faults of seed {seed} are needed", all.len());
    assert_eq!(fails(Plan::of_seed(seed).with_only(&kept)), Some(check));
    assert_ne!(check, Check::NoProgress);
    let plan = Plan::of_seed(seed).with_only(&kept);
    let needed = |kind: Kind| plan.items.iter().any(|item| item.kind == kind);
    assert!(needed(Kind::Crash) || needed(Kind::PowerCut) || needed(Kind::PowerCutAll) || needed(Kind::SyncFailure));
}
