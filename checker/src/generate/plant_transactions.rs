//! Plants an anomaly into a correct history of transactions: what a store with that bug would have answered.
//!
//! Place in the flow: the test of the checker of `transactions`.
//!
//! Most anomalies get steps on fresh keys, at the end of transactions that are there already and that overlap or
//! follow each other as the anomaly needs it. Some change a read that is there.
//!
//! Invariant: what [`plant_transaction`] returns is not strictly serializable, and the finding that
//! [`TransactionAnomaly::kind`] names is in it; the reason stands at each anomaly.

use super::{generate_transactions, Random, TransactionWorkload};
use crate::history::{Key, Time};
use crate::transactions::{End, Kind, Step, Transaction, TransactionHistory};

/// An anomaly of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionAnomaly {
    /// Two transactions append to two keys, in different orders.
    DirtyWrite,
    /// A read has an element of an aborted transaction.
    AbortedRead,
    /// A read ends in the midst of another transaction.
    IntermediateRead,
    /// Two transactions each read what the other appended.
    CircularRead,
    /// A transaction reads one key before and one after another transaction's appends to both.
    ReadSkew,
    /// Two transactions read the same version and both append to it.
    LostUpdate,
    /// Two transactions each append to what the other reads, and read nothing of it.
    WriteSkew,
    /// Two readers see two independent appends in different orders.
    LongFork,
    /// A read, on keys of the history, ends before an element that was committed before it began.
    StaleRead,
    /// No read has an element, on keys of the history, though one began when it was committed.
    LostAppend,
    /// A read, on keys of the history, has two elements in another order than the other reads.
    Reordered,
    /// Reads have an element twice.
    Duplicate,
    /// A read has an element of nobody's.
    UnknownElement,
    /// A transaction does not see its own append.
    Internal,
    /// A transaction that nobody knows the outcome of has happened by half.
    TornTransaction,
}

impl TransactionAnomaly {
    /// All of them.
    pub const ALL: [TransactionAnomaly; 15] = [
        TransactionAnomaly::DirtyWrite,
        TransactionAnomaly::AbortedRead,
        TransactionAnomaly::IntermediateRead,
        TransactionAnomaly::CircularRead,
        TransactionAnomaly::ReadSkew,
        TransactionAnomaly::LostUpdate,
        TransactionAnomaly::WriteSkew,
        TransactionAnomaly::LongFork,
        TransactionAnomaly::StaleRead,
        TransactionAnomaly::LostAppend,
        TransactionAnomaly::Reordered,
        TransactionAnomaly::Duplicate,
        TransactionAnomaly::UnknownElement,
        TransactionAnomaly::Internal,
        TransactionAnomaly::TornTransaction,
    ];

    /// The finding that shows it.
    pub fn kind(self) -> Kind {
        match self {
            TransactionAnomaly::DirtyWrite => Kind::G0,
            TransactionAnomaly::AbortedRead => Kind::G1a,
            TransactionAnomaly::IntermediateRead => Kind::G1b,
            TransactionAnomaly::CircularRead => Kind::G1c,
            TransactionAnomaly::ReadSkew
            | TransactionAnomaly::LostUpdate
            | TransactionAnomaly::StaleRead
            | TransactionAnomaly::TornTransaction => Kind::GSingle,
            TransactionAnomaly::WriteSkew | TransactionAnomaly::LongFork => Kind::G2,
            TransactionAnomaly::LostAppend => Kind::LostAppend,
            TransactionAnomaly::Reordered => Kind::IncompatibleOrders,
            TransactionAnomaly::Duplicate => Kind::Duplicate,
            TransactionAnomaly::UnknownElement => Kind::UnknownElement,
            TransactionAnomaly::Internal => Kind::Internal,
        }
    }
}

/// Places that are tried before a history is said to have none.
const TRIES_MAX: usize = 20_000;

/// How far from each other, in positions, transactions are looked for that overlap.
const NEAR: u64 = 24;

/// Keys that no workload reaches.
const FRESH: [Key; 2] = [Key(u64::MAX - 1), Key(u64::MAX)];

/// Generates the history of a seed and plants the anomaly. `None` if the history has no place for it: short ones may
/// not.
pub fn plant_transaction(
    anomaly: TransactionAnomaly,
    workload: &TransactionWorkload,
    seed: u64,
) -> Option<TransactionHistory> {
    let transactions = generate_transactions(workload, seed).into_transactions();
    let mut bed = Bed { transactions, random: Random::new(!seed) };
    if bed.transactions.is_empty() {
        return None;
    }
    let planted = (0..TRIES_MAX).any(|_| bed.plant(anomaly).is_some());
    planted.then(|| TransactionHistory::new(bed.transactions).expect("fresh keys, and reads that have changed"))
}

/// A history in which a place is looked for.
struct Bed {
    transactions: Vec<Transaction>,
    random: Random,
}

fn append(key: Key, element: i64) -> Step {
    Step::Append { key, element }
}

fn read(key: Key, list: &[i64]) -> Step {
    Step::Read { key, list: Some(list.to_vec()) }
}

impl Bed {
    /// Draws a place and plants there; `None` if it is none, and then nothing has changed.
    fn plant(&mut self, anomaly: TransactionAnomaly) -> Option<()> {
        match anomaly {
            TransactionAnomaly::StaleRead => self.stale_read(),
            TransactionAnomaly::LostAppend => self.lost_append(),
            TransactionAnomaly::Reordered => self.reordered(),
            TransactionAnomaly::AbortedRead => {
                let (writer, reader) = (self.draw(), self.committed()?);
                matches!(self.transactions[writer].end, End::Aborted { .. }).then_some(())?;
                self.add(writer, [append(FRESH[0], 1)]);
                self.add(reader, [read(FRESH[0], &[1])]);
                Some(())
            }
            TransactionAnomaly::TornTransaction => {
                // The read with its append shows that it has happened, the other one that not all of it has.
                let (torn, reader) = (self.draw(), self.committed()?);
                let is_open = self.transactions[torn].end == End::Unknown;
                (is_open && self.transactions[torn].invoked <= self.transactions[reader].invoked).then_some(())?;
                self.add(torn, [append(FRESH[0], 1), append(FRESH[1], 1)]);
                self.add(reader, [read(FRESH[0], &[1]), read(FRESH[1], &[])]);
                Some(())
            }
            TransactionAnomaly::UnknownElement => {
                let reader = self.committed()?;
                self.add(reader, [read(FRESH[0], &[1])]);
                Some(())
            }
            TransactionAnomaly::Internal => {
                let reader = self.committed()?;
                self.add(reader, [append(FRESH[0], 1), read(FRESH[0], &[])]);
                Some(())
            }
            TransactionAnomaly::Duplicate => {
                let (writer, reader) = self.one_after_the_other()?;
                self.add(writer, [append(FRESH[0], 1)]);
                self.add(reader, [read(FRESH[0], &[1, 1])]);
                Some(())
            }
            _ => {
                let pair = self.overlapping()?;
                self.between_two(anomaly, pair)
            }
        }
    }

    /// Anomalies between two transactions that overlap, so that real time says nothing about their order.
    fn between_two(&mut self, anomaly: TransactionAnomaly, (one, other): (usize, usize)) -> Option<()> {
        let [a, b] = FRESH;
        match anomaly {
            TransactionAnomaly::DirtyWrite => {
                let reader = self.after(&[one, other])?;
                self.add(one, [append(a, 1), append(b, 1)]);
                self.add(other, [append(a, 2), append(b, 2)]);
                self.add(reader, [read(a, &[1, 2]), read(b, &[2, 1])]);
            }
            TransactionAnomaly::IntermediateRead => {
                self.add(one, [append(a, 1), append(a, 2)]);
                self.add(other, [read(a, &[1])]);
            }
            TransactionAnomaly::CircularRead => {
                self.add(one, [append(a, 1), read(b, &[1])]);
                self.add(other, [append(b, 1), read(a, &[1])]);
            }
            TransactionAnomaly::ReadSkew => {
                self.add(one, [read(a, &[]), read(b, &[1])]);
                self.add(other, [append(a, 1), append(b, 1)]);
            }
            TransactionAnomaly::LostUpdate => {
                let reader = self.after(&[one, other])?;
                self.add(one, [read(a, &[]), append(a, 1)]);
                self.add(other, [read(a, &[]), append(a, 2)]);
                self.add(reader, [read(a, &[1, 2])]);
            }
            TransactionAnomaly::WriteSkew => {
                // With and without a read that shows the appends.
                if self.random.chance(500) {
                    let reader = self.after(&[one, other])?;
                    self.add(reader, [read(a, &[1]), read(b, &[1])]);
                }
                self.add(one, [read(a, &[]), append(b, 1)]);
                self.add(other, [read(b, &[]), append(a, 1)]);
            }
            TransactionAnomaly::LongFork => {
                let first = self.beside(one)?;
                let second = self.beside(other)?;
                let four = [one, other, first, second];
                let all_overlap = four.iter().all(|&this| {
                    four.iter().all(|&that| self.transactions[this].end.at() >= Some(self.transactions[that].invoked))
                });
                (first != second && first != other && second != one && all_overlap).then_some(())?;
                self.add(one, [append(a, 1)]);
                self.add(other, [append(b, 1)]);
                self.add(first, [read(a, &[1]), read(b, &[])]);
                self.add(second, [read(a, &[]), read(b, &[1])]);
            }
            _ => unreachable!("{anomaly:?} is planted elsewhere"),
        }
        Some(())
    }

    /// An element that was committed before the read began is cut off its end.
    fn stale_read(&mut self) -> Option<()> {
        let reader = self.committed()?;
        let (key, list) = self.only_read(reader)?;
        let element = *list.last()?;
        let writer = self.writer_of(key, element)?;
        let is_over = self.transactions[writer].end.at()? < self.transactions[reader].invoked;
        // Another read must show the element, else it may be behind all that is read.
        let shows = |(position, transaction): (usize, &Transaction)| {
            position != reader && reads(transaction).any(|(other, list)| other == key && list.contains(&element))
        };
        (is_over && self.transactions.iter().enumerate().any(shows)).then_some(())?;
        self.edit(reader, key, |list| {
            list.pop();
        });
        Some(())
    }

    /// An element disappears from all reads, one of which began when it was committed.
    fn lost_append(&mut self) -> Option<()> {
        let writer = self.committed()?;
        let steps = &self.transactions[writer].steps;
        let mut appends = steps.iter().filter_map(|step| match *step {
            Step::Append { key, element } => Some((key, element)),
            Step::Read { .. } => None,
        });
        let (key, element) = appends.next()?;
        // Its own reads would contradict it, and that is another anomaly.
        reads(&self.transactions[writer]).all(|(other, _)| other != key).then_some(())?;
        let ended = self.transactions[writer].end.at()?;
        let misses = |transaction: &Transaction| {
            transaction.invoked > ended
                && reads(transaction).any(|(other, list)| other == key && list.contains(&element))
        };
        self.transactions.iter().any(misses).then_some(())?;
        for position in 0..self.transactions.len() {
            self.edit(position, key, |list| list.retain(|&other| other != element));
        }
        Some(())
    }

    /// Two elements change places in one read; another read, at least as long, keeps their order.
    fn reordered(&mut self) -> Option<()> {
        let reader = self.committed()?;
        let (key, list) = self.only_read(reader)?;
        let at = self.random.below((list.len() as u64).checked_sub(1).filter(|&bound| bound > 0)?) as usize;
        let length = list.len();
        let keeps = |(position, transaction): (usize, &Transaction)| {
            position != reader && reads(transaction).any(|(other, list)| other == key && list.len() >= length)
        };
        self.transactions.iter().enumerate().any(keeps).then_some(())?;
        self.edit(reader, key, |list| list.swap(at, at + 1));
        Some(())
    }

    fn draw(&mut self) -> usize {
        self.random.below(self.transactions.len() as u64) as usize
    }

    fn committed(&mut self) -> Option<usize> {
        let position = self.draw();
        matches!(self.transactions[position].end, End::Committed { .. }).then_some(position)
    }

    fn is_committed(&self, position: usize) -> bool {
        matches!(self.transactions[position].end, End::Committed { .. })
    }

    /// A committed transaction near `position`, and not it.
    fn beside(&mut self, position: usize) -> Option<usize> {
        let other = (position as u64 + self.random.below(2 * NEAR + 1)).checked_sub(NEAR)? as usize;
        (other < self.transactions.len() && other != position && self.is_committed(other)).then_some(other)
    }

    /// Two committed transactions, each of which began before the other ended.
    fn overlapping(&mut self) -> Option<(usize, usize)> {
        let one = self.committed()?;
        let other = self.beside(one)?;
        let began = |position: usize| Some(self.transactions[position].invoked);
        let ended = |position: usize| self.transactions[position].end.at();
        (ended(one) >= began(other) && ended(other) >= began(one)).then_some((one, other))
    }

    /// A committed transaction that began after all of these had ended.
    fn after(&mut self, earlier: &[usize]) -> Option<usize> {
        let position = self.committed()?;
        let began = self.transactions[position].invoked;
        let is_after = |&earlier: &usize| self.transactions[earlier].end.at().is_some_and(|at: Time| at < began);
        earlier.iter().all(is_after).then_some(position)
    }

    fn one_after_the_other(&mut self) -> Option<(usize, usize)> {
        let first = self.committed()?;
        Some((first, self.after(&[first])?))
    }

    fn add(&mut self, position: usize, steps: impl IntoIterator<Item = Step>) {
        self.transactions[position].steps.extend(steps);
    }

    /// A key that the transaction reads once, and to which it appends nothing; with the list.
    fn only_read(&self, position: usize) -> Option<(Key, Vec<i64>)> {
        let transaction = &self.transactions[position];
        let touches = |wanted: Key| {
            let is_it =
                |step: &&Step| matches!(step, Step::Append { key, .. } | Step::Read { key, .. } if *key == wanted);
            transaction.steps.iter().filter(is_it).count()
        };
        let mut once = reads(transaction).filter(|(key, _)| touches(*key) == 1);
        once.next().map(|(key, list)| (key, list.clone()))
    }

    fn writer_of(&self, wanted: Key, element: i64) -> Option<usize> {
        self.transactions.iter().position(|transaction| transaction.steps.contains(&append(wanted, element)))
    }

    fn edit(&mut self, position: usize, wanted: Key, change: impl Fn(&mut Vec<i64>)) {
        for step in &mut self.transactions[position].steps {
            match step {
                Step::Read { key, list: Some(list) } if *key == wanted => change(list),
                _ => {}
            }
        }
    }
}

/// What a transaction was told that it read.
fn reads(transaction: &Transaction) -> impl Iterator<Item = (Key, &Vec<i64>)> {
    transaction.steps.iter().filter_map(|step| match step {
        Step::Read { key, list: Some(list) } => Some((*key, list)),
        _ => None,
    })
}
