//! Listening sockets: one per core on the shared address, and one per core of its own.
//!
//! Place in the flow: step 1 (accept). Sockets are bound before recovery, so that a port in use is told at once, and
//! begin to listen after it, so that nobody waits for a node that is not ready.
//!
//! Invariant: every core listens with a socket of its own (`SO_REUSEPORT`); the kernel spreads connections over them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Stop, StopReason};

/// Connections that the kernel keeps for a core that has not accepted them yet.
const BACKLOG: i32 = 1024;

/// How long a port that is in use is tried again, so that a node that was killed can be started again at once.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait between two tries.
const BIND_RETRY: Duration = Duration::from_millis(20);

/// The sockets of one core, bound and not listening.
#[derive(Debug)]
pub struct BoundListeners {
    shared: Socket,
    own: Option<Socket>,
}

/// Where the node listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// What every core listens on.
    pub shared: SocketAddr,
    /// For each core, the address whose connections it alone takes; the shared one where there is one core.
    pub cores: Vec<SocketAddr>,
}

/// Binds the sockets of `core_count` cores. Port 0 takes free ones.
///
/// # Errors
/// [`StopReason::Listen`], naming the address.
pub fn bind(
    address: SocketAddr,
    core_port_base: u16,
    core_count: u16,
) -> Result<(Vec<BoundListeners>, Addresses), Stop> {
    let mut listeners = Vec::new();
    let mut shared_address = address;
    let mut cores = Vec::new();
    for core in 0..core_count {
        // The first core's socket says which port was taken; it must not share one that is in use already.
        let shared = bind_one(shared_address, core > 0)?;
        if core == 0 {
            shared_address = local_address(&shared, address)?;
            shared.set_reuse_port(true).map_err(|error| refused(address, &error))?;
        }
        let own = if core_count == 1 {
            None
        } else {
            let port = if core_port_base == 0 { 0 } else { core_port_base + core };
            Some(bind_one(SocketAddr::new(address.ip(), port), false)?)
        };
        cores.push(match &own {
            Some(own) => local_address(own, address)?,
            None => shared_address,
        });
        listeners.push(BoundListeners { shared, own });
    }
    Ok((listeners, Addresses { shared: shared_address, cores }))
}

fn bind_one(address: SocketAddr, reuse_port: bool) -> Result<Socket, Stop> {
    let bound = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A port of connections that have just ended may be taken; one that somebody listens on may not.
        socket.set_reuse_address(true)?;
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        // Accepted sockets inherit it: a reply must not wait for the acknowledgement of the one before.
        socket.set_nodelay(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    // A process that was killed may hold its port a moment longer: the kernel ends its ring's accept after the process.
    let give_up_at = Instant::now() + BIND_PATIENCE;
    loop {
        match bound() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up_at => {
                std::thread::sleep(BIND_RETRY);
            }
            outcome => return outcome.map_err(|error| refused(address, &error)),
        }
    }
}

fn local_address(socket: &Socket, asked: SocketAddr) -> Result<SocketAddr, Stop> {
    let local = socket.local_addr().map_err(|error| refused(asked, &error))?;
    Ok(local.as_socket().expect("an internet socket"))
}

fn refused(address: SocketAddr, error: &io::Error) -> Stop {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "stop whoever listens there, or choose another --address or --core-port-base",
        io::ErrorKind::AddrNotAvailable => "choose an --address that this machine has",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or allow this process to bind lower ones",
        _ => "choose another --address",
    };
    Stop::new(StopReason::Listen, format!("{address}: {error}"), remedy)
}

impl BoundListeners {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`StopReason::Listen`].
    pub fn listen(self, address: SocketAddr) -> Result<Vec<TcpListener>, Stop> {
        std::iter::once(self.shared)
            .chain(self.own)
            .map(|socket| {
                socket.listen(BACKLOG).map_err(|error| refused(address, &error))?;
                Ok(TcpListener::from(socket))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_share_one_port_and_have_one_each() {
        let (listeners, addresses) = bind("127.0.0.1:0".parse().unwrap(), 0, 3).unwrap();
        assert_eq!(listeners.len(), 3);
        let mut ports: Vec<u16> = addresses.cores.iter().map(SocketAddr::port).collect();
        ports.push(addresses.shared.port());
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 4);
    }

    #[test]
    fn a_port_that_is_about_to_be_free_is_waited_for() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let holding = std::thread::spawn(move || {
            std::thread::sleep(BIND_PATIENCE / 5);
            drop(holder);
        });
        assert!(bind(address, 0, 1).is_ok());
        holding.join().unwrap();
    }

    #[test]
    fn a_port_in_use_is_told_with_its_address() {
        let (listeners, addresses) = bind("127.0.0.1:0".parse().unwrap(), 0, 1).unwrap();
        let listening = listeners.into_iter().next().unwrap().listen(addresses.shared).unwrap();
        let stop = bind(addresses.shared, 0, 1).unwrap_err();
        assert_eq!(stop.reason, StopReason::Listen);
        assert!(stop.cause.contains(&addresses.shared.to_string()), "{stop}");
        drop(listening);
    }
}
