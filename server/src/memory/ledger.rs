//! The ledger of one core: what it has taken, by category; and the board on which the cores show each other their sums.
//!
//! Place in the flow: taken once a turn from what each part counts anyway, so it costs a few additions.
//!
//! Why a board: the limit is the node's, while each core counts alone. A fixed share for each core would evict at half
//! the limit where one core has most of the keys. So every core publishes its sum once a turn, one relaxed store to a
//! cache line of its own, and reads those of the others: the limit is held against the node's sum, as old as the other
//! cores' last turns. A core that sleeps has published what it holds, so nothing is missed; what all cores together may
//! add before they see each other is bounded by what one turn may read.
//!
//! Invariants:
//! - A byte is in one category of one core.
//! - The categories hold what was asked of the allocator, rounded where the part knows better. What the allocator and
//!   the program need beside it is measured as the difference to the process's own figure, and called overhead.
//!
//! Not counted, and so part of the overhead: batches between two cores that were sent and not yet received (they live
//! for a turn), and memory of the executor and the kernel.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What one core, or all of them, have taken, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Ledger {
    /// Hash tables and the timers of expiring keys.
    pub table: u64,
    /// Keys and values.
    pub entries: u64,
    /// Entries on their way to the disk, who waits for them, the log's own buffers, and those of snapshots.
    pub log_tail: u64,
    /// Input and output of connections, their slots, spare buffers.
    pub connections: u64,
    /// Requests and results between cores, BATCHes that are gathered, reads that wait.
    pub in_flight: u64,
    /// Values that are kept outside of their entries.
    pub large_values: u64,
    /// What a core has from its start: receive buffers, histograms, the rings.
    pub fixed: u64,
}

impl Ledger {
    /// All categories together.
    pub fn total(&self) -> u64 {
        self.table + self.entries + self.log_tail + self.connections + self.in_flight + self.large_values + self.fixed
    }

    /// What is held against the limit: all but the fixed part, which is there before the first key, counts as overhead,
    /// and so cannot make a small limit an impossible one.
    pub fn charged(&self) -> u64 {
        self.total() - self.fixed
    }

    /// What keys and values take.
    pub fn data(&self) -> u64 {
        self.table + self.entries + self.large_values
    }

    /// Adds the ledger of another core.
    pub fn add(&mut self, other: &Self) {
        let Self { table, entries, log_tail, connections, in_flight, large_values, fixed } = other;
        self.table += table;
        self.entries += entries;
        self.log_tail += log_tail;
        self.connections += connections;
        self.in_flight += in_flight;
        self.large_values += large_values;
        self.fixed += fixed;
    }
}

/// What is known to happen to a core's memory and has not happened yet: the commands in its log that are not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Foreseen {
    /// Bytes that writes will take.
    pub growing: u64,
    /// Bytes that evictions will give back.
    pub evicting: u64,
}

impl Foreseen {
    /// What a core that has `taken` bytes will have when all of it has happened.
    pub fn of(self, taken: u64) -> u64 {
        (taken + self.growing).saturating_sub(self.evicting)
    }
}

/// One core's place on the board: a cache line of its own, and the one beside it, which processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place {
    taken: AtomicU64,
    foreseen: AtomicU64,
}

/// What the cores know of each other's memory, and of the process's.
#[derive(Debug)]
pub struct Board {
    cores: Box<[Place]>,
    /// Resident memory at the last look, in bytes; 0: nobody has looked.
    resident: AtomicU64,
    resident_peak: AtomicU64,
    /// What the process has beyond the sum of the ledgers.
    overhead: AtomicU64,
}

impl Board {
    /// An empty board of `core_count` cores.
    pub fn new(core_count: u16) -> Self {
        Self {
            cores: (0..core_count).map(|_| Place::default()).collect(),
            resident: AtomicU64::new(0),
            resident_peak: AtomicU64::new(0),
            overhead: AtomicU64::new(0),
        }
    }

    /// Core `core` has `taken` bytes, those in value files aside, and will have `foreseen`, these included, when what
    /// is in its log is applied.
    #[inline]
    pub fn publish(&self, core: u16, taken: u64, foreseen: u64) {
        let place = &self.cores[usize::from(core)];
        place.taken.store(taken, Ordering::Relaxed);
        place.foreseen.store(foreseen, Ordering::Relaxed);
    }

    /// What all cores have together, pages of value files aside.
    pub fn taken(&self) -> u64 {
        self.cores.iter().map(|place| place.taken.load(Ordering::Relaxed)).sum()
    }

    /// What all cores together will have.
    #[inline]
    pub fn foreseen(&self) -> u64 {
        self.cores.iter().map(|place| place.foreseen.load(Ordering::Relaxed)).sum()
    }

    /// What each core will have.
    pub fn foreseen_by_core(&self) -> impl Iterator<Item = u64> + '_ {
        self.cores.iter().map(|place| place.foreseen.load(Ordering::Relaxed))
    }

    /// How many cores there are.
    pub fn core_count(&self) -> u64 {
        self.cores.len() as u64
    }

    /// Notes that the kernel counts `resident` bytes, and that the process needs `overhead` beyond the ledgers. To be
    /// called by one core only.
    pub fn note_resident(&self, resident: u64, overhead: u64) {
        self.resident.store(resident, Ordering::Relaxed);
        self.resident_peak.fetch_max(resident, Ordering::Relaxed);
        self.overhead.store(overhead, Ordering::Relaxed);
    }

    /// Resident memory at the last look; 0: nobody has looked.
    pub fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    /// The most resident memory of all looks.
    pub fn resident_peak(&self) -> u64 {
        self.resident_peak.load(Ordering::Relaxed)
    }

    /// What the process needs beyond the sum of the ledgers.
    #[inline]
    pub fn overhead(&self) -> u64 {
        self.overhead.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_is_in_the_total_once() {
        let ledger = Ledger {
            table: 1,
            entries: 20,
            log_tail: 300,
            connections: 4_000,
            in_flight: 50_000,
            large_values: 600_000,
            fixed: 7_000_000,
        };
        assert_eq!((ledger.total(), ledger.charged(), ledger.data()), (7_654_321, 654_321, 600_021));
        let mut sum = ledger;
        sum.add(&ledger);
        assert_eq!(sum.total(), 2 * 7_654_321);
        let fields = serde_json::to_value(ledger).unwrap();
        let written: u64 = fields.as_object().unwrap().values().map(|field| field.as_u64().unwrap()).sum();
        assert_eq!(written, ledger.total(), "what is exported sums up to the total");
    }

    #[test]
    fn what_is_foreseen_never_goes_below_nothing() {
        assert_eq!(Foreseen { growing: 50, evicting: 20 }.of(100), 130);
        assert_eq!(Foreseen { growing: 0, evicting: 200 }.of(100), 0);
    }

    #[test]
    fn the_board_sums_and_keeps_the_last_look() {
        let board = Board::new(3);
        board.publish(0, 100, 150);
        board.publish(2, 30, 20);
        assert_eq!((board.taken(), board.foreseen()), (130, 170));
        assert_eq!(board.foreseen_by_core().collect::<Vec<_>>(), [150, 0, 20]);
        board.note_resident(500, 50);
        board.note_resident(400, 30);
        assert_eq!((board.resident(), board.resident_peak(), board.overhead()), (400, 500, 30));
    }
}
