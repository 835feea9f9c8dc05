//! The life of a core's connections: taken, read from, paused, ended.
//!
//! Place in the flow: steps 1 (accept) and 2 (decode), as the turn brings their events; and once more at the turn's end
//! for each connection whose state may have changed.
//!
//! Invariant: a connection is read from only while it takes requests, and its slot is given up only when no operation
//! of it is left.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use eyot_protocol::ErrorCode;
use eyot_ring::Received;
use socket2::{SockRef, TcpKeepalive};

use super::turn::EVENTS_PER_LOOK;
use super::Core;
use crate::net::connection::{LargeInput, Receiving, Stage, LINGER_BYTES};
use crate::net::session::Wire;

/// How long after a failed accept (out of file descriptors, mostly) the next one is tried.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Times that a peer that says nothing is looked for before its connection ends, as in Redis.
const KEEPALIVE_PROBES: u32 = 3;
/// Connections that linger at most, beside those of a node that stops: they hold file descriptors.
const MAX_LINGERING: usize = 256;
/// How long a connection that was told why it ends may linger.
const LINGER: Duration = Duration::from_secs(1);

/// Has the kernel look whether the other end is still there, `seconds` after it was last heard of and twice more
/// before it gives up, each after a third of that time, as Redis does; 0: it does not look.
fn keep_alive(socket: &OwnedFd, seconds: u64) {
    if seconds == 0 {
        return;
    }
    let options = TcpKeepalive::new()
        .with_time(Duration::from_secs(seconds))
        .with_interval(Duration::from_secs((seconds / 3).max(1)))
        .with_retries(KEEPALIVE_PROBES);
    if let Err(error) = SockRef::from(socket).set_tcp_keepalive(&options) {
        // A dead peer will stay longer, and nothing else.
        tracing::debug!(%error, seconds, "keepalive is refused");
    }
}

impl Core {
    pub(super) fn accepted(&mut self, token: u32, socket: std::io::Result<OwnedFd>, armed: bool) {
        let wire = self.listeners[token as usize].wire;
        match socket {
            Ok(_) if self.stopping.is_some() => return,
            Ok(socket) if self.work.shared.take_connection() => {
                self.work.metrics.accepted += 1;
                let id = self.work.shared.next_connection_id.fetch_add(1, Ordering::Relaxed);
                let now_us = self.work.clock.monotonic_us();
                keep_alive(&socket, self.work.shared.server_tunables.keepalive_seconds());
                let key = self.work.connections.open(&mut self.ring, socket, wire, id, now_us);
                if self.work.shared.settings.password.is_some() {
                    self.work.connections.get_mut(key).locked_since_us = Some(now_us);
                }
            }
            // Beyond this many that are being told so, a further one is closed without a word.
            Ok(_) if self.lingering.len() >= MAX_LINGERING => self.work.metrics.refused += 1,
            Ok(socket) => {
                self.work.metrics.refused += 1;
                self.work.shared.connections.fetch_add(1, Ordering::Relaxed);
                let message = match wire {
                    Wire::Native => "the connection limit is reached (--max-connections); retry later",
                    // What Redis clients know it by.
                    Wire::Resp => "max number of clients reached",
                };
                self.work.connections.refuse(socket, wire, ErrorCode::TooManyConnections, message);
            }
            Err(error) if self.stopping.is_none() => {
                tracing::warn!(%error, "a connection could not be accepted; trying again in {ACCEPT_RETRY:?}");
            }
            Err(_) => {}
        }
        if !armed && self.stopping.is_none() {
            self.accept_again = Some(self.work.clock.now() + ACCEPT_RETRY);
            self.listeners_stopped.push(token);
        }
    }

    pub(super) fn received(&mut self, key: u32, received: Received, armed: bool) {
        if !armed {
            self.work.connections.get_mut(key).receiving = Receiving::Stopped;
        }
        match received {
            Received::Bytes(bytes) => {
                self.work.connections.get_mut(key).discard(bytes.len());
                self.work.metrics.counters.net_input_bytes += bytes.len() as u64;
                self.work.metrics.counters.reads_processed += 1;
                self.work.received(key, self.ring.bytes(&bytes));
                self.ring.recycle(bytes);
            }
            Received::NoBuffer | Received::Cancelled => {}
            Received::Closed => {
                // The client may have closed only its half: what it asked before is still answered.
                self.work.connections.get_mut(key).peer_closed = true;
            }
            Received::Failed(_) => self.work.connections.end(key),
        }
        let connection = self.work.connections.get_mut(key);
        if connection.receiving != Receiving::Armed || connection.is_full() || connection.stage != Stage::Open {
            self.work.connections.review(key);
        }
    }

    /// Decides for each connection whose state may have changed: read on, pause, end, or give up its slot.
    pub(super) fn review_connections(&mut self) {
        let reviews = self.work.connections.take_reviews();
        for (place, &key) in reviews.iter().enumerate() {
            self.review(key);
            if place % EVENTS_PER_LOOK == EVENTS_PER_LOOK - 1 && self.work.clock.is_over() {
                reviews[place + 1..].iter().for_each(|&key| self.work.connections.review(key));
                break;
            }
        }
        self.work.connections.give_reviews_back(reviews);
    }

    pub(super) fn review(&mut self, key: u32) {
        let Some(connection) = self.work.connections.find(key) else { return };
        if connection.large == LargeInput::Coming {
            self.work.drive_large(&mut self.ring, key);
        }
        let connection = self.work.connections.get_mut(key);
        if connection.peer_closed && !connection.is_full() {
            self.work.parse_kept(key);
        }
        let connection = self.work.connections.get_mut(key);
        if connection.peer_closed && !connection.is_full() && !connection.yields {
            connection.finish();
        }
        if connection.stage == Stage::Finishing && connection.is_settled() {
            if connection.lingers && !connection.peer_closed {
                connection.linger();
                self.lingering.push_back((self.work.clock.now() + LINGER, key, connection.generation));
            } else {
                self.work.connections.end(key);
            }
        }
        let connection = self.work.connections.get_mut(key);
        if connection.stage == Stage::Lingering && (connection.peer_closed || connection.discarded_bytes > LINGER_BYTES)
        {
            self.work.connections.end(key);
        }
        let connection = self.work.connections.get_mut(key);
        match (connection.stage, connection.receiving) {
            (Stage::Open, Receiving::Armed) if connection.is_full() => {
                connection.receiving = Receiving::Stopping;
                self.ring.cancel_receive(key);
            }
            (Stage::Open, _) if connection.peer_closed => {}
            (Stage::Open, Receiving::Stopped) if !connection.is_full() && connection.input.is_empty() => {
                connection.receiving = Receiving::Armed;
                self.ring.receive(connection.socket.as_raw_fd(), key);
            }
            // It was full within this turn only. No answer has it reviewed again while it is armed, so it goes on now.
            (Stage::Open, Receiving::Armed) if !connection.input.is_empty() => self.resume(key),
            (Stage::Open, _) if connection.has_drained() && !connection.input.is_empty() => self.resume(key),
            (Stage::Finishing, Receiving::Armed) if connection.lingers => {}
            (Stage::Finishing | Stage::Ended, Receiving::Armed) => {
                connection.receiving = Receiving::Stopping;
                self.ring.cancel_receive(key);
            }
            (Stage::Lingering, Receiving::Stopped) => {
                connection.receiving = Receiving::Armed;
                self.ring.receive(connection.socket.as_raw_fd(), key);
            }
            _ => {}
        }
        if self.work.connections.get_mut(key).is_over() {
            self.work.connections.remove(key);
            self.work.shared.give_connection_back();
        }
    }

    /// Goes on with a connection that was paused: first with what it had sent, then with what it sends.
    pub(super) fn resume(&mut self, key: u32) {
        let before = self.work.connections.get_mut(key).input.len();
        self.work.parse_kept(key);
        let connection = self.work.connections.get_mut(key);
        let progressed = connection.input.len() < before;
        if connection.stage == Stage::Open && connection.receiving == Receiving::Stopped && !connection.is_full() {
            connection.receiving = Receiving::Armed;
            self.ring.receive(connection.socket.as_raw_fd(), key);
        } else if progressed {
            self.work.connections.review(key);
        }
    }
}
