//! Three servers in network namespaces of their own, with a wire between each two that can be cut.
//!
//! All of it is in a network that the test has for itself, so that nothing of it is seen outside, and nothing
//! is left when it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

/// Says to the test that it is in there.
const INSIDE: &str = "ANTEROOM_TEST_HAS_ITS_OWN_NETWORK";
const CLIENTS: u16 = 4222;
const ROUTES: u16 = 6222;

/// Runs this test, by its whole name, once more in a network of its own, and says whether this is it in there.
pub(crate) fn is_in_its_own_network(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let is_root = rustix::process::getuid().is_root();
    let enter = "mount -t tmpfs tmpfs /run && ip link set lo up && exec \"$@\"";
    let status = Command::new("unshare")
        .args(if is_root { vec![] } else { vec!["--map-root-user"] })
        .args(["--net", "--mount", "sh", "-c", enter, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "yes")
        .status();
    let status = status.expect("this test needs `unshare` of util-linux and `ip` of iproute2");
    assert!(status.success(), "in a network of its own it failed, or there is none to be had here");
    false
}

/// The wires. They go with the network that they are in.
pub(crate) struct Wires;

impl Wires {
    /// Lays a wire from here to each of the servers, and one between each two of them.
    pub(crate) fn lay() -> Self {
        for server in 0..3 {
            ip(&format!("netns add s{server}"));
            ip(&format!("-n s{server} link set lo up"));
            ip(&format!("link add c{server} type veth peer name here netns s{server}"));
            ip(&format!("address add 10.77.{server}.1/24 dev c{server}"));
            ip(&format!("link set c{server} up"));
            ip(&format!("-n s{server} address add 10.77.{server}.2/24 dev here"));
            ip(&format!("-n s{server} link set here up"));
        }
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let peer = format!("veth peer name w{one} netns s{other}");
            ip(&format!("link add w{other} netns s{one} type {peer}"));
            for (of, to) in [(one, other), (other, one)] {
                let address = route(to, of).ip();
                ip(&format!("-n s{of} address add {address}/24 dev w{to}"));
                ip(&format!("-n s{of} link set w{to} up"));
            }
        }
        Self
    }

    /// Where a server listens to clients.
    pub(crate) fn address(&self, server: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(10, 77, octet(server), 2), CLIENTS))
    }

    /// Where one server finds the other two, and where it listens to them.
    pub(crate) fn routes(&self, of: usize) -> (SocketAddr, Vec<SocketAddr>) {
        let others = (0..3).filter(|other| *other != of).map(|other| route(of, other));
        (SocketAddr::from((Ipv4Addr::UNSPECIFIED, ROUTES)), others.collect())
    }

    /// By way of what a server is started.
    pub(crate) fn by(&self, server: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("s{server}")]);
        command
    }

    /// Cuts a server off from the other two, without a word to anyone; clients still reach it.
    pub(crate) fn cut_off(&self, server: usize) {
        self.set(server, "down");
    }

    /// Puts its wires together again.
    pub(crate) fn mend(&self, server: usize) {
        self.set(server, "up");
    }

    fn set(&self, server: usize, to: &str) {
        for other in (0..3).filter(|other| *other != server) {
            ip(&format!("-n s{server} link set w{other} {to}"));
        }
    }
}

/// Where the one finds the other.
fn route(of: usize, other: usize) -> SocketAddr {
    let (low, high) = (of.min(other), of.max(other));
    let host = if other == low { 1 } else { 2 };
    SocketAddr::from((Ipv4Addr::new(10, 78, octet(10 * low + high), host), ROUTES))
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).unwrap()
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.expect("`ip` of iproute2 is needed").success(), "ip {arguments}");
}
