//! From arguments to a typed request.
//!
//! Place in the flow: step 2 (decode), second half. What is wrong with a request is found here, in the order in which
//! Redis finds it, so that a client gets the same error.
//!
//! | file | commands |
//! |---|---|
//! | `mod` | looking the command up, what all of them share |
//! | `strings`, `keys`, `connection`, `server` | as in [`super::table`] |
//!
//! Invariants:
//! - Whatever the arguments, the result is a request or an error: nothing here panics.
//! - Pure: `now_us` is the caller's clock. A time relative to now counts from its whole milliseconds, as in Redis, so a
//!   TTL that was just set is never one more than what was asked for.
//!
//! It deliberately does not know the connection: who may ask for what is the caller's to know, who has
//! [`parse_unauthenticated`] for a client that has yet to say who it is.

mod connection;
mod keys;
mod server;
mod strings;
#[cfg(test)]
mod tests;

use super::args::Args;
use super::error::RespError;
use super::request::{Parsed, RespRequest};
use super::table::{lookup, CommandId, CommandSpec, Flags, LOWER_CASE};
use crate::key::slot;
use crate::limits::MAX_KEY_BYTES;
use crate::request::KeyQuery;
use crate::tlv::parse_integer;

const SYNTAX: RespError = RespError::fixed("ERR syntax error");
const NOT_AN_INTEGER: RespError = RespError::fixed("ERR value is not an integer or out of range");
const KEY_TOO_LONG: RespError = RespError::fixed("ERR key is longer than 65536 bytes");
const PATTERN_TOO_LONG: RespError = RespError::fixed("ERR pattern is longer than 1024 bytes");
const CROSS_SLOT: RespError = RespError::fixed("CROSSSLOT Keys in request don't hash to the same slot");
const NOT_AUTHENTICATED: RespError = RespError::fixed("NOAUTH Authentication required.");
const OTHER_DATABASE: RespError = RespError::fixed("ERR DB index is out of range");

/// Most arguments of a command that is not one on many keys. What it does with each of them is done in one turn, and no
/// client has so many options, patterns or names.
pub const PLAIN_ARGUMENTS_MAX: usize = 1024;

/// Most of a client's bytes in an error line.
const QUOTED_BYTES_MAX: usize = 128;

type Outcome<'a> = Result<RespRequest<'a>, RespError>;

/// Reads a request. `now_us` is the wall clock in microseconds since the epoch.
#[inline]
pub fn parse(args: Args<'_>, now_us: i64) -> Result<Parsed<'_>, RespError> {
    // The two that nearly all requests are, before the table is asked.
    if let Some([first, second, third]) = args.get(0) {
        let name = [first | LOWER_CASE, second | LOWER_CASE, third | LOWER_CASE];
        if name == *b"get" && args.len() == 2 {
            let request = RespRequest::Read { key: key(args, 1)?, query: KeyQuery::Value };
            return Ok(Parsed { id: CommandId::Get, request });
        }
        if name == *b"set" && args.len() >= 3 {
            return Ok(Parsed { id: CommandId::Set, request: strings::set(args, now_us)? });
        }
    }
    parse_any(args, now_us)
}

#[inline(never)]
fn parse_any(args: Args<'_>, now_us: i64) -> Result<Parsed<'_>, RespError> {
    let Some(id) = args.get(0).and_then(lookup) else { return Err(unknown_command(args)) };
    if !id.takes(args.len()) {
        return Err(wrong_arity(id.name()));
    }
    if args.len() > PLAIN_ARGUMENTS_MAX && !id.spec().takes_many_keys() {
        return Err(too_many_arguments(id.name()));
    }
    Ok(Parsed { id, request: request(id, args, now_us)? })
}

/// Reads a request of a client that has to say who it is first. As in Redis, a command that does not exist or has a
/// wrong number of arguments is told so before; nothing else is looked at.
#[cold]
pub fn parse_unauthenticated(args: Args<'_>) -> Result<Parsed<'_>, RespError> {
    let Some(id) = args.get(0).and_then(lookup) else { return Err(unknown_command(args)) };
    if !id.takes(args.len()) {
        return Err(wrong_arity(id.name()));
    }
    if args.len() > 1 && !id.spec().subcommands.is_empty() {
        subcommand(id, args)?;
    }
    if !id.spec().flags.has(Flags::NO_AUTH) {
        return Err(NOT_AUTHENTICATED);
    }
    // None of those commands has a time among its arguments.
    Ok(Parsed { id, request: request(id, args, 0)? })
}

fn request(id: CommandId, args: Args<'_>, now_us: i64) -> Outcome<'_> {
    use CommandId as Id;
    match id {
        Id::Get => Ok(RespRequest::Read { key: key(args, 1)?, query: KeyQuery::Value }),
        Id::Set => strings::set(args, now_us),
        Id::SetNx => strings::set_if_absent(args),
        Id::SetEx | Id::PSetEx => strings::set_with_expiry(id, args, now_us),
        Id::GetSet => strings::get_and_set(args),
        Id::GetDel => strings::get_and_delete(args),
        Id::GetEx => strings::get_and_expire(args, now_us),
        Id::MGet => strings::get_each(args),
        Id::MSet | Id::MSetNx => strings::set_each(id, args),
        Id::Append => strings::append(args),
        Id::Incr | Id::Decr | Id::IncrBy | Id::DecrBy => strings::increment(id, args),
        Id::IncrByFloat => strings::increment_float(args),
        Id::GetRange | Id::SubStr => strings::get_range(args),
        Id::SetRange => strings::set_range(args),
        Id::StrLen => read(args, KeyQuery::Length),
        Id::Ttl | Id::PTtl | Id::ExpireTime | Id::PExpireTime => keys::time_to_live(id, args),
        Id::Type => read(args, KeyQuery::Type),
        Id::Del | Id::Unlink => keys::delete(args),
        Id::Exists => keys::count(args, KeyQuery::Exists),
        Id::Touch => keys::count(args, KeyQuery::Touch),
        Id::Expire | Id::PExpire | Id::ExpireAt | Id::PExpireAt => keys::expire(id, args, now_us),
        Id::Persist => keys::persist(args),
        Id::Keys => Ok(RespRequest::Keys { pattern: keys::pattern(args.at(1))? }),
        Id::Scan => keys::scan(args),
        Id::RandomKey => Ok(RespRequest::RandomKey),
        Id::Rename | Id::RenameNx => keys::rename(id, args),
        Id::Copy => keys::copy(args),
        Id::DbSize => Ok(RespRequest::DbSize),
        Id::FlushAll | Id::FlushDb => keys::flush(args),
        Id::Object => keys::object(args),
        Id::Ping => connection::ping(args),
        Id::Echo => Ok(RespRequest::Echo(args.at(1))),
        Id::Hello => connection::hello(args),
        Id::Auth => connection::auth(args),
        Id::Select => connection::select(args),
        Id::Quit => Ok(RespRequest::Quit),
        Id::Reset => Ok(RespRequest::Reset),
        Id::Client => connection::client(args),
        Id::ReadOnly => Ok(RespRequest::ReadOnly),
        Id::ReadWrite => Ok(RespRequest::ReadWrite),
        Id::Info => Ok(RespRequest::Info { sections: args.from(1) }),
        Id::Command => server::command(args),
        Id::Config => server::config(args),
        Id::Memory => server::memory(args),
        Id::SlowLog => server::slow_log(args),
        Id::Latency => server::latency(args),
        Id::Time => Ok(RespRequest::Time),
        Id::Lolwut => server::lolwut(args),
        Id::Save => Ok(RespRequest::Save),
        Id::BgSave => server::background_save(args),
        Id::LastSave => Ok(RespRequest::LastSave),
        Id::Shutdown => server::shutdown(args),
        Id::Cluster => server::cluster(args),
    }
}

/// The key at `index`, which the arity says is there.
#[inline]
fn key(args: Args<'_>, index: usize) -> Result<&[u8], RespError> {
    check_key(args.at(index))
}

#[inline]
fn check_key(key: &[u8]) -> Result<&[u8], RespError> {
    if key.len() <= MAX_KEY_BYTES {
        Ok(key)
    } else {
        Err(KEY_TOO_LONG)
    }
}

/// The keys of a command that changes them together.
fn check_same_slot<'a>(mut keys: impl Iterator<Item = &'a [u8]>) -> Result<(), RespError> {
    let Some(first) = keys.next().map(slot) else { return Ok(()) };
    if keys.all(|key| slot(key) == first) {
        Ok(())
    } else {
        Err(CROSS_SLOT)
    }
}

/// A question about the key at 1.
fn read(args: Args<'_>, query: KeyQuery) -> Outcome<'_> {
    Ok(RespRequest::Read { key: key(args, 1)?, query })
}

#[inline]
fn integer(text: &[u8]) -> Result<i64, RespError> {
    parse_integer(text).ok_or(NOT_AN_INTEGER)
}

/// An integer that Redis keeps in 32 bits.
fn small_integer(text: &[u8]) -> Result<i32, RespError> {
    i32::try_from(integer(text)?)
        .map_err(|_| RespError::fixed("ERR value is out of range, value must between -2147483648 and 2147483647"))
}

/// Whether `text` is `word`, in upper or lower case.
#[inline]
fn is(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

/// `ON` or `OFF`.
fn on_or_off(text: &[u8]) -> Result<bool, RespError> {
    match () {
        () if is(text, "on") => Ok(true),
        () if is(text, "off") => Ok(false),
        () => Err(SYNTAX),
    }
}

/// The subcommand that a request of a command with subcommands means; its arity is checked.
fn subcommand(id: CommandId, args: Args<'_>) -> Result<&'static CommandSpec, RespError> {
    let name = args.at(1);
    let Some(spec) = id.spec().subcommand(name) else {
        let known = id.name().to_uppercase();
        return Err(RespError::text(format!("ERR unknown subcommand '{}'. Try {known} HELP.", quoted(name))));
    };
    if spec.takes(args.len()) {
        Ok(spec)
    } else {
        Err(wrong_arity(spec.name))
    }
}

#[cold]
fn wrong_arity(name: &str) -> RespError {
    RespError::text(format!("ERR wrong number of arguments for '{name}' command"))
}

#[cold]
fn too_many_arguments(name: &str) -> RespError {
    RespError::text(format!("ERR '{name}' command takes at most {PLAIN_ARGUMENTS_MAX} arguments"))
}

#[cold]
fn invalid_expiry(id: CommandId) -> RespError {
    RespError::text(format!("ERR invalid expire time in '{}' command", id.name()))
}

/// As much of a client's bytes as an error line shows.
fn quoted(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_BYTES_MAX)])
}

/// The line of an unknown command. A browser that was led to this port says `POST` or `Host:`: Redis hangs up on it
/// without a word, since what follows is no request either.
#[cold]
#[inline(never)]
fn unknown_command(args: Args<'_>) -> RespError {
    use std::fmt::Write as _;
    let name = args.get(0).unwrap_or_default();
    if is(name, "post") || is(name, "host:") {
        return RespError::protocol("ERR this is not an HTTP server");
    }
    let mut line = format!("ERR unknown command '{}', with args beginning with: ", quoted(name));
    let mut shown = 0;
    for argument in args.from(1).iter() {
        let Some(left @ 1..) = QUOTED_BYTES_MAX.checked_sub(shown) else { break };
        let part = &argument[..argument.len().min(left)];
        shown += part.len() + "'' ".len();
        write!(line, "'{}' ", String::from_utf8_lossy(part)).expect("a String takes everything");
    }
    RespError::text(line)
}
