//! A blocking client of the native protocol over a plain socket: small enough to send what no real client would.
//!
//! Place in the flow: before step 1 and after step 9, on the user's side of the wire.
//!
//! Deliberately not here: retries, reconnects and routing, which would hide what the server does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use eyot_protocol::native::codec::encode_batch;
use eyot_protocol::native::{decode_reply, encode_request, split_frame, Split};
use eyot_protocol::request::{Hello, Operation, Request, RequestOptions, Set};
use eyot_protocol::response::{HelloReply, Response, SetOutcome, SnapshotReply, SnapshotStatus};
use eyot_protocol::tlv::{Decoder, Encoder, ValueRef};
use eyot_protocol::ErrorCode;

/// How long a reply may take.
const REPLY_PATIENCE: Duration = Duration::from_secs(20);
/// More than any reply of these tests.
const MAX_REPLY_BYTES: usize = 1 << 30;

/// `bytes` as an encoded value.
pub fn bytes_value(bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes.len() + 6);
    Encoder::new(&mut value).bytes(bytes);
    value
}

/// `number` as an encoded value.
pub fn number_value(number: i64) -> Vec<u8> {
    let mut value = Vec::new();
    Encoder::new(&mut value).int64(number);
    value
}

/// The number of [`number_value`].
pub fn number_of(value: &[u8]) -> i64 {
    match Decoder::new(value).value() {
        Ok(ValueRef::Int64(number)) => number,
        other => panic!("not a number: {other:?}"),
    }
}

/// A reply, owned.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Hello(HelloReply),
    Pong(Vec<u8>),
    /// Encoded value and version.
    Value(Option<(Vec<u8>, u64)>),
    Stored(u64),
    NotStored(Option<u64>),
    Deleted(bool),
    Exists(bool),
    Batch(Vec<Answer>),
    Stats(String),
    SnapshotCreated(u64),
    SnapshotStatus(SnapshotStatus),
    SnapshotBytes(Vec<u8>),
    Error(ErrorCode, String),
}

impl Answer {
    fn of(response: Response<'_>) -> Self {
        match response {
            Response::Hello(hello) => Self::Hello(hello),
            Response::Pong { payload } => Self::Pong(payload.to_vec()),
            Response::Value(found) => Self::Value(found.map(|stored| (stored.value.to_vec(), stored.version))),
            Response::Set(SetOutcome::Stored { version }) => Self::Stored(version),
            Response::Set(SetOutcome::NotStored { current }) => Self::NotStored(current),
            Response::Deleted(existed) => Self::Deleted(existed),
            Response::Exists(exists) => Self::Exists(exists),
            Response::Batch(responses) => Self::Batch(responses.into_iter().map(Self::of).collect()),
            Response::Stats(json) => Self::Stats(json.to_owned()),
            Response::Snapshot(SnapshotReply::Created { request }) => Self::SnapshotCreated(request),
            Response::Snapshot(SnapshotReply::Status(status)) => Self::SnapshotStatus(status),
            Response::Snapshot(SnapshotReply::Bytes(bytes)) => Self::SnapshotBytes(bytes.to_vec()),
            Response::Error(error) => Self::Error(error.code().expect("a known code"), error.message),
        }
    }

    /// The code, if it is an error.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Error(code, _) => Some(*code),
            _ => None,
        }
    }

    /// The value that was read, without its version.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Value(Some((value, _))) => Some(value),
            _ => None,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that were taken.
    taken: usize,
    next_id: u32,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("the server accepts"))
    }

    pub fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option of every socket");
        stream.set_read_timeout(Some(REPLY_PATIENCE)).expect("an option of every socket");
        stream.set_write_timeout(Some(REPLY_PATIENCE)).expect("an option of every socket");
        Self { stream, input: Vec::new(), taken: 0, next_id: 0 }
    }

    /// Sends `bytes` as they are.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Appends the frame of `request` to `out`; returns its id.
    pub fn put(&mut self, out: &mut Vec<u8>, request: &Request<'_>, options: &RequestOptions) -> u32 {
        self.next_id += 1;
        encode_request(out, self.next_id, request, options);
        self.next_id
    }

    /// Appends a BATCH of `requests` to `out`; returns its id.
    pub fn put_batch(&mut self, out: &mut Vec<u8>, requests: &[Request<'_>]) -> u32 {
        self.next_id += 1;
        encode_batch(out, self.next_id, requests, &RequestOptions::default()).expect("requests on keys");
        self.next_id
    }

    /// Sends `request`; returns its id.
    #[track_caller]
    pub fn send(&mut self, request: &Request<'_>) -> u32 {
        let mut out = Vec::new();
        let id = self.put(&mut out, request, &RequestOptions::default());
        self.send_raw(&out);
        id
    }

    /// Says that nothing more will come.
    pub fn close_half(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("an open socket");
    }

    /// The next reply with its id, or `None` where the server has closed. `batch` says the operations of the BATCH that
    /// it answers, if it answers one.
    pub fn try_receive(&mut self, batch: &[Operation]) -> std::io::Result<Option<(u32, Answer)>> {
        loop {
            let split = split_frame(&self.input[self.taken..], MAX_REPLY_BYTES).expect("a frame");
            if let Split::Frame { frame, consumed } = split {
                let answer = match decode_refusal(frame.header.op, frame.body) {
                    Some(refusal) => refusal,
                    None => Answer::of(decode_reply(&frame, batch).expect("a reply")),
                };
                self.taken += consumed;
                return Ok(Some((frame.header.request_id, answer)));
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let length = self.input.len();
            self.input.resize(length + 64 * 1024, 0);
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

    /// The next reply with its id.
    #[track_caller]
    pub fn receive(&mut self) -> (u32, Answer) {
        self.receive_batch(&[])
    }

    /// The next reply with its id, which may answer a BATCH of `operations`.
    #[track_caller]
    pub fn receive_batch(&mut self, operations: &[Operation]) -> (u32, Answer) {
        match self.try_receive(operations) {
            Ok(Some(reply)) => reply,
            Ok(None) => panic!("the server closed the connection instead of replying"),
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// Sends `request` and waits for its answer.
    #[track_caller]
    pub fn call(&mut self, request: &Request<'_>) -> Answer {
        self.call_with(request, &RequestOptions::default())
    }

    /// Sends `request` with `options` and waits for its answer.
    #[track_caller]
    pub fn call_with(&mut self, request: &Request<'_>, options: &RequestOptions) -> Answer {
        let mut out = Vec::new();
        let id = self.put(&mut out, request, options);
        self.send_raw(&out);
        let (answered, answer) = self.receive();
        assert_eq!(answered, id, "one request, one reply: {answer:?}");
        answer
    }

    #[track_caller]
    pub fn get(&mut self, key: &[u8]) -> Answer {
        self.call(&Request::Get { key })
    }

    #[track_caller]
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Answer {
        self.call(&Request::Set(Set::new(key, value)))
    }

    /// Sets `key`, which must succeed; returns its version.
    #[track_caller]
    pub fn must_set(&mut self, key: &[u8], value: &[u8]) -> u64 {
        match self.set(key, value) {
            Answer::Stored(version) => version,
            other => panic!("not stored: {other:?}"),
        }
    }

    #[track_caller]
    pub fn delete(&mut self, key: &[u8]) -> Answer {
        self.call(&Request::Delete { key })
    }

    #[track_caller]
    pub fn exists(&mut self, key: &[u8]) -> Answer {
        self.call(&Request::Exists { key })
    }

    /// Sends `requests` as a BATCH and waits for its results.
    #[track_caller]
    pub fn batch(&mut self, requests: &[Request<'_>]) -> Vec<Answer> {
        let mut out = Vec::new();
        let id = self.put_batch(&mut out, requests);
        self.send_raw(&out);
        let operations: Vec<Operation> = requests.iter().map(Request::operation).collect();
        match self.receive_batch(&operations) {
            (answered, Answer::Batch(results)) if answered == id => results,
            other => panic!("no results: {other:?}"),
        }
    }

    #[track_caller]
    pub fn hello(&mut self) -> HelloReply {
        match self.call(&Request::Hello(Hello { client: Some("test"), credentials: None })) {
            Answer::Hello(hello) => hello,
            other => panic!("no HELLO: {other:?}"),
        }
    }

    #[track_caller]
    pub fn stats(&mut self) -> serde_json::Value {
        match self.call(&Request::Stats) {
            Answer::Stats(json) => serde_json::from_str(&json).expect("JSON"),
            other => panic!("no STATS: {other:?}"),
        }
    }

    /// Sends `frames` while it receives `replies` of them: a pipeline of any depth, without either side blocking the
    /// other.
    #[track_caller]
    pub fn pipeline(&mut self, frames: &[u8], replies: usize, mut each: impl FnMut(u32, Answer)) {
        let mut sender = self.stream.try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || sender.write_all(frames));
            for _ in 0..replies {
                let (id, answer) = self.receive();
                each(id, answer);
            }
            sending.join().expect("the sender does not panic").expect("the server reads");
        });
    }

    /// Fails unless the server closes the connection without another reply.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        match self.try_receive(&[]) {
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("expected the end of the connection: {other:?}"),
        }
    }
}

/// The error of a reply to an operation that nobody knows, or to no operation at all, which no operation's shape fits.
fn decode_refusal(op: u8, body: &[u8]) -> Option<Answer> {
    if Operation::from_code(op & 0x7F).is_some() {
        return None;
    }
    let mut decoder = Decoder::new(body);
    assert_eq!(decoder.list(), Ok(1), "a reply to an unknown operation is one error");
    match decoder.value() {
        Ok(ValueRef::Error(error)) => {
            let code = ErrorCode::from_number(error.code).expect("a known code");
            Some(Answer::Error(code, error.message.to_owned()))
        }
        other => panic!("a reply to an unknown operation: {other:?}"),
    }
}
