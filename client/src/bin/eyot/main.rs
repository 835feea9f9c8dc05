//! `eyot`: the command line of Eyot, interactive, for scripts, and fed through a pipe.
//!
//! Place in the flow: a client like any other, built on the library of this crate.
//!
//! | module | what it holds |
//! |---|---|
//! | [`arguments`] | what stands on the command line, and its help |
//! | [`commands`] | the table of commands, and from words to a command |
//! | [`words`] | from a line to words: quotes and escapes |
//! | [`value`] | from text to a value of a type, and from a value to JSON |
//! | [`session`] | executes a command; its answer knows its exit code |
//! | [`output`] | an answer as text for people, for scripts, or as JSON |
//! | [`interactive`] | the prompt: history, completion, hints |
//! | [`piped`] | commands from standard input, one a line |
//! | [`benchmark`] | BENCHMARK |
//! | [`snapshot`] | `eyot snapshot`: backup and restore |
//!
//! Invariants:
//! - Every way out has a documented exit code ([`output::Exit`]).
//! - A closed standard output (`eyot stats | head -1`) ends the process quietly.

#![forbid(unsafe_code)]

mod arguments;

mod commands;
mod words;

mod value;

mod session;

mod benchmark;
mod output;

mod interactive;
mod piped;

mod snapshot;

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use arguments::{Arguments, PASSWORD_VARIABLE};
use clap::Parser;
use commands::Command;
use eyot_client::{Client, Error};
use output::{Exit, Output, Style};
use session::Session;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version end with 0, mistakes with 2.
        Err(error) => error.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&format!("cannot start the event loop: {error}"));
            return Exit::NoConnection.into();
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(exit) => exit.into(),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done.into(),
        Err(error) => {
            report(&format!("cannot write the answer: {error}"));
            Exit::NoConnection.into()
        }
    }
}

/// To standard error; where that is closed, nobody can be told.
fn report(message: &str) {
    let _ = writeln!(io::stderr(), "error: {message}");
}

async fn run(arguments: Arguments) -> io::Result<Exit> {
    let interactive = arguments.command.is_none() && !arguments.json && io::stdin().is_terminal();
    let style = match (arguments.json, interactive) {
        (true, _) => Style::Json,
        (false, true) => Style::Interactive,
        (false, false) => Style::Script,
    };
    let mut output = Output::new(style, io::stdout());

    if let Some(command) = arguments.snapshot() {
        return snapshot::run(&arguments, command, std::env::var_os(PASSWORD_VARIABLE), &mut output).await;
    }
    let one_shot = match arguments.one_shot_words() {
        None => None,
        Some(words) => match read_dash(words).and_then(|words| Command::parse(&words, arguments.value_type)) {
            Ok(command) => Some(command),
            Err(message) => return output.usage_error(&message),
        },
    };
    let options = match arguments.options(std::env::var_os(PASSWORD_VARIABLE)) {
        Ok(options) => options,
        Err(message) => return output.usage_error(&message),
    };
    let client = match Client::connect(&arguments.address, options).await {
        Ok(client) => client,
        Err(error @ Error::Address { .. }) => return output.usage_error(&error.to_string()),
        Err(error) => return output.error(&error),
    };
    let mut session = Session::new(client, arguments.value_type, arguments.ack.map(Into::into), output);
    match one_shot {
        Some(command) => session.execute(command).await,
        None if interactive => interactive::run(session, &arguments.address).await,
        None => piped::run(session).await,
    }
}

/// Replaces the value `-` of a one-shot SET by what standard input has.
fn read_dash(mut words: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, String> {
    if words.first().is_some_and(|name| name == b"SET") && words.get(2).is_some_and(|value| value == b"-") {
        let limit = eyot_protocol::limits::MAX_VALUE_BYTES as u64;
        let mut value = Vec::new();
        let read = io::stdin().lock().take(limit + 1).read_to_end(&mut value);
        read.map_err(|error| format!("value - : cannot read standard input: {error}"))?;
        if value.len() as u64 > limit {
            return Err(format!("value - : standard input has more than the {limit} bytes that a value may have"));
        }
        words[2] = value;
    }
    Ok(words)
}
