//! A turn that came while its visitor's page slept: they wait again in front of all others, and the log and
//! the audit say why.

use std::time::Duration;

use serde_json::{Value, json};

use crate::checker::read;
use crate::system::{System, post};
use crate::visitor::{Visitor, connection_id, key, name};

/// What must be written is written within this.
const WRITTEN_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_was_slept_through_comes_again() {
    let system = System::start("missed-turn");
    let policy = json!({
        "rate_per_minute": 60, "max_inside": 1, "token_seconds": 5, "absent": "admit",
    });
    system.queue("line", &policy);
    assert_eq!(system.operate("POST", "/admin/queues/line/pause", &json!({})).0, 200);
    let url = system.socket(0, "line");
    let mut ann = Visitor::join(&url, &key()).await;
    let id = connection_id(&ann.until("JOINED").await);
    ann.until("QUEUE_UPDATE").await;
    let mut ben = Visitor::join(&url, &key()).await;
    let ben_id = connection_id(&ben.until("JOINED").await);
    ben.until("QUEUE_UPDATE").await;
    drop(ann);
    until(&system, "disconnected", &id).await;
    assert_eq!(system.operate("POST", "/admin/queues/line/open", &json!({})).0, 200);
    until(&system, "admitted", &id).await;
    let missed = until(&system, "released", &id).await;
    assert_eq!(missed["reason"], "missed", "{missed}");
    // Nobody waits for one who does not come.
    ben.until("ADMITTED").await;

    let pause = system.operate("POST", "/admin/queues/line/pause", &json!({}));
    assert_eq!(pause.0, 200, "{}", pause.1);
    let mut carl = Visitor::join(&url, &key()).await;
    carl.until("JOINED").await;
    let mut ann = Visitor::reconnect(&url, &id).await;
    assert_eq!(connection_id(&ann.until("JOINED").await), id);
    let told = ann.until("QUEUE_UPDATE").await;
    assert_eq!((&told["payload"]["position"], &told["payload"]["count"]), (&json!(1), &json!(0)));
    assert_eq!(system.operate("POST", "/admin/queues/line/open", &json!({})).0, 200);
    let admitted = ann.until("ADMITTED").await;
    let redeem = format!("{}/api/tokens/redeem", system.node(0));
    let (status, answer) = post(&redeem, &json!({"token": admitted["payload"]["token"]}));
    assert_eq!(status, 200, "{answer}");

    let entries = read(&system, "line").await;
    let of = |kind: &str, id: &str| {
        let entries = entries.iter().filter(|entry| entry.kind == kind);
        let facts = entries.flat_map(|entry| entry.body["facts"].as_array().unwrap());
        facts.filter(|fact| fact["visitor"] == name(id).as_str()).count()
    };
    assert_eq!((of("admitted", &id), of("admitted", &ben_id)), (2, 1));
    let audit = system.run_json(&["audit", "verify", "line"]);
    assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");
    let (code, said) = system.run(&["audit", "verify", "line"]);
    assert!(
        code == 0 && said.contains("was not here when their turn came, and waits again"),
        "{said}"
    );
}

/// The first fact of this kind about this visitor, once the log has it.
async fn until(system: &System, kind: &str, id: &str) -> Value {
    let found = async {
        loop {
            let entries = read(system, "line").await;
            let entries = entries.iter().filter(|entry| entry.kind == kind);
            let mut facts = entries.flat_map(|entry| entry.body["facts"].as_array().unwrap());
            if let Some(fact) = facts.find(|fact| fact["visitor"] == name(id).as_str()) {
                return fact.clone();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let found = tokio::time::timeout(WRITTEN_MAX, found).await;
    found.unwrap_or_else(|_| panic!("{kind} of {id} is not written:\n{}", system.logs()))
}
