//! What a story is answered: what its entries did, and what the line says after them.

#![expect(clippy::unwrap_used, reason = "a story about people who are not there fails its test")]

use std::fmt::Write as _;

use anteroom::queue::admit::{Due, Idle};
use anteroom::queue::event::{
    At, Configured, Entry, Facts, Presence, Seq, Setting, Ticket, VisitorId,
};
use anteroom::queue::line::{Change, Line, Shift, Standing};

use crate::story::{bytes, name};

const SECOND: i64 = 1_000_000_000;

/// What the last entry did, where it is not what it says.
pub(crate) fn change(line: &Line, entry: &Entry, change: &Change, text: &mut String) {
    let Seq(seq) = line.seq();
    if let Some(why) = change.void_entry {
        writeln!(text, "{seq}: void, {why:?}").unwrap();
    }
    if let Some(Shift { from, to, outage }) = change.shifted {
        let (from, to) = (show(At(from)), show(At(to)));
        let outage = if outage == 0 {
            String::new()
        } else {
            format!(", an outage of {}", show(At(outage)))
        };
        writeln!(text, "{seq}: shifted from {from} to {to}{outage}").unwrap();
    }
    let named = named(entry);
    for &index in &change.joined.ignored {
        let name = named.get(index as usize).unwrap();
        writeln!(text, "{seq}: {name} joined before").unwrap();
    }
    for (index, why) in &change.void {
        writeln!(text, "{seq}: {} is void, {why:?}", named.get(*index).unwrap()).unwrap();
    }
    for &ticket in &change.missed {
        writeln!(text, "{seq}: {} missed their turn", name_of(line, ticket)).unwrap();
    }
    let mut restated = change.restated.clone();
    restated.sort();
    restated.dedup();
    for ticket in restated {
        let is_absent = line.place(ticket).unwrap().absent().is_some();
        let what = if is_absent { "is prolonged" } else { "is taken to be present" };
        writeln!(text, "{seq}: {} {what}", name_of(line, ticket)).unwrap();
    }
}

/// What time it is.
pub(crate) fn clock(line: &Line) -> String {
    let mut text = format!("it is {}", show(line.at()));
    let running = line.graces().running(line.at());
    if line.time().shift != 0 {
        write!(text, ", shifted by {}", show(At(line.time().shift))).unwrap();
    }
    if running != line.at() {
        write!(text, ", running {}", show(running)).unwrap();
    }
    if line.time().is_withheld() {
        text.push_str(", withheld");
    }
    text
}

/// Where someone is, and since when they are absent.
pub(crate) fn seat(line: &Line, name: &str) -> String {
    let ticket = line.ticket(VisitorId(bytes(name))).unwrap();
    let place = line.place(ticket).unwrap();
    let node = crate::story::name(&line.nodes().id(place.node).0);
    let mut text = format!("{name} at {node}/{}", place.socket);
    let mut add = |is: bool, what: String| {
        if is {
            write!(text, ", {what}").unwrap();
        }
    };
    add(place.opened > 0, format!("opened {}", place.opened));
    add(place.hand > 0, format!("hand {}", place.hand));
    add(place.lane() > 0, format!("lane {}", place.lane()));
    add(place.came != place.joined, format!("came by {}", place.came.0));
    add(place.returns > 0, format!("came back {} times", place.returns));
    add(place.misses() > 0, format!("missed {}", place.misses()));
    if let Some(since) = place.absent() {
        add(true, format!("absent since {}", show(since)));
        let grace = line.grace_seconds(since);
        add(place.standing == Standing::Waiting, format!("kept for {grace} s"));
    }
    text
}

/// What is due.
pub(crate) fn due(line: &Line, due: &Due) -> String {
    let who = |facts: &Facts| names_of_facts(facts).join(" ");
    match due {
        Due::Admit(visitors) => {
            let names: Vec<String> = visitors.iter().map(|visitor| name(&visitor.0)).collect();
            format!("admit {}", names.join(" "))
        }
        Due::Facts(facts @ Facts::Expired(_)) => format!("expire {}", who(facts)),
        Due::Facts(Facts::Released(released)) => {
            let mut text = "release".to_owned();
            for (index, fact) in released.iter().enumerate() {
                write!(text, " {}", name(&fact.visitor.0)).unwrap();
                // The reason once for all who have the same.
                if released.get(index + 1).is_none_or(|next| next.reason != fact.reason) {
                    write!(text, " {:?}", fact.reason).unwrap();
                }
            }
            text
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
        Due::Nothing(Idle::CallingRoll(at)) => {
            format!("nothing, calling the roll until {}", show(*at))
        }
        Due::Nothing(Idle::Rate(at)) => {
            assert!(*at > line.at(), "what the rate allows now is not put off");
            format!("nothing before {}", show(*at))
        }
    }
}

/// The whole line: its level and presence where they are not as ever, who waits, and the others.
pub(crate) fn line(line: &Line, text: &mut String) {
    if line.level() != anteroom::queue::event::Level::FIRST {
        writeln!(text, "level {}", line.level()).unwrap();
    }
    if line.presence().state == Presence::Off {
        writeln!(text, "presence off since {}", show(line.presence().since)).unwrap();
    }
    let mut others = String::new();
    for (ticket, place) in (0..).map(Ticket).zip(line.places()) {
        let name = name(&place.visitor.0);
        let away = if place.absent().is_some() { " absent" } else { "" };
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
    let names = |visitors: &mut dyn Iterator<Item = VisitorId>| {
        visitors.map(|visitor| name(&visitor.0)).collect()
    };
    match entry {
        Entry::Joined(joined) => names(&mut joined.visitors.iter().map(|join| join.visitor)),
        Entry::Reconnected(back) => names(&mut back.visitors.iter().map(|back| back.visitor)),
        Entry::Disconnected(gone) => names(&mut gone.visitors.iter().map(|(who, _)| *who)),
        Entry::Left(visitors) => names(&mut visitors.iter().map(|left| left.visitor)),
        Entry::Decided(decision) => names_of_facts(&decision.facts),
        Entry::Void { .. } => Vec::new(),
    }
}

fn names_of_facts(facts: &Facts) -> Vec<String> {
    match facts {
        Facts::Configured(facts) => facts.iter().map(|fact| fact.by.clone()).collect(),
        Facts::Raised(..) => Vec::new(),
        Facts::Admitted(facts) => facts.iter().map(|fact| name(&fact.visitor.0)).collect(),
        Facts::Redeemed(facts) => facts.iter().map(|fact| name(&fact.visitor.0)).collect(),
        Facts::Released(facts) => facts.iter().map(|fact| name(&fact.visitor.0)).collect(),
        Facts::Expired(visitors) => visitors.iter().map(|visitor| name(&visitor.0)).collect(),
        Facts::Removed(facts) => facts.iter().map(|fact| name(&fact.visitor.0)).collect(),
        Facts::NodeLost(nodes) => nodes.iter().map(|node| name(&node.0)).collect(),
    }
}

fn name_of(line: &Line, ticket: Ticket) -> String {
    name(&line.place(ticket).unwrap().visitor.0)
}

/// A time, or how long something takes, in seconds or else in milliseconds.
pub(crate) fn show(at: At) -> String {
    if at.0 % SECOND == 0 {
        format!("{}s", at.0 / SECOND)
    } else {
        format!("{}ms", at.0 / 1_000_000)
    }
}
