//! Anteroom can't be asked, or can't use a token: nothing is spent, and each gateway does as it was
//! told to.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::raw::Answer;
use crate::street::{Away, House, Kind, QUEUE, Street};
use crate::system::{is_running, signal, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_log_passes_are_good_and_a_token_waits_unspent() {
    let street = Street::build(
        "log-away",
        &[
            (Kind::Nginx, Away::FailClosed),
            (Kind::Caddy, Away::FailClosed),
            (Kind::Nginx, Away::FailOpen),
            (Kind::Caddy, Away::FailOpen),
        ],
        &["--open-when-away"],
    );
    let (visitor, pass) = street.inside(QUEUE).await;
    for stopped in ["nats-server", "admission"] {
        let mut tokens = Vec::new();
        for _ in &street.houses {
            tokens.push(street.admitted(QUEUE).await.1);
        }
        let pid = street.system.pid(stopped);
        stop(pid);
        let with_token = |house: &House, token: &str| {
            house.call("GET /api/seats", &[("X-Waiting-Token", token)], "")
        };
        std::thread::scope(|scope| {
            for (house, token) in street.houses.iter().zip(&tokens) {
                scope.spawn(|| {
                    let name = format!("{stopped}: {:?}, {:?}", house.kind, house.away);
                    is_unavailable(&with_token(house, token), &name);
                    let answer = house.call("GET /api/seats", &[("X-Waiting-Token", &pass)], "");
                    assert_eq!((answer.status, &answer.json()["visitor"]), (200, &json!(visitor)));
                    // Through the page of entry Anteroom's own word comes.
                    let answer = house.enter(token);
                    assert_eq!(
                        (answer.status, answer.problem().as_str()),
                        (503, "log_unavailable")
                    );
                    assert!(!answer.header("retry-after").is_empty(), "{name}");
                    let nobody = house.call("GET /api/seats", &[], "");
                    assert_eq!((nobody.status, nobody.problem().as_str()), (403, "no_pass"));
                });
            }
        });
        signal(pid, Signal::CONT);
        for (house, token) in street.houses.iter().zip(&tokens) {
            let came = house.site.reached();
            assert!(came.iter().all(|request| request["visitor"] == visitor), "{came:?}");
            enters(house, &|| with_token(house, token));
            house.site.reached();
        }
    }
    let audit = street.system.run_json(&["audit", "verify", QUEUE]);
    let entered = 1 + 2 * street.houses.len();
    assert_eq!((&audit["ok"], &audit["redeemed"]), (&json!(true), &json!(entered)));
}

/// Stops a process, and waits until none of its threads does anything any more.
fn stop(pid: i32) {
    signal(pid, Signal::STOP);
    wait_until("it stands still", || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|state| state.trim().starts_with('T'))
        })
    });
}

/// The token that was shown in vain is good as soon as it can be used.
fn enters(house: &House, ask: &dyn Fn() -> Answer) {
    let began = Instant::now();
    loop {
        let answer = ask();
        if answer.status == 200 {
            assert!(answer.header("set-cookie").starts_with("anteroom_pass="));
            return;
        }
        assert_eq!(answer.status, 503, "{:?}: {}", house.kind, answer.body);
        assert!(began.elapsed() < Duration::from_secs(30), "never let in");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn is_unavailable(answer: &Answer, name: &str) {
    assert_eq!(answer.status, 503, "{name}: {}\n{}", answer.head, answer.body);
    assert_eq!(answer.problem(), "unavailable", "{name}");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0, "{name}");
    assert!(answer.all("set-cookie").is_empty(), "{name}");
}

/// How the node is made to be away.
#[derive(Clone, Copy, Debug)]
enum NodeIs {
    /// It takes connections and answers nothing.
    Stopped,
    /// It is gone, and nobody starts it again: its supervisor is stopped.
    Killed,
}

impl NodeIs {
    fn begin(self, street: &Street) {
        let node = street.system.pid("node");
        match self {
            Self::Stopped => stop(node),
            Self::Killed => {
                signal(street.system.up_pid(), Signal::STOP);
                signal(node, Signal::KILL);
                wait_until("the node is gone", || !is_running(node));
            }
        }
    }

    fn end(self, street: &Street) {
        match self {
            Self::Stopped => signal(street.system.pid("node"), Signal::CONT),
            Self::Killed => signal(street.system.up_pid(), Signal::CONT),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_node_answers_nobody_passes_where_it_fails_closed() {
    let street = Street::open("closed");
    let (visitor, pass) = street.inside(QUEUE).await;
    let cookie = format!("anteroom_pass={pass}");
    for node_is in [NodeIs::Killed, NodeIs::Stopped] {
        for house in &street.houses {
            assert_eq!(house.call("GET /api/seats", &[("Cookie", &cookie)], "").status, 200);
            house.site.reached();
        }
        let (_, token) = street.admitted(QUEUE).await;
        node_is.begin(&street);
        let page = ("Sec-Fetch-Mode", "navigate");
        std::thread::scope(|scope| {
            for house in &street.houses {
                let name = format!("{:?}, {node_is:?}", house.kind);
                // A node that goes on after a while does what it was asked meanwhile; one that is gone
                // can't.
                let shown = if matches!(node_is, NodeIs::Killed) { token.as_str() } else { &pass };
                let calls = [
                    ("GET /api/seats", "Cookie", cookie.as_str()),
                    ("GET /api/seats", "Accept", "*/*"),
                    ("POST /api/seats/A1", "X-Waiting-Token", shown),
                ];
                for (line, header, value) in calls {
                    let name = name.clone();
                    scope.spawn(move || {
                        is_unavailable(&house.call(line, &[(header, value)], ""), &name);
                    });
                }
                scope.spawn(|| is_unavailable(&house.enter(shown), "enter"));
                let cookie = cookie.as_str();
                scope.spawn(move || {
                    let answer = house.call("GET /concert/", &[page, ("Cookie", cookie)], "");
                    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
                    assert!(answer.header("content-type").starts_with("text/html"));
                    assert!(answer.body.contains("does not answer at the moment"));
                });
            }
        });
        for house in &street.houses {
            assert_eq!(house.site.reached().len(), 0, "{:?}", house.kind);
        }
        node_is.end(&street);
        for house in &street.houses {
            let seats = || house.call("GET /api/seats", &[("Cookie", &cookie)], "");
            wait_until("the pass is good again", || seats().status == 200);
            assert_eq!(seats().json()["visitor"], visitor);
        }
        // The token was not used up by that.
        enters(&street.houses[0], &|| street.houses[0].enter(&token));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_node_answers_the_site_decides_where_it_fails_open() {
    let kinds = [(Kind::Nginx, Away::FailOpen), (Kind::Caddy, Away::FailOpen)];
    for is_open in [false, true] {
        let options = if is_open { &["--open-when-away"][..] } else { &[] };
        let street = Street::build("fail-open", &kinds, options);
        let (visitor, pass) = street.inside(QUEUE).await;
        let cookie = format!("anteroom_pass={pass}");
        for house in &street.houses {
            let answer = house.call("GET /api/seats", &[("Cookie", &cookie)], "");
            assert_eq!(answer.status, 200, "the site knows the keys from now on");
            // While a node answers, all is as it is elsewhere.
            assert_eq!(house.call("GET /api/seats", &[], "").problem(), "no_pass");
            assert_eq!(house.call("GET /api/seats", &[("X-Anteroom-Away", "1")], "").status, 403);
            house.site.reached();
        }
        // Gone at first, and then one that takes the connection and says nothing.
        for node_is in [NodeIs::Killed, NodeIs::Stopped] {
            node_is.begin(&street);
            std::thread::scope(|scope| {
                for house in &street.houses {
                    scope.spawn(|| passes_over(house, &cookie, &visitor, is_open));
                }
            });
            node_is.end(&street);
            for house in &street.houses {
                wait_until("nobody is passed over", || {
                    house.call("GET /api/seats", &[], "").status == 403
                        && house.site.reached().is_empty()
                });
            }
        }
    }
}

/// A gateway that fails open: those inside go on, and about the others the site decides.
fn passes_over(house: &House, cookie: &str, visitor: &str, is_open: bool) {
    let kind = house.kind;
    let answer = house.call("GET /api/seats", &[("Cookie", cookie)], "");
    assert_eq!((answer.status, &answer.json()["visitor"]), (200, &json!(visitor)), "{kind:?}");
    let nobody = house.call("GET /api/seats", &[("X-Anteroom-Visitor", "me")], "");
    if is_open {
        assert_eq!((nobody.status, &nobody.json()["visitor"]), (200, &json!(null)), "{kind:?}");
    } else {
        assert_eq!((nobody.status, nobody.problem().as_str()), (403, "no_pass"), "{kind:?}");
        assert!(nobody.json()["waiting"].as_str().unwrap().ends_with("/waiting/concert"));
    }
    for request in house.site.reached() {
        assert_eq!(request["said"]["x-anteroom-away"], "1", "{kind:?}: {request}");
        assert!(request["said"].get("x-anteroom-visitor").is_none(), "{kind:?}: {request}");
    }
}
