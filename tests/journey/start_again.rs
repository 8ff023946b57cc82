//! `up` on a folder whose queues are not what they were: each is served that can be, and nothing is made that
//! somebody took away.

use serde_json::{Value, json};

use crate::system::{System, get};
use crate::visitor::{Visitor, key};

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_again_without_the_queue_that_it_began_with() {
    let mut system = System::start("start-again");
    assert_eq!(system.ready["queue"], "demo");
    assert_eq!(system.operate("DELETE", "/admin/queues/demo", &json!({})).0, 204);
    system.stop();
    system.up();
    assert_eq!((&system.ready["queue"], &system.ready["waiting"]), (&Value::Null, &Value::Null));
    system.queue("line", &json!({"rate_per_minute": 6_000}));
    system.stop();
    system.up();
    assert_eq!(system.ready["queue"], "line");
    let (status, listed) = system.operate("GET", "/admin/queues", &Value::Null);
    let names: Vec<&Value> =
        listed["queues"].as_array().unwrap().iter().map(|queue| &queue["queue"]).collect();
    assert_eq!((status, names), (200, vec![&json!("line")]));
    let (status, ready) = get(&format!("{}/readyz", system.node(0)));
    assert_eq!((status, &ready["queues"]), (200, &json!({"line": "ready"})), "{ready}");
    Visitor::join(&system.socket(0, "line"), &key()).await.until("ADMITTED").await;
}

/// The server's disk is spoken for: streams reserve what they may hold.
#[tokio::test(flavor = "multi_thread")]
async fn it_starts_where_there_is_room_for_no_queue() {
    let mut system = System::prepare("no-room");
    system.settings = ["--stream-max-bytes", "9000000000000000"].map(str::to_owned).to_vec();
    system.up();
    assert_eq!(system.ready["queue"], Value::Null);
    assert!(system.logs().contains("the queue demo could not be made"), "{}", system.logs());
    let (status, refused) = system.operate("PUT", "/admin/queues/line", &json!({}));
    assert_eq!((status, &refused["code"]), (507, &json!("no_stream")), "{refused}");
}

/// Each log reserves what it may hold. Where nothing is left, no queue can be made; those that are there are
/// not touched by it.
#[test]
fn where_no_room_is_left_queues_that_are_there_can_be_changed() {
    const EACH: u64 = 8 << 30;
    let mut system = System::prepare("reserved");
    system.settings = ["--stream-max-bytes", &EACH.to_string()].map(str::to_owned).to_vec();
    system.up();
    let refused = (0..1_000).find_map(|number| {
        let (status, said) = system.operate("PUT", &format!("/admin/queues/q{number}"), &json!({}));
        (status != 201).then_some((number, status, said))
    });
    let (made, status, said) = refused.expect("the disk has an end");
    assert_eq!((status, &said["code"]), (507, &json!("no_stream")), "{said}");
    assert!(made > 0, "this test needs {EACH} free bytes twice");
    let policy = json!({"rate_per_minute": 7});
    let (status, said) = system.operate("PUT", "/admin/queues/q0", &policy);
    assert_eq!((status, &said["ratePerMinute"]), (200, &json!(7)), "{said}");
    assert_eq!(system.operate("DELETE", "/admin/queues/q0", &Value::Null).0, 204);
    let (_, listed) = system.operate("GET", "/admin/queues", &Value::Null);
    // The deleted one's log is there, and the one that `up` made.
    let logs = made + 1;
    assert_eq!(listed["reserved"], json!({"logs": logs, "bytes": logs * EACH}), "{listed}");
    let (_, text) = system.run(&["queue", "list"]);
    let words =
        format!("{logs} logs, those of deleted queues too, reserve {} MiB", logs * (EACH >> 20));
    assert!(text.contains(&words), "{text}");
}
