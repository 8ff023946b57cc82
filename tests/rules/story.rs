//! A small language for histories, one entry a line, and what the line says after them.
//!
//! ```text
//! 10s joined n1 ann/1 bob/2/7        node, then visitor/socket/opened; or lane=3
//! 10s reconnected n1 ann/3@1         the same, and the hand after an @
//! 10s basis=4 reconnected n1 ann/3   asserts a seat that the node has had
//! 10s disconnected n1 ann/3
//! 11s left ann bob@1                 and the hand, again
//! 12s admitted ann bob#b             the grant is named as the visitor unless #… names it
//! 13s redeemed seconds=600 ann
//! 14s released lapsed bob#b          or missed, session_over, released
//! 15s expired cid                    as removed
//! 16s node_lost n1
//! 17s policy max_inside=2            what is left out has its default; or opens_at=90s absent=admit
//! 18s state open
//! 18s rate 30                        follows the load; or none, and it does so no more
//! 19s outage 30                      seconds
//! 19s presence off                   or on
//! 19s time
//! 19s level 3
//! 20s void fenced                    unreadable, on an admission subject; or only: void
//! 21s prev=3 basis=5 admitted ann    by default the admission entry before, and the entry before
//! 21s by=schedule state open         by an operator unless it is said by whom
//! 21s now=321s admitted ann          what time it states: by default that of the log
//! 21s v=3 left ann                   of another version than 2
//! 22s due                            no entry: what decide() says
//! 22s tick                           what decide() says, and the entry that comes of it
//! 23s clock                          no entry: what time it is
//! 23s look ann                       no entry: where someone is, and since when
//! ```
//!
//! Times are store times. The answer names what counted nowhere and what was due, then who waits by
//! position, then the others by ticket. It ends at an entry that halts the reader.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a story that can't be read fails its test"
)]

use std::fmt::Write as _;

use anteroom::audit::verify::verify_records;
use anteroom::log::record::Record;
use anteroom::log::subjects;
use anteroom::queue::admit::{self, Due};
use anteroom::queue::digest::{digest, hex};
use anteroom::queue::event::{
    Admitted, At, Configured, Decision, Disconnected, Entry, Facts, Join, Joined, Jti, Left, Level,
    Millis, NodeId, Presence, Reconnected, Redeemed, ReleaseReason, Released, Removed, Return, Seq,
    Setting, State, VisitorId, WorkerId,
};
use anteroom::queue::line::Line;
use anteroom::wire::{event, instant, policy};

use crate::readings::{fold, queue, records};
use crate::retell;

/// The newest level that the readers of a story know: the one after the newest that there is, so that
/// raising a log is tried before there is anything new at it.
pub(crate) const TRIED: Level = Level(Level::NEWEST.0 + 1);

/// Asserts that this history comes to this.
#[track_caller]
pub(crate) fn check(story: &str, expected: &str) {
    let expected: Vec<&str> = lines(expected).collect();
    let (text, entries) = tell(story);
    assert_eq!(text.trim_end(), expected.join("\n"), "\n{story}");
    same_by_audit(&entries);
}

/// Asserts that the audit reads the same in these entries.
#[track_caller]
pub(crate) fn same_by_audit(entries: &[(At, Entry)]) {
    let records = records(entries);
    let (line, _, void) = fold(&records);
    let verdict = verify_records(&queue(), TRIED, &records);
    let found = verdict.void.list.iter().map(|finding| (finding.seq, finding.fact));
    assert_eq!(found.collect::<Vec<_>>(), void, "the audit voids something else");
    assert_eq!(verdict.digest, hex(&digest(&line)), "the audit comes to another line");
}

/// What a history comes to, and its entries.
fn tell(story: &str) -> (String, Vec<(At, Entry)>) {
    let mut line = Line::default();
    let mut entries = Vec::new();
    let mut text = String::new();
    for words in lines(story) {
        let (at, rest) = words.split_once(' ').expect(words);
        let shown = retell::show(time(at));
        // The log's time, as its decisions have made it.
        let now = line.time().raw(time(at));
        let entry = match rest.split_once(' ').unwrap_or((rest, "")) {
            ("due" | "tick", _) => {
                let due = admit::decide(&line, now);
                writeln!(text, "{shown}: {}", retell::due(&line, &due)).unwrap();
                (rest == "tick").then(|| entry_of(&line, due, now)).flatten()
            }
            ("clock", _) => {
                writeln!(text, "{shown}: {}", retell::clock(&line)).unwrap();
                None
            }
            ("look", name) => {
                writeln!(text, "{shown}: {}", retell::seat(&line, name)).unwrap();
                None
            }
            _ => Some(entry(&line, now, rest)),
        };
        let Some(entry) = entry else { continue };
        if let Some(level) = line.raised_by(&entry).filter(|level| *level > TRIED) {
            writeln!(text, "{}: halt, level {level}", line.seq().0 + 1).unwrap();
            break;
        }
        let change = line.apply(Seq(line.seq().0 + 1), time(at), &entry);
        retell::change(&line, &entry, &change, &mut text);
        entries.push((time(at), entry));
    }
    retell::line(&line, &mut text);
    (text, entries)
}

/// The line after a history.
pub(crate) fn line_after(story: &str) -> Line {
    line_of(&entries_of(story))
}

/// The line after these entries.
pub(crate) fn line_of(entries: &[(At, Entry)]) -> Line {
    let mut line = Line::default();
    for (at, entry) in entries {
        line.apply(Seq(line.seq().0 + 1), *at, entry);
    }
    line
}

/// A history as it stands in a log: when each entry was stored, and what it says.
pub(crate) fn entries_of(story: &str) -> Vec<(At, Entry)> {
    let mut line = Line::default();
    let mut entries = Vec::new();
    for words in lines(story) {
        let (at, rest) = words.split_once(' ').expect(words);
        let entry = entry(&line, line.time().raw(time(at)), rest);
        line.apply(Seq(line.seq().0 + 1), time(at), &entry);
        entries.push((time(at), entry));
    }
    entries
}

/// The entry that an admission worker writes for what is due.
pub(crate) fn entry_of(line: &Line, due: Due, now: At) -> Option<Entry> {
    let facts = match due {
        Due::Facts(facts) => facts,
        Due::Admit(visitors) => Facts::Admitted(
            visitors
                .into_iter()
                .map(|visitor| Admitted {
                    visitor,
                    jti: Jti(visitor.0),
                    kid: "k1".to_owned(),
                    seconds: line.policy().token_seconds,
                })
                .collect(),
        ),
        Due::Nothing(_) => return None,
    };
    Some(fresh(line, now, facts))
}

/// A decision that rests on all that there is, by a worker who takes it to be `now`.
pub(crate) fn fresh(line: &Line, now: At, facts: Facts) -> Entry {
    let (prev, basis, now) = (line.last_decision(), line.seq(), Millis::from(now));
    Entry::Decided(Decision { prev, basis, now, worker: WORKER, facts })
}

/// Who decides unless it is said who.
pub(crate) const WORKER: WorkerId = WorkerId([9; 16]);

/// Reads one entry; `words` is all after the time, and `now` what the log makes of that.
fn entry(line: &Line, now: At, words: &str) -> Entry {
    let mut words: Vec<&str> = words.split(' ').collect();
    let mut option = |name: &str| {
        let index = words.iter().position(|word| word.starts_with(name))?;
        words.remove(index).strip_prefix(name)
    };
    let number = |text: &str| text.parse::<u64>().unwrap();
    let version = option("v=").map(|v| Level(v.parse().unwrap()));
    let prev = option("prev=").map_or_else(|| line.last_decision(), |prev| Seq(number(prev)));
    let basis = option("basis=").map(|basis| Seq(number(basis)));
    let now = option("now=").map_or_else(|| Millis::from(now), millis);
    let seconds = option("seconds=").map_or(120, |seconds| seconds.parse().unwrap());
    let lane = option("lane=").map_or(0, |lane| lane.parse().unwrap());
    let by = option("by=").unwrap_or("ops");
    let (kind, rest) = words.split_first().expect("a kind");
    let entry = match *kind {
        "void" => return Entry::Void { fenced: rest == ["fenced"] },
        "joined" | "reconnected" | "disconnected" | "left" => said(kind, basis, lane, rest),
        _ => {
            let basis = basis.unwrap_or_else(|| line.seq());
            let facts = decided(kind, rest, seconds, by);
            Entry::Decided(Decision { prev, basis, now, worker: WORKER, facts })
        }
    };
    match version {
        Some(version) => read_back(&entry, version, line),
        None => entry,
    }
}

/// An entry as a reader takes it who finds it with this version in a log of the line's level.
fn read_back(entry: &Entry, version: Level, line: &Line) -> Entry {
    let queue = queue();
    let (writer, kind, payload) = event::write(entry, version).unwrap();
    let (subject, seq) = (subjects::log(&queue, writer, kind), Seq(line.seq().0 + 1));
    let record = Record { seq, stored: At(0), subject, payload: payload.into() };
    record.read(&queue, TRIED).unwrap().at_level(line.level()).0.clone()
}

/// What nodes say.
fn said(kind: &str, basis: Option<Seq>, lane: u8, rest: &[&str]) -> Entry {
    if kind == "left" {
        let left = |word: &&str| {
            let (name, hand) = handed(word);
            Left { visitor: VisitorId(bytes(name)), hand }
        };
        return Entry::Left(rest.iter().map(left).collect());
    }
    let (node, visitors) = rest.split_first().expect("a node");
    let node = NodeId(bytes(node));
    let seats = visitors.iter().map(|word| seat(word));
    match kind {
        "joined" => Entry::Joined(Joined {
            node,
            visitors: seats
                .map(|Return { visitor, socket, opened, .. }| Join {
                    opened,
                    lane,
                    ..Join::plain(visitor, socket)
                })
                .collect(),
        }),
        "reconnected" => Entry::Reconnected(Reconnected { node, basis, visitors: seats.collect() }),
        _ => {
            let visitors = seats.map(|seat| (seat.visitor, seat.socket)).collect();
            Entry::Disconnected(Disconnected { node, visitors })
        }
    }
}

/// `name/socket/opened@hand`, of which the last two may be left out.
fn seat(word: &str) -> Return {
    let (seat, hand) = handed(word);
    let mut parts = seat.split('/');
    let visitor = VisitorId(bytes(parts.next().expect(word)));
    let socket = parts.next().expect(word).parse().unwrap();
    let opened = parts.next().map_or(0, |opened| opened.parse().unwrap());
    Return { visitor, socket, opened, hand }
}

fn handed(word: &str) -> (&str, u32) {
    word.split_once('@').map_or((word, 0), |(word, hand)| (word, hand.parse().unwrap()))
}

fn decided(kind: &str, rest: &[&str], seconds: u32, by: &str) -> Facts {
    let visitors = || rest.iter().map(|name| VisitorId(bytes(name))).collect();
    match kind {
        "expired" => Facts::Expired(visitors()),
        "admitted" => Facts::Admitted(rest.iter().map(|word| admitted(word, seconds)).collect()),
        "redeemed" => Facts::Redeemed(rest.iter().map(|word| redeemed(word, seconds)).collect()),
        "released" => {
            let (reason, rest) = rest.split_first().expect("a reason");
            Facts::Released(rest.iter().map(|word| released(word, reason)).collect())
        }
        "removed" => Facts::Removed(rest.iter().map(|name| removed(name)).collect()),
        "node_lost" => Facts::NodeLost(rest.iter().map(|name| NodeId(bytes(name))).collect()),
        "level" => Facts::Raised(Level(rest.concat().parse().unwrap()), by.to_owned()),
        "policy" | "state" | "rate" | "outage" | "presence" | "time" => {
            let what = setting(kind, rest);
            Facts::Configured(vec![Configured { by: by.to_owned(), what }])
        }
        other => panic!("no such kind: {other}"),
    }
}

/// A number, a time as it is written, or a word.
fn value_of(text: &str) -> serde_json::Value {
    if let Ok(number) = text.parse::<u64>() {
        return number.into();
    }
    if text.ends_with('s') { instant::write(time(text)).into() } else { text.into() }
}

fn setting(kind: &str, rest: &[&str]) -> Setting {
    match kind {
        "policy" => {
            let pairs = rest.iter().map(|word| {
                let (key, value) = word.split_once('=').expect(word);
                (key.to_owned(), value_of(value))
            });
            let json = serde_json::Value::Object(pairs.collect());
            Setting::Policy(policy::parse(&json).unwrap())
        }
        "state" => {
            let state = match rest.first().copied() {
                Some("scheduled") => State::Scheduled,
                Some("open") => State::Open,
                Some("paused") => State::Paused,
                Some("closed") => State::Closed,
                Some("deleted") => State::Deleted,
                other => panic!("no such state: {other:?}"),
            };
            Setting::State(state, None)
        }
        "rate" => Setting::Rate {
            per_minute: rest.first().map(|rate| rate.parse().unwrap()),
            loads: Vec::new(),
        },
        "presence" => Setting::Presence(match rest {
            ["on"] => Presence::On,
            ["off"] => Presence::Off,
            other => panic!("presence is on or off: {other:?}"),
        }),
        "time" => Setting::Time,
        _ => Setting::Outage { seconds: rest.first().unwrap().parse().unwrap() },
    }
}

fn admitted(word: &str, seconds: u32) -> Admitted {
    let (visitor, jti) = grant(word);
    Admitted { visitor, jti, kid: "k1".to_owned(), seconds }
}

fn redeemed(word: &str, seconds: u32) -> Redeemed {
    let (visitor, jti) = grant(word);
    Redeemed { visitor, jti, kid: "k1".to_owned(), seconds, key: None }
}

fn released(word: &str, reason: &str) -> Released {
    let (visitor, jti) = grant(word);
    let reason = match reason {
        "released" => ReleaseReason::Released,
        "session_over" => ReleaseReason::SessionOver,
        "lapsed" => ReleaseReason::Lapsed,
        "missed" => ReleaseReason::Missed,
        other => panic!("no such reason: {other}"),
    };
    Released { visitor, jti, reason, by: "schedule".to_owned() }
}

fn removed(name: &str) -> Removed {
    Removed { visitor: VisitorId(bytes(name)), by: "ops".to_owned(), reason: None }
}

fn grant(word: &str) -> (VisitorId, Jti) {
    let (visitor, jti) = word.split_once('#').unwrap_or((word, word));
    (VisitorId(bytes(visitor)), Jti(bytes(jti)))
}

/// The id that stands for a name: its letters, then zeros.
pub(crate) fn bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.get_mut(..name.len()).expect(name).copy_from_slice(name.as_bytes());
    bytes
}

pub(crate) fn name(id: &[u8; 16]) -> String {
    str::from_utf8(id).unwrap().trim_end_matches('\0').to_owned()
}

/// The time that is written `10s` or `10500ms`.
pub(crate) fn time(text: &str) -> At {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<i64>().ok();
    let millis = number("ms").or_else(|| Some(number("s")? * 1_000)).expect(text);
    At(millis * 1_000_000)
}

/// The same as a decision states it: up to 2^53 - 1 milliseconds, which is beyond every store time.
fn millis(text: &str) -> Millis {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<u64>().ok();
    Millis(number("ms").or_else(|| Some(number("s")? * 1_000)).expect(text))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}
