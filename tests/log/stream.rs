//! The stream of a queue: made once, with limits that never forget.

use anteroom::log::stream::{Limits, StreamError};
use anteroom::log::subjects::QueueId;
use serde_json::json;

use crate::world::{ROOMY, World, ask, joined, soon};

#[tokio::test]
async fn a_stream_forgets_nothing_and_refuses_when_it_is_full() {
    let world = World::new().await;
    let auditor = world.raw("auditor").await;
    let info = ask(&auditor, "$JS.API.STREAM.INFO.ANTEROOM_demo", json!({})).await;
    let expected = json!({
        "name": "ANTEROOM_demo",
        "subjects": ["anteroom.log.demo.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_bytes": 256_000_000,
        "num_replicas": 1,
        "duplicate_window": 120_000_000_000_u64,
        "deny_delete": true,
        "deny_purge": true,
        "allow_direct": true,
        "republish": {"src": "anteroom.log.demo.>", "dest": "anteroom.stored.demo.>"},
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&info["config"][key], value, "{key}");
    }
    // What is left out of the template must stay off: each of these could change or hide history.
    for key in ["allow_rollup_hdrs", "allow_msg_ttl", "mirror", "sources", "subject_transform"] {
        assert!(matches!(info["config"][key].as_bool(), None | Some(false)), "{key}");
    }
}

#[tokio::test]
async fn a_stream_that_is_there_is_used_as_it_is() {
    let world = World::new().await;
    let log = world.log("admission").await;
    let first = log.stream_info(&world.queue).await.unwrap();
    soon(world.appender().await.append(joined("ann", 1)).unwrap().known()).await.unwrap();
    for limits in [ROOMY, Limits { max_bytes: 10_000, replicas: 1 }] {
        let again = log.create_stream(&world.queue, limits).await.unwrap();
        assert_eq!(again.created, first.created);
        assert_eq!((again.max_bytes, again.last.0), (256_000_000, 1));
        assert!(again.bytes > first.bytes && again.now > first.now);
    }
    let other = QueueId::parse("other").unwrap();
    log.create_stream(&other, ROOMY).await.unwrap();
    assert_eq!(log.queues().await.unwrap(), [world.queue.clone(), other]);
}

#[tokio::test]
async fn a_queue_that_nobody_made_is_missing() {
    let world = World::new().await;
    let unknown = QueueId::parse("unknown").unwrap();
    for identity in ["admission", "projector", "auditor"] {
        let looked = world.log(identity).await.stream_info(&unknown).await;
        assert!(matches!(looked, Err(StreamError::Missing)), "{identity}: {looked:?}");
    }
}
