//! The command line: what can be said to `anteroom`, and the commands that look at a running system.

pub mod audit;
pub mod queue;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Settings;

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
    /// Check from the log alone what happened
    Audit {
        /// What to do.
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Compare what running projectors say
    Projection {
        /// What to do.
        #[command(subcommand)]
        command: audit::ProjectionCommand,
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
