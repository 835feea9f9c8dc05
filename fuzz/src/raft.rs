//! Properties of the decoders of consensus: messages between replicas, records of the log, what they travel in, and
//! tables of sessions.

use bytes::Bytes;
use eyot_raft_glue::session::SessionTable;
use eyot_raft_glue::{
    decode_batch, decode_frame, envelope_length, Group, GroupId, Identity, Membership, PeerId, PeerMessage,
    PersistRecord, Recovered, Settings, ENVELOPE_HEADER_BYTES,
};

/// Reads `input` as a message. It is not given to a replica: replicas trust each other, and the library asserts what a
/// sound one would never send.
///
/// # Panics
/// When encoding what was accepted gives other bytes.
pub fn peer_message(input: &[u8]) {
    let Ok(message) = PeerMessage::decode(&Bytes::copy_from_slice(input)) else { return };
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    assert_eq!(bytes, input, "a message has one encoding");
    assert!(bytes.len() <= message.byte_length_max());
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
