//! What the kernel says that the process has.
//!
//! Place in the flow: beside it; one core looks now and then. A look is one read of `/proc/self/statm`, some ten
//! microseconds.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// All of it.
    pub total: u64,
    /// Without pages of files: the program's own, and those of mapped values, which the kernel can take back.
    pub private: u64,
}

/// In so many looks, what was once high is half forgotten or more, where the process has become smaller since.
const LOOKS_REMEMBERED: u64 = 64;

/// What the process needs beyond the ledgers, learned from looks at both.
///
/// The difference of the two is no good measure by itself: after deletes the allocator holds free memory, which the
/// kernel still counts and the next writes will use. Taken for overhead, it would lower what may be used, by which more
/// is deleted, and so on: keys would go for nothing. So the most that the process ever had is compared with the most
/// that the ledgers ever held. Where both were high together, the allocator had little that was free; where the process
/// grows although the ledgers do not, it is by true fragmentation, and counts in full. While the process has become
/// smaller, both marks sink towards what is, in equal steps, so that the overhead stays what it was until one arrives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overhead {
    resident_mark: u64,
    ledger_mark: u64,
}

impl Overhead {
    /// Learns from a look: the process has `private` bytes, the ledgers hold `ledger`. Returns the overhead.
    pub fn learn(&mut self, private: u64, ledger: u64) -> u64 {
        if private < self.resident_mark {
            let sinks = (self.resident_mark - private).div_ceil(LOOKS_REMEMBERED);
            self.resident_mark -= sinks;
            self.ledger_mark -= self.ledger_mark.saturating_sub(ledger).min(sinks);
        }
        self.resident_mark = self.resident_mark.max(private);
        self.ledger_mark = self.ledger_mark.max(ledger);
        // What is the overhead now is part of what differs now.
        self.resident_mark.saturating_sub(self.ledger_mark).min(private.saturating_sub(ledger))
    }
}

/// The process's entry in `/proc`.
#[derive(Debug)]
pub struct ProcessMemory {
    statm: File,
    page_bytes: u64,
}

impl ProcessMemory {
    /// Opens it; `None` where there is no `/proc`.
    pub fn open() -> Option<Self> {
        let statm = File::open("/proc/self/statm").ok()?;
        Some(Self { statm, page_bytes: rustix::param::page_size() as u64 })
    }

    /// Looks; `None` if the kernel does not answer, or in words that are not known.
    pub fn read(&self) -> Option<Resident> {
        let mut text = [0; 128];
        let length = self.statm.read_at(&mut text, 0).ok()?;
        parse(std::str::from_utf8(&text[..length]).ok()?, self.page_bytes)
    }
}

/// The second and third numbers are resident pages, and those of files among them (proc(5)).
fn parse(statm: &str, page_bytes: u64) -> Option<Resident> {
    let mut pages = statm.split_ascii_whitespace().skip(1).map(|number| number.parse::<u64>().ok());
    let (resident, of_files) = (pages.next()??, pages.next()??);
    Some(Resident { total: resident * page_bytes, private: resident.saturating_sub(of_files) * page_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_right_ones() {
        let resident = parse("25000 1200 200 40 0 9000 0\n", 4096);
        assert_eq!(resident, Some(Resident { total: 1200 * 4096, private: 1000 * 4096 }));
        for broken in ["", "1", "1 2", "1 x 3"] {
            assert_eq!(parse(broken, 4096), None, "{broken:?}");
        }
    }

    #[test]
    fn free_memory_of_the_allocator_is_no_overhead() {
        let mut overhead = Overhead::default();
        for ledger in (0..=200).step_by(10) {
            assert_eq!(overhead.learn(ledger + 40, ledger), 40);
        }
        // Keys go, the allocator keeps their memory: as long as it likes.
        for _ in 0..1000 {
            assert_eq!(overhead.learn(240, 150), 40);
        }
        // The process grows all the same: that is fragmentation.
        assert_eq!(overhead.learn(260, 150), 60);
        // It gives memory back: what differs then is the most that the overhead can be, and what was is forgotten.
        assert_eq!(overhead.learn(130, 100), 30);
        for _ in 0..1000 {
            overhead.learn(130, 100);
        }
        assert_eq!(overhead.learn(180, 150), 30);
    }

    #[test]
    fn holding_a_limit_with_it_does_not_spiral() {
        // A process of which nothing ever comes back, and a cache that keeps to 95 % of what it may have.
        let (limit, mut overhead, mut resident, mut ledger) = (1_000_000_u64, Overhead::default(), 0, 0_u64);
        for _ in 0..10_000 {
            resident = resident.max(ledger + ledger / 8 + 60_000);
            let may_have = limit - overhead.learn(resident, ledger);
            ledger = (ledger + 20_000).min(may_have * 95 / 100);
        }
        assert!(resident <= limit && ledger > 750_000, "{resident} {ledger}");
        // One that shrinks by a little and stays there is no reason to give up more either.
        for _ in 0..10_000 {
            let may_have = limit - overhead.learn(resident - 10_000, ledger);
            ledger = (ledger + 20_000).min(may_have * 95 / 100);
        }
        assert!(ledger > 750_000, "{ledger}");
    }

    #[test]
    fn memory_that_is_taken_is_seen() {
        let process = ProcessMemory::open().expect("Linux has it");
        let before = process.read().unwrap();
        let taken = vec![1_u8; 64 << 20];
        let after = process.read().unwrap();
        assert!(after.private >= before.private + (48 << 20), "{before:?} {after:?} {}", taken[taken.len() - 1]);
    }
}
