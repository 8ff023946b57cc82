//! Everyone comes at once.

use clap::Args;

use crate::fleet::{Common, Fleet};
use crate::orders::Order;
use crate::report::{self, Before};
use crate::visitor::Role;

/// Everyone comes at once
#[derive(Args)]
pub struct Rush {
    #[command(flatten)]
    common: Common,
    /// Open all sockets before anybody says JOIN; then all do
    #[arg(long)]
    connected_first: bool,
}

impl Rush {
    /// Until everyone has a position; whether all held.
    pub fn run(&self) -> anyhow::Result<bool> {
        let visitors = self.common.visitors;
        let mut fleet = Fleet::start(&self.common, visitors)?;
        let before = Before::now(&mut fleet);
        let came = fleet.arrive(Role::Visitor, visitors, !self.connected_first, None)?;
        let joined = if self.connected_first {
            report::note(&format!("{visitors} sockets are open"));
            &fleet.all(|_| Order::Join)?
        } else {
            &came
        };
        let mut told = report::joining(&fleet, visitors, joined);
        told.append(&mut report::acknowledged(&fleet, joined));
        told.append(&mut report::handshakes(&fleet, &came));
        told.append(&mut report::cpu(&mut fleet, &before, "join", visitors));
        told.append(&mut report::memory(&fleet, &before, visitors));
        report::note(&format!("{visitors} were told where they stand"));
        let (census, judged) = fleet.settled()?;
        report::end(&fleet, "rush", told, &census, judged)
    }
}
