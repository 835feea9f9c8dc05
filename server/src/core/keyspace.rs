//! Requests on all keys: how many there are, one by chance, all in turn, those that match.
//!
//! Place in the flow: step 5 (execute), on every core that holds some of the keys. The core that holds the connection
//! asks each (or, for SCAN, the one that the cursor names) and puts the parts together.
//!
//! Invariant: no core is held by any of them for longer than about a millisecond: SCAN looks at [`SCAN_KEYS_MAX`] keys
//! at most, and KEYS at [`SCAN_KEYS_MAX`] a turn, with the core's other work between.

use eyot_protocol::key::SLOT_COUNT;
use eyot_protocol::resp::glob::matches;
use eyot_protocol::resp::{RespVersion, Writer};
use eyot_protocol::ErrorCode;

use super::Work;
use crate::router::keyspace::{KeyspaceRequest, OwnedScan};
use crate::router::{Form, Reply, ReplySink, ReplyTo};
use crate::shard::{ScanCursor, SCAN_KEYS_MAX};

/// The first byte of a part that is not an error line, which begins with `-`.
pub(super) const PART_TAG: u8 = b'=';

/// Walks that a core has under way; beyond it `BUSY`.
pub const MAX_WALKS: usize = 64;

/// A KEYS under way on this core.
#[derive(Debug)]
pub(super) struct Walk {
    to: ReplyTo,
    pattern: Box<[u8]>,
    /// The shard that is walked, among this core's, and how far.
    local_shard: usize,
    cursor: ScanCursor,
    /// How many keys matched.
    count: u32,
    /// The part: `= | count u32 | RESP bulk strings`.
    found: Vec<u8>,
}

impl Work {
    /// Executes a request on the keys of this core.
    pub(super) fn keyspace(&mut self, to: &ReplyTo, request: &KeyspaceRequest) {
        match request {
            KeyspaceRequest::Count => {
                let keys: usize = self.shards.iter().map(|driver| driver.shard().key_count()).sum();
                self.outlet().reply(to, Reply::Integer(keys as i64));
            }
            KeyspaceRequest::CountInSlot(slot) => {
                let shard = usize::from(self.shared.routes.of_slot(*slot).local_shard);
                let keys = self.shards[shard].shard().keys_in_slot(*slot);
                self.outlet().reply(to, Reply::Integer(keys as i64));
            }
            KeyspaceRequest::KeysInSlot(slot, count) => self.keys_in_slot(to, *slot, *count),
            KeyspaceRequest::RandomKey(at) => self.random_key(to, *at),
            KeyspaceRequest::Scan { cursor, request } => self.scan(to, *cursor, request),
            KeyspaceRequest::Walk { pattern } => self.begin_walk(to, pattern),
        }
    }

    /// A key by chance with the number of keys, from which the asking core chooses: `= | count u64 | 0 or 1 | key`.
    fn random_key(&mut self, to: &ReplyTo, at: u64) {
        let now_us = self.clock.wall_us();
        let keys: usize = self.shards.iter().map(|driver| driver.shard().key_count()).sum();
        let mut found = vec![PART_TAG];
        found.extend_from_slice(&(keys as u64).to_le_bytes());
        // A shard by its share of the keys; where that has none that live, the next one.
        let mut rest = if keys == 0 { 0 } else { (at % keys as u64) as usize };
        let mut first = 0;
        for (place, driver) in self.shards.iter().enumerate() {
            if rest < driver.shard().key_count() {
                first = place;
                break;
            }
            rest -= driver.shard().key_count();
        }
        let count = self.shards.len();
        let key = (0..count).find_map(|step| self.shards[(first + step) % count].shard().random_key(at, now_us));
        found.push(u8::from(key.is_some()));
        found.extend_from_slice(key.unwrap_or_default());
        self.outlet().reply_bytes(to, &found, false);
    }

    fn keys_in_slot(&mut self, to: &ReplyTo, slot: u16, wanted: usize) {
        let now_us = self.clock.wall_us();
        let shard = self.shards[usize::from(self.shared.routes.of_slot(slot).local_shard)].shard();
        let (mut count, mut found) = (0, Vec::new());
        shard.keys_of_slot(slot, wanted, now_us, |key| {
            count += 1;
            Writer { out: &mut found, version: RespVersion::Two }.bulk(key);
        });
        let mut reply = Vec::with_capacity(found.len() + 16);
        Writer { out: &mut reply, version: RespVersion::Two }.array(count);
        reply.extend_from_slice(&found);
        self.outlet().reply_bytes(to, &reply, false);
    }

    /// One call of SCAN, from `cursor` on, whose slot this core owns.
    fn scan(&mut self, to: &ReplyTo, cursor: ScanCursor, request: &OwnedScan) {
        let now_us = self.clock.wall_us();
        let mut budget = request.count.clamp(1, SCAN_KEYS_MAX);
        let (mut count, mut found) = (0_usize, Vec::new());
        let mut next = Some(cursor);
        while let (Some(cursor), true) = (next, budget > 0) {
            let route = self.shared.routes.of_slot(cursor.slot() as u16);
            if route.core != self.core {
                break;
            }
            let shard = self.shards[usize::from(route.local_shard)].shard();
            let scanned = shard.scan(cursor, budget, now_us, |key, stored| {
                if request.wants(key, stored.value) {
                    count += 1;
                    Writer { out: &mut found, version: RespVersion::Two }.bulk(key);
                }
            });
            // Keys that have expired are work, too, and there may be millions of them.
            budget = budget.saturating_sub(scanned.looked_at.max(1));
            next = scanned.next.or_else(|| {
                let end = usize::from(shard.slots().end);
                (end < SLOT_COUNT).then(|| ScanCursor::of_slot(end as u16))
            });
        }
        let mut reply = Vec::with_capacity(found.len() + 32);
        let version = version_of(to.form);
        let mut writer = Writer { out: &mut reply, version };
        writer.array(2);
        writer.bulk_text(&next.map_or(0, |cursor| cursor.0).to_string());
        writer.array(count);
        reply.extend_from_slice(&found);
        self.outlet().reply_bytes(to, &reply, false);
    }

    fn begin_walk(&mut self, to: &ReplyTo, pattern: &[u8]) {
        if self.walks.len() >= MAX_WALKS {
            let message = "too many KEYS under way; use SCAN, or retry with backoff";
            self.outlet().reply(to, Reply::Error(ErrorCode::Busy, message));
            return;
        }
        let cursor = ScanCursor::of_slot(self.shards[0].shard().slots().start);
        let (count, found) = (0, vec![PART_TAG, 0, 0, 0, 0]);
        self.walks.push_back(Walk { to: *to, pattern: Box::from(pattern), local_shard: 0, cursor, count, found });
    }

    /// Takes the walks a few keys further.
    pub(super) fn walk(&mut self) {
        let Some(mut walk) = self.walks.pop_front() else { return };
        let now_us = self.clock.wall_us();
        let Walk { pattern, count, found, local_shard, cursor, .. } = &mut walk;
        let shard = self.shards[*local_shard].shard();
        let scanned = shard.scan(*cursor, SCAN_KEYS_MAX, now_us, |key, _| {
            if matches(pattern, key) {
                *count += 1;
                Writer { out: found, version: RespVersion::Two }.bulk(key);
            }
        });
        if walk.found.len() > self.max_frame_bytes {
            let message = "more keys match than one reply holds; use SCAN";
            self.outlet().reply(&walk.to, Reply::Error(ErrorCode::BatchTooLarge, message));
            return;
        }
        match scanned.next {
            Some(cursor) => walk.cursor = cursor,
            None if walk.local_shard + 1 < self.shards.len() => {
                walk.local_shard += 1;
                walk.cursor = ScanCursor::of_slot(self.shards[walk.local_shard].shard().slots().start);
            }
            None => {
                walk.found[1..5].copy_from_slice(&walk.count.to_le_bytes());
                self.outlet().reply_bytes(&walk.to, &walk.found, false);
                return;
            }
        }
        self.walks.push_back(walk);
    }
}

/// The version that a client speaks; for parts of a reply, whose form says the same.
fn version_of(form: Form) -> RespVersion {
    match form {
        Form::Resp(version) | Form::RespFlag(version) => version,
        Form::Native | Form::Silent => RespVersion::Two,
    }
}
