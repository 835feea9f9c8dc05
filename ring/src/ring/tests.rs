//! The ring against the real kernel: sockets on loopback, a file in the temporary directory.
//!
//! Place in the flow: tests of `ring`. Each is skipped, with a word, where io_uring is refused.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};

use super::*;
use crate::Sleeper;

#[path = "tests/mapped.rs"]
mod mapped;

/// A ring, or `None` where this machine refuses io_uring: said on standard error, since the test then shows nothing.
fn ring() -> Option<Ring> {
    let small =
        RingOptions { submission_entries: 8, completion_entries: 64, receive_buffers: 4, receive_buffer_bytes: 1024 };
    match Ring::new(small) {
        Ok(ring) => Some(ring),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
            eprintln!("skipped: io_uring is refused here: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Enters until `wanted` events are there, or panics after far more turns than that can take.
fn events(ring: &mut Ring, wanted: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..1000 {
        ring.reap(usize::MAX, &mut events);
        if events.len() >= wanted {
            return events;
        }
        ring.enter(Wait::For(Duration::from_millis(10))).unwrap();
    }
    panic!("{} of {wanted} events: {events:?}", events.len());
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
fn accepts_receives_in_place_and_sends() {
    let Some(mut ring) = ring() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ring.accept(listener.as_raw_fd(), 7);
    ring.enter(Wait::No).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let [Event::Accepted { token: 7, socket: Ok(socket), armed: true }] =
        &<[Event; 1]>::try_from(events(&mut ring, 1)).unwrap()
    else {
        panic!("not an accept")
    };
    ring.receive(socket.as_raw_fd(), 9);
    client.write_all(b"ping").unwrap();
    for event in events(&mut ring, 1) {
        let Event::Received { token: 9, received: Received::Bytes(bytes), armed: true } = event else {
            panic!("not received: {event:?}")
        };
        assert_eq!(ring.bytes(&bytes), b"ping");
        ring.recycle(bytes);
    }
    ring.send(socket.as_raw_fd(), 9, b"pong".to_vec());
    let sent = events(&mut ring, 1);
    assert!(matches!(&sent[..], [Event::Sent { token: 9, buffer, result: Ok(4) }] if buffer == b"pong"), "{sent:?}");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong");
    drop(client);
    let closed = events(&mut ring, 1);
    assert!(matches!(&closed[..], [Event::Received { received: Received::Closed, armed: false, .. }]), "{closed:?}");
}

#[test]
fn running_out_of_receive_buffers_loses_nothing() {
    let Some(mut ring) = ring() else { return };
    let (mut near, far) = pair();
    let expected: Vec<u8> = (0..64 * 1024_u32).map(|n| (n % 251) as u8).collect();
    near.write_all(&expected).unwrap();
    ring.receive(far.as_raw_fd(), 1);
    let (mut got, mut held, mut ran_out) = (Vec::new(), Vec::new(), false);
    while got.len() < expected.len() {
        for event in events(&mut ring, 1) {
            let Event::Received { received, armed, .. } = event else { panic!("{event:?}") };
            match received {
                Received::Bytes(bytes) => {
                    got.extend_from_slice(ring.bytes(&bytes));
                    held.push(bytes);
                }
                Received::NoBuffer => {
                    ran_out = true;
                    held.drain(..).for_each(|bytes| ring.recycle(bytes));
                }
                other => panic!("{other:?}"),
            }
            if !armed {
                ring.receive(far.as_raw_fd(), 1);
            }
        }
    }
    assert!(ran_out, "four buffers of 1 KiB cannot hold 64 KiB");
    assert_eq!(got, expected);
}

#[test]
fn a_cancelled_receive_says_so_and_can_be_started_again() {
    let Some(mut ring) = ring() else { return };
    let (mut near, far) = pair();
    ring.receive(far.as_raw_fd(), 3);
    ring.enter(Wait::No).unwrap();
    ring.cancel_receive(3);
    let cancelled = events(&mut ring, 1);
    assert!(
        matches!(&cancelled[..], [Event::Received { token: 3, received: Received::Cancelled, armed: false }]),
        "{cancelled:?}"
    );
    near.write_all(b"later").unwrap();
    ring.receive(far.as_raw_fd(), 3);
    assert!(matches!(&events(&mut ring, 1)[..], [Event::Received { received: Received::Bytes(_), .. }]));
}

#[test]
fn more_operations_than_the_queue_holds_are_all_submitted() {
    let Some(mut ring) = ring() else { return };
    let (mut near, far) = pair();
    for round in 0..40_u8 {
        ring.send(far.as_raw_fd(), u32::from(round), vec![round]);
    }
    assert_eq!(events(&mut ring, 40).len(), 40);
    let mut bytes = [0; 40];
    near.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes.to_vec(), (0..40).collect::<Vec<u8>>());
}

#[test]
fn writes_land_at_their_offset_and_a_broken_file_is_an_error() {
    let Some(mut ring) = ring() else { return };
    let path = std::env::temp_dir().join(format!("eyot-ring-write-{}", std::process::id()));
    let file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    let mut buffer = AlignedBuffer::with_capacity(4096);
    buffer.resize(4096);
    buffer[..4].copy_from_slice(b"eyot");
    ring.write(file.as_raw_fd(), 5, buffer, 8192);
    let written = events(&mut ring, 1);
    assert!(matches!(&written[..], [Event::Written { token: 5, result: Ok(4096), .. }]), "{written:?}");
    assert_eq!(&std::fs::read(&path).unwrap()[8192..8196], b"eyot");
    let closed = std::fs::File::open(&path).unwrap().into_raw_fd();
    ring.write(closed, 6, AlignedBuffer::with_capacity(1), 0);
    let refused = events(&mut ring, 1);
    assert!(matches!(&refused[..], [Event::Written { token: 6, result: Err(_), .. }]), "{refused:?}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_sleeper_is_woken_once_announced_and_not_before() {
    let Some(mut ring) = ring() else { return };
    let sleeper = Sleeper::new().unwrap();
    ring.watch(sleeper.descriptor(), 2);
    sleeper.waker().wake();
    ring.enter(Wait::No).unwrap();
    let mut events_seen = Vec::new();
    ring.reap(8, &mut events_seen);
    assert!(events_seen.is_empty(), "nobody slept: {events_seen:?}");
    for _ in 0..3 {
        sleeper.announce();
        let waker = sleeper.waker();
        let thread = std::thread::spawn(move || waker.wake());
        assert!(matches!(&events(&mut ring, 1)[..], [Event::Woken { token: 2, armed: true }]));
        sleeper.awake();
        thread.join().unwrap();
    }
}
