//! Processes that are killed at once (kill -9) under steady load, while an append is unanswered.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::crowd::{Crowd, Door, Visit};
use crate::reckoning::{assert_all_in_order, assert_rate, assert_same_everywhere};
use crate::road::{Fate, Road};
use crate::row::{row, times};
use crate::system::{System, get, is_running, signal, wait_until};

/// Visitors who were on a socket are back on one with numbers within this.
const VISITORS_BACK_MAX: Duration = Duration::from_secs(35);
/// The first decision after admission was killed comes within this.
const DECIDES_AGAIN_MAX: Duration = Duration::from_secs(5);
/// A process that ran for longer than this is started again at once; the supervisor's pause before
/// it starts one that ended sooner doubles each time.
const STEADY_AFTER: Duration = Duration::from_millis(10_200);
/// So many kills in a row before the process is left to become steady.
const KILLS_IN_A_ROW: usize = 3;

/// Grants a minute where the rate is what is looked at: the next is due later than a new worker begins.
const SLOW: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_that_is_killed_costs_nobody_their_place() {
    let (mut system, road) = system_with_nodes_on_a_road("kill-projector").await;
    system.queue("storm", &json!({"rate_per_minute": 240, "token_seconds": 600}));
    let crowd = Crowd::gather(&system, "storm", 40, Duration::ZERO);
    let door = Door::of(&system, "storm");
    let mut tally = Tally::default();
    for number in 0..times(3, 50) {
        pace(number).await;
        hold_answers(&road).await;
        let killed = kill(&system, "projector");
        tally.unanswered.push(road.seen(|seen| seen.unanswered()));
        road.release().await;
        tally.visits.push(door.look_in(number).await);
        tally.back(killed);
    }
    assert!(tally.worst <= VISITORS_BACK_MAX, "numbers again after {:?}", tally.worst);
    tally.visits.extend(crowd.leave().await);
    assert_all_in_order(&system, "storm", &tally.visits).await;
    let rebuilt = assert_same_everywhere(&mut system, "storm");
    tally.row("kill -9 a projector", "numbers again within", rebuilt);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_killed_loses_nothing_that_was_acknowledged() {
    let (mut system, road) = system_with_nodes_on_a_road("kill-log").await;
    system.queue("storm", &json!({"rate_per_minute": 240, "token_seconds": 600}));
    let crowd = Crowd::gather(&system, "storm", 40, Duration::ZERO);
    let door = Door::of(&system, "storm");
    let mut tally = Tally::default();
    let (mut number, repetitions) = (0, times(3, 20));
    while tally.unanswered.len() < repetitions {
        assert!(number < 10 * repetitions, "hardly any kill found an append unanswered");
        pace(number).await;
        let cut = road.seen(|seen| seen.cut.len());
        // In turn: the entry is stored and the answer is lost; the entry has only just been sent.
        if number % 2 == 0 {
            hold_answers(&road).await;
        } else {
            let appended = road.seen(|seen| seen.appended);
            road.until("an append", |seen| seen.appended > appended).await;
        }
        let killed = kill(&system, "nats-server");
        road.until("both nodes are cut off", |seen| seen.cut.len() >= cut + 2).await;
        let unanswered = road.seen(|seen| seen.cut[cut..].iter().sum());
        road.forget();
        tally.visits.push(door.look_in(number).await);
        tally.back(killed);
        // A kill that came too late for any append is none of the counted ones.
        if unanswered > 0 {
            tally.unanswered.push(unanswered);
        }
        number += 1;
    }
    assert!(tally.worst <= VISITORS_BACK_MAX, "numbers again after {:?}", tally.worst);
    tally.visits.extend(crowd.leave().await);
    assert_all_in_order(&system, "storm", &tally.visits).await;
    let rebuilt = assert_same_everywhere(&mut system, "storm");
    tally.row("kill -9 the single NATS server", "joins are taken again within", rebuilt);
}

/// What becomes of the decision that was under way when its worker was killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Decision {
    /// It is stored, and the worker heard nothing of it.
    Stored,
    /// It never reached the log.
    Lost,
    /// It reaches the log when another worker has gone on.
    Late,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_worker_that_is_killed_in_the_middle_of_a_batch_lets_nobody_in_twice() {
    let mut system = System::start("kill-admission");
    let road = Road::lead(&system, "admission").await;
    system.kill("admission");
    system.second_node();
    wait_until("there is a worker", || {
        system.operate("GET", "/admin/queues", &json!(null)).0 == 200
    });
    system.queue("slow", &json!({"rate_per_minute": SLOW, "token_seconds": 600}));
    system.queue("fast", &json!({"rate_per_minute": 6000, "token_seconds": 600}));
    let slow = Crowd::gather(&system, "slow", 4, Duration::ZERO);
    let fast = Crowd::gather(&system, "fast", 10, Duration::from_secs(2));
    let mut tally = Tally::default();
    let mut newcomers = Vec::new();
    let (mut grants, mut late) = (0, 0);
    for number in 0..times(3, 100) {
        pace(number).await;
        let what = [Decision::Stored, Decision::Lost, Decision::Late][number % 3];
        let queue = ["slow", "fast"][number % 2];
        let cut = road.seen(|seen| seen.cut.len());
        grants += decision_under_way(&system, &road, queue, what).await;
        let killed = kill(&system, "admission");
        // Somebody waits, whatever has become of the others.
        let door = Door::of(&system, queue);
        newcomers.push(tokio::spawn(async move { door.visit(number).await }));
        road.until("the worker is cut off", |seen| seen.cut.len() > cut).await;
        tally.unanswered.push(road.seen(|seen| seen.cut[cut]));
        if what == Decision::Late {
            road.rule(|_| Fate::Passes);
        } else {
            road.forget();
        }
        let subject = format!("anteroom.log.{queue}.admission.admitted");
        road.until("a worker goes on", |seen| {
            seen.answered.iter().any(|other| other.at > killed && other.subject == subject)
        })
        .await;
        tally.back(killed);
        late += road.release().await;
    }
    assert!(tally.worst <= DECIDES_AGAIN_MAX, "it went on only after {:?}", tally.worst);
    assert!(late > 0, "no decision came late");
    let (mut slow, mut fast) = (slow.leave().await, fast.leave().await);
    for (number, newcomer) in newcomers.into_iter().enumerate() {
        let queue = if number.is_multiple_of(2) { &mut slow } else { &mut fast };
        queue.push(newcomer.await.unwrap());
    }
    assert_rate(&assert_all_in_order(&system, "slow", &slow).await, SLOW);
    assert_rate(&assert_all_in_order(&system, "fast", &fast).await, 6000);
    let rebuilt = assert_same_everywhere(&mut system, "fast");
    tally.visits.extend(slow.into_iter().chain(fast));
    let fault = format!(
        "kill -9 the admission worker with a decision under way ({grants} grants in all; {late} \
         decisions of the dead came late)"
    );
    tally.row(&fault, "rate kept, the next decision within", rebuilt);
}

/// A system whose nodes both reach the log over a road.
async fn system_with_nodes_on_a_road(name: &str) -> (System, Road) {
    let mut system = System::start(name);
    let road = Road::lead(&system, "node").await;
    system.kill("node");
    system.second_node();
    let ready = format!("{}/readyz", system.node(0));
    wait_until("the first node is ready again", || get(&ready).0 == 200);
    (system, road)
}

/// Comes back when an entry of a node is stored and the node was not told.
async fn hold_answers(road: &Road) {
    road.rule(|frame| if frame.answers.is_some() { Fate::IsHeld } else { Fate::Passes });
    road.until("an answer", |seen| seen.held > 0).await;
}

/// Comes back when the worker has sent grants, and nothing of them reaches it any more: how many.
/// Where many go at once, that are several.
async fn decision_under_way(system: &System, road: &Road, queue: &str, what: Decision) -> usize {
    let grants_min = if queue == "fast" { 2 } else { 1 };
    let subject = format!("anteroom.log.{queue}.admission.admitted");
    let (to_test, mut sent) = tokio::sync::watch::channel(0);
    road.rule(move |frame| {
        let grants = frame.text().matches(r#""jti""#).count();
        if frame.is_append() && frame.subject == subject && grants >= grants_min {
            to_test.send_replace(grants);
            return if what == Decision::Stored { Fate::Passes } else { Fate::IsHeld };
        }
        let comes_back = what == Decision::Stored && *to_test.borrow() > 0 && !frame.is_to_log;
        if comes_back { Fate::IsHeld } else { Fate::Passes }
    });
    let pid = system.pid("admission");
    for _ in 0..20 {
        if queue == "fast" {
            // Visitors gather in front of a worker that does nothing for a moment.
            signal(pid, Signal::STOP);
            tokio::time::sleep(Duration::from_secs(1)).await;
            signal(pid, Signal::CONT);
        }
        let soon = Duration::from_secs(2);
        if tokio::time::timeout(soon, sent.wait_for(|grants| *grants > 0)).await.is_ok() {
            if what == Decision::Stored {
                road.until("the entry came back", |seen| seen.held > 0).await;
            }
            return *sent.borrow();
        }
    }
    panic!("no decision of {grants_min} grants was made");
}

/// Kills a process at once, and comes back when it is dead: when that was.
pub fn kill(system: &System, name: &str) -> Instant {
    let pid = system.pid(name);
    let killed = Instant::now();
    signal(pid, Signal::KILL);
    wait_until("it is dead", || !is_running(pid));
    killed
}

/// Leaves the process to become steady after some kills in a row.
pub async fn pace(number: usize) {
    if number > 0 && number.is_multiple_of(KILLS_IN_A_ROW) {
        tokio::time::sleep(STEADY_AFTER).await;
    }
}

/// What was counted over the repetitions.
#[derive(Default)]
struct Tally {
    /// For each kill.
    unanswered: Vec<usize>,
    worst: Duration,
    visits: Vec<Visit>,
}

impl Tally {
    fn back(&mut self, killed: Instant) {
        self.worst = self.worst.max(killed.elapsed());
    }

    fn row(&self, fault: &str, back: &str, rebuilt: Duration) {
        let least = self.unanswered.iter().min().unwrap();
        assert!(*least > 0, "a kill came when no append was unanswered");
        let entered = self.visits.iter().filter(|visit| visit.entered).count();
        row(
            fault,
            self.unanswered.len(),
            &format!(
                "at each death {least} or more appends unanswered, {} in all; {} joins acknowledged, \
                 none lost; {entered} let in and entered once, in order; {} returns to the same \
                 place; {back} {:.2} s; same digest of two projectors, the audit and one that began \
                 with nothing ({:.1} s)",
                self.unanswered.iter().sum::<usize>(),
                self.visits.len(),
                self.visits.iter().map(|visit| visit.returns).sum::<usize>(),
                self.worst.as_secs_f64(),
                rebuilt.as_secs_f64(),
            ),
        );
    }
}
