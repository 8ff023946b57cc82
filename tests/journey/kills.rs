//! Every process is killed at once (kill -9) in the middle of traffic: nothing that was acknowledged
//! is lost, nobody is let in twice, the order is kept, and the same log gives the same digest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::checker::{assert_once, read, retell};
use crate::system::{System, post};
use crate::visitor::{Visitor, connection_id, key, name};

/// Visitors in each round of killing.
const VISITORS: usize = 60;
/// All of a round are let in within this, whatever was killed.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// Longer than a node's pause before it says that a socket is gone, and a heartbeat.
const AT_REST: Duration = Duration::from_secs(5);

/// What the visitors of a round have done so far.
#[derive(Default)]
struct Progress {
    joining: AtomicUsize,
    joined: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_no_place_is_lost_and_nobody_is_let_in_twice() {
    let mut system = System::start("kills");
    system.second_node();
    system.queue("storm", &json!({"rate_per_minute": 1800, "token_seconds": 600}));
    let mut told = Vec::new();
    for victim in ["node", "projector", "admission", "nats-server", "up"] {
        let progress = Arc::new(Progress::default());
        let urls = [system.socket(0, "storm"), system.socket(1, "storm")];
        let visitors: Vec<_> = (0..VISITORS)
            .map(|number| {
                let urls = [urls[number % 2].clone(), urls[(number + 1) % 2].clone()];
                let delay = Duration::from_millis(10 * number as u64);
                tokio::spawn(determined(urls, delay, Arc::clone(&progress)))
            })
            .collect();
        // In the middle: some have their place, and some have asked and were not answered yet.
        let mut unanswered = 0;
        for _ in 0..100_000 {
            let joined = progress.joined.load(Ordering::SeqCst);
            unanswered = progress.joining.load(Ordering::SeqCst);
            if joined >= VISITORS / 3 && unanswered > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        if victim == "up" {
            system.kill_up();
            system.up();
        } else {
            system.kill(victim);
        }
        let round = tokio::time::timeout(ROUND_MAX, async {
            for visitor in visitors {
                told.push(visitor.await.unwrap());
            }
        });
        round.await.unwrap_or_else(|_| panic!("after the kill of {victim} not all got in"));
        println!("{victim}: killed with {unanswered} joins unanswered; all {VISITORS} got in");
        assert!(unanswered > 0, "{victim} was killed when nothing was under way");
    }

    let story = retell(&read(&system, "storm").await);
    for (visitor, _) in &told {
        assert!(story.joined.contains(visitor), "the acknowledged join of {visitor} is lost");
        assert!(story.admitted.contains(visitor), "{visitor} was told so but never let in");
    }
    assert_once(&story.joined, "a place was given");
    assert_once(&story.admitted, "a visitor was let in");
    assert_eq!(story.overtaken, Vec::<String>::new());
    let audit = system.run_json(&["audit", "verify", "storm"]);
    assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");

    // Everyone goes in, so that nothing more happens by itself; each token is good once, whichever
    // process was killed since.
    for (_, token) in &told {
        let redeem = format!("{}/api/tokens/redeem", system.node(1));
        let (status, answer) = post(&redeem, &json!({ "token": token }));
        assert_eq!(status, 200, "{answer}");
    }
    assert_once(&retell(&read(&system, "storm").await).redeemed, "a grant was used");

    // The projection's folder is deleted while everything is stopped: the same digest again.
    let before = at_rest(&system);
    system.stop();
    std::fs::remove_dir_all(system.dir.join("projection")).unwrap();
    system.up();
    let after = fingerprints(&system);
    assert_eq!(after, before);
    let audit = system.run_json(&["audit", "verify", "storm"]);
    assert_eq!((&audit["digest"], &audit["chain"]), (&after["digest"], &after["chain"]));
    println!("rebuilt from nothing: the same digest {} at {}", after["digest"], after["sequence"]);
}

/// What the projector says once the log has stopped growing: late facts about sockets that are gone
/// come within seconds.
fn at_rest(system: &System) -> Value {
    let mut said = fingerprints(system);
    let mut since = Instant::now();
    crate::system::wait_until("the log is at rest", || {
        let now = fingerprints(system);
        if now != said {
            since = Instant::now();
            said = now;
        }
        since.elapsed() > AT_REST
    });
    said
}

/// What the projector says of the queue, as soon as one answers.
fn fingerprints(system: &System) -> Value {
    let mut said = Value::Null;
    crate::system::wait_until("a projector answers", || {
        let (code, text) = system.run(&["projection", "verify", "storm", "--json"]);
        said = serde_json::from_str(&text).unwrap_or_default();
        code == 0
    });
    said
}

/// A visitor who comes back until they are let in, as a browser does: with the connection id as
/// soon as they have one, with the same join key before. Gives their public name and the token.
async fn determined(
    urls: [String; 2],
    delay: Duration,
    progress: Arc<Progress>,
) -> (String, String) {
    tokio::time::sleep(delay).await;
    let key = key();
    let mut id: Option<String> = None;
    for attempt in 0.. {
        let Some(mut visitor) = Visitor::connect(&urls[attempt % 2]).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let joining = id.is_none();
        match &id {
            Some(id) => visitor.say(&json!({"type": "RECONNECT", "connectionId": id})).await,
            None => visitor.say(&json!({"type": "JOIN", "joinKey": key})).await,
        }
        progress.joining.fetch_add(usize::from(joining), Ordering::SeqCst);
        let mut waits = joining;
        loop {
            let message = visitor.next().await;
            if waits && message["type"] != "QUEUE_UPDATE" {
                progress.joining.fetch_sub(1, Ordering::SeqCst);
                waits = false;
            }
            match message["type"].as_str() {
                Some("JOINED") => {
                    progress.joined.fetch_add(usize::from(joining), Ordering::SeqCst);
                    let given = connection_id(&message);
                    assert!(id.as_ref().is_none_or(|id| *id == given), "another place");
                    id = Some(given);
                }
                Some("ADMITTED") => {
                    let token = message["payload"]["token"].as_str().unwrap().to_owned();
                    return (name(&id.unwrap()), token);
                }
                Some("ENDED") => panic!("{message}"),
                Some("ERROR") => {
                    let code = &message["payload"]["code"];
                    assert_ne!(code, "unknown_connection", "an acknowledged place is not known");
                }
                Some(_) => {}
                None => break,
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    unreachable!("it tries for ever")
}
