//! A small server for the tests: keeps values in a map, speaks all wires, and misbehaves on request.
//!
//! One thread for each connection, blocking sockets, nothing clever: it must be right, not fast.

#![allow(dead_code)] // Each test binary uses its own part of it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use eyot_protocol::key::{shard_of_slot, slot, slots_of_shard};
use eyot_protocol::native::reply::{put_error_reply, put_hello, put_reply, put_set, put_value};
use eyot_protocol::native::{decode_request, split_frame, Split};
use eyot_protocol::response::{HelloReply, SetOutcome, StoredValue};
use eyot_protocol::{ErrorCode, Request};

/// What the server does wrong, and when: counts are of GETs and SETs over all connections, from 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behaviour {
    pub resp: bool,
    pub memcached: bool,
    /// How many cores it claims to have, each with its own port; 0 means 1.
    pub cores: usize,
    /// From so long after the first request, for so long, nothing is answered.
    pub stall: Option<(Duration, Duration)>,
    /// The GET of this number returns a value with a flipped bit.
    pub flip_bit_in: Option<u64>,
    /// From this request on, GETs find nothing.
    pub forget_from: Option<u64>,
    /// Every SET is answered with an error.
    pub refuse_sets: bool,
    /// At this request the connection is closed.
    pub close_at: Option<u64>,
    /// What each connection has to say before anything else.
    pub password: Option<&'static str>,
    /// From this request on, nothing is answered.
    pub silent_from: Option<u64>,
}

pub struct Mock {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Behaviour,
    values: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    started: OnceLock<Instant>,
    requests: AtomicU64,
    foreign: AtomicU64,
    addresses: Vec<SocketAddr>,
}

/// Whether io_uring is refused here; says so, since the test that asks then shows nothing.
pub fn io_uring_is_refused() -> bool {
    const EPERM: i32 = 1;
    const ENOSYS: i32 = 38;
    match eyot_ring::Ring::new(eyot_ring::RingOptions::default()) {
        Err(error) if matches!(error.raw_os_error(), Some(EPERM | ENOSYS)) => {
            eprintln!("skipped: io_uring is refused here: {error}");
            true
        }
        _ => false,
    }
}

impl Mock {
    pub fn start(behaviour: Behaviour) -> Self {
        let listeners: Vec<TcpListener> =
            (0..behaviour.cores.max(1)).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let shared = Arc::new(Shared {
            behaviour,
            values: Mutex::default(),
            started: OnceLock::new(),
            requests: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            addresses: addresses.clone(),
        });
        for (core, listener) in listeners.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for socket in listener.incoming() {
                    let (shared, socket) = (Arc::clone(&shared), socket.unwrap());
                    std::thread::spawn(move || serve(&shared, core, socket));
                }
            });
        }
        Self { address: addresses[0], shared }
    }

    /// GETs and SETs so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Requests that came to another core than their key's.
    pub fn foreign(&self) -> u64 {
        self.shared.foreign.load(Ordering::SeqCst)
    }

    pub fn key_count(&self) -> usize {
        self.shared.values.lock().unwrap().len()
    }
}

/// Ends with the connection, or when the behaviour says so.
fn serve(shared: &Shared, core: usize, mut socket: TcpStream) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let (mut input, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    let mut known = shared.behaviour.password.is_none();
    loop {
        let mut out = Vec::new();
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            let consumed = if shared.behaviour.memcached {
                serve_memcached(shared, rest, &mut out)?
            } else if shared.behaviour.resp {
                serve_resp(shared, core, rest, &mut out, &mut known)?
            } else {
                serve_native(shared, core, rest, &mut out, &mut known)?
            };
            match consumed {
                0 => break,
                consumed => taken += consumed,
            }
        }
        input.drain(..taken);
        socket.write_all(&out).ok()?;
        match socket.read(&mut piece).ok()? {
            0 => return None,
            count => input.extend_from_slice(&piece[..count]),
        }
    }
}

enum Fate {
    Answer(u64),
    Silence,
}

/// Counts a GET or SET and decides what becomes of it; `None` closes the connection.
fn fate(shared: &Shared, core: usize, key: &[u8]) -> Option<Fate> {
    let number = shared.requests.fetch_add(1, Ordering::SeqCst);
    let Behaviour { stall, close_at, silent_from, .. } = shared.behaviour;
    let cores = shared.addresses.len() as u16;
    if usize::from(shard_of_slot(slot(key), cores * 4) % cores) != core {
        shared.foreign.fetch_add(1, Ordering::SeqCst);
    }
    if let Some((after, length)) = stall {
        let elapsed = shared.started.get_or_init(Instant::now).elapsed();
        if elapsed >= after && elapsed < after + length {
            std::thread::sleep((after + length).saturating_sub(elapsed));
        }
    }
    if close_at == Some(number) {
        return None;
    }
    Some(if silent_from.is_some_and(|from| number >= from) { Fate::Silence } else { Fate::Answer(number) })
}

fn read(shared: &Shared, number: u64, key: &[u8]) -> Option<Vec<u8>> {
    let Behaviour { flip_bit_in, forget_from, .. } = shared.behaviour;
    let mut value = shared.values.lock().unwrap().get(key).cloned()?;
    if forget_from.is_some_and(|from| number >= from) {
        return None;
    }
    if flip_bit_in.is_some_and(|from| number >= from) {
        *value.last_mut().unwrap() ^= 1;
    }
    Some(value)
}

fn serve_native(shared: &Shared, core: usize, input: &[u8], out: &mut Vec<u8>, known: &mut bool) -> Option<usize> {
    let Split::Frame { frame, consumed } = split_frame(input, 1 << 26).unwrap() else { return Some(0) };
    let (request, _) = decode_request(&frame, 1 << 26).unwrap();
    let (op, id) = (frame.header.op, frame.header.request_id);
    let key = match &request {
        Request::Get { key } => key,
        Request::Set(set) => set.key,
        Request::Hello(said) => {
            let password = said.credentials.map(|said| said.password);
            if password != shared.behaviour.password.map(str::as_bytes) {
                put_error_reply(out, op, id, ErrorCode::AuthenticationFailed, "no");
                return Some(consumed);
            }
            *known = true;
            put_reply(out, op, id, |out| put_hello(out, &hello(shared, core)));
            return Some(consumed);
        }
        other => panic!("not expected of a load generator: {other:?}"),
    };
    assert!(*known, "a request before the password");
    let Fate::Answer(number) = fate(shared, core, key)? else { return Some(consumed) };
    match request {
        Request::Set(_) if shared.behaviour.refuse_sets => put_error_reply(out, op, id, ErrorCode::Busy, "not now"),
        Request::Set(set) => {
            shared.values.lock().unwrap().insert(set.key.to_vec(), set.value.to_vec());
            put_reply(out, op, id, |out| put_set(out, SetOutcome::Stored { version: 1 }));
        }
        _ => {
            let value = read(shared, number, key);
            let found = value.as_deref().map(|value| StoredValue { value, version: 1 });
            put_reply(out, op, id, |out| put_value(out, found));
        }
    }
    Some(consumed)
}

/// Four shards for each core, dealt out in turn.
fn hello(shared: &Shared, core: usize) -> HelloReply {
    let cores = shared.addresses.len() as u16;
    HelloReply {
        protocol: 1,
        core: core as u16,
        shard_cores: (0..cores * 4).map(|shard| shard % cores).collect(),
        core_addresses: shared.addresses.iter().map(ToString::to_string).collect(),
        ..HelloReply::default()
    }
}

fn serve_resp(shared: &Shared, core: usize, input: &[u8], out: &mut Vec<u8>, known: &mut bool) -> Option<usize> {
    let Some((words, consumed)) = command(input) else { return Some(0) };
    if words[0] == b"AUTH" {
        *known = shared.behaviour.password.is_some_and(|password| password.as_bytes() == words[1]);
        out.extend_from_slice(if *known { b"+OK\r\n" } else { b"-WRONGPASS no\r\n" });
        return Some(consumed);
    }
    assert!(*known, "a request before the password");
    if words[0] == b"CLUSTER" {
        put_slots(shared, out);
        return Some(consumed);
    }
    let Fate::Answer(number) = fate(shared, core, words[1])? else { return Some(consumed) };
    match words[..] {
        [b"SET", ..] if shared.behaviour.refuse_sets => out.extend_from_slice(b"-BUSY not now\r\n"),
        [b"SET", key, value] => {
            shared.values.lock().unwrap().insert(key.to_vec(), value.to_vec());
            out.extend_from_slice(b"+OK\r\n");
        }
        [b"GET", key] => match read(shared, number, key) {
            None => out.extend_from_slice(b"$-1\r\n"),
            Some(value) => {
                out.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
                out.extend_from_slice(&value);
                out.extend_from_slice(b"\r\n");
            }
        },
        _ => panic!("not expected of a load generator: {words:?}"),
    }
    Some(consumed)
}

/// The shards of [`hello`], as Redis tells a cluster's slots.
fn put_slots(shared: &Shared, out: &mut Vec<u8>) {
    let shards = shared.addresses.len() as u16 * 4;
    out.extend_from_slice(format!("*{shards}\r\n").as_bytes());
    for shard in 0..shards {
        let slots = slots_of_shard(shard, shards);
        let address = shared.addresses[usize::from(shard) % shared.addresses.len()];
        let (host, port) = (address.ip().to_string(), address.port());
        let node = format!("*3\r\n${}\r\n{host}\r\n:{port}\r\n$4\r\nnode\r\n", host.len());
        out.extend_from_slice(format!("*3\r\n:{}\r\n:{}\r\n{node}", slots.start, slots.end - 1).as_bytes());
    }
}

fn serve_memcached(shared: &Shared, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let Some(line_bytes) = input.windows(2).position(|two| two == b"\r\n") else { return Some(0) };
    let words: Vec<&[u8]> = input[..line_bytes].split(|&byte| byte == b' ').collect();
    let start = line_bytes + 2;
    match words[..] {
        [b"mg", key, b"v"] => {
            let Fate::Answer(number) = fate(shared, 0, key)? else { return Some(start) };
            match read(shared, number, key) {
                None => out.extend_from_slice(b"EN\r\n"),
                Some(value) => {
                    out.extend_from_slice(format!("VA {}\r\n", value.len()).as_bytes());
                    out.extend_from_slice(&value);
                    out.extend_from_slice(b"\r\n");
                }
            }
            Some(start)
        }
        [b"set", key, b"0", b"0", length] => {
            let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
            let Some(value) = input.get(start..start + length + 2) else { return Some(0) };
            assert_eq!(&value[length..], b"\r\n");
            let Fate::Answer(_) = fate(shared, 0, key)? else { return Some(start + length + 2) };
            if shared.behaviour.refuse_sets {
                out.extend_from_slice(b"SERVER_ERROR not now\r\n");
            } else {
                shared.values.lock().unwrap().insert(key.to_vec(), value[..length].to_vec());
                out.extend_from_slice(b"STORED\r\n");
            }
            Some(start + length + 2)
        }
        _ => panic!("not expected of a load generator: {words:?}"),
    }
}

/// The words of the first command, and its length, where all of it is there.
fn command(input: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let line = |at: usize| {
        let length = input.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let number: usize = std::str::from_utf8(&input[at + 1..at + length]).unwrap().parse().unwrap();
        Some((number, at + length + 2))
    };
    let (count, mut at) = line(0)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, start) = line(at)?;
        words.push(input.get(start..start + length)?);
        at = start + length + 2;
    }
    (at <= input.len()).then_some((words, at))
}
