//! What must be true of a world after every step, whoever is looking: the checks.
//!
//! Place in the flow: the world tells what it sees as it happens; the first contradiction stays in
//! [`Truth::violation`] and ends the run. Nobody in the world can read anything from here that would help it.
//!
//! | check | holds because |
//! |---|---|
//! | one leader a term | who leads, and who sends as a leader, is noted by term |
//! | no double vote, across restarts too | granted votes are noted as they leave, by voter and term |
//! | equal state at equal index | the first replica that applies an index says what state it must give |
//! | nothing acknowledged is missing | a new leader's log is compared with what was acknowledged in earlier terms |
//! | reads are fresh | a read is granted at no less than anybody had applied when it was asked |
//! | exactly once | an operation is executed at one index, with one answer |
//! | memberships agree | what takes effect at an index is noted, and every snapshot must carry it |
//! | fates are true | what was called lost, or not applied, is never executed |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use eyot_raft_glue::{EntryPosition, GroupId, Index, Membership, PeerId, Term};

use crate::clock::{Time, MILLISECOND};
use crate::command::{Answer, Operation};

/// What can be found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // The names say it.
pub enum Check {
    TwoLeaders,
    DoubleVote,
    StateDiffers,
    AcknowledgedWriteMissing,
    StaleRead,
    ExecutedTwice,
    WrongAnswer,
    WrongFate,
    MembershipDiffers,
    StartRefused,
    DamageBelieved,
    SecondChange,
    TakenByStranger,
    SnapshotNotStaged,
    NoProgress,
    NotLinearizable,
    Panicked,
}

/// What was found wrong, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which check failed.
    pub check: Check,
    /// In words.
    pub what: String,
    /// When.
    pub at: Time,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} at {} ms: {}", self.check, self.at / MILLISECOND, self.what)
    }
}

/// What an index of a group's log holds, and the state after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The entry's term.
    pub term: Term,
    /// Hash over everything that was applied up to here, with its answers.
    pub chain: u64,
    /// Hash of the state's content.
    pub content: u64,
}

#[derive(Debug, Default)]
struct GroupTruth {
    applied: Vec<Option<Applied>>,
    newest: Index,
    leaders: BTreeMap<Term, PeerId>,
    votes: BTreeMap<(PeerId, Term), PeerId>,
    lost: BTreeSet<EntryPosition>,
    /// By the term in which it was acknowledged, the newest entry that was: entries of later leaders include it.
    acknowledged: BTreeMap<Term, EntryPosition>,
    /// What replicas have told of, because they cannot forget it any more.
    memberships: BTreeMap<Index, Membership>,
    /// What was applied anywhere, which is earlier.
    decided: BTreeMap<Index, Membership>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Executed {
    group: GroupId,
    index: Index,
    answer: Answer,
}

/// Everything that was seen, and the first contradiction.
#[derive(Debug, Default)]
pub struct Truth {
    /// The time of the present step.
    pub now: Time,
    /// The first contradiction.
    pub violation: Option<Violation>,
    groups: Vec<GroupTruth>,
    executed: BTreeMap<Operation, Executed>,
    not_applied: BTreeSet<Operation>,
}

impl Truth {
    /// Nothing was seen yet of so many groups, whose replicas start with `membership` at `index`.
    pub fn new(groups: u32, index: Index, membership: &Membership) -> Self {
        let group = || GroupTruth {
            newest: index,
            memberships: BTreeMap::from([(index, membership.clone())]),
            decided: BTreeMap::from([(index, membership.clone())]),
            ..GroupTruth::default()
        };
        Self { groups: (0..groups).map(|_| group()).collect(), ..Self::default() }
    }

    /// Something is wrong. The first time counts.
    pub fn fail(&mut self, check: Check, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { check, what: what(), at: self.now });
        }
    }

    fn group(&mut self, group: GroupId) -> &mut GroupTruth {
        &mut self.groups[group.0 as usize]
    }

    /// `peer` leads, or sends what only a leader sends.
    pub fn leads(&mut self, group: GroupId, term: Term, peer: PeerId) {
        let leader = *self.group(group).leaders.entry(term).or_insert(peer);
        if leader != peer {
            self.fail(Check::TwoLeaders, || format!("{group:?}, {term:?}: {leader:?} and {peer:?} lead"));
        }
    }

    /// A new leader's log, asked by index, has what was acknowledged before its term. What it has `compacted` it has
    /// applied, and there states are compared.
    pub fn has_acknowledged(
        &mut self,
        group: GroupId,
        term: Term,
        compacted: Index,
        log: impl Fn(Index) -> Option<Term>,
    ) {
        let before = self.group(group).acknowledged.range(..term).map(|(_, position)| *position).max_by_key(by_index);
        let Some(position) = before.filter(|position| position.index > compacted) else { return };
        let found = log(position.index);
        if found != Some(position.term) {
            self.fail(Check::AcknowledgedWriteMissing, || {
                format!("{group:?}: the leader of {term:?} has {found:?} at {position:?}, which was acknowledged")
            });
        }
    }

    /// `voter` gives its vote, and nobody can take that back.
    pub fn votes(&mut self, group: GroupId, voter: PeerId, term: Term, candidate: PeerId) {
        let first = *self.group(group).votes.entry((voter, term)).or_insert(candidate);
        if first != candidate {
            self.fail(Check::DoubleVote, || {
                format!("{group:?}, {term:?}: {voter:?} votes for {first:?} and for {candidate:?}")
            });
        }
    }

    /// A replica has applied an entry, or taken over a state that stands there.
    pub fn applied(&mut self, group: GroupId, peer: PeerId, index: Index, state: Applied) {
        let truth = self.group(group);
        let at = index.0 as usize;
        if truth.applied.len() <= at {
            truth.applied.resize(at + 1, None);
        }
        let first = *truth.applied[at].get_or_insert(state);
        truth.newest = truth.newest.max(index);
        let position = EntryPosition { term: state.term, index };
        let is_lost = truth.lost.contains(&position);
        if first != state {
            self.fail(Check::StateDiffers, || {
                format!("{group:?}, {index:?}: {peer:?} has {state:x?}, another replica had {first:x?}")
            });
        }
        if is_lost {
            self.fail(Check::WrongFate, || format!("{group:?}: {position:?} was called lost, and is applied"));
        }
    }

    /// A membership takes effect on a replica.
    pub fn membership(&mut self, group: GroupId, index: Index, membership: &Membership) {
        let first = self.group(group).memberships.entry(index).or_insert_with(|| membership.clone()).clone();
        if first != *membership {
            self.fail(Check::MembershipDiffers, || {
                format!("{group:?}, {index:?}: {membership:?}, another replica had {first:?}")
            });
        }
    }

    /// A replica has applied a change of membership, and this is what came of it.
    pub fn decides(&mut self, group: GroupId, index: Index, membership: &Membership) {
        let first = self.group(group).decided.entry(index).or_insert_with(|| membership.clone()).clone();
        if first != *membership {
            self.fail(Check::MembershipDiffers, || {
                format!("{group:?}, {index:?}: {membership:?} is applied, another replica had {first:?}")
            });
        }
    }

    /// A replica starts from a snapshot that stands at `index`: it must carry the membership that was decided by then.
    pub fn membership_as_of(&mut self, group: GroupId, index: Index, membership: &Membership) {
        let decided = self.group(group).decided.range(..=index).next_back();
        let Some((since, decided)) = decided.map(|(since, decided)| (*since, decided.clone())) else { return };
        if decided != *membership {
            self.fail(Check::MembershipDiffers, || {
                format!("{group:?}: a snapshot at {index:?} has {membership:?}, decided was {decided:?} at {since:?}")
            });
        }
    }

    /// The newest membership that was applied anywhere, and where: whoever leads next may need its voters, although
    /// perhaps no replica has told of it, since none has it durably, or the one that had is gone.
    pub fn newest_membership(&self, group: GroupId) -> (Index, &Membership) {
        let (index, membership) =
            self.groups[group.0 as usize].decided.last_key_value().expect("the first one is there");
        (*index, membership)
    }

    /// A replica executes an operation and gives it an answer.
    pub fn executes(&mut self, group: GroupId, index: Index, operation: Operation, answer: Answer) {
        let now = Executed { group, index, answer };
        let first = *self.executed.entry(operation).or_insert(now);
        if first != now {
            self.fail(Check::ExecutedTwice, || format!("operation {operation}: {first:?} and {now:?}"));
        }
        if self.not_applied.contains(&operation) {
            self.fail(Check::WrongFate, || {
                format!("operation {operation} was called not applied, and is executed at {index:?}")
            });
        }
    }

    /// A client is told that an operation was done, by a node that is in `term`.
    pub fn acknowledges(
        &mut self,
        group: GroupId,
        operation: Operation,
        answer: Answer,
        term: Term,
        position: EntryPosition,
    ) {
        match self.executed.get(&operation).copied() {
            Some(executed) if executed.answer == answer => {}
            Some(executed) => self.fail(Check::WrongAnswer, || {
                format!("operation {operation} gave {executed:?}, and the client is told {answer:?}")
            }),
            None => self.fail(Check::WrongFate, || {
                format!("operation {operation} was executed by nobody, and the client is told {answer:?}")
            }),
        }
        let newest = self.group(group).acknowledged.entry(term).or_insert(position);
        if newest.index < position.index {
            *newest = position;
        }
    }

    /// A node says that its proposal will never be applied.
    pub fn lost(&mut self, group: GroupId, position: EntryPosition) {
        let truth = self.group(group);
        truth.lost.insert(position);
        let there = truth.applied.get(position.index.0 as usize).copied().flatten();
        if there.is_some_and(|applied| applied.term == position.term) {
            self.fail(Check::WrongFate, || format!("{group:?}: {position:?} is applied, and is called lost"));
        }
    }

    /// A node says that its proposal is done: no other entry may have been applied there.
    pub fn done(&mut self, group: GroupId, position: EntryPosition) {
        let there = self.group(group).applied.get(position.index.0 as usize).copied().flatten();
        if there.is_some_and(|applied| applied.term != position.term) {
            self.fail(Check::WrongFate, || {
                format!("{group:?}: {position:?} is called done, and {there:x?} is applied")
            });
        }
    }

    /// A client is told that an operation was not applied and never will be.
    pub fn not_applied(&mut self, operation: Operation) {
        self.not_applied.insert(operation);
        if let Some(executed) = self.executed.get(&operation).copied() {
            self.fail(Check::WrongFate, || {
                format!("operation {operation} was called not applied, and was executed: {executed:?}")
            });
        }
    }

    /// What a read that is asked now must see at least: everything that anybody has applied.
    pub fn read_floor(&self, group: GroupId) -> Index {
        self.groups[group.0 as usize].newest
    }

    /// A read is answered from a state that has `applied`; it was granted at `granted`.
    pub fn reads(&mut self, group: GroupId, floor: Index, granted: Index, applied: Index) {
        if granted < floor || applied < granted {
            self.fail(Check::StaleRead, || {
                format!(
                    "{group:?}: a read was granted at {granted:?} and answered at {applied:?}, and {floor:?} had been \
                     applied when it was asked"
                )
            });
        }
    }
}

fn by_index(position: &EntryPosition) -> Index {
    position.index
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(0);

    fn at(term: u64, index: u64) -> EntryPosition {
        EntryPosition { term: Term(term), index: Index(index) }
    }

    fn state(term: u64, chain: u64) -> Applied {
        Applied { term: Term(term), chain, content: chain }
    }

    /// What is found after these steps.
    fn found(steps: impl FnOnce(&mut Truth)) -> Option<Check> {
        let mut truth = Truth::new(1, Index(1), &Membership::new([PeerId(1)], []));
        steps(&mut truth);
        truth.violation.map(|violation| violation.check)
    }

    #[test]
    fn every_check_finds_what_it_is_for_and_nothing_else() {
        let (one, two) = (PeerId(1), PeerId(2));
        assert_eq!(found(|truth| [1, 2, 2].iter().for_each(|term| truth.leads(GROUP, Term(*term), one))), None);
        let leaders = |truth: &mut Truth| [one, two].iter().for_each(|peer| truth.leads(GROUP, Term(3), *peer));
        assert_eq!(found(leaders), Some(Check::TwoLeaders));

        assert_eq!(found(|truth| [1, 1].iter().for_each(|_| truth.votes(GROUP, one, Term(4), two))), None);
        let votes = |truth: &mut Truth| [one, two].iter().for_each(|peer| truth.votes(GROUP, one, Term(4), *peer));
        assert_eq!(found(votes), Some(Check::DoubleVote));

        let states = |truth: &mut Truth| [7, 8].iter().for_each(|c| truth.applied(GROUP, one, Index(5), state(1, *c)));
        assert_eq!(found(states), Some(Check::StateDiffers));

        let memberships = |truth: &mut Truth| {
            [one, two].iter().for_each(|peer| truth.membership(GROUP, Index(9), &Membership::new([*peer], [])));
        };
        assert_eq!(found(memberships), Some(Check::MembershipDiffers));
        let decisions = |truth: &mut Truth| {
            [one, two].iter().for_each(|peer| truth.decides(GROUP, Index(9), &Membership::new([*peer], [])));
        };
        assert_eq!(found(decisions), Some(Check::MembershipDiffers));
        let in_snapshot = |truth: &mut Truth, index, peer| {
            truth.decides(GROUP, Index(9), &Membership::new([two], []));
            truth.membership_as_of(GROUP, Index(index), &Membership::new([peer], []));
        };
        for (index, peer, expected) in [(8, one, None), (9, two, None), (9, one, Some(Check::MembershipDiffers))] {
            assert_eq!(found(|truth| in_snapshot(truth, index, peer)), expected, "{index} {peer:?}");
        }
    }

    #[test]
    fn the_newest_membership_is_the_one_that_was_applied_last_although_nobody_told_of_it() {
        let mut truth = Truth::new(1, Index(1), &Membership::new([PeerId(1), PeerId(2)], []));
        let after = Membership::new([PeerId(1)], []);
        truth.decides(GROUP, Index(9), &after);
        assert_eq!(truth.newest_membership(GROUP), (Index(9), &after));
        truth.membership(GROUP, Index(9), &after);
        assert_eq!(truth.newest_membership(GROUP), (Index(9), &after));
        assert_eq!(truth.violation, None);
    }

    #[test]
    fn what_was_acknowledged_must_be_in_later_leaders_and_need_not_be_in_earlier_ones() {
        let acknowledged = |truth: &mut Truth| {
            truth.executes(GROUP, Index(5), 1, Answer::Stored);
            truth.acknowledges(GROUP, 1, Answer::Stored, Term(3), at(2, 5));
        };
        for (term, log, expected) in [
            (4, Some(Term(2)), None),
            (4, Some(Term(3)), Some(Check::AcknowledgedWriteMissing)),
            (4, None, Some(Check::AcknowledgedWriteMissing)),
            (3, None, None),
        ] {
            let steps = |truth: &mut Truth| {
                acknowledged(truth);
                truth.has_acknowledged(GROUP, Term(term), Index(4), |index| log.filter(|_| index == Index(5)));
            };
            assert_eq!(found(steps), expected, "{term} {log:?}");
        }
    }

    #[test]
    fn executions_answers_and_fates_are_compared() {
        let execute = |truth: &mut Truth, index, answer| truth.executes(GROUP, Index(index), 1, answer);
        assert_eq!(found(|truth| [5, 5].iter().for_each(|at| execute(truth, *at, Answer::Stored))), None);
        let twice = |truth: &mut Truth| [5, 6].iter().for_each(|at| execute(truth, *at, Answer::Stored));
        assert_eq!(found(twice), Some(Check::ExecutedTwice));
        let other = |truth: &mut Truth| [3, 4].iter().for_each(|sum| execute(truth, 5, Answer::Sum(*sum)));
        assert_eq!(found(other), Some(Check::ExecutedTwice));

        let acknowledge = |truth: &mut Truth, answer| truth.acknowledges(GROUP, 1, answer, Term(1), at(1, 5));
        assert_eq!(found(|truth| acknowledge(truth, Answer::Stored)), Some(Check::WrongFate));
        let wrong = |truth: &mut Truth| {
            execute(truth, 5, Answer::Sum(3));
            acknowledge(truth, Answer::Sum(4));
        };
        assert_eq!(found(wrong), Some(Check::WrongAnswer));

        let late = |truth: &mut Truth| {
            truth.not_applied(1);
            execute(truth, 5, Answer::Stored);
        };
        assert_eq!(found(late), Some(Check::WrongFate));
        let early = |truth: &mut Truth| {
            execute(truth, 5, Answer::Stored);
            truth.not_applied(1);
        };
        assert_eq!(found(early), Some(Check::WrongFate));

        let lost = |truth: &mut Truth| {
            truth.lost(GROUP, at(2, 5));
            truth.applied(GROUP, PeerId(1), Index(5), state(2, 1));
        };
        assert_eq!(found(lost), Some(Check::WrongFate));
        let done = |truth: &mut Truth| {
            truth.applied(GROUP, PeerId(1), Index(5), state(2, 1));
            truth.done(GROUP, at(1, 5));
        };
        assert_eq!(found(done), Some(Check::WrongFate));
    }

    #[test]
    fn a_read_below_what_anybody_had_applied_is_stale() {
        let read = |granted, applied| {
            move |truth: &mut Truth| {
                truth.applied(GROUP, PeerId(1), Index(5), state(1, 1));
                let floor = truth.read_floor(GROUP);
                truth.reads(GROUP, floor, Index(granted), Index(applied));
            }
        };
        assert_eq!(found(read(5, 5)), None);
        assert_eq!(found(read(4, 5)), Some(Check::StaleRead));
        assert_eq!(found(read(6, 5)), Some(Check::StaleRead));
    }
}
