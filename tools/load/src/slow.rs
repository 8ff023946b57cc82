//! Some don't read, or don't get on with it: they must not cost the others anything.

use std::thread::sleep;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::clock::{self, SECOND};
use crate::closing;
use crate::fleet::{Common, Fleet, share};
use crate::measure::{Times, rounded, slope};
use crate::moves;
use crate::orders::Order;
use crate::report::{self, Before, Figures};
use crate::socket::Target;
use crate::visitor::Role;

/// How often memory is looked at, and whether those who are stuck were thrown out.
const SAMPLE_EVERY: u64 = 5 * SECOND;
/// Leavers come on top of what a process holds: its limit of files has room for so many.
const LEAVERS_MAX: usize = 3_600;

/// Some read nothing while the line moves, or attack
#[derive(Args)]
pub struct Slow {
    #[command(flatten)]
    common: Common,
    /// So many more, in percent, read nothing after their first position
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    stuck: usize,
    /// For so long
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    minutes: f64,
    /// Seconds between two at the front who leave; longer if the last move was not told by then
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = positive)]
    every: f64,
    /// What attackers do
    #[arg(long = "attack")]
    attacks: Vec<Attack>,
    /// How many attack in each way
    #[arg(long, default_value_t = 2_000)]
    attackers: usize,
    /// So many more visitors join each second meanwhile
    #[arg(long, default_value_t = 0)]
    honest_joins: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Attack {
    /// Connect, and say nothing
    Idle,
    /// Say the request byte by byte
    Drip,
    /// Be upgraded, and say nothing
    Silent,
}

impl Attack {
    fn role(self) -> Role {
        match self {
            Self::Idle => Role::Idle,
            Self::Drip => Role::Drip,
            Self::Silent => Role::Silent,
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number above 0".to_owned()),
    }
}

/// What is seen while the line moves.
#[derive(Default)]
struct Seen {
    /// Minutes since the beginning, and the servers' memory then.
    kib: Vec<(f64, f64)>,
    /// Of each move, from the first who was told to the last.
    spreads: Vec<u64>,
    /// Of each move, from LEAVE to the last.
    lasts: Vec<u64>,
}

impl Slow {
    /// Until the time is over; whether all held.
    pub fn run(&self) -> anyhow::Result<bool> {
        let visitors = self.common.visitors;
        let stuck = visitors * self.stuck / 100;
        let seconds = self.minutes * 60.0;
        // Positive and small by what the command line takes and by the limit.
        let leavers = (seconds / self.every).ceil() as usize;
        ensure!(
            leavers <= LEAVERS_MAX,
            "{leavers} leavers are needed; at most {LEAVERS_MAX} can be"
        );
        let others = (seconds * self.honest_joins as f64).ceil() as usize;
        let sockets = visitors + stuck + others + self.attackers * self.attacks.len();
        let mut fleet = Fleet::start(&self.common, sockets)?;

        let (role, joins) = (Role::Leaver, true);
        fleet.first(&Order::Arrive { role, count: leavers, joins, url: None })?;
        fleet.arrive(Role::Visitor, visitors, joins, None)?;
        report::note(&format!("{visitors} are in line"));
        let kib_before = fleet.servers.kib();
        fleet.arrive(Role::Stuck, stuck, joins, None)?;
        for attack in &self.attacks {
            fleet.arrive(attack.role(), self.attackers, false, None)?;
        }
        let size = fleet.size();
        if let Some(every) = (SECOND * size as u64).checked_div(self.honest_joins) {
            let count = |process| share(others, process, size);
            fleet.all(|process| Order::Trickle { count: count(process), every_nanos: every })?;
        }
        let before = Before::now(&mut fleet);
        let updates_before = fleet.tally.updates;
        let seen = self.keep_moving(&mut fleet, leavers)?;
        let pushes = usize::try_from(fleet.tally.updates - updates_before)?;
        let mut told = report::figures(json!({
            "visitors": visitors, "stuck": stuck, "minutes": self.minutes, "pushes": pushes,
        }));
        told.append(&mut report::cpu(&mut fleet, &before, "push", pushes));
        told.append(&mut moving(&seen));
        told.append(&mut memory(&seen, kib_before));
        let (census, judged) = fleet.settled()?;
        told.append(&mut others_joining(&fleet, others));
        let closed = &fleet.tally.hostile_closed;
        told.insert("stuck_closed".to_owned(), hostile(Role::Stuck, closed, &census.hostile_open));
        for attack in &self.attacks {
            let key = format!("{:?}_closed", attack.role()).to_lowercase();
            told.insert(key, hostile(attack.role(), closed, &census.hostile_open));
        }
        report::end(&fleet, "slow", told, &census, judged)
    }

    fn keep_moving(&self, fleet: &mut Fleet, leavers: usize) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let begun_at = clock::now();
        let end = begun_at + (self.minutes * 60e9) as u64;
        let every = (self.every * 1e9) as u64;
        let (mut next_move, mut next_sample) = (begun_at, begun_at);
        let mut left = 0;
        while clock::now() < end {
            if next_sample <= clock::now() {
                if let Some(kib) = fleet.servers.kib() {
                    let minutes = (clock::now() - begun_at) as f64 / 60e9;
                    seen.kib.push((minutes, kib as f64));
                }
                self.throw_out(fleet)?;
                next_sample = clock::now() + SAMPLE_EVERY;
            }
            if next_move <= clock::now() && left < leavers {
                next_move = clock::now() + every;
                left += 1;
                let told = moves::make(fleet)?;
                let first = told.told_at.iter().min().copied().unwrap_or(0);
                let last = told.told_at.iter().max().copied().unwrap_or(0);
                seen.spreads.push(last - first);
                seen.lasts.push(last.saturating_sub(told.said_at));
            }
            let next = next_move.min(next_sample).min(end);
            sleep(Duration::from_nanos(next.saturating_sub(clock::now())));
        }
        Ok(seen)
    }

    /// Tells those who are stuck of their end: it does not reach them by itself.
    fn throw_out(&self, fleet: &mut Fleet) -> anyhow::Result<()> {
        if self.stuck == 0 {
            return Ok(());
        }
        let urls = self.common.urls.iter();
        let ports = urls.map(|url| Ok(Target::parse(url)?.address.port()));
        let sources = closing::clients(&ports.collect::<anyhow::Result<Vec<_>>>()?)?;
        fleet.all(|_| Order::ThrownOut { sources: sources.clone() })?;
        Ok(())
    }
}

fn moving(seen: &Seen) -> Figures {
    let (spreads, lasts) = (Times::new(seen.spreads.clone()), Times::new(seen.lasts.clone()));
    report::figures(json!({
        "moves": seen.spreads.len(),
        "spread_p50_ms": spreads.millis(50),
        "spread_p99_ms": spreads.millis(99),
        "told_last_p50_ms": lasts.millis(50),
        "told_last_p99_ms": lasts.millis(99),
    }))
}

fn memory(seen: &Seen, kib_before: Option<u64>) -> Figures {
    let kib = || seen.kib.iter().map(|(_, kib)| *kib);
    report::figures(json!({
        "server_kib_before": kib_before,
        "server_kib_first": kib().next(),
        "server_kib_last": kib().next_back(),
        "server_kib_min": kib().reduce(f64::min),
        "server_kib_max": kib().reduce(f64::max),
        "server_kib_samples": seen.kib.len(),
        "server_kib_per_minute": slope(&seen.kib).map(rounded),
    }))
}

fn others_joining(fleet: &Fleet, others: usize) -> Figures {
    let handshakes = Times::new(fleet.tally.other_handshakes.clone());
    let shown = Times::new(fleet.tally.other_shown.clone());
    report::figures(json!({
        "honest_joins": others,
        "honest_handshake_p99_ms": handshakes.millis(99),
        "honest_shown_p50_ms": shown.millis(50),
        "honest_shown_p99_ms": shown.millis(99),
    }))
}

/// For how long those of one kind were left open who were closed, and those who are still open.
fn hostile(role: Role, closed: &[(Role, u64)], open: &[(Role, u64)]) -> Value {
    let of_role = |all: &[(Role, u64)]| {
        Times::new(all.iter().filter(|one| one.0 == role).map(|one| one.1).collect())
    };
    let (closed, open) = (of_role(closed), of_role(open));
    json!({
        "closed": closed.count(),
        "open_p50_ms": closed.millis(50),
        "open_max_ms": closed.millis(100),
        "still_open": open.count(),
        "still_open_max_ms": open.millis(100),
    })
}
