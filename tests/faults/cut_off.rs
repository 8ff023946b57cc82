//! A node that is cut off from the log for longer than one that is dead is waited for, with visitors
//! on its sockets; and then is back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::away::facts;
use crate::by_hand::in_order;
use crate::checker::{Entry, assert_once, read, retell};
use crate::road::{Fate, Road};
use crate::row::{row, times};
use crate::system::{System, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

/// Visitors who stay on one node all the time, on each of the two; and those who change nodes while
/// theirs is cut off.
const STAYING: usize = 6;
const MOVING: usize = 4;
/// What visitors are to be told comes within this.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How much longer than the node is cut off an absent visitor has their place: those who sit on it
/// are absent for less, as the log has it.
const GRACE_SECONDS: usize = 30;

/// How the way between a node and the log is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    /// Nothing comes through, and nobody is told so. What was on its way arrives in the end.
    Silent,
    /// Connections are reset, and new ones too.
    Refused,
}

impl Cut {
    fn begin(self, road: &Road) {
        match self {
            Self::Silent => road.rule(|_| Fate::IsHeld),
            Self::Refused => road.shut(),
        }
    }

    async fn end(self, road: &Road) {
        match self {
            Self::Silent => drop(road.release().await),
            Self::Refused => road.open(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_without_a_word_costs_nobody_their_place() {
    cut_off(Cut::Silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_connections_are_refused_costs_nobody_their_place() {
    cut_off(Cut::Refused).await;
}

async fn cut_off(cut: Cut) {
    let (seconds, repetitions) = (times(13, 60), times(1, 5));
    let mut system = System::start("cut-off");
    let road = Road::lead(&system, "node").await;
    system.second_node();
    let policy = json!({
        "rate_per_minute": 6000, "token_seconds": 600, "reconnect_seconds": seconds + GRACE_SECONDS,
    });
    system.queue("line", &policy);
    assert_eq!(system.operate("POST", "/admin/queues/line/pause", &json!({})).0, 200);
    let mut line = Line::gather(&system, repetitions).await;
    for repetition in 0..repetitions {
        line.lives_through(&system, &road, cut, Duration::from_secs(seconds as u64)).await;
        assert_eq!(facts(&read(&system, "line").await, "node_lost"), repetition + 1);
    }
    let never_stale = line.here.iter().map(|visitor| visitor.told.borrow().stale);
    assert_eq!(never_stale.sum::<usize>(), 0, "a node that was not cut off said that it is");

    // Now all are let in, in their order.
    assert_eq!(system.operate("POST", "/admin/queues/line/resume", &json!({})).0, 200);
    for visitor in line.all_mut() {
        visitor.until("their turn", |told| told.is_admitted).await;
    }
    let entries = read(&system, "line").await;
    let story = retell(&entries);
    assert_once(&story.joined, "a place was given");
    assert_eq!(story.admitted, line.order);
    assert_eq!(story.joined[repetitions..], line.order);
    assert_eq!(story.overtaken, Vec::<String>::new());
    assert_eq!(facts(&entries, "expired"), 0);
    in_order(&system, "line");
    let how = if cut == Cut::Silent { "bytes held" } else { "connections refused" };
    row(
        &format!("a node cut off from the log for {seconds} s with visitors online ({how})"),
        repetitions,
        &format!(
            "{} of its visitors told `stale`, {} on the other node never; declared lost {} times, and \
             went on under another id; nobody expired; {} went to the other node meanwhile, and the \
             late `disconnected` of each changed nothing; everyone has the right number {:.2} s after \
             it is back; all let in, in order",
            line.marked,
            STAYING,
            facts(&entries, "node_lost"),
            line.moved,
            line.worst_back.as_secs_f64(),
        ),
    );
}

/// Everyone in line.
struct Line {
    /// Names, in order.
    order: Vec<String>,
    /// At the front; one is taken out each time, so that everyone's number changes.
    front: Vec<Staying>,
    /// Those who stay on the node that is never cut off.
    here: Vec<Staying>,
    /// Those who stay on the other.
    there: Vec<Staying>,
    moving: Vec<Staying>,
    marked: usize,
    moved: usize,
    worst_back: Duration,
}

impl Line {
    async fn gather(system: &System, front: usize) -> Self {
        let mut order = Vec::new();
        let mut groups = Vec::new();
        for (count, node) in [(front, 0), (STAYING, 0), (STAYING, 1), (MOVING, 1)] {
            let mut group = Vec::new();
            for _ in 0..count {
                group.push(Staying::join(&system.socket(node, "line")).await);
            }
            order.extend(group.iter().map(|visitor| name(&visitor.id)));
            groups.push(group);
        }
        let [front, here, there, moving] = groups.try_into().ok().unwrap();
        let (marked, moved, worst_back) = (0, 0, Duration::ZERO);
        Self { order, front, here, there, moving, marked, moved, worst_back }
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Staying> {
        let all = self.front.iter_mut().chain(&mut self.here).chain(&mut self.there);
        all.chain(&mut self.moving)
    }

    async fn lives_through(&mut self, system: &System, road: &Road, cut: Cut, seconds: Duration) {
        cut.begin(road);
        let began = Instant::now();
        for visitor in self.there.iter_mut().chain(&mut self.moving) {
            visitor.until("that the numbers are old", |told| told.is_stale).await;
            self.marked += 1;
        }
        for visitor in &mut self.moving {
            visitor.moves_to(&system.socket(0, "line")).await;
            self.moved += 1;
        }
        self.one_is_taken_out(system);
        let order = &self.order;
        for visitor in self.here.iter_mut().chain(&mut self.moving) {
            visitor.has_right_number(order).await;
        }
        let lost = until_lost(system, self.repetition()).await;
        tokio::time::sleep(seconds.saturating_sub(began.elapsed())).await;
        for visitor in &self.there {
            assert!(visitor.told.borrow().is_stale, "{} was told fresh numbers", visitor.id);
        }
        cut.end(road).await;

        let back = Instant::now();
        for visitor in self.there.iter_mut().chain(&mut self.here).chain(&mut self.moving) {
            visitor.has_right_number(&self.order).await;
        }
        self.worst_back = self.worst_back.max(back.elapsed());
        self.until_written(system, &lost).await;
        wait_until("everyone is present", || {
            let (_, shown) = system.operate("GET", "/admin/queues/line", &json!(null));
            shown["waiting"] == self.order.len() && shown["present"] == self.order.len()
        });
        for visitor in &mut self.moving {
            visitor.moves_to(&system.socket(1, "line")).await;
        }
    }

    /// How often the node has been cut off before.
    fn repetition(&self) -> usize {
        self.moved / MOVING - 1
    }

    /// By an operator, so that everyone behind is told another number.
    fn one_is_taken_out(&mut self, system: &System) {
        let out = self.front.remove(0);
        out.listening.abort();
        let path = format!("/admin/queues/line/visitors/{}", name(&out.id));
        let (status, body) = system.operate("DELETE", &path, &json!(null));
        assert!(status < 300, "{status} {body}");
        assert_eq!(self.order.remove(0), name(&out.id));
    }

    /// Waits until the node that was lost has said under another id who sits on it, and has written
    /// what it knew of those who went away under the old one.
    async fn until_written(&self, system: &System, lost: &Lost) {
        let names = |visitors: &[Staying]| -> BTreeSet<String> {
            visitors.iter().map(|visitor| name(&visitor.id)).collect()
        };
        let (there, moving) = (names(&self.there), names(&self.moving));
        let began = Instant::now();
        loop {
            let entries = read(system, "line").await;
            let after = entries.iter().filter(|entry| entry.seq > lost.seq);
            let (mut back, mut gone) = (BTreeSet::new(), BTreeSet::new());
            for entry in after {
                let facts = entry.body["facts"].as_array().unwrap();
                let who = facts.iter().filter_map(|fact| fact["visitor"].as_str());
                let who = who.map(str::to_owned);
                match (entry.kind.as_str(), entry.body["node"] == *lost.node) {
                    ("reconnected", false) => back.extend(who),
                    ("disconnected", true) => gone.extend(who),
                    _ => {}
                }
            }
            if there.is_subset(&back) && moving.is_subset(&gone) {
                return;
            }
            let missing = (there.difference(&back), moving.difference(&gone));
            assert!(began.elapsed() < WAIT_MAX, "not written: {missing:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A node that was declared lost: where in the log, and its id by then.
struct Lost {
    seq: u64,
    node: String,
}

/// Waits until the log has one more node lost than before.
async fn until_lost(system: &System, before: usize) -> Lost {
    let began = Instant::now();
    loop {
        let entries = read(system, "line").await;
        let mut lost = entries.iter().filter(|entry| entry.kind == "node_lost");
        if let Some(Entry { seq, body, .. }) = lost.nth(before) {
            let node = body["facts"][0]["node"].as_str().unwrap().to_owned();
            return Lost { seq: *seq, node };
        }
        assert!(began.elapsed() < WAIT_MAX, "a silent node is not declared lost");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A visitor who stays on a socket, and listens.
struct Staying {
    id: String,
    told: watch::Receiver<Told>,
    listening: JoinHandle<()>,
}

/// What a visitor was told last, and how often that their numbers are old.
#[derive(Debug, Default)]
struct Told {
    position: usize,
    is_stale: bool,
    stale: usize,
    is_admitted: bool,
}

impl Staying {
    async fn join(url: &str) -> Self {
        let mut visitor = Visitor::join(url, &key()).await;
        let id = connection_id(&visitor.until("JOINED").await);
        Self::listen(visitor, id)
    }

    /// Goes away without a word, and comes back on this node.
    async fn moves_to(&mut self, url: &str) {
        self.listening.abort();
        let mut visitor = Visitor::reconnect(url, &self.id).await;
        assert_eq!(connection_id(&visitor.until("JOINED").await), self.id);
        *self = Self::listen(visitor, self.id.clone());
    }

    fn listen(mut visitor: Visitor, id: String) -> Self {
        let (to_test, told) = watch::channel(Told::default());
        let listening = tokio::spawn(async move {
            loop {
                let message = visitor.next().await;
                let payload = &message["payload"];
                to_test.send_modify(|told| match message["type"].as_str() {
                    Some("QUEUE_UPDATE") => {
                        told.position = payload["position"].as_u64().unwrap().try_into().unwrap();
                        told.is_stale = payload["stale"] == true;
                        told.stale += usize::from(told.is_stale);
                    }
                    Some("ADMITTED") => told.is_admitted = true,
                    _ => panic!("one who stays is told {message}"),
                });
            }
        });
        Self { id, told, listening }
    }

    /// Waits until the visitor was told this.
    async fn until(&mut self, what: &str, is_told: impl FnMut(&Told) -> bool) {
        let told = tokio::time::timeout(WAIT_MAX, self.told.wait_for(is_told)).await;
        assert!(matches!(told, Ok(Ok(_))), "{} was not told {what}", name(&self.id));
    }

    async fn has_right_number(&mut self, order: &[String]) {
        let place = order.iter().position(|other| *other == name(&self.id)).unwrap();
        self.until("their number", |told| !told.is_stale && told.position == place + 1).await;
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        self.listening.abort();
    }
}
