//! Opens or creates the data directory.
//!
//! ```text
//! <data>/LOCK        locked (flock) as long as the process lives; holds its process id
//! <data>/IDENTITY    what the node is, as text (below); written once, replaced never
//! <data>/wal/        the logs
//!
//! format=1
//! node_uuid=<32 hexadecimal digits>
//! node_id=<name>
//! shards=<number>
//! created_at_us=<microseconds since the epoch>
//! crc32c=<8 hexadecimal digits: of all bytes before this line>
//! ```
//!
//! Place in the flow: start-up, before recovery.
//!
//! Invariants:
//! - The identity is durable before anything is stored, and is written by rename, so it is whole or absent.
//! - A directory that has logs but no identity is not given a new one: its logs would become another node's.
//! - The number of shards is the one that the directory was created with.
//!
//! Deliberately not here: the clock (the caller says when the directory was created).

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{is_full, Creation, Disk, DiskFile, OpenMode, RealDisk};

const FORMAT: u32 = 1;
const LOCK: &str = "LOCK";
const IDENTITY: &str = "IDENTITY";
const IDENTITY_TEMPORARY: &str = "IDENTITY.tmp";
const WAL: &str = "wal";
const SNAPSHOTS: &str = "snapshots";
const KERNEL_RANDOM: &str = "/dev/urandom";
/// Longest name of a node: it is shown in one line of logs and metrics.
const NODE_ID_BYTES_MAX: usize = 64;
/// An identity is six short lines; a longer file is not one, and is not read whole.
const IDENTITY_BYTES_MAX: usize = 4096;
/// A process id and a line's end, and more: what is read of a lock file.
const LOCK_BYTES_MAX: usize = 32;

/// What the user asked for.
#[derive(Debug, Clone, Copy)]
pub struct NewIdentity<'a> {
    /// The node's name: 1 to 64 of the characters `A-Z a-z 0-9 . _ -`. `None`: the directory's, or one made up.
    pub node_id: Option<&'a str>,
    /// The number of shards, if the user asked for one.
    pub shards: Option<u16>,
    /// The number of shards of a new directory otherwise; at least 1.
    pub shards_default: u16,
    /// The time now, in microseconds since the epoch.
    pub now_us: i64,
}

/// What the directory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A random number that keys every checksum of the node's logs.
    pub node_uuid: u128,
    /// The node's name.
    pub node_id: String,
    /// The number of shards, at least 1.
    pub shards: u16,
    /// When the directory was created, in microseconds since the epoch.
    pub created_at_us: i64,
}

/// The data directory, which is this process's alone until it is dropped.
#[derive(Debug)]
pub struct DataDir<D: Disk = RealDisk> {
    path: PathBuf,
    identity: Identity,
    is_new: bool,
    _lock: D::File,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The path is something else.
    #[error("data directory {path} is not a directory: choose another path with --data-dir")]
    NotADirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The system does not let this user write there.
    #[error(
        "data directory {path} is not writable: {source}: give the directory to the user that runs the server, or \
        choose another with --data-dir"
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is full, or the quota used up.
    #[error("no space in data directory {path}: {source}: free space, or choose another disk with --data-dir")]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "data directory {path} is in use by process {process}: stop that process, or choose another directory \
        with --data-dir"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id that the lock file names; `unknown` if it names none.
        process: String,
    },
    /// The identity file does not say what it should.
    #[error(
        "identity file {path} is damaged: {problem}: restore it from a backup (a cluster's node may also start \
        again with an empty directory)"
    )]
    DamagedIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There are logs, but no identity.
    #[error(
        "data directory {path} has logs, but no file IDENTITY: restore the file from a backup, without it the \
        logs cannot be read"
    )]
    MissingIdentity {
        /// The directory.
        path: PathBuf,
    },
    /// A newer server wrote it.
    #[error(
        "{path} has data directory format {found}, this server knows up to {FORMAT}: start the newer server again"
    )]
    NewerFormat {
        /// The identity file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Another number of shards was asked for.
    #[error(
        "data directory {path} has {found} shards, {wanted} were asked for: their number is fixed when the \
        directory is created; leave --shards out, or start with an empty directory"
    )]
    ShardsFixed {
        /// The directory.
        path: PathBuf,
        /// The directory's number.
        found: u16,
        /// The number asked for.
        wanted: u16,
    },
    /// Another node's directory.
    #[error(
        "data directory {path} belongs to node {found}, not to {wanted}: start with --node-id {found}, or choose \
        this node's own directory with --data-dir"
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// The directory's node.
        found: String,
        /// The node asked for.
        wanted: String,
    },
    /// A name that a node cannot have.
    #[error("node id {node_id:?}: use 1 to {NODE_ID_BYTES_MAX} of the characters A-Z a-z 0-9 . _ -")]
    InvalidNodeId {
        /// The name.
        node_id: String,
    },
    /// A number of shards that a database cannot have.
    #[error("0 shards: a database needs at least one")]
    NoShards,
    /// Anything else that the system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl<D: Disk> DataDir<D> {
    /// Opens the directory at `path`, which is created with a new identity if it does not exist or is empty. Blocks.
    pub fn open(disk: &D, path: &Path, wanted: NewIdentity<'_>) -> Result<Self, DataDirError> {
        check_wanted(&wanted)?;
        create_directories(disk, path)?;
        let lock = lock(disk, path)?;
        let (identity, is_new) = match read_identity(disk, path)? {
            Some(identity) => (identity, false),
            None => (create_identity(disk, path, &wanted)?, true),
        };
        check_identity(path, &identity, &wanted)?;
        create_directory(disk, &path.join(WAL))?;
        // An earlier start may have stopped between creating these names and making them durable.
        sync_directory(disk, path)?;
        Ok(Self { path: path.to_owned(), identity, is_new, _lock: lock })
    }

    /// The path that it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who the node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether this call created the identity.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the snapshots are; it may not exist.
    pub fn snapshots_directory(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }

    /// Where the logs are; it exists.
    pub fn wal_directory(&self) -> PathBuf {
        self.path.join(WAL)
    }
}

fn check_wanted(wanted: &NewIdentity<'_>) -> Result<(), DataDirError> {
    if let Some(node_id) = wanted.node_id.filter(|node_id| !is_node_id(node_id)) {
        return Err(DataDirError::InvalidNodeId { node_id: node_id.to_owned() });
    }
    if wanted.shards.unwrap_or(wanted.shards_default) == 0 {
        return Err(DataDirError::NoShards);
    }
    Ok(())
}

fn is_node_id(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NODE_ID_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn check_identity(path: &Path, found: &Identity, wanted: &NewIdentity<'_>) -> Result<(), DataDirError> {
    if let Some(shards) = wanted.shards.filter(|shards| *shards != found.shards) {
        return Err(DataDirError::ShardsFixed { path: path.to_owned(), found: found.shards, wanted: shards });
    }
    if let Some(node_id) = wanted.node_id.filter(|node_id| *node_id != found.node_id) {
        let (found, wanted) = (found.node_id.clone(), node_id.to_owned());
        return Err(DataDirError::OtherNode { path: path.to_owned(), found, wanted });
    }
    Ok(())
}

/// Creates the directory and those above it that are missing; each one's name is durable before it is used.
fn create_directories<D: Disk>(disk: &D, path: &Path) -> Result<(), DataDirError> {
    let is_missing = |path: &Path| !path.as_os_str().is_empty() && disk.metadata(path).is_err();
    let missing: Vec<&Path> = path.ancestors().take_while(|path| is_missing(path)).collect();
    for directory in missing.into_iter().rev() {
        create_directory(disk, directory)?;
    }
    if !disk.metadata(path).is_ok_and(|metadata| metadata.is_directory) {
        return Err(DataDirError::NotADirectory { path: path.to_owned() });
    }
    match sync_parent(disk, path) {
        // A directory that exists may stand in one that this user may not read: whoever created it made it durable.
        Err(DataDirError::NotWritable { .. }) => Ok(()),
        outcome => outcome,
    }
}

/// Creates one directory for this user alone, if it does not exist.
fn create_directory<D: Disk>(disk: &D, path: &Path) -> Result<(), DataDirError> {
    match disk.create_directory(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            Err(DataDirError::NotADirectory { path: path.to_owned() })
        }
        Err(error) => Err(refused("create", path)(error)),
        Ok(()) => sync_parent(disk, path),
    }
}

/// Makes the name of `path` durable.
fn sync_parent<D: Disk>(disk: &D, path: &Path) -> Result<(), DataDirError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(disk, parent.unwrap_or(Path::new(".")))
}

/// Takes the lock, and leaves this process's id for whoever finds it taken.
fn lock<D: Disk>(disk: &D, path: &Path) -> Result<D::File, DataDirError> {
    let file_path = path.join(LOCK);
    let open = disk.open(&file_path, OpenMode::WRITE.creating(Creation::IfMissing));
    let file = open.map_err(refused("open", &file_path))?;
    if !file.try_lock_exclusive().map_err(refused("lock", &file_path))? {
        let process = process_in(&file).map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        return Err(DataDirError::Locked { path: path.to_owned(), process });
    }
    file.set_length(0).map_err(refused("write", &file_path))?;
    let id = format!("{}\n", std::process::id());
    file.write_all_at(id.as_bytes(), 0).map_err(refused("write", &file_path))?;
    Ok(file)
}

/// The process id in a lock file. It only helps: a file that cannot be read leaves it unknown.
fn process_in(lock: &impl DiskFile) -> Option<u32> {
    let mut bytes = [0; LOCK_BYTES_MAX];
    let length = lock.read_up_to(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..length]).ok()?.trim().parse().ok()
}

fn create_identity<D: Disk>(disk: &D, path: &Path, wanted: &NewIdentity<'_>) -> Result<Identity, DataDirError> {
    if has_logs(disk, &path.join(WAL))? {
        return Err(DataDirError::MissingIdentity { path: path.to_owned() });
    }
    let node_uuid = u128::from_le_bytes(random()?);
    let identity = Identity {
        node_uuid,
        // By chance, too, and not made of the number: everybody is told the name.
        node_id: match wanted.node_id {
            Some(node_id) => node_id.to_owned(),
            None => format!("eyot-{:08x}", u32::from_le_bytes(random()?)),
        },
        shards: wanted.shards.unwrap_or(wanted.shards_default),
        created_at_us: wanted.now_us,
    };
    let temporary = path.join(IDENTITY_TEMPORARY);
    let write = || {
        let file = disk.open(&temporary, OpenMode::WRITE.creating(Creation::Emptied))?;
        file.write_all_at(identity.encode().as_bytes(), 0)?;
        file.sync()?;
        disk.rename(&temporary, &path.join(IDENTITY))
    };
    write().map_err(refused("write", &temporary))?;
    sync_directory(disk, path)?;
    Ok(identity)
}

fn has_logs<D: Disk>(disk: &D, wal_directory: &Path) -> Result<bool, DataDirError> {
    match disk.list(wal_directory) {
        Ok(names) => Ok(!names.is_empty()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused("list", wal_directory)(error)),
    }
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], DataDirError> {
    kernel_random().map_err(refused("read", Path::new(KERNEL_RANDOM)))
}

/// Random bytes of the kernel's, which nobody can foretell.
///
/// # Errors
/// The device cannot be read.
pub fn kernel_random<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    File::open(KERNEL_RANDOM)?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The identity of the directory; `None` if it has none yet.
fn read_identity<D: Disk>(disk: &D, path: &Path) -> Result<Option<Identity>, DataDirError> {
    let path = path.join(IDENTITY);
    let file = match disk.open(&path, OpenMode::READ) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused("open", &path)(error)),
    };
    let mut bytes = [0; IDENTITY_BYTES_MAX];
    let length = file.read_up_to(&mut bytes, 0).map_err(refused("read", &path))?;
    match Identity::decode(&bytes[..length]) {
        Ok(identity) => Ok(Some(identity)),
        Err(DecodeError::Newer(found)) => Err(DataDirError::NewerFormat { path, found }),
        Err(DecodeError::Damaged(problem)) => Err(DataDirError::DamagedIdentity { path, problem }),
    }
}

enum DecodeError {
    Newer(u32),
    Damaged(String),
}

impl Identity {
    fn encode(&self) -> String {
        let Self { node_uuid, node_id, shards, created_at_us } = self;
        let mut text = format!("format={FORMAT}\nnode_uuid={node_uuid:032x}\nnode_id={node_id}\n");
        writeln!(text, "shards={shards}\ncreated_at_us={created_at_us}").expect("a string takes any text");
        let checksum = crc32c::crc32c(text.as_bytes());
        writeln!(text, "crc32c={checksum:08x}").expect("a string takes any text");
        text
    }

    /// Reads the lines, in their order. The checksum comes first: a later format may have other lines, under the same
    /// rule.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let damaged = |problem: &str| DecodeError::Damaged(problem.to_owned());
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let (content, checksum) = text.rsplit_once("crc32c=").ok_or_else(|| damaged("it has no line crc32c"))?;
        if checksum != format!("{:08x}\n", crc32c::crc32c(content.as_bytes())) {
            return Err(damaged("its checksum does not match"));
        }
        let mut lines = content.lines();
        let mut next = |name: &str| {
            let value = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.ok_or_else(|| DecodeError::Damaged(format!("it has no line {name} where it belongs")))
        };
        let format = next("format")?.parse().map_err(|_| damaged("format is not a number"))?;
        if format != FORMAT {
            return Err(DecodeError::Newer(format));
        }
        let node_uuid =
            u128::from_str_radix(next("node_uuid")?, 16).map_err(|_| damaged("node_uuid is not a number"))?;
        let node_id = next("node_id")?.to_owned();
        let shards = next("shards")?.parse().map_err(|_| damaged("shards is not a number"))?;
        let created_at_us = next("created_at_us")?.parse().map_err(|_| damaged("created_at_us is not a number"))?;
        if shards == 0 || !is_node_id(&node_id) || lines.next().is_some() {
            return Err(damaged("its values are out of bounds"));
        }
        Ok(Self { node_uuid, node_id, shards, created_at_us })
    }
}

fn sync_directory<D: Disk>(disk: &D, path: &Path) -> Result<(), DataDirError> {
    disk.sync_directory(path).map_err(refused("sync", path))
}

/// Turns what the system said into the error that names its remedy.
fn refused<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            DataDirError::NotWritable { path: path.to_owned(), source }
        }
        _ if is_full(&source) => DataDirError::NoSpace { path: path.to_owned(), source },
        _ => DataDirError::Io { action, path: path.to_owned(), source },
    }
}
