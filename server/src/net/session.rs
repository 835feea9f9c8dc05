//! What a connection has agreed on with its client: the wire, and what a Redis client may set for itself.
//!
//! Place in the flow: beside steps 2 (decode) and 9 (reply). Made when the connection is accepted, by the listener that
//! it came to.
//!
//! Deliberately not here: bytes, and what commands do.

use eyot_protocol::resp::{CommandId, RespVersion, Unfinished};

use super::ordered::OrderedReplies;

/// Which wire a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Native frames.
    Native,
    /// RESP2, and RESP3 where the client asks for it.
    Resp,
}

/// What became of a client's replies: CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// They are sent.
    #[default]
    On,
    /// None is sent until the client turns them on again.
    Off,
    /// That of the next command is not sent.
    SkipNext,
    /// That of this command is not sent.
    Skip,
}

/// What a client says of itself.
#[derive(Debug, Default)]
pub struct Profile {
    /// CLIENT SETNAME, HELLO SETNAME.
    pub name: Box<[u8]>,
    /// CLIENT SETINFO lib-name.
    pub library: Box<[u8]>,
    /// CLIENT SETINFO lib-ver.
    pub library_version: Box<[u8]>,
    /// CLIENT NO-EVICT: kept and shown; Eyot does not evict clients.
    pub no_evict: bool,
    /// READONLY: kept and shown; there are no replicas to read from.
    pub read_only: bool,
}

impl Profile {
    /// Memory that it takes.
    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.library.len() + self.library_version.len()
    }
}

/// The state of a RESP connection.
#[derive(Debug)]
pub struct RespSession {
    /// What HELLO has agreed on; 2 before.
    pub version: RespVersion,
    /// Replies in the order of their requests.
    pub ordered: OrderedReplies,
    /// Whether replies are sent.
    pub replies: ReplyMode,
    /// How far an unfinished request was read.
    pub unfinished: Unfinished,
    /// The last command.
    pub last_command: Option<CommandId>,
    /// What the client says of itself; most say nothing.
    pub profile: Option<Box<Profile>>,
}

impl RespSession {
    /// A session as RESP begins it.
    pub fn new() -> Self {
        Self {
            version: RespVersion::Two,
            ordered: OrderedReplies::default(),
            replies: ReplyMode::On,
            unfinished: Unfinished::default(),
            last_command: None,
            profile: None,
        }
    }

    /// What the client says of itself, to change it.
    pub fn profile_mut(&mut self) -> &mut Profile {
        self.profile.get_or_insert_default()
    }

    /// Whether the reply of the command that comes now is sent. To be asked once a command.
    #[inline]
    pub fn take_reply_mode(&mut self) -> bool {
        match self.replies {
            ReplyMode::On => true,
            ReplyMode::Off => false,
            ReplyMode::SkipNext => {
                self.replies = ReplyMode::Skip;
                false
            }
            ReplyMode::Skip => {
                self.replies = ReplyMode::On;
                true
            }
        }
    }

    /// Memory of what is kept beside the session itself.
    #[inline]
    fn memory_bytes(&self) -> usize {
        self.unfinished.memory_bytes() + self.profile.as_ref().map_or(0, |profile| profile.memory_bytes())
    }

    /// RESET: as it began, but for the replies under way.
    pub fn reset(&mut self) {
        self.version = RespVersion::Two;
        self.replies = ReplyMode::On;
        self.profile = None;
    }
}

impl Default for RespSession {
    fn default() -> Self {
        Self::new()
    }
}

/// The state of a connection, by its wire.
#[derive(Debug)]
pub enum Session {
    /// Replies carry the number of their request: there is nothing to remember.
    Native,
    /// See [`RespSession`].
    Resp(RespSession),
}

impl Session {
    /// A session of a connection that came to a listener of `wire`.
    pub fn new(wire: Wire) -> Self {
        match wire {
            Wire::Native => Self::Native,
            Wire::Resp => Self::Resp(RespSession::new()),
        }
    }

    /// Memory of what is kept beside the session itself.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Native => 0,
            Self::Resp(session) => session.memory_bytes(),
        }
    }

    /// The RESP session.
    ///
    /// # Panics
    /// On a native connection: the caller has mixed up two.
    #[inline]
    pub fn resp(&mut self) -> &mut RespSession {
        match self {
            Self::Resp(session) => session,
            Self::Native => unreachable!("a native connection has no RESP session"),
        }
    }
}
