//! Ways to write an address so that a gateway takes it for another one than the site does. None leads
//! past the question whether there is a pass.

use crate::raw::{Answer, bytes, send};
use crate::street::{Away, House, Kind, QUEUE, Street};

/// Request lines without the version, as bytes: what a client that knows HTTP would not send is here
/// as it is.
const TRICKS: [&[u8]; 54] = [
    b"GET /api/seats",
    b"GET /API/SEATS",
    b"GET /Api/Seats",
    b"GET //api/seats",
    b"GET ///api//seats",
    b"GET /./api/./seats",
    b"GET /x/../api/seats",
    b"GET /api/x/../seats",
    b"GET /%2e/api/seats",
    b"GET /x/%2e%2e/api/seats",
    b"GET /x/%2E%2E/api/seats",
    b"GET /x/.%2e/api/seats",
    b"GET /%2fapi/seats",
    b"GET /api%2fseats",
    b"GET %2fapi%2fseats",
    b"GET /api%5cseats",
    b"GET /api\\seats",
    b"GET \\api\\seats",
    b"GET /%61pi/seats",
    b"GET /api/%73eats",
    b"GET /%2561pi/seats",
    b"GET /api/seats;",
    b"GET /api;x=1/seats",
    b"GET /api/seats%3b",
    b"GET /api/seats%00",
    b"GET /api/seats\0",
    b"GET /anteroom\0/../api/seats",
    b"GET /api/seats%20",
    b"GET /api/seats%0a",
    b"GET /api/seats?x=/anteroom/",
    b"GET /api/seats#/anteroom/",
    b"GET /api/seats/.",
    b"GET /api/seats/..",
    b"GET /anteroom/../api/seats",
    b"GET /anteroom/./../api/seats",
    b"GET /anteroom//../api/seats",
    b"GET /anteroom/%2e%2e/api/seats",
    b"GET /anteroom/..%2fapi/seats",
    b"GET /anteroom/%2e%2e%2fapi%2fseats",
    b"GET /anteroom/..%252fapi/seats",
    b"GET /anteroom/..;/api/seats",
    b"GET /anteroom/..\\api\\seats",
    b"GET /anteroom/..%5capi%5cseats",
    b"GET /ANTEROOM/../api/seats",
    b"GET //anteroom/../api/seats",
    b"GET /anteroom;/../api/seats",
    b"GET /anteroom/..",
    b"GET /_anteroom/authorize",
    b"GET http://127.0.0.1/api/seats",
    b"GET http://127.0.0.1/anteroom/../api/seats",
    b"GET http://evil.example/api/seats",
    b"GET /\xc0\xaeapi/seats",
    b"OPTIONS *",
    b"HEAD /api/seats",
];

/// What a gateway reads its rules from, and others the address.
const ADDRESSES: [(&str, &str); 5] = [
    ("X-Original-URL", "/anteroom/enter"),
    ("X-Rewrite-URL", "/anteroom/enter"),
    ("X-Forwarded-Uri", "/anteroom/enter"),
    ("X-Forwarded-Method", "OPTIONS"),
    ("X-HTTP-Method-Override", "OPTIONS"),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_way_to_write_an_address_leads_past_the_question() {
    let houses = [Away::FailClosed, Away::FailOpen]
        .map(|away| [(Kind::Nginx, away), (Kind::Caddy, away)])
        .concat();
    // In a house that fails open, whatever made the question fail would open it.
    let street = Street::build("tricks", &houses, &["--open-when-away"]);
    let (_, pass) = street.inside(QUEUE).await;
    for house in &street.houses {
        let name = format!("{:?}, {:?}", house.kind, house.away);
        let tried = try_all(house, &[]);
        assert!(tried.iter().all(|(_, answer)| !answer.body.contains(r#""seats""#)), "{name}");
        assert_eq!(house.site.reached(), Vec::<serde_json::Value>::new(), "{name}");

        // With a pass some of them do reach the site: that they would be seen there is sure.
        let cookie = format!("anteroom_pass={pass}");
        let tried = try_all(house, &[("Cookie", &cookie)]);
        let through = tried.iter().filter(|(_, answer)| answer.body.contains(r#""seats""#));
        let through: Vec<&str> = through.map(|(trick, _)| trick.as_str()).collect();
        assert!(through.contains(&"GET /api/seats HTTP/1.1"), "{name}: {through:?}");
        let reached = house.site.reached().len();
        assert!(reached >= TRICKS.len() / 2, "{name}: {reached}");
        println!("{name}: {} written, {reached} reach the site with a pass", tried.len());
    }
}

/// What came of each, without a pass or with these headers.
fn try_all(house: &House, headers: &[(&str, &str)]) -> Vec<(String, Answer)> {
    let host = house.host();
    let headers = [&[("Host", host.as_str())], headers].concat();
    let mut tried = Vec::new();
    let mut note = |what: String, answer: Answer| tried.push((what, answer));
    for trick in TRICKS {
        for version in [" HTTP/1.1", " HTTP/1.0", ""] {
            let line = [trick, version.as_bytes()].concat();
            note(text(&line), send(house.port, &line, &headers, ""));
        }
    }
    for address in ADDRESSES {
        let headers = [headers.clone(), vec![address]].concat();
        note(format!("{address:?}"), send(house.port, b"GET /api/seats HTTP/1.1", &headers, ""));
    }
    for (what, request) in framings(&host) {
        note(what.to_owned(), bytes(house.port, request.as_bytes()));
    }
    tried
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

/// A second request hidden in the first, two hosts, and none.
fn framings(host: &str) -> [(&'static str, String); 6] {
    let inner = "GET /api/seats HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = inner.len();
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 4";
    [
        ("no host", "GET /api/seats HTTP/1.0\r\n\r\n".to_owned()),
        (
            "two hosts",
            format!(
                "GET /api/seats HTTP/1.1\r\nHost: {host}\r\nHost: x\r\nConnection: close\r\n\r\n"
            ),
        ),
        (
            "a body that is a request",
            format!(
                "POST /anteroom/enter HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n\r\n{inner}"
            ),
        ),
        (
            "two lengths",
            format!(
                "POST /anteroom/enter HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{both}\r\n\r\n\
                 0\r\n\r\n{inner}"
            ),
        ),
        (
            "one after the other",
            format!(
                "GET /anteroom/client.js HTTP/1.1\r\nHost: {host}\r\n\r\n\
                 GET /api/seats HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            ),
        ),
        (
            "a socket",
            format!(
                "GET /api/seats HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, close\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_any_size_leads_past_the_question_nowhere() {
    let street = Street::build(
        "heads",
        &[(Kind::Nginx, Away::FailOpen), (Kind::Caddy, Away::FailOpen)],
        &["--open-when-away"],
    );
    let (visitor, pass) = street.inside(QUEUE).await;
    for house in &street.houses {
        // Around what either takes, around what Anteroom takes, and beyond all of it.
        for kilobytes in
            [1, 3, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 20, 31, 33, 64, 300, 1100]
        {
            let long = "a".repeat(kilobytes * 1000);
            let (half, third) = (&long[..long.len() / 2], &long[..long.len() / 3]);
            let path = format!("GET /api/seats?{long}");
            for (line, headers) in [
                (path.as_str(), vec![]),
                ("GET /api/seats", vec![("X-Long", long.as_str())]),
                ("GET /api/seats", vec![("X-Long", half), ("Cookie", half)]),
                ("GET /api/seats", vec![("X-Waiting-Token", half), ("Authorization", half)]),
                ("GET /api/seats", vec![("X-Long", third), ("Cookie", third), ("Accept", third)]),
                (&path[..path.len() / 2], vec![("X-Long", half)]),
            ] {
                let status = house.call(line, &headers, "").status;
                // 0 where the gateway has closed while we still wrote.
                let refused = [0, 400, 403, 414, 431, 494];
                assert!(refused.contains(&status), "{:?}: {kilobytes} kB: {status}", house.kind);
            }
            // A host is said twice by some.
            let host = format!("{long}.example");
            send(house.port, b"GET /api/seats HTTP/1.1", &[("Host", &host)], "");
        }
        assert_eq!(house.site.reached(), Vec::<serde_json::Value>::new(), "{:?}", house.kind);
        // What a browser has is far below that.
        let (other, cookie) = ("b".repeat(3000), format!("anteroom_pass={pass}"));
        let headers = [("X-Long", other.as_str()), ("Cookie", &cookie)];
        let answer = house.call("GET /api/seats", &headers, "");
        assert_eq!((answer.status, answer.json()["visitor"] == visitor), (200, true));
    }
}
