//! The projector of one queue: log -> fold -> feed, and the store behind it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock::{self, LogClock};
use crate::ids;
use crate::log::connection::Log;
use crate::log::stream::Info;
use crate::log::subjects::{self, QueueId};
use crate::log::tail::{self, Halt, Record};
use crate::log::talk;
use crate::projection::delta;
use crate::projection::store::{Checkpoint, Store, page_of};
use crate::queue::digest::{Chain, digest, hex, standing_code};
use crate::queue::estimate::Pace;
use crate::queue::event::{At, Seq, VisitorId};
use crate::queue::line::{Change, Line};
use crate::shutdown::Shutdown;
use crate::wire;
use crate::wire::ask::{
    Answer, PlaceAnswer, PlaceFound, PlaceQuestion, Refusal, SnapshotQuestion, VerifyAnswer,
};
use crate::wire::feed::{
    Delta, FEED_VERSION, FRAME_BYTES_MAX, Frame, PART_BYTES_MAX, SnapshotPart,
};

/// Frames leave no closer together than this while things move; the first leaves at once.
const FRAME_EVERY: Duration = Duration::from_millis(25);
/// A frame leaves at least this often, so that a node knows when it hears nothing.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// A checkpoint is begun after this time or this many entries: what a restart folds again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
const CHECKPOINT_ENTRIES: u64 = 50_000;
/// A snapshot is given out to everyone who asks within this and whom it is new enough for: the parts
/// of a large one are fetched in less, and many nodes that ask at once cost one encoding.
const SNAPSHOT_KEPT: Duration = Duration::from_secs(1);
/// Questions that wait for an entry. A node has one of each kind under way, so this is many nodes.
const QUESTIONS_DEFERRED_MAX: usize = 4_096;
/// A question waits at most this long for the entry that it depends on.
const QUESTION_WAIT_MAX: Duration = Duration::from_secs(2);

/// A question to this projector.
pub(super) struct Question {
    heard: talk::Heard,
    /// What must be applied before it can be answered.
    at_least: Seq,
    /// Whether `at_least` is the log's end, asked for after the question came.
    is_end: bool,
    until: Instant,
}

impl Question {
    pub(super) fn new(heard: talk::Heard) -> Self {
        let until = clock::monotonic() + QUESTION_WAIT_MAX;
        Self { heard, at_least: Seq(0), is_end: false, until }
    }
}

pub(super) struct Projector {
    log: Log,
    queue: QueueId,
    dir: PathBuf,
    line: Line,
    chain: Chain,
    stream: Option<At>,
    halted: Option<Halt>,
    pace: Pace,
    clock: Option<LogClock>,
    info: Option<Info>,
    /// Since when the log was known to have more than was applied.
    behind: Option<(Seq, Instant)>,
    deltas: Vec<Delta>,
    last_delta: u64,
    store: Store,
    dirty: BTreeSet<u32>,
    stored: Seq,
    /// The last entry at which a checkpoint was handed over, taken or not.
    tried: Seq,
    waiting: Vec<Question>,
    /// The encoded snapshot that is being given out, by parts, and its name.
    snapshot: Option<(u64, Vec<u8>)>,
    /// What it is of, and when it was encoded.
    encoded: Option<(Seq, Instant)>,
    to_self: mpsc::WeakSender<Question>,
}

impl Projector {
    /// Opens the store and goes on from its checkpoint, if it has one to be believed.
    pub(super) fn open(
        log: &Log,
        queue: &QueueId,
        dir: &Path,
        to_self: mpsc::WeakSender<Question>,
    ) -> Result<Self, std::io::Error> {
        std::fs::create_dir_all(dir)?;
        let dir = dir.join(queue.as_str());
        let (store, restored) = Store::open(&dir)?;
        let (line, chain, stream) = match restored {
            Some(restored) => (restored.line, restored.chain, Some(restored.stream)),
            None => (Line::default(), Chain::default(), None),
        };
        tracing::info!(%queue, from = line.seq().0, visitors = line.places().len(), "checkpoint");
        let mut pace = Pace::default();
        pace.state(line.at(), line.state());
        Ok(Self {
            log: log.clone(),
            queue: queue.clone(),
            dir,
            last_delta: line.seq().0,
            stored: line.seq(),
            tried: line.seq(),
            line,
            chain,
            stream,
            halted: None,
            pace,
            clock: None,
            info: None,
            behind: None,
            deltas: Vec::new(),
            store,
            dirty: BTreeSet::new(),
            waiting: Vec::new(),
            snapshot: None,
            encoded: None,
            to_self,
        })
    }

    pub(super) async fn run(mut self, mut questions: mpsc::Receiver<Question>, shutdown: Shutdown) {
        let next = Seq(self.line.seq().0 + 1);
        let mut tail = tail::follow(&self.log, &self.queue, next, self.stream, &shutdown);
        let mut frame = tokio::time::interval(FRAME_EVERY);
        frame.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
        let mut checkpoint = tokio::time::interval(CHECKPOINT_EVERY);
        loop {
            tokio::select! {
                Some(heard) = tail.recv() => self.hear(heard),
                question = questions.recv() => match question {
                    Some(question) => self.question(question).await,
                    None => break,
                },
                _ = frame.tick(), if !self.deltas.is_empty() => self.publish().await,
                _ = heartbeat.tick() => self.publish().await,
                _ = checkpoint.tick() => self.checkpoint(),
            }
            self.answer_waiting().await;
            if self.line.seq().0 - self.tried.0 >= CHECKPOINT_ENTRIES {
                self.checkpoint();
            }
        }
        self.checkpoint();
    }

    fn hear(&mut self, heard: tail::Heard) {
        match heard {
            tail::Heard::Records(records) => {
                for record in &records {
                    if self.halted.is_none() {
                        self.apply(record);
                    }
                }
            }
            tail::Heard::Info(info) => {
                self.stream = Some(info.created);
                self.clock.get_or_insert_with(|| LogClock::new(info.now)).hear(info.now);
                self.info = Some(info);
                let known = self.behind.filter(|(end, _)| *end > self.line.seq());
                let more = info.last > self.line.seq();
                self.behind = known.or_else(|| more.then(|| (info.last, clock::monotonic())));
            }
            tail::Heard::Away(_) => {}
            tail::Heard::Halt(halt) => self.halt(halt),
        }
    }

    fn halt(&mut self, halt: Halt) {
        tracing::error!(queue = %self.queue, seq = self.line.seq().0, reason = %halt, "halted");
        self.halted = Some(halt);
    }

    fn apply(&mut self, record: &Record) {
        let (entry, why) = match record.read(&self.queue) {
            Ok(read) => read,
            Err(halt) => return self.halt(halt),
        };
        if let Some(why) = why {
            tracing::warn!(queue = %self.queue, seq = record.seq.0, why, "void entry");
        }
        let change = self.line.apply(record.seq, record.stored, &entry);
        self.chain = self.chain.then(record.seq, record.stored, &record.subject, &record.payload);
        if !change.void.is_empty() || change.void_entry.is_some() {
            tracing::debug!(queue = %self.queue, seq = record.seq.0, "facts that count nowhere");
        }
        self.note(&change);
        if let Some(delta) = delta::delta(&self.line, &change, self.last_delta) {
            self.last_delta = delta.seq;
            self.deltas.push(delta);
        }
    }

    fn note(&mut self, change: &Change) {
        let at = self.line.at();
        if change.configured {
            self.pace.state(at, self.line.state());
        }
        if !change.admitted.is_empty() {
            self.pace.admitted(at, u32::try_from(change.admitted.len()).unwrap_or(u32::MAX));
        }
        let joined = change.joined.first.0..change.joined.first.0 + change.joined.accepted;
        let others = change.came.iter().map(|(ticket, _)| ticket);
        let others = others.chain(change.ended.iter().map(|(ticket, _)| ticket));
        let others = others.chain(&change.went).chain(&change.prolonged);
        let others = others.chain(&change.admitted).chain(&change.entered);
        self.dirty.extend(others.map(|ticket| page_of(*ticket)));
        self.dirty.extend(joined.map(|ticket| page_of(crate::queue::event::Ticket(ticket))));
    }

    async fn publish(&mut self) {
        if self.halted.is_some() || self.stream.is_none() || !self.is_configured() {
            return;
        }
        let mut deltas = std::mem::take(&mut self.deltas).into_iter().peekable();
        loop {
            let mut frame = self.empty_frame();
            let mut bytes = 0;
            while let Some(delta) = deltas.peek() {
                bytes += wire::feed::write(delta).len();
                if bytes > FRAME_BYTES_MAX && !frame.deltas.is_empty() {
                    break;
                }
                frame.deltas.extend(deltas.next());
            }
            let more = deltas.peek().is_some();
            if more {
                // What is not sent yet is not covered yet.
                frame.last_delta = frame.deltas.last().map_or(0, |delta| delta.seq);
                frame.through = frame.last_delta;
            }
            self.log.say(subjects::feed(&self.queue), wire::feed::write(&frame)).await;
            if !more {
                return;
            }
        }
    }

    /// Whether there is a queue: a stream without its first decision is one in the making.
    fn is_configured(&self) -> bool {
        self.line.last_decision() > Seq(0)
    }

    fn empty_frame(&self) -> Frame {
        let behind = self.behind.filter(|(end, _)| *end > self.line.seq());
        let millis =
            behind.map_or(0, |(_, since)| clock::monotonic().duration_since(since).as_millis());
        Frame {
            version: FEED_VERSION,
            stream: self.stream.unwrap_or_default().0,
            through: self.line.seq().0,
            last_delta: self.last_delta,
            now: self.now().0,
            behind_millis: u32::try_from(millis).unwrap_or(u32::MAX),
            inside: self.inside(),
            full_milli: self.full_milli(),
            pace_milli: self.pace.per_minute_milli(self.now(), self.line.policy()),
            deltas: Vec::new(),
        }
    }

    fn now(&self) -> At {
        self.clock.as_ref().map_or_else(|| self.line.at(), |clock| clock.now().max(self.line.at()))
    }

    fn inside(&self) -> u32 {
        let inside = self.line.unused().len() + self.line.inside().len();
        u32::try_from(inside).unwrap_or(u32::MAX)
    }

    fn full_milli(&self) -> u16 {
        let Some(info) = self.info else { return 0 };
        let milli = u128::from(info.bytes) * 1_000 / u128::from(info.max_bytes.max(1));
        u16::try_from(milli).unwrap_or(u16::MAX)
    }

    fn checkpoint(&mut self) {
        if let Some(why) = self.store.failure().map(str::to_owned) {
            self.reopen_store(&why);
        }
        let Some(stream) = self.stream.filter(|_| self.line.seq() > self.stored) else { return };
        self.tried = self.line.seq();
        let pages = self.dirty.iter().copied();
        if self.store.try_write(Checkpoint::new(stream, self.chain, &self.line, pages)) {
            self.stored = self.line.seq();
            self.dirty.clear();
        }
    }

    /// The line in memory is right whatever became of the store: it is written anew, whole.
    fn reopen_store(&mut self, why: &str) {
        tracing::error!(queue = %self.queue, why, "the projection's store failed; writing it anew");
        match Store::begin_anew(&self.dir) {
            Ok(store) => {
                self.store = store;
                let last = u32::try_from(self.line.places().len()).unwrap_or(u32::MAX);
                self.dirty = (0..=page_of(crate::queue::event::Ticket(last))).collect();
                self.stored = Seq(0);
            }
            Err(error) => tracing::error!(queue = %self.queue, %error, "no store for now"),
        }
    }

    async fn question(&mut self, question: Question) {
        let asked = subjects::question(&question.heard.subject).map(|(_, asked)| asked.to_owned());
        match asked.as_deref() {
            _ if self.halted.is_some() => self.refuse(&question, Refusal::Halted).await,
            _ if self.waiting.len() >= QUESTIONS_DEFERRED_MAX => {
                self.refuse(&question, Refusal::Behind).await;
            }
            _ if self.stream.is_none() || question.at_least > self.line.seq() => {
                self.waiting.push(question);
            }
            // A queue that is just being made: it is there in a moment.
            Some("snapshot") if !self.is_configured() => self.waiting.push(question),
            Some("snapshot") => self.snapshot(question).await,
            // Of everything that was there when it was asked, so that two answers can be compared.
            Some("verify") if !question.is_end => self.wait_for_end(question),
            Some("verify") => self.verify(&question).await,
            Some("place") => self.place(question).await,
            _ => self.refuse(&question, Refusal::BadQuestion).await,
        }
    }

    async fn answer_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let now = clock::monotonic();
        for question in std::mem::take(&mut self.waiting) {
            if question.until <= now {
                self.refuse(&question, Refusal::Behind).await;
            } else if question.at_least <= self.line.seq() || self.halted.is_some() {
                Box::pin(self.question(question)).await;
            } else {
                self.waiting.push(question);
            }
        }
    }

    async fn snapshot(&mut self, mut question: Question) {
        let asked = serde_json::from_slice::<SnapshotQuestion>(&question.heard.payload);
        let Ok(asked) = asked else { return self.refuse(&question, Refusal::BadQuestion).await };
        question.at_least = question.at_least.max(Seq(asked.at_least));
        if question.at_least > self.line.seq() {
            return self.waiting.push(question);
        }
        if asked.id.is_none() {
            self.encode_snapshot(Seq(asked.at_least));
        }
        let Some((id, bytes)) = &self.snapshot else { return };
        if asked.id.is_some_and(|asked| asked != *id) {
            // Another projector's, or one that others' questions have replaced: asked for anew.
            return;
        }
        let from = usize::try_from(asked.offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(PART_BYTES_MAX).min(bytes.len());
        let part = SnapshotPart {
            id: *id,
            total: bytes.len() as u64,
            bytes: bytes.get(from..to).unwrap_or_default().to_vec(),
        };
        self.log.answer_bytes(&question.heard, wire::feed::write(&part)).await;
    }

    /// Encodes the snapshot, unless one that is new enough is at hand.
    fn encode_snapshot(&mut self, at_least: Seq) {
        let now = clock::monotonic();
        let recent = self.encoded.filter(|(_, at)| now.duration_since(*at) < SNAPSHOT_KEPT);
        if recent.is_some_and(|(seq, _)| seq >= at_least) {
            return;
        }
        self.encoded = Some((self.line.seq(), now));
        let mut snapshot = delta::snapshot(&self.line);
        let frame = self.empty_frame();
        snapshot.stream = frame.stream;
        snapshot.last_delta = frame.last_delta;
        snapshot.now = frame.now;
        snapshot.behind_millis = frame.behind_millis;
        snapshot.inside = frame.inside;
        snapshot.full_milli = frame.full_milli;
        snapshot.pace_milli = frame.pace_milli;
        let [a, b, c, d, e, f, g, h, ..] = ids::node().0;
        let id = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        self.snapshot = Some((id, wire::feed::write(&snapshot)));
    }

    async fn verify(&self, question: &Question) {
        let answer = VerifyAnswer {
            sequence: self.line.seq().0,
            digest: hex(&digest(&self.line)),
            chain: hex(&self.chain.0),
        };
        self.log.answer(&question.heard, &Answer::Ok(answer)).await;
    }

    async fn place(&mut self, mut question: Question) {
        let asked = serde_json::from_slice::<PlaceQuestion>(&question.heard.payload);
        let Some(asked) =
            asked.ok().filter(|asked| asked.visitors.len() <= wire::ask::VISITORS_PER_QUESTION_MAX)
        else {
            return self.refuse(&question, Refusal::BadQuestion).await;
        };
        question.at_least = question.at_least.max(Seq(asked.at_least));
        if question.at_least > self.line.seq() {
            return self.waiting.push(question);
        }
        let found = |id: &wire::id::Id| {
            let ticket = self.line.ticket(VisitorId(id.0))?;
            let place = self.line.place(ticket)?;
            let standing = standing_code(place.standing);
            let present = place.absent.is_none();
            let node = present.then(|| wire::id::Id(self.line.nodes().id(place.node).0));
            Some(PlaceFound { ticket: ticket.0, standing, node })
        };
        let places: Vec<Option<PlaceFound>> = asked.visitors.iter().map(found).collect();
        if places.iter().any(Option::is_none) && !question.is_end {
            return self.wait_for_end(question);
        }
        let answer = PlaceAnswer { through: self.line.seq().0, places };
        self.log.answer(&question.heard, &Answer::Ok(answer)).await;
    }

    /// Asks for the log's end, for a question that is answered only after everything that was there
    /// when it was asked: "nobody of that name", for one.
    fn wait_for_end(&self, question: Question) {
        let (log, queue, to_self) = (self.log.clone(), self.queue.clone(), self.to_self.clone());
        let look = async move {
            match log.stream_info(&queue).await {
                Ok(info) => {
                    let question = Question { at_least: info.last, is_end: true, ..question };
                    if let Some(to_self) = to_self.upgrade() {
                        // When the queue of questions is full, the asker asks again.
                        let _ = to_self.try_send(question);
                    }
                }
                Err(_) => {
                    let refusal = Answer::<()>::No(Refusal::LogUnavailable);
                    log.answer(&question.heard, &refusal).await;
                }
            }
        };
        crate::shutdown::detached(look);
    }

    async fn refuse(&self, question: &Question, refusal: Refusal) {
        self.log.answer(&question.heard, &Answer::<()>::No(refusal)).await;
    }
}
