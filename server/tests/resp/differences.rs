//! Where Eyot answers otherwise than Redis 7.0, on purpose: the one list, each entry with its reason and a proof.
//!
//! Invariants:
//! - `docs/RESP.md` shows exactly this list: a test compares them.
//! - Every entry still differs: a test runs its example on both servers, so that none outlives its reason.
//! - Whatever differs and is not covered by an entry fails the comparison.

use super::lines::Line;
use crate::support::Reply;

/// One known difference.
pub struct Difference {
    /// The commands, as the page names them.
    pub commands: &'static str,
    pub redis: &'static str,
    pub eyot: &'static str,
    pub reason: &'static str,
    /// Commands on an empty database, of which the last one is answered otherwise.
    pub example: &'static [&'static str],
    /// Whether it explains that the line was answered by Redis with the first reply, by Eyot with the second.
    pub covers: fn(&Line, &Reply, &Reply) -> bool,
}

/// All of them.
pub const KNOWN: [Difference; 0] = [];

/// Whether a known difference explains the replies of Redis and Eyot to `line`.
pub fn is_known(line: &Line, redis: &Reply, eyot: &Reply) -> bool {
    KNOWN.iter().any(|difference| (difference.covers)(line, redis, eyot))
}
