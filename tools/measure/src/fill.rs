//! A log of so many people, written as fast as the server takes it and the policy lets people in.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use anteroom::log::connection::Log;
use anteroom::log::stream::Limits;
use anteroom::log::subjects::{self, QueueId};
use anteroom::queue::event::{Entry, Level, Millis};
use anteroom::wire;
use anyhow::{Context as _, ensure};
use async_nats::{Client, ConnectOptions, ServerAddr, Subscriber};
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::crowd::{Act, Crowd, RATE_PER_MINUTE};
use crate::{NO_SECRET, STREAM_BYTES_MAX};

/// Entries that are on their way to the server.
const IN_FLIGHT_MAX: usize = 1_000;
/// So long before its turn somebody is let in at most: a fifth of the burst.
const EARLY_MAX: Duration = Duration::from_millis(20);
/// The people of one turn: so many join, and then so many others do something.
const PEOPLE_PER_TURN: usize = 10_000;
/// What happens to the people of a turn besides: so much of each for every fact besides a join.
const ACTS: [(Act, usize); 6] = [
    (Act::Go, 2_300),
    (Act::ComeBack, 1_700),
    (Act::Leave, 2_000),
    (Act::Admit, 1_500),
    (Act::Redeem, 1_400),
    (Act::Release, 1_100),
];

/// How long a log is.
#[derive(Args)]
pub(crate) struct Size {
    /// How many join: a multiple of 10,000
    #[arg(long)]
    people: usize,
    /// How many facts there are besides for each who joins; the third and further ones are of
    /// connections that end and come back
    #[arg(long)]
    others: usize,
    /// Facts in one entry
    #[arg(long)]
    per_entry: usize,
}

/// Makes the queue and writes its log.
pub(crate) async fn fill(
    log: &Log,
    url: &str,
    queue: &QueueId,
    size: &Size,
) -> anyhow::Result<Value> {
    let begun = Instant::now();
    let limits = Limits { max_bytes: STREAM_BYTES_MAX, replicas: 1 };
    log.create_stream(queue, limits, NO_SECRET).await?;
    let mut writer = Writer::connect(url, queue).await?;
    let mut crowd = Crowd::default();
    let mut facts = 3;
    writer.write(&mut crowd, Act::Open, 1).await?;
    for _ in 0..size.people / PEOPLE_PER_TURN {
        let mut acts = vec![(Act::Join, PEOPLE_PER_TURN)];
        if size.others > 0 {
            acts.push((Act::Configure, 1));
            acts.extend(ACTS);
        }
        for _ in 0..2 * size.others.saturating_sub(1) {
            // Of the first turn's people, too, so many are there on every node.
            acts.extend([(Act::Go, PEOPLE_PER_TURN / 4), (Act::ComeBack, PEOPLE_PER_TURN / 4)]);
        }
        for (act, count) in acts {
            facts += count;
            for at in (0..count).step_by(size.per_entry) {
                writer.write(&mut crowd, act, size.per_entry.min(count - at)).await?;
            }
        }
    }
    writer.all_acknowledged().await?;
    let info = log.stream_info(queue).await?;
    ensure!(info.last == crowd.line().seq(), "the log has other entries besides");
    Ok(json!({
        "people": crowd.line().places().len(),
        "waiting": crowd.line().waiting().len(),
        "facts": facts,
        "entries": info.last.0,
        "bytes": info.bytes,
        "seconds": begun.elapsed().as_secs_f64(),
    }))
}

fn wall_clock() -> anyhow::Result<Millis> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(Millis(u64::try_from(now.as_millis())?))
}

/// One connection keeps the order of what it is given, so the sequences are known beforehand.
pub(crate) struct Writer {
    client: Client,
    acks: Subscriber,
    inbox: String,
    queue: QueueId,
    sent: u64,
    in_flight: VecDeque<u64>,
    /// Before this nobody more may be let in.
    admit_at: Instant,
}

impl Writer {
    pub(crate) async fn connect(url: &str, queue: &QueueId) -> anyhow::Result<Self> {
        let server: ServerAddr = url.parse()?;
        let user = server.username().context("no user")?.to_owned();
        let password = server.password().context("no password")?.to_owned();
        let client = ConnectOptions::with_user_and_password(user, password).connect(server).await?;
        let inbox = client.new_inbox();
        let acks = client.subscribe(inbox.clone()).await?;
        let in_flight = VecDeque::new();
        let admit_at = Instant::now();
        Ok(Self { client, acks, inbox, queue: queue.clone(), sent: 0, in_flight, admit_at })
    }

    /// Writes the next entry of these people.
    pub(crate) async fn write(
        &mut self,
        crowd: &mut Crowd,
        act: Act,
        count: usize,
    ) -> anyhow::Result<()> {
        if act == Act::Admit {
            self.wait_for_turn(count).await?;
        }
        let mut entry = crowd.act(act, count);
        if let Entry::Decided(decision) = &mut entry {
            // The log has the machine's time, unlike the fold of the crowd.
            decision.now = wall_clock()?;
        }
        let (writer, kind, payload) =
            wire::event::write(&entry, Level::FIRST).context("can't be written")?;
        let subject = subjects::log(&self.queue, writer, kind);
        self.client.publish_with_reply(subject, self.inbox.clone(), payload.into()).await?;
        self.sent += 1;
        self.in_flight.push_back(self.sent);
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            self.acknowledged().await?;
        }
        Ok(())
    }

    /// Waits until the rate lets so many in. Nothing is on its way then, so that what the server
    /// stores late is not stored together with what follows.
    async fn wait_for_turn(&mut self, count: usize) -> anyhow::Result<()> {
        self.all_acknowledged().await?;
        // A timer has milliseconds, and a turn may be far less: a few come early, within the burst.
        if self.admit_at > Instant::now() + EARLY_MAX {
            tokio::time::sleep_until(self.admit_at.into()).await;
        }
        let takes = Duration::from_secs(60) * u32::try_from(count)? / RATE_PER_MINUTE;
        self.admit_at = self.admit_at.max(Instant::now()) + takes;
        Ok(())
    }

    async fn acknowledged(&mut self) -> anyhow::Result<()> {
        let ack = self.acks.next().await.context("the connection is closed")?;
        let ack: Value = serde_json::from_slice(&ack.payload)?;
        ensure!(ack["seq"].as_u64() == self.in_flight.pop_front(), "stored elsewhere: {ack}");
        Ok(())
    }

    /// Waits until everything is stored.
    pub(crate) async fn all_acknowledged(&mut self) -> anyhow::Result<()> {
        while !self.in_flight.is_empty() {
            self.acknowledged().await?;
        }
        Ok(())
    }
}
