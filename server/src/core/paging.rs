//! Reads that need pages of a large value which are not in memory: they wait for a worker of the kernel's, not the
//! core.
//!
//! Place in the flow: step 5 (execute). A plain GET needs no page: its reply refers to the value, and the send is a
//! worker's where pages are missing; so does a long part of a value. A short part, or a value in a gathered reply, is
//! copied by the core; so its pages are asked for first, and if one is missing the read is kept until the ring has
//! brought them.
//!
//! Invariants:
//! - A read is kept at most once: after its pages came it is answered, whatever the system has done with them since.
//! - At most [`KEPT_READS_MAX`] are kept; a further one is answered BUSY.
//!
//! Deliberately not here: commands that change a part of a large value. They read it when they are applied, and an
//! entry that is applied waits for nothing; after them the value is an ordinary one on the heap.

use eyot_protocol::request::KeyQuery;
use eyot_protocol::ErrorCode;
use eyot_ring::{MappedBytes, Ring};
use slab::Slab;

use super::Work;
use crate::replication::Read;
use crate::router::{is_part_referred_to, Reply, ReplySink, ReplyTo};
use crate::shard::Place;

/// Reads that are kept on a core: each has a few pages on their way from the disk.
pub const KEPT_READS_MAX: usize = 1024;
/// Tells the pages of a read from those of an upload, whose number has this bit only after two thousand million starts.
const READ_TOKEN: u64 = 1 << 63;
/// Names the pages of the log's next write. No read has it: so many are never kept.
pub(super) const LOG_TOKEN: u64 = u64::MAX;

/// A read that waits for pages.
#[derive(Debug)]
struct KeptRead {
    to: ReplyTo,
    local_shard: u16,
    place: Place,
    key: Box<[u8]>,
    query: KeyQuery,
    after_own_writes: bool,
    deadline_us: u64,
}

/// The reads of one core that wait for pages, and what the ring is to bring.
#[derive(Debug, Default)]
pub(super) struct Paging {
    kept: Slab<KeptRead>,
    page_ins: Vec<(u64, MappedBytes, std::ops::Range<usize>)>,
}

impl Paging {
    /// Has the ring bring `range` of `value`; `token` comes back with it.
    pub fn bring(&mut self, token: u64, value: MappedBytes, range: std::ops::Range<usize>) {
        self.page_ins.push((token, value, range));
    }
}

impl Work {
    /// Keeps `read` if it needs pages that are not in memory; returns whether it did.
    pub(super) fn waits_for_pages(
        &mut self,
        to: &ReplyTo,
        local_shard: u16,
        read: &Read<'_>,
        deadline_us: u64,
    ) -> bool {
        let copies = matches!(read.query, KeyQuery::Range { .. }) || (to.gathered && read.query == KeyQuery::Value);
        if !copies {
            return false;
        }
        let shard = self.shards[usize::from(local_shard)].shard();
        let Some((value, range)) = shard.large_part(read.place, read.key, read.query) else { return false };
        let touched = !matches!(read.query, KeyQuery::Range { .. }) || !is_part_referred_to(to, range.len());
        if range.is_empty() || !touched || value.is_resident(range.clone()) {
            return false;
        }
        if self.paging.kept.len() >= KEPT_READS_MAX {
            let message = "too many reads of large values wait for the disk; retry with backoff";
            self.outlet().reply(to, Reply::Error(ErrorCode::Busy, message));
            return true;
        }
        let Read { place, key, query, after_own_writes } = *read;
        let kept = KeptRead { to: *to, local_shard, place, key: Box::from(key), query, after_own_writes, deadline_us };
        let token = self.paging.kept.insert(kept) as u64 | READ_TOKEN;
        self.paging.bring(token, value, range);
        true
    }

    /// Whether no read waits for pages.
    pub(super) fn has_no_kept_reads(&self) -> bool {
        self.paging.kept.is_empty()
    }

    /// Hands to the ring what is to be brought.
    pub(super) fn page_in(&mut self, ring: &mut Ring) {
        for (token, value, range) in self.paging.page_ins.drain(..) {
            ring.page_in(token, value, range);
        }
    }

    /// Pages are in memory, or cannot be read.
    pub(super) fn paged_in(&mut self, token: u64, result: std::io::Result<()>) {
        if token == LOG_TOKEN {
            self.log.paged_in();
            return;
        }
        if token & READ_TOKEN == 0 {
            // Where the disk is broken, the process ends when it touches them: what was acknowledged is in the log.
            self.upload_paged_in(token);
            return;
        }
        let kept = self.paging.kept.remove((token & !READ_TOKEN) as usize);
        let KeptRead { to, local_shard, place, key, query, after_own_writes, deadline_us } = kept;
        if let Err(error) = result {
            tracing::error!(%error, "pages of a large value cannot be read");
            let message = "the value cannot be read from the disk; the server's own log says why";
            self.outlet().reply(&to, Reply::Error(ErrorCode::Busy, message));
            return;
        }
        if !self.is_late(&to, deadline_us) {
            self.read_now(&to, local_shard, &Read { place, key: &key, query, after_own_writes });
        }
    }
}
