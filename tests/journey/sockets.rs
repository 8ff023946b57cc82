//! Sockets in line: told by pushers or by tasks, with bytes that come early, late, in pieces or never.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::system::{System, call, wait_until};
use crate::visitor::{Visitor, connection_id, key};

/// What comes, comes within this.
const WAIT: Duration = Duration::from_secs(25);

fn slow() -> Value {
    json!({"rate_per_minute": 1, "reconnect_seconds": 60})
}

/// Pauses a queue, so that whoever joins waits.
fn paused(system: &System, queue: &str) {
    system.queue(queue, &slow());
    let (status, body) =
        system.operate("POST", &format!("/admin/queues/{queue}/pause"), &json!({}));
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_pushers_and_without_a_visitor_is_told_the_same() {
    for pushers in ["0", "1", "3"] {
        let mut system = System::prepare("pushers");
        system.settings = ["--pushers", pushers].map(str::to_owned).to_vec();
        system.up();
        paused(&system, "line");
        let url = system.socket(0, "line");
        let mut line = Vec::new();
        for position in 1..=5 {
            let mut visitor = Visitor::join(&url, &key()).await;
            let id = connection_id(&visitor.next().await);
            assert_eq!(visitor.until("QUEUE_UPDATE").await["payload"]["position"], position);
            line.push((visitor, id));
        }
        // A ping is answered, and is no fact.
        let (last, _) = line.last_mut().unwrap();
        last.say_raw(Message::Ping(b"here?".to_vec().into())).await;
        assert_eq!(last.pong().await, b"here?");
        // A refresh takes the place over from the socket before it.
        let (mut old, id) = line.remove(2);
        let mut fresh = Visitor::reconnect(&url, &id).await;
        assert_eq!(connection_id(&fresh.until("JOINED").await), id);
        assert_eq!(fresh.until("QUEUE_UPDATE").await["payload"]["position"], 3);
        assert_eq!(old.until("ERROR").await["payload"]["code"], "replaced");
        assert_eq!(old.until_closed().await, 1000);
        // Whoever is behind one who leaves moves up; whoever is before them is not disturbed.
        let (mut second, _) = line.remove(1);
        second.say(&json!({"type": "LEAVE"})).await;
        assert_eq!(second.until("ENDED").await["payload"]["reason"], "left");
        assert_eq!(second.until_closed().await, 1000);
        assert_eq!(fresh.until("QUEUE_UPDATE").await["payload"]["position"], 2);
        // What the operator says reaches everyone.
        let reason = json!({"reason": "Doors in \"five\" minutes — 곧"});
        system.operate("POST", "/admin/queues/line/pause", &reason);
        loop {
            let told = fresh.until("QUEUE_UPDATE").await;
            if told["payload"]["reason"] == reason["reason"] {
                assert_eq!(told["payload"]["status"], "paused");
                break;
            }
        }
        // A node that goes says when to come back.
        system.stop();
        loop {
            let next = fresh.next().await;
            if let Some(code) = next["close"].as_u64() {
                let seconds: u64 = next["reason"].as_str().unwrap().parse().unwrap();
                assert!(code == 1012 && (1..=30).contains(&seconds), "{next}");
                break;
            }
        }
    }
}

#[test]
fn bytes_that_come_early_or_in_pieces_are_not_lost() {
    let system = System::start("bytes");
    paused(&system, "line");
    // The first message with the request, and the second right behind it.
    let mut early = Raw::connect(
        &system,
        "line",
        &[text(r#"{"type":"JOIN"}"#), text(r#"{"type":"LEAVE"}"#)].concat(),
    );
    assert!(early.until("ENDED").contains("\"left\""));
    // In fragments with a ping between them, a byte at a time, while in line.
    let mut slow = Raw::connect(&system, "line", &text(r#"{"type":"JOIN"}"#));
    slow.until("QUEUE_UPDATE");
    let pieces = [
        frame(0x01, br#"{"type""#),
        frame(0x89, b"between"),
        frame(0x00, br#":"LEA"#),
        frame(0x80, br#"VE"}"#),
    ];
    for byte in pieces.concat() {
        slow.stream.write_all(&[byte]).unwrap();
    }
    slow.until("between");
    assert!(slow.until("ENDED").contains("\"left\""));
}

#[test]
fn counts_of_all_nodes_are_shown_to_the_operator() {
    let mut system = System::start("counts");
    system.second_node();
    paused(&system, "line");
    let mut here = Raw::connect(&system, "line", &text(r#"{"type":"JOIN"}"#));
    here.until("QUEUE_UPDATE");
    let mut bad = Raw::connect(&system, "line", &text("no JSON"));
    bad.until("bad_message");
    let url = format!("{}/metrics", system.text("operator"));
    assert_eq!(call("GET", &url, &[], &Value::Null).0, 401);
    let sum = |name: &str| {
        let text = system.metrics();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        let values = lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>());
        (lines.len(), values.map(Result::unwrap).sum::<f64>())
    };
    wait_until("both nodes say what they count", || sum("anteroom_sockets{").0 == 2);
    wait_until("the socket is counted", || sum("anteroom_sockets{").1 >= 1.0);
    wait_until("its slot is counted", || sum("anteroom_slots{").1 == 1.0);
    wait_until("its numbers are counted", || sum("anteroom_pushes_total{").1 >= 1.0);
    wait_until("handshakes are counted", || sum("anteroom_handshakes_total{").1 == 2.0);
    wait_until("refusals are counted", || {
        system.metrics().lines().any(|line| {
            line.starts_with("anteroom_refused_total{")
                && line.contains(r#"reason="bad_message""#)
                && line.ends_with(" 1")
        })
    });
    drop(here);
    wait_until("the slot is free again", || sum("anteroom_slots{").1 == 0.0);
    wait_until("its end is counted", || sum("anteroom_sockets_ended_total{").1 == 1.0);
    let text = system.metrics();
    let families: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let different: std::collections::BTreeSet<&&str> = families.iter().collect();
    assert_eq!(different.len(), families.len(), "{text}");
}

/// A client's frame, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut bytes = vec![first, 0x80 | u8::try_from(payload.len()).unwrap()];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

/// A socket whose bytes are ours.
struct Raw {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Raw {
    /// Asks for an upgrade and sends these bytes with it, waiting for nothing.
    fn connect(system: &System, queue: &str, first: &[u8]) -> Self {
        let host = system.node(0).trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&host).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let head = format!(
            "GET /ws/{queue} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), first].concat()).unwrap();
        Self { stream, heard: Vec::new() }
    }

    /// Reads until this is in what was said, and says all of it.
    fn until(&mut self, part: &str) -> String {
        loop {
            let heard = String::from_utf8_lossy(&self.heard).into_owned();
            if heard.contains(part) {
                return heard;
            }
            let mut bytes = [0; 4096];
            let read = self.stream.read(&mut bytes).unwrap();
            assert!(read > 0, "{part} was awaited after {heard}");
            self.heard.extend(&bytes[..read]);
        }
    }
}
