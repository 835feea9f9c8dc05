//! The line of an operation on one key.
//!
//! ```text
//! {"p":3,"k":7,"f":"cas","a":[5,6],"t":[300,310],"v":true}
//!
//! p  process                   f  read, write, cas, incr, append, delete
//! k  key                       a  argument: what is written, added, appended; of cas [expected or null, new]
//! t  [invoked, replied], or [invoked] if the outcome is unknown
//! v  the reply: a number, a list, null (absent), true or false; not there if it was only acknowledged
//! failed  true if the operation had no effect, for certain; else not there
//! ```
//!
//! Place in the flow: `lines` calls it for each line.
//!
//! Invariant: members stand in the order above, and no other members are read.

use serde::{Deserialize, Serialize};

use super::{misfit, parse_json, present, write_json, Record, Times};
use crate::history::{Call, Key, Operation, Outcome, Process, Reply, Time, Value};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    p: u32,
    k: u64,
    f: Function,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<Argument>,
    t: Times,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    v: Option<Shown>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Function {
    Read,
    Write,
    Cas,
    Incr,
    Append,
    Delete,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Argument {
    One(i64),
    Swap(Option<i64>, i64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Shown {
    Absent(()),
    Flag(bool),
    Number(i64),
    Length(u64),
    List(Vec<i64>),
}

impl Record for Operation {
    const OF: &'static str = "operations";

    fn parse(line: &[u8]) -> Result<Self, String> {
        let line: Line = parse_json(line)?;
        let call = call(line.f, line.a)?;
        let (invoked, at) = match line.t {
            Times::Both([invoked, at]) => (invoked, Some(at)),
            Times::Invoked([invoked]) => (invoked, None),
        };
        let outcome = match (at, line.failed, line.v) {
            (Some(at), false, shown) => Outcome::Done { at: Time(at), reply: reply(call, shown)? },
            (Some(at), true, None) => Outcome::Failed { at: Time(at) },
            (None, false, None) => Outcome::Unknown,
            (_, true, Some(shown)) => return Err(misfit("a failed operation has no reply", shown)),
            (None, true, None) => return Err("a failed operation has two times, not one".to_owned()),
            (None, false, Some(shown)) => return Err(misfit("without the time of a reply there is none", shown)),
        };
        Ok(Operation { process: Process(line.p), key: Key(line.k), call, invoked: Time(invoked), outcome })
    }

    fn write(&self, line: &mut Vec<u8>) {
        let (function, argument) = match self.call {
            Call::Read => (Function::Read, None),
            Call::Write(value) => (Function::Write, Some(Argument::One(value))),
            Call::CompareAndSet { expected, new } => (Function::Cas, Some(Argument::Swap(expected, new))),
            Call::Increment(delta) => (Function::Incr, Some(Argument::One(delta))),
            Call::Append(value) => (Function::Append, Some(Argument::One(value))),
            Call::Delete => (Function::Delete, None),
        };
        let shown = match &self.outcome {
            Outcome::Done { reply, .. } => shown(reply),
            Outcome::Failed { .. } | Outcome::Unknown => None,
        };
        let times = match self.outcome.at() {
            Some(at) => Times::Both([self.invoked.0, at.0]),
            None => Times::Invoked([self.invoked.0]),
        };
        let failed = matches!(self.outcome, Outcome::Failed { .. });
        write_json(
            line,
            &Line { p: self.process.0, k: self.key.0, f: function, a: argument, t: times, v: shown, failed },
        );
    }
}

fn call(function: Function, argument: Option<Argument>) -> Result<Call, String> {
    match (function, argument) {
        (Function::Read, None) => Ok(Call::Read),
        (Function::Delete, None) => Ok(Call::Delete),
        (Function::Write, Some(Argument::One(value))) => Ok(Call::Write(value)),
        (Function::Incr, Some(Argument::One(delta))) => Ok(Call::Increment(delta)),
        (Function::Append, Some(Argument::One(value))) => Ok(Call::Append(value)),
        (Function::Cas, Some(Argument::Swap(expected, new))) => Ok(Call::CompareAndSet { expected, new }),
        (Function::Read | Function::Delete, Some(argument)) => Err(misfit("this function has no argument", argument)),
        (Function::Cas, argument) => Err(misfit("the argument of cas is [expected or null, new]", argument)),
        (_, argument) => Err(misfit("the argument is one number", argument)),
    }
}

fn reply(call: Call, shown: Option<Shown>) -> Result<Reply, String> {
    Ok(match (call, shown) {
        (Call::Read, None) => return Err("a read that was answered shows a value or null".to_owned()),
        (_, None) => Reply::Acknowledged,
        (Call::CompareAndSet { .. }, Some(Shown::Flag(swapped))) => Reply::Swapped(swapped),
        (Call::Delete, Some(Shown::Flag(existed))) => Reply::Existed(existed),
        (Call::Increment(_), Some(Shown::Number(sum))) => Reply::Number(sum),
        (Call::Append(_), Some(Shown::Length(length))) => Reply::Length(length),
        (Call::Append(_), Some(Shown::Number(length))) => {
            Reply::Length(u64::try_from(length).map_err(|_| misfit("a length is not negative", length))?)
        }
        (Call::Read | Call::Write(_) | Call::Delete, Some(Shown::Absent(()))) => Reply::Value(None),
        (Call::Read | Call::Write(_) | Call::Delete, Some(Shown::Number(number))) => {
            Reply::Value(Some(Value::Int(number)))
        }
        (Call::Read | Call::Write(_) | Call::Delete, Some(Shown::List(list))) => Reply::Value(Some(Value::List(list))),
        (call, Some(shown)) => return Err(misfit(&format!("the reply must fit: {call}"), shown)),
    })
}

fn shown(reply: &Reply) -> Option<Shown> {
    Some(match reply {
        Reply::Acknowledged => return None,
        Reply::Value(None) => Shown::Absent(()),
        Reply::Value(Some(Value::Int(number))) | Reply::Number(number) => Shown::Number(*number),
        Reply::Value(Some(Value::List(list))) => Shown::List(list.clone()),
        Reply::Swapped(flag) | Reply::Existed(flag) => Shown::Flag(*flag),
        Reply::Length(length) => Shown::Length(*length),
    })
}
