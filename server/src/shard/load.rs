//! Loading a shard from a snapshot.
//!
//! Place in the flow: a restart, before the log behind the snapshot is applied.
//!
//! Entries go straight into the tables: no log entry is formed, no condition judged, no version made. In the order of a
//! snapshot, slot by slot, the slot's table is in the processor's caches, so nothing is fetched ahead.
//!
//! Invariant: what was emitted of a shard and is loaded into an empty one gives the same [`Shard::digest`].
//!
//! Deliberately not here: whether the snapshot is whole and undamaged; its decoder has checked that.

use eyot_protocol::key;
use eyot_protocol::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use eyot_raft_glue::Version;

use super::apply::Write;
use super::entry::NewValue;
use super::uploads::WholeValue;
use super::Shard;

/// A value on its way from a snapshot into a shard: one encoded TLV value.
#[derive(Debug)]
pub enum LoadedValue<'a> {
    /// Its bytes.
    Bytes(&'a [u8]),
    /// A large one, in its place: see [`GrowingValue`](super::GrowingValue).
    Whole(WholeValue),
}

impl<'a> From<&'a [u8]> for LoadedValue<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<WholeValue> for LoadedValue<'_> {
    fn from(value: WholeValue) -> Self {
        Self::Whole(value)
    }
}

/// Why an entry cannot be loaded: the snapshot says something that no shard was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The key belongs elsewhere.
    #[error("a key of slot {slot}, which is not one of shard {shard}: the snapshot is of another shard")]
    OtherShard {
        /// The key's slot.
        slot: u16,
        /// The shard that is loaded.
        shard: u16,
    },
    /// The key is there already.
    #[error("a key that came before, in slot {slot}")]
    Twice {
        /// The key's slot.
        slot: u16,
    },
    /// The key is longer than keys may be.
    #[error("a key of {bytes} bytes, and {MAX_KEY_BYTES} is the most")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The value is longer than values may be.
    #[error("a value of {bytes} bytes, and {MAX_VALUE_BYTES} is the most")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
}

impl Shard {
    /// Puts an entry of a snapshot into the shard. `now_us` tells timers and access words where the clock is, and is no
    /// part of what is stored; an entry that has expired is loaded, too, for the log to remove.
    ///
    /// # Errors
    /// See [`LoadError`]: nothing has changed then.
    ///
    /// # Panics
    /// When a snapshot of this shard is under way.
    #[inline]
    pub fn load<'a>(
        &mut self,
        key: &[u8],
        value: impl Into<LoadedValue<'a>>,
        version: Version,
        expires_at_us: Option<i64>,
        now_us: i64,
    ) -> Result<(), LoadError> {
        assert!(self.tables.walk().is_none(), "a shard is loaded before it is used");
        let value = value.into();
        let value_bytes = match &value {
            LoadedValue::Bytes(bytes) => bytes.len(),
            LoadedValue::Whole(whole) => whole.bytes().len(),
        };
        if key.len() > MAX_KEY_BYTES {
            return Err(LoadError::KeyTooLong { bytes: key.len() });
        }
        if value_bytes > MAX_VALUE_BYTES {
            return Err(LoadError::ValueTooLong { bytes: value_bytes });
        }
        let slot = key::slot(key);
        let place = self.tables.place(slot, key).ok_or(LoadError::OtherShard { slot, shard: self.id.0 })?;
        if self.tables.find(place, key).is_some() {
            return Err(LoadError::Twice { slot });
        }
        let write = Write { place, first_place: 0, version, now_us };
        match value {
            LoadedValue::Bytes(bytes) => self.insert(key, bytes, expires_at_us, write),
            LoadedValue::Whole(WholeValue::Memory(bytes)) => self.insert(key, &bytes[..], expires_at_us, write),
            LoadedValue::Whole(WholeValue::Mapped(handle)) => {
                self.insert(key, NewValue::Mapped(handle), expires_at_us, write);
            }
        }
        Ok(())
    }
}
