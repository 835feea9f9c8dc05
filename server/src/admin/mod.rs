//! x
pub mod client_list;
pub mod cluster;
pub mod config_names;
pub mod figures;
pub mod greeting;
pub mod identifier;
pub mod info;
pub mod latency;
pub mod memory_reply;
pub mod process;
pub mod slowlog;
#[cfg(test)]
mod words;

use eyot_protocol::resp::COMMANDS;

/// The version of Redis whose replies these are.
pub const COMPATIBLE_VERSION: &str = "7.0.15";

/// The name of the command at `place` of the protocol's table.
pub fn command_name(place: usize) -> &'static str {
    COMMANDS[place].name
}
