//! What a seed stands for: the size of its world, its habits, and the faults that will befall it.
//!
//! Place in the flow: made once, before anything happens, from the seed alone. The world carries it out; the shrinker
//! leaves parts of it out.
//!
//! Invariants:
//! - A plan is a list of [`Item`]s. Each has dice of its own, so leaving one out changes no other.
//! - Each seed switches on a random subset of the kinds (swarm testing): a fault that is always there hides what only
//!   shows without it.
//!
//! Source of swarm testing: Groce and others, "Swarm testing", 2012.
//!
//! Deliberately not here: who is hit. A fault says "the leader" or "anybody", and the world knows who that is by then.

use std::fmt;

use crate::clock::{Time, MILLISECOND, SECOND};
use crate::dice::Dice;

/// Most nodes that are there at once, of one world.
pub const NODES_MAX: usize = 7;

/// Longest time in which faults begin.
pub const FAULTS_LAST_MAX: Time = 40 * SECOND;

/// Everything that can go wrong, or be changed on purpose while it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Messages are lost.
    Loss,
    /// Messages arrive twice.
    Duplicates,
    /// Messages are late, and overtake one another.
    Delays,
    /// Every write to a disk takes long, by chance.
    SlowDisks,
    /// A state machine applies late.
    SlowApply,
    /// The nodes' clocks run at different rates.
    Skew,
    /// A client's request arrives twice, the second time possibly much later.
    ClientDuplicates,
    /// Clients wait a short time and do not ask again.
    ClientsGiveUp,
    /// Logs are cut early, so that who lags needs a snapshot.
    EarlyCompaction,
    /// Leaders answer reads by lease; clocks differ by no more than the leases allow.
    Leases,
    /// The process of a node ends; its disk keeps what was given to it.
    Crash,
    /// A node loses its power: of what was not synced, any part is lost.
    PowerCut,
    /// All nodes lose their power.
    PowerCutAll,
    /// A process stands still for a while.
    Pause,
    /// The network falls apart into two halves.
    Partition,
    /// Some links work in one direction only.
    OneWay,
    /// One node is alone.
    Isolation,
    /// A disk does not answer for a while.
    DiskStall,
    /// Syncing fails: the process must end.
    SyncFailure,
    /// A bit turns in what was synced: the node must refuse to start.
    BitFlip,
    /// A disk is gone: the node is replaced by a new one.
    DiskLoss,
    /// Voters come and go.
    Membership,
    /// Leadership is handed over.
    Transfer,
    /// Snapshot streams break.
    BrokenStream,
    /// Leadership is handed over, and the leader cut off from the other nodes at that moment: it does not hear of it.
    HandoverCut,
    /// Everything that a lease must survive, one after the other; see `traps.rs`.
    LeaseTrap,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 26] = [
        Self::Loss,
        Self::Duplicates,
        Self::Delays,
        Self::SlowDisks,
        Self::SlowApply,
        Self::Skew,
        Self::ClientDuplicates,
        Self::ClientsGiveUp,
        Self::EarlyCompaction,
        Self::Leases,
        Self::Crash,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::Pause,
        Self::Partition,
        Self::OneWay,
        Self::Isolation,
        Self::DiskStall,
        Self::SyncFailure,
        Self::BitFlip,
        Self::DiskLoss,
        Self::Membership,
        Self::Transfer,
        Self::BrokenStream,
        Self::HandoverCut,
        Self::LeaseTrap,
    ];

    /// Whether it is a habit of the whole world, not something that happens at a time.
    pub const fn is_habit(self) -> bool {
        (self as u8) < (Self::Crash as u8)
    }

    /// How often it happens, compared with the others.
    const fn weight(self) -> u64 {
        match self {
            Self::Crash | Self::PowerCut | Self::Partition | Self::Isolation | Self::Membership | Self::Transfer => 6,
            Self::Pause | Self::OneWay | Self::BrokenStream | Self::LeaseTrap => 4,
            Self::DiskStall | Self::SyncFailure | Self::PowerCutAll | Self::HandoverCut => 3,
            Self::BitFlip | Self::DiskLoss => 2,
            _ => 0,
        }
    }

    /// How long it lasts at most.
    const fn lasts_max(self) -> Time {
        match self {
            Self::Crash | Self::PowerCut | Self::SyncFailure => 6 * SECOND,
            Self::PowerCutAll | Self::HandoverCut => 2 * SECOND,
            Self::Pause | Self::DiskStall => 5 * SECOND,
            Self::Partition | Self::OneWay | Self::Isolation => 8 * SECOND,
            _ => 0,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// One thing that the shrinker can leave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// When it begins; a habit: 0.
    pub at: Time,
    /// How long it lasts; a habit: always.
    pub lasts: Time,
    /// Whether it befalls a leader, where it befalls one node.
    pub hits_leader: bool,
    /// How much of it, or which: the seed of its own dice.
    pub dice: u64,
}

impl fmt::Display for Item {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.is_habit() {
            return write!(formatter, "{} throughout", self.kind);
        }
        let victim = if self.hits_leader { ", the leader" } else { "" };
        write!(formatter, "{} at {} ms for {} ms{victim}", self.kind, self.at / MILLISECOND, self.lasts / MILLISECOND)
    }
}

/// What a seed stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed that it was made from.
    pub seed: u64,
    /// Voters at the beginning.
    pub voters: usize,
    /// Consensus groups; every node has a replica of each.
    pub groups: u32,
    /// Clients that ask at the same time.
    pub clients: usize,
    /// Keys of each group: few, so that clients meet.
    pub keys: u16,
    /// How many of a million requests are reads.
    pub reads_per_million: u32,
    /// Mean time between an answer and the client's next request.
    pub think: Time,
    /// When faults end.
    pub healed_at: Time,
    /// What goes wrong until then.
    pub items: Vec<Item>,
}

impl Plan {
    /// The plan of `seed`.
    pub fn of_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let voters = *dice.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 5, 5]).expect("a choice");
        let healed_at = dice.between(5 * SECOND, FAULTS_LAST_MAX);
        let mut plan = Self {
            seed,
            voters,
            groups: *dice.pick(&[1, 1, 2, 3]).expect("a choice"),
            clients: dice.between(1, 6) as usize,
            keys: dice.between(1, 8) as u16,
            reads_per_million: *dice.pick(&[100_000, 400_000, 400_000, 950_000]).expect("a choice"),
            think: *dice.pick(&[5, 20, 50, 200]).expect("a choice") * MILLISECOND,
            healed_at,
            items: Vec::new(),
        };
        // One world in sixteen is calm: what is wrong without any fault shows there.
        let share = *dice.pick(&[0, 200_000, 500_000, 500_000, 500_000, 800_000]).expect("a choice");
        let mut enabled: Vec<Kind> = Kind::ALL.into_iter().filter(|_| dice.chance(share)).collect();
        // Traps for leases are laid mostly where there are some.
        let is_trapped = enabled.contains(&Kind::LeaseTrap) || enabled.contains(&Kind::HandoverCut);
        if dice.chance(500_000) && is_trapped && !enabled.contains(&Kind::Leases) {
            enabled.push(Kind::Leases);
        }
        for &kind in enabled.iter().filter(|kind| kind.is_habit()) {
            plan.items.push(Item { kind, at: 0, lasts: 0, hits_leader: false, dice: dice.number() });
        }
        plan.add_sudden(&enabled, &mut dice);
        plan
    }

    fn add_sudden(&mut self, enabled: &[Kind], dice: &mut Dice) {
        let sudden: Vec<Kind> = enabled.iter().copied().filter(|kind| !kind.is_habit()).collect();
        let weights: u64 = sudden.iter().map(|kind| kind.weight()).sum();
        if weights == 0 {
            return;
        }
        let pace = *dice.pick(&[200, 500, 1_000, 3_000]).expect("a choice") * MILLISECOND;
        let mut at = SECOND / 2;
        loop {
            at += dice.between(1, 2 * pace);
            if at >= self.healed_at {
                return;
            }
            let mut rest = dice.below(weights);
            let kind = *sudden
                .iter()
                .find(|kind| {
                    let is_it = rest < kind.weight();
                    rest = rest.saturating_sub(kind.weight());
                    is_it
                })
                .expect("the weights add up");
            // Short ones and long ones alike: the half of the logarithm.
            let most = (kind.lasts_max() / MILLISECOND).max(1);
            let scale = most >> dice.below(10);
            let lasts = dice.between(1, scale.max(1)) * MILLISECOND;
            let hits_leader = dice.chance(400_000);
            self.items.push(Item { kind, at, lasts, hits_leader, dice: dice.number() });
        }
    }

    /// The same with only these of its items.
    #[must_use]
    pub fn with_only(mut self, kept: &[usize]) -> Self {
        let all = std::mem::take(&mut self.items);
        self.items = all.into_iter().enumerate().filter(|(at, _)| kept.contains(at)).map(|(_, item)| item).collect();
        self
    }

    /// The habit of this kind, if the world has it.
    pub fn habit(&self, kind: Kind) -> Option<&Item> {
        self.items.iter().find(|item| item.kind == kind && kind.is_habit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_plan_and_the_seeds_have_many() {
        assert_eq!(Plan::of_seed(5), Plan::of_seed(5));
        let plans: Vec<Plan> = (0..400).map(Plan::of_seed).collect();
        for kind in Kind::ALL {
            let with = plans.iter().filter(|plan| plan.items.iter().any(|item| item.kind == kind)).count();
            assert!((40..360).contains(&with), "{kind} is in {with} plans of 400");
        }
        assert!(plans.iter().any(|plan| plan.items.is_empty()), "no world is calm");
        for plan in &plans {
            assert!(plan.items.iter().all(|item| item.at < plan.healed_at));
            assert!((1..=5).contains(&plan.voters) && plan.healed_at <= FAULTS_LAST_MAX);
        }
    }

    #[test]
    fn the_kinds_are_listed_in_the_order_of_their_numbers() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn what_is_left_out_changes_nothing_else() {
        let plan = (0..1_000).map(Plan::of_seed).find(|plan| plan.items.len() > 5).expect("a plan with faults");
        let fewer = plan.clone().with_only(&[1, 3]);
        assert_eq!(fewer.items, [plan.items[1].clone(), plan.items[3].clone()]);
        assert_eq!((fewer.voters, fewer.healed_at), (plan.voters, plan.healed_at));
    }
}
