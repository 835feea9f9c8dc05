//! Buffers for the input and output of connections, reused: a reply's buffer goes to the kernel with the send and comes
//! back with its completion, so a busy core would otherwise ask the allocator for one with each send.
//!
//! Place in the flow: steps 2 (an unfinished request) and 9 (reply), one pool a core.
//!
//! Invariants:
//! - A kept buffer is empty, and has room for at most `buffer_bytes_max`: one large reply must not hold its memory for
//!   ever.
//! - At most `buffers_max` buffers are kept, so the pool itself is bounded by the product of both.

use serde::Serialize;

use super::pressure::Level;

/// While memory is elevated, one buffer in so many is kept.
const KEPT_PART_ELEVATED: usize = 4;

/// How a pool is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferPoolSettings {
    /// Buffers that are kept while nobody uses them.
    pub buffers_max: usize,
    /// What a new buffer has room for, in bytes.
    pub initial_bytes: usize,
    /// A buffer that has grown beyond this is given back to the allocator.
    pub buffer_bytes_max: usize,
    /// Whether use is counted.
    pub monitoring: bool,
}

/// What became of buffers, for STATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct BufferPoolFigures {
    /// Buffers that were asked for.
    pub taken: u64,
    /// Those among them that had been used before.
    pub reused: u64,
    /// Buffers given back that were too large to be kept.
    pub oversized: u64,
    /// Buffers given back that found the pool full, or memory short.
    pub surplus: u64,
    /// Buffers in use now.
    pub in_use: u64,
    /// Buffers kept now.
    pub spare: u64,
    /// Room of those, in bytes.
    pub spare_bytes: u64,
    /// The most that were in use at a time.
    pub in_use_peak: u64,
}

impl BufferPoolFigures {
    /// The share of the buffers asked for that had been used before, 0 to 1.
    pub fn reuse_rate(&self) -> f64 {
        if self.taken == 0 {
            0.0
        } else {
            self.reused as f64 / self.taken as f64
        }
    }

    /// Adds the figures of another core. Peaks are of different times: their sum is the most that it can have been.
    pub fn add(&mut self, other: &Self) {
        let Self { taken, reused, oversized, surplus, in_use, spare, spare_bytes, in_use_peak } = other;
        self.taken += taken;
        self.reused += reused;
        self.oversized += oversized;
        self.surplus += surplus;
        self.in_use += in_use;
        self.spare += spare;
        self.spare_bytes += spare_bytes;
        self.in_use_peak += in_use_peak;
    }
}

/// The pool of one core.
#[derive(Debug)]
pub struct BufferPool {
    settings: BufferPoolSettings,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    /// How many buffers may be kept now: fewer while memory is short.
    keep: usize,
    figures: BufferPoolFigures,
}

impl BufferPool {
    /// An empty pool.
    pub fn new(settings: BufferPoolSettings) -> Self {
        let (spare, figures) = (Vec::new(), BufferPoolFigures::default());
        Self { settings, spare, spare_bytes: 0, keep: settings.buffers_max, figures }
    }

    /// An empty buffer.
    #[inline]
    pub fn take(&mut self) -> Vec<u8> {
        let reused = self.spare.pop();
        if self.settings.monitoring {
            self.figures.taken += 1;
            self.figures.reused += u64::from(reused.is_some());
            self.figures.in_use += 1;
            self.figures.in_use_peak = self.figures.in_use_peak.max(self.figures.in_use);
        }
        match reused {
            Some(buffer) => {
                self.spare_bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(self.settings.initial_bytes),
        }
    }

    /// Takes a buffer of [`BufferPool::take`] back. One without memory was never taken, and is ignored.
    #[inline]
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == 0 {
            return;
        }
        let oversized = capacity > self.settings.buffer_bytes_max;
        let surplus = !oversized && self.spare.len() >= self.keep;
        if self.settings.monitoring {
            // A part of a long output that was split off was not taken, and is given all the same.
            self.figures.in_use = self.figures.in_use.saturating_sub(1);
            self.figures.oversized += u64::from(oversized);
            self.figures.surplus += u64::from(surplus);
        }
        if !oversized && !surplus {
            buffer.clear();
            self.spare_bytes += capacity;
            self.spare.push(buffer);
        }
    }

    /// Keeps as many buffers as the level of memory allows: all that it may, or, where memory is short, a few, since
    /// a node that evicts is short for good and still wants its replies cheap; or none, where it is over the limit.
    pub fn set_level(&mut self, level: Level) {
        self.keep = match level {
            Level::Normal => self.settings.buffers_max,
            Level::Elevated | Level::High => self.settings.buffers_max.div_ceil(KEPT_PART_ELEVATED),
            Level::Over => 0,
        };
        while self.spare.len() > self.keep {
            self.spare_bytes -= self.spare.pop().map_or(0, |buffer| buffer.capacity());
        }
    }

    /// A buffer with more room than this is not kept.
    pub fn buffer_bytes_max(&self) -> usize {
        self.settings.buffer_bytes_max
    }

    /// Room of the buffers that are kept.
    pub fn spare_bytes(&self) -> usize {
        self.spare_bytes
    }

    /// What has become of buffers; all 0 without monitoring, save what is there now.
    pub fn figures(&self) -> BufferPoolFigures {
        BufferPoolFigures { spare: self.spare.len() as u64, spare_bytes: self.spare_bytes as u64, ..self.figures }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BufferPoolSettings =
        BufferPoolSettings { buffers_max: 2, initial_bytes: 100, buffer_bytes_max: 1000, monitoring: true };

    #[test]
    fn buffers_come_back_empty_and_are_reused() {
        let mut pool = BufferPool::new(SETTINGS);
        let mut buffer = pool.take();
        assert!(buffer.capacity() >= 100);
        buffer.extend_from_slice(&[7; 500]);
        let capacity = buffer.capacity();
        pool.give(buffer);
        assert_eq!(pool.spare_bytes(), capacity);
        let again = pool.take();
        assert_eq!((again.len(), again.capacity(), pool.spare_bytes()), (0, capacity, 0));
        let figures = pool.figures();
        assert_eq!((figures.taken, figures.reused, figures.in_use, figures.in_use_peak), (2, 1, 1, 1));
        assert!((figures.reuse_rate() - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_too_large_or_too_many_is_not_kept() {
        let mut pool = BufferPool::new(SETTINGS);
        let buffers: Vec<_> = (0..4).map(|_| pool.take()).collect();
        buffers.into_iter().for_each(|buffer| pool.give(buffer));
        pool.give(Vec::with_capacity(1001));
        pool.give(Vec::new());
        let figures = pool.figures();
        assert_eq!((figures.spare, figures.surplus, figures.oversized, figures.in_use), (2, 2, 1, 0));
        assert_eq!(figures.in_use_peak, 4);
    }

    #[test]
    fn the_shorter_memory_is_the_fewer_are_kept() {
        let mut pool = BufferPool::new(BufferPoolSettings { buffers_max: 8, ..SETTINGS });
        let fill = |pool: &mut BufferPool| {
            let buffers: Vec<_> = (0..8).map(|_| pool.take()).collect();
            buffers.into_iter().for_each(|buffer| pool.give(buffer));
            pool.figures().spare
        };
        assert_eq!(fill(&mut pool), 8);
        for (level, kept) in [(Level::Elevated, 2), (Level::High, 2), (Level::Over, 0), (Level::Normal, 8)] {
            pool.set_level(level);
            assert!(pool.figures().spare <= kept);
            assert_eq!(fill(&mut pool), kept, "{level:?}");
            assert!(pool.spare_bytes() >= 100 * kept as usize && (kept > 0 || pool.spare_bytes() == 0));
        }
    }
}
