//! Calls of the operator API from a terminal.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::AtOperator;
use crate::clock;
use crate::up;

/// For so long a worker that can't be reached is tried again: another goes on within five seconds.
const WORKER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause before it is tried again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// The status of an answer without a body.
const NO_CONTENT: u16 = 204;
/// How long the operator API may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(15);

/// A call of the operator API.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Value,
}

/// Its method.
pub(super) enum Method {
    Get,
    Post,
    Delete,
    Put { create: bool },
}

impl Call {
    pub(super) fn get(path: &str) -> Self {
        Self { method: Method::Get, path: path.to_owned(), body: Value::Null }
    }

    pub(super) fn put(queue: &str, body: Value, create: bool) -> Self {
        Self { method: Method::Put { create }, path: format!("/admin/queues/{queue}"), body }
    }

    /// Whether it was carried out, and the answer.
    pub(super) fn make(&self, at: &AtOperator) -> anyhow::Result<(bool, Value)> {
        let give_up = clock::monotonic() + WORKER_WAIT_MAX;
        loop {
            match self.make_once(at) {
                // A worker that has died is started again, or another is reached at its address; what
                // was asked twice then is done all the same, or was done already.
                Err(error) if is_unreached(&error) && clock::monotonic() < give_up => {
                    std::thread::sleep(ASK_AGAIN);
                }
                Ok((false, body))
                    if body.get("code") == Some(&json!("log_unavailable"))
                        && clock::monotonic() < give_up =>
                {
                    std::thread::sleep(ASK_AGAIN);
                }
                made => return made,
            }
        }
    }

    fn make_once(&self, at: &AtOperator) -> anyhow::Result<(bool, Value)> {
        let (operator, token) = reach(at)?;
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_WAIT_MAX))
            .build()
            .into();
        let url = format!("{}{}", operator.trim_end_matches('/'), self.path);
        let bearer = format!("Bearer {token}");
        let answer = match self.method {
            Method::Get => agent.get(url).header("Authorization", bearer).call(),
            Method::Delete => agent.delete(url).header("Authorization", bearer).call(),
            Method::Post => agent.post(url).header("Authorization", bearer).send_json(&self.body),
            Method::Put { create } => {
                let put = agent.put(url).header("Authorization", bearer);
                let put = if create { put.header("If-None-Match", "*") } else { put };
                put.send_json(&self.body)
            }
        };
        let mut answer = answer.context("the operator API can't be reached")?;
        if answer.status() == NO_CONTENT {
            return Ok((true, json!({ "done": true })));
        }
        let body = answer.body_mut().read_json().context("the operator API answered no JSON")?;
        Ok((answer.status().is_success(), body))
    }
}

/// Whether nobody was reached, or whoever was died with the call.
fn is_unreached(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ureq::Error>()
        .is_some_and(|error| matches!(error, ureq::Error::ConnectionFailed | ureq::Error::Io(_)))
}

fn reach(at: &AtOperator) -> anyhow::Result<(String, String)> {
    let (operator, token) = match (&at.operator, &at.token_file) {
        (Some(operator), Some(file)) => (operator.clone(), read(file)?),
        (None, Some(file)) => (up::operator_address(&at.dir)?, read(file)?),
        _ => (up::operator_address(&at.dir)?, read(&at.dir.join("operator-token"))?),
    };
    Ok((operator, token.trim().to_owned()))
}

/// What a file holds.
pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))
}

/// What an answer says that is a problem.
pub(super) fn problem(body: &Value) -> String {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    format!("{} ({})", text("detail"), text("code"))
}
