//! `restore`: a snapshot into a node, by ordinary writes, so that it is durable and fits any number of shards and
//! cores.
//!
//! Place in the flow: a file is read twice: checked whole before the first write, then sent through [`super::sender`].

use std::time::Instant;

use eyot_client::Client;
use indicatif::ProgressBar;
use serde_json::json;

use super::arguments::Restore;
use super::failure::Failure;
use super::progress::{bar, Unit};
use super::reader::{read, Item, Visitor};
use super::sender::{send, Feeder, SourceEnd};
use super::survey::Survey;
use super::{Context, Done};
use crate::output::Report;

/// Writes all entries of a file to the node.
pub async fn restore(context: &Context<'_>, arguments: &Restore) -> Done {
    let client = context.connect().await?;
    if !arguments.replace {
        refuse_keys(&client, context.address).await?;
    }
    let survey = Survey::of(&arguments.file, 0, context.with_progress)?;
    let (entries, started) = (survey.entries(), Instant::now());
    let bar = bar("restoring", Unit::Bytes, survey.file_bytes, context.with_progress);
    let (path, of_source) = (arguments.file.clone(), bar.clone());
    let source = move |feeder: &mut Feeder| read(&path, &mut Source { feeder, bar: of_source });
    let (sent, done) = send(&client, true, source).await;
    bar.finish_and_clear();
    if let Err(failure) = done {
        let remedy = "remove the cause, then restore again with --replace";
        return Err(Failure::Partly { written: sent.written, failure: Box::new(failure), remedy });
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = sent.written as f64 / seconds.max(f64::EPSILON);
    let text = format!("{entries} entries restored in {seconds:.1} s, {rate:.0} a second");
    Ok(Some(Report::done(text, json!({ "entries": entries, "written": sent.written, "seconds": seconds }))))
}

/// Fails if the node has keys.
async fn refuse_keys(client: &Client, address: &str) -> Result<(), Failure> {
    let stats = client.stats().await?;
    match stats["storage"]["keys"].as_u64() {
        Some(0) => Ok(()),
        Some(keys) => Err(Failure::NotEmpty { address: address.to_owned(), keys }),
        None => Err(Failure::Node {
            address: address.to_owned(),
            what: "STATS does not tell how many keys it has; restore with --replace if it is empty".to_owned(),
        }),
    }
}

struct Source<'a> {
    feeder: &'a mut Feeder,
    bar: ProgressBar,
}

impl Visitor for Source<'_> {
    type Error = SourceEnd;

    fn item(&mut self, item: Item<'_>) -> Result<(), SourceEnd> {
        if let Item::Entry(entry) = item {
            self.feeder.push(entry.key, entry.value, entry.expires_at_us)?;
        }
        Ok(())
    }

    fn read(&mut self, file_bytes: u64) {
        self.bar.set_position(file_bytes);
    }
}
