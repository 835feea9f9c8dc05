//! The seam to the disk: the two traits through which everything that must survive reaches files, the system's own
//! disk, and, for tests, one in memory that forgets, fails and lies.
//!
//! Place in the flow: beside step 6, and at start-up. The log, recovery, the snapshots and the data directory reach
//! files through [`Disk`] alone, so that they run unchanged on a disk that forgets, fails or lies. Everything here
//! blocks. The writes of a running log are the one exception: a core's ring makes them, on the descriptor of a real
//! file.
//!
//! Invariants:
//! - What is durable is what [`DiskFile::sync`] or a mode with [`OpenMode::durable_writes`] has confirmed, and of a
//!   name what [`Disk::sync_directory`] of its directory has confirmed. Nothing else may be relied on.
//! - The seam is generic and not an object: on a real disk it costs nothing.
//!
//! Deliberately not here: what the files mean, retrying (a failed sync is never repeated), and value files, which are
//! memory and need not survive.

#![forbid(unsafe_code)]

mod real;

#[cfg(feature = "simulated")]
mod simulated;

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::path::Path;

pub use real::RealDisk;
#[cfg(feature = "simulated")]
pub use simulated::{
    CrashPoint, Direct, Failure, Fate, Fault, Kind, Lie, Operation, SimulatedDisk, SimulatedFile, Site, StartedWrite,
    Target, EXHAUSTIVE_CHANGES_MAX, SECTOR_BYTES,
};

/// How a file is opened. It can always be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMode {
    /// Whether it can be written, too.
    pub writable: bool,
    /// What happens when it is there, or is not.
    pub creation: Creation,
    /// Past the page cache (`O_DIRECT`): offsets, lengths and memory in whole blocks of 4 KiB. A file system may
    /// refuse it, here or at the first access: [`refuses_direct`].
    pub direct: bool,
    /// A write is on disk when it returns (`O_DSYNC`).
    pub durable_writes: bool,
}

/// What opening does when the file is there, or is not. What is created is its owner's alone (mode 0600).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// It must be there.
    Never,
    /// It is created, empty, if it is not there.
    IfMissing,
    /// It is created, or emptied.
    Emptied,
    /// It is created, and must not be there.
    Exclusive,
}

impl OpenMode {
    /// Reading a file that is there.
    pub const READ: Self = Self { writable: false, creation: Creation::Never, direct: false, durable_writes: false };
    /// Writing to a file that is there.
    pub const WRITE: Self = Self { writable: true, ..Self::READ };

    /// The same, writable, with another [`Creation`].
    #[must_use]
    pub const fn creating(self, creation: Creation) -> Self {
        Self { writable: true, creation, ..self }
    }

    /// The same, past the page cache.
    #[must_use]
    pub const fn direct(self) -> Self {
        Self { direct: true, ..self }
    }

    /// The same, with every write on disk when it returns.
    #[must_use]
    pub const fn durable_writes(self) -> Self {
        Self { durable_writes: true, ..self }
    }
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Length of a file in bytes; of a directory, what the file system says.
    pub bytes: u64,
}

/// A disk with a file system. Errors are those of the system, with their numbers. Each caller's place in the source is
/// known to the implementation (`track_caller`), which is how the simulated disk lists the places that can fail.
pub trait Disk: Clone + Debug + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Creates a directory, its owner's alone (mode 0700). Its name is durable after a sync of the one above it.
    #[track_caller]
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Opens a file.
    #[track_caller]
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;

    /// Makes the names in a directory durable: what was created, renamed and removed there.
    #[track_caller]
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in one step; a file that has that name is lost.
    #[track_caller]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; its space is free when nobody has it open.
    #[track_caller]
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted. Names that are not UTF-8 are left out: none of ours is one.
    #[track_caller]
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// What is at `path`; [`ErrorKind::NotFound`] if nothing is.
    #[track_caller]
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Bytes that this process may still write to the file system of `path`.
    #[track_caller]
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. Closed when it is dropped, which makes nothing durable.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Writes from `offset` on, and returns how many bytes: it may be fewer.
    #[track_caller]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Reads from `offset` on, and returns how many bytes: it may be fewer, and is 0 at the end.
    #[track_caller]
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Makes the contents durable, and the length. After an error nothing is known, and a second call that succeeds
    /// proves nothing.
    #[track_caller]
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    #[track_caller]
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file off, or extends it with zeros.
    #[track_caller]
    fn set_length(&self, bytes: u64) -> io::Result<()>;

    /// Locks the file against all who ask the same, until it is closed. `false`: another has it.
    #[track_caller]
    fn try_lock_exclusive(&self) -> io::Result<bool>;

    /// [`Self::write_at`] until everything is written.
    #[track_caller]
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// [`Self::read_at`] until `bytes` is full or the file ends; returns how many there were.
    #[track_caller]
    fn read_up_to(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// [`Self::read_at`] until `bytes` is full; [`ErrorKind::UnexpectedEof`] if the file ends before.
    #[track_caller]
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_up_to(bytes, offset)? < bytes.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Whether a file system said that it does not do `O_DIRECT`.
pub fn refuses_direct(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Whether the disk or the quota is full: the errors that heal when space comes back.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}
