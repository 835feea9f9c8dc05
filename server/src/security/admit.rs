//! Whether a write may enter: the policy, as a decision.
//!
//! Place in the flow: step 3 (admit), on the core that executes. Reads always enter: they take no memory that stays.
//!
//! Invariant: what is refused here was not applied and never will be, so its error may be retried.

use eyot_protocol::ErrorCode;

use crate::config::MAX_SHARDS;
use crate::wal::format::positions_bytes;

/// Bytes that may be appended to a core's log and not yet be on disk. Beyond it the disk is that far behind: at 500
/// MB/s, this takes more than 100 ms to write.
pub const MAX_PENDING_LOG_BYTES: usize = 64 << 20;
/// Bytes that writes may return which are not applied yet (GETDEL, SET with GET), over all shards of a core: what they
/// return is owed whatever it takes, so what would return more does not enter.
pub const MAX_RETURNED_BYTES: usize = 32 << 20;
/// A write that returns less enters beyond that, too: how many of those there are is each connection's own bound.
pub const COUNTED_RETURN_BYTES: usize = 64 * 1024;
/// What block padding, headers and the positions of shards may add to the bytes of two batches, with room to spare.
pub const LOG_SLACK_BYTES: u64 = 160 * 1024;
const _: () = assert!(LOG_SLACK_BYTES >= 64 * 1024 + positions_bytes(MAX_SHARDS as usize) as u64);

/// What a write is refused with on a full disk.
pub const DISK_IS_FULL: &str = "the disk is full; not applied. Reads go on; writes come back when space does";

/// What a large value is refused with where the log would have had room for it.
pub const NO_SPACE_FOR_VALUE: &str = "there is no disk space for the large value; not applied";

/// What the decision is made from. All of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteBudget {
    /// Bytes that writes of this core may still take: of the node's limit, what all cores have and what is on its way
    /// taken off. `u64::MAX`: no limit.
    pub room_bytes: u64,
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
    /// Whether a write that takes `growth` bytes of memory (0 for a delete) and `bytes` of log may enter.
    ///
    /// # Errors
    /// The code of the refusal and what to do about it.
    #[inline]
    pub fn admit(&self, growth: usize, bytes: usize) -> Result<(), (ErrorCode, &'static str)> {
        self.admit_memory(growth)?;
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

    /// Whether there is memory for `growth` bytes: for a part of a write that has entered.
    ///
    /// # Errors
    /// As [`WriteBudget::admit`].
    #[inline]
    pub fn admit_memory(&self, growth: usize) -> Result<(), (ErrorCode, &'static str)> {
        if growth as u64 > self.room_bytes {
            return Err((
                ErrorCode::OutOfMemory,
                "the memory limit is reached; not applied. Delete keys, or raise --max-memory",
            ));
        }
        Ok(())
    }

    /// Notes that such a write has entered.
    #[inline]
    pub fn take(&mut self, growth: usize, bytes: usize) {
        self.room_bytes = if self.room_bytes == u64::MAX { u64::MAX } else { self.room_bytes - growth as u64 };
        self.pending_log_bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: WriteBudget =
        WriteBudget { room_bytes: 1 << 30, pending_log_bytes: 0, writable_log_bytes: 1 << 20, blocked: None };

    fn code(budget: WriteBudget, growth: usize, bytes: usize) -> Option<ErrorCode> {
        budget.admit(growth, bytes).err().map(|(code, _)| code)
    }

    #[test]
    fn each_bound_has_its_own_code() {
        assert_eq!(code(ROOMY, 100, 100), None);
        let filling = WriteBudget { room_bytes: 100, ..ROOMY };
        assert_eq!((code(filling, 100, 1), code(filling, 101, 1)), (None, Some(ErrorCode::OutOfMemory)));
        let behind = WriteBudget { pending_log_bytes: MAX_PENDING_LOG_BYTES, ..ROOMY };
        assert_eq!(code(behind, 1, 1), Some(ErrorCode::Busy));
        let full = WriteBudget { blocked: Some(LogBlock::DiskFull), writable_log_bytes: LOG_SLACK_BYTES + 10, ..ROOMY };
        assert_eq!(code(full, 10, 10), None);
        assert_eq!(code(full, 11, 11), Some(ErrorCode::NoSpace));
        assert_eq!(code(WriteBudget { blocked: Some(LogBlock::Failing), ..full }, 11, 11), Some(ErrorCode::Busy));
    }

    #[test]
    fn what_has_entered_takes_room_of_what_follows() {
        let mut budget = WriteBudget { room_bytes: 100, ..ROOMY };
        budget.take(60, 70);
        assert_eq!((budget.room_bytes, budget.pending_log_bytes), (40, 70));
        assert_eq!((code(budget, 40, 1), code(budget, 41, 1)), (None, Some(ErrorCode::OutOfMemory)));
        let mut unlimited = WriteBudget { room_bytes: u64::MAX, ..ROOMY };
        unlimited.take(60, 70);
        assert_eq!(unlimited.room_bytes, u64::MAX);
    }

    #[test]
    fn deletes_pass_the_memory_limit_and_a_large_value_is_not_starved_by_small_ones() {
        assert_eq!(code(WriteBudget { room_bytes: 0, ..ROOMY }, 0, 100), None);
        let busy = WriteBudget { pending_log_bytes: MAX_PENDING_LOG_BYTES - 1, ..ROOMY };
        assert_eq!(code(busy, MAX_PENDING_LOG_BYTES * 2, MAX_PENDING_LOG_BYTES * 2), None);
    }
}
