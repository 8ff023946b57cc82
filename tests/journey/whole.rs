//! Two hundred visitors on two nodes: everyone is let in exactly once, in the order of the log.

use serde_json::json;

use crate::checker::{assert_once, read, retell};
use crate::system::{System, call, get, post};
use crate::visitor::{Visitor, connection_id, key, name};

const VISITORS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_visitors_on_two_nodes_are_let_in_once_in_log_order() {
    let mut system = System::start("whole");
    system.second_node();
    system.queue("concert", &json!({"rate_per_minute": 3000, "title": "Concert"}));
    let journeys = (0..VISITORS).map(|number| {
        let url = system.socket(number, "concert");
        tokio::spawn(journey(url))
    });
    let journeys: Vec<_> = journeys.collect();
    let mut names = Vec::new();
    let mut tokens = Vec::new();
    for journey in journeys {
        let (name, token) = journey.await.unwrap();
        names.push(name);
        tokens.push(token);
    }

    let story = retell(&read(&system, "concert").await);
    assert_once(&story.joined, "a place was given");
    assert_once(&story.admitted, "a visitor was let in");
    assert_eq!(story.joined.len(), VISITORS);
    assert_eq!(story.admitted, story.joined, "the order of the log");
    names.sort();
    let mut joined = story.joined.clone();
    joined.sort();
    assert_eq!(names, joined, "everyone who was told so is in the log");

    // Each token is good once, on whichever node.
    for (number, token) in tokens.iter().take(20).enumerate() {
        let redeem = format!("{}/api/tokens/redeem", system.node(number));
        let again = format!("{}/api/tokens/redeem", system.node(number + 1));
        let body = json!({ "token": token });
        let (status, answer) = post(&redeem, &body);
        assert_eq!(status, 200, "{answer}");
        let (status, problem) = post(&again, &body);
        assert_eq!((status, &problem["code"]), (409, &json!("token_already_used")));
        let authorize = format!("{}/api/authorize?queue=concert", system.node(number + 1));
        let pass = answer["pass"].as_str().unwrap();
        assert_eq!(call("GET", &authorize, &[("X-Waiting-Token", pass)], &json!(null)).0, 200);
    }
    let (status, problem) = get(&format!("{}/api/authorize?queue=concert", system.node(0)));
    assert_eq!((status, &problem["header location"]), (403, &json!("/waiting/concert")));

    let audit = system.run_json(&["audit", "verify", "concert"]);
    assert_eq!(audit["ok"], true, "{audit}");
    assert_eq!((&audit["visitors"], &audit["admitted"]), (&json!(VISITORS), &json!(VISITORS)));
    assert_eq!((&audit["redeemed"], &audit["waiting"]), (&json!(20), &json!(0)));
    let projection = system.run_json(&["projection", "verify", "concert"]);
    let seq = projection["sequence"].to_string();
    let then = system.run_json(&["audit", "verify", "concert", "--seq", &seq]);
    assert_eq!(then["digest"], projection["digest"]);
    assert_eq!(then["chain"], projection["chain"]);
}

/// From JOIN to the token; positions only go down, and say what the count says.
async fn journey(url: String) -> (String, String) {
    let mut visitor = Visitor::join(&url, &key()).await;
    let joined = visitor.next().await;
    assert_eq!(joined["type"], "JOINED", "{joined}");
    assert_eq!(joined["payload"], json!({"queue": "concert", "reconnectWithin": 300}));
    let mut before = u64::MAX;
    loop {
        let message = visitor.next().await;
        let payload = &message["payload"];
        if message["type"] == "ADMITTED" {
            assert_eq!(payload["target"], "/entered/concert");
            assert!((118..=120).contains(&payload["expiresIn"].as_u64().unwrap()), "{payload}");
            let token = payload["token"].as_str().unwrap().to_owned();
            return (name(&connection_id(&joined)), token);
        }
        assert_eq!(message["type"], "QUEUE_UPDATE", "{message}");
        let (position, count) = (payload["position"].as_u64(), payload["count"].as_u64());
        assert_eq!(position.unwrap(), count.unwrap() + 1);
        assert!(count.unwrap() < payload["waiting"].as_u64().unwrap());
        assert!(position.unwrap() <= before, "a position rose: {payload} after {before}");
        before = position.unwrap();
    }
}
