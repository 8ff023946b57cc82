//! `anteroom audit …` and `anteroom projection …`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::audit::verify::{self, Finding, Verdict};
use crate::cli::AtLog;
use crate::log::connection::Log;
use crate::log::subjects::QueueId;
use crate::queue::event::Seq;
use crate::up;
use crate::wire::ask::VerifyAnswer;

/// How long a connection to the log may take.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// `anteroom audit …`
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Replay the log of a queue and judge it
    Verify {
        /// The queue
        queue: String,
        /// Stop after this entry
        #[arg(long)]
        seq: Option<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Where the log is.
        #[command(flatten)]
        at: AtLog,
    },
}

/// `anteroom projection …`
#[derive(Subcommand)]
pub enum ProjectionCommand {
    /// Ask the running projector for its fingerprints
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
}

/// Runs an audit command.
pub async fn audit(command: AuditCommand) -> anyhow::Result<ExitCode> {
    let AuditCommand::Verify { queue, seq, json, at } = command;
    let queue = parse(&queue)?;
    let log = connect(&at).await?;
    let verdict = verify::verify(&log, &queue, seq.map(Seq)).await?;
    let ok = verdict.violations.is_empty();
    if json {
        print_json(&queue, &verdict)
    } else {
        print_text(&queue, &verdict)
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a projection command.
pub async fn projection(command: ProjectionCommand) -> anyhow::Result<ExitCode> {
    let ProjectionCommand::Verify { queue, json, at } = command;
    let queue = parse(&queue)?;
    let log = connect(&at).await?;
    let said: VerifyAnswer = log
        .ask(&queue, "verify", &json!({}))
        .await
        .context("no projector answers for this queue")?;
    let answer = json!({
        "ok": true, "sequence": said.sequence, "digest": said.digest, "chain": said.chain,
    });
    if json {
        print(&answer.to_string());
    } else {
        print(&format!("sequence  {}", said.sequence));
        print(&format!("digest    {}", said.digest));
        print(&format!("chain     {}", said.chain));
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(queue: &str) -> anyhow::Result<QueueId> {
    QueueId::parse(queue).with_context(|| format!("{queue:?} is no queue's name"))
}

async fn connect(at: &AtLog) -> anyhow::Result<Log> {
    let url = match &at.nats {
        Some(url) => url.clone(),
        None => up::auditor_address(&at.dir)?,
    };
    let log = Log::connect(&url, "anteroom audit").await?;
    if !log.connected_within(CONNECT_WAIT_MAX).await {
        bail!("the log can't be reached");
    }
    Ok(log)
}

fn print_json(queue: &QueueId, verdict: &Verdict) {
    let list = |findings: &[Finding]| -> Vec<Value> {
        let one = |finding: &Finding| json!({"sequence": finding.seq, "what": finding.what});
        findings.iter().map(one).collect()
    };
    let out = json!({
        "ok": verdict.violations.is_empty(),
        "queue": queue.as_str(),
        "sequence": verdict.sequence,
        "entries": verdict.entries,
        "visitors": verdict.visitors,
        "waiting": verdict.waiting,
        "admitted": verdict.admitted,
        "redeemed": verdict.redeemed,
        "digest": verdict.digest,
        "chain": verdict.chain,
        "violations": list(&verdict.violations),
        "void": list(&verdict.void),
    });
    print(&out.to_string());
}

fn print_text(queue: &QueueId, verdict: &Verdict) {
    let judged = if verdict.violations.is_empty() { "in order" } else { "NOT in order" };
    print(&format!("queue {queue}: {judged}, up to entry {}", verdict.sequence));
    print(&format!("  {} visitors had a place", verdict.visitors));
    print(&format!("  {} were let in, {} entered", verdict.admitted, verdict.redeemed));
    print(&format!("  {} are waiting", verdict.waiting));
    print(&format!("  digest {}", verdict.digest));
    print(&format!("  chain  {}", verdict.chain));
    for finding in &verdict.violations {
        print(&format!("  VIOLATION at entry {}: {}", finding.seq, finding.what));
    }
    for finding in &verdict.void {
        print(&format!("  entry {}: {}", finding.seq, finding.what));
    }
}

/// Prints a line; a reader that has gone is no failure.
fn print(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}
