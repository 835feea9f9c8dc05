//! A disk in memory that keeps what was written and what was synced apart, and goes wrong when a test says so.
//!
//! Place in the flow: beside it, in tests: whatever runs on [`Disk`](super::Disk) runs on this one. It can cut the
//! power at any operation and show every disk that a start may find then, flip bits, fail any operation once or for
//! ever, write short, fill up, stall, refuse `O_DIRECT`, and lie about what it has synced.
//!
//! ```text
//! let disk = SimulatedDisk::new();
//! disk.record();
//! …run the code on it…
//! for point in disk.crash_points() {                      one for each operation that changes something
//!     for fates in point.fates(16, &mut dice) {           which of the unsynced changes are lost, kept, torn
//!         …recover from point.image(&fates)…
//! ```
//!
//! Invariants:
//! - Nothing depends on time, threads' luck or the contents: the same calls with the same faults and the same dice give
//!   the same disk.
//! - It promises no more than the seam does. Sectors of [`SECTOR_BYTES`] are written in any order; each name's change
//!   stands for itself, whatever else is synced.
//!
//! Deliberately not here: permissions, symbolic links, and sparse accounting.

mod contents;
mod faults;
mod file;
mod machine;
mod power;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::panic::Location;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{Creation, Disk, Metadata, OpenMode};
use contents::{DirectoryNode, FileNode, Node, State};
use machine::{error, Course, Machine};

pub use contents::{Fate, SECTOR_BYTES};
pub use faults::{Direct, Failure, Fault, Kind, Lie, Operation, Site, Target};
pub use file::{SimulatedFile, StartedWrite};
pub use power::{CrashPoint, EXHAUSTIVE_CHANGES_MAX};

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimulatedDisk {
    machine: Arc<Mutex<Machine>>,
}

impl SimulatedDisk {
    /// An empty disk without faults or limits.
    pub fn new() -> Self {
        Self::with_state(State::empty())
    }

    fn with_state(state: State) -> Self {
        Self { machine: Arc::new(Mutex::new(Machine::of(state))) }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().expect("no operation of a simulated disk panics")
    }

    /// Adds a fault; the first one that meets an operation has its way.
    pub fn inject(&self, fault: Fault) {
        self.machine().faults.push(fault);
    }

    /// From now on everything goes well again, as far as it is up to faults.
    pub fn heal(&self) {
        self.machine().faults.clear();
    }

    /// The process that used it has ended, and the power is on: what it wrote is in the cache, writes under way
    /// included, its files are closed, and no more of it is durable than before.
    pub fn end_process(&self) {
        let mut machine = self.machine();
        machine.state.finish_all();
        machine.locks.clear();
    }

    /// From now on it lies.
    pub fn lie(&self, lie: Lie) {
        self.machine().lies.push(lie);
    }

    /// What it makes of `O_DIRECT` from now on.
    pub fn set_direct(&self, direct: Direct) {
        self.machine().direct = direct;
    }

    /// Most bytes of all files. What is over it already stays.
    pub fn set_capacity(&self, bytes: u64) {
        self.machine().capacity = bytes;
    }

    /// The operation of this number begins and never completes; all later ones fail.
    pub fn cut_power_at(&self, number: u64) {
        self.machine().cut_at = Some(number);
    }

    /// What was asked of it so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.machine().operations.clone()
    }

    /// How long stalls have taken.
    pub fn stalled(&self) -> Duration {
        self.machine().stalled
    }

    /// What is true of the test from now on, such as the number of what was acknowledged: crash points carry it.
    pub fn mark(&self, mark: u64) {
        self.machine().mark = mark;
    }

    /// Keeps a [`CrashPoint`] of every operation that changes something, from now on.
    pub fn record(&self) {
        self.machine().recorded = Some(Vec::new());
    }

    /// The recorded crash points, and the present moment as the last one.
    pub fn crash_points(&self) -> Vec<CrashPoint> {
        let mut points = self.machine().recorded.take().unwrap_or_default();
        points.push(self.crash_point());
        points
    }

    /// The present moment.
    pub fn crash_point(&self) -> CrashPoint {
        self.machine().crash_point()
    }

    /// The bytes of a file as they are read, without asking the disk's faults.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let machine = self.machine();
        let file = &machine.state.file(machine.state.find(path).expect("the file is there")).cached;
        let mut bytes = vec![0; file.length as usize];
        file.read(&mut bytes, 0);
        bytes
    }

    /// Replaces a file's bytes behind everybody's back, durably.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn overwrite(&self, path: &Path, bytes: &[u8]) {
        let mut machine = self.machine();
        let node = machine.state.find(path).expect("the file is there");
        machine.state.overwrite(node, bytes);
    }

    /// Turns one bit of a file, counted from its start; twice is never.
    ///
    /// # Panics
    /// When there is no such file or bit.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let mut machine = self.machine();
        let node = machine.state.find(path).expect("the file is there");
        machine.state.flip_bit(node, bit);
    }
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        machine.begin_whole(Kind::CreateDirectory, path, Location::caller())?;
        machine.state.create(path, Node::Directory(DirectoryNode::default()))?;
        machine.reach_boundary()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimulatedFile> {
        let mut machine = self.machine();
        machine.begin_whole(Kind::Open, path, Location::caller())?;
        if mode.direct && machine.direct == Direct::RefusedAtOpen {
            return Err(error(libc::EINVAL));
        }
        let node = match (machine.state.find(path), mode.creation) {
            (Ok(_), Creation::Exclusive) => return Err(ErrorKind::AlreadyExists.into()),
            (Ok(node), _) if matches!(machine.state.node(node), Node::Directory(_)) => {
                return Err(ErrorKind::IsADirectory.into())
            }
            (Ok(node), Creation::Emptied) => {
                machine.state.file_mut(node).set_length(0);
                node
            }
            (Ok(node), _) => node,
            (Err(missing), _) if missing.kind() != ErrorKind::NotFound => return Err(missing),
            (Err(missing), Creation::Never) => return Err(missing),
            (Err(_), _) => machine.state.create(path, Node::File(FileNode::default()))?,
        };
        if mode.creation != Creation::Never {
            machine.reach_boundary()?;
        }
        let handle = machine.next_number();
        drop(machine);
        Ok(SimulatedFile { disk: self.clone(), node, path: path.to_owned(), mode, handle })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        let course = machine.begin(Kind::SyncDirectory, path, Location::caller())?;
        let node = machine.state.find(path)?;
        machine.state.directory(node)?;
        machine.reach_boundary()?;
        if let Course::Fails(number) = course {
            machine.state.directory_mut(node)?.fail();
            return Err(error(number));
        }
        if !machine.lies(Lie::SyncDirectory) {
            machine.state.directory_mut(node)?.sync();
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        machine.begin_whole(Kind::Rename, from, Location::caller())?;
        machine.state.rename(from, to)?;
        machine.reach_boundary()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        machine.begin_whole(Kind::RemoveFile, path, Location::caller())?;
        machine.state.remove_file(path)?;
        machine.reach_boundary()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut machine = self.machine();
        machine.begin_whole(Kind::List, path, Location::caller())?;
        let names = machine.state.directory(machine.state.find(path)?)?.cached.keys().cloned().collect();
        machine.reach_boundary()?;
        Ok(names)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let mut machine = self.machine();
        machine.begin_whole(Kind::Metadata, path, Location::caller())?;
        let metadata = match machine.state.node(machine.state.find(path)?) {
            Node::File(file) => Metadata { is_directory: false, bytes: file.cached.length },
            Node::Directory(_) => Metadata { is_directory: true, bytes: 0 },
        };
        machine.reach_boundary()?;
        Ok(metadata)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let mut machine = self.machine();
        machine.begin_whole(Kind::FreeBytes, path, Location::caller())?;
        machine.state.find(path)?;
        machine.reach_boundary()?;
        Ok(machine.capacity.saturating_sub(machine.state.used_bytes()))
    }
}
