//! The power's end: from the state of a disk at one moment, all the disks that a start may find.

use rand::rngs::StdRng;
use rand::Rng;

use super::contents::{Fate, State, SECTOR_BYTES};
use super::faults::Operation;
use super::SimulatedDisk;

/// Up to so many unsynced changes, every subset of them is tried: 256 images.
pub const EXHAUSTIVE_CHANGES_MAX: usize = 8;

/// A moment at which the power may be cut.
#[derive(Debug, Clone)]
pub struct CrashPoint {
    /// What was under way: begun, and not completed. `None`: nothing.
    pub operation: Option<Operation>,
    /// What the test had last said with [`SimulatedDisk::mark`].
    pub mark: u64,
    pub(super) state: State,
}

impl CrashPoint {
    /// How many changes are not durable: sectors, lengths and names.
    pub fn unsynced(&self) -> usize {
        self.state.pending()
    }

    /// The disk that a start finds when the unsynced changes have these fates; those without one are lost.
    pub fn image(&self, fates: &[Fate]) -> SimulatedDisk {
        let mut fates = fates.iter();
        SimulatedDisk::with_state(self.state.after_power_cut(|| fates.next().copied().unwrap_or(Fate::Lost)))
    }

    /// The disk that a start finds when only the process ended at this moment, and the power stayed on.
    pub fn without_process(&self) -> SimulatedDisk {
        let disk = SimulatedDisk::with_state(self.state.clone());
        disk.end_process();
        disk.mark(self.mark);
        disk
    }

    /// Fates to try: every subset where there are few changes, otherwise nothing, everything, and `random_count` by
    /// `dice`; and as many with a torn sector as there are changes, at most `random_count`.
    pub fn fates(&self, random_count: usize, dice: &mut StdRng) -> Vec<Vec<Fate>> {
        let count = self.unsynced();
        let mut all = Vec::new();
        if count <= EXHAUSTIVE_CHANGES_MAX {
            for subset in 0..1_u32 << count {
                all.push((0..count).map(|change| fate(subset >> change & 1 == 1)).collect());
            }
        } else {
            all.push(vec![Fate::Lost; count]);
            all.push(vec![Fate::Kept; count]);
            all.extend((0..random_count).map(|_| random_subset(count, dice)));
        }
        for _ in 0..count.min(random_count) {
            let mut torn = random_subset(count, dice);
            torn[dice.gen_range(0..count)] = Fate::Torn(dice.gen_range(1..SECTOR_BYTES as u16));
            all.push(torn);
        }
        all
    }
}

fn fate(is_kept: bool) -> Fate {
    if is_kept {
        Fate::Kept
    } else {
        Fate::Lost
    }
}

/// Errors hide where nearly everything is kept or lost, and where what came first is: so not only fair coins.
fn random_subset(count: usize, dice: &mut StdRng) -> Vec<Fate> {
    let edge = dice.gen_range(0..=count);
    let one = dice.gen_range(0..count);
    match dice.gen_range(0..6) {
        0 => (0..count).map(|change| fate(change < edge)).collect(),
        1 => (0..count).map(|change| fate(change >= edge)).collect(),
        2 => (0..count).map(|change| fate(change == one)).collect(),
        3 => (0..count).map(|change| fate(change != one)).collect(),
        4 => (0..count).map(|_| fate(dice.gen_bool(0.9))).collect(),
        _ => (0..count).map(|_| fate(dice.gen())).collect(),
    }
}
