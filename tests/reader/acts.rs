//! Random acts, of few visitors, sockets and grants, so that they meet; and the clocks of those who write
//! and store them.

use anteroom::queue::digest::hex;
use anteroom::queue::event::{At, Level, Millis};
use anteroom::queue::line::Line;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::TRIED;
use crate::due::due;
use crate::spelling::Odd;

const SECOND: i64 = 1_000_000_000;
/// When the first entry was stored: 2026-11-22T20:00:00Z.
pub(crate) const START: i64 = 1_795_377_600 * SECOND;

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    /// Nanoseconds since the entry before, by a clock that goes evenly.
    gap: i64,
    /// By how many nanoseconds the clock of the server is off that leads from here on, if another does.
    leader: Option<i64>,
    what: What,
    version: Version,
    odd: Odd,
}

#[derive(Clone, Debug)]
enum What {
    /// A node writes; an assertion had been told so many entries less than it could have been, were it of
    /// tomorrow.
    Node { node: u8, kind: &'static str, facts: Vec<Value>, back: Option<u64> },
    /// Admission writes.
    Decision { kind: &'static str, facts: Vec<Value>, rests: Rests },
    /// The log is raised, if to one level more than it has.
    Raise { level: u16, rests: Rests },
    /// Admission writes what is due.
    Due,
}

/// The version of an entry.
#[derive(Clone, Copy, Debug)]
enum Version {
    First,
    /// Of the log's level.
    OfLog,
    /// Of the level that is tried, whatever the log's is.
    Tried,
}

/// What a decision rests on.
#[derive(Clone, Copy, Debug)]
struct Rests {
    /// How far `prev` is off, and how old what was decided on is.
    prev_off: u64,
    basis_back: u64,
    now: Now,
}

/// What time a decision states.
#[derive(Clone, Copy, Debug)]
enum Now {
    /// So many nanoseconds more than an even clock has counted since the last decision.
    Off(i64),
    Exactly(Millis),
}

/// A clock that goes evenly, the leader's, and a worker's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    even: i64,
    server: i64,
    worker: i64,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { even: START, server: 0, worker: 0 }
    }
}

impl Clocks {
    /// When the next entry is stored.
    pub(crate) fn pass(&mut self, act: &Act) -> At {
        self.even += act.gap;
        self.server = act.leader.unwrap_or(self.server);
        self.stored()
    }

    fn stored(&self) -> At {
        At(self.even + self.server)
    }

    /// A decision was folded: the log's time is the worker's.
    pub(crate) fn hear(&mut self, line: &Line) {
        self.worker = line.at().0 - self.even;
    }

    fn state(&self, now: Now) -> Millis {
        match now {
            Now::Off(off) => Millis::from(At(self.even + self.worker + off)),
            Now::Exactly(now) => now,
        }
    }
}

impl Act {
    /// What a node writes so many nanoseconds after the entry before.
    pub(crate) fn said(gap: i64, kind: &'static str, facts: Vec<Value>) -> Self {
        Self::plain(gap, What::Node { node: 100, kind, facts, back: None })
    }

    /// What admission writes who had folded all but so many entries.
    pub(crate) fn decided(
        gap: i64,
        kind: &'static str,
        facts: Vec<Value>,
        basis_back: u64,
    ) -> Self {
        let rests = Rests { prev_off: 0, basis_back, now: Now::Off(0) };
        Self::plain(gap, What::Decision { kind, facts, rests })
    }

    fn plain(gap: i64, what: What) -> Self {
        Self { gap, leader: None, what, version: Version::First, odd: Odd::Nothing }
    }

    /// Subject and payload.
    pub(crate) fn message(&self, line: &Line, clocks: &Clocks) -> (String, Vec<u8>) {
        let (writer, kind, mut entry) = self.entry(line, clocks);
        if entry["level"].is_null() {
            let version = match self.version {
                Version::First => Level::FIRST,
                Version::OfLog => line.level(),
                Version::Tried => TRIED,
            };
            entry["v"] = json!(version.0);
        }
        let kind = if self.odd == Odd::Kind { "vanished" } else { kind };
        let more = if self.odd == Odd::Subject { ".more" } else { "" };
        (format!("{writer}.{kind}{more}"), self.odd.spell(&entry.to_string()))
    }

    fn entry(&self, line: &Line, clocks: &Clocks) -> (&'static str, &'static str, Value) {
        let decision = |rests: &Rests| {
            json!({
                "v": 2,
                "prev": line.last_decision().0 + rests.prev_off,
                "basis": line.seq().0.saturating_sub(rests.basis_back),
                "now": clocks.state(rests.now).0,
                "worker": id(9),
            })
        };
        match &self.what {
            What::Node { node, kind, facts, back } => {
                let mut entry = json!({"v": 2, "facts": facts});
                if *kind != "left" {
                    entry["node"] = json!(id(*node));
                }
                if let Some(back) = back {
                    entry["basis"] = json!((line.seq().0 + 2).saturating_sub(*back));
                }
                ("node", kind, entry)
            }
            What::Decision { kind, facts, rests } => {
                ("admission", kind, with(decision(rests), "facts", json!(facts)))
            }
            What::Raise { level, rests } => {
                let entry = with(decision(rests), "level", json!(level));
                ("admission", "configured", with(entry, "by", json!("ops")))
            }
            What::Due => {
                let (kind, entry) = due(line, clocks.stored());
                ("admission", kind, entry)
            }
        }
    }
}

pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
    // Often no time at all passes from entry to entry, sometimes more than a grace, and often whole seconds:
    // what is to be exactly at some time is then.
    let gap = prop_oneof![
        3 => Just(0),
        3 => 0..3 * SECOND,
        3 => (0..6i64).prop_map(|seconds| seconds * SECOND),
        1 => 0..100 * SECOND,
        1 => (0..100i64).prop_map(|seconds| seconds * SECOND),
    ];
    let leader = prop_oneof![
        24 => Just(None),
        1 => (-5 * SECOND..5 * SECOND).prop_map(Some),
        1 => (-5..6i64).prop_map(|seconds| Some(seconds * SECOND)),
        2 => (-300 * SECOND..300 * SECOND).prop_map(Some),
        1 => Just(Some(0)),
    ];
    let odd = prop_oneof![
        12 => Just(Odd::Nothing),
        1 => prop::sample::select(Odd::VALID.to_vec()),
        1 => prop::sample::select(Odd::VOID.to_vec()),
    ];
    let version = prop_oneof![
        12 => Just(Version::First),
        8 => Just(Version::OfLog),
        1 => Just(Version::Tried),
    ];
    let act = (gap, leader, what(), version, odd)
        .prop_map(|(gap, leader, what, version, odd)| Act { gap, leader, what, version, odd });
    prop::collection::vec(act, 1..200)
}

fn rests() -> impl Strategy<Value = Rests> {
    let prev_off = prop_oneof![15 => Just(0u64), 1 => 1..3u64];
    let now = prop_oneof![
        12 => Just(Now::Off(0)),
        2 => (-10 * SECOND..10 * SECOND).prop_map(Now::Off),
        1 => prop::sample::select(vec![Millis(0), Millis((1 << 53) - 1)]).prop_map(Now::Exactly),
        1 => Just(Now::Exactly(Millis(10_413_792_000_000))),
    ];
    (prev_off, 0..4u64, now).prop_map(|(prev_off, basis_back, now)| Rests {
        prev_off,
        basis_back,
        now,
    })
}

fn what() -> impl Strategy<Value = What> {
    let decision = (rests(), decided());
    let decision =
        decision.prop_map(|(rests, (kind, facts))| What::Decision { kind, facts, rests });
    let said = (100..103u8, said());
    let said = said.prop_map(|(node, (kind, facts))| What::Node { node, kind, facts, back: None });
    let back_by = prop_oneof![0..8u64, 8..60u64];
    let asserted = (100..103u8, some(back()), back_by).prop_map(|(node, facts, back)| What::Node {
        node,
        kind: "reconnected",
        facts,
        back: Some(back),
    });
    // 4 would halt a reader of a log that has level 3.
    let raise = (prop::sample::select(vec![2, 3, 3, 3, 5, 65_535]), rests());
    let raise = raise.prop_map(|(level, rests)| What::Raise { level, rests });
    prop_oneof![
        17 => said,
        5 => asserted,
        30 => decision,
        2 => raise,
        8 => Just(What::Due),
    ]
}

fn said() -> impl Strategy<Value = (&'static str, Vec<Value>)> {
    let gone =
        || (visitor(), 0..3u8).prop_map(|(who, socket)| json!({"visitor": who, "socket": socket}));
    let left =
        (visitor(), hand()).prop_map(|(who, hand)| maybe(json!({"visitor": who}), "hand", hand));
    prop_oneof![
        6 => some(join()).prop_map(|facts| ("joined", facts)),
        4 => some(back()).prop_map(|facts| ("reconnected", facts)),
        6 => some(gone()).prop_map(|facts| ("disconnected", facts)),
        1 => some(left).prop_map(|facts| ("left", facts)),
    ]
}

fn join() -> impl Strategy<Value = Value> {
    let lane = prop_oneof![20 => Just(None), 8 => (1..8u64).prop_map(Some), 1 => Just(Some(8))];
    let by = prop::option::weighted(0.2, prop::sample::select(vec!["key", "subject"]));
    let net = prop::option::weighted(0.2, any::<[u8; 8]>());
    (visitor(), 0..3u8, opened(), lane, by, net).prop_map(|(who, socket, opened, lane, by, net)| {
        let fact = json!({"visitor": who, "socket": socket});
        let fact = maybe(maybe(fact, "opened", opened), "lane", lane);
        maybe(maybe(fact, "by", by), "net", net.map(|net| hex(&net)))
    })
}

fn back() -> impl Strategy<Value = Value> {
    (visitor(), 0..3u8, opened(), hand()).prop_map(|(who, socket, opened, hand)| {
        let fact = json!({"visitor": who, "socket": socket});
        maybe(maybe(fact, "opened", opened), "hand", hand)
    })
}

/// The last that can be counted, and sometimes what is beyond either end.
fn opened() -> impl Strategy<Value = Option<u64>> {
    let ends = prop::sample::select(vec![u64::from(u32::MAX), 1 << 32, 0]);
    prop_oneof![30 => Just(None), 30 => (1..5u64).prop_map(Some), 1 => ends.prop_map(Some)]
}

fn hand() -> impl Strategy<Value = Option<u64>> {
    let ends = prop::sample::select(vec![u64::from(u32::MAX), 1 << 32, 0]);
    prop_oneof![40 => Just(None), 20 => (1..3u64).prop_map(Some), 1 => ends.prop_map(Some)]
}

fn decided() -> impl Strategy<Value = (&'static str, Vec<Value>)> {
    let jti = || prop_oneof![12 => Just(0u8), 1 => Just(1u8)];
    let seconds = || prop_oneof![3 => 1..30u32, 1 => 100..600u32];
    let kid = || prop::sample::select(vec!["k1", "k2"]);
    let grant = || {
        (0..8u8, jti(), kid(), seconds()).prop_map(|(who, off, kid, seconds)| {
            json!({"visitor": id(who), "jti": id(who + off), "kid": kid, "seconds": seconds})
        })
    };
    let used = (grant(), any::<Option<[u8; 32]>>())
        .prop_map(|(fact, key)| maybe(fact, "key", key.map(|key| hex(&key))));
    let reasons = vec!["released", "session_over", "lapsed", "missed"];
    let release = (0..8u8, jti(), prop::sample::select(reasons));
    let release = release.prop_map(|(who, off, reason)| {
        json!({"visitor": id(who), "jti": id(who + off), "reason": reason, "by": "ops"})
    });
    let named = visitor().prop_map(|who| json!({"visitor": who}));
    let removal = visitor().prop_map(|who| json!({"visitor": who, "by": "ops"}));
    let node = (100..104u8).prop_map(|node| json!({"node": id(node)}));
    prop_oneof![
        5 => some(setting()).prop_map(|facts| ("configured", facts)),
        6 => some(grant()).prop_map(|facts| ("admitted", facts)),
        10 => some(used).prop_map(|facts| ("redeemed", facts)),
        2 => some(release).prop_map(|facts| ("released", facts)),
        3 => some(named).prop_map(|facts| ("expired", facts)),
        1 => some(removal).prop_map(|facts| ("removed", facts)),
        2 => some(node).prop_map(|facts| ("node_lost", facts)),
    ]
}

fn setting() -> impl Strategy<Value = Value> {
    let states = vec!["open", "open", "scheduled", "paused", "closed", "deleted"];
    let state = (prop::sample::select(states), any::<bool>()).prop_map(|(state, told)| {
        let fact = json!({"by": "schedule", "state": state});
        if told { with(fact, "reason", json!("ein kurzer Halt 🙂")) } else { fact }
    });
    let keys = prop::collection::vec(any::<[u8; 32]>(), 1..3).prop_map(|keys| {
        let key = |x: &[u8; 32]| {
            let x = URL_SAFE_NO_PAD.encode(x);
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x})
        };
        json!({"by": "ops", "keys": keys.iter().map(key).collect::<Vec<_>>()})
    });
    let rate = prop::option::of(1..6_000u32).prop_map(|rate| {
        let loads = json!({"loads": [900, 0, 1_000]});
        json!({"by": "load", "rate": maybe(loads, "perMinute", rate)})
    });
    let outage = (1..200u32).prop_map(|it| json!({"by": "schedule", "outage": {"seconds": it}}));
    let presence = prop::sample::select(vec!["on", "off"]);
    let presence = presence.prop_map(|it| json!({"by": "schedule", "presence": it}));
    let secret = any::<u8>().prop_map(|it| json!({"by": "ops", "secret": {"id": id(it)}}));
    prop_oneof![
        4 => policy(),
        4 => state,
        1 => keys,
        2 => rate,
        3 => outage,
        3 => presence,
        1 => secret,
        1 => Just(json!({"by": "schedule", "time": {}})),
    ]
}

fn policy() -> impl Strategy<Value = Value> {
    let doors = vec![
        None,
        Some("{}"),
        Some(r#"{"title":"Läuterung 🎟","target":"/shop?seats=2","unheard_of":[null]}"#),
        Some("no JSON at all"),
        Some(r#"{"title":"\ud800"}"#),
    ];
    let door = prop::sample::select(doors);
    let absent = prop::option::of(prop::sample::select(vec!["hold", "admit"]));
    let missed =
        prop_oneof![8 => prop::option::of(0..4u32), 1 => Just(Some(10)), 1 => Just(Some(11))];
    let times = (prop::option::of(1..20u32), prop::option::of(1..300u32));
    let limits = (1..6_000u32, prop::option::of(1..4u32), times);
    (limits, absent, missed, door).prop_map(|(limits, absent, missed, door)| {
        let (rate, inside, (token, reconnect)) = limits;
        let policy = maybe(json!({"rate_per_minute": rate}), "max_inside", inside);
        // A token is good for five seconds at least.
        let policy = maybe(policy, "token_seconds", token.map(|token| token + 4));
        let policy = maybe(policy, "reconnect_seconds", reconnect);
        let policy = maybe(maybe(policy, "absent", absent), "missed_turns", missed);
        json!({"by": "ops", "policy": maybe(policy, "door", door)})
    })
}

fn visitor() -> impl Strategy<Value = String> {
    (0..8u8).prop_map(id)
}

fn maybe<T: Into<Value>>(value: Value, key: &str, inner: Option<T>) -> Value {
    match inner {
        Some(inner) => with(value, key, inner.into()),
        None => value,
    }
}

fn with(mut value: Value, key: &str, inner: Value) -> Value {
    value[key] = inner;
    value
}

fn some<S: Strategy>(fact: S) -> prop::collection::VecStrategy<S> {
    prop::collection::vec(fact, 1..4)
}

pub(crate) fn id(number: u8) -> String {
    uuid::Uuid::from_bytes([number; 16]).to_string()
}
