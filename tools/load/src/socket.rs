//! Sockets that never block, and where they lead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, ensure};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with, sockopt,
};

use crate::frame;

/// Sockets of one process come from so many addresses: with 15,000 of them no address has over 1,000,
/// so that connect() finds a free port at once, and closed sockets whose port is not free yet for a
/// minute are no hindrance.
const SOURCES: u8 = 16;

/// A queue's socket on one node.
pub struct Target {
    address: SocketAddr,
    /// What is sent to be upgraded.
    pub request: Vec<u8>,
}

impl Target {
    /// Reads `ws://host:port/path`.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("ws://").with_context(|| format!("{url} is not ws://…"))?;
        let (host, path) = rest.split_once('/').with_context(|| format!("{url} has no path"))?;
        ensure!(!path.is_empty(), "{url} names no queue");
        let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let mut addresses =
            with_port.to_socket_addrs().with_context(|| format!("no address for {host}"))?;
        let address = addresses.next().with_context(|| format!("no address for {host}"))?;
        let request = frame::request(host, &format!("/{path}")).into_bytes();
        Ok(Self { address, request })
    }
}

/// The addresses that a process's sockets come from, in turns.
pub struct Sources {
    process: u8,
    next: u8,
}

impl Sources {
    /// Those of the process with this number.
    pub fn new(process: u8) -> Self {
        Self { process, next: 0 }
    }

    fn take(&mut self) -> Ipv4Addr {
        self.next = self.next % SOURCES + 1;
        Ipv4Addr::new(127, 1, self.process, self.next)
    }
}

/// Begins to connect. The socket is writable once it is connected.
pub fn open(
    target: &Target,
    sources: &mut Sources,
    receive_buffer: Option<usize>,
) -> Result<OwnedFd, Errno> {
    let family = match target.address.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    if let Some(bytes) = receive_buffer {
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    if target.address.is_ipv4() && target.address.ip().is_loopback() {
        bind(&socket, &SocketAddrV4::new(sources.take(), 0))?;
    }
    match connect(&socket, &target.address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Reads what is there: `None` if nothing is, 0 bytes at the end.
pub fn read(socket: &OwnedFd, into: &mut [u8]) -> Result<Option<usize>, Errno> {
    match recv(socket, into, RecvFlags::empty()) {
        Ok((length, _)) => Ok(Some(length)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes all of it. A visitor says so little that there is always room.
pub fn write(socket: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    match send(socket, bytes, SendFlags::NOSIGNAL) {
        Ok(length) if length == bytes.len() => Ok(()),
        Ok(_) => Err(Errno::NOBUFS),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_queues_socket_is_a_target() {
        let target = Target::parse("ws://127.0.0.1:8080/ws/demo").unwrap();
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        assert!(target.request.starts_with(b"GET /ws/demo HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"));
        for url in ["http://127.0.0.1/ws/demo", "ws://127.0.0.1", "ws://127.0.0.1/"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn sources_take_turns() {
        let mut sources = Sources::new(3);
        let first = sources.take();
        assert_eq!(first, Ipv4Addr::new(127, 1, 3, 1));
        let others: Vec<_> = (1..SOURCES).map(|_| sources.take()).collect();
        assert!(!others.contains(&first));
        assert_eq!(sources.take(), first);
    }
}
