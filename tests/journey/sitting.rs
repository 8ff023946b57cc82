//! Visitors who wait on one of two nodes, and change to the other while something is wrong with the
//! first; and what the log says of where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::checker::{Entry, read, retell};
use crate::system::{System, signal, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

/// Who sits on the node that fails, and how many of them change to the other.
const SITTING: usize = 30;
pub const MOVING: usize = 20;
/// The node that fails, and the one that does not.
pub const FAILING: usize = 1;
pub const GOOD: usize = 0;
/// So long is a place kept: a test would see it if somebody were taken for absent.
const GRACE_SECONDS: u64 = 10;
/// A node stands still for so long: one that is silent for 10 s is declared lost.
const STOPPED: Duration = Duration::from_secs(13);
/// Expiries are written within this after the grace.
const EXPIRY_LATE_MAX: Duration = Duration::from_secs(2);
/// What must come comes within this.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause of one whom a node can't serve now.
const AGAIN: Duration = Duration::from_millis(200);

/// One who waits.
pub struct Sitter {
    pub id: String,
    /// How many sockets their client has opened; none where it does not count them.
    opened: Option<u32>,
    socket: Listening,
}

/// What a socket was told last, and how it ended.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub position: Option<u64>,
    pub is_stale: bool,
    pub error: Option<String>,
    pub closed: Option<u64>,
}

impl Told {
    fn hear(&mut self, message: &Value) {
        let payload = &message["payload"];
        match message["type"].as_str() {
            Some("QUEUE_UPDATE") => {
                self.position = payload["position"].as_u64();
                self.is_stale = payload["stale"] == true;
            }
            Some("ERROR") => self.error = payload["code"].as_str().map(str::to_owned),
            Some("JOINED") => {}
            Some("ENDED") => self.error = Some(format!("ended: {}", payload["reason"])),
            Some(_) => panic!("one who waits is told {message}"),
            None => self.closed = message["close"].as_u64(),
        }
    }
}

/// A socket on which somebody listens for as long as it is there.
pub struct Listening {
    pub told: watch::Receiver<Told>,
    task: JoinHandle<()>,
}

impl Listening {
    fn start(visitor: Visitor) -> Self {
        Self::goes_on(visitor, Told::default())
    }

    /// Where so much was heard already.
    fn goes_on(mut visitor: Visitor, heard: Told) -> Self {
        let (to_test, told) = watch::channel(heard);
        let task = tokio::spawn(async move {
            loop {
                let message = visitor.next().await;
                to_test.send_modify(|told| told.hear(&message));
                if message.get("close").is_some() {
                    return;
                }
            }
        });
        Self { told, task }
    }

    pub fn error(&self) -> Option<String> {
        self.told.borrow().error.clone()
    }

    pub fn is_open(&self) -> bool {
        self.told.borrow().closed.is_none()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sitter {
    pub async fn join(url: &str, is_counting: bool) -> Self {
        let opened = is_counting.then_some(1);
        let mut visitor = Visitor::connect(url).await.expect("the node takes a socket");
        visitor.say(&with_opened(json!({"type": "JOIN", "joinKey": key()}), opened)).await;
        let joined = visitor.until("JOINED").await;
        assert_eq!(joined["payload"]["opened"].as_u64(), opened.map(u64::from), "{joined}");
        // With their first numbers they are in line, and not only about to be.
        let mut told = Told::default();
        told.hear(&visitor.until("QUEUE_UPDATE").await);
        Self { id: connection_id(&joined), opened, socket: Listening::goes_on(visitor, told) }
    }

    /// Opens another socket and takes the place there, as often as it takes; gives the socket that they
    /// had, which goes on listening.
    pub async fn returns(&mut self, url: &str) -> Listening {
        let began = Instant::now();
        self.opened = self.opened.map(|opened| opened + 1);
        loop {
            if let Some(socket) = self.attempt(url).await {
                return std::mem::replace(&mut self.socket, socket);
            }
            assert!(began.elapsed() < WAIT_MAX, "{} has no place again", name(&self.id));
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Opens a socket on one node and then one on another, which has the place in the end, and waits for
    /// no answer in between; gives the sockets that have it no more.
    pub async fn returns_to_both(&mut self, first: &str, last: &str) -> Vec<Listening> {
        let mut visitors = Vec::new();
        for url in [first, last] {
            visitors.push(Visitor::connect(url).await.expect("the node takes a socket"));
        }
        for visitor in &mut visitors {
            let reconnect = json!({"type": "RECONNECT", "connectionId": self.id});
            self.opened = self.opened.map(|opened| opened + 1);
            visitor.say(&with_opened(reconnect, self.opened)).await;
        }
        let joined = visitors[1].until("JOINED").await;
        assert_eq!(joined["payload"]["opened"].as_u64(), self.opened.map(u64::from), "{joined}");
        let last = Listening::start(visitors.pop().unwrap());
        let before = std::mem::replace(&mut self.socket, last);
        visitors.into_iter().map(Listening::start).chain([before]).collect()
    }

    /// Opens so many sockets on one node and takes the place on each of them at once, with more counted on
    /// each than on the one before; gives all but the last, which has the place in the end.
    pub async fn returns_on_all(&mut self, url: &str, sockets: usize) -> Vec<Listening> {
        let opened = (0..sockets).map(|_| Visitor::connect(url));
        let mut visitors: Vec<Visitor> =
            join_all(opened).await.into_iter().map(|visitor| visitor.expect("a socket")).collect();
        let reconnects = visitors.iter_mut().map(|visitor| {
            let reconnect = json!({"type": "RECONNECT", "connectionId": self.id});
            self.opened = self.opened.map(|opened| opened + 1);
            let reconnect = with_opened(reconnect, self.opened);
            async move { visitor.say(&reconnect).await }
        });
        join_all(reconnects).await;
        let mut sockets: Vec<Listening> = visitors.into_iter().map(Listening::start).collect();
        let before = std::mem::replace(&mut self.socket, sockets.pop().expect("at least one"));
        sockets.push(before);
        sockets
    }

    /// One attempt; none where the node can't serve them now.
    async fn attempt(&self, url: &str) -> Option<Listening> {
        let mut visitor = Visitor::connect(url).await?;
        let reconnect = json!({"type": "RECONNECT", "connectionId": self.id});
        visitor.say(&with_opened(reconnect, self.opened)).await;
        loop {
            let message = visitor.next().await;
            match message["type"].as_str() {
                Some("JOINED") => {
                    assert_eq!(connection_id(&message), self.id, "another place");
                    return Some(Listening::start(visitor));
                }
                Some("ERROR") => {
                    let code = message["payload"]["code"].as_str().unwrap();
                    assert!(["unavailable", "log_unavailable"].contains(&code), "{message}");
                }
                Some(_) => panic!("one who comes back is told {message}"),
                None => return None,
            }
        }
    }

    pub fn name(&self) -> String {
        name(&self.id)
    }

    pub fn told(&self) -> Told {
        self.socket.told.borrow().clone()
    }
}

fn with_opened(mut message: Value, opened: Option<u32>) -> Value {
    if let Some(opened) = opened {
        message["opened"] = json!(opened);
    }
    message
}

/// A line in which nobody is let in, with one at its front who sits on the good node, and the others
/// on the one that fails.
struct Line {
    queue: String,
    /// The good node, as the log names it.
    good: String,
    front: Sitter,
    sitters: Vec<Sitter>,
}

impl Line {
    async fn gather(system: &System, queue: &str, is_counting: bool) -> Self {
        let policy = json!({"reconnect_seconds": GRACE_SECONDS});
        system.queue(queue, &policy);
        let pause = format!("/admin/queues/{queue}/pause");
        assert_eq!(system.operate("POST", &pause, &json!({})).0, 200);
        let front = Sitter::join(&system.socket(GOOD, queue), is_counting).await;
        let mut sitters = Vec::new();
        for _ in 0..SITTING {
            sitters.push(Sitter::join(&system.socket(FAILING, queue), is_counting).await);
        }
        let places = whereabouts(&read(system, queue).await);
        let good = places[&front.name()].node.clone().expect("who has just joined is present");
        Self { queue: queue.to_owned(), good, front, sitters }
    }

    /// Some go over to the good node, all at once; gives the sockets that they had. Every second one has
    /// closed it; of the others the node hears nothing, as of those who are on another network now.
    async fn some_move(&mut self, system: &System) -> Vec<Listening> {
        let url = system.socket(GOOD, &self.queue);
        let moving = self.sitters.iter_mut().take(MOVING).enumerate().map(|(number, sitter)| {
            let url = url.clone();
            async move {
                if number.is_multiple_of(2) {
                    sitter.socket.task.abort();
                }
                (number, sitter.returns(&url).await)
            }
        });
        let moved = join_all(moving).await.into_iter();
        moved.filter(|(number, _)| !number.is_multiple_of(2)).map(|(_, socket)| socket).collect()
    }

    /// How many of those who moved were told something else on the good node than where they stand.
    fn places_taken(&self) -> usize {
        let moved = self.sitters.iter().take(MOVING).chain([&self.front]);
        moved.filter(|sitter| sitter.told().error.is_some() || !sitter.socket.is_open()).count()
    }

    /// Waits until everyone is present on the node where they are, and has their number: after how long.
    async fn until_all_are_present(&self, system: &System) -> Duration {
        let began = Instant::now();
        loop {
            let wrong = self.what_is_wrong(system).await;
            if wrong.is_empty() {
                return began.elapsed();
            }
            assert!(began.elapsed() < WAIT_MAX, "{wrong:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// It is over: everyone is present, who has moved is told so on the socket that they had, and nobody
    /// loses anything after that.
    async fn ends_well(self, system: &System, old: Vec<Listening>) -> Outcome {
        let back = self.until_all_are_present(system).await;
        for mut socket in old {
            let is_over = |told: &Told| told.closed.is_some();
            let over = tokio::time::timeout(WAIT_MAX, socket.told.wait_for(is_over)).await;
            let told = over.expect("the old socket is closed").unwrap().clone();
            assert_eq!(told.error.as_deref(), Some("replaced"), "{told:?}");
        }
        tokio::time::sleep(Duration::from_secs(GRACE_SECONDS) + EXPIRY_LATE_MAX).await;
        let taken = self.places_taken();
        assert_eq!(taken, 0, "places were taken from those who had moved");
        self.in_order(system).await;
        assert_eq!(self.what_is_wrong(system).await, Vec::<String>::new());
        self.ends(system);
        Outcome { taken, back }
    }

    /// What is not as it should be in the end, by the log and by what everyone was told last.
    async fn what_is_wrong(&self, system: &System) -> Vec<String> {
        let entries = read(system, &self.queue).await;
        let places = whereabouts(&entries);
        let lost = lost_nodes(&entries);
        let order = [&self.front].into_iter().chain(&self.sitters);
        let mut wrong = Vec::new();
        for (number, sitter) in order.enumerate() {
            let (place, told) = (&places[&sitter.name()], sitter.told());
            let is_right = place.node.as_ref().is_some_and(|node| {
                let is_good = *node == self.good;
                is_good == (number <= MOVING) && !lost.contains(node)
            });
            let has_number = told.position == Some(number as u64 + 1) && !told.is_stale;
            if !is_right || !has_number || told.error.is_some() || told.closed.is_some() {
                wrong.push(format!("number {number}: {place:?}, told {told:?}"));
            }
        }
        wrong
    }

    /// The log has everyone once and nobody as expired, and projector and audit say the same of it.
    async fn in_order(&self, system: &System) {
        let entries = read(system, &self.queue).await;
        let order = [&self.front].into_iter().chain(&self.sitters).map(Sitter::name);
        assert_eq!(retell(&entries).joined, order.collect::<Vec<_>>());
        assert!(entries.iter().all(|entry| entry.kind != "expired"), "somebody expired");
        wait_until("projector and audit say the same", || {
            let said = system.run_json(&["projection", "verify", &self.queue]);
            let audit = system.run_json(&["audit", "verify", &self.queue]);
            assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");
            said["sequence"] == audit["sequence"] && said["digest"] == audit["digest"]
        });
        let (_, shown) =
            system.operate("GET", &format!("/admin/queues/{}", self.queue), &json!(null));
        let everyone = json!(SITTING + 1);
        assert_eq!((&shown["waiting"], &shown["present"]), (&everyone, &everyone), "{shown}");
    }

    /// Everyone goes, and the queue with them.
    fn ends(self, system: &System) {
        let path = format!("/admin/queues/{}", self.queue);
        assert_eq!(system.operate("DELETE", &path, &json!(null)).0, 204);
    }
}

/// What came of it, in both lines.
pub struct Outcome {
    /// Of those who moved, who was told something else on the good node than where they stand.
    pub taken: usize,
    /// After how long everyone was present, in the log on the right node, and had their number.
    pub back: Duration,
}

/// A node stands still until it is declared lost; most of those who sit on it go over to the other; and
/// it comes back.
pub async fn node_stands_still(system: &System, name: &str) -> Outcome {
    let mut lines = Box::pin(Lines::gather(system, name)).await;
    let node = system.pid_beside("node");
    signal(node, Signal::STOP);
    let began = Instant::now();
    for line in [&lines.counting, &lines.others] {
        until_lost(system, &line.queue).await;
    }
    let old = Box::pin(lines.some_move(system)).await;
    tokio::time::sleep(STOPPED.saturating_sub(began.elapsed())).await;
    signal(node, Signal::CONT);
    Box::pin(lines.end_well(system, old)).await
}

/// The log answers nobody while most of those who sit on a node go over to the other, so that whatever
/// the nodes know of it waits until then.
pub async fn log_stands_still(system: &System, name: &str) -> Outcome {
    let mut lines = Box::pin(Lines::gather(system, name)).await;
    let nats = system.pid("nats-server");
    signal(nats, Signal::STOP);
    let going_on = async {
        tokio::time::sleep(STOPPED).await;
        signal(nats, Signal::CONT);
    };
    let (old, ()) = tokio::join!(Box::pin(lines.some_move(system)), going_on);
    Box::pin(lines.end_well(system, old)).await
}

/// In one queue visitors count their sockets, and in another they do not.
struct Lines {
    counting: Line,
    others: Line,
}

impl Lines {
    async fn gather(system: &System, name: &str) -> Self {
        let counting = Line::gather(system, &format!("{name}-counted"), true).await;
        let others = Line::gather(system, &format!("{name}-uncounted"), false).await;
        Self { counting, others }
    }

    async fn some_move(&mut self, system: &System) -> [Vec<Listening>; 2] {
        tokio::join!(self.counting.some_move(system), self.others.some_move(system)).into()
    }

    async fn end_well(self, system: &System, [a, b]: [Vec<Listening>; 2]) -> Outcome {
        let (a, b) =
            tokio::join!(self.counting.ends_well(system, a), self.others.ends_well(system, b));
        Outcome { taken: a.taken + b.taken, back: a.back.max(b.back) }
    }
}

/// Waits until the log has declared a node lost.
async fn until_lost(system: &System, queue: &str) {
    let began = Instant::now();
    while lost_nodes(&read(system, queue).await).is_empty() {
        assert!(began.elapsed() < WAIT_MAX, "a silent node is not declared lost");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn lost_nodes(entries: &[Entry]) -> BTreeSet<String> {
    let lost = entries.iter().filter(|entry| entry.kind == "node_lost");
    let facts = lost.flat_map(|entry| entry.body["facts"].as_array().unwrap());
    facts.map(|fact| fact["node"].as_str().unwrap().to_owned()).collect()
}

/// Where a visitor is, by the log.
#[derive(Clone, Debug, Default)]
pub struct Whereabouts {
    /// None while they are absent.
    pub node: Option<String>,
    pub opened: u64,
    socket: (String, u64),
    came: u64,
}

/// Where everyone is after these entries: `schemas/README.md`, "Who is where", read once more.
pub fn whereabouts(entries: &[Entry]) -> BTreeMap<String, Whereabouts> {
    let mut all: BTreeMap<String, Whereabouts> = BTreeMap::new();
    for entry in entries {
        let node = entry.body["node"].as_str().unwrap_or_default().to_owned();
        for fact in entry.body["facts"].as_array().into_iter().flatten() {
            let who = fact["visitor"].as_str().unwrap_or_default().to_owned();
            let opened = fact["opened"].as_u64().unwrap_or(0);
            let socket = (node.clone(), fact["socket"].as_u64().unwrap_or(0));
            let here = Whereabouts { node: Some(node.clone()), opened, socket, came: entry.seq };
            match entry.kind.as_str() {
                "joined" => drop(all.entry(who).or_insert(here)),
                "reconnected" => {
                    let place = all.get_mut(&who).unwrap();
                    let basis = entry.body["basis"].as_u64();
                    let both = place.opened > 0 && opened > 0 && place.opened != opened;
                    let is_late = basis.is_some_and(|basis| place.came > basis);
                    if if both { place.opened < opened } else { !is_late } {
                        *place = here;
                    }
                }
                "disconnected" => {
                    let place = all.get_mut(&who).unwrap();
                    place.node.take_if(|_| place.socket == here.socket);
                }
                "node_lost" => {
                    for place in all.values_mut() {
                        place.node.take_if(|node| *node == fact["node"]);
                    }
                }
                _ => {}
            }
        }
    }
    all
}
