//! The physical floor: a RESP server that does nothing but answer.
//!
//! ```text
//! cargo build --release -p eyot-ring --example floor
//! taskset -c 0 target/release/examples/floor PORT          127.0.0.1:PORT; ends with SIGTERM or SIGINT
//! ```
//!
//! Place in the flow: steps 1 (accept), 2 (decode, only as far as to find where a command ends) and 9 (reply), on the
//! same ring and with the same turn as the server's core, and nothing between them: every complete command is answered
//! `+OK`, nothing is kept. What a real server costs beyond this is the price of its own work; what this costs is the
//! kernel's. `scripts/bench.sh` prints both. Drive it with `eyot-loadgen --protocol resp --ratio 1:0`: `+OK` answers a
//! SET.
//!
//! Deliberately not here: configuration, limits of connections, glommio. A command that is not an array of bulk strings
//! is taken as one line; one that can never be complete ends its connection.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use eyot_ring::{Event, Received, Ring, RingOptions, Wait};

/// The listener's token; connections have the slab's keys, which stay far below.
const LISTENER: u32 = u32::MAX;
/// Longest command that is waited for.
const MAX_COMMAND_BYTES: usize = 1 << 20;
/// Events of one turn.
const MAX_EVENTS: usize = 1024;
/// Looks at the ring without a system call before the thread sleeps: about a microsecond, to catch what is just coming.
const SPINS_BEFORE_SLEEP: u32 = 50;
/// Longest sleep, only so that no lost wake-up could ever hang a benchmark.
const MAX_SLEEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Four independent facts.
struct Connection {
    socket: TcpStream,
    /// The beginning of a command.
    partial: Vec<u8>,
    /// Replies that are still to be sent.
    out: Vec<u8>,
    /// The buffer of the last send, for reuse.
    spare: Vec<u8>,
    /// Whether the kernel still has a receive of it.
    receiving: bool,
    /// Whether the kernel has a buffer of it.
    sending: bool,
    /// Whether it stands in the turn's list of connections with replies.
    listed: bool,
    /// The client has closed, or sent what can never be a command: to be dropped when nothing is in the kernel's
    /// hands.
    closing: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = match &arguments[..] {
        [port] => port.parse::<u16>().ok(),
        _ => None,
    };
    let Some(port) = port else {
        eprintln!("usage: floor PORT    (pin it with taskset)");
        return ExitCode::from(2);
    };
    match serve(port) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("floor: 127.0.0.1:{port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u16) -> std::io::Result<std::convert::Infallible> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let mut ring = Ring::new(RingOptions::default())?;
    ring.accept(listener.as_raw_fd(), LISTENER);
    println!("floor listens on {}", listener.local_addr()?);
    let mut connections = slab::Slab::new();
    let (mut events, mut with_replies) = (Vec::new(), Vec::new());
    loop {
        let idle = ring.queued() == 0
            && (0..SPINS_BEFORE_SLEEP).all(|_| {
                std::hint::spin_loop();
                !ring.has_due()
            });
        ring.enter(if idle { Wait::For(MAX_SLEEP) } else { Wait::No })?;
        ring.reap(MAX_EVENTS, &mut events);
        for event in events.drain(..) {
            take(&mut ring, &mut connections, &mut with_replies, &listener, event);
        }
        for key in with_replies.drain(..) {
            send_or_drop(&mut ring, &mut connections, key);
        }
    }
}

fn take(
    ring: &mut Ring,
    connections: &mut slab::Slab<Connection>,
    with_replies: &mut Vec<u32>,
    listener: &TcpListener,
    event: Event,
) {
    match event {
        Event::Accepted { socket, armed, .. } => {
            if let Ok(socket) = socket {
                accept(ring, connections, socket);
            }
            if !armed {
                ring.accept(listener.as_raw_fd(), LISTENER);
            }
        }
        Event::Received { token, received, armed } => {
            let connection = &mut connections[token as usize];
            connection.receiving = armed;
            match received {
                Received::Bytes(bytes) => {
                    connection.take(ring.bytes(&bytes));
                    ring.recycle(bytes);
                }
                Received::NoBuffer => {}
                Received::Closed | Received::Cancelled | Received::Failed(_) => connection.closing = true,
            }
            if !armed && !connection.closing {
                connection.receiving = true;
                ring.receive(connection.socket.as_raw_fd(), token);
            }
            connection.list(token, with_replies);
        }
        Event::Sent { token, mut buffer, result } => {
            let connection = &mut connections[token as usize];
            connection.closing |= result.is_err();
            buffer.clear();
            connection.spare = buffer;
            connection.sending = false;
            connection.list(token, with_replies);
        }
        Event::Written { .. } | Event::Woken { .. } | Event::Mapped(_) => unreachable!("never started"),
    }
}

fn accept(ring: &mut Ring, connections: &mut slab::Slab<Connection>, socket: OwnedFd) {
    let socket = TcpStream::from(socket);
    // Without it replies wait for acknowledgements; a socket that refuses it is broken, and its receive will say so.
    let _: std::io::Result<()> = socket.set_nodelay(true);
    let entry = connections.vacant_entry();
    let token = entry.key() as u32;
    ring.receive(socket.as_raw_fd(), token);
    entry.insert(Connection {
        socket,
        partial: Vec::new(),
        out: Vec::new(),
        spare: Vec::new(),
        receiving: true,
        sending: false,
        listed: false,
        closing: false,
    });
}

/// One send with all replies of the turn; or the end, once the kernel holds nothing of the connection.
fn send_or_drop(ring: &mut Ring, connections: &mut slab::Slab<Connection>, token: u32) {
    let connection = &mut connections[token as usize];
    connection.listed = false;
    if connection.sending {
        return;
    }
    if connection.closing {
        // A receive that is still armed ends with the shutdown, and lists the connection once more.
        let _: std::io::Result<()> = connection.socket.shutdown(Shutdown::Both);
        if !connection.receiving {
            connections.remove(token as usize);
        }
    } else if !connection.out.is_empty() {
        connection.sending = true;
        let buffer = std::mem::replace(&mut connection.out, std::mem::take(&mut connection.spare));
        ring.send(connection.socket.as_raw_fd(), token, buffer);
    }
}

impl Connection {
    /// Answers all commands that are complete with `bytes`; keeps the beginning of the next one.
    fn take(&mut self, bytes: &[u8]) {
        if self.partial.is_empty() {
            let consumed = answer(bytes, &mut self.out);
            self.partial.extend_from_slice(&bytes[consumed..]);
        } else {
            self.partial.extend_from_slice(bytes);
            let consumed = answer(&self.partial, &mut self.out);
            self.partial.drain(..consumed);
        }
        self.closing |= self.partial.len() > MAX_COMMAND_BYTES;
    }

    fn list(&mut self, token: u32, with_replies: &mut Vec<u32>) {
        if !self.listed {
            self.listed = true;
            with_replies.push(token);
        }
    }
}

/// Appends an answer for each complete command of `input`; returns how many bytes these took.
fn answer(input: &[u8], out: &mut Vec<u8>) -> usize {
    let mut rest = input;
    while let Some(command_bytes) = command_bytes(rest) {
        out.extend_from_slice(b"+OK\r\n");
        rest = &rest[command_bytes..];
    }
    input.len() - rest.len()
}

/// The length of the first command of `input`, where all of it is there.
fn command_bytes(input: &[u8]) -> Option<usize> {
    let (items, mut end) = match input.first()? {
        b'*' => counted_line(input, 0)?,
        _ => return Some(input.iter().position(|&byte| byte == b'\n')? + 1),
    };
    // Each item takes a byte at least, so a count that nobody can have meant ends at the end of the input.
    for _ in 0..items {
        let (length, body) = counted_line(input, end)?;
        end = body.checked_add(length)?.checked_add(2)?;
    }
    (end <= input.len()).then_some(end)
}

/// The number after the type byte at `at`, and where the next line begins.
fn counted_line(input: &[u8], at: usize) -> Option<(usize, usize)> {
    let digits = input.get(at + 1..)?;
    let length = digits.iter().position(|&byte| byte == b'\r')?;
    let add = |number: usize, digit: &u8| number.wrapping_mul(10).wrapping_add(usize::from(digit.wrapping_sub(b'0')));
    Some((digits[..length].iter().fold(0, add), at + 1 + length + 2))
}
