//! Looks for an order of operations that explains every reply: the search of Wing and Gong (1993) with Lowe's linked
//! list of calls and returns and his memory of what was tried ("Testing for Linearizability", 2017).
//!
//! Place in the flow: `linear` calls it for keys that the zones of `zones` do not cover. What the operations mean is a
//! [`Model`].
//!
//! The list has a node for each call and each return, by time. Operations whose calls lie before the first return may
//! be next; whatever is placed leaves the list with both nodes:
//!
//! ```text
//! head ─ call A ─ call B ─ return A ─ call C ─ return B ─ return C      A or B may be next, C not before A
//! head ─ call A ─ return A ─ call C ─ return C                          B is placed: now A; C not before it
//! ```
//!
//! A configuration is the set of placed operations and the state. One that was reached before leads nowhere new. The
//! set is a bitset without the leading words that are full: a few words, however long the history.
//!
//! What keeps the search short on real histories, each of which leaves the answer as it is:
//! - A call that changes nothing is placed as soon as its reply fits: moving it there from a later place is harmless.
//! - Of calls that are equal, reply included, the one that must end first goes first: they could change places.
//! - A state that is left while an operation still needs exactly it, and that nothing can bring back, is a dead end.
//! - Operations without an outcome are left out or placed, whatever fits; nothing demands them.
//!
//! Invariant: the answer depends on the entries alone. Hash tables are only asked whether they hold something.
//!
//! Deliberately not here: time limits. The bound is the number of configurations, and of the words that they take.

mod events;
mod placed;

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash};

use events::Events;
use placed::Placed;

/// What operations on one object mean: a sequential specification. The replies are part of the calls.
pub trait Model {
    /// What the object holds.
    type State: Clone + Eq + Hash;
    /// What was asked and answered; an operation without an outcome has no answer.
    type Call: Eq + Hash;

    /// What the object holds at first.
    fn initial(&self) -> Self::State;

    /// The state after the call took effect; `None` if it cannot take effect here with the answer that it has. The
    /// model may be changed only where that changes no answer (to give states short names).
    fn apply(&mut self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;

    /// Whether the call changes no state in which it can take effect.
    fn is_read_only(&self, call: &Self::Call) -> bool;

    /// The only state in which the call can take effect; `None` if there are several, or if it is not known.
    fn needs(&self, call: &Self::Call) -> Option<Self::State>;

    /// Which states it can leave behind, of those that some call needs.
    fn gives(&self, call: &Self::Call) -> Gives<Self::State>;
}

/// The states that a call can leave behind, of those that some call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives<State> {
    /// None of them.
    Nothing,
    /// Always this one.
    One(State),
    /// It depends on the state before.
    Any,
}

/// An operation as the search sees it.
#[derive(Debug, Clone)]
pub struct Entry<Call> {
    /// What was asked and answered.
    pub call: Call,
    /// When it was asked.
    pub invoked: u64,
    /// When it was answered; `None` if never: it takes effect at any time from `invoked` on, or not at all.
    pub completed: Option<u64>,
}

/// What the search found. Positions are those of the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An order that explains every reply; what is missing in it had no outcome.
    Explained {
        /// The entries in that order.
        order: Vec<usize>,
    },
    /// There is no such order.
    Unexplained {
        /// The longest order that was found.
        deepest: Vec<usize>,
    },
    /// The budget was spent before the answer was found.
    Undecided {
        /// Configurations that were remembered.
        configurations: u64,
    },
}

/// Words that the search may hold for each configuration that it may remember: sets of placed operations are a few
/// words each, but of many operations without an outcome they are long ones.
const WORDS_PER_CONFIGURATION: u64 = 16;

/// Looks for an order that explains every reply of `entries`, remembering at most `configurations_max` configurations:
/// about 100 bytes each, and 200 on an average at the most; where they would be longer, it remembers fewer.
///
/// # Panics
/// If there are more than 2^24 entries, or one ends before it begins.
pub fn search<M: Model>(model: &mut M, entries: &[Entry<M::Call>], configurations_max: u64) -> Answer {
    assert!(entries.len() <= crate::history::OPERATIONS_MAX, "{} entries", entries.len());
    assert!(entries.iter().all(|entry| entry.completed.is_none_or(|at| at >= entry.invoked)), "time goes back");
    Walk::new(model, entries).run(configurations_max)
}

type Table<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;
type Set<K> = HashSet<K, BuildHasherDefault<DefaultHasher>>;

/// A choice: what was tried in a configuration, and what is left to try.
struct Frame<State> {
    candidates: Box<[u32]>,
    tried: usize,
    /// Whether `candidates` are those without an outcome; before, they are those with one.
    is_of_lost: bool,
    state_before: State,
    placed_before: usize,
}

/// How many unplaced operations need a state, and how many can bring it.
#[derive(Clone, Copy, Default)]
struct Demand {
    needed: u32,
    given: u32,
}

struct Walk<'a, M: Model> {
    model: &'a mut M,
    entries: &'a [Entry<M::Call>],
    list: Events,
    state: M::State,
    /// Placed operations, in their order.
    order: Vec<u32>,
    placed: Placed,
    /// Operations with an outcome that are not placed yet.
    unanswered: usize,
    /// Equal calls have equal numbers.
    class: Vec<u32>,
    /// The last time that a class was seen; against `round`.
    class_round: Vec<u64>,
    round: u64,
    /// States that some call needs, by number.
    state_number: Table<M::State, u32>,
    demand: Vec<Demand>,
    needs: Vec<Option<u32>>,
    gives: Vec<Gives<u32>>,
    /// Unplaced operations that can leave any state.
    gives_any: u32,
    remembered: Set<(Box<[u64]>, M::State)>,
    /// Words of all sets in `remembered`, and candidates of all frames on the stack.
    words_held: u64,
}

impl<'a, M: Model> Walk<'a, M> {
    fn new(model: &'a mut M, entries: &'a [Entry<M::Call>]) -> Self {
        let count = entries.len();
        let mut classes: Table<&M::Call, u32> = Table::default();
        let mut class = Vec::with_capacity(count);
        for entry in entries {
            let next = classes.len() as u32;
            class.push(*classes.entry(&entry.call).or_insert(next));
        }
        let class_round = vec![0; classes.len()];
        let state = model.initial();
        let mut walk = Walk {
            list: Events::new(entries),
            placed: Placed::new(entries),
            unanswered: entries.iter().filter(|entry| entry.completed.is_some()).count(),
            model,
            entries,
            state,
            order: Vec::with_capacity(count),
            class,
            class_round,
            round: 0,
            state_number: Table::default(),
            demand: Vec::new(),
            needs: Vec::with_capacity(count),
            gives: Vec::with_capacity(count),
            gives_any: 0,
            remembered: Set::default(),
            words_held: 0,
        };
        walk.count_demand();
        walk
    }

    fn count_demand(&mut self) {
        for entry in self.entries {
            // What has no outcome is not demanded, and neither is what it needs.
            let needed = self.model.needs(&entry.call).filter(|_| entry.completed.is_some());
            let number = needed.map(|state| self.number(state));
            self.needs.push(number);
        }
        for entry in self.entries {
            let gives = match self.model.gives(&entry.call) {
                Gives::Nothing => Gives::Nothing,
                Gives::Any => Gives::Any,
                // A state that nobody needs is nobody's demand.
                Gives::One(state) => self.state_number.get(&state).map_or(Gives::Nothing, |&number| Gives::One(number)),
            };
            self.gives.push(gives);
        }
        for position in 0..self.entries.len() {
            self.add_demand(position);
        }
    }

    fn number(&mut self, state: M::State) -> u32 {
        let next = self.state_number.len() as u32;
        let number = *self.state_number.entry(state).or_insert(next);
        if number == next {
            self.demand.push(Demand::default());
        }
        number
    }

    fn add_demand(&mut self, position: usize) {
        if let Some(number) = self.needs[position] {
            self.demand[number as usize].needed += 1;
        }
        match self.gives[position] {
            Gives::Nothing => {}
            Gives::One(number) => self.demand[number as usize].given += 1,
            Gives::Any => self.gives_any += 1,
        }
    }

    fn take_demand(&mut self, position: usize) {
        if let Some(number) = self.needs[position] {
            self.demand[number as usize].needed -= 1;
        }
        match self.gives[position] {
            Gives::Nothing => {}
            Gives::One(number) => self.demand[number as usize].given -= 1,
            Gives::Any => self.gives_any -= 1,
        }
    }

    /// Whether leaving the current state by `position` leaves somebody behind who needs it and cannot get it again.
    fn strands(&self, position: usize) -> bool {
        let Some(&number) = self.state_number.get(&self.state) else { return false };
        let demand = self.demand[number as usize];
        let needed = demand.needed - u32::from(self.needs[position] == Some(number));
        let given = demand.given - u32::from(self.gives[position] == Gives::One(number));
        let gives_any = self.gives_any - u32::from(self.gives[position] == Gives::Any);
        needed > 0 && given == 0 && gives_any == 0
    }

    fn run(mut self, configurations_max: u64) -> Answer {
        let mut deepest: Vec<u32> = Vec::new();
        let initial = self.state.clone();
        self.settle();
        let mut stack = vec![self.frame(initial, 0)];
        let positions = |order: &[u32]| order.iter().map(|&position| position as usize).collect();
        loop {
            if self.unanswered == 0 {
                return Answer::Explained { order: positions(&self.order) };
            }
            let Some(frame) = stack.last_mut() else {
                return Answer::Unexplained { deepest: positions(&deepest) };
            };
            let Some(next) = self.next_candidate(frame) else {
                if self.order.len() > deepest.len() {
                    deepest.clone_from(&self.order);
                }
                self.words_held -= frame.candidates.len() as u64;
                self.undo_to(frame.placed_before);
                self.state = frame.state_before.clone();
                stack.pop();
                continue;
            };
            let (state_before, placed_before) = (self.state.clone(), self.order.len());
            if !self.try_to_place(next as usize) {
                continue;
            }
            self.settle();
            if self.is_new() {
                stack.push(self.frame(state_before, placed_before));
                let configurations = self.remembered.len() as u64;
                let words_max = configurations_max.saturating_mul(WORDS_PER_CONFIGURATION);
                if configurations > configurations_max || self.words_held > words_max {
                    return Answer::Undecided { configurations };
                }
            } else {
                self.undo_to(placed_before);
                self.state = state_before;
            }
        }
    }

    /// Remembers the configuration. Whether it was never there before.
    fn is_new(&mut self) -> bool {
        let words = self.placed.words();
        let held = words.len() as u64;
        let is_new = self.remembered.insert((words, self.state.clone()));
        self.words_held += if is_new { held } else { 0 };
        is_new
    }

    /// What is to be tried next in a configuration, which must be the current one.
    fn next_candidate(&mut self, frame: &mut Frame<M::State>) -> Option<u32> {
        if frame.tried == frame.candidates.len() && !frame.is_of_lost {
            self.words_held -= frame.candidates.len() as u64;
            (frame.candidates, frame.tried, frame.is_of_lost) = (self.candidates(true), 0, true);
            self.words_held += frame.candidates.len() as u64;
        }
        let next = frame.candidates.get(frame.tried).copied();
        frame.tried += 1;
        next
    }

    fn try_to_place(&mut self, position: usize) -> bool {
        let entry = &self.entries[position];
        let Some(after) = self.model.apply(&self.state, &entry.call) else { return false };
        if after == self.state {
            // Without an outcome and without an effect, it need not be.
            if entry.completed.is_none() {
                return false;
            }
        } else if self.strands(position) {
            return false;
        }
        self.place(position);
        self.state = after;
        true
    }

    /// Places every call that changes nothing and whose reply fits the state.
    fn settle(&mut self) {
        let mut node = self.list.first();
        while let Some(position) = self.list.call_at(node) {
            let entry = &self.entries[position];
            node = self.list.after(node);
            if entry.completed.is_none() || !self.model.is_read_only(&entry.call) {
                continue;
            }
            if self.model.apply(&self.state, &entry.call).is_some() {
                // If its return was the very next node, the walk goes on behind it.
                self.place(position);
                if self.list.is_return_of(node, position) {
                    node = self.list.after(node);
                }
            }
        }
    }

    fn frame(&mut self, state_before: M::State, placed_before: usize) -> Frame<M::State> {
        let candidates = self.candidates(false);
        self.words_held += candidates.len() as u64;
        Frame { candidates, tried: 0, is_of_lost: false, state_before, placed_before }
    }

    /// What may be next, of equal calls the one that must end first. Those with an outcome come first, the one that
    /// must end first before the others; where none of them leads on, those without one, which are many on some keys
    /// and seldom asked for.
    fn candidates(&mut self, of_lost: bool) -> Box<[u32]> {
        let (mut answered, mut lost) = (Vec::new(), Vec::new());
        let mut node = self.list.first();
        while let Some(position) = self.list.call_at(node) {
            match self.entries[position].completed {
                Some(completed) => answered.push((completed, position as u32)),
                None if of_lost => lost.push(position as u32),
                None => {}
            }
            node = self.list.after(node);
        }
        answered.sort_unstable();
        lost.sort_unstable();
        self.round += 1;
        let mut is_first = |&position: &u32| {
            let round = &mut self.class_round[self.class[position as usize] as usize];
            std::mem::replace(round, self.round) != self.round
        };
        let answered: Vec<u32> = answered.into_iter().map(|(_, position)| position).filter(&mut is_first).collect();
        if of_lost {
            lost.into_iter().filter(is_first).collect()
        } else {
            answered.into_boxed_slice()
        }
    }

    fn place(&mut self, position: usize) {
        self.list.lift(position);
        self.placed.insert(position);
        self.take_demand(position);
        self.unanswered -= usize::from(self.entries[position].completed.is_some());
        self.order.push(position as u32);
    }

    fn undo_to(&mut self, length: usize) {
        while self.order.len() > length {
            let position = self.order.pop().expect("the order is longer than `length`") as usize;
            self.unanswered += usize::from(self.entries[position].completed.is_some());
            self.add_demand(position);
            self.placed.remove(position);
            self.list.put_back(position);
        }
    }
}
