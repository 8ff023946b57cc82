//! Wall clocks that are an hour off (libfaketime): nothing about people is decided by one.

use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::away::facts;
use crate::by_hand::in_order;
use crate::checker::{Entry, read};
use crate::crowd::Crowd;
use crate::faketime;
use crate::reckoning::{assert_all_in_order, assert_rate};
use crate::road::{Fate, Frame, Road};
use crate::row::{row, times};
use crate::system::{System, call, get, post, signal, wait_until};
use crate::two::{CALM, PAUSE_MAX, Worker, admitted_at, pauses, until_decides, worst};
use crate::visitor::{Visitor, connection_id, key, name};

/// How far off the clocks are.
const HOUR: i64 = 3_600;
/// A clock that is meant to be an hour off is so to within this.
const TOLD_APART: i64 = 60;
/// What a backend that verifies a token must bear with, as README.md states it.
const SKEW_SECONDS: i64 = 30;
/// As long as an absent visitor has their place, where the log's clock jumps.
const GRACE_SECONDS: u32 = 60;
/// How much later than admission a node hears what time it is.
const LATE: Duration = Duration::from_secs(2);
/// As long as a token is good.
const TOKEN_SECONDS: i64 = 600;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_and_a_worker_whose_clocks_are_an_hour_off_change_nothing() {
    const RATE: usize = 240;
    let mut system = System::start("clocks");
    set_clock(&mut system, HOUR);
    system.second_node();
    system.second_admission();
    let policy = json!({"rate_per_minute": RATE, "token_seconds": TOKEN_SECONDS});
    system.queue("storm", &policy);
    system.queue("door", &json!({"rate_per_minute": 6000, "token_seconds": TOKEN_SECONDS}));
    let crowd = Crowd::gather(&system, "storm", 30, Duration::ZERO);
    let (mut checked, mut takeovers, repetitions) = (Vec::new(), 0, times(2, 10));
    for repetition in 0..repetitions {
        let off = if repetition.is_multiple_of(2) { HOUR } else { -HOUR };
        for told in [system.node(1), system.operator(1)] {
            let apart = wall_clock(&told).duration_since(wall_clock(&system.node(0))).as_secs();
            assert!((apart - off).abs() <= TOLD_APART, "{told} is {apart} s off, not {off}");
        }
        takeovers += until_decides(&system, Worker::Second).await;
        tokio::time::sleep(CALM).await;
        checked.push(let_in(&system).await);
        takeovers += until_decides(&system, Worker::First).await;
        tokio::time::sleep(CALM).await;
        checked.push(let_in(&system).await);
        if repetition + 1 < repetitions {
            set_clock(&mut system, -off);
            for role in ["node", "admission"] {
                signal(system.pid_beside(role), Signal::KILL);
                system.ended_beside(role);
            }
            system.second_node();
            system.second_admission();
        }
    }
    let visits = crowd.leave().await;
    let entries = assert_all_in_order(&system, "storm", &visits).await;
    assert_rate(&entries, RATE);
    let longest = worst(&pauses(&admitted_at(&entries)));
    assert!(longest <= PAUSE_MAX, "nobody was let in for {longest:?}");
    let door = read(&system, "door").await;
    for (visitor, claims) in &checked {
        assert_in_time(&door, visitor, claims);
    }
    in_order(&system, "door");
    let all = entries.iter().chain(&door);
    let outages = all.filter(|entry| entry.body.to_string().contains(r#""outage""#));
    assert_eq!(outages.count(), 0, "an outage that was none is written");
    row(
        "wall clock of a worker and a node an hour ahead and behind in turn (libfaketime)",
        repetitions,
        &format!(
            "{} let in and entered once, in order, rate of {RATE} kept; {takeovers} times one went on for another with a true or \
             a false clock, longest pause {:.2} s; {} tokens with iat, nbf and exp by the log's time \
             (to {SKEW_SECONDS} s), redeemed at the node with the false clock, and their passes taken \
             by both",
            visits.len(),
            longest.as_secs_f64(),
            checked.len(),
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_times_jump_by_an_hour_costs_nobody_their_grace_or_their_grant() {
    let repetitions = times(1, 5);
    for _ in 0..repetitions {
        jumps_and_comes_back().await;
    }
    row(
        "the log's times an hour ahead, and back (changed on the way to every role)",
        repetitions,
        "the time goes on as if nothing were: it is said in the log at once, both ways; an absent visitor \
         had their place again, a grant was redeemed, nobody's time was over, no outage is written, every \
         role is ready",
    );
}

/// The times are changed on the way, alike for all roles, while the server goes on by the true ones: each
/// role folds the same shift, and an audit, which reads the stream itself, none.
async fn jumps_and_comes_back() {
    let system = System::start("log-clock");
    let mut roads = Vec::new();
    for role in ["projector", "admission", "node"] {
        roads.push(Road::lead(&system, role).await);
        system.kill(role);
    }
    let reasons = || get(&format!("{}/readyz", system.operator(0))).1["reasons"].to_string();
    wait_until("there is a worker", || reasons() == "[]");
    wait_until("there is a node", || get(&format!("{}/readyz", system.node(0))).0 == 200);
    system.queue("line", &json!({"rate_per_minute": 60, "reconnect_seconds": GRACE_SECONDS}));
    let mut granted = Visitor::join(&system.socket(0, "line"), &key()).await;
    let token = granted.until("ADMITTED").await["payload"]["token"].take();
    assert_eq!(system.operate("POST", "/admin/queues/line/pause", &json!({})).0, 200);
    let mut absent = Visitor::join(&system.socket(0, "line"), &key()).await;
    let id = connection_id(&absent.until("JOINED").await);
    drop((granted, absent));
    until_gone(&system, 2).await;
    let from = Timestamp::now();
    roads.iter().for_each(|road| road.rule(move |frame| ahead(frame, from..Timestamp::MAX)));
    // The node hears of it last: what it asks meanwhile is asked with the time that it knew.
    roads[2].rule(move |frame| {
        let is_feed = frame.subject.starts_with("anteroom.feed.");
        if is_feed { Fate::IsLate(LATE) } else { ahead(frame, from..Timestamp::MAX) }
    });
    let told = times_told(&system, 0).await;
    assert_eq!(reasons(), "[]");
    let redeem = format!("{}/api/tokens/redeem", system.node(0));
    let (status, answer) = post(&redeem, &json!({ "token": token }));
    assert_eq!(status, 200, "{answer}");
    let mut back = Visitor::reconnect(&system.socket(0, "line"), &id).await;
    assert_eq!(back.until("QUEUE_UPDATE").await["payload"]["position"], 1);
    drop(back);
    // Back to where it was: behind what stands in the log by then, which stays as it was stored.
    let to = Timestamp::now();
    roads.iter().for_each(|road| road.rule(move |frame| ahead(frame, from..to)));
    times_told(&system, told).await;
    tokio::time::sleep(CALM).await;
    assert_eq!(reasons(), "[]");
    let entries = read(&system, "line").await;
    let ended = ["expired", "released"];
    let ended = entries.iter().filter(|entry| ended.contains(&entry.kind.as_str()));
    assert_eq!(ended.count(), 0, "somebody's time was taken to be over");
    let outages = entries.iter().filter(|entry| entry.body.to_string().contains(r#""outage""#));
    assert_eq!(outages.count(), 0, "an outage that was none is written");
    let audit = system.run_json(&["audit", "verify", "line"]);
    assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");
}

/// Waits until so many visitors have gone away, by the log.
async fn until_gone(system: &System, count: usize) {
    while facts(&read(system, "line").await, "disconnected") < count {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until the time was said once more than so often, for no other reason; how often it was.
async fn times_told(system: &System, before: usize) -> usize {
    let began = std::time::Instant::now();
    loop {
        let entries = read(system, "line").await;
        let is_time = |entry: &&Entry| entry.body["facts"][0]["time"].is_object();
        let told = entries.iter().filter(is_time).count();
        if told > before {
            return told;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "the time is not said");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The same frame from the log, with each time that the server stated within this stretch an hour
/// later.
fn ahead(frame: &Frame, within: Range<Timestamp>) -> Fate {
    if frame.is_to_log {
        return Fate::Passes;
    }
    let mut bytes = frame.bytes.clone();
    for stated in [r#""ts":""#, r#""time":""#, "Nats-Time-Stamp: "] {
        for (at, _) in frame.text().match_indices(stated) {
            let begin = at + stated.len();
            let end = begin + frame.text()[begin..].find('Z').unwrap() + 1;
            let time: Timestamp = frame.text()[begin..end].parse().unwrap();
            if within.contains(&time) {
                // To the hour, which has as many characters.
                let later = (time + jiff::SignedDuration::from_secs(HOUR)).to_string();
                let hour = "2026-11-25T20".len();
                bytes[begin..begin + hour].copy_from_slice(&later.as_bytes()[..hour]);
            }
        }
    }
    Fate::Becomes(bytes)
}

/// Sets the wall clock of what is started beside `up` from now on, and no other clock.
fn set_clock(system: &mut System, seconds: i64) {
    system.environment = faketime::environment(seconds);
}

/// The wall clock of a process, as its HTTP says.
fn wall_clock(address: &str) -> Timestamp {
    let (_, answer) = get(&format!("{address}/readyz"));
    let date = answer["header date"].as_str().unwrap();
    jiff::fmt::rfc2822::parse(date).unwrap().timestamp()
}

/// Somebody is let in at the node with the false clock and enters there: who, and the claims of the
/// token. The pass is good at both nodes.
async fn let_in(system: &System) -> (String, Value) {
    let mut visitor = Visitor::join(&system.socket(1, "door"), &key()).await;
    let id = connection_id(&visitor.until("JOINED").await);
    let admitted = visitor.until("ADMITTED").await;
    let token = admitted["payload"]["token"].as_str().unwrap();
    let redeem = format!("{}/api/tokens/redeem", system.node(1));
    let (status, answer) = post(&redeem, &json!({ "token": token }));
    assert_eq!(status, 200, "{answer}");
    let pass = answer["pass"].as_str().unwrap();
    for node in 0..2 {
        let authorize = format!("{}/api/authorize?queue=door", system.node(node));
        let (status, answer) = call("GET", &authorize, &[("X-Waiting-Token", pass)], &Value::Null);
        assert_eq!(status, 200, "{answer}");
    }
    (name(&id), claims(token))
}

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// A token is good from its grant on, by the times of the log.
fn assert_in_time(entries: &[Entry], visitor: &str, claims: &Value) {
    let is_of = |fact: &Value| fact["visitor"] == visitor;
    let mut admitted = entries.iter().filter(|entry| entry.kind == "admitted");
    let grant = admitted.find(|entry| entry.body["facts"].as_array().unwrap().iter().any(is_of));
    let at: Timestamp = grant.unwrap().time.parse().unwrap();
    for (claim, due) in [("iat", 0), ("nbf", 0), ("exp", TOKEN_SECONDS)] {
        let apart = claims[claim].as_i64().unwrap() - (at.as_second() + due);
        assert!(apart.abs() <= SKEW_SECONDS, "{claim} is {apart} s off: {claims}, granted {at}");
    }
}
