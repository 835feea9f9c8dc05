//! Properties of the decoders of consensus: messages between replicas, records of the log, what they travel in, and
//! tables of sessions.

use bytes::Bytes;
use eyot_raft_glue::session::SessionTable;
use eyot_raft_glue::{
    decode_batch, decode_frame, envelope_length, Event, Group, GroupId, Identity, Install, Membership, Output, PeerId,
    PeerMessage, PersistRecord, Recovered, Settings, ENVELOPE_HEADER_BYTES,
};

/// Reads `input` as a message, or else as several steps of a replica: each is a byte and what it asks for.
///
/// ```text
/// 0          a tick
/// 1          the disk has everything, and everything is applied
/// 2          the data of the snapshot that was offered last is here
/// 3          the replica starts an election
/// 4..=255    so many bytes minus 3 that are a message
/// ```
///
/// What is accepted is given to a replica, which may refuse it and must not panic, whatever its sender meant.
///
/// # Panics
/// When encoding what was accepted gives other bytes, or the replica panics.
pub fn peer_message(input: &[u8]) {
    if let Some(message) = decoded(input) {
        let mut replica = Replica::new(&message);
        replica.receive(message);
        replica.persist_and_apply();
        return;
    }
    let mut replica: Option<Replica> = None;
    let mut rest = input;
    while let Some((&step, after)) = rest.split_first() {
        let length = usize::from(step.saturating_sub(3)).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        if let Some(message) = decoded(bytes) {
            replica.get_or_insert_with(|| Replica::new(&message)).receive(message);
        } else if let Some(replica) = &mut replica {
            replica.step(step);
        }
    }
}

fn decoded(bytes: &[u8]) -> Option<PeerMessage> {
    let message = PeerMessage::decode(&Bytes::copy_from_slice(bytes)).ok()?;
    let mut again = Vec::new();
    message.encode(&mut again);
    assert_eq!(again, bytes, "a message has one encoding");
    assert!(again.len() <= message.byte_length_max());
    Some(message)
}

/// A replica and its caller, in memory.
struct Replica {
    group: Group,
    out: Output,
    now_us: u64,
}

impl Replica {
    /// Whom the message is for, in a group of sender, receiver and two more.
    fn new(message: &PeerMessage) -> Self {
        let members = [message.from(), message.to(), PeerId(1), PeerId(2)];
        let identity = Identity { group: message.group(), peer: message.to(), incarnation: 1, seed: 1 };
        let recovered = Recovered::founding(Membership::new(members, []));
        let group = Group::new(identity, Settings::default(), recovered).expect("a sound start");
        Self { group, out: Output::default(), now_us: 0 }
    }

    fn step(&mut self, step: u8) {
        match step {
            0 => {
                self.now_us += 50_000;
                self.group.tick(self.now_us);
            }
            1 => self.persist_and_apply(),
            2 => self.stage(),
            3 => self.group.campaign(),
            _ => return,
        }
        self.poll();
    }

    fn receive(&mut self, message: PeerMessage) {
        // Refused or not: neither is a finding.
        let _ = self.group.receive(message);
        self.poll();
    }

    fn poll(&mut self) {
        while self.group.poll(&mut self.out) {}
    }

    /// The duties of a caller, until nothing is left of them.
    fn persist_and_apply(&mut self) {
        self.poll();
        while !self.out.persist.is_empty() || !self.out.install.is_empty() || !self.out.apply.is_empty() {
            if let Some(last) = self.out.persist.drain(..).next_back() {
                self.group.persisted(last.number);
            }
            for Install { meta, .. } in self.out.install.drain(..) {
                self.group.snapshot_installed(meta.position.index);
                self.group.snapshot_built(meta);
            }
            if let Some(last) = self.out.apply.drain(..).next_back() {
                self.group.applied(last.entry.position.index);
            }
            self.poll();
        }
    }

    fn stage(&mut self) {
        let offered = self.out.events.iter().rev().find_map(|(_, event)| match event {
            Event::SnapshotOffered { meta, .. } => Some(meta.id),
            _ => None,
        });
        if let Some(id) = offered {
            // Forgotten meanwhile, or one is being installed: neither is a finding.
            let _ = self.group.snapshot_staged(id);
        }
    }
}

/// Reads `input` as a record of the log.
///
/// # Panics
/// When encoding what was accepted gives other bytes.
pub fn persist_record(input: &[u8]) {
    let Ok(record) = PersistRecord::decode(&Bytes::copy_from_slice(input)) else { return };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    assert_eq!(bytes, input, "a record has one encoding");
    // What a disk has may be wrong in any way: a replica starts from it or says why not.
    let mut recovered = Recovered::founding(Membership::new([PeerId(1), PeerId(2)], []));
    recovered.replay(record);
    let identity = Identity { group: GroupId(1), peer: PeerId(1), incarnation: 1, seed: 1 };
    drop(Group::new(identity, Settings::default(), recovered));
}

/// Reads `input` as a frame and as a batch, as it is and with a length and a checksum that hold.
///
/// # Panics
/// When a wrong checksum is believed.
pub fn raft_envelope(input: &[u8]) {
    let read = |bytes: &[u8]| {
        let bytes = Bytes::copy_from_slice(bytes);
        (decode_frame(&bytes).is_ok(), decode_batch(&bytes).is_ok())
    };
    let _ = envelope_length(input);
    read(input);
    if input.len() < ENVELOPE_HEADER_BYTES {
        return;
    }
    for magic in [b"EYRF", b"EYRB"] {
        let mut sealed = input.to_vec();
        sealed[..4].copy_from_slice(magic);
        let length = sealed.len() as u32;
        sealed[4..8].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c(&sealed[12..]);
        sealed[8..12].copy_from_slice(&checksum.to_le_bytes());
        read(&sealed);
        sealed[8] ^= 1;
        assert_eq!(read(&sealed), (false, false), "a wrong checksum was believed");
    }
}

/// Reads `input` as a table of sessions.
///
/// # Panics
/// When encoding what was accepted gives other bytes.
pub fn session_table(input: &[u8]) {
    let Ok(table) = SessionTable::decode(&Bytes::copy_from_slice(input)) else { return };
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    assert_eq!(bytes, input, "a table has one encoding");
}
