//! Which core owns a key, and how its requests get there and back.
//!
//! Place in the flow: step 4 (route). The key's slot names the shard, the placement names the core. This core's keys
//! are executed in place; the rest of a pipeline travels as one batch per core and turn ([`mesh`]); a BATCH is taken
//! apart and its results are put together again ([`scatter`]).

pub mod keyspace;
pub mod mesh;
pub mod questions;
pub mod reply_to;
pub mod scatter;

pub use reply_to::{is_part_referred_to, is_write, Asked, Form, LargeReply, Reply, ReplySink, ReplyTo};

use eyot_protocol::key::{shard_of_slot, slot, slots_of_shard};
use eyot_raft_glue::ShardId;

use crate::wal::placement;

/// Where a key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Its slot.
    pub slot: u16,
    /// The core that owns it.
    pub core: u16,
    /// The place of its shard among that core's.
    pub local_shard: u16,
}

/// The map from slots to cores; the same on every core for the life of the process.
#[derive(Debug, Clone)]
pub struct Routes {
    /// For each shard: core, and place among the core's shards. A few lines of memory, which every request finds in the
    /// first-level cache; a table of all slots would be 64 KiB, and push other things out of it.
    shards: Box<[(u16, u16)]>,
    shard_cores: Vec<u16>,
}

impl Routes {
    /// The map for `shard_count` shards on `core_count` cores.
    pub fn new(shard_count: u16, core_count: u16) -> Self {
        let shard_cores: Vec<u16> =
            (0..shard_count).map(|shard| placement(ShardId(shard), shard_count, core_count)).collect();
        let first_of_core =
            |core: u16| shard_cores.iter().position(|&other| other == core).expect("a core of the map") as u16;
        let shards = (0..shard_count)
            .map(|shard| {
                let core = shard_cores[usize::from(shard)];
                (core, shard - first_of_core(core))
            })
            .collect();
        Self { shards, shard_cores }
    }

    /// Where `key` lives.
    #[inline]
    pub fn route(&self, key: &[u8]) -> Route {
        self.of_slot(slot(key))
    }

    /// Where the keys of `slot` live.
    #[inline]
    pub fn of_slot(&self, slot: u16) -> Route {
        let (core, local_shard) = self.shards[usize::from(shard_of_slot(slot, self.shards.len() as u16))];
        Route { slot, core, local_shard }
    }

    /// For each shard, its core.
    pub fn shard_cores(&self) -> &[u16] {
        &self.shard_cores
    }

    /// Where each shard is, by its first slot, in their order.
    pub fn shards(&self) -> impl Iterator<Item = Route> + '_ {
        let count = self.shard_cores.len() as u16;
        (0..count).map(move |shard| self.of_slot(slots_of_shard(shard, count).start))
    }

    /// The shards of `core`, ascending; its local numbers are the places in this list.
    pub fn shards_of_core(&self, core: u16) -> impl Iterator<Item = ShardId> + '_ {
        self.shard_cores
            .iter()
            .enumerate()
            .filter(move |(_, &owner)| owner == core)
            .map(|(shard, _)| ShardId(shard as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_home_and_local_numbers_are_dense() {
        for (shards, cores) in [(1, 1), (8, 2), (4, 3), (5, 8), (64, 7)] {
            let routes = Routes::new(shards, cores);
            for number in 0..2000_u32 {
                let key = format!("key:{number}");
                let route = routes.route(key.as_bytes());
                let shard = shard_of_slot(route.slot, shards);
                let owned: Vec<_> = routes.shards_of_core(route.core).collect();
                assert_eq!(owned[usize::from(route.local_shard)], ShardId(shard));
            }
        }
    }
}
