//! Replies of COMMAND and of HELP, written from the table.
//!
//! Place in the flow: step 9 (reply) of those commands. They need nothing of the server but the table.
//!
//! Invariant: the form is that of Redis 7.0, in both versions of RESP. Of a command's documentation the arguments and
//! the history are left out.

use super::args::Args;
use super::glob::{matches_ignoring_case, PATTERN_STEPS_MAX};
use super::request::{CommandCommand, ListFilter};
use super::table::{lookup, Categories, CommandId, CommandSpec, KeyFlags, KeySpec, COMMANDS, COMMAND_COUNT};
use super::writer::Writer;

/// Longest reply to COMMAND INFO and COMMAND DOCS of named commands, in bytes: it is written in one turn, and a name of
/// a few bytes may stand for several KiB. All commands, each once, take less.
pub const DESCRIPTION_BYTES_MAX: usize = 1 << 20;
/// Elements of one command's description.
const INFO_ELEMENTS: usize = 10;

/// Writes the reply of COMMAND and its subcommands.
pub fn put_command(writer: &mut Writer<'_>, command: &CommandCommand<'_>) {
    match *command {
        CommandCommand::All => put_all_infos(writer),
        CommandCommand::Count => writer.integer(COMMAND_COUNT as i64),
        CommandCommand::Info(names) if names.is_empty() => put_all_infos(writer),
        CommandCommand::Info(names) => put_infos(writer, names),
        CommandCommand::Docs(names) => put_docs(writer, names),
        CommandCommand::List(filter) => put_list(writer, filter),
        CommandCommand::GetKeys(request) => put_keys(writer, request, false),
        CommandCommand::GetKeysAndFlags(request) => put_keys(writer, request, true),
    }
}

/// Writes the reply of a container's subcommand HELP: what each subcommand does.
pub fn put_help(writer: &mut Writer<'_>, id: CommandId) {
    let spec = id.spec();
    writer.array(1 + 2 * spec.subcommands.len());
    writer.status(&format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", spec.name.to_uppercase()));
    let (help, others): (Vec<_>, Vec<_>) = spec.subcommands.iter().partition(|sub| sub.short_name() == "help");
    for sub in others.into_iter().chain(help) {
        let name = sub.short_name().to_uppercase();
        let space = if sub.syntax.is_empty() { "" } else { " " };
        writer.status(&format!("{name}{space}{}", sub.syntax));
        writer.status(&format!("    {}", sub.summary));
    }
}

/// The command with this name, or the subcommand with this name and its container's: `client|list`.
fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    match name.iter().position(|byte| *byte == b'|') {
        None => lookup(name).map(CommandId::spec),
        Some(bar) => lookup(&name[..bar])?.spec().subcommand(&name[bar + 1..]),
    }
}

fn put_all_infos(writer: &mut Writer<'_>) {
    writer.array(COMMANDS.len());
    for spec in &COMMANDS {
        put_info(writer, spec);
    }
}

fn put_infos(writer: &mut Writer<'_>, names: Args<'_>) {
    let start = writer.out.len();
    writer.array(names.len());
    for name in names.iter() {
        match find(name) {
            Some(spec) => put_info(writer, spec),
            None => writer.null(),
        }
        if writer.out.len() - start > DESCRIPTION_BYTES_MAX {
            return refuse_long(writer, start);
        }
    }
}

/// Takes back what was written from `start` on, and says so.
fn refuse_long(writer: &mut Writer<'_>, start: usize) {
    writer.out.truncate(start);
    writer.error("ERR the reply would be longer than 1 MiB; ask for fewer commands at once");
}

fn put_info(writer: &mut Writer<'_>, spec: &CommandSpec) {
    writer.array(INFO_ELEMENTS);
    writer.bulk_text(spec.name);
    writer.integer(i64::from(spec.arity));
    put_words(writer, spec.flags.names());
    writer.integer(spec.first_key());
    writer.integer(spec.last_key());
    writer.integer(spec.key_step());
    let categories = spec.categories();
    writer.set(categories.names().count());
    for category in categories.names() {
        writer.status(&format!("@{category}"));
    }
    writer.set(spec.tips.len());
    for tip in spec.tips {
        writer.bulk_text(tip);
    }
    writer.set(spec.key_specs.len());
    for key_spec in spec.key_specs {
        put_key_spec(writer, key_spec);
    }
    writer.array(spec.subcommands.len());
    for sub in spec.subcommands {
        put_info(writer, sub);
    }
}

fn put_words(writer: &mut Writer<'_>, words: impl Iterator<Item = &'static str> + Clone) {
    writer.set(words.clone().count());
    for word in words {
        writer.status(word);
    }
}

fn put_key_spec(writer: &mut Writer<'_>, spec: &KeySpec) {
    writer.map(3 + usize::from(!spec.notes.is_empty()));
    if !spec.notes.is_empty() {
        writer.bulk_text("notes");
        writer.bulk_text(spec.notes);
    }
    writer.bulk_text("flags");
    put_words(writer, spec.flags.names());
    let numbers = |writer: &mut Writer<'_>, numbers: &[(&str, i64)]| {
        writer.bulk_text("spec");
        writer.map(numbers.len());
        for (name, number) in numbers {
            writer.bulk_text(name);
            writer.integer(*number);
        }
    };
    writer.bulk_text("begin_search");
    writer.map(2);
    writer.bulk_text("type");
    writer.bulk_text("index");
    numbers(writer, &[("index", i64::from(spec.first))]);
    writer.bulk_text("find_keys");
    writer.map(2);
    writer.bulk_text("type");
    writer.bulk_text("range");
    let (last, step) = (i64::from(spec.last), i64::from(spec.step));
    numbers(writer, &[("lastkey", last), ("keystep", step), ("limit", 0)]);
}

fn put_docs(writer: &mut Writer<'_>, names: Args<'_>) {
    if names.is_empty() {
        writer.map(COMMANDS.len());
        for spec in &COMMANDS {
            put_doc(writer, spec);
        }
        return;
    }
    // What is not known is left out.
    let start = writer.out.len();
    writer.map(names.iter().filter_map(find).count());
    for spec in names.iter().filter_map(find) {
        put_doc(writer, spec);
        if writer.out.len() - start > DESCRIPTION_BYTES_MAX {
            return refuse_long(writer, start);
        }
    }
}

fn put_doc(writer: &mut Writer<'_>, spec: &CommandSpec) {
    writer.bulk_text(spec.name);
    let deprecated = if spec.deprecation.is_some() { 3 } else { 0 };
    writer.map(4 + deprecated + usize::from(!spec.subcommands.is_empty()));
    let fields = [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", spec.group.name()),
        ("complexity", spec.complexity),
    ];
    for (name, text) in fields {
        writer.bulk_text(name);
        writer.bulk_text(text);
    }
    if let Some(deprecation) = &spec.deprecation {
        writer.bulk_text("doc_flags");
        writer.set(1);
        writer.status("deprecated");
        writer.bulk_text("deprecated_since");
        writer.bulk_text(deprecation.since);
        writer.bulk_text("replaced_by");
        writer.bulk_text(deprecation.replaced_by);
    }
    if !spec.subcommands.is_empty() {
        writer.bulk_text("subcommands");
        writer.map(spec.subcommands.len());
        for sub in spec.subcommands {
            put_doc(writer, sub);
        }
    }
}

fn put_list(writer: &mut Writer<'_>, filter: ListFilter<'_>) {
    let category = match filter {
        ListFilter::Category(name) => Categories::named(name),
        _ => None,
    };
    let (mut steps, mut too_long) = (PATTERN_STEPS_MAX, false);
    let listed = |spec: &&CommandSpec| match filter {
        ListFilter::All => true,
        ListFilter::Module => false,
        ListFilter::Category(_) => category.is_some_and(|category| spec.categories().has(category)),
        ListFilter::Pattern(pattern) => {
            let fits = matches_ignoring_case(pattern, spec.name.as_bytes(), &mut steps);
            too_long |= fits.is_none();
            fits == Some(true)
        }
    };
    // Without a filter, containers stand for their subcommands.
    let with_subcommands = filter != ListFilter::All;
    let subcommands = |spec: &'static CommandSpec| if with_subcommands { spec.subcommands } else { &[] };
    let specs = COMMANDS.iter().flat_map(|spec| std::iter::once(spec).chain(subcommands(spec)));
    let specs: Vec<&CommandSpec> = specs.filter(listed).collect();
    if too_long {
        return writer.error("ERR comparing names with the pattern takes too long");
    }
    writer.array(specs.len());
    for spec in specs {
        writer.bulk_text(spec.name);
    }
}

/// The keys of a request that is not executed.
fn put_keys(writer: &mut Writer<'_>, request: Args<'_>, with_flags: bool) {
    let found = request.get(0).and_then(lookup).map(CommandId::spec).and_then(|spec| {
        if spec.subcommands.is_empty() || request.len() < 2 {
            Some(spec)
        } else {
            spec.subcommand(request.at(1))
        }
    });
    let Some(spec) = found else { return writer.error("ERR Invalid command specified") };
    if spec.key_specs.is_empty() {
        return writer.error("ERR The command has no key arguments");
    }
    if !spec.takes(request.len()) {
        return writer.error("ERR Invalid number of arguments specified for command");
    }
    writer.array(spec.key_positions(request.len()).count());
    for (position, flags) in spec.key_positions(request.len()) {
        if with_flags {
            writer.array(2);
        }
        writer.bulk(request.at(position));
        if with_flags {
            put_words(writer, settled(flags, request).names());
        }
    }
}

/// What happens to a key where the arguments decide it: SET reads the old value only with its option GET.
fn settled(flags: KeyFlags, request: Args<'_>) -> KeyFlags {
    if !flags.has(KeyFlags::VARIABLE) {
        return flags;
    }
    if request.from(3).iter().any(|option| option.eq_ignore_ascii_case(b"get")) {
        KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::UPDATE)
    } else {
        KeyFlags::OW.and(KeyFlags::UPDATE)
    }
}

#[cfg(test)]
mod tests;
