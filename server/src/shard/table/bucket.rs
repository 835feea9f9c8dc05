//! One cache line of a table: up to eight entries, each a word that is its tag and its address at once.
//!
//! Place in the flow: the one line that a look-up of step 5 (execute) reads before the entry itself.
//!
//! ```text
//! bucket   8 words of 64 bits, aligned to a cache line
//! word     bits 63..48: tag | bits 47..3: address of the entry's block, 0 in a free word | bits 2..0: marks
//! ```
//!
//! Sixteen bits of tag are enough for two jobs: they tell keys apart (a wrong candidate is seen once in some hundred
//! look-ups), and they are the entry's position in its segment, so that a segment is rebuilt without touching entries.
//! Eight entries fill the line; with tags in bytes of their own there would be room for seven.
//!
//! Invariants:
//! - A word whose address is not 0 owns the entry's block.
//! - The mark [`PASSED`] stands in the first word only, whether that is free or not. It is set when an entry that
//!   belongs here or before had to go further. It may be set without need, and is never missing.
//!
//! Deliberately not here: what a tag means.

#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use crate::shard::entry::{Entry, OwnedEntry, ADDRESS_BITS};

/// Entries in a bucket.
pub(super) const BUCKET_WORDS: usize = 8;

/// The mark of the first word: look-ups must go on to the next bucket.
const PASSED: usize = 2;

const TAG_SHIFT: u32 = 48;

/// An entry's address and tag, or nothing.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Word(*mut u8);

impl Word {
    const FREE: Self = Self(ptr::null_mut());

    /// The word of an entry with a tag.
    pub fn new(entry: OwnedEntry, tag: u16) -> Self {
        Self(entry.into_word().as_ptr()).with_tag(tag)
    }

    /// The same entry with another tag, and no marks.
    #[inline]
    pub fn with_tag(self, tag: u16) -> Self {
        Self(self.0.map_addr(|word| word & ADDRESS_BITS | usize::from(tag) << TAG_SHIFT))
    }

    #[inline]
    pub fn is_free(self) -> bool {
        self.0.addr() & ADDRESS_BITS == 0
    }

    #[inline]
    pub fn tag(self) -> u16 {
        (self.0.addr() >> TAG_SHIFT) as u16
    }

    /// The entry, while the word is looked at; `None` for a free word.
    #[inline]
    pub fn entry(&self) -> Option<&Entry> {
        // SAFETY: both are one pointer, transparently; the address is not null, and the word owns a living block.
        (!self.is_free()).then(|| unsafe { &*ptr::from_ref(self).cast::<Entry>() })
    }

    /// Gives the entry out.
    ///
    /// # Safety
    /// The word must own its entry, and whoever calls must see to it that no copy of the word is used as an owner
    /// again.
    unsafe fn into_entry(self) -> Option<OwnedEntry> {
        let address = self.0.map_addr(|word| word & ADDRESS_BITS);
        // SAFETY: such words are made of owned entries only, and this one ceases to be one, as the caller promises.
        NonNull::new(address).map(|word| unsafe { OwnedEntry::from_word(word) })
    }
}

/// A cache line of words.
#[repr(C, align(64))]
pub(super) struct Bucket {
    words: [Word; BUCKET_WORDS],
}

// A line, and zeroed memory is an empty bucket.
const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);

impl Bucket {
    /// The words, free ones among them.
    #[inline]
    pub fn words(&self) -> &[Word; BUCKET_WORDS] {
        &self.words
    }

    /// The entry of a word that is not free, to change it.
    #[inline]
    pub fn entry_mut(&mut self, index: usize) -> &mut Entry {
        let word = &mut self.words[index];
        assert!(!word.is_free());
        // SAFETY: as `Word::entry`, and the word is borrowed for writing; an entry changes the word's address only to
        // that of another block that it owns.
        unsafe { &mut *ptr::from_mut(word).cast::<Entry>() }
    }

    /// Whether an entry of this bucket or of one before may lie further on.
    #[inline]
    pub fn is_passed(&self) -> bool {
        self.words[0].0.addr() & PASSED != 0
    }

    /// Says that.
    #[inline]
    pub fn set_passed(&mut self, passed: bool) {
        let mark = if passed { PASSED } else { 0 };
        self.words[0].0 = self.words[0].0.map_addr(|word| word & !PASSED | mark);
    }

    /// A free word, if there is one.
    #[inline]
    pub fn free_word(&self) -> Option<usize> {
        self.words.iter().position(|word| word.is_free())
    }

    /// Puts `word` into a free place.
    #[inline]
    pub fn put(&mut self, index: usize, word: Word) {
        let place = &mut self.words[index];
        debug_assert!(place.is_free() && !word.is_free());
        let mark = place.0.addr() & PASSED;
        place.0 = word.0.map_addr(|bits| bits & !PASSED | mark);
    }

    /// Takes a word out, which owns its entry from now on.
    #[inline]
    pub fn take(&mut self, index: usize) -> Word {
        let passed = index == 0 && self.is_passed();
        let word = std::mem::replace(&mut self.words[index], Word::FREE);
        if passed {
            self.set_passed(true);
        }
        word
    }

    /// Takes an entry out; `None` for a free word.
    pub fn take_entry(&mut self, index: usize) -> Option<OwnedEntry> {
        let word = self.take(index);
        // SAFETY: the word was in the bucket, so it owned its entry, and it is there no longer.
        unsafe { word.into_entry() }
    }

    /// Bit `n` of the result: word `n` has this tag. With tag 0, free words are among them.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline]
    pub fn matching(&self, tag: u16) -> u32 {
        use std::arch::x86_64::{
            __m128i, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi16, _mm_load_si128, _mm_movemask_epi8,
            _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi16, _mm_setzero_si128, _mm_shuffle_ps, _mm_srai_epi32,
        };
        /// Of two pairs of 64-bit words, the upper 32 bits of each.
        const UPPER_HALVES: i32 = 0b11_01_11_01;
        let line = ptr::from_ref(self).cast::<__m128i>();
        // SAFETY: SSE2 is part of x86-64; the four loads are the bucket's 64 bytes, which are aligned to 64.
        unsafe {
            let pair = |at: usize| _mm_castsi128_ps(_mm_load_si128(line.add(at)));
            let first = _mm_castps_si128(_mm_shuffle_ps::<UPPER_HALVES>(pair(0), pair(1)));
            let last = _mm_castps_si128(_mm_shuffle_ps::<UPPER_HALVES>(pair(2), pair(3)));
            // The arithmetic shift leaves what fits 16 bits with a sign, so that packing saturates nothing.
            let tags = _mm_packs_epi32(_mm_srai_epi32::<16>(first), _mm_srai_epi32::<16>(last));
            let equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(tag as i16));
            _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())) as u32
        }
    }

    /// Bit `n` of the result: word `n` has this tag. With tag 0, free words are among them.
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    #[inline]
    pub fn matching(&self, tag: u16) -> u32 {
        self.matching_portably(tag)
    }

    /// [`Bucket::matching`] without special instructions.
    #[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
    fn matching_portably(&self, tag: u16) -> u32 {
        let bits = self.words.iter().enumerate().map(|(index, word)| u32::from(word.tag() == tag) << index);
        bits.fold(0, |mask, bit| mask | bit)
    }
}

#[cfg(test)]
mod tests {
    use eyot_raft_glue::Version;

    use super::*;

    fn empty() -> Bucket {
        Bucket { words: [Word::FREE; BUCKET_WORDS] }
    }

    fn entry(key: &[u8]) -> OwnedEntry {
        OwnedEntry::new(0, key, b"value", Version(1), None)
    }

    #[test]
    fn tags_match_where_they_stand_and_nowhere_else() {
        let tags = [0x0001, 0xFFFF, 0x8000, 0x7FFF, 0x0001, 0x0100, 0x00FF];
        let mut bucket = empty();
        bucket.set_passed(true);
        for (index, &tag) in tags.iter().enumerate() {
            bucket.put(index, Word::new(entry(&[index as u8]), tag));
        }
        for tag in tags.into_iter().chain([0, 2, 0xFFFE, 0x8001, 0x0101]) {
            let expected: u32 = (0..8).filter(|&at| tags.get(at).copied().unwrap_or(0) == tag).map(|at| 1 << at).sum();
            assert_eq!(bucket.matching(tag), expected, "{tag:#x}");
            assert_eq!(bucket.matching_portably(tag), expected, "{tag:#x}");
        }
        for index in 0..8 {
            drop(bucket.take_entry(index));
        }
    }

    #[test]
    fn the_mark_of_the_first_word_outlives_whatever_lies_there() {
        let mut bucket = empty();
        assert!(!bucket.is_passed());
        bucket.set_passed(true);
        assert_eq!(bucket.free_word(), Some(0));
        bucket.put(0, Word::new(entry(b"first"), 9));
        assert!(bucket.is_passed());
        let resized = bucket.entry_mut(0).store(&[1; 500], Version(2), None);
        assert!(resized.after > resized.before && bucket.is_passed());
        assert_eq!((bucket.words()[0].tag(), bucket.free_word()), (9, Some(1)));
        assert_eq!(bucket.take_entry(0).map(|entry| entry.value().len()), Some(500));
        assert!(bucket.is_passed() && bucket.words()[0].is_free());
        bucket.put(0, Word::new(entry(b"second"), 9));
        bucket.set_passed(false);
        assert!(!bucket.is_passed());
        assert_eq!(bucket.words()[0].entry().map(Entry::key), Some(&b"second"[..]));
        drop(bucket.take_entry(0));
    }
}
