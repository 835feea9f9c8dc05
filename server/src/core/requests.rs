//! From bytes to requests, whatever the wire: what is parsed now, what is kept for later, how a stream fails.
//!
//! Place in the flow: step 2 (decode), on the core that holds the connection. The wires themselves are in `native` and
//! `resp`; what they find is executed in `execute`.
//!
//! Invariants:
//! - A request is decoded in place; it is copied only into the log's entry or into the batch for another core.
//! - Requests of one connection reach each shard in the order in which they came.

use eyot_protocol::request::Operation;
use eyot_protocol::ErrorCode;

use super::outlet::Outlet;
use super::slow_commands::EACH_BELOW_US;
use super::Work;
use crate::core::log::CoreLog;
use crate::net::connection::{LargeInput, Stage};
use crate::net::session::Session;
use crate::replication::ShardDriver;
use crate::router::{is_write, Form, Reply, ReplySink, ReplyTo, Route};
use crate::shard::Place;

/// Where a key lives; with its place in the table, if that is on this core.
pub(super) type Home = (Route, Option<Place>);

impl Work {
    /// Learns what of the settings is looked at with every request.
    pub(super) fn look_at_settings(&mut self) {
        let tunables = &self.shared.server_tunables;
        self.times_each = (0..EACH_BELOW_US).contains(&tunables.slowlog_threshold_us());
        self.resp_limits.bulk_bytes_max = tunables.bulk_bytes() as usize;
        self.resp_limits.request_bytes_max = tunables.query_buffer_bytes() as usize;
    }

    /// Takes what connection `key` has sent.
    pub(super) fn received(&mut self, key: u32, bytes: &[u8]) {
        let now_us = self.clock.monotonic_us();
        let connection = self.connections.get_mut(key);
        if connection.stage != Stage::Open {
            return;
        }
        connection.heard_us = now_us;
        let bytes = if connection.large == LargeInput::None { bytes } else { self.large_bytes(key, bytes) };
        if bytes.is_empty() {
            return;
        }
        let connection = self.connections.get_mut(key);
        if connection.input.is_empty() && !connection.is_full() {
            let consumed = self.parse(key, bytes);
            if consumed < bytes.len() {
                self.keep(key, &bytes[consumed..]);
            }
        } else {
            self.keep(key, bytes);
            self.parse_kept(key);
        }
    }

    fn keep(&mut self, key: u32, bytes: &[u8]) {
        if self.connections.get_mut(key).stage == Stage::Open && !self.connections.keep_input(key, bytes) {
            let message = "too many unfinished requests on this core; reconnect and retry with backoff";
            self.fail_stream(key, 0, 0, ErrorCode::Busy, message);
        }
    }

    /// Parses what connection `key` has sent and could not be parsed when it came.
    pub(super) fn parse_kept(&mut self, key: u32) {
        let connection = self.connections.get_mut(key);
        if connection.stage != Stage::Open || connection.is_full() || connection.input.is_empty() {
            return;
        }
        let input = self.connections.take_input(key);
        let consumed = self.parse(key, &input);
        self.connections.put_input_back(key, input, consumed);
    }

    /// Executes the whole requests of `input`, until the connection is full. Returns how many bytes were consumed.
    fn parse(&mut self, key: u32, input: &[u8]) -> usize {
        let connection = self.connections.get_mut(key);
        connection.yields = false;
        let consumed = if connection.is_locked() {
            self.parse_locked(key, input)
        } else {
            match connection.session {
                Session::Native => self.parse_native(key, input),
                Session::Resp(_) => self.parse_resp(key, input),
            }
        };
        if consumed == input.len() {
            // Nothing is left to come back for.
            self.connections.get_mut(key).yields = false;
        }
        consumed
    }

    /// Whether connection `key` takes no further request for now; it is looked at again before the turn ends.
    #[inline]
    pub(super) fn pauses(&mut self, key: u32) -> bool {
        let connection = self.connections.get_mut(key);
        let pauses = connection.is_full() || connection.stage != Stage::Open || connection.yields;
        if pauses {
            self.connections.review(key);
        }
        pauses
    }

    /// Whether the turn has taken what it may: what connection `key` has sent beyond it is looked at in the next one.
    #[inline]
    pub(super) fn must_yield(&mut self, key: u32) -> bool {
        let over = self.clock.is_over();
        if over {
            self.connections.get_mut(key).yields = true;
            self.connections.review(key);
        }
        over
    }

    /// Where `key` lives.
    #[inline]
    pub(super) fn home(&self, key: &[u8]) -> Home {
        let route = self.shared.routes.route(key);
        let place = (route.core == self.core)
            .then(|| self.shards[usize::from(route.local_shard)].shard().place(route.slot, key));
        (route, place)
    }

    /// Asks the processor to fetch what a write that lives at `home` will need soon, if that is here.
    #[inline]
    pub(super) fn prefetch_write(&self, (route, place): Home) {
        if let Some(place) = place {
            self.shards[usize::from(route.local_shard)].prefetch_write(place);
        }
    }

    /// Tells connection `key` what is wrong with its stream, answers what it asked before, and closes. Where replies
    /// have an order, this one comes last in it.
    pub(super) fn fail_stream(&mut self, key: u32, op: u8, request_id: u32, code: ErrorCode, message: &str) {
        match self.connections.get_mut(key).session {
            Session::Native => {
                self.metrics.errors += 1;
                self.connections.say_error(key, op, request_id, code, message);
            }
            Session::Resp(_) => {
                let to = self.begin_resp(key, Operation::Admin, false, 1);
                self.outlet().reply(&to, Reply::Error(code, message));
            }
        }
        self.connections.finish_and_linger(key);
    }

    /// Counts a request of connection `key` as taken and says where its reply goes.
    #[inline]
    pub(super) fn begin(
        &mut self,
        key: u32,
        operation: Operation,
        form: Form,
        number: u32,
        operations: u32,
    ) -> ReplyTo {
        let arrived_us = self.clock.monotonic_us();
        let connection = self.connections.get_mut(key);
        connection.begin(operations, is_write(operation));
        let generation = connection.generation;
        ReplyTo { core: self.core, operation, gathered: false, form, key, generation, number, arrived_us }
    }

    /// The parts that replies pass through.
    #[inline]
    pub(super) fn outlet(&mut self) -> Outlet<'_> {
        self.parts().2
    }

    /// The shards, the log, and the parts that replies pass through: what executing and applying need at once.
    #[inline]
    pub(super) fn parts(&mut self) -> (&mut [ShardDriver], &mut CoreLog, Outlet<'_>) {
        let Self { core, max_frame_bytes, shards, log, connections, gathers, mesh, metrics, clock, .. } = self;
        let outlet = Outlet {
            core: *core,
            max_frame_bytes: *max_frame_bytes,
            connections,
            gathers,
            mesh,
            metrics,
            clock: *clock,
        };
        (shards, log, outlet)
    }
}
