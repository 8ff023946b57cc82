//! `anteroom audit …`

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::audit::verify::{self, Finding, Verdict};
use crate::cli::{AtLog, parse_queue, print};
use crate::log::subjects::QueueId;
use crate::queue::event::Seq;

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

/// Runs an audit command.
pub async fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    let AuditCommand::Verify { queue, seq, json, at } = command;
    let queue = parse_queue(&queue)?;
    let log = at.connect("auditor").await?;
    let verdict = verify::verify(&log, &queue, seq.map(Seq)).await?;
    let ok = verdict.violations.is_empty();
    if json {
        print_json(&queue, &verdict)
    } else {
        print_text(&queue, &verdict)
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
