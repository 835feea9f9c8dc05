//! The documents say what the code does: each list in them that repeats a list of the code is compared with it here.
//!
//! | page | compared |
//! |---|---|
//! | `docs/CONFIGURATION.md` | the whole page, with the definitions of the settings; `EYOT_BLESS=1` writes it anew |
//! | `docs/OPERATIONS.md` | exit codes, fields of STATS |
//! | `docs/PROTOCOL.md` | types, operations, error codes, limits, the examples in hexadecimal |
//! | `docs/ARCHITECTURE.md` | the bounds |
//! | all of these and `README.md` | commands and their flags |
//!
//! Where a test fails, the page is wrong, or the code has changed what it promised.

#[path = "reference/commands.rs"]
mod commands;
#[path = "reference/tables.rs"]
mod tables;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use eyot_protocol::request::Operation;
use eyot_protocol::{limits, tlv, ErrorCode};
use eyot_server::config::{self, Config, MemorySettings, Tunables};
use eyot_server::error::StopReason;
use eyot_server::memory::{Board, CoreMemory, NodeMemory};
use eyot_server::metrics::{report_json, CoreReport, Metrics, ReportContext};

use tables::{evaluate, rows, shown};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_path_buf()
}

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_configuration_page_is_the_one_that_the_definitions_give() {
    const PAGE: &str = "docs/CONFIGURATION.md";
    let generated = config::reference();
    if std::env::var_os("EYOT_BLESS").is_some() {
        fs::write(repository().join(PAGE), &generated).expect("a writable page");
    }
    let written = text(PAGE);
    let differs = written.lines().zip(generated.lines()).position(|(written, generated)| written != generated);
    let help = "EYOT_BLESS=1 cargo test -p eyot-server --test reference writes it anew";
    assert!(written == generated, "{PAGE} differs from line {:?} on; {help}", differs.map(|line| line + 1));
}

#[test]
fn exit_codes_are_listed_with_their_summaries_and_a_remedy() {
    let rows = rows(&text("docs/OPERATIONS.md"), "## Exit codes");
    let listed: Vec<(&str, &str)> = rows[1..].iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let numbers = StopReason::ALL.map(|reason| reason.exit_code().to_string());
    let expected: Vec<(&str, &str)> =
        numbers.iter().zip(StopReason::ALL).map(|(number, reason)| (number.as_str(), reason.summary())).collect();
    assert_eq!(rows[0][0], "0", "the list begins with the orderly stop");
    assert_eq!(listed, expected);
    assert!(rows[1..].iter().all(|row| row[2].len() > 10), "every code has its remedy");
}

#[test]
fn the_unit_names_exit_codes_that_exist() {
    let page = text("docs/OPERATIONS.md");
    let line = page.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).expect("the unit's line");
    for code in line.split(' ') {
        let known = StopReason::ALL.iter().any(|reason| reason.exit_code().to_string() == code);
        assert!(known, "no exit code {code}");
    }
}

/// The names of the fields that a value holds, down to those that hold no others.
fn fields(value: &serde_json::Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, inner) in object {
                // The operations are named by the protocol, and the policies by the configuration, not here.
                let name = if matches!(path, "metrics.operations" | "memory.evictions") { "*" } else { name };
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                fields(inner, &path, found);
            }
        }
        serde_json::Value::Array(elements) => {
            for element in elements {
                fields(element, &format!("{path}[]"), found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn every_field_of_stats_is_explained_and_no_other() {
    let mut metrics = Metrics::new(true);
    metrics.answered(Operation::Get, 0, 10);
    let report = CoreReport {
        core: 0,
        processor: 0,
        keys: 1,
        expiring_keys: 1,
        memory_bytes: 1,
        memory: CoreMemory::default(),
        entries: 1,
        shards: 1,
        connections: 1,
        log_pending_bytes: 0,
        log_kept_bytes: 1,
        read_only: false,
        metrics: metrics.snapshot(),
    };
    let context =
        ReportContext { node_id: "n".to_owned(), address: "127.0.0.1:6380".to_owned(), shards: 1, sync_writes: true };
    let config = Config::parse_from(["eyot-server"]);
    let settings = MemorySettings::resolve(&config.memory, None).expect("the defaults");
    let memory = NodeMemory::now(&settings, &Tunables::new(&settings), &Board::new(1));
    let json = report_json(&context, &memory, Duration::from_secs(1), &[report]);
    let mut reported = BTreeSet::new();
    fields(&serde_json::from_str(&json).expect("JSON"), "", &mut reported);
    let rows = rows(&text("docs/OPERATIONS.md"), "## What STATS says");
    let explained: BTreeSet<String> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(explained.len(), rows.len(), "a field is explained twice");
    assert_eq!(explained, reported);
}

#[test]
fn operations_are_listed_with_their_codes() {
    let rows = rows(&text("docs/PROTOCOL.md"), "## Operations");
    let listed: Vec<(&str, &str)> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let codes = Operation::ALL.map(|operation| operation.code().to_string());
    let expected: Vec<(&str, &str)> =
        codes.iter().zip(Operation::ALL).map(|(code, operation)| (code.as_str(), operation.name())).collect();
    assert_eq!(listed, expected);
}

#[test]
fn error_codes_are_listed_with_what_a_client_may_do() {
    let yes_or_no = |truth: bool| if truth { "yes" } else { "no" };
    let rows = rows(&text("docs/PROTOCOL.md"), "## Errors");
    assert_eq!(rows.len(), ErrorCode::ALL.len());
    for (row, code) in rows.iter().zip(ErrorCode::ALL) {
        let expected = [
            code.number().to_string(),
            format!("`{}`", code.name()),
            yes_or_no(code.is_retryable()).to_owned(),
            yes_or_no(code.closes_connection()).to_owned(),
        ];
        assert_eq!(row[..4], expected);
        assert!(row[4].len() > 10, "{} is not explained", code.name());
    }
}

#[test]
fn limits_are_listed_with_their_values() {
    let expected = [
        ("MAX_KEY_BYTES", limits::MAX_KEY_BYTES),
        ("MAX_VALUE_BYTES", limits::MAX_VALUE_BYTES),
        ("DEFAULT_MAX_VALUE_BYTES", limits::DEFAULT_MAX_VALUE_BYTES),
        ("FRAME_OVERHEAD_BYTES", limits::FRAME_OVERHEAD_BYTES),
        ("MAX_DEPTH", limits::MAX_DEPTH),
        ("MAX_VARINT_BYTES", limits::MAX_VARINT_BYTES),
        ("MAX_BATCH_OPERATIONS", limits::MAX_BATCH_OPERATIONS),
        ("MAX_PING_BYTES", limits::MAX_PING_BYTES),
        ("MAX_SNAPSHOT_READ_BYTES", limits::MAX_SNAPSHOT_READ_BYTES),
        ("MAX_PASSWORD_BYTES", limits::MAX_PASSWORD_BYTES),
        ("MAX_UNAUTHENTICATED_FRAME_BYTES", limits::MAX_UNAUTHENTICATED_FRAME_BYTES),
        ("MAX_COMMANDS_PER_ENTRY", limits::MAX_COMMANDS_PER_ENTRY),
        ("MAX_ERROR_MESSAGE_BYTES", limits::MAX_ERROR_MESSAGE_BYTES),
    ];
    let defined = text("protocol/src/limits.rs").matches("\npub const ").count();
    assert_eq!(defined, expected.len(), "a limit was added or removed: change this list and the page");
    let rows = rows(&text("docs/PROTOCOL.md"), "## Limits");
    let listed: Vec<(String, Option<u128>)> =
        rows.iter().map(|row| (row[0].trim_matches('`').to_owned(), shown(&row[1]))).collect();
    let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), Some(value as u128))).into();
    assert_eq!(listed, expected);
}

#[test]
fn types_of_values_are_listed_with_their_numbers() {
    let expected = [
        (tlv::TYPE_NULL, "null"),
        (tlv::TYPE_STRING, "string"),
        (tlv::TYPE_INT32, "int32"),
        (tlv::TYPE_LIST, "list"),
        (tlv::TYPE_FLOAT64, "float64"),
        (tlv::TYPE_BOOLEAN, "boolean"),
        (tlv::TYPE_TIMESTAMP, "timestamp"),
        (tlv::TYPE_BYTES, "bytes"),
        (tlv::TYPE_INT64, "int64"),
        (tlv::TYPE_ERROR, "error"),
        (tlv::TYPE_MAP, "map"),
    ];
    let defined = text("protocol/src/tlv/mod.rs").matches("\npub const TYPE_").count();
    assert_eq!(defined, expected.len(), "a type was added or removed: change this list and the page");
    let page = text("docs/PROTOCOL.md");
    let listed: Vec<(&str, &str)> = page.lines().filter_map(|line| line.split_once("  ")).collect();
    for (number, name) in expected {
        let number = format!("{number:#04x}");
        let rest = listed.iter().find(|(first, _)| *first == number).map(|(_, rest)| *rest);
        assert!(rest.is_some_and(|rest| rest.starts_with(&format!("{name} "))), "{number} {name}: {rest:?}");
    }
}

/// The lines of the page's blocks of examples.
fn examples(page: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(kind) => inside = kind == "golden",
            None if inside => lines.push(line),
            None => {}
        }
    }
    lines
}

#[test]
fn every_example_of_the_protocol_is_a_golden_vector() {
    // The tests of `protocol` decode and encode these files.
    let vectors = [text("protocol/tests/golden/tlv.txt"), text("protocol/tests/golden/native.txt")].concat();
    let vectors: BTreeSet<&str> = vectors.lines().collect();
    let page = text("docs/PROTOCOL.md");
    let examples = examples(&page);
    let strangers: Vec<_> = examples.iter().filter(|example| !vectors.contains(**example)).collect();
    assert!(strangers.is_empty(), "no vector of protocol/tests/golden says this: {strangers:#?}");
    for (kind, operation) in ["request", "reply"].into_iter().flat_map(|kind| Operation::ALL.map(|each| (kind, each))) {
        let is_shown = examples.iter().any(|line| {
            let meaning = line.rsplit(" | ").next().unwrap_or_default();
            line.starts_with(kind) && meaning.split(' ').nth(1) == Some(operation.name())
        });
        assert!(is_shown, "no {kind} of {} is among the examples", operation.name());
    }
}

/// The constants of a Rust file, with the expressions that they are.
fn constants(source: &str) -> Vec<(&str, &str)> {
    let definitions = source.lines().filter_map(|line| {
        let public = ["pub(crate) ", "pub(super) ", "pub "].into_iter().find_map(|start| line.strip_prefix(start));
        let line = public.unwrap_or(line).strip_prefix("const ")?;
        let (name, rest) = line.split_once(':')?;
        Some((name, rest.split_once('=')?.1.trim().trim_end_matches(';')))
    });
    definitions.filter(|(name, _)| *name != "_").collect()
}

#[test]
fn every_bound_has_the_value_that_the_architecture_says() {
    let rows = rows(&text("docs/ARCHITECTURE.md"), "## What is bounded, and where");
    assert!(rows.len() > 20, "{} bounds", rows.len());
    for row in &rows {
        let [name, value, reason, file] = [0, 1, 2, 3].map(|cell: usize| row[cell].trim_matches('`'));
        let source = text(file);
        let constants = constants(&source);
        let Some((_, expression)) = constants.iter().find(|(found, _)| *found == name) else {
            panic!("{file} has no constant {name}")
        };
        let defined = evaluate(expression).unwrap_or_else(|| panic!("{name} = {expression} is too hard for this test"));
        assert_eq!(shown(value), Some(defined), "{name} is {expression} in {file}, and {value} in the page");
        assert!(reason.len() > 10, "{name} has no reason");
    }
}

#[test]
fn every_public_bound_of_the_request_path_is_in_the_architecture() {
    let page = text("docs/ARCHITECTURE.md");
    let listed: BTreeSet<String> =
        rows(&page, "## What is bounded, and where").into_iter().map(|row| row[0].clone()).collect();
    for directory in ["core", "net", "router", "security", "replication"] {
        let path = repository().join("server/src").join(directory);
        for entry in fs::read_dir(&path).expect("a directory of the server") {
            let path = entry.expect("a readable entry").path();
            let source = if path.is_file() { fs::read_to_string(&path).expect("a source file") } else { continue };
            for line in source.lines().filter(|line| line.starts_with("pub const ")) {
                let (name, rest) = line["pub const ".len()..].split_once(':').expect("a name and its type");
                let is_number =
                    ["usize", "u16", "u32", "u64", "Duration"].iter().any(|kind| rest[1..].starts_with(kind));
                let is_listed = listed.contains(&format!("`{name}`"));
                assert!(is_listed || !is_number, "{} has {name}, the architecture has not", path.display());
            }
        }
    }
}

#[test]
fn commands_in_the_documents_are_ones_that_work() {
    let mut found = 0;
    for page in commands::PAGES {
        let problems = commands::check(&text(page), &repository());
        assert!(problems.is_empty(), "{page}:\n{}", problems.join("\n"));
        found += commands::commands(&text(page)).len();
    }
    assert!(found > 20, "only {found} commands were found");
}
