//! The run-time settings of memory, as CONFIG reads and changes them.
//!
//! Place in the flow: between `config_names`, which knows Redis's names, and `config::Tunables`, which every core
//! reads.

use super::config_names::MemoryTunables;
use crate::config::Tunables;
use crate::shard::eviction::Policy;

impl MemoryTunables for Tunables {
    fn max_memory_bytes(&self) -> u64 {
        Tunables::max_memory_bytes(self).unwrap_or(0)
    }

    fn set_max_memory_bytes(&self, bytes: u64) {
        Tunables::set_max_memory_bytes(self, Some(bytes));
    }

    fn policy(&self) -> u8 {
        self.eviction_policy().number()
    }

    fn set_policy(&self, policy: u8) {
        self.set_eviction_policy(Policy::of_number(policy).unwrap_or_default());
    }

    fn samples(&self) -> u32 {
        self.eviction_samples() as u32
    }

    fn set_samples(&self, samples: u32) {
        self.set_eviction_samples(samples);
    }

    fn lfu_log_factor(&self) -> u32 {
        Tunables::lfu_log_factor(self)
    }

    fn set_lfu_log_factor(&self, factor: u32) {
        Tunables::set_lfu_log_factor(self, factor);
    }

    fn lfu_decay_minutes(&self) -> u32 {
        Tunables::lfu_decay_minutes(self)
    }

    fn set_lfu_decay_minutes(&self, minutes: u32) {
        Tunables::set_lfu_decay_minutes(self, minutes);
    }
}
