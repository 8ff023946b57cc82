//! `anteroom projection …`

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::{AtLog, parse_queue, print, tell};
use crate::clock;
use crate::log::connection::Log;
use crate::log::subjects::{self, QueueId};
use crate::log::talk::AskError;
use crate::projection::rebuild::{self, Kept};
use crate::queue::event::Level;
use crate::up;
use crate::wire::ask::{Answer, RebuildAnswer, RebuildQuestion, Refusal, VerifyAnswer};

/// A projector that opens a large store answers only then.
const REBUILD_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often a projector that begins anew is asked how far it is, and how often that is told.
const ASK_EVERY: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(2);
/// A projector that gets no further for this long has trouble that its log lines tell of.
const STANDSTILL_MAX: Duration = Duration::from_secs(60);

/// `anteroom projection …`
#[derive(Subcommand)]
pub enum ProjectionCommand {
    /// Say the fingerprints of the line, as the running projector has it or as its store kept it
    Verify {
        /// The queue
        queue: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Where the log is.
        #[command(flatten)]
        at: AtLog,
    },
    /// Make the line and its store anew from the first entry of the log
    ///
    /// A running projector does so itself; visitors see old numbers until it is done. Without one
    /// the store is made here. An address in --nats must be the projector's.
    Rebuild {
        /// The queue
        queue: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Where the log is.
        #[command(flatten)]
        at: AtLog,
    },
}

/// Runs a projection command, as a program that knows levels of a log up to `newest`.
pub async fn run(command: ProjectionCommand, newest: Level) -> anyhow::Result<ExitCode> {
    match command {
        ProjectionCommand::Verify { queue, json, at } => {
            let said = verify(&parse_queue(&queue)?, &at, newest).await?;
            Ok(print_said(&said, json))
        }
        ProjectionCommand::Rebuild { queue, json, at } => {
            let begun = clock::monotonic();
            let mut said = begin_anew(&parse_queue(&queue)?, &at, newest).await?;
            let seconds = clock::monotonic().duration_since(begun).as_secs_f64();
            if let Some(fields) = said.as_object_mut() {
                fields.insert("seconds".to_owned(), json!((seconds * 1_000.0).round() / 1_000.0));
            }
            Ok(print_said(&said, json))
        }
    }
}

async fn verify(queue: &QueueId, at: &AtLog, newest: Level) -> anyhow::Result<Value> {
    match at.connect("auditor", newest).await {
        Ok(log) => match ask(&log, queue).await {
            Err(AskError::Nobody) => look(queue, at),
            asked => Ok(said(&asked?)),
        },
        // Neither a log nor a projector: the store tells what it kept.
        Err(error) => look(queue, at).map_err(|_| error),
    }
}

async fn ask(log: &Log, queue: &QueueId) -> Result<VerifyAnswer, AskError> {
    log.ask(queue, "verify", &json!({})).await
}

fn look(queue: &QueueId, at: &AtLog) -> anyhow::Result<Value> {
    let kept = rebuild::look(&up::projection_dir(&at.dir), queue);
    Ok(kept_json(&kept.context("no projector answers for this queue")?, "store"))
}

async fn begin_anew(queue: &QueueId, at: &AtLog, newest: Level) -> anyhow::Result<Value> {
    let log = at.connect("projector", newest).await?;
    match ask_rebuild(&log, queue, true).await {
        Ok(_) => {
            follow(&log, queue).await?;
            Ok(said(&ask(&log, queue).await?))
        }
        Err(AskError::Nobody) => make(&log, &up::projection_dir(&at.dir), queue).await,
        Err(AskError::Refused(Refusal::UnknownQueue)) => bail!("there is no queue {queue}"),
        Err(error) => Err(error.into()),
    }
}

async fn ask_rebuild(log: &Log, queue: &QueueId, begin: bool) -> Result<RebuildAnswer, AskError> {
    let question = serde_json::to_vec(&RebuildQuestion { begin }).unwrap_or_default();
    let answer = log.ask_bytes(subjects::rebuild(queue), question, REBUILD_WAIT_MAX).await?;
    match serde_json::from_slice(&answer).map_err(|_| AskError::Unreadable)? {
        Answer::Ok(answer) => Ok(answer),
        Answer::No(refusal) => Err(AskError::Refused(refusal)),
    }
}

/// Waits until the projector is at the log's end again.
async fn follow(log: &Log, queue: &QueueId) -> anyhow::Result<()> {
    let mut told = clock::monotonic();
    let (mut last, mut moved) = (0, told);
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let now = clock::monotonic();
        let at = ask_rebuild(log, queue, false).await.ok();
        if let Some(at) = &at {
            if let Some(why) = &at.halted {
                bail!("the projector has stopped after entry {}: {why}", at.sequence);
            }
            if at.end > 0 && at.sequence >= at.end {
                return Ok(());
            }
            if now.duration_since(told) > TELL_EVERY {
                told = now;
                tell(&format!("entry {} of {}", at.sequence, at.end));
            }
        }
        let sequence = at.map_or(last, |at| at.sequence);
        if sequence != last {
            (last, moved) = (sequence, now);
        } else if now.duration_since(moved) > STANDSTILL_MAX {
            bail!("the projector gets no further than entry {last}; its log lines tell why");
        }
    }
}

async fn make(log: &Log, dir: &Path, queue: &QueueId) -> anyhow::Result<Value> {
    let told = |entry: u64, end: u64| tell(&format!("entry {entry} of {end}"));
    let kept = rebuild::rebuild(log, dir, queue, told).await?;
    Ok(kept_json(&kept, "store"))
}

fn said(answer: &VerifyAnswer) -> Value {
    let mut said = json!({
        "ok": answer.halted.is_none(),
        "sequence": answer.sequence,
        "digest": answer.digest,
        "chain": answer.chain,
        "from": "projector",
    });
    if let (Some(why), Some(fields)) = (&answer.halted, said.as_object_mut()) {
        fields.insert("halted".to_owned(), json!(why));
    }
    said
}

fn kept_json(kept: &Kept, from: &str) -> Value {
    json!({
        "ok": true,
        "sequence": kept.sequence,
        "visitors": kept.visitors,
        "digest": kept.digest,
        "chain": kept.chain,
        "from": from,
    })
}

fn print_said(said: &Value, json: bool) -> ExitCode {
    if json {
        print(&said.to_string());
    } else {
        let text = |key: &str| match said.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        for key in ["sequence", "digest", "chain", "from", "seconds", "halted"] {
            let value = text(key);
            if !value.is_empty() {
                print(&format!("{key:9} {value}"));
            }
        }
    }
    let ok = said.get("ok").and_then(Value::as_bool) == Some(true);
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
