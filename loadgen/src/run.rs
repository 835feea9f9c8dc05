//! The coordinator: connects, starts the threads, leads them through the phases, sums up.
//!
//! ```text
//! connect -> [preload] -> [warm-up] -> read CPU times -> measure -> read CPU times -> report
//! ```
//!
//! Each phase ends with nothing outstanding in any thread before the next begins, so the measured window holds exactly
//! the measured requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eyot_protocol::request::RequestOptions;
use hdrhistogram::Histogram;

use crate::args::{Args, OnMiss, Protocol};
use crate::engine::{Engine, Phase, Progress, Schedule};
use crate::error::LoadError;
use crate::machine;
use crate::measure::Measurement;
use crate::open_loop::backlog_bound;
use crate::password::{load_password, PASSWORD_VARIABLE};
use crate::progress::{ProgressLine, PATIENCE};
use crate::report::{Report, Window};
use crate::server_process::Usage;
use crate::topology::{resolve, Door, ShardMap};
use crate::traffic::{Client, Connection, Setting, Source, Traffic};
use crate::verify::Ledger;
use crate::wire::Encoder;
use crate::workload::{KeyForm, Workload};

/// Requests that each client keeps outstanding while keys are preloaded: that is not measured, only waited for.
const PRELOAD_PIPELINE: usize = 64;
/// Most bytes of values that a client has outstanding while keys are preloaded.
const PRELOAD_CLIENT_BYTES: usize = 4 << 20;
/// Bytes of a reply beside its value, generously.
const REPLY_OVERHEAD_BYTES: usize = 48;

enum Event {
    Ready(Result<(), LoadError>),
    Progress(Histogram<u64>, u64),
    Done(Box<Measurement>),
}

/// Runs the load that `args` describe. `stop`: end early, and report what there is.
///
/// # Errors
/// The run could not be started. What goes wrong later is in the report.
pub fn run(args: &Args, stop: &Arc<AtomicBool>) -> Result<Report, LoadError> {
    args.check()?;
    let own_pid = std::process::id();
    if let Some(pid) = args.server_pid {
        Usage::of(pid).map_err(|error| LoadError::Usage(format!("--server-pid {pid}: {error}")))?;
    }
    let password = load_password(args.password_file.as_deref(), std::env::var_os(PASSWORD_VARIABLE))?;
    if password.is_some() && args.protocol == Protocol::Memcached {
        return Err(LoadError::Usage("a password needs --protocol native or resp: memcached has none".to_owned()));
    }
    let door = Door { protocol: args.protocol, password: password.as_ref(), timeout: args.timeout };
    machine::raise_file_limit();
    let setting = setting(args, &door)?;
    let progress = ProgressLine::is_wanted(args.quiet);
    let mut threads = Threads::start(args, &door, &setting, stop, progress)?;
    let mut troubled = Measurement::default();
    for (name, phase) in phases(args) {
        let (before, own_before) = (usage(args.server_pid), usage(Some(own_pid)));
        let measurement = threads.run(name, &phase);
        let window = Window {
            server: before.zip(usage(args.server_pid)).map(|(before, after)| after.since(&before)),
            generator: own_before.zip(usage(Some(own_pid))).map(|(before, after)| after.since(&before)),
            measurement,
        };
        let over = stop.load(Ordering::Relaxed);
        if name == MEASURING || over {
            let mut report = Report::new(args, name, window);
            report.add_findings(&troubled);
            return Ok(report);
        }
        // What went wrong before the measured window decides the exit code all the same.
        troubled.add(&window.measurement);
    }
    unreachable!("the last phase is the measured one")
}

fn usage(pid: Option<u32>) -> Option<Usage> {
    pid.and_then(|pid| Usage::of(pid).ok())
}

/// The name of the phase that counts.
pub const MEASURING: &str = "measuring";

/// The phases of a run, with what each demands of all threads together.
fn phases(args: &Args) -> Vec<(&'static str, Phase)> {
    let schedule = args.rate.map(|rate| Schedule {
        interval_ns: 1e9 / rate,
        offset_ns: 0,
        backlog_bound: backlog_bound(rate, args.clients as usize * args.pipeline as usize),
    });
    let mixed = |requests, duration| Phase {
        source: Source::Mixed,
        pipeline: args.pipeline as usize,
        schedule,
        requests,
        duration,
    };
    let mut phases = Vec::new();
    if args.preload {
        let pipeline = PRELOAD_PIPELINE.min(PRELOAD_CLIENT_BYTES / (args.value_size + 1)).max(1);
        let source = Source::WriteEach(0..args.keys);
        phases.push(("preloading", Phase { source, pipeline, schedule: None, requests: args.keys, duration: None }));
    }
    if !args.warmup.is_zero() {
        phases.push(("warming up", mixed(u64::MAX, Some(args.warmup))));
    }
    phases.push((MEASURING, mixed(args.requests.unwrap_or(u64::MAX), args.measured_duration())));
    phases
}

/// Part `index` of `parts` of `total`.
fn share(total: u64, index: usize, parts: usize) -> std::ops::Range<u64> {
    let boundary = |part: usize| (u128::from(total) * part as u128 / parts as u128) as u64;
    boundary(index)..boundary(index + 1)
}

impl Phase {
    /// What one of `threads` threads has to do.
    fn for_thread(&self, thread: usize, threads: usize) -> Self {
        let own = if self.requests == u64::MAX { 0..u64::MAX } else { share(self.requests, thread, threads) };
        Self {
            source: match &self.source {
                Source::Mixed => Source::Mixed,
                Source::WriteEach(keys) => Source::WriteEach(share(keys.end, thread, threads)),
            },
            requests: own.end - own.start,
            schedule: self.schedule.map(|schedule| Schedule {
                interval_ns: schedule.interval_ns * threads as f64,
                offset_ns: (schedule.interval_ns * thread as f64) as u64,
                backlog_bound: schedule.backlog_bound / threads as u64,
            }),
            ..self.clone()
        }
    }
}

fn setting(args: &Args, door: &Door<'_>) -> Result<Setting, LoadError> {
    let mut form = KeyForm::new(&args.key_prefix);
    let routing = args.route || args.foreign_share.is_some();
    let shards = routing.then(|| ShardMap::ask(door, resolve(&args.address)?)).transpose()?;
    if let (Some(share), Some(shards)) = (args.foreign_share, &shards) {
        let refuse = |why: &str| Err(LoadError::Usage(format!("--foreign-share {share}: {why}")));
        if share > 0.0 && shards.addresses().len() < 2 {
            return refuse("the server has one core, so no key is foreign");
        }
        if !shards.every_core_owns_a_key(&mut form, args.keys) {
            return refuse("some core owns none of the keys; raise --keys, and use no {hash tag} in --key-prefix");
        }
    }
    // Tells this run's values from those of earlier ones; not a random choice of the workload, so not of --seed.
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = (started.as_nanos() as u64 ^ u64::from(std::process::id()) << 20) as u32;
    Ok(Setting {
        protocol: args.protocol,
        keys: args.keys,
        form,
        value_bytes: args.value_size,
        shards,
        foreign_share: args.foreign_share,
        ledger: args.verify.then(|| Arc::new(Ledger::new(args.keys, run))),
        fills: args.on_miss == OnMiss::Set,
    })
}

/// The load threads, each waiting for its next phase.
struct Threads {
    phases: Vec<Sender<Phase>>,
    events: Receiver<(usize, Event)>,
    handles: Vec<JoinHandle<()>>,
    progress: bool,
}

impl Threads {
    /// Connects all clients and starts the threads; returns when all of them are ready.
    fn start(
        args: &Args,
        door: &Door<'_>,
        setting: &Setting,
        stop: &Arc<AtomicBool>,
        progress: bool,
    ) -> Result<Self, LoadError> {
        let (sender, events) = mpsc::channel();
        let mut threads = Self { phases: Vec::new(), events, handles: Vec::new(), progress };
        let count = args.threads as usize;
        for thread in 0..count {
            let traffic = traffic(args, door, setting, thread, share(u64::from(args.clients), thread, count))?;
            let (phase_sender, phases) = mpsc::channel();
            let job = Job {
                thread,
                traffic,
                cpu: args.cpu.as_ref().map(|list| list.0[thread % list.0.len()]),
                reply_bytes: (args.value_size + REPLY_OVERHEAD_BYTES).saturating_mul(args.pipeline as usize),
                timeout: args.timeout,
                stop: Arc::clone(stop),
                progress,
                phases,
                events: sender.clone(),
            };
            let named = std::thread::Builder::new().name(format!("load-{thread}"));
            let failed = |error| LoadError::Thread { what: "start a thread".to_owned(), error };
            threads.handles.push(named.spawn(move || job.run()).map_err(failed)?);
            threads.phases.push(phase_sender);
        }
        for _ in 0..count {
            if let (_, Event::Ready(result)) = threads.events.recv().expect("threads report before they end") {
                result?;
            }
        }
        Ok(threads)
    }

    /// Leads all threads through a phase and sums up what they saw.
    fn run(&mut self, name: &'static str, phase: &Phase) -> Measurement {
        let count = self.phases.len();
        let mut line = ProgressLine::new(name, count, self.progress);
        for (thread, sender) in self.phases.iter().enumerate() {
            sender.send(phase.for_thread(thread, count)).expect("threads wait for phases");
        }
        let mut sum = Measurement::default();
        let mut running = count;
        while running > 0 {
            match self.events.recv_timeout(PATIENCE) {
                Ok((_, Event::Done(measurement))) => {
                    sum.add(&measurement);
                    running -= 1;
                }
                Ok((thread, Event::Progress(latencies_ns, errors))) => line.add(thread, &latencies_ns, errors),
                Ok((_, Event::Ready(_))) => unreachable!("all threads were ready before the first phase"),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("a load thread has panicked"),
            }
            line.draw_if_due();
        }
        sum
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Without senders of phases the threads end.
        self.phases.clear();
        for handle in self.handles.drain(..) {
            let _: std::thread::Result<()> = handle.join();
        }
    }
}

fn traffic(
    args: &Args,
    door: &Door<'_>,
    setting: &Setting,
    thread: usize,
    numbers: std::ops::Range<u64>,
) -> Result<Traffic, LoadError> {
    let address = resolve(&args.address)?;
    let (mut clients, mut connections) = (Vec::new(), Vec::new());
    for number in numbers {
        let own_cores: Vec<(u16, SocketAddr)> = match &setting.shards {
            None => vec![(0, address)],
            Some(shards) if args.route => (0..).zip(shards.addresses().iter().copied()).collect(),
            Some(shards) => {
                // Neighbours have one home, so that where threads are as many as cores, each loads one.
                let cores = shards.addresses().len() as u64;
                let home = (u128::from(number) * u128::from(cores) / u128::from(args.clients)) as usize;
                vec![(home as u16, shards.addresses()[home])]
            }
        };
        clients.push(Client::new(number, own_cores[0].0));
        for (_, address) in own_cores {
            connections.push(Connection::new(door.connect(number as usize, address)?));
        }
    }
    let options = RequestOptions { ack: args.ack.into(), ..RequestOptions::default() };
    let ttl_ms = args.ttl.map(|ttl| ttl.as_millis() as u64);
    let encoder = Encoder::new(args.protocol, &args.key_prefix, &vec![b'x'; args.value_size], &options, ttl_ms);
    let seed = args.seed.wrapping_add((thread as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let workload =
        Workload::new(args.ratio, args.distribution, args.keys, seed).of_thread(thread as u64, u64::from(args.threads));
    Ok(Traffic::new(setting.clone(), encoder, workload, clients, connections))
}

/// All that a thread needs.
struct Job {
    thread: usize,
    traffic: Traffic,
    cpu: Option<usize>,
    reply_bytes: usize,
    timeout: Duration,
    stop: Arc<AtomicBool>,
    progress: bool,
    phases: Receiver<Phase>,
    events: Sender<(usize, Event)>,
}

impl Job {
    fn run(self) {
        let Self { thread, traffic, cpu, reply_bytes, timeout, stop, progress, phases, events } = self;
        // Where nobody listens any more, the run is over.
        let tell = |event| events.send((thread, event)).is_ok();
        let report = progress.then(|| {
            let events = events.clone();
            let report = move |latencies_ns, errors| drop(events.send((thread, Event::Progress(latencies_ns, errors))));
            Box::new(report) as Progress
        });
        machine::exact_timers();
        let pinned = cpu.map_or(Ok(()), |cpu| {
            let failed = |error| LoadError::Thread { what: format!("pin a thread to CPU {cpu} (--cpu)"), error };
            machine::pin_to(cpu).map_err(failed)
        });
        let engine =
            pinned.and_then(|()| Engine::new(traffic, reply_bytes, timeout, stop, report).map_err(LoadError::Ring));
        match engine {
            Err(error) => drop(tell(Event::Ready(Err(error)))),
            Ok(mut engine) => {
                let mut heard = tell(Event::Ready(Ok(())));
                while let (true, Ok(phase)) = (heard, phases.recv()) {
                    heard = tell(Event::Done(Box::new(engine.run(&phase))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_the_whole_without_overlap() {
        for (total, parts) in [(10, 3), (2, 2), (1, 4), (u64::MAX - 1, 7), (0, 1)] {
            let mut next = 0;
            for index in 0..parts {
                let part = share(total, index, parts);
                assert_eq!(part.start, next);
                next = part.end;
            }
            assert_eq!(next, total);
        }
    }
}
