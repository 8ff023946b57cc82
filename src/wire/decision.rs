//! Entries of the admission worker as JSON.

use serde::{Deserialize, Serialize};

use crate::queue::event::{
    Admitted, Decision, Entry, Facts, Jti, Level, Millis, NodeId, Redeemed, ReleaseReason,
    Released, Removed, Seq, VisitorId, WorkerId,
};
use crate::wire::configured::{configured, configured_fact};
use crate::wire::event::{Fallible, bounded, from_json, no_such, present, text, to_json};
use crate::wire::id::{Id, Whole, from_hex};
use crate::wire::object::{Object, Word};

const SECONDS_MAX: u64 = 30 * 86_400;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionJson<F> {
    v: Whole,
    prev: Whole,
    basis: Whole,
    now: Whole,
    worker: Id,
    facts: Vec<Object<F>>,
}

/// An entry that raises the level. Its shape is fixed for good: a reader of any level knows it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelJson {
    v: Whole,
    prev: Whole,
    basis: Whole,
    now: Whole,
    worker: Id,
    level: Whole,
    by: String,
}

#[derive(Deserialize)]
struct LevelPeek {
    level: Option<serde::de::IgnoredAny>,
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
    Missed,
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
struct VisitorFact {
    visitor: Id,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFact {
    node: Id,
}

/// Reads an entry of this kind, and the version that it names.
pub(super) fn read(kind: &str, payload: &[u8]) -> Fallible<(Whole, Entry)> {
    match kind {
        "configured" => match from_json(payload) {
            Ok(Object(LevelPeek { level: Some(_) })) => raised(payload),
            Ok(Object(LevelPeek { level: None })) | Err(_) => {
                decision(payload, configured, Facts::Configured)
            }
        },
        "admitted" => decision(payload, admitted, Facts::Admitted),
        "redeemed" => decision(payload, redeemed, Facts::Redeemed),
        "released" => decision(payload, released, Facts::Released),
        "expired" => {
            decision(payload, |fact: VisitorFact| Ok(VisitorId(fact.visitor.0)), Facts::Expired)
        }
        "removed" => decision(payload, removed, Facts::Removed),
        "node_lost" => decision(payload, |fact: NodeFact| Ok(NodeId(fact.node.0)), Facts::NodeLost),
        other => Err(no_such(&format!("admission.{other}"))),
    }
}

/// Writes a decision: its kind, and the payload.
pub(super) fn write(v: Whole, decision: &Decision) -> (&'static str, Option<Vec<u8>>) {
    match &decision.facts {
        Facts::Configured(facts) => ("configured", json(v, decision, facts, configured_fact)),
        Facts::Raised(level, by) => ("configured", to_json(&level_json(decision, *level, by))),
        Facts::Admitted(facts) => ("admitted", json(v, decision, facts, admitted_fact)),
        Facts::Redeemed(facts) => ("redeemed", json(v, decision, facts, redeemed_fact)),
        Facts::Released(facts) => ("released", json(v, decision, facts, released_fact)),
        Facts::Expired(facts) => {
            ("expired", json(v, decision, facts, |who| VisitorFact { visitor: Id(who.0) }))
        }
        Facts::Removed(facts) => ("removed", json(v, decision, facts, removed_fact)),
        Facts::NodeLost(facts) => {
            ("node_lost", json(v, decision, facts, |node| NodeFact { node: Id(node.0) }))
        }
    }
}

fn decision<F: for<'de> Deserialize<'de>, T>(
    payload: &[u8],
    convert: impl Fn(F) -> Fallible<T>,
    facts: impl FnOnce(Vec<T>) -> Facts,
) -> Fallible<(Whole, Entry)> {
    let Object(json): Object<DecisionJson<F>> = from_json(payload)?;
    let converted = bounded(json.facts)?.map(convert).collect::<Fallible<Vec<T>>>()?;
    let decision = Decision {
        prev: Seq(json.prev.0),
        basis: Seq(json.basis.0),
        now: Millis(json.now.0),
        worker: WorkerId(json.worker.0),
        facts: facts(converted),
    };
    Ok((json.v, Entry::Decided(decision)))
}

fn raised(payload: &[u8]) -> Fallible<(Whole, Entry)> {
    let Object(json): Object<LevelJson> = from_json(payload)?;
    if json.v.0 != u64::from(Level::FIRST.0) {
        return Err(format!("an entry that raises the level has v {}", Level::FIRST));
    }
    let level = u16::try_from(json.level.0).ok().map(Level);
    let level = level.filter(|level| *level > Level::FIRST);
    let level = level.ok_or_else(|| format!("a log is not raised to level {}", json.level.0))?;
    let decision = Decision {
        prev: Seq(json.prev.0),
        basis: Seq(json.basis.0),
        now: Millis(json.now.0),
        worker: WorkerId(json.worker.0),
        facts: Facts::Raised(level, text("by", json.by)?),
    };
    Ok((json.v, Entry::Decided(decision)))
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
            ReasonJson::Missed => ReleaseReason::Missed,
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

fn json<T, F: Serialize>(
    v: Whole,
    decision: &Decision,
    facts: &[T],
    convert: impl Fn(&T) -> F,
) -> Option<Vec<u8>> {
    to_json(&DecisionJson {
        v,
        prev: Whole(decision.prev.0),
        basis: Whole(decision.basis.0),
        now: Whole(decision.now.0),
        worker: Id(decision.worker.0),
        facts: facts.iter().map(convert).map(Object).collect(),
    })
}

fn level_json(decision: &Decision, level: Level, by: &str) -> LevelJson {
    LevelJson {
        v: Whole(u64::from(Level::FIRST.0)),
        prev: Whole(decision.prev.0),
        basis: Whole(decision.basis.0),
        now: Whole(decision.now.0),
        worker: Id(decision.worker.0),
        level: Whole(u64::from(level.0)),
        by: by.to_owned(),
    }
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
            ReleaseReason::Missed => ReasonJson::Missed,
        }),
        by: fact.by.clone(),
    }
}

fn removed_fact(fact: &Removed) -> RemovedFact {
    RemovedFact { visitor: Id(fact.visitor.0), by: fact.by.clone(), reason: fact.reason.clone() }
}
