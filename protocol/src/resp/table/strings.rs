//! The table's commands on strings.
//!
//! Place in the flow: data of [`super`].
//!
//! It deliberately holds no behaviour: what a command does is said by the parser and the engine.

use super::spec::{Categories, CommandSpec, Flags, Group, KeyFlags, KeySpec};

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW: Flags = Flags::WRITE.and(Flags::DENY_OOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);

const READS: KeyFlags = KeyFlags::RO.and(KeyFlags::ACCESS);
const MODIFIES: KeyFlags = KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::UPDATE);
const OVERWRITES: KeyFlags = KeyFlags::OW.and(KeyFlags::UPDATE);
const INSERTS: KeyFlags = KeyFlags::OW.and(KeyFlags::INSERT);

/// A command on one string.
const fn string(
    name: &'static str,
    arity: i8,
    since: &'static str,
    flags: Flags,
    key: &'static [KeySpec],
    summary: &'static str,
) -> CommandSpec {
    CommandSpec::new(name, arity, since, Group::String, "O(1)", summary)
        .flags(flags)
        .in_categories(Categories::STRING)
        .keys(key)
}

/// A command on several strings.
const fn strings(spec: CommandSpec, tips: &'static [&'static str]) -> CommandSpec {
    CommandSpec { complexity: "O(N), N being the number of keys", ..spec.tips(tips) }
}

const READS_IT: &[KeySpec] = &[KeySpec::one(1, READS)];
const MODIFIES_IT: &[KeySpec] = &[KeySpec::one(1, MODIFIES)];
const OVERWRITES_IT: &[KeySpec] = &[KeySpec::one(1, OVERWRITES)];

pub(super) const GET: CommandSpec = string("get", 2, "1.0.0", READ_FAST, READS_IT, "Reads a key's value.");
pub(super) const SET: CommandSpec = string(
    "set",
    -3,
    "1.0.0",
    GROW,
    &[KeySpec::one(1, MODIFIES.and(KeyFlags::VARIABLE)).note("reads the old value with the option GET")],
    "Writes a key's value, whatever it was before; options set an expiry and a condition.",
);
pub(super) const SETNX: CommandSpec =
    string("setnx", 3, "1.0.0", GROW_FAST, &[KeySpec::one(1, INSERTS)], "Writes a key's value if it has none.");
pub(super) const SETEX: CommandSpec =
    string("setex", 4, "2.0.0", GROW, OVERWRITES_IT, "Writes a key's value and its expiry in seconds.");
pub(super) const PSETEX: CommandSpec =
    string("psetex", 4, "2.6.0", GROW, OVERWRITES_IT, "Writes a key's value and its expiry in milliseconds.");
pub(super) const GETSET: CommandSpec =
    string("getset", 3, "1.0.0", GROW_FAST, MODIFIES_IT, "Writes a key's value and returns the old one.")
        .deprecated("6.2.0", "`SET` with the `!GET` argument");
pub(super) const GETDEL: CommandSpec = string(
    "getdel",
    2,
    "6.2.0",
    WRITE_FAST,
    &[KeySpec::one(1, KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::DELETE))],
    "Removes a key and returns its value.",
);
pub(super) const GETEX: CommandSpec = string(
    "getex",
    -2,
    "6.2.0",
    WRITE_FAST,
    &[KeySpec::one(1, MODIFIES).note("changes the expiry")],
    "Reads a key's value and changes its expiry.",
);
pub(super) const MGET: CommandSpec = strings(
    string("mget", -2, "1.0.0", READ_FAST, &[KeySpec::all(1, READS)], "Reads the values of several keys."),
    &["request_policy:multi_shard"],
);
pub(super) const MSET: CommandSpec = strings(
    string("mset", -3, "1.0.1", GROW, &[KeySpec::all(2, OVERWRITES)], "Writes the values of several keys."),
    &["request_policy:multi_shard", "response_policy:all_succeeded"],
);
pub(super) const MSETNX: CommandSpec = strings(
    string(
        "msetnx",
        -3,
        "1.0.1",
        GROW,
        &[KeySpec::all(2, INSERTS)],
        "Writes the values of several keys of one slot if none of them has one.",
    ),
    &["request_policy:multi_shard", "response_policy:agg_min"],
);
pub(super) const APPEND: CommandSpec = CommandSpec {
    complexity: "O(N), N being the length of the value that results",
    ..string(
        "append",
        3,
        "2.0.0",
        GROW_FAST,
        &[KeySpec::one(1, KeyFlags::RW.and(KeyFlags::INSERT))],
        "Appends to a key's value.",
    )
};
pub(super) const STRLEN: CommandSpec =
    string("strlen", 2, "2.2.0", READ_FAST, &[KeySpec::one(1, KeyFlags::RO)], "Tells how long a key's value is.");
pub(super) const INCR: CommandSpec =
    string("incr", 2, "1.0.0", GROW_FAST, MODIFIES_IT, "Adds one to the integer that a key holds.");
pub(super) const DECR: CommandSpec =
    string("decr", 2, "1.0.0", GROW_FAST, MODIFIES_IT, "Takes one from the integer that a key holds.");
pub(super) const INCRBY: CommandSpec =
    string("incrby", 3, "1.0.0", GROW_FAST, MODIFIES_IT, "Adds a number to the integer that a key holds.");
pub(super) const DECRBY: CommandSpec =
    string("decrby", 3, "1.0.0", GROW_FAST, MODIFIES_IT, "Takes a number from the integer that a key holds.");
pub(super) const INCRBYFLOAT: CommandSpec =
    string("incrbyfloat", 3, "2.6.0", GROW_FAST, MODIFIES_IT, "Adds a decimal number to the one that a key holds.");
pub(super) const GETRANGE: CommandSpec = CommandSpec {
    complexity: "O(N), N being the length of the part",
    ..string("getrange", 4, "2.4.0", READ, READS_IT, "Reads a part of a key's value.")
};
pub(super) const SETRANGE: CommandSpec = CommandSpec {
    complexity: "O(N), N being the length of the value that results",
    ..string(
        "setrange",
        4,
        "2.2.0",
        GROW,
        &[KeySpec::one(1, KeyFlags::RW.and(KeyFlags::UPDATE))],
        "Writes over a part of a key's value.",
    )
};
pub(super) const SUBSTR: CommandSpec = CommandSpec {
    complexity: "O(N), N being the length of the part",
    ..string("substr", 4, "1.0.0", READ, READS_IT, "Reads a part of a key's value.").deprecated("2.0.0", "`GETRANGE`")
};
