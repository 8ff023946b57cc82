//! The road between a client and the server, on which a test makes accidents happen.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anteroom::shutdown::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::world::soon;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accident {
    /// Nothing.
    None,
    /// What the server says is lost.
    AnswersLost,
    /// The connection breaks when the server acknowledges an append, which the client never hears;
    /// the next connection is good.
    CutAtAck,
    /// The connection breaks when the client appends, which the server never hears; the next
    /// connection is good.
    CutAtAppend,
}

/// A TCP proxy.
pub(crate) struct Road {
    address: SocketAddr,
    shared: Arc<Shared>,
    shutdown: Shutdown,
}

struct Shared {
    accident: watch::Sender<Accident>,
    /// All that the server said, whether it arrived or not.
    said: watch::Sender<String>,
}

impl Road {
    /// A good road to this server.
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            accident: watch::Sender::new(Accident::None),
            said: watch::Sender::new(String::new()),
        });
        let shutdown = Shutdown::default();
        shutdown.spawn(accept(listener, server, shared.clone(), shutdown.clone()));
        Self { address, shared, shutdown }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, accident: Accident) {
        self.shared.accident.send_replace(accident);
    }

    /// Waits until the server has said this so many times.
    pub(crate) async fn said(&self, text: &str, times: usize) {
        let mut said = self.shared.said.subscribe();
        soon(said.wait_for(|said| said.matches(text).count() >= times)).await.unwrap();
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    shared: Arc<Shared>,
    shutdown: Shutdown,
) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            () = shutdown.stopped() => return,
        };
        // While the server is away, so is the road.
        let Ok(server) = TcpStream::connect(server).await else { continue };
        let (shared, stopping) = (shared.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // The first to end drops all four halves: the connection is cut on both sides.
            tokio::select! {
                () = carry_questions(from_client, to_server, &shared) => {}
                () = carry_answers(from_server, to_client, &shared) => {}
                () = stopping.stopped() => {}
            }
        });
    }
}

async fn carry_questions(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut bytes = vec![0; 65_536];
    while let Some(chunk) = read(&mut from, &mut bytes).await {
        let appends = String::from_utf8_lossy(chunk).contains("PUB anteroom.log.");
        if appends && shared.happens_once(Accident::CutAtAppend) {
            return;
        }
        if to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

async fn carry_answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut bytes = vec![0; 65_536];
    while let Some(chunk) = read(&mut from, &mut bytes).await {
        let text = String::from_utf8_lossy(chunk).into_owned();
        let lost = *shared.accident.borrow() == Accident::AnswersLost;
        let cut = text.contains(r#""seq":"#) && shared.happens_once(Accident::CutAtAck);
        shared.said.send_modify(|said| said.push_str(&text));
        if cut {
            return;
        }
        if !lost && to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

impl Shared {
    fn happens_once(&self, accident: Accident) -> bool {
        self.accident.send_if_modified(|now| {
            let happens = *now == accident;
            if happens {
                *now = Accident::None;
            }
            happens
        })
    }
}

async fn read<'a>(from: &mut OwnedReadHalf, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    let count = from.read(bytes).await.ok().filter(|count| *count > 0)?;
    bytes.get(..count)
}
