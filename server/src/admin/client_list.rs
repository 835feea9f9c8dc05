//! CLIENT LIST, INFO and KILL: what a connection says of itself, and which connections are meant.
//!
//! Place in the flow: each core describes its connections when somebody asks; the core that was asked joins the lines.
//! Pure.
//!
//! Invariant: a line has the fields of Redis 7.0 in its order (<https://redis.io/commands/client-list/>), then those of
//! 7.2 about the library, then ours: `core=`. A field that has no counterpart here has the value that it has in Redis
//! when the feature is not used.

use std::fmt::Write as _;
use std::net::SocketAddr;

use eyot_protocol::resp::request::{ClientType, KillFilter};
use eyot_protocol::resp::RespVersion;

/// The only user: there are no access rules yet.
pub const DEFAULT_USER: &str = "default";

/// One connection, as its core describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// The slot that it has on its core, for as long as it is connected.
    pub key: u32,
    /// Its number: no two connections of the node ever have the same one.
    pub id: u64,
    /// The client's address.
    pub addr: SocketAddr,
    /// The address that it came by.
    pub laddr: SocketAddr,
    /// The descriptor of its socket.
    pub fd: i32,
    /// What it called itself, empty if it did not.
    pub name: String,
    /// Seconds since it was accepted.
    pub age_s: u64,
    /// Seconds since its last request.
    pub idle_s: u64,
    /// What is special about it.
    pub flags: Vec<ClientFlag>,
    /// Bytes received that are no whole request.
    pub query_bytes: u64,
    /// Room in the buffer that holds those.
    pub query_free_bytes: u64,
    /// Bytes of replies that are not sent.
    pub output_bytes: u64,
    /// Values sent by reference, or buffers, that wait to be sent.
    pub output_items: u64,
    /// Memory that the connection takes in all.
    pub memory_bytes: u64,
    /// The name of its last command, subcommand behind `|`.
    pub command: &'static str,
    /// Its version of the protocol.
    pub version: RespVersion,
    /// The library that it said it uses, empty if it did not.
    pub library: String,
    /// And that library's version.
    pub library_version: String,
    /// The core that it is connected to.
    pub core: u16,
}

/// What may be special about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFlag {
    /// It waits for an operation.
    Waits,
    /// It ends when its last reply is sent.
    ClosesAfterReply,
    /// It is being closed.
    Closing,
    /// It is not to be closed when memory is short.
    NoEvict,
    /// It said READONLY.
    ReadOnly,
}

impl ClientFlag {
    fn letter(self) -> char {
        match self {
            Self::Waits => 'b',
            Self::ClosesAfterReply => 'c',
            Self::Closing => 'A',
            Self::NoEvict => 'e',
            Self::ReadOnly => 'r',
        }
    }

    /// The letters of `flags`, `N` if there are none.
    fn letters(flags: &[Self]) -> String {
        if flags.is_empty() {
            return "N".to_owned();
        }
        flags.iter().map(|flag| flag.letter()).collect()
    }
}

impl ClientInfo {
    /// The line, with its end.
    pub fn line(&self) -> String {
        let mut line = String::with_capacity(384);
        let (id, core, command, user) = (self.id, self.core, self.command, DEFAULT_USER);
        let _ = write!(line, "id={id} addr={} laddr={} fd={} name={}", self.addr, self.laddr, self.fd, self.name);
        let _ = write!(line, " age={} idle={} flags={}", self.age_s, self.idle_s, ClientFlag::letters(&self.flags));
        let _ = write!(line, " db=0 sub=0 psub=0 ssub=0 multi=-1");
        let _ = write!(line, " qbuf={} qbuf-free={}", self.query_bytes, self.query_free_bytes);
        let _ = write!(line, " argv-mem=0 multi-mem=0 rbs=0 rbp=0");
        let _ = write!(line, " obl={} oll={} omem=0", self.output_bytes, self.output_items);
        let _ = write!(line, " tot-mem={} events=r cmd={command} user={user} redir=-1", self.memory_bytes);
        let _ = write!(line, " resp={}", self.version.number());
        let _ = writeln!(line, " lib-name={} lib-ver={} core={core}", self.library, self.library_version);
        line
    }

    /// Whether CLIENT LIST describes it when it is to list this class and these numbers, in order, or all. Every
    /// connection here is of the normal class.
    pub fn is_listed(&self, client_type: Option<ClientType>, ids: Option<&[u64]>) -> bool {
        is_normal(client_type) && ids.is_none_or(|ids| ids.binary_search(&self.id).is_ok())
    }

    /// Whether CLIENT KILL with `filter` closes it, when the connection `asking` has said so.
    pub fn is_killed(&self, filter: &KillFilter<'_>, asking: u64) -> bool {
        is_normal(filter.client_type)
            && filter.id.is_none_or(|id| id == self.id)
            && filter.address.is_none_or(|address| is_address(self.addr, address))
            && filter.local_address.is_none_or(|address| is_address(self.laddr, address))
            && filter.user.is_none_or(|user| user == DEFAULT_USER.as_bytes())
            && !(filter.skip_me && self.id == asking)
    }

    /// Whether CLIENT KILL in its old form means it.
    pub fn has_address(&self, address: &[u8]) -> bool {
        is_address(self.addr, address)
    }
}

fn is_normal(client_type: Option<ClientType>) -> bool {
    client_type.is_none_or(|client_type| client_type == ClientType::Normal)
}

fn is_address(address: SocketAddr, text: &[u8]) -> bool {
    address.to_string().as_bytes() == text
}

/// The text of CLIENT LIST: the lines of the connections, by their numbers.
pub fn list(mut clients: Vec<(u64, String)>) -> String {
    clients.sort_unstable_by_key(|(id, _)| *id);
    clients.into_iter().map(|(_, line)| line).collect()
}

/// The number of a connection: `sequence` counts the connections of `core`, one of `cores`. Numbers begin with 1.
pub fn client_id(sequence: u64, core: u16, cores: u16) -> u64 {
    sequence * u64::from(cores) + u64::from(core) + 1
}

/// The core that has the connection with the number `id`.
pub fn core_of_client(id: u64, cores: u16) -> u16 {
    (id.saturating_sub(1) % u64::from(cores.max(1))) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: u64, core: u16) -> ClientInfo {
        ClientInfo {
            key: id as u32,
            id,
            addr: "127.0.0.1:36596".parse().unwrap(),
            laddr: "127.0.0.1:6379".parse().unwrap(),
            fd: 8,
            name: "me".to_owned(),
            age_s: 7,
            idle_s: 0,
            flags: Vec::new(),
            query_bytes: 13,
            query_free_bytes: 20_461,
            output_bytes: 5,
            output_items: 1,
            memory_bytes: 22_298,
            command: "client|list",
            version: RespVersion::Three,
            library: "redis-py".to_owned(),
            library_version: "5.0.1".to_owned(),
            core,
        }
    }

    const ANYBODY: KillFilter<'static> =
        KillFilter { id: None, client_type: None, address: None, local_address: None, user: None, skip_me: true };

    #[test]
    fn a_line_has_the_fields_of_redis_and_the_core() {
        let expected = "id=3 addr=127.0.0.1:36596 laddr=127.0.0.1:6379 fd=8 name=me age=7 idle=0 flags=N db=0 sub=0 \
            psub=0 ssub=0 multi=-1 qbuf=13 qbuf-free=20461 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=5 oll=1 omem=0 \
            tot-mem=22298 events=r cmd=client|list user=default redir=-1 resp=3 lib-name=redis-py lib-ver=5.0.1 \
            core=1\n";
        assert_eq!(client(3, 1).line(), expected);
        let text = list(vec![(9, client(9, 0).line()), (2, client(2, 1).line())]);
        assert!(text.starts_with("id=2 ") && text.contains("\nid=9 "), "{text}");
        let mut busy = client(1, 0);
        busy.flags = vec![ClientFlag::Waits, ClientFlag::NoEvict];
        assert!(busy.line().contains(" flags=be "));
    }

    #[test]
    fn a_kill_hits_those_for_which_all_of_it_holds() {
        let client = client(3, 0);
        assert!(client.is_killed(&ANYBODY, 4));
        assert!(!client.is_killed(&ANYBODY, 3));
        assert!(client.is_killed(&KillFilter { skip_me: false, ..ANYBODY }, 3));
        let hits = |filter: KillFilter<'_>| client.is_killed(&filter, 9);
        assert!(hits(KillFilter { id: Some(3), address: Some(b"127.0.0.1:36596"), ..ANYBODY }));
        assert!(!hits(KillFilter { id: Some(4), address: Some(b"127.0.0.1:36596"), ..ANYBODY }));
        assert!(!hits(KillFilter { address: Some(b"127.0.0.1:3659"), ..ANYBODY }));
        assert!(hits(KillFilter { local_address: Some(b"127.0.0.1:6379"), user: Some(b"default"), ..ANYBODY }));
        assert!(!hits(KillFilter { user: Some(b"nobody"), ..ANYBODY }));
        assert!(hits(KillFilter { client_type: Some(ClientType::Normal), ..ANYBODY }));
        assert!(!hits(KillFilter { client_type: Some(ClientType::PubSub), ..ANYBODY }));
        assert!(client.has_address(b"127.0.0.1:36596") && !client.has_address(b"127.0.0.1:6379"));
    }

    #[test]
    fn numbers_of_connections_tell_their_core() {
        let mut seen = std::collections::HashSet::new();
        for (sequence, core) in (0..50).flat_map(|sequence| (0..3).map(move |core| (sequence, core))) {
            let id = client_id(sequence, core, 3);
            assert!(id > 0 && seen.insert(id));
            assert_eq!(core_of_client(id, 3), core);
        }
    }
}
