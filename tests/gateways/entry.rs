//! Who is let through to the site, and what the others are told.

use serde_json::{Value, json};

use crate::raw::send;
use crate::street::{Away, Kind, QUEUE, Site, Street};
use crate::system::wait_until;

const PAGE: (&str, &str) = ("Sec-Fetch-Mode", "navigate");
const SCRIPT: (&str, &str) = ("Sec-Fetch-Mode", "cors");

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pass_a_page_leads_to_the_line_and_a_call_is_told_where_it_is() {
    let street = Street::open("nobody");
    let waiting = format!("{}/waiting/{QUEUE}", street.system.node(0));
    for house in &street.houses {
        let kind = house.kind;
        // A page that somebody opens, in a newer browser and in an older one.
        for headers in [&[PAGE][..], &[("Accept", "text/html,*/*;q=0.8")]] {
            let answer = house.call("GET /concert/?row=A&side=left", headers, "");
            assert_eq!(answer.status, 302, "{kind:?}: {}", answer.head);
            let host = house.host().replace(':', "%3A");
            let back = format!(
                "{waiting}?target=http%3A%2F%2F{host}%2Fanteroom%2Fenter%3Fto%3D\
                 %252Fconcert%252F%253Frow%253DA%2526side%253Dleft"
            );
            assert_eq!(answer.header("location"), back, "{kind:?}");
            assert_eq!(answer.header("cache-control"), "no-store", "{kind:?}");
        }
        // Whatever else: a script, an image, a program that says nothing about itself.
        let image = ("Sec-Fetch-Mode", "no-cors");
        for headers in [&[SCRIPT, ("Accept", "text/html")][..], &[image], &[]] {
            for (line, body) in [("GET /api/seats", ""), ("POST /api/seats/A1", r#"{"a":1}"#)] {
                let answer = house.call(line, headers, body);
                assert_eq!(answer.status, 403, "{kind:?}: {}", answer.head);
                assert_eq!(answer.problem(), "no_pass", "{kind:?}");
                assert_eq!(answer.header("location"), waiting, "{kind:?}");
                assert_eq!(answer.json()["waiting"], waiting, "{kind:?}");
                assert!(answer.all("set-cookie").is_empty(), "{kind:?}");
            }
        }
        assert_eq!(house.site.reached(), Vec::<Value>::new(), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_enters_once_and_its_cookie_is_good_for_the_site() {
    let street = Street::open("enter");
    for house in &street.houses {
        let kind = house.kind;
        let (visitor, token) = street.admitted(QUEUE).await;
        let answer = house.enter(&token);
        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.body);
        assert_eq!(answer.json()["visitor"], visitor, "{kind:?}");
        let cookie = answer.header("set-cookie");
        assert!(cookie.starts_with("anteroom_pass=") && cookie.contains("; HttpOnly"), "{cookie}");
        assert!(!cookie.contains("Domain"), "the site's own origin: {cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();

        let headers = [SCRIPT, ("Cookie", cookie.as_str())];
        let page = house.call("GET /concert/", &[PAGE, ("Cookie", &cookie)], "");
        assert_eq!(page.status, 200, "{kind:?}: {}", page.head);
        assert!(page.body.contains("Lantern Festival") && page.all("set-cookie").is_empty());
        let seats = house.call("GET /api/seats", &headers, "");
        assert_eq!((seats.status, &seats.json()["visitor"]), (200, &json!(visitor)), "{kind:?}");
        let taken = house.call("POST /api/seats/A1", &headers, r#"{"why":"a body is handed on"}"#);
        assert_eq!((taken.status, &taken.json()["mine"]), (201, &json!(true)), "{kind:?}");
        // The site's own answers come through as they are.
        assert_eq!(house.call("GET /api/seats/Z9", &headers, "").problem(), "unknown_seat");
        let reached = house.site.reached();
        assert_eq!(reached.len(), 4, "{kind:?}: {reached:?}");
        for request in reached {
            assert_eq!(request["said"]["x-anteroom-visitor"], visitor, "{kind:?}: {request}");
        }

        // A second time it opens nothing, neither here nor beside the page of entry.
        let again = house.enter(&token);
        assert_eq!((again.status, again.problem().as_str()), (409, "token_already_used"));
        let again = house.call("GET /api/seats", &[SCRIPT, ("X-Waiting-Token", &token)], "");
        assert_eq!((again.status, again.problem().as_str()), (403, "no_pass"), "{kind:?}");
        // Nobody is made to enter by a page of another origin.
        let body = json!({ "token": token }).to_string();
        let foreign = [("Content-Type", "application/json"), ("Origin", "http://evil.example")];
        let answer = house.call("POST /anteroom/enter", &foreign, &body);
        assert_eq!((answer.status, answer.problem().as_str()), (403, "origin_refused"));
        // The page of entry, and what it needs, are there for everyone.
        for file in ["enter?to=/concert/", "enter.js", "client.js", "waiting.css"] {
            assert_eq!(house.call(&format!("GET /anteroom/{file}"), &[], "").status, 200);
        }
        assert_eq!(house.site.reached(), Vec::<Value>::new(), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_first_requests_with_one_token_are_one_entry() {
    let street = Street::open("together");
    for house in &street.houses {
        let kind = house.kind;
        let (visitor, token) = street.admitted(QUEUE).await;
        let headers = [SCRIPT, ("X-Waiting-Token", token.as_str())];
        let answers = std::thread::scope(|scope| {
            let ask = || house.call("GET /api/seats", &headers, "");
            let asked: Vec<_> = (0..5).map(|_| scope.spawn(ask)).collect();
            asked.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        let mut cookies = Vec::new();
        for answer in &answers {
            assert_eq!(answer.status, 200, "{kind:?}: {}\n{}", answer.head, answer.body);
            assert_eq!(answer.json()["visitor"], visitor, "{kind:?}");
            cookies.push(answer.header("set-cookie").split(';').next().unwrap());
        }
        cookies.dedup();
        assert!(cookies.len() == 1 && cookies[0].starts_with("anteroom_pass="), "{cookies:?}");
        for request in house.site.reached() {
            assert_eq!(request["said"]["x-anteroom-pass"], "…", "{kind:?}: {request}");
            assert_eq!(request["said"]["x-anteroom-visitor"], visitor, "{kind:?}: {request}");
        }
        // From then on with the cookie, which is not set again.
        let answer = house.call("GET /api/seats", &[("Cookie", cookies[0])], "");
        assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0), "{kind:?}");
    }
    let audit = street.system.run_json(&["audit", "verify", QUEUE]);
    let entries = street.houses.len();
    assert_eq!((&audit["ok"], &audit["redeemed"]), (&json!(true), &json!(entries)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_or_pass_of_this_queue_opens_nothing() {
    let street = Street::open("bad");
    street.system.queue("other", &json!({"rate_per_minute": 6000}));
    let (_, other_pass) = street.inside("other").await;
    let (_, other_token) = street.admitted("other").await;
    let (_, fresh) = street.admitted(QUEUE).await;
    let (_, pass) = street.inside(QUEUE).await;
    let altered = |text: &str| {
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let flipped = if signature.starts_with('A') { "B" } else { "A" };
        format!("{signed}.{flipped}{}", &signature[1..])
    };
    let (headless, unsigned) = (pass.rsplit_once('.').unwrap().0, "eyJhbGciOiJub25lIn0.e30.");
    let bad = [
        other_pass.as_str(),
        &other_token,
        &altered(&fresh),
        &altered(&pass),
        headless,
        unsigned,
        "nonsense",
        "a.b.c",
        "",
    ];
    for house in &street.houses {
        for text in bad {
            let (bearer, cookie) = (format!("Bearer {text}"), format!("anteroom_pass={text}"));
            for (name, value) in
                [("X-Waiting-Token", text), ("Authorization", &bearer), ("Cookie", &cookie)]
            {
                let answer = house.call("GET /api/seats", &[SCRIPT, (name, value)], "");
                let told = (answer.status, answer.problem());
                assert_eq!(told, (403, "no_pass".to_owned()), "{:?}: {name}: {value}", house.kind);
            }
        }
        // A token is none in a cookie, where it would come along with what others make a browser send.
        let cookie = format!("anteroom_pass={fresh}");
        assert_eq!(house.call("GET /api/seats", &[("Cookie", &cookie)], "").status, 403);
        assert_eq!(house.site.reached(), Vec::<Value>::new(), "{:?}", house.kind);
    }
    // None of them was used up by that.
    assert_eq!(street.houses[0].enter(&fresh).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_was_given_back_is_refused() {
    let street = Street::open("released");
    for house in &street.houses {
        let (visitor, pass) = street.inside(QUEUE).await;
        let seats = || house.call("GET /api/seats", &[("X-Waiting-Token", &pass)], "");
        assert_eq!(seats().status, 200, "{:?}", house.kind);
        let release = format!("/admin/queues/{QUEUE}/release");
        let (status, body) =
            street.system.operate("POST", &release, &json!({ "visitor": visitor }));
        assert_eq!(status, 200, "{body}");
        wait_until("the released pass is refused", || seats().status == 403);
        assert_eq!(seats().problem(), "no_pass", "{:?}", house.kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_site_itself_lets_nobody_in_without_a_pass() {
    let street = Street::open("second");
    street.system.queue("other", &json!({"rate_per_minute": 6000}));
    let (visitor, pass) = street.inside(QUEUE).await;
    let (_, other) = street.inside("other").await;
    let (_, token) = street.admitted(QUEUE).await;
    let site = &street.houses[0].site;
    let ask = |name: &str, value: &str| {
        send(site.port, b"GET /api/seats HTTP/1.1", &[("Host", "x"), (name, value)], "")
    };
    let waiting = format!("{}/waiting/{QUEUE}", street.system.node(0));
    for (name, text) in [
        ("X-Anteroom-Visitor", visitor.as_str()),
        ("X-Anteroom-Away", "1"),
        ("X-Anteroom-Pass", &other),
        ("X-Waiting-Token", &token),
        ("Cookie", "anteroom_pass=x"),
    ] {
        let answer = ask(name, text);
        assert_eq!((answer.status, answer.problem().as_str()), (403, "no_pass"), "{name}");
        assert_eq!(answer.json()["waiting"], waiting);
    }
    let bearer = format!("Bearer {pass}");
    let (plain, guarded) =
        (format!("a=1; anteroom_pass={pass}"), format!("__Host-anteroom_pass={pass}"));
    for (name, text) in [
        ("X-Anteroom-Pass", pass.as_str()),
        ("X-Waiting-Token", &pass),
        ("Authorization", &bearer),
        ("Cookie", &plain),
        ("Cookie", &guarded),
    ] {
        let answer = ask(name, text);
        assert_eq!((answer.status, &answer.json()["visitor"]), (200, &json!(visitor)), "{name}");
    }
    let page = send(site.port, b"GET /concert/ HTTP/1.1", &[("Host", "x")], "");
    assert_eq!((page.status, page.header("location")), (403, waiting.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_site_says_itself_stays_as_it_is() {
    let houses = [(Kind::Nginx, Away::FailOpen), (Kind::Caddy, Away::FailOpen)];
    // A site that takes this issuer for a stranger refuses whom the gateway lets through.
    let street = Street::build("own-words", &houses, &["--issuer", "another", "--open-when-away"]);
    let (_, pass) = street.inside(QUEUE).await;
    for house in &street.houses {
        let headers = [("X-Waiting-Token", pass.as_str())];
        let answer = house.call("GET /api/seats", &headers, "");
        assert_eq!((answer.status, answer.problem().as_str()), (403, "no_pass"));
        assert_eq!(answer.json()["detail"], "A pass is needed.", "{:?}", house.kind);
        let answer = house.call("GET /concert/", &[PAGE, headers[0]], "");
        assert_eq!(answer.status, 403, "{:?}", house.kind);
        assert!(answer.body.contains("wait in line"), "{:?}: {}", house.kind, answer.body);
        assert_eq!(house.site.reached().len(), 2, "{:?}", house.kind);
    }
    // A site in trouble says so itself; that it is gone is no trouble of Anteroom's.
    for kind in [Kind::Nginx, Kind::Caddy] {
        let said = "HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nours!";
        for (said, status) in [(said, 500), ("", 502)] {
            let house = street.house(kind, Away::FailOpen, Site::that_says(said));
            let answer = house.call("GET /x", &[("X-Waiting-Token", &pass)], "");
            assert_eq!(answer.status, status, "{kind:?}");
            assert!(answer.body == "ours!" || status == 502, "{kind:?}: {}", answer.body);
        }
    }
}
