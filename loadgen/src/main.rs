//! `eyot-loadgen`: reads the command line, runs the load, prints the report, exits with its code. See the library.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use clap::Parser;
use eyot_loadgen::{run, Args, LoadError};
use signal_hook::consts::{SIGINT, SIGTERM};

/// What a shell reports for a process that SIGINT ended: for the second one, which does not wait for the report.
const EXIT_INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let args = Args::parse();
    let stop = Arc::new(AtomicBool::new(false));
    match watch_signals(&stop).and_then(|()| run(&args, &stop)).and_then(|report| {
        if !args.quiet {
            // A reader that went away is no reason to lose the JSON and the exit code.
            let _: std::io::Result<()> = std::io::stdout().write_all(report.text().as_bytes());
        }
        if let Some(path) = &args.json {
            report.write_json(path)?;
        }
        Ok(report.exit_code())
    }) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("eyot-loadgen: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The first signal ends the load and prints what there is; the second ends the process.
fn watch_signals(stop: &Arc<AtomicBool>) -> Result<(), LoadError> {
    let register = |signal| {
        signal_hook::flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop)).map(drop)
    };
    register(SIGINT)
        .and_then(|()| register(SIGTERM))
        .map_err(|error| LoadError::Thread { what: "watch for signals".to_owned(), error })
}
