//! Whether two servers said the same: byte for byte, unless the command asks for something that no two servers share.
//!
//! Invariant: errors are compared by their whole text, never by less.

use super::differences::is_known;
use super::lines::Line;
use crate::support::servers::sorted_keys;
use crate::support::Reply;

/// Seconds beyond which a time was given as an absolute one, which both servers tell exactly.
const ABSOLUTE_S: i64 = 4_000_000_000;

/// What the comparison knows besides the replies.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    /// How far apart the two servers may have executed the same command, in milliseconds.
    pub slack_ms: i64,
    /// Keys that were written with a time in the past since the database was last empty: a server may count them
    /// until it has removed them.
    pub ghosts: i64,
}

/// How the replies to a command are compared.
#[derive(Debug, PartialEq, Eq)]
enum Likeness {
    /// The same bytes.
    Exact,
    /// The same kind of reply: its content is the server's own.
    Kind,
    /// The same elements, in any order.
    Unordered,
    /// Numbers that may differ by so much.
    Near(i64),
    /// A number of keys.
    Count,
    /// A map with the same names, some with the same values.
    Greeting,
    /// Any of the keys that there are.
    AnyKey,
}

fn likeness(line: &Line, redis: &Reply, context: &Context) -> Likeness {
    let (name, second) = (line.word(0), line.word(1));
    match (name.as_str(), second.as_str()) {
        ("KEYS", _) => Likeness::Unordered,
        ("DBSIZE", _) => Likeness::Count,
        ("RANDOMKEY", _) => Likeness::AnyKey,
        ("HELLO", _) => Likeness::Greeting,
        ("TTL" | "EXPIRETIME", _) => match redis {
            Reply::Integer(seconds) if name == "EXPIRETIME" && *seconds > ABSOLUTE_S => Likeness::Exact,
            Reply::Integer(seconds) if *seconds < 0 => Likeness::Exact,
            _ => Likeness::Near(1 + context.slack_ms / 1000),
        },
        ("PTTL" | "PEXPIRETIME", _) => match redis {
            Reply::Integer(millis) if name == "PEXPIRETIME" && *millis > ABSOLUTE_S * 1000 => Likeness::Exact,
            Reply::Integer(millis) if *millis < 0 => Likeness::Exact,
            _ => Likeness::Near(context.slack_ms),
        },
        ("INFO" | "LOLWUT" | "TIME" | "SCAN", _)
        | ("CLIENT", "ID" | "INFO" | "LIST")
        | ("COMMAND", "COUNT" | "" | "DOCS" | "LIST")
        | ("SLOWLOG", "LEN" | "GET")
        | ("LATENCY", "LATEST" | "RESET" | "DOCTOR" | "HISTORY" | "GRAPH" | "HISTOGRAM")
        | ("MEMORY", "USAGE" | "STATS" | "DOCTOR" | "PURGE" | "MALLOC-STATS")
        | ("OBJECT", "IDLETIME" | "FREQ")
        | (_, "HELP") => Likeness::Kind,
        // Without a name it is about all commands, and those are the server's own.
        ("COMMAND", "INFO") if line.arguments.len() == 2 => Likeness::Kind,
        _ => Likeness::Exact,
    }
}

fn is_same_kind(redis: &Reply, eyot: &Reply) -> bool {
    match (redis, eyot) {
        (Reply::Error(redis), Reply::Error(eyot)) => redis == eyot,
        _ => std::mem::discriminant(redis) == std::mem::discriminant(eyot),
    }
}

fn is_same_greeting(redis: &Reply, eyot: &Reply) -> bool {
    let names = |reply: &Reply| -> Vec<Reply> {
        let mut names: Vec<Reply> = reply.elements().into_iter().step_by(2).collect();
        names.sort_by_key(|name| format!("{name:?}"));
        names
    };
    let both_list = !matches!((redis, eyot), (Reply::Error(_), _) | (_, Reply::Error(_)));
    if !both_list || !is_same_kind(redis, eyot) {
        return redis == eyot;
    }
    let same = |name: &str| redis.field(name) == eyot.field(name);
    names(redis) == names(eyot) && same("proto") && same("role") && same("modules") && same("server")
}

/// Whether the replies of Redis and Eyot to `line` say the same. `before` holds what Eyot replied to the commands of
/// the same step before this one.
pub fn agree(line: &Line, redis: &Reply, eyot: &Reply, before: &[Reply], context: &Context) -> bool {
    if redis == eyot {
        return true;
    }
    let is_alike = match likeness(line, redis, context) {
        Likeness::Exact => false,
        Likeness::Kind => is_same_kind(redis, eyot),
        Likeness::Unordered => {
            matches!((redis, eyot), (Reply::Array(_), Reply::Array(_))) && sorted_keys(redis) == sorted_keys(eyot)
        }
        Likeness::Near(apart) => match (redis, eyot) {
            (Reply::Integer(redis), Reply::Integer(eyot)) => *eyot >= 0 && redis.abs_diff(*eyot) <= apart as u64,
            _ => false,
        },
        Likeness::Count => match (redis, eyot) {
            (Reply::Integer(redis), Reply::Integer(eyot)) => redis.abs_diff(*eyot) <= context.ghosts as u64,
            _ => false,
        },
        Likeness::Greeting => is_same_greeting(redis, eyot),
        Likeness::AnyKey => match (redis, eyot, before.last()) {
            (Reply::Bulk(_), Reply::Bulk(key), Some(keys @ Reply::Array(_))) => sorted_keys(keys).contains(key),
            (Reply::Bulk(_), Reply::Bulk(_), _) => true,
            _ => false,
        },
    };
    is_alike || is_known(line, redis, eyot)
}

#[cfg(test)]
mod planted {
    use super::*;

    #[allow(clippy::needless_pass_by_value)] // Each is made for the call.
    fn judged(line: &str, redis: Reply, eyot: Reply) -> bool {
        agree(&Line::of(line), &redis, &eyot, &[], &Context { slack_ms: 1_500, ghosts: 1 })
    }

    #[test]
    fn a_wrong_value_type_or_error_is_found() {
        assert!(judged("GET a", Reply::bulk("1"), Reply::bulk("1")));
        assert!(!judged("GET a", Reply::bulk("1"), Reply::bulk("2")));
        assert!(!judged("GET a", Reply::bulk("1"), Reply::Integer(1)));
        assert!(!judged("GET a", Reply::NullBulk, Reply::Null));
        assert!(!judged("GET a", Reply::Error("ERR a".to_owned()), Reply::Error("ERR b".to_owned())));
        assert!(!judged("INFO", Reply::bulk("x"), Reply::Error("ERR a".to_owned())));
        assert!(!judged("INFO x y", Reply::Error("ERR a".to_owned()), Reply::Error("ERR b".to_owned())));
    }

    #[test]
    fn a_time_may_differ_by_the_slack_and_not_by_more() {
        assert!(judged("TTL a", Reply::Integer(100), Reply::Integer(101)));
        assert!(!judged("TTL a", Reply::Integer(100), Reply::Integer(103)));
        assert!(!judged("TTL a", Reply::Integer(-1), Reply::Integer(-2)));
        assert!(!judged("TTL a", Reply::Integer(1), Reply::Integer(-1)));
        assert!(judged("PTTL a", Reply::Integer(100_000), Reply::Integer(101_000)));
        assert!(!judged("PEXPIRETIME a", Reply::Integer(4_102_444_800_000), Reply::Integer(4_102_444_800_001)));
    }

    #[test]
    fn keys_may_come_in_any_order_and_none_may_be_missing() {
        let keys = |names: &[&str]| Reply::Array(names.iter().map(Reply::bulk).collect());
        assert!(judged("KEYS *", keys(&["a", "b"]), keys(&["b", "a"])));
        assert!(!judged("KEYS *", keys(&["a", "b"]), keys(&["b"])));
        assert!(!judged("KEYS *", keys(&["a", "b"]), keys(&["b", "b"])));
        assert!(!judged("MGET a b", keys(&["a", "b"]), keys(&["b", "a"])));
        assert!(!judged("RANDOMKEY", Reply::bulk("a"), Reply::NullBulk));
        assert!(judged("DBSIZE", Reply::Integer(4), Reply::Integer(3)));
        assert!(!judged("DBSIZE", Reply::Integer(5), Reply::Integer(3)));
    }
}
