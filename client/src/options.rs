//! Every setting of the client, with its default and its bounds.
//!
//! Place in the flow: read when a client connects and at every call.

use std::time::Duration;

use eyot_protocol::command::Condition;
use eyot_protocol::credentials::Password;
use eyot_protocol::limits::{FRAME_OVERHEAD_BYTES, MAX_VALUE_BYTES};
use eyot_protocol::request::{AckLevel, Expiry, ReadLevel};
use eyot_protocol::ErrorCode;

use crate::error::Error;
use crate::retry::RetryPolicy;

/// Most requests in flight on one connection that may be configured: request ids must stay far from wrapping around.
pub const MAX_IN_FLIGHT_LIMIT: usize = 65_536;
/// Most connections to one address that may be configured: more of them cost the server memory and gain nothing, since
/// one connection carries many requests.
pub const MAX_POOL_SIZE: usize = 64;
/// Longest timeout that may be configured (one day): a longer one is a mistake in the unit.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How a client connects, waits, routes and retries.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How long opening one connection may take. Default 3 s.
    pub connect_timeout: Duration,
    /// How long one call may take in all: waiting for room, connecting again, retries and the reply. Default 5 s.
    pub request_timeout: Duration,
    /// Most requests in flight on one connection; further ones wait. Default 1,024.
    pub max_in_flight: usize,
    /// Connections to each address. Default 1: one carries many requests.
    pub pool_size: usize,
    /// Send each key to the core that owns it, on that core's own address. Default on. Off: everything goes to the
    /// address that was given, and the server forwards.
    pub routing: bool,
    /// Which failures are tried again.
    pub retry: RetryPolicy,
    /// When the reply to a write leaves, unless the call says otherwise. Default: as the server is configured.
    pub ack: AckLevel,
    /// How fresh reads must be. Default: linearizable.
    pub read: ReadLevel,
    /// Tell the server how long a call still has, so that it does not execute what nobody waits for. Default on.
    pub send_deadline: bool,
    /// Longest reply frame that is taken. Default: the longest value of the protocol with its frame.
    pub max_reply_bytes: usize,
    /// The name in the server's logs and statistics.
    pub client_name: String,
    /// The server's password: sent with HELLO on each connection. Default: none. It travels as it is: without TLS, over
    /// a trusted network only.
    pub password: Option<Password>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(5),
            max_in_flight: 1_024,
            pool_size: 1,
            routing: true,
            retry: RetryPolicy::default(),
            ack: AckLevel::Default,
            read: ReadLevel::Linearizable,
            send_deadline: true,
            max_reply_bytes: MAX_VALUE_BYTES + FRAME_OVERHEAD_BYTES,
            client_name: concat!("eyot-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            password: None,
        }
    }
}

impl Options {
    /// Checks the bounds.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |message: String| Err(Error::invalid(ErrorCode::InvalidArgument, message));
        for (name, timeout) in [("connect_timeout", self.connect_timeout), ("request_timeout", self.request_timeout)] {
            if timeout < Duration::from_millis(1) || timeout > MAX_TIMEOUT {
                return refuse(format!("{name} of {timeout:?}; give 1 ms to {} s", MAX_TIMEOUT.as_secs()));
            }
        }
        for (name, value, limit) in
            [("max_in_flight", self.max_in_flight, MAX_IN_FLIGHT_LIMIT), ("pool_size", self.pool_size, MAX_POOL_SIZE)]
        {
            if value == 0 || value > limit {
                return refuse(format!("{name} of {value}; give 1 to {limit}"));
            }
        }
        if self.retry.first_pause > MAX_TIMEOUT || self.retry.max_pause > MAX_TIMEOUT {
            return refuse(format!("retry pauses; give at most {} s", MAX_TIMEOUT.as_secs()));
        }
        if self.retry.max_attempts == 0 {
            return refuse("retry.max_attempts of 0; the first attempt counts, give at least 1".to_owned());
        }
        Ok(())
    }
}

/// What may accompany a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetOptions {
    /// When the key ceases to exist.
    pub expiry: Expiry,
    /// When to store at all.
    pub condition: Condition,
    /// When the reply leaves; `None`: as [`Options::ack`] says.
    pub ack: Option<AckLevel>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_the_bounds() {
        assert_eq!(Options::default().check(), Ok(()));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let cases = [
            ("max_in_flight", Options { max_in_flight: 0, ..Options::default() }),
            ("max_in_flight", Options { max_in_flight: MAX_IN_FLIGHT_LIMIT + 1, ..Options::default() }),
            ("pool_size", Options { pool_size: 0, ..Options::default() }),
            ("request_timeout", Options { request_timeout: Duration::ZERO, ..Options::default() }),
            ("connect_timeout", Options { connect_timeout: MAX_TIMEOUT * 2, ..Options::default() }),
            (
                "max_attempts",
                Options { retry: RetryPolicy { max_attempts: 0, ..RetryPolicy::default() }, ..Options::default() },
            ),
        ];
        for (name, options) in cases {
            let message = options.check().expect_err(name).to_string();
            assert!(message.contains(name), "{name} in {message:?}");
        }
    }
}
