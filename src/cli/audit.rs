//! `anteroom audit …`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::audit::export::{self, ExportWriter, Format};
use crate::audit::history::{self, Event, Stand, Until};
use crate::audit::source::Source;
use crate::audit::verify::{self, Finding, Findings, Verdict};
use crate::cli::{AtLog, parse_queue, print, tell, wrong_usage};
use crate::clock;
use crate::log::connection::Log;
use crate::log::subjects::QueueId;
use crate::queue::event::{At, Level, Seq, VisitorId};
use crate::wire;

/// Entries after which it is told how far an export is.
const TELL_ENTRIES: u64 = 50_000;

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
        /// Where the log is.
        #[command(flatten)]
        from: LogOrFile,
    },
    /// Tell one visitor's story, with the reason for each change of their position
    History {
        /// The queue
        queue: String,
        /// The visitor's public name, a UUID
        visitor: String,
        /// Where the log is.
        #[command(flatten)]
        from: LogOrFile,
    },
    /// Say where a visitor stood
    Position {
        /// The queue
        queue: String,
        /// The visitor's public name, a UUID
        visitor: String,
        /// At this time, as 2026-11-22T20:00:00Z
        #[arg(long, value_name = "TIME", conflicts_with = "seq")]
        at: Option<String>,
        /// After this entry
        #[arg(long)]
        seq: Option<u64>,
        /// Where the log is.
        #[command(flatten)]
        from: LogOrFile,
    },
    /// Write the log into a file that can be checked without a server
    ///
    /// A file that is there is gone on with. A name that ends in .gz is compressed.
    Export {
        /// The queue
        queue: String,
        /// How an entry is written
        #[arg(long, value_enum, default_value_t = FormatName::Jsonl)]
        format: FormatName,
        /// The file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Where the log is.
        #[command(flatten)]
        at: AtLog,
    },
}

/// The log of a queue: of a running system, or as a file.
#[derive(Args)]
pub struct LogOrFile {
    /// A file that `audit export` wrote, instead of a server
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the log is.
    #[command(flatten)]
    at: AtLog,
}

/// How an entry is written.
#[derive(Clone, Copy, ValueEnum)]
pub enum FormatName {
    /// Sequence, store time, subject and payload
    Jsonl,
    /// CloudEvents 1.0
    Cloudevents,
}

impl LogOrFile {
    async fn open(
        &self,
        queue: &QueueId,
        newest: Level,
        until: Option<u64>,
    ) -> anyhow::Result<Source> {
        let until = until.map(Seq);
        if let Some(file) = &self.file {
            return Ok(Source::file(file, queue, newest, until)?);
        }
        let log = self.at.connect("auditor", newest).await?;
        Ok(Source::stream(&log, queue, Seq(1), until).await?)
    }
}

/// Runs an audit command, as a program that knows levels of a log up to `newest`.
pub async fn run(command: AuditCommand, newest: Level) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::Verify { queue, seq, from } => {
            let queue = parse_queue(&queue)?;
            let verdict = verify::verify(from.open(&queue, newest, seq).await?).await?;
            if from.json {
                print_json(&queue, &verdict)
            } else {
                print_text(&queue, &verdict)
            }
            Ok(if verdict.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        AuditCommand::History { queue, visitor, from } => {
            let (queue, visitor) = (parse_queue(&queue)?, parse_visitor(&visitor)?);
            let events = history::history(from.open(&queue, newest, None).await?, visitor).await?;
            if events.is_empty() {
                bail!("visitor {visitor} never joined queue {queue}");
            }
            print_history(&queue, visitor, &events, from.json);
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::Position { queue, visitor, at, seq, from } => {
            let (queue, visitor) = (parse_queue(&queue)?, parse_visitor(&visitor)?);
            let until = match at {
                Some(at) => Until::Time(parse_time(&at)?),
                None => Until::End,
            };
            let source = from.open(&queue, newest, seq).await?;
            let stand = history::position(source, visitor, until).await?;
            let Some(stand) = stand else {
                bail!("visitor {visitor} had not joined queue {queue} by then");
            };
            print_stand(&queue, visitor, &stand, from.json);
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::Export { queue, format, out, json, at } => {
            let format = match format {
                FormatName::Jsonl => Format::Jsonl,
                FormatName::Cloudevents => Format::CloudEvents,
            };
            let log = at.connect("auditor", newest).await?;
            write_export(&log, &parse_queue(&queue)?, format, &out, json).await
        }
    }
}

async fn write_export(
    log: &Log,
    queue: &QueueId,
    format: Format,
    out: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let file = || out.display().to_string();
    // Nothing of the file is touched before its last entry is known to be the log's.
    let kept = export::look(out, queue, format).with_context(file)?;
    let next = kept.last.as_ref().map_or(Seq(1), |record| record.seq);
    let mut source = Source::stream(log, queue, next, None).await?;
    let mut records = source.next().await?;
    if let Some(last) = &kept.last {
        if records.first() != Some(last) {
            bail!("{}: it is of another log: entry {} differs there", file(), last.seq.0);
        }
        records.remove(0);
    }
    let mut writer = ExportWriter::open(out, queue, format, &kept).with_context(file)?;
    let mut written = 0;
    let mut last = kept.last.map_or(Seq(0), |record| record.seq);
    loop {
        for record in &records {
            last = record.seq;
            writer.write(record).with_context(file)?;
            written += 1;
            if written % TELL_ENTRIES == 0 {
                tell(&format!("entry {} of {}", record.seq.0, source.until().0));
            }
        }
        records = source.next().await?;
        if records.is_empty() {
            break;
        }
    }
    writer.finish().with_context(file)?;
    if json {
        print(
            &json!({"ok": true, "queue": queue.as_str(), "sequence": last.0, "written": written})
                .to_string(),
        );
    } else {
        print(&format!("{}: entries 1 to {}, {written} of them written now", file(), last.0));
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_visitor(text: &str) -> anyhow::Result<VisitorId> {
    let visitor = wire::id::parse(text).map(VisitorId);
    visitor.ok_or_else(|| wrong_usage("a visitor", "a UUID in lower case", text))
}

fn parse_time(text: &str) -> anyhow::Result<At> {
    let time = clock::parse_rfc3339(text);
    time.ok_or_else(|| wrong_usage("a time", "like 2026-11-22T20:00:00Z", text))
}

fn print_json(queue: &QueueId, verdict: &Verdict) {
    let list = |findings: &Findings| -> Vec<Value> {
        let one = |finding: &Finding| json!({"sequence": finding.seq, "fact": finding.fact, "what": finding.what});
        findings.list.iter().map(one).collect()
    };
    let out = json!({
        "ok": verdict.ok(),
        "queue": queue.as_str(),
        "sequence": verdict.sequence,
        "entries": verdict.entries,
        "level": verdict.level,
        "visitors": verdict.visitors,
        "waiting": verdict.waiting,
        "admitted": verdict.admitted,
        "redeemed": verdict.redeemed,
        "digest": verdict.digest,
        "chain": verdict.chain,
        "violations": list(&verdict.violations),
        "violationsCount": verdict.violations.count,
        "void": list(&verdict.void),
        "voidCount": verdict.void.count,
        "notes": list(&verdict.notes),
        "notesCount": verdict.notes.count,
    });
    print(&out.to_string());
}

fn print_text(queue: &QueueId, verdict: &Verdict) {
    let judged = if verdict.ok() { "in order" } else { "NOT in order" };
    print(&format!("queue {queue}: {judged}, up to entry {}", verdict.sequence));
    print(&format!("  {} visitors had a place", verdict.visitors));
    print(&format!("  {} were let in, {} entered", verdict.admitted, verdict.redeemed));
    print(&format!("  {} are waiting", verdict.waiting));
    let (violations, void, notes) =
        (verdict.violations.count, verdict.void.count, verdict.notes.count);
    print(&format!("  {violations} violations, {void} that count nowhere, {notes} worth knowing"));
    print(&format!("  level  {}", verdict.level));
    print(&format!("  digest {}", verdict.digest));
    print(&format!("  chain  {}", verdict.chain));
    for finding in &verdict.violations.list {
        print(&format!("  VIOLATION at entry {}: {}", finding.seq, finding.what));
    }
    for finding in &verdict.void.list {
        print(&format!("  {}, counts nowhere: {}", place_of(finding), finding.what));
    }
    for finding in &verdict.notes.list {
        print(&format!("  {}: {}", place_of(finding), finding.what));
    }
    for (name, findings) in [
        ("violations", &verdict.violations),
        ("that count nowhere", &verdict.void),
        ("worth knowing", &verdict.notes),
    ] {
        let more = findings.count - findings.list.len();
        if more > 0 {
            print(&format!("  and {more} more {name}"));
        }
    }
}

fn place_of(finding: &Finding) -> String {
    let fact = finding.fact.map(|fact| format!(", fact {fact}")).unwrap_or_default();
    format!("entry {}{fact}", finding.seq)
}

fn print_history(queue: &QueueId, visitor: VisitorId, events: &[Event], json: bool) {
    if json {
        let one = |event: &Event| {
            json!({
                "sequence": event.entries.0,
                "lastSequence": event.entries.1,
                "at": clock::rfc3339_nanos(event.at),
                "what": event.what,
                "position": event.ahead.map(|ahead| ahead + 1),
            })
        };
        let events: Vec<Value> = events.iter().map(one).collect();
        let out =
            json!({"queue": queue.as_str(), "visitor": visitor.to_string(), "events": events});
        return print(&out.to_string());
    }
    print(&format!("visitor {visitor} in queue {queue}"));
    for event in events {
        let position = match event.ahead {
            Some(ahead) => format!("position {}", ahead + 1),
            None => String::new(),
        };
        let at = clock::rfc3339(event.at.seconds());
        print(&format!("{at}  {position:16}{}  [{}]", event.what, entries(event.entries)));
    }
}

fn entries((first, last): (u64, u64)) -> String {
    if first == last { format!("entry {first}") } else { format!("entries {first}-{last}") }
}

fn print_stand(queue: &QueueId, visitor: VisitorId, stand: &Stand, json: bool) {
    if json {
        let out = json!({
            "queue": queue.as_str(),
            "visitor": visitor.to_string(),
            "sequence": stand.sequence,
            "at": clock::rfc3339_nanos(stand.at),
            "standing": stand.standing,
            "present": stand.present,
            "position": stand.ahead.map(|ahead| ahead + 1),
            "ahead": stand.ahead,
            "waiting": stand.waiting,
        });
        return print(&out.to_string());
    }
    let at = clock::rfc3339(stand.at.seconds());
    let (sequence, waiting) = (stand.sequence, stand.waiting);
    let present = if stand.present { "present" } else { "absent" };
    match stand.ahead {
        Some(ahead) => print(&format!(
            "position {} of {waiting}, {present}, after entry {sequence} ({at})",
            ahead + 1
        )),
        None => print(&format!("{}, after entry {sequence} ({at})", stand.standing)),
    }
}
