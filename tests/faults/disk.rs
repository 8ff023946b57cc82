//! No room: under the log, under the projector's store, and in the stream itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::by_hand::{identity, in_order, left, places, put_in, seated};
use crate::projector::{Folder, Projector, truth};
use crate::row::{row, times};
use crate::small_disk::SmallDisk;
use crate::system::System;
use crate::visitor::{Visitor, connection_id, key, name};
use crate::world::{World, ask, put, stored};

/// What is let in per minute: everybody at once.
const FAST: u32 = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_log_loses_nothing_that_was_acknowledged() {
    let mut system = System::prepare("disk");
    let disk = SmallDisk::mount(&system.dir.join("nats"), 24);
    system.by = disk.by();
    system.settings = ["--stream-max-bytes", "4194304"].map(str::to_owned).to_vec();
    system.up();
    system.queue("line", &json!({"rate_per_minute": FAST}));
    let url = system.socket(0, "line");
    let auditor = identity(&system, "auditor").await;
    let repetitions = times(1, 5);
    let (mut acknowledged, mut refused) = (BTreeSet::new(), 0);
    let mut worst = Duration::ZERO;
    for _ in 0..repetitions {
        acknowledged.insert(joins(&url).await);
        disk.fill();
        // What is left of the last block is still written, and acknowledged.
        let mut waits = Vec::new();
        while waits.is_empty() {
            let mut visitor = Visitor::join(&url, &key()).await;
            let said = visitor.next().await;
            if said["type"] == "JOINED" {
                acknowledged.insert(name(&connection_id(&said)));
            } else {
                assert_eq!(said["payload"]["code"], "log_unavailable", "{said}");
                refused += 1;
                waits.push(visitor);
            }
        }
        disk.make_room();
        let room = Instant::now();
        for mut visitor in waits {
            // Their JOIN was never withdrawn.
            acknowledged.insert(name(&connection_id(&visitor.until("JOINED").await)));
            visitor.until("ADMITTED").await;
        }
        acknowledged.insert(joins(&url).await);
        worst = worst.max(room.elapsed());
    }
    let places = places(&stored(&auditor, "line").await);
    for visitor in &acknowledged {
        assert_eq!(places.get(visitor), Some(&1), "{visitor}");
    }
    in_order(&system, "line");
    let result = format!(
        "{} joins acknowledged, 0 lost; {refused} answered `log_unavailable` while it was full, and \
         JOINED later; everybody served within {:.1} s of there being room",
        acknowledged.len(),
        worst.as_secs_f64()
    );
    row("disk full under NATS", repetitions, &result);
}

#[tokio::test]
async fn a_full_disk_under_the_projectors_store_costs_the_store_only() {
    let repetitions = times(1, 5);
    let mut answers = 0;
    for _ in 0..repetitions {
        let world = World::new().await;
        let node = world.raw("node").await;
        let folder = Folder::new("full");
        let dir = folder.0.join("projection");
        let disk = SmallDisk::mount(&dir, 4);
        put(&node, "node.joined", &[], seated(0, 500)).await;
        let mut projector = Projector::start(&world.nats, &dir, &disk.by());
        assert_eq!(projector.verify(), truth(&world.nats, &world.stored().await));

        disk.fill();
        let mut visitors = 500;
        while !projector.said("no store for now") {
            put(&node, "node.joined", &[], seated(visitors, 500)).await;
            visitors += 500;
            assert_eq!(projector.verify(), truth(&world.nats, &world.stored().await));
            answers += 1;
            assert!(visitors < 100_000, "the disk is not full");
        }
        projector.kill();
        // Without what it had moved aside, which it could throw away for a little room.
        for store in ["demo", "demo.damaged"] {
            let _ = std::fs::remove_dir_all(disk.seen().join(store));
        }
        disk.fill();
        let mut projector = Projector::start(&world.nats, &dir, &disk.by());
        let right = truth(&world.nats, &world.stored().await);
        assert_eq!(projector.verify(), right, "started on a full disk");
        answers += 1;
        disk.make_room();
        put(&node, "node.joined", &[], seated(visitors, 500)).await;
        let right = truth(&world.nats, &world.stored().await);
        assert_eq!(projector.verify(), right);
        // The store is written anew, and one that is started on it goes on from there.
        let until = Instant::now() + Duration::from_secs(30);
        while projector.began_with() < world.stored().await.len() as u64 {
            assert!(Instant::now() < until, "no checkpoint:\n{}", projector.log());
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            projector.kill();
            projector = Projector::start(&world.nats, &dir, &disk.by());
            assert_eq!(projector.verify(), right);
            answers += 1;
        }
    }
    let result = format!(
        "{answers} answers while full and after, all right, also of one started on the full disk; \
         its store written anew when there was room"
    );
    row("disk full under sled", repetitions, &result);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_its_limit_says_that_the_queue_is_full() {
    let mut system = System::prepare("limit");
    let settings = ["--stream-max-bytes", "1048576"];
    system.settings = settings.map(str::to_owned).to_vec();
    system.up();
    let node = identity(&system, "node").await;
    let operator = identity(&system, "operator").await;
    let auditor = identity(&system, "auditor").await;
    let repetitions = times(1, 5);
    let (mut refused, mut served) = (0, 0);
    for repetition in 0..repetitions {
        let queue = format!("small-{repetition}");
        system.queue(&queue, &json!({"rate_per_minute": 1}));
        let url = system.socket(0, &queue);
        let mut first = Visitor::join(&url, &key()).await;
        first.until("ADMITTED").await;
        let waiting_key = key();
        let mut waiting = Visitor::join(&url, &waiting_key).await;
        let id = connection_id(&waiting.until("JOINED").await);
        waiting.until("QUEUE_UPDATE").await;

        let full_at = 1_048_576 * 8 / 10;
        let mut many = 0;
        while bytes(&auditor, &queue).await < full_at {
            put_in(&node, &queue, "node.joined", seated(many, 250)).await.unwrap();
            many += 250;
        }
        // Nodes hear of it within a second or two; until then they let people in.
        let mut acknowledged = vec![name(&id)];
        loop {
            let mut visitor = Visitor::join(&url, &key()).await;
            let said = visitor.next().await;
            if said["type"] == "JOINED" {
                acknowledged.push(name(&connection_id(&said)));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            assert_eq!(said["payload"]["code"], "queue_full", "{said}");
            assert_eq!(visitor.until_closed().await, 1013);
            refused += 1;
            break;
        }
        // All else goes on: who is in line keeps their place, and says so on another socket.
        let mut again = Visitor::join(&url, &waiting_key).await;
        assert_eq!(connection_id(&again.until("JOINED").await), id);
        assert_eq!(again.until("QUEUE_UPDATE").await["payload"]["position"], 1);
        served += 1;
        // Now to the last byte.
        while put_in(&node, &queue, "node.left", left(many)).await.is_ok() {}
        let mut visitor = Visitor::join(&url, &key()).await;
        assert_eq!(visitor.next().await["payload"]["code"], "queue_full");
        refused += 1;

        enlarge(&operator, &queue).await;
        wait_for_room(&url, &mut acknowledged).await;
        let places = places(&stored(&auditor, &queue).await);
        for visitor in &acknowledged {
            assert_eq!(places.get(visitor), Some(&1), "{visitor}");
        }
        served += acknowledged.len();
        in_order(&system, &queue);
    }
    let result = format!(
        "{refused} joins answered `queue_full`; {served} acknowledged before, meanwhile and after, 0 lost; \
         the queue went on when the stream was given room"
    );
    row("stream at its byte limit", repetitions, &result);
}

/// A visitor who joins and is let in; gives their name.
async fn joins(url: &str) -> String {
    let mut visitor = Visitor::join(url, &key()).await;
    let id = connection_id(&visitor.until("JOINED").await);
    visitor.until("ADMITTED").await;
    name(&id)
}

pub async fn bytes(auditor: &async_nats::Client, queue: &str) -> u64 {
    let info = ask(auditor, &format!("$JS.API.STREAM.INFO.ANTEROOM_{queue}"), json!({})).await;
    info["state"]["bytes"].as_u64().unwrap()
}

/// Gives a stream twice the room, as an operator does by hand.
pub async fn enlarge(operator: &async_nats::Client, queue: &str) {
    let stream = format!("ANTEROOM_{queue}");
    let info = ask(operator, &format!("$JS.API.STREAM.INFO.{stream}"), json!({})).await;
    let mut config = info["config"].clone();
    config["max_bytes"] = json!(2 * 1_048_576);
    let updated = ask(operator, &format!("$JS.API.STREAM.UPDATE.{stream}"), config).await;
    assert_eq!(updated["config"]["max_bytes"], 2 * 1_048_576, "{updated}");
}

/// Tries to join until somebody is let into the line again.
async fn wait_for_room(url: &str, acknowledged: &mut Vec<String>) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut visitor = Visitor::join(url, &key()).await;
        let said = visitor.next().await;
        if said["type"] == "JOINED" {
            return acknowledged.push(name(&connection_id(&said)));
        }
        assert_eq!(said["payload"]["code"], "queue_full", "{said}");
        assert!(Instant::now() < until, "still full");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
