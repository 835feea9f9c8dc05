//! Commands from standard input, one a line, without a prompt.
//!
//! Place in the flow: between standard input and [`crate::session`].
//!
//! Commands are executed one after the other. One that fails does not stop the others, save when the server cannot be
//! reached at all; the exit code is that of the first that failed.

use std::io::{self, BufRead, Read};

use tokio::sync::mpsc;

use crate::output::Exit;
use crate::session::Session;

/// Lines that are read ahead of the command that is being executed.
const LINES_AHEAD: usize = 128;
/// Longest line (64 MiB, as the default limit of a value): without a bound, a stream without line breaks would take all
/// memory.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Executes what comes in until it ends or asks to leave.
pub async fn run(mut session: Session) -> io::Result<Exit> {
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    // A thread, since standard input cannot be waited for without blocking, and the connection must be served
    // meanwhile. It ends with the input, with the receiver, or with the process.
    std::thread::spawn(move || read_lines(&mut io::stdin().lock(), &sender));
    let mut exit = Exit::Done;
    while let Some(line) = lines.recv().await {
        let ended = match line {
            Ok(line) => session.execute_line(&line).await?,
            Err(message) => {
                session.output.usage_error(&message)?;
                return Ok(first(exit, Exit::Usage));
            }
        };
        let Some(ended) = ended else { return Ok(exit) };
        exit = first(exit, ended);
        if ended == Exit::NoConnection {
            return Ok(exit);
        }
    }
    Ok(exit)
}

fn first(before: Exit, now: Exit) -> Exit {
    if before == Exit::Done {
        now
    } else {
        before
    }
}

fn read_lines(input: &mut impl BufRead, sender: &mpsc::Sender<Result<Vec<u8>, String>>) {
    loop {
        let mut line = Vec::new();
        let read = input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) => return,
            Ok(bytes) if bytes as u64 > LINE_BYTES_MAX => {
                Err(format!("a line of standard input is longer than {LINE_BYTES_MAX} bytes"))
            }
            Ok(_) => Ok(line),
            Err(error) => Err(format!("cannot read standard input: {error}")),
        };
        let last = line.is_err();
        if sender.blocking_send(line).is_err() || last {
            return;
        }
    }
}
