//! Whether a process can serve somebody, and what it can't serve.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

/// What `/readyz` says. One queue that can't be served is no reason to send the visitors of all others
/// elsewhere: a process is ready that can serve one of its queues, or has none yet.
#[derive(Debug, Default)]
pub struct Readiness {
    reasons: Vec<String>,
    queues: BTreeMap<String, Vec<String>>,
}

impl Readiness {
    /// Nothing can be served, for this reason.
    pub fn lacks(&mut self, why: &str) {
        self.reasons.push(why.to_owned());
    }

    /// This queue is served, unless there are reasons why not.
    pub fn queue(&mut self, queue: &str, why_not: impl IntoIterator<Item = String>) {
        self.queues.entry(queue.to_owned()).or_default().extend(why_not);
    }

    fn is_ready(&self) -> bool {
        let is_any = self.queues.is_empty() || self.queues.values().any(Vec::is_empty);
        self.reasons.is_empty() && is_any
    }

    /// The answer: 200 or 503, and the body with these keys besides.
    pub fn answer(&self, besides: &[(&str, Value)]) -> Response {
        let of_queues = self.queues.iter().flat_map(|(queue, why_not)| {
            why_not.iter().map(move |why| format!("queue {queue}: {why}"))
        });
        let reasons: Vec<String> = self.reasons.iter().cloned().chain(of_queues).collect();
        let queues = self.queues.iter().map(|(queue, why_not)| {
            let state = if why_not.is_empty() { "ready".to_owned() } else { why_not.join("; ") };
            (queue.clone(), Value::from(state))
        });
        let queues: serde_json::Map<String, Value> = queues.collect();
        let mut body = serde_json::Map::new();
        body.insert("ready".to_owned(), self.is_ready().into());
        body.insert("reasons".to_owned(), reasons.into());
        body.insert("queues".to_owned(), queues.into());
        body.extend(besides.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let status = if self.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_can_serve_somebody_is_ready() {
        let mut readiness = Readiness::default();
        assert!(readiness.is_ready(), "there is nobody to serve yet");
        readiness.queue("one", ["its log is gone".to_owned()]);
        assert!(!readiness.is_ready());
        readiness.queue("two", None);
        assert!(readiness.is_ready());
        readiness.lacks("stopping");
        assert!(!readiness.is_ready());
    }
}
