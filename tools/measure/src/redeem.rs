//! Tokens that are used and passes that are shown, over HTTP, as a site and its gateway do. The tokens are
//! made from the log's grants and the key, as admission makes them, so that nobody needs to sit on a socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anteroom::admission::signer::Signer;
use anteroom::ids;
use anteroom::log::append::{Appender, NodeFact};
use anteroom::log::connection::Log;
use anteroom::log::subjects::QueueId;
use anteroom::log::tail::{self, Heard};
use anteroom::queue::event::{Join, Level, Seq, Ticket};
use anteroom::queue::line::Line;
use anteroom::shutdown::Shutdown;
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::connect;
use crate::crowd::visitor;
use crate::http::Connection;

/// Joins that wait for their acknowledgement.
const JOINS_IN_THE_AIR: usize = 4_096;
/// Between the last grant and the first redemption everyone has folded it.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections over which redemptions come by the clock: more than are ever under way together.
const CONNECTIONS_PACED: usize = 64;
/// Each request of a connection shows a pass so far from the one before: a prime, so that all are shown.
const STRIDE: usize = 7_919;

/// What is asked, and how much of it.
#[derive(Args)]
pub(crate) struct Load {
    /// The same server, with a node's identity
    #[arg(long)]
    node: String,
    /// The key that admission signs with
    #[arg(long)]
    signing_key: PathBuf,
    /// The node, as host:port
    #[arg(long)]
    api: String,
    /// Its process
    #[arg(long)]
    pid: u32,
    /// How many are let in; who is left after those by the clock goes as fast as it goes
    #[arg(long)]
    people: u32,
    /// Redemptions under way at the same time
    #[arg(long)]
    at_once: usize,
    /// Redemptions a second, when they come by the clock
    #[arg(long)]
    rate: u32,
    /// For so long each is measured
    #[arg(long)]
    seconds: u64,
}

impl Load {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Lets people in, uses their tokens, and shows their passes.
pub(crate) async fn redeem(log: &Log, queue: &QueueId, load: &Load) -> anyhow::Result<Value> {
    let tokens = tokens(log, queue, load).await?;
    tokio::time::sleep(SETTLE).await;
    let tokens = Arc::new(Stock { texts: tokens, next: AtomicUsize::new(0) });
    let paced = paced(load, &tokens).await?;
    let most = at_once(load, Asked::Redeem(tokens), Duration::MAX).await?;
    let passes: Arc<Vec<String>> = Arc::new([paced.passes.as_slice(), &most.passes].concat());
    let address = format!("/api/authorize?queue={queue}");
    let before = cpu(load.pid)?;
    let shown =
        at_once(load, Asked::Authorize(address.into(), Arc::clone(&passes)), load.time()).await?;
    let between = cpu(load.pid)?;
    // The same way through the node, without a question.
    let bare = at_once(load, Asked::Authorize("/healthz".into(), Arc::clone(&passes)), load.time())
        .await?;
    let after = cpu(load.pid)?;
    let micros = |cpu: Duration, of: &Waits| cpu.as_secs_f64() * 1e6 / of.waits.len() as f64;
    Ok(json!({
        "redeem_per_second": most.per_second(),
        "redeem_p50_ms": most.millis(50),
        "redeem_p99_ms": most.millis(99),
        "paced_per_second": paced.per_second(),
        "paced_p50_ms": paced.millis(50),
        "paced_p99_ms": paced.millis(99),
        "paced_last_ms": paced.millis(100),
        "authorize_per_second": shown.per_second(),
        "authorize_p50_ms": shown.millis(50),
        "authorize_p99_ms": shown.millis(99),
        "authorize_cpu_us": micros(between - before, &shown),
        "bare_per_second": bare.per_second(),
        "bare_cpu_us": micros(after - between, &bare),
        "redeemed": passes.len(),
    }))
}

/// Tokens of people who have joined and were let in.
async fn tokens(log: &Log, queue: &QueueId, load: &Load) -> anyhow::Result<Vec<String>> {
    let pem = std::fs::read_to_string(&load.signing_key)?;
    let signer = Signer::new(&pem, "anteroom".to_owned(), None)?;
    join(&connect(&load.node).await?, queue, load.people).await?;
    let shutdown = Shutdown::default();
    let mut tail = tail::follow(log, queue, Seq(1), None, &shutdown);
    let mut line = Line::default();
    while line.admitted() < load.people as usize {
        match tail.recv().await.context("the tail has ended")? {
            Heard::Records(records) => {
                for record in records {
                    let written = record.read(queue, Level::NEWEST)?;
                    let (entry, _) = written.at_level(line.level());
                    line.apply(record.seq, record.stored, entry);
                }
            }
            Heard::Info(_) => {}
            Heard::Away(_) => bail!("the log can't be reached"),
            Heard::Halt(halt) => return Err(halt.into()),
        }
    }
    shutdown.stop();
    let token = |number: u32| {
        let place = line.place(Ticket(number))?;
        signer.token(queue, place.visitor, line.grant(Ticket(number))?)
    };
    (0..load.people).map(token).collect::<Option<_>>().context("a grant is of another key")
}

async fn join(log: &Log, queue: &QueueId, people: u32) -> anyhow::Result<()> {
    let (shutdown, node) = (Shutdown::default(), ids::node());
    let appender = Appender::start(log, queue, &shutdown);
    let mut under_way = std::collections::VecDeque::new();
    for number in 0..people {
        let join = Join::plain(visitor(number), u64::from(number));
        under_way.push_back(appender.append(NodeFact::Joined(node, join))?);
        if under_way.len() >= JOINS_IN_THE_AIR {
            under_way.pop_front().context("nobody joins")?.known().await?;
        }
    }
    for mut join in under_way {
        join.known().await?;
    }
    shutdown.stop();
    Ok(())
}

/// Tokens that nobody has used yet.
struct Stock {
    texts: Vec<String>,
    next: AtomicUsize,
}

impl Stock {
    fn take(&self) -> Option<&str> {
        self.texts.get(self.next.fetch_add(1, Ordering::Relaxed)).map(String::as_str)
    }
}

/// How long each waited, and what they were given.
#[derive(Default)]
struct Waits {
    waits: Vec<Duration>,
    passes: Vec<String>,
    /// How long all of it took.
    took: Duration,
}

impl Waits {
    fn per_second(&self) -> f64 {
        self.waits.len() as f64 / self.took.as_secs_f64()
    }

    /// The wait that so many percent did not exceed.
    fn millis(&self, percent: usize) -> Option<f64> {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let last = waits.len().checked_sub(1)?;
        let wait = waits.get((waits.len() * percent / 100).min(last))?;
        Some(wait.as_secs_f64() * 1e3)
    }

    /// What all of these did since `begun`.
    async fn of(
        tasks: Vec<tokio::task::JoinHandle<anyhow::Result<Self>>>,
        begun: Instant,
    ) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for task in tasks {
            let one = task.await??;
            all.waits.extend(one.waits);
            all.passes.extend(one.passes);
        }
        all.took = begun.elapsed();
        Ok(all)
    }
}

/// What a connection asks again and again.
#[derive(Clone)]
enum Asked {
    /// That a token be used.
    Redeem(Arc<Stock>),
    /// Whether one who shows one of these passes may pass, or whatever else is at the address.
    Authorize(Arc<str>, Arc<Vec<String>>),
}

impl Asked {
    /// Asks once and adds what came of it, which began to be waited for then; false when there is nothing
    /// left to be asked.
    async fn once(
        &self,
        connection: &mut Connection,
        number: usize,
        began: Instant,
        waits: &mut Waits,
    ) -> anyhow::Result<bool> {
        match self {
            Self::Redeem(stock) => {
                let Some(token) = stock.take() else { return Ok(false) };
                let body = json!({ "token": token }).to_string();
                let (status, body) = connection.post("/api/tokens/redeem", body).await?;
                ensure!(status == 200, "a redemption was answered with {status}");
                let body: Value = serde_json::from_slice(&body)?;
                waits.passes.extend(body["pass"].as_str().map(str::to_owned));
            }
            Self::Authorize(address, passes) => {
                let pass = passes.get(number % passes.len()).context("no pass")?;
                let (status, _) = connection.get(address, pass).await?;
                ensure!(status == 200, "{address} was answered with {status}");
            }
        }
        waits.waits.push(began.elapsed());
        Ok(true)
    }
}

/// So many connections, each of which asks again as soon as it is answered, for so long or until there is
/// nothing left.
async fn at_once(load: &Load, asked: Asked, time: Duration) -> anyhow::Result<Waits> {
    let begun = Instant::now();
    let keep_asking = |number: usize| {
        let (api, asked) = (load.api.clone(), asked.clone());
        async move {
            let mut connection = Connection::open(&api).await?;
            let mut waits = Waits::default();
            // Each goes through the passes from another one on.
            let mut next = number;
            while begun.elapsed() < time
                && asked.once(&mut connection, next, Instant::now(), &mut waits).await?
            {
                next = next.wrapping_add(STRIDE);
            }
            anyhow::Ok(waits)
        }
    };
    Waits::of((0..load.at_once).map(|it| tokio::spawn(keep_asking(it))).collect(), begun).await
}

/// So many a second, whether or not those before are answered; each waits from when it was to begin.
async fn paced(load: &Load, tokens: &Arc<Stock>) -> anyhow::Result<Waits> {
    let begun = Instant::now();
    let asked = Asked::Redeem(Arc::clone(tokens));
    let of_connection = |number: usize| {
        let (api, asked, rate, time) = (load.api.clone(), asked.clone(), load.rate, load.time());
        async move {
            let mut connection = Connection::open(&api).await?;
            let mut waits = Waits::default();
            for turn in (number..).step_by(CONNECTIONS_PACED) {
                let due = Duration::from_secs_f64(turn as f64 / f64::from(rate));
                if due >= time {
                    return anyhow::Ok(waits);
                }
                tokio::time::sleep_until((begun + due).into()).await;
                let was_left = asked.once(&mut connection, turn, begun + due, &mut waits).await?;
                ensure!(was_left, "more people must be let in for so many redemptions");
            }
            Ok(waits)
        }
    };
    Waits::of((0..CONNECTIONS_PACED).map(|it| tokio::spawn(of_connection(it))).collect(), begun)
        .await
}

/// What a process has used of the processors so far (proc(5), in hundredths of a second).
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in it")?;
    let ticks = |index: usize| fields.split_whitespace().nth(index).and_then(|it| it.parse().ok());
    let (user, system): (u64, u64) = ticks(11).zip(ticks(12)).context("no times in it")?;
    Ok(Duration::from_millis(10 * (user + system)))
}
