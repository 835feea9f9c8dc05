//! `import`: the entries of a text into a node.
//!
//! Place in the flow: from [`eyot_client::rows`] through [`super::sender`]. The text is read once and may come by a
//! pipe: what stands before a line that is wrong has been written.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use eyot_client::rows::{csv, lines, Row, RowError};
use indicatif::ProgressBar;
use serde_json::json;

use super::arguments::{Import, TextFormat};
use super::failure::Failure;
use super::progress::{bar, Unit};
use super::sender::{send, Feeder, SourceEnd};
use super::{reader, Context, Done};
use crate::output::{Exit, Report};

/// What is read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes all entries of a text to the node.
pub async fn import(context: &Context<'_>, arguments: &Import) -> Done {
    let is_standard_input = arguments.file.as_os_str() == "-";
    let bytes = if is_standard_input { 0 } else { reader::length(&arguments.file)? };
    let client = context.connect().await?;
    let bar = bar("importing", Unit::Bytes, bytes, context.with_progress && !is_standard_input);
    let source = Source { path: arguments.file.clone(), format: arguments.format, bar: bar.clone() };
    let (sent, done) = send(&client, arguments.replace, move |feeder| source.run(feeder)).await;
    bar.finish_and_clear();
    match done {
        Ok(()) => {}
        Err(failure @ Failure::Row { .. }) => return Err(failure),
        Err(failure) => {
            let remedy = "remove the cause, then import again; what is there already is written again with --replace";
            return Err(Failure::Partly { written: sent.written, failure: Box::new(failure), remedy });
        }
    }
    let kept = match sent.kept {
        0 => String::new(),
        kept => format!("; {kept} keys existed and kept their values: give --replace to overwrite them"),
    };
    let text = format!("{} entries imported{kept}", sent.written);
    let exit = if sent.kept == 0 { Exit::Done } else { Exit::NotFound };
    Ok(Some(Report { text, json: json!({ "written": sent.written, "kept": sent.kept }), exit }))
}

struct Source {
    path: PathBuf,
    format: TextFormat,
    bar: ProgressBar,
}

impl Source {
    fn run(self, feeder: &mut Feeder) -> Result<(), SourceEnd> {
        let input: Box<dyn Read> = if self.path.as_os_str() == "-" {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(&self.path).map_err(|error| Failure::file("open", &self.path, error))?)
        };
        let input = BufReader::with_capacity(BUFFER_BYTES, self.bar.wrap_read(input));
        match self.format {
            TextFormat::Jsonl => {
                let mut rows = lines::Reader::new(input);
                feed(&self.path, feeder, || rows.next_row())
            }
            TextFormat::Csv => {
                let mut rows = csv::Reader::new(input);
                feed(&self.path, feeder, || rows.next_row())
            }
        }
    }
}

fn feed(
    path: &Path,
    feeder: &mut Feeder,
    mut next: impl FnMut() -> Result<Option<(u64, Row)>, RowError>,
) -> Result<(), SourceEnd> {
    loop {
        match next() {
            Ok(None) => return Ok(()),
            Ok(Some((_, row))) => feeder.push(&row.key, &row.value, row.expires_at_us)?,
            Err(RowError::Row { line, what }) => {
                return Err(Failure::Row { file: path.display().to_string(), line, what }.into())
            }
            Err(RowError::Read(error)) => return Err(Failure::file("read", path, error).into()),
        }
    }
}
