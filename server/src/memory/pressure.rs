//! How short memory is, and what a core has to do about it.
//!
//! Place in the flow: judged once a turn from the ledger and the board; step 3 (admit) and the eviction act on it.
//!
//! | level | from | what happens |
//! |---|---|---|
//! | normal | | nothing |
//! | elevated | `--memory-threshold` | most spare buffers are given back (`--auto-cleanup`); at the limit, all |
//! | high | `--high-memory-threshold` | expired keys are swept harder; cores over their fair share evict |
//! | over | the limit | a write that grows evicts its own room first, on any core, or is refused: `OUT_OF_MEMORY` |
//!
//! Reads, deletes and administration go on at every level.
//!
//! Why the fair share: the limit is the node's (see `ledger`), so the question is who makes room. Between the high
//! threshold and the limit it is whoever has more than an equal share, in proportion to how much more; if the node is
//! over the threshold there is at least one such core, and one that holds little is not robbed of it by a greedy
//! neighbour. At the limit itself it is whoever wants to grow, so that no write waits for another core's turn.
//!
//! What the limit means: resident memory. The ledgers' sum leaves out what the allocator adds and what the program
//! needs, so the limit for it is lower by the overhead that was learned (see `process`). That correction is bounded:
//! the program needs some megabytes, and a limit below them still means something for the keys. Where the sizes of
//! values change, the memory of the old ones is of no use for the new ones until whole pages of it are free. The
//! correction then makes keys go faster, at most until half of a large limit is left, and comes back when the allocator
//! has given those pages back.
//!
//! Pure: figures in, a judgement out.

use serde::Serialize;

/// The share of the limit, in thousandths, by which overhead may lower it.
const OVERHEAD_SHARE_MAX: u64 = 250;
/// The same of what a limit has beyond [`LARGE_LIMIT_BYTES`].
const OVERHEAD_SHARE_OF_LARGE_MAX: u64 = 750;
/// From here on the program's own needs are a small part of a limit.
const LARGE_LIMIT_BYTES: u64 = 128 << 20;

/// How short memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// There is enough.
    #[default]
    Normal,
    /// What can be given back without loss should be.
    Elevated,
    /// Room has to be made.
    High,
    /// The limit is reached.
    Over,
}

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::High => "high",
            Self::Over => "over",
        }
    }
}

/// From which thousandths of the limit on a level is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// The elevated level.
    pub elevated: u16,
    /// The high level.
    pub high: u16,
}

/// What a judgement is made from, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// The node's limit; `None`: there is none.
    pub limit: Option<u64>,
    /// What was measured beyond the ledgers.
    pub overhead: u64,
    /// What this core will have.
    pub own: u64,
    /// What all cores will have.
    pub node: u64,
    /// How many cores there are.
    pub core_count: u64,
}

/// The judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// How short memory is on the node.
    pub level: Level,
    /// Bytes that writes of this core may still take; `u64::MAX`: any number.
    pub room: u64,
    /// Bytes that this core should evict, beside what writes demand.
    pub to_evict: u64,
    /// What the ledgers' sum is held against.
    pub limit: u64,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { level: Level::Normal, room: u64::MAX, to_evict: 0, limit: u64::MAX }
    }
}

impl Pressure {
    /// Judges.
    pub fn judge(situation: &Situation, thresholds: Thresholds) -> Self {
        let &Situation { limit, overhead, own, node, core_count } = situation;
        let Some(limit) = limit else { return Self::default() };
        let limit = limit - overhead.min(overhead_max(limit));
        let high = share_of(limit, u64::from(thresholds.high));
        let level = if node >= limit {
            Level::Over
        } else if node >= high {
            Level::High
        } else if node >= share_of(limit, u64::from(thresholds.elevated)) {
            Level::Elevated
        } else {
            Level::Normal
        };
        let over_fair_share = own.saturating_sub(high / core_count.max(1));
        let to_evict = node.saturating_sub(high).min(over_fair_share);
        Self { level, room: limit.saturating_sub(node), to_evict, limit }
    }
}

/// By how much overhead may lower a limit.
fn overhead_max(limit: u64) -> u64 {
    share_of(limit.min(LARGE_LIMIT_BYTES), OVERHEAD_SHARE_MAX)
        + share_of(limit.saturating_sub(LARGE_LIMIT_BYTES), OVERHEAD_SHARE_OF_LARGE_MAX)
}

/// So many thousandths of `bytes`, without passing through a number that does not fit.
fn share_of(bytes: u64, thousandths: u64) -> u64 {
    (u128::from(bytes) * u128::from(thousandths) / 1000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { elevated: 800, high: 950 };

    fn judge(own: u64, node: u64) -> Pressure {
        let situation = Situation { limit: Some(10_000), overhead: 0, own, node, core_count: 2 };
        Pressure::judge(&situation, THRESHOLDS)
    }

    #[test]
    fn levels_begin_at_their_thresholds() {
        let level = |node| judge(node / 2, node).level;
        assert_eq!((level(7_999), level(8_000)), (Level::Normal, Level::Elevated));
        assert_eq!((level(9_499), level(9_500)), (Level::Elevated, Level::High));
        assert_eq!((level(9_999), level(10_000)), (Level::High, Level::Over));
        assert_eq!((judge(1, 9_000).room, judge(1, 10_500).room), (1_000, 0));
    }

    #[test]
    fn who_has_more_than_a_fair_share_makes_room_and_somebody_always_has() {
        // A skewed node: one core has nearly all, and may, up to the node's threshold.
        assert_eq!(judge(9_400, 9_500).to_evict, 0);
        assert_eq!((judge(9_500, 9_700).to_evict, judge(200, 9_700).to_evict), (200, 0));
        // An even one: each only what it has beyond its share.
        assert_eq!((judge(4_850, 9_700).to_evict, judge(4_850, 9_700).to_evict), (100, 100));
        for own in (0..=9_700).step_by(97) {
            let (one, other) = (judge(own, 9_700), judge(9_700 - own, 9_700));
            assert!(one.to_evict + other.to_evict >= 200, "{own}: {one:?} {other:?}");
        }
    }

    #[test]
    fn overhead_lowers_the_limit_up_to_a_bound() {
        let limit = |overhead| {
            let situation = Situation { limit: Some(10_000), overhead, own: 0, node: 0, core_count: 1 };
            Pressure::judge(&situation, THRESHOLDS).limit
        };
        assert_eq!((limit(0), limit(700), limit(1 << 40)), (10_000, 9_300, 7_500));
        assert_eq!(overhead_max(256 << 20), (32 << 20) + (96 << 20), "half of 256 MiB");
    }

    #[test]
    fn without_a_limit_nothing_is_ever_short() {
        let situation = Situation { limit: None, overhead: 1, own: u64::MAX / 4, node: u64::MAX / 2, core_count: 2 };
        assert_eq!(Pressure::judge(&situation, THRESHOLDS), Pressure::default());
    }
}
