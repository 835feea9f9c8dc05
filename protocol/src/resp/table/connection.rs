//! The table's commands on connections.
//!
//! Place in the flow: data of [`super`].
//!
//! It deliberately holds no behaviour: what a command does is said by the parser and the server.

use super::spec::{Categories, CommandSpec, Flags, Group};

const ALWAYS: Flags = Flags::LOADING.and(Flags::STALE);
const ALWAYS_FAST: Flags = ALWAYS.and(Flags::FAST);
const SESSION: Flags = ALWAYS.and(Flags::NO_SCRIPT);
const ADMIN: Flags = SESSION.and(Flags::ADMIN);
/// What must be possible before a client has said who it is.
const FIRST: Flags = SESSION.and(Flags::FAST).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY);

const fn connection(
    name: &'static str,
    arity: i8,
    since: &'static str,
    flags: Flags,
    summary: &'static str,
) -> CommandSpec {
    CommandSpec::new(name, arity, since, Group::Connection, "O(1)", summary)
        .flags(flags)
        .in_categories(Categories::CONNECTION)
}

/// One that looks at all connections.
const fn all(name: &'static str, arity: i8, since: &'static str, flags: Flags, summary: &'static str) -> CommandSpec {
    CommandSpec {
        complexity: "O(N), N being the number of connections",
        ..connection(name, arity, since, flags, summary)
    }
}

pub(super) const PING: CommandSpec =
    connection("ping", -1, "1.0.0", Flags::FAST, "Answers PONG, or with what it was given.")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]);
pub(super) const ECHO: CommandSpec = connection("echo", 2, "1.0.0", ALWAYS_FAST, "Answers with what it was given.");
pub(super) const HELLO: CommandSpec =
    connection("hello", -1, "6.0.0", FIRST, "Agrees on the protocol's version, and says who the client is.");
pub(super) const AUTH: CommandSpec = CommandSpec {
    complexity: "O(N), N being the number of the user's passwords",
    ..connection("auth", -2, "1.0.0", FIRST, "Says who the client is.")
};
pub(super) const SELECT: CommandSpec =
    connection("select", 2, "1.0.0", ALWAYS_FAST, "Chooses a database; there is one, number 0.");
pub(super) const QUIT: CommandSpec = connection("quit", -1, "1.0.0", FIRST, "Closes the connection.");
pub(super) const RESET: CommandSpec =
    connection("reset", 1, "6.2.0", FIRST, "Makes the connection as it was in the beginning.");
pub(super) const READONLY: CommandSpec = CommandSpec {
    group: Group::Cluster,
    ..connection("readonly", 1, "3.0.0", ALWAYS_FAST, "Allows reads from replicas on this connection.")
};
pub(super) const READWRITE: CommandSpec = CommandSpec {
    group: Group::Cluster,
    ..connection("readwrite", 1, "3.0.0", ALWAYS_FAST, "Takes back what READONLY allowed.")
};

pub(super) const CLIENT: CommandSpec = CommandSpec::new(
    "client",
    -2,
    "2.4.0",
    Group::Connection,
    "Depends on subcommand.",
    "Looks at connections and changes them.",
)
.subcommands(&[
    connection("client|getname", 2, "2.6.9", SESSION, "Tells the connection's name."),
    connection("client|help", 2, "5.0.0", ALWAYS, "Prints this help."),
    connection("client|id", 2, "5.0.0", SESSION, "Tells the connection's number."),
    connection("client|info", 2, "6.2.0", SESSION, "Describes the connection.").tips(&["nondeterministic_output"]),
    all("client|kill", -3, "2.4.0", ADMIN, "Closes connections.").syntax(
        "<ip:port> | [ID <id>] [ADDR <ip:port>] [LADDR <ip:port>] [TYPE <type>] [USER <user>] [SKIPME (YES|NO)]",
    ),
    all("client|list", -2, "2.4.0", ADMIN, "Describes connections.")
        .tips(&["nondeterministic_output"])
        .syntax("[TYPE (NORMAL|MASTER|REPLICA|PUBSUB)] [ID <id> ...]"),
    connection("client|no-evict", 3, "7.0.0", ADMIN, "Keeps the connection open when memory is short.")
        .syntax("(ON|OFF)"),
    connection("client|reply", 3, "3.2.0", SESSION, "Switches the replies to this connection.").syntax("(ON|OFF|SKIP)"),
    connection("client|setinfo", 4, "7.2.0", SESSION, "Tells the name or version of the client's library.")
        .syntax("(LIB-NAME <name>|LIB-VER <version>)"),
    connection("client|setname", 3, "2.6.9", SESSION, "Gives the connection a name.").syntax("<name>"),
]);
