//! A log that is away: everyone is told, nothing is spent, and nobody pays for it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::checker::{Entry, assert_once, read, retell};
use crate::row::{row, times};
use crate::system::{System, is_running, post, signal, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

/// Whoever joins is told within this: a node waits for 3 s, the rest is for a busy machine.
const REFUSED_MAX: Duration = Duration::from_millis(3_500);
/// What is refused meanwhile is done again within this.
const BACK_MAX: Duration = Duration::from_secs(10);
/// Visitors who wait on open sockets at first; more come with each time.
const WAITING: usize = 8;

/// How the log is made unavailable.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// It takes connections and answers nothing.
    Stopped,
    /// It is gone, and nobody starts it again: its supervisor is stopped.
    Killed,
}

impl Away {
    fn of(repetition: usize) -> Self {
        if repetition.is_multiple_of(2) { Self::Stopped } else { Self::Killed }
    }

    fn begin(self, system: &System) {
        let nats = system.pid("nats-server");
        match self {
            Self::Stopped => signal(nats, Signal::STOP),
            Self::Killed => {
                signal(system.up_pid(), Signal::STOP);
                signal(nats, Signal::KILL);
                wait_until("the log is gone", || !is_running(nats));
            }
        }
    }

    fn end(self, system: &System) {
        match self {
            Self::Stopped => signal(system.pid("nats-server"), Signal::CONT),
            Self::Killed => signal(system.up_pid(), Signal::CONT),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_is_away_everyone_is_told_and_nothing_is_spent() {
    let mut system = System::start("unavailable");
    system.second_node();
    system.queue("gate", &json!({"rate_per_minute": 6000, "token_seconds": 600}));
    system.queue("line", &json!({}));
    assert_eq!(system.operate("POST", "/admin/queues/line/pause", &json!({})).0, 200);
    let mut line = Waiting::default();
    for number in 0..WAITING {
        let visitor = Visitor::join(&system.socket(number, "line"), &key()).await;
        line.sockets.push(in_line(visitor).await);
    }
    let (seconds, repetitions) = (times(6, 30), times(2, 10));
    for repetition in 0..repetitions {
        let (jti, token) = grant(&system, "gate").await;
        let away = Away::of(repetition);
        let places = line.places(&system).await;
        away.begin(&system);
        let began = Instant::now();
        let joiners = line.are_told(&system, &places, &token).await;
        let left = Duration::from_secs(seconds as u64).saturating_sub(began.elapsed());
        tokio::time::sleep(left).await;
        away.end(&system);
        line.are_back(&system, joiners, &token).await;
        let used = retell(&read(&system, "gate").await).redeemed;
        assert_eq!(used.iter().filter(|other| **other == jti).count(), 1);
        assert_once(&used, "a grant was used");
    }
    line.places(&system).await;
    let Waiting { refused, marked, closed, worst_refused, worst_back, .. } = line;
    assert!(worst_refused <= REFUSED_MAX, "a join was told so after {worst_refused:?}");
    assert!(worst_back <= BACK_MAX, "not everything was back after {worst_back:?}");
    row(
        &format!("log unavailable for {seconds} s (stopped and killed in turn)"),
        repetitions,
        &format!(
            "{refused} joins told `log_unavailable`, the last after {:.2} s, and all in line \
             afterwards; {marked} times an open socket stayed and was told its place as `stale`; \
             {closed} redemptions answered 503, none spent; all back within {:.2} s",
            worst_refused.as_secs_f64(),
            worst_back.as_secs_f64(),
        ),
    );
}

/// Everyone in line, by name, on the socket that they stay on; and what was counted.
#[derive(Default)]
struct Waiting {
    sockets: Vec<(String, Visitor)>,
    refused: usize,
    marked: usize,
    closed: usize,
    worst_refused: Duration,
    worst_back: Duration,
}

impl Waiting {
    /// The names in the order of the log. All are there, and nobody was taken for absent too long.
    async fn places(&self, system: &System) -> Vec<String> {
        let entries = read(system, "line").await;
        assert!(entries.iter().all(|entry| entry.kind != "expired"));
        let places = retell(&entries).joined;
        assert_eq!(places.len(), self.sockets.len());
        for (name, _) in &self.sockets {
            assert!(places.contains(name), "the acknowledged join of {name} is lost");
        }
        places
    }

    /// The log is away: those who join are told so, those who wait see their place as stale, and
    /// no token is taken. Gives those who joined.
    async fn are_told(
        &mut self,
        system: &System,
        places: &[String],
        token: &str,
    ) -> Vec<(Visitor, Duration)> {
        let joiners = (0..2).map(|number| told_that_it_is_away(system.socket(number, "line")));
        let stale = self.sockets.iter_mut();
        let stale = stale.map(|(_, socket)| update(socket, |now| now["stale"] == true));
        let redeeming = (0..2).map(|number| redeem(system, number, token));
        let (joiners, stale, answers) =
            tokio::join!(join_all(joiners), join_all(stale), join_all(redeeming));
        for ((name, _), now) in self.sockets.iter().zip(&stale) {
            let place = places.iter().position(|other| other == name).unwrap();
            assert_eq!(now["position"], place + 1, "the place of an open socket");
        }
        for (status, problem) in answers {
            assert_eq!((status, &problem["code"]), (503, &json!("log_unavailable")));
            self.closed += 1;
        }
        self.marked += stale.len();
        self.refused += joiners.len();
        joiners
    }

    /// The log is there again: everyone has fresh numbers, someone new has a place, the token is
    /// taken, and those who joined meanwhile are in line.
    async fn are_back(&mut self, system: &System, joiners: Vec<(Visitor, Duration)>, token: &str) {
        let back = Instant::now();
        let newcomer = Visitor::join(&system.socket(0, "line"), &key()).await;
        let fresh = self.sockets.iter_mut().map(|(_, socket)| update(socket, is_fresh));
        let (newcomer, _, ()) =
            tokio::join!(in_line(newcomer), join_all(fresh), redeemed(system, token));
        self.sockets.push(newcomer);
        for (joiner, took) in joiners {
            self.worst_refused = self.worst_refused.max(took);
            self.sockets.push(in_line(joiner).await);
        }
        self.worst_back = self.worst_back.max(back.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_outage_costs_nobody_their_grace_or_their_grant() {
    let (grace, seconds, repetitions) = (times(5, 60), times(15, 600), times(1, 3));
    let system = System::start("long-outage");
    let (mut absent, mut grants) = (0, 0);
    for repetition in 0..repetitions {
        let queue = format!("round-{repetition}");
        let policy = json!({
            "rate_per_minute": 6000, "reconnect_seconds": grace, "token_seconds": grace,
        });
        system.queue(&queue, &policy);
        let (_, token) = grant(&system, &queue).await;
        let pause = format!("/admin/queues/{queue}/pause");
        assert_eq!(system.operate("POST", &pause, &json!({})).0, 200);
        let ids = [joins_and_goes(&system, &queue).await, joins_and_goes(&system, &queue).await];
        until_facts(&system, &queue, "disconnected", ids.len() + 1, grace).await;
        let away = Away::of(repetition + 1);
        away.begin(&system);
        tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
        away.end(&system);

        redeemed(&system, &token).await;
        grants += 1;
        // What ran out meanwhile is written within a tick.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (number, id) in ids.iter().enumerate() {
            let mut visitor = Visitor::reconnect(&system.socket(0, &queue), id).await;
            assert_eq!(connection_id(&visitor.until("JOINED").await), *id);
            let now = visitor.until("QUEUE_UPDATE").await;
            assert_eq!(now["payload"]["position"], number + 1, "the same place");
            absent += 1;
        }
        let entries = read(&system, &queue).await;
        assert_eq!((facts(&entries, "expired"), facts(&entries, "released")), (0, 0));
        // They are gone again: while the log is there, their grace does run out.
        if repetition == 0 {
            until_facts(&system, &queue, "expired", ids.len(), 2 * grace + 20).await;
        }
    }
    row(
        &format!("log unavailable for {seconds} s, graces and grants of {grace} s"),
        repetitions,
        &format!("{absent} absent visitors had their place again, {grants} grants were redeemed"),
    );
}

async fn joins_and_goes(system: &System, queue: &str) -> String {
    let mut visitor = Visitor::join(&system.socket(0, queue), &key()).await;
    connection_id(&visitor.until("JOINED").await)
}

pub fn facts(entries: &[Entry], kind: &str) -> usize {
    let entries = entries.iter().filter(|entry| entry.kind == kind);
    entries.map(|entry| entry.body["facts"].as_array().unwrap().len()).sum()
}

/// Waits until the log has so many facts of a kind.
async fn until_facts(system: &System, queue: &str, kind: &str, count: usize, seconds: usize) {
    let began = Instant::now();
    while facts(&read(system, queue).await, kind) < count {
        assert!(began.elapsed().as_secs() < seconds as u64, "{count} {kind} did not come");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Someone is let in and does not enter yet: the grant and its token.
async fn grant(system: &System, queue: &str) -> (String, String) {
    let mut visitor = Visitor::join(&system.socket(0, queue), &key()).await;
    let admitted = visitor.until("ADMITTED").await;
    let entries = read(system, queue).await;
    let last = entries.iter().rfind(|entry| entry.kind == "admitted").unwrap();
    let jti = last.body["facts"][0]["jti"].as_str().unwrap().to_owned();
    (jti, admitted["payload"]["token"].as_str().unwrap().to_owned())
}

/// Joins, and comes back with the time after which it was told that the log does not answer.
async fn told_that_it_is_away(url: String) -> (Visitor, Duration) {
    let mut visitor = Visitor::connect(&url).await.expect("the node takes a socket");
    let asked = Instant::now();
    visitor.say(&json!({"type": "JOIN", "joinKey": key()})).await;
    let error = visitor.next().await;
    let took = asked.elapsed();
    assert_eq!(error["payload"]["code"], "log_unavailable", "{error}");
    (visitor, took)
}

/// Waits for JOINED and for fresh numbers: the visitor's name, and their socket.
async fn in_line(mut visitor: Visitor) -> (String, Visitor) {
    let joined = visitor.until("JOINED").await;
    update(&mut visitor, is_fresh).await;
    (name(&connection_id(&joined)), visitor)
}

fn is_fresh(now: &Value) -> bool {
    now["stale"] != true
}

/// The next numbers that are as they should be.
async fn update(visitor: &mut Visitor, is_right: impl Fn(&Value) -> bool) -> Value {
    loop {
        let now = visitor.until("QUEUE_UPDATE").await["payload"].take();
        if is_right(&now) {
            return now;
        }
    }
}

async fn redeem(system: &System, node: usize, token: &str) -> (u16, Value) {
    let url = format!("{}/api/tokens/redeem", system.node(node));
    let body = json!({ "token": token });
    tokio::task::spawn_blocking(move || post(&url, &body)).await.unwrap()
}

/// Redeems a token as soon as that is possible. Each attempt is another request, so it succeeds only
/// if none before it has spent the token.
async fn redeemed(system: &System, token: &str) {
    let began = Instant::now();
    loop {
        let (status, answer) = redeem(system, 0, token).await;
        if status == 200 {
            return;
        }
        assert_eq!(status, 503, "{answer}");
        assert!(began.elapsed() < Duration::from_secs(30), "never redeemed: {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
