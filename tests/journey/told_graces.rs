//! A place is kept for as long as its visitor was told, also where the policy says less by now.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::checker::{Entry, read};
use crate::system::System;
use crate::visitor::{Visitor, connection_id, key, name};

const ABSENT: usize = 20;
const LONG: u64 = 300;
const SHORT: u64 = 1;
/// For so long it is seen that nobody is thrown out: many times the short grace.
const WATCHED: Duration = Duration::from_secs(6);
/// What must be written is written within this.
const WRITTEN_MAX: Duration = Duration::from_secs(30);
/// After a grace a place is given up within this.
const EXPIRY_LATE_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_grace_holds_for_those_who_go_away_after_it() {
    let system = System::start("told-graces");
    system.queue("line", &policy(LONG));
    assert_eq!(system.operate("POST", "/admin/queues/line/pause", &json!({})).0, 200);
    let url = system.socket(0, "line");
    let mut ids = Vec::new();
    for _ in 0..ABSENT {
        ids.push(joins_and_goes(&url).await);
    }
    let mut ann = Visitor::join(&url, &key()).await;
    let ann_id = connection_id(&ann.until("JOINED").await);
    until(&system, "disconnected", ABSENT).await;

    assert_eq!(system.operate("PUT", "/admin/queues/line", &policy(SHORT)).0, 200);
    tokio::time::sleep(WATCHED).await;
    assert_eq!(facts(&read(&system, "line").await, "expired").len(), 0, "somebody is thrown out");

    // Whoever goes away now has the short one.
    drop(ann);
    until(&system, "expired", 1).await;
    assert_eq!(graces(&read(&system, "line").await), [name(&ann_id)]);

    // So has one who was told the long one, came back, and went away again; the others keep theirs.
    let mut back = Visitor::reconnect(&url, &ids[0]).await;
    let joined = back.until("JOINED").await;
    assert_eq!(joined["payload"]["reconnectWithin"], SHORT);
    assert_eq!(back.until("QUEUE_UPDATE").await["payload"]["position"], 1);
    drop(back);
    until(&system, "expired", 2).await;
    assert_eq!(graces(&read(&system, "line").await), [name(&ann_id), name(&ids[0])]);
    tokio::time::sleep(WATCHED).await;
    for (number, id) in ids[1..].iter().enumerate() {
        let mut visitor = Visitor::reconnect(&url, id).await;
        assert_eq!(visitor.until("QUEUE_UPDATE").await["payload"]["position"], number + 1);
    }
    let audit = system.run_json(&["audit", "verify", "line"]);
    assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");
}

fn policy(reconnect_seconds: u64) -> Value {
    json!({ "reconnect_seconds": reconnect_seconds })
}

async fn joins_and_goes(url: &str) -> String {
    let mut visitor = Visitor::join(url, &key()).await;
    let joined = visitor.until("JOINED").await;
    assert_eq!(joined["payload"]["reconnectWithin"], LONG);
    // They were in line, and not only about to be.
    visitor.until("QUEUE_UPDATE").await;
    connection_id(&joined)
}

/// When each of these facts was stored, and of whom it is, in order.
fn facts(entries: &[Entry], kind: &str) -> Vec<(Timestamp, String)> {
    let entries = entries.iter().filter(|entry| entry.kind == kind);
    let facts = entries.flat_map(|entry| {
        let who = |fact: &Value| fact["visitor"].as_str().unwrap().to_owned();
        let facts = entry.body["facts"].as_array().unwrap();
        facts.iter().map(move |fact| (entry.time.parse().unwrap(), who(fact)))
    });
    facts.collect()
}

/// Who has expired, each after the short grace and soon after it.
fn graces(entries: &[Entry]) -> Vec<String> {
    let gone = facts(entries, "disconnected");
    let expired = facts(entries, "expired").into_iter().map(|(at, who)| {
        let (absent, _) = gone.iter().rfind(|(gone, other)| *other == who && *gone <= at).unwrap();
        let kept = Duration::try_from(at.duration_since(*absent)).unwrap();
        let grace = Duration::from_secs(SHORT);
        assert!((grace..=grace + EXPIRY_LATE_MAX).contains(&kept), "kept for {kept:?}");
        who
    });
    expired.collect()
}

async fn until(system: &System, kind: &str, count: usize) {
    let came = async {
        while facts(&read(system, "line").await, kind).len() < count {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let came = tokio::time::timeout(WRITTEN_MAX, came).await;
    assert!(came.is_ok(), "{count} {kind} did not come");
}
