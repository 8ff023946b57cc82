//! Who a visitor is comes of the queue's own secret: the key of connection ids is changed and nobody has
//! a second place, and with the secret destroyed nobody new has one.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::checker::{read, retell};
use crate::system::{System, get, signal, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

#[tokio::test(flavor = "multi_thread")]
async fn with_another_key_of_connection_ids_everyone_has_the_same_place() {
    let mut system = System::start("mac-key");
    paused(&system, "line");
    let url = system.socket(0, "line");
    let keys = [key(), key()];
    let mut old = Vec::new();
    for key in &keys {
        let mut visitor = Visitor::join(&url, key).await;
        old.push(connection_id(&visitor.until("JOINED").await));
        visitor.until("QUEUE_UPDATE").await;
    }
    system.stop();
    let other = [key(), key()].concat().replace('-', "");
    std::fs::write(system.dir.join("keys/mac"), other).unwrap();
    system.up();
    let mut back = Vec::new();
    for (number, (key, old)) in keys.iter().zip(&old).enumerate() {
        let mut unknown = Visitor::reconnect(&url, old).await;
        assert_eq!(unknown.until("ERROR").await["payload"]["code"], "unknown_connection");
        assert_eq!(unknown.until_closed().await, 1008);
        let mut visitor = Visitor::join(&url, key).await;
        let new = connection_id(&visitor.until("JOINED").await);
        assert!(new != *old && name(&new) == name(old), "{new}, before {old}");
        assert_eq!(visitor.until("QUEUE_UPDATE").await["payload"]["position"], number + 1);
        drop(visitor);
        let mut visitor = Visitor::reconnect(&url, &new).await;
        assert_eq!(connection_id(&visitor.until("JOINED").await), new);
        back.push(visitor);
    }
    let names: Vec<String> = old.iter().map(|id| name(id)).collect();
    assert_eq!(retell(&read(&system, "line").await).joined, names);
    assert_eq!(system.run_json(&["audit", "verify", "line"])["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_secret_a_queue_takes_nobody_new_and_the_others_go_on() {
    let system = System::start("destroyed");
    paused(&system, "line");
    system.queue("other", &json!({"rate_per_minute": 6000}));
    let url = system.socket(0, "line");
    let mut ann = Visitor::join(&url, &key()).await;
    let id = connection_id(&ann.until("JOINED").await);
    let mut guest = Visitor::join(&system.socket(0, "other"), &key()).await;
    guest.until("ADMITTED").await;

    destroy_secret(&system, "line").await;
    // The projector is told at its next look, and whoever begins anew has looked.
    system.kill("projector");
    restart_node(&system);
    // It learns the queues from the feed, or when somebody asks.
    get(&format!("{}/api/queues/line", system.node(0)));
    let ready = || get(&format!("{}/readyz", system.node(0)));
    let expected = "queue line: its secret is gone from its stream, or the log names another than \
                    is there, so nobody new can be put in line";
    wait_until("the node says why", || ready().1["reasons"] == json!([expected]));
    let (_, said) = ready();
    assert!(expected.ends_with(said["queues"]["line"].as_str().unwrap()), "{said}");
    for message in [json!({"type": "JOIN", "joinKey": key()}), json!({"type": "JOIN"})] {
        let mut refused = Visitor::connect(&url).await.unwrap();
        refused.say(&message).await;
        assert_eq!(refused.until("ERROR").await["payload"]["code"], "unavailable");
        assert_eq!(refused.until_closed().await, 1013);
    }
    // Whoever is in line stays there, by their connection id.
    let mut ann = Visitor::reconnect(&url, &id).await;
    assert_eq!(ann.until("QUEUE_UPDATE").await["payload"]["position"], 1);
    let mut guest = Visitor::join(&system.socket(0, "other"), &key()).await;
    guest.until("ADMITTED").await;

    // Over, it needs no secret any more.
    assert_eq!(system.operate("POST", "/admin/queues/line/close", &json!({})).0, 200);
    wait_until("the node is ready", || ready().0 == 200);
    let mut late = Visitor::join(&url, &key()).await;
    assert_eq!(late.until("ENDED").await["payload"]["reason"], "closed");
    assert_eq!(retell(&read(&system, "line").await).joined, [name(&id)]);
}

#[test]
fn a_folder_of_version_1_is_refused_in_one_sentence() {
    let system = System::prepare("version-1");
    std::fs::create_dir_all(system.dir.join("keys")).unwrap();
    std::fs::write(system.dir.join("keys/mac"), "00").unwrap();
    let (code, said) = system.run(&["up"]);
    let expected = format!(
        "anteroom: {} is of version 1, from before the first release, which this program does not read: \
         start in another folder, or move it away\n",
        system.dir.display()
    );
    assert_eq!((code, said), (1, expected));
}

/// A queue in which nobody is let in, so that places stay as they are.
fn paused(system: &System, queue: &str) {
    system.queue(queue, &json!({}));
    let pause = format!("/admin/queues/{queue}/pause");
    assert_eq!(system.operate("POST", &pause, &json!({})).0, 200);
}

/// Stops the node as one stops it to start it again; `up` does.
fn restart_node(system: &System) {
    let pid = system.pid("node");
    signal(pid, Signal::TERM);
    wait_until("another node runs", || system.pid("node") != pid);
    wait_until("it answers", || get(&format!("{}/healthz", system.node(0))).0 == 200);
}

/// What an operator does to make the log of a queue unlinkable.
async fn destroy_secret(system: &System, queue: &str) {
    let url = std::fs::read_to_string(system.dir.join("run/nats-operator.url")).unwrap();
    let url: async_nats::ServerAddr = url.trim().parse().unwrap();
    let options = async_nats::ConnectOptions::new()
        .user_and_password(url.username().unwrap().to_owned(), url.password().unwrap().to_owned());
    let client = options.connect(url).await.unwrap();
    let ask = async |call: &str, body: String| -> Value {
        let subject = format!("$JS.API.STREAM.{call}.ANTEROOM_{queue}");
        let answer = client.request(subject, body.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    let mut config = ask("INFO", String::new()).await["config"].take();
    let metadata = config["metadata"].as_object_mut().unwrap();
    assert!(metadata.remove("anteroom-secret").is_some());
    let updated = ask("UPDATE", config.to_string()).await;
    assert!(updated.get("error").is_none(), "{updated}");
}
