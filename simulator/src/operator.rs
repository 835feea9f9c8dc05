//! The operator: adds nodes, removes them, replaces those that are lost, hands leadership over.
//!
//! Place in the flow: looks at the cluster at intervals, as a controller would, and asks the leaders for what is
//! missing. Faults of the kinds "membership" and "transfer" are its whims.
//!
//! Invariants:
//! - It never asks for a membership that could not go on without the dead.
//! - A replica id is given once. A machine that was lost or retired comes back empty, under a new id.
//!
//! Deliberately not here: whether a change is possible now; the group says so, and the operator asks again later.

use std::collections::BTreeMap;

use eyot_raft_glue::{EntryPosition, GroupId, Index, Membership, MembershipChange, NodeId, PeerId};

use crate::clock::{Time, MILLISECOND, SECOND};
use crate::counts::Count;
use crate::dice::Dice;
use crate::network::Place;
use crate::node::Life;
use crate::plan::{Plan, NODES_MAX};
use crate::truth::Check;
use crate::world::{Event, World};

/// How often the operator looks.
const LOOKS_EVERY: Time = 200 * MILLISECOND;

/// Most voters that it wants.
const VOTERS_MAX: usize = 5;

/// What the operator wants, and what it knows.
#[derive(Debug)]
pub struct Operator {
    /// How many voters each group is to have.
    target: usize,
    /// Members that are to go although they live.
    unwanted: Vec<PeerId>,
    /// Where each replica id lives, or lived.
    pub(crate) places: BTreeMap<PeerId, Place>,
    /// Changes that were proposed, by group and place in the log.
    proposed: Vec<Vec<Index>>,
    /// Whether the leader that takes the next change ends at once.
    is_unlucky: bool,
    /// Whether the next change is followed by another without waiting.
    is_impatient: bool,
    dice: Dice,
}

impl Operator {
    /// The operator of a plan's founding nodes.
    pub fn new(plan: &Plan) -> Self {
        Self {
            target: plan.voters,
            unwanted: Vec::new(),
            places: (0..plan.voters).map(|place| (PeerId(place as u64 + 1), place as Place)).collect(),
            proposed: vec![Vec::new(); plan.groups as usize],
            is_unlucky: false,
            is_impatient: false,
            dice: Dice::new(plan.seed, 7),
        }
    }

    /// Whether everything that was proposed to a group stands at or below `decided`.
    pub fn is_decided(&self, group: u32, decided: Index) -> bool {
        self.proposed[group as usize].iter().all(|index| *index <= decided)
    }
}

impl World {
    /// The machine on which a replica lives, or lived.
    pub(crate) fn place_of(&self, peer: PeerId) -> Option<Place> {
        self.operator.places.get(&peer).copied()
    }

    /// The operator looks at everything once.
    pub(crate) fn operate(&mut self) {
        self.clock.after(LOOKS_EVERY, Event::Operate);
        self.retire();
        self.recycle();
        for group in 0..self.plan.groups {
            self.operate_group(group);
        }
    }

    /// Machines whose replicas have left all groups are switched off.
    fn retire(&mut self) {
        for place in 0..self.nodes.len() {
            let node = &self.nodes[place];
            let peer = node.peer;
            let has_left = |group: u32| {
                let (_, membership) = self.truth.newest_membership(GroupId(group));
                !membership.contains(peer) && self.is_calm(group)
            };
            let was_unwanted = self.operator.unwanted.contains(&peer);
            let may_go = node.is_up() && was_unwanted && (0..self.plan.groups).all(has_left);
            if may_go && self.operator.dice.chance(200_000) {
                self.nodes[place].end(&mut self.disk_dice);
                self.nodes[place].life = Life::Retired;
                self.operator.unwanted.retain(|other| *other != peer);
            }
        }
    }

    /// Lost and retired machines get new disks after a while.
    fn recycle(&mut self) {
        for place in 0..self.nodes.len() {
            let is_free = matches!(self.nodes[place].life, Life::Lost | Life::Retired);
            if is_free && self.operator.dice.chance(100_000) {
                self.nodes[place].replace_disk();
            }
        }
    }

    /// Asks the leader of a group for the next thing that is missing.
    fn operate_group(&mut self, group: u32) {
        let Some(leader) = self.leader_of(group) else { return };
        let node = &self.nodes[leader as usize];
        if node.paused_until > self.clock.now() {
            return;
        }
        let own = node.peer;
        let membership = node.group(group).membership().clone();
        if membership.is_joint() {
            return;
        }
        let Some(changes) = self.next_change(&membership) else { return };
        if changes.contains(&MembershipChange::Remove(own)) {
            self.transfer_somewhere(leader, group);
            return;
        }
        self.change(leader, group, &changes);
    }

    /// What is to be changed next, if anything.
    fn next_change(&mut self, membership: &Membership) -> Option<Vec<MembershipChange>> {
        use MembershipChange::{AddLearner, Promote, Remove};
        let unwanted = self.operator.unwanted.clone();
        let goes = |world: &Self, peer: &PeerId| !world.lives(*peer) || unwanted.contains(peer);
        if let Some(dead) = membership.learners.iter().find(|peer| goes(self, peer)) {
            return Some(vec![Remove(*dead)]);
        }
        let learner = membership.learners.first().copied();
        let leaving = membership.voters.iter().copied().find(|peer| goes(self, peer));
        let voters = membership.voters.len();
        match (leaving, learner) {
            (Some(leaving), _) if voters > self.operator.target => Some(vec![Remove(leaving)]),
            (Some(leaving), Some(learner)) => Some(vec![Promote(learner), Remove(leaving)]),
            (None, Some(learner)) if voters < self.operator.target => Some(vec![Promote(learner)]),
            (None, Some(learner)) => {
                // Nobody needs it: it goes, or somebody else does.
                self.operator.unwanted.push(learner);
                None
            }
            (None, None) if voters > self.operator.target => {
                self.operator.unwanted.extend(membership.voters.last());
                None
            }
            (None, None) if voters == self.operator.target => None,
            (_, None) => self.newcomer(membership).map(|peer| vec![AddLearner(peer)]),
        }
    }

    /// Somebody who lives and does not belong to the membership; a machine is set up if there is none.
    fn newcomer(&mut self, membership: &Membership) -> Option<PeerId> {
        let is_free = |peer: &PeerId| !membership.contains(*peer) && !self.operator.unwanted.contains(peer);
        let running = self.nodes.iter().filter(|node| node.is_up()).map(|node| node.peer);
        if let Some(peer) = running.filter(is_free).min() {
            return Some(peer);
        }
        self.set_up();
        None
    }

    /// A machine without a replica gets one, under an id that nobody had.
    fn set_up(&mut self) {
        // A lost machine can have a new disk at once; then messages for who lived there arrive at somebody else.
        let is_free = |place: &usize| matches!(self.nodes[*place].life, Life::Spare | Life::Lost);
        let spare: Vec<usize> = (0..self.nodes.len()).filter(is_free).collect();
        let spare = self.operator.dice.pick(&spare).copied();
        let is_coming = self.nodes.iter().any(|node| node.is_new);
        let Some(place) = spare.filter(|_| !is_coming) else { return };
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        self.operator.places.insert(peer, place as Place);
        for node in &mut self.nodes {
            (0..self.plan.groups).for_each(|group| node.core.route(GroupId(group), peer, NodeId(place as u64)));
        }
        self.counts.one(Count::ReplicasReplaced);
        self.nodes[place].replace_disk();
        self.nodes[place].peer = peer;
        self.nodes[place].is_new = true;
        self.nodes[place].life = Life::Down;
        self.clock.after(0, Event::Start { place: place as Place });
    }

    /// Proposes a change, if the group could go on after it.
    fn change(&mut self, leader: Place, group: u32, changes: &[MembershipChange]) {
        let after = changed(self.nodes[leader as usize].group(group).membership(), changes);
        if !self.survives(&after, None) {
            return;
        }
        let result = self.nodes[leader as usize].with(group, |group| group.change_membership(changes));
        let now = self.clock.now();
        self.trace.note(now, 14, [u64::from(leader), u64::from(group), u64::from(result.is_ok())]);
        self.trace.line(now, || format!("{leader}: group {group} is asked for {changes:?}: {result:?}"));
        let Ok(position) = result else { return };
        let node = &mut self.nodes[leader as usize];
        let before = node.process[group as usize].change.replace(position);
        let applied = node.process[group as usize].machine.applied();
        let is_pending = |before: &EntryPosition| {
            before.index > applied && node.group(group).term_at(before.index) == Some(before.term)
        };
        if let Some(before) = before.filter(is_pending) {
            self.truth.fail(Check::SecondChange, || {
                format!("group {group}: a change is taken at {position:?} while the one at {before:?} is pending")
            });
        }
        let decided = self.truth.read_floor(GroupId(group));
        let proposed = &mut self.operator.proposed[group as usize];
        proposed.retain(|index| *index > decided);
        proposed.push(position.index);
        self.turn(leader);
        if std::mem::take(&mut self.operator.is_unlucky) {
            // The leader is gone before anybody knows what it wanted.
            self.counts.one(Count::Crashes);
            let down = self.operator.dice.below(SECOND);
            self.end_process(leader, down);
        } else if std::mem::take(&mut self.operator.is_impatient) {
            self.operate_group(group);
        }
    }

    /// Hands a group over to any other voter.
    pub(crate) fn transfer_somewhere(&mut self, leader: Place, group: u32) {
        let node = &mut self.nodes[leader as usize];
        let own = node.peer;
        let voters = node.group(group).membership().voters.iter();
        let voters: Vec<PeerId> = voters.copied().filter(|peer| *peer != own).collect();
        let Some(to) = self.operator.dice.pick(&voters).copied() else { return };
        let result = node.with(group, |group| group.transfer(to));
        let now = self.clock.now();
        self.trace.line(now, || format!("{leader}: group {group} is to be led by {to:?}: {result:?}"));
        self.turn(leader);
    }

    /// A whim: leadership goes somewhere else.
    pub(crate) fn transfer_by_chance(&mut self, dice: &mut Dice) {
        let group = dice.below(u64::from(self.plan.groups)) as u32;
        if let Some(leader) = self.leader_of(group) {
            self.transfer_somewhere(leader, group);
        }
    }

    /// A whim: more voters, fewer, or others.
    pub(crate) fn change_by_chance(&mut self, dice: &mut Dice) {
        self.operator.is_unlucky = dice.chance(250_000);
        self.operator.is_impatient = dice.chance(250_000);
        let most = VOTERS_MAX.min(NODES_MAX).min(self.nodes.len());
        match dice.below(4) {
            0 => self.operator.target = (self.operator.target + 1).min(most),
            1 => self.operator.target = self.operator.target.saturating_sub(1).max(1),
            _ => {
                let (_, membership) = self.truth.newest_membership(GroupId(0));
                let voters = membership.voters.clone();
                if let Some(peer) = dice.pick(&voters).filter(|peer| !self.operator.unwanted.contains(peer)) {
                    self.operator.unwanted.push(*peer);
                }
            }
        }
    }
}

/// A membership after changes.
fn changed(before: &Membership, changes: &[MembershipChange]) -> Membership {
    let mut after = before.clone();
    for change in changes {
        let peer = change.peer();
        after.voters.retain(|other| *other != peer);
        after.learners.retain(|other| *other != peer);
        match change {
            MembershipChange::AddLearner(_) => after.learners.push(peer),
            MembershipChange::Promote(_) => after.voters.push(peer),
            MembershipChange::Remove(_) => {}
        }
    }
    after
}
