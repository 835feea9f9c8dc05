//! Whether this machine can run the server: each need by itself, with its cause and its remedy.
//!
//! Place in the flow: `eyot-server --preflight` prints all of it; every start runs it first and stops at the first need
//! that is not met, since the same failure inside the executor would name neither.

use std::fs;
use std::io;
use std::path::Path;

use eyot_ring::{Ring, RingOptions};

use crate::config::Settings;
use crate::error::{Stop, StopReason};

/// The oldest kernel that has what the ring needs.
const MIN_KERNEL: (u32, u32) = (6, 1);
/// Locked memory that the executor demands.
const MIN_LOCKED_BYTES: u64 = 512 * 1024;
/// File descriptors beside those of connections: rings, segments, listeners, the executor's own.
const DESCRIPTORS_PER_CORE: u64 = 64;

/// One need, and how it was met.
#[derive(Debug)]
pub struct Check {
    /// What is needed.
    pub name: &'static str,
    /// What was found, or why it will not do.
    pub outcome: Result<String, Stop>,
}

/// Runs every check.
pub fn run(settings: &Settings) -> Vec<Check> {
    let mut checks = run_without_disk(settings);
    checks.push(Check { name: "data directory", outcome: data_directory(&settings.data_dir) });
    checks
}

/// Runs the checks that touch no file: a server that will not get its ports must leave the data directory alone.
pub fn run_without_disk(settings: &Settings) -> Vec<Check> {
    vec![
        Check { name: "kernel 6.1 or newer", outcome: kernel() },
        Check { name: "io_uring", outcome: io_uring() },
        Check { name: "locked memory", outcome: locked_memory() },
        Check { name: "open files", outcome: open_files(settings) },
    ]
}

/// The processors that this process may use, from `/proc/self/status`.
///
/// # Errors
/// [`StopReason::Processors`].
pub fn allowed_processors() -> Result<Vec<usize>, Stop> {
    let refuse = |cause: String| Stop::new(StopReason::Processors, cause, "mount /proc in the container");
    let status =
        fs::read_to_string("/proc/self/status").map_err(|error| refuse(format!("/proc/self/status: {error}")))?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(str::trim);
    list.and_then(parse_processor_list)
        .ok_or_else(|| refuse(format!("/proc/self/status: Cpus_allowed_list is {list:?}")))
}

fn parse_processor_list(list: &str) -> Option<Vec<usize>> {
    let mut processors = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        processors.extend(first.trim().parse().ok()?..=last.trim().parse::<usize>().ok()?);
    }
    (!processors.is_empty()).then_some(processors)
}

/// The memory that this process may use: the machine's, or less where a control group says so.
pub fn memory_total_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    });
    let limit = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = limit("/sys/fs/cgroup/memory.max").or_else(|| limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    machine.into_iter().chain(group).min()
}

fn kernel() -> Result<String, Stop> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match parse_kernel(release) {
        Some(version) if version >= MIN_KERNEL => Ok(release.to_owned()),
        _ => Err(Stop::new(
            StopReason::KernelTooOld,
            format!("kernel {release:?}"),
            "run on Linux 6.1 or newer (Debian 12, Ubuntu 24.04, RHEL 10 and later have it)",
        )),
    }
}

fn parse_kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn io_uring() -> Result<String, Stop> {
    let small =
        RingOptions { submission_entries: 8, completion_entries: 16, receive_buffers: 1, receive_buffer_bytes: 4096 };
    // In a thread of its own, since a ring belongs to the thread that makes it.
    std::thread::spawn(move || Ring::new(small).map(drop))
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the probing thread ended early")))
        .map(|()| "rings with deferred completions and provided buffers".to_owned())
        .map_err(|error| ring_stop(&error))
}

/// Why a ring could not be made.
pub fn ring_stop(error: &io::Error) -> Stop {
    const ENOSYS: i32 = 38;
    const EINVAL: i32 = 22;
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let refused = |remedy: &str| Stop::new(StopReason::IoUringRefused, format!("io_uring: {error}"), remedy);
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::PermissionDenied, _) if matches!(disabled.trim(), "1" | "2") => {
            refused("allow it on the host: sysctl kernel.io_uring_disabled=0")
        }
        (io::ErrorKind::PermissionDenied, _) => refused(
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile \
             (Docker and Kubernetes refuse them by default)",
        ),
        (_, Some(ENOSYS)) => refused("run on a kernel with io_uring; sandboxes such as gVisor have none"),
        (_, Some(EINVAL)) => Stop::new(
            StopReason::KernelTooOld,
            format!("io_uring: {error}: the kernel does not know the ring's options"),
            "run on Linux 6.1 or newer",
        ),
        (io::ErrorKind::OutOfMemory, _) => Stop::new(
            StopReason::LockedMemory,
            format!("io_uring: {error}"),
            "raise the limit of locked memory: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
        ),
        _ => refused("see dmesg for the kernel's reason"),
    }
}

fn locked_memory() -> Result<String, Stop> {
    let (soft, _) = rlimit::Resource::MEMLOCK.get().unwrap_or((u64::MAX, u64::MAX));
    if soft >= MIN_LOCKED_BYTES {
        let limit = if soft == rlimit::INFINITY { "unlimited".to_owned() } else { format!("{} KiB", soft / 1024) };
        return Ok(limit);
    }
    Err(Stop::new(
        StopReason::LockedMemory,
        format!("the limit of locked memory is {} KiB, and {} KiB are needed", soft / 1024, MIN_LOCKED_BYTES / 1024),
        "ulimit -l unlimited, LimitMEMLOCK=infinity in the unit, or a container runtime that allows it",
    ))
}

/// Descriptors that a node of `core_count` cores needs beside its connections'.
fn descriptors_without_connections(core_count: u16) -> u64 {
    DESCRIPTORS_PER_CORE * u64::from(core_count) + 64
}

/// Connections that the limit of open files leaves room for, once the other checks have raised it.
pub fn connections_possible(core_count: u16) -> u64 {
    let have = rlimit::Resource::NOFILE.get_soft().unwrap_or(0);
    have.saturating_sub(descriptors_without_connections(core_count))
}

/// Raises the limit of open files as far as the process may, and looks whether that is enough.
fn open_files(settings: &Settings) -> Result<String, Stop> {
    let needed = settings.max_connections as u64 + descriptors_without_connections(settings.core_count());
    let have = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0);
    if have >= needed {
        return Ok(format!("{have}, of which {needed} may be needed"));
    }
    Err(Stop::new(
        StopReason::OpenFiles,
        format!("at most {have} files may be open, and --max-connections {} needs {needed}", settings.max_connections),
        "raise the limit (ulimit -n, LimitNOFILE in the unit), or lower --max-connections",
    ))
}

fn data_directory(path: &Path) -> Result<String, Stop> {
    let probe = path.join(format!(".preflight-{}", std::process::id()));
    let writable =
        fs::create_dir_all(path).and_then(|()| fs::write(&probe, b"x")).and_then(|()| fs::remove_file(&probe));
    match writable {
        Ok(()) => Ok(format!("{} is writable; {}", path.display(), direct_writes(path, &probe))),
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Err(Stop::new(StopReason::DiskFull, format!("{}: {error}", path.display()), "free space on that disk"))
        }
        Err(error) => Err(Stop::new(
            StopReason::DataDirectory,
            format!("{}: {error}", path.display()),
            "create it for the user that runs the server, or choose another with --data-dir",
        )),
    }
}

/// Whether the file system takes `O_DIRECT`; where it does not, the log works all the same, slower.
fn direct_writes(directory: &Path, probe: &Path) -> String {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = fs::File::options().create(true).truncate(true).write(true).custom_flags(libc::O_DIRECT).open(probe);
    // What was not made cannot be removed, and anything else left behind is one empty file.
    let _: io::Result<()> = fs::remove_file(probe);
    match opened {
        Ok(_) => "log writes go past the page cache (O_DIRECT)".to_owned(),
        Err(error) => format!(
            "{} refuses O_DIRECT ({error}): log writes go through the page cache, as durable and slower",
            directory.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_processor_lists() {
        assert_eq!(parse_kernel("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_kernel("5.15.0"), Some((5, 15)));
        assert_eq!(parse_kernel("garbage"), None);
        assert_eq!(parse_processor_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_processor_list(""), None);
        assert!(!allowed_processors().unwrap().is_empty());
        assert!(memory_total_bytes().unwrap() > 1 << 20);
    }

    #[test]
    fn more_cores_leave_room_for_fewer_connections() {
        let (one, four) = (connections_possible(1), connections_possible(4));
        assert_eq!(one.saturating_sub(3 * DESCRIPTORS_PER_CORE), four);
        assert!(one > 0);
    }

    #[test]
    fn each_refusal_of_a_ring_has_its_remedy() {
        for (error, reason) in [
            (io::Error::from_raw_os_error(1), StopReason::IoUringRefused),
            (io::Error::from_raw_os_error(38), StopReason::IoUringRefused),
            (io::Error::from_raw_os_error(22), StopReason::KernelTooOld),
            (io::Error::from_raw_os_error(12), StopReason::LockedMemory),
        ] {
            let stop = ring_stop(&error);
            assert_eq!(stop.reason, reason, "{error}");
            assert!(!stop.remedy.is_empty());
        }
    }
}
