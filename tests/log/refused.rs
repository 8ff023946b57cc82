//! What a writer is told when its entry is not stored, and that it is true.

use std::time::Duration;

use anteroom::clock;
use anteroom::log::append::{AppendError, Appended, Appender};
use anteroom::log::publish::{PublishError, Stored};
use anteroom::log::stream::{Limits, StreamError};
use anteroom::queue::event::{Level, Seq};

use crate::road::{Accident, Road};
use crate::support::Nats;
use crate::world::{World, connect, decision, fold, joined, soon, until};

#[tokio::test]
async fn without_a_server_a_decision_is_refused_at_once_and_never_sent_later() {
    let mut world = World::new().await;
    let log = world.log("admission").await;
    let appender = world.appender().await;
    world.nats.kill();
    until(|| !log.is_connected()).await;
    let started = clock::monotonic();
    let away = log.append_fenced(&world.queue, &decision(0, "ann"), Level::FIRST).await;
    assert_eq!(away, Err(PublishError::Away));
    assert!(matches!(log.stream_info(&world.queue).await, Err(StreamError::Away(_))));
    assert!(log.fetch(&world.queue, Seq(1), 10).await.is_err());
    assert!(clock::monotonic() - started < Duration::from_millis(500));
    // A node's fact waits instead: its visitor is told when it is stored.
    let mut eve = appender.append(joined("eve", 1)).unwrap();

    world.nats.start();
    until(|| log.is_connected()).await;
    soon(eve.known()).await.unwrap();
    let bob = soon(log.append_fenced(&world.queue, &decision(0, "bob"), Level::FIRST)).await;
    assert_eq!(bob, Ok(Stored { seq: Seq(2), duplicate: false }));
    world.says("1 node.joined eve/1\n2 admission.configured prev=0 bob").await;
}

#[tokio::test]
async fn a_full_log_refuses_everybody_and_has_all_that_it_acknowledged() {
    let world = World::with(Limits { max_bytes: 200_000, replicas: 1 }).await;
    let appender = world.appender().await;
    let names: Vec<String> = (0..5_000).map(|number| format!("v{number}")).collect();
    let pending: Vec<_> =
        names.iter().map(|name| appender.append(joined(name, 1)).unwrap()).collect();
    let mut acknowledged = 0;
    for mut pending in pending {
        match soon(pending.known()).await {
            Ok(_) => acknowledged += 1,
            Err(error) => assert_eq!(error, AppendError::Full),
        }
    }
    assert!((1_000..5_000).contains(&acknowledged), "{acknowledged}");
    // Small entries fill what is left, until nothing fits any more.
    let log = world.log("admission").await;
    let mut prev = 0;
    let refused = loop {
        match soon(log.append_fenced(&world.queue, &decision(prev, "ops"), Level::FIRST)).await {
            Ok(stored) => prev = stored.seq.0,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, PublishError::Full);
    let refused = soon(appender.append(joined("eve", 1)).unwrap().known()).await;
    assert_eq!(refused, Err(AppendError::Full));
    let line = fold(&world.stored().await);
    assert_eq!(line.places().len(), acknowledged);
    assert_eq!(line.last_decision(), Seq(prev));
}

#[tokio::test]
async fn the_last_entry_that_fits_is_no_refusal_when_its_ack_is_lost() {
    let world = World::with(Limits { max_bytes: 300, replicas: 1 }).await;
    let road = Road::to(world.nats.address()).await;
    let log = connect(&Nats::url_at("node", road.address())).await;
    let appender = Appender::start(&log, &world.queue, &world.shutdown);
    road.set(Accident::CutAtAck);
    let ann = soon(appender.append(joined("ann", 1)).unwrap().known()).await;
    let bob = soon(appender.append(joined("bob", 1)).unwrap().known()).await;
    world.says("1 node.joined ann/1").await;
    assert_eq!(ann, Ok(Appended { seq: Seq(1), index: 0 }));
    assert_eq!(bob, Err(AppendError::Full));
}

#[tokio::test]
async fn what_is_stored_before_all_that_is_known_is_in_another_stream() {
    let world = World::new().await;
    let appender = world.appender().await;
    soon(appender.append(joined("ann", 1)).unwrap().known()).await.unwrap();
    appender.knows(Seq(5));
    for name in ["bob", "cid"] {
        let told = soon(appender.append(joined(name, 1)).unwrap().known()).await;
        assert_eq!(told, Err(AppendError::OtherStream), "{name}");
    }
    // The first one could not be known before; nothing more is written.
    world.says("1 node.joined ann/1\n2 node.joined bob/1").await;
}

#[tokio::test]
async fn a_queue_without_a_stream_takes_nothing() {
    let world = World::new().await;
    let unknown = anteroom::log::subjects::QueueId::parse("unknown").unwrap();
    let log = world.log("admission").await;
    let started = clock::monotonic();
    let away = log.append_fenced(&unknown, &decision(0, "ann"), Level::FIRST).await;
    assert_eq!(away, Err(PublishError::Away));
    assert!(clock::monotonic() - started < Duration::from_secs(1));
}

#[tokio::test]
async fn who_may_not_write_stores_nothing() {
    let world = World::new().await;
    for identity in ["node", "projector", "auditor"] {
        let log = world.log(identity).await;
        let refused =
            soon(log.append_fenced(&world.queue, &decision(0, identity), Level::FIRST)).await;
        assert!(refused.is_err(), "{identity}: {refused:?}");
    }
    world.says("").await;
}
