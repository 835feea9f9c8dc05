//! The commands on the server and on routing.
//!
//! Place in the flow: step 2 (decode), behind [`super`].
//!
//! It deliberately does not know which settings and sections there are: CONFIG and INFO are checked by the server.

use super::super::args::Args;
use super::super::error::RespError;
use super::super::request::{
    ClusterCommand, CommandCommand, ConfigCommand, LatencyCommand, ListFilter, MemoryCommand, RespRequest,
    ShutdownRequest, SlowLogCommand,
};
use super::super::table::CommandId;
use super::{check_key, integer, is, subcommand, Outcome, SYNTAX};
use crate::key::SLOT_COUNT;
use crate::request::KeyQuery;
use crate::tlv::parse_integer;

/// How many entries SLOWLOG GET lists if it is not told.
const SLOWLOG_COUNT: u64 = 10;

/// COMMAND
pub(super) fn command(args: Args<'_>) -> Outcome<'_> {
    if args.len() == 1 {
        return Ok(RespRequest::Command(CommandCommand::All));
    }
    let rest = args.from(2);
    Ok(RespRequest::Command(match subcommand(CommandId::Command, args)?.short_name() {
        "count" => CommandCommand::Count,
        "info" => CommandCommand::Info(rest),
        "docs" => CommandCommand::Docs(rest),
        "list" => CommandCommand::List(list_filter(rest)?),
        "getkeys" => CommandCommand::GetKeys(rest),
        "getkeysandflags" => CommandCommand::GetKeysAndFlags(rest),
        _ => return Ok(RespRequest::Help),
    }))
}

/// [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]
fn list_filter(options: Args<'_>) -> Result<ListFilter<'_>, RespError> {
    match (options.len(), options.get(0), options.get(1), options.get(2)) {
        (0, ..) => Ok(ListFilter::All),
        (3, Some(filter), Some(what), Some(value)) if is(filter, "filterby") => match () {
            () if is(what, "module") => Ok(ListFilter::Module),
            () if is(what, "aclcat") => Ok(ListFilter::Category(value)),
            () if is(what, "pattern") => Ok(ListFilter::Pattern(value)),
            () => Err(SYNTAX),
        },
        _ => Err(SYNTAX),
    }
}

/// CONFIG
pub(super) fn config(args: Args<'_>) -> Outcome<'_> {
    let spec = subcommand(CommandId::Config, args)?;
    let rest = args.from(2);
    Ok(RespRequest::Config(match spec.short_name() {
        "get" => ConfigCommand::Get(rest),
        "set" if rest.len().is_multiple_of(2) => ConfigCommand::Set(rest),
        "set" => return Err(SYNTAX),
        "resetstat" => ConfigCommand::ResetStat,
        "rewrite" => ConfigCommand::Rewrite,
        _ => return Ok(RespRequest::Help),
    }))
}

/// MEMORY
pub(super) fn memory(args: Args<'_>) -> Outcome<'_> {
    match subcommand(CommandId::Memory, args)?.short_name() {
        "usage" => memory_usage(args),
        "doctor" => Ok(RespRequest::Memory(MemoryCommand::Doctor)),
        "stats" => Ok(RespRequest::Memory(MemoryCommand::Stats)),
        _ => Ok(RespRequest::Help),
    }
}

/// MEMORY USAGE key [SAMPLES count]: a value's memory is known whole, so the count is only checked.
fn memory_usage(args: Args<'_>) -> Outcome<'_> {
    let options = args.from(3);
    for (option, count) in options.pairs() {
        if !is(option, "samples") || integer(count)? < 0 {
            return Err(SYNTAX);
        }
    }
    if !options.len().is_multiple_of(2) {
        return Err(SYNTAX);
    }
    Ok(RespRequest::Read { key: check_key(args.at(2))?, query: KeyQuery::MemoryUsage })
}

/// SLOWLOG
pub(super) fn slow_log(args: Args<'_>) -> Outcome<'_> {
    Ok(RespRequest::SlowLog(match subcommand(CommandId::SlowLog, args)?.short_name() {
        "get" => SlowLogCommand::Get(slow_log_count(args)?),
        "len" => SlowLogCommand::Len,
        "reset" => SlowLogCommand::Reset,
        _ => return Ok(RespRequest::Help),
    }))
}

fn slow_log_count(args: Args<'_>) -> Result<Option<u64>, RespError> {
    let Some(text) = args.get(2) else { return Ok(Some(SLOWLOG_COUNT)) };
    if args.len() > 3 {
        let name = super::quoted(args.at(1));
        return Err(RespError::text(format!(
            "ERR unknown subcommand or wrong number of arguments for '{name}'. Try SLOWLOG HELP."
        )));
    }
    match parse_integer(text) {
        Some(-1) => Ok(None),
        Some(count @ 0..) => Ok(Some(count as u64)),
        _ => Err(RespError::fixed("ERR count should be greater than or equal to -1")),
    }
}

/// LATENCY
pub(super) fn latency(args: Args<'_>) -> Outcome<'_> {
    let spec = subcommand(CommandId::Latency, args)?;
    Ok(RespRequest::Latency(match spec.short_name() {
        "latest" => LatencyCommand::Latest,
        "history" => LatencyCommand::History(args.at(2)),
        "graph" => LatencyCommand::Graph(args.at(2)),
        "reset" => LatencyCommand::Reset(args.from(2)),
        "doctor" => LatencyCommand::Doctor,
        "histogram" => LatencyCommand::Histogram(args.from(2)),
        _ => return Ok(RespRequest::Help),
    }))
}

/// LOLWUT [VERSION version] and the numbers that that version's picture takes, which must be numbers and are not drawn.
pub(super) fn lolwut(args: Args<'_>) -> Outcome<'_> {
    let version = match (args.get(1), args.get(2)) {
        (Some(option), Some(version)) if is(option, "version") => Some(integer(version)?),
        _ => None,
    };
    // Columns and squares, each way; columns and rows.
    let numbers = match version {
        Some(5) => 3,
        Some(6) => 2,
        _ => 0,
    };
    for number in (3..3 + numbers).map_while(|at| args.get(at)) {
        integer(number)?;
    }
    Ok(RespRequest::Lolwut { version })
}

/// BGSAVE [SCHEDULE]
pub(super) fn background_save(args: Args<'_>) -> Outcome<'_> {
    match args.len() {
        1 => Ok(RespRequest::BackgroundSave { schedule: false }),
        2 if is(args.at(1), "schedule") => Ok(RespRequest::BackgroundSave { schedule: true }),
        _ => Err(SYNTAX),
    }
}

/// SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]
pub(super) fn shutdown(args: Args<'_>) -> Outcome<'_> {
    let mut shutdown = ShutdownRequest::default();
    for option in args.from(1).iter() {
        match () {
            () if is(option, "nosave") && shutdown.save != Some(true) => shutdown.save = Some(false),
            () if is(option, "save") && shutdown.save != Some(false) => shutdown.save = Some(true),
            () if is(option, "now") => shutdown.now = true,
            () if is(option, "force") => shutdown.force = true,
            () if is(option, "abort") => shutdown.abort = true,
            () => return Err(SYNTAX),
        }
    }
    let alone = ShutdownRequest { abort: true, ..ShutdownRequest::default() };
    if shutdown.abort && shutdown != alone {
        return Err(SYNTAX);
    }
    Ok(RespRequest::Shutdown(shutdown))
}

/// CLUSTER
pub(super) fn cluster(args: Args<'_>) -> Outcome<'_> {
    Ok(RespRequest::Cluster(match subcommand(CommandId::Cluster, args)?.short_name() {
        "slots" => ClusterCommand::Slots,
        "shards" => ClusterCommand::Shards,
        "nodes" => ClusterCommand::Nodes,
        "myid" => ClusterCommand::MyId,
        "info" => ClusterCommand::Info,
        "keyslot" => ClusterCommand::KeySlot(args.at(2)),
        "countkeysinslot" => {
            let slot = slot(integer(args.at(2))?).ok_or(RespError::fixed("ERR Invalid slot"))?;
            ClusterCommand::CountKeysInSlot(slot)
        }
        "getkeysinslot" => {
            let (number, count) = (integer(args.at(2))?, integer(args.at(3))?);
            match (slot(number), u64::try_from(count)) {
                (Some(slot), Ok(count)) => ClusterCommand::GetKeysInSlot { slot, count },
                _ => return Err(RespError::fixed("ERR Invalid slot or number of keys")),
            }
        }
        _ => return Ok(RespRequest::Help),
    }))
}

fn slot(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|slot| usize::from(*slot) < SLOT_COUNT)
}
