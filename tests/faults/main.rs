//! What must be survived, injected for real: the process is killed, the byte is flipped, the disk is
//! full. Each row prints how often it was tried and what came of it.
//!
//! `tools/test` runs few repetitions of each; `tools/faults` runs them all and prints the table.

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

mod burden;
mod by_hand;
mod crowd;
mod malformed;
mod projector;
mod raw;
mod reckoning;
mod road;
mod row;
mod small_disk;
mod two;

mod acks;
mod away;
mod clocks;
mod cut_off;
mod departures;
mod disk;
mod frames;
mod handshakes;
mod kills;
mod leaders;
mod nearly_full;
mod poison;
mod projectors;
mod quorum;
mod redemptions;
mod sockets;
mod stopped_node;
mod store;
mod stream;
mod workers;

#[path = "../journey/checker.rs"]
mod checker;
#[path = "../journey/hurry.rs"]
mod hurry;
#[path = "../journey/sitting.rs"]
mod sitting;
#[path = "../journey/raise.rs"]
mod raise;
#[path = "../journey/system.rs"]
mod system;
#[path = "../journey/visitor.rs"]
mod visitor;
#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/faketime.rs"]
mod faketime;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/wires.rs"]
mod wires;
#[path = "../support/mod.rs"]
mod support;
#[path = "../log/world.rs"]
mod world;
