//! Commands that take long: timed as a whole where that costs nothing in comparison, told to SLOWLOG, LATENCY and INFO.
//!
//! Place in the flow: step 5 (execute), around what is not on one key or is large, and the end of the turn, for what
//! was timed where it happened (`server/src/metrics/heavy.rs`).
//!
//! | what | what its time is |
//! |---|---|
//! | a command on several keys or none | taking it, or its first slice |
//! | a request of [`HEAVY_BYTES`](crate::metrics::heavy::HEAVY_BYTES) on one key | taking it |
//! | a read that copies so much | copying it |
//! | a write that moves so much | applying it |
//! | with a threshold below [`EACH_BELOW_US`], every command | taking it, a read whose key is this core's included |
//!
//! What a write waits for the disk is no time of the command: LATENCY has an event of its own for that.

use std::time::Instant;

use eyot_protocol::resp::request::ConfigCommand;
use eyot_protocol::resp::table::lookup;
use eyot_protocol::resp::{Args, Parsed, RespRequest};

use super::execute::Terms;
use super::Work;
use crate::admin::latency::Event;
use crate::admin::slowlog::{is_slow, shortened};
use crate::metrics::heavy::{HeavyRun, RUN_US_MIN};
use crate::net::session::Session;
use crate::router::mesh::Message;

/// `slowlog-log-slower-than` below this, in microseconds, has every command timed by itself: what is not timed
/// otherwise may take so long.
pub const EACH_BELOW_US: i64 = RUN_US_MIN as i64;

impl Work {
    /// Executes a request and tells how long that took.
    pub(super) fn execute_timed(&mut self, key: u32, args: Args<'_>, parsed: &Parsed<'_>, terms: Terms) {
        let each = self.times_each;
        if each {
            // What others asked before is not its time.
            self.flush_reads();
        }
        let (told, told_ns) = (self.metrics.heavy.len(), self.metrics.heavy.total_ns());
        let started = Instant::now();
        self.execute_resp(key, parsed, terms);
        if each {
            self.flush_reads();
            self.metrics.heavy.truncate(told, told_ns);
        }
        let took_ns = started.elapsed().as_nanos() as u64;
        // CONFIG RESETSTAT forgets what was told before it.
        let told_meanwhile_ns = self.metrics.heavy.total_ns().saturating_sub(told_ns);
        let took_ns = took_ns.saturating_sub(told_meanwhile_ns);
        self.metrics.commands.took(parsed.id as usize, took_ns);
        let took_us = took_ns / 1000;
        if self.is_worth_telling(took_us) {
            let redacted: [&[u8]; 2] = [args.at(0), b"(redacted)"];
            let arguments =
                if has_secret(&parsed.request) { shortened(redacted.into_iter()) } else { shortened(args.iter()) };
            let generation = self.connections.get_mut(key).generation;
            self.note_slow((key, generation), took_us, arguments);
        }
    }

    /// Tells of what took long in this turn by itself: before its replies leave, so that whoever has one finds it told.
    #[inline]
    pub(super) fn tell_heavy(&mut self) {
        if !self.metrics.heavy.is_empty() {
            self.tell_heavy_runs();
        }
    }

    #[cold]
    fn tell_heavy_runs(&mut self) {
        for run in self.metrics.heavy.take() {
            if let Some(id) = run.arguments.first().and_then(|name| lookup(name)) {
                self.metrics.commands.took(id as usize, run.took_us * 1000);
            }
            if !self.is_worth_telling(run.took_us) {
                continue;
            }
            if run.to.core == self.core {
                self.note_heavy(run);
            } else {
                self.mesh.post(run.to.core, Message::Slow(Box::new(run)));
            }
        }
    }

    /// Notes what a client of this core asked for and what took long, here or on another core.
    pub(super) fn note_heavy(&mut self, run: HeavyRun) {
        let HeavyRun { to, took_us, arguments } = run;
        let asker = if to.gathered { self.gathers.parent(to.key, to.generation).unwrap_or(to) } else { to };
        self.note_slow((asker.key, asker.generation), took_us, arguments);
    }

    fn is_worth_telling(&self, took_us: u64) -> bool {
        let tunables = &self.shared.server_tunables;
        let threshold_ms = tunables.latency_threshold_ms();
        is_slow(tunables.slowlog_threshold_us(), took_us) || (threshold_ms > 0 && took_us / 1000 >= threshold_ms)
    }

    /// Enters a command of the connection of this key and generation where its time belongs.
    fn note_slow(&mut self, (key, generation): (u32, u32), took_us: u64, arguments: Vec<Vec<u8>>) {
        let (tunables, now_us) = (&self.shared.server_tunables, self.clock.wall_us());
        self.latency_events.note(tunables.latency_threshold_ms(), Event::Command, now_us, took_us);
        if !is_slow(tunables.slowlog_threshold_us(), took_us) {
            return;
        }
        let connection = self.connections.get_of(key, generation);
        let client = connection.map_or_else(Default::default, |connection| {
            let address = connection.socket.peer_addr().map_or(String::new(), |address| address.to_string());
            let profile = match &connection.session {
                Session::Resp(session) => session.profile.as_ref(),
                Session::Native => None,
            };
            (address, profile.map_or(Vec::new(), |profile| profile.name.to_vec()))
        });
        self.slow_log.note(tunables.slowlog_len(), now_us, took_us, arguments, client);
    }
}

/// Whether a password is, or may be, among the arguments of a request.
fn has_secret(request: &RespRequest<'_>) -> bool {
    match request {
        RespRequest::Auth(_) => true,
        RespRequest::Hello(hello) => hello.auth.is_some(),
        RespRequest::Config(ConfigCommand::Set(pairs)) => pairs.pairs().any(|(name, _)| {
            [&b"requirepass"[..], b"masterauth"].iter().any(|secret| secret.eq_ignore_ascii_case(name))
        }),
        _ => false,
    }
}
