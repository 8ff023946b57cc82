//! What must hold at the end, whatever was injected: read from the log naively, and from every
//! fingerprint that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::checker::{Entry, assert_once, read, retell};
use crate::crowd::Visit;
use crate::system::{System, signal, wait_until};

/// Late facts about sockets that are gone come within this: a node's pause, and a heartbeat.
const AT_REST: Duration = Duration::from_secs(5);

/// Every acknowledged join is there, in order; nobody was let in twice or overtaken; each grant was
/// used once. Gives the log.
pub async fn assert_all_in_order(system: &System, queue: &str, visits: &[Visit]) -> Vec<Entry> {
    let entries = read(system, queue).await;
    let story = retell(&entries);
    assert_once(&story.joined, "a place was given");
    assert_once(&story.admitted, "a visitor was let in");
    assert_once(&story.redeemed, "a grant was used");
    assert_eq!(story.overtaken, Vec::<String>::new(), "overtaken in {queue}");
    let places = story.joined.iter().enumerate().map(|(place, name)| (name, place));
    let places: BTreeMap<&String, usize> = places.collect();
    let admitted: BTreeSet<&String> = story.admitted.iter().collect();
    for visit in visits {
        let place = places.get(&visit.name);
        assert!(place.is_some(), "the acknowledged join of {} is lost", visit.name);
        assert_eq!(admitted.contains(&visit.name), visit.entered, "{}", visit.name);
        // Who was told of their place before another one asked for theirs is ahead of them.
        let before = visits.iter().filter(|other| other.told < visit.asked);
        let last = before.map(|other| places[&other.name]).max();
        assert!(last < place.copied(), "{} is ahead of one who was first", visit.name);
    }
    let entered = visits.iter().filter(|visit| visit.entered).count();
    assert_eq!(story.redeemed.len(), entered);
    let audit = system.run_json(&["audit", "verify", queue]);
    assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!([])), "{audit}");
    assert_eq!(audit["visitors"], story.joined.len());
    assert_eq!(audit["admitted"], story.admitted.len());
    assert_eq!(audit["redeemed"], story.redeemed.len());
    entries
}

/// In any stretch of time at most burst + seconds x rate / 60 grants, by the times of the log.
pub fn assert_rate(entries: &[Entry], rate: usize) {
    let mut grants = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == "admitted") {
        let at: jiff::Timestamp = entry.time.parse().unwrap();
        let facts = entry.body["facts"].as_array().unwrap();
        grants.extend(facts.iter().map(|_| at.as_nanosecond()));
    }
    let (rate, burst) = (rate as i128, (rate as i128 / 600).max(1));
    for (first, from) in grants.iter().enumerate() {
        for (last, to) in grants.iter().enumerate().skip(first) {
            let count = (last - first + 1) as i128;
            let over = (count - burst) * 60_000_000_000 > (to - from) * rate;
            assert!(!over, "{count} grants within {} ns, at {rate} a minute", to - from);
        }
    }
}

/// Two projectors, the audit, and a projector that begins with nothing have the same digest and
/// chain at the same entry. Nobody may be left in line. Says how long the last one took.
pub fn assert_same_everywhere(system: &mut System, queue: &str) -> Duration {
    let first = at_rest(system, queue);
    let seq = first["sequence"].to_string();
    let audit = system.run_json(&["audit", "verify", queue, "--seq", &seq]);
    if !system.runs_beside("projector") {
        system.second_projector();
    }
    let pid = system.pid("projector");
    signal(pid, Signal::STOP);
    let second = fingerprints(system, queue);
    signal(pid, Signal::CONT);
    signal(system.pid_beside("projector"), Signal::KILL);
    system.ended_beside("projector");
    system.stop();
    std::fs::remove_dir_all(system.dir.join("projection")).unwrap();
    let began = Instant::now();
    system.up();
    let anew = fingerprints(system, queue);
    let took = began.elapsed();
    for (who, said) in [("second", &second), ("audit", &audit), ("anew", &anew)] {
        for key in ["sequence", "digest", "chain"] {
            assert_eq!(said[key], first[key], "{who} {key}");
        }
    }
    took
}

/// What the projector says once the log has stopped growing.
fn at_rest(system: &System, queue: &str) -> Value {
    let mut said = fingerprints(system, queue);
    let mut since = Instant::now();
    wait_until("the log is at rest", || {
        let now = fingerprints(system, queue);
        if now != said {
            since = Instant::now();
            said = now;
        }
        since.elapsed() > AT_REST
    });
    said
}

/// What a projector says of the queue, as soon as one answers.
fn fingerprints(system: &System, queue: &str) -> Value {
    let mut said = Value::Null;
    wait_until("a projector answers", || {
        let (code, text) = system.run(&["projection", "verify", queue, "--json"]);
        said = serde_json::from_str(&text).unwrap_or_default();
        code == 0
    });
    said
}
