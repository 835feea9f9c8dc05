//! CONFIG GET and SET: the settings of the node under the names that Redis gave them.
//!
//! Place in the flow: step 5 of CONFIG, on the core that was asked; the values reach the others through
//! [`ServerTunables`] and [`MemoryTunables`].
//!
//! Three kinds of parameters: what can be changed while the node runs, what tells a fact of this node, and what Redis
//! can do and Eyot does not, told by the value that means so (`save` is empty). Parameters that would be neither are
//! not known here, so that nobody sets one and believes in it.
//!
//! Invariants:
//! - A CONFIG SET is checked whole before any of it takes effect.
//! - A fact may be set to the value that it has, which tools do, and to no other.
//! - Errors have the words of Redis 7.0.
//!
//! Deliberately not here: what a value does, and keeping it: a setting that is to stay is a flag of the next start.

mod parameters;
#[cfg(test)]
mod tests;
mod values;

pub use parameters::POLICY_NAMES;

use std::net::SocketAddr;

use eyot_protocol::resp::glob::{matches_ignoring_case, PATTERN_STEPS_MAX};
use eyot_protocol::resp::{Args, RespError, Writer};

use self::parameters::{Parameter, Rule, PARAMETERS};
use self::values::Value;
use crate::config::{ServerTunables, Settings};

/// What may be changed of memory. A seam, since what holds these values is not this module's.
pub trait MemoryTunables: std::fmt::Debug {
    /// Limit of the node's memory in bytes; 0: none.
    fn max_memory_bytes(&self) -> u64;
    /// Changes it.
    fn set_max_memory_bytes(&self, bytes: u64);
    /// The place of the eviction policy in [`POLICY_NAMES`].
    fn policy(&self) -> u8;
    /// Changes it.
    fn set_policy(&self, policy: u8);
    /// Keys that are compared for one eviction.
    fn samples(&self) -> u32;
    /// Changes it.
    fn set_samples(&self, samples: u32);
    /// How slowly the frequency counter of a key grows.
    fn lfu_log_factor(&self) -> u32;
    /// Changes it.
    fn set_lfu_log_factor(&self, factor: u32);
    /// Minutes after which a key's frequency counter is lowered by one; 0: never.
    fn lfu_decay_minutes(&self) -> u32;
    /// Changes it.
    fn set_lfu_decay_minutes(&self, minutes: u32);
}

/// What the parameters are read from and written to.
#[derive(Debug, Clone, Copy)]
pub struct ConfigContext<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// What can be changed of clients and logs.
    pub tunables: &'a ServerTunables,
    /// What can be changed of memory.
    pub memory: &'a dyn MemoryTunables,
    /// Where the Redis protocol is listened for.
    pub resp_address: SocketAddr,
    /// Connections that the limit of open files leaves room for: `preflight::connections_possible`.
    pub clients_possible: u64,
    /// Whether cores are shown as the nodes of a cluster.
    pub cluster_enabled: bool,
}

/// CONFIG GET: names and values of the parameters that `patterns` describe, each once.
pub fn get(context: &ConfigContext<'_>, patterns: Args<'_>, reply: &mut Writer<'_>) {
    let mut steps = PATTERN_STEPS_MAX;
    let mut told: Vec<&Parameter> = Vec::new();
    for parameter in PARAMETERS {
        for pattern in patterns.iter() {
            match matches_ignoring_case(pattern, parameter.name.as_bytes(), &mut steps) {
                Some(false) => {}
                Some(true) => {
                    told.push(parameter);
                    break;
                }
                None => return reply.error("ERR comparing names with the patterns takes too long; ask for less"),
            }
        }
    }
    reply.map(told.len());
    for parameter in told {
        reply.bulk_text(parameter.name);
        reply.bulk_text(&parameter.get(context));
    }
}

/// CONFIG SET: changes all of `pairs`, names and values in turn, or none.
///
/// # Errors
/// The line of Redis that names the first argument that will not do.
pub fn set(context: &ConfigContext<'_>, pairs: Args<'_>) -> Result<(), RespError> {
    let mut found: Vec<(&Parameter, &[u8])> = Vec::with_capacity(pairs.len() / 2);
    for (name, value) in pairs.pairs() {
        let known = |parameter: &&Parameter| parameter.name.as_bytes().eq_ignore_ascii_case(name);
        let Some(parameter) = PARAMETERS.iter().find(known) else {
            let name = String::from_utf8_lossy(name);
            return Err(RespError::text(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            )));
        };
        if matches!(parameter.rule, Rule::Immutable) {
            return Err(refused(parameter, "can't set immutable config"));
        }
        if found.iter().any(|(other, _)| std::ptr::eq(*other, parameter)) {
            return Err(refused(parameter, "duplicate parameter"));
        }
        found.push((parameter, value));
    }
    let mut checked: Vec<(&Parameter, Value)> = Vec::with_capacity(found.len());
    for (parameter, value) in found {
        checked.push((parameter, parameter.check(context, value).map_err(|problem| refused(parameter, &problem))?));
    }
    for (parameter, value) in checked {
        parameter.store(context, value);
    }
    Ok(())
}

#[cold]
fn refused(parameter: &Parameter, problem: &str) -> RespError {
    let name = parameter.name;
    RespError::text(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {problem}"))
}
