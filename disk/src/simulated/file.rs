//! Open files of a simulated disk.

use std::io;
use std::panic::Location;
use std::path::PathBuf;

use super::contents::{NodeId, Standing, SECTOR_BYTES};
use super::faults::{Direct, Kind, Lie};
use super::machine::{error, power_is_off, Course};
use super::SimulatedDisk;
use crate::{DiskFile, OpenMode};

/// An open file of a simulated disk.
#[derive(Debug)]
pub struct SimulatedFile {
    pub(super) disk: SimulatedDisk,
    pub(super) node: NodeId,
    pub(super) path: PathBuf,
    pub(super) mode: OpenMode,
    /// Tells open files apart, for locks.
    pub(super) handle: u64,
}

/// A write that is under way. Give it to [`SimulatedFile::finish_write`]; one that is dropped never completes.
#[derive(Debug)]
#[must_use]
pub struct StartedWrite {
    ticket: u64,
    offset: u64,
    /// How many bytes it says it has written, and how many it has.
    counts: (usize, usize),
}

impl SimulatedFile {
    /// Begins a write, as a ring does: several may be under way, and end in any order.
    #[track_caller]
    pub fn start_write(&self, bytes: &[u8], offset: u64) -> io::Result<StartedWrite> {
        let mut machine = self.disk.machine();
        let course = machine.begin(Kind::Write, &self.path, Location::caller())?;
        if !self.mode.writable {
            return Err(error(libc::EBADF));
        }
        self.check_direct(machine.direct, bytes, offset)?;
        if let Course::Fails(number) = course {
            if number == libc::EIO {
                machine.state.file_mut(self.node).write(bytes, offset, Standing::Failed);
            }
            machine.reach_boundary()?;
            return Err(error(number));
        }
        let length = machine.state.file(self.node).cached.length;
        let mut count = machine.space_for(bytes.len(), offset, length);
        if count == 0 && !bytes.is_empty() {
            return Err(error(libc::ENOSPC));
        }
        if let Course::Short = course {
            count = halved(count);
        }
        let ticket = machine.next_number();
        machine.state.file_mut(self.node).write(&bytes[..count], offset, Standing::InFlight(ticket));
        machine.reach_boundary()?;
        let said = if machine.lies(Lie::ShortWrites) { bytes.len() } else { count };
        Ok(StartedWrite { ticket, offset, counts: (said, count) })
    }

    /// The write is complete. Returns how many bytes it wrote.
    #[allow(clippy::needless_pass_by_value)] // It ends once.
    pub fn finish_write(&self, write: StartedWrite) -> io::Result<usize> {
        let StartedWrite { ticket, offset, counts: (said, count) } = write;
        let mut machine = self.disk.machine();
        if machine.is_off {
            return Err(power_is_off());
        }
        let is_durable = self.mode.durable_writes && !machine.lies(Lie::DurableWrites);
        let file = machine.state.file_mut(self.node);
        if is_durable {
            file.sync_range(offset, count, ticket);
        } else {
            file.finish(ticket);
        }
        Ok(said)
    }

    /// `O_DIRECT` wants whole sectors in the file and in memory.
    fn check_direct(&self, direct: Direct, bytes: &[u8], offset: u64) -> io::Result<()> {
        let is_aligned = [offset, bytes.len() as u64, bytes.as_ptr().addr() as u64]
            .iter()
            .all(|number| number.is_multiple_of(SECTOR_BYTES as u64));
        if self.mode.direct && (direct == Direct::RefusedAtAccess || !is_aligned) {
            return Err(error(libc::EINVAL));
        }
        Ok(())
    }
}

/// Half of it, in whole sectors where that is possible.
fn halved(count: usize) -> usize {
    let half = count / 2;
    if half >= SECTOR_BYTES {
        half - half % SECTOR_BYTES
    } else {
        half
    }
}

impl DiskFile for SimulatedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let write = self.start_write(bytes, offset)?;
        self.finish_write(write)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut machine = self.disk.machine();
        let course = machine.begin(Kind::Read, &self.path, Location::caller())?;
        self.check_direct(machine.direct, bytes, offset)?;
        let wanted = match course {
            Course::Fails(number) => return Err(error(number)),
            Course::Short => halved(bytes.len()),
            Course::Well => bytes.len(),
        };
        let count = machine.state.file(self.node).cached.read(&mut bytes[..wanted], offset);
        machine.reach_boundary()?;
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let mut machine = self.disk.machine();
        let course = machine.begin(Kind::Sync, &self.path, Location::caller())?;
        machine.reach_boundary()?;
        let lies = machine.lies(Lie::Sync);
        let file = machine.state.file_mut(self.node);
        match course {
            Course::Fails(number) => {
                file.fail();
                return Err(error(number));
            }
            _ if lies => {}
            _ => file.sync(),
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut machine = self.disk.machine();
        machine.begin_whole(Kind::Length, &self.path, Location::caller())?;
        machine.reach_boundary()?;
        Ok(machine.state.file(self.node).cached.length)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut machine = self.disk.machine();
        machine.begin_whole(Kind::SetLength, &self.path, Location::caller())?;
        let length = machine.state.file(self.node).cached.length;
        if !self.mode.writable {
            return Err(error(libc::EBADF));
        }
        if machine.space_for(bytes.saturating_sub(length) as usize, length, length) as u64 + length < bytes {
            return Err(error(libc::ENOSPC));
        }
        machine.state.file_mut(self.node).set_length(bytes);
        machine.reach_boundary()
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        let mut machine = self.disk.machine();
        machine.begin_whole(Kind::Lock, &self.path, Location::caller())?;
        machine.reach_boundary()?;
        let owner = *machine.locks.entry(self.node).or_insert(self.handle);
        Ok(owner == self.handle)
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        // The machine's lock is poisoned only where a test has failed already.
        if let Ok(mut machine) = self.disk.machine.lock() {
            let handle = self.handle;
            machine.locks.retain(|_, owner| *owner != handle);
        }
    }
}
