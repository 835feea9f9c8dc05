//! A blocking RESP client over a plain socket: it reads each type of reply as what it is, and can send what no library
//! would.
//!
//! Place in the flow: before step 1 and after step 9, on the user's side of the wire.
//!
//! Deliberately not here: retries, redirections and conversions of replies, which would hide what the server does.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a reply may take.
const REPLY_PATIENCE: Duration = Duration::from_secs(30);
/// What one read takes at least.
const READ_BYTES: usize = 64 * 1024;
/// A reply nested deeper is none of ours: the reader stops instead of recursing on.
const MAX_DEPTH: usize = 32;

/// A reply with its type on the wire.
#[derive(Clone, PartialEq)]
pub enum Reply {
    /// `+`
    Status(Vec<u8>),
    /// `-`
    Error(String),
    /// `:`
    Integer(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `*`
    Array(Vec<Reply>),
    /// `_` (RESP3)
    Null,
    /// `%` (RESP3)
    Map(Vec<(Reply, Reply)>),
    /// `~` (RESP3)
    Set(Vec<Reply>),
    /// `>` (RESP3)
    Push(Vec<Reply>),
    /// `,` (RESP3), as its text
    Double(String),
    /// `#` (RESP3)
    Boolean(bool),
    /// `=` (RESP3): format and text
    Verbatim(String, Vec<u8>),
    /// `(` (RESP3)
    BigNumber(String),
}

/// Bytes as a reader wants them: text where it is text, and no more of it than fits a line or two.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 160;
    let text = bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii();
    match bytes.len() {
        0..=SHOWN_BYTES => format!("\"{text}\""),
        length => format!("\"{text}\"... ({length} bytes)"),
    }
}

/// Elements as a reader wants them: not all, where they are many.
fn listed(elements: &[Reply]) -> String {
    const SHOWN_ELEMENTS: usize = 12;
    let first = &elements[..elements.len().min(SHOWN_ELEMENTS)];
    match elements.len() {
        0..=SHOWN_ELEMENTS => format!("{first:?}"),
        count => format!("{first:?}... ({count} elements)"),
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(text) => write!(formatter, "+{}", shown(text)),
            Self::Error(text) => write!(formatter, "-{text:?}"),
            Self::Integer(number) => write!(formatter, ":{number}"),
            Self::Bulk(bytes) => write!(formatter, "${}", shown(bytes)),
            Self::NullBulk => write!(formatter, "$-1"),
            Self::NullArray => write!(formatter, "*-1"),
            Self::Array(elements) => write!(formatter, "*{}", listed(elements)),
            Self::Null => write!(formatter, "_"),
            Self::Map(pairs) => write!(formatter, "%{pairs:?}"),
            Self::Set(elements) => write!(formatter, "~{}", listed(elements)),
            Self::Push(elements) => write!(formatter, ">{}", listed(elements)),
            Self::Double(text) => write!(formatter, ",{text}"),
            Self::Boolean(truth) => write!(formatter, "#{truth}"),
            Self::Verbatim(format, text) => write!(formatter, "={format}:{}", shown(text)),
            Self::BigNumber(text) => write!(formatter, "({text}"),
        }
    }
}

impl Reply {
    /// A status of the text `text`.
    pub fn status(text: &str) -> Self {
        Self::Status(text.as_bytes().to_vec())
    }

    /// A bulk of the bytes `bytes`.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    /// The line of an error.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(line) => Some(line),
            _ => None,
        }
    }

    /// The first word of an error's line: what clients match on.
    pub fn error_word(&self) -> Option<&str> {
        self.error().map(|line| line.split(' ').next().unwrap_or_default())
    }

    /// Whether it says that there is nothing, in whichever protocol.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::NullBulk | Self::NullArray | Self::Null)
    }

    /// The bytes of a bulk, a status or a verbatim text.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) | Self::Status(bytes) | Self::Verbatim(_, bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The bytes as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        let bytes = self.bytes().unwrap_or_else(|| panic!("no text: {self:?}"));
        std::str::from_utf8(bytes).expect("text is UTF-8")
    }

    /// The number of an integer reply.
    #[track_caller]
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("no integer: {other:?}"),
        }
    }

    /// The elements of an array, a set or a push; those of a map one after the other.
    #[track_caller]
    pub fn elements(&self) -> Vec<Reply> {
        match self {
            Self::Array(elements) | Self::Set(elements) | Self::Push(elements) => elements.clone(),
            Self::Map(pairs) => pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect(),
            other => panic!("no elements: {other:?}"),
        }
    }

    /// What a map, or an array of names and values, holds under `name`.
    #[track_caller]
    pub fn field(&self, name: &str) -> Reply {
        let elements = self.elements();
        let found = elements.chunks_exact(2).find(|pair| pair[0].bytes() == Some(name.as_bytes()));
        found.unwrap_or_else(|| panic!("no {name:?}: {self:?}"))[1].clone()
    }
}

/// Why bytes are no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(String);

/// Takes replies off the front of bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Taken<T> = Result<Option<T>, Malformed>;

impl<'a> Reader<'a> {
    /// The next line without its end; `None` where it is unfinished.
    fn line(&mut self) -> Taken<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
        let line = rest[..end].strip_suffix(b"\r").ok_or_else(|| Malformed(format!("bare LF: {}", shown(rest))))?;
        self.at += end + 1;
        Ok(Some(line))
    }

    fn blob(&mut self, length: i64) -> Taken<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| Malformed(format!("a length of {length}")))?;
        let rest = &self.bytes[self.at..];
        if rest.len() < length + 2 {
            return Ok(None);
        }
        if rest[length..length + 2] != *b"\r\n" {
            return Err(Malformed(format!("no end after {length} bytes: {}", shown(&rest[length..length + 2]))));
        }
        self.at += length + 2;
        Ok(Some(rest[..length].to_vec()))
    }

    fn several(&mut self, count: i64, depth: usize) -> Taken<Vec<Reply>> {
        let count = usize::try_from(count).map_err(|_| Malformed(format!("a count of {count}")))?;
        let mut elements = Vec::new();
        for _ in 0..count {
            match self.reply(depth + 1)? {
                Some(element) => elements.push(element),
                None => return Ok(None),
            }
        }
        Ok(Some(elements))
    }

    fn reply(&mut self, depth: usize) -> Taken<Reply> {
        if depth > MAX_DEPTH {
            return Err(Malformed("nested too deeply".to_owned()));
        }
        let Some(line) = self.line()? else { return Ok(None) };
        let wrong = || Malformed(format!("no reply: {}", shown(line)));
        let (kind, text) = line.split_first().ok_or_else(wrong)?;
        let utf8 = || String::from_utf8(text.to_vec()).map_err(|_| wrong());
        let number = || utf8()?.parse::<i64>().map_err(|_| wrong());
        let reply = match (*kind, text) {
            (b'+', text) => Some(Reply::Status(text.to_vec())),
            (b'-', _) => Some(Reply::Error(String::from_utf8_lossy(text).into_owned())),
            (b':', _) => Some(Reply::Integer(number()?)),
            (b'$', b"-1") => Some(Reply::NullBulk),
            (b'$', _) => self.blob(number()?)?.map(Reply::Bulk),
            (b'*', b"-1") => Some(Reply::NullArray),
            (b'*', _) => self.several(number()?, depth)?.map(Reply::Array),
            (b'_', b"") => Some(Reply::Null),
            (b'%', _) => self.several(number()?.saturating_mul(2), depth)?.map(|flat| {
                let pairs = flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                Reply::Map(pairs.collect())
            }),
            (b'~', _) => self.several(number()?, depth)?.map(Reply::Set),
            (b'>', _) => self.several(number()?, depth)?.map(Reply::Push),
            (b',', _) => Some(Reply::Double(utf8()?)),
            (b'#', b"t") => Some(Reply::Boolean(true)),
            (b'#', b"f") => Some(Reply::Boolean(false)),
            (b'=', _) => match self.blob(number()?)? {
                None => None,
                Some(blob) if blob.len() >= 4 && blob[3] == b':' => {
                    Some(Reply::Verbatim(String::from_utf8_lossy(&blob[..3]).into_owned(), blob[4..].to_vec()))
                }
                Some(_) => return Err(wrong()),
            },
            (b'(', _) => Some(Reply::BigNumber(utf8()?)),
            _ => return Err(wrong()),
        };
        Ok(reply)
    }
}

/// The reply at the start of `bytes` and its length; `None` where it is unfinished.
pub fn parse_reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let mut reader = Reader { bytes, at: 0 };
    Ok(reader.reply(0)?.map(|reply| (reply, reader.at)))
}

/// Appends the command of `arguments` to `out`, as an array of bulks.
pub fn put_command<A: AsRef<[u8]>>(out: &mut Vec<u8>, arguments: &[A]) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        let bytes = argument.as_ref();
        out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

/// One connection.
#[derive(Debug)]
pub struct RespClient {
    pub stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that were taken.
    taken: usize,
}

impl RespClient {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("the server accepts"))
    }

    pub fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option of every socket");
        stream.set_read_timeout(Some(REPLY_PATIENCE)).expect("an option of every socket");
        stream.set_write_timeout(Some(REPLY_PATIENCE)).expect("an option of every socket");
        Self { stream, input: Vec::new(), taken: 0 }
    }

    /// Sends `bytes` as they are.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends the command of `arguments`.
    #[track_caller]
    pub fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) {
        let mut out = Vec::new();
        put_command(&mut out, arguments);
        self.send_raw(&out);
    }

    /// Says that nothing more will come.
    pub fn close_half(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("an open socket");
    }

    /// The next reply, or `None` where the server has closed.
    ///
    /// # Panics
    /// When the server sends what is no reply.
    pub fn try_receive(&mut self) -> std::io::Result<Option<Reply>> {
        loop {
            let parsed = parse_reply(&self.input[self.taken..]).unwrap_or_else(|error| panic!("{error:?}"));
            if let Some((reply, length)) = parsed {
                self.taken += length;
                return Ok(Some(reply));
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let length = self.input.len();
            // A long reply is parsed anew after each read, so each read takes as much as is there already.
            self.input.resize(length + READ_BYTES.max(length), 0);
            let count = self.stream.read(&mut self.input[length..]);
            self.input.truncate(length + *count.as_ref().unwrap_or(&0));
            match count {
                Ok(0) if self.input.is_empty() => return Ok(None),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next reply.
    #[track_caller]
    pub fn receive(&mut self) -> Reply {
        match self.try_receive() {
            Ok(Some(reply)) => reply,
            Ok(None) => panic!("the server closed the connection instead of replying"),
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// Sends the command of `arguments` and waits for its reply.
    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Reply {
        self.send(arguments);
        self.receive()
    }

    /// Sends the command whose words are separated by spaces in `line`, as an array of bulks, and waits for its reply.
    #[track_caller]
    pub fn say(&mut self, line: &str) -> Reply {
        self.call(&line.split(' ').collect::<Vec<_>>())
    }

    /// As [`say`](Self::say); the reply must be `+OK`.
    #[track_caller]
    pub fn must(&mut self, line: &str) {
        assert_eq!(self.say(line), Reply::status("OK"), "{line}");
    }

    /// Sends `bytes` while it receives `replies` of them: a pipeline of any depth, without either side blocking the
    /// other.
    #[track_caller]
    pub fn pipeline(&mut self, bytes: &[u8], replies: usize) -> Vec<Reply> {
        let mut sender = self.stream.try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || sender.write_all(bytes));
            let received = (0..replies).map(|_| self.receive()).collect();
            sending.join().expect("the sender does not panic").expect("the server reads");
            received
        })
    }

    /// Everything that the server sends until it closes the connection; nothing more may be waiting in this client.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = self.input.split_off(self.taken);
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("not closed: {error}, after {}", shown(&bytes)),
        }
        bytes
    }

    /// Fails unless the server closes the connection without another reply.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "expected the end of the connection: {}", shown(&rest));
    }
}
