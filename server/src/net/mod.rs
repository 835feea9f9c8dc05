//! Connections: bytes in, requests out; results in, bytes out.
//!
//! Place in the flow: steps 1 (accept), 2 (decode) and 9 (reply).

pub mod connection;
pub mod connections;
pub mod listener;
pub mod ordered;
pub mod output;
pub mod session;
