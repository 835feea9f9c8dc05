//! Large values put together from their parts.
//!
//! Place in the flow: tests of `uploads`.

use eyot_protocol::value_part::MAX_PART_BYTES;
use eyot_ring::{page_bytes, MappedFile};
use proptest::prelude::*;

use super::*;

fn upload(epoch: u64, number: u32) -> UploadId {
    UploadId::new(epoch, number)
}

fn part(upload: UploadId, offset: usize, total: usize, bytes: &[u8]) -> Vec<u8> {
    let part = ValuePart::Bytes { upload, offset: offset as u64, total: total as u64, bytes };
    [&part.header()[..], bytes].concat()
}

#[allow(clippy::unnecessary_wraps)] // As the engine wants it.
fn on_heap(_: usize) -> io::Result<Option<MappedRegion>> {
    Ok(None)
}

fn in_file(bytes: usize) -> io::Result<Option<MappedRegion>> {
    // The region outlives its file's handle.
    let length = bytes.next_multiple_of(page_bytes());
    MappedFile::create(&std::env::temp_dir(), length).map(|(_, region)| Some(region))
}

#[test]
fn a_value_is_whole_with_its_last_part_and_taken_once() {
    for allocate in [on_heap, in_file] {
        let mut uploads = Uploads::default();
        let id = upload(1, 0);
        uploads.part(&part(id, 0, 5, b"abc"), false, allocate).unwrap();
        assert!(uploads.take(id).is_none(), "not whole");
        uploads.part(&part(id, 3, 5, b"de"), false, |_| panic!("it has its place")).unwrap();
        assert_eq!(uploads.take(id).unwrap().bytes(), b"abcde");
        assert!(uploads.take(id).is_none());
        assert!(uploads.uploads.is_empty());
    }
}

#[test]
fn parts_that_a_snapshot_covers_are_kept_from_the_first_on_and_dropped_with_their_command() {
    let id = upload(1, 0);
    let mut uploads = Uploads::default();
    let cut_off = |_| panic!("its beginning was cut off");
    uploads.part(&part(upload(1, 7), 3, 5, b"de"), true, cut_off).unwrap();
    assert!(uploads.is_empty());
    uploads.part(&part(id, 0, 5, b"abc"), true, on_heap).unwrap();
    uploads.part(&part(id, 3, 5, b"de"), false, on_heap).unwrap();
    assert_eq!(uploads.take(id).unwrap().bytes(), b"abcde");
    uploads.part(&part(upload(1, 1), 0, 2, b"a"), true, on_heap).unwrap();
    uploads.pass_over(upload(1, 1));
    assert!(uploads.is_empty());
}

#[test]
fn parts_that_do_not_follow_one_another_are_refused() {
    let id = upload(1, 0);
    for (parts, expected) in [
        (vec![part(id, 1, 5, b"b")], 0),
        (vec![part(id, 0, 5, b"ab"), part(id, 3, 5, b"d")], 2),
        (vec![part(id, 0, 5, b"ab"), part(id, 0, 5, b"ab")], 2),
        (vec![part(id, 0, 5, b"ab"), part(id, 2, 6, b"c")], 2),
        (vec![part(id, 0, 2, b"ab"), part(id, 0, 2, b"ab")], 2),
    ] {
        let mut uploads = Uploads::default();
        let (last, before) = parts.split_last().unwrap();
        before.iter().for_each(|part| uploads.part(part, false, on_heap).unwrap());
        match uploads.part(last, false, on_heap) {
            Err(UploadError::OutOfOrder { expected: found, .. }) => assert_eq!(found, expected),
            other => panic!("{other:?}"),
        }
    }
    let mut uploads = Uploads::default();
    assert!(matches!(uploads.part(b"short", false, on_heap), Err(UploadError::Malformed(_))));
    let full = || io::Error::from_raw_os_error(28);
    assert!(matches!(uploads.part(&part(id, 0, 1, b"a"), false, |_| Err(full())), Err(UploadError::NoRoom(_))));
}

#[test]
fn what_was_given_up_or_belongs_to_an_earlier_start_is_dropped() {
    let mut uploads = Uploads::default();
    uploads.part(&part(upload(1, 0), 0, 2, b"a"), false, on_heap).unwrap();
    uploads.part(&part(upload(1, 1), 0, 2, b"a"), false, on_heap).unwrap();
    uploads.part(&ValuePart::GivenUp { upload: upload(1, 0) }.header(), false, on_heap).unwrap();
    assert_eq!(uploads.uploads.len(), 1);
    uploads.part(&part(upload(2, 0), 0, 2, b"a"), false, on_heap).unwrap();
    assert_eq!(uploads.uploads.len(), 1, "the first start's is dropped");
    assert_eq!(uploads.drop_unfinished(), 1);
}

#[test]
fn a_value_that_arrived_whole_waits_for_its_command() {
    let mut uploads = Uploads::default();
    uploads.put(upload(3, 9), WholeValue::Memory(b"value".to_vec()));
    assert_eq!(uploads.take(upload(3, 9)).unwrap().bytes(), b"value");
}

proptest! {
    #[test]
    fn values_whose_parts_are_mixed_come_out_as_they_went_in(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..5000), 1..6),
        order in proptest::collection::vec((any::<usize>(), 1_usize..2000), 0..200),
        mapped in any::<bool>(),
    ) {
        let allocate = if mapped { in_file } else { on_heap };
        let mut uploads = Uploads::default();
        let mut sent = vec![0; values.len()];
        let rest = (0..values.len()).map(|which| (which, MAX_PART_BYTES));
        let order: Vec<_> = order.into_iter().chain(rest).collect();
        for (which, bytes) in order {
            let which = which % values.len();
            let value = &values[which];
            let end = (sent[which] + bytes).min(value.len());
            if sent[which] < end {
                let payload = part(upload(4, which as u32), sent[which], value.len(), &value[sent[which]..end]);
                uploads.part(&payload, false, allocate).unwrap();
                sent[which] = end;
            }
        }
        for (which, value) in values.iter().enumerate() {
            let whole = uploads.take(upload(4, which as u32)).expect("all of it was sent");
            prop_assert_eq!(whole.bytes(), &value[..]);
        }
        prop_assert!(uploads.uploads.is_empty());
    }
}
