//! What nobody can help costs nobody their place: an outage of everything, a node that was out for a
//! while, a process that is started again.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::checker::{Entry, read};
use crate::system::{System, post, signal};
use crate::visitor::{Visitor, connection_id, key};

fn count(entries: &[Entry], kind: &str) -> usize {
    entries.iter().filter(|entry| entry.kind == kind).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_grace_is_written_and_costs_nobody_their_place() {
    let mut system = System::start("outage");
    system.queue("long", &json!({"rate_per_minute": 1, "reconnect_seconds": 5}));
    let mut first = Visitor::join(&system.socket(0, "long"), &key()).await;
    first.until("ADMITTED").await;
    let mut ann = Visitor::join(&system.socket(0, "long"), &key()).await;
    let id = connection_id(&ann.until("JOINED").await);
    system.stop();
    tokio::time::sleep(Duration::from_secs(16)).await;
    system.up();
    // Longer than a tick, shorter than the grace that begins anew.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut ann = Visitor::reconnect(&system.socket(0, "long"), &id).await;
    assert_eq!(ann.until("QUEUE_UPDATE").await["payload"]["position"], 1);
    let entries = read(&system, "long").await;
    let outage = |entry: &&Entry| entry.body["facts"][0]["outage"]["seconds"].as_u64() > Some(10);
    assert_eq!(entries.iter().filter(outage).count(), 1, "the outage is a fact");
    assert_eq!(count(&entries, "expired"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_out_is_declared_lost_once_and_its_visitors_are_not() {
    let system = System::start("out");
    system.queue("line", &json!({"rate_per_minute": 1, "reconnect_seconds": 4}));
    let mut first = Visitor::join(&system.socket(0, "line"), &key()).await;
    first.until("ADMITTED").await;
    let mut ann = Visitor::join(&system.socket(0, "line"), &key()).await;
    ann.until("QUEUE_UPDATE").await;
    let node = system.pid("node");
    signal(node, Signal::STOP);
    let mut entries = Vec::new();
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        entries = read(&system, "line").await;
        if count(&entries, "node_lost") > 0 {
            break;
        }
    }
    assert_eq!(count(&entries, "node_lost"), 1, "a silent node is declared lost");
    signal(node, Signal::CONT);
    // Online again at once, under another id, and nobody loses anything after their grace either.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let entries = read(&system, "line").await;
    assert_eq!(count(&entries, "node_lost"), 1);
    assert_eq!(count(&entries, "expired"), 0);
    assert!(count(&entries, "reconnected") >= 1, "it said who is here");
    let (_, shown) = system.operate("GET", "/admin/queues/line", &json!(null));
    assert_eq!((&shown["waiting"], &shown["present"]), (&json!(1), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_started_again_is_not_taken_for_dead() {
    let system = System::start("again");
    system.queue("line", &json!({"rate_per_minute": 1}));
    let mut first = Visitor::join(&system.socket(0, "line"), &key()).await;
    first.until("ADMITTED").await;
    let mut ann = Visitor::join(&system.socket(0, "line"), &key()).await;
    let id = connection_id(&ann.until("JOINED").await);
    // Admission has listened for longer than its patience with a silent node.
    tokio::time::sleep(Duration::from_secs(11)).await;
    system.kill("node");
    let url = system.socket(0, "line");
    let mut ann = loop {
        if let Some(visitor) = Visitor::connect(&url).await {
            break visitor;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    ann.say(&json!({"type": "RECONNECT", "connectionId": id})).await;
    assert_eq!(ann.until("QUEUE_UPDATE").await["payload"]["position"], 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let entries = read(&system, "line").await;
    assert_eq!(count(&entries, "node_lost"), 0, "it was heard, or not long enough unheard");
    assert_eq!(count(&entries, "reconnected"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_could_not_be_used_while_admission_stood_still_can_be_used_after_it() {
    let system = System::start("stalled");
    let policy = json!({"rate_per_minute": 1, "token_seconds": 8});
    system.queue("brief", &policy);
    let url = system.socket(0, "brief");
    let mut first = Visitor::join(&url, &key()).await;
    let admitted = first.until("ADMITTED").await;
    let token = json!({"token": admitted["payload"]["token"]});
    let admission = system.pid("admission");
    signal(admission, Signal::STOP);
    // Nodes go on writing meanwhile, and what is asked of admission is not carried out later.
    let redeem = format!("{}/api/tokens/redeem", system.node(0));
    let mut others = Vec::new();
    for _ in 0..7 {
        others.push(Visitor::join(&url, &key()).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (status, problem) = post(&redeem, &token);
    assert_eq!((status, &problem["code"]), (503, &json!("log_unavailable")));
    tokio::time::sleep(Duration::from_secs(2)).await;
    signal(admission, Signal::CONT);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let entries = read(&system, "brief").await;
    assert_eq!((count(&entries, "redeemed"), count(&entries, "released")), (0, 0));
    assert_eq!(post(&redeem, &token).0, 200);
}
