//! Rules about the written pages: what they point at is there.

use std::path::Path;

use crate::source::Source;
use crate::{finding, Finding};

/// The pages that lead along the nine steps of a request, each step with its files.
pub const MAPS: [&str; 2] = ["README.md", "docs/ARCHITECTURE.md"];

const MAP_HEADING: &str = "## The nine steps";

/// The lines of a page that are not inside a fenced block, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

/// The targets of `[text](target)` in a line.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split(')').next())
}

/// Every link to a file leads to one, seen from the page's own directory.
pub fn links_lead_somewhere(source: &Source, root: &Path) -> Vec<Finding> {
    if !source.is_markdown() {
        return Vec::new();
    }
    let page_directory = root.join(&source.path).parent().expect("a page lies in a directory").to_path_buf();
    let mut findings = Vec::new();
    for (number, line) in prose(&source.text) {
        for target in link_targets(line) {
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !file.is_empty() && !page_directory.join(file).exists() {
                findings.push(finding(source, number, &format!("links to {file}, which is not there")));
            }
        }
    }
    findings
}

/// What stands between backticks in a line and looks like a path.
fn paths(row: &str) -> Vec<&str> {
    let quoted = row.split('`').skip(1).step_by(2);
    quoted.filter(|text| text.contains('/') || Path::new(text).extension().is_some_and(|end| end == "rs")).collect()
}

/// The map of a page names, for each of the nine steps in order, files that exist.
pub fn map_of_the_nine_steps_is_true(source: &Source, root: &Path) -> Vec<Finding> {
    if !MAPS.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let section = prose(&source.text).skip_while(|(_, line)| line.trim_end() != MAP_HEADING).skip(1);
    let section = section.take_while(|(_, line)| !line.starts_with("# ") && !line.starts_with("## "));
    let mut findings = Vec::new();
    let mut next_step = 1;
    for (number, row) in section.filter(|(_, line)| line.starts_with('|')) {
        let first_cell = row.trim_start_matches('|').split('|').next().unwrap_or_default().trim();
        let is_step = first_cell.split(' ').next() == Some(next_step.to_string().as_str());
        let paths = paths(row);
        if is_step {
            next_step += 1;
            if paths.is_empty() {
                findings.push(finding(source, number, &format!("the step `{first_cell}` names no file")));
            }
        }
        for path in paths.iter().filter(|path| !root.join(path).exists()) {
            findings.push(finding(source, number, &format!("the nine steps name {path}, which is not there")));
        }
    }
    if next_step <= 9 {
        let problem = format!("has no row for step {next_step} in a table under `{MAP_HEADING}`");
        findings.push(finding(source, 1, &problem));
    }
    findings
}

#[cfg(test)]
mod planted {
    use super::*;
    use std::fmt::Write;
    use std::fs;

    fn repository() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(root.path().join("docs")).expect("a directory");
        fs::create_dir_all(root.path().join("server/src")).expect("a directory");
        fs::write(root.path().join("docs/PROTOCOL.md"), "").expect("a file");
        fs::write(root.path().join("server/src/main.rs"), "").expect("a file");
        root
    }

    #[test]
    fn a_link_to_nowhere_is_found_from_the_page_that_has_it() {
        let root = repository();
        let found = |path: &str, text: &str| links_lead_somewhere(&Source::new(path, text), root.path()).len();
        assert_eq!(found("README.md", "see [the protocol](docs/PROTOCOL.md#frames) and [gone](docs/GONE.md)"), 1);
        assert_eq!(found("docs/A.md", "see [the protocol](PROTOCOL.md) and [main](../server/src/main.rs)"), 0);
        assert_eq!(found("docs/A.md", "see [the protocol](docs/PROTOCOL.md)"), 1);
        assert_eq!(found("docs/A.md", "[a](https://docs.rs/x) [b](#here)\n```\n[c](gone)\n```\n"), 0);
    }

    /// A page with a row for each of `steps`, all of them at home in `path`.
    fn page(steps: std::ops::RangeInclusive<u32>, path: &str) -> Source {
        let mut rows = String::new();
        for step in steps {
            writeln!(rows, "| {step} step | `{path}` | words |").expect("a string takes all");
        }
        Source::new(
            "README.md",
            &format!("# Eyot\n\n{MAP_HEADING}\n\n| step | file | |\n|---|---|---|\n{rows}\n## More\n"),
        )
    }

    #[test]
    fn a_map_that_names_a_file_that_is_gone_or_skips_a_step_is_found() {
        let root = repository();
        let found = |source: &Source| map_of_the_nine_steps_is_true(source, root.path()).len();
        assert_eq!(found(&page(1..=9, "server/src/main.rs")), 0);
        assert_eq!(found(&page(1..=9, "server/src/gone.rs")), 9);
        assert_eq!(found(&page(1..=8, "server/src/main.rs")), 1);
        assert_eq!(found(&page(2..=9, "server/src/main.rs")), 1);
        assert_eq!(found(&page(1..=9, "accept(1)")), 9);
        assert_eq!(found(&Source::new("docs/ARCHITECTURE.md", "# Architecture\n")), 1);
        assert_eq!(found(&Source::new("docs/PROTOCOL.md", "# Protocol\n")), 0);
    }
}
