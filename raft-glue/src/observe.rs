//! What a checker may look at and a server has no use for.
//!
//! Place in the flow: nowhere; the simulator asks these things after every step. They change nothing.

use crate::message::MessageBody;
use crate::{Group, Index, MessageKind, PeerMessage, Term};

impl PeerMessage {
    /// Whether it gives a vote: a vote that counts, not the consent to ask for one.
    pub fn grants_vote(&self) -> bool {
        match &self.body {
            MessageBody::Raft(message) => self.kind() == MessageKind::VoteResponse && !message.reject,
            _ => false,
        }
    }
}

impl Group {
    /// The term of an entry of the log, durable or not; `None` where the log has none, or none any more.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log_term(index)
    }
}
