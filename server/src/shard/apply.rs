//! Applying a log entry: the one place where a shard's state changes.
//!
//! Place in the flow: step 8 (apply), and recovery, which applies the same entries again. Here are the commands that
//! logs are full of; the others stand in `commands`.
//!
//! Invariants:
//! - What an entry does depends on the shard's content and the entry's bytes alone. Whether a key has expired is judged
//!   by the entry's `decided_at_us`.
//! - An entry is applied whole or not at all: its bytes are checked before its first command changes anything. The
//!   check computes every key's place, which applying needs anyway. What this process has formed itself is not checked
//!   again, and the places were found when the commands entered. What only the content can tell (a value of the wrong
//!   type, a text that would grow too long) is an outcome of that command.
//! - Every change of a key gives it a new version, a change of its expiry alone included: the logged removal of an
//!   expired key names a version, and must not hit a key that has been given more time meanwhile.

use eyot_protocol::command::{Command, CommandError, Condition, EntryCommands, NewExpiry, Value, ENTRY_HEADER_BYTES};
use eyot_protocol::key;
use eyot_protocol::limits::MAX_COMMANDS_PER_ENTRY;
use eyot_raft_glue::{Index, Version};

use super::access::AccessClock;
use super::entry::{prefetch_line, Entry, Expiry, NewValue, OwnedEntry};
use super::expiry::Wheel;
use super::graveyard::GRAVES_PER_PLACE;
use super::table::{Place, Tables};
use super::{has_expired, Outcome, Shard};

/// How many keys ahead of the command that is applied its entry is asked for: so long the memory takes, at some tenth
/// of a microsecond a command. Twice as far ahead is the line of the table that tells where the entry lies, and three
/// times what tells where the table is.
const ENTRIES_AHEAD: usize = 12;

/// How far ahead an entry's bytes are asked for: it has waited for the disk, and left the caches meanwhile.
const PAYLOAD_AHEAD_BYTES: usize = 1024;

const CACHE_LINE_BYTES: usize = 64;

/// Places whose memory is kept from entry to entry; the memory of a larger entry's is given back.
const PLACES_KEPT: usize = 1024;

/// Bytes of scratch memory that are kept from entry to entry: enough for every text that changes often.
const SCRATCH_KEPT_BYTES: usize = 64 * 1024;

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
        self.apply_each(index, payload, |position, _, outcome| each(position, outcome))
    }

    /// [`Shard::apply`], with each command beside its outcome.
    ///
    /// # Errors
    /// The same.
    pub fn apply_each(
        &mut self,
        index: Index,
        payload: &[u8],
        mut each: impl FnMut(u16, &Command<'_>, Outcome<'_>),
    ) -> Result<(), CommandError> {
        let commands = self.check(payload)?;
        self.run(index, commands, payload, &mut each)?;
        self.places.clear();
        self.places.shrink_to(PLACES_KEPT);
        Ok(())
    }

    /// [`Shard::apply_each`] of an entry that this process has formed, with the places of its commands' keys, in order:
    /// they were found when the commands entered, and nothing is read twice. The places are gone afterwards.
    ///
    /// # Panics
    /// When `payload` is no entry.
    pub fn apply_formed(
        &mut self,
        index: Index,
        payload: &[u8],
        places: &mut Vec<Place>,
        mut each: impl FnMut(u16, &Command<'_>, Outcome<'_>),
    ) {
        std::mem::swap(&mut self.places, places);
        let run = EntryCommands::new(payload).and_then(|commands| self.run(index, commands, payload, &mut each));
        run.expect("an entry of this process decodes");
        std::mem::swap(&mut self.places, places);
        places.clear();
    }

    /// Reads an entry whose effect the shard has from its snapshot: the large values that it took are not kept for it.
    /// Only in recovery.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn pass_over(&mut self, payload: &[u8]) -> Result<(), CommandError> {
        if self.uploads.is_empty() {
            return Ok(());
        }
        for command in EntryCommands::new(payload)? {
            if let Command::Set { value: Value::Upload(upload), .. } = command? {
                self.uploads.pass_over(upload);
            }
        }
        Ok(())
    }

    /// Applies the commands of an entry, whose keys' places are in `places`.
    fn run(
        &mut self,
        index: Index,
        mut commands: EntryCommands<'_>,
        payload: &[u8],
        each: &mut impl FnMut(u16, &Command<'_>, Outcome<'_>),
    ) -> Result<(), CommandError> {
        let now_us = commands.decided_at_us();
        let mut first_place = 0;
        let (mut slots_to, mut buckets_to, mut entries_to) = (0, 0, 0);
        for position in 0.. {
            for line in [0, CACHE_LINE_BYTES] {
                prefetch_line(payload.as_ptr().wrapping_add(commands.offset() + PAYLOAD_AHEAD_BYTES + line));
            }
            let Some(command) = commands.next() else { break };
            let command = command?;
            slots_to = self.prefetch_to(slots_to, first_place + 3 * ENTRIES_AHEAD, Tables::prefetch_slot);
            buckets_to = self.prefetch_to(buckets_to, first_place + 2 * ENTRIES_AHEAD, Tables::prefetch_bucket);
            entries_to = self.prefetch_to(entries_to, first_place + ENTRIES_AHEAD, Tables::prefetch);
            let place = self.places.get(first_place).copied().unwrap_or_default();
            let version = Version::new(index, position as u16);
            let write = Write { place, first_place, version, now_us };
            first_place += key_count(&command);
            each(position as u16, &command, self.execute(command, write));
        }
        self.graveyard.free_some(GRAVES_PER_PLACE * self.places.len());
        self.departed = None;
        if self.scratch.capacity() > SCRATCH_KEPT_BYTES {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Asks for the memory of the places `from..to`, as far as there are so many; returns up to where. One place alone
    /// is looked up at once anyway.
    #[inline]
    fn prefetch_to(&self, from: usize, to: usize, prefetch: impl Fn(&Tables, Place)) -> usize {
        let to = to.min(self.places.len());
        if self.places.len() > 1 {
            self.places[from..to].iter().for_each(|&place| prefetch(&self.tables, place));
        }
        to
    }

    /// Reads the whole entry once and leaves the places of every command's keys in `places`.
    fn check<'a>(&mut self, payload: &'a [u8]) -> Result<EntryCommands<'a>, CommandError> {
        self.places.clear();
        let commands = EntryCommands::new(payload)?;
        let mut offset = ENTRY_HEADER_BYTES;
        for (position, command) in commands.clone().enumerate() {
            let command = command?;
            let error = |problem| CommandError { problem, offset, length: payload.len() };
            if position == MAX_COMMANDS_PER_ENTRY {
                return Err(error("more commands than an entry has positions"));
            }
            let Self { tables, places, uploads, .. } = self;
            let mut add = |key| {
                let place = tables.place(key::slot(key), key).ok_or_else(|| error("a key of another shard"))?;
                places.push(place);
                Ok(())
            };
            match command {
                Command::Set { value: Value::Upload(upload), .. } if !uploads.is_whole(upload) => {
                    return Err(error("an upload of which the log has not all parts"));
                }
                Command::SetAllIfAbsent { pairs } => pairs.iter().try_for_each(|(key, _)| add(key))?,
                Command::Rename { from, to, .. } | Command::Copy { from, to, .. } => {
                    add(from)?;
                    add(to)?;
                }
                _ => command.key().map_or(Ok(()), add)?,
            }
            offset += command.encoded_bytes();
        }
        Ok(commands)
    }

    #[inline]
    fn execute(&mut self, command: Command<'_>, write: Write) -> Outcome<'_> {
        match command {
            Command::Set { key, value: Value::Encoded(value), expiry, condition, return_old: false } => {
                self.set(key, value, expiry, condition, write)
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
            _ => self.execute_rarer(command, write),
        }
    }

    #[inline]
    pub(super) fn set<'v>(
        &mut self,
        key: &[u8],
        value: impl Into<NewValue<'v>>,
        expiry: NewExpiry,
        condition: Condition,
        write: Write,
    ) -> Outcome<'static> {
        let Write { place, version, now_us, .. } = write;
        let stored = Outcome::Stored { version };
        let mut expires_at_us = if let NewExpiry::At(at_us) = expiry { Some(at_us) } else { None };
        let dead_on_arrival = has_expired(expires_at_us, now_us);
        let Some(entry) = self.tables.find_mut(place, key) else {
            if !allows(condition, None) {
                return Outcome::NotStored { current: None };
            }
            if !dead_on_arrival {
                self.insert(key, value, expires_at_us, write);
            }
            return stored;
        };
        let current = live_version(&entry, now_us);
        if !allows(condition, current) {
            return Outcome::NotStored { current };
        }
        if dead_on_arrival {
            self.remove(place, key, |_| true);
            return stored;
        }
        if expiry == NewExpiry::Keep && current.is_some() {
            expires_at_us = entry.expiry().map(|expiry| expiry.at_us);
        }
        let expiry = new_expiry(&mut self.wheel, entry.expiry(), expires_at_us, write);
        let clock = AccessClock::new(self.tracking, now_us);
        entry.set_access(clock.touched(entry.access(), (version.0 as u32).wrapping_mul(0x9E37_79B9)));
        entry.store(value, version, expiry);
        stored
    }

    /// Adds `key`, which must not be there.
    #[inline]
    pub(super) fn insert<'v>(
        &mut self,
        key: &[u8],
        value: impl Into<NewValue<'v>>,
        expires_at_us: Option<i64>,
        write: Write,
    ) {
        let Write { place, version, .. } = write;
        let expiry = new_expiry(&mut self.wheel, None, expires_at_us, write);
        let entry = OwnedEntry::new(place.hash(), key, value, version, expiry);
        entry.set_access(AccessClock::new(self.tracking, write.now_us).created());
        self.tables.insert(place, entry);
    }

    /// Takes `key` out, with its timer, if it is there and `condition` holds for it.
    pub(super) fn remove(
        &mut self,
        place: Place,
        key: &[u8],
        condition: impl FnOnce(&Entry) -> bool,
    ) -> Option<OwnedEntry> {
        let entry = self.tables.remove_if(place, key, condition)?;
        if let Some(expiry) = entry.expiry() {
            self.wheel.remove(expiry.timer);
        }
        Some(entry)
    }
}

/// What a command needs to know beside itself.
#[derive(Clone, Copy)]
pub(super) struct Write {
    /// Of its first key.
    pub place: Place,
    /// Which of the shard's `places` that is; those of its other keys follow.
    pub first_place: usize,
    /// What the command gives to the keys that it changes.
    pub version: Version,
    /// The entry's clock.
    pub now_us: i64,
}

/// How many places [`Shard::check`] finds for a command.
#[inline]
fn key_count(command: &Command<'_>) -> usize {
    match command {
        Command::Rename { .. } | Command::Copy { .. } => 2,
        Command::SetAllIfAbsent { pairs } => pairs.len(),
        Command::Clear => 0,
        _ => 1,
    }
}

/// Sets, moves or removes the timer of a key for its new expiry.
#[inline]
pub(super) fn new_expiry(
    wheel: &mut Wheel,
    old: Option<Expiry>,
    expires_at_us: Option<i64>,
    write: Write,
) -> Option<Expiry> {
    match (old, expires_at_us) {
        (None, None) => None,
        (None, Some(at_us)) => Some(Expiry { at_us, timer: wheel.insert(at_us, write.place, write.now_us) }),
        (Some(old), None) => {
            wheel.remove(old.timer);
            None
        }
        (Some(old), Some(at_us)) => {
            wheel.rearm(old.timer, at_us);
            Some(Expiry { at_us, timer: old.timer })
        }
    }
}

/// The entry's version, unless it has expired: then the key does not exist for conditions and answers.
pub(super) fn live_version(entry: &Entry, now_us: i64) -> Option<Version> {
    (!has_expired(entry.expiry().map(|expiry| expiry.at_us), now_us)).then(|| entry.version())
}

pub(super) fn allows(condition: Condition, current: Option<Version>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::IfAbsent => current.is_none(),
        Condition::IfPresent => current.is_some(),
        Condition::IfVersion(version) => current == Some(Version(version)),
    }
}
