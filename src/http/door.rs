//! How many may come in: connections, handshakes under way, and how many of one address. Room is
//! taken before anything is spent on a connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use ipnet::IpNet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that may be on their way to a socket or an answer at once. Each may hold some 16 KiB
/// until it is understood, and one that dawdles is closed after five seconds; further ones wait in the
/// listener's backlog.
const HANDSHAKES_MAX: usize = 4_096;
/// Proxies behind one another that are looked through.
const PROXIES_MAX: usize = 16;

/// What a door allows.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait in the listener's backlog.
    pub connections: usize,
    /// Of these, at most so many that wait in line: requests always find room.
    pub sockets: usize,
    /// Connections at once of one address, or of one IPv6 network of 64 bits, which is what one
    /// household has.
    pub per_address: usize,
    /// Proxies that say of whom they are asked in `X-Forwarded-For`, and are not counted themselves.
    pub trusted_proxies: Vec<IpNet>,
}

/// Descriptors that a process needs for itself: its connections to the log, its files, its threads.
const DESCRIPTORS_OWN: usize = 1_000;
/// Connections that sockets leave to requests.
const REQUESTS: usize = 1_000;
/// More sockets than this no process has served.
const CONNECTIONS_MAX: usize = 1_000_000;

impl Limits {
    /// What the descriptors of this process allow, as many as it may have; `sockets` if that is less.
    pub fn of_process(
        sockets: Option<usize>,
        per_address: usize,
        trusted_proxies: Vec<IpNet>,
    ) -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            let raised = Rlimit { current: limit.maximum, ..limit };
            match setrlimit(Resource::Nofile, raised) {
                Ok(()) => limit = raised,
                Err(error) => tracing::warn!(%error, "the limit of descriptors can't be raised"),
            }
        }
        let descriptors = limit.current.and_then(|limit| usize::try_from(limit).ok());
        let connections = descriptors.unwrap_or(CONNECTIONS_MAX).saturating_sub(DESCRIPTORS_OWN);
        let connections = connections.clamp(1, CONNECTIONS_MAX);
        let most = connections.saturating_sub(REQUESTS).max(1);
        let sockets = sockets.map_or(most, |sockets| sockets.min(most));
        Self { connections, sockets, per_address, trusted_proxies }
    }
}

/// One listener's door.
#[derive(Debug)]
pub struct Door {
    limits: Limits,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    counted: Mutex<Counted>,
    /// Connections that were answered with nothing but why they may not come in.
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Counted {
    connections: usize,
    sockets: usize,
    /// Connections by [`key`]; an address without any is not in it.
    addresses: BTreeMap<u64, usize>,
}

/// Why somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many of one address.
    #[error("too many connections come from this address")]
    Address,
    /// All places for sockets are taken.
    #[error("this node has as many visitors as it can serve")]
    Sockets,
}

impl Refused {
    /// In a word, as it is counted.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Sockets => "node_full",
        }
    }
}

/// A connection's place. Dropped, it is free again.
#[derive(Debug)]
pub struct Place {
    door: Arc<Door>,
    address: u64,
    is_open: bool,
    is_socket: bool,
}

/// The key of no address: the IPv6 network of all ones, from which nothing comes.
const NOBODY: u64 = u64::MAX;

/// What is held until a handshake is over, one way or the other.
#[derive(Debug)]
pub struct Handshake(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Door {
    /// A door that nobody has come through.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(limits.connections)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            limits,
            counted: Mutex::default(),
            refused: AtomicU64::new(0),
        })
    }

    /// Waits until there is room for one more connection.
    pub(super) async fn room(self: &Arc<Self>) -> Option<(Place, Handshake)> {
        let handshake = Arc::clone(&self.handshakes).acquire_owned().await.ok()?;
        // Given back by the place.
        self.connections.acquire().await.ok()?.forget();
        let place =
            Place { door: Arc::clone(self), address: NOBODY, is_open: false, is_socket: false };
        Some((place, Handshake(handshake)))
    }

    /// How many visitors there may be at once.
    pub fn sockets_max(&self) -> usize {
        self.limits.sockets
    }

    /// Whether there is no room for another visitor.
    pub fn is_full(&self) -> bool {
        self.counted().sockets >= self.limits.sockets
    }

    /// Connections of addresses that had too many, so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Handshakes under way.
    pub fn handshakes(&self) -> usize {
        // Room that was taken for a connection which has not come yet is no handshake.
        let rooms = self.limits.connections - self.connections.available_permits();
        let awaited = rooms.saturating_sub(self.connections());
        (HANDSHAKES_MAX - self.handshakes.available_permits()).saturating_sub(awaited)
    }

    /// Connections at once.
    pub fn connections(&self) -> usize {
        self.counted().connections
    }

    /// Visitors' sockets at once.
    pub fn sockets(&self) -> usize {
        self.counted().sockets
    }

    /// Whether this is the address of a trusted proxy.
    pub(super) fn is_trusted(&self, address: IpAddr) -> bool {
        self.limits.trusted_proxies.iter().any(|net| net.contains(&address.to_canonical()))
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts this connection, which has come, and for the address that it comes from, unless that is a
    /// trusted proxy.
    pub(super) fn count_peer(&mut self, peer: IpAddr) -> Result<(), Refused> {
        self.is_open = true;
        self.door.counted().connections += 1;
        if self.door.is_trusted(peer) {
            return Ok(());
        }
        self.count(peer).inspect_err(|_| {
            self.door.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Counts this connection as a visitor's socket: for the one on whose behalf a trusted proxy asks,
    /// if it says so, and among all sockets.
    pub fn count_socket(&mut self, headers: &HeaderMap) -> Result<(), Refused> {
        if self.address == NOBODY
            && let Some(address) = forwarded_for(headers, |address| self.door.is_trusted(address))
        {
            self.count(address)?;
        }
        let mut counted = self.door.counted();
        if counted.sockets >= self.door.limits.sockets {
            return Err(Refused::Sockets);
        }
        counted.sockets += 1;
        drop(counted);
        self.is_socket = true;
        Ok(())
    }

    fn count(&mut self, address: IpAddr) -> Result<(), Refused> {
        let key = key(address);
        let mut counted = self.door.counted();
        let of_address = counted.addresses.entry(key).or_default();
        if *of_address >= self.door.limits.per_address {
            return Err(Refused::Address);
        }
        *of_address += 1;
        drop(counted);
        self.address = key;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.connections.add_permits(1);
        let mut counted = self.door.counted();
        counted.connections -= usize::from(self.is_open);
        counted.sockets -= usize::from(self.is_socket);
        let of_address = counted.addresses.get_mut(&self.address);
        if of_address.is_some_and(|count| {
            *count -= 1;
            *count == 0
        }) {
            counted.addresses.remove(&self.address);
        }
    }
}

/// What an address is counted by: an IPv4 address, or the first 64 bits of an IPv6 one.
fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments().map(u64::from);
            a << 48 | b << 32 | c << 16 | d
        }
    }
}

/// The one on whose behalf trusted proxies ask: the last address of `X-Forwarded-For` that is not one
/// of theirs. What stands before it was said by somebody who is not trusted.
fn forwarded_for(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let said = headers.get_all("x-forwarded-for").iter().rev();
    let said = said.filter_map(|value| value.to_str().ok()).flat_map(|text| text.rsplit(','));
    said.take(PROXIES_MAX)
        .map_while(|address| parse(address.trim()))
        .find(|address| !is_trusted(*address))
}

/// An address, perhaps with a port, as some proxies write it.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().ok().map(|address: std::net::SocketAddr| address.ip());
    bare.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(sockets: usize, per_address: usize) -> Arc<Door> {
        let trusted = ["127.0.0.0/8", "::1/128", "10.0.0.0/8"];
        let trusted_proxies = trusted.map(|net| net.parse().unwrap()).to_vec();
        Door::new(Limits { connections: 100, sockets, per_address, trusted_proxies })
    }

    fn headers(forwarded: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    async fn place(door: &Arc<Door>, peer: &str) -> (Place, Result<(), Refused>) {
        let (mut place, _) = door.room().await.unwrap();
        let counted = place.count_peer(peer.parse().unwrap());
        (place, counted)
    }

    #[tokio::test]
    async fn an_address_has_so_many_places_and_gets_them_back() {
        let door = door(10, 2);
        let first = place(&door, "203.0.113.7").await;
        let second = place(&door, "::ffff:203.0.113.7").await;
        assert_eq!((first.1, second.1), (Ok(()), Ok(())));
        assert_eq!(place(&door, "203.0.113.7").await.1, Err(Refused::Address));
        assert_eq!(place(&door, "203.0.113.8").await.1, Ok(()));
        drop(first);
        assert_eq!(place(&door, "203.0.113.7").await.1, Ok(()));
        drop(second);
        assert!(door.counted().addresses.is_empty());
        // The next one is waited for, and is none yet.
        let awaited = door.room().await.unwrap();
        assert_eq!((door.connections(), door.handshakes()), (0, 0));
        drop(awaited);
        assert_eq!((door.connections(), door.handshakes()), (0, 0));
    }

    #[tokio::test]
    async fn an_ipv6_network_is_one_address_and_a_proxy_none() {
        let door = door(10, 1);
        let home = place(&door, "2001:db8:1:2:3::4").await;
        assert_eq!(home.1, Ok(()));
        assert_eq!(place(&door, "2001:db8:1:2:ffff::1").await.1, Err(Refused::Address));
        assert_eq!(place(&door, "2001:db8:1:3::1").await.1, Ok(()));
        let proxies = [place(&door, "127.0.0.1").await, place(&door, "::1").await];
        assert!(proxies.iter().all(|(_, counted)| counted.is_ok()));
    }

    #[tokio::test]
    async fn behind_a_trusted_proxy_the_visitor_is_counted_and_nobody_else_says_who_that_is() {
        let door = door(10, 1);
        for (peer, forwarded, twice) in [
            ("127.0.0.1", &["203.0.113.7"][..], Err(Refused::Address)),
            ("10.1.2.3", &["198.51.100.1, 203.0.113.7", "10.9.9.9"], Err(Refused::Address)),
            ("127.0.0.1", &["[2001:db8::1]:443"], Err(Refused::Address)),
            // Not an address, or none: nobody to count.
            ("127.0.0.1", &["203.0.113.7, unknown"], Ok(())),
            ("127.0.0.1", &[], Ok(())),
        ] {
            let (mut first, _) = place(&door, peer).await;
            let (mut second, _) = place(&door, peer).await;
            let headers = headers(forwarded);
            assert_eq!(first.count_socket(&headers), Ok(()), "{forwarded:?}");
            assert_eq!(second.count_socket(&headers), twice, "{forwarded:?}");
        }
        // One who is no proxy can't take another's place, nor hide behind one.
        let (mut forger, _) = place(&door, "203.0.113.9").await;
        assert_eq!(forger.count_socket(&headers(&["203.0.113.7"])), Ok(()));
        let (mut honest, _) = place(&door, "127.0.0.1").await;
        assert_eq!(honest.count_socket(&headers(&["203.0.113.7"])), Ok(()));
        assert_eq!(place(&door, "203.0.113.9").await.1, Err(Refused::Address));
    }

    #[tokio::test]
    async fn sockets_leave_room_for_requests() {
        let door = door(1, 10);
        let (mut socket, _) = place(&door, "203.0.113.1").await;
        assert_eq!(socket.count_socket(&HeaderMap::new()), Ok(()));
        assert!(door.is_full());
        let (mut second, counted) = place(&door, "203.0.113.2").await;
        assert_eq!(counted, Ok(()));
        assert_eq!(second.count_socket(&HeaderMap::new()), Err(Refused::Sockets));
        drop(socket);
        assert_eq!(second.count_socket(&HeaderMap::new()), Ok(()));
    }
}
