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
