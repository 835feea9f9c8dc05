//! Faults begin and end.
//!
//! Place in the flow: the clock says which item of the plan is due; here it meets somebody.
//!
//! Invariants:
//! - Faults are bounded so that the world can heal: a disk is destroyed only where every group keeps a majority of
//!   living voters, and only while every living voter knows the newest membership. See [`World::may_lose`].
//! - After [`World::heal`] nothing goes wrong any more.

use eyot_raft_glue::{GroupId, Membership, PeerId};

use crate::clock::{Time, MILLISECOND, SECOND};
use crate::counts::Count;
use crate::dice::Dice;
use crate::network::{Place, FIRST_CLIENT};
use crate::node::{Life, Refusal};
use crate::plan::Kind;
use crate::truth::Check;
use crate::world::{Event, World, CLIENTS_GO_ON};

impl World {
    /// A fault of the plan begins.
    pub(crate) fn fault_begins(&mut self, item: usize) {
        let fault = self.plan.items[item].clone();
        let mut dice = Dice::new(fault.dice, 0);
        let now = self.clock.now();
        let victim = self.victim(fault.hits_leader, &mut dice);
        self.trace.note(now, 12, [item as u64, fault.kind as u64, victim.map_or(u64::MAX, u64::from)]);
        self.trace.line(now, || format!("fault {item}: {fault}, at {victim:?}"));
        match (fault.kind, victim) {
            (Kind::PowerCutAll, _) => self.everything_loses_power(fault.lasts, &mut dice),
            (Kind::Partition | Kind::OneWay, _) => {
                self.cut_by_chance(item, fault.kind == Kind::OneWay, &mut dice);
                self.clock.after(fault.lasts, Event::Mend { item });
            }
            (Kind::Isolation, Some(place)) => {
                self.isolate(item, place, &mut dice);
                self.clock.after(fault.lasts, Event::Mend { item });
            }
            (Kind::BrokenStream, _) => {
                let streams: Vec<u64> = self.streams.keys().copied().collect();
                if let Some(stream) = dice.pick(&streams) {
                    self.break_stream(*stream);
                }
            }
            (Kind::Membership, _) => self.change_by_chance(&mut dice),
            (Kind::Transfer, _) => self.transfer_by_chance(&mut dice),
            (Kind::HandoverCut, _) => self.cut_at_handover(item, fault.lasts, &mut dice),
            (Kind::LeaseTrap, _) => self.set_lease_trap(item, &mut dice),
            (_, None) => {}
            (Kind::Crash, Some(place)) => {
                self.counts.one(Count::Crashes);
                self.nodes[place as usize].disk.finish_by_chance(&mut dice);
                self.end_process(place, fault.lasts);
            }
            (Kind::PowerCut, Some(place)) => {
                self.counts.one(Count::PowerCuts);
                self.end_process(place, fault.lasts);
            }
            (Kind::Pause, Some(place)) => {
                self.counts.one(Count::Pauses);
                self.nodes[place as usize].paused_until = now + fault.lasts;
            }
            (Kind::DiskStall, Some(place)) => {
                self.counts.one(Count::DiskStalls);
                self.nodes[place as usize].stalled_until = now + fault.lasts;
            }
            (Kind::SyncFailure, Some(place)) => {
                self.nodes[place as usize].sync_fails = Some(fault.lasts);
            }
            (Kind::BitFlip, Some(place)) => self.flip(place, fault.lasts, &mut dice),
            (Kind::DiskLoss, Some(place)) => {
                if self.may_lose(place) {
                    self.counts.one(Count::DisksLost);
                    self.nodes[place as usize].end(&mut self.disk_dice);
                    self.nodes[place as usize].life = Life::Lost;
                }
            }
            (kind, _) => unreachable!("{kind} is a habit, and begins with the world"),
        }
    }

    /// A fault that ends by itself is over.
    pub(crate) fn fault_ends(&mut self, item: usize) {
        self.network.mend(item);
    }

    /// Who is hit: a leader of some group if there is one and it is to be, else anybody who runs.
    fn victim(&self, hits_leader: bool, dice: &mut Dice) -> Option<Place> {
        let running: Vec<Place> = self.nodes.iter().filter(|node| node.is_up()).map(|node| node.place).collect();
        let any = dice.pick(&running).copied();
        let group = dice.below(u64::from(self.plan.groups)) as u32;
        let leader = self.leader_of(group).filter(|_| hits_leader);
        leader.or(any)
    }

    /// The node that leads a group, of those that think so the one with the newest term.
    pub(crate) fn leader_of(&self, group: u32) -> Option<Place> {
        let leads = |place: &Place| {
            let group = self.nodes[*place as usize].core.group(GroupId(group))?;
            group.is_leader().then(|| group.term())
        };
        let places = self.nodes.iter().map(|node| node.place);
        places.filter_map(|place| Some((leads(&place)?, place))).max().map(|(_, place)| place)
    }

    /// A process ends, and is started again after a while.
    pub(crate) fn end_process(&mut self, place: Place, down: Time) {
        let torn = self.nodes[place as usize].end(&mut self.disk_dice);
        self.counts.add(Count::TornBatches, u64::from(torn));
        let node = &mut self.nodes[place as usize];
        (node.paused_until, node.stalled_until, node.sync_fails) = (0, 0, None);
        self.clock.after(down, Event::Start { place });
    }

    fn everything_loses_power(&mut self, down: Time, dice: &mut Dice) {
        let running: Vec<Place> = self.nodes.iter().filter(|node| node.is_up()).map(|node| node.place).collect();
        for place in running {
            self.counts.one(Count::PowerCuts);
            self.end_process(place, down + dice.below(SECOND));
        }
    }

    fn cut_by_chance(&mut self, item: usize, one_way: bool, dice: &mut Dice) {
        self.counts.one(Count::Partitions);
        if dice.chance(400_000) {
            // One link alone: everybody still reaches everybody else by way of a third.
            let (from_leader, ends) = (dice.chance(500_000), [self.victim(true, dice), self.victim(false, dice)]);
            let [Some(leader), Some(other)] = ends else { return };
            let one = if from_leader { leader } else { self.victim(false, dice).unwrap_or(leader) };
            let (one, other) = (1_u128 << one, 1_u128 << other);
            self.network.cut(item, one, other & !one);
            if !one_way {
                self.network.cut(item, other, one & !other);
            }
            return;
        }
        let chosen = u128::from(dice.number()) | u128::from(dice.number()) << FIRST_CLIENT;
        let rest = if one_way { u128::from(dice.number()) } else { !chosen };
        self.network.cut(item, chosen, rest & !chosen);
        if !one_way {
            self.network.cut(item, rest, chosen);
        }
    }

    fn isolate(&mut self, item: usize, place: Place, dice: &mut Dice) {
        self.counts.one(Count::Partitions);
        let alone = 1_u128 << place;
        // Clients may still reach it: that is how a stale read happens.
        let nodes = (1_u128 << FIRST_CLIENT) - 1;
        let others = if dice.chance(500_000) { nodes & !alone } else { !alone };
        let ways = dice.below(4);
        if ways != 1 {
            self.network.cut(item, alone, others);
        }
        if ways != 2 {
            self.network.cut(item, others, alone);
        }
    }

    fn flip(&mut self, place: Place, down: Time, dice: &mut Dice) {
        if self.may_lose(place) && self.nodes[place as usize].disk.flip(dice) {
            self.nodes[place as usize].is_doomed = true;
            self.end_process(place, down);
        }
    }

    /// A process does not start: right if its disk was damaged, wrong otherwise.
    pub(crate) fn refuses(&mut self, place: Place, refusal: &Refusal) {
        let node = &mut self.nodes[place as usize];
        if node.is_doomed && matches!(refusal, Refusal::Damaged(_)) {
            self.counts.one(Count::BitFlipsRefused);
            node.life = Life::Lost;
            return;
        }
        self.truth.fail(Check::StartRefused, || format!("node {place} does not start: {refusal:?}"));
    }

    /// Whether the replicas of a peer can ever run again.
    pub(crate) fn lives(&self, peer: PeerId) -> bool {
        self.nodes.iter().any(|node| node.peer == peer && matches!(node.life, Life::Up | Life::Down) && !node.is_doomed)
    }

    /// Whether a group of this membership can go on without anybody who is dead, or who is `lost`.
    pub(crate) fn survives(&self, membership: &Membership, lost: Option<PeerId>) -> bool {
        let majority_lives = |voters: &[PeerId]| {
            let living = voters.iter().filter(|peer| self.lives(**peer) && Some(**peer) != lost).count();
            voters.is_empty() || living > voters.len() / 2
        };
        !membership.voters.is_empty() && majority_lives(&membership.voters) && majority_lives(&membership.outgoing)
    }

    /// Whether all living voters of a group run and know its newest membership, would still know it after a restart,
    /// and none other is on its way. (A commit index need not be durable; a group that forgets its newest membership
    /// needs those again whom that membership had let go.)
    pub(crate) fn is_calm(&self, group: u32) -> bool {
        let (index, membership) = self.truth.newest_membership(GroupId(group));
        let decided = self.truth.read_floor(GroupId(group));
        let knows = |peer: &PeerId| {
            !self.lives(*peer)
                || self.nodes.iter().any(|node| {
                    node.peer == *peer
                        && self.applied_of(node.place, group).is_some_and(|applied| applied >= index)
                        && node.disk.committed(GroupId(group)) >= index
                })
        };
        !membership.is_joint() && membership.voters.iter().all(knows) && self.operator.is_decided(group, decided)
    }

    /// Whether the disk of this node may be destroyed.
    pub(crate) fn may_lose(&self, place: Place) -> bool {
        let peer = self.nodes[place as usize].peer;
        (0..self.plan.groups).all(|group| {
            let (_, membership) = self.truth.newest_membership(GroupId(group));
            self.is_calm(group) && self.survives(membership, Some(peer))
        })
    }

    /// Nothing goes wrong any more: everything that can run runs, and reaches everything.
    pub(crate) fn heal(&mut self) {
        self.is_healed = true;
        self.network.heal();
        let now = self.clock.now();
        self.trace.note(now, 13, [0, 0, 0]);
        self.trace.line(now, || "the faults are over".to_owned());
        for place in 0..self.nodes.len() {
            let node = &mut self.nodes[place];
            (node.stalled_until, node.sync_fails) = (0, None);
            node.paused_until = node.paused_until.min(now + 10 * MILLISECOND);
            if node.life == Life::Down {
                let delay = self.node_dice.below(SECOND);
                self.clock.after(delay, Event::Start { place: place as Place });
            }
        }
        self.clock.after(CLIENTS_GO_ON, Event::Judge);
    }
}
