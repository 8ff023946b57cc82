//! What a client may not say of itself, since the gateway says it.

use serde_json::{Value, json};

use crate::street::{QUEUE, Street};

/// What nobody but a gateway says, also as many a site reads it, which takes `_` for `-`.
const CLAIMS: [(&str, &str); 14] = [
    ("X-Anteroom-Visitor", "somebody-else"),
    ("x-anteroom-visitor", "somebody-else"),
    ("X_Anteroom_Visitor", "somebody-else"),
    ("X-Anteroom_Visitor", "somebody-else"),
    ("X-Anteroom-Pass", "not-a-pass"),
    ("X_Anteroom_Pass", "not-a-pass"),
    ("X-Anteroom-Away", "1"),
    ("X_Anteroom_Away", "1"),
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Uri", "/evil"),
    ("X-Forwarded-Method", "DELETE"),
    ("X_Forwarded_For", "203.0.113.9"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_claims_reaches_neither_the_site_nor_anteroom() {
    let street = Street::open("claims");
    let (visitor, pass) = street.inside(QUEUE).await;
    let cookie = format!("anteroom_pass={pass}");
    for house in &street.houses {
        let kind = house.kind;
        let headers = [&CLAIMS[..], &[("Cookie", cookie.as_str())]].concat();
        // Both in one request and each alone, so that none hides behind another.
        let mut sets = vec![headers];
        sets.extend(CLAIMS.map(|claim| vec![claim, ("Cookie", cookie.as_str())]));
        for headers in &sets {
            assert_eq!(house.call("GET /api/seats?a=1", headers, "").status, 200, "{kind:?}");
        }
        let reached = house.site.reached();
        assert_eq!(reached.len(), sets.len(), "{kind:?}");
        for request in reached {
            let said = request["said"].as_object().unwrap();
            assert_eq!(said["x-anteroom-visitor"], visitor, "{kind:?}: {request}");
            assert_eq!(said["x-forwarded-for"], "127.0.0.1", "{kind:?}: {request}");
            assert_eq!(said["x-forwarded-proto"], "http", "{kind:?}: {request}");
            assert_eq!(said["x-forwarded-host"], house.host(), "{kind:?}: {request}");
            // The gateway may say these of the request, as it is.
            let is_true = |name: &str, value: Value| said.get(name).is_none_or(|it| *it == value);
            assert!(is_true("x-forwarded-uri", json!("/api/seats?a=1")), "{kind:?}: {request}");
            assert!(is_true("x-forwarded-method", json!("GET")), "{kind:?}: {request}");
            let known = ["visitor", "for", "proto", "host", "uri", "method"];
            let is_known = |name: &String| known.iter().any(|known| name.ends_with(known));
            assert!(said.keys().all(|name| is_known(name) && !name.contains('_')), "{request}");
        }

        // Without a pass, a claim is none; and the way back is to where the request came to.
        let page = [&CLAIMS[..], &[("Sec-Fetch-Mode", "navigate")]].concat();
        let answer = house.call("GET /concert/", &page, "");
        assert_eq!(answer.status, 302, "{kind:?}");
        let way = answer.header("location");
        let host = house.host().replace(':', "%3A");
        assert!(way.contains(&host) && way.ends_with("%252Fconcert%252F"), "{kind:?}: {way}");
        assert!(!way.contains("evil"), "{kind:?}: {way}");
        // The name of the cookie tells that the client's `https` was not believed.
        let (_, token) = street.admitted(QUEUE).await;
        let claims = [&CLAIMS[..], &[("X-Waiting-Token", token.as_str())]].concat();
        let answer = house.call("GET /api/seats", &claims, "");
        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.body);
        assert!(answer.header("set-cookie").starts_with("anteroom_pass="), "{kind:?}");
    }
}
