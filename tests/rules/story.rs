//! A small language for histories, one entry a line, and what the line says after them.
//!
//! ```text
//! 10s joined n1 ann/1 bob/2          node, then visitor/socket; as reconnected, disconnected
//! 11s left ann
//! 12s admitted ann bob#b             the grant is named as the visitor unless #… names it
//! 13s redeemed seconds=600 ann
//! 14s released lapsed bob#b          or session_over, or released
//! 15s expired cid                    as removed
//! 16s node_lost n1
//! 17s policy max_inside=2            what is left out has its default; or opens_at=90s absent=admit
//! 18s state open
//! 18s rate 30                        follows the load; or none, and it does so no more
//! 19s outage 30                      seconds
//! 20s void fenced                    unreadable, on an admission subject; or only: void
//! 21s prev=3 basis=5 admitted ann    by default the admission entry before, and the entry before
//! 21s by=schedule state open         by an operator unless it is said by whom
//! 22s due                            no entry: what decide() says
//! 22s tick                           what decide() says, and the entry that comes of it
//! ```
//!
//! The answer names what counted nowhere and what was due, then who waits by position, then the
//! others by ticket.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a story that can't be read fails its test"
)]

use std::fmt::Write as _;

use anteroom::queue::admit::{self, Due, Idle};
use anteroom::queue::event::{
    Admitted, At, Configured, Decision, Entry, Facts, Jti, NodeId, Redeemed, ReleaseReason,
    Released, Removed, Seated, Seq, Setting, State, Ticket, VisitorId,
};
use anteroom::queue::line::{Change, Line, Standing};
use anteroom::wire::{instant, policy};

const SECOND: i64 = 1_000_000_000;

/// Asserts that this history comes to this.
#[track_caller]
pub(crate) fn check(story: &str, expected: &str) {
    let expected: Vec<&str> = lines(expected).collect();
    assert_eq!(tell(story).trim_end(), expected.join("\n"), "\n{story}");
}

/// What a history comes to.
fn tell(story: &str) -> String {
    let mut line = Line::default();
    let mut text = String::new();
    for words in lines(story) {
        let (at, rest) = words.split_once(' ').expect(words);
        let at = time(at);
        match rest {
            "due" => writeln!(text, "{}: {}", show(at), tell_due(&line, &due(&line, at))).unwrap(),
            "tick" => {
                let due = due(&line, at);
                writeln!(text, "{}: {}", show(at), tell_due(&line, &due)).unwrap();
                if let Some(entry) = entry_of(&line, due) {
                    apply(&mut line, at, &entry, &mut text);
                }
            }
            _ => {
                let entry = entry(&line, rest);
                apply(&mut line, at, &entry, &mut text);
            }
        }
    }
    tell_line(&line, &mut text);
    text
}

/// The line after a history.
pub(crate) fn line_after(story: &str) -> Line {
    let mut line = Line::default();
    for words in lines(story) {
        let (at, rest) = words.split_once(' ').expect(words);
        let entry = entry(&line, rest);
        apply(&mut line, time(at), &entry, &mut String::new());
    }
    line
}

/// A history as it stands in a log: when each entry was stored, and what it says.
pub(crate) fn entries_of(story: &str) -> Vec<(At, Entry)> {
    let mut line = Line::default();
    let mut entries = Vec::new();
    for words in lines(story) {
        let (at, rest) = words.split_once(' ').expect(words);
        let entry = entry(&line, rest);
        line.apply(Seq(line.seq().0 + 1), time(at), &entry);
        entries.push((time(at), entry));
    }
    entries
}

fn due(line: &Line, now: At) -> Due {
    admit::decide(line, now)
}

/// The entry that an admission worker writes for what is due.
pub(crate) fn entry_of(line: &Line, due: Due) -> Option<Entry> {
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
    Some(Entry::Decided(Decision { prev: line.last_decision(), basis: line.seq(), facts }))
}

fn apply(line: &mut Line, at: At, entry: &Entry, text: &mut String) {
    let seq = Seq(line.seq().0 + 1);
    let change = line.apply(seq, at, entry);
    tell_change(line, seq, entry, &change, text);
}

/// Reads one entry; `words` is all after the time.
fn entry(line: &Line, words: &str) -> Entry {
    let mut words: Vec<&str> = words.split(' ').collect();
    let mut option = |name: &str| {
        let index = words.iter().position(|word| word.starts_with(name))?;
        words.remove(index).strip_prefix(name)?.parse::<u64>().ok()
    };
    let prev = option("prev=").map_or_else(|| line.last_decision(), Seq);
    let basis = option("basis=").map_or_else(|| line.seq(), Seq);
    let seconds = option("seconds=").map_or(120, |seconds| u32::try_from(seconds).unwrap());
    let by = words.iter().position(|word| word.starts_with("by="));
    let by = by.map_or("ops", |index| words.remove(index).trim_start_matches("by="));
    let (kind, rest) = words.split_first().expect("a kind");
    let seated = || {
        let (node, visitors) = rest.split_first().expect("a node");
        let visitors = visitors.iter().map(|word| {
            let (name, socket) = word.split_once('/').expect(word);
            (VisitorId(bytes(name)), socket.parse().unwrap())
        });
        Seated { node: NodeId(bytes(node)), visitors: visitors.collect() }
    };
    let visitors = || rest.iter().map(|name| VisitorId(bytes(name))).collect();
    let facts = match *kind {
        "joined" => return Entry::Joined(seated()),
        "reconnected" => return Entry::Reconnected(seated()),
        "disconnected" => return Entry::Disconnected(seated()),
        "left" => return Entry::Left(visitors()),
        "void" => return Entry::Void { fenced: rest == ["fenced"] },
        "expired" => Facts::Expired(visitors()),
        "admitted" => Facts::Admitted(rest.iter().map(|word| admitted(word, seconds)).collect()),
        "redeemed" => Facts::Redeemed(rest.iter().map(|word| redeemed(word, seconds)).collect()),
        "released" => {
            let (reason, rest) = rest.split_first().expect("a reason");
            Facts::Released(rest.iter().map(|word| released(word, reason)).collect())
        }
        "removed" => Facts::Removed(rest.iter().map(|name| removed(name)).collect()),
        "node_lost" => Facts::NodeLost(rest.iter().map(|name| NodeId(bytes(name))).collect()),
        "policy" | "state" | "rate" | "outage" => {
            let what = setting(kind, rest);
            Facts::Configured(vec![Configured { by: by.to_owned(), what }])
        }
        other => panic!("no such kind: {other}"),
    };
    Entry::Decided(Decision { prev, basis, facts })
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

fn tell_change(line: &Line, seq: Seq, entry: &Entry, change: &Change, text: &mut String) {
    let seq = seq.0;
    if let Some(why) = change.void_entry {
        writeln!(text, "{seq}: void, {why:?}").unwrap();
    }
    let named = named(entry);
    for &index in &change.joined.ignored {
        let name = named.get(index as usize).unwrap();
        writeln!(text, "{seq}: {name} joined before").unwrap();
    }
    for (index, why) in &change.void {
        writeln!(text, "{seq}: {} is void, {why:?}", named.get(*index).unwrap()).unwrap();
    }
    let mut prolonged = change.prolonged.clone();
    prolonged.sort();
    for ticket in prolonged {
        writeln!(text, "{seq}: {} is prolonged", name_of(line, ticket)).unwrap();
    }
}

fn tell_due(line: &Line, due: &Due) -> String {
    let who = |facts: &Facts| {
        let decision = Decision { prev: Seq(0), basis: Seq(0), facts: facts.clone() };
        named(&Entry::Decided(decision)).join(" ")
    };
    match due {
        Due::Admit(visitors) => {
            let names: Vec<String> = visitors.iter().map(|visitor| name(&visitor.0)).collect();
            format!("admit {}", names.join(" "))
        }
        Due::Facts(facts @ Facts::Expired(_)) => format!("expire {}", who(facts)),
        Due::Facts(facts @ Facts::Released(released)) => {
            let reasons = released.iter().map(|fact| fact.reason);
            let reason = reasons.reduce(|one, other| {
                assert_eq!(one, other, "one reason an entry");
                one
            });
            format!("release {} {:?}", who(facts), reason.unwrap())
        }
        Due::Facts(Facts::Configured(facts)) => {
            let [Configured { what: Setting::State(state, None), .. }] = facts.as_slice() else {
                panic!("only a state is due by time: {facts:?}");
            };
            format!("set {state:?} by {}", who(&Facts::Configured(facts.clone())))
        }
        Due::Facts(other) => panic!("never due by time: {other:?}"),
        Due::Nothing(Idle::NotOpen) => "nothing, not open".to_owned(),
        Due::Nothing(Idle::NobodyHere) => "nothing, nobody here".to_owned(),
        Due::Nothing(Idle::Full) => "nothing, full".to_owned(),
        Due::Nothing(Idle::Rate(at)) => {
            assert!(*at > line.at(), "what the rate allows now is not put off");
            format!("nothing before {}", show(*at))
        }
    }
}

fn tell_line(line: &Line, text: &mut String) {
    let mut others = String::new();
    for (ticket, place) in (0..).map(Ticket).zip(line.places()) {
        let name = name(&place.visitor.0);
        let away = if place.absent.is_some() { " absent" } else { "" };
        match place.standing {
            Standing::Waiting => {
                assert!(line.waiting().contains(ticket), "who waits is in line");
                let position = line.waiting().rank(ticket) + 1;
                writeln!(text, "{position} {name}{away}").unwrap();
            }
            Standing::Granted => writeln!(others, "{name} granted{away}").unwrap(),
            Standing::Inside => writeln!(others, "{name} inside").unwrap(),
            Standing::Ended(end) => {
                writeln!(others, "{name} {}", format!("{end:?}").to_lowercase()).unwrap();
            }
        }
    }
    text.push_str(&others);
}

/// The names in an entry, fact by fact.
fn named(entry: &Entry) -> Vec<String> {
    match entry {
        Entry::Joined(seated) | Entry::Reconnected(seated) | Entry::Disconnected(seated) => {
            seated.visitors.iter().map(|(visitor, _)| name(&visitor.0)).collect()
        }
        Entry::Left(visitors) => visitors.iter().map(|visitor| name(&visitor.0)).collect(),
        Entry::Decided(decision) => match &decision.facts {
            Facts::Configured(facts) => facts.iter().map(|fact| fact.by.clone()).collect(),
            Facts::Admitted(facts) => facts.iter().map(|fact| name(&fact.visitor.0)).collect(),
            Facts::Redeemed(facts) => facts.iter().map(|fact| name(&fact.visitor.0)).collect(),
            Facts::Released(facts) => facts.iter().map(|fact| name(&fact.visitor.0)).collect(),
            Facts::Expired(visitors) => visitors.iter().map(|visitor| name(&visitor.0)).collect(),
            Facts::Removed(facts) => facts.iter().map(|fact| name(&fact.visitor.0)).collect(),
            Facts::NodeLost(nodes) => nodes.iter().map(|node| name(&node.0)).collect(),
        },
        Entry::Void { .. } => Vec::new(),
    }
}

fn name_of(line: &Line, ticket: Ticket) -> String {
    name(&line.place(ticket).unwrap().visitor.0)
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

fn show(at: At) -> String {
    if at.0 % SECOND == 0 {
        format!("{}s", at.0 / SECOND)
    } else {
        format!("{}ms", at.0 / 1_000_000)
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}
