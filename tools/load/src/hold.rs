//! A line stands still, or moves when told to, and everyone in it is told.

use std::io::BufRead as _;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;

use crate::clock;
use crate::fleet::{Common, Fleet};
use crate::measure::{Times, rounded};
use crate::moves;
use crate::orders::Order;
use crate::report::{self, Before, Figures};
use crate::visitor::Role;

/// Leavers come on top of what a process holds: its limit of files has room for so many.
const LEAVERS_MAX: usize = 2_000;

/// Everyone joins and stays
#[derive(Args)]
pub struct Hold {
    #[command(flatten)]
    common: Common,
    /// Stay for so long
    #[arg(long, default_value_t = 60, conflicts_with = "commands")]
    seconds: u64,
    /// Stay until the input ends, and obey its lines: move, memory
    #[arg(long)]
    commands: bool,
    /// So many more at the front, each of whom can make one move
    #[arg(long, default_value_t = 0, requires = "commands")]
    leavers: usize,
}

impl Hold {
    /// Until the time is over or the input ends; whether all held.
    pub fn run(&self) -> anyhow::Result<bool> {
        ensure!(self.leavers <= LEAVERS_MAX, "at most {LEAVERS_MAX} leavers");
        let mut fleet = Fleet::start(&self.common, self.common.visitors)?;
        let joined = self.join(&mut fleet)?;
        if self.commands {
            let mut ready = report::figures(json!({ "ready": true }));
            ready.append(&mut joined.clone());
            report::print(ready)?;
            let told = self.obey(&mut fleet)?;
            let (census, judged) = fleet.settled()?;
            return report::end(&fleet, "hold", told, &census, judged);
        }
        report::note(&format!("{} are in line", self.common.visitors));
        let before = Before::now(&mut fleet);
        let updates_before = fleet.tally.updates;
        fleet.all(|_| Order::Serve { millis: self.seconds * 1_000 })?;
        let pushes = fleet.tally.updates - updates_before;
        let mut told = report::figures(json!({
            "visitors": self.common.visitors,
            "held_seconds": self.seconds,
            "pushes": pushes,
            "pushes_per_second": rounded(pushes as f64 / self.seconds.max(1) as f64),
        }));
        told.append(&mut report::cpu(&mut fleet, &before, "push", usize::try_from(pushes)?));
        told.insert("joining".to_owned(), joined.into());
        let (census, judged) = fleet.settled()?;
        report::end(&fleet, "hold", told, &census, judged)
    }

    fn join(&self, fleet: &mut Fleet) -> anyhow::Result<Figures> {
        let visitors = self.common.visitors;
        let before = Before::now(fleet);
        if self.leavers > 0 {
            // They are all of the first process, so that it is known who leaves next.
            let (role, count) = (Role::Leaver, self.leavers);
            fleet.first(&Order::Arrive { role, count, joins: true, url: None })?;
            fleet.tally.forget_joining();
        }
        let came = fleet.arrive(Role::Visitor, visitors, true, None)?;
        let mut told = report::joining(fleet, visitors, &came);
        told.append(&mut report::handshakes(fleet, &came));
        told.append(&mut report::cpu(fleet, &before, "join", visitors + self.leavers));
        told.append(&mut report::memory(fleet, &before, visitors + self.leavers));
        ensure!(
            fleet.tally.violations.count == 0,
            "not everyone could join: {}",
            fleet.tally.violations.words.join("; ")
        );
        Ok(told)
    }

    /// Does what the lines say; the summary.
    fn obey(&self, fleet: &mut Fleet) -> anyhow::Result<Figures> {
        let before = Before::now(fleet);
        let updates_before = fleet.tally.updates;
        let mut moves = 0;
        for line in std::io::stdin().lock().lines() {
            match line.context("standard input")?.trim() {
                "move" => {
                    moves += 1;
                    let told = self.make_move(fleet, moves)?;
                    report::print(told)?;
                }
                "memory" => {
                    let kib = fleet.servers.kib();
                    report::print(report::figures(json!({ "server_kib": kib })))?;
                }
                other => bail!("no command is called {other:?}; there are move and memory"),
            }
        }
        // What came since the last order is counted with this one.
        fleet.all(|_| Order::Serve { millis: 0 })?;
        let pushes = fleet.tally.updates - updates_before;
        let mut told = report::figures(json!({
            "visitors": self.common.visitors, "moves": moves, "pushes": pushes,
        }));
        told.append(&mut report::cpu(fleet, &before, "push", usize::try_from(pushes)?));
        Ok(told)
    }

    fn make_move(&self, fleet: &mut Fleet, number: usize) -> anyhow::Result<Figures> {
        ensure!(number <= self.leavers, "all {} leavers have left", self.leavers);
        let told = moves::make(fleet)?;
        let since = Times::new(told.told_at.iter().map(|at| at - told.said_at).collect());
        let mut figures = report::figures(json!({
            "move": number,
            "ended_ms": rounded(clock::millis(told.ended_at - told.said_at)),
            "first_ms": since.millis(0),
            "p50_ms": since.millis(50),
            "p99_ms": since.millis(99),
            "last_ms": since.millis(100),
            "pushes": told.pushes,
            "untold": told.untold,
        }));
        figures.append(&mut told.cpu.clone());
        Ok(figures)
    }
}
