//! The table's commands on keys, whatever they hold.
//!
//! Place in the flow: data of [`super`].
//!
//! It deliberately holds no behaviour: what a command does is said by the parser and the engine.

use super::spec::{Categories, CommandSpec, Flags, Group, KeyFlags, KeySpec};

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);

const READS: KeyFlags = KeyFlags::RO.and(KeyFlags::ACCESS);
const READS_IT: &[KeySpec] = &[KeySpec::one(1, READS)];
const UPDATES_IT: &[KeySpec] = &[KeySpec::one(1, KeyFlags::RW.and(KeyFlags::UPDATE))];
const LOOKS_AT_ALL: &[KeySpec] = &[KeySpec::all(1, KeyFlags::RO)];
const LOOKS_AT_SECOND: &[KeySpec] = &[KeySpec::one(2, KeyFlags::RO)];
const REMOVES_ALL: &[KeySpec] = &[KeySpec::all(1, KeyFlags::RM.and(KeyFlags::DELETE))];

const SUM_OF_SHARDS: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];
const ON_ALL_SHARDS: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];
const NOT_REPEATABLE: &[&str] = &["nondeterministic_output"];

/// A command on keys.
const fn generic(
    name: &'static str,
    arity: i8,
    since: &'static str,
    flags: Flags,
    keys: &'static [KeySpec],
    summary: &'static str,
) -> CommandSpec {
    CommandSpec::new(name, arity, since, Group::Generic, "O(1)", summary)
        .flags(flags)
        .in_categories(Categories::KEYSPACE)
        .keys(keys)
}

/// One whose time grows with the number of its keys.
const fn each(spec: CommandSpec) -> CommandSpec {
    CommandSpec { complexity: "O(N), N being the number of keys", ..spec.tips(SUM_OF_SHARDS) }
}

/// One that looks at all keys.
const fn whole(name: &'static str, arity: i8, group: Group, flags: Flags, summary: &'static str) -> CommandSpec {
    CommandSpec {
        group,
        complexity: "O(N), N being the number of all keys",
        ..generic(name, arity, "1.0.0", flags, &[], summary)
            .in_categories(Categories::KEYSPACE.and(Categories::DANGEROUS))
    }
}

pub(super) const DEL: CommandSpec = each(generic("del", -2, "1.0.0", WRITE, REMOVES_ALL, "Removes keys."));
pub(super) const UNLINK: CommandSpec = each(generic("unlink", -2, "4.0.0", WRITE_FAST, REMOVES_ALL, "Removes keys."));
pub(super) const EXISTS: CommandSpec =
    each(generic("exists", -2, "1.0.0", READ_FAST, LOOKS_AT_ALL, "Counts how many of the keys exist."));
pub(super) const TOUCH: CommandSpec =
    each(generic("touch", -2, "3.2.1", READ_FAST, LOOKS_AT_ALL, "Marks keys as used, and counts those that exist."));
pub(super) const EXPIRE: CommandSpec =
    generic("expire", -3, "1.0.0", WRITE_FAST, UPDATES_IT, "Lets a key expire after some seconds.");
pub(super) const PEXPIRE: CommandSpec =
    generic("pexpire", -3, "2.6.0", WRITE_FAST, UPDATES_IT, "Lets a key expire after some milliseconds.");
pub(super) const EXPIREAT: CommandSpec =
    generic("expireat", -3, "1.2.0", WRITE_FAST, UPDATES_IT, "Lets a key expire at a time in seconds.");
pub(super) const PEXPIREAT: CommandSpec =
    generic("pexpireat", -3, "2.6.0", WRITE_FAST, UPDATES_IT, "Lets a key expire at a time in milliseconds.");
pub(super) const TTL: CommandSpec =
    generic("ttl", 2, "1.0.0", READ_FAST, READS_IT, "Tells in how many seconds a key expires.").tips(NOT_REPEATABLE);
pub(super) const PTTL: CommandSpec =
    generic("pttl", 2, "2.6.0", READ_FAST, READS_IT, "Tells in how many milliseconds a key expires.")
        .tips(NOT_REPEATABLE);
pub(super) const EXPIRETIME: CommandSpec =
    generic("expiretime", 2, "7.0.0", READ_FAST, READS_IT, "Tells when a key expires, in seconds.");
pub(super) const PEXPIRETIME: CommandSpec =
    generic("pexpiretime", 2, "7.0.0", READ_FAST, READS_IT, "Tells when a key expires, in milliseconds.");
pub(super) const PERSIST: CommandSpec =
    generic("persist", 2, "2.2.0", WRITE_FAST, UPDATES_IT, "Lets a key not expire.");
pub(super) const TYPE: CommandSpec = generic(
    "type",
    2,
    "1.0.0",
    READ_FAST,
    &[KeySpec::one(1, KeyFlags::RO)],
    "Tells the type of the value that a key holds.",
);
pub(super) const KEYS: CommandSpec = whole("keys", 2, Group::Generic, READ, "Lists the keys that a pattern describes.")
    .tips(&["request_policy:all_shards", "nondeterministic_output_order"]);
pub(super) const SCAN: CommandSpec = CommandSpec {
    complexity: "O(1) a call; O(N) for all calls that visit the N keys",
    ..generic("scan", -2, "2.8.0", READ, &[], "Lists keys, a few with each call.")
        .tips(&["nondeterministic_output", "request_policy:special"])
};
pub(super) const RANDOMKEY: CommandSpec = generic("randomkey", 1, "1.0.0", READ, &[], "Returns any key.")
    .tips(&["request_policy:all_shards", "nondeterministic_output"]);
pub(super) const RENAME: CommandSpec = generic(
    "rename",
    3,
    "1.0.0",
    WRITE,
    &[
        KeySpec::one(1, KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::DELETE)),
        KeySpec::one(2, KeyFlags::OW.and(KeyFlags::UPDATE)),
    ],
    "Gives a value another key of the same slot.",
);
pub(super) const RENAMENX: CommandSpec = generic(
    "renamenx",
    3,
    "1.0.0",
    WRITE_FAST,
    &[
        KeySpec::one(1, KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::DELETE)),
        KeySpec::one(2, KeyFlags::OW.and(KeyFlags::INSERT)),
    ],
    "Gives a value another key of the same slot if that does not exist.",
);
pub(super) const COPY: CommandSpec = CommandSpec {
    complexity: "O(N), N being the size of the value",
    ..generic(
        "copy",
        -3,
        "6.2.0",
        WRITE.and(Flags::DENY_OOM),
        &[KeySpec::one(1, READS), KeySpec::one(2, KeyFlags::OW.and(KeyFlags::UPDATE))],
        "Stores a value under another key of the same slot as well.",
    )
};
pub(super) const DBSIZE: CommandSpec = CommandSpec {
    group: Group::Server,
    ..generic("dbsize", 1, "1.0.0", READ_FAST, &[], "Counts all keys.")
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
};
pub(super) const FLUSHALL: CommandSpec =
    whole("flushall", -1, Group::Server, WRITE, "Removes all keys.").tips(ON_ALL_SHARDS);
pub(super) const FLUSHDB: CommandSpec =
    whole("flushdb", -1, Group::Server, WRITE, "Removes all keys.").tips(ON_ALL_SHARDS);
pub(super) const OBJECT: CommandSpec =
    CommandSpec::new("object", -2, "2.2.3", Group::Generic, "Depends on subcommand.", "Tells how values are kept.")
        .subcommands(&[
            object("object|encoding", "2.2.3", "Tells the form that a value is kept in."),
            object("object|freq", "4.0.0", "Tells how often a key is used, where eviction goes by that."),
            generic("object|help", 2, "6.2.0", Flags::LOADING.and(Flags::STALE), &[], "Prints this help."),
            object("object|idletime", "2.2.3", "Tells for how many seconds a key was not used."),
        ]);

const fn object(name: &'static str, since: &'static str, summary: &'static str) -> CommandSpec {
    generic(name, 3, since, READ, LOOKS_AT_SECOND, summary).tips(NOT_REPEATABLE).syntax("<key>")
}
