//! Applying a log entry: the one place where a shard's state changes.
//!
//! Place in the flow: step 8 (apply), and recovery, which applies the same entries again.
//!
//! Invariants:
//! - What an entry does depends on the shard's content and the entry's bytes alone. Whether a key has expired is judged
//!   by the entry's `decided_at_us`.
//! - An entry is applied whole or not at all: its bytes are checked before its first command changes anything. The
//!   check computes every key's place, which applying needs anyway and which lets it fetch many keys together, so it
//!   costs one more reading of the command headers, a few nanoseconds each, and recovery may rely on it too.

use eyot_protocol::command::{Command, CommandError, Condition, EntryCommands, NewExpiry, Value, ENTRY_HEADER_BYTES};
use eyot_protocol::key;
use eyot_protocol::limits::MAX_COMMANDS_PER_ENTRY;
use eyot_raft_glue::{Index, Version};

use super::entry::{Entry, Expiry, OwnedEntry};
use super::table::Place;
use super::{has_expired, Outcome, Shard};

/// Commands whose keys are prefetched together, right before the first of them is applied. The fetches overlap best
/// with nothing between them; more than so many gain nothing, and two cache lines each of so many fit the first-level
/// cache.
const PREFETCH_BATCH: usize = 32;

/// Places whose memory is kept from entry to entry; the memory of a larger entry's is given back.
const PLACES_KEPT: usize = 1024;

impl Shard {
    /// Applies the entry at `index` and calls `each` with the outcome of every command, in order.
    ///
    /// # Errors
    /// When `payload` is not an entry of this shard (see [`CommandError`]). Nothing has been applied then, and `each`
    /// was not called; but the log says something that this program does not understand, so the caller must not
    /// apply what comes after it.
    pub fn apply(
        &mut self,
        index: Index,
        payload: &[u8],
        mut each: impl FnMut(u16, Outcome<'_>),
    ) -> Result<(), CommandError> {
        let commands = self.check(payload)?;
        let decided_at_us = commands.decided_at_us();
        for (position, command) in commands.enumerate() {
            if position % PREFETCH_BATCH == 0 && self.places.len() > 1 {
                for &place in self.places[position..].iter().take(PREFETCH_BATCH) {
                    self.tables.prefetch(place);
                }
            }
            let write = Write {
                place: self.places[position],
                version: Version::new(index, position as u16),
                now_us: decided_at_us,
            };
            each(position as u16, self.execute(command?, write));
        }
        self.places.clear();
        self.places.shrink_to(PLACES_KEPT);
        Ok(())
    }

    /// Reads the whole entry once and leaves the place of every command's key in `places`.
    fn check<'a>(&mut self, payload: &'a [u8]) -> Result<EntryCommands<'a>, CommandError> {
        self.places.clear();
        let commands = EntryCommands::new(payload)?;
        let mut offset = ENTRY_HEADER_BYTES;
        for command in commands.clone() {
            let command = command?;
            let error = |problem| CommandError { problem, offset, length: payload.len() };
            if self.places.len() == MAX_COMMANDS_PER_ENTRY {
                return Err(error("more commands than an entry has positions"));
            }
            let key = match command {
                Command::Set { key, expiry: NewExpiry::Never | NewExpiry::At(_), return_old: false, .. } => key,
                Command::Delete { key } | Command::Expire { key, .. } => key,
                _ => return Err(error("a kind that is not applied yet")),
            };
            let place = self.tables.place(key::slot(key), key).ok_or_else(|| error("a key of another shard"))?;
            self.places.push(place);
            offset += command.encoded_bytes();
        }
        Ok(commands)
    }

    #[inline]
    fn execute(&mut self, command: Command<'_>, write: Write) -> Outcome<'static> {
        match command {
            Command::Set { key, value: Value::Encoded(value), expiry, condition, .. } => {
                let expires_at_us = if let NewExpiry::At(at_us) = expiry { Some(at_us) } else { None };
                self.set(key, value, expires_at_us, condition, write)
            }
            Command::Delete { key } => {
                let removed = self.remove(write.place, key, |_| true);
                let was_live = removed.is_some_and(|entry| live_version(&entry, write.now_us).is_some());
                Outcome::Deleted(was_live)
            }
            Command::Expire { key, version } => {
                let removed = self.remove(write.place, key, |entry| entry.version() == Version(version));
                Outcome::Expired(removed.is_some())
            }
            other => unreachable!("{other:?} was refused by the check"),
        }
    }

    #[inline]
    fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        expires_at_us: Option<i64>,
        condition: Condition,
        write: Write,
    ) -> Outcome<'static> {
        let Write { place, version, now_us } = write;
        let stored = Outcome::Stored { version };
        let dead_on_arrival = has_expired(expires_at_us, now_us);
        let Some(entry) = self.tables.find_mut(place, key) else {
            if !allows(condition, None) {
                return Outcome::NotStored { current: None };
            }
            if !dead_on_arrival {
                let expiry =
                    expires_at_us.map(|at_us| Expiry { at_us, timer: self.wheel.insert(at_us, place, now_us) });
                self.tables.insert(place, OwnedEntry::new(place.hash(), key, value, version, expiry));
            }
            return stored;
        };
        let current = live_version(entry, now_us);
        if !allows(condition, current) {
            return Outcome::NotStored { current };
        }
        if dead_on_arrival {
            self.remove(place, key, |_| true);
            return stored;
        }
        let expiry = match (entry.expiry(), expires_at_us) {
            (None, None) => None,
            (None, Some(at_us)) => Some(Expiry { at_us, timer: self.wheel.insert(at_us, place, now_us) }),
            (Some(old), None) => {
                self.wheel.remove(old.timer);
                None
            }
            (Some(old), Some(at_us)) => {
                self.wheel.rearm(old.timer, at_us);
                Some(Expiry { at_us, timer: old.timer })
            }
        };
        let resized = entry.store(value, version, expiry);
        self.tables.resized(resized);
        stored
    }

    /// Takes `key` out, with its timer, if it is there and `condition` holds for it.
    fn remove(&mut self, place: Place, key: &[u8], condition: impl FnOnce(&Entry) -> bool) -> Option<OwnedEntry> {
        let entry = self.tables.remove_if(place, key, condition)?;
        if let Some(expiry) = entry.expiry() {
            self.wheel.remove(expiry.timer);
        }
        Some(entry)
    }
}

/// What a command needs to know beside itself.
#[derive(Clone, Copy)]
struct Write {
    place: Place,
    version: Version,
    now_us: i64,
}

/// The entry's version, unless it has expired: then the key does not exist for conditions and answers.
fn live_version(entry: &Entry, now_us: i64) -> Option<Version> {
    (!has_expired(entry.expiry().map(|expiry| expiry.at_us), now_us)).then(|| entry.version())
}

fn allows(condition: Condition, current: Option<Version>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::IfAbsent => current.is_none(),
        Condition::IfPresent => current.is_some(),
        Condition::IfVersion(version) => current == Some(Version(version)),
    }
}
