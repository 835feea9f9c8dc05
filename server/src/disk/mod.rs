//! The data directory: one per node, locked by one process, with an identity that never changes; and the seam to files,
//! which is the crate `eyot-disk`, under the name by which the server knows it.
//!
//! Place in the flow: start-up, before recovery; whatever has to survive reaches files through [`Disk`].
//!
//! Deliberately not here: the disks themselves, real and simulated.

mod data_dir;
#[cfg(test)]
mod tests;

pub use data_dir::{kernel_random, DataDir, DataDirError, Identity, NewIdentity};
pub use eyot_disk::{is_full, refuses_direct, Creation, Disk, DiskFile, Metadata, OpenMode, RealDisk};
#[cfg(test)]
pub use eyot_disk::{
    CrashPoint, Direct, Failure, Fate, Fault, Kind, Lie, Operation, SimulatedDisk, SimulatedFile, Site, StartedWrite,
    Target, EXHAUSTIVE_CHANGES_MAX, SECTOR_BYTES,
};
