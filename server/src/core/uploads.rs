//! Large values on their way into the log: in parts, while there is room for them, and then the command.
//!
//! Place in the flow: steps 5 and 6, on the core that owns the key. The value is in a value file already, this core's
//! or another's; what is copied into the log's buffers is the only copy that is made of it.
//!
//! Invariants:
//! - Parts of a value that still comes are copied into the log's buffers while less than [`UPLOAD_PENDING_BYTES`] wait
//!   for the disk; those of a value that is there are appended by reference, and copied when their write starts. So
//!   neither memory beyond the file nor a turn grows with the value.
//! - Where replies wait for the disk, the same bound holds for both, and the entries of others are written between
//!   parts. Where they do not, [`REFERENCED_BYTES_MAX`] may wait: the reply is not kept by a disk that is slower than
//!   the network.
//! - The command follows its last part in the same shard's log. What never gets one is given up by a part that says so;
//!   after a crash, recovery drops it.
//! - A turn looks at the uploads of which something has come, and at no others: thousands that stand still cost it
//!   nothing.
//! - A part is copied when its bytes have just come, or after its pages were seen to be in memory: the core does not
//!   wait for the disk. A value of which pages have left memory meanwhile is read anyway, after the ring brought them
//!   ([`CoreLog::take_wanted_pages`](super::log::CoreLog::take_wanted_pages)).

use std::collections::{HashMap, VecDeque};

use eyot_protocol::command::{Command, Value};
use eyot_protocol::key::slot;
use eyot_protocol::value_part::{UploadId, ValuePart, MAX_PART_BYTES};
use eyot_protocol::ErrorCode;
use eyot_ring::MappedBytes;

use super::large_requests::LargeRequest;
use super::Work;
use crate::replication::WriteAck;
use crate::router::mesh::ForwardedRequest;
use crate::router::{Reply, ReplySink, ReplyTo};
use crate::security::admit::DISK_IS_FULL;
use crate::shard::WholeValue;

/// Bytes that may wait for the disk while parts are added: enough for both writes in flight and the next one.
pub const UPLOAD_PENDING_BYTES: usize = 3 << 20;
/// Without `--sync-writes`, bytes of parts that may wait for the disk in their value file: one value of the default
/// limit. Beyond it the disk is that far behind, and the next large value waits.
pub const REFERENCED_BYTES_MAX: usize = 64 << 20;
/// Parts that one turn adds.
const PARTS_PER_TURN: usize = 2;
/// Room for a part's own headers in a segment.
const PART_SLACK_BYTES: u64 = 64 * 1024;

/// Where an upload's bytes are.
#[derive(Debug)]
enum Source {
    /// They still come, by this connection, of this generation.
    Coming(u32, u32),
    /// All of them are there.
    Whole(MappedBytes),
}

/// What is to be written when all parts are.
#[derive(Debug)]
struct Finish {
    to: ReplyTo,
    /// The SET as it stands in an entry, naming no upload yet.
    command: Vec<u8>,
    ack: WriteAck,
    deadline_us: u64,
}

/// A value on its way into the log.
#[derive(Debug)]
struct Upload {
    id: UploadId,
    local_shard: u16,
    value_bytes: usize,
    logged_bytes: usize,
    source: Source,
    finish: Option<Finish>,
    /// Whether pages of it are being brought into memory.
    paging: bool,
    /// Whether it is in a list of those that are to be looked at.
    is_listed: bool,
}

impl Upload {
    fn is_whole(&self) -> bool {
        matches!(self.source, Source::Whole(_))
    }
}

/// The values of one core that are on their way into its log.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    #[allow(clippy::struct_field_names)] // What else could they be.
    uploads: HashMap<UploadId, Upload>,
    /// Those of which something may be logged, or which may be over, in turn.
    ready: VecDeque<UploadId>,
    /// Those that wait until less waits for the disk: values that still come, and whole ones.
    blocked: [VecDeque<UploadId>; 2],
    /// Bytes of the values that have come and are not logged.
    whole_bytes: u64,
    epoch: u64,
    next_number: u32,
    /// Whether something has come since the parts of this turn were logged: another turn finds it.
    has_news: bool,
}

impl Uploads {
    /// None yet, of the node's start `epoch`.
    pub fn new(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Whether a turn would find something to log.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.has_news
    }

    fn add(&mut self, local_shard: u16, value_bytes: usize, source: Source, finish: Option<Finish>) -> UploadId {
        self.next_number = self.next_number.wrapping_add(1);
        let id = UploadId::new(self.epoch, self.next_number);
        self.whole_bytes += if matches!(source, Source::Whole(_)) { value_bytes as u64 } else { 0 };
        let (logged_bytes, paging, is_listed) = (0, false, false);
        self.uploads
            .insert(id, Upload { id, local_shard, value_bytes, logged_bytes, source, finish, paging, is_listed });
        self.note_news(Some(id));
        id
    }

    /// Notes that bytes of a value have come, that its pages have, or that it will not come.
    pub fn note_news(&mut self, id: Option<UploadId>) {
        let Some(upload) = id.and_then(|id| self.uploads.get_mut(&id)) else { return };
        self.has_news = true;
        if !std::mem::replace(&mut upload.is_listed, true) {
            self.ready.push_back(upload.id);
        }
    }

    /// Has some of those looked at again that waited for the disk.
    fn unblock(&mut self, is_whole: bool, count: usize) {
        let blocked = &mut self.blocked[usize::from(is_whole)];
        let end = count.min(blocked.len());
        self.ready.extend(blocked.drain(..end));
    }

    /// The next one that is to be looked at, taken out.
    fn take_ready(&mut self) -> Option<Upload> {
        // One that is over may still be named.
        while let Some(id) = self.ready.pop_front() {
            if let Some(mut upload) = self.uploads.remove(&id) {
                upload.is_listed = false;
                return Some(upload);
            }
        }
        None
    }

    /// Puts one back that was looked at, unless it is over.
    fn put_back(&mut self, mut upload: Upload, progress: Progress) {
        let (id, is_whole) = (upload.id, upload.is_whole());
        match progress {
            Progress::Over => {
                self.whole_bytes -= if is_whole { upload.value_bytes as u64 } else { 0 };
                return;
            }
            Progress::Waits => {}
            Progress::Part => self.ready.push_back(id),
            Progress::Blocked => self.blocked[usize::from(is_whole)].push_back(id),
        }
        upload.is_listed = !matches!(progress, Progress::Waits);
        self.uploads.insert(id, upload);
    }

    fn take_all(&mut self) -> impl Iterator<Item = Upload> {
        self.ready.clear();
        self.blocked.iter_mut().for_each(VecDeque::clear);
        self.whole_bytes = 0;
        std::mem::take(&mut self.uploads).into_values()
    }

    /// Bytes of the values that have come and are not logged.
    pub fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.uploads.is_empty()
    }
}

impl Work {
    /// Opens the upload of a value that comes by connection `key`.
    pub(super) fn open_upload(&mut self, key: u32, generation: u32, local_shard: u16, value_bytes: usize) -> UploadId {
        self.uploads.add(local_shard, value_bytes, Source::Coming(key, generation), None)
    }

    /// All of an upload's value is there, and its command is known.
    pub(super) fn upload_has_come(
        &mut self,
        id: UploadId,
        to: ReplyTo,
        command: Vec<u8>,
        ack: WriteAck,
        deadline_us: u64,
        value: MappedBytes,
    ) {
        let upload = self.uploads.uploads.get_mut(&id).expect("an upload lives as long as its request");
        upload.source = Source::Whole(value);
        upload.finish = Some(Finish { to, command, ack, deadline_us });
        self.uploads.whole_bytes += upload.value_bytes as u64;
        // Whole, it waits for something else, if at all.
        upload.is_listed = false;
        self.uploads.note_news(Some(id));
    }

    /// Takes a SET of a large value that another core has received.
    pub(super) fn large_set_of_other_core(&mut self, head: &ForwardedRequest, command: &[u8], value: MappedBytes) {
        let ForwardedRequest { reply_to: to, deadline_us, local_shard, ack, .. } = *head;
        if let Err((code, message)) = self.admit_large(value.len(), true) {
            self.outlet().reply(&to, Reply::Error(code, message));
            return;
        }
        let finish = Finish { to, command: command.to_vec(), ack, deadline_us };
        self.uploads.add(local_shard, value.len(), Source::Whole(value), Some(finish));
    }

    /// Logs what may be logged of the uploads, in turn.
    pub(super) fn log_uploads(&mut self) {
        self.uploads.has_news = false;
        if !self.uploads.is_empty() && !self.disk_has_room_for_parts() {
            self.refuse_uploads();
            return;
        }
        for is_whole in [false, true] {
            if self.may_add_part(is_whole) {
                self.uploads.unblock(is_whole, PARTS_PER_TURN);
            }
        }
        let mut parts = 0;
        while parts < PARTS_PER_TURN {
            let Some(mut upload) = self.uploads.take_ready() else { break };
            let progress = self.log_part_of(&mut upload);
            parts += usize::from(matches!(progress, Progress::Part));
            self.uploads.put_back(upload, progress);
        }
        // What waits for the disk is looked at when a write has ended, which is a turn.
        let unblocked = [false, true]
            .into_iter()
            .any(|is_whole| !self.uploads.blocked[usize::from(is_whole)].is_empty() && self.may_add_part(is_whole));
        self.uploads.has_news = parts == PARTS_PER_TURN || unblocked;
    }

    fn disk_has_room_for_parts(&self) -> bool {
        self.log.blocked().is_none()
            || self.log.writable_bytes() > self.log.pending_bytes() as u64 + MAX_PART_BYTES as u64 + PART_SLACK_BYTES
    }

    /// Whether so little waits for the disk that a further part may.
    fn may_add_part(&self, is_whole: bool) -> bool {
        if is_whole && !self.shared.settings.sync_writes {
            self.log.referenced_bytes() < REFERENCED_BYTES_MAX
        } else {
            self.log.pending_bytes() < UPLOAD_PENDING_BYTES
        }
    }

    /// The disk is full, and it is not known for how long: who waits is told, as with any other write.
    fn refuse_uploads(&mut self) {
        for upload in self.uploads.take_all() {
            self.shards[usize::from(upload.local_shard)].abandon_upload(upload.id);
            match (upload.source, upload.finish) {
                (_, Some(finish)) => {
                    self.outlet().reply(&finish.to, Reply::Error(ErrorCode::NoSpace, DISK_IS_FULL));
                }
                (Source::Coming(key, _), None) => {
                    if let Some(request) = self.large_requests.get_mut(key) {
                        (request.upload, request.refused) = (None, Some((ErrorCode::NoSpace, DISK_IS_FULL)));
                    }
                }
                (Source::Whole(_), None) => unreachable!("a value that has come has its command"),
            }
        }
    }

    fn log_part_of(&mut self, upload: &mut Upload) -> Progress {
        let Upload { id, local_shard, value_bytes, logged_bytes, .. } = *upload;
        let there = match &upload.source {
            Source::Whole(value) => value.bytes(),
            Source::Coming(key, generation) => {
                let held = self.connections.get_of(*key, *generation).is_some();
                match self.large_requests.get(*key).filter(|request| held && request.upload == Some(id)) {
                    Some(request) => request.value_filled(),
                    None => {
                        self.give_up_upload(upload);
                        return Progress::Over;
                    }
                }
            }
        };
        let part_bytes = (there.len() - logged_bytes).min(MAX_PART_BYTES).min(self.log.part_bytes_max());
        let is_last = logged_bytes + part_bytes == value_bytes;
        if part_bytes > 0 && (is_last || part_bytes == MAX_PART_BYTES.min(self.log.part_bytes_max())) {
            if !self.may_add_part(upload.is_whole()) {
                return Progress::Blocked;
            }
            let range = logged_bytes..logged_bytes + part_bytes;
            if let Source::Whole(value) = &upload.source {
                if !value.is_resident(range.clone()) {
                    if !std::mem::replace(&mut upload.paging, true) {
                        self.paging.bring(id.0, value.clone(), range);
                    }
                    return Progress::Waits;
                }
            }
            if self.shards[usize::from(local_shard)].has_open_entry() {
                self.seal(local_shard);
            }
            let Self { shards, log, large_requests, .. } = self;
            let there = match &upload.source {
                Source::Whole(value) => value.bytes(),
                Source::Coming(key, _) => large_requests.get(*key).map_or(&[][..], LargeRequest::value_filled),
            };
            let (offset, total) = (logged_bytes as u64, value_bytes as u64);
            let part = ValuePart::Bytes { upload: id, offset, total, bytes: &there[range.clone()] };
            let driver = &mut shards[usize::from(local_shard)];
            let shard = driver.shard().id();
            driver.part(&part, |position| match &upload.source {
                Source::Whole(value) => {
                    log.append_part_of(shard, local_shard, position, &part.header(), (value.clone(), range));
                }
                Source::Coming(..) => log.append_part(shard, local_shard, position, &part),
            });
            upload.logged_bytes += part_bytes;
            self.commit(local_shard, false);
            return Progress::Part;
        }
        if logged_bytes == value_bytes && upload.finish.is_some() {
            self.finish_upload(upload);
            return Progress::Over;
        }
        Progress::Waits
    }

    fn finish_upload(&mut self, upload: &mut Upload) {
        let Some(Finish { to, command, ack, deadline_us }) = upload.finish.take() else { return };
        if self.is_late(&to, deadline_us) {
            self.give_up_upload(upload);
            return;
        }
        let Source::Whole(value) = &upload.source else { unreachable!("a value whose command is known has come") };
        let command = Command::decode(&command).expect("a command of this process decodes");
        let Command::Set { key, expiry, condition, return_old, .. } = command else {
            unreachable!("only a SET has a large value")
        };
        let command = Command::Set { key, value: Value::Upload(upload.id), expiry, condition, return_old };
        let driver = &mut self.shards[usize::from(upload.local_shard)];
        driver.put_upload(upload.id, WholeValue::Mapped(value.clone()));
        let place = driver.shard().place(slot(key), key);
        let cost = driver.cost_of(&command, place);
        self.enter_write(&to, upload.local_shard, &command, (place, &cost), ack);
    }

    /// Tells the log that an upload of which it has parts will never be finished.
    fn give_up_upload(&mut self, upload: &Upload) {
        if upload.logged_bytes == 0 {
            return;
        }
        if self.shards[usize::from(upload.local_shard)].has_open_entry() {
            self.seal(upload.local_shard);
        }
        let Self { shards, log, .. } = self;
        let driver = &mut shards[usize::from(upload.local_shard)];
        let (shard, part) = (driver.shard().id(), ValuePart::GivenUp { upload: upload.id });
        driver.part(&part, |position| log.append_part(shard, upload.local_shard, position, &part));
        self.commit(upload.local_shard, false);
    }

    /// Pages that an upload waits for are in memory, or cannot be read.
    pub(super) fn upload_paged_in(&mut self, token: u64) {
        let id = UploadId(token);
        if let Some(upload) = self.uploads.uploads.get_mut(&id) {
            upload.paging = false;
        }
        self.uploads.note_news(Some(id));
    }
}

/// What became of an upload in a turn.
#[derive(Clone, Copy)]
enum Progress {
    /// A part of it was logged.
    Part,
    /// Nothing is there to be logged.
    Waits,
    /// Something is there, and too much waits for the disk.
    Blocked,
    /// Its command follows, or it was given up.
    Over,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_looked_at_when_something_of_it_has_come_and_not_before() {
        let mut uploads = Uploads::new(1);
        let ids: Vec<UploadId> = (0..100).map(|key| uploads.add(0, 1 << 20, Source::Coming(key, 1), None)).collect();
        // Each is looked at once, and then waits.
        for id in &ids {
            let upload = uploads.take_ready().unwrap();
            assert_eq!(upload.id, *id);
            uploads.put_back(upload, Progress::Waits);
        }
        assert!(uploads.take_ready().is_none());
        for id in [ids[70], ids[3], ids[70], UploadId(0)] {
            uploads.note_news(Some(id));
        }
        let (first, second) = (uploads.take_ready().unwrap(), uploads.take_ready().unwrap());
        assert_eq!((first.id, second.id), (ids[70], ids[3]));
        assert!(uploads.take_ready().is_none());
        // One has more to log, one waits for the disk.
        uploads.put_back(first, Progress::Part);
        uploads.put_back(second, Progress::Blocked);
        let first = uploads.take_ready().unwrap();
        assert!(first.id == ids[70] && uploads.take_ready().is_none());
        uploads.put_back(first, Progress::Over);
        uploads.unblock(true, 2);
        assert!(uploads.take_ready().is_none());
        uploads.unblock(false, 2);
        let second = uploads.take_ready().unwrap();
        assert_eq!(second.id, ids[3]);
        uploads.put_back(second, Progress::Over);
        // What is said later of those that are over is about nobody.
        uploads.note_news(Some(ids[3]));
        assert!(uploads.take_ready().is_none() && uploads.uploads.len() == 98 && uploads.whole_bytes() == 0);
    }
}
