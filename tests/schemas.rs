//! What the log and the socket hold is what `schemas/` says: samples, schemas and readers agree.
//!
//! `schemas/samples/event/<case>/<subject>/<name>.json` has the three cases of a reader: valid,
//! void and halt. A name that begins with `text-` is void for its text, which no schema sees.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken sample fails the test that reads it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anteroom::queue::event::{
    Admitted, At, Configured, Decision, Disconnected, Entry, Facts, Join, Joined, JoinedBy, Jti,
    Left, Level, Millis, NodeId, Presence, PublicKey, Reconnected, Redeemed, ReleaseReason,
    Released, Removed, Return, SecretId, Seq, Setting, State, VisitorId, WorkerId,
};
use anteroom::queue::line::Line;
use anteroom::queue::policy::{Absent, Policy};
use anteroom::wire::event::{self, FACTS_PER_ENTRY_MAX, Read, Writer};
use anteroom::wire::socket::{self, ClientMessage, ServerMessage};
use jsonschema::{Registry, Validator};
use proptest::prelude::*;
use serde_json::{Value, json};

#[path = "schemas/descriptions.rs"]
mod descriptions;
#[path = "schemas/shapes.rs"]
mod shapes;

const NODE_KINDS: [&str; 4] = ["joined", "reconnected", "disconnected", "left"];
const ADMISSION_KINDS: [&str; 7] =
    ["configured", "admitted", "redeemed", "released", "expired", "removed", "node_lost"];

#[test]
fn every_valid_sample_fits_its_schema_and_comes_back_as_it_was() {
    let schemas = Schemas::load();
    for sample in samples("event/valid") {
        let value = sample.json();
        schemas.accept(&sample.schema(), &value, &sample.name);
        let (_, again) = sample.read_and_written();
        assert_eq!(again, schemas.with_defaults(value), "{}", sample.name);
    }
}

#[test]
fn every_void_sample_is_void_and_unless_its_subject_or_text_is_wrong_its_schema_refuses_it() {
    let schemas = Schemas::load();
    let mut believed = Vec::new();
    for sample in samples("event/void") {
        // The fence counts one token behind that, whichever.
        let kind = sample.subject.strip_prefix("admission.");
        let expected = kind.is_some_and(|kind| !kind.contains('.'));
        let read = read(&sample.subject, &sample.bytes);
        if !matches!(&read, Read::Void { fenced, why } if *fenced == expected && !why.is_empty()) {
            believed.push((sample.name.clone(), read));
        }
        if subjects().contains(&sample.subject) && !sample.stem().starts_with("text-") {
            schemas.refuse(&sample.schema(), &sample.json(), &sample.name);
        }
    }
    assert!(believed.is_empty(), "{believed:#?}");
}

#[test]
fn every_halt_sample_halts() {
    let schemas = Schemas::load();
    for sample in samples("event/halt") {
        let value = sample.json();
        schemas.accept(&sample.schema(), &value, &sample.name);
        let (entry, again) = sample.read_and_written();
        // What was a double in the text is a whole number again.
        assert_eq!(again.to_string(), whole_numbers(value).to_string(), "{}", sample.name);
        let raised = Line::default().raised_by(&entry);
        assert!(raised.is_some_and(|level| level > Level::NEWEST), "{}: {raised:?}", sample.name);
    }
}

#[test]
fn a_version_or_field_that_is_not_known_is_refused_by_name() {
    let node = "5a7d1c0e-2b9f-4c55-9d3e-8f1a6b2c4d5e";
    let seats = json!([{"visitor": node, "socket": 1}]);
    for (payload, name) in [
        (json!({"v": 0, "node": node, "facts": seats}), "version 0"),
        (json!({"v": 1, "node": node, "facts": seats}), "version 1"),
        (json!({"v": 3, "node": node, "facts": seats}), "version 3"),
        (json!({"v": 2, "node": node, "facts": seats, "shard": 7}), "`shard`"),
        (json!({"v": 2, "node": node, "facts": [{"visitor": node, "seat": 1}]}), "`seat`"),
        (json!({"v": 2, "facts": seats}), "`node`"),
    ] {
        let why = why_void("node.joined", &payload.to_string());
        assert!(why.contains(name), "{why}");
    }
    let policy = json!({"rate_per_minute": 0, "max_wait": 1, "door": 5});
    let fact = json!({"by": "operator", "policy": policy});
    let why = why_void("admission.configured", &decision(json!([fact])).to_string());
    for key in ["rate_per_minute", "max_wait", "door"] {
        assert!(why.contains(key), "every fault is named: {why}");
    }
    let why = why_void("node.vanished", "{}");
    assert!(why.contains("node.vanished"), "{why}");
}

#[test]
fn an_entry_holds_up_to_a_thousand_facts() {
    let schemas = Schemas::load();
    let id = "5a7d1c0e-2b9f-4c55-9d3e-8f1a6b2c4d5e";
    let facts = |many: usize| vec![json!({"visitor": id}); many];
    let left = |many: usize| json!({"v": 2, "facts": facts(many)});
    let expired = |many: usize| decision(json!(facts(many)));
    for (subject, kind, full, over) in [
        ("node.left", "left", left(FACTS_PER_ENTRY_MAX), left(FACTS_PER_ENTRY_MAX + 1)),
        (
            "admission.expired",
            "expired",
            expired(FACTS_PER_ENTRY_MAX),
            expired(FACTS_PER_ENTRY_MAX + 1),
        ),
    ] {
        let schema = format!("event/{kind}");
        schemas.accept(&schema, &full, "a thousand facts");
        assert!(matches!(read(subject, full.to_string().as_bytes()), Read::Entry(..)));
        schemas.refuse(&schema, &over, "one fact more");
        assert!(why_void(subject, &over.to_string()).contains("1001"));
    }
}

#[test]
fn other_spellings_of_the_same_json_are_the_same_entry() {
    let schemas = Schemas::load();
    let id = "5a7d1c0e-2b9f-4c55-9d3e-8f1a6b2c4d5e";
    let plain = format!(r#"{{"v":2,"node":"{id}","facts":[{{"visitor":"{id}","socket":10}}]}}"#);
    let entry = read("node.joined", plain.as_bytes());
    assert!(matches!(entry, Read::Entry(..)));
    for spelling in [
        format!(r#"{{"v":2.0,"node":"{id}","facts":[{{"visitor":"{id}","socket":10.0}}]}}"#),
        format!(r#"{{"v":2e0,"node":"{id}","facts":[{{"visitor":"{id}","socket":1e1}}]}}"#),
        format!(
            " {{\"facts\":[{{\"socket\":10,\n\"visitor\":\"{id}\"}}],\"node\":\"{id}\",\"v\":2}} "
        ),
        format!(
            r#"{{"\u0076":2,"node":"\u0035{}","facts":[{{"visitor":"{id}","socket":10}}]}}"#,
            &id[1..]
        ),
    ] {
        assert_eq!(read("node.joined", spelling.as_bytes()), entry, "{spelling}");
        let value = serde_json::from_str(&spelling).unwrap();
        schemas.accept("event/joined", &value, &spelling);
    }
}

#[test]
fn what_is_left_out_of_a_policy_has_its_default() {
    let value = decision(json!([{"by": "operator", "policy": {}}]));
    let payload = value.to_string();
    Schemas::load().accept("event/configured", &value, &payload);
    let read = read("admission.configured", payload.as_bytes());
    let Read::Entry(_, Entry::Decided(decision)) = read else { panic!("{read:?}") };
    let fact = Configured { by: "operator".to_owned(), what: Setting::Policy(Policy::default()) };
    assert_eq!(decision.facts, Facts::Configured(vec![fact]));
}

#[test]
fn the_schema_names_the_defaults_that_a_policy_has() {
    let schema = read_json(&root().join("event/configured.schema.json"));
    let keys = schema["$defs"]["policy"]["properties"].as_object().unwrap();
    let defaults: serde_json::Map<String, Value> = keys
        .iter()
        .filter_map(|(key, property)| Some((key.clone(), property.get("default")?.clone())))
        .collect();
    let written = anteroom::wire::policy::write_stored(&Policy::default());
    assert_eq!(Value::Object(defaults), written);
}

#[test]
fn bytes_that_are_no_utf_8_are_void() {
    let id = "5a7d1c0e-2b9f-4c55-9d3e-8f1a6b2c4d5e";
    let text = decision(json!([{"visitor": id, "by": "?"}])).to_string();
    let at = text.find('?').unwrap();
    let mut bytes = text.into_bytes();
    bytes[at] = 0xff;
    assert!(matches!(read("admission.removed", &bytes), Read::Void { fenced: true, .. }));
    assert!(matches!(read("node.joined", b""), Read::Void { fenced: false, .. }));
}

#[test]
fn every_schema_has_a_sample_and_every_sample_a_schema() {
    let events: BTreeSet<String> =
        schema_files("event").iter().map(|path| schema_name(path)).collect();
    let mut kinds: BTreeSet<String> =
        NODE_KINDS.iter().chain(&ADMISSION_KINDS).map(ToString::to_string).collect();
    assert_eq!(sampled("event/valid"), subjects());
    assert_eq!(sampled("event/halt"), BTreeSet::from(["admission.configured".to_owned()]));
    // Subjects that there are not are void, too.
    assert!(subjects().is_subset(&sampled("event/void")) && subjects() != sampled("event/void"));
    kinds.insert("common".to_owned());
    assert_eq!(events, kinds);

    let sides: BTreeSet<String> =
        schema_files("socket").iter().map(|path| schema_name(path)).collect();
    assert_eq!(sides, sampled("socket"));
    for side in sides {
        let schema = read_json(&root().join(format!("socket/{side}.schema.json")));
        let described: BTreeSet<String> =
            schema["$defs"].as_object().unwrap().keys().cloned().collect();
        let samples = samples("socket").into_iter().filter(|sample| sample.subject == side);
        let shown: BTreeSet<String> =
            samples.map(|sample| sample.json()["type"].as_str().unwrap().to_owned()).collect();
        assert_eq!(described, shown, "{side}");
    }
}

#[test]
fn every_schema_is_one_and_describes_every_field_in_words() {
    let schemas = Schemas::load();
    for (name, schema) in &schemas.documents {
        jsonschema::draft202012::meta::validate(schema).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        in_words(name, schema);
    }
}

/// Asks every property of every object, however deep, to say what it is.
fn in_words(place: &str, schema: &Value) {
    match schema {
        Value::Object(map) => {
            let properties = map.get("properties").and_then(Value::as_object);
            for (key, property) in properties.into_iter().flatten() {
                let says = property.get("description").or_else(|| property.get("$ref"));
                assert!(says.is_some(), "{place}: {key} needs a description");
            }
            map.iter().for_each(|(key, inner)| in_words(&format!("{place}/{key}"), inner));
        }
        Value::Array(list) => list.iter().for_each(|inner| in_words(place, inner)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_client_sample_fits_the_schema_and_is_read() {
    let schemas = Schemas::load();
    for sample in samples("socket").into_iter().filter(|sample| sample.subject == "client") {
        let value = sample.json();
        schemas.accept("socket/client", &value, &sample.name);
        let text = str::from_utf8(&sample.bytes).unwrap();
        let opened = value.get("opened").map_or(0, |opened| opened.as_u64().unwrap());
        let opened = u32::try_from(opened).unwrap();
        let expected = match value["type"].as_str().unwrap() {
            "JOIN" => ClientMessage::Join {
                join_key: value.get("joinKey").map(|key| key.as_str().unwrap().to_owned()),
                opened,
            },
            "RECONNECT" => ClientMessage::Reconnect {
                connection_id: value["connectionId"].as_str().unwrap().to_owned(),
                opened,
            },
            "LEAVE" => ClientMessage::Leave {},
            other => panic!("{}: {other}", sample.name),
        };
        assert_eq!(socket::read(text).unwrap(), expected, "{}", sample.name);
    }
}

#[test]
fn what_is_no_client_message_is_refused_by_schema_and_reader() {
    let schemas = Schemas::load();
    for message in [
        json!({}),
        json!({"type": "join"}),
        json!({"type": "QUEUE_UPDATE"}),
        json!({"type": 0}),
        json!({"type": "RECONNECT"}),
        json!({"type": "RECONNECT", "connectionId": 1}),
        json!({"type": "JOIN", "joinKey": 1}),
        json!({"type": "JOIN", "opened": 0}),
        json!({"type": "JOIN", "opened": "1"}),
        json!({"type": "JOIN", "opened": null}),
        json!({"type": "JOIN", "opened": 4_294_967_296_u64}),
        json!({"type": "RECONNECT", "connectionId": "", "opened": 0.5}),
        json!("LEAVE"),
        json!(["LEAVE"]),
        json!(["JOIN", "0d9f3f3e-6a0e-4a53-9b57-6c1f0a7be4d2"]),
        json!({"LEAVE": {}}),
        json!(null),
    ] {
        schemas.refuse("socket/client", &message, "no client message");
        assert!(socket::read(&message.to_string()).is_err(), "{message}");
    }
}

#[test]
fn every_server_sample_fits_the_schema() {
    let schemas = Schemas::load();
    for sample in samples("socket").into_iter().filter(|sample| sample.subject == "server") {
        schemas.accept("socket/server", &sample.json(), &sample.name);
        let mut more = sample.json();
        more["payload"]["weather"] = json!("fine");
        more["trace"] = json!({"id": 1});
        schemas.accept("socket/server", &more, "clients ignore what they don't know");
    }
}

#[test]
fn every_code_and_reason_that_a_node_can_say_is_in_the_schema_and_no_other() {
    use anteroom::wire::socket::{EndReason, ErrorCode, Status};
    let schema = read_json(&root().join("socket/server.schema.json"));
    let payload = |message: &str, key: &str| {
        schema["$defs"][message]["properties"]["payload"]["properties"][key]["enum"].clone()
    };
    let codes = [
        ErrorCode::BadMessage,
        ErrorCode::UnknownQueue,
        ErrorCode::UnknownConnection,
        ErrorCode::QueueFull,
        ErrorCode::LogUnavailable,
        ErrorCode::RateLimited,
        ErrorCode::Replaced,
        ErrorCode::Carried,
        ErrorCode::Unavailable,
    ];
    assert_eq!(payload("ERROR", "code"), serde_json::to_value(codes).unwrap());
    let reasons = [
        EndReason::Left,
        EndReason::Expired,
        EndReason::Removed,
        EndReason::Closed,
        EndReason::Redeemed,
    ];
    assert_eq!(payload("ENDED", "reason"), serde_json::to_value(reasons).unwrap());
    let states = [Status::Scheduled, Status::Open, Status::Paused, Status::Closed];
    assert_eq!(payload("QUEUE_UPDATE", "status"), serde_json::to_value(states).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_entry_that_is_written_fits_its_schema_and_is_read_back(entry in entry()) {
        let (writer, kind, payload) = write(&entry);
        let value: Value = serde_json::from_slice(&payload).unwrap();
        SCHEMAS.with(|schemas| schemas.accept(&format!("event/{kind}"), &value, kind));
        let read = read(&subject(writer, kind), &payload);
        prop_assert_eq!(read, Read::Entry(Level::FIRST, entry));
    }

    #[test]
    fn schema_and_reader_agree_on_any_address(
        start in prop::sample::select(vec!["", "http://", "https://shop.example"]),
        pieces in prop::collection::vec(prop::sample::select(listed::<String>(ADDRESS_PIECES)), 0..5),
    ) {
        let address = start.to_owned() + &pieces.concat();
        for policy in [json!({"target": address}), json!({"allowed_origins": [address]})] {
            let read = anteroom::wire::policy::parse(&policy);
            let fits = POLICY.with(|policies| policies.is_valid(&policy));
            prop_assert_eq!(read.is_ok(), fits, "{} gave {:?}", policy, read);
        }
    }

    #[test]
    fn schema_and_reader_agree_on_any_damage_to_an_entry(
        entry in entry(),
        which in any::<prop::sample::Index>(),
        damage in prop::sample::select(listed::<Value>(DAMAGES)),
    ) {
        let (_, kind, payload) = write(&entry);
        let mut value: Value = serde_json::from_slice(&payload).unwrap();
        let places = pointers(&value);
        let place = which.get(&places);
        *value.pointer_mut(place).unwrap() = damage;
        agree(kind, &value);
    }

    #[test]
    fn every_server_message_that_is_written_fits_the_schema(message in server_message()) {
        let mut text = Vec::new();
        socket::write(&mut text, &message);
        let text = String::from_utf8(text).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        SCHEMAS.with(|schemas| schemas.accept("socket/server", &value, &text));
    }
}

/// What addresses are made of, and what they must not be made of.
const ADDRESS_PIECES: &str = r##"[
    "http://", "https://", "://", "//", "/", "shop.example", "a", "A", "-", ".", "é", " ", "#", "\\", "?", "@",
    "[", "]", "[::1]", "::1", ":", ":0", ":80", ":+80", ":080", ":65535", ":65536", "8", "\n", "~", "!", "\u007f"
]"##;

/// Values that stand where others should.
const DAMAGES: &str = r#"[
    null, true, 0, 1, 1.0, 2, 3, -1, 0.5, 5, 65535, 65536, 4294967295, 4294967296, 9007199254740992, "",
    "open", "on", "key", "{}", "0123456789abcdef", [], [1], ["x"], {}, {"open": null}, {"v": 1},
    "7f0c1c1e-3f0e-8a51-9a57-2f6a0d5be901", "7F0C1C1E-3F0E-8A51-9A57-2F6A0D5BE901",
    ["7f0c1c1e-3f0e-8a51-9a57-2f6a0d5be901"], ["7f0c1c1e-3f0e-8a51-9a57-2f6a0d5be901", 1],
    {"visitor": "7f0c1c1e-3f0e-8a51-9a57-2f6a0d5be901"}, {"seconds": 1}, {"seconds": 0}
]"#;

fn listed<T: serde::de::DeserializeOwned>(list: &str) -> Vec<T> {
    serde_json::from_str(list).unwrap()
}

/// Asserts that reader and schema say the same of an entry of this kind.
fn agree(kind: &str, value: &Value) {
    let writer = if NODE_KINDS.contains(&kind) { Writer::Node } else { Writer::Admission };
    let read = read(&subject(writer, kind), value.to_string().as_bytes());
    let fits = SCHEMAS.with(|schemas| schemas.validators[&format!("event/{kind}")].is_valid(value));
    assert_eq!(matches!(read, Read::Entry(..)), fits, "{kind}: {value} gave {read:?}");
}

/// The same value with each number that is whole written as one.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().and_then(|number| number.to_string().parse::<u64>().ok());
            whole.map_or(Value::Number(number), Value::from)
        }
        Value::Object(map) => {
            map.into_iter().map(|(key, inner)| (key, whole_numbers(inner))).collect()
        }
        Value::Array(list) => list.into_iter().map(whole_numbers).collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

/// The pointers to everything inside a value.
fn pointers(value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, inner)| (key.clone(), inner)).collect(),
        Value::Array(list) => {
            list.iter().enumerate().map(|(index, inner)| (index.to_string(), inner)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    let deeper = inner.into_iter().flat_map(|(key, inner)| {
        pointers(inner).into_iter().map(move |rest| format!("/{key}{rest}"))
    });
    std::iter::once(String::new()).chain(deeper).collect()
}

fn why_void(subject: &str, payload: &str) -> String {
    let read = read(subject, payload.as_bytes());
    let Read::Void { why, .. } = read else { panic!("{payload}: {read:?}") };
    why
}

fn read(subject: &str, payload: &[u8]) -> Read {
    event::read(subject, payload, Level::NEWEST)
}

fn write(entry: &Entry) -> (Writer, &'static str, Vec<u8>) {
    event::write(entry, Level::FIRST).expect("an entry is written")
}

/// The first decision of a log, with these facts.
fn decision(facts: Value) -> Value {
    let worker = "2c9e4f70-6b1d-4a83-8e52-d0f7a91b3c64";
    json!({
        "v": 2, "prev": 0, "basis": 0, "now": 1_795_377_600_123_u64, "worker": worker, "facts": facts,
    })
}

fn subject(writer: Writer, kind: &str) -> String {
    match writer {
        Writer::Node => format!("node.{kind}"),
        Writer::Admission => format!("admission.{kind}"),
    }
}

fn subjects() -> BTreeSet<String> {
    let node = NODE_KINDS.iter().map(|kind| subject(Writer::Node, kind));
    node.chain(ADMISSION_KINDS.iter().map(|kind| subject(Writer::Admission, kind))).collect()
}

thread_local! {
    // Compiling the schemas takes longer than a case of a property.
    static SCHEMAS: Schemas = Schemas::load();
    static POLICY: Validator = descriptions::policy();
}

/// Every schema by its path without the ending, as `event/joined`.
struct Schemas {
    documents: BTreeMap<String, Value>,
    validators: BTreeMap<String, Validator>,
}

impl Schemas {
    fn load() -> Self {
        let paths = ["event", "socket"].map(schema_files).concat();
        let documents: BTreeMap<String, Value> = paths
            .iter()
            .map(|path| {
                let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
                (format!("{folder}/{}", schema_name(path)), read_json(path))
            })
            .collect();
        let common = documents["event/common"].clone();
        let registry = Registry::new().add(uri("event/common"), common).unwrap().prepare().unwrap();
        let validators = documents
            .iter()
            .map(|(name, schema)| {
                let options =
                    jsonschema::options().with_registry(&registry).with_base_uri(uri(name));
                let options = options.should_validate_formats(true);
                (name.clone(), options.build(schema).unwrap())
            })
            .collect();
        Self { documents, validators }
    }

    fn accept(&self, schema: &str, value: &Value, name: &str) {
        let faults: Vec<String> = self.validators[schema]
            .iter_errors(value)
            .map(|error| format!("{} at {}", error, error.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{name} does not fit {schema}: {faults:?}");
    }

    /// An entry, and what its policies left out that has a default.
    fn with_defaults(&self, mut entry: Value) -> Value {
        let policy = &self.documents["event/configured"]["$defs"]["policy"]["properties"];
        let defaults = policy.as_object().unwrap().iter();
        let defaults = defaults.filter_map(|(key, it)| Some((key, it.get("default")?)));
        let defaults: Vec<_> = defaults.collect();
        for fact in entry["facts"].as_array_mut().unwrap() {
            let Some(policy) = fact.get_mut("policy").and_then(Value::as_object_mut) else {
                continue;
            };
            for (key, default) in &defaults {
                policy.entry(*key).or_insert_with(|| (*default).clone());
            }
        }
        entry
    }

    fn refuse(&self, schema: &str, value: &Value, name: &str) {
        assert!(!self.validators[schema].is_valid(value), "{schema} accepts {name}: {value}");
    }
}

/// Where a schema is for a validator: a place that nothing is fetched from.
fn uri(name: &str) -> String {
    format!("urn-of-tests:///schemas/{name}.schema.json")
}

struct Sample {
    /// Its path below `schemas/samples`.
    name: String,
    /// The folder that it is in: a subject, or a side of the socket.
    subject: String,
    bytes: Vec<u8>,
}

impl Sample {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect(&self.name)
    }

    fn stem(&self) -> &str {
        self.name.rsplit('/').next().unwrap()
    }

    /// The entry that it is, and what is written of that.
    fn read_and_written(&self) -> (Entry, Value) {
        let read = read(&self.subject, &self.bytes);
        let Read::Entry(version, entry) = read else { panic!("{}: {read:?}", self.name) };
        let (writer, kind, payload) = event::write(&entry, version).expect("an entry is written");
        assert_eq!(subject(writer, kind), self.subject, "{}", self.name);
        (entry, serde_json::from_slice(&payload).unwrap())
    }

    /// The schema of its subject.
    fn schema(&self) -> String {
        format!("event/{}", self.subject.split_once('.').unwrap().1)
    }
}

/// The samples below a folder of `schemas/samples`, which has a folder for each subject.
fn samples(folder: &str) -> Vec<Sample> {
    let root = root().join("samples");
    let mut samples = Vec::new();
    for inner in files(&root.join(folder)) {
        for path in files(&inner) {
            samples.push(Sample {
                name: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
                subject: inner.file_name().unwrap().to_str().unwrap().to_owned(),
                bytes: fs::read(&path).unwrap(),
            });
        }
    }
    assert!(!samples.is_empty(), "no samples in {folder}");
    samples
}

fn sampled(folder: &str) -> BTreeSet<String> {
    samples(folder).into_iter().map(|sample| sample.subject).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The schemas in a folder, in which a description may stand, too.
fn schema_files(folder: &str) -> Vec<PathBuf> {
    let mut paths = files(&root().join(folder));
    paths.retain(|path| path.to_str().unwrap().ends_with(".schema.json"));
    paths
}

fn schema_name(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.strip_suffix(".schema.json").expect(name).to_owned()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        1 => (node(), facts(join()))
            .prop_map(|(node, visitors)| Entry::Joined(Joined { node, visitors })),
        1 => (node(), prop::option::of(whole()), facts(back())).prop_map(|(node, basis, visitors)| {
            Entry::Reconnected(Reconnected { node, basis: basis.map(Seq), visitors })
        }),
        1 => (node(), facts((visitor(), whole())))
            .prop_map(|(node, visitors)| Entry::Disconnected(Disconnected { node, visitors })),
        1 => facts((visitor(), counted()).prop_map(|(visitor, hand)| Left { visitor, hand }))
            .prop_map(Entry::Left),
        8 => (whole(), whole(), whole(), any::<[u8; 16]>(), decided()).prop_map(
            |(prev, basis, now, worker, facts)| {
                let (prev, basis, now) = (Seq(prev), Seq(basis), Millis(now));
                Entry::Decided(Decision { prev, basis, now, worker: WorkerId(worker), facts })
            }
        ),
    ]
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<[u8; 16]>().prop_map(NodeId)
}

fn join() -> impl Strategy<Value = Join> {
    let by = prop::option::of(prop::sample::select(vec![JoinedBy::Key, JoinedBy::Subject]));
    let more = (counted(), 0..=7u8, by, any::<Option<[u8; 8]>>());
    (visitor(), whole(), more).prop_map(|(visitor, socket, (opened, lane, by, net))| Join {
        visitor,
        socket,
        opened,
        lane,
        by,
        net,
    })
}

fn back() -> impl Strategy<Value = Return> {
    (visitor(), whole(), counted(), counted()).prop_map(|(visitor, socket, opened, hand)| Return {
        visitor,
        socket,
        opened,
        hand,
    })
}

/// What is counted from 1; 0 where it is not said.
fn counted() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..1_000u32, Just(u32::MAX)]
}

fn decided() -> impl Strategy<Value = Facts> {
    let admitted = (visitor(), jti(), kid(), seconds());
    let admitted =
        admitted.prop_map(|(visitor, jti, kid, seconds)| Admitted { visitor, jti, kid, seconds });
    let redeemed = (visitor(), jti(), kid(), seconds(), any::<Option<[u8; 32]>>());
    let redeemed = redeemed.prop_map(|(visitor, jti, kid, seconds, key)| Redeemed {
        visitor,
        jti,
        kid,
        seconds,
        key,
    });
    let reason = prop::sample::select(vec![
        ReleaseReason::Released,
        ReleaseReason::SessionOver,
        ReleaseReason::Lapsed,
        ReleaseReason::Missed,
    ]);
    let released = (visitor(), jti(), reason, text())
        .prop_map(|(visitor, jti, reason, by)| Released { visitor, jti, reason, by });
    let removed = (visitor(), text(), prop::option::of(text()))
        .prop_map(|(visitor, by, reason)| Removed { visitor, by, reason });
    let configured = (text(), setting()).prop_map(|(by, what)| Configured { by, what });
    let raised = (3..=u16::MAX, text()).prop_map(|(level, by)| Facts::Raised(Level(level), by));
    prop_oneof![
        facts(configured).prop_map(Facts::Configured),
        raised,
        facts(admitted).prop_map(Facts::Admitted),
        facts(redeemed).prop_map(Facts::Redeemed),
        facts(released).prop_map(Facts::Released),
        facts(visitor()).prop_map(Facts::Expired),
        facts(removed).prop_map(Facts::Removed),
        facts(node()).prop_map(Facts::NodeLost),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    let state = prop::sample::select(vec![
        State::Scheduled,
        State::Open,
        State::Paused,
        State::Closed,
        State::Deleted,
    ]);
    let key = (kid(), any::<[u8; 32]>()).prop_map(|(kid, x)| PublicKey { kid, x });
    let loads = prop::collection::vec(0..=1_000u16, 0..=60);
    let rate = (prop::option::of(1..=600_000u32), loads)
        .prop_map(|(per_minute, loads)| Setting::Rate { per_minute, loads });
    prop_oneof![
        policy().prop_map(Setting::Policy),
        (state, prop::option::of(text())).prop_map(|(state, reason)| Setting::State(state, reason)),
        prop::collection::vec(key, 1..=16).prop_map(Setting::Keys),
        rate,
        (1..=31_622_400u32).prop_map(|seconds| Setting::Outage { seconds }),
        prop::sample::select(vec![Presence::On, Presence::Off]).prop_map(Setting::Presence),
        any::<[u8; 16]>().prop_map(|id| Setting::Secret(SecretId(id))),
        Just(Setting::Time),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    // From 1970 to 2199, in whole seconds.
    let instant = || prop::option::of((0..7_258_118_400i64).prop_map(|at| At(at * 1_000_000_000)));
    let door = prop::collection::vec(any::<char>(), 2..=200).prop_map(String::from_iter);
    (
        (1..=600_000u32, prop::option::of(1..=10_000_000u32), 5..=86_400u32),
        (5..=2_592_000u32, 1..=86_400u32),
        (instant(), instant()),
        (any::<bool>(), 0..=10u8, door),
    )
        .prop_map(|(limits, times, schedule, (admits, missed_turns, door))| Policy {
            opens_at: schedule.0,
            closes_at: schedule.1,
            rate_per_minute: limits.0,
            max_inside: limits.1,
            token_seconds: limits.2,
            session_seconds: times.0,
            reconnect_seconds: times.1,
            absent: if admits { Absent::Admit } else { Absent::Hold },
            missed_turns,
            door,
        })
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    use anteroom::wire::socket::{
        AdmittedPayload, EndReason, EndedPayload, ErrorCode, ErrorPayload, JoinedPayload, Status,
        UpdatePayload,
    };
    let status = vec![Status::Scheduled, Status::Open, Status::Paused, Status::Closed];
    let status = prop::sample::select(status);
    let numbers = (1..=u32::MAX, any::<u32>(), any::<u32>(), any::<Option<u64>>());
    let range = any::<Option<(u64, u64)>>();
    let words = (status, any::<Option<String>>(), any::<bool>());
    prop_oneof![
        ("[A-Za-z0-9_-]{51}", "[a-z0-9][a-z0-9-]{0,62}", 1..=86_400u32, opened()).prop_map(
            |(connection_id, queue, reconnect_within, opened)| ServerMessage::Joined {
                connection_id,
                payload: JoinedPayload { queue, reconnect_within, opened },
            }
        ),
        (numbers, range, words).prop_map(
            |((position, count, waiting, seconds), range, (status, reason, stale))| {
                let payload = UpdatePayload {
                    position,
                    count,
                    waiting,
                    seconds,
                    seconds_low: range.map(|(low, _)| low),
                    seconds_high: range.map(|(_, high)| high),
                    opens_at: range.map(|_| "2026-12-01T09:00:00Z".to_owned()),
                    status,
                    reason,
                    stale,
                };
                ServerMessage::QueueUpdate { payload }
            }
        ),
        ("([A-Za-z0-9_-]{1,40}\\.){2}[A-Za-z0-9_-]{1,40}", 0..=86_400u64).prop_map(
            |(token, expires_in)| ServerMessage::Admitted {
                payload: AdmittedPayload {
                    token,
                    expires_at: "2026-12-01T09:02:00Z".to_owned(),
                    expires_in,
                    target: "/".to_owned(),
                },
            }
        ),
        prop::sample::select(vec![EndReason::Left, EndReason::Redeemed])
            .prop_map(|reason| ServerMessage::Ended { payload: EndedPayload { reason } }),
        (any::<String>(), any::<Option<u32>>(), opened()).prop_map(
            |(message, retry_after, opened)| {
                let code = ErrorCode::LogUnavailable;
                ServerMessage::Error {
                    payload: ErrorPayload { code, message, retry_after, opened },
                }
            }
        ),
    ]
}

fn opened() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(1..=u32::MAX)
}

fn facts<S: Strategy>(fact: S) -> prop::collection::VecStrategy<S> {
    prop::collection::vec(fact, 1..6)
}

fn visitor() -> impl Strategy<Value = VisitorId> {
    any::<[u8; 16]>().prop_map(VisitorId)
}

fn jti() -> impl Strategy<Value = Jti> {
    any::<[u8; 16]>().prop_map(Jti)
}

fn kid() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-]{1,64}"
}

fn seconds() -> impl Strategy<Value = u32> {
    1..=2_592_000u32
}

fn whole() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_000u64, 0..=(1u64 << 53) - 1, Just((1u64 << 53) - 1)]
}

/// Texts of every length that may be, in any script.
fn text() -> impl Strategy<Value = String> {
    let short = prop::collection::vec(any::<char>(), 1..20);
    let long = prop::collection::vec(any::<char>(), 300);
    prop_oneof![9 => short, 1 => long].prop_map(String::from_iter)
}
