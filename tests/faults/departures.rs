//! A node that goes, with all who sit on it: one that was asked to, and one that could say nothing.
//! They have their places again on the other one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::acks::paused_queue;
use crate::away::facts;
use crate::burden::Burden;
use crate::by_hand::in_order;
use crate::checker::{assert_once, read, retell};
use crate::raw::{Heard, PONG, Raw, frame, text};
use crate::row::{row, times};
use crate::system::{System, is_running, signal, wait_until};
use crate::visitor::{Visitor, key, name};

/// A node that is asked to go has gone within this.
const GONE_MAX: Duration = Duration::from_secs(30);
/// Who is sent away comes back after one of several numbers of seconds: of at least so many.
const SECONDS_MIN: usize = 4;
/// How many of those whom it sends away a node may ask to come back at the same second: one in so many.
const CROWDED: usize = 3;
/// Visitors who come in at once before anything happens.
const COMING: usize = 64;
/// An attempt to come back that has no answer by now is made again.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// Pause of one whom a node did not take, and was told when to come.
const AGAIN: Duration = Duration::from_millis(200);
/// The first and the longest pause of one whose socket is gone without a word.
const JITTER_MIN_MILLIS: u64 = 500;
const JITTER_MAX_MILLIS: u64 = 20_000;
/// Between two who join, before others come back and meanwhile.
const JOIN_EVERY: Duration = Duration::from_millis(25);
/// For so long they join when nothing happens, to compare with.
const AT_REST: Duration = Duration::from_secs(2);
/// What a node may hold more for each who comes: handshakes under way, and their seat.
const KIBIBYTES_EACH_MAX: usize = 32;
/// What its allocator and its log keep besides.
const KEPT_KIBIBYTES_MAX: usize = 32 * 1024;

/// One who sits on a node.
struct Sitter {
    raw: Raw,
    id: String,
    position: u64,
}

/// How one came back.
struct Return {
    sitter: Sitter,
    /// When the old socket had ended, and what was said: the seconds after which to come back.
    ended: Instant,
    seconds: Option<u64>,
    back: Instant,
}

impl Sitter {
    async fn join(node: &str) -> Self {
        let mut raw = Raw::open(node, "line").await;
        let (id, position) = raw.join(&key()).await;
        Self { raw, id, position }
    }

    /// Has the same place on a socket of this node; false when the node does not take them now.
    async fn returns(&mut self, node: &str) -> bool {
        let Ok(mut raw) = Raw::connect(node).await else { return false };
        if raw.upgrade("line", &[]).await.status != 101 {
            return false;
        }
        let reconnect = json!({"type": "RECONNECT", "connectionId": self.id});
        raw.send(&text(&reconnect.to_string())).await.unwrap();
        loop {
            let message = match raw.next().await {
                Heard::Message(message) => message,
                Heard::Close(1013, _) | Heard::End => return false,
                Heard::Ping | Heard::Pong => continue,
                Heard::Close(code, reason) => panic!("closed with {code} {reason}"),
            };
            match message["type"].as_str().unwrap() {
                "JOINED" => assert_eq!(message["connectionId"], *self.id, "another place"),
                "QUEUE_UPDATE" => {
                    assert_eq!(message["payload"]["position"], self.position, "another place");
                    self.raw = raw;
                    return true;
                }
                "ERROR" => assert_ne!(message["payload"]["code"], "unknown_connection"),
                _ => panic!("{message}"),
            }
        }
    }

    /// As [`Self::returns`], with an end.
    async fn attempts(&mut self, node: &str) -> bool {
        tokio::time::timeout(ATTEMPT_MAX, self.returns(node)).await.unwrap_or(false)
    }

    /// Listens until the socket ends, and says how it was closed, if it was.
    async fn until_gone(&mut self) -> Option<(u16, String)> {
        loop {
            match self.raw.next().await {
                Heard::Message(message) => {
                    assert_eq!(message["payload"]["position"], self.position, "{message}");
                }
                // Whether it is still heard shows at the next reading.
                Heard::Ping => drop(self.raw.send(&frame(PONG, b"")).await),
                Heard::Pong => {}
                Heard::Close(code, reason) => return Some((code, reason)),
                Heard::End => return None,
            }
        }
    }

    /// Is told when to come back, and does so on this node.
    async fn goes_when_told_to(mut self, node: String) -> Return {
        let (code, reason) = self.until_gone().await.expect("who is sent away is told so");
        let ended = Instant::now();
        assert_eq!(code, 1012, "{reason}");
        let seconds: u64 = reason.parse().expect("the reason is a number of seconds");
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        while !self.attempts(&node).await {
            tokio::time::sleep(AGAIN).await;
        }
        Return { sitter: self, ended, seconds: Some(seconds), back: Instant::now() }
    }

    /// Loses the socket, and comes back on this node after pauses that are drawn, each from a span
    /// twice as long as the last.
    async fn falls_back_to(mut self, node: String) -> Return {
        assert_eq!(self.until_gone().await, None, "a node that is killed says nothing");
        let ended = Instant::now();
        let mut span = JITTER_MIN_MILLIS;
        loop {
            let drawn = u64::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(span)).unwrap();
            tokio::time::sleep(Duration::from_millis(drawn)).await;
            if self.attempts(&node).await {
                return Return { sitter: self, ended, seconds: None, back: Instant::now() };
            }
            span = (2 * span).min(JITTER_MAX_MILLIS);
        }
    }
}

/// A system with a second node, on which so many sit.
async fn seated(name: &str, count: usize) -> (System, Vec<Sitter>) {
    let mut system = System::start(name);
    system.second_node();
    paused_queue(&system, "line");
    let node = system.node(1);
    let sitters = stream::iter(0..count).map(|_| Sitter::join(&node)).buffer_unordered(COMING);
    let sitters = sitters.collect().await;
    (system, sitters)
}

/// All of them go over to the second node, which was started again.
async fn all_move_there(system: &mut System, sitters: Vec<Sitter>) -> Vec<Sitter> {
    system.second_node();
    let node = system.node(1);
    let moving = stream::iter(sitters).map(|mut sitter| {
        let node = node.clone();
        async move {
            while !sitter.attempts(&node).await {
                tokio::time::sleep(AGAIN).await;
            }
            sitter
        }
    });
    moving.buffer_unordered(COMING).collect().await
}

async fn all_of(returning: Vec<JoinHandle<Return>>) -> Vec<Return> {
    let mut returns = Vec::new();
    for one in returning {
        returns.push(one.await.unwrap());
    }
    returns
}

/// Everyone has the place that the log gave them, and is there.
async fn assert_nobody_lost(system: &System, sitters: &[Sitter]) {
    wait_until("everyone is present", || {
        let (_, shown) = system.operate("GET", "/admin/queues/line", &json!(null));
        shown["waiting"] == sitters.len() && shown["present"] == sitters.len()
    });
    let entries = read(system, "line").await;
    let story = retell(&entries);
    assert_once(&story.joined, "a place was given");
    assert_eq!(facts(&entries, "expired"), 0);
    let places = story.joined.iter().zip(1..);
    let places: BTreeMap<&String, u64> = places.collect();
    for sitter in sitters {
        assert_eq!(places.get(&name(&sitter.id)), Some(&sitter.position));
    }
    in_order(system, "line");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_to_go_sends_everyone_to_the_other_at_different_times() {
    let (count, repetitions) = (times(300, 5_000), times(1, 10));
    let (mut system, mut sitters) = seated("sent-away", count).await;
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    let (mut told, mut gone, mut late) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for repetition in 0..repetitions {
        if repetition > 0 {
            sitters = all_move_there(&mut system, sitters).await;
        }
        let node = system.node(0);
        let sent =
            sitters.drain(..).map(|sitter| tokio::spawn(sitter.goes_when_told_to(node.clone())));
        let sent = sent.collect();
        let pid = system.pid_beside("node");
        let asked = Instant::now();
        signal(pid, Signal::TERM);
        wait_until("the node is gone", || !is_running(pid));
        gone = gone.max(asked.elapsed());
        assert!(system.ended_beside("node").success());
        for one in all_of(sent).await {
            told = told.max(one.ended - asked);
            let wait = one.seconds.unwrap();
            late = late.max((one.back - one.ended).saturating_sub(Duration::from_secs(wait)));
            *seconds.entry(wait).or_default() += 1;
            sitters.push(one.sitter);
        }
        assert_eq!(sitters.len(), count);
    }
    assert!(gone <= GONE_MAX, "gone only after {gone:?}");
    assert!(seconds.len() >= SECONDS_MIN, "not spread: {seconds:?}");
    let most = seconds.values().max().unwrap();
    assert!(most * CROWDED <= count * repetitions, "a crowd of its own: {seconds:?}");
    assert_nobody_lost(&system, &sitters).await;
    let spread = seconds.iter().map(|(seconds, count)| format!("{seconds} s: {count}"));
    let result = format!(
        "all told 1012 with their seconds ({}), the last {:.3} s later; the node gone after {:.2} s; \
         all on the other with the same place, the last {:.2} s after their time; 0 places lost",
        spread.collect::<Vec<_>>().join(", "),
        told.as_secs_f64(),
        gone.as_secs_f64(),
        late.as_secs_f64(),
    );
    row(&format!("SIGTERM a node with {count} sockets"), repetitions, &result);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_on_a_node_that_is_killed_have_their_places_on_the_other_while_more_join() {
    let (count, repetitions) = (times(300, 5_000), times(1, 3));
    let (mut system, mut sitters) = seated("fallen", count).await;
    let pid = system.pid("node");
    let is_over = Arc::new(AtomicBool::new(false));
    let joining = tokio::spawn(join_steadily(system.socket(0, "line"), Arc::clone(&is_over)));
    let before = Burden::of(pid);
    let weighing = tokio::spawn(most_held(pid, Arc::clone(&is_over)));
    tokio::time::sleep(AT_REST).await;
    let (mut storms, mut back) = (Vec::new(), Duration::ZERO);
    for repetition in 0..repetitions {
        if repetition > 0 {
            sitters = all_move_there(&mut system, sitters).await;
        }
        let node = system.node(0);
        let falling =
            sitters.drain(..).map(|sitter| tokio::spawn(sitter.falls_back_to(node.clone())));
        let falling = falling.collect();
        let killed = Instant::now();
        signal(system.pid_beside("node"), Signal::KILL);
        system.ended_beside("node");
        let returns = all_of(falling).await;
        let last = returns.iter().map(|one| one.back).max().unwrap();
        back = back.max(last - killed);
        storms.push((killed, last));
        sitters.extend(returns.into_iter().map(|one| one.sitter));
        assert_eq!(sitters.len(), count);
    }
    let after = Burden::of(pid);
    is_over.store(true, Ordering::SeqCst);
    let (joins, most) = (joining.await.unwrap(), weighing.await.unwrap());
    let (in_storm, at_rest): (Vec<Join>, Vec<Join>) =
        joins.into_iter().partition(|join| storms.iter().any(|storm| join.falls_in(storm)));
    assert!(!in_storm.is_empty(), "nobody joined meanwhile");
    let grown = most.saturating_sub(before.kibibytes);
    let may_grow = KEPT_KIBIBYTES_MAX + count * KIBIBYTES_EACH_MAX;
    assert!(grown < may_grow, "{grown} KiB more for {count} visitors");
    assert_nobody_lost(&system, &sitters).await;
    let result = format!(
        "all on the other with the same place within {:.2} s; 0 places lost; {} joins meanwhile, all \
         served, p99 {:.3} s, worst {:.3} s ({} joins before and after, p99 {:.3} s); the other node \
         holds {before} before, {:.1} MiB at most, {after} with all of them",
        back.as_secs_f64(),
        in_storm.len(),
        percentile(&in_storm, 99),
        percentile(&in_storm, 100),
        at_rest.len(),
        percentile(&at_rest, 99),
        most as f64 / 1024.0,
    );
    row(&format!("kill -9 a node with {count} sockets"), repetitions, &result);
}

/// One who joined.
struct Join {
    asked: Instant,
    took: Duration,
}

impl Join {
    /// Whether it was under way at any time between these two.
    fn falls_in(&self, (from, to): &(Instant, Instant)) -> bool {
        self.asked < *to && self.asked + self.took > *from
    }
}

/// The seconds within which so many of a hundred were served.
fn percentile(joins: &[Join], percent: usize) -> f64 {
    let mut took: Vec<Duration> = joins.iter().map(|join| join.took).collect();
    took.sort_unstable();
    let last = (took.len() * percent).div_ceil(100).saturating_sub(1);
    took.get(last).map_or(0.0, Duration::as_secs_f64)
}

/// Somebody new joins at a steady pace, however long those before take. Each gives the place up as
/// soon as there are numbers.
async fn join_steadily(url: String, is_over: Arc<AtomicBool>) -> Vec<Join> {
    let mut pace = tokio::time::interval(JOIN_EVERY);
    let mut joining = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        pace.tick().await;
        let url = url.clone();
        joining.push(tokio::spawn(async move {
            let asked = Instant::now();
            let mut visitor = Visitor::join(&url, &key()).await;
            visitor.until("QUEUE_UPDATE").await;
            let took = asked.elapsed();
            visitor.say(&json!({"type": "LEAVE"})).await;
            visitor.until("ENDED").await;
            Join { asked, took }
        }));
    }
    let mut joins = Vec::new();
    for join in joining {
        joins.push(join.await.unwrap());
    }
    joins
}

/// The most that a process holds until it is over, in KiB.
async fn most_held(pid: i32, is_over: Arc<AtomicBool>) -> usize {
    let mut most = 0;
    while !is_over.load(Ordering::SeqCst) {
        most = most.max(Burden::of(pid).kibibytes);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    most
}
