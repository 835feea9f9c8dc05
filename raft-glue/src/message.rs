//! Messages between the replicas of a group, and their bytes.
//!
//! Place in the flow: step 7. A group gives messages out and takes them in; `core/frame.rs` gathers those for one node.
//!
//! Invariants:
//! - A message has exactly one encoding; a heartbeat takes about 30 bytes. The decoder believes no length, and gives
//!   the consensus library no number that it would panic on.
//! - Reads of followers travel as messages of their own: the library would let a context be used twice.
//!
//! ```text
//! message      group, from, to, kind u8, fields by kind:
//! 1 append           term, log term, index, commit, count, then each entry: term, body u8, bytes (record.rs)
//! 2 append response  term, index, commit, flag: rejected, and then: log term, hint, requested snapshot
//! 3 vote             term, log term, index, commit, commit's term, flag: leadership is being transferred
//! 4 vote response    term, commit, commit's term, flag: rejected
//! 5 pre-vote         as 3
//! 6 pre-vote response as 4
//! 7 heartbeat        term, commit, flag: a read context follows, [incarnation, sequence]
//! 8 heartbeat response  as 7
//! 9 snapshot         term, index, its term, id, membership
//! 10 timeout now     term
//! 11 read request    incarnation, sequence (the follower's own)
//! 12 read reply      incarnation, sequence, flag: granted, [index]
//! ```
//! Numbers and bytes are written as in `wire.rs`.
//!
//! Deliberately not here: which messages are believed; see `group/filter.rs`.

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};

use crate::record::{decode_dense, index, SnapshotMeta, ENTRIES_MAX};
use crate::wire::{put_number, DecodeError, Reader};
use crate::{GroupId, Index, LogEntry, PeerId, Term};

/// The longest message that is read: the largest entry, and a full message beside it.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The last term that a message may name: who takes it counts on from there, and its disk takes as many again.
const TERM_TAKEN_MAX: Term = Term(Term::MAX.0 / 2);

/// How the consensus library marks a vote that comes from a transfer.
const TRANSFER_CONTEXT: &[u8] = raft::CAMPAIGN_TRANSFER;

/// What a message is. The number is what stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// Entries, or the question whether the logs match.
    Append = 1,
    /// How far the log matches.
    AppendResponse = 2,
    /// Asks for a vote.
    Vote = 3,
    /// Gives or refuses it.
    VoteResponse = 4,
    /// Asks whether a vote would be given.
    PreVote = 5,
    /// Says so.
    PreVoteResponse = 6,
    /// The leader lives.
    Heartbeat = 7,
    /// The follower has heard it.
    HeartbeatResponse = 8,
    /// Offers a snapshot; its data is fetched by other ways.
    Snapshot = 9,
    /// Start an election at once: leadership is being transferred.
    TimeoutNow = 10,
    /// A follower asks from which index on it may answer reads.
    ReadRequest = 11,
    /// The leader's answer.
    ReadReply = 12,
}

impl MessageKind {
    const ALL: [Self; 12] = [
        Self::Append,
        Self::AppendResponse,
        Self::Vote,
        Self::VoteResponse,
        Self::PreVote,
        Self::PreVoteResponse,
        Self::Heartbeat,
        Self::HeartbeatResponse,
        Self::Snapshot,
        Self::TimeoutNow,
        Self::ReadRequest,
        Self::ReadReply,
    ];

    /// Whether it keeps the group alive, and is never dropped for a message that carries data.
    pub fn is_control(self) -> bool {
        !matches!(self, Self::Append | Self::Snapshot)
    }

    fn of(message: MessageType) -> Option<Self> {
        Some(match message {
            MessageType::MsgAppend => Self::Append,
            MessageType::MsgAppendResponse => Self::AppendResponse,
            MessageType::MsgRequestVote => Self::Vote,
            MessageType::MsgRequestVoteResponse => Self::VoteResponse,
            MessageType::MsgRequestPreVote => Self::PreVote,
            MessageType::MsgRequestPreVoteResponse => Self::PreVoteResponse,
            MessageType::MsgHeartbeat => Self::Heartbeat,
            MessageType::MsgHeartbeatResponse => Self::HeartbeatResponse,
            MessageType::MsgSnapshot => Self::Snapshot,
            MessageType::MsgTimeoutNow => Self::TimeoutNow,
            _ => return None,
        })
    }

    fn to_raft(self) -> Option<MessageType> {
        Some(match self {
            Self::Append => MessageType::MsgAppend,
            Self::AppendResponse => MessageType::MsgAppendResponse,
            Self::Vote => MessageType::MsgRequestVote,
            Self::VoteResponse => MessageType::MsgRequestVoteResponse,
            Self::PreVote => MessageType::MsgRequestPreVote,
            Self::PreVoteResponse => MessageType::MsgRequestPreVoteResponse,
            Self::Heartbeat => MessageType::MsgHeartbeat,
            Self::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
            Self::Snapshot => MessageType::MsgSnapshot,
            Self::TimeoutNow => MessageType::MsgTimeoutNow,
            Self::ReadRequest | Self::ReadReply => return None,
        })
    }
}

/// Names one round of reads. Never used twice: the incarnation differs between two lives of a process, the sequence
/// between two rounds of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReadContext {
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
}

impl ReadContext {
    const BYTES: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        (u128::from(self.sequence) << 64 | u128::from(self.incarnation)).to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let both = u128::from_le_bytes(bytes.try_into().ok()?);
        Some(Self { incarnation: both as u64, sequence: (both >> 64) as u64 })
    }

    fn encode(self, out: &mut Vec<u8>) {
        put_number(out, self.incarnation);
        put_number(out, self.sequence);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let incarnation = reader.number("a read context")?;
        Ok(Self { incarnation, sequence: reader.number("a read context")? })
    }
}

/// What a message carries.
#[derive(Debug, Clone, PartialEq)]
// Nearly all messages are the library's: a box for them would cost an allocation each.
#[allow(clippy::large_enum_variant)]
pub(crate) enum MessageBody {
    /// One of the consensus library's.
    Raft(Message),
    /// A follower's question about reads.
    ReadRequest(ReadContext),
    /// The leader's answer: an index, or that it cannot say.
    ReadReply(ReadContext, Option<Index>),
}

/// One message from one replica to another of the same group.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerMessage {
    pub(crate) group: GroupId,
    pub(crate) from: PeerId,
    pub(crate) to: PeerId,
    pub(crate) kind: MessageKind,
    pub(crate) body: MessageBody,
}

impl PeerMessage {
    /// Whose it is.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Who sent it.
    pub fn from(&self) -> PeerId {
        self.from
    }

    /// Whom it is for.
    pub fn to(&self) -> PeerId {
        self.to
    }

    /// What it is.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The term it was sent in; a pre-vote and the consent to it name the term that would come.
    pub fn term(&self) -> Option<Term> {
        match &self.body {
            MessageBody::Raft(message) => Some(Term(message.term)),
            _ => None,
        }
    }

    /// The vote that it gives, or that its sender gave itself to send it: candidates and leaders vote for themselves.
    pub(crate) fn speaks_for_vote(&self) -> Option<PeerId> {
        match (&self.body, self.kind) {
            (_, MessageKind::Vote | MessageKind::Append | MessageKind::Heartbeat | MessageKind::TimeoutNow) => {
                Some(self.from)
            }
            (MessageBody::Raft(message), MessageKind::VoteResponse) if !message.reject => Some(self.to),
            _ => None,
        }
    }

    /// How many entries it carries.
    pub fn entry_count(&self) -> usize {
        match &self.body {
            MessageBody::Raft(message) => message.entries.len(),
            _ => 0,
        }
    }

    /// The snapshot that it offers.
    pub fn snapshot(&self) -> Option<SnapshotMeta> {
        match &self.body {
            MessageBody::Raft(message) if self.kind == MessageKind::Snapshot => {
                Some(SnapshotMeta::from_raft(message.get_snapshot()).expect("checked on its way in"))
            }
            _ => None,
        }
    }

    /// A message of the library; `None` for a kind that must never travel.
    pub(crate) fn from_raft(group: GroupId, message: Message) -> Option<Self> {
        let kind = MessageKind::of(MessageType::try_from(message.msg_type).ok()?)?;
        let (from, to) = (PeerId(message.from), PeerId(message.to));
        Some(Self { group, from, to, kind, body: MessageBody::Raft(message) })
    }

    /// Copies the payloads that are less than half of the buffer of `buffer_bytes` that they came in.
    pub(crate) fn detach(&mut self, buffer_bytes: usize) {
        if let MessageBody::Raft(message) = &mut self.body {
            for entry in message.entries.iter_mut().filter(|entry| entry.data.len() * 2 < buffer_bytes) {
                entry.data = Bytes::copy_from_slice(&entry.data);
            }
        }
    }

    /// An upper bound of the encoding's length, near enough to reserve and to budget by.
    pub fn byte_length_max(&self) -> usize {
        const FIELDS: usize = 128;
        const ENTRY_FIELDS: usize = 16;
        match &self.body {
            MessageBody::Raft(message) => {
                let entries: usize = message.entries.iter().map(|entry| entry.data.len() + ENTRY_FIELDS).sum();
                let peers = match self.kind {
                    MessageKind::Snapshot => self.snapshot().map_or(0, |meta| meta.membership.peers().len() * 40),
                    _ => 0,
                };
                FIELDS + entries + peers
            }
            _ => FIELDS,
        }
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, u64::from(self.group.0));
        put_number(out, self.from.0);
        put_number(out, self.to.0);
        out.push(self.kind as u8);
        match &self.body {
            MessageBody::Raft(message) => encode_raft(self.kind, message, out),
            MessageBody::ReadRequest(context) => context.encode(out),
            MessageBody::ReadReply(context, index) => {
                context.encode(out);
                out.push(u8::from(index.is_some()));
                if let Some(index) = index {
                    put_number(out, index.0);
                }
            }
        }
    }

    /// Reads one message, which is all of `bytes`. Payloads are slices of `bytes`: what keeps an entry keeps the whole
    /// buffer that it came in.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::OutOfRange("a message's length"));
        }
        let mut reader = Reader::new(bytes.clone());
        let group = GroupId(reader.number_up_to(u64::from(u32::MAX), "a message's group")? as u32);
        let from = peer(&mut reader)?;
        let to = peer(&mut reader)?;
        let number = reader.byte("a message's kind")?;
        let kind = MessageKind::ALL.into_iter().find(|kind| *kind as u8 == number);
        let kind = kind.ok_or(DecodeError::OutOfRange("a message's kind"))?;
        let body = match kind {
            MessageKind::ReadRequest => MessageBody::ReadRequest(ReadContext::decode(&mut reader)?),
            MessageKind::ReadReply => {
                let context = ReadContext::decode(&mut reader)?;
                let granted = reader.flag("a read reply")?;
                let index = granted.then(|| index(&mut reader, "a read reply's index")).transpose()?;
                MessageBody::ReadReply(context, index)
            }
            _ => MessageBody::Raft(decode_raft(kind, (from, to), &mut reader)?),
        };
        reader.end("a message")?;
        Ok(Self { group, from, to, kind, body })
    }
}

fn peer(reader: &mut Reader) -> Result<PeerId, DecodeError> {
    match reader.number("a message's peer")? {
        0 => Err(DecodeError::OutOfRange("a message's peer")),
        number => Ok(PeerId(number)),
    }
}

fn encode_raft(kind: MessageKind, message: &Message, out: &mut Vec<u8>) {
    let mut put = |numbers: &[u64]| numbers.iter().for_each(|number| put_number(out, *number));
    put(&[message.term]);
    match kind {
        MessageKind::Append => {
            put(&[message.log_term, message.index, message.commit, message.entries.len() as u64]);
            message.entries.iter().for_each(|entry| LogEntry::from_raft(entry.clone()).encode(out));
        }
        MessageKind::AppendResponse => {
            put(&[message.index, message.commit, u64::from(message.reject)]);
            if message.reject {
                put(&[message.log_term, message.reject_hint, message.request_snapshot]);
            }
        }
        MessageKind::Vote | MessageKind::PreVote => {
            let transfer = u64::from(message.context == TRANSFER_CONTEXT);
            put(&[message.log_term, message.index, message.commit, message.commit_term, transfer]);
        }
        MessageKind::VoteResponse | MessageKind::PreVoteResponse => {
            put(&[message.commit, message.commit_term, u64::from(message.reject)]);
        }
        MessageKind::Heartbeat | MessageKind::HeartbeatResponse => {
            let context = ReadContext::from_bytes(&message.context);
            put(&[message.commit, u64::from(context.is_some())]);
            if let Some(context) = context {
                context.encode(out);
            }
        }
        MessageKind::Snapshot => {
            SnapshotMeta::from_raft(message.get_snapshot()).expect("this crate's storage made it").encode(out);
        }
        MessageKind::TimeoutNow | MessageKind::ReadRequest | MessageKind::ReadReply => {}
    }
}

fn decode_raft(kind: MessageKind, (from, to): (PeerId, PeerId), reader: &mut Reader) -> Result<Message, DecodeError> {
    let mut message = Message { from: from.0, to: to.0, ..Message::default() };
    message.set_msg_type(kind.to_raft().ok_or(DecodeError::OutOfRange("a message's kind"))?);
    message.term = reader.number_up_to(TERM_TAKEN_MAX.0, "a message's term")?;
    // A message without a term would count as the replica's own.
    if message.term == 0 {
        return Err(DecodeError::OutOfRange("a message's term"));
    }
    let term = |reader: &mut Reader| reader.number_up_to(TERM_TAKEN_MAX.0, "a message's log term");
    let place = |reader: &mut Reader| index(reader, "a message's index").map(|index| index.0);
    match kind {
        MessageKind::Append => {
            message.log_term = term(reader)?;
            message.index = place(reader)?;
            message.commit = place(reader)?;
            message.entries = decode_appended(&message, reader)?;
        }
        MessageKind::AppendResponse => {
            message.index = place(reader)?;
            message.commit = place(reader)?;
            message.reject = reader.flag("a message's rejection")?;
            if message.reject {
                message.log_term = term(reader)?;
                message.reject_hint = place(reader)?;
                message.request_snapshot = place(reader)?;
            }
        }
        MessageKind::Vote | MessageKind::PreVote => {
            message.log_term = term(reader)?;
            message.index = place(reader)?;
            message.commit = place(reader)?;
            message.commit_term = term(reader)?;
            if reader.flag("a vote's transfer")? {
                message.context = Bytes::from_static(TRANSFER_CONTEXT);
            }
        }
        MessageKind::VoteResponse | MessageKind::PreVoteResponse => {
            message.commit = place(reader)?;
            message.commit_term = term(reader)?;
            message.reject = reader.flag("a message's rejection")?;
        }
        MessageKind::Heartbeat | MessageKind::HeartbeatResponse => {
            message.commit = place(reader)?;
            if reader.flag("a heartbeat's context")? {
                message.context = Bytes::copy_from_slice(&ReadContext::decode(reader)?.to_bytes());
            }
        }
        MessageKind::Snapshot => {
            let meta = SnapshotMeta::decode(reader)?;
            if meta.position.index.0 == 0 || meta.membership.voters.is_empty() {
                return Err(DecodeError::OutOfRange("a snapshot"));
            }
            message.snapshot = Some(meta.to_raft());
        }
        MessageKind::TimeoutNow | MessageKind::ReadRequest | MessageKind::ReadReply => {}
    }
    Ok(message)
}

/// The entries of an append: they stand right after its index, and none is of a later term than the message.
fn decode_appended(message: &Message, reader: &mut Reader) -> Result<Vec<raft::eraftpb::Entry>, DecodeError> {
    let count = reader.count(ENTRIES_MAX, 2, "a message's entries")?;
    if message.index + count as u64 > Index::MAX.0 {
        return Err(DecodeError::OutOfRange("a message's entries"));
    }
    let entries = decode_dense(reader, count, Index(message.index + 1))?;
    let (first, last) = (entries.first(), entries.last());
    if first.is_some_and(|entry| entry.position.term.0 < message.log_term)
        || last.is_some_and(|entry| entry.position.term.0 > message.term)
    {
        return Err(DecodeError::OutOfRange("an entry's term"));
    }
    Ok(entries.iter().map(LogEntry::to_raft).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EntryBody, EntryKind, EntryPosition, Membership, SnapshotId};

    fn entry(term: u64, body: EntryBody) -> raft::eraftpb::Entry {
        LogEntry { position: EntryPosition { term: Term(term), index: Index(0) }, body }.to_raft()
    }

    fn of(kind: MessageKind, fill: impl FnOnce(&mut Message)) -> PeerMessage {
        let mut message = Message { from: 10, to: 20, term: 300, ..Message::default() };
        message.set_msg_type(kind.to_raft().expect("one of the library's"));
        fill(&mut message);
        for (place, entry) in message.entries.iter_mut().enumerate() {
            entry.index = message.index + 1 + place as u64;
        }
        PeerMessage::from_raft(GroupId(7), message).expect("it travels")
    }

    fn context() -> ReadContext {
        ReadContext { incarnation: 3, sequence: 200 }
    }

    fn own(kind: MessageKind, body: MessageBody) -> PeerMessage {
        PeerMessage { group: GroupId(7), from: PeerId(10), to: PeerId(20), kind, body }
    }

    /// One message of each kind, with its bytes after group, sender, receiver and kind.
    fn golden() -> Vec<(PeerMessage, Vec<u8>)> {
        let heartbeat = |message: &mut Message| {
            message.commit = 5;
            message.context = Bytes::copy_from_slice(&context().to_bytes());
        };
        let vote = |message: &mut Message| {
            (message.log_term, message.index, message.commit, message.commit_term) = (4, 9, 8, 3);
        };
        let vote_response = |message: &mut Message| {
            (message.commit, message.commit_term, message.reject) = (8, 3, true);
        };
        let membership = Membership::new([PeerId(10), PeerId(20)], []);
        let position = EntryPosition { term: Term(4), index: Index(9) };
        let meta = SnapshotMeta { position, membership, id: SnapshotId(77) };
        let data = EntryBody::Data { kind: EntryKind::ValuePart, bytes: Bytes::from_static(b"hi") };
        let append = of(MessageKind::Append, |message| {
            (message.log_term, message.index, message.commit) = (4, 9, 8);
            message.entries = vec![entry(5, EntryBody::Empty), entry(300, data)];
        });
        let appended = of(MessageKind::AppendResponse, |message| (message.index, message.commit) = (9, 8));
        let rejected = of(MessageKind::AppendResponse, |message| {
            (message.index, message.commit, message.reject) = (9, 8, true);
            (message.log_term, message.reject_hint, message.request_snapshot) = (2, 6, 0);
        });
        let transferred = of(MessageKind::Vote, |message| {
            vote(message);
            message.context = Bytes::from_static(TRANSFER_CONTEXT);
        });
        vec![
            (append, vec![1, 0xac, 2, 4, 9, 8, 2, 5, 0, 0xac, 2, 2, 2, b'h', b'i']),
            (appended, vec![2, 0xac, 2, 9, 8, 0]),
            (rejected, vec![2, 0xac, 2, 9, 8, 1, 2, 6, 0]),
            (transferred, vec![3, 0xac, 2, 4, 9, 8, 3, 1]),
            (of(MessageKind::VoteResponse, vote_response), vec![4, 0xac, 2, 8, 3, 1]),
            (of(MessageKind::PreVote, vote), vec![5, 0xac, 2, 4, 9, 8, 3, 0]),
            (of(MessageKind::PreVoteResponse, vote_response), vec![6, 0xac, 2, 8, 3, 1]),
            (of(MessageKind::Heartbeat, heartbeat), vec![7, 0xac, 2, 5, 1, 3, 0xc8, 1]),
            (of(MessageKind::HeartbeatResponse, |message| message.commit = 5), vec![8, 0xac, 2, 5, 0]),
            (
                of(MessageKind::Snapshot, |message| message.snapshot = Some(meta.to_raft())),
                vec![9, 0xac, 2, 9, 4, 77, 2, 10, 20, 0, 0, 0, 0],
            ),
            (of(MessageKind::TimeoutNow, |_| {}), vec![10, 0xac, 2]),
            (own(MessageKind::ReadRequest, MessageBody::ReadRequest(context())), vec![11, 3, 0xc8, 1]),
            (
                own(MessageKind::ReadReply, MessageBody::ReadReply(context(), Some(Index(9)))),
                vec![12, 3, 0xc8, 1, 1, 9],
            ),
            (own(MessageKind::ReadReply, MessageBody::ReadReply(context(), None)), vec![12, 3, 0xc8, 1, 0]),
        ]
    }

    #[test]
    fn every_kind_of_message_has_the_bytes_of_the_table() {
        for (message, fields) in golden() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(bytes, [&[7, 10, 20], &fields[..]].concat(), "{:?}", message.kind);
            assert!(bytes.len() <= message.byte_length_max());
            assert_eq!(PeerMessage::decode(&bytes.into()), Ok(message));
        }
        let kinds = golden().into_iter().map(|(message, _)| message.kind);
        assert_eq!(kinds.collect::<std::collections::BTreeSet<_>>().len(), MessageKind::ALL.len());
    }

    #[test]
    fn what_would_make_the_library_panic_is_refused() {
        let refused = |bytes: &[u8]| PeerMessage::decode(&Bytes::copy_from_slice(bytes)).is_err();
        assert!(!refused(&[7, 10, 20, 10, 1]));
        assert!(refused(&[7, 10, 20, 10, 0]), "a message without a term counts as the replica's own");
        assert!(refused(&[7, 0, 20, 10, 1]), "nobody sends");
        assert!(refused(&[7, 10, 0, 10, 1]), "nobody receives");
        assert!(refused(&[7, 10, 20, 1, 5, 4, 9, 8, 1, 6, 0]), "an entry of a later term than its leader's");
        assert!(refused(&[7, 10, 20, 1, 5, 4, 9, 8, 1, 3, 0]), "an entry of an earlier term than the one before it");
        assert!(refused(&[7, 10, 20, 1, 5, 4, 9, 8, 1, 5, 99, 0]), "an entry of no known kind");
        assert!(refused(&[7, 10, 20, 1, 5, 4, 9, 8, 9, 5, 0]), "more entries than bytes");
        assert!(refused(&[7, 10, 20, 9, 5, 0, 0, 77, 1, 10, 0, 0, 0, 0]), "a snapshot of nothing");
        assert!(refused(&[7, 10, 20, 9, 5, 9, 4, 77, 0, 0, 0, 0, 0]), "a snapshot without voters");
    }

    proptest! {
        /// Whatever bytes come: no panic, and what is accepted has this one encoding.
        #[test]
        fn bytes_are_refused_or_have_one_encoding(
            which in 0..14_usize,
            place in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            more in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut bytes = vec![7, 10, 20];
            bytes.extend(&golden()[which].1);
            let place = place.index(bytes.len());
            bytes[place] = byte;
            bytes.extend(more);
            if let Ok(message) = PeerMessage::decode(&Bytes::from(bytes.clone())) {
                let mut again = Vec::new();
                message.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
