//! A line stands still, or moves when told to, and everyone in it is told.

use std::io::BufRead as _;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;

use crate::clock::{self, SECOND};
use crate::fleet::{Common, Fleet, share};
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
    /// Stay until the input ends, and obey its lines: move, memory, join COUNT RATE, front, noted,
    /// admitted
    #[arg(long)]
    commands: bool,
    /// So many more at the front, each of whom can make one move
    #[arg(long, default_value_t = 0, requires = "commands")]
    leavers: usize,
    /// So many may be told to join later
    #[arg(long, default_value_t = 0, requires = "commands")]
    more: usize,
}

impl Hold {
    /// Until the time is over or the input ends; whether all held.
    pub fn run(&self) -> anyhow::Result<bool> {
        ensure!(self.leavers <= LEAVERS_MAX, "at most {LEAVERS_MAX} leavers");
        let mut fleet = Fleet::start(&self.common, self.common.visitors + self.more)?;
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
            let line = line.context("standard input")?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let told = match words.as_slice() {
                ["move"] => {
                    moves += 1;
                    self.make_move(fleet, moves)?
                }
                ["memory"] => report::figures(json!({ "server_kib": fleet.servers.kib() })),
                ["join", count, rate] => self.more_join(fleet, count.parse()?, rate.parse()?)?,
                ["front"] => {
                    fleet.all(|_| Order::LookAtFront)?;
                    report::figures(json!({ "noting": true }))
                }
                ["noted"] => noted(fleet)?,
                ["admitted"] => admitted(fleet)?,
                _ => bail!(
                    "{line:?} is none of move, memory, join COUNT RATE, front, noted, admitted"
                ),
            };
            report::print(told)?;
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

    /// So many more join, so many a second; until they are seated.
    fn more_join(&self, fleet: &mut Fleet, count: usize, rate: u64) -> anyhow::Result<Figures> {
        ensure!(count <= self.more, "{} may be told to join", self.more);
        ensure!(rate > 0, "a rate is at least 1");
        let size = fleet.size();
        let every_nanos = SECOND * size as u64 / rate;
        let before = Before::now(fleet);
        fleet.all(|process| Order::Trickle { count: share(count, process, size), every_nanos })?;
        let settled = fleet.all(|_| Order::Settle)?;
        let acks = Times::new(std::mem::take(&mut fleet.tally.other_acks));
        let shown = Times::new(std::mem::take(&mut fleet.tally.other_shown));
        let mut figures = report::figures(json!({
            "joins": acks.count(),
            "seconds": rounded(clock::seconds(report::passed(&settled))),
            "ack_p50_ms": acks.millis(50),
            "ack_p99_ms": acks.millis(99),
            "shown_p50_ms": shown.millis(50),
            "shown_p99_ms": shown.millis(99),
        }));
        figures.append(&mut Before::now(fleet).cpu_since(&before));
        Ok(figures)
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

/// What the front was told since `front`: how many were ahead then, how many are, and when that was
/// told, in nanoseconds since 1970.
fn noted(fleet: &mut Fleet) -> anyhow::Result<Figures> {
    let until_wall = clock::until_wall();
    let answers = fleet.all(|_| Order::Front)?;
    let told = answers.iter().flat_map(|answer| &answer.front);
    let told: Vec<_> = told.map(|told| (told.from, told.count, told.at + until_wall)).collect();
    Ok(report::figures(json!({ "told": told })))
}

/// When each who was told that it is their turn was told, since this was last asked, in nanoseconds
/// since 1970.
fn admitted(fleet: &mut Fleet) -> anyhow::Result<Figures> {
    let until_wall = clock::until_wall();
    fleet.all(|_| Order::Serve { millis: 0 })?;
    let told = std::mem::take(&mut fleet.tally.admitted).into_iter();
    let mut told: Vec<_> = told.map(|(_, at)| at + until_wall).collect();
    told.sort_unstable();
    Ok(report::figures(json!({ "admitted": told })))
}
