//! What every operation of a simulated disk goes through: its number, its faults, and the power.
//!
//! An operation begins ([`Machine::begin`]), changes the state, and reaches its boundary ([`Machine::reach_boundary`]),
//! where nothing of it is durable and the power may be cut; what makes things durable comes after that.

use std::collections::BTreeMap;
use std::io;
use std::panic::Location;
use std::path::Path;
use std::time::Duration;

use super::contents::{NodeId, State, SECTOR_BYTES};
use super::faults::{Direct, Failure, Fault, Kind, Lie, Operation, Site};
use super::power::CrashPoint;

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) state: State,
    pub(super) operations: Vec<Operation>,
    pub(super) faults: Vec<Fault>,
    pub(super) lies: Vec<Lie>,
    pub(super) direct: Direct,
    /// Most bytes of all files.
    pub(super) capacity: u64,
    pub(super) cut_at: Option<u64>,
    pub(super) is_off: bool,
    pub(super) stalled: Duration,
    pub(super) mark: u64,
    pub(super) recorded: Option<Vec<CrashPoint>>,
    pub(super) locks: BTreeMap<NodeId, u64>,
    /// The last number given to a handle or a write.
    pub(super) last_number: u64,
}

/// How an operation goes.
pub(super) enum Course {
    Well,
    Short,
    Fails(i32),
}

impl Machine {
    pub(super) fn of(state: State) -> Self {
        Self {
            state,
            operations: Vec::new(),
            faults: Vec::new(),
            lies: Vec::new(),
            direct: Direct::Done,
            capacity: u64::MAX,
            cut_at: None,
            is_off: false,
            stalled: Duration::ZERO,
            mark: 0,
            recorded: None,
            locks: BTreeMap::new(),
            last_number: 0,
        }
    }

    /// An operation begins.
    pub(super) fn begin(
        &mut self,
        kind: Kind,
        path: &Path,
        location: &'static Location<'static>,
    ) -> io::Result<Course> {
        if self.is_off {
            return Err(power_is_off());
        }
        let number = self.operations.len() as u64 + 1;
        let operation = Operation { number, site: Site { kind, location }, path: path.to_owned() };
        let met = self.faults.iter().position(|fault| fault.meets(&operation));
        self.operations.push(operation);
        let Some(position) = met else { return Ok(Course::Well) };
        let Fault { failure, lasts, .. } = self.faults[position];
        if !lasts {
            self.faults.remove(position);
        }
        Ok(match failure {
            Failure::Error(number) => Course::Fails(number),
            Failure::Short => Course::Short,
            Failure::Stall(delay) => {
                self.stalled += delay;
                Course::Well
            }
        })
    }

    /// [`Self::begin`] of an operation that has no halves.
    pub(super) fn begin_whole(
        &mut self,
        kind: Kind,
        path: &Path,
        location: &'static Location<'static>,
    ) -> io::Result<()> {
        match self.begin(kind, path, location)? {
            Course::Fails(number) => Err(io::Error::from_raw_os_error(number)),
            Course::Well | Course::Short => Ok(()),
        }
    }

    /// The operation that has begun has had its effect, of which nothing is durable yet: here the power may be cut.
    pub(super) fn reach_boundary(&mut self) -> io::Result<()> {
        let operation = self.operations.last();
        if self.recorded.is_some() && operation.is_some_and(|operation| operation.site.kind.is_change()) {
            let point = self.crash_point();
            self.recorded.get_or_insert_default().push(point);
        }
        if self.cut_at.is_some_and(|number| self.operations.len() as u64 >= number) {
            self.is_off = true;
            return Err(power_is_off());
        }
        Ok(())
    }

    pub(super) fn crash_point(&self) -> CrashPoint {
        CrashPoint { operation: self.operations.last().cloned(), mark: self.mark, state: self.state.clone() }
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn lies(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    /// How many of `count` bytes at `offset` of a file of `length` there is space for.
    pub(super) fn space_for(&self, count: usize, offset: u64, length: u64) -> usize {
        let growth = (offset + count as u64).saturating_sub(length);
        let free = self.capacity.saturating_sub(if growth > 0 { self.state.used_bytes() } else { 0 });
        if growth <= free {
            return count;
        }
        let fits = (length + free).saturating_sub(offset) as usize;
        fits - fits % SECTOR_BYTES
    }
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the power of the simulated disk is off")
}

pub(super) fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
