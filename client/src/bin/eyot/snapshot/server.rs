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
/// However long that takes: a request that the node has taken ends, and each question has its own timeout.
pub async fn wait(context: &Context<'_>, client: &Client, request: u64) -> Result<SnapshotStatus, Failure> {
    let mut shown: Option<ProgressBar> = None;
    let status = loop {
        let status = client.snapshot_status(request).await?;
        if status.is_done {
            break status;
        }
        let of_entries =
            shown.get_or_insert_with(|| bar("creating", Unit::Entries, status.keys, context.with_progress));
        of_entries.set_position(status.entries_done.min(status.keys));
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
    let node = |what: String| Failure::Node { address: context.address.to_owned(), what };
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
