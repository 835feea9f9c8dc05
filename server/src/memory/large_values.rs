//! Large values: one mapped file a core, an extension of its memory.
//!
//! Place in the flow: a value of at least `--mmap-threshold` bytes is received straight into a region of the file (step
//! 2), its table entry refers to it (step 8), a reply refers to it until it is sent (step 9). The last reference, on
//! whatever core it is dropped, sends the region home through a queue without a lock.
//!
//! How a page that is not in memory never stalls the core, and a full disk never kills the process:
//! - The core writes only into pages that are filled ([`MappedRegion::is_filled`]) and in memory; where they are not, a
//!   worker of the kernel's brings them in first. The socket's bytes are copied by such a worker anyway, 1 MiB at a
//!   time: `ring/examples/large.rs` shows that it is no slower, and that the core's longest turn is a tenth.
//! - The core reads only pages that are in memory ([`needs_worker`] asks), as when it copies a part into the log right
//!   after it came. Sends of values of more than [`INLINE_BYTES`], or of pages that are not in memory, are a worker's,
//!   too.
//! - Space goes back to the system on a worker.
//!
//! Invariants:
//! - The file is made anew at each start, has no name, and is never the durable copy: the log is.
//! - A region is the core's of whose file it is; who refers to it may be any core.
//!
//! Deliberately not here: which region is taken (`value_file`), and what a value means.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eyot_ring::{page_bytes, MappedBytes, MappedFile, MappedRegion};

use super::value_file::{Extent, Extents};

/// Address space of each core's file; disk and memory are taken only where values are. More than a core's share of any
/// machine's memory, so holes between values cost nothing, and little enough that 256 cores fit 47 bits.
const RESERVED_BYTES: usize = 256 << 30;
/// How long memory that was freed is kept for the next value at most twice.
const INTERVAL: Duration = Duration::from_secs(1);
/// How soon a core that has nothing else to do takes home what another core has dropped.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// What goes back to the system in one operation: keeps others, who change the same file, from waiting long.
const GIVE_BACK_BYTES: usize = 16 << 20;
/// Regions that are taken home in one turn.
const RETURNS_PER_TURN: usize = 1024;
/// Bytes that the core sends itself if they are in memory: less time than the way through a worker takes.
pub const INLINE_BYTES: usize = 128 << 10;

impl Extent for MappedRegion {
    fn start(&self) -> usize {
        self.start()
    }

    fn bytes(&self) -> usize {
        self.len()
    }

    fn is_warm(&self) -> bool {
        self.is_filled()
    }

    fn split_off(&mut self, at: usize) -> Self {
        self.split_off(at)
    }

    fn join(&mut self, next: Self) {
        self.join(next);
    }
}

/// Makes the directory of the value files, and removes what a process left that was killed while it made one.
///
/// # Errors
/// The directory cannot be made or read.
pub fn prepare_directory(data_dir: &Path) -> io::Result<PathBuf> {
    let directory = data_dir.join("values");
    std::fs::create_dir_all(&directory)?;
    for file in std::fs::read_dir(&directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "values") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(directory)
}

/// The large values of one core.
#[derive(Debug)]
pub struct LargeValues {
    file: MappedFile,
    extents: Extents<MappedRegion>,
    threshold_bytes: usize,
    /// When the present interval ends; `None` while nothing is warm.
    interval_ends: Option<Instant>,
    /// Whether an extent is on its way back to the system: one at a time.
    giving_back: bool,
    /// Whether the file system has refused to take space back.
    keeps_space: bool,
}

impl LargeValues {
    /// A new file in `directory`, for values from `threshold_bytes` on.
    ///
    /// # Errors
    /// The file cannot be made, or mapped.
    pub fn open(directory: &Path, threshold_bytes: usize) -> io::Result<Self> {
        let (file, whole) = MappedFile::create(directory, RESERVED_BYTES)?;
        let extents = Extents::new(whole, page_bytes());
        Ok(Self { file, extents, threshold_bytes, interval_ends: None, giving_back: false, keeps_space: false })
    }

    /// Whether a value of `bytes` belongs here.
    #[inline]
    pub fn takes(&self, bytes: usize) -> bool {
        bytes >= self.threshold_bytes
    }

    /// From how many bytes on a value belongs here.
    pub fn threshold_bytes(&self) -> usize {
        self.threshold_bytes
    }

    /// Room for a value of `bytes`; `None`: the file has none.
    pub fn allocate(&mut self, bytes: usize) -> Option<MappedRegion> {
        self.collect();
        self.extents.allocate(bytes)
    }

    /// Takes regions home whose values are gone.
    pub fn collect(&mut self) {
        for _ in 0..RETURNS_PER_TURN {
            let Some(region) = self.file.take_returned() else { return };
            self.extents.free(region);
        }
    }

    /// Moves housekeeping on. Returns a region that the ring is to give back to the system, which then comes to
    /// [`LargeValues::given_back`].
    pub fn maintain(&mut self, now: Instant) -> Option<MappedRegion> {
        self.collect();
        match self.interval_ends {
            Some(end) if now >= end => {
                self.extents.end_interval();
                self.interval_ends = self.next_interval(now);
            }
            None => self.interval_ends = self.next_interval(now),
            Some(end) if self.extents.has_warm() => self.interval_ends = Some(end.min(now + INTERVAL)),
            Some(_) => {}
        }
        if self.giving_back {
            return None;
        }
        let region = self.extents.take_to_give_back(GIVE_BACK_BYTES)?;
        self.giving_back = true;
        Some(region)
    }

    fn next_interval(&self, now: Instant) -> Option<Instant> {
        if self.extents.has_warm() {
            Some(now + INTERVAL)
        } else if self.extents.live_bytes() > 0 {
            Some(now + LOOK_INTERVAL)
        } else {
            None
        }
    }

    /// The space of `region` went back to the system, or could not.
    pub fn given_back(&mut self, region: MappedRegion, result: io::Result<()>) {
        self.giving_back = false;
        self.extents.given_back(region);
        if let Err(error) = result {
            if !std::mem::replace(&mut self.keeps_space, true) {
                tracing::warn!(%error, "the file system takes no space of deleted large values back until the node stops");
            }
        }
    }

    /// When [`LargeValues::maintain`] has something to do, though nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.interval_ends
    }

    /// Bytes of the file that values take, and those that come.
    pub fn live_bytes(&self) -> usize {
        self.extents.live_bytes()
    }

    /// Bytes of the file that are kept for the next values.
    pub fn warm_bytes(&self) -> usize {
        self.extents.warm_bytes()
    }

    /// Disk space that the file takes, in bytes.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        self.file.disk_bytes()
    }
}

/// Whether sending `range` of `value` is for a worker of the kernel's: it would take long or wait for the disk, or is
/// the end of what does. Where a worker has read the value so far, the kernel may have read the end ahead and left a
/// mark there: whoever touches it has more of the file read.
pub fn needs_worker(value: &MappedBytes, range: Range<usize>) -> bool {
    value.len() > INLINE_BYTES || !value.is_resident(range)
}

#[cfg(test)]
mod tests;
