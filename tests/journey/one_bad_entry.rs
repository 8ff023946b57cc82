//! One bad entry stops nobody: whatever version it names, and whether all else in it is right.

use std::path::Path;

use async_nats::{ConnectOptions, ServerAddr};
use serde_json::{Value, json};

use crate::levels::next_level;
use crate::system::{System, get, post, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

/// Valid entries, in a folder for each subject.
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/samples/event/valid");

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_version_above_the_level_is_void_on_every_subject() {
    let mut system = System::start("bad-entry");
    system.second_projector();
    system.second_admission();
    system.queue("line", &json!({"rate_per_minute": 6000, "token_seconds": 600}));
    let mut bad = Vec::new();
    for subject in subjects() {
        for (what, payload) in payloads(&subject) {
            bad.push((what, put(&system, &subject, &payload).await));
        }
        visitor_enters(&system).await;
    }
    assert!(bad.len() >= 22, "{bad:?}");
    all_are_ready(&system);

    let verdict = in_order(&system);
    let void = verdict["void"].as_array().unwrap();
    for (version, seq) in &bad {
        let found = void.iter().find(|void| void["sequence"] == *seq);
        let found = found.unwrap_or_else(|| panic!("entry {seq} is not found by the audit"));
        // The other lacks more than a version that is known.
        let is_named =
            *version == 99 || found["what"].to_string().contains("version 3 is not known");
        assert!(is_named, "{found}");
    }
    // One who knows that version already comes to the same: the log was not raised to it.
    let (code, said) = system.run_program(&next_level(), &["audit", "verify", "line", "--json"]);
    let theirs: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, 0, "{said}");
    for key in ["ok", "level", "sequence", "digest", "chain", "violations", "voidCount"] {
        assert_eq!(theirs[key], verdict[key], "{key}");
    }
    let why = "its version, 3, is above the log's level, 2";
    assert!(said.contains(why), "{said}");
}

/// Every subject that entries are written on, as `node.joined`.
fn subjects() -> Vec<String> {
    let folders = std::fs::read_dir(SAMPLES).unwrap();
    let names = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names.len(), 11, "{names:?}");
    names
}

/// The versions that are named, and the payloads: one that says nothing else, and one that is valid but
/// for its version.
fn payloads(subject: &str) -> [(u64, String); 2] {
    let sample = Path::new(SAMPLES).join(subject).join("one.json");
    let mut sample: Value = serde_json::from_slice(&std::fs::read(sample).unwrap()).unwrap();
    sample["v"] = json!(3);
    [(99, r#"{"v":99}"#.to_owned()), (3, sample.to_string())]
}

/// Puts an entry into the log as the role whose subject it is; gives its sequence.
async fn put(system: &System, subject: &str, payload: &str) -> u64 {
    let writer = subject.split('.').next().unwrap();
    let url = std::fs::read_to_string(system.dir.join(format!("run/nats-{writer}.url"))).unwrap();
    let url: ServerAddr = url.trim().parse().unwrap();
    let (user, password) = (url.username().unwrap(), url.password().unwrap());
    let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    let client = options.connect(url).await.unwrap();
    let subject = format!("anteroom.log.line.{subject}");
    let reply = client.request(subject, payload.to_owned().into()).await.unwrap();
    let ack: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert!(ack["error"].is_null(), "{ack}");
    ack["seq"].as_u64().unwrap()
}

/// Somebody joins, is let in and enters: node, projector and worker do what they are there for.
async fn visitor_enters(system: &System) {
    let mut visitor = Visitor::join(&system.socket(0, "line"), &key()).await;
    let id = connection_id(&visitor.until("JOINED").await);
    let admitted = visitor.until("ADMITTED").await;
    let token = json!({"token": admitted["payload"]["token"]});
    let (status, answer) = post(&format!("{}/api/tokens/redeem", system.node(0)), &token);
    assert_eq!((status, &answer["visitor"]), (200, &json!(name(&id))), "{answer}");
}

fn all_are_ready(system: &System) {
    for address in [system.node(0), system.operator(0), system.operator(1)] {
        wait_until("it is ready", || get(&format!("{address}/readyz")).0 == 200);
    }
    assert!(!system.logs().contains("halted"), "somebody has stopped");
}

/// Projector and audit come to the same, and the audit finds nothing wrong; what it says.
fn in_order(system: &System) -> Value {
    let mut verdict = Value::Null;
    wait_until("projector and audit are at the same entry", || {
        let said = system.run_json(&["projection", "verify", "line"]);
        verdict = system.run_json(&["audit", "verify", "line"]);
        assert_eq!((&verdict["ok"], &verdict["violations"]), (&json!(true), &json!([])));
        said["sequence"] == verdict["sequence"] && said["digest"] == verdict["digest"]
    });
    verdict
}
