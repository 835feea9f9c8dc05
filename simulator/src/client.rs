//! Clients: they ask, wait, ask again, give up, and remember what they were told.
//!
//! Place in the flow: at the far end of the network. A client knows addresses, and nothing of groups' insides; it does
//! one thing at a time, under a session of each group.
//!
//! Invariants:
//! - What is asked again has the same session and sequence number, so that it is done once.
//! - A client says "not applied" only if every attempt of its was refused for certain.
//!
//! Deliberately not here: the network, and what a node does with a request.

use crate::clock::{Time, MILLISECOND};
use crate::command::{Action, Answer, Command, Key, Operation, ABSENT};
use crate::dice::Dice;
use crate::history::{Called, Ended, History};
use crate::network::{Place, FIRST_CLIENT};
use crate::plan::{Kind, Plan};

/// What travels to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub client: usize,
    /// Which group.
    pub group: u32,
    /// Which try of the client's, so that old replies are known.
    pub attempt: u64,
    /// What.
    pub ask: Ask,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Do this once.
    Write(Command),
    /// What does the key hold?
    Read {
        /// Names the read as operations name writes.
        operation: Operation,
        /// The key.
        key: Key,
        /// Whether a lease is good enough.
        by_lease: bool,
    },
}

impl Ask {
    /// Its number.
    pub fn operation(&self) -> Operation {
        match *self {
            Self::Write(command) => command.operation,
            Self::Read { operation, .. } => operation,
        }
    }
}

/// What travels back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// To what.
    pub request: Request,
    /// What came of it.
    pub result: Told,
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The write was done.
    Done(Answer),
    /// What the key holds.
    Value(Option<i64>),
    /// This attempt was not applied and never will be; the leader may be there.
    Refused(Option<Place>),
    /// Nobody knows about this attempt.
    Unknown,
}

#[derive(Debug, Clone, Copy, Default)]
struct Session {
    id: Option<u64>,
    sequence: u64,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    request: Request,
    attempts: u64,
    /// Whether an attempt is under way of which it has heard nothing.
    is_waiting: bool,
    /// Whether some attempt may have been applied, or may still be.
    is_ambiguous: bool,
    history: Option<usize>,
}

/// What a client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Sends this to that place, and gives it so long.
    Send {
        /// What.
        request: Request,
        /// To whom.
        to: Place,
        /// For how long it waits.
        patience: Time,
    },
    /// Asks again after this time.
    Retry(Time),
    /// Thinks of something new after this time.
    Think(Time),
    /// Nothing: what came was old.
    Nothing,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    number: usize,
    dice: Dice,
    sessions: Vec<Session>,
    hints: Vec<Option<Place>>,
    current: Option<Current>,
    attempts: u64,
    keys: Key,
    reads_per_million: u32,
    think: Time,
    patience: Time,
    attempts_max: u64,
    uses_leases: bool,
    doubles_per_million: u32,
    places: Place,
    /// Whom it asks next, if it has no hint.
    turn: Place,
    last_seen: i64,
    process: u32,
    /// How often it gave up without knowing.
    pub unknown: u64,
}

impl Client {
    /// Client `number` of a plan, which knows of nodes at so many places.
    pub fn of(plan: &Plan, number: usize, places: Place) -> Self {
        let mut dice = Dice::new(plan.seed, 100 + number as u64);
        let gives_up = plan.habit(Kind::ClientsGiveUp).is_some();
        Self {
            number,
            sessions: vec![Session::default(); plan.groups as usize],
            hints: vec![None; plan.groups as usize],
            current: None,
            attempts: 0,
            keys: plan.keys,
            reads_per_million: plan.reads_per_million,
            think: plan.think,
            patience: if gives_up { dice.between(20, 400) } else { dice.between(300, 2_000) } * MILLISECOND,
            attempts_max: if gives_up { dice.between(1, 4) } else { u64::MAX },
            uses_leases: plan.habit(Kind::Leases).is_some(),
            doubles_per_million: plan.habit(Kind::ClientDuplicates).map_or(0, |_| 200_000),
            places,
            turn: number as Place % places,
            last_seen: ABSENT,
            process: number as u32,
            unknown: 0,
            dice,
        }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        FIRST_CLIENT + self.number as Place
    }

    /// Asks something new, under a number that nobody had; a read, if it is to be one and there is a session already.
    pub fn ask(&mut self, operation: Operation, only_reads: bool, now: Time, history: &mut History) -> Next {
        let group = self.dice.below(self.sessions.len() as u64) as u32;
        let ask = match self.sessions[group as usize].id {
            None => Ask::Write(Command {
                operation,
                session: 0,
                sequence: self.dice.number(),
                acknowledged: 0,
                action: Action::Open,
            }),
            Some(_) if self.dice.chance(self.reads_per_million) || only_reads => {
                let key = self.dice.below(u64::from(self.keys)) as Key;
                Ask::Read { operation, key, by_lease: self.uses_leases && self.dice.chance(700_000) }
            }
            Some(session) => Ask::Write(self.write(operation, group, session)),
        };
        let request = Request { client: self.number, group, attempt: 0, ask };
        let history = Called::of(&ask).map(|(key, called)| history.begin(self.process, group, key, called, now));
        // Of a request that may be under way twice, one refusal says nothing.
        let is_ambiguous = self.doubles_per_million > 0;
        self.current = Some(Current { request, attempts: 0, is_waiting: false, is_ambiguous, history });
        self.send_again()
    }

    fn write(&mut self, operation: Operation, group: u32, session: u64) -> Command {
        let sequence = self.sessions[group as usize].sequence + 1;
        self.sessions[group as usize].sequence = sequence;
        let key = self.dice.below(u64::from(self.keys)) as Key;
        let value = operation as i64;
        // Each key is one kind of thing, so that its history can be judged: a register, one with swaps, or a counter.
        let action = match key % 3 {
            2 => Action::Add(key, self.dice.between(1, 3) as i64),
            1 if self.dice.chance(500_000) => Action::Cas(key, self.last_seen, value),
            _ => Action::Put(key, value),
        };
        Command { operation, session, sequence, acknowledged: sequence - 1, action }
    }

    /// Sends what it waits for once more.
    pub fn send_again(&mut self) -> Next {
        let Some(current) = &mut self.current else { return Next::Nothing };
        self.attempts += 1;
        current.attempts += 1;
        current.request.attempt = self.attempts;
        current.is_waiting = true;
        let hint = self.hints[current.request.group as usize];
        // A client that only ever believes its hint never finds out. It asks in turn: by chance it could miss the only
        // one that lives for longer than a world may take to be well again.
        let to = hint.filter(|_| self.dice.chance(900_000)).unwrap_or_else(|| {
            self.turn = (self.turn + 1) % self.places;
            self.turn
        });
        Next::Send { request: current.request, to, patience: self.patience }
    }

    /// Whether this attempt is the one it waits for.
    fn waits_for(&self, request: &Request) -> bool {
        self.current.is_some_and(|current| current.is_waiting && current.request.attempt == request.attempt)
    }

    /// Whether it waits for the answer to this.
    pub fn waits_for_operation(&self, operation: Operation) -> bool {
        self.operation() == Some(operation)
    }

    /// What it waits for.
    pub fn operation(&self) -> Option<Operation> {
        self.current.map(|current| current.request.ask.operation())
    }

    /// Whether it sends the same request a second time without being asked.
    pub fn asks_twice(&mut self) -> bool {
        self.dice.chance(self.doubles_per_million)
    }

    /// Nothing came in time.
    pub fn times_out(&mut self, request: &Request, now: Time, history: &mut History) -> (Next, Option<Operation>) {
        if !self.waits_for(request) {
            return (Next::Nothing, None);
        }
        self.hints[request.group as usize] = None;
        self.current.iter_mut().for_each(|current| current.is_ambiguous = true);
        self.try_again(now, history)
    }

    /// A reply has come. With it comes the operation of which the client now knows that it was not applied, if so.
    pub fn hears(&mut self, reply: &Reply, now: Time, history: &mut History) -> (Next, Option<Operation>) {
        let Some(current) = self.current else { return (Next::Nothing, None) };
        let request = &reply.request;
        if current.request.ask.operation() != request.ask.operation() {
            return (Next::Nothing, None);
        }
        match reply.result {
            // An answer is an answer, whichever attempt it belongs to.
            Told::Done(answer) => self.is_told(&current, answer, now, history),
            Told::Value(value) => {
                self.last_seen = value.unwrap_or(ABSENT);
                self.end(Ended::Value(value), now, history);
                (self.thinks(), None)
            }
            Told::Refused(_) | Told::Unknown if !self.waits_for(request) => (Next::Nothing, None),
            Told::Refused(hint) => {
                self.hints[request.group as usize] = hint;
                self.try_again(now, history)
            }
            Told::Unknown => {
                self.current.iter_mut().for_each(|current| current.is_ambiguous = true);
                self.try_again(now, history)
            }
        }
    }

    fn is_told(
        &mut self,
        current: &Current,
        answer: Answer,
        now: Time,
        history: &mut History,
    ) -> (Next, Option<Operation>) {
        let session = &mut self.sessions[current.request.group as usize];
        let mut not_applied = None;
        match answer {
            Answer::Opened(id) => *session = Session { id: Some(id), sequence: 0 },
            Answer::Expired | Answer::Stale => {
                *session = Session::default();
                // An earlier attempt may have been done before the session was gone.
                let is_certain = !current.is_ambiguous && current.attempts == 1;
                not_applied = is_certain.then(|| current.request.ask.operation());
                self.end(if is_certain { Ended::NotApplied } else { Ended::Unknown }, now, history);
                return (self.thinks(), not_applied);
            }
            Answer::Stored | Answer::Swapped(_) | Answer::Sum(_) => {}
        }
        self.end(Ended::Answer(answer), now, history);
        (self.thinks(), not_applied)
    }

    fn try_again(&mut self, now: Time, history: &mut History) -> (Next, Option<Operation>) {
        let Some(current) = &mut self.current else { return (Next::Nothing, None) };
        current.is_waiting = false;
        let current = *current;
        if current.attempts < self.attempts_max {
            return (Next::Retry(self.dice.between(1, 50) * MILLISECOND), None);
        }
        let is_write = matches!(current.request.ask, Ask::Write(_));
        let not_applied = (is_write && !current.is_ambiguous).then(|| current.request.ask.operation());
        let is_certain = not_applied.is_some() || !is_write;
        self.end(if is_certain { Ended::NotApplied } else { Ended::Unknown }, now, history);
        (self.thinks(), not_applied)
    }

    fn end(&mut self, ended: Ended, now: Time, history: &mut History) {
        let Some(current) = self.current.take() else { return };
        self.unknown += u64::from(ended == Ended::Unknown);
        if ended == Ended::Unknown {
            // Whoever goes on after a lost reply is somebody else to the checker of histories.
            self.process += 1_000;
        }
        if let Some(number) = current.history {
            history.end(number, ended, now);
        }
    }

    fn thinks(&mut self) -> Next {
        Next::Think(self.dice.between(1, 2 * self.think))
    }

    /// The world ends its patience: what it waits for stays unknown.
    pub fn stop(&mut self, now: Time, history: &mut History) {
        self.end(Ended::Unknown, now, history);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that has just asked to open its first session, and what it sent.
    fn asking(attempts_max: u64) -> (Client, History, Request) {
        let mut plan = Plan::of_seed(1);
        plan.items.clear();
        let mut client = Client::of(&plan, 0, 3);
        client.attempts_max = attempts_max;
        let mut history = History::default();
        let Next::Send { request, .. } = client.ask(1, false, 0, &mut history) else { panic!("it asks") };
        (client, history, request)
    }

    fn refused(request: Request) -> Reply {
        Reply { request, result: Told::Refused(None) }
    }

    #[test]
    fn a_client_says_not_applied_only_when_every_attempt_was_refused() {
        let (mut client, mut history, request) = asking(1);
        assert_eq!(client.hears(&refused(request), 5, &mut history).1, Some(1));

        let (mut client, mut history, request) = asking(2);
        let (next, not_applied) = client.times_out(&request, 5, &mut history);
        assert!(matches!(next, Next::Retry(_)) && not_applied.is_none());
        let Next::Send { request: second, .. } = client.send_again() else { panic!("it asks again") };
        assert_eq!(second.ask, request.ask, "the same thing");
        assert_eq!(client.hears(&refused(second), 9, &mut history).1, None, "nobody knows about the first attempt");
        assert_eq!(client.unknown, 1);
    }

    #[test]
    fn a_client_that_hears_nothing_asks_everybody_in_turn() {
        let places = 8;
        let mut client = Client::of(&Plan::of_seed(1), 0, places);
        client.attempts_max = u64::MAX;
        let mut history = History::default();
        let mut next = client.ask(1, false, 0, &mut history);
        let mut asked = Vec::new();
        while asked.len() < places as usize {
            let Next::Send { request, to, .. } = next else { panic!("it asks") };
            asked.push(to);
            client.times_out(&request, 5, &mut history);
            next = client.send_again();
        }
        asked.sort_unstable();
        assert_eq!(asked, (0..places).collect::<Vec<_>>());
    }

    #[test]
    fn a_refusal_that_comes_twice_counts_once_and_an_old_one_not_at_all() {
        let (mut client, mut history, request) = asking(9);
        assert!(matches!(client.hears(&refused(request), 5, &mut history).0, Next::Retry(_)));
        assert_eq!(client.hears(&refused(request), 6, &mut history).0, Next::Nothing);
        let Next::Send { request: second, .. } = client.send_again() else { panic!("it asks again") };
        assert_eq!(client.hears(&refused(request), 7, &mut history).0, Next::Nothing);
        assert_eq!(client.times_out(&request, 8, &mut history).0, Next::Nothing);
        let opened = Reply { request: second, result: Told::Done(Answer::Opened(7)) };
        assert!(matches!(client.hears(&opened, 9, &mut history).0, Next::Think(_)));
        assert_eq!(client.operation(), None);
        assert_eq!(client.hears(&opened, 10, &mut history).0, Next::Nothing);
    }

    #[test]
    fn an_answer_to_any_attempt_is_an_answer() {
        let (mut client, mut history, request) = asking(9);
        client.times_out(&request, 5, &mut history);
        assert!(matches!(client.send_again(), Next::Send { .. }));
        let late = Reply { request, result: Told::Done(Answer::Opened(7)) };
        assert!(matches!(client.hears(&late, 9, &mut history).0, Next::Think(_)));
    }
}
