//! The prompt: history, completion of commands, hints.
//!
//! Place in the flow: between a terminal and [`crate::session`].
//!
//! The history is kept in `$XDG_STATE_HOME/eyot/history`, or `~/.local/state/eyot/history`; without a home there is
//! none. A line that begins with a blank is not kept, so that a secret can be left out.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

use crate::commands::{find, COMMANDS};
use crate::output::Exit;
use crate::session::Session;

/// Lines that the history keeps.
const HISTORY_LINES_MAX: usize = 1_000;

type LineEditor = Editor<Assistance, FileHistory>;

/// Reads and executes lines until the user leaves.
pub async fn run(mut session: Session, address: &str) -> io::Result<Exit> {
    let history = history_file(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"));
    let mut editor = open_editor(history.as_ref()).map_err(io::Error::other)?;
    let prompt = format!("eyot {address}> ");
    loop {
        // The editor blocks its thread; the connection is served here meanwhile.
        let (history, prompt) = (history.clone(), prompt.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let line = editor.readline(&prompt);
            if let (Some(file), Ok(_)) = (&history, &line) {
                // A history that cannot be written is no reason to stop.
                let _ = editor.append_history(file);
            }
            (editor, line)
        });
        let line;
        (editor, line) = reading.await.map_err(io::Error::other)?;
        match line {
            Ok(line) => {
                if session.execute_line(line.as_bytes()).await?.is_none() {
                    return Ok(Exit::Done);
                }
            }
            // Ctrl-C drops the line, Ctrl-D leaves.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(Exit::Done),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn open_editor(history: Option<&PathBuf>) -> rustyline::Result<LineEditor> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .auto_add_history(true)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Assistance));
    if let Some(file) = history {
        if let Some(directory) = file.parent() {
            // Where it cannot be created, nothing is kept.
            let _ = std::fs::create_dir_all(directory);
        }
        // There is none at the first start.
        let _ = editor.load_history(file);
    }
    Ok(editor)
}

fn history_file(state_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute(state_home).or_else(|| absolute(home).map(|home| home.join(".local/state")))?;
    Some(state.join("eyot/history"))
}

/// Completes and explains commands.
struct Assistance;

impl Helper for Assistance {}
impl Highlighter for Assistance {}
impl Validator for Assistance {}

impl Completer for Assistance {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(completions(line, position))
    }
}

impl Hinter for Assistance {
    type Hint = String;

    fn hint(&self, line: &str, position: usize, _: &Context<'_>) -> Option<String> {
        if position < line.len() {
            return None;
        }
        hint_for(line)
    }
}

/// The commands that the first word, or the word after HELP, may become, in the case that was typed.
fn completions(line: &str, position: usize) -> (usize, Vec<String>) {
    let typed = line.get(..position).unwrap_or_default();
    let start = typed.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
    let (before, word) = typed.split_at(start);
    if !before.trim().is_empty() && !before.trim().eq_ignore_ascii_case("HELP") {
        return (position, Vec::new());
    }
    let lower_case = word.starts_with(|first: char| first.is_ascii_lowercase());
    let names = COMMANDS.iter().flat_map(|syntax| syntax.names);
    let fits = |name: &&&str| name.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    let in_case = |name: &&str| {
        let name = if lower_case { name.to_ascii_lowercase() } else { (*name).to_owned() };
        // What follows is the next word.
        name + " "
    };
    (start, names.filter(fits).map(in_case).collect())
}

/// The arguments that a command still takes: all after its name, and fewer after each word.
fn hint_for(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let syntax = find(words.next()?)?;
    let given = words.count();
    let rest: Vec<&str> = syntax.arguments.split(' ').skip(given).collect();
    // Within brackets the count of words says nothing any more.
    let inside_brackets = given > 0 && syntax.arguments.split(' ').take(given).any(|word| word.contains(['[', '|']));
    if rest.is_empty() || syntax.arguments.is_empty() || inside_brackets {
        return None;
    }
    // The word that is being typed is the one before the hint.
    let blank = if line.ends_with(char::is_whitespace) { "" } else { " " };
    Some(format!("{blank}{}", rest.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_completed_in_the_case_that_was_typed() {
        assert_eq!(completions("ge", 2), (0, vec!["get ".to_owned()]));
        assert_eq!(completions("E", 1), (0, vec!["EXISTS ".to_owned(), "EXIT ".to_owned()]));
        assert_eq!(completions("help ba", 7), (5, vec!["batch ".to_owned()]));
        assert_eq!(completions("get be", 6), (6, Vec::new()), "keys are not completed");
        assert_eq!(completions("é", 2), (0, Vec::new()));
    }

    #[test]
    fn hints_show_what_is_still_missing() {
        assert_eq!(hint_for("get"), Some(" key".to_owned()));
        assert_eq!(hint_for("get "), Some("key".to_owned()));
        assert_eq!(hint_for("get k"), None);
        assert!(hint_for("set k").is_some_and(|hint| hint.starts_with(" value [EX")));
        assert_eq!(hint_for("set k v EX 5"), None);
        assert_eq!(hint_for("ping"), None);
        assert_eq!(hint_for("unknown"), None);
        assert_eq!(hint_for(""), None);
    }

    #[test]
    fn the_history_lies_in_the_state_directory() {
        let path = |state: Option<&str>, home: Option<&str>| history_file(state.map(Into::into), home.map(Into::into));
        assert_eq!(path(Some("/s"), Some("/h")), Some("/s/eyot/history".into()));
        assert_eq!(path(None, Some("/h")), Some("/h/.local/state/eyot/history".into()));
        assert_eq!(path(Some("relative"), Some("/h")), Some("/h/.local/state/eyot/history".into()));
        assert_eq!(path(None, None), None);
    }
}
