//! What depends on what: an edge leads from a transaction to one that must come later.
//!
//! Place in the flow: between `orders` and `cycles`.
//!
//! | edge | from | to |
//! |---|---|---|
//! | ww | who appended an element | who appended the next one |
//! | wr | who appended the last element of a read | who read it |
//! | rw | who read | who appended the next element behind the read |
//! | time | who ended | who began later |
//!
//! Invariants:
//! - Every edge holds in every serial order that explains the reads: dependencies that follow from others through
//!   further elements have no edge of their own.
//! - Edges of time are as few as say the same (the transitive reduction over the transactions that are open at once):
//!   a transaction gets one from each of those that ended before it and after which none has begun and ended since.
//!   Where these are many, they lead to a node of its own, an instant, and on from there: else the edges of many
//!   clients would be as many as the square of their transactions.
//! - What no read shows comes behind everything that one shows. It is not ordered among itself.

use super::orders::{Append, Order, Orders};
use super::{Guarantee, Transaction};

/// Edges of a key to appends that no read shows, for each of its last readers and writers: those that were committed
/// first. Were all appends of a long history lost, the edges would be as many as its square.
const UNSEEN_EDGES_MAX: usize = 64;

/// Transactions that each get an edge of time of their own to whatever begins next; with one more they get an instant.
/// Up to so many clients at a time have none, and so the shortest cycles.
const ENDED_EDGES_MAX: usize = 64;

/// What an edge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Appended before.
    WriteWrite,
    /// Appended what the other read.
    WriteRead,
    /// Read what was before the other's append.
    ReadWrite,
    /// Ended before the other began.
    RealTime,
}

/// An edge, with what it is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// What comes first.
    pub from: u32,
    /// What comes later.
    pub to: u32,
    /// Why.
    pub reason: Reason,
    /// The position of the key in `Orders::keys`; 0 for an edge of time.
    pub key: u32,
    /// The element of `to`: what it appended, or the last that it read.
    pub element: i64,
}

/// All edges. The nodes are the transactions, by their positions, and behind them the instants.
#[derive(Debug)]
pub struct Graph {
    /// By `from`, and then in the order of their fields.
    pub edges: Vec<Edge>,
    /// The edges of transaction `i` are those from `starts[i]` to `starts[i + 1]`.
    pub starts: Vec<u32>,
}

impl Graph {
    /// The graph of some edges; those from a transaction to itself say nothing, and of those that say the same one is
    /// kept.
    pub fn new(nodes: usize, mut edges: Vec<Edge>) -> Self {
        edges.retain(|edge| edge.from != edge.to);
        edges.sort_unstable();
        edges.dedup_by_key(|edge| (edge.from, edge.to, edge.reason));
        assert!(u32::try_from(edges.len()).is_ok(), "{} edges", edges.len());
        let mut starts = vec![0_u32; nodes + 1];
        for edge in &edges {
            starts[edge.from as usize + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        Graph { edges, starts }
    }

    /// Transactions and instants that it has.
    pub fn nodes(&self) -> usize {
        self.starts.len() - 1
    }

    /// The numbers of the edges of a node.
    pub fn edges_of(&self, node: usize) -> std::ops::Range<usize> {
        self.starts[node] as usize..self.starts[node + 1] as usize
    }
}

/// Builds the graph.
pub fn build(transactions: &[Transaction], orders: &Orders<'_>, guarantee: Guarantee) -> Graph {
    let mut edges = Vec::new();
    for (key, (_, order)) in orders.keys.iter().enumerate() {
        of_key(key as u32, order, &mut edges);
    }
    let instants = match guarantee {
        Guarantee::StrictSerializable => of_time(transactions, &orders.happened, &mut edges),
        Guarantee::Serializable => 0,
    };
    Graph::new(transactions.len() + instants, edges)
}

fn of_key(key: u32, order: &Order<'_>, edges: &mut Vec<Edge>) {
    let edge =
        |from: usize, to: usize, reason, element| Edge { from: from as u32, to: to as u32, reason, key, element };
    let known = |&(element, append): &(i64, Option<Append>)| append.map(|append| (element, append.transaction));
    // By length of a read: the last append in it that is known, and the first one behind it.
    let count = order.elements.len();
    let mut last = vec![None; count + 1];
    let mut next = vec![None; count + 1];
    for at in 0..count {
        last[at + 1] = known(&order.elements[at]).or(last[at]);
        if let (Some((_, before)), Some((element, writer))) = (last[at], known(&order.elements[at])) {
            edges.push(edge(before, writer, Reason::WriteWrite, element));
        }
    }
    for at in (0..count).rev() {
        next[at] = known(&order.elements[at]).or(next[at + 1]);
    }
    // Behind a cut nothing is known.
    let unseen = if order.is_cut { &[] } else { &order.unseen[..order.unseen.len().min(UNSEEN_EDGES_MAX)] };
    if let Some((_, writer)) = last[count] {
        edges.extend(unseen.iter().map(|&(element, to)| edge(writer, to, Reason::WriteWrite, element)));
    }
    for read in &order.reads {
        let (reader, length) = (read.transaction, read.list.len());
        if let Some((element, writer)) = last[length] {
            edges.push(edge(writer, reader, Reason::WriteRead, element));
        }
        match next[length] {
            Some((element, writer)) => edges.push(edge(reader, writer, Reason::ReadWrite, element)),
            None => edges.extend(unseen.iter().map(|&(element, to)| edge(reader, to, Reason::ReadWrite, element))),
        }
    }
}

/// Edges from those that ended to those that began later; how many instants they lead through.
fn of_time(transactions: &[Transaction], happened: &[bool], edges: &mut Vec<Edge>) -> usize {
    // Beginnings stand before ends of the same time: such transactions are concurrent.
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * transactions.len());
    for (position, transaction) in transactions.iter().enumerate().filter(|(position, _)| happened[*position]) {
        events.push((transaction.invoked.0, false, position));
        if let Some(at) = transaction.end.at() {
            events.push((at.0, true, position));
        }
    }
    events.sort_unstable();
    let time = |from: usize, to: usize| {
        let (from, to) = (from as u32, to as u32);
        Edge { from, to, reason: Reason::RealTime, key: 0, element: 0 }
    };
    let mut instants = 0;
    // Those that ended, and after whose end none has begun and ended, with their ends; an instant has the last of its
    // ends.
    let mut ended: Vec<(usize, u64)> = Vec::new();
    for (at, is_end, position) in events {
        if is_end {
            let began = transactions[position].invoked.0;
            ended.retain(|&(_, at)| at >= began);
            ended.push((position, at));
            if ended.len() > ENDED_EDGES_MAX {
                // Whatever begins from here on, begins after all of these.
                let instant = transactions.len() + instants;
                instants += 1;
                edges.extend(ended.drain(..).map(|(earlier, _)| time(earlier, instant)));
                ended.push((instant, at));
            }
        } else {
            edges.extend(ended.iter().map(|&(earlier, _)| time(earlier, position)));
        }
    }
    instants
}
