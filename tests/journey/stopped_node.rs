//! A node that stood still and comes back takes nobody's place away, and has those who stayed; and
//! whoever changes nodes quicker than these hear of it has one socket in the end.

use crate::hurry::{all_at_once, there_and_back};
use crate::sitting::{log_stands_still, node_stands_still};
use crate::system::System;

/// How often somebody changes nodes and comes back.
const ROUNDS: usize = 30;
/// Who come back on several sockets at once, and on how many: enough that a node's tasks come to some of
/// these in another order.
const VISITORS: usize = 250;
const SOCKETS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_takes_no_places() {
    node_stands_still(&two_nodes("stopped-node"), "line").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_could_not_write_while_the_log_stood_still_takes_no_places() {
    log_stands_still(&two_nodes("queued"), "line").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_to_another_node_and_back_at_once_has_one_socket() {
    there_and_back(&two_nodes("hurry"), "line", ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_several_sockets_at_once_has_the_last_one() {
    all_at_once(&System::start("at-once"), "line", VISITORS, SOCKETS).await;
}

fn two_nodes(name: &str) -> System {
    let mut system = System::start(name);
    system.second_node();
    system
}
