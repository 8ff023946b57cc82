//! Answers of the log that get lost, come late or in another order, and entries that are stored
//! twice: still one place each, by the order of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::checker::{Entry, assert_once, read, retell};
use crate::crowd::{Crowd, Visit};
use crate::reckoning::assert_all_in_order;
use crate::road::{Fate, Frame, Road};
use crate::row::{row, times};
use crate::system::{System, get, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

/// Of the second node's writers, each with its own appends under way.
const QUEUES: [&str; 3] = ["one", "two", "three"];
/// One answer in so many is lost.
const LOST_OF: usize = 20;
const LATE_MILLIS_MAX: usize = 3_000;
/// For so long a node sends an append again as it was; then it looks for it in the log.
const SENT_AGAIN_MAX: Duration = Duration::from_secs(60);

/// What was done to a node's appends and their answers.
#[derive(Default)]
struct Injected {
    answers: usize,
    lost: usize,
    late: usize,
    /// Message ids that were sent, and how often one was sent again.
    sent: BTreeSet<String>,
    again: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_late_or_out_of_order_give_one_place_each_by_the_order_of_the_log() {
    let mut system = System::start("acks");
    let road = Road::lead(&system, "node").await;
    system.second_node();
    for queue in QUEUES {
        paused_queue(&system, queue);
    }
    let injected = Arc::new(Mutex::new(Injected::default()));
    let counts = Arc::clone(&injected);
    road.rule(move |frame| inject(&mut counts.lock().unwrap(), frame));
    let joins = times(90, 400);
    let mut visitors = Vec::new();
    for number in 0..joins {
        // One in four is on the node whose road is good.
        let node = usize::from(!number.is_multiple_of(4));
        let queue = QUEUES[number % QUEUES.len()];
        let url = system.socket(node, queue);
        visitors.push(tokio::spawn(async move { (queue, waits(&url).await) }));
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let mut told = Vec::new();
    for visitor in join_all(visitors).await {
        told.push(visitor.unwrap());
    }
    let mut places = BTreeMap::new();
    for queue in QUEUES {
        let entries = read(&system, queue).await;
        let stored = entries.iter().filter(|entry| entry.kind == "joined").flat_map(visitors_of);
        assert_once(&stored.collect::<Vec<_>>(), "a retry was stored");
        let joined = retell(&entries).joined;
        places.extend(joined.into_iter().enumerate().map(|(place, name)| (name, place)));
    }
    assert_eq!(places.len(), joins);
    for (_, waiter) in &told {
        assert_eq!(waiter.position, places[&waiter.name] as u64 + 1, "a place by arrival");
    }
    let out_of_order = QUEUES.iter().map(|queue| {
        let mut heard: Vec<&Waiter> =
            told.iter().filter(|(other, _)| other == queue).map(|(_, waiter)| waiter).collect();
        heard.sort_by_key(|waiter| waiter.told);
        heard.windows(2).filter(|two| places[&two[0].name] > places[&two[1].name]).count()
    });
    let out_of_order: usize = out_of_order.sum();
    let overtaken = road.seen(|seen| seen.overtaken());
    let injected = injected.lock().unwrap();
    assert!(injected.lost > 0 && injected.again > 0 && overtaken > 0 && out_of_order > 0);
    row(
        "acks dropped (5 %), delayed and reordered (0-3 s)",
        1,
        &format!(
            "{joins} joins, {} acks: {} dropped, {} late, {overtaken} overtaken; {} appends were sent \
             again, none is stored twice; {out_of_order} times JOINED came out of order, every place \
             is by sequence",
            injected.answers, injected.lost, injected.late, injected.again,
        ),
    );
}

fn inject(injected: &mut Injected, frame: &Frame) -> Fate {
    if frame.is_append() {
        let is_new = injected.sent.insert(message_id(frame));
        injected.again += usize::from(!is_new);
    }
    if frame.answers.is_none() {
        return Fate::Passes;
    }
    injected.answers += 1;
    if injected.answers % LOST_OF == 3 {
        injected.lost += 1;
        return Fate::IsLost;
    }
    injected.late += 1;
    // Spread without a pattern, and the same in every run.
    let late = injected.answers * 7_919 % LATE_MILLIS_MAX;
    Fate::IsLate(Duration::from_millis(late as u64))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_the_server_has_forgotten_the_first_is_two_entries_and_one_place() {
    let system = System::start("forgotten");
    let road = Road::lead(&system, "node").await;
    system.kill("node");
    wait_until("the node is back", || get(&format!("{}/readyz", system.node(0))).0 == 200);
    paused_queue(&system, "brief");
    forget_soon(&system, "brief", Duration::from_secs(1)).await;
    // The first answer about each entry is lost; by the second attempt the server has forgotten it.
    let mut answers = 0;
    road.rule(move |frame| {
        answers += usize::from(frame.answers.is_some());
        if frame.answers.is_some() && answers % 2 == 1 { Fate::IsLost } else { Fate::Passes }
    });
    let joins = times(12, 60);
    let mut visitors = Vec::new();
    for _ in 0..joins {
        let url = system.socket(0, "brief");
        visitors.push(tokio::spawn(async move { waits(&url).await }));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut told = Vec::new();
    for visitor in join_all(visitors).await {
        told.push(visitor.unwrap());
    }
    let entries = read(&system, "brief").await;
    let stored: Vec<String> =
        entries.iter().filter(|entry| entry.kind == "joined").flat_map(visitors_of).collect();
    assert_eq!(stored.len(), 2 * joins, "each join is stored twice");
    assert_places(&entries, &told);
    let audit = system.run_json(&["audit", "verify", "brief"]);
    assert_eq!((&audit["ok"], &audit["visitors"]), (&json!(true), &json!(joins)), "{audit}");
    assert_eq!(audit["waiting"], joins);
    row(
        "a retry after the dedup window (of 1 s)",
        1,
        &format!("{joins} joins are {} facts in the log, and {joins} places", stored.len()),
    );
    // In full: the node does not hear for longer than it sends again. It looks into the log.
    for _ in 0..times(0, 1) {
        system.queue("long", &json!({}));
        road.rule(|frame| if frame.answers.is_some() { Fate::IsLost } else { Fate::Passes });
        let mut visitor = Visitor::join(&system.socket(0, "long"), &key()).await;
        let asked = Instant::now();
        assert_eq!(visitor.until("ERROR").await["payload"]["code"], "log_unavailable");
        tokio::time::sleep(SENT_AGAIN_MAX - Duration::from_secs(5)).await;
        visitor.until("JOINED").await;
        let took = asked.elapsed();
        assert!(took > SENT_AGAIN_MAX, "an answer came through after {took:?}");
        let entries = read(&system, "long").await;
        assert_eq!(entries.iter().filter(|entry| entry.kind == "joined").count(), 1);
        row(
            "an append that is never answered",
            1,
            &format!("found in the log and told after {} s, stored once", took.as_secs()),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_stored_and_delivered_twice_changes_nothing() {
    let mut system = System::start("doubled");
    let doubled = Arc::new(Mutex::new(Doubled::default()));
    for role in ["node", "admission", "projector"] {
        let counts = Arc::clone(&doubled);
        Road::lead(&system, role)
            .await
            .rule(move |frame| double(&mut counts.lock().unwrap(), frame));
        system.kill(role);
    }
    system.second_node();
    wait_until("the node is back", || get(&format!("{}/readyz", system.node(0))).0 == 200);
    wait_until("there is a worker", || {
        system.operate("GET", "/admin/queues", &json!(null)).0 == 200
    });
    paused_queue(&system, "line");
    let mut told = Vec::new();
    for number in 0..times(10, 50) {
        // Some come back on the other node; they have the same number there.
        let waiter = waits(&system.socket(number, "line")).await;
        if number.is_multiple_of(2) {
            let mut visitor =
                Visitor::reconnect(&system.socket(number + 1, "line"), &waiter.id).await;
            let now = visitor.until("QUEUE_UPDATE").await["payload"].take();
            assert_eq!(now["position"], waiter.position, "another place after {number}");
        }
        told.push(waiter);
    }
    assert_places(&read(&system, "line").await, &told);

    // And let in, each once, in that order.
    system.queue("gate", &json!({"rate_per_minute": 1200, "token_seconds": 600}));
    let crowd = Crowd::gather(&system, "gate", 10, Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(times(3, 20) as u64)).await;
    let mut visits = crowd.leave().await;
    let entries = assert_all_in_order(&system, "gate", &visits).await;

    // No worker can store a decision twice; the operator of the log can, and it counts nowhere.
    let decisions = decisions(&entries);
    assert_eq!(
        BTreeSet::from_iter(&decisions).len(),
        decisions.len(),
        "a decision is stored twice"
    );
    for (kind, body) in &decisions {
        store(&system, &format!("anteroom.log.gate.admission.{kind}"), body).await;
    }
    let crowd = Crowd::gather(&system, "gate", 10, Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(1)).await;
    visits.extend(crowd.leave().await);
    let entered = visits.iter().filter(|visit: &&Visit| visit.entered).count();
    let audit = system.run_json(&["audit", "verify", "gate"]);
    assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");
    assert_eq!(audit["void"].as_array().unwrap().len(), decisions.len());
    for what in ["visitors", "admitted", "redeemed"] {
        assert_eq!(audit[what], entered, "{what}");
    }
    let Doubled { stored, decided, delivered } = *doubled.lock().unwrap();
    assert!(stored > 0 && decided > 0 && delivered > 0);
    let twice = BTreeSet::from_iter(node_entries(&entries)).len();
    assert_eq!(node_entries(&entries).count(), 2 * twice, "each entry of a node is there twice");
    row(
        "every entry stored twice, and delivered twice",
        1,
        &format!(
            "{stored} entries of nodes stored once more, {} decisions by hand, {delivered} deliveries \
             to the projector repeated; {decided} decisions sent twice, each stored once; {} waited at \
             their place, {entered} were let in and entered once",
            decisions.len(),
            told.len(),
        ),
    );
}

/// What was done twice.
#[derive(Clone, Copy, Default)]
struct Doubled {
    stored: usize,
    decided: usize,
    delivered: usize,
}

/// Appends of nodes are sent once more under another message id, those of admission as they are; what
/// the projector hears of the log it hears twice.
fn double(doubled: &mut Doubled, frame: &Frame) -> Fate {
    if frame.is_append() {
        if frame.subject.contains(".node.") {
            doubled.stored += 1;
            let id = message_id(frame);
            // As long as before, and no hexadecimal digit: nobody's id.
            return Fate::IsFollowed(frame.without_reply(&id, &format!("x{}", &id[1..])));
        }
        doubled.decided += 1;
        return Fate::IsFollowed(frame.without_reply("", ""));
    }
    if frame.subject.starts_with("anteroom.stored.") {
        doubled.delivered += 1;
        return Fate::IsFollowed(frame.bytes.clone());
    }
    Fate::Passes
}

/// A visitor in line, and the first number that they were told.
struct Waiter {
    id: String,
    name: String,
    position: u64,
    told: Instant,
}

/// Joins, however long it takes.
async fn waits(url: &str) -> Waiter {
    let mut visitor = Visitor::join(url, &key()).await;
    let joined = visitor.until("JOINED").await;
    let told = Instant::now();
    let position = visitor.until("QUEUE_UPDATE").await["payload"]["position"].as_u64().unwrap();
    let id = connection_id(&joined);
    Waiter { name: name(&id), id, position, told }
}

/// Everyone was told the place of their first join in the log, and there is nobody else.
fn assert_places(entries: &[Entry], told: &[Waiter]) {
    let joined = retell(entries).joined;
    assert_eq!(joined.len(), told.len());
    for waiter in told {
        let place = joined.iter().position(|name| *name == waiter.name).unwrap();
        assert_eq!(waiter.position, place as u64 + 1, "the place of {}", waiter.name);
    }
}

fn visitors_of(entry: &Entry) -> Vec<String> {
    let facts = entry.body["facts"].as_array().unwrap();
    facts.iter().map(|fact| fact["visitor"].as_str().unwrap().to_owned()).collect()
}

/// Entries of nodes, as they were written.
fn node_entries(entries: &[Entry]) -> impl Iterator<Item = (&str, String)> {
    let nodes = ["joined", "reconnected", "disconnected", "left"];
    let entries = entries.iter().filter(move |entry| nodes.contains(&entry.kind.as_str()));
    entries.map(|entry| (entry.kind.as_str(), entry.body.to_string()))
}

fn decisions(entries: &[Entry]) -> Vec<(String, String)> {
    let decided = entries.iter().filter(|entry| !entry.body["prev"].is_null());
    decided.map(|entry| (entry.kind.clone(), entry.body.to_string())).collect()
}

/// A queue in which nobody is let in, so that places stay as they are.
pub fn paused_queue(system: &System, name: &str) {
    system.queue(name, &json!({}));
    assert_eq!(system.operate("POST", &format!("/admin/queues/{name}/pause"), &json!({})).0, 200);
}

/// Changes the stream of a queue into one whose server soon forgets message ids.
async fn forget_soon(system: &System, queue: &str, after: Duration) {
    let info = format!("$JS.API.STREAM.INFO.ANTEROOM_{queue}");
    let mut config = ask_log(system, &info, String::new()).await["config"].take();
    config["duplicate_window"] = json!(after.as_secs() * 1_000_000_000);
    let update = format!("$JS.API.STREAM.UPDATE.ANTEROOM_{queue}");
    let updated = ask_log(system, &update, config.to_string()).await;
    assert!(updated["error"].is_null(), "{updated}");
}

/// Stores an entry as nobody but the operator of the log can.
async fn store(system: &System, subject: &str, body: &str) {
    let ack = ask_log(system, subject, body.to_owned()).await;
    assert!(ack["seq"].is_u64(), "{ack}");
}

async fn ask_log(system: &System, subject: &str, body: String) -> Value {
    let file = system.dir.join("run/nats-operator.url");
    let url: async_nats::ServerAddr =
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let options = async_nats::ConnectOptions::new()
        .user_and_password(url.username().unwrap().to_owned(), url.password().unwrap().to_owned());
    let client = options.connect(url).await.unwrap();
    let reply = client.request(subject.to_owned(), body.into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

fn message_id(frame: &Frame) -> String {
    let text = frame.text();
    let (_, id) = text.split_once("Nats-Msg-Id: ").unwrap();
    id.split("\r\n").next().unwrap().to_owned()
}
