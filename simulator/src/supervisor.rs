//! Watches the process that runs a campaign: whatever ends it, the seeds of the worlds that it ran are printed.
//!
//! Place in the flow: the command `campaign` is this; the worlds run in a child of it. A world that breaks an assertion
//! is told by the child itself. A child that is killed (memory, a stack that overflows, a signal from outside) can tell
//! nothing more, and is the reason for this module.
//!
//! ```text
//! child's stdout    "begins SEED" and "ended SEED" around each world: noted here; every other line: passed on
//! ```
//!
//! Invariants:
//! - The exit code is not 0 unless the child's was 0.
//! - With any other, a line that names seeds is printed.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What the child says about one of its worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It begins.
    Begins(u64),
    /// It has ended, well or not.
    Ended(u64),
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begins(seed) => write!(formatter, "begins {seed}"),
            Self::Ended(seed) => write!(formatter, "ended {seed}"),
        }
    }
}

impl Mark {
    /// The mark that a line is, if it is one.
    pub fn of_line(line: &str) -> Option<Self> {
        let (word, seed) = line.split_once(' ')?;
        let seed = seed.parse().ok()?;
        match word {
            "begins" => Some(Self::Begins(seed)),
            "ended" => Some(Self::Ended(seed)),
            _ => None,
        }
    }
}

/// What is known of a child's worlds.
#[derive(Debug, Default)]
struct Seen {
    running: BTreeSet<u64>,
    last: Option<u64>,
    /// Whether the child has named the seed of a world that went wrong.
    has_told: bool,
}

impl Seen {
    /// Takes in one line; gives it back if it is for the reader.
    fn take<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        match Mark::of_line(line) {
            Some(Mark::Begins(seed)) => {
                self.running.insert(seed);
                self.last = self.last.max(Some(seed));
                None
            }
            Some(Mark::Ended(seed)) => {
                self.running.remove(&seed);
                None
            }
            None => {
                self.has_told |= line.starts_with("seed ");
                Some(line)
            }
        }
    }

    /// What is to be said when the child has ended so.
    fn verdict(&self, status: ExitStatus) -> (u8, Option<String>) {
        if status.success() {
            return (0, None);
        }
        // What was wrong with the command, the child has said itself.
        if status.code() == Some(2) && self.last.is_none() {
            return (2, None);
        }
        if self.has_told {
            return (1, None);
        }
        let Self { running, last, .. } = self;
        let line = format!(
            "the process that ran the worlds ended with {status}; seeds {running:?} were under way, of those begun the \
             last was {last:?}; see one again with: replay --seed SEED"
        );
        (1, Some(line))
    }
}

/// Runs `command`, passes on what it says, and gives the exit code: 0 if all went well, 1 if anything did not, 2 if the
/// command was wrong. A signal that asks this process to end ends the child first.
///
/// # Errors
/// When the child cannot be started, or not be waited for.
pub fn supervise(mut command: Command, mut say: impl FnMut(&str)) -> io::Result<u8> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let lines = child.stdout.take().map(BufReader::new).expect("it was asked for");
    let child = Arc::new(Mutex::new(child));
    let handle = signals.handle();
    let for_signals = Arc::clone(&child);
    let watcher = std::thread::spawn(move || {
        for _ in signals.forever() {
            // It may have ended by itself: then there is nobody to kill.
            let _ = locked(&for_signals).kill();
        }
    });
    let mut seen = Seen::default();
    for line in lines.split(b'\n') {
        let line = line?;
        if let Some(line) = seen.take(&String::from_utf8_lossy(&line)) {
            say(line);
        }
    }
    let status = locked(&child).wait()?;
    handle.close();
    let _ = watcher.join();
    let (code, line) = seen.verdict(status);
    line.iter().for_each(|line| say(line));
    Ok(code)
}

fn locked(child: &Arc<Mutex<Child>>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_by(script: &str) -> (u8, Vec<String>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut lines = Vec::new();
        let code = supervise(command, |line| lines.push(line.to_owned())).expect("there is a shell");
        (code, lines)
    }

    #[test]
    fn marks_survive_their_lines() {
        for mark in [Mark::Begins(0), Mark::Ended(u64::MAX)] {
            assert_eq!(Mark::of_line(&mark.to_string()), Some(mark));
        }
        assert_eq!(Mark::of_line("seed 7: broken"), None);
        assert_eq!(Mark::of_line("begins soon"), None);
    }

    #[test]
    fn a_child_that_ends_well_is_passed_on_without_its_marks() {
        assert_eq!(said_by("echo begins 1; echo hello; echo ended 1"), (0, vec!["hello".to_owned()]));
    }

    #[test]
    fn a_child_that_has_named_its_seed_is_believed() {
        let (code, lines) = said_by("echo begins 4; echo ended 4; echo 'seed 4: StaleRead'; exit 1");
        assert_eq!((code, lines), (1, vec!["seed 4: StaleRead".to_owned()]));
    }

    #[test]
    fn a_child_that_is_killed_leaves_its_seeds_behind() {
        for end in ["kill -9 $$", "kill -6 $$", "exit 1", "exit 101"] {
            let (code, lines) = said_by(&format!("echo begins 41; echo begins 42; echo ended 41; {end}"));
            assert_eq!(code, 1, "{end}");
            assert!(lines.len() == 1 && lines[0].contains("seeds {42}"), "{end}: {lines:?}");
        }
    }

    #[test]
    fn a_wrong_command_stays_one() {
        assert_eq!(said_by("exit 2"), (2, Vec::new()));
    }
}
