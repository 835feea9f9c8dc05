//! The entries of one slot in the order of their keys, for a walk that must not stop for long.
//!
//! Place in the flow: `walk` gathers a slot's entries here, in any order, and gets them out sorted.
//!
//! A slot has some hundred keys, or, under one hash tag, millions. So they are sorted in runs of [`RUN_ENTRIES`], one
//! at a time, and the runs are merged while they are read, by a heap of their heads (Knuth, The Art of Computer
//! Programming, volume 3, section 5.4.1). Nearly every comparison is one of two numbers: the eight bytes of each key
//! that follow what all keys of the run, or of the slot, begin with.
//!
//! Invariants:
//! - A block that was pushed stays alive and unchanged until [`Runs::clear`]: so whoever pushes promises.
//! - What is asked of the allocator is 8 bytes an entry and some more for each run.
//!
//! Deliberately not here: which entries, and who owns them.

#![allow(unsafe_code)]

use std::cmp::Ordering;
use std::collections::binary_heap::PeekMut;
use std::collections::BinaryHeap;

use crate::shard::entry::BlockRef;

/// Entries that are sorted at once: more than a slot of ordinary size has, and few enough that sorting them takes some
/// ten microseconds.
pub(super) const RUN_ENTRIES: usize = 1024;

/// How many entries ahead of its use an entry of the only run is fetched. Of several, one is enough: an entry of each
/// other run may come in between.
const AHEAD: usize = 6;
const AHEAD_MERGED: usize = 1;

/// See the module.
#[derive(Default)]
pub(super) struct Runs {
    /// What is gathered and not sorted yet, at most a run.
    open: Vec<BlockRef>,
    sealed: Vec<Run>,
    /// How many of `sealed` have their head in the heap.
    headed: usize,
    heads: BinaryHeap<Head>,
    /// The first entry, and how many bytes of its key all keys begin with.
    begins: Option<(BlockRef, usize)>,
    /// Memory for sorting, kept from run to run.
    keyed: Vec<(u64, BlockRef)>,
}

/// Sorted entries, one at least.
struct Run {
    entries: Vec<BlockRef>,
    /// The first that was not given out.
    next: usize,
}

/// The first entry of a run that was not given out, in the heap.
struct Head {
    word: u64,
    block: BlockRef,
    run: u32,
}

impl Runs {
    /// Takes an entry in.
    ///
    /// # Safety
    /// The block must stay alive and unchanged until [`Runs::clear`].
    pub unsafe fn push(&mut self, block: BlockRef) {
        if self.open.is_empty() {
            self.open.reserve(RUN_ENTRIES);
        }
        self.open.push(block);
    }

    /// Whether [`Runs::seal`] should come before the next entry.
    pub fn is_full(&self) -> bool {
        self.open.len() >= RUN_ENTRIES
    }

    /// Sorts what was gathered since the last time; returns how many entries that were.
    pub fn seal(&mut self) -> usize {
        let count = self.open.len();
        let Some(&first) = self.open.first() else { return 0 };
        let of_run = self.open.iter().fold(key(&first).len(), |length, block| common(key(&first), key(block), length));
        let (of_slot, length) = self.begins.unwrap_or((first, of_run));
        self.begins = Some((of_slot, common(key(&of_slot), key(&first), length.min(of_run))));
        self.keyed.clear();
        self.keyed.extend(self.open.iter().map(|block| (word_behind(key(block), of_run), *block)));
        self.keyed.sort_unstable_by(|(word, block), (other_word, other)| {
            word.cmp(other_word).then_with(|| key(block).cmp(key(other)))
        });
        for (place, (_, block)) in self.open.iter_mut().zip(&self.keyed) {
            *place = *block;
        }
        self.sealed.push(Run { entries: std::mem::take(&mut self.open), next: 0 });
        count
    }

    /// Prepares one more run for being merged; whether that is done. All entries must be sealed.
    pub fn prepare(&mut self) -> bool {
        debug_assert!(self.open.is_empty(), "not sealed");
        if self.sealed.len() > 1 && self.headed < self.sealed.len() {
            let (run, block) = (self.headed as u32, self.sealed[self.headed].entries[0]);
            self.heads.push(Head { word: self.word(block), block, run });
            self.headed += 1;
        }
        self.sealed.len() <= 1 || self.headed == self.sealed.len()
    }

    /// Whether there are several runs.
    pub fn are_merged(&self) -> bool {
        self.sealed.len() > 1
    }

    /// By what a key is compared with others of the slot first.
    fn word(&self, block: BlockRef) -> u64 {
        word_behind(key(&block), self.begins.map_or(0, |(_, length)| length))
    }

    /// The next entry in the order of keys; `None` behind the last. All must be prepared.
    #[inline]
    pub fn next(&mut self) -> Option<BlockRef> {
        if let [run] = &mut self.sealed[..] {
            return run.take(AHEAD);
        }
        let mut top = self.heads.peek_mut()?;
        let (block, number) = (top.block, top.run);
        let run = &mut self.sealed[number as usize];
        run.take(AHEAD_MERGED + 1);
        let begins = self.begins.map_or(0, |(_, length)| length);
        if let Some(&block) = run.entries.get(run.next) {
            *top = Head { word: word_behind(key(&block), begins), block, run: number };
        } else {
            run.entries = Vec::new();
            PeekMut::pop(top);
        }
        Some(block)
    }

    /// Forgets all entries, and keeps no more memory than one run takes; frees one run at a time, so whether it is
    /// done.
    pub fn clear(&mut self) -> bool {
        self.heads.clear();
        self.heads.shrink_to(RUN_ENTRIES);
        self.open.clear();
        self.begins = None;
        self.headed = 0;
        self.sealed.pop();
        if self.sealed.is_empty() {
            self.sealed.shrink_to(RUN_ENTRIES);
        }
        self.sealed.is_empty()
    }

    /// Bytes that were asked of the allocator.
    pub fn memory_bytes(&self) -> usize {
        // A run has room for `RUN_ENTRIES`, or none when it was given out whole.
        self.open.capacity() * size_of::<BlockRef>()
            + self.keyed.capacity() * size_of::<(u64, BlockRef)>()
            + self.heads.capacity() * size_of::<Head>()
            + self.sealed.capacity() * size_of::<Run>()
            + self.sealed.len() * RUN_ENTRIES * size_of::<BlockRef>()
    }
}

impl Run {
    /// Gives the first entry out, and has the one that is so many behind it fetched.
    fn take(&mut self, ahead: usize) -> Option<BlockRef> {
        if let Some(ahead) = self.entries.get(self.next + ahead) {
            ahead.prefetch();
        }
        let block = self.entries.get(self.next).copied();
        self.next += usize::from(block.is_some());
        block
    }
}

/// The key of a block that was pushed.
fn key(block: &BlockRef) -> &[u8] {
    // SAFETY: whoever pushed it promised that it is alive and unchanged, and `clear` forgets it.
    unsafe { block.entry() }.key()
}

/// How many of the first `length` bytes of `one`, which it must have, `other` has in common with it.
fn common(one: &[u8], other: &[u8], length: usize) -> usize {
    if other.get(..length) == Some(&one[..length]) {
        return length;
    }
    one[..length].iter().zip(other).take_while(|(byte, same)| byte == same).count()
}

/// The eight bytes behind the first `skipped`, which the key must have, as a number that sorts like them. Keys that end
/// before count as if zeroes followed, so that equal numbers say nothing of longer keys.
fn word_behind(key: &[u8], skipped: usize) -> u64 {
    let rest = &key[skipped..];
    rest.first_chunk().map_or_else(
        || rest.iter().enumerate().fold(0, |word, (at, &byte)| word | u64::from(byte) << (56 - 8 * at)),
        |bytes| u64::from_be_bytes(*bytes),
    )
}

impl Ord for Head {
    /// The least key is the greatest head, as a heap gives the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.word.cmp(&self.word).then_with(|| key(&other.block).cmp(key(&self.block)))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use eyot_raft_glue::Version;
    use proptest::prelude::*;

    use super::*;
    use crate::shard::entry::OwnedEntry;

    /// Keys that share beginnings, end within others, and contain zeroes.
    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![4 => Just(0_u8), 4 => Just(b'a'), 1 => any::<u8>()];
        let key = (prop_oneof![Just(""), Just("tag"), Just("taglonger")], proptest::collection::vec(byte, 0..20));
        let key = key.prop_map(|(begin, end)| [begin.as_bytes(), &end].concat());
        proptest::collection::btree_set(key, 0..200)
            .prop_map(BTreeSet::into_iter)
            .prop_map(Vec::from_iter)
            .prop_shuffle()
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_sorted_whatever_the_runs(keys in keys(), run_entries in 1..50_usize) {
            let entries: Vec<_> = keys.iter().map(|key| OwnedEntry::new(0, key, b"", Version(1), None)).collect();
            let mut runs = Runs::default();
            for _ in 0..2 {
                for chunk in entries.chunks(run_entries) {
                    // SAFETY: the entries outlive the runs.
                    chunk.iter().for_each(|entry| unsafe { runs.push(BlockRef::of(entry)) });
                    prop_assert_eq!(runs.seal(), chunk.len());
                }
                while !runs.prepare() {}
                let sorted = std::iter::from_fn(|| runs.next()).map(|block| key(&block).to_vec());
                let sorted: Vec<_> = sorted.collect();
                let expected: Vec<Vec<u8>> = keys.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
                prop_assert_eq!(sorted, expected);
                while !runs.clear() {}
            }
        }
    }

    #[test]
    fn a_number_sorts_like_the_bytes_that_it_stands_for() {
        let words = [&b""[..], b"\0", b"\0\x01", b"a", b"aaaaaaa", b"aaaaaaaa", b"b"].map(|key| word_behind(key, 0));
        assert!(words.is_sorted());
        assert_eq!(word_behind(b"skipped12345678rest", 7), u64::from_be_bytes(*b"12345678"));
        assert_eq!(word_behind(b"skipped", 7), 0);
    }
}
