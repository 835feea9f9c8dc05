//! Shards and files of made-up entries, and a reader that takes them whole.

use eyot_protocol::key::{shard_of_slot, slot};
use eyot_protocol::snapshot::{
    Compress, Decoder, Decompress, Entry, Event, FileFooter, FileHeader, FileWriter, LargeValue, ShardFooter,
    ShardHeader, ShardWriter, SnapshotError, MAX_INLINE_VALUE_BYTES, VALUE_PART_BYTES,
};

pub const NODE_UUID: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
/// The snapshot's index in every fixture.
pub const INDEX: u64 = 0x0012_3456;

/// An entry that owns what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub version: u64,
    pub expires_at_us: Option<i64>,
}

pub fn owned(key: &[u8], value: &[u8], version: u64, expires_at_us: Option<i64>) -> Owned {
    Owned { key: key.to_vec(), value: value.to_vec(), version, expires_at_us }
}

/// All that a stream or a file told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub file_header: Option<FileHeader>,
    pub shards: Vec<(ShardHeader, Vec<Owned>, ShardFooter)>,
    pub file_footer: Option<FileFooter>,
    pub unknown: usize,
}

pub fn header(shard: u16, shard_count: u16) -> ShardHeader {
    ShardHeader { node_uuid: NODE_UUID, shard, shard_count, index: INDEX, term: 3, needed_after: INDEX - 5 }
}

/// Those of `entries` that belong to the shard, as they stand in a snapshot.
pub fn sorted(entries: &[Owned], shard: u16, shard_count: u16) -> Vec<Owned> {
    let of_shard = |entry: &&Owned| shard_of_slot(slot(&entry.key), shard_count) == shard;
    let mut entries: Vec<Owned> = entries.iter().filter(of_shard).cloned().collect();
    entries.sort_by_key(|entry| (slot(&entry.key), entry.key.clone()));
    entries.dedup_by(|a, b| a.key == b.key);
    entries
}

pub fn shard_with(
    header: ShardHeader,
    entries: &[Owned],
    compress: Option<Compress>,
    mut drain: impl FnMut(&mut Vec<u8>),
) -> ShardFooter {
    let mut out = Vec::new();
    let mut writer = ShardWriter::new(header, &mut out);
    if let Some(compress) = compress {
        writer = writer.compressed_by(compress);
    }
    for entry in entries {
        let Owned { key, value, version, expires_at_us } = entry;
        let (slot, version, expires_at_us) = (slot(key), *version, *expires_at_us);
        if value.len() <= MAX_INLINE_VALUE_BYTES {
            writer.push(&Entry { slot, key, value, version, expires_at_us }, &mut out).expect("a fixture's entry");
        } else {
            let value_bytes = value.len() as u64;
            let large = LargeValue { slot, key, value_bytes, version, expires_at_us };
            writer.begin_large(&large, &mut out).expect("a fixture's large value");
            for part in value.chunks(VALUE_PART_BYTES) {
                writer.push_part(part, &mut out).expect("a part");
                drain(&mut out);
            }
        }
        drain(&mut out);
    }
    let footer = writer.finish(&mut out).expect("whole values");
    drain(&mut out);
    footer
}

/// The stream of a shard with these entries.
pub fn shard(header: ShardHeader, entries: &[Owned]) -> Vec<u8> {
    let mut stream = Vec::new();
    shard_with(header, entries, None, |out| stream.append(out));
    stream
}

/// The file of a database with these entries.
pub fn file(entries: &[Owned], shard_count: u16) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = FileWriter::new(FileHeader { node_uuid: NODE_UUID, shard_count }, &mut file);
    for number in 0..shard_count {
        let before = file.len();
        let entries = sorted(entries, number, shard_count);
        let footer = shard_with(header(number, shard_count), &entries, None, |out| file.append(out));
        writer.shard(&footer, (file.len() - before) as u64);
    }
    writer.finish(&mut file);
    file
}

/// Reads a whole stream or file, which comes in pieces that end at `cuts`.
pub fn read_in_pieces(bytes: &[u8], cuts: &[usize], decompress: Option<Decompress>) -> Result<Told, SnapshotError> {
    let mut decoder = Decoder::new();
    if let Some(decompress) = decompress {
        decoder = decoder.decompressed_by(decompress);
    }
    let mut told = Told::default();
    let mut unfinished = Vec::new();
    let mut begin = 0;
    for &end in cuts.iter().chain([&bytes.len()]) {
        let mut piece = &bytes[begin..end];
        while let Some(event) = decoder.next(&mut piece)? {
            take(&mut told, &mut unfinished, event)?;
        }
        assert!(piece.is_empty(), "a decoder that asks for more has taken what there was");
        begin = end;
    }
    decoder.finish()?;
    Ok(told)
}

/// Reads a whole stream or file.
pub fn read(bytes: &[u8]) -> Result<Told, SnapshotError> {
    read_in_pieces(bytes, &[], None)
}

fn take(told: &mut Told, open: &mut Vec<(ShardHeader, Vec<Owned>)>, event: Event<'_>) -> Result<(), SnapshotError> {
    let entries = |open: &mut Vec<(ShardHeader, Vec<Owned>)>, entry: Owned| {
        open.last_mut().expect("entries come after a header").1.push(entry);
    };
    match event {
        Event::FileHeader(header) => told.file_header = Some(header),
        Event::ShardHeader(header) => open.push((header, Vec::new())),
        Event::Chunk(mut chunk) => {
            let (mut count, announced) = (0, chunk.entries_left());
            while let Some(Entry { slot: told_slot, key, value, version, expires_at_us }) = chunk.next_entry()? {
                assert_eq!(told_slot, slot(key));
                entries(open, owned(key, value, version, expires_at_us));
                count += 1;
            }
            assert_eq!(count, announced);
        }
        Event::LargeValue(LargeValue { slot: told_slot, key, version, expires_at_us, .. }) => {
            assert_eq!(told_slot, slot(key));
            entries(open, owned(key, b"", version, expires_at_us));
        }
        Event::ValuePart { bytes, .. } => {
            let entry = open.last_mut().and_then(|(_, entries)| entries.last_mut()).expect("a part has an entry");
            entry.value.extend_from_slice(bytes);
        }
        Event::ShardFooter(footer) => {
            let (header, entries) = open.pop().expect("a footer has a header");
            told.shards.push((header, entries, footer));
        }
        Event::FileFooter(footer) => told.file_footer = Some(footer),
        Event::Unknown => told.unknown += 1,
    }
    Ok(())
}

/// Where each message of a stream or file begins, and where the last one ends.
pub fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut at = 0;
    let mut boundaries = vec![0];
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        at += 4 + length as usize;
        boundaries.push(at);
    }
    assert_eq!(at, bytes.len());
    boundaries
}

/// Entries of every kind in `count` keys: of all lengths, expiring and not, of all versions up to the snapshot's.
pub fn mixed(count: u64) -> Vec<Owned> {
    (0..count)
        .map(|number| {
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let key = match number % 4 {
                0 => format!("user:{number:08}").into_bytes(),
                1 => format!("{{tag}}:{number}").into_bytes(),
                2 => spread.to_le_bytes().to_vec(),
                _ => vec![b'k'; (number % 300) as usize],
            };
            let value = vec![spread as u8; 1 + (spread >> 8) as usize % 200];
            let version = (INDEX - spread % 5000) << 16 | (number % 300);
            let expires_at_us = (number % 3 == 0).then(|| 1_700_000_000_000_000 + (spread >> 30) as i64);
            Owned { key, value, version, expires_at_us }
        })
        .collect()
}

/// Bytes of a block of a Zstandard frame, at most (RFC 8878, section 3.1.1.2).
const ZSTD_BLOCK_BYTES: usize = 128 << 10;
/// Magic number; and a descriptor that says: one segment, 4 bytes of content size, no dictionary, no checksum.
const ZSTD_BEGINS: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0xa0];

/// A Zstandard frame with the two kinds of block that need no entropy coder: bytes as they are, and one byte so many
/// times.
pub fn zstd_of_runs(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&ZSTD_BEGINS);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    let mut literal: Vec<u8> = Vec::new();
    let put_literal = |literal: &mut Vec<u8>, out: &mut Vec<u8>| {
        for block in literal.chunks(ZSTD_BLOCK_BYTES) {
            out.extend_from_slice(&((block.len() as u32) << 3).to_le_bytes()[..3]);
            out.extend_from_slice(block);
        }
        literal.clear();
    };
    for run in bytes.chunk_by(|a, b| a == b) {
        if run.len() < 16 {
            literal.extend_from_slice(run);
            continue;
        }
        put_literal(&mut literal, out);
        for block in run.chunks(ZSTD_BLOCK_BYTES) {
            out.extend_from_slice(&((block.len() as u32) << 3 | 1 << 1).to_le_bytes()[..3]);
            out.push(block[0]);
        }
    }
    put_literal(&mut literal, out);
    // A last block, of nothing.
    out.extend_from_slice(&[1, 0, 0]);
}

/// The inverse, into exactly `out`.
pub fn expand_zstd_of_runs(frame: &[u8], out: &mut [u8]) -> bool {
    let Some(mut rest) = frame.strip_prefix(&ZSTD_BEGINS[..]).and_then(|rest| rest.get(4..)) else { return false };
    let mut at = 0;
    while let Some((&[low, middle, high], after)) = rest.split_first_chunk() {
        let block = u32::from_le_bytes([low, middle, high, 0]);
        let (length, is_run) = ((block >> 3) as usize, block >> 1 & 1 == 1);
        let Some((content, after)) = after.split_at_checked(if is_run { 1 } else { length }) else { return false };
        let Some(place) = out.get_mut(at..at + length) else { return false };
        if is_run {
            place.fill(content[0]);
        } else {
            place.copy_from_slice(content);
        }
        (at, rest) = (at + length, after);
    }
    at == out.len()
}
