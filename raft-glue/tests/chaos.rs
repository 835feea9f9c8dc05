//! A short storm over one group: what may happen at any time happens in random order, and nothing acknowledged is lost.
//!
//! One seed is one world; a failure prints its seed, and `EYOT_CHAOS_SEED=…` repeats it alone. The simulator of the
//! project goes much further; this is what runs with the crate's own tests.

mod harness;

use std::collections::BTreeMap;

use eyot_raft_glue::{
    EntryPosition, Fate, Index, LeaseSettings, MembershipChange, PeerId, ReadKind, Recovered, Settings,
};
use harness::{settings, Cluster, TICK_US};

const SEEDS: u64 = 1000;
const STEPS: usize = 600;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % sides as u64) as usize
    }
}

struct Storm {
    cluster: Cluster,
    dice: Dice,
    settings: Settings,
    next_command: u64,
    next_read: u64,
    next_peer: u64,
    /// Reads that were asked, and what was acknowledged then.
    asked: BTreeMap<u64, Index>,
    /// The newest place that was acknowledged to anyone.
    acknowledged: Index,
    done: BTreeMap<EntryPosition, String>,
    proposed: BTreeMap<EntryPosition, String>,
    /// What each place held that anyone applied.
    applied: BTreeMap<Index, (EntryPosition, bytes::Bytes)>,
}

impl Storm {
    fn new(seed: u64, base: &Settings) -> Self {
        let mut dice = Dice(seed);
        let lease = (dice.roll(2) == 0).then(LeaseSettings::default);
        let settings = Settings {
            lease,
            outstanding_readies_max: 1 + dice.roll(6),
            read_ticks_max: 60,
            snapshot_ticks_max: 50,
            ..base.clone()
        };
        let mut cluster = Cluster::new(3, 0, &settings);
        cluster.sync = dice.roll(3) == 0;
        Self {
            cluster,
            dice,
            settings,
            next_command: 0,
            next_read: 0,
            next_peer: 4,
            asked: BTreeMap::new(),
            acknowledged: Index(0),
            done: BTreeMap::new(),
            proposed: BTreeMap::new(),
            applied: BTreeMap::new(),
        }
    }

    fn anyone(&mut self) -> u64 {
        let all: Vec<u64> = self.cluster.replicas.keys().map(|peer| peer.0).collect();
        all[self.dice.roll(all.len())]
    }

    fn alive(&mut self, peer: u64) -> bool {
        self.cluster.replica(peer).group.is_some()
    }

    fn step(&mut self) {
        let peer = self.anyone();
        let alive = self.alive(peer);
        match self.dice.roll(40) {
            0..=5 => {
                self.cluster.now_us += TICK_US;
                for peer in self.cluster.replicas.keys().map(|peer| peer.0).collect::<Vec<_>>() {
                    if self.alive(peer) {
                        self.cluster.tick_one(peer);
                    }
                }
            }
            6..=20 => self.deliver(),
            21..=23 if alive => self.propose(peer),
            24..=25 if alive => self.read(peer),
            26..=28 if alive => self.cluster.sync(peer),
            29 => self.cluster.heal(),
            30 if self.dice.roll(3) == 0 => self.cluster.isolate(&[peer]),
            31 if alive && self.dice.roll(3) == 0 => {
                let kept = self.dice.roll(5);
                self.cluster.crash(peer, kept);
            }
            32..=34 if !alive => self.cluster.restart(peer),
            35 if alive => {
                let to = self.anyone();
                // Refused in most cases; that is what is to happen.
                let _ = self.cluster.group(peer).transfer(PeerId(to));
            }
            36 if alive && !self.cluster.group(peer).is_installing() => {
                self.cluster.apply(peer);
                self.cluster.cut_snapshot(peer);
                self.cluster.group(peer).compact(Index::MAX);
            }
            37 if alive => self.change(peer),
            38 if alive => self.cluster.group(peer).campaign(),
            _ => {}
        }
        self.cluster.poll_all();
        self.check();
    }

    fn deliver(&mut self) {
        if self.cluster.wire.is_empty() {
            return;
        }
        let place = self.dice.roll(self.cluster.wire.len().min(8));
        match self.dice.roll(20) {
            0 => drop(self.cluster.wire.remove(place)),
            1 => {
                let message = self.cluster.wire[place].clone();
                self.cluster.deliver(message);
            }
            _ => {
                for _ in 0..=self.dice.roll(4) {
                    if let Some(message) = self.cluster.wire.remove(place) {
                        self.cluster.deliver(message);
                    }
                }
            }
        }
        self.cluster.wire.truncate(200);
    }

    fn propose(&mut self, peer: u64) {
        self.next_command += 1;
        let command = format!("c{}", self.next_command);
        if let Ok(position) = self.cluster.propose(peer, &command) {
            assert!(self.proposed.insert(position, command).is_none(), "two proposals at {position:?}");
        }
    }

    fn read(&mut self, peer: u64) {
        self.next_read += 1;
        let kind = if self.dice.roll(2) == 0 { ReadKind::Lease } else { ReadKind::Linearizable };
        self.asked.insert(self.next_read, self.acknowledged);
        self.cluster.read(peer, self.next_read, kind);
    }

    fn change(&mut self, peer: u64) {
        let membership = self.cluster.group(peer).membership().clone();
        let other = PeerId(self.anyone());
        let change = match self.dice.roll(3) {
            0 if membership.peers().len() < 5 => MembershipChange::AddLearner(PeerId(self.next_peer)),
            1 => MembershipChange::Promote(other),
            _ if membership.voters.len() > 2 => MembershipChange::Remove(other),
            _ => return,
        };
        let mut changes = vec![change];
        if let (MembershipChange::Promote(_), Some(voter)) = (change, membership.voters.first()) {
            if self.dice.roll(2) == 0 && membership.voters.len() > 2 {
                changes.push(MembershipChange::Remove(*voter));
            }
        }
        if self.cluster.change(peer, &changes).is_ok() && change == MembershipChange::AddLearner(PeerId(self.next_peer))
        {
            self.cluster.add(PeerId(self.next_peer), &self.settings, Recovered::joining());
            self.next_peer += 1;
        }
    }

    fn check(&mut self) {
        let mut leaders = BTreeMap::new();
        for replica in self.cluster.replicas.values_mut() {
            if let Some(group) = replica.group.as_ref().filter(|group| group.is_leader()) {
                let before = leaders.insert(group.term(), replica.peer);
                assert_eq!(before, None, "two leaders in {:?}", group.term());
            }
            for outcome in replica.proposals.drain(..) {
                let command = self.proposed.get(&outcome.position).expect("it was proposed");
                if outcome.fate == Fate::Done {
                    self.done.insert(outcome.position, command.clone());
                    self.acknowledged = self.acknowledged.max(outcome.position.index);
                }
            }
            for (position, bytes) in &replica.state {
                let known = self.applied.entry(position.index).or_insert_with(|| (*position, bytes.clone()));
                assert_eq!((&known.0, &known.1), (position, bytes), "{:?} applies something else", replica.peer);
            }
            for outcome in replica.reads.drain(..) {
                let Ok(index) = outcome.result else { continue };
                let before = self.asked[&outcome.id.0];
                assert!(
                    index >= before,
                    "read {:?} is granted at {index:?}, and {before:?} was acknowledged",
                    outcome.id
                );
                assert!(replica.applied >= index, "granted before it is applied");
            }
        }
    }

    /// Everything works again: the group must elect, take a write, and be equal everywhere.
    fn calm(&mut self) {
        self.cluster.sync = true;
        self.cluster.heal();
        for peer in self.cluster.replicas.keys().map(|peer| peer.0).collect::<Vec<_>>() {
            if !self.alive(peer) {
                self.cluster.restart(peer);
            }
            self.cluster.sync(peer);
        }
        for _ in 0..40 {
            self.cluster.ticks(20);
            self.check();
            let Some(leader) = self.cluster.leader() else { continue };
            let Ok(position) = self.cluster.propose(leader, "calm") else { continue };
            self.proposed.insert(position, "calm".to_owned());
            self.cluster.settle();
            self.cluster.ticks(60);
            self.check();
            if self.done.contains_key(&position) && self.is_equal(leader) {
                return;
            }
        }
        panic!("no progress after the storm:\n{}", self.cluster.describe());
    }

    /// Whether all members have what the leader has, with nothing acknowledged missing.
    fn is_equal(&mut self, leader: u64) -> bool {
        let state = self.cluster.replica(leader).state.clone();
        for (position, command) in &self.done {
            assert!(
                state.contains(&(*position, bytes::Bytes::from(command.clone()))),
                "{command} at {position:?} is lost"
            );
        }
        let group = self.cluster.group(leader);
        let (members, joint) = (group.membership().peers(), group.membership().is_joint());
        !joint && members.iter().all(|peer| self.cluster.replica(peer.0).state == state)
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_a_storm() {
    let only = std::env::var("EYOT_CHAOS_SEED").ok().map(|seed| seed.parse().expect("a seed"));
    let seeds = only.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let mut done = 0;
    for seed in seeds {
        let world = std::panic::AssertUnwindSafe(|| {
            let mut storm = Storm::new(seed, &settings());
            (0..STEPS).for_each(|_| storm.step());
            storm.calm();
            storm.done.len()
        });
        match std::panic::catch_unwind(world) {
            Ok(count) => done += count,
            Err(panic) => {
                eprintln!("repeat with EYOT_CHAOS_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(only.is_some() || done > 1000, "{done} commands were acknowledged");
}

/// Whether a world with this mistake ends in a finding.
#[cfg(feature = "planted-bugs")]
fn is_found(seed: u64, bug: eyot_raft_glue::PlantedBug) -> bool {
    let base = Settings { planted: Some(bug), ..settings() };
    let world = std::panic::AssertUnwindSafe(|| {
        let mut storm = Storm::new(seed, &base);
        (0..STEPS).for_each(|_| storm.step());
        storm.calm();
    });
    std::panic::catch_unwind(world).is_err()
}

/// Mistakes that this storm finds; the others need what only the simulator does.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_mistakes_are_found() {
    use eyot_raft_glue::PlantedBug;
    let all = std::env::var_os("EYOT_CHAOS_ALL").is_some();
    let bugs = [
        PlantedBug::MessagesBeforeSync,
        PlantedBug::ReusedReadContext,
        PlantedBug::NoInstallGate,
        PlantedBug::EarlyPersistence,
        PlantedBug::ConflictNotRewritten,
        PlantedBug::UnsortedMembership,
        PlantedBug::GrantBeforeOwnCommit,
        PlantedBug::DoneAtAppend,
        PlantedBug::StagedBeforeComplete,
        PlantedBug::GrantBeforeApply,
        PlantedBug::StaleSnapshotMembership,
    ];
    // The panics that are wanted are not printed.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in if all { PlantedBug::ALL.to_vec() } else { bugs.to_vec() } {
        let seed = (0..4000).find(|seed| is_found(*seed, bug));
        println!("{bug:?}: {seed:?}");
        if seed.is_none() {
            missed.push(bug);
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
