//! The machine that the load generator runs on, and what it asks of it: facts for the report, files, timers, CPUs.
//!
//! Place in the flow: the facts go into every report, since figures without their machine mean nothing; the rest is set
//! up before the load.

use std::fs;
use std::io;

use serde::Serialize;

/// What the report says of the machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu_model: String,
    /// CPUs that may be used.
    pub cpu_count: usize,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// Reads the facts; what cannot be read is "unknown".
    pub fn facts() -> Self {
        let unknown = || "unknown".to_owned();
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cpu_model: model.map_or_else(unknown, |(_, name)| name.trim().to_owned()),
            cpu_count: cpu_info.lines().filter(|line| line.starts_with("processor")).count().max(1),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
        }
    }
}

/// Raises the limit of open files to what the administrator allows: a connection is a file.
pub fn raise_file_limit() {
    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, connecting will say so with the remedy.
    let _: rustix::io::Result<()> =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Pins the calling thread.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Lets the calling thread's timers fire when they are due instead of up to 50 microseconds later: an open loop needs
/// it.
pub fn exact_timers() {
    if let Some(one_ns) = std::num::NonZeroU64::new(1) {
        let _: rustix::io::Result<()> = rustix::thread::set_current_timer_slack(Some(one_ns));
    }
}
