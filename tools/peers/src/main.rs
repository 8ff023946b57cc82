//! Other WebSocket servers that push as Anteroom's node does, to be measured beside it. They speak
//! just enough of its protocol: a place in line, leaving it, and a number for all who move up. There
//! is no log, and a socket that is merely gone keeps its place.
//!
//! `bare` is the limit of what sockets allow, `axum-ws` what one writes with axum. A third, with
//! Node's `ws`, is in `ws/`. Each says its address as one line of JSON once it listens, and ends at
//! SIGTERM or when its standard input does.

mod protocol;
mod bare;
mod frames;
mod axum_ws;

use std::io::Write as _;
use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use serde_json::json;

/// Connections that wait to be accepted: a crowd comes at once, and none should be turned away.
const BACKLOG: i32 = 4_096;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Subcommand)]
enum Peer {
    /// Sends one frame, made before, to every socket in a loop, and does nothing else
    Bare {
        /// How many share the sockets
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Bytes of a socket's send buffer
        #[arg(long, default_value_t = 4_096)]
        send_buffer: usize,
    },
    /// A task a socket with axum's own WebSocket, each with the visitor's own numbers
    AxumWs,
}

fn main() -> anyhow::Result<()> {
    let Cli { peer } = Cli::parse();
    end_with_stdin();
    match peer {
        Peer::Bare { threads, send_buffer } => bare::serve(threads, send_buffer),
        Peer::AxumWs => axum_ws::serve(),
    }
}

/// Whoever started this may be killed; then nobody would end it.
fn end_with_stdin() {
    std::thread::spawn(|| {
        // Broken or ended is the same here.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
}

fn say_ready(address: SocketAddr) -> anyhow::Result<()> {
    let ready = json!({ "url": format!("ws://{address}/ws/bench"), "pid": std::process::id() });
    let mut out = std::io::stdout();
    writeln!(out, "{ready}")?;
    out.flush()?;
    Ok(())
}
