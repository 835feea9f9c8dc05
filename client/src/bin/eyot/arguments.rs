//! What stands on the command line, and its help.
//!
//! Place in the flow: read first. A subcommand becomes the same words that the prompt takes, so that both have one
//! grammar ([`crate::commands`]).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use eyot_client::{read_password, AckLevel, Options, Password};

use crate::snapshot::arguments::SnapshotCommand;
use crate::value::ValueType;

/// The variable that may hold the password itself.
pub const PASSWORD_VARIABLE: &str = "EYOT_PASSWORD";

const LONG_ABOUT: &str = "\
Talks to an Eyot server.

Without a command it opens a prompt with history, completion and help; or, when standard input is not a terminal, it \
executes the commands that come in, one a line.";

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  the key was not found, or the condition of a SET did not hold; the node that a snapshot is restored to has keys
  2  wrong usage
  3  no connection: the server cannot be reached, was lost, or does not speak the native protocol
  4  the server refused the request
  5  no answer in time; whether a write was applied is unknown
  6  a snapshot is damaged, or a line of a text that is imported is wrong
  7  a local file cannot be read or written
  130  interrupted
  Commands from standard input: the code of the first that did not end with 0.

Examples:
  eyot set user:1 '{\"name\":\"John\",\"age\":30}'
  eyot get user:1
  eyot set session:7 token EX 3600 NX
  eyot --type json set user:2 '{\"name\":\"Ann\",\"tags\":[\"a\",\"b\"]}'
  eyot set photo:1 - --type bytes < photo.hex
  eyot --address db.example:6380 --json get user:1
  printf 'SET a 1\\nGET a\\n' | eyot
  eyot snapshot save backup.eyot
  eyot --address new.example:6380 snapshot restore backup.eyot";

const VALUE_TYPE_HELP: &str = "\
Type under which SET and BATCH store the values that they are given

  string   the text as it was given (default)
  int32    a whole number of 32 bits
  int64    a whole number of 64 bits
  float64  a floating-point number
  bool     true or false
  bytes    hexadecimal digits, with or without 0x in front
  json     JSON: objects become maps, arrays lists, whole numbers int64, other numbers float64";

/// Talks to an Eyot server.
#[derive(Debug, Parser)]
#[command(name = "eyot", version, about, long_about = LONG_ABOUT, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Arguments {
    /// The server's address: any of its native ports
    #[arg(
        short,
        long,
        env = "EYOT_ADDRESS",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:6380",
        global = true
    )]
    pub address: String,

    /// File with the server's password; only its owner may have access to it. Or set EYOT_PASSWORD to the password
    /// itself
    #[arg(long, env = "EYOT_PASSWORD_FILE", value_name = "FILE", global = true)]
    pub password_file: Option<PathBuf>,

    /// Print one JSON object a line: {"ok":true,"value":...,"version":"..."} or
    /// {"ok":false,"error":{"code":"BUSY","message":"...","outcome":"not_applied"}}
    #[arg(long, global = true)]
    pub json: bool,

    /// How long connecting and each request may take: 500ms, 5s, 1m, or a number of seconds
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration, global = true)]
    pub timeout: Duration,

    /// Send everything to the given address instead of to the core that owns each key
    #[arg(long, global = true)]
    pub no_route: bool,

    #[arg(
        long = "type",
        value_name = "TYPE",
        value_enum,
        default_value_t = ValueType::String,
        hide_possible_values = true,
        help = VALUE_TYPE_HELP,
        global = true
    )]
    pub value_type: ValueType,

    /// When the reply to a write leaves [default: as the server is configured]
    #[arg(long, value_enum, value_name = "LEVEL", global = true)]
    pub ack: Option<Ack>,

    #[command(subcommand)]
    pub command: Option<OneShot>,
}

/// When the reply to a write leaves.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Ack {
    /// The server has it in memory
    Memory,
    /// It is on the server's disk
    Fsync,
    /// It is on the disks of a majority
    Quorum,
}

impl From<Ack> for AckLevel {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Memory => Self::Memory,
            Ack::Fsync => Self::Fsync,
            Ack::Quorum => Self::Quorum,
        }
    }
}

/// A command on the command line. Words are bytes: a key need not be text.
#[derive(Debug, Subcommand)]
pub enum OneShot {
    /// Print the value of a key; (nil) and exit code 1 where it does not exist
    #[command(alias = "GET")]
    Get {
        /// The key
        #[arg(allow_hyphen_values = true)]
        key: OsString,
    },
    /// Store a value under a key
    #[command(visible_alias = "put", aliases = ["SET", "PUT"])]
    Set {
        /// The key
        #[arg(allow_hyphen_values = true)]
        key: OsString,
        /// The value, stored as --type says; `-` reads it from standard input, to the last byte
        #[arg(allow_hyphen_values = true)]
        value: OsString,
        /// EX seconds | PX milliseconds (time to live); NX (only if absent) | XX (only if present) | IFVERSION version
        #[arg(value_name = "EX 60 | NX | ...")]
        options: Vec<OsString>,
    },
    /// Remove keys; print how many there were, exit code 1 where there was none
    #[command(visible_alias = "del", aliases = ["DELETE", "DEL"])]
    Delete {
        /// The keys
        #[arg(required = true, allow_hyphen_values = true)]
        keys: Vec<OsString>,
    },
    /// Print how many of the keys exist; exit code 1 where none does
    #[command(alias = "EXISTS")]
    Exists {
        /// The keys
        #[arg(required = true, allow_hyphen_values = true)]
        keys: Vec<OsString>,
    },
    /// Execute several operations in one request and print a result for each
    #[command(alias = "BATCH")]
    Batch {
        /// GET key | SET key value | DELETE key | EXISTS key, one after the other
        #[arg(required = true, allow_hyphen_values = true, value_name = "OP KEY [VALUE]")]
        operations: Vec<OsString>,
    },
    /// Print the server's figures as JSON
    #[command(alias = "STATS")]
    Stats,
    /// Ask whether the server is there
    #[command(alias = "PING")]
    Ping,
    /// Measure: SET, then GET, 50 requests at a time; the keys are deleted afterwards
    #[command(alias = "BENCHMARK")]
    Benchmark {
        /// How many SETs, and then GETs
        operations: OsString,
        /// The keys are PREFIX:0, PREFIX:1, ... [default: benchmark]
        prefix: Option<OsString>,
        /// Bytes of a value [default: 64]
        value_size: Option<OsString>,
    },
    /// Save the database to a file, restore it, and look into such files
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
}

impl Arguments {
    /// How the client is to connect. `variable` is the value of [`PASSWORD_VARIABLE`].
    pub fn options(&self, variable: Option<OsString>) -> Result<Options, String> {
        let password = match (&self.password_file, variable) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                return Err(format!("--password-file: {PASSWORD_VARIABLE} is set as well; give one of the two"))
            }
            (Some(path), None) => Some(read_password(path).map_err(|error| error.to_string())?),
            (None, Some(text)) => {
                Some(Password::new(text.as_bytes()).map_err(|error| format!("{PASSWORD_VARIABLE}: {error}"))?)
            }
        };
        Ok(Options {
            password,
            connect_timeout: self.timeout,
            request_timeout: self.timeout,
            routing: !self.no_route,
            ack: self.ack.map_or(AckLevel::Default, Into::into),
            client_name: concat!("eyot ", env!("CARGO_PKG_VERSION")).to_owned(),
            ..Options::default()
        })
    }

    /// What stands behind `snapshot`; `None` where another command stands, or none.
    pub fn snapshot(&self) -> Option<&SnapshotCommand> {
        match &self.command {
            Some(OneShot::Snapshot { command }) => Some(command),
            _ => None,
        }
    }

    /// The words of the command, as the prompt would take them; `None` without one.
    pub fn one_shot_words(&self) -> Option<Vec<Vec<u8>>> {
        let command = self.command.as_ref()?;
        let (name, words): (&str, Vec<&OsString>) = match command {
            OneShot::Get { key } => ("GET", vec![key]),
            OneShot::Set { key, value, options } => ("SET", [key, value].into_iter().chain(options).collect()),
            OneShot::Delete { keys } => ("DELETE", keys.iter().collect()),
            OneShot::Exists { keys } => ("EXISTS", keys.iter().collect()),
            OneShot::Batch { operations } => ("BATCH", operations.iter().collect()),
            OneShot::Stats => ("STATS", Vec::new()),
            OneShot::Snapshot { .. } => return None,
            OneShot::Ping => ("PING", Vec::new()),
            OneShot::Benchmark { operations, prefix, value_size } => {
                ("BENCHMARK", [operations].into_iter().chain(prefix).chain(value_size).collect())
            }
        };
        let words = words.into_iter().map(|word| word.clone().into_vec());
        Some([name.as_bytes().to_vec()].into_iter().chain(words).collect())
    }
}

/// Reads `500ms`, `5s`, `1m`, or a number of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let number_end = text.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        other => return Err(format!("unit {other:?}; give ms, s or m")),
    };
    let number: f64 = number.parse().map_err(|_| "give a number and a unit, as in 500ms, 5s or 1m".to_owned())?;
    let duration = Duration::try_from_secs_f64(number * seconds_per_unit)
        .map_err(|_| "a duration is not negative and not endless".to_owned())?;
    if duration < Duration::from_millis(1) || duration > eyot_client::options::MAX_TIMEOUT {
        return Err("give 1ms to a day".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn words(arguments: &[&str]) -> Vec<String> {
        let arguments = Arguments::try_parse_from([&["eyot"], arguments].concat()).expect("parses");
        let words = arguments.one_shot_words().expect("a command");
        words.into_iter().map(|word| String::from_utf8(word).expect("text")).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn subcommands_become_the_words_of_the_prompt() {
        assert_eq!(words(&["put", "k", "v", "EX", "5"]), ["SET", "k", "v", "EX", "5"]);
        assert_eq!(words(&["GET", "k"]), ["GET", "k"]);
        assert_eq!(words(&["del", "a", "b"]), ["DELETE", "a", "b"]);
        assert_eq!(words(&["benchmark", "10", "p"]), ["BENCHMARK", "10", "p"]);
    }

    #[test]
    fn values_may_begin_with_a_dash() {
        assert_eq!(words(&["set", "k", "-5"]), ["SET", "k", "-5"]);
        assert_eq!(words(&["set", "k", "-"]), ["SET", "k", "-"]);
        assert_eq!(words(&["set", "k", "--", "--json"]), ["SET", "k", "--json"]);
    }

    #[test]
    fn options_may_stand_before_and_after_the_command() {
        for arguments in [["--json", "get", "k"], ["get", "k", "--json"]] {
            let arguments = Arguments::try_parse_from([&["eyot"], &arguments[..]].concat()).expect("parses");
            assert!(arguments.json);
        }
    }

    #[test]
    fn a_password_comes_from_one_place() {
        let options = |arguments: &[&str], variable: Option<&str>| {
            let arguments = Arguments::try_parse_from([&["eyot"], arguments].concat()).expect("parses");
            arguments.options(variable.map(OsString::from))
        };
        assert_eq!(options(&["ping"], None).expect("none").password, None);
        let found = options(&["ping"], Some("canary")).expect("one").password.expect("a password");
        assert_eq!(found.bytes(), b"canary");
        for (arguments, variable, word) in [
            (&["--password-file", "/nowhere/at/all", "ping"][..], None, "/nowhere/at/all"),
            (&["--password-file", "/nowhere/at/all", "ping"], Some("canary"), "as well"),
            (&["ping"], Some(""), "empty"),
        ] {
            let message = options(arguments, variable).expect_err("no password");
            assert!(message.contains(word) && !message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "-1s", "5h", "0", "1e99", "nan", "inf"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
