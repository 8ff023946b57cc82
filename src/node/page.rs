//! The waiting page, its scripts, the landing page of queues without a target of their own, and the
//! page by which visitors enter a site that has none for it.
//! They are part of the program, so that a node needs nothing beside itself.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Nothing but our own files, and no page that frames us.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// How long a browser may use a script without asking: short, since its address has no version.
const SCRIPT_CACHE: &str = "public, max-age=60";

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";

pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let file =
        |kind: &'static str, body: &'static str| get(move || async move { asset(kind, body) });
    Router::new()
        .route("/waiting/{queue}", file(HTML, include_str!("../../web/waiting.html")))
        .route("/entered/{queue}", file(HTML, include_str!("../../web/entered.html")))
        .route("/anteroom/enter", file(HTML, include_str!("../../web/enter.html")))
        .route("/waiting.css", file(CSS, include_str!("../../web/waiting.css")))
        .route("/icon.svg", file(SVG, include_str!("../../web/icon.svg")))
        .route("/client.js", file(JAVASCRIPT, include_str!("../../web/client.js")))
        .route("/room.js", file(JAVASCRIPT, include_str!("../../web/room.js")))
        .route("/entry.js", file(JAVASCRIPT, include_str!("../../web/entry.js")))
        .route("/message.js", file(JAVASCRIPT, include_str!("../../web/message.js")))
        .route("/storage.js", file(JAVASCRIPT, include_str!("../../web/storage.js")))
        .route("/waiting.js", file(JAVASCRIPT, include_str!("../../web/waiting.js")))
        .route("/entered.js", file(JAVASCRIPT, include_str!("../../web/entered.js")))
        .route("/view.js", file(JAVASCRIPT, include_str!("../../web/view.js")))
        .route("/page.js", file(JAVASCRIPT, include_str!("../../web/page.js")))
        .route("/words.js", file(JAVASCRIPT, include_str!("../../web/words.js")))
        .route("/announce.js", file(JAVASCRIPT, include_str!("../../web/announce.js")))
        // Once more for the site's own origin, which passes on only what begins like this.
        .route("/anteroom/waiting.css", file(CSS, include_str!("../../web/waiting.css")))
        .route("/anteroom/icon.svg", file(SVG, include_str!("../../web/icon.svg")))
        .route("/anteroom/client.js", file(JAVASCRIPT, include_str!("../../web/client.js")))
        .route("/anteroom/room.js", file(JAVASCRIPT, include_str!("../../web/room.js")))
        .route("/anteroom/entry.js", file(JAVASCRIPT, include_str!("../../web/entry.js")))
        .route("/anteroom/message.js", file(JAVASCRIPT, include_str!("../../web/message.js")))
        .route("/anteroom/storage.js", file(JAVASCRIPT, include_str!("../../web/storage.js")))
        .route("/anteroom/enter.js", file(JAVASCRIPT, include_str!("../../web/enter.js")))
        .route("/anteroom/page.js", file(JAVASCRIPT, include_str!("../../web/page.js")))
        .route("/anteroom/words.js", file(JAVASCRIPT, include_str!("../../web/words.js")))
}

fn asset(kind: &'static str, body: &'static str) -> Response {
    let cache = if kind == HTML { "no-cache" } else { SCRIPT_CACHE };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // A protected site may import the client from here; the files are public.
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    ];
    (headers, body).into_response()
}
