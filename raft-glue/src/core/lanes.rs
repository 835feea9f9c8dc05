//! What leaves for each node in one turn, and how much may be on its way.
//!
//! Place in the flow: step 7, between the groups' messages and the connections.
//!
//! Invariants:
//! - One frame for each node and turn, in order of node; control messages stand before those that carry data, and the
//!   order of a group's messages to a peer is kept within each kind.
//! - For one node, at most [`CoreSettings::node_bytes_max`](crate::CoreSettings) bytes of data messages wait, in frames
//!   that are given out and not sent; a stalled node costs that much memory and no more. What has no room is dropped,
//!   its group is told, and consensus sends it again when the time comes.
//!
//! Deliberately not here: connections.

use std::collections::{BTreeMap, BTreeSet};

use super::envelope::{EnvelopeKind, EnvelopeWriter};
use crate::{GroupId, MessageKind, NodeId, PeerId, PeerMessage};

/// Bytes of control messages that may wait for one node beyond the bound of data: they are small, and dropping them
/// would let groups fall silent; but a node that is gone for long must not gather them.
pub const CONTROL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a turn has for one node.
#[derive(Default)]
struct Lane {
    control: Vec<PeerMessage>,
    data: Vec<PeerMessage>,
    control_bytes: usize,
    data_bytes: usize,
    /// In frames that were given out and not sent.
    in_flight_bytes: usize,
}

/// One frame for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// For whom.
    pub node: NodeId,
    /// The whole frame.
    pub bytes: Vec<u8>,
}

/// Replicas, by group.
pub(super) type Replicas = BTreeSet<(GroupId, PeerId)>;

#[derive(Default)]
pub(super) struct Lanes {
    nodes: BTreeMap<NodeId, Lane>,
    /// Whose data messages were dropped in this turn.
    dropped: Replicas,
    dropped_snapshots: Replicas,
}

impl Lanes {
    /// Takes a message for `node`, or drops it.
    pub(super) fn push(&mut self, node: NodeId, message: PeerMessage, node_bytes_max: usize) {
        let lane = self.nodes.entry(node).or_default();
        let bytes = message.byte_length_max();
        let to = (message.group(), message.to());
        let control = message.kind().is_control();
        let waiting = lane.in_flight_bytes + lane.control_bytes + lane.data_bytes;
        let room = if control { node_bytes_max + CONTROL_BYTES_MAX } else { node_bytes_max };
        // One message always fits where nothing waits, however large.
        if waiting > 0 && waiting + bytes > room {
            if message.kind() == MessageKind::Snapshot {
                self.dropped_snapshots.insert(to);
            }
            self.dropped.insert(to);
        } else if control {
            lane.control_bytes += bytes;
            lane.control.push(message);
        } else {
            lane.data_bytes += bytes;
            lane.data.push(message);
        }
    }

    /// The frames of this turn.
    pub(super) fn frames(&mut self, from: NodeId, frames: &mut Vec<Frame>) {
        for (node, lane) in &mut self.nodes {
            if lane.control.is_empty() && lane.data.is_empty() {
                continue;
            }
            let mut writer = EnvelopeWriter::new(EnvelopeKind::Frame, from.0);
            for message in lane.control.drain(..).chain(lane.data.drain(..)) {
                writer.push(|out| message.encode(out));
            }
            (lane.control_bytes, lane.data_bytes) = (0, 0);
            let bytes = writer.finish();
            lane.in_flight_bytes += bytes.len();
            frames.push(Frame { node: *node, bytes });
        }
    }

    /// Whose appends, and whose offers of snapshots, were dropped since this was asked last.
    pub(super) fn take_dropped(&mut self) -> (Replicas, Replicas) {
        (std::mem::take(&mut self.dropped), std::mem::take(&mut self.dropped_snapshots))
    }

    pub(super) fn sent(&mut self, node: NodeId, bytes: usize) {
        let lane = self.nodes.entry(node).or_default();
        assert!(bytes <= lane.in_flight_bytes, "{bytes} bytes sent, and {} are in flight", lane.in_flight_bytes);
        lane.in_flight_bytes -= bytes;
    }

    pub(super) fn disconnected(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }
}
