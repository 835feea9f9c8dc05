//! `export`: a snapshot's entries as text.
//!
//! Place in the flow: from [`super::reader`] through [`eyot_client::rows`] into a file or to standard output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use eyot_client::rows::{csv, lines};
use eyot_protocol::snapshot::Entry;
use indicatif::ProgressBar;
use serde_json::json;
use tempfile::NamedTempFile;

use super::arguments::{Export, TextFormat};
use super::failure::Failure;
use super::progress::{bar, Unit};
use super::reader::{length, read, Item, Visitor};
use super::{Context, Done};
use crate::output::Report;

/// What is written at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes the entries of a file as text.
pub fn export(context: &Context<'_>, arguments: &Export) -> Done {
    let bar = bar("exporting", Unit::Bytes, length(&arguments.file)?, context.with_progress);
    let Some(path) = &arguments.output else {
        let rows = Rows::new(arguments.format, io::stdout().lock()).map_err(Failure::Output)?;
        let exporter = Exporter { rows, entries: 0, bar, failure: Failure::Output };
        return run(exporter, &arguments.file).map(|_| None);
    };
    let failure = |error| Failure::file("write", path, error);
    let temporary = temporary_beside(path).map_err(failure)?;
    let file = temporary.as_file().try_clone().map_err(failure)?;
    let rows = Rows::new(arguments.format, file).map_err(failure)?;
    let entries = run(Exporter { rows, entries: 0, bar, failure }, &arguments.file)?;
    publish(temporary, path).map_err(failure)?;
    let text = format!("{}: {entries} entries", path.display());
    Ok(Some(Report::done(text, json!({ "entries": entries }))))
}

fn run<W: Write, F: Fn(io::Error) -> Failure>(mut exporter: Exporter<W, F>, path: &Path) -> Result<u64, Failure> {
    let done = read(path, &mut exporter);
    exporter.bar.finish_and_clear();
    done?;
    exporter.rows.flush().map_err(&exporter.failure)?;
    Ok(exporter.entries)
}

/// A file that is removed unless it is [published](publish) as `path`.
pub fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(".partial").tempfile_in(directory(path))
}

/// Makes a file durable under its name.
pub fn publish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory(path))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Text of either form.
enum Rows<W: Write> {
    Lines { out: BufWriter<W>, line: Vec<u8> },
    Csv(Box<csv::Writer<BufWriter<W>>>),
}

impl<W: Write> Rows<W> {
    fn new(format: TextFormat, out: W) -> io::Result<Self> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, out);
        Ok(match format {
            TextFormat::Jsonl => Self::Lines { out, line: Vec::new() },
            TextFormat::Csv => Self::Csv(Box::new(csv::Writer::new(out)?)),
        })
    }

    fn put(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        match self {
            Self::Lines { out, line } => {
                line.clear();
                lines::put(line, entry);
                out.write_all(line)
            }
            Self::Csv(writer) => writer.put(entry),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Lines { out, .. } => out.flush(),
            Self::Csv(writer) => writer.flush(),
        }
    }
}

struct Exporter<W: Write, F> {
    rows: Rows<W>,
    entries: u64,
    bar: ProgressBar,
    failure: F,
}

impl<W: Write, F: Fn(io::Error) -> Failure> Visitor for Exporter<W, F> {
    type Error = Failure;

    fn item(&mut self, item: Item<'_>) -> Result<(), Failure> {
        if let Item::Entry(entry) = item {
            self.rows.put(&entry).map_err(&self.failure)?;
            self.entries += 1;
        }
        Ok(())
    }

    fn read(&mut self, file_bytes: u64) {
        self.bar.set_position(file_bytes);
    }
}
