//! Messages between a visitor and a node: one JSON object a text frame. Described by
//! `schemas/socket/`. Receivers ignore fields that they don't know.

use serde::{Deserialize, Serialize};

use crate::wire::object::Object;

/// What a visitor's client says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type")]
pub enum ClientMessage {
    /// Take a place.
    #[serde(rename = "JOIN", rename_all = "camelCase")]
    Join {
        /// A v4 UUID made by the browser: the same key is the same place.
        #[serde(default)]
        join_key: Option<String>,
        /// Which of the sockets that the client opened for its place this is, from 1; 0 when it does
        /// not say.
        #[serde(default, deserialize_with = "counted")]
        opened: u32,
    },
    /// Resume a place.
    #[serde(rename = "RECONNECT", rename_all = "camelCase")]
    Reconnect {
        /// What JOINED gave.
        connection_id: String,
        /// As in JOIN.
        #[serde(default, deserialize_with = "counted")]
        opened: u32,
    },
    /// Give the place up.
    #[serde(rename = "LEAVE")]
    Leave {},
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
pub enum ServerMessage {
    /// The place is durable.
    #[serde(rename = "JOINED", rename_all = "camelCase")]
    Joined {
        /// What resumes it, on any node.
        connection_id: String,
        /// The queue's terms.
        payload: JoinedPayload,
    },
    /// Where the visitor stands.
    #[serde(rename = "QUEUE_UPDATE")]
    QueueUpdate {
        /// The numbers.
        payload: UpdatePayload,
    },
    /// Their turn.
    #[serde(rename = "ADMITTED")]
    Admitted {
        /// The token and where to go with it.
        payload: AdmittedPayload,
    },
    /// The place is gone.
    #[serde(rename = "ENDED")]
    Ended {
        /// Why.
        payload: EndedPayload,
    },
    /// Something is wrong.
    #[serde(rename = "ERROR")]
    Error {
        /// What.
        payload: ErrorPayload,
    },
}

/// The body of JOINED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinedPayload {
    /// The queue.
    pub queue: String,
    /// For how many seconds the place is kept while nobody is on it.
    pub reconnect_within: u32,
    /// The highest number that is known of the sockets that the client opened for this place, where it counts
    /// these: its own, since a lower one is answered by `replaced`, which says the highest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<u32>,
}

/// The body of QUEUE_UPDATE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdatePayload {
    /// `count` + 1.
    pub position: u32,
    /// How many places are ahead, their visitors present or not.
    pub count: u32,
    /// How many wait in all.
    pub waiting: u32,
    /// Seconds until their turn, as estimated; `null` when no estimate can be given.
    pub seconds: Option<u64>,
    /// The lower end of the range in which eight of ten such waits are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_low: Option<u64>,
    /// Its upper end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_high: Option<u64>,
    /// The queue's state.
    pub status: Status,
    /// When it opens, RFC 3339, while it is not open yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<String>,
    /// What the operator says about it; or a code that says why the wait is longer than was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The node has had no fresh news: the numbers may be old.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// The state of a queue as visitors are told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not open yet.
    Scheduled,
    /// People are let in.
    Open,
    /// Nobody is let in for now.
    Paused,
    /// Nobody will be let in any more.
    Closed,
}

/// The body of ADMITTED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmittedPayload {
    /// The one-time token.
    pub token: String,
    /// Until when it can be used, RFC 3339.
    pub expires_at: String,
    /// The same in seconds from now, for a page whose clock is off.
    pub expires_in: u64,
    /// Where to go.
    pub target: String,
}

/// The body of ENDED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndedPayload {
    /// Why.
    pub reason: EndReason,
}

/// Why a place is gone, as visitors are told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// Given up.
    Left,
    /// Absent for too long, or a token not used in time.
    Expired,
    /// Taken out by an operator.
    Removed,
    /// The queue is over.
    Closed,
    /// The token was used: the visitor is inside, or has been.
    Redeemed,
}

/// The body of ERROR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorPayload {
    /// What is wrong, for programs.
    pub code: ErrorCode,
    /// What is wrong, for people.
    pub message: String,
    /// Seconds after which to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// With `replaced`: which of the sockets that the client opened has the place, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<u32>,
}

/// The stable codes of ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON, of no known type, too long, or out of order.
    BadMessage,
    /// There is no such queue.
    UnknownQueue,
    /// The connection id is not one of this queue's.
    UnknownConnection,
    /// The queue takes no more people for now.
    QueueFull,
    /// The log can't be reached. Not final while the socket is open: JOINED may follow.
    LogUnavailable,
    /// Too many of something; slower.
    RateLimited,
    /// A newer socket has this place.
    Replaced,
    /// The place was carried to another browser or device.
    Carried,
    /// The node can't tell at the moment.
    Unavailable,
}

/// A number that is counted from 1; whoever does not count leaves it out.
fn counted<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = crate::wire::id::Whole::deserialize(deserializer)?;
    let counted = u32::try_from(number.0).ok().filter(|counted| *counted > 0);
    let allowed = "opened is a whole number from 1 to 4294967295";
    counted.ok_or_else(|| serde::de::Error::custom(allowed))
}

/// Reads a client's message; the error says what is wrong with it.
pub fn read(text: &str) -> Result<ClientMessage, serde_json::Error> {
    serde_json::from_str(text).map(|Object(message)| message)
}

/// Writes a server's message behind what is in `out`.
pub fn write(out: &mut Vec<u8>, message: &ServerMessage) {
    // Plain structs of texts and numbers into memory: writing them can't fail.
    let _ = serde_json::to_writer(out, message);
}
