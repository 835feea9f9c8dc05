//! One world: everything that one seed stands for, from its beginning to its judgement.
//!
//! Place in the flow: [`run`] is what tests, campaigns, replays and the shrinker call. The loop takes one event after
//! another from the clock; what an event does stands in the module of its subject:
//!
//! | module | does |
//! |---|---|
//! | `turn` | a node's turn: messages, disk, applying, replies |
//! | `streams` | snapshots: built, streamed, staged, installed |
//! | `mischief`, `traps` | faults begin and end |
//! | `operator` | nodes are added, removed and replaced |
//! | `judgement` | after the faults: progress, agreement, histories |
//!
//! Invariants:
//! - A world is one thread, reads no clock and no random number, and depends on no address and no hash seed.
//! - A step is one event. After each the checks of `truth` have been made for whatever it did.

use std::rc::Rc;

use eyot_raft_glue::{
    CoreSettings, GroupId, Index, LeaseSettings, Membership, NodeId, PeerId, PersistRecord, ReadyNumber, Recovered,
    Settings, Turn as CoreTurn,
};

use crate::client::{Client, Next, Reply, Request};
use crate::clock::{Clock, Time, MILLISECOND, SECOND};
use crate::command::Operation;
use crate::counts::{Count, Counts};
use crate::dice::Dice;
use crate::disk::{to_record, Snapshot, RECORDS_KEPT_MAX};
use crate::history::History;
use crate::machine::Recipe;
use crate::network::{Network, Place};
use crate::node::{Life, Node, Start};
use crate::operator::Operator;
use crate::plan::{Kind, Plan, NODES_MAX};
use crate::streams::Stream;
use crate::trace::Trace;
use crate::traps::Stage;
use crate::truth::{Check, Truth, Violation};
use crate::turn::Sent;
use crate::Bug;

/// Steps of one world at most: far above what any world takes, so one that reaches it runs in a circle.
pub const STEPS_MAX: u64 = 3_000_000;

/// Events to come of one world at most: some thousand times what a busy one has. What has more makes events out of
/// events, and would end with the machine's memory, without a word.
pub const EVENTS_MAX: usize = 500_000;

/// How long a tick is on a clock that is right.
pub const TICK: Time = 50 * MILLISECOND;

/// How long clients go on after the faults have ended.
pub const CLIENTS_GO_ON: Time = 2 * SECOND;

/// What happens.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A node's clock ticks.
    Tick { place: Place, incarnation: u64 },
    /// A frame arrives.
    Frame { from: Place, to: Place, frame: Rc<Sent> },
    /// A frame has left the process that sent it.
    Left { place: Place, incarnation: u64, to: Place, connection: u64, bytes: usize },
    /// A write to a disk is complete.
    Written { place: Place, incarnation: u64 },
    /// It is time to apply one more entry.
    Apply { place: Place, incarnation: u64, group: u32 },
    /// A snapshot is read and can be installed.
    Install { place: Place, incarnation: u64, group: u32 },
    /// It is time to propose what has gathered.
    Flush { place: Place, incarnation: u64, group: u32 },
    /// A client thinks of something.
    Think { client: usize },
    /// A client asks again.
    Retry { client: usize, operation: Operation },
    /// A client's patience ends.
    Timeout { request: Request },
    /// A request arrives at a node.
    Request { to: Place, request: Request },
    /// A reply arrives at its client.
    Reply { reply: Reply },
    /// A snapshot is finished and durable.
    Built { place: Place, incarnation: u64, snapshot: Rc<Snapshot> },
    /// The next part of a snapshot stream.
    Chunk { stream: u64 },
    /// A snapshot from a peer is durable.
    Staged { place: Place, incarnation: u64, snapshot: Rc<Snapshot> },
    /// Fetching an offered snapshot has failed.
    FetchFailed { place: Place, incarnation: u64, meta: Box<eyot_raft_glue::SnapshotMeta>, group: u32 },
    /// The sender learns how its stream ended.
    StreamEnded { place: Place, incarnation: u64, group: u32, to: PeerId, is_ok: bool },
    /// A fault of the plan begins.
    Fault { item: usize },
    /// The next part of a trap.
    Trap { item: usize, stage: Stage },
    /// It ends.
    Mend { item: usize },
    /// A process starts.
    Start { place: Place },
    /// The operator looks at the cluster.
    Operate,
    /// Faults are over.
    Heal,
    /// Is everything well?
    Judge,
}

/// How a world is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether the lines of the trace are kept.
    pub with_lines: bool,
    /// A mistake that is planted, to see whether it is found.
    pub bug: Option<Bug>,
}

/// What came of a world.
#[derive(Debug, Clone)]
pub struct Report {
    /// The hash of everything that happened.
    pub hash: u64,
    /// What was counted.
    pub counts: Counts,
    /// What was found wrong.
    pub violation: Option<Violation>,
    /// The lines of the trace, if they were kept.
    pub lines: Vec<String>,
}

/// Everything there is.
#[allow(clippy::struct_excessive_bools)] // Habits, and the two ends of a world.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) clock: Clock<Event>,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    pub(crate) history: History,
    pub(crate) truth: Truth,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    pub(crate) operator: Operator,
    pub(crate) streams: std::collections::BTreeMap<u64, Stream>,
    pub(crate) settings: Settings,
    pub(crate) recipe: Recipe,
    /// How many entries a state machine applies between two snapshots.
    pub(crate) snapshot_every: u64,
    pub(crate) is_apply_slow: bool,
    pub(crate) slow_disks: Option<Time>,
    /// How cores are run in this world.
    pub(crate) core_settings: CoreSettings,
    /// Whether frames need time to leave a process, so that what waits for one node meets its bound.
    pub(crate) is_link_slow: bool,
    pub(crate) disk_dice: Dice,
    pub(crate) node_dice: Dice,
    pub(crate) client_dice: Dice,
    pub(crate) output: CoreTurn,
    pub(crate) next_peer: u64,
    pub(crate) next_operation: Operation,
    pub(crate) next_stream: u64,
    pub(crate) next_snapshot: u64,
    /// Until when clients only read.
    pub(crate) only_reads_until: Time,
    pub(crate) is_healed: bool,
    pub(crate) is_over: bool,
}

/// Runs the world of a plan to its end, or to the first thing that is wrong.
pub fn run(plan: Plan, options: Options) -> Report {
    let mut world = World::new(plan, options);
    world.begin();
    let mut steps = 0;
    while !world.is_over && world.truth.violation.is_none() && steps < STEPS_MAX {
        let Some(event) = world.clock.next_event() else {
            world.truth.fail(Check::NoProgress, || "nothing is to come, and the world is not judged".to_owned());
            break;
        };
        world.truth.now = world.clock.now();
        world.happen(event);
        steps += 1;
        if world.clock.len() > EVENTS_MAX {
            world.truth.fail(Check::NoProgress, || format!("more than {EVENTS_MAX} events are to come"));
        }
    }
    world.counts.add(Count::Steps, steps);
    world.conclude(steps)
}

impl World {
    fn new(plan: Plan, options: Options) -> Self {
        let mut dice = Dice::new(plan.seed, 3);
        let places = (plan.voters + 2).min(NODES_MAX) as Place;
        let membership = Membership::new((1..=plan.voters as u64).map(PeerId), []);
        let settings = settings_of(&plan, options, &mut dice);
        let early = plan.habit(Kind::EarlyCompaction).is_some();
        let habit_dice = |kind| plan.habit(kind).map(|item| Dice::new(item.dice, 0));
        Self {
            clock: Clock::new(),
            network: Network::of(&plan),
            nodes: (0..places).map(Node::spare).collect(),
            clients: (0..plan.clients).map(|number| Client::of(&plan, number, places)).collect(),
            history: History::default(),
            truth: Truth::new(plan.groups, Index(1), &membership),
            trace: Trace::new(options.with_lines),
            counts: Counts::new(),
            operator: Operator::new(&plan),
            streams: std::collections::BTreeMap::new(),
            settings,
            recipe: Recipe { sessions_max: *dice.pick(&[2, 4, 8, 32]).expect("a choice"), bug: options.bug },
            snapshot_every: if early { dice.between(3, 40) } else { dice.between(200, 1_500) },
            is_apply_slow: plan.habit(Kind::SlowApply).is_some(),
            slow_disks: habit_dice(Kind::SlowDisks).map(|mut dice| MILLISECOND << dice.below(9)),
            core_settings: core_settings_of(&mut dice),
            is_link_slow: dice.chance(250_000),
            disk_dice: Dice::new(plan.seed, 4),
            node_dice: Dice::new(plan.seed, 5),
            client_dice: Dice::new(plan.seed, 6),
            output: CoreTurn::default(),
            next_peer: plan.voters as u64 + 1,
            next_operation: 1,
            next_stream: 0,
            next_snapshot: 0,
            only_reads_until: 0,
            is_healed: false,
            is_over: false,
            plan,
        }
    }

    /// The founding nodes are there, and everything that will happen by itself is known to the clock.
    fn begin(&mut self) {
        let membership = Membership::new((1..=self.plan.voters as u64).map(PeerId), []);
        let founding = Recovered::founding(membership);
        for place in 0..self.plan.voters {
            let groups = 0..self.plan.groups;
            let record = |group| to_record(GroupId(group), ReadyNumber::default(), &founding);
            let records: Vec<PersistRecord> = groups.map(record).collect();
            self.nodes[place].peer = PeerId(place as u64 + 1);
            self.nodes[place].disk.format(&records);
            self.nodes[place].life = Life::Down;
            let delay = self.node_dice.below(SECOND);
            self.clock.after(delay, Event::Start { place: place as Place });
        }
        self.set_rates();
        for client in 0..self.clients.len() {
            let delay = self.client_dice.below(SECOND);
            self.clock.after(delay, Event::Think { client });
        }
        for (item, fault) in self.plan.items.iter().enumerate() {
            if !fault.kind.is_habit() {
                self.clock.at(fault.at, Event::Fault { item });
            }
        }
        self.clock.at(self.plan.healed_at, Event::Heal);
        self.clock.after(SECOND, Event::Operate);
    }

    /// How fast each node's clock runs. With leases they differ by less than the leases allow.
    fn set_rates(&mut self) {
        let Some(mut dice) = self.plan.habit(Kind::Skew).map(|item| Dice::new(item.dice, 0)) else { return };
        let most = if self.settings.lease.is_some() { 4_000 } else { 400_000 };
        for node in &mut self.nodes {
            node.rate = 1_000_000 - most + dice.below(2 * most);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { place, incarnation } => self.ticks(place, incarnation),
            Event::Frame { from, to, frame } => self.frame_arrives(from, to, &frame),
            Event::Left { place, incarnation, to, connection, bytes } => {
                self.frame_left(place, incarnation, to, connection, bytes);
            }
            Event::Written { place, incarnation } => self.written(place, incarnation),
            Event::Apply { place, incarnation, group } => self.apply_is_due(place, incarnation, group),
            Event::Install { place, incarnation, group } => self.install(place, incarnation, group),
            Event::Flush { place, incarnation, group } => self.flush_is_due(place, incarnation, group),
            Event::Think { client } => self.client_thinks(client),
            Event::Retry { client, operation } => self.client_retries(client, operation),
            Event::Timeout { request } => self.client_times_out(&request),
            Event::Request { to, request } => self.request_arrives(to, request),
            Event::Reply { reply } => self.reply_arrives(&reply),
            Event::Built { place, incarnation, snapshot } => self.built(place, incarnation, &snapshot),
            Event::Chunk { stream } => self.chunk(stream),
            Event::Staged { place, incarnation, snapshot } => self.staged(place, incarnation, &snapshot),
            Event::FetchFailed { place, incarnation, meta, group } => {
                self.fetch_failed(place, incarnation, &meta, group);
            }
            Event::StreamEnded { place, incarnation, group, to, is_ok } => {
                self.stream_ended(place, incarnation, group, to, is_ok);
            }
            Event::Fault { item } => self.fault_begins(item),
            Event::Trap { item, stage } => self.trap(item, stage),
            Event::Mend { item } => self.fault_ends(item),
            Event::Start { place } => self.starts(place),
            Event::Operate => self.operate(),
            Event::Heal => self.heal(),
            Event::Judge => self.judge(),
        }
    }

    /// The node at `place`, if this life of its process still runs. While it stands still, what happens to it waits:
    /// the event is put back.
    pub(crate) fn awake(&mut self, place: Place, incarnation: u64, event: impl FnOnce() -> Event) -> bool {
        let node = &self.nodes[place as usize];
        if !node.is_up() || node.incarnation != incarnation {
            return false;
        }
        let paused_until = node.paused_until;
        if paused_until > self.clock.now() {
            self.clock.at(paused_until, event());
            return false;
        }
        true
    }

    /// A process starts from its disk.
    pub(crate) fn starts(&mut self, place: Place) {
        let node = &mut self.nodes[place as usize];
        if node.life != Life::Down {
            return;
        }
        let start = Start {
            settings: &self.settings,
            recipe: self.recipe,
            groups: self.plan.groups,
            records_kept_max: if self.snapshot_every < 100 { 20 } else { RECORDS_KEPT_MAX },
            core: self.core_settings,
            places: &self.operator.places,
            seed: self.plan.seed,
        };
        let result = node.start(&start, &mut self.node_dice);
        let now = self.clock.now();
        self.trace.note(now, 1, [u64::from(place), node.incarnation, u64::from(result.is_ok())]);
        let peer = node.peer;
        self.trace.line(now, || format!("{place}: starts as {peer:?}: {:?}", result.as_ref().err()));
        if let Err(refusal) = result {
            self.refuses(place, &refusal);
            return;
        }
        if node.is_doomed {
            self.truth.fail(Check::DamageBelieved, || format!("node {place} starts from a log that is damaged"));
            return;
        }
        for group in node.core.groups() {
            self.truth.membership_as_of(group.identity().group, group.last_applied(), group.membership());
        }
        let incarnation = node.incarnation;
        let first = self.node_dice.below(TICK);
        self.clock.after(first, Event::Tick { place, incarnation });
        self.turn(place);
    }

    fn client_thinks(&mut self, client: usize) {
        if self.is_healed && self.clock.now() > self.plan.healed_at + CLIENTS_GO_ON {
            return;
        }
        let operation = self.next_operation;
        self.next_operation += 1;
        let now = self.clock.now();
        let only_reads = now < self.only_reads_until;
        let next = self.clients[client].ask(operation, only_reads, now, &mut self.history);
        self.client_does(client, next);
    }

    fn client_retries(&mut self, client: usize, operation: Operation) {
        if self.clients[client].waits_for_operation(operation) {
            self.counts.one(Count::WritesRetried);
            let next = self.clients[client].send_again();
            self.client_does(client, next);
        }
    }

    fn client_times_out(&mut self, request: &Request) {
        let now = self.clock.now();
        let (next, not_applied) = self.clients[request.client].times_out(request, now, &mut self.history);
        self.client_knows(not_applied);
        self.client_does(request.client, next);
    }

    fn reply_arrives(&mut self, reply: &Reply) {
        let now = self.clock.now();
        let client = reply.request.client;
        self.trace.note(now, 2, [client as u64, reply.request.ask.operation(), reply.request.attempt]);
        self.trace.line(now, || format!("client {client}: is told {:?} of {:?}", reply.result, reply.request.ask));
        let (next, not_applied) = self.clients[client].hears(reply, now, &mut self.history);
        self.client_knows(not_applied);
        self.client_does(client, next);
    }

    fn client_knows(&mut self, not_applied: Option<Operation>) {
        if let Some(operation) = not_applied {
            self.truth.not_applied(operation);
        }
    }

    fn client_does(&mut self, client: usize, next: Next) {
        match next {
            Next::Send { request, to, patience } => {
                self.clock.after(patience, Event::Timeout { request });
                let from = self.clients[client].place();
                // A request is doubled by clients that ask twice, never by the network: it has sequence numbers.
                let [first, _] = self.network.send(from, to);
                if let Some(delay) = first {
                    self.clock.after(delay, Event::Request { to, request });
                }
                if self.clients[client].asks_twice() {
                    let delay = self.client_dice.between(1, 3_000) * MILLISECOND;
                    self.clock.after(delay, Event::Request { to, request });
                }
            }
            Next::Retry(delay) => {
                let Some(operation) = self.clients[client].operation() else { return };
                self.clock.after(delay, Event::Retry { client, operation });
            }
            Next::Think(delay) => self.clock.after(delay, Event::Think { client }),
            Next::Nothing => {}
        }
    }

    /// A node answers a client.
    pub(crate) fn answer(&mut self, place: Place, reply: Reply) {
        let to = self.clients[reply.request.client].place();
        for delay in self.network.send(place, to).into_iter().flatten() {
            self.clock.after(delay, Event::Reply { reply });
        }
    }

    /// How long a write to this disk takes.
    pub(crate) fn write_takes(&mut self, place: Place) -> Time {
        let usual = self.disk_dice.between(80, 600);
        let slow = match self.slow_disks {
            Some(most) if !self.is_healed => self.disk_dice.below(most + 1) >> self.disk_dice.below(4),
            _ => 0,
        };
        let stall = self.nodes[place as usize].stalled_until.saturating_sub(self.clock.now());
        usual + slow + stall
    }
}

/// Small numbers here too: a turn that ends before all groups had theirs, a node for which little may wait.
fn core_settings_of(dice: &mut Dice) -> CoreSettings {
    let usual = CoreSettings::new(NodeId::default());
    CoreSettings {
        polls_per_turn_max: *dice.pick(&[1, 2, usual.polls_per_turn_max]).expect("a choice"),
        node_bytes_max: *dice.pick(&[500, 4_000, usual.node_bytes_max]).expect("a choice"),
        ..usual
    }
}

fn settings_of(plan: &Plan, options: Options, dice: &mut Dice) -> Settings {
    // Small numbers, so that the bounds are met.
    let append_bytes_max = *dice.pick(&[64, 1_024, 65_536]).expect("a choice");
    let mut settings = Settings {
        tick_interval_us: TICK,
        append_bytes_max,
        appends_in_flight_max: dice.between(1, 16) as usize,
        uncommitted_bytes_max: append_bytes_max + *dice.pick(&[256, 65_536]).expect("a choice"),
        apply_bytes_max: *dice.pick(&[64, 1_024, 65_536]).expect("a choice"),
        outstanding_readies_max: dice.between(1, 8) as usize,
        snapshot_ticks_max: dice.between(40, 400),
        lag_entries_max: dice.between(5, 128),
        skip_commit_broadcast: dice.chance(700_000),
        lease: plan.habit(Kind::Leases).map(|_| LeaseSettings::default()),
        ..Settings::default()
    };
    crate::bugs::plant(&mut settings, options.bug);
    settings
}
