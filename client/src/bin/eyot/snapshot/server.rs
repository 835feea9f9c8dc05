//! `create` and `status`: the node's own snapshots.
//!
//! Place in the flow: the first half of `save`, and what an administrator asks for.

use std::time::{Duration, Instant};

use eyot_client::{Client, SnapshotStatus};
use indicatif::{HumanBytes, ProgressBar};
use serde_json::json;

use super::arguments::Create;
use super::failure::Failure;
use super::progress::{bar, Unit};
use super::survey::uuid;
use super::{Context, Done};
use crate::output::Report;

/// How often a node is asked how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a node may say that it makes snapshots, and get nowhere: longer than the slowest disk takes to sync a
/// shard.
const STALLED_AFTER: Duration = Duration::from_secs(600);
/// How long it may say that it is not done, and makes none: longer than a core takes to begin.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// Has the node make new snapshots.
pub async fn create(context: &Context<'_>, arguments: &Create) -> Done {
    let client = context.connect().await?;
    let started = Instant::now();
    let request = client.create_snapshots().await?;
    if arguments.no_wait {
        let text = format!("request {request}: snapshots are being made");
        return Ok(Some(Report::done(text, json!({ "request": request }))));
    }
    let status = wait(context, &client, request).await?;
    let (seconds, json) = (started.elapsed().as_secs_f64(), report(&status));
    let text = format!("snapshots are done, in {seconds:.1} s\n{}", text(&status));
    Ok(Some(Report::done(text, json)))
}

/// Shows what snapshots there are.
pub async fn status(context: &Context<'_>) -> Done {
    let status = context.connect().await?.snapshot_status(0).await?;
    Ok(Some(Report::done(text(&status), report(&status))))
}

/// Waits until the request has come to its end; returns what there is then, of every shard.
///
/// However long that takes, while it goes on.
pub async fn wait(context: &Context<'_>, client: &Client, request: u64) -> Result<SnapshotStatus, Failure> {
    let node = |what: String| Failure::Node { address: context.address.to_owned(), what };
    let mut shown: Option<ProgressBar> = None;
    let mut patience = Patience::new(Instant::now());
    let status = loop {
        let status = client.snapshot_status(request).await?;
        if status.is_done {
            break status;
        }
        patience.look(&status, Instant::now()).map_err(|what| node(what.to_owned()))?;
        let of_entries =
            shown.get_or_insert_with(|| bar("creating", Unit::Entries, status.keys, context.with_progress));
        of_entries.set_position(status.entries_done.min(status.keys));
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
    if let Some(failure) = status.failure {
        return Err(node(format!("its snapshot failed: {failure}; what was there before is untouched")));
    }
    if status.shards.len() != usize::from(status.shard_count) {
        let (there, all) = (status.shards.len(), status.shard_count);
        return Err(node(format!(
            "it says that it is done, and has snapshots of {there} of {all} shards; look at its log"
        )));
    }
    Ok(status)
}

/// Whether there is anything to wait for.
struct Patience {
    last: (bool, u64, u64),
    since: Instant,
}

impl Patience {
    fn new(now: Instant) -> Self {
        Self { last: (false, 0, 0), since: now }
    }

    /// Looks at what a node says that is not done.
    ///
    /// # Errors
    /// Why it will not be.
    fn look(&mut self, status: &SnapshotStatus, now: Instant) -> Result<(), &'static str> {
        let seen = (status.is_in_progress, status.entries_done, status.bytes_done);
        if seen != self.last {
            (self.last, self.since) = (seen, now);
        }
        let waited = now - self.since;
        if !status.is_in_progress && waited >= IDLE_AFTER {
            return Err("it makes no snapshots and says that they are not done: was it started anew? Try again");
        }
        if waited >= STALLED_AFTER {
            return Err("its snapshots have not gone on for ten minutes; look at its log and its disk");
        }
        Ok(())
    }
}

fn text(status: &SnapshotStatus) -> String {
    let (entries, bytes): (u64, u64) =
        status.shards.iter().fold((0, 0), |(entries, bytes), shard| (entries + shard.entries, bytes + shard.bytes));
    let progress = if status.is_in_progress {
        format!("yes, {} entries of about {} so far", status.entries_done, status.keys)
    } else {
        "no".to_owned()
    };
    let mut lines = vec![
        format!("node         {}", uuid(status.node_uuid)),
        format!("in progress  {progress}"),
        format!("snapshots    {} of {} shards", status.shards.len(), status.shard_count),
        format!("entries      {entries}"),
        format!("bytes        {bytes} ({})", HumanBytes(bytes)),
    ];
    if !status.shards.is_empty() {
        lines.push(String::new());
        lines.push(format!("{:>6} {:>5} {:>16} {:>14} {:>16}", "shard", "core", "index", "entries", "bytes"));
    }
    lines.extend(status.shards.iter().map(|each| {
        format!("{:>6} {:>5} {:>16} {:>14} {:>16}", each.shard, each.core, each.index, each.entries, each.bytes)
    }));
    lines.join("\n")
}

fn report(status: &SnapshotStatus) -> serde_json::Value {
    let shards = status.shards.iter().map(|each| {
        json!({ "shard": each.shard, "core": each.core, "index": each.index, "entries": each.entries,
            "bytes": each.bytes })
    });
    json!({
        "node_uuid": uuid(status.node_uuid),
        "in_progress": status.is_in_progress,
        "entries_done": status.entries_done,
        "bytes_done": status.bytes_done,
        "keys": status.keys,
        "shard_count": status.shard_count,
        "shards": shards.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_waited_for_while_it_goes_on() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        let mut status = SnapshotStatus { is_in_progress: true, ..SnapshotStatus::default() };
        for minute in 0..60 {
            status.entries_done = minute / 5;
            assert_eq!(patience.look(&status, start + Duration::from_secs(60 * minute)), Ok(()), "minute {minute}");
        }
        // The last change was that of minute 55.
        let late = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert_eq!(patience.look(&status, late(64)), Ok(()));
        assert!(patience.look(&status, late(65)).is_err_and(|what| what.contains("ten minutes")));
    }

    #[test]
    fn a_node_that_does_not_begin_is_not_waited_for() {
        let start = Instant::now();
        let (mut patience, status) = (Patience::new(start), SnapshotStatus::default());
        assert_eq!(patience.look(&status, start + Duration::from_secs(29)), Ok(()));
        assert!(patience.look(&status, start + IDLE_AFTER).is_err_and(|what| what.contains("started anew")));
    }
}
