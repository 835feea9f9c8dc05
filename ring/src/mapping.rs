//! A file mapped into memory, taken apart into regions that have one owner each.
//!
//! Place in the flow: large values live in one such file a core. A value is received into a [`MappedRegion`] (step 2),
//! stored as [`MappedBytes`] (step 8), and sent from there by reference (step 9).
//!
//! ```text
//! MappedFile ── create ──► one MappedRegion over everything
//! MappedRegion ── split_off, join ──► MappedRegion        never two over the same byte
//! MappedRegion ── share ──► MappedBytes ── last handle dropped ──► MappedFile::take_returned ──► MappedRegion
//! ```
//!
//! Invariants:
//! - Every byte of the mapping belongs to exactly one region, or to one set of [`MappedBytes`] handles, or waits to be
//!   taken back. Regions come from the first one by splitting and joining alone, so this needs nobody's care.
//! - A region that is dropped, on whatever thread, goes home: through a queue that takes no lock.
//! - The file is as long as the mapping and has no name, so nobody else can cut it off; the mapping is gone only when
//!   the last region is.
//!
//! Deliberately not here: which bytes are given to whom. And a warning: touching bytes of a page that is not in memory
//! waits for the disk. Who may not wait asks [`MappedBytes::is_resident`], and has the ring bring the page in.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;

/// Told from every other file of the process by this, in names of files that exist for a moment.
static NEXT_FILE: AtomicU64 = AtomicU64::new(0);

/// Bytes of a page: where regions begin and end.
pub fn page_bytes() -> usize {
    // SAFETY: plain library call without memory.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("a machine has pages")
}

/// The mapping itself, alive as long as any region of it.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
    file: File,
    /// Where regions that were dropped go.
    returned: Sender<Returned>,
}

/// A region that goes home.
struct Returned {
    range: Range<usize>,
    filled: bool,
}

// SAFETY: the pointer is only used through regions, each of which has the bytes it refers to for itself, or shares them
// for reading; the rest is `Send` and `Sync` anyway.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `MappedFile::create` with this length, and no region is left that refers to it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// A file without a name that is mapped into memory; the place to which its regions come back.
pub struct MappedFile {
    mapping: Arc<Mapping>,
    returned: Receiver<Returned>,
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MappedFile").field("length", &self.mapping.length).finish_non_exhaustive()
    }
}

impl MappedFile {
    /// Makes a file of `length` bytes in `directory`, takes its name away, and maps it: the file, and all of it as one
    /// region of zeros. It takes disk and memory only where it is touched. `length` is a multiple of [`page_bytes`].
    ///
    /// # Errors
    /// The directory refuses files, the file system refuses so long a file, or the address space is too small.
    pub fn create(directory: &Path, length: usize) -> io::Result<(Self, MappedRegion)> {
        assert!(length > 0 && length.is_multiple_of(page_bytes()), "a mapping of whole pages");
        let number = NEXT_FILE.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{}-{number}.values", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        file.set_len(length as u64)?;
        // SAFETY: a fresh mapping of a file that only this process can reach and that nothing makes shorter.
        let address = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A core dump without it is more useful than none for lack of space; an older kernel's refusal does not matter.
        // SAFETY: advice about the mapping that was just made.
        unsafe { libc::madvise(address, length, libc::MADV_DONTDUMP) };
        let start = NonNull::new(address.cast()).expect("a mapping is not at address zero");
        let (sender, returned) = channel();
        let mapping = Arc::new(Mapping { start, length, file, returned: sender });
        let whole = MappedRegion { mapping: Arc::clone(&mapping), start: 0, length, filled: false };
        Ok((Self { mapping, returned }, whole))
    }

    /// Bytes of the whole mapping.
    pub fn len(&self) -> usize {
        self.mapping.length
    }

    /// Whether it has no bytes, which it always has.
    pub fn is_empty(&self) -> bool {
        self.mapping.length == 0
    }

    /// A region that was dropped, or whose last shared handle was, on whatever thread.
    pub fn take_returned(&self) -> Option<MappedRegion> {
        let Returned { range, filled } = self.returned.try_recv().ok()?;
        Some(MappedRegion { mapping: Arc::clone(&self.mapping), start: range.start, length: range.len(), filled })
    }

    /// Disk space that the file takes, in bytes.
    ///
    /// # Errors
    /// Whatever `fstat` says.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.mapping.file.metadata()?.blocks() * 512)
    }
}

/// A range of a mapping that has one owner, who may write it.
pub struct MappedRegion {
    mapping: Arc<Mapping>,
    start: usize,
    length: usize,
    /// Whether every page has disk space behind it.
    filled: bool,
}

impl std::fmt::Debug for MappedRegion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "MappedRegion({}..{})", self.start, self.start + self.length)
    }
}

impl MappedRegion {
    /// Where it begins in the file, in bytes; a multiple of [`page_bytes`].
    pub fn start(&self) -> usize {
        self.start
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes, which it always has.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether it is of `file`.
    pub fn is_of(&self, file: &MappedFile) -> bool {
        Arc::ptr_eq(&self.mapping, &file.mapping)
    }

    /// Whether every page of it has disk space behind it, since it was populated or held a value: only then can no
    /// write fail. A write into a page for which the disk has no room kills the process, by a signal.
    pub fn is_filled(&self) -> bool {
        self.filled
    }

    /// Keeps the first `at` bytes and returns the rest. `at` is a multiple of [`page_bytes`], above 0 and below the
    /// length.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        assert!(at > 0 && at < self.length && at.is_multiple_of(page_bytes()), "a split between two pages");
        let (start, length) = (self.start + at, self.length - at);
        let rest = Self { mapping: Arc::clone(&self.mapping), start, length, filled: self.filled };
        self.length = at;
        rest
    }

    /// Puts `next` behind this one. It must begin where this one ends.
    pub fn join(&mut self, mut next: Self) {
        assert!(Arc::ptr_eq(&self.mapping, &next.mapping), "two regions of one mapping");
        assert!(self.start + self.length == next.start, "a neighbour");
        self.length += next.length;
        self.filled &= next.filled;
        // Nothing goes home by this drop.
        next.length = 0;
    }

    /// Its bytes. Touching a page that is not in memory waits for the disk.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in the mapping, whose pages are initialised by the file, and this region alone has it.
        unsafe { std::slice::from_raw_parts(self.address(), self.length) }
    }

    /// Its bytes, to be written. The same warning.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` excludes every other borrow.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.length) }
    }

    /// Whether no byte of `range` has to come from the disk. Says nothing about disk space: a page that was only looked
    /// at has none yet. Costs a system call.
    pub fn is_resident(&self, range: Range<usize>) -> bool {
        assert!(range.end <= self.length, "a part of the region");
        is_resident(self.address(), range)
    }

    /// Brings its pages into memory with disk space behind them, waiting for both: for who may wait, such as recovery.
    ///
    /// # Errors
    /// The disk has no room, or is broken.
    pub fn populate(&mut self) -> io::Result<()> {
        // SAFETY: the range is this region's, and its contents stay what they are.
        let outcome = unsafe { libc::madvise(self.address().cast(), self.length, libc::MADV_POPULATE_WRITE) };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
        self.filled = true;
        Ok(())
    }

    /// Makes its first `length` bytes, all of which were written, a value that is only read from now on, however many
    /// refer to it.
    pub fn share(mut self, length: usize) -> MappedBytes {
        assert!(length <= self.length, "a value within its region");
        self.filled |= length + page_bytes() > self.length;
        MappedBytes { shared: Arc::new(Shared { region: self, length }) }
    }

    pub(crate) fn address(&self) -> *mut u8 {
        // SAFETY: the start lies within the mapping.
        unsafe { self.mapping.start.as_ptr().add(self.start) }
    }

    /// What an operation of the ring did to its pages.
    pub(crate) fn set_filled(&mut self, filled: bool) {
        self.filled = filled;
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.mapping.file.as_raw_fd()
    }
}

impl Drop for MappedRegion {
    fn drop(&mut self) {
        if self.length > 0 {
            // Where nobody takes regions back any more, the mapping as a whole is about to go.
            let returned = Returned { range: self.start..self.start + self.length, filled: self.filled };
            let _: Result<(), _> = self.mapping.returned.send(returned);
        }
    }
}

#[derive(Debug)]
struct Shared {
    region: MappedRegion,
    length: usize,
}

/// A value in a mapping: immutable, as cheap to clone as a count, and gone home with its last handle. A handle is one
/// pointer.
#[derive(Debug, Clone)]
pub struct MappedBytes {
    shared: Arc<Shared>,
}

impl MappedBytes {
    /// Its bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.shared.length
    }

    /// Whether it has none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.shared.length == 0
    }

    /// Bytes of the file that it takes: whole pages.
    pub fn region_bytes(&self) -> usize {
        self.shared.region.length
    }

    /// Its bytes. Touching a page that is not in memory waits for the disk.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.shared.region.bytes()[..self.shared.length]
    }

    /// Gives the handle up as the number that it is.
    pub fn into_raw(self) -> NonNull<()> {
        NonNull::new(Arc::into_raw(self.shared).cast_mut()).expect("an allocation is not at address zero").cast()
    }

    /// Takes back what [`MappedBytes::into_raw`] gave.
    ///
    /// # Safety
    /// `raw` must be what `into_raw` gave, and must be taken back as often as it was given, not counting those that are
    /// never dropped.
    pub unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: as the caller promises.
        Self { shared: unsafe { Arc::from_raw(raw.cast::<Shared>().as_ptr()) } }
    }

    /// Whether no byte of `range` has to come from the disk. Costs a system call.
    pub fn is_resident(&self, range: Range<usize>) -> bool {
        assert!(range.end <= self.shared.length, "a part of the value");
        is_resident(self.shared.region.address(), range)
    }

    pub(crate) fn address(&self) -> *const u8 {
        self.shared.region.address()
    }
}

/// Whether the pages of `range` from `start`, an address of a mapping, are in memory.
fn is_resident(start: *const u8, range: Range<usize>) -> bool {
    /// Pages that one system call asks about: one byte each on the stack.
    const PAGES: usize = 512;
    let page = page_bytes();
    let mut from = range.start / page * page;
    while from < range.end {
        let length = (range.end - from).min(PAGES * page);
        let mut resident = [0_u8; PAGES];
        // SAFETY: the range lies in a mapping, begins on a page, and has at most as many pages as the array has bytes.
        let outcome = unsafe { libc::mincore(start.add(from).cast_mut().cast(), length, resident.as_mut_ptr()) };
        // An error tells nothing, and nothing is lost by taking the pages for absent.
        if outcome != 0 || resident[..length.div_ceil(page)].iter().any(|flags| flags & 1 == 0) {
            return false;
        }
        from += length;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pages: usize) -> (MappedFile, MappedRegion) {
        MappedFile::create(&std::env::temp_dir(), pages * page_bytes()).unwrap()
    }

    #[test]
    fn a_region_taken_apart_and_put_together_is_the_same_bytes() {
        let (file, mut first) = file(4);
        first.bytes_mut().fill(1);
        let mut second = first.split_off(page_bytes());
        let third = second.split_off(2 * page_bytes());
        second.bytes_mut().fill(2);
        assert_eq!((first.len(), second.len(), third.len()), (page_bytes(), 2 * page_bytes(), page_bytes()));
        assert!(first.bytes().iter().chain(third.bytes()).all(|&byte| byte == 1));
        first.join(second);
        first.join(third);
        assert_eq!(first.len(), file.len());
        assert_eq!(first.bytes().iter().map(|&byte| u64::from(byte)).sum::<u64>(), 6 * page_bytes() as u64);
        assert!(file.take_returned().is_none(), "nothing was given up");
        assert!(!first.is_filled(), "nobody knows");
        drop(first.share(3 * page_bytes()));
        assert!(!file.take_returned().unwrap().is_filled(), "its last page was never written");
    }

    #[test]
    fn a_value_goes_home_with_its_last_handle_on_whatever_thread() {
        let (file, mut region) = file(2);
        region.bytes_mut()[..3].copy_from_slice(b"abc");
        let value = region.share(3);
        let other = value.clone();
        drop(value);
        assert!(file.take_returned().is_none());
        let read = std::thread::spawn(move || other.bytes().to_vec()).join().unwrap();
        assert_eq!(read, b"abc");
        let region = file.take_returned().expect("the last handle is gone");
        assert_eq!((region.start(), region.len()), (0, 2 * page_bytes()));
        assert!(region.is_of(&file) && !region.is_filled());
        assert!(file.take_returned().is_none());
        drop(region.share(page_bytes() + 1));
        assert!(file.take_returned().unwrap().is_filled());
    }

    #[test]
    fn what_outlives_the_file_can_still_be_read() {
        let (file, mut region) = file(1);
        region.bytes_mut()[0] = 7;
        let value = region.share(1);
        drop(file);
        assert_eq!(value.bytes(), [7]);
    }

    #[test]
    fn a_page_that_was_never_touched_is_not_in_memory_and_takes_no_disk() {
        let (file, mut region) = file(4096);
        assert!(!region.is_resident(0..region.len()));
        assert_eq!(file.disk_bytes().unwrap(), 0);
        region.bytes_mut()[0] = 1;
        assert!(region.is_resident(0..1));
        assert!(!region.is_resident(0..region.len()), "far more than is read ahead");
        region.populate().unwrap();
        assert!(region.is_filled() && region.is_resident(5..region.len()));
    }

    #[test]
    #[should_panic(expected = "a neighbour")]
    fn regions_that_do_not_meet_cannot_be_joined() {
        let (_file, mut first) = file(3);
        let mut second = first.split_off(page_bytes());
        first.join(second.split_off(page_bytes()));
    }
}
