//! The policy while it is in force: times, the length of the line, the absent, closing and deleting.

use std::time::Duration;

use serde_json::{Value, json};

use crate::checker::{Entry, read};
use crate::system::{System, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

/// The instant so many seconds from now. Log and test are on one machine.
fn seconds_from_now(seconds: u64) -> String {
    let instant = std::time::SystemTime::now() + Duration::from_secs(seconds);
    let since = instant.duration_since(std::time::UNIX_EPOCH).unwrap();
    jiff::Timestamp::from_second(i64::try_from(since.as_secs()).unwrap()).unwrap().to_string()
}

/// The states that were set, and by whom, in order.
fn states(entries: &[Entry]) -> Vec<(String, String)> {
    let facts = entries.iter().flat_map(|entry| entry.body["facts"].as_array().cloned());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    facts.flatten().filter_map(|fact| text(&fact["state"]).zip(text(&fact["by"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_opens_and_closes_by_itself_and_early_arrivals_keep_their_order() {
    let system = System::start("times");
    let (opens, closes) = (seconds_from_now(5), seconds_from_now(9));
    let (code, text) = system.run(&[
        "queue",
        "create",
        "show",
        "--set",
        "rate_per_minute=600",
        "--set",
        &format!("opens_at={opens}"),
        "--set",
        &format!("closes_at={closes}"),
    ]);
    assert!(code == 0 && text.starts_with("show: scheduled\n"), "{text}");
    let mut early = Vec::new();
    for _ in 0..3 {
        let mut visitor = Visitor::join(&system.socket(0, "show"), &key()).await;
        let name = name(&connection_id(&visitor.until("JOINED").await));
        assert_eq!(visitor.until("QUEUE_UPDATE").await["payload"]["status"], "scheduled");
        early.push((name, visitor));
    }
    for (_, visitor) in &mut early {
        visitor.until("ADMITTED").await;
    }
    wait_until("it closes", || {
        system.operate("GET", "/admin/queues/show", &json!(null)).1["status"] == "closed"
    });
    let mut late = Visitor::join(&system.socket(0, "show"), &key()).await;
    assert_eq!(late.until("ENDED").await["payload"]["reason"], "closed");
    let entries = read(&system, "show").await;
    let by = |state: &str, by: &str| (state.to_owned(), by.to_owned());
    let expected = [by("scheduled", "operator"), by("open", "schedule"), by("closed", "schedule")];
    assert_eq!(states(&entries), expected);
    let admitted = entries.iter().filter(|entry| entry.kind == "admitted");
    let admitted: Vec<String> = admitted
        .flat_map(|entry| entry.body["facts"].as_array().unwrap().clone())
        .map(|fact| fact["visitor"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(admitted, early.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    // What is past is not undone by an order, and the operator is told what to do.
    let (code, text) = system.run(&["queue", "open", "show"]);
    assert!(code == 1 && text.contains("closing_time_past"), "{text}");
    let (code, text) = system.run(&["queue", "set", "show", "--set", "closes_at="]);
    assert!(code == 0 && !text.contains("closes_at"), "{text}");
    let (code, text) = system.run(&["queue", "open", "show"]);
    assert!(code == 0 && text.starts_with("show: open\n"), "{text}");
    let (code, text) = system.run(&["audit", "verify", "show"]);
    assert_eq!(code, 0, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_has_the_length_that_the_policy_allows_and_a_known_visitor_is_let_through() {
    let system = System::start("length");
    system.queue("line", &json!({"max_waiting": 2}));
    assert_eq!(system.operate("POST", "/admin/queues/line/pause", &json!({})).0, 200);
    let url = system.socket(0, "line");
    let ann_key = key();
    let mut ann = Visitor::join(&url, &ann_key).await;
    ann.until("QUEUE_UPDATE").await;
    let mut bob = Visitor::join(&url, &key()).await;
    bob.until("QUEUE_UPDATE").await;
    let mut cid = Visitor::join(&url, &key()).await;
    let full = cid.until("ERROR").await;
    assert_eq!(full["payload"]["code"], "queue_full");
    assert!(full["payload"]["retryAfter"].as_u64() > Some(0), "{full}");
    let mut again = Visitor::join(&url, &ann_key).await;
    assert_eq!(again.until("QUEUE_UPDATE").await["payload"]["position"], 1);
    bob.say(&json!({"type": "LEAVE"})).await;
    bob.until("ENDED").await;
    // Bob is told as soon as the log has it; that there is room, the node hears a moment later.
    let cid_key = key();
    let position = loop {
        let mut cid = Visitor::join(&url, &cid_key).await;
        let told = cid.next().await;
        if told["type"] == "JOINED" {
            break cid.until("QUEUE_UPDATE").await["payload"]["position"].clone();
        }
        assert_eq!(told["payload"]["code"], "queue_full");
    };
    assert_eq!(position, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_absent_are_let_in_unseen_where_the_policy_says_so() {
    let system = System::start("unseen");
    system.queue("list", &json!({"absent": "admit"}));
    assert_eq!(system.operate("POST", "/admin/queues/list/pause", &json!({})).0, 200);
    let mut ann = Visitor::join(&system.socket(0, "list"), &key()).await;
    let id = connection_id(&ann.until("JOINED").await);
    drop(ann);
    let present = || system.operate("GET", "/admin/queues/list", &json!(null)).1["present"].clone();
    wait_until("she is absent", || present() == 0);
    assert_eq!(system.operate("POST", "/admin/queues/list/resume", &json!({})).0, 200);
    let unused = || system.operate("GET", "/admin/queues/list", &json!(null)).1["unused"].clone();
    wait_until("she is let in", || unused() == 1);
    let mut ann = Visitor::reconnect(&system.socket(0, "list"), &id).await;
    ann.until("ADMITTED").await;
    let (code, text) = system.run(&["audit", "verify", "list"]);
    assert_eq!(code, 0, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_queue_can_be_opened_again_and_a_deleted_one_not() {
    let system = System::start("closing");
    system.queue("show", &json!({"rate_per_minute": 1}));
    let mut first = Visitor::join(&system.socket(0, "show"), &key()).await;
    first.until("ADMITTED").await;
    let mut ann = Visitor::join(&system.socket(0, "show"), &key()).await;
    ann.until("QUEUE_UPDATE").await;
    let (code, text) = system.run(&["queue", "close", "show", "--reason", "sold out"]);
    assert!(code == 0 && text.starts_with("show: closed\n"), "{text}");
    let closed = loop {
        let update = ann.until("QUEUE_UPDATE").await;
        if update["payload"]["status"] == "closed" {
            break update;
        }
    };
    assert_eq!(
        (&closed["payload"]["reason"], &closed["payload"]["seconds"]),
        (&json!("sold out"), &json!(null))
    );
    let (code, text) = system.run(&["queue", "resume", "show"]);
    assert!(code == 1 && text.contains("not_paused"), "{text}");
    let (code, text) = system.run(&["queue", "open", "show"]);
    assert_eq!(code, 0, "{text}");
    loop {
        let update = ann.until("QUEUE_UPDATE").await;
        if update["payload"]["status"] == "open" {
            assert_eq!(update["payload"]["position"], 1);
            break;
        }
    }
    let (code, text) = system.run(&["queue", "delete", "show"]);
    assert!(code == 0 && text == "done\n", "{text}");
    assert_eq!(ann.until("ENDED").await["payload"]["reason"], "closed");
    assert_eq!(ann.until_closed().await, 1000);
    for arguments in
        [["queue", "show", "show"], ["queue", "create", "show"], ["queue", "open", "show"]]
    {
        let (code, text) = system.run(&arguments);
        assert!(code == 1 && text.contains("queue_deleted"), "{arguments:?}: {text}");
    }
    let mut late = Visitor::join(&system.socket(0, "show"), &key()).await;
    assert_eq!(late.until("ENDED").await["payload"]["reason"], "closed");
    let (_, listed) = system.operate("GET", "/admin/queues", &json!(null));
    assert!(!listed.to_string().contains("show"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_under_which_nobody_can_be_let_in_is_taken_with_a_warning() {
    let system = System::start("warned");
    let warned = |queue: &str, policy: &Value| {
        let (status, shown) = system.operate("PUT", &format!("/admin/queues/{queue}"), policy);
        assert_eq!(status, 201, "{shown}");
        shown["warnings"].to_string()
    };
    let past = json!({"closes_at": "2020-01-01T00:00:00Z"});
    assert!(warned("past", &past).contains("closes_at is past"));
    let crossed = json!({"opens_at": "2190-01-02T00:00:00Z", "closes_at": "2190-01-01T00:00:00Z"});
    assert!(warned("crossed", &crossed).contains("closes before it opens"));
    assert_eq!(warned("plain", &json!({})), "[]");
    let (status, shown) =
        system.operate("PUT", "/admin/queues/plain", &json!({"opens_at": "2190-01-01T00:00:00Z"}));
    assert!(status == 200 && shown["warnings"].to_string().contains("open already"), "{shown}");
    let (code, text) = system.run(&["queue", "show", "crossed"]);
    assert!(code == 0 && text.contains("warning   closes_at is not after opens_at"), "{text}");
    let faults = json!({"opens_at": "tomorrow", "absent": "skip", "max_waiting": 0, "content": 5});
    let (status, problem) = system.operate("PUT", "/admin/queues/plain", &faults);
    assert_eq!((status, &problem["code"]), (400, &json!("bad_policy")));
    for part in [
        "opens_at must be an instant",
        "absent must be hold or admit",
        "max_waiting must be a whole number from 1 to",
        "content must be a text",
    ] {
        assert!(
            problem["detail"].as_str().unwrap().contains(part),
            "{problem} does not say {part}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_site_reports_is_a_number_from_0_to_1() {
    let system = System::start("reports");
    for load in [json!(-0.1), json!(1.01), json!("0.5"), json!(null), json!([0.5])] {
        let (status, problem) =
            system.operate("POST", "/admin/queues/demo/load", &json!({"load": load}));
        assert_eq!((status, &problem["code"]), (400, &json!("bad_request")), "{load}");
    }
    assert_eq!(system.operate("POST", "/admin/queues/demo/load", &json!({})).0, 400);
    let (status, heard) = system.operate("POST", "/admin/queues/demo/load", &json!({"load": 0.25}));
    assert_eq!(status, 200, "{heard}");
    assert_eq!((&heard["load"], &heard["ratePerMinute"]), (&json!(0.25), &json!(60)));
    let (status, problem) =
        system.operate("POST", "/admin/queues/nowhere/load", &json!({"load": 0.5}));
    assert_eq!((status, &problem["code"]), (404, &json!("unknown_queue")));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_let_in_when_the_rate_allows_it_and_not_at_the_worker_s_next_look() {
    // By the log's own times: the worker otherwise looks each 50 ms, and what is late is lost.
    const PEOPLE: usize = 25;
    let system = System::start("punctual");
    system.queue("even", &json!({"rate_per_minute": 600}));
    assert_eq!(system.operate("POST", "/admin/queues/even/pause", &json!({})).0, 200);
    let mut people = Vec::new();
    for _ in 0..PEOPLE {
        let mut visitor = Visitor::join(&system.socket(0, "even"), &key()).await;
        visitor.until("JOINED").await;
        people.push(visitor);
    }
    assert_eq!(system.operate("POST", "/admin/queues/even/resume", &json!({})).0, 200);
    for visitor in &mut people {
        visitor.until("ADMITTED").await;
    }
    let entries = read(&system, "even").await;
    let admitted = entries.iter().filter(|entry| entry.kind == "admitted");
    let stored: Vec<jiff::Timestamp> = admitted.map(|entry| entry.time.parse().unwrap()).collect();
    assert_eq!(stored.len(), PEOPLE);
    let gaps = stored.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_millis());
    let mut gaps: Vec<i128> = gaps.collect();
    gaps.sort_unstable();
    assert!((100..=125).contains(&gaps[gaps.len() / 2]), "{gaps:?}");
}
