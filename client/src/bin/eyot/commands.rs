//! The table of commands, and from words to a command: one grammar for the prompt, the pipe and the command line.
//!
//! Place in the flow: between words and [`crate::session`].
//!
//! HELP, completion and hints read the same table ([`COMMANDS`]).

use eyot_client::{BatchOperation, Condition, Expiry, Operation, SetOptions, Value};

use crate::value::ValueType;

/// Most operations of a BENCHMARK: about an hour on a fast machine.
const BENCHMARK_OPERATIONS_MAX: u64 = 1_000_000_000;
/// Largest value of a BENCHMARK (16 MiB): every request in flight holds one.
const BENCHMARK_VALUE_BYTES_MAX: u64 = 16 << 20;

/// A row of the table.
#[derive(Debug)]
pub struct Syntax {
    /// The name, and others for the same.
    pub names: &'static [&'static str],
    /// What follows the name.
    pub arguments: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// More lines, for HELP of this command.
    pub details: &'static str,
}

/// Every command, in the order of HELP.
pub const COMMANDS: &[Syntax] = &[
    Syntax {
        names: &["GET"],
        arguments: "key",
        summary: "Show the value of a key; (nil) where it does not exist",
        details: "",
    },
    Syntax {
        names: &["SET", "PUT"],
        arguments: "key value [EX seconds | PX milliseconds] [NX | XX | IFVERSION version]",
        summary: "Store a value under a key",
        details: "EX, PX      time to live\n\
                  NX          only if the key does not exist\n\
                  XX          only if the key exists\n\
                  IFVERSION   only if the key's last write has this version (see --json)\n\
                  The value is stored as a string, or as --type says.",
    },
    Syntax {
        names: &["DELETE", "DEL"],
        arguments: "key [key ...]",
        summary: "Remove keys; show how many there were",
        details: "",
    },
    Syntax { names: &["EXISTS"], arguments: "key [key ...]", summary: "Show how many of the keys exist", details: "" },
    Syntax {
        names: &["BATCH"],
        arguments: "op key [value] [op key [value] ...]",
        summary: "Execute several operations in one request, one result each",
        details: "op is GET key, SET key value, DELETE key or EXISTS key.\n\
                  Not a transaction: each operation succeeds or fails alone.",
    },
    Syntax { names: &["STATS"], arguments: "", summary: "Show the server's figures", details: "" },
    Syntax { names: &["PING"], arguments: "", summary: "Ask whether the server is there", details: "" },
    Syntax {
        names: &["BENCHMARK"],
        arguments: "ops [prefix] [valuesize]",
        summary: "Measure SET, then GET",
        details: "50 requests at a time, on at most 100,000 keys named prefix:0, prefix:1, ... (default prefix:\n\
                  benchmark), with values of valuesize bytes (default 64). The keys are deleted afterwards.\n\
                  For load that tells the whole truth about latency use eyot-loadgen.",
    },
    Syntax { names: &["HELP"], arguments: "[command]", summary: "Show all commands, or one of them", details: "" },
    Syntax { names: &["QUIT", "EXIT"], arguments: "", summary: "Leave", details: "" },
];

/// The row of a command, whatever its case.
pub fn find(name: &str) -> Option<&'static Syntax> {
    COMMANDS.iter().find(|syntax| syntax.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// What BENCHMARK is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchmarkPlan {
    pub operations: u64,
    pub prefix: Vec<u8>,
    pub value_bytes: usize,
}

/// A command that is ready to be executed.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Get { key: Vec<u8> },
    Set { key: Vec<u8>, value: Value, options: SetOptions },
    Delete { keys: Vec<Vec<u8>> },
    Exists { keys: Vec<Vec<u8>> },
    Batch { operations: Vec<BatchOperation> },
    Stats,
    Ping,
    Benchmark(BenchmarkPlan),
    Help(Option<&'static Syntax>),
    Quit,
}

impl PartialEq for Syntax {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl Command {
    /// The command that `words` (at least one) say; values become values of `value_type`.
    ///
    /// # Errors
    /// What is wrong, with the right syntax.
    pub fn parse(words: &[Vec<u8>], value_type: ValueType) -> Result<Self, String> {
        let (name, arguments) = words.split_first().ok_or("no command")?;
        let name = String::from_utf8_lossy(name);
        let syntax = find(&name).ok_or_else(|| format!("unknown command {name:?}; HELP shows all commands"))?;
        let usage = |reason: &str| match syntax.arguments {
            "" => format!("{reason}; usage: {}", syntax.names[0]),
            arguments => format!("{reason}; usage: {} {arguments}", syntax.names[0]),
        };
        let parsed = match (syntax.names[0], arguments) {
            ("GET", [key]) => Ok(Self::Get { key: key.clone() }),
            ("SET", [key, value, options @ ..]) => parse_set(key, value, options, value_type),
            ("DELETE", [_, ..]) => Ok(Self::Delete { keys: arguments.to_vec() }),
            ("EXISTS", [_, ..]) => Ok(Self::Exists { keys: arguments.to_vec() }),
            ("BATCH", [_, ..]) => parse_batch(arguments, value_type),
            ("STATS", []) => Ok(Self::Stats),
            ("PING", []) => Ok(Self::Ping),
            ("BENCHMARK", [operations, rest @ ..]) if rest.len() <= 2 => parse_benchmark(operations, rest),
            ("HELP", []) => Ok(Self::Help(None)),
            ("HELP", [name]) => {
                let name = String::from_utf8_lossy(name);
                find(&name).map(|syntax| Self::Help(Some(syntax))).ok_or_else(|| format!("unknown command {name:?}"))
            }
            ("QUIT", []) => Ok(Self::Quit),
            _ => Err(format!("{} does not take {} arguments", syntax.names[0], arguments.len())),
        };
        parsed.map_err(|reason| usage(&reason))
    }
}

fn parse_set(key: &[u8], value: &[u8], words: &[Vec<u8>], value_type: ValueType) -> Result<Command, String> {
    let mut options = SetOptions::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let name = String::from_utf8_lossy(word).to_ascii_uppercase();
        let mut number = || positive(words.next(), &name);
        let (mut expiry, mut condition) = (None, None);
        match &*name {
            "EX" => {
                let ms = number()?.checked_mul(1_000).filter(|ms| i64::try_from(*ms).is_ok());
                expiry = Some(Expiry::AfterMs(ms.ok_or("EX: too many seconds")?));
            }
            "PX" => expiry = Some(Expiry::AfterMs(number()?)),
            "NX" => condition = Some(Condition::IfAbsent),
            "XX" => condition = Some(Condition::IfPresent),
            "IFVERSION" => condition = Some(Condition::IfVersion(number()?)),
            _ => return Err(format!("SET has no option {name:?}; quote a value that contains blanks")),
        }
        if let Some(expiry) = expiry {
            if options.expiry != Expiry::Never {
                return Err("a second time to live".to_owned());
            }
            options.expiry = expiry;
        }
        if let Some(condition) = condition {
            if options.condition != Condition::Always {
                return Err("a second condition".to_owned());
            }
            options.condition = condition;
        }
    }
    Ok(Command::Set { key: key.to_vec(), value: value_type.parse(value)?, options })
}

/// A whole number above 0 that fits 63 bits, as those of the protocol do.
fn positive(word: Option<&Vec<u8>>, name: &str) -> Result<u64, String> {
    let text = word.map(|word| String::from_utf8_lossy(word)).ok_or_else(|| format!("{name} takes a number"))?;
    let number = text.parse::<i64>().ok().filter(|number| *number > 0);
    number.map(|number| number as u64).ok_or_else(|| format!("{name}: {text:?} is not a whole number above 0"))
}

fn parse_batch(mut words: &[Vec<u8>], value_type: ValueType) -> Result<Command, String> {
    let mut operations = Vec::new();
    while let [name, rest @ ..] = words {
        let name = String::from_utf8_lossy(name);
        let operation = find(&name).map(|syntax| syntax.names[0]);
        let (operation, taken) = match (operation, rest) {
            (Some("GET"), [key, ..]) => (BatchOperation::get(key), 1),
            (Some("SET"), [key, value, ..]) => (BatchOperation::set(key, value_type.parse(value)?), 2),
            (Some("DELETE"), [key, ..]) => (BatchOperation::delete(key), 1),
            (Some("EXISTS"), [key, ..]) => (BatchOperation::exists(key), 1),
            (Some("GET" | "SET" | "DELETE" | "EXISTS"), _) => {
                let number = operations.len() + 1;
                return Err(format!("operation {number} ({}) lacks its key or value", name.to_ascii_uppercase()));
            }
            _ => {
                let known = [Operation::Get, Operation::Set, Operation::Delete, Operation::Exists].map(Operation::name);
                return Err(format!("operation {}: {name:?} is none of {}", operations.len() + 1, known.join(", ")));
            }
        };
        operations.push(operation);
        words = &rest[taken..];
    }
    Ok(Command::Batch { operations })
}

fn parse_benchmark(operations: &Vec<u8>, rest: &[Vec<u8>]) -> Result<Command, String> {
    let bounded = |word: &Vec<u8>, name: &str, limit: u64| {
        let number = positive(Some(word), name)?;
        if number > limit {
            return Err(format!("{name}: {number}; at most {limit}"));
        }
        Ok(number)
    };
    let value_bytes =
        rest.get(1).map_or(Ok(64), |word| bounded(word, "valuesize", BENCHMARK_VALUE_BYTES_MAX))? as usize;
    Ok(Command::Benchmark(BenchmarkPlan {
        operations: bounded(operations, "ops", BENCHMARK_OPERATIONS_MAX)?,
        prefix: rest.first().cloned().unwrap_or_else(|| b"benchmark".to_vec()),
        value_bytes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(&words::split(line.as_bytes()).expect("splits"), ValueType::String)
    }

    fn set(line: &str) -> SetOptions {
        match parse(line) {
            Ok(Command::Set { options, .. }) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!(parse("get k"), Ok(Command::Get { key: b"k".to_vec() }));
        assert_eq!(parse("PuT k v"), parse("SET k v"));
        assert_eq!(parse("exit"), Ok(Command::Quit));
        assert_eq!(parse("del a b"), Ok(Command::Delete { keys: vec![b"a".to_vec(), b"b".to_vec()] }));
    }

    #[test]
    fn set_takes_a_time_to_live_and_a_condition() {
        let options = set("set k v ex 10 nx");
        assert_eq!((options.expiry, options.condition), (Expiry::AfterMs(10_000), Condition::IfAbsent));
        let options = set("set k v IFVERSION 7 PX 1500");
        assert_eq!((options.expiry, options.condition), (Expiry::AfterMs(1_500), Condition::IfVersion(7)));
        assert_eq!(set("set k v XX").condition, Condition::IfPresent);
    }

    #[test]
    fn wrong_options_of_set_are_named() {
        for (line, part) in [
            ("set k v EX", "EX takes a number"),
            ("set k v EX 0", "above 0"),
            ("set k v EX 9223372036854775807", "too many seconds"),
            ("set k v EX 1 PX 1", "second time to live"),
            ("set k v NX XX", "second condition"),
            ("set k two words", "quote a value"),
            ("set k", "usage: SET key value"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn a_batch_is_a_sequence_of_operations() {
        let expected = vec![
            BatchOperation::set("a", "1"),
            BatchOperation::get("a"),
            BatchOperation::delete("b"),
            BatchOperation::exists("c"),
        ];
        assert_eq!(parse("batch put a 1 get a del b exists c"), Ok(Command::Batch { operations: expected }));
        assert!(parse("batch get a set b").expect_err("no value").contains("operation 2 (SET)"));
        assert!(parse("batch get a incr b").expect_err("unknown").contains("operation 2: \"incr\""));
    }

    #[test]
    fn a_benchmark_has_bounds() {
        let plan = BenchmarkPlan { operations: 10, prefix: b"p".to_vec(), value_bytes: 100 };
        assert_eq!(parse("benchmark 10 p 100"), Ok(Command::Benchmark(plan)));
        for line in ["benchmark", "benchmark 0", "benchmark x", "benchmark 1 p 99999999999", "benchmark 1 p 1 1"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_command_of_the_table_is_understood() {
        for syntax in COMMANDS {
            let error = parse(&format!("{} a b c d e f g", syntax.names[0]));
            let unknown = matches!(&error, Err(error) if error.contains("unknown command"));
            assert!(!unknown, "{syntax:?}: {error:?}");
        }
        assert!(parse("flushall").expect_err("unknown").contains("HELP"));
    }
}
