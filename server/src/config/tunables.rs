//! What an operator may change while the node runs (CONFIG SET): the settings' present values.
//!
//! Place in the flow: one for the node, in [`Shared`](crate::core::Shared); a core reads what it needs once a turn.
//!
//! Invariants:
//! - Each value is one atomic and stands by itself: a reader may see one change before another, never half of one.
//! - They are read on every core and written seldom, so they lie together and are written by nobody else.
//!
//! A further one is a field here, a line in [`Tunables::new`], and a getter and a setter that keep its bounds.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering};

use super::memory::MemorySettings;
use crate::shard::access::Tracking;
use crate::shard::eviction::Policy;

/// No limit, as it is kept.
const NO_LIMIT: u64 = u64::MAX;

/// The present values.
#[derive(Debug)]
pub struct Tunables {
    max_memory_bytes: AtomicU64,
    eviction_policy: AtomicU8,
    eviction_samples: AtomicU32,
    lfu_log_factor: AtomicU32,
    lfu_decay_minutes: AtomicU32,
}

impl Tunables {
    /// What the node starts with.
    pub fn new(memory: &MemorySettings) -> Self {
        Self {
            max_memory_bytes: AtomicU64::new(memory.max_memory_bytes.unwrap_or(NO_LIMIT)),
            eviction_policy: AtomicU8::new(memory.eviction_policy.number()),
            eviction_samples: AtomicU32::new(memory.eviction_samples),
            lfu_log_factor: AtomicU32::new(memory.lfu_log_factor),
            lfu_decay_minutes: AtomicU32::new(memory.lfu_decay_minutes),
        }
    }

    /// Limit of the node's memory; `None`: no limit.
    #[inline]
    pub fn max_memory_bytes(&self) -> Option<u64> {
        match self.max_memory_bytes.load(Ordering::Relaxed) {
            NO_LIMIT => None,
            bytes => Some(bytes),
        }
    }

    /// Sets the limit of the node's memory; `None` or 0: no limit.
    pub fn set_max_memory_bytes(&self, bytes: Option<u64>) {
        self.max_memory_bytes.store(bytes.filter(|&bytes| bytes > 0).unwrap_or(NO_LIMIT), Ordering::Relaxed);
    }

    /// What goes at the limit.
    #[inline]
    pub fn eviction_policy(&self) -> Policy {
        Policy::of_number(self.eviction_policy.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Sets what goes at the limit.
    pub fn set_eviction_policy(&self, policy: Policy) {
        self.eviction_policy.store(policy.number(), Ordering::Relaxed);
    }

    /// Keys that are looked at to choose one.
    #[inline]
    pub fn eviction_samples(&self) -> usize {
        self.eviction_samples.load(Ordering::Relaxed) as usize
    }

    /// Sets how many keys are looked at to choose one: 1 to 64.
    pub fn set_eviction_samples(&self, samples: u32) {
        self.eviction_samples.store(samples.clamp(1, super::memory::EVICTION_SAMPLES_MAX), Ordering::Relaxed);
    }

    /// The log factor of the lfu policies' counters.
    pub fn lfu_log_factor(&self) -> u32 {
        self.lfu_log_factor.load(Ordering::Relaxed)
    }

    /// Sets the log factor of the lfu policies' counters.
    pub fn set_lfu_log_factor(&self, factor: u32) {
        self.lfu_log_factor.store(factor, Ordering::Relaxed);
    }

    /// Minutes without a use after which a counter loses one.
    pub fn lfu_decay_minutes(&self) -> u32 {
        self.lfu_decay_minutes.load(Ordering::Relaxed)
    }

    /// Sets the minutes without a use after which a counter loses one; 0: never.
    pub fn set_lfu_decay_minutes(&self, minutes: u32) {
        self.lfu_decay_minutes.store(minutes, Ordering::Relaxed);
    }

    /// What access words have to remember now.
    #[inline]
    pub fn tracking(&self) -> Tracking {
        self.eviction_policy().tracking(self.lfu_log_factor(), self.lfu_decay_minutes())
    }
}
