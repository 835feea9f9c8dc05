//! What must come before itself: strongly connected parts of the graph (Tarjan 1972), and in each a shortest cycle of
//! each kind.
//!
//! Place in the flow: the last part of `check`.
//!
//! | kind | an edge that it must have | edges of the way back |
//! |---|---|---|
//! | G0 | ww | ww |
//! | G1c | wr | ww, wr |
//! | G-single | rw | ww, wr |
//! | G2 | rw | ww, wr, rw |
//!
//! A kind is looked for without edges of time first, and with them only where that finds none. In a part with a
//! G-single there are cycles with more anti-dependencies as well, through the same fault; so G2 is looked for where
//! there is none (without edges of time, also where the G-single needs them), and then every way back has a further
//! rw.
//!
//! Where a way back may lie is told by the order in which Tarjan's algorithm closes components: what reaches a node is
//! never closed before it. Nearly all edges that lead forward in time are dismissed by that alone.
//!
//! Invariant: a graph without a cycle is known as such in time linear in its size. Only where there are cycles is
//! there a search, and it has a budget.

use std::collections::BTreeSet;

use super::graph::{Edge, Graph, Reason};
use super::orders::Orders;
use super::story::cycle;
use super::{Collected, Kind, Transaction};

/// Edges that all searches for shortest cycles look at: some tenths of a second.
const EDGE_VISITS_MAX: u64 = 20_000_000;

/// Edges that are looked at for a shorter cycle than the first one of a kind in a part.
const SHORTENING_VISITS_MAX: u64 = 500_000;

/// A node that is in no part.
const NO_PART: u32 = u32::MAX;

/// Which edges may be taken, a bit for each reason.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Reasons(u8);

impl Reasons {
    const fn of(reasons: &[Reason]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < reasons.len() {
            bits |= 1 << reasons[at] as u8;
            at += 1;
        }
        Reasons(bits)
    }

    const fn with(self, reason: Reason) -> Self {
        Reasons(self.0 | 1 << reason as u8)
    }

    fn has(self, reason: Reason) -> bool {
        self.0 & (1 << reason as u8) != 0
    }
}

const WRITES: Reasons = Reasons::of(&[Reason::WriteWrite]);
const READS: Reasons = Reasons::of(&[Reason::WriteWrite, Reason::WriteRead]);
const ALL: Reasons = Reasons::of(&[Reason::WriteWrite, Reason::WriteRead, Reason::ReadWrite]);

/// A kind of cycle, by the table above.
const CYCLES: [(Kind, Reason, Reasons); 4] = [
    (Kind::G0, Reason::WriteWrite, WRITES),
    (Kind::G1c, Reason::WriteRead, READS),
    (Kind::GSingle, Reason::ReadWrite, READS),
    (Kind::G2, Reason::ReadWrite, ALL),
];

/// Finds cycles and adds them. Whether all were looked for.
pub fn search(transactions: &[Transaction], orders: &Orders<'_>, graph: &Graph, collected: &mut Collected) -> bool {
    let has_time = graph.edges.iter().any(|edge| edge.reason == Reason::RealTime);
    let mut ways = Ways::new(graph);
    // A node of each cycle of G-single, and whether the cycle needs time.
    let mut singles: Vec<(usize, bool)> = Vec::new();
    for (kind, must, back) in CYCLES {
        let mut found: Vec<(usize, bool)> = Vec::new();
        for timed in [false, true].into_iter().filter(|&timed| !timed || has_time) {
            let back = if timed { back.with(Reason::RealTime) } else { back };
            let whole = Components::of(graph, back.with(must));
            let reach = if back.has(must) { None } else { Some(Components::of(graph, back)) };
            let tighter = singles.iter().filter(|&&(_, by_time)| kind == Kind::G2 && (timed || !by_time));
            let told: BTreeSet<u32> = found.iter().chain(tighter).map(|&(node, _)| whole.part_of[node]).collect();
            for (part, starts) in starts(graph, must, &whole).iter().enumerate() {
                if told.contains(&(part as u32)) {
                    continue;
                }
                let Some(way) = ways.shortest(starts, back, reach.as_ref().unwrap_or(&whole)) else { continue };
                let edges = without_instants(way.into_iter().map(|number| graph.edges[number]), transactions.len());
                let nodes: Vec<usize> = edges.iter().map(|edge| edge.from as usize).collect();
                found.push((nodes[0], timed));
                collected.add(kind, timed, nodes, || cycle(&edges, transactions, orders));
            }
        }
        if kind == Kind::GSingle {
            singles = found;
        }
    }
    ways.left > 0
}

/// A cycle with one edge for each way through instants; the first edge leads from a transaction to another.
fn without_instants(edges: impl Iterator<Item = Edge>, transactions: usize) -> Vec<Edge> {
    let mut told = Vec::new();
    let mut ended = None;
    for edge in edges {
        let from = ended.take().unwrap_or(edge.from);
        if edge.to as usize >= transactions {
            ended = Some(from);
        } else {
            told.push(Edge { from, ..edge });
        }
    }
    told
}

/// The edges of each part that a cycle of the kind may begin with.
fn starts(graph: &Graph, must: Reason, components: &Components) -> Vec<Vec<usize>> {
    let mut starts: Vec<Vec<usize>> = vec![Vec::new(); components.parts as usize];
    for (number, edge) in graph.edges.iter().enumerate() {
        let part = components.part_of[edge.from as usize];
        if edge.reason == must && part != NO_PART && part == components.part_of[edge.to as usize] {
            starts[part as usize].push(number);
        }
    }
    starts
}

/// The strongly connected components of a graph.
struct Components {
    /// By node: the number of its component, if that has more than one node: its part.
    part_of: Vec<u32>,
    parts: u32,
    /// By node: how many components were closed before its own. What a node reaches was closed before it, or with it.
    closed: Vec<u32>,
}

/// The walk of Tarjan's algorithm.
struct Tarjan {
    /// When a node was seen; `UNSEEN` before.
    seen: Vec<u32>,
    /// The earliest node on the stack that a node reaches.
    low: Vec<u32>,
    on_stack: Vec<bool>,
    stack: Vec<u32>,
    next: u32,
}

const UNSEEN: u32 = u32::MAX;

impl Components {
    fn of(graph: &Graph, taken: Reasons) -> Self {
        let count = graph.nodes();
        let mut components = Components { part_of: vec![NO_PART; count], parts: 0, closed: vec![0; count] };
        let mut tarjan = Tarjan {
            seen: vec![UNSEEN; count],
            low: vec![0; count],
            on_stack: vec![false; count],
            stack: Vec::new(),
            next: 0,
        };
        let mut closed = 0;
        // A node, and the next of its edges. Calls would overflow their stack on a long history.
        let mut walk: Vec<(usize, usize)> = Vec::new();
        for root in 0..count {
            if tarjan.seen[root] == UNSEEN {
                tarjan.open(root);
                walk.push((root, graph.edges_of(root).start));
            }
            while let Some((node, at)) = walk.last_mut() {
                let (node, mut edges) = (*node, *at..graph.edges_of(*node).end);
                if let Some(number) = edges.find(|&number| taken.has(graph.edges[number].reason)) {
                    *at = number + 1;
                    let to = graph.edges[number].to as usize;
                    if tarjan.seen[to] == UNSEEN {
                        tarjan.open(to);
                        walk.push((to, graph.edges_of(to).start));
                    } else if tarjan.on_stack[to] {
                        tarjan.low[node] = tarjan.low[node].min(tarjan.seen[to]);
                    }
                    continue;
                }
                walk.pop();
                if let Some(&(parent, _)) = walk.last() {
                    tarjan.low[parent] = tarjan.low[parent].min(tarjan.low[node]);
                }
                if tarjan.low[node] == tarjan.seen[node] {
                    components.close(&mut tarjan, node, closed);
                    closed += 1;
                }
            }
        }
        components
    }

    /// Takes the component of `node` off the stack.
    fn close(&mut self, tarjan: &mut Tarjan, node: usize, closed: u32) {
        let from = tarjan.stack.iter().rposition(|&other| other as usize == node).expect("it is on the stack");
        let is_part = tarjan.stack.len() - from > 1;
        for other in tarjan.stack.drain(from..) {
            tarjan.on_stack[other as usize] = false;
            self.closed[other as usize] = closed;
            if is_part {
                self.part_of[other as usize] = self.parts;
            }
        }
        self.parts += u32::from(is_part);
    }
}

impl Tarjan {
    fn open(&mut self, node: usize) {
        (self.seen[node], self.low[node], self.on_stack[node]) = (self.next, self.next, true);
        self.next += 1;
        self.stack.push(node as u32);
    }
}

/// Searches for ways back, breadth first.
struct Ways<'a> {
    graph: &'a Graph,
    /// By node: the search that has reached it last, and by which edge.
    reached: Vec<(u32, u32)>,
    search: u32,
    /// Edges that may still be looked at.
    left: u64,
}

impl<'a> Ways<'a> {
    fn new(graph: &'a Graph) -> Self {
        Ways { graph, reached: vec![(0, 0); graph.nodes()], search: 0, left: EDGE_VISITS_MAX }
    }

    /// A short cycle that begins with one of `starts` and goes on by edges of `back`, whose components are `reach`:
    /// the shortest one, unless there are very many.
    fn shortest(&mut self, starts: &[usize], back: Reasons, reach: &Components) -> Option<Vec<usize>> {
        let mut best: Option<Vec<usize>> = None;
        let mut enough = 0;
        for &start in starts {
            let longest = best.as_ref().map_or(usize::MAX, |best| best.len() - 2);
            if longest == 0 || best.is_some() && self.left < enough {
                break;
            }
            if let Some(way) = self.way_back(start, back, longest, reach) {
                if best.is_none() {
                    enough = self.left.saturating_sub(SHORTENING_VISITS_MAX);
                }
                best = Some(way);
            }
        }
        best
    }

    /// A shortest way of at most `longest` edges from the end of edge `start` to its beginning; `start` stands first
    /// in the answer.
    fn way_back(&mut self, start: usize, back: Reasons, longest: usize, reach: &Components) -> Option<Vec<usize>> {
        let Edge { from: goal, to: begin, .. } = self.graph.edges[start];
        // What lies between, in the order in which components are closed.
        let between = reach.closed[goal as usize]..=reach.closed[begin as usize];
        if between.is_empty() {
            return None;
        }
        self.search += 1;
        self.reached[begin as usize] = (self.search, start as u32);
        let mut front = vec![begin];
        let mut length = 0;
        while !front.is_empty() && length < longest {
            length += 1;
            let mut next_front = Vec::new();
            for node in front {
                for number in self.graph.edges_of(node as usize) {
                    self.left = self.left.saturating_sub(1);
                    if self.left == 0 {
                        return None;
                    }
                    let edge = self.graph.edges[number];
                    let leads = back.has(edge.reason) && between.contains(&reach.closed[edge.to as usize]);
                    if !leads || self.reached[edge.to as usize].0 == self.search {
                        continue;
                    }
                    self.reached[edge.to as usize] = (self.search, number as u32);
                    if edge.to == goal {
                        return Some(self.path(start, number));
                    }
                    next_front.push(edge.to);
                }
            }
            front = next_front;
        }
        None
    }

    fn path(&self, start: usize, last: usize) -> Vec<usize> {
        let mut path = vec![last];
        while path[path.len() - 1] != start {
            let from = self.graph.edges[path[path.len() - 1]].from;
            path.push(self.reached[from as usize].1 as usize);
        }
        path.reverse();
        path
    }
}

/// The parts of a bare graph, for a test to judge.
#[cfg(test)]
pub fn parts_of(nodes: usize, edges: &[(usize, usize)]) -> Vec<Option<u32>> {
    let edge = |&(from, to): &(usize, usize)| Edge {
        from: from as u32,
        to: to as u32,
        reason: Reason::WriteWrite,
        key: 0,
        element: 0,
    };
    let graph = Graph::new(nodes, edges.iter().map(edge).collect());
    let components = Components::of(&graph, WRITES);
    components.part_of.into_iter().map(|part| (part != NO_PART).then_some(part)).collect()
}
