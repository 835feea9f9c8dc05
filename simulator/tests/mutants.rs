//! Every planted mistake is found, by a check that it must break: the test of the tester.
//!
//! Here each gets a budget of worlds that fits into every run of the tests; `mutants` on the command line gives each
//! 100,000.

use eyot_simulator::campaign::campaign;
use eyot_simulator::truth::Check;
use eyot_simulator::{Bug, Options};

/// Worlds for each mistake here: some times what the rarest needs.
const SEEDS: u64 = 5_000;

/// What a mistake may be found by first. A finding of another kind would be luck, or a mistake of the simulator's own.
/// Where an assertion stands, it is one of the consensus library, which notices by itself what it was told too early.
fn expected(bug: Bug) -> &'static [Check] {
    use Check::{
        AcknowledgedWriteMissing, DamageBelieved, DoubleVote, ExecutedTwice, MembershipDiffers, NoProgress, Panicked,
        SecondChange, SnapshotNotStaged, StaleRead, StartRefused, StateDiffers, TakenByStranger, TwoLeaders,
        WrongAnswer, WrongFate,
    };
    match bug {
        // What a vote or a log promised was not on disk: a second vote, a second leader, entries that are gone; or a
        // replica that lost what it had confirmed, refuses its leader for it, and never catches up.
        Bug::MessagesBeforeSync | Bug::EarlyPersistence => {
            &[AcknowledgedWriteMissing, DoubleVote, TwoLeaders, StateDiffers, NoProgress, Panicked]
        }
        Bug::LostVote => &[DoubleVote, TwoLeaders],
        Bug::ReusedReadContext
        | Bug::LeaseWithoutQuorum
        | Bug::GrantBeforeOwnCommit
        | Bug::GrantBeforeApply
        | Bug::LeaseKeptInTransfer
        | Bug::NoVoteGuardAfterBoot => &[StaleRead],
        // The library looks for entries that the snapshot took the place of.
        Bug::NoInstallGate | Bug::CommitBelowSnapshot => &[Panicked],
        // Where the cut is near the beginning, what is left is not believed.
        Bug::TruncatedMiddle => &[DamageBelieved, StartRefused],
        Bug::ConflictNotRewritten => &[StateDiffers, AcknowledgedWriteMissing, StartRefused],
        Bug::SkippedSessionCheck | Bug::ExpiredSessionExecutes => &[ExecutedTwice],
        Bug::UnsortedMembership | Bug::AutoLeaveNotInSnapshot | Bug::StaleSnapshotMembership => &[MembershipDiffers],
        Bug::SecondPendingChange => &[SecondChange],
        Bug::AppliedBeyondPersisted => &[StateDiffers, AcknowledgedWriteMissing, WrongFate, Panicked],
        Bug::DoneAtAppend => &[WrongFate],
        Bug::StagedBeforeComplete => &[SnapshotNotStaged],
        Bug::SnapshotCutAtMessage | Bug::SessionUseNotInSnapshot => &[StateDiffers],
        Bug::CompactionAboveSnapshot | Bug::SplitRecord => &[StartRefused],
        Bug::FormerPeerAccepted => &[TakenByStranger],
        Bug::StaleSessionReply => &[WrongAnswer],
    }
}

#[test]
fn every_planted_mistake_is_found_within_its_budget_and_for_its_reason() {
    let problem = |bug: Bug| {
        let options = Options { with_lines: false, bug: Some(bug) };
        let Some((seed, violation)) = campaign(0, SEEDS, 2, options, |_| {}).found else {
            return Some(format!("{bug:?} is not found within {SEEDS} worlds"));
        };
        println!("{bug:?}: seed {seed}: {violation}");
        let is_expected = expected(bug).contains(&violation.check);
        (!is_expected).then(|| format!("{bug:?} is found by another check than it should: seed {seed}: {violation}"))
    };
    let problems: Vec<String> = Bug::ALL.into_iter().filter_map(problem).collect();
    assert!(problems.is_empty(), "{problems:#?}");
}
