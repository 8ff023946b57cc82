//! `anteroom queue …`: the operator API from a terminal.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cli::operator::{Call, Method, problem, read};
use crate::cli::{AtOperator, print};

/// `anteroom queue …`
#[derive(Subcommand)]
pub enum QueueCommand {
    /// Create a queue: open, or scheduled where its opening time is still to come
    Create(Change),
    /// Change values of a queue's policy, or with --policy replace it
    Set(Change),
    /// Show a queue
    Show(One),
    /// List all queues
    List {
        /// How to print, and where the system is.
        #[command(flatten)]
        common: Common,
    },
    /// Open a queue
    Open(Order),
    /// Let nobody in for now
    Pause(Order),
    /// Let people in again
    Resume(Order),
    /// Let nobody in any more; those who wait keep their places
    Close(Order),
    /// Delete a queue: its log stays, its name is not used again
    Delete(One),
    /// Raise the level of a queue's log, once everybody who reads it knows that level
    Upgrade(Upgrade),
}

/// A queue and the level that its log is to have.
#[derive(Args)]
pub struct Upgrade {
    /// The queue
    queue: String,
    /// The level [default: the newest that the worker knows]
    #[arg(long, value_name = "LEVEL")]
    level: Option<u16>,
    /// How to print, and where the system is.
    #[command(flatten)]
    common: Common,
}

/// A queue and its policy.
#[derive(Args)]
pub struct Change {
    /// The queue
    queue: String,
    /// A policy file, TOML or JSON
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// One value of the policy, as rate_per_minute=120; over the file's. KEY= takes a value away
    #[arg(long = "set", value_name = "KEY=VALUE")]
    values: Vec<String>,
    /// How to print, and where the system is.
    #[command(flatten)]
    common: Common,
}

/// A queue.
#[derive(Args)]
pub struct One {
    /// The queue
    queue: String,
    /// How to print, and where the system is.
    #[command(flatten)]
    common: Common,
}

/// A queue and what visitors are told.
#[derive(Args)]
pub struct Order {
    /// The queue
    queue: String,
    /// What visitors are told about it
    #[arg(long)]
    reason: Option<String>,
    /// How to print, and where the system is.
    #[command(flatten)]
    common: Common,
}

/// How to print, and where the system is.
#[derive(Args)]
pub struct Common {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the system is.
    #[command(flatten)]
    at: AtOperator,
}

/// Runs a queue command.
pub fn run(command: QueueCommand) -> anyhow::Result<ExitCode> {
    let (common, answer) = match command {
        QueueCommand::Create(change) => {
            let policy = policy(&change)?;
            let call = Call::put(&change.queue, policy, true);
            (change.common, call)
        }
        QueueCommand::Set(change) => {
            let policy = match change.policy {
                Some(_) => policy(&change)?,
                // Single values go over those in force.
                None => set_values(&change, in_force(&change)?)?,
            };
            let call = Call::put(&change.queue, policy, false);
            (change.common, call)
        }
        QueueCommand::Show(one) => (one.common, Call::get(&format!("/admin/queues/{}", one.queue))),
        QueueCommand::List { common } => (common, Call::get("/admin/queues")),
        QueueCommand::Open(order) => order_call(order, "open"),
        QueueCommand::Pause(order) => order_call(order, "pause"),
        QueueCommand::Resume(order) => order_call(order, "resume"),
        QueueCommand::Close(order) => order_call(order, "close"),
        QueueCommand::Delete(one) => {
            let path = format!("/admin/queues/{}", one.queue);
            (one.common, Call { method: Method::Delete, path, body: Value::Null })
        }
        QueueCommand::Upgrade(Upgrade { queue, level, common }) => {
            let path = format!("/admin/queues/{queue}/upgrade");
            let body = level.map_or_else(|| json!({}), |level| json!({ "level": level }));
            (common, Call { method: Method::Post, path, body })
        }
    };
    let (ok, body) = answer.make(&common.at)?;
    if common.json {
        print(&body.to_string());
    } else if ok {
        print_text(&body);
    } else {
        bail!(problem(&body));
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn order_call(order: Order, verb: &str) -> (Common, Call) {
    let path = format!("/admin/queues/{}/{verb}", order.queue);
    let body = order.reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    (order.common, Call { method: Method::Post, path, body })
}

/// The policy that the queue has.
fn in_force(change: &Change) -> anyhow::Result<Map<String, Value>> {
    let path = format!("/admin/queues/{}", change.queue);
    let (ok, mut body) = Call::get(&path).make(&change.common.at)?;
    match body.get_mut("policy").map(Value::take) {
        Some(Value::Object(policy)) if ok => Ok(policy),
        _ => bail!(problem(&body)),
    }
}

fn policy(change: &Change) -> anyhow::Result<Value> {
    let policy = match &change.policy {
        None => Map::new(),
        Some(file) => {
            let text = read(file)?;
            let toml = || toml::from_str(&text).ok().map(json_of);
            let parsed = serde_json::from_str(&text).ok().or_else(toml);
            parsed.with_context(|| format!("{} is neither TOML nor JSON", file.display()))?
        }
    };
    set_values(change, policy)
}

/// A table as JSON: an instant of TOML is a text there.
fn json_of(table: toml::Table) -> Map<String, Value> {
    let value = |value: toml::Value| {
        value.as_datetime().map_or_else(|| json!(value), |instant| json!(instant.to_string()))
    };
    table.into_iter().map(|(key, it)| (key, value(it))).collect()
}

fn set_values(change: &Change, mut policy: Map<String, Value>) -> anyhow::Result<Value> {
    for pair in &change.values {
        let (key, value) =
            pair.split_once('=').with_context(|| format!("{pair:?} is no KEY=VALUE"))?;
        if value.is_empty() {
            policy.remove(key);
            continue;
        }
        // 120 is a number and ["a"] a list; what is no JSON is a text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        policy.insert(key.to_owned(), value);
    }
    Ok(Value::Object(policy))
}

fn print_text(body: &Value) {
    if body.get("done").is_some() {
        print("done");
    } else if let Some(queues) = body.get("queues").and_then(Value::as_array) {
        queues.iter().for_each(print_queue);
        if let Some(reserved) = body.get("reserved") {
            print_reserved(reserved);
        }
    } else {
        print_queue(body);
    }
}

fn print_reserved(reserved: &Value) {
    let number = |key: &str| reserved.get(key).and_then(Value::as_u64).unwrap_or_default();
    print(&format!(
        "{} logs, those of deleted queues too, reserve {} on each server that has a copy",
        number("logs"),
        mebibytes(number("bytes"))
    ));
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn print_queue(queue: &Value) {
    let text = |key: &str| match queue.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    print(&format!("{}: {}", text("queue"), text("status")));
    if queue.get("halted").is_some_and(|halted| !halted.is_null()) {
        print(&format!("  HALTED    {}; what follows is of before that", text("halted")));
    }
    if queue.get("reason").is_some_and(|reason| !reason.is_null()) {
        print(&format!("  reason    {}", text("reason")));
    }
    if queue.get("followsLoad") == Some(&json!(true)) {
        print(&format!("  rate      {} a minute, by the site's load", text("ratePerMinute")));
    }
    print(&format!("  level     {}", text("level")));
    print(&format!("  waiting   {} ({} here)", text("waiting"), text("present")));
    print(&format!(
        "  admitted  {} ({} inside, {} tokens unused)",
        text("admitted"),
        text("inside"),
        text("unused")
    ));
    if let Some(log) = queue.get("log").filter(|log| !log.is_null()) {
        let number = |key: &str| log.get(key).and_then(Value::as_u64).unwrap_or_default();
        let (held, max) = (mebibytes(number("bytes")), mebibytes(number("maxBytes")));
        print(&format!("  log       {held} of {max}"));
    }
    if let Some(policy) = queue.get("policy").and_then(Value::as_object) {
        for (key, value) in policy {
            print(&format!("  {key} = {value}"));
        }
    }
    for warning in queue.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        print(&format!("  warning   {}", warning.as_str().unwrap_or_default()));
    }
}
