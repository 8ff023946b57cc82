//! What an operator sees of the projection: it is made anew on request and comes to the same, it is
//! looked at when nothing runs, and one that must not go on says so, where and why.

use serde_json::{Value, json};

use crate::raise::raise_level;
use crate::system::{System, get, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_made_anew_is_the_same_with_a_projector_and_without() {
    let mut system = System::start("anew");
    system.queue("line", &json!({"rate_per_minute": 1}));
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut visitor = Visitor::join(&system.socket(0, "line"), &key()).await;
        visitor.until("JOINED").await;
        sockets.push(visitor);
    }
    // The first is let in.
    sockets[0].until("ADMITTED").await;
    let verify = || system.run_json(&["projection", "verify", "line"]);
    let before = verify();
    let audit = system.run_json(&["audit", "verify", "line"]);
    let fingerprints =
        |said: &Value| json!([said["ok"], said["sequence"], said["digest"], said["chain"]]);
    assert_eq!(fingerprints(&before), fingerprints(&audit));

    let rebuilt = system.run_json(&["projection", "rebuild", "line"]);
    assert_eq!(fingerprints(&rebuilt), fingerprints(&before));
    assert_eq!(rebuilt["from"], "projector");
    // Nobody noticed: the line goes on.
    let mut late = Visitor::join(&system.socket(0, "line"), &key()).await;
    let last = name(&connection_id(&late.until("JOINED").await));
    assert_eq!(late.until("QUEUE_UPDATE").await["payload"]["position"], 5);
    let stand = system.run_json(&["audit", "position", "line", &last]);
    assert_eq!((&stand["position"], &stand["present"]), (&json!(5), &json!(true)));
    let (code, story) = system.run(&["audit", "history", "line", &last]);
    assert!(code == 0 && story.contains("joined behind 4 people"), "{story}");

    drop((sockets, late));
    system.stop();
    let kept = system.run_json(&["projection", "verify", "line"]);
    assert_eq!((&kept["ok"], &kept["from"]), (&json!(true), &json!("store")), "{kept}");
    system.up();
    let audit =
        system.run_json(&["audit", "verify", "line", "--seq", &kept["sequence"].to_string()]);
    assert_eq!(fingerprints(&kept), fingerprints(&audit));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_raises_the_level_halts_its_queue_loudly_and_no_other() {
    let system = System::start("halt");
    system.queue("line", &json!({"rate_per_minute": 1}));
    let mut first = Visitor::join(&system.socket(0, "line"), &key()).await;
    first.until("ADMITTED").await;
    let mut ann = Visitor::join(&system.socket(0, "line"), &key()).await;
    ann.until("QUEUE_UPDATE").await;
    let (halted, why) = raise_level(&system, "line").await;
    let ready = || get(&format!("{}/readyz", system.node(0)));
    let mut said = (0, Value::Null);
    wait_until("the node says so", || {
        said = ready();
        said.1["reasons"].to_string().contains("stopped")
    });
    // The other queue is served.
    assert_eq!((said.0, &said.1["queues"]["demo"]), (200, &json!("ready")), "{said:?}");
    assert!(said.1["queues"]["line"].as_str().unwrap().contains(&why), "{said:?}");
    let reason = said.1["reasons"].to_string();
    assert!(reason.contains("queue line") && reason.contains(&why), "{reason}");
    assert!(!reason.contains("queue demo"), "{reason}");

    let (code, text) = system.run(&["projection", "verify", "line", "--json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["ok"], &answer["sequence"]), (1, &json!(false), &json!(halted - 1)));
    assert!(answer["halted"].as_str().unwrap().contains(&why), "{answer}");
    let (code, text) = system.run(&["audit", "verify", "line"]);
    assert!(code == 1 && text.contains(&why), "{text}");
    let (_, shown) = system.operate("GET", "/admin/queues/line", &json!(null));
    assert!(shown["halted"].as_str().unwrap().contains(&why), "{shown}");
    assert!(system.logs().matches("halted").count() >= 2, "the projector and admission say so");

    let mut bob = Visitor::join(&system.socket(0, "demo"), &key()).await;
    bob.until("ADMITTED").await;
    // Whoever waits in the other is told that the number may be old.
    while ann.until("QUEUE_UPDATE").await["payload"]["stale"] != true {}
}
