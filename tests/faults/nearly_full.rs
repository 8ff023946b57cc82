//! A log that comes near its end: it is written down no more who comes and goes, nobody loses their place
//! for it, and admission goes on. With room again everybody is asked whether they are here.

use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};

use crate::by_hand::{identity, in_order, left, put_in};
use crate::checker::{Entry, read};
use crate::disk::{bytes, enlarge};
use crate::row::row;
use crate::system::System;
use crate::visitor::{Visitor, connection_id, key, name};

const QUEUE: &str = "small";
const LIMIT: u64 = 1_048_576;
/// Shorter than what is waited for while nobody's going is written down.
const RECONNECT_SECONDS: u64 = 2;
const WATCHED: Duration = Duration::from_secs(8);
const WRITTEN_MAX: Duration = Duration::from_secs(30);
/// Between the roll call and the first decision that goes by it.
const ROLL_CALL: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn while_a_log_is_nearly_full_nobody_is_absent_and_people_are_let_in() {
    let mut system = System::prepare("nearly-full");
    system.settings = ["--stream-max-bytes", &LIMIT.to_string()].map(str::to_owned).to_vec();
    system.up();
    system.queue(QUEUE, &json!({"reconnect_seconds": RECONNECT_SECONDS}));
    pause(&system);
    let url = system.socket(0, QUEUE);
    let (mut ann, ann_id, _) = joins(&url).await;
    let (ben, ben_id, ben_key) = joins(&url).await;
    let (carl, carl_id, _) = joins(&url).await;

    let node = identity(&system, "node").await;
    let auditor = identity(&system, "auditor").await;
    fill(&node, &auditor, LIMIT * 9 / 10).await;
    until(&system, |entry| presence(entry) == Some("off")).await;
    drop((ben, carl));
    tokio::time::sleep(WATCHED).await;
    let entries = read(&system, QUEUE).await;
    assert_eq!(of(&entries, &["disconnected", "expired", "node_lost"]), 0);
    // Ben comes back to his place, though he was away for longer than it is kept.
    let mut ben = Visitor::join(&url, &ben_key).await;
    assert_eq!(connection_id(&ben.until("JOINED").await), ben_id);
    assert_eq!(ben.until("QUEUE_UPDATE").await["payload"]["position"], 2);
    // Operators and admission go on.
    open(&system);
    ann.until("ADMITTED").await;
    pause(&system);

    let operator = identity(&system, "operator").await;
    enlarge(&operator, QUEUE).await;
    let on = until(&system, |entry| presence(entry) == Some("on")).await;
    // Who is here says so; who went away meanwhile is found out, and their grace runs from now on.
    let here =
        until(&system, |entry| entry.seq > on.seq && is_of(entry, "reconnected", &ben_id)).await;
    let gone = until(&system, |entry| is_of(entry, "expired", &carl_id)).await;
    assert!(between(&on, &gone) >= ROLL_CALL, "{} {}", on.time, gone.time);
    open(&system);
    ben.until("ADMITTED").await;
    let entries = read(&system, QUEUE).await;
    assert!(entries.iter().all(|entry| !is_of(entry, "reconnected", &carl_id)));
    let admitted = entries.iter().filter(|entry| entry.kind == "admitted");
    assert_eq!(admitted.clone().count(), 2);
    assert!(admitted.clone().any(|entry| is_of(entry, "admitted", &ann_id)));
    in_order(&system, QUEUE);
    let said = format!(
        "nobody absent or expired in {} s without a socket; the next let in; called again {} ms after \
         there was room, given up {} ms after it",
        WATCHED.as_secs(),
        between(&on, &here).as_millis(),
        between(&on, &gone).as_millis()
    );
    row("a log at nine tenths of its limit", 1, &said);
}

async fn joins(url: &str) -> (Visitor, String, String) {
    let key = key();
    let mut visitor = Visitor::join(url, &key).await;
    let id = connection_id(&visitor.until("JOINED").await);
    visitor.until("QUEUE_UPDATE").await;
    (visitor, id, key)
}

fn pause(system: &System) {
    assert_eq!(system.operate("POST", &format!("/admin/queues/{QUEUE}/pause"), &json!({})).0, 200);
}

fn open(system: &System) {
    assert_eq!(system.operate("POST", &format!("/admin/queues/{QUEUE}/open"), &json!({})).0, 200);
}

/// Fills the log with what counts nowhere: departures of nobody.
async fn fill(node: &Client, auditor: &Client, to: u64) {
    let mut number = 1_000_000;
    while bytes(auditor, QUEUE).await < to {
        for _ in 0..50 {
            put_in(node, QUEUE, "node.left", left(number)).await.unwrap();
            number += 1;
        }
    }
}

/// The first entry of this kind, once the log has it.
async fn until(system: &System, is_it: impl Fn(&Entry) -> bool) -> Entry {
    let found = async {
        loop {
            if let Some(entry) = read(system, QUEUE).await.into_iter().find(&is_it) {
                return entry;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let found = tokio::time::timeout(WRITTEN_MAX, found).await;
    found.unwrap_or_else(|_| panic!("it is not written:\n{}", system.logs()))
}

fn facts(entry: &Entry) -> &[Value] {
    entry.body["facts"].as_array().map_or(&[], Vec::as_slice)
}

fn presence(entry: &Entry) -> Option<&str> {
    facts(entry).iter().find_map(|fact| fact["presence"].as_str())
}

fn is_of(entry: &Entry, kind: &str, id: &str) -> bool {
    entry.kind == kind && facts(entry).iter().any(|fact| fact["visitor"] == name(id).as_str())
}

fn of(entries: &[Entry], kinds: &[&str]) -> usize {
    entries.iter().filter(|entry| kinds.contains(&entry.kind.as_str())).count()
}

fn between(from: &Entry, to: &Entry) -> Duration {
    let time = |entry: &Entry| entry.time.parse::<jiff::Timestamp>().unwrap();
    time(to).duration_since(time(from)).unsigned_abs()
}
