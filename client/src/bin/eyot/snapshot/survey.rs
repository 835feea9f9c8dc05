//! What is in a snapshot: `verify` and `inspect`.
//!
//! Place in the flow: reads a file through [`super::reader`], which finds whatever is wrong with it; `restore` asks
//! here before it writes anything.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use eyot_client::rows::json::key_fields;
use eyot_protocol::snapshot::{ShardFooter, ShardHeader};
use indicatif::{HumanBytes, ProgressBar};
use serde_json::json;

use super::arguments::Inspect;
use super::failure::Failure;
use super::progress::{bar, Unit};
use super::reader::{length, read, Item, Visitor};
use super::{Context, Done};
use crate::output::Report;

/// What was found in a sound snapshot.
pub struct Survey {
    pub file_bytes: u64,
    pub node_uuid: u128,
    /// Whether it is a whole database, and not one shard.
    pub is_whole: bool,
    pub shards: Vec<(ShardHeader, ShardFooter)>,
    /// The largest entries, in bytes of key and value, the largest first.
    largest: Vec<(u64, Vec<u8>)>,
}

impl Survey {
    /// Entries of all shards.
    pub fn entries(&self) -> u64 {
        self.sum(|footer| footer.totals.entries)
    }

    fn sum(&self, of: impl Fn(&ShardFooter) -> u64) -> u64 {
        self.shards.iter().map(|(_, footer)| of(footer)).sum()
    }

    /// Reads all of `path`.
    pub fn of(path: &Path, largest: usize, with_progress: bool) -> Result<Self, Failure> {
        let file_bytes = length(path)?;
        let bar = bar("checking", Unit::Bytes, file_bytes, with_progress);
        let survey = Self { file_bytes, node_uuid: 0, is_whole: false, shards: Vec::new(), largest: Vec::new() };
        let mut surveyor = Surveyor { survey, header: None, largest: BinaryHeap::new(), count: largest, bar };
        let done = read(path, &mut surveyor);
        surveyor.bar.finish_and_clear();
        done?;
        let Surveyor { mut survey, largest, .. } = surveyor;
        survey.largest = largest.into_sorted_vec().into_iter().map(|Reverse(entry)| entry).collect();
        Ok(survey)
    }
}

struct Surveyor {
    survey: Survey,
    header: Option<ShardHeader>,
    largest: BinaryHeap<Reverse<(u64, Vec<u8>)>>,
    count: usize,
    bar: ProgressBar,
}

impl Visitor for Surveyor {
    type Error = Failure;

    fn item(&mut self, item: Item<'_>) -> Result<(), Failure> {
        match item {
            Item::FileHeader(header) => (self.survey.is_whole, self.survey.node_uuid) = (true, header.node_uuid),
            Item::ShardHeader(header) => {
                self.survey.node_uuid = header.node_uuid;
                self.header = Some(header);
            }
            Item::ShardFooter(footer) => {
                let header = self.header.take().expect("the decoder tells of a header first");
                self.survey.shards.push((header, footer));
            }
            Item::Entry(entry) => {
                let bytes = (entry.key.len() + entry.value.len()) as u64;
                let is_full = self.largest.len() >= self.count;
                let is_large = self.largest.peek().is_none_or(|Reverse((least, _))| bytes > *least);
                if self.count > 0 && (!is_full || is_large) {
                    if is_full {
                        self.largest.pop();
                    }
                    self.largest.push(Reverse((bytes, entry.key.to_vec())));
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, file_bytes: u64) {
        self.bar.set_position(file_bytes);
    }
}

/// Checks every byte of a file.
pub fn verify(context: &Context<'_>, path: &Path) -> Done {
    let survey = Survey::of(path, 0, context.with_progress)?;
    let (entries, shards, bytes) = (survey.entries(), survey.shards.len(), survey.file_bytes);
    let of = if survey.is_whole { "a whole database" } else { "one shard" };
    let text = format!(
        "{}: sound: {of}, {entries} entries in {shards} shards, {bytes} bytes ({})",
        path.display(),
        HumanBytes(bytes)
    );
    let json = json!({ "sound": true, "whole_database": survey.is_whole, "entries": entries, "shards": shards,
        "bytes": bytes });
    Ok(Some(Report::done(text, json)))
}

/// Shows what is in a file.
pub fn inspect(context: &Context<'_>, arguments: &Inspect) -> Done {
    let survey = Survey::of(&arguments.file, arguments.largest as usize, context.with_progress)?;
    Ok(Some(Report::done(text(&survey, &arguments.file), report(&survey))))
}

/// A node's identity as people write it.
pub fn uuid(node_uuid: u128) -> String {
    let digits = format!("{node_uuid:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

fn text(survey: &Survey, path: &Path) -> String {
    let bytes = survey.file_bytes;
    let mut lines = vec![
        format!("file      {}", path.display()),
        format!("holds     {}", if survey.is_whole { "a whole database" } else { "one shard" }),
        format!("node      {}", uuid(survey.node_uuid)),
        format!("bytes     {bytes} ({})", HumanBytes(bytes)),
        format!("entries   {}", survey.entries()),
        format!("keys      {} bytes", survey.sum(|footer| footer.totals.key_bytes)),
        format!("values    {} bytes", survey.sum(|footer| footer.totals.value_bytes)),
        format!("expiring  {}", survey.sum(|footer| footer.totals.expiring)),
        String::new(),
        format!("{:>6} {:>16} {:>8} {:>14} {:>16}", "shard", "index", "term", "entries", "bytes"),
    ];
    lines.extend(survey.shards.iter().map(|(header, footer)| {
        let ShardHeader { shard, index, term, .. } = header;
        format!("{shard:>6} {index:>16} {term:>8} {:>14} {:>16}", footer.totals.entries, footer.stream_bytes)
    }));
    if !survey.largest.is_empty() {
        lines.push(String::new());
        lines.push(format!("{:>14} key", "largest, bytes"));
        lines.extend(survey.largest.iter().map(|(bytes, key)| format!("{bytes:>14} {}", shown(key))));
    }
    lines.join("\n")
}

/// A key on one line.
fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => key.escape_ascii().to_string(),
    }
}

fn report(survey: &Survey) -> serde_json::Value {
    let shards: Vec<_> = survey
        .shards
        .iter()
        .map(|(header, footer)| {
            json!({ "shard": header.shard, "index": header.index, "term": header.term,
                "entries": footer.totals.entries, "key_bytes": footer.totals.key_bytes,
                "value_bytes": footer.totals.value_bytes, "expiring": footer.totals.expiring,
                "large_values": footer.totals.large_values, "bytes": footer.stream_bytes })
        })
        .collect();
    let largest = survey.largest.iter().map(|(bytes, key)| {
        let mut entry = key_fields(key);
        entry.insert("bytes".to_owned(), json!(bytes));
        serde_json::Value::from(entry)
    });
    json!({
        "whole_database": survey.is_whole,
        "node_uuid": uuid(survey.node_uuid),
        "bytes": survey.file_bytes,
        "entries": survey.entries(),
        "key_bytes": survey.sum(|footer| footer.totals.key_bytes),
        "value_bytes": survey.sum(|footer| footer.totals.value_bytes),
        "expiring": survey.sum(|footer| footer.totals.expiring),
        "large_values": survey.sum(|footer| footer.totals.large_values),
        "shards": shards,
        "largest": largest.collect::<Vec<_>>(),
    })
}
