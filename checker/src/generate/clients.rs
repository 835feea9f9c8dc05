//! Clients that are busy at the same time, as seen by a store that does one thing at a time.
//!
//! Place in the flow: `registers` and `transactions` take the events one by one, and say what each request is.
//!
//! ```text
//! client   ask ──────────── effect ─────────── done ─── ask ──        each gap is drawn from the seed
//! store                     one at a time, by time
//! ```
//!
//! A reply may be lost: then the request takes effect late or never, and its client goes on as another process. A
//! request may be refused: then it never takes effect.
//!
//! Invariant: who asks when, and what becomes of it, is a function of the seed and the calls.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Random;
use crate::history::Process;

/// The longest of each gap between a question, its effect and its reply.
const GAP_MAX: u64 = 1_000;

/// How much later than a reply would have come a lost request may take effect.
const LATE_MAX: u64 = 20 * GAP_MAX;

/// What happens next. Events come by time; at equal times in the order in which they were scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A client is free to ask.
    Ask {
        /// The client.
        client: usize,
    },
    /// A request reaches the store.
    Effect {
        /// Its number, as given to [`Clients::ask`].
        request: usize,
    },
}

/// What the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The answer.
    Answered,
    /// That it will never be done.
    Refused,
    /// Nothing.
    Lost,
}

/// A request that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Who asks.
    pub process: Process,
    /// What the client will be told.
    pub fate: Fate,
    /// When it is told that, or gives up.
    pub done_at: u64,
}

/// The clients, and all that they have under way.
pub struct Clients {
    /// What everything is drawn from.
    pub random: Random,
    /// With the time and the number of the event.
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    /// By client: its process now.
    processes: Vec<Process>,
    next_process: u32,
}

impl Clients {
    /// So many clients, each of which will soon ask.
    pub fn new(count: u32, seed: u64) -> Self {
        let mut clients = Clients {
            random: Random::new(seed),
            events: BinaryHeap::new(),
            scheduled: 0,
            processes: (0..count).map(Process).collect(),
            next_process: count,
        };
        for client in 0..count as usize {
            let at = clients.random.below(GAP_MAX);
            clients.schedule(at, Event::Ask { client });
        }
        clients
    }

    /// The next event, with its time; `None` if no client asks any more.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        self.events.pop().map(|Reverse((at, _, event))| (at, event))
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn gap(&mut self) -> u64 {
        1 + self.random.below(GAP_MAX)
    }

    /// A client asks now; of 1,000 requests some are refused, and of the others some get no reply.
    pub fn ask(&mut self, client: usize, request: usize, now: u64, refused: u32, lost: u32) -> Asked {
        let process = self.processes[client];
        let effect_at = now + self.gap();
        let done_at = effect_at + self.gap();
        let fate = if self.random.chance(refused) {
            Fate::Refused
        } else if self.random.chance(lost) {
            // A half of them reaches the store, at any time.
            if self.random.chance(500) {
                let late = effect_at + self.random.below(LATE_MAX);
                self.schedule(late, Event::Effect { request });
            }
            self.processes[client] = Process(self.next_process);
            self.next_process += 1;
            Fate::Lost
        } else {
            self.schedule(effect_at, Event::Effect { request });
            Fate::Answered
        };
        Asked { process, fate, done_at }
    }

    /// The client has been told, and asks again after a while.
    pub fn ask_again(&mut self, client: usize, done_at: u64) {
        let next = done_at + self.gap();
        self.schedule(next, Event::Ask { client });
    }
}
