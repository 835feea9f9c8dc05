//! One large value, set and read over RESP, against a bare pair of sockets that moves the same bytes.
//!
//! ```text
//! cargo build --release -p eyot-loadgen --example large_value
//! target/release/examples/large_value ADDRESS MIB ROUNDS PEER_CPU CLIENT_CPU
//!
//!           client (CLIENT_CPU)                        peer (PEER_CPU)
//! set       head, value ----------------------------->  bare: into a buffer as large as the value
//!                         <-----------------------------  +OK
//! read      GET ------------------------------------->
//!                         <-----------------------------  bare: out of that buffer
//! ```
//!
//! Place in the flow: none; a measurement, which `scripts/bench.sh large` prints. The server and the bare peer have the
//! same client code, in turn, over the same kind of sockets, with blocking calls; all buffers were used before.
//! So what differs is the server's own.
//!
//! Output: one line `WHO OPERATION best_mb_per_s median_mb_per_s ratio_to_pair` each, the ratio of medians. One
//! megabyte is 10^6 bytes.
//!
//! Deliberately not here: many clients or pipelines; one value at a time shows what moving it costs.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use eyot_loadgen::machine::pin_to;

/// How long one transfer may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The bytes that a SET of the key begins with, up to the value's length.
const SET_HEAD: &str = "*3\r\n$3\r\nSET\r\n$16\r\nlarge:0000000001\r\n$";
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\nlarge:0000000001\r\n";
const STORED: &[u8] = b"+OK\r\n";
const LINE_END: &[u8] = b"\r\n";
/// A period that is no power of two, so that a page in the wrong place is noticed.
const PATTERN_PERIOD: usize = 251;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, mib, rounds, peer_cpu, client_cpu] = &arguments[..] else {
        return Err(Error::new(ErrorKind::InvalidInput, "usage: large_value ADDRESS MIB ROUNDS PEER_CPU CLIENT_CPU"));
    };
    let number = |text: &String| {
        text.parse::<usize>().map_err(|error| Error::new(ErrorKind::InvalidInput, format!("{text}: {error}")))
    };
    let server = address.parse::<SocketAddr>().map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
    let (bytes, rounds) = (number(mib)? << 20, number(rounds)?.max(1));
    let value: Vec<u8> = (0..bytes).map(|index| (index % PATTERN_PERIOD) as u8).collect();
    let pair = bare_peer(bytes, number(peer_cpu)?)?;
    pin_to(number(client_cpu)?)?;

    let mut clients = [Client::connect("pair", pair, bytes)?, Client::connect("server", server, bytes)?];
    // The first round touches every buffer's pages and is not counted.
    for round in 0..=rounds {
        for client in &mut clients {
            client.set(&value)?;
            client.get(&value)?;
            if round == 0 {
                client.set_s.clear();
                client.get_s.clear();
            }
        }
    }
    let reference = [median(&mut clients[0].set_s), median(&mut clients[0].get_s)];
    for client in &mut clients {
        for (operation, seconds, pair_s) in
            [("SET", &mut client.set_s, reference[0]), ("GET", &mut client.get_s, reference[1])]
        {
            let middle_s = median(seconds);
            let mb_per_s = |seconds: f64| bytes as f64 / 1e6 / seconds;
            println!(
                "{} {operation} {:.0} {:.0} {:.3}",
                client.name,
                mb_per_s(seconds[0]),
                mb_per_s(middle_s),
                pair_s / middle_s
            );
        }
    }
    Ok(())
}

/// Sorts, and returns the middle.
fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

struct Client {
    name: &'static str,
    socket: TcpStream,
    /// A reply to GET: `$length CRLF value CRLF`.
    reply: Vec<u8>,
    reply_head: Vec<u8>,
    set_s: Vec<f64>,
    get_s: Vec<f64>,
}

impl Client {
    fn connect(name: &'static str, address: SocketAddr, bytes: usize) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        let reply_head = format!("${bytes}\r\n").into_bytes();
        let reply = vec![0; reply_head.len() + bytes + LINE_END.len()];
        Ok(Self { name, socket, reply, reply_head, set_s: Vec::new(), get_s: Vec::new() })
    }

    fn set(&mut self, value: &[u8]) -> Result<()> {
        let started = Instant::now();
        self.socket.write_all(set_head(value.len()).as_bytes())?;
        self.socket.write_all(value)?;
        self.socket.write_all(LINE_END)?;
        let mut stored = [0; STORED.len()];
        self.socket.read_exact(&mut stored)?;
        self.set_s.push(started.elapsed().as_secs_f64());
        if stored == STORED {
            Ok(())
        } else {
            Err(self.refused(&stored))
        }
    }

    fn get(&mut self, value: &[u8]) -> Result<()> {
        let started = Instant::now();
        self.socket.write_all(GET)?;
        let head_bytes = self.reply_head.len();
        self.socket.read_exact(&mut self.reply[..head_bytes])?;
        if self.reply[..head_bytes] != self.reply_head {
            return Err(self.refused(&self.reply[..head_bytes]));
        }
        self.socket.read_exact(&mut self.reply[head_bytes..])?;
        self.get_s.push(started.elapsed().as_secs_f64());
        let (got, end) = self.reply[head_bytes..].split_at(value.len());
        if got == value && end == LINE_END {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::InvalidData, format!("{}: not the value that was set", self.name)))
        }
    }

    fn refused(&self, answer: &[u8]) -> Error {
        Error::new(ErrorKind::InvalidData, format!("{} answered \"{}...\"", self.name, answer.escape_ascii()))
    }
}

fn set_head(bytes: usize) -> String {
    format!("{SET_HEAD}{bytes}\r\n")
}

/// A peer that does nothing but move the bytes, at the returned address.
fn bare_peer(bytes: usize, cpu: usize) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("bare peer".to_owned()).spawn(move || {
        // It ends with the client's connection, and so does the program.
        if let Err(error) = pin_to(cpu).and_then(|()| serve(&listener, bytes)) {
            eprintln!("large_value: the bare peer: {error}");
        }
    })?;
    Ok(address)
}

fn serve(listener: &TcpListener, bytes: usize) -> Result<()> {
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let reply_head = format!("${bytes}\r\n").into_bytes();
    let mut set_head = vec![0; set_head(bytes).len()];
    let mut get = [0; GET.len()];
    // Head and value of a reply stand together, so that a read is answered by one call.
    let mut stored = reply_head.clone();
    stored.resize(reply_head.len() + bytes + LINE_END.len(), 0);
    loop {
        if socket.read_exact(&mut set_head).is_err() {
            return Ok(());
        }
        socket.read_exact(&mut stored[reply_head.len()..])?;
        socket.write_all(STORED)?;
        socket.read_exact(&mut get)?;
        socket.write_all(&stored)?;
    }
}
