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
use std::process::{Command, Output};

use anteroom::audit::verify::verify_records;
use anteroom::clock;
use anteroom::log::record::Record;
use anteroom::log::subjects::QueueId;
use anteroom::queue::digest::{Chain, digest, hex};
use anteroom::queue::event::{At, Entry, Level, Seq, Ticket};
use anteroom::queue::line::{Change, End, Line};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

mod acts;
mod due;
mod planted;
mod spelling;

use acts::{Act, Clocks, acts};
use planted::planted;

const HISTORIES: usize = 150;
/// The newest level that both readers know here: there is nothing new at it, so that raising a log is tried
/// before there is.
const TRIED: Level = Level(Level::NEWEST.0 + 1);

#[test]
fn the_reader_in_python_comes_to_the_same_line_as_the_program() {
    let folder = Folder::new("same");
    let mut runner = TestRunner::deterministic();
    let mut shown = Shown::default();
    let random = (0..HISTORIES).map(|_| acts().new_tree(&mut runner).unwrap().current());
    let expected: Vec<Value> = random
        .chain(planted())
        .enumerate()
        .map(|(number, acts)| {
            let (export, summary) = tell(&acts, &mut shown);
            std::fs::write(folder.export(number), export).unwrap();
            summary
        })
        .collect();
    let exports: Vec<PathBuf> = (0..expected.len()).map(|number| folder.export(number)).collect();
    let output = read(&["--levels", &TRIED.to_string()], &exports);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), expected.len());
    for (number, (said, expected)) in said.iter().zip(&expected).enumerate() {
        for (key, value) in expected.as_object().unwrap() {
            let said = if key == "void" { places_of(&said[key]) } else { said[key].clone() };
            let log = std::fs::read_to_string(folder.export(number)).unwrap();
            assert_eq!(&said, value, "{key} of history {number}\n{log}");
        }
    }
    let total = |key: &str| expected.iter().map(|it| it[key].as_u64().unwrap()).sum::<u64>();
    let void: usize = expected.iter().map(|it| it["void"].as_array().unwrap().len()).sum();
    let people = (total("admitted"), total("redeemed"), void);
    assert!(
        people.0 > 200 && people.1 > 40 && people.2 > 2_000,
        "they show little: {people:?} {shown:?}"
    );
    assert!(shown.is_much(), "they show little: {shown:?}");
}

#[test]
fn the_reader_in_python_halts_where_the_program_does() {
    let folder = Folder::new("halt");
    let raise = |level: u16, prev: u64| {
        let worker = acts::id(9);
        let entry = json!({
            "v": 2, "prev": prev, "basis": prev, "now": 0, "worker": worker, "level": level, "by": "ops"
        });
        let (subject, payload) = ("anteroom.log.demo.admission.configured", entry.to_string());
        exported(Seq(prev + 1), At(acts::START), subject, payload.as_bytes())
    };
    let say = |levels: &[&str], log: &[String]| {
        std::fs::write(folder.export(0), log.join("\n")).unwrap();
        let output = read(levels, &[folder.export(0)]);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = say(&[], &[raise(3, 0)]);
    assert!(code == Some(1) && said.contains("halted: entry 1: level 3 is not known"), "{said}");
    let (code, said) = say(&["--levels", "3"], &[raise(3, 0), raise(4, 1)]);
    assert!(code == Some(1) && said.contains("halted: entry 2: level 4 is not known"), "{said}");
    let (code, said) = say(&["--levels", "3"], &[raise(3, 0), raise(5, 1)]);
    assert!(code == Some(0) && said.contains(r#""level": 3"#), "{said}");
}

/// What the reader says of these logs.
fn read(options: &[&str], exports: &[PathBuf]) -> Output {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/reader.py");
    let mut command = Command::new("python3");
    command.arg(reader).args(options).arg("--file").args(exports);
    command.output().unwrap()
}

/// Where the reader found something void: the entry, and the fact unless it is the whole entry.
fn places_of(void: &Value) -> Value {
    let found = void.as_array().unwrap().iter();
    found.map(|found| json!([found["sequence"], found["fact"]])).collect()
}

/// How often something happened that is rare.
#[derive(Debug, Default)]
struct Shown {
    missed: usize,
    shifts: usize,
    raised: usize,
    restated: usize,
    carried: usize,
    expired: usize,
    noted: usize,
}

impl Shown {
    fn is_much(&self) -> bool {
        let Self { missed, shifts, raised, restated, carried, expired, noted } = *self;
        [missed, shifts, raised, restated, carried, expired, noted].iter().all(|times| *times > 10)
    }

    fn see(&mut self, before: &(Level, usize), line: &Line, change: &Change) {
        self.missed += change.missed.len();
        self.shifts += usize::from(change.shifted.is_some());
        self.raised += usize::from(line.level() > before.0);
        self.restated += change.restated.len();
        self.carried += change.came.iter().filter(|came| hand(line, came.ticket) > 0).count();
        self.expired += change.ended.iter().filter(|(_, end)| *end == End::Expired).count();
        self.noted += usize::from(line.graces().longer().len() > before.1);
    }
}

fn hand(line: &Line, ticket: Ticket) -> u32 {
    line.place(ticket).unwrap().hand
}

/// The exported log of a history, and what the program makes of it: its fold and its audit.
fn tell(acts: &[Act], shown: &mut Shown) -> (String, Value) {
    let queue = QueueId::parse("demo").unwrap();
    let (mut line, mut chain) = (Line::default(), Chain::default());
    let (mut export, mut void) = (String::new(), Vec::new());
    let mut clocks = Clocks::default();
    let mut records = Vec::new();
    for act in acts {
        let seq = Seq(line.seq().0 + 1);
        let stored = clocks.pass(act);
        let (subject, payload) = act.message(&line, &clocks);
        let subject = format!("anteroom.log.demo.{subject}");
        writeln!(export, "{}", exported(seq, stored, &subject, &payload)).unwrap();
        chain = chain.then(seq, stored, &subject, &payload);
        let record = Record { seq, stored, subject, payload: payload.into() };
        let written = record.read(&queue, TRIED).unwrap();
        let (entry, _) = written.at_level(line.level());
        let before = (line.level(), line.graces().longer().len());
        let change = line.apply(seq, stored, entry);
        shown.see(&before, &line, &change);
        if matches!(entry, Entry::Decided(_)) && change.void_entry.is_none() {
            clocks.hear(&line);
        }
        void.extend(change.void_entry.map(|_| json!([seq.0, null])));
        void.extend(change.void.iter().map(|(fact, _)| json!([seq.0, fact])));
        records.push(record);
    }
    let verdict = verify_records(&queue, TRIED, &records);
    assert_eq!(verdict.digest, hex(&digest(&line)), "the audit comes to another line\n{export}");
    let found = verdict.void.list.iter().map(|found| json!([found.seq, found.fact]));
    assert_eq!(found.collect::<Vec<_>>(), void, "the audit voids something else\n{export}");
    (export, summary(&line, &chain, &void))
}

fn summary(line: &Line, chain: &Chain, void: &[Value]) -> Value {
    let name = |ticket: Ticket| line.place(ticket).unwrap().visitor.to_string();
    let order: Vec<String> = line.places().iter().map(|place| place.visitor.to_string()).collect();
    let grants = (0..).map(Ticket).take(line.places().len()).filter_map(|it| line.grant(it));
    json!({
        "queue": "demo",
        "level": line.level().0,
        "sequence": line.seq().0,
        "entries": line.seq().0,
        "visitors": line.places().len(),
        "waiting": line.waiting().len(),
        "admitted": line.admitted(),
        "redeemed": grants.filter(|grant| grant.redeemed.is_some()).count(),
        "digest": hex(&digest(line)),
        "chain": hex(&chain.0),
        "order": order,
        "inLine": line.waiting().iter().map(name).collect::<Vec<_>>(),
        "present": line.present().iter().map(name).collect::<Vec<_>>(),
        "void": void,
    })
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

/// A folder for the exports, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("anteroom-reader-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
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
