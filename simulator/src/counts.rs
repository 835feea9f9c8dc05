//! What a world, or a campaign of worlds, has seen.
//!
//! Place in the flow: every part of a world adds to it; a campaign sums it and prints it.

use std::fmt;
use std::ops::AddAssign;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
#[allow(missing_docs)] // The names say it, and are what is printed.
pub enum Count {
    Worlds,
    Steps,
    SimulatedMilliseconds,
    Crashes,
    PowerCuts,
    TornBatches,
    Pauses,
    Partitions,
    Elections,
    Transfers,
    HandoverCuts,
    LeaseTraps,
    MembershipChanges,
    JointMemberships,
    ReplicasReplaced,
    SnapshotsBuilt,
    SnapshotsStreamed,
    StreamsBroken,
    StreamsCutAtMessage,
    SnapshotInstalls,
    DiskStalls,
    SyncFailures,
    BitFlipsRefused,
    DisksLost,
    BatchesShared,
    FramesSent,
    FramesShared,
    MessagesSent,
    MessagesLost,
    MessagesDoubled,
    EntriesApplied,
    WritesAcknowledged,
    WritesUnknown,
    WritesRetried,
    ReadsChecked,
    LeaseReadsChecked,
    SessionsOpened,
    SessionsExpired,
    DuplicatesSuppressed,
    HistoriesChecked,
}

impl Count {
    const LAST: Self = Self::HistoriesChecked;

    const ALL: [Self; Self::LAST as usize + 1] = [
        Self::Worlds,
        Self::Steps,
        Self::SimulatedMilliseconds,
        Self::Crashes,
        Self::PowerCuts,
        Self::TornBatches,
        Self::Pauses,
        Self::Partitions,
        Self::Elections,
        Self::Transfers,
        Self::HandoverCuts,
        Self::LeaseTraps,
        Self::MembershipChanges,
        Self::JointMemberships,
        Self::ReplicasReplaced,
        Self::SnapshotsBuilt,
        Self::SnapshotsStreamed,
        Self::StreamsBroken,
        Self::StreamsCutAtMessage,
        Self::SnapshotInstalls,
        Self::DiskStalls,
        Self::SyncFailures,
        Self::BitFlipsRefused,
        Self::DisksLost,
        Self::BatchesShared,
        Self::FramesSent,
        Self::FramesShared,
        Self::MessagesSent,
        Self::MessagesLost,
        Self::MessagesDoubled,
        Self::EntriesApplied,
        Self::WritesAcknowledged,
        Self::WritesUnknown,
        Self::WritesRetried,
        Self::ReadsChecked,
        Self::LeaseReadsChecked,
        Self::SessionsOpened,
        Self::SessionsExpired,
        Self::DuplicatesSuppressed,
        Self::HistoriesChecked,
    ];
}

/// One number for each [`Count`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; Count::ALL.len()]);

impl Counts {
    /// Nothing yet.
    pub fn new() -> Self {
        Self([0; Count::ALL.len()])
    }

    /// One more.
    pub fn one(&mut self, count: Count) {
        self.add(count, 1);
    }

    /// So many more.
    pub fn add(&mut self, count: Count, more: u64) {
        self.0[count as usize] += more;
    }

    /// How many.
    pub fn of(&self, count: Count) -> u64 {
        self.0[count as usize]
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self::new()
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for count in Count::ALL {
            writeln!(formatter, "  {:<24} {:>16}", spaced(&format!("{count:?}")), grouped(self.of(count)))?;
        }
        Ok(())
    }
}

/// `ReadsChecked` as `reads checked`.
fn spaced(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// 1234567 as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_is_listed_at_its_number_and_summed() {
        for (number, count) in Count::ALL.into_iter().enumerate() {
            assert_eq!(count as usize, number);
        }
        let mut sum = Counts::new();
        let mut one = Counts::new();
        one.add(Count::Steps, 1_234_567);
        one.one(Count::HistoriesChecked);
        sum += &one;
        sum += &one;
        assert_eq!((sum.of(Count::Steps), sum.of(Count::HistoriesChecked)), (2_469_134, 2));
        assert!(sum.to_string().contains("histories checked"));
        assert!(sum.to_string().contains("2,469,134"));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
    }
}
