//! Why the process stops: a number for scripts, a cause, and a remedy for the person who reads it.
//!
//! Place in the flow: start-up (preflight, data directory, recovery, listeners) and the one failure that ends a running
//! node, a log write that did not succeed. A request that fails is none of these: it gets a typed reply.
//!
//! Invariant: a number never changes its meaning. `docs/OPERATIONS.md` lists them, and a test keeps the list equal.

use std::fmt;
use std::io::Write as _;

/// Why the process stops, as its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum StopReason {
    /// The configuration cannot be used.
    Usage = 2,
    /// The kernel is older than 6.1.
    KernelTooOld = 10,
    /// io_uring is switched off or refused.
    IoUringRefused = 11,
    /// The limit of locked memory is too small.
    LockedMemory = 12,
    /// The limit of open files is too small.
    OpenFiles = 13,
    /// The data directory cannot be used.
    DataDirectory = 14,
    /// Another process uses the data directory.
    DataDirectoryInUse = 15,
    /// The data directory belongs to another node, another configuration or a newer version.
    DataDirectoryForeign = 16,
    /// The log is damaged.
    LogDamaged = 17,
    /// An address cannot be listened on.
    Listen = 18,
    /// The disk is full.
    DiskFull = 19,
    /// A log write failed while the node was running.
    LogWriteFailed = 20,
    /// The wanted processors cannot be had.
    Processors = 21,
    /// The ring of a core failed while the node was running.
    RingFailed = 22,
    /// The password cannot be had.
    Password = 23,
}

impl StopReason {
    /// Every reason, by number.
    pub const ALL: [Self; 15] = [
        Self::Usage,
        Self::KernelTooOld,
        Self::IoUringRefused,
        Self::LockedMemory,
        Self::OpenFiles,
        Self::DataDirectory,
        Self::DataDirectoryInUse,
        Self::DataDirectoryForeign,
        Self::LogDamaged,
        Self::Listen,
        Self::DiskFull,
        Self::LogWriteFailed,
        Self::Processors,
        Self::RingFailed,
        Self::Password,
    ];

    /// The process's exit code.
    pub const fn exit_code(self) -> i32 {
        self as i32
    }

    /// One line for the list of exit codes.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Usage => "the configuration cannot be used",
            Self::KernelTooOld => "the kernel is older than 6.1",
            Self::IoUringRefused => "io_uring is switched off or refused",
            Self::LockedMemory => "the limit of locked memory is too small",
            Self::OpenFiles => "the limit of open files is too small",
            Self::DataDirectory => "the data directory cannot be used",
            Self::DataDirectoryInUse => "another process uses the data directory",
            Self::DataDirectoryForeign => {
                "the data directory belongs to another node, another configuration or a newer version"
            }
            Self::LogDamaged => "the log is damaged",
            Self::Listen => "an address cannot be listened on",
            Self::DiskFull => "the disk is full",
            Self::LogWriteFailed => "a log write failed while the node was running",
            Self::Processors => "the wanted processors cannot be had",
            Self::RingFailed => "the ring of a core failed while the node was running",
            Self::Password => "the password cannot be had",
        }
    }
}

impl Stop {
    /// Ends the process: says why on standard error, and leaves with the reason's number. From whatever thread notices
    /// it, since half a node is worse than none.
    pub fn end_process(&self) -> ! {
        // Nobody may be reading: the number is told all the same.
        let _: std::io::Result<()> = writeln!(std::io::stderr(), "eyot-server: {self}");
        std::process::exit(self.reason.exit_code());
    }
}

/// A reason with its details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Which of the numbered reasons.
    pub reason: StopReason,
    /// What exactly was found.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl Stop {
    /// A stop for `reason`.
    pub fn new(reason: StopReason, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason, cause: cause.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, cause, remedy } = self;
        write!(formatter, "{} (exit code {}): {cause}\n  remedy: {remedy}", reason.summary(), reason.exit_code())
    }
}

impl std::error::Error for Stop {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_summaries_are_distinct() {
        for (position, reason) in StopReason::ALL.iter().enumerate() {
            for other in &StopReason::ALL[..position] {
                assert!(other.exit_code() < reason.exit_code());
                assert_ne!(other.summary(), reason.summary());
            }
        }
    }

    #[test]
    fn a_stop_names_its_number_cause_and_remedy() {
        let text = Stop::new(StopReason::Listen, "127.0.0.1:6380: in use", "choose another --address").to_string();
        assert!(text.contains("exit code 18") && text.contains("in use") && text.contains("choose another"), "{text}");
    }
}
