//! Puts load on a running Anteroom and says what came of it, as one line of JSON.
//!
//! `joins`: many visitors say JOIN at the same moment, each on a socket that is open already. Told
//! are the seconds until the last was acknowledged, and how long an acknowledgement took.

#![expect(
    clippy::disallowed_methods,
    reason = "the doors are the library's; this program measures by the machine's clock"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Semaphore};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Handshakes under way at once: the client is not what is measured.
const HANDSHAKES_MAX: usize = 100;
/// A visitor without an answer after this has failed.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Many visitors say JOIN at the same moment
    Joins {
        /// The socket of a queue, as ws://127.0.0.1:8080/ws/demo
        url: String,
        /// How many
        #[arg(long, default_value_t = 2_000)]
        visitors: usize,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { scenario: Scenario::Joins { url, visitors } } = Cli::parse();
    let said = joins(&url, visitors).await?;
    println!("{said}");
    Ok(())
}

async fn joins(url: &str, visitors: usize) -> anyhow::Result<Value> {
    let ready = Arc::new(Barrier::new(visitors + 1));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let tasks: Vec<_> = (0..visitors)
        .map(|_| {
            let (url, ready) = (url.to_owned(), Arc::clone(&ready));
            let handshakes = Arc::clone(&handshakes);
            tokio::spawn(async move {
                let place = handshakes.acquire_owned().await;
                let connected = tokio_tungstenite::connect_async(url).await;
                drop(place);
                ready.wait().await;
                let (socket, _) = connected.context("no socket")?;
                tokio::time::timeout(ANSWER_WAIT_MAX, join(socket)).await.context("no answer")?
            })
        })
        .collect();
    ready.wait().await;
    let begun = Instant::now();
    let mut acknowledged = Vec::with_capacity(visitors);
    let mut shown = Vec::with_capacity(visitors);
    for task in tasks {
        let told = task.await??;
        acknowledged.push(told.acknowledged);
        shown.push(told.shown);
    }
    let seconds = begun.elapsed().as_secs_f64();
    acknowledged.sort();
    shown.sort();
    let millis = |times: &[Duration], of_hundred: usize| {
        let index = (times.len() * of_hundred / 100).min(times.len() - 1);
        times[index].as_secs_f64() * 1_000.0
    };
    Ok(json!({
        "visitors": visitors,
        "seconds": seconds,
        "ack_p50_ms": millis(&acknowledged, 50),
        "ack_p99_ms": millis(&acknowledged, 99),
        "shown_p50_ms": millis(&shown, 50),
        "shown_p99_ms": millis(&shown, 99),
    }))
}

/// From JOIN to JOINED, and to the first numbers (or the token).
struct Told {
    acknowledged: Duration,
    shown: Duration,
}

async fn join(mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> anyhow::Result<Told> {
    let said = Instant::now();
    socket.send(Message::text(r#"{"type":"JOIN"}"#)).await?;
    let mut acknowledged = None;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let message: Value = serde_json::from_str(&text)?;
        match (message["type"].as_str(), acknowledged) {
            (Some("JOINED"), None) => acknowledged = Some(said.elapsed()),
            (Some("QUEUE_UPDATE" | "ADMITTED"), Some(acknowledged)) => {
                return Ok(Told { acknowledged, shown: said.elapsed() });
            }
            _ => bail!("out of order: {message}"),
        }
    }
    bail!("the socket ended")
}
