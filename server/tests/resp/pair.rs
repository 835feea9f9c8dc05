//! Redis and Eyot side by side: the same commands to both, in pipelines, and the first pair of replies that disagree.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::compare::{agree, Context};
use super::lines::{Line, Step};
use crate::support::{Reply, RespClient};

/// Commands that are sent before the first reply is awaited.
const PIPELINE: usize = 400;
/// What two servers may differ in time besides the time that a pipeline takes.
const SLACK_MS: i64 = 1_000;
/// More rounds than any iteration over a few keys takes: one that does not end is a finding.
const SCAN_ROUNDS_MAX: usize = 5_000;
/// How long keys with a time in the past may be counted.
const GHOST_PATIENCE: Duration = Duration::from_secs(10);

/// Two replies that disagree.
#[derive(Debug, Clone)]
pub struct Found {
    /// The place of the step in its sequence; beyond its end where what is left at the end differs.
    pub step: usize,
    pub line: Line,
    pub redis: Reply,
    pub eyot: Reply,
}

/// What a planted fault makes of the second server's reply to a command.
pub type Fault = fn(&Line, &mut Reply);

/// How often a command was answered, and how often with an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answers {
    pub good: usize,
    pub errors: usize,
}

/// The two servers.
pub struct Pair {
    redis: SocketAddr,
    eyot: SocketAddr,
    fault: Option<Fault>,
    /// What Redis answered so far, by the command's name.
    pub answers: RefCell<BTreeMap<String, Answers>>,
}

/// A connection to each, on a database without keys.
struct Talk<'a> {
    pair: &'a Pair,
    redis: RespClient,
    eyot: RespClient,
    context: Context,
}

impl Pair {
    pub fn new(redis: SocketAddr, eyot: SocketAddr) -> Self {
        Self { redis, eyot, fault: None, answers: RefCell::default() }
    }

    /// The same, with a fault planted into the second server.
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    fn count(&self, line: &Line, reply: &Reply) {
        let mut answers = self.answers.borrow_mut();
        let of_name = answers.entry(line.word(0)).or_default();
        match reply {
            Reply::Error(_) => of_name.errors += 1,
            _ => of_name.good += 1,
        }
    }

    /// Runs `steps` on both, from empty databases; the first disagreement, if there is one.
    pub fn run(&self, steps: &[Step]) -> Option<Found> {
        let (redis, eyot) = (RespClient::connect(self.redis), RespClient::connect(self.eyot));
        let context = Context { slack_ms: SLACK_MS, ghosts: 0 };
        let mut talk = Talk { pair: self, redis, eyot, context };
        talk.redis.must("FLUSHALL");
        talk.eyot.must("FLUSHALL");
        let mut first = 0;
        while first < steps.len() {
            let found = match &steps[first] {
                Step::Scan(arguments) => {
                    first += 1;
                    talk.scan(first - 1, arguments)
                }
                Step::Lines(_) => {
                    let end = pipeline_end(steps, first);
                    let found = talk.lines(first, &steps[first..end]);
                    first = end;
                    found
                }
            };
            if found.is_some() {
                return found;
            }
        }
        talk.remains(steps.len())
    }
}

/// Where the pipeline that begins with step `first` ends.
fn pipeline_end(steps: &[Step], first: usize) -> usize {
    let mut commands = 0;
    let fits = |step: &&Step| {
        commands += step.count();
        matches!(step, Step::Lines(_)) && commands <= PIPELINE
    };
    first + steps[first..].iter().take_while(fits).count().max(1)
}

impl Talk<'_> {
    /// Sends `steps` to both and compares what they reply. `first` is the place of the first of them.
    fn lines(&mut self, first: usize, steps: &[Step]) -> Option<Found> {
        let lines = |step: &Step| match step {
            Step::Lines(lines) => lines.clone(),
            Step::Scan(_) => Vec::new(),
        };
        let mut bytes = Vec::new();
        for line in steps.iter().flat_map(lines) {
            line.put(&mut bytes);
        }
        let started = Instant::now();
        let mut senders = [&self.redis, &self.eyot].map(|client| client.stream.try_clone().expect("a second handle"));
        std::thread::scope(|scope| {
            for sender in &mut senders {
                // A server that closes on a request fails the receiving side, which can say at which command.
                scope.spawn(|| sender.write_all(&bytes));
            }
            let mut found = None;
            // Redis ends no connection here: a sequence that makes it do so compares nothing from there on.
            let redis: Vec<Vec<Reply>> = steps.iter().map(|step| receive_step(&mut self.redis, step, None)).collect();
            let fault = self.pair.fault;
            let eyot: Vec<Vec<Reply>> = steps.iter().map(|step| receive_step(&mut self.eyot, step, fault)).collect();
            let lost = |reply: &Reply| reply.error().is_some_and(|line| line.starts_with('('));
            for (step, replies) in steps.iter().zip(&redis) {
                assert!(!replies.iter().any(lost), "Redis ended the connection at or before {step:?}: {replies:?}");
            }
            // The replies of both are read to the end, so that no sender waits for a reader that has left.
            self.context.slack_ms = self.context.slack_ms.max(SLACK_MS + started.elapsed().as_millis() as i64);
            for (at, step) in steps.iter().enumerate() {
                found = found.or_else(|| self.compare(first + at, step, &redis[at], &eyot[at]));
            }
            found
        })
    }

    fn compare(&mut self, at: usize, step: &Step, redis: &[Reply], eyot: &[Reply]) -> Option<Found> {
        let Step::Lines(lines) = step else { return None };
        self.context.ghosts += lines.iter().filter(|line| line.leaves_a_ghost()).count() as i64;
        for (place, line) in lines.iter().filter(|line| line.answered).enumerate() {
            self.pair.count(line, &redis[place]);
            if !agree(line, &redis[place], &eyot[place], &eyot[..place], &self.context) {
                let (redis, eyot) = (redis[place].clone(), eyot[place].clone());
                return Some(Found { step: at, line: line.clone(), redis, eyot });
            }
        }
        None
    }

    /// A whole iteration on each: no key may be missing or strange, and the end must come.
    fn scan(&mut self, at: usize, arguments: &[Vec<u8>]) -> Option<Found> {
        let (redis, eyot) = (iterate(&mut self.redis, arguments), iterate(&mut self.eyot, arguments));
        let mut line = Line::of("SCAN 0");
        line.arguments.extend_from_slice(arguments);
        self.pair.count(&line, &redis);
        (redis != eyot).then_some(Found { step: at, line, redis, eyot })
    }

    /// What the sequence left behind: keys, values and expiries, and their number.
    fn remains(&mut self, step: usize) -> Option<Found> {
        let all = Line::of("KEYS *");
        // The connection may speak either protocol, and be silent no more: a sequence ends each silence.
        let (redis, eyot) = (self.redis.call(&all.arguments), self.eyot.call(&all.arguments));
        if !agree(&all, &redis, &eyot, &[], &self.context) {
            return Some(Found { step, line: all, redis, eyot });
        }
        for key in redis.elements() {
            let key = key.bytes().expect("a key").to_vec();
            for name in ["GET", "PEXPIRETIME", "TYPE"] {
                let line = Line::new(&[name.as_bytes(), &key]);
                let (redis, eyot) = (self.redis.call(&line.arguments), self.eyot.call(&line.arguments));
                if !agree(&line, &redis, &eyot, &[], &self.context) {
                    return Some(Found { step, line, redis, eyot });
                }
            }
        }
        let (started, size) = (Instant::now(), Line::of("DBSIZE"));
        loop {
            let (redis, eyot) = (self.redis.call(&size.arguments), self.eyot.call(&size.arguments));
            if redis == eyot {
                return None;
            }
            if started.elapsed() > GHOST_PATIENCE {
                return Some(Found { step, line: size, redis, eyot });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The replies to the commands of `step`. A connection that ends reads as an error, so that it is compared, too.
fn receive_step(client: &mut RespClient, step: &Step, fault: Option<Fault>) -> Vec<Reply> {
    let Step::Lines(lines) = step else { return Vec::new() };
    let receive = |line: &Line| {
        let mut reply = match client.try_receive() {
            Ok(Some(reply)) => reply,
            Ok(None) => Reply::Error("(connection closed)".to_owned()),
            Err(error) => Reply::Error(format!("(connection lost: {})", error.kind())),
        };
        if let Some(fault) = fault {
            fault(line, &mut reply);
        }
        reply
    };
    lines.iter().filter(|line| line.answered).map(receive).collect()
}

/// All keys of an iteration, sorted, each once; or the error that it ended with.
fn iterate(client: &mut RespClient, arguments: &[Vec<u8>]) -> Reply {
    let (mut keys, mut cursor) = (Vec::new(), b"0".to_vec());
    for _ in 0..SCAN_ROUNDS_MAX {
        let mut line = vec![b"SCAN".to_vec(), cursor];
        line.extend_from_slice(arguments);
        let reply = client.call(&line);
        if reply.error().is_some() {
            return reply;
        }
        let both = reply.elements();
        cursor = both[0].bytes().expect("a cursor is a bulk").to_vec();
        keys.extend(both[1].elements().iter().map(|key| key.bytes().expect("a key is a bulk").to_vec()));
        if cursor == b"0" {
            keys.sort();
            // A key may come twice; Redis promises no less.
            keys.dedup();
            return Reply::Array(keys.into_iter().map(Reply::Bulk).collect());
        }
    }
    Reply::Error(format!("(no end after {SCAN_ROUNDS_MAX} rounds)"))
}
