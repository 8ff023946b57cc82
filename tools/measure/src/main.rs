//! Writes logs of a known make, and measures how fast they are read and folded. Each command says
//! what came of it as one line of JSON; `tools/bench rebuild` puts them together.

#![expect(
    clippy::disallowed_methods,
    reason = "the doors are the library's; this program measures by the machine's clock"
)]

mod crowd;
mod fill;
mod fold;
mod read;

use anteroom::log::connection::Log;
use anteroom::log::subjects::QueueId;
use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use std::time::Duration;

const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a queue and write its log; needs the operator's identity
    Fill {
        #[command(flatten)]
        at: AtQueue,
        #[command(flatten)]
        size: fill::Size,
    },
    /// Read a log and decode it, and do nothing else
    Read {
        #[command(flatten)]
        at: AtQueue,
    },
    /// Read a log and fold it in memory, with both fingerprints
    Replay {
        #[command(flatten)]
        at: AtQueue,
    },
    /// Ask a projector where a visitor is until it says
    Serving {
        #[command(flatten)]
        at: AtQueue,
        /// Which one of the log's people
        #[arg(long)]
        person: u32,
        /// The entry that must be applied
        #[arg(long)]
        at_least: u64,
    },
    /// Fold in memory, without a log
    Fold {
        /// How many wait
        #[arg(long, default_value_t = 1_000_000)]
        people: u32,
        /// How often
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

#[derive(Args)]
struct AtQueue {
    /// The NATS server, as nats://user:password@host:port
    #[arg(long)]
    nats: String,
    /// The queue
    queue: String,
}

impl AtQueue {
    async fn open(&self) -> anyhow::Result<(Log, QueueId)> {
        let queue = QueueId::parse(&self.queue).context("no queue's name")?;
        let log = Log::connect(&self.nats, "anteroom-measure").await?;
        ensure!(log.connected_within(CONNECT_WAIT_MAX).await, "the log can't be reached");
        Ok((log, queue))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let said = match Cli::parse().command {
        Command::Fill { at, size } => {
            let (log, queue) = at.open().await?;
            fill::fill(&log, &at.nats, &queue, &size).await?
        }
        Command::Read { at } => {
            let (log, queue) = at.open().await?;
            read::read(&log, &queue).await?
        }
        Command::Replay { at } => {
            let (log, queue) = at.open().await?;
            read::replay(&log, &queue).await?
        }
        Command::Serving { at, person, at_least } => {
            let (log, queue) = at.open().await?;
            read::serving(&log, &queue, person, at_least).await?
        }
        Command::Fold { people, rounds } => fold::fold(people, rounds),
    };
    println!("{said}");
    Ok(())
}
