//! The line of a transaction on lists.
//!
//! ```text
//! {"p":1,"t":[0,10],"x":[["read",7,[1,2]],["append",7,3]]}
//!
//! p  process
//! t  [began, ended], or [began] if the outcome is unknown
//! x  the steps, in order: ["append",key,element], ["read",key,list], or ["read",key] where nobody was told the list
//! aborted  true if nothing of it was done, for certain; else not there
//! ```
//!
//! Place in the flow: `lines` calls it for each line.
//!
//! Invariant: members stand in the order above, and no other members are read.

use serde::{Deserialize, Serialize};

use super::{misfit, parse_json, write_json, Record, Times};
use crate::history::{Key, Process, Time};
use crate::transactions::{End, Step, Transaction};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    p: u32,
    t: Times,
    x: Vec<StepLine>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    aborted: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum StepLine {
    Told(Function, u64, Argument),
    Asked(Function, u64),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Function {
    Append,
    Read,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Argument {
    Element(i64),
    List(Vec<i64>),
}

impl Record for Transaction {
    const OF: &'static str = "transactions";

    fn parse(line: &[u8]) -> Result<Self, String> {
        let line: Line = parse_json(line)?;
        let (invoked, end) = match (line.t, line.aborted) {
            (Times::Both([invoked, at]), false) => (invoked, End::Committed { at: Time(at) }),
            (Times::Both([invoked, at]), true) => (invoked, End::Aborted { at: Time(at) }),
            (Times::Invoked([invoked]), false) => (invoked, End::Unknown),
            (Times::Invoked(_), true) => return Err("an aborted transaction has two times, not one".to_owned()),
        };
        let steps = line.x.into_iter().map(step).collect::<Result<_, _>>()?;
        Ok(Transaction { process: Process(line.p), steps, invoked: Time(invoked), end })
    }

    fn write(&self, line: &mut Vec<u8>) {
        let steps = self.steps.iter().map(|step| match step {
            Step::Append { key, element } => StepLine::Told(Function::Append, key.0, Argument::Element(*element)),
            Step::Read { key, list: Some(list) } => StepLine::Told(Function::Read, key.0, Argument::List(list.clone())),
            Step::Read { key, list: None } => StepLine::Asked(Function::Read, key.0),
        });
        let times = match self.end.at() {
            Some(at) => Times::Both([self.invoked.0, at.0]),
            None => Times::Invoked([self.invoked.0]),
        };
        let aborted = matches!(self.end, End::Aborted { .. });
        write_json(line, &Line { p: self.process.0, t: times, x: steps.collect(), aborted });
    }
}

fn step(line: StepLine) -> Result<Step, String> {
    match line {
        StepLine::Told(Function::Append, key, Argument::Element(element)) => {
            Ok(Step::Append { key: Key(key), element })
        }
        StepLine::Told(Function::Read, key, Argument::List(list)) => Ok(Step::Read { key: Key(key), list: Some(list) }),
        StepLine::Asked(Function::Read, key) => Ok(Step::Read { key: Key(key), list: None }),
        other => Err(misfit("a step is [\"append\",key,element], [\"read\",key,list] or [\"read\",key]", other)),
    }
}
