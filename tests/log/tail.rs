//! Readers: every entry once, in order, whatever happens to the server; and when to stop.

use std::collections::BTreeMap;

use anteroom::clock;
use anteroom::log::append::{Appended, Pending};
use anteroom::log::connection::Log;
use anteroom::log::record::{Halt, Record};
use anteroom::log::tail::{Heard, decode, follow};
use anteroom::queue::digest::Chain;
use anteroom::queue::event::{At, Entry, Level, Seq, VisitorId};
use anteroom::queue::line::Line;
use anteroom::wire::event::{Read, read};
use futures_util::FutureExt as _;
use serde_json::json;
use tokio::sync::mpsc;

use crate::world::{NODE, ROOMY, SECRET, World, ask, joined, joined_json, put, soon};

/// A reader of the log of `demo`, who notices a gap and a double.
pub(crate) struct Reader {
    heard: mpsc::Receiver<Heard>,
    next: u64,
}

impl Reader {
    pub(crate) fn from(world: &World, log: &Log, next: u64, identity: Option<At>) -> Self {
        let heard = follow(log, &world.queue, Seq(next), identity, &world.shutdown);
        Self { heard, next }
    }

    /// The records up to this one.
    pub(crate) async fn up_to(&mut self, last: u64) -> Vec<Record> {
        soon(self.read_up_to(last)).await
    }

    async fn read_up_to(&mut self, last: u64) -> Vec<Record> {
        let mut records = Vec::new();
        while self.next <= last {
            match self.heard.recv().await.expect("the tail goes on") {
                Heard::Records(batch) => {
                    for record in batch {
                        assert_eq!(record.seq, Seq(self.next));
                        self.next += 1;
                        records.push(record);
                    }
                }
                Heard::Info(_) | Heard::Away(_) => {}
                Heard::Halt(halt) => panic!("{halt}"),
            }
        }
        records
    }

    /// Waits for the next look at the stream: what came before it is read.
    pub(crate) async fn looked(&mut self) {
        soon(async {
            loop {
                match self.heard.recv().await.expect("the tail goes on") {
                    Heard::Info(_) => return,
                    Heard::Away(_) => {}
                    Heard::Records(records) => panic!("nobody wrote, but {records:?}"),
                    Heard::Halt(halt) => panic!("{halt}"),
                }
            }
        })
        .await;
    }

    async fn halted(&mut self) -> Halt {
        soon(async {
            loop {
                match self.heard.recv().await.expect("the tail says why it ends") {
                    Heard::Halt(halt) => return halt,
                    Heard::Info(_) | Heard::Away(_) => {}
                    Heard::Records(records) => panic!("read from another stream: {records:?}"),
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_reader_begins_anywhere_and_gets_what_is_stored() {
    let world = World::new().await;
    let node = world.raw("node").await;
    for number in 0..10 {
        put(&node, "node.joined", &[], joined_json(&format!("v{number}"))).await;
    }
    let log = world.log("projector").await;
    let mut reader = Reader::from(&world, &log, 4, None);
    let mut records = reader.up_to(10).await;
    // Live from here on.
    reader.looked().await;
    for number in 10..13 {
        put(&node, "node.joined", &[], joined_json(&format!("v{number}"))).await;
    }
    records.extend(reader.up_to(13).await);
    let stored = world.stored().await;
    assert_eq!(records.len(), 10);
    for (record, stored) in records.iter().zip(&stored[3..]) {
        assert_eq!(record.seq, Seq(stored.seq));
        assert_eq!(Some(record.stored), clock::parse_rfc3339(&stored.time));
        assert_eq!(record.subject, stored.subject);
        assert_eq!(record.payload, stored.payload);
    }
}

#[tokio::test]
async fn a_reader_who_comes_while_others_write_misses_nothing() {
    let world = World::new().await;
    let appender = world.appender().await;
    let log = world.log("projector").await;
    let writing = async {
        for number in 0..300 {
            let mut pending = appender.append(joined(&format!("v{number}"), 1)).unwrap();
            soon(pending.known()).await.unwrap();
        }
    };
    let reading = async {
        for _ in 0..8 {
            let mut reader = Reader::from(&world, &log, 1, None);
            reader.up_to(100).await;
        }
        Reader::from(&world, &log, 1, None).up_to(300).await
    };
    let ((), records) = tokio::join!(writing, reading);
    assert_eq!(records.len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_while_it_stores_loses_nothing_that_it_acknowledged() {
    const FACTS: usize = 20_000;
    let mut world = World::new().await;
    let appender = world.appender().await;
    let log = world.log("projector").await;
    let mut reader = Reader::from(&world, &log, 1, None);
    reader.looked().await;
    let name = |number: usize| format!("v{number}");
    let mut pending: Vec<Pending> =
        (0..FACTS).map(|number| appender.append(joined(&name(number), 1)).unwrap()).collect();
    let mut told: Vec<Option<Appended>> = Vec::new();
    for pending in &mut pending[..FACTS / 4] {
        told.push(Some(soon(pending.known()).await.unwrap()));
    }
    world.nats.kill();
    for pending in &mut pending[FACTS / 4..] {
        told.push(pending.known().now_or_never().map(Result::unwrap));
    }
    let unanswered = told.iter().filter(|told| told.is_none()).count();
    assert!(unanswered > 0, "the server died too late");
    world.nats.start();
    for (told, pending) in told.iter_mut().zip(&mut pending) {
        if told.is_none() {
            *told = Some(soon(pending.known()).await.unwrap());
        }
    }
    let told: Vec<Appended> = told.into_iter().flatten().collect();

    let last = told.iter().map(|told| told.seq).max().unwrap();
    let records = reader.up_to(last.0).await;
    let mut found = BTreeMap::<VisitorId, Vec<Appended>>::new();
    for record in &records {
        let read = read("node.joined", &record.payload, Level::NEWEST);
        let Read::Entry(_, Entry::Joined(joined)) = read else { panic!("{record:?}") };
        for (index, join) in (0..).zip(joined.visitors) {
            found.entry(join.visitor).or_default().push(Appended { seq: record.seq, index });
        }
    }
    for (number, told) in told.iter().enumerate() {
        let visitor = crate::world::visitor(&name(number));
        assert_eq!(found.remove(&visitor), Some(vec![*told]), "{number}");
    }
    assert!(found.is_empty());
    assert_eq!(world.stored().await.len(), records.len());
    say(&format!("killed with {unanswered} of {FACTS} facts unanswered; {last:?} entries"));
}

#[tokio::test]
async fn a_reader_does_not_go_on_in_another_stream() {
    let world = World::new().await;
    let log = world.log("projector").await;
    let first = log.stream_info(&world.queue).await.unwrap();
    let node = world.raw("node").await;
    put(&node, "node.joined", &[], joined_json("ann")).await;
    let mut reader = Reader::from(&world, &log, 1, None);
    reader.up_to(1).await;

    let operator = world.raw("operator").await;
    let deleted = ask(&operator, "$JS.API.STREAM.DELETE.ANTEROOM_demo", json!({})).await;
    assert_eq!(deleted["success"], true);
    // While there is none, a reader who knew it does not wait for another.
    let mut knew_it = Reader::from(&world, &log, 2, Some(first.created));
    assert_eq!(knew_it.halted().await, Halt::OtherStream);
    world.log("admission").await.create_stream(&world.queue, ROOMY, SECRET).await.unwrap();
    put(&node, "node.joined", &[], joined_json("bob")).await;
    assert_eq!(reader.halted().await, Halt::OtherStream);
    let mut knew_it = Reader::from(&world, &log, 1, Some(first.created));
    assert_eq!(knew_it.halted().await, Halt::OtherStream);
    // One who has read further than the stream goes has read another.
    let mut ahead = Reader::from(&world, &log, 3, None);
    assert_eq!(ahead.halted().await, Halt::OtherStream);
    let mut new = Reader::from(&world, &log, 1, None);
    assert_eq!(new.up_to(1).await.len(), 1);
}

#[tokio::test]
async fn what_no_reader_may_believe_is_void_and_what_raises_the_level_is_not() {
    let world = World::new().await;
    let (node, admission) = (world.raw("node").await, world.raw("admission").await);
    let log = world.log("projector").await;
    let mut reader = Reader::from(&world, &log, 1, None);
    reader.looked().await;
    put(&node, "node.joined", &[], joined_json("ann")).await;
    put(&node, "node.admitted", &[], joined_json("ann")).await;
    put(&node, "node.joined", &[], "no JSON").await;
    put(&node, "node.joined", &[], "").await;
    put(&admission, "admission.joined", &[], joined_json("ann")).await;
    put(&admission, "admission.configured", &[], r#"{"v":1}"#).await;
    put(&node, "node.joined", &[], r#"{"v":3,"people":["ann"]}"#).await;
    let raised = json!({
        "v": 2, "prev": 6, "basis": 7, "now": 1_795_377_600_123_u64, "worker": NODE.to_string(),
        "level": 3, "by": "operator",
    });
    put(&admission, "admission.configured", &[], raised.to_string()).await;
    let live = reader.up_to(8).await;
    let fetched = log.fetch(&world.queue, Seq(1), 10).await.unwrap();
    assert_eq!(live, fetched);
    let mut line = Line::default();
    let as_read: Vec<&str> = live
        .iter()
        .map(|record| {
            let written = record.read(&world.queue, Level::NEWEST).unwrap();
            let (entry, _) = written.at_level(line.level());
            match (line.raised_by(entry), entry) {
                (Some(Level(3)), _) => return "level 3",
                (Some(level), _) => panic!("level {level}"),
                (None, _) => {}
            }
            line.apply(record.seq, record.stored, entry);
            match entry {
                Entry::Void { fenced: false } => "void",
                Entry::Void { fenced: true } => "void, fenced",
                Entry::Joined(_)
                | Entry::Reconnected(_)
                | Entry::Disconnected(_)
                | Entry::Left(_)
                | Entry::Decided(_) => "entry",
            }
        })
        .collect();
    let void = ["void", "void", "void", "void, fenced", "void, fenced", "void"];
    assert_eq!(as_read, [["entry"].as_slice(), &void, &["level 3"]].concat());
}

#[tokio::test]
async fn a_log_that_begins_with_version_1_is_not_read() {
    let world = World::new().await;
    let admission = world.raw("admission").await;
    put(&admission, "admission.configured", &[], r#"{"v":1}"#).await;
    let log = world.log("projector").await;
    let heard = follow(&log, &world.queue, Seq(1), None, &world.shutdown);
    let (chain, newest) = (Chain::default(), Level::NEWEST);
    let mut decoded = decode(heard, &world.queue, chain, newest, &world.shutdown);
    let halt = soon(async {
        loop {
            match decoded.recv().await.expect("it says why it ends") {
                Heard::Halt(halt) => return halt,
                Heard::Records(records) => assert_eq!(records, []),
                Heard::Info(_) | Heard::Away(_) => {}
            }
        }
    });
    assert_eq!(halt.await, Halt::Version1);
}

#[expect(clippy::print_stdout, reason = "a kill test tells what it saw")]
fn say(what: &str) {
    println!("{what}");
}
