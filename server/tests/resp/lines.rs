//! Commands as a random sequence holds them: their arguments, the way they are written, and whether they are answered.

use std::fmt;

use crate::support::resp::put_command;

/// One command.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    pub arguments: Vec<Vec<u8>>,
    /// The bytes that ask for it where it is not sent as an array of bulks.
    pub inline: Option<Vec<u8>>,
    /// Whether a reply comes (`CLIENT REPLY` can forbid it).
    pub answered: bool,
}

impl Line {
    pub fn new<A: AsRef<[u8]>>(arguments: &[A]) -> Self {
        let arguments = arguments.iter().map(|argument| argument.as_ref().to_vec()).collect();
        Self { arguments, inline: None, answered: true }
    }

    /// The words of `text`, separated by spaces.
    pub fn of(text: &str) -> Self {
        Self::new(&text.split(' ').collect::<Vec<_>>())
    }

    /// The same, for which no reply comes.
    pub fn silent(mut self) -> Self {
        self.answered = false;
        self
    }

    /// The same, sent as an inline command.
    pub fn inline(mut self) -> Self {
        let mut bytes = Vec::new();
        for (at, argument) in self.arguments.iter().enumerate() {
            if at > 0 {
                bytes.push(b' ');
            }
            let plain = !argument.is_empty() && argument.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"');
            if plain && argument.iter().all(|byte| *byte != b'\'') {
                bytes.extend_from_slice(argument);
            } else {
                quote(argument, &mut bytes);
            }
        }
        // Redis takes a bare LF, too.
        bytes.extend_from_slice(if bytes.len().is_multiple_of(2) { b"\r\n" } else { b"\n" });
        self.inline = Some(bytes);
        self
    }

    /// Whether it may write a key whose time is past.
    pub fn leaves_a_ghost(&self) -> bool {
        let is_time = |at: usize| matches!(self.word(at).as_str(), "EXAT" | "PXAT");
        self.word(0) == "SET" && (3..self.arguments.len()).any(is_time)
    }

    /// Appends the bytes that ask for it.
    pub fn put(&self, out: &mut Vec<u8>) {
        match &self.inline {
            Some(bytes) => out.extend_from_slice(bytes),
            None => put_command(out, &self.arguments),
        }
    }

    /// The word at `at` in capitals, or nothing.
    pub fn word(&self, at: usize) -> String {
        let word = self.arguments.get(at).map_or(&b""[..], Vec::as_slice);
        String::from_utf8_lossy(word).to_ascii_uppercase()
    }
}

fn quote(argument: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in argument {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}

impl fmt::Debug for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for argument in &self.arguments {
            let text = argument.escape_ascii().to_string();
            if text.is_empty() || text.contains(' ') || text.contains('"') {
                write!(formatter, "\"{text}\" ")?;
            } else {
                write!(formatter, "{text} ")?;
            }
        }
        if self.inline.is_some() {
            write!(formatter, "(inline)")?;
        }
        Ok(())
    }
}

/// Commands that belong together: shrinking takes all of them or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sent in a pipeline with what stands before and after.
    Lines(Vec<Line>),
    /// A whole iteration: SCAN with these arguments behind its cursor, until the cursor is 0 again.
    Scan(Vec<Vec<u8>>),
}

impl Step {
    /// The number of commands, an iteration counted as one.
    pub fn count(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.len(),
            Self::Scan(_) => 1,
        }
    }
}
