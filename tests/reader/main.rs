//! The reader in Python, which knows only `schemas/`, and the program come to the same.
//!
//! Random histories are written as exported logs, among them entries that are spelled oddly,
//! damaged, wrongly fenced or on a wrong subject. One Python process reads them all.
//!
//! `python3` on PATH has to have the packages of `tools/test-requirements.txt`, as `tools/test`
//! sees to.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the reader does not say fails the test"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anteroom::clock;
use anteroom::queue::digest::{Chain, digest, hex};
use anteroom::queue::event::{At, Entry, Seq, Ticket};
use anteroom::queue::line::Line;
use anteroom::wire::event::{self, Read};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

const HISTORIES: usize = 150;
/// When the first entry was stored: 2026-11-22T20:00:00Z.
const START: i64 = 1_795_377_600_000_000_000;

#[test]
fn the_reader_in_python_comes_to_the_same_line_as_the_program() {
    let folder = Folder::new();
    let mut runner = TestRunner::deterministic();
    let expected: Vec<Value> = (0..HISTORIES)
        .map(|number| {
            let acts = acts().new_tree(&mut runner).unwrap().current();
            let (export, summary) = tell(&acts);
            std::fs::write(folder.export(number), export).unwrap();
            summary
        })
        .collect();
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/reader.py");
    let exports = (0..HISTORIES).map(|number| folder.export(number));
    let output = Command::new("python3").arg(reader).arg("--file").args(exports).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), HISTORIES);
    for (number, (said, expected)) in said.iter().zip(&expected).enumerate() {
        for (key, value) in expected.as_object().unwrap() {
            let said = if key == "void" { places_of(&said[key]) } else { said[key].clone() };
            let log = std::fs::read_to_string(folder.export(number)).unwrap();
            assert_eq!(&said, value, "{key} of history {number}\n{log}");
        }
    }
    let total = |key: &str| expected.iter().map(|it| it[key].as_u64().unwrap()).sum::<u64>();
    let void: usize = expected.iter().map(|it| it["void"].as_array().unwrap().len()).sum();
    let shown = (total("admitted"), total("redeemed"), void);
    assert!(shown.0 > 200 && shown.1 > 40 && shown.2 > 2_000, "they show little: {shown:?}");
}

/// Where the reader found something void: the entry, and the fact unless it is the whole entry.
fn places_of(void: &Value) -> Value {
    let found = void.as_array().unwrap().iter();
    found.map(|found| json!([found["sequence"], found["fact"]])).collect()
}

/// The exported log of a history, and what the program makes of it.
fn tell(acts: &[Act]) -> (String, Value) {
    let (mut line, mut chain) = (Line::default(), Chain::default());
    let (mut export, mut void) = (String::new(), Vec::new());
    let mut stored = At(START);
    for act in acts {
        let seq = Seq(line.seq().0 + 1);
        stored = At(stored.0 + act.gap);
        let (subject, payload) = act.message(&line);
        let whole = format!("anteroom.log.demo.{subject}");
        writeln!(export, "{}", exported(seq, stored, &whole, &payload)).unwrap();
        let entry = match event::read(&subject, &payload) {
            Read::Entry(entry) => entry,
            Read::Void { fenced, .. } => Entry::Void { fenced },
            Read::Newer { .. } => panic!("no act is of a newer version"),
        };
        let change = line.apply(seq, stored, &entry);
        chain = chain.then(seq, stored, &whole, &payload);
        void.extend(change.void_entry.map(|_| json!([seq.0, null])));
        void.extend(change.void.iter().map(|(fact, _)| json!([seq.0, fact])));
    }
    let name = |ticket: Ticket| line.place(ticket).unwrap().visitor.to_string();
    let order: Vec<String> = line.places().iter().map(|place| place.visitor.to_string()).collect();
    let grants = (0..).map(Ticket).take(line.places().len()).filter_map(|it| line.grant(it));
    let summary = json!({
        "queue": "demo",
        "sequence": line.seq().0,
        "entries": line.seq().0,
        "visitors": line.places().len(),
        "waiting": line.waiting().len(),
        "admitted": line.grants_len(),
        "redeemed": grants.filter(|grant| grant.redeemed.is_some()).count(),
        "digest": hex(&digest(&line)),
        "chain": hex(&chain.0),
        "order": order,
        "inLine": line.waiting().iter().map(name).collect::<Vec<_>>(),
        "present": line.present().iter().map(name).collect::<Vec<_>>(),
        "void": void,
    });
    (export, summary)
}

/// One line of an exported log: a payload that is an object on one line stands there as it is.
fn exported(seq: Seq, stored: At, subject: &str, payload: &[u8]) -> String {
    let seconds = clock::rfc3339(stored.seconds());
    let fraction = stored.0.rem_euclid(1_000_000_000);
    let time = format!("{}.{fraction:09}Z", seconds.trim_end_matches('Z'));
    let text = str::from_utf8(payload).ok().filter(|text| {
        let object = text.starts_with('{') && text.ends_with('}') && !text.contains(['\n', '\r']);
        object && serde_json::from_str::<Value>(text).is_ok()
    });
    let data = text.map_or_else(
        || format!(r#""data_base64":"{}""#, STANDARD.encode(payload)),
        |text| format!(r#""data":{text}"#),
    );
    format!(r#"{{"seq":{},"time":"{time}","subject":"{subject}",{data}}}"#, seq.0)
}

/// What happens next.
#[derive(Clone, Debug)]
struct Act {
    /// Nanoseconds since the entry before; sometimes the clock goes back.
    gap: i64,
    kind: &'static str,
    facts: Vec<Value>,
    node: u8,
    /// How far `prev` is off, and how old what was decided on is.
    prev_off: u64,
    basis_back: u64,
    odd: Odd,
}

/// What is odd about how an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odd {
    Nothing,
    // Valid none the less.
    Spaced,
    Broken,
    Float,
    Escaped,
    // Void.
    Field,
    Repeated,
    Null,
    Cut,
    NotUtf8,
    Half,
    Newline,
    Version,
    Subject,
    Kind,
}

impl Act {
    /// Subject and payload.
    fn message(&self, line: &Line) -> (String, Vec<u8>) {
        let writer = if NODE_KINDS.contains(&self.kind) { "node" } else { "admission" };
        let mut entry = json!({"v": 1, "facts": self.facts});
        if writer == "admission" {
            entry["prev"] = json!(line.last_decision().0 + self.prev_off);
            entry["basis"] = json!(line.seq().0.saturating_sub(self.basis_back));
        } else if self.kind != "left" {
            entry["node"] = json!(id(self.node));
        }
        let kind = if self.odd == Odd::Kind { "vanished" } else { self.kind };
        let more = if self.odd == Odd::Subject { ".more" } else { "" };
        let subject = format!("{writer}.{kind}{more}");
        (subject, self.odd.spell(&entry.to_string()))
    }
}

impl Odd {
    fn spell(self, entry: &str) -> Vec<u8> {
        let text = match self {
            Self::Nothing | Self::Subject | Self::Kind | Self::NotUtf8 | Self::Cut => {
                entry.to_owned()
            }
            Self::Spaced => format!(" {}\t", entry.replace(',', " , ")),
            Self::Broken => entry.replacen(',', ",\n", 1),
            Self::Float => {
                entry.replace(r#""v":1"#, r#""v":1.0"#).replace(r#""socket":2"#, r#""socket":2e0"#)
            }
            Self::Escaped => entry.replace(r#""facts""#, r#""\u0066acts""#),
            Self::Field => entry.replacen('{', r#"{"shard":1,"#, 1),
            Self::Repeated => entry.replacen('{', r#"{"v":1,"#, 1),
            Self::Null => entry.replacen('{', r#"{"reason":null,"#, 1),
            Self::Half => {
                entry.replacen("by\":\"", "by\":\"\\ud800", 1).replace("node", "nod\\udc00")
            }
            Self::Newline => {
                entry.replace("\"k1\"", "\"k1\\n\"").replace("\",\"v\"", "\\n\",\"v\"")
            }
            Self::Version => entry.replace(r#""v":1"#, r#""v":0"#),
        };
        let mut bytes = text.into_bytes();
        let middle = bytes.len() / 2;
        if self == Self::NotUtf8 {
            bytes[middle] = 0xff;
        } else if self == Self::Cut {
            bytes.truncate(middle);
        }
        bytes
    }
}

const NODE_KINDS: [&str; 4] = ["joined", "reconnected", "disconnected", "left"];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let gap = prop_oneof![
        3 => Just(0),
        6 => 0..3_000_000_000i64,
        2 => 0..100_000_000_000i64,
        1 => -5_000_000_000..0i64,
    ];
    let odd = prop_oneof![
        12 => Just(Odd::Nothing),
        1 => prop::sample::select(vec![Odd::Spaced, Odd::Broken, Odd::Float, Odd::Escaped]),
        1 => prop::sample::select(vec![
            Odd::Field, Odd::Repeated, Odd::Null, Odd::Cut, Odd::NotUtf8, Odd::Half, Odd::Newline,
            Odd::Version, Odd::Subject, Odd::Kind,
        ]),
    ];
    let prev_off = prop_oneof![15 => Just(0u64), 1 => 1..3u64];
    let act = (gap, kind_and_facts(), 100..103u8, prev_off, 0..4u64, odd).prop_map(
        |(gap, (kind, facts), node, prev_off, basis_back, odd)| Act {
            gap,
            kind,
            facts,
            node,
            prev_off,
            basis_back,
            odd,
        },
    );
    prop::collection::vec(act, 1..100)
}

fn kind_and_facts() -> impl Strategy<Value = (&'static str, Vec<Value>)> {
    // Few visitors, sockets and grants, so that they meet.
    let visitor = || (0..6u8).prop_map(id);
    let jti = || prop_oneof![12 => Just(0u8), 1 => Just(1u8)];
    let seconds = || prop_oneof![1..30u32, 100..600u32];
    let kid = || prop::sample::select(vec!["k1", "k2"]);
    let seat =
        || (visitor(), 0..3u8).prop_map(|(who, socket)| json!({"visitor": who, "socket": socket}));
    let grant = || {
        (0..6u8, jti(), kid(), seconds()).prop_map(|(who, off, kid, seconds)| {
            json!({"visitor": id(who), "jti": id(who + off), "kid": kid, "seconds": seconds})
        })
    };
    let used = (grant(), any::<Option<[u8; 32]>>()).prop_map(|(mut fact, key)| {
        if let Some(key) = key {
            fact["key"] = json!(hex(&key));
        }
        fact
    });
    let release = (0..6u8, jti(), prop::sample::select(vec!["released", "session_over", "lapsed"]));
    let release = release.prop_map(|(who, off, reason)| {
        json!({"visitor": id(who), "jti": id(who + off), "reason": reason, "by": "ops"})
    });
    let named = || visitor().prop_map(|who| json!({"visitor": who}));
    let removal = visitor().prop_map(|who| json!({"visitor": who, "by": "ops"}));
    let node = (100..104u8).prop_map(|node| json!({"node": id(node)}));
    prop_oneof![
        6 => some(seat()).prop_map(|facts| ("joined", facts)),
        4 => some(seat()).prop_map(|facts| ("reconnected", facts)),
        6 => some(seat()).prop_map(|facts| ("disconnected", facts)),
        1 => some(named()).prop_map(|facts| ("left", facts)),
        4 => some(setting()).prop_map(|facts| ("configured", facts)),
        6 => some(grant()).prop_map(|facts| ("admitted", facts)),
        8 => some(used).prop_map(|facts| ("redeemed", facts)),
        2 => some(release).prop_map(|facts| ("released", facts)),
        4 => some(named()).prop_map(|facts| ("expired", facts)),
        1 => some(removal).prop_map(|facts| ("removed", facts)),
        2 => some(node).prop_map(|facts| ("node_lost", facts)),
    ]
}

fn setting() -> impl Strategy<Value = Value> {
    let policy = (1..6_000u32, prop::option::of(1..4u32), any::<bool>(), any::<bool>()).prop_map(
        |(rate, inside, title, origins)| {
            let mut policy = json!({"rate_per_minute": rate});
            if let Some(inside) = inside {
                policy["max_inside"] = json!(inside);
            }
            if title {
                policy["title"] = json!("Läuterung 🎟");
                policy["target"] = json!("/shop?seats=2");
            }
            if origins {
                policy["allowed_origins"] =
                    json!(["https://shop.example", "http://localhost:3000"]);
            }
            json!({"by": "ops", "policy": policy})
        },
    );
    let states = vec!["open", "scheduled", "paused", "closed", "deleted"];
    let state = (prop::sample::select(states), any::<bool>()).prop_map(|(state, told)| {
        let fact = json!({"by": "schedule", "state": state});
        if told { with(fact, "reason", json!("ein kurzer Halt 🙂")) } else { fact }
    });
    let keys = prop::collection::vec(any::<[u8; 32]>(), 1..3).prop_map(|keys| {
        let key = |x: &[u8; 32]| {
            let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(x);
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x})
        };
        json!({"by": "ops", "keys": keys.iter().map(key).collect::<Vec<_>>()})
    });
    let outage = (1..200u32).prop_map(|it| json!({"by": "schedule", "outage": {"seconds": it}}));
    prop_oneof![2 => policy, 2 => state, 1 => keys, 3 => outage]
}

fn with(mut value: Value, key: &str, inner: Value) -> Value {
    value[key] = inner;
    value
}

fn some<S: Strategy>(fact: S) -> prop::collection::VecStrategy<S> {
    prop::collection::vec(fact, 1..4)
}

fn id(number: u8) -> String {
    uuid::Uuid::from_bytes([number; 16]).to_string()
}

/// A folder for the exports, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("anteroom-reader-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn export(&self, number: usize) -> PathBuf {
        self.0.join(format!("{number}.jsonl"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
