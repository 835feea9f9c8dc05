//! What the operations on one key mean, for the search.
//!
//! Place in the flow: `linear` makes a [`KeyModel`] of a key's operations and hands both to `search`.
//!
//! Invariants:
//! - A value that nothing asks for is like any other such value: all are one number here ([`KeyModel::unasked`]), so
//!   that writes which nobody saw are equal calls. Not where increments count on from it.
//! - Where a key only knows reads and appends, its longest read says in which order appends took effect; no other
//!   order is tried.
//! - Lists are nodes of a tree, each its parent and one element more, so a state is a number and not a list.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;

use super::search::{Entry, Gives, Model};
use crate::history::{Call, Operation, Outcome, Reply, Value};

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing.
    Absent,
    /// A number.
    Int(i64),
    /// A list, by its node in the model; never the empty one.
    List(u32),
}

/// A call with what its reply tells; `None` where the reply is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Saw this.
    Read(State),
    /// Wrote; maybe saw what was there before.
    Write(i64, Option<State>),
    /// Wrote `new` if it was `expected`; whether it did.
    CompareAndSet(State, i64, Option<bool>),
    /// Added; the sum.
    Increment(i64, Option<i64>),
    /// Appended; the length afterwards.
    Append(i64, Option<u64>),
    /// Deleted; what was there.
    Delete(Deleted),
}

/// What a delete tells of the state before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deleted {
    /// Nothing.
    Whatever,
    /// There was something.
    Something,
    /// There was exactly this.
    Exactly(State),
}

/// A list: another one, and an element more.
struct ListNode {
    parent: u32,
    element: i64,
    length: u64,
}

/// A key that holds nothing at first and then a number or a list.
pub struct KeyModel {
    lists: Vec<ListNode>,
    children: HashMap<(u32, i64), u32, BuildHasherDefault<DefaultHasher>>,
    /// The longest list that was looked up, with the node of each of its beginnings: most reads begin it, or go on
    /// from it, and are not looked up element by element.
    longest: (Vec<i64>, Vec<u32>),
    /// The elements of the longest read, where only reads and appends are known.
    append_order: Option<Vec<i64>>,
    /// What such appends lead to: of each element in that order, the list that ends with it.
    appended: HashMap<i64, Gives<State>, BuildHasherDefault<DefaultHasher>>,
    /// The number that stands for values that nothing asks for.
    unasked: Option<i64>,
}

/// The tree's root, the empty list, which is no state: an absent key stands for it.
const EMPTY: u32 = 0;

impl KeyModel {
    /// The model of the operations on one key, and these as the search wants them: without those that failed, and
    /// without reads that nobody was answered. With each entry comes the operation's position in `operations`.
    pub fn new(operations: &[&Operation]) -> (Self, Vec<Entry<Step>>, Vec<usize>) {
        let mut model = KeyModel {
            lists: vec![ListNode { parent: EMPTY, element: 0, length: 0 }],
            children: HashMap::default(),
            longest: (Vec::new(), Vec::new()),
            append_order: append_order(operations),
            appended: HashMap::default(),
            unasked: None,
        };
        model.follow_append_order();
        let mut entries = Vec::with_capacity(operations.len());
        let mut positions = Vec::with_capacity(operations.len());
        for (position, operation) in operations.iter().enumerate() {
            if let Some(entry) = model.entry(operation) {
                entries.push(entry);
                positions.push(position);
            }
        }
        model.merge_unasked(&mut entries);
        (model, entries, positions)
    }

    fn follow_append_order(&mut self) {
        let order = self.append_order.clone().unwrap_or_default();
        self.list(&order);
        for (at, element) in order.into_iter().enumerate() {
            let node = self.longest.1[at];
            // An element that stands there twice leads to either list.
            let again = self.appended.insert(element, Gives::One(State::List(node))).is_some();
            if again {
                self.appended.insert(element, Gives::Any);
            }
        }
    }

    fn entry(&mut self, operation: &Operation) -> Option<Entry<Step>> {
        let (completed, reply) = match &operation.outcome {
            Outcome::Done { at, reply } => (Some(at.0), Some(reply)),
            Outcome::Failed { .. } => return None,
            Outcome::Unknown => (None, None),
        };
        let call = match operation.call {
            Call::Read => Step::Read(self.seen(reply)?),
            Call::Write(value) => Step::Write(value, self.seen(reply)),
            Call::CompareAndSet { expected, new } => {
                let swapped = if let Some(Reply::Swapped(swapped)) = reply { Some(*swapped) } else { None };
                Step::CompareAndSet(expected.map_or(State::Absent, State::Int), new, swapped)
            }
            Call::Increment(delta) => {
                Step::Increment(delta, if let Some(Reply::Number(sum)) = reply { Some(*sum) } else { None })
            }
            Call::Append(value) => {
                Step::Append(value, if let Some(Reply::Length(length)) = reply { Some(*length) } else { None })
            }
            Call::Delete => Step::Delete(match reply {
                Some(Reply::Existed(true)) => Deleted::Something,
                Some(Reply::Existed(false)) => Deleted::Exactly(State::Absent),
                _ => self.seen(reply).map_or(Deleted::Whatever, Deleted::Exactly),
            }),
        };
        Some(Entry { call, invoked: operation.invoked.0, completed })
    }

    /// The state that a reply shows, if it shows one.
    fn seen(&mut self, reply: Option<&Reply>) -> Option<State> {
        match reply? {
            Reply::Value(None) => Some(State::Absent),
            Reply::Value(Some(Value::Int(number))) => Some(State::Int(*number)),
            Reply::Value(Some(Value::List(elements))) => {
                let node = self.list(elements);
                Some(if node == EMPTY { State::Absent } else { State::List(node) })
            }
            _ => None,
        }
    }

    /// The node of a list.
    fn list(&mut self, elements: &[i64]) -> u32 {
        let (longest, nodes) = &self.longest;
        let shared = longest.iter().zip(elements).take_while(|(known, element)| known == element).count();
        let mut node = shared.checked_sub(1).map_or(EMPTY, |last| nodes[last]);
        if elements.len() <= longest.len() {
            return elements[shared..].iter().fold(node, |node, &element| self.child(node, element));
        }
        let mut nodes = nodes[..shared].to_vec();
        for &element in &elements[shared..] {
            node = self.child(node, element);
            nodes.push(node);
        }
        self.longest = (elements.to_vec(), nodes);
        node
    }

    fn child(&mut self, parent: u32, element: i64) -> u32 {
        let next = self.lists.len() as u32;
        let length = self.lists[parent as usize].length + 1;
        let node = *self.children.entry((parent, element)).or_insert(next);
        if node == next {
            self.lists.push(ListNode { parent, element, length });
        }
        node
    }

    /// Gives one number to all values that nothing asks for.
    fn merge_unasked(&mut self, entries: &mut [Entry<Step>]) {
        if entries.iter().any(|entry| matches!(entry.call, Step::Increment(..))) {
            return;
        }
        let mut asked: BTreeSet<i64> = BTreeSet::new();
        for entry in &*entries {
            let (Step::Read(state)
            | Step::Write(_, Some(state))
            | Step::CompareAndSet(state, ..)
            | Step::Delete(Deleted::Exactly(state))) = entry.call
            else {
                continue;
            };
            if let State::Int(number) = state {
                asked.insert(number);
            }
        }
        let unasked =
            (0..=asked.len() as i64).find(|number| !asked.contains(number)).expect("one more than are asked for");
        self.unasked = Some(unasked);
        for entry in entries {
            if let Step::Write(value, _) | Step::CompareAndSet(_, value, _) = &mut entry.call {
                if !asked.contains(value) {
                    *value = unasked;
                }
            }
        }
    }

    /// Whether a state stands for any value that nothing asks for.
    pub fn is_unasked(&self, state: State) -> bool {
        matches!((state, self.unasked), (State::Int(number), Some(unasked)) if number == unasked)
    }

    /// The elements of a list.
    pub fn elements(&self, list: u32) -> Vec<i64> {
        let mut elements = Vec::new();
        let mut node = list;
        while node != EMPTY {
            elements.push(self.lists[node as usize].element);
            node = self.lists[node as usize].parent;
        }
        elements.reverse();
        elements
    }

    fn append(&mut self, state: State, value: i64, told: Option<u64>) -> Option<State> {
        let node = match state {
            State::Absent => EMPTY,
            State::List(node) => node,
            State::Int(_) => return None,
        };
        let length = self.lists[node as usize].length;
        if told.is_some_and(|told| told != length + 1) {
            return None;
        }
        let next = self.append_order.as_ref().and_then(|order| order.get(length as usize));
        if next.is_some_and(|&next| next != value) {
            return None;
        }
        Some(State::List(self.child(node, value)))
    }
}

/// The longest list that was read, if only reads and appends are known: then every state is a beginning of it, or
/// begins with it.
fn append_order(operations: &[&Operation]) -> Option<Vec<i64>> {
    let mut longest: &[i64] = &[];
    for operation in operations {
        match (&operation.call, &operation.outcome) {
            (Call::Read, Outcome::Done { reply: Reply::Value(Some(Value::List(elements))), .. }) => {
                if elements.len() > longest.len() {
                    longest = elements;
                }
            }
            (_, Outcome::Failed { .. }) | (Call::Read | Call::Append(_), _) => {}
            _ => return None,
        }
    }
    Some(longest.to_vec())
}

fn sum(state: State, delta: i64) -> Option<i64> {
    match state {
        State::Absent => Some(delta),
        State::Int(number) => number.checked_add(delta),
        State::List(_) => None,
    }
}

impl Model for KeyModel {
    type State = State;
    type Call = Step;

    fn initial(&self) -> State {
        State::Absent
    }

    fn apply(&mut self, state: &State, call: &Step) -> Option<State> {
        let state = *state;
        match *call {
            Step::Read(seen) => (seen == state).then_some(state),
            Step::Write(value, seen) => seen.is_none_or(|seen| seen == state).then_some(State::Int(value)),
            Step::CompareAndSet(expected, new, swapped) => {
                let holds = expected == state;
                let told = swapped.is_none_or(|swapped| swapped == holds);
                told.then_some(if holds { State::Int(new) } else { state })
            }
            Step::Increment(delta, told) => {
                let sum = sum(state, delta)?;
                told.is_none_or(|told| told == sum).then_some(State::Int(sum))
            }
            Step::Append(value, told) => self.append(state, value, told),
            Step::Delete(deleted) => {
                let told = match deleted {
                    Deleted::Whatever => true,
                    Deleted::Something => state != State::Absent,
                    Deleted::Exactly(seen) => seen == state,
                };
                told.then_some(State::Absent)
            }
        }
    }

    fn is_read_only(&self, call: &Step) -> bool {
        matches!(
            call,
            Step::Read(_) | Step::CompareAndSet(_, _, Some(false)) | Step::Delete(Deleted::Exactly(State::Absent))
        )
    }

    fn needs(&self, call: &Step) -> Option<State> {
        match *call {
            Step::Read(seen) | Step::Delete(Deleted::Exactly(seen)) | Step::CompareAndSet(seen, _, Some(true)) => {
                Some(seen)
            }
            Step::Write(_, seen) => seen,
            // From nothing and from 0 an increment gives the same.
            Step::Increment(delta, Some(told)) => told.checked_sub(delta).filter(|&before| before != 0).map(State::Int),
            _ => None,
        }
    }

    fn gives(&self, call: &Step) -> Gives<State> {
        match *call {
            _ if self.is_read_only(call) => Gives::Nothing,
            Step::Write(value, _) | Step::CompareAndSet(_, value, _) => Gives::One(State::Int(value)),
            Step::Increment(_, Some(told)) => Gives::One(State::Int(told)),
            Step::Delete(_) => Gives::One(State::Absent),
            // What no read shows comes after all that they show, and leads to no list that one needs.
            Step::Append(value, _) if self.append_order.is_some() => {
                self.appended.get(&value).copied().unwrap_or(Gives::Nothing)
            }
            _ => Gives::Any,
        }
    }
}
