//! The mistakes that can be planted, to see whether the checks find them.
//!
//! Place in the flow: a world is told of one and plants it in every node. What they are stands beside the code that
//! makes them, in `raft-glue`; those of its caller are made by the nodes here. Without the feature `planted-bugs`
//! nothing can be planted.

use eyot_raft_glue::session::SessionTable;
use eyot_raft_glue::Settings;

/// A mistake.
#[cfg(feature = "planted-bugs")]
pub use eyot_raft_glue::PlantedBug as Bug;

/// A mistake; this build knows none.
#[cfg(not(feature = "planted-bugs"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {}

#[cfg(not(feature = "planted-bugs"))]
impl Bug {
    /// All of them.
    pub const ALL: [Self; 0] = [];
}

/// Whether this build can make mistakes on purpose.
pub const CAN_PLANT: bool = cfg!(feature = "planted-bugs");

/// Plants a mistake.
///
/// # Panics
/// When this build cannot: a search for a mistake that is not there would prove nothing.
pub(crate) fn plant(settings: &mut Settings, bug: Option<Bug>) {
    #[cfg(feature = "planted-bugs")]
    {
        settings.planted = bug;
    }
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = settings;
        assert!(bug.is_none(), "build with the feature planted-bugs to plant {bug:?}");
    }
}

/// A table of sessions with a mistake in it, or without.
pub(crate) fn table_with(table: SessionTable, bug: Option<Bug>) -> SessionTable {
    #[cfg(feature = "planted-bugs")]
    {
        table.with_planted(bug)
    }
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = bug;
        table
    }
}

/// Whether a log that is damaged in its middle is cut off there.
pub(crate) fn cuts_damaged_log(bug: Option<Bug>) -> bool {
    #[cfg(feature = "planted-bugs")]
    {
        bug == Some(Bug::TruncatedMiddle)
    }
    #[cfg(not(feature = "planted-bugs"))]
    {
        bug.is_some()
    }
}

/// Whether a snapshot stream that ends between two messages is taken for complete.
pub(crate) fn needs_no_foot(bug: Option<Bug>) -> bool {
    #[cfg(feature = "planted-bugs")]
    {
        bug == Some(Bug::SnapshotCutAtMessage)
    }
    #[cfg(not(feature = "planted-bugs"))]
    {
        bug.is_some()
    }
}

/// The mistake of this name, as `Debug` prints it.
pub fn named(name: &str) -> Option<Bug> {
    Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
}
