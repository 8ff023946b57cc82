//! A node goes, and all of its visitors come back on the others at once.

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::clock::{self, SECOND};
use crate::fleet::{Common, Fleet, share};
use crate::measure::{Times, rounded};
use crate::orders::Order;
use crate::report::{self, Before};
use crate::visitor::Role;

/// Those who come meanwhile are spread over the time in which most are back.
const OTHERS_OVER: u64 = 5 * SECOND;

/// The first node goes, and its visitors come back on the others
#[derive(Args)]
pub struct Storm {
    #[command(flatten)]
    common: Common,
    /// The first node's process, to be killed once all are in line, which is said by a line of JSON;
    /// without it, wait until it goes
    #[arg(long, value_name = "PID")]
    kill: Option<i32>,
    /// So many more come to the other nodes meanwhile, within five seconds
    #[arg(long, default_value_t = 0)]
    others: usize,
}

impl Storm {
    /// Until everyone is back; whether all held.
    pub fn run(&self) -> anyhow::Result<bool> {
        ensure!(self.common.urls.len() > 1, "there must be another --url to come back to");
        let victim = self.kill.map(|pid| Pid::from_raw(pid).context("--kill is no process"));
        let victim = victim.transpose()?;
        let visitors = self.common.visitors;
        let mut fleet = Fleet::start(&self.common, visitors + self.others)?;
        fleet.arrive(Role::Visitor, visitors, true, Some(0))?;
        report::note(&format!("{visitors} are in line on the first node"));
        // Whoever ends the node waits for this.
        report::print(report::figures(json!({ "ready": true })))?;
        let before = Before::now(&mut fleet);
        let size = fleet.size();
        let mut killed_at = None;
        // Shunned first, so that nobody who comes meanwhile goes to the node that is going.
        let others = self.others;
        fleet.all_meanwhile(
            |process| Order::Storm {
                others: share(others, process, size),
                others_over: OTHERS_OVER,
            },
            || {
                if let Some(victim) = victim {
                    killed_at = Some(clock::now());
                    kill_process(victim, Signal::KILL).context("the node could not be killed")?;
                }
                Ok(())
            },
        )?;
        let returns = &fleet.tally.returns;
        let count = returns.len();
        let lost_at = returns.iter().map(|(away, _)| *away).min();
        let begun_at = killed_at.or(lost_at).unwrap_or(0);
        let back = returns.iter().map(|(_, back)| back.saturating_sub(begun_at)).collect();
        let back = Times::new(back);
        let handshakes = Times::new(fleet.tally.other_handshakes.clone());
        let shown = Times::new(fleet.tally.other_shown.clone());
        let mut told = report::figures(json!({
            "visitors": visitors,
            "others": self.others,
            "seconds": back.millis(100).map(|millis| rounded(millis / 1e3)),
            "returned": count,
            "back_p50_ms": back.millis(50),
            "back_p99_ms": back.millis(99),
            "others_handshake_p50_ms": handshakes.millis(50),
            "others_handshake_p99_ms": handshakes.millis(99),
            "others_shown_p99_ms": shown.millis(99),
        }));
        told.append(&mut report::cpu(&mut fleet, &before, "return", count));
        let (census, judged) = fleet.settled()?;
        let gone = census.admitted + census.ended;
        if count + gone < visitors {
            let missing = visitors - count - gone;
            fleet.tally.violations.add(|| format!("{missing} did not come back"));
        }
        report::end(&fleet, "storm", told, &census, judged)
    }
}
