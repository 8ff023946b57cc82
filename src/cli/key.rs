//! `anteroom key …`: the file that admission signs with, and what queues still take.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::operator::{Call, Method, problem};
use crate::cli::{AtOperator, print};
use crate::clock;
use crate::up;

/// Admission looks at its file each five seconds; after this it has not been given this file.
const TAKEN_UP_MAX: Duration = Duration::from_secs(15);
/// Pause before it is asked again whether it has.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// `anteroom key …`
#[derive(Subcommand)]
pub enum KeyCommand {
    /// List the keys of the file, the one to sign with first
    List(Common),
    /// Make a new key: it is published at once, and signs when it has been for a while
    Rotate(Common),
    /// Take a key out, of the file and of every queue: what it has signed opens nothing any more
    Remove {
        /// The key's id
        kid: String,
        /// How to print, and where the keys are.
        #[command(flatten)]
        common: Common,
    },
}

/// How to print, and where the keys are.
#[derive(Args)]
pub struct Common {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The file with the signing keys, instead of that of an `up`
    #[arg(long, value_name = "FILE")]
    signing_key_file: Option<PathBuf>,
    /// Where the system is.
    #[command(flatten)]
    at: AtOperator,
}

impl Common {
    fn file(&self) -> PathBuf {
        self.signing_key_file.clone().unwrap_or_else(|| up::signing_key_file(&self.at.dir))
    }

    fn say(&self, json: &Value, text: &str) {
        print(&if self.json { json.to_string() } else { text.to_owned() });
    }
}

/// Runs a key command.
pub fn run(command: KeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeyCommand::List(common) => {
            let kids = up::keys::list(&common.file())?;
            common.say(&json!({ "keys": kids }), &kids.join("\n"));
        }
        KeyCommand::Rotate(common) => {
            let kid = up::keys::rotate(&common.file())?;
            let text = format!(
                "{kid}\nAdmission takes it up within seconds, and signs with it when it has been published for a while"
            );
            common.say(&json!({ "kid": kid }), &text);
        }
        KeyCommand::Remove { kid, common } => {
            let was_there = up::keys::remove(&common.file(), &kid)?;
            let queues = forget(&common.at, &kid)?;
            ensure!(
                was_there || !queues.is_empty(),
                "neither the file nor a queue has the key {kid}"
            );
            let text = match queues.as_slice() {
                [] => "taken out of the file; no queue had it".to_owned(),
                queues => format!("taken out, also of the queues {}", queues.join(", ")),
            };
            common.say(&json!({ "kid": kid, "queues": queues }), &text);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Has every queue forget a key that admission holds no more: which queues knew it.
fn forget(at: &AtOperator, kid: &str) -> anyhow::Result<Vec<String>> {
    let (ok, body) = Call::get("/admin/queues").make(at)?;
    if !ok {
        bail!(problem(&body));
    }
    let mut knew = Vec::new();
    for queue in body.get("queues").and_then(Value::as_array).into_iter().flatten() {
        let queue = queue.get("queue").and_then(Value::as_str).context("a queue without a name")?;
        if forget_in(at, queue, kid)? {
            knew.push(queue.to_owned());
        }
    }
    Ok(knew)
}

fn forget_in(at: &AtOperator, queue: &str, kid: &str) -> anyhow::Result<bool> {
    let path = format!("/admin/queues/{queue}/keys/{kid}");
    let call = Call { method: Method::Delete, path, body: Value::Null };
    let give_up = clock::monotonic() + TAKEN_UP_MAX;
    loop {
        let (ok, body) = call.make(at)?;
        match body.get("code").and_then(Value::as_str) {
            _ if ok => return Ok(true),
            Some("unknown_key") => return Ok(false),
            Some("key_in_use") if clock::monotonic() < give_up => std::thread::sleep(ASK_AGAIN),
            Some("key_in_use") => bail!("admission still holds the key: has it another file?"),
            _ => bail!(problem(&body)),
        }
    }
}
