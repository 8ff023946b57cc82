//! The stream of a queue: made once, with limits that never forget.

use anteroom::log::stream::{Limits, StreamError};
use anteroom::log::subjects::QueueId;
use serde_json::{Value, json};

use crate::world::{ROOMY, SECRET, World, ask, joined, soon};

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
        "metadata": {"anteroom-secret": SECRET},
        "republish": {"src": "anteroom.log.demo.>", "dest": "anteroom.stored.demo.>"},
    });
    for (key, value) in expected.as_object().unwrap() {
        match (value, &info["config"][key]) {
            // The server adds notes of its own to what it was given.
            (Value::Object(ours), Value::Object(all)) => {
                assert!(ours.iter().all(|(name, value)| all.get(name) == Some(value)), "{key}");
            }
            (value, found) => assert_eq!(found, value, "{key}"),
        }
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
    let other_limits = Limits { max_bytes: 10_000, replicas: 1 };
    for (limits, secret) in [(ROOMY, SECRET), (ROOMY, "another"), (other_limits, SECRET)] {
        let again = log.create_stream(&world.queue, limits, secret).await.unwrap();
        assert_eq!((again.created, again.secret.as_deref()), (first.created, Some(SECRET)));
        assert_eq!((again.max_bytes, again.last.0), (256_000_000, 1));
        assert!(again.bytes > first.bytes && again.now > first.now);
    }
    let other = QueueId::parse("other").unwrap();
    log.create_stream(&other, ROOMY, SECRET).await.unwrap();
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

#[tokio::test]
async fn of_two_who_make_a_queue_at_once_both_have_the_secret_of_one() {
    let world = World::new().await;
    let log = world.log("admission").await;
    for round in 0..20 {
        let queue = QueueId::parse(&format!("queue-{round}")).unwrap();
        let (one, other) = tokio::join!(
            log.create_stream(&queue, ROOMY, "of the one"),
            log.create_stream(&queue, ROOMY, "of the other"),
        );
        let (one, other) = (one.unwrap().secret.unwrap(), other.unwrap().secret.unwrap());
        assert!(one == other && ["of the one", "of the other"].contains(&one.as_str()), "{one}");
    }
}

#[tokio::test]
async fn a_secret_stays_until_an_operator_takes_it_out() {
    let mut world = World::new().await;
    world.nats.kill();
    world.nats.start();
    let admission = world.raw("admission").await;
    let operator = world.raw("operator").await;
    let mut config =
        ask(&operator, "$JS.API.STREAM.INFO.ANTEROOM_demo", json!({})).await["config"].take();
    config["metadata"]["anteroom-secret"] = json!("another");
    let create = "$JS.API.STREAM.CREATE.ANTEROOM_demo";
    let refused = ask(&admission, create, config.clone()).await;
    assert_eq!(refused["error"]["err_code"], 10_058, "{refused}");
    let log = world.log("projector").await;
    let secret = async || log.stream_info(&world.queue).await.unwrap().secret;
    assert_eq!(secret().await.as_deref(), Some(SECRET));
    config["metadata"].as_object_mut().unwrap().remove("anteroom-secret");
    let updated = ask(&operator, "$JS.API.STREAM.UPDATE.ANTEROOM_demo", config).await;
    assert!(updated.get("error").is_none(), "{updated}");
    assert_eq!(secret().await, None);
}
