//! Cuts, flipped bits and made-up lengths are refused, in bounded memory.

use eyot_protocol::snapshot::{Decoder, Problem, MAX_MESSAGE_BYTES};

use crate::fixtures::{boundaries, file, header, mixed, owned, read, shard, sorted};

#[test]
fn a_cut_at_every_byte_is_refused() {
    let bytes = file(&mixed(40), 2);
    let boundaries = boundaries(&bytes);
    for cut in 0..bytes.len() {
        let error = read(&bytes[..cut]).expect_err("a cut file");
        let begun = boundaries.iter().filter(|&&boundary| boundary <= cut).count() - 1;
        let present = (cut - boundaries[begun]) as u64;
        assert_eq!(error.problem, Problem::Cut { present }, "cut at {cut}");
        assert_eq!((error.offset, error.message), (boundaries[begun] as u64, begun as u64), "cut at {cut}");
    }
}

#[test]
fn every_bit_that_is_flipped_is_found_and_no_later_than_where_it_stands() {
    for bytes in [file(&mixed(25), 2), shard(header(0, 1), &sorted(&mixed(25), 0, 1))] {
        let boundaries = boundaries(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = read(&damaged).expect_err("a flipped bit");
            let stands_in = boundaries.iter().filter(|&&boundary| boundary <= bit / 8).count() - 1;
            assert_eq!(error.message, stands_in as u64, "bit {bit}: {error}");
        }
    }
}

#[test]
fn a_message_that_is_missing_repeated_or_elsewhere_is_found() {
    let entries: Vec<_> = (0..4000_u32).map(|n| owned(&n.to_le_bytes(), &[n as u8; 200], 5, None)).collect();
    let stream = shard(header(0, 1), &sorted(&entries, 0, 1));
    let boundaries = boundaries(&stream);
    let message = |number: usize| &stream[boundaries[number]..boundaries[number + 1]];
    let count = boundaries.len() - 1;
    assert!(count >= 5);
    let together = |numbers: &[usize]| numbers.iter().flat_map(|&number| message(number)).copied().collect::<Vec<u8>>();
    assert!(read(&together(&(0..count).collect::<Vec<_>>())).is_ok());
    for (numbers, found_at) in [
        (vec![0, 2, 3, 4], 1),
        (vec![0, 1, 1, 2, 3, 4], 2),
        (vec![0, 2, 1, 3, 4], 1),
        (vec![0, count - 1], 1),
        (vec![1, 2, 3, 4], 0),
        (vec![0, 0], 1),
    ] {
        let error = read(&together(&numbers)).expect_err("messages in another order");
        assert_eq!(error.message, found_at, "{numbers:?}: {error}");
    }
    let mut longer = stream.clone();
    longer.extend_from_slice(message(0));
    assert_eq!(read(&longer).expect_err("a stream goes on").problem, Problem::Trailing);
    longer.truncate(stream.len() + 1);
    assert_eq!(read(&longer).expect_err("a stream goes on").problem, Problem::Trailing);
}

#[test]
fn a_length_of_4_gib_is_refused_before_anything_is_held() {
    let stream = shard(header(0, 1), &sorted(&mixed(10), 0, 1));
    for length in [u32::MAX, MAX_MESSAGE_BYTES as u32 + 1] {
        let mut claims = stream.clone();
        let second = boundaries(&stream)[1];
        claims[second..second + 4].copy_from_slice(&length.to_le_bytes());
        let error = read(&claims).expect_err("a length above the bound");
        assert_eq!((error.problem, error.offset), (Problem::TooLong { length }, second as u64));
    }
    let error = read(&u32::MAX.to_le_bytes()).expect_err("no snapshot");
    assert_eq!(error.problem, Problem::NotASnapshot);
}

#[test]
fn what_is_no_snapshot_is_called_so() {
    for bytes in
        [&b"{\"key\":\"a\",\"value\":\"b\"}\n"[..], &[0; 100], b"\x20\0\0\0 a length and then some other text ..."]
    {
        let error = read(bytes).expect_err("no snapshot");
        assert_eq!(error.problem, Problem::NotASnapshot, "{bytes:?}");
        assert!(error.to_string().contains("eyot snapshot save"), "{error}");
    }
    assert_eq!(read(b"").expect_err("an empty file").problem, Problem::Cut { present: 0 });
}

#[test]
fn after_an_error_the_error_stays() {
    let mut bytes = shard(header(0, 1), &sorted(&mixed(10), 0, 1));
    bytes[10] ^= 1;
    let mut decoder = Decoder::new();
    let mut rest = bytes.as_slice();
    let first = decoder.next(&mut rest).map(|_| ()).expect_err("damage");
    assert_eq!(decoder.next(&mut rest).map(|_| ()), Err(first.clone()));
    assert_eq!(decoder.finish(), Err(first));
}
