//! What is not as the protocol says gets a clear answer, and nothing is lost by it.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::system::{System, get};
use crate::visitor::{Visitor, connection_id, key};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_is_answered_and_closed() {
    let system = System::start("bad");
    system.queue("door", &json!({"rate_per_minute": 1}));
    system.queue("other", &json!({"rate_per_minute": 1}));
    let url = system.socket(0, "door");
    let long = json!({"type": "JOIN", "joinKey": "x".repeat(5000)}).to_string();
    let foreign = {
        let mut visitor = Visitor::join(&system.socket(0, "other"), &key()).await;
        connection_id(&visitor.until("JOINED").await)
    };
    let mut forged = foreign.clone();
    forged.replace_range(30..31, if &forged[30..31] == "A" { "B" } else { "A" });
    let text = |text: &str| Message::text(text.to_owned());
    let reconnect = |id: &str| text(&json!({"type": "RECONNECT", "connectionId": id}).to_string());
    let cases = [
        ("no JSON", text("hello"), "bad_message", 1008),
        ("not an object", text("[\"LEAVE\"]"), "bad_message", 1008),
        ("unknown type", text(r#"{"type":"DANCE"}"#), "bad_message", 1008),
        ("no type", text("{}"), "bad_message", 1008),
        ("binary", Message::binary(b"{}".to_vec()), "bad_message", 1008),
        ("out of order", text(r#"{"type":"LEAVE"}"#), "bad_message", 1008),
        ("a key that is none", text(r#"{"type":"JOIN","joinKey":"mine"}"#), "bad_message", 1008),
        ("too long", text(&long), "bad_message", 1009),
        ("a foreign connection id", reconnect(&foreign), "unknown_connection", 1008),
        ("a forged connection id", reconnect(&forged), "unknown_connection", 1008),
        ("an empty connection id", reconnect(""), "unknown_connection", 1008),
    ];
    for (what, message, code, close) in cases {
        let mut visitor = Visitor::connect(&url).await.unwrap();
        visitor.say_raw(message).await;
        let error = visitor.next().await;
        assert_eq!(
            (&error["type"], &error["payload"]["code"]),
            (&json!("ERROR"), &json!(code)),
            "{what}"
        );
        assert_eq!(visitor.until_closed().await, close, "{what}");
    }
    // One who says nothing is closed too.
    let mut silent = Visitor::connect(&url).await.unwrap();
    assert_eq!(silent.until("ERROR").await["payload"]["code"], "bad_message");
    assert_eq!(silent.until_closed().await, 1008);
    // In line, a second JOIN is out of order, and the place is kept.
    let mut first = Visitor::join(&url, &key()).await;
    first.until("ADMITTED").await;
    let mut ann = Visitor::join(&url, &key()).await;
    let id = connection_id(&ann.until("JOINED").await);
    ann.say(&json!({"type": "JOIN"})).await;
    assert_eq!(ann.until("ERROR").await["payload"]["code"], "bad_message");
    assert_eq!(ann.until_closed().await, 1008);
    let mut ann = Visitor::reconnect(&url, &id).await;
    assert_eq!(ann.until("QUEUE_UPDATE").await["payload"]["position"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_there_is_not_is_told_and_an_origin_that_may_not_is_refused() {
    let system = System::start("origin");
    system.queue("door", &json!({"allowed_origins": ["https://shop.example"]}));
    let status = async |queue: &str, origin: Option<&str>| {
        let mut request = system.socket(0, queue).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", origin.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((_, response)) => response.status().as_u16(),
            Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
            Err(error) => panic!("{error}"),
        }
    };
    let own = system.node(0);
    for (queue, origin, expected) in [
        ("door", None, 101),
        ("door", Some(own.as_str()), 101),
        ("door", Some("https://shop.example"), 101),
        ("door", Some("null"), 403),
        ("door", Some("http://shop.example"), 403),
        ("door", Some("https://shop.example:444"), 403),
        ("door", Some("https://shop.example.evil.example"), 403),
        ("door", Some("https://evil.example"), 403),
        ("door", Some("http://127.0.0.1"), 403),
        ("nowhere", Some("https://shop.example"), 403),
    ] {
        assert_eq!(status(queue, origin).await, expected, "{queue} {origin:?}");
    }
    for name in ["nowhere", "No-Name"] {
        let mut lost = Visitor::connect(&system.socket(0, name)).await.unwrap();
        assert_eq!(lost.until("ERROR").await["payload"]["code"], "unknown_queue");
        assert_eq!(lost.until_closed().await, 1008);
    }
    let (status, problem) = get(&format!("{}/api/queues/nowhere", system.node(0)));
    assert_eq!((status, &problem["code"]), (404, &json!("unknown_queue")));
    assert_eq!(get(&format!("{}/ws/door", system.node(0))).0, 426);
    assert_eq!(get(&format!("{}/nothing/here", system.node(0))).0, 404);
    // What the router itself refuses is a problem like any other.
    let node = system.node(0);
    let none = Value::Null;
    let large = json!({"token": "x".repeat(200_000)});
    for (status, code, (method, path, body)) in [
        (405, "method_not_allowed", ("DELETE", "/healthz", &none)),
        (413, "too_large", ("POST", "/api/tokens/redeem", &large)),
        (400, "bad_request", ("GET", "/api/queues/%ff", &none)),
    ] {
        let (said, problem) = crate::system::call(method, &format!("{node}{path}"), &[], body);
        assert_eq!((said, &problem["code"]), (status, &json!(code)), "{problem}");
        assert_eq!(problem["header content-type"], "application/problem+json");
        assert_eq!(problem["header cache-control"], "no-store");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_needs_the_token_and_hears_what_is_wrong() {
    let system = System::start("operator");
    let operator = system.text("operator");
    for header in ["", "Bearer ", "Bearer wrong", "Basic x"] {
        let (status, problem) = crate::system::call(
            "GET",
            &format!("{operator}/admin/queues"),
            &[("Authorization", header)],
            &Value::Null,
        );
        assert_eq!((status, &problem["code"]), (401, &json!("unauthorized")), "{header:?}");
    }
    let wrong = json!({"rate_per_minute": 0, "token_seconds": "soon", "target": "ftp://x", "x": 1});
    let (status, problem) = system.operate("PUT", "/admin/queues/q", &wrong);
    assert_eq!((status, &problem["code"]), (400, &json!("bad_policy")));
    for key in ["rate_per_minute must be", "token_seconds must be", "target must be", "x must be"] {
        assert!(problem["detail"].as_str().unwrap().contains(key), "{problem} does not name {key}");
    }
    assert_eq!(system.operate("PUT", "/admin/queues/Q", &json!({})).0, 400);
    assert_eq!(system.operate("GET", "/admin/queues/none", &Value::Null).0, 404);
    assert_eq!(system.operate("POST", "/admin/queues/none/pause", &json!({})).0, 404);
    assert_eq!(system.operate("POST", "/admin/queues/demo/dance", &json!({})).0, 404);
    let none = json!({"visitor": "00000000-0000-4000-8000-000000000000"});
    assert_eq!(system.operate("POST", "/admin/queues/demo/release", &none).0, 404);
    assert_eq!(system.operate("POST", "/admin/queues/demo/release", &json!({})).0, 400);
}
