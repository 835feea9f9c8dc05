//! Where connections go, and which core owns a key.
//!
//! Place in the flow: asked once before the load (HELLO or CLUSTER SLOTS over a plain blocking connection), then once
//! for each request whose key must go to, or must avoid, its owner.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use eyot_protocol::credentials::Password;
use eyot_protocol::key::{shard_of_slot, slot, SLOT_COUNT};
use eyot_protocol::response::HelloReply;

use crate::args::Protocol;
use crate::error::LoadError;
use crate::wire::cluster::SlotRange;
use crate::wire::{cluster, native, resp, WireError};
use crate::workload::KeyForm;

/// The first address that `text`, as HOST:PORT, stands for.
pub fn resolve(text: &str) -> Result<SocketAddr, LoadError> {
    let failed = |error| LoadError::Resolve { address: text.to_owned(), error };
    let nothing = || failed(std::io::Error::new(std::io::ErrorKind::NotFound, "no address has this name"));
    text.to_socket_addrs().map_err(failed)?.next().ok_or_else(nothing)
}

/// What it takes to be let in.
#[derive(Debug, Clone, Copy)]
pub struct Door<'a> {
    /// The wire.
    pub protocol: Protocol,
    /// The server's password.
    pub password: Option<&'a Password>,
    /// How long a step may take.
    pub timeout: Duration,
}

impl Door<'_> {
    /// A connection that is ready for requests: the password was said, if there is one.
    pub fn connect(&self, client: usize, address: SocketAddr) -> Result<TcpStream, LoadError> {
        let connection = TcpStream::connect_timeout(&address, self.timeout).and_then(|socket| {
            socket.set_nodelay(true)?;
            Ok(socket)
        });
        let socket = connection.map_err(|error| LoadError::Connect { client, address, error })?;
        let Some(password) = self.password else { return Ok(socket) };
        let said = match self.protocol {
            Protocol::Native => {
                exchange(&socket, &native::hello(Some(password)), self.timeout, native::hello_reply).map(drop)
            }
            Protocol::Resp => exchange(&socket, &resp::auth(password.bytes()), self.timeout, resp::auth_reply),
            Protocol::Memcached => unreachable!("refused with the arguments"),
        };
        // The ring, which takes the socket over, has time-outs of its own.
        said.and_then(|()| socket.set_read_timeout(None).map_err(|error| error.to_string()))
            .map_err(|message| LoadError::Authentication { client, address, message })?;
        Ok(socket)
    }
}

/// Which core owns which keys, and where each core listens.
#[derive(Debug, Clone)]
pub struct ShardMap {
    shard_cores: Vec<u16>,
    addresses: Vec<SocketAddr>,
}

impl ShardMap {
    /// Asks the server at `address`.
    pub fn ask(door: &Door<'_>, address: SocketAddr) -> Result<Self, LoadError> {
        let (socket, timeout) = (door.connect(0, address)?, door.timeout);
        match door.protocol {
            Protocol::Native => exchange(&socket, &native::hello(door.password), timeout, native::hello_reply)
                .and_then(|reply| Self::new(&reply, address))
                .map_err(|message| LoadError::Hello { address, message }),
            Protocol::Resp => exchange(&socket, cluster::ASK, timeout, cluster::slots)
                .and_then(|ranges| Self::of_ranges(&ranges, address))
                .map_err(|message| LoadError::Slots { address, message }),
            Protocol::Memcached => unreachable!("refused with the arguments"),
        }
    }

    /// The map of a cluster-aware client: a node for each core, a shard for each slot.
    fn of_ranges(ranges: &[SlotRange], asked: SocketAddr) -> Result<Self, String> {
        let mut addresses = Vec::new();
        let mut shard_cores = vec![u16::MAX; SLOT_COUNT];
        for SlotRange { first, last, host, port } in ranges {
            let address = if host.is_empty() {
                SocketAddr::new(asked.ip(), *port)
            } else {
                resolve(&format!("{host}:{port}")).map_err(|error| error.to_string())?
            };
            let core = addresses.iter().position(|known| *known == address).unwrap_or_else(|| {
                addresses.push(address);
                addresses.len() - 1
            });
            shard_cores[usize::from(*first)..=usize::from(*last)].fill(core as u16);
        }
        match shard_cores.iter().position(|&core| core == u16::MAX) {
            Some(slot) => Err(format!("nobody serves slot {slot}")),
            None => Ok(Self { shard_cores, addresses }),
        }
    }

    fn new(reply: &HelloReply, asked: SocketAddr) -> Result<Self, String> {
        if reply.shard_cores.is_empty() || reply.core_addresses.is_empty() {
            return Err("the reply has no shard map".to_owned());
        }
        let address = |text: &String| {
            let mut address: SocketAddr = text.parse().map_err(|_| format!("\"{text}\" is no address of a core"))?;
            // A server that listens everywhere is reached where it was asked.
            if address.ip().is_unspecified() {
                address.set_ip(asked.ip());
            }
            Ok(address)
        };
        let addresses = reply.core_addresses.iter().map(address).collect::<Result<_, String>>()?;
        Ok(Self { shard_cores: reply.shard_cores.clone(), addresses })
    }

    /// Where each core listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The core that owns `key`.
    pub fn owner(&self, key: &[u8]) -> u16 {
        let shard = shard_of_slot(slot(key), self.shard_cores.len() as u16);
        self.shard_cores[usize::from(shard)]
    }

    /// Whether every core owns one of the first `keys` keys at least, so that a search for a local or a foreign one
    /// ends.
    pub fn every_core_owns_a_key(&self, form: &mut KeyForm, keys: u64) -> bool {
        /// Enough to meet every shard of any map, all but certainly.
        const MAX_SEARCH: u64 = 1_000_000;
        let mut owns = vec![false; self.addresses.len()];
        for key in 0..keys.min(MAX_SEARCH) {
            owns[usize::from(self.owner(form.key(key)))] = true;
            if key % 1024 == 0 && owns.iter().all(|owns| *owns) {
                break;
            }
        }
        owns.into_iter().all(|owns| owns)
    }
}

/// Asks, and reads until `parse` has all of the answer.
fn exchange<T>(
    mut socket: &TcpStream,
    question: &[u8],
    timeout: Duration,
    parse: impl Fn(&[u8]) -> Result<Option<T>, WireError>,
) -> Result<T, String> {
    let started = Instant::now();
    let failed = |error: std::io::Error| error.to_string();
    socket.write_all(question).map_err(failed)?;
    let (mut input, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let left = timeout.checked_sub(started.elapsed()).filter(|left| !left.is_zero());
        socket.set_read_timeout(Some(left.ok_or("no answer in time")?)).map_err(failed)?;
        match socket.read(&mut piece) {
            Ok(0) => return Err("the server closed the connection".to_owned()),
            Ok(count) => input.extend_from_slice(&piece[..count]),
            // With a time-out, a process that was stopped for a moment is told so.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        }
        if let Some(reply) = parse(&input).map_err(|error| error.0)? {
            return Ok(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(addresses: &[&str], shard_cores: &[u16]) -> HelloReply {
        HelloReply {
            shard_cores: shard_cores.to_vec(),
            core_addresses: addresses.iter().map(|&text| text.to_owned()).collect(),
            ..HelloReply::default()
        }
    }

    #[test]
    fn keys_go_to_the_owner_of_their_shard() {
        let asked = "192.0.2.1:6380".parse().unwrap();
        let map = ShardMap::new(&reply(&["0.0.0.0:7000", "192.0.2.9:7001"], &[0, 1, 1, 0]), asked).unwrap();
        assert_eq!(map.addresses(), ["192.0.2.1:7000".parse().unwrap(), "192.0.2.9:7001".parse().unwrap()]);
        // Slots 12,182 and 5,061 of 16,384 in four shards: shards 2 and 1.
        assert_eq!((map.owner(b"foo"), map.owner(b"bar")), (1, 1));
        let mut form = KeyForm::new("key:");
        assert!(map.every_core_owns_a_key(&mut form, 1000));
        assert!(!map.every_core_owns_a_key(&mut form, 1));
        assert!(!map.every_core_owns_a_key(&mut KeyForm::new("{tag}"), 1000));
    }

    #[test]
    fn slots_go_to_the_node_that_serves_them() {
        let asked = "192.0.2.1:6380".parse().unwrap();
        let range = |first, last, host: &str, port| SlotRange { first, last, host: host.to_owned(), port };
        let ranges = [range(0, 99, "", 7000), range(200, 16_383, "192.0.2.1", 7000), range(100, 199, "192.0.2.9", 1)];
        let map = ShardMap::of_ranges(&ranges, asked).unwrap();
        assert_eq!(map.addresses(), ["192.0.2.1:7000".parse().unwrap(), "192.0.2.9:1".parse().unwrap()]);
        let owners: Vec<u16> = [0, 99, 100, 199, 200, 16_383].map(|slot| map.shard_cores[slot]).to_vec();
        assert_eq!(owners, [0, 0, 1, 1, 0, 0]);
        // Slot 12,182.
        assert_eq!(map.owner(b"foo"), 0);
        assert!(ShardMap::of_ranges(&ranges[..2], asked).unwrap_err().contains("slot 100"));
    }

    #[test]
    fn a_map_without_cores_or_with_a_wrong_address_is_refused() {
        let asked = "192.0.2.1:6380".parse().unwrap();
        assert!(ShardMap::new(&reply(&[], &[]), asked).is_err());
        assert!(ShardMap::new(&reply(&["nowhere"], &[0]), asked).is_err());
    }
}
