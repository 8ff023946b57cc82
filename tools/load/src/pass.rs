//! Nobody waits, and the queue is open: whoever comes is let in at once.

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use crate::clock;
use crate::fleet::{Common, Fleet};
use crate::measure::{Times, rounded};
use crate::orders::Order;
use crate::report;
use crate::visitor::Role;

/// Whoever is not let in within this waits behind somebody, or at a queue that is not open.
const ADMITTED_WAIT_MAX_MILLIS: u64 = 30_000;

/// Visitors come one after the other, each when the one before was let in
#[derive(Args)]
pub struct Pass {
    #[command(flatten)]
    common: Common,
}

impl Pass {
    /// Until the last was let in; whether all held.
    pub fn run(&self) -> anyhow::Result<bool> {
        let (visitors, nodes) = (self.common.visitors, self.common.urls.len());
        let mut fleet = Fleet::start(&self.common, visitors)?;
        ensure!(fleet.size() == 1, "one process holds no {visitors} visitors");
        let begun_at = clock::now();
        for number in 0..visitors {
            let url = Some(number % nodes);
            fleet.first(&Order::Arrive { role: Role::Visitor, count: 1, joins: true, url })?;
            fleet.first(&Order::Admitted { millis_max: ADMITTED_WAIT_MAX_MILLIS })?;
            let told = fleet.tally.admitted.len();
            ensure!(told > number, "visitor {number} was not let in");
        }
        let passed = clock::now() - begun_at;
        let since_join = fleet.tally.admitted.iter().map(|(joined, told)| told - joined);
        let (admitted, acks) =
            (Times::new(since_join.collect()), Times::new(fleet.tally.acks.clone()));
        let told = report::figures(json!({
            "visitors": visitors,
            "seconds": rounded(clock::seconds(passed)),
            "ack_p50_ms": acks.millis(50),
            "ack_p99_ms": acks.millis(99),
            "admitted_p50_ms": admitted.millis(50),
            "admitted_p99_ms": admitted.millis(99),
            "admitted_last_ms": admitted.millis(100),
        }));
        let (census, judged) = fleet.settled()?;
        report::end(&fleet, "pass", told, &census, judged)
    }
}
