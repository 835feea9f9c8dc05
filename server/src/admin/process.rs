//! What the kernel says of this process: its memory and its processor time.
//!
//! Place in the flow: read when somebody asks for INFO or MEMORY, never on another request's way. The files are the
//! kernel's own memory: reading them waits for no disk.
//!
//! Deliberately forgiving: a figure that cannot be read is 0. An answer without it is worth more than none.

use std::fs;

/// The figures of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessFigures {
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    /// The most memory in RAM so far, in bytes.
    pub resident_peak_bytes: u64,
    /// Processor time of this process in the kernel, in microseconds.
    pub cpu_system_us: u64,
    /// Processor time of this process itself, in microseconds.
    pub cpu_user_us: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessFigures {
    /// Reads them.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&text("/proc/self/status"), &text("/proc/self/stat"), rustix::param::clock_ticks_per_second())
    }

    /// `status` and `stat` as proc(5) has them; `ticks` of processor time are a second.
    fn parse(status: &str, stat: &str, ticks: u64) -> Self {
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        };
        // The second field is the program's name in parentheses, which may hold anything.
        let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let field = |place: usize| {
            let ticks_used = behind_name.split(' ').nth(place - 3).and_then(|text| text.parse::<u64>().ok());
            ticks_used.unwrap_or(0) * 1_000_000 / ticks.max(1)
        };
        Self {
            resident_bytes: number("VmRSS:") * 1024,
            resident_peak_bytes: number("VmHWM:") * 1024,
            cpu_user_us: field(14),
            cpu_system_us: field(15),
            threads: number("Threads:"),
        }
    }
}

/// The kernel's name and release, as INFO has it.
pub fn operating_system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} {}", release.trim(), std::env::consts::ARCH)
}

/// The memory of the machine, in bytes; 0 if the kernel does not say.
pub fn machine_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read_and_a_strange_name_does_not_shift_the_fields() {
        let status = "Name:\teyot\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t5\n";
        let stat = "7 (a) b) R 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 5 0";
        let figures = ProcessFigures::parse(status, stat, 100);
        let expected = ProcessFigures {
            resident_bytes: 1 << 20,
            resident_peak_bytes: 2 << 20,
            cpu_system_us: 500_000,
            cpu_user_us: 2_500_000,
            threads: 5,
        };
        assert_eq!(figures, expected);
        assert_eq!(ProcessFigures::parse("", "", 100), ProcessFigures::default());
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes > 1 << 20 && figures.resident_peak_bytes >= figures.resident_bytes);
        assert!(figures.threads >= 1);
        assert!(operating_system().len() > "Linux  ".len());
        assert!(machine_memory_bytes() > 1 << 20);
    }
}
