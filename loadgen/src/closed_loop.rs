//! The closed loop: a client sends its next batch when the last answer of its previous one has come.
//!
//! Place in the flow: decides when a client may send. This is how `redis-benchmark -P` measures, so both can be
//! compared. A slow server is asked less often for it: its latencies are those of its own pace, which the open loop is
//! not.

/// What bounds a phase: a number of requests and a time, whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Requests that may still be sent.
    pub requests: u64,
    /// When sending ends, on the thread's clock.
    pub end_ns: u64,
}

/// The pace of a closed loop.
#[derive(Debug)]
pub struct ClosedLoop {
    pipeline: u32,
    budget: Budget,
    /// Unanswered requests of each client.
    unanswered: Vec<u32>,
    /// Clients whose batch was answered, in the order of their last answer.
    ready: Vec<u32>,
}

impl ClosedLoop {
    /// All `clients` are ready.
    pub fn new(clients: usize, pipeline: u32, budget: Budget) -> Self {
        Self { pipeline, budget, unanswered: vec![0; clients], ready: (0..clients as u32).collect() }
    }

    /// The next client that is ready, and how many requests it is to send now: at least 1.
    #[inline]
    pub fn next_batch(&mut self, now_ns: u64) -> Option<(u32, u32)> {
        if self.exhausted(now_ns) {
            return None;
        }
        let client = self.ready.pop()?;
        let count = u64::from(self.pipeline).min(self.budget.requests) as u32;
        self.budget.requests -= u64::from(count);
        self.unanswered[client as usize] = count;
        Some((client, count))
    }

    /// A request of `client` was answered.
    #[inline]
    pub fn answered(&mut self, client: u32) {
        let unanswered = &mut self.unanswered[client as usize];
        *unanswered -= 1;
        if *unanswered == 0 {
            self.ready.push(client);
        }
    }

    /// Whether nothing is left to be sent.
    pub fn exhausted(&self, now_ns: u64) -> bool {
        self.budget.requests == 0 || now_ns >= self.budget.end_ns
    }

    /// Sends nothing more.
    pub fn stop(&mut self) {
        self.budget.requests = 0;
    }

    /// When sending ends.
    pub fn end_ns(&self) -> u64 {
        self.budget.end_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_sends_again_only_after_its_whole_batch_was_answered() {
        let mut pace = ClosedLoop::new(2, 3, Budget { requests: 8, end_ns: 100 });
        let (first, 3) = pace.next_batch(0).unwrap() else { panic!("a batch of 3") };
        let (second, 3) = pace.next_batch(0).unwrap() else { panic!("a batch of 3") };
        assert_ne!(first, second);
        assert_eq!(pace.next_batch(1), None);
        pace.answered(first);
        pace.answered(first);
        assert_eq!(pace.next_batch(2), None);
        pace.answered(first);
        assert_eq!(pace.next_batch(3), Some((first, 2)), "what is left of the budget");
        assert!(pace.exhausted(3));
    }

    #[test]
    fn nothing_is_sent_after_the_end() {
        let mut pace = ClosedLoop::new(1, 1, Budget { requests: u64::MAX, end_ns: 100 });
        assert_eq!(pace.next_batch(100), None);
    }
}
