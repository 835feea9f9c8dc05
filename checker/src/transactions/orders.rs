//! In which order appends took effect, as the longest read of each key shows it; and what is wrong with reads without
//! a cycle.
//!
//! Place in the flow: the first part of `check`. `graph` builds on [`Orders`].
//!
//! Invariants:
//! - An order holds what the longest read of a committed transaction shows, up to the first element that stands there
//!   twice; every other read that is used begins it.
//! - Only the longest read of a key is looked at element by element. Others are compared with it as a whole, so a
//!   history costs what its reads are long and no more.
//!
//! Deliberately not here: reads of transactions that aborted or whose outcome is unknown; nobody was told them.

use std::collections::{BTreeMap, BTreeSet};

use super::story::list;
use super::{Collected, End, Kind, Step, Transaction};
use crate::history::Key;

/// A read as others could see it: without what its transaction had appended itself.
#[derive(Debug, Clone, Copy)]
pub struct ExternalRead<'a> {
    /// Who read.
    pub transaction: usize,
    /// What the list was before the transaction's own appends.
    pub list: &'a [i64],
}

/// Who appended an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append {
    /// The transaction.
    pub transaction: usize,
    /// Which of its steps did.
    pub step: usize,
    /// Whether it appended nothing more to this key.
    pub is_last: bool,
}

/// The versions of a key.
#[derive(Debug, Default)]
pub struct Order<'a> {
    /// The elements in their order, with their appends; `None` if nobody did, or somebody who aborted.
    pub elements: Vec<(i64, Option<Append>)>,
    /// Whether the longest read was cut, because an element stood there twice.
    pub is_cut: bool,
    /// All elements that some read shows.
    shown: BTreeSet<i64>,
    /// Reads that begin the order.
    pub reads: Vec<ExternalRead<'a>>,
    /// Appends that have happened and that no read shows, by the time of their commit.
    pub unseen: Vec<(i64, usize)>,
}

/// The versions of all keys, and who has certainly happened.
#[derive(Debug)]
pub struct Orders<'a> {
    /// By key, ascending.
    pub keys: Vec<(Key, Order<'a>)>,
    /// By transaction: whether it was committed, be it that only a read shows it.
    pub happened: Vec<bool>,
}

/// A read as its transaction saw it.
struct FullRead<'a> {
    transaction: usize,
    list: &'a [i64],
    external: &'a [i64],
}

/// Infers the orders, and reports what contradicts itself on the way.
pub fn infer<'a>(transactions: &'a [Transaction], collected: &mut Collected) -> Orders<'a> {
    let appends = appends(transactions);
    let mut reads: BTreeMap<Key, Vec<FullRead<'a>>> = BTreeMap::new();
    for (position, transaction) in transactions.iter().enumerate() {
        if transaction.is_committed() {
            inside(position, transaction, &mut reads, collected);
        }
    }
    let mut orders =
        Orders { keys: Vec::new(), happened: transactions.iter().map(Transaction::is_committed).collect() };
    // Who has happened is known when all reads were looked at; what they do not show, only then.
    let keys: BTreeSet<Key> = reads.keys().chain(appends.keys().map(|(key, _)| key)).copied().collect();
    for key in keys {
        let of_key = reads.remove(&key).unwrap_or_default();
        let order = order_of(key, &of_key, transactions, &appends, &mut orders.happened, collected);
        orders.keys.push((key, order));
    }
    for (key, order) in &mut orders.keys {
        for (&(_, element), append) in appends.range((*key, i64::MIN)..=(*key, i64::MAX)) {
            if orders.happened[append.transaction] && !order.shown.contains(&element) {
                order.unseen.push((element, append.transaction));
            }
        }
        let ended = |transaction: usize| transactions[transaction].end.at().map_or(u64::MAX, |at| at.0);
        order.unseen.sort_by_key(|&(element, transaction)| (ended(transaction), element));
    }
    orders
}

/// Who appended what.
fn appends(transactions: &[Transaction]) -> BTreeMap<(Key, i64), Append> {
    let mut appends = BTreeMap::new();
    for (position, transaction) in transactions.iter().enumerate() {
        let mut seen: BTreeSet<Key> = BTreeSet::new();
        for (step, asked) in transaction.steps.iter().enumerate().rev() {
            if let Step::Append { key, element } = *asked {
                appends.insert((key, element), Append { transaction: position, step, is_last: seen.insert(key) });
            }
        }
    }
    appends
}

/// Holds a transaction's reads against its own steps, and gathers them.
fn inside<'a>(
    position: usize,
    transaction: &'a Transaction,
    reads: &mut BTreeMap<Key, Vec<FullRead<'a>>>,
    collected: &mut Collected,
) {
    let mut own: BTreeMap<Key, Vec<i64>> = BTreeMap::new();
    let all_own = own_elements(transaction);
    let mut first: BTreeMap<Key, &'a [i64]> = BTreeMap::new();
    for step in &transaction.steps {
        let (key, read) = match step {
            Step::Append { key, element } => {
                own.entry(*key).or_default().push(*element);
                continue;
            }
            Step::Read { key, list } => (*key, list.as_deref().unwrap_or_default()),
        };
        let appended = own.get(&key).map_or(&[][..], Vec::as_slice);
        let Some(external) = read.strip_suffix(appended) else {
            collected.add(Kind::Internal, false, vec![position], || {
                let (read, appended) = (list(read), list(appended));
                format!("transaction {position} had appended {appended} to key {} and read it as {read}", key.0)
            });
            continue;
        };
        let is_own = |element: &i64| all_own.get(&key).is_some_and(|own| own.contains(element));
        if let Some(&element) = external.iter().find(|element| is_own(element)) {
            collected.add(Kind::Internal, false, vec![position], || {
                let read = list(read);
                format!("transaction {position} read key {} with {element} before it appended that: {read}", key.0)
            });
        }
        let before = *first.entry(key).or_insert(external);
        if before != external {
            collected.add(Kind::Internal, false, vec![position], || {
                let (before, now) = (list(before), list(external));
                format!("transaction {position} read key {} as {before} and then, without its own, as {now}", key.0)
            });
        }
        reads.entry(key).or_default().push(FullRead { transaction: position, list: read, external });
    }
}

/// What a transaction appends to each key, at any of its steps.
fn own_elements(transaction: &Transaction) -> BTreeMap<Key, BTreeSet<i64>> {
    let mut own: BTreeMap<Key, BTreeSet<i64>> = BTreeMap::new();
    for step in &transaction.steps {
        if let Step::Append { key, element } = *step {
            own.entry(key).or_default().insert(element);
        }
    }
    own
}

fn order_of<'a>(
    key: Key,
    reads: &[FullRead<'a>],
    transactions: &[Transaction],
    appends: &BTreeMap<(Key, i64), Append>,
    happened: &mut [bool],
    collected: &mut Collected,
) -> Order<'a> {
    // Of equally long ones the first, so that the choice depends on the history alone.
    let longest = reads.iter().rev().max_by_key(|read| read.list.len());
    let mut order = Order::default();
    let mut shown: BTreeSet<i64> = BTreeSet::new();
    let mut faulty: BTreeSet<i64> = BTreeSet::new();
    for read in reads {
        let is_longest = longest.is_some_and(|longest| std::ptr::eq(longest, read));
        let begins = longest.is_none_or(|longest| longest.list.starts_with(read.list));
        if !begins {
            let longest = longest.expect("a read that does not begin it");
            incompatible(key, read, longest, collected);
        }
        if is_longest || !begins {
            judge_elements(key, read, transactions, appends, happened, &mut faulty, collected);
            shown.extend(read.list);
        }
    }
    let mut seen: BTreeSet<i64> = BTreeSet::new();
    for &element in longest.map_or(&[][..], |longest| longest.list) {
        if !seen.insert(element) {
            order.is_cut = true;
            break;
        }
        let append = appends.get(&(key, element)).copied();
        order.elements.push((element, append.filter(|append| !transactions[append.transaction].is_aborted())));
    }
    own_order(key, &order, collected);
    for read in reads {
        intermediate(key, read, appends, collected);
        let begins = longest.is_some_and(|longest| longest.list.starts_with(read.external));
        if begins && read.external.len() <= order.elements.len() {
            order.reads.push(ExternalRead { transaction: read.transaction, list: read.external });
        }
    }
    order.shown = shown;
    order
}

fn incompatible(key: Key, read: &FullRead<'_>, longest: &FullRead<'_>, collected: &mut Collected) {
    let (one, other) = (read.transaction, longest.transaction);
    collected.add(Kind::IncompatibleOrders, false, vec![one, other], || {
        let at = read.list.iter().zip(longest.list).position(|(one, other)| one != other).unwrap_or(0);
        format!(
            "transaction {one} read key {} with {} as element {at}, transaction {other} with {}, counted from 0:\n  {}\n  {}",
            key.0,
            read.list[at],
            longest.list[at],
            list(read.list),
            list(longest.list)
        )
    });
}

/// A transaction's own appends stand in the order of its steps.
fn own_order(key: Key, order: &Order<'_>, collected: &mut Collected) {
    let mut last: BTreeMap<usize, (usize, i64)> = BTreeMap::new();
    for &(element, append) in &order.elements {
        let Some(Append { transaction, step, .. }) = append else { continue };
        let earlier = last.insert(transaction, (step, element));
        if let Some((_, earlier)) = earlier.filter(|(earlier, _)| *earlier > step) {
            collected.add(Kind::IncompatibleOrders, false, vec![transaction], || {
                format!(
                    "transaction {transaction} appended {element} to key {} before {earlier}, and reads have it behind: {}",
                    key.0,
                    list(&order.elements.iter().map(|&(element, _)| element).collect::<Vec<_>>())
                )
            });
        }
    }
}

/// Looks for elements that must not be in a read; each is told once for a key.
fn judge_elements(
    key: Key,
    read: &FullRead<'_>,
    transactions: &[Transaction],
    appends: &BTreeMap<(Key, i64), Append>,
    happened: &mut [bool],
    faulty: &mut BTreeSet<i64>,
    collected: &mut Collected,
) {
    let reader = read.transaction;
    let mut seen: BTreeSet<i64> = BTreeSet::new();
    for &element in read.list {
        if !seen.insert(element) && faulty.insert(element) {
            collected.add(Kind::Duplicate, false, vec![reader], || {
                format!("transaction {reader} read key {} with {element} twice: {}", key.0, list(read.list))
            });
        }
        let Some(append) = appends.get(&(key, element)) else {
            if faulty.insert(element) {
                collected.add(Kind::UnknownElement, false, vec![reader], || {
                    let read = list(read.list);
                    format!("transaction {reader} read key {} with {element}, which nobody appended: {read}", key.0)
                });
            }
            continue;
        };
        let writer = append.transaction;
        if !transactions[writer].is_aborted() {
            happened[writer] = true;
        } else if faulty.insert(element) {
            collected.add(Kind::G1a, false, vec![writer, reader], || {
                format!(
                    "transaction {reader} read key {} with {element}, which transaction {writer} had appended, and that \
                     aborted",
                    key.0
                )
            });
        }
    }
}

/// A read that ends with an element after which its transaction appended another one.
fn intermediate(key: Key, read: &FullRead<'_>, appends: &BTreeMap<(Key, i64), Append>, collected: &mut Collected) {
    let Some(&element) = read.external.last() else { return };
    let Some(append) = appends.get(&(key, element)) else { return };
    let (writer, reader) = (append.transaction, read.transaction);
    if writer != reader && !append.is_last {
        collected.add(Kind::G1b, false, vec![writer, reader], || {
            format!(
                "transaction {reader} read key {} up to {element}, from the midst of transaction {writer}, which appended \
                 more",
                key.0
            )
        });
    }
}

/// Committed appends that no read shows, though one began when they were committed.
pub fn lost_appends(transactions: &[Transaction], orders: &Orders<'_>, collected: &mut Collected) {
    for (key, order) in &orders.keys {
        let began = |read: &&ExternalRead<'_>| transactions[read.transaction].invoked;
        let Some(last) = order.reads.iter().max_by_key(began) else { continue };
        for &(element, writer) in &order.unseen {
            let End::Committed { at } = transactions[writer].end else { continue };
            let reader = last.transaction;
            if at < transactions[reader].invoked && writer != reader {
                collected.add(Kind::LostAppend, true, vec![writer, reader], || {
                    format!(
                        "transaction {writer} appended {element} to key {} and was committed at {}; no read has it, not \
                         even that of transaction {reader}, which began at {}:\n  {}",
                        key.0,
                        at.0,
                        transactions[reader].invoked.0,
                        list(last.list)
                    )
                });
            }
        }
    }
}
