//! Writes logs of a known make, and measures how fast they are read and folded, and what a line costs
//! beside a sorted set of Redis; has tokens used and passes shown; runs a model of a site whose load the
//! rate follows. Each command says what came of it as one line of JSON; `tools/bench rebuild`, `line`,
//! `redeem` and `load` put them together.

#![expect(
    clippy::disallowed_methods,
    reason = "the doors are the library's; this program measures by the machine's clock"
)]

mod backtest;
mod crowd;
mod estimates;
mod feed;
mod fill;
mod fold;
mod http;
mod joins;
mod load;
mod memory;
mod ranks;
mod read;
mod redeem;
mod redis;
#[path = "../../../tests/rules/site.rs"]
mod site;

use anteroom::log::connection::Log;
use anteroom::log::subjects::QueueId;
use anteroom::queue::event::Level;
use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use std::time::Duration;

const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Roomy: what is measured is no full log.
const STREAM_BYTES_MAX: i64 = 8 << 30;
/// What its streams have as their secret: no node puts anybody in line there.
const NO_SECRET: &str = "none";

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
    /// Compare the feed of lines of different lengths that move alike
    Feed {
        #[command(flatten)]
        sizes: feed::Sizes,
    },
    /// Make a queue and join it as nodes do; needs the operator's identity
    JoinLog {
        #[command(flatten)]
        at: AtQueue,
        /// The same server, with a node's identity
        #[arg(long)]
        node: String,
        #[command(flatten)]
        rush: joins::Rush,
    },
    /// Join a sorted set of Redis
    JoinRedis {
        /// The Redis server, as host:port
        #[arg(long)]
        redis: String,
        #[command(flatten)]
        rush: joins::Rush,
        /// Joins that one command takes in: a divisor of half of those in the air
        #[arg(long, default_value_t = 1)]
        per_command: u32,
    },
    /// Ask for everyone's rank, here and in an empty Redis
    Ranks {
        /// The Redis server, as host:port
        #[arg(long)]
        redis: String,
        /// How many wait
        #[arg(long)]
        people: u32,
    },
    /// Let people in, use their tokens and show their passes; needs the operator's identity
    Redeem {
        #[command(flatten)]
        at: AtQueue,
        #[command(flatten)]
        load: redeem::Load,
    },
    /// Run the model of a site whose load the rate follows
    Load {
        /// What its constants and its noise are drawn by
        #[arg(long)]
        seed: u64,
    },
    /// Say how far estimates can be believed, over histories from seeds or of a real log
    Backtest {
        #[command(flatten)]
        what: estimates::What,
    },
    /// Say what memory those who wait take
    Memory {
        /// How many wait: a multiple of 100
        #[arg(long)]
        people: u32,
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
        Ok((connect(&self.nats).await?, queue))
    }
}

async fn connect(url: &str) -> anyhow::Result<Log> {
    let log = Log::connect(url, "anteroom-measure", Level::NEWEST).await?;
    ensure!(log.connected_within(CONNECT_WAIT_MAX).await, "the log can't be reached");
    Ok(log)
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
        Command::Feed { sizes } => feed::feed(&sizes).await?,
        Command::JoinLog { at, node, rush } => {
            let (log, queue) = at.open().await?;
            joins::into_log(&log, &node, &queue, rush).await?
        }
        Command::JoinRedis { redis, rush, per_command } => {
            joins::into_redis(&redis, rush, per_command)?
        }
        Command::Ranks { redis, people } => ranks::ranks(&redis, people)?,
        Command::Redeem { at, load } => {
            let (log, queue) = at.open().await?;
            redeem::redeem(&log, &queue, &load).await?
        }
        Command::Load { seed } => load::load(seed),
        Command::Backtest { what } => estimates::estimates(&what)?,
        Command::Memory { people } => memory::memory(people)?,
    };
    println!("{said}");
    Ok(())
}
