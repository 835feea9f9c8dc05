//! SNAPSHOT on the command line: a whole database into a file, and back.
//!
//! Place in the flow: a client like the rest of this program. What a snapshot's bytes mean is `protocol`'s; here they
//! meet files, the network and people.
//!
//! | module | what it holds |
//! |---|---|
//! | [`arguments`] | what stands behind `eyot snapshot` |
//! | [`failure`] | what can go wrong, with its exit code |
//! | [`progress`] | the bar on a terminal |
//! | [`reader`] | a file as its entries, whatever their size and compression |
//! | [`survey`] | `verify` and `inspect` |
//! | [`export`], [`import`] | entries as [text](eyot_client::rows) into files, and from files into a node |
//! | [`sender`] | many writes at a time into a node |
//! | [`restore`] | a snapshot into a node |
//! | [`server`], [`save`] | `create` and `status`; and a node's snapshots into a file |
//! | [`compression`] | Zstandard, as the format takes it |
//!
//! Invariants:
//! - Memory does not grow with the file: a piece, a message, one value, and what [`sender`] has under way.
//! - A file appears under its name whole, checked and durable, or not at all.

pub mod arguments;

mod compression;
mod failure;
mod progress;

mod export;
mod import;
mod reader;
mod restore;
mod save;
mod sender;
mod server;
mod survey;

use std::ffi::OsString;
use std::io;

use eyot_client::{Client, Options};

use crate::arguments::Arguments;
use crate::output::{Exit, Output, Report, Style};
use arguments::SnapshotCommand;
use failure::Failure;

/// Executes what stands behind `eyot snapshot`. `variable` is the value of the password's variable.
pub async fn run(
    arguments: &Arguments,
    command: &SnapshotCommand,
    variable: Option<OsString>,
    output: &mut Output<io::Stdout>,
) -> io::Result<Exit> {
    let options = match arguments.options(variable) {
        Ok(options) => options,
        Err(message) => return output.usage_error(&message),
    };
    let context = Context { address: &arguments.address, options, with_progress: output.style() != Style::Json };
    let done = match command {
        SnapshotCommand::Create(create) => server::create(&context, create).await,
        SnapshotCommand::Status => server::status(&context).await,
        SnapshotCommand::Save(save) => save::save(&context, save).await,
        SnapshotCommand::Verify { file } => survey::verify(&context, file),
        SnapshotCommand::Inspect(inspect) => survey::inspect(&context, inspect),
        SnapshotCommand::Restore(restore) => restore::restore(&context, restore).await,
        SnapshotCommand::Export(export) => export::export(&context, export),
        SnapshotCommand::Import(import) => import::import(&context, import).await,
    };
    match done {
        Ok(Some(report)) => output.report(&report),
        // It has written its answer to standard output itself.
        Ok(None) => Ok(Exit::Done),
        Err(Failure::Output(error)) => Err(error),
        Err(Failure::Client(error)) => output.error(&error),
        Err(failure) => output.failure(failure.exit(), failure.name(), &failure.to_string(), failure.outcome()),
    }
}

/// What a command ends with: what it has to tell, unless that is on standard output already.
type Done = Result<Option<Report>, Failure>;

/// What every command knows.
struct Context<'a> {
    address: &'a str,
    options: Options,
    with_progress: bool,
}

impl Context<'_> {
    async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.address, self.options.clone()).await?)
    }
}
