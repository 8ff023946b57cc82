//! A log that is raised to a level that nobody knows, by hand: behind the last decision, whichever that
//! is by then.

use async_nats::{ConnectOptions, HeaderMap, ServerAddr};
use serde_json::{Value, json};

use crate::system::System;

/// Raises the log of a queue to level 3; the entry that does it, and what its readers say of it.
pub async fn raise_level(system: &System, queue: &str) -> (u64, String) {
    let url = std::fs::read_to_string(system.dir.join("run/nats-admission.url")).unwrap();
    let url: ServerAddr = url.trim().parse().unwrap();
    let (user, password) = (url.username().unwrap(), url.password().unwrap());
    let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    let client = options.connect(url).await.unwrap();
    let ask = async |subject: String, headers: HeaderMap, body: Value| -> Value {
        let reply = client.request_with_headers(subject, headers, body.to_string().into()).await;
        serde_json::from_slice(&reply.unwrap().payload).unwrap()
    };
    let decisions = format!("anteroom.log.{queue}.admission.*");
    loop {
        let subject = format!("$JS.API.STREAM.MSG.GET.ANTEROOM_{queue}");
        let last = ask(subject, HeaderMap::new(), json!({"last_by_subj": decisions})).await;
        let prev = last["message"]["seq"].as_u64().unwrap();
        let raised = json!({
            "v": 2, "prev": prev, "basis": prev, "now": 1_795_377_600_123_u64,
            "worker": "2c9e4f70-6b1d-4a83-8e52-d0f7a91b3c64", "level": 3, "by": "operator",
        });
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", prev.to_string());
        headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", decisions.as_str());
        let subject = format!("anteroom.log.{queue}.admission.configured");
        let ack = ask(subject, headers, raised).await;
        // Otherwise another decision came between.
        if ack["error"].is_null() {
            let seq = ack["seq"].as_u64().unwrap();
            let why = "raises the log to level 3, which this program can't read: upgrade it";
            return (seq, format!("entry {seq} {why}"));
        }
    }
}
