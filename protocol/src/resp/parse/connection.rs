//! The commands on connections.
//!
//! Place in the flow: step 2 (decode), behind [`super`].
//!
//! Invariant: a name that is accepted has no space and no line break, so it can stand in a line of CLIENT LIST.

use super::super::args::Args;
use super::super::error::RespError;
use super::super::request::{
    ClientCommand, ClientFilter, ClientType, Credentials, HelloRequest, KillFilter, LibraryInfo, ReplyMode, RespRequest,
};
use super::super::table::CommandId;
use super::super::writer::RespVersion;
use super::{is, on_or_off, quoted, small_integer, subcommand, wrong_arity, Outcome, OTHER_DATABASE, SYNTAX};
use crate::tlv::parse_integer;

/// PING [bytes]
pub(super) fn ping(args: Args<'_>) -> Outcome<'_> {
    if args.len() > 2 {
        return Err(wrong_arity(CommandId::Ping.name()));
    }
    Ok(RespRequest::Ping(args.get(1)))
}

/// HELLO [version [AUTH user password] [SETNAME name]]
pub(super) fn hello(args: Args<'_>) -> Outcome<'_> {
    let mut hello = HelloRequest::default();
    let Some(version) = args.get(1) else { return Ok(RespRequest::Hello(hello)) };
    hello.version = Some(match parse_integer(version) {
        Some(2) => RespVersion::Two,
        Some(3) => RespVersion::Three,
        Some(_) => return Err(RespError::fixed("NOPROTO unsupported protocol version")),
        None => return Err(RespError::fixed("ERR Protocol version is not an integer or out of range")),
    });
    let options = args.from(2);
    let mut at = 0;
    while let Some(option) = options.get(at) {
        let (first, second) = (options.get(at + 1), options.get(at + 2));
        if let (true, Some(user), Some(password)) = (is(option, "auth"), first, second) {
            hello.auth = Some(Credentials { user: Some(user), password });
            at += 3;
        } else if let (true, Some(name)) = (is(option, "setname"), first) {
            hello.name = Some(client_name(name)?);
            at += 2;
        } else {
            return Err(RespError::text(format!("ERR Syntax error in HELLO option '{}'", quoted(option))));
        }
    }
    Ok(RespRequest::Hello(hello))
}

/// AUTH [user] password
pub(super) fn auth(args: Args<'_>) -> Outcome<'_> {
    match args.len() {
        2 => Ok(RespRequest::Auth(Credentials { user: None, password: args.at(1) })),
        3 => Ok(RespRequest::Auth(Credentials { user: Some(args.at(1)), password: args.at(2) })),
        _ => Err(SYNTAX),
    }
}

/// SELECT 0
pub(super) fn select(args: Args<'_>) -> Outcome<'_> {
    match small_integer(args.at(1))? {
        0 => Ok(RespRequest::Select),
        _ => Err(OTHER_DATABASE),
    }
}

/// CLIENT
pub(super) fn client(args: Args<'_>) -> Outcome<'_> {
    Ok(RespRequest::Client(match subcommand(CommandId::Client, args)?.short_name() {
        "id" => ClientCommand::Id,
        "getname" => ClientCommand::GetName,
        "setname" => ClientCommand::SetName(client_name(args.at(2))?),
        "setinfo" => set_info(args)?,
        "info" => ClientCommand::Info,
        "list" => ClientCommand::List(client_filter(args.from(2))?),
        "kill" if args.len() == 3 => ClientCommand::KillAddress(args.at(2)),
        "kill" => ClientCommand::Kill(kill_filter(args.from(2))?),
        "no-evict" => ClientCommand::NoEvict(on_or_off(args.at(2))?),
        "reply" if is(args.at(2), "skip") => ClientCommand::Reply(ReplyMode::Skip),
        "reply" if on_or_off(args.at(2))? => ClientCommand::Reply(ReplyMode::On),
        "reply" => ClientCommand::Reply(ReplyMode::Off),
        _ => return Ok(RespRequest::Help),
    }))
}

/// Longest name of a client, of its library and of that library's version, in bytes: each connection keeps them, each
/// line of CLIENT LIST and each entry of the slow log repeats them.
pub const CLIENT_NAME_BYTES_MAX: usize = 256;

fn is_one_word(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

fn client_name(name: &[u8]) -> Result<&[u8], RespError> {
    if name.len() > CLIENT_NAME_BYTES_MAX {
        Err(RespError::fixed("ERR Client names cannot be longer than 256 bytes."))
    } else if is_one_word(name) {
        Ok(name)
    } else {
        Err(RespError::fixed("ERR Client names cannot contain spaces, newlines or special characters."))
    }
}

fn set_info(args: Args<'_>) -> Result<ClientCommand<'_>, RespError> {
    let (option, value) = (args.at(2), args.at(3));
    let what = match () {
        () if is(option, "lib-name") => LibraryInfo::Name,
        () if is(option, "lib-ver") => LibraryInfo::Version,
        () => return Err(RespError::text(format!("ERR Unrecognized option '{}'", quoted(option)))),
    };
    let option = quoted(option);
    if value.len() > CLIENT_NAME_BYTES_MAX {
        return Err(RespError::text(format!("ERR {option} cannot be longer than {CLIENT_NAME_BYTES_MAX} bytes.")));
    }
    if is_one_word(value) {
        return Ok(ClientCommand::SetInfo { what, value });
    }
    Err(RespError::text(format!("ERR {option} cannot contain spaces, newlines or special characters.")))
}

fn client_type(name: &[u8]) -> Result<ClientType, RespError> {
    match () {
        () if is(name, "normal") => Ok(ClientType::Normal),
        () if is(name, "master") => Ok(ClientType::Master),
        () if is(name, "replica") || is(name, "slave") => Ok(ClientType::Replica),
        () if is(name, "pubsub") => Ok(ClientType::PubSub),
        () => Err(RespError::text(format!("ERR Unknown client type '{}'", quoted(name)))),
    }
}

/// [TYPE type] or [ID id...]
fn client_filter(options: Args<'_>) -> Result<ClientFilter<'_>, RespError> {
    let mut filter = ClientFilter { client_type: None, id_texts: None };
    let Some(option) = options.get(0) else { return Ok(filter) };
    if is(option, "type") && options.len() == 2 {
        filter.client_type = Some(client_type(options.at(1))?);
        return Ok(filter);
    }
    if !is(option, "id") || options.len() < 2 {
        return Err(SYNTAX);
    }
    let ids = options.from(1);
    if !ids.iter().all(|text| parse_integer(text).is_some()) {
        return Err(RespError::fixed("ERR Invalid client ID"));
    }
    filter.id_texts = Some(ids);
    Ok(filter)
}

fn kill_filter(options: Args<'_>) -> Result<KillFilter<'_>, RespError> {
    let mut filter =
        KillFilter { id: None, client_type: None, address: None, local_address: None, user: None, skip_me: true };
    for (option, value) in options.pairs() {
        match () {
            () if is(option, "id") => {
                let id = parse_integer(value).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
                filter.id = Some(id.ok_or(RespError::fixed("ERR client-id should be greater than 0"))?);
            }
            () if is(option, "type") => filter.client_type = Some(client_type(value)?),
            () if is(option, "addr") => filter.address = Some(value),
            () if is(option, "laddr") => filter.local_address = Some(value),
            () if is(option, "user") => filter.user = Some(value),
            () if is(option, "skipme") && is(value, "yes") => filter.skip_me = true,
            () if is(option, "skipme") && is(value, "no") => filter.skip_me = false,
            () => return Err(SYNTAX),
        }
    }
    if options.len().is_multiple_of(2) {
        Ok(filter)
    } else {
        Err(SYNTAX)
    }
}
