//! Planted bad logs: each must be named by the audit, and by nothing else that it says.

#![expect(clippy::unwrap_used, reason = "a log that can't be written fails its test")]

use std::path::PathBuf;
use std::process::Command;

use anteroom::audit::export::{ExportWriter, Format, look};
use anteroom::audit::verify::verify_records;
use anteroom::log::record::Record;
use anteroom::queue::event::{Seq, VisitorId};

use crate::readings::{queue, records};
use crate::story::{TRIED, bytes, entries_of};

/// Asserts what the audit says of a history: violations first, then what counts nowhere.
#[track_caller]
fn check(story: &str, expected: &str) {
    let records = records(&entries_of(story));
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(judged(&records), expected, "\n{story}");
}

fn judged(records: &[Record]) -> Vec<String> {
    let verdict = verify_records(&queue(), TRIED, records);
    let violations = verdict.violations.list.iter();
    let violations = violations.map(|finding| format!("{}! {}", finding.seq, finding.what));
    let void = verdict.void.list.iter().map(|finding| {
        let fact = finding.fact.map(|fact| format!(".{fact}")).unwrap_or_default();
        format!("{}{fact} {}", finding.seq, finding.what)
    });
    violations.chain(void).map(|line| with_names(&line)).collect()
}

/// The names of the story in place of the ids that stand for them.
fn with_names(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["ann", "bob", "cid", "dan", "eve", "n1", "n9"] {
        text = text.replace(&VisitorId(bytes(name)).to_string(), name);
    }
    text
}

/// Ann, Bob and Cid are in line, and the queue is open.
const THREE: &str = "1s policy rate_per_minute=60 reconnect_seconds=30
    1s state open
    2s joined n1 ann/1 bob/2 cid/3
";

/// Bad logs, each with the name of what is wrong with it and with how the audit says it.
const PLANTED: [(&str, &str, &str); 19] = [
    ("overtaken", "3s admitted bob", "4! overtaken, though present at entry 3: ann"),
    (
        "overtaken by a late decision",
        // Ann went only after the entry that the decision rests on.
        "3s disconnected n1 ann/1
         4s basis=3 admitted bob",
        "5! overtaken, though present at entry 3: ann",
    ),
    (
        "not in order",
        "3s policy rate_per_minute=1200 reconnect_seconds=30
         4s admitted bob ann",
        "5! the visitors of one entry were not let in in the order of the line",
    ),
    (
        "admitted twice",
        "3s admitted ann
         9s admitted ann",
        "5! visitor ann was admitted twice, first by entry 4
         5.0 visitor ann was not in line",
    ),
    (
        "over the rate",
        "3s admitted ann
         3500ms admitted bob",
        "5! visitor bob was let in 501 ms before the rate of 60 a minute allowed it",
    ),
    (
        "over a rate that follows the load",
        "3s admitted ann
         3500ms rate 30
         4s admitted bob",
        "6! visitor bob was let in 501 ms before the rate of 30 a minute allowed it",
    ),
    (
        "overtaken where the absent are let in unseen",
        "3s policy rate_per_minute=60 absent=admit
         4s disconnected n1 ann/1
         5s admitted bob",
        "6! overtaken, though waiting: ann",
    ),
    (
        "opened before its time",
        "3s policy rate_per_minute=60 opens_at=60s
         4s state scheduled
         50s by=schedule state open",
        "6! the queue was opened 11 s before its time",
    ),
    (
        "closed before its time",
        "3s policy rate_per_minute=60 closes_at=60s
         59500ms by=schedule state closed",
        "5! the queue was closed 1 s before its time",
    ),
    (
        "closed by no schedule",
        "50s by=schedule state closed",
        "4! the queue was closed by a schedule that it has not",
    ),
    (
        "over the ceiling",
        "3s policy rate_per_minute=60 max_inside=1
         4s admitted ann
         9s admitted bob",
        "6! visitor bob was let in over the ceiling: 1 were inside, and 1 may be",
    ),
    (
        "while paused",
        "3s state paused
         4s admitted ann",
        "5! visitor ann was let in while the queue was paused",
    ),
    (
        "while absent",
        "3s disconnected n1 ann/1
         4s admitted ann",
        "5! visitor ann was let in though absent at entry 4",
    ),
    (
        "redeemed twice",
        "3s admitted ann
         4s redeemed ann
         5s redeemed ann",
        "6! grant ann was redeemed twice, first by entry 5
         6.0 grant ann was used already",
    ),
    (
        "expired before the grace",
        "3s disconnected n1 ann/1
         32s expired ann",
        "5! visitor ann lost their place 2 s before their 30 s of grace were over",
    ),
    (
        "expired within an outage",
        "3s disconnected n1 ann/1
         60s outage 50
         61s expired ann",
        "6! visitor ann lost their place 23 s before their 30 s of grace were over",
    ),
    (
        "expired while present",
        "40s expired ann",
        "4! visitor ann was to lose their place, and was present
         4.0 visitor ann was present",
    ),
    (
        "a grant that lapsed too early",
        "3s admitted ann
         60s released lapsed ann",
        "5! the grant of visitor ann ended 64 s before its time",
    ),
    (
        "a session that ended too early",
        "3s admitted ann
         4s seconds=600 redeemed ann
         60s released session_over ann",
        "6! the session of visitor ann ended 545 s before its time",
    ),
];

#[test]
fn every_planted_bad_log_is_named() {
    for (_, story, expected) in PLANTED {
        check(&format!("{THREE}{story}"), expected);
    }
}

#[test]
fn a_lawful_history_is_in_order() {
    check(
        &format!(
            "{THREE}3s disconnected n1 ann/1
            4s admitted bob
            5s reconnected n1 ann/4
            6s admitted ann
            7s redeemed bob
            8s disconnected n1 cid/3
            38s expired cid
            131s released released bob
            132s released lapsed ann"
        ),
        "",
    );
}

#[test]
fn a_history_with_a_schedule_and_a_load_is_in_order() {
    check(
        "1s policy rate_per_minute=60 opens_at=60s closes_at=90s absent=admit
        1s state scheduled
        2s joined n1 ann/1 bob/2 cid/3
        3s disconnected n1 ann/1
        60s by=schedule state open
        60s admitted ann
        61s admitted bob
        61s rate 30
        63s admitted cid
        90s by=schedule state closed",
        "",
    );
}

#[test]
fn a_race_that_the_log_decides_is_no_fault_of_anybodys() {
    check(
        &format!(
            "{THREE}3s left ann
            4s basis=3 admitted ann
            5s disconnected n1 bob/2
            40s reconnected n1 bob/5
            41s basis=6 expired bob
            42s left ann"
        ),
        "5.0 visitor ann was not in line
        8.0 visitor bob was present
        9.0 visitor ann had no place to give up",
    );
}

#[test]
fn what_counts_nowhere_is_listed_in_plain_words() {
    check(
        &format!(
            "{THREE}3s void
            4s prev=1 admitted ann
            5s basis=1 admitted ann
            6s admitted eve
            7s redeemed ann
            8s reconnected n1 dan/7
            9s node_lost n9
            10s removed eve"
        ),
        "4 it can't be read: expected value at line 1 column 1
        5 it was fenced on entry 1, and the decision before it is entry 2
        6 its basis, entry 1, is not between entry 5 and itself
        7.0 visitor eve never joined
        8.0 visitor ann has no grant ann
        9.0 visitor dan never joined
        10.0 no node n9 ever wrote a fact
        11.0 visitor eve never joined",
    );
}

#[test]
fn a_rate_holds_in_every_window_and_a_burst_is_allowed() {
    // 6,000 a minute: ten at once, then one each 10 ms.
    let many: Vec<String> = (0..14).map(|n| format!("v{n}/{n}")).collect();
    let names: Vec<String> = (0..14).map(|n| format!("v{n}")).collect();
    let begin = format!(
        "1s policy rate_per_minute=6000
        1s state open
        2s joined n1 {}
        3s admitted {}",
        many.join(" "),
        names[..10].join(" ")
    );
    check(&begin, "");
    check(&format!("{begin}\n3010ms admitted v10\n3020ms admitted v11"), "");
    let records = records(&entries_of(&format!("{begin}\n3010ms admitted v10 v11")));
    assert!(judged(&records)[0].ends_with("before the rate of 6000 a minute allowed it"));
}

#[test]
fn a_log_with_a_gap_is_judged_up_to_there() {
    let story = format!("{THREE}3s admitted ann\n4s left bob");
    let mut log = records(&entries_of(&story));
    log.remove(2);
    // A log is handed over in order and without a gap; the file is where one can come from.
    for options in [[].as_slice(), &["--seq", "3"], &["--seq", "5"]] {
        let (code, text) = on_file("gap", &log, &[&["verify"], options].concat(), &[]);
        assert_eq!(code, 1, "{options:?}: {text}");
        assert!(text.contains("NOT in order, up to entry 2"), "{options:?}: {text}");
        assert!(text.contains("entry 3 is missing; the next one there is 4"), "{text}");
    }
    let (code, text) = on_file("gap", &log, &["verify", "--seq", "2"], &[]);
    assert!(code == 0 && text.contains("in order, up to entry 2"), "{text}");
    // What comes before it is judged all the same, and a log that ends too soon is short.
    let story = format!("{THREE}3s admitted bob\n4s left bob\n5s left cid");
    let mut log = records(&entries_of(&story));
    log.remove(4);
    let text = verify_file("gap", &log).1;
    assert!(text.contains("overtaken") && text.contains("entry 5 is missing"), "{text}");
    log.truncate(4);
    let (code, text) = on_file("gap", &log, &["verify", "--seq", "9"], &[]);
    assert!(code == 1 && text.contains("it ends before entry 9"), "{text}");
}

#[test]
fn a_grant_of_two_visitors_is_named_and_many_who_were_overtaken_are_counted() {
    check(
        &format!("{THREE}3s admitted ann\n9s admitted bob#ann"),
        "5! grant ann of visitor bob was given to ann, too",
    );
    let many: Vec<String> = (0..1_500).map(|n| format!("v{n}/{n}")).collect();
    let story = format!(
        "1s state open\n2s joined n1 {}\n2s joined n1 {}\n3s admitted v1499",
        many[..1_000].join(" "),
        many[1_000..].join(" ")
    );
    let said = judged(&records(&entries_of(&story)));
    assert!(said[0].ends_with("and at least 997 more"), "{said:?}");
    let before = format!("{THREE}3s joined n1 dan/4 eve/5\n4s admitted eve");
    check(&before, "5! overtaken, though present at entry 4: ann, bob, cid and 1 more");
}

#[test]
fn a_name_that_can_be_none_is_wrong_usage() {
    let log = records(&entries_of(THREE));
    for (command, names) in
        [(["history"].as_slice(), ["ANN"].as_slice()), (&["position", "--at", "noon"], &["ann"])]
    {
        let file = write(&log, "usage");
        let output = Command::new(env!("CARGO_BIN_EXE_anteroom"))
            .arg("audit")
            .args(command)
            .arg("demo")
            .args(names)
            .args(["--file", file.to_str().unwrap()])
            .output()
            .unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command:?}: {output:?}");
    }
}

#[test]
fn the_command_names_every_planted_log_and_exits_with_1() {
    for (name, story, expected) in PLANTED {
        let (code, text) = verify_file(name, &records(&entries_of(&format!("{THREE}{story}"))));
        assert_eq!(code, 1, "{name}: {text}");
        let violation = expected.lines().next().unwrap().split_once("! ").unwrap().1;
        assert!(with_names(&text).contains(violation), "{name}: {text}");
    }
    let lawful = format!("{THREE}3s admitted ann\n4s redeemed ann");
    let (code, text) = verify_file("lawful", &records(&entries_of(&lawful)));
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_visitors_story_tells_why_their_number_changed() {
    let story = format!(
        "{THREE}3s joined n1 dan/4 eve/5
        4s admitted ann
        4500ms left bob
        5s disconnected n1 eve/5
        6s reconnected n1 eve/6
        7s admitted cid
        8s state paused
        9s state open
        10s removed dan
        11s admitted eve
        12s redeemed eve"
    );
    let log = records(&entries_of(&story));
    let told = on_file("story", &log, &["history"], &["eve"]);
    let expected = "visitor eve in queue demo
        1970-01-01T00:00:03Z  position 5      joined behind 4 people  [entry 4]
        1970-01-01T00:00:04Z  position 4      1 person ahead was let in  [entry 5]
        1970-01-01T00:00:04Z  position 3      1 person ahead gave up their place  [entry 6]
        1970-01-01T00:00:05Z  position 3      is absent; the place is kept for 30 s  [entry 7]
        1970-01-01T00:00:06Z  position 3      came back, with the same place  [entry 8]
        1970-01-01T00:00:07Z  position 2      1 person ahead was let in  [entry 9]
        1970-01-01T00:00:08Z  position 2      the queue is paused now, by ops  [entry 10]
        1970-01-01T00:00:09Z  position 2      the queue is open now, by ops  [entry 11]
        1970-01-01T00:00:10Z  position 1      1 person ahead was taken out by an operator  [entry 12]
        1970-01-01T00:00:11Z                  was let in; the token is good for 120 s  [entry 13]
        1970-01-01T00:00:12Z                  entered  [entry 14]";
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    assert_eq!(told.1.trim().lines().collect::<Vec<_>>(), expected);

    let stands =
        |options: &[&str]| on_file("stand", &log, &["position"], &[&["eve"], options].concat()).1;
    assert!(stands(&["--seq", "5"]).starts_with("position 4 of 4, present, after entry 5"));
    assert!(
        stands(&["--at", "1970-01-01T00:00:05Z"])
            .starts_with("position 3 of 3, absent, after entry 7")
    );
    assert!(stands(&[]).starts_with("inside, after entry 14"));
    let (code, text) = on_file("nobody", &log, &["history"], &["bill"]);
    assert!(code == 1 && text.contains("never joined"), "{text}");
}

#[test]
fn people_who_go_within_one_second_are_told_of_together() {
    let many: Vec<String> = (0..40).map(|n| format!("v{n}/{n}")).collect();
    let admitted: Vec<String> = (0..37).map(|n| format!("v{n}")).collect();
    let story = format!(
        "1s policy rate_per_minute=6000
        1s state open
        2s joined n1 {} eve/99
        3s admitted {}
        3500ms admitted {}",
        many.join(" "),
        admitted[..10].join(" "),
        admitted[10..20].join(" ")
    );
    let told = on_file("together", &records(&entries_of(&story)), &["history"], &["eve"]).1;
    assert!(told.contains("position 21     20 people ahead were let in  [entries 4-5]"), "{told}");
}

fn verify_file(name: &str, log: &[Record]) -> (i32, String) {
    on_file(name, log, &["verify"], &[])
}

/// Runs an audit command on a log that stands in a file.
fn on_file(name: &str, log: &[Record], command: &[&str], names: &[&str]) -> (i32, String) {
    let file = write(log, name);
    let mut names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    if let Some(visitor) = names.first_mut() {
        *visitor = VisitorId(bytes(visitor)).to_string();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .arg("audit")
        .args(command)
        .arg("demo")
        .args(names)
        .arg("--file")
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), with_names(&text))
}

/// A log as a file.
fn write(log: &[Record], name: &str) -> PathBuf {
    let name = format!("anteroom-audit-{}-{}.jsonl", std::process::id(), name.replace(' ', "-"));
    let file = std::env::temp_dir().join(name);
    let kept = look(&file, &queue(), Format::Jsonl).unwrap();
    let mut writer = ExportWriter::open(&file, &queue(), Format::Jsonl, &kept).unwrap();
    log.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap();
    file
}

#[test]
fn what_is_asked_for_stops_at_its_entry() {
    let log = records(&entries_of(&format!("{THREE}3s admitted ann\n4s left bob")));
    let verdict =
        verify_records(&queue(), TRIED, log.iter().take_while(|record| record.seq <= Seq(4)));
    assert_eq!((verdict.sequence, verdict.waiting), (4, 2));
}
