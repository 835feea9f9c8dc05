//! One test with every kind of client that a server fears, and well-behaved ones beside them, whose waiting is
//! measured.
//!
//! The well-behaved ones are connections of one thread: it writes a request to each, then reads the reply of each, and
//! again. So the measuring takes the same time with and without the others, and only the server's part differs.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::resp::put_command;
use crate::support::servers::redis_is_the_subject;
use crate::support::{directory, Reply, RespClient, Subject};

/// Well-behaved connections.
const NORMAL: usize = 16;
/// What their p99 may grow to beside the others, in hundredths of its quiet value. Asserted in a full run alone.
const P99_GROWTH_MAX: f64 = 1.5;

/// How many of each kind.
struct Numbers {
    never_reads: usize,
    hardly_read: usize,
    idle: usize,
    pipelined: usize,
    measured: Duration,
}

fn is_full() -> bool {
    std::env::var("EYOT_SLOW_FULL").is_ok_and(|value| value == "1")
}

impl Numbers {
    fn chosen() -> Self {
        if is_full() {
            let measured = Duration::from_secs(10);
            return Self { never_reads: 1, hardly_read: 1_000, idle: 10_000, pipelined: 1_000_000, measured };
        }
        let measured = Duration::from_millis(1_500);
        Self { never_reads: 1, hardly_read: 50, idle: 500, pipelined: 100_000, measured }
    }

    fn connections(&self) -> usize {
        self.never_reads + self.hardly_read + self.idle + NORMAL + 10
    }
}

/// What the well-behaved clients waited for their replies, in microseconds.
struct Waited {
    sorted: Vec<u64>,
}

impl Waited {
    fn share(&self, share: f64) -> u64 {
        self.sorted[((self.sorted.len() - 1) as f64 * share) as usize]
    }

    fn told(&self) -> String {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.share(share));
        format!("{} requests: p50 {p50} us, p99 {p99} us, p99.9 {p999} us", self.sorted.len())
    }
}

/// Lets `clients` set and get for `time`, or until `until` says so if that comes later.
fn measure(clients: &mut [RespClient], time: Duration, until: impl Fn() -> bool) -> Waited {
    let started = Instant::now();
    let mut waited = Vec::new();
    let mut round = 0_usize;
    while started.elapsed() < time || !until() {
        round += 1;
        let mut sent = [started; NORMAL];
        for (number, client) in clients.iter_mut().enumerate() {
            sent[number] = Instant::now();
            let key = format!("normal:{}", (round * NORMAL + number) % 1_000);
            match round % 4 {
                0 => client.send(&["SET", &key, "a value of some sixty-four bytes, as they are in many applications"]),
                _ => client.send(&["GET", &key]),
            }
        }
        for (client, sent) in clients.iter_mut().zip(sent) {
            let reply = client.receive();
            assert!(reply.error().is_none(), "a well-behaved client got {reply:?}");
            waited.push(sent.elapsed().as_micros() as u64);
        }
    }
    waited.sort_unstable();
    Waited { sorted: waited }
}

/// Connects and asks for the value of `key` so often that no buffer between here and the server holds the replies.
/// Whatever the server does then (it may stop reading, or close), the asking ends.
fn ask_and_never_read(address: SocketAddr, key: &str, times: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    let mut requests = Vec::new();
    (0..times).for_each(|_| put_command(&mut requests, &["GET", key]));
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("an option of every socket");
    let _: std::io::Result<()> = stream.write_all(&requests);
    stream
}

/// Connects and asks once, as clients do that wait in a pool; one that never asked would be closed.
fn say_hello_and_nothing_more(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.write_all(b"PING\r\n").expect("the server reads");
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).expect("the server answers");
    assert_eq!(&reply, b"+PONG\r\n");
    stream
}

/// Clients that ask for 200 KiB and read one byte a second each, until `stop`. Returns how many bytes they have read.
fn read_hardly(address: SocketAddr, count: usize, stop: &AtomicBool, ready: &AtomicUsize) -> usize {
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).expect("the server accepts");
        let mut requests = Vec::new();
        (0..2).for_each(|_| put_command(&mut requests, &["GET", "big:100k"]));
        stream.write_all(&requests).expect("the server reads");
        stream.set_nonblocking(true).expect("an option of every socket");
        streams.push(stream);
    }
    ready.fetch_add(1, Ordering::Relaxed);
    let mut bytes = 0;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        for stream in &mut streams {
            match stream.read(&mut [0]) {
                Ok(count) => bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The server may have had enough of it.
                Err(_) => {}
            }
        }
        while begun.elapsed() < Duration::from_secs(1) && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    bytes
}

/// Sends `count` commands as fast as the server takes them, while it reads the replies; all must come, in order.
fn pipeline_without_end(address: SocketAddr, count: usize) {
    yield_to_others();
    let stream = TcpStream::connect(address).expect("the server accepts");
    let mut client = RespClient::of(stream);
    let mut sender = client.stream.try_clone().expect("a second handle");
    let sending = std::thread::spawn(move || {
        yield_to_others();
        let mut piece = Vec::new();
        for number in 0..count {
            match number % 2 {
                0 => put_command(&mut piece, &["SET", "flood", &number.to_string()]),
                _ => put_command(&mut piece, &["GET", "flood"]),
            }
            if piece.len() > 60_000 || number + 1 == count {
                sender.write_all(&piece).expect("the server reads");
                piece.clear();
            }
        }
    });
    for number in 0..count {
        let expected = if number % 2 == 0 { Reply::status("OK") } else { Reply::bulk((number - 1).to_string()) };
        assert_eq!(client.receive(), expected, "reply {number} of {count}");
    }
    sending.join().expect("the sender does not panic");
}

/// The hostile clients share a processor with the measuring ones, and must not be what they wait for.
fn yield_to_others() {
    // Only ever less urgent, which needs no right.
    let _: Result<_, rustix::io::Errno> = rustix::process::nice(19);
}

/// The measuring side's processor: not the server's, which has the first.
fn take_the_last_processor() {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    if is_full() && count > 1 {
        let mut set = rustix::thread::CpuSet::new();
        (1..count).for_each(|processor| set.set(processor));
        rustix::thread::sched_setaffinity(None, &set).expect("a processor of this process");
    }
}

/// A normal client's share of the server must be its own, whatever others do; and the server's memory is bounded.
#[test]
fn slow_and_hostile_clients_are_no_burden_to_the_others() {
    let numbers = Numbers::chosen();
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files can be read");
    let directory = directory();
    let connections = numbers.connections().to_string();
    let subject = Subject::start(
        directory.path(),
        &["--cores", "1", "--max-connections", &connections, "--sync-writes=false", "--wal-segment-size", "64MiB"],
    );
    take_the_last_processor();
    let address = subject.address();
    let mut first = subject.connect();
    if redis_is_the_subject() {
        // By itself it lets a client that never reads fill the machine.
        let reply = first.call(&["CONFIG", "SET", "client-output-buffer-limit", "normal 32mb 32mb 0"]);
        assert_eq!(reply, Reply::status("OK"));
    }
    assert_eq!(first.call(&["SET", "big:1m", &"m".repeat(1 << 20)]), Reply::status("OK"));
    assert_eq!(first.call(&["SET", "big:100k", &"k".repeat(100 << 10)]), Reply::status("OK"));
    let mut normal: Vec<RespClient> = (0..NORMAL).map(|_| subject.connect()).collect();
    measure(&mut normal, numbers.measured / 5, || true);
    let quiet = measure(&mut normal, numbers.measured, || true);
    let quiet_rss = subject.rss_bytes();

    let (stop, ready, flooded) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicBool::new(false));
    let (beside, bytes) = std::thread::scope(|scope| {
        let hardly = scope.spawn(|| {
            yield_to_others();
            read_hardly(address, numbers.hardly_read, &stop, &ready)
        });
        let never: Vec<TcpStream> =
            (0..numbers.never_reads).map(|_| ask_and_never_read(address, "big:1m", 10_000)).collect();
        let idle: Vec<TcpStream> = (0..numbers.idle).map(|_| say_hello_and_nothing_more(address)).collect();
        crate::support::wait_until("the slow readers are there", || ready.load(Ordering::Relaxed) == 1);
        scope.spawn(|| {
            pipeline_without_end(address, numbers.pipelined);
            flooded.store(true, Ordering::Relaxed);
        });
        let beside = measure(&mut normal, numbers.measured, || flooded.load(Ordering::Relaxed));
        // They were let in, and were there to the end.
        let inside: usize = subject.info("connected_clients").parse().expect("a number");
        let all = numbers.hardly_read + numbers.idle + NORMAL;
        assert!(inside >= all, "{inside} connections, of {all} that only wait");
        assert_eq!((never.len(), idle.len()), (numbers.never_reads, numbers.idle));
        stop.store(true, Ordering::Relaxed);
        (beside, hardly.join().expect("the slow readers do not panic"))
    });
    assert!(bytes >= numbers.hardly_read, "the slow readers have read {bytes} bytes in all");
    let ratio = beside.share(0.99) as f64 / quiet.share(0.99) as f64;
    let peak = subject.peak_rss_bytes();
    eprintln!(
        "quiet:  {}\nbeside: {}\np99 ratio {ratio:.2}; memory {} MiB quiet, {} MiB at most",
        quiet.told(),
        beside.told(),
        quiet_rss >> 20,
        peak >> 20
    );
    // What the server's own bounds allow (unread replies, bytes that wait for the disk), what each connection may take,
    // and not the 10 GB that were asked for.
    let bound =
        quiet_rss + (160 << 20) + numbers.connections() as u64 * (16 << 10) + numbers.hardly_read as u64 * (300 << 10);
    assert!(redis_is_the_subject() || peak < bound, "{peak} bytes, over {bound}");
    assert!(!is_full() || redis_is_the_subject() || ratio < P99_GROWTH_MAX, "p99 grew by {ratio:.2}");
    assert_eq!(first.say("GET normal:1").bytes().map(<[u8]>::len), Some(66));
}
