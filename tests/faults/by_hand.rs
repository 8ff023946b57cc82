//! The log of a whole system, written and read without the code under test.

use std::collections::BTreeMap;

use async_nats::Client;
use serde_json::{Value, json};

use crate::system::{System, wait_until};
use crate::world::{NODE, Stored, raw};

/// The bare client, as one of the system's identities.
pub async fn identity(system: &System, identity: &str) -> Client {
    let file = system.dir.join(format!("run/nats-{identity}.url"));
    raw(std::fs::read_to_string(file).unwrap().trim()).await
}

/// Puts a message into the stream of a queue, if the server takes it; gives its sequence.
pub async fn put_in(
    client: &Client,
    queue: &str,
    kind: &str,
    payload: impl Into<Vec<u8>>,
) -> Result<u64, Value> {
    let subject = format!("anteroom.log.{queue}.{kind}");
    let reply = client.request(subject, payload.into().into()).await.unwrap();
    let ack: Value = serde_json::from_slice(&reply.payload).unwrap();
    // One that was not stored has a sequence too: 0.
    if ack["error"].is_null() { Ok(ack["seq"].as_u64().unwrap()) } else { Err(ack) }
}

/// How often each visitor took a place, by the raw stream.
pub fn places(stored: &[Stored]) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for entry in stored.iter().filter(|entry| entry.subject.ends_with(".node.joined")) {
        let body: Value = serde_json::from_slice(&entry.payload).unwrap();
        for fact in body["facts"].as_array().unwrap() {
            *places.entry(fact["visitor"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    places
}

/// The projector says what the audit says, and the audit finds nothing.
pub fn in_order(system: &System, queue: &str) {
    wait_until("projector and audit are at the same entry", || {
        let said = system.run_json(&["projection", "verify", queue]);
        let audit = system.run_json(&["audit", "verify", queue]);
        assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");
        let same = said["sequence"] == audit["sequence"];
        assert!(!same || said["digest"] == audit["digest"], "{said} {audit}");
        same
    });
}

/// Visitors from this number on, each on a socket.
pub fn seated(first: usize, count: usize) -> String {
    let visitor = |number: usize| json!({"visitor": visitor(number), "socket": 1});
    let facts: Vec<Value> = (first..first + count).map(visitor).collect();
    json!({"v": 2, "node": NODE.to_string(), "facts": facts}).to_string()
}

/// A visitor by their number, who leaves.
pub fn left(number: usize) -> String {
    json!({"v": 2, "facts": [{"visitor": visitor(number)}]}).to_string()
}

/// An operator opens the queue, by a worker that had folded up to `basis`; the first decision of its log.
pub fn opened(basis: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    let facts = [json!({"by": "ops", "state": "open"})];
    let worker = NODE.to_string();
    json!({"v": 2, "prev": 0, "basis": basis, "now": now, "worker": worker, "facts": facts})
        .to_string()
}

fn visitor(number: usize) -> String {
    uuid::Uuid::from_u128(1 + number as u128).to_string()
}
