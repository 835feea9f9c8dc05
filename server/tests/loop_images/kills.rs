//! `kill -9` again and again on one directory, under load and with snapshots running, on ext4 and on xfs: whatever was
//! acknowledged is there after the next start.
//!
//! Place in the flow: steps 6 (log) and 9 (reply), snapshots, recovery.
//!
//! A kill leaves to the kernel what had been written to it. So behind some of them the disk loses its power as well:
//! then only what the server had synced is left. Between the kills it also loses it under a server that runs, which
//! must end by itself, with its number; and some starts are killed before they are done.
//!
//! Deliberately not here: every single operation at which power may go. The prover cuts at all of them, on a simulated
//! disk; here it is seen that real file systems keep what the simulated one promises.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use eyot_server::error::StopReason;
use rand::rngs::StdRng;
use rand::Rng;

use super::image::{FileSystem, Image};
use crate::support::claims::{Claims, Counts};
use crate::support::{self, several_cores, Dice, Server};

const CONNECTIONS: usize = 4;
const KEYS: usize = 150;
/// Kills where nobody asks for more: some seconds.
const KILLS_USUAL: usize = 10;

/// What happened in all rounds of a test.
#[derive(Debug, Default)]
struct Tally {
    /// Of a server under load.
    kills: usize,
    /// Of them, those after which the disk lost its power.
    kills_with_cut: usize,
    /// Disks that lost their power under a server that ran; not among the kills, nor is what follows.
    cuts: usize,
    /// Starts that were killed before they were done.
    starts_killed: usize,
    /// Rounds of snapshots of a core's shards that were finished.
    snapshots: usize,
    starts: usize,
    /// Of them, those that loaded a snapshot.
    starts_from_snapshots: usize,
}

/// How a server under load comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    KillAndCut,
    Cut,
}

/// What one round does, all of it decided beforehand.
struct Plan {
    cores: String,
    /// Kills a start so long after it has begun.
    kill_start_after: Option<Duration>,
    load: Duration,
    end: End,
}

impl Plan {
    fn new(round: usize, dice: &mut Dice) -> Self {
        // Every fourth round on another number of cores, so that logs of both kinds follow each other.
        let cores = if round % 4 == 3 { 1 } else { several_cores() };
        let kill_start_after = Duration::from_millis(dice.rng.gen_range(0..150));
        Self {
            cores: cores.to_string(),
            kill_start_after: dice.rng.gen_bool(0.2).then_some(kill_start_after),
            load: Duration::from_millis(dice.rng.gen_range(20..500)),
            end: [End::Kill, End::Kill, End::Kill, End::KillAndCut, End::Cut][dice.rng.gen_range(0..5)],
        }
    }

    /// Small segments, and a snapshot of all of a core's shards after a few of its writes.
    fn arguments(&self) -> [&str; 8] {
        ["--cores", &self.cores, "--shards", "8", "--snapshot-log-size", "200KB", "--wal-segment-size", "1MiB"]
    }
}

/// Mostly small values, some that fill blocks, and some that stand in the log in parts.
fn ballast(rng: &mut StdRng) -> usize {
    match rng.gen_range(0..200) {
        0 => rng.gen_range(65_000..140_000),
        1..=10 => rng.gen_range(3_000..9_000),
        _ => rng.gen_range(0..600),
    }
}

/// The numbers of kills in `EYOT_KILLS`.
fn kills() -> usize {
    std::env::var("EYOT_KILLS").map_or(KILLS_USUAL, |text| text.parse().expect("EYOT_KILLS is a number"))
}

fn kill_start(data: &Path, plan: &Plan, tally: &mut Tally) {
    let Some(after) = plan.kill_start_after else { return };
    let mut command = support::command(data, &plan.arguments());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("the server's program starts");
    std::thread::sleep(after);
    child.kill().expect("the process is ours");
    let status = child.wait().expect("a child");
    assert_eq!(status.signal(), Some(9), "it ended by itself");
    tally.starts_killed += 1;
}

/// Starts on what the round before has left, checks it, loads it and ends it by the plan.
fn round(image: &Image, plan: &Plan, claims: &mut Claims, dice: &mut Dice, tally: &mut Tally) -> Vec<String> {
    kill_start(&image.data(), plan, tally);
    let server = Server::start(&image.data(), &plan.arguments());
    tally.starts += 1;
    let losses = claims.find_losses(&mut server.connect());
    let ended = claims.load(server, dice, |server| {
        std::thread::sleep(plan.load);
        match plan.end {
            End::Kill | End::KillAndCut => server.kill(),
            End::Cut => {
                image.cut_power();
                server.wait()
            }
        }
    });
    if plan.end == End::Cut {
        tally.cuts += 1;
        ended.assert_code(StopReason::LogWriteFailed.exit_code(), &["remedy"]);
    } else {
        tally.kills += 1;
        assert_eq!(ended.status.signal(), Some(9), "it ended by itself: {ended:#?}");
    }
    if plan.end == End::KillAndCut {
        tally.kills_with_cut += 1;
        image.cut_power();
    }
    if plan.end != End::Kill {
        image.mount_again();
    }
    let said = &ended.stderr;
    tally.snapshots += said.lines().filter(|line| line.contains("snapshots of all shards are on disk")).count();
    tally.starts_from_snapshots += usize::from(said.lines().any(loaded_a_snapshot));
    losses
}

/// Whether a line of the server's log is about a recovery that began with the entries of snapshots.
fn loaded_a_snapshot(line: &str) -> bool {
    let count = |rest: &str| rest.split(' ').next()?.parse::<u64>().ok();
    let entries =
        line.contains("recovered at ").then(|| line.split_once(" entries=").and_then(|(_, rest)| count(rest)));
    entries.flatten().is_some_and(|entries| entries > 0)
}

fn kill_again_and_again(file_system: FileSystem) {
    let Some(image) = Image::make(file_system, file_system.image_bytes()) else { return };
    let mut dice = Dice::new();
    let (name, seed, began) = (file_system.name(), dice.seed(), Instant::now());
    eprintln!("{name}: {} kills, EYOT_TEST_SEED={seed}", kills());
    let mut claims = Claims::new(CONNECTIONS, KEYS, ballast);
    let mut tally = Tally::default();
    while tally.kills < kills() {
        let plan = Plan::new(tally.starts, &mut dice);
        let losses = round(&image, &plan, &mut claims, &mut dice, &mut tally);
        assert!(losses.is_empty(), "{name}, before end {}: {losses:#?}", tally.starts);
    }
    let server = Server::start(&image.data(), &[]);
    let losses = claims.find_losses(&mut server.connect());
    assert!(losses.is_empty(), "{name}, after the last kill: {losses:#?}");
    server.kill();
    tell(name, &tally, claims.counts, began.elapsed());
}

/// Prints what was done, and fails where it was too little to prove anything.
fn tell(name: &str, tally: &Tally, counts: Counts, elapsed: Duration) {
    let Counts { sent, acknowledged, refused } = counts;
    eprintln!(
        "{name}: {} kills in {elapsed:.0?}, {} of them with a cut of the disk's power; {} cuts under a server that ran; \
         {} starts killed before they were done; {sent} writes sent, {acknowledged} acknowledged, {refused} refused; \
         {} rounds of snapshots finished; {} of {} starts from a snapshot; no acknowledged write is missing",
        tally.kills,
        tally.kills_with_cut,
        tally.cuts,
        tally.starts_killed,
        tally.snapshots,
        tally.starts_from_snapshots,
        tally.starts
    );
    assert!(acknowledged > 100 * tally.kills as u64, "no load, no proof");
    assert!(tally.snapshots > 0 && tally.starts_from_snapshots > 0, "no snapshots, no proof: {tally:?}");
    // Only a disk that is gone may be in the way of a write.
    assert!(tally.cuts > 0 || refused == 0, "{refused} writes were refused");
}

#[test]
fn ext4_keeps_what_was_acknowledged_however_often_the_server_is_killed() {
    kill_again_and_again(FileSystem::Ext4);
}

#[test]
fn xfs_keeps_what_was_acknowledged_however_often_the_server_is_killed() {
    kill_again_and_again(FileSystem::Xfs);
}
