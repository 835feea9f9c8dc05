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
    fn memory_that_is_taken_is_seen() {
        let process = ProcessMemory::open().expect("Linux has it");
        let before = process.read().unwrap();
        let taken = vec![1_u8; 64 << 20];
        let after = process.read().unwrap();
        assert!(after.private >= before.private + (48 << 20), "{before:?} {after:?} {}", taken[taken.len() - 1]);
    }
}
