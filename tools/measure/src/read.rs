//! Reading a log without doing anything with it, and asking a projector.

use std::time::{Duration, Instant};

use anteroom::log::connection::Log;
use anteroom::log::record::Decoded;
use anteroom::log::subjects::QueueId;
use anteroom::log::tail::{self, Heard};
use anteroom::queue::digest::{Chain, digest, hex};
use anteroom::queue::event::{Level, Seq};
use anteroom::queue::line::Line;
use anteroom::shutdown::Shutdown;
use anteroom::wire::ask::{PlaceAnswer, PlaceQuestion};
use anteroom::wire::id::Id;
use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::crowd::visitor;

/// Between two questions to a projector that does not answer yet.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Reads the log as every role does and decodes each entry, and does nothing else.
pub(crate) async fn read(log: &Log, queue: &QueueId) -> anyhow::Result<Value> {
    let end = log.stream_info(queue).await?.last;
    let shutdown = Shutdown::default();
    let begun = Instant::now();
    let mut tail = tail::follow(log, queue, Seq(1), None, &shutdown);
    let mut read = Seq(0);
    while read < end {
        for record in records(tail.recv().await)? {
            let written = record.read(queue, Level::NEWEST)?;
            let (_, why) = written.at_level(Level::FIRST);
            ensure!(why.is_none(), "entry {:?} is void", record.seq);
            read = record.seq;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    shutdown.stop();
    Ok(json!({ "entries": read.0, "seconds": seconds }))
}

/// Reads and folds the log: what a rebuild would take without its store.
pub(crate) async fn replay(log: &Log, queue: &QueueId) -> anyhow::Result<Value> {
    let end = log.stream_info(queue).await?.last;
    let shutdown = Shutdown::default();
    let begun = Instant::now();
    let tail = tail::follow(log, queue, Seq(1), None, &shutdown);
    let (mut line, mut last) = (Line::default(), Chain::default());
    let mut tail = tail::decode(tail, queue, last, Level::NEWEST, &shutdown);
    while line.seq() < end {
        for Decoded { seq, stored, chain, written } in records(tail.recv().await)? {
            let (entry, _) = written.at_level(line.level());
            line.apply(seq, stored, entry);
            last = chain;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let digest = digest(&line);
    let digest_seconds = begun.elapsed().as_secs_f64() - seconds;
    shutdown.stop();
    Ok(json!({
        "entries": line.seq().0,
        "seconds": seconds,
        "digest_seconds": digest_seconds,
        "digest": hex(&digest),
        "chain": hex(&last.0),
    }))
}

fn records<R>(heard: Option<Heard<R>>) -> anyhow::Result<Vec<R>> {
    match heard.context("the tail has ended")? {
        Heard::Records(records) => Ok(records),
        Heard::Info(_) => Ok(Vec::new()),
        Heard::Away(_) => bail!("the log can't be reached"),
        Heard::Halt(halt) => Err(halt.into()),
    }
}

/// Asks for the place of one visitor until a projector that has applied this entry tells it.
pub(crate) async fn serving(
    log: &Log,
    queue: &QueueId,
    person: u32,
    at_least: u64,
) -> anyhow::Result<Value> {
    println!("asking");
    let question = PlaceQuestion { visitors: vec![Id(visitor(person).0)], at_least };
    loop {
        if let Ok(answer) = log.ask::<_, PlaceAnswer>(queue, "place", &question).await {
            let place = answer.places.first().context("no place in the answer")?;
            let ticket = place.as_ref().map(|place| place.ticket);
            return Ok(json!({ "ticket": ticket, "through": answer.through }));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
