//! What a group is run with: the times of elections, the bounds, the lease.
//!
//! Place in the flow: step 7, given when a group is built and never changed.
//!
//! Invariant: ticks are the only time a group knows; a tick is [`Settings::tick_interval_us`] long on every node, and
//! all replicas of a group run with the same numbers of ticks.

use crate::{GroupId, PeerId, PlantedBug, ENTRIES_MAX, MESSAGE_BYTES_MAX};

/// Readies that wait for the disk at most; the pipeline of the log. More hide no more latency of the disk than this
/// many writes, and each holds its messages in memory.
pub const OUTSTANDING_READIES_DEFAULT: usize = 8;

/// Reads that wait in one group: far more than one turn of a core brings, few enough to fail fast when the majority is
/// gone.
pub const PENDING_READS_MAX_DEFAULT: usize = 65_536;

/// Rounds of reads that wait for a majority at once: a later round answers for all before it.
pub const READ_ROUNDS_MAX: usize = 8;

/// Proposals of one group whose fate is not known; one entry is one proposal.
pub const PENDING_PROPOSALS_MAX_DEFAULT: usize = 4096;

/// Who and where a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The group.
    pub group: GroupId,
    /// The replica, whose id no other ever had.
    pub peer: PeerId,
    /// Counts the lives of the process on this disk; it must have risen since the last life.
    pub incarnation: u64,
    /// Where this replica's election timeouts come from. Replicas of one group need different ones.
    pub seed: u64,
}

/// The assumption under which reads are answered without asking anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSettings {
    /// How much slower the leader's clock may run than that of any other replica, in parts per million.
    pub max_drift_ppm: u32,
    /// Taken off every lease, for what is not drift: the time between reading a clock and acting on it.
    pub margin_us: u64,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self { max_drift_ppm: 10_000, margin_us: 10_000 }
    }
}

/// What a group is run with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a tick is, in microseconds. Only leases count by it.
    pub tick_interval_us: u64,
    /// A leader sends heartbeats every so many ticks.
    pub heartbeat_ticks: usize,
    /// A follower that hears nothing for so many ticks, and up to twice as many, asks for votes.
    pub election_ticks: usize,
    /// Bytes of entries in one append at most; a larger entry travels alone.
    pub append_bytes_max: u64,
    /// Appends on the way to one follower.
    pub appends_in_flight_max: usize,
    /// Bytes that a leader has proposed and not committed; above it, proposals are refused. One entry is always taken.
    pub uncommitted_bytes_max: u64,
    /// Bytes that one poll gives out to be applied; at least one entry.
    pub apply_bytes_max: u64,
    /// Readies that wait for the disk.
    pub outstanding_readies_max: usize,
    /// Reads that wait.
    pub pending_reads_max: usize,
    /// Proposals whose fate is not known.
    pub pending_proposals_max: usize,
    /// Proposals of a replica that stopped leading are told [`Fate::Unknown`](crate::Fate) after so many ticks without
    /// news of them.
    pub proposal_ticks_max: u64,
    /// A read that is not granted after so many ticks fails.
    pub read_ticks_max: u64,
    /// A snapshot on its way to a peer counts as failed after so many ticks without a word from the caller.
    pub snapshot_ticks_max: u64,
    /// How many entries a learner may lag behind when it becomes a voter, and a voter when it is made leader.
    pub lag_entries_max: u64,
    /// Whether a leader leaves it to the next append or heartbeat to tell followers what is committed.
    pub skip_commit_broadcast: bool,
    /// Whether this node gives and honours leases. All replicas of a group must agree.
    pub lease: Option<LeaseSettings>,
    /// A mistake to make on purpose.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<PlantedBug>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tick_interval_us: 50_000,
            heartbeat_ticks: 2,
            election_ticks: 20,
            append_bytes_max: 512 * 1024,
            appends_in_flight_max: 128,
            uncommitted_bytes_max: 8 * 1024 * 1024,
            apply_bytes_max: 4 * 1024 * 1024,
            outstanding_readies_max: OUTSTANDING_READIES_DEFAULT,
            pending_reads_max: PENDING_READS_MAX_DEFAULT,
            pending_proposals_max: PENDING_PROPOSALS_MAX_DEFAULT,
            proposal_ticks_max: 200,
            read_ticks_max: 40,
            snapshot_ticks_max: 72_000,
            lag_entries_max: 128,
            skip_commit_broadcast: true,
            lease: None,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

impl Settings {
    /// That what a replica sends by these bounds is what others read.
    pub(crate) fn check(&self) -> Result<(), String> {
        // A message has a full append or one entry beside the fields, and is read up to twice that.
        if self.append_bytes_max > MESSAGE_BYTES_MAX as u64 / 2 {
            return Err(format!("appends of {} bytes are not read", self.append_bytes_max));
        }
        if self.pending_proposals_max > ENTRIES_MAX / 2 {
            return Err(format!("{} proposals at once fit into no append", self.pending_proposals_max));
        }
        Ok(())
    }

    /// Whether `bug` is to be made. Never, without the feature of the tests.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn plants(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    /// Whether `bug` is to be made. Never, without the feature of the tests.
    #[cfg(not(feature = "planted-bugs"))]
    #[allow(clippy::unused_self)]
    pub(crate) const fn plants(&self, _: PlantedBug) -> bool {
        false
    }
}
