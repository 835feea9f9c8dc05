//! `save`: a node's snapshots into one file.
//!
//! Place in the flow: the node makes new snapshots; then their streams are read, one shard after the other, checked,
//! and written between a file's header and footer.
//!
//! ```text
//! CREATE ─► STATUS ... done ─► READ shard 0, 1, ... ─► check ─► [compress] ─► temporary file ─► sync ─► rename
//! ```
//!
//! Invariants:
//! - The file has its name when it is whole, checked and durable. What is killed leaves a hidden `.partial` file,
//!   without a footer; what is interrupted otherwise leaves nothing.
//! - What is held: a few pieces that are on their way, and a message.
//! - A shard whose snapshot is superseded while it is read is begun anew, a bounded number of times.

use std::collections::VecDeque;
use std::io::{self, Seek, SeekFrom, Write};
use std::time::Instant;

use eyot_client::{Client, Error, ErrorCode, ShardSnapshot, SnapshotRead, SnapshotStatus};
use eyot_protocol::limits::MAX_SNAPSHOT_READ_BYTES;
use eyot_protocol::snapshot::{
    Decoder, Event, FileHeader, FileWriter, ShardFooter, ShardHeader, ShardWriter, SnapshotError,
};
use indicatif::{HumanBytes, ProgressBar};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::signal::unix::{signal, SignalKind};
use tokio::task::JoinHandle;

use super::arguments::Save;
use super::compression::{compressor, decompressor};
use super::export::{publish, temporary_beside};
use super::failure::Failure;
use super::progress::{bar, Unit};
use super::server::wait;
use super::{Context, Done};
use crate::output::Report;

/// What one READ asks for: little enough that a core that answers it keeps no request waiting for long.
const PIECE_BYTES: u64 = 256 << 10;
const _: () = assert!(PIECE_BYTES <= MAX_SNAPSHOT_READ_BYTES as u64);
/// READs that are under way: the node reads the next pieces while one travels and one is written.
const READS_UNDER_WAY: usize = 8;
/// How often one save begins a shard anew. Each time the node has made two rounds of snapshots meanwhile: more often,
/// it makes them faster than they can be read.
const RESTARTS_MAX: u32 = 8;

/// Saves the node's database.
pub async fn save(context: &Context<'_>, arguments: &Save) -> Done {
    let path = &arguments.file;
    // Where nothing can be written, the node should not work first.
    let file = temporary_beside(path).map_err(|error| Failure::file("write", path, error))?;
    tokio::select! {
        done = save_into(context, arguments, file) => done,
        // The file goes with the future that was writing it.
        () = interrupted() => Err(Failure::Interrupted),
    }
}

/// Ends with SIGINT or SIGTERM. Without a handler these would leave the temporary file.
async fn interrupted() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        // They end the process as they always do.
        Err(_) => std::future::pending().await,
    }
}

async fn save_into(context: &Context<'_>, arguments: &Save, file: NamedTempFile) -> Done {
    let path = &arguments.file;
    let client = context.connect().await?;
    let started = Instant::now();
    let request = client.create_snapshots().await?;
    let status = wait(context, &client, request).await?;
    let total = status.shards.iter().map(|shard| shard.bytes).sum();
    let bar = bar("saving", Unit::Bytes, total, context.with_progress);
    let (compress, with_bar) = (arguments.compress.is_some(), bar.clone());
    let mut saver =
        Saver { context, client, status, compress, file, arguments, out: Vec::new(), restarts: 0, bar: with_bar };
    let (entries, bytes) = saver.save().await?;
    let Saver { file, .. } = saver;
    publish(file, path).map_err(|error| Failure::file("write", path, error))?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let text = format!("{}: {entries} entries, {bytes} bytes ({}), {seconds:.1} s", path.display(), HumanBytes(bytes));
    Ok(Some(Report::done(text, json!({ "entries": entries, "bytes": bytes, "seconds": seconds }))))
}

struct Saver<'a> {
    context: &'a Context<'a>,
    client: Client,
    status: SnapshotStatus,
    compress: bool,
    file: NamedTempFile,
    arguments: &'a Save,
    /// Bytes on their way into the file.
    out: Vec<u8>,
    restarts: u32,
    bar: ProgressBar,
}

impl Saver<'_> {
    /// Writes the file; returns its entries and bytes.
    async fn save(&mut self) -> Result<(u64, u64), Failure> {
        let SnapshotStatus { node_uuid, shard_count, .. } = self.status;
        let mut writer = FileWriter::new(FileHeader { node_uuid, shard_count }, &mut self.out);
        let mut file_bytes = self.write()?;
        for shard in 0..shard_count {
            let (footer, stream_bytes) = self.shard(shard, file_bytes).await?;
            writer.shard(&footer, stream_bytes);
            file_bytes += stream_bytes;
        }
        let footer = writer.finish(&mut self.out);
        file_bytes += self.write()?;
        Ok((footer.totals.entries, file_bytes))
    }

    /// Writes a shard's stream, which begins at `start` of the file; returns its footer and its bytes.
    async fn shard(&mut self, shard: u16, start: u64) -> Result<(ShardFooter, u64), Failure> {
        loop {
            let snapshot = *self
                .status
                .shards
                .get(usize::from(shard))
                .ok_or_else(|| self.node("it has no snapshot of every shard any more".to_owned()))?;
            let at = self.bar.position();
            match self.stream(&snapshot).await {
                Ok(done) => return Ok(done),
                Err(Failure::Client(error)) if is_superseded(&error) && self.restarts < RESTARTS_MAX => {
                    self.restarts += 1;
                    self.status = self.client.snapshot_status(0).await?;
                    self.bar.set_position(at);
                    self.out.clear();
                    let file = self.file.as_file_mut();
                    let back = file.set_len(start).and_then(|()| file.seek(SeekFrom::Start(start)));
                    back.map_err(|error| self.file_failure(error))?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Reads a snapshot to its end into the file.
    async fn stream(&mut self, snapshot: &ShardSnapshot) -> Result<(ShardFooter, u64), Failure> {
        let mut reads = Reads::new(self.client.clone(), *snapshot);
        let mut stream = Stream::new(self.status.node_uuid, self.status.shard_count, *snapshot, self.compress);
        let mut stream_bytes = 0;
        while let Some(piece) = reads.next().await? {
            stream.take(&piece, &mut self.out).map_err(|problem| self.problem(snapshot, problem))?;
            stream_bytes += self.write()?;
            self.bar.inc(piece.len() as u64);
        }
        let footer = stream.finish().map_err(|problem| self.problem(snapshot, problem))?;
        Ok((footer, stream_bytes))
    }

    /// Hands on what is ready; returns how much that was.
    fn write(&mut self) -> Result<u64, Failure> {
        let written = self.file.write_all(&self.out);
        written.map_err(|error| self.file_failure(error))?;
        let bytes = self.out.len() as u64;
        self.out.clear();
        Ok(bytes)
    }

    fn file_failure(&self, error: io::Error) -> Failure {
        Failure::file("write", &self.arguments.file, error)
    }

    fn node(&self, what: String) -> Failure {
        Failure::Node { address: self.context.address.to_owned(), what }
    }

    fn problem(&self, snapshot: &ShardSnapshot, problem: StreamProblem) -> Failure {
        let ShardSnapshot { shard, index, .. } = snapshot;
        let address = self.context.address;
        match problem {
            StreamProblem::Damaged(error) => {
                let source_name = format!("the snapshot of shard {shard} at index {index} of the node at {address}");
                Failure::Damaged { source_name, error }
            }
            StreamProblem::Another => {
                self.node(format!("for the snapshot of shard {shard} at index {index} it sends another one"))
            }
        }
    }
}

fn is_superseded(error: &Error) -> bool {
    matches!(error, Error::Server { error, .. } if error.code() == Some(ErrorCode::NoSuchSnapshot))
}

/// The pieces of a snapshot in their order, some of them asked for ahead.
struct Reads {
    client: Client,
    snapshot: ShardSnapshot,
    asked: u64,
    under_way: VecDeque<JoinHandle<Result<Vec<u8>, Error>>>,
}

impl Reads {
    fn new(client: Client, snapshot: ShardSnapshot) -> Self {
        Self { client, snapshot, asked: 0, under_way: VecDeque::new() }
    }

    /// The next piece; `None` when as much has come as STATUS told.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let ShardSnapshot { shard, index, bytes, .. } = self.snapshot;
        while self.under_way.len() < READS_UNDER_WAY && self.asked < bytes {
            let length = (bytes - self.asked).min(PIECE_BYTES);
            let read = SnapshotRead { shard, index, offset: self.asked, length: length as u32 };
            let client = self.client.clone();
            self.under_way.push_back(tokio::spawn(async move { read_all(&client, read).await }));
            self.asked += length;
        }
        let Some(next) = self.under_way.pop_front() else { return Ok(None) };
        let piece = next.await.expect("a read neither panics nor is cancelled")?;
        if piece.is_empty() {
            // The decoder will say that it ends too early.
            self.asked = bytes;
            self.under_way.clear();
            return Ok(None);
        }
        Ok(Some(piece))
    }
}

/// Reads all that `read` asks for, however little the node sends at a time; less at the end of the snapshot.
async fn read_all(client: &Client, read: SnapshotRead) -> Result<Vec<u8>, Error> {
    let mut piece = Vec::new();
    loop {
        let done = piece.len() as u32;
        if done == read.length {
            return Ok(piece);
        }
        let rest = SnapshotRead { offset: read.offset + u64::from(done), length: read.length - done, ..read };
        let bytes = client.read_snapshot(rest).await?;
        if bytes.is_empty() {
            return Ok(piece);
        }
        piece.extend_from_slice(&bytes);
    }
}

/// A shard's stream, checked as it comes, and compressed if that is wanted.
struct Stream {
    node_uuid: u128,
    shard_count: u16,
    snapshot: ShardSnapshot,
    decoder: Decoder,
    /// Whether the entries are written again; else the bytes stay as they are.
    compress: bool,
    writer: Option<ShardWriter>,
    footer: Option<ShardFooter>,
}

#[derive(Debug)]
enum StreamProblem {
    Damaged(SnapshotError),
    /// Not of the shard, the index or the node that was asked for.
    Another,
}

impl From<SnapshotError> for StreamProblem {
    fn from(error: SnapshotError) -> Self {
        Self::Damaged(error)
    }
}

impl Stream {
    fn new(node_uuid: u128, shard_count: u16, snapshot: ShardSnapshot, compress: bool) -> Self {
        let decoder = Decoder::new().decompressed_by(decompressor());
        Self { node_uuid, shard_count, snapshot, decoder, compress, writer: None, footer: None }
    }

    /// Takes the next bytes, and appends what goes into the file.
    fn take(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), StreamProblem> {
        let mut rest = piece;
        while let Some(event) = self.decoder.next(&mut rest)? {
            match event {
                Event::ShardHeader(header) => {
                    let ShardHeader { node_uuid, shard, shard_count, index, .. } = header;
                    let wanted = (self.node_uuid, self.snapshot.shard, self.shard_count, self.snapshot.index);
                    if (node_uuid, shard, shard_count, index) != wanted {
                        return Err(StreamProblem::Another);
                    }
                    if self.compress {
                        self.writer = Some(ShardWriter::new(header, out).compressed_by(compressor()));
                    }
                }
                Event::FileHeader(_) | Event::FileFooter(_) => return Err(StreamProblem::Another),
                Event::ShardFooter(footer) => {
                    self.footer = Some(match self.writer.take() {
                        Some(writer) => writer.finish(out).expect("a stream that the decoder lets end"),
                        None => footer,
                    });
                }
                entries => {
                    if let Some(writer) = &mut self.writer {
                        write_again(entries, writer, out)?;
                    }
                }
            }
        }
        if !self.compress {
            out.extend_from_slice(piece);
        }
        Ok(())
    }

    fn finish(self) -> Result<ShardFooter, StreamProblem> {
        self.decoder.finish()?;
        Ok(self.footer.expect("the decoder has seen the end"))
    }
}

/// Writes what an event holds to a stream of the same header.
fn write_again(event: Event<'_>, writer: &mut ShardWriter, out: &mut Vec<u8>) -> Result<(), SnapshotError> {
    let in_order = "entries that the decoder has checked are those that the writer takes";
    match event {
        Event::Chunk(mut chunk) => {
            while let Some(entry) = chunk.next_entry()? {
                writer.push(&entry, out).expect(in_order);
            }
        }
        Event::LargeValue(large) => writer.begin_large(&large, out).expect(in_order),
        Event::ValuePart { bytes, .. } => writer.push_part(bytes, out).expect(in_order),
        _ => {}
    }
    Ok(())
}
