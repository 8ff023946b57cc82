//! Anteroom in front of a site, with nginx and with Caddy, configured as `tools/gateways` says.
//!
//! Both are real, as is the concert behind them, whose log tells what reached it. Each check is made
//! through both.

#![allow(dead_code, reason = "what the journeys share is not all used here")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    unreachable_pub,
    reason = "tests: what is not as expected ends them, they wait by the machine's clock, and print what they saw"
)]

mod raw;
mod street;

mod away;
mod entry;
mod headers;
mod tricks;

#[path = "../support/ports.rs"]
mod ports;
#[path = "../journey/system.rs"]
mod system;
#[path = "../journey/visitor.rs"]
mod visitor;
