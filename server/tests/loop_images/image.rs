//! A file system in a file: made, mounted, extended, its power cut, and gone with its handle.
//!
//! Place in the flow: outside of it, below the disk seam.
//!
//! Invariants:
//! - Everything of an image (its file, its mount point, its lock) lies in one directory below `loop-images`, whose name
//!   nothing else has. It is unmounted and detached when the handle goes, also in a test that fails.
//! - A test that is killed leaves its images behind. The lock of each is the kernel's and went with the process, so the
//!   next image that is made recognises them, ends what still runs on them, and clears them away.
//! - Images are made and cleared away by one process at a time: between its making and its lock, an image looks as one
//!   that was left behind.
//!
//! Deliberately not here: what is tested. And no repair: what journal replay does not mend is a finding.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{flock, FlockOperation};
use rustix::process::{kill_process, Pid, Signal};

use crate::support::wait_until;

/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The smallest image that tests use. mkfs.xfs refuses less than 300 MiB since its version 5.19.
    pub const fn image_bytes(self) -> u64 {
        match self {
            Self::Ext4 => 64 * MIB,
            Self::Xfs => 300 * MIB,
        }
    }

    /// The programs that tests of it run, in the packages e2fsprogs, xfsprogs, mount and util-linux. xfs_io cuts the
    /// power of both.
    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["losetup", "mount", "umount", "xfs_io", "mkfs.ext4", "resize2fs"],
            Self::Xfs => &["losetup", "mount", "umount", "xfs_io", "mkfs.xfs", "xfs_growfs"],
        }
    }
}

/// A mounted file system of a test's own.
pub struct Image {
    file_system: FileSystem,
    bytes: u64,
    /// Files that take space until the image is "extended", where it cannot be extended truly.
    reserves: Vec<PathBuf>,
    /// Holds all that follows; removed with the handle.
    directory: PathBuf,
    /// Locked as long as the image is somebody's.
    lock: File,
    /// Such as `/dev/loop3`.
    device: String,
}

impl Image {
    /// Makes and mounts one of `bytes`; `None` where this machine cannot, and then the reason has been printed.
    ///
    /// # Panics
    /// Where it cannot, and `EYOT_KILLS` asks for a proof.
    pub fn make(file_system: FileSystem, bytes: u64) -> Option<Self> {
        Self::try_make(file_system, bytes).map_err(|reason| skip(file_system, &reason)).ok()
    }

    fn try_make(file_system: FileSystem, bytes: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount".to_owned());
        }
        let is_missing = |name: &&&str| program(name).is_none();
        if let Some(name) = file_system.programs().iter().find(is_missing) {
            return Err(format!("{name} is not installed: run scripts/setup.sh --test"));
        }
        if !Path::new("/dev/loop-control").exists() {
            return Err("there are no loop devices (/dev/loop-control)".to_owned());
        }
        let (directory, lock) = claim(file_system);
        // From here on the guard clears away whatever there is.
        let (reserves, device) = (Vec::new(), String::new());
        let mut image = Self { file_system, bytes, reserves, directory, lock, device };
        let file = File::create(image.file()).expect("a file in a directory of ours");
        file.set_len(bytes).map_err(|error| format!("an image of {bytes} bytes: {error}"))?;
        let make = format!("mkfs.{}", file_system.name());
        run(Command::new(program(&make).expect("found above")).arg("-q").arg(image.file()))?;
        let attach = run(command("losetup").args(["--find", "--show"]).arg(image.file()))?;
        attach.trim().clone_into(&mut image.device);
        fs::create_dir(image.mount_point()).expect("a directory in a directory of ours");
        image.try_mount()?;
        Ok(image)
    }

    /// As [`Image::make`], for a test that extends it so many `times` by `by` bytes.
    ///
    /// To extend a mounted ext4 takes `CAP_SYS_RESOURCE`, which containers may withhold from root. There the image is
    /// as large from the start, and files that take the difference are removed one by one, which is printed.
    pub fn make_to_extend(file_system: FileSystem, by: u64, times: u32) -> Option<Self> {
        let bytes = file_system.image_bytes();
        if file_system != FileSystem::Ext4 || may_extend_ext4() {
            return Self::make(file_system, bytes);
        }
        eprintln!("ext4 is not extended here, but files in it are removed: root has no CAP_SYS_RESOURCE");
        let mut image = Self::make(file_system, bytes + by * u64::from(times))?;
        for number in 0..times {
            image.reserves.push(image.take_space(&format!("reserve-{number}"), by));
        }
        Some(image)
    }

    fn file(&self) -> PathBuf {
        self.directory.join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.directory.join("mount")
    }

    fn try_mount(&self) -> Result<String, String> {
        let kind = ["-t", self.file_system.name()];
        run(command("mount").args(kind).arg(&self.device).arg(self.mount_point()))
    }

    /// A directory of the mounted file system: where a server's data goes.
    pub fn data(&self) -> PathBuf {
        self.mount_point().join("data")
    }

    /// Bytes that a user's files may still take.
    pub fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(self.mount_point()).expect("it is mounted");
        found.f_bavail * found.f_frsize
    }

    /// Takes space, for a file called `name`, until only about `left` bytes are left.
    pub fn leave_free(&self, name: &str, left: u64) {
        if let Some(bytes) = self.free_bytes().checked_sub(left).filter(|bytes| *bytes > 0) {
            self.take_space(name, bytes);
        }
    }

    /// Gives `bytes` of space to a file of that name.
    fn take_space(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.mount_point().join(name);
        let file = File::create(&path).expect("there is space for a name");
        rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("it is free");
        path
    }

    /// Makes the file, the device and the file system larger by `bytes`, all of it while the file system is in use.
    /// Returns what has been done to it.
    pub fn extend(&mut self, bytes: u64) -> &'static str {
        if let Some(reserve) = self.reserves.pop() {
            fs::remove_file(reserve).expect("it is ours");
            return "given space";
        }
        self.bytes += bytes;
        let file = File::options().write(true).open(self.file()).expect("the image");
        file.set_len(self.bytes).expect("the image grows");
        must(command("losetup").arg("--set-capacity").arg(&self.device));
        match self.file_system {
            FileSystem::Ext4 => must(command("resize2fs").arg(&self.device)),
            FileSystem::Xfs => must(command("xfs_growfs").arg(self.mount_point())),
        };
        "extended"
    }

    /// Cuts the power of the disk: nothing reaches it from this moment on, and what the file system had not written is
    /// lost. Every further call fails with EIO until [`Image::mount_again`].
    pub fn cut_power(&self) {
        // The ioctl of xfs that ext4 has too: shut down at once, without a flush of the journal.
        must(command("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.mount_point()));
    }

    /// Unmounts and mounts: the journal is replayed where it must be, and nothing is left of what was cached.
    pub fn mount_again(&self) {
        // The kernel gives back the files of a killed process a moment after the process: what its ring had in hand
        // ends first.
        wait_until("nobody uses the image", || run(command("umount").arg(self.mount_point())).is_ok());
        self.try_mount().unwrap_or_else(|problem| panic!("{problem}"));
    }

    /// Leaves everything behind, as a test does that is killed. Returns the directory.
    fn abandon(self) -> PathBuf {
        let directory = self.directory.clone();
        flock(&self.lock, FlockOperation::Unlock).expect("it is locked");
        std::mem::forget(self);
        directory
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _alone = only_one();
        clear_away(&self.directory);
    }
}

/// Says why a test of `file_system` is skipped.
fn skip(file_system: FileSystem, reason: &str) {
    let name = file_system.name();
    assert!(std::env::var_os("EYOT_KILLS").is_none(), "EYOT_KILLS asks for a proof on {name}, but {reason}");
    eprintln!("skipped: no image of {name} can be mounted here: {reason}");
}

/// Whether this process has the capability that the kernel asks of who extends a mounted ext4 (capability 24).
fn may_extend_ext4() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("every process has some");
    u64::from_str_radix(effective.trim(), 16).expect("hexadecimal digits") & 1 << 24 != 0
}

/// Where all images are, of all tests of this build.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loop-images");
    fs::create_dir_all(&root).expect("a directory beside the build");
    // As the kernel names it in its lists of mounts and devices.
    root.canonicalize().expect("it is there")
}

/// A new directory with its lock; what was left behind is cleared away.
fn claim(file_system: FileSystem) -> (PathBuf, File) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let _alone = only_one();
    clear_left_behind(&root());
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = root().join(format!("{}-{}-{number}", file_system.name(), std::process::id()));
    fs::create_dir(&directory).expect("what earlier processes left is cleared away");
    let lock = File::create(directory.join("lock")).expect("a file in a directory of ours");
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("nobody else has a new file");
    (directory, lock)
}

/// Waits until nobody else makes or clears away an image; the lock goes with the handle.
fn only_one() -> File {
    let file = File::create(root().join("LOCK")).expect("a file beside the build");
    flock(&file, FlockOperation::LockExclusive).expect("a lock that others give back");
    file
}

/// Clears away the images below `root` that no process has locked.
fn clear_left_behind(root: &Path) {
    for entry in fs::read_dir(root).expect("it is there").flatten() {
        let directory = entry.path();
        if !directory.is_dir() {
            continue;
        }
        let lock = File::open(directory.join("lock"));
        let is_somebodys = lock.is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_err());
        if !is_somebodys {
            eprintln!("clearing away what an earlier test left: {}", directory.display());
            end_processes_of(&directory);
            clear_away(&directory);
        }
    }
}

/// Ends every process whose command line names a file below `directory`: servers of a test that was killed.
fn end_processes_of(directory: &Path) {
    let name = directory.to_str().expect("a readable path");
    let mut ended = Vec::new();
    for entry in fs::read_dir("/proc").expect("there is a /proc").flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let mut line = Vec::new();
        let read = File::open(entry.path().join("cmdline")).and_then(|mut file| file.read_to_end(&mut line));
        if read.is_ok() && String::from_utf8_lossy(&line).contains(&format!("{name}/")) {
            eprintln!("ending process {id}, which still runs there");
            let pid = Pid::from_raw(id as i32).expect("a process has an id above zero");
            // An error means that it has ended meanwhile.
            let _: rustix::io::Result<()> = kill_process(pid, Signal::KILL);
            ended.push(id);
        }
    }
    // A dead one that nobody has asked for yet has no command line, and holds no file.
    let is_gone = |id: &u32| fs::read(format!("/proc/{id}/cmdline")).map_or(true, |line| line.is_empty());
    wait_until("processes of an earlier test are gone", || ended.iter().all(is_gone));
}

/// Unmounts, detaches and removes what there is of the image in `directory`, and complains of what cannot be.
fn clear_away(directory: &Path) {
    let mount_point = directory.join("mount");
    if is_mounted(&mount_point) {
        // Lazily where a server of a failed test is still there: it goes with it.
        let unmounted = run(command("umount").arg(&mount_point))
            .or_else(|_| run(command("umount").arg("--lazy").arg(&mount_point)));
        complain(unmounted);
    }
    for device in devices_of(&directory.join("image")) {
        complain(run(command("losetup").args(["--detach", &device])));
    }
    if is_mounted(&mount_point) {
        eprintln!("{} is still mounted", mount_point.display());
    } else if let Err(error) = fs::remove_dir_all(directory) {
        eprintln!("{} is still there: {error}", directory.display());
    }
}

fn complain(done: Result<String, String>) {
    if let Err(problem) = done {
        eprintln!("{problem}");
    }
}

fn is_mounted(mount_point: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("there is a /proc");
    let name = mount_point.to_str().expect("a readable path");
    // The kernel writes a space in a name as \040.
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|found| found.replace("\\040", " ") == name))
}

/// The loop devices behind which `file` is.
fn devices_of(file: &Path) -> Vec<String> {
    let listed = run(command("losetup").args(["--noheadings", "--output", "NAME", "--associated"]).arg(file));
    listed.map_or(Vec::new(), |names| names.lines().map(|name| name.trim().to_owned()).collect())
}

/// Where the program `name` is. Those of administrators are often not on a user's PATH.
fn program(name: &str) -> Option<PathBuf> {
    let paths = std::env::var("PATH").unwrap_or_default();
    let mut places = paths.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]);
    let is_in = |place: &str| Path::new(place).join(name).is_file();
    places.find(|place| is_in(place)).map(|place| Path::new(place).join(name))
}

fn command(name: &str) -> Command {
    Command::new(program(name).unwrap_or_else(|| name.into()))
}

/// Runs `command` to its end; what it printed, or what went wrong.
fn run(command: &mut Command) -> Result<String, String> {
    match command.output() {
        Ok(Output { status, stdout, .. }) if status.success() => Ok(String::from_utf8_lossy(&stdout).into_owned()),
        Ok(Output { status, stderr, .. }) => {
            Err(format!("{command:?}: {status}: {}", String::from_utf8_lossy(&stderr).trim()))
        }
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

#[track_caller]
fn must(command: &mut Command) -> String {
    run(command).unwrap_or_else(|problem| panic!("{problem}"))
}

/// The proof that a cut is one: what was synced is there afterwards, and what was not is lost.
#[track_caller]
fn check_that_a_cut_loses_what_was_not_synced(file_system: FileSystem) {
    let Some(image) = Image::make(file_system, file_system.image_bytes()) else { return };
    let path = |name: &str| image.mount_point().join(name);
    fs::write(path("synced"), b"synced").unwrap();
    File::open(path("synced")).unwrap().sync_all().unwrap();
    File::open(image.mount_point()).unwrap().sync_all().unwrap();
    fs::write(path("not synced"), b"not synced").unwrap();
    image.cut_power();
    assert!(fs::write(path("too late"), b"too late").is_err(), "there is no disk any more");
    image.mount_again();
    assert_eq!(fs::read(path("synced")).unwrap(), b"synced");
    let lost = fs::read(path("not synced")).unwrap_or_default();
    assert_ne!(lost, b"not synced", "the cut cuts nothing: what stands on it proves nothing");
}

#[test]
fn a_cut_loses_what_was_not_synced_on_ext4() {
    check_that_a_cut_loses_what_was_not_synced(FileSystem::Ext4);
}

#[test]
fn a_cut_loses_what_was_not_synced_on_xfs() {
    check_that_a_cut_loses_what_was_not_synced(FileSystem::Xfs);
}

#[test]
fn what_a_killed_test_left_behind_is_cleared_away_by_the_next() {
    let Some(image) = Image::make(FileSystem::Ext4, FileSystem::Ext4.image_bytes()) else { return };
    fs::write(image.mount_point().join("file"), b"in use").unwrap();
    // What still has a file of it open, as a server would.
    let mut tail = Command::new("tail");
    tail.arg("-f").arg(image.mount_point().join("file")).stdout(Stdio::null());
    let mut reader = tail.spawn().expect("tail starts");
    let device = image.device.clone();
    let left = image.abandon();
    assert!(is_mounted(&left.join("mount")) && devices_of(&left.join("image")) == [device]);
    // Whoever makes the next image clears it away; another test of this run may have been quicker.
    let next = Image::make(FileSystem::Ext4, FileSystem::Ext4.image_bytes()).expect("as before");
    wait_until("the reader is gone", || reader.try_wait().expect("a child").is_some());
    assert!(!is_mounted(&left.join("mount")) && !left.exists());
    assert!(devices_of(&left.join("image")).is_empty());
    assert!(next.mount_point().exists() && is_mounted(&next.mount_point()), "one that is in use stays");
    let used = next.directory.clone();
    drop(next);
    assert!(!is_mounted(&used.join("mount")) && !used.exists());
}
