//! Questions between roles and their answers, as JSON: to a projector (`anteroom.ask.…`) and to
//! admission (`anteroom.gate.…`).

use serde::{Deserialize, Serialize};

use crate::wire::id::Id;

/// Visitors in one question: well within a message, and quick to answer.
pub const VISITORS_PER_QUESTION_MAX: usize = 500;

/// Where are these visitors?
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceQuestion {
    /// Who.
    pub visitors: Vec<Id>,
    /// The entry that must be applied before the answer.
    pub at_least: u64,
}

/// Where they are, in the order of the question; `null` for one who never joined, said only by a
/// projector that has applied everything up to the question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlaceAnswer {
    /// The last entry applied.
    pub through: u64,
    /// Each visitor's place.
    pub places: Vec<Option<PlaceFound>>,
}

/// One visitor's place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlaceFound {
    /// Their ticket.
    pub ticket: u32,
    /// Their standing, as in the digest.
    pub standing: u8,
    /// The node that they are on; none while they are absent.
    pub node: Option<Id>,
    /// The node's number for the socket that they were on last.
    pub socket: u64,
    /// Which of the sockets that their client opened that was; 0 when it did not say.
    pub opened: u32,
    /// Whose hand the place is in.
    pub hand: u32,
    /// The last entry by which they came.
    pub came: u64,
}

/// The snapshot of a queue, please, from this byte on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotQuestion {
    /// The entry that must be applied before the answer.
    pub at_least: u64,
    /// Which snapshot is to be gone on with; a new one without.
    pub id: Option<u64>,
    /// Bytes of it that are here already.
    pub offset: u64,
}

/// Equal at an equal sequence, in every projector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyAnswer {
    /// The last entry applied.
    pub sequence: u64,
    /// Of the state, hexadecimal.
    pub digest: String,
    /// Of the log, hexadecimal.
    pub chain: String,
    /// Why the projector goes no further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
}

/// How far are you with the log, and begin anew if I say so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RebuildQuestion {
    /// Whether the line and its store are to be given up and made again from the first entry.
    pub begin: bool,
}

/// How far a projector is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RebuildAnswer {
    /// The last entry applied.
    pub sequence: u64,
    /// The last that the log is known to have.
    pub end: u64,
    /// Why the projector goes no further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
}

/// Tokens for visitors whose sockets this node holds, please.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MintQuestion {
    /// Who.
    pub visitors: Vec<Id>,
}

/// Their tokens, in the order of the question; `null` for one without a grant to be used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MintAnswer {
    /// The tokens.
    pub tokens: Vec<Option<Minted>>,
}

/// One token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Minted {
    /// The JWT.
    pub token: String,
    /// Until when it can be used, seconds since 1970; later than the JWT says after an outage.
    pub expires: i64,
    /// The same in seconds from the answer.
    pub expires_in: u64,
}

/// Use this token up, please.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RedeemQuestion {
    /// The JWT.
    pub token: String,
    /// The digest of the request's idempotency key by the queue's secret, hexadecimal.
    pub key: Option<String>,
    /// The log's time after which nobody waits for the answer, in nanoseconds.
    pub until: i64,
}

/// A newer pass of the same session, please.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewQuestion {
    /// The JWT.
    pub pass: String,
}

/// The pass that a token gave, or a newer one of its session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PassAnswer {
    /// The JWT.
    pub pass: String,
    /// Its end, seconds since 1970.
    pub expires: i64,
    /// The visitor.
    pub visitor: Id,
    /// When the token was used, by the log's time, in nanoseconds.
    pub redeemed_at: i64,
}

/// An answer, or why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// The answer.
    Ok(T),
    /// Why not.
    No(Refusal),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The question can't be read.
    BadQuestion,
    /// There is no such queue.
    UnknownQueue,
    /// What was asked for is not applied yet.
    Behind,
    /// The log can't be reached.
    LogUnavailable,
    /// This replica has stopped at an entry that it can't read.
    Halted,
    /// Not a token of this queue, or altered.
    TokenInvalid,
    /// Its time is over.
    TokenExpired,
    /// It was used.
    TokenAlreadyUsed,
    /// Not a pass of this queue, or altered.
    PassInvalid,
    /// The session of this pass is over.
    PassExpired,
    /// The session of this pass was ended early.
    PassReleased,
}
