//! What the feed says of the same movement while few wait and while many do, and how long a snapshot
//! of either takes. A projector must be running.

use std::time::{Duration, Instant};

use anteroom::log::connection::Log;
use anteroom::log::stream::Limits;
use anteroom::log::subjects::{self, QueueId};
use anteroom::log::talk::{ASK_WAIT_MAX, Listener};
use anteroom::wire;
use anteroom::wire::ask::SnapshotQuestion;
use anteroom::wire::feed::SnapshotPart;
use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::crowd::{Act, Crowd};
use crate::fill::Writer;
use crate::{NO_SECRET, STREAM_BYTES_MAX, connect};

/// So often everyone's entries of one round are written.
const ROUND_EVERY: Duration = Duration::from_millis(20);
/// What happens in a round, an entry each: as many come as go, so that as many wait at the end as at
/// the beginning. It is 150 people a second who are let in.
const ROUND: [(Act, usize); 7] = [
    (Act::Join, 4),
    (Act::Go, 2),
    (Act::ComeBack, 2),
    (Act::Leave, 1),
    (Act::Admit, 3),
    (Act::Redeem, 2),
    (Act::Release, 2),
];
/// People of an entry at first: few enough that there are some on every node.
const PER_ENTRY: usize = 100;
/// Rounds before bytes are counted: until then there is nobody who could redeem or be released.
const WARM_UP_ROUNDS: u32 = 10;
/// What is written last is in the feed within this.
const AFTERMATH: Duration = Duration::from_millis(500);
/// Snapshots that are taken; a projector gives the same one to all who ask within a second.
const SNAPSHOTS: usize = 5;
const SNAPSHOT_EVERY: Duration = Duration::from_millis(1_100);
/// A projector has folded the log by then.
const FOLDED_WAIT_MAX: Duration = Duration::from_secs(60);

/// What is compared.
#[derive(Args)]
pub(crate) struct Sizes {
    /// The NATS server with the operator's identity, as nats://user:password@host:port
    #[arg(long)]
    nats: String,
    /// The same with a node's
    #[arg(long)]
    node: String,
    /// How many wait; once for each line
    #[arg(long)]
    people: Vec<usize>,
    /// For how long they move
    #[arg(long)]
    seconds: u64,
}

/// Makes a queue for each size, moves all in the same way at the same time, and counts.
pub(crate) async fn feed(sizes: &Sizes) -> anyhow::Result<Value> {
    let (operator, node) = (connect(&sizes.nats).await?, connect(&sizes.node).await?);
    let mut lines = Vec::new();
    for people in &sizes.people {
        lines.push(Moving::begin(&operator, &node, &sizes.nats, *people).await?);
    }
    for _ in 0..WARM_UP_ROUNDS {
        move_all(&mut lines).await?;
    }
    tokio::time::sleep(AFTERMATH).await;
    for line in &mut lines {
        line.count().await;
        line.heard = Heard::default();
    }
    let mut rounds = tokio::time::interval(ROUND_EVERY);
    let until = Instant::now() + Duration::from_secs(sizes.seconds);
    while Instant::now() < until {
        rounds.tick().await;
        move_all(&mut lines).await?;
    }
    tokio::time::sleep(AFTERMATH).await;
    let mut said = Vec::new();
    for line in &mut lines {
        line.count().await;
        said.push(line.said(&node, sizes.seconds).await?);
    }
    Ok(json!({ "lines": said }))
}

async fn move_all(lines: &mut [Moving]) -> anyhow::Result<()> {
    for (act, count) in ROUND {
        for line in &mut *lines {
            line.writer.write(&mut line.crowd, act, count).await?;
        }
    }
    Ok(())
}

/// One line, and what is heard of it.
struct Moving {
    queue: QueueId,
    people: usize,
    crowd: Crowd,
    writer: Writer,
    feed: Listener,
    heard: Heard,
}

#[derive(Default)]
struct Heard {
    frames: u64,
    bytes: u64,
    largest: usize,
}

impl Moving {
    async fn begin(operator: &Log, node: &Log, url: &str, people: usize) -> anyhow::Result<Self> {
        let queue = QueueId::parse(&format!("of-{people}")).context("no queue's name")?;
        let limits = Limits { max_bytes: STREAM_BYTES_MAX, replicas: 1 };
        operator.create_stream(&queue, limits, NO_SECRET).await?;
        let mut writer = Writer::connect(url, &queue).await?;
        let mut crowd = Crowd::default();
        writer.write(&mut crowd, Act::Open, 1).await?;
        for from in (0..people).step_by(PER_ENTRY) {
            writer.write(&mut crowd, Act::Join, PER_ENTRY.min(people - from)).await?;
        }
        writer.all_acknowledged().await?;
        let until = Instant::now() + FOLDED_WAIT_MAX;
        while snapshot(node, &queue, crowd.line().seq().0).await.is_err() {
            ensure!(Instant::now() < until, "no projector folds {queue}");
            tokio::time::sleep(ROUND_EVERY).await;
        }
        let feed = node.listen(subjects::feed(&queue)).await.context("no connection")?;
        Ok(Self { queue, people, crowd, writer, feed, heard: Heard::default() })
    }

    /// Counts what was heard so far.
    async fn count(&mut self) {
        while let Ok(Some(frame)) = tokio::time::timeout(Duration::ZERO, self.feed.next()).await {
            self.heard.frames += 1;
            self.heard.bytes += frame.payload.len() as u64;
            self.heard.largest = self.heard.largest.max(frame.payload.len());
        }
    }

    async fn said(&self, node: &Log, seconds: u64) -> anyhow::Result<Value> {
        let (mut millis, mut bytes) = (Vec::new(), 0);
        for _ in 0..SNAPSHOTS {
            tokio::time::sleep(SNAPSHOT_EVERY).await;
            let begun = Instant::now();
            bytes = snapshot(node, &self.queue, self.crowd.line().seq().0).await?;
            millis.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        millis.sort_by(f64::total_cmp);
        let per_second = |number: u64| number as f64 / seconds as f64;
        Ok(json!({
            "people": self.people,
            "waiting": self.crowd.line().waiting().len(),
            "frames_per_second": per_second(self.heard.frames),
            "bytes_per_second": per_second(self.heard.bytes),
            "largest_frame_bytes": self.heard.largest,
            "snapshot_bytes": bytes,
            "snapshot_ms": millis[SNAPSHOTS / 2],
        }))
    }
}

/// Takes a snapshot as a node does; its bytes.
async fn snapshot(node: &Log, queue: &QueueId, at_least: u64) -> anyhow::Result<usize> {
    let (mut bytes, mut id) = (Vec::new(), None);
    loop {
        let question = SnapshotQuestion { at_least, id, offset: bytes.len() as u64 };
        let question = serde_json::to_vec(&question)?;
        let answer =
            node.ask_bytes(subjects::ask(queue, "snapshot"), question, ASK_WAIT_MAX).await?;
        let part: SnapshotPart = wire::feed::read(&answer)?;
        ensure!(id.is_none_or(|id| id == part.id), "parts of two snapshots");
        id = Some(part.id);
        bytes.extend(part.bytes);
        if bytes.len() as u64 >= part.total {
            wire::feed::read_snapshot(&bytes)?;
            return Ok(bytes.len());
        }
    }
}
