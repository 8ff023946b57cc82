//! The door to HTTP: hyper's own accept loop under axum's router, and errors as RFC 9457 problems.
//!
//! The loop is ours so that a node can take a socket over after its upgrade, with what was already
//! read of it, and so that the time and the number of connections are bounded here.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::clock;
use crate::shutdown::Shutdown;

pub mod door;
pub mod forwarded;
pub mod readiness;

use door::{Door, Handshake, Place, Refused};

/// A request's head must be here within this.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(5);
/// A head that has begun at the last moment may still come whole.
const HEADER_WAIT_MIN: Duration = Duration::from_millis(200);
/// Bytes of one connection that are buffered before a request is understood.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A request must have come and be answered within this; the slowest wait for the log is less.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
/// Of a body that is too large, so many parts of some kilobytes are read before the answer…
const DRAINED_PARTS_MAX: usize = 256;
/// … within this.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);
/// Whoever found no room is told to come back after this.
const REFUSED_SECONDS: u32 = 10;
/// Pause after accepting failed, which happens when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until asked to stop; then finishes the requests under way. No more come in than the
/// door allows.
/// Bodies have at most so many bytes.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    body_bytes_max: usize,
    door: Arc<Door>,
    shutdown: Shutdown,
) {
    let router = router.layer(DefaultBodyLimit::max(body_bytes_max));
    let body_bytes_max = body_bytes_max as u64;
    loop {
        let arrived = tokio::select! {
            arrived = accept(&listener, &door) => arrived,
            () = shutdown.stopped() => return,
        };
        let Some((stream, arrived)) = arrived else { continue };
        let service = service(router.clone(), body_bytes_max, arrived);
        let stopping = shutdown.clone();
        shutdown.spawn(async move {
            let Some(left) = spoken(&stream, &stopping).await else { return };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(left)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopping.stopped() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

/// Waits for the first byte: until it is there, nobody needs the buffers that a request takes. Of the
/// time for a request's head, what is left.
async fn spoken(stream: &TcpStream, stopping: &Shutdown) -> Option<Duration> {
    let begun = clock::monotonic();
    tokio::select! {
        spoken = tokio::time::timeout(HEADER_WAIT_MAX, stream.readable()) => spoken.ok()?.ok()?,
        () = stopping.stopped() => return None,
    }
    let passed = clock::monotonic().duration_since(begun);
    Some(HEADER_WAIT_MAX.saturating_sub(passed).max(HEADER_WAIT_MIN))
}

/// A connection that has come in. Each of its requests carries it; whoever takes the connection over
/// takes its place with it.
#[derive(Clone, Debug)]
pub struct Arrived {
    held: Arc<Mutex<Option<(Place, Handshake)>>>,
    is_from_proxy: bool,
    refused: Option<Refused>,
}

impl Arrived {
    /// The connection's place, for the one who takes it over; only once.
    pub fn take(&self) -> Option<(Place, Handshake)> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a trusted proxy speaks, on whoever's behalf.
    pub fn is_from_proxy(&self) -> bool {
        self.is_from_proxy
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// The router, with what is known of the connection in each request and a bound on the time of its
/// answer.
fn service(
    router: Router,
    body_bytes_max: u64,
    arrived: Arrived,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future = Answer,
> {
    let router = TowerToHyperService::new(router);
    service_fn(move |mut request: Request<Incoming>| -> Answer {
        if let Some(refused) = arrived.refused {
            return Box::pin(async move { Ok(Problem::from(refused).into_response()) });
        }
        if stated_length(&request) > body_bytes_max {
            return Box::pin(async move {
                // Unread, it would have the connection reset, and the answer lost with it.
                let body = Body::new(request.into_body()).into_data_stream();
                let read = body.take_while(|part| std::future::ready(part.is_ok()));
                let read = read.take(DRAINED_PARTS_MAX).for_each(|_| std::future::ready(()));
                // One who is slow about it is answered all the same.
                let _ = tokio::time::timeout(DRAIN_WAIT_MAX, read).await;
                Ok(too_large().into_response())
            });
        }
        request.extensions_mut().insert(arrived.clone());
        let answer = router.call(request);
        Box::pin(async move {
            let answer = tokio::time::timeout(ANSWER_WAIT_MAX, answer).await;
            Ok(match answer {
                Ok(Ok(answer)) => as_problem(answer),
                Ok(Err(never)) => match never {},
                Err(_) => {
                    let detail = "The request did not come to its end in time.";
                    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail).into_response()
                }
            })
        })
    })
}

/// What axum itself answers to a request that it can't take, as a problem like any other.
fn as_problem(answer: Response) -> Response {
    let is_ours = |kind: &HeaderValue| !kind.as_bytes().starts_with(b"text/plain");
    if answer.headers().get(header::CONTENT_TYPE).is_some_and(is_ours) {
        return answer;
    }
    let problem = match answer.status() {
        StatusCode::BAD_REQUEST => {
            Problem::new(StatusCode::BAD_REQUEST, "bad_request", "The request can't be read.")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let detail = "This can't be asked here in this way.";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        }
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => return answer,
    };
    let allow = answer.headers().get(header::ALLOW).cloned();
    allow.into_iter().fold(problem, |it, allow| it.with(header::ALLOW, allow)).into_response()
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large.")
}

/// How long a request says that its body is; one in pieces does not say, and is cut off at the limit.
fn stated_length(request: &Request<Incoming>) -> u64 {
    let length = request.headers().get(header::CONTENT_LENGTH);
    length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

async fn accept(listener: &TcpListener, door: &Arc<Door>) -> Option<(TcpStream, Arrived)> {
    let (mut place, handshake) = door.room().await?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Messages are small and each is wanted at once.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no delay could not be set");
            }
            let refused = place.count_peer(peer.ip()).err();
            let is_from_proxy = door.is_trusted(peer.ip());
            let held = Arc::new(Mutex::new(Some((place, handshake))));
            Some((stream, Arrived { held, is_from_proxy, refused }))
        }
        Err(error) => {
            tracing::warn!(%error, "no connection could be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        let problem = match refused {
            Refused::Address => Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail),
            Refused::Sockets => Self::new(StatusCode::SERVICE_UNAVAILABLE, "node_full", detail),
        };
        let close = HeaderValue::from_static("close");
        problem.retry_after(REFUSED_SECONDS).with(header::CONNECTION, close)
    }
}

/// An error as its reader gets it (RFC 9457), with a stable code.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with this status and code; `detail` is for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), headers: Vec::new() }
    }

    /// The log can't be reached; try again soon.
    pub fn log_unavailable() -> Self {
        let detail = "The log can't be reached. Try again in a moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "log_unavailable", detail).retry_after(3)
    }

    /// There is no such queue.
    pub fn unknown_queue() -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_queue", "There is no such queue.")
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers);
        response
    }
}
