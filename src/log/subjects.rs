//! Every subject, on one screen.

use crate::wire::event::Writer;

/// The name of a queue: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(String);

impl QueueId {
    /// The queue of this name, if it is one.
    pub fn parse(name: &str) -> Option<Self> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let fits = (1..=63).contains(&name.len()) && !name.starts_with('-');
        (fits && name.bytes().all(plain)).then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for QueueId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

const STREAM: &str = "ANTEROOM_";
const LOG: &str = "anteroom.log";
const STORED: &str = "anteroom.stored";

/// The stream of a queue.
pub fn stream(queue: &QueueId) -> String {
    format!("{STREAM}{queue}")
}

/// The queue of a stream, if it is one's.
pub fn queue_of_stream(stream: &str) -> Option<QueueId> {
    QueueId::parse(stream.strip_prefix(STREAM)?)
}

/// All entries of a queue.
pub fn log_all(queue: &QueueId) -> String {
    format!("{LOG}.{queue}.>")
}

/// Entries of one kind.
pub fn log(queue: &QueueId, writer: Writer, kind: &str) -> String {
    let writer = match writer {
        Writer::Node => "node",
        Writer::Admission => "admission",
    };
    format!("{LOG}.{queue}.{writer}.{kind}")
}

/// What the admission fence counts.
pub fn fenced(queue: &QueueId) -> String {
    format!("{LOG}.{queue}.admission.*")
}

/// What follows the queue in an entry's subject: writer and kind.
pub fn writer_and_kind<'a>(queue: &QueueId, subject: &'a str) -> Option<&'a str> {
    subject.strip_prefix(LOG)?.strip_prefix('.')?.strip_prefix(queue.as_str())?.strip_prefix('.')
}

/// Entries of a queue, sent out again once they are stored.
pub fn stored_all(queue: &QueueId) -> String {
    format!("{STORED}.{queue}.>")
}

/// A queue's configuration, sent out again once it is stored; of every queue.
pub fn stored_configured() -> String {
    format!("{STORED}.*.admission.configured")
}

/// The queue of a subject under which stored entries are sent out.
pub fn queue_of_stored(subject: &str) -> Option<QueueId> {
    QueueId::parse(subject.strip_prefix(STORED)?.strip_prefix('.')?.split('.').next()?)
}

/// Position changes of a queue.
pub fn feed(queue: &QueueId) -> String {
    format!("anteroom.feed.{queue}")
}

/// Position changes of every queue.
pub fn feed_all() -> String {
    "anteroom.feed.*".to_owned()
}

/// The queue of a feed's subject.
pub fn queue_of_feed(subject: &str) -> Option<QueueId> {
    QueueId::parse(subject.strip_prefix("anteroom.feed.")?)
}

/// A question to a projector: `snapshot`, `place` or `verify`.
pub fn ask(queue: &QueueId, question: &str) -> String {
    format!("anteroom.ask.{queue}.{question}")
}

/// A queue's projectors, asked to begin anew or how far they are. Within their own account only:
/// whoever may ask where people stand may not make a projector forget it.
pub fn rebuild(queue: &QueueId) -> String {
    format!("anteroom.rebuild.{queue}")
}

/// The same for every queue.
pub fn rebuild_all() -> String {
    "anteroom.rebuild.*".to_owned()
}

/// The queue whose projector is asked to begin anew.
pub fn queue_of_rebuild(subject: &str) -> Option<QueueId> {
    QueueId::parse(subject.strip_prefix("anteroom.rebuild.")?)
}

/// Every question to projectors.
pub fn ask_all() -> String {
    "anteroom.ask.*.*".to_owned()
}

/// A question to admission: `mint` or `redeem`.
pub fn gate(queue: &QueueId, question: &str) -> String {
    format!("anteroom.gate.{queue}.{question}")
}

/// Every question to admission.
pub fn gate_all() -> String {
    "anteroom.gate.*.*".to_owned()
}

/// Queue and question of the subject of a question.
pub fn question(subject: &str) -> Option<(QueueId, &str)> {
    let rest =
        subject.strip_prefix("anteroom.ask.").or_else(|| subject.strip_prefix("anteroom.gate."))?;
    let (queue, question) = rest.split_once('.')?;
    Some((QueueId::parse(queue)?, question))
}

/// The heartbeat of one process.
pub fn beat(role: &str, id: &str) -> String {
    format!("anteroom.beat.{role}.{id}")
}

/// All heartbeats.
pub fn beats() -> String {
    beat("*", "*")
}
