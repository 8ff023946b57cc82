//! One connection to NATS. It comes back by itself for as long as the process lives.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::watch;

use crate::clock;
use crate::ids;
use crate::queue::event::Level;

/// Above this an unanswered request counts as lost. An append to a busy disk takes milliseconds; a
/// visitor is told after 3 s that the log does not answer, so the answer must be known by then.
pub const REQUEST_SECONDS_MAX: Duration = Duration::from_millis(2_500);

/// Messages that wait in this process for one subscriber before further ones are dropped. A tail
/// that missed some reads them from the log; it holds entries, not people.
const SUBSCRIPTION_MESSAGES_MAX: usize = 16_384;

const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(1);

/// A handle to the log and to what is said beside it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    pub(super) client: Client,
    newest: Level,
    /// Wakes whoever waits for a connection.
    connected: watch::Receiver<()>,
}

/// The address can't be used.
#[derive(Debug, thiserror::Error)]
#[error("can't use the NATS address: {0}")]
pub struct ConnectError(String);

impl Log {
    /// Connects to one of the `addresses`, each as `nats://user:password@host:port` and separated by commas
    /// or white space, and keeps trying. Comes back at once, connected or not: a role starts without a log
    /// and says that it has none. All of them are of one identity. `newest` is the highest level of a log
    /// that this program knows.
    pub async fn connect(addresses: &str, name: &str, newest: Level) -> Result<Self, ConnectError> {
        let servers = parse(addresses)?;
        let mut options = ConnectOptions::new();
        if let Some((user, password)) = servers.first().and_then(identity) {
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        let spread = 0.5 + f64::from(ids::node().0[0]) / 510.0;
        let (to_connected, connected) = watch::channel(());
        let options = options
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(move |attempts| {
                let millis = u64::try_from(attempts).unwrap_or(u64::MAX).saturating_mul(50);
                // All who lost a server at once come back one after another.
                RECONNECT_WAIT_MAX.min(Duration::from_millis(millis)).mul_f64(spread)
            })
            .ping_interval(Duration::from_secs(5))
            .request_timeout(Some(REQUEST_SECONDS_MAX))
            .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
            .event_callback(move |event| {
                note(&event, &to_connected);
                std::future::ready(())
            });
        // The address holds a password: the error says what is wrong with it, not what it is.
        let client = options
            .connect(servers)
            .await
            .map_err(|error| ConnectError(error.kind().to_string()))?;
        Ok(Self { client, newest, connected })
    }

    /// The highest level of a log that this program knows.
    pub fn newest(&self) -> Level {
        self.newest
    }

    /// Waits for the first connection, for one who has nothing to do without it.
    pub async fn connected_within(&self, wait: Duration) -> bool {
        let until = clock::monotonic() + wait;
        while !self.is_connected() && clock::monotonic() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.is_connected()
    }

    /// Whether there is a connection at the moment.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How often this client has connected: the number of its connection.
    pub(super) fn connections(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Comes back on another connection than the one with this number: what was asked on that one may never
    /// be answered.
    pub(super) async fn reconnected(&self, connection: u64) {
        let mut connected = self.connected.clone();
        connected.mark_unchanged();
        // News of this connection may come after it is in use.
        while self.connections() == connection {
            if connected.changed().await.is_err() {
                // The client has ended; each request has its own end.
                std::future::pending::<()>().await;
            }
        }
        // The client says so just before it goes by it.
        self.connected_within(RECONNECT_WAIT_MAX).await;
    }
}

/// The servers of a list. The error says what is wrong with an address and not what it is: it holds a password.
fn parse(addresses: &str) -> Result<Vec<ServerAddr>, ConnectError> {
    let failed = |why: &str| ConnectError(why.to_owned());
    let words = addresses.split(|c: char| c == ',' || c.is_whitespace());
    let servers: Result<Vec<ServerAddr>, _> =
        words.filter(|word| !word.is_empty()).map(str::parse).collect();
    let servers = servers.map_err(|_| failed("it is no nats:// address"))?;
    let Some(first) = servers.first() else { return Err(failed("there is none")) };
    if servers.iter().any(|server| identity(server) != identity(first)) {
        return Err(failed("the addresses are of several identities"));
    }
    Ok(servers)
}

fn identity(server: &ServerAddr) -> Option<(&str, &str)> {
    Some((server.username()?, server.password()?))
}

fn note(event: &Event, connected: &watch::Sender<()>) {
    if matches!(event, Event::Connected) {
        connected.send_replace(());
        tracing::info!("connected to the log");
    } else if matches!(event, Event::Disconnected) {
        tracing::warn!("the connection to the log is lost; trying again");
    } else {
        tracing::debug!(%event, "log connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_list_of_one_identity() {
        let read = |text: &str| {
            parse(text).map(|servers| servers.iter().map(ServerAddr::port).collect::<Vec<_>>())
        };
        let why = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(read("nats://ann:x@a:4222").unwrap(), [4222]);
        let list = "nats://ann:x@a:1, nats://ann:x@b:2,nats://ann:x@c:3\n";
        assert_eq!(read(list).unwrap(), [1, 2, 3]);
        assert_eq!(read("nats://ann:x@a:1\nnats://ann:x@b:2\n").unwrap(), [1, 2]);
        assert_eq!(why(" ,\n"), "can't use the NATS address: there is none");
        assert_eq!(
            why("nats://ann:x@a:1,nats://bob:y@b:2"),
            "can't use the NATS address: the addresses are of several identities"
        );
        assert_eq!(
            why("nats://ann:x@a:1,nats://ann:x y@b"),
            "can't use the NATS address: it is no nats:// address"
        );
    }
}
