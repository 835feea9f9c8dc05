//! What a process has used: CPU time and context switches, from `/proc`.
//!
//! Place in the flow: read for the server (`--server-pid`) and for the load generator itself just before and just after
//! the measured window, so that the warm-up is not in it.

use std::fs;
use std::io;

/// Totals over all threads of a process since it started.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// CPU time in its own code, in seconds.
    pub user_s: f64,
    /// CPU time in the kernel, in seconds.
    pub system_s: f64,
    /// Context switches because it waited. Only of threads that still run.
    pub voluntary_switches: u64,
    /// Context switches because another thread's turn had come. Only of threads that still run.
    pub involuntary_switches: u64,
}

impl Usage {
    /// What process `pid` has used.
    ///
    /// # Errors
    /// There is no such process, or it may not be looked at.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (user_ticks, system_ticks) = cpu_ticks(&stat).ok_or_else(|| unreadable(pid, "stat"))?;
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        let mut usage = Self {
            user_s: user_ticks as f64 / ticks_per_s,
            system_s: system_ticks as f64 / ticks_per_s,
            ..Self::default()
        };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between the listing and the reading.
            let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
            usage.voluntary_switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            usage.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(usage)
    }

    /// What was used since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user_s: self.user_s - earlier.user_s,
            system_s: self.system_s - earlier.system_s,
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(earlier.involuntary_switches),
        }
    }

    /// All CPU time, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

fn unreadable(pid: u32, file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/{file} is not in the form that proc(5) describes"))
}

/// utime and stime, the 14th and 15th field. The second is the command in parentheses, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, after_command) = stat.rsplit_once(')')?;
    let mut fields = after_command.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn reads_the_fields_whatever_the_command_is_called() {
        let stat = "1234 (a) b (c)) R 1 2 3 4 5 6 7 8 9 10 111 222 33 44 20 0 1 0";
        assert_eq!(cpu_ticks(stat), Some((111, 222)));
        assert_eq!(cpu_ticks("1234 (cut off"), None);
        assert_eq!(cpu_ticks("1 (x) R 1 2"), None);
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(12));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(3));
    }

    #[test]
    fn busy_time_is_seen_and_a_missing_process_is_an_error() {
        let before = Usage::of(std::process::id()).unwrap();
        let started = Instant::now();
        let mut sum = 0_u64;
        while started.elapsed() < Duration::from_millis(200) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let used_s = Usage::of(std::process::id()).unwrap().since(&before).cpu_s();
        // Other threads of the tests may add to it, and a busy machine may take from it.
        assert!(used_s > 0.02, "{used_s} s");
        assert!(Usage::of(u32::MAX).is_err());
    }
}
