//! What a node answers over HTTP: the upgrade to a socket, the site's side (redeem, enter,
//! authorize, keys), and whether it is alive and ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::clock;
use crate::http::door::Place;
use crate::http::{self, Problem};
use crate::ids;
use crate::log::talk::AskError;
use crate::node::counts;
use crate::node::ending::{self, End};
use crate::node::entry;
use crate::node::session::Session;
use crate::node::waiting;
use crate::node::{NoQueue, Node, Queue, page};
use crate::queue::event::Jti;
use crate::queue::policy::origin_of;
use crate::wire::ask::{RedeemAnswer, RedeemQuestion, Refusal};
use crate::wire::frame;
use crate::wire::id::Id;
use crate::wire::token::{self, Claims, PASS_TYPE};

/// Bodies hold a token and little else.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024;
/// An idempotency key is a UUID or the like.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;

/// For so long it is tried to have a token used: longer than it takes another worker to go on when
/// one has died.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// For so long one answer is waited for. Whoever was asked may have died with the question; asked
/// again, the next one knows by its key whether it was done.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// Pause before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

const WAITING_TOKEN: HeaderName = HeaderName::from_static("x-waiting-token");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const VISITOR: HeaderName = HeaderName::from_static("x-anteroom-visitor");
const PASS: HeaderName = HeaderName::from_static("x-anteroom-pass");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The pass cookie: over TLS with the prefix that browsers guard.
const COOKIE: &str = "anteroom_pass";
const SECURE_COOKIE: &str = "__Host-anteroom_pass";

pub(super) fn router(node: Arc<Node>) -> Router {
    let fallback = || async {
        Problem::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this address.")
    };
    Router::new()
        .route("/ws/{queue}", get(socket))
        .route("/api/queues/{queue}", get(queue))
        .route("/api/tokens/redeem", post(redeem).options(preflight))
        .route("/anteroom/enter", post(enter))
        .route("/api/authorize", get(authorize))
        .route("/.well-known/jwks.json", get(keys))
        .route("/healthz", get(|| async { Json(json!({"alive": true})) }))
        .route("/readyz", get(ready))
        .merge(page::router())
        .fallback(fallback)
        .with_state(node)
}

/// The upgrade (RFC 6455, 4.2), answered by hand so that the bare socket can be had.
async fn socket(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
    mut request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers();
    let wants = |name: HeaderName, token: &str| {
        let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let asked = wants(header::CONNECTION, "upgrade") && wants(header::UPGRADE, "websocket");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
    let (true, Some(b"13"), Some(key)) = (asked, version, key) else {
        counts::refused("no_upgrade");
        let detail = "A WebSocket (version 13) is expected here.";
        let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail);
        return Err(problem.with(header::UPGRADE, HeaderValue::from_static("websocket")));
    };
    let queue = match node.queue(&name).await {
        Ok(queue) => Some(queue),
        Err(NoQueue::Unknown) => None,
        // The client comes back as after any loss, soon at first.
        Err(NoQueue::Unavailable) => {
            counts::refused("unavailable");
            return Err(no_queue(NoQueue::Unavailable));
        }
    };
    let allowed = queue.as_ref().is_some_and(|queue| is_allowed_origin(queue, headers));
    // No browser names two, and of two each reader would believe another.
    let named_twice = headers.get_all(header::ORIGIN).iter().nth(1).is_some();
    if named_twice || !allowed && !is_own_origin(&node, headers) {
        counts::refused("origin");
        let detail = "This origin may not open a socket here.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "origin_refused", detail));
    }
    let arrived = request.extensions_mut().remove::<http::Arrived>();
    let Some((mut place, handshake)) = arrived.and_then(|arrived| arrived.take()) else {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "This is a socket already.",
        ));
    };
    if let Err(refused) = place.count_socket(request.headers()) {
        counts::refused(refused.reason());
        return Err(refused.into());
    }
    counts::handshake();
    let upgrade = hyper::upgrade::on(&mut request);
    let serving = Arc::clone(&node);
    node.shutdown.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let Some(session) = session(upgraded, place) else { return };
        match queue {
            Some(queue) => entry::serve(serving, queue, session, handshake).await,
            // Said on the socket: a page can't read why an upgrade was refused.
            None => ending::finish(session, End::UnknownQueue).await,
        }
    });
    let accept = HeaderValue::from_str(&frame::accept_key(key.as_bytes()));
    let accept = accept.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "bad_request", "key"))?;
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Takes the bare socket over, with what was read of it early. The buffers that it had are gone with
/// what they were for.
fn session(upgraded: Upgraded, place: Place) -> Option<Session> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some(Session::new(parts.io.into_inner(), &parts.read_buf, Some(place)))
}

/// A program says no origin; a browser says that of the page, which may be our own.
fn is_own_origin(node: &Node, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if let Some(public) = &node.public_url {
        return origin_of(public) == Some(origin);
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = origin_of(origin).and_then(|origin| origin.split_once("://"));
    own.zip(host).is_some_and(|((_, authority), host)| authority.eq_ignore_ascii_case(host))
}

/// Whether the page's origin is one of those that the queue allows.
fn is_allowed_origin(queue: &Queue, headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let view = queue.view();
    origin.is_some_and(|origin| view.policy().allowed_origins.iter().any(|o| o == origin))
}

fn no_queue(why: NoQueue) -> Problem {
    match why {
        NoQueue::Unknown => Problem::unknown_queue(),
        NoQueue::Unavailable => {
            let detail = "It can't be said at the moment whether there is such a queue.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(3)
        }
    }
}

/// What the page needs to know of a queue.
async fn queue(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let queue = node.queue(&name).await.map_err(no_queue)?;
    let view = queue.view();
    let body = json!({
        "queue": queue.id.as_str(),
        "title": view.policy().title,
        "content": view.policy().content,
        "status": waiting::status(view.state()),
        "reason": view.reason(),
        "opensAt": view.opens_at().map(|at| clock::rfc3339(at.seconds())),
        "waiting": view.waiting(),
        "reconnectSeconds": view.policy().reconnect_seconds,
    });
    let cache = [(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    Ok((cache, Json(body)).into_response())
}

async fn redeem(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let mut response = match redeemed(&node, &headers, &body).await {
        Ok((queue, answer)) => private(redeem_json(&queue, &answer)),
        Err(problem) => problem.into_response(),
    };
    if let Some(origin) = allowed_origin(&node, &headers) {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// What a browser asks before it redeems from another origin.
async fn preflight(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    let Some(origin) = allowed_origin(&node, &headers) else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(Method::POST.as_str())),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("content-type, idempotency-key"),
        ),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
        (header::VARY, HeaderValue::from_static("Origin")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn allowed_origin(node: &Node, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    let allows = |queue: &Arc<Queue>| {
        queue.view().policy().allowed_origins.iter().any(|allowed| allowed == text)
    };
    node.all_queues().iter().any(allows).then(|| origin.clone())
}

/// The same as redeeming, through the site's own origin: the pass is also set as its cookie.
async fn enter(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Response, Problem> {
    // A form of another site can't send this type, so nobody is made to enter unknowingly.
    let json = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if json.is_none_or(|kind| kind.split(';').next() != Some("application/json")) {
        let detail = "The body must be application/json.";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request", detail));
    }
    let (queue, answer) = redeemed(&node, &headers, &body).await?;
    let cookie = pass_cookie(&node, &headers, &answer, queue.view().now().seconds())?;
    let mut response = private(redeem_json(&queue, &answer));
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

async fn redeemed(
    node: &Arc<Node>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(Arc<Queue>, RedeemAnswer), Problem> {
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail);
    let body: Value = serde_json::from_slice(body).map_err(|error| bad(&error.to_string()))?;
    let token = body.get("token").and_then(Value::as_str).ok_or_else(|| bad("token is missing"))?;
    let key = match headers.get(IDEMPOTENCY_KEY).map(HeaderValue::to_str) {
        None => None,
        Some(Ok(key)) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => {
            Some(ids::key_digest(key))
        }
        Some(_) => return Err(bad("Idempotency-Key has 1 to 200 characters")),
    };
    redeem_token(node, token, key).await
}

async fn redeem_token(
    node: &Arc<Node>,
    token: &str,
    key: Option<String>,
) -> Result<(Arc<Queue>, RedeemAnswer), Problem> {
    // Unverified: it only says whom to ask. Admission verifies it.
    let queue = token::queue_of(token).ok_or_else(token_invalid)?;
    let queue = node.queue(&queue).await.map_err(|why| match why {
        NoQueue::Unknown => token_invalid(),
        NoQueue::Unavailable => Problem::log_unavailable(),
    })?;
    // Without a key of its own a request gets one that nobody else can present: several workers may
    // be asked, and each must know whether a redemption was this request's.
    let key = key.unwrap_or_else(|| ids::key_digest(&ids::node().to_string()));
    let give_up = clock::monotonic() + ANSWER_MAX;
    loop {
        // Anew each time: the log's clock may have been set meanwhile, and we have heard it.
        let left = give_up.saturating_duration_since(clock::monotonic()).as_nanos();
        let left = i64::try_from(left).unwrap_or_default();
        let until = queue.view().now().0.saturating_add(left);
        let question = RedeemQuestion { token: token.to_owned(), key: Some(key.clone()), until };
        let answer: Result<RedeemAnswer, AskError> =
            node.log.gate(&queue.id, "redeem", &question, ATTEMPT_MAX).await;
        match answer {
            Ok(answer) => return Ok((queue, answer)),
            Err(AskError::Nobody | AskError::Refused(Refusal::LogUnavailable))
                if clock::monotonic() + ASK_AGAIN < give_up =>
            {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Err(AskError::Refused(refusal)) => return Err(refused(refusal)),
            Err(AskError::Nobody | AskError::Unreadable) => return Err(Problem::log_unavailable()),
        }
    }
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::TokenAlreadyUsed => {
            Problem::new(StatusCode::CONFLICT, "token_already_used", "This token was used.")
        }
        Refusal::TokenExpired => {
            let detail = "This token's time is over.";
            Problem::new(StatusCode::UNAUTHORIZED, "token_expired", detail)
        }
        Refusal::TokenInvalid | Refusal::UnknownQueue => token_invalid(),
        Refusal::BadQuestion | Refusal::Behind | Refusal::LogUnavailable | Refusal::Halted => {
            Problem::log_unavailable()
        }
    }
}

fn token_invalid() -> Problem {
    let detail = "This is no token of this queue, or it was altered.";
    Problem::new(StatusCode::UNAUTHORIZED, "token_invalid", detail)
}

fn redeem_json(queue: &Queue, answer: &RedeemAnswer) -> Value {
    json!({
        "pass": answer.pass,
        "expiresAt": clock::rfc3339(answer.expires),
        "visitor": answer.visitor,
        "queue": queue.id.as_str(),
    })
}

/// An answer about a person.
fn private(body: Value) -> Response {
    let cache = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (cache, Json(body)).into_response()
}

fn pass_cookie(
    node: &Node,
    headers: &HeaderMap,
    answer: &RedeemAnswer,
    now: i64,
) -> Result<HeaderValue, Problem> {
    let forwarded = headers.get(FORWARDED_PROTO).is_some_and(|proto| proto == "https");
    let public = node.public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
    let (name, secure) =
        if forwarded || public { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let seconds = (answer.expires - now).max(0);
    let pass = &answer.pass;
    let cookie =
        format!("{name}={pass}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&cookie).map_err(|_| token_invalid())
}

/// What gateways ask about each request of the site.
async fn authorize(State(node): State<Arc<Node>>, request: Request) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let queue = node.queue(&query.queue).await.map_err(no_queue)?;
    let headers = request.headers();
    let mut why = ("no_pass", "A pass is needed; the way to one is the waiting page.");
    for pass in presented(headers) {
        match verify_pass(&node, &queue, pass) {
            Ok(claims) => return Ok(authorized(claims.sub, None)),
            Err(Denied::Revoked) => why = ("pass_released", "This pass was given back."),
            Err(Denied::Expired) => why = ("pass_expired", "This pass's time is over."),
            Err(Denied::NoPass) => {}
        }
    }
    for token in in_headers(headers) {
        // A token of another queue is not used up here.
        if !token::is_token(token) || token::queue_of(token).as_deref() != Some(queue.id.as_str()) {
            continue;
        }
        match redeem_token(&node, token, None).await {
            Ok((_, answer)) => {
                let cookie = pass_cookie(&node, headers, &answer, queue.view().now().seconds())?;
                return Ok(authorized(answer.visitor, Some((answer.pass, cookie))));
            }
            Err(problem) if problem.status() == StatusCode::SERVICE_UNAVAILABLE => {
                return Err(problem);
            }
            Err(problem) => why = (problem.code(), "This token can't be used (any more)."),
        }
    }
    Err(to_waiting_page(&node, &queue, &query, why))
}

fn authorized(visitor: Id, pass: Option<(String, HeaderValue)>) -> Response {
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let visitor = crate::queue::event::VisitorId(visitor.0).to_string();
    headers.extend(HeaderValue::from_str(&visitor).ok().map(|value| (VISITOR, value)));
    if let Some((pass, cookie)) = pass {
        headers.extend(HeaderValue::from_str(&pass).ok().map(|value| (PASS, value)));
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

fn to_waiting_page(
    node: &Node,
    queue: &Queue,
    query: &Query,
    (code, detail): (&'static str, &str),
) -> Problem {
    let base = node.public_url.as_deref().unwrap_or_default().trim_end_matches('/');
    let place = HeaderValue::from_str(&format!("{base}/waiting/{}", queue.id));
    let status = if query.redirect { StatusCode::FOUND } else { StatusCode::FORBIDDEN };
    let problem = Problem::new(status, code, detail);
    match place {
        Ok(place) => problem.with(header::LOCATION, place),
        Err(_) => problem,
    }
}

struct Query {
    queue: String,
    redirect: bool,
}

impl Query {
    /// `queue` exactly once; of two, which one the gateway meant can't be known.
    fn parse(query: &str) -> Result<Self, Problem> {
        let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail);
        let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(key).or_default().push(value);
        }
        match values.get("queue").map(Vec::as_slice) {
            Some([queue]) => Ok(Self {
                queue: (*queue).to_owned(),
                redirect: values.get("redirect").is_some_and(|values| values.contains(&"1")),
            }),
            Some(_) => Err(bad("queue is named more than once")),
            None => Err(bad("queue is missing")),
        }
    }
}

/// Whatever the request has in the places where a token or a pass may be in a header.
fn in_headers(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let waiting = headers.get(WAITING_TOKEN).and_then(|value| value.to_str().ok());
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    waiting.into_iter().chain(bearer)
}

/// The same, and the cookies, where only a pass may be.
fn presented(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookies = cookies.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        matches!(name, COOKIE | SECURE_COOKIE).then_some(value)
    });
    in_headers(headers).chain(cookies)
}

enum Denied {
    NoPass,
    Expired,
    Revoked,
}

fn verify_pass(node: &Node, queue: &Queue, pass: &str) -> Result<Claims, Denied> {
    let view = queue.view();
    let verified = token::verify(pass, PASS_TYPE, view.keys(), &node.issuer, queue.id.as_str());
    let claims = verified.map_err(|_| Denied::NoPass)?;
    token::in_time(&claims, view.now()).map_err(|_| Denied::Expired)?;
    if view.is_revoked(Jti(claims.jti.0)) {
        return Err(Denied::Revoked);
    }
    Ok(claims)
}

/// The public keys of every queue (RFC 7517), so that any backend verifies a pass by itself.
async fn keys(State(node): State<Arc<Node>>) -> Response {
    let mut keys = BTreeMap::new();
    for queue in node.all_queues() {
        for key in queue.view().keys() {
            keys.insert(key.kid.clone(), token::jwk(key));
        }
    }
    let cache = [(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"))];
    let keys: Vec<Value> = keys.into_values().collect();
    (cache, Json(json!({ "keys": keys }))).into_response()
}

async fn ready(State(node): State<Arc<Node>>) -> Response {
    let reasons = node.unreadiness();
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "reasons": reasons }))).into_response()
}
