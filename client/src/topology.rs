//! From a key to the core that owns it, and to the address whose connections that core holds.
//!
//! Place in the flow: before a request is sent, so that step 4 (route) in the server finds the key at home.
//!
//! key -> slot (CRC-16) -> shard (equal ranges of slots) -> core (`HELLO`'s `shard_cores`) -> address
//! (`core_addresses`)
//!
//! Invariant: a map that exists names an address for every core that it names. A stale map costs a forward inside the
//! server, never a wrong answer.
//!
//! Pure: opens nothing, resolves no name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use eyot_protocol::key::{shard_of_slot, slot};
use eyot_protocol::response::HelloReply;

use crate::error::Error;

/// What the user gave as the server's address: a host name or an IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name, an IPv4 address, or an IPv6 address with its brackets.
    host: String,
    port: u16,
}

impl ServerAddress {
    /// Reads `HOST:PORT`; IPv6 addresses stand in brackets: `[::1]:6380`.
    ///
    /// # Errors
    /// [`Error::Address`]: what is missing or wrong.
    pub fn parse(address: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Address { address: address.to_owned(), reason: reason.to_owned() };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| refuse("no port"))?;
        let port = port.parse().ok().filter(|&port: &u16| port != 0);
        let port = port.ok_or_else(|| refuse("the port is not a number from 1 to 65535"))?;
        if host.is_empty() {
            return Err(refuse("no host"));
        }
        if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
            return Err(refuse("an IPv6 address stands in brackets, as in [::1]:6380"));
        }
        if host.contains(|character: char| character.is_whitespace() || character == '/') {
            return Err(refuse("the host contains a blank or a slash"));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// `HOST:PORT`, as it was given.
    pub fn text(&self) -> Arc<str> {
        Arc::from(format!("{}:{}", self.host, self.port))
    }

    /// The address of another port on the same host.
    fn with_port(&self, port: u16) -> Arc<str> {
        Arc::from(format!("{}:{port}", self.host))
    }
}

/// Which core owns which key, and where that core listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap {
    /// For each shard, its core: an index into `addresses`.
    shard_cores: Vec<u16>,
    addresses: Vec<Arc<str>>,
}

impl ShardMap {
    /// The map that a server told; `None` where it told none. `peer` is the address that `seed` (the user's address)
    /// turned out to be: a core that listens on every interface, or on a loopback that is not ours, is reached at the
    /// host that the user gave.
    pub fn from_hello(hello: &HelloReply, seed: &ServerAddress, peer: Option<IpAddr>) -> Option<Self> {
        let known = |core: &u16| usize::from(*core) < hello.core_addresses.len();
        if hello.shard_cores.is_empty() || !hello.shard_cores.iter().all(known) {
            return None;
        }
        // `shard_of_slot` counts shards in 16 bits, and there are no more shards than slots.
        u16::try_from(hello.shard_cores.len()).ok()?;
        let addresses = hello.core_addresses.iter().map(|address| reachable(address, seed, peer)).collect();
        Some(Self { shard_cores: hello.shard_cores.clone(), addresses })
    }

    /// The core that owns `key`.
    pub fn core_of(&self, key: &[u8]) -> u16 {
        let shard = shard_of_slot(slot(key), self.shard_cores.len() as u16);
        self.shard_cores[usize::from(shard)]
    }

    /// For each core, where it listens.
    pub fn addresses(&self) -> &[Arc<str>] {
        &self.addresses
    }
}

fn reachable(advertised: &str, seed: &ServerAddress, peer: Option<IpAddr>) -> Arc<str> {
    let Ok(address) = advertised.parse::<SocketAddr>() else { return Arc::from(advertised) };
    let foreign_loopback = address.ip().is_loopback() && peer.is_some_and(|peer| !peer.is_loopback());
    if address.ip().is_unspecified() || foreign_loopback {
        seed.with_port(address.port())
    } else {
        Arc::from(advertised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(shard_cores: &[u16], addresses: &[&str]) -> HelloReply {
        HelloReply {
            shard_cores: shard_cores.to_vec(),
            core_addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            ..HelloReply::default()
        }
    }

    fn seed(address: &str) -> ServerAddress {
        ServerAddress::parse(address).expect("valid")
    }

    fn addresses_of(advertised: &[&str], given: &str, peer: &str) -> Vec<String> {
        let map = ShardMap::from_hello(&hello(&[0], advertised), &seed(given), peer.parse().ok()).expect("a map");
        map.addresses().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_need_host_and_port() {
        assert_eq!(&*seed("localhost:6380").text(), "localhost:6380");
        assert_eq!(&*seed("[::1]:6380").text(), "[::1]:6380");
        for wrong in
            ["localhost", ":6380", "localhost:", "localhost:0", "localhost:65536", "::1:6380", "a b:1", "http://h:1"]
        {
            let error = ServerAddress::parse(wrong).expect_err(wrong);
            assert!(error.to_string().contains("HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn a_key_goes_to_the_core_of_its_shard() {
        // Slots of "bar" (5061) and "foo" (12182) lie in the first and the second half.
        let map = ShardMap::from_hello(&hello(&[1, 0], &["h:1", "h:2"]), &seed("h:1"), None).expect("a map");
        assert_eq!(map.core_of(b"bar"), 1);
        assert_eq!(map.core_of(b"foo"), 0);
        assert_eq!(map.core_of(b"{bar}.anything"), 1);
    }

    #[test]
    fn unspecified_hosts_become_the_host_that_the_user_gave() {
        assert_eq!(
            addresses_of(&["0.0.0.0:7001", "[::]:7002"], "db.lan:6380", "10.0.0.5"),
            ["db.lan:7001", "db.lan:7002"]
        );
        assert_eq!(addresses_of(&["10.0.0.5:7001"], "db.lan:6380", "10.0.0.5"), ["10.0.0.5:7001"]);
        assert_eq!(addresses_of(&["0.0.0.0:7001"], "[::1]:6380", "::1"), ["[::1]:7001"]);
    }

    #[test]
    fn the_loopback_of_another_machine_is_not_ours() {
        assert_eq!(addresses_of(&["127.0.0.1:7001"], "db.lan:6380", "10.0.0.5"), ["db.lan:7001"]);
        assert_eq!(addresses_of(&["127.0.0.1:7001"], "localhost:6380", "127.0.0.1"), ["127.0.0.1:7001"]);
    }

    #[test]
    fn no_map_without_shards_or_with_a_core_that_has_no_address() {
        assert_eq!(ShardMap::from_hello(&hello(&[], &["h:1"]), &seed("h:1"), None), None);
        assert_eq!(ShardMap::from_hello(&hello(&[0, 1], &["h:1"]), &seed("h:1"), None), None);
    }
}
