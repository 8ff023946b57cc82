//! The stream of a queue: its one template, and what the server says of it.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock;
use crate::log::codes::{ApiError, Meaning};
use crate::log::connection::Log;
use crate::log::subjects::{self, QueueId};
use crate::queue::event::{At, Seq};

/// The server forgets message ids after this; an append is resolved within half of it.
pub const DEDUP_WINDOW_SECONDS: u64 = 120;

/// Where the queue's secret is kept, wrapped: in the metadata of its stream, so that a queue and its
/// secret are made in one step, and of two who make them at once the first one's counts for both.
/// Whoever may ask for `STREAM.INFO` sees it, and can do nothing with it.
///
/// An operator who takes it out of there (`STREAM.UPDATE` without it) and out of every backup destroys
/// it, and the log can be linked to nobody any more. Nodes that run have it in memory, and are started
/// again some seconds later; from then on they put nobody new in this queue's line, and say so in
/// `/readyz` while it is not closed. A stream is restored with the configuration that the restore names,
/// so one that leaves this out destroys it, too.
pub const SECRET_METADATA: &str = "anteroom-secret";

/// What differs between installations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the stream of one queue may hold.
    pub max_bytes: i64,
    /// Servers that hold a copy: 1, 3 or 5.
    pub replicas: u8,
}

/// What the server says of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The stream's identity: when it was created.
    pub created: At,
    /// The first sequence that it still has; 1, since nothing is ever deleted.
    pub first: Seq,
    /// The last sequence.
    pub last: Seq,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub max_bytes: u64,
    /// The queue's secret, wrapped ([`SECRET_METADATA`]); none once it was destroyed.
    pub secret: Option<String>,
    /// The server's time when it answered.
    pub now: At,
    /// When it was asked, by this machine's monotonic clock.
    pub asked: Instant,
    /// When the answer came, by the same.
    pub heard: Instant,
}

impl Info {
    /// How much of what it may hold it holds, in thousandths.
    pub fn full_milli(&self) -> u16 {
        let milli = u128::from(self.bytes) * 1_000 / u128::from(self.max_bytes.max(1));
        u16::try_from(milli).unwrap_or(u16::MAX)
    }
}

/// Why a stream could not be looked at or made.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// There is no such stream.
    #[error("there is no stream for this queue")]
    Missing,
    /// The server can't be reached, or has no leader.
    #[error("the log can't be reached: {0}")]
    Away(String),
    /// The server said no.
    #[error("the log refused: {0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Reply<T> {
    error: Option<ApiError>,
    #[serde(flatten)]
    body: Option<T>,
}

#[derive(Deserialize)]
struct InfoJson {
    created: String,
    ts: String,
    config: ConfigJson,
    state: StateJson,
    /// Of a server that is one of several.
    cluster: Option<ClusterJson>,
}

#[derive(Deserialize)]
struct ClusterJson {
    #[serde(default)]
    leader: String,
}

#[derive(Deserialize)]
struct ConfigJson {
    max_bytes: i64,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct StateJson {
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct NamesJson {
    #[serde(default)]
    streams: Option<Vec<String>>,
    #[serde(default)]
    total: usize,
}

impl Log {
    /// Makes the stream of a queue with this wrapped secret, or finds that it is there; then the secret is
    /// the one that it has.
    pub async fn create_stream(
        &self,
        queue: &QueueId,
        limits: Limits,
        secret: &str,
    ) -> Result<Info, StreamError> {
        // What is there needs no room, and may have limits of its own: it is used as it is.
        match self.stream_info(queue).await {
            Err(StreamError::Missing) => {}
            known => return known,
        }
        let subject = format!("$JS.API.STREAM.CREATE.{}", subjects::stream(queue));
        let made = self.api::<InfoJson>(subject, &template(queue, limits, secret)).await;
        match made {
            Ok(_) => self.stream_info(queue).await,
            // Somebody else has made it meanwhile.
            Err(ApiFailure::Api(error)) if error.meaning() == Meaning::Exists => {
                self.stream_info(queue).await
            }
            // It may be made all the same.
            Err(failure @ ApiFailure::Away(_)) => {
                self.stream_info(queue).await.map_err(|_| failure.into())
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// What the server says of a queue's stream now.
    pub async fn stream_info(&self, queue: &QueueId) -> Result<Info, StreamError> {
        let subject = format!("$JS.API.STREAM.INFO.{}", subjects::stream(queue));
        let asked = clock::monotonic();
        let info: InfoJson = self.api(subject, &json!({})).await?;
        let heard = clock::monotonic();
        // A member of a group without a leader tells what it has itself, which may be less.
        if info.cluster.is_some_and(|cluster| cluster.leader.is_empty()) {
            return Err(StreamError::Away("the stream has no leader".to_owned()));
        }
        let instant = |text: &str| {
            clock::parse_rfc3339(text).ok_or_else(|| StreamError::Refused(format!("time {text}")))
        };
        Ok(Info {
            created: instant(&info.created)?,
            first: Seq(info.state.first_seq),
            last: Seq(info.state.last_seq),
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX),
            secret: info.config.metadata.and_then(|mut metadata| metadata.remove(SECRET_METADATA)),
            now: instant(&info.ts)?,
            asked,
            heard,
        })
    }

    /// The queues that have a stream.
    pub async fn queues(&self) -> Result<Vec<QueueId>, StreamError> {
        let mut queues = Vec::new();
        let mut offset = 0;
        loop {
            let page: NamesJson =
                self.api("$JS.API.STREAM.NAMES".to_owned(), &json!({"offset": offset})).await?;
            let names = page.streams.unwrap_or_default();
            offset += names.len();
            queues.extend(names.iter().filter_map(|name| subjects::queue_of_stream(name)));
            if names.is_empty() || offset >= page.total {
                return Ok(queues);
            }
        }
    }

    async fn api<T: for<'de> Deserialize<'de>>(
        &self,
        subject: String,
        body: &Value,
    ) -> Result<T, ApiFailure> {
        let connection = self.connections();
        if !self.is_connected() {
            return Err(ApiFailure::Away("there is no connection".to_owned()));
        }
        let message = tokio::select! {
            biased;
            reply = self.client.request(subject, body.to_string().into()) => {
                reply.map_err(|error| ApiFailure::Away(error.to_string()))?
            }
            () = self.reconnected(connection) => {
                return Err(ApiFailure::Away("the connection was lost".to_owned()));
            }
        };
        let reply: Reply<T> = serde_json::from_slice(&message.payload)
            .map_err(|error| ApiFailure::Away(error.to_string()))?;
        match (reply.error, reply.body) {
            (Some(error), _) => Err(ApiFailure::Api(error)),
            (None, Some(body)) => Ok(body),
            (None, None) => Err(ApiFailure::Away("an answer of another shape".to_owned())),
        }
    }
}

enum ApiFailure {
    Away(String),
    Api(ApiError),
}

impl From<ApiFailure> for StreamError {
    fn from(failure: ApiFailure) -> Self {
        match failure {
            ApiFailure::Away(why) => Self::Away(why),
            ApiFailure::Api(error) => match error.meaning() {
                Meaning::Missing => Self::Missing,
                Meaning::Passes | Meaning::UnderWay => Self::Away(error.description),
                Meaning::OtherFirst
                | Meaning::Full
                | Meaning::Exists
                | Meaning::Nothing
                | Meaning::Refused => Self::Refused(error.description),
            },
        }
    }
}

/// The stream of every queue. History is complete: nothing is aged out, deleted or purged, and a
/// full stream refuses rather than forgets.
fn template(queue: &QueueId, limits: Limits, secret: &str) -> Value {
    json!({
        "name": subjects::stream(queue),
        "subjects": [subjects::log_all(queue)],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": 0,
        "max_msgs": -1,
        "max_bytes": limits.max_bytes,
        "max_msgs_per_subject": -1,
        "num_replicas": limits.replicas,
        "duplicate_window": DEDUP_WINDOW_SECONDS * 1_000_000_000,
        "deny_delete": true,
        "deny_purge": true,
        "allow_direct": true,
        "metadata": {SECRET_METADATA: secret},
        "republish": {"src": subjects::log_all(queue), "dest": subjects::stored_all(queue)},
    })
}
