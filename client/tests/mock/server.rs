//! A server of the native protocol with a small store, one thread for each connection, and a script that may make it
//! answer late, out of order, wrongly, or not at all.
//!
//! It records every request that it sees, so that tests can assert what was sent where, and how often.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use eyot_client::{Client, Condition, ErrorCode, HelloReply, Options, SetOutcome};
use eyot_protocol::native::reply::{
    put_batch_head, put_boolean, put_error_reply, put_hello, put_reply, put_set, put_snapshot, put_stats, put_value,
};
use eyot_protocol::native::{decode_request, split_frame, Split};
use eyot_protocol::request::{Expiry, Operation, Request, RequestOptions};
use eyot_protocol::response::StoredValue;

use crate::node_snapshots::NodeSnapshots;

/// Longest frame that the mock takes; a test that sends more is wrong.
const MAX_FRAME_BYTES: usize = 32 << 20;

/// One request as the mock saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Counts the connections of this mock from 0.
    pub connection: usize,
    pub id: u32,
    pub operation: Operation,
    /// The keys, in order: one of a single operation, several of a BATCH.
    pub keys: Vec<Vec<u8>>,
    pub options: RequestOptions,
    /// Of a SET.
    pub expiry: Option<Expiry>,
}

/// What the script wants done with a request.
pub enum Act {
    /// Answer from the store.
    Serve,
    /// Answer with an error.
    Refuse(ErrorCode, &'static str),
    /// Execute it, but do not answer.
    Swallow,
    /// Keep it, and answer later.
    Hold,
    /// Answer it, and then those held on this connection, the youngest first.
    Release,
    /// Send these bytes instead of a reply.
    Raw(Vec<u8>),
    /// Close the connection without an answer.
    Close,
    /// Stop reading from this connection.
    Stall,
}

type Script = Box<dyn FnMut(&Seen) -> Act + Send>;

#[derive(Default)]
struct Store {
    entries: HashMap<Vec<u8>, (Vec<u8>, u64)>,
    /// Of the keys that expire; the mock never removes them.
    expiries: HashMap<Vec<u8>, Expiry>,
    version: u64,
}

/// What the threads of one mock share.
struct Shared {
    hello: HelloReply,
    /// What a HELLO must say.
    password: Option<&'static [u8]>,
    store: Arc<Mutex<Store>>,
    snapshots: Mutex<NodeSnapshots>,
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    open: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    stopping: AtomicBool,
}

pub struct Mock {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Mock {
    /// One core that serves everything.
    pub fn start() -> Self {
        Self::scripted(|_| Act::Serve)
    }

    /// One core; the script sees every request but HELLO.
    pub fn scripted(script: impl FnMut(&Seen) -> Act + Send + 'static) -> Self {
        let listener = listen();
        let address = listener.local_addr().expect("bound").to_string();
        Self::run(listener, hello(0, &[address]), Arc::default(), Box::new(script))
    }

    /// One core that advertises `addresses`, of which it is the first.
    pub fn advertising(addresses: &[String]) -> Self {
        let listener = listen();
        Self::run(listener, hello(0, addresses), Arc::default(), Box::new(|_| Act::Serve))
    }

    /// A node of another name, at an address that something else may advertise.
    pub fn named(node_id: &str) -> Self {
        let listener = listen();
        let address = listener.local_addr().expect("bound").to_string();
        let hello = HelloReply { node_id: node_id.to_owned(), ..hello(0, &[address]) };
        Self::run(listener, hello, Arc::default(), Box::new(|_| Act::Serve))
    }

    /// Two cores of one node, of which every second shard is on the other; they share a store.
    pub fn pair(script: impl FnMut(u16, &Seen) -> Act + Send + Clone + 'static) -> [Self; 2] {
        let listeners = [listen(), listen()];
        // As a server that listens on every interface tells it.
        let advertised = |listener: &TcpListener| format!("0.0.0.0:{}", listener.local_addr().expect("bound").port());
        let addresses: Vec<String> = listeners.iter().map(advertised).collect();
        let store = Arc::default();
        let mut core = 0;
        listeners.map(|listener| {
            let number = core;
            core += 1;
            let mut own = script.clone();
            Self::run(listener, hello(number, &addresses), Arc::clone(&store), Box::new(move |seen| own(number, seen)))
        })
    }

    /// One core that wants a password.
    pub fn with_password(password: &'static [u8]) -> Self {
        let listener = listen();
        let address = listener.local_addr().expect("bound").to_string();
        Self::run_with(listener, hello(0, &[address]), Some(password), Arc::default(), Box::new(|_| Act::Serve))
    }

    fn run(listener: TcpListener, hello: HelloReply, store: Arc<Mutex<Store>>, script: Script) -> Self {
        Self::run_with(listener, hello, None, store, script)
    }

    fn run_with(
        listener: TcpListener,
        hello: HelloReply,
        password: Option<&'static [u8]>,
        store: Arc<Mutex<Store>>,
        script: Script,
    ) -> Self {
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            hello,
            password,
            store,
            snapshots: Mutex::default(),
            script: Mutex::new(script),
            seen: Mutex::default(),
            open: Mutex::default(),
            connections: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let of_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &of_acceptor));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// A client of this mock.
    pub async fn client(&self, options: Options) -> Client {
        Client::connect(&self.address.to_string(), options).await.expect("the mock is there")
    }

    /// Every request so far, in the order of arrival, without HELLO.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.shared.seen.lock().expect("no panic");
        seen.iter().filter(|seen| seen.operation != Operation::Hello).cloned().collect()
    }

    /// How many requests of `operation` have arrived.
    pub fn count(&self, operation: Operation) -> usize {
        self.shared.seen.lock().expect("no panic").iter().filter(|seen| seen.operation == operation).count()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The encoded value under `key`.
    pub fn stored(&self, key: &str) -> Option<Vec<u8>> {
        let store = self.shared.store.lock().expect("no panic");
        store.entries.get(key.as_bytes()).map(|(value, _)| value.clone())
    }

    /// Every key with its encoded value and its expiry, by key.
    pub fn everything(&self) -> Vec<(Vec<u8>, Vec<u8>, Option<Expiry>)> {
        let store = self.shared.store.lock().expect("no panic");
        let entries = store.entries.iter();
        let mut all: Vec<_> =
            entries.map(|(key, (value, _))| (key.clone(), value.clone(), store.expiries.get(key).copied())).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// What SNAPSHOT is answered from.
    pub fn set_snapshots(&self, snapshots: NodeSnapshots) {
        *self.shared.snapshots.lock().expect("no panic") = snapshots;
    }

    /// Closes every connection, as a server does that restarts.
    pub fn close_connections(&self) {
        for stream in self.shared.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.close_connections();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn hello(core: u16, addresses: &[String]) -> HelloReply {
    HelloReply {
        protocol: 1,
        server: "mock 1".to_owned(),
        node_id: "mock-node".to_owned(),
        core,
        shard_cores: (0..8).map(|shard| shard % addresses.len() as u16).collect(),
        core_addresses: addresses.to_vec(),
        max_frame_bytes: MAX_FRAME_BYTES as u64,
        max_key_bytes: 65_536,
        max_value_bytes: 16 << 20,
        features: vec!["batch".to_owned()],
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { return };
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.lock().expect("no panic").push(stream.try_clone().expect("a second handle"));
        let shared = Arc::clone(shared);
        std::thread::spawn(move || converse(stream, number, &shared));
    }
}

/// A request that is answered later: its frame.
type Held = Vec<u8>;

fn converse(mut stream: TcpStream, connection: usize, shared: &Shared) {
    let mut received = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut held: Vec<Held> = Vec::new();
    loop {
        let mut out = Vec::new();
        let mut consumed = 0;
        while let Ok(Split::Frame { consumed: bytes, .. }) = split_frame(&received[consumed..], MAX_FRAME_BYTES) {
            let frame = &received[consumed..consumed + bytes];
            match obey(frame, connection, shared, &mut held, &mut out) {
                Next::GoOn => {}
                Next::Close => {
                    let _ = stream.write_all(&out);
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
                Next::Stall => {
                    while !shared.stopping.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    return;
                }
            }
            consumed += bytes;
        }
        received.drain(..consumed);
        if stream.write_all(&out).is_err() {
            return;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => received.extend_from_slice(&chunk[..bytes]),
        }
    }
}

enum Next {
    GoOn,
    Close,
    Stall,
}

fn obey(frame: &[u8], connection: usize, shared: &Shared, held: &mut Vec<Held>, out: &mut Vec<u8>) -> Next {
    let seen = look(frame, connection);
    shared.seen.lock().expect("no panic").push(seen.clone());
    if seen.operation == Operation::Hello {
        let said = with_request(frame, |_, request, _| match request {
            Request::Hello(hello) => hello.credentials.map(|said| said.password.to_vec()),
            other => panic!("{other:?} is no HELLO"),
        });
        let refusal = match (shared.password, said.as_deref()) {
            (Some(_), None) => Some(ErrorCode::AuthenticationRequired),
            (Some(password), Some(said)) if password != said => Some(ErrorCode::AuthenticationFailed),
            _ => None,
        };
        match refusal {
            Some(code) => put_error_reply(out, seen.operation.code(), seen.id, code, "no"),
            None => serve(frame, shared, out),
        }
        return Next::GoOn;
    }
    let act = (shared.script.lock().expect("no panic"))(&seen);
    match act {
        Act::Serve => serve(frame, shared, out),
        Act::Refuse(code, message) => put_error_reply(out, seen.operation.code(), seen.id, code, message),
        Act::Swallow => serve(frame, shared, &mut Vec::new()),
        Act::Hold => held.push(frame.to_vec()),
        Act::Release => {
            serve(frame, shared, out);
            while let Some(frame) = held.pop() {
                serve(&frame, shared, out);
            }
        }
        Act::Raw(bytes) => out.extend_from_slice(&bytes),
        Act::Close => return Next::Close,
        Act::Stall => return Next::Stall,
    }
    Next::GoOn
}

fn with_request<T>(frame: &[u8], use_it: impl FnOnce(u32, Request<'_>, RequestOptions) -> T) -> T {
    let Ok(Split::Frame { frame, .. }) = split_frame(frame, MAX_FRAME_BYTES) else { panic!("split before") };
    let (request, options) = decode_request(&frame, MAX_FRAME_BYTES).expect("the client sends valid requests");
    use_it(frame.header.request_id, request, options)
}

fn look(frame: &[u8], connection: usize) -> Seen {
    with_request(frame, |id, request, options| {
        let key_of = |request: &Request<'_>| match request {
            Request::Get { key } | Request::Delete { key } | Request::Exists { key } => key.to_vec(),
            Request::Set(set) => set.key.to_vec(),
            other => panic!("{other:?} has no key"),
        };
        let keys = match &request {
            Request::Batch(batch) => batch.requests().map(|request| key_of(&request)).collect(),
            Request::Hello(_) | Request::Ping { .. } | Request::Stats | Request::Snapshot(_) => Vec::new(),
            keyed => vec![key_of(keyed)],
        };
        let expiry = if let Request::Set(set) = &request { Some(set.expiry) } else { None };
        Seen { connection, id, operation: request.operation(), keys, options, expiry }
    })
}

fn serve(frame: &[u8], shared: &Shared, out: &mut Vec<u8>) {
    with_request(frame, |id, request, _| {
        let op = request.operation().code();
        if let Request::Snapshot(request) = request {
            let mut snapshots = shared.snapshots.lock().expect("no panic");
            return match snapshots.answer(request) {
                Some(reply) => put_reply(out, op, id, |out| put_snapshot(out, &reply)),
                None => put_error_reply(out, op, id, ErrorCode::NoSuchSnapshot, "superseded"),
            };
        }
        let mut store = shared.store.lock().expect("no panic");
        put_reply(out, op, id, |out| match request {
            Request::Hello(_) => put_hello(out, &shared.hello),
            Request::Ping { payload } => out.extend_from_slice(payload),
            Request::Stats => {
                let keys = store.entries.len();
                put_stats(out, &format!(r#"{{"storage":{{"keys":{keys}}},"metrics":{{"uptime_seconds":1}}}}"#));
            }
            Request::Batch(batch) => {
                put_batch_head(out, batch.len());
                for request in batch.requests() {
                    execute(&mut store, &request, out);
                }
            }
            keyed => execute(&mut store, &keyed, out),
        });
    });
}

fn execute(store: &mut Store, request: &Request<'_>, out: &mut Vec<u8>) {
    match *request {
        Request::Get { key } => {
            let found = store.entries.get(key);
            put_value(out, found.map(|(value, version)| StoredValue { value, version: *version }));
        }
        Request::Set(set) => {
            let current = store.entries.get(set.key).map(|(_, version)| *version);
            let holds = match set.condition {
                Condition::Always => true,
                Condition::IfAbsent => current.is_none(),
                Condition::IfPresent => current.is_some(),
                Condition::IfVersion(version) => current == Some(version),
            };
            if !holds {
                return put_set(out, SetOutcome::NotStored { current });
            }
            store.version += 1;
            let version = store.version;
            store.entries.insert(set.key.to_vec(), (set.value.to_vec(), version));
            match set.expiry {
                Expiry::Never => store.expiries.remove(set.key),
                expiry => store.expiries.insert(set.key.to_vec(), expiry),
            };
            put_set(out, SetOutcome::Stored { version: store.version });
        }
        Request::Delete { key } => put_boolean(out, store.entries.remove(key).is_some()),
        Request::Exists { key } => put_boolean(out, store.entries.contains_key(key)),
        ref other => panic!("{other:?} has no key"),
    }
}
