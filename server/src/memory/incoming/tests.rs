//! A large value comes in pieces of every size.
//!
//! Place in the flow: tests of `incoming`.

use eyot_ring::MappedFile;
use proptest::prelude::*;

use super::*;

fn region(bytes: usize) -> (MappedFile, MappedRegion) {
    MappedFile::create(&std::env::temp_dir(), bytes.next_multiple_of(page_bytes())).unwrap()
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n % 253) as u8).collect()
}

/// Plays the ring: pages are populated by writing them, bytes come from `stream`. Returns how many steps there were.
fn drive(incoming: &mut Incoming, mut stream: &[u8], expected: &[u8]) -> usize {
    let mut steps = 0;
    loop {
        match incoming.next_step() {
            IncomingStep::Populate(mut region) => {
                assert!(matches!(incoming.next_step(), IncomingStep::Wait));
                region.populate().unwrap();
                incoming.populated(region);
            }
            IncomingStep::Receive { mut region, filled, at_most } => {
                assert!(matches!(incoming.next_step(), IncomingStep::Wait));
                assert!(at_most > 0 && filled + at_most <= region.len());
                region.bytes_mut()[filled..filled + at_most].copy_from_slice(&stream[..at_most]);
                stream = &stream[at_most..];
                incoming.received(region, filled, at_most, at_most);
            }
            IncomingStep::Wait => panic!("nothing is under way"),
            IncomingStep::Done => break,
        }
        let there = incoming.filled();
        assert!(there == &expected[..there.len()], "what is filled is the value's beginning");
        steps += 1;
    }
    assert!(stream.is_empty());
    steps
}

#[test]
fn a_value_comes_step_by_step_behind_what_came_with_its_request() {
    const TOTAL: usize = 2 * STEP_BYTES + 12_345;
    for head in [0, 1, 5000, STEP_BYTES, STEP_BYTES + 1, TOTAL] {
        let (_file, region) = region(TOTAL);
        let bytes = pattern(TOTAL);
        let mut incoming = Incoming::new(region, bytes[..head].to_vec(), TOTAL);
        let steps = drive(&mut incoming, &bytes[head..], &bytes);
        assert!((1..=4).contains(&steps), "{steps} steps with a head of {head}");
        let value = incoming.finish(TOTAL);
        assert!(value.bytes() == bytes, "with a head of {head}");
        assert_eq!(value.region_bytes(), TOTAL.next_multiple_of(page_bytes()));
    }
}

#[test]
fn pages_that_are_there_need_not_be_brought_in() {
    let (_file, mut region) = region(100_000);
    region.populate().unwrap();
    let mut incoming = Incoming::new(region, b"head".to_vec(), 100_000);
    assert!(matches!(incoming.next_step(), IncomingStep::Receive { filled: 4, at_most: 99_996, .. }));
}

#[test]
fn a_short_receive_is_gone_on_with_and_what_is_given_up_goes_home() {
    let (file, whole) = region(100_000);
    let mut incoming = Incoming::new(whole, Vec::new(), 100_000);
    let IncomingStep::Receive { region, filled, at_most } = incoming.next_step() else { panic!("nothing to wait for") };
    incoming.received(region, filled, at_most, 10);
    assert!(incoming.filled().is_empty());
    let IncomingStep::Receive { region, filled, at_most } = incoming.next_step() else { panic!("the rest is next") };
    assert_eq!((filled, at_most), (10, 99_990));
    incoming.refused(region, filled);
    assert_eq!(incoming.missing_bytes(), 99_990, "what failed took nothing from the stream");
    drop(incoming);
    assert_eq!(file.take_returned().unwrap().len(), 100_000_usize.next_multiple_of(page_bytes()));
}

proptest! {
    #[test]
    fn whatever_still_came_through_buffers_is_the_values_beginning(
        total in 1_usize..3 * STEP_BYTES,
        pieces in proptest::collection::vec(0_usize..700_000, 0..5),
    ) {
        let (_file, region) = region(total);
        let bytes = pattern(total + 50_000);
        let mut incoming = Incoming::new(region, Vec::new(), total);
        let mut at = 0;
        for piece in pieces {
            let piece = &bytes[at..(at + piece).min(bytes.len())];
            let behind = incoming.add_head(piece);
            let own = piece.len() - behind.len();
            prop_assert!(behind.is_empty() || at + own == total, "only what is behind the value comes back");
            at += own;
            if !behind.is_empty() {
                break;
            }
        }
        drive(&mut incoming, &bytes[at..total], &bytes);
        prop_assert!(incoming.finish(total).bytes() == &bytes[..total]);
    }
}
