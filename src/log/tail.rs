//! Reading the log from a sequence on, in order and without a gap, for as long as one likes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::clock;
use crate::log::connection::{Log, REQUEST_SECONDS_MAX};
use crate::log::stream::{Info, StreamError};
use crate::log::subjects::{self, QueueId};
use crate::queue::digest::Chain;
use crate::queue::event::{At, Entry, Level, Seq};
use crate::shutdown::Shutdown;
use crate::wire;
use crate::wire::event::Read;

/// One message of the log, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where.
    pub seq: Seq,
    /// When it was stored.
    pub stored: At,
    /// Its subject.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
}

impl Record {
    /// What it says to a reader who knows levels up to `newest`. A log that begins with version 1 halts
    /// every reader.
    pub fn read(&self, queue: &QueueId, newest: Level) -> Result<Written, Halt> {
        let subject = subjects::writer_and_kind(queue, &self.subject).unwrap_or_default();
        if self.seq == Seq(1) && wire::event::is_of_version_1(subject, &self.payload) {
            return Err(Halt::Version1);
        }
        Ok(match wire::event::read(subject, &self.payload, newest) {
            Read::Entry(version, entry) => Written { version, entry, why: None },
            Read::Void { fenced, why } => {
                let version = Level::FIRST;
                Written { version, entry: Entry::Void { fenced }, why: Some(why) }
            }
        })
    }
}

/// What an entry says, before it is known whether the log's level allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    version: Level,
    entry: Entry,
    /// Of a void entry, what is wrong with it.
    why: Option<String>,
}

impl From<Entry> for Written {
    /// An entry that is valid at every level.
    fn from(entry: Entry) -> Self {
        Self { version: Level::FIRST, entry, why: None }
    }
}

impl Written {
    /// What is folded of it where the log is at this level: an entry of a higher version is void.
    pub fn at_level(&self, level: Level) -> (&Entry, Option<String>) {
        if self.version <= level {
            return (&self.entry, self.why.clone());
        }
        let why = format!("its version, {}, is above the log's level, {level}", self.version);
        let void = match &self.entry {
            Entry::Decided(_) => &Entry::Void { fenced: true },
            Entry::Joined(_)
            | Entry::Reconnected(_)
            | Entry::Disconnected(_)
            | Entry::Left(_)
            | Entry::Void { .. } => &Entry::Void { fenced: false },
        };
        (void, Some(why))
    }
}

/// What the fold applies of a record, and the chain with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where it is.
    pub seq: Seq,
    /// When it was stored.
    pub stored: At,
    /// The chain from the first entry up to this one.
    pub chain: Chain,
    /// What it says.
    pub written: Written,
}

/// What a reader hears.
#[derive(Debug)]
pub enum Heard<R = Record> {
    /// The next messages, in order.
    Records(Vec<R>),
    /// What the server says of the stream: about each second, so silence means something.
    Info(Info),
    /// The log can't be reached, since this point of the machine's time.
    Away(Instant),
    /// The reader must not go on.
    Halt(Halt),
}

/// Why a reader must not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Entries are missing.
    #[error("entry {} is missing; the next one there is {}", .expected.0, .found.0)]
    Gap {
        /// The one that should come.
        expected: Seq,
        /// The one that came.
        found: Seq,
    },
    /// It is another stream than the one that was read before, or has lost its end.
    #[error("this is not the stream that was read before")]
    OtherStream,
    /// An entry raises the log to a level that this program does not know.
    #[error("entry {} raises the log to level {level}, which this program can't read: upgrade it", .seq.0)]
    Level {
        /// The entry.
        seq: Seq,
        /// The level.
        level: Level,
    },
    /// The log is from before the first release.
    #[error(
        "this log is of version 1, from before the first release, which nothing reads any more: \
         begin with a new queue, or a new folder"
    )]
    Version1,
}

/// Messages fetched at once: about what one reply buffer of the server holds.
const FETCH_MESSAGES: usize = 500;
const FETCH_BYTES: usize = 1_000_000;
/// Batches that wait for a slow reader; then fetching waits.
const BATCHES_WAITING_MAX: usize = 4;
/// How often the stream is looked at: the bound on how late a missed message is noticed.
const INFO_EVERY: Duration = Duration::from_secs(1);
/// For how long a stream may say that it ends before what was read of it.
const SHORT_MAX: Duration = Duration::from_secs(10);
/// A fetch whose next reply does not come within this is begun anew.
const FETCH_WAIT_MAX: Duration = REQUEST_SECONDS_MAX;
/// Messages read one by one when they can't be fetched together: about a tenth of a second.
const SINGLE_MESSAGES: usize = 100;

/// Follows the log of a queue from `next` on. With `identity`, only that stream will do.
pub fn follow(
    log: &Log,
    queue: &QueueId,
    next: Seq,
    identity: Option<At>,
    shutdown: &Shutdown,
) -> mpsc::Receiver<Heard> {
    start(log, queue, next, None, identity, shutdown)
}

/// Goes on after the last entry that was read and when it was stored; from the first without. A log
/// in which that entry is another is not gone on with.
pub fn follow_on(
    log: &Log,
    queue: &QueueId,
    last: Option<(Seq, At)>,
    identity: Option<At>,
    shutdown: &Shutdown,
) -> mpsc::Receiver<Heard> {
    let next = Seq(last.map_or(0, |(seq, _)| seq.0) + 1);
    start(log, queue, next, last, identity, shutdown)
}

fn start(
    log: &Log,
    queue: &QueueId,
    next: Seq,
    last: Option<(Seq, At)>,
    identity: Option<At>,
    shutdown: &Shutdown,
) -> mpsc::Receiver<Heard> {
    let (to_reader, reader) = mpsc::channel(BATCHES_WAITING_MAX);
    let (log, queue) = (log.clone(), queue.clone());
    let tail = Tail { log, queue, next, identity, last, short_since: None, to_reader };
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        tokio::select! {
            () = tail.run() => {}
            () = stopping.stopped() => {}
        }
    });
    reader
}

/// Decodes what is heard, ahead of whoever folds it, and goes on with the chain: a log that is read
/// from its first entry then keeps two processors busy. An entry that can't be read by this program
/// is a halt, after all that came before it.
pub fn decode(
    mut heard: mpsc::Receiver<Heard>,
    queue: &QueueId,
    chain: Chain,
    newest: Level,
    shutdown: &Shutdown,
) -> mpsc::Receiver<Heard<Decoded>> {
    let (to_reader, reader) = mpsc::channel(BATCHES_WAITING_MAX);
    let (queue, stopping, mut chain) = (queue.clone(), shutdown.clone(), chain);
    let decode = async move {
        while let Some(heard) = heard.recv().await {
            let (heard, halt) = match heard {
                Heard::Records(records) => {
                    let (decoded, halt) = decode_all(&records, &queue, newest, &mut chain);
                    (Heard::Records(decoded), halt)
                }
                Heard::Info(info) => (Heard::Info(info), None),
                Heard::Away(since) => (Heard::Away(since), None),
                Heard::Halt(halt) => (Heard::Halt(halt), None),
            };
            if to_reader.send(heard).await.is_err() {
                return;
            }
            if let Some(halt) = halt {
                // Whoever reads has gone, or hears it.
                let _ = to_reader.send(Heard::Halt(halt)).await;
                return;
            }
        }
    };
    shutdown.spawn(async move {
        tokio::select! {
            () = decode => {}
            () = stopping.stopped() => {}
        }
    });
    reader
}

fn decode_all(
    records: &[Record],
    queue: &QueueId,
    newest: Level,
    chain: &mut Chain,
) -> (Vec<Decoded>, Option<Halt>) {
    let mut decoded = Vec::with_capacity(records.len());
    for record in records {
        let written = match record.read(queue, newest) {
            Ok(written) => written,
            Err(halt) => return (decoded, Some(halt)),
        };
        *chain = chain.then(record.seq, record.stored, &record.subject, &record.payload);
        let (seq, stored) = (record.seq, record.stored);
        decoded.push(Decoded { seq, stored, chain: *chain, written });
    }
    (decoded, None)
}

struct Tail {
    log: Log,
    queue: QueueId,
    next: Seq,
    identity: Option<At>,
    /// The last entry that was read, and when it was stored.
    last: Option<(Seq, At)>,
    /// Since when the stream has ended before what was read of it already.
    short_since: Option<Instant>,
    to_reader: mpsc::Sender<Heard>,
}

/// Nobody reads any more, or must not.
struct Done;

impl Tail {
    async fn run(mut self) {
        let Ok(mut live) = self.log.client.subscribe(subjects::stored_all(&self.queue)).await
        else {
            return;
        };
        let mut away_since = None;
        loop {
            let connection = self.log.connections();
            let heard = match self.look().await {
                Ok(_) => {
                    away_since = None;
                    self.listen(&mut live, connection).await
                }
                Err(Halted::For(halt)) => self.tell(Heard::Halt(halt)).await.and(Err(Done)),
                Err(Halted::Away) => {
                    let since = *away_since.get_or_insert_with(clock::monotonic);
                    let told = self.tell(Heard::Away(since)).await;
                    tokio::time::sleep(INFO_EVERY / 4).await;
                    told
                }
            };
            if heard.is_err() {
                return;
            }
        }
    }

    /// Looks at the stream and reads what is there already.
    async fn look(&mut self) -> Result<(), Halted> {
        let info = match self.log.stream_info(&self.queue).await {
            Ok(info) => info,
            Err(StreamError::Missing) if self.identity.is_some() => {
                return Err(Halted::For(Halt::OtherStream));
            }
            Err(StreamError::Missing | StreamError::Away(_) | StreamError::Refused(_)) => {
                self.short_since = None;
                return Err(Halted::Away);
            }
        };
        if *self.identity.get_or_insert(info.created) != info.created {
            return Err(Halted::For(Halt::OtherStream));
        }
        if info.last.0 + 1 < self.next.0 {
            // A new leader may not have applied everything for a moment; a stream that lost its end
            // stays short.
            let since = *self.short_since.get_or_insert_with(clock::monotonic);
            let lost = clock::monotonic().duration_since(since) > SHORT_MAX;
            return Err(if lost { Halted::For(Halt::OtherStream) } else { Halted::Away });
        }
        self.short_since = None;
        self.check_last().await?;
        let last = info.last;
        self.tell(Heard::Info(info)).await.map_err(|Done| Halted::Away)?;
        while self.next <= last {
            let batch = self.log.fetch(&self.queue, self.next, FETCH_MESSAGES).await;
            let batch = batch.map_err(|FetchError| Halted::Away)?;
            if batch.is_empty() {
                // A follower that has not caught up yet: it will have, when asked again.
                break;
            }
            self.pass_on(batch).await?;
        }
        Ok(())
    }

    /// Looks whether the last entry that was read is still the same: a stream that was restored from a
    /// backup and has grown since has the same name, age and length, but another history.
    async fn check_last(&self) -> Result<(), Halted> {
        let Some((seq, stored)) = self.last else { return Ok(()) };
        // Singly, since its headers may be hostile.
        let there = self.log.read_singly(&self.queue, seq, 1).await;
        let there = there.map_err(|FetchError| Halted::Away)?;
        let is_same = there.first().is_some_and(|there| (there.seq, there.stored) == (seq, stored));
        if is_same { Ok(()) } else { Err(Halted::For(Halt::OtherStream)) }
    }

    /// Passes on what comes live, until the stream is to be looked at again: at the latest when it comes
    /// on another connection, whose server may have another stream.
    async fn listen(&mut self, live: &mut Subscriber, connection: u64) -> Result<(), Done> {
        let look_again = tokio::time::sleep(INFO_EVERY);
        tokio::pin!(look_again);
        loop {
            let message = tokio::select! {
                message = live.next() => message.ok_or(Done)?,
                () = &mut look_again => return Ok(()),
                () = self.to_reader.closed() => return Err(Done),
            };
            if self.log.connections() != connection {
                return Ok(());
            }
            let mut batch = Vec::new();
            let mut message = Some(message);
            let mut expected = self.next;
            while let Some(record) = message.as_ref().and_then(read_record) {
                // Older ones were read already; a later one means that some were missed.
                if record.seq > expected {
                    break;
                }
                if record.seq == expected {
                    expected = Seq(expected.0 + 1);
                    batch.push(record);
                }
                if batch.len() == FETCH_MESSAGES {
                    message = None;
                    break;
                }
                message = live.next().now_or_never().flatten();
            }
            match self.pass_on(batch).await {
                Ok(()) if message.is_none() => {}
                Ok(()) | Err(Halted::Away) => return Ok(()),
                Err(Halted::For(halt)) => {
                    self.tell(Heard::Halt(halt)).await?;
                    return Err(Done);
                }
            }
        }
    }

    /// Passes on what follows on the last one; what is there after a gap halts.
    async fn pass_on(&mut self, mut batch: Vec<Record>) -> Result<(), Halted> {
        let in_order = batch.iter().zip(self.next.0..).take_while(|(r, seq)| r.seq.0 == *seq);
        let in_order = in_order.count();
        let beyond = batch.get(in_order).map(|record| record.seq);
        batch.truncate(in_order);
        if let Some(last) = batch.last() {
            self.next = Seq(last.seq.0 + 1);
            self.last = Some((last.seq, last.stored));
            self.tell(Heard::Records(batch)).await.map_err(|Done| Halted::Away)?;
        }
        match beyond {
            Some(found) => Err(Halted::For(Halt::Gap { expected: self.next, found })),
            None => Ok(()),
        }
    }

    async fn tell(&self, heard: Heard) -> Result<(), Done> {
        self.to_reader.send(heard).await.map_err(|_| Done)
    }
}

enum Halted {
    Away,
    For(Halt),
}

/// A fetch that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("the log can't be reached")]
pub struct FetchError;

impl Log {
    /// The messages from `next` on, at most `count` of them; none when there are none yet.
    pub async fn fetch(
        &self,
        queue: &QueueId,
        next: Seq,
        count: usize,
    ) -> Result<Vec<Record>, FetchError> {
        let all = subjects::log_all(queue);
        match self.fetch_messages(queue, next, &all, count).await {
            Ok(found) => Ok(found.iter().filter_map(read_record).collect()),
            Err(FetchError) => self.read_singly(queue, next, count.min(SINGLE_MESSAGES)).await,
        }
    }

    /// The same messages as JSON. A header that is none breaks the connection of whoever is sent
    /// it as it is; one hostile entry would keep every reader from all that follow.
    async fn read_singly(
        &self,
        queue: &QueueId,
        next: Seq,
        count: usize,
    ) -> Result<Vec<Record>, FetchError> {
        let api = format!("$JS.API.STREAM.MSG.GET.{}", subjects::stream(queue));
        let mut records = Vec::new();
        let mut next = next;
        while records.len() < count && self.is_connected() {
            let request =
                serde_json::json!({"seq": next.0, "next_by_subj": subjects::log_all(queue)});
            let reply = self.client.request(api.clone(), request.to_string().into()).await;
            let reply = reply.map_err(|_| FetchError)?;
            let read: SingleJson =
                serde_json::from_slice(&reply.payload).map_err(|_| FetchError)?;
            let Some(message) = read.message else { break };
            let record = message.into_record().ok_or(FetchError)?;
            next = Seq(record.seq.0 + 1);
            records.push(record);
        }
        // None is for the one who asks to find out: it may be the end, or the server's bad day.
        if records.is_empty() { Err(FetchError) } else { Ok(records) }
    }

    pub(super) async fn fetch_messages(
        &self,
        queue: &QueueId,
        next: Seq,
        subject: &str,
        count: usize,
    ) -> Result<Vec<Message>, FetchError> {
        if !self.is_connected() {
            return Err(FetchError);
        }
        let inbox = self.client.new_inbox();
        let mut replies = self.client.subscribe(inbox.clone()).await.map_err(|_| FetchError)?;
        let request = serde_json::json!({
            "seq": next.0, "next_by_subj": subject, "batch": count, "max_bytes": FETCH_BYTES,
        });
        let api = format!("$JS.API.DIRECT.GET.{}", subjects::stream(queue));
        let sent = self.client.publish_with_reply(api, inbox, request.to_string().into()).await;
        sent.map_err(|_| FetchError)?;
        let mut found = Vec::new();
        let connection = self.connections();
        loop {
            let reply = tokio::time::timeout(FETCH_WAIT_MAX, replies.next()).await;
            let message = reply.ok().flatten().ok_or(FetchError)?;
            // What comes on a new connection may follow on what was lost with the old one.
            if self.connections() != connection {
                return Err(FetchError);
            }
            match message.status.map(|status| status.as_u16()) {
                None => found.push(message),
                // The end of a batch, and "nothing there".
                Some(204 | 404) => return Ok(found),
                Some(_) => return Err(FetchError),
            }
        }
    }

    /// How often this client has connected.
    fn connections(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}

#[derive(Deserialize)]
struct SingleJson {
    message: Option<MessageJson>,
}

#[derive(Deserialize)]
struct MessageJson {
    seq: u64,
    time: String,
    subject: String,
    #[serde(default)]
    data: String,
}

impl MessageJson {
    fn into_record(self) -> Option<Record> {
        Some(Record {
            seq: Seq(self.seq),
            stored: clock::parse_rfc3339(&self.time)?,
            subject: self.subject,
            payload: STANDARD.decode(self.data).ok()?.into(),
        })
    }
}

/// A message with the headers that direct get and republication give it.
fn read_record(message: &Message) -> Option<Record> {
    let headers = message.headers.as_ref()?;
    let text = |name: &str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
    Some(Record {
        seq: Seq(text("Nats-Sequence")?.parse().ok()?),
        stored: clock::parse_rfc3339(text("Nats-Time-Stamp")?)?,
        subject: text("Nats-Subject")?.to_owned(),
        payload: message.payload.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, subject: &str, payload: &'static str) -> Record {
        let subject = format!("anteroom.log.demo.{subject}");
        Record { seq: Seq(seq), stored: At(0), subject, payload: payload.into() }
    }

    fn queue() -> QueueId {
        QueueId::parse("demo").unwrap()
    }

    #[test]
    fn an_entry_above_the_logs_level_is_void_whoever_reads_it() {
        let facts = r#""facts":[{"visitor":"11111111-1111-1111-1111-111111111111"}]"#;
        let payload: &'static str = format!(r#"{{"v":3,{facts}}}"#).leak();
        let record = record(2, "node.left", payload);
        for newest in [Level::FIRST, Level::FIRST.next()] {
            let written = record.read(&queue(), newest).unwrap();
            let (entry, why) = written.at_level(Level::FIRST);
            assert_eq!(*entry, Entry::Void { fenced: false });
            assert!(why.unwrap().contains("version"), "it is named");
        }
        let written = record.read(&queue(), Level::FIRST.next()).unwrap();
        assert!(matches!(written.at_level(Level::FIRST.next()), (Entry::Left(_), None)));
    }

    #[test]
    fn a_log_of_version_1_is_refused_and_nothing_behind_it_is_decoded() {
        let records =
            [record(1, "admission.configured", r#"{"v":1}"#), record(2, "node.left", "{}")];
        let mut chain = Chain::default();
        let (decoded, halt) = decode_all(&records, &queue(), Level::NEWEST, &mut chain);
        assert_eq!((decoded, halt), (vec![], Some(Halt::Version1)));
        // A node can't have one refused.
        assert!(record(1, "node.left", r#"{"v":1}"#).read(&queue(), Level::NEWEST).is_ok());
    }
}
