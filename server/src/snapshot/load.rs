//! Reading the newest sound snapshot of a shard back, at start.
//!
//! Place in the flow: start-up, before the log is read: the log goes on where the snapshot ends.
//!
//! Invariants:
//! - A snapshot is believed whole or not at all: what was loaded of one that turns out damaged is thrown away.
//! - A damaged one is told, never removed: somebody may want to look at it, and the next ones push it out.
//!
//! Deliberately not here: whether the log still has what follows the snapshot; recovery finds that out.

use std::io;
use std::path::{Path, PathBuf};

use eyot_protocol::snapshot::{Chunk, Decoder, Entry, Event, LargeValue, ShardHeader, SnapshotError as FormatError};
use eyot_raft_glue::{EntryPosition, Index, ShardId, Term, Version};
use eyot_ring::MappedRegion;

use super::kept::Kept;
use super::store::{list, shard_directory, snapshot_path, Published, SnapshotError};
use crate::disk::{Disk, DiskFile, OpenMode};
#[cfg(test)]
use crate::prover::Planted;
use crate::shard::{GrowingValue, LoadError as EngineError, Shard, UploadError};

/// One read: long enough for a disk's full speed, and such that most messages lie whole in it.
const READ_BYTES: usize = 2 << 20;

/// More than a header takes.
const HEADER_READ_BYTES: usize = 4096;
/// Values below it are on the heap, whatever the settings: the least `--mmap-threshold`.
const HEAP_BYTES: usize = 4096;

/// Whose snapshot it must be.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// The node's random number.
    pub node_uuid: u128,
    /// The shard.
    pub shard: ShardId,
    /// Of so many.
    pub shard_count: u16,
}

impl Owner {
    /// What tells that a snapshot with this header, in the file for `index`, is another's.
    fn problem(&self, header: &ShardHeader, index: Index) -> Option<String> {
        let Self { node_uuid, shard, shard_count } = *self;
        if header.node_uuid != node_uuid {
            Some(format!("belongs to the node {:032x}, not to {node_uuid:032x}", header.node_uuid))
        } else if (header.shard, header.shard_count) != (shard.0, shard_count) {
            Some(format!("is of shard {} of {}, not of {} of {shard_count}", header.shard, header.shard_count, shard.0))
        } else if header.index != index.0 {
            Some(format!("was taken at index {}, and is not named so", header.index))
        } else {
            None
        }
    }
}

/// Why a snapshot was not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its bytes are not what was written.
    #[error("snapshot {path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        source: FormatError,
    },
    /// It is whole, and another's.
    #[error("snapshot {path} {problem}: put the file where it belongs, or remove it")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The engine does not take what it says.
    #[error("snapshot {path} cannot be loaded: {problem}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// It is sound, and there is no room for a large value of it.
    #[error("no room for a value of {bytes} bytes of snapshot {path}")]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// The value's.
        bytes: usize,
    },
    /// The system cannot read it.
    #[error("cannot read snapshot {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A snapshot that was passed over.
#[derive(Debug)]
pub struct Rejected {
    /// Its index.
    pub index: Index,
    /// Why.
    pub error: LoadError,
}

/// What was read back.
pub struct Loaded {
    /// The shard as it was then; empty where there is no sound snapshot.
    pub shard: Shard,
    /// The header of the snapshot; `None`: there was no sound one.
    pub header: Option<ShardHeader>,
    /// Entries in it.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Newer ones that could not be used.
    pub rejected: Vec<Rejected>,
    /// This one and the older ones, newest first. Of those only the beginning was read.
    pub kept: Vec<Kept>,
}

impl Loaded {
    /// Where the shard's log goes on: behind this.
    pub fn position(&self) -> EntryPosition {
        self.header.map_or(EntryPosition::default(), |header| EntryPosition {
            term: Term(header.term),
            index: Index(header.index),
        })
    }
}

/// Gives a large value its place; `None`: it belongs on the heap.
pub type Allocate<'a> = dyn FnMut(usize) -> io::Result<Option<MappedRegion>> + 'a;

/// Loads the newest sound snapshot of a shard into the shard that `fresh` makes.
///
/// # Errors
/// The system cannot read them, or has no room for their large values. Damage, and a file of another node, is no error:
/// it is told in [`Loaded::rejected`].
pub fn load_newest<D: Disk>(
    disk: &D,
    snapshots_directory: &Path,
    owner: Owner,
    now_us: i64,
    fresh: impl Fn() -> Shard,
    allocate: &mut Allocate<'_>,
) -> Result<Loaded, SnapshotError> {
    let directory = shard_directory(snapshots_directory, owner.shard);
    let published = list(disk, &directory)?;
    let mut rejected = Vec::new();
    for (place, candidate) in published.iter().enumerate() {
        let path = snapshot_path(&directory, candidate.index);
        let mut loading = Loading { shard: fresh(), owner, now_us, header: None, growing: None, entries: 0 };
        match loading.file(disk, &path, *candidate, allocate) {
            Ok(()) => {
                let Loading { shard, header, entries, .. } = loading;
                let older = published[place + 1..].iter().filter_map(|older| {
                    let header = read_header(disk, &snapshot_path(&directory, older.index))?;
                    owner.problem(&header, older.index).is_none().then_some(header)
                });
                let kept = header.into_iter().chain(older).map(kept_of).collect();
                return Ok(Loaded { shard, header, entries, bytes: candidate.bytes, rejected, kept });
            }
            // Neither says anything against the snapshot: an older one must not take its place for that.
            Err(LoadError::Io { path, source }) => return Err(SnapshotError::Io { action: "read", path, source }),
            Err(LoadError::NoRoom { path, .. }) => {
                let source = io::ErrorKind::StorageFull.into();
                return Err(SnapshotError::Io { action: "find room for the large values of", path, source });
            }
            Err(error) => rejected.push(Rejected { index: candidate.index, error }),
        }
    }
    Ok(Loaded { shard: fresh(), header: None, entries: 0, bytes: 0, rejected, kept: Vec::new() })
}

fn kept_of(header: ShardHeader) -> Kept {
    Kept { index: Index(header.index), needed_after: Index(header.needed_after) }
}

/// The header of a snapshot, if its beginning is sound.
fn read_header<D: Disk>(disk: &D, path: &Path) -> Option<ShardHeader> {
    let mut buffer = vec![0; HEADER_READ_BYTES];
    let count = disk.open(path, OpenMode::READ).ok()?.read_up_to(&mut buffer, 0).ok()?;
    match Decoder::new().next(&mut &buffer[..count]) {
        Ok(Some(Event::ShardHeader(header))) => Some(header),
        _ => None,
    }
}

/// A snapshot on its way into a shard.
struct Loading {
    shard: Shard,
    owner: Owner,
    now_us: i64,
    header: Option<ShardHeader>,
    /// A large value whose parts come, with what it is for.
    growing: Option<(GrowingValue, Vec<u8>, Version, Option<i64>)>,
    entries: u64,
}

/// What is wrong, before the path is known.
enum Problem {
    Format(FormatError),
    Foreign(String),
    Refused(String),
    NoRoom(usize),
}

impl From<FormatError> for Problem {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl Loading {
    fn file<D: Disk>(
        &mut self,
        disk: &D,
        path: &Path,
        published: Published,
        allocate: &mut Allocate<'_>,
    ) -> Result<(), LoadError> {
        let io = |source| LoadError::Io { path: path.to_owned(), source };
        let file = disk.open(path, OpenMode::READ).map_err(io)?;
        let (mut decoder, mut offset) = (Decoder::new(), 0);
        let mut buffer = vec![0; published.bytes.clamp(1, READ_BYTES as u64) as usize];
        let named = |problem| match problem {
            Problem::Format(source) => LoadError::Damaged { path: path.to_owned(), source },
            Problem::Foreign(problem) => LoadError::Foreign { path: path.to_owned(), problem },
            Problem::Refused(problem) => LoadError::Refused { path: path.to_owned(), problem },
            Problem::NoRoom(bytes) => LoadError::NoRoom { path: path.to_owned(), bytes },
        };
        loop {
            let count = file.read_up_to(&mut buffer, offset).map_err(io)?;
            if count == 0 {
                break;
            }
            offset += count as u64;
            self.piece(&mut decoder, &buffer[..count], published.index, allocate).map_err(named)?;
        }
        let finished = decoder.finish();
        #[cfg(test)]
        let finished = finished.or_else(|error| crate::prover::unless_planted(Planted::FooterNotChecked, error));
        finished.map_err(|error| named(Problem::Format(error)))?;
        if self.header.is_none() {
            return Err(named(Problem::Foreign("is no snapshot of a shard".to_owned())));
        }
        Ok(())
    }

    fn piece(
        &mut self,
        decoder: &mut Decoder,
        mut piece: &[u8],
        index: Index,
        allocate: &mut Allocate<'_>,
    ) -> Result<(), Problem> {
        while let Some(event) = decoder.next(&mut piece)? {
            match event {
                Event::ShardHeader(header) => self.take_header(header, index)?,
                Event::Chunk(chunk) => self.take_chunk(*chunk, allocate)?,
                Event::LargeValue(value) => self.begin_value(&value, allocate)?,
                Event::ValuePart { bytes, is_last } => self.take_part(bytes, is_last)?,
                Event::FileHeader(_) | Event::FileFooter(_) => {
                    return Err(Problem::Foreign(
                        "is a whole database: restore it with eyot snapshot restore".to_owned(),
                    ))
                }
                Event::ShardFooter(_) | Event::Unknown => {}
            }
        }
        Ok(())
    }

    fn take_header(&mut self, header: ShardHeader, index: Index) -> Result<(), Problem> {
        if let Some(problem) = self.owner.problem(&header, index) {
            return Err(Problem::Foreign(problem));
        }
        self.header = Some(header);
        Ok(())
    }

    fn take_chunk(&mut self, mut chunk: Chunk<'_>, allocate: &mut Allocate<'_>) -> Result<(), Problem> {
        while let Some(Entry { key, value, version, expires_at_us, .. }) = chunk.next_entry()? {
            self.entries += 1;
            let (version, now_us) = (Version(version), self.now_us);
            // Small values are by far the most: nobody is asked where those go.
            if value.len() < HEAP_BYTES {
                self.shard.load(key, value, version, expires_at_us, now_us)?;
                continue;
            }
            let mut growing =
                GrowingValue::new(value.len(), &mut *allocate).map_err(|_| Problem::NoRoom(value.len()))?;
            growing.push(value)?;
            self.shard.load(key, growing.into_whole()?, version, expires_at_us, now_us)?;
        }
        Ok(())
    }

    fn begin_value(&mut self, value: &LargeValue<'_>, allocate: &mut Allocate<'_>) -> Result<(), Problem> {
        let total = usize::try_from(value.value_bytes).map_err(|_| Problem::Refused("a value too long".to_owned()))?;
        let growing = GrowingValue::new(total, allocate).map_err(|_| Problem::NoRoom(total))?;
        self.growing = Some((growing, value.key.to_vec(), Version(value.version), value.expires_at_us));
        Ok(())
    }

    fn take_part(&mut self, bytes: &[u8], is_last: bool) -> Result<(), Problem> {
        let missing = || Problem::Refused("a part without its value".to_owned());
        self.growing.as_mut().ok_or_else(missing)?.0.push(bytes)?;
        if is_last {
            let (growing, key, version, expires_at_us) = self.growing.take().ok_or_else(missing)?;
            self.entries += 1;
            self.shard.load(&key, growing.into_whole()?, version, expires_at_us, self.now_us)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use eyot_protocol::snapshot::ShardWriter;

    use super::*;
    use crate::disk::SimulatedDisk;
    use crate::snapshot::{SnapshotFile, Space, WRITE_BYTES};

    const OWNER: Owner = Owner { node_uuid: 5, shard: ShardId(1), shard_count: 2 };

    /// A snapshot without entries in the file for `index`, with a header that says so of `owner`.
    fn write(disk: &SimulatedDisk, owner: Owner, index: u64, beside: Option<Index>) {
        let Owner { node_uuid, shard, shard_count } = owner;
        let header = ShardHeader {
            node_uuid,
            shard: shard.0,
            shard_count,
            index,
            term: 1,
            needed_after: index.saturating_sub(1),
        };
        let mut bytes = Vec::new();
        ShardWriter::new(header, &mut bytes).finish(&mut bytes).expect("nothing is half written");
        let (path, any) = (Path::new("/snapshots"), Space { stream_bytes: 0, spared_bytes: 0 });
        let mut file =
            SnapshotFile::create(disk, path, OWNER.shard, Index(index), any, &mut None, WRITE_BYTES).unwrap();
        file.append(&bytes).unwrap();
        file.publish(beside, None, |_| false).unwrap();
    }

    fn load(disk: &SimulatedDisk) -> Loaded {
        let fresh = || Shard::new(OWNER.shard, OWNER.shard_count, 1);
        load_newest(disk, Path::new("/snapshots"), OWNER, 1, fresh, &mut |_| Ok(None)).expect("it can be read")
    }

    #[test]
    fn an_older_snapshot_of_another_node_or_shard_does_not_count_as_kept() {
        for (foreign, is_kept) in [
            (OWNER, true),
            (Owner { node_uuid: 6, ..OWNER }, false),
            (Owner { shard: ShardId(0), ..OWNER }, false),
            (Owner { shard_count: 3, ..OWNER }, false),
        ] {
            let disk = SimulatedDisk::new();
            write(&disk, foreign, 7, None);
            write(&disk, OWNER, 9, Some(Index(7)));
            let kept: Vec<u64> = load(&disk).kept.iter().map(|kept| kept.index.0).collect();
            assert_eq!(kept, if is_kept { vec![9, 7] } else { vec![9] }, "{foreign:?}");
        }
    }

    #[test]
    fn a_newer_snapshot_of_another_node_is_passed_over_and_told() {
        let disk = SimulatedDisk::new();
        write(&disk, OWNER, 7, None);
        write(&disk, Owner { node_uuid: 6, ..OWNER }, 9, Some(Index(7)));
        let loaded = load(&disk);
        assert_eq!(loaded.header.map(|header| header.index), Some(7));
        let told = loaded.rejected[0].error.to_string();
        assert!(told.contains("belongs to the node 00000000000000000000000000000006"), "{told}");
    }
}
