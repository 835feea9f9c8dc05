//! What a finding is told with: lists that do not fill a screen, transactions, and why each edge of a cycle is there.
//!
//! Place in the flow: the other parts of `transactions` call it for what they report.

use std::fmt::Write;

use super::graph::{Edge, Reason};
use super::orders::Orders;
use super::{End, Step, Transaction};

/// Elements of a list that are shown, from its end.
const SHOWN_ELEMENTS_MAX: usize = 12;

/// Steps of a transaction that are shown.
const SHOWN_STEPS_MAX: usize = 12;

/// Edges of a cycle that are shown, with their transactions.
const SHOWN_EDGES_MAX: usize = 8;

/// A list, the beginning of a long one left out.
pub fn list(elements: &[i64]) -> String {
    let from = elements.len().saturating_sub(SHOWN_ELEMENTS_MAX);
    let shown: Vec<String> = elements[from..].iter().map(i64::to_string).collect();
    let left_out = if from == 0 { String::new() } else { format!("({from} more) ") };
    format!("[{left_out}{}]", shown.join(" "))
}

fn transaction(position: usize, transaction: &Transaction) -> String {
    let steps = transaction.steps.iter().take(SHOWN_STEPS_MAX).map(|step| match step {
        Step::Append { key, element } => format!("append {element} to {}", key.0),
        Step::Read { key, list: Some(read) } => format!("read {} -> {}", key.0, list(read)),
        Step::Read { key, list: None } => format!("read {}", key.0),
    });
    let steps: Vec<String> = steps.collect();
    let more = transaction.steps.len().saturating_sub(SHOWN_STEPS_MAX);
    let more = if more == 0 { String::new() } else { format!("; and {more} more steps") };
    let end = match transaction.end {
        End::Committed { at } => format!("to {}, committed", at.0),
        End::Aborted { at } => format!("to {}, aborted", at.0),
        End::Unknown => "on, outcome unknown".to_owned(),
    };
    let (process, invoked, steps) = (transaction.process.0, transaction.invoked.0, steps.join("; "));
    format!("transaction {position}: process {process}, from {invoked} {end}: {steps}{more}")
}

/// A cycle: its transactions, and why each must come before the next.
pub fn cycle(edges: &[Edge], transactions: &[Transaction], orders: &Orders<'_>) -> String {
    let mut story = format!("{} transactions, each of which must come before the next:", edges.len());
    let shown = &edges[..edges.len().min(SHOWN_EDGES_MAX)];
    for edge in shown {
        let position = edge.from as usize;
        write!(story, "\n  {}", transaction(position, &transactions[position])).expect("a string");
    }
    for edge in shown {
        write!(story, "\n  {} before {}: {}", edge.from, edge.to, because(edge, transactions, orders))
            .expect("a string");
    }
    story
}

fn because(edge: &Edge, transactions: &[Transaction], orders: &Orders<'_>) -> String {
    let (from, to, element) = (edge.from as usize, edge.to as usize, edge.element);
    let at = |transaction: usize| transactions[transaction].end.at().map_or(0, |at| at.0);
    if edge.reason == Reason::RealTime {
        let (ended, began) = (at(from), transactions[to].invoked.0);
        return format!("{from} had ended at {ended}, {to} began at {began} (real time)");
    }
    let (key, order) = &orders.keys[edge.key as usize];
    let key = key.0;
    let unseen = if order.elements.iter().any(|&(other, _)| other == element) { "" } else { ", which no read shows" };
    match edge.reason {
        Reason::WriteWrite => {
            let place = order.elements.iter().position(|&(other, _)| other == element).unwrap_or(order.elements.len());
            let before = order.elements[..place]
                .iter()
                .rev()
                .find(|(_, append)| append.is_some_and(|append| append.transaction == from));
            let before = before.map_or(0, |&(before, _)| before);
            format!("{from} appended {before} to key {key}, and then {to} appended {element}{unseen} (ww)")
        }
        Reason::WriteRead => format!("{from} appended {element} to key {key}, and {to} read it (wr)"),
        Reason::ReadWrite => {
            format!("{from} read key {key} without {element}, which {to} appended{unseen} (rw)")
        }
        Reason::RealTime => unreachable!("told above"),
    }
}
