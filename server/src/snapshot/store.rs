//! The directory of one shard's snapshots.
//!
//! Place in the flow: a core's snapshot thread writes here; start-up lists.
//!
//! Invariants:
//! - A sound snapshot is removed or written over only when two newer sound ones are durable. Which are sound their
//!   reader knows: whoever publishes names the one that is kept beside the new one.
//! - What is written over has no snapshot's name any more, durably.
//!
//! A superseded file is not removed but written over by the next snapshot ([`SpareFile`]): its blocks are there, so
//! the file system has nothing to put into its journal while it is written, and a disk that is told of free blocks
//! (the mount option `discard`) hears of none. Both would have the log's writes wait.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use eyot_raft_glue::{Index, ShardId};
use eyot_ring::{AlignedBuffer, BLOCK_BYTES};

use crate::disk::{is_full, refuses_direct, Creation, Disk, DiskFile, OpenMode};

/// Sound snapshots of a shard that are kept: the newest, and the one before it for the day on which the newest has
/// decayed.
pub const SNAPSHOTS_KEPT: usize = 2;
/// One write: long enough for a disk's full speed.
pub const WRITE_BYTES: usize = 512 << 10;
/// One write while requests wait for the log's writes, which stand behind it in the disk's queue.
pub const BUSY_WRITE_BYTES: usize = 128 << 10;
const SUFFIX: &str = ".snap";
const TEMPORARY_SUFFIX: &str = ".snap.tmp";
const SPARE_PREFIX: &str = "spare-";
const SPARE_SUFFIX: &str = ".tmp";

/// Why a snapshot could not be written, or the directory not read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk or the quota is full. What was written is removed; the log and the older snapshots are untouched.
    #[error("no space for snapshot {path} after {written_bytes} bytes: free space, or raise the quota; it will be tried again")]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// How much of it there was room for.
        written_bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// There is not enough space to begin with. Nothing was written.
    #[error(
        "snapshot {path} of some {} bytes and {} bytes for the log do not fit into the {free_bytes} bytes that are free: \
         free space, or raise the quota; it will be tried again", space.stream_bytes, space.spared_bytes
    )]
    TooLittleSpace {
        /// The file.
        path: PathBuf,
        /// What is needed.
        space: Space,
        /// What there is.
        free_bytes: u64,
    },
    /// Anything else that the system refused.
    #[error("cannot {action} {path}: {source}: check the disk (dmesg, smartctl); the log is not affected")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What has to be free before a snapshot is begun: one that fills the disk up would have writes refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that it will have, or some more.
    pub stream_bytes: u64,
    /// Bytes that it leaves to the log.
    pub spared_bytes: u64,
}

/// A snapshot that is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The shard's index at which it was taken.
    pub index: Index,
    /// Bytes of the file.
    pub bytes: u64,
}

/// The directory of a shard's snapshots.
pub fn shard_directory(snapshots_directory: &Path, shard: ShardId) -> PathBuf {
    snapshots_directory.join(format!("shard-{}", shard.0))
}

/// The file of one snapshot.
pub fn snapshot_path(shard_directory: &Path, index: Index) -> PathBuf {
    shard_directory.join(format!("{:020}{SUFFIX}", index.0))
}

/// The index that a file's name says; `None` for a name that [`snapshot_path`] does not give.
fn index_of(name: &str) -> Option<Index> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number).map(Index)
}

/// A superseded snapshot's file, for the next one to be written over.
#[derive(Debug)]
pub struct SpareFile {
    path: PathBuf,
    bytes: u64,
}

impl SpareFile {
    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The name of the spare file of a core.
pub fn spare_path(snapshots_directory: &Path, core: u16) -> PathBuf {
    snapshots_directory.join(format!("{SPARE_PREFIX}{core}{SPARE_SUFFIX}"))
}

/// Removes the spare files that earlier starts have left: after a power cut such a name may lead to a file that has
/// another one, a snapshot's. Before any core begins a snapshot.
///
/// # Errors
/// The directory cannot be read, or the file not removed.
pub fn remove_spares<D: Disk>(disk: &D, snapshots_directory: &Path) -> Result<(), SnapshotError> {
    let is_spare = |name: &str| name.starts_with(SPARE_PREFIX) && name.ends_with(SPARE_SUFFIX);
    remove_named(disk, snapshots_directory, is_spare)
}

/// The snapshots of a shard, newest first. A shard that has none has no directory either.
///
/// # Errors
/// The directory cannot be read.
pub fn list<D: Disk>(disk: &D, shard_directory: &Path) -> Result<Vec<Published>, SnapshotError> {
    let names = match disk.list(shard_directory) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", shard_directory)(error)),
    };
    let mut found = Vec::new();
    for index in names.iter().filter_map(|name| index_of(name)) {
        let path = snapshot_path(shard_directory, index);
        let bytes = disk.metadata(&path).map_err(io_error("look at", &path))?.bytes;
        found.push(Published { index, bytes });
    }
    found.sort_by_key(|published| std::cmp::Reverse(published.index));
    Ok(found)
}

/// Removes what an interrupted start or write has left behind.
///
/// # Errors
/// The directory cannot be read, or the file not removed.
pub fn remove_leftovers<D: Disk>(disk: &D, shard_directory: &Path) -> Result<(), SnapshotError> {
    remove_named(disk, shard_directory, |name| name.ends_with(TEMPORARY_SUFFIX))
}

/// Removes the files with names that `is_wanted` says, if there is such a directory.
fn remove_named<D: Disk>(disk: &D, directory: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<(), SnapshotError> {
    let names = match disk.list(directory) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("list", directory)(error)),
    };
    for name in names.iter().filter(|name| is_wanted(name)) {
        let path = directory.join(name);
        disk.remove_file(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// Creates the directory of a shard's snapshots, if it is missing, and makes its name durable.
///
/// # Errors
/// The system refuses it.
pub fn create_shard_directory<D: Disk>(
    disk: &D,
    snapshots_directory: &Path,
    shard: ShardId,
) -> Result<PathBuf, SnapshotError> {
    let directory = shard_directory(snapshots_directory, shard);
    for (path, above) in [
        (snapshots_directory, snapshots_directory.parent().unwrap_or(Path::new("."))),
        (&directory, snapshots_directory),
    ] {
        match disk.create_directory(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refusal("create", path, 0)(error)),
            // One that was there before is durable since it was used; to make it so once more is cheap, and rare.
            Ok(()) => {}
        }
        disk.sync_directory(above).map_err(io_error("sync", above))?;
    }
    Ok(directory)
}

/// A snapshot that is being written.
#[derive(Debug)]
pub struct SnapshotFile<D: Disk> {
    disk: D,
    directory: PathBuf,
    index: Index,
    temporary: PathBuf,
    file: D::File,
    /// What is not written yet: less than one write.
    buffer: AlignedBuffer,
    write_bytes: usize,
    /// The longest write, at most `write_bytes`.
    piece_bytes: usize,
    written_bytes: u64,
}

impl<D: Disk> SnapshotFile<D> {
    /// Begins a snapshot of `shard` at `index`, if there is `space`: over the spare file, which is taken then, if there
    /// is one. `write_bytes`: [`WRITE_BYTES`], but for tests that want several writes of a short file.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn create(
        disk: &D,
        snapshots_directory: &Path,
        shard: ShardId,
        index: Index,
        space: Space,
        spare: &mut Option<SpareFile>,
        write_bytes: usize,
    ) -> Result<Self, SnapshotError> {
        let directory = create_shard_directory(disk, snapshots_directory, shard)?;
        let free_bytes = disk.free_bytes(&directory).map_err(io_error("ask for the free space of", &directory))?;
        let free_bytes = free_bytes.saturating_add(spare.as_ref().map_or(0, SpareFile::bytes));
        if free_bytes < space.stream_bytes.saturating_add(space.spared_bytes) {
            let path = snapshot_path(&directory, index);
            return Err(SnapshotError::TooLittleSpace { path, space, free_bytes });
        }
        let temporary = directory.join(format!("{:020}{TEMPORARY_SUFFIX}", index.0));
        let mode = match spare.take().map(|spare| (disk.rename(&spare.path, &temporary), spare.path)) {
            Some((Ok(()), _)) => OpenMode::WRITE,
            Some((Err(error), path)) if error.kind() != ErrorKind::NotFound => {
                return Err(refusal("rename", &path, 0)(error));
            }
            // Somebody has removed it: it is worth its space alone.
            Some((Err(_), _)) | None => OpenMode::WRITE.creating(Creation::Emptied),
        };
        // Past the page cache: a snapshot is not read soon, and must push nothing out.
        let file = match disk.open(&temporary, mode.direct()) {
            Err(error) if refuses_direct(&error) => disk.open(&temporary, mode),
            outcome => outcome,
        };
        let file = file.map_err(|error| {
            // It may be as long as a whole snapshot; the next start removes it as well.
            let _: io::Result<()> = disk.remove_file(&temporary);
            refusal("create", &temporary, 0)(error)
        })?;
        let buffer = AlignedBuffer::with_capacity(write_bytes);
        Ok(Self {
            disk: disk.clone(),
            directory,
            index,
            temporary,
            file,
            buffer,
            write_bytes,
            piece_bytes: write_bytes,
            written_bytes: 0,
        })
    }

    /// From now on no write is longer than so many bytes, which are whole blocks.
    pub fn write_in_pieces_of(&mut self, bytes: usize) {
        assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES), "pieces of {bytes} bytes");
        self.piece_bytes = bytes;
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// See [`SnapshotError`]. The file is not to be used any more but for [`SnapshotFile::discard`].
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            let taken = bytes.len().min(self.write_bytes - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.buffer.len() == self.write_bytes {
                self.write_buffer()?;
            }
        }
        Ok(())
    }

    fn write_buffer(&mut self) -> Result<(), SnapshotError> {
        let length = self.buffer.len();
        self.buffer.pad_to_multiple_of(BLOCK_BYTES);
        let mut written = self.write_pieces();
        if written.as_ref().is_err_and(refuses_direct) {
            // Some file systems refuse it only here.
            let plain = self.disk.open(&self.temporary, OpenMode::WRITE);
            self.file = plain.map_err(refusal("open", &self.temporary, self.written_bytes))?;
            written = self.write_pieces();
        }
        written.map_err(refusal("write", &self.temporary, self.written_bytes))?;
        self.written_bytes += length as u64;
        self.buffer.clear();
        Ok(())
    }

    fn write_pieces(&self) -> io::Result<()> {
        let offsets = (self.written_bytes..).step_by(self.piece_bytes);
        self.buffer.chunks(self.piece_bytes).zip(offsets).try_for_each(|(piece, at)| self.file.write_all_at(piece, at))
    }

    /// Makes the snapshot durable under its name, and gives all others up but the one at `beside`: one of them becomes
    /// the spare file at `spare`, if that is given, and the others are removed. `is_read`, asked when the name of one
    /// is gone, says whether somebody reads from it still: that one is removed.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn publish(
        mut self,
        beside: Option<Index>,
        spare: Option<PathBuf>,
        is_read: impl Fn(Index) -> bool,
    ) -> Result<(Published, Option<SpareFile>), SnapshotError> {
        if let Err(error) = self.finish() {
            self.discard();
            return Err(error);
        }
        self.disk.sync_directory(&self.directory).map_err(io_error("sync", &self.directory))?;
        let spare = prune(&self.disk, &self.directory, &[Some(self.index), beside], spare, is_read)?;
        Ok((Published { index: self.index, bytes: self.written_bytes }, spare))
    }

    /// Everything up to the name.
    fn finish(&mut self) -> Result<(), SnapshotError> {
        self.write_buffer()?;
        let io = |action| refusal(action, &self.temporary, self.written_bytes);
        // The last write was filled up to a block.
        self.file.set_length(self.written_bytes).map_err(io("cut"))?;
        self.file.sync().map_err(io("sync"))?;
        let path = snapshot_path(&self.directory, self.index);
        self.disk.rename(&self.temporary, &path).map_err(io("rename"))
    }

    /// Removes what was written.
    pub fn discard(self) {
        // The next start removes it as well: failing to remove it now adds nothing to the first error.
        let _: io::Result<()> = self.disk.remove_file(&self.temporary);
    }
}

/// Gives up all snapshots but those at the indexes of `kept`. The first of them becomes the `spare` file, which has
/// lost its old name durably when this returns, unless it `is_read`.
fn prune<D: Disk>(
    disk: &D,
    shard_directory: &Path,
    kept: &[Option<Index>],
    mut spare: Option<PathBuf>,
    is_read: impl Fn(Index) -> bool,
) -> Result<Option<SpareFile>, SnapshotError> {
    let mut made = None;
    for old in list(disk, shard_directory)?.iter().filter(|old| !kept.contains(&Some(old.index))) {
        let path = snapshot_path(shard_directory, old.index);
        let renamed = spare.take().map(|spare| disk.rename(&path, &spare).map(|()| spare));
        match renamed {
            Some(Ok(spare)) => made = Some((old.index, SpareFile { path: spare, bytes: old.bytes })),
            Some(Err(error)) if error.kind() != ErrorKind::CrossesDevices => {
                return Err(io_error("rename", &path)(error));
            }
            // A shard's directory on a disk of its own has its files removed, like those that are too many.
            Some(Err(_)) | None => disk.remove_file(&path).map_err(io_error("remove", &path))?,
        }
    }
    let Some((index, spare)) = made else { return Ok(None) };
    #[cfg(test)]
    if crate::prover::is_planted(crate::prover::Planted::OldNameNotSynced) {
        return Ok(Some(spare));
    }
    disk.sync_directory(shard_directory).map_err(io_error("sync", shard_directory))?;
    if is_read(index) {
        disk.remove_file(&spare.path).map_err(io_error("remove", &spare.path))?;
        return Ok(None);
    }
    Ok(Some(spare))
}

/// A published snapshot that is being read, by clients that save it: its bytes stay while it is open, although its name
/// may go.
#[derive(Debug)]
pub struct OpenSnapshot<F> {
    file: F,
    bytes: u64,
}

impl<F: DiskFile> OpenSnapshot<F> {
    /// Opens the snapshot of `shard` at `index`; `None`: there is none.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        snapshots_directory: &Path,
        shard: ShardId,
        index: Index,
    ) -> Result<Option<Self>, SnapshotError> {
        let path = snapshot_path(&shard_directory(snapshots_directory, shard), index);
        let file = match disk.open(&path, OpenMode::READ) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            outcome => outcome.map_err(io_error("open", &path))?,
        };
        let bytes = file.length().map_err(io_error("read the length of", &path))?;
        Ok(Some(Self { file, bytes }))
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads up to `length` bytes from `offset` on in place of what is in `bytes`; fewer at its end, none behind it.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn read(&self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        let length = length.min(usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX));
        bytes.resize(length, 0);
        self.file.read_exact_at(bytes, offset)
    }
}

pub(super) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::Io { action, path: path.to_owned(), source }
}

fn refusal<'a>(
    action: &'static str,
    path: &'a Path,
    written_bytes: u64,
) -> impl FnOnce(io::Error) -> SnapshotError + 'a {
    move |source| {
        if is_full(&source) {
            SnapshotError::NoSpace { path: path.to_owned(), written_bytes, source }
        } else {
            SnapshotError::Io { action, path: path.to_owned(), source }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Kind, SimulatedDisk};

    const SHARD: ShardId = ShardId(3);
    const INDEX: Index = Index(7);
    /// A snapshot that somebody reads, whenever it is given up.
    const READ: Index = Index(6);

    fn begin(disk: &SimulatedDisk, space: Space) -> Result<SnapshotFile<SimulatedDisk>, SnapshotError> {
        SnapshotFile::create(disk, Path::new("/snapshots"), SHARD, INDEX, space, &mut None, BLOCK_BYTES)
    }

    #[test]
    fn a_snapshot_that_would_leave_too_little_to_the_log_is_not_begun() {
        let disk = SimulatedDisk::new();
        disk.set_capacity(100_000);
        let error = begin(&disk, Space { stream_bytes: 60_000, spared_bytes: 40_001 }).unwrap_err();
        assert!(matches!(error, SnapshotError::TooLittleSpace { free_bytes: 100_000, .. }), "{error}");
        let told = error.to_string();
        assert!(
            told.contains("some 60000 bytes and 40001 bytes for the log")
                && told.contains("100000 bytes that are free"),
            "{told}"
        );
        assert_eq!(disk.list(&shard_directory(Path::new("/snapshots"), SHARD)).unwrap(), [""; 0]);
        let mut file = begin(&disk, Space { stream_bytes: 60_000, spared_bytes: 40_000 }).unwrap();
        file.append(&[7; 10_000]).unwrap();
        assert_eq!(file.publish(None, None, |_| false).unwrap().0, Published { index: INDEX, bytes: 10_000 });
    }

    /// A snapshot of `bytes` at `index`, over the spare file.
    fn write(disk: &SimulatedDisk, index: u64, bytes: &[u8], spare: &mut Option<SpareFile>) -> Vec<u64> {
        let (path, any) = (Path::new("/snapshots"), Space { stream_bytes: 0, spared_bytes: 0 });
        let mut file = SnapshotFile::create(disk, path, SHARD, Index(index), any, spare, BLOCK_BYTES).unwrap();
        file.append(bytes).unwrap();
        let beside = list(disk, &shard_directory(path, SHARD)).unwrap().first().map(|newest| newest.index);
        let spare_path = spare.is_none().then(|| spare_path(path, 0));
        let (published, made) = file.publish(beside, spare_path, |old| old == READ).unwrap();
        assert_eq!(published, Published { index: Index(index), bytes: bytes.len() as u64 });
        *spare = made;
        list(disk, &shard_directory(path, SHARD)).unwrap().iter().map(|kept| kept.index.0).collect()
    }

    #[test]
    fn a_superseded_snapshot_is_written_over_by_the_next_one() {
        let (disk, path) = (SimulatedDisk::new(), Path::new("/snapshots"));
        let mut spare = None;
        assert_eq!(write(&disk, 1, &[1; 50_000], &mut spare), [1]);
        assert_eq!(write(&disk, 2, &[2; 50_000], &mut spare), [2, 1]);
        assert!(spare.is_none(), "two are kept");
        assert_eq!(write(&disk, 3, &[3; 50_000], &mut spare), [3, 2]);
        assert_eq!(spare.as_ref().map(SpareFile::bytes), Some(50_000));
        // A shorter and a longer one: the file is as long as they are.
        let before = disk.operations().len();
        for (index, bytes) in [(4, vec![4; 20_001]), (5, vec![5; 90_000])] {
            assert_eq!(write(&disk, index, &bytes, &mut spare), [index, index - 1]);
            let file = disk.contents(&snapshot_path(&shard_directory(path, SHARD), Index(index)));
            assert!(file == bytes, "{index}");
        }
        let removed = |before: usize| {
            let operations = disk.operations();
            operations[before..].iter().filter(|operation| operation.site.kind == Kind::RemoveFile).count()
        };
        assert_eq!(removed(before), 0, "no file is removed, so one is written over");
        // What there is room for counts the spare file, which is not taken before.
        disk.set_capacity(300_000);
        let free_bytes = disk.free_bytes(path).unwrap();
        let space = |bytes| Space { stream_bytes: bytes, spared_bytes: 0 };
        let mut begin = |bytes| SnapshotFile::create(&disk, path, SHARD, INDEX, space(bytes), &mut spare, BLOCK_BYTES);
        assert!(begin(free_bytes + 50_001).is_err());
        begin(free_bytes + 50_000).unwrap().discard();
        assert!(spare.is_none());
        assert_eq!(disk.list(path).unwrap(), ["shard-3"]);
        // One that is read is not written over, and one that somebody has removed is not missed.
        disk.set_capacity(10_000_000);
        for (index, has_spare) in [(6, false), (7, true), (8, false), (9, true)] {
            assert_eq!(write(&disk, index, &[9; 10_000], &mut spare), [index, index - 1]);
            assert_eq!(spare.is_some(), index != 8, "{index} {has_spare}");
        }
        disk.remove_file(&spare_path(path, 0)).unwrap();
        assert_eq!(write(&disk, 10, &[1; 10_000], &mut spare), [10, 9]);
    }

    #[test]
    fn spare_files_of_earlier_starts_are_removed_and_nothing_else() {
        let (disk, path) = (SimulatedDisk::new(), Path::new("/snapshots"));
        remove_spares(&disk, path).unwrap();
        disk.create_directory(path).unwrap();
        for name in ["spare-0.tmp", "spare-17.tmp", "spare", "other.tmp"] {
            disk.open(&path.join(name), OpenMode::WRITE.creating(Creation::IfMissing)).unwrap();
        }
        remove_spares(&disk, path).unwrap();
        assert_eq!(disk.list(path).unwrap(), ["other.tmp", "spare"]);
    }

    #[test]
    fn however_long_the_writes_are_the_file_is_the_same() {
        let bytes: Vec<u8> = (0..150_001_u32).map(|number| (number % 251) as u8).collect();
        for (write_bytes, piece_bytes) in [(16, 16), (16, 4), (16, 1), (2, 1)] {
            let disk = SimulatedDisk::new();
            let (path, any) = (Path::new("/snapshots"), Space { stream_bytes: 0, spared_bytes: 0 });
            let mut file =
                SnapshotFile::create(&disk, path, SHARD, INDEX, any, &mut None, write_bytes * BLOCK_BYTES).unwrap();
            file.append(&bytes[..70_000]).unwrap();
            file.write_in_pieces_of(piece_bytes * BLOCK_BYTES);
            file.append(&bytes[70_000..]).unwrap();
            assert_eq!(file.publish(None, None, |_| false).unwrap().0.bytes, bytes.len() as u64);
            let open = OpenSnapshot::open(&disk, path, SHARD, INDEX).unwrap().unwrap();
            let mut read = Vec::new();
            open.read(0, bytes.len() + 1, &mut read).unwrap();
            assert!(read == bytes, "{write_bytes} {piece_bytes}");
        }
    }
}
