//! Tests of one entry: every shape keeps what it was given, changes in place and changes that move, sizes.

use eyot_ring::{page_bytes, MappedFile};

use super::*;

const EXPIRY: Expiry = Expiry { at_us: -5, timer: TimerId(7) };
const LATER: Expiry = Expiry { at_us: 10, timer: TimerId(8) };

fn expiry_bytes(expiry: Option<Expiry>) -> usize {
    if expiry.is_some() {
        12
    } else {
        0
    }
}

#[test]
fn every_shape_keeps_what_it_was_given() {
    for key in [&b""[..], b"k", b"a key of some length"] {
        for value in [&b""[..], b"v", &[0xAB; 1000]] {
            for expiry in [None, Some(EXPIRY)] {
                let entry = OwnedEntry::new(11, key, value, Version(99), expiry);
                assert_eq!((entry.key(), entry.value(), entry.expiry()), (key, value, expiry));
                assert_eq!((entry.version(), entry.hash(), entry.access()), (Version(99), 11, 0));
                assert!(!entry.is_large() && entry.pin().is_none());
                let content = 24 + expiry_bytes(expiry) + key.len() + value.len();
                assert!(entry.allocated_bytes() >= content && entry.allocated_bytes() - content <= content / 4 + 15);
                entry.prefetch();
            }
        }
    }
}

#[test]
fn every_change_from_every_shape_leaves_what_was_stored() {
    let values = [&b""[..], b"v", b"seven..", &[0xAB; 90], &[0xCD; 91], &[0xEF; 1000], &[1; 9000]];
    for from in values {
        for to in values {
            for (old, new) in [(None, None), (None, Some(LATER)), (Some(EXPIRY), None), (Some(EXPIRY), Some(LATER))] {
                let mut entry = OwnedEntry::new(3, b"the key", from, Version(1), old);
                entry.set_access(77);
                let block = entry.block();
                let resized = entry.store(to, Version(2), new);
                let what = format!("{} to {} bytes, {old:?} to {new:?}", from.len(), to.len());
                assert_eq!((entry.key(), entry.value(), entry.expiry()), (&b"the key"[..], to, new), "{what}");
                assert_eq!((entry.version(), entry.hash(), entry.access()), (Version(2), 3, 77), "{what}");
                assert_eq!(resized.before, block_bytes(24 + 7 + expiry_bytes(old) + from.len()));
                assert_eq!(resized.after, entry.allocated_bytes());
                assert_eq!(entry.allocated_bytes(), block_bytes(24 + 7 + expiry_bytes(new) + to.len()));
                assert!(resized.before != resized.after || entry.block() == block, "moved for nothing: {what}");
            }
        }
    }
}

#[test]
fn an_expiry_comes_and_goes_and_the_value_stays() {
    // 24 + 3 + 5 bytes fill their class, so the expiry moves the entry; 24 + 3 + 70 and 12 more share one.
    for value in [&b"12345"[..], &[0xAB; 70]] {
        let mut entry = OwnedEntry::new(3, b"key", value, Version(1), None);
        entry.set_access(5);
        for (version, expiry) in [(2, Some(EXPIRY)), (3, Some(LATER)), (4, None), (5, None)] {
            let before = entry.allocated_bytes();
            let resized = entry.set_expiry(Version(version), expiry);
            assert_eq!((resized.before, resized.after), (before, entry.allocated_bytes()));
            assert_eq!((entry.key(), entry.value(), entry.expiry()), (&b"key"[..], value, expiry));
            assert_eq!((entry.version(), entry.access()), (Version(version), 5));
        }
    }
}

/// A large value of `bytes`, and the file that it goes home to.
fn large(bytes: &[u8]) -> (MappedFile, MappedBytes) {
    let length = bytes.len().next_multiple_of(page_bytes());
    let (file, mut region) = MappedFile::create(&std::env::temp_dir(), length).unwrap();
    region.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    (file, region.share(bytes.len()))
}

#[test]
fn a_large_value_is_read_like_any_and_goes_home_with_its_entry() {
    let (file, value) = large(&[7; 100_000]);
    let region_bytes = value.region_bytes();
    let entry = OwnedEntry::new(3, b"key", NewValue::Mapped(value), Version(1), Some(EXPIRY));
    assert_eq!((entry.key(), entry.value(), entry.expiry()), (&b"key"[..], &[7; 100_000][..], Some(EXPIRY)));
    assert!(entry.is_large());
    assert_eq!(entry.value_head(), [7; 16]);
    assert_eq!(entry.allocated_bytes(), block_bytes(24 + 12 + 3 + 24) + region_bytes);
    let pinned = entry.pin().unwrap();
    let other = OwnedEntry::new(4, b"copy", entry.value_again(), Version(2), None);
    assert!(other.is_large());
    drop(entry);
    drop(pinned);
    assert_eq!(other.value(), [7; 100_000]);
    assert!(file.take_returned().is_none(), "the copy has it still");
    drop(other);
    assert!(file.take_returned().is_some());
}

#[test]
fn a_large_value_comes_and_goes_by_every_change() {
    for expiry in [None, Some(LATER)] {
        for small in [&b"small"[..], &[9; 3000]] {
            let (file, value) = large(&[7; 5000]);
            let (second_file, second) = large(&[8; 9000]);
            let mut entry = OwnedEntry::new(3, b"key", small, Version(1), None);
            let small_bytes = entry.allocated_bytes();
            let resized = entry.store(NewValue::Mapped(value), Version(2), expiry);
            assert_eq!((resized.before, resized.after), (small_bytes, entry.allocated_bytes()));
            assert_eq!((entry.value(), entry.version(), entry.expiry()), (&[7; 5000][..], Version(2), expiry));
            for (version, expiry) in [(3, Some(EXPIRY)), (4, None), (5, expiry)] {
                let before = entry.allocated_bytes();
                let resized = entry.set_expiry(Version(version), expiry);
                assert_eq!((resized.before, resized.after), (before, entry.allocated_bytes()));
                assert_eq!((entry.value(), entry.expiry()), (&[7; 5000][..], expiry), "the value is what it was");
            }
            let _ = entry.store(NewValue::Mapped(second), Version(6), expiry);
            assert!(file.take_returned().is_some() && second_file.take_returned().is_none());
            assert_eq!(entry.value(), [8; 9000]);
            let before = entry.allocated_bytes();
            let resized = entry.store(small, Version(7), None);
            assert_eq!((resized.before, resized.after), (before, small_bytes));
            assert!(second_file.take_returned().is_some() && !entry.is_large());
            assert_eq!(entry.value(), small);
        }
    }
}

#[test]
fn the_bits_of_a_word_that_are_the_tables_survive_every_change() {
    let word = OwnedEntry::new(3, b"key", b"value", Version(1), None).into_word();
    let tagged = word.map_addr(|address| address | 0xBEEF << 48 | 2);
    // SAFETY: the word was just given up, and is taken back once.
    let mut entry = unsafe { OwnedEntry::from_word(tagged) };
    assert_eq!((entry.key(), entry.value()), (&b"key"[..], &b"value"[..]));
    let _ = entry.store(&[7; 300], Version(2), Some(EXPIRY));
    let _ = entry.set_expiry(Version(3), None);
    let _ = entry.store(&[8; 299], Version(4), None);
    assert_eq!((entry.key(), entry.value()), (&b"key"[..], &[8; 299][..]));
    assert_eq!(entry.0 .0.addr().get() & !ADDRESS_BITS, 0xBEEF << 48 | 2);
}

#[test]
fn the_longest_key_fits() {
    let key = vec![b'k'; MAX_KEY_BYTES];
    let entry = OwnedEntry::new(0, &key, b"value", Version(1), Some(EXPIRY));
    assert_eq!((entry.key(), entry.value()), (&key[..], &b"value"[..]));
}

#[test]
fn blocks_have_the_sizes_of_the_allocators_classes() {
    let classes = [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640];
    for bytes in 1..=640 {
        let class = classes.into_iter().find(|&class| class >= bytes);
        assert_eq!(Some(block_bytes(bytes)), class, "{bytes}");
    }
    assert_eq!(block_bytes(106), 112, "a 16-byte key with 64 bytes over RESP");
    assert_eq!((block_bytes(32 << 10), block_bytes((32 << 10) + 1)), (32 << 10, 36 << 10));
    assert_eq!(block_bytes(MAX_VALUE_BYTES + 1), MAX_VALUE_BYTES + 4096);
    for bytes in 1..100_000 {
        assert_eq!(block_bytes(block_bytes(bytes)), block_bytes(bytes), "{bytes}");
    }
}

#[test]
fn an_entry_may_move_to_another_thread() {
    let entry = OwnedEntry::new(3, b"key", b"value", Version(1), None);
    let length = std::thread::spawn(move || entry.value().len()).join().unwrap();
    assert_eq!(length, 5);
}

#[test]
#[should_panic(expected = "over the limit")]
fn a_key_over_the_limit_is_a_bug() {
    drop(OwnedEntry::new(0, &vec![0; MAX_KEY_BYTES + 1], b"", Version(1), None));
}
