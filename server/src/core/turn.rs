//! The loop.
//!
//! Place in the flow: see the module's head.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use eyot_protocol::ErrorCode;
use eyot_raft_glue::ShardId;
use eyot_ring::{Event, MappedEvent, Received, Wait};

use super::{Core, Stopping, Work, EVENTS_PER_TURN, MESSAGES_PER_TURN};
use crate::admin::latency::Event as LatencyEvent;
use crate::error::{Stop, StopReason};
use crate::memory::LargeValues;
use crate::net::connection::{LargeInput, Receiving, Stage, HOLD_US, LINGER_BYTES};
use crate::net::session::Wire;
use crate::replication::ShardDriver;
use crate::security::admit::WriteBudget;
use crate::shard::Shard;

/// How often a core with expiring keys looks for those whose time has come. Reads never see them, so this is only about
/// their memory.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// How often an idle core looks for connections that are to be ended: often enough for timeouts of seconds, too seldom
/// to be seen as load.
const JUDGE_INTERVAL: Duration = Duration::from_millis(500);
/// Keys that one shard's sweep may remove in a turn: a few dozen microseconds.
const SWEEP_BUDGET: usize = 200;
/// Completions between two looks at the clock: each look costs as much as a small part of a request.
const EVENTS_PER_LOOK: usize = 8;
/// Keys of a cleared shard that are freed in one turn.
const FREED_PER_TURN: usize = 1000;
/// How many times as often it looks while memory is short.
const SWEEP_HASTE: u32 = 10;
/// How long after a failed accept (out of file descriptors, mostly) the next one is tried.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long a stopping node waits for clients that do not take their replies.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long a stopping node tries to make the segment that its last writes need: a few attempts.
const DISK_FULL_GRACE: Duration = Duration::from_secs(3);
/// Connections that linger at most, beside those of a node that stops: they hold file descriptors.
const MAX_LINGERING: usize = 256;
/// How long a connection that was told why it ends may linger.
const LINGER: Duration = Duration::from_secs(1);
/// While the executor has work of its own, it gets a turn at least this often.
const EXECUTOR_TURN: Duration = Duration::from_millis(1);
/// A stopping core looks this often whether the others have settled, should a wake-up be lost to a dying one.
const STOP_TURN: Duration = Duration::from_millis(20);

impl Core {
    /// Runs until the node stops.
    ///
    /// # Errors
    /// What ends the process at once.
    pub(super) async fn run(mut self) -> Result<(), Stop> {
        for (number, listener) in self.listeners.iter().enumerate() {
            self.ring.accept(listener.socket.as_raw_fd(), number as u32);
        }
        self.ring.watch(self.sleeper.descriptor(), 0);
        let mut reaped = Vec::with_capacity(EVENTS_PER_TURN);
        loop {
            let executor_busy = self.work.log.maintain(self.work.clock.now());
            if executor_busy {
                glommio::executor().yield_task_queue_now().await;
            }
            self.enter(executor_busy)?;
            self.work.begin_turn();
            if self.events.is_empty() {
                self.ring.reap(EVENTS_PER_TURN, &mut reaped);
                self.events.extend(reaped.drain(..));
            }
            let mut handled = 0;
            while let Some(event) = self.events.pop_front() {
                self.event(event)?;
                handled += 1;
                if handled % EVENTS_PER_LOOK == 0 && self.work.clock.is_over() {
                    break;
                }
            }
            self.work.flush_reads();
            self.work.drain_inbox();
            self.work.walk();
            self.work.route_slice();
            self.work.free_some();
            self.sweep();
            self.work.log_uploads();
            self.work.end_requests(&mut self.ring);
            self.review_connections();
            self.keep_house();
            self.work.flush_reads();
            self.work.mesh.flush();
            self.work.connections.send_all(&mut self.ring, self.work.clock.monotonic_us());
            self.work.end_turn();
            if self.is_done() {
                return self.flush_everything().await;
            }
        }
    }

    /// Submits, and sleeps if there is nothing to do.
    fn enter(&mut self, executor_busy: bool) -> Result<(), Stop> {
        if self.has_work() || self.spin() {
            return self.ring.enter(Wait::No).map_err(|error| ring_failed(&error));
        }
        let mut wait = self.longest_sleep();
        if self.work.connections.has_held() {
            wait = shorter(wait, Duration::from_micros(HOLD_US));
        }
        if executor_busy {
            wait = shorter(wait, EXECUTOR_TURN);
        }
        self.sleeper.announce();
        // Whatever was put into the inbox before the announcement is seen here; whatever comes after it wakes.
        let late = self.work.mesh.has_messages() || (self.stopping.is_none() && self.work.shared.is_stopping());
        let entered = self.ring.enter(if late { Wait::No } else { wait });
        self.sleeper.awake();
        self.work.metrics.sleeps += 1;
        entered.map_err(|error| ring_failed(&error))
    }

    /// Whether a turn would find something to do at once.
    fn has_work(&mut self) -> bool {
        self.ring.has_due()
            || !self.events.is_empty()
            || self.work.mesh.has_messages()
            || self.work.mesh.has_unsent()
            || self.work.connections.has_work()
            || self.work.log.has_work()
            || !self.work.walks.is_empty()
            || !self.work.sliced.is_empty()
            || self.work.has_graves
            || !self.work.open_shards.is_empty()
            || self.work.memory.has_work()
            || (self.stopping.is_none() && self.work.shared.is_stopping())
    }

    /// Looks for work a little longer before sleeping: a sleep and its wake-up cost more than a few microseconds of
    /// looking.
    fn spin(&mut self) -> bool {
        let spin = self.work.shared.settings.spin;
        if spin.is_zero() {
            return false;
        }
        // What was queued must be on its way before anything can come back.
        if self.ring.queued() > 0 {
            if self.ring.enter(Wait::No).is_err() {
                return true;
            }
            if self.has_work() {
                return true;
            }
        }
        let started = Instant::now();
        while started.elapsed() < spin {
            for _ in 0..16 {
                if self.has_work() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        false
    }

    fn longest_sleep(&self) -> Wait {
        let now = Instant::now();
        let until = |deadline: Instant| deadline.saturating_duration_since(now);
        let mut wait = Wait::Forever;
        let expiring = self.work.shards.iter().map(ShardDriver::shard).filter(|shard| shard.expiring_key_count() > 0);
        if let Some(next_us) = expiring.filter_map(Shard::next_expiry_us).min() {
            let expiry = Duration::from_micros(next_us.saturating_sub(self.work.clock.wall_us()).max(0) as u64);
            wait = shorter(wait, expiry.max(until(self.next_sweep)));
        }
        let lingering = self.lingering.front().map(|(until, ..)| *until);
        let interval = self.work.large_values.as_ref().and_then(LargeValues::next_deadline);
        for deadline in [self.work.log.next_deadline(), self.accept_again, lingering, interval].into_iter().flatten() {
            wait = shorter(wait, until(deadline));
        }
        if !self.work.connections.is_empty() {
            wait = shorter(wait, JUDGE_INTERVAL);
        }
        if self.stopping.is_some() {
            wait = shorter(wait, STOP_TURN);
        }
        wait
    }

    fn event(&mut self, event: Event) -> Result<(), Stop> {
        match event {
            Event::Received { token, received, armed } => self.received(token, received, armed),
            Event::Mapped(event) => self.mapped(event),
            Event::Sent { token, buffer, result } => {
                self.work.metrics.counters.net_output_bytes += result.as_ref().map_or(0, |&count| count as u64);
                self.work.metrics.counters.writes_processed += 1;
                self.work.connections.sent(token, buffer, result);
            }
            Event::Written { token, buffer, result } => {
                let bytes = self.work.log.written(token, buffer, result)?;
                self.work.metrics.log_writes += 1;
                self.work.metrics.log_bytes += bytes as u64;
            }
            Event::Accepted { token, socket, armed } => self.accepted(token, socket, armed),
            Event::Woken { armed, .. } => {
                if !armed {
                    self.ring.watch(self.sleeper.descriptor(), 0);
                }
            }
        }
        Ok(())
    }

    fn mapped(&mut self, event: MappedEvent) {
        let work = &mut self.work;
        match event {
            MappedEvent::ReceivedInto { token, region, result } => work.received_into(token, region, result),
            MappedEvent::SentPieces { token, pieces, result } => work.connections.sent_pieces(token, pieces, result),
            MappedEvent::Populated { token, region, result } => work.populated(token as u32, region, result),
            MappedEvent::PagedIn { token, .. } => work.paged_in(token),
            MappedEvent::GivenBack { region, result, .. } => {
                let values = work.large_values.as_mut().expect("only a value file has regions");
                values.given_back(region, result);
            }
        }
    }

    /// Takes regions of large values home that nobody refers to any more, and gives space back to the system.
    fn keep_house(&mut self) {
        let Self { ring, work, .. } = self;
        if let Some(region) = work.large_values.as_mut().and_then(|values| values.maintain(work.clock.now())) {
            ring.give_back(0, region);
        }
        work.page_uploads_in(ring);
    }

    fn accepted(&mut self, token: u32, socket: std::io::Result<OwnedFd>, armed: bool) {
        let wire = self.listeners[token as usize].wire;
        match socket {
            Ok(_) if self.stopping.is_some() => return,
            Ok(socket) if self.work.shared.take_connection() => {
                self.work.metrics.accepted += 1;
                let id = self.work.shared.next_connection_id.fetch_add(1, Ordering::Relaxed);
                let now_us = self.work.clock.monotonic_us();
                self.work.connections.open(&mut self.ring, socket, wire, id, now_us);
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

    fn received(&mut self, key: u32, received: Received, armed: bool) {
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
    fn review_connections(&mut self) {
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

    fn review(&mut self, key: u32) {
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
    fn resume(&mut self, key: u32) {
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

    fn sweep(&mut self) {
        let now = self.work.clock.now();
        while self.lingering.front().is_some_and(|(until, ..)| now >= *until) {
            let (_, key, generation) = self.lingering.pop_front().expect("just seen");
            if self.work.connections.get_of(key, generation).is_some() {
                self.work.connections.end(key);
            }
        }
        if self.accept_again.is_some_and(|again| now >= again) {
            self.accept_again = None;
            for token in std::mem::take(&mut self.listeners_stopped) {
                self.ring.accept(self.listeners[token as usize].socket.as_raw_fd(), token);
            }
        }
        if now >= self.next_sweep {
            let haste = if self.work.memory.is_high() { SWEEP_HASTE } else { 1 };
            self.next_sweep = now + SWEEP_INTERVAL / haste;
            self.work.sweep();
            self.work.end_late_connections();
            self.work.metrics.sample_rates(self.work.clock.monotonic_us());
        }
        if self.stopping.is_none() && self.work.shared.is_stopping() {
            self.begin_to_stop();
        }
    }

    fn begin_to_stop(&mut self) {
        self.stopping = Some(Stopping { give_up_at: self.work.clock.now() + STOP_GRACE, settled: false });
        for number in 0..self.listeners.len() {
            self.ring.cancel_accept(number as u32);
        }
        for key in self.work.connections.keys() {
            // Closing over what a client still sends would reset the connection, and cut off replies on their way.
            self.work.connections.finish_and_linger(key);
        }
    }

    /// Whether the core may end: it has answered everything, and so has every other, which may have asked it.
    fn is_done(&mut self) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        let given_up = self.work.clock.now() >= stopping.give_up_at;
        if !stopping.settled && (given_up || (self.work.connections.is_empty() && self.work.is_settled())) {
            stopping.settled = true;
            if given_up && !self.work.connections.is_empty() {
                let connections = self.work.connections.len();
                tracing::warn!(connections, "closing connections that did not take their replies in {STOP_GRACE:?}");
            }
            self.work.shared.core_settled();
        }
        stopping.settled && self.work.shared.all_settled()
    }

    /// Writes what is not on disk yet, then the log's end.
    async fn flush_everything(&mut self) -> Result<(), Stop> {
        self.flush().await?;
        self.work.log.close();
        match self.flush().await {
            // Only the end itself does not fit: everything that was acknowledged is on disk.
            Err(stop) if stop.reason == StopReason::DiskFull => Ok(()),
            outcome => outcome,
        }
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        let mut events = Vec::new();
        let give_up_at = Instant::now() + DISK_FULL_GRACE;
        while !self.work.log.is_settled() {
            if self.work.log.blocked().is_some() && Instant::now() >= give_up_at {
                return Err(Stop::new(
                    StopReason::DiskFull,
                    "the disk is full, and writes that wait for space are given up; with --sync-writes none of them was \
                     acknowledged",
                    "free space, then start the node again",
                ));
            }
            if self.work.log.maintain(Instant::now()) {
                glommio::executor().yield_task_queue_now().await;
            }
            self.work.log.submit(&mut self.ring, Instant::now(), true);
            self.ring.enter(Wait::For(EXECUTOR_TURN)).map_err(|error| ring_failed(&error))?;
            self.ring.reap(EVENTS_PER_TURN, &mut events);
            for event in events.drain(..) {
                if let Event::Written { token, buffer, result } = event {
                    self.work.log.written(token, buffer, result)?;
                }
            }
        }
        Ok(())
    }
}

impl Work {
    fn begin_turn(&mut self) {
        self.clock.read();
        self.metrics.turns += 1;
        self.budget = WriteBudget {
            room_bytes: u64::MAX,
            pending_log_bytes: self.log.pending_bytes(),
            writable_log_bytes: self.log.writable_bytes(),
            blocked: self.log.blocked(),
        };
        self.review_memory();
    }

    fn drain_inbox(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.mesh.receive() else { return };
            self.message(message);
            if self.clock.is_over() {
                return;
            }
        }
    }

    fn sweep(&mut self) {
        if self.budget.blocked.is_some() {
            return;
        }
        let now_us = self.clock.wall_us();
        for (local_shard, driver) in self.shards.iter_mut().enumerate() {
            let was_open = driver.has_open_entry();
            driver.sweep(now_us, SWEEP_BUDGET);
            if !was_open && driver.has_open_entry() {
                self.open_shards.push(local_shard as u16);
            }
        }
    }

    /// Frees some of what FLUSHALL has left behind.
    fn free_some(&mut self) {
        let mut left = false;
        for driver in &mut self.shards {
            left |= driver.free_some(FREED_PER_TURN);
        }
        self.has_graves = left;
    }

    /// Closes the turn's entries, moves the log on, and answers what became durable.
    fn end_requests(&mut self, ring: &mut eyot_ring::Ring) {
        let mut open_shards = std::mem::take(&mut self.open_shards);
        for local_shard in open_shards.drain(..) {
            self.seal(local_shard);
        }
        self.open_shards = open_shards;
        let now_us = self.clock.wall_us();
        while let Some((local_shard, index)) = self.log.take_durable() {
            let (shards, _, mut outlet) = self.parts();
            shards[usize::from(local_shard)].persisted(index, now_us, &mut outlet);
            if self.clock.is_over() {
                break;
            }
        }
        self.log.submit(ring, self.clock.now(), false);
    }

    /// Hands a shard's open entry to the log. Without `--sync-writes`, that commits it.
    pub(super) fn seal(&mut self, local_shard: u16) {
        self.flush_reads();
        let (sync_writes, now_us) = (self.shared.settings.sync_writes, self.clock.wall_us());
        let (shards, log, mut outlet) = self.parts();
        let driver = &mut shards[usize::from(local_shard)];
        let shard: ShardId = driver.shard().id();
        driver.seal(&mut outlet, |sealed| log.append(shard, local_shard, sealed));
        if !sync_writes {
            let last = driver.last_index();
            driver.persisted(last, now_us, &mut outlet);
        }
    }

    fn end_turn(&mut self) {
        if self.metrics.has_turn_counts() {
            let turn = self.clock.turn();
            self.metrics.end_turn(turn);
            let threshold_ms = self.shared.server_tunables.latency_threshold_ms();
            self.latency_events.note(threshold_ms, LatencyEvent::Turn, self.clock.wall_us(), turn.as_micros() as u64);
        }
    }

    /// Whether nothing waits for the disk or for another core.
    fn is_settled(&self) -> bool {
        let shards_settled = self.shards.iter().all(|driver| driver.waiting() == 0);
        shards_settled && self.mesh.under_way() == 0 && self.gathers.is_empty() && self.uploads.is_empty()
    }
}

fn shorter(wait: Wait, limit: Duration) -> Wait {
    match wait {
        Wait::Forever => Wait::For(limit),
        Wait::For(duration) => Wait::For(duration.min(limit)),
        Wait::No => Wait::No,
    }
}

fn ring_failed(error: &std::io::Error) -> Stop {
    Stop::new(
        StopReason::RingFailed,
        format!("io_uring_enter: {error}"),
        "what was acknowledged is on disk; restart the node, and report this with the kernel's version",
    )
}
