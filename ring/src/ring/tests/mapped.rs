//! Operations on mapped files against the real kernel.
//!
//! Place in the flow: tests of `ring/mapped.rs`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use super::{events, pair, ring};
use crate::{page_bytes, Event, MappedEvent, MappedFile, MappedRegion, Piece, Wait};

fn file(pages: usize) -> (MappedFile, MappedRegion) {
    MappedFile::create(&std::env::temp_dir(), pages * page_bytes()).unwrap()
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n % 251) as u8).collect()
}

#[test]
fn receives_into_a_region_behind_what_is_there_already() {
    for in_worker in [false, true] {
        let Some(mut ring) = ring() else { return };
        let (_file, mut region) = file(64);
        let (mut near, far) = pair();
        let sent = pattern(200_000);
        region.bytes_mut()[..3].copy_from_slice(b"abc");
        ring.receive_into(far.as_raw_fd(), 9, region, 3, sent.len(), in_worker);
        ring.enter(Wait::No).unwrap();
        let (mut first, second) = (sent[..70_000].to_vec(), sent[70_000..].to_vec());
        near.write_all(&first).unwrap();
        let writer = std::thread::spawn(move || near.write_all(&second).map(|()| near));
        let [Event::Mapped(MappedEvent::ReceivedInto { token: 9, region, result: Ok(200_000) })] =
            &<[Event; 1]>::try_from(events(&mut ring, 1)).unwrap()
        else {
            panic!("not received")
        };
        first.splice(0..0, *b"abc");
        assert_eq!(region.bytes()[..70_003], first);
        assert_eq!(region.bytes()[3..200_003], sent);
        writer.join().unwrap().unwrap();
    }
}

#[test]
fn a_receive_into_a_region_ends_with_the_stream_and_by_a_shutdown() {
    let Some(mut ring) = ring() else { return };
    let (_file, region) = file(4);
    let (mut near, far) = pair();
    near.write_all(b"half").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    ring.receive_into(far.as_raw_fd(), 1, region, 0, 100, false);
    let [Event::Mapped(MappedEvent::ReceivedInto { region, result: Ok(4), .. })] =
        <[Event; 1]>::try_from(events(&mut ring, 1)).unwrap()
    else {
        panic!("not the half that came")
    };
    assert_eq!(&region.bytes()[..4], b"half");

    let (_near, far) = pair();
    ring.receive_into(far.as_raw_fd(), 1, region, 4, 100, true);
    ring.enter(Wait::No).unwrap();
    far.shutdown(Shutdown::Both).unwrap();
    let ended = events(&mut ring, 1);
    assert!(matches!(&ended[..], [Event::Mapped(MappedEvent::ReceivedInto { result: Ok(0), .. })]), "{ended:?}");
}

#[test]
fn sends_pieces_in_order_and_pins_the_value_until_they_are_sent() {
    for in_worker in [false, true] {
        let Some(mut ring) = ring() else { return };
        let (file, mut region) = file(1024);
        let (mut near, far) = pair();
        let bytes = pattern(1024 * page_bytes() - 5);
        region.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        let value = region.share(bytes.len());
        let pieces = vec![
            Piece::Bytes(b"head".to_vec()),
            Piece::Mapped(value.clone(), 1..bytes.len()),
            Piece::Bytes(b"\r\n".to_vec()),
            Piece::Mapped(value, 0..1),
        ];
        ring.send_pieces(far.as_raw_fd(), 4, pieces, in_worker);
        ring.enter(Wait::No).unwrap();
        assert!(file.take_returned().is_none(), "the send still reads it");
        let expected_bytes = 4 + bytes.len() + 2;
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; expected_bytes];
            near.read_exact(&mut got).map(|()| got)
        });
        let [Event::Mapped(MappedEvent::SentPieces { token: 4, pieces, result: Ok(sent) })] =
            <[Event; 1]>::try_from(events(&mut ring, 1)).unwrap()
        else {
            panic!("not sent")
        };
        assert_eq!(sent, expected_bytes);
        drop(pieces);
        assert!(file.take_returned().is_some(), "nobody refers to it any more");
        let got = reader.join().unwrap().unwrap();
        let expected = [&b"head"[..], &bytes[1..], b"\r\n", &bytes[..1]].concat();
        assert!(got == expected, "the pieces in their order");
    }
}

#[test]
fn pages_are_brought_in_and_given_back() {
    let Some(mut ring) = ring() else { return };
    let (file, region) = file(32);
    ring.populate(1, region);
    let [Event::Mapped(MappedEvent::Populated { token: 1, mut region, result: Ok(()) })] =
        <[Event; 1]>::try_from(events(&mut ring, 1)).unwrap()
    else {
        panic!("not populated")
    };
    assert!(region.is_resident(0..region.len()) && region.is_filled());
    region.bytes_mut().fill(7);
    let value = region.share(32 * page_bytes());
    ring.page_in(2, value, 5..20 * page_bytes());
    let [Event::Mapped(MappedEvent::PagedIn { token: 2, value, result: Ok(()) })] =
        <[Event; 1]>::try_from(events(&mut ring, 1)).unwrap()
    else {
        panic!("not paged in")
    };
    assert!(value.is_resident(0..value.len()));
    drop(value);
    ring.give_back(3, file.take_returned().unwrap());
    let given_back = <[Event; 1]>::try_from(events(&mut ring, 1)).unwrap();
    let [Event::Mapped(MappedEvent::GivenBack { token: 3, region, result })] = &given_back else {
        panic!("{given_back:?}")
    };
    match result {
        Ok(()) => {
            assert!(!region.is_resident(0..region.len()) && !region.is_filled());
            assert!(region.bytes().iter().all(|&byte| byte == 0));
        }
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "only a file system may refuse"),
    }
}
