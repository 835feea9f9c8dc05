//! Connections that take and do not give: idle ones, unfinished requests, clients that are owed too much.
//!
//! Place in the flow: beside the turn, a slice of the connections at each sweep, so that ten thousand idle ones cost
//! nothing that could be measured.
//!
//! Invariants:
//! - Nothing here ends a connection that waits for this server: one with requests in flight is judged only by what it
//!   does not read. A client that has yet to say who it is has asked nothing, and waits for nothing.
//! - Every connection ends that neither asks nor reads any more and has said so: one that was told an error, or has
//!   closed its half, holds its slot for a bounded time.

use eyot_protocol::ErrorCode;

use super::large_requests::LargeRequest;
use super::Work;
use crate::config::OutputLimit;
use crate::memory::incoming::STEP_BYTES;
use crate::net::connection::{Connection, LargeInput, Stage};
use crate::net::connections::UNCOUNTED_UNFINISHED_BYTES;
use crate::net::session::Session;

/// Connections that one sweep looks at.
const CONNECTIONS_PER_SWEEP: usize = 512;
/// How long a request may be unfinished without a further byte. A client that died is told from one that is slow.
pub const UNFINISHED_US: u64 = 60_000_000;

/// The slowest that a large request may come after that time: what is kept of it, or was made ready for it, is missed
/// by others.
const COMING_BYTES_PER_SECOND: u64 = 4 << 10;
/// How long one send may take to a client that will ask nothing more, beside what its bytes take at
/// [`FAREWELL_BYTES_PER_SECOND`], in microseconds: nothing else would ever end a connection whose client has closed its
/// half, or was told an error, and reads nothing.
pub const FAREWELL_US: u64 = 60_000_000;
/// The slowest that such a client may read.
const FAREWELL_BYTES_PER_SECOND: u64 = 64 << 10;

/// What is to be done about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// It has asked nothing for too long, or never anything.
    Idle,
    /// It began a request and does not go on, or never got one done.
    Unfinished,
    /// It does not take its replies.
    OwesReading,
    /// It does not say who it is.
    Unauthenticated,
}

/// The rules, from the settings of the moment.
#[derive(Debug, Clone, Copy)]
struct Rules {
    now_us: u64,
    idle_us: u64,
    handshake_us: u64,
    output: OutputLimit,
}

impl Rules {
    /// Judges a connection, of whose large value so many bytes have come if one comes.
    fn judge(&self, connection: &mut Connection, large_bytes: Option<usize>) -> Verdict {
        if matches!(connection.stage, Stage::Lingering | Stage::Ended) {
            return Verdict::Fine;
        }
        let locked_us = connection.locked_since_us.map_or(0, |since_us| self.now_us.saturating_sub(since_us));
        if connection.stage == Stage::Open && self.handshake_us > 0 && locked_us > self.handshake_us {
            return Verdict::Unauthenticated;
        }
        let unread_bytes = connection.unread_bytes() as u64;
        if self.output.hard_bytes > 0 && unread_bytes > self.output.hard_bytes {
            return Verdict::OwesReading;
        }
        if self.output.soft_bytes > 0 && unread_bytes > self.output.soft_bytes {
            let since_us = *connection.owes_since_us.get_or_insert(self.now_us);
            if self.now_us - since_us > self.output.soft_seconds * 1_000_000 {
                return Verdict::OwesReading;
            }
        } else {
            connection.owes_since_us = None;
        }
        let silent_us = self.now_us.saturating_sub(connection.heard_us);
        if connection.region_with_ring && silent_us > UNFINISHED_US {
            // Its request is taken already, and holds a place in the value file.
            return Verdict::Idle;
        }
        if connection.stage == Stage::Finishing || connection.peer_closed {
            let sending_us = self.now_us.saturating_sub(connection.sending_since_us);
            let allowed_us = FAREWELL_US + connection.sending_bytes as u64 * 1_000_000 / FAREWELL_BYTES_PER_SECOND;
            let stands_still = connection.sending_bytes > 0 && sending_us > allowed_us;
            return if stands_still { Verdict::OwesReading } else { Verdict::Fine };
        }
        if self.comes_too_slowly(connection, large_bytes) {
            // An error is said only where no reply must come before it.
            let settled = large_bytes.is_none() && connection.is_settled();
            return if settled { Verdict::Unfinished } else { Verdict::Idle };
        }
        if !connection.is_settled() {
            return Verdict::Fine;
        }
        if !connection.is_full() {
            let age_us = self.now_us.saturating_sub(connection.opened_us);
            let late = connection.requests == 0 && self.handshake_us > 0 && age_us > self.handshake_us;
            // Over RESP nothing has to be said first, and pools of Redis clients open connections that they may need.
            let says_hello = matches!(connection.session, Session::Native);
            match connection.input.is_empty() {
                true if late && says_hello => return Verdict::Idle,
                false if late || silent_us > UNFINISHED_US => return Verdict::Unfinished,
                _ => {}
            }
        }
        if self.idle_us > 0 && silent_us > self.idle_us {
            return Verdict::Idle;
        }
        Verdict::Fine
    }
}

impl Rules {
    /// Whether one large request has been coming for longer than its bytes may take.
    fn comes_too_slowly(&self, connection: &mut Connection, large_bytes: Option<usize>) -> bool {
        let unfinished_bytes = connection.input.len();
        let bytes = match large_bytes {
            // Of the step that comes it is not known how much has come.
            Some(bytes) => bytes + STEP_BYTES,
            None if unfinished_bytes > UNCOUNTED_UNFINISHED_BYTES && !connection.is_full() => unfinished_bytes,
            None => {
                connection.sends_since_us = None;
                return false;
            }
        };
        let (mut since_us, requests) = connection.sends_since_us.unwrap_or((self.now_us, connection.requests));
        // Another one than when it was looked at last.
        if requests != connection.requests {
            since_us = self.now_us;
        }
        connection.sends_since_us = Some((since_us, connection.requests));
        self.now_us - since_us > UNFINISHED_US + bytes as u64 * 1_000_000 / COMING_BYTES_PER_SECOND
    }
}

impl Work {
    /// Looks at the next slice of the connections and ends those that break a rule.
    pub(super) fn end_late_connections(&mut self) {
        let tunables = &self.shared.server_tunables;
        let rules = Rules {
            now_us: self.clock.monotonic_us(),
            idle_us: tunables.idle_timeout_seconds().saturating_mul(1_000_000),
            handshake_us: self.shared.settings.handshake_timeout.as_micros() as u64,
            output: tunables.output_limit(),
        };
        let mut late = Vec::new();
        let Self { connections, large_requests, next_judged, .. } = self;
        *next_judged = connections.visit(*next_judged, CONNECTIONS_PER_SWEEP, |key, connection| {
            let comes = connection.large == LargeInput::Coming;
            let large_bytes = large_requests.get(key).filter(|_| comes).map(LargeRequest::bytes_come);
            match rules.judge(connection, large_bytes) {
                Verdict::Fine => {}
                verdict => late.push((key, verdict)),
            }
        });
        for (key, verdict) in late {
            self.metrics.timed_out += 1;
            tracing::debug!(core = self.core, connection = self.connections.get_mut(key).id, ?verdict, "ended");
            match verdict {
                Verdict::Unfinished => {
                    let message = "a request was begun and not finished in time";
                    self.fail_stream(key, 0, 0, ErrorCode::MalformedFrame, message);
                }
                _ => self.connections.end(key),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::session::Wire;

    const RULES: Rules = Rules {
        now_us: 100_000_000,
        idle_us: 50_000_000,
        handshake_us: 10_000_000,
        output: OutputLimit { hard_bytes: 1000, soft_bytes: 100, soft_seconds: 1 },
    };

    fn connection() -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut connection = Connection::new(socket, 1, Wire::Resp, 7, 99_000_000);
        connection.requests = 1;
        connection
    }

    #[test]
    fn a_quiet_connection_is_idle_only_after_its_time_and_never_with_requests_in_flight() {
        let mut quiet = connection();
        assert_eq!(RULES.judge(&mut quiet, None), Verdict::Fine);
        quiet.heard_us = 40_000_000;
        assert_eq!(RULES.judge(&mut quiet, None), Verdict::Idle);
        assert_eq!(Rules { idle_us: 0, ..RULES }.judge(&mut quiet, None), Verdict::Fine);
        quiet.begin(1, false);
        assert_eq!(RULES.judge(&mut quiet, None), Verdict::Fine);
    }

    #[test]
    fn an_unfinished_request_has_a_time_and_the_first_one_less() {
        let mut slow = connection();
        slow.input = b"*2\r\n".to_vec();
        assert_eq!(RULES.judge(&mut slow, None), Verdict::Fine);
        slow.requests = 0;
        slow.opened_us = 80_000_000;
        assert_eq!(RULES.judge(&mut slow, None), Verdict::Unfinished);
        slow.requests = 1;
        slow.heard_us = 100_000_000 - UNFINISHED_US - 1;
        assert_eq!(RULES.judge(&mut slow, None), Verdict::Unfinished);
    }

    #[test]
    fn whoever_does_not_say_who_it_is_has_the_time_of_a_handshake() {
        let mut unknown = connection();
        unknown.locked_since_us = Some(RULES.now_us - RULES.handshake_us);
        assert_eq!(RULES.judge(&mut unknown, None), Verdict::Fine);
        unknown.locked_since_us = Some(RULES.now_us - RULES.handshake_us - 1);
        assert_eq!(RULES.judge(&mut unknown, None), Verdict::Unauthenticated);
        // What it does meanwhile does not help it.
        unknown.begin(1, false);
        assert_eq!(RULES.judge(&mut unknown, None), Verdict::Unauthenticated);
        unknown.locked_since_us = None;
        assert_eq!(RULES.judge(&mut unknown, None), Verdict::Fine);
    }

    #[test]
    fn a_connection_that_never_asked_has_the_time_of_a_first_request_and_one_that_did_has_no_end() {
        let mut silent = connection();
        silent.requests = 0;
        silent.opened_us = 95_000_000;
        assert_eq!(RULES.judge(&mut silent, None), Verdict::Fine);
        silent.opened_us = 80_000_000;
        assert_eq!(RULES.judge(&mut silent, None), Verdict::Fine, "over RESP nothing has to be said");
        silent.session = Session::Native;
        assert_eq!(RULES.judge(&mut silent, None), Verdict::Idle);
        assert_eq!(Rules { handshake_us: 0, ..RULES }.judge(&mut silent, None), Verdict::Fine);
        silent.requests = 1;
        assert_eq!(RULES.judge(&mut silent, None), Verdict::Fine);
    }

    #[test]
    fn who_has_said_its_last_word_is_judged_by_what_it_does_not_read() {
        type Leave = fn(&mut Connection);
        let ways: [Leave; 2] = [Connection::finish, |connection| connection.peer_closed = true];
        for leave in ways {
            let mut leaving = connection();
            leave(&mut leaving);
            leaving.begin(1, false);
            assert_eq!(RULES.judge(&mut leaving, None), Verdict::Fine, "it waits for this server");
            (leaving.sending_bytes, leaving.sending_since_us) = (64 << 10, RULES.now_us);
            let no_limit = OutputLimit { hard_bytes: 0, soft_bytes: 0, soft_seconds: 0 };
            let after = |us: u64| Rules { now_us: RULES.now_us + us, output: no_limit, ..RULES };
            assert_eq!(after(FAREWELL_US + 1_000_000).judge(&mut leaving, None), Verdict::Fine);
            assert_eq!(after(FAREWELL_US + 1_000_001).judge(&mut leaving, None), Verdict::OwesReading);
            assert_eq!(RULES.judge(&mut leaving, None), Verdict::OwesReading, "the limit of output holds, too");
        }
    }

    #[test]
    fn a_large_request_comes_at_a_least_rate_and_another_one_has_its_own_time() {
        let at = |us: u64| Rules { now_us: RULES.now_us + us, idle_us: 0, ..RULES };
        let minute_us = UNFINISHED_US;
        // A pipeline of large requests always has an unfinished one.
        let mut busy = connection();
        busy.input = vec![0; 100 << 10];
        for minute in 0..10 {
            busy.requests += 1;
            busy.heard_us = at(minute * minute_us).now_us;
            assert_eq!(at(minute * minute_us).judge(&mut busy, None), Verdict::Fine);
        }
        let mut slow = connection();
        slow.input = vec![0; 100 << 10];
        for second in 0..=85 {
            slow.heard_us = at(second * 1_000_000).now_us;
            assert_eq!(at(second * 1_000_000).judge(&mut slow, None), Verdict::Fine, "{second}");
        }
        assert_eq!(at(minute_us + 25_000_001).judge(&mut slow, None), Verdict::Unfinished);
        // A value that comes into its place.
        let mut sender = connection();
        sender.begin(1, true);
        (sender.large, sender.region_with_ring) = (LargeInput::Coming, true);
        for second in 0..=700 {
            sender.heard_us = at(second * 1_000_000).now_us;
            let bytes = second as usize * (3 << 10);
            let verdict = at(second * 1_000_000).judge(&mut sender, Some(bytes));
            assert_eq!(verdict, Verdict::Fine, "{second}");
        }
        assert_eq!(at(700_000_000).judge(&mut sender, Some(1 << 20)), Verdict::Idle);
    }

    #[test]
    fn who_does_not_read_is_ended_at_the_hard_limit_at_once_and_at_the_soft_one_in_time() {
        let mut deaf = connection();
        deaf.output.bytes = vec![0; 500];
        assert_eq!(RULES.judge(&mut deaf, None), Verdict::Fine);
        let later = Rules { now_us: RULES.now_us + 1_100_000, ..RULES };
        assert_eq!(later.judge(&mut deaf, None), Verdict::OwesReading);
        deaf.output.bytes.truncate(50);
        assert_eq!(later.judge(&mut deaf, None), Verdict::Fine);
        deaf.output.bytes = vec![0; 1001];
        assert_eq!(RULES.judge(&mut deaf, None), Verdict::OwesReading);
    }
}
