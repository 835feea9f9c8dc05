//! What can be made to go wrong on a simulated disk, and the record of what was asked of it.
//!
//! Every call is an [`Operation`] with a number and the [`Site`] in the source that made it: so a test can list the
//! places that can fail by running once, and then have each of them fail.

use std::fmt;
use std::panic::Location;
use std::path::PathBuf;
use std::time::Duration;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Creating a directory.
    CreateDirectory,
    /// Opening a file.
    Open,
    /// Syncing a directory.
    SyncDirectory,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    RemoveFile,
    /// Reading a directory.
    List,
    /// Looking at a path.
    Metadata,
    /// Asking for the free space.
    FreeBytes,
    /// Writing to a file.
    Write,
    /// Reading from a file.
    Read,
    /// Syncing a file.
    Sync,
    /// Asking for a file's length.
    Length,
    /// Changing a file's length.
    SetLength,
    /// Locking a file.
    Lock,
}

impl Kind {
    /// Whether it changes what is on the disk, or what of it is durable.
    pub fn is_change(self) -> bool {
        !matches!(self, Self::List | Self::Metadata | Self::FreeBytes | Self::Read | Self::Length | Self::Lock)
    }
}

/// A place in the source that asks something of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// What it asks.
    pub kind: Kind,
    /// Where it stands.
    pub location: &'static Location<'static>,
}

impl fmt::Display for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} at {}", self.kind, self.location)
    }
}

/// One thing that was asked of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Counted from 1 for each disk.
    pub number: u64,
    /// Who asked what.
    pub site: Site,
    /// About which file or directory.
    pub path: PathBuf,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "operation {} ({} on {})", self.number, self.site, self.path.display())
    }
}

/// Which operations go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The one of this number; where it lasts, all from there on.
    Operation(u64),
    /// The next one of this place; where it lasts, all of this place.
    Site(Site),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The system's error of this number. A write that fails with `EIO` may have reached the disk in any part; what a
    /// sync that fails should have written is not made durable by a later one; nothing else changes anything.
    Error(i32),
    /// A write or a read stops halfway. Other operations go well.
    Short,
    /// It takes this long and goes well. Nobody waits: the time is only counted.
    Stall(Duration),
}

/// A fault that waits for its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which operations.
    pub target: Target,
    /// What happens to them.
    pub failure: Failure,
    /// Whether it happens again and again, or once.
    pub lasts: bool,
}

impl Fault {
    pub(super) fn meets(&self, operation: &Operation) -> bool {
        match self.target {
            Target::Operation(number) if self.lasts => operation.number >= number,
            Target::Operation(number) => operation.number == number,
            Target::Site(site) => operation.site == site,
        }
    }
}

/// What a disk, or code that leaves something out, says it has done and has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Syncing a file does nothing.
    Sync,
    /// Syncing a directory does nothing.
    SyncDirectory,
    /// Durable writes are writes to the cache.
    DurableWrites,
    /// A short write says that it was whole.
    ShortWrites,
}

/// What a file system makes of `O_DIRECT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct {
    /// It does it.
    Done,
    /// It does not let a file be opened with it.
    RefusedAtOpen,
    /// It lets a file be opened with it, and refuses every access.
    RefusedAtAccess,
}
