//! The rules of style and layering that a machine can judge, judged over the whole repository.
//!
//! Each rule is a function from one file to its findings, and each is proved by a planted violation beside it: a rule
//! that cannot fail is worth nothing. What the rules are for is told in `CONTRIBUTING.md`.
//!
//! | module | rules about |
//! |---|---|
//! | `source` | the files as the rules see them |
//! | `form` | heads, names, lengths, paths and addresses |
//! | `layers` | which module may know what |
//! | `documents` | links, and the map of the nine steps |

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/form.rs"]
mod form;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/source.rs"]
mod source;

use std::fmt;
use std::path::{Path, PathBuf};

use source::Source;

/// Where a rule is broken, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    path: String,
    line: usize,
    problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path, self.line, self.problem)
    }
}

/// A finding in `source` at `line`, counted from 1.
pub fn finding(source: &Source, line: usize, problem: &str) -> Finding {
    Finding { path: source.path.clone(), line, problem: problem.to_owned() }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_path_buf()
}

/// Judges every file of the repository by `rule` and fails with all that it finds.
fn judge(rule: impl Fn(&Source) -> Vec<Finding>) {
    let sources = source::text_files(&repository());
    assert!(sources.iter().any(|source| source.path == "server/tests/tidy.rs"), "the repository was not found");
    let findings: Vec<String> = sources.iter().flat_map(rule).map(|finding| finding.to_string()).collect();
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// A test for each rule that looks at one file alone, named as the rule is.
macro_rules! rules {
    ($module:ident: $($rule:ident),+ $(,)?) => {
        $(#[test]
        fn $rule() {
            judge($module::$rule);
        })+
    };
}

rules!(form:
    file_opens_with_its_job,
    name_says_something,
    lines_are_short,
    files_are_short,
    nothing_is_left_undone,
    no_paths_of_one_machine,
    addresses_are_public,
    scripts_stop_at_errors,
);

rules!(layers:
    only_the_machine_knows_glommio,
    only_the_machine_knows_the_ring,
    only_the_control_plane_knows_tokio,
    pure_code_has_no_clock_socket_or_dice,
    unsafe_stays_in_its_places,
);

#[test]
fn links_lead_somewhere() {
    judge(|source| documents::links_lead_somewhere(source, &repository()));
}

#[test]
fn map_of_the_nine_steps_is_true() {
    for page in documents::MAPS {
        assert!(repository().join(page).is_file(), "{page} is not there");
    }
    judge(|source| documents::map_of_the_nine_steps_is_true(source, &repository()));
}
