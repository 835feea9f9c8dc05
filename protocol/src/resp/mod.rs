//! RESP2 and RESP3: the protocol of Redis and its clients (port 6379).
//!
//! Place in the flow: step 2 (decode) splits a request off the received bytes and parses it, step 9 (reply) writes the
//! replies. The requests end in the same engine as those of the native protocol.
//!
//! ```text
//! request   *<count>\r\n  then count times  $<length>\r\n<bytes>\r\n          (multibulk)
//!           or one line of words, quoted as a shell would                    (inline)
//!
//! received bytes --split_request--> Args --parse--> RespRequest --> engine --> Writer --> bytes
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`], [`decode`], `inline` | a request's arguments, and finding them in the stream |
//! | [`table`] | the one table of commands: names, arity, keys, access, documentation |
//! | [`mod@parse`], [`request`] | from arguments to typed requests |
//! | [`writer`] | replies in both versions of the protocol |
//! | [`command_reply`] | replies of COMMAND and of HELP, written from the table |
//! | [`glob`], [`number`], [`error`] | Redis's patterns, numbers and error lines |
//!
//! Invariants:
//! - What a client sees is what Redis 7.0 would answer, error lines included; `docs/RESP.md` lists the differences.
//! - Nothing is believed before it was compared with a limit, and no bytes make this code panic.
//! - A request of one key is split and parsed without an allocation.
//!
//! It deliberately knows no connection: what a client was told before (its version, its name) is the caller's.

pub mod args;
pub mod command_reply;
pub mod decode;
pub mod error;
pub mod glob;
mod inline;
pub mod number;
pub mod parse;
pub mod request;
pub mod table;
#[cfg(test)]
mod tests;
pub mod writer;

pub use args::{ArgList, Args, RequestSpans};
pub use decode::{split_request, BigBulk, RespLimits, Split, Unfinished};
pub use error::{error_line, RespError};
pub use parse::{parse, parse_unauthenticated};
pub use request::{Combine, Parsed, RespRequest, Shape};
pub use table::{CommandId, CommandSpec, COMMANDS};
pub use writer::{RespVersion, Writer};
