//! The log is read twice, by the fold that everybody lives by and by the audit's naive one, which
//! shares no code with it: on any history both come to the same state, and to the same facts that
//! count nowhere. And however entries are grouped, doubled or cut, the line is the same.

#![expect(clippy::unwrap_used, reason = "a history that can't be written fails its test")]

use anteroom::audit::verify::{Verdict, verify_records};
use anteroom::log::subjects::{self, QueueId};
use anteroom::log::tail::Record;
use anteroom::queue::digest::{Chain, digest, hex};
use anteroom::queue::event::{At, Entry, Facts, Seated, Seq, Ticket};
use anteroom::queue::line::{Line, Standing};
use anteroom::wire::event::{self, Writer};
use proptest::prelude::*;

use crate::history::{Act, history, next};

pub(crate) fn queue() -> QueueId {
    QueueId::parse("demo").unwrap()
}

/// What the log holds for these entries.
pub(crate) fn records(entries: &[(At, Entry)]) -> Vec<Record> {
    let record = |(seq, (stored, entry)): (u64, &(At, Entry))| {
        let (subject, payload) = match (event::write(entry), entry) {
            (Some((writer, kind, payload)), _) => (subjects::log(&queue(), writer, kind), payload),
            (None, Entry::Void { fenced: true }) => {
                (subjects::log(&queue(), Writer::Admission, "configured"), b"{}".to_vec())
            }
            (None, _) => (subjects::log(&queue(), Writer::Node, "joined"), b"rubbish".to_vec()),
        };
        Record { seq: Seq(seq), stored: *stored, subject, payload: payload.into() }
    };
    (1..).zip(entries).map(record).collect()
}

fn entries(history: &[(i64, Act)]) -> Vec<(At, Entry)> {
    let mut line = Line::default();
    let mut entries = Vec::new();
    for (gap, act) in history {
        let (at, entry) = next(&line, *gap, act);
        line.apply(Seq(line.seq().0 + 1), at, &entry);
        entries.push((at, entry));
    }
    entries
}

/// The line after these records, and what counted nowhere: entry, and fact where it was one.
fn fold(records: &[Record]) -> (Line, Chain, Vec<(u64, Option<usize>)>) {
    let (mut line, mut chain, mut void) = (Line::default(), Chain::default(), Vec::new());
    for record in records {
        let (entry, _) = record.read(&queue()).unwrap();
        let change = line.apply(record.seq, record.stored, &entry);
        chain = chain.then(record.seq, record.stored, &record.subject, &record.payload);
        void.extend(change.void_entry.map(|_| (record.seq.0, None)));
        void.extend(change.void.iter().map(|(fact, _)| (record.seq.0, Some(*fact))));
    }
    (line, chain, void)
}

fn judged(records: &[Record]) -> Verdict {
    verify_records(&queue(), records)
}

/// The same entry again, right after it.
fn doubled(entries: &[(At, Entry)]) -> Vec<(At, Entry)> {
    entries.iter().flat_map(|entry| [entry.clone(), entry.clone()]).collect()
}

/// Who has which place and how it is with them, without the numbers of entries.
fn people(line: &Line) -> Vec<(String, Standing, bool, u32)> {
    let places = (0..).map(Ticket).zip(line.places());
    let told = |(ticket, place): (Ticket, &anteroom::queue::line::Place)| {
        let (visitor, rank) = (place.visitor.to_string(), line.waiting().rank(ticket));
        (visitor, place.standing, place.absent.is_none(), rank)
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
        prop_assert_eq!(verdict.visitors, line.places().len());
        prop_assert_eq!(verdict.waiting, line.waiting().len() as usize);
        prop_assert_eq!(verdict.admitted, line.grants_len());
        let found = verdict.void.list.iter().map(|finding| (finding.seq, finding.fact));
        prop_assert_eq!(found.collect::<Vec<_>>(), void);
    }

    #[test]
    fn a_worker_that_does_what_is_due_breaks_no_promise(history in history()) {
        let lawful = |(_, act): &(i64, Act)| match act {
            Act::Say(_) | Act::Due => true,
            Act::Decide { facts, .. } => matches!(facts, Facts::Configured(_) | Facts::NodeLost(_)),
        };
        let lawful: Vec<(i64, Act)> = history.into_iter().filter(lawful).collect();
        let verdict = judged(&records(&entries(&lawful)));
        prop_assert_eq!(verdict.violations.list, vec![]);
    }

    #[test]
    fn an_entry_that_is_there_twice_changes_nothing(history in history()) {
        let history: Vec<(i64, Act)> = history.into_iter().filter(|(gap, _)| *gap >= 0).collect();
        let once = entries(&history);
        let (line, _, _) = fold(&records(&once));
        // A decision rests on the sequence of the one before: the doubled log has it written so.
        let mut twice = doubled(&once);
        for (_, entry) in &mut twice {
            if let Entry::Decided(decision) = entry {
                // The first of a pair counts, so what was written at n stands at 2n - 1 now.
                decision.prev = first_of_pair(decision.prev);
                decision.basis = Seq(2 * decision.basis.0);
            }
        }
        fenced_on_the_second(&mut twice);
        let (again, _, _) = fold(&records(&twice));
        prop_assert_eq!(people(&again), people(&line));
    }

    #[test]
    fn one_fact_an_entry_comes_to_the_same_line(history in history()) {
        let node_facts = |(_, act): &(i64, Act)| matches!(act, Act::Say(_));
        let said: Vec<(i64, Act)> = history.into_iter().filter(node_facts).collect();
        let grouped = entries(&said);
        let single: Vec<(At, Entry)> =
            grouped.iter().flat_map(|(at, entry)| singly(entry).into_iter().map(|one| (*at, one))).collect();
        prop_assert_eq!(people(&fold(&records(&single)).0), people(&fold(&records(&grouped)).0));
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

fn first_of_pair(seq: Seq) -> Seq {
    Seq((2 * seq.0).saturating_sub(1))
}

/// The second of a pair stands on an admission subject as well and is what the next is fenced on,
/// though it counts nowhere itself.
fn fenced_on_the_second(twice: &mut [(At, Entry)]) {
    for (index, (_, entry)) in twice.iter_mut().enumerate() {
        if let Entry::Decided(decision) = entry
            && decision.prev.0 > 0
            && index % 2 == 0
        {
            decision.prev = Seq(decision.prev.0 + 1);
        }
    }
}

fn singly(entry: &Entry) -> Vec<Entry> {
    let seated = |seated: &Seated| -> Vec<Seated> {
        let one = |visitor| Seated { node: seated.node, visitors: vec![visitor] };
        seated.visitors.iter().copied().map(one).collect()
    };
    match entry {
        Entry::Joined(all) => seated(all).into_iter().map(Entry::Joined).collect(),
        Entry::Reconnected(all) => seated(all).into_iter().map(Entry::Reconnected).collect(),
        Entry::Disconnected(all) => seated(all).into_iter().map(Entry::Disconnected).collect(),
        Entry::Left(all) => all.iter().map(|visitor| Entry::Left(vec![*visitor])).collect(),
        Entry::Decided(_) | Entry::Void { .. } => vec![entry.clone()],
    }
}
