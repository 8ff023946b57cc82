//! Three log servers whose wall clocks are minutes apart, and a log whose leader moves between them.

use std::time::{Duration, Instant};

use anteroom::queue::time::UNDECIDED_SECONDS_MAX;
use serde_json::{Value, json};

use crate::away::facts;
use crate::by_hand::in_order;
use crate::checker::read;
use crate::cluster::Cluster;
use crate::crowd::{Crowd, Visit};
use crate::reckoning::assert_all_in_order;
use crate::row::{row, times};
use crate::system::{System, call, post};
use crate::two::{CALM, PAUSE_MAX, worst};
use crate::visitor::{Visitor, connection_id, key};

/// How far off the clock of each server is, in seconds.
const CLOCKS: [i64; 3] = [0, -180, 180];
/// Who leads next, the first server at first: by each way between two of them, and again.
const LEADERS: [usize; 6] = [1, 2, 0, 2, 1, 0];
/// People let in a minute.
const RATE: usize = 600;
/// Shorter than clocks are apart, and longer than anybody is inside or away here.
const SECONDS: u64 = 120;
/// Somebody who is inside is not asked about more often.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Where grants stop, it shows within this.
const WATCHED: Duration = Duration::from_secs(6);
/// Nobody is let in for no longer than this at a change of leader: another is elected and, where it is
/// ahead, what nodes have written before the next decision is up to 5 s ahead of the worker, who waits for it.
const CHANGE_MAX: Duration =
    PAUSE_MAX.saturating_add(Duration::from_secs(UNDECIDED_SECONDS_MAX as u64));
/// People who are let in in a row when grants have not stopped.
const IN_A_ROW: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_is_minutes_off_stops_nobody_and_costs_nobody_their_place() {
    let cluster = Cluster::start().await;
    let at = ["node", "projector", "admission"];
    let system = System::start_at("leaders", 3, |role| {
        cluster.url(role, at.iter().position(|other| *other == role).unwrap_or_default())
    });
    let policy = json!({
        "rate_per_minute": RATE,
        "token_seconds": SECONDS,
        "session_seconds": SECONDS,
        "reconnect_seconds": SECONDS,
    });
    for queue in ["storm", "line"] {
        system.queue(queue, &policy);
        cluster.move_leader(queue, 0).await;
    }
    cluster.set_clocks([CLOCKS[1], CLOCKS[2]]).await;
    let crowd = Crowd::gather(&system, "storm", 30, Duration::ZERO);
    tokio::time::sleep(CALM).await;
    let (mut leader, mut changes, mut harmed) = (0, Vec::new(), Vec::new());
    for number in 0..times(3, 10) {
        let people = People::come(&system).await;
        let next = LEADERS[number % LEADERS.len()];
        let jump = CLOCKS[next] - CLOCKS[leader];
        let began = Instant::now();
        for queue in ["storm", "line"] {
            cluster.move_leader(queue, next).await;
        }
        harmed.extend(people.watch(&system, &crowd, began).await);
        changes.push((jump, began));
        leader = next;
    }
    let visits = crowd.leave().await;
    let gaps = gaps(&changes, &visits);
    let longest = worst(&gaps.iter().map(|(_, gap)| *gap).collect::<Vec<_>>());
    assert!(longest <= CHANGE_MAX && harmed.is_empty(), "nobody was let in: {gaps:?}; {harmed:#?}");
    let entries = assert_all_in_order(&system, "storm", &visits).await;
    in_order(&system, "line");
    row(
        "three log servers with clocks minutes apart (libfaketime), the leader moves",
        changes.len(),
        &format!(
            "{} let in and entered once, in order, by {} entries; nobody was let in for {} s (by jumps \
             of the leader's clock of {} s); after each change a pass was good, a grant was redeemed, \
             and an absent visitor had their place again; the audit finds nothing",
            visits.len(),
            entries.len(),
            list(gaps.iter().map(|(_, gap)| format!("{:.2}", gap.as_secs_f64()))),
            list(gaps.iter().map(|(jump, _)| format!("{jump:+}"))),
        ),
    );
}

/// Those who a change of clocks could harm.
struct People {
    /// Of one who is inside.
    pass: String,
    /// Of one who was let in and has not entered.
    token: Value,
    /// Of one who waits, and is absent.
    connection_id: String,
}

impl People {
    async fn come(system: &System) -> Self {
        operate(system, "resume");
        let mut inside = Visitor::join(&system.socket(1, "line"), &key()).await;
        let mut granted = Visitor::join(&system.socket(1, "line"), &key()).await;
        let token = inside.until("ADMITTED").await["payload"]["token"].take();
        let (status, mut answer) = redeem(system, &token);
        assert_eq!(status, 200, "{answer}");
        let token = granted.until("ADMITTED").await["payload"]["token"].take();
        operate(system, "pause");
        let mut absent = Visitor::join(&system.socket(1, "line"), &key()).await;
        let connection_id = connection_id(&absent.until("JOINED").await);
        let gone = facts(&read(system, "line").await, "disconnected");
        drop(absent);
        while facts(&read(system, "line").await, "disconnected") == gone {
            tokio::time::sleep(ASK_EVERY).await;
        }
        let Value::String(pass) = answer["pass"].take() else { panic!("no pass: {answer}") };
        Self { pass, token, connection_id }
    }

    /// Looks after them until it is seen that people are let in again: who was harmed, and how.
    async fn watch(self, system: &System, crowd: &Crowd, since: Instant) -> Vec<String> {
        // Where clocks are waited for, the full form shows for how long.
        let stalled_max = Duration::from_secs(times(30, 420) as u64);
        let is_in_time = || since.elapsed() < Duration::from_secs(SECONDS / 2);
        let (mut harmed, mut entered) = (Vec::new(), 0);
        while since.elapsed() < WATCHED || crowd.entered() < entered + IN_A_ROW {
            assert!(since.elapsed() < stalled_max, "nobody is let in any more; {harmed:#?}");
            if harmed.is_empty() && is_in_time() {
                harmed.extend(
                    self.is_refused(system).map(|why| format!("{:?} {why}", since.elapsed())),
                );
            }
            if since.elapsed() < WATCHED {
                entered = crowd.entered();
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        if !is_in_time() {
            return harmed;
        }
        let (status, answer) = redeem(system, &self.token);
        if status != 200 {
            harmed.push(format!("a grant: {answer}"));
        }
        let mut back = Visitor::reconnect(&system.socket(1, "line"), &self.connection_id).await;
        let mut said = back.next().await;
        while said["type"] == "JOINED" {
            said = back.next().await;
        }
        if said["type"] == "QUEUE_UPDATE" {
            back.say(&json!({"type": "LEAVE"})).await;
            back.until_closed().await;
        } else {
            harmed.push(format!("an absent visitor: {said}"));
        }
        harmed
    }

    /// Why the one who is inside is not let through, if so.
    fn is_refused(&self, system: &System) -> Option<String> {
        let authorize = format!("{}/api/authorize?queue=line", system.node(1));
        let header = [("X-Waiting-Token", self.pass.as_str())];
        let (status, answer) = call("GET", &authorize, &header, &Value::Null);
        (status != 200).then(|| format!("a pass: {answer}"))
    }
}

fn operate(system: &System, what: &str) {
    let (status, body) = system.operate("POST", &format!("/admin/queues/line/{what}"), &json!({}));
    assert_eq!(status, 200, "{body}");
}

fn redeem(system: &System, token: &Value) -> (u16, Value) {
    post(&format!("{}/api/tokens/redeem", system.node(1)), &json!({ "token": token }))
}

/// The longest time without a grant that ended between each change of leaders and the next, with by how many seconds
/// the leader's clock jumped.
fn gaps(changes: &[(i64, Instant)], visits: &[Visit]) -> Vec<(i64, Duration)> {
    let mut let_in: Vec<Instant> = visits.iter().filter_map(|visit| visit.let_in).collect();
    let_in.sort_unstable();
    let until = changes.iter().skip(1).map(|(_, began)| *began).chain(let_in.last().copied());
    let gap = |(from, until): (Instant, Instant)| {
        let pairs = let_in.windows(2).filter(|pair| from < pair[1] && pair[1] <= until);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    let within = changes.iter().zip(until);
    within.map(|((jump, from), until)| (*jump, gap((*from, until)))).collect()
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
