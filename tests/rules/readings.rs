//! The log is read twice, by the fold that everybody lives by and by the audit's naive one, which
//! shares no code with it: on any history both come to the same state, and to the same facts that
//! count nowhere. And however entries are grouped, doubled or cut, the line is the same.

#![expect(clippy::unwrap_used, reason = "a history that can't be written fails its test")]

use std::collections::BTreeSet;

use anteroom::audit::verify::{Verdict, verify_records};
use anteroom::log::record::Record;
use anteroom::log::subjects::{self, QueueId};
use anteroom::queue::digest::{Chain, digest, hex};
use anteroom::queue::event::{
    At, Decision, Disconnected, Entry, Facts, Joined, Millis, Reconnected, Seq, Ticket,
};
use anteroom::queue::line::{Line, Standing};
use anteroom::wire::event::{self, Writer};
use proptest::prelude::*;

use crate::random::{Act, Moment, Teller, entries, history};
use crate::story::TRIED;

pub(crate) fn queue() -> QueueId {
    QueueId::parse("demo").unwrap()
}

/// What the log holds for these entries, each written as one does who has folded those before it.
pub(crate) fn records(entries: &[(At, Entry)]) -> Vec<Record> {
    let mut line = Line::default();
    let record = |(seq, (stored, entry)): (u64, &(At, Entry))| {
        let written = event::write(entry, line.level());
        let (subject, payload) = match (written, entry) {
            (Some((writer, kind, payload)), _) => (subjects::log(&queue(), writer, kind), payload),
            (None, Entry::Void { fenced: true }) => {
                (subjects::log(&queue(), Writer::Admission, "configured"), b"{}".to_vec())
            }
            (None, _) => (subjects::log(&queue(), Writer::Node, "joined"), b"rubbish".to_vec()),
        };
        line.apply(Seq(seq), *stored, entry);
        Record { seq: Seq(seq), stored: *stored, subject, payload: payload.into() }
    };
    (1..).zip(entries).map(record).collect()
}

/// The line after these records, and what counted nowhere: entry, and fact where it was one.
pub(crate) fn fold(records: &[Record]) -> (Line, Chain, Vec<(u64, Option<usize>)>) {
    let (mut line, mut chain, mut void) = (Line::default(), Chain::default(), Vec::new());
    for record in records {
        let written = record.read(&queue(), TRIED).unwrap();
        let (entry, _) = written.at_level(line.level());
        let change = line.apply(record.seq, record.stored, entry);
        chain = chain.then(record.seq, record.stored, &record.subject, &record.payload);
        void.extend(change.void_entry.map(|_| (record.seq.0, None)));
        void.extend(change.void.iter().map(|(fact, _)| (record.seq.0, Some(*fact))));
    }
    (line, chain, void)
}

fn judged(records: &[Record]) -> Verdict {
    verify_records(&queue(), TRIED, records)
}

/// Who has which place and how it is with them, without the numbers of entries.
fn people(line: &Line) -> Vec<(String, Standing, Option<At>, u32)> {
    let places = (0..).map(Ticket).zip(line.places());
    let told = |(ticket, place): (Ticket, &anteroom::queue::line::Place)| {
        let (visitor, rank) = (place.visitor.to_string(), line.waiting().rank(ticket));
        (visitor, place.standing, place.absent(), rank)
    };
    places.map(told).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn both_readings_agree_on_any_history(history in history()) {
        let records = records(&entries(&history));
        let (line, chain, void) = fold(&records);
        let verdict = judged(&records);
        prop_assert_eq!(&verdict.digest, &hex(&digest(&line)));
        prop_assert_eq!(&verdict.chain, &hex(&chain.0));
        prop_assert_eq!(verdict.sequence, line.seq().0);
        prop_assert_eq!(verdict.level, line.level().0);
        prop_assert_eq!(verdict.visitors, line.places().len());
        prop_assert_eq!(verdict.waiting, line.waiting().len() as usize);
        prop_assert_eq!(verdict.admitted, line.admitted());
        let found = verdict.void.list.iter().map(|finding| (finding.seq, finding.fact));
        prop_assert_eq!(found.collect::<Vec<_>>(), void);
    }

    #[test]
    fn a_worker_that_does_what_is_due_breaks_no_promise(history in history()) {
        let lawful = |moment: &Moment| match &moment.act {
            Act::Say(_) | Act::Assert { .. } | Act::Due => true,
            Act::Decide { facts, .. } => {
                matches!(facts, Facts::Configured(_) | Facts::Raised(..) | Facts::NodeLost(_))
            }
        };
        let lawful: Vec<Moment> = history.into_iter().filter(lawful).collect();
        let verdict = judged(&records(&entries(&lawful)));
        prop_assert_eq!(verdict.violations.list, vec![]);
    }

    #[test]
    fn an_entry_that_is_there_twice_changes_nothing(history in history()) {
        let mut once = entries(&history);
        once.iter_mut().for_each(|(_, entry)| name_each_once(entry));
        let (line, _, _) = fold(&records(&once));
        let (again, _, _) = fold(&records(&doubled(&once)));
        prop_assert_eq!(people(&again), people(&line));
        prop_assert_eq!(again.at(), line.at());
        prop_assert_eq!(again.graces().longer(), line.graces().longer());
    }

    #[test]
    fn one_fact_an_entry_comes_to_the_same_line(history in history()) {
        let (grouped, single) = told_singly(&history);
        let (line, _, _) = fold(&records(&grouped));
        let (again, _, _) = fold(&records(&single));
        prop_assert_eq!(people(&again), people(&line));
        prop_assert_eq!(again.at(), line.at());
        prop_assert_eq!(again.graces().longer(), line.graces().longer());
    }

    #[test]
    fn a_rank_is_how_many_wait_before(history in history()) {
        let (line, _, _) = fold(&records(&entries(&history)));
        for (index, place) in line.places().iter().enumerate() {
            let before = line.places().iter().take(index);
            let naive = before.filter(|place| place.standing == Standing::Waiting).count();
            let ticket = line.ticket(place.visitor).unwrap();
            prop_assert_eq!(line.waiting().rank(ticket) as usize, naive);
        }
    }
}

/// An entry that carries a place to hand 1 after it has named hand 2 would carry it on when it is there twice:
/// no client writes such.
fn name_each_once(entry: &mut Entry) {
    if let Entry::Reconnected(back) = entry {
        let mut named = BTreeSet::new();
        back.visitors.retain(|back| named.insert(back.visitor));
    }
}

/// Each entry twice, the second right after the first. What was written at n stands at 2n - 1 and at 2n
/// now, and what rests on it says so.
fn doubled(entries: &[(At, Entry)]) -> Log {
    let mut twice: Log = entries.iter().flat_map(|entry| [entry.clone(), entry.clone()]).collect();
    for (index, (_, entry)) in twice.iter_mut().enumerate() {
        match entry {
            Entry::Decided(decision) => {
                // The second of a pair stands on an admission subject as well and is what the next is
                // fenced on, though it counts nowhere itself.
                let is_first = index % 2 == 0;
                let first_of_pair = (2 * decision.prev.0).saturating_sub(1);
                decision.prev = Seq(if is_first { 2 * decision.prev.0 } else { first_of_pair });
                decision.basis = Seq(2 * decision.basis.0);
            }
            Entry::Reconnected(Reconnected { basis: Some(basis), .. }) => {
                *basis = Seq(2 * basis.0);
            }
            Entry::Joined(_)
            | Entry::Reconnected(_)
            | Entry::Disconnected(_)
            | Entry::Left(_)
            | Entry::Void { .. } => {}
        }
    }
    twice
}

/// When each entry was stored, and what it says.
type Log = Vec<(At, Entry)>;

/// A history as it stands in a log, and with one fact an entry. Decisions rest on all that there is:
/// what came between two facts of one that does not would be judged otherwise.
fn told_singly(history: &[Moment]) -> (Log, Log) {
    let mut teller = Teller::new();
    let (mut grouped, mut single) = (Vec::new(), Vec::new());
    // Where the last fact of each entry stands in the second log.
    let mut stands = vec![0u64];
    for moment in history {
        let mut moment = moment.clone();
        if let Act::Decide { prev_off: 0, basis_back, .. } = &mut moment.act {
            *basis_back = 0;
        }
        let told = teller.tell(&moment);
        let at = |seq: Seq| {
            let known = stands.get(usize::try_from(seq.0).unwrap()).copied();
            Seq(known.unwrap_or_else(|| stands.last().unwrap() + 1_000 + seq.0))
        };
        let counts = told.change.void_entry.is_none();
        let mut ones = singly(&told.entry, counts);
        let first = Seq(stands.last().unwrap() + 1);
        for (one, seq) in ones.iter_mut().zip(first.0..) {
            match one {
                Entry::Decided(decision) if seq > first.0 => {
                    (decision.prev, decision.basis) = (Seq(seq - 1), Seq(seq - 1));
                    if told.change.shifted.is_some() {
                        // What time it is was said by the first.
                        decision.now = Millis::from(teller.line.at());
                    }
                }
                Entry::Decided(decision) => {
                    (decision.prev, decision.basis) = (at(decision.prev), at(decision.basis));
                }
                Entry::Reconnected(Reconnected { basis: Some(basis), .. }) => *basis = at(*basis),
                Entry::Joined(_)
                | Entry::Reconnected(_)
                | Entry::Disconnected(_)
                | Entry::Left(_)
                | Entry::Void { .. } => {}
            }
        }
        stands.push(stands.last().unwrap() + u64::try_from(ones.len()).unwrap());
        single.extend(ones.into_iter().map(|one| (told.stored, one)));
        grouped.push((told.stored, told.entry));
    }
    (grouped, single)
}

/// The entries with one fact each that an entry comes to. A decision that does not stand stays one.
fn singly(entry: &Entry, counts: bool) -> Vec<Entry> {
    match entry {
        Entry::Joined(Joined { node, visitors }) => {
            each(visitors, |visitors| Entry::Joined(Joined { node: *node, visitors }))
        }
        Entry::Reconnected(Reconnected { node, basis, visitors }) => each(visitors, |visitors| {
            Entry::Reconnected(Reconnected { node: *node, basis: *basis, visitors })
        }),
        Entry::Disconnected(Disconnected { node, visitors }) => {
            each(visitors, |visitors| Entry::Disconnected(Disconnected { node: *node, visitors }))
        }
        Entry::Left(visitors) => each(visitors, Entry::Left),
        Entry::Decided(decision) if counts => {
            let facts = match &decision.facts {
                Facts::Configured(facts) => each(facts, Facts::Configured),
                Facts::Raised(..) => vec![decision.facts.clone()],
                Facts::Admitted(facts) => each(facts, Facts::Admitted),
                Facts::Redeemed(facts) => each(facts, Facts::Redeemed),
                Facts::Released(facts) => each(facts, Facts::Released),
                Facts::Expired(facts) => each(facts, Facts::Expired),
                Facts::Removed(facts) => each(facts, Facts::Removed),
                Facts::NodeLost(facts) => each(facts, Facts::NodeLost),
            };
            let one = |facts| Entry::Decided(Decision { facts, ..decision.clone() });
            facts.into_iter().map(one).collect()
        }
        Entry::Decided(_) | Entry::Void { .. } => vec![entry.clone()],
    }
}

fn each<F: Clone, T>(facts: &[F], with: impl Fn(Vec<F>) -> T) -> Vec<T> {
    facts.iter().map(|fact| with(vec![fact.clone()])).collect()
}
