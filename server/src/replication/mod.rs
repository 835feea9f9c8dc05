//! A shard with its log: commands become entries, entries become state, state becomes replies.
//!
//! Place in the flow: steps 5 to 8. The core hands commands in ([`ShardDriver::write`], [`ShardDriver::read`]), takes
//! the turn's entry for the write-ahead log ([`ShardDriver::seal`]), and says what is durable
//! ([`ShardDriver::persisted`]); what is committed is then applied and answered.
//!
//! Invariants:
//! - Pure: no I/O, no clock; state changes only when a committed entry is applied.
//! - A write is answered after its entry was applied; with acknowledgement `memory`, an unconditional SET after its
//!   entry was handed to the log.
//! - A read sees every write that was acknowledged before it, and every earlier write of its own connection, and none
//!   of its connection's later ones: where such an earlier write is not applied yet, the read waits for it, and the
//!   writes that come after the read go into another entry.

mod answers;
mod cost;
mod driver;
mod foreseen;
mod unapplied;

#[cfg(test)]
mod tests;

pub use cost::{Cost, MAX_ENTRY_TOUCHED_BYTES};
pub use driver::{Read, ReadProgress, Sealed, ShardDriver, WriteAck, MAX_ENTRY_BYTES};
pub use foreseen::{UnappliedMemory, EVICTIONS_IN_FLIGHT_MAX};
