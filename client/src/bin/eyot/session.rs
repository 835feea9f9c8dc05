//! Executes commands on a client and shows their answers.
//!
//! Place in the flow: between a parsed command and the library.

use std::io::{self, Stdout};

use eyot_client::{AckLevel, BatchOperation, BatchResult, Client, Error, SetOptions};

use crate::benchmark;
use crate::commands::Command;
use crate::output::{Answer, Exit, Output, Style};
use crate::value::ValueType;
use crate::words;

/// A connected command line.
pub struct Session {
    client: Client,
    value_type: ValueType,
    ack: Option<AckLevel>,
    pub output: Output<Stdout>,
}

impl Session {
    pub fn new(client: Client, value_type: ValueType, ack: Option<AckLevel>, output: Output<Stdout>) -> Self {
        Self { client, value_type, ack, output }
    }

    /// Executes one line. `None`: it asks to leave. An empty line is done at once.
    pub async fn execute_line(&mut self, line: &[u8]) -> io::Result<Option<Exit>> {
        let parsed = match words::split(line) {
            Ok(words) if words.is_empty() => return Ok(Some(Exit::Done)),
            Ok(words) => Command::parse(&words, self.value_type),
            Err(message) => Err(message),
        };
        match parsed {
            Ok(Command::Quit) => Ok(None),
            Ok(command) => self.execute(command).await.map(Some),
            Err(message) => self.output.usage_error(&message).map(Some),
        }
    }

    /// Executes a command and shows its answer or its error.
    pub async fn execute(&mut self, command: Command) -> io::Result<Exit> {
        match self.answer(command).await {
            Ok(answer) => self.output.answer(&answer),
            Err(error) => self.output.error(&error),
        }
    }

    async fn answer(&self, command: Command) -> Result<Answer, Error> {
        match command {
            Command::Get { key } => self.client.get(key).await.map(Answer::Value),
            Command::Set { key, value, options } => {
                let options = SetOptions { ack: self.ack, ..options };
                self.client.set_with(key, value, options).await.map(Answer::Set)
            }
            Command::Delete { keys } => self.count(keys.iter().map(BatchOperation::delete).collect()).await,
            Command::Exists { keys } => self.count(keys.iter().map(BatchOperation::exists).collect()).await,
            Command::Batch { operations } => Ok(Answer::Batch(self.client.batch(operations).await)),
            Command::Stats => self.client.stats().await.map(Answer::Stats),
            Command::Ping => self.client.ping().await.map(Answer::Pong),
            Command::Benchmark(plan) => {
                let with_progress = self.output.style() != Style::Json;
                benchmark::run(&self.client, &plan, with_progress).await.map(Answer::Benchmark)
            }
            Command::Help(syntax) => Ok(Answer::Help(syntax)),
            // The prompt and the pipe leave by themselves.
            Command::Quit => Ok(Answer::Count(1)),
        }
    }

    /// How many of the operations say yes. The first error is the error of all.
    async fn count(&self, operations: Vec<BatchOperation>) -> Result<Answer, Error> {
        if let [operation] = &operations[..] {
            let yes = match operation {
                BatchOperation::Delete { key } => self.client.delete(key).await?,
                other => self.client.exists(other.key()).await?,
            };
            return Ok(Answer::Count(usize::from(yes)));
        }
        let mut count = 0;
        for result in self.client.batch(operations).await {
            count += usize::from(matches!(result?, BatchResult::Deleted(true) | BatchResult::Exists(true)));
        }
        Ok(Answer::Count(count))
    }
}
