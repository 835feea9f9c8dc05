//! One node: a process with its replicas, and the machine it runs on.
//!
//! Place in the flow: the world holds the nodes; `turn.rs` drives them. Everything in [`Node::process`] is gone when
//! the process ends; what is beside it stays.
//!
//! Invariant: a machine whose disk is gone never runs again under the same replica ids.

use std::collections::{BTreeMap, VecDeque};

use eyot_raft_glue::{
    Core, CoreSettings, EntryPosition, Group, GroupId, Identity, Index, LogEntry, NodeId, PeerId, Recovered,
    RecoveryError, Settings, SnapshotId, SnapshotMeta,
};

use crate::bugs::cuts_damaged_log;
use crate::client::Request;
use crate::clock::Time;
use crate::command::{Answer, Command};
use crate::dice::Dice;
use crate::disk::{Damage, Disk};
use crate::machine::{Machine, Recipe};
use crate::network::Place;

/// A read that waits for its grant.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Whose it is.
    pub request: Request,
    /// What it must see at least.
    pub floor: Index,
}

/// A proposal whose fate is not known.
#[derive(Debug)]
pub struct Proposal {
    /// The requests of which its commands come, in their order.
    pub requests: Vec<Request>,
    /// What came of them, when it is applied.
    pub answers: Option<Vec<Answer>>,
    /// Whether the group has called it done.
    pub is_done: bool,
}

/// One replica in a running process.
#[allow(clippy::struct_excessive_bools)] // Each says that an event is on its way.
pub struct Replica {
    /// The state.
    pub machine: Machine,
    /// Given out and not applied.
    pub queue: VecDeque<LogEntry>,
    /// Whether something will look at the queue later.
    pub is_apply_due: bool,
    /// Given out to be installed, and not installed.
    pub installing: Option<SnapshotMeta>,
    /// Whether something will install it later.
    pub is_install_due: bool,
    /// Offered by a peer and not staged.
    pub offered: Option<(PeerId, SnapshotId)>,
    /// Whether a snapshot is being written.
    pub is_building: bool,
    /// Where the newest snapshot stands that was begun.
    pub newest_built: Index,
    /// The last change of membership that it took as leader.
    pub change: Option<EntryPosition>,
    /// Requests that go into the next entry.
    pub gathered: Vec<(Request, Command)>,
    /// Whether something will propose them later.
    pub is_flush_due: bool,
    /// Proposals by place.
    pub proposals: BTreeMap<EntryPosition, Proposal>,
    /// Reads by number.
    pub reads: BTreeMap<u64, Asked>,
}

impl Replica {
    fn new(machine: Machine) -> Self {
        Self {
            newest_built: machine.applied(),
            machine,
            queue: VecDeque::new(),
            is_apply_due: false,
            installing: None,
            is_install_due: false,
            offered: None,
            is_building: false,
            change: None,
            gathered: Vec::new(),
            is_flush_due: false,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
        }
    }
}

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It was never used.
    Spare,
    /// Its process runs.
    Up,
    /// Its process has ended and will be started again.
    Down,
    /// Its disk is gone, or refused: its replicas will never run again.
    Lost,
    /// Its replicas were removed from their groups, and it was switched off.
    Retired,
}

/// One machine.
pub struct Node {
    /// Where it is.
    pub place: Place,
    /// What it is doing.
    pub life: Life,
    /// The id of its replicas, one for all groups.
    pub peer: PeerId,
    /// Counts the starts of its process.
    pub incarnation: u64,
    /// Consensus: the groups of its one core; none while the process does not run.
    pub core: Core,
    /// Its replicas by group; none while the process does not run.
    pub process: Vec<Replica>,
    /// Counts the connections to each machine; what an old one still had to send is gone with it.
    pub connections: BTreeMap<Place, u64>,
    /// Its disk.
    pub disk: Disk,
    /// Until when the process stands still.
    pub paused_until: Time,
    /// Until when the disk does not answer.
    pub stalled_until: Time,
    /// If the next write is to fail: how long the process is down then.
    pub sync_fails: Option<Time>,
    /// Whether its disk is damaged, so that its process must not start again.
    pub is_doomed: bool,
    /// Whether it has an id, and never ran under it.
    pub is_new: bool,
    /// How fast its clock runs, in parts per million.
    pub rate: u64,
    /// The number of its next read.
    pub next_read: u64,
}

/// What a process needs to start.
pub struct Start<'a> {
    /// How its groups are run.
    pub settings: &'a Settings,
    /// What state machines are made with.
    pub recipe: Recipe,
    /// How many groups.
    pub groups: u32,
    /// How its core is run.
    pub core: CoreSettings,
    /// Where replicas live.
    pub places: &'a BTreeMap<PeerId, Place>,
    /// Records after which the log is rewritten.
    pub records_kept_max: usize,
    /// The seed of its election timeouts.
    pub seed: u64,
}

/// Why a process does not start.
#[derive(Debug)]
#[allow(dead_code)] // What it carries is printed, and nobody looks at it otherwise.
pub enum Refusal {
    /// Its log is damaged.
    Damaged(Damage),
    /// Its log is whole, and a group does not believe it.
    NotBelieved(GroupId, RecoveryError),
    /// Its log names a snapshot that is not there.
    SnapshotMissing(GroupId, Box<SnapshotMeta>),
}

impl Node {
    /// A machine that nobody uses.
    pub fn spare(place: Place) -> Self {
        Self {
            place,
            life: Life::Spare,
            peer: PeerId(0),
            incarnation: 0,
            core: no_core(),
            process: Vec::new(),
            connections: BTreeMap::new(),
            disk: Disk::default(),
            paused_until: 0,
            stalled_until: 0,
            sync_fails: None,
            is_doomed: false,
            is_new: false,
            rate: 1_000_000,
            next_read: 0,
        }
    }

    /// One of the groups of its running process, to look at.
    pub fn group(&self, group: u32) -> &Group {
        self.core.group(GroupId(group)).expect("a running process has all groups")
    }

    /// Does something with one of the groups of its running process.
    pub fn with<T>(&mut self, group: u32, work: impl FnOnce(&mut Group) -> T) -> T {
        self.core.with(GroupId(group), work).expect("a running process has all groups")
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.life == Life::Up
    }

    /// What its clock shows.
    pub fn clock(&self, now: Time) -> Time {
        (u128::from(now) * u128::from(self.rate) / 1_000_000) as Time
    }

    /// How long this time of its clock takes.
    pub fn real(&self, shown: Time) -> Time {
        (u128::from(shown) * 1_000_000 / u128::from(self.rate)) as Time
    }

    /// Starts the process from what the disk has.
    pub fn start(&mut self, start: &Start<'_>, dice: &mut Dice) -> Result<(), Refusal> {
        let records = self.disk.recover(cuts_damaged_log(start.recipe.bug)).map_err(Refusal::Damaged)?;
        self.disk.rewrite(&records, start.groups, start.records_kept_max);
        let mut recovered = vec![Recovered::default(); start.groups as usize];
        records.into_iter().for_each(|record| recovered[record.group.0 as usize].replay(record));
        self.incarnation += 1;
        self.next_read = 0;
        self.core = Core::new(CoreSettings { node: NodeId(self.place.into()), ..start.core });
        let mut process = Vec::new();
        for (number, recovered) in recovered.into_iter().enumerate() {
            let group = GroupId(number as u32);
            process.push(self.start_replica(group, recovered, start, dice)?);
            start.places.iter().for_each(|(peer, place)| self.core.route(group, *peer, NodeId((*place).into())));
        }
        self.disk.staged.clear();
        self.process = process;
        self.connections.clear();
        self.life = Life::Up;
        self.is_new = false;
        Ok(())
    }

    fn start_replica(
        &mut self,
        group: GroupId,
        mut recovered: Recovered,
        start: &Start<'_>,
        dice: &mut Dice,
    ) -> Result<Replica, Refusal> {
        let named = recovered.snapshot.clone();
        let staged = self.disk.staged.get(&named.id).filter(|staged| staged.machine.group() == group).cloned();
        if let Some(staged) = staged {
            self.disk.finished.insert(named.id, staged);
        }
        let newest = self.disk.newest_snapshot(group).cloned();
        let newest = newest.filter(|newest| newest.meta.position.index >= named.position.index);
        let machine = match &newest {
            Some(newest) => newest.machine.out_of_snapshot(),
            None if named.id == SnapshotId::default() => Machine::new(group, named.position.index, start.recipe),
            None => return Err(Refusal::SnapshotMissing(group, Box::new(named))),
        };
        if let Some(newest) = &newest {
            // The log may keep what the snapshot contains, for followers, or not.
            if dice.chance(500_000) {
                recovered.start_at(newest.meta.clone());
            } else {
                recovered.applied = newest.meta.position.index;
                recovered.membership = newest.meta.membership.clone();
                recovered.hard_state.commit = recovered.hard_state.commit.max(recovered.applied);
            }
        }
        let identity = Identity { group, peer: self.peer, incarnation: self.incarnation, seed: start.seed };
        let mut group = Group::new(identity, start.settings.clone(), recovered)
            .map_err(|error| Refusal::NotBelieved(group, error))?;
        if let Some(newest) = &newest {
            group.snapshot_built(newest.meta.clone());
        }
        self.core.add(group);
        Ok(Replica::new(machine))
    }

    /// The process ends. Of a write under way anything may be on the disk. Whether anything was lost of it.
    pub fn end(&mut self, dice: &mut Dice) -> bool {
        self.core = no_core();
        self.process.clear();
        self.life = Life::Down;
        self.disk.end(dice)
    }

    /// A new disk: the machine can be used again, by a replica that never was.
    pub fn replace_disk(&mut self) {
        self.disk = Disk::default();
        self.life = Life::Spare;
        self.is_doomed = false;
    }
}

/// The core of a process that does not run: it has no group.
fn no_core() -> Core {
    Core::new(CoreSettings::new(NodeId::default()))
}
