//! What is told in the end: one line of JSON, and whether everything held.

use serde_json::{Map, Value, json};

use crate::checks::{Census, Violations};
use crate::clock;
use crate::fleet::Fleet;
use crate::measure::{Times, rounded};
use crate::orders::Answer;

/// Figures by name.
pub type Figures = Map<String, Value>;

/// The figures of a JSON object.
pub fn figures(object: Value) -> Figures {
    match object {
        Value::Object(figures) => figures,
        _ => Figures::new(),
    }
}

/// Prints a line for whoever started us, who may be gone.
pub fn print(figures: Figures) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", Value::Object(figures))?;
    Ok(stdout.flush()?)
}

/// Says how far it is, on standard error.
pub fn note(text: &str) {
    eprintln!("{text}");
}

/// CPU time and memory before something begins.
pub struct Before {
    server_cpu: u64,
    client_cpu: u64,
    kib: Option<u64>,
}

impl Before {
    /// As it is now.
    pub fn now(fleet: &mut Fleet) -> Self {
        Self {
            server_cpu: fleet.servers.cpu(),
            client_cpu: fleet.clients.cpu(),
            kib: fleet.servers.kib(),
        }
    }

    /// Microseconds of CPU time of both sides since an earlier moment.
    pub fn cpu_since(&self, earlier: &Self) -> Figures {
        let server = (self.server_cpu - earlier.server_cpu) as f64 / 1e3;
        let client = (self.client_cpu - earlier.client_cpu) as f64 / 1e3;
        let server = self.kib.map(|_| rounded(server));
        figures(json!({ "server_cpu_us": server, "client_cpu_us": rounded(client) }))
    }
}

/// CPU time since then, and for each of so many of something.
pub fn cpu(fleet: &mut Fleet, before: &Before, each: &str, count: usize) -> Figures {
    let server = fleet.servers.cpu() - before.server_cpu;
    let client = fleet.clients.cpu() - before.client_cpu;
    // Without a process to look at there is no time to tell.
    let server = before.kib.map(|_| server);
    let per = |nanos: u64| (count > 0).then(|| rounded(nanos as f64 / 1e3 / count as f64));
    let mut told = Figures::new();
    told.insert("client_cpu_seconds".to_owned(), json!(rounded(clock::seconds(client))));
    told.insert("server_cpu_seconds".to_owned(), json!(server.map(clock::seconds).map(rounded)));
    told.insert(format!("client_cpu_us_per_{each}"), json!(per(client)));
    told.insert(format!("server_cpu_us_per_{each}"), json!(server.and_then(per)));
    told
}

/// The servers' memory then and now, and what each of so many connections has of the difference.
pub fn memory(fleet: &Fleet, before: &Before, connections: usize) -> Figures {
    let after = fleet.servers.kib();
    let grown = before.kib.zip(after).map(|(before, after)| after as f64 - before as f64);
    figures(json!({
        "server_kib_before": before.kib,
        "server_kib_after": after,
        "kib_per_connection": grown.map(|kib| rounded(kib / connections as f64)),
    }))
}

/// How long it took until everyone had their place.
pub fn joining(fleet: &Fleet, visitors: usize, answers: &[Answer]) -> Figures {
    let acks = Times::new(fleet.tally.acks.clone());
    let shown = Times::new(fleet.tally.shown.clone());
    figures(json!({
        "visitors": visitors,
        "seconds": rounded(clock::seconds(passed(answers))),
        "ack_p50_ms": acks.millis(50),
        "ack_p99_ms": acks.millis(99),
        "shown_p50_ms": shown.millis(50),
        "shown_p99_ms": shown.millis(99),
    }))
}

/// Joins a second until the last was acknowledged.
pub fn acknowledged(fleet: &Fleet, answers: &[Answer]) -> Figures {
    let begun_at = answers.iter().map(|answer| answer.begun_at).min().unwrap_or(0);
    let passed = clock::seconds(fleet.tally.acked_at.saturating_sub(begun_at));
    let count = fleet.tally.acks.len() as f64;
    figures(json!({ "joins_per_second": (passed > 0.0).then(|| (count / passed).round()) }))
}

/// Handshakes a second, and how long one took.
pub fn handshakes(fleet: &Fleet, answers: &[Answer]) -> Figures {
    let begun_at = answers.iter().map(|answer| answer.begun_at).min().unwrap_or(0);
    let passed = clock::seconds(fleet.tally.opened_at.saturating_sub(begun_at));
    let times = Times::new(fleet.tally.handshakes.clone());
    let count = fleet.tally.handshakes.len() as f64;
    figures(json!({
        "handshakes_per_second": (passed > 0.0).then(|| (count / passed).round()),
        "handshake_p50_ms": times.millis(50),
        "handshake_p99_ms": times.millis(99),
    }))
}

/// From the first that began to the last that was done.
pub fn passed(answers: &[Answer]) -> u64 {
    let begun_at = answers.iter().map(|answer| answer.begun_at).min().unwrap_or(0);
    let done_at = answers.iter().map(|answer| answer.done_at).max().unwrap_or(0);
    done_at.saturating_sub(begun_at)
}

/// Prints what came of a scenario; whether everything held.
pub fn end(
    fleet: &Fleet,
    scenario: &str,
    mut told: Figures,
    census: &Census,
    judged: Violations,
) -> anyhow::Result<bool> {
    let tally = &fleet.tally;
    let mut violations = judged;
    violations.merge(tally.violations.clone());
    let held = violations.count == 0;
    let mut all = figures(json!({ "scenario": scenario, "ok": held, "processes": fleet.size() }));
    all.append(&mut told);
    all.append(&mut figures(json!({
        "waiting": census.places.len(),
        "admitted": census.admitted,
        "ended": census.ended,
        "lost": census.lost(),
        "doubled": census.doubled(),
        "rises": tally.rises,
        "sockets_lost": tally.sockets_lost,
        "attempts_failed": tally.attempts_failed,
        "closes": tally.closes,
        "waits": tally.waits,
        "ended_unasked": tally.ended,
        "errors": tally.errors,
        "violations": violations.words,
        "violations_count": violations.count,
    })));
    print(all)?;
    Ok(held)
}
