//! Committed entries are applied, and who waited is answered.
//!
//! Place in the flow: steps 7 to 9 of one shard.
//!
//! Invariants:
//! - Entries are applied in order, each once, and answered as they are.
//! - Writes of one pipeline that were stored, one behind the other, are answered together: the replies are the same
//!   bytes, and most of their cost is finding out whose they are.

use eyot_protocol::command::{Command, Value};
use eyot_raft_glue::{Index, ShardLog, Version};

use super::{
    answer_read, is_heavy, pending_bytes, reply_of, Asked, Outcome, PendingEntry, Read, ReplySink, ReplyTo,
    ShardDriver, Waiter, WaitingRead, SPARE_PAYLOADS_MAX, SPARE_PAYLOAD_BYTES_MAX,
};

impl ShardDriver {
    /// Entries up to `index` are on disk: applies what is committed by that, and answers who waited.
    pub fn persisted(&mut self, index: Index, now_us: i64, replies: &mut impl ReplySink) {
        self.put_off(index);
        while self.apply_next(now_us, replies) {}
    }

    /// As [`ShardDriver::persisted`], but leaves the applying to [`ShardDriver::apply_next`].
    pub fn put_off(&mut self, index: Index) {
        self.log.persisted(index);
    }

    /// Applies the next entry that is committed and answers who waited; `false`: there is none.
    pub fn apply_next(&mut self, now_us: i64, replies: &mut impl ReplySink) -> bool {
        let committed = self.log.committed();
        if self.pending.front().is_none_or(|entry| entry.index > committed) {
            return false;
        }
        let entry = self.pending.pop_front().expect("just seen");
        self.apply(entry, replies);
        // Between two entries: a read sees the writes before it and none of those after it.
        self.answer_waiting_reads(now_us, replies);
        true
    }

    fn apply(&mut self, mut entry: PendingEntry, replies: &mut impl ReplySink) {
        if entry.payload.is_empty() {
            self.log.applied(entry.index);
            return;
        }
        let (waiters, memory, open_uploads) = (&entry.waiters, &mut self.memory, &mut self.open_uploads);
        self.pending_bytes -= pending_bytes(&entry.payload, &entry.places, waiters);
        self.returned_bytes -= entry.returned_bytes;
        // Writes of one pipeline that were stored, one behind the other: answered together.
        let mut stored = 0..0;
        self.shard.apply_formed(entry.index, &entry.payload, &mut entry.places, |place, command, outcome| {
            let place = usize::from(place);
            if let Command::Set { value: Value::Upload(upload), .. } = command {
                open_uploads.ended(*upload, entry.index);
            }
            if let Outcome::Expired(removed) = outcome {
                memory.removed(Version::new(entry.index, place as u16), removed);
            }
            let Some(reply_to) = &waiters[place].reply_to else { return };
            if is_heavy(command, &outcome) {
                replies.reply_to_heavy(reply_to, reply_of(outcome), Asked::Write(command));
            } else if reply_to.is_plain() && matches!(outcome, Outcome::Stored { .. }) {
                if !follows(&waiters[stored.clone()], place - stored.start, reply_to) {
                    answer_stored(&waiters[stored.clone()], replies);
                    stored.start = place;
                }
                stored.end = place + 1;
            } else {
                replies.reply(reply_to, reply_of(outcome));
            }
        });
        answer_stored(&waiters[stored], replies);
        self.log.applied(entry.index);
        self.memory.applied(entry.index);
        for waiter in entry.waiters.drain(..) {
            self.unapplied.remove(waiter.buckets);
        }
        if self.open_waiters.capacity() == 0 {
            (self.open_places, self.open_waiters) = (entry.places, entry.waiters);
        }
        if self.spare_payloads.len() < SPARE_PAYLOADS_MAX && entry.payload.capacity() <= SPARE_PAYLOAD_BYTES_MAX {
            self.spare_payloads.push(entry.payload);
        }
    }

    fn answer_waiting_reads(&mut self, now_us: i64, replies: &mut impl ReplySink) {
        let applied = self.log.last_applied();
        while self.waiting_reads.front().is_some_and(|waiting| waiting.until <= applied) {
            let WaitingRead { query, place, key, reply_to, .. } = self.waiting_reads.pop_front().expect("just seen");
            self.waiting_read_bytes -= key.len();
            let read = Read { place, key: &key, query, after_own_writes: false };
            answer_read(&self.shard, &read, now_us, &reply_to, replies);
        }
    }
}

/// Whether the request of `reply_to`, so many waiters behind the first of `run`, can be answered with them.
#[inline]
fn follows(run: &[Waiter], distance: usize, reply_to: &ReplyTo) -> bool {
    let first = run.first().and_then(|waiter| waiter.reply_to.as_ref());
    run.len() == distance && first.is_some_and(|first| reply_to.is_alike(first))
}

/// Answers those who wait for writes that were stored.
#[inline]
fn answer_stored(run: &[Waiter], replies: &mut impl ReplySink) {
    if !run.is_empty() {
        replies.stored(&mut run.iter().map(|waiter| waiter.reply_to.as_ref().expect("a run of those who wait")));
    }
}
