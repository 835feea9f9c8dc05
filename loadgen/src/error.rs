//! Why a run could not be started, and the numbers that a run ends with.
//!
//! Place in the flow: what goes wrong before the load begins is a [`LoadError`]; what goes wrong under load is counted
//! and reported (see `measure`), and decides the exit code with everything else.

use std::io;
use std::net::SocketAddr;

/// All requests were answered, none with an error.
pub const EXIT_OK: u8 = 0;
/// The server answered some requests with an error.
pub const EXIT_SERVER_ERRORS: u8 = 1;
/// Wrong usage.
pub const EXIT_USAGE: u8 = 2;
/// Cannot connect, or the server refused HELLO or the password.
pub const EXIT_CANNOT_CONNECT: u8 = 3;
/// A connection was lost, or a request was not answered in time.
pub const EXIT_CONNECTION_LOST: u8 = 4;
/// `--verify` found a wrong, torn, stale or missing value.
pub const EXIT_VERIFICATION: u8 = 5;
/// This machine refuses what the load generator needs.
pub const EXIT_MACHINE: u8 = 6;

/// Why a run could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Options that make no sense, alone or together, or with this server.
    #[error("{0}")]
    Usage(String),
    /// The address could not be resolved.
    #[error("cannot resolve {address}: {error}; give --address as HOST:PORT")]
    Resolve {
        /// What was given.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// A connection could not be made.
    #[error("cannot connect client {client} to {address}: {error}; is the server running there, and is the limit of open files (ulimit -n) above the number of connections?")]
    Connect {
        /// Which client.
        client: usize,
        /// Whereto.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The server does not take the password.
    #[error("client {client} cannot authenticate at {address}: {message}")]
    Authentication {
        /// Which client.
        client: usize,
        /// Which server.
        address: SocketAddr,
        /// What it said.
        message: String,
    },
    /// The server did not answer HELLO as it should.
    #[error("HELLO to {address} failed: {message}; does it speak Eyot's native protocol?")]
    Hello {
        /// Which server.
        address: SocketAddr,
        /// What happened.
        message: String,
    },
    /// The server did not answer CLUSTER SLOTS as it should.
    #[error("CLUSTER SLOTS to {address} failed: {message}; is it an Eyot node or a Redis cluster?")]
    Slots {
        /// Which server.
        address: SocketAddr,
        /// What happened.
        message: String,
    },
    /// No ring.
    #[error("cannot make an io_uring: {0}; Linux 6.1 or newer is needed, and io_uring must be allowed (sysctl kernel.io_uring_disabled, seccomp, memlock limit)")]
    Ring(io::Error),
    /// A thread could not be pinned or started.
    #[error("cannot {what}: {error}")]
    Thread {
        /// What was tried.
        what: String,
        /// Why not.
        error: io::Error,
    },
    /// The report could not be written.
    #[error("cannot write {path}: {error}")]
    Output {
        /// The file.
        path: String,
        /// Why not.
        error: io::Error,
    },
}

impl LoadError {
    /// What the process ends with.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Output { .. } | Self::Thread { .. } => EXIT_USAGE,
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Authentication { .. }
            | Self::Hello { .. }
            | Self::Slots { .. } => EXIT_CANNOT_CONNECT,
            Self::Ring(_) => EXIT_MACHINE,
        }
    }
}
