//! Commands in the documents: their programs exist, and the programs know their flags.

use std::fs;
use std::path::Path;

use clap::{CommandFactory, Parser};
use eyot_server::config::Config;

/// The pages that tell people what to type.
pub const PAGES: [&str; 5] =
    ["README.md", "CHANGELOG.md", "docs/OPERATIONS.md", "docs/ARCHITECTURE.md", "docs/PROTOCOL.md"];

/// Where the flags of the other programs are defined: their crates are not below this one.
const CLIENT_FLAGS: &[&str] = &["client/src/bin/eyot/arguments.rs", "client/src/bin/eyot/snapshot/arguments.rs"];
const LOADGEN_FLAGS: &[&str] = &["loadgen/src/args.rs"];

/// What a page tells to type: lines after `$ `, lines of blocks of `sh`, and text between backticks that looks like it.
pub fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            block = if block.is_some() { None } else { Some(kind) };
        } else if let Some(kind) = block {
            match line.strip_prefix("$ ") {
                Some(command) => found.push(command.to_owned()),
                None if kind == "sh" && !line.starts_with('#') && !line.is_empty() => found.push(line.to_owned()),
                None => {}
            }
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.filter(|span| is_command(span)).map(str::to_owned));
        }
    }
    found
}

fn is_command(span: &str) -> bool {
    let first = span.split(' ').next().unwrap_or_default();
    span.starts_with("--")
        || span.starts_with("./scripts/")
        || span.starts_with("scripts/")
        || span.starts_with("./target/")
        || (matches!(first, "eyot" | "eyot-server" | "eyot-loadgen") && span != first)
}

/// What is wrong with the commands of `page`.
pub fn check(page: &str, root: &Path) -> Vec<String> {
    commands(page)
        .iter()
        .filter_map(|command| problem(command, root).map(|what| format!("{command}: {what}")))
        .collect()
}

fn problem(command: &str, root: &Path) -> Option<String> {
    // What follows a pipe, a comment or a redirection is the shell's business.
    let words: Vec<&str> =
        command.split_whitespace().take_while(|word| !matches!(*word, "|" | "#" | ">" | "<" | "&")).collect();
    let (program, arguments) = words.split_first()?;
    if program.starts_with("--") {
        let known = knows_server(program) || knows(root, CLIENT_FLAGS, program) || knows(root, LOADGEN_FLAGS, program);
        return (!known).then(|| "no program of ours has this flag".to_owned());
    }
    let flags = || arguments.iter().filter(|word| word.starts_with("--") && word.len() > 2);
    match program.rsplit('/').next().unwrap_or(program) {
        "run.sh" if !root.join(program).is_file() => Some("no such script".to_owned()),
        "run.sh" | "eyot-server" => parses(arguments),
        "eyot" => flags().find(|flag| !knows(root, CLIENT_FLAGS, flag)).map(|flag| format!("eyot has no {flag}")),
        "eyot-loadgen" => {
            flags().find(|flag| !knows(root, LOADGEN_FLAGS, flag)).map(|flag| format!("eyot-loadgen has no {flag}"))
        }
        _ if program.contains("scripts/") => script(root, program, arguments),
        _ if program.contains("target/") => Some("no such program".to_owned()),
        _ => None,
    }
}

/// Whether the server takes these arguments; `...` stands for any.
fn parses(arguments: &[&str]) -> Option<String> {
    let arguments = arguments.iter().copied().filter(|word| *word != "...");
    match Config::try_parse_from(std::iter::once("eyot-server").chain(arguments)) {
        Err(error) if error.use_stderr() => Some(error.to_string()),
        _ => None,
    }
}

fn script(root: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let Ok(text) = fs::read_to_string(root.join(program)) else { return Some("no such script".to_owned()) };
    arguments
        .iter()
        .find(|word| word.starts_with("--") && !text.contains(**word))
        .map(|flag| format!("it has no {flag}"))
}

fn name(flag: &str) -> &str {
    flag.trim_start_matches('-').split('=').next().unwrap_or_default()
}

fn knows_server(flag: &str) -> bool {
    matches!(name(flag), "help" | "version")
        || Config::command().get_arguments().any(|argument| argument.get_long() == Some(name(flag)))
}

/// Whether the definitions in `files` have a field of the flag's name, or name the flag itself.
fn knows(root: &Path, files: &[&str], flag: &str) -> bool {
    let read = |file: &&str| fs::read_to_string(root.join(file)).expect("the definitions of a program's flags");
    let text = files.iter().map(read).collect::<String>();
    let field = format!("pub {}:", name(flag).replace('-', "_"));
    let long = format!("long = \"{}\"", name(flag));
    matches!(name(flag), "help" | "version") || text.contains(&field) || text.contains(&long)
}

#[test]
fn a_command_that_does_not_work_is_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    for wrong in [
        "eyot-server --no-such-flag",
        "eyot-server --address nowhere",
        "./scripts/run.sh --spin-us many",
        "./scripts/no-such-script.sh",
        "./scripts/fuzz.sh --no-such-flag",
        "./target/release/no-such-program",
        "./target/release/eyot --no-such-flag get a",
        "eyot-loadgen --no-such-flag",
        "--no-such-flag",
    ] {
        assert!(problem(wrong, root).is_some(), "{wrong}");
    }
    for right in [
        "eyot-server --preflight --data-dir /tmp/x",
        "./scripts/run.sh",
        "./scripts/fuzz.sh --smoke",
        "./target/release/eyot --json get a",
        "eyot --type json set a 1",
        "eyot-loadgen --pipeline 16 --duration 2s",
        "--sync-writes=false",
        "--help",
        "docker run --ulimit memlock=-1",
    ] {
        assert_eq!(problem(right, root), None, "{right}");
    }
}

#[test]
fn commands_are_found_in_text_and_blocks() {
    let page = "Say `--help` or `eyot --json get a`, not `eyot` or `a --b`.\n```sh\n./scripts/run.sh\n# no\n```\n\
                ```console\n$ eyot get a\nJohn\n```\n";
    assert_eq!(commands(page), ["--help", "eyot --json get a", "./scripts/run.sh", "eyot get a"]);
}
