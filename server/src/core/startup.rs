//! Bringing a core up: recover, open the log, make the ring, listen, run.
//!
//! Place in the flow: before step 1. Each core does this on its own pinned thread, so that its memory is its own, and
//! waits once for the others: no core may write before every core has read, since they read each other's logs when
//! their number has changed.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as InboxReceiver, Sender as InboxSender};
use eyot_protocol::resp::{ArgList, RespLimits};
use eyot_raft_glue::{EntryKind, EntryPosition, Index, ShardId};
use eyot_ring::{MappedRegion, Ring, RingOptions, Sleeper, Waker};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::clock::TurnClock;
use super::deferred::DeferredReads;
use super::log::CoreLog;
use super::memory_pressure::MemoryWork;
use super::random::{Random, Seeds};
use super::snapshot_thread::SnapshotPlan;
use super::snapshots::Snapshots;
use super::uploads::Uploads;
use super::{Core, Shared, Work};
use crate::admin::latency::LatencyEvents;
use crate::admin::slowlog::SlowLog;
use crate::disk::{is_full, RealDisk};
use crate::error::{Stop, StopReason};
use crate::memory::{BufferPool, LargeValues};
use crate::metrics::Metrics;
use crate::net::connections::Connections;
use crate::net::listener::BoundListeners;
use crate::replication::ShardDriver;
use crate::router::mesh::{Mesh, Message};
use crate::router::scatter::Gathers;
use crate::security::admit::WriteBudget;
use crate::security::password::FailedAttempts;
use crate::shard::{HashSeed, Shard, UploadError};
use crate::snapshot::load::Owner;
use crate::snapshot::{load_newest, store, KeptSnapshots, Loaded, Rejected, ShardSnapshot, SnapshotError};
use crate::wal::{self, LogIdentity, LogOptions, Recovered, RecoveryError, RecoveryScope, SnapshotPosition};

/// Memory that the executor registers for direct I/O of its own, which a core does not do: the smallest that it takes.
const EXECUTOR_IO_MEMORY: usize = 512 * 1024;
/// When the executor's time slice ends: not while its one task waits to be run for the first time, over which glommio
/// 0.9 would sleep for ever on a crowded processor; once it runs, the task never gives the thread back.
const EXECUTOR_PREEMPT: Duration = Duration::from_secs(3600);

/// What a core needs to start.
#[derive(Debug)]
pub struct CoreStart {
    /// Its number.
    pub core: u16,
    /// What all cores share.
    pub shared: Arc<Shared>,
    /// Where it sleeps.
    pub sleeper: Sleeper,
    /// Its inbox.
    pub inbox: InboxReceiver<Message>,
    /// The inboxes and wakers of all cores.
    pub ways: Vec<(InboxSender<Message>, Waker)>,
    /// Its sockets.
    pub listeners: BoundListeners,
    /// The node's random number.
    pub node_uuid: u128,
    /// The number of this start.
    pub epoch: u64,
    /// Where the logs are.
    pub wal_directory: std::path::PathBuf,
    /// Where the snapshots are.
    pub snapshots_directory: std::path::PathBuf,
    /// Where large values are, and from which size on; `None`: on the heap.
    pub large_values: Option<(std::path::PathBuf, usize)>,
    /// Tells `main` how it goes.
    pub progress: Sender<Result<Ready, Stop>>,
    /// Says, by being closed or by a message, that the core may go on.
    pub go: Receiver<()>,
}

/// How far a core is.
#[derive(Debug, Clone)]
pub enum Ready {
    /// It has read its log.
    Recovered {
        /// Its number.
        core: u16,
        /// Keys that were in snapshots.
        entries: u64,
        /// Entries, and bytes of log.
        records: u64,
        /// Commands in those entries.
        commands: u64,
        /// See `records`.
        bytes: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// It accepts connections.
    Listening,
}

/// Starts a core on its own pinned thread. The thread ends with the node, or with the reason why the node must end.
///
/// # Errors
/// The executor could not be made.
pub fn spawn(start: CoreStart) -> Result<ExecutorJoinHandle<Result<(), Stop>>, Stop> {
    let processor = start.shared.settings.processors[usize::from(start.core)];
    LocalExecutorBuilder::new(Placement::Fixed(processor))
        .name(&format!("core-{}", start.core))
        .io_memory(EXECUTOR_IO_MEMORY)
        .preempt_timer(EXECUTOR_PREEMPT)
        .spawn(move || async move {
            let progress = start.progress.clone();
            match bring_up(start) {
                Ok(core) => {
                    // The other cores cannot go on without this one's shards, and must not pretend to.
                    if let Err(stop) = core.run() {
                        stop.end_process();
                    }
                    Ok(())
                }
                // `main` has more to say about it than this thread, if it is still there.
                Err(stop) => progress.send(Err(stop.clone())).map_err(|_| stop),
            }
        })
        .map_err(|error| {
            Stop::new(
                StopReason::IoUringRefused,
                format!("executor on processor {processor}: {error}"),
                "run `eyot-server --preflight`, which checks each need by itself",
            )
        })
}

fn bring_up(start: CoreStart) -> Result<Core, Stop> {
    let CoreStart { core, shared, sleeper, inbox, ways, listeners, node_uuid, epoch, .. } = start;
    let CoreStart { wal_directory, snapshots_directory, large_values, progress, go, .. } = start;
    let settings = &shared.settings;
    let started = Instant::now();
    let mut large_values = match large_values {
        Some((directory, threshold_bytes)) => Some(open_large_values(&directory, threshold_bytes)?),
        None => None,
    };
    let scope = RecoveryScope {
        node_id: node_uuid,
        core,
        core_count: settings.core_count(),
        shard_count: shared.routes.shard_cores().len() as u16,
        epoch,
    };
    let seeds = Seeds::draw()?;
    let origin =
        Origin { scope, shared: &shared, wal_directory: &wal_directory, snapshots_directory: &snapshots_directory };
    let Restored { shards, recovered, commands, entries, kept } = restore(&origin, &mut large_values, seeds.hashes)?;
    tell_torn_tails(core, &recovered);
    let elapsed = started.elapsed();
    let done =
        Ready::Recovered { core, entries, records: recovered.records, commands, bytes: recovered.bytes, elapsed };
    await_others(&progress, done, &go)?;
    let log = CoreLog::open(
        &wal_directory,
        LogIdentity { node_id: node_uuid, log_id: core },
        LogOptions { segment_bytes: settings.segment_bytes, ..LogOptions::default() },
        &recovered,
        settings.sync_writes,
        settings.flush_interval,
        sleeper.waker(),
    )?;
    let plan = snapshot_plan(&scope, &shared, snapshots_directory, &recovered);
    let snapshots = Snapshots::start(plan, core, kept, sleeper.waker())?;
    let ring = Ring::new(RingOptions::default()).map_err(|error| crate::preflight::ring_stop(&error))?;
    let listeners = listeners.listen()?;
    let clock = TurnClock::new(shared.started);
    let metrics = Metrics::new(settings.enable_metrics);
    let memory = MemoryWork::new(&shared, core, seeds.samples, &shards, &metrics);
    let pool = BufferPool::new(settings.memory.buffer_pool);
    let work = Work {
        core,
        max_frame_bytes: settings.max_frame_bytes(),
        max_value_bytes: settings.max_value_bytes,
        clock,
        connections: Connections::new(settings.max_frame_bytes(), pool, settings.memory.batching),
        shards,
        to_sweep: std::collections::VecDeque::new(),
        next_swept: 0,
        put_off: std::collections::VecDeque::new(),
        open_shards: Vec::new(),
        log,
        large_values,
        large_requests: super::large_requests::LargeRequests::default(),
        uploads: Uploads::new(epoch),
        paging: super::paging::Paging::default(),
        snapshots,
        mesh: Mesh::new(core, inbox, ways),
        gathers: Gathers::default(),
        walks: super::walks::Walks::default(),
        client_walks: std::collections::VecDeque::new(),
        sliced: super::slices::SlicedRequests::default(),
        resp_limits: RespLimits::new(settings.max_value_bytes, settings.mmap_threshold_bytes.unwrap_or(usize::MAX)),
        arguments: ArgList::default(),
        has_graves: false,
        slow_log: SlowLog::new(core, settings.core_count()),
        times_each: false,
        latency_events: LatencyEvents::default(),
        failed_attempts: FailedAttempts::default(),
        deferred: DeferredReads::default(),
        next_judged: 0,
        random: Random::new(seeds.picks),
        metrics,
        budget: WriteBudget { room_bytes: 0, pending_log_bytes: 0, writable_log_bytes: 0, blocked: None },
        memory,
        shared,
    };
    let core = Core {
        ring,
        sleeper,
        listeners,
        events: std::collections::VecDeque::new(),
        work,
        next_sweep: clock.now(),
        accept_again: None,
        listeners_stopped: Vec::new(),
        lingering: std::collections::VecDeque::new(),
        stopping: None,
    };
    // The core begins to accept with its first turn; the sockets listen already.
    if progress.send(Ok(Ready::Listening)).is_err() {
        tracing::debug!("nobody waits for this core");
    }
    Ok(core)
}

/// Tells how far this core is, and waits until all are: none may write before every one has read.
fn await_others(progress: &Sender<Result<Ready, Stop>>, done: Ready, go: &Receiver<()>) -> Result<(), Stop> {
    if progress.send(Ok(done)).is_err() || go.recv().is_err() {
        let remedy = "see the message before this one";
        return Err(Stop::new(StopReason::Usage, "the node stops before it has started", remedy));
    }
    Ok(())
}

fn snapshot_plan(
    scope: &RecoveryScope,
    shared: &Shared,
    directory: std::path::PathBuf,
    recovered: &Recovered,
) -> SnapshotPlan {
    SnapshotPlan {
        node_uuid: scope.node_id,
        shard_count: scope.shard_count,
        directory,
        readers: shared.snapshots.readers.clone(),
        recovered_bytes: recovered.bytes,
        interval: shared.settings.snapshots.interval,
    }
}

fn tell_torn_tails(core: u16, recovered: &Recovered) {
    for tail in &recovered.torn_tails {
        tracing::warn!(
            core, file = %tail.file.display(), offset = tail.offset, bytes = tail.bytes, sequence = tail.sequence.0,
            "the log ends in a write that is not whole: interrupted before it was acknowledged, unless the disk has lost it since; it is cut off"
        );
    }
}

/// What helps where a start finds no space for its value file, or for the values of the log and of snapshots in it.
const FREE_SPACE: &str = "free space on the data directory's disk, or start with --enable-mmap=false, which keeps large values in memory; with space there, look at the disk (dmesg)";

fn open_large_values(directory: &std::path::Path, threshold_bytes: usize) -> Result<LargeValues, Stop> {
    LargeValues::open(directory, threshold_bytes).map_err(|error| {
        let limits =
            "raise the limits of file size and address space (ulimit -f, ulimit -v), or start with --enable-mmap=false";
        let (reason, remedy) =
            if is_full(&error) { (StopReason::DiskFull, FREE_SPACE) } else { (StopReason::DataDirectory, limits) };
        Stop::new(reason, format!("value file in {}: {error}", directory.display()), remedy)
    })
}

/// Where a core's shards come from.
struct Origin<'a> {
    scope: RecoveryScope,
    shared: &'a Shared,
    wal_directory: &'a std::path::Path,
    snapshots_directory: &'a std::path::Path,
}

/// A core's shards as they were.
struct Restored {
    shards: Vec<ShardDriver>,
    recovered: Recovered,
    /// Commands of the log that were applied.
    commands: u64,
    /// Entries of snapshots that were loaded.
    entries: u64,
    kept: Vec<KeptSnapshots>,
}

/// Reads the core's shards back: of each the newest sound snapshot, then the log behind it. Large values go into their
/// places.
fn restore(origin: &Origin<'_>, large_values: &mut Option<LargeValues>, hash_seed: HashSeed) -> Result<Restored, Stop> {
    let Origin { scope, shared, .. } = *origin;
    let (mut shards, mut positions, mut kept, mut entries) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for shard in shared.routes.shards_of_core(scope.core) {
        let loaded = load_shard(origin, shard, large_values, hash_seed)?;
        entries += loaded.entries;
        if let Some(header) = &loaded.header {
            let position = SnapshotPosition { position: loaded.position(), needed_after: Index(header.needed_after) };
            positions.push((shard, position));
        }
        kept.push(told(origin, shard, &loaded));
        shards.push(loaded.shard);
    }
    let (recovered, commands) = replay(origin, &mut shards, &positions, large_values)?;
    let drivers = shards
        .into_iter()
        .map(|shard| {
            let position = recovered.positions.iter().find(|(id, _)| *id == shard.id());
            ShardDriver::new(shard, position.map_or(EntryPosition::default(), |(_, position)| *position))
        })
        .collect();
    Ok(Restored { shards: drivers, recovered, commands, entries, kept })
}

fn load_shard(
    origin: &Origin<'_>,
    shard: ShardId,
    large_values: &mut Option<LargeValues>,
    hash_seed: HashSeed,
) -> Result<Loaded, Stop> {
    let Origin { scope, shared, snapshots_directory, .. } = *origin;
    let directory = store::shard_directory(snapshots_directory, shard);
    store::remove_leftovers(&RealDisk, &directory).map_err(|error| snapshot_stop(&error))?;
    let owner = Owner { node_uuid: scope.node_id, shard, shard_count: scope.shard_count };
    let fresh = || {
        // What is read back was used when it was written, and what the policy wants to know of it follows from that.
        let mut shard = Shard::new(shard, scope.shard_count, hash_seed);
        shard.set_tracking(shared.tunables.tracking());
        shard
    };
    let now_us = TurnClock::new(shared.started).wall_us();
    let allocate = &mut |bytes| place_of(large_values, bytes);
    load_newest(&RealDisk, snapshots_directory, owner, now_us, fresh, allocate).map_err(|error| snapshot_stop(&error))
}

/// Gives a large value its place; `None`: it belongs on the heap.
fn place_of(large_values: &mut Option<LargeValues>, bytes: usize) -> std::io::Result<Option<MappedRegion>> {
    let Some(values) = large_values.as_mut().filter(|values| values.takes(bytes)) else { return Ok(None) };
    values.allocate(bytes).map(Some).ok_or_else(|| std::io::ErrorKind::StorageFull.into())
}

/// Tells what was found of a shard's snapshots, to people and to the board.
fn told(origin: &Origin<'_>, shard: ShardId, loaded: &Loaded) -> KeptSnapshots {
    let (core, board) = (origin.scope.core, &origin.shared.snapshots);
    for Rejected { error, .. } in &loaded.rejected {
        let instead = loaded.header.map_or(0, |header| header.index);
        tracing::error!(core, shard = shard.0, %error, instead, "a snapshot is passed over; the log has what is missing, or the start fails");
    }
    if let Some(header) = &loaded.header {
        let (index, entries, bytes) = (Index(header.index), loaded.entries, loaded.bytes);
        board.of(core).published(ShardSnapshot { shard, index, bytes, entries });
    }
    let kept = KeptSnapshots::found(&loaded.kept);
    if let Some(needed_after) = kept.needed_after() {
        board.set_needed_after(shard, needed_after);
    }
    kept
}

/// Applies the log behind the snapshots.
fn replay(
    origin: &Origin<'_>,
    shards: &mut [Shard],
    positions: &[(ShardId, SnapshotPosition)],
    large_values: &mut Option<LargeValues>,
) -> Result<(Recovered, u64), Stop> {
    let Origin { scope, wal_directory, .. } = *origin;
    let first = shards.first().map_or(0, |shard| shard.id().0);
    let mut commands = 0_u64;
    let recovered = wal::recover(&RealDisk, wal_directory, scope, positions, &mut |record| {
        // A core's shards are neighbours, so a shard's place among them is its distance from the first.
        let shard = &mut shards[usize::from(record.shard.0 - first)];
        match record.kind {
            EntryKind::Commands if record.is_covered => shard.pass_over(record.payload)?,
            EntryKind::Commands => shard.apply(record.position.index, record.payload, |_, _| commands += 1)?,
            EntryKind::ValuePart => {
                shard.apply_part(record.payload, record.is_covered, |bytes| place_of(large_values, bytes))?;
            }
        }
        Ok(())
    })
    .map_err(|error| recovery_stop(&error))?;
    let unfinished: usize = shards.iter_mut().map(Shard::drop_uploads).sum();
    if unfinished > 0 {
        tracing::info!(core = scope.core, unfinished, "large values that were never acknowledged are left out");
    }
    Ok((recovered, commands))
}

/// How the node ends over a directory of snapshots that cannot be read.
pub fn snapshot_stop(error: &SnapshotError) -> Stop {
    let (reason, remedy) = match error {
        SnapshotError::NoSpace { .. } | SnapshotError::TooLittleSpace { .. } => (StopReason::DiskFull, FREE_SPACE),
        SnapshotError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            (StopReason::DiskFull, FREE_SPACE)
        }
        SnapshotError::Io { .. } => {
            (StopReason::DataDirectory, "check the permissions and the health of the data directory's disk")
        }
    };
    Stop::new(reason, error.to_string(), remedy)
}

/// How the node ends over a log that cannot be read.
pub fn recovery_stop(error: &RecoveryError) -> Stop {
    let (reason, remedy) = match error {
        // The log is sound: what it holds has no place to go.
        RecoveryError::Refused { source, .. }
            if matches!(source.downcast_ref::<UploadError>(), Some(UploadError::NoRoom(_))) =>
        {
            (StopReason::DiskFull, FREE_SPACE)
        }
        RecoveryError::ForeignNode { .. }
        | RecoveryError::Misplaced { .. }
        | RecoveryError::NewerFormat { .. }
        | RecoveryError::InvalidRecord { .. } => {
            (StopReason::DataDirectoryForeign, "put the right files back, or choose another --data-dir")
        }
        RecoveryError::Io { .. } => {
            (StopReason::DataDirectory, "check the permissions and the health of the data directory's disk")
        }
        _ => (StopReason::LogDamaged, "restore the data directory from a backup; nothing was changed by this start"),
    };
    Stop::new(reason, error.to_string(), remedy)
}
