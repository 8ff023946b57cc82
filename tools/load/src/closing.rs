//! Which sockets of a server on this machine were closed without the client being told.
//!
//! Whoever reads nothing gets no word of the end: it waits behind what they have not read. Only the
//! kernel's table of sockets has it.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Context as _;

const TABLE: &str = "/proc/net/tcp";
/// Closed by the server, and not yet by the client (FIN_WAIT1 and FIN_WAIT2).
const CLOSED_STATES: [&str; 2] = ["04", "05"];

/// The clients of the sockets at these ports that the server has closed.
pub fn clients(ports: &[u16]) -> anyhow::Result<Vec<SocketAddrV4>> {
    let table = std::fs::File::open(TABLE).context(TABLE)?;
    let mut clients = Vec::new();
    for line in BufReader::new(table).lines() {
        clients.extend(client(&line.context(TABLE)?, ports));
    }
    Ok(clients)
}

fn client(line: &str, ports: &[u16]) -> Option<SocketAddrV4> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let is_ours = CLOSED_STATES.contains(&state) && ports.contains(&address(local)?.port());
    if is_ours { address(remote) } else { None }
}

/// Reads an address: the four bytes as the machine has them in one number, and the port.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some(SocketAddrV4::new(Ipv4Addr::from(ip), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_closed_counts() {
        let line = |state| {
            let [local, remote] = [[127, 0, 0, 1], [127, 1, 2, 3]].map(u32::from_ne_bytes);
            format!(" 7: {local:08X}:1F90 {remote:08X}:2710 {state} 00000000:00000000 00:0")
        };
        let expected = Some(SocketAddrV4::new(Ipv4Addr::new(127, 1, 2, 3), 10_000));
        assert_eq!(client(&line("04"), &[8080]), expected);
        assert_eq!(client(&line("01"), &[8080]), None);
        assert_eq!(client(&line("04"), &[8081]), None);
        assert_eq!(client("  sl  local_address rem_address   st", &[8080]), None);
        assert!(clients(&[1]).unwrap().is_empty());
    }
}
