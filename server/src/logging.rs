//! Log lines: text or JSON, on standard error, so that standard output is the start-up banner's.
//!
//! Place in the flow: set up once by `main`. The request path logs nothing at the default level.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::error::{Stop, StopReason};

/// Sets up logging for the process.
///
/// # Errors
/// [`StopReason::Usage`] for a level that does not parse.
pub fn set_up(format: LogFormat, level: &str) -> Result<(), Stop> {
    let filter = EnvFilter::try_new(level).map_err(|error| {
        Stop::new(StopReason::Usage, format!("--log-level {level:?}: {error}"), "use error, warn, info, debug or trace")
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A log that nobody reads any more is no reason to end: to say so would panic, on standard error.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}
