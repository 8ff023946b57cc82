//! Random histories: nothing panics, the parts of a line agree with each other, and a line that was
//! stored and restored goes on as if nothing had happened.

use anteroom::queue::admit::decide;
use anteroom::queue::digest::digest;
use anteroom::queue::event::{
    Admitted, At, Configured, Decision, Entry, Facts, Jti, NodeId, PublicKey, Redeemed,
    ReleaseReason, Released, Removed, Seated, Seq, Setting, State, Ticket, VisitorId,
};
use anteroom::queue::line::{Line, Standing, VoidEntry};
use anteroom::queue::policy::{Absent, Policy};
use proptest::prelude::*;

use crate::story::entry_of;

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A node writes, or somebody writes what can't be read.
    Say(Entry),
    /// Admission writes this; wrongly fenced or based on an older entry, as the numbers say.
    Decide { prev_off: u64, basis_back: u64, facts: Facts },
    /// Admission writes what is due.
    Due,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn after_every_entry_the_parts_of_a_line_agree(history in history()) {
        let mut line = Line::default();
        for (gap, act) in &history {
            let change = step(&mut line, *gap, act);
            if matches!(act, Act::Due) {
                prop_assert!(change.void.is_empty(), "what is due counts: {:?}", change);
                prop_assert!(matches!(change.void_entry, None | Some(VoidEntry::Unreadable)));
            }
            sound(&line)?;
        }
    }

    #[test]
    fn a_restored_line_goes_on_as_if_nothing_had_happened(
        history in history(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (before, after) = history.split_at(cut.index(history.len()));
        let mut line = Line::default();
        for (gap, act) in before {
            step(&mut line, *gap, act);
        }
        let mut again = stored_and_restored(&line).ok_or_else(|| TestCaseError::fail("it was stored"))?;
        prop_assert_eq!(digest(&again), digest(&line));
        for (gap, act) in after {
            let later = At(line.at().0 + 400_000_000_000);
            prop_assert_eq!(decide(&again, later), decide(&line, later));
            let change = step(&mut line, *gap, act);
            prop_assert_eq!(step(&mut again, *gap, act), change);
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
        let run = |history: &[(i64, Act)]| {
            let mut line = Line::default();
            history.iter().for_each(|(gap, act)| drop(step(&mut line, *gap, act)));
            digest(&line)
        };
        prop_assert_eq!(run(&history), run(&history));
        prop_assert_ne!(run(&history), run(&history[..cut.index(history.len())]));
    }
}

fn step(line: &mut Line, gap: i64, act: &Act) -> anteroom::queue::line::Change {
    let (at, entry) = next(line, gap, act);
    line.apply(Seq(line.seq().0 + 1), at, &entry)
}

/// The entry that comes next, and when.
pub(crate) fn next(line: &Line, gap: i64, act: &Act) -> (At, Entry) {
    let at = At(line.at().0 + gap);
    let entry = match act {
        Act::Say(entry) => entry.clone(),
        Act::Decide { prev_off, basis_back, facts } => Entry::Decided(Decision {
            prev: Seq(line.last_decision().0 + prev_off),
            basis: Seq(line.seq().0.saturating_sub(*basis_back)),
            facts: facts.clone(),
        }),
        Act::Due => {
            let due = decide(line, at.max(line.at()));
            // Nothing is due: an entry that nobody can read changes nothing either.
            entry_of(line, due).unwrap_or(Entry::Void { fenced: false })
        }
    };
    (at, entry)
}

fn stored_and_restored(line: &Line) -> Option<Line> {
    let tickets = (0..).map(Ticket);
    let places = tickets.zip(line.places()).map(|(t, place)| (*place, line.grant(t).cloned()));
    Line::restore(line.head(), places)
}

/// Asserts that what is derived is what the places say.
fn sound(line: &Line) -> Result<(), TestCaseError> {
    let places = || (0..).map(Ticket).zip(line.places());
    let tickets = |is: &dyn Fn(Standing, bool) -> bool| -> Vec<Ticket> {
        let those = places().filter(|(_, place)| is(place.standing, place.absent.is_none()));
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

    for (index, id) in line.nodes().ids().iter().enumerate() {
        let held = places().filter(|(_, place)| {
            let held = matches!(place.standing, Standing::Waiting | Standing::Granted);
            place.node.0 as usize == index && place.absent.is_none() && held
        });
        let held = u32::try_from(held.count())?;
        let said = line.nodes().holding().find(|(node, _)| node == id).map_or(0, |(_, held)| held);
        prop_assert_eq!(said, held, "{:?}", id);
    }

    let mut graces: Vec<(At, Ticket)> = line.graces().longest_absent().collect();
    prop_assert!(graces.is_sorted_by_key(|(since, _)| *since));
    graces.sort();
    for (ticket, place) in places().filter(|(ticket, _)| line.waiting().contains(*ticket)) {
        if let Some(since) = place.absent {
            prop_assert!(graces.binary_search(&(since, ticket)).is_ok(), "a grace runs");
            prop_assert!(since <= line.graces().running(line.at()));
        }
    }
    for (ticket, place) in places() {
        prop_assert_eq!(line.ticket(place.visitor), Some(ticket));
    }
    Ok(())
}

pub(crate) fn history() -> impl Strategy<Value = Vec<(i64, Act)>> {
    // Nanoseconds from entry to entry: often none, sometimes back, up to more than a grace.
    let gap = prop_oneof![
        3 => Just(0),
        6 => 0..3_000_000_000i64,
        2 => 0..100_000_000_000i64,
        1 => -5_000_000_000..0i64,
    ];
    prop::collection::vec((gap, act()), 1..80)
}

fn act() -> impl Strategy<Value = Act> {
    let decide = (prop_oneof![12 => Just(0u64), 1 => 1..3u64], 0..4u64, facts())
        .prop_map(|(prev_off, basis_back, facts)| Act::Decide { prev_off, basis_back, facts });
    prop_oneof![
        3 => seated().prop_map(|seated| Act::Say(Entry::Joined(seated))),
        4 => seated().prop_map(|seated| Act::Say(Entry::Reconnected(seated))),
        5 => seated().prop_map(|seated| Act::Say(Entry::Disconnected(seated))),
        1 => some(visitor()).prop_map(|visitors| Act::Say(Entry::Left(visitors))),
        1 => any::<bool>().prop_map(|fenced| Act::Say(Entry::Void { fenced })),
        8 => decide,
        4 => Just(Act::Due),
    ]
}

fn facts() -> impl Strategy<Value = Facts> {
    let kid = || prop::sample::select(vec!["k1".to_owned(), "k2".to_owned()]);
    let seconds = || prop_oneof![1..30u32, 100..600u32];
    let reasons = [ReleaseReason::Released, ReleaseReason::SessionOver, ReleaseReason::Lapsed];
    let by = "ops".to_owned();
    let admitted = (grant(), kid(), seconds())
        .prop_map(|((visitor, jti), kid, seconds)| Admitted { visitor, jti, kid, seconds });
    let redeemed = (grant(), kid(), seconds(), any::<Option<[u8; 32]>>()).prop_map(
        |((visitor, jti), kid, seconds, key)| Redeemed { visitor, jti, kid, seconds, key },
    );
    let released = (grant(), prop::sample::select(reasons.to_vec())).prop_map({
        let by = by.clone();
        move |((visitor, jti), reason)| Released { visitor, jti, reason, by: by.clone() }
    });
    let removed = visitor().prop_map({
        let by = by.clone();
        move |visitor| Removed { visitor, by: by.clone(), reason: None }
    });
    let configured = setting().prop_map(move |what| Configured { by: by.clone(), what });
    prop_oneof![
        4 => some(configured).prop_map(Facts::Configured),
        4 => some(admitted).prop_map(Facts::Admitted),
        4 => some(redeemed).prop_map(Facts::Redeemed),
        2 => some(released).prop_map(Facts::Released),
        2 => some(visitor()).prop_map(Facts::Expired),
        1 => some(removed).prop_map(Facts::Removed),
        2 => some(node()).prop_map(Facts::NodeLost),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    let instant = || prop::option::of((0..2_000i64).prop_map(|second| At(second * 1_000_000_000)));
    let absent = prop::sample::select(vec![Absent::Hold, Absent::Hold, Absent::Admit]);
    let limits = (1..6_000u32, prop::option::of(1..4u32), 1..200u32);
    let policy = (limits, instant(), instant(), absent).prop_map(
        |((rate_per_minute, max_inside, reconnect_seconds), opens_at, closes_at, absent)| Policy {
            opens_at,
            closes_at,
            rate_per_minute,
            max_inside,
            reconnect_seconds,
            absent,
            ..Policy::default()
        },
    );
    let rate = prop::option::of(1..6_000u32)
        .prop_map(|per_minute| Setting::Rate { per_minute, loads: vec![900] });
    let states = vec![
        State::Open,
        State::Open,
        State::Scheduled,
        State::Paused,
        State::Closed,
        State::Deleted,
    ];
    let state = (prop::sample::select(states), any::<bool>())
        .prop_map(|(state, told)| Setting::State(state, told.then(|| "a short break".to_owned())));
    prop_oneof![
        2 => policy.prop_map(Setting::Policy),
        4 => state,
        1 => any::<[u8; 32]>()
            .prop_map(|x| Setting::Keys(vec![PublicKey { kid: "k1".to_owned(), x }])),
        2 => rate,
        3 => (1..200u32).prop_map(|seconds| Setting::Outage { seconds }),
    ]
}

fn seated() -> impl Strategy<Value = Seated> {
    (node(), some((visitor(), 0..3u64))).prop_map(|(node, visitors)| Seated { node, visitors })
}

/// Few visitors, nodes and grants, so that they meet.
fn visitor() -> impl Strategy<Value = VisitorId> {
    (0..6u8).prop_map(|n| VisitorId([n; 16]))
}

/// A visitor and most often the name that their grant has.
fn grant() -> impl Strategy<Value = (VisitorId, Jti)> {
    (visitor(), prop_oneof![9 => Just(0u8), 1 => Just(1u8)])
        .prop_map(|(visitor, off)| (visitor, Jti(visitor.0.map(|byte| byte + off))))
}

fn node() -> impl Strategy<Value = NodeId> {
    (100..103u8).prop_map(|n| NodeId([n; 16]))
}

fn some<S: Strategy>(fact: S) -> prop::collection::VecStrategy<S> {
    prop::collection::vec(fact, 1..4)
}
