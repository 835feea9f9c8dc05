//! Where Eyot answers otherwise than Redis 7.0, on purpose: the one list, each entry with its reason and a proof.
//!
//! Invariants:
//! - `docs/RESP.md` shows exactly this list: a test compares them.
//! - Every entry still differs: a test runs its example on both servers, so that none outlives its reason.
//! - Whatever differs and is not covered by an entry fails the comparison.

use super::lines::Line;
use crate::support::Reply;

/// One known difference.
pub struct Difference {
    /// The commands, as the page names them.
    pub commands: &'static str,
    pub redis: &'static str,
    pub eyot: &'static str,
    pub reason: &'static str,
    /// Commands on an empty database, of which the last one is answered otherwise.
    pub example: &'static [&'static str],
    /// Whether it explains that the line was answered by Redis with the first reply, by Eyot with the second.
    pub covers: fn(&Line, &Reply, &Reply) -> bool,
}

fn eyot_says(eyot: &Reply, start: &str) -> bool {
    eyot.error().is_some_and(|line| line.starts_with(start))
}

/// All of them.
pub const KNOWN: [Difference; 16] = [
    Difference {
        commands: "`RENAME` `RENAMENX` `COPY` `MSETNX`",
        redis: "takes any keys",
        eyot: "`CROSSSLOT` where the keys lie in different shards",
        reason: "each is all or nothing, which one shard's log promises and two do not; hash tags keep keys together",
        example: &["SET {a}1 x", "RENAME {a}1 {b}1"],
        covers: |line, _, eyot| {
            let moves = ["RENAME", "RENAMENX", "COPY", "MSETNX"].contains(&line.word(0).as_str());
            moves && eyot_says(eyot, "CROSSSLOT ")
        },
    },
    Difference {
        commands: "`LPUSH` `HSET` `SADD` `ZADD` `XADD` `EVAL` `SUBSCRIBE` `MULTI` and others",
        redis: "works",
        eyot: "`ERR unknown command`",
        reason: "Eyot keeps strings; what is not in its command table is refused at once",
        example: &["LPUSH a b"],
        covers: |line, _, eyot| {
            let elsewhere = [
                "LPUSH",
                "RPUSH",
                "HSET",
                "SADD",
                "ZADD",
                "XADD",
                "EVAL",
                "SUBSCRIBE",
                "MULTI",
                "GETBIT",
                "SORT",
                "LCS",
            ];
            elsewhere.contains(&line.word(0).as_str()) && eyot_says(eyot, "ERR unknown command")
        },
    },
    Difference {
        commands: "`OBJECT REFCOUNT` `CLIENT PAUSE` `CLIENT TRACKING` and others",
        redis: "works",
        eyot: "`ERR unknown subcommand`",
        reason: "they tell or change what Eyot does not have",
        example: &["SET a 1", "OBJECT REFCOUNT a"],
        covers: |line, _, eyot| {
            let names = ["REFCOUNT", "PAUSE", "UNPAUSE", "TRACKING", "CACHING", "GETREDIR", "TRACKINGINFO"];
            names.contains(&line.word(1).as_str()) && eyot_says(eyot, "ERR unknown subcommand")
        },
    },
    Difference {
        commands: "`CLUSTER` `READONLY` `READWRITE`",
        redis: "an error, unless it was started as a cluster",
        eyot: "answers",
        reason: "each core is a node of a cluster to whoever asks, and a plain server to whoever does not",
        example: &["CLUSTER KEYSLOT a"],
        covers: |line, redis, _| {
            let names = ["CLUSTER", "READONLY", "READWRITE"];
            let refused = redis.error() == Some("ERR This instance has cluster support disabled");
            names.contains(&line.word(0).as_str()) && refused
        },
    },
    Difference {
        commands: "`CLIENT SETINFO`",
        redis: "an unknown subcommand",
        eyot: "`OK`",
        reason: "newer clients say who they are with it at each connect; Redis knows it since 7.2",
        example: &["CLIENT SETINFO LIB-NAME x"],
        covers: |line, redis, _| line.word(1) == "SETINFO" && redis.error().is_some(),
    },
    Difference {
        commands: "any command with a key",
        redis: "keys up to 512 MiB",
        eyot: "an error from 64 KiB on",
        reason: "a key travels with each log record and each message between cores",
        example: &["SET <70000> 1"],
        covers: |_, _, eyot| eyot_says(eyot, "ERR key is longer than 65536 bytes"),
    },
    Difference {
        commands: "`KEYS` `SCAN`",
        redis: "patterns of any length",
        eyot: "an error from 1 KiB on",
        reason: "the work of comparing grows with the pattern's length times the key's",
        example: &["KEYS <2000>"],
        covers: |_, _, eyot| eyot_says(eyot, "ERR pattern is longer than 1024 bytes"),
    },
    Difference {
        commands: "any command but those on many keys",
        redis: "any number of arguments",
        eyot: "up to 1,024",
        reason: "what it does with them is done at once, and others wait meanwhile",
        example: &["COMMAND INFO <1100 words>"],
        covers: |_, _, eyot| eyot.error().is_some_and(|line| line.ends_with("takes at most 1024 arguments")),
    },
    Difference {
        commands: "`COMMAND INFO` `COMMAND DOCS` of many names",
        redis: "a reply of any length",
        eyot: "an error beyond 1 MiB",
        reason: "it is written at once, and others wait meanwhile",
        example: &["COMMAND INFO <900 names>"],
        covers: |_, _, eyot| eyot_says(eyot, "ERR the reply would be longer than 1 MiB"),
    },
    Difference {
        commands: "`CLIENT SETNAME` `CLIENT SETINFO` `HELLO SETNAME`",
        redis: "a name of any length",
        eyot: "an error beyond 256 bytes",
        reason: "each connection keeps it, and each line of CLIENT LIST and entry of SLOWLOG repeats it",
        example: &["CLIENT SETNAME <300>"],
        covers: |_, _, eyot| eyot_says(eyot, "ERR ") && eyot.error().is_some_and(|line| line.ends_with("256 bytes.")),
    },
    Difference {
        commands: "`GETEX` of a key that is not there",
        redis: "nil, whatever the time",
        eyot: "an error for a bad time",
        reason: "arguments are judged before the key is looked for, on whichever core it is",
        example: &["GETEX nothing EX abc"],
        covers: |line, redis, eyot| line.word(0) == "GETEX" && redis.is_null() && eyot.error().is_some(),
    },
    Difference {
        commands: "`HELLO` with `AUTH` and a bad option behind it",
        redis: "does what stands before it, or says `WRONGPASS`",
        eyot: "the error of the option",
        reason: "a request is understood as a whole before any of it is done",
        example: &["HELLO 2 AUTH nobody x BOGUS"],
        covers: |line, redis, eyot| {
            let wrong = redis.error_word() == Some("WRONGPASS");
            line.word(0) == "HELLO" && wrong && eyot_says(eyot, "ERR Syntax error in HELLO option")
        },
    },
    Difference {
        commands: "`INCRBYFLOAT` with a hexadecimal number",
        redis: "reads `0x10` as 16",
        eyot: "`ERR value is not a valid float`",
        reason: "only decimal text gives the same sum on every machine that replays the log",
        example: &["INCRBYFLOAT a 0x10"],
        covers: |line, _, eyot| {
            let hexadecimal = line.arguments.get(2).is_some_and(|text| text.contains(&b'x') || text.contains(&b'X'));
            line.word(0) == "INCRBYFLOAT" && hexadecimal && eyot_says(eyot, "ERR value is not a valid float")
        },
    },
    Difference {
        commands: "errors that repeat an argument",
        redis: "as far as a zero byte, or its buffer's end",
        eyot: "the first 128 bytes, whatever they are",
        reason: "a message has a bound of its own, and shows what was sent",
        example: &["MEMORY \u{0}x"],
        covers: |_, redis, eyot| match (redis, eyot) {
            (Reply::Error(redis), Reply::Error(eyot)) => {
                let before = |line: &str| line.split_once('\'').map(|(words, _)| words.to_owned());
                before(redis).is_some() && before(redis) == before(eyot)
            }
            _ => false,
        },
    },
    Difference {
        commands: "expiries after the year 294,000",
        redis: "kept as they are",
        eyot: "kept as the last time that there is",
        reason: "times are microseconds in 64 bits",
        example: &["SET a 1 PXAT 9223372036854775807", "PEXPIRETIME a"],
        covers: |_, redis, eyot| match (redis, eyot) {
            (Reply::Integer(redis), Reply::Integer(eyot)) => *redis > LAST_MS && *eyot == LAST_MS,
            _ => false,
        },
    },
    Difference {
        commands: "`OBJECT ENCODING` of a short text that was changed in place",
        redis: "`raw` after APPEND or SETRANGE, `embstr` after INCRBYFLOAT",
        eyot: "`embstr` or `int`, by what it is",
        reason: "it tells how Eyot keeps the value now, which does not depend on how it came about",
        example: &["SETRANGE a 1 x", "OBJECT ENCODING a"],
        covers: |line, redis, eyot| {
            let said = |reply: &Reply, words: &[&str]| match reply {
                Reply::Bulk(word) => words.iter().any(|known| known.as_bytes() == word),
                _ => false,
            };
            line.word(1) == "ENCODING" && said(redis, &["raw", "embstr"]) && said(eyot, &["embstr", "int"])
        },
    },
];

/// The last millisecond that 64 bits of microseconds reach.
const LAST_MS: i64 = i64::MAX / 1_000;

/// Whether a known difference explains the replies of Redis and Eyot to `line`.
pub fn is_known(line: &Line, redis: &Reply, eyot: &Reply) -> bool {
    KNOWN.iter().any(|difference| (difference.covers)(line, redis, eyot))
}
