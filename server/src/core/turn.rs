//! The loop.
//!
//! Place in the flow: see the module's head.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use eyot_raft_glue::ShardId;
use eyot_ring::{Event, MappedEvent, Wait};

use super::{Core, Work, EVENTS_PER_TURN, MESSAGES_PER_TURN};
use crate::admin::latency::Event as LatencyEvent;
use crate::error::{Stop, StopReason};
use crate::memory::LargeValues;
use crate::net::connection::HOLD_US;
use crate::replication::ShardDriver;
use crate::security::admit::{WriteBudget, MAX_PENDING_LOG_BYTES};
use crate::shard::Shard;

/// How often a core with expiring keys looks for those whose time has come. Reads never see them, so this is only about
/// their memory.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// How often an idle core looks for connections that are to be ended: often enough for timeouts of seconds, too seldom
/// to be seen as load.
const JUDGE_INTERVAL: Duration = Duration::from_millis(500);
/// Steps of one shard's sweep in a turn, each a key that is offered or a timer that is moved: a few dozen microseconds.
/// A shard that has more to do goes on in the next turn.
const SWEEP_BUDGET: usize = 200;
/// How long the sweeps of a turn may take together: a quarter of a turn, of whatever number of shards.
const SWEEP_TIME_MAX: Duration = Duration::from_micros(250);
/// Completions between two looks at the clock: each look costs as much as a small part of a request.
pub(super) const EVENTS_PER_LOOK: usize = 8;
/// Keys of a cleared shard that are freed in one turn.
const FREED_PER_TURN: usize = 1000;
/// How many times as often it looks while memory is short.
const SWEEP_HASTE: u32 = 10;
/// A stopping core looks this often whether the others have settled, should a wake-up be lost to a dying one.
const STOP_TURN: Duration = Duration::from_millis(20);

impl Core {
    /// Runs until the node stops.
    ///
    /// # Errors
    /// What ends the process at once.
    pub(super) fn run(mut self) -> Result<(), Stop> {
        for (number, listener) in self.listeners.iter().enumerate() {
            self.ring.accept(listener.socket.as_raw_fd(), number as u32);
        }
        self.ring.watch(self.sleeper.descriptor(), 0);
        let mut reaped = Vec::with_capacity(EVENTS_PER_TURN);
        loop {
            self.work.maintain_log(self.work.clock.now());
            self.enter()?;
            self.work.begin_turn();
            if self.events.is_empty() {
                self.ring.reap(EVENTS_PER_TURN, &mut reaped);
                self.events.extend(reaped.drain(..));
            }
            let mut handled = 0;
            let is_idle = self.events.is_empty() && !self.work.mesh.has_messages();
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
            self.work.walk_some_clients();
            self.work.route_slice();
            self.work.free_some();
            self.sweep();
            self.work.log_uploads();
            self.work.end_requests(&mut self.ring);
            self.review_connections();
            self.keep_house();
            self.work.flush_reads();
            self.work.snapshot_slice(is_idle);
            self.work.page_in(&mut self.ring);
            self.work.tell_heavy();
            self.work.mesh.flush();
            self.work.connections.send_all(&mut self.ring, self.work.clock.monotonic_us());
            self.work.end_turn();
            if self.is_done() {
                return self.flush_everything();
            }
        }
    }

    /// Submits, and sleeps if there is nothing to do.
    fn enter(&mut self) -> Result<(), Stop> {
        if self.has_work() || self.spin() {
            return self.ring.enter(Wait::No).map_err(|error| ring_failed(&error));
        }
        let mut wait = self.longest_sleep();
        if self.work.connections.has_held() {
            wait = shorter(wait, Duration::from_micros(HOLD_US));
        }
        self.sleeper.announce();
        // Whatever was put into the inbox before the announcement is seen here; whatever comes after it wakes.
        let late = self.work.mesh.has_messages()
            || self.work.log.has_news()
            || self.work.snapshots.has_news()
            || self.work.snapshot_was_asked_for()
            || (self.stopping.is_none() && self.work.shared.is_stopping());
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
            || self.work.uploads.has_work()
            || !self.work.walks.is_empty()
            || !self.work.client_walks.is_empty()
            || !self.work.sliced.is_empty()
            || self.work.has_graves
            || !self.work.to_sweep.is_empty()
            || !self.work.put_off.is_empty()
            || !self.work.open_shards.is_empty()
            || self.work.memory.has_work()
            || self.work.snapshots.has_work()
            || self.work.snapshot_was_asked_for()
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
        let slice = self.work.snapshots.next_deadline(self.stopping.is_some());
        let log = self.work.log.next_deadline();
        for deadline in [log, self.accept_again, lingering, interval, slice].into_iter().flatten() {
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
                self.work.metrics.counters.sent(&result);
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
            MappedEvent::SentPieces { token, pieces, result } => {
                work.metrics.counters.sent(&result);
                work.connections.sent_pieces(token, pieces, result);
            }
            MappedEvent::Populated { token, region, result } => work.populated(token as u32, region, result),
            MappedEvent::PagedIn { token, result, .. } => work.paged_in(token, result),
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
            self.work.begin_sweep();
            self.work.end_late_connections();
            self.work.metrics.sample_rates(self.work.clock.monotonic_us());
        }
        if self.stopping.is_some() {
            // What has expired is found again after the next start.
            self.work.to_sweep.clear();
        }
        self.work.sweep();
        if self.stopping.is_none() && self.work.shared.is_stopping() {
            self.begin_to_stop();
        }
    }
}

impl Work {
    /// Starts and finishes the log's background work.
    #[inline]
    pub(super) fn maintain_log(&mut self, now: Instant) {
        let board = &self.shared.snapshots;
        self.log.maintain(now, &|shard| board.needed_after(shard));
    }

    fn begin_turn(&mut self) {
        self.clock.read();
        self.metrics.turns += 1;
        self.walks.begin_turn();
        self.budget = WriteBudget {
            room_bytes: u64::MAX,
            // Parts of large values that wait in their own place have a bound of their own.
            pending_log_bytes: self.log.pending_bytes() - self.log.referenced_bytes(),
            writable_log_bytes: self.log.writable_bytes(),
            blocked: self.log.blocked(),
        };
        self.look_at_settings();
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

    /// It is time to look for expired keys: in every shard, beginning with the one that has waited longest.
    fn begin_sweep(&mut self) {
        let shard_count = self.shards.len() as u16;
        let first = self.next_swept.checked_rem(shard_count).unwrap_or(0);
        self.to_sweep.clear();
        self.to_sweep.extend((first..shard_count).chain(0..first));
    }

    /// Has expired keys removed, of each shard in turn; one that has more is swept again in the next turn. Removals
    /// wait for the disk like writes: where it is behind, there are no more of them until it is time again.
    fn sweep(&mut self) {
        if self.to_sweep.is_empty() {
            return;
        }
        if self.budget.blocked.is_some() || self.budget.pending_log_bytes >= MAX_PENDING_LOG_BYTES / 2 {
            self.to_sweep.clear();
            return;
        }
        let (now_us, started) = (self.clock.wall_us(), Instant::now());
        for _ in 0..self.to_sweep.len() {
            let Some(local_shard) = self.to_sweep.pop_front() else { return };
            self.next_swept = local_shard + 1;
            let driver = &mut self.shards[usize::from(local_shard)];
            let was_open = driver.has_open_entry();
            driver.sweep(now_us, SWEEP_BUDGET);
            if !was_open && driver.has_open_entry() {
                self.open_shards.push(local_shard);
            }
            if driver.shard().next_expiry_us().is_some_and(|next_us| next_us <= now_us) {
                self.to_sweep.push_back(local_shard);
            }
            self.seal_if_full(local_shard);
            if started.elapsed() >= SWEEP_TIME_MAX {
                return;
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
        self.apply_put_off();
        let now_us = self.clock.wall_us();
        while let Some((local_shard, index)) = self.log.take_durable() {
            if self.put_off.contains(&local_shard) {
                // Committed long ago, and applied in its turn.
                continue;
            }
            let (shards, _, mut outlet) = self.parts();
            shards[usize::from(local_shard)].persisted(index, now_us, &mut outlet);
            if self.clock.is_over() {
                break;
            }
        }
        self.log.submit(ring, self.clock.now(), false);
        if let Some((value, range)) = self.log.take_wanted_pages() {
            self.paging.bring(super::paging::LOG_TOKEN, value, range);
        }
    }

    /// Seals a shard's open entry if nothing more may be added: whoever adds to one may rely on it.
    pub(super) fn seal_if_full(&mut self, local_shard: u16) {
        if self.shards[usize::from(local_shard)].open_entry_is_full() {
            self.seal(local_shard);
        }
    }

    /// Hands a shard's open entry to the log. Without `--sync-writes`, that commits it.
    pub(super) fn seal(&mut self, local_shard: u16) {
        self.flush_reads();
        let (shards, log, mut outlet) = self.parts();
        let driver = &mut shards[usize::from(local_shard)];
        let (shard, heavy): (ShardId, bool) = (driver.shard().id(), driver.open_entry_is_heavy());
        driver.seal(&mut outlet, |sealed| log.append(shard, local_shard, sealed));
        self.commit(local_shard, heavy);
    }

    /// Without `--sync-writes`, what is appended is committed, and applied at once; where that is much (`heavy`), it is
    /// put off, and what follows it in the same shard as well.
    pub(super) fn commit(&mut self, local_shard: u16, heavy: bool) {
        if self.shared.settings.sync_writes {
            return;
        }
        let (now_us, follows) = (self.clock.wall_us(), self.put_off.contains(&local_shard));
        if heavy && !follows {
            self.put_off.push_back(local_shard);
        }
        let (shards, _, mut outlet) = self.parts();
        let driver = &mut shards[usize::from(local_shard)];
        let last = driver.last_index();
        if heavy || follows {
            driver.put_off(last);
        } else {
            driver.persisted(last, now_us, &mut outlet);
        }
    }

    /// Applies entries that were put off, of each shard in turn, until the turn is over.
    fn apply_put_off(&mut self) {
        let now_us = self.clock.wall_us();
        while let Some(local_shard) = self.put_off.pop_front() {
            let (shards, _, mut outlet) = self.parts();
            if shards[usize::from(local_shard)].apply_next(now_us, &mut outlet) {
                self.put_off.push_back(local_shard);
                if self.clock.is_over() {
                    return;
                }
            }
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
    pub(super) fn is_settled(&self) -> bool {
        let shards_settled = self.shards.iter().all(|driver| driver.waiting() == 0);
        shards_settled
            && self.mesh.under_way() == 0
            && self.gathers.is_empty()
            && self.walks.is_empty()
            && self.uploads.is_empty()
            && self.has_no_kept_reads()
    }
}

fn shorter(wait: Wait, limit: Duration) -> Wait {
    match wait {
        Wait::Forever => Wait::For(limit),
        Wait::For(duration) => Wait::For(duration.min(limit)),
        Wait::No => Wait::No,
    }
}

pub(super) fn ring_failed(error: &std::io::Error) -> Stop {
    Stop::new(
        StopReason::RingFailed,
        format!("io_uring_enter: {error}"),
        "what was acknowledged is on disk; restart the node, and report this with the kernel's version",
    )
}
