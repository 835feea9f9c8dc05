//! An answer as text for people, for scripts, or as JSON; and the exit code that goes with it.
//!
//! Place in the flow: the last thing that a command does.
//!
//! Invariant: everything is flushed when a command ends, so that a reader at the other end of a pipe sees each answer
//! whole.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use eyot_client::{BatchResult, Error, Outcome, SetOutcome, Value, Versioned};

use crate::benchmark;
use crate::commands::{Syntax, COMMANDS};
use crate::value::{hex, json, json_string};

/// How the process ends. `--help` documents the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    /// The key was not found, or the condition did not hold.
    NotFound = 1,
    Usage = 2,
    NoConnection = 3,
    Refused = 4,
    /// No answer in time, or whether a write was applied is unknown.
    Unknown = 5,
    /// A snapshot is damaged or is none; or a text that is imported is none.
    Damaged = 6,
    /// A local file cannot be read or written.
    LocalFile = 7,
    /// `snapshot save` was stopped by a signal: 128 and the number of SIGINT.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The exit code of an error.
    pub fn of(error: &Error) -> Self {
        match error {
            _ if error.outcome() == Outcome::Unknown => Self::Unknown,
            Error::Address { .. } | Error::Invalid(_) => Self::Usage,
            Error::Timeout { .. } => Self::Unknown,
            Error::Server { .. } => Self::Refused,
            // A lost connection, or something that is no Eyot server.
            _ => Self::NoConnection,
        }
    }
}

/// How answers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For people: values say what they are.
    Interactive,
    /// For scripts: strings as they are.
    Script,
    /// One JSON object a line.
    Json,
}

/// What a command found out.
pub enum Answer {
    Value(Option<Versioned<Value>>),
    Set(SetOutcome),
    /// How many keys were deleted, or exist.
    Count(usize),
    Batch(Vec<Result<BatchResult, Error>>),
    Stats(serde_json::Value),
    Pong(Duration),
    Benchmark(benchmark::Report),
    /// Of one command, or of all.
    Help(Option<&'static Syntax>),
}

impl Answer {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Value(None) | Self::Set(SetOutcome::NotStored { .. }) | Self::Count(0) => Exit::NotFound,
            // What was not found is part of a batch's answer; an error is not.
            Self::Batch(results) => {
                results.iter().find_map(|result| result.as_ref().err()).map_or(Exit::Done, Exit::of)
            }
            _ => Exit::Done,
        }
    }
}

/// What a command has to tell that is no answer to a request.
pub struct Report {
    pub text: String,
    pub json: serde_json::Value,
    pub exit: Exit,
}

impl Report {
    /// Of something that is done.
    pub fn done(text: String, json: serde_json::Value) -> Self {
        Self { text, json, exit: Exit::Done }
    }
}

/// Where answers go.
pub struct Output<W> {
    style: Style,
    out: W,
}

impl<W: Write> Output<W> {
    pub fn new(style: Style, out: W) -> Self {
        Self { style, out }
    }

    pub fn style(&self) -> Style {
        self.style
    }

    /// Shows an answer.
    pub fn answer(&mut self, answer: &Answer) -> io::Result<Exit> {
        let text = match self.style {
            Style::Json => json_line(answer),
            style => plain(answer, style),
        };
        self.print(&text)?;
        Ok(answer.exit())
    }

    /// Shows an error. JSON goes to standard output, where its reader is; text goes to standard error.
    pub fn error(&mut self, error: &Error) -> io::Result<Exit> {
        match self.style {
            Style::Json => self.print(&error_json(error))?,
            Style::Interactive => self.print(&format!("(error) {}: {error}", error.name()))?,
            Style::Script => crate::report(&error.to_string()),
        }
        Ok(Exit::of(error))
    }

    /// Shows a mistake in what the user gave.
    pub fn usage_error(&mut self, message: &str) -> io::Result<Exit> {
        match self.style {
            Style::Json => self.print(&error_object("USAGE", message, "not_applied"))?,
            Style::Interactive => self.print(&format!("(error) {message}"))?,
            Style::Script => crate::report(message),
        }
        Ok(Exit::Usage)
    }

    /// Shows a report.
    pub fn report(&mut self, report: &Report) -> io::Result<Exit> {
        match self.style {
            Style::Json => self.print(&format!("{{\"ok\":true,\"value\":{}}}", report.json))?,
            _ => self.print(&report.text)?,
        }
        Ok(report.exit)
    }

    /// Shows what went wrong.
    pub fn failure(&mut self, exit: Exit, code: &str, message: &str, outcome: Outcome) -> io::Result<Exit> {
        match self.style {
            Style::Json => self.print(&error_object(code, message, outcome_name(outcome)))?,
            _ => crate::report(message),
        }
        Ok(exit)
    }

    /// Writes a line.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        // One write, so that lines of several processes on one pipe do not mix.
        let mut line = Vec::with_capacity(text.len() + 1);
        line.extend_from_slice(text.as_bytes());
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }
}

fn plain(answer: &Answer, style: Style) -> String {
    match answer {
        Answer::Value(None) => "(nil)".to_owned(),
        Answer::Value(Some(found)) => shown(&found.value, style),
        Answer::Set(SetOutcome::Stored { .. }) => "OK".to_owned(),
        Answer::Set(SetOutcome::NotStored { current: None }) => "not stored: the key does not exist".to_owned(),
        Answer::Set(SetOutcome::NotStored { current: Some(version) }) => {
            format!("not stored: the key exists, version {version}")
        }
        Answer::Count(count) => number(&count.to_string(), style),
        Answer::Batch(results) => numbered(results, style),
        Answer::Stats(stats) => format!("{stats:#}"),
        Answer::Pong(_) if style == Style::Script => "PONG".to_owned(),
        Answer::Pong(elapsed) => format!("PONG ({:.3} ms)", elapsed.as_secs_f64() * 1_000.0),
        Answer::Benchmark(report) => report.text(),
        Answer::Help(None) => help_of_all(),
        Answer::Help(Some(syntax)) => help_of(syntax),
    }
}

fn number(text: &str, style: Style) -> String {
    match style {
        Style::Interactive => format!("(integer) {text}"),
        _ => text.to_owned(),
    }
}

/// A value: raw for scripts, with its type for people, anything nested as JSON.
fn shown(value: &Value, style: Style) -> String {
    let typed = |name: &str, text: String| match style {
        Style::Interactive => format!("({name}) {text}"),
        _ => text,
    };
    match value {
        Value::String(text) if style == Style::Interactive => quoted(text),
        Value::String(text) => text.clone(),
        Value::Null => typed("null", "null".to_owned()),
        Value::Int32(_) | Value::Int64(_) => typed("integer", json(value)),
        Value::Float64(float) => typed("float", float.to_string()),
        Value::Boolean(boolean) => typed("boolean", boolean.to_string()),
        Value::Timestamp(at_us) => typed("timestamp", format!("{at_us}")),
        Value::Bytes(bytes) => typed("bytes", format!("0x{}", hex(bytes))),
        Value::Error { code, message } => typed("error", format!("{code} {message}")),
        Value::List(_) | Value::Map(_) => json(value),
    }
}

/// A string as the prompt would take it back.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                let mut buffer = [0; 4];
                for byte in control.encode_utf8(&mut buffer).bytes() {
                    quoted.push_str("\\x");
                    quoted.push_str(&hex(&[byte]));
                }
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn numbered(results: &[Result<BatchResult, Error>], style: Style) -> String {
    let lines = results.iter().enumerate().map(|(position, result)| {
        let text = match result {
            Ok(result) => plain(&answer_of(result), style),
            Err(error) => format!("(error) {}: {error}", error.name()),
        };
        match style {
            Style::Interactive => format!("{}) {text}", position + 1),
            _ => text,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What the operation would have answered by itself.
fn answer_of(result: &BatchResult) -> Answer {
    match result {
        BatchResult::Value(found) => Answer::Value(found.clone()),
        BatchResult::Set(outcome) => Answer::Set(*outcome),
        BatchResult::Deleted(yes) | BatchResult::Exists(yes) => Answer::Count(usize::from(*yes)),
    }
}

fn json_line(answer: &Answer) -> String {
    let version_text = |version: Option<u64>| version.map_or("null".to_owned(), |version| format!("\"{version}\""));
    let with_version =
        |value: &str, version| format!("{{\"ok\":true,\"value\":{value},\"version\":{}}}", version_text(version));
    let plain_value = |value: &str| format!("{{\"ok\":true,\"value\":{value}}}");
    match answer {
        Answer::Value(None) => with_version("null", None),
        Answer::Value(Some(found)) => with_version(&json(&found.value), Some(found.version)),
        Answer::Set(SetOutcome::Stored { version }) => with_version("true", Some(*version)),
        Answer::Set(SetOutcome::NotStored { current }) => with_version("false", *current),
        Answer::Count(count) => plain_value(&count.to_string()),
        Answer::Batch(results) => {
            let each = results.iter().map(|result| match result {
                Ok(result) => json_line(&answer_of(result)),
                Err(error) => error_json(error),
            });
            plain_value(&format!("[{}]", each.collect::<Vec<_>>().join(",")))
        }
        Answer::Stats(stats) => plain_value(&stats.to_string()),
        Answer::Pong(elapsed) => {
            format!("{{\"ok\":true,\"value\":\"PONG\",\"latency_us\":{}}}", elapsed.as_micros())
        }
        Answer::Benchmark(report) => plain_value(&report.json().to_string()),
        Answer::Help(None) => plain_value(&json_string(&help_of_all())),
        Answer::Help(Some(syntax)) => plain_value(&json_string(&help_of(syntax))),
    }
}

fn error_json(error: &Error) -> String {
    error_object(error.name(), &error.to_string(), outcome_name(error.outcome()))
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Failed => "failed",
        Outcome::NotApplied => "not_applied",
        Outcome::Unknown => "unknown",
    }
}

fn error_object(code: &str, message: &str, outcome: &str) -> String {
    format!(
        "{{\"ok\":false,\"error\":{{\"code\":\"{code}\",\"message\":{},\"outcome\":\"{outcome}\"}}}}",
        json_string(message)
    )
}

fn help_of_all() -> String {
    let lines = COMMANDS.iter().map(|syntax| format!("  {:<12}{}", syntax.names.join(", "), syntax.summary));
    format!(
        "{}\n\nQuote words with blanks: \"...\" takes \\n \\r \\t \\\\ \\\" and \\xHH, '...' takes everything as it is.\n\
         HELP command shows more. A line that begins with a blank is not kept in the history.",
        lines.collect::<Vec<_>>().join("\n")
    )
}

fn help_of(syntax: &Syntax) -> String {
    let mut text = format!("{} {}", syntax.names.join(" | "), syntax.arguments).trim_end().to_owned();
    for line in [syntax.summary].into_iter().chain(syntax.details.lines()) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: Value) -> Answer {
        Answer::Value(Some(Versioned { value, version: u64::MAX }))
    }

    #[test]
    fn scripts_see_strings_raw_and_people_see_them_quoted() {
        let answer = found(Value::from("a \"b\"\n\u{1}é"));
        assert_eq!(plain(&answer, Style::Script), "a \"b\"\n\u{1}é");
        assert_eq!(plain(&answer, Style::Interactive), r#""a \"b\"\n\x01é""#);
    }

    #[test]
    fn what_is_shown_quoted_is_read_back_the_same() {
        let text = "tab\t quote\" back\\slash \u{7f} \u{85} é \r\n";
        let words = crate::words::split(quoted(text).as_bytes()).expect("one word");
        assert_eq!(words, [text.as_bytes()]);
    }

    #[test]
    fn values_say_their_type_at_the_prompt() {
        for (value, script, interactive) in [
            (Value::Int32(4), "4", "(integer) 4"),
            (Value::Float64(1.5), "1.5", "(float) 1.5"),
            (Value::Null, "null", "(null) null"),
            (Value::Bytes(vec![255]), "0xff", "(bytes) 0xff"),
            (Value::List(vec![Value::from("a"), Value::Int32(1)]), r#"["a",1]"#, r#"["a",1]"#),
        ] {
            let answer = found(value);
            assert_eq!(plain(&answer, Style::Script), script);
            assert_eq!(plain(&answer, Style::Interactive), interactive);
        }
    }

    #[test]
    fn json_lines_are_json() {
        for (answer, expected) in [
            (found(Value::from("x")), r#"{"ok":true,"value":"x","version":"18446744073709551615"}"#),
            (Answer::Value(None), r#"{"ok":true,"value":null,"version":null}"#),
            (Answer::Set(SetOutcome::Stored { version: 1 }), r#"{"ok":true,"value":true,"version":"1"}"#),
            (Answer::Count(2), r#"{"ok":true,"value":2}"#),
            (Answer::Batch(vec![Ok(BatchResult::Deleted(true))]), r#"{"ok":true,"value":[{"ok":true,"value":1}]}"#),
        ] {
            assert_eq!(json_line(&answer), expected);
        }
        for answer in [Answer::Help(None), Answer::Help(crate::commands::find("set"))] {
            serde_json::from_str::<serde_json::Value>(&json_line(&answer)).expect("JSON");
        }
    }

    #[test]
    fn what_is_missing_has_its_own_exit_code() {
        assert_eq!(Answer::Value(None).exit(), Exit::NotFound);
        assert_eq!(Answer::Set(SetOutcome::NotStored { current: None }).exit(), Exit::NotFound);
        assert_eq!(Answer::Count(0).exit(), Exit::NotFound);
        assert_eq!(Answer::Count(1).exit(), Exit::Done);
        assert_eq!(Answer::Batch(vec![Ok(BatchResult::Value(None))]).exit(), Exit::Done);
    }
}
