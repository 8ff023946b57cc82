//! From a token to a pass, and from a pass to a newer one: what the site's side asks for visitors.
//! Admission decides and signs; a node only asks, and asks again where the answer may be lost.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock;
use crate::http::forwarded::Forwarded;
use crate::http::{Arrived, Problem};
use crate::ids;
use crate::log::talk::AskError;
use crate::node::presented::{COOKIE, SECURE_COOKIE, in_cookies, in_headers};
use crate::node::{NoQueue, Node, Queue};
use crate::queue::digest::hex;
use crate::queue::door::origin_of;
use crate::wire::ask::{PassAnswer, RedeemQuestion, Refusal, RenewQuestion};
use crate::wire::token::{self, Invalid, PASS_TYPE, TOKEN_TYPE};

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

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A pass, and the queue that it is of.
pub(super) type Answered = (Arc<Queue>, PassAnswer);

/// Exchanges a token for a pass.
pub(super) async fn redeem(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut response = match redeemed(&node, &headers, &body).await {
        Ok(answered) => private(to_json(&answered)),
        Err(problem) => problem.into_response(),
    };
    if let Some(origin) = allowed_origin(&node, &headers) {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// What a browser asks before it redeems from another origin.
pub(super) async fn preflight(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
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

/// The same as redeeming, through the site's own origin: the pass is also set as its cookie.
pub(super) async fn enter(
    State(node): State<Arc<Node>>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let forwarded = Forwarded::of(&headers, &arrived);
    // Nobody is made to enter unknowingly: a form of another site can't send this type, and a script
    // of one says where it comes from.
    if !is_json(&headers) {
        let detail = "The body must be application/json.";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request", detail));
    }
    if !is_of_this_site(&node, &headers, &forwarded) {
        let detail = "Nobody enters from a page of another origin.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "origin_refused", detail));
    }
    let answered = redeemed(&node, &headers, &body).await?;
    let cookie = cookie(&node, &forwarded, &answered)?;
    let mut response = private(to_json(&answered));
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// A newer pass of the same session for one that is held, in a header, the body or the cookie; the
/// cookie is then set anew.
pub(super) async fn renew(
    State(node): State<Arc<Node>>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let in_body = if body.is_empty() { None } else { Some(text_of(&body, "pass")?) };
    // A header may hold what is not for us, beside the cookie.
    let is_pass = |text: &&str| token::is_of_type(text, PASS_TYPE);
    let held = in_headers(&headers).find(is_pass).or(in_body.as_deref());
    let (pass, is_in_cookie) = match (held, in_cookies(&headers).find(is_pass)) {
        (Some(pass), _) => (pass, false),
        (None, Some(pass)) => (pass, true),
        (None, None) => return Err(pass_invalid()),
    };
    let queue = queue_of(&node, pass, pass_invalid).await?;
    let answer = asked(&node, &queue, "renew", |_| RenewQuestion { pass: pass.to_owned() });
    let answered = (Arc::clone(&queue), answer.await?);
    let mut response = private(to_json(&answered));
    if is_in_cookie {
        let cookie = cookie(&node, &Forwarded::of(&headers, &arrived), &answered)?;
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Has a token used. `request` is the key by which the same request is known again; the log has its digest.
pub(super) async fn redeem_token(
    node: &Arc<Node>,
    token: &str,
    request: &str,
) -> Result<Answered, Problem> {
    let queue = queue_of(node, token, token_invalid).await?;
    // What is plainly none is refused here, where there may be many nodes, and not by the one worker.
    let keys = queue.view().keys();
    if token::verify(token, TOKEN_TYPE, &keys, &node.issuer, queue.id.as_str())
        == Err(Invalid::NotOurs)
    {
        return Err(token_invalid());
    }
    let key = match queue.secret(&node.installation) {
        Ok(secret) => hex(&secret.request_digest(request)),
        Err(_) => return Err(Problem::log_unavailable()),
    };
    let answer = asked(node, &queue, "redeem", |until| RedeemQuestion {
        token: token.to_owned(),
        key: Some(key.clone()),
        until,
    });
    let answer = answer.await?;
    Ok((queue, answer))
}

/// The cookie that a pass is kept in, for as long as it is good.
pub(super) fn cookie(
    node: &Node,
    forwarded: &Forwarded<'_>,
    (queue, answer): &Answered,
) -> Result<HeaderValue, Problem> {
    let is_secure = match forwarded.proto {
        Some(proto) => proto.eq_ignore_ascii_case("https"),
        None => node.public_url.as_deref().is_some_and(|url| url.starts_with("https://")),
    };
    let (name, secure) = if is_secure { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let seconds = (answer.expires - queue.view().now().seconds()).max(0);
    let pass = &answer.pass;
    let cookie =
        format!("{name}={pass}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&cookie).map_err(|_| token_invalid())
}

async fn redeemed(node: &Arc<Node>, headers: &HeaderMap, body: &[u8]) -> Result<Answered, Problem> {
    let token = text_of(body, "token")?;
    // Without a key of its own a request gets one that nobody else can present: several workers may
    // be asked, and each must know whether a redemption was this request's.
    let key = match headers.get(IDEMPOTENCY_KEY).map(HeaderValue::to_str) {
        None => ids::node().to_string(),
        Some(Ok(key)) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => key.to_owned(),
        Some(_) => return Err(bad_request("Idempotency-Key has 1 to 200 characters")),
    };
    redeem_token(node, &token, &key).await
}

/// The queue that a token or a pass names. It is not verified by this: it only says whom to ask.
async fn queue_of(
    node: &Arc<Node>,
    token: &str,
    invalid: impl Fn() -> Problem,
) -> Result<Arc<Queue>, Problem> {
    let queue = token::queue_of(token).ok_or_else(&invalid)?;
    node.queue(&queue).await.map_err(|why| match why {
        NoQueue::Unknown => invalid(),
        NoQueue::Unavailable => Problem::log_unavailable(),
    })
}

/// Asks admission until it has judged, or it is too late. `question` is made anew each time, with the
/// log's time until which the answer is waited for.
async fn asked<Q: Serialize>(
    node: &Node,
    queue: &Queue,
    about: &str,
    question: impl Fn(i64) -> Q,
) -> Result<PassAnswer, Problem> {
    let give_up = clock::monotonic() + ANSWER_MAX;
    loop {
        // The log's clock may have been set meanwhile, and we have heard it.
        let left = give_up.saturating_duration_since(clock::monotonic()).as_nanos();
        let left = i64::try_from(left).unwrap_or_default();
        let until = queue.view().now().0.saturating_add(left);
        let answer: Result<PassAnswer, AskError> =
            node.log.gate(&queue.id, about, &question(until), ATTEMPT_MAX).await;
        match answer {
            Ok(answer) => return Ok(answer),
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
        Refusal::PassInvalid => pass_invalid(),
        Refusal::PassExpired => {
            let detail = "The session of this pass is over.";
            Problem::new(StatusCode::UNAUTHORIZED, "pass_expired", detail)
        }
        Refusal::PassReleased => {
            let detail = "This pass was given back.";
            Problem::new(StatusCode::UNAUTHORIZED, "pass_released", detail)
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

fn pass_invalid() -> Problem {
    let detail = "This is no pass of a queue here, or it was altered.";
    Problem::new(StatusCode::UNAUTHORIZED, "pass_invalid", detail)
}

fn bad_request(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail)
}

/// The text that a body has under this name.
fn text_of(body: &[u8], name: &str) -> Result<String, Problem> {
    let body: Value =
        serde_json::from_slice(body).map_err(|error| bad_request(&error.to_string()))?;
    let text = body.get(name).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| bad_request(&format!("{name} is missing")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether a page of the site itself asks, or no browser at all.
fn is_of_this_site(node: &Node, headers: &HeaderMap, forwarded: &Forwarded<'_>) -> bool {
    if headers.get(FETCH_SITE).is_some_and(|site| site == "cross-site") {
        return false;
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let origin = origin.to_str().ok().filter(|origin| origin_of(origin) == Some(*origin));
    let Some((origin, None)) = origin.map(|origin| (origin, origins.next())) else {
        return false;
    };
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_host = |host: &str| authority.eq_ignore_ascii_case(host);
    let is_scheme = forwarded.proto.is_none_or(|proto| scheme == proto);
    is_scheme && [host, forwarded.host].into_iter().flatten().any(is_host)
        || node.public_url.as_deref() == Some(origin)
        || allowed_origin(node, headers).is_some()
}

/// The origin of the page that asks, where some queue allows it.
fn allowed_origin(node: &Node, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    let allows = |queue: &Arc<Queue>| {
        queue.view().door().allowed_origins.iter().any(|allowed| allowed == text)
    };
    node.all_queues().iter().any(allows).then(|| origin.clone())
}

fn to_json((queue, answer): &Answered) -> Value {
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
