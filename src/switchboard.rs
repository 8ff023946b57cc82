//! The switchboard: reads the command, runs it, and says how it ended. 0 is done, 1 is "no" or
//! failed, 2 is wrong usage. `main` is beside it, so that a program for tests may know another level.

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::net::{TcpListener, TcpSocket};

use crate::cli::{self, Cli, Command, WrongUsage};
use crate::config::{Config, ConfigError, Settings};
use crate::log::connection::Log;
use crate::queue::event::Level;
use crate::shutdown::{self, Shutdown};
use crate::up::{self, Told, lifeline};
use crate::{admission, node, projection, scheduling, telemetry};

const WRONG_USAGE: u8 = 2;

/// Runs what the arguments of this process say, as a program that knows levels of a log up to `newest`.
pub fn main(newest: Level) -> ExitCode {
    match run(Cli::parse().command, newest) {
        Ok(code) => code,
        Err(error) => {
            use std::io::Write as _;
            // When nobody reads what is wrong, the exit code still says so.
            let _ = writeln!(std::io::stderr(), "anteroom: {error:#}");
            let usage = error.is::<ConfigError>() || error.is::<WrongUsage>();
            if usage { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command, newest: Level) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up { json, settings } => {
            let config = load(&settings)?;
            up::run(&config, &Told { json })?;
        }
        Command::Node { settings } => {
            role(&settings, "node", newest, async |log, config, shutdown| {
                let listen = bind(config.listen()?)?;
                let config = node::Config {
                    keys: config.connection_keys()?,
                    installation: config.installation_key()?,
                    issuer: config.issuer(),
                    public_url: config.public_url()?,
                    listen,
                    limits: config.door()?,
                    pushers: config.pushers()?,
                };
                node::run(log, config, shutdown).await
            })?
        }
        Command::Projector { settings } => {
            role(&settings, "projector", newest, async |log, config, shutdown| {
                projection::run(log, config.dir(), shutdown).await
            })?;
        }
        Command::Admission { settings } => {
            role(&settings, "admission", newest, async |log, config, shutdown| {
                let config = admission::Config {
                    signer: config.signer()?,
                    signing_key_file: config.signing_key_file()?,
                    key_rest: config.key_rest()?,
                    installation: config.installation_key()?,
                    limits: config.limits()?,
                    operator_token: config.operator_token()?,
                    operator: bind(config.operator_listen()?)?,
                };
                admission::run(log, config, shutdown).await
            })?;
        }
        Command::Queue { command } => return cli::queue::run(command),
        Command::Key { command } => return cli::key::run(command),
        Command::Audit { command } => return runtime()?.block_on(cli::audit::run(command, newest)),
        Command::Projection { command } => {
            return runtime()?.block_on(cli::projection::run(command, newest));
        }
        Command::Lifeline { program, arguments } => lifeline::exec(&program, &arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn load(settings: &Settings) -> Result<Config, ConfigError> {
    let config = Config::load(settings)?;
    telemetry::start(config.log());
    Ok(config)
}

/// Runs one role until it is asked to stop, and then until its last task has ended.
fn role<F: Future<Output = anyhow::Result<()>>>(
    settings: &Settings,
    name: &str,
    newest: Level,
    run: impl FnOnce(Log, Config, Shutdown) -> F,
) -> anyhow::Result<()> {
    lifeline::hold()?;
    let config = load(settings)?;
    // The runtime's threads and the pushers, which are started from here on, have it from this one.
    if name == "node" {
        scheduling::batch();
    }
    runtime()?.block_on(async {
        let log = Log::connect(&config.nats()?, name, newest).await?;
        let shutdown = Shutdown::default();
        let asked = shutdown.clone();
        shutdown::detached(async move {
            if let Err(error) = shutdown::asked_to_stop().await {
                tracing::error!(%error, "signals can't be listened to");
            }
            asked.stop();
        });
        let ended = run(log, config, shutdown.clone()).await;
        shutdown.stop();
        shutdown.drain().await;
        ended
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("the runtime can't be started")
}

/// Connections that the kernel keeps until they are accepted. With the usual 128 a crowd that comes in
/// one moment is turned away by silence, and tries again after a second.
const BACKLOG: u32 = 4_096;

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("nothing can listen on {address}"))
}
