//! How fast large values can move at all: a bare socket pair against the ring's ways to move the same bytes.
//!
//! Place in the flow: none; a measurement. What it prints is the yardstick for setting and reading a large value: the
//! rate of the pair (blocking calls, memory that is in use already), and beside it, over the same kind of sockets,
//! receives into and sends from a mapped file by the ring.
//!
//! Run: `cargo run --release -p eyot-ring --example large -- [MiB] [rounds] [directory]`
//!
//! Each row says how long the slowest turn of the ring's thread was as well, which is what other connections of a core
//! would have waited.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use eyot_ring::{Event, MappedBytes, MappedEvent, MappedFile, MappedRegion, Piece, Ring, RingOptions, Wait};

/// Bytes of one operation: what a core would move in one turn.
const STEP_BYTES: usize = 1 << 20;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (bytes, rounds) = (number(64) << 20, number(10));
    let directory = arguments.next().unwrap_or_else(|| std::env::temp_dir().display().to_string());
    println!("{} MiB, best and median of {rounds} rounds; pages in {directory}", bytes >> 20);
    println!("{:<44} {:>10} {:>10} {:>14}", "way", "best GB/s", "median", "longest turn");
    let mut bench = Bench { bytes, rounds, ring: Ring::new(RingOptions::default())? };
    bench.socket_pair()?;
    let mut value = None;
    for (name, way, cold) in [
        ("receive, pages never touched", Way::OnThread, true),
        ("receive in worker, pages never touched", Way::InWorker, true),
        ("populate ahead, receive, never touched", Way::Populated, true),
        ("receive, pages in memory", Way::OnThread, false),
        ("receive in worker, pages in memory", Way::InWorker, false),
        ("populate ahead, receive, pages in memory", Way::Populated, false),
    ] {
        let count = if cold { rounds } else { 1 };
        let (_file, mut whole) = MappedFile::create(Path::new(&directory), count * bytes)?;
        if !cold {
            whole.bytes_mut().fill(1);
        }
        let mut places = VecDeque::new();
        while whole.len() > bytes {
            let rest = whole.split_off(bytes);
            places.push_back(std::mem::replace(&mut whole, rest));
        }
        places.push_back(whole);
        value = Some(bench.receive(name, way, places)?.share(bytes));
    }
    let value = value.expect("something was received");
    bench.send("send by reference", &value, false)?;
    bench.send("send by reference in worker", &value, true)
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    OnThread,
    InWorker,
    Populated,
}

struct Bench {
    bytes: usize,
    rounds: usize,
    ring: Ring,
}

fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let far = listener.accept()?.0;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// A thread that writes `bytes` each time it is told to.
fn writer(
    mut socket: TcpStream,
    bytes: usize,
    rounds: usize,
) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (go, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let data = vec![0x5A; bytes];
        for _ in 0..rounds {
            wait.recv().expect("the bench goes on");
            socket.write_all(&data).expect("the bench reads");
        }
    });
    (go, thread)
}

impl Bench {
    fn report(&self, name: &str, mut times: Vec<Duration>, longest: Option<Duration>) {
        times.sort();
        let rate = |time: Duration| self.bytes as f64 / time.as_secs_f64() / 1e9;
        let longest = longest.map_or(String::new(), |turn| format!("{:.2} ms", turn.as_secs_f64() * 1e3));
        println!("{name:<44} {:>10.2} {:>10.2} {longest:>14}", rate(times[0]), rate(times[times.len() / 2]));
    }

    fn socket_pair(&mut self) -> std::io::Result<()> {
        let (near, mut far) = pair()?;
        let (go, thread) = writer(near, self.bytes, self.rounds);
        let mut memory = vec![1; self.bytes];
        let mut times = Vec::new();
        for _ in 0..self.rounds {
            let started = Instant::now();
            go.send(()).expect("the writer waits");
            far.read_exact(&mut memory)?;
            times.push(started.elapsed());
        }
        thread.join().expect("the writer has ended");
        self.report("bare socket pair", times, None);
        Ok(())
    }

    /// The next events, and how long the thread was busy with making them due.
    fn turn(&mut self, longest: &mut Duration) -> std::io::Result<Vec<MappedEvent>> {
        // What is due is there before the clock starts: sleeping is no work.
        while !self.ring.has_due() && self.ring.queued() == 0 {
            self.ring.enter(Wait::For(Duration::from_millis(1)))?;
        }
        let started = Instant::now();
        self.ring.enter(Wait::No)?;
        let mut events = Vec::new();
        self.ring.reap(usize::MAX, &mut events);
        *longest = (*longest).max(started.elapsed());
        let events = events.into_iter().map(|event| match event {
            Event::Mapped(event) => event,
            other => unreachable!("only mapped operations are started: {other:?}"),
        });
        Ok(events.collect())
    }

    /// Receives once for each round, into each of `places` in turn.
    fn receive(&mut self, name: &str, way: Way, mut places: VecDeque<MappedRegion>) -> std::io::Result<MappedRegion> {
        let (near, far) = pair()?;
        let (go, thread) = writer(near, self.bytes, self.rounds);
        let (mut times, mut longest) = (Vec::new(), Duration::ZERO);
        for _ in 0..self.rounds {
            let place = places.pop_front().expect("they go round");
            let started = Instant::now();
            go.send(()).expect("the writer waits");
            let place = self.receive_once(far.as_raw_fd(), place, way, &mut longest)?;
            times.push(started.elapsed());
            places.push_back(place);
        }
        thread.join().expect("the writer has ended");
        self.report(name, times, Some(longest));
        Ok(places.pop_back().expect("they go round"))
    }

    fn receive_once(
        &mut self,
        socket: i32,
        place: MappedRegion,
        way: Way,
        longest: &mut Duration,
    ) -> std::io::Result<MappedRegion> {
        let mut rest = Some(place);
        let mut filled: Option<MappedRegion> = None;
        let mut ready = VecDeque::new();
        let (mut populating, mut receiving) = (false, false);
        loop {
            // One is received into while the next are made ready; one at a time, since workers do not keep an order.
            if way == Way::Populated && !populating && ready.len() < 3 && rest.is_some() {
                self.ring.populate(0, step(&mut rest));
                populating = true;
            }
            if !receiving {
                let next =
                    if way == Way::Populated { ready.pop_front() } else { rest.is_some().then(|| step(&mut rest)) };
                if let Some(region) = next {
                    let length = region.len();
                    self.ring.receive_into(socket, 0, region, 0, length, way == Way::InWorker);
                    receiving = true;
                }
            }
            for event in self.turn(longest)? {
                match event {
                    MappedEvent::Populated { region, result, .. } => {
                        result?;
                        populating = false;
                        ready.push_back(region);
                    }
                    MappedEvent::ReceivedInto { region, result, .. } => {
                        assert_eq!(result?, region.len());
                        receiving = false;
                        match &mut filled {
                            Some(filled) => filled.join(region),
                            None => filled = Some(region),
                        }
                    }
                    other => unreachable!("{other:?}"),
                }
            }
            if filled.as_ref().is_some_and(|filled| filled.len() == self.bytes) {
                return Ok(filled.expect("just seen"));
            }
        }
    }

    fn send(&mut self, name: &str, value: &MappedBytes, in_worker: bool) -> std::io::Result<()> {
        let (mut near, far) = pair()?;
        let (bytes, rounds) = (self.bytes, self.rounds);
        let reader = std::thread::spawn(move || {
            let mut memory = vec![1; bytes];
            (0..rounds).for_each(|_| near.read_exact(&mut memory).expect("the bench sends"));
        });
        let (mut times, mut longest) = (Vec::new(), Duration::ZERO);
        for _ in 0..rounds {
            let started = Instant::now();
            for from in (0..bytes).step_by(STEP_BYTES) {
                let piece = Piece::Mapped(value.clone(), from..from + STEP_BYTES);
                self.ring.send_pieces(far.as_raw_fd(), 0, vec![piece], in_worker);
                while self.turn(&mut longest)?.is_empty() {}
            }
            times.push(started.elapsed());
        }
        reader.join().expect("the reader has ended");
        self.report(name, times, Some(longest));
        Ok(())
    }
}

/// The next step of what is left.
fn step(rest: &mut Option<MappedRegion>) -> MappedRegion {
    let mut region = rest.take().expect("something is left");
    if region.len() > STEP_BYTES {
        *rest = Some(region.split_off(STEP_BYTES));
    }
    region
}
