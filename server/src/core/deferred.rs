//! Reads that wait for their memory: found in one pass, answered together a little later in the same turn.
//!
//! Place in the flow: step 5 (execute). A look-up waits for two cache lines, the table's and the entry's, and a turn
//! brings many of them, of one pipeline or of many connections. So a read asks for the first line when it is found;
//! when the turn's requests are all found, each asks for its second line; then they are answered. The waits overlap
//! instead of adding up.
//!
//! ```text
//! found      prefetch bucket A   prefetch bucket B   prefetch bucket C  ...
//! flushed    prefetch entry A    prefetch entry B    prefetch entry C   ...
//!            answer A            answer B            answer C           ...
//! ```
//!
//! Invariants:
//! - A read that has to see its connection's own unapplied writes is not deferred; every other one sees what is
//!   applied, which does not change before the reads are flushed: sealing an entry flushes first.
//! - At most [`DEFERRED_MAX`] wait, with their keys, and none across turns.

use eyot_protocol::request::KeyQuery;

use super::Work;
use crate::replication::Read;
use crate::router::ReplyTo;
use crate::shard::Place;

/// Reads that wait at most: as many as there are fetches that a processor keeps under way, a few times over. Twice as
/// many lines still fit the first-level cache.
const DEFERRED_MAX: usize = 64;
/// Bytes of keys that are kept at most: longer keys are read at once.
const KEY_BYTES_MAX: usize = 16 * 1024;

/// A read that was found.
#[derive(Debug, Clone, Copy)]
struct Deferred {
    to: ReplyTo,
    deadline_us: u64,
    place: Place,
    query: KeyQuery,
    local_shard: u16,
    key_end: u32,
}

/// The reads of a turn that wait.
#[derive(Debug, Default)]
pub(super) struct DeferredReads {
    reads: Vec<Deferred>,
    /// Their keys, one after the other.
    keys: Vec<u8>,
}

impl Work {
    /// Takes a read of a key of this core that has to see nothing but what is applied.
    #[inline]
    pub(super) fn defer(&mut self, to: &ReplyTo, local_shard: u16, read: &Read<'_>, deadline_us: u64) {
        if self.deferred.keys.len() + read.key.len() > KEY_BYTES_MAX {
            self.flush_reads();
            if read.key.len() > KEY_BYTES_MAX {
                self.read(to, local_shard, read, deadline_us);
                return;
            }
        }
        let Read { place, key, query, .. } = *read;
        self.shards[usize::from(local_shard)].shard().prefetch_bucket(place);
        self.deferred.keys.extend_from_slice(key);
        let key_end = self.deferred.keys.len() as u32;
        self.deferred.reads.push(Deferred { to: *to, deadline_us, place, query, local_shard, key_end });
        if self.deferred.reads.len() == DEFERRED_MAX {
            self.flush_reads();
        }
    }

    /// Answers every read that waits.
    #[inline]
    pub(super) fn flush_reads(&mut self) {
        if !self.deferred.reads.is_empty() {
            self.answer_deferred();
        }
    }

    fn answer_deferred(&mut self) {
        let mut deferred = std::mem::take(&mut self.deferred);
        // With one alone there is nothing to overlap.
        if deferred.reads.len() > 1 {
            for read in &deferred.reads {
                self.shards[usize::from(read.local_shard)].shard().prefetch(read.place);
            }
        }
        let mut start = 0;
        for Deferred { to, deadline_us, place, query, local_shard, key_end } in deferred.reads.drain(..) {
            let key = &deferred.keys[start..key_end as usize];
            start = key_end as usize;
            let read = Read { place, key, query, after_own_writes: false };
            self.read(&to, local_shard, &read, deadline_us);
        }
        deferred.keys.clear();
        self.deferred = deferred;
    }
}
