//! Which pool of connections a key's requests use.
//!
//! Place in the flow: between a call and its connection; made anew whenever a server's HELLO tells another shard map.
//!
//! Invariant: routes never change once made; a call in progress keeps the routes that it began with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use eyot_protocol::response::HelloReply;

use crate::options::Options;
use crate::pool::Pool;
use crate::topology::{ServerAddress, ShardMap};

/// The longest pause between attempts to connect to a core's own address (30 s): calls go through the user's address
/// meanwhile, so that trying more often would only slow them down.
const CORE_MAX_PAUSE: Duration = Duration::from_secs(30);

/// What HELLO told, and the pools that follow from it.
pub(super) struct Routes {
    pub(super) hello: Arc<HelloReply>,
    map: Option<ShardMap>,
    /// For each core of the map, its pool.
    cores: Vec<Arc<Pool>>,
}

impl Routes {
    /// Before the first HELLO: everything goes to the user's address.
    pub(super) fn none() -> Self {
        Self { hello: Arc::default(), map: None, cores: Vec::new() }
    }

    /// The routes that follow from `hello`. Pools whose address stays the same are taken over from `before`.
    pub(super) fn from_hello(
        hello: HelloReply,
        before: &Self,
        seed: &ServerAddress,
        peer: Option<IpAddr>,
        options: &Options,
    ) -> Self {
        let map = if options.routing { ShardMap::from_hello(&hello, seed, peer) } else { None };
        let pool = |address: &Arc<str>| {
            let same = before.cores.iter().find(|pool| pool.address == *address);
            same.cloned().unwrap_or_else(|| Arc::new(Pool::new(Arc::clone(address), options.pool_size, CORE_MAX_PAUSE)))
        };
        let cores = map.as_ref().map_or_else(Vec::new, |map| map.addresses().iter().map(pool).collect());
        Self { hello: Arc::new(hello), map, cores }
    }

    /// Whether `hello` says what these routes follow from; the core that answered does not matter.
    pub(super) fn agree_with(&self, hello: &HelloReply) -> bool {
        HelloReply { core: self.hello.core, ..hello.clone() } == *self.hello
    }

    pub(super) fn owner_of(&self, key: &[u8]) -> Option<u16> {
        self.map.as_ref().map(|map| map.core_of(key))
    }

    /// The pool of the core that owns `key`.
    pub(super) fn pool_of(&self, key: &[u8]) -> Option<&Arc<Pool>> {
        self.owner_of(key).map(|core| &self.cores[usize::from(core)])
    }

    /// The pool of core `core`.
    pub(super) fn core(&self, core: u16) -> Option<&Arc<Pool>> {
        self.cores.get(usize::from(core))
    }
}
