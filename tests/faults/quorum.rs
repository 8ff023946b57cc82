//! Three log servers of which too few are left: what is said then is believed only of a leader, nothing that
//! was asked for is lost, and everything goes on by itself when the others are back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anteroom::log::connection::Log;
use anteroom::log::stream::StreamError;
use anteroom::log::subjects::QueueId;
use anteroom::queue::event::Level;
use rustix::process::Signal;
use serde_json::json;

use crate::by_hand::in_order;
use crate::checker::{read, retell};
use crate::cluster::Cluster;
use crate::row::{row, times};
use crate::system::{System, get, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};
use crate::wires::{Wires, is_in_its_own_network};

const QUEUE: &str = "line";
/// After this, everything serves again.
const BACK_MAX: Duration = Duration::from_secs(15);
/// A member speaks for itself after 10 s without a leader, and a log that is short for 10 s more is another.
const LEADERLESS: Duration = Duration::from_secs(26);
const FOLLOWERS_AWAY: Duration = Duration::from_secs(4);
const JOINING: usize = 20;
/// Before a cut so many come all the time, for so long.
const AT_ONCE: usize = 4;
const JOINING_FOR: Duration = Duration::from_millis(500);
/// A decision is sent, not answered, and sent again more than once.
const UNDER_WAY: Duration = Duration::from_secs(9);

fn start(cluster: &Cluster, name: &str, servers: &[usize]) -> System {
    let system = System::start_at(name, 3, |role| cluster.urls(role, servers));
    system.queue(QUEUE, &json!({"rate_per_minute": 6_000}));
    system
}

/// A member without a leader tells how long the log is by what it has itself, which may be an entry less
/// than a projector there has heard of the leader before they were cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_projector_in_a_minority_closes_no_queue() {
    if !is_in_its_own_network("quorum::a_projector_in_a_minority_closes_no_queue") {
        return;
    }
    let cluster = Cluster::start_on(Wires::lay()).await;
    let system = System::start_at("minority", 3, |role| {
        cluster.url(role, if role == "projector" { 2 } else { 0 })
    });
    system.queue(QUEUE, &json!({"rate_per_minute": 6_000}));
    cluster.move_leader(QUEUE, 0).await;
    let log = Log::connect(&cluster.url("projector", 2), "a test", Level::NEWEST).await.unwrap();
    let url = system.socket(1, QUEUE);
    assert_eq!(system.operate("POST", &format!("/admin/queues/{QUEUE}/pause"), &json!({})).0, 200);
    let mut waiting = Vec::new();
    let mut worst = Duration::ZERO;
    let partitions = times(1, 10);
    for _ in 0..partitions {
        let stop = Arc::new(AtomicBool::new(false));
        let joining: Vec<_> =
            (0..AT_ONCE).map(|_| tokio::spawn(join(url.clone(), Arc::clone(&stop)))).collect();
        tokio::time::sleep(JOINING_FOR).await;
        // The member has stored the last entry, perhaps, and has not heard that it counts.
        cluster.wires().cut_off(2);
        stop.store(true, Ordering::SeqCst);
        for visitors in joining {
            waiting.extend(visitors.await.unwrap());
        }
        tokio::time::sleep(LEADERLESS).await;
        assert!(!system.logs().contains("halted"), "a reader has stopped:\n{}", system.logs());
        let (status, said) = get(&format!("{}/readyz", system.node(1)));
        assert_eq!(status, 503, "what nobody tells any news of is said to be fresh: {said}");
        let told = log.stream_info(&QueueId::parse(QUEUE).unwrap()).await;
        let is_away = matches!(&told, Err(StreamError::Away(_)));
        assert!(is_away, "a member without a leader is believed: {told:?}");
        cluster.wires().mend(2);
        let began = Instant::now();
        let ready = || get(&format!("{}/readyz", system.node(1))).0 == 200;
        wait_until("the node is ready again", ready);
        let new = arrives(&url).await;
        worst = worst.max(began.elapsed());
        waiting.push(new);
    }
    assert!(worst < BACK_MAX, "it took {worst:?}");
    assert_eq!(system.operate("POST", &format!("/admin/queues/{QUEUE}/open"), &json!({})).0, 200);
    let people = waiting.len();
    for (visitor, id) in waiting {
        is_let_in(&url, visitor, &id).await;
    }
    in_order(&system, QUEUE);
    let said = format!(
        "{people} people, all let in once; cut off for {} s each; no reader stopped; served again {:.1} s after, at most",
        LEADERLESS.as_secs(),
        worst.as_secs_f64()
    );
    row("a projector and a member cut off from the leader", partitions, &said);
}

/// Visitors who come one after another and stay.
async fn join(url: String, stop: Arc<AtomicBool>) -> Vec<(Visitor, String)> {
    let mut visitors = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let mut visitor = Visitor::join(&url, &key()).await;
        let id = connection_id(&visitor.until("JOINED").await);
        visitors.push((visitor, id));
    }
    visitors
}

/// One who comes and tries until they stand in line, as the page does.
async fn arrives(url: &str) -> (Visitor, String) {
    let key = key();
    loop {
        let mut visitor = Visitor::join(url, &key).await;
        let mut id = String::new();
        loop {
            let said = visitor.next().await;
            if said["type"] == "JOINED" {
                id = connection_id(&said);
            } else if said["type"] == "QUEUE_UPDATE" {
                return (visitor, id);
            } else if let Some(code) = said["close"].as_u64() {
                assert_eq!(code, 1013, "{said}");
                break;
            }
        }
    }
}

/// Whoever had just joined when the news stopped is told to try later, and does.
async fn is_let_in(url: &str, mut visitor: Visitor, id: &str) {
    loop {
        let said = visitor.next().await;
        if said["type"] == "ADMITTED" {
            return;
        }
        if said["close"] == 1013 {
            visitor = Visitor::reconnect(url, id).await;
        } else {
            assert!(said.get("close").is_none(), "{said}");
        }
    }
}

/// The followers are away for longer than an append is waited for: the same message is sent again while the
/// first is still being stored.
#[tokio::test(flavor = "multi_thread")]
async fn joins_that_wait_for_followers_are_refused_to_nobody() {
    let cluster = Cluster::start_plain().await;
    let system = start(&cluster, "followers", &[0]);
    cluster.move_leader(QUEUE, 0).await;
    assert_eq!(system.operate("POST", &format!("/admin/queues/{QUEUE}/pause"), &json!({})).0, 200);
    let url = system.socket(1, QUEUE);
    Visitor::join(&url, &key()).await.until("JOINED").await;
    cluster.signal(1, Signal::STOP);
    cluster.signal(2, Signal::STOP);
    let joining = (0..JOINING).map(|_| {
        let url = url.clone();
        tokio::spawn(async move {
            let mut visitor = Visitor::join(&url, &key()).await;
            let id = connection_id(&visitor.until("JOINED").await);
            visitor.until("QUEUE_UPDATE").await;
            (visitor, name(&id))
        })
    });
    let joining: Vec<_> = joining.collect();
    tokio::time::sleep(FOLLOWERS_AWAY).await;
    cluster.signal(1, Signal::CONT);
    cluster.signal(2, Signal::CONT);
    let mut seated = Vec::new();
    for visitor in joining {
        seated.push(visitor.await.expect("nobody is sent away"));
    }
    let story = retell(&read(&system, QUEUE).await);
    for (_, name) in &seated {
        assert_eq!(story.joined.iter().filter(|other| *other == name).count(), 1, "{name}");
    }
    assert_eq!(story.joined.len(), JOINING + 1, "somebody is in line whom nobody knows");
    in_order(&system, QUEUE);
    let said = format!(
        "{JOINING} joins while both followers were away {FOLLOWERS_AWAY:?}: all in line once"
    );
    row("an append that is under way when it is sent again", 1, &said);
}

/// A decision was under way when the followers and then the leader died: it may have come to nothing, and the
/// log said only that something was under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_died_with_its_leader_is_made_again() {
    let mut cluster = Cluster::start_plain().await;
    let system = start(&cluster, "decision", &[0, 1, 2]);
    let rate = json!({"rate_per_minute": 20});
    assert_eq!(system.operate("PUT", &format!("/admin/queues/{QUEUE}"), &rate).0, 200);
    cluster.move_leader(QUEUE, 0).await;
    let url = system.socket(1, QUEUE);
    let mut visitors = Vec::new();
    for _ in 0..6 {
        visitors.push(Visitor::join(&url, &key()).await);
    }
    visitors[0].until("ADMITTED").await;
    cluster.kill(1);
    cluster.kill(2);
    // The next one's turn comes, and waits in the leader for followers.
    tokio::time::sleep(UNDER_WAY).await;
    // Heartbeats still flow; what nobody can confirm is not fresh.
    wait_until("the node says that its numbers are old", || {
        let (status, said) = get(&format!("{}/readyz", system.node(1)));
        status == 503 && said["queues"][QUEUE] != "ready"
    });
    cluster.kill(0);
    cluster.start_again(1);
    cluster.start_again(2);
    let began = Instant::now();
    let pause = format!("/admin/queues/{QUEUE}/pause");
    wait_until("an operator is obeyed", || system.operate("POST", &pause, &json!({})).0 == 200);
    let obeyed = began.elapsed();
    let open = format!("/admin/queues/{QUEUE}/open");
    assert_eq!(system.operate("POST", &open, &json!({})).0, 200);
    visitors[1].until("ADMITTED").await;
    let back = began.elapsed();
    assert!(back < BACK_MAX, "obeyed after {obeyed:?}, let in after {back:?}");
    for visitor in &mut visitors[2..] {
        visitor.until("ADMITTED").await;
    }
    in_order(&system, QUEUE);
    let said = format!(
        "obeyed {:.1} s and let in {:.1} s after the servers were started",
        obeyed.as_secs_f64(),
        back.as_secs_f64()
    );
    row("both followers and then the leader die under a decision", 1, &said);
}
