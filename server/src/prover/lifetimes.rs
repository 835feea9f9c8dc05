//! Lives of a node, by dice: entries, group commit, large values, snapshots, cuts, ends in order and otherwise.
//!
//! Place in the flow: gives the provers their crash points and their call sites.
//!
//! Invariant: everything follows from the dice that come in.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::Rng;

use super::node::{create_directories, Bug, Death, Node};
use super::truth::{self, Counts, Truth, SHARDS};
use crate::disk::{CrashPoint, Failure, Fault, Kind, SimulatedDisk, Site, Target};

/// Steps of a life, at most.
const STEPS_MAX: u32 = 24;
/// Lives of a story.
const LIVES: u64 = 3;

/// What happened, so that a proof can say that it has seen everything.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) deaths: u32,
    pub(super) kills: u32,
    pub(super) closed: u32,
    pub(super) snapshots: u32,
    pub(super) uploads: u32,
    pub(super) two_in_flight: u32,
}

impl Seen {
    pub(super) fn add(&mut self, other: &Self) {
        self.deaths += other.deaths;
        self.kills += other.kills;
        self.closed += other.closed;
        self.snapshots += other.snapshots;
        self.uploads += other.uploads;
        self.two_in_flight += other.two_in_flight;
    }
}

/// Some lives on one disk.
pub(super) struct Story {
    /// Every moment at which the power may be cut.
    pub(super) points: Vec<CrashPoint>,
    /// What is true in each life; the first one is that nothing was ever there.
    pub(super) truths: Vec<Vec<Truth>>,
    pub(super) seen: Seen,
}

/// What is true of a node that was never there.
pub(super) fn nothing() -> Vec<Truth> {
    (0..SHARDS).map(|shard| Truth::of(shard, Vec::new())).collect()
}

/// A new node's lives. The error is a complaint: a start that should have gone well did not.
pub(super) fn story(disk: &SimulatedDisk, bug: Bug, dice: &mut StdRng) -> Result<Story, String> {
    create_directories(disk).map_err(|error| error.to_string())?;
    disk.record();
    let (mut truths, mut seen) = (vec![nothing()], Seen::default());
    for life in 1..=LIVES {
        let mut node = start(disk, (bug, life), truths.last().expect("one is there"))?;
        let (before, after) = (dice.gen_range(4..=STEPS_MAX / 2), dice.gen_range(0..=STEPS_MAX / 2));
        let end = live(&mut node, before, &mut seen, dice).and_then(|()| {
            inject(disk, life == LIVES, dice);
            live(&mut node, after, &mut seen, dice)
        });
        seen.deaths += u32::from(end.is_err());
        if end.is_ok() && dice.gen_bool(0.3) {
            seen.closed += u32::from(node.close(dice).is_ok());
        } else {
            seen.kills += 1;
        }
        truths.push(truths_of(&node));
        drop(node);
        disk.heal();
        disk.end_process();
    }
    Ok(Story { points: disk.crash_points(), truths, seen })
}

/// What is true at the end of a life, and whatever of it the disk has.
pub(super) fn truths_of(node: &Node) -> Vec<Truth> {
    (0..).zip(node.histories()).map(|(shard, history)| Truth::of(shard, history)).collect()
}

/// Starts a node on a disk that holds the truth, in part.
pub(super) fn start(disk: &SimulatedDisk, (bug, life): (Bug, u64), truth: &[Truth]) -> Result<Node, String> {
    let restored = truth::restore(disk).map_err(|error| error.to_string())?;
    truth::check(&restored, truth, Counts::default())?;
    Node::open(disk, (bug, life), restored, truth).map_err(|Death(problem)| problem)
}

/// Something may go wrong on the disk. What a sync that failed leaves behind only the end of the power makes good, so
/// that is for the last life.
fn inject(disk: &SimulatedDisk, is_last: bool, dice: &mut StdRng) {
    let failure = match dice.gen_range(0..4) {
        0 | 1 => Failure::Short,
        2 if is_last => Failure::Error(libc::EIO),
        3 if is_last => Failure::Error(libc::ENOSPC),
        _ => return,
    };
    // Something that was done before, and is likely to be done again; every second time, a write to the log.
    let wants_log = dice.gen_bool(0.5);
    let is_log = |site: &Site| site.kind == Kind::Write && site.location.file().ends_with("node.rs");
    let operations = disk.operations();
    let sites = operations.iter().map(|operation| operation.site);
    let sites: Vec<Site> = sites.filter(|site| site.kind.is_change() && (!wants_log || is_log(site))).collect();
    if let Some(site) = sites.choose(dice) {
        disk.inject(Fault { target: Target::Site(*site), failure, lasts: false });
    }
}

/// A life of so many steps.
pub(super) fn live(node: &mut Node, steps: u32, seen: &mut Seen, dice: &mut StdRng) -> Result<(), Death> {
    for _ in 0..steps {
        if !node.takes_writes() {
            node.drain(dice)?;
        }
        let shard = dice.gen_range(0..SHARDS);
        match dice.gen_range(0..14) {
            0..=4 => {
                // Two writes, if nothing is under way.
                for _ in 0..2 {
                    for _ in 0..dice.gen_range(1..3) {
                        let zeros_max = if dice.gen_bool(0.2) { 9000 } else { 600 };
                        node.append(dice.gen_range(0..SHARDS), dice, zeros_max);
                    }
                    node.submit()?;
                    seen.two_in_flight += u32::from(node.writes_in_flight() == 2);
                }
            }
            5 => {
                node.begin_upload(shard, dice);
                seen.uploads += 1;
            }
            6 | 7 => {
                if node.writes_in_flight() > 0 {
                    node.land(dice.gen_range(0..node.writes_in_flight()))?;
                }
            }
            8 => node.drain(dice)?,
            9 => {
                node.begin_snapshot(shard);
                node.go_on_with_snapshot();
            }
            _ => {
                let before = node.snapshots_published();
                node.snapshot(shard);
                seen.snapshots += node.snapshots_published() - before;
            }
        }
    }
    Ok(())
}
