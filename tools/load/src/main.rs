//! Puts load on a running Anteroom, checks what comes back, and says what it cost: one line of JSON.
//!
//! # Layout
//!
//! - Scenarios: [`rush`], [`hold`], [`pass`], [`refresh`], [`storm`] and [`slow`]. They order a
//!   [`fleet`] of worker processes about, and [`report`].
//! - A [`worker`] carries [`orders`] out with its [`crowd`], one thread over an epoll. A [`visitor`] is
//!   the protocol without the socket; [`message`] and [`frame`] are what goes over it, [`socket`] how.
//! - [`checks`] says whether everyone has what was promised; [`measure`] what it cost, by [`clock`];
//!   [`closing`] finds sockets that were closed without a word.

mod rush;
mod hold;
mod pass;
mod refresh;
mod storm;
mod slow;
mod moves;
mod fleet;
mod report;
mod checks;
mod measure;
mod closing;
mod orders;
mod worker;
mod crowd;
mod visitor;
mod message;
mod frame;
mod socket;
mod random;
mod clock;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Puts load on a running Anteroom, checks what comes back, and says what it cost.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    Rush(rush::Rush),
    Hold(hold::Hold),
    Pass(pass::Pass),
    Refresh(refresh::Refresh),
    Storm(storm::Storm),
    Slow(slow::Slow),
    /// Holds the sockets of another process of this program
    #[command(hide = true)]
    Worker,
}

fn main() -> ExitCode {
    let held = match Cli::parse().scenario {
        Scenario::Rush(rush) => rush.run(),
        Scenario::Hold(hold) => hold.run(),
        Scenario::Pass(pass) => pass.run(),
        Scenario::Refresh(refresh) => refresh.run(),
        Scenario::Storm(storm) => storm.run(),
        Scenario::Slow(slow) => slow.run(),
        Scenario::Worker => worker::run().map(|()| true),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("anteroom-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
