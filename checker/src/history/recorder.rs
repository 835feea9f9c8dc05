//! Takes invocations and outcomes as they happen and makes a [`History`] of them.
//!
//! Place in the flow: whoever drives clients (the simulator, a load generator) owns one, tells it what happens, and
//! asks for the history at the end. The clock is the caller's.
//!
//! Invariant: an operation has one outcome; one that was told none is unknown.

use super::{Call, History, HistoryError, Key, Operation, Outcome, Process, Reply, Time};

/// Names an operation that was invoked: its position in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub usize);

/// Why an outcome was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecorderError {
    /// Nothing with this name was invoked.
    #[error("operation {} was never invoked; {count} were: use the name that `invoke` gave", id.0)]
    NeverInvoked {
        /// The name.
        id: OperationId,
        /// Operations invoked so far.
        count: usize,
    },
    /// It has its outcome.
    #[error("operation {} has ended at {} already: tell the first outcome only", id.0, at.0)]
    EndedBefore {
        /// The name.
        id: OperationId,
        /// When it ended.
        at: Time,
    },
}

/// A history that is being made.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    operations: Vec<Operation>,
}

impl Recorder {
    /// A process asks something; until its outcome is told, it is unknown.
    pub fn invoke(&mut self, process: Process, key: Key, call: Call, invoked: Time) -> OperationId {
        self.operations.push(Operation { process, key, call, invoked, outcome: Outcome::Unknown });
        OperationId(self.operations.len() - 1)
    }

    /// The operation was done.
    ///
    /// # Errors
    /// If it was never invoked, or has its outcome.
    pub fn done(&mut self, id: OperationId, at: Time, reply: Reply) -> Result<(), RecorderError> {
        self.end(id, Outcome::Done { at, reply })
    }

    /// The operation was not done, for certain, and never will be.
    ///
    /// # Errors
    /// If it was never invoked, or has its outcome.
    pub fn failed(&mut self, id: OperationId, at: Time) -> Result<(), RecorderError> {
        self.end(id, Outcome::Failed { at })
    }

    fn end(&mut self, id: OperationId, outcome: Outcome) -> Result<(), RecorderError> {
        let count = self.operations.len();
        let operation = self.operations.get_mut(id.0).ok_or(RecorderError::NeverInvoked { id, count })?;
        if let Some(at) = operation.outcome.at() {
            return Err(RecorderError::EndedBefore { id, at });
        }
        operation.outcome = outcome;
        Ok(())
    }

    /// What was recorded.
    ///
    /// # Errors
    /// The first rule of recording that is broken.
    pub fn history(self) -> Result<History, HistoryError> {
        History::new(self.operations)
    }
}
