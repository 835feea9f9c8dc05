//! Everything comes back, however it was split, and the same content gives the same bytes.

use eyot_protocol::snapshot::{
    Entry, LargeValue, ShardHeader, ShardWriter, WriteError, CHUNK_CONTENT_BYTES, MAX_INLINE_VALUE_BYTES,
    VALUE_PART_BYTES,
};
use proptest::prelude::*;

use crate::fixtures::{
    boundaries, expand_zstd_of_runs, file, header, mixed, owned, read, read_in_pieces, shard, shard_with, sorted,
    zstd_of_runs, Owned, INDEX, NODE_UUID,
};

#[test]
fn a_shard_comes_back() {
    let entries = sorted(&mixed(20_000), 1, 3);
    let stream = shard(header(1, 3), &entries);
    assert!(boundaries(&stream).len() > 5, "several chunks");
    let told = read(&stream).expect("a stream that was just written");
    let [(told_header, told_entries, footer)] = &told.shards[..] else { panic!("one shard") };
    assert_eq!(told_header, &header(1, 3));
    assert!(*told_entries == entries, "other entries came back");
    assert_eq!(footer.totals.entries, entries.len() as u64);
    assert_eq!(footer.totals.key_bytes, entries.iter().map(|entry| entry.key.len() as u64).sum::<u64>());
    assert_eq!(footer.totals.value_bytes, entries.iter().map(|entry| entry.value.len() as u64).sum::<u64>());
    assert_eq!(footer.totals.expiring, entries.iter().filter(|entry| entry.expires_at_us.is_some()).count() as u64);
    assert_eq!(footer.messages as usize, boundaries(&stream).len() - 2);
    assert_eq!(footer.stream_bytes as usize, boundaries(&stream)[boundaries(&stream).len() - 2]);
    assert_eq!(footer.crc32c.to_le_bytes(), stream[stream.len() - 4..]);
}

#[test]
fn a_file_comes_back_and_has_the_shards_streams_as_they_are() {
    let entries = mixed(3000);
    let bytes = file(&entries, 5);
    let told = read(&bytes).expect("a file that was just written");
    assert_eq!(told.file_header.map(|header| (header.node_uuid, header.shard_count)), Some((NODE_UUID, 5)));
    assert_eq!(told.shards.len(), 5);
    for (number, (told_header, told_entries, _)) in (0..).zip(&told.shards) {
        assert_eq!(told_header, &header(number, 5));
        assert_eq!(told_entries, &sorted(&entries, number, 5));
        let stream = shard(header(number, 5), told_entries);
        assert!(bytes.windows(stream.len()).any(|window| window == stream), "shard {number}");
    }
    let footer = told.file_footer.expect("a footer");
    assert_eq!(footer.totals.entries, told.shards.iter().map(|(_, entries, _)| entries.len() as u64).sum::<u64>());
}

#[test]
fn a_shard_without_entries_is_a_header_and_a_footer() {
    let stream = shard(header(0, 1), &[]);
    assert_eq!(boundaries(&stream).len(), 3);
    let told = read(&stream).expect("an empty stream");
    assert_eq!(told.shards[0].1, []);
    assert_eq!(told.shards[0].2.totals.entries, 0);
}

#[test]
fn large_values_come_back_between_the_others() {
    let value = |length: usize| (0..length).map(|at| (at / 1000) as u8).collect::<Vec<u8>>();
    let lengths = [1, MAX_INLINE_VALUE_BYTES, MAX_INLINE_VALUE_BYTES + 1, 2 * VALUE_PART_BYTES, 5_000_001, 2];
    let entries: Vec<Owned> = (0..)
        .zip(lengths)
        .map(|(number, length)| {
            let expires_at_us = [None, Some(0), Some(-5)][number % 3];
            owned(format!("{{same}}{number}").as_bytes(), &value(length), 77 << 16 | number as u64, expires_at_us)
        })
        .collect();
    let stream = shard(header(0, 1), &entries);
    let told = read(&stream).expect("a stream that was just written");
    assert!(told.shards[0].1 == entries, "other entries came back");
    assert_eq!(told.shards[0].2.totals.large_values, 3);
    let longest = boundaries(&stream).windows(2).map(|pair| pair[1] - pair[0]).max().expect("messages");
    assert!(longest < CHUNK_CONTENT_BYTES + MAX_INLINE_VALUE_BYTES + 1000, "{longest}");
}

#[test]
fn the_edges_of_every_number_come_back() {
    let long = vec![b'k'; 65_536];
    let entries = sorted(
        &[
            owned(b"", b"v", 0, None),
            owned(&long, b"v", INDEX << 16 | 0xffff, Some(i64::MAX)),
            owned(&long[1..], b"v", 0, Some(i64::MIN)),
            owned(b"a", &vec![7; MAX_INLINE_VALUE_BYTES], 1, Some(0)),
            owned(b"b", b"vv", 1 << 16, Some(-1)),
        ],
        0,
        1,
    );
    let told = read(&shard(header(0, 1), &entries)).expect("a stream that was just written");
    assert!(told.shards[0].1 == entries, "other entries came back");
    let header = ShardHeader { index: (1 << 48) - 1, term: u64::MAX, needed_after: 0, ..header(16_383, 16_384) };
    let told = read(&shard(header, &[])).expect("a stream that was just written");
    assert_eq!(told.shards[0].0, header);
}

#[test]
fn a_stream_split_at_every_byte_tells_the_same() {
    let bytes = file(&mixed(40), 2);
    let whole = read(&bytes).expect("a file that was just written");
    for cut in 0..bytes.len() {
        assert_eq!(read_in_pieces(&bytes, &[cut], None).as_ref(), Ok(&whole), "split at {cut}");
    }
    let everywhere: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(read_in_pieces(&bytes, &everywhere, None), Ok(whole));
}

#[test]
fn keys_leave_out_what_they_share_where_that_is_smaller() {
    let alike: Vec<Owned> = (0..1000_u64)
        .map(|number| owned(format!("{{t}}:session:{number:010}").as_bytes(), b"v", INDEX << 16, None))
        .collect();
    let alike = sorted(&alike, 0, 1);
    let stream = shard(header(0, 1), &alike);
    assert!(stream.len() < alike.len() * 8, "{} bytes for 1,000 keys that differ in three digits", stream.len());
    assert!(read(&stream).expect("a stream that was just written").shards[0].1 == alike);
    // Random keys share nothing worth a column.
    let random: Vec<Owned> = (0..1000_u128)
        .map(|number| {
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            owned(&spread.to_be_bytes(), b"v", INDEX << 16, None)
        })
        .collect();
    let random = sorted(&random, 0, 1);
    let stream = shard(header(0, 1), &random);
    assert!((1000 * 17..1000 * 17 + 200).contains(&stream.len()), "{}", stream.len());
    assert!(read(&stream).expect("a stream that was just written").shards[0].1 == random);
}

/// The size that the project has set itself: at most 127 bytes for 20-byte keys that share nothing and 100-byte values.
#[test]
fn an_entry_of_120_bytes_takes_at_most_127() {
    let count = 50_000_u64;
    let entries: Vec<Owned> = (0..count)
        .map(|number| {
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let key = [&spread.to_be_bytes()[..], &[b'k'; 12]].concat();
            let value = [&[1, 100][..], &[b'v'; 100]].concat();
            owned(&key, &value, ((spread % INDEX) << 16) | (number % 128), None)
        })
        .collect();
    let stream = shard(header(0, 1), &sorted(&entries, 0, 1));
    assert!(stream.len() as u64 <= count * 127, "{} bytes an entry", stream.len() as f64 / count as f64);
}

#[test]
fn what_no_reader_would_take_is_not_written() {
    let slot = |key: &[u8]| eyot_protocol::key::slot(key);
    let mut out = Vec::new();
    let mut writer = ShardWriter::new(header(0, 1), &mut out);
    let entry = |key, value| Entry { slot: slot(key), key, value, version: 0, expires_at_us: None };
    let long = vec![b'k'; 65_537];
    let too_long = vec![0; MAX_INLINE_VALUE_BYTES + 1];
    writer.push(&entry(b"{t}b", b"v"), &mut out).expect("the first entry");
    let last_slot = slot(b"t");
    let mut refused = |entry: &Entry<'_>, error| assert_eq!(writer.push(entry, &mut out), Err(error));
    refused(&entry(b"{t}a", b"v"), WriteError::OutOfOrder { slot: last_slot, last_slot });
    refused(&entry(b"{t}b", b"v"), WriteError::OutOfOrder { slot: last_slot, last_slot });
    refused(&entry(b"{t}c", b""), WriteError::ValueLength { bytes: 0 });
    refused(&entry(b"{t}c", &too_long), WriteError::ValueLength { bytes: MAX_INLINE_VALUE_BYTES as u64 + 1 });
    refused(&Entry { slot: 16_383, ..entry(&long, b"v") }, WriteError::KeyTooLong { bytes: 65_537 });
    refused(&Entry { slot: 16_384, ..entry(b"{t}c", b"v") }, WriteError::ForeignSlot { slot: 16_384, shard: 0 });
    let later = Entry { version: (INDEX + 1) << 16, ..entry(b"{t}c", b"v") };
    refused(&later, WriteError::LaterVersion { index: INDEX + 1, snapshot_index: INDEX });
    let large = LargeValue { slot: last_slot, key: b"{t}c", value_bytes: 1 << 20, version: 0, expires_at_us: None };
    assert_eq!(writer.begin_large(&large, &mut out), Err(WriteError::ValueLength { bytes: 1 << 20 }));
    assert_eq!(writer.push_part(b"x", &mut out), Err(WriteError::PartLength { bytes: 1, expected: 0 }));
    writer.begin_large(&LargeValue { value_bytes: (1 << 20) + 1, ..large }, &mut out).expect("a large value");
    assert_eq!(writer.push_part(b"x", &mut out), Err(WriteError::PartLength { bytes: 1, expected: 1 << 20 }));
    let next = entry(b"{t}d", b"v");
    assert_eq!(writer.push(&next, &mut out), Err(WriteError::PartLength { bytes: 0, expected: 1 << 20 }));
    writer.push_part(&too_long[1..], &mut out).expect("the first part");
    writer.push_part(b"x", &mut out).expect("the last part");
    writer.finish(&mut out).expect("a whole value");
    let told = read(&out).expect("what was refused left nothing behind");
    let keys: Vec<&[u8]> = told.shards[0].1.iter().map(|entry| entry.key.as_slice()).collect();
    assert_eq!(keys, [b"{t}b", b"{t}c"]);
}

#[test]
fn compressed_chunks_come_back_and_only_smaller_ones_are_compressed() {
    let runs: Vec<Owned> = (0..3000_u32).map(|n| owned(&n.to_le_bytes(), &[n as u8; 150], INDEX << 16, None)).collect();
    let value: Vec<u8> = (0..=255).collect();
    let noise: Vec<Owned> = (0..9_u32).map(|n| owned(&n.to_le_bytes(), &value, u64::from(n) << 16, None)).collect();
    for (entries, shrinks) in [(sorted(&runs, 0, 1), true), (sorted(&noise, 0, 1), false)] {
        let mut compressed = Vec::new();
        shard_with(header(0, 1), &entries, Some(Box::new(zstd_of_runs)), |out| compressed.append(out));
        let plain = shard(header(0, 1), &entries);
        assert_eq!(compressed.len() < plain.len() / 2, shrinks, "{} of {}", compressed.len(), plain.len());
        let told = read_in_pieces(&compressed, &[], Some(Box::new(expand_zstd_of_runs))).expect("compressed chunks");
        assert!(told.shards[0].1 == entries, "other entries came back");
        let without = read(&compressed).map(|_| ()).map_err(|error| error.problem.name());
        assert_eq!(without, if shrinks { Err("Compressed") } else { Ok(()) });
        let wrong = read_in_pieces(&compressed, &[], Some(Box::new(|_, _| false)));
        assert_eq!(wrong.is_err(), shrinks);
        let cuts: Vec<usize> = (0..compressed.len()).step_by(97).collect();
        assert_eq!(read_in_pieces(&compressed, &cuts, Some(Box::new(expand_zstd_of_runs))), Ok(told));
    }
}

fn any_entry() -> impl Strategy<Value = Owned> {
    let key = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..12),
    ];
    let value = proptest::collection::vec(any::<u8>(), 1..300);
    let version = (0..=INDEX, any::<u16>()).prop_map(|(index, position)| index << 16 | u64::from(position));
    let expires_at_us = proptest::option::weighted(0.3, any::<i64>());
    (key, value, version, expires_at_us).prop_map(|(key, value, version, expires_at_us)| Owned {
        key,
        value,
        version,
        expires_at_us,
    })
}

proptest! {
    #[test]
    fn any_entries_come_back_and_give_the_same_bytes_again(
        entries in proptest::collection::vec(any_entry(), 0..200),
        shard_count in 1_u16..4,
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let bytes = file(&entries, shard_count);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let told = read_in_pieces(&bytes, &cuts, None).expect("a file that was just written");
        let mut again = Vec::new();
        for (number, (_, told_entries, _)) in (0..).zip(&told.shards) {
            prop_assert_eq!(told_entries, &sorted(&entries, number, shard_count));
            again.extend(told_entries.iter().cloned());
        }
        prop_assert_eq!(file(&again, shard_count), bytes);
    }
}
