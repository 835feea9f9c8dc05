//! Frames that are not frames, requests that are not requests.
//!
//! Place in the flow: step 2 (decode).
//!
//! An error in a request fails that request; an error in the stream ends the connection, after what was asked before it
//! is answered and the reason is told.

use std::io::Write;
use std::net::Shutdown;

use eyot_protocol::limits::{DEFAULT_MAX_VALUE_BYTES, MAX_KEY_BYTES};
use eyot_protocol::request::{Request, RequestOptions, Set};
use eyot_protocol::tlv::Encoder;
use eyot_protocol::ErrorCode;
use rand::{Rng, RngCore};

use crate::support::{bytes_value, directory, number_value, wait_until, Answer, Client, Dice, Server};

const GET: u8 = 3;
const SET: u8 = 4;
const BATCH: u8 = 7;

/// A frame with any header and body.
fn frame(version: u8, op: u8, flags: u16, id: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 8).to_le_bytes().to_vec();
    bytes.extend_from_slice(&[version, op]);
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn encoded(put: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut Encoder::new(&mut bytes));
    bytes
}

/// The payload of GET for `key`.
fn key_payload() -> Vec<u8> {
    encoded(|encoder| {
        encoder.list(1);
        encoder.bytes(b"key");
    })
}

fn start() -> (tempfile::TempDir, Server) {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    (directory, server)
}

/// Fails unless `client` is still served.
#[track_caller]
fn assert_served(client: &mut Client) {
    client.must_set(b"still", &number_value(1));
    assert_eq!(client.get(b"still").value(), Some(&number_value(1)[..]));
}

#[test]
fn a_broken_stream_is_told_why_after_what_came_before_it_and_closed() {
    let (_directory, server) = start();
    let mut other = server.connect();
    let over = (DEFAULT_MAX_VALUE_BYTES + MAX_KEY_BYTES + 4096 + 1) as u32;
    let mut cases: Vec<(u32, ErrorCode)> = (0..8).map(|length| (length, ErrorCode::MalformedFrame)).collect();
    cases.extend([over, 1 << 31, u32::MAX].map(|length| (length, ErrorCode::FrameTooLarge)));
    for (length, code) in cases {
        let mut client = server.connect();
        let mut bytes = Vec::new();
        let first = client.put(&mut bytes, &Request::Get { key: b"key" }, &RequestOptions::default());
        let second = client.put(&mut bytes, &Request::Set(Set::new(b"key", &[0])), &RequestOptions::default());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[1, GET, 0, 0, 1, 1, 1, 1, 3, 0]);
        client.send_raw(&bytes);
        let mut answers = [client.receive(), client.receive(), client.receive()];
        answers.sort_by_key(|(id, _)| *id);
        assert_eq!((answers[0].0, answers[0].1.code()), (0, Some(code)), "length {length}: {answers:?}");
        assert_eq!((answers[1].0, answers[2].0), (first, second));
        assert!(matches!(answers[2].1, Answer::Stored(_)), "length {length}: {answers:?}");
        client.assert_closed();
        assert_served(&mut other);
    }
}

#[test]
fn a_client_that_goes_on_sending_a_frame_that_is_too_long_can_still_read_why() {
    let (_directory, server) = start();
    let mut client = server.connect();
    let mut bytes = (1_u32 << 30).to_le_bytes().to_vec();
    bytes.resize(16 << 20, 0);
    // It may be hung up on while it sends, which is no excuse for not having been told.
    let sent = client.stream.write_all(&bytes);
    match client.try_receive(&[]) {
        Ok(Some((0, answer))) => assert_eq!(answer.code(), Some(ErrorCode::FrameTooLarge)),
        other => panic!("sent: {sent:?}, then read: {other:?}"),
    }
}

#[test]
fn an_unknown_operation_or_version_fails_alone() {
    let (_directory, server) = start();
    let mut client = server.connect();
    let payload = key_payload();
    for op in (0..=255_u8).filter(|op| !(1..=9).contains(op)) {
        client.send_raw(&frame(1, op, 0, u32::from(op) + 1000, &payload));
        let (id, answer) = client.receive();
        assert_eq!((id, answer.code()), (u32::from(op) + 1000, Some(ErrorCode::UnknownOperation)), "{op}");
    }
    for version in [0, 2, 255] {
        client.send_raw(&frame(version, GET, 0, 7, &payload));
        let (id, answer) = client.receive();
        assert_eq!((id, answer.code()), (7, Some(ErrorCode::UnsupportedVersion)), "{version}");
    }
    assert_served(&mut client);
}

#[test]
fn flags_that_nobody_offers_fail_alone_and_announced_fields_must_be_there() {
    let (_directory, server) = start();
    let mut client = server.connect();
    let payload = key_payload();
    let session_and_unknown_read_levels = [2 << 2, 5 << 2, 6 << 2, 7 << 2];
    for flags in (6..10).chain(11..16).map(|bit| 1_u16 << bit).chain(session_and_unknown_read_levels) {
        client.send_raw(&frame(1, GET, flags, 1, &payload));
        assert_eq!(client.receive().1.code(), Some(ErrorCode::UnsupportedFeature), "{flags:#06x}");
    }
    let deadline = 1 << 5;
    client.send_raw(&frame(1, GET, deadline, 2, &[&[0; 4][..], &payload].concat()));
    assert_eq!(client.receive().1.code(), Some(ErrorCode::InvalidArgument), "a deadline of 0 ms");
    assert_served(&mut client);

    // A frame that ends before a field which it announces is malformed, and such a stream is not trusted any further.
    client.send_raw(&frame(1, GET, deadline, 3, &[1, 0]));
    assert_eq!(client.receive().1.code(), Some(ErrorCode::MalformedFrame));
    client.assert_closed();
    assert_served(&mut server.connect());
}

/// Payloads that do not fit their operation, and the code that says so.
fn bad_payloads() -> Vec<(&'static str, u8, Vec<u8>, ErrorCode)> {
    use ErrorCode::{BatchTooLarge, InvalidArgument, InvalidValue, KeyTooLarge, UnknownOperation};
    let endless = [0x80; 12];
    let nested = |depth: usize| -> Vec<u8> {
        // The list of the arguments does not count.
        let mut bytes = vec![3, 2, 7, 1, b'k'];
        for _ in 0..depth {
            bytes.extend_from_slice(&[3, 1]);
        }
        bytes.push(0);
        bytes
    };
    let set = |put: fn(&mut Encoder<'_>)| {
        encoded(|encoder| {
            encoder.list(4);
            encoder.bytes(b"key");
            encoder.null();
            put(encoder);
        })
    };
    vec![
        ("nothing", GET, vec![], InvalidValue),
        ("no list", GET, vec![7, 3, b'k', b'e', b'y'], InvalidArgument),
        ("a key that is a number", GET, vec![3, 1, 2, 1, 0, 0, 0], InvalidArgument),
        ("no key", GET, vec![3, 0], InvalidArgument),
        ("two keys", GET, vec![3, 2, 7, 1, b'a', 7, 1, b'b'], InvalidArgument),
        ("more after the list", GET, [&key_payload()[..], &[0]].concat(), InvalidValue),
        ("a reserved type", SET, vec![3, 2, 7, 1, b'k', 0x0b], InvalidValue),
        ("a type of 255", SET, vec![3, 2, 7, 1, b'k', 0xff], InvalidValue),
        ("text that is no UTF-8", GET, vec![3, 1, 1, 1, 0xff], InvalidValue),
        ("a varint that never ends, as count", GET, [&[3][..], &endless].concat(), InvalidValue),
        ("a varint that never ends, as length", GET, [&[3, 1, 7][..], &endless].concat(), InvalidValue),
        ("a varint longer than it must be", GET, vec![3, 1, 7, 0x81, 0x00, b'k'], InvalidValue),
        ("a count of 2^63", GET, vec![3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], InvalidValue),
        ("a length beyond the frame", GET, vec![3, 1, 7, 0xff, 0xff, 0xff, 0x7f, b'k'], InvalidValue),
        ("nested 33 deep", SET, nested(33), InvalidValue),
        ("nested 100,000 deep", SET, nested(100_000), InvalidValue),
        ("a boolean of 2", SET, vec![3, 2, 7, 1, b'k', 5, 2], InvalidValue),
        (
            "a key of 64 KiB and one",
            GET,
            encoded(|e| {
                e.list(1);
                e.bytes(&vec![b'k'; MAX_KEY_BYTES + 1]);
            }),
            KeyTooLarge,
        ),
        ("no value", SET, key_payload(), InvalidArgument),
        ("three arguments", SET, vec![3, 3, 7, 1, b'k', 0, 0], InvalidArgument),
        (
            "an expiry in the past of all clocks",
            SET,
            set(|e| {
                e.int64(0);
                e.null();
            }),
            InvalidArgument,
        ),
        (
            "an expiry of the wrong type",
            SET,
            set(|e| {
                e.string("soon");
                e.null();
            }),
            InvalidArgument,
        ),
        (
            "a condition that nobody knows",
            SET,
            set(|e| {
                e.null();
                e.int32(3);
            }),
            InvalidArgument,
        ),
        ("a batch of what is no list", BATCH, vec![3, 1, 0], InvalidArgument),
        ("a batch of an empty operation", BATCH, vec![3, 1, 3, 0], InvalidArgument),
        ("a batch of an unknown operation", BATCH, vec![3, 1, 3, 1, 2, 99, 0, 0, 0], UnknownOperation),
        ("a batch in a batch", BATCH, vec![3, 1, 3, 1, 2, 7, 0, 0, 0], InvalidArgument),
        (
            "a batch of 10,001",
            BATCH,
            encoded(|e| {
                e.list(10_001);
                for _ in 0..10_001 {
                    e.null();
                }
            }),
            BatchTooLarge,
        ),
    ]
}

#[test]
fn a_payload_that_does_not_fit_fails_alone() {
    let (_directory, server) = start();
    let mut client = server.connect();
    for (what, op, payload, code) in bad_payloads() {
        client.send_raw(&frame(1, op, 0, 77, &payload));
        let (id, answer) = client.receive();
        assert_eq!((id, answer.code()), (77, Some(code)), "{what}: {answer:?}");
        assert_served(&mut client);
    }
    // The deepest that is allowed.
    client.send_raw(&frame(1, SET, 0, 78, &{
        let mut bytes = vec![3, 2, 7, 1, b'k'];
        bytes.extend([3, 1].repeat(32));
        bytes.push(0);
        bytes
    }));
    assert!(matches!(client.receive().1, Answer::Stored(_)));
}

#[test]
fn a_value_over_the_limit_fails_alone() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--max-value-size", "64KiB"]);
    let mut client = server.connect();
    let fits = bytes_value(&vec![1; 64 * 1024 - 4]);
    assert_eq!(fits.len(), 64 * 1024);
    client.must_set(b"fits", &fits);
    assert_eq!(client.get(b"fits").value(), Some(&fits[..]));
    let over = bytes_value(&vec![1; 64 * 1024 - 3]);
    assert_eq!(client.set(b"over", &over).code(), Some(ErrorCode::ValueTooLarge));
    assert_served(&mut client);
}

#[test]
fn half_a_frame_and_a_closed_socket_leave_nothing_behind() {
    let (_directory, server) = start();
    let mut other = server.connect();
    let value = bytes_value(&vec![9; 100_000]);
    let mut whole = Vec::new();
    other.put(&mut whole, &Request::Set(Set::new(b"half", &value)), &RequestOptions::default());
    for cut in [1, 3, 4, 11, 12, 20, 50_000, whole.len() - 1] {
        let mut client = server.connect();
        client.send_raw(&whole[..cut]);
        if cut % 2 == 0 {
            client.stream.shutdown(Shutdown::Write).unwrap();
            client.assert_closed();
        }
    }
    wait_until("closed connections are gone", || other.stats()["network"]["active_connections"] == 1);
    assert_eq!(other.get(b"half"), Answer::Value(None));
}

#[test]
fn requests_that_come_byte_by_byte_are_answered() {
    let (_directory, server) = start();
    let mut client = server.connect();
    let value = bytes_value(b"slowly");
    let mut bytes = Vec::new();
    for _ in 0..5 {
        client.put(&mut bytes, &Request::Set(Set::new(b"slow", &value)), &RequestOptions::default());
        client.put(&mut bytes, &Request::Get { key: b"slow" }, &RequestOptions::default());
    }
    for byte in bytes {
        client.send_raw(&[byte]);
    }
    let answers: Vec<Answer> = (0..10).map(|_| client.receive().1).collect();
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Answer::Stored(_))).count(), 5);
    assert_eq!(answers.iter().filter(|answer| answer.value() == Some(&value[..])).count(), 5);
}

#[test]
fn garbage_harms_nobody() {
    let (_directory, server) = start();
    let mut dice = Dice::new();
    let mut other = server.connect();
    other.must_set(b"witness", &number_value(42));
    for round in 0..300 {
        let mut client = server.connect();
        let mut bytes = vec![0; dice.rng.gen_range(1..5000)];
        dice.rng.fill_bytes(&mut bytes);
        if round % 2 == 0 {
            // A sound length and header let the garbage reach the decoders behind them.
            let body = bytes.split_off(bytes.len() / 2);
            bytes = frame(1, dice.rng.gen_range(0..10), dice.rng.gen_range(0..4), 5, &body);
        }
        // The server may hang up before all of it is sent.
        let _: std::io::Result<()> = client.stream.write_all(&bytes);
        let _: std::io::Result<()> = client.stream.shutdown(Shutdown::Write);
    }
    assert_eq!(other.get(b"witness").value(), Some(&number_value(42)[..]));
    wait_until("closed connections are gone", || other.stats()["network"]["active_connections"] == 1);
}
