//! Entries of a node that lies: a reader believes the server only, and goes on.

use anteroom::clock;
use anteroom::queue::event::Seq;

use crate::tail::Reader;
use crate::world::{World, joined_json, put, put_with_raw_headers};

#[tokio::test]
async fn headers_that_an_entry_brings_along_change_nothing_that_is_read() {
    let headers = [
        ("Nats-Stream", "ANTEROOM_other"),
        ("Nats-Sequence", "900"),
        ("Nats-Subject", "anteroom.log.demo.admission.admitted"),
        ("Nats-Time-Stamp", "2001-01-01T00:00:00Z"),
        ("Nats-Last-Sequence", "899"),
        ("Nats-Num-Pending", "0"),
        ("nats-sequence", "901"),
        ("Status", "404"),
    ];
    let world = World::new().await;
    let node = world.raw("node").await;
    let log = world.log("projector").await;
    let mut reader = Reader::from(&world, &log, 1, None);
    reader.looked().await;
    for name in ["ann", "bob"] {
        put(&node, "node.joined", &headers, joined_json(name)).await;
    }
    let live = reader.up_to(2).await;
    assert_eq!(log.fetch(&world.queue, Seq(1), 10).await.unwrap(), live);
    for (record, stored) in live.iter().zip(world.stored().await) {
        assert!(stored.headers.contains("Nats-Sequence: 900"), "{}", stored.headers);
        assert_eq!(record.seq, Seq(stored.seq));
        assert_eq!(record.subject, "anteroom.log.demo.node.joined");
        assert_eq!(Some(record.stored), clock::parse_rfc3339(&stored.time));
    }
}

#[tokio::test]
async fn entries_that_look_like_the_servers_own_answers_are_read() {
    check(&[
        b"NATS/1.0 100 Idle\r\nX: y\r\n\r\n",
        b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n",
        b"NATS/1.0 404 Message Not Found\r\nX: y\r\n\r\n",
        b"NATS/1.0 408 Bad Request\r\n\r\n",
        b"NATS/1.0 503\r\nX: y\r\n\r\n",
        b"NATS/1.0 70000 ?\r\nX: y\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn entries_whose_headers_have_no_end_are_read() {
    check(&[
        b"NATS/1.0\r\nX: y\r\n",
        b"NATS/1.0\r\nX: y",
        b"NATS/1.0\r\nNats-Sequence:\r\n 900",
        b"NATS/1.0\r\nX: y\r\n\r\nNats-Sequence: 900\r\n\r\n",
        b"NATS/1.0\r\nX: \0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn entries_whose_headers_are_none_stop_no_reader() {
    // No client can read these: each breaks the connection of whoever is sent it.
    check(&[
        b"NATS/1.0\r\nno colon\r\n\r\n",
        b"NATS/1.0\r\nX: \xff\xfe\r\n\r\n",
        b"NATS/1.0\r\n X y: z\r\n\r\n",
        b"nonsense\r\nX: y\r\n\r\n",
        b"x\r\n",
    ])
    .await;
}

#[tokio::test]
async fn an_entry_as_long_as_the_server_allows_is_read() {
    let world = World::new().await;
    let node = world.raw("node").await;
    let long = vec![b'x'; 1_048_576 - 4_000];
    for _ in 0..3 {
        put(&node, "node.joined", &[("X", &"y".repeat(3_000))], long.clone()).await;
    }
    put(&node, "node.joined", &[], joined_json("ann")).await;
    let log = world.log("projector").await;
    let mut reader = Reader::from(&world, &log, 1, None);
    assert_eq!(reader.up_to(4).await.len(), 4);
    reader.looked().await;
    put(&node, "node.joined", &[("X", &"y".repeat(3_000))], long.clone()).await;
    assert_eq!(reader.up_to(5).await.len(), 1);
}

/// Asserts that entries with these bytes as their headers are read, live and later, and what comes
/// after them too.
async fn check(all: &[&[u8]]) {
    let world = World::new().await;
    let node = world.raw("node").await;
    let log = world.log("projector").await;
    let mut live = Reader::from(&world, &log, 1, None);
    live.looked().await;
    for headers in all {
        put_with_raw_headers(&world.nats.url("node"), headers, joined_json("ann").as_bytes()).await;
    }
    let last = put(&node, "node.joined", &[], joined_json("bob")).await;
    let stored = world.stored().await;
    assert_eq!(stored.len(), all.len() + 1);
    let live = live.up_to(last).await;
    let log = world.log("projector").await;
    let later = Reader::from(&world, &log, 1, None).up_to(last).await;
    assert_eq!(live, later);
    for (record, stored) in live.iter().zip(stored) {
        assert_eq!(record.seq, Seq(stored.seq));
        assert_eq!(record.subject, stored.subject);
        assert_eq!(Some(record.stored), clock::parse_rfc3339(&stored.time));
        assert_eq!(record.payload, stored.payload);
    }
}
