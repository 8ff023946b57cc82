//! Waiting until visitors can be served, and the queue that a new folder begins with.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clock;

/// How often it is looked.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How often it is said what is still waited for: a long log takes minutes to fold.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// One queue that can't be served is waited for so long, for the sake of what can be said of it; then the
/// others are served without.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(10);
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
const DEMO: &str = "demo";
/// What is said of a queue that can be served.
const READY: &str = "ready";

/// What is asked whether it is ready.
pub(super) struct Asked {
    pub(super) node: String,
    pub(super) operator: String,
    pub(super) token: String,
    /// Whether the folder is new, and gets a queue to begin with.
    pub(super) is_new: bool,
}

/// Waits for as long as it takes. Gives the queue whose page is named first, if there is one.
pub(super) fn wait_for(asked: &Asked) -> Option<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_WAIT_MAX))
        .build()
        .into();
    let mut waiting = Waiting { asked, agent, demo_is_due: asked.is_new, listed_since: None };
    let mut told = clock::monotonic();
    loop {
        let missing = match waiting.look() {
            Ok(queue) => return queue,
            Err(missing) => missing,
        };
        let now = clock::monotonic();
        if now.duration_since(told) >= TELL_EVERY {
            told = now;
            tracing::info!(missing, "not ready yet");
        }
        std::thread::sleep(ASK_EVERY);
    }
}

struct Waiting<'a> {
    asked: &'a Asked,
    agent: ureq::Agent,
    demo_is_due: bool,
    /// Since when it is known which queues there are.
    listed_since: Option<Instant>,
}

impl Waiting<'_> {
    /// The queue whose page is named first, once visitors can be served; before, what is missing.
    fn look(&mut self) -> Result<Option<String>, String> {
        if self.demo_is_due {
            self.make_demo()?;
            self.demo_is_due = false;
        }
        let queues = self.queues()?;
        let since = *self.listed_since.get_or_insert_with(clock::monotonic);
        let is_late = clock::monotonic().duration_since(since) > QUEUE_WAIT_MAX;
        let (status, ready) = self.get(&format!("{}/readyz", self.asked.node))?;
        if status != 200 {
            return Err(format!("the node: {}", text(&ready, "reasons")));
        }
        let (mut served, mut missing) = (Vec::new(), None);
        for (queue, at_admission) in &queues {
            if at_admission != READY {
                // It is not folded yet, and may be one that was deleted.
                missing = Some(format!("queue {queue}: {at_admission}"));
                continue;
            }
            // Asking for it lets the node take it up.
            let (status, answer) = self.get(&format!("{}/api/queues/{queue}", self.asked.node))?;
            match status {
                200 => served.push(queue),
                _ => missing = Some(format!("queue {queue}: {}", text(&answer, "detail"))),
            }
        }
        match missing {
            // The others are not to wait for it.
            Some(missing) if !is_late || served.is_empty() => Err(missing),
            Some(_) | None => {
                let demo = served.iter().find(|queue| **queue == DEMO);
                Ok(demo.or_else(|| served.first()).map(|queue| (*queue).clone()))
            }
        }
    }

    /// Makes the queue that a new folder begins with. Where it can't be made, the reason is told, and all
    /// goes on without.
    fn make_demo(&self) -> Result<(), String> {
        let policy = json!({"rate_per_minute": 60, "title": "Anteroom demo"});
        let url = format!("{}/admin/queues/{DEMO}", self.asked.operator);
        let put = self.agent.put(url).header("If-None-Match", "*");
        let put = put.header("Authorization", &format!("Bearer {}", self.asked.token));
        let mut answer = put.send_json(&policy).map_err(|error| format!("admission: {error}"))?;
        let status = answer.status().as_u16();
        let detail: Value = answer.body_mut().read_json().unwrap_or_default();
        match status {
            // There is one.
            201 | 412 => Ok(()),
            503 => Err(format!("admission: {}", text(&detail, "detail"))),
            status => {
                let why = text(&detail, "detail");
                tracing::warn!(status, why, "the queue {DEMO} could not be made");
                Ok(())
            }
        }
    }

    /// The queues that there are, and what admission says of each: that it is ready, or why not.
    fn queues(&self) -> Result<Vec<(String, String)>, String> {
        let (status, ready) = self.get(&format!("{}/readyz", self.asked.operator))?;
        let queues = ready.get("queues").and_then(Value::as_object);
        let queues = queues
            .into_iter()
            .flatten()
            .map(|(queue, state)| (queue.clone(), state.as_str().unwrap_or_default().to_owned()));
        let queues: Vec<(String, String)> = queues.collect();
        // It names none before it knows all.
        if status != 200 && queues.is_empty() {
            return Err(format!("admission: {}", text(&ready, "reasons")));
        }
        Ok(queues)
    }

    fn get(&self, url: &str) -> Result<(u16, Value), String> {
        let mut get = self.agent.get(url);
        if url.starts_with(&self.asked.operator) {
            get = get.header("Authorization", &format!("Bearer {}", self.asked.token));
        }
        let mut answer = get.call().map_err(|error| format!("{url}: {error}"))?;
        Ok((answer.status().as_u16(), answer.body_mut().read_json().unwrap_or_default()))
    }
}

/// What an answer says under a key.
fn text(answer: &Value, key: &str) -> String {
    match answer.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "no answer".to_owned(),
    }
}
