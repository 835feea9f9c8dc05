//! Snapshots on the disk: a shard's state at one index, in a file that is whole or not there.
//!
//! Place in the flow: beside step 8 (apply), and at start-up before the log is read. What the bytes mean is
//! `eyot_protocol::snapshot`'s; which entries are in them is the shard engine's (`Shard::snapshot_some`); when one is
//! made is the core's.
//!
//! ```text
//! <data>/snapshots/shard-<shard>/<index, 20 digits>.snap      whole, durable
//! <data>/snapshots/shard-<shard>/<index, 20 digits>.snap.tmp  being written; removed at the next start
//! <data>/snapshots/spare-<core>.tmp                           superseded, for the next; removed likewise
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `store` | the directory of a shard's snapshots: names, publication, which are kept |
//! | `board` | what the cores know of each other's snapshots |
//! | `kept` | which of them count, and what of the log they make superfluous |
//! | `load` | reading the newest sound one back, at start |
//! | `readers` | which of them clients read |
//!
//! Invariants:
//! - A file with a snapshot's name is whole and durable, and so is its name: written under another name, synced,
//!   renamed, and the directory synced.
//! - Two snapshots of a shard are kept. The log keeps what follows the older one, so a damaged newest one costs time
//!   and nothing else.
//! - A failure here harms neither the log nor what is served: a snapshot that cannot be written is given up, told, and
//!   tried again later.
//!
//! Deliberately not here: threads, clocks, and cutting the log. Generic over the [`Disk`](crate::disk::Disk);
//! everything blocks.

pub mod board;
pub mod kept;
pub mod load;
pub mod readers;
pub mod store;

pub use board::{ShardSnapshot, SnapshotBoard, SnapshotFigures};
pub use kept::{Kept, KeptSnapshots};
pub use load::{load_newest, LoadError, Loaded, Rejected};
pub use readers::{Readers, Reading};
pub use store::{OpenSnapshot, Published, SnapshotError, SnapshotFile, Space, SpareFile};
pub use store::{BUSY_WRITE_BYTES, SNAPSHOTS_KEPT, WRITE_BYTES};
