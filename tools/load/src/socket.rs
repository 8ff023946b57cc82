//! Sockets that never block, and where they lead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, ensure};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, getsockname, recv,
    send, socket_with, sockopt,
};

use crate::frame;

/// Sockets of one process come from so many addresses: with 15,000 of them no address has over 1,000.
const SOURCES: u8 = 16;
/// Ports that a socket may come from, all below those that the kernel gives out (32,768 and up). If
/// it had to find one that is free, that would take longer than all the rest as soon as there are
/// many sockets, or many that were closed within a minute.
const PORTS: RangeInclusive<u16> = 10_000..=32_767;
/// Ports that are tried until one is free: those of an earlier run may be in a row.
const PORTS_TRIED_MAX: usize = 20_000;

/// A queue's socket on one node.
pub struct Target {
    /// Where the node listens.
    pub address: SocketAddr,
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

/// What a process's sockets come from: addresses in turns, and a port further each round.
pub struct Sources {
    network: u8,
    host: u8,
    port: u16,
}

impl Sources {
    /// Those of this process, most likely of no other; `random` says where they begin.
    pub fn new(random: u64) -> Self {
        let [network, low, high, ..] = random.to_le_bytes();
        let port = PORTS.start() + u16::from_le_bytes([low, high]) % (PORTS.end() - PORTS.start());
        Self { network, host: 0, port }
    }

    fn take(&mut self) -> SocketAddrV4 {
        self.host = self.host % SOURCES + 1;
        if self.host == 1 {
            self.port = if self.port == *PORTS.end() { *PORTS.start() } else { self.port + 1 };
        }
        SocketAddrV4::new(Ipv4Addr::new(127, 1, self.network, self.host), self.port)
    }

    /// Gives a socket an address that nobody has.
    fn bind(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        for _ in 0..PORTS_TRIED_MAX {
            match bind(socket, &self.take()) {
                Err(Errno::ADDRINUSE) => {}
                bound => return bound,
            }
        }
        Err(Errno::ADDRINUSE)
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
        sources.bind(&socket)?;
    }
    match connect(&socket, &target.address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Where a socket comes from.
pub fn source(socket: &OwnedFd) -> Option<SocketAddrV4> {
    SocketAddrV4::try_from(getsockname(socket).ok()?).ok()
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
    fn no_source_comes_twice_in_a_long_time() {
        for random in [0, u64::MAX] {
            let mut sources = Sources::new(random);
            let taken: Vec<_> = (0..100_000).map(|_| sources.take()).collect();
            assert!(taken.iter().all(|source| PORTS.contains(&source.port())));
            assert_eq!(taken.iter().collect::<std::collections::BTreeSet<_>>().len(), 100_000);
        }
    }
}
