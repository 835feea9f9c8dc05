//! Every call to the disk fails, once and for ever, with each kind of error: the node does what it promises.
//!
//! The calls are not written down here: a run on a good disk records them. Each then fails in a run of its own, which
//! is the same up to there. The promises, by who calls:
//!
//! | who calls | what happens |
//! |---|---|
//! | the log's writes | the node ends, and acknowledges nothing more |
//! | making segments | the log is not extended, goes on in what it has, and is extended when the error is gone |
//! | removing, cutting and recycling them | nothing is cut any more; the log goes on |
//! | writing snapshots | the snapshot is given up; the log goes on, and a later snapshot succeeds |
//! | a start | it is refused with the file's name, or goes on with an older snapshot; it changes nothing |
//!
//! In every case the power is cut at the end, and what was acknowledged is there.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::lifetimes::{live, nothing, truths_of, Seen};
use super::node::{create_directories, Bug, Death, Node, Troubles};
use super::truth::{self, Counts, Truth, SHARDS};
use super::{complaining, from_environment};
use crate::disk::{Failure, Fault, Kind, SimulatedDisk, Site, Target};
use crate::wal::SegmentError;

const SEED: u64 = 0xE44_0125;
const LIVES: u64 = 3;
const STEPS: u32 = 50;
/// Images of the power's end after each life.
const IMAGES: usize = 4;

/// What came of a fault.
#[derive(Default)]
struct Ran {
    /// Starts that were refused, and why.
    refused: Vec<String>,
    deaths: Vec<String>,
    troubles: Troubles,
    rejected: usize,
    /// All that was asked of the disks.
    calls: BTreeMap<Site, u32>,
}

/// A node's lives with a fault, and their promises as far as they are the same for all faults.
struct Run {
    disk: SimulatedDisk,
    fault: Option<Fault>,
    truth: Vec<Truth>,
    acknowledged: Counts,
    dice: StdRng,
    ran: Ran,
}

impl Run {
    fn of(seed: u64, fault: Option<Fault>) -> Result<Ran, String> {
        let mut run = Self {
            disk: SimulatedDisk::new(),
            fault,
            truth: nothing(),
            acknowledged: Counts::default(),
            dice: StdRng::seed_from_u64(seed),
            ran: Ran::default(),
        };
        run.fault.into_iter().for_each(|fault| run.disk.inject(fault));
        for life in 1..=LIVES {
            if life == 1 && create_directories(&run.disk).is_err() {
                run.cut_power()?;
                run.disk.heal();
                create_directories(&run.disk).map_err(|error| format!("the directories: {error}"))?;
            }
            // The dice of a life depend on nothing that went wrong before.
            run.dice = StdRng::seed_from_u64(seed + life);
            let node = match run.start(life) {
                Ok(node) => node,
                Err(refused) => {
                    run.ran.refused.push(refused);
                    run.cut_power()?;
                    run.disk.heal();
                    run.start(life).map_err(|error| format!("a start after the fault: {error}"))?
                }
            };
            run.live(node)?;
            run.cut_power()?;
        }
        run.note_calls();
        Ok(run.ran)
    }

    fn start(&mut self, life: u64) -> Result<Node, String> {
        let restored = truth::restore(&self.disk).map_err(|error| error.to_string())?;
        truth::check(&restored, &self.truth, self.acknowledged)?;
        self.ran.rejected += restored.rejected;
        Node::open(&self.disk, (Bug::None, life), restored, &self.truth).map_err(|Death(problem)| problem)
    }

    /// A life, and what it must be able to do when the fault is gone.
    fn live(&mut self, mut node: Node) -> Result<(), String> {
        let lived = live(&mut node, STEPS, &mut Seen::default(), &mut self.dice);
        let lived = lived.and_then(|()| {
            (0..SHARDS).for_each(|shard| node.snapshot(shard));
            node.drain(&mut self.dice)
        });
        let acknowledged = node.acknowledged();
        if let Err(Death(problem)) = lived {
            self.ran.deaths.push(problem);
        } else {
            if node.has_unwritten() && node.troubles.making.is_empty() {
                return Err("entries are not written, although every segment could be made".to_owned());
            }
            if self.has_met() {
                self.disk.heal();
                heals(&mut node, &mut self.dice)?;
            }
        }
        let reached = if self.ran.deaths.is_empty() { node.acknowledged() } else { acknowledged };
        self.acknowledged = reached;
        self.truth = truths_of(&node);
        let Troubles { making, cutting, snapshots } = std::mem::take(&mut node.troubles);
        self.ran.troubles.making.extend(making);
        self.ran.troubles.cutting.extend(cutting);
        self.ran.troubles.snapshots.extend(snapshots);
        Ok(())
    }

    fn has_met(&self) -> bool {
        let Some(Fault { target: Target::Site(site), .. }) = self.fault else { return false };
        self.disk.operations().iter().any(|operation| operation.site == site)
    }

    fn note_calls(&mut self) {
        for operation in self.disk.operations() {
            *self.ran.calls.entry(operation.site).or_default() += 1;
        }
    }

    /// The power is cut, some disks that a start may find are looked at, and the node goes on with one of them.
    fn cut_power(&mut self) -> Result<(), String> {
        self.note_calls();
        let has_met = self.has_met();
        let point = self.disk.crash_point();
        let mut fates = point.fates(IMAGES, &mut self.dice);
        fates.truncate(2 * IMAGES);
        for fates in &fates {
            let restored = truth::restore(&point.image(fates)).map_err(|error| format!("fates {fates:?}: {error}"))?;
            truth::check(&restored, &self.truth, self.acknowledged)?;
        }
        let chosen = &fates[self.dice.gen_range(0..fates.len())];
        self.disk = point.image(chosen);
        self.fault.into_iter().filter(|_| !has_met).for_each(|fault| self.disk.inject(fault));
        Ok(())
    }
}

/// The fault is gone: everything works again, without a new start.
fn heals(node: &mut Node, dice: &mut StdRng) -> Result<(), String> {
    let died = |Death(problem): Death| format!("it died of what was gone: {problem}");
    node.abort_snapshot();
    for shard in 0..SHARDS {
        node.append(shard, dice, 100);
        node.drain(dice).map_err(died)?;
        if node.has_unwritten() {
            return Err("writes do not come back".to_owned());
        }
        let before = node.snapshots_published();
        node.snapshot(shard);
        if node.snapshots_published() != before + 1 {
            return Err("snapshots do not come back".to_owned());
        }
    }
    Ok(())
}

/// What is wrong with how the node took the fault, beyond what [`Run`] looks at.
fn broken_promise(site: Site, failure: Failure, ran: &Ran) -> Option<String> {
    let file = site.location.file();
    let is_of = |part: &str| file.contains(part);
    let Ran { refused, deaths, troubles, rejected, .. } = ran;
    if is_of("prover/node.rs") && site.kind == Kind::Write {
        return (deaths.len() != 1).then(|| "the node goes on after a log write that failed".to_owned());
    }
    let texts = refused.iter().cloned();
    let texts = texts.chain(troubles.making.iter().chain(&troubles.cutting).map(ToString::to_string));
    let texts: Vec<String> = texts.chain(troubles.snapshots.iter().map(ToString::to_string)).collect();
    let is_silent = texts.is_empty() && *rejected == 0;
    // A snapshot's beginning that cannot be read makes the log be kept longer, and a transfer that was short is gone
    // on with; of the directories the test sees the failure itself.
    let may_be_silent = is_of("snapshot/load.rs") || is_of("prover/") || failure == Failure::Short;
    let of_segments = troubles.making.len() + troubles.cutting.len();
    if !deaths.is_empty() {
        Some(format!("the node ends: {deaths:?}"))
    } else if let Some(nameless) = texts.iter().find(|text| !text.contains('/')) {
        Some(format!("no file is named: {nameless}"))
    } else if is_silent && !may_be_silent {
        Some("nobody hears of it".to_owned())
    } else if of_segments > 0 && !is_of("wal/segment.rs") {
        Some(format!("the log has trouble: {:?} {:?}", troubles.making, troubles.cutting))
    } else if !troubles.snapshots.is_empty() && !is_of("snapshot/store.rs") {
        Some(format!("the snapshots have trouble: {:?}", troubles.snapshots))
    } else if failure == Failure::Error(libc::ENOSPC) && site.kind == Kind::Write {
        let is_it = |error: &SegmentError| matches!(error, SegmentError::NoSpace { .. });
        (!troubles.making.iter().all(is_it)).then(|| format!("a full disk is called {:?}", troubles.making))
    } else {
        None
    }
}

#[test]
fn every_call_fails_once_and_for_ever_and_the_promises_hold() {
    let seed = from_environment("EYOT_TEST_SEED").unwrap_or(SEED);
    let good = Run::of(seed, None).unwrap_or_else(|complaint| panic!("without a fault: {complaint}"));
    assert!(good.refused.is_empty() && good.deaths.is_empty() && good.rejected == 0);
    let (mut runs, mut complaints) = (0, Vec::new());
    for &site in good.calls.keys() {
        let may_be_short = matches!(site.kind, Kind::Write | Kind::Read);
        for failure in [Failure::Error(libc::EIO), Failure::Error(libc::ENOSPC), Failure::Short] {
            for lasts in [false, true] {
                if failure == Failure::Short && !may_be_short {
                    continue;
                }
                runs += 1;
                let fault = Fault { target: Target::Site(site), failure, lasts };
                let outcome = complaining(|| Run::of(seed, Some(fault)));
                let complaint = outcome.map_or_else(Some, |ran| broken_promise(site, failure, &ran));
                complaints.extend(complaint.map(|complaint| format!("{site}, {failure:?}, {lasts}: {complaint:.600}")));
            }
        }
    }
    println!("seed {seed:#x}: {} calls, {runs} runs", good.calls.len());
    assert!(
        complaints.is_empty(),
        "EYOT_TEST_SEED={seed:#x}: {} complaints:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
    // The calls of everyone were there to fail.
    for file in ["segment.rs", "survey.rs", "reader.rs", "store.rs", "load.rs", "node.rs"] {
        assert!(good.calls.keys().any(|site| site.location.file().ends_with(file)), "no call of {file}");
    }
    assert!(good.calls.len() >= 40, "{} calls", good.calls.len());
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_when_it_has_space_again() {
    let mut dice = StdRng::seed_from_u64(SEED);
    let disk = SimulatedDisk::new();
    create_directories(&disk).unwrap();
    let restored = truth::restore(&disk).unwrap();
    let mut node = Node::open(&disk, (Bug::None, 1), restored, &nothing()).map_err(|Death(problem)| problem).unwrap();
    disk.set_capacity(3 * 32 * 1024);
    for _ in 0..60 {
        node.append(0, &mut dice, 3000);
        node.drain(&mut dice).map_err(|Death(problem)| problem).unwrap();
    }
    assert!(node.has_unwritten() && !node.takes_writes());
    assert!(node.troubles.making.iter().all(|error| matches!(error, SegmentError::NoSpace { .. })));
    assert!(!node.troubles.making.is_empty());
    node.snapshot(0);
    assert_eq!(node.snapshots_published(), 0);
    let held = node.acknowledged();
    disk.set_capacity(u64::MAX);
    node.abort_snapshot();
    heals(&mut node, &mut dice).unwrap();
    assert!(node.acknowledged()[0] > held[0] + 1 && node.acknowledged()[0] > 60);
    let restored = truth::restore(&disk.crash_point().image(&[])).unwrap();
    truth::check(&restored, &truths_of(&node), node.acknowledged()).unwrap();
}
