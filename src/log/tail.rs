//! Reading the log from a sequence on, in order and without a gap, for as long as one likes.

use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::clock;
use crate::log::codes::{ApiError, Meaning};
use crate::log::connection::{Log, REQUEST_SECONDS_MAX};
use crate::log::record::{Decoded, Halt, Record, decode_all};
use crate::log::stream::{Info, StreamError};
use crate::log::subjects::{self, QueueId};
use crate::queue::digest::Chain;
use crate::queue::event::{At, Level, Seq};
use crate::shutdown::Shutdown;

/// What a reader hears.
#[derive(Debug)]
pub enum Heard<R = Record> {
    /// The next messages, in order.
    Records(Vec<R>),
    /// What the server says of the stream: about each second, so silence means something.
    Info(Info),
    /// The log can't be reached, since this point of the machine's time.
    Away(Instant),
    /// The reader must not go on. Where the reason can pass ([`Halt::can_pass`]) it is looked at again, and
    /// the next [`Heard::Info`] says that it has.
    Halt(Halt),
}

/// Whoever reads a log once gives up when it has been away for so long; an election takes less.
pub const AWAY_MAX: Duration = Duration::from_secs(10);

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
    let tail =
        Tail { log, queue, next, identity, last, short_since: None, halted: None, to_reader };
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

struct Tail {
    log: Log,
    queue: QueueId,
    next: Seq,
    identity: Option<At>,
    /// The last entry that was read, and when it was stored.
    last: Option<(Seq, At)>,
    /// Since when the stream has ended before what was read of it already.
    short_since: Option<Instant>,
    /// Why the reader must not go on, as it was told.
    halted: Option<Halt>,
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
            let seen = match self.look().await {
                Ok(()) => {
                    (away_since, self.halted) = (None, None);
                    self.listen(&mut live, connection).await
                }
                Err(not) => Err(not),
            };
            let heard = match seen {
                Ok(()) => Ok(()),
                Err(Halted::Done) => Err(Done),
                Err(Halted::For(halt)) => {
                    away_since = None;
                    let told = match self.halted.as_ref() == Some(&halt) {
                        true => Ok(()),
                        false => self.tell(Heard::Halt(halt.clone())).await,
                    };
                    self.halted = Some(halt);
                    tokio::time::sleep(INFO_EVERY).await;
                    told
                }
                Err(Halted::Away) => {
                    // Whoever hears this has to be told again.
                    self.halted = None;
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
        self.check_gap().await?;
        let last = info.last;
        self.tell(Heard::Info(info)).await?;
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

    /// Looks whether what was missing is there now, before it is told that all is well.
    async fn check_gap(&self) -> Result<(), Halted> {
        if !matches!(self.halted, Some(Halt::Gap { .. })) {
            return Ok(());
        }
        let there = self.log.fetch(&self.queue, self.next, 1).await;
        let there = there.map_err(|FetchError| Halted::Away)?;
        match there.first().map(|record| record.seq) {
            Some(found) if found != self.next => {
                Err(Halted::For(Halt::Gap { expected: self.next, found }))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Passes on what comes live, until the stream is to be looked at again: at the latest when it comes
    /// on another connection, whose server may have another stream.
    async fn listen(&mut self, live: &mut Subscriber, connection: u64) -> Result<(), Halted> {
        let look_again = tokio::time::sleep(INFO_EVERY);
        tokio::pin!(look_again);
        loop {
            let message = tokio::select! {
                message = live.next() => message.ok_or(Halted::Done)?,
                () = &mut look_again => return Ok(()),
                // What was said in between is missed.
                () = self.log.reconnected(connection) => return Ok(()),
                () = self.to_reader.closed() => return Err(Halted::Done),
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
            self.pass_on(batch).await?;
            if message.is_some() {
                return Ok(());
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
            self.tell(Heard::Records(batch)).await?;
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

/// Why the log is not read on at the moment.
enum Halted {
    Away,
    For(Halt),
    Done,
}

impl From<Done> for Halted {
    fn from(Done: Done) -> Self {
        Self::Done
    }
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
            // What broke the connection would break it each time.
            Err(FetchError) => self.read_singly(queue, next, count).await,
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
        let mut records = Vec::new();
        let mut next = next;
        while records.len() < count {
            let found = match self.get_of_leader(queue, next, &subjects::log_all(queue)).await {
                // What was read so far is a step on.
                Err(FetchError) if !records.is_empty() => break,
                found => found?,
            };
            let Some(message) = found else { break };
            let record = message.into_record().ok_or(FetchError)?;
            next = Seq(record.seq.0 + 1);
            records.push(record);
        }
        Ok(records)
    }

    /// The first message from `next` on with this subject, as the stream's leader has it; none where there
    /// is none yet.
    pub(super) async fn get_of_leader(
        &self,
        queue: &QueueId,
        next: Seq,
        subject: &str,
    ) -> Result<Option<MessageJson>, FetchError> {
        let connection = self.connections();
        if !self.is_connected() {
            return Err(FetchError);
        }
        let api = format!("$JS.API.STREAM.MSG.GET.{}", subjects::stream(queue));
        let request = serde_json::json!({"seq": next.0, "next_by_subj": subject});
        let reply = tokio::select! {
            biased;
            reply = self.client.request(api, request.to_string().into()) => reply.ok(),
            () = self.reconnected(connection) => None,
        };
        let reply = reply.ok_or(FetchError)?;
        let read: SingleJson = serde_json::from_slice(&reply.payload).map_err(|_| FetchError)?;
        match (read.message, read.error) {
            (Some(message), _) => Ok(Some(message)),
            (None, Some(error)) if error.meaning() == Meaning::Nothing => Ok(None),
            (None, _) => Err(FetchError),
        }
    }

    pub(super) async fn fetch_messages(
        &self,
        queue: &QueueId,
        next: Seq,
        subject: &str,
        count: usize,
    ) -> Result<Vec<Message>, FetchError> {
        let connection = self.connections();
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
        loop {
            let reply = tokio::select! {
                biased;
                reply = replies.next() => reply,
                () = self.reconnected(connection) => None,
                () = tokio::time::sleep(FETCH_WAIT_MAX) => None,
            };
            let message = reply.ok_or(FetchError)?;
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
}

#[derive(Deserialize)]
struct SingleJson {
    message: Option<MessageJson>,
    error: Option<ApiError>,
}

/// One message as JSON.
#[derive(Deserialize)]
pub(super) struct MessageJson {
    seq: u64,
    time: String,
    subject: String,
    #[serde(default)]
    data: String,
    /// Its headers as they are stored, in base64.
    #[serde(default)]
    hdrs: String,
}

impl MessageJson {
    /// Where it is.
    pub(super) fn seq(&self) -> Seq {
        Seq(self.seq)
    }

    /// The id under which it was published, if it has one.
    pub(super) fn message_id(&self) -> Option<String> {
        let headers = STANDARD.decode(&self.hdrs).ok()?;
        let headers = String::from_utf8(headers).ok()?;
        let id = headers.lines().find_map(|line| line.strip_prefix("Nats-Msg-Id:"))?;
        Some(id.trim().to_owned())
    }

    fn into_record(self) -> Option<Record> {
        Some(Record {
            seq: self.seq(),
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
