//! Are transactions isolated from each other: cycles of dependencies, after Adya ("Weak Consistency: A Generalized
//! Theory and Optimistic Implementations for Distributed Transactions", 1999), found as Elle does it (Kingsbury and
//! Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB 2020).
//!
//! Place in the flow: a recorder or the line format makes a [`TransactionHistory`], [`check`] judges it. `orders`
//! finds in which order appends took effect, `graph` what depends on what, `cycles` what depends on itself; `story`
//! tells it.
//!
//! Transactions read lists and append to them, each element once for each key. So one read shows all versions of a key
//! up to its own, and who made them: the order of versions need not be guessed.
//!
//! | finding | what happened | not allowed under |
//! |---|---|---|
//! | internal | a transaction contradicts its own reads and appends | read atomicity |
//! | unknown element | a read has an element that nobody appended | any |
//! | duplicate | a read has an element twice | any |
//! | incompatible orders | reads of a key that do not begin each other, or against a writer's order | read committed |
//! | lost append | an append that was committed before a read began, and that no read shows | strict serializability |
//! | G1a | a read has an element of a transaction that aborted | read committed |
//! | G1b | a read ends in the midst of another transaction's appends | read committed |
//! | G0 | a cycle of writes over writes | read uncommitted |
//! | G1c | a cycle of writes and reads of them | read committed |
//! | G-single | a cycle with one read of what is overwritten: read skew, lost update | snapshot isolation |
//! | G2 | a cycle with more of them: write skew | serializability |
//!
//! A cycle that needs an edge of real time (one transaction ended before the other began) breaks strict
//! serializability only; it is marked so.
//!
//! Invariant: every finding is a violation, whatever the store did. The reverse does not hold: what no read shows is
//! not known (`docs/CHECKER.md` says what that means).
//!
//! Deliberately not here: predicates (a G2 is one of items), and registers, whose versions have to be guessed.

mod cycles;
mod graph;
mod orders;
mod story;

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Key, Process, Time, OPERATIONS_MAX};

/// Findings of one kind that a report describes; of the others it has the number.
pub const FINDINGS_PER_KIND_MAX: usize = 8;

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Adds an element at the end of the key's list.
    Append {
        /// The key.
        key: Key,
        /// The element; nobody else appends it to this key.
        element: i64,
    },
    /// Returns the list.
    Read {
        /// The key.
        key: Key,
        /// What it returned, the empty list for an absent key; `None` if the transaction was not committed.
        list: Option<Vec<i64>>,
    },
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// It was done, all of it.
    Committed {
        /// When the client knew.
        at: Time,
    },
    /// Nothing of it was done, and nothing ever will be.
    Aborted {
        /// When the client knew.
        at: Time,
    },
    /// Nobody knows.
    Unknown,
}

/// One transaction of one process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// Who asked.
    pub process: Process,
    /// What, in order.
    pub steps: Vec<Step>,
    /// When it began.
    pub invoked: Time,
    /// How it ended.
    pub end: End,
}

/// Why transactions are no history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionsError {
    /// Time went back within a transaction.
    #[error("transaction {transaction} ended at {} and began at {}: take both times from one clock", ended.0, invoked.0)]
    EndsBeforeItBegins {
        /// Its position in the history, from 0.
        transaction: usize,
        /// When it began.
        invoked: Time,
        /// When it ended, earlier.
        ended: Time,
    },
    /// Two transactions of a process at once, or one after an unknown outcome.
    #[error(
        "process {} began transaction {second} before transaction {first} had ended: give each transaction that is under \
         way a process of its own, and take a new one after a lost reply",
        process.0
    )]
    OverlapsItself {
        /// Who asked.
        process: Process,
        /// Position of the earlier transaction.
        first: usize,
        /// Position of the later one.
        second: usize,
    },
    /// A committed transaction knows what it read.
    #[error("transaction {transaction} is committed, and its read of key {} has no list", key.0)]
    ReadWithoutList {
        /// Its position in the history, from 0.
        transaction: usize,
        /// What was read.
        key: Key,
    },
    /// An element does not tell who appended it.
    #[error("transactions {first} and {second} both append {element} to key {}: append each element once", key.0)]
    AppendedTwice {
        /// The key.
        key: Key,
        /// The element.
        element: i64,
        /// Position of one of them.
        first: usize,
        /// Position of the other, or the same.
        second: usize,
    },
    /// More than a checker takes.
    #[error("{count} transactions, and at most {OPERATIONS_MAX} are checked at once: split the history")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

/// Transactions that belong together and break no rule of recording.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionHistory {
    transactions: Vec<Transaction>,
}

/// What transactions are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guarantee {
    /// Some serial order explains all reads.
    Serializable,
    /// Some serial order explains all reads, and has whatever ended first before what began later.
    #[default]
    StrictSerializable,
}

/// What a finding is; the table of the module tells more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A transaction contradicts itself.
    Internal,
    /// An element of nobody's.
    UnknownElement,
    /// An element twice in a list.
    Duplicate,
    /// Reads of a key of which neither begins with the other, or one against the order of a transaction's own appends.
    IncompatibleOrders,
    /// A committed append that no read shows, though one began later.
    LostAppend,
    /// A read of an aborted append.
    G1a,
    /// A read from the midst of a transaction.
    G1b,
    /// A cycle of writes.
    G0,
    /// A cycle of writes and reads of them.
    G1c,
    /// A cycle with one read of what is overwritten.
    GSingle,
    /// A cycle with more than one.
    G2,
}

/// Something that must not be. `Display` gives the whole story, in some lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// Whether it is one only because of real time: then a serial order may still explain all reads.
    pub by_real_time: bool,
    /// Positions of the transactions that show it; of a cycle, in its order.
    pub transactions: Vec<usize>,
    story: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Transactions that were looked at.
    pub transactions: usize,
    /// The findings, by kind; of each kind at most [`FINDINGS_PER_KIND_MAX`], of cycles one for each kind and each
    /// set of transactions that all depend on each other.
    pub findings: Vec<Finding>,
    /// How many there were of each kind.
    pub counts: BTreeMap<Kind, usize>,
    /// Whether all cycles were looked for. If not there are some, more than the budget of the search allowed to tell:
    /// a G-single may be told as a G2, or no cycle at all.
    pub is_complete: bool,
}

impl End {
    /// When the client knew; `None` if it never did.
    pub fn at(self) -> Option<Time> {
        match self {
            End::Committed { at } | End::Aborted { at } => Some(at),
            End::Unknown => None,
        }
    }
}

impl Transaction {
    fn is_committed(&self) -> bool {
        matches!(self.end, End::Committed { .. })
    }

    fn is_aborted(&self) -> bool {
        matches!(self.end, End::Aborted { .. })
    }
}

impl TransactionHistory {
    /// Makes a history of transactions in any order; they keep their positions.
    ///
    /// # Errors
    /// The first rule of recording that is broken.
    pub fn new(transactions: Vec<Transaction>) -> Result<Self, TransactionsError> {
        if transactions.len() > OPERATIONS_MAX {
            return Err(TransactionsError::TooMany { count: transactions.len() });
        }
        let mut elements = Vec::new();
        for (position, transaction) in transactions.iter().enumerate() {
            validate(position, transaction)?;
            for step in &transaction.steps {
                if let Step::Append { key, element } = *step {
                    elements.push((key, element, position));
                }
            }
        }
        elements.sort_unstable();
        for pair in elements.windows(2) {
            let ((key, element, first), (other_key, other, second)) = (pair[0], pair[1]);
            if (key, element) == (other_key, other) {
                return Err(TransactionsError::AppendedTwice { key, element, first, second });
            }
        }
        one_at_a_time(&transactions)?;
        Ok(TransactionHistory { transactions })
    }

    /// All transactions, in the order in which they were given.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// The transactions, to change them; [`TransactionHistory::new`] makes a history of them again.
    pub fn into_transactions(self) -> Vec<Transaction> {
        self.transactions
    }
}

fn validate(position: usize, transaction: &Transaction) -> Result<(), TransactionsError> {
    let invoked = transaction.invoked;
    if let Some(ended) = transaction.end.at().filter(|ended| *ended < invoked) {
        return Err(TransactionsError::EndsBeforeItBegins { transaction: position, invoked, ended });
    }
    for step in &transaction.steps {
        if let (Step::Read { key, list: None }, true) = (step, transaction.is_committed()) {
            return Err(TransactionsError::ReadWithoutList { transaction: position, key: *key });
        }
    }
    Ok(())
}

fn one_at_a_time(transactions: &[Transaction]) -> Result<(), TransactionsError> {
    // A transaction without an end is its process's last.
    let end = |transaction: &Transaction| (transaction.end.at().is_none(), transaction.end.at());
    let mut order: Vec<usize> = (0..transactions.len()).collect();
    order.sort_by_key(|&at| (transactions[at].process, transactions[at].invoked, end(&transactions[at]), at));
    for pair in order.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let process = transactions[first].process;
        let had_ended = transactions[first].end.at().is_some_and(|at| at <= transactions[second].invoked);
        if process == transactions[second].process && !had_ended {
            return Err(TransactionsError::OverlapsItself { process, first, second });
        }
    }
    Ok(())
}

/// Judges a history.
pub fn check(history: &TransactionHistory, guarantee: Guarantee) -> Report {
    let transactions = history.transactions();
    let mut collected = Collected::default();
    let orders = orders::infer(transactions, &mut collected);
    if guarantee == Guarantee::StrictSerializable {
        orders::lost_appends(transactions, &orders, &mut collected);
    }
    let graph = graph::build(transactions, &orders, guarantee);
    let is_complete = cycles::search(transactions, &orders, &graph, &mut collected);
    let mut findings = collected.findings;
    findings.sort_by_key(|finding| finding.kind);
    Report { transactions: transactions.len(), findings, counts: collected.counts, is_complete }
}

/// Findings as they come.
#[derive(Default)]
struct Collected {
    findings: Vec<Finding>,
    counts: BTreeMap<Kind, usize>,
}

impl Collected {
    /// Counts a finding, and keeps it with the story that `tell` gives if there are not too many of its kind.
    fn add(&mut self, kind: Kind, by_real_time: bool, transactions: Vec<usize>, tell: impl FnOnce() -> String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= FINDINGS_PER_KIND_MAX {
            let story = tell();
            self.findings.push(Finding { kind, by_real_time, transactions, story });
        }
    }
}

impl Report {
    /// Whether nothing was found. The search for cycles runs out of its budget only where there are some.
    pub fn is_fine(&self) -> bool {
        self.findings.is_empty() && self.is_complete
    }

    /// Whether something of this kind was found.
    pub fn has(&self, kind: Kind) -> bool {
        self.counts.contains_key(&kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Internal => "internal",
            Kind::UnknownElement => "unknown element",
            Kind::Duplicate => "duplicate",
            Kind::IncompatibleOrders => "incompatible orders",
            Kind::LostAppend => "lost append",
            Kind::G1a => "G1a (aborted read)",
            Kind::G1b => "G1b (intermediate read)",
            Kind::G0 => "G0 (write cycle)",
            Kind::G1c => "G1c (circular information flow)",
            Kind::GSingle => "G-single (one anti-dependency)",
            Kind::G2 => "G2 (anti-dependencies)",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_real_time = if self.by_real_time { ", by real time" } else { "" };
        write!(formatter, "{}{by_real_time}: {}", self.kind, self.story)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found: usize = self.counts.values().sum();
        let incomplete = if self.is_complete { "" } else { "; not all cycles were looked for" };
        writeln!(formatter, "{} transactions: {found} findings{incomplete}", self.transactions)?;
        for (kind, count) in &self.counts {
            writeln!(formatter, "{kind}: {count}")?;
        }
        for finding in &self.findings {
            writeln!(formatter, "{finding}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod brute;
#[cfg(test)]
mod tests;
