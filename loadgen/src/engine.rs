//! One thread's turn: one ring carries all its connections.
//!
//! Place in the flow: the other end of a server's steps 1, 2 and 9.
//!
//! ```text
//! requests that are due -> connections' buffers -> one send each -> enter the ring (sleep there) -> replies -> pace
//! ```
//!
//! A turn makes one system call and reads the clock once, after it. So all requests of a turn are sent, and all replies
//! of a turn arrive, at the same time as far as latencies are concerned: they are resolved to one turn, and never
//! measured too short, because a request's time begins before it is encoded.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eyot_ring::{Event, Received, Ring, RingOptions, Wait};

use crate::closed_loop::{Budget, ClosedLoop};
use crate::measure::{latencies_ns, Measurement, Trouble};
use crate::open_loop::OpenLoop;
use crate::traffic::{Source, Traffic};

/// Completions taken in one turn, so that a turn's clock reading stays true for all of them.
const MAX_EVENTS: usize = 4096;
/// How often time-outs, signals and progress are looked at, and the longest sleep.
const CHECK_INTERVAL_NS: u64 = 100_000_000;
/// How often a thread reports its progress.
const PROGRESS_INTERVAL_NS: u64 = 1_000_000_000;
/// The time before a request is due is spent awake, if only this much of it is left: waking up takes some tens of
/// microseconds, which would be charged to the server.
const AWAKE_NS: u64 = 50_000;
/// How long answers are waited for after an interruption.
const INTERRUPTED_DRAIN_NS: u64 = 1_000_000_000;
/// Receive buffers of a thread; with [`receive_buffer_bytes`] at most 16 MiB, at least 1 MiB.
const RECEIVE_BUFFERS: u16 = 256;

/// An open loop's pace, for one thread.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Between two requests of this thread.
    pub interval_ns: f64,
    /// From the phase's start to the first request, so that threads take turns.
    pub offset_ns: u64,
    /// See [`crate::open_loop::backlog_bound`].
    pub backlog_bound: u64,
}

/// A part of a run: preload, warm-up or measurement. It begins and ends with nothing outstanding.
#[derive(Debug, Clone)]
pub struct Phase {
    /// What it asks for.
    pub source: Source,
    /// Requests that a client may have outstanding.
    pub pipeline: usize,
    /// `None`: a closed loop.
    pub schedule: Option<Schedule>,
    /// Ends after so many requests of this thread.
    pub requests: u64,
    /// Ends after this time.
    pub duration: Option<Duration>,
}

#[derive(Debug)]
enum Pace {
    Closed(ClosedLoop),
    Open(OpenLoop),
}

/// What a thread reports while a phase runs.
pub type Progress = Box<dyn FnMut(hdrhistogram::Histogram<u64>, u64) + Send>;

/// One thread's load. Belongs to the thread that made it.
pub struct Engine {
    ring: Ring,
    events: Vec<Event>,
    traffic: Traffic,
    origin: Instant,
    stop: Arc<AtomicBool>,
    timeout: Duration,
    progress: Option<Progress>,
}

impl Engine {
    /// Makes the ring and begins to receive. `stop` ends a phase early; a thread in trouble sets it for the others.
    ///
    /// # Errors
    /// The ring could not be made.
    pub fn new(
        mut traffic: Traffic,
        reply_bytes: usize,
        timeout: Duration,
        stop: Arc<AtomicBool>,
        progress: Option<Progress>,
    ) -> std::io::Result<Self> {
        let connections = traffic.connections().len();
        let mut ring = Ring::new(RingOptions {
            receive_buffers: RECEIVE_BUFFERS,
            receive_buffer_bytes: receive_buffer_bytes(reply_bytes),
            // A turn may bring a receive and the end of a send for every connection.
            completion_entries: (connections * 4).clamp(4096, 65_536).next_power_of_two() as u32,
            ..RingOptions::default()
        })?;
        for (token, connection) in traffic.connections().iter().enumerate() {
            ring.receive(connection.socket.as_raw_fd(), token as u32);
        }
        traffic.interval_ns = progress.is_some().then(latencies_ns);
        Ok(Self { ring, events: Vec::new(), traffic, origin: Instant::now(), stop, timeout, progress })
    }

    #[inline]
    fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Runs a phase to its end. After a [`Trouble`], which is in the result, no further phase can be run.
    pub fn run(&mut self, phase: &Phase) -> Measurement {
        let start_ns = self.now_ns();
        let mut pace = self.begin(phase, start_ns);
        let outcome = self.turns(&mut pace, start_ns);
        let end_ns = self.now_ns();
        let mut measurement = std::mem::take(&mut self.traffic.measurement);
        match outcome {
            Ok(last_answer_ns) => measurement.elapsed = Duration::from_nanos(last_answer_ns - start_ns),
            Err(trouble) => {
                self.stop.store(true, Ordering::Relaxed);
                measurement.troubles.push(trouble);
                measurement.elapsed = Duration::from_nanos(end_ns - start_ns);
            }
        }
        if let Pace::Open(pace) = &pace {
            measurement.max_backlog = pace.max_backlog();
            measurement.unsent = pace.scheduled(end_ns, phase.requests).saturating_sub(pace.sent());
        }
        measurement
    }

    fn begin(&mut self, phase: &Phase, start_ns: u64) -> Pace {
        self.traffic.begin(phase.source.clone(), phase.pipeline);
        let end_ns = phase.duration.map_or(u64::MAX, |duration| start_ns.saturating_add(duration.as_nanos() as u64));
        let budget = Budget { requests: phase.requests, end_ns };
        let clients = self.traffic.client_count();
        match phase.schedule {
            None => Pace::Closed(ClosedLoop::new(clients, phase.pipeline as u32, budget)),
            Some(Schedule { interval_ns, offset_ns, backlog_bound }) => {
                // One slot of each client after the other, so that the first requests meet all clients.
                let (clients, pipeline) = (clients as u32, phase.pipeline as u32);
                let slots = (0..pipeline).flat_map(|slot| (0..clients).map(move |client| client * pipeline + slot));
                Pace::Open(OpenLoop::new(start_ns + offset_ns, interval_ns, budget, slots, backlog_bound))
            }
        }
    }

    /// Turns until nothing is left to be sent and nothing is outstanding; returns when the last answer came.
    fn turns(&mut self, pace: &mut Pace, start_ns: u64) -> Result<u64, Trouble> {
        let (mut now_ns, mut last_answer_ns) = (start_ns, start_ns);
        let mut checks = Checks::new(start_ns);
        loop {
            self.issue_due(pace, now_ns);
            self.flush();
            if self.traffic.outstanding() == 0 && pace.is_exhausted(now_ns) {
                return Ok(last_answer_ns);
            }
            self.sleep(pace, now_ns, checks.next_ns)?;
            now_ns = self.now_ns();
            self.take_events(now_ns)?;
            if !self.traffic.answered.is_empty() {
                last_answer_ns = now_ns;
                self.pass_on_answers(pace);
            }
            if now_ns >= checks.next_ns && self.check(&mut checks, pace, now_ns)? {
                return Ok(last_answer_ns);
            }
        }
    }

    /// Encodes the requests that may be sent now.
    #[inline]
    fn issue_due(&mut self, pace: &mut Pace, now_ns: u64) {
        match pace {
            Pace::Closed(pace) => {
                while let Some((client, count)) = pace.next_batch(now_ns) {
                    let first = self.traffic.first_slot(client);
                    (first..first + count).for_each(|slot| self.traffic.issue(slot, now_ns, now_ns));
                }
            }
            Pace::Open(pace) => {
                pace.observe(now_ns);
                while let Some((due_ns, slot)) = pace.next(now_ns) {
                    self.traffic.note_lateness(due_ns, now_ns);
                    self.traffic.issue(slot, due_ns, now_ns);
                }
            }
        }
    }

    #[inline]
    fn pass_on_answers(&mut self, pace: &mut Pace) {
        let mut answered = std::mem::take(&mut self.traffic.answered);
        for slot in answered.drain(..) {
            match pace {
                Pace::Closed(pace) => pace.answered(self.traffic.client_of(slot)),
                Pace::Open(pace) => pace.answered(slot),
            }
        }
        self.traffic.answered = answered;
    }

    /// Queues one send for each connection that has requests and is not sending.
    #[inline]
    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.traffic.dirty);
        for index in dirty.drain(..) {
            self.traffic.clean(index);
            let connection = &mut self.traffic.connections()[index as usize];
            if connection.sending || connection.out.is_empty() {
                continue;
            }
            connection.sending = true;
            let spare = std::mem::take(&mut connection.spare);
            let buffer = std::mem::replace(&mut connection.out, spare);
            let bytes = buffer.len() as u64;
            self.ring.send(connection.socket.as_raw_fd(), index, buffer);
            self.traffic.measurement.sent_bytes += bytes;
        }
        self.traffic.dirty = dirty;
    }

    /// Enters the ring: submits, and sleeps until something is due, the pace's next request or the next check included.
    #[inline]
    fn sleep(&mut self, pace: &Pace, now_ns: u64, check_ns: u64) -> Result<(), Trouble> {
        let mut until_ns = check_ns;
        if let Some(next_ns) = pace.next_ns() {
            if next_ns < now_ns.saturating_add(AWAKE_NS) {
                while self.ring.queued() == 0 && !self.ring.has_due() && self.now_ns() < next_ns {
                    std::hint::spin_loop();
                }
                return self.enter(Wait::No);
            }
            until_ns = until_ns.min(next_ns - AWAKE_NS);
        }
        self.enter(Wait::For(Duration::from_nanos(until_ns.saturating_sub(now_ns).max(1))))
    }

    #[inline]
    fn enter(&mut self, wait: Wait) -> Result<(), Trouble> {
        self.ring.enter(wait).map_err(|error| Trouble::Ring(error.to_string()))
    }

    #[inline]
    fn take_events(&mut self, now_ns: u64) -> Result<(), Trouble> {
        let mut events = std::mem::take(&mut self.events);
        self.ring.reap(MAX_EVENTS, &mut events);
        for event in events.drain(..) {
            match event {
                Event::Received { token, received, armed } => self.received(token, received, armed, now_ns)?,
                Event::Sent { token, buffer, result } => match result {
                    Ok(count) if count == buffer.len() => self.traffic.sent(token, buffer),
                    Ok(count) => return Err(self.lost(token, format!("{count} of {} bytes sent", buffer.len()))),
                    Err(error) => return Err(self.lost(token, error.to_string())),
                },
                other => unreachable!("the load generator starts only sends and receives, not {other:?}"),
            }
        }
        self.events = events;
        Ok(())
    }

    #[inline]
    fn received(&mut self, token: u32, received: Received, armed: bool, now_ns: u64) -> Result<(), Trouble> {
        match received {
            Received::Bytes(bytes) => {
                let outcome = self.traffic.receive(token, self.ring.bytes(&bytes), now_ns);
                self.ring.recycle(bytes);
                outcome.map_err(|error| self.lost(token, error.to_string()))?;
            }
            Received::NoBuffer => {}
            Received::Closed => return Err(self.lost(token, "the server closed it".to_owned())),
            Received::Cancelled => return Err(self.lost(token, "the receive was cancelled".to_owned())),
            Received::Failed(error) => return Err(self.lost(token, error.to_string())),
        }
        if !armed {
            let socket = self.traffic.connections()[token as usize].socket.as_raw_fd();
            self.ring.receive(socket, token);
        }
        Ok(())
    }

    #[cold]
    fn lost(&self, connection: u32, why: String) -> Trouble {
        let client = self.traffic.client_number(connection);
        Trouble::ConnectionLost { client, outstanding: self.traffic.outstanding() as u64, why }
    }

    /// What is due a few times a second; whether the phase must end now.
    #[cold]
    fn check(&mut self, checks: &mut Checks, pace: &mut Pace, now_ns: u64) -> Result<bool, Trouble> {
        checks.next_ns = now_ns + CHECK_INTERVAL_NS;
        if let Some(trouble) = self.traffic.overdue(now_ns, self.timeout) {
            return Err(trouble);
        }
        if let (Some(report), true) = (&mut self.progress, now_ns >= checks.progress_ns) {
            checks.progress_ns = now_ns + PROGRESS_INTERVAL_NS;
            if let Some(interval_ns) = self.traffic.interval_ns.replace(latencies_ns()) {
                report(interval_ns, self.traffic.measurement.error_count());
            }
        }
        if self.stop.load(Ordering::Relaxed) {
            pace.stop();
            self.traffic.measurement.interrupted = true;
            let give_up_ns = *checks.give_up_ns.get_or_insert(now_ns + INTERRUPTED_DRAIN_NS);
            return Ok(now_ns >= give_up_ns);
        }
        Ok(false)
    }
}

impl Pace {
    fn is_exhausted(&self, now_ns: u64) -> bool {
        match self {
            Self::Closed(pace) => pace.exhausted(now_ns),
            Self::Open(pace) => pace.next_due_ns().is_none(),
        }
    }

    /// When something is to be done although no reply came.
    #[inline]
    fn next_ns(&self) -> Option<u64> {
        match self {
            Self::Closed(_) => None,
            Self::Open(pace) => pace.next_due_ns().filter(|_| pace.has_free_slot()),
        }
    }

    fn stop(&mut self) {
        match self {
            Self::Closed(pace) => pace.stop(),
            Self::Open(pace) => pace.stop(),
        }
    }
}

/// When to look at what is due a few times a second.
#[allow(clippy::struct_field_names)] // All are times, and a time's name ends with its unit.
struct Checks {
    next_ns: u64,
    progress_ns: u64,
    give_up_ns: Option<u64>,
}

impl Checks {
    fn new(start_ns: u64) -> Self {
        Self { next_ns: start_ns + CHECK_INTERVAL_NS, progress_ns: start_ns + PROGRESS_INTERVAL_NS, give_up_ns: None }
    }
}

/// Room for the replies to one batch, so that they come in one piece, within bounds: small buffers stay in the cache.
fn receive_buffer_bytes(reply_bytes: usize) -> usize {
    reply_bytes.clamp(4 * 1024, 64 * 1024).next_power_of_two()
}
