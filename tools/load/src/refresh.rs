//! Everyone reloads the page: a new socket for the same place.

use clap::Args;
use serde_json::json;

use crate::clock::SECOND;
use crate::fleet::{Common, Fleet};
use crate::measure::{Times, rounded};
use crate::orders::Order;
use crate::report::{self, Before};
use crate::visitor::Role;

/// Everyone in turn loses their socket and comes back, to the next node if there are several
#[derive(Args)]
pub struct Refresh {
    #[command(flatten)]
    common: Common,
    /// So many a second; 0 is all at once
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

impl Refresh {
    /// Until everyone is back; whether all held.
    pub fn run(&self) -> anyhow::Result<bool> {
        let visitors = self.common.visitors;
        let mut fleet = Fleet::start(&self.common, visitors)?;
        fleet.arrive(Role::Visitor, visitors, true, None)?;
        report::note(&format!("{visitors} are in line"));
        let before = Before::now(&mut fleet);
        let size = fleet.size() as u64;
        let every_nanos = (SECOND * size).checked_div(self.rate).unwrap_or(0);
        let done = fleet.all(|_| Order::Refresh { every_nanos })?;
        let returns = &fleet.tally.returns;
        let count = returns.len();
        let back = Times::new(returns.iter().map(|(away, back)| back - away).collect());
        let mut told = report::figures(json!({
            "visitors": visitors,
            "rate": self.rate,
            "seconds": rounded(report::passed(&done) as f64 / 1e9),
            "returned": count,
            "back_p50_ms": back.millis(50),
            "back_p99_ms": back.millis(99),
            "back_last_ms": back.millis(100),
        }));
        told.append(&mut report::cpu(&mut fleet, &before, "return", count));
        told.append(&mut report::memory(&fleet, &before, visitors));
        let (census, judged) = fleet.settled()?;
        let gone = census.admitted + census.ended;
        if count + gone < visitors {
            let missing = visitors - count - gone;
            fleet.tally.violations.add(|| format!("{missing} did not come back"));
        }
        report::end(&fleet, "refresh", told, &census, judged)
    }
}
