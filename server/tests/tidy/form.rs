//! Rules about the form of files: their heads, names, lengths, and what must not stand in any of them.

use crate::source::{lines_with_word, Source};
use crate::{finding, Finding};

/// What rustfmt cannot break (a long string, a table in a comment) ends here, too.
const LINE_CHARACTERS_MAX: usize = 120;

/// A file of more lines than this, tests left out, wants splitting.
const FILE_LINES_MAX: usize = 500;

/// Files that may be longer, each with its reason.
const LONG_FILES: [(&str, &str); 1] =
    [("server/src/wal/writer.rs", "one state machine of batches and segments, a few lines over")];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "misc"];

/// Hosts that a file may name in an address: public ones that a reader can open, and this machine.
const PUBLIC_HOSTS: [&str; 16] = [
    "127.0.0.1",
    "[::1]",
    "localhost",
    "0.0.0.0",
    "docs.rs",
    "doc.rust-lang.org",
    "github.com",
    "keepachangelog.com",
    "kernel.org",
    "www.kernel.org",
    "man7.org",
    "redis.io",
    "rustup.rs",
    "semver.org",
    "www.apache.org",
    "www.rust-lang.org",
];

pub fn file_opens_with_its_job(source: &Source) -> Vec<Finding> {
    let in_src = source.path.split('/').any(|part| part == "src");
    if source.is_rust() && in_src && !source.text.starts_with("//! ") {
        return vec![finding(
            source,
            1,
            "does not open with `//!`: say its job, its place in the flow, its invariants",
        )];
    }
    Vec::new()
}

pub fn name_says_something(source: &Source) -> Vec<Finding> {
    let stems = source.path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    let empty = stems.filter(|stem| source.is_rust() && EMPTY_NAMES.contains(stem));
    empty.map(|stem| finding(source, 1, &format!("`{stem}` names no job: put the code beside its user"))).collect()
}

pub fn lines_are_short(source: &Source) -> Vec<Finding> {
    // A text in quotes is one line for whoever reads it, and rustfmt does not break it either.
    let has_text = |line: &str| line.contains('"') && !line.trim_start().starts_with("//");
    let long = |line: &str| source.is_rust() && line.chars().count() > LINE_CHARACTERS_MAX && !has_text(line);
    let numbered = source.text.lines().enumerate().filter(|(_, line)| long(line));
    numbered.map(|(index, _)| finding(source, index + 1, "is longer than 120 characters")).collect()
}

pub fn files_are_short(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || source.is_test_file() || LONG_FILES.iter().any(|(path, _)| *path == source.path) {
        return Vec::new();
    }
    // A line counts unless it belongs to a test: the blanked code keeps the line but loses its text.
    let (code, built) = (source.code(), source.built_code());
    let of_tests = code.lines().zip(built.lines()).filter(|(code, built)| code.trim() != built.trim()).count();
    let lines = source.text.lines().count() - of_tests;
    if lines > FILE_LINES_MAX {
        let problem =
            format!("has {lines} lines without its tests, over {FILE_LINES_MAX}: split it, or allow it with a reason");
        return vec![finding(source, 1, &problem)];
    }
    Vec::new()
}

pub fn nothing_is_left_undone(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let code = source.code();
    let mut findings = Vec::new();
    for name in ["todo", "unimplemented", "dbg"] {
        for line in lines_with_word(&code, name) {
            if code.lines().nth(line - 1).is_some_and(|text| text.contains(&format!("{name}!"))) {
                findings.push(finding(source, line, &format!("leaves a `{name}!` behind")));
            }
        }
    }
    findings
}

/// A path that exists on one machine only is no use to anybody else.
pub fn no_paths_of_one_machine(source: &Source) -> Vec<Finding> {
    // Written in two parts, so that this file passes its own rule.
    let roots = [concat!("/wo", "rk"), concat!("/ho", "me"), concat!("/ro", "ot")];
    let names_one = |line: &str, root: &str| {
        line.match_indices(root).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + root.len()..].chars().next();
            // `data/work/`, `${dir}/work`, `~/work` and `./work` are relative to something.
            !before.is_some_and(|c| c.is_alphanumeric() || "_-.}/~*)>".contains(c))
                && !after.is_some_and(|c| c.is_alphanumeric() || "_-.".contains(c))
        })
    };
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for root in roots {
            if names_one(line, root) {
                findings.push(finding(source, index + 1, &format!("names a path under {root}")));
            }
        }
    }
    findings
}

pub fn addresses_are_public(source: &Source) -> Vec<Finding> {
    // The lock file's addresses are the registry's own, written by cargo; its own rule is below.
    if source.path.ends_with("Cargo.lock") {
        let public = "registry+https://github.com/rust-lang/crates.io-index";
        let other = |line: &str| line.starts_with("source = ") && !line.contains(public);
        let numbered = source.text.lines().enumerate().filter(|(_, line)| other(line));
        return numbered.map(|(index, _)| finding(source, index + 1, "locks a package of another registry")).collect();
    }
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for (at, _) in line.match_indices("://") {
            let scheme = line[..at].rsplit(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
            let rest = &line[at + 3..];
            let host: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || ".-[]:".contains(*c)).collect();
            let host = if host.starts_with('[') { host.as_str() } else { host.split(':').next().unwrap_or_default() };
            // A scheme without a host, or with a placeholder, is prose about addresses.
            let public = PUBLIC_HOSTS.iter().any(|known| host.trim_end_matches('.').starts_with(known));
            if scheme.starts_with("http") && host.contains('.') && !public {
                findings.push(finding(
                    source,
                    index + 1,
                    &format!("names the host `{host}`, which is not on the list"),
                ));
            }
        }
    }
    findings
}

pub fn scripts_stop_at_errors(source: &Source) -> Vec<Finding> {
    if !source.text.starts_with("#!") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if !source.text.lines().nth(1).is_some_and(|line| line.starts_with("# ")) {
        findings.push(finding(source, 2, "does not say its job in a comment below its first line"));
    }
    if source.text.contains("bash\n") && !source.text.lines().any(|line| line == "set -euo pipefail") {
        findings.push(finding(source, 1, "does not `set -euo pipefail`"));
    }
    findings
}

#[cfg(test)]
mod planted {
    use super::*;

    fn rust(text: &str) -> Source {
        Source::new("server/src/net/listener.rs", text)
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(file_opens_with_its_job(&rust("use std::fs;\n")).len(), 1);
        assert_eq!(file_opens_with_its_job(&rust("//!\n")).len(), 1);
        assert!(file_opens_with_its_job(&rust("//! Listens.\n")).is_empty());
        assert!(file_opens_with_its_job(&Source::new("protocol/build.rs", "fn main() {}")).is_empty());
    }

    #[test]
    fn an_empty_name_is_found_in_files_and_directories() {
        assert_eq!(name_says_something(&Source::new("server/src/util.rs", "")).len(), 1);
        assert_eq!(name_says_something(&Source::new("server/src/helpers/mod.rs", "")).len(), 1);
        assert!(name_says_something(&Source::new("server/src/commonality.rs", "")).is_empty());
    }

    #[test]
    fn a_long_line_is_found_by_characters_not_bytes() {
        let long = lines_are_short(&rust(&format!("//\n// {}", "x".repeat(118))));
        assert_eq!(long.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2]);
        assert!(lines_are_short(&rust(&format!("// {}", "é".repeat(117)))).is_empty());
        assert!(lines_are_short(&rust(&format!("print(\"{}\")", "x".repeat(118)))).is_empty());
        assert_eq!(lines_are_short(&rust(&format!("// \"{}\"", "x".repeat(118)))).len(), 1);
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let body = "fn a() {}\n".repeat(FILE_LINES_MAX);
        assert!(files_are_short(&rust(&body)).is_empty());
        let tests = format!("{body}#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn b() {}\n".repeat(100));
        assert!(files_are_short(&rust(&tests)).is_empty(), "{:?}", files_are_short(&rust(&tests)));
        assert_eq!(files_are_short(&rust(&format!("{body}fn last() {{}}\n"))).len(), 1);
        assert_eq!(files_are_short(&rust(&"// a comment is a line\n".repeat(FILE_LINES_MAX + 1))).len(), 1);
    }

    #[test]
    fn what_is_left_undone_is_found_and_a_word_in_a_comment_is_not() {
        for left in ["todo!()", "unimplemented!(\"later\")", "let x = dbg!(y);"] {
            assert_eq!(nothing_is_left_undone(&rust(left)).len(), 1, "{left}");
        }
        assert!(nothing_is_left_undone(&rust("// todo! in words\nlet todo = \"todo!\";")).is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_found_in_any_file() {
        for (root, path) in [(concat!("/wo", "rk"), "/main"), (concat!("/ho", "me"), "/me"), (concat!("/ro", "ot"), "")]
        {
            let planted = Source::new("docs/A.md", &format!("see\n`{root}{path}`\n"));
            assert_eq!(no_paths_of_one_machine(&planted).len(), 1, "{}", planted.text);
        }
        for fine in ["target/work/x", "${dir}/home/x", "a/root", "/worker", "~/work", "/root-cause"] {
            assert!(no_paths_of_one_machine(&Source::new("scripts/a.sh", fine)).is_empty(), "{fine}");
        }
    }

    #[test]
    fn a_private_address_is_found() {
        let planted = Source::new("docs/A.md", concat!("fetch from https:/", "/mirror.internal.example:8443/index"));
        assert_eq!(addresses_are_public(&planted).len(), 1);
        let public =
            Source::new("docs/A.md", "https://docs.rs/glommio and http://127.0.0.1:8080/health, http://HOST/x");
        assert!(addresses_are_public(&public).is_empty());
        let lock =
            Source::new("Cargo.lock", concat!("source = \"registry+https:/", "/mirror.internal.example/index\"\n"));
        assert_eq!(addresses_are_public(&lock).len(), 1);
        let lock = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert!(addresses_are_public(&Source::new("Cargo.lock", lock)).is_empty());
    }

    #[test]
    fn a_careless_script_is_found() {
        assert_eq!(scripts_stop_at_errors(&Source::new("scripts/a.sh", "#!/usr/bin/env bash\necho\n")).len(), 2);
        let careful = "#!/usr/bin/env bash\n# Does it.\nset -euo pipefail\n";
        assert!(scripts_stop_at_errors(&Source::new("scripts/a.sh", careful)).is_empty());
    }
}
