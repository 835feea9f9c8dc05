//! Requests on all keys: how many there are, one by chance, all in turn, those that match.
//!
//! Place in the flow: step 5 (execute), on every core that holds some of the keys. The core that holds the connection
//! asks each (or, for SCAN, the one that the cursor names) and puts the parts together.
//!
//! Invariant: no core is held by any of them for longer than about a millisecond: what goes through keys does so in the
//! slices of `walks`.

use eyot_protocol::resp::{RespVersion, Writer};

use super::walks::FOUND_BYTES_PER_SLICE;
use super::Work;
use crate::router::keyspace::KeyspaceRequest;
use crate::router::{Form, Reply, ReplySink, ReplyTo};

/// The first byte of a part that is not an error line, which begins with `-`.
pub(super) const PART_TAG: u8 = b'=';

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
            KeyspaceRequest::Walk(request) => self.begin_walk(to, request),
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
            // Long keys are fewer than were asked for, as those beyond the longest walk are.
            if found.len() < FOUND_BYTES_PER_SLICE {
                count += 1;
                Writer { out: &mut found, version: RespVersion::Two }.bulk(key);
            }
        });
        let mut reply = Vec::with_capacity(found.len() + 16);
        Writer { out: &mut reply, version: RespVersion::Two }.array(count);
        reply.extend_from_slice(&found);
        self.outlet().reply_bytes(to, &reply, false);
    }
}

/// The version that a client speaks; for parts of a reply, whose form says the same.
pub(super) fn version_of(form: Form) -> RespVersion {
    match form {
        Form::Resp(version) | Form::RespFlag(version) => version,
        Form::Native | Form::Silent => RespVersion::Two,
    }
}
