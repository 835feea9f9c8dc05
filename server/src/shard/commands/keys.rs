//! Commands on whole keys: taking out, changing expiries, renaming, copying, several keys at once, all of them.
//!
//! Place in the flow: step 8 (apply).
//!
//! A SET that returns the old value stands here, too: it takes the old entry out before it stores the new one, so that
//! the outcome can borrow the value without a copy.

use eyot_protocol::command::{Condition, ExpiryCondition, NewExpiry, PairList, Value};
use eyot_raft_glue::Version;

use super::super::apply::{allows, live_version, new_expiry, Write};
use super::super::entry::{Entry, NewValue, OwnedEntry};
use super::super::graveyard::CLEARED_AT_ONCE_MAX;
use super::super::{has_expired, Failure, Outcome, Shard, Stored};
use super::{expires_at_us, live};

impl Shard {
    pub(super) fn set_returning(
        &mut self,
        key: &[u8],
        value: NewValue<'_>,
        expiry: NewExpiry,
        condition: Condition,
        write: Write,
    ) -> Outcome<'_> {
        let found = live(&self.tables, key, write);
        let current = found.map(Entry::version);
        if !allows(condition, current) {
            return previous(live(&self.tables, key, write), false, current.unwrap_or(Version(0)));
        }
        let expiry = match expiry {
            NewExpiry::Keep => found.and_then(expires_at_us).map_or(NewExpiry::Never, NewExpiry::At),
            other => other,
        };
        self.departed = self.remove(write.place, key, |_| true).filter(|_| current.is_some());
        self.set(key, value, expiry, Condition::Always, write);
        previous(self.departed.as_deref(), true, write.version)
    }

    pub(super) fn take_out(&mut self, key: &[u8], write: Write) -> Outcome<'_> {
        let removed = self.remove(write.place, key, |_| true);
        self.departed = removed.filter(|entry| live_version(entry, write.now_us).is_some());
        Outcome::Value(self.departed.as_deref().map(stored))
    }

    pub(super) fn set_expiry(
        &mut self,
        key: &[u8],
        at_us: Option<i64>,
        condition: ExpiryCondition,
        return_value: bool,
        write: Write,
    ) -> Outcome<'_> {
        let Write { place, version, now_us, .. } = write;
        let Some(entry) = live(&self.tables, key, write) else {
            return if return_value { Outcome::Value(None) } else { Outcome::Changed(false) };
        };
        let current = expires_at_us(entry);
        // Taking away an expiry that is not there changes nothing, and so gives no new version.
        let changes = allows_expiry(condition, current, at_us) && (current, at_us) != (None, None);
        if changes && has_expired(at_us, now_us) {
            self.departed = self.remove(place, key, |_| true);
            return changed(return_value, true, self.departed.as_deref());
        }
        if changes {
            let entry = self.tables.find_mut(place, key).expect("found above");
            let expiry = new_expiry(&mut self.wheel, entry.expiry(), at_us, write);
            entry.set_expiry(version, expiry);
        }
        changed(return_value, changes, self.tables.find(place, key))
    }

    pub(super) fn rename(&mut self, from: &[u8], to: &[u8], if_absent: bool, write: Write) -> Outcome<'static> {
        let done = |renamed| if if_absent { Outcome::Changed(renamed) } else { Outcome::Done };
        let Some(access) = live(&self.tables, from, write).map(Entry::access) else {
            return Outcome::Failed(Failure::NoSuchKey);
        };
        let target = self.second(write);
        if if_absent && live(&self.tables, to, target).is_some() {
            return done(false);
        }
        if from != to {
            let entry = self.remove(write.place, from, |_| true).expect("found above");
            self.remove(target.place, to, |_| true);
            let expiry = new_expiry(&mut self.wheel, None, expires_at_us(&entry), target);
            let renamed = OwnedEntry::new(target.place.hash(), to, entry.value_again(), target.version, expiry);
            renamed.set_access(access);
            self.tables.insert(target.place, renamed);
        }
        done(true)
    }

    pub(super) fn copy(&mut self, from: &[u8], to: &[u8], replace: bool, write: Write) -> Outcome<'static> {
        let target = self.second(write);
        let taken = !replace && live(&self.tables, to, target).is_some();
        if taken || from == to || live(&self.tables, from, write).is_none() {
            return Outcome::Changed(false);
        }
        // What was there has to go first: the table holds a key once.
        self.remove(target.place, to, |_| true);
        let source = live(&self.tables, from, write).expect("found above");
        let expiry = new_expiry(&mut self.wheel, None, expires_at_us(source), target);
        let copy = OwnedEntry::new(target.place.hash(), to, source.value_again(), target.version, expiry);
        copy.set_access(source.access());
        self.tables.insert(target.place, copy);
        Outcome::Changed(true)
    }

    pub(super) fn set_all_if_absent(&mut self, pairs: PairList<'_>, write: Write) -> Outcome<'static> {
        let at = |shard: &Self, n: usize| Write { place: shard.places[write.first_place + n], ..write };
        let exists = |(n, (key, _))| live(&self.tables, key, at(self, n)).is_some();
        if pairs.iter().enumerate().any(exists) {
            return Outcome::Changed(false);
        }
        for (n, (key, value)) in pairs.iter().enumerate() {
            let Value::Encoded(value) = value else { unreachable!("an entry holds encoded values") };
            self.set(key, value, NewExpiry::Never, Condition::Always, at(self, n));
        }
        Outcome::Changed(true)
    }

    pub(super) fn clear(&mut self) -> Outcome<'static> {
        if self.tables.keys() <= CLEARED_AT_ONCE_MAX {
            // The timers one by one, so that the wheel keeps its memory: an entry may clear the shard many times.
            for expiry in self.tables.iter().filter_map(Entry::expiry) {
                self.wheel.remove(expiry.timer);
            }
            if self.tables.keys() > 0 {
                drop(self.tables.take_all());
            }
        } else {
            self.graveyard.bury_timers(self.wheel.take_all());
            if let Some(tables) = self.tables.take_all() {
                self.graveyard.bury_tables(tables);
            }
        }
        Outcome::Done
    }

    /// What a command needs to know for its second key.
    fn second(&self, write: Write) -> Write {
        Write { place: self.places[write.first_place + 1], ..write }
    }
}

fn stored(entry: &Entry) -> Stored<'_> {
    Stored::of(entry)
}

/// The outcome of a SET that was to return what was there: `entry`.
fn previous(entry: Option<&Entry>, took_effect: bool, version: Version) -> Outcome<'_> {
    let found = entry.map(stored);
    let (value, large) = (found.map(|found| found.value), found.and_then(|found| found.large));
    Outcome::Previous { value, large, stored: took_effect, version }
}

/// The outcome of a change of the expiry of a key that is, or was, `entry`.
fn changed(return_value: bool, changed: bool, entry: Option<&Entry>) -> Outcome<'_> {
    if return_value {
        Outcome::Value(entry.map(stored))
    } else {
        Outcome::Changed(changed)
    }
}

/// Whether a key that expires at `current` may get the expiry `new`; never is later than any time.
fn allows_expiry(condition: ExpiryCondition, current: Option<i64>, new: Option<i64>) -> bool {
    let as_time = |expiry: Option<i64>| expiry.map_or(i128::MAX, i128::from);
    match condition {
        ExpiryCondition::Always => true,
        ExpiryCondition::IfNone => current.is_none(),
        ExpiryCondition::IfAny => current.is_some(),
        ExpiryCondition::IfLater => as_time(new) > as_time(current),
        ExpiryCondition::IfSooner => as_time(new) < as_time(current),
        ExpiryCondition::IfAnySooner => current.is_some() && as_time(new) < as_time(current),
    }
}
