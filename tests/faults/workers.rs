//! Two admission workers, of which either may hang, die, or not hear the other: people are let in as
//! with one, and nobody notices.

use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::away::facts;
use crate::checker::{Entry, assert_once, read, retell};
use crate::crowd::Crowd;
use crate::reckoning::{assert_all_in_order, assert_rate};
use crate::road::{Fate, Frame, Road};
use crate::row::{row, times};
use crate::system::{System, call, post, signal, wait_until};
use crate::two::{
    CALM, PAUSE_MAX, Worker, admitted_at, between, median, pauses, resumed_after, until_decides,
    who_decides, worst,
};
use crate::visitor::{Visitor, key};

/// What is asked of the system meanwhile succeeds within this.
const ANSWERED_MAX: Duration = Duration::from_secs(10);
/// What is asked is asked for up to so many milliseconds before the worker is killed: a redemption
/// takes a few.
const ASKED_BEFORE: u64 = 8;
/// A process that ran for longer than this is started again at once.
const STEADY_AFTER: Duration = Duration::from_millis(10_200);
/// After its grace an absent visitor's place is given up within this: another worker may have to go
/// on first.
const EXPIRY_LATE_MAX: Duration = Duration::from_secs(5);
/// How much longer a grace is than the worker hangs.
const GRACE_LONGER: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_and_comes_back_is_one_of_two_and_changes_nothing() {
    const RATE: usize = 240;
    let system = two_workers("hangs");
    system.queue("storm", &json!({"rate_per_minute": RATE, "token_seconds": 600}));
    let crowd = Crowd::gather(&system, "storm", 30, Duration::ZERO);
    // As with one worker: nobody disturbs the one that decides.
    who_decides(&system);
    let calm = Timestamp::now();
    tokio::time::sleep(Duration::from_secs(times(10, 60) as u64)).await;
    let disturbed = Timestamp::now();
    // Longer than what counts as an outage, also in the short form.
    let (seconds, repetitions) = (times(12, 60), times(2, 20));
    for repetition in 0..repetitions {
        let active = who_decides(&system);
        let quiet = absent_visitor(&system, repetition, seconds + GRACE_LONGER).await;
        let pid = active.pid(&system);
        signal(pid, Signal::STOP);
        tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
        assert!(active.other().is_active(&system), "nobody decides");
        signal(pid, Signal::CONT);
        let is_over = |entries: &[Entry]| facts(entries, "expired") > 0;
        until(&system, &quiet, "the absent one's time is over", is_over).await;
        assert_eq!(who_decides(&system), active.other(), "who came back took over");
        tokio::time::sleep(CALM).await;
    }
    let end = Timestamp::now();
    let lost: usize = Worker::BOTH.iter().map(|worker| worker.fences_lost(&system)).sum();
    let visits = crowd.leave().await;
    let entries = assert_all_in_order(&system, "storm", &visits).await;
    assert_rate(&entries, RATE);
    let mut graces = Vec::new();
    for repetition in 0..repetitions {
        let quiet = read(&system, &quiet_queue(repetition)).await;
        assert_eq!(outages(&quiet), 0, "an outage that was none is written");
        graces.push(late_by(&quiet, seconds + GRACE_LONGER));
    }
    assert_eq!(outages(&entries), 0, "an outage that was none is written");
    assert!(worst(&graces) <= EXPIRY_LATE_MAX, "expired {:?} late", worst(&graces));
    let admitted = admitted_at(&entries);
    let as_with_one = Pace::of(&admitted, calm, disturbed);
    let pace = Pace::of(&admitted, disturbed, end);
    assert!(pace.longest <= PAUSE_MAX, "nobody was let in for {:?}", pace.longest);
    let (kept, alone) = (pace.a_minute_besides(), as_with_one.a_minute_besides());
    assert!(kept > 0.9 * alone, "{kept:.1} a minute, and {alone:.1} undisturbed");
    row(
        &format!("two workers, the one that decides stopped for {seconds} s, then resumed"),
        repetitions,
        &format!(
            "{} let in and entered once, in order, rate of {RATE} kept; {:.1} a minute in all, {:.1} \
             besides {} pauses, and {:.1} undisturbed; longest pause {:.2} s; {lost} fences lost; no \
             outage written; {} absent for their whole grace, their place given up {:.2} s after it \
             at most",
            visits.len(),
            pace.a_minute(),
            kept,
            pace.pauses,
            alone,
            pace.longest.as_secs_f64(),
            graces.len(),
            worst(&graces).as_secs_f64(),
        ),
    );
}

fn quiet_queue(repetition: usize) -> String {
    format!("quiet-{repetition}")
}

/// A queue in which nothing is decided, with one visitor who has gone away: its name.
async fn absent_visitor(system: &System, repetition: usize, grace: usize) -> String {
    let queue = quiet_queue(repetition);
    system.queue(&queue, &json!({"reconnect_seconds": grace}));
    let pause = format!("/admin/queues/{queue}/pause");
    assert_eq!(system.operate("POST", &pause, &json!({})).0, 200);
    let mut visitor = Visitor::join(&system.socket(0, &queue), &key()).await;
    visitor.until("JOINED").await;
    drop(visitor);
    let is_gone = |entries: &[Entry]| facts(entries, "disconnected") > 0;
    until(system, &queue, "the visitor has gone", is_gone).await;
    queue
}

async fn until(system: &System, queue: &str, what: &str, is_so: impl Fn(&[Entry]) -> bool) {
    let began = Instant::now();
    while !is_so(&read(system, queue).await) {
        assert!(began.elapsed() < Duration::from_secs(30), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How long after the end of their grace the place of the only visitor was given up.
fn late_by(entries: &[Entry], grace: usize) -> Duration {
    let at = |kind: &str| -> Timestamp {
        entries.iter().find(|entry| entry.kind == kind).unwrap().time.parse().unwrap()
    };
    let absent = between(at("disconnected"), at("expired"));
    let late = absent.checked_sub(Duration::from_secs(grace as u64));
    late.unwrap_or_else(|| panic!("expired after {absent:?}, and the grace is {grace} s"))
}

fn outages(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| entry.body.to_string().contains(r#""outage""#)).count()
}

/// How many were let in within a stretch of time, and where nobody was.
struct Pace {
    count: usize,
    span: Duration,
    pauses: usize,
    paused: Duration,
    longest: Duration,
}

impl Pace {
    fn of(admitted: &[Timestamp], from: Timestamp, to: Timestamp) -> Self {
        let within = admitted.iter().filter(|at| (from..to).contains(*at));
        let within: Vec<Timestamp> = within.copied().collect();
        let pauses = pauses(&within);
        Self {
            count: within.len(),
            span: between(from, to),
            pauses: pauses.len(),
            paused: pauses.iter().sum(),
            longest: worst(&pauses),
        }
    }

    fn a_minute(&self) -> f64 {
        self.count as f64 * 60.0 / self.span.as_secs_f64()
    }

    /// Leaving the pauses out.
    fn a_minute_besides(&self) -> f64 {
        self.count as f64 * 60.0 / (self.span - self.paused).as_secs_f64()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_both_decide_let_in_as_many_as_one() {
    const RATE: usize = 1_200;
    let mut system = System::start("both-decide");
    let (first, second) = two_roads(&mut system).await;
    system.second_node();
    system.queue("storm", &json!({"rate_per_minute": RATE, "token_seconds": 600}));
    who_decides(&system);
    let before: usize = Worker::BOTH.iter().map(|worker| worker.fences_lost(&system)).sum();
    first.rule(deaf_to_others());
    second.rule(deaf_to_others());
    let both = || Worker::BOTH.iter().all(|worker| worker.is_active(&system));
    wait_until("both decide", both);
    let crowd = Crowd::gather(&system, "storm", 80, Duration::ZERO);
    let (many, began) = (times(100, 2_000), Timestamp::now());
    loop {
        tokio::time::sleep(CALM).await;
        assert!(both(), "one stands by");
        let (_, shown) = system.operate("GET", "/admin/queues/storm", &Value::Null);
        if shown["admitted"].as_u64().unwrap() >= many as u64 {
            break;
        }
    }
    let end = Timestamp::now();
    first.rule(|_| Fate::Passes);
    second.rule(|_| Fate::Passes);
    let active = who_decides(&system);
    let visits = crowd.leave().await;
    assert_eq!(who_decides(&system), active, "who decides has changed");
    let lost: usize = Worker::BOTH.iter().map(|worker| worker.fences_lost(&system)).sum();
    let lost = lost - before;
    assert!(lost > 0, "both decided, and no fence was lost");
    let entries = assert_all_in_order(&system, "storm", &visits).await;
    assert_rate(&entries, RATE);
    assert_eq!(outages(&entries), 0, "an outage that was none is written");
    let pace = Pace::of(&admitted_at(&entries), began, end);
    assert!(pace.count >= many);
    row(
        "two workers that do not hear each other, and both decide",
        pace.count,
        &format!(
            "{lost} fences lost; {} let in and entered once, in order, rate of {RATE} kept: {:.1} a \
             minute while both decided; one stood by again as soon as it heard the other",
            visits.len(),
            pace.a_minute(),
        ),
    );
}

/// Leads each worker's way to the log over a road of its own.
async fn two_roads(system: &mut System) -> (Road, Road) {
    let file = system.dir.join("run/nats-admission.url");
    let way = std::fs::read_to_string(&file).unwrap();
    let first = Road::lead(system, "admission").await;
    system.kill("admission");
    wait_until("there is a worker", || {
        system.operate("GET", "/admin/queues", &json!(null)).0 == 200
    });
    std::fs::write(&file, way).unwrap();
    let second = Road::lead(system, "admission").await;
    system.second_admission();
    (first, second)
}

/// A worker's own beats come back to it, and those of others do not come.
fn deaf_to_others() -> impl FnMut(&Frame) -> Fate {
    let mut own = None;
    move |frame| {
        if !frame.subject.starts_with("anteroom.beat.admission.") {
            return Fate::Passes;
        }
        if frame.is_to_log {
            own = Some(frame.subject.clone());
        }
        if own.as_ref() == Some(&frame.subject) { Fate::Passes } else { Fate::IsLost }
    }
}

/// What becomes of the worker that decides.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Killed,
    Hangs,
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_worker_that_decides_is_killed_another_goes_on() {
    takeover(End::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_worker_that_decides_hangs_another_goes_on() {
    takeover(End::Hangs).await;
}

async fn takeover(end: End) {
    const RATE: usize = 240;
    let mut system = two_workers("takeover");
    system.queue("storm", &json!({"rate_per_minute": RATE, "token_seconds": 600}));
    let crowd = Crowd::gather(&system, "storm", 30, Duration::ZERO);
    let (mut faults, mut hit) = (Vec::new(), Vec::new());
    for number in 0..times(3, 20) {
        if end == End::Killed {
            // Otherwise what is measured is the supervisor's pause.
            tokio::time::sleep(STEADY_AFTER).await;
        }
        let active = Worker::BOTH[number % 2];
        until_decides(&system, active).await;
        tokio::time::sleep(CALM).await;
        hit.push(active);
        let pid = active.pid(&system);
        faults.push(Timestamp::now());
        match end {
            End::Killed => active.kill(&mut system),
            End::Hangs => signal(pid, Signal::STOP),
        }
        // Of the two that `up` and this test keep running, one that is started anew may be first.
        let goes_on = || {
            let is_other = |worker: &Worker| end == End::Killed || *worker != active;
            let mut others = Worker::BOTH.into_iter().filter(is_other);
            others.any(|worker| worker.is_active(&system))
        };
        wait_until("another goes on", goes_on);
        tokio::time::sleep(CALM).await;
        match end {
            End::Killed if active == Worker::Second => system.second_admission(),
            End::Killed => {}
            End::Hangs => signal(pid, Signal::CONT),
        }
    }
    who_decides(&system);
    let visits = crowd.leave().await;
    let entries = assert_all_in_order(&system, "storm", &visits).await;
    assert_rate(&entries, RATE);
    assert_eq!(outages(&entries), 0, "an outage that was none is written");
    let after = resumed_after(&admitted_at(&entries), &faults);
    assert!(worst(&after) <= PAUSE_MAX, "nobody was let in for {:?}", worst(&after));
    let of = |worker: Worker| -> Vec<Duration> {
        let hit = after.iter().zip(&hit).filter(|(_, hit)| **hit == worker);
        hit.map(|(after, _)| *after).collect()
    };
    let what = if end == End::Killed { "killed (kill -9)" } else { "stopped (a hang)" };
    row(
        &format!("two workers, the one that decides {what}"),
        faults.len(),
        &format!(
            "the next one let in after {:.2} s in the median and {:.2} s at worst, by the log ({} times \
             it was the one that `up` starts again: {:.2} s at worst; {} times the other: {:.2} s); {} \
             let in and entered once, in order, rate of {RATE} kept",
            median(&after).as_secs_f64(),
            worst(&after).as_secs_f64(),
            of(Worker::First).len(),
            worst(&of(Worker::First)).as_secs_f64(),
            of(Worker::Second).len(),
            worst(&of(Worker::Second)).as_secs_f64(),
            visits.len(),
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_that_the_worker_that_decides_is_killed() {
    let mut system = two_workers("unseen");
    system.queue("door", &json!({"rate_per_minute": 60, "token_seconds": 600}));
    let (mut tally, repetitions) = (Unseen::default(), times(3, 20));
    for number in 0..repetitions {
        tokio::time::sleep(STEADY_AFTER).await;
        let active = Worker::BOTH[number % 2];
        until_decides(&system, active).await;
        let (keyed, bare) = (token(&system).await, token(&system).await);
        // The next turn comes a second after the last one, when nobody decides.
        let mut waiting = Visitor::join(&system.socket(number, "door"), &key()).await;
        waiting.until("JOINED").await;
        let request = key();
        let killed = Instant::now();
        let redeemed = redeem(&system, number, &keyed, Some(&request));
        let bare_redeemed = redeem(&system, number + 1, &bare, None);
        let ordered = order(&system, active.other(), &format!("Round {number}"));
        // In the middle of what they ask: a little later each time.
        tokio::time::sleep(Duration::from_millis(number as u64 % ASKED_BEFORE)).await;
        let asked = [&redeemed, &bare_redeemed];
        tally.unanswered += asked.iter().filter(|asking| !asking.is_finished()).count();
        active.kill(&mut system);
        let turn = async {
            let admitted = waiting.until("ADMITTED").await;
            (admitted["payload"]["token"].clone(), killed.elapsed())
        };
        let (redeemed, bare_redeemed, ordered, (turn, turn_came)) =
            tokio::join!(redeemed, bare_redeemed, ordered, turn);
        if active == Worker::Second {
            system.second_admission();
        }
        let ((status, pass), took) = redeemed.unwrap();
        assert_eq!(status, 200, "{pass}");
        let ((bare_status, bare_pass), bare_took) = bare_redeemed.unwrap();
        assert_eq!(bare_status, 200, "{bare_pass}");
        tally.redeemed.extend([took, bare_took]);
        tally.ordered.push(ordered.unwrap());
        tally.turns.push(turn_came);
        // The same request again, on the other node, and another one.
        let ((status, again), _) =
            redeem(&system, number + 1, &keyed, Some(&request)).await.unwrap();
        assert_eq!((status, &again["pass"]), (200, &pass["pass"]));
        let ((status, refused), _) = redeem(&system, number, &bare, None).await.unwrap();
        assert_eq!((status, &refused["code"]), (409, &json!("token_already_used")));
        assert_eq!(redeem(&system, number, &turn, None).await.unwrap().0.0, 200);
    }
    let entries = read(&system, "door").await;
    let story = retell(&entries);
    assert_once(&story.admitted, "a visitor was let in");
    assert_once(&story.redeemed, "a grant was used");
    assert_eq!((story.admitted.len(), story.redeemed.len()), (3 * repetitions, 3 * repetitions));
    assert_eq!(story.admitted, story.joined);
    assert_rate(&entries, 60);
    let audit = system.run_json(&["audit", "verify", "door"]);
    assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");
    tally.row(repetitions);
}

/// How long after the worker was killed each thing was done.
#[derive(Default)]
struct Unseen {
    /// Redemptions that were not answered when it was killed.
    unanswered: usize,
    redeemed: Vec<Duration>,
    ordered: Vec<Duration>,
    turns: Vec<Duration>,
}

impl Unseen {
    fn row(&self, repetitions: usize) {
        assert!(self.unanswered > 0, "no kill found a redemption unanswered");
        for (what, took) in
            [("redeemed", &self.redeemed), ("ordered", &self.ordered), ("let in", &self.turns)]
        {
            assert!(worst(took) <= ANSWERED_MAX, "{what} after {:?}", worst(took));
        }
        row(
            "kill -9 the worker that decides, of two, while something is asked",
            repetitions,
            &format!(
                "{} redemptions done once, with and without Idempotency-Key ({} of them unanswered at \
                 the kill), within {:.2} s (median {:.2} s), the same pass for the same key again and \
                 409 for another request; {} `queue set` by the other worker within {:.2} s; {} turns came within {:.2} s",
                self.redeemed.len(),
                self.unanswered,
                worst(&self.redeemed).as_secs_f64(),
                median(&self.redeemed).as_secs_f64(),
                self.ordered.len(),
                worst(&self.ordered).as_secs_f64(),
                self.turns.len(),
                worst(&self.turns).as_secs_f64(),
            ),
        );
    }
}

/// A system with two nodes and two workers.
fn two_workers(name: &str) -> System {
    let mut system = System::start(name);
    system.second_node();
    system.second_admission();
    system
}

/// The token of a visitor who is let in and does not enter yet.
async fn token(system: &System) -> Value {
    let mut visitor = Visitor::join(&system.socket(0, "door"), &key()).await;
    visitor.until("ADMITTED").await["payload"]["token"].take()
}

type Answered = ((u16, Value), Duration);

/// Presents a token at a node, from now on: what came of it, and after how long.
fn redeem(
    system: &System,
    node: usize,
    token: &Value,
    request: Option<&str>,
) -> tokio::task::JoinHandle<Answered> {
    let url = format!("{}/api/tokens/redeem", system.node(node));
    let (body, request) = (json!({ "token": token }), request.map(str::to_owned));
    tokio::task::spawn_blocking(move || {
        let asked = Instant::now();
        let answer = match request {
            Some(request) => call("POST", &url, &[("Idempotency-Key", &request)], &body),
            None => post(&url, &body),
        };
        (answer, asked.elapsed())
    })
}

/// Sets the queue's title by way of a worker, from now on: after how long it is done.
fn order(system: &System, at: Worker, title: &str) -> tokio::task::JoinHandle<Duration> {
    let mut set = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    set.args(["queue", "set", "door", "--set", &format!("title={title}")])
        .args(["--operator", &system.operator(at.number())])
        .args(["--token-file", &system.token_file()]);
    tokio::task::spawn_blocking(move || {
        let asked = Instant::now();
        let output = set.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        asked.elapsed()
    })
}
