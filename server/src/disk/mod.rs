//! The data directory: one per node, locked by one process, with an identity that never changes.
//!
//! Place in the flow: start-up, before recovery. Nothing here knows glommio: it blocks, and runs once.

mod data_dir;

#[cfg(test)]
mod tests;

pub use data_dir::{kernel_random, DataDir, DataDirError, Identity, NewIdentity};
