//! What a simulated disk holds: files in sectors and directories of names, each as they are seen, as they are durable,
//! and what changes lie between.
//!
//! ```text
//! durable  + change + change + change            = cached, what is read
//!            each of them is lost or kept when the power is cut, in any combination; applied in their order
//! ```
//!
//! Invariants:
//! - `cached` is `durable` with every pending change of the node applied, and reads see nothing else. A write that
//!   failed is pending without being seen.
//! - Once a sector's change is durable, no older change to the same sector can come back.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Component, Path};
use std::sync::Arc;

/// What a disk writes whole, unless it tears it.
pub const SECTOR_BYTES: usize = 512;

type Sector = [u8; SECTOR_BYTES];

/// A file or directory, whatever its names.
pub(super) type NodeId = u64;

/// The directory above all.
pub(super) const ROOT: NodeId = 0;

/// The bytes of a file. Sectors that are not there are zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    sectors: BTreeMap<u64, Arc<Sector>>,
    pub(super) length: u64,
}

impl Contents {
    /// Fills `bytes` from `offset` on; returns how many the file has there.
    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> usize {
        let count = self.length.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let bytes = &mut bytes[..count];
        bytes.fill(0);
        let (first, end) = (offset / SECTOR, (offset + count as u64).div_ceil(SECTOR));
        for (index, sector) in self.sectors.range(first..end) {
            let start = index * SECTOR;
            let from = offset.max(start);
            let until = (offset + count as u64).min(start + SECTOR);
            bytes[(from - offset) as usize..(until - offset) as usize]
                .copy_from_slice(&sector[(from - start) as usize..(until - start) as usize]);
        }
        count
    }

    fn sector(&self, index: u64) -> Sector {
        self.sectors.get(&index).map_or([0; SECTOR_BYTES], |sector| **sector)
    }

    fn holds(&self, index: u64, content: &Sector) -> bool {
        self.sectors.get(&index).map_or(content == &[0; SECTOR_BYTES], |sector| **sector == *content)
    }

    fn set(&mut self, index: u64, content: &Arc<Sector>) {
        if **content == [0; SECTOR_BYTES] {
            self.sectors.remove(&index);
        } else {
            self.sectors.insert(index, Arc::clone(content));
        }
    }

    /// Nothing is left behind `length`, and what comes there later is zero.
    fn cut(&mut self, length: u64) {
        drop(self.sectors.split_off(&length.div_ceil(SECTOR)));
        let last = length / SECTOR;
        if let Some(sector) = self.sectors.get(&last) {
            let mut content = **sector;
            content[(length % SECTOR) as usize..].fill(0);
            self.set(last, &Arc::new(content));
        }
    }

    fn apply(&mut self, change: &FileChange) {
        match change {
            FileChange::Sector { index, content } => self.set(*index, content),
            FileChange::Length(length) => {
                if *length < self.length {
                    self.cut(*length);
                }
                self.length = *length;
            }
        }
    }
}

const SECTOR: u64 = SECTOR_BYTES as u64;

/// One thing that the power's end keeps or loses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileChange {
    Sector { index: u64, content: Arc<Sector> },
    Length(u64),
}

/// One change of a directory, kept or lost as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameChange {
    Link { name: String, node: NodeId },
    Unlink { name: String },
    Rename { from: String, to: String, node: NodeId },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, NodeId>) {
        match self {
            Self::Link { name, node } => drop(names.insert(name.clone(), *node)),
            Self::Unlink { name } => drop(names.remove(name)),
            Self::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// Whether a sync makes a change durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does.
    Cached,
    /// It does when the write of this number has been finished.
    InFlight(u64),
    /// Never: writing or syncing it has failed. It may have reached the disk nonetheless.
    Failed,
}

#[derive(Debug, Clone)]
struct Pending<C> {
    change: C,
    standing: Standing,
}

#[derive(Debug, Clone, Default)]
pub(super) struct FileNode {
    pub(super) cached: Contents,
    durable: Contents,
    pending: Vec<Pending<FileChange>>,
}

impl FileNode {
    fn push(&mut self, change: FileChange, standing: Standing) {
        if standing != Standing::Failed {
            self.cached.apply(&change);
        }
        self.pending.push(Pending { change, standing });
    }

    /// Writes into the cache. A sector that stays as it is makes no change.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, standing: Standing) {
        let end = offset + bytes.len() as u64;
        if end > self.cached.length {
            self.push(FileChange::Length(end), standing);
        }
        for index in offset / SECTOR..end.div_ceil(SECTOR) {
            let start = index * SECTOR;
            let (from, until) = (offset.max(start), end.min(start + SECTOR));
            let mut content = self.cached.sector(index);
            content[(from - start) as usize..(until - start) as usize]
                .copy_from_slice(&bytes[(from - offset) as usize..(until - offset) as usize]);
            if !self.cached.holds(index, &content) {
                self.push(FileChange::Sector { index, content: Arc::new(content) }, standing);
            }
        }
    }

    pub(super) fn set_length(&mut self, length: u64) {
        if length != self.cached.length {
            self.push(FileChange::Length(length), Standing::Cached);
        }
    }

    /// Makes durable what `is_meant` says, in order; and with a sector's change, nothing older of it stays.
    fn commit(&mut self, is_meant: impl Fn(&Pending<FileChange>) -> bool) {
        let mut left = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if !is_meant(&pending) {
                left.push(pending);
                continue;
            }
            if let FileChange::Sector { index: done, .. } = pending.change {
                left.retain(|older| !matches!(older.change, FileChange::Sector { index, .. } if index == done));
            }
            self.durable.apply(&pending.change);
        }
        self.pending = left;
    }

    pub(super) fn sync(&mut self) {
        self.commit(|pending| pending.standing == Standing::Cached);
    }

    /// A durable write of `count` bytes at `offset` is complete: its sectors, and the length that it needs.
    pub(super) fn sync_range(&mut self, offset: u64, count: usize, ticket: u64) {
        let range = offset / SECTOR..(offset + count as u64).div_ceil(SECTOR);
        self.commit(|pending| match (&pending.change, pending.standing) {
            (_, Standing::Failed) => false,
            (_, Standing::InFlight(number)) if number != ticket => false,
            (FileChange::Sector { index, .. }, _) => range.contains(index),
            (FileChange::Length(_), _) => true,
        });
    }

    /// The write of this number is complete, in the cache alone.
    pub(super) fn finish(&mut self, ticket: u64) {
        for pending in self.pending.iter_mut().filter(|pending| pending.standing == Standing::InFlight(ticket)) {
            pending.standing = Standing::Cached;
        }
    }

    /// Every write is complete, in the cache alone.
    fn finish_all(&mut self) {
        let in_flight = |standing| matches!(standing, Standing::InFlight(_));
        for pending in self.pending.iter_mut().filter(|pending| in_flight(pending.standing)) {
            pending.standing = Standing::Cached;
        }
    }

    /// A sync has failed: the system forgets what it should have written, reads still see it, and no later sync makes
    /// it durable.
    pub(super) fn fail(&mut self) {
        let cached = self.pending.iter_mut().filter(|pending| pending.standing == Standing::Cached);
        cached.for_each(|pending| pending.standing = Standing::Failed);
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct DirectoryNode {
    pub(super) cached: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
    pending: Vec<Pending<NameChange>>,
}

impl DirectoryNode {
    fn push(&mut self, change: NameChange) {
        change.apply(&mut self.cached);
        self.pending.push(Pending { change, standing: Standing::Cached });
    }

    pub(super) fn sync(&mut self) {
        let pending = std::mem::take(&mut self.pending).into_iter();
        let (meant, failed): (Vec<_>, Vec<_>) = pending.partition(|pending| pending.standing == Standing::Cached);
        meant.iter().for_each(|pending| pending.change.apply(&mut self.durable));
        self.pending = failed;
    }

    /// As [`FileNode::fail`].
    pub(super) fn fail(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.standing = Standing::Failed);
    }
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(FileNode),
    Directory(DirectoryNode),
}

/// What a pending change becomes when the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was never on disk.
    Lost,
    /// It is on disk.
    Kept,
    /// Of a sector, only so many of its first bytes are; a change that is no sector is kept.
    Torn(u16),
}

/// Everything on the disk. Cloning shares what does not change.
#[derive(Debug, Clone)]
pub(super) struct State {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    next_node: NodeId,
}

impl State {
    pub(super) fn empty() -> Self {
        let root = Arc::new(Node::Directory(DirectoryNode::default()));
        Self { nodes: BTreeMap::from([(ROOT, root)]), next_node: ROOT + 1 }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    pub(super) fn file(&self, id: NodeId) -> &FileNode {
        match self.node(id) {
            Node::File(file) => file,
            Node::Directory(_) => unreachable!("an open file is a file"),
        }
    }

    pub(super) fn file_mut(&mut self, id: NodeId) -> &mut FileNode {
        match Arc::make_mut(self.nodes.get_mut(&id).expect("an open file is there")) {
            Node::File(file) => file,
            Node::Directory(_) => unreachable!("an open file is a file"),
        }
    }

    pub(super) fn directory_mut(&mut self, id: NodeId) -> io::Result<&mut DirectoryNode> {
        match Arc::make_mut(self.nodes.get_mut(&id).expect("a name leads somewhere")) {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn directory(&self, id: NodeId) -> io::Result<&DirectoryNode> {
        match self.node(id) {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    /// Follows `path` from the root, whether it begins there or not: the simulated process works there.
    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for component in path.components() {
            if let Component::Normal(name) = component {
                let names = &self.directory(node)?.cached;
                let name = name.to_str().ok_or(ErrorKind::InvalidInput)?;
                node = *names.get(name).ok_or(ErrorKind::NotFound)?;
            }
        }
        Ok(node)
    }

    /// The directory of `path`, and its last name.
    fn find_parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(ErrorKind::InvalidInput)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.directory(parent)?;
        Ok((parent, name.to_owned()))
    }

    /// Gives a new node the name `path`, which is free.
    pub(super) fn create(&mut self, path: &Path, node: Node) -> io::Result<NodeId> {
        let (parent, name) = self.find_parent(path)?;
        if self.directory(parent)?.cached.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, Arc::new(node));
        self.directory_mut(parent)?.push(NameChange::Link { name, node: id });
        Ok(id)
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        if let Node::Directory(_) = self.node(self.find(path)?) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let (parent, name) = self.find_parent(path)?;
        self.directory_mut(parent)?.push(NameChange::Unlink { name });
        Ok(())
    }

    /// Within a directory it is one change. Between two it is one of each, which are lost apart: file systems with a
    /// journal do not, but nobody promises it.
    pub(super) fn rename(&mut self, old: &Path, new: &Path) -> io::Result<()> {
        let node = self.find(old)?;
        let ((parent, from), (new_parent, to)) = (self.find_parent(old)?, self.find_parent(new)?);
        if parent == new_parent {
            self.directory_mut(parent)?.push(NameChange::Rename { from, to, node });
        } else {
            self.directory_mut(new_parent)?.push(NameChange::Link { name: to, node });
            self.directory_mut(parent)?.push(NameChange::Unlink { name: from });
        }
        Ok(())
    }

    /// Every write is complete, in the cache alone.
    pub(super) fn finish_all(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = Arc::make_mut(node) {
                file.finish_all();
            }
        }
    }

    /// Bytes of all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        let mut directories = vec![ROOT];
        let mut used = 0;
        while let Some(directory) = directories.pop() {
            for &node in self.directory(directory).expect("a directory").cached.values() {
                match self.node(node) {
                    Node::File(file) => used += file.cached.length,
                    Node::Directory(_) => directories.push(node),
                }
            }
        }
        used
    }

    /// How many changes are pending.
    pub(super) fn pending(&self) -> usize {
        let pending = |node: &Arc<Node>| match &**node {
            Node::File(file) => file.pending.len(),
            Node::Directory(directory) => directory.pending.len(),
        };
        self.nodes.values().map(pending).sum()
    }

    /// What a start finds: the durable state, with the pending changes by their fates, which are asked for in one
    /// fixed order.
    pub(super) fn after_power_cut(&self, mut fate: impl FnMut() -> Fate) -> Self {
        let mut after = self.clone();
        for node in after.nodes.values_mut() {
            let has_pending = match &**node {
                Node::File(file) => !file.pending.is_empty(),
                Node::Directory(directory) => !directory.pending.is_empty(),
            };
            if has_pending {
                match Arc::make_mut(node) {
                    Node::File(file) => settle_file(file, &mut fate),
                    Node::Directory(directory) => settle_directory(directory, &mut fate),
                }
            }
        }
        after
    }

    /// Changes a file behind everybody's back, on the disk and in the cache.
    pub(super) fn overwrite(&mut self, id: NodeId, bytes: &[u8]) {
        let mut file = FileNode::default();
        file.write(bytes, 0, Standing::Cached);
        file.sync();
        *self.file_mut(id) = file;
    }

    /// Decay of what is durable and read.
    pub(super) fn flip_bit(&mut self, id: NodeId, bit: u64) {
        let file = self.file_mut(id);
        file.cached.flip_bit(bit);
        if bit / 8 < file.durable.length {
            file.durable.flip_bit(bit);
        }
    }
}

impl Contents {
    fn flip_bit(&mut self, bit: u64) {
        assert!(bit / 8 < self.length, "bit {bit} of a file of {} bytes", self.length);
        let index = bit / 8 / SECTOR;
        let mut content = self.sector(index);
        content[(bit / 8 % SECTOR) as usize] ^= 1 << (bit % 8);
        self.set(index, &Arc::new(content));
    }
}

fn settle_file(file: &mut FileNode, fate: &mut impl FnMut() -> Fate) {
    for pending in std::mem::take(&mut file.pending) {
        match (fate(), &pending.change) {
            (Fate::Lost, _) => {}
            (Fate::Torn(count), FileChange::Sector { index, content }) => {
                let mut torn = file.durable.sector(*index);
                let count = usize::from(count).min(SECTOR_BYTES);
                torn[..count].copy_from_slice(&content[..count]);
                file.durable.set(*index, &Arc::new(torn));
            }
            (Fate::Kept | Fate::Torn(_), change) => file.durable.apply(change),
        }
    }
    // A sector that was kept where the length was lost is out of reach.
    file.durable.cut(file.durable.length);
    file.cached = file.durable.clone();
}

fn settle_directory(directory: &mut DirectoryNode, fate: &mut impl FnMut() -> Fate) {
    for pending in std::mem::take(&mut directory.pending) {
        if fate() != Fate::Lost {
            pending.change.apply(&mut directory.durable);
        }
    }
    directory.cached = directory.durable.clone();
}
