//! What a token opens, once, and what it does not.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::system::{System, call, get, post};
use crate::visitor::{Visitor, connection_id, key, name};

async fn token(system: &System, queue: &str) -> (String, String, Visitor) {
    let mut visitor = Visitor::join(&system.socket(0, queue), &key()).await;
    let joined = visitor.until("JOINED").await;
    let admitted = visitor.until("ADMITTED").await;
    let token = admitted["payload"]["token"].as_str().unwrap().to_owned();
    (name(&connection_id(&joined)), token, visitor)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once_and_the_pass_until_it_is_given_back() {
    let system = System::start("tokens");
    system.queue("one", &json!({"rate_per_minute": 6000}));
    system.queue("two", &json!({"rate_per_minute": 6000}));
    let redeem = format!("{}/api/tokens/redeem", system.node(0));
    let authorize = |queue: &str| format!("{}/api/authorize?queue={queue}", system.node(0));
    let (visitor, used, mut socket) = token(&system, "one").await;

    // The same request again gets the same pass; another one does not.
    let keyed = |key: &'static str| {
        call("POST", &redeem, &[("Idempotency-Key", key)], &json!({ "token": used }))
    };
    let (status, first) = keyed("request-1");
    assert_eq!((status, &first["visitor"]), (200, &json!(visitor)), "{first}");
    assert_eq!(keyed("request-1").1["pass"], first["pass"]);
    assert_eq!(keyed("request-2").0, 409);
    assert_eq!(post(&redeem, &json!({ "token": used })).0, 409);
    assert_eq!(socket.until("ENDED").await["payload"]["reason"], "redeemed");

    // Altered, of another queue, or no token at all.
    let (_, fresh, _) = token(&system, "one").await;
    let (head, signature) = fresh.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let altered = format!("{head}.{flipped}{}", &signature[1..]);
    for bad in [altered.as_str(), "nonsense", "a.b.c", "", first["pass"].as_str().unwrap()] {
        let (status, problem) = post(&redeem, &json!({ "token": bad }));
        assert_eq!((status, &problem["code"]), (401, &json!("token_invalid")), "{bad}");
    }
    let other = call("GET", &authorize("two"), &[("X-Waiting-Token", &fresh)], &Value::Null);
    assert_eq!(other.0, 403, "a token of another queue opens nothing");
    assert_eq!(post(&redeem, &json!({ "token": fresh })).0, 200, "and was not used up by that");

    // A pass is good in the header and the cookie, for its queue alone.
    let pass = first["pass"].as_str().unwrap();
    let cookie = format!("other=1; anteroom_pass={pass}");
    let bearer = format!("Bearer {pass}");
    for (name, value) in
        [("X-Waiting-Token", pass), ("Authorization", &bearer), ("Cookie", &cookie)]
    {
        let (status, answer) = call("GET", &authorize("one"), &[(name, value)], &Value::Null);
        assert_eq!((status, &answer["header x-anteroom-visitor"]), (200, &json!(visitor)));
        assert_eq!(call("GET", &authorize("two"), &[(name, value)], &Value::Null).0, 403);
    }

    // Given back: refused from then on.
    let release = "/admin/queues/one/release";
    let (status, body) = system.operate("POST", release, &json!({ "visitor": visitor }));
    assert_eq!(status, 200, "{body}");
    crate::system::wait_until("the released pass is refused", || {
        let header = [("X-Waiting-Token", pass)];
        call("GET", &authorize("one"), &header, &Value::Null).1["code"] == "pass_released"
    });
    assert_eq!(system.operate("POST", release, &json!({ "visitor": visitor })).0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn entering_sets_the_cookie_and_a_fresh_token_authorizes_once() {
    let system = System::start("enter");
    system.queue("site", &json!({"rate_per_minute": 6000}));
    let enter = format!("{}/anteroom/enter", system.node(0));
    let (_, token_one, _) = token(&system, "site").await;
    let (status, answer) = post(&enter, &json!({ "token": token_one }));
    assert_eq!(status, 200, "{answer}");
    let cookie = answer["header set-cookie"].as_str().unwrap();
    for part in ["anteroom_pass=", "; Path=/", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let (_, token_two, _) = token(&system, "site").await;
    let https = [("X-Forwarded-Proto", "https")];
    let (_, answer) = call("POST", &enter, &https, &json!({ "token": token_two }));
    let cookie = answer["header set-cookie"].as_str().unwrap();
    assert!(cookie.starts_with("__Host-anteroom_pass=") && cookie.contains("; Secure"), "{cookie}");

    let (_, token_three, _) = token(&system, "site").await;
    let authorize = format!("{}/api/authorize?queue=site", system.node(0));
    let by_token = || call("GET", &authorize, &[("X-Waiting-Token", &token_three)], &Value::Null);
    let (status, answer) = by_token();
    assert_eq!(status, 200, "{answer}");
    let pass = answer["header x-anteroom-pass"].as_str().unwrap();
    assert_eq!(call("GET", &authorize, &[("X-Waiting-Token", pass)], &Value::Null).0, 200);
    let (status, answer) = by_token();
    assert_eq!((status, &answer["code"]), (403, &json!("token_already_used")));
    let cookie = format!("anteroom_pass={token_three}");
    assert_eq!(call("GET", &authorize, &[("Cookie", &cookie)], &Value::Null).0, 403);
    assert_eq!(get(&format!("{authorize}&redirect=1")).0, 302);
    assert_eq!(get(&format!("{authorize}&queue=other")).0, 400);
    assert_eq!(get(&format!("{}/api/authorize", system.node(0))).0, 400);

    let (status, keys) = get(&format!("{}/.well-known/jwks.json", system.node(0)));
    assert_eq!(keys["header cache-control"], "public, max-age=60");
    let key = &keys["keys"][0];
    assert_eq!((status, &key["kty"], &key["alg"]), (200, &json!("OKP"), &json!("EdDSA")));
    assert_eq!(get(&format!("{}/healthz", system.node(0))).0, 200);
    assert_eq!(get(&format!("{}/readyz", system.node(0))).1["ready"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_the_socket_that_proved_who_it_is_alone() {
    let mut system = System::start("proved");
    system.second_node();
    system.queue("site", &json!({"rate_per_minute": 6000}));
    system.operate("POST", "/admin/queues/site/pause", &json!({}));
    let (here, there) = (system.socket(0, "site"), system.socket(1, "site"));
    let mut first = Visitor::join(&here, &key()).await;
    let id = connection_id(&first.until("JOINED").await);
    let mut other = Visitor::join(&here, &key()).await;
    let others = connection_id(&other.until("JOINED").await);
    // The same visitor, now on another node: the socket before has nothing to say any more.
    let mut newest = Visitor::reconnect(&there, &id).await;
    newest.until("JOINED").await;
    assert_eq!(first.until("ERROR").await["payload"]["code"], "replaced");
    assert_eq!(first.until_closed().await, 1000);
    system.operate("POST", "/admin/queues/site/resume", &json!({}));
    let token = newest.until("ADMITTED").await["payload"]["token"].clone();
    let others_token = other.until("ADMITTED").await["payload"]["token"].clone();
    assert_ne!(token, others_token);
    // Anybody may know a visitor's name; without what proves it they are told nothing.
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let proof = |id: &str| decoded.decode(id).unwrap();
    let mixed = [&proof(&id)[..18], &proof(&others)[18..]].concat();
    for forged in [decoded.encode(mixed), decoded.encode(&proof(&id)[..18]), name(&id)] {
        let mut thief = Visitor::reconnect(&there, &forged).await;
        let told = thief.next().await;
        assert_eq!(told["payload"]["code"], "unknown_connection", "{told}");
    }
    // With it they are told the same, on whichever node.
    let mut again = Visitor::reconnect(&here, &id).await;
    assert_eq!(again.until("ADMITTED").await["payload"]["token"], token);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_requests_of_a_page_come_together_and_get_one_pass() {
    let mut system = System::start("together");
    system.second_node();
    system.queue("site", &json!({"rate_per_minute": 6000}));
    for _ in 0..10 {
        let (visitor, token, _) = token(&system, "site").await;
        let asked = (0..5).map(|number| {
            let authorize = format!("{}/api/authorize?queue=site", system.node(number));
            let token = token.clone();
            tokio::task::spawn_blocking(move || {
                call("GET", &authorize, &[("X-Waiting-Token", &token)], &Value::Null)
            })
        });
        let mut passes = Vec::new();
        for answer in asked.collect::<Vec<_>>() {
            let (status, answer) = answer.await.unwrap();
            assert_eq!((status, &answer["header x-anteroom-visitor"]), (200, &json!(visitor)));
            passes.push(answer["header x-anteroom-pass"].clone());
        }
        passes.dedup();
        assert_eq!(passes.len(), 1, "one session");
    }
    let audit = system.run_json(&["audit", "verify", "site"]);
    assert_eq!((&audit["ok"], &audit["redeemed"]), (&json!(true), &json!(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_is_renewed_within_its_session_and_no_longer() {
    let mut system = System::prepare("renew");
    system.settings = ["--pass-seconds", "60"].map(str::to_owned).to_vec();
    system.up();
    system.queue("site", &json!({"rate_per_minute": 6000, "session_seconds": 90}));
    let redeem = format!("{}/api/tokens/redeem", system.node(0));
    let renew = format!("{}/api/passes/renew", system.node(0));
    let (visitor, token, _) = token(&system, "site").await;
    let (_, first) = post(&redeem, &json!({ "token": token }));
    let seconds = |answer: &Value| {
        answer["expiresAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
    };
    let began = seconds(&first) - 60;
    assert!((began - jiff::Timestamp::now().as_second()).abs() < 5, "{first}");
    // Some time later, the newer one ends later, and with the session at the latest.
    let pass = first["pass"].as_str().unwrap().to_owned();
    let mut last = seconds(&first);
    crate::system::wait_until("a newer pass ends later", || {
        let bearer = format!("Bearer {pass}");
        let (status, newer) = call("POST", &renew, &[("Authorization", &bearer)], &Value::Null);
        assert_eq!((status, &newer["visitor"]), (200, &json!(visitor)), "{newer}");
        assert!((last..=began + 90).contains(&seconds(&newer)), "{newer}");
        std::mem::replace(&mut last, seconds(&newer)) < seconds(&newer)
    });
    // By the body as well, and by the cookie, which is set anew; a header of the site's own is passed over.
    assert_eq!(post(&renew, &json!({ "pass": pass })).0, 200);
    let cookie = format!("anteroom_pass={pass}");
    let by_site = format!("{}/anteroom/renew", system.node(0));
    let (status, newer) =
        call("POST", &by_site, &[("Cookie", &cookie), ("Authorization", "Bearer x")], &Value::Null);
    assert_eq!(status, 200);
    let cookie = newer["header set-cookie"].as_str().unwrap();
    assert!(cookie.starts_with(&format!("anteroom_pass={}", newer["pass"].as_str().unwrap())));
    // A token is no pass, and nothing is none either.
    for body in [json!({ "pass": token }), json!({ "pass": "x" }), Value::Null] {
        let (status, problem) = post(&renew, &body);
        assert_eq!((status, &problem["code"]), (401, &json!("pass_invalid")));
    }
    assert_eq!(post(&renew, &json!({ "token": pass })).0, 400);
    // Given back, it is renewed no more.
    let newer = newer["pass"].as_str().unwrap();
    system.operate("POST", "/admin/queues/site/release", &json!({ "visitor": visitor }));
    let (status, problem) = post(&renew, &json!({ "pass": newer }));
    assert_eq!((status, &problem["code"]), (401, &json!("pass_released")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_renews_no_pass() {
    let system = System::start("session-over");
    system.queue("brief", &json!({"rate_per_minute": 6000, "session_seconds": 5}));
    let redeem = format!("{}/api/tokens/redeem", system.node(0));
    let renew = format!("{}/api/passes/renew", system.node(0));
    let (_, token, _) = token(&system, "brief").await;
    let (_, first) = post(&redeem, &json!({ "token": token }));
    let body = json!({ "pass": first["pass"] });
    let (_, newer) = post(&renew, &body);
    assert_eq!(newer["expiresAt"], first["expiresAt"], "a pass lasts as long as its session");
    crate::system::wait_until("the session is over", || {
        let (status, problem) = post(&renew, &body);
        status == 401 && problem["code"] == "pass_expired"
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_in_leads_back_to_the_page_that_was_asked_for() {
    let system = System::start("way-back");
    let site = json!({"allowed_origins": ["https://shop.example"]});
    system.queue("site", &site);
    let authorize = format!("{}/api/authorize?queue=site", system.node(0));
    let page = [
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "Shop.example"),
        ("X-Forwarded-Uri", "/seats?row=1&side=left"),
        ("Sec-Fetch-Mode", "navigate"),
    ];
    let way = |headers: &[(&str, &str)]| {
        call("GET", &authorize, headers, &Value::Null).1["header location"].clone()
    };
    let back = "https%3A%2F%2Fshop.example%2Fanteroom%2Fenter%3Fto%3D%252Fseats%253Frow%253D1%2526side%253Dleft";
    assert_eq!(way(&page), format!("/waiting/site?target={back}"));
    // A call by a script leads to the line, and then to where the queue leads.
    for (index, value) in
        [(4, "cors"), (0, "POST"), (2, "evil.example"), (1, "http"), (3, "seats"), (3, "//evil")]
    {
        let mut other = page;
        other[index].1 = value;
        let expected = if value == "//evil" {
            // A path of the site all the same: its page of entry refuses it.
            json!(
                "/waiting/site?target=https%3A%2F%2Fshop.example%2Fanteroom%2Fenter%3Fto%3D%252F%252Fevil"
            )
        } else {
            json!("/waiting/site")
        };
        assert_eq!(way(&other), expected, "{value}");
    }
    // What the page asks, with what it was given.
    let asked = |target: &str| {
        get(&format!("{}/api/queues/site?target={target}", system.node(0))).1["target"].clone()
    };
    assert!(asked(back).as_str().unwrap().starts_with("https://shop.example/anteroom/enter?to="));
    assert_eq!(asked("https%3A%2F%2Fevil.example%2F"), Value::Null);
    let (status, _) = get(&format!("{}/anteroom/enter?to=/seats", system.node(0)));
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_used_in_time_ends_the_place() {
    let system = System::start("lapse");
    system.queue("brief", &json!({"rate_per_minute": 6000, "token_seconds": 5, "max_inside": 1}));
    let (_, late, mut first) = token(&system, "brief").await;
    // The only place inside is taken until then.
    let mut second = Visitor::join(&system.socket(0, "brief"), &key()).await;
    assert_eq!(second.until("QUEUE_UPDATE").await["payload"]["position"], 1);
    assert_eq!(first.until("ENDED").await["payload"]["reason"], "expired");
    let (status, problem) =
        post(&format!("{}/api/tokens/redeem", system.node(0)), &json!({ "token": late }));
    assert_eq!((status, &problem["code"]), (401, &json!("token_expired")));
    second.until("ADMITTED").await;
}
