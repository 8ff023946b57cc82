//! The log's entries as JSON, version 1. Described for everybody else by `schemas/event/`.
//!
//! What was once written stays readable for good: a limit in here may widen, never narrow, since
//! an entry that was valid when it was written must not become void.

use serde::{Deserialize, Serialize};

use crate::queue::event::{
    Admitted, Decision, Entry, Facts, Jti, NodeId, Redeemed, ReleaseReason, Released, Removed,
    Seated, Seq, VisitorId,
};
use crate::wire::configured::{configured, configured_fact};
use crate::wire::id::{Id, Whole, from_hex};
use crate::wire::object::{Object, Word};

pub use crate::wire::configured::{KEYS_MAX, OUTAGE_SECONDS_MAX, state_name};

/// The version that is written, and the highest that is read.
pub const VERSION: u64 = 1;

/// Facts in one entry: with the longest names a payload stays well under the server's 1 MiB.
pub const FACTS_PER_ENTRY_MAX: usize = 1_000;

const TEXT_CHARS_MAX: usize = 300;
const SECONDS_MAX: u64 = 30 * 86_400;

/// Who may write an entry: the token of the subject before the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writer {
    /// A WebSocket node: facts that need no decision.
    Node,
    /// An admission worker: decisions.
    Admission,
}

/// What a reader makes of one message of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// An entry.
    Entry(Entry),
    /// Void for every reader and for good: it can't be read, or is on the wrong subject.
    Void {
        /// Whether it stands on a subject that the admission fence counts.
        fenced: bool,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer version: this reader must not go on.
    Newer {
        /// The version that it names.
        version: u64,
    },
}

/// Reads a message: `subject` is what follows `anteroom.log.<queue>.`, as `node.joined`.
pub fn read(subject: &str, payload: &[u8]) -> Read {
    match decode(subject, payload) {
        Ok(entry) => Read::Entry(entry),
        Err(why) => match newer(payload) {
            Some(version) => Read::Newer { version },
            None => Read::Void { fenced: is_fenced(subject), why },
        },
    }
}

/// The version that a payload names, if it is a higher one. What is no JSON text in UTF-8 is void,
/// whatever it seems to name: a reader of strings and one of bytes must agree.
fn newer(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    let Object(Peek { v }): Object<Peek> = serde_json::from_str(text).ok()?;
    (v.0 > VERSION).then_some(v.0)
}

/// Writes an entry: who writes it, its kind, and the payload. `None` for a void one, which nobody
/// writes.
pub fn write(entry: &Entry) -> Option<(Writer, &'static str, Vec<u8>)> {
    let (kind, json) = match entry {
        Entry::Joined(seated) => ("joined", to_json(&SeatedJson::from(seated))),
        Entry::Reconnected(seated) => ("reconnected", to_json(&SeatedJson::from(seated))),
        Entry::Disconnected(seated) => ("disconnected", to_json(&SeatedJson::from(seated))),
        Entry::Left(visitors) => ("left", to_json(&LeftJson::from(visitors.as_slice()))),
        Entry::Decided(decision) => {
            let (kind, json) = write_decision(decision);
            return Some((Writer::Admission, kind, json?));
        }
        Entry::Void { .. } => return None,
    };
    Some((Writer::Node, kind, json?))
}

#[derive(Deserialize)]
struct Peek {
    v: Whole,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeatedJson {
    v: Whole,
    node: Id,
    facts: Vec<Object<SeatedFact>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeatedFact {
    visitor: Id,
    socket: Whole,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftJson {
    v: Whole,
    facts: Vec<Object<VisitorFact>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VisitorFact {
    visitor: Id,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionJson<F> {
    v: Whole,
    prev: Whole,
    basis: Whole,
    facts: Vec<Object<F>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmittedFact {
    visitor: Id,
    jti: Id,
    kid: String,
    seconds: Whole,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RedeemedFact {
    visitor: Id,
    jti: Id,
    kid: String,
    seconds: Whole,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    key: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleasedFact {
    visitor: Id,
    jti: Id,
    reason: Word<ReasonJson>,
    by: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReasonJson {
    Released,
    SessionOver,
    Lapsed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemovedFact {
    visitor: Id,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    reason: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFact {
    node: Id,
}

/// An optional field that is there has a value: `null` is not the same as leaving it out.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

pub(super) type Fallible<T> = Result<T, String>;

fn decode(subject: &str, payload: &[u8]) -> Fallible<Entry> {
    match subject {
        "node.joined" => seated(payload).map(Entry::Joined),
        "node.reconnected" => seated(payload).map(Entry::Reconnected),
        "node.disconnected" => seated(payload).map(Entry::Disconnected),
        "node.left" => {
            let Object(json): Object<LeftJson> = from_json(payload)?;
            version(json.v)?;
            Ok(Entry::Left(visitors(json.facts)?))
        }
        "admission.configured" => decision(payload, configured, Facts::Configured),
        "admission.admitted" => decision(payload, admitted, Facts::Admitted),
        "admission.redeemed" => decision(payload, redeemed, Facts::Redeemed),
        "admission.released" => decision(payload, released, Facts::Released),
        "admission.expired" => {
            decision(payload, |fact: VisitorFact| Ok(VisitorId(fact.visitor.0)), Facts::Expired)
        }
        "admission.removed" => decision(payload, removed, Facts::Removed),
        "admission.node_lost" => {
            decision(payload, |fact: NodeFact| Ok(NodeId(fact.node.0)), Facts::NodeLost)
        }
        other => Err(format!("no entry is written on the subject …{other}")),
    }
}

/// Whether the subject is counted by the fence, `anteroom.log.<queue>.admission.*`.
fn is_fenced(subject: &str) -> bool {
    subject.strip_prefix("admission.").is_some_and(|kind| !kind.is_empty() && !kind.contains('.'))
}

fn from_json<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Fallible<T> {
    // Whether it is UTF-8 is looked at once, not for each of many short texts.
    let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn to_json<T: Serialize>(json: &T) -> Option<Vec<u8>> {
    // These are plain structs of texts and numbers: writing them can't fail.
    serde_json::to_vec(json).ok()
}

fn version(v: Whole) -> Fallible<()> {
    if v.0 == VERSION { Ok(()) } else { Err(format!("version {} is not known", v.0)) }
}

fn bounded<T>(facts: Vec<Object<T>>) -> Fallible<impl Iterator<Item = T>> {
    if (1..=FACTS_PER_ENTRY_MAX).contains(&facts.len()) {
        return Ok(facts.into_iter().map(|Object(fact)| fact));
    }
    Err(format!("an entry has 1 to {FACTS_PER_ENTRY_MAX} facts, not {}", facts.len()))
}

fn visitors(facts: Vec<Object<VisitorFact>>) -> Fallible<Vec<VisitorId>> {
    Ok(bounded(facts)?.map(|fact| VisitorId(fact.visitor.0)).collect())
}

fn seated(payload: &[u8]) -> Fallible<Seated> {
    let Object(json): Object<SeatedJson> = from_json(payload)?;
    version(json.v)?;
    let facts = bounded(json.facts)?;
    let visitors = facts.map(|fact| (VisitorId(fact.visitor.0), fact.socket.0)).collect();
    Ok(Seated { node: NodeId(json.node.0), visitors })
}

fn decision<F: for<'de> Deserialize<'de>, T>(
    payload: &[u8],
    convert: impl Fn(F) -> Fallible<T>,
    facts: impl FnOnce(Vec<T>) -> Facts,
) -> Fallible<Entry> {
    let Object(json): Object<DecisionJson<F>> = from_json(payload)?;
    version(json.v)?;
    let converted = bounded(json.facts)?.map(convert).collect::<Fallible<Vec<T>>>()?;
    Ok(Entry::Decided(Decision {
        prev: Seq(json.prev.0),
        basis: Seq(json.basis.0),
        facts: facts(converted),
    }))
}

fn admitted(fact: AdmittedFact) -> Fallible<Admitted> {
    Ok(Admitted {
        visitor: VisitorId(fact.visitor.0),
        jti: Jti(fact.jti.0),
        kid: kid(fact.kid)?,
        seconds: seconds(fact.seconds, SECONDS_MAX)?,
    })
}

fn redeemed(fact: RedeemedFact) -> Fallible<Redeemed> {
    Ok(Redeemed {
        visitor: VisitorId(fact.visitor.0),
        jti: Jti(fact.jti.0),
        kid: kid(fact.kid)?,
        seconds: seconds(fact.seconds, SECONDS_MAX)?,
        key: fact
            .key
            .map(|key| from_hex(&key).ok_or("key is 64 hexadecimal digits"))
            .transpose()?,
    })
}

fn released(fact: ReleasedFact) -> Fallible<Released> {
    Ok(Released {
        visitor: VisitorId(fact.visitor.0),
        jti: Jti(fact.jti.0),
        reason: match fact.reason.0 {
            ReasonJson::Released => ReleaseReason::Released,
            ReasonJson::SessionOver => ReleaseReason::SessionOver,
            ReasonJson::Lapsed => ReleaseReason::Lapsed,
        },
        by: text("by", fact.by)?,
    })
}

fn removed(fact: RemovedFact) -> Fallible<Removed> {
    Ok(Removed {
        visitor: VisitorId(fact.visitor.0),
        by: text("by", fact.by)?,
        reason: fact.reason.map(|reason| text("reason", reason)).transpose()?,
    })
}

pub(super) fn text(key: &str, value: String) -> Fallible<String> {
    if (1..=TEXT_CHARS_MAX).contains(&value.chars().count()) {
        return Ok(value);
    }
    Err(format!("{key} has 1 to {TEXT_CHARS_MAX} characters"))
}

pub(super) fn kid(value: String) -> Fallible<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=64).contains(&value.len()) && value.bytes().all(plain) {
        return Ok(value);
    }
    Err("kid has 1 to 64 of A-Z a-z 0-9 - _".to_owned())
}

pub(super) fn seconds(value: Whole, max: u64) -> Fallible<u32> {
    let within = (1..=max).contains(&value.0);
    let seconds = u32::try_from(value.0).ok().filter(|_| within);
    seconds.ok_or_else(|| format!("seconds is 1 to {max}, not {}", value.0))
}

impl From<&Seated> for SeatedJson {
    fn from(seated: &Seated) -> Self {
        let fact = |(visitor, socket): &(VisitorId, u64)| SeatedFact {
            visitor: Id(visitor.0),
            socket: Whole(*socket),
        };
        Self {
            v: Whole(VERSION),
            node: Id(seated.node.0),
            facts: seated.visitors.iter().map(fact).map(Object).collect(),
        }
    }
}

impl From<&[VisitorId]> for LeftJson {
    fn from(visitors: &[VisitorId]) -> Self {
        Self { v: Whole(VERSION), facts: visitors.iter().map(visitor_fact).map(Object).collect() }
    }
}

fn visitor_fact(visitor: &VisitorId) -> VisitorFact {
    VisitorFact { visitor: Id(visitor.0) }
}

fn write_decision(decision: &Decision) -> (&'static str, Option<Vec<u8>>) {
    match &decision.facts {
        Facts::Configured(facts) => ("configured", facts_json(decision, facts, configured_fact)),
        Facts::Admitted(facts) => ("admitted", facts_json(decision, facts, admitted_fact)),
        Facts::Redeemed(facts) => ("redeemed", facts_json(decision, facts, redeemed_fact)),
        Facts::Released(facts) => ("released", facts_json(decision, facts, released_fact)),
        Facts::Expired(facts) => ("expired", facts_json(decision, facts, visitor_fact)),
        Facts::Removed(facts) => ("removed", facts_json(decision, facts, removed_fact)),
        Facts::NodeLost(facts) => {
            ("node_lost", facts_json(decision, facts, |node| NodeFact { node: Id(node.0) }))
        }
    }
}

fn facts_json<T, F: Serialize>(
    decision: &Decision,
    facts: &[T],
    convert: impl Fn(&T) -> F,
) -> Option<Vec<u8>> {
    to_json(&DecisionJson {
        v: Whole(VERSION),
        prev: Whole(decision.prev.0),
        basis: Whole(decision.basis.0),
        facts: facts.iter().map(convert).map(Object).collect(),
    })
}

fn admitted_fact(fact: &Admitted) -> AdmittedFact {
    AdmittedFact {
        visitor: Id(fact.visitor.0),
        jti: Id(fact.jti.0),
        kid: fact.kid.clone(),
        seconds: Whole(u64::from(fact.seconds)),
    }
}

fn redeemed_fact(fact: &Redeemed) -> RedeemedFact {
    RedeemedFact {
        visitor: Id(fact.visitor.0),
        jti: Id(fact.jti.0),
        kid: fact.kid.clone(),
        seconds: Whole(u64::from(fact.seconds)),
        key: fact.key.map(|key| crate::queue::digest::hex(&key)),
    }
}

fn released_fact(fact: &Released) -> ReleasedFact {
    ReleasedFact {
        visitor: Id(fact.visitor.0),
        jti: Id(fact.jti.0),
        reason: Word(match fact.reason {
            ReleaseReason::Released => ReasonJson::Released,
            ReleaseReason::SessionOver => ReasonJson::SessionOver,
            ReleaseReason::Lapsed => ReasonJson::Lapsed,
        }),
        by: fact.by.clone(),
    }
}

fn removed_fact(fact: &Removed) -> RemovedFact {
    RemovedFact { visitor: Id(fact.visitor.0), by: fact.by.clone(), reason: fact.reason.clone() }
}
