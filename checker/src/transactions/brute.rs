//! The definition of serializability, tried out: for histories of a few transactions, to hold the checker against.

use std::collections::BTreeMap;

use super::{End, Guarantee, Step, Transaction};
use crate::history::Key;

type Store = BTreeMap<Key, Vec<i64>>;

/// Whether some serial order explains every read, by trying all of them.
pub fn explains(transactions: &[Transaction], guarantee: Guarantee) -> bool {
    let happened = |transaction: &&Transaction| !matches!(transaction.end, End::Aborted { .. });
    let transactions: Vec<&Transaction> = transactions.iter().filter(happened).collect();
    from(&transactions, guarantee, &Store::new(), &mut vec![false; transactions.len()])
}

fn from(transactions: &[&Transaction], guarantee: Guarantee, store: &Store, placed: &mut [bool]) -> bool {
    let left: Vec<usize> = (0..transactions.len()).filter(|&position| !placed[position]).collect();
    if left.iter().all(|&position| transactions[position].end == End::Unknown) {
        return true;
    }
    left.iter().any(|&position| {
        let began = transactions[position].invoked;
        let must_wait = left.iter().any(|&other| transactions[other].end.at().is_some_and(|at| at < began));
        if must_wait && guarantee == Guarantee::StrictSerializable {
            return false;
        }
        let Some(after) = run(store, transactions[position]) else { return false };
        placed[position] = true;
        let explained = from(transactions, guarantee, &after, placed);
        placed[position] = false;
        explained
    })
}

/// The store afterwards; `None` if a read shows something else.
fn run(store: &Store, transaction: &Transaction) -> Option<Store> {
    let mut store = store.clone();
    for step in &transaction.steps {
        match step {
            Step::Append { key, element } => store.entry(*key).or_default().push(*element),
            Step::Read { key, list: Some(list) } => {
                if store.get(key).map_or(&[][..], Vec::as_slice) != list {
                    return None;
                }
            }
            Step::Read { list: None, .. } => {}
        }
    }
    Some(store)
}
