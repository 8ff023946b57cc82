//! A token is good once: however many present it at the same time, and whoever dies meanwhile.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::checker::{assert_once, read, retell};
use crate::kills::{kill, pace};
use crate::road::{Fate, Road};
use crate::row::{row, times};
use crate::system::{System, call, wait_until};
use crate::visitor::{Visitor, key};

/// Visitors who are in line at the same time to get their tokens.
const IN_LINE: usize = 100;
/// What is asked is answered within this; a node itself gives up after 10 s.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How often the same request is made again once it was answered.
const AGAIN: usize = 4;

/// Where a token is exchanged.
const PATHS: [&str; 2] = ["/api/tokens/redeem", "/anteroom/enter"];

#[tokio::test(flavor = "multi_thread")]
async fn of_all_who_race_for_a_token_one_gets_the_pass() {
    let (count, racers) = (times(30, 1_000), times(20, 60));
    let mut system = System::start("race");
    system.second_node();
    system.second_admission();
    system.queue("race", &json!({"rate_per_minute": 60_000, "token_seconds": 3_600}));
    let mut tokens = Vec::new();
    while tokens.len() < count {
        tokens.extend(gather(&system, IN_LINE.min(count - tokens.len())).await);
    }
    let tokens = Arc::new(tokens);
    let start = Arc::new(Barrier::new(racers));
    let racing: Vec<_> = (0..racers)
        .map(|number| {
            let racer = Racer::new(&system, number);
            let (tokens, start) = (Arc::clone(&tokens), Arc::clone(&start));
            // A thread of its own, so that nobody waits for a place to run in.
            std::thread::spawn(move || {
                let race = |token: &String| {
                    start.wait();
                    racer.present(token)
                };
                tokens.iter().map(race).collect::<Vec<_>>()
            })
        })
        .collect();
    let began = Instant::now();
    let answers: Vec<Vec<(u16, Value)>> =
        racing.into_iter().map(|racer| racer.join().unwrap()).collect();
    let took = began.elapsed();

    let mut passes = BTreeSet::new();
    let (mut by_node, mut used) = ([0, 0], 0);
    for which in 0..count {
        let mut winners = 0;
        for (number, answers) in answers.iter().enumerate() {
            let (status, answer) = &answers[which];
            if *status == 200 {
                winners += 1;
                by_node[number % 2] += 1;
                passes.insert(answer["pass"].as_str().unwrap().to_owned());
            } else {
                assert_eq!((*status, &answer["code"]), (409, &json!("token_already_used")));
                used += 1;
            }
        }
        assert_eq!(winners, 1, "so many got a pass for token {which}");
    }
    assert_eq!(passes.len(), count, "passes");
    let redeemed = retell(&read(&system, "race").await).redeemed;
    assert_once(&redeemed, "a grant was used");
    let grants: BTreeSet<String> = tokens.iter().map(|token| jti(token)).collect();
    assert_eq!(redeemed.into_iter().collect::<BTreeSet<_>>(), grants, "grants that were used");
    let audit = system.run_json(&["audit", "verify", "race"]);
    assert_eq!((&audit["ok"], &audit["redeemed"]), (&json!(true), &json!(count)), "{audit}");
    row(
        &format!(
            "{racers} redeemers race for each of {count} tokens, over two nodes and two workers"
        ),
        count,
        &format!(
            "{} requests: {} answered 200 ({} by one node, {} by the other), {used} 409, nothing \
             else; {} different passes, each grant redeemed once in the log, audit ok; {:.0} s",
            count * racers,
            passes.len(),
            by_node[0],
            by_node[1],
            passes.len(),
            took.as_secs_f64(),
        ),
    );
}

/// Tokens of so many visitors who join together.
async fn gather(system: &System, count: usize) -> Vec<String> {
    let joining: Vec<_> = (0..count)
        .map(|number| {
            let url = system.socket(number, "race");
            tokio::spawn(async move {
                let mut visitor = Visitor::join(&url, &key()).await;
                let admitted = visitor.until("ADMITTED").await;
                admitted["payload"]["token"].as_str().unwrap().to_owned()
            })
        })
        .collect();
    let mut tokens = Vec::new();
    for token in joining {
        tokens.push(token.await.unwrap());
    }
    tokens
}

/// The grant of a token.
fn jti(token: &str) -> String {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    claims["jti"].as_str().unwrap().to_owned()
}

/// One who presents every token, always at the same place and in the same way.
struct Racer {
    agent: ureq::Agent,
    url: String,
    is_keyed: bool,
}

impl Racer {
    fn new(system: &System, number: usize) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_MAX))
            .build()
            .into();
        let url = format!("{}{}", system.node(number), PATHS[number / 2 % 2]);
        Self { agent, url, is_keyed: (number / 4).is_multiple_of(2) }
    }

    fn present(&self, token: &str) -> (u16, Value) {
        let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
        if self.is_keyed {
            request = request.header("Idempotency-Key", &key());
        }
        let mut answer = request.send(json!({ "token": token }).to_string()).unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redemption_that_is_stored_and_not_answered_is_the_same_request_s_and_nobody_else_s() {
    let mut system = System::start("unanswered");
    let road = Road::lead(&system, "admission").await;
    system.kill("admission");
    system.second_node();
    wait_until("there is a worker", || {
        system.operate("GET", "/admin/queues", &json!(null)).0 == 200
    });
    system.queue("race", &json!({"rate_per_minute": 6_000, "token_seconds": 600}));
    let repetitions = times(3, 50);
    let (mut unanswered, mut answered_first, mut jtis) = (0, 0, Vec::new());
    for number in 0..repetitions {
        pace(number).await;
        let token = gather(&system, 1).await.remove(0);
        let jti = jti(&token);
        let request = key();
        let cut = road.seen(|seen| seen.cut.len());
        hold_what_comes_back(&road);
        let first = present(&system, number, &token, Some(&request));
        road.until("the answer to the append", |seen| seen.held > 0).await;
        until_redeemed(&system, &jti).await;
        assert!(!first.is_finished(), "it was answered before the worker could know");
        kill(&system, "admission");
        assert!(!first.is_finished(), "it was answered before the worker was dead");
        road.until("the worker is cut off", |seen| seen.cut.len() > cut).await;
        let at_death = road.seen(|seen| seen.cut[cut]);
        assert!(at_death > 0, "no append was unanswered when the worker died");
        unanswered += 1;
        road.forget();

        let (status, first) = first.await.unwrap();
        let pass = answered(&system, number + 1, &token, &request).await;
        for again in 0..AGAIN {
            assert_eq!(answered(&system, again, &token, &request).await, pass, "another pass");
        }
        // Its node asked again by itself, and may have given up before there was a worker.
        match status {
            200 => assert_eq!(first["pass"], pass, "another pass"),
            _ => assert_eq!((status, &first["code"]), (503, &json!("log_unavailable"))),
        }
        answered_first += usize::from(status == 200);
        for (node, other) in [(0, None), (1, None), (0, Some(key())), (1, Some(key()))] {
            let refused = present(&system, node, &token, other.as_deref()).await.unwrap();
            assert_eq!((refused.0, &refused.1["code"]), (409, &json!("token_already_used")));
        }
        jtis.push(jti);
    }
    let redeemed = retell(&read(&system, "race").await).redeemed;
    assert_eq!(redeemed, jtis, "each grant is used once");
    let audit = system.run_json(&["audit", "verify", "race"]);
    assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");
    row(
        "kill -9 the admission worker between the append of a redemption and its answer",
        repetitions,
        &format!(
            "{unanswered} times the redemption was in the log and unanswered at the death; \
             {answered_first} of the requests were answered all the same, with the pass that the \
             same request got {} times later, on either node; {} others refused (409), with another \
             key and without one; each grant redeemed once, audit ok",
            repetitions * (AGAIN + 1),
            repetitions * 4,
        ),
    );
}

/// From the append of a redemption on, nothing reaches the worker any more.
fn hold_what_comes_back(road: &Road) {
    let mut is_sent = false;
    road.rule(move |frame| {
        is_sent |= frame.is_append() && frame.subject.ends_with(".admission.redeemed");
        if is_sent && !frame.is_to_log { Fate::IsHeld } else { Fate::Passes }
    });
}

/// Waits until the log has the redemption.
async fn until_redeemed(system: &System, jti: &String) {
    let began = Instant::now();
    while !retell(&read(system, "race").await).redeemed.contains(jti) {
        assert!(began.elapsed() < ANSWER_MAX, "in vain: the redemption is stored");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

type Presenting = tokio::task::JoinHandle<(u16, Value)>;

/// Presents a token at a node, from now on; at which of the two places changes from node to node.
fn present(system: &System, node: usize, token: &str, request: Option<&str>) -> Presenting {
    let url = format!("{}{}", system.node(node), PATHS[node / 2 % 2]);
    let (body, request) = (json!({ "token": token }), request.map(str::to_owned));
    tokio::task::spawn_blocking(move || {
        let key = request.as_deref().map(|request| ("Idempotency-Key", request));
        call("POST", &url, key.as_slice(), &body)
    })
}

/// The pass that this request gets, as soon as there is a worker that answers.
async fn answered(system: &System, node: usize, token: &str, request: &str) -> Value {
    let began = Instant::now();
    loop {
        match present(system, node, token, Some(request)).await.unwrap() {
            (200, mut answer) => return answer["pass"].take(),
            (0 | 503, _) => assert!(began.elapsed() < 3 * ANSWER_MAX, "nobody answers"),
            (status, problem) => panic!("its own request was refused: {status} {problem}"),
        }
    }
}
