//! Properties of the snapshot codec.
//!
//! Checksums keep made-up bytes out, so the input is also taken as messages that are given checksums that hold, and as
//! entries that are written.

use eyot_protocol::key::slot;
use eyot_protocol::snapshot::{Decoder, Entry, Event, LargeValue, ShardHeader, ShardWriter, SnapshotError};

const HEADER: ShardHeader =
    ShardHeader { node_uuid: 1, shard: 0, shard_count: 1, index: INDEX, term: 1, needed_after: INDEX };
const INDEX: u64 = (1 << 48) - 1;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    key: Vec<u8>,
    value: Vec<u8>,
    version: u64,
    expires_at_us: Option<i64>,
}

/// What a decoder tells before its error or its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    header: Option<ShardHeader>,
    /// Of the first shard.
    entries: Vec<Owned>,
    events: Vec<String>,
    error: Option<SnapshotError>,
}

/// Reads `input` as it is, as messages whose checksums hold, and as entries that are written and read again.
///
/// # Panics
/// When what is told depends on how the bytes come, when what was accepted cannot be written, or when damage is not
/// seen.
pub fn snapshot_decode(input: &[u8]) {
    in_pieces(input);
    let sealed = seal(input);
    let told = in_pieces(&sealed);
    written_again(&told);
    entries_made_of(input);
}

/// What the bytes tell, however they come.
fn in_pieces(bytes: &[u8]) -> Told {
    let told = read(bytes, bytes.len().max(1));
    for piece_bytes in [1, 7, bytes.len() / 2 + 1] {
        assert_eq!(read(bytes, piece_bytes), told, "in pieces of {piece_bytes} bytes");
    }
    told
}

fn read(bytes: &[u8], piece_bytes: usize) -> Told {
    let (mut decoder, mut told) = (Decoder::new(), Told::default());
    for mut piece in bytes.chunks(piece_bytes) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(event)) => {
                    if let Err(error) = take(&mut told, event) {
                        told.error = Some(error);
                        return told;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.finish(), Err(error.clone()), "an error stays");
                    told.error = Some(error);
                    return told;
                }
            }
        }
        assert!(piece.is_empty(), "a decoder that asks for more has taken what there was");
    }
    told.error = decoder.finish().err();
    told
}

fn take(told: &mut Told, event: Event<'_>) -> Result<(), SnapshotError> {
    match event {
        Event::Chunk(mut chunk) => {
            let announced = chunk.entries_left();
            let mut count = 0;
            while let Some(Entry { slot: told_slot, key, value, version, expires_at_us }) = chunk.next_entry()? {
                assert_eq!(told_slot, slot(key));
                told.entries.push(Owned { key: key.to_vec(), value: value.to_vec(), version, expires_at_us });
                count += 1;
            }
            assert_eq!(count, announced);
        }
        Event::LargeValue(LargeValue { slot: told_slot, key, .. }) => assert_eq!(told_slot, slot(key)),
        Event::ShardHeader(header) => {
            if told.header.is_some() {
                told.entries.clear();
            }
            told.header = Some(header);
        }
        other => told.events.push(format!("{other:?}")),
    }
    Ok(())
}

/// The input as messages, each | length u16 | message without its checksum |, with checksums that hold.
fn seal(mut input: &[u8]) -> Vec<u8> {
    let (mut stream, mut chain) = (Vec::new(), 0);
    while let Some((length, rest)) = input.split_first_chunk() {
        let (message, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        input = rest;
        // Headers and a file's footer begin anew: fields 1, 2 and 8 of the envelope.
        if [0x0a, 0x12, 0x42].contains(message.first().unwrap_or(&0)) {
            chain = 0;
        }
        let begins = stream.len();
        stream.extend_from_slice(&(message.len() as u32 + 5).to_le_bytes());
        stream.extend_from_slice(message);
        chain = crc32c::crc32c_append(chain, &stream[begins..]);
        stream.push(0x7d);
        stream.extend_from_slice(&chain.to_le_bytes());
    }
    stream
}

/// What a reader takes, a writer takes, too, and it comes back.
fn written_again(told: &Told) {
    let Some(header) = told.header else { return };
    let stream = write(header, &told.entries);
    let again = read(&stream, stream.len());
    assert_eq!((again.error, again.header), (None, Some(header)));
    assert_eq!(again.entries, told.entries);
}

fn write(header: ShardHeader, entries: &[Owned]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut writer = ShardWriter::new(header, &mut stream);
    for Owned { key, value, version, expires_at_us } in entries {
        let entry = Entry { slot: slot(key), key, value, version: *version, expires_at_us: *expires_at_us };
        writer.push(&entry, &mut stream).expect("entries that a writer takes");
    }
    writer.finish(&mut stream).expect("no value is unfinished");
    stream
}

/// The input as entries: they come back, and a turned bit is noticed.
fn entries_made_of(mut input: &[u8]) {
    // The input chooses the bit.
    let chosen = input.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let mut entries = Vec::new();
    while let Some((&[key_bytes, value_bytes, expires], rest)) = input.split_first_chunk() {
        let (key, rest) = rest.split_at(usize::from(key_bytes).min(rest.len()));
        let (value, rest) = rest.split_at(usize::from(value_bytes).min(rest.len()));
        input = rest;
        let number = key.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        let expires_at_us = (expires % 2 == 1).then_some(number as i64);
        entries.push(Owned { key: key.to_vec(), value: [&[0], value].concat(), version: number, expires_at_us });
    }
    entries.sort_by(|a, b| (slot(&a.key), &a.key).cmp(&(slot(&b.key), &b.key)));
    entries.dedup_by(|a, b| a.key == b.key);
    let mut stream = write(HEADER, &entries);
    let told = read(&stream, stream.len());
    assert_eq!((told.error, &told.entries), (None, &entries));
    let bit = chosen % (stream.len() * 8);
    stream[bit / 8] ^= 1 << (bit % 8);
    assert!(read(&stream, stream.len()).error.is_some(), "bit {bit} was turned and not noticed");
}
