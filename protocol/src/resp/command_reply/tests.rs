//! The form of the replies, as redis-server 7.0.15 writes them.

use super::super::args::ArgList;
use super::super::decode::{split_request, RespLimits, Split, Unfinished};
use super::super::parse::parse;
use super::super::request::RespRequest;
use super::super::writer::{RespVersion, Writer};
use super::*;

/// The reply to an inline request, its line ends as spaces.
fn reply(line: &str, version: RespVersion) -> String {
    let (mut args, input) = (ArgList::default(), format!("{line}\n"));
    let split = split_request(input.as_bytes(), &RespLimits::new(1024, 1024), &mut args, &mut Unfinished::default());
    let Ok(Split::Request { request, .. }) = split else { panic!("{line}: {split:?}") };
    let parsed = parse(args.of(request, input.as_bytes()), 0).unwrap_or_else(|error| panic!("{line}: {error}"));
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, version);
    match parsed.request {
        RespRequest::Command(command) => put_command(&mut writer, &command),
        RespRequest::Help => put_help(&mut writer, parsed.id),
        other => panic!("{line}: {other:?}"),
    }
    String::from_utf8(out).expect("text").replace("\r\n", " ")
}

#[test]
fn info_describes_a_command_as_redis_does() {
    assert_eq!(
        reply("COMMAND INFO get nothing", RespVersion::Two),
        "*2 *10 $3 get :2 *2 +readonly +fast :1 :1 :1 *3 +@read +@string +@fast *0 \
         *1 *6 $5 flags *2 +RO +access $12 begin_search *4 $4 type $5 index $4 spec *2 $5 index :1 \
         $9 find_keys *4 $4 type $5 range $4 spec *6 $7 lastkey :0 $7 keystep :1 $5 limit :0 *0 $-1 "
    );
    assert_eq!(
        reply("COMMAND INFO del", RespVersion::Three),
        "*1 *10 $3 del :-2 ~1 +write :1 :-1 :1 ~3 +@keyspace +@write +@slow \
         ~2 $26 request_policy:multi_shard $23 response_policy:agg_sum \
         ~1 %3 $5 flags ~2 +RM +delete $12 begin_search %2 $4 type $5 index $4 spec %1 $5 index :1 \
         $9 find_keys %2 $4 type $5 range $4 spec %3 $7 lastkey :-1 $7 keystep :1 $5 limit :0 *0 "
    );
    assert!(
        reply("COMMAND INFO client|id", RespVersion::Two).starts_with("*1 *10 $9 client|id :2 *3 +noscript +loading")
    );
    let all = reply("COMMAND", RespVersion::Two);
    assert_eq!(all, reply("COMMAND INFO", RespVersion::Two));
    assert!(all.starts_with(&format!("*{COMMAND_COUNT} *10 $3 get ")));
    assert_eq!(reply("COMMAND COUNT", RespVersion::Two), format!(":{COMMAND_COUNT} "));
}

#[test]
fn docs_describe_known_commands_and_leave_others_out() {
    assert_eq!(
        reply("COMMAND DOCS nothing substr", RespVersion::Three),
        "%1 $6 substr %7 $7 summary $30 Reads a part of a key's value. $5 since $5 1.0.0 $5 group $6 string \
         $10 complexity $36 O(N), N being the length of the part $9 doc_flags ~1 +deprecated \
         $16 deprecated_since $5 2.0.0 $11 replaced_by $10 `GETRANGE` "
    );
    let object = reply("COMMAND DOCS object", RespVersion::Two);
    assert!(object.starts_with("*2 $6 object *10 $7 summary "), "{object}");
    assert!(object.contains(" $11 subcommands *8 $15 object|encoding *8 $7 summary "), "{object}");
    assert!(reply("COMMAND DOCS", RespVersion::Three).starts_with(&format!("%{COMMAND_COUNT} $3 get %4 ")));
}

#[test]
fn list_filters_names() {
    assert!(reply("COMMAND LIST", RespVersion::Two).starts_with(&format!("*{COMMAND_COUNT} $3 get $3 set ")));
    assert_eq!(reply("COMMAND LIST FILTERBY PATTERN CLIENT|G*", RespVersion::Two), "*1 $14 client|getname ");
    for what in ["INFO", "DOCS"] {
        let many = |times: usize| reply(&format!("COMMAND {what}{}", " client".repeat(times)), RespVersion::Two);
        assert!(!many(10).starts_with('-'), "{what}");
        assert!(many(1000).starts_with("-ERR the reply would be longer than 1 MiB"), "{what}");
    }
    let bomb = format!("COMMAND LIST FILTERBY PATTERN *[{}]", "a".repeat(60_000));
    assert_eq!(reply(&bomb, RespVersion::Two), "-ERR comparing names with the pattern takes too long ");
    assert_eq!(reply("COMMAND LIST FILTERBY MODULE x", RespVersion::Two), "*0 ");
    assert_eq!(reply("COMMAND LIST FILTERBY ACLCAT nothing", RespVersion::Two), "*0 ");
    let dangerous = reply("COMMAND LIST FILTERBY ACLCAT dangerous", RespVersion::Two);
    assert!(dangerous.contains(" keys ") && dangerous.contains(" client|kill ") && !dangerous.contains(" get "));
}

#[test]
fn keys_are_found_in_requests() {
    for (request, expected) in [
        ("GETKEYS get a", "*1 $1 a "),
        ("GETKEYS mset a 1 b 2", "*2 $1 a $1 b "),
        ("GETKEYS mset a 1 b", "*2 $1 a $1 b "),
        ("GETKEYS object encoding a", "*1 $1 a "),
        ("GETKEYS rename a b", "*2 $1 a $1 b "),
        ("GETKEYSANDFLAGS set a 1", "*1 *2 $1 a *2 +OW +update "),
        ("GETKEYSANDFLAGS set a 1 get", "*1 *2 $1 a *3 +RW +access +update "),
        ("GETKEYS foo a", "-ERR Invalid command specified "),
        ("GETKEYS object foo a", "-ERR Invalid command specified "),
        ("GETKEYS ping a", "-ERR The command has no key arguments "),
        ("GETKEYS get a b", "-ERR Invalid number of arguments specified for command "),
    ] {
        assert_eq!(reply(&format!("COMMAND {request}"), RespVersion::Two), expected, "{request}");
    }
}

#[test]
fn help_ends_with_help() {
    let help = reply("OBJECT HELP", RespVersion::Two);
    assert!(
        help.starts_with("*9 +OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are: +ENCODING <key> +    ")
    );
    assert!(help.ends_with(" +HELP +    Prints this help. "), "{help}");
    for id in CommandId::ALL.into_iter().filter(|id| !id.spec().subcommands.is_empty()) {
        assert!(reply(&format!("{} HELP", id.name()), RespVersion::Three).starts_with('*'));
    }
}
