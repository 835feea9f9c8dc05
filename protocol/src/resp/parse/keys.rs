//! The commands on keys, whatever they hold.
//!
//! Place in the flow: step 2 (decode), behind [`super`].
//!
//! Invariant: commands on one key become requests on one key, also where Redis's command takes several.

use super::super::args::Args;
use super::super::error::RespError;
use super::super::glob::MAX_PATTERN_BYTES;
use super::super::number::parse_cursor;
use super::super::request::{Combine, RespRequest, ScanRequest, Shape, TypeFilter};
use super::super::table::CommandId;
use super::strings::{us, TimeForm};
use super::{
    check_key, check_same_slot, integer, invalid_expiry, is, key, quoted, small_integer, subcommand, Outcome,
    OTHER_DATABASE, PATTERN_TOO_LONG, SYNTAX,
};
use crate::command::{Command, ExpiryCondition};
use crate::request::KeyQuery;

/// How much SCAN looks at if it is not told.
const SCAN_COUNT: u64 = 10;

fn flag(command: Command<'_>) -> RespRequest<'_> {
    RespRequest::Write { command, shape: Shape::Flag }
}

/// The keys from 1 on.
fn all_keys(args: Args<'_>) -> Result<Args<'_>, RespError> {
    let keys = args.from(1);
    keys.iter().try_for_each(|key| check_key(key).map(drop))?;
    Ok(keys)
}

/// DEL key..., UNLINK key...
pub(super) fn delete(args: Args<'_>) -> Outcome<'_> {
    let keys = all_keys(args)?;
    Ok(match keys.len() {
        1 => flag(Command::Delete { key: keys.at(0) }),
        _ => RespRequest::DeleteEach { keys },
    })
}

/// EXISTS key..., TOUCH key...
pub(super) fn count(args: Args<'_>, query: KeyQuery) -> Outcome<'_> {
    let keys = all_keys(args)?;
    Ok(match keys.len() {
        1 => RespRequest::Read { key: keys.at(0), query },
        _ => RespRequest::ReadEach { keys, query, combine: Combine::Sum },
    })
}

/// TTL key, PTTL key, EXPIRETIME key, PEXPIRETIME key
pub(super) fn time_to_live(id: CommandId, args: Args<'_>) -> Outcome<'_> {
    let milliseconds = matches!(id, CommandId::PTtl | CommandId::PExpireTime);
    let absolute = matches!(id, CommandId::ExpireTime | CommandId::PExpireTime);
    Ok(RespRequest::Read { key: key(args, 1)?, query: KeyQuery::TimeToLive { milliseconds, absolute } })
}

/// EXPIRE key time [NX | XX | GT | LT], and the same for PEXPIRE, EXPIREAT and PEXPIREAT
pub(super) fn expire(id: CommandId, args: Args<'_>, now_us: i64) -> Outcome<'_> {
    let condition = expiry_condition(args.from(3))?;
    let form = TimeForm {
        seconds: matches!(id, CommandId::Expire | CommandId::ExpireAt),
        relative: matches!(id, CommandId::Expire | CommandId::PExpire),
    };
    let at_ms = form.to_ms(integer(args.at(2))?, now_us).ok_or_else(|| invalid_expiry(id))?;
    Ok(flag(Command::SetExpiry { key: key(args, 1)?, at_us: Some(us(at_ms)), condition, return_value: false }))
}

fn expiry_condition(options: Args<'_>) -> Result<ExpiryCondition, RespError> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in options.iter() {
        match () {
            () if is(option, "nx") => nx = true,
            () if is(option, "xx") => xx = true,
            () if is(option, "gt") => gt = true,
            () if is(option, "lt") => lt = true,
            () => return Err(RespError::text(format!("ERR Unsupported option {}", quoted(option)))),
        }
    }
    if nx && (xx || gt || lt) {
        return Err(RespError::fixed("ERR NX and XX, GT or LT options at the same time are not compatible"));
    }
    if gt && lt {
        return Err(RespError::fixed("ERR GT and LT options at the same time are not compatible"));
    }
    Ok(match () {
        () if nx => ExpiryCondition::IfNone,
        // No expiry counts as the latest, so a later one is possible only where there is one: XX adds nothing to GT.
        () if gt => ExpiryCondition::IfLater,
        () if lt && xx => ExpiryCondition::IfAnySooner,
        () if lt => ExpiryCondition::IfSooner,
        () if xx => ExpiryCondition::IfAny,
        () => ExpiryCondition::Always,
    })
}

/// PERSIST key
pub(super) fn persist(args: Args<'_>) -> Outcome<'_> {
    let condition = ExpiryCondition::Always;
    Ok(flag(Command::SetExpiry { key: key(args, 1)?, at_us: None, condition, return_value: false }))
}

/// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]
pub(super) fn scan(args: Args<'_>) -> Outcome<'_> {
    let cursor = parse_cursor(args.at(1)).ok_or(RespError::fixed("ERR invalid cursor"))?;
    let mut scan = ScanRequest { cursor, pattern: None, count: SCAN_COUNT, filter: TypeFilter::Any };
    let options = args.from(2);
    for (option, value) in options.pairs() {
        if is(option, "match") {
            scan.pattern = Some(pattern(value)?);
        } else if is(option, "count") {
            scan.count = u64::try_from(integer(value)?).ok().filter(|count| *count > 0).ok_or(SYNTAX)?;
        } else if is(option, "type") {
            scan.filter = type_filter(value);
        } else {
            return Err(SYNTAX);
        }
    }
    if options.len().is_multiple_of(2) {
        Ok(RespRequest::Scan(scan))
    } else {
        Err(SYNTAX)
    }
}

/// A pattern of keys.
pub(super) fn pattern(pattern: &[u8]) -> Result<&[u8], RespError> {
    if pattern.len() <= MAX_PATTERN_BYTES {
        Ok(pattern)
    } else {
        Err(PATTERN_TOO_LONG)
    }
}

fn type_filter(name: &[u8]) -> TypeFilter {
    match () {
        () if is(name, "string") => TypeFilter::String,
        () if is(name, "list") => TypeFilter::List,
        () if is(name, "hash") => TypeFilter::Hash,
        () => TypeFilter::Nothing,
    }
}

/// RENAME key newkey, RENAMENX key newkey
pub(super) fn rename(id: CommandId, args: Args<'_>) -> Outcome<'_> {
    let (from, to) = (key(args, 1)?, key(args, 2)?);
    check_same_slot([from, to].into_iter())?;
    let if_absent = id == CommandId::RenameNx;
    let shape = if if_absent { Shape::Flag } else { Shape::Status };
    Ok(RespRequest::Write { command: Command::Rename { from, to, if_absent }, shape })
}

/// COPY key newkey [DB number] [REPLACE]
pub(super) fn copy(args: Args<'_>) -> Outcome<'_> {
    let (from, to) = (key(args, 1)?, key(args, 2)?);
    let options = args.from(3);
    let (mut at, mut replace) = (0, false);
    while let Some(option) = options.get(at) {
        at += 1;
        if is(option, "replace") {
            replace = true;
        } else if let (true, Some(number)) = (is(option, "db"), options.get(at)) {
            if small_integer(number)? != 0 {
                return Err(OTHER_DATABASE);
            }
            at += 1;
        } else {
            return Err(SYNTAX);
        }
    }
    if from == to {
        return Err(RespError::fixed("ERR source and destination objects are the same"));
    }
    check_same_slot([from, to].into_iter())?;
    Ok(flag(Command::Copy { from, to, replace }))
}

/// FLUSHALL [ASYNC | SYNC], FLUSHDB [ASYNC | SYNC]
pub(super) fn flush(args: Args<'_>) -> Outcome<'_> {
    match args.get(1) {
        None => Ok(RespRequest::Flush),
        Some(mode) if args.len() == 2 && (is(mode, "async") || is(mode, "sync")) => Ok(RespRequest::Flush),
        Some(_) => Err(SYNTAX),
    }
}

/// OBJECT ENCODING | FREQ | IDLETIME key
pub(super) fn object(args: Args<'_>) -> Outcome<'_> {
    let query = match subcommand(CommandId::Object, args)?.short_name() {
        "encoding" => KeyQuery::Encoding,
        "freq" => KeyQuery::Frequency,
        "idletime" => KeyQuery::IdleTime,
        _ => return Ok(RespRequest::Help),
    };
    Ok(RespRequest::Read { key: key(args, 2)?, query })
}
