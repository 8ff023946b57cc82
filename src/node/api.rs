//! What a node answers over HTTP: the upgrade to a socket, what a page needs of a queue, the public
//! keys, and whether it is alive and ready. What the site's side asks is in `passes` and `authorize`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
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
use crate::node::counts;
use crate::node::ending::{self, End};
use crate::node::entry;
use crate::node::session::Session;
use crate::node::waiting;
use crate::node::{NoQueue, Node, Queue, authorize, page, passes};
use crate::queue::door::origin_of;
use crate::queue::event::State as QueueState;
use crate::wire::frame;
use crate::wire::token;

/// Bodies hold a token and little else.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024;
pub(super) fn router(node: Arc<Node>) -> Router {
    let fallback = || async {
        Problem::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this address.")
    };
    Router::new()
        .route("/ws/{queue}", get(socket))
        .route("/api/queues/{queue}", get(queue))
        .route("/api/tokens/redeem", post(passes::redeem).options(passes::preflight))
        .route("/anteroom/enter", post(passes::enter))
        .route("/api/passes/renew", post(passes::renew))
        .route("/anteroom/renew", post(passes::renew))
        // A gateway may ask by the method of the request that it asks about.
        .route("/api/authorize", get(authorize::authorize).fallback(authorize::authorize))
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
    origin.is_some_and(|origin| view.door().allowed_origins.iter().any(|o| o == origin))
}

/// Why nothing can be said of a queue.
pub(super) fn no_queue(why: NoQueue) -> Problem {
    match why {
        NoQueue::Unknown => Problem::unknown_queue(),
        NoQueue::Unavailable => {
            let detail = "It can't be said at the moment whether there is such a queue.";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(3)
        }
    }
}

/// What the page needs to know of a queue; where it asks by `?target=` whether that may be gone to, also
/// the target, or `null` if not.
async fn queue(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let queue = node.queue(&name).await.map_err(no_queue)?;
    let view = queue.view();
    let mut body = json!({
        "queue": queue.id.as_str(),
        "title": view.door().title,
        "content": view.door().content,
        "status": waiting::status(view.state()),
        "reason": view.reason(),
        "opensAt": view.opens_at().map(|at| clock::rfc3339(at.seconds())),
        "waiting": view.waiting(),
        "reconnectSeconds": view.policy().reconnect_seconds,
    });
    let asked = query.iter().find(|(key, _)| key == "target").map(|(_, target)| target);
    if let (Some(target), Some(body)) = (asked, body.as_object_mut()) {
        let is_allowed = view.door().may_lead_to(target);
        body.insert("target".to_owned(), is_allowed.then_some(target.as_str()).into());
    }
    let cache = [(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    Ok((cache, Json(body)).into_response())
}

/// The public keys of every queue (RFC 7517), so that any backend verifies a pass by itself. Those of a
/// queue that was deleted stay as they were then: one of them may have been stolen since.
async fn keys(State(node): State<Arc<Node>>) -> Result<Response, Problem> {
    let mut keys = BTreeMap::new();
    let deleted = |queue: &Arc<Queue>| queue.view().state() == QueueState::Deleted;
    for queue in node.all_queues().into_iter().filter(|queue| !deleted(queue)) {
        for key in queue.view().keys().iter() {
            keys.insert(key.kid.clone(), token::jwk(key));
        }
    }
    if keys.is_empty() {
        // No keys, kept by whoever asks, would make every pass a bad one.
        let detail = "The keys of no queue are known here yet.";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        return Err(problem.retry_after(1));
    }
    let cache = [(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"))];
    let keys: Vec<Value> = keys.into_values().collect();
    Ok((cache, Json(json!({ "keys": keys }))).into_response())
}

async fn ready(State(node): State<Arc<Node>>) -> Response {
    node.readiness().answer(&[])
}
