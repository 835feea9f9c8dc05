//! Newtypes for the positions and names of consensus, so that an index is never taken for a term or a count.

use std::fmt;

/// A leader's period. Standalone nodes count theirs from 1 and never change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

impl Term {
    /// The last term that a disk may name. A replica counts on from there by itself, once in an election: the room
    /// beyond it is never used up, and neither is that between what a message may name and this.
    pub const MAX: Self = Self(1 << 63);
}

/// A place in one shard's log, counted from 1; 0 stands for "before the first entry". At most [`Index::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Index(pub u64);

impl Index {
    /// The last index a [`Version`] can name: 48 bits, 8,900 years at a thousand entries a second.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// The index after this one.
    ///
    /// # Panics
    /// After [`Index::MAX`]: the log has outlived its format, which is a bug of whoever let it.
    #[must_use]
    pub fn next(self) -> Self {
        assert!(self < Self::MAX, "log index exhausted");
        Self(self.0 + 1)
    }
}

/// One shard: a fixed range of slots with a log of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardId(pub u16);

/// One server process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

/// One consensus group: the replicas of one shard, or the metadata group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GroupId(pub u32);

impl From<ShardId> for GroupId {
    fn from(shard: ShardId) -> Self {
        Self(u32::from(shard.0))
    }
}

/// One replica of one group, for as long as it keeps its disk: a replica that lost what it had written comes back under
/// a new id, and no id is ever used twice. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PeerId(pub u64);

/// The caller's name for one read; what it names is the caller's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReadId(pub u64);

/// Counts what a group gave out to be persisted, since the group was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReadyNumber(pub u64);

/// The name that the builder of a snapshot gave to its data; peers fetch the data by it, outside of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SnapshotId(pub u64);

/// Which entry of a shard's log: term and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryPosition {
    /// The term in which the entry was proposed.
    pub term: Term,
    /// Its place in the shard's log.
    pub index: Index,
}

/// What an entry's payload is. The number is what stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A batch of commands (`eyot_protocol::command`).
    Commands = 1,
    /// A part of a large value that a later command of the same shard names (`eyot_protocol::value_part`).
    ValuePart = 2,
}

impl EntryKind {
    /// The kind of a number from the log; `None` for one that this version does not know.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Commands, Self::ValuePart].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Where a key's last write stands in its shard's log, as one ordered number:
///
/// ```text
///  63                                   16 15             0
/// +---------------------------------------+----------------+
/// | index of the entry (48 bits)          | position in it |
/// +---------------------------------------+----------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    /// The version that the command at `position` of the entry at `index` gives.
    pub fn new(index: Index, position: u16) -> Self {
        debug_assert!(index <= Index::MAX);
        Self(index.0 << 16 | u64::from(position))
    }

    /// The index of the entry.
    pub fn index(self) -> Index {
        Index(self.0 >> 16)
    }

    /// The position of the command in the entry.
    pub fn position(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.index().0, self.position())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_as_the_log_does() {
        let earlier = Version::new(Index(7), u16::MAX);
        let later = Version::new(Index(8), 0);
        assert!(earlier < later);
        assert_eq!((later.index(), later.position()), (Index(8), 0));
        assert_eq!(earlier.to_string(), "7.65535");
        assert_eq!(Version::new(Index::MAX, 1).index(), Index::MAX);
    }

    #[test]
    #[should_panic(expected = "log index exhausted")]
    fn the_last_index_has_no_next() {
        let _ = Index::MAX.next();
    }

    #[test]
    fn unknown_entry_kinds_are_not_guessed() {
        assert_eq!(EntryKind::from_number(1), Some(EntryKind::Commands));
        assert_eq!(EntryKind::from_number(0), None);
        assert_eq!(EntryKind::from_number(2), Some(EntryKind::ValuePart));
        assert_eq!(EntryKind::from_number(3), None);
    }
}
