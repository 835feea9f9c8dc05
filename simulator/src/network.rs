//! The network of a world: what is sent arrives, late, twice, or not at all.
//!
//! Place in the flow: whoever sends asks [`Network::send`] when it arrives; the world's clock does the rest.
//!
//! Invariants:
//! - Nothing arrives over a link that is cut when it is sent, or when it would arrive.
//! - Nothing is made up and nothing is changed: a checksum on every frame of the real wire sees to that.
//!
//! Deliberately not here: what is sent.

use crate::clock::{Time, MILLISECOND};
use crate::dice::Dice;
use crate::plan::{Kind, Plan};

/// A place on the network: a bit of a mask. Nodes come first, clients have the last ones.
pub type Place = u32;

/// The first place of the clients; a mask has 128 bits.
pub const FIRST_CLIENT: Place = 96;

/// Links that are cut: from all of the one to all of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    number: usize,
    from: u128,
    to: u128,
}

/// When copies of a message arrive, as delays.
pub type Arrivals = [Option<Time>; 2];

/// The links between all places, and their habits.
#[derive(Debug)]
pub struct Network {
    dice: Dice,
    cuts: Vec<Cut>,
    loss_per_million: u32,
    duplicates_per_million: u32,
    late_per_million: u32,
    late_max: Time,
    /// Messages lost, by chance or at a cut.
    pub lost: u64,
    /// Messages that arrive twice.
    pub doubled: u64,
}

impl Network {
    /// The network of a plan, with all links whole.
    pub fn of(plan: &Plan) -> Self {
        let habit = |kind| plan.habit(kind).map(|item| Dice::new(item.dice, 0));
        let level = |kind, most: u64| habit(kind).map_or(0, |mut dice| (most >> dice.below(6)) as u32);
        Self {
            dice: Dice::new(plan.seed, 2),
            cuts: Vec::new(),
            loss_per_million: level(Kind::Loss, 300_000),
            duplicates_per_million: level(Kind::Duplicates, 500_000),
            late_per_million: level(Kind::Delays, 300_000),
            late_max: habit(Kind::Delays).map_or(MILLISECOND, |mut dice| MILLISECOND << dice.between(1, 11)),
            lost: 0,
            doubled: 0,
        }
    }

    /// Cuts the links from all places of one mask to all of another, under a number.
    pub fn cut(&mut self, number: usize, from: u128, to: u128) {
        self.cuts.push(Cut { number, from, to });
    }

    /// Makes the cuts of this number whole.
    pub fn mend(&mut self, number: usize) {
        self.cuts.retain(|cut| cut.number != number);
    }

    /// Everything is whole, and nothing is lost, doubled or late any more.
    pub fn heal(&mut self) {
        self.cuts.clear();
        (self.loss_per_million, self.duplicates_per_million, self.late_per_million) = (0, 0, 0);
    }

    /// Whether nothing gets from the one place to the other.
    pub fn is_cut(&self, from: Place, to: Place) -> bool {
        let (from, to) = (1_u128 << from, 1_u128 << to);
        self.cuts.iter().any(|cut| cut.from & from != 0 && cut.to & to != 0)
    }

    /// Something is sent: the delays after which it arrives, if the link is not cut by then.
    pub fn send(&mut self, from: Place, to: Place) -> Arrivals {
        if self.is_cut(from, to) || self.dice.chance(self.loss_per_million) {
            self.lost += 1;
            return [None, None];
        }
        let first = self.delay();
        let second = self.dice.chance(self.duplicates_per_million).then(|| self.delay());
        self.doubled += u64::from(second.is_some());
        [Some(first), second]
    }

    fn delay(&mut self) -> Time {
        let usual = self.dice.between(50, 400);
        if self.dice.chance(self.late_per_million) {
            return usual + self.dice.below(self.late_max);
        }
        usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Network {
        let mut plan = Plan::of_seed(1);
        plan.items.clear();
        Network::of(&plan)
    }

    #[test]
    fn a_calm_network_delivers_everything_once_and_soon() {
        let mut network = calm();
        for _ in 0..1_000 {
            let [first, second] = network.send(0, 1);
            assert!(first.is_some_and(|delay| delay <= MILLISECOND) && second.is_none());
        }
        assert_eq!((network.lost, network.doubled), (0, 0));
    }

    #[test]
    fn a_cut_has_a_direction_and_an_end() {
        let mut network = calm();
        network.cut(7, 0b01, 0b10);
        network.cut(8, 1 << FIRST_CLIENT, 0b10);
        assert!(network.is_cut(0, 1) && !network.is_cut(1, 0) && network.is_cut(FIRST_CLIENT, 1));
        assert_eq!(network.send(0, 1), [None, None]);
        network.mend(7);
        assert!(!network.is_cut(0, 1) && network.is_cut(FIRST_CLIENT, 1));
        network.heal();
        assert!(!network.is_cut(FIRST_CLIENT, 1));
    }

    #[test]
    fn each_habit_shows() {
        let (mut lost, mut doubled, mut late) = (0, 0, false);
        for seed in 0..60 {
            let mut network = Network::of(&Plan::of_seed(seed));
            for _ in 0..100 {
                late |= network.send(0, 1)[0].is_some_and(|delay| delay > 50 * MILLISECOND);
            }
            lost += network.lost;
            doubled += network.doubled;
        }
        assert!(lost > 0 && doubled > 0 && late);
    }
}
