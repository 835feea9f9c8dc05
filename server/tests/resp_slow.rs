//! Slow and hostile clients over RESP: what they take from the others, and where the server draws its lines.
//!
//! Place in the flow: steps 1 (accept), 2 (decode) and 9 (reply) from outside.
//!
//! | module | |
//! |---|---|
//! | `bounds` | requests that are work without end, and what the others notice of them |
//! | `crowd` | clients that do not read, hardly read, say nothing or never stop, beside clients as they should be |
//! | `limits` | where a connection ends: errors of the protocol, sizes, limits, CLIENT KILL |
//! | `slow_log` | commands that take long: what SLOWLOG, LATENCY and INFO tell of them |
//!
//! `EYOT_SLOW_FULL=1` takes the numbers of the promise (10,000 idle clients and so on), pins the server and the clients
//! to processors of their own where there are two, and holds the measured p99 against its quiet value. Without it the
//! numbers are small and nothing is asserted about time.

mod support;

#[path = "resp/bounds.rs"]
mod bounds;
#[path = "resp/crowd.rs"]
mod crowd;
#[path = "resp/limits.rs"]
mod limits;
#[path = "resp/slow_log.rs"]
mod slow_log;
