//! The log's entries as JSON. Described for everybody else by `schemas/event/`.
//!
//! What was once written stays readable for good: what is valid at a level is so for ever, and a change
//! needs the next one.

use serde::{Deserialize, Serialize};

use crate::queue::event::{
    Disconnected, Entry, Join, Joined, JoinedBy, Left, Level, NodeId, Reconnected, Return, Seq,
    VisitorId,
};
use crate::wire::decision;
use crate::wire::id::{Id, Whole, from_digits};
use crate::wire::object::{Object, Word};

pub use crate::wire::configured::{KEYS_MAX, OUTAGE_SECONDS_MAX, state_name};

/// Facts in one entry: with the longest names a payload stays well under the server's 1 MiB.
pub const FACTS_PER_ENTRY_MAX: usize = 1_000;

const TEXT_CHARS_MAX: usize = 300;
/// Of what is wrong with an entry this much is said.
const WHY_CHARS_MAX: usize = 200;

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
    /// An entry, of a version that counts where the log's level is that or higher.
    Entry(Level, Entry),
    /// Void for every reader and for good: it can't be read, or is on the wrong subject.
    Void {
        /// Whether it stands on a subject that the admission fence counts.
        fenced: bool,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a message: `subject` is what follows `anteroom.log.<queue>.`, as `node.joined`. A version above
/// `newest` is void to whoever knows no higher level: an entry that raises the log to one has halted
/// them before.
pub fn read(subject: &str, payload: &[u8], newest: Level) -> Read {
    match decode(subject, payload).and_then(|(v, entry)| Ok((version(v, newest)?, entry))) {
        Ok((version, entry)) => Read::Entry(version, entry),
        // What is wrong with it may quote it, and whoever wrote it may have meant just that.
        Err(why) => Read::Void {
            fenced: is_fenced(subject),
            why: why.chars().take(WHY_CHARS_MAX).collect(),
        },
    }
}

/// Whether a payload is of the version before the first that was released.
pub fn is_of_version_1(subject: &str, payload: &[u8]) -> bool {
    let peek = from_json::<Object<Peek>>(payload);
    is_fenced(subject) && peek.is_ok_and(|Object(Peek { v })| v == Whole(1))
}

/// Writes an entry: who writes it, its kind, and the payload in this version. `None` for a void one,
/// which nobody writes.
pub fn write(entry: &Entry, version: Level) -> Option<(Writer, &'static str, Vec<u8>)> {
    let v = Whole(u64::from(version.0));
    let (kind, json) = match entry {
        Entry::Joined(joined) => ("joined", to_json(&joined_json(v, joined))),
        Entry::Reconnected(back) => ("reconnected", to_json(&reconnected_json(v, back))),
        Entry::Disconnected(gone) => ("disconnected", to_json(&disconnected_json(v, gone))),
        Entry::Left(visitors) => ("left", to_json(&left_json(v, visitors))),
        Entry::Decided(decision) => {
            let (kind, json) = decision::write(v, decision);
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
struct JoinedJson {
    v: Whole,
    node: Id,
    facts: Vec<Object<JoinFact>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinFact {
    visitor: Id,
    socket: Whole,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    opened: Option<Whole>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    by: Option<Word<ByJson>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    net: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    lane: Option<Whole>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ByJson {
    Key,
    Subject,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReconnectedJson {
    v: Whole,
    node: Id,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    basis: Option<Whole>,
    facts: Vec<Object<ReturnFact>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReturnFact {
    visitor: Id,
    socket: Whole,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    opened: Option<Whole>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    hand: Option<Whole>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DisconnectedJson {
    v: Whole,
    node: Id,
    facts: Vec<Object<SocketFact>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SocketFact {
    visitor: Id,
    socket: Whole,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftJson {
    v: Whole,
    facts: Vec<Object<LeftFact>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftFact {
    visitor: Id,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    hand: Option<Whole>,
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

fn decode(subject: &str, payload: &[u8]) -> Fallible<(Whole, Entry)> {
    match subject {
        "node.joined" => joined(payload),
        "node.reconnected" => reconnected(payload),
        "node.disconnected" => disconnected(payload),
        "node.left" => left(payload),
        _ => match subject.strip_prefix("admission.") {
            Some(kind) => decision::read(kind, payload),
            None => Err(no_such(subject)),
        },
    }
}

pub(super) fn no_such(subject: &str) -> String {
    format!("no entry is written on the subject …{subject}")
}

/// Whether the subject is counted by the fence, `anteroom.log.<queue>.admission.*`.
fn is_fenced(subject: &str) -> bool {
    subject.strip_prefix("admission.").is_some_and(|kind| !kind.is_empty() && !kind.contains('.'))
}

pub(super) fn from_json<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Fallible<T> {
    // Whether it is UTF-8 is looked at once, not for each of many short texts.
    let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(super) fn to_json<T: Serialize>(json: &T) -> Option<Vec<u8>> {
    // These are plain structs of texts and numbers: writing them can't fail.
    serde_json::to_vec(json).ok()
}

/// The version that a payload names, if it is one that is known.
fn version(v: Whole, newest: Level) -> Fallible<Level> {
    let level = u16::try_from(v.0).ok().map(Level);
    let known = level.filter(|level| (Level::FIRST..=newest).contains(level));
    known.ok_or_else(|| format!("version {} is not known", v.0))
}

pub(super) fn bounded<T>(facts: Vec<Object<T>>) -> Fallible<impl Iterator<Item = T>> {
    if (1..=FACTS_PER_ENTRY_MAX).contains(&facts.len()) {
        return Ok(facts.into_iter().map(|Object(fact)| fact));
    }
    Err(format!("an entry has 1 to {FACTS_PER_ENTRY_MAX} facts, not {}", facts.len()))
}

fn joined(payload: &[u8]) -> Fallible<(Whole, Entry)> {
    let Object(JoinedJson { v, node, facts }) = from_json(payload)?;
    let join = |fact: JoinFact| {
        let net = fact.net.map(|net| from_digits(net.as_bytes()).ok_or(NET)).transpose()?;
        Ok(Join {
            visitor: VisitorId(fact.visitor.0),
            socket: fact.socket.0,
            opened: counted("opened", fact.opened)?,
            lane: lane(fact.lane)?,
            by: fact.by.map(|Word(by)| match by {
                ByJson::Key => JoinedBy::Key,
                ByJson::Subject => JoinedBy::Subject,
            }),
            net,
        })
    };
    let visitors = bounded(facts)?.map(join).collect::<Fallible<_>>()?;
    Ok((v, Entry::Joined(Joined { node: NodeId(node.0), visitors })))
}

fn reconnected(payload: &[u8]) -> Fallible<(Whole, Entry)> {
    let Object(ReconnectedJson { v, node, basis, facts }) = from_json(payload)?;
    let back = |fact: ReturnFact| {
        Ok(Return {
            visitor: VisitorId(fact.visitor.0),
            socket: fact.socket.0,
            opened: counted("opened", fact.opened)?,
            hand: counted("hand", fact.hand)?,
        })
    };
    let visitors = bounded(facts)?.map(back).collect::<Fallible<_>>()?;
    let basis = basis.map(|basis| Seq(basis.0));
    Ok((v, Entry::Reconnected(Reconnected { node: NodeId(node.0), basis, visitors })))
}

fn disconnected(payload: &[u8]) -> Fallible<(Whole, Entry)> {
    let Object(DisconnectedJson { v, node, facts }) = from_json(payload)?;
    let gone = |fact: SocketFact| (VisitorId(fact.visitor.0), fact.socket.0);
    let visitors = bounded(facts)?.map(gone).collect();
    Ok((v, Entry::Disconnected(Disconnected { node: NodeId(node.0), visitors })))
}

fn left(payload: &[u8]) -> Fallible<(Whole, Entry)> {
    let Object(LeftJson { v, facts }) = from_json(payload)?;
    let left = |fact: LeftFact| {
        Ok(Left { visitor: VisitorId(fact.visitor.0), hand: counted("hand", fact.hand)? })
    };
    Ok((v, Entry::Left(bounded(facts)?.map(left).collect::<Fallible<_>>()?)))
}

const NET: &str = "net is 16 hexadecimal digits";
const LANE_MAX: u64 = 7;

/// A number that is counted from 1 and left out before.
fn counted(key: &str, number: Option<Whole>) -> Fallible<u32> {
    let Some(Whole(number)) = number else { return Ok(0) };
    let number = u32::try_from(number).ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{key} is 1 to {}", u32::MAX))
}

fn lane(number: Option<Whole>) -> Fallible<u8> {
    let Some(Whole(number)) = number else { return Ok(0) };
    let lane = u8::try_from(number).ok().filter(|_| (1..=LANE_MAX).contains(&number));
    lane.ok_or_else(|| format!("lane is 1 to {LANE_MAX}"))
}

pub(super) fn text(key: &str, value: String) -> Fallible<String> {
    if (1..=TEXT_CHARS_MAX).contains(&value.chars().count()) {
        return Ok(value);
    }
    Err(format!("{key} has 1 to {TEXT_CHARS_MAX} characters"))
}

fn number(counted: u32) -> Option<Whole> {
    (counted > 0).then(|| Whole(u64::from(counted)))
}

fn joined_json(v: Whole, joined: &Joined) -> JoinedJson {
    let fact = |join: &Join| JoinFact {
        visitor: Id(join.visitor.0),
        socket: Whole(join.socket),
        opened: number(join.opened),
        by: join.by.map(|by| match by {
            JoinedBy::Key => Word(ByJson::Key),
            JoinedBy::Subject => Word(ByJson::Subject),
        }),
        net: join.net.map(|net| crate::queue::digest::hex(&net)),
        lane: number(u32::from(join.lane)),
    };
    let facts = joined.visitors.iter().map(fact).map(Object).collect();
    JoinedJson { v, node: Id(joined.node.0), facts }
}

fn reconnected_json(v: Whole, back: &Reconnected) -> ReconnectedJson {
    let fact = |back: &Return| ReturnFact {
        visitor: Id(back.visitor.0),
        socket: Whole(back.socket),
        opened: number(back.opened),
        hand: number(back.hand),
    };
    let facts = back.visitors.iter().map(fact).map(Object).collect();
    ReconnectedJson { v, node: Id(back.node.0), basis: back.basis.map(|seq| Whole(seq.0)), facts }
}

fn disconnected_json(v: Whole, gone: &Disconnected) -> DisconnectedJson {
    let fact = |(visitor, socket): &(VisitorId, u64)| SocketFact {
        visitor: Id(visitor.0),
        socket: Whole(*socket),
    };
    let facts = gone.visitors.iter().map(fact).map(Object).collect();
    DisconnectedJson { v, node: Id(gone.node.0), facts }
}

fn left_json(v: Whole, visitors: &[Left]) -> LeftJson {
    let fact = |left: &Left| LeftFact { visitor: Id(left.visitor.0), hand: number(left.hand) };
    LeftJson { v, facts: visitors.iter().map(fact).map(Object).collect() }
}
