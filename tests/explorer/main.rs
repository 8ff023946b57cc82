//! Who is where, in every order in which things can happen: a few visitors, three nodes and the log with
//! their delays. The fold and what a node believes of its seats are the real ones; the node around them is
//! modelled (`node`), and so are browsers. What must be so is in `rest`, and where a step sets a `fault`.
//!
//! Each test goes as far as `WORLDS` allows. To go further, with worlds for each as memory allows (1 GB for a
//! million or two):
//!
//! ```text
//! ANTEROOM_WORLDS=5000000 cargo test --profile quick --test explorer -- --nocapture --test-threads 1
//! ```

#![expect(clippy::unwrap_used, reason = "a test that can't is to fail")]
#![expect(clippy::print_stdout, reason = "how far it went is part of the result")]
#![expect(clippy::disallowed_methods, reason = "how far to go is said in the environment")]
#![expect(clippy::indexing_slicing, reason = "the indices are the model's own")]

mod log;
mod world;
mod steps;
mod node;
mod rest;
mod explore;

use std::fmt::Write as _;

use crate::explore::{Wrong, explore};
use crate::world::{Left, Variant};

/// So many worlds take some seconds where nothing is optimised.
const WORLDS: usize = 80_000;

const NONE: Left =
    Left { sockets: 0, carries: 0, ends: 0, losses: 0, holes: 0, refusals: 0, delays: 0 };
/// Nobody has come yet, and browsers count.
const COUNTED: Variant = Variant {
    name: "",
    visitors: 1,
    nodes: 3,
    counts: true,
    rejoins: false,
    joined: false,
    left: NONE,
};
const UNCOUNTED: Variant = Variant { counts: false, ..COUNTED };
const JOINED: Variant = Variant { joined: true, ..COUNTED };
const JOINED_UNCOUNTED: Variant = Variant { joined: true, ..UNCOUNTED };

#[test]
fn three_sockets() {
    let left = Left { sockets: 3, ends: 2, ..NONE };
    check(Variant { name: "three sockets", left, ..COUNTED });
}

#[test]
fn three_more_sockets() {
    let left = Left { sockets: 3, ends: 1, ..NONE };
    check(Variant { name: "three more sockets", left, ..JOINED });
}

#[test]
fn a_node_declared_lost() {
    let left = Left { sockets: 2, ends: 2, losses: 1, ..NONE };
    check(Variant { name: "a node declared lost", left, ..COUNTED });
}

#[test]
fn nodes_declared_lost() {
    let left = Left { sockets: 1, ends: 1, losses: 2, ..NONE };
    check(Variant { name: "nodes declared lost", nodes: 2, left, ..JOINED });
}

#[test]
fn taken_over_and_declared_lost() {
    let left = Left { sockets: 2, losses: 1, ..NONE };
    check(Variant { name: "taken over and declared lost", nodes: 2, left, ..JOINED });
}

#[test]
fn frames_missed() {
    let left = Left { sockets: 1, ends: 1, losses: 1, holes: 1, ..NONE };
    check(Variant { name: "frames missed", left, ..JOINED });
}

#[test]
fn joined_again() {
    let left = Left { sockets: 2, ends: 1, losses: 1, delays: 1, ..NONE };
    check(Variant { name: "joined again", rejoins: true, left, ..COUNTED });
}

#[test]
fn facts_refused() {
    let left = Left { sockets: 2, ends: 1, refusals: 1, ..NONE };
    check(Variant { name: "facts refused", left, ..JOINED });
}

#[test]
fn a_carry() {
    let left = Left { sockets: 2, carries: 1, ..NONE };
    check(Variant { name: "a carry", nodes: 2, left, ..JOINED });
}

#[test]
fn two_carries() {
    let left = Left { sockets: 2, ends: 1, carries: 2, ..NONE };
    check(Variant { name: "two carries", left, ..JOINED });
}

#[test]
fn a_carry_with_mishaps() {
    let left = Left { sockets: 1, ends: 1, carries: 1, losses: 1, holes: 1, refusals: 1, ..NONE };
    check(Variant { name: "a carry with mishaps", nodes: 2, left, ..JOINED });
}

#[test]
fn a_carry_from_who_comes_back() {
    let left = Left { sockets: 2, ends: 1, carries: 1, losses: 1, ..NONE };
    check(Variant { name: "a carry from who comes back", left, ..JOINED });
}

#[test]
fn two_visitors() {
    let left = Left { sockets: 2, ends: 1, losses: 1, ..NONE };
    check(Variant { name: "two visitors", visitors: 2, nodes: 2, left, ..JOINED });
}

#[test]
fn three_sockets_uncounted() {
    let left = Left { sockets: 3, ends: 1, ..NONE };
    check(Variant { name: "three sockets, uncounted", left, ..UNCOUNTED });
}

#[test]
fn frames_missed_uncounted() {
    let left = Left { sockets: 1, losses: 1, holes: 2, ..NONE };
    check(Variant { name: "frames missed, uncounted", nodes: 2, left, ..JOINED_UNCOUNTED });
}

#[test]
fn mishaps_uncounted() {
    let left = Left { sockets: 2, ends: 1, losses: 1, holes: 1, refusals: 1, delays: 1, ..NONE };
    check(Variant { name: "mishaps, uncounted", rejoins: true, left, ..UNCOUNTED });
}

fn check(variant: Variant) {
    let worlds_max = std::env::var("ANTEROOM_WORLDS").map_or(WORLDS, |text| text.parse().unwrap());
    let name = variant.name;
    match explore(&variant, worlds_max) {
        Ok(explored) => println!("{name}: {explored}"),
        Err(wrong) => panic!("{name}: {}", story(&wrong)),
    }
}

/// How it came about, to read.
fn story(wrong: &Wrong) -> String {
    let mut story = format!("{}\n", wrong.what);
    for step in &wrong.steps {
        let _ = writeln!(story, "    {step:?}");
    }
    for (seq, entry) in (1..).zip(wrong.world.log.entries()) {
        let _ = writeln!(story, "  {seq}: {entry:?}");
    }
    for socket in &wrong.world.sockets {
        let _ = writeln!(story, "  {socket:?}");
    }
    for node in &wrong.world.nodes {
        let _ = writeln!(story, "  {node:?}");
    }
    story
}
