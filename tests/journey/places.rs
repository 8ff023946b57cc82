//! A place: one per visitor, kept over refreshes and nodes, given up, lost, paused.

use rustix::process::Signal;
use serde_json::json;

use crate::checker::{read, retell};
use crate::system::{System, signal};
use crate::visitor::{Visitor, connection_id, key, name};

/// Slow enough that nobody but the first is let in while a test looks.
fn slow() -> serde_json::Value {
    json!({"rate_per_minute": 1, "reconnect_seconds": 2})
}

#[tokio::test(flavor = "multi_thread")]
async fn one_visitor_has_one_place_whatever_they_do() {
    let mut system = System::start("places");
    system.second_node();
    system.queue("slow", &slow());
    let (here, there) = (system.socket(0, "slow"), system.socket(1, "slow"));
    let mut first = Visitor::join(&here, &key()).await;
    first.until("ADMITTED").await;
    let ann_key = key();
    let mut ann = Visitor::join(&here, &ann_key).await;
    let joined = ann.next().await;
    let ann_id = connection_id(&joined);
    assert_eq!(ann.until("QUEUE_UPDATE").await["payload"]["position"], 1);
    let mut bob = Visitor::join(&there, &key()).await;
    let bob_id = connection_id(&bob.next().await);
    assert_eq!(bob.until("QUEUE_UPDATE").await["payload"]["position"], 2);

    // The same key, on the same node and on the other, is the same place; the newest socket has it.
    let mut tab = Visitor::join(&here, &ann_key).await;
    assert_eq!(connection_id(&tab.next().await), ann_id);
    assert_eq!(ann.until("ERROR").await["payload"]["code"], "replaced");
    assert_eq!(ann.until_closed().await, 1000);
    let mut tab_there = Visitor::join(&there, &ann_key).await;
    assert_eq!(connection_id(&tab_there.next().await), ann_id);
    assert_eq!(tab.until("ERROR").await["payload"]["code"], "replaced");
    assert_eq!(tab_there.until("QUEUE_UPDATE").await["payload"]["position"], 1);

    // A refresh is a new socket with the connection id: same place, on any node.
    drop(tab_there);
    let mut ann = Visitor::reconnect(&here, &ann_id).await;
    assert_eq!(connection_id(&ann.until("JOINED").await), ann_id);
    assert_eq!(ann.until("QUEUE_UPDATE").await["payload"]["position"], 1);

    // Giving it up moves the others, and ends it for good.
    ann.say(&json!({"type": "LEAVE"})).await;
    assert_eq!(ann.until("ENDED").await["payload"]["reason"], "left");
    assert_eq!(ann.until_closed().await, 1000);
    loop {
        if bob.until("QUEUE_UPDATE").await["payload"]["position"] == 1 {
            break;
        }
    }
    let mut again = Visitor::join(&there, &ann_key).await;
    assert_eq!(again.until("ENDED").await["payload"]["reason"], "left");
    let mut again = Visitor::reconnect(&there, &ann_id).await;
    assert_eq!(again.until("ENDED").await["payload"]["reason"], "left");

    // Absent for longer than the queue allows: the place is gone.
    drop(bob);
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    let mut bob = Visitor::reconnect(&here, &bob_id).await;
    assert_eq!(bob.until("ENDED").await["payload"]["reason"], "expired");

    let story = retell(&read(&system, "slow").await);
    assert_eq!(story.joined.len(), 3);
    assert_eq!(story.joined[2], name(&bob_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_told_with_its_reason_and_nobody_is_let_in_meanwhile() {
    let system = System::start("pause");
    system.queue("show", &json!({"rate_per_minute": 600}));
    let (code, text) = system.run(&["queue", "pause", "show", "--reason", "sound check"]);
    assert_eq!(code, 0, "{text}");
    let mut visitor = Visitor::join(&system.socket(0, "show"), &key()).await;
    let update = visitor.until("QUEUE_UPDATE").await;
    let payload = &update["payload"];
    assert_eq!((&payload["status"], &payload["reason"]), (&json!("paused"), &json!("sound check")));
    assert_eq!(payload["seconds"], json!(null));
    let (code, text) = system.run(&["queue", "resume", "show"]);
    assert_eq!(code, 0, "{text}");
    visitor.until("ADMITTED").await;
    let (code, text) = system.run(&["queue", "show", "show"]);
    assert!(code == 0 && text.starts_with("show: open\n"), "{text}");
    let (code, text) = system.run(&["queue", "create", "show"]);
    assert!(code == 1 && text.contains("queue_exists"), "{text}");
    let (code, text) = system.run(&["queue", "set", "show", "--set", "title=Show"]);
    assert!(code == 0 && text.contains("rate_per_minute = 600"), "the rest stays: {text}");
    let (code, text) =
        system.run(&["queue", "set", "show", "--set", "rate_per_minute=0", "--set", "colour=red"]);
    assert_eq!(code, 1);
    for part in ["rate_per_minute must be a whole number from 1 to", "colour must be one of"] {
        assert!(text.contains(part), "{text} does not say {part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_does_not_answer_a_join_is_told_so_and_still_lands_once() {
    let system = System::start("away");
    system.queue("door", &json!({"rate_per_minute": 600}));
    let url = system.socket(0, "door");
    let mut first = Visitor::join(&url, &key()).await;
    first.until("ADMITTED").await;
    let nats = system.pid("nats-server");
    signal(nats, Signal::STOP);
    let asked = std::time::Instant::now();
    let mut visitor = Visitor::join(&url, &key()).await;
    let error = visitor.until("ERROR").await;
    assert_eq!(error["payload"]["code"], "log_unavailable");
    assert!(error["payload"]["retryAfter"].as_u64().unwrap() > 0);
    assert!(asked.elapsed().as_secs() < 10, "told after {:?}", asked.elapsed());
    signal(nats, Signal::CONT);
    let joined = visitor.until("JOINED").await;
    visitor.until("ADMITTED").await;
    let story = retell(&read(&system, "door").await);
    let name = name(&connection_id(&joined));
    assert_eq!(story.joined.iter().filter(|other| **other == name).count(), 1);
    assert_eq!(story.admitted.len(), 2);
}
