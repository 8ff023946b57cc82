//! What gateways ask about each request of the site: may it pass, and if not, where is the way in?

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use form_urlencoded::byte_serialize;

use crate::http::forwarded::Forwarded;
use crate::http::{Arrived, Problem};
use crate::node::api::no_queue;
use crate::node::passes::{self, Answered};
use crate::node::presented::{in_cookies, in_headers};
use crate::node::{Node, Queue};
use crate::queue::event::{At, Jti, VisitorId};
use crate::wire::id::Id;
use crate::wire::token::{self, Claims, PASS_TYPE, TOKEN_TYPE};

/// A page's first requests come together, with the one token that the visitor has, and over several
/// connections: whoever shows it within this after it was used is one of them, and gets the same pass.
const TOGETHER: Duration = Duration::from_millis(250);
/// The first answer is kept back for so long after the use: a token that is shown once more after an
/// answer is shown too late, on this node and, give or take what their clocks differ by, on any other.
const KEPT_BACK: Duration = Duration::from_millis(300);

const VISITOR: HeaderName = HeaderName::from_static("x-anteroom-visitor");
const PASS: HeaderName = HeaderName::from_static("x-anteroom-pass");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// 200 for a request that may pass; else 403 with the way to the waiting page.
pub(super) async fn authorize(
    State(node): State<Arc<Node>>,
    Extension(arrived): Extension<Arrived>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = Asked::read(&query)?;
    let queue = node.queue(asked.queue).await.map_err(no_queue)?;
    let came = queue.view().now();
    let forwarded = Forwarded::of(&headers, &arrived);
    let mut why = ("no_pass", "A pass is needed; the way to one is the waiting page.");
    for pass in in_headers(&headers).chain(in_cookies(&headers)) {
        match verify_pass(&node, &queue, pass) {
            Ok(claims) => return Ok(authorized(claims.sub, None)),
            Err(Denied::Revoked) => why = ("pass_released", "This pass was given back."),
            Err(Denied::Expired) => why = ("pass_expired", "This pass's time is over."),
            Err(Denied::NoPass) => {}
        }
    }
    for token in in_headers(&headers) {
        // A token of another queue is not used up here.
        if !token::is_of_type(token, TOKEN_TYPE)
            || token::queue_of(token).as_deref() != Some(queue.id.as_str())
        {
            continue;
        }
        match use_token(&node, token, came).await {
            Ok(answered) => {
                let cookie = passes::cookie(&node, &forwarded, &answered)?;
                let (_, answer) = answered;
                return Ok(authorized(answer.visitor, Some((answer.pass, cookie))));
            }
            Err(problem) if problem.status() == StatusCode::SERVICE_UNAVAILABLE => {
                return Err(problem);
            }
            Err(problem) => why = (problem.code(), "This token can't be used (any more)."),
        }
    }
    let way = way_in(&node, &queue, &headers, &forwarded);
    let status = if asked.redirect { StatusCode::FOUND } else { StatusCode::FORBIDDEN };
    let (code, detail) = why;
    Err(Problem::new(status, code, detail).with(header::LOCATION, way?))
}

/// Uses a token up, for a request that came at this time.
async fn use_token(node: &Arc<Node>, token: &str, came: At) -> Result<Answered, Problem> {
    // All requests with this token have this key, which is of more characters than one that a client
    // could name itself.
    let key = format!("authorize {token}");
    let answered = passes::redeem_token(node, token, &key).await?;
    let redeemed_at = At(answered.1.redeemed_at);
    let passed = |at: At| Duration::from_nanos(u64::try_from(at.since(redeemed_at)).unwrap_or(0));
    if passed(came) > TOGETHER {
        let detail = "This token was used.";
        return Err(Problem::new(StatusCode::CONFLICT, "token_already_used", detail));
    }
    let now = answered.0.view().now();
    tokio::time::sleep(KEPT_BACK.saturating_sub(passed(now))).await;
    Ok(answered)
}

fn authorized(visitor: Id, pass: Option<(String, HeaderValue)>) -> Response {
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let visitor = VisitorId(visitor.0).to_string();
    headers.extend(HeaderValue::from_str(&visitor).ok().map(|value| (VISITOR, value)));
    if let Some((pass, cookie)) = pass {
        headers.extend(HeaderValue::from_str(&pass).ok().map(|value| (PASS, value)));
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

/// The waiting page, with the way back to the page that was asked for where that is known.
fn way_in(
    node: &Node,
    queue: &Queue,
    headers: &HeaderMap,
    forwarded: &Forwarded<'_>,
) -> Result<HeaderValue, Problem> {
    let base = node.public_url.as_deref().unwrap_or_default();
    let mut way = format!("{base}/waiting/{}", queue.id);
    if let Some(target) = way_back(queue, headers, forwarded) {
        way = format!("{way}?target={}", encoded(&target));
    }
    HeaderValue::from_str(&way).map_err(|_| Problem::unknown_queue())
}

/// The site's own page of entry, which leads on to the page that was asked for: there the gateway
/// would send a visitor back, token and all.
fn way_back(queue: &Queue, headers: &HeaderMap, forwarded: &Forwarded<'_>) -> Option<String> {
    let is_page = forwarded.method == Some("GET") && is_navigation(headers);
    let uri = forwarded.uri.filter(|uri| is_page && uri.starts_with('/'))?;
    let target = format!("{}/anteroom/enter?to={}", forwarded.origin()?, encoded(uri));
    queue.view().door().may_lead_to(&target).then_some(target)
}

/// Whether somebody opens a page, as browsers say it; older ones only say that they would take one.
fn is_navigation(headers: &HeaderMap) -> bool {
    match headers.get(FETCH_MODE) {
        Some(mode) => mode == "navigate",
        None => headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html")),
    }
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// What a gateway asks.
struct Asked<'a> {
    queue: &'a str,
    redirect: bool,
}

impl<'a> Asked<'a> {
    /// `queue` exactly once; of two, which one the gateway meant can't be known.
    fn read(query: &'a [(String, String)]) -> Result<Self, Problem> {
        let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail);
        let mut queues = query.iter().filter(|(key, _)| key == "queue");
        let (_, queue) = queues.next().ok_or_else(|| bad("queue is missing"))?;
        if queues.next().is_some() {
            return Err(bad("queue is named more than once"));
        }
        let redirect = query.iter().any(|(key, value)| key == "redirect" && value == "1");
        Ok(Self { queue, redirect })
    }
}

enum Denied {
    NoPass,
    Expired,
    Revoked,
}

fn verify_pass(node: &Node, queue: &Queue, pass: &str) -> Result<Claims, Denied> {
    // Nobody waits for the view while a signature is verified, which takes most of the time.
    let keys = queue.view().keys();
    let verified = token::verify(pass, PASS_TYPE, &keys, &node.issuer, queue.id.as_str());
    let claims = verified.map_err(|_| Denied::NoPass)?;
    let view = queue.view();
    token::in_time(&claims, view.now()).map_err(|_| Denied::Expired)?;
    if view.is_revoked(Jti(claims.jti.0)) {
        return Err(Denied::Revoked);
    }
    Ok(claims)
}
