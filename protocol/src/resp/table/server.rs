//! The table's commands on the server and on routing.
//!
//! Place in the flow: data of [`super`].
//!
//! It deliberately holds no behaviour: what a command does is said by the parser and the server.

use super::spec::{Categories, CommandSpec, Flags, Group, KeyFlags, KeySpec};

const NONE: Flags = Flags::NONE;
const ALWAYS: Flags = Flags::LOADING.and(Flags::STALE);
const ADMIN: Flags = ALWAYS.and(Flags::ADMIN).and(Flags::NO_SCRIPT);
const ADMIN_LOG: Flags = ALWAYS.and(Flags::ADMIN);

const NOT_REPEATABLE: &[&str] = &["nondeterministic_output"];
const ANY_ORDER: &[&str] = &["nondeterministic_output_order"];
const OF_ALL_SHARDS: &[&str] = &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];
const OF_ALL_NODES: &[&str] = &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];
const ON_ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

const DEPENDS: &str = "Depends on subcommand.";
const OF_COMMANDS: &str = "O(N), N being the number of commands";
const OF_ENTRIES: &str = "O(N), N being the number of entries";
const OF_PARAMETERS: &str = "O(N), N being the number of parameters";
const OF_CORES: &str = "O(N), N being the number of cores";

const fn server(
    name: &'static str,
    arity: i8,
    since: &'static str,
    complexity: &'static str,
    flags: Flags,
    summary: &'static str,
) -> CommandSpec {
    CommandSpec::new(name, arity, since, Group::Server, complexity, summary).flags(flags)
}

const fn help(name: &'static str, since: &'static str) -> CommandSpec {
    server(name, 2, since, "O(1)", ALWAYS, "Prints this help.")
}

pub(super) const INFO: CommandSpec =
    server("info", -1, "1.0.0", "O(1)", ALWAYS, "Reports the server's figures, by section.")
        .in_categories(Categories::DANGEROUS)
        .tips(OF_ALL_SHARDS);
pub(super) const TIME: CommandSpec =
    server("time", 1, "2.6.0", "O(1)", ALWAYS.and(Flags::FAST), "Tells the server's clock.").tips(NOT_REPEATABLE);
pub(super) const LOLWUT: CommandSpec =
    server("lolwut", -1, "5.0.0", "O(1)", Flags::READONLY.and(Flags::FAST), "Draws a picture, and tells the version.");
pub(super) const SAVE: CommandSpec = server(
    "save",
    1,
    "1.0.0",
    "O(N), N being the number of keys",
    Flags::ADMIN.and(Flags::NO_SCRIPT).and(Flags::NO_MULTI),
    "Makes a snapshot, and waits until it is on disk.",
);
pub(super) const BGSAVE: CommandSpec =
    server("bgsave", -1, "1.0.0", "O(1)", Flags::ADMIN.and(Flags::NO_SCRIPT), "Makes a snapshot beside requests.")
        .syntax("[SCHEDULE]");
pub(super) const LASTSAVE: CommandSpec =
    server("lastsave", 1, "1.0.0", "O(1)", ALWAYS.and(Flags::FAST), "Tells when the last snapshot was made.")
        .in_categories(Categories::ADMIN.and(Categories::DANGEROUS))
        .tips(NOT_REPEATABLE);
pub(super) const SHUTDOWN: CommandSpec = server(
    "shutdown",
    -1,
    "1.0.0",
    "O(1)",
    ADMIN.and(Flags::NO_MULTI).and(Flags::ALLOW_BUSY),
    "Stops the server; everything acknowledged is kept.",
);

pub(super) const COMMAND: CommandSpec =
    command("command", -1, "2.8.13", OF_COMMANDS, "Describes all commands, as the subcommands do in part.")
        .tips(ANY_ORDER)
        .subcommands(&[
            command("command|count", 2, "2.8.13", "O(1)", "Counts the commands."),
            command("command|docs", -2, "7.0.0", OF_COMMANDS, "Documents commands.")
                .tips(ANY_ORDER)
                .syntax("[<command> ...]"),
            command(
                "command|getkeys",
                -4,
                "2.8.13",
                "O(N), N being the number of arguments",
                "Tells the keys of a request.",
            )
            .syntax("<request>"),
            command(
                "command|getkeysandflags",
                -4,
                "7.0.0",
                "O(N), N being the number of arguments",
                "Tells the keys of a request and what happens to them.",
            )
            .syntax("<request>"),
            command("command|help", 2, "5.0.0", "O(1)", "Prints this help."),
            command("command|info", -2, "2.8.13", OF_COMMANDS, "Describes commands.")
                .tips(ANY_ORDER)
                .syntax("[<command> ...]"),
            command("command|list", -2, "7.0.0", OF_COMMANDS, "Lists the names of commands.")
                .tips(ANY_ORDER)
                .syntax("[FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]"),
        ]);

const fn command(
    name: &'static str,
    arity: i8,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> CommandSpec {
    server(name, arity, since, complexity, ALWAYS, summary).in_categories(Categories::CONNECTION)
}

pub(super) const CONFIG: CommandSpec = server("config", -2, "2.0.0", DEPENDS, NONE, "Reads and changes settings.")
    .subcommands(&[
        server("config|get", -3, "2.0.0", OF_PARAMETERS, ADMIN, "Reads the settings that patterns describe.")
            .syntax("<pattern> [<pattern> ...]"),
        help("config|help", "5.0.0"),
        server("config|resetstat", 2, "2.0.0", "O(1)", ADMIN, "Sets the figures of INFO back."),
        server("config|rewrite", 2, "2.8.0", "O(1)", ADMIN, "Refused: settings are not kept in a file."),
        server("config|set", -4, "2.0.0", OF_PARAMETERS, ADMIN, "Changes settings until the server stops.")
            .tips(ON_ALL_NODES)
            .syntax("<name> <value> [<name> <value> ...]"),
    ]);

pub(super) const MEMORY: CommandSpec = server("memory", -2, "4.0.0", DEPENDS, NONE, "Tells where memory goes.")
    .subcommands(&[
        server("memory|doctor", 2, "4.0.0", "O(1)", NONE, "Says what is wrong with the use of memory.")
            .tips(OF_ALL_SHARDS),
        help("memory|help", "4.0.0"),
        server("memory|stats", 2, "4.0.0", "O(1)", NONE, "Reports the figures of memory.").tips(OF_ALL_SHARDS),
        server("memory|usage", -3, "4.0.0", "O(1)", Flags::READONLY, "Tells how much memory a key and its value take.")
            .keys(&[KeySpec::one(2, KeyFlags::RO)])
            .syntax("<key> [SAMPLES <count>]"),
    ]);

pub(super) const SLOWLOG: CommandSpec =
    server("slowlog", -2, "2.2.12", DEPENDS, NONE, "Reads the log of slow requests.").subcommands(&[
        server("slowlog|get", -2, "2.2.12", OF_ENTRIES, ADMIN_LOG, "Lists the newest entries.")
            .tips(&["request_policy:all_nodes", "nondeterministic_output"])
            .syntax("[<count>]"),
        help("slowlog|help", "6.2.0"),
        server("slowlog|len", 2, "2.2.12", "O(1)", ADMIN_LOG, "Counts the entries.").tips(&[
            "request_policy:all_nodes",
            "response_policy:agg_sum",
            "nondeterministic_output",
        ]),
        server("slowlog|reset", 2, "2.2.12", OF_ENTRIES, ADMIN_LOG, "Forgets all entries.").tips(ON_ALL_NODES),
    ]);

pub(super) const LATENCY: CommandSpec = server("latency", -2, "2.8.13", DEPENDS, NONE, "Tells what took long.")
    .subcommands(&[
        server("latency|doctor", 2, "2.8.13", "O(1)", ADMIN, "Says what may be wrong.").tips(OF_ALL_NODES),
        server("latency|graph", 3, "2.8.13", "O(1)", ADMIN, "Draws the latencies of an event.")
            .tips(OF_ALL_NODES)
            .syntax("<event>"),
        help("latency|help", "2.8.13"),
        server("latency|histogram", -2, "7.0.0", OF_COMMANDS, ADMIN, "Reports how long commands take.")
            .tips(OF_ALL_NODES)
            .syntax("[<command> ...]"),
        server("latency|history", 3, "2.8.13", "O(1)", ADMIN, "Lists the latencies of an event.")
            .tips(OF_ALL_NODES)
            .syntax("<event>"),
        server("latency|latest", 2, "2.8.13", "O(1)", ADMIN, "Lists the newest latency of every event.")
            .tips(OF_ALL_NODES),
        server("latency|reset", -2, "2.8.13", "O(1)", ADMIN, "Forgets the latencies of events.")
            .tips(ON_ALL_NODES)
            .syntax("[<event> ...]"),
    ]);

pub(super) const CLUSTER: CommandSpec = cluster("cluster", -2, "3.0.0", DEPENDS, NONE, "Tells where keys belong.")
    .subcommands(&[
        cluster("cluster|countkeysinslot", 3, "3.0.0", "O(1)", Flags::STALE, "Counts the keys of a slot.")
            .syntax("<slot>"),
        cluster("cluster|getkeysinslot", 4, "3.0.0", "O(N), N being the count", Flags::STALE, "Lists keys of a slot.")
            .tips(NOT_REPEATABLE)
            .syntax("<slot> <count>"),
        cluster("cluster|help", 2, "5.0.0", "O(1)", ALWAYS, "Prints this help."),
        cluster("cluster|info", 2, "3.0.0", "O(1)", Flags::STALE, "Reports the state of routing.").tips(NOT_REPEATABLE),
        cluster("cluster|keyslot", 3, "3.0.0", "O(N), N being the key's length", Flags::STALE, "Tells a key's slot.")
            .syntax("<key>"),
        cluster("cluster|myid", 2, "3.0.0", "O(1)", Flags::STALE, "Tells the id of the endpoint that answers."),
        cluster("cluster|nodes", 2, "3.0.0", OF_CORES, Flags::STALE, "Lists the endpoints as text.")
            .tips(NOT_REPEATABLE),
        cluster("cluster|shards", 2, "7.0.0", OF_CORES, Flags::STALE, "Lists which endpoint serves which slots.")
            .tips(NOT_REPEATABLE),
        cluster("cluster|slots", 2, "3.0.0", OF_CORES, Flags::STALE, "Lists which slots are served by which endpoint.")
            .tips(NOT_REPEATABLE)
            .deprecated("7.0.0", "`CLUSTER SHARDS`"),
    ]);

const fn cluster(
    name: &'static str,
    arity: i8,
    since: &'static str,
    complexity: &'static str,
    flags: Flags,
    summary: &'static str,
) -> CommandSpec {
    CommandSpec::new(name, arity, since, Group::Cluster, complexity, summary).flags(flags)
}
