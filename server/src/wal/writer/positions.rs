//! Where the core's shards stand in the log, batch by batch as they are given out.
//!
//! Place in the flow: step 6, inside the writer: what a segment's first batch says of the log before it, and what is
//! kept in mind of a segment that is full.

use eyot_raft_glue::{Index, ShardId};

use super::super::format::{positions_bytes, positions_record, take_record, ShardPosition, POSITIONS_KIND};

/// The newest entries of the core's shards.
#[derive(Debug)]
pub(super) struct Positions {
    /// Of every shard, by shard.
    newest: Vec<ShardPosition>,
    /// Of the current segment alone, by the same places; index 0: none.
    in_segment: Vec<Index>,
}

impl Positions {
    /// # Panics
    /// When the shards are not in order.
    pub(super) fn new(newest: &[ShardPosition]) -> Self {
        assert!(newest.windows(2).all(|pair| pair[0].0 < pair[1].0), "shards out of order");
        Self { newest: newest.to_vec(), in_segment: vec![Index::default(); newest.len()] }
    }

    /// Bytes of [`Self::record`].
    pub(super) fn record_bytes(&self) -> usize {
        positions_bytes(self.newest.len())
    }

    /// The record that ends a segment's first batch, which is not noted yet.
    pub(super) fn record(&self) -> Vec<u8> {
        positions_record(&self.newest)
    }

    /// Notes the entries of a batch that is given out.
    ///
    /// # Panics
    /// When one is of a shard of another core.
    pub(super) fn note_entries(&mut self, mut records: &[u8]) {
        while !records.is_empty() {
            let record = take_record(&mut records).expect("a batch holds what was appended to it");
            if record.kind_number == POSITIONS_KIND {
                continue;
            }
            let place = self.newest.binary_search_by_key(&record.shard, |(shard, _)| *shard);
            let place = place.expect("an entry of a shard of this core");
            self.newest[place].1 = record.position;
            self.in_segment[place] = record.position.index;
        }
    }

    /// The segment is full: the newest entry in it of each shard that has any.
    pub(super) fn end_segment(&mut self) -> Box<[(ShardId, Index)]> {
        let in_segment = self.in_segment.iter_mut().map(std::mem::take);
        let shards = self.newest.iter().map(|(shard, _)| *shard);
        shards.zip(in_segment).filter(|(_, index)| *index > Index::default()).collect()
    }
}
