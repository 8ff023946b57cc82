//! The stream is not what it was: deleted and made anew, with a hole, or restored from an older backup.
//! Whoever followed it goes no further and says why, and nobody is put in another line.

use std::time::{Duration, Instant};

use async_nats::Client;
use serde_json::{Value, json};

use crate::by_hand::{identity, opened, put_in, seated};
use crate::projector::{Folder, Projector, truth};
use crate::row::{row, times};
use crate::store::copy;
use crate::system::{System, get, wait_until};
use crate::visitor::{Visitor, connection_id, key};
use crate::world::{World, ask, put, stored};

const OTHER_STREAM: &str = "this is not the stream that was read before";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_made_anew_is_not_followed_and_takes_nobody_in() {
    let system = System::start("anew");
    let operator = identity(&system, "operator").await;
    let admission = identity(&system, "admission").await;
    let repetitions = times(1, 5);
    let (mut refused, mut written) = (0, 0);
    let mut worst = Duration::ZERO;
    for repetition in 0..repetitions {
        let queue = format!("anew-{repetition}");
        system.queue(&queue, &json!({"rate_per_minute": 1}));
        // The projector was killed a moment ago: a node learns of a queue from one.
        let page = format!("{}/api/queues/{queue}", system.node(0));
        wait_until("the queue is served", || get(&page).0 == 200);
        let url = system.socket(0, &queue);
        let mut first = Visitor::join(&url, &key()).await;
        first.until("ADMITTED").await;
        let mut ann = Visitor::join(&url, &key()).await;
        ann.until("JOINED").await;
        assert_eq!(ann.until("QUEUE_UPDATE").await["payload"]["position"], 1);
        let mut bob = Visitor::join(&url, &key()).await;
        let bobs = connection_id(&bob.until("JOINED").await);
        assert_eq!(bob.until("QUEUE_UPDATE").await["payload"]["position"], 2);

        make_anew(&operator, &admission, &queue).await;
        let since = Instant::now();
        is_refused(&url).await;
        // The projector and the worker of admission.
        halted(&system, &queue, 2);
        worst = worst.max(since.elapsed());
        wait_until("the node says so", || {
            let (_, ready) = get(&format!("{}/readyz", system.node(0)));
            let reasons = ready["reasons"].to_string();
            let why = "this is not the stream that was read before";
            reasons.contains(&queue) && reasons.contains(why)
        });
        let (code, said) = system.run(&["projection", "verify", &queue, "--json"]);
        assert_eq!(code, 1, "a projector that has halted answers {said}");
        is_refused(&url).await;
        // Those who wait keep their numbers, which are said to be old.
        loop {
            let update = ann.until("QUEUE_UPDATE").await;
            assert_eq!(update["payload"]["position"], 1);
            if update["payload"]["stale"] == true {
                break;
            }
        }
        let mut again = Visitor::reconnect(&url, &bobs).await;
        again.until("JOINED").await;
        let update = again.until("QUEUE_UPDATE").await;
        assert_eq!(
            (&update["payload"]["position"], &update["payload"]["stale"]),
            (&json!(2), &json!(true))
        );
        // Started again, the projector knows by its store what it had read.
        system.kill("projector");
        halted(&system, &queue, 3);

        written += grown_and_decided_for(&system, &queue).await;
        refused += 3;
    }
    let result = format!(
        "projector and admission refuse and say so within {:.1} s, and again when started again; \
         {refused} joins meanwhile: all refused with `log_unavailable`, 0 JOINED; {written} entries of \
         the node in the new streams, from before it knew",
        worst.as_secs_f64()
    );
    row("stream deleted and created anew", repetitions, &result);
}

/// Whoever throws the projector's store away has decided for the new stream, which may be longer by
/// now than the old one was. A node that knows the old one takes nobody into it all the same. Gives how
/// many entries it wrote before it knew.
async fn grown_and_decided_for(system: &System, queue: &str) -> usize {
    let auditor = identity(system, "auditor").await;
    let made = stored(&auditor, queue).await;
    let basis = made.last().map_or(0, |entry| entry.seq);
    let fence = made.iter().find(|entry| entry.subject.contains(".admission."));
    assert!(fence.is_none(), "admission decided in another stream");
    let admission = identity(system, "admission").await;
    put_in(&admission, queue, "admission.configured", opened(basis)).await.unwrap();
    let node = identity(system, "node").await;
    for number in 0..50 {
        put_in(&node, queue, "node.joined", seated(number, 1)).await.unwrap();
    }
    std::fs::remove_dir_all(system.dir.join("projection").join(queue)).unwrap();
    system.kill("projector");
    let other = format!("the queue's log is another than before; not served on queue={queue}");
    wait_until("the node hears of another stream", || system.logs().contains(&other));
    is_refused(&system.socket(0, queue)).await;
    let entries = stored(&auditor, queue).await.len();
    assert_eq!(entries, made.len() + 51, "the node wrote on in another stream");
    made.len()
}

#[tokio::test]
async fn a_stream_that_lost_something_is_not_read_on() {
    let repetitions = times(1, 5);
    let mut worst = Duration::ZERO;
    for _ in 0..repetitions {
        holes().await;
        for (regrown, away) in [(false, false), (true, false), (true, true)] {
            worst = worst.max(older_backup(regrown, away).await);
        }
    }
    let result = format!(
        "missing entries: halted at the first one; restored from an older backup, and grown again since: \
         halted within {:.1} s; each with the reason and the sequence, and no answer from then on",
        worst.as_secs_f64()
    );
    row("stream purged, with a hole, or restored from an older backup", repetitions, &result);
}

/// Entries that an operator took out, of a stream that was made without protection.
async fn holes() {
    let world = World::new().await;
    let operator = world.raw("operator").await;
    let info = ask(&operator, "$JS.API.STREAM.INFO.ANTEROOM_demo", json!({})).await;
    ask(&operator, "$JS.API.STREAM.DELETE.ANTEROOM_demo", json!({})).await;
    let mut config = info["config"].clone();
    config["deny_delete"] = json!(false);
    config["deny_purge"] = json!(false);
    ask(&operator, "$JS.API.STREAM.CREATE.ANTEROOM_demo", config).await;
    put_joins(&world, 0, 10).await;
    let deleted =
        ask(&operator, "$JS.API.STREAM.MSG.DELETE.ANTEROOM_demo", json!({"seq": 5})).await;
    assert_eq!(deleted["success"], true, "{deleted}");
    halts(&world, 4, "entry 5 is missing; the next one there is 6").await;
    let purged = ask(&operator, "$JS.API.STREAM.PURGE.ANTEROOM_demo", json!({"seq": 4})).await;
    assert_eq!(purged["success"], true, "{purged}");
    halts(&world, 0, "entry 1 is missing; the next one there is 4").await;
}

/// A projector that begins with the first entry halts after this one.
async fn halts(world: &World, seq: u64, reason: &str) {
    let folder = Folder::new("hole");
    let mut projector = Projector::start(&world.nats, &folder.0.join("projection"), &[]);
    says_halted(&projector, seq, reason);
    assert!(projector.refuses());
}

/// The server gets a backup of its folder back that lacks what was read since, while the projector runs
/// or is away. Gives the time until the projector has halted.
async fn older_backup(regrown: bool, away: bool) -> Duration {
    let mut world = World::new().await;
    let folder = Folder::new("backup");
    let backup = folder.0.join("backup");
    put_joins(&world, 0, 10).await;
    world.nats.kill();
    copy(&world.nats.store(), &backup);
    world.nats.start();
    let dir = folder.0.join("projection");
    let mut projector = Projector::start(&world.nats, &dir, &[]);
    put_joins(&world, 10, 5).await;
    assert_eq!(projector.verify(), truth(&world.nats, &world.stored().await));
    let running = if away {
        projector.stop();
        None
    } else {
        Some(projector)
    };
    world.nats.kill();
    std::fs::remove_dir_all(world.nats.store()).unwrap();
    copy(&backup, &world.nats.store());
    world.nats.start();
    let since = Instant::now();
    if regrown {
        put_joins(&world, 100, 10).await;
    }
    let mut projector = running.unwrap_or_else(|| Projector::start(&world.nats, &dir, &[]));
    says_halted(&projector, 15, OTHER_STREAM);
    assert!(projector.refuses());
    since.elapsed()
}

fn says_halted(projector: &Projector, seq: u64, reason: &str) {
    let line = format!("halted queue=demo seq={seq} reason={reason}");
    wait_until(&line, || projector.said(&line));
}

async fn put_joins(world: &World, first: usize, count: usize) {
    let node = world.raw("node").await;
    for number in first..first + count {
        put(&node, "node.joined", &[], seated(number, 1)).await;
    }
}

/// Somebody who wants to join is told that the log can't be reached, and nothing else.
async fn is_refused(url: &str) {
    let mut visitor = Visitor::join(url, &key()).await;
    let said = visitor.next().await;
    assert_eq!(said["payload"]["code"], "log_unavailable", "{said}");
    let end = visitor.next().await;
    let end = if end["type"] == "ERROR" { visitor.next().await } else { end };
    assert_eq!(end["close"], 1013, "{end}");
}

/// Waits until so many have said that they halted at this queue.
fn halted(system: &System, queue: &str, times: usize) {
    wait_until("all have halted", || {
        let logs = system.logs();
        let of_queue = format!("halted queue={queue} seq=");
        let all: Vec<&str> = logs.lines().filter(|line| line.contains(&of_queue)).collect();
        assert!(all.iter().all(|line| line.ends_with(OTHER_STREAM)), "{all:?}");
        all.len() >= times
    });
}

/// Deletes a stream and makes it anew, with all that it was configured with.
async fn make_anew(operator: &Client, admission: &Client, queue: &str) {
    let api = |what: &str| format!("$JS.API.STREAM.{what}.ANTEROOM_{queue}");
    let info = ask(operator, &api("INFO"), json!({})).await;
    let deleted = ask(operator, &api("DELETE"), json!({})).await;
    assert_eq!(deleted["success"], true, "{deleted}");
    let made: Value = ask(admission, &api("CREATE"), info["config"].clone()).await;
    assert!(made["error"].is_null(), "{made}");
}
