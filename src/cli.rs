//! The command line: what can be said to `anteroom`, and the commands that look at a running system.

pub mod audit;
pub mod key;
pub mod projection;
pub mod queue;

mod operator;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};

use crate::config::Settings;
use crate::log::connection::Log;
use crate::log::subjects::QueueId;
use crate::queue::event::Level;
use crate::up;

/// A virtual waiting room whose order anyone can replay.
#[derive(Parser)]
#[command(name = "anteroom", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `anteroom` does.
#[derive(Subcommand)]
pub enum Command {
    /// Run everything on this machine, NATS included
    Up {
        /// Say that it is ready as one line of JSON
        #[arg(long)]
        json: bool,
        /// Configuration.
        #[command(flatten)]
        settings: Settings,
    },
    /// Run a WebSocket node
    Node {
        /// Configuration.
        #[command(flatten)]
        settings: Settings,
    },
    /// Run a projector
    Projector {
        /// Configuration.
        #[command(flatten)]
        settings: Settings,
    },
    /// Run an admission worker with the operator API
    Admission {
        /// Configuration.
        #[command(flatten)]
        settings: Settings,
    },
    /// Create, look at and steer queues
    Queue {
        /// What to do.
        #[command(subcommand)]
        command: queue::QueueCommand,
    },
    /// Look at the signing keys, rotate them, and take one out
    Key {
        /// What to do.
        #[command(subcommand)]
        command: key::KeyCommand,
    },
    /// Check from the log alone what happened
    Audit {
        /// What to do.
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Look at what the projector has made of the log, or have it made anew
    Projection {
        /// What to do.
        #[command(subcommand)]
        command: projection::ProjectionCommand,
    },
    /// Become another program that ends with its supervisor
    #[command(hide = true)]
    Lifeline {
        /// The program.
        program: OsString,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// A running system, by its log.
#[derive(Args)]
pub struct AtLog {
    /// The folder of a running `up`
    #[arg(long, value_name = "DIR", default_value = "anteroom-data")]
    pub dir: PathBuf,
    /// The NATS server, as nats://user:password@host:port, instead
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
}

/// A running system, by its operator API.
#[derive(Args)]
pub struct AtOperator {
    /// The folder of a running `up`
    #[arg(long, value_name = "DIR", default_value = "anteroom-data")]
    pub dir: PathBuf,
    /// The operator API, as http://127.0.0.1:8081, instead
    #[arg(long, value_name = "URL", requires = "token_file")]
    pub operator: Option<String>,
    /// The file with the operator's token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// How long a connection to the log may take.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

impl AtLog {
    /// A connection to the log under this identity of an `up`, or under the one in the address.
    async fn connect(&self, identity: &str, newest: Level) -> anyhow::Result<Log> {
        let url = match &self.nats {
            Some(url) => url.clone(),
            None => up::nats_address(&self.dir, identity)?,
        };
        let log = Log::connect(&url, "anteroom", newest).await?;
        if !log.connected_within(CONNECT_WAIT_MAX).await {
            bail!("the log can't be reached");
        }
        Ok(log)
    }
}

/// An argument that can't be one.
#[derive(Debug, thiserror::Error)]
#[error("{what} is {allowed}, not {given:?}")]
pub struct WrongUsage {
    what: &'static str,
    allowed: &'static str,
    given: String,
}

fn wrong_usage(what: &'static str, allowed: &'static str, given: &str) -> anyhow::Error {
    WrongUsage { what, allowed, given: given.to_owned() }.into()
}

/// The queue of this name.
fn parse_queue(queue: &str) -> anyhow::Result<QueueId> {
    let allowed = "1 to 63 of a-z 0-9 - and does not begin with a hyphen";
    QueueId::parse(queue).ok_or_else(|| wrong_usage("a queue's name", allowed, queue))
}

/// Prints a line; a reader that has gone is no failure.
fn print(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Tells the one who waits how far it is.
fn tell(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
