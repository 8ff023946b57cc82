//! People who join as fast as they are acknowledged: into the log as nodes do, and into a sorted set
//! of Redis. A join counts once it is acknowledged.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anteroom::ids;
use anteroom::log::append::{Appender, NodeFact};
use anteroom::log::connection::Log;
use anteroom::log::stream::Limits;
use anteroom::log::subjects::QueueId;
use anteroom::queue::event::Join;
use anteroom::shutdown::Shutdown;
use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::crowd::visitor;
use crate::redis::Redis;
use crate::{NO_SECRET, STREAM_BYTES_MAX, connect};

/// So long they join before they are counted: connections, threads and files are warm then.
const WARM_UP: Duration = Duration::from_millis(300);
/// Parts of what a connection to Redis has in the air: one is answered while the next is under way,
/// so that neither side waits for the other.
const PARTS: usize = 2;

/// How they join, whatever takes them in.
#[derive(Args, Clone, Copy)]
pub(crate) struct Rush {
    /// Writers, each with a connection of its own
    #[arg(long)]
    writers: usize,
    /// Joins of each writer that wait for their acknowledgement
    #[arg(long)]
    in_the_air: usize,
    /// For so long they are counted
    #[arg(long)]
    millis: u64,
}

/// Makes a queue, and has people join it by group commit, as many nodes as there are writers.
pub(crate) async fn into_log(
    operator: &Log,
    node_url: &str,
    queue: &QueueId,
    rush: Rush,
) -> anyhow::Result<Value> {
    let limits = Limits { max_bytes: STREAM_BYTES_MAX, replicas: 1 };
    operator.create_stream(queue, limits, NO_SECRET).await?;
    let mut logs = Vec::new();
    for _ in 0..rush.writers {
        logs.push(connect(node_url).await?);
    }
    let (shutdown, people, window) = (Shutdown::default(), People::default(), rush.window());
    let joining: Vec<_> = logs
        .iter()
        .map(|log| {
            let appender = Appender::start(log, queue, &shutdown);
            shutdown.spawn(keep_appending(appender, people.clone(), rush.in_the_air, window))
        })
        .collect();
    let mut counted = Counted::default();
    for task in joining {
        counted.waits.extend(task.await??.waits);
    }
    counted.said(rush)
}

async fn keep_appending(
    appender: Appender,
    people: People,
    in_the_air: usize,
    window: Window,
) -> anyhow::Result<Counted> {
    let node = ids::node();
    let (mut under_way, mut counted) = (VecDeque::new(), Counted::default());
    while !window.is_over() {
        while under_way.len() < in_the_air {
            let number = people.next(1).start;
            let join = Join::plain(visitor(number), u64::from(number));
            let sent = Instant::now();
            let join = appender.append(NodeFact::Joined(node, join))?;
            under_way.push_back((sent, join));
        }
        let (sent, mut join) = under_way.pop_front().context("nobody joins")?;
        join.known().await?;
        counted.acknowledged(sent, 1, window);
    }
    Ok(counted)
}

/// Has people join a sorted set, in pipelines of commands that take in so many each. Their order is a
/// counter that all connections share: one process has that for nothing, several would need another
/// command for it.
pub(crate) fn into_redis(address: &str, rush: Rush, per_command: u32) -> anyhow::Result<Value> {
    let connections: Vec<Redis> =
        (0..rush.writers).map(|_| Redis::connect(address)).collect::<Result<_, _>>()?;
    let (people, window) = (People::default(), rush.window());
    let counted = std::thread::scope(|scope| {
        let joining: Vec<_> = connections
            .into_iter()
            .map(|redis| scope.spawn(|| keep_adding(redis, &people, rush, per_command, window)))
            .collect();
        let mut counted = Counted::default();
        for thread in joining {
            let of_one = thread.join().map_err(|_| anyhow::anyhow!("a connection panicked"))?;
            counted.waits.extend(of_one?.waits);
        }
        anyhow::Ok(counted)
    })?;
    counted.said(rush)
}

fn keep_adding(
    mut redis: Redis,
    people: &People,
    rush: Rush,
    per_command: u32,
    window: Window,
) -> anyhow::Result<Counted> {
    let part = rush.in_the_air.div_ceil(PARTS);
    let commands = part.div_ceil(per_command as usize);
    let (mut under_way, mut counted) = (VecDeque::new(), Counted::default());
    while !window.is_over() {
        while under_way.len() < rush.in_the_air / part {
            under_way.push_back(Instant::now());
            for _ in 0..commands {
                add_to_line(&mut redis, people.next(per_command))?;
            }
            redis.send()?;
        }
        let sent = under_way.pop_front().context("nobody joins")?;
        for _ in 0..commands {
            added_to_line(&mut redis, per_command)?;
        }
        counted.acknowledged(sent, commands * per_command as usize, window);
    }
    Ok(counted)
}

/// The sorted set that is the line.
pub(crate) const SET: &[u8] = b"queue";

/// Puts a command into the next batch that has these join: who is in line already keeps their place.
pub(crate) fn add_to_line(redis: &mut Redis, numbers: Range<u32>) -> anyhow::Result<()> {
    redis.begin(3 + 2 * numbers.len())?;
    [b"ZADD".as_slice(), SET, b"NX"].iter().try_for_each(|word| redis.word(word))?;
    for number in numbers {
        redis.word(number.to_string().as_bytes())?;
        redis.word(&member(number))?;
    }
    Ok(())
}

/// The acknowledgement of so many who joined with one command.
pub(crate) fn added_to_line(redis: &mut Redis, joins: u32) -> anyhow::Result<()> {
    ensure!(redis.integer()? == u64::from(joins), "somebody was in line already");
    Ok(())
}

/// A visitor's id as it is written in the log, too.
pub(crate) fn member(number: u32) -> [u8; 36] {
    let mut text = [0; 36];
    uuid::Uuid::from_bytes(visitor(number).0).hyphenated().encode_lower(&mut text);
    text
}

/// Numbers that nobody has yet.
#[derive(Clone, Default)]
struct People(Arc<AtomicU32>);

impl People {
    fn next(&self, joins: u32) -> Range<u32> {
        let first = self.0.fetch_add(joins, Ordering::Relaxed);
        first..first + joins
    }
}

/// When joins are counted.
#[derive(Clone, Copy)]
struct Window {
    opens: Instant,
    closes: Instant,
}

impl Window {
    fn is_over(self) -> bool {
        Instant::now() >= self.closes
    }
}

impl Rush {
    fn window(self) -> Window {
        let opens = Instant::now() + WARM_UP;
        Window { opens, closes: opens + Duration::from_millis(self.millis) }
    }
}

/// The joins that were acknowledged while they were counted: how long each waited for it.
#[derive(Default)]
struct Counted {
    waits: Vec<Duration>,
}

impl Counted {
    fn acknowledged(&mut self, sent: Instant, joins: usize, window: Window) {
        let now = Instant::now();
        if (window.opens..window.closes).contains(&now) {
            self.waits.extend(std::iter::repeat_n(now - sent, joins));
        }
    }

    fn said(mut self, rush: Rush) -> anyhow::Result<Value> {
        ensure!(!self.waits.is_empty(), "nobody was acknowledged in {} ms", rush.millis);
        self.waits.sort_unstable();
        let millis = |percent: usize| {
            let wait = self.waits.get(self.waits.len() * percent / 100);
            wait.map(|wait| wait.as_secs_f64() * 1000.0)
        };
        Ok(json!({
            "joins_per_second": self.waits.len() as f64 * 1000.0 / rush.millis as f64,
            "join_p50_ms": millis(50),
            "join_p99_ms": millis(99),
        }))
    }
}
