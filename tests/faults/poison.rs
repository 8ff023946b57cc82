//! Entries that nobody should have written, put into the stream under visitors who come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_nats::{Client, HeaderMap};
use serde_json::{Value, json};

use crate::by_hand::{identity, in_order};
use crate::raise::raise_level;
use crate::row::row;
use crate::system::{System, get, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};
use crate::world::{NODE, Stored, put_with_raw_headers, stored};

const VISITOR: &str = "00000000-0000-0000-0000-0000000000aa";
/// What time these decisions say that it is: some day.
const NOW: u64 = 1_795_377_600_123;

/// What is wrong, who writes it, on which subject (after the queue's), and the payload.
type Poison = (&'static str, &'static str, &'static str, Vec<u8>);

fn poisons() -> Vec<Poison> {
    let joined = |facts: Value| json!({"v": 2, "node": NODE.to_string(), "facts": facts});
    let fact = json!({"visitor": VISITOR, "socket": 1});
    let good = joined(json!([fact]));
    let changed = |key: &str, value: Value| {
        let mut entry = good.clone();
        entry[key] = value;
        entry.to_string().into_bytes()
    };
    let bytes = |json: &Value| json.to_string().into_bytes();
    let twice = good.to_string().replacen("\"v\":2", "\"v\":2,\"v\":2", 1).into_bytes();
    let admitted = json!({
        "v": 2, "prev": 1, "basis": 1, "now": NOW, "worker": NODE.to_string(),
        "facts": [{"visitor": VISITOR, "jti": VISITOR, "kid": "mine", "seconds": 60}],
    });
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    vec![
        ("a kind that there is not", "node", "node.dance", bytes(&good)),
        ("a decision by a node", "node", "node.admitted", bytes(&admitted)),
        ("a node's fact by admission", "admission", "admission.joined", bytes(&good)),
        ("a writer that there is not", "operator", "nobody.joined", bytes(&good)),
        ("a subject that goes on", "operator", "node.joined.again", bytes(&good)),
        ("a subject without a kind", "operator", "node", bytes(&good)),
        ("no JSON", "node", "node.joined", b"joined: ann".to_vec()),
        ("an empty payload", "node", "node.joined", Vec::new()),
        ("a list", "node", "node.joined", b"[1]".to_vec()),
        ("no UTF-8", "node", "node.joined", b"{\"v\":2,\"node\":\"\xff\xfe\"}".to_vec()),
        ("a key twice", "node", "node.joined", twice),
        ("a key that there is not", "node", "node.joined", changed("vip", json!(true))),
        ("no facts", "node", "node.joined", changed("facts", json!([]))),
        (
            "too many facts",
            "node",
            "node.joined",
            changed("facts", json!(vec![fact.clone(); 5_000])),
        ),
        (
            "a visitor that is none",
            "node",
            "node.joined",
            changed("facts", json!([{"visitor": "ann", "socket": 1}])),
        ),
        (
            "a negative socket",
            "node",
            "node.joined",
            changed("facts", json!([{"visitor": VISITOR, "socket": -1}])),
        ),
        ("a version that is a word", "node", "node.joined", changed("v", json!("2"))),
        ("version 0", "node", "node.joined", changed("v", json!(0))),
        ("version 1", "node", "node.joined", changed("v", json!(1))),
        ("a version above the log's level", "node", "node.joined", changed("v", json!(3))),
        ("nested without end", "node", "node.joined", deep.into_bytes()),
        ("as long as the server allows", "node", "node.joined", vec![b'x'; 1_048_000]),
        ("headers that look like the server's", "node", "node.left", b"{}".to_vec()),
        ("headers that are none", "node", "node.joined", b"{}".to_vec()),
        ("a decision on another's basis", "admission", "admission.admitted", bytes(&admitted)),
        ("a decision that is no JSON", "admission", "admission.configured", b"open".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_schema_knows_is_void_and_the_queue_goes_on() {
    let system = System::start("poison");
    let policy = json!({"rate_per_minute": 6_000});
    assert_eq!(system.operate("PUT", "/admin/queues/demo", &policy).0, 200);
    let url = system.socket(0, "demo");
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let steady =
        tokio::spawn(come_and_go(url.clone(), None, Arc::clone(&stop), Arc::clone(&served)));
    let poisons = poisons();
    let mut at = Vec::new();
    for (what, who, subject, payload) in &poisons {
        at.push((what, put(&system, what, who, subject, payload).await));
        visitor_gets_in(&url, None).await;
    }
    stop.store(true, Ordering::SeqCst);
    steady.await.unwrap();
    let served = served.load(Ordering::SeqCst);
    assert!(served > 0, "nobody came meanwhile");
    in_order(&system, "demo");
    let audit = system.run_json(&["audit", "verify", "demo"]);
    let listed: Vec<u64> = audit["void"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|void| void["sequence"].as_u64())
        .collect();
    for (what, seq) in &at {
        assert!(listed.contains(seq), "{what}, entry {seq}, is not found by the audit");
    }
    let result = format!(
        "all void and found by the audit; after each a visitor joined and was let in, {served} more \
         meanwhile; projector and audit agree"
    );
    row("an entry that no schema knows, or on the wrong subject", poisons.len(), &result);

    // What raises the level is another matter: nobody may go on as if they knew its rules.
    let (seq, reason) = raise_level(&system, "demo").await;
    wait_until("projector and admission halt", || {
        let halted = format!("halted queue=demo seq={} reason={reason}", seq - 1);
        system.logs().matches(&halted).count() == 2
    });
    wait_until("the node says so", || {
        let (status, ready) = get(&format!("{}/readyz", system.node(0)));
        status == 503 && ready["reasons"].to_string().contains(&reason)
    });
    assert_eq!(system.run(&["projection", "verify", "demo"]).0, 1);
    let (code, said) = system.run(&["audit", "verify", "demo"]);
    assert!(code == 1 && said.contains(&reason), "{said}");
    row(
        "an entry that raises the log to a level that nobody knows",
        1,
        "projector, admission and audit halt, and say at which entry and why",
    );
}

/// Whoever is sent what stands in such a header loses the connection, and all readers at once do: what was
/// said meanwhile is missed, and the first questions about it find nobody.
#[tokio::test(flavor = "multi_thread")]
async fn who_joins_while_the_log_s_connections_break_is_not_sent_away() {
    const BREAKS: usize = 20;
    const AT_ONCE: usize = 8;
    let mut system = System::start("breaks");
    system.second_node();
    let policy = json!({"rate_per_minute": 6_000});
    assert_eq!(system.operate("PUT", "/admin/queues/demo", &policy).0, 200);
    wait_until("both nodes serve the queue", || {
        let known = |node| get(&format!("{}/api/queues/demo", system.node(node))).0 == 200;
        known(0) && known(1)
    });
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let steady: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let from = system.socket(0, "demo");
            // Half of them go on at the other node, which has to ask where they are.
            let to = (number % 2 == 0).then(|| system.socket(1, "demo"));
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(come_and_go(from, to, stop, served))
        })
        .collect();
    for number in 0..BREAKS {
        let before = served.load(Ordering::SeqCst);
        let payload = format!("{{\"break\":{number}}}").into_bytes();
        put(&system, "headers that are none", "node", "node.joined", &payload).await;
        wait_until("the visitors go on", || {
            served.load(Ordering::SeqCst) >= before + AT_ONCE
                || steady.iter().any(|it| it.is_finished())
        });
    }
    stop.store(true, Ordering::SeqCst);
    for visitors in steady {
        visitors.await.unwrap();
    }
    in_order(&system, "demo");
    let result =
        format!("{} visitors let in meanwhile, none sent away", served.load(Ordering::SeqCst));
    row("an entry whose headers break every reader's connection", BREAKS, &result);
}

/// Visitors who come one after another, and are let in.
async fn come_and_go(
    from: String,
    to: Option<String>,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
) {
    while !stop.load(Ordering::SeqCst) {
        visitor_gets_in(&from, to.as_deref()).await;
        served.fetch_add(1, Ordering::SeqCst);
    }
}

/// A visitor who joins, goes on at another node if there is one, and is let in.
async fn visitor_gets_in(from: &str, to: Option<&str>) {
    let mut visitor = Visitor::join(from, &key()).await;
    let id = connection_id(&visitor.until("JOINED").await);
    assert_ne!(name(&id), VISITOR);
    let Some(to) = to else {
        visitor.until("ADMITTED").await;
        return;
    };
    visitor = Visitor::reconnect(to, &id).await;
    loop {
        let said = visitor.next().await;
        if said["type"] == "ADMITTED" {
            return;
        }
        // Whoever asks while it breaks again and again may have to try later; their place is theirs.
        if said["close"] == 1013 {
            visitor = Visitor::reconnect(to, &id).await;
        } else {
            assert!(said.get("close").is_none(), "{said}");
        }
    }
}

/// Puts an entry into `demo`; gives its sequence.
async fn put(system: &System, what: &str, who: &str, subject: &str, payload: &[u8]) -> u64 {
    let client = identity(system, who).await;
    let mut headers = HeaderMap::new();
    match what {
        "headers that are none" => {
            let url = std::fs::read_to_string(system.dir.join("run/nats-node.url")).unwrap();
            put_with_raw_headers(url.trim(), b"NATS/1.0\r\nX: \xff\xfe\r\n\r\n", payload).await;
            let auditor = identity(system, "auditor").await;
            // Nobody acknowledged it.
            loop {
                let all = stored(&auditor, "demo").await;
                let is_it =
                    |entry: &&Stored| entry.subject.ends_with(subject) && entry.payload == payload;
                if let Some(entry) = all.iter().rev().find(is_it) {
                    return entry.seq;
                }
            }
        }
        "headers that look like the server's" => {
            headers.insert("Nats-Sequence", "1");
            headers.insert("Nats-Subject", "anteroom.log.demo.admission.admitted");
            headers.insert("Status", "404");
        }
        _ => {}
    }
    publish(&client, subject, headers, payload.to_vec()).await
}

async fn publish(client: &Client, subject: &str, headers: HeaderMap, payload: Vec<u8>) -> u64 {
    let subject = format!("anteroom.log.demo.{subject}");
    let reply = client.request_with_headers(subject, headers, payload.into()).await.unwrap();
    let ack: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert!(ack["error"].is_null(), "{ack}");
    ack["seq"].as_u64().unwrap()
}
