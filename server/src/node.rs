//! A node: everything between the configuration and the cores.
//!
//! Place in the flow: start-up and the end. The order of start-up matters, and each step says why it stands where it
//! does.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eyot_protocol::limits::MAX_KEY_BYTES;
use eyot_protocol::native::PROTOCOL_VERSION;
use eyot_protocol::response::HelloReply;
use eyot_ring::{Sleeper, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::admin::figures::NodeFacts;
use crate::config::{ServerTunables, Settings, Tunables};
use crate::core::{recovery_stop, snapshot_stop, spawn, CoreStart, Ready, Shared};
use crate::disk::{is_full, DataDir, DataDirError, NewIdentity, RealDisk};
use crate::error::{Stop, StopReason};
use crate::memory::large_values::prepare_directory;
use crate::memory::Board;
use crate::metrics::ReportContext;
use crate::net::listener::{bind, Addresses, BoundListeners};
use crate::net::session::Wire;
use crate::preflight;
use crate::router::mesh::{Message, INBOX_MESSAGES};
use crate::router::Routes;
use crate::snapshot::{store, SnapshotBoard};
use crate::wal;

/// What this version offers of the protocol's optional parts.
const FEATURES: [&str; 5] = ["deadline", "ack-levels", "shard-map", "password", "snapshot"];

/// Runs a node until it is asked to stop.
///
/// # Errors
/// Why it could not start, or had to end.
pub fn run(settings: Settings) -> Result<(), Stop> {
    let started = Instant::now();
    // Before anything else: a need that is not met is told by its own name, not by what fails for want of it.
    for check in preflight::run_without_disk(&settings) {
        check.outcome?;
    }
    // Ports before the data directory: a second server on the same ports must not touch anything.
    let core_count = settings.core_count();
    let mut listeners: Vec<BoundListeners> = (0..core_count).map(|_| BoundListeners::default()).collect();
    let addresses = bind(&mut listeners, Wire::Native, settings.address, settings.core_port_base)?;
    let resp_addresses = match settings.resp_address {
        Some(address) => Some(bind(&mut listeners, Wire::Resp, address, settings.resp_core_port_base)?),
        None => None,
    };
    let data_dir = open_data_directory(&settings)?;
    let identity = data_dir.identity().clone();
    let epoch = wal::next_epoch(&RealDisk, &data_dir.wal_directory(), identity.node_uuid)
        .map_err(|error| recovery_stop(&error))?;
    store::remove_spares(&RealDisk, &data_dir.snapshots_directory()).map_err(|error| snapshot_stop(&error))?;

    let large_values = match settings.mmap_threshold_bytes {
        Some(threshold_bytes) => Some((open_values_directory(&settings)?, threshold_bytes)),
        None => None,
    };

    let sleepers: Vec<Sleeper> =
        (0..core_count).map(|_| Sleeper::new()).collect::<Result<_, _>>().map_err(|error| descriptors(&error))?;
    let shared = Arc::new(share(settings, &identity, &addresses, resp_addresses, &sleepers, started));
    let (senders, inboxes): (Vec<_>, Vec<_>) =
        (0..core_count).map(|_| crossbeam_channel::bounded::<Message>(INBOX_MESSAGES)).unzip();
    let (progress, reports) = mpsc::channel();
    let (mut cores, mut goes) = (Vec::new(), Vec::new());
    for (core, ((listeners, sleeper), inbox)) in listeners.into_iter().zip(sleepers).zip(inboxes).enumerate() {
        let (go, may_go) = mpsc::channel();
        goes.push(go);
        cores.push(spawn(CoreStart {
            core: core as u16,
            shared: Arc::clone(&shared),
            sleeper,
            inbox,
            ways: senders.iter().cloned().zip(shared.wakers.iter().cloned()).collect(),
            listeners,
            node_uuid: identity.node_uuid,
            epoch,
            wal_directory: data_dir.wal_directory(),
            snapshots_directory: data_dir.snapshots_directory(),
            large_values: large_values.clone(),
            progress: progress.clone(),
            go: may_go,
        })?);
    }
    drop((progress, senders));
    // A start that takes long must be stoppable, so signals are heard from here on.
    stop_on_signals(&shared)?;
    await_recovery(&reports, usize::from(core_count))?;
    for go in goes {
        // A core that is gone has reported why, which is read next.
        let _: Result<(), _> = go.send(());
    }
    for _ in 0..core_count {
        match reports.recv() {
            Ok(Ok(_)) => {}
            Ok(Err(stop)) => return Err(stop),
            Err(_) => break,
        }
    }
    shared.serving.store(true, Ordering::SeqCst);
    announce(&shared, &addresses, started.elapsed());
    for core in cores {
        match core.join() {
            Ok(ended) => ended?,
            Err(error) => {
                return Err(Stop::new(StopReason::RingFailed, format!("a core ended: {error}"), "restart the node"))
            }
        }
    }
    tracing::info!("stopped: everything acknowledged is on disk");
    Ok(())
}

fn descriptors(error: &std::io::Error) -> Stop {
    Stop::new(StopReason::OpenFiles, format!("eventfd: {error}"), "raise the limit of open files (ulimit -n)")
}

fn open_values_directory(settings: &Settings) -> Result<std::path::PathBuf, Stop> {
    prepare_directory(&settings.data_dir).map_err(|error| {
        let (reason, remedy) = if is_full(&error) {
            (StopReason::DiskFull, "free space, or choose another disk with --data-dir")
        } else {
            (StopReason::DataDirectory, "give the directory to the user that runs the server")
        };
        Stop::new(reason, format!("directory of value files in {}: {error}", settings.data_dir.display()), remedy)
    })
}

fn open_data_directory(settings: &Settings) -> Result<DataDir, Stop> {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as i64);
    let wanted = NewIdentity {
        node_id: settings.node_id.as_deref(),
        shards: settings.shards_wanted,
        shards_default: settings.shards_of_new_directory(),
        now_us,
    };
    DataDir::open(&RealDisk, &settings.data_dir, wanted).map_err(|error| {
        let (reason, remedy) = match &error {
            DataDirError::Locked { .. } => {
                (StopReason::DataDirectoryInUse, "stop the other process, or choose another --data-dir")
            }
            DataDirError::NoSpace { .. } => {
                (StopReason::DiskFull, "free space, or choose another disk with --data-dir")
            }
            DataDirError::ShardsFixed { .. } => {
                (StopReason::DataDirectoryForeign, "leave --shards out, or start with an empty directory")
            }
            DataDirError::OtherNode { .. }
            | DataDirError::NewerFormat { .. }
            | DataDirError::DamagedIdentity { .. }
            | DataDirError::MissingIdentity { .. } => {
                (StopReason::DataDirectoryForeign, "choose this node's own directory with --data-dir")
            }
            DataDirError::InvalidNodeId { .. } | DataDirError::NoShards => {
                (StopReason::Usage, "choose another --node-id or --shards")
            }
            _ => (StopReason::DataDirectory, "give the directory to the user that runs the server"),
        };
        Stop::new(reason, error.to_string(), remedy)
    })
}

fn share(
    settings: Settings,
    identity: &crate::disk::Identity,
    addresses: &Addresses,
    resp_addresses: Option<Addresses>,
    sleepers: &[Sleeper],
    started: Instant,
) -> Shared {
    let routes = Routes::new(identity.shards, settings.core_count());
    let hello = HelloReply {
        protocol: PROTOCOL_VERSION,
        server: concat!("eyot-server/", env!("CARGO_PKG_VERSION")).to_owned(),
        node_id: identity.node_id.clone(),
        core: 0,
        shard_cores: routes.shard_cores().to_vec(),
        core_addresses: addresses.cores.iter().map(ToString::to_string).collect(),
        max_frame_bytes: settings.max_frame_bytes() as u64,
        max_key_bytes: MAX_KEY_BYTES as u64,
        max_value_bytes: settings.max_value_bytes as u64,
        features: FEATURES.map(str::to_owned).to_vec(),
    };
    let report = ReportContext {
        node_id: identity.node_id.clone(),
        address: addresses.shared.to_string(),
        shards: identity.shards,
        sync_writes: settings.sync_writes,
    };
    let wakers: Vec<Waker> = sleepers.iter().map(Sleeper::waker).collect();
    Shared {
        tunables: Tunables::new(&settings.memory),
        memory: Board::new(settings.core_count()),
        snapshots: SnapshotBoard::new(settings.core_count(), identity.shards),
        server_tunables: ServerTunables::new(&settings),
        facts: facts(&settings, identity, addresses, resp_addresses.as_ref()),
        memory_peak: AtomicU64::new(0),
        clients_possible: preflight::connections_possible(settings.core_count()),
        settings,
        routes,
        hello,
        report,
        started,
        wakers,
        resp_addresses,
        node_uuid: identity.node_uuid,
        next_connection_id: AtomicU64::new(1),
        connections: AtomicUsize::new(0),
        serving: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        settled_cores: AtomicUsize::new(0),
    }
}

/// What INFO says of this process.
fn facts(
    settings: &Settings,
    identity: &crate::disk::Identity,
    addresses: &Addresses,
    resp_addresses: Option<&Addresses>,
) -> NodeFacts {
    let started_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    NodeFacts {
        resp_port: resp_addresses.map_or(0, |addresses| addresses.shared.port()),
        native_port: addresses.shared.port(),
        shards: identity.shards,
        cluster_enabled: resp_addresses.is_some_and(|addresses| addresses.cores.len() > 1),
        sync_writes: settings.sync_writes,
        ..NodeFacts::of_this_process(&identity.node_id, identity.node_uuid, started_unix_s)
    }
}

/// Waits for every core's recovery and says what it found.
fn await_recovery(reports: &mpsc::Receiver<Result<Ready, Stop>>, core_count: usize) -> Result<(), Stop> {
    for _ in 0..core_count {
        let report = reports.recv().map_err(|_| {
            Stop::new(StopReason::RingFailed, "a core ended before it had started", "see the messages before this one")
        })??;
        if let Ready::Recovered { core, entries, records, commands, bytes, elapsed } = report {
            if records + entries > 0 {
                let per_second = (entries + commands) as f64 / elapsed.as_secs_f64().max(1e-6);
                tracing::info!(
                    core,
                    entries,
                    commands,
                    records,
                    bytes,
                    elapsed_ms = elapsed.as_millis() as u64,
                    "recovered at {per_second:.0} entries a second"
                );
            }
        }
    }
    Ok(())
}

fn stop_on_signals(shared: &Arc<Shared>) -> Result<(), Stop> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(|error| descriptors(&error))?;
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            if !shared.serving.load(Ordering::SeqCst) {
                tracing::info!("stopped before the node was ready: nothing was written");
                std::process::exit(0);
            }
            tracing::info!("stopping: finishing what is in flight (again to end at once)");
            shared.stop();
        }
        if let Some(signal) = signals.next() {
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Says where the node listens, on standard output, for people and for scripts that wait for it.
fn announce(shared: &Shared, addresses: &Addresses, elapsed: Duration) {
    let mut lines = format!(
        "eyot-server {} is ready: listening on {} ({} cores, {} shards, node {}, started in {} ms)\n",
        env!("CARGO_PKG_VERSION"),
        addresses.shared,
        addresses.cores.len(),
        shared.routes.shard_cores().len(),
        shared.hello.node_id,
        elapsed.as_millis(),
    );
    let resp = shared.resp_addresses.as_ref();
    if let Some(resp) = resp {
        let _ = writeln!(lines, "  RESP listening on {}", resp.shared);
    }
    if addresses.cores.len() > 1 {
        for (core, address) in addresses.cores.iter().enumerate() {
            let processor = shared.settings.processors[core];
            let resp = resp.map_or(String::new(), |resp| format!(" and {}", resp.cores[core]));
            let _ = writeln!(lines, "  core {core} (processor {processor}) also listens on {address}{resp}");
        }
    }
    // Nobody may be reading: a node does not stop for that.
    let mut output = std::io::stdout().lock();
    let _: std::io::Result<()> = output.write_all(lines.as_bytes()).and_then(|()| output.flush());
}
