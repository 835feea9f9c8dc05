//! One large value on its way from a socket into the value file.
//!
//! Place in the flow: step 2 of a request with a large value. Its connection takes nothing else until the value is
//! there.
//!
//! ```text
//! region  | step | step | ... | step |      STEP_BYTES each; one is with the ring, those before it are joined
//!         |<-- filled -->|ring|<rest>|
//! ```
//!
//! Invariants:
//! - The first bytes, which came with the request, are kept aside until the pages that they go to are filled and in
//!   memory; then nothing but the ring writes.
//! - One step is with the ring at a time, so that they come in order.
//! - What is filled never changes again: its owner may copy it into the log while the rest comes.
//!
//! Deliberately not here: the ring itself. The caller starts what [`Incoming::next_step`] says and brings the results.

use eyot_ring::{page_bytes, MappedBytes, MappedRegion};

/// Bytes of one step: some tenths of a millisecond of copying, so that nobody waits long for a turn of anything.
pub const STEP_BYTES: usize = 1 << 20;

/// What is to be done next.
#[derive(Debug)]
pub enum IncomingStep {
    /// Bring the pages of the region in ([`eyot_ring::Ring::populate`]), then call [`Incoming::populated`].
    Populate(MappedRegion),
    /// Receive `at_most` bytes into the region from `filled` on, then call [`Incoming::received`].
    Receive {
        /// Where to.
        region: MappedRegion,
        /// How much of it is there already.
        filled: usize,
        /// How much is wanted.
        at_most: usize,
    },
    /// Something is under way.
    Wait,
    /// All bytes are there: call [`Incoming::finish`].
    Done,
}

/// A large value that comes.
#[derive(Debug)]
pub struct Incoming {
    /// Whole steps that are there.
    filled: Option<MappedRegion>,
    /// The step that is next and not with the ring; bytes of it that are there.
    present: Option<(MappedRegion, usize)>,
    /// Steps behind it.
    rest: Option<MappedRegion>,
    /// Bytes that came with the request and are not in the region yet.
    head: Vec<u8>,
    total_bytes: usize,
    with_ring: bool,
}

impl Incoming {
    /// A value of `total_bytes` that comes into `region` and begins with `head`.
    pub fn new(mut region: MappedRegion, head: Vec<u8>, total_bytes: usize) -> Self {
        assert!(total_bytes <= region.len() && head.len() <= total_bytes && total_bytes > 0, "a value in its region");
        let first_bytes = STEP_BYTES.max(head.len()).next_multiple_of(page_bytes());
        let rest = (region.len() > first_bytes).then(|| region.split_off(first_bytes));
        Self { filled: None, present: Some((region, 0)), rest, head, total_bytes, with_ring: false }
    }

    /// Bytes of the value.
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// Bytes that have not come, as far as is known: those of a step that is with the ring are among them.
    pub fn missing_bytes(&self) -> usize {
        let present = self.present.as_ref().map_or(0, |(_, bytes)| *bytes);
        self.total_bytes.saturating_sub(self.filled_bytes() + present + self.head.len())
    }

    /// Bytes of memory that the value takes when the step that is next is done.
    pub fn bytes_with_next_step(&self) -> usize {
        self.filled_bytes() + self.present.as_ref().map_or(0, |(region, _)| region.len())
    }

    /// Whether nothing is missing, although nothing may be in its place yet.
    pub fn has_come(&self) -> bool {
        self.head.len() == self.total_bytes
    }

    /// Adds what came through a receive buffer before the ring stopped filling those; returns what is behind the value.
    /// To be called before the first step only.
    pub fn add_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        assert!(self.filled.is_none() && !self.with_ring, "before the first step");
        let (own, behind) = bytes.split_at(bytes.len().min(self.total_bytes - self.head.len()));
        self.head.extend_from_slice(own);
        if let (Some((region, 0)), Some(mut rest)) = (&mut self.present, self.rest.take()) {
            if region.len() < self.head.len() {
                let grown = (self.head.len() - region.len()).next_multiple_of(page_bytes());
                self.rest = (rest.len() > grown).then(|| rest.split_off(grown));
                region.join(rest);
            } else {
                self.rest = Some(rest);
            }
        }
        behind
    }

    /// What is to be done now.
    pub fn next_step(&mut self) -> IncomingStep {
        if self.with_ring {
            return IncomingStep::Wait;
        }
        let Some((mut region, mut filled)) = self.present.take() else { return IncomingStep::Done };
        if !self.head.is_empty() {
            if !(region.is_filled() && region.is_resident(0..self.head.len())) {
                self.with_ring = true;
                return IncomingStep::Populate(region);
            }
            region.bytes_mut()[..self.head.len()].copy_from_slice(&self.head);
            filled = self.head.len();
            self.head = Vec::new();
        }
        let wanted = region.len().min(self.total_bytes - self.filled_bytes());
        if filled >= wanted {
            self.step_is_there(region);
            return self.next_step();
        }
        self.with_ring = true;
        IncomingStep::Receive { region, filled, at_most: wanted - filled }
    }

    /// The pages of a step are in memory.
    pub fn populated(&mut self, region: MappedRegion) {
        self.with_ring = false;
        self.present = Some((region, 0));
    }

    /// `count` bytes of a step came. Where they are fewer than was asked for, the rest of the step is next: whether the
    /// stream has ended there, or the disk's space, only the next receive tells.
    pub fn received(&mut self, region: MappedRegion, filled: usize, at_most: usize, count: usize) {
        self.with_ring = false;
        if count < at_most {
            self.present = Some((region, filled + count));
        } else {
            self.step_is_there(region);
        }
    }

    /// The pages of a step, of which `filled` bytes are there, cannot be had: nothing was taken from the stream.
    pub fn refused(&mut self, region: MappedRegion, filled: usize) {
        self.with_ring = false;
        self.present = Some((region, filled));
    }

    fn step_is_there(&mut self, region: MappedRegion) {
        match &mut self.filled {
            Some(filled) => filled.join(region),
            None => self.filled = Some(region),
        }
        if let Some(mut next) = self.rest.take() {
            if next.len() > STEP_BYTES {
                self.rest = Some(next.split_off(STEP_BYTES));
            }
            self.present = Some((next, 0));
        }
    }

    fn filled_bytes(&self) -> usize {
        self.filled.as_ref().map_or(0, MappedRegion::len)
    }

    /// The value's first bytes, as far as they are there for good.
    pub fn filled(&self) -> &[u8] {
        self.filled.as_ref().map_or(&[], |filled| &filled.bytes()[..filled.len().min(self.total_bytes)])
    }

    /// The first `value_bytes`, which are the value; the rest came for the sake of the request that it is part of.
    ///
    /// # Panics
    /// Before [`IncomingStep::Done`].
    pub fn finish(self, value_bytes: usize) -> MappedBytes {
        let filled = self.filled.expect("all bytes are there");
        assert!(filled.len() >= self.total_bytes && self.head.is_empty(), "all bytes are there");
        assert!(value_bytes <= self.total_bytes, "a part of what came");
        filled.share(value_bytes)
    }
}

#[cfg(test)]
mod tests;
