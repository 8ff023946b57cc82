//! Whole journeys: the real program, a real nats-server, real sockets, and processes that are
//! killed in the middle of it. What happened is read from the raw stream, naively, by a checker
//! that shares no code with the fold.

#![allow(dead_code, reason = "what the faults share is not all used here")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    unreachable_pub,
    reason = "tests: what is not as expected ends them, they wait by the machine's clock, and print what they saw"
)]

#[path = "../support/ports.rs"]
mod ports;
mod checker;
mod corpus;
mod forger;
mod hurry;
mod leaks;
mod raise;
mod sitting;
mod system;
mod visitor;

mod bad_input;
mod bad_requests;
mod bad_tokens;
mod keys;
mod kills;
mod levels;
mod load;
mod missed_turn;
mod one_bad_entry;
mod outages;
mod places;
mod policy;
mod projection;
mod queue_secret;
mod secrets;
mod sockets;
mod start_again;
mod stopped_node;
mod told_graces;
mod tokens;
mod whole;
