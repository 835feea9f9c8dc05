//! Listening sockets: for each wire, one per core on the shared address, and one per core of its own.
//!
//! Place in the flow: step 1 (accept). Sockets are bound before recovery, so that a port in use is told at once, and
//! begin to listen after it, so that nobody waits for a node that is not ready.
//!
//! Invariant: every core listens with a socket of its own (`SO_REUSEPORT`); the kernel spreads connections over them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::session::Wire;
use crate::error::{Stop, StopReason};

/// Connections that the kernel keeps for a core that has not accepted them yet.
const BACKLOG: i32 = 1024;

/// How long a port that is in use is tried again, so that a node that was killed can be started again at once.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait between two tries.
const BIND_RETRY: Duration = Duration::from_millis(20);

/// The sockets of one core, bound and not listening.
#[derive(Debug, Default)]
pub struct BoundListeners {
    sockets: Vec<(Wire, SocketAddr, Socket)>,
}

/// A socket that accepts connections of one wire.
#[derive(Debug)]
pub struct Listener {
    /// What its connections speak.
    pub wire: Wire,
    /// The socket.
    pub socket: TcpListener,
}

/// Where one wire listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// What every core listens on.
    pub shared: SocketAddr,
    /// For each core, the address whose connections it alone takes; the shared one where there is one core.
    pub cores: Vec<SocketAddr>,
}

/// Binds the sockets of `wire` for each of `listeners`, one a core. Port 0 takes free ones.
///
/// # Errors
/// [`StopReason::Listen`], naming the address.
pub fn bind(
    listeners: &mut [BoundListeners],
    wire: Wire,
    address: SocketAddr,
    core_port_base: u16,
) -> Result<Addresses, Stop> {
    let core_count = listeners.len();
    let mut shared_address = address;
    let mut cores = Vec::new();
    for (core, bound) in listeners.iter_mut().enumerate() {
        // The first core's socket says which port was taken; it must not share one that is in use already.
        let shared = bind_one(shared_address, core > 0)?;
        if core == 0 {
            shared_address = local_address(&shared, address)?;
            shared.set_reuse_port(true).map_err(|error| refused(address, &error))?;
        }
        bound.sockets.push((wire, shared_address, shared));
        let mut own_address = shared_address;
        if core_count > 1 {
            let port = if core_port_base == 0 { 0 } else { core_port_base + core as u16 };
            let own = bind_one(SocketAddr::new(address.ip(), port), false)?;
            own_address = local_address(&own, address)?;
            bound.sockets.push((wire, own_address, own));
        }
        cores.push(own_address);
    }
    Ok(Addresses { shared: shared_address, cores })
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
    pub fn listen(self) -> Result<Vec<Listener>, Stop> {
        let listening = self.sockets.into_iter().map(|(wire, address, socket)| {
            socket.listen(BACKLOG).map_err(|error| refused(address, &error))?;
            Ok(Listener { wire, socket: TcpListener::from(socket) })
        });
        listening.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind_native(address: SocketAddr, cores: usize) -> Result<(Vec<BoundListeners>, Addresses), Stop> {
        let mut listeners: Vec<BoundListeners> = (0..cores).map(|_| BoundListeners::default()).collect();
        let addresses = bind(&mut listeners, Wire::Native, address, 0)?;
        Ok((listeners, addresses))
    }

    #[test]
    fn cores_share_one_port_and_have_one_each() {
        let (mut listeners, addresses) = bind_native("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let resp = bind(&mut listeners, Wire::Resp, "127.0.0.1:0".parse().unwrap(), 0).unwrap();
        assert!(listeners.iter().all(|bound| bound.sockets.len() == 4));
        assert_ne!(resp.shared.port(), addresses.shared.port());
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
        assert!(bind_native(address, 1).is_ok());
        holding.join().unwrap();
    }

    #[test]
    fn a_port_in_use_is_told_with_its_address() {
        let (listeners, addresses) = bind_native("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let listening = listeners.into_iter().next().unwrap().listen().unwrap();
        let stop = bind_native(addresses.shared, 1).unwrap_err();
        assert_eq!(stop.reason, StopReason::Listen);
        assert!(stop.cause.contains(&addresses.shared.to_string()), "{stop}");
        drop(listening);
    }
}
