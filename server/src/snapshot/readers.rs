//! Which files of snapshots are open for clients, on whatever core.
//!
//! Place in the flow: whoever reads a snapshot for a client holds a [`Reading`] of it from before the file is opened
//! until after it is closed. Whoever gives a snapshot up asks, when its name is gone, whether its file may be written
//! over: who begins to read later finds no such name.
//!
//! Deliberately not here: files, and how many may read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use eyot_raft_glue::{Index, ShardId};

type File = (ShardId, Index);

/// The files that are open, and how often: some for each client that saves, taken a few times for each of its shards.
#[derive(Debug, Clone, Default)]
pub struct Readers(Arc<Mutex<BTreeMap<File, usize>>>);

impl Readers {
    fn open(&self) -> MutexGuard<'_, BTreeMap<File, usize>> {
        self.0.lock().expect("no one panics while holding this lock, since a panic ends the process")
    }

    /// From now on, and until what is returned is dropped, this file is not written over.
    pub fn begin(&self, shard: ShardId, index: Index) -> Reading {
        *self.open().entry((shard, index)).or_default() += 1;
        Reading { readers: self.clone(), file: (shard, index) }
    }

    /// Whether somebody reads from it.
    pub fn read(&self, shard: ShardId, index: Index) -> bool {
        self.open().contains_key(&(shard, index))
    }
}

/// A file that is open, or about to be.
#[derive(Debug)]
pub struct Reading {
    readers: Readers,
    file: File,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut open = self.readers.open();
        let count = open.get_mut(&self.file).expect("who begins is counted until the end");
        *count -= 1;
        if *count == 0 {
            open.remove(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_until_the_last_reader_has_ended() {
        let (readers, shard) = (Readers::default(), ShardId(1));
        let elsewhere = readers.clone();
        let (first, second) = (readers.begin(shard, Index(7)), elsewhere.begin(shard, Index(7)));
        drop(first);
        assert!(readers.read(shard, Index(7)));
        assert!(!readers.read(shard, Index(8)) && !readers.read(ShardId(2), Index(7)));
        drop(second);
        assert!(!readers.read(shard, Index(7)));
    }
}
