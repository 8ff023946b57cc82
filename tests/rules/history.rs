//! Random histories: nothing panics, the parts of a line agree with each other, and a line that was
//! stored and restored goes on as if nothing had happened.

use std::collections::BTreeMap;

use anteroom::queue::admit::decide;
use anteroom::queue::digest::digest;
use anteroom::queue::event::{At, Entry, Presence, Seq, Ticket};
use anteroom::queue::line::{Line, Standing, VoidEntry};
use anteroom::queue::time::{AGREED_NANOS_MAX, UNDECIDED_SECONDS_MAX};
use proptest::prelude::*;

use crate::random::{Act, Teller, entries, history};
use crate::story::line_of;

const SECOND: i64 = 1_000_000_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn after_every_entry_the_parts_of_a_line_agree(history in history()) {
        let mut teller = Teller::new();
        for moment in &history {
            let told = teller.tell(moment);
            if matches!(moment.act, Act::Due) {
                prop_assert!(told.change.void.is_empty(), "what is due counts: {:?}", told.change);
                prop_assert!(matches!(told.change.void_entry, None | Some(VoidEntry::Unreadable)));
            }
            sound(&teller.line)?;
        }
    }

    #[test]
    fn the_time_never_goes_back_nor_far_ahead_of_what_was_decided_and_of_the_servers(
        history in history(),
    ) {
        let mut teller = Teller::new();
        let mut servers = At(i64::MIN);
        let mut decided = At(0);
        for moment in &history {
            let (before, raw_before) = (teller.line.at(), *teller.line.time());
            let told = teller.tell(moment);
            let now = teller.line.at();
            servers = servers.max(told.stored);
            prop_assert!(now >= before);
            let stands = matches!(told.entry, Entry::Decided(_)) && told.change.void_entry.is_none();
            if stands {
                let most = before.plus_seconds(UNDECIDED_SECONDS_MAX);
                let clocks = told.stored.max(raw_before.raw(told.stored));
                let clocks = At(clocks.0.saturating_add(AGREED_NANOS_MAX));
                prop_assert!(now <= most.max(clocks), "{:?} after {:?}", now, before);
                decided = now;
            } else {
                let most = decided.plus_seconds(UNDECIDED_SECONDS_MAX);
                prop_assert!(now <= most, "{:?} and nothing decided since {:?}", now, decided);
                prop_assert_eq!(teller.line.time().shift, raw_before.shift);
            }
        }
    }

    #[test]
    fn no_entry_takes_more_of_a_grace_than_the_time_that_passes(history in history()) {
        let mut teller = Teller::new();
        for moment in &history {
            let (before, at) = (graces(&teller.line), teller.line.at());
            teller.tell(moment);
            let after = graces(&teller.line);
            let passed = teller.line.at().since(at);
            for (ticket, left) in before {
                let (left, now) = (left - passed, after.get(&ticket));
                let keeps = now.is_none_or(|now| *now >= left || left <= 0);
                prop_assert!(keeps, "{:?} had {} ns and has {:?}", ticket, left, now);
            }
        }
    }

    #[test]
    fn a_restored_line_goes_on_as_if_nothing_had_happened(
        history in history(),
        cut in any::<prop::sample::Index>(),
    ) {
        let entries = entries(&history);
        let (before, after) = entries.split_at(cut.index(entries.len()));
        let mut line = line_of(before);
        let mut again = stored_and_restored(&line).ok_or_else(|| TestCaseError::fail("it was stored"))?;
        prop_assert_eq!(digest(&again), digest(&line));
        for (stored, entry) in after {
            let later = At(line.at().0 + 400 * SECOND);
            prop_assert_eq!(decide(&again, later), decide(&line, later));
            let seq = Seq(line.seq().0 + 1);
            let change = line.apply(seq, *stored, entry);
            prop_assert_eq!(again.apply(seq, *stored, entry), change);
            prop_assert_eq!(digest(&again), digest(&line), "at {:?}", line.seq());
            prop_assert_eq!(again.head(), line.head());
        }
        sound(&again)?;
    }

    #[test]
    fn the_same_history_has_the_same_digest_and_another_one_another(
        history in history(),
        cut in any::<prop::sample::Index>(),
    ) {
        let run = |history| digest(&line_of(&entries(history)));
        prop_assert_eq!(run(&history), run(&history));
        prop_assert_ne!(run(&history), run(&history[..cut.index(history.len())]));
    }
}

fn stored_and_restored(line: &Line) -> Option<Line> {
    let tickets = (0..).map(Ticket);
    let places = tickets.zip(line.places()).map(|(t, place)| (*place, line.grant(t).cloned()));
    Line::restore(line.head(), places)
}

/// For how many nanoseconds more the place is kept of each who waits and is absent.
fn graces(line: &Line) -> BTreeMap<Ticket, i64> {
    let running = line.graces().running(line.at());
    let waiting = line.waiting().iter();
    let absent = waiting.filter_map(|ticket| Some((ticket, line.place(ticket)?.absent()?)));
    let left = |since: At| since.plus_seconds(line.grace_seconds(since)).since(running);
    absent.map(|(ticket, since)| (ticket, left(since))).collect()
}

/// Asserts that what is derived is what the places say.
fn sound(line: &Line) -> Result<(), TestCaseError> {
    let places = || (0..).map(Ticket).zip(line.places());
    let tickets = |is: &dyn Fn(Standing, bool) -> bool| -> Vec<Ticket> {
        let those = places().filter(|(_, place)| is(place.standing, place.absent().is_none()));
        those.map(|(ticket, _)| ticket).collect()
    };
    let waiting = tickets(&|standing, _| standing == Standing::Waiting);
    prop_assert!(line.waiting().iter().eq(waiting.iter().copied()));
    let here = tickets(&|standing, here| standing == Standing::Waiting && here);
    prop_assert!(line.present().iter().eq(here));

    let mut unused: Vec<Ticket> = line.unused().iter().map(|(_, ticket)| *ticket).collect();
    unused.sort();
    prop_assert_eq!(unused, tickets(&|standing, _| standing == Standing::Granted));
    let mut inside: Vec<Ticket> = line.inside().iter().map(|(_, ticket)| *ticket).collect();
    inside.sort();
    prop_assert_eq!(inside, tickets(&|standing, _| standing == Standing::Inside));
    let granted: Vec<Ticket> =
        places().map(|(ticket, _)| ticket).filter(|t| line.grant(*t).is_some()).collect();
    prop_assert_eq!(line.admitted(), granted.len());
    let without = tickets(&|standing, _| standing == Standing::Waiting);
    prop_assert!(without.iter().all(|ticket| line.grant(*ticket).is_none()), "who waits has none");

    for (index, id) in line.nodes().ids().iter().enumerate() {
        let held = places().filter(|(_, place)| {
            let held = matches!(place.standing, Standing::Waiting | Standing::Granted);
            place.node.0 as usize == index && place.absent().is_none() && held
        });
        let held = u32::try_from(held.count())?;
        let said = line.nodes().holding().find(|(node, _)| node == id).map_or(0, |(_, held)| held);
        prop_assert_eq!(said, held, "{:?}", id);
    }
    for (ticket, place) in places() {
        prop_assert_eq!(line.ticket(place.visitor), Some(ticket));
    }
    sound_graces(line)
}

fn sound_graces(line: &Line) -> Result<(), TestCaseError> {
    let places = || (0..).map(Ticket).zip(line.places());
    let running = line.graces().running(line.at());
    let mut noted: Vec<(At, Ticket)> = line.graces().longest_absent().collect();
    prop_assert!(noted.is_sorted_by_key(|(since, _)| *since));
    noted.sort();
    for (ticket, place) in places().filter(|(ticket, _)| line.waiting().contains(*ticket)) {
        if let Some(since) = place.absent() {
            prop_assert!(noted.binary_search(&(since, ticket)).is_ok(), "a grace runs");
            prop_assert!(since <= running);
        }
    }
    if line.presence().state == Presence::Off {
        let is_awaited = |standing| matches!(standing, Standing::Waiting | Standing::Granted);
        let absent = places().find(|(_, it)| is_awaited(it.standing) && it.absent().is_some());
        prop_assert_eq!(absent, None, "nobody is absent while presence is off");
    }
    let longer = line.graces().longer();
    prop_assert!(longer.is_sorted_by(|one, next| one.0 <= next.0 && one.1 > next.1));
    prop_assert!(longer.iter().all(|(_, seconds)| *seconds > line.policy().reconnect_seconds));
    prop_assert!(longer.iter().all(|(noted, _)| *noted <= running));
    Ok(())
}
