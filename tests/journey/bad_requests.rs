//! Requests over HTTP that nobody should make: too large, from another site's page, with what only a
//! proxy may say, or to be led somewhere else. None of them costs a token.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::checker::{read, retell};
use crate::system::{System, call, post};
use crate::visitor::{Visitor, key};

/// More than a node and more than the operator's listener reads of a body.
const TOO_LARGE: [usize; 2] = [9 * 1024, 65 * 1024];
/// Targets that must lead nowhere, as JSON strings.
const REDIRECTS: &str = include_str!("../support/redirects.txt");
/// Of these there must be at least so many.
const REDIRECTS_MIN: usize = 100;

/// A page of the site, by whose gateway it is asked.
const PAGE: [(&str, &str); 5] = [
    ("X-Forwarded-Method", "GET"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "allowed.example"),
    ("X-Forwarded-Uri", "/seats"),
    ("Sec-Fetch-Mode", "navigate"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_everywhere() {
    let system = system("too-large", &[]);
    let token = token(&system, "one").await;
    let operator = format!("Bearer {}", system.text("operatorToken"));
    let operator = [("Authorization", operator.as_str())];
    let [node, admission] = TOO_LARGE;
    for (url, method, length, headers) in [
        (format!("{}/api/tokens/redeem", system.node(0)), "POST", node, &[][..]),
        (format!("{}/anteroom/enter", system.node(0)), "POST", node, &[]),
        (format!("{}/api/passes/renew", system.node(0)), "POST", node, &[]),
        (format!("{}/admin/queues/one", system.operator(0)), "PUT", admission, &operator),
        (format!("{}/admin/queues/one/release", system.operator(0)), "POST", admission, &operator),
    ] {
        let body = json!({"token": token, "padding": "x".repeat(length)}).to_string();
        let whole = ask(method, &url, &[headers, &JSON].concat(), &body);
        // In pieces it does not say how long it is.
        let pieces = in_pieces(method, &url, &[headers, &JSON].concat(), &body);
        for (how, (status, answer)) in [("whole", whole), ("in pieces", pieces)] {
            println!(
                "| {method} {url} {how} | {} bytes | {status} {} |",
                body.len(),
                answer["code"]
            );
            assert_eq!((status, &answer["code"]), (413, &json!("too_large")), "{url} {how}");
        }
    }
    assert_unspent(&system, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_made_to_enter_by_another_site() {
    let system = system("csrf", &["--public-url", "https://queue.example"]);
    let enter = format!("{}/anteroom/enter", system.node(0));
    let bad = token(&system, "one").await;
    let body = json!({ "token": bad }).to_string();
    refuses_other_types(&enter, &bad);
    let own = system.node(0);
    let secure_own = own.replace("http://", "https://") + ".evil.example";
    for origin in [
        "null",
        "",
        "https://evil.example",
        "http://allowed.example",
        "https://allowed.example:444",
        "https://allowed.example.evil.example",
        "https://evilallowed.example",
        "https://ALLOWED.example",
        "https://allowed.example/",
        "https://allowed.example@evil.example",
        "https://queue.example.evil.example",
        "http://queue.example",
        "http://127.0.0.1",
        "file://",
        "chrome-extension://abcdef",
        secure_own.as_str(),
    ] {
        refuses(&enter, &[JSON[0], ("Origin", origin)], &body, (403, "origin_refused"));
    }
    let cross = ("Sec-Fetch-Site", "cross-site");
    refuses(&enter, &[JSON[0], cross], &body, (403, "origin_refused"));
    refuses(&enter, &[JSON[0], cross, ("Origin", &own)], &body, (403, "origin_refused"));
    // The proxy names one host, and the page is of another.
    let host = ("X-Forwarded-Host", "shop.example");
    let evil = ("Origin", "https://evil.example");
    refuses(&enter, &[JSON[0], host, evil], &body, (403, "origin_refused"));
    // The page is of the same host without TLS, or of two.
    let proto = ("X-Forwarded-Proto", "https");
    refuses(
        &enter,
        &[JSON[0], host, proto, ("Origin", "http://shop.example")],
        &body,
        (403, "origin_refused"),
    );
    refuses(&enter, &[JSON[0], ("Origin", &own), evil], &body, (403, "origin_refused"));
    assert_unspent(&system, &bad).await;

    let charset = [("Content-Type", "Application/JSON; charset=utf-8")];
    for headers in [
        &[("Origin", own.as_str())][..],
        &[("Origin", "https://shop.example"), host],
        &[("Origin", "https://allowed.example")],
        &[("Origin", "https://queue.example")],
        &[("Sec-Fetch-Site", "same-origin")],
        &[],
    ] {
        let body = json!({"token": token(&system, "one").await}).to_string();
        let (status, answer) = ask("POST", &enter, &[headers, &charset].concat(), &body);
        println!("| {headers:?} | {status} |");
        assert_eq!(status, 200, "{headers:?} {answer}");
        assert!(!answer["header set-cookie"].is_null(), "{headers:?}");
    }
}

/// What a form of another site can send, and what is like JSON.
fn refuses_other_types(enter: &str, token: &str) {
    let body = json!({ "token": token }).to_string();
    let form = format!("token={token}");
    let multipart = format!(
        "--x\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n{token}\r\n--x--\r\n"
    );
    for (kind, body) in [
        (None, &body),
        (Some(""), &body),
        (Some("text/plain"), &body),
        (Some("text/plain; charset=utf-8"), &body),
        (Some("text/plain;application/json"), &body),
        (Some("text/plain, application/json"), &body),
        (Some("application/x-www-form-urlencoded"), &form),
        (Some("application/x-www-form-urlencoded"), &body),
        (Some("multipart/form-data; boundary=x"), &multipart),
        (Some("multipart/form-data; boundary=application/json"), &body),
        (Some("application/json, text/plain"), &body),
        (Some("application/json-patch+json"), &body),
        (Some("application/problem+json"), &body),
        (Some("application/jsonp"), &body),
        (Some("application/json5"), &body),
        (Some("application / json"), &body),
        (Some("\"application/json\""), &body),
        (Some("text/json"), &body),
        (Some("x-application/json"), &body),
        (Some("application/"), &body),
    ] {
        let headers: Vec<_> = kind.map(|kind| ("Content-Type", kind)).into_iter().collect();
        refuses(enter, &headers, body, (415, "bad_request"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_proxy_may_say_is_believed_of_nobody_else() {
    let foreign = system("forwarded", &["--trusted-proxies", "10.9.9.9/32"]);
    let trusting = system("trusting", &[]);
    let page =
        "/waiting/one?target=https%3A%2F%2Fallowed.example%2Fanteroom%2Fenter%3Fto%3D%252Fseats";
    for (system, cookie, way) in
        [(&foreign, "anteroom_pass=", "/waiting/one"), (&trusting, "__Host-anteroom_pass=", page)]
    {
        let enter = format!("{}/anteroom/enter", system.node(0));
        let authorize = format!("{}/api/authorize?queue=one", system.node(0));
        let body = json!({"token": token(system, "one").await}).to_string();
        let (_, answer) = ask("POST", &enter, &[&JSON[..], &PAGE].concat(), &body);
        let by_token = token(system, "one").await;
        let by_token = [&PAGE[..], &[("X-Waiting-Token", &by_token)]].concat();
        let (_, authorized) = call("GET", &authorize, &by_token, &Value::Null);
        for answer in [answer, authorized] {
            let set = answer["header set-cookie"].as_str().unwrap();
            assert!(set.starts_with(cookie), "{set}");
            assert_eq!(set.contains("Secure"), cookie.starts_with("__Host-"), "{set}");
        }
        let (status, refused) = call("GET", &authorize, &PAGE, &Value::Null);
        println!("| {cookie} | {status} {} |", refused["header location"]);
        assert_eq!((status, &refused["header location"]), (403, &json!(way)));
    }
    // A page of another site, behind a proxy of its own.
    let token = token(&foreign, "one").await;
    let enter = format!("{}/anteroom/enter", foreign.node(0));
    let body = json!({ "token": token }).to_string();
    let evil = [
        JSON[0],
        ("Origin", "https://evil.example"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "10.9.9.9"),
        ("Forwarded", "for=10.9.9.9;host=evil.example;proto=https"),
    ];
    refuses(&enter, &evil, &body, (403, "origin_refused"));
    assert_unspent(&foreign, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_about_for_one_queue_and_spent_for_its_own_alone() {
    let system = system("one-queue", &[]);
    let token = token(&system, "one").await;
    let bearer = format!("Bearer {token}");
    for query in [
        "queue=one&queue=one",
        "queue=one&queue=two",
        "queue=two&queue=one",
        "queue=one&%71ueue=one",
        "%71ueue=two&queue=one",
        "queue=one&queu%65=two",
        "queue=one&queue=",
        "queue=one&queue",
        "",
        "Queue=one",
        "queue[]=one",
        "redirect=1",
    ] {
        let url = format!("{}/api/authorize?{query}", system.node(0));
        for header in [("X-Waiting-Token", &token), ("Authorization", &bearer)] {
            let (status, answer) = call("GET", &url, &[(header.0, header.1)], &Value::Null);
            println!("| {query} | {} | {status} {} |", header.0, answer["code"]);
            assert_eq!((status, &answer["code"]), (400, &json!("bad_request")), "{query}");
        }
    }
    for (query, expected) in
        [("two", 403), ("nowhere", 404), ("demo", 403), ("%6fne%00", 404), ("ONE", 404)]
    {
        let url = format!("{}/api/authorize?queue={query}", system.node(0));
        for header in [("X-Waiting-Token", &token), ("Authorization", &bearer)] {
            let (status, answer) = call("GET", &url, &[(header.0, header.1)], &Value::Null);
            println!("| queue={query} | {} | {status} {} |", header.0, answer["code"]);
            assert_eq!(status, expected, "{query} {answer}");
            assert!(answer["header set-cookie"].is_null(), "{query}");
        }
    }
    assert_unspent(&system, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_led_anywhere_but_within_the_allowed_origins() {
    let system = system("redirects", &[]);
    let asked = |target: &str| {
        let encoded: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
        call(
            "GET",
            &format!("{}/api/queues/one?target={encoded}", system.node(0)),
            &[],
            &Value::Null,
        )
    };
    let bad: Vec<String> =
        REDIRECTS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(bad.len() >= REDIRECTS_MIN, "only {}", bad.len());
    let mut led = Vec::new();
    for target in &bad {
        let (status, answer) = asked(target);
        assert_eq!((status, &answer["queue"]), (200, &json!("one")), "{target:?}");
        led.extend((answer.get("target") != Some(&Value::Null)).then_some(target));
    }
    assert!(led.is_empty(), "{} of {} lead away: {led:#?}", led.len(), bad.len());
    let good = [
        "https://allowed.example",
        "https://allowed.example/",
        "https://allowed.example/seats?row=1&side=left",
        "https://allowed.example/?next=https://evil.example",
        "https://allowed.example?@evil.example",
        "https://allowed.example//evil.example/%5c",
        "https://allowed.example/%0d%0aSet-Cookie:%20a=b",
        "http://localhost:3000/",
    ];
    for target in good {
        assert_eq!(asked(target).1["target"], target);
    }
    println!("{} targets lead nowhere, {} within the allowed origins do", bad.len(), good.len());
}

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn system(name: &str, settings: &[&str]) -> System {
    let mut system = System::prepare(name);
    system.settings = settings.iter().map(|&setting| setting.to_owned()).collect();
    system.up();
    let origins = ["https://allowed.example", "http://localhost:3000"];
    for queue in ["one", "two"] {
        system.queue(queue, &json!({"rate_per_minute": 6000, "allowed_origins": origins}));
    }
    system
}

async fn token(system: &System, queue: &str) -> String {
    let mut visitor = Visitor::join(&system.socket(0, queue), &key()).await;
    let admitted = visitor.until("ADMITTED").await;
    admitted["payload"]["token"].as_str().unwrap().to_owned()
}

/// The token was not used by anything until now, and can be.
async fn assert_unspent(system: &System, token: &str) {
    let redeem = format!("{}/api/tokens/redeem", system.node(0));
    let before = retell(&read(system, "one").await).redeemed.len();
    assert_eq!(post(&redeem, &json!({ "token": token })).0, 200, "the token is spent");
    assert_eq!(retell(&read(system, "one").await).redeemed.len(), before + 1);
}

fn refuses(url: &str, headers: &[(&str, &str)], body: &str, expected: (u16, &str)) {
    let (status, answer) = ask("POST", url, headers, body);
    println!("| {headers:?} | {status} {} |", answer["code"]);
    assert_eq!((status, &answer["code"]), (expected.0, &json!(expected.1)), "{headers:?}");
    assert!(answer["header set-cookie"].is_null(), "{headers:?}");
}

/// A request with these headers and no others but what HTTP itself needs.
fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let length = format!("Content-Length: {}\r\n", body.len());
    said(method, url, headers, &length, body.as_bytes())
}

/// The same, with the body in pieces.
fn in_pieces(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let mut pieces = Vec::new();
    for piece in body.as_bytes().chunks(1_000) {
        pieces.extend(format!("{:x}\r\n", piece.len()).bytes());
        pieces.extend(piece);
        pieces.extend(b"\r\n");
    }
    pieces.extend(b"0\r\n\r\n");
    said(method, url, headers, "Transfer-Encoding: chunked\r\n", &pieces)
}

fn said(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    framing: &str,
    body: &[u8],
) -> (u16, Value) {
    use std::io::{Read as _, Write as _};
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{headers}{framing}\r\n"
    );
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(body).unwrap_or_default();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        fields.insert(format!("header {}", name.to_lowercase()), value.into());
    }
    (status, fields.into())
}
