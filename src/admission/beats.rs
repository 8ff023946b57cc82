//! Which nodes are alive, and which worker decides, by their heartbeats.
//!
//! Silence is evidence only while we could have heard something. So we say a beat of our own and
//! listen to it by the same way: when it has stalled, because we were stopped or the way was cut,
//! nobody's silence before that counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::admission::counts;
use crate::admission::turn::{BEAT_EVERY, Turn};
use crate::clock;
use crate::log::connection::Log;
use crate::log::subjects::{self, QueueId};
use crate::queue::event::{Level, NodeId, WorkerId};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::wire;
use crate::wire::beat::{Beat, Reported};

/// Whose beats these are.
const ROLE: &str = "admission";

/// A node that is not heard for this long is lost. Ten beats.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Between two of our own beats no more than this may pass: eight of them.
const PULSE_MAX: Duration = Duration::from_secs(2);
/// A node that is not heard is forgotten after this; one that is asked about is waited for anew.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Loads that wait for their worker: far more than sites report in a second.
const LOADS_MAX: usize = 1_024;
/// Whoever reads logs says so each second or more often; whoever has listened for so long has heard
/// everybody.
const LISTEN_MIN: Duration = Duration::from_secs(3);
/// Nodes that are kept in mind because they were heard; beside them those that the log has people on. A crowd
/// of ten million needs half as many.
const NODES_MAX: usize = 1_024;
/// The turn is given up for a decision that is stuck no more often than this: where the others can't write it
/// either, all other queues would wait a moment each time.
const GIVE_UP_EVERY: Duration = Duration::from_secs(300);
/// How often it is seen which are gone.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Projectors and workers that are kept in mind: far more than anybody runs.
const READERS_MAX: usize = 1_024;
/// A node's counts are some kilobytes.
const COUNTS_BYTES_MAX: usize = 64 * 1024;

/// When each node was heard last, since when we can hear, and whose turn it is.
pub(super) struct Beats {
    log: Log,
    id: NodeId,
    own: String,
    heard: Mutex<Heard>,
    loads: mpsc::Sender<(QueueId, u16)>,
}

struct Heard {
    turn: Turn,
    /// Whether it was last said that we decide.
    said_active: bool,
    /// Whether it is known which queues there are.
    is_listed: bool,
    /// Those of which we have not read yet what the log held when we began.
    folding: BTreeSet<QueueId>,
    /// Those of which a decision has been under way for too long.
    stuck: BTreeSet<QueueId>,
    /// When the turn was last given up for one.
    gave_up: Option<Instant>,
    /// When each node was heard last; of one never heard, when it was first asked about.
    nodes: BTreeMap<NodeId, Instant>,
    /// Who else reads logs, as role and id: when each was heard last, and up to which level it can.
    readers: BTreeMap<String, (Instant, Level)>,
    /// When nodes were last forgotten that are gone.
    swept: Option<Instant>,
    /// What each counted, as it last said.
    counts: BTreeMap<NodeId, String>,
    /// Our own last beat that came back.
    pulse: Option<Instant>,
    /// Since when they have come back without a stall.
    hearing_since: Option<Instant>,
}

impl Beats {
    /// Listens from now on. What sites report to any worker comes to every one.
    pub(super) async fn listen(
        log: &Log,
        id: NodeId,
        shutdown: &Shutdown,
    ) -> anyhow::Result<(Arc<Self>, mpsc::Receiver<(QueueId, u16)>)> {
        let mut beats = log
            .listen(subjects::beats())
            .await
            .ok_or_else(|| anyhow::anyhow!("the connection to NATS is closed"))?;
        let (loads, reported) = mpsc::channel(LOADS_MAX);
        let this = Arc::new(Self {
            log: log.clone(),
            id,
            own: subjects::beat(ROLE, &id.to_string()),
            heard: Mutex::new(Heard::new(id)),
            loads,
        });
        let (listening, stopping) = (Arc::clone(&this), shutdown.clone());
        shutdown.spawn(async move {
            let mut pulse = tokio::time::interval(BEAT_EVERY);
            pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    beat = beats.next() => match beat {
                        Some(beat) => listening.hear(&beat.subject, &beat.payload),
                        None => return,
                    },
                    _ = pulse.tick() => listening.beat(Vec::new()).await,
                    () = stopping.stopped() => break,
                }
            }
            // Another need not wait until we are missed.
            listening.heard().turn.look(false, false, clock::monotonic());
            listening.say(Beat::of(listening.log.newest())).await;
        });
        Ok((this, reported))
    }

    /// Who we are.
    pub(super) fn worker(&self) -> WorkerId {
        WorkerId(self.id.0)
    }

    /// The newest level that every reader which is heard knows, and we do.
    pub(super) async fn level_of_all(&self) -> Level {
        // Where we know only the first, nobody needs to be heard.
        if self.log.newest() == Level::FIRST || !self.hears_everybody().await {
            return Level::FIRST;
        }
        let heard = self.heard();
        let readers = heard.readers_now().map(|(_, level)| level);
        readers.fold(self.log.newest(), Level::min).max(Level::FIRST)
    }

    /// Which readers do not know this level, in words for an operator.
    pub(super) fn behind(&self, level: Level) -> Vec<String> {
        let heard = self.heard();
        let readers = heard.readers_now().map(|(who, known)| (who.to_owned(), known));
        let own = (self.own_words(), self.log.newest());
        let behind = readers.chain([own]).filter(|(_, known)| *known < level);
        behind.map(|(who, known)| format!("{who} reads up to level {known}")).collect()
    }

    /// Waits until whoever reads logs would have been heard: one that has just begun to listen takes nobody's
    /// silence for absence. False where our own beats do not come back.
    pub(super) async fn hears_everybody(&self) -> bool {
        let until = clock::monotonic() + LISTEN_MIN + PULSE_MAX;
        loop {
            let now = clock::monotonic();
            if self.heard().hears_since(now).is_some_and(|since| since + LISTEN_MIN <= now) {
                return true;
            }
            if now >= until {
                return false;
            }
            tokio::time::sleep(BEAT_EVERY).await;
        }
    }

    fn own_words(&self) -> String {
        format!("the worker that you ask ({})", self.id)
    }

    /// Whether it is our turn to decide.
    pub(super) fn is_active(&self) -> bool {
        self.heard().turn.is_active(clock::monotonic())
    }

    /// Whether another worker is heard that decides.
    pub(super) fn is_another_active(&self) -> bool {
        self.heard().turn.is_another_active(clock::monotonic())
    }

    /// The queues that there are at the beginning are known, and their workers started.
    pub(super) fn listed(&self) {
        self.heard().is_listed = true;
    }

    /// Whether they are.
    pub(super) fn is_listed(&self) -> bool {
        self.heard().is_listed
    }

    /// A worker begins to read the log of a queue.
    pub(super) fn folds(&self, queue: &QueueId) {
        self.heard().folding.insert(queue.clone());
    }

    /// It has read what the log held, or can't read on.
    pub(super) fn folded(&self, queue: &QueueId) {
        self.heard().folding.remove(queue);
    }

    /// A decision of this queue has been under way for too long, or has come to its end. Another worker is
    /// given the turn; where there is none, the other queues are not to wait for it.
    pub(super) fn stuck(&self, queue: &QueueId, is_stuck: bool) {
        let mut heard = self.heard();
        if is_stuck {
            heard.stuck.insert(queue.clone());
            let now = clock::monotonic();
            if heard.gave_up.is_none_or(|at| now.duration_since(at) >= GIVE_UP_EVERY) {
                heard.gave_up = Some(now);
                heard.turn.give_up(now);
            }
        } else {
            heard.stuck.remove(queue);
        }
    }

    /// Tells every worker what a site reported.
    pub(super) async fn report(&self, queue: &QueueId, milli: u16) {
        self.beat(vec![Reported { queue: queue.to_string(), milli }]).await;
    }

    async fn beat(&self, loads: Vec<Reported>) {
        let active = {
            let mut heard = self.heard();
            let now = clock::monotonic();
            let hears = heard.hears(now);
            let is_folding = !heard.is_listed || !heard.folding.is_empty();
            let comes_last = is_folding || !heard.stuck.is_empty();
            heard.turn.look(hears, comes_last, now);
            let active = heard.turn.is_active(now);
            if std::mem::replace(&mut heard.said_active, active) != active {
                tracing::info!(active, "whose turn it is to decide");
                counts::active(active);
            }
            active
        };
        self.say(Beat { active, loads, ..Beat::of(self.log.newest()) }).await;
    }

    async fn say(&self, beat: Beat) {
        self.log.say(self.own.clone(), wire::beat::write(&beat)).await;
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node has been silent for so long that it is lost. One that was never heard is
    /// given the same time from the first question on.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        let mut heard = self.heard();
        let now = clock::monotonic();
        let last = *heard.nodes.entry(node).or_insert(now);
        let Some(since) = heard.hears_since(now) else { return false };
        now.duration_since(last.max(since)) > SILENCE_MAX
    }

    /// The counts of every node that is heard and of this process, as Prometheus text.
    pub(super) fn counts(&self, own: &str) -> String {
        let heard = self.heard();
        let now = clock::monotonic();
        let is_there = |node: &NodeId| {
            heard.nodes.get(node).is_some_and(|last| now.duration_since(*last) <= SILENCE_MAX)
        };
        let counts = heard.counts.iter().filter(|(node, _)| is_there(node));
        telemetry::merge(counts.map(|(_, text)| text.as_str()).chain([own]))
    }

    fn hear(&self, subject: &str, payload: &[u8]) {
        let of = |role| subject.strip_prefix(&subjects::beat(role, "")).and_then(wire::id::parse);
        if let Some(node) = of("node") {
            self.hear_node(NodeId(node), payload);
        } else if let Some(projector) = of("projector") {
            let who = format!("projector {}", NodeId(projector));
            self.hear_reader(who, &wire::beat::read(payload));
        } else if let Some(worker) = of(ROLE) {
            let beat = wire::beat::read(payload);
            if subject != self.own {
                self.hear_reader(format!("worker {}", NodeId(worker)), &beat);
            }
            self.hear_worker(NodeId(worker), subject == self.own, &beat);
        }
    }

    fn hear_worker(&self, worker: NodeId, is_own: bool, beat: &Beat) {
        if is_own {
            self.pulse();
        } else {
            self.heard().turn.hear(worker, beat.active, clock::monotonic());
        }
        for Reported { queue, milli } in &beat.loads {
            let Some(queue) = QueueId::parse(queue) else { continue };
            if self.loads.try_send((queue, *milli)).is_err() {
                tracing::warn!("too many loads are reported");
            }
        }
    }

    fn hear_reader(&self, who: String, beat: &Beat) {
        let mut heard = self.heard();
        let now = clock::monotonic();
        heard.readers.retain(|_, (last, _)| now.duration_since(*last) <= FORGET_AFTER);
        if heard.readers.len() < READERS_MAX || heard.readers.contains_key(&who) {
            heard.readers.insert(who, (now, Level(beat.level)));
        }
    }

    fn hear_node(&self, node: NodeId, payload: &[u8]) {
        let mut heard = self.heard();
        let now = clock::monotonic();
        heard.sweep(now);
        if heard.nodes.len() >= NODES_MAX && !heard.nodes.contains_key(&node) {
            return;
        }
        heard.nodes.insert(node, now);
        let Heard { counts, .. } = &mut *heard;
        let Beat { counts: text, .. } = wire::beat::read(payload);
        if text.len() <= COUNTS_BYTES_MAX {
            counts.insert(node, text);
        }
    }

    fn pulse(&self) {
        let mut heard = self.heard();
        let now = clock::monotonic();
        if !heard.hears(now) {
            heard.hearing_since = Some(now);
        }
        heard.pulse = Some(now);
    }
}

impl Heard {
    /// Forgets the nodes that have not been heard for long; once a second, since there may be many.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        let Self { nodes, counts, .. } = self;
        nodes.retain(|_, last| now.duration_since(*last) <= FORGET_AFTER);
        counts.retain(|node, _| nodes.contains_key(node));
    }

    /// Who else reads logs now, and up to which level each can.
    fn readers_now(&self) -> impl Iterator<Item = (&str, Level)> {
        let now = clock::monotonic();
        let there = move |last: Instant| now.duration_since(last) <= SILENCE_MAX;
        let readers = self.readers.iter().filter(move |(_, (last, _))| there(*last));
        readers.map(|(who, (_, level))| (who.as_str(), *level))
    }

    fn new(own: NodeId) -> Self {
        Self {
            turn: Turn::new(own),
            said_active: false,
            is_listed: false,
            folding: BTreeSet::new(),
            stuck: BTreeSet::new(),
            gave_up: None,
            nodes: BTreeMap::new(),
            readers: BTreeMap::new(),
            swept: None,
            counts: BTreeMap::new(),
            pulse: None,
            hearing_since: None,
        }
    }

    /// Since when our own beats come back, if they do.
    fn hears_since(&self, now: Instant) -> Option<Instant> {
        self.hearing_since.filter(|_| self.hears(now))
    }

    /// Whether our own beats come back.
    fn hears(&self, now: Instant) -> bool {
        self.pulse.is_some_and(|pulse| now.duration_since(pulse) <= PULSE_MAX)
    }
}
