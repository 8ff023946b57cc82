//! The operator API. Each change is a fact that names the operator; the answer is given once it is
//! folded.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admission::command::{Refused, What, Who};
use crate::admission::handle::{Handle, Shown};
use crate::admission::worker::with_key;
use crate::admission::{NoWorker, Workers};
use crate::http::Problem;
use crate::ids;
use crate::log::stream::StreamError;
use crate::log::subjects::QueueId;
use crate::queue::event::{Configured, Jti, Setting, State as QueueState, VisitorId};
use crate::wire;

/// Who did it, in the log. The API knows one operator: whoever holds the token.
const OPERATOR: &str = "operator";
/// Bodies are small objects.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// What an operator may tell visitors.
const REASON_CHARS_MAX: usize = 300;

pub(super) fn router(workers: Workers, token: String) -> Router {
    let guard = axum::middleware::from_fn_with_state(token, authenticate);
    Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/queues", get(list))
        .route("/admin/queues/{queue}", get(show).put(put))
        .route("/admin/queues/{queue}/stats", get(show))
        .route("/admin/queues/{queue}/release", post(release))
        .route("/admin/queues/{queue}/visitors/{visitor}", delete(remove))
        .route("/admin/queues/{queue}/{order}", post(order))
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "not_found", "There is no such call.")
        })
        .layer(guard)
        .with_state(workers)
}

async fn authenticate(
    State(token): State<String>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if ids::same_secret(bearer(request.headers()).unwrap_or_default(), &token) {
        return Ok(next.run(request).await);
    }
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "The operator's token is needed, as `Authorization: Bearer …`.",
    );
    Err(problem.with(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer")))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// What every node counts, in Prometheus' text format.
async fn metrics(State(workers): State<Workers>) -> Response {
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], workers.beats.counts()).into_response()
}

async fn list(State(workers): State<Workers>) -> Result<Response, Problem> {
    let queues: Vec<QueueId> = workers.queues.lock().await.keys().cloned().collect();
    let mut shown = Vec::new();
    for queue in &queues {
        let one = settled(&workers.start(queue).await).await?;
        if one.configured {
            shown.push(to_json(queue, &one));
        }
    }
    Ok(Json(json!({ "queues": shown })).into_response())
}

async fn show(
    State(workers): State<Workers>,
    Path(queue): Path<String>,
) -> Result<Response, Problem> {
    let (queue, worker) = find(&workers, &queue).await?;
    let shown = settled(&worker).await?;
    if !shown.configured {
        return Err(Problem::unknown_queue());
    }
    Ok(Json(to_json(&queue, &shown)).into_response())
}

/// Creates a queue, open, or replaces the policy of one; with `If-None-Match: *` only the former.
async fn put(
    State(workers): State<Workers>,
    Path(queue): Path<String>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Response, Problem> {
    let queue = parse_queue(&queue)?;
    let policy: Value = if body.is_empty() { json!({}) } else { parse_json(&body)? };
    let policy = wire::policy::parse(&policy).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Problem::new(StatusCode::BAD_REQUEST, "bad_policy", faults.join("; "))
    })?;
    let made = workers.log.create_stream(&queue, workers.limits).await;
    made.map_err(|error| match error {
        StreamError::Refused(why) => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "no_stream", why)
        }
        StreamError::Missing | StreamError::Away(_) => Problem::log_unavailable(),
    })?;
    let worker = workers.start(&queue).await;
    // The worker of a stream that is new folds nothing, of one that is there what it holds.
    let before = settled(&worker).await?;
    if before.configured && headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "*") {
        let detail = "There is a queue of this name already.";
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "queue_exists", detail));
    }
    let mut facts = vec![by_operator(Setting::Policy(policy))];
    if !before.configured {
        facts.push(by_operator(Setting::Keys(with_key(&[], workers.signer.public_key()))));
        facts.push(by_operator(Setting::State(QueueState::Open, None)));
    }
    configure(&worker, facts).await?;
    let shown = worker.show().await.ok_or_else(Problem::log_unavailable)?;
    let status = if before.configured { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(to_json(&queue, &shown))).into_response())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    reason: Option<String>,
}

async fn order(
    State(workers): State<Workers>,
    Path((queue, order)): Path<(String, String)>,
    body: axum::body::Bytes,
) -> Result<Response, Problem> {
    let state = match order.as_str() {
        "open" | "resume" => QueueState::Open,
        "pause" => QueueState::Paused,
        _ => {
            return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", "There is no such call."));
        }
    };
    let (queue, worker) = find(&workers, &queue).await?;
    let order: Order = if body.is_empty() { Order::default() } else { parse_json(&body)? };
    let reason = order.reason.filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX) {
        let detail = format!("reason must be a text of at most {REASON_CHARS_MAX} characters");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail));
    }
    if !settled(&worker).await?.configured {
        return Err(Problem::unknown_queue());
    }
    configure(&worker, vec![by_operator(Setting::State(state, reason))]).await?;
    let shown = worker.show().await.ok_or_else(Problem::log_unavailable)?;
    Ok(Json(to_json(&queue, &shown)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseBody {
    visitor: Option<String>,
    jti: Option<String>,
}

async fn release(
    State(workers): State<Workers>,
    Path(queue): Path<String>,
    body: axum::body::Bytes,
) -> Result<Response, Problem> {
    let (_, worker) = find(&workers, &queue).await?;
    let body: ReleaseBody = parse_json(&body)?;
    let who = match (body.visitor.as_deref(), body.jti.as_deref()) {
        (Some(visitor), None) => wire::id::parse(visitor).map(|id| Who::Visitor(VisitorId(id))),
        (None, Some(jti)) => wire::id::parse(jti).map(|id| Who::Jti(Jti(id))),
        _ => None,
    };
    let Some(who) = who else {
        let detail = "Exactly one of visitor and jti is needed, a UUID in lower case.";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail));
    };
    let by = OPERATOR.to_owned();
    let released = worker.command(|done| What::Release { who, by, done }).await;
    let visitor = released.map_err(refused)?;
    Ok(Json(json!({"released": visitor.to_string()})).into_response())
}

async fn remove(
    State(workers): State<Workers>,
    Path((queue, visitor)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (_, worker) = find(&workers, &queue).await?;
    let visitor = VisitorId(wire::id::parse(&visitor).ok_or_else(unknown_visitor)?);
    let by = OPERATOR.to_owned();
    let removed = worker.command(|done| What::Remove { visitor, by, done }).await;
    removed.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What the worker shows once it has folded what the log held.
async fn settled(worker: &Handle) -> Result<Shown, Problem> {
    // A worker that has stopped says where and why, and folds no further.
    if let Some(shown) = worker.show().await.filter(|shown| shown.halted.is_some()) {
        return Ok(shown);
    }
    // A command without facts is carried out by folding alone.
    let folded = worker.command(|done| What::Configure { facts: Vec::new(), done }).await;
    folded.map_err(refused)?;
    worker.show().await.ok_or_else(Problem::log_unavailable)
}

async fn configure(worker: &Handle, facts: Vec<Configured>) -> Result<(), Problem> {
    let written = worker.command(|done| What::Configure { facts, done }).await;
    written.map(|_| ()).map_err(refused)
}

async fn find(workers: &Workers, queue: &str) -> Result<(QueueId, Handle), Problem> {
    let queue = parse_queue(queue)?;
    let worker = workers.find(&queue).await.map_err(|why| match why {
        NoWorker::UnknownQueue => Problem::unknown_queue(),
        NoWorker::LogUnavailable => Problem::log_unavailable(),
    })?;
    Ok((queue, worker))
}

fn parse_queue(queue: &str) -> Result<QueueId, Problem> {
    QueueId::parse(queue).ok_or_else(|| {
        let detail = "A queue's name is 1 to 63 of a-z 0-9 - and does not begin with a hyphen.";
        Problem::new(StatusCode::BAD_REQUEST, "bad_queue", detail)
    })
}

fn parse_json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string()))
}

fn by_operator(what: Setting) -> Configured {
    Configured { by: OPERATOR.to_owned(), what }
}

fn refused(why: Refused) -> Problem {
    match why {
        Refused::Nobody => unknown_visitor(),
        Refused::Gate(_) | Refused::Unavailable => Problem::log_unavailable(),
    }
}

fn unknown_visitor() -> Problem {
    let detail = "There is no such visitor in the line or inside.";
    Problem::new(StatusCode::NOT_FOUND, "unknown_visitor", detail)
}

fn to_json(queue: &QueueId, shown: &Shown) -> Value {
    json!({
        "queue": queue.as_str(),
        "status": wire::event::state_name(shown.state),
        "reason": shown.reason,
        "policy": wire::policy::write(&shown.policy),
        "sequence": shown.sequence,
        "visitors": shown.visitors,
        "waiting": shown.waiting,
        "present": shown.present,
        "admitted": shown.admitted,
        "unused": shown.unused,
        "inside": shown.inside,
        "halted": shown.halted,
    })
}
