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
use crate::admission::{NoWorker, Workers};
use crate::http::Problem;
use crate::http::readiness::Readiness;
use crate::ids;
use crate::log::stream::StreamError;
use crate::log::subjects::QueueId;
use crate::queue::event::{Configured, Jti, Level, Setting, State as QueueState, VisitorId};
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
        .route("/admin/queues/{queue}", get(show).put(put).delete(delete_queue))
        .route("/admin/queues/{queue}/stats", get(show))
        .route("/admin/queues/{queue}/release", post(release))
        .route("/admin/queues/{queue}/upgrade", post(upgrade))
        .route("/admin/queues/{queue}/load", post(load).delete(end_following))
        .route("/admin/queues/{queue}/visitors/{visitor}", delete(remove))
        .route("/admin/queues/{queue}/keys/{kid}", delete(remove_key))
        .route("/admin/queues/{queue}/{order}", post(order))
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "not_found", "There is no such call.")
        })
        .layer(guard)
        // Asked by what keeps processes running, which has no token.
        .route("/healthz", get(|| async { Json(json!({"alive": true})) }))
        .route("/readyz", get(ready))
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

/// Whether this worker could decide, and whether it does.
async fn ready(State(workers): State<Workers>) -> Response {
    let mut readiness = Readiness::default();
    let active = [("active", workers.beats.is_active().into())];
    if !workers.log.is_connected() {
        readiness.lacks("the log can't be reached");
    }
    if !workers.beats.is_listed() {
        // A part of them would be taken for all.
        readiness.lacks("it is not known yet which queues there are");
        return readiness.answer(&active);
    }
    if let Some(why) = workers.signing.keys.fault() {
        readiness.lacks(&format!("signing_key_file: {why}"));
    }
    let handles: Vec<(QueueId, Handle)> =
        workers.queues.lock().await.iter().map(|(id, it)| (id.clone(), it.clone())).collect();
    for (queue, worker) in handles {
        let why = match worker.show().await {
            Some(shown) if shown.state == QueueState::Deleted => continue,
            Some(shown) => shown.unready,
            None => Some("its worker does not answer".to_owned()),
        };
        readiness.queue(queue.as_str(), why);
    }
    readiness.answer(&active)
}

/// What every node counts, in Prometheus' text format.
async fn metrics(State(workers): State<Workers>) -> Response {
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], workers.beats.counts(&workers.counts.text())).into_response()
}

async fn list(State(workers): State<Workers>) -> Result<Response, Problem> {
    // A part of them would be taken for all.
    if !workers.beats.is_listed() {
        return Err(Problem::log_unavailable());
    }
    let queues: Vec<QueueId> = workers.queues.lock().await.keys().cloned().collect();
    let (mut shown, mut reserved) = (Vec::new(), 0);
    // All at once: one that can't be folded to its end is waited for, and holds up no other.
    let settling = queues.iter().map(|queue| async {
        let worker = workers.start(queue).await;
        match settled(&worker).await {
            Ok(one) => Ok(one),
            // Of it is told what is known.
            Err(why) => worker.show().await.filter(|one| one.configured).ok_or(why),
        }
    });
    for (queue, one) in queues.iter().zip(futures_util::future::join_all(settling).await) {
        let one = one?;
        // The log of a deleted queue stays, and its room with it.
        reserved += one.log_bytes.map_or(0, |(_, max)| max);
        if one.configured && one.state != QueueState::Deleted {
            shown.push(to_json(queue, &one));
        }
    }
    let reserved = json!({ "logs": queues.len(), "bytes": reserved });
    Ok(Json(json!({ "queues": shown, "reserved": reserved })).into_response())
}

async fn show(
    State(workers): State<Workers>,
    Path(queue): Path<String>,
) -> Result<Response, Problem> {
    let (queue, worker) = find(&workers, &queue).await?;
    let shown = existing(&worker).await?;
    Ok(Json(to_json(&queue, &shown)).into_response())
}

/// The queue can have no secret here, and the operator is told why: a full disk it is not.
fn no_secret(why: &dyn std::fmt::Display) -> Problem {
    Problem::new(StatusCode::CONFLICT, "no_secret", why.to_string())
}

/// Creates a queue, open unless its time is still to come, or replaces the policy of one; with
/// `If-None-Match: *` only the former.
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
    let secret = workers.installation.wrap_new(queue.as_str());
    let secret = secret.map_err(|why| no_secret(&why))?;
    let made = workers.log.create_stream(&queue, workers.limits, &secret).await;
    let info = made.map_err(|error| match error {
        StreamError::Refused(why) => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "no_stream", why)
        }
        StreamError::Missing | StreamError::Away(_) => Problem::log_unavailable(),
    })?;
    let worker = workers.start(&queue).await;
    // The worker of a stream that is new folds nothing, of one that is there what it holds.
    let before = settled(&worker).await?;
    if before.state == QueueState::Deleted {
        return Err(deleted());
    }
    if before.configured && headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "*") {
        let detail = "There is a queue of this name already.";
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "queue_exists", detail));
    }
    let is_early = policy.opens_at.is_some_and(|opens_at| opens_at > before.now);
    let mut facts = vec![by_operator(Setting::Policy(policy))];
    if !before.configured {
        let state = if is_early { QueueState::Scheduled } else { QueueState::Open };
        let ours = workers.signing.keys.signer().public_keys().to_vec();
        // Of two who make a queue at once the first one's secret counts for both.
        let wrapped = info.secret.unwrap_or_default();
        let secret = workers.installation.unwrap(queue.as_str(), &wrapped);
        let (secret, _) = secret.map_err(|why| no_secret(&why))?;
        facts.push(by_operator(Setting::Secret(secret)));
        facts.push(by_operator(Setting::Keys(ours)));
        facts.push(by_operator(Setting::State(state, None)));
    }
    configure(&worker, facts).await?;
    if !before.configured {
        raise(&worker, workers.beats.level_of_all().await).await?;
    }
    let shown = worker.show().await.ok_or_else(Problem::log_unavailable)?;
    let status = if before.configured { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(to_json(&queue, &shown))).into_response())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Upgrade {
    level: Option<u16>,
}

/// Raises the level of a queue's log, to the newest that this worker knows where none is named. It looks
/// first whether every reader that is heard knows it: one that does not would stop there.
async fn upgrade(
    State(workers): State<Workers>,
    Path(queue): Path<String>,
    body: axum::body::Bytes,
) -> Result<Response, Problem> {
    let (queue, worker) = find(&workers, &queue).await?;
    let asked: Upgrade = if body.is_empty() { Upgrade::default() } else { parse_json(&body)? };
    let level = asked.level.map_or_else(|| workers.log.newest(), Level);
    let before = existing(&worker).await?;
    if level < before.level {
        let detail = format!("The log is at level {}; levels only go up.", before.level);
        return Err(Problem::new(StatusCode::CONFLICT, "level_passed", detail));
    }
    if level == before.level {
        return Ok(Json(to_json(&queue, &before)).into_response());
    }
    if !workers.beats.hears_everybody().await {
        return Err(Problem::log_unavailable());
    }
    let behind = workers.beats.behind(level);
    if !behind.is_empty() {
        let detail = format!("Not everybody can read level {level}: {}.", behind.join("; "));
        return Err(Problem::new(StatusCode::CONFLICT, "level_unknown", detail));
    }
    raise(&worker, level).await?;
    let shown = worker.show().await.ok_or_else(Problem::log_unavailable)?;
    Ok(Json(to_json(&queue, &shown)).into_response())
}

async fn raise(worker: &Handle, level: Level) -> Result<(), Problem> {
    let by = OPERATOR.to_owned();
    let raised = worker.command(|done| What::Raise { level, by, done }).await;
    raised.map(drop).map_err(refused)
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
        "close" => QueueState::Closed,
        _ => {
            return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", "There is no such call."));
        }
    };
    let (queue, worker) = find(&workers, &queue).await?;
    let told: Order = if body.is_empty() { Order::default() } else { parse_json(&body)? };
    let reason = told.reason.filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX) {
        let detail = format!("reason must be a text of at most {REASON_CHARS_MAX} characters");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail));
    }
    let before = existing(&worker).await?;
    may_order(&order, &before)?;
    configure(&worker, vec![by_operator(Setting::State(state, reason))]).await?;
    let shown = worker.show().await.ok_or_else(Problem::log_unavailable)?;
    Ok(Json(to_json(&queue, &shown)).into_response())
}

/// Whether an order has a meaning in the state that the queue is in.
fn may_order(order: &str, before: &Shown) -> Result<(), Problem> {
    let state = wire::event::state_name(before.state);
    if order == "resume" && !matches!(before.state, QueueState::Paused | QueueState::Open) {
        let detail = format!("The queue is {state}; `open` opens it.");
        return Err(Problem::new(StatusCode::CONFLICT, "not_paused", detail));
    }
    let closes_at = before.policy.closes_at.filter(|closes_at| *closes_at <= before.now);
    if let (Some(closes_at), "open" | "resume") = (closes_at, order) {
        let closes_at = wire::instant::write(closes_at);
        let detail = format!("closes_at, {closes_at}, is past: set a later one, or none, first.");
        return Err(Problem::new(StatusCode::CONFLICT, "closing_time_past", detail));
    }
    Ok(())
}

/// A queue is deleted by a fact: its stream stays, and its name is not used again.
async fn delete_queue(
    State(workers): State<Workers>,
    Path(queue): Path<String>,
) -> Result<Response, Problem> {
    let (_, worker) = find(&workers, &queue).await?;
    existing(&worker).await?;
    configure(&worker, vec![by_operator(Setting::State(QueueState::Deleted, None))]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadBody {
    load: f64,
}

/// The protected site reports its load. It is no fact: a change of the rate that comes of it is one.
async fn load(
    State(workers): State<Workers>,
    Path(queue): Path<String>,
    body: axum::body::Bytes,
) -> Result<Response, Problem> {
    let (queue, worker) = find(&workers, &queue).await?;
    let LoadBody { load } = parse_json(&body)?;
    if !(0.0..=1.0).contains(&load) {
        let detail = "load must be a number from 0.0 to 1.0";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail));
    }
    let shown = existing(&worker).await?;
    if !workers.log.is_connected() {
        return Err(Problem::log_unavailable());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1000 as was just seen"
    )]
    let milli = (load * 1_000.0).round() as u16;
    workers.beats.report(&queue, milli).await;
    Ok(Json(json!({ "load": load, "ratePerMinute": shown.rate })).into_response())
}

/// The site reports no more: the policy's own rate holds again.
async fn end_following(
    State(workers): State<Workers>,
    Path(queue): Path<String>,
) -> Result<Response, Problem> {
    let (_, worker) = find(&workers, &queue).await?;
    existing(&worker).await?;
    let end = Setting::Rate { per_minute: None, loads: Vec::new() };
    configure(&worker, vec![by_operator(end)]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
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

/// A key that is stolen, or worn out: what it signed opens nothing any more.
async fn remove_key(
    State(workers): State<Workers>,
    Path((queue, kid)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (_, worker) = find(&workers, &queue).await?;
    existing(&worker).await?;
    let ours = workers.signing.keys.signer().public_keys().to_vec();
    if ours.iter().any(|key| key.kid == kid) {
        let detail =
            "The worker holds this key and would publish it again: take it out of its file first.";
        return Err(Problem::new(StatusCode::CONFLICT, "key_in_use", detail));
    }
    let by = OPERATOR.to_owned();
    let forgotten = worker.command(|done| What::Forget { kid, ours, by, done }).await;
    forgotten.map_err(|why| match why {
        Refused::Nobody => {
            let detail = "The queue has no such key.";
            Problem::new(StatusCode::NOT_FOUND, "unknown_key", detail)
        }
        Refused::Gate(_) | Refused::Unavailable => refused(why),
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What the worker shows of a queue that there is.
async fn existing(worker: &Handle) -> Result<Shown, Problem> {
    let shown = settled(worker).await?;
    match (shown.configured, shown.state) {
        (false, _) => Err(Problem::unknown_queue()),
        (true, QueueState::Deleted) => Err(deleted()),
        (true, _) => Ok(shown),
    }
}

fn deleted() -> Problem {
    let detail = "The queue was deleted; its name is not used again.";
    Problem::new(StatusCode::GONE, "queue_deleted", detail)
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
        "warnings": shown.policy.warnings(shown.state, shown.now),
        "ratePerMinute": shown.rate,
        "followsLoad": shown.follows,
        "keys": shown.keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(),
        "signs": shown.signs,
        "level": shown.level.0,
        "sequence": shown.sequence,
        "visitors": shown.visitors,
        "waiting": shown.waiting,
        "present": shown.present,
        "admitted": shown.admitted,
        "unused": shown.unused,
        "inside": shown.inside,
        "halted": shown.halted,
        "log": shown.log_bytes.map(|(bytes, max)| json!({ "bytes": bytes, "maxBytes": max })),
    })
}
