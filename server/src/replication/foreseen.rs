//! What the commands of a shard that are not applied yet will do to memory.
//!
//! Place in the flow: step 7; the driver tells it what it takes and what it applies. Without it, a core that evicts
//! would not know that the room is on its way, and evict the same room again with every turn until the disk has
//! answered.
//!
//! Invariants:
//! - What was added for an entry is taken back when that entry is applied, whatever its commands did.
//! - A version is evicted once: it is remembered until its entry is applied.

use std::collections::{HashSet, VecDeque};

use eyot_raft_glue::{Index, Version};

use crate::memory::ledger::Foreseen;

/// Evictions of one shard that wait for the disk, at most; beyond it, room has to come from what is under way.
pub const EVICTIONS_IN_FLIGHT_MAX: usize = 64 * 1024;

/// What a write of `bytes` takes beside them until it is measured: the entry's header, its word in the table, the
/// rounding of the allocator.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 48;

#[derive(Debug, Clone, Copy)]
struct Eviction {
    /// Its command's place in the log: the version that the command would give.
    at: Version,
    /// The version that goes.
    version: Version,
    bytes: u32,
}

/// The account of one shard.
#[derive(Debug)]
pub struct UnappliedMemory {
    /// What the open entry's writes take.
    open: u64,
    /// What each sealed entry's writes take, oldest first.
    sealed: VecDeque<(Index, u64)>,
    evictions: VecDeque<Eviction>,
    versions: HashSet<u64, ahash::RandomState>,
    foreseen: Foreseen,
    evicted: u64,
    expired: u64,
}

impl Default for UnappliedMemory {
    fn default() -> Self {
        Self {
            open: 0,
            sealed: VecDeque::new(),
            evictions: VecDeque::new(),
            // Versions are the log's, not the clients': nobody can choose them to fall on each other.
            versions: HashSet::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4)),
            foreseen: Foreseen::default(),
            evicted: 0,
            expired: 0,
        }
    }
}

impl UnappliedMemory {
    /// A write that takes `bytes` was added to the open entry.
    #[inline]
    pub fn wrote(&mut self, bytes: u64) {
        self.open += bytes;
        self.foreseen.growing += bytes;
    }

    /// Whether `version` may be evicted: it is not being so, and there is room.
    #[inline]
    pub fn may_evict(&self, version: Version) -> bool {
        self.evictions.is_empty()
            || (self.evictions.len() < EVICTIONS_IN_FLIGHT_MAX && !self.versions.contains(&version.0))
    }

    /// An eviction of `version`, which holds `bytes`, was added to the open entry as the command at `at`.
    pub fn evicts(&mut self, at: Version, version: Version, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.versions.insert(version.0);
        self.evictions.push_back(Eviction { at, version, bytes });
        self.foreseen.evicting += u64::from(bytes);
    }

    /// The open entry has become the one at `index`.
    pub fn sealed(&mut self, index: Index) {
        let open = std::mem::take(&mut self.open);
        if open > 0 {
            self.sealed.push_back((index, open));
        }
    }

    /// The logged removal at `at` was applied; `removed`: and its key was still there.
    #[inline]
    pub fn removed(&mut self, at: Version, removed: bool) {
        match self.evictions.front() {
            Some(eviction) if eviction.at == at => {
                self.foreseen.evicting -= u64::from(eviction.bytes);
                self.versions.remove(&eviction.version.0);
                self.evictions.pop_front();
                self.evicted += u64::from(removed);
            }
            _ => self.expired += u64::from(removed),
        }
    }

    /// The entry at `index` was applied.
    pub fn applied(&mut self, index: Index) {
        while let Some((_, bytes)) = self.sealed.front().filter(|(sealed, _)| *sealed <= index) {
            self.foreseen.growing -= bytes;
            self.sealed.pop_front();
        }
        debug_assert!(
            self.evictions.front().is_none_or(|eviction| eviction.at.index() > index),
            "an eviction was lost"
        );
    }

    /// What is to come.
    #[inline]
    pub fn foreseen(&self) -> Foreseen {
        self.foreseen
    }

    /// Keys that were evicted since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Keys that were removed since the start because they had expired.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// What the account itself takes.
    pub fn memory_bytes(&self) -> usize {
        self.evictions.capacity() * size_of::<Eviction>()
            + self.sealed.capacity() * size_of::<(Index, u64)>()
            + self.versions.capacity() * (size_of::<u64>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_taken_back_with_its_entry() {
        let mut memory = UnappliedMemory::default();
        memory.wrote(100);
        memory.evicts(Version::new(Index(1), 1), Version(7), 40);
        assert_eq!(memory.foreseen(), Foreseen { growing: 100, evicting: 40 });
        assert!(!memory.may_evict(Version(7)) && memory.may_evict(Version(8)));
        memory.sealed(Index(1));
        memory.wrote(30);
        memory.sealed(Index(2));
        memory.removed(Version::new(Index(1), 1), true);
        memory.applied(Index(1));
        assert_eq!(memory.foreseen(), Foreseen { growing: 30, evicting: 0 });
        assert!(memory.may_evict(Version(7)), "it may have been written again with the same content");
        memory.applied(Index(2));
        assert_eq!(memory.foreseen(), Foreseen::default());
        assert_eq!((memory.evicted(), memory.expired()), (1, 0));
    }

    #[test]
    fn evictions_are_told_from_expired_keys_and_count_only_if_they_took_effect() {
        let mut memory = UnappliedMemory::default();
        memory.evicts(Version::new(Index(4), 1), Version(1), 10);
        memory.evicts(Version::new(Index(4), 3), Version(2), 10);
        memory.sealed(Index(4));
        for (position, removed) in [(0, true), (1, false), (2, false), (3, true)] {
            memory.removed(Version::new(Index(4), position), removed);
        }
        memory.applied(Index(4));
        assert_eq!((memory.evicted(), memory.expired()), (1, 1));
    }

    #[test]
    fn evictions_in_flight_are_bounded() {
        let mut memory = UnappliedMemory::default();
        for number in 0..EVICTIONS_IN_FLIGHT_MAX as u64 {
            assert!(memory.may_evict(Version(number)));
            memory.evicts(Version::new(Index(1 + number), 0), Version(number), 1);
        }
        assert!(!memory.may_evict(Version(u64::MAX)));
    }
}
