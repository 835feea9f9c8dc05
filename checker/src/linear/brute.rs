//! The definition of linearizability, tried out: for histories of a few operations, to hold the checkers against. It
//! shares nothing with them, not even what the calls mean.

use crate::history::{Call, Operation, Outcome, Reply, Value};

/// Whether some order explains every reply, by trying all of them.
pub fn explains(operations: &[Operation]) -> bool {
    let happened = |operation: &&Operation| !matches!(operation.outcome, Outcome::Failed { .. });
    let operations: Vec<&Operation> = operations.iter().filter(happened).collect();
    from(&operations, None, &mut vec![false; operations.len()])
}

fn from(operations: &[&Operation], state: Option<&Value>, placed: &mut [bool]) -> bool {
    let left: Vec<usize> = (0..operations.len()).filter(|&position| !placed[position]).collect();
    if left.iter().all(|&position| operations[position].outcome == Outcome::Unknown) {
        return true;
    }
    left.iter().any(|&position| {
        let invoked = operations[position].invoked;
        let must_wait = left.iter().any(|&other| operations[other].outcome.at().is_some_and(|at| at < invoked));
        let Some((after, _)) = effect(state, operations[position]).filter(|_| !must_wait) else { return false };
        placed[position] = true;
        let explained = from(operations, after.as_ref(), placed);
        placed[position] = false;
        explained
    })
}

/// What the key holds afterwards, and what could be replied; `None` if the operation cannot have taken effect here.
fn effect(state: Option<&Value>, operation: &Operation) -> Option<(Option<Value>, Vec<Reply>)> {
    let shown = Reply::Value(state.cloned());
    let (after, replies) = match operation.call {
        Call::Read => (state.cloned(), vec![shown]),
        Call::Write(value) => (Some(Value::Int(value)), vec![Reply::Acknowledged, shown]),
        Call::CompareAndSet { expected, new } => {
            let holds = state == expected.map(Value::Int).as_ref();
            (if holds { Some(Value::Int(new)) } else { state.cloned() }, vec![Reply::Swapped(holds)])
        }
        Call::Increment(delta) => {
            let sum = match state {
                None => delta,
                Some(Value::Int(number)) => number + delta,
                Some(Value::List(_)) => return None,
            };
            (Some(Value::Int(sum)), vec![Reply::Acknowledged, Reply::Number(sum)])
        }
        Call::Append(value) => {
            let mut list = match state {
                None => Vec::new(),
                Some(Value::List(list)) => list.clone(),
                Some(Value::Int(_)) => return None,
            };
            list.push(value);
            let length = list.len() as u64;
            (Some(Value::List(list)), vec![Reply::Acknowledged, Reply::Length(length)])
        }
        Call::Delete => (None, vec![Reply::Acknowledged, Reply::Existed(state.is_some()), shown]),
    };
    match &operation.outcome {
        Outcome::Done { reply, .. } if !replies.contains(&as_shown(reply)) => None,
        _ => Some((after, replies)),
    }
}

/// A reply in the one form that `effect` gives it: an empty list is an absent key.
fn as_shown(reply: &Reply) -> Reply {
    match reply {
        Reply::Value(Some(Value::List(list))) if list.is_empty() => Reply::Value(None),
        reply => reply.clone(),
    }
}
