//! Properties of the decoders of recorded histories, and of the checkers on whatever they let through.

use eyot_checker::history::{History, Operation};
use eyot_checker::linear::{check, check_by_search, Limits, Verdict};
use eyot_checker::lines::{decode, encode, LinesError, Record};
use eyot_checker::transactions::{self, Guarantee, Transaction, TransactionHistory};

/// What the search may remember: an input is small, and so must be the time for it.
const CONFIGURATIONS_MAX: u64 = 1_000;

/// Reads `input` as the lines of a history, and judges it.
///
/// # Panics
/// When what was accepted is not what encoding it gives, when what was refused is not told by its line, or when two
/// checkers contradict each other.
pub fn history_lines(input: &[u8]) {
    transaction_lines(input);
    let Some(operations) = read::<Operation>(input) else { return };
    let lines = encode(&operations);
    assert_eq!(decode::<Operation>(&lines).as_ref(), Ok(&operations), "what was read can be written");
    let Ok(history) = History::new(operations) else { return };
    let limits = Limits { configurations_max: CONFIGURATIONS_MAX };
    let report = check(&history, limits);
    assert!(report.to_string().len() > 10);
    let by_search = check_by_search(&history, limits);
    let decided = [report.verdict(), by_search].iter().all(|verdict| *verdict != Verdict::Undecided);
    assert!(!decided || report.verdict() == by_search, "{by_search:?} by search: {report}");
}

/// Reads lines; those before a line that is named as bad are good ones, and what is said about it is short.
fn read<R: Record>(input: &[u8]) -> Option<Vec<R>> {
    let error = match decode::<R>(input) {
        Ok(records) => return Some(records),
        Err(error) => error,
    };
    assert!(error.to_string().len() < 2_000, "{error}");
    let LinesError::Line { line, .. } = error else {
        assert!(input.is_empty(), "{error}");
        return None;
    };
    let before: Vec<&[u8]> = input.split_inclusive(|&byte| byte == b'\n').take(line).collect();
    assert_eq!(before.len(), line, "a line that is there: {error}");
    let good = before[..line - 1].concat();
    assert!(
        line == 1 || decode::<R>(&good).is_ok_and(|records| records.len() == line - 2),
        "line {line} is not the first bad one"
    );
    None
}

fn transaction_lines(input: &[u8]) {
    let Some(transactions) = read::<Transaction>(input) else { return };
    let lines = encode(&transactions);
    assert_eq!(decode::<Transaction>(&lines).as_ref(), Ok(&transactions), "what was read can be written");
    let Ok(history) = TransactionHistory::new(transactions) else { return };
    let strict = transactions::check(&history, Guarantee::StrictSerializable);
    let weak = transactions::check(&history, Guarantee::Serializable);
    assert!(!strict.is_fine() || weak.is_fine(), "what is strictly serializable is serializable: {weak}");
}
