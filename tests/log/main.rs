//! The log against a real nats-server: what is stored, in which order, and what a writer and a
//! reader know of it when acknowledgements vanish, the server dies or someone lies.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what is not as it must be fails its test"
)]

#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/mod.rs"]
mod support;
mod world;
mod road;
mod stream;
mod append;
mod fence;
mod lost;
mod refused;
mod tail;
mod forged;
mod talk;
