//! Random histories: few visitors, nodes and grants, so that they meet, stored by servers whose clocks
//! differ, and decided by workers of whom some are wrong about the time.

use anteroom::queue::admit::{Due, decide};
use anteroom::queue::event::{
    Admitted, At, Configured, Decision, Disconnected, Entry, Facts, Join, Joined, JoinedBy, Jti,
    Left, Level, Millis, NodeId, Presence, PublicKey, Reconnected, Redeemed, ReleaseReason,
    Released, Removed, Return, SecretId, Seq, Setting, State, VisitorId,
};
use anteroom::queue::line::{Change, Line};
use anteroom::queue::policy::{Absent, Policy};
use proptest::prelude::*;

use crate::story::{WORKER, entry_of, fresh};

const SECOND: i64 = 1_000_000_000;
/// When a history begins, by a clock that goes evenly.
const BEGINS: i64 = 1_000 * SECOND;

/// What happens next, and when.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// Nanoseconds since what happened before, by a clock that goes evenly.
    pub(crate) gap: i64,
    /// By how many nanoseconds the clock of the server is off that leads from here on, if another does.
    pub(crate) leader: Option<i64>,
    pub(crate) act: Act,
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A node writes, or somebody writes what can't be read.
    Say(Entry),
    /// A node asserts seats, and had been told this many entries less than it could have been, if it were
    /// of tomorrow.
    Assert { node: NodeId, visitors: Vec<Return>, back: u64 },
    /// Admission writes this; wrongly fenced, based on an older entry, or wrong about the time.
    Decide { prev_off: u64, basis_back: u64, now: Now, facts: Facts },
    /// A worker that knows what it does writes what is due.
    Due,
}

/// What time a decision states.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Now {
    /// So many nanoseconds more than an even clock has counted since the last decision.
    Off(i64),
    Exactly(Millis),
}

/// One entry of a history, and what it did.
pub(crate) struct Told {
    pub(crate) stored: At,
    pub(crate) entry: Entry,
    pub(crate) change: Change,
}

/// Tells a history, and folds it meanwhile: what comes next depends on what is.
pub(crate) struct Teller {
    pub(crate) line: Line,
    even: i64,
    /// By how much the leader's clock is off the even one, and the log's time was at the last decision.
    server: i64,
    worker: i64,
    /// Whether another server leads since the last decision.
    is_apart: bool,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self { line: Line::default(), even: BEGINS, server: 0, worker: 0, is_apart: false }
    }

    pub(crate) fn tell(&mut self, moment: &Moment) -> Told {
        self.even += moment.gap;
        if let Some(off) = moment.leader {
            (self.server, self.is_apart) = (off, true);
        }
        let stored = At(self.even + self.server);
        let entry = self.entry(stored, &moment.act);
        let change = self.line.apply(Seq(self.line.seq().0 + 1), stored, &entry);
        if matches!(entry, Entry::Decided(_)) && change.void_entry.is_none() {
            (self.worker, self.is_apart) = (self.line.at().0 - self.even, false);
        }
        Told { stored, entry, change }
    }

    fn entry(&self, stored: At, act: &Act) -> Entry {
        let line = &self.line;
        let counted = self.even + self.worker;
        match act {
            Act::Say(entry) => entry.clone(),
            Act::Assert { node, visitors, back } => {
                let basis = Some(Seq((line.seq().0 + 2).saturating_sub(*back)));
                Entry::Reconnected(Reconnected { node: *node, basis, visitors: visitors.clone() })
            }
            Act::Decide { prev_off, basis_back, now, facts } => Entry::Decided(Decision {
                prev: Seq(line.last_decision().0 + prev_off),
                basis: Seq(line.seq().0.saturating_sub(*basis_back)),
                now: match *now {
                    Now::Off(off) => Millis::from(At(counted + off)),
                    Now::Exactly(now) => now,
                },
                worker: WORKER,
                facts: facts.clone(),
            }),
            // Before all else it is said what time it is, where the servers do not agree.
            Act::Due if self.is_apart => fresh(line, At(counted), time()),
            Act::Due => {
                let now = line.time().raw(stored).max(line.at());
                let due = decide(line, now);
                if matches!(due, Due::Nothing(_)) && line.time().is_withheld() {
                    return fresh(line, now, time());
                }
                // Nothing is due: an entry that nobody can read changes nothing either.
                entry_of(line, due, now).unwrap_or(Entry::Void { fenced: false })
            }
        }
    }
}

/// A history as it stands in a log.
pub(crate) fn entries(history: &[Moment]) -> Vec<(At, Entry)> {
    let mut teller = Teller::new();
    let told = history.iter().map(|moment| teller.tell(moment));
    told.map(|told| (told.stored, told.entry)).collect()
}

fn time() -> Facts {
    Facts::Configured(vec![Configured { by: "schedule".to_owned(), what: Setting::Time }])
}

pub(crate) fn history() -> impl Strategy<Value = Vec<Moment>> {
    // Often no time at all passes from entry to entry, sometimes more than a grace, and often whole seconds:
    // what is to be exactly at some time is then.
    let gap = prop_oneof![
        3 => Just(0),
        3 => 0..3 * SECOND,
        3 => (0..6i64).prop_map(|seconds| seconds * SECOND),
        1 => 0..100 * SECOND,
        1 => (0..100i64).prop_map(|seconds| seconds * SECOND),
    ];
    const FIFTY_YEARS: i64 = 50 * 365 * 86_400 * SECOND;
    let leader = prop_oneof![
        24 => Just(None),
        1 => (-5 * SECOND..5 * SECOND).prop_map(Some),
        1 => (-5..6i64).prop_map(|seconds| Some(seconds * SECOND)),
        2 => (-300 * SECOND..300 * SECOND).prop_map(Some),
        1 => prop::sample::select(vec![Some(0), Some(FIFTY_YEARS), Some(-FIFTY_YEARS)]),
    ];
    let moment = (gap, leader, act());
    let moment = moment.prop_map(|(gap, leader, act)| Moment { gap, leader, act });
    prop::collection::vec(moment, 1..80)
}

fn act() -> impl Strategy<Value = Act> {
    let now = prop_oneof![
        12 => Just(Now::Off(0)),
        2 => (-10 * SECOND..10 * SECOND).prop_map(Now::Off),
        1 => prop::sample::select(vec![Millis(0), Millis((1 << 53) - 1)]).prop_map(Now::Exactly),
    ];
    let decide = (prop_oneof![12 => Just(0u64), 1 => 1..3u64], 0..4u64, now, facts());
    let decide = decide.prop_map(|(prev_off, basis_back, now, facts)| Act::Decide {
        prev_off,
        basis_back,
        now,
        facts,
    });
    let say = |entry: Entry| Act::Say(entry);
    let back = (node(), some(back())).prop_map(|(node, visitors)| Reconnected {
        node,
        basis: None,
        visitors,
    });
    prop_oneof![
        3 => (node(), some(join())).prop_map(|(node, visitors)| Entry::Joined(Joined { node, visitors }))
            .prop_map(say),
        3 => back.prop_map(|back| Act::Say(Entry::Reconnected(back))),
        2 => (node(), some(self::back()), prop_oneof![0..8u64, 8..40u64])
            .prop_map(|(node, visitors, back)| Act::Assert { node, visitors, back }),
        5 => (node(), some((visitor(), 0..3u64))).prop_map(|(node, visitors)| {
            Act::Say(Entry::Disconnected(Disconnected { node, visitors }))
        }),
        1 => some((visitor(), hand())).prop_map(|left| {
            let left = left.into_iter().map(|(visitor, hand)| Left { visitor, hand });
            Act::Say(Entry::Left(left.collect()))
        }),
        1 => any::<bool>().prop_map(|fenced| Act::Say(Entry::Void { fenced })),
        8 => decide,
        6 => Just(Act::Due),
    ]
}

fn join() -> impl Strategy<Value = Join> {
    let by = prop::option::of(prop::sample::select(vec![JoinedBy::Key, JoinedBy::Subject]));
    let net = prop::option::weighted(0.2, any::<[u8; 8]>());
    let lane = prop_oneof![3 => Just(0u8), 1 => 1..8u8];
    (visitor(), 0..3u64, opened(), lane, by, net).prop_map(
        |(visitor, socket, opened, lane, by, net)| Join { visitor, socket, opened, lane, by, net },
    )
}

fn back() -> impl Strategy<Value = Return> {
    (visitor(), 0..3u64, opened(), hand()).prop_map(|(visitor, socket, opened, hand)| Return {
        visitor,
        socket,
        opened,
        hand,
    })
}

fn opened() -> impl Strategy<Value = u32> {
    prop_oneof![8 => Just(0u32), 8 => 1..5u32, 1 => Just(u32::MAX)]
}

fn hand() -> impl Strategy<Value = u32> {
    prop_oneof![8 => Just(0u32), 4 => Just(1u32), 2 => Just(2u32), 1 => Just(u32::MAX)]
}

fn facts() -> impl Strategy<Value = Facts> {
    let kid = || prop::sample::select(vec!["k1".to_owned(), "k2".to_owned()]);
    let seconds = || prop_oneof![1..30u32, 100..600u32];
    let reasons = [
        ReleaseReason::Released,
        ReleaseReason::SessionOver,
        ReleaseReason::Lapsed,
        ReleaseReason::Missed,
    ];
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
    // To the level that is tried, or too far.
    let raised = prop::sample::select(vec![3, 3, 5, u16::MAX]).prop_map({
        let by = by.clone();
        move |level| Facts::Raised(Level(level), by.clone())
    });
    let configured = setting().prop_map(move |what| Configured { by: by.clone(), what });
    prop_oneof![
        8 => some(configured).prop_map(Facts::Configured),
        1 => raised,
        8 => some(admitted).prop_map(Facts::Admitted),
        8 => some(redeemed).prop_map(Facts::Redeemed),
        6 => some(released).prop_map(Facts::Released),
        4 => some(visitor()).prop_map(Facts::Expired),
        2 => some(removed).prop_map(Facts::Removed),
        4 => some(node()).prop_map(Facts::NodeLost),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    let instant = || prop::option::of((500..3_000i64).prop_map(|second| At(second * SECOND)));
    let absent = prop::sample::select(vec![Absent::Hold, Absent::Hold, Absent::Admit]);
    let limits = (1..6_000u32, prop::option::of(1..4u32), prop_oneof![1..20u32, 1..300u32]);
    let told = (0..3u8, any::<bool>());
    let policy = (limits, instant(), instant(), absent, told).prop_map(
        |((rate_per_minute, max_inside, reconnect_seconds), opens_at, closes_at, absent, told)| {
            let (missed_turns, titled) = told;
            let door = if titled { r#"{"title":"Läuterung 🎟"}"# } else { "{}" };
            Policy {
                opens_at,
                closes_at,
                rate_per_minute,
                max_inside,
                token_seconds: 30,
                reconnect_seconds,
                absent,
                missed_turns,
                door: door.to_owned(),
                ..Policy::default()
            }
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
        4 => policy.prop_map(Setting::Policy),
        5 => state,
        1 => any::<[u8; 32]>()
            .prop_map(|x| Setting::Keys(vec![PublicKey { kid: "k1".to_owned(), x }])),
        2 => rate,
        3 => (1..200u32).prop_map(|seconds| Setting::Outage { seconds }),
        3 => prop::sample::select(vec![Presence::On, Presence::Off]).prop_map(Setting::Presence),
        1 => any::<[u8; 16]>().prop_map(|id| Setting::Secret(SecretId(id))),
        2 => Just(Setting::Time),
    ]
}

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
