//! One call from its route to its reply: choose a connection, introduce it, send, and try again where that is safe.
//!
//! Place in the flow: inside every operation of [`super::Client`].

use std::sync::{Arc, RwLock};

use eyot_protocol::credentials::Credentials;
use eyot_protocol::limits::{DEFAULT_MAX_VALUE_BYTES, FRAME_OVERHEAD_BYTES, MAX_KEY_BYTES};
use eyot_protocol::native::PROTOCOL_VERSION;
use eyot_protocol::request::{Hello, Operation, Request, RequestOptions};
use eyot_protocol::response::HelloReply;
use eyot_protocol::tlv::Value;
use eyot_protocol::ErrorCode;
use tokio::time::{sleep, timeout_at, Instant};

use super::routes::Routes;
use super::Versioned;
use crate::batch::BatchResult;
use crate::connection::{Call, Connection, Deadline, Reply};
use crate::error::{Error, Outcome};
use crate::options::Options;
use crate::pool::Pool;
use crate::topology::ServerAddress;

/// What all clones of a client share.
pub(super) struct Dispatcher {
    options: Options,
    seed: ServerAddress,
    /// The connections to the user's address: requests without a key, and whatever cannot be routed.
    seed_pool: Arc<Pool>,
    routes: RwLock<Arc<Routes>>,
}

impl Dispatcher {
    pub(super) fn new(address: &str, options: Options) -> Result<Self, Error> {
        let seed = ServerAddress::parse(address)?;
        let seed_pool = Arc::new(Pool::new(seed.text(), options.pool_size, options.retry.max_pause));
        Ok(Self { options, seed, seed_pool, routes: RwLock::new(Arc::new(Routes::none())) })
    }

    pub(super) fn address(&self) -> &Arc<str> {
        &self.seed_pool.address
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn hello(&self) -> Arc<HelloReply> {
        Arc::clone(&self.routes().hello)
    }

    pub(super) fn owner_of(&self, key: &[u8]) -> Option<u16> {
        self.routes().owner_of(key)
    }

    /// The longest frame that the server takes, as it said.
    pub(super) fn max_frame_bytes(&self) -> usize {
        let told = self.routes().hello.max_frame_bytes;
        match usize::try_from(told) {
            Ok(0) | Err(_) => DEFAULT_MAX_VALUE_BYTES + FRAME_OVERHEAD_BYTES,
            Ok(bytes) => bytes,
        }
    }

    /// Refuses a value that the server would refuse by closing the connection or after having received all of it.
    pub(super) fn check_value(&self, value: &[u8]) -> Result<(), Error> {
        let limit = self.routes().hello.max_value_bytes;
        if limit > 0 && value.len() as u64 > limit {
            let message = format!(
                "value of {} encoded bytes; the server at {} takes {limit} (its --max-value-size)",
                value.len(),
                self.address()
            );
            return Err(Error::invalid(ErrorCode::ValueTooLarge, message));
        }
        Ok(())
    }

    /// Opens the first connection and learns the shard map from it.
    pub(super) async fn introduce_first(&self) -> Result<(), Error> {
        let deadline = Deadline::after(self.options.connect_timeout + self.options.request_timeout);
        self.connection_of(&self.seed_pool, Operation::Hello, Outcome::Failed, &deadline).await.map(|_| ())
    }

    /// Sends `call` to the core that owns `key`, or to the user's address; tries again as the options allow.
    pub(super) async fn run(
        &self,
        key: Option<&[u8]>,
        call: Call<'_>,
        options: RequestOptions,
    ) -> Result<Reply, Error> {
        let deadline = Deadline::after(self.options.request_timeout);
        let mut attempt = 1;
        loop {
            let error = match self.attempt(key, &call, options, &deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let Some(pause) = self.options.retry.pause_after(attempt, &error, rand::random()) else {
                return Err(error);
            };
            if Instant::now() + pause >= deadline.at {
                return Err(error);
            }
            sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        key: Option<&[u8]>,
        call: &Call<'_>,
        options: RequestOptions,
        deadline: &Deadline,
    ) -> Result<Reply, Error> {
        let not_sent = if call.is_write() { Outcome::NotApplied } else { Outcome::Failed };
        let routes = self.routes();
        let (mut connection, mut pool) = (None, &self.seed_pool);
        if let Some(core_pool) = key.and_then(|key| routes.pool_of(key)) {
            // A core that cannot be reached by its own address is reached through the user's.
            if let Ok(found) = self.connection_of(core_pool, call.operation(), not_sent, deadline).await {
                (connection, pool) = (Some(found), core_pool);
            }
        }
        let connection = match connection {
            Some(connection) => connection,
            None => self.connection_of(&self.seed_pool, call.operation(), not_sent, deadline).await?,
        };
        match connection.call(call, options, deadline, self.options.send_deadline).await? {
            Reply::Error(error) => Err(Error::from_reply(call.operation(), call.is_write(), &pool.address, error)),
            reply => Ok(reply),
        }
    }

    /// A connection of `pool` whose other end has answered HELLO.
    async fn connection_of(
        &self,
        pool: &Arc<Pool>,
        operation: Operation,
        not_sent: Outcome,
        deadline: &Deadline,
    ) -> Result<Arc<Connection>, Error> {
        let timed_out = |waiting_for| deadline.error(operation, &pool.address, waiting_for, not_sent);
        let connection = pool
            .connection(&self.options, deadline)
            .await
            .unwrap_or_else(|| Err(timed_out("no connection could be opened")))?;
        let introduced = connection.introduced.get_or_try_init(|| self.introduce(pool, &connection, deadline));
        // Several callers may wait for one HELLO; each has its own deadline.
        match timeout_at(deadline.at, introduced).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(error)) => Err(error.before(operation, not_sent)),
            Err(_) => Err(timed_out("the server did not answer HELLO")),
        }
    }

    async fn introduce(
        &self,
        pool: &Arc<Pool>,
        connection: &Arc<Connection>,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let password = self.options.password.as_ref();
        let credentials = password.map(|password| Credentials { user: None, password: password.bytes() });
        let request = Request::Hello(Hello { client: Some(&self.options.client_name), credentials });
        let reply = connection.call(&Call::One(request), RequestOptions::default(), deadline, false).await?;
        let hello = match reply {
            Reply::Hello(hello) => *hello,
            Reply::Error(error) => return Err(Error::from_reply(Operation::Hello, false, &pool.address, error)),
            other => unreachable!("HELLO was answered by {other:?}, which decoding refuses"),
        };
        let refuse = |reason: String| Err(Error::Connect { address: Arc::clone(&pool.address), reason });
        if hello.protocol != PROTOCOL_VERSION {
            return refuse(format!(
                "the server speaks protocol version {}, this client {PROTOCOL_VERSION}; use a client of the server's version",
                hello.protocol
            ));
        }
        let is_seed = Arc::ptr_eq(pool, &self.seed_pool);
        let known = self.hello();
        if !is_seed && hello.node_id != known.node_id {
            return refuse(format!("this is node {:?}, not {:?}", hello.node_id, known.node_id));
        }
        let core = hello.core;
        if !self.routes().agree_with(&hello) {
            let mut routes = self.routes.write().expect("nothing panics under this lock");
            *routes = Arc::new(Routes::from_hello(hello, &routes, &self.seed, connection.peer(), &self.options));
        }
        if is_seed {
            if let Some(core_pool) = self.routes().core(core) {
                core_pool.adopt(connection);
            }
        }
        Ok(())
    }

    fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().expect("nothing panics under this lock"))
    }

    /// The value of encoded bytes that a reply carried.
    pub(super) fn decode_value(
        &self,
        operation: Operation,
        found: &Versioned<Vec<u8>>,
    ) -> Result<Versioned<Value>, Error> {
        match Value::decode(&found.value) {
            Ok(value) => Ok(Versioned { value, version: found.version }),
            Err(error) => Err(self.malformed(operation, error.to_string())),
        }
    }

    /// The result of one operation of a batch.
    pub(super) fn batch_result(&self, operation: Operation, reply: Reply) -> Result<BatchResult, Error> {
        let is_write = matches!(operation, Operation::Set | Operation::Delete);
        match reply {
            Reply::Value(None) => Ok(BatchResult::Value(None)),
            Reply::Value(Some((value, version))) => {
                let found = self.decode_value(operation, &Versioned { value, version })?;
                Ok(BatchResult::Value(Some(found)))
            }
            Reply::Set(outcome) => Ok(BatchResult::Set(outcome)),
            Reply::Deleted(existed) => Ok(BatchResult::Deleted(existed)),
            Reply::Exists(exists) => Ok(BatchResult::Exists(exists)),
            Reply::Error(error) => Err(Error::from_reply(operation, is_write, self.address(), error)),
            other => unreachable!("an operation of a BATCH was answered by {other:?}, which decoding refuses"),
        }
    }

    pub(super) fn malformed(&self, operation: Operation, reason: String) -> Error {
        Error::MalformedReply { operation, address: Arc::clone(self.address()), reason, outcome: Outcome::Failed }
    }
}

/// Refuses a key that the server would refuse after having received it.
pub(super) fn check_key(key: &[u8]) -> Result<(), Error> {
    if key.len() > MAX_KEY_BYTES {
        let message = format!("key of {} bytes; at most {MAX_KEY_BYTES}", key.len());
        return Err(Error::invalid(ErrorCode::KeyTooLarge, message));
    }
    Ok(())
}
