//! The commands on strings.
//!
//! Place in the flow: step 2 (decode), behind [`super`].
//!
//! Invariant: a time that is computed here never wraps: what Redis refuses is refused, and what does not fit 64 bits
//! of microseconds becomes the end of time.

use super::super::args::Args;
use super::super::error::RespError;
use super::super::number::is_float;
use super::super::request::{Combine, RespRequest, Shape};
use super::super::table::CommandId;
use super::{check_key, check_same_slot, integer, invalid_expiry, is, key, wrong_arity, Outcome, SYNTAX};
use crate::command::{Command, Condition, ExpiryCondition, NewExpiry, Value};
use crate::limits::MAX_VALUE_BYTES;
use crate::request::KeyQuery;

const MS_PER_S: i64 = 1000;
const US_PER_MS: i64 = 1000;

/// How a command says a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeForm {
    pub(super) seconds: bool,
    /// Counted from now, not from the epoch.
    pub(super) relative: bool,
}

impl TimeForm {
    /// The options EX, PX, EXAT and PXAT.
    fn of_option(option: &[u8]) -> Option<Self> {
        match () {
            () if is(option, "ex") => Some(Self { seconds: true, relative: true }),
            () if is(option, "px") => Some(Self { seconds: false, relative: true }),
            () if is(option, "exat") => Some(Self { seconds: true, relative: false }),
            () if is(option, "pxat") => Some(Self { seconds: false, relative: false }),
            () => None,
        }
    }

    /// The absolute time in milliseconds that `number` says; `None` if it does not fit.
    pub(super) fn to_ms(self, number: i64, now_us: i64) -> Option<i64> {
        let ms = if self.seconds { number.checked_mul(MS_PER_S)? } else { number };
        if self.relative {
            ms.checked_add(now_us.div_euclid(US_PER_MS))
        } else {
            Some(ms)
        }
    }

    /// The time that a new expiry's text says, in microseconds. It must be above zero.
    fn new_expiry(self, id: CommandId, text: &[u8], now_us: i64) -> Result<i64, RespError> {
        let number = integer(text)?;
        match self.to_ms(number, now_us) {
            Some(at_ms @ 1..) if number > 0 => Ok(us(at_ms)),
            _ => Err(invalid_expiry(id)),
        }
    }
}

/// Milliseconds in microseconds. What is later than 64 bits can say is the end of time: the year 294,246.
pub(super) fn us(ms: i64) -> i64 {
    ms.saturating_mul(US_PER_MS)
}

fn write(command: Command<'_>) -> RespRequest<'_> {
    RespRequest::Write { command, shape: Shape::Status }
}

/// SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
#[inline]
pub(super) fn set(args: Args<'_>, now_us: i64) -> Outcome<'_> {
    let (key, value) = (key(args, 1)?, Value::Bytes(args.at(2)));
    let options = if args.len() == 3 { SetOptions::default() } else { SetOptions::parse(args.from(3), now_us)? };
    let SetOptions { condition, return_old, expiry } = options;
    Ok(write(Command::Set { key, value, expiry, condition, return_old }))
}

#[derive(Default)]
struct SetOptions {
    condition: Condition,
    return_old: bool,
    expiry: NewExpiry,
}

impl SetOptions {
    /// All options are looked at before a time is: an unknown one behind a wrong time is a syntax error.
    #[inline(never)]
    fn parse(options: Args<'_>, now_us: i64) -> Result<Self, RespError> {
        let mut parsed = Self::default();
        let mut time: Option<(TimeForm, &[u8])> = None;
        let mut at = 0;
        while let Some(option) = options.get(at) {
            at += 1;
            if is(option, "nx") && parsed.condition != Condition::IfPresent {
                parsed.condition = Condition::IfAbsent;
            } else if is(option, "xx") && parsed.condition != Condition::IfAbsent {
                parsed.condition = Condition::IfPresent;
            } else if is(option, "get") {
                parsed.return_old = true;
            } else if is(option, "keepttl") && time.is_none() {
                parsed.expiry = NewExpiry::Keep;
            } else if let (Some(form), Some(number)) = (TimeForm::of_option(option), options.get(at)) {
                if parsed.expiry == NewExpiry::Keep || time.is_some_and(|(other, _)| other != form) {
                    return Err(SYNTAX);
                }
                time = Some((form, number));
                at += 1;
            } else {
                return Err(SYNTAX);
            }
        }
        if let Some((form, number)) = time {
            parsed.expiry = NewExpiry::At(form.new_expiry(CommandId::Set, number, now_us)?);
        }
        Ok(parsed)
    }
}

/// SETNX key value
pub(super) fn set_if_absent(args: Args<'_>) -> Outcome<'_> {
    Ok(set_one_if_absent(key(args, 1)?, args.at(2)))
}

fn set_one_if_absent<'a>(key: &'a [u8], value: &'a [u8]) -> RespRequest<'a> {
    let (value, condition) = (Value::Bytes(value), Condition::IfAbsent);
    let command = Command::Set { key, value, expiry: NewExpiry::Never, condition, return_old: false };
    RespRequest::Write { command, shape: Shape::Flag }
}

/// SETEX key seconds value, PSETEX key milliseconds value
pub(super) fn set_with_expiry(id: CommandId, args: Args<'_>, now_us: i64) -> Outcome<'_> {
    let form = TimeForm { seconds: id == CommandId::SetEx, relative: true };
    let expiry = NewExpiry::At(form.new_expiry(id, args.at(2), now_us)?);
    let (key, value) = (key(args, 1)?, Value::Bytes(args.at(3)));
    Ok(write(Command::Set { key, value, expiry, condition: Condition::Always, return_old: false }))
}

/// GETSET key value
pub(super) fn get_and_set(args: Args<'_>) -> Outcome<'_> {
    let (key, value) = (key(args, 1)?, Value::Bytes(args.at(2)));
    let (expiry, condition) = (NewExpiry::Never, Condition::Always);
    Ok(write(Command::Set { key, value, expiry, condition, return_old: true }))
}

/// GETDEL key
pub(super) fn get_and_delete(args: Args<'_>) -> Outcome<'_> {
    Ok(write(Command::TakeOut { key: key(args, 1)? }))
}

/// GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]
pub(super) fn get_and_expire(args: Args<'_>, now_us: i64) -> Outcome<'_> {
    let options = args.from(2);
    let (mut time, mut persist): (Option<(TimeForm, &[u8])>, bool) = (None, false);
    let mut at = 0;
    while let Some(option) = options.get(at) {
        at += 1;
        if is(option, "persist") && time.is_none() {
            persist = true;
        } else if let (Some(form), Some(number)) = (TimeForm::of_option(option), options.get(at)) {
            if persist || time.is_some_and(|(other, _)| other != form) {
                return Err(SYNTAX);
            }
            time = Some((form, number));
            at += 1;
        } else {
            return Err(SYNTAX);
        }
    }
    let at_us = match time {
        Some((form, number)) => Some(form.new_expiry(CommandId::GetEx, number, now_us)?),
        None => None,
    };
    let key = key(args, 1)?;
    if at_us.is_none() && !persist {
        return Ok(RespRequest::Read { key, query: KeyQuery::Value });
    }
    Ok(write(Command::SetExpiry { key, at_us, condition: ExpiryCondition::Always, return_value: true }))
}

/// MGET key...
pub(super) fn get_each(args: Args<'_>) -> Outcome<'_> {
    let keys = args.from(1);
    keys.iter().try_for_each(|key| check_key(key).map(drop))?;
    Ok(RespRequest::ReadEach { keys, query: KeyQuery::Value, combine: Combine::Array })
}

/// MSET key value..., MSETNX key value...
pub(super) fn set_each(id: CommandId, args: Args<'_>) -> Outcome<'_> {
    let pairs = args.from(1);
    if !pairs.len().is_multiple_of(2) {
        return Err(wrong_arity(id.name()));
    }
    let mut keys = pairs.pairs().map(|(key, _)| key);
    keys.clone().try_for_each(|key| check_key(key).map(drop))?;
    if id == CommandId::MSet {
        return Ok(RespRequest::SetEach { pairs });
    }
    if pairs.len() == 2 {
        return Ok(set_one_if_absent(pairs.at(0), pairs.at(1)));
    }
    check_same_slot(&mut keys)?;
    Ok(RespRequest::SetAllIfAbsent { pairs })
}

/// APPEND key bytes
pub(super) fn append(args: Args<'_>) -> Outcome<'_> {
    // How long it may become is the server's to say.
    Ok(write(Command::Append { key: key(args, 1)?, bytes: args.at(2), length_max: None }))
}

/// INCR key, DECR key, INCRBY key number, DECRBY key number
pub(super) fn increment(id: CommandId, args: Args<'_>) -> Outcome<'_> {
    let by = match id {
        CommandId::Incr => 1,
        CommandId::Decr => -1,
        CommandId::DecrBy => {
            integer(args.at(2))?.checked_neg().ok_or(RespError::fixed("ERR decrement would overflow"))?
        }
        _ => integer(args.at(2))?,
    };
    Ok(write(Command::Increment { key: key(args, 1)?, by }))
}

/// INCRBYFLOAT key number
pub(super) fn increment_float(args: Args<'_>) -> Outcome<'_> {
    let by = args.at(2);
    if !is_float(by) {
        return Err(RespError::fixed("ERR value is not a valid float"));
    }
    Ok(write(Command::IncrementFloat { key: key(args, 1)?, by }))
}

/// GETRANGE key start end, SUBSTR key start end
pub(super) fn get_range(args: Args<'_>) -> Outcome<'_> {
    let query = KeyQuery::Range { start: integer(args.at(2))?, end: integer(args.at(3))? };
    Ok(RespRequest::Read { key: key(args, 1)?, query })
}

/// SETRANGE key offset bytes. Without bytes it changes nothing and tells the length.
pub(super) fn set_range(args: Args<'_>) -> Outcome<'_> {
    let offset = integer(args.at(2))?;
    let offset = usize::try_from(offset).map_err(|_| RespError::fixed("ERR offset is out of range"))?;
    let (key, bytes) = (key(args, 1)?, args.at(3));
    if bytes.is_empty() {
        return Ok(RespRequest::Read { key, query: KeyQuery::Length });
    }
    match u32::try_from(offset) {
        Ok(offset) if offset as usize + bytes.len() <= MAX_VALUE_BYTES => {
            Ok(write(Command::SetRange { key, offset, bytes }))
        }
        _ => Err(RespError::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)")),
    }
}
