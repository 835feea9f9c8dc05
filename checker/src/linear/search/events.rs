//! The list of calls and returns that the search takes operations out of, and puts them back into (Lowe 2017).
//!
//! Place in the flow: a part of `search`, whose head shows the list.
//!
//! Invariant: operations are put back in the reverse order of lifting; so a lifted node knows its neighbours, and both
//! take the same short time wherever it stood (Knuth's dancing links).

use super::Entry;

/// Calls and returns by time, as a list from which operations are lifted and into which they are put back.
pub struct Events {
    /// Node `i` is the call of entry `i`, node `count + i` its return, node `2 * count` both ends.
    count: usize,
    next: Vec<u32>,
    previous: Vec<u32>,
    has_return: Vec<bool>,
}

impl Events {
    /// The list of some entries.
    pub fn new<Call>(entries: &[Entry<Call>]) -> Self {
        let count = entries.len();
        // Calls stand before returns of the same time: such operations are concurrent.
        let mut nodes: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * count);
        for (position, entry) in entries.iter().enumerate() {
            nodes.push((entry.invoked, false, position));
            if let Some(completed) = entry.completed {
                nodes.push((completed, true, count + position));
            }
        }
        nodes.sort_unstable();
        let mut events = Events {
            count,
            next: vec![0; 2 * count + 1],
            previous: vec![0; 2 * count + 1],
            has_return: entries.iter().map(|entry| entry.completed.is_some()).collect(),
        };
        let mut last = 2 * count;
        for node in nodes.iter().map(|&(_, _, node)| node).chain([2 * count]) {
            events.next[last] = node as u32;
            events.previous[node] = last as u32;
            last = node;
        }
        events
    }

    /// The node that stands first.
    pub fn first(&self) -> usize {
        self.next[2 * self.count] as usize
    }

    /// The node behind this one, also of one that was lifted: as the list was then.
    pub fn after(&self, node: usize) -> usize {
        self.next[node] as usize
    }

    /// The operation whose call this node is; `None` at a return and at the end.
    pub fn call_at(&self, node: usize) -> Option<usize> {
        (node < self.count).then_some(node)
    }

    /// Whether the node is the return of this operation.
    pub fn is_return_of(&self, node: usize, position: usize) -> bool {
        node == self.count + position
    }

    fn unlink(&mut self, node: usize) {
        let (previous, next) = (self.previous[node], self.next[node]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
    }

    fn link(&mut self, node: usize) {
        let (previous, next) = (self.previous[node], self.next[node]);
        self.next[previous as usize] = node as u32;
        self.previous[next as usize] = node as u32;
    }

    /// Takes an operation out of the list, its call and its return.
    pub fn lift(&mut self, position: usize) {
        self.unlink(position);
        if self.has_return[position] {
            self.unlink(self.count + position);
        }
    }

    /// Undoes the last `lift` that is not undone yet.
    pub fn put_back(&mut self, position: usize) {
        if self.has_return[position] {
            self.link(self.count + position);
        }
        self.link(position);
    }
}
