//! A node that stood still, or could not write, while those who sat on it went to another; and visitors who
//! change nodes quicker than these hear of it.

use std::time::Duration;

use crate::hurry::there_and_back;
use crate::row::{row, times};
use crate::sitting::{MOVING, Outcome, log_stands_still, node_stands_still};
use crate::system::System;

/// How often somebody changes nodes and comes back.
const ROUNDS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_takes_no_places_of_those_who_went_to_another() {
    let mut outcomes = Vec::new();
    for _ in 0..times(1, 20) {
        outcomes.push(node_stands_still(&two_nodes("stopped-node"), "line").await);
    }
    tell("a node stopped for 13 s and declared lost, then resumed", &outcomes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_written_while_the_log_stood_still_takes_no_places() {
    let mut outcomes = Vec::new();
    for _ in 0..times(1, 20) {
        outcomes.push(log_stands_still(&two_nodes("stopped-log"), "line").await);
    }
    tell("the log stopped for 13 s while visitors change nodes", &outcomes);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_there_and_back_at_once_has_one_socket() {
    let (system, repetitions) = (two_nodes("hurry"), times(1, 20));
    let mut worst = Duration::ZERO;
    for repetition in 0..repetitions {
        worst = worst.max(there_and_back(&system, &format!("line-{repetition}"), ROUNDS).await);
    }
    let result = format!(
        "each {ROUNDS} times in a row, no socket closed by the visitor; the last one opened has the place \
         and all others were told `replaced`, {:.2} s later at most",
        worst.as_secs_f64(),
    );
    row("a visitor goes to another node and back at once", repetitions, &result);
}

fn tell(fault: &str, outcomes: &[Outcome]) {
    let taken: usize = outcomes.iter().map(|outcome| outcome.taken).sum();
    let moved = 2 * MOVING * outcomes.len();
    let back = outcomes.iter().map(|outcome| outcome.back).max().unwrap_or_default();
    let result = format!(
        "{moved} of its visitors on another node by then, half of them counting their sockets: {taken} \
         places taken; everyone present on the right node {:.2} s after at most; nobody expired",
        back.as_secs_f64(),
    );
    row(fault, outcomes.len(), &result);
}

fn two_nodes(name: &str) -> System {
    let mut system = System::start(name);
    system.second_node();
    system
}
