//! What a RESP client may ask for: one closed set.
//!
//! Place in the flow: what parsing (step 2) returns, and what admission, routing and execution (steps 3 to 5) take.
//! Everything is borrowed from the received bytes.
//!
//! Invariants, which the parser keeps:
//! - Every key has at most [`MAX_KEY_BYTES`](crate::limits::MAX_KEY_BYTES).
//! - The keys of one command that changes several at once are of one slot.
//! - Every time is absolute, in microseconds since the epoch.

use super::args::Args;
use super::table::CommandId;
use super::writer::RespVersion;
use crate::command::Command;
pub use crate::credentials::Credentials;
use crate::request::KeyQuery;
use crate::tlv::parse_integer;

/// A request and the command of the table that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// For counting, access rules, and where the reply's form depends on it.
    pub id: CommandId,
    /// What is to be done.
    pub request: RespRequest<'a>,
}

/// How the outcome of a write is told, where a command leaves a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `+OK` if it took effect, null if not; the value, integer or text of a command that has one.
    Status,
    /// 1 if it took effect, 0 if not.
    Flag,
}

/// How the answers for several keys become one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// One after the other; what is no text is null.
    Array,
    /// As their sum.
    Sum,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RespRequest<'a> {
    /// Something about one key.
    Read {
        /// The key.
        key: &'a [u8],
        /// What about it.
        query: KeyQuery,
    },
    /// A change of one key, or of several of one slot.
    Write {
        /// What to change.
        command: Command<'a>,
        /// How the outcome is told.
        shape: Shape,
    },
    /// Something about each of several keys.
    ReadEach {
        /// The keys.
        keys: Args<'a>,
        /// What about them.
        query: KeyQuery,
        /// How the answers become one reply.
        combine: Combine,
    },
    /// Remove several keys; the reply is how many there were.
    DeleteEach {
        /// The keys.
        keys: Args<'a>,
    },
    /// Store several values; the reply is `+OK`.
    SetEach {
        /// Keys and values in turn: [`Args::pairs`].
        pairs: Args<'a>,
    },
    /// Store several values of one slot if none of the keys exists; the reply is 1 or 0.
    SetAllIfAbsent {
        /// Keys and values in turn: [`Args::pairs`].
        pairs: Args<'a>,
    },
    /// SCAN.
    Scan(ScanRequest<'a>),
    /// KEYS.
    Keys {
        /// See [`super::glob`].
        pattern: &'a [u8],
    },
    /// DBSIZE.
    DbSize,
    /// RANDOMKEY.
    RandomKey,
    /// FLUSHALL, FLUSHDB.
    Flush,
    /// PING; the reply is `+PONG`, or the bulk.
    Ping(Option<&'a [u8]>),
    /// ECHO.
    Echo(&'a [u8]),
    /// HELLO.
    Hello(HelloRequest<'a>),
    /// AUTH.
    Auth(Credentials<'a>),
    /// SELECT 0: there is no other database.
    Select,
    /// QUIT: `+OK`, then the connection is closed.
    Quit,
    /// RESET: `+RESET`.
    Reset,
    /// CLIENT.
    Client(ClientCommand<'a>),
    /// INFO.
    Info {
        /// Names of sections, in upper or lower case; none: the usual ones.
        sections: Args<'a>,
    },
    /// COMMAND: see [`super::command_reply`].
    Command(CommandCommand<'a>),
    /// CONFIG.
    Config(ConfigCommand<'a>),
    /// MEMORY, except USAGE, which is a read.
    Memory(MemoryCommand),
    /// SLOWLOG.
    SlowLog(SlowLogCommand),
    /// LATENCY.
    Latency(LatencyCommand<'a>),
    /// TIME.
    Time,
    /// LOLWUT.
    Lolwut {
        /// Of Redis, whose picture is wanted.
        version: Option<i64>,
    },
    /// SAVE: answered when new snapshots of everything are on disk.
    Save,
    /// BGSAVE.
    BackgroundSave {
        /// Whether one that is under way is followed by another, instead of being an error.
        schedule: bool,
    },
    /// LASTSAVE.
    LastSave,
    /// SHUTDOWN.
    Shutdown(ShutdownRequest),
    /// CLUSTER.
    Cluster(ClusterCommand<'a>),
    /// READONLY.
    ReadOnly,
    /// READWRITE.
    ReadWrite,
    /// The subcommand HELP of the command: see [`super::command_reply::put_help`].
    Help,
}

/// Which keys SCAN lists, by the type of their value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeFilter {
    /// Any.
    Any,
    /// Scalars.
    String,
    /// Lists.
    List,
    /// Maps.
    Hash,
    /// A type that no value has.
    Nothing,
}

/// SCAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanRequest<'a> {
    /// Where to go on; 0: at the beginning.
    pub cursor: u64,
    /// Which keys to list: see [`super::glob`]; `None`: all.
    pub pattern: Option<&'a [u8]>,
    /// How much to look at, about; at least 1, not bounded by this parser.
    pub count: u64,
    /// Which keys to list.
    pub filter: TypeFilter,
}

/// HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HelloRequest<'a> {
    /// The version that the client wants; `None`: as it is.
    pub version: Option<RespVersion>,
    /// Who it is.
    pub auth: Option<Credentials<'a>>,
    /// What it is called: one word of printable characters.
    pub name: Option<&'a [u8]>,
}

/// CLIENT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCommand<'a> {
    /// CLIENT ID.
    Id,
    /// CLIENT GETNAME.
    GetName,
    /// CLIENT SETNAME: one word of printable characters, or nothing.
    SetName(&'a [u8]),
    /// CLIENT SETINFO.
    SetInfo {
        /// What of the library it is.
        what: LibraryInfo,
        /// One word of printable characters.
        value: &'a [u8],
    },
    /// CLIENT INFO.
    Info,
    /// CLIENT LIST.
    List(ClientFilter<'a>),
    /// CLIENT KILL in its old form: `+OK` or an error. The connection with this `ip:port`.
    KillAddress(&'a [u8]),
    /// CLIENT KILL with filters: the reply is how many there were.
    Kill(KillFilter<'a>),
    /// CLIENT NO-EVICT.
    NoEvict(bool),
    /// CLIENT REPLY.
    Reply(ReplyMode),
}

/// What CLIENT SETINFO tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibraryInfo {
    /// LIB-NAME.
    Name,
    /// LIB-VER.
    Version,
}

/// CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    /// Every request is answered.
    On,
    /// None is.
    Off,
    /// The next one is not.
    Skip,
}

/// The classes of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientType {
    /// Those that send requests.
    Normal,
    /// A connection to a leader.
    Master,
    /// A connection from a replica.
    Replica,
    /// Those that subscribed to something.
    PubSub,
}

/// Which connections CLIENT LIST describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFilter<'a> {
    /// Those of this class.
    pub client_type: Option<ClientType>,
    /// Those with these numbers, checked: [`ClientFilter::ids`].
    pub(super) id_texts: Option<Args<'a>>,
}

impl<'a> ClientFilter<'a> {
    /// Those with these numbers; `None`: all. A negative number, which a client may ask for, is nobody's.
    pub fn ids(&self) -> Option<impl Iterator<Item = u64> + 'a> {
        let number = |text| u64::try_from(parse_integer(text).expect("the parser checked it")).ok();
        self.id_texts.map(|texts| texts.iter().filter_map(number))
    }
}

/// Which connections CLIENT KILL closes: those for which all of it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KillFilter<'a> {
    /// The one with this number.
    pub id: Option<u64>,
    /// Those of this class.
    pub client_type: Option<ClientType>,
    /// The one with this `ip:port`.
    pub address: Option<&'a [u8]>,
    /// Those to this `ip:port` of the server.
    pub local_address: Option<&'a [u8]>,
    /// Those of this user.
    pub user: Option<&'a [u8]>,
    /// Not the connection that asks.
    pub skip_me: bool,
}

/// COMMAND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandCommand<'a> {
    /// COMMAND: all of them.
    All,
    /// COMMAND COUNT.
    Count,
    /// COMMAND INFO: these, or all.
    Info(Args<'a>),
    /// COMMAND DOCS: these, or all.
    Docs(Args<'a>),
    /// COMMAND LIST.
    List(ListFilter<'a>),
    /// COMMAND GETKEYS of this request.
    GetKeys(Args<'a>),
    /// COMMAND GETKEYSANDFLAGS of this request.
    GetKeysAndFlags(Args<'a>),
}

/// Which names COMMAND LIST lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFilter<'a> {
    /// All.
    All,
    /// Those of a module, of which there are none.
    Module,
    /// Those of a category, by its name.
    Category(&'a [u8]),
    /// Those that a pattern describes.
    Pattern(&'a [u8]),
}

/// CONFIG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigCommand<'a> {
    /// CONFIG GET: the settings that these patterns describe.
    Get(Args<'a>),
    /// CONFIG SET: names and values in turn.
    Set(Args<'a>),
    /// CONFIG RESETSTAT.
    ResetStat,
    /// CONFIG REWRITE.
    Rewrite,
}

/// MEMORY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryCommand {
    /// MEMORY DOCTOR.
    Doctor,
    /// MEMORY STATS.
    Stats,
}

/// SLOWLOG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowLogCommand {
    /// SLOWLOG GET: at most so many; `None`: all.
    Get(Option<u64>),
    /// SLOWLOG LEN.
    Len,
    /// SLOWLOG RESET.
    Reset,
}

/// LATENCY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencyCommand<'a> {
    /// LATENCY LATEST.
    Latest,
    /// LATENCY HISTORY of this event.
    History(&'a [u8]),
    /// LATENCY GRAPH of this event.
    Graph(&'a [u8]),
    /// LATENCY RESET of these events, or of all.
    Reset(Args<'a>),
    /// LATENCY DOCTOR.
    Doctor,
    /// LATENCY HISTOGRAM of these commands, or of all.
    Histogram(Args<'a>),
}

/// SHUTDOWN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShutdownRequest {
    /// Whether a snapshot is wanted; `None`: as configured.
    pub save: Option<bool>,
    /// Without waiting for replicas.
    pub now: bool,
    /// Also if something fails.
    pub force: bool,
    /// Take back a shutdown that is under way.
    pub abort: bool,
}

/// CLUSTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterCommand<'a> {
    /// CLUSTER SLOTS.
    Slots,
    /// CLUSTER SHARDS.
    Shards,
    /// CLUSTER NODES.
    Nodes,
    /// CLUSTER MYID.
    MyId,
    /// CLUSTER INFO.
    Info,
    /// CLUSTER KEYSLOT.
    KeySlot(&'a [u8]),
    /// CLUSTER COUNTKEYSINSLOT.
    CountKeysInSlot(u16),
    /// CLUSTER GETKEYSINSLOT.
    GetKeysInSlot {
        /// Below 16,384.
        slot: u16,
        /// How many at most; not bounded by this parser.
        count: u64,
    },
}
