//! Histories as lines of JSON: the format that a recorder writes and a checker reads. `docs/CHECKER.md` has examples.
//!
//! Place in the flow: between a program that drives clients, such as the load generator, and the checkers; the
//! simulator needs it for what it keeps only.
//!
//! ```text
//! {"eyot_history":1,"of":"operations"}                               the header: version, and what the lines are
//! {"p":1,"k":7,"f":"write","a":5,"t":[100,250]}                      one operation a line, in any order
//! {"p":2,"k":7,"f":"read","t":[120,260],"v":5}
//!
//! {"eyot_history":1,"of":"transactions"}                             another file, with transactions on lists
//! {"p":1,"t":[0,10],"x":[["read",7,[1,2]],["append",7,3]]}
//! ```
//!
//! Invariants:
//! - Each line ends with a newline; a file without the last one was cut short and is refused.
//! - What is encoded has one form, and decodes to what it was.
//! - No input makes the decoder panic, or take more memory than some multiple of what it is given. A line has at most
//!   [`LINE_BYTES_MAX`] bytes, a history at most [`OPERATIONS_MAX`] lines.
//!
//! Deliberately not here: files. Whoever has one hands its lines to a [`Decoder`].

mod operation;
mod transaction;

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::history::{History, HistoryError, Operation, OPERATIONS_MAX};
use crate::transactions::{Transaction, TransactionHistory, TransactionsError};

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u64 = 1;

/// Bytes of a line without its newline: a list of some ten thousand elements fits.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes of what is said about a line: a line of a mebibyte is not quoted whole.
const PROBLEM_BYTES_MAX: usize = 600;

/// Why lines are no history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinesError {
    /// A line is not what it should be.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// There is no header.
    #[error("there is no line: a history begins with {{\"eyot_history\":{VERSION},\"of\":\"{of}\"}}")]
    Empty {
        /// What the lines should be.
        of: &'static str,
    },
    /// The lines are fine, what they say together is not.
    #[error("no history: {0}; operation 0 stands in line 2, operation 1 in line 3")]
    History(#[from] HistoryError),
    /// The same, of transactions.
    #[error("no history: {0}; transaction 0 stands in line 2, transaction 1 in line 3")]
    Transactions(#[from] TransactionsError),
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Longer than any that is written.
    #[error("{bytes} bytes, and at most {LINE_BYTES_MAX} are read: record shorter lists")]
    TooLong {
        /// Its length, or the part of it that was seen.
        bytes: usize,
    },
    /// The newline at its end is missing.
    #[error("it has no newline: the file was cut short; remove the line if the rest is enough")]
    CutShort,
    /// The header of something else.
    #[error("no header {{\"eyot_history\":{VERSION},\"of\":\"{of}\"}}: {found}")]
    Header {
        /// What the lines should be.
        of: &'static str,
        /// What is there instead.
        found: String,
    },
    /// Not JSON, or not the members that the format has.
    #[error("not a line of this format: {0}")]
    Form(String),
    /// More than a checker takes.
    #[error("a history has at most {OPERATIONS_MAX} lines behind its header: split it by keys")]
    TooMany,
}

/// What a line stands for. Only the types of this crate are.
pub trait Record: Sized + sealed::Sealed {
    /// The word for it in the header.
    const OF: &'static str;

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with the line, in words.
    fn parse(line: &[u8]) -> Result<Self, String>;

    /// Writes the line, without a newline.
    fn write(&self, line: &mut Vec<u8>);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::history::Operation {}
    impl Sealed for crate::transactions::Transaction {}
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    eyot_history: u64,
    of: &'a str,
}

/// Takes the lines of a history, one by one.
#[derive(Debug)]
pub struct Decoder<R> {
    lines: usize,
    records: Vec<R>,
}

impl<R: Record> Default for Decoder<R> {
    fn default() -> Self {
        Decoder { lines: 0, records: Vec::new() }
    }
}

impl<R: Record> Decoder<R> {
    /// Reads the next line; `line` is without its newline.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn line(&mut self, line: &[u8]) -> Result<(), LinesError> {
        self.lines += 1;
        let number = self.lines;
        self.read(line).map_err(|problem| LinesError::Line { line: number, problem })
    }

    fn read(&mut self, line: &[u8]) -> Result<(), LineProblem> {
        if line.len() > LINE_BYTES_MAX {
            return Err(LineProblem::TooLong { bytes: line.len() });
        }
        if self.lines == 1 {
            return read_header::<R>(line);
        }
        if self.records.len() == OPERATIONS_MAX {
            return Err(LineProblem::TooMany);
        }
        self.records.push(R::parse(line).map_err(|problem| LineProblem::Form(shortened(problem)))?);
        Ok(())
    }

    /// What the lines said.
    ///
    /// # Errors
    /// If there was no line at all.
    pub fn finish(self) -> Result<Vec<R>, LinesError> {
        if self.lines == 0 {
            return Err(LinesError::Empty { of: R::OF });
        }
        Ok(self.records)
    }
}

fn read_header<R: Record>(line: &[u8]) -> Result<(), LineProblem> {
    let of = R::OF;
    let header: Header<'_> =
        parse_json(line).map_err(|problem| LineProblem::Header { of, found: shortened(problem) })?;
    if header.eyot_history != VERSION {
        let found = format!("it is of version {}, which this program does not know", header.eyot_history);
        return Err(LineProblem::Header { of, found });
    }
    if header.of != of {
        return Err(LineProblem::Header { of, found: shortened(format!("its lines are {:?}", header.of)) });
    }
    Ok(())
}

/// Makes lines of records: the header first, then each record as it comes.
#[derive(Debug)]
pub struct Encoder<R> {
    line: Vec<u8>,
    of: PhantomData<R>,
}

impl<R: Record> Default for Encoder<R> {
    fn default() -> Self {
        Encoder { line: Vec::new(), of: PhantomData }
    }
}

impl<R: Record> Encoder<R> {
    /// The first line, with its newline.
    pub fn header(&self) -> String {
        let header = serde_json::to_string(&Header { eyot_history: VERSION, of: R::OF });
        header.expect("a header has no map and no float") + "\n"
    }

    /// The line of a record, with its newline; valid until the next one. Longer ones than [`LINE_BYTES_MAX`] would
    /// not be read again.
    pub fn line(&mut self, record: &R) -> &[u8] {
        self.line.clear();
        record.write(&mut self.line);
        self.line.push(b'\n');
        &self.line
    }
}

/// All lines of some records, with the header.
pub fn encode<R: Record>(records: &[R]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut lines = encoder.header().into_bytes();
    for record in records {
        lines.extend_from_slice(encoder.line(record));
    }
    lines
}

/// The records of all lines.
///
/// # Errors
/// The first line that is wrong, and how.
pub fn decode<R: Record>(lines: &[u8]) -> Result<Vec<R>, LinesError> {
    let mut decoder = Decoder::default();
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        match line.split_last() {
            Some((b'\n', line)) => decoder.line(line)?,
            _ => return Err(LinesError::Line { line: decoder.lines + 1, problem: LineProblem::CutShort }),
        }
    }
    decoder.finish()
}

/// The history of all lines.
///
/// # Errors
/// The first line that is wrong, or the first rule of recording that is broken.
pub fn decode_history(lines: &[u8]) -> Result<History, LinesError> {
    Ok(History::new(decode::<Operation>(lines)?)?)
}

/// The history of all lines of transactions.
///
/// # Errors
/// The first line that is wrong, or the first rule of recording that is broken.
pub fn decode_transactions(lines: &[u8]) -> Result<TransactionHistory, LinesError> {
    Ok(TransactionHistory::new(decode::<Transaction>(lines)?)?)
}

/// The two times of a line: of the invocation and the reply, or of the invocation alone.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Times {
    Both([u64; 2]),
    Invoked([u64; 1]),
}

/// Serde's way to tell a member that is `null` from one that is not there.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn write_json(line: &mut Vec<u8>, record: &impl Serialize) {
    serde_json::to_writer(line, record).expect("a vector takes what is written, and no map has strange keys");
}

fn parse_json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

/// A problem that quotes a line, without the middle of a long quotation.
fn shortened(problem: String) -> String {
    if problem.len() <= PROBLEM_BYTES_MAX {
        return problem;
    }
    // The nearest ends of characters that leave out more; 0 and the whole length are such ends.
    let is_end = |at: &usize| problem.is_char_boundary(*at);
    let begin = (0..=PROBLEM_BYTES_MAX * 2 / 3).rev().find(is_end).unwrap_or(0);
    let end = (problem.len() - PROBLEM_BYTES_MAX / 3..problem.len()).find(is_end).unwrap_or(problem.len());
    format!("{} ({} bytes left out) {}", &problem[..begin], end - begin, &problem[end..])
}

fn misfit(what: &str, got: impl fmt::Debug) -> String {
    format!("{what}, not {got:?}")
}

#[cfg(test)]
mod tests;
