//! What a projector is asked, and what it answers from its line.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock;
use crate::ids;
use crate::log::subjects;
use crate::log::talk;
use crate::projection::delta;
use crate::projection::projector::Projector;
use crate::queue::digest::{digest, hex, standing_code};
use crate::queue::event::{Seq, VisitorId};
use crate::wire;
use crate::wire::ask::{
    Answer, PlaceAnswer, PlaceFound, PlaceQuestion, RebuildAnswer, RebuildQuestion, Refusal,
    SnapshotQuestion, VerifyAnswer,
};
use crate::wire::feed::{PART_BYTES_MAX, SnapshotPart};

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

    /// Whether it is about beginning anew, and not about the line.
    pub(super) fn is_rebuild(&self) -> bool {
        subjects::queue_of_rebuild(&self.heard.subject).is_some()
    }
}

/// Answers that are under way.
pub(super) struct Given {
    waiting: Vec<Question>,
    /// The encoded snapshot that is being given out, by parts, and its name.
    snapshot: Option<(u64, Vec<u8>)>,
    /// What it is of, and when it was encoded.
    encoded: Option<(Seq, Instant)>,
    to_self: mpsc::WeakSender<Question>,
}

impl Given {
    pub(super) fn new(to_self: mpsc::WeakSender<Question>) -> Self {
        Self { waiting: Vec::new(), snapshot: None, encoded: None, to_self }
    }
}

impl Projector {
    /// Says how far the projector is. Gives whether it is asked to begin anew.
    pub(super) async fn rebuild_asked(&self, question: &Question) -> bool {
        let asked = serde_json::from_slice::<RebuildQuestion>(&question.heard.payload);
        let Ok(asked) = asked else {
            self.refuse(question, Refusal::BadQuestion).await;
            return false;
        };
        if question.until <= clock::monotonic() {
            // Whoever asked has gone on without us.
            return false;
        }
        let answer = RebuildAnswer {
            sequence: if asked.begin { 0 } else { self.fold.line().seq().0 },
            end: self.end().0,
            halted: self.halted.as_ref().filter(|_| !asked.begin).map(ToString::to_string),
        };
        self.log.answer(&question.heard, &Answer::Ok(answer)).await;
        asked.begin
    }

    pub(super) async fn question(&mut self, question: Question) {
        let asked = subjects::question(&question.heard.subject).map(|(_, asked)| asked.to_owned());
        match asked.as_deref() {
            // What was folded so far is still so, and why it is no more.
            Some("verify") if self.halted.is_some() => self.verify(&question).await,
            _ if self.given.waiting.len() >= QUESTIONS_DEFERRED_MAX => {
                self.refuse(&question, Refusal::Behind).await;
            }
            // Another projector may answer; a refusal at once would be there before it.
            _ if self.halted.is_some() && question.until > clock::monotonic() => {
                self.given.waiting.push(question);
            }
            _ if self.halted.is_some() => self.refuse(&question, Refusal::Halted).await,
            _ if self.stream.is_none() || question.at_least > self.fold.line().seq() => {
                self.given.waiting.push(question);
            }
            // A queue that is just being made: it is there in a moment.
            Some("snapshot") if !self.is_configured() => self.given.waiting.push(question),
            // What was so long ago is not to be taken for what is so now.
            Some("snapshot") if !self.is_at_the_end() => self.given.waiting.push(question),
            Some("snapshot") => self.snapshot(question).await,
            // Of everything that was there when it was asked, so that two answers can be compared.
            Some("verify") if !question.is_end => self.wait_for_end(question),
            Some("verify") => self.verify(&question).await,
            Some("place") if !self.is_at_the_end() => self.given.waiting.push(question),
            Some("place") => self.place(question).await,
            _ => self.refuse(&question, Refusal::BadQuestion).await,
        }
    }

    pub(super) async fn answer_waiting(&mut self) {
        if self.given.waiting.is_empty() {
            return;
        }
        let now = clock::monotonic();
        for question in std::mem::take(&mut self.given.waiting) {
            if question.until <= now {
                let halted = self.halted.is_some();
                let refusal = if halted { Refusal::Halted } else { Refusal::Behind };
                self.refuse(&question, refusal).await;
            } else if question.at_least <= self.fold.line().seq() || self.halted.is_some() {
                Box::pin(self.question(question)).await;
            } else {
                self.given.waiting.push(question);
            }
        }
    }

    async fn snapshot(&mut self, mut question: Question) {
        let asked = serde_json::from_slice::<SnapshotQuestion>(&question.heard.payload);
        let Ok(asked) = asked else { return self.refuse(&question, Refusal::BadQuestion).await };
        question.at_least = question.at_least.max(Seq(asked.at_least));
        if question.at_least > self.fold.line().seq() {
            return self.given.waiting.push(question);
        }
        if asked.id.is_none() {
            self.encode_snapshot(Seq(asked.at_least));
        }
        let Some((id, bytes)) = &self.given.snapshot else { return };
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
        let recent = self.given.encoded.filter(|(_, at)| now.duration_since(*at) < SNAPSHOT_KEPT);
        if recent.is_some_and(|(seq, _)| seq >= at_least) {
            return;
        }
        self.given.encoded = Some((self.fold.line().seq(), now));
        let mut snapshot = delta::snapshot(self.fold.line());
        let frame = self.empty_frame();
        snapshot.stream = frame.stream;
        snapshot.last_delta = frame.last_delta;
        snapshot.now = frame.now;
        snapshot.behind_millis = frame.behind_millis;
        snapshot.inside = frame.inside;
        snapshot.full_milli = frame.full_milli;
        snapshot.config.secret = self.secret();
        snapshot.outlook = self.outlook();
        let [a, b, c, d, e, f, g, h, ..] = ids::node().0;
        let id = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        self.given.snapshot = Some((id, wire::feed::write(&snapshot)));
    }

    async fn verify(&self, question: &Question) {
        let answer = VerifyAnswer {
            sequence: self.fold.line().seq().0,
            digest: hex(&digest(self.fold.line())),
            chain: hex(&self.fold.chain().0),
            halted: self.halted.as_ref().map(ToString::to_string),
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
        if question.at_least > self.fold.line().seq() {
            return self.given.waiting.push(question);
        }
        let found = |id: &wire::id::Id| {
            let ticket = self.fold.line().ticket(VisitorId(id.0))?;
            let place = self.fold.line().place(ticket)?;
            let standing = standing_code(place.standing);
            let present = place.absent().is_none();
            let node = present.then(|| wire::id::Id(self.fold.line().nodes().id(place.node).0));
            Some(PlaceFound {
                ticket: ticket.0,
                standing,
                node,
                socket: place.socket,
                opened: place.opened,
                hand: place.hand,
                came: place.came.0,
            })
        };
        let places: Vec<Option<PlaceFound>> = asked.visitors.iter().map(found).collect();
        if places.iter().any(Option::is_none) && !question.is_end {
            return self.wait_for_end(question);
        }
        let answer = PlaceAnswer { through: self.fold.line().seq().0, places };
        self.log.answer(&question.heard, &Answer::Ok(answer)).await;
    }

    /// Asks for the log's end, for a question that is answered only after everything that was there
    /// when it was asked: "nobody of that name", for one.
    fn wait_for_end(&self, question: Question) {
        let (log, queue, to_self) =
            (self.log.clone(), self.queue.clone(), self.given.to_self.clone());
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
