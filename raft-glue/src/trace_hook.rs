//! What the consensus library says about itself, handed to whoever listens.
//!
//! Place in the flow: beside step 7. Without a listener every line is thrown away before it is formatted.
//!
//! Deliberately not here: where lines go; this crate does no I/O.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TraceLevel {
    /// The library is about to give up: a broken invariant.
    Critical,
    /// Something failed.
    Error,
    /// Something is odd.
    Warning,
    /// Elections, membership, snapshots.
    Info,
    /// Every message; only in builds without optimisation.
    Debug,
}

/// Takes the lines. It is called in the middle of a step and must not call back.
pub trait TraceHook: Send + Sync + UnwindSafe + RefUnwindSafe {
    /// Whether lines of this level are wanted.
    fn wants(&self, level: TraceLevel) -> bool;
    /// One line, with what belongs to it.
    fn line(&self, level: TraceLevel, message: &fmt::Arguments<'_>);
}

struct Drain(Arc<dyn TraceHook>);

fn level_of(level: slog::Level) -> TraceLevel {
    match level {
        slog::Level::Critical => TraceLevel::Critical,
        slog::Level::Error => TraceLevel::Error,
        slog::Level::Warning => TraceLevel::Warning,
        slog::Level::Info => TraceLevel::Info,
        slog::Level::Debug | slog::Level::Trace => TraceLevel::Debug,
    }
}

impl slog::Drain for Drain {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        let level = level_of(record.level());
        if self.0.wants(level) {
            self.0.line(level, record.msg());
        }
        Ok(())
    }

    fn is_enabled(&self, level: slog::Level) -> bool {
        self.0.wants(level_of(level))
    }
}

pub(crate) fn logger(hook: Option<Arc<dyn TraceHook>>) -> slog::Logger {
    match hook {
        Some(hook) => slog::Logger::root(Drain(hook), slog::o!()),
        None => slog::Logger::root(slog::Discard, slog::o!()),
    }
}
