//! Every command with its options, and every error in the words of redis-server 7.0.15, which these were taken from.

use super::super::args::ArgList;
use super::super::decode::{split_request, RespLimits, Split, Unfinished};
use super::super::glob::MAX_PATTERN_BYTES;
use super::super::request::{
    ClientCommand, ClientType, ClusterCommand, Combine, CommandCommand, ConfigCommand, Credentials, HelloRequest,
    KillFilter, LatencyCommand, LibraryInfo, ListFilter, MemoryCommand, ReplyMode, RespRequest, ScanRequest, Shape,
    ShutdownRequest, SlowLogCommand, TypeFilter,
};
use super::super::table::{Access, CommandId, Flags};
use super::super::writer::RespVersion;
use super::{parse, parse_unauthenticated};
use crate::command::{Command, Condition, ExpiryCondition, NewExpiry, Value};
use crate::limits::MAX_KEY_BYTES;
use crate::request::KeyQuery;

/// 2023-11-14, with a part of a millisecond that relative times leave out.
const NOW_US: i64 = 1_700_000_000_000_999;
const NOW_MS: i64 = 1_700_000_000_000;

/// Parses an inline request and hands it to `check`.
fn with<T>(line: &str, check: impl FnOnce(CommandId, RespRequest<'_>) -> T) -> Result<T, String> {
    let (mut args, input) = (ArgList::default(), format!("{line}\n"));
    let limits = RespLimits::new(1 << 20, 1 << 16);
    let split = split_request(input.as_bytes(), &limits, &mut args, &mut Unfinished::default());
    let Ok(Split::Request { request, .. }) = split else { panic!("{line}: {split:?}") };
    let parsed = parse(args.of(request, input.as_bytes()), NOW_US).map_err(|error| error.line().to_owned())?;
    Ok(check(parsed.id, parsed.request))
}

#[track_caller]
fn is(line: &str, expected: RespRequest<'_>) {
    let equal = with(line, |_, request| assert_eq!(request, expected, "{line}"));
    assert_eq!(equal, Ok(()), "{line}");
}

#[track_caller]
fn refused(line: &str, expected: &str) {
    assert_eq!(with(line, |_, request| format!("{request:?}")), Err(expected.to_owned()), "{line}");
}

#[track_caller]
fn syntax_errors(lines: &[&str]) {
    for line in lines {
        refused(line, "ERR syntax error");
    }
}

#[track_caller]
fn not_integers(lines: &[&str]) {
    for line in lines {
        refused(line, "ERR value is not an integer or out of range");
    }
}

fn read(query: KeyQuery) -> RespRequest<'static> {
    RespRequest::Read { key: b"k", query }
}

fn status(command: Command<'static>) -> RespRequest<'static> {
    RespRequest::Write { command, shape: Shape::Status }
}

fn flag(command: Command<'static>) -> RespRequest<'static> {
    RespRequest::Write { command, shape: Shape::Flag }
}

fn set(expiry: NewExpiry, condition: Condition, return_old: bool) -> Command<'static> {
    Command::Set { key: b"k", value: Value::Bytes(b"v"), expiry, condition, return_old }
}

fn at_ms(ms: i64) -> NewExpiry {
    NewExpiry::At(ms * 1000)
}

#[test]
fn set_takes_every_combination_that_redis_takes() {
    use Condition::{Always, IfAbsent, IfPresent};
    for (options, expiry, condition, return_old) in [
        ("", NewExpiry::Never, Always, false),
        ("nx", NewExpiry::Never, IfAbsent, false),
        ("XX", NewExpiry::Never, IfPresent, false),
        ("GET", NewExpiry::Never, Always, true),
        ("NX GET", NewExpiry::Never, IfAbsent, true),
        ("NX NX", NewExpiry::Never, IfAbsent, false),
        ("KEEPTTL", NewExpiry::Keep, Always, false),
        ("EX 10", at_ms(NOW_MS + 10_000), Always, false),
        ("ex 5 EX 10", at_ms(NOW_MS + 10_000), Always, false),
        ("PX 1", at_ms(NOW_MS + 1), Always, false),
        ("EXAT 1", at_ms(1000), Always, false),
        ("PXAT 1", at_ms(1), Always, false),
        ("GET XX EX 10 GET", at_ms(NOW_MS + 10_000), IfPresent, true),
        // Microseconds end before Redis's milliseconds do.
        ("PXAT 9223372036854775807", NewExpiry::At(i64::MAX), Always, false),
    ] {
        is(&format!("SET k v {options}"), status(set(expiry, condition, return_old)));
    }
    syntax_errors(&[
        "SET k v nx xx",
        "SET k v xx nx",
        "SET k v ex",
        "SET k v keepttl ex 10",
        "SET k v ex 10 keepttl",
        "SET k v ex 10 px 10",
        "SET k v px 1 pxat 1",
        "SET k v persist",
        "SET k v foo",
        "SET k v ex x foo",
    ]);
    not_integers(&["SET k v ex x", "SET k v ex 1.5", "SET k v px 9223372036854775808", "SET k v ex ''"]);
    for time in ["ex 0", "px -1", "exat 0", "ex 9223372036854776", "px 9223372036854775807", "exat 9223372036854776"] {
        refused(&format!("SET k v {time}"), "ERR invalid expire time in 'set' command");
    }
}

#[test]
fn writes_of_strings() {
    use Condition::{Always, IfAbsent};
    is("SETNX k v", flag(set(NewExpiry::Never, IfAbsent, false)));
    is("SETEX k 10 v", status(set(at_ms(NOW_MS + 10_000), Always, false)));
    is("PSETEX k 10 v", status(set(at_ms(NOW_MS + 10), Always, false)));
    is("GETSET k v", status(set(NewExpiry::Never, Always, true)));
    is("GETDEL k", status(Command::TakeOut { key: b"k" }));
    is("APPEND k v", status(Command::Append { key: b"k", bytes: b"v", length_max: None }));
    for (line, by) in [
        ("INCR k", 1),
        ("DECR k", -1),
        ("INCRBY k 5", 5),
        ("INCRBY k -9223372036854775808", i64::MIN),
        ("DECRBY k 5", -5),
        ("DECRBY k 9223372036854775807", -i64::MAX),
    ] {
        is(line, status(Command::Increment { key: b"k", by }));
    }
    is("INCRBYFLOAT k 1.5e3", status(Command::IncrementFloat { key: b"k", by: b"1.5e3" }));
    is("SETRANGE k 5 v", status(Command::SetRange { key: b"k", offset: 5, bytes: b"v" }));
    is("SETRANGE k 9223372036854775807 ''", read(KeyQuery::Length));
    let last = Command::SetRange { key: b"k", offset: 536_870_911, bytes: b"v" };
    is("SETRANGE k 536870911 v", status(last));
    not_integers(&["INCRBY k x", "DECRBY k 01", "SETRANGE k x v", "SETEX k x v"]);
    refused("SETEX k 0 v", "ERR invalid expire time in 'setex' command");
    refused("PSETEX k -5 v", "ERR invalid expire time in 'psetex' command");
    refused("DECRBY k -9223372036854775808", "ERR decrement would overflow");
    refused("INCRBYFLOAT k nan", "ERR value is not a valid float");
    refused("SETRANGE k -1 v", "ERR offset is out of range");
    for offset in ["536870912", "4294967296", "9223372036854775807"] {
        let line = format!("SETRANGE k {offset} v");
        refused(&line, "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    }
}

#[test]
fn getex_without_an_option_is_a_read() {
    let expire =
        |at_us| Command::SetExpiry { key: b"k", at_us, condition: ExpiryCondition::Always, return_value: true };
    is("GETEX k", read(KeyQuery::Value));
    is("GETEX k PERSIST", status(expire(None)));
    is("GETEX k EX 10", status(expire(Some((NOW_MS + 10_000) * 1000))));
    is("GETEX k PXAT 1", status(expire(Some(1000))));
    syntax_errors(&["GETEX k keepttl", "GETEX k nx", "GETEX k ex 10 persist", "GETEX k persist px 1", "GETEX k ex"]);
    refused("GETEX k EX 0", "ERR invalid expire time in 'getex' command");
}

#[test]
fn reads_of_one_key() {
    is("GET k", read(KeyQuery::Value));
    is("get k", read(KeyQuery::Value));
    is("STRLEN k", read(KeyQuery::Length));
    is("GETRANGE k -5 9223372036854775807", read(KeyQuery::Range { start: -5, end: i64::MAX }));
    is("SUBSTR k 0 -1", read(KeyQuery::Range { start: 0, end: -1 }));
    is("EXISTS k", read(KeyQuery::Exists));
    is("TOUCH k", read(KeyQuery::Touch));
    is("TYPE k", read(KeyQuery::Type));
    for (name, milliseconds, absolute) in
        [("TTL", false, false), ("PTTL", true, false), ("EXPIRETIME", false, true), ("PEXPIRETIME", true, true)]
    {
        is(&format!("{name} k"), read(KeyQuery::TimeToLive { milliseconds, absolute }));
    }
    is("OBJECT ENCODING k", read(KeyQuery::Encoding));
    is("object freq k", read(KeyQuery::Frequency));
    is("OBJECT IDLETIME k", read(KeyQuery::IdleTime));
    is("MEMORY USAGE k", read(KeyQuery::MemoryUsage));
    is("MEMORY USAGE k SAMPLES 5 SAMPLES 0", read(KeyQuery::MemoryUsage));
    not_integers(&["GETRANGE k x 1", "GETRANGE k 1 x", "MEMORY USAGE k SAMPLES x"]);
    syntax_errors(&["MEMORY USAGE k SAMPLES", "MEMORY USAGE k SAMPLES -1", "MEMORY USAGE k foo 1"]);
}

#[test]
fn several_keys_are_taken_apart_later() {
    let texts = |line: &str| {
        with(line, |_, request| match request {
            RespRequest::ReadEach { keys, query, combine } => format!("{query:?} {combine:?} {keys:?}"),
            RespRequest::DeleteEach { keys } => format!("{keys:?}"),
            RespRequest::SetEach { pairs } => format!("{pairs:?}"),
            RespRequest::SetAllIfAbsent { pairs } => format!("if absent {pairs:?}"),
            other => format!("{other:?}"),
        })
    };
    for (line, expected) in [
        ("MGET a b", r#"Value Array 2 arguments "a" "b""#),
        ("MGET a", r#"Value Array 1 arguments "a""#),
        ("EXISTS a b a", r#"Exists Sum 3 arguments "a" "b" "a""#),
        ("TOUCH a b", r#"Touch Sum 2 arguments "a" "b""#),
        ("DEL a b", r#"2 arguments "a" "b""#),
        ("UNLINK a b", r#"2 arguments "a" "b""#),
        ("MSET a 1 b 2", r#"4 arguments "a" "1" "b" "2""#),
        ("MSETNX {t}a 1 {t}b 2", r#"if absent 4 arguments "{t}a" "1" "{t}b" "2""#),
    ] {
        assert_eq!(texts(line).as_deref(), Ok(expected), "{line}");
    }
    is("DEL k", flag(Command::Delete { key: b"k" }));
    is("UNLINK k", flag(Command::Delete { key: b"k" }));
    is("MSETNX k v", flag(set(NewExpiry::Never, Condition::IfAbsent, false)));
    refused("MSET a 1 b", "ERR wrong number of arguments for 'mset' command");
    refused("MSETNX a 1 b", "ERR wrong number of arguments for 'msetnx' command");
    refused("MSETNX a 1 b 2", "CROSSSLOT Keys in request don't hash to the same slot");
    assert_eq!(with("MGET a", |id, _| id), Ok(CommandId::MGet));
    assert_ne!(Combine::Array, Combine::Sum);
}

#[test]
fn expiry_is_absolute_and_conditional() {
    use ExpiryCondition::{Always, IfAny, IfAnySooner, IfLater, IfNone, IfSooner};
    let expire = |at_ms: i64, condition| {
        let at_us = Some(at_ms.saturating_mul(1000));
        flag(Command::SetExpiry { key: b"k", at_us, condition, return_value: false })
    };
    is("EXPIRE k 10", expire(NOW_MS + 10_000, Always));
    is("PEXPIRE k 10", expire(NOW_MS + 10, Always));
    is("EXPIREAT k 10", expire(10_000, Always));
    is("PEXPIREAT k 10", expire(10, Always));
    is("EXPIRE k -1", expire(NOW_MS - 1000, Always));
    is("PEXPIREAT k 9223372036854775807", expire(i64::MAX, Always));
    is("PEXPIRE k -9223372036854775808", expire(i64::MIN + NOW_MS, Always));
    for (options, condition) in
        [("nx", IfNone), ("XX", IfAny), ("GT", IfLater), ("LT", IfSooner), ("XX GT", IfLater), ("LT XX", IfAnySooner)]
    {
        is(&format!("EXPIRE k 10 {options}"), expire(NOW_MS + 10_000, condition));
    }
    is("PERSIST k", flag(Command::SetExpiry { key: b"k", at_us: None, condition: Always, return_value: false }));
    not_integers(&["EXPIRE k x", "PEXPIREAT k 1.5"]);
    refused("EXPIRE k x foo", "ERR Unsupported option foo");
    for options in ["NX XX", "GT NX", "NX LT"] {
        let expected = "ERR NX and XX, GT or LT options at the same time are not compatible";
        refused(&format!("EXPIRE k 10 {options}"), expected);
    }
    refused("EXPIRE k 10 GT LT", "ERR GT and LT options at the same time are not compatible");
    for (line, name) in [
        ("EXPIRE k 9223372036854775807", "expire"),
        ("EXPIRE k -9223372036854775807", "expire"),
        ("EXPIREAT k 9223372036854776", "expireat"),
        ("PEXPIRE k 9223372036854775807", "pexpire"),
    ] {
        refused(line, &format!("ERR invalid expire time in '{name}' command"));
    }
}

#[test]
fn scan_rename_and_copy() {
    let scan = ScanRequest { cursor: 0, pattern: None, count: 10, filter: TypeFilter::Any };
    is("SCAN 0", RespRequest::Scan(scan));
    let all = ScanRequest { cursor: 17, pattern: Some(b"a*"), count: 5, filter: TypeFilter::Hash };
    is("SCAN 17 count 1 MATCH a* TYPE hash COUNT 5", RespRequest::Scan(all));
    for (name, filter) in [("String", TypeFilter::String), ("list", TypeFilter::List), ("zset", TypeFilter::Nothing)] {
        is(&format!("SCAN 0 TYPE {name}"), RespRequest::Scan(ScanRequest { filter, ..scan }));
    }
    refused("SCAN x", "ERR invalid cursor");
    syntax_errors(&["SCAN 0 COUNT 0", "SCAN 0 COUNT -1", "SCAN 0 MATCH", "SCAN 0 foo bar", "SCAN 0 COUNT 1 foo"]);
    not_integers(&["SCAN 0 COUNT x"]);

    let rename = |if_absent| Command::Rename { from: b"{t}a", to: b"{t}b", if_absent };
    is("RENAME {t}a {t}b", status(rename(false)));
    is("RENAMENX {t}a {t}b", flag(rename(true)));
    is("RENAME k k", status(Command::Rename { from: b"k", to: b"k", if_absent: false }));
    let copy = |replace| flag(Command::Copy { from: b"{t}a", to: b"{t}b", replace });
    is("COPY {t}a {t}b", copy(false));
    is("COPY {t}a {t}b DB 0 REPLACE", copy(true));
    for line in ["RENAME a b", "RENAMENX a b", "COPY a b"] {
        refused(line, "CROSSSLOT Keys in request don't hash to the same slot");
    }
    syntax_errors(&["COPY a b foo", "COPY a b DB"]);
    not_integers(&["COPY a b DB x"]);
    refused("COPY a b DB 1", "ERR DB index is out of range");
    refused("COPY a a", "ERR source and destination objects are the same");
}

#[test]
fn the_keyspace_as_a_whole() {
    is("KEYS a*", RespRequest::Keys { pattern: b"a*" });
    let words = |count: usize| " x".repeat(count);
    refused(&format!("INFO{}", words(1024)), "ERR 'info' command takes at most 1024 arguments");
    assert!(with(&format!("INFO{}", words(1023)), |_, _| ()).is_ok());
    for many in ["DEL", "UNLINK", "EXISTS", "TOUCH", "MGET", "MSET", "MSETNX"] {
        assert!(with(&format!("{many}{}", words(3000)), |_, _| ()).is_ok(), "{many}");
    }
    let longest = "x".repeat(MAX_PATTERN_BYTES);
    is(&format!("KEYS {longest}"), RespRequest::Keys { pattern: longest.as_bytes() });
    refused(&format!("KEYS {longest}x"), "ERR pattern is longer than 1024 bytes");
    refused(&format!("SCAN 0 MATCH {longest}x"), "ERR pattern is longer than 1024 bytes");
    is("DBSIZE", RespRequest::DbSize);
    is("RANDOMKEY", RespRequest::RandomKey);
    for line in ["FLUSHALL", "FLUSHDB", "FLUSHALL async", "FLUSHDB SYNC"] {
        is(line, RespRequest::Flush);
    }
    syntax_errors(&["FLUSHALL foo", "FLUSHDB ASYNC SYNC"]);
    is("SELECT 0", RespRequest::Select);
    refused("SELECT 1", "ERR DB index is out of range");
    refused("SELECT -1", "ERR DB index is out of range");
    refused("SELECT 99999999999", "ERR value is out of range, value must between -2147483648 and 2147483647");
    not_integers(&["SELECT x"]);
}

#[test]
fn connections() {
    is("PING", RespRequest::Ping(None));
    is("PING x", RespRequest::Ping(Some(b"x")));
    refused("PING a b", "ERR wrong number of arguments for 'ping' command");
    is("ECHO x", RespRequest::Echo(b"x"));
    is("QUIT a b", RespRequest::Quit);
    is("RESET", RespRequest::Reset);
    is("READONLY", RespRequest::ReadOnly);
    is("READWRITE", RespRequest::ReadWrite);
    is("HELLO", RespRequest::Hello(HelloRequest::default()));
    let auth = Some(Credentials { user: Some(b"u"), password: b"p" });
    let hello = HelloRequest { version: Some(RespVersion::Three), auth, name: Some(b"me") };
    is("HELLO 3 setname me AUTH u p", RespRequest::Hello(hello));
    let hello = HelloRequest { version: Some(RespVersion::Two), ..HelloRequest::default() };
    is("HELLO 2", RespRequest::Hello(hello));
    refused("HELLO 4", "NOPROTO unsupported protocol version");
    refused("HELLO -1", "NOPROTO unsupported protocol version");
    refused("HELLO 2x", "ERR Protocol version is not an integer or out of range");
    refused("HELLO 2 auth u", "ERR Syntax error in HELLO option 'auth'");
    refused("HELLO 2 foo", "ERR Syntax error in HELLO option 'foo'");
    refused("HELLO 2 setname", "ERR Syntax error in HELLO option 'setname'");
    let name = "ERR Client names cannot contain spaces, newlines or special characters.";
    refused("HELLO 2 setname 'a b'", name);
    is("AUTH p", RespRequest::Auth(Credentials { user: None, password: b"p" }));
    is("AUTH u p", RespRequest::Auth(Credentials { user: Some(b"u"), password: b"p" }));
    syntax_errors(&["AUTH a b c"]);
}

#[test]
fn client() {
    let client = |line: &str, expected| is(&format!("CLIENT {line}"), RespRequest::Client(expected));
    client("ID", ClientCommand::Id);
    client("getname", ClientCommand::GetName);
    client("SETNAME me", ClientCommand::SetName(b"me"));
    client("SETNAME ''", ClientCommand::SetName(b""));
    client("SETINFO lib-name x", ClientCommand::SetInfo { what: LibraryInfo::Name, value: b"x" });
    client("SETINFO LIB-VER 1", ClientCommand::SetInfo { what: LibraryInfo::Version, value: b"1" });
    client("INFO", ClientCommand::Info);
    client("KILL 1.2.3.4:5", ClientCommand::KillAddress(b"1.2.3.4:5"));
    client("NO-EVICT on", ClientCommand::NoEvict(true));
    client("NO-EVICT OFF", ClientCommand::NoEvict(false));
    client("REPLY on", ClientCommand::Reply(ReplyMode::On));
    client("REPLY OFF", ClientCommand::Reply(ReplyMode::Off));
    client("REPLY skip", ClientCommand::Reply(ReplyMode::Skip));
    is("CLIENT HELP", RespRequest::Help);
    refused("CLIENT SETNAME 'a b'", "ERR Client names cannot contain spaces, newlines or special characters.");
    let long = "x".repeat(256);
    client(&format!("SETNAME {long}"), ClientCommand::SetName(long.as_bytes()));
    refused(&format!("CLIENT SETNAME {long}x"), "ERR Client names cannot be longer than 256 bytes.");
    refused(&format!("HELLO 3 SETNAME {long}x"), "ERR Client names cannot be longer than 256 bytes.");
    refused(&format!("CLIENT SETINFO lib-ver {long}x"), "ERR lib-ver cannot be longer than 256 bytes.");
    refused("CLIENT SETINFO foo x", "ERR Unrecognized option 'foo'");
    refused("CLIENT SETINFO lib-name 'a b'", "ERR lib-name cannot contain spaces, newlines or special characters.");
    refused("CLIENT KILL TYPE foo", "ERR Unknown client type 'foo'");
    refused("CLIENT KILL ID 0", "ERR client-id should be greater than 0");
    refused("CLIENT KILL ID x", "ERR client-id should be greater than 0");
    refused("CLIENT LIST TYPE foo", "ERR Unknown client type 'foo'");
    refused("CLIENT LIST ID x", "ERR Invalid client ID");
    syntax_errors(&[
        "CLIENT LIST foo",
        "CLIENT LIST ID",
        "CLIENT LIST TYPE",
        "CLIENT LIST TYPE normal ID 1",
        "CLIENT KILL foo bar",
        "CLIENT KILL SKIPME foo",
        "CLIENT KILL ID 5 ADDR",
        "CLIENT NO-EVICT foo",
        "CLIENT REPLY foo",
    ]);
}

#[test]
fn filters_of_clients() {
    let list = |line: &str| {
        with(line, |_, request| match request {
            RespRequest::Client(ClientCommand::List(filter)) => {
                (filter.client_type, filter.ids().map(Iterator::collect::<Vec<_>>))
            }
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(list("CLIENT LIST"), Ok((None, None)));
    assert_eq!(list("CLIENT LIST TYPE slave"), Ok((Some(ClientType::Replica), None)));
    // A negative number is one that no connection has.
    assert_eq!(list("CLIENT LIST ID 1 -1 99"), Ok((None, Some(vec![1, 99]))));
    let kill = |line: &str, check: fn(&KillFilter<'_>)| {
        let checked = with(line, |_, request| match request {
            RespRequest::Client(ClientCommand::Kill(filter)) => check(&filter),
            other => panic!("{other:?}"),
        });
        assert_eq!(checked, Ok(()), "{line}");
    };
    kill("CLIENT KILL ID 5 ADDR a:1 LADDR b:2 TYPE pubsub USER u SKIPME no", |filter| {
        assert_eq!((filter.id, filter.client_type, filter.skip_me), (Some(5), Some(ClientType::PubSub), false));
        assert_eq!((filter.address, filter.local_address), (Some(&b"a:1"[..]), Some(&b"b:2"[..])));
        assert_eq!(filter.user, Some(&b"u"[..]));
    });
    kill("CLIENT KILL TYPE master SKIPME yes", |filter| assert!(filter.skip_me));
}

#[test]
fn the_server() {
    is("TIME", RespRequest::Time);
    is("LOLWUT", RespRequest::Lolwut { version: None });
    is("LOLWUT VERSION 5 1 2", RespRequest::Lolwut { version: Some(5) });
    is("LOLWUT VERSION 5 1 2 3 x", RespRequest::Lolwut { version: Some(5) });
    is("LOLWUT VERSION 7 x", RespRequest::Lolwut { version: Some(7) });
    not_integers(&["LOLWUT VERSION x", "LOLWUT VERSION 5 x", "LOLWUT VERSION 5 1 2 x", "LOLWUT VERSION 6 1 x"]);
    is("SAVE", RespRequest::Save);
    is("BGSAVE", RespRequest::BackgroundSave { schedule: false });
    is("bgsave Schedule", RespRequest::BackgroundSave { schedule: true });
    is("LASTSAVE", RespRequest::LastSave);
    syntax_errors(&["BGSAVE NOW", "BGSAVE SCHEDULE SCHEDULE"]);
    let shutdown = |line: &str, expected| is(&format!("SHUTDOWN {line}"), RespRequest::Shutdown(expected));
    shutdown("", ShutdownRequest::default());
    shutdown("NOSAVE now FORCE", ShutdownRequest { save: Some(false), now: true, force: true, abort: false });
    shutdown("SAVE", ShutdownRequest { save: Some(true), ..ShutdownRequest::default() });
    shutdown("ABORT", ShutdownRequest { abort: true, ..ShutdownRequest::default() });
    syntax_errors(&["SHUTDOWN foo", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN ABORT NOW"]);
    is("CONFIG RESETSTAT", RespRequest::Config(ConfigCommand::ResetStat));
    is("CONFIG REWRITE", RespRequest::Config(ConfigCommand::Rewrite));
    syntax_errors(&["CONFIG SET a b c"]);
    is("MEMORY DOCTOR", RespRequest::Memory(MemoryCommand::Doctor));
    is("MEMORY STATS", RespRequest::Memory(MemoryCommand::Stats));
    is("SLOWLOG GET", RespRequest::SlowLog(SlowLogCommand::Get(Some(10))));
    is("SLOWLOG GET 3", RespRequest::SlowLog(SlowLogCommand::Get(Some(3))));
    is("SLOWLOG GET -1", RespRequest::SlowLog(SlowLogCommand::Get(None)));
    is("SLOWLOG LEN", RespRequest::SlowLog(SlowLogCommand::Len));
    is("SLOWLOG RESET", RespRequest::SlowLog(SlowLogCommand::Reset));
    refused("SLOWLOG GET -2", "ERR count should be greater than or equal to -1");
    refused("SLOWLOG GET x", "ERR count should be greater than or equal to -1");
    let expected = "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.";
    refused("SLOWLOG GET 1 2", expected);
    is("LATENCY LATEST", RespRequest::Latency(LatencyCommand::Latest));
    is("LATENCY HISTORY fork", RespRequest::Latency(LatencyCommand::History(b"fork")));
    is("LATENCY GRAPH fork", RespRequest::Latency(LatencyCommand::Graph(b"fork")));
    is("LATENCY DOCTOR", RespRequest::Latency(LatencyCommand::Doctor));
    let texts = |line: &str| with(line, |_, request| format!("{request:?}"));
    for (line, expected) in [
        ("INFO", "Info { sections: 0 arguments }"),
        ("INFO a b", r#"Info { sections: 2 arguments "a" "b" }"#),
        ("CONFIG GET a b", r#"Config(Get(2 arguments "a" "b"))"#),
        ("CONFIG SET a b", r#"Config(Set(2 arguments "a" "b"))"#),
        ("LATENCY RESET", "Latency(Reset(0 arguments))"),
        ("LATENCY HISTOGRAM get", r#"Latency(Histogram(1 arguments "get"))"#),
        ("COMMAND INFO get", r#"Command(Info(1 arguments "get"))"#),
        ("COMMAND DOCS", "Command(Docs(0 arguments))"),
        ("COMMAND GETKEYS get a", r#"Command(GetKeys(2 arguments "get" "a"))"#),
        ("COMMAND GETKEYSANDFLAGS get a", r#"Command(GetKeysAndFlags(2 arguments "get" "a"))"#),
    ] {
        assert_eq!(texts(line).as_deref(), Ok(expected), "{line}");
    }
    is("COMMAND", RespRequest::Command(CommandCommand::All));
    is("COMMAND COUNT", RespRequest::Command(CommandCommand::Count));
    let list = |line: &str, filter| is(line, RespRequest::Command(CommandCommand::List(filter)));
    list("COMMAND LIST", ListFilter::All);
    list("COMMAND LIST FILTERBY module x", ListFilter::Module);
    list("COMMAND LIST filterby ACLCAT read", ListFilter::Category(b"read"));
    list("COMMAND LIST filterby pattern x*", ListFilter::Pattern(b"x*"));
    syntax_errors(&["COMMAND LIST foo", "COMMAND LIST filterby", "COMMAND LIST filterby foo x"]);
}

#[test]
fn routing() {
    let cluster = |line: &str, expected| is(&format!("CLUSTER {line}"), RespRequest::Cluster(expected));
    cluster("SLOTS", ClusterCommand::Slots);
    cluster("SHARDS", ClusterCommand::Shards);
    cluster("NODES", ClusterCommand::Nodes);
    cluster("MYID", ClusterCommand::MyId);
    cluster("INFO", ClusterCommand::Info);
    cluster("KEYSLOT a", ClusterCommand::KeySlot(b"a"));
    cluster("COUNTKEYSINSLOT 16383", ClusterCommand::CountKeysInSlot(16_383));
    cluster("GETKEYSINSLOT 0 10", ClusterCommand::GetKeysInSlot { slot: 0, count: 10 });
    not_integers(&["CLUSTER COUNTKEYSINSLOT x", "CLUSTER GETKEYSINSLOT 1 x"]);
    refused("CLUSTER COUNTKEYSINSLOT 16384", "ERR Invalid slot");
    refused("CLUSTER COUNTKEYSINSLOT -1", "ERR Invalid slot");
    refused("CLUSTER GETKEYSINSLOT 16384 1", "ERR Invalid slot or number of keys");
    refused("CLUSTER GETKEYSINSLOT 1 -1", "ERR Invalid slot or number of keys");
}

#[test]
fn what_is_no_command_is_named_with_its_first_arguments() {
    refused("foo", "ERR unknown command 'foo', with args beginning with: ");
    refused("FOO a b", "ERR unknown command 'FOO', with args beginning with: 'a' 'b' ");
    let (y, z) = ("y".repeat(200), "z".repeat(200));
    refused(&format!("foo {y}"), &format!("ERR unknown command 'foo', with args beginning with: '{}' ", &y[..128]));
    let expected = format!("ERR unknown command 'foo', with args beginning with: '{}' '{}' ", &y[..100], &z[..25]);
    refused(&format!("foo {} {z} a", &y[..100]), &expected);
    refused(&y, &format!("ERR unknown command '{}', with args beginning with: ", &y[..128]));
    refused("foo \"\\xff\"", "ERR unknown command 'foo', with args beginning with: '\u{fffd}' ");
    refused("POST /", "ERR this is not an HTTP server");
    refused("Host: x", "ERR this is not an HTTP server");
    refused("client foo", "ERR unknown subcommand 'foo'. Try CLIENT HELP.");
    refused("OBJECT foo k", "ERR unknown subcommand 'foo'. Try OBJECT HELP.");
}

#[test]
fn every_command_refuses_a_wrong_number_of_arguments() {
    for id in CommandId::ALL {
        let spec = id.spec();
        let expected = format!("ERR wrong number of arguments for '{}' command", spec.name);
        let fewest = usize::from(spec.arity.unsigned_abs());
        if fewest > 1 {
            refused(&format!("{}{}", spec.name, " x".repeat(fewest - 2)), &expected);
        }
        if spec.arity > 0 {
            refused(&format!("{}{}", spec.name, " x".repeat(fewest)), &expected);
        }
        for sub in spec.subcommands {
            let expected = format!("ERR wrong number of arguments for '{}' command", sub.name);
            let (name, fewest) = (sub.name.replace('|', " "), usize::from(sub.arity.unsigned_abs()));
            if fewest > 2 {
                refused(&format!("{name}{}", " x".repeat(fewest - 3)), &expected);
            }
            if sub.arity > 0 {
                refused(&format!("{name}{}", " x".repeat(fewest - 1)), &expected);
            }
        }
    }
}

#[test]
fn a_key_over_the_limit_is_refused_wherever_it_stands() {
    let (longest, too_long) = ("k".repeat(MAX_KEY_BYTES), "k".repeat(MAX_KEY_BYTES + 1));
    let parse_words = |words: &[&str]| {
        let (mut args, mut input) = (ArgList::default(), format!("*{}\r\n", words.len()));
        for word in words {
            input.extend(["$", &word.len().to_string(), "\r\n", word, "\r\n"]);
        }
        let limits = RespLimits::new(1 << 20, 1 << 16);
        let split = split_request(input.as_bytes(), &limits, &mut args, &mut Unfinished::default());
        let Ok(Split::Request { request, .. }) = split else { panic!("{split:?}") };
        parse(args.of(request, input.as_bytes()), NOW_US).map(drop).map_err(|error| error.line().to_owned())
    };
    for id in CommandId::ALL {
        let spec = id.spec();
        for target in std::iter::once(spec).chain(spec.subcommands).filter(|target| !target.key_specs.is_empty()) {
            let mut words: Vec<&str> = target.name.split('|').collect();
            words.resize(usize::from(target.arity.unsigned_abs()).max(words.len()), "1");
            for (position, _) in target.key_positions(words.len()) {
                let mut words = words.clone();
                words[position] = &too_long;
                assert_eq!(
                    parse_words(&words),
                    Err("ERR key is longer than 65536 bytes".to_owned()),
                    "{}",
                    target.name
                );
            }
        }
    }
    assert_eq!(parse_words(&["GET", &longest]), Ok(()));
    assert_eq!(parse_words(&["MSET", &longest, "v", &longest, "v"]), Ok(()));
    let key_too_long = Err("ERR key is longer than 65536 bytes".to_owned());
    assert_eq!(parse_words(&["MSET", &longest, "v", &too_long, "v"]), key_too_long);
}

/// Parses an inline request of a client that has not authenticated; the command that it is, or why not.
fn unauthenticated(line: &str) -> Result<CommandId, String> {
    let (mut args, input) = (ArgList::default(), format!("{line}\n"));
    let limits = RespLimits::unauthenticated();
    let split = split_request(input.as_bytes(), &limits, &mut args, &mut Unfinished::default());
    let Ok(Split::Request { request, .. }) = split else { panic!("{line}: {split:?}") };
    let parsed = parse_unauthenticated(args.of(request, input.as_bytes()));
    parsed.map(|parsed| parsed.id).map_err(|error| error.line().to_owned())
}

#[test]
fn before_authentication_form_is_judged_first_and_then_only_a_few_commands_are_read() {
    for line in ["HELLO", "HELLO 3 AUTH u p SETNAME me", "AUTH p", "AUTH u p", "QUIT", "QUIT a b", "RESET"] {
        assert!(unauthenticated(line).is_ok(), "{line}");
    }
    for (line, error) in [
        ("NOPE x", "ERR unknown command 'NOPE', with args beginning with: 'x' "),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("CONFIG", "ERR wrong number of arguments for 'config' command"),
        ("CONFIG NOPE", "ERR unknown subcommand 'NOPE'. Try CONFIG HELP."),
        ("CONFIG SET a", "ERR wrong number of arguments for 'config|set' command"),
        ("CLIENT ID x", "ERR wrong number of arguments for 'client|id' command"),
        ("COMMAND NOPE", "ERR unknown subcommand 'NOPE'. Try COMMAND HELP."),
        ("RESET a", "ERR wrong number of arguments for 'reset' command"),
        ("AUTH", "ERR wrong number of arguments for 'auth' command"),
        ("AUTH a b c", "ERR syntax error"),
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 SETNAME", "ERR Syntax error in HELLO option 'SETNAME'"),
    ] {
        assert_eq!(unauthenticated(line), Err(error.to_owned()), "{line}");
    }
    let refused =
        "GET k|SET k v NOPE|PING|PING a b|COMMAND|COMMAND INFO|CLIENT ID|CONFIG GET *|SELECT x|READONLY|ECHO x|\
                   SHUTDOWN NOPE|CLUSTER SLOTS|INFO|DBSIZE|FLUSHALL|SLOWLOG GET";
    for line in refused.split('|') {
        assert_eq!(unauthenticated(line), Err("NOAUTH Authentication required.".to_owned()), "{line}");
    }
}

#[test]
fn every_command_of_the_table_that_is_not_for_everybody_is_refused_before_authentication() {
    let mut open = Vec::new();
    for id in CommandId::ALL {
        let spec = id.spec();
        assert_eq!(spec.access() == Access::Anyone, spec.flags.has(Flags::NO_AUTH), "{}", spec.name);
        if spec.flags.has(Flags::NO_AUTH) {
            open.push(spec.name);
        }
    }
    open.sort_unstable();
    assert_eq!(open, ["auth", "hello", "quit", "reset"]);
}
