//! Faults that are only dangerous one after the other: what a leader's lease must survive.
//!
//! Place in the flow: `mischief.rs` comes here when such a fault begins; its later stages are events of their own. Each
//! stage alone is a fault that other kinds have too; by chance alone they meet in one world of a hundred thousand.
//!
//! ```text
//! handover   the leader hands over ► it hears nothing from other nodes any more ► clients still read from it
//! lease      clients only read ► one follower is cut off from the leader, so that it will ask for votes; its log stays
//!            complete ► the others restart at once, and the leader is cut off from all ► who may vote for whom?
//! ```
//!
//! Invariant: a sound group passes them: a lease ends when a transfer begins, and who has just started does not vote.
//!
//! Source of the two: Ongaro, "Consensus: bridging theory and practice", 6.4.1, and the remarks on leases in 4.2.3.

use crate::clock::{Time, MILLISECOND, SECOND};
use crate::counts::Count;
use crate::dice::Dice;
use crate::network::{Place, FIRST_CLIENT};
use crate::plan::Kind;
use crate::world::{Event, World};

/// How long the log has to reach everybody before anybody is cut off.
const SETTLES: Time = 600 * MILLISECOND;

/// Longest time from the first cut to the restarts: a follower asks for votes after one to two seconds of silence.
const SILENCE_MAX: Time = 2_500 * MILLISECOND;

/// Longest time for which the leader is alone: longer than any lease.
const ALONE_MAX: Time = 2 * SECOND;

/// What comes after the beginning of a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The leader that handed over is cut off.
    Deaf { leader: Place, is_mute: bool },
    /// One follower does not hear the leader.
    Silence { leader: Place, other: Place },
    /// All others restart, and the leader is alone.
    Restart { leader: Place, other: Place },
}

impl World {
    /// A leader hands over, and soon or at once does not hear what comes of it.
    pub(crate) fn cut_at_handover(&mut self, item: usize, lasts: Time, dice: &mut Dice) {
        let group = dice.below(u64::from(self.plan.groups)) as u32;
        let Some(leader) = self.leader_of(group) else { return };
        self.counts.one(Count::HandoverCuts);
        self.transfer_somewhere(leader, group);
        // At once, if its order to start an election can still leave.
        let (delay, is_mute) = if dice.chance(500_000) { (0, false) } else { (dice.between(100, 3_000), true) };
        self.clock.after(delay, Event::Trap { item, stage: Stage::Deaf { leader, is_mute } });
        self.clock.after(delay + lasts.max(SECOND / 2), Event::Mend { item });
    }

    /// The first stage: nothing is written, so that whoever is cut off stays fit to lead.
    pub(crate) fn set_lease_trap(&mut self, item: usize, dice: &mut Dice) {
        let group = dice.below(u64::from(self.plan.groups)) as u32;
        let Some(leader) = self.leader_of(group) else { return };
        let others: Vec<Place> =
            self.nodes.iter().filter(|node| node.is_up() && node.place != leader).map(|node| node.place).collect();
        let Some(other) = dice.pick(&others).copied() else { return };
        self.counts.one(Count::LeaseTraps);
        self.only_reads_until = self.clock.now() + SETTLES + SILENCE_MAX + ALONE_MAX;
        self.clock.after(SETTLES, Event::Trap { item, stage: Stage::Silence { leader, other } });
    }

    /// The next stage of a trap.
    pub(crate) fn trap(&mut self, item: usize, stage: Stage) {
        if self.is_healed {
            return;
        }
        let fault = &self.plan.items[item];
        debug_assert!(matches!(fault.kind, Kind::HandoverCut | Kind::LeaseTrap), "{fault} is no trap");
        let mut dice = Dice::new(fault.dice, 1);
        let now = self.clock.now();
        self.trace.line(now, || format!("fault {item}: {stage:?}"));
        // Clients reach everybody all the time: that is how a stale read would happen.
        let nodes = (1_u128 << FIRST_CLIENT) - 1;
        match stage {
            Stage::Deaf { leader, is_mute } => {
                let leader = 1_u128 << leader;
                self.network.cut(item, nodes & !leader, leader);
                if is_mute {
                    self.network.cut(item, leader, nodes & !leader);
                }
            }
            Stage::Silence { leader, other } => {
                let silence = dice.between(SECOND, SILENCE_MAX);
                let (one, two) = (1_u128 << leader, 1_u128 << other);
                self.network.cut(item, one, two);
                self.network.cut(item, two, one);
                self.clock.after(silence, Event::Trap { item, stage: Stage::Restart { leader, other } });
            }
            Stage::Restart { leader, other } => {
                let up = self.nodes.iter().filter(|node| node.is_up() && ![leader, other].contains(&node.place));
                let up: Vec<Place> = up.map(|node| node.place).collect();
                for place in up {
                    self.counts.one(Count::Crashes);
                    self.end_process(place, dice.between(1, 40) * MILLISECOND);
                }
                let leader = 1_u128 << leader;
                self.network.cut(item, leader, nodes & !leader);
                self.network.cut(item, nodes & !leader, leader);
                self.clock.after(dice.between(ALONE_MAX / 2, ALONE_MAX), Event::Mend { item });
            }
        }
    }
}
