//! The one table of commands: what there is, how many arguments it takes, where its keys are, who may use it, and what
//! the documentation says of it.
//!
//! Place in the flow: step 2 (decode) looks a command's name up here; admission asks for its access class; COMMAND,
//! HELP and the reference page are written from it.
//!
//! Names, arities, flags, key positions, categories and versions are those that Redis 7.0.15 reports by COMMAND INFO
//! and COMMAND DOCS, since clients act on them. The descriptions are ours.
//!
//! Invariants:
//! - [`COMMANDS`] is indexed by [`CommandId`]; names are lower-case letters only, at most [`MAX_NAME_BYTES`].
//! - [`lookup`] takes upper and lower case, allocates nothing, and compares whole names.

mod connection;
mod keys;
mod server;
mod spec;
mod strings;

pub use spec::{Access, Categories, CommandSpec, Deprecation, Flags, Group, KeyFlags, KeySpec};

/// Longest name of a command.
pub const MAX_NAME_BYTES: usize = 16;

macro_rules! commands {
    ($($id:ident = $module:ident::$spec:ident),+ $(,)?) => {
        /// A command of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum CommandId {
            $(
                #[doc = concat!("`", stringify!($spec), "`")]
                $id,
            )+
        }

        impl CommandId {
            /// Every command, in the order of the table.
            pub const ALL: [Self; COMMAND_COUNT] = [$(Self::$id),+];
        }

        /// How many commands there are, subcommands not counted.
        pub const COMMAND_COUNT: usize = [$(stringify!($id)),+].len();

        /// Every command, indexed by [`CommandId`].
        pub static COMMANDS: [CommandSpec; COMMAND_COUNT] = [$($module::$spec),+];

        /// Their names, for the compiler, which cannot read a static.
        const NAMES: [&str; COMMAND_COUNT] = [$($module::$spec.name),+];

        /// Their arities, close together: every request asks for one.
        static ARITIES: [i8; COMMAND_COUNT] = [$($module::$spec.arity),+];
    };
}

commands! {
    Get = strings::GET, Set = strings::SET, SetNx = strings::SETNX, SetEx = strings::SETEX, PSetEx = strings::PSETEX,
    GetSet = strings::GETSET, GetDel = strings::GETDEL, GetEx = strings::GETEX, MGet = strings::MGET,
    MSet = strings::MSET, MSetNx = strings::MSETNX, Append = strings::APPEND, StrLen = strings::STRLEN,
    Incr = strings::INCR, Decr = strings::DECR, IncrBy = strings::INCRBY, DecrBy = strings::DECRBY,
    IncrByFloat = strings::INCRBYFLOAT, GetRange = strings::GETRANGE, SetRange = strings::SETRANGE,
    SubStr = strings::SUBSTR,
    Del = keys::DEL, Unlink = keys::UNLINK, Exists = keys::EXISTS, Touch = keys::TOUCH, Expire = keys::EXPIRE,
    PExpire = keys::PEXPIRE, ExpireAt = keys::EXPIREAT, PExpireAt = keys::PEXPIREAT, Ttl = keys::TTL,
    PTtl = keys::PTTL, ExpireTime = keys::EXPIRETIME, PExpireTime = keys::PEXPIRETIME, Persist = keys::PERSIST,
    Type = keys::TYPE, Keys = keys::KEYS, Scan = keys::SCAN, RandomKey = keys::RANDOMKEY, Rename = keys::RENAME,
    RenameNx = keys::RENAMENX, Copy = keys::COPY, DbSize = keys::DBSIZE, FlushAll = keys::FLUSHALL,
    FlushDb = keys::FLUSHDB, Object = keys::OBJECT,
    Ping = connection::PING, Echo = connection::ECHO, Hello = connection::HELLO, Auth = connection::AUTH,
    Select = connection::SELECT, Quit = connection::QUIT, Reset = connection::RESET, Client = connection::CLIENT,
    ReadOnly = connection::READONLY, ReadWrite = connection::READWRITE,
    Info = server::INFO, Command = server::COMMAND, Config = server::CONFIG, Memory = server::MEMORY,
    SlowLog = server::SLOWLOG, Latency = server::LATENCY, Time = server::TIME, Lolwut = server::LOLWUT,
    Save = server::SAVE, BgSave = server::BGSAVE, LastSave = server::LASTSAVE, Shutdown = server::SHUTDOWN,
    Cluster = server::CLUSTER,
}

impl CommandId {
    /// What the table says of it.
    #[inline]
    pub fn spec(self) -> &'static CommandSpec {
        &COMMANDS[self as usize]
    }

    /// Whether a request of `count` arguments, its name counted, has the right number.
    #[inline]
    pub fn takes(self, count: usize) -> bool {
        spec::arity_takes(ARITIES[self as usize], count)
    }

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        self.spec().name
    }
}

/// The command with this name, in upper or lower case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<CommandId> {
    let packed = pack(name)?;
    let mut slot = slot_of(packed);
    loop {
        let entry = &INDEX[slot];
        if entry.name == packed {
            return Some(CommandId::ALL[usize::from(entry.command)]);
        }
        if entry.name == 0 {
            return None;
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// Slots of the index: a power of two, four times as many as there are commands, so that most are found at once.
const SLOTS: usize = 256;
const SLOT_BITS: u32 = SLOTS.trailing_zeros();
/// Fibonacci hashing: 2^64 divided by the golden ratio.
const HASH_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Set in every lower-case letter. Of all bytes, only letters become lower-case letters by it.
pub(super) const LOWER_CASE: u8 = 0x20;

/// A name as one number (0: an empty slot) and its command.
#[derive(Clone, Copy)]
struct IndexEntry {
    name: u128,
    command: u8,
}

/// From a name to its command, made by the compiler: open addressing, so a name is at its slot or in one of the next.
static INDEX: [IndexEntry; SLOTS] = index();

const fn index() -> [IndexEntry; SLOTS] {
    const { assert!(COMMAND_COUNT * 2 < SLOTS, "too full to end a search soon") };
    let mut index = [IndexEntry { name: 0, command: 0 }; SLOTS];
    let mut command = 0;
    while command < COMMAND_COUNT {
        let name = pack_slowly(NAMES[command].as_bytes());
        let mut slot = slot_of(name);
        while index[slot].name != 0 {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = IndexEntry { name, command: command as u8 };
        command += 1;
    }
    index
}

#[inline]
const fn slot_of(packed: u128) -> usize {
    let folded = packed as u64 ^ (packed >> 64) as u64;
    (folded.wrapping_mul(HASH_MULTIPLIER) >> (u64::BITS - SLOT_BITS)) as usize
}

/// The letters of a name in one number, lower case, the first lowest. Two loads that overlap serve for most lengths.
#[inline]
fn pack(name: &[u8]) -> Option<u128> {
    const LOWER_CASE_4: u64 = 0x2020_2020;
    const LOWER_CASE_8: u128 = 0x2020_2020_2020_2020;
    let length = name.len();
    Some(match length {
        4..=8 => {
            let (first, last) = (name.first_chunk::<4>()?, name.last_chunk::<4>()?);
            let first = u64::from(u32::from_le_bytes(*first)) | LOWER_CASE_4;
            let last = u64::from(u32::from_le_bytes(*last)) | LOWER_CASE_4;
            u128::from(first | last << (8 * (length - 4)))
        }
        1..=3 => {
            let byte = |at: usize| u128::from(name[at] | LOWER_CASE) << (8 * at);
            byte(0) | byte(length / 2) | byte(length - 1)
        }
        9..=MAX_NAME_BYTES => {
            let (first, last) = (name.first_chunk::<8>()?, name.last_chunk::<8>()?);
            let first = u128::from(u64::from_le_bytes(*first)) | LOWER_CASE_8;
            let last = u128::from(u64::from_le_bytes(*last)) | LOWER_CASE_8;
            first | last << (8 * (length - 8))
        }
        _ => return None,
    })
}

/// The same, letter by letter, where the compiler does it.
const fn pack_slowly(name: &[u8]) -> u128 {
    assert!(!name.is_empty() && name.len() <= MAX_NAME_BYTES, "a name of another length");
    let mut packed = 0;
    let mut at = 0;
    while at < name.len() {
        assert!(name[at].is_ascii_lowercase(), "lower-case letters only");
        packed |= (name[at] as u128) << (8 * at);
        at += 1;
    }
    packed
}

#[cfg(test)]
mod tests;
