//! The proof that nothing acknowledged is lost: a whole node's storage, run on a disk that goes wrong.
//!
//! Place in the flow: tests of steps 6 and 8, of the snapshots and of recovery, together. A [`node`] is what a core
//! does with its log, its shards and their snapshots, without the ring and the clock; [`lifetimes`] has it live and
//! die by dice; [`power`] cuts its power everywhere, [`errors`] has every call to the disk fail, [`damage`] turns its
//! bits. [`truth`] knows what must be there afterwards.
//!
//! Invariants:
//! - Log, recovery, snapshots and engine are those of the server, unchanged. Only the driver is this module's own.
//! - A seed gives the same lifetimes and the same images, on whatever number of threads. A failure names its seed;
//!   `EYOT_TEST_SEED` runs it alone.
//! - Each prover finds the bugs that are planted for it: here in the driver and in the disk, and by [`Planted`] in the
//!   code itself.
//!
//! Deliberately not here: other numbers of cores, decay of one kind of file at a time, and segments of the usual size,
//! which the tests beside log and snapshots have; and real disks.

mod damage;
mod errors;
mod lifetimes;
mod node;
mod power;
mod truth;

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// A bug that the code of log and snapshots has for the thread that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The body of a batch is believed without its checksum.
    ChecksumNotChecked,
    /// Checksums do not depend on where a batch stands.
    PositionNotInChecksum,
    /// A snapshot without its end is taken for a whole one.
    FooterNotChecked,
    /// A file is written over while its old name may come back.
    OldNameNotSynced,
}

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

fn plant(bug: Option<Planted>) {
    PLANTED.set(bug);
}

/// Whether this thread has the bug.
pub(crate) fn is_planted(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

/// The error, unless the bug passes it over.
pub(crate) fn unless_planted<E>(bug: Planted, error: E) -> Result<(), E> {
    if is_planted(bug) {
        Ok(())
    } else {
        Err(error)
    }
}

/// The result, where a panic is a complaint as well: most bugs hit an assertion first.
fn complaining<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("something else than a text");
        Err(format!("panicked: {text}"))
    })
}

/// A number from the environment.
fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number =
        text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok());
    Some(number.unwrap_or_else(|| panic!("{name} is {text}: give a number")))
}
