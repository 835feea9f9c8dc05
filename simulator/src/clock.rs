//! Virtual time: what happens next, and when.
//!
//! Place in the flow: the loop of a world takes the next event from here, moves the clock to it, and lets it happen;
//! what follows from it is put back with a later time. Nothing waits for real.
//!
//! Invariants:
//! - Time never goes back. Events of one instant happen in the order in which they were asked for.
//! - The same calls give the same order: no address, hash or thread decides anything.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Virtual microseconds since the world began.
pub type Time = u64;

/// One virtual millisecond.
pub const MILLISECOND: Time = 1_000;

/// One virtual second.
pub const SECOND: Time = 1_000_000;

/// The events that are still to come, each `E` once. The heap holds numbers alone; the events lie beside it.
#[derive(Debug)]
pub struct Clock<E> {
    now: Time,
    asked: u64,
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
}

impl<E> Clock<E> {
    /// The beginning: nothing is to come.
    pub fn new() -> Self {
        Self { now: 0, asked: 0, heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new() }
    }

    /// The time of the event that happens now.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How many events are to come.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// `event` happens after `delay`.
    pub fn after(&mut self, delay: Time, event: E) {
        self.at(self.now + delay, event);
    }

    /// `event` happens at `time`, or now if that is past.
    pub fn at(&mut self, time: Time, event: E) {
        let slot = if let Some(slot) = self.free.pop() {
            self.events[slot as usize] = Some(event);
            slot
        } else {
            self.events.push(Some(event));
            self.events.len() as u32 - 1
        };
        self.asked += 1;
        self.heap.push(Reverse((time.max(self.now), self.asked, slot)));
    }

    /// The next event; the time is its time then.
    pub fn next_event(&mut self) -> Option<E> {
        let Reverse((time, _, slot)) = self.heap.pop()?;
        self.now = time;
        self.free.push(slot);
        self.events[slot as usize].take()
    }
}

impl<E> Default for Clock<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_asked() {
        let mut clock = Clock::new();
        for (delay, event) in [(5, 'c'), (0, 'a'), (5, 'd'), (2, 'b')] {
            clock.after(delay, event);
        }
        let mut seen = Vec::new();
        while let Some(event) = clock.next_event() {
            seen.push((clock.now(), event));
            if event == 'b' {
                clock.at(0, 'x');
            }
        }
        assert_eq!(seen, [(0, 'a'), (2, 'b'), (2, 'x'), (5, 'c'), (5, 'd')]);
        assert!(clock.is_empty());
    }
}
