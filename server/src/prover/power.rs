//! The power is cut at every operation, and every disk that a start may find then gives back what was acknowledged.
//!
//! A run makes 100,000 such disks; `EYOT_CRASH_IMAGES` asks for more. What is lost with the power is every subset of
//! the unsynced changes where there are at most eight, and subsets by dice beyond; a part of the starts has its power
//! cut at each of its own operations, and a part of the disks is first met by a start after the process alone has
//! ended.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::lifetimes::{live, start, story, truths_of, Seen, Story};
use super::node::{Bug, Death};
use super::truth::{self, Counts, Truth};
use super::{complaining, from_environment, plant, Planted};
use crate::disk::{CrashPoint, Fate, Kind, Lie, SimulatedDisk, Site};

const SEED: u64 = 0xC0FF_EE00;
/// Disks of a run that nobody asks more of.
const IMAGES: usize = 100_000;
/// A planted bug must be found in so many; most are in some thousands.
const CANARY_IMAGES: usize = 500_000;
/// Images of a crash point with more unsynced changes than are tried in every combination, and with torn sectors.
const RANDOM_IMAGES: usize = 10;
/// Of so many images, one is gone on with, and the power cut again at each operation.
const SECOND_CUT_OF: u32 = 100;
/// Images of a crash point of such a start.
const SECOND_IMAGES: usize = 3;
/// Of so many crash points, one is met by a start while the power is on.
const PROCESS_ENDS_OF: u32 = 20;
/// Of so many images, one is started with its newest snapshots damaged.
const DAMAGED_OF: u32 = 8;

/// How a run came out.
#[derive(Default)]
struct Verdict {
    complaint: Option<String>,
    images: usize,
    starts_cut: usize,
    fallbacks: usize,
    sites: BTreeSet<Site>,
    seen: Seen,
}

impl Verdict {
    fn add(&mut self, other: Self) {
        self.complaint = self.complaint.take().or(other.complaint);
        self.images += other.images;
        self.starts_cut += other.starts_cut;
        self.fallbacks += other.fallbacks;
        self.sites.extend(other.sites);
        self.seen.add(&other.seen);
    }

    /// A story by this seed, and all that the power's end makes of it.
    fn of_story(seed: u64, (bug, lie): (Bug, Option<Lie>)) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let disk = SimulatedDisk::new();
        lie.into_iter().for_each(|lie| disk.lie(lie));
        let mut verdict = Self::default();
        let told = complaining(|| story(&disk, bug, &mut dice));
        let judged = told.and_then(|story| {
            verdict.seen = story.seen;
            verdict.judge(&story, (bug, lie), &mut dice)
        });
        verdict.complaint = judged.err().map(|complaint| format!("EYOT_TEST_SEED={seed:#x}: {complaint}"));
        verdict
    }

    fn judge(&mut self, story: &Story, how: (Bug, Option<Lie>), dice: &mut StdRng) -> Result<(), String> {
        for point in &story.points {
            self.sites.extend(point.operation.as_ref().map(|operation| operation.site));
            for fates in point.fates(RANDOM_IMAGES, dice) {
                self.judge_image(point, &fates, &story.truths, dice)
                    .map_err(|complaint| told(point, &fates, &complaint))?;
                if dice.gen_ratio(1, SECOND_CUT_OF) {
                    let image = point.image(&fates);
                    self.go_on((&image, true), point, &story.truths, how, dice)
                        .map_err(|complaint| told(point, &fates, &complaint))?;
                }
            }
            if dice.gen_ratio(1, PROCESS_ENDS_OF) {
                self.go_on((&point.without_process(), false), point, &story.truths, how, dice)
                    .map_err(|complaint| told(point, &[], &format!("the process alone ended: {complaint}")))?;
            }
        }
        Ok(())
    }

    fn judge_image(
        &mut self,
        point: &CrashPoint,
        fates: &[Fate],
        truths: &[Vec<Truth>],
        dice: &mut StdRng,
    ) -> Result<(), String> {
        self.images += 1;
        let (life, acknowledged) = truth::marked(point.mark);
        let truth = &truths[life as usize];
        let image = point.image(fates);
        complaining(|| truth::check_names(&image))?;
        if dice.gen_ratio(1, DAMAGED_OF) {
            let damaged = point.image(fates);
            if truth::damage_newest(&damaged) {
                self.fallbacks += 1;
                complaining(|| judge_start(&damaged, truth, acknowledged))
                    .map_err(|complaint| format!("the newest snapshots are damaged: {complaint}"))?;
            }
        }
        complaining(|| judge_start(&image, truth, acknowledged))
    }

    /// A start on `image`, which goes on for a while and has its power cut at each operation. `was_off`: the power was
    /// cut before, too.
    ///
    /// If it was not, a write of the life before that failed may be on the disk after all, and show only when the power
    /// is back. Until this life has made something durable, whose segment names where the log before it ended, such a
    /// write is one that nobody was told of, and that may come: the state is that of the life before.
    fn go_on(
        &mut self,
        (image, was_off): (&SimulatedDisk, bool),
        point: &CrashPoint,
        truths: &[Vec<Truth>],
        (bug, lie): (Bug, Option<Lie>),
        dice: &mut StdRng,
    ) -> Result<(), String> {
        self.starts_cut += 1;
        lie.into_iter().for_each(|lie| image.lie(lie));
        image.mark(point.mark);
        image.record();
        let life = truth::marked(point.mark).0;
        let (next, found) = complaining(|| {
            let mut node = start(image, (bug, life + 1), &truths[life as usize])?;
            let found = node.acknowledged();
            live(&mut node, 5, &mut Seen::default(), dice).map_err(|Death(problem)| problem)?;
            Ok((truths_of(&node), found))
        })?;
        let mut truths = truths[..=life as usize].to_vec();
        truths.push(next);
        for second in image.crash_points() {
            let mut all = second.fates(RANDOM_IMAGES, dice);
            let (some, _) = all.partial_shuffle(dice, SECOND_IMAGES);
            for fates in some.iter() {
                let judged = self.judge_image(&second, fates, &truths, dice);
                let may_be_before = !was_off && truth::marked(second.mark) == (life + 1, found);
                judged
                    .or_else(|complaint| {
                        if may_be_before {
                            judge_start(&second.image(fates), &truths[life as usize], found)
                        } else {
                            Err(complaint)
                        }
                    })
                    .map_err(|complaint| told(&second, fates, &complaint))?;
            }
        }
        Ok(())
    }
}

fn told(point: &CrashPoint, fates: &[Fate], complaint: &str) -> String {
    let operation = point.operation.as_ref().map_or("at the end".to_owned(), ToString::to_string);
    format!("{operation}, fates {fates:?}: {complaint}")
}

fn judge_start(image: &SimulatedDisk, truth: &[Truth], acknowledged: Counts) -> Result<(), String> {
    let restored = truth::restore(image).map_err(|error| error.to_string())?;
    truth::check(&restored, truth, acknowledged)
}

/// Story after story by seeds that follow `SEED`, on all processors, until there were so many images or a complaint.
fn prove(images: usize, how: (Bug, Option<Lie>), planted: Option<Planted>) -> Verdict {
    if let Some(seed) = from_environment("EYOT_TEST_SEED") {
        plant(planted);
        return Verdict::of_story(seed, how);
    }
    let (next, done) = (AtomicU64::new(SEED), AtomicUsize::new(0));
    let total = Mutex::new(Verdict::default());
    let work = || {
        plant(planted);
        while done.load(Ordering::Relaxed) < images {
            let verdict = Verdict::of_story(next.fetch_add(1, Ordering::Relaxed), how);
            let made = if verdict.complaint.is_some() { images } else { verdict.images };
            done.fetch_add(made, Ordering::Relaxed);
            total.lock().expect("no thread panics with it").add(verdict);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    total.into_inner().expect("no thread panics with it")
}

/// In this story a write to the log fails, a start finds the log without it, and the next power cut brings it back.
#[test]
fn a_write_that_failed_may_come_back_with_the_power() {
    assert_eq!(Verdict::of_story(0xC0FF_EE5E, (Bug::None, None)).complaint, None);
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let images = from_environment("EYOT_CRASH_IMAGES").map_or(IMAGES, |images| images as usize);
    let verdict = prove(images, (Bug::None, None), None);
    assert_eq!(verdict.complaint, None, "image {}", verdict.images);
    let Verdict { images: made, starts_cut, fallbacks, sites, seen, .. } = verdict;
    println!("seeds from {SEED:#x} on: {made} images, {starts_cut} starts cut again, {fallbacks} fallbacks, {seen:?}");
    if from_environment("EYOT_TEST_SEED").is_some() {
        return;
    }
    assert!(made >= images && starts_cut > 100 && fallbacks > 100, "too little of something");
    let Seen { deaths, kills, closed, snapshots, uploads, two_in_flight } = seen;
    assert!([deaths, kills, closed, snapshots, uploads, two_in_flight].iter().all(|&count| count > 2), "{seen:?}");
    // The places at which it was cut were all that change something: made, recycled, removed, published.
    for (kind, file) in [
        (Kind::Write, "prover/node.rs"),
        (Kind::Write, "wal/segment.rs"),
        (Kind::Rename, "wal/segment.rs"),
        (Kind::RemoveFile, "wal/segment.rs"),
        (Kind::SetLength, "wal/segment.rs"),
        (Kind::Sync, "wal/recovery/reader.rs"),
        (Kind::Write, "snapshot/store.rs"),
        (Kind::Rename, "snapshot/store.rs"),
        (Kind::RemoveFile, "snapshot/store.rs"),
        (Kind::SyncDirectory, "snapshot/store.rs"),
    ] {
        let is_it = |site: &Site| site.kind == kind && site.location.file().ends_with(file);
        assert!(sites.iter().any(is_it), "no cut at a {kind:?} of {file}");
    }
}

/// The canaries of the test above.
#[test]
fn each_planted_bug_is_found() {
    let lies = [Lie::Sync, Lie::SyncDirectory, Lie::DurableWrites, Lie::ShortWrites];
    let bugs = [
        Bug::AcknowledgesUnsynced,
        Bug::AcknowledgesOutOfOrder,
        Bug::CutsBeforePublishing,
        Bug::ForgetsUploads,
        Bug::CutsBelowNewest,
    ];
    let of_disk = lies.map(|lie| (Bug::None, Some(lie), None));
    let of_driver = bugs.map(|bug| (bug, None, None));
    let of_code = [Planted::ChecksumNotChecked, Planted::OldNameNotSynced].map(|bug| (Bug::None, None, Some(bug)));
    for (bug, lie, planted) in of_disk.into_iter().chain(of_driver).chain(of_code) {
        let verdict = prove(CANARY_IMAGES, (bug, lie), planted);
        plant(None);
        let complaint = verdict.complaint.unwrap_or_else(|| panic!("{bug:?}, {lie:?}, {planted:?} is not found"));
        println!("{bug:?}, {lie:?}, {planted:?}: after {} images: {complaint:.200}", verdict.images);
    }
}
