//! The open loop: requests are due at fixed intervals, whatever the server does.
//!
//! Place in the flow: decides when a request is due. Its latency counts from then, not from when it could be sent, so a
//! stall of the server is charged to every request that was due during it (no coordinated omission).
//!
//! ```text
//! due      |---|---|---|---|---|---|---|---|---|---> time          `backlog`: due, and not sent, because
//! sent     |   |   |       (stall)     |||||   |                   `--clients` times `--pipeline` are outstanding
//! ```

use std::collections::VecDeque;

use crate::closed_loop::Budget;

/// A backlog of more than what is due in this time means that the offered load is not reached: latencies then only say
/// how long the run was.
pub const MAX_BACKLOG_S: f64 = 1.0;

/// The most requests that may be due and unsent before the offered load counts as not reached; never below what may be
/// outstanding, since a short burst of that size is normal.
pub fn backlog_bound(rate_per_s: f64, outstanding: usize) -> u64 {
    ((rate_per_s * MAX_BACKLOG_S) as u64).max(outstanding as u64)
}

/// The pace of an open loop, and the slots of its outstanding requests.
#[derive(Debug)]
pub struct OpenLoop {
    start_ns: u64,
    interval_ns: f64,
    /// Requests that became due and were sent.
    sent: u64,
    budget: Budget,
    max_backlog: u64,
    bound: u64,
    /// First in, first out, so that all clients take turns.
    free: VecDeque<u32>,
}

impl OpenLoop {
    /// The first request is due at `start_ns`, the others `interval_ns` apart. `slots`: the order in which slots are
    /// used first. `bound`: see [`backlog_bound`].
    pub fn new(start_ns: u64, interval_ns: f64, budget: Budget, slots: impl Iterator<Item = u32>, bound: u64) -> Self {
        assert!(interval_ns > 0.0, "checked with the arguments");
        Self { start_ns, interval_ns, sent: 0, budget, max_backlog: 0, bound, free: slots.collect() }
    }

    /// When request `number`, from 0, is due.
    fn due_ns(&self, number: u64) -> u64 {
        self.start_ns + (number as f64 * self.interval_ns) as u64
    }

    /// How many requests are due by `now_ns`.
    fn due_count(&self, now_ns: u64) -> u64 {
        let until = now_ns.min(self.budget.end_ns.saturating_sub(1));
        if until < self.start_ns {
            return 0;
        }
        let count = ((until - self.start_ns) as f64 / self.interval_ns) as u64 + 1;
        count.min(self.sent.saturating_add(self.budget.requests))
    }

    /// Notes the backlog; once a turn.
    pub fn observe(&mut self, now_ns: u64) {
        let backlog = self.due_count(now_ns).saturating_sub(self.sent);
        self.max_backlog = self.max_backlog.max(backlog);
        if now_ns >= self.budget.end_ns && backlog > self.bound {
            self.stop();
        }
    }

    /// The next request that is due, if a slot is free: when it was due, and its slot.
    #[inline]
    pub fn next(&mut self, now_ns: u64) -> Option<(u64, u32)> {
        let due_ns = self.next_due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        let slot = self.free.pop_front()?;
        self.sent += 1;
        self.budget.requests -= 1;
        Some((due_ns, slot))
    }

    /// When the next request is due; `None`: no more is.
    #[inline]
    pub fn next_due_ns(&self) -> Option<u64> {
        let due_ns = self.due_ns(self.sent);
        (self.budget.requests > 0 && due_ns < self.budget.end_ns).then_some(due_ns)
    }

    /// Whether a request can be sent when it is due.
    pub fn has_free_slot(&self) -> bool {
        !self.free.is_empty()
    }

    /// The request of `slot` was answered.
    #[inline]
    pub fn answered(&mut self, slot: u32) {
        self.free.push_back(slot);
    }

    /// Sends nothing more.
    pub fn stop(&mut self) {
        self.budget.requests = 0;
    }

    /// The largest backlog seen.
    pub fn max_backlog(&self) -> u64 {
        self.max_backlog
    }

    /// Requests that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Requests that the schedule demands by `now_ns`, of `requests` at most.
    pub fn scheduled(&self, now_ns: u64, requests: u64) -> u64 {
        let until = now_ns.min(self.budget.end_ns.saturating_sub(1)).max(self.start_ns);
        (((until - self.start_ns) as f64 / self.interval_ns) as u64 + 1).min(requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(requests: u64, end_ns: u64, slots: u32) -> OpenLoop {
        OpenLoop::new(1000, 10.0, Budget { requests, end_ns }, 0..slots, 5)
    }

    #[test]
    fn requests_are_due_at_fixed_intervals_until_the_end() {
        let mut pace = pace(u64::MAX, 1050, 10);
        assert_eq!(pace.next(999), None);
        assert_eq!(pace.next(1000), Some((1000, 0)));
        assert_eq!(pace.next(1000), None);
        assert_eq!(pace.next_due_ns(), Some(1010));
        let due: Vec<u64> = std::iter::from_fn(|| pace.next(5000)).map(|(due_ns, _)| due_ns).collect();
        assert_eq!(due, [1010, 1020, 1030, 1040]);
        assert_eq!(pace.next_due_ns(), None);
        assert_eq!((pace.sent(), pace.scheduled(5000, u64::MAX)), (5, 5));
    }

    #[test]
    fn a_stall_makes_a_backlog_whose_requests_keep_their_due_times() {
        let mut pace = pace(u64::MAX, u64::MAX, 2);
        assert_eq!(pace.next(1000), Some((1000, 0)));
        assert_eq!(pace.next(1010), Some((1010, 1)));
        // Nothing is answered until 1,100: ten more are due by then.
        pace.observe(1100);
        assert_eq!(pace.next(1100), None, "no slot");
        assert_eq!(pace.max_backlog(), 9);
        pace.answered(1);
        pace.answered(0);
        assert_eq!(pace.next(1100), Some((1020, 1)), "charged from 1,020 on");
        assert_eq!(pace.next(1100), Some((1030, 0)));
    }

    #[test]
    fn at_the_end_a_small_backlog_is_sent_and_a_large_one_is_given_up() {
        let mut small = pace(u64::MAX, 1040, 1);
        small.observe(1040);
        assert_eq!(small.next(1040), Some((1000, 0)), "4 of at most 5");
        let mut large = pace(u64::MAX, 1200, 1);
        large.observe(1200);
        assert_eq!(large.next(1200), None, "20 of at most 5");
        assert_eq!(large.scheduled(1200, u64::MAX) - large.sent(), 20);
    }

    #[test]
    fn a_number_of_requests_bounds_the_schedule() {
        let mut pace = pace(3, u64::MAX, 10);
        assert_eq!(std::iter::from_fn(|| pace.next(9999)).count(), 3);
        assert_eq!(pace.scheduled(9999, 3), 3);
    }
}
