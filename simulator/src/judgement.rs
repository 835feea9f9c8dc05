//! After the faults: does everything go on, does everybody agree, and were the histories linearizable?
//!
//! Place in the flow: the world's last events. Until it is well, judgement comes again, up to a bound.

use std::fmt::Write as _;

use eyot_raft_glue::{GroupId, PeerId};

use crate::clock::{Time, MILLISECOND, SECOND};
use crate::counts::Count;
use crate::truth::Check;
use crate::world::{Event, Report, World, STEPS_MAX};

/// How long after the last fault everything must be well again: elections with slow clocks, a few snapshots one after
/// the other, the replacement of a node in each group.
pub const PROGRESS_WITHIN: Time = 60 * SECOND;

impl World {
    /// Looks whether everything is well; ends the world if so, or if it should be and is not.
    pub(crate) fn judge(&mut self) {
        let missing = self.missing();
        if missing.is_empty() {
            self.is_over = true;
            return;
        }
        if self.clock.now() > self.plan.healed_at + PROGRESS_WITHIN {
            self.truth.fail(Check::NoProgress, || missing);
            return;
        }
        self.clock.after(100 * MILLISECOND, Event::Judge);
    }

    /// What is not well, in words; nothing if everything is.
    fn missing(&self) -> String {
        let mut missing = String::new();
        for (number, client) in self.clients.iter().enumerate() {
            if let Some(operation) = client.operation() {
                let _ = write!(missing, "client {number} waits for operation {operation}; ");
            }
        }
        for group in 0..self.plan.groups {
            self.missing_of_group(group, &mut missing);
        }
        missing
    }

    fn missing_of_group(&self, group: u32, missing: &mut String) {
        let (_, membership) = self.truth.newest_membership(GroupId(group));
        let newest = self.truth.read_floor(GroupId(group));
        if self.leader_of(group).is_none() {
            let _ = write!(missing, "group {group} has no leader; ");
        }
        if membership.is_joint() {
            let _ = write!(missing, "group {group} is still joint: {membership:?}; ");
        }
        let members: Vec<PeerId> = membership.voters.iter().chain(&membership.learners).copied().collect();
        for peer in members.into_iter().filter(|peer| self.lives(*peer)) {
            let node = self.nodes.iter().find(|node| node.peer == peer).expect("it lives");
            let applied = self.applied_of(node.place, group);
            if applied != Some(newest) {
                let _ = write!(missing, "{peer:?} of group {group} has applied {applied:?} of {newest:?}; ");
            }
        }
    }

    /// What came of this world.
    pub(crate) fn conclude(mut self, steps: u64) -> Report {
        if steps >= STEPS_MAX {
            self.truth.fail(Check::NoProgress, || format!("the world did not end within {STEPS_MAX} steps"));
        }
        let now = self.clock.now();
        for client in &mut self.clients {
            client.stop(now, &mut self.history);
        }
        if self.truth.violation.is_none() {
            match self.history.judge() {
                Ok(judged) => self.counts.add(Count::HistoriesChecked, judged),
                Err(what) => self.truth.fail(Check::NotLinearizable, || what),
            }
        }
        self.counts.one(Count::Worlds);
        self.counts.add(Count::WritesUnknown, self.clients.iter().map(|client| client.unknown).sum());
        self.counts.add(Count::SimulatedMilliseconds, now / MILLISECOND);
        self.counts.add(Count::MessagesLost, self.network.lost);
        self.counts.add(Count::MessagesDoubled, self.network.doubled);
        Report {
            hash: self.trace.hash(),
            counts: self.counts,
            violation: self.truth.violation,
            lines: self.trace.into_lines(),
        }
    }
}
