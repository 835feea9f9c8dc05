//! Whether a write may enter: the policy, as a decision.
//!
//! Place in the flow: step 3 (admit), on the core that executes. Reads always enter: they take no memory that stays.
//!
//! Invariant: what is refused here was not applied and never will be, so its error may be retried.

use eyot_protocol::ErrorCode;

/// Bytes that may be appended to a core's log and not yet be on disk. Beyond it the disk is that far behind: at 500
/// MB/s, this takes more than 100 ms to write.
pub const MAX_PENDING_LOG_BYTES: usize = 64 << 20;
/// What block padding and headers may add to the bytes of two batches, with room to spare.
pub const LOG_SLACK_BYTES: u64 = 64 * 1024;

/// What a write is refused with on a full disk.
pub const DISK_IS_FULL: &str = "the disk is full; not applied. Reads go on; writes come back when space does";

/// What the decision is made from. All of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteBudget {
    /// Memory of keys, values and tables now.
    pub memory_bytes: u64,
    /// The core's share of the memory limit; `u64::MAX`: no limit.
    pub memory_limit_bytes: u64,
    /// Bytes appended to the log, or waiting to be, that are not on disk.
    pub pending_log_bytes: usize,
    /// Bytes that the log's existing segments still have room for.
    pub writable_log_bytes: u64,
    /// Why the last attempt to make a new segment failed, if it did.
    pub blocked: Option<LogBlock>,
}

/// Why the log cannot be extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogBlock {
    /// For want of space.
    DiskFull,
    /// For any other reason; the server's own log names it.
    Failing,
}

impl WriteBudget {
    /// Whether a write of `bytes` (key and value; 0 for a delete) may enter.
    ///
    /// # Errors
    /// The code of the refusal and what to do about it.
    #[inline]
    pub fn admit(&self, bytes: usize) -> Result<(), (ErrorCode, &'static str)> {
        // What waits for the disk will be memory when it is applied.
        let memory_bytes = self.memory_bytes + (self.pending_log_bytes + bytes) as u64;
        if bytes > 0 && memory_bytes > self.memory_limit_bytes {
            return Err((
                ErrorCode::OutOfMemory,
                "the memory limit is reached; not applied. Delete keys, or raise --max-memory",
            ));
        }
        // The last one to enter may pass the bound: however large a value, it is not starved by small ones.
        if self.pending_log_bytes >= MAX_PENDING_LOG_BYTES {
            return Err((ErrorCode::Busy, "the log is behind; not applied. Retry with backoff"));
        }
        let fits = (self.pending_log_bytes + bytes) as u64 + LOG_SLACK_BYTES <= self.writable_log_bytes;
        match self.blocked {
            Some(LogBlock::DiskFull) if !fits => Err((ErrorCode::NoSpace, DISK_IS_FULL)),
            Some(LogBlock::Failing) if !fits => Err((
                ErrorCode::Busy,
                "the log cannot be extended, the server's own log says why; not applied. Reads go on",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: WriteBudget = WriteBudget {
        memory_bytes: 0,
        memory_limit_bytes: 1 << 30,
        pending_log_bytes: 0,
        writable_log_bytes: 1 << 20,
        blocked: None,
    };

    fn code(budget: WriteBudget, bytes: usize) -> Option<ErrorCode> {
        budget.admit(bytes).err().map(|(code, _)| code)
    }

    #[test]
    fn each_bound_has_its_own_code() {
        assert_eq!(code(ROOMY, 100), None);
        assert_eq!(code(WriteBudget { memory_bytes: 1 << 30, ..ROOMY }, 1), Some(ErrorCode::OutOfMemory));
        let filling = WriteBudget { memory_bytes: (1 << 30) - 1000, pending_log_bytes: 900, ..ROOMY };
        assert_eq!((code(filling, 100), code(filling, 101)), (None, Some(ErrorCode::OutOfMemory)));
        let behind = WriteBudget { pending_log_bytes: MAX_PENDING_LOG_BYTES, ..ROOMY };
        assert_eq!(code(behind, 1), Some(ErrorCode::Busy));
        let full = WriteBudget { blocked: Some(LogBlock::DiskFull), writable_log_bytes: LOG_SLACK_BYTES + 10, ..ROOMY };
        assert_eq!(code(full, 10), None);
        assert_eq!(code(full, 11), Some(ErrorCode::NoSpace));
        assert_eq!(code(WriteBudget { blocked: Some(LogBlock::Failing), ..full }, 11), Some(ErrorCode::Busy));
    }

    #[test]
    fn deletes_pass_the_memory_limit_and_a_large_value_is_not_starved_by_small_ones() {
        assert_eq!(code(WriteBudget { memory_bytes: 1 << 30, ..ROOMY }, 0), None);
        let busy = WriteBudget { pending_log_bytes: MAX_PENDING_LOG_BYTES - 1, ..ROOMY };
        assert_eq!(code(busy, MAX_PENDING_LOG_BYTES * 2), None);
    }
}
